//! Queues: how taking part begins, goes on after a reconnect and ends; what is delivered; and who still holds what.
//!
//! Invariants:
//! * A lease is of one connection. What is asked of it behind that connection is answered as lost, and not sent.
//! * Nothing of an earlier connection waits to be taken.
//! * A redelivery is a delivery: nothing is dropped for its sequence.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use super::{
    Core, Purpose, Reply, SubscriberKey, answer, subscriber::State, subscribing::pause_after,
};
use crate::{
    client::{
        Closed, Lease, Rejection, RequestError, Settlement, SubscribeError, deliveries::Deliveries,
    },
    protocol::{
        Acknowledge, Acknowledged, ClientCommand, ErrorCode, Extend, Kind, PublicationId,
        ReceivedPublication, Reject, RequestId, ServerResponse, Settled, Subscribe, SubscriptionId,
        SubscriptionReference, Welcome,
    },
};

/// How long what a resumed session has leased waits for the application to ask for it. Then the Queue is given up, so that others get what
/// nobody works on here.
const UNCLAIMED: Duration = Duration::from_secs(1);

/// What the application asked for.
#[derive(Clone, Debug)]
pub(in crate::client) struct QueueWanted {
    pub(in crate::client) subscription: SubscriptionReference,
    pub(in crate::client) prefetch: Option<u16>,
}

/// The session takes part.
#[derive(Debug)]
pub(in crate::client) struct QueueBegun {
    pub(in crate::client) key: SubscriberKey,
    pub(in crate::client) prefetch: u16,
    pub(in crate::client) deliveries: Arc<Deliveries>,
}

/// What is to become of leases.
#[derive(Clone, Copy, Debug)]
pub(in crate::client) enum Settling {
    Acknowledge,
    Reject(Rejection),
    Extend,
}

#[derive(Debug)]
pub(super) struct QueueSubscriber {
    key: SubscriberKey,
    wanted: QueueWanted,
    /// Who waits for the first `Subscribed`.
    reply: Option<Reply<QueueBegun, SubscribeError>>,
    /// Never `Behind`: the prefetch bounds what comes.
    state: State,
    /// Whether the server delivers to it on this connection.
    is_served: bool,
    /// Of one that nobody has asked for yet: until when somebody may.
    unclaimed_until: Option<Instant>,
    deliveries: Arc<Deliveries>,
}

impl QueueSubscriber {
    /// Whether the application has it, or waits for it.
    fn is_claimed(&self) -> bool {
        let is_given_up = self.reply.as_ref().is_some_and(oneshot::Sender::is_closed);
        self.unclaimed_until.is_none() && !is_given_up
    }

    fn has_begun(&self) -> bool {
        self.reply.is_none()
    }

    fn disconnected(&mut self) {
        self.state = State::Waiting(None);
        self.is_served = false;
        self.deliveries.clear();
    }

    pub(super) fn end(mut self, error: Option<SubscribeError>) {
        match self.reply.take() {
            Some(reply) => answer(reply, Err(error.unwrap_or(Closed::ByClient.into()))),
            None => self.deliveries.end(error),
        }
    }
}

impl Core {
    pub(super) fn subscribe_queue(
        &mut self,
        wanted: QueueWanted,
        reply: Reply<QueueBegun, SubscribeError>,
    ) {
        if self.closing {
            answer(reply, Err(Closed::ByClient.into()));
            return;
        }
        let id = wanted.subscription.id;
        if self.holds(id) {
            answer(reply, Err(SubscribeError::AlreadySubscribed));
            return;
        }
        if let Some(held) = self.queues.get_mut(&id) {
            held.wanted = wanted;
            held.reply = Some(reply);
            held.unclaimed_until = None;
        } else {
            let queue = QueueSubscriber {
                key: self.new_key(id),
                wanted,
                reply: Some(reply),
                state: State::Waiting(None),
                is_served: false,
                unclaimed_until: None,
                deliveries: Arc::new(Deliveries::new(u16::MAX)),
            };
            self.queues.insert(id, queue);
        }
        if self.max_message_size.is_some() {
            self.ask_queue(id);
        }
    }

    /// Whether the application takes part in the Queue `id`.
    pub(super) fn holds_queue(&self, id: SubscriptionId) -> bool {
        self.queues
            .get(&id)
            .is_some_and(QueueSubscriber::is_claimed)
    }

    fn queue(&mut self, key: SubscriberKey) -> Option<&mut QueueSubscriber> {
        self.queues
            .get_mut(&key.subscription)
            .filter(|queue| queue.key == key)
    }

    fn ask_queue(&mut self, id: SubscriptionId) {
        let Some(queue) = self.queues.get(&id) else {
            return;
        };
        let key = queue.key;
        let command = ClientCommand::Subscribe(Subscribe {
            subscription: queue.wanted.subscription.clone(),
            kind: Some(Kind::Queue),
            from: None,
            epoch: None,
            prefetch: queue.wanted.prefetch,
        });
        let request = self.send(command, Purpose::SubscribeQueue(key));
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.state = State::Asking(request);
        }
    }

    pub(super) fn queue_subscribed(
        &mut self,
        key: SubscriberKey,
        request: RequestId,
        response: ServerResponse,
        now: Instant,
    ) {
        let Some(queue) = self.queue(key) else {
            return;
        };
        if queue.state != State::Asking(request) {
            return;
        }
        match response {
            ServerResponse::Subscribed(subscribed) => {
                queue.state = State::Live;
                queue.is_served = true;
                let prefetch = subscribed.prefetch.unwrap_or(u16::MAX);
                queue.deliveries.set_bound(prefetch);
                let begun = QueueBegun {
                    key,
                    prefetch,
                    deliveries: Arc::clone(&queue.deliveries),
                };
                if let Some(reply) = queue.reply.take()
                    && reply.send(Ok(begun)).is_err()
                {
                    self.queue_released(key);
                }
            }
            ServerResponse::Error(error) if error.code == ErrorCode::ShuttingDown => {
                queue.state = State::Waiting(None);
            }
            ServerResponse::Error(error) if error.temporary && queue.has_begun() => {
                queue.state = State::Waiting(Some(now + pause_after(Some(&error))));
            }
            ServerResponse::Error(error) => {
                if let Some(queue) = self.queues.remove(&key.subscription) {
                    queue.end(Some(SubscribeError::Refused(*error)));
                }
            }
            other => {
                log::warn!("Subscribe was answered with {other:?}");
                queue.state = State::Waiting(Some(now + pause_after(None)));
            }
        }
    }

    /// Whether it was of a Queue that is served on this connection.
    pub(super) fn delivered(
        &mut self,
        publication: ReceivedPublication,
    ) -> Option<ReceivedPublication> {
        let Some(queue) = self
            .queues
            .get(&publication.subscription_id)
            .filter(|queue| queue.is_served)
        else {
            return Some(publication);
        };
        let lease = Lease {
            publication_id: publication.publication_id,
            connection: self.connection,
        };
        queue.deliveries.push(lease, publication);
        self.progressed = true;
        None
    }

    /// Takes part again on a connection that has just begun.
    pub(super) fn resume_queues(&mut self, welcome: &Welcome, now: Instant) {
        let is_restored = |id: SubscriptionId| {
            let mut restored = welcome.subscriptions.iter();
            restored.any(|restored| restored.subscription_id == id && restored.kind == Kind::Queue)
        };
        let ids: Vec<_> = self.queues.keys().copied().collect();
        for id in ids {
            let is_restored = is_restored(id);
            let Some(queue) = self.queues.get_mut(&id) else {
                continue;
            };
            if queue.has_begun() && !is_restored && self.durable && welcome.resumed {
                self.queue_deleted(id);
                continue;
            }
            queue.is_served = is_restored;
            self.ask_queue(id);
        }
        for restored in &welcome.subscriptions {
            let id = restored.subscription_id;
            if restored.kind == Kind::Queue && !self.queues.contains_key(&id) {
                let queue = QueueSubscriber {
                    key: self.new_key(id),
                    wanted: QueueWanted {
                        subscription: id.into(),
                        prefetch: None,
                    },
                    reply: None,
                    state: State::Live,
                    is_served: true,
                    unclaimed_until: Some(now + UNCLAIMED),
                    deliveries: Arc::new(Deliveries::new(u16::MAX)),
                };
                self.queues.insert(id, queue);
            }
        }
    }

    pub(super) fn queues_disconnected(&mut self) {
        self.queues
            .retain(|_, queue| queue.unclaimed_until.is_none());
        for queue in self.queues.values_mut() {
            queue.disconnected();
        }
    }

    /// When something has to be tried again, or given up.
    pub(super) fn next_retry_of_queues(&self) -> Option<Instant> {
        let retries = self.queues.values().filter_map(|queue| match queue.state {
            State::Waiting(retry) => retry,
            _ => queue.unclaimed_until,
        });
        retries.min()
    }

    pub(super) fn retry_queues(&mut self, now: Instant) {
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        let mut again = Vec::new();
        let mut given_up = Vec::new();
        for (id, queue) in &self.queues {
            match queue.state {
                State::Waiting(retry) if is_due(retry) => again.push(*id),
                _ if is_due(queue.unclaimed_until) => given_up.push(queue.key),
                _ => {}
            }
        }
        again.into_iter().for_each(|id| self.ask_queue(id));
        given_up
            .into_iter()
            .for_each(|key| self.queue_released(key));
    }

    pub(super) fn queue_deleted(&mut self, id: SubscriptionId) {
        // One that has not begun is made again by the `Subscribe` that is on its way.
        if self.queues.get(&id).is_some_and(QueueSubscriber::has_begun)
            && let Some(queue) = self.queues.remove(&id)
        {
            queue.end(Some(SubscribeError::Deleted));
        }
    }

    /// Nobody works here any more. A durable session gives the Queue up too: there is no position in it to come back to, and what is
    /// leased is wanted by others.
    pub(super) fn queue_released(&mut self, key: SubscriberKey) {
        if self.queue(key).is_none() {
            return;
        }
        if let Some(queue) = self.queues.remove(&key.subscription) {
            let reference = queue.wanted.subscription.clone();
            queue.end(None);
            if self.max_message_size.is_some() {
                self.send(ClientCommand::Unsubscribe(reference), Purpose::Aside);
            }
        }
    }

    pub(super) fn settle(
        &mut self,
        subscription: SubscriptionReference,
        leases: Vec<Lease>,
        how: Settling,
        reply: Reply<Settlement, RequestError>,
        permit: OwnedSemaphorePermit,
    ) {
        if self.closing {
            answer(reply, Err(Closed::ByClient.into()));
            return;
        }
        let is_held =
            |lease: &Lease| self.max_message_size.is_some() && lease.connection == self.connection;
        let (held, lost): (Vec<_>, Vec<_>) = leases.into_iter().partition(is_held);
        let ids = |leases: Vec<Lease>| -> Vec<PublicationId> {
            leases.iter().map(Lease::publication_id).collect()
        };
        let (ids, lost) = (ids(held), ids(lost));
        if ids.is_empty() {
            answer(reply, Ok(Settlement { count: 0, lost }));
            return;
        }
        let command = how.command(subscription, ids.clone());
        let purpose = Purpose::Settle {
            reply,
            permit,
            ids,
            lost,
        };
        self.send(command, purpose);
    }
}

impl Settling {
    fn command(
        self,
        subscription: SubscriptionReference,
        publication_ids: Vec<PublicationId>,
    ) -> ClientCommand {
        match self {
            Self::Acknowledge => ClientCommand::Acknowledge(Acknowledge {
                subscription,
                what: Acknowledged::Ids(publication_ids),
            }),
            Self::Reject(rejection) => ClientCommand::Reject(Reject {
                subscription,
                publication_ids,
                delay: match rejection {
                    Rejection::After(delay) => {
                        Some(delay.as_millis().try_into().unwrap_or(u64::MAX))
                    }
                    Rejection::AtOnce | Rejection::DeadLetter => None,
                },
                dead_letter: rejection == Rejection::DeadLetter,
            }),
            Self::Extend => ClientCommand::Extend(Extend {
                subscription,
                publication_ids,
            }),
        }
    }
}

/// What came of leases of which `lost` were known to be lost.
pub(super) fn settled(
    response: ServerResponse,
    mut lost: Vec<PublicationId>,
) -> Result<Settlement, RequestError> {
    match response {
        ServerResponse::Acknowledged(settled)
        | ServerResponse::Rejected(settled)
        | ServerResponse::Extended(settled) => {
            let Settled {
                count, lost: more, ..
            } = settled;
            lost.extend(more.unwrap_or_default());
            Ok(Settlement { count, lost })
        }
        ServerResponse::Error(error) => Err(RequestError::Refused(*error)),
        other => Err(RequestError::unexpected(&other)),
    }
}
