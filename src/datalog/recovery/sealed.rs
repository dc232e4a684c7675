//! Opening what is sealed: by the catalogue, or, if that is damaged or gone, by making it again.
//!
//! ```text
//!  state log ──> logs, state map, which generations are sealed ─┐
//!  segment footers ──> runs, ids that clients supplied ─────────┴──> catalogue
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ffi::OsStr,
    io,
    ops::RangeInclusive,
    path::PathBuf,
    sync::Arc,
};

use super::{Replay, generation_of, outdated::why_outdated, read};
use crate::{
    datalog::{
        LogNumber, OpenError, Options, StateMap,
        background::Holdings,
        catalogue::{
            Catalogue, CatalogueBatch, CatalogueError, CatalogueState, LogEntry, Meta, SegmentEntry,
        },
        disk,
        journal::{
            JournalFile, Scan,
            format::{Batch, RecordView},
            scan,
        },
        segment::{RunDescriptor, SegmentFile, SegmentId, SegmentSummary},
        state_log::{Replayed, StateLog},
        store::{During, Store, ignore_full},
    },
    protocol::{Sequence, Timestamp},
};

/// Logs and entries of state of which sled keeps so much in memory that opening it anew, some 30 ms, is worth the time.
const MANY: usize = 10_000;

/// Fills the index of `replay` with what is sealed.
pub(super) fn open(
    store: &Store,
    options: &Options,
    journals: &[JournalFile],
    replay: &mut Replay<'_>,
) -> Result<(Holdings, StateMap), OpenError> {
    let opening_state_log = || "opening the state log".to_owned();
    let mut state_log = open_state_log(store).during(opening_state_log)?;
    set_torn_aside(store, &state_log, replay).during(opening_state_log)?;
    let found = segment_files(store).during(|| "listing the segments".into())?;

    let mut opened = open_catalogue(store, options);
    if let Ok((_, state)) = &opened
        && let Some(why) = why_outdated(store, state, &state_log, &found, journals)?
    {
        let why = format!("it is not the newest: {why}, and it does not say so");
        opened = Err(CatalogueError::Damaged(why));
    }
    let (catalogue, state) = match opened {
        Ok((catalogue, state)) if state.meta.is_some() => (catalogue, state),
        Ok((catalogue, _)) => {
            rebuild(store, &catalogue, &state_log, &found, journals, replay)?;
            let state = catalogue.load().map_err(unopened)?;
            (catalogue, state)
        }
        Err(error) if error.is_damage() => {
            let (dir, quarantine) = (store.catalogue_dir(), store.quarantine_dir());
            let aside = Catalogue::set_aside(&dir, &quarantine)
                .during(|| format!("setting {} aside", dir.display()))?;
            log::error!("{error}; it is made again, and kept as {}", aside.display());
            let note = format!("{error}; it is kept as {}", aside.display());
            replay.report.damage.push(note);
            let (catalogue, _) = open_catalogue(store, options).map_err(unopened)?;
            rebuild(store, &catalogue, &state_log, &found, journals, replay)?;
            let state = catalogue.load().map_err(unopened)?;
            (catalogue, state)
        }
        Err(error) => return Err(unopened(error)),
    };
    let meta = state
        .meta
        .expect("invariant: a catalogue is committed when it is made");
    tell_behind(store, &state_log, meta, replay).during(opening_state_log)?;
    if !store.is_stand_in() {
        bring_up(&mut state_log, &catalogue, meta);
    }
    if state.logs.len() + state.state.len() > MANY {
        catalogue.shed().map_err(unopened)?;
    }

    for (log, entry) in &state.logs {
        replay.index.add_log(*log, entry);
    }
    let mut unmergeable = HashSet::new();
    for entry in &state.segments {
        let id = entry.header.id;
        match SegmentFile::open(&store.segment_dir(), id) {
            Ok(file) => replay.index.add_segment(file),
            Err(error) => {
                log::error!("segment {} can't be read: {error}", id.file_name());
                let note = format!("segment {} can't be read: {error}", id.file_name());
                replay.report.damage.push(note);
                unmergeable.insert(id);
            }
        }
    }
    let dead = replay.index.add_runs(&state.runs);
    replay.dead.extend(dead);
    let told = meta.sealed_through + 1..=state_log.generation();
    remove_leftovers(store, &found, &state.segments, &told, replay)
        .during(|| "removing old segments".into())?;
    let newest = found.last().map_or(0, |id| id.0);
    let segments: BTreeMap<_, _> = state
        .segments
        .into_iter()
        .map(|entry| (entry.header.id, entry))
        .collect();
    let listed = segments.last_key_value().map_or(0, |(id, _)| id.0);
    let holdings = Holdings {
        catalogue: Arc::new(catalogue),
        state_log,
        meta,
        segments,
        unmergeable,
        next_segment: newest.max(listed) + 1,
    };
    Ok((holdings, state.state))
}

fn unopened(error: CatalogueError) -> OpenError {
    match error {
        CatalogueError::Io(source) => OpenError::Io {
            what: "opening the catalogue".into(),
            source,
        },
        other => OpenError::Catalogue(other.to_string()),
    }
}

fn open_catalogue(
    store: &Store,
    options: &Options,
) -> Result<(Catalogue, CatalogueState), CatalogueError> {
    let catalogue = Catalogue::open(&store.catalogue_dir(), options.sled_cache)?;
    let state = catalogue.load()?;
    if state.meta.is_some_and(|meta| meta.store != store.id()) {
        return Err(CatalogueError::Damaged("it is another store's".into()));
    }
    if store.found().unclean_boot {
        catalogue.verify_ids()?;
    }
    Ok((catalogue, state))
}

fn open_state_log(store: &Store) -> io::Result<StateLog> {
    if store.is_stand_in() {
        return StateLog::look(&store.state_dir(), store.id());
    }
    let state_log = StateLog::open(&store.state_dir(), store.id())?;
    if store.found().unclean {
        // On a full disk of a kind that writes nothing in place there is no room for it.
        state_log.write_again().or_else(ignore_full)?;
    }
    Ok(state_log)
}

fn set_torn_aside(store: &Store, state_log: &StateLog, replay: &mut Replay<'_>) -> io::Result<()> {
    let Some(torn) = state_log.torn()? else {
        return Ok(());
    };
    let name = format!("state-log-{}-torn", state_log.generation());
    log::warn!(
        "the state log ends in {} torn bytes, copied to quarantine/{name}",
        torn.len()
    );
    replay.report.cut_bytes += torn.len() as u64;
    store.quarantine_bytes(&name, &torn)
}

/// A state log that lost its end, or something in its midst, is written anew: what is there is kept.
fn tell_behind(
    store: &Store,
    state_log: &StateLog,
    meta: Meta,
    replay: &mut Replay<'_>,
) -> io::Result<()> {
    let is_behind = state_log.generation() < meta.sealed_through;
    if !is_behind && !state_log.is_damaged() {
        return Ok(());
    }
    let name = format!("state-log-{}-damaged", meta.sealed_through);
    match disk::hard_link(state_log.path(), &store.quarantine_dir().join(&name)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let path = state_log.path().display();
    let what = if is_behind {
        "lacks its end"
    } else {
        "is damaged in its midst"
    };
    replay.note(&format!(
        "{path} {what}, and is made again from the catalogue; it is kept as quarantine/{name}"
    ));
    Ok(())
}

/// Sees to it that the state log says what the catalogue says. Where it can't be written now, it will be another time.
fn bring_up(state_log: &mut StateLog, catalogue: &Catalogue, meta: Meta) {
    let behind = state_log.generation() < meta.sealed_through;
    // What is ahead is of journals that will be sealed again.
    let ahead = state_log.generation() > meta.sealed_through;
    if ahead || !(behind || state_log.wants_rewrite()) {
        return;
    }
    if let Err(error) = state_log.rewrite(catalogue, meta.sealed_through) {
        log::warn!("the state log could not be made again: {error}");
    }
}

/// Numbers of the segments that are there, in order. What was not finished is removed.
fn segment_files(store: &Store) -> io::Result<Vec<SegmentId>> {
    let mut found = Vec::new();
    for path in disk::paths_in(&store.segment_dir())? {
        let path = path?;
        if path.extension() == Some(OsStr::new("tmp")) {
            disk::remove(&path)?;
            continue;
        }
        let name = path.file_name().and_then(OsStr::to_str);
        found.extend(name.and_then(SegmentId::of_file_name));
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes segments that were merged into others, or never became known. One that does not say what it holds is kept, and so is
/// one of a generation that the state log tells of and the catalogue doesn't: were the catalogue lost before that generation is
/// sealed again, what is in its journal would count as sealed.
fn remove_leftovers(
    store: &Store,
    found: &[SegmentId],
    listed: &[SegmentEntry],
    told: &RangeInclusive<u64>,
    replay: &mut Replay<'_>,
) -> io::Result<()> {
    let listed: HashSet<_> = listed.iter().map(|entry| entry.header.id).collect();
    for &id in found.iter().filter(|id| !listed.contains(id)) {
        let path = id.path(&store.segment_dir());
        let file = match SegmentFile::open(&store.segment_dir(), id) {
            // A start that was cut short, or quarantine, was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        match file.footer() {
            Ok(footer) if told.contains(&footer.header.generations.1) => {}
            Ok(_) => disk::remove(&path)?,
            Err(damaged) => {
                let aside = store.quarantine(&path)?;
                // It may be of no use any more: nobody's end is taken for lost.
                let note = format!("{damaged}; it is kept as {}", aside.display());
                log::error!("{note}");
                replay.report.damage.push(note);
            }
        }
    }
    Ok(())
}

/// Fills an empty catalogue with what the other files say.
fn rebuild(
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
