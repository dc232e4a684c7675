//! The layout byte by byte, and what is no publication.

use proptest::prelude::*;
use serde_cbor::Value;

use super::*;

fn sample<'a>(publisher: Option<&'a str>, data: &'a [u8]) -> Publication<'a> {
    Publication {
        subscription_id: SubscriptionId(Uuid::from_bytes([0x11; 16])),
        publication_id: PublicationId(Uuid::from_bytes([0x22; 16])),
        sequence: Sequence(0x0102),
        time: Timestamp(0x0304),
        publisher,
        dead_letter: None,
        data,
    }
}

fn encoded(publication: &Publication<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    publication.encode_into(&mut out);
    assert_eq!(out.len(), publication.encoded_len());
    out
}

fn of_text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn frame_has_the_documented_bytes() {
    let mut expected = vec![0x82, 122];
    expected.extend_from_slice(b"\xa1\x6bPublication\xa5\x6fsubscription_id\x50");
    expected.extend_from_slice(&[0x11; 16]);
    expected.extend_from_slice(b"\x6epublication_id\x50");
    expected.extend_from_slice(&[0x22; 16]);
    expected.extend_from_slice(b"\x68sequence\x1b\0\0\0\0\0\0\x01\x02");
    expected.extend_from_slice(b"\x64time\x1b\0\0\0\0\0\0\x03\x04");
    expected.extend_from_slice(b"\x64data\x45hello");
    assert_eq!(encoded(&sample(None, b"hello")), expected);
}

#[test]
fn frame_with_a_publisher_is_one_map_of_six_pairs() {
    let frame = encoded(&sample(Some("somebody"), b"hello"));
    let Value::Map(message) = serde_cbor::from_slice(&frame[4..]).unwrap() else {
        panic!("no map")
    };
    let Value::Map(fields) = &message[&of_text("Publication")] else {
        panic!("no map")
    };
    assert_eq!(fields.len(), 6);
    assert_eq!(fields[&of_text("publisher")], of_text("somebody"));
    assert_eq!(fields[&of_text("data")], Value::Bytes(b"hello".to_vec()));
    assert_eq!(
        fields[&of_text("subscription_id")],
        Value::Bytes(vec![0x11; 16])
    );
    assert_eq!(fields[&of_text("sequence")], Value::Integer(0x0102));
}

#[test]
fn every_length_of_head_and_data_survives_the_round_trip() {
    for len in [
        0, 3, 4, 8, 9, 23, 24, 255, 256, 65_418, 65_419, 65_420, 65_535, 65_536, 70_000,
    ] {
        let data = vec![0xff; len];
        let publication = sample(None, &data);
        let frame = encoded(&publication);
        let (stored, behind) = StoredPublication::split_first(&frame).unwrap();
        assert!(behind.is_empty());
        assert_eq!(stored.data(), data);
        assert_eq!(stored.frame(), frame);
        assert_eq!(stored.fields()[0], FIVE_PAIRS, "{len}");
        let Value::Map(fields) = serde_cbor::from_slice(stored.fields()).unwrap() else {
            panic!("no map")
        };
        assert_eq!(fields[&of_text("data")], Value::Bytes(data));
    }
}

#[test]
fn frame_with_one_byte_changed_in_its_fixed_layout_is_no_publication() {
    let frame = encoded(&sample(Some("p"), b"d"));
    let head_len = frame.len()
        - StoredPublication::split_first(&frame)
            .unwrap()
            .0
            .fields()
            .len()
        - FIELDS_AT;
    let payload = |at: usize| head_len + at;
    let values = [
        payload(SUBSCRIPTION_ID_AT)..payload(SUBSCRIPTION_ID_AT) + 16,
        payload(PUBLICATION_ID_AT)..payload(PUBLICATION_ID_AT) + 16,
        payload(SEQUENCE_AT)..payload(SEQUENCE_AT) + 8,
        payload(TIME_AT)..payload(TIME_AT) + 8,
        // The publisher's text and the data, of one byte each.
        payload(FIXED) + 11..payload(FIXED) + 12,
        frame.len() - 1..frame.len(),
    ];
    for at in (0..frame.len()).filter(|at| !values.iter().any(|range| range.contains(at))) {
        let mut broken = frame.clone();
        broken[at] ^= 0x01;
        assert!(
            StoredPublication::split_first(&broken).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn frame_that_is_cut_is_no_publication() {
    let frame = encoded(&sample(None, &[7; 300]));
    for len in 0..frame.len() {
        assert_eq!(
            StoredPublication::split_first(&frame[..len]).unwrap_err(),
            NotAPublication
        );
    }
}

#[test]
fn stored_publications_end_behind_the_first_error() {
    let mut bytes = encoded(&sample(None, b"one"));
    sample(Some("x"), b"two").encode_into(&mut bytes);
    bytes.extend_from_slice(b"rubbish");
    let found: Vec<_> = stored_publications(&bytes)
        .map(|stored| stored.map(|stored| stored.data().to_vec()))
        .collect();
    assert_eq!(
        found,
        [
            Ok(b"one".to_vec()),
            Ok(b"two".to_vec()),
            Err(NotAPublication)
        ]
    );
}

#[test]
fn made_id_is_version_7_of_time_sequence_and_random_bits() {
    let id = PublicationId::made(Timestamp(0x0190_0000_0001), Sequence(0x5_abc_def), u64::MAX);
    assert_eq!(id.to_string(), "01900000-0001-7abc-b7bf-ffffffffffff");
    assert_eq!(id.0.get_version_num(), 7);
    assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
    assert_eq!(id.made_of(), Some((Timestamp(0x0190_0000_0001), 0xabc_def)));
    let id = PublicationId::made(Timestamp(0), Sequence(0), 0);
    assert_eq!(id.to_string(), "00000000-0000-7000-8000-000000000000");
}

#[test]
fn id_of_another_version_or_variant_was_not_made() {
    for text in [
        "01900000-0001-4abc-b7bf-ffffffffffff",
        "01900000-0001-7abc-f7bf-ffffffffffff",
    ] {
        assert_eq!(PublicationId(text.parse().unwrap()).made_of(), None);
    }
}

proptest! {
    #[test]
    fn publication_round_trips(
        ids in any::<(u128, u128)>(),
        numbers in any::<(u64, u64)>(),
        publisher in proptest::option::of(".{0,300}"),
        data in proptest::collection::vec(any::<u8>(), 0..400),
        behind in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let publication = Publication {
            subscription_id: SubscriptionId(Uuid::from_u128(ids.0)),
            publication_id: PublicationId(Uuid::from_u128(ids.1)),
            sequence: Sequence(numbers.0),
            time: Timestamp(numbers.1),
            publisher: publisher.as_deref(),
            dead_letter: None,
            data: &data,
        };
        let mut bytes = encoded(&publication);
        let len = bytes.len();
        bytes.extend_from_slice(&behind);
        let (stored, rest) = StoredPublication::split_first(&bytes).unwrap();
        prop_assert_eq!(stored.frame(), &bytes[..len]);
        prop_assert_eq!(rest, &behind[..]);
        prop_assert_eq!(stored.subscription_id(), publication.subscription_id);
        prop_assert_eq!(stored.publication_id(), publication.publication_id);
        prop_assert_eq!(stored.sequence(), publication.sequence);
        prop_assert_eq!(stored.time(), publication.time);
        prop_assert_eq!(stored.data(), &data[..]);
        prop_assert_eq!(stored.fields().len() + stored.fields_offset(), len);
    }

    #[test]
    fn arbitrary_bytes_never_panic_as_a_publication(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = StoredPublication::split_first(&bytes);
    }

    #[test]
    fn mutated_publication_never_panics_and_stays_within_its_bytes(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded(&sample(Some("publisher"), &[1; 200]));
        let index = at.index(bytes.len());
        bytes[index] = byte;
        bytes.truncate(cut.index(bytes.len() + 1));
        for stored in stored_publications(&bytes).flatten() {
            prop_assert!(stored.data().len() < stored.fields().len());
        }
    }

    #[test]
    fn made_id_is_made_for_its_publication(time in 0_u64..1 << 48, sequence in 1_u64..1 << 53, random in any::<u64>()) {
        let id = PublicationId::made(Timestamp(time), Sequence(sequence), random);
        prop_assert!(id.is_made_for(Timestamp(time), Sequence(sequence)));
        prop_assert!(!id.is_made_for(Timestamp(time), Sequence(sequence + 1)));
        prop_assert!(!id.is_made_for(Timestamp(time ^ 1), Sequence(sequence)));
        prop_assert_eq!(id.0.as_u128() as u64 & ((1 << 50) - 1), random & ((1 << 50) - 1));
    }
}
