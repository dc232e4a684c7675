//! Which logs have more than they keep.

use std::ops::Bound::{Excluded, Unbounded};

use super::{
    super::{Cut, LogNumber, Record},
    Broker,
};
use crate::protocol::{Retention, Sequence, SubscriptionId, Timestamp};

/// A log that is over its limits: the data log knows where it is to be cut.
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs, reason = "the words are those of the protocol")]
pub struct RetentionCheck {
    pub subscription: SubscriptionId,
    pub log: LogNumber,
    /// The newest.
    pub last: Sequence,
    /// The newest that may be removed.
    pub through: Sequence,
    pub retention: Retention,
}

/// Where a log is cut.
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs, reason = "as in RetentionCheck")]
pub struct RetentionCut {
    pub subscription: SubscriptionId,
    pub log: LogNumber,
    pub cut: Cut,
}

impl Broker {
    /// Looks at the next `share`th part of all subscriptions that may have limits; called so many times within the time in which retention acts, it
    /// looks at each.
    pub fn retention_due(&mut self, share: usize, now: Timestamp) -> Vec<RetentionCheck> {
        let has_default = self.limits.defaults.retention != Retention::default();
        let candidates = if has_default {
            &self.order
        } else {
            &self.retained
        };
        let count = candidates.len().div_ceil(share);
        let begin = self.retention_cursor.map_or(Unbounded, Excluded);
        let mut due = Vec::new();
        let mut reached = None;
        for id in candidates.range((begin, Unbounded)).take(count) {
            reached = Some(*id);
            let Some(subscription) = self.subscriptions.get_mut(id) else {
                continue;
            };
            let retention = subscription.settings.retention(&self.limits.defaults);
            let through = subscription.removable();
            if retention == Retention::default() || through < subscription.first {
                continue;
            }
            if let Some(memory) = &mut subscription.memory {
                if let Some(cut) = memory.retain(retention, self.limits.memory_log, now, through) {
                    self.figures.shrink(subscription.cut(&cut));
                }
                continue;
            }
            let age = now.0.saturating_sub(subscription.first_time.0);
            let over = |limit: Option<u64>, has: u64| limit.is_some_and(|limit| has > limit);
            if over(retention.max_publications, subscription.kept())
                || over(retention.max_bytes, subscription.bytes)
                || over(retention.max_age, age)
            {
                let (subscription, log, last) = (*id, subscription.log, subscription.last);
                due.push(RetentionCheck {
                    subscription,
                    log,
                    last,
                    through,
                    retention,
                });
            }
        }
        self.retention_cursor = reached;
        due
    }

    /// Removes what is in front of a cut.
    pub fn retain(
        &mut self,
        RetentionCut {
            subscription: id,
            log,
            cut,
        }: RetentionCut,
    ) {
        if self.clearable().is_err() {
            return;
        }
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        if subscription.log != log || cut.first <= subscription.first {
            return;
        }
        // What may be removed never becomes less, but for a log that lost its end.
        if cut.first > subscription.removable().next() {
            return;
        }
        self.figures.shrink(subscription.cut(&cut));
        if let Some(serving) = &mut subscription.serving {
            serving.removable.1 = serving.removable.1.saturating_sub(cut.removed_bytes);
        }
        self.building.record(Record::Truncate {
            log,
            first: cut.first,
        });
    }
}
