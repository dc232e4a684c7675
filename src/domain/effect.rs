//! What follows from a command, for one connection or for all that subscribe.
//!
//! Effects travel in the same ordered stream as the records they rest on, and are carried out by the worker that owns the
//! connection when these have reached their durability: that one order is what makes answers, reads of one's own submissions and
//! the place of `Subscribed` in the stream right, without code of their own.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{Chunk, LogNumber};
use crate::protocol::{
    Authenticated, Epoch, Kind, PublicationId, RequestId, Sequence, ServerError, ServerResponse,
    SessionId, SubscriptionId, Timestamp, Welcome,
};

/// One WebSocket connection, for as long as the process lives. The worker that owns it is part of the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(u64);

/// The most workers that a server has: worker sets are bit masks.
pub const MAX_WORKERS: usize = 64;

impl ConnectionId {
    const WORKER_SHIFT: u32 = 48;

    /// The `number`th connection of `worker`.
    pub fn new(worker: usize, number: u64) -> Self {
        debug_assert!(worker < MAX_WORKERS && number < 1 << Self::WORKER_SHIFT);
        Self((worker as u64) << Self::WORKER_SHIFT | number)
    }

    #[cfg(test)]
    pub(crate) const fn of_worker_zero(number: u64) -> Self {
        Self(number)
    }

    /// The worker that owns the connection.
    pub fn worker(self) -> usize {
        (self.0 >> Self::WORKER_SHIFT) as usize
    }
}

/// Where the answer to a command goes, and what it gives back.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ReplyTo {
    /// The connection it came from.
    pub connection: ConnectionId,
    /// The request id, if it had one.
    pub request_id: Option<RequestId>,
    /// The command's name, for errors; `None` if there was no command in the message.
    pub command: Option<&'static str>,
    /// Whether success is silent: a bare command that changes something.
    pub silent: bool,
    /// Bytes of the message: the credit that the answer gives back, beside the one for the command itself.
    pub credit: u32,
}

/// Where a subscription's publications are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogSource {
    /// The data log.
    Disk,
    /// The memory of PubSubService.
    Memory,
}

/// One thing for a worker to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Publications for every subscriber of the worker.
    Publications(Delivery),
    /// Publications of a Queue for one connection, which has them on lease.
    Deliver(Box<QueueDelivery>),
    /// An answer; a successful one to a silent command only gives the credit back.
    Answer(ReplyTo, ServerResponse),
    /// A read of the data log, to be made now that what it may show is released.
    Read(ReplyTo, Read),
    /// A connection becomes a subscriber, or begins elsewhere; answered `Subscribed`.
    Subscribe(Box<SubscribeEffect>),
    /// A connection is a subscriber no longer, if it was one; answered `Unsubscribed`, or `Deleted`, after which no publication follows.
    Unsubscribe(ReplyTo, SubscriptionId, ServerResponse),
    /// A command of a connection that speaks for no session any more: nothing comes of it, but it is under way no longer.
    Dropped(ReplyTo),
    /// Every connection of the worker that subscribes this life of the subscription but `except` is pushed `Deleted`, and none subscribes any more.
    Deleted {
        /// The subscription.
        subscription: SubscriptionId,
        /// The one that asked: it gets an answer of its own, behind this.
        except: Option<ConnectionId>,
    },
    /// A connection begins: it may be read from now on, and its restored subscriptions are served.
    Welcome(Box<WelcomeEffect>),
    /// A connection that may subscribe something no longer is pushed `Deleted`, if it did.
    Withdraw(ConnectionId, SubscriptionId),
    /// A connection is told what no command asked for.
    Push(ConnectionId, Box<ServerResponse>),
    /// A connection ends with this close code, behind what is queued in front of it.
    Close(ConnectionId, u16, &'static str),
}

/// Publications released at once.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The frames.
    pub chunk: Chunk,
    /// Where all workers share the same frames in JSON, once one of them needed them. `None` while no connection speaks that.
    pub json: Option<Arc<OnceLock<Bytes>>>,
}

/// Publications of a Queue that a connection has on lease from now on.
#[derive(Clone, Debug)]
pub struct QueueDelivery {
    /// Whose they are.
    pub connection: ConnectionId,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its log.
    pub log: LogNumber,
    /// The ready frame of each, as it is stored, and which delivery it is.
    pub publications: Vec<(Bytes, u32)>,
}

/// A read of the data log.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The subscription, for the answer.
    pub subscription: SubscriptionId,
    /// Its log.
    pub log: LogNumber,
    /// The newest that may be shown.
    pub last: Sequence,
    /// What is read.
    pub what: ReadWhat,
}

/// What a read asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadWhat {
    /// Ids of a range: `LogIndex`.
    Index {
        /// Position.
        after: Sequence,
        /// At most so many.
        limit: usize,
    },
    /// Publications of a range: `DataLogEntry`.
    Range {
        /// Position.
        after: Sequence,
        /// At most so many.
        limit: usize,
    },
    /// Publications by id: `DataLogEntry`.
    Ids(Vec<PublicationId>),
}

/// Where a subscriber's delivery begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Behind this position.
    At {
        /// The cursor.
        cursor: Sequence,
        /// Whether nothing between what was asked for and the first delivery is missing.
        recovered: bool,
    },
    /// At the first publication of this time or later (the data log is asked where that is); recovered.
    Since(Timestamp),
    /// Where this connection's delivery stands; recovered if nothing behind it was removed.
    Keep,
}

/// What a worker needs to serve a subscriber.
#[derive(Clone, Debug)]
pub struct SubscribeEffect {
    /// Answered `Subscribed`.
    pub to: ReplyTo,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its log.
    pub log: LogNumber,
    /// Where the log is read.
    pub source: LogSource,
    /// For the answer.
    pub kind: Kind,
    /// For the answer.
    pub epoch: Epoch,
    /// The oldest kept.
    pub first: Sequence,
    /// The newest at this place of the stream.
    pub last: Sequence,
    /// Where delivery begins.
    pub start: Start,
    /// Of a Queue: how much may be in flight.
    pub prefetch: Option<u16>,
    /// Of a Queue: the number of the membership, of which it is told what the socket took.
    pub joined: u64,
}

/// A connection's beginning.
#[derive(Clone, Debug)]
pub struct WelcomeEffect {
    /// The connection.
    pub connection: ConnectionId,
    /// Whether its cursors are to be told every second.
    pub durable: bool,
    /// The message.
    pub welcome: Welcome,
    /// What the session has again: delivery begins right behind `Welcome`.
    pub restored: Vec<Restored>,
    /// The command that the connection began with, and its answer behind `Welcome`: there is none without the other.
    pub answer: Option<(ReplyTo, Authenticated)>,
}

/// A subscription that a resumed session has again.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "as in SubscribeEffect")]
pub struct Restored {
    pub subscription: SubscriptionId,
    pub kind: Kind,
    pub log: LogNumber,
    pub source: LogSource,
    pub last: Sequence,
    pub cursor: Sequence,
    pub joined: u64,
}

/// How far a connection was served: the last publication that its socket took whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the words are those of the protocol")]
pub struct Handed {
    pub subscription: SubscriptionId,
    pub log: LogNumber,
    pub cursor: Sequence,
}

impl Effect {
    /// The connection that an effect is for; `None` if it is for every subscriber.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Publications(_) | Self::Deleted { .. } => None,
            Self::Answer(to, _)
            | Self::Read(to, _)
            | Self::Unsubscribe(to, ..)
            | Self::Dropped(to) => Some(to.connection),
            Self::Subscribe(effect) => Some(effect.to.connection),
            Self::Deliver(delivery) => Some(delivery.connection),
            Self::Welcome(effect) => Some(effect.connection),
            Self::Withdraw(connection, _)
            | Self::Push(connection, _)
            | Self::Close(connection, ..) => Some(*connection),
        }
    }

    /// Where a command's answer goes, and the credit with it; `None` if it answers no command.
    pub fn reply_to(&self) -> Option<ReplyTo> {
        match self {
            Self::Answer(to, _)
            | Self::Read(to, _)
            | Self::Unsubscribe(to, ..)
            | Self::Dropped(to) => Some(*to),
            Self::Subscribe(effect) => Some(effect.to),
            Self::Welcome(effect) => effect.answer.as_ref().map(|(to, _)| *to),
            Self::Publications(_)
            | Self::Deliver(_)
            | Self::Deleted { .. }
            | Self::Withdraw(..)
            | Self::Push(..)
            | Self::Close(..) => None,
        }
    }

    /// An `Error` for `to`.
    pub fn error(to: ReplyTo, mut error: ServerError) -> Self {
        error.command = error.command.or(to.command);
        Self::Answer(to, error.into())
    }
}

/// Whether a connection may be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// It may.
    Granted,
    /// There are too many durable sessions, or the server is stopping.
    Full,
    /// The durable session belongs to another identity.
    Foreign,
}

/// Who is behind a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// A session that ends with its connection.
    Transient,
    /// The durable session with this id.
    Durable(SessionId),
}
