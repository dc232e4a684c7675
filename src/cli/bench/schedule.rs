//! When what is due, if as much is to be published every second.
//!
//! Owns the arithmetic and how late the generator itself was. Does not own clocks, nor what is published
//! ([`open_loop`](super::open_loop)).

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{
    args::Publications,
    report::{Latencies, Percentiles, grouped, ratio},
};
use crate::cli::Failure;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// So many publications at a fixed rate, numbered from 0. Number n is due n / rate after the beginning, whatever came of those before.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Schedule {
    rate: u64,
    /// Below 2^32: a number is a request id, too.
    total: u32,
}

/// How well a schedule was kept.
pub(super) struct Punctuality {
    late: Latencies,
    held_back: u64,
    last_sent: Duration,
}

/// The same, told.
#[derive(Serialize)]
pub(super) struct Kept {
    /// As was asked for.
    rate: u64,
    /// As it became.
    sent_per_second: f64,
    /// How long after its time the generator sent each that was not held back.
    late_us: Percentiles,
    /// Publications that were due while the server read no more from their connection.
    held_back: u64,
}

impl Schedule {
    /// # Errors
    /// If that are too many.
    pub(super) fn new(rate: u64, publications: &Publications) -> Result<Self, Failure> {
        let total = publications.count.map_or_else(
            || {
                let nanos = publications.duration.as_nanos() * u128::from(rate);
                nanos.div_ceil(NANOS_PER_SECOND.into())
            },
            u128::from,
        );
        match u32::try_from(total) {
            Ok(total) => Ok(Self { rate, total }),
            Err(_) => Err(Failure::Usage(format!(
                "{total} publications are too many at a fixed rate: at most {}",
                u32::MAX
            ))),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total.into()
    }

    /// When this one is due, from the beginning.
    pub(super) fn due(&self, number: u32) -> Duration {
        Duration::from_nanos(u64::from(number) * NANOS_PER_SECOND / self.rate)
    }

    /// How many are due by then.
    pub(super) fn due_by(&self, elapsed: Duration) -> u64 {
        let due = (elapsed.as_nanos() + 1) * u128::from(self.rate);
        let due = due.div_ceil(NANOS_PER_SECOND.into());
        due.min(self.total.into()) as u64
    }
}

impl Punctuality {
    pub(super) fn new() -> Self {
        Self {
            late: Latencies::new(),
            held_back: 0,
            last_sent: Duration::ZERO,
        }
    }

    /// One that was due at this time was sent at that one. If the server held it back, that is not the generator's lateness.
    pub(super) fn sent(&mut self, due: Duration, at: Duration, was_held_back: bool) {
        self.last_sent = at;
        if was_held_back {
            self.held_back += 1;
        } else {
            self.late.add(at.saturating_sub(due));
        }
    }

    pub(super) fn kept(&self, schedule: &Schedule, sent: u64) -> Kept {
        // The last one has a share of time as every other.
        let seconds = self.last_sent.as_secs_f64() + 1.0 / schedule.rate as f64;
        Kept {
            rate: schedule.rate,
            sent_per_second: ratio(sent as f64, seconds),
            late_us: self.late.percentiles(),
            held_back: self.held_back,
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "schedule      {} per second, of which {} were sent",
            grouped(self.rate as f64),
            grouped(self.sent_per_second)
        )?;
        writeln!(f, "generator     late by {}", self.late_us)?;
        writeln!(
            f,
            "held back     {} by the server, which read no more",
            grouped(self.held_back as f64)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: u64, count: u64) -> Schedule {
        let publications = Publications {
            size: 8,
            count: Some(count),
            duration: Duration::ZERO,
        };
        Schedule::new(rate, &publications).unwrap()
    }

    #[test]
    fn each_is_due_at_its_time_and_not_a_nanosecond_before() {
        for rate in [1, 3, 7, 1_000, 99_999, 300_000, 100_000_000] {
            let schedule = schedule(rate, u32::MAX.into());
            for number in [0, 1, 2, 3, 999, 1_000, 1_000_001, u32::MAX - 1] {
                let due = schedule.due(number);
                assert_eq!(
                    schedule.due_by(due),
                    u64::from(number) + 1,
                    "{rate} {number}"
                );
                if let Some(before) = due.checked_sub(Duration::from_nanos(1)) {
                    assert_eq!(
                        schedule.due_by(before),
                        u64::from(number),
                        "{rate} {number}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_schedule_ends_by_count_or_time() {
        assert_eq!(schedule(10, 5).due_by(Duration::from_secs(60)), 5);
        let mut publications = Publications {
            size: 8,
            count: None,
            duration: Duration::from_millis(2_500),
        };
        assert_eq!(Schedule::new(3, &publications).unwrap().total(), 8);
        publications.duration = Duration::from_secs(1 << 32);
        assert!(Schedule::new(3, &publications).is_err());
    }
}
