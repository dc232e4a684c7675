//! What comes for subscriptions, into their buffers; what a full buffer leads to; and what is acknowledged.

use std::sync::Arc;

use super::{
    Core, Purpose, Stalled, SubscriberKey,
    subscriber::{State, acknowledge, subscribe},
    unexplained_gap,
};
use crate::{
    client::{
        Event, Gap,
        buffer::{Buffer, Place},
    },
    protocol::{
        self, ClientCommand, ReceivedPublication, Sequence, ServerResponse, SubscribeFrom,
        SubscriptionId,
    },
};

impl Core {
    pub(super) fn publication(&mut self, publication: ReceivedPublication) {
        let Some(subscriber) = self.subscribers.get_mut(&publication.subscription_id) else {
            return;
        };
        let Some(place) = subscriber.place else {
            return;
        };
        if subscriber.state != State::Live || publication.sequence <= place.sequence {
            return;
        }
        if subscriber.buffer.is_full() {
            if subscriber.is_claimed {
                self.stalled = Some(Stalled {
                    buffer: Arc::clone(&subscriber.buffer),
                    publication,
                });
            } else {
                let id = publication.subscription_id;
                self.fall_behind(id);
            }
            return;
        }
        let gap = unexplained_gap(place.sequence, publication.sequence);
        let place = Place {
            sequence: publication.sequence,
            ..place
        };
        subscriber.place = Some(place);
        if let Some(gap) = gap {
            subscriber.buffer.push(place, gap);
        }
        subscriber
            .buffer
            .push(place, Event::Publication(publication));
        self.progressed = true;
    }

    /// The buffer that has to get room before anything else is received.
    pub(in crate::client) fn stalled(&self) -> Option<&Arc<Buffer>> {
        self.stalled.as_ref().map(|stalled| &stalled.buffer)
    }

    /// There is room.
    pub(in crate::client) fn unstall(&mut self) {
        if let Some(stalled) = self.stalled.take() {
            self.publication(stalled.publication);
        }
    }

    /// There has been no room for too long.
    pub(in crate::client) fn give_way(&mut self) {
        if let Some(stalled) = self.stalled.take() {
            self.fall_behind(stalled.publication.subscription_id);
        }
    }

    fn fall_behind(&mut self, id: SubscriptionId) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return;
        };
        log::debug!("the reader of {id} is slow: its buffer is full, and it goes on later");
        subscriber.state = State::Behind;
        subscriber.buffer.set_behind(true);
        let key = subscriber.key;
        self.leave_the_stream(id, true);
        // Something may have been taken before the buffer knew that it is behind.
        self.taken(key);
    }

    /// Lets the server send as little as it can of a subscription that is behind.
    pub(super) fn leave_the_stream(&mut self, id: SubscriptionId, is_held: bool) {
        let Some(subscriber) = self.subscribers.get(&id) else {
            return;
        };
        if !is_held {
            return;
        }
        let (acknowledged, reference) = (
            subscriber.acknowledged,
            subscriber.wanted.subscription.clone(),
        );
        if !self.durable {
            self.send(ClientCommand::Unsubscribe(reference), Purpose::Aside);
        } else if acknowledged > Sequence::ZERO {
            let at_the_end = subscribe(reference, Some(SubscribeFrom::New), None);
            self.send(at_the_end, Purpose::Aside);
            self.acknowledge_aside(id, acknowledged);
        }
        // Position 0 can't be acknowledged, so a durable session whose reader has done with nothing yet stays where it is: what
        // comes is dropped.
    }

    pub(super) fn taken(&mut self, key: SubscriberKey) {
        self.acknowledge_done(key);
        let is_connected = self.max_message_size.is_some();
        let Some(subscriber) = self.subscriber(key) else {
            return;
        };
        if subscriber.state == State::Behind && subscriber.buffer.is_low() {
            subscriber.buffer.set_behind(false);
            subscriber.state = State::Waiting(None);
            if is_connected {
                self.ask(key.subscription);
            }
        }
    }

    /// Acknowledges what the application has done with, if it is new; one acknowledgement at a time, so that a fast reader makes few.
    pub(super) fn acknowledge_done(&mut self, key: SubscriberKey) {
        if !self.durable || self.max_message_size.is_none() {
            return;
        }
        let Some(subscriber) = self.subscriber(key) else {
            return;
        };
        if !subscriber.wanted.acknowledges || subscriber.is_acknowledging {
            return;
        }
        let (Some(done), Some(place)) = (subscriber.buffer.done(), subscriber.place) else {
            return;
        };
        if done.epoch != place.epoch || done.sequence <= subscriber.acknowledged {
            return;
        }
        subscriber.acknowledged = done.sequence;
        subscriber.is_acknowledging = true;
        let command = acknowledge(key.subscription, done.sequence);
        self.send(command, Purpose::Acknowledge(key));
    }

    pub(super) fn acknowledged(&mut self, key: SubscriberKey, response: &ServerResponse) {
        if let ServerResponse::Error(error) = response {
            log::warn!("an acknowledgement failed: {error}");
        }
        if let Some(subscriber) = self.subscriber(key) {
            subscriber.is_acknowledging = false;
            self.acknowledge_done(key);
        }
    }

    pub(super) fn gap(&mut self, gap: &protocol::Gap) {
        let Some(subscriber) = self.subscribers.get_mut(&gap.subscription_id) else {
            return;
        };
        let Some(place) = subscriber.place else {
            return;
        };
        if subscriber.state != State::Live || gap.to <= place.sequence {
            return;
        }
        let from = gap.from.max(place.sequence.next());
        let place = Place {
            sequence: gap.to,
            ..place
        };
        subscriber.place = Some(place);
        subscriber.buffer.push(
            place,
            Event::Gap(Gap {
                from,
                to: gap.to,
                cause: gap.cause.into(),
            }),
        );
    }

    pub(super) fn stalls(&self, id: SubscriptionId) -> bool {
        self.stalled
            .as_ref()
            .is_some_and(|stalled| stalled.publication.subscription_id == id)
    }
}
