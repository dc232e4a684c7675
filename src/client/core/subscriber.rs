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

use std::sync::Arc;

use tokio::time::Instant;

use super::{Begun, Reply, SubscriberKey, Wanted, answer};
use crate::{
    client::{
        Closed, Event, NotRecovered, SubscribeError,
        buffer::{Buffer, Place},
    },
    protocol::{
        Acknowledge, Acknowledged, ClientCommand, Epoch, Kind, RequestId, RestoredSubscription,
        Sequence, Subscribe, SubscribeFrom, Subscribed, SubscriptionId, SubscriptionReference,
    },
};

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) key: SubscriberKey,
    pub(super) wanted: Wanted,
    /// Whether the application has the stream.
    pub(super) is_claimed: bool,
    /// Who waits for the first `Subscribed`.
    pub(super) reply: Option<Reply<Begun, SubscribeError>>,
    pub(super) state: State,
    /// The last sequence that went into the buffer; `None` until the first `Subscribed`.
    pub(super) place: Option<Place>,
    /// Where a durable session resumes in the server's view, as far as this client knows.
    pub(super) acknowledged: Sequence,
    pub(super) is_acknowledging: bool,
    pub(super) buffer: Arc<Buffer>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum State {
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

    pub(super) fn begin(&mut self, place: Place) {
        self.place = Some(place);
        self.acknowledged = place.sequence;
    }

    /// Begins where the server has taken a durable session up again: publications come from there without asking.
    pub(super) fn take_up(&mut self, restored: &RestoredSubscription) {
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
    pub(super) fn answer(&mut self) -> bool {
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
    pub(super) fn not_recovered(&mut self, previous: Option<Place>, place: Place) {
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

    /// Moves to where the server says that delivery begins. `true` if its epoch has ended.
    pub(super) fn place_after(&mut self, subscribed: &Subscribed) -> bool {
        let place = Place {
            epoch: subscribed.epoch,
            sequence: subscribed.cursor.unwrap_or(subscribed.last_sequence),
        };
        match self.place {
            // Recovered; or retention took something behind the cursor, of which a `Gap` tells next.
            Some(previous) if previous == place => false,
            Some(previous) => {
                self.not_recovered(Some(previous), place);
                previous.epoch != place.epoch
            }
            None => {
                let epoch = self.wanted.epoch.unwrap_or(place.epoch);
                let asked = match self.wanted.from {
                    Some(SubscribeFrom::After(sequence)) => Some(Place { epoch, sequence }),
                    _ => None,
                };
                if subscribed.recovered || asked == Some(place) {
                    self.begin(place);
                } else {
                    self.not_recovered(asked, place);
                }
                false
            }
        }
    }
}

pub(super) fn subscribe(
    subscription: SubscriptionReference,
    from: Option<SubscribeFrom>,
    epoch: Option<Epoch>,
) -> ClientCommand {
    ClientCommand::Subscribe(Subscribe {
        subscription,
        // What a Queue delivers would be leased, and never given back.
        kind: Some(Kind::Broadcast),
        from,
        epoch,
        prefetch: None,
    })
}

pub(super) fn acknowledge(id: SubscriptionId, sequence: Sequence) -> ClientCommand {
    ClientCommand::Acknowledge(Acknowledge {
        subscription: SubscriptionReference { id, name: None },
        what: Acknowledged::UpTo(sequence),
    })
}
