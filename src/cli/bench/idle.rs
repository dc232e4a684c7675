//! `infotainer bench idle`: subscribers that get nothing, to see what each costs the server.

use std::{fmt, rc::Rc, time::Duration};

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio::{task::JoinSet, time};

use super::{
    Bench, LoadError, Subscriptions, Target,
    connection::Connection,
    number,
    report::{self, CpuMeter, grouped, resident},
};
use crate::cli::{Failure, values};

/// `Subscribe`s under way at once.
const SUBSCRIBING: usize = 64;

/// Flags of `bench idle`.
#[derive(Args, Debug)]
pub(super) struct IdleArgs {
    /// Connections, each with one subscription
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = number)]
    connections: usize,

    /// Subscriptions that they share
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = number)]
    subscriptions: usize,

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
struct Figures {
    load: &'static str,
    connections: usize,
    subscriptions: usize,
    seconds: f64,
    #[serde(flatten)]
    server: Option<Cost>,
}

/// What the server's process showed.
#[derive(Serialize)]
struct Cost {
    resident_bytes_before: u64,
    resident_bytes: u64,
    resident_bytes_per_connection: f64,
    /// While nothing happened.
    cpu_seconds: f64,
}

/// Runs the load.
pub(super) async fn run(args: IdleArgs) -> Result<(), Failure> {
    let names = args.names.names(args.subscriptions);
    let bench = Rc::new(Bench::new(args.target.clone(), names, args.connections)?);
    let figures = bench
        .run_on(&args.names, stay(&args, &bench))
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?;
    report::print(&args.target, &figures)
}

async fn stay(args: &IdleArgs, bench: &Rc<Bench>) -> Result<Figures, LoadError> {
    let before = args.target.pid.map(resident).transpose()?;
    let connections = bench.connect(args.connections).await?;
    let subscribed: Vec<_> = stream::iter(connections.into_iter().enumerate())
        .map(async |(index, mut connection)| {
            let name = &bench.names[index % bench.names.len()];
            bench
                .subscribe(&mut connection, name, "New", |_| {})
                .await?;
            Ok::<_, LoadError>(connection)
        })
        .buffer_unordered(SUBSCRIBING)
        .try_collect()
        .await?;
    let cpu = CpuMeter::start(args.target.pid)?;
    let mut subscribers = JoinSet::new();
    for connection in subscribed {
        subscribers.spawn_local(answer_pings(connection, Rc::clone(bench)));
    }
    tokio::select! {
        () = time::sleep(args.duration) => {}
        Some(ended) = subscribers.join_next() => {
            ended.expect("invariant: a subscriber neither panics nor is cancelled")?;
        }
    }
    let server = match (args.target.pid, before, cpu.used(0)?) {
        (Some(pid), Some(before), Some(used)) => {
            let after = resident(pid)?;
            Some(Cost {
                resident_bytes_before: before,
                resident_bytes: after,
                resident_bytes_per_connection: after.saturating_sub(before) as f64
                    / args.connections as f64,
                cpu_seconds: used.seconds,
            })
        }
        _ => None,
    };
    Ok(Figures {
        load: "idle",
        connections: args.connections,
        subscriptions: args.subscriptions,
        seconds: args.duration.as_secs_f64(),
        server,
    })
}

/// Stays until it is cancelled.
async fn answer_pings(mut connection: Connection, bench: Rc<Bench>) -> Result<(), LoadError> {
    loop {
        connection.ready().await?;
        bench.receive(&mut connection, |_| Ok(()))?;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "connections   {}, to {} subscriptions, for {:.1} s",
            self.connections, self.subscriptions, self.seconds
        )?;
        if let Some(server) = &self.server {
            writeln!(
                f,
                "server memory {} KiB resident, {} before: {} bytes a connection",
                grouped(server.resident_bytes as f64 / 1024.0),
                grouped(server.resident_bytes_before as f64 / 1024.0),
                grouped(server.resident_bytes_per_connection)
            )?;
            writeln!(f, "server CPU    {:.2} s while idle", server.cpu_seconds)?;
        }
        Ok(())
    }
}
