//! `infotainer bench sub`: subscribers of what others publish.
//!
//! Time is from the first delivery to the last. Nothing is published, and no subscription is deleted: they belong to whoever publishes.

use std::{cell::RefCell, fmt, rc::Rc, time::Duration};

use clap::Args;
use infotainer::counted;
use serde::Serialize;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    Bench, Load, LoadError, Plan,
    args::{Target, names, number},
    keep_moving,
    process::ServerCpu,
    report::{self, broken_sequence, grouped, ratio},
    subscribers::{Subscriber, Taken},
};
use crate::cli::{Failure, values};

/// Flags of `bench sub`.
#[derive(Args, Debug)]
pub(super) struct SubArgs {
    /// The name of the subscription, or the beginning of the names of several, as --subscription of the load that publishes.
    /// What does not exist is made, and stays
    #[arg(long, value_name = "NAME")]
    subscription: String,

    /// Subscriptions of that name: NAME-0, NAME-1 and so on
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = number)]
    subscriptions: usize,

    /// Connections that subscribe, each to one, in turn [default: one for each subscription]
    #[arg(long, value_name = "COUNT", value_parser = number)]
    subscribers: Option<usize>,

    /// Begin with the oldest kept (first), or with what is published from now on (new)
    #[arg(long, value_name = "POSITION", default_value = "new", value_parser = from)]
    from: &'static str,

    /// Receive so many, all subscribers together
    #[arg(long, value_name = "COUNT", value_parser = values::positive)]
    count: Option<u64>,

    /// Receive for so long behind the first delivery
    #[arg(long, value_name = "DURATION", default_value = "5s", conflicts_with = "count", value_parser = values::duration)]
    duration: Duration,

    #[command(flatten)]
    target: Target,
}

/// What came.
#[derive(Serialize)]
pub(super) struct Figures {
    load: &'static str,
    subscribers: usize,
    subscriptions: usize,
    deliveries: u64,
    seconds: f64,
    deliveries_per_second: f64,
    /// Of payload.
    bytes: u64,
    bytes_per_second: f64,
    /// How often the server said that something is missing, and of how many publications.
    gaps: u64,
    missing: u64,
    /// Places where a sequence did not follow the one before, without a word.
    holes: u64,
    /// Subscribers whose subscription was deleted meanwhile.
    deleted: usize,
    /// What had to come.
    #[serde(skip)]
    wanted: u64,
    server_cpu: Option<ServerCpu>,
}

/// What the subscribers have in common.
struct Received {
    taken: Taken,
    /// The first and the last delivery.
    between: Option<(Instant, Instant)>,
    /// Deliveries after which it is enough.
    enough: u64,
    has_begun: Rc<Notify>,
    has_enough: Rc<Notify>,
}

fn from(text: &str) -> Result<&'static str, String> {
    match text {
        "first" => Ok("First"),
        "new" => Ok("New"),
        _ => Err("first or new".to_owned()),
    }
}

impl SubArgs {
    fn subscribers(&self) -> usize {
        self.subscribers.unwrap_or(self.subscriptions)
    }
}

impl Load for SubArgs {
    type Figures = Figures;

    fn plan(&self) -> Result<Plan<'_>, Failure> {
        Ok(Plan {
            target: &self.target,
            names: names(self.subscription.clone(), self.subscriptions),
            makes: None,
            connections: self.subscribers(),
        })
    }

    async fn put(&self, bench: &Rc<Bench>) -> Result<Figures, LoadError> {
        let cpu = bench.cpu()?;
        let (has_begun, has_enough) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let received = Rc::new(RefCell::new(Received {
            taken: Taken::default(),
            between: None,
            enough: self.count.unwrap_or(u64::MAX),
            has_begun: Rc::clone(&has_begun),
            has_enough: Rc::clone(&has_enough),
        }));
        let subscribed = bench
            .subscribers(self.subscribers(), self.subscriptions, self.from)
            .await?;
        let (len, unit) = match self.count {
            Some(count) => (count, "deliveries"),
            None => (self.duration.as_millis() as u64, "ms"),
        };
        let moving = keep_moving(bench.progress("receiving", len, unit), {
            let received = Rc::clone(&received);
            let is_counted = self.count.is_some();
            move || received.borrow().position(is_counted)
        });
        let mut subscribers = JoinSet::new();
        for subscriber in subscribed {
            subscribers.spawn_local(receive(subscriber, Rc::clone(bench), Rc::clone(&received)));
        }
        let mut deleted = 0;
        let all_deleted = async {
            while let Some(ended) = subscribers.join_next().await {
                ended.expect("invariant: a subscriber neither panics nor is cancelled")?;
                deleted += 1;
            }
            Ok::<_, LoadError>(())
        };
        tokio::select! {
            ended = all_deleted => ended?,
            () = has_enough.notified() => {}
            () = async {
                has_begun.notified().await;
                time::sleep(self.duration).await;
            }, if self.count.is_none() => {}
        }
        drop(moving);

        let received = received.borrow();
        let Taken {
            deliveries,
            bytes,
            holes,
            gaps,
            missing,
        } = received.taken;
        let seconds = received
            .between
            .map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        Ok(Figures {
            load: "sub",
            subscribers: self.subscribers(),
            subscriptions: self.subscriptions,
            deliveries,
            seconds,
            deliveries_per_second: ratio(deliveries as f64, seconds),
            bytes,
            bytes_per_second: ratio(bytes as f64, seconds),
            gaps,
            missing,
            holes,
            deleted,
            wanted: self.count.unwrap_or(0),
            server_cpu: cpu.used(deliveries)?,
        })
    }
}

/// Receives until it is cancelled, or the subscription is deleted.
async fn receive(
    mut subscriber: Subscriber,
    bench: Rc<Bench>,
    received: Rc<RefCell<Received>>,
) -> Result<(), LoadError> {
    loop {
        // Something may have come right behind `Subscribed`.
        received
            .borrow_mut()
            .add(std::mem::take(&mut subscriber.place.taken));
        subscriber.connection.ready().await?;
        match bench.take(&mut subscriber, |_| Ok(())) {
            Ok(()) => {}
            Err(LoadError::Deleted) => {
                received.borrow_mut().add(subscriber.place.taken);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

impl Received {
    fn add(&mut self, taken: Taken) {
        if taken.deliveries > 0 {
            let now = Instant::now();
            let first = self.between.map_or(now, |(first, _)| first);
            self.between = Some((first, now));
            self.has_begun.notify_one();
        }
        self.taken += taken;
        if self.taken.deliveries >= self.enough {
            self.has_enough.notify_one();
        }
    }

    fn position(&self, is_counted: bool) -> u64 {
        match self.between {
            _ if is_counted => self.taken.deliveries,
            Some((first, _)) => first.elapsed().as_millis() as u64,
            None => 0,
        }
    }
}

impl report::Figures for Figures {
    fn failure(&self) -> Option<String> {
        let too_few = || {
            (self.deliveries < self.wanted).then(|| {
                format!(
                    "all subscriptions were deleted after {} of {} deliveries",
                    grouped(self.deliveries as f64),
                    grouped(self.wanted as f64)
                )
            })
        };
        broken_sequence(self.holes).or_else(too_few)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "subscribers   {}, of {}",
            self.subscribers,
            counted(self.subscriptions, "subscription", "subscriptions")
        )?;
        match self.deleted {
            0 => writeln!(f)?,
            deleted => writeln!(f, "; those of {deleted} were deleted meanwhile")?,
        }
        writeln!(
            f,
            "delivered     {} in {:.2} s: {} per second",
            grouped(self.deliveries as f64),
            self.seconds,
            grouped(self.deliveries_per_second)
        )?;
        writeln!(
            f,
            "bytes         {}: {} per second",
            grouped(self.bytes as f64),
            grouped(self.bytes_per_second)
        )?;
        if let Some(cpu) = &self.server_cpu {
            writeln!(f, "server CPU    {cpu}")?;
        }
        writeln!(
            f,
            "gaps          {}, of {} publications",
            self.gaps,
            grouped(self.missing as f64)
        )?;
        writeln!(f, "holes         {}", self.holes)
    }
}
