//! Every response there and back; and that no bytes are a reason to panic.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::protocol::codec::encode_response;
use crate::protocol::{
    Durability, Epoch, Kind, MAX_ENTRIES, Publication, SERVER, Sequence, StoredPublication,
    SubscriptionId, Timestamp,
};

fn uuid(byte: u8) -> Uuid {
    Uuid::from_bytes([byte; 16])
}

/// The message in the one unmasked frame that `frame` is.
fn message_of(mut frame: Bytes) -> Bytes {
    let head = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    frame.advance(head);
    frame
}

fn encoded(request_id: Option<u64>, response: &ServerResponse) -> Bytes {
    let mut frame = BytesMut::new();
    encode_response(&mut frame, request_id.map(RequestId), response);
    message_of(frame.freeze())
}

fn meta() -> SubscriptionMeta {
    SubscriptionMeta {
        subscription_id: SubscriptionId(uuid(1)),
        kind: Kind::Broadcast,
        epoch: Epoch(uuid(2)),
        settings: ShownSettings {
            name: Some("news".into()),
            retention: Retention {
                max_publications: Some(1),
                max_bytes: None,
                max_age: Some(3),
            },
            durability: Durability::Written,
            ack_timeout: Some(5),
            max_deliveries: Some(6),
            dead_letter: Some(SubscriptionId(uuid(7))),
        },
        created: Timestamp(8),
        first_sequence: Sequence(1),
        last_sequence: Sequence(0),
        bytes: 9,
        subscribers: 10,
        connected: 11,
        pending: Some(12),
        in_flight: None,
    }
}

fn publication() -> Publication<'static> {
    Publication {
        subscription_id: SubscriptionId(uuid(1)),
        publication_id: PublicationId(uuid(2)),
        sequence: Sequence(3),
        time: Timestamp(4),
        publisher: Some("somebody"),
        dead_letter: None,
        data: b"hello",
    }
}

fn received() -> ReceivedPublication {
    ReceivedPublication {
        subscription_id: SubscriptionId(uuid(1)),
        publication_id: PublicationId(uuid(2)),
        sequence: Sequence(3),
        time: Timestamp(4),
        publisher: Some("somebody".into()),
        dead_letter: None,
        data: Bytes::from_static(b"hello"),
        delivery: None,
    }
}

fn publication_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    publication().encode_into(&mut frame);
    frame
}

fn every_response() -> Vec<ServerResponse> {
    let about = About {
        subscription_id: SubscriptionId(uuid(1)),
    };
    let settled = Settled {
        subscription_id: SubscriptionId(uuid(1)),
        count: 2,
        lost: Some(vec![PublicationId(uuid(3))]),
    };
    let frame = publication_frame();
    let stored = StoredPublication::split_first(&frame)
        .expect("a publication")
        .0;
    let retry_after = Duration::from_secs(3).as_millis() as u64;
    vec![
        ServerResponse::Welcome(Box::new(Welcome {
            session_id: SessionId(uuid(1)),
            durable: true,
            resumed: true,
            subscriptions: vec![RestoredSubscription {
                subscription_id: SubscriptionId(uuid(2)),
                kind: Kind::Queue,
                epoch: Epoch(uuid(3)),
                cursor: Sequence(4),
                recovered: false,
            }],
            server: SERVER.into(),
            limits: Limits {
                max_message_size: 1,
                max_subscriptions: 2,
                heartbeat_interval: 3,
                heartbeat_timeout: 4,
            },
        })),
        ServerResponse::Subscribed(Box::new(Subscribed {
            subscription_id: SubscriptionId(uuid(1)),
            kind: Kind::Broadcast,
            epoch: Epoch(uuid(2)),
            first_sequence: Sequence(3),
            last_sequence: Sequence(2),
            recovered: true,
            cursor: Some(Sequence(2)),
            prefetch: None,
        })),
        ServerResponse::Unsubscribed(about),
        ServerResponse::Deleted(about),
        ServerResponse::Submitted(Submitted {
            subscription_id: SubscriptionId(uuid(1)),
            publication_id: PublicationId(uuid(2)),
            sequence: Sequence(3),
            duplicate: true,
            durability: Durability::Synced,
        }),
        ServerResponse::Acknowledged(Settled {
            lost: None,
            ..settled.clone()
        }),
        ServerResponse::Rejected(settled.clone()),
        ServerResponse::Extended(settled),
        ServerResponse::LogIndex(Box::new(LogIndex {
            log_id: SubscriptionId(uuid(1)),
            entries: (0..MAX_ENTRIES as u128)
                .map(|n| PublicationId(Uuid::from_u128(n)))
                .collect(),
            first_sequence: Sequence(1),
            last_sequence: Sequence(2),
            more: true,
        })),
        ServerResponse::DataLogEntry(Box::new(DataLogEntry {
            log_id: SubscriptionId(uuid(1)),
            publications: vec![Bytes::copy_from_slice(stored.fields()); 2],
            missing: vec![PublicationId(uuid(2))],
            more: false,
        })),
        ServerResponse::SubscriptionMeta(Box::new(meta())),
        ServerResponse::Subscriptions(Box::new(Subscriptions {
            subscriptions: vec![meta(), meta()],
            more: true,
        })),
        ServerResponse::Gap(Gap {
            subscription_id: SubscriptionId(uuid(1)),
            from: Sequence(2),
            to: Sequence(3),
            cause: GapCause::Retention,
        }),
        ServerResponse::Pong(Pong { time: Timestamp(1) }),
        ServerResponse::Authenticated(Authenticated {
            name: Some("alice".into()),
            expires: Some(Timestamp(1)),
        }),
        ServerResponse::TokenExpiring(TokenExpiring {
            expires: Timestamp(1),
        }),
        ServerResponse::from(ServerError {
            retry_after: Some(retry_after),
            ..ServerError::new(ErrorCode::RateLimited, "slowly")
                .for_command("SubmitPublication")
                .for_subscription(SubscriptionId(uuid(1)))
        }),
    ]
}

#[test]
fn every_response_survives_the_way_to_the_client() {
    let responses = every_response();
    assert_eq!(responses.len(), RESPONSES.len());
    for response in responses {
        for id in [None, Some(0), Some(70_000)] {
            let received = decode_response(&encoded(id, &response)).expect("a response");
            assert_eq!(received.request_id, id.map(RequestId));
            assert_eq!(received.message, ServerMessage::Response(response.clone()));
        }
    }
}

#[test]
fn every_error_code_is_known_by_its_text() {
    for code in [
        ErrorCode::Malformed,
        ErrorCode::LogFull,
        ErrorCode::Internal,
    ] {
        assert_eq!(ErrorCode::of_text(code.as_str()), Some(code));
    }
    assert_eq!(ErrorCode::of_text("Malformed"), None);
}

#[test]
fn code_of_a_later_server_is_internal_and_says_so() {
    let message = Bytes::from_static(
        b"\xa1\x65Error\xa3\x64code\x67brand-x\x67message\x62no\x69temporary\xf5",
    );
    let ServerMessage::Response(ServerResponse::Error(error)) =
        decode_response(&message).expect("an error").message
    else {
        panic!("no error");
    };
    assert_eq!(
        (error.code, &*error.message, error.temporary),
        (ErrorCode::Internal, "brand-x: no", true)
    );
}

#[test]
fn publication_is_decoded_live_and_out_of_the_log() {
    let frame = publication_frame();
    let message = message_of(Bytes::from(frame.clone()));
    let live = decode_response(&message).expect("a publication");
    assert_eq!(live.request_id, None);
    assert_eq!(live.message, ServerMessage::Publication(received()));

    let stored = StoredPublication::split_first(&frame)
        .expect("a publication")
        .0;
    let fields = Bytes::copy_from_slice(stored.fields());
    assert_eq!(decode_publication(&fields), Ok(received()));
}

#[test]
fn response_of_a_later_server_is_told_by_name() {
    let message = Bytes::from_static(b"\xa1\x63New\xa0");
    assert_eq!(
        decode_response(&message).expect("well-formed").message,
        ServerMessage::Unknown("New".to_owned())
    );
}

#[test]
fn what_is_no_response_is_refused() {
    for message in [
        &b""[..],
        b"\xa1",
        b"\xa1\x64Pong\xa0",
        b"\xa1\x64Pong\xa1\x64time\x61x",
        b"\xa1\x64Pong\xa1\x64time\x01\x00",
        b"\xa1\x64Pong\xa2\x64time\x01\x64time\x01",
        b"\xa1\x6dSubscriptions\xa2\x6dsubscriptions\x81\x01\x64more\xf4",
    ] {
        assert!(
            decode_response(&Bytes::from_static(message)).is_err(),
            "{message:02x?}"
        );
    }
    assert!(decode_publication(&Bytes::from_static(b"\x01")).is_err());
    assert!(decode_publication(&Bytes::from_static(b"\xa0\xa0")).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(
        which in 0..15_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut message = encoded(Some(7), &every_response()[which]).to_vec();
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        let whole = Bytes::from(message);
        let _ = decode_response(&whole);
        let _ = decode_response(&whole.slice(..cut.index(whole.len())));
        let _ = decode_publication(&whole);
    }
}
