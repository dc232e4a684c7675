//! What the README shows: the first minute and the transcript of the command line, done as they stand there.
//!
//! Every snippet has somebody who runs it: those in the shell and in Python are run here, the page by the tests of the client in
//! TypeScript. The one in Python needs an interpreter as `tests/python.rs` does.

#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[macro_use]
mod support;

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
};

use support::{PATIENCE, Process};
use uuid::Uuid;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A fenced block.
struct Snippet {
    heading: String,
    language: String,
    text: String,
}

fn snippets() -> Vec<Snippet> {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let mut snippets = Vec::new();
    let mut heading = String::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title.to_owned();
        } else if let Some(language) = line.strip_prefix("```") {
            let text: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            snippets.push(Snippet {
                heading: heading.clone(),
                language: language.to_owned(),
                text: text.join("\n"),
            });
        }
    }
    snippets
}

fn in_first_minute(language: &str) -> impl Iterator<Item = String> {
    let is_meant = move |snippet: &Snippet| {
        snippet.heading == "The first minute" && snippet.language == language
    };
    let snippets = snippets().into_iter().filter(is_meant).collect::<Vec<_>>();
    assert!(!snippets.is_empty(), "no {language} in the first minute");
    snippets.into_iter().map(|snippet| snippet.text)
}

/// Runs `line` in a shell that finds the program, and reaches `server` without being told.
fn shell(line: &str, server: &Process) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_infotainer"));
    let found = [program.parent().unwrap().into()];
    let others = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(found.into_iter().chain(env::split_paths(&others))).unwrap();
    let mut command = Command::new("bash");
    command
        .args(["-c", line])
        .env("PATH", path)
        .env("INFOTAINER_URL", url(server))
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

fn url(server: &Process) -> String {
    format!("ws://{}/ws", server.address())
}

/// A child whose lines are read as they come; it ends with this.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for a line that ends so.
    fn await_line(&self, end: &str) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no line came that ends with {end:?}"));
            if line.ends_with(end) {
                return;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn every_snippet_is_run_by_somebody() {
    for snippet in snippets() {
        match (&*snippet.heading, &*snippet.language) {
            // Here.
            ("The first minute", "sh" | "python") | ("The command line", "console") => {}
            // By the tests of the protocol in JSON.
            ("The first minute", "console" | "js") => {}
            // By the tests of the client in TypeScript.
            ("The first minute", "html") => {}
            // The first runs the tests; the second is for who asks for it.
            ("Working on it", "sh") => {
                let is_check = snippet.text == ".github/check.sh";
                assert!(is_check || snippet.text.ends_with(" --performance"));
            }
            (heading, language) => panic!("a snippet that nobody runs: {language} in {heading:?}"),
        }
    }
}

#[test]
fn the_first_minute_goes_as_it_is_told() {
    let mut server = None::<Process>;
    let mut subscriber = None;
    let (mut stored, mut by_curl) = (String::new(), false);
    for line in in_first_minute("sh").collect::<Vec<_>>().join("\n").lines() {
        match line {
            "cargo run --release" => match &mut server {
                None => server = Some(Process::start(&[])),
                Some(server) => server.start_again_there(),
            },
            // Other tests have servers too, and this one is not the oldest of them.
            "pkill -9 -o -x infotainer" => server.as_mut().unwrap().kill(),
            _ => {
                let server = server.as_ref().expect("the server is started first");
                if line.starts_with("curl ") {
                    by_curl = publish_by_curl(line, server);
                    continue;
                }
                let line = line.strip_prefix("target/release/").unwrap();
                if line.starts_with("infotainer sub") {
                    let running = Running::start(shell(&format!("exec {line}"), server));
                    subscribed(server);
                    subscriber = Some(running);
                    continue;
                }
                let output = shell(line, server).output().unwrap();
                assert!(output.status.success(), "{line}: {}", said(&output));
                stored = String::from_utf8(output.stdout).unwrap();
            }
        }
    }
    let (server, subscriber) = (server.unwrap(), subscriber.unwrap());
    subscriber.await_line(" hello, world");
    if by_curl {
        subscriber.await_line(" hello from curl");
    }
    assert!(stored.starts_with("1 "), "{stored}");
    assert!(stored.ends_with(" hello, world\n"), "{stored}");
    // It has come back by itself.
    let again = shell("infotainer pub greetings 'and again'", &server)
        .output()
        .unwrap();
    assert!(again.status.success(), "{}", said(&again));
    subscriber.await_line(" and again");
}

/// Runs the line, but for the address; false if there is no curl.
fn publish_by_curl(line: &str, server: &Process) -> bool {
    if Command::new("curl").arg("--version").output().is_err() {
        assert!(env::var_os("CI").is_none(), "curl is missing");
        return false;
    }
    let line = line.replace("127.0.0.1:8949", &server.address().to_string());
    let output = shell(&line, server).output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.contains("\"duplicate\":false"), "{answer}");
    true
}

/// Waits until somebody subscribes to `greetings`.
fn subscribed(server: &Process) {
    let told =
        "until infotainer info greetings --json | grep -q '\"connected\":1'; do sleep 0.02; done";
    let waited = shell(
        &format!(
            "timeout {} bash -c '{}'",
            PATIENCE.as_secs(),
            told.replace('\'', "'\\''")
        ),
        server,
    )
    .output()
    .unwrap();
    assert!(waited.status.success(), "{}", said(&waited));
}

#[test]
fn eight_lines_of_python_publish_and_subscribe() {
    let Some(python) = env::var_os("INFOTAINER_TEST_PYTHON") else {
        // Not through `eprintln!`, which the harness keeps to itself.
        _ = writeln!(
            io::stderr(),
            "left out: INFOTAINER_TEST_PYTHON names no Python with websockets and cbor2 (.github/check.sh makes one)"
        );
        return;
    };
    let server = Process::start(&[]);
    for script in in_first_minute("python") {
        assert_eq!(script.lines().filter(|line| !line.is_empty()).count(), 8);
        let script = script.replace("ws://127.0.0.1:8949/ws", &url(&server));
        let mut command = Command::new(&python);
        command
            .args(["-u", "-c", &script])
            .env("PYTHONPATH", Path::new(ROOT).join("clients/python/src"));
        Running::start(command).await_line("1 hello from Python");
    }
}

#[test]
fn the_transcript_is_what_the_commands_say() {
    let server = Process::start(&[]);
    let transcript = snippets()
        .into_iter()
        .find(|snippet| snippet.heading == "The command line" && snippet.language == "console")
        .unwrap();
    let (mut said, mut told) = (String::new(), String::new());
    for line in transcript.text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            told.push_str(&all_that_is_said(command, &server));
        } else {
            said.push_str(line);
            said.push('\n');
        }
    }
    assert_eq!(masked(&told), masked(&said));
}

/// Both streams in one, as a terminal shows them.
fn all_that_is_said(command: &str, server: &Process) -> String {
    let (mut reader, writer) = io::pipe().unwrap();
    let mut command = shell(command, server);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    // It holds the ends to write to.
    drop(command);
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    child.wait().unwrap();
    all
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Without what is another each time: times, and ids that are made.
fn masked(text: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-:.".contains(letter);
    let mut masked = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
        // A colon in front belongs to what is before.
        if len == 0 || first == ':' {
            masked.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, behind) = rest.split_at(len);
        let digits = word.chars().filter(char::is_ascii_digit).count();
        masked.push_str(match word {
            _ if Uuid::try_parse(word).is_ok_and(|id| id.get_version_num() != 5) => "<id>",
            _ if word.ends_with('Z') && word.contains('T') && digits == 17 => "<time>",
            _ if digits == 13 && digits == word.len() => "<time>",
            _ if word.contains('.') && word.parse::<f64>().is_ok() => "<seconds>",
            _ => word,
        });
        rest = behind;
    }
    masked
}
