//! The protocol (`docs/protocol.md`) over real sockets: each test's name is a promise of that text.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "../support/mod.rs"]
#[macro_use]
mod support;

mod access;
mod beginnings;
mod damage;
mod dead_letters;
mod deleting;
mod delivery;
mod durability;
mod heartbeat;
mod identity_limits;
mod json;
mod limits;
mod listing;
mod logs;
mod malformed;
mod publishing;
mod queue;
mod requests;
mod retention;
mod sessions;
mod settings;
mod shutdown;
mod signals;
mod starting;
mod subscribing;
mod tls;
mod transport;
mod types;
mod upgrade;
