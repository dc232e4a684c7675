//! The state machine behind the server: commands in, records and effects out.
//!
//! Owns the subscription table and the sessions. Does not own clocks (every call is handed `now`), the log itself (it says what is
//! appended, [`SealedBatch`]), or sockets (it says what is sent, [`Effect`]). Commands are applied at once; what they bring is released
//! when the batch that they went into has reached its durability.
//!
//! ```text
//!  handle, connect, ... ──> building ──seal──> ready ──take_logged──> written, synced, released ──> committed
//!                       └─> direct (Memory subscriptions) ──take_direct──> released
//! ```
//!
//! Invariants:
//! * a subscription's sequences have no hole and are given once; what a failed write took back is never given again, since nothing is
//!   appended after it;
//! * effects about one subscription leave in the order of the commands;
//! * a connection that no longer speaks for its session changes nothing.

mod access;
mod administration;
mod commands;
mod dead_letters;
mod failure;
mod figures;
mod logs;
mod publishing;
mod queues;
mod quotas;
mod restore;
mod retention;
mod sessions;
mod subscribing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};

pub use figures::{Figures, Tally};
pub use queues::QueueLoad;
pub use quotas::Quotas;
pub use restore::Restored as RestoredState;
pub use retention::{RetentionCheck, RetentionCut};

use super::{
    Batch, ConnectionId, Defaults, Effect, LogNumber, Record, ReplyTo, SealedBatch, Session,
    Staging, Subscription, state,
};
use crate::protocol::{
    Durability, ErrorCode, Limits, PublicationId, Sequence, ServerError, ServerResponse, SessionId,
    SubscriptionId, Timestamp,
};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A batch that has grown to this is sealed: with the largest message in it, it still fits a journal.
const BATCH_SIZE: u64 = 8 << 20;

/// What a publication adds to a batch beside its payload, at most.
pub const PUBLICATION_OVERHEAD: u64 = 1024;

/// What the broker is held to.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the words are those of the configuration")]
pub struct BrokerLimits {
    pub defaults: Defaults,
    pub max_subscriptions: usize,
    pub max_sessions: usize,
    /// Milliseconds.
    pub session_expiry: u64,
    /// Bytes of a Queue's publications that may wait for one subscriber's socket.
    pub outbox_size: u64,
    /// Bytes of frames that a Memory subscription without limits keeps.
    pub memory_log: u64,
    /// Of each identity.
    pub quotas: Quotas,
    /// For `Welcome`; `max_subscriptions` of it is held to.
    pub limits: Limits,
}

/// Whether a log holds a publication id; asked for what is committed.
pub trait KnownIds {
    /// The sequence of `id` in `log`.
    ///
    /// # Errors
    /// A sentence that says why it can't be told.
    fn find(
        &self,
        log: LogNumber,
        id: PublicationId,
        through: Sequence,
    ) -> Result<Option<Sequence>, String>;

    /// Bytes of payload that `log` keeps up to `last`.
    ///
    /// # Errors
    /// A sentence that says why it can't be told.
    fn bytes_through(&self, log: LogNumber, last: Sequence) -> Result<u64, String>;
}

/// The state machine.
pub struct Broker {
    limits: BrokerLimits,
    known: Box<dyn KnownIds>,
    random: fastrand::Rng,
    /// Boxed, so that the empty places of the table cost little.
    subscriptions: Map<SubscriptionId, Box<Subscription>>,
    /// The same, in order, for lists.
    order: BTreeSet<SubscriptionId>,
    next_log: u64,
    /// Those with retention of their own: where there is none by default, only they are looked at.
    retained: BTreeSet<SubscriptionId>,
    sessions: Map<SessionId, Session>,
    /// Durable sessions without a connection, by the time since when.
    away: BTreeSet<(Timestamp, SessionId)>,
    connections: Map<ConnectionId, access::Speaker>,
    /// When the token of a connection has to be looked at.
    deadlines: BTreeSet<(Timestamp, ConnectionId)>,
    /// Connections that were taken over and have not told their cursors yet, and whose they are.
    fenced: Map<ConnectionId, SessionId>,
    /// What each identity has, where that is limited.
    holdings: Map<std::sync::Arc<str>, quotas::Holdings>,
    durable_sessions: usize,
    /// Ids that clients supplied, not committed yet, with the batch that they are in.
    uncommitted: Map<(LogNumber, PublicationId), Sequence>,
    uncommitted_order: VecDeque<(u64, LogNumber, PublicationId)>,
    building: Batch,
    ready: VecDeque<SealedBatch>,
    direct: Batch,
    next_batch: u64,
    committed: u64,
    /// What `ready`, and what was taken and is not committed, takes in the journal.
    sealed_bytes: u64,
    room: Room,
    retention_cursor: Option<SubscriptionId>,
    /// Queues whose changes are written with the batch that is being filled.
    noted: Vec<SubscriptionId>,
    /// What the queues of batches under way can read when these are committed: batch, queue, up to where.
    unreadable: VecDeque<(u64, SubscriptionId, LogNumber, Sequence)>,
    /// What queues want read.
    loads: Vec<QueueLoad>,
    /// When a queue has to be looked at, in milliseconds since the process began.
    due: BTreeSet<(u64, SubscriptionId)>,
    held_up: HeldUp,
    figures: Figures,
    now: Timestamp,
    uptime: u64,
    available: bool,
    stopping: bool,
}

/// What the log can take beyond what is committed, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Of publications.
    pub guaranteed: u64,
    /// Of changes of state.
    pub changes: u64,
    /// Of those that make room: deletions, retention.
    pub clearing: u64,
    /// This is all for now.
    pub full: bool,
}

impl Room {
    /// As if there were no end of it.
    pub const UNLIMITED: Self = Self {
        guaranteed: u64::MAX,
        changes: u64::MAX,
        clearing: u64::MAX,
        full: false,
    };
}

/// What waits for room to change state. Without it nothing of this is lost but by a crash.
#[derive(Debug, Default)]
struct HeldUp {
    /// Queues that deliver nothing.
    queues: BTreeSet<SubscriptionId>,
    /// Places that are not written down.
    cursors: BTreeSet<(SessionId, SubscriptionId)>,
}

impl Broker {
    /// Whether the next command can be handled: false means to wait until a commit or [`set_room`](Self::set_room), because a
    /// publication could not be given a sequence now without risking that it finds no room.
    pub fn is_ready(&self) -> bool {
        self.room.full
            || !self.available
            || self.pending_bytes() + self.limits.limits.max_message_size + PUBLICATION_OVERHEAD
                <= self.room.guaranteed
    }

    /// What the log can take now. What waited for room goes on if there is some.
    pub fn set_room(&mut self, room: Room) {
        self.room = room;
        if self.writable().is_err() {
            return;
        }
        let HeldUp { queues, cursors } = std::mem::take(&mut self.held_up);
        for (session, subscription) in cursors {
            if let Some(held) = self
                .sessions
                .get(&session)
                .and_then(|known| known.held(subscription))
            {
                let record = state::put_cursor(session, subscription, &held.state());
                self.building.record(record);
            }
        }
        for queue in queues {
            self.dispatch(queue);
        }
    }

    /// The next batch to be written, in order. `more` tells whether the one that is being filled may be taken, too.
    pub fn take_logged(&mut self) -> Option<SealedBatch> {
        if self.ready.is_empty() && self.has_unsealed() {
            self.seal();
        }
        self.ready.pop_front()
    }

    /// Whether anything waits to be written or released through the log.
    pub fn has_logged(&self) -> bool {
        !self.ready.is_empty() || self.has_unsealed()
    }

    fn has_unsealed(&self) -> bool {
        !self.building.is_empty() || !self.noted.is_empty()
    }

    /// What is released without the log.
    pub fn take_direct(&mut self) -> Option<SealedBatch> {
        if self.direct.is_empty() {
            return None;
        }
        let next = self.next_batch_number();
        Some(self.direct.take(next).seal())
    }

    /// The batch with this number, and so all before it, was written as it should and released.
    pub fn committed(&mut self, number: u64, size: u64) {
        self.committed = number;
        // A batch that was under way when the log failed may be committed all the same, and is counted no more.
        self.sealed_bytes = self.sealed_bytes.saturating_sub(size);
        while let Some(&(batch, log, id)) = self.uncommitted_order.front() {
            if batch > number {
                break;
            }
            self.uncommitted.remove(&(log, id));
            self.uncommitted_order.pop_front();
        }
        self.make_readable(number);
    }

    /// From now on, nothing new begins.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether the log can be written: false for good after a failed commit.
    pub fn is_available(&self) -> bool {
        self.available
    }

    /// How many subscriptions there are.
    pub fn subscription_count(&self) -> usize {
        self.subscriptions.len()
    }

    /// How many durable sessions there are.
    pub fn durable_session_count(&self) -> usize {
        self.durable_sessions
    }

    fn next_batch_number(&mut self) -> u64 {
        self.next_batch += 1;
        self.next_batch
    }

    fn seal(&mut self) {
        self.write_notes();
        let next = self.next_batch_number();
        let sealed = self.building.take(next).seal();
        self.sealed_bytes += sealed.size;
        self.ready.push_back(sealed);
    }

    /// What is not committed takes so much in the journal, at most.
    fn pending_bytes(&self) -> u64 {
        self.sealed_bytes + self.building.size() + self.noted.len() as u64 * queues::NOTE_SIZE
    }

    fn seal_if_large(&mut self) {
        if self.building.size() >= BATCH_SIZE {
            self.seal();
        }
    }

    fn insert(&mut self, subscription: Subscription) {
        let id = subscription.id;
        self.order.insert(id);
        if subscription.settings.retention.is_some() {
            self.retained.insert(id);
        }
        self.figures.add(&subscription);
        self.note_subscription(&subscription);
        self.subscriptions.insert(id, Box::new(subscription));
    }

    fn remove(&mut self, id: SubscriptionId) -> Option<Box<Subscription>> {
        self.order.remove(&id);
        self.retained.remove(&id);
        let removed = self.subscriptions.remove(&id)?;
        self.figures.subtract(&removed);
        self.forget_subscription(&removed);
        Some(removed)
    }

    /// Writes down a change of state that no subscription's stream depends on.
    fn record(&mut self, record: Record) {
        if self.available {
            self.building.record(record);
        }
    }

    /// An answer that is about no subscription.
    fn answer(&mut self, to: ReplyTo, response: ServerResponse) {
        self.building
            .effect(Durability::Synced, Effect::Answer(to, response));
    }

    /// An answer about a subscription, in its place among the others about it.
    fn answer_about(&mut self, to: ReplyTo, id: SubscriptionId, response: ServerResponse) {
        self.effect_about(id, Effect::Answer(to, response));
    }

    /// An effect for one connection, about a subscription.
    fn effect_about(&mut self, id: SubscriptionId, effect: Effect) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return self.building.effect(Durability::Synced, effect);
        };
        let durability = subscription.settings.durability;
        let staging = &mut subscription.staging;
        let (batch, level) = stage(
            &mut self.building,
            &mut self.direct,
            self.committed,
            durability,
            staging,
        );
        batch.effect(level, effect);
    }

    fn fail(&mut self, to: ReplyTo, error: ServerError) {
        match error.subscription_id {
            Some(id) => self.effect_about(id, Effect::error(to, error)),
            None => self
                .building
                .effect(Durability::Synced, Effect::error(to, error)),
        }
    }

    /// Whether state can be changed.
    fn writable(&self) -> Result<(), ServerError> {
        self.has_room(self.room.changes)
    }

    /// Whether state can be changed so that there is more room.
    fn clearable(&self) -> Result<(), ServerError> {
        self.has_room(self.room.clearing)
    }

    fn has_room(&self, room: u64) -> Result<(), ServerError> {
        if !self.available {
            return Err(self.unwritable());
        }
        if self.room.full && self.pending_bytes() >= room {
            let message =
                "the disk is full, and so is the reserve for changes other than publications";
            return Err(ServerError::new(ErrorCode::LogFull, message));
        }
        Ok(())
    }

    fn unwritable(&self) -> ServerError {
        ServerError::new(
            ErrorCode::LogUnavailable,
            "the log can't be written any more: the server serves what it has until it is started again",
        )
    }
}

/// The batch that an effect about a subscription goes into, and the level at which it is released.
fn stage<'a>(
    building: &'a mut Batch,
    direct: &'a mut Batch,
    committed: u64,
    durability: Durability,
    staging: &mut Staging,
) -> (&'a mut Batch, Durability) {
    if durability == Durability::Memory && !staging.is_logged_after(committed) {
        return (direct, Durability::Memory);
    }
    let level = staging.level(building, durability);
    staging.travel_with(building);
    (building, level)
}

/// A time in which publications of one subscription never go back.
fn advance(last: Timestamp, now: Timestamp) -> Timestamp {
    last.max(now)
}
