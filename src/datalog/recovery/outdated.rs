//! Whether the catalogue is what it was at the end, or went back in time.
//!
//! What is damaged at the end of sled's file, sled takes for a write that did not end, and cuts it: the catalogue is then
//! whole, and older than the files that it points to. Segments that it does not list, and the state log, tell.

use std::{collections::HashSet, io};

use super::{generation_of, read};
use crate::datalog::{
    OpenError,
    catalogue::CatalogueState,
    journal::{JournalFile, scan},
    segment::{SegmentFile, SegmentHeader, SegmentId},
    state_log::StateLog,
    store::{During, Store},
};

/// Says why the catalogue can't be the newest, if it can't. `found` are the segments that there are.
pub(super) fn why_outdated(
    store: &Store,
    state: &CatalogueState,
    state_log: &StateLog,
    found: &[SegmentId],
    journals: &[JournalFile],
) -> Result<Option<String>, OpenError> {
    let Some(meta) = state.meta else {
        return Ok(None);
    };
    let listed: HashSet<_> = state.segments.iter().map(|entry| entry.header.id).collect();
    let unlisted: Vec<_> = found.iter().filter(|id| !listed.contains(id)).collect();
    let is_ahead = state_log.generation() > meta.sealed_through;
    if unlisted.is_empty() && !is_ahead {
        return Ok(None);
    }

    let mut unsealed = HashSet::new();
    for journal in journals {
        unsealed.extend(generation_of(store, journal, meta.sealed_through)?);
    }
    if is_ahead {
        let told = state_log
            .generations_above(meta.sealed_through)
            .during(|| "reading the state log".into())?;
        let Some(told) = told else {
            let generation = state_log.generation();
            return Ok(Some(format!("generation {generation} was sealed")));
        };
        // A journal that was sealed may still be there, and one before it not, or be overwritten in part.
        let mut whole = HashSet::new();
        for journal in journals {
            let found = scan(&read(journal)?, store.id(), meta.sealed_through, 0);
            if found.is_whole() {
                whole.extend(found.generation);
            }
        }
        if let Some(gone) = told.iter().find(|told| !whole.contains(told)) {
            return Ok(Some(format!("generation {gone} was sealed")));
        }
    }
    let headers = state.segments.iter().map(|entry| entry.header);
    let missing: Vec<_> = headers
        .filter(|header| found.binary_search(&header.id).is_err())
        .collect();
    for &id in unlisted {
        let Some(header) = header_of(store, id).during(|| "reading a segment".into())? else {
            continue;
        };
        let (low, high) = header.generations;
        let replaces = |gone: &SegmentHeader| {
            low <= gone.generations.0 && gone.generations.1 <= high && gone.id < id
        };
        if missing.iter().any(replaces) {
            return Ok(Some(format!("{} was made by merging", id.file_name())));
        }
        if low > meta.sealed_through && !unsealed.contains(&low) {
            return Ok(Some(format!("{} was made by sealing", id.file_name())));
        }
    }
    Ok(None)
}

/// None: it can't be read.
fn header_of(store: &Store, id: SegmentId) -> io::Result<Option<SegmentHeader>> {
    let file = SegmentFile::open(&store.segment_dir(), id)?;
    Ok(file.footer().ok().map(|footer| footer.header))
}
