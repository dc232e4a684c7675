//! Every command and every type of field: what is taken, and what is refused how.

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
fn submit_publication_is_decoded_from_its_documented_bytes() {
    let mut bytes = b"\x82\x18\x2a\xa1\x71SubmitPublication\xa5\x6fsubscription_id\x50".to_vec();
    bytes.extend([0x0a; 16]);
    bytes.extend(b"\x6asubmission\x45hello\x64kind\x69Broadcast\x6epublication_id\x50");
    bytes.extend([0x0b; 16]);
    bytes.extend(b"\x71expected_sequence\x19\x01\x00");
    let message = Bytes::from(bytes);
    let request = decode_request(&message).unwrap();
    assert_eq!(request.id, Some(RequestId(42)));
    let ClientCommand::SubmitPublication(submit) = request.command else {
        panic!("another command")
    };
    assert_eq!(submit.subscription, by_id(0x0a));
    assert_eq!(submit.submission, "hello");
    assert_eq!(submit.kind, Some(Kind::Broadcast));
    assert_eq!(submit.publication_id, Some(publication_id(0x0b)));
    assert_eq!(submit.expected_sequence, Some(Sequence(256)));
    assert!(
        message.as_ptr_range().contains(&submit.submission.as_ptr()),
        "the submission was copied"
    );
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

#[test]
fn ping_is_taken_with_and_without_fields() {
    for bytes in [
        &b"\x82\x07\x64Ping"[..],
        b"\x82\x07\xa1\x64Ping\xa0",
        b"\x82\x07\xbf\x64Ping\xbf\xff\xff",
    ] {
        assert_eq!(decode(bytes), Ok(ClientCommand::Ping));
    }
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
fn subscription_is_referred_to_by_uuid_in_each_form() {
    let expected: SubscriptionReference = SubscriptionReference {
        id: SubscriptionId(UUID_TEXT.parse().unwrap()),
        name: None,
    };
    let bytes = b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";
    for value in [
        [b"\x50", &bytes[..]].concat(),
        [b"\x58\x10", &bytes[..]].concat(),
        [b"\xd8\x25\x50", &bytes[..]].concat(),
        [b"\x5f\x48", &bytes[..8], b"\x48", &bytes[8..], b"\xff"].concat(),
        text(UUID_TEXT),
        text(&UUID_TEXT.to_uppercase()),
        [b"\xd8\x25".to_vec(), text(UUID_TEXT)].concat(),
        [
            b"\x7f".to_vec(),
            text(&UUID_TEXT[..20]),
            text(&UUID_TEXT[20..]),
            b"\xff".to_vec(),
        ]
        .concat(),
    ] {
        assert_eq!(
            taken("Unsubscribe", &[("subscription_id", value)]),
            ClientCommand::Unsubscribe(expected.clone())
        );
    }
}

#[test]
fn any_other_text_is_a_name_and_taken_as_it_is() {
    let longest = "x".repeat(255);
    for name in [
        "a",
        " orders/eu é\u{a0}",
        "\u{20}\u{7e}\u{a0}",
        // Like a UUID, but not in the 36-character form.
        "00112233445566778899aabbccddeeff",
        "{00112233-4455-6677-8899-aabbccddeeff}",
        "urn:uuid:00112233-4455-6677-8899-aabbccddeeff",
        "00112233-4455-6677-8899-aabbccddeefg",
        "001122334-455-6677-8899-aabbccddeeff",
        &longest,
    ] {
        let ClientCommand::Unsubscribe(reference) =
            taken("Unsubscribe", &[("subscription_id", text(name))])
        else {
            panic!("another command")
        };
        assert_eq!(reference.name.as_deref(), Some(name));
        assert_eq!(reference.id, SubscriptionId::of_name(name));
    }
}

/// Made with Python: `uuid.uuid5(uuid.NAMESPACE_URL, "infotainer:orders")`.
#[test]
fn name_stands_for_its_version_5_uuid() {
    assert_eq!(
        SubscriptionId::of_name("orders").to_string(),
        "03041d92-a1a4-5b37-be4d-597b8b6bc892"
    );
}

#[test]
fn reference_that_is_neither_uuid_nor_name_is_refused() {
    let wrong = [
        text(""),
        [b"\x79\x01\x00", "x".repeat(256).as_bytes()].concat(),
        text("a\u{0}"),
        text("\u{1f}"),
        text("\u{7f}"),
        text("\u{80}"),
        text("\u{9f}"),
        b"\x62\xc3\x28".to_vec(),
        b"\x4f123456789012345".to_vec(),
        b"\x5112345678901234567".to_vec(),
        b"\x40".to_vec(),
        number(1),
        array(&[]),
        map(&[]),
        b"\xf5".to_vec(),
    ];
    field_takes("Unsubscribe", &[], "subscription_id", &[], &wrong);
    field_takes("GetLogIndex", &[], "log_id", &[], &wrong);
}

#[test]
fn uuid_that_is_no_reference_takes_no_name() {
    let right = [
        id(3),
        text(UUID_TEXT),
        [b"\xd8\x25".to_vec(), id(3)].concat(),
    ];
    let wrong = [
        text("orders"),
        text("00112233445566778899aabbccddeeff"),
        b"\x40".to_vec(),
        number(5),
        array(&vec![vec![0]; 16]),
        b"\xf7".to_vec(),
    ];
    field_takes(
        "SubmitPublication",
        &submission(),
        "publication_id",
        &right,
        &wrong,
    );
    field_takes("Subscribe", &subscription(), "epoch", &right, &wrong);
    field_takes("ListSubscriptions", &[], "after", &right, &wrong);
}

fn submitted(value: &[u8]) -> Bytes {
    match taken(
        "SubmitPublication",
        &with(&subscription(), "submission", value.to_vec()),
    ) {
        ClientCommand::SubmitPublication(submit) => submit.submission,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_are_taken_in_each_form() {
    for value in [
        &b"\x43\x00\x7f\xff"[..],
        b"\x5b\0\0\0\0\0\0\0\x03\x00\x7f\xff",
        b"\xd8\x40\x43\x00\x7f\xff",
        b"\xc1\xd9\xd9\xf7\x43\x00\x7f\xff",
        b"\x5f\x41\x00\x40\x42\x7f\xff\xff",
        b"\xd8\x40\x5f\x43\x00\x7f\xff\xff",
        b"\x83\x00\x18\x7f\x18\xff",
        b"\x9f\x00\x19\x00\x7f\x1b\0\0\0\0\0\0\0\xff\xff",
        b"\xd8\x40\x83\x00\xc1\x18\x7f\x18\xff",
    ] {
        assert_eq!(submitted(value), &[0, 0x7f, 0xff][..], "{value:02x?}");
    }
    for value in [
        &b"\x40"[..],
        b"\x80",
        b"\x9f\xff",
        b"\x5f\xff",
        b"\x5f\x40\xff",
    ] {
        assert_eq!(submitted(value), "");
    }
}

#[test]
fn bytes_of_another_form_are_refused() {
    let wrong = [
        text("hello"),
        number(1),
        map(&[]),
        b"\xf5".to_vec(),
        b"\x82\x00\x19\x01\x00".to_vec(),
        b"\x81\x20".to_vec(),
        b"\x81\xf9\x3c\x00".to_vec(),
        b"\x81\xf6".to_vec(),
        b"\x81\x41a".to_vec(),
        b"\xd8\x40\x63abc".to_vec(),
    ];
    field_takes(
        "SubmitPublication",
        &subscription(),
        "submission",
        &[],
        &wrong,
    );
}

/// What is no unsigned integer: floats above all, however whole.
fn no_integers() -> Vec<Vec<u8>> {
    vec![
        b"\xf9\x3c\x00".to_vec(),
        b"\xfa\x3f\x80\x00\x00".to_vec(),
        b"\xfb\x3f\xf0\0\0\0\0\0\0".to_vec(),
        b"\x20".to_vec(),
        b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\xc2\x41\x01".to_vec(),
        text("1"),
        b"\x41\x01".to_vec(),
        b"\xf5".to_vec(),
        b"\x81\x01".to_vec(),
    ]
}

fn numbers(numbers: &[u64]) -> Vec<Vec<u8>> {
    numbers.iter().map(|value| number(*value)).collect()
}

fn number_ranges_from(
    command: &str,
    others: &[(&str, Vec<u8>)],
    name: &str,
    least: u64,
    most: u64,
) {
    let mut right = numbers(&[least, most]);
    right.push([b"\xc1".to_vec(), number(least)].concat());
    let mut wrong = no_integers();
    wrong.extend(numbers(&[most + 1, u64::MAX]));
    wrong.extend(least.checked_sub(1).map(number));
    field_takes(command, others, name, &right, &wrong);
}

#[test]
fn numbers_keep_to_their_ranges() {
    let most = (1 << 53) - 1;
    number_ranges_from(
        "SubmitPublication",
        &submission(),
        "expected_sequence",
        1,
        most,
    );
    number_ranges_from("Subscribe", &subscription(), "prefetch", 1, 65_535);
    number_ranges_from("Acknowledge", &subscription(), "sequence", 1, most);
    number_ranges_from(
        "Reject",
        &with(&subscription(), "publication_ids", array(&[])),
        "delay",
        0,
        most,
    );
    for command in ["GetLogIndex", "GetLogEntries"] {
        number_ranges_from(command, &[("log_id", id(1))], "after", 0, most);
        number_ranges_from(command, &[("log_id", id(1))], "limit", 1, 10_000);
    }
    number_ranges_from("ListSubscriptions", &[], "limit", 1, 1_000);
}

#[test]
fn wrong_number_is_told_with_what_came_and_what_is_wanted() {
    let told = refused(
        "GetLogIndex",
        &[("log_id", id(1)), ("limit", number(10_001))],
    );
    assert_eq!(
        told,
        "`limit` is the number 10001, but has to be an integer from 1 to 10000"
    );
    let told = refused(
        "GetLogIndex",
        &[("log_id", id(1)), ("limit", b"\xf9\x3c\x00".to_vec())],
    );
    assert_eq!(
        told,
        "`limit` is a floating point number, but has to be an integer from 1 to 10000"
    );
}

#[test]
fn kind_is_one_of_two_texts_and_no_number() {
    let right = [
        text("Broadcast"),
        text("Queue"),
        b"\x7f\x62Qu\x63eue\xff".to_vec(),
        [b"\xc1".to_vec(), text("Queue")].concat(),
    ];
    let wrong = [
        text("queue"),
        text(""),
        b"\x00".to_vec(),
        b"\x01".to_vec(),
        b"\x45Queue".to_vec(),
        map(&[("Queue", null())]),
    ];
    field_takes("Subscribe", &subscription(), "kind", &right, &wrong);
    field_takes("SubmitPublication", &submission(), "kind", &right, &wrong);
    field_takes(
        "CreateSubscription",
        &subscription(),
        "kind",
        &right,
        &wrong,
    );
}

fn subscribe_from(value: Vec<u8>) -> SubscribeFrom {
    match taken("Subscribe", &with(&subscription(), "from", value)) {
        ClientCommand::Subscribe(Subscribe {
            from: Some(from), ..
        }) => from,
        other => panic!("{other:?}"),
    }
}

#[test]
fn from_is_taken_in_each_form() {
    assert_eq!(subscribe_from(text("New")), SubscribeFrom::New);
    assert_eq!(subscribe_from(text("First")), SubscribeFrom::First);
    for value in [
        &b"\xa1\x65After\x05"[..],
        b"\xbf\x65After\x05\xff",
        b"\xb8\x01\x78\x05After\x18\x05",
        b"\xc1\xa1\xc1\x65After\xc1\x05",
    ] {
        assert_eq!(
            subscribe_from(value.to_vec()),
            SubscribeFrom::After(Sequence(5))
        );
    }
    assert_eq!(
        subscribe_from(map(&[("After", number(0))])),
        SubscribeFrom::After(Sequence::ZERO)
    );
    assert_eq!(
        subscribe_from(map(&[("Since", number(9))])),
        SubscribeFrom::Since(Timestamp(9))
    );
    assert_eq!(
        subscribe_from(map(&[("Last", number(3))])),
        SubscribeFrom::Last(3)
    );
}

#[test]
fn from_of_another_form_is_refused() {
    let wrong = [
        text("new"),
        text("After"),
        number(1),
        map(&[]),
        map(&[("Before", number(1))]),
        map(&[("New", null())]),
        map(&[("After", number(1)), ("Since", number(1))]),
        array(&[text("After"), number(1)]),
        b"\xa1\x01\x01".to_vec(),
    ];
    field_takes("Subscribe", &subscription(), "from", &[], &wrong);
    for name in ["After", "Since", "Last"] {
        for value in [no_integers(), numbers(&[1 << 53]), vec![null()]].concat() {
            let told = refused(
                "Subscribe",
                &with(&subscription(), "from", map(&[(name, value)])),
            );
            assert!(told.starts_with(&format!("`from.{name}` is ")), "{told}");
        }
    }
}

#[test]
fn subscribe_takes_all_its_fields() {
    let fields = [
        ("subscription_id", text("orders")),
        ("kind", text("Queue")),
        ("from", text("First")),
        ("epoch", id(8)),
        ("prefetch", number(32)),
    ];
    let expected = Subscribe {
        subscription: SubscriptionReference {
            id: SubscriptionId::of_name("orders"),
            name: Some("orders".into()),
        },
        kind: Some(Kind::Queue),
        from: Some(SubscribeFrom::First),
        epoch: Some(Epoch(Uuid::from_bytes([8; 16]))),
        prefetch: Some(32),
    };
    assert_eq!(
        taken("Subscribe", &fields),
        ClientCommand::Subscribe(expected)
    );
}

#[test]
fn commands_about_one_subscription_differ_by_name_alone() {
    assert_eq!(
        taken("Unsubscribe", &subscription()),
        ClientCommand::Unsubscribe(by_id(1))
    );
    assert_eq!(
        taken("GetSubscription", &subscription()),
        ClientCommand::GetSubscription(by_id(1))
    );
    assert_eq!(
        taken("DeleteSubscription", &subscription()),
        ClientCommand::DeleteSubscription(by_id(1))
    );
}

#[test]
fn acknowledge_takes_either_a_sequence_or_ids() {
    let acknowledge = |what| {
        ClientCommand::Acknowledge(Acknowledge {
            subscription: by_id(1),
            what,
        })
    };
    let sequence = with(&subscription(), "sequence", number(4));
    let ids = with(&subscription(), "publication_ids", array(&[id(2)]));
    assert_eq!(
        taken("Acknowledge", &sequence),
        acknowledge(Acknowledged::UpTo(Sequence(4)))
    );
    assert_eq!(
        taken("Acknowledge", &ids),
        acknowledge(Acknowledged::Ids(vec![publication_id(2)]))
    );
    refused(
        "Acknowledge",
        &with(&sequence, "publication_ids", array(&[])),
    );
    refused("Acknowledge", &subscription());
    refused("Acknowledge", &with(&subscription(), "sequence", null()));
}

#[test]
fn reject_and_extend_take_ids() {
    let fields = with(
        &subscription(),
        "publication_ids",
        array(&[id(2), text(UUID_TEXT)]),
    );
    let ids = vec![publication_id(2), PublicationId(UUID_TEXT.parse().unwrap())];
    assert_eq!(
        taken("Extend", &fields),
        ClientCommand::Extend(Extend {
            subscription: by_id(1),
            publication_ids: ids.clone()
        })
    );
    let reject = |delay, dead_letter| {
        ClientCommand::Reject(Reject {
            subscription: by_id(1),
            publication_ids: ids.clone(),
            delay,
            dead_letter,
        })
    };
    assert_eq!(taken("Reject", &fields), reject(None, false));
    let fields = with(
        &with(&fields, "delay", number(50)),
        "dead_letter",
        b"\xf5".to_vec(),
    );
    assert_eq!(taken("Reject", &fields), reject(Some(50), true));
    field_takes(
        "Reject",
        &fields,
        "dead_letter",
        &[b"\xf4".to_vec()],
        &[number(1), text("true")],
    );
}

#[test]
fn id_that_stands_twice_counts_once_where_it_stands_first() {
    let ids = array(&[
        id(2),
        id(1),
        [b"\xd8\x25".to_vec(), id(2)].concat(),
        id(3),
        id(1),
    ]);
    let expected = [2, 1, 3].map(publication_id).to_vec();
    let ClientCommand::Extend(extend) = taken(
        "Extend",
        &with(&subscription(), "publication_ids", ids.clone()),
    ) else {
        panic!("another command")
    };
    assert_eq!(extend.publication_ids, expected);
    assert_eq!(
        taken("GetLogEntries", &[("log_id", id(1)), ("entries", ids)]),
        ClientCommand::GetLogEntries(GetLogEntries::Ids(by_id(1), expected))
    );
}

#[test]
fn list_takes_10_000_different_ids_and_no_more() {
    let different = |count: u128| -> Vec<Vec<u8>> {
        (0..count)
            .map(|value| [&[0x50][..], &value.to_be_bytes()].concat())
            .collect()
    };
    let mut ids = different(10_000);
    ids.push(ids[0].clone());
    let right = [
        array(&ids),
        [b"\x9f".to_vec(), ids.concat(), b"\xff".to_vec()].concat(),
        array(&[]),
    ];
    let wrong = [
        array(&different(10_001)),
        array(&[number(1)]),
        array(&[text("a")]),
        array(&[null()]),
        id(1),
        map(&[]),
    ];
    field_takes(
        "GetLogEntries",
        &[("log_id", id(1))],
        "entries",
        &right,
        &wrong,
    );
    for command in ["Acknowledge", "Reject", "Extend"] {
        field_takes(command, &subscription(), "publication_ids", &right, &wrong);
    }
}

#[test]
fn log_is_read_by_range_or_by_ids() {
    let log = vec![("log_id", id(1))];
    let range = |after, limit| GetLogIndex {
        log: by_id(1),
        after: Sequence(after),
        limit,
    };
    assert_eq!(
        taken("GetLogIndex", &log),
        ClientCommand::GetLogIndex(range(0, 10_000))
    );
    let fields = with(&with(&log, "after", number(5)), "limit", number(6));
    assert_eq!(
        taken("GetLogIndex", &fields),
        ClientCommand::GetLogIndex(range(5, 6))
    );
    assert_eq!(
        taken("GetLogEntries", &fields),
        ClientCommand::GetLogEntries(GetLogEntries::Range(range(5, 6)))
    );
    for beside in ["after", "limit"] {
        let told = refused(
            "GetLogEntries",
            &with(&with(&log, "entries", array(&[])), beside, number(1)),
        );
        assert_eq!(
            told,
            format!("`entries` and `{beside}` are both given, but only one of them can be")
        );
    }
}

#[test]
fn list_subscriptions_asks_for_100_unless_it_says_otherwise() {
    let list = |after, limit| ClientCommand::ListSubscriptions(ListSubscriptions { after, limit });
    assert_eq!(taken("ListSubscriptions", &[]), list(None, 100));
    assert_eq!(
        decode(b"\x82\x07\x71ListSubscriptions"),
        Ok(list(None, 100))
    );
    let fields = [("after", id(6)), ("limit", number(1_000))];
    assert_eq!(
        taken("ListSubscriptions", &fields),
        list(Some(by_id(6).id), 1_000)
    );
}

fn settings_of(command: &str, settings: &[(&str, Vec<u8>)]) -> SettingsPatch {
    match taken(command, &with(&subscription(), "settings", map(settings))) {
        ClientCommand::CreateSubscription(create) => create.settings,
        ClientCommand::UpdateSubscription(update) => update.settings,
        other => panic!("{other:?}"),
    }
}

#[test]
fn setting_is_absent_default_or_a_value() {
    for command in ["CreateSubscription", "UpdateSubscription"] {
        assert_eq!(settings_of(command, &[]), SettingsPatch::default());
        let names = [
            "retention",
            "durability",
            "ack_timeout",
            "max_deliveries",
            "dead_letter",
        ];
        assert_eq!(
            settings_of(command, &names.map(|name| (name, null()))),
            SettingsPatch {
                retention: Patch::Default,
                durability: Patch::Default,
                ack_timeout: Patch::Default,
                max_deliveries: Patch::Default,
                dead_letter: Patch::Default,
            }
        );
        let retention = map(&[
            ("max_publications", number(1)),
            ("max_bytes", number(2)),
            ("max_age", null()),
        ]);
        let given = [
            ("retention", retention),
            ("durability", text("Written")),
            ("ack_timeout", number(30_000)),
            ("max_deliveries", number(0)),
            ("dead_letter", id(9)),
        ];
        assert_eq!(
            settings_of(command, &given),
            SettingsPatch {
                retention: Patch::Value(Retention {
                    max_publications: Some(1),
                    max_bytes: Some(2),
                    max_age: None
                }),
                durability: Patch::Value(Durability::Written),
                ack_timeout: Patch::Value(30_000),
                max_deliveries: Patch::Value(0),
                dead_letter: Patch::Value(by_id(9)),
            }
        );
        let none = settings_of(command, &[("retention", map(&[]))]);
        assert_eq!(none.retention, Patch::Value(Retention::default()));
    }
}

#[test]
fn each_durability_is_taken_by_name_alone() {
    for (name, durability) in [
        ("Memory", Durability::Memory),
        ("Written", Durability::Written),
        ("Synced", Durability::Synced),
    ] {
        let settings = settings_of("CreateSubscription", &[("durability", text(name))]);
        assert_eq!(settings.durability, Patch::Value(durability));
    }
}

#[test]
fn wrong_settings_are_refused_by_path() {
    for (settings, told) in [
        (
            map(&[("color", number(1))]),
            "`settings` has the key \"color\", but can only have retention, durability, ",
        ),
        (
            map(&[("name", text("a"))]),
            "`settings` has the key \"name\", but can only have ",
        ),
        (
            b"\xa1\x01\x01".to_vec(),
            "`settings` has the key the number 1, but can only have ",
        ),
        (number(1), "`settings` is the number 1, but has to be a map"),
        (
            array(&[]),
            "`settings` is an array of length 0, but has to be a map",
        ),
        (
            map(&[("durability", text("synced"))]),
            "`settings.durability` is the text \"synced\", but has to be ",
        ),
        (
            map(&[("durability", number(0))]),
            "`settings.durability` is the number 0, but has to be ",
        ),
        (
            map(&[("ack_timeout", b"\xf9\x00\x00".to_vec())]),
            "`settings.ack_timeout` is a floating point number, ",
        ),
        (
            map(&[("max_deliveries", number(1 << 53))]),
            "`settings.max_deliveries` is the number 9007199254740992, ",
        ),
        (
            map(&[("dead_letter", text(""))]),
            "`settings.dead_letter` is the text \"\", but has to be ",
        ),
        (
            map(&[("retention", number(1))]),
            "`settings.retention` is the number 1, but has to be a map",
        ),
        (
            map(&[("retention", map(&[("max_age", number(0))]))]),
            "`settings.retention.max_age` is the number 0, but has to be an integer from 1 to 9007199254740991",
        ),
        (
            map(&[("retention", map(&[("max_bytes", number(0))]))]),
            "`settings.retention.max_bytes` is the number 0, ",
        ),
        (
            map(&[("retention", map(&[("max_publications", number(0))]))]),
            "`settings.retention.max_publications` is ",
        ),
        (
            map(&[("retention", map(&[("max", number(1))]))]),
            "`settings.retention` has the key \"max\", but can only have max_publications, max_bytes, max_age",
        ),
    ] {
        for command in ["CreateSubscription", "UpdateSubscription"] {
            let got = refused(
                command,
                &with(&subscription(), "settings", settings.clone()),
            );
            assert!(got.starts_with(told), "{got}");
        }
    }
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
