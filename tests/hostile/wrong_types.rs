//! Every field of every command with everything that it cannot be.

use std::{collections::BTreeSet, fs, path::Path};

use serde_cbor::Value;

use crate::support::{Cbor, Client, Raw, Response, TestServer, encode};

/// What a field takes.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Type {
    Reference,
    Uuid,
    Bytes,
    /// Any.
    Text,
    Bool,
    Kind,
    Durability,
    From,
    /// From 1, below 2^53.
    Positive,
    /// From 0, below 2^53.
    Natural,
    /// From 1 to so many.
    UpTo(u64),
    Ids,
    Settings,
    Retention,
}

use Type::*;

/// A command's name, the fields that it needs, and all that it has.
type Command = (
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, Type)],
);

const COMMANDS: [Command; 15] = [
    (
        "Subscribe",
        &["subscription_id"],
        &[
            ("subscription_id", Reference),
            ("kind", Kind),
            ("from", From),
            ("epoch", Uuid),
            ("prefetch", UpTo(65_535)),
        ],
    ),
    (
        "Unsubscribe",
        &["subscription_id"],
        &[("subscription_id", Reference)],
    ),
    (
        "SubmitPublication",
        &["subscription_id", "submission"],
        &[
            ("subscription_id", Reference),
            ("submission", Bytes),
            ("kind", Kind),
            ("publication_id", Uuid),
            ("expected_sequence", Positive),
        ],
    ),
    (
        "Acknowledge",
        &["subscription_id"],
        &[
            ("subscription_id", Reference),
            ("sequence", Positive),
            ("publication_ids", Ids),
        ],
    ),
    (
        "Reject",
        &["subscription_id", "publication_ids"],
        &[
            ("subscription_id", Reference),
            ("publication_ids", Ids),
            ("delay", Natural),
            ("dead_letter", Bool),
        ],
    ),
    (
        "Extend",
        &["subscription_id", "publication_ids"],
        &[("subscription_id", Reference), ("publication_ids", Ids)],
    ),
    (
        "GetLogIndex",
        &["log_id"],
        &[
            ("log_id", Reference),
            ("after", Natural),
            ("limit", UpTo(10_000)),
        ],
    ),
    (
        "GetLogEntries",
        &["log_id"],
        &[
            ("log_id", Reference),
            ("entries", Ids),
            ("after", Natural),
            ("limit", UpTo(10_000)),
        ],
    ),
    (
        "CreateSubscription",
        &["subscription_id"],
        &[
            ("subscription_id", Reference),
            ("kind", Kind),
            ("settings", Settings),
        ],
    ),
    (
        "UpdateSubscription",
        &["subscription_id", "settings"],
        &[("subscription_id", Reference), ("settings", Settings)],
    ),
    (
        "GetSubscription",
        &["subscription_id"],
        &[("subscription_id", Reference)],
    ),
    (
        "ListSubscriptions",
        &[],
        &[("after", Uuid), ("limit", UpTo(1_000))],
    ),
    (
        "DeleteSubscription",
        &["subscription_id"],
        &[("subscription_id", Reference)],
    ),
    ("Ping", &[], &[]),
    ("Authenticate", &["token"], &[("token", Text)]),
];

const SETTINGS: [(&str, Type); 5] = [
    ("retention", Retention),
    ("durability", Durability),
    ("ack_timeout", Natural),
    ("max_deliveries", Natural),
    ("dead_letter", Reference),
];

const RETENTION: [(&str, Type); 3] = [
    ("max_publications", Positive),
    ("max_bytes", Positive),
    ("max_age", Positive),
];

const FROM: [(&str, Type); 3] = [("After", Natural), ("Since", Natural), ("Last", Natural)];

/// Items of every kind, as bytes. Texts with control characters and names of kinds stand for what is nearly right.
const ITEMS: [(&str, &[u8]); 32] = [
    ("0", b"\x00"),
    ("1", b"\x01"),
    ("65536", b"\x1a\x00\x01\x00\x00"),
    ("2^53", b"\x1b\x00\x20\x00\x00\x00\x00\x00\x00"),
    ("2^64 - 1", b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("-1", b"\x20"),
    ("-2^64", b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("1.0", b"\xf9\x3c\x00"),
    ("NaN", b"\xf9\x7e\x00"),
    (
        "1.0 in eight bytes",
        b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00",
    ),
    ("no bytes", b"\x40"),
    ("15 bytes", b"\x4f..............."),
    ("17 bytes", b"\x51................."),
    ("bytes in pieces", b"\x5f\x42ab\xff"),
    ("no text", b"\x60"),
    ("a text with a line feed", b"\x62x\x0a"),
    ("a text that is not UTF-8", b"\x62\xc3\x28"),
    ("a text that is a number", b"\x611"),
    ("a kind in lower case", b"\x65queue"),
    ("a text in pieces", b"\x7f\x63Syn\x64cing\xff"),
    ("an array in an array", b"\x81\x80"),
    ("an array of a text", b"\x81\x61x"),
    ("an array of 256", b"\x81\x19\x01\x00"),
    ("an array of -1", b"\x81\x20"),
    ("an array of a float", b"\x9f\xf9\x3c\x00\xff"),
    ("a map of an unknown key", b"\xa1\x61x\x01"),
    ("a map with a number as key", b"\xbf\x01\x01\xff"),
    ("a map with null as key", b"\xa1\xf6\x01"),
    ("false", b"\xf4"),
    ("undefined", b"\xf7"),
    ("a simple value", b"\xf8\xff"),
    ("a tagged -1", b"\xc1\x20"),
];

/// Whether a field of this type takes this item: all that the protocol allows of [`ITEMS`], and `null` is not among these.
fn takes(kind: Type, item: &str) -> bool {
    let text = matches!(
        item,
        "a text that is a number" | "a kind in lower case" | "a text in pieces"
    );
    match kind {
        Reference => text,
        Uuid | Kind | Durability | From | Ids | Settings | Retention => false,
        Bytes => matches!(
            item,
            "no bytes" | "15 bytes" | "17 bytes" | "bytes in pieces"
        ),
        Text => text || matches!(item, "no text" | "a text with a line feed"),
        Bool => item == "false",
        Positive => matches!(item, "1" | "65536"),
        Natural => matches!(item, "0" | "1" | "65536"),
        UpTo(most) => item == "1" || (item == "65536" && most >= 65_536),
    }
}

/// An item that a field of this type takes.
fn good(field: &str, kind: Type) -> Vec<u8> {
    match kind {
        Reference => encode(&"wrong".cbor()),
        Bytes => encode(&b"x".cbor()),
        Text => encode(&"x".cbor()),
        Ids => vec![0x80],
        Settings => vec![0xa0],
        _ => panic!("{field} is not needed by any command"),
    }
}

/// A map of these pairs, as bytes.
fn map(pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0xa0 | pairs.len() as u8];
    for (key, value) in pairs {
        bytes.extend(encode(&(*key).cbor()));
        bytes.extend_from_slice(value);
    }
    bytes
}

/// Every command with one field wrong: what it is called, the command's name and its fields.
fn wrong_commands() -> Vec<(String, &'static str, Vec<u8>)> {
    let mut wrong = Vec::new();
    for (command, needed, fields) in COMMANDS {
        // The fields that it needs are right, but for the one in question.
        let with = |field: &str, value: &[u8]| {
            let kind_of = |name: &str| fields.iter().find(|(known, _)| *known == name).unwrap().1;
            let others: Vec<_> = needed
                .iter()
                .filter(|name| **name != field)
                .map(|name| (*name, good(name, kind_of(name))))
                .collect();
            let mut pairs: Vec<(&str, &[u8])> = vec![(field, value)];
            pairs.extend(others.iter().map(|(name, value)| (*name, &value[..])));
            map(&pairs)
        };
        for &(field, kind) in fields {
            for (item, bytes) in ITEMS {
                if !takes(kind, item) {
                    let what = format!("{command}.{field} is {item}");
                    wrong.push((what, command, with(field, bytes)));
                }
                let inner: &[(&str, Type)] = match kind {
                    From => &FROM,
                    Settings => &SETTINGS,
                    _ => &[],
                };
                for &(name, inner_kind) in inner {
                    if !takes(inner_kind, item) {
                        let what = format!("{command}.{field}.{name} is {item}");
                        let value = map(&[(name, bytes)]);
                        wrong.push((what, command, with(field, &value)));
                    }
                }
                if kind == Settings {
                    for (name, inner_kind) in RETENTION {
                        if !takes(inner_kind, item) {
                            let what = format!("{command}.{field}.retention.{name} is {item}");
                            let value = map(&[("retention", &map(&[(name, bytes)]))]);
                            wrong.push((what, command, with(field, &value)));
                        }
                    }
                }
            }
        }
        for field in needed {
            let what = format!("{command}.{field} is null");
            wrong.push((what, command, with(field, &[0xf6])));
        }
    }
    wrong
}

#[tokio::test]
async fn every_field_of_every_command_refuses_what_it_cannot_be_and_nothing_happens() {
    let server = TestServer::start();
    let mut witness = server.client().await;
    let mut raw = Raw::open(server.address(), "/ws").await;
    let wrong = wrong_commands();
    println!("{} commands", wrong.len());
    assert!(wrong.len() > 1_000);
    for part in (1_u64..).zip(&wrong).collect::<Vec<_>>().chunks(100) {
        let mut bytes = Vec::new();
        for (id, (_, command, fields)) in part {
            let id = encode(&Value::Integer((*id).into()));
            let message = [&[0x82], &id[..], &map(&[(command, fields)])].concat();
            bytes.extend(Raw::frame(0x82, &message));
        }
        raw.write(&bytes).await;
        for (id, (what, command, _)) in part {
            let answer: Response = raw.response().await;
            assert_eq!(answer.id, Some(*id), "{what}: {answer:?}");
            assert_eq!(answer.name, "Error", "{what}: {answer:?}");
            assert_eq!(
                answer.text("code"),
                "invalid-argument",
                "{what}: {answer:?}"
            );
            assert_eq!(answer.text("command"), *command, "{what}: {answer:?}");
            assert!(!answer.truth("temporary"), "{what}: {answer:?}");
        }
    }
    nothing_was_made(&mut witness).await;
}

async fn nothing_was_made(witness: &mut Client) {
    let listed = witness.call("ListSubscriptions", fields! {}).await;
    assert_eq!(listed.array("subscriptions").len(), 0);
}

#[test]
fn every_field_that_the_grammar_gives_a_command_is_tried() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.cddl");
    let grammar = fs::read_to_string(path).unwrap();
    let (_, commands) = grammar.split_once("; ---- Commands").unwrap();
    let (commands, _) = commands.split_once("; ---- Responses").unwrap();
    let mut named = BTreeSet::new();
    for line in commands.lines() {
        let line = line.split(';').next().unwrap();
        let mut pieces = line.split('"');
        _ = pieces.next();
        // A text with a colon behind it is a key.
        while let (Some(text), Some(behind)) = (pieces.next(), pieces.next()) {
            if behind.starts_with(':') {
                named.insert(text);
            }
        }
    }
    let tried = COMMANDS
        .iter()
        .flat_map(|(command, _, fields)| fields.iter().map(|field| field.0).chain([*command]))
        .chain(
            [SETTINGS.as_slice(), &RETENTION, &FROM]
                .concat()
                .into_iter()
                .map(|field| field.0),
        );
    assert_eq!(tried.collect::<BTreeSet<_>>(), named);
}
