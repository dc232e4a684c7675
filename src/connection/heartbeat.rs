//! Whether a client is still there, and takes what is written to it (protocol, section 1).
//!
//! Owns the times of one connection. Does not own a clock: the Hub's timer hands it the time, in milliseconds since the worker began,
//! and what was observed. Looks into the kernel's queue only while something lies in it, and only a few times in an interval.

use std::time::Duration;

/// How often in the shorter of interval and write time-out the kernel is asked what a client acknowledged.
const CHECKS: u64 = 8;

/// What clients are held to. Milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeartbeatLimits {
    interval: u64,
    timeout: u64,
    write_timeout: u64,
    /// What the timer's grain may add.
    tick: u64,
}

impl HeartbeatLimits {
    /// Pings come every `interval`; silence of `timeout` beyond that is too long, as is `write_timeout` in which nothing of what waits
    /// is taken.
    pub(crate) fn new(interval: Duration, timeout: Duration, write_timeout: Duration) -> Self {
        let shortest = interval.min(timeout).min(write_timeout);
        let tick = (shortest / 8).clamp(Duration::from_millis(5), Duration::from_millis(500));
        Self {
            interval: milliseconds(interval),
            timeout: milliseconds(timeout),
            write_timeout: milliseconds(write_timeout),
            tick: milliseconds(tick),
        }
    }

    /// How often the times are to be looked at.
    pub(crate) fn tick(&self) -> Duration {
        Duration::from_millis(self.tick)
    }

    fn check_every(&self) -> u64 {
        self.interval.min(self.write_timeout) / CHECKS
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The times of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heartbeat {
    heard_at: u64,
    pinged_at: u64,
    /// When it was last seen that the client's TCP took something, or that nothing waited for it.
    taken_at: u64,
    checked_at: u64,
    acknowledged: u64,
}

/// What happened to a connection since the last look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    /// A byte was received.
    pub(crate) heard: bool,
    /// The server itself reads nothing from this connection.
    pub(crate) is_held_back: bool,
    /// Something waits in the outbox.
    pub(crate) outbox_waits: bool,
    /// A publication waits in the outbox.
    pub(crate) publications_wait: bool,
    /// Bytes ever written.
    pub(crate) written: u64,
    /// The place of the last publication's last byte among these.
    pub(crate) publications_written_to: u64,
}

/// What is to be done about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing.
    Well,
    /// A ping is due.
    Ping,
    /// Nothing was heard for too long: close with 4008.
    Silent,
    /// Nothing was taken for too long: close with 4009.
    Stuck,
}

impl Heartbeat {
    /// The times of a connection that begins now.
    pub(crate) fn new(now: u64) -> Self {
        Self {
            heard_at: now,
            pinged_at: now,
            taken_at: now,
            checked_at: now,
            acknowledged: 0,
        }
    }

    /// Looks at a connection. `unacknowledged` tells how many of the written bytes the client's TCP has not acknowledged.
    pub(crate) fn look(
        &mut self,
        now: u64,
        limits: &HeartbeatLimits,
        observed: Observed,
        unacknowledged: impl FnOnce() -> Option<u64>,
    ) -> Verdict {
        if observed.heard || observed.is_held_back {
            self.heard_at = now;
        }
        if self.acknowledged == observed.written && !observed.outbox_waits {
            self.taken_at = now;
        } else if now - self.checked_at >= limits.check_every() {
            self.checked_at = now;
            if let Some(unacknowledged) = unacknowledged() {
                self.acknowledge(now, observed, unacknowledged);
            }
        }
        if now - self.taken_at > limits.write_timeout.saturating_add(limits.tick) {
            return Verdict::Stuck;
        }
        if now - self.heard_at > limits.interval.saturating_add(limits.timeout) {
            return Verdict::Silent;
        }
        if now - self.pinged_at >= limits.interval {
            self.pinged_at = now;
            return Verdict::Ping;
        }
        Verdict::Well
    }

    fn acknowledge(&mut self, now: u64, observed: Observed, unacknowledged: u64) {
        let acknowledged = observed.written.saturating_sub(unacknowledged);
        if acknowledged > self.acknowledged {
            let publications_waited =
                observed.publications_wait || self.acknowledged < observed.publications_written_to;
            if publications_waited {
                self.heard_at = now;
            }
            self.acknowledged = acknowledged;
            self.taken_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Observed = Observed {
        heard: false,
        is_held_back: false,
        outbox_waits: false,
        publications_wait: false,
        written: 0,
        publications_written_to: 0,
    };

    fn limits() -> HeartbeatLimits {
        let seconds = Duration::from_secs;
        HeartbeatLimits::new(seconds(25), seconds(10), seconds(60))
    }

    /// Looks every half second up to `until`; returns when something else than a ping was to be done, and what.
    fn watch(
        until: u64,
        mut observe: impl FnMut(u64) -> (Observed, u64),
    ) -> (Option<(u64, Verdict)>, Vec<u64>) {
        let limits = limits();
        let mut heartbeat = Heartbeat::new(0);
        let mut pings = Vec::new();
        for now in (0..=until).step_by(500) {
            let (observed, unacknowledged) = observe(now);
            match heartbeat.look(now, &limits, observed, || Some(unacknowledged)) {
                Verdict::Well => {}
                Verdict::Ping => pings.push(now),
                verdict => return (Some((now, verdict)), pings),
            }
        }
        (None, pings)
    }

    #[test]
    fn a_client_that_is_heard_is_pinged_every_interval() {
        let (verdict, pings) = watch(80_000, |now| {
            let heard = now % 20_000 == 0;
            (Observed { heard, ..IDLE }, 0)
        });
        assert_eq!(verdict, None);
        assert_eq!(pings, [25_000, 50_000, 75_000]);
    }

    #[test]
    fn a_silent_client_is_given_up_after_interval_and_timeout() {
        let (verdict, _) = watch(80_000, |_| (IDLE, 0));
        assert_eq!(verdict, Some((35_500, Verdict::Silent)));
    }

    #[test]
    fn acknowledged_pings_are_not_hearing() {
        let (verdict, _) = watch(80_000, |now| {
            let written = now / 100;
            (Observed { written, ..IDLE }, 0)
        });
        assert_eq!(verdict, Some((35_500, Verdict::Silent)));
    }

    #[test]
    fn acknowledged_publications_are_hearing() {
        let (verdict, _) = watch(200_000, |now| {
            let observed = Observed {
                outbox_waits: true,
                publications_wait: true,
                written: now / 100,
                publications_written_to: now / 100,
                ..IDLE
            };
            (observed, 0)
        });
        assert_eq!(verdict, None);
    }

    #[test]
    fn time_in_which_the_server_does_not_read_does_not_count() {
        let (verdict, _) = watch(80_000, |now| {
            let is_held_back = now < 40_000;
            let observed = Observed {
                is_held_back,
                ..IDLE
            };
            (observed, 0)
        });
        assert_eq!(verdict, Some((75_000, Verdict::Silent)));
    }

    #[test]
    fn a_client_that_takes_nothing_is_given_up_though_it_is_heard() {
        let (verdict, _) = watch(100_000, |now| {
            let observed = Observed {
                heard: true,
                outbox_waits: true,
                written: 1_000 * u64::from(now >= 10_000),
                ..IDLE
            };
            (observed, 1_000)
        });
        let (at, verdict) = verdict.unwrap();
        assert_eq!(verdict, Verdict::Stuck);
        assert!((60_000..=63_500).contains(&at), "at {at}");
    }

    #[test]
    fn one_byte_taken_starts_the_write_timeout_anew() {
        let (verdict, _) = watch(100_000, |now| {
            let observed = Observed {
                heard: true,
                outbox_waits: true,
                written: 1_000,
                ..IDLE
            };
            (observed, 1_000 - u64::from(now >= 50_000))
        });
        assert_eq!(verdict, None);
    }

    #[test]
    fn nothing_waiting_is_never_stuck() {
        let (verdict, _) = watch(200_000, |_| {
            (
                Observed {
                    heard: true,
                    ..IDLE
                },
                0,
            )
        });
        assert_eq!(verdict, None);
    }
}
