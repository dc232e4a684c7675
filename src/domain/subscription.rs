//! One subscription: where its log begins and ends, who subscribes, and where a subscriber's delivery begins.

use std::{collections::HashSet, sync::Arc};

use super::{
    Cut, Defaults, LogExtent, LogNumber, LogSource, MemoryLog, Serving, Settings, Staging, Start,
    SubscriptionState, Workers,
};
use crate::protocol::{
    Durability, Epoch, Kind, Sequence, SessionId, SubscribeFrom, SubscriptionId, SubscriptionMeta,
    Timestamp,
};

/// A subscription of the table.
#[derive(Debug)]
pub struct Subscription {
    /// For ever.
    pub id: SubscriptionId,
    /// This life of its log.
    pub log: LogNumber,
    /// For ever, in this life.
    pub kind: Kind,
    /// Of this life; a new one if the log's end may be missing.
    pub epoch: Epoch,
    /// When this life began.
    pub created: Timestamp,
    /// The identity that made it, whose quotas it counts for.
    pub owner: Option<Arc<str>>,
    /// What was set.
    pub settings: Settings,
    /// The oldest kept; one behind the newest while nothing is.
    pub first: Sequence,
    /// The newest that has a sequence, committed or not.
    pub last: Sequence,
    /// Of payload kept.
    pub bytes: u64,
    /// Of the oldest kept, where anything is.
    pub first_time: Timestamp,
    /// Of the newest: times never decrease.
    pub last_time: Timestamp,
    /// Its place in the batches under way.
    pub staging: Staging,
    /// The log of a Memory subscription.
    pub memory: Option<Box<MemoryLog>>,
    /// Of a Queue: who has what.
    pub serving: Option<Box<Serving>>,
    /// `None` while it is empty: most subscriptions of many are quiet.
    #[expect(
        clippy::box_collection,
        reason = "the set by itself is 40 bytes, in every subscription"
    )]
    sessions: Option<Box<HashSet<SessionId, foldhash::fast::RandomState>>>,
    /// How many connections of each worker subscribe; workers without are left out.
    connected: Vec<(u8, u32)>,
}

impl Subscription {
    /// A new life, without publications.
    pub fn new(id: SubscriptionId, state: SubscriptionState) -> Self {
        let SubscriptionState {
            log,
            kind,
            epoch,
            created,
            owner,
            settings,
        } = state;
        Self {
            id,
            log,
            kind,
            epoch,
            created,
            owner: owner.map(Arc::from),
            first: Sequence(1),
            last: Sequence::ZERO,
            bytes: 0,
            first_time: created,
            last_time: created,
            staging: Staging::default(),
            serving: None,
            memory: (settings.durability == Durability::Memory).then(Box::default),
            sessions: None,
            connected: Vec::new(),
            settings,
        }
    }

    /// What a restart found of its log.
    pub fn restore(&mut self, extent: &LogExtent) {
        self.first = extent.first;
        self.last = extent.last;
        self.bytes = extent.bytes;
        self.first_time = extent.first_time;
        self.last_time = extent.last_time.max(self.created);
    }

    /// As it is written down.
    pub fn state(&self) -> SubscriptionState {
        SubscriptionState {
            log: self.log,
            kind: self.kind,
            epoch: self.epoch,
            created: self.created,
            owner: self.owner.as_deref().map(Into::into),
            settings: self.settings.clone(),
        }
    }

    /// As it is shown.
    pub fn meta(&self, defaults: &Defaults) -> SubscriptionMeta {
        let serving = self.serving.as_deref();
        SubscriptionMeta {
            subscription_id: self.id,
            kind: self.kind,
            epoch: self.epoch,
            settings: self.settings.shown(self.id, self.kind, defaults),
            created: self.created,
            first_sequence: self.first,
            last_sequence: self.last,
            bytes: self.bytes,
            subscribers: self.sessions().count() as u64,
            connected: self
                .connected
                .iter()
                .map(|(_, count)| u64::from(*count))
                .sum(),
            pending: serving.map(|serving| serving.queue.pending(self.last)),
            in_flight: serving.map(|serving| serving.queue.in_flight()),
        }
    }

    /// Where its log is read.
    pub fn source(&self) -> LogSource {
        if self.memory.is_some() {
            LogSource::Memory
        } else {
            LogSource::Disk
        }
    }

    /// The position in front of the oldest kept.
    pub fn oldest(&self) -> Sequence {
        self.first.previous()
    }

    /// How many publications are kept.
    pub fn kept(&self) -> u64 {
        self.last.0 + 1 - self.first.0
    }

    /// Retention removed what is in front of `cut`. Returns how many bytes of payload that were.
    pub fn cut(&mut self, cut: &Cut) -> u64 {
        let removed = cut.removed_bytes.min(self.bytes);
        self.first = cut.first;
        self.bytes -= removed;
        self.first_time = cut.oldest_time.unwrap_or(self.last_time);
        removed
    }

    /// Where delivery begins for a subscriber that asks for `from`, knowing `epoch`.
    pub fn start(&self, from: SubscribeFrom, epoch: Option<Epoch>) -> Start {
        match from {
            SubscribeFrom::New => Start::At {
                cursor: self.last,
                recovered: true,
            },
            SubscribeFrom::First => Start::At {
                cursor: self.oldest(),
                recovered: true,
            },
            SubscribeFrom::Last(n) => Start::At {
                cursor: Sequence(self.last.0.saturating_sub(n)).max(self.oldest()),
                recovered: true,
            },
            SubscribeFrom::Since(time) => match &self.memory {
                Some(memory) => Start::At {
                    cursor: memory.since(time).previous(),
                    recovered: true,
                },
                None => Start::Since(time),
            },
            SubscribeFrom::After(position) => {
                let (cursor, recovered) = self.resume(position, epoch.unwrap_or(self.epoch));
                Start::At { cursor, recovered }
            }
        }
    }

    /// Where delivery goes on for a subscriber that was at `position` of `epoch`, and whether nothing is missing.
    pub fn resume(&self, position: Sequence, epoch: Epoch) -> (Sequence, bool) {
        if epoch != self.epoch || position > self.last {
            (self.oldest(), false)
        } else {
            (position, position >= self.oldest())
        }
    }

    /// The session holds the subscription from now on.
    pub fn add_session(&mut self, session: SessionId) {
        self.sessions.get_or_insert_default().insert(session);
    }

    /// The session holds it no longer.
    pub fn remove_session(&mut self, session: SessionId) {
        if let Some(sessions) = &mut self.sessions
            && sessions.remove(&session)
            && sessions.is_empty()
        {
            self.sessions = None;
        }
    }

    /// The sessions that hold it.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions
            .iter()
            .flat_map(|sessions| sessions.iter().copied())
    }

    /// A connection of `worker` subscribes from now on.
    pub fn connect(&mut self, worker: usize) {
        match self
            .connected
            .iter_mut()
            .find(|(known, _)| usize::from(*known) == worker)
        {
            Some((_, count)) => *count += 1,
            None => self.connected.push((worker as u8, 1)),
        }
    }

    /// A connection of `worker` subscribes no longer.
    pub fn disconnect(&mut self, worker: usize) {
        if let Some(place) = self
            .connected
            .iter()
            .position(|(known, _)| usize::from(*known) == worker)
        {
            self.connected[place].1 -= 1;
            if self.connected[place].1 == 0 {
                self.connected.swap_remove(place);
            }
        }
    }

    /// The newest that retention may take: of a Queue only what is settled.
    pub fn removable(&self) -> Sequence {
        match &self.serving {
            Some(serving) => serving.queue.progress().settled().min(self.last),
            None => self.last,
        }
    }

    /// The workers that have subscribers.
    pub fn workers(&self) -> Workers {
        self.connected
            .iter()
            .fold(Workers::default(), |workers, (worker, _)| {
                workers.with(usize::from(*worker))
            })
    }
}
