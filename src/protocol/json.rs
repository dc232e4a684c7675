//! The protocol in JSON: the subprotocol `infotainer.v1.json`.
//!
//! Owns the mapping between CBOR and JSON (protocol, section 8), both ways. Does not own what messages mean: a text message becomes the CBOR
//! message that says the same, and is decoded as that; what the server sends is encoded as CBOR, and that is turned into text. So both forms
//! have the same types with the same names, and every rule of the protocol stands in one place.
//!
//! ```text
//!   text ──read──> CBOR ──codec──> Request            response ──codec──> CBOR ──write──> text
//!                                                     ready CBOR frames ──write──> ready JSON frames
//! ```
//!
//! Invariants: nothing recurses deeper than `MAX_NESTING`; reading holds no more than the message and its
//! CBOR, which is hardly longer (a float of three characters has nine bytes); what was converted there and back says the same.

mod read;
mod write;

use bytes::{Bytes, BytesMut};

pub use read::NotJson;

use super::{
    ErrorCode, Request, RequestId, Sequence, ServerError, ServerResponse,
    codec::{self, Rejection, decode_request_of_json, put_frame},
    frame::{BINARY, FrameHead, TEXT},
    scan::{begun_request_id, only_item},
};

/// Decodes one text message.
///
/// # Errors
/// As [`codec::decode_request`]: what is no JSON is `malformed`.
pub fn decode_request(text: &str) -> Result<Request, Rejection> {
    match read::read(text) {
        Ok(message) => decode_request_of_json(&message.into()),
        Err(broken) => Err(Rejection {
            request_id: begun_request_id(&broken.begun),
            error: ServerError::new(ErrorCode::Malformed, broken.why.to_string()),
        }),
    }
}

/// Adds the whole unmasked WebSocket frame of `response` to `out`, as [`codec::encode_response`] does.
///
/// # Panics
/// Never: what the server sends has a JSON form.
pub fn encode_response(
    out: &mut BytesMut,
    request_id: Option<RequestId>,
    response: &ServerResponse,
) {
    let mut frame = BytesMut::new();
    codec::encode_response(&mut frame, request_id, response);
    convert_first(out, &frame).expect("invariant: what the server sends has a JSON form");
}

/// The text that says what the CBOR item `item` says; `None` if it is not exactly one, or no JSON says that. The latter is so of no message of
/// the server: of floats, `undefined`, keys that are no text, and byte strings that are neither data nor a UUID.
pub fn from_cbor(item: &[u8]) -> Option<String> {
    only_item(item).ok()?;
    let mut out = BytesMut::with_capacity(item.len() * 2);
    write::put(&mut out, item)?;
    String::from_utf8(out.into()).ok()
}

/// The CBOR item that says what `text` says.
///
/// # Errors
/// If it is not exactly one JSON value, or one that is nested too deep.
pub fn to_cbor(text: &str) -> Result<Vec<u8>, NotJson> {
    read::read(text).map_err(|broken| broken.why)
}

/// The ready CBOR frames in `frames` as ready JSON frames, up to what is none.
pub fn convert_frames(frames: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(frames.len() * 2);
    let mut rest = frames;
    while let Some(len) = convert_first(&mut out, rest) {
        rest = &rest[len..];
    }
    // Without the room that was left: it may wait in an outbox for long.
    Bytes::copy_from_slice(&out)
}

/// Adds the first of `frames` to `out` as a JSON frame, and returns its length among `frames`.
fn convert_first(out: &mut BytesMut, frames: &[u8]) -> Option<usize> {
    let (head, len) = FrameHead::read(BINARY, frames)?;
    let payload = frames.get(head..head.checked_add(len)?)?;
    let first = out.len();
    let mut converted = None;
    put_frame(out, len, |out| converted = write::put(out, payload));
    if converted.is_none() {
        out.truncate(first);
        return None;
    }
    out[first] = TEXT;
    Some(head + len)
}

/// Length and sequence of the publication that the ready JSON frames in `frames` begin with; `None` if that is no publication. Only the parts
/// that are always the same are looked at.
pub fn first_publication(frames: &[u8]) -> Option<(usize, Sequence)> {
    const UUID: usize = uuid::fmt::Hyphenated::LENGTH;
    let (head, len) = FrameHead::read(TEXT, frames)?;
    let payload = frames.get(head..head.checked_add(len)?)?;
    let rest = payload.strip_prefix(br#"{"Publication":{"subscription_id":""#)?;
    let rest = rest.get(UUID..)?.strip_prefix(br#"","publication_id":""#)?;
    let rest = rest.get(UUID..)?.strip_prefix(br#"","sequence":"#)?;
    let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
    let sequence = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((head + len, Sequence(sequence)))
}

/// Whether the value of `key` is bytes of a client's own: all other byte strings of the protocol are UUIDs.
fn holds_data(key: &[u8]) -> bool {
    matches!(key, b"data" | b"submission")
}

#[cfg(test)]
mod tests;
