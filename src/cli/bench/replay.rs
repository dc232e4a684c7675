//! `infotainer bench replay`: subscribers that get all that a subscription holds, from the oldest.
//!
//! Time is from the first `Subscribe` to the last publication that the subscription held then.

use std::{cell::Cell, fmt, rc::Rc};

use clap::Args;
use infotainer::protocol::StoredPublication;
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Bench, LoadError, Received, Target,
    connection::Connection,
    keep_moving, number,
    report::{self, CpuMeter, ServerCpu, grouped},
    wire::Command,
};
use crate::cli::Failure;

/// Flags of `bench replay`.
#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// The name of a subscription that holds something, such as one of `bench pub --keep`
    #[arg(long, value_name = "NAME")]
    subscription: String,

    /// Connections that subscribe
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = number)]
    subscribers: usize,

    #[command(flatten)]
    target: Target,
}

/// What was reached.
#[derive(Serialize)]
struct Figures {
    load: &'static str,
    subscribers: usize,
    deliveries: u64,
    seconds: f64,
    deliveries_per_second: f64,
    /// Places where a subscriber's sequences did not follow each other.
    holes: u64,
    server_cpu: Option<ServerCpu>,
}

/// What one subscriber got.
#[derive(Default)]
struct Replayed {
    position: u64,
    deliveries: u64,
    holes: u64,
}

impl Replayed {
    fn take(&mut self, publication: StoredPublication<'_>) {
        let sequence = publication.sequence().0;
        // Retention may have taken the oldest, so the first may be any.
        self.holes += u64::from(self.deliveries > 0 && sequence != self.position + 1);
        self.position = sequence;
        self.deliveries += 1;
    }
}

/// Runs the load.
pub(super) async fn run(args: ReplayArgs) -> Result<(), Failure> {
    let names = vec![args.subscription.clone()];
    let bench = Rc::new(Bench::new(args.target.clone(), names, args.subscribers)?);
    let figures = bench
        .run(replay(&args, &bench))
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?;
    report::print(&args.target, &figures)?;
    match figures.holes {
        0 => Ok(()),
        holes => Err(Failure::Failed(format!(
            "sequences did not follow each other {holes} times"
        ))),
    }
}

async fn replay(args: &ReplayArgs, bench: &Rc<Bench>) -> Result<Figures, LoadError> {
    // To subscribe to one that does not exist would make it.
    let ask = |subscription_id| Command::GetSubscription { subscription_id };
    bench.exchange(ask, |_| Ok(())).await?;
    let connections = bench.connect(args.subscribers).await?;
    let cpu = CpuMeter::start(args.target.pid)?;
    let began = Instant::now();
    let done = Rc::new(Cell::new(0));
    let bar = bench.progress("replaying", args.subscribers as u64, "subscribers");
    let moving = keep_moving(bar, {
        let done = Rc::clone(&done);
        move || done.get()
    });
    let mut subscribers = JoinSet::new();
    for connection in connections {
        let (bench, done) = (Rc::clone(bench), Rc::clone(&done));
        subscribers.spawn_local(async move {
            let replayed = receive_all(connection, &bench).await;
            done.set(done.get() + 1);
            replayed
        });
    }
    let (mut deliveries, mut holes) = (0, 0);
    while let Some(ended) = subscribers.join_next().await {
        let replayed = ended.expect("invariant: a subscriber neither panics nor is cancelled")?;
        deliveries += replayed.deliveries;
        holes += replayed.holes;
    }
    drop(moving);

    let seconds = began.elapsed().as_secs_f64();
    Ok(Figures {
        load: "replay",
        subscribers: args.subscribers,
        deliveries,
        seconds,
        deliveries_per_second: deliveries as f64 / seconds.max(f64::MIN_POSITIVE),
        holes,
        server_cpu: cpu.used(deliveries)?,
    })
}

async fn receive_all(mut connection: Connection, bench: &Bench) -> Result<Replayed, LoadError> {
    let mut replayed = Replayed::default();
    let subscribed = bench
        .subscribe(&mut connection, &bench.names[0], "First", |publication| {
            replayed.take(publication);
        })
        .await?;
    while replayed.position < subscribed.last_sequence {
        connection.ready().await?;
        bench.receive(&mut connection, |received| {
            if let Received::Publication(publication) = received {
                replayed.take(publication);
            }
            Ok(())
        })?;
    }
    Ok(replayed)
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "subscribers   {}", self.subscribers)?;
        writeln!(
            f,
            "delivered     {} in {:.2} s: {} per second",
            grouped(self.deliveries as f64),
            self.seconds,
            grouped(self.deliveries_per_second)
        )?;
        if let Some(cpu) = &self.server_cpu {
            writeln!(f, "server CPU    {cpu}")?;
        }
        writeln!(f, "holes         {}", self.holes)
    }
}
