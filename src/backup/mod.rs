//! Backups: one file that holds a data directory as of one moment, and a data directory made of it.
//!
//! Owns the format of that file, the socket by which a server that runs is asked to hold still, and the steps of a restore. Which files a
//! backup is made of, and what becomes of them, the data log knows.
//!
//! ```text
//!  infotainer backup ──"hold still"──> control.sock of the server ──> data log: links in backup.tmp/
//!        │ reads the links by itself, slowly                             │
//!        └──> FILE   ──────────"done"──────────────────────────> links removed
//!
//!  infotainer restore: FILE ──> DIR/restore.tmp ──opened once: new epochs──> DIR
//! ```
//!
//! Invariants: what is in a backup is of one moment, and everything that was acknowledged before it was asked for is in it. A backup that
//! did not end has no name, nor has a restore that did not end a directory that a server takes. Nothing of a backup is believed
//! whose checksum is not right.

mod archive;
mod asking;
mod destination;
mod looking;
mod restoring;
mod socket;
mod source;
mod words;

use std::io;

use crate::datalog::{PlaceError, VerifyError, WriteError};

pub use archive::Manifest;
pub use destination::Destination;
pub use looking::Unpacked;
pub use restoring::{Restored, restore};
pub(crate) use socket::Socket;
pub use source::{Source, Written};

/// Why a backup was not made, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The server refused to be held still.
    #[error("{0}")]
    Refused(String),
    /// The server could not be held still, or not for long enough.
    #[error("{0}")]
    Failed(String),
    /// There is a file already.
    #[error("{0} exists, and is only replaced with --force")]
    Exists(std::path::PathBuf),
    /// The directory that is no server's can't be read.
    #[error(transparent)]
    Directory(#[from] VerifyError),
    /// There is no place for what is to be restored.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// What was read is not what a backup is.
    #[error("this is no backup of infotainer: {0}")]
    NotABackup(String),
    /// What was read is not what was written.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// The restored directory could not be opened.
    #[error("what was restored can't be opened: {0}")]
    Open(#[from] crate::datalog::OpenError),
    /// The new epochs could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The refusal.
        source: io::Error,
    },
    /// Who asked for it wanted no more.
    #[error("stopped before it was done")]
    Stopped,
}

/// Adds what was tried to an I/O error.
trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, BackupError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, BackupError> {
        self.map_err(|source| BackupError::Io {
            what: what(),
            source,
        })
    }
}
