//! What changes in the catalogue at once.

use std::collections::BTreeMap;

use super::{Change, LogEntry, Meta, SegmentEntry, entry};
use crate::datalog::LogNumber;
use crate::datalog::segment::{RunDescriptor, SegmentId};
use crate::protocol::{PublicationId, Sequence};

/// A change of the catalogue. Of several for one key, the last counts.
#[derive(Clone, Debug)]
pub(crate) struct CatalogueBatch {
    new_segments: Changes,
    runs: Changes,
    ids: Changes,
    last: Changes,
}

type Changes = BTreeMap<Box<[u8]>, Option<Box<[u8]>>>;

/// A batch in the order in which it is applied.
pub(super) struct Parts {
    /// Before the runs that point to them.
    pub(super) new_segments: Vec<Change>,
    /// In key order.
    pub(super) runs: Vec<Change>,
    pub(super) ids: Vec<Change>,
    /// At once: what makes the others count.
    pub(super) last: Vec<Change>,
}

impl CatalogueBatch {
    /// A change after which the catalogue says `meta`.
    pub(crate) fn new(meta: &Meta) -> Self {
        let last = Changes::from([([entry::META].into(), Some(meta.encode()))]);
        Self {
            new_segments: Changes::new(),
            runs: Changes::new(),
            ids: Changes::new(),
            last,
        }
    }

    /// The segment's file is in use. Also gets all of its runs, if they are put too.
    pub(crate) fn put_segment(&mut self, segment: &SegmentEntry) {
        self.new_segments.insert(
            entry::segment_key(segment.header.id),
            Some(segment.encode()),
        );
    }

    /// The segment's file is not in use any more.
    pub(crate) fn remove_segment(&mut self, segment: SegmentId) {
        self.last.insert(entry::segment_key(segment), None);
    }

    /// A run is there, in place of the one with the same log and first sequence, if there is one.
    pub(crate) fn put_run(&mut self, run: &RunDescriptor) {
        self.runs.insert(
            entry::run_key(run.log, run.first),
            Some(entry::encode_run(run)),
        );
    }

    /// A run is gone. Where a run that begins with the same sequence takes its place, remove first and put then.
    pub(crate) fn remove_run(&mut self, log: LogNumber, first: Sequence) {
        self.runs.insert(entry::run_key(log, first), None);
    }

    /// A log exists, or is other than it was.
    pub(crate) fn put_log(&mut self, log: LogNumber, value: &LogEntry) {
        self.last.insert(entry::log_key(log), Some(value.encode()));
    }

    /// A log is gone. Its ids go by and by ([`tidy`](super::Catalogue::tidy)); its runs are removed by name.
    pub(crate) fn remove_log(&mut self, log: LogNumber) {
        self.last.insert(entry::log_key(log), None);
        self.last.insert(entry::removed_key(log), Some([].into()));
    }

    /// A client-supplied id is in the log.
    pub(crate) fn put_id(&mut self, log: LogNumber, id: &PublicationId, sequence: Sequence) {
        self.ids.insert(
            entry::id_key(log, id),
            Some(entry::encode_sequence(sequence)),
        );
    }

    /// A client-supplied id is not in the log any more.
    pub(crate) fn remove_id(&mut self, log: LogNumber, id: &PublicationId) {
        self.ids.insert(entry::id_key(log, id), None);
    }

    /// An entry of the state map is set.
    pub(crate) fn put_state(&mut self, key: &[u8], value: &[u8]) {
        self.last.insert(entry::state_key(key), Some(value.into()));
    }

    /// An entry of the state map is gone.
    pub(crate) fn remove_state(&mut self, key: &[u8]) {
        self.last.insert(entry::state_key(key), None);
    }

    /// `strays` are removed, unless the batch puts them.
    pub(super) fn into_parts(mut self, strays: Vec<Box<[u8]>>) -> Parts {
        for key in strays {
            let changes = if key[0] == entry::RUN {
                &mut self.runs
            } else {
                &mut self.last
            };
            if !self.new_segments.contains_key(&key) {
                changes.entry(key).or_insert(None);
            }
        }
        Parts {
            new_segments: self.new_segments.into_iter().collect(),
            runs: self.runs.into_iter().collect(),
            ids: self.ids.into_iter().collect(),
            last: self.last.into_iter().collect(),
        }
    }
}
