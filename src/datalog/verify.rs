//! Checking a data directory without changing it.
//!
//! Owns what is compared with what, and the report. Reads nothing by itself: a start's own recovery runs on a stand-in for the
//! directory, and what it then serves is read by the readers that serve it. So what a start would find is found, and nothing
//! is judged by a second set of rules.
//!
//! ```text
//!  stand-in: links to journals, segments and state log; a copy of the catalogue ──recovery──> index
//!  each log, part by part: checksums, sequences, ids against the catalogue
//!  each segment: its footer against the catalogue       state log: against the catalogue's state map
//! ```
//!
//! Invariant: no file of the directory is opened for writing.

mod logs;
mod sealed;
pub(super) mod stand_in;

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Event, LogNumber, MissingRange, OpenError, Options, ReadError, RecoveryReport, StateMap,
    catalogue::CatalogueError, recovery, store::Store,
};
use crate::protocol::Sequence;
use logs::Walk;
use stand_in::StandIn;

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the next start would find, and say.
    pub recovery: RecoveryReport,
    /// Everything that is damaged, one sentence each: that of `recovery`, and what a start does not look at.
    pub damage: Vec<String>,
    /// Every live log, by its number.
    pub logs: Vec<LogReport>,
    /// The state map as the next start would have it.
    pub state: StateMap,
    /// The last end was not orderly, and in another boot: logs that were not synced get a new epoch.
    pub unclean_boot: bool,
    /// Bytes that were read of segments.
    pub read_bytes: u64,
    /// Bytes that the copies took meanwhile.
    pub copied_bytes: u64,
    /// How long it took.
    pub duration: Duration,
}

impl Report {
    /// Whether nothing is damaged.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.logs.iter().all(LogReport::is_whole)
    }
}

/// What a check found of one log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogReport {
    /// Which.
    pub log: LogNumber,
    /// The oldest that it keeps.
    pub first: Sequence,
    /// The newest that there ever was.
    pub last: Sequence,
    /// What can't be read, in order.
    pub missing: Vec<MissingRange>,
    /// Its end may be missing by damage: it gets a new epoch.
    pub is_end_lost: bool,
}

impl LogReport {
    /// Whether everything that it keeps is there.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && !self.is_end_lost
    }
}

/// How far a check is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes of segments that were read.
    pub done: u64,
    /// Bytes of segments that are to be read.
    pub total: u64,
}

/// Why a data directory was not checked to the end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is none.
    #[error("{0} is no data directory")]
    None(PathBuf),
    /// A server has it open.
    #[error("data directory {0} is in use, and what is being written can't be judged")]
    InUse(PathBuf),
    /// It can't be opened, nor could a server.
    #[error(transparent)]
    Open(OpenError),
    /// A part of it can't be read, for a reason that is not damage.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The catalogue could not be copied, or its copy not be read.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The refusal.
        source: io::Error,
    },
    /// Who asked for it wanted no more.
    #[error("stopped before everything was checked")]
    Stopped,
}

impl From<OpenError> for VerifyError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Locked(dir) => Self::InUse(dir),
            error => Self::Open(error),
        }
    }
}

impl From<CatalogueError> for VerifyError {
    fn from(error: CatalogueError) -> Self {
        Self::Open(OpenError::Catalogue(error.to_string()))
    }
}

/// Checks the data directory `dir`: checksums, sequences, and what the files say of each other.
///
/// Nothing in it is changed. The catalogue, which opening changes, is copied to the system's folder for temporary files, and
/// removed from there at the end. `progress` is told how far it is, and whether to go on is its answer.
///
/// # Errors
/// If a server has the directory open, it can't be read, or `progress` wanted no more. Damage is no error but in the report;
/// only where nothing says what the directory is (`format`), there is nothing to report of.
pub fn verify(
    dir: &Path,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report, VerifyError> {
    let began = Instant::now();
    let stand_in = StandIn::of(dir)?;
    let store = Store::look(stand_in.original(), stand_in.path())?;
    stand_in.fill()?;
    let told = Arc::new(Mutex::new(Vec::new()));
    let options = Options {
        events: {
            let told = told.clone();
            Arc::new(move |event| {
                if let Event::Damage(what) = event {
                    told.lock().push(what);
                }
            })
        },
        ..Options::new(stand_in.path())
    };
    let recovery = recovery::recover(&store, &options)?;
    let recovered = &recovery.recovered;
    let mut damage = recovered.report.damage.clone();
    sealed::check(&recovery, &mut damage)?;

    let mut walk = Walk::new(&recovery.source, &recovery.holdings, &mut progress);
    let mut numbers: Vec<_> = recovered.logs.keys().copied().collect();
    numbers.sort_unstable();
    let mut logs = Vec::with_capacity(numbers.len());
    for log in numbers {
        let extent = &recovered.logs[&log];
        logs.push(LogReport {
            log,
            first: extent.first,
            last: extent.last,
            missing: walk.log(log, extent.first, extent.last, &mut damage)?,
            is_end_lost: recovered.uncertain.binary_search(&log).is_ok(),
        });
    }
    let read_bytes = walk.done();
    damage.append(&mut told.lock());
    let mut seen = std::collections::HashSet::new();
    damage.retain(|line| seen.insert(line.clone()));

    let in_place = |line: String| stand_in.in_place(&line);
    let mut report = recovered.report.clone();
    report.damage = report.damage.into_iter().map(in_place).collect();
    let report = Report {
        recovery: report,
        damage: damage.into_iter().map(in_place).collect(),
        logs,
        state: recovery.recovered.state,
        unclean_boot: recovery.recovered.unclean_boot,
        read_bytes,
        copied_bytes: stand_in.copied(),
        duration: began.elapsed(),
    };
    Ok(report)
}
