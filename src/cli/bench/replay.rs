//! `infotainer bench replay`: subscribers that get all that a subscription holds, from the oldest.
//!
//! Time is from the first `Subscribe` to the last publication that the subscription held then.

use std::{cell::Cell, fmt, rc::Rc};

use clap::Args;
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Bench, Load, LoadError, Plan,
    args::{Target, number},
    connection::Connection,
    keep_moving,
    process::ServerCpu,
    report::{self, broken_sequence, grouped, ratio},
    subscribers::Taken,
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
pub(super) struct Figures {
    load: &'static str,
    subscribers: usize,
    deliveries: u64,
    seconds: f64,
    deliveries_per_second: f64,
    /// Places where a subscriber's sequences did not follow each other.
    holes: u64,
    server_cpu: Option<ServerCpu>,
}

impl Load for ReplayArgs {
    type Figures = Figures;

    fn plan(&self) -> Result<Plan<'_>, Failure> {
        Ok(Plan {
            target: &self.target,
            names: vec![self.subscription.clone()],
            makes: None,
            connections: self.subscribers,
        })
    }

    async fn put(&self, bench: &Rc<Bench>) -> Result<Figures, LoadError> {
        // To subscribe to one that does not exist would make it.
        let ask = |subscription_id| Command::GetSubscription { subscription_id };
        bench.exchange(ask, |_| Ok(())).await?;
        let connections = bench.connect(self.subscribers).await?;
        let cpu = bench.cpu()?;
        let began = Instant::now();
        let done = Rc::new(Cell::new(0));
        let bar = bench.progress("replaying", self.subscribers as u64, "subscribers");
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
        let mut replayed = Taken::default();
        while let Some(ended) = subscribers.join_next().await {
            replayed += ended.expect("invariant: a subscriber neither panics nor is cancelled")?;
        }
        drop(moving);

        let seconds = began.elapsed().as_secs_f64();
        Ok(Figures {
            load: "replay",
            subscribers: self.subscribers,
            deliveries: replayed.deliveries,
            seconds,
            deliveries_per_second: ratio(replayed.deliveries as f64, seconds),
            holes: replayed.breaks(),
            server_cpu: cpu.used(replayed.deliveries)?,
        })
    }
}

async fn receive_all(connection: Connection, bench: &Bench) -> Result<Taken, LoadError> {
    let mut subscriber = bench
        .subscribe(connection, &bench.names[0], "First")
        .await?;
    while subscriber.place.position < subscriber.last_sequence {
        subscriber.connection.ready().await?;
        bench.take(&mut subscriber, |_| Ok(()))?;
    }
    Ok(subscriber.place.taken)
}

impl report::Figures for Figures {
    fn failure(&self) -> Option<String> {
        broken_sequence(self.holes)
    }
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
