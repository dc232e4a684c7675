//! How much a connection, or an identity, may send: messages and bytes a second.
//!
//! Owns the counting (governor's, by the generic cell rate algorithm) for one party. Does not own who the party is: a connection has a meter of its
//! own, and all connections of an identity share one, whichever workers they are on, so it is counted with atomics alone.
//!
//! Invariants: what one second allows may come at once, and one message of the largest size always may after a pause; a message that is over
//! a rate says after which time it would not be.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    NotUntil, Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use crate::config::Rate;

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A second has at most so many cells, or the time between two could not be told in nanoseconds well.
const MOST_CELLS: u64 = 4_000_000;

/// What one party sends.
#[derive(Debug)]
pub(crate) struct Meter<C: Clock = MonotonicClock> {
    messages: Option<Limiter<C>>,
    bytes: Option<Bytes<C>>,
}

#[derive(Debug)]
struct Bytes<C: Clock> {
    limiter: Limiter<C>,
    /// Bytes that count as one.
    grain: u64,
}

impl Meter {
    /// A meter that allows `rate`; `None` if that has no limit. `max_message_size` is the most that is counted at once.
    pub(crate) fn new(rate: Rate, max_message_size: usize) -> Option<Self> {
        Self::with_clock(rate, max_message_size, MonotonicClock)
    }
}

impl<C: Clock + Clone> Meter<C> {
    fn with_clock(rate: Rate, max_message_size: usize, clock: C) -> Option<Self> {
        let limited = |count: u64, least: u64| {
            let quota = Quota::per_second(cells(count)).allow_burst(cells(count.max(least)));
            RateLimiter::direct_with_clock(quota, clock.clone())
        };
        let Rate { messages, bytes } = rate;
        let meter = Self {
            messages: messages.map(|messages| limited(messages, 1)),
            bytes: bytes.map(|bytes| {
                let grain = bytes.div_ceil(MOST_CELLS);
                let largest = (max_message_size as u64).div_ceil(grain);
                Bytes {
                    limiter: limited(bytes.div_ceil(grain), largest),
                    grain,
                }
            }),
        };
        (meter.messages.is_some() || meter.bytes.is_some()).then_some(meter)
    }

    /// Counts a message of `bytes` bytes.
    ///
    /// # Errors
    /// If it is over a rate: the time after which it would not be.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Duration> {
        if let Some(limiter) = &self.messages {
            count(limiter, cells(1))?;
        }
        if let Some(Bytes { limiter, grain }) = &self.bytes {
            count(limiter, cells((bytes as u64).div_ceil(*grain)))?;
        }
        Ok(())
    }
}

fn cells(count: u64) -> NonZeroU32 {
    u32::try_from(count)
        .ok()
        .and_then(NonZeroU32::new)
        .unwrap_or(if count == 0 {
            NonZeroU32::MIN
        } else {
            NonZeroU32::MAX
        })
}

fn count<C: Clock>(limiter: &Limiter<C>, cells: NonZeroU32) -> Result<(), Duration> {
    let wait = |until: NotUntil<C::Instant>| until.wait_time_from(limiter.clock().now());
    // More than a burst never comes: the largest message is one.
    limiter
        .check_n(cells)
        .map_or(Ok(()), |counted| counted.map_err(wait))
}

/// The `retry_after` of an error: milliseconds, rounded up.
pub(crate) fn retry_after(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000))
        .unwrap_or(u64::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn meter(
        messages: Option<u64>,
        bytes: Option<u64>,
    ) -> (Meter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let rate = Rate { messages, bytes };
        let meter = Meter::with_clock(rate, 1 << 20, clock.clone()).unwrap();
        (meter, clock)
    }

    #[test]
    fn without_a_rate_there_is_nothing_to_count() {
        assert!(Meter::new(Rate::default(), 1 << 20).is_none());
    }

    #[test]
    fn a_second_of_messages_may_come_at_once_and_then_one_by_one() {
        let (meter, clock) = meter(Some(10), None);
        for _ in 0..10 {
            assert_eq!(meter.take(1_000_000), Ok(()));
        }
        assert_eq!(meter.take(1), Err(100 * MILLISECOND));
        clock.advance(99 * MILLISECOND);
        assert_eq!(meter.take(1), Err(MILLISECOND));
        clock.advance(MILLISECOND);
        assert_eq!(meter.take(1), Ok(()));
        assert!(meter.take(1).is_err());
    }

    #[test]
    fn the_largest_message_passes_whatever_the_rate() {
        let (meter, clock) = meter(None, Some(1 << 10));
        assert_eq!(meter.take(1 << 20), Ok(()));
        let wait = meter.take(1 << 20).unwrap_err();
        assert!(
            (Duration::from_secs(1_000)..Duration::from_secs(1_024)).contains(&wait),
            "{wait:?}"
        );
        clock.advance(wait);
        assert_eq!(meter.take(1 << 20), Ok(()));
    }

    #[test]
    fn bytes_are_counted_to_the_percent_however_fast() {
        for rate in [10_000, 5_000_000, 100_000_000, 1 << 30] {
            let (meter, clock) = meter(None, Some(rate));
            let size = (rate / 100).min(1 << 20);
            while meter.take(size as usize).is_ok() {}
            let mut taken = 0;
            for _ in 0..1_000 {
                clock.advance(10 * MILLISECOND);
                while meter.take(size as usize).is_ok() {
                    taken += size;
                }
            }
            let per_second = taken / 10;
            let error = per_second.abs_diff(rate);
            assert!(error <= rate / 50, "{per_second} instead of {rate}");
        }
    }

    #[test]
    fn the_time_to_wait_is_told_in_milliseconds_and_never_as_none() {
        assert_eq!(retry_after(Duration::ZERO), 1);
        assert_eq!(retry_after(Duration::from_nanos(1_000_001)), 2);
        assert_eq!(retry_after(Duration::from_millis(7)), 7);
    }
}
