//! `infotainer bench`: puts a bounded load on a running server, checks what comes back, and says what was reached.
//!
//! Owns what the loads share: where the server is, the subscriptions that a load makes and removes, its end. Each load has a
//! file of its own; [`connection`] hides the WebSocket, [`wire`] the messages, [`report`] what is said at the end. Latencies are of a closed
//! loop ([`publish`]) or of an open one ([`open_loop`]), and it is always said of which.
//!
//! One thread makes the load, so that a machine of two cores has one for the server. Invariants: every load ends, by its count
//! or its time and at the latest by `--timeout`; the subscriptions that it publishes to are deleted however it ended, unless kept.

mod answers;
mod args;
mod connection;
mod fanout;
mod idle;
mod latency;
mod open_loop;
mod peers;
mod process;
mod publish;
mod receive;
mod replay;
mod report;
mod schedule;
mod stream;
mod subscribers;
mod wire;

use std::{
    cell::{OnceCell, RefCell},
    future::Future,
    rc::Rc,
    time::Duration,
};

use clap::Subcommand;
use futures_util::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use infotainer::protocol::SubscriptionId;
use tokio::{
    task::{JoinHandle, LocalSet},
    time::{self, Instant},
};

use self::{
    args::{Publications, Subscriptions, Target},
    connection::{Connection, ConnectionError, Outgoing},
    process::{CpuMeter, Process},
    report::Figures,
    wire::{Answer, Command, MetaFields, Settings},
};
use super::{Failure, progress};

/// Handshakes under way at once: the server's listen queue is longer.
const CONNECTING: usize = 64;

/// Commands without an answer at once, of those round a load; below the credit of one connection.
const PIPELINED: usize = 1000;

/// How long removing the subscriptions may take.
const CLEANUP: Duration = Duration::from_secs(60);

/// Files besides connections.
const FILES_BESIDES_CONNECTIONS: u64 = 64;

/// Puts load on a running server and says what was reached.
#[derive(clap::Args, Debug)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    load: Loads,
}

#[derive(Subcommand, Debug)]
enum Loads {
    /// Publishers: acknowledged per second, and how long it took
    Pub(publish::PubArgs),
    /// Subscribers of what others publish: deliveries per second
    Sub(receive::SubArgs),
    /// One publisher and many subscribers: deliveries per second
    Fanout(fanout::FanoutArgs),
    /// Publications at a fixed rate: how long each takes to its acknowledgement, and to every subscriber
    Latency(latency::LatencyArgs),
    /// Subscribers that get all that a subscription holds, from the oldest: deliveries per second
    Replay(replay::ReplayArgs),
    /// Subscribers that get nothing: what each costs the server
    Idle(idle::IdleArgs),
}

/// One of the loads, as its flags want it.
trait Load {
    type Figures: Figures;

    /// What has to be there for it.
    ///
    /// # Errors
    /// If the flags can't be meant.
    fn plan(&self) -> Result<Plan<'_>, Failure>;

    /// Puts it on the server.
    async fn put(&self, bench: &Rc<Bench>) -> Result<Self::Figures, LoadError>;
}

/// What a load needs.
struct Plan<'a> {
    target: &'a Target,
    /// Of its subscriptions.
    names: Vec<String>,
    /// Whether, and how, it makes the subscriptions.
    makes: Option<&'a Subscriptions>,
    connections: usize,
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
    #[error("the subscription was deleted meanwhile")]
    Deleted,
    #[error("somebody else publishes to the subscription")]
    Foreign,
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
            Loads::Pub(load) => run_load(load).await,
            Loads::Sub(load) => run_load(load).await,
            Loads::Fanout(load) => run_load(load).await,
            Loads::Latency(load) => run_load(load).await,
            Loads::Replay(load) => run_load(load).await,
            Loads::Idle(load) => run_load(load).await,
        }
    })
}

async fn run_load(load: impl Load) -> Result<(), Failure> {
    let plan = load.plan()?;
    let bench = Rc::new(Bench::new(&plan)?);
    let put = load.put(&bench);
    let outcome = match plan.makes {
        Some(subscriptions) => bench.run_on(subscriptions, put).await,
        None => bench.run(put).await,
    };
    let figures = outcome.map_err(|error| Failure::Failed(error.to_string()))?;
    report::print(plan.target, &figures)?;
    figures
        .failure()
        .map_or(Ok(()), |failure| Err(Failure::Failed(failure)))
}

/// A load on its way: the names of its subscriptions, and what its connections share.
struct Bench {
    target: Target,
    names: Vec<String>,
    server: OnceCell<Option<Process>>,
    /// Of all connections: one reads at a time.
    buffer: Rc<RefCell<Vec<u8>>>,
}

impl Bench {
    fn new(plan: &Plan<'_>) -> Result<Self, Failure> {
        let needed = plan.connections as u64 + FILES_BESIDES_CONNECTIONS;
        match rlimit::increase_nofile_limit(needed) {
            Ok(allowed) if allowed >= needed => {}
            _ => {
                return Err(Failure::Failed(format!(
                    "{} connections need {needed} open files: raise the hard limit (ulimit -Hn)",
                    plan.connections
                )));
            }
        }
        Ok(Self {
            target: plan.target.prepared()?,
            names: plan.names.clone(),
            server: OnceCell::new(),
            buffer: Rc::default(),
        })
    }

    /// The subscriptions.
    fn ids(&self) -> Vec<SubscriptionId> {
        self.names
            .iter()
            .map(|name| SubscriptionId::of_name(name))
            .collect()
    }

    /// The server's process, if it is known.
    fn server_process(&self) -> Option<Process> {
        self.server.get().cloned().flatten()
    }

    /// A meter of what the server's process uses from now on.
    fn cpu(&self) -> Result<CpuMeter, LoadError> {
        CpuMeter::start(self.server_process())
    }

    /// Runs `load` within its time.
    async fn run<T>(
        &self,
        load: impl Future<Output = Result<T, LoadError>>,
    ) -> Result<T, LoadError> {
        let limit = self.target.timeout;
        let load = async {
            let process = Process::of_server(&self.target).await?;
            // A load is run once.
            self.server.get_or_init(|| process);
            load.await
        };
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
        let opened = futures_util::stream::iter(0..connections)
            .map(|_| Connection::open(&self.target.server))
            .buffer_unordered(CONNECTING)
            .inspect(|_| bar.inc(1))
            .try_collect()
            .await;
        bar.finish_and_clear();
        Ok(opened?)
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

    /// A bar for what is published, as long as it is kept; `published` is how much that was.
    fn publishing(
        &self,
        publications: &Publications,
        published: impl Fn() -> u64 + 'static,
    ) -> Attached {
        let (len, unit) = publications.length();
        let (publications, began) = (*publications, Instant::now());
        keep_moving(self.progress("publishing", len, unit), move || {
            publications.position(published(), began.elapsed())
        })
    }

    /// A bar on stderr; nothing if that is no terminal.
    fn progress(&self, what: &'static str, len: u64, unit: &str) -> ProgressBar {
        let template = format!("{{msg}} {{wide_bar}} {{human_pos}} of {{human_len}} {unit}");
        progress::styled(ProgressBar::new(len), what, &template)
    }
}

/// A task that ends with its owner.
struct Attached(JoinHandle<()>);

impl Attached {
    fn to(task: impl Future<Output = ()> + 'static) -> Self {
        Self(tokio::task::spawn_local(task))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Moves `bar` until it is dropped.
fn keep_moving(bar: ProgressBar, position: impl Fn() -> u64 + 'static) -> Attached {
    Attached::to(async move {
        let mut tick = time::interval(Duration::from_millis(200));
        loop {
            tick.tick().await;
            bar.set_position(position());
        }
    })
}
