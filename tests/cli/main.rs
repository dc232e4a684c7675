//! The program as one meets it in a shell.

#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "../support/mod.rs"]
#[macro_use]
mod support;

mod backups;
mod deploying;
mod encrypted;
mod health;
mod logs;
mod manual;
mod publishing;
mod queues;
mod refusals;
mod serving;
mod settings;
mod subscribing;
mod subscriptions;
mod tokens;
mod verifying;

use std::{
    env,
    io::{BufRead, BufReader, Read},
    process::{self, Child, ChildStderr, ChildStdout, Output, Stdio},
    time::Duration,
};

use assert_cmd::{Command, cargo::cargo_bin};
use serde_json::Value;
use support::{TestServer, send};

/// How long a command may take. Only a failing test ever waits for so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn infotainer(args: &[&str], variables: &[(&str, &str)]) -> Output {
    output(Command::cargo_bin("infotainer").unwrap(), args, variables)
}

fn output(mut command: Command, args: &[&str], variables: &[(&str, &str)]) -> Output {
    for (name, _) in surroundings() {
        command.env_remove(name);
    }
    command
        .timeout(PATIENCE)
        .args(args)
        .envs(variables.iter().copied());
    command.output().unwrap()
}

/// Variables around the tests that would change what the program does.
fn surroundings() -> impl Iterator<Item = (String, String)> {
    let ours = ["RUST_LOG", "NO_COLOR", "CLICOLOR_FORCE"];
    env::vars().filter(move |(name, _)| name.starts_with("INFOTAINER_") || ours.contains(&&**name))
}

/// The one sentence that the program says on stderr as it ends with `code`, without its name in front, and without any data.
fn sentence(output: &Output, code: i32) -> String {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(printed(output), "");
    let sentence = said
        .strip_prefix("infotainer: ")
        .and_then(|said| said.strip_suffix('\n'));
    let sentence = sentence.unwrap_or_else(|| panic!("no sentence: {said}"));
    assert!(!sentence.contains('\n'), "more than one line: {said}");
    sentence.into()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The objects on the lines of stdout, of a command that did what it was asked for.
fn objects(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// A server, and how its clients find it.
struct Served {
    url: String,
    _server: TestServer,
}

fn serve() -> Served {
    let server = TestServer::start();
    Served {
        url: format!("ws://{}/ws", server.address()),
        _server: server,
    }
}

impl Served {
    fn run(&self, args: &[&str]) -> Output {
        infotainer(args, &[("INFOTAINER_URL", &self.url)])
    }

    /// With this on stdin.
    fn run_with(&self, input: &[u8], args: &[&str]) -> Output {
        let mut command = Command::cargo_bin("infotainer").unwrap();
        command.write_stdin(input);
        output(command, args, &[("INFOTAINER_URL", &self.url)])
    }

    /// What a command prints that does what it was asked for.
    fn prints(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", said(&output));
        printed(&output)
    }

    fn publish(&self, name: &str, lines: &str) {
        let output = self.run_with(lines.as_bytes(), &["pub", name, "--quiet"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }

    fn start(&self, args: &[&str]) -> Running {
        Running::start(&self.url, args)
    }
}

/// A command that goes on until it is told to stop.
struct Running {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    fn start(url: &str, args: &[&str]) -> Self {
        let mut command = process::Command::new(cargo_bin("infotainer"));
        for (name, _) in surroundings() {
            command.env_remove(name);
        }
        let mut child = command
            .args(args)
            .env("INFOTAINER_URL", url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdout: child.stdout.take().map(BufReader::new),
            stderr: BufReader::new(child.stderr.take().unwrap()),
            child,
        }
    }

    /// The next line of stdout.
    fn line(&mut self) -> String {
        next_line(self.stdout.as_mut().unwrap())
    }

    /// The next line of stderr.
    fn note(&mut self) -> String {
        next_line(&mut self.stderr)
    }

    /// Closes the pipe that the command writes to.
    fn stop_reading(&mut self) {
        self.stdout = None;
    }

    fn signal(&self, signal: &str) {
        send(signal, &self.child);
    }

    /// Its exit code, and what else it said on stderr.
    fn ended(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, but for a test that fails.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn next_line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.strip_suffix('\n').expect("one more line").to_owned()
}
