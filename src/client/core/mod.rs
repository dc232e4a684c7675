//! What a client knows and wants, without I/O: which requests wait for an answer, where each subscription stands, and what has to be
//! said on the connection that there is.
//!
//! Owns request ids, the sending again after a reconnect, and the cursors. Does not own sockets, pauses between connections
//! (`connection`), nor time: whoever calls hands it in.
//!
//! ```text
//!  commands of handles ──> Core ──> outgoing messages
//!  messages received ────>      ──> answers to callers, events into buffers
//! ```
//!
//! Invariants:
//! * Requests are sent, and sent again, in the order of their ids, which is the order in which callers made them.
//! * A request that waits for its answer is sent again on every new connection until it is answered or nobody waits for it.
//!   All of them may come twice: publications carry their id, the others change nothing the second time.
//! * A publication goes into a buffer only if it is the next one behind the subscriber's cursor, or behind a [`Gap`] that says
//!   what is missing.

mod delivery;
mod queue;
mod requests;
mod subscriber;
mod subscribing;

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

pub(super) use self::queue::{QueueBegun, QueueWanted, Settling};
use self::{
    queue::QueueSubscriber,
    requests::{Purpose, Requests},
    subscriber::Subscriber,
};
use super::{
    Closed, Event, Gap, GapCause, Lease, RequestError, Settlement, SubscribeError,
    buffer::{Bound, Buffer, Place},
};
use crate::protocol::{
    Acknowledged, Authenticate, ClientCommand, Epoch, ErrorCode, ReceivedPublication, RequestId,
    Secret, Sequence, ServerError, ServerResponse, SubscribeFrom, SubscriptionId,
    SubscriptionReference, Welcome,
    codec::{Received, ServerMessage},
};

pub(super) type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// What handles and subscriptions ask of the connection's task.
#[derive(Debug)]
pub(super) enum Command {
    /// To be answered once.
    Request {
        command: ClientCommand,
        /// Of an acknowledgement: the epoch that its sequence belongs to, if that is known.
        epoch: Option<Epoch>,
        reply: Reply<ServerResponse, RequestError>,
        permit: OwnedSemaphorePermit,
    },
    Subscribe {
        wanted: Wanted,
        reply: Reply<Begun, SubscribeError>,
    },
    /// Takes part in a Queue.
    SubscribeQueue {
        wanted: QueueWanted,
        reply: Reply<QueueBegun, SubscribeError>,
    },
    /// Leases are to be given up or prolonged.
    Settle {
        subscription: SubscriptionReference,
        leases: Vec<Lease>,
        how: Settling,
        reply: Reply<Settlement, RequestError>,
        permit: OwnedSemaphorePermit,
    },
    /// The application has done with events, or has taken so many that there is room again.
    Taken(SubscriberKey),
    /// Nobody reads the subscription any more.
    Released(SubscriberKey),
    /// Nobody works on the Queue any more.
    QueueReleased(SubscriberKey),
    Close {
        done: oneshot::Sender<()>,
    },
}

/// One subscription of the application. The same subscription, begun again, is another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SubscriberKey {
    pub(super) subscription: SubscriptionId,
    number: u64,
}

/// What the application asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) subscription: SubscriptionReference,
    pub(super) from: Option<SubscribeFrom>,
    pub(super) epoch: Option<Epoch>,
    pub(super) bound: Bound,
    /// Whether what was taken is acknowledged by itself (durable sessions).
    pub(super) acknowledges: bool,
}

/// A subscription that began.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) key: SubscriberKey,
    pub(super) place: Place,
    pub(super) buffer: Arc<Buffer>,
}

/// A publication for which there is no room.
#[derive(Debug)]
pub(super) struct Stalled {
    pub(super) buffer: Arc<Buffer>,
    publication: ReceivedPublication,
}

#[derive(Debug)]
pub(super) struct Core {
    /// Whether the session is durable.
    durable: bool,
    /// Of subscriptions that a resumed session has and that nobody has asked for yet.
    unclaimed_bound: Bound,
    requests: Requests,
    subscribers: HashMap<SubscriptionId, Subscriber>,
    queues: HashMap<SubscriptionId, QueueSubscriber>,
    next_number: u64,
    /// Counts connections: leases are of one.
    connection: u64,
    /// The server's limit on messages, while there is a connection that had its `Welcome`.
    max_message_size: Option<u64>,
    outgoing: VecDeque<Bytes>,
    /// The server warned that the token is about to end.
    expiring: bool,
    stalled: Option<Stalled>,
    progressed: bool,
    closing: bool,
}

impl Core {
    pub(super) fn new(durable: bool, unclaimed_bound: Bound) -> Self {
        Self {
            durable,
            unclaimed_bound,
            requests: Requests::default(),
            subscribers: HashMap::new(),
            queues: HashMap::new(),
            next_number: 0,
            connection: 0,
            max_message_size: None,
            outgoing: VecDeque::new(),
            expiring: false,
            stalled: None,
            progressed: false,
            closing: false,
        }
    }

    /// What has to be sent, in this order.
    pub(super) fn outgoing(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.outgoing
    }

    /// Whether the last connections were of use, so that the next pause may be short again.
    pub(super) fn take_progress(&mut self) -> bool {
        mem::take(&mut self.progressed)
    }

    /// No new requests from now on.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// Whether nothing waits for an answer.
    pub(super) fn is_idle(&mut self) -> bool {
        self.requests.drop_unwanted();
        self.requests.is_empty() && self.outgoing.is_empty()
    }

    pub(super) fn handle(&mut self, command: Command) {
        match command {
            Command::Request {
                command,
                epoch,
                reply,
                permit,
            } => self.request(command, epoch, reply, permit),
            Command::Subscribe { wanted, reply } => self.subscribe(wanted, reply),
            Command::SubscribeQueue { wanted, reply } => self.subscribe_queue(wanted, reply),
            Command::Settle {
                subscription,
                leases,
                how,
                reply,
                permit,
            } => self.settle(subscription, leases, how, reply, permit),
            Command::Taken(key) => self.taken(key),
            Command::Released(key) => self.released(key),
            Command::QueueReleased(key) => self.queue_released(key),
            // The connection's task looks after it.
            Command::Close { .. } => {}
        }
    }

    fn request(
        &mut self,
        command: ClientCommand,
        epoch: Option<Epoch>,
        reply: Reply<ServerResponse, RequestError>,
        permit: OwnedSemaphorePermit,
    ) {
        if self.closing {
            answer(reply, Err(Closed::ByClient.into()));
            return;
        }
        match &command {
            ClientCommand::Acknowledge(acknowledge) => {
                if let Acknowledged::UpTo(sequence) = acknowledge.what
                    && let Some(subscriber) = self.subscribers.get_mut(&acknowledge.subscription.id)
                    && !subscriber.acknowledged_by_hand(epoch, sequence)
                {
                    answer(reply, Err(RequestError::EpochEnded));
                    return;
                }
            }
            ClientCommand::Unsubscribe(subscription) => {
                if let Some(subscriber) = self.subscribers.remove(&subscription.id) {
                    self.forget(subscriber);
                }
                if let Some(queue) = self.queues.remove(&subscription.id) {
                    queue.end(None);
                }
            }
            _ => {}
        }
        self.send(command, Purpose::Caller { reply, permit });
    }

    fn forget(&mut self, mut subscriber: Subscriber) {
        if self.stalls(subscriber.subscription()) {
            self.stalled = None;
        }
        subscriber.end(None);
    }

    /// Notes the request, and sends it if there is a connection.
    fn send(&mut self, command: ClientCommand, purpose: Purpose) -> RequestId {
        let id = self.requests.insert(command, purpose);
        if let Some(limit) = self.max_message_size {
            self.outgoing.extend(self.requests.message(id, limit));
        }
        id
    }

    /// A connection began.
    pub(super) fn connected(&mut self, welcome: &Welcome, now: Instant) {
        let limit = welcome.limits.max_message_size;
        self.max_message_size = Some(limit);
        self.connection += 1;
        self.resume_subscribers(welcome);
        self.resume_queues(welcome, now);
        self.requests.drop_unwanted();
        for id in self.requests.of_callers() {
            self.outgoing.extend(self.requests.message(id, limit));
        }
    }

    /// Whether the server warned that the token is about to end. Says so once for each warning.
    pub(super) fn take_expiring(&mut self) -> bool {
        mem::take(&mut self.expiring)
    }

    /// The connection goes on with another token.
    pub(super) fn authenticate(&mut self, token: Secret) {
        let command = ClientCommand::Authenticate(Authenticate { token });
        self.send(command, Purpose::Aside);
    }

    /// The connection ended.
    pub(super) fn disconnected(&mut self) {
        self.expiring = false;
        self.max_message_size = None;
        self.outgoing.clear();
        self.stalled = None;
        self.requests.forget_own();
        self.requests.drop_unwanted();
        for subscriber in self.subscribers.values_mut() {
            subscriber.disconnected();
        }
        self.queues_disconnected();
    }

    /// The client has ended: everybody who waits is told.
    pub(super) fn finish(&mut self, closed: &Closed) {
        self.disconnected();
        self.requests.finish(closed);
        let error = match closed {
            Closed::ByClient => None,
            _ => Some(SubscribeError::Closed(closed.clone())),
        };
        for (_, mut subscriber) in self.subscribers.drain() {
            subscriber.end(error.clone());
        }
        for (_, queue) in self.queues.drain() {
            queue.end(error.clone());
        }
    }

    pub(super) fn received(&mut self, received: Received, now: Instant) {
        let Received {
            request_id,
            message,
        } = received;
        match (request_id, message) {
            (_, ServerMessage::Publication(publication)) => {
                if let Some(publication) = self.delivered(publication) {
                    self.publication(publication);
                }
            }
            (Some(id), ServerMessage::Response(response)) => self.answered(id, response, now),
            (None, ServerMessage::Response(ServerResponse::Gap(gap))) => self.gap(&gap),
            (None, ServerMessage::Response(ServerResponse::Deleted(about))) => {
                self.deleted(about.subscription_id);
            }
            (None, ServerMessage::Response(ServerResponse::TokenExpiring(_))) => {
                self.expiring = true;
            }
            (None, ServerMessage::Response(ServerResponse::Error(error))) => {
                log::warn!("the server says: {error}");
            }
            (_, message) => log::debug!("a message of no use here: {message:?}"),
        }
    }

    fn answered(&mut self, id: RequestId, response: ServerResponse, now: Instant) {
        if let ServerResponse::Error(error) = &response
            && error.code == ErrorCode::ShuttingDown
            && self.requests.is_of_caller(id)
        {
            // It was not done. The connection is about to end, and the request goes out again on the next one.
            return;
        }
        let Some(request) = self.requests.remove(id) else {
            log::debug!("an answer to a request that nobody made: {response:?}");
            return;
        };
        self.progressed = true;
        match request.purpose {
            Purpose::Caller { reply, .. } => {
                if let ServerResponse::Deleted(about) = &response {
                    self.deleted(about.subscription_id);
                }
                answer(
                    reply,
                    match response {
                        ServerResponse::Error(error) => {
                            deleted_before(*error, &request.command, request.sent)
                        }
                        response => Ok(response),
                    },
                );
            }
            Purpose::Settle { reply, lost, .. } => answer(reply, queue::settled(response, lost)),
            Purpose::Subscribe(key) => self.subscribed(key, id, response, now),
            Purpose::SubscribeQueue(key) => self.queue_subscribed(key, id, response, now),
            Purpose::Acknowledge(key) => self.acknowledged(key, &response),
            Purpose::Aside => {
                if let ServerResponse::Error(error) = response {
                    log::debug!("the server says: {error}");
                }
            }
        }
    }
}

/// A subscription that is no longer there when its deletion is sent again was deleted by the one whose answer was lost.
fn deleted_before(
    error: ServerError,
    command: &ClientCommand,
    sent: u32,
) -> Result<ServerResponse, RequestError> {
    if let ClientCommand::DeleteSubscription(subscription) = command
        && error.code == ErrorCode::NotFound
        && sent > 1
    {
        return Ok(ServerResponse::Deleted(crate::protocol::About {
            subscription_id: subscription.id,
        }));
    }
    Err(RequestError::Refused(error))
}

/// Whoever asked may have gone.
fn answer<T, E>(reply: Reply<T, E>, result: Result<T, E>) {
    drop(reply.send(result));
}

/// Everything between the cursor `last` and `next` is missing, and nobody said why.
fn unexplained_gap(last: Sequence, next: Sequence) -> Option<Event> {
    (next > last.next()).then(|| {
        Event::Gap(Gap {
            from: last.next(),
            to: next.previous(),
            cause: GapCause::Unexplained,
        })
    })
}

#[cfg(test)]
mod tests;
