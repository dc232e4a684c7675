//! A load generator for publish/subscribe servers, the same for all of them: `benches/side_by_side.py` runs it.
//!
//! One pinned thread, one epoll, raw frames, no runtime, so that little of what is measured is its own; it reads the server's
//! CPU time from /proc, so that results can be told per CPU second of the server alone. Loopback only, and every run is
//! bounded in time or in count.
//!
//! ```text
//!  scenarios ──publishes, polls──> engine ──bytes──> adapter (one for each protocol)
//!      └── report (one line of JSON)     └── websocket
//!  limit: a server of its own, the ceiling
//! ```
//!
//! It knows nothing of the servers' settings and starts none. Its tests, which check.sh runs, feed the adapters bytes that are cut
//! anywhere, and hold that of our own protocol to what that promises.

mod adapter;
mod arguments;
mod engine;
mod histogram;
mod infotainer;
mod limit;
mod measure;
mod mqtt;
mod nats;
mod raw;
mod redis;
mod report;
mod scenarios;
mod websocket;

use std::process::ExitCode;

use arguments::{Arguments, HELP};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(misused) => {
            eprintln!("{misused}");
            ExitCode::from(2)
        }
    }
}

/// Whether the run succeeded; the error is for who called it wrongly.
fn run() -> Result<bool, arguments::Misused> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    measure::raise_descriptors().map_err(|error| format!("raising the limit: {error}"))?;
    if arguments.scenario != "limit" || arguments.has("cpu") {
        let core = arguments.value("cpu", 1)?;
        measure::pin(core).map_err(|error| format!("running on core {core}: {error}"))?;
    }
    match arguments.scenario.as_str() {
        "limit" => limit::serve(&arguments).map(|()| true),
        "fanout" | "latency" | "publish" | "idle" | "replay" => scenarios::run(&arguments),
        _ => Err(HELP.to_owned()),
    }
}
