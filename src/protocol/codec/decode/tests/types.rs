//! Every type of field: each encoding that is taken, and what is refused.

use super::*;

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
