//! Where each subscription of the application stands, and how it goes on after a reconnect.
//!
//! ```text
//!             Subscribed                      buffer full
//!  Waiting ──> Asking ──────────────> Live ───────────────> Behind
//!     ^          ^ ^                   │                      │ half of the buffer is free
//!     │          │ └───────────────────┼──────────────────────┘
//!     └──────────┴── connection ends ──┘
//! ```
//!
//! A subscription that is behind gets nothing: what comes for it is dropped, and asked for again from its cursor when there is room.
//! That costs sending some twice, and means that a slow reader costs bounded memory, holds up no other subscription, no
//! answer and no heartbeat, and misses nothing. A transient session unsubscribes meanwhile. A durable one stays subscribed, at the end of the
//! log, with what was acknowledged acknowledged again, so that a crash loses nothing either.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Begun, Core, Purpose, Reply, Stalled, SubscriberKey, Wanted, answer, unexplained_gap};
use crate::{
    client::{
        Closed, Event, Gap, NotRecovered, RequestError, SubscribeError,
        buffer::{Buffer, Place},
    },
    protocol::{
        self, Acknowledge, Acknowledged, ClientCommand, Epoch, ErrorCode, ReceivedPublication,
        RequestId, RestoredSubscription, Sequence, ServerError, ServerResponse, Subscribe,
        SubscribeFrom, Subscribed, SubscriptionId, SubscriptionReference, Welcome,
    },
};

/// The pause before a resumption is tried again that failed for a time, unless the server says another.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Subscriber {
    key: SubscriberKey,
    wanted: Wanted,
    /// Whether the application has the stream.
    is_claimed: bool,
    /// Who waits for the first `Subscribed`.
    reply: Option<Reply<Begun, SubscribeError>>,
    state: State,
    /// The last sequence that went into the buffer; `None` until the first `Subscribed`.
    place: Option<Place>,
    /// Where a durable session resumes in the server's view, as far as this client knows.
    acknowledged: Sequence,
    is_acknowledging: bool,
    pub(super) buffer: Arc<Buffer>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    /// For a connection, or for the time to try again.
    Waiting(Option<Instant>),
    /// For the answer to this request.
    Asking(RequestId),
    Live,
    Behind,
}

impl Subscriber {
    pub(super) fn subscription(&self) -> SubscriptionId {
        self.key.subscription
    }

    pub(super) fn disconnected(&mut self) {
        self.is_acknowledging = false;
        if self.state != State::Behind {
            self.state = State::Waiting(None);
        }
    }

    pub(super) fn end(&mut self, error: Option<SubscribeError>) {
        if let Some(reply) = self.reply.take() {
            answer(
                reply,
                Err(error.unwrap_or(SubscribeError::Closed(Closed::ByClient))),
            );
        } else {
            self.buffer.end(error);
        }
    }

    /// Notes an acknowledgement of the application. `false` if it is of an epoch that has ended.
    pub(super) fn acknowledged_by_hand(
        &mut self,
        epoch: Option<Epoch>,
        sequence: Sequence,
    ) -> bool {
        if let (Some(epoch), Some(place)) = (epoch, self.place)
            && epoch != place.epoch
        {
            return false;
        }
        // What is above the cursor the server refuses.
        if self.place.is_some_and(|place| sequence <= place.sequence) {
            self.acknowledged = self.acknowledged.max(sequence);
        }
        true
    }

    fn begin(&mut self, place: Place) {
        self.place = Some(place);
        self.acknowledged = place.sequence;
    }

    /// Begins where the server has taken a durable session up again: publications come from there without asking.
    fn take_up(&mut self, restored: &RestoredSubscription) {
        let place = Place {
            epoch: restored.epoch,
            sequence: restored.cursor,
        };
        self.state = State::Live;
        if restored.recovered {
            self.begin(place);
        } else {
            self.not_recovered(None, place);
        }
    }

    /// Tells the application, if it waits, that the subscription has begun. `false` if it does not want it any more.
    fn answer(&mut self) -> bool {
        let (Some(reply), Some(place)) = (self.reply.take(), self.place) else {
            return true;
        };
        let begun = Begun {
            key: self.key,
            // What is in the buffer follows what is acknowledged.
            place: Place {
                sequence: self.acknowledged,
                ..place
            },
            buffer: Arc::clone(&self.buffer),
        };
        reply.send(Ok(begun)).is_ok()
    }

    /// Goes on from `place`, which is not where the cursor was.
    fn not_recovered(&mut self, previous: Option<Place>, place: Place) {
        self.begin(place);
        self.buffer.push(
            place,
            Event::NotRecovered(NotRecovered {
                previous: previous.map(|previous| (previous.epoch, previous.sequence)),
                epoch: place.epoch,
                cursor: place.sequence,
            }),
        );
    }
}

impl Core {
    pub(super) fn subscribe(&mut self, wanted: Wanted, reply: Reply<Begun, SubscribeError>) {
        if self.closing {
            answer(reply, Err(Closed::ByClient.into()));
            return;
        }
        let id = wanted.subscription.id;
        if let Some(held) = self.subscribers.get_mut(&id) {
            if held.is_claimed {
                answer(reply, Err(SubscribeError::AlreadySubscribed));
                return;
            }
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

    fn new_key(&mut self, subscription: SubscriptionId) -> SubscriberKey {
        let number = self.next_number;
        self.next_number += 1;
        SubscriberKey {
            subscription,
            number,
        }
    }

    fn subscriber(&mut self, key: SubscriberKey) -> Option<&mut Subscriber> {
        self.subscribers
            .get_mut(&key.subscription)
            .filter(|subscriber| subscriber.key == key)
    }

    /// Sends the `Subscribe` that takes the subscription up where it stands.
    fn ask(&mut self, id: SubscriptionId) {
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

    fn acknowledge_aside(&mut self, id: SubscriptionId, sequence: Sequence) {
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
                let has_ended = place_after(subscriber, &subscribed);
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
            let pause = error.retry_after.map_or(RETRY, Duration::from_millis);
            subscriber.state = State::Waiting(Some(now + pause));
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
    fn epoch_ended(&mut self, id: SubscriptionId) {
        let is_stale = |command: &ClientCommand| matches!(command, ClientCommand::Acknowledge(acknowledge) if acknowledge.subscription.id == id);
        self.requests.refuse(is_stale, &RequestError::EpochEnded);
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            subscriber.acknowledged = Sequence::ZERO;
        }
    }

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
    fn leave_the_stream(&mut self, id: SubscriptionId, is_held: bool) {
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
    fn acknowledge_done(&mut self, key: SubscriberKey) {
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

    pub(super) fn deleted(&mut self, id: SubscriptionId) {
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
            if self.stalls(id) {
                self.give_way();
            }
            if let Some(subscriber) = self.subscriber(key) {
                subscriber.is_claimed = false;
                subscriber.wanted.acknowledges = false;
            }
        } else if let Some(subscriber) = self.subscribers.remove(&id) {
            let is_held = matches!(subscriber.state, State::Live | State::Asking(_));
            let reference = subscriber.wanted.subscription.clone();
            self.forget(subscriber);
            if is_held {
                self.send(ClientCommand::Unsubscribe(reference), Purpose::Aside);
            }
        }
    }

    pub(super) fn stalls(&self, id: SubscriptionId) -> bool {
        self.stalled
            .as_ref()
            .is_some_and(|stalled| stalled.publication.subscription_id == id)
    }
}

/// Moves the subscriber to where the server says that delivery begins. `true` if its epoch has ended.
fn place_after(subscriber: &mut Subscriber, subscribed: &Subscribed) -> bool {
    let place = Place {
        epoch: subscribed.epoch,
        sequence: subscribed.cursor.unwrap_or(subscribed.last_sequence),
    };
    match subscriber.place {
        // Recovered; or retention took something behind the cursor, of which a `Gap` tells next.
        Some(previous) if previous == place => false,
        Some(previous) => {
            subscriber.not_recovered(Some(previous), place);
            previous.epoch != place.epoch
        }
        None => {
            let epoch = subscriber.wanted.epoch.unwrap_or(place.epoch);
            let asked = match subscriber.wanted.from {
                Some(SubscribeFrom::After(sequence)) => Some(Place { epoch, sequence }),
                _ => None,
            };
            if subscribed.recovered || asked == Some(place) {
                subscriber.begin(place);
            } else {
                subscriber.not_recovered(asked, place);
            }
            false
        }
    }
}

fn subscribe(
    subscription: SubscriptionReference,
    from: Option<SubscribeFrom>,
    epoch: Option<Epoch>,
) -> ClientCommand {
    ClientCommand::Subscribe(Subscribe {
        subscription,
        kind: None,
        from,
        epoch,
        prefetch: None,
    })
}

fn acknowledge(id: SubscriptionId, sequence: Sequence) -> ClientCommand {
    ClientCommand::Acknowledge(Acknowledge {
        subscription: SubscriptionReference { id, name: None },
        what: Acknowledged::UpTo(sequence),
    })
}
