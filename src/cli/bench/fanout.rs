//! `infotainer bench fanout`: one publisher, and many subscribers that each get everything.
//!
//! A closed loop: the publisher is at most a window ahead of the slowest subscriber. Every sequence that a subscriber gets has
//! to follow the one before.

use std::{cell::RefCell, collections::VecDeque, fmt, rc::Rc};

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use infotainer::protocol::SubscriptionId;
use serde::Serialize;
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use super::{
    Bench, LoadError, Publications, Received, Subscriptions, Target,
    connection::Connection,
    keep_moving, number,
    report::{self, CpuMeter, ServerCpu, grouped},
    wire::Submission,
};
use crate::cli::Failure;

/// `Subscribe`s under way at once.
const SUBSCRIBING: usize = 64;

/// Flags of `bench fanout`.
#[derive(Args, Debug)]
pub(super) struct FanoutArgs {
    /// Connections that subscribe
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = number)]
    subscribers: usize,

    /// Publications that the slowest subscriber may be behind
    #[arg(long, value_name = "COUNT", default_value = "256", value_parser = number)]
    window: usize,

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
    subscribers: usize,
    window: usize,
    size: u32,
    published: u64,
    deliveries: u64,
    seconds: f64,
    deliveries_per_second: f64,
    /// Places where a subscriber's sequences did not follow each other.
    holes: u64,
    server_cpu: Option<ServerCpu>,
}

/// What publisher and subscribers have in common.
struct Load {
    publications: Publications,
    window: u64,
    began: Instant,
    ended: Instant,
    /// The subscription's last sequence before the load.
    before: u64,
    published: u64,
    has_published: bool,
    deliveries: u64,
    holes: u64,
    places: Places,
    /// What the publisher waits for: the slowest has got on.
    got_on: Rc<Notify>,
}

/// How many subscribers stand at which position: tells the slowest without asking all.
struct Places {
    /// The slowest's position: that of the first count, which is not 0 while there are subscribers.
    slowest: u64,
    counts: VecDeque<usize>,
}

impl Places {
    fn new(position: u64, subscribers: usize) -> Self {
        Self {
            slowest: position,
            counts: VecDeque::from([subscribers]),
        }
    }

    /// One subscriber went `from` one position `to` a later one. Whether the slowest is another now.
    fn advance(&mut self, from: u64, to: u64) -> bool {
        let (from, to) = ((from - self.slowest) as usize, (to - self.slowest) as usize);
        if to >= self.counts.len() {
            self.counts.resize(to + 1, 0);
        }
        self.counts[from] -= 1;
        self.counts[to] += 1;
        let before = self.slowest;
        while self.counts.front() == Some(&0) {
            self.counts.pop_front();
            self.slowest += 1;
        }
        self.slowest != before
    }
}

/// Runs the load.
pub(super) async fn run(args: FanoutArgs) -> Result<(), Failure> {
    let names = args.names.names(1);
    let bench = Rc::new(Bench::new(
        args.target.clone(),
        names,
        args.subscribers + 1,
    )?);
    let figures = bench
        .run_on(&args.names, fan_out(&args, &bench))
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

async fn fan_out(args: &FanoutArgs, bench: &Rc<Bench>) -> Result<Figures, LoadError> {
    let connections = bench.connect(args.subscribers).await?;
    let bar = bench.progress("subscribing", args.subscribers as u64, "subscribers");
    let mut before = 0;
    let connections: Vec<_> = stream::iter(connections)
        .map(async |mut connection| {
            let name = &bench.names[0];
            let subscribed = bench
                .subscribe(&mut connection, name, "New", |_| {})
                .await?;
            Ok::<_, LoadError>((connection, subscribed.cursor))
        })
        .buffer_unordered(SUBSCRIBING)
        .inspect_ok(|(_, cursor)| {
            before = *cursor;
            bar.inc(1);
        })
        .try_collect()
        .await?;
    bar.finish_and_clear();
    let publisher = Connection::open(&args.target.server).await?;

    let cpu = CpuMeter::start(args.target.pid)?;
    let began = Instant::now();
    let got_on = Rc::new(Notify::new());
    let load = Rc::new(RefCell::new(Load {
        publications: args.publications,
        window: args.window as u64,
        began,
        ended: began,
        before,
        published: 0,
        has_published: false,
        deliveries: 0,
        holes: 0,
        places: Places::new(before, args.subscribers),
        got_on: Rc::clone(&got_on),
    }));
    let (len, unit) = args.publications.length();
    let moving = keep_moving(bench.progress("publishing", len, unit), {
        let load = Rc::clone(&load);
        move || load.borrow().position()
    });

    let mut subscribers = JoinSet::new();
    for (connection, _) in connections {
        subscribers.spawn_local(receive(
            connection,
            before,
            Rc::clone(bench),
            Rc::clone(&load),
        ));
    }
    tokio::select! {
        // A subscriber never ends well by itself.
        Some(ended) = subscribers.join_next() => {
            ended.expect("invariant: a subscriber neither panics nor is cancelled")?;
        }
        published = publish(publisher, args, bench, &load, &got_on) => published?,
    }
    drop(moving);

    let load = load.borrow();
    let seconds = (load.ended - load.began).as_secs_f64();
    Ok(Figures {
        load: "fanout",
        subscribers: args.subscribers,
        window: args.window,
        size: args.publications.size,
        published: load.published,
        deliveries: load.deliveries,
        seconds,
        deliveries_per_second: load.deliveries as f64 / seconds.max(f64::MIN_POSITIVE),
        holes: load.holes,
        server_cpu: cpu.used(load.deliveries)?,
    })
}

/// Publishes as long as the load goes on, then waits until every subscriber has everything.
async fn publish(
    mut connection: Connection,
    args: &FanoutArgs,
    bench: &Bench,
    load: &RefCell<Load>,
    got_on: &Notify,
) -> Result<(), LoadError> {
    let mut submission = Submission::new(args.publications.size);
    let subscription = SubscriptionId::of_name(&bench.names[0]);
    loop {
        {
            let load = &mut *load.borrow_mut();
            while load.may_publish() {
                load.published += 1;
                connection.outgoing().send(&[submission.bare(subscription)]);
            }
            if load.is_complete() {
                return Ok(());
            }
        }
        tokio::select! {
            // First, since it is what writes.
            biased;
            ready = connection.ready() => {
                ready?;
                // Success is silent; there is nothing to come but `Welcome` and errors.
                bench.read(&mut connection, |_, answer| {
                    answer.error().map_or(Ok(()), |error| Err(LoadError::Server(error)))
                })?;
            }
            () = got_on.notified() => {}
        }
    }
}

/// Receives until it is cancelled.
async fn receive(
    mut connection: Connection,
    mut position: u64,
    bench: Rc<Bench>,
    load: Rc<RefCell<Load>>,
) -> Result<(), LoadError> {
    loop {
        connection.ready().await?;
        let before = position;
        let (mut deliveries, mut holes) = (0, 0);
        bench.receive(&mut connection, |received| {
            // A `Gap` shows as a hole.
            if let Received::Publication(publication) = received {
                let sequence = publication.sequence().0;
                deliveries += 1;
                holes += u64::from(sequence != position + 1);
                position = position.max(sequence);
            }
            Ok(())
        })?;
        let load = &mut *load.borrow_mut();
        load.deliveries += deliveries;
        load.holes += holes;
        load.ended = Instant::now();
        if position > before && load.places.advance(before, position) {
            load.got_on.notify_one();
        }
    }
}

impl Load {
    fn may_publish(&mut self) -> bool {
        let goes_on = !self.has_published
            && self
                .publications
                .goes_on(self.published, self.began.elapsed());
        self.has_published = !goes_on;
        goes_on && self.before + self.published < self.places.slowest + self.window
    }

    fn is_complete(&self) -> bool {
        self.has_published && self.places.slowest == self.before + self.published
    }

    fn position(&self) -> u64 {
        match self.publications.count {
            Some(_) => self.published,
            None => self.began.elapsed().as_millis() as u64,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "subscribers   {}, at most {} behind, {} bytes",
            self.subscribers, self.window, self.size
        )?;
        writeln!(f, "published     {}", grouped(self.published as f64))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_is_known_at_any_time() {
        let mut places = Places::new(10, 2);
        assert!(!places.advance(10, 15));
        assert!(places.advance(10, 12));
        assert_eq!(places.slowest, 12);
        assert!(!places.advance(15, 20));
        assert!(places.advance(12, 21));
        assert_eq!(places.slowest, 20);
    }
}
