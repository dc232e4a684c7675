//! The conversation from Python: a WebSocket client and a CBOR codec that share nothing with the server, nor with the other tests.
//!
//! Needs an interpreter that has what `tests/python/requirements.txt` lists, named by `INFOTAINER_TEST_PYTHON` (`.github/check.sh` makes
//! one). Without it the test says so and is left out.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[macro_use]
mod support;

use std::{
    io::{self, Write},
    process::Command,
};

use support::Process;

#[test]
fn a_client_in_python_finds_everything_as_the_protocol_says() {
    let Some(python) = std::env::var_os("INFOTAINER_TEST_PYTHON") else {
        // Not through `eprintln!`, which the harness keeps to itself.
        _ = writeln!(
            io::stderr(),
            "left out: INFOTAINER_TEST_PYTHON names no Python with websockets and cbor2 (.github/check.sh makes one)"
        );
        return;
    };
    let server = Process::start(&[]);
    let conversation = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/conversation.py");
    let output = Command::new(&python)
        .arg(conversation)
        .arg(server.address().to_string())
        .output()
        .unwrap_or_else(|error| panic!("{} can't be run: {error}", python.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
}
