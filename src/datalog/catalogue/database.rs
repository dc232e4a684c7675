//! sled's database: opened, asked, synced, reopened after a refusal, given up after a failure.
//!
//! Owns which of these it is in, and the file beside the directory that tells the next start about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::CatalogueError;
use super::guard::guarded;
use crate::datalog::disk::{self, File};
use crate::datalog::store::{is_disk_full, write_zeros};

/// Unfinished openings after which the directory is held to be what ends the process (sled may ask for more memory than
/// there is when it reads a wrong length).
pub(super) const OPENINGS: u64 = 3;

/// How long a directory may stay locked: sled's threads let go of it a little after it was closed.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Room on the disk that opening takes, and some more.
const OPENING_ROOM: u64 = 2 << 20;

#[derive(Debug)]
pub(super) struct Database {
    dir: PathBuf,
    cache: u64,
    /// None after a reopening that failed, and while it is dropped.
    db: RwLock<Option<sled::Db>>,
    /// sled's file, which sled itself does not sync to the disk.
    file: File,
    /// Nothing is asked of it any more.
    broken: AtomicBool,
    /// The operating system refused a call, and sled takes no write after one that was refused.
    refused: AtomicBool,
}

impl Database {
    pub(super) fn open(dir: &Path, cache: u64) -> Result<Self, CatalogueError> {
        let suspicion = suspicion_path(dir);
        let openings = disk::len(&suspicion).unwrap_or(0);
        if openings >= OPENINGS {
            return Err(CatalogueError::Damaged(
                "it was not opened, or not used, without a failure".into(),
            ));
        }
        // On a full disk this fails before anything else, and must not keep the server from starting.
        let _ = suspect(&suspicion, 1);
        let opened = open(dir, cache);
        if let Err(CatalogueError::Io(_)) = &opened {
            // It was an end: only openings that took the process with them count.
            let _ = File::open_to_write(&suspicion).and_then(|file| file.set_len(openings));
        }
        let db = opened?;
        let file = File::open(&dir.join("db"))?;
        file.sync_all()?;
        disk::sync_dir(dir)?;
        disk::remove_if_there(&suspicion)?;
        sync_parent(dir)?;
        Ok(Self {
            dir: dir.into(),
            cache,
            db: RwLock::new(Some(db)),
            file,
            broken: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        })
    }

    #[cfg(test)]
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every call of sled goes through here, but for opening and closing.
    pub(super) fn ask<T>(
        &self,
        question: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, CatalogueError> {
        if self.broken.load(Ordering::Acquire) {
            return Err(CatalogueError::Damaged("it failed before".into()));
        }
        let db = self.db.read();
        let Some(db) = &*db else {
            return Err(io::Error::other("it could not be opened again").into());
        };
        let answer = guarded(|| question(db));
        match &answer {
            Ok(_) => {}
            Err(CatalogueError::Io(_)) => self.refused.store(true, Ordering::Release),
            Err(CatalogueError::Damaged(what)) => drop(self.damage(what.clone())),
        }
        answer
    }

    /// Makes everything written survive a power cut; sled's own flush reaches the page cache only.
    pub(super) fn sync(&self) -> Result<(), CatalogueError> {
        self.ask(|db| db.flush())?;
        // What a failed sync left on the disk can't be known, and a second one would not tell.
        self.file
            .sync_data()
            .map_err(|error| self.damage(format!("it could not be synced: {error}")))
    }

    /// Opens it again if a call was refused since it was opened; whether it did. What was not flushed may be gone then.
    pub(super) fn reopen_if_refused(&self) -> Result<bool, CatalogueError> {
        if !self.refused.load(Ordering::Acquire) {
            return Ok(false);
        }
        // Closed and not opened again, it could not even be read.
        try_room(&self.dir)?;
        self.reopen()?;
        Ok(true)
    }

    /// Gives back the memory of what was read, of which sled's cache counts only some. On a full disk it is kept.
    pub(super) fn shed(&self) -> Result<(), CatalogueError> {
        match try_room(&self.dir) {
            Ok(()) => self.reopen(),
            Err(error) if is_disk_full(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn reopen(&self) -> Result<(), CatalogueError> {
        let mut db = self.db.write();
        if let Some(db) = db.take() {
            close(db)?;
        }
        *db = Some(open(&self.dir, self.cache)?);
        self.refused.store(false, Ordering::Release);
        Ok(())
    }

    /// Notes that it can't be used any more, in this process or the next.
    pub(super) fn damage(&self, what: String) -> CatalogueError {
        self.broken.store(true, Ordering::Release);
        // If this fails too, the next start finds the damage by itself, or there was none on disk.
        let _ = suspect(&suspicion_path(&self.dir), OPENINGS);
        CatalogueError::Damaged(what)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(db) = self.db.get_mut().take() else {
            return;
        };
        if self.broken.load(Ordering::Acquire) {
            // Nothing is flushed after a panic.
            std::mem::forget(db);
        } else if let Err(CatalogueError::Damaged(what)) = close(db) {
            self.damage(what);
        }
    }
}

fn open(dir: &Path, cache: u64) -> Result<sled::Db, CatalogueError> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(cache)
        .flush_every_ms(None);
    let begun = Instant::now();
    loop {
        match guarded(|| config.open()) {
            Err(CatalogueError::Io(error))
                if is_lock(&error) && begun.elapsed() < LOCK_PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

/// Its destructor flushes.
fn close(db: sled::Db) -> Result<(), CatalogueError> {
    guarded(|| {
        drop(db);
        Ok(())
    })
}

/// Fails if the disk is full.
fn try_room(dir: &Path) -> io::Result<()> {
    let path = dir.with_extension("room");
    let tried = write_zeros(&path, OPENING_ROOM).map(drop);
    disk::remove_if_there(&path)?;
    tried
}

/// See [`Catalogue::set_aside`](super::Catalogue::set_aside).
pub(super) fn set_aside(dir: &Path, quarantine: &Path) -> io::Result<PathBuf> {
    let mut number = 0_u32;
    let aside = loop {
        let name = quarantine.join(format!("catalogue-{number}"));
        if !disk::exists(&name)? {
            break name;
        }
        number += 1;
    };
    match disk::rename(dir, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk::sync_dir(quarantine)?;
    disk::remove_if_there(&suspicion_path(dir))?;
    sync_parent(dir)?;
    Ok(aside)
}

/// Beside the directory: as many bytes as there were openings that did not end, or [`OPENINGS`] if it failed in use.
pub(super) fn suspicion_path(dir: &Path) -> PathBuf {
    dir.with_extension("suspect")
}

pub(super) fn suspect(path: &Path, openings: u64) -> io::Result<()> {
    let file = File::open_or_create(path)?;
    let before = file.len()?;
    for opening in 0..openings {
        file.write_all_at(b".", before + opening)?;
    }
    file.sync_all()
}

fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.to_string().contains("could not acquire lock")
}

fn sync_parent(dir: &Path) -> io::Result<()> {
    dir.parent().map_or(Ok(()), disk::sync_dir)
}
