//! `infotainer bench latency`: publications at a fixed rate to subscribers, and how long each is under way.
//!
//! An open loop ([`open_loop`]): latencies count from when a publication was to be sent, to the acknowledgement that its publisher gets
//! and to each delivery. A publication carries its number, so a subscriber knows when it was due.

use std::{cell::RefCell, fmt, rc::Rc};

use clap::Args;
use infotainer::counted;
use serde::Serialize;
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use super::{
    Bench, Load, LoadError, Plan,
    answers::Answered,
    args::{Publications, Subscriptions, Target, number, rate},
    open_loop::{self, OpenLoop},
    peers::{Beside, Peers, PeersArgs},
    process::ServerCpu,
    report::{self, Latencies, Percentiles, broken_sequence, grouped},
    schedule::{Kept, Schedule},
    subscribers::{Subscriber, Taken},
    wire::Submission,
};
use crate::cli::Failure;

/// Flags of `bench latency`.
#[derive(Args, Debug)]
pub(super) struct LatencyArgs {
    /// Publish so many per second, all publishers together, whatever comes back
    #[arg(long, value_name = "PER-SECOND", default_value = "1000", value_parser = rate)]
    rate: u64,

    /// Connections that publish, in turn
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = number)]
    publishers: usize,

    /// Connections that subscribe; each gets everything
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = number)]
    subscribers: usize,

    #[command(flatten)]
    publications: Publications,

    #[command(flatten)]
    names: Subscriptions,

    #[command(flatten)]
    target: Target,

    // Last: the heading of their help is for whatever follows.
    #[command(flatten)]
    peers: PeersArgs,
}

/// What was reached.
#[derive(Serialize)]
pub(super) struct Figures {
    load: &'static str,
    publishers: usize,
    subscribers: usize,
    size: u32,
    schedule: Kept,
    published: u64,
    /// Its latency is from publishing to the acknowledgement.
    #[serde(flatten)]
    answered: Answered,
    deliveries: u64,
    /// From publishing to each delivery.
    delivery_latency_us: Percentiles,
    /// Places where a subscriber's sequences did not follow each other.
    holes: u64,
    peers: Option<Beside>,
    server_cpu: Option<ServerCpu>,
}

/// What the subscribers have in common.
struct Delivered {
    /// Sequences that they have behind them since the load began, all together.
    advanced: u64,
    taken: Taken,
    latencies: Latencies,
    /// One of them got on.
    got_on: Rc<Notify>,
}

impl Load for LatencyArgs {
    type Figures = Figures;

    fn plan(&self) -> Result<Plan<'_>, Failure> {
        Schedule::new(self.rate, &self.publications)?;
        if self.publications.size < Submission::NUMBER {
            return Err(Failure::Usage(format!(
                "--size must be at least {}: a publication has its number in it",
                Submission::NUMBER
            )));
        }
        let mut names = self.names.names(1);
        if self.peers.need_a_subscription() {
            names.push(format!("{}-deaf", names[0]));
        }
        Ok(Plan {
            target: &self.target,
            names,
            makes: Some(&self.names),
            connections: self.publishers + self.subscribers + self.peers.count(),
        })
    }

    async fn put(&self, bench: &Rc<Bench>) -> Result<Figures, LoadError> {
        let subscribed = bench.subscribers(self.subscribers, 1, "New").await?;
        let publishers = bench.connect(self.publishers).await?;
        let peers = Peers::attach(&self.peers, self.publications.size, bench).await?;

        let got_on = Rc::new(Notify::new());
        let delivered = Rc::new(RefCell::new(Delivered {
            advanced: 0,
            taken: Taken::default(),
            latencies: Latencies::new(),
            got_on: Rc::clone(&got_on),
        }));
        let cpu = bench.cpu()?;
        let schedule = Schedule::new(self.rate, &self.publications)
            .expect("invariant: the plan has the same schedule");
        let load = OpenLoop::begin(schedule, bench.ids()[..1].to_vec(), self.publications.size);
        let load = Rc::new(RefCell::new(load));
        let moving = bench.publishing(&self.publications, {
            let load = Rc::clone(&load);
            move || load.borrow().published()
        });
        let mut subscribers = JoinSet::new();
        for subscriber in subscribed {
            let (bench, load, delivered) =
                (Rc::clone(bench), Rc::clone(&load), Rc::clone(&delivered));
            subscribers.spawn_local(receive(subscriber, bench, load, delivered));
        }
        let complete = async {
            let _spinning = open_loop::publish(bench, publishers, &load).await?;
            let wanted = load.borrow().answers.acknowledged() * self.subscribers as u64;
            while delivered.borrow().advanced < wanted {
                got_on.notified().await;
            }
            Ok::<_, LoadError>(())
        };
        tokio::select! {
            // A subscriber never ends well by itself.
            Some(ended) = subscribers.join_next() => {
                ended.expect("invariant: a subscriber neither panics nor is cancelled")?;
            }
            complete = complete => complete?,
        }
        drop(moving);
        let beside = match self.peers.count() {
            0 => None,
            _ => Some(peers.beside(&self.peers, self.subscribers, bench).await?),
        };

        let (load, delivered) = (load.borrow(), delivered.borrow());
        Ok(Figures {
            load: "latency",
            publishers: self.publishers,
            subscribers: self.subscribers,
            size: self.publications.size,
            schedule: load.kept(),
            published: load.published(),
            answered: load.answers.told(),
            deliveries: delivered.taken.deliveries,
            delivery_latency_us: delivered.latencies.percentiles(),
            holes: delivered.taken.breaks(),
            peers: beside,
            server_cpu: cpu.used(delivered.taken.deliveries)?,
        })
    }
}

/// Receives until it is cancelled.
async fn receive(
    mut subscriber: Subscriber,
    bench: Rc<Bench>,
    load: Rc<RefCell<OpenLoop>>,
    delivered: Rc<RefCell<Delivered>>,
) -> Result<(), LoadError> {
    loop {
        subscriber.connection.ready().await?;
        let before = subscriber.place.position;
        let load = load.borrow();
        let delivered = &mut *delivered.borrow_mut();
        let mut now = None;
        bench.take(&mut subscriber, |publication| {
            // Behind the read: what waited in the socket waited.
            let now = *now.get_or_insert_with(Instant::now);
            let due = Submission::number_of(publication.data()).and_then(|n| load.was_due(n));
            let latency = due.map(|due| now.saturating_duration_since(due));
            delivered.latencies.add(latency.ok_or(LoadError::Foreign)?);
            Ok(())
        })?;
        delivered.taken += std::mem::take(&mut subscriber.place.taken);
        delivered.advanced += subscriber.place.position - before;
        delivered.got_on.notify_one();
    }
}

impl report::Figures for Figures {
    fn failure(&self) -> Option<String> {
        self.answered
            .failure()
            .or_else(|| broken_sequence(self.holes))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "publishers    {}, {}, to {}; an open loop",
            self.publishers,
            counted(self.size, "byte", "bytes"),
            counted(self.subscribers, "subscriber", "subscribers")
        )?;
        if let Some(beside) = &self.peers {
            write!(f, "{beside}")?;
        }
        write!(f, "{}{}", self.schedule, self.answered)?;
        writeln!(f, "delivered     {}", grouped(self.deliveries as f64))?;
        writeln!(f, "from when it was due")?;
        writeln!(f, "  acknowledged {}", self.answered.latency_us)?;
        writeln!(f, "  delivered    {}", self.delivery_latency_us)?;
        if let Some(cpu) = &self.server_cpu {
            writeln!(f, "server CPU    {cpu}")?;
        }
        writeln!(f, "holes         {}", self.holes)
    }
}
