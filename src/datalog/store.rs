//! The data directory: who has it open, in which format it is, how its last user ended.
//!
//! Owns the files `lock`, `format`, `running`, `ended` and `reserve`, the names of the directories, and what is put into
//! `quarantine`. Does not own what is in the other directories.
//!
//! `running` is there while the data log is open; found at a start, it means that the last end was not orderly. It says in
//! which boot that was, since only the end of a boot can take what was written and not synced, and how far the newest journal
//! was synced at least. Both list the generations that wait to be sealed, whose journals have to be there, and torn tails that are
//! still there. `ended` is of the last orderly end, and says what the journals held then: what lacks of it now is damage.
//! `format` has the store's id, without which no journal can be read. Each ends with a checksum.

mod notes;

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    OpenError,
    disk::{self, File},
};
pub(crate) use notes::{Found, Lost, RunNote, Synced, Uncut};
use notes::{read_format, read_or_make_format, read_running};

/// Bytes of the file that is given up so that a start succeeds on a full disk.
const RESERVE: u64 = 8 << 20;

/// The folder of what a backup still needs. Its links are those of a server that runs: a start removes it.
pub(crate) const BACKUP: &str = "backup.tmp";

/// Makes what is in `dir` the data directory of the store `id`, as after an orderly end: `newest` is the last batch with its journal's
/// generation, `unsealed` are the generations that wait to be sealed. Synced.
pub(crate) fn found(
    dir: &Path,
    id: Uuid,
    (generation, batch): (u64, u64),
    unsealed: &[u64],
) -> io::Result<()> {
    let ended = notes::ended(generation, batch, unsealed, &[]);
    write_whole(dir, "ended", ended.as_bytes())?;
    write_whole(dir, "format", notes::format(id).as_bytes())
}

/// An open data directory, locked until it is dropped.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    id: Uuid,
    found: Found,
    is_stand_in: bool,
    _lock: Option<File>,
}

/// Adds what was tried to an I/O error.
pub(crate) trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, OpenError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, OpenError> {
        self.map_err(|source| OpenError::Io {
            what: what(),
            source,
        })
    }
}

impl Store {
    /// Locks the directory, which is made if it does not exist, and checks its format.
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        let doing = || format!("opening data directory {}", dir.display());
        disk::create_dir_all(dir).during(doing)?;
        let lock = File::open_or_create(&dir.join("lock")).during(doing)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(error).during(doing),
        }
        let id = read_or_make_format(dir)?;
        // A start or a server that was cut short may have left names that are not durable, and all of these are relied on: the format
        // before anything is made beside it.
        disk::sync_dir(dir).during(doing)?;
        for sub in ["journal", "segments", "state", "quarantine"] {
            let sub = dir.join(sub);
            disk::create_dir_all(&sub).during(doing)?;
            disk::sync_dir(&sub).during(doing)?;
        }
        disk::sync_dir(dir).during(doing)?;
        let found = read_running(dir).during(doing)?;
        let store = Self {
            dir: dir.to_owned(),
            id,
            found,
            is_stand_in: false,
            _lock: Some(lock),
        };
        // What a backup left that did not end.
        disk::remove_dir_all(&store.backup_dir()).during(doing)?;
        store.make_room().during(doing)?;
        Ok(store)
    }

    /// Looks at the data directory `dir`, in which nothing is changed. What a start would change is changed in `stand_in`: a
    /// directory with links to the files of `dir`, and copies of those that opening changes.
    ///
    /// It shares the lock with others who look, and with no server.
    pub(crate) fn look(dir: &Path, stand_in: &Path) -> Result<Self, OpenError> {
        let doing = || format!("opening data directory {}", dir.display());
        let lock = match File::open(&dir.join("lock")) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).during(doing),
        };
        match lock.as_ref().map_or(Ok(()), File::try_lock_shared) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(error).during(doing),
        }
        let id = read_format(dir)?.ok_or_else(|| OpenError::NoFormat(dir.to_owned()))?;
        Ok(Self {
            dir: stand_in.to_owned(),
            id,
            found: read_running(dir).during(doing)?,
            is_stand_in: true,
            _lock: lock,
        })
    }

    /// Whether journals and state log are links to those of a directory that is only looked at.
    pub(crate) fn is_stand_in(&self) -> bool {
        self.is_stand_in
    }

    /// The store's id, which no other store has.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    pub(crate) fn found(&self) -> &Found {
        &self.found
    }

    /// Whether nobody has used the directory before.
    pub(crate) fn is_new(&self) -> bool {
        self.found == Found::default()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(crate) fn segment_dir(&self) -> PathBuf {
        self.dir.join("segments")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub(crate) fn catalogue_dir(&self) -> PathBuf {
        self.dir.join("catalogue")
    }

    /// Where files are kept that a backup still needs.
    pub(crate) fn backup_dir(&self) -> PathBuf {
        self.dir.join(BACKUP)
    }

    pub(crate) fn quarantine_dir(&self) -> PathBuf {
        self.dir.join("quarantine")
    }

    /// Notes that the directory is in use in this boot, and how.
    pub(crate) fn mark_running(&self, note: &RunNote) -> io::Result<()> {
        let text = notes::running(&self.dir, note);
        write_whole(&self.dir, "running", text.as_bytes())
    }

    /// Notes how a run goes on. A failure is told, and no more: the next start judges less or asks again.
    pub(crate) fn note_running(&self, note: &RunNote) {
        if let Err(error) = self.mark_running(note) {
            log::warn!("how far the log is synced could not be noted: {error}");
        }
    }

    /// Notes that everything is written and synced, the last batch being `batch`, in the journal of `generation`, which
    /// generations wait to be sealed, and which torn tails are still there.
    pub(crate) fn mark_clean(
        &self,
        (generation, batch): (u64, u64),
        unsealed: &[u64],
        uncut: &[Uncut],
    ) -> io::Result<()> {
        let text = notes::ended(generation, batch, unsealed, uncut);
        write_whole(&self.dir, "ended", text.as_bytes())?;
        disk::remove(&self.dir.join("running"))?;
        disk::sync_dir(&self.dir)
    }

    /// Sets a copy of `bytes` aside. The same name is written once only: a start that did not get further finds the same again.
    pub(crate) fn quarantine_bytes(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let dir = self.quarantine_dir();
        if disk::exists(&dir.join(name))? {
            return Ok(());
        }
        write_whole(&dir, name, bytes)
    }

    /// Sets a copy of one of the small files aside, before it is written anew.
    pub(crate) fn quarantine_copy(&self, name: &str) -> io::Result<()> {
        match disk::read(&self.dir.join(name)) {
            Ok(bytes) => {
                let crc = crc32c::crc32c(&bytes);
                self.quarantine_bytes(&format!("{name}-{crc:08x}"), &bytes)
            }
            // A stand-in has none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Moves a file or directory aside, and says where it is now.
    pub(crate) fn quarantine(&self, path: &Path) -> io::Result<PathBuf> {
        let dir = self.quarantine_dir();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut target = dir.join(&*name);
        let mut number = 0_u32;
        while disk::exists(&target)? {
            number += 1;
            target = dir.join(format!("{name}.{number}"));
        }
        disk::rename(path, &target)?;
        disk::sync_dir(&dir)?;
        if let Some(parent) = path.parent() {
            disk::sync_dir(parent)?;
        }
        Ok(target)
    }

    /// Gives the reserve up if the disk has no room for what a start writes.
    fn make_room(&self) -> io::Result<()> {
        let (probe, reserve) = (self.dir.join("probe"), self.dir.join("reserve"));
        // Of a server that was cut short.
        disk::remove_if_there(&self.dir.join("reserve.tmp"))?;
        let tried = write_zeros(&probe, RESERVE / 8).map(drop);
        let _ = disk::remove(&probe); // it may not have been made
        match tried {
            Err(error) if is_disk_full(&error) => {
                if disk::exists(&reserve)? {
                    log::warn!(
                        "the disk is full: the reserve of {RESERVE} bytes is given up for this start"
                    );
                    disk::remove(&reserve)?;
                }
                Ok(())
            }
            other => other,
        }
    }

    /// Gives the reserve up: something that has to be done found the disk full. False if it was given up before.
    pub(crate) fn give_reserve_up(&self) -> bool {
        disk::remove(&self.dir.join("reserve")).is_ok()
    }

    /// Makes the reserve if it is not there.
    pub(crate) fn keep_reserve(&self) -> io::Result<()> {
        let reserve = self.dir.join("reserve");
        if disk::len(&reserve).is_ok_and(|len| len >= RESERVE) {
            return Ok(());
        }
        let partial = self.dir.join("reserve.tmp");
        let made = write_zeros(&partial, RESERVE)
            .map(drop)
            .and_then(|()| disk::rename(&partial, &reserve));
        if made.is_err() {
            let _ = disk::remove(&partial); // it may not have been made
        }
        made
    }
}

/// A file of `len` zeros, synced, whose name is not yet.
pub(crate) fn write_zeros(path: &Path, len: u64) -> io::Result<File> {
    const STEP: usize = 1 << 20;
    let file = File::create(path)?;
    let zeros = vec![0; STEP.min(usize::try_from(len).unwrap_or(STEP))];
    let mut written = 0;
    while written < len {
        let step = zeros
            .len()
            .min(usize::try_from(len - written).unwrap_or(STEP));
        file.write_all_at(&zeros[..step], written)?;
        written += step as u64;
    }
    file.sync_all()?;
    Ok(file)
}

/// Writes a small file so that it is there whole or not at all.
pub(crate) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let partial = dir.join(format!("{name}.tmp"));
    let written = File::create(&partial).and_then(|file| {
        file.write_all_at(bytes, 0)?;
        file.sync_all()
    });
    if let Err(error) = written {
        // On a full disk it takes the room that something smaller needs.
        let _ = disk::remove(&partial); // it may not have been made
        return Err(error);
    }
    disk::rename(&partial, &dir.join(name))?;
    disk::sync_dir(dir)
}

/// A full disk is no reason not to start.
pub(crate) fn ignore_full(error: io::Error) -> io::Result<()> {
    match is_disk_full(&error) {
        true => Ok(()),
        false => Err(error),
    }
}

/// Whether the error says that there is no room.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn second_server_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(OpenError::Locked(_))));
        drop(first);
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn store_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let id = Store::open(dir.path()).unwrap().id();
        assert_eq!(Store::open(dir.path()).unwrap().id(), id);
    }

    #[test]
    fn format_of_a_newer_version_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("infotainer data 2\n{}\n", Uuid::nil());
        fs::write(dir.path().join("format"), &text).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(
            matches!(&error, OpenError::Format { found, .. } if found == "infotainer data 2"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(dir.path().join("format")).unwrap(), text);
    }

    #[test]
    fn data_without_a_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("journal")).unwrap();
        assert!(matches!(
            Store::open(dir.path()),
            Err(OpenError::NoFormat(_))
        ));
    }

    #[test]
    fn unclean_end_is_told_from_an_orderly_one_and_from_one_in_another_boot() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path()).unwrap();
        assert_eq!(*open().found(), Found::default());
        let synced = Some(Synced {
            generation: 5,
            batch: 11,
            capacity: 1 << 20,
        });
        let (began, lost) = ((4, 9), Lost::default());
        let note = RunNote {
            began,
            lost,
            synced,
            unsealed: vec![2, 4],
            uncut: vec![(2, 800), (4, 0)],
        };
        open().mark_running(&note).unwrap();
        let unclean = Found {
            unclean: true,
            unclean_boot: false,
            generation: 4,
            batch: 9,
            synced,
            unsealed: vec![2, 4],
            uncut: vec![(2, 800), (4, 0)],
            ..Found::default()
        };
        assert_eq!(*open().found(), unclean);
        let running = dir.path().join("running");
        let text = fs::read_to_string(&running).unwrap();
        let (_, rest) = text.split_once('\n').unwrap();
        fs::write(&running, format!("another boot\n{rest}")).unwrap();
        let unclean_boot = Found {
            unclean_boot: true,
            ..unclean.clone()
        };
        assert_eq!(*open().found(), unclean_boot);
        open().mark_clean((5, 12), &[5], &[(4, 0)]).unwrap();
        let clean = Found {
            ended: Some((5, 12)),
            unsealed: vec![5],
            uncut: vec![(4, 0)],
            ..Found::default()
        };
        assert_eq!(*open().found(), clean);
    }

    #[test]
    fn file_that_was_changed_anywhere_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = store.id();
        store.mark_clean((5, 12), &[], &[]).unwrap_err();
        let ended = dir.path().join("ended");
        let whole = fs::read(&ended).unwrap();
        drop(store);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&ended, bytes).unwrap();
                let found = Store::open(dir.path()).unwrap().found().clone();
                let is_told = found.damaged == Some("ended");
                assert!(is_told || found.ended == Some((5, 12)), "{at}, {bit}");
            }
        }
        let format = dir.path().join("format");
        let whole = fs::read(&format).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&format, bytes).unwrap();
            match Store::open(dir.path()) {
                Ok(store) => assert_eq!(store.id(), id, "{at}"),
                Err(error) => {
                    let is_said = matches!(
                        error,
                        OpenError::Format { .. } | OpenError::DamagedFormat(_)
                    );
                    assert!(is_said, "{at}: {error}");
                }
            }
        }
    }

    #[test]
    fn what_is_set_aside_never_replaces_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let path = dir.path().join("thing");
        for text in ["one", "two"] {
            fs::write(&path, text).unwrap();
            store.quarantine(&path).unwrap();
        }
        let read = |name| fs::read_to_string(dir.path().join("quarantine").join(name)).unwrap();
        assert_eq!(
            (read("thing"), read("thing.1")),
            ("one".into(), "two".into())
        );
    }
}
