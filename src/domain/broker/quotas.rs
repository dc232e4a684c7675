//! What each identity has: its connections, the subscriptions that it made, and the bytes of their logs.
//!
//! Owns the limits on these. Here all connections of all workers pass, so nothing has to be counted in several places. Anonymous ones are not counted, and
//! without limits nobody is.
//!
//! Invariants: an identity that has nothing is not remembered; the bytes that are remembered are never less than there are.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::{Principal, Subscription},
    Broker,
    commands::Outcome,
};
use crate::{
    domain::ConnectionId,
    protocol::{ErrorCode, ServerError, SessionId, SubscriptionId},
};

/// Bytes of logs that are over the limit are not counted again before so many milliseconds have passed.
const RECOUNT: u64 = 100;

/// What one identity may have. `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quotas {
    /// Connections at once.
    pub connections: Option<u64>,
    /// Subscriptions that it made.
    pub subscriptions: Option<u64>,
    /// Bytes of payload that these keep together.
    pub log_bytes: Option<u64>,
}

impl Quotas {
    fn counts_subscriptions(&self) -> bool {
        self.subscriptions.is_some() || self.log_bytes.is_some()
    }
}

/// What an identity has.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    connections: u64,
    subscriptions: BTreeSet<SubscriptionId>,
    /// At most so many: what retention removes is noticed when they are counted.
    bytes: u64,
    counted_at: Option<u64>,
}

impl Holdings {
    fn is_empty(&self) -> bool {
        self.connections == 0 && self.subscriptions.is_empty()
    }
}

/// Connections.
impl Broker {
    /// Whether `principal` has as many connections as it may; one that takes over from another of its own is none more.
    pub(super) fn is_crowded(&self, principal: &Principal, session: SessionId) -> bool {
        let (Some(most), Some(name)) = (self.limits.quotas.connections, &principal.name) else {
            return false;
        };
        let takes_over = self
            .sessions
            .get(&session)
            .is_some_and(|session| session.connection.is_some());
        let holdings = self.holdings.get(name);
        !takes_over && holdings.is_some_and(|holdings| holdings.connections >= most)
    }

    /// A connection speaks for `name` from now on.
    pub(super) fn note_connection(&mut self, name: Option<&Arc<str>>) {
        if self.limits.quotas.connections.is_some()
            && let Some(name) = name
        {
            let holdings = self.holdings.entry(Arc::clone(name)).or_default();
            holdings.connections += 1;
        }
    }

    /// It does no longer.
    pub(super) fn forget_connection(&mut self, name: Option<&Arc<str>>) {
        if self.limits.quotas.connections.is_some()
            && let Some(name) = name
        {
            self.change_holdings(name, |holdings| {
                holdings.connections = holdings.connections.saturating_sub(1);
            });
        }
    }

    fn change_holdings(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Holdings)) {
        if let Some(holdings) = self.holdings.get_mut(name) {
            change(holdings);
            if holdings.is_empty() {
                self.holdings.remove(name);
            }
        }
    }
}

/// Subscriptions and their logs.
impl Broker {
    /// Who a subscription that `connection` makes belongs to.
    pub(super) fn maker(&self, connection: ConnectionId) -> Option<Arc<str>> {
        let access = self.connections.get(&connection)?.access.as_ref()?;
        access.name().cloned()
    }

    /// Whether `owner` may make one more.
    pub(super) fn may_own(&self, owner: Option<&Arc<str>>, id: SubscriptionId) -> Outcome {
        let (Some(most), Some(owner)) = (self.limits.quotas.subscriptions, owner) else {
            return Ok(());
        };
        let holdings = self.holdings.get(owner);
        if holdings.is_some_and(|holdings| holdings.subscriptions.len() as u64 >= most) {
            let message = format!("an identity makes at most {most} subscriptions");
            return Err(ServerError::new(ErrorCode::LimitReached, message).for_subscription(id));
        }
        Ok(())
    }

    /// There is a subscription.
    pub(super) fn note_subscription(&mut self, subscription: &Subscription) {
        if self.limits.quotas.counts_subscriptions()
            && let Some(owner) = &subscription.owner
        {
            let holdings = self.holdings.entry(Arc::clone(owner)).or_default();
            holdings.subscriptions.insert(subscription.id);
            holdings.bytes += subscription.bytes;
        }
    }

    /// There is none any more.
    pub(super) fn forget_subscription(&mut self, subscription: &Subscription) {
        if self.limits.quotas.counts_subscriptions()
            && let Some(owner) = &subscription.owner
        {
            self.change_holdings(owner, |holdings| {
                holdings.subscriptions.remove(&subscription.id);
                holdings.bytes = holdings.bytes.saturating_sub(subscription.bytes);
            });
        }
    }

    /// A subscription got a publication of `size` bytes.
    pub(super) fn use_quota(&mut self, id: SubscriptionId, size: u64) {
        if self.limits.quotas.log_bytes.is_some()
            && let Some(owner) = self
                .subscriptions
                .get(&id)
                .and_then(|one| one.owner.as_ref())
            && let Some(holdings) = self.holdings.get_mut(owner)
        {
            holdings.bytes += size;
        }
    }

    /// Whether the logs of whoever made a subscription leave room for `size` bytes more.
    pub(super) fn check_quota(&mut self, id: SubscriptionId, size: u64) -> Outcome {
        if self.limits.quotas.log_bytes.is_none() {
            return Ok(());
        }
        let owner = self
            .subscriptions
            .get(&id)
            .and_then(|subscription| subscription.owner.clone());
        self.check_quota_of(owner, id, size)
    }

    /// The same of a subscription that `owner` is about to make.
    pub(super) fn check_quota_of(
        &mut self,
        owner: Option<Arc<str>>,
        id: SubscriptionId,
        size: u64,
    ) -> Outcome {
        let (Some(most), Some(owner)) = (self.limits.quotas.log_bytes, owner) else {
            return Ok(());
        };
        let Some(holdings) = self.holdings.get_mut(&owner) else {
            // The first one that it makes.
            return fits(size <= most, id);
        };
        let is_due = holdings
            .counted_at
            .is_none_or(|counted_at| self.uptime >= counted_at + RECOUNT);
        if holdings.bytes + size > most && is_due {
            let subscriptions = holdings.subscriptions.iter();
            holdings.bytes = subscriptions
                .filter_map(|id| self.subscriptions.get(id))
                .map(|subscription| subscription.bytes)
                .sum();
            holdings.counted_at = Some(self.uptime);
        }
        fits(holdings.bytes + size <= most, id)
    }
}

fn fits(fits: bool, id: SubscriptionId) -> Outcome {
    if fits {
        return Ok(());
    }
    let message = "the subscriptions of whoever made this one keep as many bytes as they may";
    Err(ServerError::new(ErrorCode::LogFull, message).for_subscription(id))
}
