//! How subscriptions begin, go on after a reconnect, and end.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Begun, Core, Purpose, Reply, SubscriberKey, Wanted, answer,
    subscriber::{State, Subscriber, acknowledge, subscribe},
};
use crate::{
    client::{Closed, Event, RequestError, SubscribeError, buffer::Buffer},
    protocol::{
        self, ClientCommand, ErrorCode, RequestId, RestoredSubscription, Sequence, ServerError,
        ServerResponse, SubscribeFrom, SubscriptionId, SubscriptionReference, Welcome,
    },
};

/// The pause before a resumption is tried again that failed for a time, unless the server says another.
const RETRY: Duration = Duration::from_secs(1);

pub(super) fn pause_after(error: Option<&ServerError>) -> Duration {
    error
        .and_then(|error| error.retry_after)
        .map_or(RETRY, Duration::from_millis)
}

impl Core {
    pub(super) fn subscribe(&mut self, wanted: Wanted, reply: Reply<Begun, SubscribeError>) {
        if self.closing {
            answer(reply, Err(Closed::ByClient.into()));
            return;
        }
        let id = wanted.subscription.id;
        if self.holds(id) {
            answer(reply, Err(SubscribeError::AlreadySubscribed));
            return;
        }
        if let Some(held) = self.subscribers.get_mut(&id) {
            if wanted.from.is_none() && held.place.is_some() {
                held.is_claimed = true;
                held.wanted = wanted;
                held.reply = Some(reply);
                let key = held.key;
                if !held.answer() {
                    self.released(key);
                }
                return;
            }
            self.subscribers.remove(&id);
        }
        let key = self.new_key(id);
        let subscriber = Subscriber {
            key,
            buffer: Arc::new(Buffer::new(wanted.bound)),
            wanted,
            is_claimed: true,
            reply: Some(reply),
            state: State::Waiting(None),
            place: None,
            acknowledged: Sequence::ZERO,
            is_acknowledging: false,
        };
        self.subscribers.insert(id, subscriber);
        if self.max_message_size.is_some() {
            self.ask(id);
        }
    }

    /// Whether the application has the subscription `id`, of whatever kind, or waits for it.
    pub(super) fn holds(&self, id: SubscriptionId) -> bool {
        let is_held = |held: &Subscriber| {
            let is_given_up = held.reply.as_ref().is_some_and(oneshot::Sender::is_closed);
            held.is_claimed && !is_given_up
        };
        self.subscribers.get(&id).is_some_and(is_held) || self.holds_queue(id)
    }

    pub(super) fn new_key(&mut self, subscription: SubscriptionId) -> SubscriberKey {
        let number = self.next_number;
        self.next_number += 1;
        SubscriberKey {
            subscription,
            number,
        }
    }

    pub(super) fn subscriber(&mut self, key: SubscriberKey) -> Option<&mut Subscriber> {
        self.subscribers
            .get_mut(&key.subscription)
            .filter(|subscriber| subscriber.key == key)
    }

    /// Sends the `Subscribe` that takes the subscription up where it stands.
    pub(super) fn ask(&mut self, id: SubscriptionId) {
        let Some(subscriber) = self.subscribers.get(&id) else {
            return;
        };
        let (from, epoch) = match subscriber.place {
            Some(place) => (
                Some(SubscribeFrom::After(place.sequence)),
                Some(place.epoch),
            ),
            None => (subscriber.wanted.from, subscriber.wanted.epoch),
        };
        let (key, acknowledged) = (subscriber.key, subscriber.acknowledged);
        let is_resumption = subscriber.place.is_some();
        let subscription = subscriber.wanted.subscription.clone();
        let command = subscribe(subscription, from, epoch);
        let request = self.send(command, Purpose::Subscribe(key));
        // `from` made the server forget what was acknowledged.
        if is_resumption {
            self.acknowledge_aside(id, acknowledged);
        }
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            subscriber.state = State::Asking(request);
        }
    }

    pub(super) fn acknowledge_aside(&mut self, id: SubscriptionId, sequence: Sequence) {
        if self.durable && sequence > Sequence::ZERO {
            self.send(acknowledge(id, sequence), Purpose::Aside);
        }
    }

    pub(super) fn subscribed(
        &mut self,
        key: SubscriberKey,
        request: RequestId,
        response: ServerResponse,
        now: Instant,
    ) {
        let Some(subscriber) = self.subscriber(key) else {
            return;
        };
        if subscriber.state != State::Asking(request) {
            return;
        }
        match response {
            ServerResponse::Subscribed(subscribed) => {
                subscriber.state = State::Live;
                let has_ended = subscriber.place_after(&subscribed);
                if !subscriber.answer() {
                    self.released(key);
                    return;
                }
                if has_ended {
                    self.epoch_ended(key.subscription);
                }
                self.acknowledge_done(key);
            }
            ServerResponse::Error(error) => self.not_subscribed(key, *error, now),
            other => {
                log::warn!("Subscribe was answered with {other:?}");
                subscriber.state = State::Waiting(Some(now + RETRY));
            }
        }
    }

    fn not_subscribed(&mut self, key: SubscriberKey, error: ServerError, now: Instant) {
        let Some(subscriber) = self.subscriber(key) else {
            return;
        };
        if error.code == ErrorCode::ShuttingDown {
            subscriber.state = State::Waiting(None);
        } else if error.temporary && subscriber.reply.is_none() {
            subscriber.state = State::Waiting(Some(now + pause_after(Some(&error))));
        } else if let Some(mut subscriber) = self.subscribers.remove(&key.subscription) {
            subscriber.end(Some(SubscribeError::Refused(error)));
        }
    }

    /// When something has to be tried again.
    pub(in crate::client) fn next_retry(&self) -> Option<Instant> {
        self.max_message_size?;
        self.subscribers
            .values()
            .filter_map(|subscriber| match subscriber.state {
                State::Waiting(retry) => retry,
                _ => None,
            })
            .chain(self.next_retry_of_queues())
            .min()
    }

    /// Tries again what has waited long enough.
    pub(in crate::client) fn retry(&mut self, now: Instant) {
        let due: Vec<_> = self
            .subscribers
            .iter()
            .filter(|(_, subscriber)| {
                matches!(subscriber.state, State::Waiting(Some(retry)) if retry <= now)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.ask(id);
        }
        self.retry_queues(now);
    }

    /// Takes every subscription up again on a connection that has just begun.
    pub(super) fn resume_subscribers(&mut self, welcome: &Welcome) {
        let restored = |id: SubscriptionId| {
            welcome
                .subscriptions
                .iter()
                .find(|restored| restored.subscription_id == id)
        };
        let ids: Vec<_> = self.subscribers.keys().copied().collect();
        for id in ids {
            self.resume(id, restored(id), welcome.resumed);
        }
        for restored in &welcome.subscriptions {
            if restored.kind == protocol::Kind::Broadcast {
                self.hold_unclaimed(restored);
            }
        }
    }

    fn resume(
        &mut self,
        id: SubscriptionId,
        restored: Option<&RestoredSubscription>,
        was_resumed: bool,
    ) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return;
        };
        let (place, state) = (subscriber.place, subscriber.state);
        let is_wanted = state != State::Behind || subscriber.buffer.is_low();
        match (place, restored) {
            (Some(_), None) if self.durable && was_resumed => {
                self.deleted(id);
                return;
            }
            (Some(_), None) => {
                // Whether the epoch is still the same will be known too late to acknowledge in it.
                subscriber.acknowledged = Sequence::ZERO;
                self.epoch_ended(id);
            }
            (None, Some(restored)) if subscriber.wanted.from.is_none() => {
                subscriber.take_up(restored);
                let key = subscriber.key;
                if !subscriber.answer() {
                    self.released(key);
                }
                return;
            }
            (Some(place), Some(restored)) if restored.epoch != place.epoch => {
                subscriber.acknowledged = Sequence::ZERO;
                self.epoch_ended(id);
            }
            (Some(place), Some(restored)) if restored.cursor <= place.sequence && is_wanted => {
                subscriber.buffer.set_behind(false);
                subscriber.state = State::Live;
                let key = subscriber.key;
                self.acknowledge_done(key);
                return;
            }
            _ => {}
        }
        if is_wanted {
            self.ask(id);
        } else {
            self.leave_the_stream(id, restored.is_some());
        }
    }

    /// A durable session has a subscription that nobody has asked for yet. Its publications come all the same, so they are kept for whoever
    /// will.
    fn hold_unclaimed(&mut self, restored: &RestoredSubscription) {
        let id = restored.subscription_id;
        if self.subscribers.contains_key(&id) {
            return;
        }
        let wanted = Wanted {
            subscription: SubscriptionReference { id, name: None },
            from: None,
            epoch: None,
            bound: self.unclaimed_bound,
            acknowledges: false,
        };
        let mut subscriber = Subscriber {
            key: self.new_key(id),
            buffer: Arc::new(Buffer::new(wanted.bound)),
            wanted,
            is_claimed: false,
            reply: None,
            state: State::Live,
            place: None,
            acknowledged: Sequence::ZERO,
            is_acknowledging: false,
        };
        subscriber.take_up(restored);
        self.subscribers.insert(id, subscriber);
    }

    /// What was acknowledged in an epoch that has ended must not be acknowledged in the next one.
    pub(super) fn epoch_ended(&mut self, id: SubscriptionId) {
        let is_stale = |command: &ClientCommand| matches!(command, ClientCommand::Acknowledge(acknowledge) if acknowledge.subscription.id == id);
        self.requests.refuse(is_stale, &RequestError::EpochEnded);
    }

    pub(super) fn deleted(&mut self, id: SubscriptionId) {
        self.queue_deleted(id);
        // One that has not begun is made again by the `Subscribe` that is on its way.
        let has_begun = |subscriber: &&mut Subscriber| subscriber.reply.is_none();
        if self.subscribers.get_mut(&id).filter(has_begun).is_none() {
            return;
        }
        let Some(mut subscriber) = self.subscribers.remove(&id) else {
            return;
        };
        if let Some(place) = subscriber.place {
            subscriber.buffer.push(place, Event::Deleted);
        }
        subscriber.end(None);
    }

    /// Nobody reads the subscription any more. A durable session keeps it, for whoever asks for it next.
    pub(super) fn released(&mut self, key: SubscriberKey) {
        let id = key.subscription;
        if self.subscriber(key).is_none() {
            return;
        }
        if self.durable {
            self.put_back(key);
        } else if let Some(subscriber) = self.subscribers.remove(&id) {
            let is_held = matches!(subscriber.state, State::Live | State::Asking(_));
            let reference = subscriber.wanted.subscription.clone();
            self.forget(subscriber);
            if is_held {
                self.send(ClientCommand::Unsubscribe(reference), Purpose::Aside);
            }
        }
    }

    /// Keeps the subscription as if it had just been restored: what is not acknowledged comes again.
    fn put_back(&mut self, key: SubscriberKey) {
        let id = key.subscription;
        if self.stalls(id) {
            self.stalled = None;
        }
        let (is_connected, bound) = (self.max_message_size.is_some(), self.unclaimed_bound);
        let Some(subscriber) = self.subscriber(key) else {
            return;
        };
        subscriber.is_claimed = false;
        subscriber.wanted.acknowledges = false;
        subscriber.wanted.bound = bound;
        subscriber.buffer = Arc::new(Buffer::new(bound));
        let acknowledged = subscriber.acknowledged;
        if let Some(place) = &mut subscriber.place {
            place.sequence = acknowledged;
            subscriber.state = State::Waiting(None);
            if is_connected {
                self.ask(id);
            }
        }
    }
}
