//! Queues: what follows from their commands, from time, and from what was read of their logs.
//!
//! Owns the way between a [`queue`](crate::domain::queue) and the batch: leases become deliveries, changes become records, and a dead
//! letter is published and settled with one batch. What a queue wants read is asked for with [`Broker::take_loads`].

use super::{
    super::{
        ConnectionId, DeliveryKey, FrameSource, LogNumber, Page, ReplyTo, Settings,
        queue::{LOAD_SIZE, Queue, QueueRules, Range, Rejected, Touched},
        state,
    },
    Broker, BrokerLimits,
    commands::{Outcome, invalid},
    stage,
};
use crate::protocol::{
    Acknowledge, Acknowledged, Durability, Extend, Kind, Reject, ServerError, ServerResponse,
    Settled, SubscriptionId, SubscriptionReference, Timestamp,
};

/// What the changes of a queue take in the journal, mostly.
pub(super) const NOTE_SIZE: u64 = 4096;

/// A part of a queue's log that is to be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueLoad {
    /// The queue.
    pub subscription: SubscriptionId,
    /// Its log.
    pub log: LogNumber,
    /// What is to be read: [`LOAD_SIZE`] in all, but at least one publication.
    pub ranges: Vec<Range>,
}

/// Commands.
impl Broker {
    pub(super) fn acknowledge_ids(&mut self, to: ReplyTo, command: &Acknowledge) -> Outcome {
        let id = self.found_queue(&command.subscription)?;
        let Acknowledged::Ids(ids) = &command.what else {
            return Err(invalid(
                id,
                "a Queue takes publication_ids; sequence is acknowledged in a Broadcast",
            ));
        };
        self.may_settle(id)?;
        let touched = self.touch(to, id, |queue, connection, _| {
            queue.acknowledge(connection, ids)
        })?;
        self.figures.acknowledged += touched.count;
        self.settled(to, id, touched, ServerResponse::Acknowledged);
        Ok(())
    }

    pub(super) fn reject_ids(&mut self, to: ReplyTo, command: &Reject) -> Outcome {
        let id = self.found_queue(&command.subscription)?;
        let what = if command.dead_letter {
            Rejected::DeadLetter
        } else {
            Rejected::Later(command.delay.unwrap_or_default())
        };
        self.may_settle(id)?;
        let touched = self.touch(to, id, |queue, connection, now| {
            queue.reject(connection, &command.publication_ids, what, now)
        })?;
        self.settled(to, id, touched, ServerResponse::Rejected);
        Ok(())
    }

    pub(super) fn extend(&mut self, to: ReplyTo, command: &Extend) -> Outcome {
        let id = self.found_queue(&command.subscription)?;
        let touched = self.touch(to, id, |queue, connection, now| {
            queue.extend(connection, &command.publication_ids, now)
        })?;
        self.settled(to, id, touched, ServerResponse::Extended);
        Ok(())
    }

    fn found_queue(
        &self,
        reference: &SubscriptionReference,
    ) -> Result<SubscriptionId, ServerError> {
        let subscription = self.found(reference)?;
        match subscription.kind {
            Kind::Queue => Ok(subscription.id),
            Kind::Broadcast => Err(invalid(
                subscription.id,
                "the command is for a Queue, and the subscription is a Broadcast",
            )),
        }
    }

    /// Whether what a queue settles can be written down.
    fn may_settle(&self, id: SubscriptionId) -> Outcome {
        match self.subscriptions.get(&id) {
            Some(known) if known.memory.is_none() => {
                self.writable().map_err(|error| error.for_subscription(id))
            }
            _ => Ok(()),
        }
    }

    /// Changes leases of the connection that asks.
    fn touch(
        &mut self,
        to: ReplyTo,
        id: SubscriptionId,
        change: impl FnOnce(&mut Queue, ConnectionId, u64) -> Touched,
    ) -> Result<Touched, ServerError> {
        let uptime = self.uptime;
        let subscription = self
            .subscriptions
            .get_mut(&id)
            .expect("invariant: the caller found it");
        if subscription.memory.is_none() && !self.available {
            return Err(self.unwritable().for_subscription(id));
        }
        let serving = subscription
            .serving
            .as_mut()
            .expect("invariant: it is a Queue");
        let touched = change(&mut serving.queue, to.connection, uptime);
        if serving.queue.progress().has_changed()
            && subscription.settings.durability == Durability::Synced
        {
            self.building.require_sync();
        }
        Ok(touched)
    }

    fn settled(
        &mut self,
        to: ReplyTo,
        id: SubscriptionId,
        Touched { count, lost }: Touched,
        response: fn(Settled) -> ServerResponse,
    ) {
        let settled = Settled {
            subscription_id: id,
            count,
            lost: Some(lost),
        };
        self.answer_about(to, id, response(settled));
        self.dispatch(id);
    }
}

/// Subscribers.
impl Broker {
    /// `connection` takes part in a queue, from this place of its stream on. What is delivered to it is sent with
    /// [`dispatch`](Self::dispatch). Returns the number of its membership.
    pub(super) fn join_queue(
        &mut self,
        id: SubscriptionId,
        connection: ConnectionId,
        prefetch: u16,
    ) -> u64 {
        let subscription = self.subscriptions.get_mut(&id);
        let Some(serving) = subscription.and_then(|known| known.serving.as_mut()) else {
            return 0;
        };
        serving.part += 1;
        serving.queue.subscribe(connection, prefetch)
    }

    /// `connection` takes part no longer: its leases end, and go to others with [`dispatch`](Self::dispatch).
    pub(super) fn leave_queue(&mut self, id: SubscriptionId, connection: ConnectionId) {
        let spare = self.stopping;
        if let Some(subscription) = self.subscriptions.get_mut(&id)
            && let Some(serving) = &mut subscription.serving
        {
            serving.part += 1;
            serving.queue.unsubscribe(connection, spare);
            self.figures.recount(subscription);
        }
    }

    /// The socket of `connection` took so many bytes of what was delivered to it in this membership.
    pub fn queue_written(
        &mut self,
        connection: ConnectionId,
        id: SubscriptionId,
        log: LogNumber,
        joined: u64,
        bytes: u64,
    ) {
        if let Some(subscription) = self.subscriptions.get_mut(&id)
            && subscription.log == log
            && let Some(serving) = &mut subscription.serving
        {
            serving.queue.written(connection, joined, bytes);
            self.dispatch(id);
        }
    }
}

/// Delivering.
impl Broker {
    /// Gives leases to those who have room, asks for what has to be read for that, and sees to it that what changed is written.
    pub(super) fn dispatch(&mut self, id: SubscriptionId) {
        loop {
            self.grant(id);
            if !self.load_from_memory(id) {
                break;
            }
        }
        self.note(id);
    }

    fn grant(&mut self, id: SubscriptionId) {
        let is_writable = self.writable().is_ok();
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        let is_logged = subscription.memory.is_none();
        let Some(serving) = &mut subscription.serving else {
            return;
        };
        if self.stopping || is_logged && !self.available {
            return;
        }
        if is_logged && !is_writable {
            self.held_up.queues.insert(id);
            return;
        }
        let (log, durability) = (subscription.log, subscription.settings.durability);
        while let Some(grant) = serving.queue.next_grant(self.uptime) {
            self.figures.redeliveries += u64::from(grant.delivery > 1);
            let (batch, level) = stage(
                &mut self.building,
                &mut self.direct,
                self.committed,
                durability,
                &mut subscription.staging,
            );
            let key = DeliveryKey {
                connection: grant.connection,
                log,
                part: serving.part,
                level,
            };
            batch.deliver(key, id, FrameSource::Read(grant.frame), grant.delivery);
        }
        if is_logged && let Some(ranges) = serving.queue.wanted() {
            self.loads.push(QueueLoad {
                subscription: id,
                log,
                ranges,
            });
        }
    }

    /// Reads what a queue in memory wants. Returns whether anything was.
    fn load_from_memory(&mut self, id: SubscriptionId) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return false;
        };
        let (Some(memory), Some(serving), false) = (
            &subscription.memory,
            &mut subscription.serving,
            self.stopping,
        ) else {
            return false;
        };
        let Some(ranges) = serving.queue.wanted() else {
            return false;
        };
        let mut pages = Vec::new();
        let mut room = LOAD_SIZE;
        for (first, last) in ranges {
            let page = memory.page(first.previous(), last, room);
            room = room.saturating_sub(page.frames.len());
            pages.push(((first, last), page));
            if room == 0 {
                break;
            }
        }
        let log = subscription.log;
        self.load(id, log, pages);
        true
    }

    /// What is to be read: each is answered by [`loaded`](Self::loaded).
    pub fn take_loads(&mut self) -> Vec<QueueLoad> {
        std::mem::take(&mut self.loads)
    }

    /// What was read of a queue's log, in the order of the ranges, as far as it went; `None` if it can't be read.
    pub fn loaded(
        &mut self,
        subscription: SubscriptionId,
        log: LogNumber,
        pages: Option<Vec<(Range, Page)>>,
    ) {
        match pages {
            Some(pages) => self.load(subscription, log, pages),
            None => {
                if let Some(known) = self.subscriptions.get_mut(&subscription)
                    && known.log == log
                    && let Some(serving) = &mut known.serving
                {
                    serving.queue.load_failed(self.uptime);
                    self.schedule(subscription);
                }
                return;
            }
        }
        self.dispatch(subscription);
        self.seal_if_large();
    }

    fn load(&mut self, id: SubscriptionId, log: LogNumber, pages: Vec<(Range, Page)>) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        let Some(serving) = subscription
            .serving
            .as_mut()
            .filter(|_| subscription.log == log)
        else {
            return;
        };
        let dead = serving.queue.load(pages, self.uptime);
        let (mut is_any_moved, mut stuck) = (false, None);
        for dead in dead {
            let moved = self.bury(id, &dead);
            let subscription = self.subscriptions.get_mut(&id);
            let Some(serving) = subscription.and_then(|known| known.serving.as_mut()) else {
                return;
            };
            match moved {
                Ok(()) => {
                    serving.queue.moved(dead.sequence);
                    self.figures.buried(dead.reason);
                    is_any_moved = true;
                }
                // Another may be smaller, or be there already.
                Err(error) => stuck = stuck.or(Some(error)),
            }
        }
        let subscription = self.subscriptions.get_mut(&id);
        let Some(serving) = subscription.and_then(|known| known.serving.as_mut()) else {
            return;
        };
        match stuck {
            None if is_any_moved => serving.is_stuck = false,
            None => {}
            Some(error) => {
                if !is_any_moved {
                    serving.queue.not_moved(self.uptime);
                }
                if !std::mem::replace(&mut serving.is_stuck, true) {
                    log::warn!("a dead letter of {id} has to wait: {}", error.message);
                }
            }
        }
    }
}

/// Writing down.
impl Broker {
    /// Sees to it that what changed of a queue is written with the batch that is being filled, and that its time comes.
    pub(super) fn note(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        self.figures.recount(subscription);
        let Some(serving) = &mut subscription.serving else {
            return;
        };
        if subscription.memory.is_some() {
            // Nothing of it outlives the process.
            if serving.queue.progress().has_changed() {
                serving.queue.progress_mut().take_changes();
            }
        } else if serving.queue.progress().has_changed() {
            self.note_for_batch(id);
        }
        self.schedule(id);
    }

    /// What of a queue is not written, or not known to be readable, is looked at when the batch is sealed.
    pub(super) fn note_for_batch(&mut self, id: SubscriptionId) {
        if let Some(subscription) = self.subscriptions.get_mut(&id)
            && let Some(serving) = &mut subscription.serving
            && !std::mem::replace(&mut serving.is_noted, true)
        {
            self.noted.push(id);
        }
    }

    /// Adds the changes of all queues to the batch, which is sealed then.
    pub(super) fn write_notes(&mut self) {
        for id in std::mem::take(&mut self.noted) {
            let Some(subscription) = self.subscriptions.get_mut(&id) else {
                continue;
            };
            let Some(serving) = &mut subscription.serving else {
                continue;
            };
            serving.is_noted = false;
            if !self.available {
                // It is never written.
                continue;
            }
            for change in serving.queue.progress_mut().take_changes() {
                let record = state::queue_change(subscription.log, &change);
                self.building.note(record);
            }
            let (log, last) = (subscription.log, subscription.last);
            if serving.queue.readable() < last {
                let batch = self.building.number();
                self.unreadable.push_back((batch, id, log, last));
            }
        }
    }

    /// What batches up to `number` brought can be read now.
    pub(super) fn make_readable(&mut self, number: u64) {
        while let Some(&(batch, id, log, last)) = self.unreadable.front()
            && batch <= number
        {
            self.unreadable.pop_front();
            if let Some(subscription) = self.subscriptions.get_mut(&id)
                && subscription.log == log
                && let Some(serving) = &mut subscription.serving
            {
                serving.queue.set_readable(last);
                self.dispatch(id);
            }
        }
    }
}

/// Time.
impl Broker {
    /// It is `now`, and so many milliseconds since the process began: leases go by the latter, which never jumps.
    pub fn set_clock(&mut self, now: Timestamp, uptime: u64) {
        self.now = now;
        self.uptime = uptime;
    }

    /// When [`expire_leases`](Self::expire_leases) is to be called, in milliseconds since the process began.
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Looks after the queues whose time has come.
    pub fn expire_leases(&mut self) {
        while let Some(&(at, id)) = self.due.first()
            && at <= self.uptime
        {
            self.due.pop_first();
            if let Some(subscription) = self.subscriptions.get_mut(&id)
                && let Some(serving) = &mut subscription.serving
                && serving.due == Some(at)
            {
                serving.due = None;
                serving.queue.expire(self.uptime);
                self.dispatch(id);
            }
        }
        self.seal_if_large();
    }

    fn schedule(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        if let Some(serving) = &mut subscription.serving
            && let Some(at) = serving.queue.next_due()
            && serving.due.is_none_or(|due| at < due)
        {
            // Of the one before nothing comes but a look that finds nothing.
            if let Some(due) = serving.due.replace(at) {
                self.due.remove(&(due, id));
            }
            self.due.insert((at, id));
        }
    }
}

impl BrokerLimits {
    /// What a Queue with these settings is held to.
    pub(super) fn rules(&self, settings: &Settings) -> QueueRules {
        QueueRules {
            ack_timeout: settings.ack_timeout(),
            max_deliveries: settings.max_deliveries(),
            unwritten: self.outbox_size,
        }
    }
}
