//! Broker and data log on a disk that fails on purpose: thousands of short histories, each from one seed.
//!
//! Owns a server without actors and sockets, what its clients do, and what they have to find again. The disk is the data log's
//! ([`simulated`](crate::datalog::disk::simulated)): it forgets what was not synced, fails, runs full, and is damaged.
//!
//! ```text
//!  steps: submit, subscribe, acknowledge, reject, settings, delete, read, retention, seal, merge, time
//!     │    plans: the nth call fails; the disk is full from byte n on; everything ends at call n
//!     v
//!  broker ──batch──> data log ──> disk      then an end: orderly, kill, power cut; a start; and the check:
//! ```
//!
//! * What a start finds is what was written up to one batch: no earlier than the last that was synced, and the last where only the
//!   process was killed. Every publication is read, listed and found by its id, and nothing else is ([`Shadow`]).
//! * Every answered publication, acknowledgement, place and setting is there, whatever was served to anybody is what is there, and no
//!   sequence of an epoch stands for two publications. A Queue delivers what is not settled, nothing that is, and counts on.
//! * Nothing is told to be damaged that is not. What is damaged is told, and what lies elsewhere is served; the next
//!   start finds no more.
//!
//! A history that fails says its seed and its steps: `INFOTAINER_TEST_SEED` runs it again, `INFOTAINER_TEST_HISTORIES` so many
//! others, which are never the same.
//!
//! [`Shadow`]: crate::datalog::tests::shadow::Shadow

mod damage;
mod history;
mod told;
mod world;

use std::{collections::BTreeMap, time::Instant};

/// How often what happened.
#[derive(Clone, Default, Debug)]
struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn add(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }
}

/// So many run in a minute or two, in a debug build.
const HISTORIES: u64 = 2_000;

/// The first of their seeds. Always the same, so that a check fails for what was changed; others are run on demand.
const SEED: u64 = 1;

/// Seeds that found something once.
const FOUND: [u64; 6] = [
    // What a start erased, and did not sync before it was cut short, came back with a power cut;
    13_117_806_085_116_807_608,
    // so did what it erased and could not sync.
    2_748_013_595_175_630_690,
    // Behind a catalogue that went back in time, the state of a journal sealed again came behind that of later ones.
    8_503_756_694_963_523_159,
    // A lost journal ended with a publication of zeros, which the check took for room that was not used.
    5_704_163_811_011_465_196,
    // A submission was refused because the catalogue had failed in the background, which the check did not know yet.
    11_681_495_999_351_357_877,
    // A dead letter that came behind damage was held against what had been written before it.
    5_963_756_616_816_235_639,
];

/// What has to happen in so many histories, or they show nothing.
const EVERYTHING: [&str; 27] = [
    "kills",
    "power cuts",
    "ends in a start",
    "failed starts",
    "failed logs",
    "failed writes",
    "failed syncs",
    "failed changes of names",
    "failed reads",
    "times the disk was full",
    "refused for room",
    "torn tails",
    "ends that took batches",
    "journals sealed",
    "merges",
    "state logs written anew",
    "segments let go",
    "cuts of retention",
    "catalogues forgotten",
    "catalogues made again",
    "queues drained",
    "reads after a failure",
    "bits flipped",
    "files cut",
    "files lost",
    "damages told by a start",
    "damages told while serving",
];

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

#[test]
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the seed has to be known"
)]
fn nothing_that_was_told_is_lost_in_any_history() {
    let begun = Instant::now();
    let (seeds, count) = match number("INFOTAINER_TEST_SEED") {
        Some(seed) => (seed, 1),
        None => match number("INFOTAINER_TEST_HISTORIES") {
            Some(count) => (fastrand::u64(..), count),
            None => (SEED, HISTORIES),
        },
    };
    let mut all = Counts::default();
    for seed in (0..count).map(|n| seeds.wrapping_add(n)) {
        let show = |steps: &[String]| {
            eprintln!("INFOTAINER_TEST_SEED={seed}:\n{}", steps.join("\n"));
        };
        for (what, count) in history::run(seed, &show).0.0 {
            all.add(what, count);
        }
    }
    println!("{count} histories in {:?}: {:#?}", begun.elapsed(), all.0);
    if count >= HISTORIES {
        for what in EVERYTHING {
            assert!(all.0.get(what) > Some(&0), "not one of: {what}");
        }
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "the steps have to be known")]
fn histories_that_found_something_lose_nothing() {
    for seed in FOUND {
        history::run(seed, &|steps| eprintln!("{seed}:\n{}", steps.join("\n")));
    }
}

/// Almost always: what sled writes when is its own affair, so that what a power cut left of its file may differ.
#[test]
fn history_replays_from_its_seed() {
    for seed in (0..10).map(|_| fastrand::u64(..)) {
        let mut traces = Vec::new();
        while traces.len() < 6 {
            let trace = history::run(seed, &|_| {}).1;
            if traces.contains(&trace) {
                break;
            }
            traces.push(trace);
        }
        assert!(traces.len() < 6, "seed {seed}: {traces:?}");
    }
}
