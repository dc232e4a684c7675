//! A standalone, durable publish/subscribe server: WebSocket clients speak CBOR to it.

mod actors;
pub mod config;
pub mod datalog;
pub mod domain;
pub mod protocol;
