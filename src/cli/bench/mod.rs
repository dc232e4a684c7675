//! `infotainer bench`: puts a bounded load on a running server, checks what comes back, and says what was reached.
//!
//! Owns what the loads share: where the server is, the subscriptions that a load makes and removes, its end. Each load has a
//! file of its own; [`connection`] hides the WebSocket, [`wire`] the messages, [`report`] what is said at the end.
//!
//! One thread makes the load, so that a machine of two cores has one for the server. Invariants: every load ends, by its count
//! or its time and at the latest by `--timeout`; the subscriptions that it made are deleted however it ended, unless kept.

mod connection;
mod fanout;
mod idle;
mod publish;
mod replay;
mod report;
mod wire;

use std::{cell::RefCell, future::Future, rc::Rc, time::Duration};

use clap::{Args, Subcommand};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use infotainer::protocol::{Durability, StoredPublication};
use tokio::{
    task::{JoinHandle, LocalSet},
    time,
};

use self::{
    connection::{Connection, ConnectionError, Endpoint, Outgoing},
    wire::{Answer, Command, MetaFields, Settings, SubscribedFields},
};
use super::{Failure, connect::DEFAULT_SERVER, progress, values};

/// Handshakes under way at once: the server's listen queue is longer.
const CONNECTING: usize = 64;

/// Commands without an answer at once, of those round a load; below the credit of one connection.
const PIPELINED: usize = 1000;

/// How long removing the subscriptions may take.
const CLEANUP: Duration = Duration::from_secs(60);

/// Files besides connections.
const FILES_BESIDES_CONNECTIONS: u64 = 64;

/// Puts load on a running server and says what was reached.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand, Debug)]
enum Load {
    /// Publishers that wait for their acknowledgements: acknowledged per second, and how long it took
    Pub(publish::PubArgs),
    /// One publisher and many subscribers: deliveries per second
    Fanout(fanout::FanoutArgs),
    /// Subscribers that get all that a subscription holds, from the oldest: deliveries per second
    Replay(replay::ReplayArgs),
    /// Subscribers that get nothing: what each costs the server
    Idle(idle::IdleArgs),
}

/// What every load takes.
#[derive(Args, Clone, Debug)]
struct Target {
    /// The server
    #[arg(
        long,
        env = "INFOTAINER_URL",
        value_name = "URL",
        default_value = DEFAULT_SERVER
    )]
    server: Endpoint,

    /// When to give up, whatever has been reached
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = values::duration)]
    timeout: Duration,

    /// The server's process, if it runs on this machine: says what the load cost it
    #[arg(long)]
    pid: Option<u32>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The subscriptions that a load makes.
#[derive(Args, Clone, Debug)]
struct Subscriptions {
    /// The name of the subscription, or the beginning of the names of several [default: bench- and random letters]
    #[arg(long, value_name = "NAME")]
    subscription: Option<String>,

    /// Synced, Written or Memory [default: what the server says]
    #[arg(long, value_name = "LEVEL", value_parser = values::durability)]
    durability: Option<Durability>,

    /// Leave the subscriptions on the server
    #[arg(long)]
    keep: bool,
}

/// What a load publishes, and when it ends.
#[derive(Args, Clone, Copy, Debug)]
struct Publications {
    /// Bytes of each
    #[arg(long, value_name = "SIZE", default_value = "128", value_parser = payload_size)]
    size: u32,

    /// Publish so many
    #[arg(long, value_name = "COUNT", value_parser = values::positive)]
    count: Option<u64>,

    /// Publish for so long
    #[arg(long, value_name = "DURATION", default_value = "5s", conflicts_with = "count", value_parser = values::duration)]
    duration: Duration,
}

/// Why a load came to nothing.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("the server answered with {0}")]
    Server(String),
    #[error("the server sent something that is no response")]
    NoResponse,
    #[error("the subscription exists and holds publications: name another, or --keep it")]
    InUse,
    #[error("the load did not end within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error("interrupted")]
    Interrupted,
    #[error("can't read what the server's process {0} has used: {1}")]
    Pid(u32, #[source] std::io::Error),
}

/// Runs a load.
pub(super) fn run(args: BenchArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("can't start: {error}")))?;
    LocalSet::new().block_on(&runtime, async {
        match args.load {
            Load::Pub(args) => publish::run(args).await,
            Load::Fanout(args) => fanout::run(args).await,
            Load::Replay(args) => replay::run(args).await,
            Load::Idle(args) => idle::run(args).await,
        }
    })
}

/// A [`positive`](values::positive) number of what is kept in memory.
fn number(text: &str) -> Result<usize, String> {
    /// More sockets than one address can have.
    const MOST: u64 = 1_000_000;
    values::positive(text).and_then(|count| match count {
        0..=MOST => Ok(count as usize),
        _ => Err(format!("a whole number up to {MOST}")),
    })
}

fn payload_size(text: &str) -> Result<u32, String> {
    values::size(text).and_then(|size| match size {
        0..=0x100_0000 => Ok(size as u32),
        _ => Err("a size up to 16MiB".to_owned()),
    })
}

/// A load on its way: the names of its subscriptions, and what its connections share.
struct Bench {
    target: Target,
    names: Vec<String>,
    /// Of all connections: one reads at a time.
    buffer: Rc<RefCell<Vec<u8>>>,
}

impl Bench {
    /// A load on the subscriptions of these names, by so many connections.
    fn new(target: Target, names: Vec<String>, connections: usize) -> Result<Self, Failure> {
        let needed = connections as u64 + FILES_BESIDES_CONNECTIONS;
        match rlimit::increase_nofile_limit(needed) {
            Ok(allowed) if allowed >= needed => {}
            _ => {
                return Err(Failure::Failed(format!(
                    "{connections} connections need {needed} open files: raise the hard limit (ulimit -Hn)"
                )));
            }
        }
        Ok(Self {
            target,
            names,
            buffer: Rc::default(),
        })
    }

    /// Runs `load` within its time.
    async fn run<T>(
        &self,
        load: impl Future<Output = Result<T, LoadError>>,
    ) -> Result<T, LoadError> {
        let limit = self.target.timeout;
        tokio::select! {
            outcome = time::timeout(limit, load) => outcome.unwrap_or(Err(LoadError::TimedOut(limit))),
            _ = tokio::signal::ctrl_c() => Err(LoadError::Interrupted),
        }
    }

    /// Makes the subscriptions, runs `load` within its time, and removes the subscriptions.
    async fn run_on<T>(
        &self,
        subscriptions: &Subscriptions,
        load: impl Future<Output = Result<T, LoadError>>,
    ) -> Result<T, LoadError> {
        let made_and_run = async {
            self.make(subscriptions).await?;
            load.await
        };
        let outcome = self.run(made_and_run).await;
        if subscriptions.keep || matches!(outcome, Err(LoadError::InUse)) {
            return outcome;
        }
        let delete = |subscription_id| Command::DeleteSubscription { subscription_id };
        let removed = time::timeout(CLEANUP, self.exchange(delete, |_| Ok(()))).await;
        let figures = outcome?;
        removed.unwrap_or(Err(LoadError::TimedOut(CLEANUP)))?;
        Ok(figures)
    }

    async fn make(&self, subscriptions: &Subscriptions) -> Result<(), LoadError> {
        let settings = Settings {
            durability: subscriptions.durability,
        };
        let create = |subscription_id| Command::CreateSubscription {
            subscription_id,
            settings,
        };
        self.exchange(create, |made| {
            let meta: MetaFields = made.fields().ok_or(LoadError::NoResponse)?;
            // At the end it would be deleted, with what others published.
            if meta.last_sequence > 0 && !subscriptions.keep {
                return Err(LoadError::InUse);
            }
            Ok(())
        })
        .await
    }

    /// Sends one command for each subscription, and waits until each was answered with success; `judge` is given the answers.
    async fn exchange<'a>(
        &'a self,
        command: impl Fn(&'a str) -> Command<'a>,
        judge: impl Fn(Answer<'_>) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        let mut connection = Connection::open(&self.target.server).await?;
        let mut commands = self.names.iter().map(|name| command(name).asked(0));
        let mut answered = 0;
        for message in commands.by_ref().take(PIPELINED) {
            connection.outgoing().send(&[&message]);
        }
        while answered < self.names.len() {
            connection.ready().await?;
            self.read(&mut connection, |outgoing, answer| {
                if let Some(error) = answer.error() {
                    return Err(LoadError::Server(error));
                }
                if answer.request_id.is_some() {
                    answered += 1;
                    judge(answer)?;
                    if let Some(message) = commands.next() {
                        outgoing.send(&[&message]);
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// So many connections. What each is sent first has to bring an answer: the greeting may have been read already.
    async fn connect(&self, connections: usize) -> Result<Vec<Connection>, LoadError> {
        let bar = self.progress("connecting", connections as u64, "connections");
        let opened = stream::iter(0..connections)
            .map(|_| Connection::open(&self.target.server))
            .buffer_unordered(CONNECTING)
            .inspect(|_| bar.inc(1))
            .try_collect()
            .await;
        bar.finish_and_clear();
        Ok(opened?)
    }

    /// Makes `connection` a subscriber; says where it begins and where the subscription ends. Publications may have come behind
    /// the answer: they are given to `early`.
    async fn subscribe(
        &self,
        connection: &mut Connection,
        name: &str,
        from: &'static str,
        mut early: impl FnMut(StoredPublication<'_>),
    ) -> Result<SubscribedFields, LoadError> {
        let subscribe = Command::Subscribe {
            subscription_id: name,
            from,
        };
        connection.outgoing().send(&[&subscribe.asked(0)]);
        let mut subscribed = None;
        loop {
            if let Some(subscribed) = subscribed {
                return Ok(subscribed);
            }
            connection.ready().await?;
            self.receive(connection, |received| {
                match received {
                    Received::Publication(publication) => early(publication),
                    Received::Answer(answer) if answer.name == b"Subscribed" => {
                        subscribed = Some(answer.fields().ok_or(LoadError::NoResponse)?);
                    }
                    Received::Answer(_) => {}
                }
                Ok(())
            })?;
        }
    }

    /// Reads once from `connection`, a subscriber's; `each` is given what is no error.
    fn receive(
        &self,
        connection: &mut Connection,
        mut each: impl FnMut(Received<'_>) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        connection.read(&mut self.buffer.borrow_mut(), |_, message| {
            if let Ok((publication, _)) = StoredPublication::split_first(message.frame) {
                return each(Received::Publication(publication));
            }
            let answer = Answer::of(message.payload).ok_or(LoadError::NoResponse)?;
            match answer.error() {
                Some(error) => Err(LoadError::Server(error)),
                None => each(Received::Answer(answer)),
            }
        })
    }

    /// Reads once from `connection`; `each` is given the answers.
    fn read(
        &self,
        connection: &mut Connection,
        mut each: impl FnMut(&mut Outgoing, Answer<'_>) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        connection.read(&mut self.buffer.borrow_mut(), |outgoing, message| {
            let answer = Answer::of(message.payload).ok_or(LoadError::NoResponse)?;
            each(outgoing, answer)
        })
    }

    /// A bar on stderr; nothing if that is no terminal.
    fn progress(&self, what: &'static str, len: u64, unit: &str) -> ProgressBar {
        let template = format!("{{msg}} {{wide_bar}} {{human_pos}} of {{human_len}} {unit}");
        progress::styled(ProgressBar::new(len), what, &template)
    }
}

impl Subscriptions {
    /// The names of so many.
    fn names(&self, count: usize) -> Vec<String> {
        let prefix = self
            .subscription
            .clone()
            .unwrap_or_else(|| format!("bench-{:08x}", fastrand::u32(..)));
        match count {
            1 => vec![prefix],
            _ => (0..count)
                .map(|index| format!("{prefix}-{index}"))
                .collect(),
        }
    }
}

impl Publications {
    /// Whether one more may be published after so many.
    fn goes_on(&self, published: u64, elapsed: Duration) -> bool {
        match self.count {
            Some(count) => published < count,
            None => elapsed < self.duration,
        }
    }

    /// The length of a progress bar, and what it counts.
    fn length(&self) -> (u64, &'static str) {
        match self.count {
            Some(count) => (count, "publications"),
            None => (self.duration.as_millis() as u64, "ms"),
        }
    }
}

/// What a subscriber gets.
enum Received<'a> {
    Publication(StoredPublication<'a>),
    Answer(Answer<'a>),
}

/// A task that ends with its owner.
struct Attached(JoinHandle<()>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Moves `bar` until it is dropped.
fn keep_moving(bar: ProgressBar, position: impl Fn() -> u64 + 'static) -> Attached {
    Attached(tokio::task::spawn_local(async move {
        let mut tick = time::interval(Duration::from_millis(200));
        loop {
            tick.tick().await;
            bar.set_position(position());
        }
    }))
}
