//! What is malformed, unknown or ignored; and the encoder of vectors that all tests of decoding share.

mod commands;
mod types;

use std::cell::Cell;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::protocol::{
    Durability, Epoch, Kind, PublicationId, RequestId, SubscribeFrom, SubscriptionId, Timestamp,
};

// A small encoder of this file's own, so that the vectors do not depend on what they test.

fn text(text: &str) -> Vec<u8> {
    assert!(text.len() < 256);
    if text.len() < 24 {
        [&[0x60 + text.len() as u8], text.as_bytes()].concat()
    } else {
        [&[0x78, text.len() as u8], text.as_bytes()].concat()
    }
}

fn number(number: u64) -> Vec<u8> {
    [&[0x1b][..], &number.to_be_bytes()].concat()
}

fn id(byte: u8) -> Vec<u8> {
    [&[0x50][..], &[byte; 16]].concat()
}

fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [
        &[0x99][..],
        &(items.len() as u16).to_be_bytes(),
        &items.concat(),
    ]
    .concat()
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0xb8, pairs.len() as u8];
    for (key, value) in pairs {
        bytes.extend(text(key));
        bytes.extend(value);
    }
    bytes
}

fn message(command: &str, fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    [b"\x82\x07\xa1".to_vec(), text(command), map(fields)].concat()
}

const UUID_TEXT: &str = "00112233-4455-6677-8899-aabbccddeeff";

fn null() -> Vec<u8> {
    vec![0xf6]
}

fn by_id(byte: u8) -> SubscriptionReference {
    SubscriptionReference {
        id: SubscriptionId(Uuid::from_bytes([byte; 16])),
        name: None,
    }
}

fn publication_id(byte: u8) -> PublicationId {
    PublicationId(Uuid::from_bytes([byte; 16]))
}

fn decode(bytes: &[u8]) -> Result<ClientCommand, ServerError> {
    match decode_request(&Bytes::copy_from_slice(bytes)) {
        Ok(request) => {
            assert_eq!(request.id, Some(RequestId(7)));
            Ok(request.command)
        }
        Err(rejection) => {
            assert_eq!(rejection.request_id, Some(RequestId(7)));
            Err(rejection.error)
        }
    }
}

fn taken(command: &str, fields: &[(&str, Vec<u8>)]) -> ClientCommand {
    decode(&message(command, fields)).unwrap_or_else(|error| panic!("{command}: {}", error.message))
}

/// The sentence with which the fields are refused as `invalid-argument`.
fn refused(command: &str, fields: &[(&str, Vec<u8>)]) -> String {
    let error = decode(&message(command, fields)).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument, "{}", error.message);
    assert_eq!(error.command, Some(command));
    error.message
}

fn with<'a>(
    fields: &[(&'a str, Vec<u8>)],
    name: &'a str,
    value: Vec<u8>,
) -> Vec<(&'a str, Vec<u8>)> {
    let mut fields: Vec<_> = fields
        .iter()
        .filter(|(key, _)| *key != name)
        .cloned()
        .collect();
    fields.push((name, value));
    fields
}

/// Asserts that the field `name` takes each of `right` and none of `wrong`.
fn field_takes(
    command: &str,
    others: &[(&str, Vec<u8>)],
    name: &str,
    right: &[Vec<u8>],
    wrong: &[Vec<u8>],
) {
    for value in right {
        taken(command, &with(others, name, value.clone()));
    }
    for value in wrong {
        let told = refused(command, &with(others, name, value.clone()));
        assert!(
            told.starts_with(&format!("`{name}` is ")) && told.contains(", but has to be "),
            "{told}"
        );
    }
}

fn subscription() -> Vec<(&'static str, Vec<u8>)> {
    vec![("subscription_id", id(1))]
}

fn submission() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("subscription_id", id(1)),
        ("submission", b"\x42hi".to_vec()),
    ]
}

#[test]
fn command_without_request_id_has_none() {
    let request = decode_request(&Bytes::from_static(b"\x64Ping")).unwrap();
    assert_eq!(
        request,
        Request {
            id: None,
            command: ClientCommand::Ping
        }
    );
}

/// Whatever they hold: maps with numbers as keys, keys that repeat, simple values, broken UTF-8.
#[test]
fn unknown_fields_are_ignored() {
    for value in [
        &b"\xa2\x01\x00\x01\x00"[..],
        b"\xe0",
        b"\xf8\x20",
        b"\x61\xff",
        b"\xfb\0\0\0\0\0\0\0\0",
        b"\xa1\xa0\xa0",
    ] {
        assert_eq!(
            taken("Ping", &[("more", value.to_vec())]),
            ClientCommand::Ping
        );
        let fields = with(&subscription(), "more", value.to_vec());
        assert_eq!(
            taken("Unsubscribe", &fields),
            ClientCommand::Unsubscribe(by_id(1))
        );
    }
    for key in [&b"\x01"[..], b"\xf6", b"\xa0", b"\x61\xff", b"\x44kind"] {
        let bytes = [b"\x82\x07\xa1\x64Ping\xa1", key, b"\x00"].concat();
        assert_eq!(decode(&bytes), Ok(ClientCommand::Ping), "{key:02x?}");
    }
    // Fields of other commands, whatever they are there.
    assert_eq!(
        taken(
            "Ping",
            &[
                ("settings", b"\xa2\x61a\x00\x61a\x00".to_vec()),
                ("kind", number(1))
            ]
        ),
        ClientCommand::Ping
    );
}

#[test]
fn unknown_command_is_told_by_name() {
    for bytes in [
        &b"\x82\x07\xa1\x65Pong!\xa0"[..],
        b"\x82\x07\x65Pong!",
        b"\x82\x07\xa1\x65Pong!\xa2\x61a\x00\x61a\x00",
    ] {
        let error = decode(bytes).unwrap_err();
        assert_eq!(error.code, ErrorCode::UnknownCommand);
        assert_eq!(error.message, "the command \"Pong!\" is not known");
        assert_eq!(error.command, None);
    }
    assert_eq!(
        decode(&message("ping", &[])).unwrap_err().code,
        ErrorCode::UnknownCommand
    );
    let error = decode(&message(&"x".repeat(255), &[])).unwrap_err();
    assert_eq!(
        error.message,
        format!("the command \"{}…\" is not known", "x".repeat(40))
    );
}

#[test]
fn bare_name_of_a_command_with_fields_lacks_them() {
    let error = decode(b"\x82\x07\x69Subscribe").unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    assert_eq!(error.command, Some("Subscribe"));
    assert!(
        error
            .message
            .starts_with("`subscription_id` is missing; it has to be a UUID, or a name"),
        "{}",
        error.message
    );
}

#[test]
fn missing_and_null_required_fields_are_the_same_error() {
    for fields in [subscription(), with(&subscription(), "submission", null())] {
        assert_eq!(
            refused("SubmitPublication", &fields),
            "`submission` is missing; it has to be a byte string"
        );
    }
    for command in ["Reject", "Extend"] {
        assert!(refused(command, &subscription()).starts_with("`publication_ids` is missing"));
    }
    assert!(refused("GetLogIndex", &[]).starts_with("`log_id` is missing"));
    assert!(refused("GetLogEntries", &subscription()).starts_with("`log_id` is missing"));
    for command in [
        "Subscribe",
        "Unsubscribe",
        "GetSubscription",
        "DeleteSubscription",
        "CreateSubscription",
    ] {
        assert!(
            refused(command, &[("subscription_id", null())])
                .starts_with("`subscription_id` is missing")
        );
    }
    assert_eq!(
        refused("UpdateSubscription", &subscription()),
        "`settings` is missing; it has to be a map"
    );
}

#[test]
fn null_in_an_optional_field_is_absence() {
    let nulls = |names: &[&'static str]| -> Vec<(&str, Vec<u8>)> {
        names.iter().map(|name| (*name, null())).collect()
    };
    for (command, given, names) in [
        (
            "Subscribe",
            subscription(),
            &["kind", "from", "epoch", "prefetch"][..],
        ),
        (
            "SubmitPublication",
            submission(),
            &["kind", "publication_id", "expected_sequence"],
        ),
        (
            "Reject",
            with(&subscription(), "publication_ids", array(&[])),
            &["delay", "dead_letter"],
        ),
        ("GetLogIndex", vec![("log_id", id(1))], &["after", "limit"]),
        (
            "GetLogEntries",
            vec![("log_id", id(1))],
            &["entries", "after", "limit"],
        ),
        (
            "GetLogEntries",
            vec![("log_id", id(1)), ("entries", array(&[]))],
            &["after", "limit"],
        ),
        ("CreateSubscription", subscription(), &["kind", "settings"]),
        ("ListSubscriptions", vec![], &["after", "limit"]),
        (
            "Acknowledge",
            with(&subscription(), "sequence", number(1)),
            &["publication_ids"],
        ),
        (
            "Acknowledge",
            with(&subscription(), "publication_ids", array(&[])),
            &["sequence"],
        ),
    ] {
        let with_nulls = [given.clone(), nulls(names)].concat();
        assert_eq!(taken(command, &with_nulls), taken(command, &given));
    }
}

#[test]
fn error_names_the_subscription_where_it_is_known() {
    let bytes = message("Subscribe", &with(&subscription(), "prefetch", number(0)));
    assert_eq!(
        decode(&bytes).unwrap_err().subscription_id,
        Some(by_id(1).id)
    );
    let bytes = message(
        "GetLogIndex",
        &[("limit", number(0)), ("log_id", text("a"))],
    );
    assert_eq!(
        decode(&bytes).unwrap_err().subscription_id,
        Some(SubscriptionId::of_name("a"))
    );
    assert_eq!(
        decode(&message("Subscribe", &[]))
            .unwrap_err()
            .subscription_id,
        None
    );
}

#[test]
fn key_that_stands_twice_in_a_defined_map_is_malformed() {
    let twice = |pair: (&'static str, Vec<u8>)| map(&[pair.clone(), pair]);
    let retention = map(&[("retention", twice(("max_age", number(1))))]);
    let subscribe = |from| [("subscription_id", id(1)), ("from", from)];
    for (command, fields) in [
        ("Ping", vec![("x", null()), ("y", null()), ("x", number(1))]),
        (
            "Unsubscribe",
            vec![("subscription_id", id(1)), ("subscription_id", id(1))],
        ),
        (
            "Unsubscribe",
            vec![("subscription_id", null()), ("subscription_id", id(1))],
        ),
        ("Subscribe", subscribe(twice(("After", number(1)))).to_vec()),
        (
            "CreateSubscription",
            with(&subscription(), "settings", twice(("durability", null()))),
        ),
        (
            "UpdateSubscription",
            with(&subscription(), "settings", twice(("color", null()))),
        ),
        (
            "UpdateSubscription",
            with(&subscription(), "settings", retention.clone()),
        ),
        // Malformed comes before whatever else is wrong.
        ("UpdateSubscription", vec![("settings", retention)]),
        ("Subscribe", vec![("from", twice(("After", null())))]),
        (
            "Subscribe",
            vec![("prefetch", number(0)), ("prefetch", number(0))],
        ),
    ] {
        let error = decode(&message(command, &fields)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Malformed, "{}", error.message);
        assert_eq!(error.command, Some(command));
    }
    let error = decode(&message("Ping", &[("x", null()), ("x", null())])).unwrap_err();
    assert_eq!(
        error.message,
        "the text \"x\" stands twice as a key in the command's fields"
    );
}

#[test]
fn malformed_message_is_answered_under_its_request_id() {
    let rejection = decode_request(&Bytes::from_static(b"\x82\x18\x2a\xff")).unwrap_err();
    assert_eq!(rejection.request_id, Some(RequestId(42)));
    assert_eq!(rejection.error.code, ErrorCode::Malformed);
    assert_eq!(
        rejection.error.message,
        "the CBOR is not well-formed at byte 3"
    );
}

/// One valid message of each command, with as many fields as it has.
fn valid_messages() -> Vec<Vec<u8>> {
    let retention = map(&[
        ("max_publications", number(1)),
        ("max_bytes", number(2)),
        ("max_age", number(3)),
    ]);
    let settings = map(&[
        ("retention", retention),
        ("durability", text("Synced")),
        ("ack_timeout", number(1)),
        ("max_deliveries", number(1)),
        ("dead_letter", text("dead")),
    ]);
    let ids = array(&[id(1), id(2)]);
    let kind = ("kind", text("Broadcast"));
    let all = |more: &[(&'static str, Vec<u8>)]| [subscription(), more.to_vec()].concat();
    vec![
        message("Ping", &[]),
        message(
            "SubmitPublication",
            &[
                submission(),
                vec![
                    kind.clone(),
                    ("publication_id", id(3)),
                    ("expected_sequence", number(9)),
                ],
            ]
            .concat(),
        ),
        message(
            "Subscribe",
            &all(&[
                kind.clone(),
                ("from", map(&[("After", number(1))])),
                ("epoch", id(4)),
                ("prefetch", number(5)),
            ]),
        ),
        message("Acknowledge", &all(&[("sequence", number(1))])),
        message(
            "Reject",
            &all(&[
                ("publication_ids", ids.clone()),
                ("delay", number(1)),
                ("dead_letter", vec![0xf4]),
            ]),
        ),
        message("Extend", &all(&[("publication_ids", ids.clone())])),
        message(
            "GetLogIndex",
            &[
                ("log_id", text("log")),
                ("after", number(0)),
                ("limit", number(1)),
            ],
        ),
        message("GetLogEntries", &[("log_id", id(1)), ("entries", ids)]),
        message(
            "CreateSubscription",
            &all(&[kind, ("settings", settings.clone())]),
        ),
        message("UpdateSubscription", &all(&[("settings", settings)])),
        message(
            "ListSubscriptions",
            &[("after", id(1)), ("limit", number(1))],
        ),
    ]
}

#[test]
fn valid_message_cut_anywhere_is_malformed_under_its_id() {
    for valid in valid_messages() {
        decode(&valid).unwrap();
        for len in 2..valid.len() {
            assert_eq!(
                decode(&valid[..len]).unwrap_err().code,
                ErrorCode::Malformed
            );
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_request(&Bytes::from(bytes));
    }

    #[test]
    fn mutated_messages_never_panic(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = valid_messages().swap_remove(which.index(11));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Err(rejection) = decode_request(&Bytes::from(bytes)) {
            prop_assert!(rejection.error.message.len() < 1_000);
        }
    }

    #[test]
    fn arbitrary_field_values_never_panic(
        which in any::<prop::sample::Index>(),
        value in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let names = ["subscription_id", "submission", "from", "settings", "publication_ids", "prefetch", "kind"];
        for command in ["Subscribe", "SubmitPublication", "CreateSubscription", "Acknowledge"] {
            let fields = with(&subscription(), names[which.index(names.len())], value.clone());
            let _ = decode_request(&Bytes::from(message(command, &fields)));
        }
    }
}

/// What is read in one pass is what the decoder of all messages finds, whatever is changed in it.
#[test]
fn submission_read_in_one_pass_is_what_it_is_field_by_field() {
    let field = |name, value| (name, value);
    let subscription = |value| field("subscription_id", value);
    let submission = |value| field("submission", value);
    let bytes = |len: u8| [&[0x58, len][..], &vec![7; len.into()]].concat();
    let plain = [
        message(
            "SubmitPublication",
            &[subscription(id(1)), submission(bytes(5))],
        ),
        message(
            "SubmitPublication",
            &[
                field("publication_id", id(2)),
                submission(bytes(0)),
                subscription(text("orders/eu")),
            ],
        ),
        [
            b"\xa1".to_vec(),
            text("SubmitPublication"),
            map(&[subscription(text(UUID_TEXT)), submission(bytes(200))]),
        ]
        .concat(),
    ];
    let read = Cell::new(0);
    let check = |bytes: Vec<u8>| {
        let message = Bytes::from(bytes);
        if let Some(request) = plain::submission(&message) {
            assert_eq!(Ok(request), super::decode(&message, &[]), "{message:02x?}");
            read.set(read.get() + 1);
        }
    };
    for whole in &plain {
        check(whole.clone());
        for at in 0..whole.len() {
            check(whole[..at].to_vec());
            for value in 0..=u8::MAX {
                let mut changed = whole.clone();
                changed[at] = value;
                check(changed);
                let mut longer = whole.clone();
                longer.insert(at, value);
                check(longer);
            }
        }
    }
    assert!(read.get() > 1_000, "{read:?}");
    for (name, other) in [
        ("subscription_id", id(3)),
        ("submission", bytes(3)),
        ("publication_id", id(3)),
        ("kind", text("Queue")),
        ("unknown", id(3)),
    ] {
        let twice = [
            subscription(id(1)),
            submission(bytes(5)),
            field(name, other),
        ];
        check(message("SubmitPublication", &twice));
    }
}
