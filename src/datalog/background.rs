//! The background thread: makes journals, seals them, drops what is dead, merges.
//!
//! Owns the catalogue's and the state log's contents while the data log is open: nobody else changes them. Each step is
//! complete on disk before the index shows it, and nothing is removed before that.
//!
//! What makes something dead (retention, a removed log) may be written and not synced; before a step makes use of it, the
//! journals are synced.

mod freezing;
mod sealing;
mod tidying;

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use super::{
    Event, Options, Stored,
    backlog::{Backlog, Task},
    catalogue::{Catalogue, CatalogueError, Meta, SegmentEntry},
    index::Index,
    journal::JournalFile,
    segment::{SegmentError, SegmentId},
    state_log::{RewriteError, StateLog},
    store::{self, Store},
};
use crate::memory;
use tidying::Merging;

/// What sealing takes for each log is worth being given back from so many on: that holds up whoever needs memory meanwhile.
const MANY_LOGS: usize = 10_000;

/// What the background thread works with.
pub(crate) struct Background {
    pub(crate) options: Options,
    pub(crate) store: Arc<Store>,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) index: Arc<Index>,
    pub(crate) holdings: Holdings,
}

/// What is sealed, and where that is noted.
pub(crate) struct Holdings {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) state_log: StateLog,
    pub(crate) meta: Meta,
    pub(crate) segments: BTreeMap<SegmentId, SegmentEntry>,
    /// Those that can't be read, or whose footer can't: they stay as they are.
    pub(crate) unmergeable: HashSet<SegmentId>,
    pub(crate) next_segment: u64,
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// It can be tried again when there is room.
    #[error("the disk is full")]
    Full,
    /// What is on disk is not known any more.
    #[error("{0}")]
    Fatal(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if store::is_disk_full(&error) {
            Self::Full
        } else {
            Self::Fatal(error.to_string())
        }
    }
}

impl From<SegmentError> for Trouble {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Io { source, .. } if store::is_disk_full(&source) => Self::Full,
            SegmentError::Io { ref source, .. } => Self::Fatal(format!("{error}: {source}")),
            other => Self::Fatal(other.to_string()),
        }
    }
}

impl From<CatalogueError> for Trouble {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::Io(source) if store::is_disk_full(&source) => Self::Full,
            CatalogueError::Io(ref source) => Self::Fatal(format!("{error}: {source}")),
            other => Self::Fatal(other.to_string()),
        }
    }
}

impl From<RewriteError> for Trouble {
    fn from(error: RewriteError) -> Self {
        match error {
            RewriteError::Io(error) => error.into(),
            RewriteError::Catalogue(error) => error.into(),
        }
    }
}

impl Background {
    /// Starts the thread, which ends when the backlog is stopped or when it fails.
    pub(crate) fn start(self) -> io::Result<JoinHandle<()>> {
        let worker = Worker {
            options: self.options,
            store: self.store,
            backlog: self.backlog,
            index: self.index,
            holdings: self.holdings,
            merging: None,
            journal: Vec::new(),
        };
        thread::Builder::new()
            .name("datalog".into())
            .spawn(move || worker.run())
    }
}

/// Lets the writer fail, instead of wait for ever, when the thread panics.
struct Guard(Arc<Backlog>);

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail("the background thread panicked".into());
        }
    }
}

/// The thread's own.
struct Worker {
    options: Options,
    store: Arc<Store>,
    backlog: Arc<Backlog>,
    index: Arc<Index>,
    holdings: Holdings,
    merging: Option<Merging>,
    /// The journal that was sealed last, for its memory: as long as journals are filled one after the other.
    journal: Vec<u8>,
}

impl Worker {
    fn run(mut self) {
        let _guard = Guard(self.backlog.clone());
        let mut stored = Stored::default();
        loop {
            stored = self.tell_stored(stored);
            let done = match self.backlog.next_task() {
                Task::Stop => {
                    self.abandon_merge();
                    return;
                }
                Task::Make => self.make(),
                Task::Note(note) => {
                    self.store.note_running(&note);
                    Ok(())
                }
                Task::Freeze(request) => {
                    request.answer(self.freeze());
                    Ok(())
                }
                Task::Free(journal) => {
                    self.free(Some(journal));
                    Ok(())
                }
                Task::Seal(journal) => {
                    let began = Instant::now();
                    let sealed = self.seal(journal);
                    if sealed.is_ok() {
                        (self.options.events)(Event::Sealed(began.elapsed()));
                    }
                    if matches!(sealed, Ok(logs) if logs >= MANY_LOGS) {
                        memory::give_back();
                    }
                    sealed.and_then(|_| self.made_room())
                }
                Task::Drop(dead) => self.drop_runs(dead).and_then(|()| self.made_room()),
                Task::Merged => {
                    let merged = self.finish_merge();
                    memory::give_back();
                    merged
                }
                Task::Tidy => self.tidy(),
                Task::Lull => {
                    self.journal = Vec::new();
                    self.begin_merge()
                }
            };
            match done {
                Ok(()) => {}
                Err(Trouble::Full) => match self.backlog.take_surplus() {
                    Some(spare) => self.give_up(&spare),
                    None => self.set_full(true),
                },
                Err(Trouble::Fatal(why)) => self.fail(&why),
            }
        }
    }

    fn make(&mut self) -> Result<(), Trouble> {
        let file = self.backlog.make()?;
        if let Err(file) = self.backlog.put(file) {
            file.remove()?;
        }
        self.set_full(false);
        self.tell_space();
        Ok(())
    }

    /// Removes a journal that nobody waits for, for the room.
    fn give_up(&self, journal: &JournalFile) {
        if let Err(error) = journal.remove() {
            log::warn!("{} is left behind: {error}", journal.path().display());
        }
        self.backlog.retry_soon();
    }

    /// Makes what is written now durable.
    fn sync_journals(&self) -> io::Result<()> {
        for file in self.index.journal_files() {
            file.sync_apart()?;
        }
        Ok(())
    }

    /// What found the disk full before was done now.
    fn made_room(&self) -> Result<(), Trouble> {
        if self.backlog.has_spare() {
            self.set_full(false);
        }
        Ok(())
    }

    fn set_full(&self, full: bool) {
        if self.backlog.set_full(full) {
            if full {
                log::error!(
                    "the disk is full: publications are refused until there is room for a journal"
                );
            } else {
                log::warn!("there is room on the disk again");
            }
            self.tell_space();
        }
    }

    fn tell_space(&self) {
        (self.options.events)(Event::SpaceChanged(self.backlog.space()));
    }

    /// Tells what lies in files, if that is not what was `told`.
    fn tell_stored(&self, told: Stored) -> Stored {
        let segments = self.holdings.segments.values();
        let stored = Stored {
            segments: segments.len() as u64,
            segment_bytes: segments.map(|segment| segment.file_len).sum(),
            state_bytes: self.holdings.state_log.len(),
        };
        if stored != told {
            (self.options.events)(Event::Stored(stored));
        }
        stored
    }

    fn tell_damage(&self, what: String) {
        log::error!("{what}");
        (self.options.events)(Event::Damage(what));
    }

    fn fail(&self, why: &str) {
        log::error!("the data log can be written no more: {why}");
        self.backlog.fail(why.into());
        (self.options.events)(Event::Failed(why.to_owned()));
    }
}
