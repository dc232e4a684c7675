//! What the server says (protocol, section 5).

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use serde::Serialize;

use super::{
    Durability, Epoch, Kind, PublicationId, Retention, Sequence, ServerError, SessionId,
    SubscriptionId, Timestamp,
};

/// Every response but `Publication`, which is encoded once for all (see [`Publication`](super::Publication)).
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "the variants are those of the protocol's table"
)]
pub enum ServerResponse {
    Welcome(Box<Welcome>),
    Subscribed(Box<Subscribed>),
    Unsubscribed(About),
    Deleted(About),
    Submitted(Submitted),
    Acknowledged(Settled),
    Rejected(Settled),
    Extended(Settled),
    LogIndex(Box<LogIndex>),
    DataLogEntry(Box<DataLogEntry>),
    SubscriptionMeta(Box<SubscriptionMeta>),
    Subscriptions(Box<Subscriptions>),
    Gap(Gap),
    Pong(Pong),
    Authenticated(Authenticated),
    TokenExpiring(TokenExpiring),
    Error(Box<ServerError>),
}

impl From<ServerError> for ServerResponse {
    fn from(error: ServerError) -> Self {
        Self::Error(Box::new(error))
    }
}

/// First on every connection.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Welcome {
    pub session_id: SessionId,
    pub durable: bool,
    pub resumed: bool,
    pub subscriptions: Vec<RestoredSubscription>,
    pub server: Cow<'static, str>,
    pub limits: Limits,
}

/// A subscription that a resumed session has again.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct RestoredSubscription {
    pub subscription_id: SubscriptionId,
    pub kind: Kind,
    pub epoch: Epoch,
    pub cursor: Sequence,
    pub recovered: bool,
}

/// What the server holds its clients to.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Limits {
    /// Bytes.
    pub max_message_size: u64,
    pub max_subscriptions: u64,
    /// Milliseconds.
    pub heartbeat_interval: u64,
    /// Milliseconds.
    pub heartbeat_timeout: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Subscribed {
    pub subscription_id: SubscriptionId,
    pub kind: Kind,
    pub epoch: Epoch,
    pub first_sequence: Sequence,
    pub last_sequence: Sequence,
    pub recovered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Sequence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<u16>,
}

/// `Unsubscribed` and `Deleted`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct About {
    pub subscription_id: SubscriptionId,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Submitted {
    pub subscription_id: SubscriptionId,
    pub publication_id: PublicationId,
    pub sequence: Sequence,
    pub duplicate: bool,
    pub durability: Durability,
}

/// `Acknowledged`, `Rejected` and `Extended`.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Settled {
    pub subscription_id: SubscriptionId,
    pub count: u64,
    /// `None` on a Broadcast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Vec<PublicationId>>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct LogIndex {
    pub log_id: SubscriptionId,
    pub entries: Vec<PublicationId>,
    pub first_sequence: Sequence,
    pub last_sequence: Sequence,
    pub more: bool,
}

/// Its encoding is made by the codec, since its publications are encoded already.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct DataLogEntry {
    pub log_id: SubscriptionId,
    /// Each the encoded map of a publication's fields ([`StoredPublication::fields`](super::StoredPublication::fields)).
    #[serde(skip)]
    pub publications: Vec<Bytes>,
    pub missing: Vec<PublicationId>,
    pub more: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct SubscriptionMeta {
    pub subscription_id: SubscriptionId,
    pub kind: Kind,
    pub epoch: Epoch,
    pub settings: ShownSettings,
    pub created: Timestamp,
    pub first_sequence: Sequence,
    pub last_sequence: Sequence,
    /// Of payload kept.
    pub bytes: u64,
    pub subscribers: u64,
    pub connected: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
}

/// The settings in force, defaults included.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's text")]
pub struct ShownSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    pub retention: Retention,
    pub durability: Durability,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deliveries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<SubscriptionId>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Subscriptions {
    pub subscriptions: Vec<SubscriptionMeta>,
    pub more: bool,
}

/// `from` to `to` will not be delivered.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Gap {
    pub subscription_id: SubscriptionId,
    pub from: Sequence,
    pub to: Sequence,
    pub cause: GapCause,
}

/// A publication as a client gets it: delivered, or out of the log.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct ReceivedPublication {
    pub subscription_id: SubscriptionId,
    pub publication_id: PublicationId,
    pub sequence: Sequence,
    pub time: Timestamp,
    pub publisher: Option<Box<str>>,
    /// Where it comes from, if it is a dead letter.
    pub dead_letter: Option<DeadLetter>,
    pub data: Bytes,
    /// Which delivery this is, from 1 (Queue).
    pub delivery: Option<u64>,
}

/// What a publication that a Queue gave up tells of its past: it stands in the publication that its dead-letter subscription has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// The Queue.
    pub subscription_id: SubscriptionId,
    /// The life of the Queue's log.
    pub epoch: Epoch,
    /// The publication's sequence there.
    pub sequence: Sequence,
    /// How often it was delivered.
    pub deliveries: u64,
    /// Why it was given up.
    pub reason: DeadLetterReason,
}

/// Why a Queue gave a publication up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeadLetterReason {
    /// It was delivered `max_deliveries` times, and never acknowledged.
    MaxDeliveries,
    /// A subscriber rejected it with `dead_letter: true`.
    Rejected,
}

impl DeadLetterReason {
    /// As it is on the wire.
    pub fn text(self) -> &'static str {
        match self {
            Self::MaxDeliveries => "max-deliveries",
            Self::Rejected => "rejected",
        }
    }

    /// What [`text`](Self::text) gave.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::MaxDeliveries, Self::Rejected]
            .into_iter()
            .find(|reason| reason.text() == text)
    }

    /// As it is written down; never 0.
    pub fn number(self) -> u8 {
        match self {
            Self::MaxDeliveries => 1,
            Self::Rejected => 2,
        }
    }

    /// What [`number`](Self::number) gave.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::MaxDeliveries, Self::Rejected]
            .into_iter()
            .find(|reason| reason.number() == number)
    }
}

/// Why publications are missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GapCause {
    /// Removed before this subscriber got them.
    Retention,
    /// Unreadable on disk.
    Damage,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Pong {
    pub time: Timestamp,
}

/// Whom the connection speaks for from now on.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Authenticated {
    /// `None` where the server asks nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// The connection is closed then, unless it is given another token.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct TokenExpiring {
    pub expires: Timestamp,
}
