//! What travels: commands, responses, identifiers, error codes, and how they become bytes.
//!
//! Owns the wire format of protocol 1 (`docs/protocol.md`). Knows no I/O, no clock and no actor. [`codec`] is the only
//! place that names serde_cbor.

pub mod codec;
mod command;
mod error;
pub mod frame;
mod ids;
mod publication;
mod response;
mod room;
mod scan;

pub use command::*;
pub use error::*;
pub use ids::*;
pub use publication::*;
pub use response::*;
pub use room::*;

/// The WebSocket subprotocol of protocol 1 in CBOR.
pub const SUBPROTOCOL: &str = "infotainer.v1.cbor";

/// What `Welcome` and the HTTP routes call this server: `infotainer/<version>`.
pub const SERVER: &str = concat!("infotainer/", env!("CARGO_PKG_VERSION"));
