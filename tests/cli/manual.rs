//! `infotainer completions` and `man`, and help.

use crate::{infotainer, printed, sentence};

const COMMANDS: [&str; 20] = [
    "serve",
    "pub",
    "sub",
    "log",
    "subscriptions",
    "info",
    "create",
    "update",
    "delete",
    "redrive",
    "bench",
    "token",
    "key",
    "verify",
    "backup",
    "restore",
    "config",
    "health",
    "completions",
    "man",
];

fn prints(args: &[&str]) -> String {
    let output = infotainer(args, &[]);
    assert_eq!(output.status.code(), Some(0), "{args:?}");
    printed(&output)
}

#[test]
fn completions_and_the_manual_page_know_every_command() {
    let help = prints(&["--help"]);
    let page = prints(&["man"]);
    for command in COMMANDS {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command}: {help}"
        );
        assert!(
            page.contains(&format!("infotainer\\-{command}(1)")),
            "{command}: {page}"
        );
        let page = prints(&["man", command]);
        assert!(
            page.contains(&format!(".TH infotainer-{command} 1")),
            "{command}: {page}"
        );
    }
    assert!(page.contains("3 timed out"), "{page}");
    assert!(prints(&["man", "sub"]).contains("INFOTAINER_URL"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = prints(&["completions", shell]);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(script.contains("session"), "{shell}");
    }
}

#[test]
fn what_there_is_no_page_or_shell_of_ends_with_2() {
    let said = sentence(&infotainer(&["man", "nothing"], &[]), 2);
    assert!(
        said.starts_with(r#"COMMAND is "nothing", but must be one of serve, pub, "#),
        "{said}"
    );
    assert_eq!(
        infotainer(&["completions", "tcsh"], &[]).status.code(),
        Some(2)
    );
}

#[test]
fn readme_shows_every_command() {
    let readme = include_str!("../../README.md");
    let section = readme.split("## The command line").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    for command in COMMANDS {
        let names = [format!("`infotainer {command}"), format!("`{command} ")];
        let is_shown = command == "serve" || names.iter().any(|name| section.contains(name));
        assert!(is_shown, "{command}");
    }
}
