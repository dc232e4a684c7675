//! Peers that do what no good one does, beside a load: what do they cost the others?
//!
//! Their kernels take few bytes that nobody reads, so that the server soon has to hold the rest. They are neither checked nor measured;
//! the server is asked how many of them it still has at the end.

use std::{cell::Cell, fmt, time::Duration};

use clap::Args;
use infotainer::protocol::SubscriptionId;
use serde::Serialize;
use socket2::SockRef;
use tokio::{
    net::TcpSocket,
    task::JoinSet,
    time::{self, MissedTickBehavior},
};

use super::{
    Bench, LoadError,
    args::few,
    connection::{Connection, ConnectionError, Endpoint},
    wire::{Command, MetaFields, Submission},
};
use crate::cli::values;

/// Bytes that a peer's kernel takes for it; Linux doubles them.
const RECEIVE_BUFFER: u32 = 16 * 1024;

/// The largest segment to a peer: one of loopback is as large as all of its buffer, and would come in only when that is empty.
const SEGMENT: u32 = 1460;

/// Between two reads of a slow one.
const PACE: Duration = Duration::from_millis(100);

/// Bytes of publications that a deaf one tries to write at once.
const FLOOD: usize = 64 * 1024;

/// Flags for the peers beside a load.
#[derive(Args, Debug)]
#[command(next_help_heading = "Peers beside them, which are not measured")]
pub(super) struct PeersArgs {
    /// Subscribers that read nothing
    #[arg(long, value_name = "COUNT", default_value = "0", value_parser = few)]
    stalled: usize,

    /// Subscribers that read only --slow-rate
    #[arg(long, value_name = "COUNT", default_value = "0", value_parser = few)]
    slow: usize,

    /// Bytes that each slow one reads in a second
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = values::size)]
    slow_rate: u64,

    /// Subscribers that are gone without a word: whatever the server sends is lost, and nothing answers it (Linux)
    #[arg(long, value_name = "COUNT", default_value = "0", value_parser = few)]
    half_open: usize,

    /// Publishers that read no answer, and publish to another subscription as fast as the server reads
    #[arg(long, value_name = "COUNT", default_value = "0", value_parser = few)]
    deaf: usize,
}

/// The peers of a load, as long as it lasts.
pub(super) struct Peers {
    /// Those that do nothing.
    _still: Vec<Connection>,
    /// Each ends with its connection.
    _busy: JoinSet<()>,
}

/// Which peers there were.
#[derive(Serialize)]
pub(super) struct Beside {
    stalled: usize,
    slow: usize,
    slow_rate: u64,
    half_open: usize,
    deaf: usize,
    /// Those of the subscribers among them that the server still had when the load was at its end.
    subscribed_at_end: u64,
}

impl PeersArgs {
    pub(super) fn count(&self) -> usize {
        self.stalled + self.slow + self.half_open + self.deaf
    }

    /// Whether there is somebody who publishes to the load's second subscription.
    pub(super) fn need_a_subscription(&self) -> bool {
        self.deaf > 0
    }
}

impl Peers {
    /// Lets the peers begin. The subscribers among them subscribe to the load's first subscription.
    pub(super) async fn attach(
        args: &PeersArgs,
        size: u32,
        bench: &Bench,
    ) -> Result<Self, LoadError> {
        let mut still = subscribers(args.stalled + args.half_open, bench).await?;
        for connection in &mut still[args.stalled..] {
            connection.lose_what_comes()?;
        }
        let mut busy = JoinSet::new();
        for connection in subscribers(args.slow, bench).await? {
            busy.spawn_local(read_slowly(connection, args.slow_rate));
        }
        for _ in 0..args.deaf {
            let connection = open(&bench.target.server).await?;
            let subscription = SubscriptionId::of_name(&bench.names[1]);
            busy.spawn_local(publish_deafly(connection, size, subscription));
        }
        Ok(Self {
            _still: still,
            _busy: busy,
        })
    }

    /// Asks which are there still, beside so many subscribers of the load's first subscription.
    pub(super) async fn beside(
        &self,
        args: &PeersArgs,
        subscribers: usize,
        bench: &Bench,
    ) -> Result<Beside, LoadError> {
        let connected = Cell::new(0);
        let ask = |subscription_id| Command::GetSubscription { subscription_id };
        bench
            .exchange(ask, |answer| {
                let meta: MetaFields = answer.fields().ok_or(LoadError::NoResponse)?;
                connected.set(connected.get() + meta.connected);
                Ok(())
            })
            .await?;
        Ok(Beside {
            stalled: args.stalled,
            slow: args.slow,
            slow_rate: args.slow_rate,
            half_open: args.half_open,
            deaf: args.deaf,
            subscribed_at_end: connected.get().saturating_sub(subscribers as u64),
        })
    }
}

async fn subscribers(count: usize, bench: &Bench) -> Result<Vec<Connection>, LoadError> {
    let mut subscribers = Vec::with_capacity(count);
    for _ in 0..count {
        let connection = open(&bench.target.server).await?;
        let subscriber = bench.subscribe(connection, &bench.names[0], "New").await?;
        subscribers.push(subscriber.connection);
    }
    Ok(subscribers)
}

async fn open(server: &Endpoint) -> Result<Connection, ConnectionError> {
    let address = server.address();
    let connected = async {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
        socket.connect(address).await
    };
    let stream = connected
        .await
        .map_err(|error| ConnectionError::Connect(address, error))?;
    Connection::over(stream, server).await
}

/// Reads so many bytes a second, whatever they are, until the connection ends.
async fn read_slowly(mut connection: Connection, rate: u64) {
    let mut pace = time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut room = 0.0;
    loop {
        pace.tick().await;
        room += rate as f64 * PACE.as_secs_f64();
        match connection.discard(room as usize) {
            Ok(len) => room -= len as f64,
            Err(_) => return,
        }
    }
}

/// Publishes as fast as the server reads, and reads nothing, until the connection ends.
async fn publish_deafly(mut connection: Connection, size: u32, subscription: SubscriptionId) {
    let mut submission = Submission::new(size);
    for request_id in 0.. {
        let outgoing = connection.outgoing();
        outgoing.send(&[submission.asked(request_id, subscription)]);
        if outgoing.waiting_len() > FLOOD && connection.flush().await.is_err() {
            return;
        }
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "beside them   ")?;
        let kinds = [
            (self.stalled, "stalled".to_owned()),
            (self.slow, format!("at {} bytes per second", self.slow_rate)),
            (self.half_open, "half open".to_owned()),
            (self.deaf, "deaf".to_owned()),
        ];
        for (count, kind) in kinds.iter().filter(|(count, _)| *count > 0) {
            write!(f, "{count} {kind}, ")?;
        }
        writeln!(
            f,
            "of which {} subscribe at the end",
            self.subscribed_at_end
        )
    }
}
