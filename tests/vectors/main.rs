//! The shared test vectors (`docs/vectors`), read as every client reads them: what the server makes of each message, what
//! it sends, that both fit the grammar (`docs/protocol.cddl`), and that notation and bytes are the same.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod commands;
mod frames;
mod grammar;
mod item;
mod json;
mod responses;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use infotainer::protocol::ErrorCode;
use serde::Deserialize;
use serde_json::{Map, Value};

use item::Item;

/// One of `docs/vectors/*.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    protocol: u32,
    direction: Direction,
    about: String,
    vectors: Vec<Vector>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "kebab-case")]
enum Direction {
    ClientToServer,
    ServerToClient,
}

/// Its fields are explained in `docs/vectors/README.md`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    #[serde(rename = "hex", deserialize_with = "from_hex")]
    bytes: Vec<u8>,
    diagnostic: Option<String>,
    meaning: String,
    request_id: Option<u64>,
    command: Option<String>,
    response: Option<String>,
    fields: Option<Map<String, Value>>,
    error: Option<Refusal>,
    #[serde(default)]
    exact: bool,
    uuid: Option<String>,
    #[serde(default)]
    grammar_cannot_tell: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    code: String,
    command: Option<String>,
}

fn from_hex<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    Ok(bytes_of(&String::deserialize(deserializer)?))
}

fn bytes_of(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "half a byte in {hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

fn files() -> Vec<File> {
    let mut paths: Vec<_> = documents()
        .join("vectors")
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
        })
        .collect()
}

fn vectors(direction: Direction) -> Vec<Vector> {
    files()
        .into_iter()
        .filter(|file| file.direction == direction)
        .flat_map(|file| file.vectors)
        .collect()
}

const COMMANDS: [&str; 15] = [
    "Subscribe",
    "Unsubscribe",
    "SubmitPublication",
    "Acknowledge",
    "Reject",
    "Extend",
    "GetLogIndex",
    "GetLogEntries",
    "CreateSubscription",
    "UpdateSubscription",
    "GetSubscription",
    "ListSubscriptions",
    "DeleteSubscription",
    "Authenticate",
    "Ping",
];

const RESPONSES: [&str; 18] = [
    "Welcome",
    "Subscribed",
    "Unsubscribed",
    "Deleted",
    "Submitted",
    "Acknowledged",
    "Rejected",
    "Extended",
    "Publication",
    "LogIndex",
    "DataLogEntry",
    "SubscriptionMeta",
    "Subscriptions",
    "Gap",
    "Pong",
    "Authenticated",
    "TokenExpiring",
    "Error",
];

const ERROR_CODES: [ErrorCode; 15] = [
    ErrorCode::Malformed,
    ErrorCode::UnknownCommand,
    ErrorCode::UnsupportedFormat,
    ErrorCode::InvalidArgument,
    ErrorCode::NotFound,
    ErrorCode::KindMismatch,
    ErrorCode::Conflict,
    ErrorCode::NotAuthorized,
    ErrorCode::TooLarge,
    ErrorCode::RateLimited,
    ErrorCode::LimitReached,
    ErrorCode::LogFull,
    ErrorCode::LogUnavailable,
    ErrorCode::ShuttingDown,
    ErrorCode::Internal,
];

#[test]
fn every_vector_has_a_name_of_its_own_and_one_outcome() {
    let mut names = HashSet::new();
    for file in files() {
        assert_eq!(file.protocol, 1);
        assert!(!file.about.is_empty());
        for vector in file.vectors {
            let name = &vector.name;
            assert!(names.insert(name.clone()), "{name} stands twice");
            assert!(!vector.meaning.is_empty(), "{name}");
            let outcomes = [
                vector.command.is_some(),
                vector.response.is_some(),
                vector.error.is_some(),
            ];
            assert_eq!(
                outcomes.iter().filter(|outcome| **outcome).count(),
                1,
                "{name}"
            );
            assert_eq!(vector.fields.is_none(), vector.error.is_some(), "{name}");
            assert_eq!(
                vector.response.is_some(),
                file.direction == Direction::ServerToClient,
                "{name}"
            );
        }
    }
}

#[test]
fn every_command_response_and_error_code_has_exact_vectors() {
    let commands = vectors(Direction::ClientToServer);
    for command in COMMANDS {
        let exact = commands
            .iter()
            .any(|vector| vector.exact && vector.command.as_deref() == Some(command));
        assert!(exact, "{command}");
    }
    let responses = vectors(Direction::ServerToClient);
    for response in RESPONSES {
        let exact = responses
            .iter()
            .any(|vector| vector.exact && vector.response.as_deref() == Some(response));
        assert!(exact, "{response}");
    }
    for code in ERROR_CODES {
        let exact = responses.iter().any(|vector| {
            vector.response.as_deref() == Some("Error")
                && vector.fields.as_ref().unwrap()["code"] == code.as_str()
        });
        assert!(exact, "{code}");
    }
}

#[test]
fn notation_and_bytes_of_every_vector_are_the_same() {
    for vector in files().into_iter().flat_map(|file| file.vectors) {
        let shown = Item::read(&vector.bytes).map(|item| item.to_string());
        assert_eq!(shown, vector.diagnostic, "{}", vector.name);
    }
}
