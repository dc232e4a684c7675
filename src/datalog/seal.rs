//! Sealing: a journal's records become a segment, and what is left of them goes to state log and catalogue.
//!
//! Owns the order of publications in the new segment and which of them are left out. Does not own reading the journal, nor
//! making the result known. Sorts references to the journal's bytes, and copies each publication once, into its block.

use std::path::Path;

use super::journal::format::RecordView;
use super::pace::Pace;
use super::segment::{SegmentError, SegmentHeader, SegmentSummary, SegmentWriter};
use super::state_log::state_record;
use super::{LogNumber, Record};
use crate::protocol::{PublicationId, Sequence, StoredPublication};

/// What became of a journal.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// None: no publication is live.
    pub(crate) segment: Option<SegmentSummary>,
    /// Client-supplied ids in the segment, and where they are.
    pub(crate) client_ids: Vec<(LogNumber, PublicationId, Sequence)>,
    /// Everything else than publications, in the journal's order.
    pub(crate) state: Vec<Record>,
}

/// Publications of one log, as they stand in a journal or segment.
#[derive(Clone, Copy)]
struct Part<'a> {
    log: LogNumber,
    first: Sequence,
    last: Sequence,
    frames: &'a [u8],
}

/// Seals the records of one journal, which come in its order. `live` says the first sequence that a log keeps, none if the
/// log is no more.
///
/// # Errors
/// If the segment can't be written. Nothing of it is left then.
pub(crate) fn seal<'a>(
    records: impl IntoIterator<Item = RecordView<'a>>,
    live: &dyn Fn(LogNumber) -> Option<Sequence>,
    segments: &Path,
    header: SegmentHeader,
    pace: &Pace<'_>,
) -> Result<Sealed, SegmentError> {
    let (mut parts, mut state) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            RecordView::Publications {
                log,
                first,
                last,
                frames,
                ..
            } => {
                if live(log).is_some_and(|oldest| oldest <= last) {
                    parts.push(Part {
                        log,
                        first,
                        last,
                        frames,
                    });
                }
            }
            other => state.extend(state_record(other)),
        }
    }
    parts.sort_by_key(|part| (part.log, part.first));

    let mut client_ids = Vec::new();
    let mut output = LiveWriter::new(segments, header, live, pace);
    for part in parts {
        output.append(
            part.log,
            part.first,
            part.last,
            part.frames,
            &mut |id, sequence| {
                client_ids.push((part.log, id, sequence));
            },
        )?;
    }
    Ok(Sealed {
        segment: output.finish()?,
        client_ids,
        state,
    })
}

/// A segment of what is live, and comes for the first time; no file is made for nothing.
pub(super) struct LiveWriter<'a> {
    segments: &'a Path,
    header: SegmentHeader,
    live: &'a dyn Fn(LogNumber) -> Option<Sequence>,
    pace: &'a Pace<'a>,
    /// Bytes written at the last rest.
    rested: u64,
    writer: Option<SegmentWriter>,
    /// The newest that was written.
    newest: Option<(LogNumber, Sequence)>,
}

impl<'a> LiveWriter<'a> {
    pub(super) fn new(
        segments: &'a Path,
        header: SegmentHeader,
        live: &'a dyn Fn(LogNumber) -> Option<Sequence>,
        pace: &'a Pace<'a>,
    ) -> Self {
        Self {
            segments,
            header,
            live,
            pace,
            rested: 0,
            writer: None,
            newest: None,
        }
    }

    /// The sequence from which on publications of `log` are to be written; none if none are.
    pub(super) fn wanted_from(&self, log: LogNumber) -> Option<Sequence> {
        let oldest = (self.live)(log)?;
        let behind = self
            .newest
            .filter(|newest| newest.0 == log)
            .map_or(oldest, |newest| newest.1.next());
        Some(oldest.max(behind))
    }

    /// Adds frames of the publications `first` to `last`, but for those that are not wanted.
    pub(super) fn append(
        &mut self,
        log: LogNumber,
        first: Sequence,
        last: Sequence,
        frames: &[u8],
        client_id: &mut dyn FnMut(PublicationId, Sequence),
    ) -> Result<(), SegmentError> {
        let Some(from) = self.wanted_from(log).filter(|&from| from <= last) else {
            return Ok(());
        };
        let frames = if first < from {
            behind(log, frames, from)?
        } else {
            frames
        };
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self
                .writer
                .insert(SegmentWriter::create(self.segments, self.header)?),
        };
        writer.append(log, frames, client_id)?;
        self.newest = Some((log, last));
        if writer.written() > self.rested {
            self.rested = writer.written();
            self.pace.rest();
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Option<SegmentSummary>, SegmentError> {
        self.writer.map(SegmentWriter::finish).transpose()
    }
}

/// The frames from the one at `from` on.
fn behind(log: LogNumber, mut frames: &[u8], from: Sequence) -> Result<&[u8], SegmentError> {
    while !frames.is_empty() {
        let (publication, rest) =
            StoredPublication::split_first(frames).map_err(|source| SegmentError::Frames {
                log,
                after: from.previous(),
                source,
            })?;
        if publication.sequence() >= from {
            break;
        }
        frames = rest;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::datalog::segment::SegmentFile;
    use crate::datalog::segment::tests::{Made, contents, frames, header, publications};

    fn part<'a>(log: u64, made: &[Made], frames: &'a [u8]) -> RecordView<'a> {
        RecordView::Publications {
            log: LogNumber(log),
            first: made[0].sequence,
            last: made[made.len() - 1].sequence,
            frames,
            offset: 0,
        }
    }

    #[test]
    fn publications_are_sorted_by_log_and_the_rest_keeps_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (publications(5, 20, 100), publications(1, 9, 10));
        let (early, late, other) = (frames(&one[..7]), frames(&one[7..]), frames(&two));
        let records = [
            RecordView::CreateLog(LogNumber(2)),
            part(8, &one[..7], &early),
            RecordView::Put {
                key: b"k",
                value: b"v",
            },
            part(2, &two, &other),
            part(8, &one[7..], &late),
            RecordView::Truncate {
                log: LogNumber(8),
                first: Sequence(5),
            },
            RecordView::Delete { key: b"k" },
            RecordView::RemoveLog(LogNumber(7)),
        ];
        let sealed = seal(
            records,
            &|_| Some(Sequence(1)),
            dir.path(),
            header(3),
            &Pace::hurried(),
        )
        .unwrap();
        let file = SegmentFile::open(dir.path(), header(3).id).unwrap();
        assert_eq!(sealed.segment, Some(file.summary().unwrap()));
        assert_eq!(sealed.segment.unwrap().runs.len(), 2);
        assert_eq!(
            contents(&file).unwrap(),
            BTreeMap::from([(2, two.clone()), (8, one.clone())])
        );
        let client = |log, made: &[Made]| {
            let supplied = made.iter().filter(|made| made.sequence.0 % 3 == 0);
            supplied
                .map(|made| (LogNumber(log), made.id, made.sequence))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            sealed.client_ids,
            [client(2, &two), client(8, &one)].concat()
        );
        let state = [
            Record::CreateLog(LogNumber(2)),
            Record::Put {
                key: (*b"k").into(),
                value: (*b"v").into(),
            },
            Record::Truncate {
                log: LogNumber(8),
                first: Sequence(5),
            },
            Record::Delete {
                key: (*b"k").into(),
            },
            Record::RemoveLog(LogNumber(7)),
        ];
        assert_eq!(sealed.state, state);
    }

    #[test]
    fn what_is_not_live_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let made = publications(1, 30, 10);
        let parts: Vec<_> = made.chunks(10).map(|made| (made, frames(made))).collect();
        let records = |log| {
            parts
                .iter()
                .map(move |(made, frames)| part(log, made, frames))
        };
        let live = |log: LogNumber| (log.0 == 1).then_some(Sequence(15));
        let sealed = seal(
            records(1).chain(records(2)),
            &live,
            dir.path(),
            header(1),
            &Pace::hurried(),
        )
        .unwrap();
        assert_eq!(sealed.segment.unwrap().runs.len(), 1);
        let file = SegmentFile::open(dir.path(), header(1).id).unwrap();
        assert_eq!(
            contents(&file).unwrap(),
            BTreeMap::from([(1, made[14..].to_vec())])
        );
        assert!(
            sealed
                .client_ids
                .iter()
                .all(|(log, _, sequence)| log.0 == 1 && sequence.0 >= 15)
        );
    }

    #[test]
    fn nothing_live_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let made = publications(1, 3, 10);
        let bytes = frames(&made);
        let sealed = seal(
            [part(1, &made, &bytes)],
            &|_| Some(Sequence(4)),
            dir.path(),
            header(1),
            &Pace::hurried(),
        )
        .unwrap();
        assert!(sealed.segment.is_none() && sealed.client_ids.is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn publications_that_come_twice_are_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let made = publications(1, 9, 10);
        let (one, two) = (frames(&made[..6]), frames(&made[3..]));
        let records = [
            part(1, &made[3..], &two),
            part(1, &made[..6], &one),
            part(1, &made[..6], &one),
        ];
        seal(
            records,
            &|_| Some(Sequence(1)),
            dir.path(),
            header(1),
            &Pace::hurried(),
        )
        .unwrap();
        let file = SegmentFile::open(dir.path(), header(1).id).unwrap();
        assert_eq!(contents(&file).unwrap(), BTreeMap::from([(1, made)]));
    }
}
