//! `infotainer bench pub`: publishers, each with so many publications on their way, that wait for their acknowledgements.
//!
//! A closed loop: an answer is what lets the next publication go. Latency is from sending to `Submitted`.

use std::{cell::RefCell, fmt, rc::Rc, time::Duration};

use clap::Args;
use infotainer::protocol::SubscriptionId;
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Bench, LoadError, Publications, Subscriptions, Target,
    connection::{Connection, Outgoing},
    keep_moving, number,
    report::{self, CpuMeter, Latencies, Percentiles, ServerCpu, grouped},
    wire::Submission,
};
use crate::cli::Failure;

/// Flags of `bench pub`.
#[derive(Args, Debug)]
pub(super) struct PubArgs {
    /// Connections that publish
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = number)]
    publishers: usize,

    /// Publications of each that may wait for their acknowledgement
    #[arg(long, value_name = "COUNT", default_value = "32", value_parser = number)]
    in_flight: usize,

    /// Subscriptions that are published to in turn
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = number)]
    subscriptions: usize,

    #[command(flatten)]
    publications: Publications,

    #[command(flatten)]
    names: Subscriptions,

    #[command(flatten)]
    target: Target,
}

/// What was reached.
#[derive(Serialize)]
struct Figures {
    load: &'static str,
    publishers: usize,
    in_flight: usize,
    subscriptions: usize,
    size: u32,
    acknowledged: u64,
    seconds: f64,
    acknowledged_per_second: f64,
    latency_us: Percentiles,
    errors: u64,
    first_error: Option<String>,
    server_cpu: Option<ServerCpu>,
}

/// What the publishers of a load have in common.
struct Load {
    publications: Publications,
    subscriptions: Vec<SubscriptionId>,
    submission: Submission,
    began: Instant,
    ended: Instant,
    published: u64,
    acknowledged: u64,
    errors: u64,
    first_error: Option<String>,
    latencies: Latencies,
}

/// Runs the load.
pub(super) async fn run(args: PubArgs) -> Result<(), Failure> {
    let names = args.names.names(args.subscriptions);
    let bench = Rc::new(Bench::new(args.target.clone(), names, args.publishers)?);
    let figures = bench
        .run_on(&args.names, publish(&args, &bench))
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?;
    report::print(&args.target, &figures)?;
    match figures.first_error {
        None => Ok(()),
        Some(error) => Err(Failure::Failed(format!(
            "{} publications were answered with an error, the first with {error}",
            grouped(figures.errors as f64)
        ))),
    }
}

async fn publish(args: &PubArgs, bench: &Rc<Bench>) -> Result<Figures, LoadError> {
    let connections = bench.connect(args.publishers).await?;
    let cpu = CpuMeter::start(args.target.pid)?;
    let began = Instant::now();
    let load = Rc::new(RefCell::new(Load {
        publications: args.publications,
        subscriptions: bench
            .names
            .iter()
            .map(|name| SubscriptionId::of_name(name))
            .collect(),
        submission: Submission::new(args.publications.size),
        began,
        ended: began,
        published: 0,
        acknowledged: 0,
        errors: 0,
        first_error: None,
        latencies: Latencies::new(),
    }));
    let (len, unit) = args.publications.length();
    let bar = bench.progress("publishing", len, unit);
    let moving = keep_moving(bar, {
        let load = Rc::clone(&load);
        move || load.borrow().position()
    });

    let mut publishers = JoinSet::new();
    for connection in connections {
        let publisher = Publisher::new(connection, args.in_flight);
        publishers.spawn_local(publisher.run(Rc::clone(bench), Rc::clone(&load)));
    }
    while let Some(ended) = publishers.join_next().await {
        ended.expect("invariant: a publisher neither panics nor is cancelled")?;
    }
    drop(moving);

    let load = load.borrow();
    let seconds = (load.ended - load.began).as_secs_f64();
    Ok(Figures {
        load: "pub",
        publishers: args.publishers,
        in_flight: args.in_flight,
        subscriptions: args.subscriptions,
        size: args.publications.size,
        acknowledged: load.acknowledged,
        seconds,
        acknowledged_per_second: load.acknowledged as f64 / seconds.max(f64::MIN_POSITIVE),
        latency_us: load.latencies.percentiles(),
        errors: load.errors,
        first_error: load.first_error.clone(),
        server_cpu: cpu.used(load.acknowledged)?,
    })
}

struct Publisher {
    connection: Connection,
    sent: Sent,
}

/// What of one publisher waits for its answer: a request id is a place in this table.
struct Sent {
    at: Vec<Instant>,
    free: Vec<u32>,
}

impl Publisher {
    fn new(connection: Connection, in_flight: usize) -> Self {
        let at = vec![Instant::now(); in_flight];
        let free = (0..in_flight as u32).collect();
        Self {
            connection,
            sent: Sent { at, free },
        }
    }

    async fn run(mut self, bench: Rc<Bench>, load: Rc<RefCell<Load>>) -> Result<(), LoadError> {
        loop {
            load.borrow_mut()
                .send(&mut self.sent, self.connection.outgoing());
            if self.sent.free.len() == self.sent.at.len() {
                return Ok(());
            }
            self.connection.ready().await?;
            let load = &mut *load.borrow_mut();
            let now = Instant::now();
            bench.read(&mut self.connection, |_, answer| {
                let error = answer.error();
                let Some(request_id) = answer.request_id else {
                    return error.map_or(Ok(()), |error| Err(LoadError::Server(error)));
                };
                let slot = u32::try_from(request_id).map_err(|_| LoadError::NoResponse)?;
                let sent_at = *self
                    .sent
                    .at
                    .get(slot as usize)
                    .ok_or(LoadError::NoResponse)?;
                self.sent.free.push(slot);
                load.answered(error, now - sent_at);
                Ok(())
            })?;
            load.ended = now;
        }
    }
}

impl Load {
    /// Publishes as much as may be on its way.
    fn send(&mut self, sent: &mut Sent, outgoing: &mut Outgoing) {
        if sent.free.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.publications.goes_on(self.published, now - self.began)
            && let Some(slot) = sent.free.pop()
        {
            let subscription = self.published as usize % self.subscriptions.len();
            self.published += 1;
            sent.at[slot as usize] = now;
            outgoing.send(&[self
                .submission
                .asked(slot, self.subscriptions[subscription])]);
        }
    }

    fn answered(&mut self, error: Option<String>, latency: Duration) {
        match error {
            None => {
                self.acknowledged += 1;
                self.latencies.add(latency);
            }
            Some(error) => {
                self.errors += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }

    fn position(&self) -> u64 {
        match self.publications.count {
            Some(_) => self.acknowledged,
            None => self.began.elapsed().as_millis() as u64,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "publishers    {} x {} in flight, {} bytes, to {} subscriptions",
            self.publishers, self.in_flight, self.size, self.subscriptions
        )?;
        writeln!(
            f,
            "acknowledged  {} in {:.2} s: {} per second",
            grouped(self.acknowledged as f64),
            self.seconds,
            grouped(self.acknowledged_per_second)
        )?;
        writeln!(f, "latency       {}", self.latency_us)?;
        if let Some(cpu) = &self.server_cpu {
            writeln!(f, "server CPU    {cpu}")?;
        }
        writeln!(f, "errors        {}", self.errors)
    }
}
