//! Messages as commands, and responses as messages; on both sides of the wire.

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput};
use infotainer::protocol::{
    Acknowledge, Acknowledged, ClientCommand, Durability, Request, RequestId, Sequence,
    ServerResponse, SubmitPublication, Submitted, SubscriptionId, SubscriptionReference,
    codec::{decode_request, decode_response, encode_request, encode_response},
};

use crate::{Area, PAYLOAD, name, publication, publication_id, table::Table};

fn submit(subscription: SubscriptionReference, payload: usize) -> Request {
    Request {
        id: Some(RequestId(70_000)),
        command: ClientCommand::SubmitPublication(SubmitPublication {
            subscription,
            submission: vec![7; payload].into(),
            kind: None,
            publication_id: None,
            expected_sequence: None,
        }),
    }
}

fn acknowledge(count: u64) -> Request {
    Request {
        id: Some(RequestId(70_000)),
        command: ClientCommand::Acknowledge(Acknowledge {
            subscription: name(),
            what: Acknowledged::Ids((1..=count).map(publication_id).collect()),
        }),
    }
}

pub(crate) fn benchmarks(criterion: &mut Criterion, table: &mut Table) {
    let mut area = Area::new("codec", criterion, table);
    let by_id = SubscriptionReference::from(SubscriptionId::of_name("measurements/room-17"));
    for (case, request) in [
        ("submit 128 B by UUID", submit(by_id, PAYLOAD)),
        ("submit 128 B by name", submit(name(), PAYLOAD)),
        ("submit 64 KiB by name", submit(name(), 64 << 10)),
        ("acknowledge 16 ids", acknowledge(16)),
    ] {
        let message = Bytes::from(encode_request(&request));
        let bytes = Throughput::Bytes(message.len() as u64);
        area.measure(&format!("decode {case}"), bytes.clone(), || {
            decode_request(&message)
        });
        area.measure(&format!("encode {case}"), bytes, || {
            encode_request(&request)
        });
    }

    let submitted = ServerResponse::Submitted(Submitted {
        subscription_id: SubscriptionId::of_name("measurements/room-17"),
        publication_id: publication_id(70_000),
        sequence: Sequence(70_000),
        duplicate: false,
        durability: Durability::Synced,
    });
    let mut out = BytesMut::new();
    let id = Some(RequestId(70_000));
    encode_response(&mut out, id, &submitted);
    // A frame below 126 bytes has a head of two; one of up to 64 KiB has four.
    let answer = out.clone().freeze().slice(4..);
    let bytes = Throughput::Bytes(out.len() as u64);
    area.measure("encode Submitted", bytes.clone(), || {
        out.clear();
        encode_response(&mut out, id, &submitted);
    });
    decode_response(&answer).expect("what the server encodes is a response");
    area.measure("decode Submitted", bytes, || decode_response(&answer));

    let mut frame = Vec::new();
    publication(70_000, &[7; PAYLOAD]).encode_into(&mut frame);
    let frame = Bytes::from(frame).slice(4..);
    decode_response(&frame).expect("what the server encodes is a publication");
    let bytes = Throughput::Bytes(frame.len() as u64);
    area.measure("decode Publication of 128 B", bytes, || {
        decode_response(&frame)
    });
}
