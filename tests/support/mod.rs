//! What the tests over real sockets share: servers, clients, and CBOR values.
//!
//! Owns no promise of the server: those are in the tests. The WebSocket client is tokio-tungstenite's and the CBOR of the client side
//! goes through serde_cbor's plain values, so that nothing of the server's own codec or framing is tested against itself.
//!
//! Nothing here paces itself by sleeping: what is waited for is a frame, an event, or a condition ([`eventually`]).

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test binary uses another part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail loudly"
)]

#[macro_use]
mod value;

/// The server's own tests of certificates use it, too.
#[path = "../../src/certificates/authority.rs"]
mod authority;
mod client;
#[cfg(feature = "server")]
mod http;
mod incoming;
mod process;
mod raw;
mod server;
mod tls;
/// The data log's tests use it, too.
#[macro_use]
#[path = "../../src/datalog/tests/small_disk.rs"]
mod small_disk;

use std::time::Duration;

pub use authority::{Authority, Pair};
pub use client::{Client, Event};
#[cfg(feature = "server")]
pub use http::{Answer, Http, ServerSent};
pub use process::{Process, Refused, send};
pub use raw::{Raw, ask, get, handshake};
pub use server::TestServer;
pub use small_disk::{Ballast, FileSystem, on_small_disk, on_small_disks};
pub use tls::{Secured, connect_over_tls, trusting, trusting_with};
pub use value::{Cbor, Fields, Response, encode, named};

use tokio::time::Instant;

/// How long a test waits for what has to come. Only a failing test ever waits for so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, asking again and again.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for `future`, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not come within {PATIENCE:?}: {what}"),
    }
}
