//! The journals alone, replayed as a start replays them, where nothing is sealed that a catalogue would know of.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Replay, by_generation, live_logs, replay_all, torn::Torn};
use crate::datalog::{
    LogExtent, LogNumber, LogReader, OpenError, RecoveryReport,
    catalogue::Catalogue,
    index::Index,
    journal::JournalFile,
    store::{During, Store},
    units::Source,
};

/// What the journals hold.
pub(in crate::datalog) struct Journals {
    pub(in crate::datalog) reader: LogReader,
    pub(in crate::datalog) logs: HashMap<LogNumber, LogExtent>,
    pub(in crate::datalog) uncertain: Vec<LogNumber>,
    pub(in crate::datalog) next_log: u64,
    /// `None` for an entry that is removed.
    pub(in crate::datalog) state: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>,
    pub(in crate::datalog) report: RecoveryReport,
}

/// Replays the journals of `store` behind the generation `sealed_through`. `catalogue` is an empty one.
pub(in crate::datalog) fn replay_journals(
    store: &Store,
    catalogue: &Arc<Catalogue>,
    sealed_through: u64,
) -> Result<Journals, OpenError> {
    let files = JournalFile::open_all(&store.journal_dir(), store.is_stand_in())
        .during(|| "opening the journals".into())?;
    let index = Arc::new(Index::default());
    let mut replay = Replay::new(store, &index, Torn::default());
    let (used, _) = by_generation(store, files, sealed_through, &mut replay.report)?;
    // They are in the index, or hold nothing.
    let _ = replay_all(&mut replay, used, sealed_through)?;
    replay.check_end(sealed_through);
    let Replay {
        state,
        next_log,
        mut report,
        hole,
        ..
    } = replay;
    let source = Source::new(index.clone(), catalogue.clone(), Arc::new(|_| {}));
    let reader = LogReader::new(Arc::new(source));
    let (logs, uncertain) = live_logs(&index, &reader, hole.as_ref(), &mut report)?;
    Ok(Journals {
        reader,
        logs,
        uncertain,
        next_log,
        state,
        report,
    })
}
