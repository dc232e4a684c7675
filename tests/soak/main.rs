//! A mixed load at a steady rate, for minutes, on the real program: everything comes in order and whole, and memory, threads, file
//! handles and the data directory stay as large as they are.
//!
//! Two minutes in the checks; `INFOTAINER_TEST_SOAK=20m cargo test --test soak -- --nocapture` runs it for longer. The load is bounded and
//! well below what a debug build takes on one core, so that it is the same on every machine. The seed is printed
//! (`INFOTAINER_TEST_SEED`).

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "figures and the seed have to be known")]

#[path = "../support/mod.rs"]
#[macro_use]
mod support;

mod broadcasts;
mod passers;
mod queues;
mod watch;

use std::{net::SocketAddr, time::Duration};

use fastrand::Rng;
use support::{Process, eventually};
use tokio::{
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use watch::Watch;

/// Those who publish go on for longer than those who wait for it.
const TAIL: Duration = Duration::from_secs(4);

/// What each log keeps: with the rates below, some seconds of it.
const KEPT: u64 = 4 << 20;

/// What all parts of the load know.
#[derive(Clone, Copy)]
struct Load {
    address: SocketAddr,
    until: Instant,
}

impl Load {
    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    fn is_published(&self) -> bool {
        Instant::now() < self.until + TAIL
    }
}

/// A beat that does not catch up: the load never becomes higher than it is meant to be.
fn every(period: Duration) -> Interval {
    let mut beat = interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

fn length() -> Duration {
    let given = std::env::var("INFOTAINER_TEST_SOAK");
    let given = given.as_deref().unwrap_or("2m");
    let (number, unit) = given.split_at(given.len() - 1);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        _ => panic!("INFOTAINER_TEST_SOAK is {given:?}, and not like 120s or 20m"),
    };
    Duration::from_secs(number.parse::<u64>().unwrap() * unit)
}

fn seed() -> u64 {
    let given = std::env::var("INFOTAINER_TEST_SEED");
    let seed = given.ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("INFOTAINER_TEST_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_mixed_load_everything_comes_in_order_and_nothing_grows() {
    let mut random = Rng::with_seed(seed());
    let mut server = Process::start(&[
        ("SESSION_EXPIRY", "5s"),
        ("OUTBOX_SIZE", "256KiB"),
        ("MEMORY_LOG", "1MiB"),
        ("HANDSHAKE_TIMEOUT", "1s"),
    ]);
    broadcasts::make(&mut server.client().await).await;
    queues::make(&mut server.client().await).await;
    let mut watch = Watch::begin(&server);
    let length = length();
    let load = Load {
        address: server.address(),
        until: Instant::now() + length,
    };
    let mut tasks = JoinSet::new();
    broadcasts::spawn(load, &mut tasks, &mut random);
    passers::spawn(load, &mut tasks, &mut random);
    let jobs = queues::spawn(load, &mut tasks, &mut random);
    let mut beat = every(length / 240);
    loop {
        tokio::select! {
            _ = beat.tick(), if load.goes_on() => watch.sample(&server),
            ended = tasks.join_next() => match ended {
                Some(Ok(())) => {}
                Some(Err(why)) => {
                    watch.report();
                    panic!("{why}");
                }
                None => break,
            },
        }
    }
    jobs.finish(load).await;
    passers::check_nothing_is_left(&server).await;
    eventually("only what was there at first is open", async || {
        watch.is_idle(&server)
    })
    .await;
    watch.report();
    watch.judge();
    server.signal("-TERM");
    assert_eq!(server.exited().await.code(), Some(0));
    let said = server.said();
    let complaints = said
        .lines()
        .filter(|line| line.contains("ERROR") || line.contains("WARN"));
    assert_eq!(complaints.collect::<Vec<_>>(), Vec::<&str>::new());
}
