//! What the workers and PubSubService say to each other.
//!
//! Messages with one handler stand next to it; these have a sender on the other side of the process and say what passes between the
//! threads: commands one way, cursors with them, effects ([`Release`](super::hub::Release)) the other.

use actix::Message;

use crate::{
    datalog::{Page, ReadError},
    domain::{ConnectionId, Handed, Identity, LogNumber, Opening, Principal, ReplyTo},
    protocol::{Request, RequestId, Sequence, ServerError, SubscriptionId, codec::Rejection},
};

/// Whether a connection of this identity may be opened.
#[derive(Message)]
#[rtype(result = "Opening")]
pub(crate) struct MayConnect {
    pub(crate) identity: Identity,
    pub(crate) principal: Principal,
}

/// A connection was upgraded. Its answer is [`Effect::Welcome`](crate::domain::Effect::Welcome).
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Connect {
    pub(crate) connection: ConnectionId,
    pub(crate) identity: Identity,
    pub(crate) principal: Principal,
    /// The command that proved that, to be answered behind `Welcome`.
    pub(crate) reply: Option<ReplyTo>,
}

/// What one read of a connection brought, in order.
///
/// Sent without waiting: every command in it holds credit, which bounds the mailbox.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Forward {
    pub(crate) connection: ConnectionId,
    pub(crate) incoming: Vec<Incoming>,
}

/// One client message.
pub(crate) enum Incoming {
    /// A command.
    Request {
        request: Request,
        /// Bytes of the message, or more if its answer may be long.
        credit: u32,
    },
    /// A token, judged: the one that the connection speaks by from now on.
    Token {
        judged: Result<Principal, ServerError>,
        request_id: Option<RequestId>,
        /// Bytes of the message.
        credit: u32,
    },
    /// No command: it is answered in its turn.
    Rejected {
        rejection: Rejection,
        /// Bytes of the message.
        credit: u32,
        /// Whether the connection is closed behind the answer (4503).
        close: bool,
    },
}

/// A connection ended. Sent once for each that was announced by [`Connect`].
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Disconnected {
    pub(crate) connection: ConnectionId,
    pub(crate) handed: Vec<Handed>,
}

/// The cursors of durable connections that moved since the last time.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Cursors(pub(crate) Vec<(ConnectionId, Vec<Handed>)>);

/// A socket took so many bytes of a Queue's publications in this membership.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct QueueWritten {
    pub(crate) connection: ConnectionId,
    pub(crate) subscription: SubscriptionId,
    pub(crate) log: LogNumber,
    pub(crate) joined: u64,
    pub(crate) bytes: u64,
}

/// A page of a Memory subscription.
#[derive(Message)]
#[rtype(result = "Result<Page, ReadError>")]
pub(crate) struct MemoryPage {
    pub(crate) subscription: SubscriptionId,
    pub(crate) log: LogNumber,
    pub(crate) after: Sequence,
    pub(crate) through: Sequence,
    pub(crate) max_bytes: usize,
}
