//! The rounds.

use std::{fs, path::Path, time::Duration};

use tokio::time::Instant;

use crate::{
    crash_support::{
        inspect::{Ended, There, submit_again},
        load::Load,
        number_from, seed,
        subscriptions::{SMALL_JOURNALS, create_all},
    },
    support::Process,
};

const ROUNDS: u64 = 20;
/// After so many rounds a server with nothing in it is next: each round reads all that is there.
const LIFE: u64 = 20;

/// What a run came across.
#[derive(Default, Debug)]
struct Seen {
    rounds: u64,
    answers: u64,
    starts_killed: u64,
    settled: usize,
    dead_letters: usize,
    pending: usize,
}

#[tokio::test]
async fn kill_9_at_any_moment_loses_nothing_that_was_told_and_brings_nothing_twice() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut left = number_from("INFOTAINER_TEST_ROUNDS", ROUNDS);
    let (began, mut seen) = (Instant::now(), Seen::default());
    while left > 0 {
        let rounds = left.min(LIFE);
        live(rounds, &mut random, &mut seen).await;
        left -= rounds;
        println!("{seen:?}");
    }
    println!("{} rounds in {:?}", seen.rounds, began.elapsed());
}

/// One server, killed and started again so many times.
async fn live(rounds: u64, random: &mut fastrand::Rng, seen: &mut Seen) {
    let mut server = Process::start(&SMALL_JOURNALS);
    let mut ledger = create_all(&server).await;
    let mut start = Duration::from_millis(150);
    for round in 0..rounds {
        let load = Load::on(&server, ledger, round, random).await;
        load.goes_on(random).await;
        server.kill();
        seen.answers += load.shared.answered();
        ledger = load.over().await;
        spoil(&server, random);
        for _ in 0..random.u64(..4) {
            // A little longer than a start takes, so that each of its steps is hit now and then.
            let most = (start + start / 4).as_millis() as u64;
            server
                .start_for(Duration::from_millis(random.u64(..most.max(1))))
                .await;
            seen.starts_killed += 1;
        }
        let starting = Instant::now();
        server.start_again();
        start = starting.elapsed();

        let there = There::on(&server, &ledger).await;
        let mut wrong = there.check(&ledger, Ended::Killed);
        if wrong.is_empty() {
            (seen.dead_letters, seen.pending) = there.counts();
            there.absorb(&mut ledger, random).await;
            wrong = submit_again(&server, &ledger, random).await;
        }
        assert!(wrong.is_empty(), "round {round}:\n{}", wrong.join("\n"));
        seen.rounds += 1;
    }
    seen.settled += ledger.queues.values().map(|it| it.settled()).sum::<usize>();
}

/// The catalogue is only a copy of what stands elsewhere: now and then it is gone, or nonsense.
fn spoil(server: &Process, random: &mut fastrand::Rng) {
    let catalogue = server.data_dir().join("catalogue");
    match random.u8(..8) {
        0 => fs::remove_dir_all(catalogue).unwrap(),
        1 => make_nonsense(&catalogue.join("db")),
        _ => {}
    }
}

/// All of it, so that the start finds it: where a little is damaged, that can show itself long after.
fn make_nonsense(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    for byte in &mut bytes {
        *byte ^= 0xa5;
    }
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn kill_9_while_starting_is_no_harm() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut server = Process::start(&[]);
    let mut client = server.client().await;
    for _ in 0..20 {
        client.publish("orders", vec![7; 100_000]).await;
    }
    let before = client.log("orders").await;
    drop(client);
    server.kill();
    for _ in 0..12 {
        // A start takes about as long, so that each of its steps is hit now and then.
        server
            .start_for(Duration::from_millis(random.u64(..150)))
            .await;
    }
    server.start_again();
    let mut client = server.client().await;
    assert!(client.log("orders").await == before);
    let next = client.publish("orders", b"x").await;
    assert_eq!(next.number("sequence"), 21);
}
