//! What a broker holds and did, as numbers for whoever watches it.
//!
//! Owns the sums. They are kept while things change, since there may be a million subscriptions and nobody can walk them whenever
//! somebody asks; a [`Tally`] says what a Queue is counted for now, so that a change is the difference to that.

use super::Broker;
use crate::{
    domain::Subscription,
    protocol::{DeadLetterReason, Kind},
};

/// What a broker holds and did since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Subscriptions that are Broadcasts.
    pub broadcasts: u64,
    /// Subscriptions that are Queues.
    pub queues: u64,
    /// Durable sessions that are remembered, with a connection or without.
    pub durable_sessions: u64,
    /// Bytes of payload that all logs keep, those in memory included.
    pub log_bytes: u64,
    /// Of all Queues: publications that are neither settled nor on lease.
    pub pending: u64,
    /// Of all Queues: publications on lease.
    pub in_flight: u64,
    /// Publications of Queues that were acknowledged.
    pub acknowledged: u64,
    /// Deliveries of Queues that were not the first of their publication.
    pub redeliveries: u64,
    /// Publications that were rejected for good, and moved to the dead letters.
    pub dead_rejected: u64,
    /// Publications that were delivered too often, and moved to the dead letters.
    pub dead_max_deliveries: u64,
}

/// What a Queue is counted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    pending: u64,
    in_flight: u64,
}

impl Figures {
    /// A subscription that is in the table from now on.
    pub(super) fn add(&mut self, subscription: &Subscription) {
        match subscription.kind {
            Kind::Broadcast => self.broadcasts += 1,
            Kind::Queue => self.queues += 1,
        }
        self.log_bytes += subscription.bytes;
        if let Some(serving) = &subscription.serving {
            self.change(Tally::default(), serving.tally);
        }
    }

    /// A subscription that was in the table.
    pub(super) fn subtract(&mut self, subscription: &Subscription) {
        match subscription.kind {
            Kind::Broadcast => self.broadcasts -= 1,
            Kind::Queue => self.queues -= 1,
        }
        self.shrink(subscription.bytes);
        if let Some(serving) = &subscription.serving {
            self.change(serving.tally, Tally::default());
        }
    }

    /// Logs keep so much payload less.
    pub(super) fn shrink(&mut self, bytes: u64) {
        self.log_bytes = self.log_bytes.saturating_sub(bytes);
    }

    /// A publication is among the dead letters.
    pub(super) fn buried(&mut self, reason: DeadLetterReason) {
        match reason {
            DeadLetterReason::Rejected => self.dead_rejected += 1,
            DeadLetterReason::MaxDeliveries => self.dead_max_deliveries += 1,
        }
    }

    /// A Queue is in `subscription`: what it is counted for is what it holds now.
    #[inline]
    pub(super) fn recount(&mut self, subscription: &mut Subscription) {
        let last = subscription.last;
        if let Some(serving) = &mut subscription.serving {
            let tally = Tally {
                pending: serving.queue.pending(last),
                in_flight: serving.queue.in_flight(),
            };
            let before = std::mem::replace(&mut serving.tally, tally);
            self.change(before, tally);
        }
    }

    fn change(&mut self, before: Tally, now: Tally) {
        self.pending = self.pending - before.pending + now.pending;
        self.in_flight = self.in_flight - before.in_flight + now.in_flight;
    }
}

impl Broker {
    /// What it holds and did.
    pub fn figures(&self) -> Figures {
        Figures {
            durable_sessions: self.durable_sessions as u64,
            ..self.figures
        }
    }
}

#[cfg(test)]
impl Broker {
    /// The same figures, counted by walking everything.
    pub(crate) fn walked_figures(&self) -> Figures {
        let mut walked = Figures {
            durable_sessions: self.sessions.values().filter(|one| one.durable).count() as u64,
            broadcasts: 0,
            queues: 0,
            log_bytes: 0,
            pending: 0,
            in_flight: 0,
            ..self.figures
        };
        for subscription in self.subscriptions.values() {
            match subscription.kind {
                Kind::Broadcast => walked.broadcasts += 1,
                Kind::Queue => walked.queues += 1,
            }
            walked.log_bytes += subscription.bytes;
            if let Some(serving) = &subscription.serving {
                walked.pending += serving.queue.pending(subscription.last);
                walked.in_flight += serving.queue.in_flight();
            }
        }
        walked
    }
}
