//! A standalone, durable publish/subscribe server: WebSocket clients speak CBOR to it.

mod actors;
pub mod config;
mod connection;
pub mod datalog;
pub mod domain;
mod http;
pub mod protocol;
mod server;

pub use config::Config;
pub use server::{RunningServer, Server, StartError, StopError};
