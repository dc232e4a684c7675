//! The state log: every change of state of sealed journals, so that the catalogue can be made again.
//!
//! Owns the file `state/log`: batches in the journal's format, one for each generation that was sealed, in order. Does not
//! own what the records mean. It is written between a segment and the catalogue's commit, and so says which generations are
//! sealed when there is no catalogue: those up to the newest in it.
//!
//! In a batch's header, the number counts the batches of the file, and `synced through` is the length that the file had when
//! it was last written anew: it is again when it is over twice as long.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::Record;
use super::catalogue::{Catalogue, CatalogueError};
use super::disk::{self, File};
use super::journal::format::{
    ALIGNMENT, Batch, BatchBuilder, BatchHeader, HEADER_LEN, RecordView, peek,
};

/// Below this length the file is not written anew: it would be for every journal of a small store.
const SMALL: u64 = 4 << 20;

/// Bytes of one batch when the file is written anew.
const BATCH: usize = 1 << 20;

/// Why the state log could not be written anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RewriteError {
    #[error("writing the state log")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// The open state log. Used by one thread.
#[derive(Debug)]
pub(crate) struct StateLog {
    path: PathBuf,
    store: Uuid,
    file: File,
    end: End,
    is_damaged: bool,
    /// Where the last whole batch is, as it was found.
    last: Range<u64>,
    /// That one may not be on the disk, though it is read.
    is_last_volatile: bool,
    /// What lies behind the last whole batch, until it is overwritten.
    torn: Option<Range<u64>>,
    /// It was written anew, and a power cut may bring back what had its name before.
    is_name_volatile: bool,
    builder: BatchBuilder,
}

/// How far the file is known to be whole.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct End {
    offset: u64,
    batches: u64,
    generation: u64,
    /// Length when it was last written anew.
    compact: u64,
}

/// What [`StateLog::replay`] came across.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Replayed {
    /// The newest generation that is sealed; 0 if none is.
    pub(crate) generation: u64,
    /// Places in the file between whole batches.
    pub(crate) damaged: Vec<Range<u64>>,
}

impl StateLog {
    /// Opens the state log in the directory `state`, or makes an empty one. Only its end is checked, as far as that is where
    /// the headers lead.
    ///
    /// # Errors
    /// If the file can't be made or read.
    pub(crate) fn open(state: &Path, store: Uuid) -> io::Result<Self> {
        Self::open_as(state, store, false)
    }

    /// The same, to be read only, if there is one.
    pub(crate) fn look(state: &Path, store: Uuid) -> io::Result<Self> {
        let is_there = disk::exists(&state.join("log"))?;
        Self::open_as(state, store, is_there)
    }

    fn open_as(state: &Path, store: Uuid, is_read_only: bool) -> io::Result<Self> {
        let path = state.join("log");
        let is_new = !disk::exists(&path)?;
        let file = match is_read_only {
            true => File::open(&path)?,
            false => File::open_or_create(&path)?,
        };
        if is_new {
            file.sync_all()?;
            disk::sync_dir(state)?;
        }
        let mut log = Self {
            path,
            store,
            file,
            end: End::default(),
            is_damaged: false,
            last: 0..0,
            is_last_volatile: false,
            torn: None,
            is_name_volatile: false,
            builder: BatchBuilder::new(),
        };
        log.find_end()?;
        Ok(log)
    }

    /// The newest generation in it; 0 if there is none.
    pub(crate) fn generation(&self) -> u64 {
        self.end.generation
    }

    pub(crate) fn len(&self) -> u64 {
        self.end.offset
    }

    /// Whether a part of it was found damaged, with something whole behind.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What lies behind its last whole batch, an append that did not end, is overwritten by the next: it is to be copied
    /// before.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) fn torn(&self) -> io::Result<Option<Vec<u8>>> {
        self.torn.clone().map(|range| self.read(range)).transpose()
    }

    /// Writes the last batch that was found once more, synced: if its sync failed, what is read of it may not be on the disk.
    ///
    /// # Errors
    /// If it can't be read or written. That is made up for before anything is appended.
    pub(crate) fn write_again(&mut self) -> io::Result<()> {
        self.is_last_volatile = true;
        let last = self.read(self.last.clone())?;
        self.file.write_all_at(&last, self.last.start)?;
        self.file.sync_all()?;
        self.is_last_volatile = false;
        Ok(())
    }

    /// Appends the state records of a sealed journal, even if there are none, and syncs them. Where it tells of that generation already,
    /// the journal is being sealed again, and what it has is kept as it is: behind later generations, older state would come back.
    ///
    /// # Errors
    /// If it can't be written. What is there then is a torn end.
    pub(crate) fn append(&mut self, generation: u64, records: &[Record]) -> io::Result<()> {
        if self.is_last_volatile {
            self.write_again()?;
        }
        if generation <= self.end.generation {
            return Ok(());
        }
        self.sync_name()?;
        self.builder.clear();
        for record in records {
            self.builder.push(record);
        }
        let header = BatchHeader {
            generation,
            number: self.end.batches + 1,
            synced_through: self.end.compact,
        };
        let bytes = self.builder.finish(self.store, header);
        // What was torn may reach further than this batch.
        self.file.set_len(self.end.offset)?;
        self.file.write_all_at(bytes, self.end.offset)?;
        self.file.sync_all()?;
        self.torn = None;
        self.end = End {
            offset: self.end.offset + bytes.len() as u64,
            batches: header.number,
            generation,
            compact: self.end.compact,
        };
        Ok(())
    }

    /// Tells every record in order, checked, and goes on behind what is damaged.
    ///
    /// # Errors
    /// If the file can't be read, or `tell` fails.
    pub(crate) fn replay<E: From<io::Error>>(
        &self,
        mut tell: impl FnMut(RecordView<'_>) -> Result<(), E>,
    ) -> Result<Replayed, E> {
        let bytes = self.read(0..self.file.len()?)?;
        let mut found = Replayed::default();
        let (mut at, mut whole) = (0, 0);
        while at < bytes.len() {
            let Some(batch) = Batch::read(&bytes[at..], self.store) else {
                at += ALIGNMENT;
                continue;
            };
            if whole < at {
                found.damaged.push(whole as u64..at as u64);
            }
            for record in batch.records().flatten() {
                tell(record)?;
            }
            found.generation = found.generation.max(batch.header.generation);
            at += batch.len();
            whole = at;
        }
        Ok(found)
    }

    /// The generations above `sealed_through` that it tells of. None: it was written anew since, and tells them no more apart.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(crate) fn generations_above(&self, sealed_through: u64) -> io::Result<Option<Vec<u64>>> {
        let bytes = self.read(0..self.end.offset)?;
        let (mut at, mut generations) = (0, Vec::new());
        while at < bytes.len() {
            let Some(batch) = Batch::read(&bytes[at..], self.store) else {
                at += ALIGNMENT;
                continue;
            };
            let generation = batch.header.generation;
            if generation > sealed_through {
                if (at as u64) < self.end.compact {
                    return Ok(None);
                }
                generations.push(generation);
            }
            at += batch.len();
        }
        Ok(Some(generations))
    }

    /// Whether most of it is outdated, or a part of it was found damaged.
    pub(crate) fn wants_rewrite(&self) -> bool {
        let small = self.small();
        self.is_damaged || self.end.offset > small && self.end.offset / 2 > self.end.compact
    }

    fn small(&self) -> u64 {
        #[cfg(test)]
        if disk::simulated::of(&self.path).is_some() {
            // As small as the journals there.
            return 4 << 10;
        }
        SMALL
    }

    /// The length up to which it tells of everything through the generation `sealed_through`, and of nothing else. One that lacks
    /// something is written anew first.
    ///
    /// # Errors
    /// As [`rewrite`](Self::rewrite); and if the file can't be read.
    pub(crate) fn len_through(
        &mut self,
        catalogue: &Catalogue,
        sealed_through: u64,
    ) -> Result<u64, RewriteError> {
        if self.generation() < sealed_through || self.is_damaged {
            self.rewrite(catalogue, sealed_through)?;
        }
        if self.generation() > sealed_through {
            // The commit behind its last append is still to come.
            return Ok(self.begin_of_later(sealed_through)?);
        }
        // Of the last batch, the padding alone may be cut.
        Ok(self.end.offset.min(self.file.len()?))
    }

    /// Where the first batch begins that is of a generation above `sealed_through`.
    fn begin_of_later(&self, sealed_through: u64) -> io::Result<u64> {
        let bytes = self.read(0..self.end.offset)?;
        let mut at = 0;
        while at < bytes.len() {
            match Batch::read(&bytes[at..], self.store) {
                Some(batch) if batch.header.generation > sealed_through => break,
                Some(batch) => at += batch.len(),
                None => at += ALIGNMENT,
            }
        }
        Ok((at as u64).min(self.end.offset))
    }

    /// Writes it anew with what the catalogue holds, which is everything up to the generation `sealed_through`. Also where
    /// [`generation`](Self::generation) is behind that: the end of the file was lost.
    ///
    /// # Errors
    /// If the catalogue can't be read or the file can't be written: the state log is as it was then. If only its name can't be made
    /// durable, that is done before anything is appended.
    pub(crate) fn rewrite(
        &mut self,
        catalogue: &Catalogue,
        sealed_through: u64,
    ) -> Result<(), RewriteError> {
        let path = self.path.with_extension("tmp");
        let mut anew = Rewriting {
            file: File::create(&path)?,
            store: self.store,
            end: End {
                generation: sealed_through,
                ..End::default()
            },
            builder: &mut self.builder,
        };
        anew.builder.clear();
        catalogue.records(|record| anew.push(&record).map_err(RewriteError::Io))?;
        let (file, end) = anew.finish()?;
        disk::rename(&path, &self.path)?;
        // What was open has no name now.
        (self.file, self.end) = (file, end);
        (self.torn, self.is_damaged, self.is_last_volatile) = (None, false, false);
        self.is_name_volatile = true;
        Ok(self.sync_name()?)
    }

    fn sync_name(&mut self) -> io::Result<()> {
        if self.is_name_volatile
            && let Some(state) = self.path.parent()
        {
            disk::sync_dir(state)?;
            self.is_name_volatile = false;
        }
        Ok(())
    }

    /// Goes from header to header; of the bodies, only the last whole one's is read.
    fn find_end(&mut self) -> io::Result<()> {
        let len = self.file.len()?;
        let mut begins = Vec::new();
        let mut offset = 0;
        let mut head = [0; HEADER_LEN];
        while offset + HEADER_LEN as u64 <= len {
            self.file.read_exact_at(&mut head, offset)?;
            let Some((batch, _)) = peek(&head) else { break };
            let next = offset + batch.next_multiple_of(ALIGNMENT) as u64;
            if next > len {
                break;
            }
            begins.push(offset..next);
            offset = next;
        }
        self.end = End::default();
        while let Some(last) = begins.pop() {
            if self.take_end(&self.read(last.clone())?, last.start) {
                break;
            }
        }
        if self.end.offset < len {
            self.find_end_behind_damage(len)?;
        }
        self.torn = (self.end.offset < len).then_some(self.end.offset..len);
        Ok(())
    }

    /// What looks like a torn end is none if a whole batch comes behind it.
    fn find_end_behind_damage(&mut self, len: u64) -> io::Result<()> {
        let begin = self.end.offset;
        let tail = self.read(begin..len)?;
        let mut at = 0;
        while at < tail.len() {
            let (offset, whole) = (begin + at as u64, self.end.offset);
            if self.take_end(&tail[at..], offset) {
                // Of the last one, the padding alone may be cut.
                self.is_damaged |= offset > whole;
                at = (self.end.offset - begin) as usize;
            } else {
                at += ALIGNMENT;
            }
        }
        Ok(())
    }

    /// Takes the batch that `bytes` begins with, at `offset` of the file, for the last one, if it is one.
    fn take_end(&mut self, bytes: &[u8], offset: u64) -> bool {
        let Some(batch) = Batch::read(bytes, self.store) else {
            return false;
        };
        self.end = End {
            offset: offset + batch.len() as u64,
            batches: batch.header.number,
            generation: batch.header.generation,
            compact: batch.header.synced_through,
        };
        self.last = offset..self.end.offset;
        true
    }

    /// What is in the file; the zeros that the last batch is padded with may be cut.
    pub(crate) fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let len = |range: Range<u64>| usize::try_from(range.end.saturating_sub(range.start));
        let mut bytes = vec![0; len(range.clone()).map_err(io::Error::other)?];
        let end = range.end.min(self.file.len()?);
        let there = len(range.start..end).map_err(io::Error::other)?;
        self.file.read_exact_at(&mut bytes[..there], range.start)?;
        Ok(bytes)
    }
}

/// A state log that is being written anew.
struct Rewriting<'a> {
    file: File,
    store: Uuid,
    end: End,
    builder: &'a mut BatchBuilder,
}

impl Rewriting<'_> {
    fn push(&mut self, record: &Record) -> io::Result<()> {
        self.builder.push(record);
        if self.builder.len() < BATCH {
            Ok(())
        } else {
            self.write()
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.end.batches += 1;
        let generation = self.end.generation;
        let synced_through = self.end.compact;
        let header = BatchHeader {
            generation,
            number: self.end.batches,
            synced_through,
        };
        let bytes = self.builder.finish(self.store, header);
        self.file.write_all_at(bytes, self.end.offset)?;
        self.end.offset += bytes.len() as u64;
        self.builder.clear();
        Ok(())
    }

    /// The last batch says the length.
    fn finish(mut self) -> io::Result<(File, End)> {
        self.end.compact = self.end.offset + self.builder.len() as u64;
        self.write()?;
        self.file.sync_all()?;
        Ok((self.file, self.end))
    }
}

/// A record to keep, if it is not of publications.
pub(super) fn state_record(record: RecordView<'_>) -> Option<Record> {
    Some(match record {
        RecordView::Publications { .. } => return None,
        RecordView::CreateLog(log) => Record::CreateLog(log),
        RecordView::RemoveLog(log) => Record::RemoveLog(log),
        RecordView::Truncate { log, first } => Record::Truncate { log, first },
        RecordView::Put { key, value } => Record::Put {
            key: key.into(),
            value: value.into(),
        },
        RecordView::Delete { key } => Record::Delete { key: key.into() },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::datalog::LogNumber;
    use crate::datalog::catalogue::{CatalogueBatch, LogEntry, Meta};
    use crate::datalog::disk::simulated;
    use crate::protocol::{Sequence, Timestamp};

    const STORE: Uuid = Uuid::from_u128(9);

    fn put(n: u64) -> Record {
        Record::Put {
            key: n.to_be_bytes().into(),
            value: vec![n as u8; 100].into(),
        }
    }

    fn replay(log: &StateLog) -> (Vec<Record>, Replayed) {
        let mut records = Vec::new();
        let replayed = log.replay(|record| {
            records.extend(state_record(record));
            Ok::<_, io::Error>(())
        });
        (records, replayed.unwrap())
    }

    /// A state log of generations 1 to 3.
    fn three(dir: &Path) -> StateLog {
        let mut log = StateLog::open(dir, STORE).unwrap();
        log.append(1, &[Record::CreateLog(LogNumber(1)), put(1)])
            .unwrap();
        log.append(2, &[]).unwrap();
        log.append(3, &[put(3), Record::RemoveLog(LogNumber(1))])
            .unwrap();
        log
    }

    fn three_on_a_disk(seed: u64) -> (simulated::Disk, PathBuf, StateLog) {
        let disk = simulated::Disk::new(seed);
        let dir = disk.dir();
        disk::create_dir_all(&dir).unwrap();
        disk::sync_dir(dir.parent().unwrap()).unwrap();
        let log = three(&dir);
        disk::sync_dir(&dir).unwrap();
        (disk, dir, log)
    }

    #[test]
    fn what_was_appended_is_replayed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        drop(three(dir.path()));
        let mut log = StateLog::open(dir.path(), STORE).unwrap();
        assert_eq!(log.generation(), 3);
        assert_eq!(log.torn().unwrap(), None);
        log.append(
            4,
            &[Record::Delete {
                key: (*b"x").into(),
            }],
        )
        .unwrap();
        let (records, replayed) = replay(&log);
        let expected = [
            Record::CreateLog(LogNumber(1)),
            put(1),
            put(3),
            Record::RemoveLog(LogNumber(1)),
            Record::Delete {
                key: (*b"x").into(),
            },
        ];
        assert_eq!(records, expected);
        assert_eq!(
            replayed,
            Replayed {
                generation: 4,
                damaged: vec![]
            }
        );
    }

    /// A catalogue that went back in time has its journals sealed again, and the state of the first came behind that of the last.
    #[test]
    fn generation_that_is_told_is_not_told_again() {
        let dir = tempfile::tempdir().unwrap();
        drop(three(dir.path()));
        let mut log = StateLog::open(dir.path(), STORE).unwrap();
        let before = replay(&log);
        log.append(1, &[Record::CreateLog(LogNumber(1)), put(1)])
            .unwrap();
        assert_eq!((replay(&log), log.generation()), (before, 3));
    }

    fn catalogue_through(dir: &Path, sealed_through: u64) -> Catalogue {
        let catalogue = Catalogue::open(&dir.join("catalogue"), 1 << 20).unwrap();
        let mut batch = CatalogueBatch::new(&Meta {
            store: STORE,
            sealed_through,
            next_log: 2,
        });
        batch.put_state(b"key", b"of the catalogue");
        catalogue.commit(batch).unwrap();
        catalogue
    }

    /// What was sealed next was appended to the old file, which had no name any more.
    #[test]
    fn state_log_whose_new_name_could_not_be_synced_loses_nothing() {
        for seed in 0..20 {
            for end in [simulated::End::Kill, simulated::End::PowerCut] {
                let (disk, dir, mut log) = three_on_a_disk(seed);
                let catalogue = catalogue_through(&dir, 3);
                disk.fail(simulated::Call::Sync, 1);
                log.rewrite(&catalogue, 3).unwrap_err();
                drop(catalogue);
                log.append(4, &[put(4)]).unwrap();
                disk.end(end);
                drop(log);
                disk.revive();
                let log = StateLog::open(&dir, STORE).unwrap();
                assert_eq!(log.generation(), 4, "{seed}, {end:?}");
                assert_eq!(replay(&log).0.last(), Some(&put(4)));
            }
        }
    }

    /// Its append was taken for done by the seal that came next, since it could be read.
    #[test]
    fn append_that_failed_and_found_no_room_at_the_start_is_made_up_for_before_the_next() {
        let (disk, dir, mut log) = three_on_a_disk(1);
        disk.fail(simulated::Call::Sync, 0);
        log.append(4, &[put(4)]).unwrap_err();
        let mut log = StateLog::open(&dir, STORE).unwrap();
        assert_eq!(log.generation(), 4);
        disk.fail(simulated::Call::Write, 0);
        log.write_again().unwrap_err();
        disk.fail(simulated::Call::Write, 0);
        log.append(4, &[put(4)]).unwrap_err();
        log.append(4, &[put(4)]).unwrap();
        disk.end(simulated::End::PowerCut);
        drop(log);
        disk.revive();
        let log = StateLog::open(&dir, STORE).unwrap();
        assert_eq!(log.generation(), 4);
        assert_eq!(replay(&log).0.last(), Some(&put(4)));
    }

    /// The backup lacked what was damaged.
    #[test]
    fn damage_is_made_good_in_what_a_backup_takes_also_of_a_log_that_is_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let path = three(dir.path()).path().to_owned();
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let mut log = StateLog::open(dir.path(), STORE).unwrap();
        assert!(log.is_damaged());
        let catalogue = catalogue_through(dir.path(), 2);
        let len = log.len_through(&catalogue, 2).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..len as usize]).unwrap();
        let log = StateLog::open(dir.path(), STORE).unwrap();
        let (records, replayed) = replay(&log);
        let of_catalogue = Record::Put {
            key: (*b"key").into(),
            value: (*b"of the catalogue").into(),
        };
        assert!(records.contains(&of_catalogue), "{records:?}");
        assert_eq!((replayed.generation, replayed.damaged), (2, vec![]));
    }

    #[test]
    fn append_that_did_not_end_is_cut_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = three(dir.path()).path().to_owned();
        let whole = fs::read(&path).unwrap();
        let begin_of_last = {
            let batch = Batch::read(&whole, STORE).unwrap().len();
            batch + Batch::read(&whole[batch..], STORE).unwrap().len()
        };
        let (unpadded, _) = peek(&whole[begin_of_last..]).unwrap();
        assert!(begin_of_last + unpadded < whole.len());
        for cut in begin_of_last + unpadded..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut log = StateLog::open(dir.path(), STORE).unwrap();
            assert_eq!(log.generation(), 3, "cut at {cut}");
            assert!(!log.is_damaged() && log.torn().unwrap().is_none());
            assert_eq!(log.generations_above(2).unwrap(), Some(vec![3]));
            log.write_again().unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        // Of the padding nothing is needed.
        for cut in begin_of_last + 1..=whole.len() - ALIGNMENT {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut log = StateLog::open(dir.path(), STORE).unwrap();
            assert_eq!(log.generation(), 2, "cut at {cut}");
            assert_eq!(log.torn().unwrap().unwrap(), &whole[begin_of_last..cut]);
            log.append(3, &[put(30)]).unwrap();
            let log = StateLog::open(dir.path(), STORE).unwrap();
            assert_eq!(log.torn().unwrap(), None);
            let (records, replayed) = replay(&log);
            assert_eq!(records, [Record::CreateLog(LogNumber(1)), put(1), put(30)]);
            assert_eq!(
                replayed,
                Replayed {
                    generation: 3,
                    damaged: vec![]
                }
            );
        }
    }

    #[test]
    fn flipped_bytes_cost_their_batch_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = three(dir.path()).path().to_owned();
        let whole = fs::read(&path).unwrap();
        let first = Batch::read(&whole, STORE).unwrap().len();
        for at in 0..first {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            let mut log = StateLog::open(dir.path(), STORE).unwrap();
            // Not taken for a torn end, and so not cut.
            log.append(4, &[put(4)]).unwrap();
            let (records, replayed) = replay(&log);
            if records.len() == 5 {
                // The padding.
                assert!(at >= first - ALIGNMENT);
                continue;
            }
            assert_eq!(
                records,
                [put(3), Record::RemoveLog(LogNumber(1)), put(4)],
                "byte {at}"
            );
            let damaged = std::iter::once(0..first as u64).collect();
            assert_eq!(
                replayed,
                Replayed {
                    generation: 4,
                    damaged
                }
            );
        }
    }

    #[test]
    fn state_log_of_another_store_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        drop(three(dir.path()));
        let log = StateLog::open(dir.path(), Uuid::from_u128(1)).unwrap();
        assert_eq!(log.generation(), 0);
        assert!(log.torn().unwrap().is_some());
    }

    #[test]
    fn outdated_state_log_is_written_anew_from_the_catalogue() {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(&dir.path().join("catalogue"), 1 << 20).unwrap();
        let mut batch = CatalogueBatch::new(&Meta {
            store: STORE,
            sealed_through: 500,
            next_log: 3,
        });
        let entry = LogEntry {
            first: Sequence(5),
            last: Sequence(8),
            last_time: Timestamp(1),
        };
        batch.put_log(LogNumber(2), &entry);
        let values: Vec<_> = (0..10_000).map(put).collect();
        for value in &values {
            let Record::Put { key, value } = value else {
                unreachable!()
            };
            batch.put_state(key, value);
        }
        catalogue.commit(batch).unwrap();

        let mut log = StateLog::open(dir.path(), STORE).unwrap();
        let outdated: Vec<_> = (0..20_000).map(|n| put(n % 7)).collect();
        log.append(1, &outdated).unwrap();
        assert!(!log.wants_rewrite());
        log.append(500, &outdated).unwrap();
        assert!(log.wants_rewrite());
        log.rewrite(&catalogue, 500).unwrap();
        assert!(!log.wants_rewrite());

        let mut log = StateLog::open(dir.path(), STORE).unwrap();
        assert_eq!((log.generation(), log.torn().unwrap()), (500, None));
        log.append(501, &[]).unwrap();
        let (records, replayed) = replay(&log);
        assert_eq!(
            records[..2],
            [
                Record::CreateLog(LogNumber(2)),
                Record::Truncate {
                    log: LogNumber(2),
                    first: Sequence(5)
                }
            ]
        );
        assert_eq!(records[2..], values);
        assert_eq!(
            replayed,
            Replayed {
                generation: 501,
                damaged: vec![]
            }
        );
        assert_eq!(
            log.end.compact,
            StateLog::open(dir.path(), STORE).unwrap().end.compact
        );
        assert!(log.end.compact > 1 << 20);
    }
}
