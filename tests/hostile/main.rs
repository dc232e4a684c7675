//! Clients that try to break the server: what they send (`cbor`), and what they do not take (`peers`). Each is answered, closed or waited for;
//! memory stays bounded, and nothing that was promised to anybody is lost.
//!
//! The rules themselves are in `tests/protocol`, and what floods and crowds cost is in `tests/guards.rs`.
//!
//! Some are made with a seed, which is printed: `INFOTAINER_TEST_SEED` runs them with another one. The long forms of `peers`, with the times of
//! a fresh installation, run on demand: `cargo test --release --test hostile -- --ignored --nocapture --test-threads 1`.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(
    clippy::print_stdout,
    reason = "what was measured is there for who asks"
)]

#[path = "../support/mod.rs"]
#[macro_use]
mod support;

mod allocated;
mod cbor;
mod mutation;
mod peers;
mod wrong_types;
