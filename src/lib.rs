//! A standalone, durable publish/subscribe server: WebSocket clients speak CBOR to it.

mod actors;
pub mod config;
#[allow(dead_code, reason = "its users come next")]
mod connection;
pub mod datalog;
pub mod domain;
pub mod protocol;
