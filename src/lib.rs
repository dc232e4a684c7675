//! A standalone, durable publish/subscribe server: WebSocket clients speak CBOR to it.
//!
//! The feature `server` is `Server` and everything behind it, `client` is the client library; both are on by default. Without
//! either, [`protocol`] alone is left: what travels, and its codec. The features `conformance` and `fuzzing` are for the server's
//! own tests.

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
mod actors;
#[cfg(feature = "server")]
pub mod backup;
#[cfg(feature = "server")]
mod certificates;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "server")]
mod connection;
/// Of a connection, what fuzz targets need: with the rest of the server they would take ten times as long to build.
#[cfg(all(feature = "fuzzing", not(feature = "server")))]
mod connection {
    mod frames;

    pub(crate) use frames::{FrameReader, Received};
}
#[cfg(any(feature = "server", feature = "fuzzing"))]
pub mod datalog;
#[cfg(any(feature = "server", feature = "fuzzing"))]
pub mod domain;
#[cfg(any(all(test, feature = "server"), feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
#[cfg(feature = "server")]
mod histories;
#[cfg(feature = "server")]
mod http;
#[cfg(any(feature = "server", feature = "fuzzing"))]
mod memory;
#[cfg(feature = "server")]
mod metrics;
pub mod protocol;
#[cfg(feature = "server")]
mod reload;
#[cfg(feature = "server")]
mod server;
#[cfg(any(feature = "server", feature = "fuzzing"))]
mod wording;

#[cfg(feature = "server")]
pub use certificates::CertificateError;
#[cfg(feature = "server")]
pub use config::Config;
#[cfg(feature = "server")]
pub use server::{RunningServer, Server, StartError, StopError};
#[cfg(any(feature = "server", feature = "fuzzing"))]
pub use wording::counted;
