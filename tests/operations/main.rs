//! What the server tells about itself, and whether what is written about that is true: `docs/operations.md`, the dashboard and the alert rules.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "../support/mod.rs"]
#[macro_use]
mod support;

mod files;
mod health;
mod metrics;
mod page;
