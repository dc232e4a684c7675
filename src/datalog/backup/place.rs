//! The directory that a restored store comes to: empty before, and then there whole or of no use to a server.
//!
//! ```text
//!  lock, journal/ (empty)       a start refuses it: data without a format
//!  restore.tmp/ ...             the store is made here
//!  journal/ segments/ ...       moved out of it
//!  format                       the last to be moved: a start takes it from here on
//! ```

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::datalog::disk::{self, File};

/// Where the store is made.
const MAKING: &str = "restore.tmp";

/// Of a file system of its own, which is as good as empty.
const LOST_AND_FOUND: &str = "lost+found";

/// An empty directory that is kept for a store. What was made in it goes with this, unless it was [filled](Self::fill).
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    is_filled: bool,
    _lock: File,
}

/// Why a directory is no place for a store.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A server has it open, or another is being restored there.
    #[error("data directory {0} is in use")]
    InUse(PathBuf),
    /// It holds something.
    #[error("{0} is not empty, and what is there is not touched")]
    NotEmpty(PathBuf),
    /// The operating system refused something.
    #[error("making {dir}: {source}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The refusal.
        source: io::Error,
    },
}

impl Place {
    /// Takes the directory `dir`, which is made if it does not exist. What a restore left there that was killed is removed.
    ///
    /// # Errors
    /// If there is something in it, or it can't be written.
    pub fn take(dir: &Path) -> Result<Self, PlaceError> {
        let refused = |source| PlaceError::Io {
            dir: dir.to_owned(),
            source,
        };
        let check = || match is_empty(dir) {
            Ok(true) => Ok(()),
            Ok(false) => Err(PlaceError::NotEmpty(dir.to_owned())),
            Err(source) => Err(refused(source)),
        };
        disk::create_dir_all(dir).map_err(refused)?;
        check()?;
        let lock = File::open_or_create(&dir.join("lock")).map_err(refused)?;
        match lock.try_lock() {
            Ok(()) => check()?,
            Err(TryLockError::WouldBlock) => return Err(PlaceError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
        let place = Self {
            dir: dir.to_owned(),
            is_filled: false,
            _lock: lock,
        };
        place.prepare().map_err(refused)?;
        Ok(place)
    }

    fn prepare(&self) -> io::Result<()> {
        disk::create_dir_all(&self.dir.join("journal"))?;
        disk::sync_dir(&self.dir)?;
        disk::remove_dir_all(&self.making())?;
        disk::create_dir_all(&self.making())
    }

    /// The directory, inside of this one, in which the store is to be made.
    pub fn making(&self) -> PathBuf {
        self.dir.join(MAKING)
    }

    /// Moves the store that was made to where it belongs. Nobody has it open any more. Synced.
    ///
    /// # Errors
    /// If it can't be moved. No server takes the directory then.
    pub fn fill(mut self) -> io::Result<()> {
        let making = self.making();
        let mut names = BTreeSet::new();
        for path in disk::paths_in(&making)? {
            names.extend(path?.file_name().map(OsString::from));
        }
        names.remove(&OsString::from("lock"));
        let format = names.take(&OsString::from("format"));
        for name in names.iter().chain(&format) {
            if Some(name) == format.as_ref() {
                disk::sync_dir(&self.dir)?;
            }
            disk::rename(&making.join(name), &self.dir.join(name))?;
        }
        disk::sync_dir(&self.dir)?;
        self.is_filled = true;
        disk::remove_dir_all(&making)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_filled {
            return;
        }
        let removed = disk::remove_dir_all(&self.making())
            // What was moved already is not removed: a start refuses it.
            .and_then(|()| fs::remove_dir(self.dir.join("journal")))
            .and_then(|()| disk::remove(&self.dir.join("lock")));
        if let Err(error) = removed {
            log::warn!("something is left in {}: {error}", self.dir.display());
        }
    }
}

/// Whether there is nothing but what an unfinished restore leaves.
fn is_empty(dir: &Path) -> io::Result<bool> {
    for path in disk::paths_in(dir)? {
        let path = path?;
        let is_ours = match path.file_name().and_then(|name| name.to_str()) {
            Some(MAKING | LOST_AND_FOUND | "lock") => true,
            Some("journal") => disk::paths_in(&path)?.next().is_none(),
            _ => false,
        };
        if !is_ours {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_empty_or_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        drop(Place::take(&inner).unwrap());
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
        fs::write(inner.join("thing"), "x").unwrap();
        assert!(matches!(Place::take(&inner), Err(PlaceError::NotEmpty(_))));
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);
    }

    #[test]
    fn place_that_is_taken_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Place::take(dir.path()).unwrap();
        let second = Place::take(dir.path());
        assert!(matches!(second, Err(PlaceError::InUse(_))), "{second:?}");
    }

    #[test]
    fn what_a_restore_left_that_was_killed_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let first = Place::take(dir.path()).unwrap();
        fs::write(first.making().join("thing"), "x").unwrap();
        std::mem::forget(first);
        // Its lock is that of this process still.
        fs::remove_file(dir.path().join("lock")).unwrap();
        let second = Place::take(dir.path()).unwrap();
        assert_eq!(fs::read_dir(second.making()).unwrap().count(), 0);
    }

    #[test]
    fn place_is_filled_with_what_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::take(dir.path()).unwrap();
        for sub in ["journal", "segments"] {
            disk::create_dir_all(&place.making().join(sub)).unwrap();
        }
        for name in ["journal/1.journal", "format", "lock"] {
            fs::write(place.making().join(name), name).unwrap();
        }
        place.fill().unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["format", "journal", "lock", "segments"]);
        assert!(dir.path().join("journal/1.journal").exists());
    }
}
