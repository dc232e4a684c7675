//! The server's connections alone, for suites that test WebSocket. Only with the feature `conformance`.
//!
//! Our protocol has no echo, and such suites know nothing else. So here the server's own handshake, frame reader, credit, outbox, heartbeat and
//! closing serve a conversation that says everything back; `examples/echo.rs` is a program of it.

use std::{io, net::SocketAddr, sync::Arc};

use actix::System;
use tokio::net::TcpListener;

use crate::{
    Config,
    actors::echo::{self, Echo},
    config::LARGEST_MESSAGE_SIZE,
    http,
};

/// Listens on `address`, tells `ready` where that is, and says back what comes at `/ws` until the process ends. Messages may be as large as
/// they may ever be, [`LARGEST_MESSAGE_SIZE`]; everything else is as by default.
///
/// # Errors
/// If the address can't be listened on.
pub fn echo(address: SocketAddr, ready: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let config = Config {
        max_message_size: LARGEST_MESSAGE_SIZE,
        ..Config::default()
    };
    System::new().block_on(async move {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let server = http::serve::<Echo>(listener, None, &Arc::new(config), echo::backend())?;
        ready(address);
        server.await
    })
}
