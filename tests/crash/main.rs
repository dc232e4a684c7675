//! kill -9 of the real program at random moments: nothing that was told is lost, nothing is there twice, moved or changed.
//!
//! Each round clients of all kinds are let loose on a server whose journals are so small that sealing and merging hardly ever pause, with
//! retention, deletions and changed settings among it. At some moment it is killed, often killed again while it starts, and what it has
//! after a full start is held against what everybody was told.
//!
//! `INFOTAINER_TEST_ROUNDS` says how many rounds; `INFOTAINER_TEST_SEED`, which is printed, repeats a run as far as timing lets it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "the seed has to be known")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
#[path = "../crash_support/mod.rs"]
mod crash_support;

mod checkers;
mod killing;
