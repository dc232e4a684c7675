//! A client's identity, and its places in the subscriptions that it holds.

use std::sync::Arc;

use super::{ConnectionId, CursorState, LogNumber, Principal};
use crate::protocol::{Epoch, Sequence, SessionId, SubscriptionId, Timestamp};

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whether it outlives its connection.
    pub durable: bool,
    /// The identity that made it, which alone may speak for it; `None` if anybody did.
    pub owner: Option<Arc<str>>,
    /// Whether that is written down.
    pub is_owner_written: bool,
    /// The connection that may speak for it.
    pub connection: Option<ConnectionId>,
    /// Connections that were taken over and have not told their cursors yet: `Welcome` waits for them.
    pub takeovers: u32,
    /// Whether the connection had its `Welcome`.
    pub welcomed: bool,
    /// Whether it was there before its connection.
    pub resumed: bool,
    /// Since when it has no connection.
    pub away_since: Timestamp,
    /// The subscriptions it holds: few, so that looking through them is quicker than any map, and smaller.
    pub held: Vec<Held>,
}

/// A subscription that a session holds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Held {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The life of the subscription.
    pub log: LogNumber,
    /// The epoch that its positions are of.
    pub epoch: Epoch,
    /// The last acknowledged position.
    pub acknowledged: Option<Sequence>,
    /// The last position that is known to be handed to a connection.
    pub handed: Sequence,
    /// Of a Queue: how much may be in flight.
    pub prefetch: Option<u16>,
}

impl Session {
    /// A session without subscriptions or connection.
    pub fn new(id: SessionId, durable: bool, now: Timestamp) -> Self {
        Self {
            id,
            durable,
            owner: None,
            is_owner_written: false,
            connection: None,
            takeovers: 0,
            welcomed: false,
            resumed: false,
            away_since: now,
            held: Vec::new(),
        }
    }

    /// Whether `principal` may speak for it. What anybody made belongs to whoever comes first and knows its id.
    pub fn may_be_of(&self, principal: &Principal) -> bool {
        self.owner.is_none() || self.owner == principal.name
    }

    /// Its place in a subscription.
    pub fn held(&self, subscription: SubscriptionId) -> Option<&Held> {
        self.held
            .iter()
            .find(|held| held.subscription == subscription)
    }

    /// Its place in a subscription, to be changed.
    pub fn held_mut(&mut self, subscription: SubscriptionId) -> Option<&mut Held> {
        self.held
            .iter_mut()
            .find(|held| held.subscription == subscription)
    }

    /// Sets its place in a subscription.
    pub fn hold(&mut self, held: Held) {
        match self.held_mut(held.subscription) {
            Some(place) => *place = held,
            None => self.held.push(held),
        }
    }

    /// Gives up a subscription; false if it did not hold it.
    pub fn release(&mut self, subscription: SubscriptionId) -> bool {
        let before = self.held.len();
        self.held.retain(|held| held.subscription != subscription);
        self.held.len() < before
    }
}

impl Held {
    /// The position behind which delivery goes on after a reconnect.
    pub fn resume_at(&self) -> Sequence {
        self.acknowledged.unwrap_or(self.handed)
    }

    /// What a restart found.
    pub fn restored(subscription: SubscriptionId, state: CursorState) -> Self {
        let CursorState {
            log,
            epoch,
            acknowledged,
            handed,
            prefetch,
        } = state;
        Self {
            subscription,
            log,
            epoch,
            acknowledged,
            handed,
            prefetch,
        }
    }

    /// As it is written down.
    pub fn state(&self) -> CursorState {
        let Self {
            log,
            epoch,
            acknowledged,
            handed,
            prefetch,
            ..
        } = *self;
        CursorState {
            log,
            epoch,
            acknowledged,
            handed,
            prefetch,
        }
    }
}
