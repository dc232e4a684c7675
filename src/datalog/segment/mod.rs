//! Segments: immutable files of sealed publications, sorted by log.
//!
//! Owns the format, writing and reading of one segment file, and the number and place of each run in it. Does not own
//! which segments exist, which of their runs are live (the catalogue and the index say so), nor when a segment is made,
//! merged or unlinked.
//!
//! ```text
//! header (40 bytes)
//! run: block frames | block ids | block frames | block ids | ... | run index
//! run: ...
//! footer: one descriptor for each run, in order of (log, sequence)
//! trailer (28 bytes, at the end): length and number of runs of the footer, checksums
//! ```
//!
//! A *run* is the publications of one log without a hole. A *block* is at most [`BLOCK_SIZE`] of its ready frames (a larger
//! frame is a block of its own), followed by the ids of its publications and the length of their payloads, so that listing
//! ids and cutting by bytes read no payload. The run index says where each block begins, in time, sequence and bytes.
//!
//! Invariants:
//! * A file has its name only when it is whole and synced; what is found with the ending `.tmp` was never part of the log.
//! * Nothing that is read is believed before its checksum was right, and no length is allocated before it was compared
//!   with the file's. What fails is a [`Damaged`] value, never a panic.
//! * Times never decrease within a run.

mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::datalog) mod fuzzing;
mod reader;
#[cfg(test)]
pub(in crate::datalog) mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

use super::LogNumber;
use crate::protocol::{NotAPublication, PublicationId, Sequence, Timestamp};

pub(crate) use reader::{Block, Footer, RunIndex, SegmentFile};
pub(crate) use writer::SegmentWriter;

pub(super) use format::{encode_run, next_run, put_varint, take, take_varint};

/// Frames of one block, unless a single frame is larger: what a reader of one publication has to read and check.
pub(crate) const BLOCK_SIZE: usize = 64 * 1024;

/// A segment's number, which grows with each segment made and is never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct SegmentId(pub(crate) u64);

impl SegmentId {
    /// The name of its file.
    pub(crate) fn file_name(self) -> String {
        format!("{}.segment", self.0)
    }

    /// Where its file is in the directory `segments`.
    pub(crate) fn path(self, segments: &Path) -> PathBuf {
        segments.join(self.file_name())
    }

    /// The number that a file's name says, if it is a segment's.
    pub(crate) fn of_file_name(name: &str) -> Option<Self> {
        let id = name.strip_suffix(".segment")?.parse().ok().map(Self)?;
        (id.file_name() == name).then_some(id)
    }
}

/// What a segment is, as its header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) id: SegmentId,
    /// The journal generations, both included, whose publications it holds (as far as they were live). Of segments whose
    /// generations overlap, the one with the highest id holds what counts.
    pub(crate) generations: (u64, u64),
    /// 0 when it was sealed from a journal; a merge's is one more than its inputs'.
    pub(crate) level: u8,
}

/// A whole segment as its header and footer describe it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SegmentSummary {
    pub(crate) header: SegmentHeader,
    /// In order of (log, sequence).
    pub(crate) runs: Vec<RunDescriptor>,
    pub(crate) file_len: u64,
}

/// Publications of one log, without a hole, in one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunDescriptor {
    pub(crate) log: LogNumber,
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
    pub(crate) first_time: Timestamp,
    pub(crate) last_time: Timestamp,
    /// Sum of the payloads.
    pub(crate) bytes: u64,
    pub(crate) segment: SegmentId,
    /// Where its run index is in the file.
    pub(crate) index_offset: u64,
    pub(crate) index_len: u32,
    /// What it takes in the file, run index included; it ends where the run index ends.
    pub(crate) stored_bytes: u64,
    /// Whether any of its ids was supplied by a client, and so stands in the catalogue.
    pub(crate) client_ids: bool,
}

/// One publication of a block's id table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IdEntry {
    pub(crate) id: PublicationId,
    /// Length of the payload.
    pub(crate) payload: u32,
    /// Supplied by a client.
    pub(crate) client: bool,
}

/// A place of a segment that can't be read, or does not hold what was written there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: bytes {offset} to {}: {reason}{}", .file.display(), .offset + .len, Affected(.run))]
pub(crate) struct Damaged {
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// The publications that can't be read because of it; none where it is the segment's header or footer.
    pub(crate) run: Option<(LogNumber, Sequence, Sequence)>,
    pub(crate) reason: String,
}

struct Affected<'a>(&'a Option<(LogNumber, Sequence, Sequence)>);

impl std::fmt::Display for Affected<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some((log, first, last)) => {
                write!(f, " (log {}, publications {first} to {last})", log.0)
            }
            None => Ok(()),
        }
    }
}

/// Why a segment could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    #[error("writing {}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    /// What was to be written does not hold what it should: nothing of the segment counts.
    #[error("log {}: the frames behind {after} are no publications", .log.0)]
    Frames {
        log: LogNumber,
        after: Sequence,
        source: NotAPublication,
    },
    /// Publications must come in order of (log, sequence).
    #[error("log {}: publication {sequence} does not come behind {after}", .log.0)]
    Order {
        log: LogNumber,
        after: Sequence,
        sequence: Sequence,
    },
}
