//! Opening: what the files say, put together.
//!
//! ```text
//!  catalogue (as of the newest sealed journal) + unsealed journals, oldest first = what was there
//! ```
//!
//! Owns the order of the steps and the judgement what is lost. What can't be read is set aside, never deleted; a torn tail is
//! copied before it is cut.

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod outdated;
mod rebuilt;
mod replay;
mod sealed;
mod torn;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::Arc,
    time::Instant,
};

use super::{
    LogExtent, LogNumber, LogReader, OpenError, Options, ReadError, Recovered, RecoveryReport,
    StateMap,
    background::Holdings,
    index::Index,
    journal::{JournalFile, Unsealed, newest_generation, scan},
    pace::Pace,
    segment::RunDescriptor,
    store::{During, Store, Uncut},
    units::Source,
};
use replay::Replay;
use torn::Torn;

/// What a start goes on with.
pub(crate) struct Recovery {
    pub(crate) recovered: Recovered,
    pub(crate) holdings: Holdings,
    pub(crate) source: Arc<Source>,
    pub(crate) unsealed: Vec<Unsealed>,
    pub(crate) free: Vec<JournalFile>,
    pub(crate) dead: Vec<RunDescriptor>,
    /// Keys of the state map that unsealed journals change; of a stand-in only.
    pub(crate) changed_keys: HashSet<Box<[u8]>>,
    pub(crate) next_generation: u64,
    pub(crate) last_batch: u64,
    /// Generation and number of the newest batch that was found in a journal.
    pub(crate) newest: (u64, u64),
    /// Number of the next journal file.
    pub(crate) next_file: u64,
    /// Torn tails that there was no room to copy.
    pub(crate) uncut: Vec<Uncut>,
}

/// Reads everything back.
pub(crate) fn recover(store: &Store, options: &Options) -> Result<Recovery, OpenError> {
    let began = Instant::now();
    let files = JournalFile::open_all(&store.journal_dir(), store.is_stand_in())
        .during(|| "opening the journals".into())?;
    let next_file = files.last().map_or(1, |file| file.number() + 1);
    let index = Arc::new(Index::default());
    let torn = Torn::find(store).during(|| "looking into the quarantine".into())?;
    let mut replay = Replay::new(store, &index, torn);
    let (holdings, sealed_state) = sealed::open(store, options, &files, &mut replay)?;
    let meta = holdings.meta;
    let catalogue = holdings.catalogue.clone();
    let source = Arc::new(Source::new(
        index.clone(),
        catalogue,
        options.events.clone(),
    ));

    let (used, mut free) = by_generation(store, files, meta.sealed_through, &mut replay.report)?;
    let (unsealed, empty) = replay_all(&mut replay, used, meta.sealed_through)?;
    free.extend(empty);
    sync_free(store, &replay.torn, &free, meta.sealed_through)?;
    let last_sealed = match unsealed.is_empty() {
        true => last_sealed_batch(store, &free)?,
        false => 0,
    };
    let found = store.found();
    let is_end_known = replay.check_end(meta.sealed_through);
    let next_generation = replay
        .last_generation
        .max(meta.sealed_through)
        .max(store.found().generation)
        // One generation may have been begun of which nothing reached the disk.
        .saturating_add(2);
    let Replay {
        state,
        next_log,
        mut report,
        hole,
        dead,
        last_generation,
        last_batch,
        uncut,
        ..
    } = replay;

    let last_batch = last_batch
        .max(found.batch.saturating_sub(1))
        .max(last_sealed);
    // Where nothing is left of it to be replayed, it is sealed.
    let newest = (last_generation.max(meta.sealed_through), last_batch);
    let hole = if found.lost_end {
        Some(HashSet::new())
    } else {
        hole
    };
    let reader = LogReader::new(source.clone());
    let (logs, uncertain) = live_logs(&index, &reader, hole.as_ref(), &mut report)?;
    let changed_keys = match store.is_stand_in() {
        true => state.keys().cloned().collect(),
        false => HashSet::new(),
    };
    let state = overlaid(sealed_state, state);
    report.state_entries = state.len() as u64;
    report.unclean = found.unclean;
    report.duration = began.elapsed();
    Ok(Recovery {
        recovered: Recovered {
            state,
            logs,
            next_log: next_log.max(meta.next_log),
            uncertain,
            unclean_boot: found.unclean_boot || !is_end_known,
            report,
        },
        holdings,
        source,
        unsealed,
        free,
        dead,
        changed_keys,
        next_generation,
        newest,
        last_batch,
        next_file,
        uncut,
    })
}

/// Replays journals, oldest first: those that wait to be sealed, and those that hold nothing.
fn replay_all(
    replay: &mut Replay<'_>,
    used: Used,
    sealed_through: u64,
) -> Result<(Vec<Unsealed>, Vec<JournalFile>), OpenError> {
    let mut gone: Vec<_> = replay.found().unsealed.clone();
    gone.retain(|generation| {
        let is_there = used.iter().any(|(there, _)| there == generation);
        *generation > sealed_through && !is_there
    });
    let mut gone = gone.into_iter().peekable();
    let (mut unsealed, mut empty) = (Vec::new(), Vec::new());
    let mut used = used.into_iter().peekable();
    while let Some((generation, file)) = used.next() {
        while let Some(gone) = gone.next_if(|gone| *gone < generation) {
            replay.gone(gone);
        }
        match replay.journal(file, sealed_through, used.peek().map(|(_, next)| next))? {
            Ok(journal) => unsealed.push(journal),
            Err(file) => empty.push(file),
        }
    }
    gone.for_each(|gone| replay.gone(gone));
    Ok((unsealed, empty))
}

/// What a start that was cut short erased may not be durable: it would come back, and look like damage of an earlier run.
fn sync_free(
    store: &Store,
    torn: &Torn,
    free: &[JournalFile],
    sealed_through: u64,
) -> Result<(), OpenError> {
    if !store.found().is_volatile() {
        return Ok(());
    }
    for file in free {
        let path = file.path().display();
        let first = file.first_batch(store.id());
        if first.during(|| format!("reading {path}"))?.is_none() {
            torn.erase_in_empty(file, sealed_through)
                .during(|| format!("cutting {path}"))?;
        }
        file.sync().during(|| format!("syncing {path}"))?;
    }
    Ok(())
}

/// The number of the last batch in the newest journal that is sealed, if that is still there: 0 if none is. Numbers go on behind it,
/// since a catalogue that goes back in time has it replayed in front of what comes now.
fn last_sealed_batch(store: &Store, free: &[JournalFile]) -> Result<u64, OpenError> {
    let mut newest = None;
    for file in free {
        let generation = generation_of(store, file, 0)?;
        newest = newest.max(generation.map(|generation| (generation, file.number())));
    }
    let Some((generation, number)) = newest else {
        return Ok(0);
    };
    let file = free.iter().find(|file| file.number() == number);
    let bytes = file.map(read).transpose()?.unwrap_or_default();
    let found = scan(&bytes, store.id(), generation.saturating_sub(1), 0);
    Ok(found.numbers.map_or(0, |(_, last)| last))
}

/// Every log, and which of them may lack their end: those that were not written to behind the last `hole`.
fn live_logs(
    index: &Index,
    reader: &LogReader,
    hole: Option<&HashSet<LogNumber>>,
    report: &mut RecoveryReport,
) -> Result<(HashMap<LogNumber, LogExtent>, Vec<LogNumber>), OpenError> {
    let mut logs = HashMap::new();
    let mut uncertain = Vec::new();
    for (log, _) in index.all_bounds() {
        let extent = reader.extent(log).map_err(unreadable)?;
        report.logs += 1;
        report.publications += extent.last.0 + 1 - extent.first.0;
        logs.insert(log, extent);
        if hole.is_some_and(|behind| !behind.contains(&log)) {
            uncertain.push(log);
        }
    }
    uncertain.sort_unstable();
    Ok((logs, uncertain))
}

/// The sealed state map with what came behind it, in key order.
fn overlaid(sealed: StateMap, changes: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>) -> StateMap {
    let mut changes = changes.into_iter().peekable();
    let mut state = Vec::with_capacity(sealed.len());
    for (key, value) in sealed {
        while let Some((changed, new)) = changes.next_if(|(changed, _)| *changed < key) {
            state.extend(new.map(|new| (changed, new)));
        }
        match changes.next_if(|(changed, _)| *changed == key) {
            Some((_, new)) => state.extend(new.map(|new| (key, new))),
            None => state.push((key, value)),
        }
    }
    state.extend(changes.filter_map(|(key, new)| Some((key, new?))));
    state
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
    report: &mut RecoveryReport,
) -> Result<(Used, Vec<JournalFile>), OpenError> {
    let (mut used, mut free) = (Vec::new(), Vec::new());
    for file in files {
        match generation_of(store, &file, sealed_through)? {
            Some(generation) => used.push((generation, file)),
            None => {
                set_unreadable_aside(store, &file, report)?;
                free.push(file);
            }
        }
    }
    used.sort_by_key(|(generation, _)| *generation);
    Ok((used, free))
}

/// A free journal begins with zeros or a batch that is sealed. What is neither may have been a batch that is not: a copy is kept,
/// since the file will be used again.
fn set_unreadable_aside(
    store: &Store,
    file: &JournalFile,
    report: &mut RecoveryReport,
) -> Result<(), OpenError> {
    let path = file.path().display();
    if !file
        .begins_unreadably(store.id())
        .during(|| format!("reading {path}"))?
    {
        return Ok(());
    }
    let bytes = read(file)?;
    let end = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |at| at + 1);
    let crc = crc32c::crc32c(&bytes);
    let name = format!("journal-file-{}-{crc:08x}-unreadable", file.number());
    store
        .quarantine_bytes(&name, &bytes[..end])
        .during(|| format!("copying {path} to quarantine/{name}"))?;
    log::warn!("{path} begins with no batch, copied to quarantine/{name}");
    report.cut_bytes += end as u64;
    // It is not found again.
    file.erase(0..end).during(|| format!("cutting {path}"))
}

/// The generation of a journal that is not sealed. Most tell by their first batch.
fn generation_of(
    store: &Store,
    file: &JournalFile,
    sealed_through: u64,
) -> Result<Option<u64>, OpenError> {
    let first = file
        .first_batch(store.id())
        .during(|| format!("reading {}", file.path().display()))?;
    Ok(match first {
        Some(batch) => Some(batch.generation).filter(|&generation| generation > sealed_through),
        None => newest_generation(&read(file)?, store.id(), sealed_through),
    })
}

fn read(file: &JournalFile) -> Result<Vec<u8>, OpenError> {
    file.read_all(&Pace::hurried())
        .during(|| format!("reading {}", file.path().display()))
}
