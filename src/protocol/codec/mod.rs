//! Between bytes and [`Request`](super::Request), [`ServerResponse`](super::ServerResponse). The only user of serde_cbor.
//!
//! `decode` turns a scanned message into a command, field by field; `encode` makes responses into ready frames. Those are
//! the server's; the client's are `request`, which makes commands into messages, and `response`, which decodes what comes
//! back. What is well-formed is judged by `scan` before serde_cbor sees a byte.

mod decode;
mod encode;
mod field;
mod pairs;
mod request;
mod response;
mod value;

use serde::{Serialize, de::DeserializeOwned};

pub use decode::decode_request;
#[cfg(any(feature = "server", feature = "fuzzing"))]
pub(super) use decode::decode_request_of_json;
pub use encode::{encode_response, encoded_len};
#[cfg(any(feature = "server", feature = "fuzzing"))]
pub(super) use encode::{put_frame, shortest};
pub use pairs::{Pairs, encode_bytes, encode_reference};
pub use request::encode_request;
pub use response::{NotAResponse, Received, ServerMessage, decode_publication, decode_response};

use super::{RequestId, ServerError};

/// Why a client message is no [`Request`](super::Request), ready to be answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Rejection {
    /// The id to answer under, where the message carries a valid one.
    pub request_id: Option<RequestId>,
    /// The answer.
    pub error: ServerError,
}

/// The CBOR of a value that the server keeps for itself (state records of the data log).
///
/// # Panics
/// If `T` refuses to be serialized, which no type of the server does.
pub fn encode_state<T: Serialize>(value: &T) -> Vec<u8> {
    serde_cbor::to_vec(value)
        .expect("invariant: state records can be serialized, and a vector takes every byte")
}

/// The value that [`encode_state`] made `bytes` of.
///
/// # Errors
/// If `bytes` is not the encoding of a `T`.
pub fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
    serde_cbor::from_slice(bytes).map_err(|error| StateError(error.to_string()))
}

/// The CBOR of a value, such as a client's command.
///
/// # Panics
/// If `T` refuses to be serialized.
pub fn encode_value<T: Serialize>(value: &T) -> Vec<u8> {
    serde_cbor::to_vec(value).expect("invariant: a vector takes every byte of a plain value")
}

/// The value that `bytes` encode, such as the fields of a response.
///
/// # Errors
/// If `bytes` is not the encoding of a `T`.
pub fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ValueError> {
    serde_cbor::from_slice(bytes).map_err(|error| ValueError(error.to_string()))
}

/// CBOR that is not what was expected.
#[derive(Debug, thiserror::Error)]
#[error("the value can't be decoded: {0}")]
pub struct ValueError(String);

/// A state record that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("a state record can't be decoded: {0}")]
pub struct StateError(String);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Kind, Retention};

    #[test]
    fn state_survives_the_round_trip_and_nothing_else_is_read() {
        let state = (
            Kind::Queue,
            Retention {
                max_age: Some(1),
                ..Retention::default()
            },
        );
        let mut bytes = encode_state(&state);
        assert_eq!(decode_state::<(Kind, Retention)>(&bytes).unwrap(), state);
        assert!(decode_state::<(Kind, Retention)>(&bytes[1..]).is_err());
        bytes.push(0);
        assert!(decode_state::<(Kind, Retention)>(&bytes).is_err());
    }
}
