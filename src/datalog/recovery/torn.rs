//! What a torn tail becomes: a copy in the quarantine, and zeros where it was.
//!
//! The copy is also the note that it was erased. Where the sync of the zeros fails, the system goes on showing them, and the disk what
//! was there: a power cut would bring it back, in a journal that was looked at before, and so look like damage. So a start behind
//! an end that was not orderly erases again what was copied.

use std::{io, ops::Range};

use crate::datalog::{
    disk,
    journal::JournalFile,
    store::{Store, ignore_full},
};

/// The name of the copy of what stood at `start` of a generation's journal.
fn name(generation: u64, start: usize) -> String {
    format!("journal-{generation}-{start}-torn")
}

fn parse(name: &str) -> Option<(u64, usize)> {
    let name = name.strip_prefix("journal-")?.strip_suffix("-torn")?;
    let (generation, start) = name.split_once('-')?;
    Some((generation.parse().ok()?, start.parse().ok()?))
}

/// Where torn tails were, in journals of which generations.
#[derive(Debug, Default)]
pub(super) struct Torn(Vec<(u64, Range<usize>)>);

impl Torn {
    /// Those that were copied, if what was done about them may not have been synced.
    ///
    /// # Errors
    /// If the quarantine can't be read.
    pub(super) fn find(store: &Store) -> io::Result<Self> {
        let mut torn = Self::default();
        if !store.found().is_volatile() {
            return Ok(torn);
        }
        for path in disk::paths_in(&store.quarantine_dir())? {
            let path = path?;
            let name = path.file_name().and_then(|name| name.to_str());
            let Some((generation, start)) = name.and_then(parse) else {
                continue;
            };
            let len = usize::try_from(disk::len(&path)?).map_err(io::Error::other)?;
            torn.0.push((generation, start..start.saturating_add(len)));
        }
        Ok(torn)
    }

    /// Sets a copy of a torn tail aside: what may be erased then.
    ///
    /// # Errors
    /// If it can't be written.
    pub(super) fn copy(
        store: &Store,
        generation: u64,
        bytes: &[u8],
        range: &Range<usize>,
    ) -> io::Result<String> {
        let name = name(generation, range.start);
        store.quarantine_bytes(&name, &bytes[range.clone()])?;
        Ok(name)
    }

    /// Erases it again in a journal of `generation` that ends at `end`.
    ///
    /// # Errors
    /// If it can't be written or synced.
    pub(super) fn erase_in_used(
        &self,
        file: &JournalFile,
        generation: u64,
        end: usize,
    ) -> io::Result<()> {
        let of_file = |(of, range): &&(u64, Range<usize>)| *of == generation && range.start == end;
        self.erase(file, self.0.iter().filter(of_file))
    }

    /// Erases it again in a journal that begins with zeros: which it was is not known.
    ///
    /// # Errors
    /// If it can't be written or synced.
    pub(super) fn erase_in_empty(&self, file: &JournalFile, sealed_through: u64) -> io::Result<()> {
        let whole = |(of, range): &&(u64, Range<usize>)| *of > sealed_through && range.start == 0;
        self.erase(file, self.0.iter().filter(whole))
    }

    fn erase<'a>(
        &self,
        file: &JournalFile,
        torn: impl Iterator<Item = &'a (u64, Range<usize>)>,
    ) -> io::Result<()> {
        let capacity = usize::try_from(file.capacity()).map_err(io::Error::other)?;
        for (_, range) in torn {
            // On a full disk of a kind that writes nothing in place there is no room for it.
            file.erase(range.start..range.end.min(capacity))
                .or_else(ignore_full)?;
        }
        Ok(())
    }
}
