//! Commits, in steps.
//!
//! While sled applies a batch, it keeps every reader out and every page that it replaces in memory, and each entry replaces one: a
//! batch of a hundred thousand entries took a second and 400 MB. So a commit is many small sled batches, its *steps*. Each
//! carries the account of all entries with it, so that nothing seems lost between two of them. Their order makes a commit
//! count whole or not at all:
//!
//! ```text
//! runs and ids of new segments ─> state map ─> logs ─> sync ─> segments, m ─> sync ─> runs of old segments gone
//! ```
//!
//! Where a commit ends before `m`, this is left, in front of an `m` that is as it was:
//! * Runs of a segment that is not listed: they count for nothing, and go with the next commit.
//! * Ids of publications that a journal has too, or a segment that was to be merged: found here or there, they are the same.
//! * Entries of the state map as of the end of the journal that was being sealed. It is behind `m`, so it is still there, and a
//!   start replays it: the last change of each key is made once more.
//! * Logs as of that end. The replay creates what exists, removes what is gone, cuts what is cut. Publications that a log
//!   already counts in its last become chunks nevertheless: the index passes over only what it has a piece of, and the
//!   runs that were made of this journal do not count (`Index::apply`).
//! * Marks of removed logs, whose ids then go: the removal is in the journal, and synced.
//!
//! So nothing needs to be undone. The same journal is sealed again, and that commit writes over what this one left; and
//! the state log, written anew out of such a catalogue, says nothing that replaying the journal would not say.

use std::collections::{BTreeMap, HashMap};

use super::entry::{self, ACCOUNT, Account, IDS_ACCOUNT, REMOVED};
use super::{Accounts, Catalogue, CatalogueBatch, CatalogueError, LogEntry};
use crate::datalog::LogNumber;
use crate::datalog::segment::SegmentId;

/// Entries of one step, which takes some milliseconds at most. Tests have small ones, but for those that measure.
const STEP: usize = if cfg!(all(test, debug_assertions)) {
    3
} else {
    128
};

/// Bytes of keys and values at which a step ends, however few they are.
const STEP_SIZE: usize = 256 << 10;

/// A key and what becomes of it.
pub(super) type Change = (Box<[u8]>, New);

/// What a key will have.
#[derive(Clone, Debug)]
pub(super) enum New {
    Value(Box<[u8]>),
    None,
    /// Unless it has another value.
    NoneInsteadOf(Box<[u8]>),
}

fn size((key, new): &Change) -> usize {
    match new {
        New::Value(value) | New::NoneInsteadOf(value) => key.len() + value.len(),
        New::None => key.len(),
    }
}

impl Catalogue {
    /// Makes a change lasting: when this returns, it survives a power cut. After a failure of process or power before that, the
    /// catalogue, with what the journals behind its `sealed_through` are replayed to, is the state before or after it.
    ///
    /// What it says of logs and the state map must be what the journals say up to the batch's `sealed_through`, unless the
    /// catalogue is new.
    ///
    /// # Errors
    /// If sled or the disk fails. Whether the change survives is not known then; after [`CatalogueError::Io`], the same
    /// change can be committed again.
    pub(crate) fn commit(&self, batch: CatalogueBatch<'_>) -> Result<(), CatalogueError> {
        let mut accounts = self.accounts.lock();
        if self.database.reopen_if_refused()? {
            self.read_accounts(&mut accounts)?;
        }
        let Accounts {
            entries,
            ids,
            strays,
        } = &mut *accounts;
        // Also what an earlier try left of a segment that now has other runs.
        strays.extend(&batch.new_segments);
        for segment in strays.iter() {
            self.remove_runs(*segment, entries)?;
        }
        strays.clear();
        self.apply_in_steps(ACCOUNT, entries, batch.new_runs)?;
        // In key order they share sled's pages; those with one key keep theirs.
        let mut changed_ids = batch.ids;
        changed_ids.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.apply_in_steps(IDS_ACCOUNT, ids, changed_ids)?;
        let is_short = batch.state.is_empty() && batch.logs.is_empty();
        let state = batch.state.into_iter().map(|(key, value)| {
            let value = value.map_or(New::None, |value| New::Value(value.into()));
            (entry::state_key(key), value)
        });
        self.apply_in_steps(ACCOUNT, entries, state)?;
        let logs = self.changed_logs(batch.logs)?;
        self.apply_in_steps(ACCOUNT, entries, logs)?;
        if !is_short {
            // Whatever the system writes first, nothing of this may lack where `m` is there.
            self.sync()?;
        }
        let last: Vec<Change> = batch.last.into_iter().collect();
        self.apply(ACCOUNT, entries, &last)?;
        self.sync()?;
        for segment in batch.old_segments {
            self.remove_runs(segment, entries)?;
        }
        Ok(())
    }

    /// What becomes of the entries that the logs are in, and marks for those that are removed.
    fn changed_logs(
        &self,
        logs: BTreeMap<LogNumber, Option<LogEntry>>,
    ) -> Result<Vec<Change>, CatalogueError> {
        let (mut changes, mut marks) = (Vec::new(), Vec::new());
        let mut logs = logs.into_iter().peekable();
        while let Some((first, _)) = logs.peek() {
            let key = entry::logs_key(*first);
            let mut entries = match self.database.ask(|db| db.get(&key))? {
                None => entry::Logs::new(),
                Some(value) => entry::decode_logs(&key, &value).ok_or_else(|| {
                    self.database
                        .damage("an entry of logs can't be read".into())
                })?,
            };
            while let Some((log, new)) = logs.next_if(|(log, _)| entry::logs_key(*log) == key) {
                match new {
                    Some(new) => drop(entries.insert(log, new)),
                    None => {
                        entries.remove(&log);
                        marks.push((entry::removed_key(log), New::Value([].into())));
                    }
                }
            }
            let value = entry::encode_logs(&entries).map_or(New::None, New::Value);
            changes.push((key, value));
        }
        changes.append(&mut marks);
        Ok(changes)
    }

    /// Removes the runs of a segment that is not listed.
    fn remove_runs(&self, segment: SegmentId, account: &mut Account) -> Result<(), CatalogueError> {
        let prefix = entry::runs_of(segment);
        let keys = self.database.ask(|db| {
            db.scan_prefix(&prefix)
                .keys()
                .collect::<sled::Result<Vec<_>>>()
        })?;
        self.apply_in_steps(ACCOUNT, account, removals(&keys))
    }

    /// Removes up to `limit` ids of removed logs; whether any are left. Not synced: what is undone by a failure is done
    /// again.
    ///
    /// # Errors
    /// If sled fails.
    pub(crate) fn tidy(&self, limit: usize) -> Result<bool, CatalogueError> {
        let Some(removed) = self
            .database
            .ask(|db| db.scan_prefix([REMOVED]).keys().next().transpose())?
        else {
            return Ok(false);
        };
        let prefix = entry::ids_of(&removed[1..]);
        let keys = self.database.ask(|db| {
            db.scan_prefix(&prefix)
                .keys()
                .take(limit)
                .collect::<sled::Result<Vec<_>>>()
        })?;
        let mut accounts = self.accounts.lock();
        self.apply_in_steps(IDS_ACCOUNT, &mut accounts.ids, removals(&keys))?;
        if keys.len() < limit {
            self.apply_in_steps(ACCOUNT, &mut accounts.entries, removals(&[removed]))?;
        }
        drop(accounts);
        self.database
            .ask(|db| Ok(db.scan_prefix([REMOVED]).next().is_some()))
    }

    /// A step for each so many; the changes are made as they are needed.
    fn apply_in_steps(
        &self,
        name: u8,
        account: &mut Account,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<(), CatalogueError> {
        let mut step = Vec::with_capacity(STEP);
        let mut bytes = 0;
        for change in changes {
            bytes += size(&change);
            step.push(change);
            if step.len() == STEP || bytes >= STEP_SIZE {
                self.apply(name, account, &step)?;
                step.clear();
                bytes = 0;
            }
        }
        self.apply(name, account, &step)
    }

    /// One step.
    pub(super) fn apply(
        &self,
        name: u8,
        account: &mut Account,
        changes: &[Change],
    ) -> Result<(), CatalogueError> {
        if changes.is_empty() {
            return Ok(());
        }
        #[cfg(test)]
        self.take_step()?;
        let (mut next, mut batch) = (*account, sled::Batch::default());
        // What the keys changed already have by now: one key may change more than once.
        let mut changed = HashMap::<&[u8], Option<&[u8]>>::with_capacity(changes.len());
        self.database.ask(|db| {
            for (key, change) in changes {
                let stored;
                let old = match changed.get(&key[..]) {
                    Some(old) => *old,
                    None => {
                        stored = db.get(key)?;
                        stored.as_deref()
                    }
                };
                let new = match change {
                    New::Value(value) => Some(&value[..]),
                    New::None => None,
                    New::NoneInsteadOf(value) if old == Some(&value[..]) => None,
                    New::NoneInsteadOf(_) => continue,
                };
                if old == new {
                    continue;
                }
                if let Some(old) = old {
                    next.remove(key, old);
                }
                match new {
                    Some(new) => {
                        next.add(key, new);
                        batch.insert(key.as_ref(), new);
                    }
                    None => batch.remove(key.as_ref()),
                }
                changed.insert(key, new);
            }
            batch.insert(&[name], &next.encode());
            db.apply_batch(batch)
        })?;
        *account = next;
        Ok(())
    }

    fn sync(&self) -> Result<(), CatalogueError> {
        #[cfg(test)]
        self.take_step()?;
        self.database.sync()
    }
}

fn removals(keys: &[sled::IVec]) -> impl Iterator<Item = Change> {
    keys.iter().map(|key| (key.as_ref().into(), New::None))
}
