//! Sealing one journal: segment, state log, catalogue, index, in this order.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use super::{Trouble, Worker};
use crate::datalog::{
    LogNumber, Record,
    catalogue::{CatalogueBatch, Meta, SegmentEntry},
    journal::{
        JournalFile, READ_SIZE, Unsealed,
        format::{ALIGNMENT, Batch},
    },
    pace::Pace,
    seal::{Sealed, seal},
    segment::{SegmentFile, SegmentHeader, SegmentId},
    state_log::RewriteError,
};

impl Worker {
    /// Seals the oldest journal that waits for it; the number of logs that it had publications of. Can be repeated if it did not
    /// come to its end.
    pub(super) fn seal(&mut self, journal: Unsealed) -> Result<usize, Trouble> {
        let generation = journal.generation;
        let is_urgent = || self.backlog.is_pressed();
        let pace = Pace::new(&is_urgent);
        let mut bytes = std::mem::take(&mut self.journal);
        journal.file.read_into(&mut bytes, &pace)?;
        let (batches, damaged) = self.batches(&bytes, &journal.spans, &pace);
        let was_damaged = !damaged.is_empty();
        for range in damaged {
            self.set_aside(&journal, &bytes, &range);
        }
        let records = batches.iter().flat_map(|batch| batch.records()).flatten();
        let header = SegmentHeader {
            id: SegmentId(self.holdings.next_segment),
            generations: (generation, generation),
            level: 0,
        };
        let first_kept = |log| self.index.bounds(log).map(|bounds| bounds.first);
        let segments = self.store.segment_dir();
        self.backlog.ask_for_room(1)?;
        let sealed = seal(records, &first_kept, &segments, header, &pace)?;
        let logs = sealed
            .segment
            .as_ref()
            .map_or(0, |segment| segment.runs.len());
        let noted = self.note(generation, sealed, was_damaged);
        if let Err(Trouble::Full) = noted {
            // What is left to do takes little, and frees a journal.
            self.store.give_reserve_up();
        }
        let file = noted?;
        if let Some(first) = journal.spans.first().filter(|span| span.start > 0) {
            // Whatever stands there could be taken for the beginning of a later use.
            journal.file.erase(0..first.start)?;
        }
        self.journal = bytes;
        drop(journal);
        self.backlog.sealed(generation);
        self.free(file);
        self.tell_space();
        Ok(logs)
    }

    /// Makes known what became of a journal, and gives back its file.
    fn note(
        &mut self,
        generation: u64,
        sealed: Sealed,
        was_damaged: bool,
    ) -> Result<Option<Arc<JournalFile>>, Trouble> {
        let created = sealed.state.iter().filter_map(|record| match record {
            Record::CreateLog(log) => Some(log.0 + 1),
            _ => None,
        });
        let meta = Meta {
            sealed_through: generation,
            next_log: created.fold(self.holdings.meta.next_log, u64::max),
            ..self.holdings.meta
        };
        let mut batch = CatalogueBatch::new(&meta);
        let mut touched = BTreeSet::new();
        for record in &sealed.state {
            match record {
                Record::CreateLog(log) | Record::Truncate { log, .. } => {
                    touched.insert(*log);
                }
                Record::RemoveLog(log) => batch.remove_log(*log),
                Record::Put { key, value } => batch.put_state(key, value),
                Record::Delete { key } => batch.remove_state(key),
                Record::Publications(_) => {}
            }
        }
        let mut file = None;
        let mut runs = &[][..];
        if let Some(segment) = &sealed.segment {
            let entry = SegmentEntry {
                header: segment.header,
                file_len: segment.file_len,
            };
            runs = &segment.runs;
            batch.put_segment(&entry, runs);
            touched.extend(runs.iter().map(|run| run.log));
            file = Some((
                entry,
                SegmentFile::open(&self.store.segment_dir(), segment.header.id)?,
            ));
        }
        for (log, id, sequence) in &sealed.client_ids {
            batch.put_id(*log, id, *sequence);
        }
        self.put_logs(&mut batch, touched, generation);
        // What was looked up in the index, there and here, is written; now it lasts.
        self.sync_journals()?;
        let holdings = &mut self.holdings;
        let sealed_through = holdings.meta.sealed_through;
        if holdings.state_log.generation() < sealed_through || holdings.state_log.is_damaged() {
            // A start found that it lacks something, and could not write it anew. Behind what comes now, nobody would see that. What it
            // tells of later generations goes with it: their journals are still there, to be sealed again.
            let catalogue = &holdings.catalogue;
            holdings.state_log.rewrite(catalogue, sealed_through)?;
        }
        holdings.state_log.append(generation, &sealed.state)?;
        holdings.catalogue.commit(batch)?;
        holdings.meta = meta;
        if let Some((entry, _)) = &file {
            holdings.next_segment += 1;
            holdings.segments.insert(entry.header.id, *entry);
        }
        let (freed, dead) =
            self.index
                .seal(generation, file.map(|(_, file)| file), runs, was_damaged);
        self.backlog.bury(dead);
        self.rewrite_state_log()?;
        Ok(freed)
    }

    fn put_logs(
        &self,
        batch: &mut CatalogueBatch,
        logs: impl IntoIterator<Item = LogNumber>,
        generation: u64,
    ) {
        for log in logs {
            if let Some(entry) = self.index.log_entry(log, generation) {
                batch.put_log(log, &entry);
            }
        }
    }

    /// The state log only grows by itself: it is written anew when most of it is history.
    fn rewrite_state_log(&mut self) -> Result<(), Trouble> {
        let holdings = &mut self.holdings;
        if !holdings.state_log.wants_rewrite() {
            return Ok(());
        }
        match holdings
            .state_log
            .rewrite(&holdings.catalogue, holdings.meta.sealed_through)
        {
            Ok(()) => Ok(()),
            Err(RewriteError::Io(error)) => {
                log::warn!("the state log stays as long as it is: {error}");
                Ok(())
            }
            Err(RewriteError::Catalogue(error)) => Err(error.into()),
        }
    }

    /// Uses a journal's file again, unless somebody reads it.
    pub(super) fn free(&self, file: Option<Arc<JournalFile>>) {
        match file.map(Arc::try_unwrap) {
            None => {}
            Some(Ok(file)) => match self.backlog.put(file) {
                Ok(()) => self.set_full(false),
                Err(file) => self.give_up(&file),
            },
            Some(Err(file)) => self.give_up(&file),
        }
    }

    /// The batches of a journal, and what is no longer one although it was.
    fn batches<'a>(
        &self,
        bytes: &'a [u8],
        spans: &[Range<usize>],
        pace: &Pace<'_>,
    ) -> (Vec<Batch<'a>>, Vec<Range<usize>>) {
        let (mut batches, mut damaged) = (Vec::new(), Vec::<Range<usize>>::new());
        let mut rested = 0;
        for span in spans {
            let mut at = span.start;
            while at < span.end {
                if at - rested.min(at) >= READ_SIZE {
                    rested = at;
                    pace.rest();
                }
                if let Some(batch) = Batch::read(&bytes[at..span.end], self.store.id()) {
                    at += batch.len();
                    batches.push(batch);
                    continue;
                }
                let end = (at + ALIGNMENT).min(span.end);
                match damaged.last_mut().filter(|range| range.end == at) {
                    Some(range) => range.end = end,
                    None => damaged.push(at..end),
                }
                at = end;
            }
        }
        (batches, damaged)
    }

    fn set_aside(&self, journal: &Unsealed, bytes: &[u8], range: &Range<usize>) {
        let name = format!("journal-{}-{}-damaged", journal.generation, range.start);
        let kept = match self.store.quarantine_bytes(&name, &bytes[range.clone()]) {
            Ok(()) => format!("a copy is quarantine/{name}"),
            Err(error) => format!("it could not be copied: {error}"),
        };
        self.tell_damage(format!(
            "{} is damaged from {} to {}; {kept}",
            journal.file.path().display(),
            range.start,
            range.end
        ));
    }
}
