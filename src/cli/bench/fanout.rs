//! `infotainer bench fanout`: one publisher, and many subscribers that each get everything.
//!
//! A closed loop: the publisher is at most a window ahead of the slowest subscriber. Every sequence that a subscriber gets has
//! to follow the one before.

use std::{cell::RefCell, collections::VecDeque, fmt, rc::Rc};

use clap::Args;
use infotainer::{counted, protocol::SubscriptionId};
use serde::Serialize;
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use super::{
    Bench, Load, LoadError, Plan,
    args::{Publications, Subscriptions, Target, number},
    connection::Connection,
    process::ServerCpu,
    report::{self, broken_sequence, grouped, ratio},
    subscribers::{Subscriber, Taken},
    wire::Submission,
};
use crate::cli::Failure;

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
pub(super) struct Figures {
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
struct Progress {
    publications: Publications,
    window: u64,
    began: Instant,
    ended: Instant,
    /// The subscription's last sequence before the load.
    before: u64,
    published: u64,
    has_published: bool,
    taken: Taken,
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

impl Load for FanoutArgs {
    type Figures = Figures;

    fn plan(&self) -> Result<Plan<'_>, Failure> {
        Ok(Plan {
            target: &self.target,
            names: self.names.names(1),
            makes: Some(&self.names),
            connections: self.subscribers + 1,
        })
    }

    async fn put(&self, bench: &Rc<Bench>) -> Result<Figures, LoadError> {
        let subscribed = bench.subscribers(self.subscribers, 1, "New").await?;
        let publisher = Connection::open(&bench.target.server).await?;
        let before = subscribed[0].place.position;
        let cpu = bench.cpu()?;
        let began = Instant::now();
        let got_on = Rc::new(Notify::new());
        let load = Rc::new(RefCell::new(Progress {
            publications: self.publications,
            window: self.window as u64,
            began,
            ended: began,
            before,
            published: 0,
            has_published: false,
            taken: Taken::default(),
            places: Places::new(before, self.subscribers),
            got_on: Rc::clone(&got_on),
        }));
        let moving = bench.publishing(&self.publications, {
            let load = Rc::clone(&load);
            move || load.borrow().published
        });

        let mut subscribers = JoinSet::new();
        for subscriber in subscribed {
            subscribers.spawn_local(receive(subscriber, Rc::clone(bench), Rc::clone(&load)));
        }
        tokio::select! {
            // A subscriber never ends well by itself.
            Some(ended) = subscribers.join_next() => {
                ended.expect("invariant: a subscriber neither panics nor is cancelled")?;
            }
            published = publish(publisher, self, bench, &load, &got_on) => published?,
        }
        drop(moving);

        let load = load.borrow();
        let seconds = (load.ended - load.began).as_secs_f64();
        let deliveries = load.taken.deliveries;
        Ok(Figures {
            load: "fanout",
            subscribers: self.subscribers,
            window: self.window,
            size: self.publications.size,
            published: load.published,
            deliveries,
            seconds,
            deliveries_per_second: ratio(deliveries as f64, seconds),
            holes: load.taken.breaks(),
            server_cpu: cpu.used(deliveries)?,
        })
    }
}

/// Publishes as long as the load goes on, then waits until every subscriber has everything.
async fn publish(
    mut connection: Connection,
    args: &FanoutArgs,
    bench: &Bench,
    load: &RefCell<Progress>,
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
    mut subscriber: Subscriber,
    bench: Rc<Bench>,
    load: Rc<RefCell<Progress>>,
) -> Result<(), LoadError> {
    loop {
        subscriber.connection.ready().await?;
        let before = subscriber.place.position;
        bench.take(&mut subscriber, |_| Ok(()))?;
        let load = &mut *load.borrow_mut();
        let place = &mut subscriber.place;
        load.taken += std::mem::take(&mut place.taken);
        load.ended = Instant::now();
        if place.position > before && load.places.advance(before, place.position) {
            load.got_on.notify_one();
        }
    }
}

impl Progress {
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
}

impl report::Figures for Figures {
    fn failure(&self) -> Option<String> {
        broken_sequence(self.holes)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "subscribers   {}, at most {} behind, {}",
            self.subscribers,
            self.window,
            counted(self.size, "byte", "bytes")
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
