//! What a change of state is, as it is written down.

use bytes::Bytes;

use crate::protocol::Sequence;

/// One life of a log: a subscription that was deleted and made again has a new one. Unique in its store, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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
