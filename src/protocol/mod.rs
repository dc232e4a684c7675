//! What travels: commands, responses, identifiers, error codes, and how they become bytes.
//!
//! Owns the wire format of protocol 1 (`docs/protocol.md`). Knows no I/O, no clock and no actor. [`codec`] is the only
//! place that names serde_cbor; [`json`] turns what it makes into JSON and back.

pub mod codec;
mod command;
mod error;
pub mod frame;
mod ids;
#[cfg(any(feature = "server", feature = "fuzzing"))]
pub mod json;
mod publication;
mod response;
mod room;
mod scan;
mod secret;
#[cfg(feature = "server")]
pub mod shown;

pub use command::*;
pub use error::*;
pub use ids::*;
pub use publication::*;
pub use response::*;
pub use room::*;
pub use secret::*;

/// The WebSocket subprotocol of protocol 1 in CBOR.
pub const SUBPROTOCOL: &str = "infotainer.v1.cbor";

/// The WebSocket subprotocol of protocol 1 in JSON.
pub const SUBPROTOCOL_JSON: &str = "infotainer.v1.json";

/// In which form the messages of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Form {
    /// Binary messages of one CBOR item each.
    #[default]
    Cbor,
    /// Text messages of one JSON value each.
    Json,
}

impl Form {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Cbor, Self::Json];

    /// The name of the WebSocket subprotocol.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Cbor => SUBPROTOCOL,
            Self::Json => SUBPROTOCOL_JSON,
        }
    }
}

/// What the subprotocol begins with in which a browser, that can set no header, gives its token: base64url of it follows.
pub const BEARER_SUBPROTOCOL: &str = "infotainer.bearer.";

/// The longest token, in bytes.
pub const MAX_TOKEN: usize = 8 << 10;

/// What `Welcome` and the HTTP routes call this server: `infotainer/<version>`.
pub const SERVER: &str = concat!("infotainer/", env!("CARGO_PKG_VERSION"));
