//! What of the table and the sessions is written down: entries of the data log's state map.
//!
//! Keys begin with the kind of the entry, then come the ids, so that the entries of one session stand together. Values are CBOR maps, so
//! that a later version can add fields.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{LogNumber, Record, Settings};
use crate::protocol::{
    Epoch, Kind, Sequence, SessionId, SubscriptionId, Timestamp,
    codec::{self, StateError},
};

const SUBSCRIPTION: u8 = b's';
const CURSOR: u8 = b'c';

/// What is kept of a subscription beside its log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words are those of the protocol")]
pub struct SubscriptionState {
    pub log: LogNumber,
    pub kind: Kind,
    pub epoch: Epoch,
    pub created: Timestamp,
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
}

/// An entry of the state map.
#[derive(Clone, PartialEq, Debug)]
pub enum StateEntry {
    /// A subscription.
    Subscription(SubscriptionId, SubscriptionState),
    /// A durable session's place in a subscription.
    Cursor(SessionId, SubscriptionId, CursorState),
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
        match (key.first(), key.len(), uuid(1), uuid(17)) {
            (Some(&SUBSCRIPTION), 17, Some(id), _) => {
                Ok(Self::Subscription(id.into(), codec::decode_state(value)?))
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

fn subscription_key(id: SubscriptionId) -> Box<[u8]> {
    [&[SUBSCRIPTION][..], id.0.as_bytes()].concat().into()
}

fn cursor_key(session: SessionId, id: SubscriptionId) -> Box<[u8]> {
    [&[CURSOR][..], session.0.as_bytes(), id.0.as_bytes()]
        .concat()
        .into()
}
