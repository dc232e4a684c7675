//! `infotainer serve`: help, version, and what it says about bad settings.

use std::process::Output;

use assert_cmd::{Command, cargo::cargo_bin};

use crate::{infotainer, output, sentence};

/// As [`infotainer`], where a process may have 300 files open and no more, so that the start fails.
fn infotainer_with_few_files(variables: &[(&str, &str)]) -> Output {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -n 300 && exec \"$0\" \"$@\""])
        .arg(cargo_bin("infotainer"));
    output(shell, &[], variables)
}

/// What the program says on stderr when it refuses to start with 2, without its name in front.
fn refusal(args: &[&str], variables: &[(&str, &str)]) -> String {
    sentence(&infotainer(args, variables), 2)
}

#[test]
fn a_bad_variable_ends_the_start_with_2_its_name_what_it_got_and_what_it_wants() {
    let size = "a size: a whole number with nothing (bytes), KiB, MiB or GiB, such as 256KiB";
    let duration = "a duration: a whole number with ms, s, m, h or d, such as 30s";
    let cases = [
        (
            "INFOTAINER_LISTEN",
            "8949",
            r#""8949""#,
            "an IP address and a port, such as 127.0.0.1:8949 or [::1]:8949",
        ),
        ("INFOTAINER_LOG_FORMAT", "xml", r#""xml""#, "text or json"),
        (
            "INFOTAINER_DURABILITY",
            "synced",
            r#""synced""#,
            "Synced, Written or Memory",
        ),
        ("INFOTAINER_MAX_MESSAGE_SIZE", "1MB", r#""1MB""#, size),
        (
            "INFOTAINER_MAX_MESSAGE_SIZE",
            "1000",
            "1000 bytes",
            "from 1KiB to 16MiB",
        ),
        (
            "INFOTAINER_MAX_MESSAGE_SIZE",
            "17MiB",
            "17MiB",
            "from 1KiB to 16MiB (a message is held in memory whole",
        ),
        (
            "INFOTAINER_MAX_CONNECTIONS",
            "many",
            r#""many""#,
            "a whole number",
        ),
        ("INFOTAINER_MAX_CONNECTIONS", "0", "0", "from 1 to 1000000"),
        (
            "INFOTAINER_MAX_SUBSCRIPTIONS_PER_SESSION",
            "0",
            "0",
            "from 1 to 100000",
        ),
        (
            "INFOTAINER_MAX_SUBSCRIPTIONS",
            "-1",
            r#""-1""#,
            "a whole number",
        ),
        ("INFOTAINER_MAX_SESSIONS", "1k", r#""1k""#, "a whole number"),
        ("INFOTAINER_HANDSHAKE_TIMEOUT", "5", r#""5""#, duration),
        (
            "INFOTAINER_HEARTBEAT_INTERVAL",
            "0s",
            "0ms",
            "from 10ms to 1d",
        ),
        (
            "INFOTAINER_HEARTBEAT_TIMEOUT",
            "1m30s",
            r#""1m30s""#,
            duration,
        ),
        ("INFOTAINER_WRITE_TIMEOUT", "1 s", r#""1 s""#, duration),
        (
            "INFOTAINER_SHUTDOWN_TIMEOUT",
            "2h",
            "7200000ms",
            "from 10ms to 1h",
        ),
        ("INFOTAINER_SESSION_EXPIRY", "1w", r#""1w""#, duration),
        (
            "INFOTAINER_ALLOWED_ORIGINS",
            "example.com",
            r#""example.com""#,
            "*, or a comma list of origins",
        ),
        (
            "INFOTAINER_RETENTION_MAX_PUBLICATIONS",
            "0",
            "0",
            "more than 0",
        ),
        ("INFOTAINER_RETENTION_MAX_BYTES", "1GB", r#""1GB""#, size),
        ("INFOTAINER_RETENTION_MAX_AGE", "1y", r#""1y""#, duration),
        (
            "INFOTAINER_MEMORY_LOG",
            "1KiB",
            "1KiB",
            "from 64KiB to 1024GiB",
        ),
        (
            "INFOTAINER_JOURNAL_SIZE",
            "256KiB",
            "256KiB",
            "from 512KiB to 1GiB",
        ),
        (
            "INFOTAINER_OUTBOX_SIZE",
            "1KiB",
            "1KiB",
            "from 64KiB to 1GiB",
        ),
        (
            "INFOTAINER_MAX_CONNECTIONS_PER_ADDRESS",
            "0",
            "0",
            "from 1 to 1000000",
        ),
        (
            "INFOTAINER_CONNECTION_RATE_MESSAGES",
            "10/s",
            r#""10/s""#,
            "a whole number",
        ),
        (
            "INFOTAINER_CONNECTION_RATE_BYTES",
            "1023",
            "1023 bytes",
            "from 1KiB to 1GiB",
        ),
        (
            "INFOTAINER_IDENTITY_RATE_MESSAGES",
            "0",
            "0",
            "from 1 to 1000000",
        ),
        (
            "INFOTAINER_IDENTITY_RATE_BYTES",
            "2GiB",
            "2GiB",
            "from 1KiB to 1GiB",
        ),
        (
            "INFOTAINER_IDENTITY_MAX_CONNECTIONS",
            "0",
            "0",
            "from 1 to 1000000",
        ),
        (
            "INFOTAINER_IDENTITY_MAX_SUBSCRIPTIONS",
            "-1",
            r#""-1""#,
            "a whole number",
        ),
        ("INFOTAINER_IDENTITY_MAX_LOG_BYTES", "1B", r#""1B""#, size),
        ("INFOTAINER_WORKERS", "65", "65", "from 1 to 64"),
        (
            "INFOTAINER_LOG",
            "infotainer=loud",
            r#""infotainer=loud""#,
            "a log filter in env_logger's syntax",
        ),
        (
            "RUST_LOG",
            "infotainer=loud",
            r#""infotainer=loud""#,
            "a log filter in env_logger's syntax",
        ),
    ];
    for (name, value, got, wants) in cases {
        let said = refusal(&[], &[(name, value)]);
        let expected = format!("{name} is {got}, but must be {wants}");
        assert!(said.starts_with(&expected), "{name}={value}: {said}");
    }
}

#[test]
fn an_empty_variable_is_a_bad_value() {
    let said = refusal(&[], &[("INFOTAINER_DATA_DIR", "")]);
    assert_eq!(said, "INFOTAINER_DATA_DIR is empty, but must have a value");
    let said = refusal(&[], &[("INFOTAINER_WORKERS", "")]);
    assert_eq!(
        said,
        "INFOTAINER_WORKERS is empty, but must be a whole number"
    );
}

#[test]
fn a_bad_flag_is_named_as_a_flag_even_where_its_variable_is_set() {
    let said = refusal(&["--workers=0"], &[("INFOTAINER_WORKERS", "1")]);
    assert_eq!(said, "--workers is 0, but must be from 1 to 64");
    let said = refusal(&["serve", "--outbox-size", "1MB"], &[]);
    assert!(
        said.starts_with(r#"--outbox-size is "1MB", but must be a size"#),
        "{said}"
    );
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2() {
    for args in [&["publish-all"][..], &["--bogus"], &["serve", "now"]] {
        assert_eq!(infotainer(args, &[]).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn version_and_help_go_to_stdout_and_end_with_0() {
    let version = infotainer(&["--version"], &[]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        concat!("infotainer ", env!("CARGO_PKG_VERSION"), "\n")
    );

    let help = infotainer(
        &["serve", "--help"],
        &[(
            "INFOTAINER_WORKERS",
            "a bad value does not take the help away",
        )],
    );
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8(help.stdout).unwrap();
    for word in [
        "--max-message-size <SIZE>",
        "INFOTAINER_MAX_MESSAGE_SIZE",
        "256KiB",
        "INFOTAINER_SESSION_EXPIRY",
        "24h",
    ] {
        assert!(help.contains(word), "{word} is not in the help:\n{help}");
    }
}

#[test]
fn a_limit_of_open_files_that_is_too_low_ends_the_start_with_1_and_says_so() {
    let output = infotainer_with_few_files(&[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("10000 connections need 10256 open files, but this process may have 300"),
        "{said}"
    );
}

#[test]
fn an_unknown_variable_is_warned_of_and_the_nearest_name_told() {
    let output = infotainer_with_few_files(&[
        ("INFOTAINER_WROKERS", "1"),
        ("INFOTAINER_COLOUR", "blue"),
        ("INFOTAINER_URL", "ws://127.0.0.1:1"),
    ]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(
            "INFOTAINER_WROKERS is no setting of infotainer; was INFOTAINER_WORKERS meant?"
        ),
        "{said}"
    );
    assert!(
        said.contains("INFOTAINER_COLOUR is no setting of infotainer\n"),
        "{said}"
    );
    assert!(!said.contains("INFOTAINER_URL"), "{said}");
}

#[test]
fn log_lines_in_json_are_one_object_each() {
    let output = infotainer_with_few_files(&[
        ("INFOTAINER_LOG_FORMAT", "json"),
        ("INFOTAINER_COLOUR", "blue"),
    ]);
    let said = String::from_utf8(output.stderr).unwrap();
    let line: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(line["level"], "WARN");
    assert_eq!(
        line["message"],
        "INFOTAINER_COLOUR is no setting of infotainer"
    );
    assert!(
        line["time"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z')),
        "{line}"
    );
}
