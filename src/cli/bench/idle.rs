//! `infotainer bench idle`: subscribers that get nothing, to see what each costs the server.

use std::{fmt, rc::Rc, time::Duration};

use clap::Args;
use infotainer::counted;
use serde::Serialize;
use tokio::{task::JoinSet, time};

use super::{
    Bench, Load, LoadError, Plan,
    args::{Subscriptions, Target, number},
    process::Process,
    report::{self, grouped},
    subscribers::Subscriber,
};
use crate::cli::{Failure, values};

/// Flags of `bench idle`.
#[derive(Args, Debug)]
pub(super) struct IdleArgs {
    /// Connections that subscribe
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = number)]
    connections: usize,

    /// Subscriptions that they share
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = number)]
    subscriptions: usize,

    /// Subscriptions of each
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = number)]
    each: usize,

    /// How long they stay
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    duration: Duration,

    #[command(flatten)]
    names: Subscriptions,

    #[command(flatten)]
    target: Target,
}

/// What it cost.
#[derive(Serialize)]
pub(super) struct Figures {
    load: &'static str,
    connections: usize,
    subscriptions: usize,
    subscriptions_of_each: usize,
    seconds: f64,
    #[serde(flatten)]
    server: Option<Cost>,
}

/// What the server's process showed.
#[derive(Serialize)]
struct Cost {
    process: Process,
    resident_bytes_before: u64,
    resident_bytes: u64,
    resident_bytes_per_connection: f64,
    /// While nothing happened.
    cpu_seconds: f64,
}

impl Load for IdleArgs {
    type Figures = Figures;

    fn plan(&self) -> Result<Plan<'_>, Failure> {
        if self.each > self.subscriptions {
            return Err(Failure::Usage(format!(
                "--each {} takes as many --subscriptions, not {}",
                self.each, self.subscriptions
            )));
        }
        Ok(Plan {
            target: &self.target,
            names: self.names.names(self.subscriptions),
            makes: Some(&self.names),
            connections: self.connections,
        })
    }

    async fn put(&self, bench: &Rc<Bench>) -> Result<Figures, LoadError> {
        let process = bench.server_process();
        let before = process.as_ref().map(Process::resident).transpose()?;
        let subscribed = bench
            .subscribers_of_several(self.connections, self.subscriptions, self.each, "New")
            .await?;
        let cpu = bench.cpu()?;
        let mut subscribers = JoinSet::new();
        for subscriber in subscribed {
            subscribers.spawn_local(answer_pings(subscriber, Rc::clone(bench)));
        }
        tokio::select! {
            () = time::sleep(self.duration) => {}
            Some(ended) = subscribers.join_next() => {
                ended.expect("invariant: a subscriber neither panics nor is cancelled")?;
            }
        }
        let server = match (process, before, cpu.used(0)?) {
            (Some(process), Some(before), Some(used)) => {
                let after = process.resident()?;
                Some(Cost {
                    process,
                    resident_bytes_before: before,
                    resident_bytes: after,
                    resident_bytes_per_connection: after.saturating_sub(before) as f64
                        / self.connections as f64,
                    cpu_seconds: used.seconds,
                })
            }
            _ => None,
        };
        Ok(Figures {
            load: "idle",
            connections: self.connections,
            subscriptions: self.subscriptions,
            subscriptions_of_each: self.each,
            seconds: self.duration.as_secs_f64(),
            server,
        })
    }
}

/// Stays until it is cancelled.
async fn answer_pings(mut subscriber: Subscriber, bench: Rc<Bench>) -> Result<(), LoadError> {
    loop {
        subscriber.connection.ready().await?;
        bench.take(&mut subscriber, |_| Ok(()))?;
    }
}

impl report::Figures for Figures {}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "connections   {}, each to {} of {}, for {:.1} s",
            self.connections,
            self.subscriptions_of_each,
            counted(self.subscriptions, "subscription", "subscriptions"),
            self.seconds
        )?;
        if let Some(server) = &self.server {
            writeln!(
                f,
                "server memory {} KiB resident, {} before: {} bytes a connection",
                grouped(server.resident_bytes as f64 / 1024.0),
                grouped(server.resident_bytes_before as f64 / 1024.0),
                grouped(server.resident_bytes_per_connection)
            )?;
            writeln!(
                f,
                "server CPU    {:.2} s while idle ({})",
                server.cpu_seconds, server.process
            )?;
        }
        Ok(())
    }
}
