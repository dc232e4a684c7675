//! Responses as ready WebSocket frames.

use std::io;

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use crate::protocol::frame::{FrameHead, head_len};
use crate::protocol::{
    DataLogEntry, Durability, PublicationId, RequestId, ServerResponse, Submitted,
};

const ARRAY: u8 = 0x80;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

/// Adds the whole unmasked WebSocket frame of `response` to `out`: bare, or as `[request-id, response]`.
///
/// # Panics
/// Never: responses can be serialized, and a buffer takes every byte.
pub fn encode_response(
    out: &mut BytesMut,
    request_id: Option<RequestId>,
    response: &ServerResponse,
) {
    match response {
        ServerResponse::Submitted(submitted) => put_submitted(out, request_id, submitted),
        ServerResponse::DataLogEntry(entry) => {
            let pieces = entry
                .publications
                .iter()
                .map(|fields| fields.len())
                .sum::<usize>();
            let payload_len_at_least = pieces + entry.missing.len() * PublicationId::ENCODED_LEN;
            put_frame(out, payload_len_at_least, |out| {
                put_envelope(out, request_id);
                put_data_log_entry(out, entry);
            });
        }
        ServerResponse::LogIndex(index) => {
            let payload_len_at_least = index.entries.len() * PublicationId::ENCODED_LEN;
            put_frame(out, payload_len_at_least, |out| {
                put_envelope(out, request_id);
                put_value(out, response);
            });
        }
        _ => put_frame(out, 0, |out| {
            put_envelope(out, request_id);
            put_value(out, response);
        }),
    }
}

/// The bytes that `value` has as CBOR: what an item adds to a response.
///
/// # Panics
/// If `T` refuses to be serialized, which no type of the protocol does.
pub fn encoded_len<T: Serialize>(value: &T) -> usize {
    let mut counter = Counter(0);
    serde_cbor::to_writer(&mut counter, value)
        .expect("invariant: what travels can be serialized, and counting never fails");
    counter.0
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds a frame with the payload that `put_payload` adds. The head is guessed from what the payload has at least; only
/// where the guess was wrong (a payload on the other side of 126 or 65,536 bytes) does the payload move, by a few bytes.
pub(in crate::protocol) fn put_frame(
    out: &mut BytesMut,
    payload_len_at_least: usize,
    put_payload: impl FnOnce(&mut BytesMut),
) {
    // Few responses are shorter than 126 bytes, and those move cheaply.
    let guess = head_len(payload_len_at_least.max(126));
    let start = out.len();
    out.reserve(guess + payload_len_at_least + 128);
    out.put_bytes(0, guess);
    put_payload(out);
    let payload_at = start + guess;
    let payload_len = out.len() - payload_at;
    let head = FrameHead::binary(payload_len);
    let head = head.as_bytes();
    if head.len() > guess {
        out.put_bytes(0, head.len() - guess);
    }
    if head.len() != guess {
        out.copy_within(payload_at..payload_at + payload_len, start + head.len());
        out.truncate(start + head.len() + payload_len);
    }
    out[start..start + head.len()].copy_from_slice(head);
}

fn put_value<T: Serialize>(out: &mut BytesMut, value: &T) {
    serde_cbor::to_writer(out.writer(), value)
        .expect("invariant: responses can be serialized, and a buffer takes every byte");
}

fn put_envelope(out: &mut BytesMut, request_id: Option<RequestId>) {
    if let Some(RequestId(id)) = request_id {
        out.put_u8(ARRAY | 2);
        let (head, len) = shortest(0, id);
        out.put_slice(&head[..len]);
    }
}

/// The head of an item of major type `major` (in the upper three bits) with argument `value`: the bytes and their number.
pub(in crate::protocol) fn shortest(major: u8, value: u64) -> ([u8; 9], usize) {
    let mut head = [0; 9];
    let (additional, len) = match value {
        0..=23 => (value as u8, 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    head[0] = major | additional;
    head[1..=len].copy_from_slice(&value.to_be_bytes()[8 - len..]);
    (head, 1 + len)
}

fn put_array_head(out: &mut BytesMut, len: usize) {
    let (head, head_len) = shortest(ARRAY, len as u64);
    out.put_slice(&head[..head_len]);
}

fn put_data_log_entry(out: &mut BytesMut, entry: &DataLogEntry) {
    out.put_slice(b"\xa1\x6cDataLogEntry\xa4\x66log_id\x50");
    out.put_slice(entry.log_id.0.as_bytes());
    out.put_slice(b"\x6cpublications");
    put_array_head(out, entry.publications.len());
    for fields in &entry.publications {
        out.put_slice(fields);
    }
    out.put_slice(b"\x67missing");
    put_array_head(out, entry.missing.len());
    for id in &entry.missing {
        out.put_u8(0x50);
        out.put_slice(id.0.as_bytes());
    }
    out.put_slice(b"\x64more");
    out.put_u8(if entry.more { TRUE } else { FALSE });
}

/// `Submitted` is answered once for every publication, so it is put together on the stack and copied once.
fn put_submitted(out: &mut BytesMut, request_id: Option<RequestId>, submitted: &Submitted) {
    let mut payload = StackPayload {
        bytes: [0; StackPayload::SIZE],
        len: 0,
    };
    if let Some(RequestId(id)) = request_id {
        payload.put(&[ARRAY | 2]);
        payload.put_unsigned(id);
    }
    payload.put(b"\xa1\x69Submitted\xa5\x6fsubscription_id\x50");
    payload.put(submitted.subscription_id.0.as_bytes());
    payload.put(b"\x6epublication_id\x50");
    payload.put(submitted.publication_id.0.as_bytes());
    payload.put(b"\x68sequence");
    payload.put_unsigned(submitted.sequence.0);
    payload.put(b"\x69duplicate");
    payload.put(&[if submitted.duplicate { TRUE } else { FALSE }]);
    payload.put(match submitted.durability {
        Durability::Memory => &b"\x6adurability\x66Memory"[..],
        Durability::Written => b"\x6adurability\x67Written",
        Durability::Synced => b"\x6adurability\x66Synced",
    });
    let payload = &payload.bytes[..payload.len];
    let head = FrameHead::binary(payload.len());
    out.reserve(head.as_bytes().len() + payload.len());
    out.put_slice(head.as_bytes());
    out.put_slice(payload);
}

struct StackPayload {
    bytes: [u8; Self::SIZE],
    len: usize,
}

impl StackPayload {
    /// Over the longest `Submitted`: 10 bytes of the envelope, 125 of the map.
    const SIZE: usize = 160;

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn put_unsigned(&mut self, value: u64) {
        let (head, len) = shortest(0, value);
        self.put(&head[..len]);
    }
}

#[cfg(test)]
mod tests;
