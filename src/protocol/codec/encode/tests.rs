//! Every response, as serde_cbor's own `Value` reads it, and the hand-made ones byte by byte.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_cbor::Value;
use uuid::Uuid;

use super::*;
use crate::protocol::{
    About, Epoch, ErrorCode, Gap, GapCause, Kind, Limits, LogIndex, MAX_RESPONSE, Pong,
    Publication, ResponseRoom, RestoredSubscription, Retention, SERVER, Sequence, ServerError,
    SessionId, Settled, ShownSettings, StoredPublication, Subscribed, SubscriptionId,
    SubscriptionMeta, Subscriptions, Timestamp, Welcome,
};

fn uuid(byte: u8) -> Uuid {
    Uuid::from_bytes([byte; 16])
}

fn subscription_id() -> SubscriptionId {
    SubscriptionId(uuid(1))
}

fn frame_of(request_id: Option<u64>, response: &ServerResponse) -> BytesMut {
    let mut out = BytesMut::new();
    encode_response(&mut out, request_id.map(RequestId), response);
    out
}

/// The payload of the one frame that `bytes` is.
fn payload(bytes: &[u8]) -> &[u8] {
    let (head_len, payload_len) = FrameHead::read_binary(bytes).expect("a binary frame");
    assert_eq!(bytes.len(), head_len + payload_len);
    &bytes[head_len..]
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn number(number: u64) -> Value {
    Value::Integer(number.into())
}

fn id(byte: u8) -> Value {
    Value::Bytes(vec![byte; 16])
}

fn map(pairs: &[(&str, Value)]) -> Value {
    let map: BTreeMap<_, _> = pairs
        .iter()
        .map(|(key, value)| (text(key), value.clone()))
        .collect();
    assert_eq!(map.len(), pairs.len());
    Value::Map(map)
}

/// Asserts that `response` travels as a map of one pair, `name` to `fields`, bare and under a request id.
fn travels_as(response: &ServerResponse, name: &str, fields: Value) {
    let tagged = map(&[(name, fields)]);
    let bare = frame_of(None, response);
    assert_eq!(
        serde_cbor::from_slice::<Value>(payload(&bare)).unwrap(),
        tagged
    );
    for request_id in [0, 23, 24, 255, 256, 65_536, (1 << 53) - 1] {
        let enveloped = frame_of(Some(request_id), response);
        let expected = Value::Array(vec![number(request_id), tagged.clone()]);
        assert_eq!(
            serde_cbor::from_slice::<Value>(payload(&enveloped)).unwrap(),
            expected
        );
    }
}

#[test]
fn pong_has_the_documented_bytes() {
    let pong = ServerResponse::Pong(Pong {
        time: Timestamp(1_000),
    });
    assert_eq!(
        &frame_of(None, &pong)[..],
        b"\x82\x0f\xa1\x64Pong\xa1\x64time\x19\x03\xe8"
    );
    assert_eq!(
        &frame_of(Some(24), &pong)[..],
        b"\x82\x12\x82\x18\x18\xa1\x64Pong\xa1\x64time\x19\x03\xe8"
    );
}

#[test]
fn submitted_has_the_documented_bytes() {
    let submitted = Submitted {
        subscription_id: subscription_id(),
        publication_id: PublicationId(uuid(2)),
        sequence: Sequence(0x1_0000),
        duplicate: false,
        durability: Durability::Synced,
    };
    let mut expected = b"\x82\x78\xa1\x69Submitted\xa5\x6fsubscription_id\x50".to_vec();
    expected.extend([1; 16]);
    expected.extend(b"\x6epublication_id\x50");
    expected.extend([2; 16]);
    expected.extend(b"\x68sequence\x1a\x00\x01\x00\x00\x69duplicate\xf4\x6adurability\x66Synced");
    assert_eq!(
        &frame_of(None, &ServerResponse::Submitted(submitted))[..],
        expected
    );
}

#[test]
fn error_has_the_documented_bytes() {
    let error = ServerError::new(ErrorCode::NotFound, "no")
        .for_command("Subscribe")
        .for_subscription(subscription_id());
    let mut expected = b"\x82\x5c\x82\x01\xa1\x65Error\xa5\x64code\x69not-found\x67message\x62no\x67command\x69Subscribe".to_vec();
    expected.extend(b"\x69temporary\xf4\x6fsubscription_id\x50");
    expected.extend([1; 16]);
    expected[1] = (expected.len() - 2) as u8;
    assert_eq!(&frame_of(Some(1), &error.into())[..], expected);
}

#[test]
fn welcome_travels_with_what_was_restored() {
    let welcome = Welcome {
        session_id: SessionId(uuid(9)),
        durable: true,
        resumed: false,
        subscriptions: vec![RestoredSubscription {
            subscription_id: subscription_id(),
            kind: Kind::Broadcast,
            epoch: Epoch(uuid(3)),
            cursor: Sequence(7),
            recovered: true,
        }],
        server: SERVER.into(),
        limits: Limits {
            max_message_size: 262_144,
            max_subscriptions: 128,
            heartbeat_interval: 25_000,
            heartbeat_timeout: 10_000,
        },
    };
    let restored = map(&[
        ("subscription_id", id(1)),
        ("kind", text("Broadcast")),
        ("epoch", id(3)),
        ("cursor", number(7)),
        ("recovered", Value::Bool(true)),
    ]);
    let limits = map(&[
        ("max_message_size", number(262_144)),
        ("max_subscriptions", number(128)),
        ("heartbeat_interval", number(25_000)),
        ("heartbeat_timeout", number(10_000)),
    ]);
    let fields = map(&[
        ("session_id", id(9)),
        ("durable", Value::Bool(true)),
        ("resumed", Value::Bool(false)),
        ("subscriptions", Value::Array(vec![restored])),
        ("server", text(SERVER)),
        ("limits", limits),
    ]);
    travels_as(
        &ServerResponse::Welcome(Box::new(welcome)),
        "Welcome",
        fields,
    );
}

#[test]
fn subscribed_travels_with_the_fields_of_its_kind() {
    let mut subscribed = Subscribed {
        subscription_id: subscription_id(),
        kind: Kind::Broadcast,
        epoch: Epoch(uuid(3)),
        first_sequence: Sequence(1),
        last_sequence: Sequence(0),
        recovered: true,
        cursor: Some(Sequence(0)),
        prefetch: None,
    };
    let common = [
        ("subscription_id", id(1)),
        ("epoch", id(3)),
        ("first_sequence", number(1)),
        ("last_sequence", number(0)),
        ("recovered", Value::Bool(true)),
    ];
    let fields = |more: [(&'static str, Value); 2]| map(&[&common[..], &more].concat());
    let broadcast = fields([("kind", text("Broadcast")), ("cursor", number(0))]);
    travels_as(
        &ServerResponse::Subscribed(Box::new(subscribed.clone())),
        "Subscribed",
        broadcast,
    );
    (subscribed.kind, subscribed.cursor, subscribed.prefetch) = (Kind::Queue, None, Some(32));
    let queue = fields([("kind", text("Queue")), ("prefetch", number(32))]);
    travels_as(
        &ServerResponse::Subscribed(Box::new(subscribed)),
        "Subscribed",
        queue,
    );
}

#[test]
fn short_answers_travel_under_their_names() {
    let about = About {
        subscription_id: subscription_id(),
    };
    let fields = map(&[("subscription_id", id(1))]);
    travels_as(
        &ServerResponse::Unsubscribed(about),
        "Unsubscribed",
        fields.clone(),
    );
    travels_as(&ServerResponse::Deleted(about), "Deleted", fields);

    let settled = Settled {
        subscription_id: subscription_id(),
        count: 2,
        lost: Some(vec![PublicationId(uuid(4))]),
    };
    let fields = map(&[
        ("subscription_id", id(1)),
        ("count", number(2)),
        ("lost", Value::Array(vec![id(4)])),
    ]);
    travels_as(
        &ServerResponse::Acknowledged(settled.clone()),
        "Acknowledged",
        fields.clone(),
    );
    travels_as(
        &ServerResponse::Rejected(settled.clone()),
        "Rejected",
        fields.clone(),
    );
    travels_as(
        &ServerResponse::Extended(settled.clone()),
        "Extended",
        fields,
    );
    let fields = map(&[("subscription_id", id(1)), ("count", number(2))]);
    travels_as(
        &ServerResponse::Acknowledged(Settled {
            lost: None,
            ..settled
        }),
        "Acknowledged",
        fields,
    );

    for (cause, name) in [
        (GapCause::Retention, "retention"),
        (GapCause::Damage, "damage"),
    ] {
        let gap = Gap {
            subscription_id: subscription_id(),
            from: Sequence(1),
            to: Sequence(300),
            cause,
        };
        let fields = [
            ("subscription_id", id(1)),
            ("from", number(1)),
            ("to", number(300)),
            ("cause", text(name)),
        ];
        travels_as(&ServerResponse::Gap(gap), "Gap", map(&fields));
    }
    travels_as(
        &ServerResponse::Pong(Pong { time: Timestamp(5) }),
        "Pong",
        map(&[("time", number(5))]),
    );
}

#[test]
fn error_travels_with_what_is_known() {
    let mut error = ServerError::new(ErrorCode::LogFull, "no room");
    let fields = [
        ("code", text("log-full")),
        ("message", text("no room")),
        ("temporary", Value::Bool(true)),
    ];
    travels_as(&error.clone().into(), "Error", map(&fields));
    error.retry_after = Some(500);
    let more = [
        ("retry_after", number(500)),
        ("subscription_id", id(1)),
        ("command", text("Ping")),
    ];
    let error = error
        .for_subscription(subscription_id())
        .for_command("Ping");
    travels_as(&error.into(), "Error", map(&[&fields[..], &more].concat()));
}

fn meta(kind: Kind) -> SubscriptionMeta {
    let queue = kind == Kind::Queue;
    SubscriptionMeta {
        subscription_id: subscription_id(),
        kind,
        epoch: Epoch(uuid(3)),
        settings: ShownSettings {
            name: queue.then(|| "orders".into()),
            retention: Retention {
                max_publications: queue.then_some(5),
                ..Retention::default()
            },
            durability: Durability::Written,
            ack_timeout: queue.then_some(30_000),
            max_deliveries: queue.then_some(10),
            dead_letter: queue.then_some(SubscriptionId(uuid(6))),
        },
        created: Timestamp(11),
        first_sequence: Sequence(12),
        last_sequence: Sequence(13),
        bytes: 14,
        subscribers: 15,
        connected: 16,
        pending: queue.then_some(17),
        in_flight: queue.then_some(18),
    }
}

fn meta_fields(kind: Kind) -> Value {
    let mut settings = vec![("retention", map(&[])), ("durability", text("Written"))];
    let mut fields = vec![
        ("subscription_id", id(1)),
        (
            "kind",
            text(if kind == Kind::Queue {
                "Queue"
            } else {
                "Broadcast"
            }),
        ),
        ("epoch", id(3)),
        ("created", number(11)),
        ("first_sequence", number(12)),
        ("last_sequence", number(13)),
        ("bytes", number(14)),
        ("subscribers", number(15)),
        ("connected", number(16)),
    ];
    if kind == Kind::Queue {
        settings[0].1 = map(&[("max_publications", number(5))]);
        settings.extend([
            ("name", text("orders")),
            ("ack_timeout", number(30_000)),
            ("max_deliveries", number(10)),
            ("dead_letter", id(6)),
        ]);
        fields.extend([("pending", number(17)), ("in_flight", number(18))]);
    }
    fields.push(("settings", map(&settings)));
    map(&fields)
}

#[test]
fn subscription_travels_alone_and_among_others() {
    for kind in [Kind::Broadcast, Kind::Queue] {
        travels_as(
            &ServerResponse::SubscriptionMeta(Box::new(meta(kind))),
            "SubscriptionMeta",
            meta_fields(kind),
        );
    }
    let subscriptions = Subscriptions {
        subscriptions: vec![meta(Kind::Broadcast), meta(Kind::Queue)],
        more: true,
    };
    let list = Value::Array(vec![meta_fields(Kind::Broadcast), meta_fields(Kind::Queue)]);
    let fields = map(&[("subscriptions", list), ("more", Value::Bool(true))]);
    travels_as(
        &ServerResponse::Subscriptions(Box::new(subscriptions)),
        "Subscriptions",
        fields,
    );
}

#[test]
fn log_index_travels_with_any_number_of_entries() {
    for count in [0, 1, 23, 24, 3_900, 10_000] {
        let index = LogIndex {
            log_id: subscription_id(),
            entries: vec![PublicationId(uuid(5)); count],
            first_sequence: Sequence(1),
            last_sequence: Sequence(9),
            more: false,
        };
        let fields = map(&[
            ("log_id", id(1)),
            ("entries", Value::Array(vec![id(5); count])),
            ("first_sequence", number(1)),
            ("last_sequence", number(9)),
            ("more", Value::Bool(false)),
        ]);
        travels_as(
            &ServerResponse::LogIndex(Box::new(index)),
            "LogIndex",
            fields,
        );
    }
}

fn stored_fields(data: &[u8]) -> Bytes {
    let publication = Publication {
        subscription_id: subscription_id(),
        publication_id: PublicationId(uuid(2)),
        sequence: Sequence(3),
        time: Timestamp(4),
        publisher: None,
        dead_letter: None,
        data,
    };
    let mut frame = Vec::new();
    publication.encode_into(&mut frame);
    let (stored, _) = StoredPublication::split_first(&frame).unwrap();
    Bytes::copy_from_slice(stored.fields())
}

#[test]
fn data_log_entry_travels_with_its_publications_as_they_are_stored() {
    for (count, data_len) in [(0, 0), (1, 0), (2, 5), (30, 100), (3, 65_536)] {
        let data = vec![7; data_len];
        let entry = DataLogEntry {
            log_id: subscription_id(),
            publications: vec![stored_fields(&data); count],
            missing: vec![PublicationId(uuid(8)); count / 2],
            more: count == 2,
        };
        let publication = map(&[
            ("subscription_id", id(1)),
            ("publication_id", id(2)),
            ("sequence", number(3)),
            ("time", number(4)),
            ("data", Value::Bytes(data)),
        ]);
        let fields = map(&[
            ("log_id", id(1)),
            ("publications", Value::Array(vec![publication; count])),
            ("missing", Value::Array(vec![id(8); count / 2])),
            ("more", Value::Bool(count == 2)),
        ]);
        travels_as(
            &ServerResponse::DataLogEntry(Box::new(entry)),
            "DataLogEntry",
            fields,
        );
    }
}

/// The lengths at which the frame's head grows are met from both sides, by responses whose length nobody knew before.
#[test]
fn head_fits_a_payload_of_any_length() {
    for len in [
        0, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 200, 65_460, 65_470, 65_475, 65_480,
        65_490, 70_000,
    ] {
        let error = ServerError::new(ErrorCode::Internal, "x".repeat(len));
        let fields = [
            ("code", text("internal")),
            ("message", text(&error.message)),
            ("temporary", Value::Bool(false)),
        ];
        travels_as(&error.clone().into(), "Error", map(&fields));
    }
}

#[test]
fn frames_are_added_behind_what_is_there() {
    let pong = ServerResponse::Pong(Pong { time: Timestamp(1) });
    let long = ServerError::new(ErrorCode::Internal, "x".repeat(70_000)).into();
    let mut out = BytesMut::from(&b"before"[..]);
    for response in [&pong, &long, &pong] {
        encode_response(&mut out, None, response);
    }
    let expected = [
        b"before",
        &frame_of(None, &pong)[..],
        &frame_of(None, &long),
        &frame_of(None, &pong),
    ]
    .concat();
    assert_eq!(&out[..], expected);
}

#[test]
fn encoded_len_is_what_an_item_adds() {
    let list = |count| {
        let subscriptions = Subscriptions {
            subscriptions: vec![meta(Kind::Queue); count],
            more: false,
        };
        payload(&frame_of(
            None,
            &ServerResponse::Subscriptions(Box::new(subscriptions)),
        ))
        .len()
    };
    assert_eq!(list(3) - list(2), encoded_len(&meta(Kind::Queue)));
    assert_eq!(
        encoded_len(&PublicationId(uuid(1))),
        PublicationId::ENCODED_LEN
    );
}

#[test]
fn response_filled_to_its_room_stays_within_the_limit() {
    let fields = stored_fields(&[1; 1_000]);
    let mut entry = DataLogEntry {
        log_id: subscription_id(),
        publications: vec![],
        missing: vec![],
        more: true,
    };
    let mut room = ResponseRoom::new();
    while room.take(PublicationId::ENCODED_LEN) && entry.missing.len() < 10_000 {
        entry.missing.push(PublicationId(uuid(1)));
    }
    while room.take(fields.len()) {
        entry.publications.push(fields.clone());
    }
    let len = payload(&frame_of(
        Some((1 << 53) - 1),
        &ServerResponse::DataLogEntry(Box::new(entry)),
    ))
    .len();
    assert!(
        len <= MAX_RESPONSE && len > MAX_RESPONSE - fields.len() - 200,
        "{len}"
    );

    let index = LogIndex {
        log_id: subscription_id(),
        entries: vec![],
        first_sequence: Sequence((1 << 53) - 1),
        last_sequence: Sequence((1 << 53) - 1),
        more: true,
    };
    let empty = payload(&frame_of(
        Some((1 << 53) - 1),
        &ServerResponse::LogIndex(Box::new(index)),
    ))
    .len();
    // The head of a list of 4 MiB has at most four bytes more than that of an empty one.
    let mut room = ResponseRoom::new();
    assert!(room.take(1));
    assert!(!room.take(MAX_RESPONSE - empty - 4));
}

proptest! {
    #[test]
    fn submitted_is_what_serde_makes_of_it(
        ids in any::<(u128, u128)>(),
        sequence in 0_u64..1 << 53,
        bits in 0_u32..53,
        duplicate in any::<bool>(),
        durability in prop_oneof![Just(Durability::Memory), Just(Durability::Written), Just(Durability::Synced)],
        request_id in proptest::option::of((0_u64..1 << 53, 0_u32..53)),
    ) {
        let response = ServerResponse::Submitted(Submitted {
            subscription_id: SubscriptionId(Uuid::from_u128(ids.0)),
            publication_id: PublicationId(Uuid::from_u128(ids.1)),
            sequence: Sequence(sequence >> bits),
            duplicate,
            durability,
        });
        let request_id = request_id.map(|(id, bits)| id >> bits);
        let expected = match request_id {
            Some(id) => serde_cbor::to_vec(&(id, &response)).unwrap(),
            None => serde_cbor::to_vec(&response).unwrap(),
        };
        let frame = frame_of(request_id, &response);
        prop_assert_eq!(payload(&frame), &expected[..]);
    }

    #[test]
    fn heads_of_items_are_the_shortest(value in any::<u64>(), bits in 0_u32..64) {
        let value = value >> bits;
        let (head, len) = shortest(0, value);
        prop_assert_eq!(&head[..len], &serde_cbor::to_vec(&value).unwrap()[..]);
    }
}
