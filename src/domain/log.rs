//! What a log is made of, what changes it, and what reading it gives.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::{GapCause, PublicationId, Sequence, Timestamp};

/// One life of a log: a subscription that was deleted and made again has a new one. Unique in its store, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogNumber(pub u64);

/// Ready frames of consecutive publications of one log, back to back. Never empty; at most about 64 KiB, unless it is one frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// The log.
    pub log: LogNumber,
    /// The sequence of the first frame.
    pub first: Sequence,
    /// The sequence of the last frame.
    pub last: Sequence,
    /// The frames.
    pub frames: Bytes,
}

/// The state map: keys and values, in key order.
pub type StateMap = Vec<(Box<[u8]>, Box<[u8]>)>;

/// One change of state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A log exists from here on; its first publication will be 1.
    CreateLog(LogNumber),
    /// Publications are appended to their log.
    Publications(Chunk),
    /// Retention: `first` is the oldest kept from now on (at most the newest + 1).
    Truncate {
        /// The log.
        log: LogNumber,
        /// The oldest kept.
        first: Sequence,
    },
    /// A log exists no more.
    RemoveLog(LogNumber),
    /// An entry of the state map is set.
    Put {
        /// The key.
        key: Box<[u8]>,
        /// The value.
        value: Box<[u8]>,
    },
    /// An entry of the state map is removed.
    Delete {
        /// The key.
        key: Box<[u8]>,
    },
}

/// What a log keeps.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct LogExtent {
    /// The oldest kept; one above `last` while nothing is.
    pub first: Sequence,
    /// The newest.
    pub last: Sequence,
    /// Of payload kept.
    pub bytes: u64,
    /// Time of the oldest kept; 0 while nothing is.
    pub first_time: Timestamp,
    /// Time of the newest that is known; 0 if none is.
    pub last_time: Timestamp,
}

/// A part of a log in answer to [`LogReader::page`](crate::datalog).
#[derive(Clone, Debug)]
pub struct Page {
    /// The hole that begins right behind the position asked for.
    pub gap: Option<MissingRange>,
    /// Ready frames, back to back.
    pub frames: Bytes,
    /// Sequence of the first frame.
    pub first: Sequence,
    /// Sequence of the last frame: the position reached. `first` - 1 when there is none.
    pub last: Sequence,
}

/// Publications that can't be had.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct MissingRange {
    /// The first of them.
    pub from: Sequence,
    /// The last of them.
    pub to: Sequence,
    /// Why.
    pub cause: GapCause,
}

/// The ids of a part of a log.
#[derive(Clone, Debug)]
pub struct Ids {
    /// In sequence order.
    pub ids: Vec<PublicationId>,
    /// Holes between the position asked for and `reached`.
    pub missing: Vec<MissingRange>,
    /// The position that the answer covers.
    pub reached: Sequence,
    /// The oldest that the log keeps.
    pub first: Sequence,
}

/// What retention would remove.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The oldest kept, then.
    pub first: Sequence,
    /// Publications removed.
    pub removed: u64,
    /// Payload bytes removed.
    pub removed_bytes: u64,
    /// Time of the new first, if one is kept.
    pub oldest_time: Option<Timestamp>,
}
