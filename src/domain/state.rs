//! What of the table and the sessions is written down: entries of the data log's state map.
//!
//! Keys begin with the kind of the entry, then come the ids, so that the entries of one session stand together. Values are CBOR maps, so
//! that a later version can add fields.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    LogNumber, Record, Settings, StateMap,
    queue::{QueueBlock, QueueChange, QueueHead},
};
use crate::protocol::{
    Epoch, Kind, Sequence, SessionId, SubscriptionId, Timestamp,
    codec::{self, StateError},
};

const SUBSCRIPTION: u8 = b's';
const CURSOR: u8 = b'c';
const OWNER: u8 = b'o';
const QUEUE_HEAD: u8 = b'q';
const QUEUE_BLOCK: u8 = b'b';

/// What is kept of a subscription beside its log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words are those of the protocol")]
pub struct SubscriptionState {
    pub log: LogNumber,
    pub kind: Kind,
    pub epoch: Epoch,
    pub created: Timestamp,
    /// The identity that made it, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<str>>,
    pub settings: Settings,
}

/// A durable session's place in a subscription.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct CursorState {
    /// The life of the subscription that it is a place in.
    pub log: LogNumber,
    /// Its epoch.
    pub epoch: Epoch,
    /// The last acknowledged position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Sequence>,
    /// The last position handed to a connection; kept up to date only while nothing was acknowledged.
    pub handed: Sequence,
    /// Of a Queue: how much may be in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<u16>,
}

/// Whose a durable session is. One that anybody made has no such entry.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OwnerState {
    /// The principal's name.
    pub name: Box<str>,
}

/// An entry of the state map.
#[derive(Clone, PartialEq, Debug)]
pub enum StateEntry {
    /// A subscription.
    Subscription(SubscriptionId, SubscriptionState),
    /// A durable session's place in a subscription.
    Cursor(SessionId, SubscriptionId, CursorState),
    /// Whose a durable session is.
    Owner(SessionId, OwnerState),
    /// The marks of a Queue, by its log.
    QueueHead(LogNumber, QueueHead),
    /// One block of a Queue, by its log.
    QueueBlock(LogNumber, u64, QueueBlock),
}

impl StateEntry {
    /// What `key` and `value` say.
    ///
    /// # Errors
    /// If they are no entry that this version knows.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, StateEntryError> {
        let uuid = |at: usize| {
            key.get(at..at + 16)
                .and_then(|bytes| Uuid::from_slice(bytes).ok())
        };
        let number = |at: usize| {
            let bytes = key.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map(|bytes| u64::from_be_bytes(*bytes))
        };
        match (key.first(), key.len(), number(1), number(9)) {
            (Some(&QUEUE_HEAD), 9, Some(log), _) => {
                return Ok(Self::QueueHead(LogNumber(log), codec::decode_state(value)?));
            }
            (Some(&QUEUE_BLOCK), 17, Some(log), Some(block)) => {
                let value = codec::decode_state(value)?;
                return Ok(Self::QueueBlock(LogNumber(log), block, value));
            }
            _ => {}
        }
        match (key.first(), key.len(), uuid(1), uuid(17)) {
            (Some(&SUBSCRIPTION), 17, Some(id), _) => {
                Ok(Self::Subscription(id.into(), codec::decode_state(value)?))
            }
            (Some(&OWNER), 17, Some(session), _) => {
                Ok(Self::Owner(session.into(), codec::decode_state(value)?))
            }
            (Some(&CURSOR), 33, Some(session), Some(id)) => Ok(Self::Cursor(
                session.into(),
                id.into(),
                codec::decode_state(value)?,
            )),
            _ => Err(StateEntryError::UnknownKey),
        }
    }
}

/// An entry of the state map that can't be understood.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the variants say it in their messages")]
pub enum StateEntryError {
    #[error("the key of a state entry is of no known kind")]
    UnknownKey,
    #[error(transparent)]
    Value(#[from] StateError),
}

/// Sets the entry of a subscription.
pub fn put_subscription(id: SubscriptionId, state: &SubscriptionState) -> Record {
    Record::Put {
        key: subscription_key(id),
        value: codec::encode_state(state).into(),
    }
}

/// Gives every subscription of a state map a new epoch: its log is a copy, whose end may be older than what clients know of it.
pub fn renew_epochs(entries: StateMap) -> impl Iterator<Item = Record> {
    let entries = entries.into_iter();
    entries.filter_map(|(key, value)| match StateEntry::decode(&key, &value) {
        Ok(StateEntry::Subscription(id, state)) => {
            let epoch = Epoch::random();
            Some(put_subscription(id, &SubscriptionState { epoch, ..state }))
        }
        _ => None,
    })
}

/// Removes the entry of a subscription.
pub fn delete_subscription(id: SubscriptionId) -> Record {
    Record::Delete {
        key: subscription_key(id),
    }
}

/// Sets a session's place in a subscription.
pub fn put_cursor(session: SessionId, id: SubscriptionId, state: &CursorState) -> Record {
    Record::Put {
        key: cursor_key(session, id),
        value: codec::encode_state(state).into(),
    }
}

/// Removes a session's place in a subscription.
pub fn delete_cursor(session: SessionId, id: SubscriptionId) -> Record {
    Record::Delete {
        key: cursor_key(session, id),
    }
}

/// Sets whose a durable session is.
pub fn put_owner(session: SessionId, name: &str) -> Record {
    let state = OwnerState { name: name.into() };
    Record::Put {
        key: owner_key(session),
        value: codec::encode_state(&state).into(),
    }
}

/// Removes that.
pub fn delete_owner(session: SessionId) -> Record {
    Record::Delete {
        key: owner_key(session),
    }
}

/// What changed of a Queue.
pub fn queue_change(log: LogNumber, change: &QueueChange) -> Record {
    match change {
        QueueChange::Head(head) => Record::Put {
            key: queue_head_key(log),
            value: codec::encode_state(head).into(),
        },
        QueueChange::Block(number, block) => Record::Put {
            key: queue_block_key(log, *number),
            value: codec::encode_state(block).into(),
        },
        QueueChange::NoBlock(number) => delete_queue_block(log, *number),
    }
}

/// Removes the marks of a Queue.
pub fn delete_queue_head(log: LogNumber) -> Record {
    Record::Delete {
        key: queue_head_key(log),
    }
}

/// Removes a block of a Queue.
pub fn delete_queue_block(log: LogNumber, number: u64) -> Record {
    Record::Delete {
        key: queue_block_key(log, number),
    }
}

fn queue_head_key(log: LogNumber) -> Box<[u8]> {
    [&[QUEUE_HEAD][..], &log.0.to_be_bytes()].concat().into()
}

fn queue_block_key(log: LogNumber, number: u64) -> Box<[u8]> {
    [
        &[QUEUE_BLOCK][..],
        &log.0.to_be_bytes(),
        &number.to_be_bytes(),
    ]
    .concat()
    .into()
}

fn subscription_key(id: SubscriptionId) -> Box<[u8]> {
    [&[SUBSCRIPTION][..], id.0.as_bytes()].concat().into()
}

fn owner_key(session: SessionId) -> Box<[u8]> {
    [&[OWNER][..], session.0.as_bytes()].concat().into()
}

fn cursor_key(session: SessionId, id: SubscriptionId) -> Box<[u8]> {
    [&[CURSOR][..], session.0.as_bytes(), id.0.as_bytes()]
        .concat()
        .into()
}
