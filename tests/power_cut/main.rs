//! Power cuts under the real program: whatever was told of what is Synced is there afterwards, and of the rest no more than a young end is gone.
//!
//! The program runs on an ext4 of its own that writes back as late as it can (`commit=300`), on a loop device whose disk is this test
//! ([`disk`]). The test sees every write and every flush that reaches the disk, and so knows what a disk may hold when the power goes:
//!
//! * everything that was written before the last flush, since a flush is answered when that is down;
//! * of what was written behind it any part, in units of 4,096 bytes, since a disk may write what is in its cache in any order;
//! * nothing of what the kernel has not handed to the disk yet, as the page cache is gone.
//!
//! A cut is such a state, put together at one moment between two writes: all of the rest, nothing of it, or some by chance. So there
//! is no copy that a disk could not be. It is mounted, which replays the journal of ext4, and the program is started on it in another
//! boot, as `/proc/sys/kernel/random/boot_id` tells it. What it has is held against what its clients had been told before the cut.
//!
//! Mounts need root, `/dev/fuse` and loop devices; where they can't be had the test says so in one line, and is left out. It does all of
//! it in mount and process namespaces of its own, so that nothing of it is left whichever way it ends.
//!
//! `INFOTAINER_TEST_ROUNDS` says how many rounds; `INFOTAINER_TEST_SEED`, which is printed, repeats a run as far as timing lets it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "the seed has to be known")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
#[path = "../crash_support/mod.rs"]
mod crash_support;

mod cutting;
mod disk;
mod mounts;

use std::{
    env,
    process::{Command, Stdio},
};

/// Set where the namespaces are the test's own.
const INSIDE: &str = "INFOTAINER_TEST_INSIDE";
/// Seconds after which a run in namespaces is ended.
const LONGEST: u64 = 300;

#[test]
fn a_power_cut_takes_nothing_that_was_told() {
    if env::var_os(INSIDE).is_some() {
        return cutting::run();
    }
    let rounds = crash_support::number_from("INFOTAINER_TEST_ROUNDS", 0);
    let longest = LONGEST + rounds * 30;
    let program = env::current_exe().unwrap();
    let output = Command::new("timeout")
        .args(["-s", "KILL", &longest.to_string()])
        .args(["unshare", "--mount", "--propagation", "private"])
        .args(["--pid", "--fork", "--kill-child"])
        .arg(program)
        .args(["--exact", "a_power_cut_takes_nothing_that_was_told"])
        .arg("--nocapture")
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return println!("left out: timeout can't be run: {error}"),
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && stdout.is_empty() {
        return println!(
            "left out: there are no namespaces to mount in: {}",
            stderr.trim()
        );
    }
    println!("{stdout}\n{stderr}");
    assert!(output.status.success(), "it ended with {}", output.status);
}
