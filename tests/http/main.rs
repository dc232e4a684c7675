//! `/v1`: what docs/http.md and docs/openapi.json promise, over real sockets with a client of HTTP that is not ours to share code with.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod access;
mod connections;
mod description;
mod encrypted;
mod events;
mod formats;
mod limits;
mod origins;
mod publishing;
mod reading;
mod subscriptions;
