//! The catalogue: where the sealed publications are, where client-supplied ids are, and the state map as of the newest
//! sealed journal.
//!
//! Owns the directory `catalogue/` and is the only module that names sled. It is a copy: everything in it can be made again
//! from state log, segment footers and journals, and that is what its owner does when it is damaged. Does not own that
//! decision, nor the files that it points to.
//!
//! One tree holds everything, so that one sled batch changes entries and account together. The first byte of a key is its kind:
//!
//! ```text
//! r segment number     descriptors of some of its runs    s segment  generations, level, length of the file
//! l logs               first, last, time of the last      k key      entry of the state map
//! i log id             sequence of a client-supplied id   x log      a removed log whose ids are still to be removed
//! m                    store, sealed through, next log    a, j       count and sum of all other entries; of the ids
//! ```
//!
//! Invariants:
//! * What was committed survives a power cut. A failure of process or power before the end of a commit may leave some of it:
//!   with the journals behind `m` replayed over it, that is the state before or after it (`commit.rs` says why).
//! * A run counts only if its segment is listed, and is never changed: whether it is dead, its log says.
//! * sled's own checksums cover what it writes, not what it forgets: `a` and `j` tell when an entry was lost.
//! * A panic inside sled never gets out of here; after one, nothing more is asked of sled, and the next start makes the
//!   catalogue again.

mod batch;
mod commit;
mod database;
mod entry;
mod guard;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

pub(crate) use batch::CatalogueBatch;
pub(crate) use entry::{LogEntry, Meta, SegmentEntry};
pub use guard::panic_is_contained;

use super::segment::{RunDescriptor, SegmentId};
use super::{LogNumber, Record};
use crate::protocol::{PublicationId, Sequence};
use database::Database;
use entry::{ACCOUNT, Account, ID, IDS_ACCOUNT, LOG, META, REMOVED, RUN, SEGMENT, STATE};

/// Why the catalogue does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogueError {
    /// The operating system refused; what is in the directory may be as good as ever.
    #[error("the catalogue can't be read or written")]
    Io(#[from] io::Error),
    /// It has to be made again.
    #[error("the catalogue is damaged: {0}")]
    Damaged(String),
}

impl CatalogueError {
    /// Whether setting it aside and making it again is the cure.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

impl From<sled::Error> for CatalogueError {
    fn from(error: sled::Error) -> Self {
        match error {
            // Kinds that come of wrong content.
            sled::Error::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::InvalidData
                        | io::ErrorKind::InvalidInput
                ) =>
            {
                Self::Damaged(error.to_string())
            }
            sled::Error::Io(error) => Self::Io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Everything in the catalogue but the ids.
#[derive(Debug, Default)]
pub(crate) struct CatalogueState {
    /// None: the catalogue is new and empty.
    pub(crate) meta: Option<Meta>,
    /// In order of (log, first sequence); no two overlap. Dead ones are among them.
    pub(crate) runs: Vec<RunDescriptor>,
    /// In order of their number.
    pub(crate) segments: Vec<SegmentEntry>,
    /// In order of their number.
    pub(crate) logs: Vec<(LogNumber, LogEntry)>,
    /// In order of the key.
    pub(crate) state: Vec<StateEntry>,
}

/// Key and value of the state map.
pub(crate) type StateEntry = (Box<[u8]>, Box<[u8]>);

/// An open catalogue. [`find_id`](Self::find_id) may be called from any thread, everything else from one.
#[derive(Debug)]
pub(crate) struct Catalogue {
    database: Database,
    accounts: Mutex<Accounts>,
    /// Steps after which the disk is full.
    #[cfg(test)]
    steps_left: std::sync::atomic::AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct Accounts {
    entries: Account,
    ids: Account,
    /// Segments that are not listed and have runs; these go with the next commit.
    strays: BTreeSet<SegmentId>,
}

impl Catalogue {
    /// Opens the catalogue in `dir`, or makes an empty one. `cache` is in bytes.
    ///
    /// # Errors
    /// If it is damaged (see [`set_aside`](Self::set_aside)), or can't be opened for another reason.
    pub(crate) fn open(dir: &Path, cache: u64) -> Result<Self, CatalogueError> {
        let catalogue = Self {
            database: Database::open(dir, cache)?,
            accounts: Mutex::default(),
            #[cfg(test)]
            steps_left: u64::MAX.into(),
        };
        catalogue.read_accounts(&mut catalogue.accounts.lock())?;
        Ok(catalogue)
    }

    /// Moves a damaged catalogue out of the way, to a new name in `quarantine`, which it returns. A new, empty one can be
    /// opened afterwards; without this, opening goes on to fail.
    ///
    /// # Errors
    /// If the directory can't be moved. Nothing was changed then.
    pub(crate) fn set_aside(dir: &Path, quarantine: &Path) -> io::Result<PathBuf> {
        database::set_aside(dir, quarantine)
    }

    /// Reads everything but the ids, and checks that nothing is missing.
    ///
    /// # Errors
    /// If it can't be read, or is not what was written.
    pub(crate) fn load(&self) -> Result<CatalogueState, CatalogueError> {
        let mut account = Account::default();
        let mut found = CatalogueState::default();
        let mut add = |key: &[u8], value: &[u8]| account.add(key, value);

        self.for_each(META, |key, value| {
            add(key, value);
            found.meta = Some(Meta::decode(value)?);
            Some(())
        })?;
        self.for_each(SEGMENT, |key, value| {
            add(key, value);
            found.segments.push(SegmentEntry::decode(key, value)?);
            Some(())
        })?;
        let mut strays = BTreeSet::new();
        self.for_each(RUN, |key, value| {
            add(key, value);
            let segment = entry::decode_runs_key(key)?;
            let listed = &found.segments;
            if listed
                .binary_search_by_key(&segment, |entry| entry.header.id)
                .is_err()
            {
                strays.insert(segment);
                return Some(());
            }
            entry::decode_runs(segment, value, &mut found.runs)
        })?;
        self.for_each(LOG, |key, value| {
            add(key, value);
            found.logs.extend(entry::decode_logs(key, value)?);
            Some(())
        })?;
        self.for_each(STATE, |key, value| {
            add(key, value);
            found.state.push((key.get(1..)?.into(), value.into()));
            Some(())
        })?;
        self.for_each(REMOVED, |key, value| {
            add(key, value);
            Some(())
        })?;

        let mut accounts = self.accounts.lock();
        if account != accounts.entries {
            return Err(self.database.damage(format!(
                "it has {account}, and should have {}",
                accounts.entries
            )));
        }
        if found.meta.is_none() && (account, accounts.ids) != <(Account, Account)>::default() {
            return Err(self.database.damage("it was never completed".into()));
        }
        accounts.strays = strays;
        found.runs.sort_unstable_by_key(|run| (run.log, run.first));
        let overlapping = found
            .runs
            .windows(2)
            .find(|pair| overlap(&pair[0], &pair[1]));
        if let Some([one, ..]) = overlapping {
            return Err(self
                .database
                .damage(format!("log {} has two runs with {}", one.log.0, one.last)));
        }
        Ok(found)
    }

    /// Reads every id and checks that none is missing: for a start after a power cut.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn verify_ids(&self) -> Result<(), CatalogueError> {
        let mut account = Account::default();
        self.for_each(ID, |key, value| {
            account.add(key, value);
            Some(())
        })?;
        let expected = self.accounts.lock().ids;
        if account == expected {
            return Ok(());
        }
        Err(self.database.damage(format!(
            "of its ids it has {account}, and should have {expected}"
        )))
    }

    /// Gives back the memory that [`load`](Self::load) took inside of sled.
    ///
    /// # Errors
    /// If it can't be opened again. It is of no use then.
    pub(crate) fn shed(&self) -> Result<(), CatalogueError> {
        self.database.shed()
    }

    /// Where the log has the client-supplied `id`, as far as it is sealed; it may be below the log's first.
    ///
    /// # Errors
    /// If sled fails.
    pub(crate) fn find_id(
        &self,
        log: LogNumber,
        id: &PublicationId,
    ) -> Result<Option<Sequence>, CatalogueError> {
        let key = entry::id_key(log, id);
        let Some(value) = self.database.ask(|db| db.get(&key))? else {
            return Ok(None);
        };
        entry::decode_sequence(&value)
            .map(Some)
            .ok_or_else(|| self.database.damage("an id without a sequence".into()))
    }

    /// Tells logs and state map as records that make them anew, for the state log to be rewritten with.
    ///
    /// # Errors
    /// If sled fails, or `tell` does.
    pub(crate) fn records<E: From<CatalogueError>>(
        &self,
        mut tell: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut failed = None;
        let mut pass = |record| {
            if failed.is_none() {
                failed = tell(record).err();
            }
            failed.is_none()
        };
        let mut next_log = 0;
        self.walk(META, |_, value| {
            next_log = Meta::decode(value)?.next_log;
            Some(true)
        })?;
        let mut newest = None;
        self.walk(LOG, |key, value| {
            Some(
                entry::decode_logs(key, value)?
                    .into_iter()
                    .all(|(log, entry)| {
                        newest = Some(log.0);
                        let first = entry.first;
                        pass(Record::CreateLog(log)) && pass(Record::Truncate { log, first })
                    }),
            )
        })?;
        // The newest number that was ever used must be known, or it would be used again. A commit that did not end may have
        // left a newer one, and that below it lives.
        if next_log > 0 && newest.is_none_or(|newest| newest < next_log - 1) {
            let log = LogNumber(next_log - 1);
            let _ = pass(Record::CreateLog(log)) && pass(Record::RemoveLog(log));
        }
        self.walk(STATE, |key, value| {
            Some(pass(Record::Put {
                key: key.get(1..)?.into(),
                value: value.into(),
            }))
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn read_accounts(&self, accounts: &mut Accounts) -> Result<(), CatalogueError> {
        let read = |name| {
            let value = self.database.ask(|db| db.get([name]))?;
            let account = value.map_or(Some(Account::default()), |value| Account::decode(&value));
            account.ok_or_else(|| self.database.damage("its accounts can't be read".into()))
        };
        (accounts.entries, accounts.ids) = (read(ACCOUNT)?, read(IDS_ACCOUNT)?);
        Ok(())
    }

    fn for_each(
        &self,
        kind: u8,
        mut tell: impl FnMut(&[u8], &[u8]) -> Option<()>,
    ) -> Result<(), CatalogueError> {
        self.walk(kind, |key, value| tell(key, value).map(|()| true))
    }

    /// Tells the entries of a kind in order of their keys, until `tell` says false. None: what it was told can't be.
    fn walk(
        &self,
        kind: u8,
        mut tell: impl FnMut(&[u8], &[u8]) -> Option<bool>,
    ) -> Result<(), CatalogueError> {
        let mut entries = self.database.ask(|db| Ok(db.scan_prefix([kind])))?;
        while let Some((key, value)) = self.database.ask(|_| entries.next().transpose())? {
            match tell(&key, &value) {
                Some(true) => {}
                Some(false) => break,
                None => {
                    return Err(self.database.damage(format!(
                        "an entry of kind {:?} can't be read",
                        char::from(kind)
                    )));
                }
            }
        }
        Ok(())
    }
}

fn overlap(one: &RunDescriptor, other: &RunDescriptor) -> bool {
    one.log == other.log && one.last >= other.first
}
