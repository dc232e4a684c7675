//! What the tests that take the server away share: a load that notes what it was told, and judges that hold what is there against it.
//!
//! ```text
//!  load ──what was sent, answered, delivered──> Ledger ─┐
//!                                                       ├─> checkers ──> findings: lost (which part?), twice, moved, changed, ...
//!  inspect ──what a server says that it has─────────────┘
//! ```
//!
//! The checkers (`log_checker`, `queue_checker`, `passing`) talk to nobody, so that their own tests can make up what was answered and
//! what is there. They forgive nothing by themselves: what retention may take, and what a power cut may take of a subscription that is
//! not Synced, they are told.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses another part of it"
)]

pub mod inspect;
pub mod ledger;
pub mod load;
pub mod log_checker;
pub mod lost;
pub mod passing;
pub mod queue_checker;
pub mod subscriptions;

use std::fmt::Debug;

/// The number that an environment variable gives, or this one.
pub fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {value}"))
    })
}

/// The seed of this run, which is printed: `INFOTAINER_TEST_SEED` repeats a run as far as timing lets it.
pub fn seed() -> u64 {
    let seed = number_from("INFOTAINER_TEST_SEED", fastrand::u64(..));
    println!("INFOTAINER_TEST_SEED={seed}");
    seed
}

/// Each finding as a line, with what it was found in.
pub fn lines(place: &str, findings: &[impl Debug]) -> Vec<String> {
    findings
        .iter()
        .map(|finding| format!("{place}: {finding:?}"))
        .collect()
}
