//! What is sealed, held against the catalogue: segments' footers, the state log, the ids.

use std::{
    collections::{BTreeMap, HashSet},
    io,
};

use super::VerifyError;
use crate::datalog::{
    OpenError, StateMap,
    catalogue::CatalogueState,
    journal::format::RecordView,
    recovery::Recovery,
    segment::{Footer, RunDescriptor, SegmentFile},
};

/// Adds to `damage` what does not agree.
pub(super) fn check(recovery: &Recovery, damage: &mut Vec<String>) -> Result<(), VerifyError> {
    let catalogue = &recovery.holdings.catalogue;
    let state = catalogue.load()?;
    if let Err(error) = catalogue.verify_ids() {
        damage.push(error.to_string());
    }
    footers(recovery, &state, damage);
    state_log(recovery, state.state, damage)
}

/// The catalogue can be made again of footers that are whole.
fn footers(recovery: &Recovery, state: &CatalogueState, damage: &mut Vec<String>) {
    let mut runs: Vec<_> = state.runs.iter().collect();
    runs.sort_unstable_by_key(|run| (run.segment, run.log, run.first));
    for entry in &state.segments {
        let id = entry.header.id;
        // One that can't be opened has been told.
        let Some(file) = recovery.source.index.segment(id) else {
            continue;
        };
        let from = runs.partition_point(|run| run.segment < id);
        let to = runs.partition_point(|run| run.segment <= id);
        match file.footer() {
            Err(damaged) => damage.push(damaged.to_string()),
            Ok(footer) if footer.header != entry.header => {
                damage.push(said_of(&file, "its header is not the catalogue's"));
            }
            Ok(footer) => {
                if let Some(run) = lacking(&footer, &runs[from..to]) {
                    let what = format!(
                        "the catalogue knows of publications {} to {} of log {}, and its footer doesn't",
                        run.first, run.last, run.log.0
                    );
                    damage.push(said_of(&file, &what));
                }
            }
        }
    }
}

/// A run that the footer does not tell of. Both are in the same order.
fn lacking<'a>(footer: &Footer, runs: &[&'a RunDescriptor]) -> Option<&'a RunDescriptor> {
    let mut told = footer.runs();
    runs.iter()
        .find(|run| !told.any(|other| other == ***run))
        .copied()
}

fn said_of(file: &SegmentFile, what: &str) -> String {
    format!("{}: {what}", file.path().display())
}

/// With the journals replayed over them, state log and catalogue say the same.
fn state_log(
    recovery: &Recovery,
    sealed: StateMap,
    damage: &mut Vec<String>,
) -> Result<(), VerifyError> {
    let log = &recovery.holdings.state_log;
    let path = log.path().display();
    let mut map = BTreeMap::new();
    let reading = |source: io::Error| OpenError::Io {
        what: format!("reading {path}"),
        source,
    };
    let replayed = log
        .replay(|record| {
            match record {
                RecordView::Put { key, value } => {
                    map.insert(Box::<[u8]>::from(key), Box::<[u8]>::from(value));
                }
                RecordView::Delete { key } => {
                    map.remove(key);
                }
                _ => {}
            }
            Ok::<_, io::Error>(())
        })
        .map_err(reading)?;
    for range in &replayed.damaged {
        damage.push(format!(
            "{path} is damaged from {} to {}",
            range.start, range.end
        ));
    }
    let sealed_through = recovery.holdings.meta.sealed_through;
    if replayed.generation < sealed_through {
        damage.push(format!(
            "{path} ends with generation {}, and {sealed_through} was sealed",
            replayed.generation
        ));
    } else if replayed.damaged.is_empty() {
        let differs = differing(sealed, map, &recovery.changed_keys);
        if differs > 0 {
            damage.push(format!(
                "{path} and the catalogue differ in {differs} entries of state"
            ));
        }
    }
    Ok(())
}

/// Entries that are not the same in both, but for those that journals change.
fn differing(
    sealed: StateMap,
    mut other: BTreeMap<Box<[u8]>, Box<[u8]>>,
    changed: &HashSet<Box<[u8]>>,
) -> usize {
    let mut differs = 0;
    for (key, value) in sealed {
        let is_same = other.remove(&key).is_some_and(|other| other == value);
        differs += usize::from(!is_same && !changed.contains(&key));
    }
    differs + other.keys().filter(|key| !changed.contains(*key)).count()
}
