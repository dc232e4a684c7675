//! The journal: where every change is first, and what a commit is.
//!
//! Owns the journal files, the format of batches, and telling a torn tail from damage. Does not own what the records mean
//! (the index does), nor when a journal is sealed.
//!
//! A journal file is preallocated and zero-written, so that a sync of a batch has no metadata to write. Each use of a file
//! is a *generation*: generations only grow, and a generation's batches follow each other from the file's beginning.
//! A start never goes on in a journal that it found: appending begins with a new generation in a free file.
//!
//! Before a generation begins, the one before it is synced: of two generations, only the later can have a torn tail.

pub(crate) mod format;
mod replay;
mod writer;

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use format::{Batch, BatchHeader};
pub(crate) use replay::{Scan, newest_generation, scan, scan_of};
use uuid::Uuid;
pub(crate) use writer::JournalWriter;

use super::{
    disk::{self, File},
    pace::Pace,
    store,
};

/// Bytes that are read, or looked through, at once.
pub(crate) const READ_SIZE: usize = 1 << 20;

/// One preallocated file.
#[derive(Debug)]
pub(crate) struct JournalFile {
    number: u64,
    path: PathBuf,
    file: File,
    /// Another handle of the same file, as old: the system tells a failed sync once to each that was open then.
    apart: File,
    has_failed: AtomicBool,
    capacity: AtomicU64,
    /// What a start would write to it is not written.
    is_read_only: bool,
}

impl JournalFile {
    /// Makes the file with this number, synced.
    pub(crate) fn create(dir: &Path, number: u64, capacity: u64) -> io::Result<Self> {
        let path = dir.join(format!("{number}.journal"));
        let partial = dir.join(format!("{number}.tmp"));
        let made = store::write_zeros(&partial, capacity).and_then(|file| {
            disk::rename(&partial, &path)?;
            disk::sync_dir(dir)?;
            let apart = File::open_to_write(&path)?;
            Ok((file, apart))
        });
        match made {
            Ok((file, apart)) => Ok(Self {
                number,
                path,
                file,
                apart,
                has_failed: false.into(),
                capacity: capacity.into(),
                is_read_only: false,
            }),
            Err(error) => {
                let _ = disk::remove(&partial); // it may not have been made
                Err(error)
            }
        }
    }

    fn open(path: PathBuf, number: u64, is_read_only: bool) -> io::Result<Self> {
        let open = match is_read_only {
            true => File::open,
            false => File::open_to_write,
        };
        let (file, apart) = (open(&path)?, open(&path)?);
        let capacity = file.len()?;
        Ok(Self {
            number,
            path,
            file,
            apart,
            has_failed: false.into(),
            capacity: capacity.into(),
            is_read_only,
        })
    }

    /// Every journal file of the directory, by number. What was not finished is removed.
    ///
    /// Of those opened `read_only`, what should be written is not.
    pub(crate) fn open_all(dir: &Path, read_only: bool) -> io::Result<Vec<Self>> {
        let mut files = Vec::new();
        for path in disk::paths_in(dir)? {
            let path = path?;
            let number = path.file_stem().and_then(|stem| stem.to_str());
            let Some(number) = number.and_then(|stem| stem.parse().ok()) else {
                continue;
            };
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("journal") => files.push(Self::open(path, number, read_only)?),
                Some("tmp") => disk::remove(&path)?,
                _ => {}
            }
        }
        files.sort_by_key(|file| file.number);
        Ok(files)
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Gives room that is not used back to the file system; the file is no journal of the usual size any more.
    pub(crate) fn shrink(&self, capacity: u64) -> io::Result<()> {
        if capacity < self.capacity() {
            self.capacity.store(capacity, Ordering::Relaxed);
            self.file.set_len(capacity)?;
            self.file.sync_all()?;
        }
        Ok(())
    }

    pub(crate) fn read_all(&self, pace: &Pace<'_>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(&mut bytes, pace)?;
        Ok(bytes)
    }

    /// Reads all of it, into memory that is used again.
    pub(crate) fn read_into(&self, bytes: &mut Vec<u8>, pace: &Pace<'_>) -> io::Result<()> {
        let capacity = usize::try_from(self.capacity()).map_err(io::Error::other)?;
        if bytes.is_empty() {
            // As zeros, it is the system's until it is read into.
            *bytes = vec![0; capacity];
        }
        bytes.resize(capacity, 0);
        let mut offset = 0;
        for part in bytes.chunks_mut(READ_SIZE) {
            self.read_at(part, offset)?;
            offset += part.len() as u64;
            pace.rest();
        }
        Ok(())
    }

    /// The batch at the beginning, if there is a valid one, without reading the rest.
    pub(crate) fn first_batch(&self, store: Uuid) -> io::Result<Option<BatchHeader>> {
        let mut bytes = vec![0; format::HEADER_LEN.min(self.capacity() as usize)];
        self.read_at(&mut bytes, 0)?;
        let Some((length, _)) =
            format::peek(&bytes).filter(|&(len, _)| len as u64 <= self.capacity())
        else {
            return Ok(None);
        };
        bytes.resize(length, 0);
        self.read_at(&mut bytes, 0)?;
        Ok(Batch::read(&bytes, store).map(|batch| batch.header))
    }

    /// Whether something stands at its beginning that is no valid batch.
    pub(crate) fn begins_unreadably(&self, store: Uuid) -> io::Result<bool> {
        let mut head = vec![0; format::HEADER_LEN.min(self.capacity() as usize)];
        self.read_at(&mut head, 0)?;
        Ok(head.iter().any(|&byte| byte != 0) && self.first_batch(store)?.is_none())
    }

    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.sync_by(&self.file)
    }

    /// Syncs for somebody who does not write to it, from whom no failure is kept, and who keeps none from the writer. After one that
    /// failed, none succeeds: what was lost then is not on the disk, and never will be.
    pub(crate) fn sync_apart(&self) -> io::Result<()> {
        self.sync_by(&self.apart)?;
        match self.has_failed.load(Ordering::Acquire) {
            true => Err(io::Error::other("an earlier sync of a journal failed")),
            false => Ok(()),
        }
    }

    fn sync_by(&self, handle: &File) -> io::Result<()> {
        if self.is_read_only {
            return Ok(());
        }
        let synced = handle.sync_data();
        if synced.is_err() {
            self.has_failed.store(true, Ordering::Release);
        }
        synced
    }

    /// Writes what was read from it once more. Where a sync failed, the system may go on showing what the disk does not have, and
    /// take it for written: then no other sync helps.
    pub(crate) fn write_again(&self, bytes: &[u8], spans: &[Range<usize>]) -> io::Result<()> {
        if self.is_read_only {
            return Ok(());
        }
        for span in spans {
            self.write_at(&bytes[span.clone()], span.start as u64)?;
        }
        Ok(())
    }

    /// Overwrites a range with zeros, synced.
    pub(crate) fn erase(&self, range: Range<usize>) -> io::Result<()> {
        if self.is_read_only {
            return Ok(());
        }
        self.write_at(&vec![0; range.len()], range.start as u64)?;
        self.sync()
    }

    /// Removes the file; whoever still reads it may go on.
    pub(crate) fn remove(&self) -> io::Result<()> {
        disk::remove(&self.path)
    }
}

/// A journal that is written no more and waits to be sealed.
#[derive(Clone, Debug)]
pub(crate) struct Unsealed {
    pub(crate) file: Arc<JournalFile>,
    pub(crate) generation: u64,
    /// Where its batches are: one range, but for what is damaged.
    pub(crate) spans: Vec<Range<usize>>,
    /// Nobody needs what is in the file from here on.
    pub(crate) end: u64,
}

impl Unsealed {
    /// Behind its last batch; 0 if there is none.
    pub(crate) fn written(&self) -> u64 {
        self.spans.last().map_or(0, |span| span.end as u64)
    }
}
