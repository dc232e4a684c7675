//! Clocks, what the kernel tells of processes and cores, and where this process runs.

use std::fs;

use rustix::{
    param::clock_ticks_per_second,
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

#[inline]
pub(crate) fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CPU seconds of this process, user and system.
pub(crate) fn own_cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Seconds in which this process was ready to run and something else had its core.
pub(crate) fn own_wait() -> f64 {
    let told = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let waited = told.split_whitespace().nth(1);
    waited.and_then(|x| x.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// CPU seconds of another process, user and system, all threads together.
pub(crate) fn cpu_of(pid: u32) -> (f64, f64) {
    let told = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, which may hold anything, ends with the last bracket.
    let Some((_, fields)) = told.rsplit_once(") ") else {
        return (0.0, 0.0);
    };
    let seconds = |n| {
        let ticks = fields.split(' ').nth(n).and_then(|x| x.parse::<f64>().ok());
        ticks.unwrap_or(0.0) / clock_ticks_per_second() as f64
    };
    (seconds(11), seconds(12))
}

/// Memory of another process that is resident, in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let told = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Runs on core number `core` only.
pub(crate) fn pin(core: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)
}

/// Allows this process as many descriptors as it may have.
pub(crate) fn raise_descriptors() -> rustix::io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
}
