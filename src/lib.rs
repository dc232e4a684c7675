//! A standalone, durable publish/subscribe server: WebSocket clients speak CBOR to it.
//!
//! The feature `server` is `Server` and everything behind it, `client` is the client library; both are on by default. Without
//! either, [`protocol`] alone is left: what travels, and its codec. The feature `conformance` is for the server's own tests.

#[cfg(feature = "server")]
mod actors;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "server")]
mod connection;
#[cfg(feature = "server")]
pub mod datalog;
#[cfg(feature = "server")]
pub mod domain;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
mod memory;
pub mod protocol;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
pub use config::Config;
#[cfg(feature = "server")]
pub use server::{RunningServer, Server, StartError, StopError};
