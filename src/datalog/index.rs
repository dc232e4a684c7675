//! Where everything is: in memory, shared by the writer, the readers and the background thread.
//!
//! Owns which logs live, what they keep, and in which journal or segment each part stands. Does no I/O: a reader takes a
//! snapshot of the pieces it needs, which keeps their files open, and reads without the lock.
//!
//! A log's pieces are its runs (in segments) and behind them its chunks (in journals), in sequence order; what lies between
//! two pieces, and is not below the log's first, is damaged. When a journal is sealed, a log's chunks in it change into one run
//! at one moment, which is not the same for all logs.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::{
    LogNumber,
    catalogue::LogEntry,
    chunk::ChunkEntry,
    journal::JournalFile,
    runs::Runs,
    segment::{RunDescriptor, SegmentFile, SegmentId},
};
use crate::protocol::{PublicationId, Sequence, Timestamp};

type Map<K, V> = HashMap<K, V, RandomState>;

/// What a batch changes here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Create(LogNumber),
    Append(LogNumber, ChunkEntry),
    Truncate(LogNumber, Sequence),
    Remove(LogNumber),
}

/// A part of a log, with what is needed to read it.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Chunk(ChunkEntry, Arc<JournalFile>),
    Run(RunDescriptor, Arc<SegmentFile>),
}

impl Piece {
    pub(crate) fn first(&self) -> Sequence {
        match self {
            Self::Chunk(chunk, _) => chunk.first,
            Self::Run(run, _) => run.first,
        }
    }
}

/// What a log keeps, as of one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
}

/// Sum of payloads, as far as whole pieces tell it.
#[derive(Clone, Debug)]
pub(crate) struct Weighed {
    /// Of the pieces in front of `piece`.
    pub(crate) before: u64,
    /// The piece in which the place asked for lies.
    pub(crate) piece: Option<Piece>,
}

#[derive(Debug)]
struct Log {
    bounds: Bounds,
    /// Of the newest that there ever was.
    last_time: Timestamp,
    runs: Runs,
    chunks: Vec<ChunkEntry>,
}

impl Log {
    fn new(first: Sequence, last: Sequence, last_time: Timestamp) -> Self {
        Self {
            bounds: Bounds { first, last },
            last_time,
            runs: Runs::default(),
            chunks: Vec::new(),
        }
    }

    fn empty() -> Self {
        Self::new(Sequence(1), Sequence::ZERO, Timestamp::default())
    }

    /// In order, from the first that is not `is_before`. It is found by halving among chunks, which may be many.
    fn pieces(
        &self,
        number: LogNumber,
        is_before: impl Fn(&Place) -> bool,
    ) -> impl Iterator<Item = Place> {
        let chunk = self
            .chunks
            .partition_point(|chunk| is_before(&Place::Chunk(*chunk)));
        let chunks = self.chunks[chunk..].iter().copied().map(Place::Chunk);
        let runs = self.runs.iter(number).map(Place::Run);
        runs.skip_while(move |run| is_before(run)).chain(chunks)
    }

    /// Whether a chunk is new: neither a piece nor below the log's first. Where a commit of the catalogue did not end, a log
    /// may know of a last that is in a journal still to be replayed.
    fn lacks(&self, number: LogNumber, chunk: &ChunkEntry) -> bool {
        let is_behind = |piece: &Place| piece.last() < chunk.first;
        self.bounds.last < chunk.first
            || self.bounds.first <= chunk.last() && self.pieces(number, is_behind).next().is_none()
    }

    /// Drops the chunks that are sealed.
    fn drop_chunks(&mut self, generation: u64) {
        let sealed = self
            .chunks
            .partition_point(|chunk| chunk.generation <= generation);
        if sealed > 0 {
            self.chunks.drain(..sealed);
            self.chunks.shrink_to_fit();
        }
    }

    /// Drops the pieces that lie below the log's first.
    fn drop_dead(&mut self, number: LogNumber, dead: &mut Vec<RunDescriptor>) {
        let first = self.bounds.first;
        let is_dead = |run: &RunDescriptor| run.last < first;
        if self.runs.iter(number).next().as_ref().is_some_and(is_dead) {
            self.runs.edit(number, |runs| {
                let alive = runs.partition_point(is_dead);
                dead.extend(runs.drain(..alive));
            });
        }
        let chunks = self.chunks.partition_point(|chunk| chunk.last() < first);
        self.chunks.drain(..chunks);
        if chunks > 0 && self.chunks.capacity() > 2 * self.chunks.len() {
            self.chunks.shrink_to_fit();
        }
    }
}

/// As many runs as a quiet log has before they are merged, one in each young segment.
const FEW: usize = 16;

/// Most logs are quiet, and there are many: room for twice as much as they hold would be half of what they cost.
fn push_sparing<T>(vec: &mut Vec<T>, element: T) {
    if vec.len() == vec.capacity() && vec.len() < FEW {
        vec.reserve_exact(1);
    }
    vec.push(element);
}

#[derive(Debug)]
struct Journal {
    generation: u64,
    file: Arc<JournalFile>,
    /// Ids that clients supplied, in chunks of this journal.
    ids: Map<(LogNumber, PublicationId), Sequence>,
}

/// Live runs of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Live {
    pub(crate) runs: u64,
    /// What they take in the file.
    pub(crate) bytes: u64,
}

impl Live {
    fn add(&mut self, run: &RunDescriptor) {
        self.runs += 1;
        self.bytes += run.stored_bytes;
    }

    fn subtract(&mut self, run: &RunDescriptor) {
        self.runs = self.runs.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(run.stored_bytes);
    }
}

#[derive(Debug, Default)]
struct Inner {
    logs: Map<LogNumber, Log>,
    journals: Vec<Journal>,
    segments: Map<SegmentId, Arc<SegmentFile>>,
    /// What is alive in each segment.
    live: Map<SegmentId, Live>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    inner: RwLock<Inner>,
}

impl Index {
    /// A log as the catalogue knows it. Its runs follow with [`add_runs`](Self::add_runs).
    pub(crate) fn add_log(&self, log: LogNumber, entry: &LogEntry) {
        let log_of = Log::new(entry.first, entry.last, entry.last_time);
        self.inner.write().logs.insert(log, log_of);
    }

    /// A segment, opened.
    pub(crate) fn add_segment(&self, file: Arc<SegmentFile>) {
        self.inner.write().segments.insert(file.id(), file);
    }

    /// Runs as the catalogue knows them, in order of (log, sequence). Those of logs that do not live, or below a log's first,
    /// are given back.
    pub(crate) fn add_runs(&self, runs: &[RunDescriptor]) -> Vec<RunDescriptor> {
        self.inner.write().add_runs(runs)
    }

    /// A journal whose chunks may come.
    pub(crate) fn add_journal(&self, generation: u64, file: Arc<JournalFile>) {
        self.inner.write().journals.push(Journal {
            generation,
            file,
            ids: Map::default(),
        });
    }

    /// Takes another file for a generation of which nothing is written yet.
    pub(crate) fn replace_journal(&self, generation: u64, file: Arc<JournalFile>) {
        let mut inner = self.inner.write();
        let mut journals = inner.journals.iter_mut();
        let journal = journals.find(|journal| journal.generation == generation);
        journal.expect("invariant: it was added").file = file;
    }

    /// Makes what a batch changes visible, all at once, and gives back the runs that are dead now.
    ///
    /// A chunk of an unknown log makes it (its beginning was damaged); a chunk at or below a log's last piece is passed over.
    pub(crate) fn apply(
        &self,
        generation: u64,
        changes: &[Change],
        ids: impl IntoIterator<Item = (LogNumber, PublicationId, Sequence)>,
    ) -> Vec<RunDescriptor> {
        let mut inner = self.inner.write();
        let mut dead = Vec::new();
        for change in changes {
            match *change {
                Change::Create(number) => {
                    inner.logs.entry(number).or_insert_with(Log::empty);
                }
                Change::Append(number, chunk) => {
                    let log = inner.logs.entry(number).or_insert_with(Log::empty);
                    if log.lacks(number, &chunk) {
                        log.bounds.last = log.bounds.last.max(chunk.last());
                        log.last_time = log.last_time.max(chunk.last_time);
                        push_sparing(&mut log.chunks, chunk);
                    }
                }
                Change::Truncate(number, first) => {
                    if let Some(log) = inner.logs.get_mut(&number) {
                        log.bounds.first = log.bounds.first.max(first);
                        log.bounds.last = log.bounds.last.max(log.bounds.first.previous());
                        log.drop_dead(number, &mut dead);
                    }
                }
                Change::Remove(number) => {
                    if let Some(log) = inner.logs.remove(&number) {
                        dead.extend(log.runs.iter(number));
                    }
                }
            }
        }
        inner.bury(&dead);
        if let Some(journal) = inner
            .journals
            .iter_mut()
            .rfind(|journal| journal.generation == generation)
        {
            let ids = ids.into_iter();
            journal
                .ids
                .extend(ids.map(|(log, id, sequence)| ((log, id), sequence)));
        }
        dead
    }

    /// Replaces what a journal holds by the runs that it was sealed into. Gives back its file, and the runs that died
    /// meanwhile.
    ///
    /// Every log with a chunk in the journal has a run, unless the journal was damaged. Each log changes at one moment, and
    /// only some at the same: nobody waits until all have.
    pub(crate) fn seal(
        &self,
        generation: u64,
        segment: Option<Arc<SegmentFile>>,
        runs: &[RunDescriptor],
        was_damaged: bool,
    ) -> (Option<Arc<JournalFile>>, Vec<RunDescriptor>) {
        self.add_segments(segment);
        let mut dead = Vec::new();
        for runs in portions(runs) {
            let mut inner = self.inner.write();
            for run in runs {
                if let Some(log) = inner.logs.get_mut(&run.log) {
                    log.drop_chunks(generation);
                }
            }
            dead.extend(inner.add_runs(runs));
        }
        let mut inner = self.inner.write();
        if was_damaged {
            for log in inner.logs.values_mut() {
                log.drop_chunks(generation);
            }
        }
        let mut journals = inner.journals.iter();
        let at = journals.position(|journal| journal.generation == generation);
        let sealed = at.map(|at| inner.journals.remove(at));
        // Its ids may be many, and take their time to go.
        drop(inner);
        (sealed.map(|journal| journal.file), dead)
    }

    /// Replaces the runs of some segments, which `logs` have, by those of one that was made of them. Gives back the runs that
    /// died meanwhile. Each log changes at one moment, as in [`seal`](Self::seal).
    pub(crate) fn merge(
        &self,
        inputs: &[SegmentId],
        logs: impl IntoIterator<Item = LogNumber>,
        output: Option<Arc<SegmentFile>>,
        runs: &[RunDescriptor],
    ) -> Vec<RunDescriptor> {
        self.add_segments(output);
        let mut logs: Vec<_> = logs.into_iter().collect();
        logs.sort_unstable();
        logs.dedup();
        let (mut dead, mut left) = (Vec::new(), runs);
        for logs in logs.chunks(PORTION) {
            let mut inner = self.inner.write();
            for number in logs {
                if let Some(log) = inner.logs.get_mut(number) {
                    log.runs.edit(*number, |runs| {
                        runs.retain(|run| !inputs.contains(&run.segment))
                    });
                }
            }
            let of_these = left.partition_point(|run| Some(&run.log) <= logs.last());
            let (runs, behind) = left.split_at(of_these);
            dead.extend(inner.add_runs(runs));
            left = behind;
        }
        let mut inner = self.inner.write();
        dead.extend(inner.add_runs(left));
        for input in inputs {
            inner.segments.remove(input);
            inner.live.remove(input);
        }
        dead
    }

    fn add_segments(&self, files: impl IntoIterator<Item = Arc<SegmentFile>>) {
        let files = files.into_iter().map(|file| (file.id(), file));
        self.inner.write().segments.extend(files);
    }

    /// Forgets a segment, none of whose runs is live.
    pub(crate) fn remove_segment(&self, segment: SegmentId) -> Option<Arc<SegmentFile>> {
        let mut inner = self.inner.write();
        inner.live.remove(&segment);
        inner.segments.remove(&segment)
    }

    /// An open segment.
    pub(crate) fn segment(&self, segment: SegmentId) -> Option<Arc<SegmentFile>> {
        self.inner.read().segments.get(&segment).cloned()
    }

    /// Every journal that holds something, or is being written.
    pub(crate) fn journal_files(&self) -> Vec<Arc<JournalFile>> {
        let inner = self.inner.read();
        let files = inner.journals.iter().map(|journal| journal.file.clone());
        files.collect()
    }

    /// What is to be known of a log when everything up to `generation` is sealed. Journals behind it, replayed over that, make
    /// it what it is now.
    pub(crate) fn log_entry(&self, log: LogNumber, generation: u64) -> Option<LogEntry> {
        let inner = self.inner.read();
        let log = inner.logs.get(&log)?;
        let behind = log
            .chunks
            .partition_point(|chunk| chunk.generation <= generation);
        let (last, last_time) = match log.chunks.get(behind) {
            Some(chunk) => (chunk.first.previous(), chunk.first_time),
            None => (log.bounds.last, log.last_time),
        };
        Some(LogEntry {
            first: log.bounds.first.min(last.next()),
            last,
            last_time,
        })
    }

    /// Time of the newest publication that a log ever had; 0 if it had none.
    pub(crate) fn last_time(&self, log: LogNumber) -> Option<Timestamp> {
        self.inner.read().logs.get(&log).map(|log| log.last_time)
    }

    /// What a log keeps, if it lives.
    pub(crate) fn bounds(&self, log: LogNumber) -> Option<Bounds> {
        self.inner.read().logs.get(&log).map(|log| log.bounds)
    }

    /// Every live log.
    pub(crate) fn all_bounds(&self) -> Vec<(LogNumber, Bounds)> {
        let inner = self.inner.read();
        let bounds = inner.logs.iter().map(|(&number, log)| (number, log.bounds));
        bounds.collect()
    }

    /// The pieces that hold `from` and what follows, at most `limit`.
    pub(crate) fn pieces(
        &self,
        log: LogNumber,
        from: Sequence,
        limit: usize,
    ) -> Option<(Bounds, Vec<Piece>)> {
        let inner = self.inner.read();
        let entry = inner.logs.get(&log)?;
        let pieces = entry
            .pieces(log, |piece| piece.last() < from)
            .take(limit)
            .filter_map(|piece| inner.piece(piece));
        Some((entry.bounds, pieces.collect()))
    }

    /// The first sequence of the first piece that holds something of `time` or later.
    pub(crate) fn piece_since(&self, log: LogNumber, time: Timestamp) -> Option<Sequence> {
        let inner = self.inner.read();
        let log_of = inner.logs.get(&log)?;
        let mut pieces = log_of.pieces(log, |piece| piece.last_time() < time);
        pieces.next().map(|piece| piece.first())
    }

    /// Payload bytes in front of `sequence`, counted from the log's first piece.
    pub(crate) fn weigh_before(&self, log: LogNumber, sequence: Sequence) -> Option<Weighed> {
        self.weigh(log, |piece, _| piece.last() >= sequence)
    }

    /// Where the payload bytes, counted from the log's first piece, reach `bytes`.
    pub(crate) fn weigh_to(&self, log: LogNumber, bytes: u64) -> Option<Weighed> {
        self.weigh(log, |piece, before| before + piece.bytes() >= bytes)
    }

    fn weigh(&self, log: LogNumber, mut is_it: impl FnMut(&Place, u64) -> bool) -> Option<Weighed> {
        let inner = self.inner.read();
        let mut before = 0;
        for piece in inner.logs.get(&log)?.pieces(log, |_| false) {
            if is_it(&piece, before) {
                let piece = inner.piece(piece);
                return Some(Weighed { before, piece });
            }
            before += piece.bytes();
        }
        Some(Weighed {
            before,
            piece: None,
        })
    }

    /// Where a journal holds an id that a client supplied; newer journals first.
    pub(crate) fn unsealed_id(&self, log: LogNumber, id: PublicationId) -> Option<Sequence> {
        let inner = self.inner.read();
        let mut journals = inner.journals.iter().rev();
        journals.find_map(|journal| journal.ids.get(&(log, id)).copied())
    }

    /// What is alive in a segment.
    pub(crate) fn live(&self, segment: SegmentId) -> Live {
        let inner = self.inner.read();
        inner.live.get(&segment).copied().unwrap_or_default()
    }
}

/// Logs that change under one lock, which takes below a millisecond: whoever publishes or reads waits for it.
const PORTION: usize = 512;

/// Portions of runs that are sorted by log; those of one log stay together.
fn portions(mut runs: &[RunDescriptor]) -> impl Iterator<Item = &[RunDescriptor]> {
    std::iter::from_fn(move || {
        let last = runs.get(PORTION.min(runs.len()).checked_sub(1)?)?.log;
        let (portion, rest) = runs.split_at(runs.partition_point(|run| run.log <= last));
        runs = rest;
        Some(portion)
    })
}

/// A piece, as a log knows it.
#[derive(Clone, Copy)]
enum Place {
    Chunk(ChunkEntry),
    Run(RunDescriptor),
}

impl Place {
    fn first(&self) -> Sequence {
        match self {
            Self::Chunk(chunk) => chunk.first,
            Self::Run(run) => run.first,
        }
    }

    fn last(&self) -> Sequence {
        match self {
            Self::Chunk(chunk) => chunk.last(),
            Self::Run(run) => run.last,
        }
    }

    fn last_time(&self) -> Timestamp {
        match self {
            Self::Chunk(chunk) => chunk.last_time,
            Self::Run(run) => run.last_time,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Chunk(chunk) => u64::from(chunk.bytes),
            Self::Run(run) => run.bytes,
        }
    }
}

impl Inner {
    /// Those that are dead are given back.
    fn add_runs(&mut self, runs: &[RunDescriptor]) -> Vec<RunDescriptor> {
        let mut dead = Vec::new();
        for run in runs {
            match self.logs.get_mut(&run.log) {
                Some(log) if log.bounds.first <= run.last => {
                    log.bounds.last = log.bounds.last.max(run.last);
                    log.last_time = log.last_time.max(run.last_time);
                    log.runs.insert(run);
                    self.live.entry(run.segment).or_default().add(run);
                }
                _ => dead.push(*run),
            }
        }
        dead
    }

    fn bury(&mut self, dead: &[RunDescriptor]) {
        for run in dead {
            if let Some(live) = self.live.get_mut(&run.segment) {
                live.subtract(run);
            }
        }
    }

    /// `None` if its file could not be opened: that is a hole.
    fn piece(&self, place: Place) -> Option<Piece> {
        Some(match place {
            Place::Chunk(chunk) => {
                let mut journals = self.journals.iter();
                let journal = journals.find(|journal| journal.generation == chunk.generation)?;
                Piece::Chunk(chunk, journal.file.clone())
            }
            Place::Run(run) => Piece::Run(run, self.segments.get(&run.segment)?.clone()),
        })
    }
}
