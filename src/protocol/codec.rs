//! Between bytes and [`Request`], [`ServerResponse`]. The only user of serde_cbor.

use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use super::{Request, RequestId, ServerError, ServerResponse};

/// Why a client message is no [`Request`], ready to be answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Rejection {
    /// The id to answer under, where the message carries a valid one.
    pub request_id: Option<RequestId>,
    /// The answer.
    pub error: ServerError,
}

/// Decodes one binary WebSocket message. Byte strings of the result are slices of `message` where they can be.
///
/// # Errors
/// `malformed`, `unknown-command` or `invalid-argument`, as protocol, section 1 tells them apart.
pub fn decode_request(message: &Bytes) -> Result<Request, Rejection> {
    let _ = message;
    todo!()
}

/// Adds the whole unmasked WebSocket frame of `response` to `out`: bare, or as `[request-id, response]`.
pub fn encode_response(
    out: &mut BytesMut,
    request_id: Option<RequestId>,
    response: &ServerResponse,
) {
    let _ = (out, request_id, response);
    todo!()
}

/// The CBOR of a value that the server keeps for itself (state records of the data log).
pub fn encode_state<T: Serialize>(value: &T) -> Vec<u8> {
    let _ = value;
    todo!()
}

/// The value that [`encode_state`] made `bytes` of.
///
/// # Errors
/// If `bytes` is not the encoding of a `T`.
pub fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
    let _ = bytes;
    todo!()
}

/// A state record that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("a state record can't be decoded: {0}")]
pub struct StateError(String);
