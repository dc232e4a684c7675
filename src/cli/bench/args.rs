//! Flags that several loads take.

use std::{sync::Arc, time::Duration};

use clap::Args;
use infotainer::protocol::Durability;

use super::connection::Endpoint;
use crate::cli::{
    Failure,
    connect::{DEFAULT_SERVER, ProofArgs},
    values,
};

/// What every load takes.
#[derive(Args, Clone, Debug)]
pub(super) struct Target {
    /// The server
    #[arg(
        long,
        env = "INFOTAINER_URL",
        value_name = "URL",
        default_value = DEFAULT_SERVER
    )]
    pub(super) server: Endpoint,

    #[command(flatten)]
    proofs: ProofArgs,

    /// When to give up, whatever has been reached
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = values::duration)]
    pub(super) timeout: Duration,

    /// The server's process, of which is said what the load cost it [default: on Linux, the process at the other end of a
    /// connection, if that is on this machine and may be looked at]
    #[arg(long)]
    pub(super) pid: Option<u32>,

    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl Target {
    /// The same, whose server is known to be trusted, and will be told who comes.
    ///
    /// # Errors
    /// If nobody can be trusted.
    pub(super) fn prepared(&self) -> Result<Self, Failure> {
        let mut target = self.clone();
        target.server.prove(self.proofs.clone());
        if self.server.is_encrypted() {
            target.server.trust(Arc::new(self.proofs.tls_config()?));
        }
        Ok(target)
    }
}

/// The subscriptions that a load makes.
#[derive(Args, Clone, Debug)]
pub(super) struct Subscriptions {
    /// The name of the subscription, or the beginning of the names of several [default: bench- and random letters]
    #[arg(long, value_name = "NAME")]
    subscription: Option<String>,

    /// Synced, Written or Memory [default: what the server says]
    #[arg(long, value_name = "LEVEL", value_parser = values::durability)]
    pub(super) durability: Option<Durability>,

    /// Leave the subscriptions on the server
    #[arg(long)]
    pub(super) keep: bool,
}

/// What a load publishes, and when it ends.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Publications {
    /// Bytes of each
    #[arg(long, value_name = "SIZE", default_value = "128", value_parser = payload_size)]
    pub(super) size: u32,

    /// Publish so many
    #[arg(long, value_name = "COUNT", value_parser = values::positive)]
    pub(super) count: Option<u64>,

    /// Publish for so long
    #[arg(long, value_name = "DURATION", default_value = "5s", conflicts_with = "count", value_parser = values::duration)]
    pub(super) duration: Duration,
}

impl Subscriptions {
    /// The names of so many.
    pub(super) fn names(&self, count: usize) -> Vec<String> {
        let prefix = self
            .subscription
            .clone()
            .unwrap_or_else(|| format!("bench-{:08x}", fastrand::u32(..)));
        names(prefix, count)
    }
}

/// `prefix` itself, or so many names that begin with it.
pub(super) fn names(prefix: String, count: usize) -> Vec<String> {
    match count {
        1 => vec![prefix],
        _ => (0..count)
            .map(|index| format!("{prefix}-{index}"))
            .collect(),
    }
}

impl Publications {
    /// Whether one more may be published after so many.
    pub(super) fn goes_on(&self, published: u64, elapsed: Duration) -> bool {
        match self.count {
            Some(count) => published < count,
            None => elapsed < self.duration,
        }
    }

    /// The length of a progress bar, and what it counts.
    pub(super) fn length(&self) -> (u64, &'static str) {
        match self.count {
            Some(count) => (count, "publications"),
            None => (self.duration.as_millis() as u64, "ms"),
        }
    }

    /// How far the bar is.
    pub(super) fn position(&self, publications: u64, elapsed: Duration) -> u64 {
        match self.count {
            Some(_) => publications,
            None => elapsed.as_millis() as u64,
        }
    }
}

/// A [`positive`](values::positive) number of what is kept in memory.
pub(super) fn number(text: &str) -> Result<usize, String> {
    values::positive(text).and_then(|_| few(text))
}

/// A number of connections, 0 among them.
pub(super) fn few(text: &str) -> Result<usize, String> {
    /// More sockets than one address can have.
    const MOST: u64 = 1_000_000;
    values::count(text).and_then(|count| match count {
        0..=MOST => Ok(count as usize),
        _ => Err(format!("a whole number up to {MOST}")),
    })
}

/// Publications per second.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    /// More than one thread can make.
    const MOST: u64 = 100_000_000;
    values::positive(text).and_then(|rate| match rate {
        0..=MOST => Ok(rate),
        _ => Err(format!("a whole number up to {MOST}")),
    })
}

fn payload_size(text: &str) -> Result<u32, String> {
    values::size(text).and_then(|size| match size {
        0..=0x100_0000 => Ok(size as u32),
        _ => Err("a size up to 16MiB".to_owned()),
    })
}
