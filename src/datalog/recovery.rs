//! Opening: what the files say, put together.
//!
//! ```text
//!  catalogue (as of the newest sealed journal) + unsealed journals, oldest first = what was there
//! ```
//!
//! Owns the order of the steps and the judgement what is lost. Nothing is deleted here that was not copied to quarantine
//! before; a torn tail is cut only after all journals were looked at.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    ops::Range,
    sync::Arc,
    time::Instant,
};

use super::{
    LogNumber, LogReader, OpenError, Options, ReadError, Recovered, RecoveryReport,
    index::{Change, ChunkEntry, Index},
    journal::{
        JournalFile, Scan, Unsealed,
        format::{Batch, RecordView},
        newest_generation, scan,
    },
    segment::RunDescriptor,
    store::{During, Store},
    units::Source,
};
use crate::protocol::{PublicationId, Sequence};

/// What a start goes on with.
pub(crate) struct Recovery {
    pub(crate) recovered: Recovered,
    pub(crate) source: Arc<Source>,
    pub(crate) unsealed: Vec<Unsealed>,
    pub(crate) free: Vec<JournalFile>,
    pub(crate) dead: Vec<RunDescriptor>,
    pub(crate) next_generation: u64,
    pub(crate) last_batch: u64,
    /// Number of the next journal file.
    pub(crate) next_file: u64,
}

/// Reads everything back.
pub(crate) fn recover(store: &Store, options: &Options) -> Result<Recovery, OpenError> {
    let began = Instant::now();
    let index = Arc::new(Index::default());
    let source = Arc::new(Source::new(index.clone(), options.events.clone()));
    let sealed_through = 0;

    let files =
        JournalFile::open_all(&store.journal_dir()).during(|| "opening the journals".into())?;
    let next_file = files.last().map_or(1, |file| file.number() + 1);
    let (used, mut free) = by_generation(store, files, sealed_through)?;
    let mut replay = Replay::new(store, &index);
    let mut unsealed = Vec::new();
    for (_, file) in used {
        match replay.journal(file, sealed_through)? {
            Ok(journal) => unsealed.push(journal),
            Err(file) => free.push(file),
        }
    }
    let next_generation = replay
        .last_generation
        .max(sealed_through)
        .max(store.found().generation)
        // One generation may have been begun of which nothing reached the disk.
        .saturating_add(2);
    let Replay {
        state,
        next_log,
        mut report,
        hole,
        dead,
        last_batch,
        ..
    } = replay;

    let reader = LogReader::new(source.clone());
    let mut logs = HashMap::new();
    let mut uncertain = Vec::new();
    for (log, _) in index.all_bounds() {
        let extent = reader.extent(log).map_err(unreadable)?;
        report.logs += 1;
        report.publications += extent.last.0 + 1 - extent.first.0;
        logs.insert(log, extent);
        if hole.as_ref().is_some_and(|behind| !behind.contains(&log)) {
            uncertain.push(log);
        }
    }
    uncertain.sort_unstable();
    let state: Vec<_> = state
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let found = store.found();
    report.state_entries = state.len() as u64;
    report.unclean = found.unclean;
    report.duration = began.elapsed();
    Ok(Recovery {
        recovered: Recovered {
            state,
            logs,
            next_log,
            uncertain,
            unclean_boot: found.unclean_boot,
            report,
        },
        source,
        unsealed,
        free,
        dead,
        next_generation,
        last_batch,
        next_file,
    })
}

fn unreadable(error: ReadError) -> OpenError {
    let source = match error {
        ReadError::Io(source) => source,
        other => io::Error::other(other),
    };
    OpenError::Io {
        what: "reading a log".into(),
        source,
    }
}

type Used = Vec<(u64, JournalFile)>;

/// Journals that hold what is not sealed, in order; and those that are free.
fn by_generation(
    store: &Store,
    files: Vec<JournalFile>,
    sealed_through: u64,
) -> Result<(Used, Vec<JournalFile>), OpenError> {
    let (mut used, mut free) = (Vec::new(), Vec::new());
    for file in files {
        let bytes = read(&file)?;
        match newest_generation(&bytes, store.id(), sealed_through) {
            Some(generation) => used.push((generation, file)),
            None => free.push(file),
        }
    }
    used.sort_by_key(|(generation, _)| *generation);
    Ok((used, free))
}

fn read(file: &JournalFile) -> Result<Vec<u8>, OpenError> {
    file.read_all()
        .during(|| format!("reading {}", file.path().display()))
}

/// Collects what unsealed journals change.
struct Replay<'a> {
    store: &'a Store,
    index: &'a Index,
    state: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>,
    next_log: u64,
    last_generation: u64,
    last_batch: u64,
    /// Logs that were written to behind the last hole, if there is a hole: the end of the others may be in it.
    hole: Option<HashSet<LogNumber>>,
    dead: Vec<RunDescriptor>,
    report: RecoveryReport,
}

impl<'a> Replay<'a> {
    fn new(store: &'a Store, index: &'a Index) -> Self {
        Self {
            store,
            index,
            state: BTreeMap::new(),
            next_log: 1,
            last_generation: 0,
            last_batch: store.found().batch.saturating_sub(1),
            hole: None,
            dead: Vec::new(),
            report: RecoveryReport::default(),
        }
    }

    /// Replays one journal; gives it back if it holds nothing.
    fn journal(
        &mut self,
        file: JournalFile,
        sealed_through: u64,
    ) -> Result<Result<Unsealed, JournalFile>, OpenError> {
        let bytes = read(&file)?;
        let scan = scan(&bytes, self.store.id(), sealed_through, self.last_batch);
        let generation = scan.generation.unwrap_or_default();
        let is_cut = self.cut(&file, generation, &bytes, &scan)?;
        if scan.spans.is_empty() && is_cut {
            return Ok(Err(file));
        }
        let file = Arc::new(file);
        self.index.add_journal(generation, file.clone());
        if let Some((first, last)) = scan.numbers {
            if self.last_generation > 0 && scan.damaged.is_empty() {
                self.expect_batch(first, &file);
            }
            self.last_batch = last;
        }
        self.last_generation = self.last_generation.max(generation);
        self.report.batches += scan.batches;
        for span in &scan.spans {
            for range in scan.damaged.iter().filter(|range| range.end == span.start) {
                self.set_damaged_aside(&file, generation, &bytes, range);
            }
            self.span(&bytes, generation, span);
        }
        Ok(Ok(Unsealed {
            file,
            generation,
            spans: scan.spans,
        }))
    }

    /// A journal is begun only when the one before it is synced: what lacks between them was there.
    fn expect_batch(&mut self, first: u64, file: &JournalFile) {
        let expected = self.last_batch + 1;
        if first > expected {
            self.damage(&format!(
                "journal batches {expected} to {} are gone, in front of {}",
                first - 1,
                file.path().display()
            ));
        }
    }

    fn span(&mut self, bytes: &[u8], generation: u64, span: &Range<usize>) {
        let mut at = span.start;
        while at < span.end {
            let batch = Batch::read(&bytes[at..], self.store.id())
                .expect("invariant: a span holds valid batches");
            self.batch(&batch, generation, at);
            at += batch.len();
        }
    }

    fn batch(&mut self, batch: &Batch<'_>, generation: u64, at: usize) {
        let mut changes = Vec::new();
        let mut ids = Vec::new();
        for record in batch.records() {
            let Some(change) = record.and_then(|record| self.record(record, at, &mut ids)) else {
                continue;
            };
            match change {
                Change::Create(log) | Change::Append(log, _) => {
                    self.next_log = self.next_log.max(log.0 + 1);
                    self.hole.as_mut().map(|behind| behind.insert(log));
                }
                Change::Truncate(..) | Change::Remove(_) => {}
            }
            changes.push(change);
        }
        for change in &mut changes {
            if let Change::Append(_, chunk) = change {
                chunk.generation = generation;
            }
        }
        self.dead
            .extend(self.index.apply(generation, &changes, ids));
    }

    fn record(
        &mut self,
        record: RecordView<'_>,
        at: usize,
        ids: &mut Vec<(
            LogNumber,
            crate::protocol::PublicationId,
            crate::protocol::Sequence,
        )>,
    ) -> Option<Change> {
        Some(match record {
            RecordView::CreateLog(log) => Change::Create(log),
            RecordView::Truncate { log, first } => Change::Truncate(log, first),
            RecordView::RemoveLog(log) => Change::Remove(log),
            RecordView::Put { key, value } => {
                self.state.insert(key.into(), Some(value.into()));
                return None;
            }
            RecordView::Delete { key } => {
                self.state.insert(key.into(), None);
                return None;
            }
            RecordView::Publications {
                log,
                frames,
                offset,
                ..
            } => {
                let surveyed =
                    ChunkEntry::survey(frames, |id, sequence| ids.push((log, id, sequence)));
                let mut entry = surveyed.ok()?;
                entry.offset = u32::try_from(at + offset).ok()?;
                Change::Append(log, entry)
            }
        })
    }

    fn damage(&mut self, what: &str) {
        log::error!("{what}");
        self.report.quarantined.push(what.to_owned());
        self.hole = Some(HashSet::new());
    }

    fn set_damaged_aside(
        &mut self,
        file: &JournalFile,
        generation: u64,
        bytes: &[u8],
        range: &Range<usize>,
    ) {
        let name = format!("journal-{generation}-{}-damaged", range.start);
        let kept = self.store.quarantine_bytes(&name, &bytes[range.clone()]);
        let kept = match kept {
            Ok(()) => format!("a copy is quarantine/{name}"),
            Err(error) => format!("it could not be copied: {error}"),
        };
        self.damage(&format!(
            "{} is damaged from {} to {}; {kept}",
            file.path().display(),
            range.start,
            range.end
        ));
    }

    /// Cuts a torn tail, after it was copied. Where it can't be copied it stays, and it is false: nothing may be written
    /// over it, but nothing ever goes on behind it either.
    fn cut(
        &mut self,
        file: &JournalFile,
        generation: u64,
        bytes: &[u8],
        scan: &Scan,
    ) -> Result<bool, OpenError> {
        let Some(range) = scan.torn.clone() else {
            return Ok(true);
        };
        let path = file.path().display();
        let name = format!("journal-{generation}-{}-torn", range.start);
        let copied = self.store.quarantine_bytes(&name, &bytes[range.clone()]);
        if let Err(error) = copied {
            log::warn!("the torn tail of {path} can't be copied: {error}");
            return Ok(false);
        }
        let length = range.len() as u64;
        log::warn!("{path} ends in {length} torn bytes, copied to quarantine/{name}");
        self.report.cut_bytes += length;
        file.erase(range).during(|| format!("cutting {path}"))?;
        Ok(true)
    }
}
