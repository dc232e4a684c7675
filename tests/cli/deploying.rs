//! What runs the program elsewhere: the unit, the image, and what is said about them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{infotainer, objects, printed};

const UNIT: &str = include_str!("../../deploy/infotainer.service");
const SETTINGS: &str = include_str!("../../deploy/environment");
const IMAGE: &str = include_str!("../../Dockerfile");
const CONTEXT: &str = include_str!("../../.dockerignore");
const PACKAGE: &str = include_str!("../../Cargo.toml");
const TEXT: &str = include_str!("../../docs/operations.md");

/// The words of `text` that look like variables of ours.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .filter(|word| word.starts_with("INFOTAINER_"))
}

#[test]
fn variables_that_are_named_exist() {
    let mut known: BTreeSet<String> = objects(&infotainer(&["config", "--json"], &[]))
        .into_iter()
        .map(|setting| setting["variable"].as_str().unwrap().to_owned())
        .collect();
    let help = printed(&infotainer(&["sub", "--help"], &[]));
    known.extend(variables(&help).map(String::from));
    for (name, text) in [
        ("infotainer.service", UNIT),
        ("environment", SETTINGS),
        ("Dockerfile", IMAGE),
        ("operations.md", TEXT),
    ] {
        for variable in variables(text) {
            assert!(known.contains(variable), "{name}: {variable}");
        }
    }
}

#[test]
fn commands_that_are_run_exist() {
    assert!(UNIT.contains("\nExecStart=/usr/bin/infotainer serve\n"));
    assert!(IMAGE.contains("ENTRYPOINT [\"infotainer\"]\nCMD [\"serve\"]\n"));
    assert!(IMAGE.contains("CMD [\"infotainer\", \"health\"]\n"));
    for command in ["serve", "health"] {
        let help = infotainer(&[command, "--help"], &[]);
        assert_eq!(help.status.code(), Some(0), "{command}");
    }
}

#[test]
fn the_unit_waits_longer_for_a_stop_than_the_server_does() {
    // Three steps of a stop wait so long each.
    let settings = objects(&infotainer(&["config", "--json"], &[]));
    let of_server = settings
        .iter()
        .find(|setting| setting["setting"] == "shutdown-timeout")
        .unwrap();
    assert_eq!(of_server["value"], "10s");
    assert!(UNIT.contains("\nTimeoutStopSec=60s\n"));
}

/// The files outside of `src` that the program holds, tests left out: what `include_str!` and `include_bytes!` name.
fn embedded(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            embedded(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let program = text.split("#[cfg(test)]").next().unwrap();
        for behind in ["include_str!(\"", "include_bytes!(\""]
            .into_iter()
            .flat_map(|call| program.split(call).skip(1))
        {
            let name = behind.split('"').next().unwrap();
            let file = folder.join(name).canonicalize().unwrap();
            let file = file.strip_prefix(root.canonicalize().unwrap()).unwrap();
            if !file.starts_with("src") {
                found.insert(file.to_owned());
            }
        }
    }
}

#[test]
fn the_image_is_built_of_everything_that_the_program_holds() {
    let mut files = BTreeSet::new();
    embedded(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    assert!(files.contains(Path::new("docs/openapi.json")), "{files:?}");
    for file in files {
        let name = file.to_str().unwrap();
        let folder = file.parent().unwrap().to_str().unwrap();
        assert!(
            IMAGE.contains(&format!("\nCOPY {name} {folder}/\n")),
            "{name}"
        );
        assert!(CONTEXT.contains(&format!("\n!{name}\n")), "{name}");
    }
}

/// The text between the first `begin` and the `end` behind it.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, behind) = text.split_once(begin).unwrap();
    behind.split_once(end).unwrap().0
}

#[test]
fn the_description_of_the_package_fits_the_lines_of_a_terminal() {
    // cargo-deb breaks lines that are longer, and leaves the rest of each on a line of its own.
    let line = between(PACKAGE, "\ndescription = \"", "\"\n");
    let text = between(PACKAGE, "\nextended-description = \"\"\"\n", "\"\"\"");
    for line in text.lines().chain([line]) {
        assert!(line.len() < 79, "{line}");
    }
}
