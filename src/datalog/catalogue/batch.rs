//! What one commit changes in the catalogue.

use std::collections::BTreeMap;

use super::commit::{Change, New};
use super::{LogEntry, Meta, SegmentEntry, entry};
use crate::datalog::LogNumber;
use crate::datalog::segment::{RunDescriptor, SegmentId};
use crate::protocol::{PublicationId, Sequence};

/// A change of the catalogue. What is large is not copied: its changes of the state map are borrowed.
#[derive(Clone, Debug)]
pub(crate) struct CatalogueBatch<'a> {
    pub(super) new_segments: Vec<SegmentId>,
    /// Count for nothing until their segment is listed.
    pub(super) new_runs: Vec<Change>,
    pub(super) old_segments: Vec<SegmentId>,
    /// Each stands for itself.
    pub(super) ids: Vec<Change>,
    /// In entries of many.
    pub(super) logs: BTreeMap<LogNumber, Option<LogEntry>>,
    /// Of several changes of one key, the last remains.
    pub(super) state: BTreeMap<&'a [u8], Option<&'a [u8]>>,
    /// At once, and last: what makes the others count.
    pub(super) last: BTreeMap<Box<[u8]>, New>,
}

impl<'a> CatalogueBatch<'a> {
    /// A change after which the catalogue says `meta`.
    pub(crate) fn new(meta: &Meta) -> Self {
        let last = BTreeMap::from([([entry::META].into(), New::Value(meta.encode()))]);
        Self {
            new_segments: Vec::new(),
            new_runs: Vec::new(),
            old_segments: Vec::new(),
            ids: Vec::new(),
            logs: BTreeMap::new(),
            state: BTreeMap::new(),
            last,
        }
    }

    /// Whether it changes nothing but what the catalogue says about the store.
    pub(crate) fn is_empty(&self) -> bool {
        let others = [self.ids.len(), self.logs.len(), self.state.len()];
        others == [0; 3] && self.last.len() == 1
    }

    /// The segment is there, with these runs.
    pub(crate) fn put_segment<'r>(
        &mut self,
        segment: &SegmentEntry,
        runs: impl IntoIterator<Item = &'r RunDescriptor>,
    ) {
        let id = segment.header.id;
        self.last
            .insert(entry::segment_key(id), New::Value(segment.encode()));
        self.new_segments.push(id);
        let entries = entry::encode_runs(id, runs).into_iter();
        self.new_runs
            .extend(entries.map(|(key, value)| (key, New::Value(value))));
    }

    /// The segment is not in use any more, and none of its runs.
    pub(crate) fn remove_segment(&mut self, segment: SegmentId) {
        self.last.insert(entry::segment_key(segment), New::None);
        self.old_segments.push(segment);
    }

    /// A log exists, or is other than it was.
    pub(crate) fn put_log(&mut self, log: LogNumber, value: &LogEntry) {
        self.logs.insert(log, Some(*value));
    }

    /// A log is gone. Its ids go by and by ([`tidy`](super::Catalogue::tidy)); its runs count for nothing.
    pub(crate) fn remove_log(&mut self, log: LogNumber) {
        self.logs.insert(log, None);
    }

    /// A client-supplied id is in the log.
    pub(crate) fn put_id(&mut self, log: LogNumber, id: &PublicationId, sequence: Sequence) {
        self.ids.push((
            entry::id_key(log, id),
            New::Value(entry::encode_sequence(sequence)),
        ));
    }

    /// The publication at `sequence`, which had this client-supplied id, is not in the log any more. A later one that has
    /// it too is still found by it.
    pub(crate) fn remove_id(&mut self, log: LogNumber, id: &PublicationId, sequence: Sequence) {
        self.ids.push((
            entry::id_key(log, id),
            New::NoneInsteadOf(entry::encode_sequence(sequence)),
        ));
    }

    /// An entry of the state map is set.
    pub(crate) fn put_state(&mut self, key: &'a [u8], value: &'a [u8]) {
        self.state.insert(key, Some(value));
    }

    /// An entry of the state map is gone.
    pub(crate) fn remove_state(&mut self, key: &'a [u8]) {
        self.state.insert(key, None);
    }
}
