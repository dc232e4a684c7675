//! The server's connections without the server: says back what it is sent, so that a WebSocket suite can test them.
//!
//! `cargo run --features conformance --example echo [ADDRESS]`; by default the port is a free one. Its first line is where it listens. It
//! runs until it is ended. `tests/conformance/run.py` starts it for the cases of Autobahn.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, net::SocketAddr};

fn main() -> Result<(), Box<dyn Error>> {
    let address = match std::env::args().nth(1) {
        Some(address) => address.parse()?,
        None => SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    infotainer::conformance::echo(address, |address| println!("ws://{address}/ws"))?;
    Ok(())
}
