//! The journals, for whoever watches them: how many wait to be sealed, and what all of them take.

use std::{fmt, sync::Arc};

use super::{backlog::Backlog, index::Index};

/// The journals of a data log. Looking at them takes two locks for a moment.
#[derive(Clone)]
pub struct Journals {
    backlog: Arc<Backlog>,
    index: Arc<Index>,
}

impl Journals {
    pub(super) fn new(backlog: Arc<Backlog>, index: Arc<Index>) -> Self {
        Self { backlog, index }
    }

    /// How many are full and wait to be sealed, and the bytes of all files.
    pub fn look(&self) -> (u64, u64) {
        let (waiting, free) = self.backlog.waiting();
        let used = self.index.journal_files();
        let used: u64 = used.iter().map(|file| file.capacity()).sum();
        (waiting, free + used)
    }
}

impl fmt::Debug for Journals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journals").finish_non_exhaustive()
    }
}
