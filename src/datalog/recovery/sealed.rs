//! Opening what is sealed: by the catalogue, or, if that is damaged or gone, by making it again.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    io,
    ops::RangeInclusive,
    sync::Arc,
};

use super::{Replay, outdated::why_outdated, rebuilt::rebuild};
use crate::datalog::{
    OpenError, Options, StateMap,
    background::Holdings,
    catalogue::{Catalogue, CatalogueError, CatalogueState, Meta, SegmentEntry},
    disk,
    journal::JournalFile,
    segment::{SegmentFile, SegmentId},
    state_log::StateLog,
    store::{During, Store, ignore_full},
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

pub(super) fn unopened(error: CatalogueError) -> OpenError {
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
    let mut state_log = StateLog::open(&store.state_dir(), store.id())?;
    if store.found().unclean {
        // On a full disk of a kind that writes nothing in place there is no room for it yet.
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
