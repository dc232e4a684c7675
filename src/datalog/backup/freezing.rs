//! Holding an open data log's files still: who asks for it, and what is held.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use uuid::Uuid;

use super::{Contents, Part, PartName};
use crate::datalog::{
    backlog::Backlog, disk, journal::JournalFile, state_log::RewriteError, store::BACKUP,
};

/// Asks an open data log to hold still what a backup is made of. Nobody has to be waited for: the log goes on being written.
#[derive(Clone, Debug)]
pub struct Freezer {
    backlog: Arc<Backlog>,
}

impl Freezer {
    pub(crate) fn new(backlog: Arc<Backlog>) -> Self {
        Self { backlog }
    }

    /// Calls `then` on the background thread when everything is held still, which may have work to end before; dropped without a
    /// call, the data log has ended. One at a time: what is frozen is to be dropped before this is called again.
    pub fn freeze(&self, then: impl FnOnce(Result<Frozen, FreezeError>) + Send + 'static) {
        self.backlog.ask_to_freeze(FreezeRequest(Box::new(then)));
    }
}

/// Why nothing is held still.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The data log has ended, or something else is asked of it.
    #[error("the data log can't be held still now")]
    NotNow,
    /// A write or sync failed before: what is on disk is only known again after a restart.
    #[error("the data log can be written no more ({0}), and has to be started again first")]
    Failed(Arc<str>),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The refusal.
        source: io::Error,
    },
    /// The state log had to be written anew, and the catalogue can't say with what.
    #[error("{0}")]
    Catalogue(String),
}

impl From<RewriteError> for FreezeError {
    fn from(error: RewriteError) -> Self {
        match error {
            RewriteError::Io(source) => Self::Io {
                what: "reading the state log, or writing it anew".into(),
                source,
            },
            RewriteError::Catalogue(error) => Self::Catalogue(error.to_string()),
        }
    }
}

/// Somebody's wish that everything be held still.
pub(crate) struct FreezeRequest(Box<dyn FnOnce(Result<Frozen, FreezeError>) + Send>);

impl FreezeRequest {
    pub(crate) fn answer(self, frozen: Result<Frozen, FreezeError>) {
        (self.0)(frozen);
    }

    pub(crate) fn refuse(self, failed: Option<Arc<str>>) {
        self.answer(Err(failed.map_or(FreezeError::NotNow, FreezeError::Failed)));
    }
}

impl fmt::Debug for FreezeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreezeRequest")
    }
}

/// What a backup is made of, held still until this is dropped, however the data log goes on: its files have second names in a folder
/// of their own.
#[derive(Debug)]
pub struct Frozen {
    contents: Contents,
    folder: PathBuf,
    /// Whoever holds a journal's file keeps it from being used again: when it is sealed, it goes, but for its second name.
    journals: Vec<Arc<JournalFile>>,
}

impl Frozen {
    pub(crate) fn new(store: Uuid, folder: PathBuf) -> Self {
        let parts = Vec::new();
        Self {
            contents: Contents { store, parts },
            folder,
            journals: Vec::new(),
        }
    }

    /// Where what is held of the data directory `dir` is, for whoever is told by another process that it is.
    pub fn folder_in(dir: &Path) -> PathBuf {
        dir.join(BACKUP)
    }

    /// Its parts, where they are held.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Gives the file at `path` its second name.
    pub(crate) fn link(
        &mut self,
        name: PartName,
        path: &Path,
        len: u64,
    ) -> Result<(), FreezeError> {
        let link = self.folder.join(name.to_string());
        disk::hard_link(path, &link).map_err(|source| FreezeError::Io {
            what: format!("linking {} to {}", path.display(), link.display()),
            source,
        })?;
        self.contents.parts.push(Part {
            name,
            path: link,
            len,
        });
        Ok(())
    }

    pub(crate) fn hold(&mut self, journal: Arc<JournalFile>) {
        self.journals.push(journal);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // The names go before the journals may be used again.
        if let Err(error) = disk::remove_dir_all(&self.folder) {
            log::warn!(
                "{} is left behind, and the next start removes it: {error}",
                self.folder.display()
            );
        }
    }
}
