//! How long to wait before the next attempt to connect: growing, and jittered, so that many clients of a server that restarts do
//! not come back at once.

use std::time::Duration;

/// How a client comes back when its connection has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Reconnect {
    /// The first pause is at the most this. Default 100 ms.
    pub first_pause: Duration,
    /// Each pause is at the most twice as long as the one before, and never longer than this. Default 30 s.
    pub longest_pause: Duration,
    /// How many attempts may fail in a row before the client gives up; `None`, the default, is any number.
    pub attempts: Option<u32>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(30),
            attempts: None,
        }
    }
}

impl Reconnect {
    /// Does not come back: the first connection that ends, ends the client.
    pub fn never() -> Self {
        Self {
            attempts: Some(0),
            ..Self::default()
        }
    }

    /// Pauses that begin at `first` and grow to `longest`.
    pub fn pauses(first: Duration, longest: Duration) -> Self {
        Self {
            first_pause: first,
            longest_pause: longest,
            ..Self::default()
        }
    }

    /// The same, giving up after so many failed attempts in a row.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }
}

/// Counts attempts that failed in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: Reconnect,
    failed: u32,
}

impl Backoff {
    pub(super) fn new(policy: Reconnect) -> Self {
        Self { policy, failed: 0 }
    }

    /// A connection was of use.
    pub(super) fn reset(&mut self) {
        self.failed = 0;
    }

    /// The pause before the next attempt, `chance` being random; `None` if there is to be none.
    pub(super) fn next(&mut self, chance: f64) -> Option<Duration> {
        if self.policy.attempts.is_some_and(|most| self.failed >= most) {
            return None;
        }
        let doubled = 1_u32.checked_shl(self.failed).unwrap_or(u32::MAX);
        let most = self
            .policy
            .first_pause
            .saturating_mul(doubled)
            .min(self.policy.longest_pause);
        self.failed = self.failed.saturating_add(1);
        // The lower half is left out: a pause of next to nothing is none.
        Some(most.mul_f64(0.5 + 0.5 * chance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_double_up_to_the_longest_and_are_jittered_by_half() {
        let mut backoff = Backoff::new(Reconnect::pauses(10 * MS, 35 * MS));
        for most in [10, 20, 35, 35] {
            let mut other = Backoff { ..backoff };
            assert_eq!(other.next(0.0), Some(MS * most / 2));
            assert_eq!(backoff.next(1.0), Some(MS * most));
        }
        backoff.reset();
        assert_eq!(backoff.next(1.0), Some(10 * MS));
    }

    #[test]
    fn attempts_end_where_the_policy_says() {
        let mut backoff = Backoff::new(Reconnect::default().attempts(2));
        assert!(backoff.next(0.5).is_some());
        assert!(backoff.next(0.5).is_some());
        assert_eq!(backoff.next(0.5), None);
        backoff.reset();
        assert!(backoff.next(0.5).is_some());
        assert_eq!(Backoff::new(Reconnect::never()).next(0.5), None);
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut backoff = Backoff::new(Reconnect::default());
        backoff.failed = u32::MAX;
        assert_eq!(backoff.next(1.0), Some(Duration::from_secs(30)));
    }
}
