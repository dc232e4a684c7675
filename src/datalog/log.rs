//! The writer: opening, batches, the end.

use std::{sync::Arc, thread::JoinHandle};

use super::{
    Freezer, Journals, LogNumber, LogReader, OpenError, Options, Record, Recovered, Space,
    WriteError,
    background::Background,
    backlog::Backlog,
    chunk::ChunkEntry,
    index::{Change, Index},
    journal::{JournalFile, JournalWriter},
    recovery,
    segment::RunDescriptor,
    store::{During, Lost, RunNote, Store, Synced, Uncut, ignore_full, is_disk_full},
    units::Source,
};
use crate::protocol::{PublicationId, Sequence};

/// The data log, open for writing. Owned by one thread; dropped without [`close`](Self::close), it is as after a crash.
pub struct DataLog {
    store: Arc<Store>,
    backlog: Arc<Backlog>,
    index: Arc<Index>,
    source: Arc<Source>,
    journal: JournalWriter,
    /// Of the batch that is being written.
    changes: Vec<Change>,
    ids: Vec<(LogNumber, PublicationId, Sequence)>,
    /// Runs that died of what is not yet synced.
    dead: Vec<RunDescriptor>,
    /// Generation and number of the newest batch that a journal holds, as far as it may not be sealed.
    newest: (u64, u64),
    /// Generation and batch that this run began with.
    began: (u64, u64),
    /// What the start found lost, while no synced batch answers it.
    lost: Lost,
    /// What `running` says of the newest journal.
    noted: Synced,
    /// What the start had no room to copy, and the next has to know again.
    uncut: Vec<Uncut>,
    failed: Option<Arc<str>>,
    thread: Option<JoinHandle<()>>,
}

impl DataLog {
    /// Opens the data directory, or makes it, and recovers what it holds.
    ///
    /// # Errors
    /// If another server has it, it is in a format of another version, or the disk can't be read or written.
    pub fn open(options: Options) -> Result<(Self, Recovered), OpenError> {
        let store = Arc::new(Store::open(&options.data_dir)?);
        match Self::open_in(store.clone(), options.clone()) {
            // What a start writes is made again by the next try.
            Err(OpenError::Io { source, .. })
                if is_disk_full(&source) && store.give_reserve_up() =>
            {
                log::warn!("the disk is full: the reserve is given up for this start");
                drop(store);
                Self::open_in(Arc::new(Store::open(&options.data_dir)?), options)
            }
            opened => opened,
        }
    }

    fn open_in(store: Arc<Store>, options: Options) -> Result<(Self, Recovered), OpenError> {
        let recovery::Recovery {
            recovered,
            holdings,
            source,
            unsealed,
            free,
            dead,
            next_generation,
            last_batch,
            newest,
            next_file,
            uncut,
            changed_keys: _,
        } = recovery::recover(&store, &options)?;
        let lost = Lost {
            boot: recovered.unclean_boot,
            end: !recovered.uncertain.is_empty(),
        };
        // Before journals give up what they don't use: how long they were says no more that something is gone.
        store
            .mark_running(&RunNote {
                began: (next_generation, last_batch + 1),
                lost,
                synced: None,
                unsealed: unsealed
                    .iter()
                    .filter(|journal| journal.written() > 0)
                    .map(|journal| journal.generation)
                    .collect(),
                uncut: uncut.clone(),
            })
            .during(|| "marking the data directory as in use".into())?;
        if store.is_new() {
            // A disk that fills up at once leaves no time for it later, and the next start needs it.
            store
                .keep_reserve()
                .or_else(ignore_full)
                .during(|| "making the reserve for a full disk".into())?;
        }
        let doing = || "making a journal".to_owned();
        let backlog = Arc::new(Backlog::new(
            store.journal_dir(),
            options.journal_size,
            options.max_unsealed,
            options.lull,
            unsealed,
            next_file,
        ));
        backlog.bury(dead);
        let mut current = None;
        for file in free {
            if current.is_none() && file.capacity() == options.journal_size {
                current = Some(file);
            } else if let Err(file) = backlog.put_found(file) {
                file.remove().during(doing)?;
            }
        }
        let file = match current {
            Some(file) => file,
            None => backlog.make_first().during(doing)?,
        };
        let index = source.index.clone();
        let journal = JournalWriter::new(store.id(), Arc::new(file), next_generation, last_batch);
        index.add_journal(next_generation, journal.file().clone());
        backlog.begin(next_generation, journal.file().clone());
        let background = Background {
            options,
            store: store.clone(),
            backlog: backlog.clone(),
            index: index.clone(),
            holdings,
        };
        let thread = background.start().during(|| "starting a thread".into())?;
        let log = Self {
            store,
            backlog,
            index,
            source,
            journal,
            changes: Vec::new(),
            ids: Vec::new(),
            dead: Vec::new(),
            newest,
            began: (next_generation, last_batch + 1),
            lost,
            noted: Synced::default(),
            uncut,
            failed: None,
            thread: Some(thread),
        };
        Ok((log, recovered))
    }

    /// A reader of its logs.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.source.clone())
    }

    /// Who can hold everything still for a backup.
    pub fn freezer(&self) -> Freezer {
        Freezer::new(self.backlog.clone())
    }

    /// Its journals, to be looked at from elsewhere.
    pub fn journals(&self) -> Journals {
        Journals::new(self.backlog.clone(), self.index.clone())
    }

    /// Appends one batch: its records become true together, and visible to readers.
    ///
    /// Waits if no journal is free because sealing is behind.
    ///
    /// # Durability
    /// When it returns, the operating system has it: it survives the end of the process. [`sync`](Self::sync) makes it survive
    /// a power cut.
    ///
    /// # Errors
    /// If it can't be written. That is final: every later call fails too.
    ///
    /// # Panics
    /// If a chunk's frames are not what the chunk says.
    pub fn write(&mut self, records: &[Record]) -> Result<(), WriteError> {
        self.check()?;
        if records.is_empty() {
            return Ok(());
        }
        self.journal.begin();
        self.changes.clear();
        self.ids.clear();
        for record in records {
            self.add(record);
        }
        if self.journal.batch_len() > self.journal.left() {
            self.rotate()?;
        }
        let written = match self.journal.write() {
            Ok(written) => written,
            Err(error) => return Err(self.fail(format!("writing a journal: {error}"))),
        };
        self.newest = (written.generation, self.journal.number());
        for change in &mut self.changes {
            if let Change::Append(_, chunk) = change {
                chunk.generation = written.generation;
                chunk.offset += u32::try_from(written.offset)
                    .expect("invariant: a journal is smaller than 4 GiB");
            }
        }
        let dead = self
            .index
            .apply(written.generation, &self.changes, self.ids.drain(..));
        self.dead.extend(dead);
        self.backlog.set_left(self.journal.left());
        Ok(())
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// If it can't be made durable. That is final: every later call fails too.
    pub fn sync(&mut self) -> Result<(), WriteError> {
        self.check()?;
        if let Err(error) = self.journal.sync() {
            return Err(self.fail(format!("syncing a journal: {error}")));
        }
        self.backlog.bury(std::mem::take(&mut self.dead));
        self.note_synced();
        Ok(())
    }

    /// What may still be appended.
    pub fn space(&self) -> Space {
        self.backlog.space()
    }

    /// Ends in order: syncs, lets the background thread end, and notes that nothing is left to recover.
    ///
    /// # Errors
    /// If the last sync or the note fails; the next start then recovers as after a crash. So it does where the disk has no room for
    /// the note, which is no error: everything is synced.
    pub fn close(mut self) -> Result<(), WriteError> {
        self.sync()?;
        self.end_background();
        self.check()?;
        let unsealed = self.unsealed();
        let mark = || self.store.mark_clean(self.newest, &unsealed, &self.uncut);
        let marked = match mark() {
            Err(error) if is_disk_full(&error) && self.store.give_reserve_up() => mark(),
            marked => marked,
        };
        match marked {
            Ok(()) => Ok(()),
            Err(error) if is_disk_full(&error) => {
                log::warn!("the disk is full, so the next start recovers as after a crash");
                Ok(())
            }
            Err(error) => Err(self.fail(format!("marking the data directory as closed: {error}"))),
        }
    }

    fn add(&mut self, record: &Record) {
        let frames = self.journal.push(record);
        let change = match record {
            Record::CreateLog(log) => Change::Create(*log),
            Record::RemoveLog(log) => Change::Remove(*log),
            Record::Truncate { log, first } => Change::Truncate(*log, *first),
            Record::Put { .. } | Record::Delete { .. } => return,
            Record::Publications(chunk) => {
                let ids = &mut self.ids;
                let mut entry = ChunkEntry::survey(&chunk.frames, |id, sequence| {
                    ids.push((chunk.log, id, sequence));
                })
                .ok()
                .filter(|entry| (entry.first, entry.last()) == (chunk.first, chunk.last))
                .expect("invariant: a chunk holds the publications that it says");
                entry.offset = frames
                    .and_then(|frames| u32::try_from(frames.start).ok())
                    .expect("invariant: a batch is smaller than 4 GiB");
                Change::Append(chunk.log, entry)
            }
        };
        self.changes.push(change);
    }

    fn rotate(&mut self) -> Result<(), WriteError> {
        let needed = self.journal.batch_len();
        let taken = self.backlog.take(needed);
        let next = match taken.or_else(|why| self.make_of_reserve(needed).ok_or(why)) {
            Ok(file) => Arc::new(file),
            Err(why) => return Err(self.fail(why)),
        };
        if self.journal.is_empty() {
            self.replace_journal(next);
            return Ok(());
        }
        match self.journal.rotate(next) {
            Ok(sealed) => {
                let (generation, file) = (self.journal.generation(), self.journal.file());
                self.backlog.hand_over(sealed, generation, file.clone());
            }
            Err(error) => return Err(self.fail(format!("syncing a journal: {error}"))),
        }
        self.index
            .add_journal(self.journal.generation(), self.journal.file().clone());
        Ok(())
    }

    /// Makes a journal where the reserve was. What is to be written may have been promised room just before the disk was found full,
    /// while no journal was in hand.
    fn make_of_reserve(&self, needed: u64) -> Option<JournalFile> {
        if self.backlog.failed().is_some() || !self.store.give_reserve_up() {
            return None;
        }
        log::warn!("the disk is full: the reserve is given up for a journal");
        let made = self.backlog.make_least(needed);
        made.inspect_err(|error| log::error!("making a journal: {error}"))
            .ok()
    }

    /// Goes on in `next` as the same generation: a batch is larger than a journal that holds nothing. Handed over, that would be a
    /// generation of which no start finds anything.
    fn replace_journal(&mut self, next: Arc<JournalFile>) {
        let generation = self.journal.generation();
        self.index.replace_journal(generation, next.clone());
        let unused = self.journal.replace_file(next.clone());
        self.backlog.replace(unused, generation, next);
    }

    /// Notes what of the current journal is synced, once for each, and that what was found lost is answered: new epochs, where
    /// they are needed, are in the first batch. Without it, the next start judges less or asks again. Only the first batches of a
    /// run wait for that; of a later journal, the background thread notes it.
    fn note_synced(&mut self) {
        let (generation, number) = (self.journal.generation(), self.journal.number());
        // Not while the last batch is in the journal before: that may be sealed, and this one be empty.
        let is_new = self.newest.0 == generation && self.noted.generation != generation;
        let is_answered = self.lost != Lost::default() && number >= self.began.1;
        if !is_new && !is_answered {
            return;
        }
        let is_first = is_answered || self.noted == Synced::default();
        if is_new {
            self.noted = Synced {
                generation,
                batch: number,
                capacity: self.journal.file().capacity(),
            };
        }
        if is_answered {
            self.lost = Lost::default();
        }
        let note = RunNote {
            began: self.began,
            lost: self.lost,
            synced: (self.noted != Synced::default()).then_some(self.noted),
            unsealed: self.unsealed(),
            uncut: self.uncut.clone(),
        };
        if is_first {
            self.store.note_running(&note);
        } else {
            self.backlog.note(note);
        }
    }

    /// Generations that hold something and are not sealed.
    fn unsealed(&self) -> Vec<u64> {
        let mut unsealed = self.backlog.unsealed_generations();
        if self.newest.0 == self.journal.generation() {
            unsealed.push(self.newest.0);
        }
        unsealed
    }

    fn check(&mut self) -> Result<(), WriteError> {
        if self.failed.is_none() {
            self.failed = self.backlog.failed();
        }
        self.failed
            .clone()
            .map_or(Ok(()), |why| Err(WriteError::Failed(why)))
    }

    fn fail(&mut self, why: impl Into<Arc<str>>) -> WriteError {
        let why = self.failed.get_or_insert_with(|| why.into()).clone();
        log::error!("the data log can be written no more: {why}");
        WriteError::Failed(why)
    }

    fn end_background(&mut self) {
        self.backlog.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.backlog.fail("the background thread panicked".into());
        }
        self.source.close();
    }
}

#[cfg(test)]
impl DataLog {
    /// Ends the current journal, where that may fail. None is ever ended that holds nothing.
    pub(crate) fn try_to_end_journal(&mut self) -> Result<(), WriteError> {
        self.check()?;
        if self.journal.is_empty() {
            return Ok(());
        }
        self.journal.begin();
        self.rotate()
    }

    /// Where the last batch begins that was written.
    pub(crate) fn last_batch(&self) -> (std::path::PathBuf, u64) {
        let file = self.journal.file();
        let end = file.capacity() - self.journal.left();
        (file.path().to_owned(), end - self.journal.batch_len())
    }

    /// The journals that hold something.
    pub(super) fn journal_files(&self) -> Vec<Arc<JournalFile>> {
        self.index.journal_files()
    }

    /// Lets the catalogue do so many steps of what comes, and no more.
    pub(super) fn allow_steps(&self, steps: u64) {
        self.source.allow_steps(steps);
    }

    pub(crate) fn backlog(&self) -> &Backlog {
        &self.backlog
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl DataLog {
    /// Ends the current journal, which is sealed then.
    pub(super) fn end_journal(&mut self) {
        self.rotate().expect("the journal can be ended");
    }

    /// Waits until everything that can be done in the background is done.
    pub(super) fn settle(&mut self) {
        self.sync().expect("the log can be synced");
        self.backlog.wait_until_idle();
        self.check().expect("the log is in order");
    }
}

impl Drop for DataLog {
    fn drop(&mut self) {
        self.end_background();
    }
}

impl std::fmt::Debug for DataLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataLog")
            .field("dir", &self.store.dir())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
