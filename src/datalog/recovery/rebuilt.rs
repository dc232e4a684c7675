//! Making the catalogue again, of what the other files say.
//!
//! ```text
//!  state log ──> logs, state map, which generations are sealed ─┐
//!  segment footers ──> runs, ids that clients supplied ─────────┼──> catalogue
//!  journals that are sealed ──> what the state log lost ────────┘
//! ```
//!
//! Owns the judgement what is sealed when no catalogue says so: everything up to the newest generation that the state log tells of, or
//! of which there is a segment that can't be made again of a journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use super::{Replay, generation_of, read, sealed::unopened};
use crate::{
    datalog::{
        LogNumber, OpenError,
        catalogue::{Catalogue, CatalogueBatch, LogEntry, Meta, SegmentEntry},
        journal::{
            JournalFile, Scan,
            format::{Batch, RecordView},
            scan,
        },
        segment::{RunDescriptor, SegmentFile, SegmentId, SegmentSummary},
        state_log::{Replayed, StateLog},
        store::{During, Store},
    },
    protocol::{Sequence, Timestamp},
};

/// Fills an empty catalogue with what the other files say.
pub(super) fn rebuild(
    store: &Store,
    catalogue: &Catalogue,
    state_log: &StateLog,
    found: &[SegmentId],
    journals: &[JournalFile],
    replay: &mut Replay<'_>,
) -> Result<(), OpenError> {
    let mut state = SealedState::default();
    let replayed = state_log
        .replay(|record| {
            state.apply(&record);
            Ok::<_, io::Error>(())
        })
        .during(|| "reading the state log".into())?;
    state.is_partial = !replayed.damaged.is_empty();
    tell_damaged(store, state_log, &replayed, replay)
        .during(|| "copying what is damaged of the state log".into())?;
    let untold = untold_journals(store, replayed.generation, journals)?;
    let mut segments = whole_segments(store, found, replay)?;
    let sealed_through = segments
        .iter()
        .filter(|segment| !is_to_be_sealed_again(segment, &untold))
        .map(|segment| segment.header.generations.1)
        .fold(replayed.generation, u64::max);
    segments.retain(|segment| segment.header.generations.1 <= sealed_through);
    for (generation, Untold { file, scan }) in untold.range(..=sealed_through) {
        let bytes = read(file)?;
        for range in &scan.damaged {
            replay.set_damaged_aside(file, *generation, &bytes, range);
        }
        state.apply_journal(store, &bytes, scan);
    }
    replay.report.catalogue_rebuilt = replayed.generation > 0 || !segments.is_empty();
    let meta = Meta {
        store: store.id(),
        sealed_through,
        next_log: state.next_log,
    };
    let mut batch = CatalogueBatch::new(&meta);
    for segment in &segments {
        let runs = state.live_runs(segment);
        let entry = SegmentEntry {
            header: segment.header,
            file_len: segment.file_len,
        };
        batch.put_segment(&entry, &runs);
        put_ids(store, &mut batch, segment.header.id, &runs, replay);
    }
    for (log, entry) in &state.logs {
        batch.put_log(*log, entry);
    }
    for (key, value) in &state.map {
        batch.put_state(key, value);
    }
    catalogue.commit(batch).map_err(unopened)
}

fn tell_damaged(
    store: &Store,
    state_log: &StateLog,
    replayed: &Replayed,
    replay: &mut Replay<'_>,
) -> io::Result<()> {
    for range in &replayed.damaged {
        let (path, bytes) = (state_log.path().display(), state_log.read(range.clone())?);
        let name = format!("state-log-{}-{}-damaged", replayed.generation, range.start);
        store.quarantine_bytes(&name, &bytes)?;
        replay.damage(&format!(
            "{path} is damaged from {} to {}: changes of state are lost; a copy is quarantine/{name}",
            range.start, range.end
        ));
    }
    Ok(())
}

/// Of the segments that can be read, those that no other replaces: a newer one, or one that is of more generations. That is a merge
/// which the catalogue forgot, before one of the journals that it was made of was sealed again.
fn whole_segments(
    store: &Store,
    found: &[SegmentId],
    replay: &mut Replay<'_>,
) -> Result<Vec<SegmentSummary>, OpenError> {
    let mut kept: Vec<SegmentSummary> = Vec::new();
    for &id in found.iter().rev() {
        let path: PathBuf = id.path(&store.segment_dir());
        let doing = || format!("reading {}", path.display());
        let file = SegmentFile::open(&store.segment_dir(), id).during(doing)?;
        match file.summary() {
            Ok(summary) => {
                let (low, high) = summary.header.generations;
                let overlaps = |newer: &SegmentSummary| {
                    newer.header.generations.0 <= high && low <= newer.header.generations.1
                };
                let is_part = |newer: &SegmentSummary| {
                    let newer = newer.header.generations;
                    low <= newer.0 && newer.1 <= high && newer != (low, high)
                };
                if kept.iter().filter(|newer| overlaps(newer)).all(is_part) {
                    kept.retain(|newer| !overlaps(newer));
                    kept.push(summary);
                }
            }
            Err(damaged) => {
                let aside = store.quarantine(&path).during(doing)?;
                replay.damage(&format!("{damaged}; it is kept as {}", aside.display()));
            }
        }
    }
    Ok(kept)
}

/// A journal that is still there, of a generation that the state log does not tell of.
struct Untold<'a> {
    file: &'a JournalFile,
    scan: Scan,
}

/// Those that there are, by generation.
fn untold_journals<'a>(
    store: &Store,
    told: u64,
    journals: &'a [JournalFile],
) -> Result<BTreeMap<u64, Untold<'a>>, OpenError> {
    let mut untold = BTreeMap::new();
    for file in journals {
        if generation_of(store, file, told)?.is_none() {
            continue;
        }
        let scan = scan(&read(file)?, store.id(), told, 0);
        if let Some(generation) = scan.generation {
            untold.insert(generation, Untold { file, scan });
        }
    }
    Ok(untold)
}

/// Whether the segment was made of a journal that is still there, perhaps without becoming known. One that was merged was known.
fn is_to_be_sealed_again(segment: &SegmentSummary, untold: &BTreeMap<u64, Untold<'_>>) -> bool {
    let (low, high) = segment.header.generations;
    let journal = untold.get(&high);
    low == high && journal.is_some_and(|journal| journal.scan.is_whole())
}

fn put_ids(
    store: &Store,
    batch: &mut CatalogueBatch,
    segment: SegmentId,
    runs: &[RunDescriptor],
    replay: &mut Replay<'_>,
) {
    let Ok(file) = SegmentFile::open(&store.segment_dir(), segment) else {
        return;
    };
    for run in runs {
        match file.client_ids(run) {
            Ok(ids) => {
                for (id, sequence) in ids {
                    batch.put_id(run.log, &id, sequence);
                }
            }
            Err(damaged) => {
                log::error!("{damaged}: ids that clients supplied are lost");
                let note = format!("{damaged}: ids that clients supplied are lost");
                replay.report.damage.push(note);
            }
        }
    }
}

/// What the state log says, with the segments' runs.
#[derive(Debug)]
struct SealedState {
    logs: BTreeMap<LogNumber, LogEntry>,
    removed: BTreeSet<LogNumber>,
    map: BTreeMap<Box<[u8]>, Box<[u8]>>,
    next_log: u64,
    /// Some of the state log is lost: a log that it does not tell of may live.
    is_partial: bool,
    /// Behind the newest run of each log.
    ends: BTreeMap<LogNumber, Vec<(Sequence, Sequence)>>,
}

impl Default for SealedState {
    fn default() -> Self {
        Self {
            logs: BTreeMap::new(),
            removed: BTreeSet::new(),
            map: BTreeMap::new(),
            next_log: 1,
            is_partial: false,
            ends: BTreeMap::new(),
        }
    }
}

const EMPTY: LogEntry = LogEntry {
    first: Sequence(1),
    last: Sequence::ZERO,
    last_time: Timestamp(0),
};

impl SealedState {
    fn apply(&mut self, record: &RecordView<'_>) {
        match *record {
            RecordView::CreateLog(log) => {
                self.next_log = self.next_log.max(log.0 + 1);
                self.logs.entry(log).or_insert(EMPTY);
            }
            RecordView::RemoveLog(log) => {
                self.logs.remove(&log);
                self.removed.insert(log);
            }
            RecordView::Truncate { log, first } => {
                if let Some(entry) = self.logs.get_mut(&log) {
                    entry.first = entry.first.max(first);
                    entry.last = entry.last.max(entry.first.previous());
                }
            }
            RecordView::Put { key, value } => {
                self.map.insert(key.into(), value.into());
            }
            RecordView::Delete { key } => {
                self.map.remove(key);
            }
            RecordView::Publications { .. } => {}
        }
    }

    /// What a journal says whose publications are in a segment.
    fn apply_journal(&mut self, store: &Store, bytes: &[u8], scan: &Scan) {
        for span in &scan.spans {
            let mut at = span.start;
            while let Some(batch) = Batch::read(&bytes[at..span.end], store.id()) {
                for record in batch.records().flatten() {
                    self.apply(&record);
                }
                at = (at + batch.len()).min(span.end);
            }
        }
    }

    /// The segment's runs that are live and don't tell again what another tells. Their logs are as long as they say.
    fn live_runs(&mut self, segment: &SegmentSummary) -> Vec<RunDescriptor> {
        let mut live = Vec::new();
        for run in &segment.runs {
            if self.is_partial && !self.removed.contains(&run.log) {
                self.next_log = self.next_log.max(run.log.0 + 1);
                self.logs.entry(run.log).or_insert(EMPTY);
            }
            let Some(entry) = self.logs.get_mut(&run.log) else {
                continue;
            };
            let told = self.ends.entry(run.log).or_default();
            let overlaps = told
                .iter()
                .any(|(first, last)| *first <= run.last && run.first <= *last);
            if run.last < entry.first || overlaps {
                continue;
            }
            told.push((run.first, run.last));
            entry.last = entry.last.max(run.last);
            entry.last_time = entry.last_time.max(run.last_time);
            live.push(*run);
        }
        live
    }
}
