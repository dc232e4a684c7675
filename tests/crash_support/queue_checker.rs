//! What workers were told by a Queue, held against what is pending there and what lies among its dead letters.
//!
//! Every publication of the Queue is in exactly one place: settled, pending, or a dead letter. Where the publications themselves are, and
//! whether the log of dead letters lost any, is the log checker's to say.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::lost::{Lost, lost};

/// How a worker ends a lease for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Acknowledged,
    /// To the dead letters, at once.
    GivenUp,
}

/// A dead letter, as it tells of its place in the Queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dead {
    pub sequence: u64,
    pub deliveries: u64,
    pub reason: String,
}

/// What a server says of the Queue: everything that it delivers to one who takes all of it, and its dead letters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueueThere {
    pub last: u64,
    /// By sequence, the count of the delivery with which it came.
    pub came: BTreeMap<u64, u64>,
    pub dead: Vec<Dead>,
}

/// What may be missing, and what the Queue gives up by itself.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct QueueAllowance {
    pub max_deliveries: u64,
    /// After a power cut: counts of deliveries may be older.
    pub counts_may_lag: bool,
    /// After a power cut, of a Queue that is not Synced: what nobody was told before this may be undone.
    pub undone_since: Option<Instant>,
}

/// What is wrong with a Queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueFinding {
    /// Neither settled, nor pending, nor a dead letter.
    Lost(Lost),
    /// It was acknowledged, or given up, and that was answered.
    CameAgain {
        sequence: u64,
    },
    /// Pending, and a dead letter.
    InBothPlaces {
        sequence: u64,
    },
    DeadTwice {
        sequence: u64,
    },
    /// It was acknowledged, and that was answered.
    DeadThoughSettled {
        sequence: u64,
    },
    /// Nobody gave it up, and it was not delivered often enough.
    DeadWithoutCause {
        sequence: u64,
    },
    /// It was delivered at least so often before.
    NotCounted {
        sequence: u64,
        before: u64,
        now: u64,
    },
    /// More often than the Queue's settings let it.
    TooOften {
        sequence: u64,
        delivery: u64,
    },
}

/// What is known of a Queue.
#[derive(Clone, Default, Debug)]
pub struct KnownQueue {
    /// Ends that were answered.
    acknowledged: BTreeMap<u64, Instant>,
    given_up: BTreeMap<u64, Instant>,
    /// Ends that were asked for: the answer is still to come, or never came.
    asked: BTreeMap<u64, End>,
    deliveries: BTreeMap<u64, u64>,
    contradictions: Vec<QueueFinding>,
}

impl KnownQueue {
    pub fn deliver(&mut self, sequence: u64, delivery: u64) {
        if self.acknowledged.contains_key(&sequence) || self.given_up.contains_key(&sequence) {
            self.contradictions
                .push(QueueFinding::CameAgain { sequence });
        }
        let before = self.deliveries.insert(sequence, delivery).unwrap_or(0);
        if delivery <= before {
            self.contradictions.push(QueueFinding::NotCounted {
                sequence,
                before,
                now: delivery,
            });
        }
    }

    pub fn ask(&mut self, sequence: u64, end: End) {
        self.asked.insert(sequence, end);
    }

    /// The end that was asked for is answered.
    pub fn answer(&mut self, sequence: u64, now: Instant) {
        match self.asked.remove(&sequence) {
            Some(End::Acknowledged) => _ = self.acknowledged.insert(sequence, now),
            Some(End::GivenUp) => _ = self.given_up.insert(sequence, now),
            None => {}
        }
    }

    /// The lease had ended before: nothing happened.
    pub fn was_late(&mut self, sequence: u64) {
        self.asked.remove(&sequence);
    }

    pub fn settled(&self) -> usize {
        self.acknowledged.len()
    }

    /// Everything that is wrong with what is there.
    pub fn check(&self, there: &QueueThere, allowed: QueueAllowance) -> Vec<QueueFinding> {
        let mut findings = self.contradictions.clone();
        let mut dead = BTreeSet::new();
        for Dead { sequence, .. } in &there.dead {
            if !dead.insert(*sequence) {
                findings.push(QueueFinding::DeadTwice {
                    sequence: *sequence,
                });
            }
        }
        findings.extend(self.lost(there, &dead));
        findings.extend(self.wrongly_there(there, &dead, allowed));
        findings.extend(self.wrongly_dead(there, allowed));
        findings
    }

    /// After a check that found nothing: what was in the balance is known now.
    pub fn absorb(&mut self, there: &QueueThere, now: Instant) {
        for (sequence, end) in std::mem::take(&mut self.asked) {
            let is_pending = there.came.contains_key(&sequence) || sequence > there.last;
            if end == End::Acknowledged && !is_pending {
                self.acknowledged.insert(sequence, now);
            }
        }
        for sequence in there.came.keys() {
            self.acknowledged.remove(sequence);
            self.given_up.remove(sequence);
        }
        for Dead { sequence, .. } in &there.dead {
            self.acknowledged.remove(sequence);
            self.given_up.insert(*sequence, now);
        }
        self.deliveries.extend(&there.came);
        for behind in [&mut self.acknowledged, &mut self.given_up] {
            _ = behind.split_off(&(there.last + 1));
        }
        _ = self.deliveries.split_off(&(there.last + 1));
    }

    fn lost(&self, there: &QueueThere, dead: &BTreeSet<u64>) -> Vec<QueueFinding> {
        let is_settled = |sequence: &u64| {
            self.acknowledged.contains_key(sequence)
                || self.asked.get(sequence) == Some(&End::Acknowledged)
        };
        let expected = (1..=there.last).filter(|sequence| !is_settled(sequence));
        let places: BTreeSet<u64> = there.came.keys().chain(dead).copied().collect();
        lost(expected, &places)
            .into_iter()
            .map(QueueFinding::Lost)
            .collect()
    }

    fn wrongly_there(
        &self,
        there: &QueueThere,
        dead: &BTreeSet<u64>,
        allowed: QueueAllowance,
    ) -> Vec<QueueFinding> {
        let mut findings = Vec::new();
        let may_be_undone = |at: &Instant| allowed.undone_since.is_some_and(|since| *at >= since);
        for (&sequence, &delivery) in &there.came {
            let ended = self.acknowledged.get(&sequence);
            let ended = ended.or_else(|| self.given_up.get(&sequence));
            if ended.is_some_and(|at| !may_be_undone(at)) {
                findings.push(QueueFinding::CameAgain { sequence });
            }
            if dead.contains(&sequence) {
                findings.push(QueueFinding::InBothPlaces { sequence });
            }
            let before = self.deliveries.get(&sequence).copied().unwrap_or(0);
            if delivery <= before && !allowed.counts_may_lag {
                findings.push(QueueFinding::NotCounted {
                    sequence,
                    before,
                    now: delivery,
                });
            }
            if delivery > allowed.max_deliveries {
                findings.push(QueueFinding::TooOften { sequence, delivery });
            }
        }
        findings
    }

    fn wrongly_dead(&self, there: &QueueThere, allowed: QueueAllowance) -> Vec<QueueFinding> {
        let mut findings = Vec::new();
        for dead in &there.dead {
            let sequence = dead.sequence;
            let may_be_undone =
                |at: &Instant| allowed.undone_since.is_some_and(|since| *at >= since);
            let acknowledged = self.acknowledged.get(&sequence);
            if acknowledged.is_some_and(|at| !may_be_undone(at)) {
                findings.push(QueueFinding::DeadThoughSettled { sequence });
            }
            let is_given_up = self.given_up.contains_key(&sequence)
                || self.asked.get(&sequence) == Some(&End::GivenUp);
            let is_delivered_in_vain =
                dead.reason == "max-deliveries" && dead.deliveries == allowed.max_deliveries;
            if !is_given_up && !is_delivered_in_vain {
                findings.push(QueueFinding::DeadWithoutCause { sequence });
            }
        }
        findings
    }
}
