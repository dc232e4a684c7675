//! `infotainer bench pub`: publishers, and how long their acknowledgements take.
//!
//! A closed loop, unless `--rate` is given: each publisher has so many publications on their way, an answer lets the next one go, and
//! latency is from sending to `Submitted`. With `--rate` it is an open loop ([`open_loop`]).

use std::{cell::RefCell, fmt, rc::Rc, time::Duration};

use clap::Args;
use infotainer::{counted, protocol::SubscriptionId};
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Bench, Load, LoadError, Plan,
    answers::{Answered, Answers, request_id},
    args::{Publications, Subscriptions, Target, number, rate},
    connection::{Connection, Outgoing},
    open_loop::{self, OpenLoop},
    process::ServerCpu,
    report,
    schedule::{Kept, Schedule},
    wire::Submission,
};
use crate::cli::Failure;

/// Flags of `bench pub`.
#[derive(Args, Debug)]
pub(super) struct PubArgs {
    /// Connections that publish
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = number)]
    publishers: usize,

    /// Publications of each that may wait for their acknowledgement: a closed loop
    #[arg(long, value_name = "COUNT", default_value = "32", value_parser = number)]
    in_flight: usize,

    /// Publish so many per second, all publishers together, whatever is acknowledged: an open loop. Latency counts from when
    /// each was to be sent
    #[arg(long, value_name = "PER-SECOND", conflicts_with = "in_flight", value_parser = rate)]
    rate: Option<u64>,

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
pub(super) struct Figures {
    load: &'static str,
    publishers: usize,
    /// None in an open loop.
    in_flight: Option<usize>,
    subscriptions: usize,
    size: u32,
    #[serde(flatten)]
    answered: Answered,
    /// Of an open loop.
    schedule: Option<Kept>,
    server_cpu: Option<ServerCpu>,
}

impl Load for PubArgs {
    type Figures = Figures;

    fn plan(&self) -> Result<Plan<'_>, Failure> {
        if let Some(rate) = self.rate {
            Schedule::new(rate, &self.publications)?;
        }
        Ok(Plan {
            target: &self.target,
            names: self.names.names(self.subscriptions),
            makes: Some(&self.names),
            connections: self.publishers,
        })
    }

    async fn put(&self, bench: &Rc<Bench>) -> Result<Figures, LoadError> {
        let connections = bench.connect(self.publishers).await?;
        let cpu = bench.cpu()?;
        let (answered, schedule) = match self.rate {
            None => (self.closed_loop(bench, connections).await?, None),
            Some(rate) => {
                let (answered, kept) = self.open_loop(bench, connections, rate).await?;
                (answered, Some(kept))
            }
        };
        Ok(Figures {
            load: "pub",
            publishers: self.publishers,
            in_flight: self.rate.is_none().then_some(self.in_flight),
            subscriptions: self.subscriptions,
            size: self.publications.size,
            server_cpu: cpu.used(answered.acknowledged())?,
            answered,
            schedule,
        })
    }
}

impl PubArgs {
    async fn open_loop(
        &self,
        bench: &Rc<Bench>,
        connections: Vec<Connection>,
        rate: u64,
    ) -> Result<(Answered, Kept), LoadError> {
        let schedule = Schedule::new(rate, &self.publications)
            .expect("invariant: the plan has the same schedule");
        let load = OpenLoop::begin(schedule, bench.ids(), self.publications.size);
        let load = Rc::new(RefCell::new(load));
        let moving = bench.publishing(&self.publications, {
            let load = Rc::clone(&load);
            move || load.borrow().answers.acknowledged()
        });
        drop(open_loop::publish(bench, connections, &load).await?);
        drop(moving);
        let load = load.borrow();
        Ok((load.answers.told(), load.kept()))
    }

    async fn closed_loop(
        &self,
        bench: &Rc<Bench>,
        connections: Vec<Connection>,
    ) -> Result<Answered, LoadError> {
        let load = Rc::new(RefCell::new(ClosedLoop {
            publications: self.publications,
            subscriptions: bench.ids(),
            submission: Submission::new(self.publications.size),
            began: Instant::now(),
            published: 0,
            answers: Answers::new(),
        }));
        let moving = bench.publishing(&self.publications, {
            let load = Rc::clone(&load);
            move || load.borrow().answers.acknowledged()
        });
        let mut publishers = JoinSet::new();
        for connection in connections {
            let publisher = Publisher::new(connection, self.in_flight);
            publishers.spawn_local(publisher.run(Rc::clone(bench), Rc::clone(&load)));
        }
        while let Some(ended) = publishers.join_next().await {
            ended.expect("invariant: a publisher neither panics nor is cancelled")?;
        }
        drop(moving);
        let load = load.borrow();
        Ok(load.answers.told())
    }
}

/// What the publishers of a closed loop have in common.
struct ClosedLoop {
    publications: Publications,
    subscriptions: Vec<SubscriptionId>,
    submission: Submission,
    began: Instant,
    published: u64,
    answers: Answers,
}

struct Publisher {
    connection: Connection,
    sent: Sent,
}

/// What of one publisher waits for its answer: a request id is a place in this table.
struct Sent {
    /// From the beginning.
    at: Vec<Duration>,
    free: Vec<u32>,
}

impl Publisher {
    fn new(connection: Connection, in_flight: usize) -> Self {
        let at = vec![Duration::ZERO; in_flight];
        let free = (0..in_flight as u32).collect();
        Self {
            connection,
            sent: Sent { at, free },
        }
    }

    async fn run(
        mut self,
        bench: Rc<Bench>,
        load: Rc<RefCell<ClosedLoop>>,
    ) -> Result<(), LoadError> {
        loop {
            load.borrow_mut()
                .send(&mut self.sent, self.connection.outgoing());
            if self.sent.free.len() == self.sent.at.len() {
                return Ok(());
            }
            self.connection.ready().await?;
            let load = &mut *load.borrow_mut();
            let now = load.began.elapsed();
            bench.read(&mut self.connection, |_, answer| {
                let Some(slot) = request_id(&answer)? else {
                    return Ok(());
                };
                let sent_at = self.sent.at.get(slot as usize);
                let sent_at = *sent_at.ok_or(LoadError::NoResponse)?;
                self.sent.free.push(slot);
                load.answers.add(&answer, sent_at, now);
                Ok(())
            })?;
        }
    }
}

impl ClosedLoop {
    /// Publishes as much as may be on its way.
    fn send(&mut self, sent: &mut Sent, outgoing: &mut Outgoing) {
        if sent.free.is_empty() {
            return;
        }
        let now = self.began.elapsed();
        while self.publications.goes_on(self.published, now)
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
}

impl report::Figures for Figures {
    fn failure(&self) -> Option<String> {
        self.answered.failure()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            publishers,
            subscriptions,
            size,
            ..
        } = self;
        write!(
            f,
            "publishers    {publishers}, {}, to {}; ",
            counted(*size, "byte", "bytes"),
            counted(*subscriptions, "subscription", "subscriptions")
        )?;
        let since = match self.in_flight {
            Some(in_flight) => {
                writeln!(f, "a closed loop of {in_flight} in flight each")?;
                "it was sent"
            }
            None => {
                writeln!(f, "an open loop")?;
                "it was due"
            }
        };
        if let Some(kept) = &self.schedule {
            write!(f, "{kept}")?;
        }
        write!(f, "{}", self.answered)?;
        writeln!(
            f,
            "latency       {} from when {since}",
            self.answered.latency_us
        )?;
        if let Some(cpu) = &self.server_cpu {
            writeln!(f, "server CPU    {cpu}")?;
        }
        Ok(())
    }
}
