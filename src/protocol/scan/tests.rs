//! Well-formedness after RFC 8949, the envelope, and the request id of broken messages.

use proptest::prelude::*;

use super::*;

fn envelope_of(message: &[u8]) -> (Option<u64>, String) {
    let envelope = scan(message).unwrap_or_else(|error| panic!("{message:02x?}: {error:?}"));
    (
        envelope.request_id.map(|id| id.0),
        envelope.command.into_owned(),
    )
}

fn rejected(message: &[u8]) -> (Option<u64>, Malformed) {
    match scan(message) {
        Ok(envelope) => panic!("{message:02x?} is {envelope:?}"),
        Err((id, malformed)) => (id.map(|id| id.0), malformed),
    }
}

/// `{"Ping": {"x": <item>}}`
fn within_fields(item: &[u8]) -> Vec<u8> {
    [b"\xa1\x64Ping\xa1\x61x", item].concat()
}

#[test]
fn bare_and_enveloped_commands_are_found() {
    for (message, id) in [
        (&b"\x64Ping"[..], None),
        (b"\x82\x00\x64Ping", Some(0)),
        (b"\xa1\x64Ping\xa0", None),
        (b"\x82\x17\xa1\x64Ping\xa0", Some(23)),
        (b"\x82\x18\x18\x64Ping", Some(24)),
        (
            b"\x82\x1b\x00\x1f\xff\xff\xff\xff\xff\xff\x64Ping",
            Some(NUMBER_LIMIT - 1),
        ),
    ] {
        assert_eq!(envelope_of(message), (id, "Ping".to_owned()));
    }
}

#[test]
fn indefinite_lengths_are_taken_everywhere_in_the_envelope() {
    for message in [
        &b"\x9f\x05\x64Ping\xff"[..],
        b"\x9f\x05\xbf\x64Ping\xa0\xff\xff",
        b"\x9f\x05\xbf\x7f\x62Pi\x60\x62ng\xff\xbf\xff\xff\xff",
        b"\x82\x05\x7f\x62Pi\x62ng\xff",
    ] {
        assert_eq!(envelope_of(message), (Some(5), "Ping".to_owned()));
    }
}

#[test]
fn lengths_and_numbers_that_are_not_shortest_are_taken() {
    for message in [
        &b"\x98\x02\x18\x05\x78\x04Ping"[..],
        b"\x99\x00\x02\x19\x00\x05\xb8\x01\x79\x00\x04Ping\xb9\x00\x00",
        b"\x9a\0\0\0\x02\x1a\0\0\0\x05\xba\0\0\0\x01\x7a\0\0\0\x04Ping\xba\0\0\0\0",
        b"\x9b\0\0\0\0\0\0\0\x02\x1b\0\0\0\0\0\0\0\x05\xbb\0\0\0\0\0\0\0\x01\x7b\0\0\0\0\0\0\0\x04Ping\xbb\0\0\0\0\0\0\0\0",
    ] {
        assert_eq!(envelope_of(message), (Some(5), "Ping".to_owned()));
    }
}

#[test]
fn tags_in_front_of_the_envelope_are_skipped() {
    for message in [
        &b"\xd9\xd9\xf7\x82\x05\x64Ping"[..],
        b"\xd9\xd9\xf7\xc1\x82\xc2\x05\xd8\x20\xa1\xc3\x64Ping\xda\0\0\0\x01\xa0",
        b"\x82\xdb\0\0\0\0\0\0\0\x01\x05\x64Ping",
    ] {
        assert_eq!(envelope_of(message), (Some(5), "Ping".to_owned()));
    }
}

#[test]
fn every_well_formed_item_is_skipped() {
    for item in [
        &b"\x00"[..],
        b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x20",
        b"\x40",
        b"\x58\x01a",
        b"\x5f\xff",
        b"\x5f\x41a\x40\x58\x01b\xff",
        b"\x60",
        b"\x7f\x61a\x79\x00\x01b\xff",
        // Not UTF-8: well-formed all the same.
        b"\x61\xff",
        b"\x80",
        b"\x9f\xff",
        b"\x9f\x01\x9f\xff\x80\xff",
        b"\xbf\xff",
        b"\xbf\x01\x02\x61a\xf6\xff",
        b"\xa1\xa0\x80",
        b"\xc0\x00",
        b"\xdb\xff\xff\xff\xff\xff\xff\xff\xff\x40",
        b"\xe0",
        b"\xf3",
        b"\xf4",
        b"\xf7",
        b"\xf8\x20",
        b"\xf8\xff",
        b"\xf9\x7e\x00",
        b"\xfa\0\0\0\0",
        b"\xfb\0\0\0\0\0\0\0\0",
    ] {
        assert_eq!(envelope_of(&within_fields(item)), (None, "Ping".to_owned()));
    }
}

/// RFC 8949, appendix F.1, and some more.
#[test]
fn item_that_is_not_well_formed_is_malformed() {
    let ill_formed: [&[u8]; 39] = [
        // Reserved additional information.
        b"\x1c",
        b"\x1d",
        b"\x1e",
        b"\x3c",
        b"\x3d",
        b"\x3e",
        b"\x5c",
        b"\x5d",
        b"\x5e",
        b"\x7c",
        b"\x7d",
        b"\x7e",
        b"\x9c",
        b"\x9d",
        b"\x9e",
        b"\xbc",
        b"\xbd",
        b"\xbe",
        b"\xdc",
        b"\xdd",
        b"\xde",
        b"\xfc",
        b"\xfd",
        b"\xfe",
        // Simple values in two bytes that have one.
        b"\xf8\x00",
        b"\xf8\x01",
        b"\xf8\x18",
        b"\xf8\x1f",
        // Indefinite lengths of what has none.
        b"\x1f",
        b"\x3f",
        b"\xdf\x00",
        // Chunks of another type, or of indefinite length themselves.
        b"\x5f\x00\xff",
        b"\x5f\x61a\xff",
        b"\x7f\x41a\xff",
        b"\x5f\x5f\x41a\xff\xff",
        b"\x7f\x7f\x61a\xff\xff",
        // Breaks where none can be.
        b"\xff",
        b"\x81\xff",
        b"\xbf\x00\xff",
    ];
    for item in ill_formed {
        let (id, malformed) = rejected(&within_fields(item));
        assert_eq!(id, None);
        assert!(
            matches!(malformed, Malformed::IllFormed(at) if at >= 8),
            "{item:02x?}: {malformed:?}"
        );
    }
    for item in [
        &b"\xa1\xff\x00"[..],
        b"\xa1\x00\xff",
        b"\xc0\xff",
        b"\x82\x00\xff",
    ] {
        assert!(
            matches!(rejected(&within_fields(item)).1, Malformed::IllFormed(_)),
            "{item:02x?}"
        );
    }
}

#[test]
fn message_that_ends_too_early_is_malformed_wherever_it_is_cut() {
    let message = b"\x82\x05\xa1\x64Ping\xbf\x61a\x5f\x41b\xff\x61b\x9f\x18\x20\xf9\x00\x00\xff\x61c\xa1\xc0\x00\xf8\x20\xff";
    envelope_of(message);
    for len in 0..message.len() {
        let (id, malformed) = rejected(&message[..len]);
        assert!(
            matches!(malformed, Malformed::Truncated(_)),
            "cut to {len}: {malformed:?}"
        );
        assert_eq!(id, (len >= 2).then_some(5), "cut to {len}");
    }
}

#[test]
fn declared_length_beyond_the_message_is_malformed_at_once() {
    for item in [
        &b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00",
        b"\x5a\xff\xff\xff\xff",
    ] {
        assert!(
            matches!(rejected(&within_fields(item)).1, Malformed::Truncated(_)),
            "{item:02x?}"
        );
    }
}

#[test]
fn anything_behind_the_item_is_malformed() {
    assert_eq!(rejected(b"\x64Ping\x00"), (None, Malformed::Trailing(5)));
    assert_eq!(
        rejected(b"\x82\x07\x64Ping\xff"),
        (Some(7), Malformed::Trailing(7))
    );
    assert_eq!(rejected(b""), (None, Malformed::Truncated(0)));
}

#[test]
fn nesting_of_64_levels_is_taken_and_of_65_is_malformed() {
    // The command and its fields are the first two.
    for (open, close) in [
        (&b"\x81"[..], &b""[..]),
        (b"\x9f", b"\xff"),
        (b"\xa1\x00", b""),
        (b"\xbf\x00", b"\xff"),
        (b"\xc1", b""),
    ] {
        let nested = |levels: usize| {
            within_fields(
                &[
                    open.repeat(levels - 2),
                    b"\x00".to_vec(),
                    close.repeat(levels - 2),
                ]
                .concat(),
            )
        };
        assert_eq!(envelope_of(&nested(64)).1, "Ping");
        assert!(matches!(rejected(&nested(65)).1, Malformed::Nested(_)));
        assert!(matches!(rejected(&nested(100_000)).1, Malformed::Nested(_)));
    }
    // Under a request id there is one level more; the array, the command, the fields.
    let enveloped = |levels: usize| {
        let nested = [b"\x81".repeat(levels - 3), b"\x00".to_vec()].concat();
        [b"\x82\x09".to_vec(), within_fields(&nested)].concat()
    };
    assert_eq!(envelope_of(&enveloped(64)).0, Some(9));
    assert!(matches!(
        rejected(&enveloped(65)),
        (Some(9), Malformed::Nested(_))
    ));
    assert!(matches!(
        rejected(&[b"\x82\x09".to_vec(), b"\x81".repeat(100_000)].concat()),
        (Some(9), Malformed::Nested(_))
    ));
}

#[test]
fn well_formed_item_of_another_form_is_no_command() {
    for (message, id) in [
        (&b"\x05"[..], None),
        (b"\xf6", None),
        (b"\x44Ping", None),
        (b"\xa0", None),
        (b"\xa2\x64Ping\xa0\x64Pong\xa0", None),
        (b"\xbf\x64Ping\xa0\x64Ping\xa0\xff", None),
        (b"\xa1\x01\xa0", None),
        (b"\xa1\x44Ping\xa0", None),
        // A name that is not UTF-8.
        (b"\x62\xc3\x28", None),
        (b"\x7f\x61\xc3\x61\x28\xff", None),
        // The fields are a map, or it is no command.
        (b"\xa1\x64Ping\xf6", None),
        (b"\xa1\x64Ping\x80", None),
        (b"\x80", None),
        (b"\x81\x05", None),
        (b"\x81\x64Ping", None),
        (b"\x83\x05\x64Ping\x00", None),
        (b"\x82\x64Ping\x05", None),
        (b"\x82\x20\x64Ping", None),
        (b"\x82\xf9\x45\x00\x64Ping", None),
        (b"\x82\xc2\x41\x05\x64Ping", None),
        (b"\x82\x1b\x00\x20\x00\x00\x00\x00\x00\x00\x64Ping", None),
        (b"\x82\x05\x05", Some(5)),
        (b"\x82\x05\x82\x05\x64Ping", Some(5)),
        (b"\x82\x05\xa0", Some(5)),
        (b"\x9f\x05\xa0\xff", Some(5)),
        (b"\x9f\xff", None),
        (b"\x9f\x05\xff", None),
        (b"\x9f\x05\x64Ping\x00\xff", None),
    ] {
        assert_eq!(
            rejected(message),
            (id, Malformed::NoCommand),
            "{message:02x?}"
        );
    }
}

#[test]
fn broken_message_keeps_the_request_id_that_it_begins_with() {
    for (message, id) in [
        (&b"\x82\x05"[..], Some(5)),
        (b"\x82\x05\xff", Some(5)),
        (b"\x82\x19\x01\x00\x1c", Some(256)),
        (b"\xd9\xd9\xf7\x82\xc1\x05\x1c", Some(5)),
        (b"\x9f\x05", Some(5)),
        (b"\x9f\x05\x64Pi", Some(5)),
        (b"\x9f\x05\x64Ping", Some(5)),
        (b"\x9f\x05\x64Ping\x1c", None),
        (b"\x83\x05\x1c", None),
        (b"\x82\x18", None),
        (b"\x82\x1b\x00\x20\x00\x00\x00\x00\x00\x00\x1c", None),
        (b"\x82\x24\x1c", None),
        (b"\xa1\x64Ping\x1c", None),
    ] {
        assert_eq!(rejected(message).0, id, "{message:02x?}");
    }
}

fn map(bytes: &[u8]) -> Item<'_> {
    Item::new(bytes)
}

#[test]
fn key_that_stands_twice_is_found_in_any_encoding() {
    for repeated in [
        &b"\xa2\x61a\x00\x61a\x00"[..],
        b"\xa3\x61a\x00\x61b\x00\x61a\x00",
        b"\xbf\x61a\x00\x61a\x00\xff",
        b"\xa2\x61a\x00\x78\x01a\x00",
        b"\xa2\x62ab\x00\x7f\x61a\x61b\xff\x00",
        b"\xa2\x61a\x00\xc1\x61a\x00",
        b"\xa2\x01\x00\x18\x01\x00",
        b"\xa2\x20\x00\x38\x00\x00",
        b"\xa2\x41a\x00\x5f\x41a\xff\x00",
        b"\xa2\xf6\x00\xf6\x00",
        b"\xc1\xa2\x80\x00\x80\x00",
    ] {
        assert!(
            map(repeated).first_repeated_key().is_some(),
            "{repeated:02x?}"
        );
    }
    for different in [
        &b"\xa2\x61a\x00\x61b\x00"[..],
        b"\xa2\x61a\x00\x41a\x00",
        b"\xa2\x00\x00\x20\x00",
        b"\xa2\x60\x00\x40\x00",
        b"\xa0",
        // Twice in a map inside, and as values.
        b"\xa1\x61a\xa2\x01\x00\x01\x00",
        b"\xa2\x61a\x01\x61b\x01",
        b"\x82\x01\x01",
    ] {
        assert!(
            map(different).first_repeated_key().is_none(),
            "{different:02x?}"
        );
    }
}

#[test]
fn repeated_key_is_found_among_many() {
    let mut bytes = vec![0xb9, 0x27, 0x11];
    for key in 0..10_000_u16 {
        bytes.extend_from_slice(&[0x19, (key >> 8) as u8, key as u8, 0]);
    }
    let unlike = [&bytes[..], b"\x61a\x00"].concat();
    assert!(map(&unlike).first_repeated_key().is_none());
    for key in [0_u16, 15, 16, 9_999] {
        let like = [&bytes[..], &[0x19, (key >> 8) as u8, key as u8, 0]].concat();
        assert_eq!(
            map(&like).first_repeated_key().unwrap().unsigned(),
            Some(u64::from(key))
        );
    }
}

#[test]
fn item_is_told_to_a_person_in_few_words() {
    let long = [&b"\x79\x01\x00"[..], "é".repeat(128).as_bytes()].concat();
    for (bytes, told) in [
        (&b"\x18\x2a"[..], "the number 42"),
        (
            b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
            "the number -18446744073709551616",
        ),
        (b"\x42ab", "a byte string of length 2"),
        (b"\x5f\xff", "a byte string"),
        (b"\x64a\"\nb", "the text \"a\\\"\\nb\""),
        (b"\x7f\x61a\x61b\xff", "the text \"ab\""),
        (b"\x80", "an array of length 0"),
        (b"\x9f\xff", "an array"),
        (b"\xc1\xa0", "a map"),
        (b"\xf5", "true"),
        (b"\xf6", "null"),
        (b"\xf7", "undefined"),
        (b"\xf9\x3c\x00", "a floating point number"),
        (b"\xe0", "a simple value"),
        (&long, &format!("the text \"{}…\"", "é".repeat(40))),
    ] {
        assert_eq!(map(bytes).to_string(), told);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = scan(&bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_command_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(envelope) = scan(&within_fields(&bytes)) {
            let _ = envelope.fields.first_repeated_key();
            for (key, value) in envelope.fields.pairs().into_iter().flatten() {
                let _ = (key.to_string(), value.to_string(), value.is_null(), value.only_pair());
            }
        }
    }

    #[test]
    fn plain_messages_are_judged_as_all_others_are(
        bytes in proptest::collection::vec(any::<u8>(), 0..30),
        id in any::<Option<u8>>(),
    ) {
        let mut message = within_fields(&bytes);
        if let Some(id) = id {
            message.splice(..0, [0x82, 0x18, id]);
        }
        // A tag in front makes it a message that is not plain.
        let tagged = [b"\xc1", &message[..]].concat();
        match (scan(&message), scan(&tagged)) {
            (Ok(plain), Ok(other)) => prop_assert_eq!(plain, other),
            (Err((plain, _)), Err((other, _))) => prop_assert_eq!(plain, other),
            (plain, other) => prop_assert!(false, "{:?} but {:?}", plain, other),
        }
    }

    /// serde_cbor is the second opinion: what it reads as a value is well-formed. (It refuses simple values, and takes some
    /// lengths that are too long for memory.)
    #[test]
    fn whatever_serde_cbor_reads_is_well_formed(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        if serde_cbor::from_slice::<serde_cbor::Value>(&bytes).is_ok() {
            prop_assert!(matches!(scan(&bytes), Ok(_) | Err((_, Malformed::NoCommand))));
        }
    }
}
