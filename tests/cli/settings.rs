//! `infotainer config`: what is in effect, and where it comes from.

use std::{collections::BTreeMap, fs};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    infotainer, objects, printed, said, sentence,
    support::{Authority, Pair, Secured},
};

/// The settings by name.
fn settings(args: &[&str], variables: &[(&str, &str)]) -> BTreeMap<String, Value> {
    let output = infotainer(&[&["config", "--json"], args].concat(), variables);
    let settings = objects(&output).into_iter();
    settings
        .map(|setting| (setting["setting"].as_str().unwrap().to_owned(), setting))
        .collect()
}

#[test]
fn each_setting_is_shown_with_where_it_comes_from() {
    let settings = settings(
        &["--workers=3", "--log-format", "json"],
        &[
            ("INFOTAINER_WORKERS", "5"),
            ("INFOTAINER_OUTBOX_SIZE", "2MiB"),
            ("RUST_LOG", "warn"),
        ],
    );
    let shown = |name: &str| {
        let setting = &settings[name];
        [&setting["value"], &setting["source"], &setting["from"]].map(Value::to_string)
    };
    assert_eq!(shown("workers"), [r#""3""#, r#""flag""#, "null"]);
    assert_eq!(shown("log-format"), [r#""json""#, r#""flag""#, "null"]);
    assert_eq!(shown("outbox-size"), [r#""2MiB""#, r#""variable""#, "null"]);
    assert_eq!(
        shown("log"),
        [r#""warn""#, r#""variable""#, r#""RUST_LOG""#]
    );
    assert_eq!(
        shown("max-sessions"),
        [r#""1000000""#, r#""default""#, "null"]
    );
    assert_eq!(shown("tls-cert"), [r#""none""#, r#""default""#, "null"]);
    assert_eq!(
        settings["outbox-size"]["variable"],
        "INFOTAINER_OUTBOX_SIZE"
    );
}

#[test]
fn without_settings_everything_is_a_default() {
    let settings = settings(&[], &[]);
    for (name, setting) in &settings {
        assert_eq!(setting["source"], "default", "{name}");
    }
    let workers = settings["workers"]["value"].as_str().unwrap();
    assert!(workers.parse::<usize>().is_ok(), "{workers}");
    assert_eq!(settings["log"]["value"], "info");
}

#[test]
fn for_people_it_is_a_table() {
    let output = infotainer(&["config"], &[("INFOTAINER_WORKERS", "5")]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let table = printed(&output);
    let row = |line: &str| {
        line.split_whitespace()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let rows: Vec<_> = table.lines().map(row).collect();
    assert_eq!(rows[0], ["SETTING", "VALUE", "FROM"]);
    assert_eq!(rows[1], ["listen", "127.0.0.1:8949", "default"]);
    let workers = vec!["workers".into(), "5".into(), "INFOTAINER_WORKERS".into()];
    assert!(rows.contains(&workers), "{table}");
}

#[test]
fn a_check_says_nothing_of_good_settings() {
    let output = infotainer(&["config", "--check"], &[]);
    assert_eq!(
        (output.status.code(), said(&output)),
        (Some(0), String::new())
    );
    assert_eq!(printed(&output), "");
}

#[test]
fn a_check_ends_with_2_where_a_start_would() {
    let checked = |args: &[&str], variables: &[(&str, &str)]| {
        sentence(
            &infotainer(&[&["config", "--check"], args].concat(), variables),
            2,
        )
    };
    assert_eq!(
        checked(&[], &[("INFOTAINER_WORKERS", "65")]),
        "INFOTAINER_WORKERS is 65, but must be from 1 to 64"
    );
    assert_eq!(
        checked(&["--tls-cert", "tls.crt"], &[]),
        "INFOTAINER_TLS_KEY is not set, but must be the file with the key of the certificate"
    );
    assert_eq!(
        checked(
            &[
                "--tls-cert",
                "/nowhere/tls.crt",
                "--tls-key=/nowhere/tls.key"
            ],
            &[]
        ),
        "TLS: the certificate /nowhere/tls.crt can't be read: No such file or directory (os error 2)"
    );
    let output = infotainer(&["config"], &[("INFOTAINER_WORKERS", "65")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(printed(&output).contains("65"), "what is bad is shown");
}

/// What the program says of a pair, with and without `--check`.
fn of_pair(certificate: &str, key: &str, command: &[&str]) -> (Option<i32>, String) {
    let dir = TempDir::new().unwrap();
    let [certificate, key] = [("tls.crt", certificate), ("tls.key", key)].map(|(name, pem)| {
        let path = dir.path().join(name);
        fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let variables = [
        ("INFOTAINER_TLS_CERT", &*certificate),
        ("INFOTAINER_TLS_KEY", &key),
        ("INFOTAINER_DATA_DIR", dir.path().to_str().unwrap()),
    ];
    let output = infotainer(command, &variables);
    let folder = format!("{}/", dir.path().display());
    (output.status.code(), said(&output).replace(&folder, ""))
}

#[test]
fn a_start_with_credentials_that_can_not_be_used_ends_with_2_as_the_check_does() {
    for command in [&["serve"][..], &["config", "--check"]] {
        let variables = [("INFOTAINER_API_KEYS_FILE", "/nowhere/keys")];
        let said = sentence(&infotainer(command, &variables), 2);
        assert!(said.contains("/nowhere/keys"), "{said}");
    }
}

#[test]
fn a_start_with_a_key_of_another_certificate_ends_with_2_as_the_check_does() {
    let authority = Authority::new("a test");
    let (one, other) = (authority.issue(&["a"]), authority.issue(&["a"]));
    let expected = (
        Some(2),
        "infotainer: TLS: the private key tls.key is not that of the certificate tls.crt\n".into(),
    );
    for command in [&["serve"][..], &["config", "--check"]] {
        assert_eq!(of_pair(&one.certificate, &other.key, command), expected);
    }
}

#[test]
fn a_certificate_that_has_run_out_is_warned_of() {
    let Pair { certificate, key } = Authority::new("a test").issue_until(&["a"], 2001);
    let (code, said) = of_pair(&certificate, &key, &["config", "--check"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        said,
        "infotainer: the certificate tls.crt ran out at 2001-01-01T00:00:00Z: clients refuse it\n"
    );
}

#[test]
fn an_unknown_variable_is_told() {
    let output = infotainer(&["config", "--check"], &[("INFOTAINER_WROKERS", "1")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output).contains("was INFOTAINER_WORKERS meant?"));
}

#[test]
fn secrets_are_hidden_wherever_they_come_from() {
    let secret = "a secret of more than thirty-two bytes";
    let hidden = ["jwt-secret", "jwt-public-key"];
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, secret).unwrap();
    let file = file.to_str().unwrap();
    for (args, variables, source) in [
        (vec!["--jwt-secret", secret], vec![], "flag"),
        (vec![], vec![("INFOTAINER_JWT_SECRET", secret)], "variable"),
        (vec![], vec![("INFOTAINER_JWT_SECRET_FILE", file)], "file"),
    ] {
        let shown = settings(&args, &variables);
        let shown = &shown[hidden[0]];
        assert_eq!(shown["source"], source);
        assert!(shown["value"].is_null(), "{shown}");
        let table = infotainer(&[&["config"], &args[..]].concat(), &variables);
        assert!(printed(&table).contains("(hidden)"), "{source}");
        for said in [printed(&table), said(&table)] {
            assert!(!said.contains(secret), "{said}");
        }
    }
    for name in hidden {
        assert_eq!(settings(&[], &[])[name]["value"], "none", "{name}");
    }
}

#[test]
fn paths_of_a_certificate_are_no_secrets() {
    let secured = Secured::new();
    let (certificate, key) = (secured.path("tls.crt"), secured.path("tls.key"));
    let settings = settings(
        &[],
        &[
            ("INFOTAINER_TLS_CERT", certificate.to_str().unwrap()),
            ("INFOTAINER_TLS_KEY", key.to_str().unwrap()),
        ],
    );
    assert_eq!(settings["tls-key"]["value"], key.to_str().unwrap());
}
