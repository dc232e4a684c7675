//! Replaying the journals that are not sealed, oldest first.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    sync::Arc,
};

use super::{read, torn::Torn};
use crate::{
    datalog::{
        LogNumber, OpenError, RecoveryReport,
        chunk::ChunkEntry,
        index::{Change, Index},
        journal::{
            JournalFile, Scan, Unsealed,
            format::{Batch, RecordView},
            newest_generation, scan_of,
        },
        segment::RunDescriptor,
        store::{During, Found, Store, Uncut, ignore_full, is_disk_full},
    },
    protocol::{PublicationId, Sequence},
};

/// Collects what unsealed journals change.
pub(super) struct Replay<'a> {
    store: &'a Store,
    pub(super) index: &'a Index,
    pub(super) state: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>,
    pub(super) next_log: u64,
    pub(super) last_generation: u64,
    pub(super) last_batch: u64,
    /// Logs that were written to behind the last hole, if there is a hole: the end of the others may be in it.
    pub(super) hole: Option<HashSet<LogNumber>>,
    pub(super) dead: Vec<RunDescriptor>,
    /// The journal in front of the next was told to be gone.
    is_gone_told: bool,
    /// What earlier starts erased.
    pub(super) torn: Torn,
    /// What this one can't.
    pub(super) uncut: Vec<Uncut>,
    pub(super) report: RecoveryReport,
}

impl<'a> Replay<'a> {
    pub(super) fn new(store: &'a Store, index: &'a Index, torn: Torn) -> Self {
        Self {
            store,
            index,
            state: BTreeMap::new(),
            next_log: 1,
            last_generation: 0,
            last_batch: 0,
            hole: None,
            dead: Vec::new(),
            is_gone_told: false,
            torn,
            uncut: Vec::new(),
            report: RecoveryReport::default(),
        }
    }

    /// How the last user of the directory ended.
    pub(super) fn found(&self) -> &'a Found {
        self.store.found()
    }

    /// Replays one journal; gives it back if it holds nothing. Of the newest, the one without a `next`, it is not known how the last sync
    /// ended.
    pub(super) fn journal(
        &mut self,
        file: JournalFile,
        sealed_through: u64,
        next: Option<&JournalFile>,
    ) -> Result<Result<Unsealed, JournalFile>, OpenError> {
        let bytes = read(&file)?;
        let found = self.store.found();
        let began = newest_generation(&bytes, self.store.id(), sealed_through);
        let expected = began.and_then(|began| self.expected_batch(began, sealed_through));
        if began.is_some_and(|generation| generation >= found.generation) {
            self.last_batch = self.last_batch.max(found.batch.saturating_sub(1));
        }
        let generation = began.unwrap_or_default();
        // The next one was begun when all of this one was synced, and goes on behind that. What was never synced, and left there for want of
        // room or with the first batch gone, has numbers that were given again.
        let next_begins = next
            .map(|next| next.first_batch(self.store.id()))
            .transpose()
            .during(|| format!("reading the journal behind {}", file.path().display()))?;
        let was_synced_through = |number| match &next_begins {
            Some(first) => first.as_ref().is_some_and(|first| first.number > number),
            None => found
                .ended
                .is_some_and(|ended| ended >= (generation, number)),
        };
        let (store, before) = (self.store.id(), self.last_batch);
        let scan = scan_of(&bytes, store, sealed_through, before, was_synced_through);
        let is_cut = self.cut(&file, generation, &bytes, &scan)?;
        let end = scan.spans.last().map_or(0, |span| span.end);
        self.torn
            .erase_in_used(&file, generation, end)
            .during(|| format!("cutting {}", file.path().display()))?;
        // Earlier runs' journals were looked at, and cut, by the start of the last one.
        let is_earlier = generation < found.generation;
        // A batch that a power cut left of a generation whose first one it took, so that the file began with one that is sealed, and was
        // used again.
        let is_leftover =
            is_earlier && scan.spans.is_empty() && !found.unsealed.contains(&generation);
        let is_uncut = |torn: &Range<usize>| found.uncut.contains(&(generation, torn.start as u64));
        let is_damaged_tail = (!found.unclean || is_earlier)
            && !is_leftover
            && scan.torn.as_ref().is_some_and(|it| !is_uncut(it));
        let tail = format!("the end of {} is damaged", file.path().display());
        if scan.spans.is_empty() && is_cut {
            // What lacks then is noticed at the end.
            if is_damaged_tail {
                self.damage(&tail);
            }
            return Ok(Err(file));
        }
        // A process that ended may have left it to the system, and what comes next relies on it.
        if next.is_none() && found.unclean {
            file.write_again(&bytes, &scan.spans)
                .or_else(ignore_full)
                .during(|| format!("writing {}", file.path().display()))?;
        }
        file.sync()
            .during(|| format!("syncing {}", file.path().display()))?;
        let file = Arc::new(file);
        self.index.add_journal(generation, file.clone());
        let is_gone_told = std::mem::take(&mut self.is_gone_told);
        if !is_gone_told {
            self.expect_generation(generation, sealed_through, &file);
        }
        if let Some((first, last)) = scan.numbers {
            if let Some(expected) = expected
                && scan.damaged.is_empty()
                && !is_gone_told
            {
                self.expect_batch(first, expected, &file);
            }
            self.last_batch = last;
        }
        self.last_generation = self.last_generation.max(generation);
        self.report.batches += scan.batches;
        for span in &scan.spans {
            for range in scan.damaged.iter().filter(|range| range.end == span.start) {
                self.set_damaged_aside(&file, generation, &bytes, range);
            }
            self.span(&bytes, generation, span);
        }
        let is_short = found
            .synced
            .is_some_and(|it| it.generation == generation && file.capacity() < it.capacity);
        if is_damaged_tail || is_short {
            self.damage(&tail);
        }
        let end = match is_cut {
            true => end as u64,
            false => file.capacity(),
        };
        Ok(Ok(Unsealed {
            file,
            generation,
            spans: scan.spans,
            end,
        }))
    }

    /// A run's generations follow each other: where its last ones are not sealed, the first behind what is sealed has to be there,
    /// whether or not it was noted.
    fn expect_generation(&mut self, generation: u64, sealed_through: u64, file: &JournalFile) {
        let found = self.store.found();
        let is_of_last_run = found.unclean && (1..=sealed_through).contains(&found.generation);
        if self.last_generation == 0 && is_of_last_run && generation > sealed_through + 1 {
            self.damage(&format!(
                "journals {} to {} are gone, in front of {}",
                sealed_through + 1,
                generation - 1,
                file.path().display()
            ));
        }
    }

    /// The number that the first batch of a journal has to have, where that is known: that behind the journal before it, or the first of
    /// the last run, if nothing of that run is sealed.
    fn expected_batch(&self, generation: u64, sealed_through: u64) -> Option<u64> {
        if self.last_generation > 0 {
            return Some(self.last_batch + 1);
        }
        let found = self.store.found();
        let is_first = generation >= found.generation && sealed_through < found.generation;
        (found.unclean && is_first).then_some(found.batch)
    }

    /// A journal is begun only when the one before it is synced: what lacks between them was there.
    fn expect_batch(&mut self, first: u64, expected: u64, file: &JournalFile) {
        if first > expected {
            self.damage(&format!(
                "journal batches {expected} to {} are gone, in front of {}",
                first - 1,
                file.path().display()
            ));
        }
    }

    /// Compares how far the journals go with what the last user of the directory left word of; whether there was such a word.
    pub(super) fn check_end(&mut self, sealed_through: u64) -> bool {
        let found = self.store.found();
        let newest = (self.last_generation, self.last_batch);
        if let Some(name) = found.damaged {
            let kept = match self.store.quarantine_copy(name) {
                Ok(()) => "a copy is in the quarantine".to_owned(),
                Err(error) => format!("it could not be copied: {error}"),
            };
            self.note(&format!(
                "the file {name} is damaged, so how the last end was is not known; {kept}"
            ));
            return false;
        }
        if let Some(synced) = found.synced
            && synced.generation > sealed_through
        {
            self.expect_end(synced.generation, synced.batch, "was synced");
        }
        let Some((generation, batch)) = found.ended else {
            let is_lost = !found.unclean && self.report.batches > 0;
            if is_lost {
                self.note("neither of the files running and ended is there: how the last end was is not known");
            }
            return !is_lost;
        };
        if newest.0 > generation {
            self.note(
                "the file running is not there: journals are newer than the last orderly end",
            );
            return false;
        }
        if generation > sealed_through {
            self.expect_end(generation, batch, "was the last when they were closed");
        }
        true
    }

    fn expect_end(&mut self, generation: u64, batch: u64, why: &str) {
        if self.last_batch < batch {
            self.damage(&format!(
                "the journals end with batch {}, and {batch} {why}",
                self.last_batch
            ));
        }
        self.last_generation = self.last_generation.max(generation);
        self.last_batch = self.last_batch.max(batch);
    }

    fn span(&mut self, bytes: &[u8], generation: u64, span: &Range<usize>) {
        let mut at = span.start;
        while at < span.end {
            let batch = Batch::read(&bytes[at..], self.store.id())
                .expect("invariant: a span holds valid batches");
            self.batch(&batch, generation, at);
            at += batch.len();
        }
    }

    fn batch(&mut self, batch: &Batch<'_>, generation: u64, at: usize) {
        let mut changes = Vec::new();
        let mut ids = Vec::new();
        for record in batch.records() {
            let Some(change) = record.and_then(|record| self.record(record, at, &mut ids)) else {
                continue;
            };
            match change {
                Change::Create(log) | Change::Append(log, _) => {
                    self.next_log = self.next_log.max(log.0 + 1);
                    self.hole.as_mut().map(|behind| behind.insert(log));
                }
                Change::Truncate(..) | Change::Remove(_) => {}
            }
            changes.push(change);
        }
        for change in &mut changes {
            if let Change::Append(_, chunk) = change {
                chunk.generation = generation;
            }
        }
        self.dead
            .extend(self.index.apply(generation, &changes, ids));
    }

    fn record(
        &mut self,
        record: RecordView<'_>,
        at: usize,
        ids: &mut Vec<(LogNumber, PublicationId, Sequence)>,
    ) -> Option<Change> {
        Some(match record {
            RecordView::CreateLog(log) => Change::Create(log),
            RecordView::Truncate { log, first } => Change::Truncate(log, first),
            RecordView::RemoveLog(log) => Change::Remove(log),
            RecordView::Put { key, value } => {
                self.state.insert(key.into(), Some(value.into()));
                return None;
            }
            RecordView::Delete { key } => {
                self.state.insert(key.into(), None);
                return None;
            }
            RecordView::Publications {
                log,
                frames,
                offset,
                ..
            } => {
                let surveyed =
                    ChunkEntry::survey(frames, |id, sequence| ids.push((log, id, sequence)));
                let mut entry = surveyed.ok()?;
                entry.offset = u32::try_from(at + offset).ok()?;
                Change::Append(log, entry)
            }
        })
    }

    /// Tells of damage that takes nothing of a log's end.
    pub(super) fn note(&mut self, what: &str) {
        log::error!("{what}");
        self.report.damage.push(what.to_owned());
    }

    /// A journal is not there that was not sealed.
    pub(super) fn gone(&mut self, generation: u64) {
        self.damage(&format!(
            "the journal of generation {generation} is gone, and was not sealed"
        ));
        self.is_gone_told = true;
    }

    pub(super) fn damage(&mut self, what: &str) {
        self.note(what);
        self.hole = Some(HashSet::new());
    }

    /// Tells of damage in a journal, of which a copy is kept.
    pub(super) fn set_damaged_aside(
        &mut self,
        file: &JournalFile,
        generation: u64,
        bytes: &[u8],
        range: &Range<usize>,
    ) {
        let name = format!("journal-{generation}-{}-damaged", range.start);
        let kept = self.store.quarantine_bytes(&name, &bytes[range.clone()]);
        let kept = match kept {
            Ok(()) => format!("a copy is quarantine/{name}"),
            Err(error) => format!("it could not be copied: {error}"),
        };
        self.damage(&format!(
            "{} is damaged from {} to {}; {kept}",
            file.path().display(),
            range.start,
            range.end
        ));
    }

    /// Cuts a torn tail, after it was copied. Where there is no room for a copy it stays, and it is false: nothing may be
    /// written over it, but nothing ever goes on behind it either.
    fn cut(
        &mut self,
        file: &JournalFile,
        generation: u64,
        bytes: &[u8],
        scan: &Scan,
    ) -> Result<bool, OpenError> {
        let Some(range) = scan.torn.clone() else {
            return Ok(true);
        };
        let path = file.path().display();
        let copy = || Torn::copy(self.store, generation, bytes, &range);
        let copied = match copy() {
            Err(error) if is_disk_full(&error) && self.store.give_reserve_up() => copy(),
            copied => copied,
        };
        let name = match copied {
            Ok(name) => name,
            Err(error) if is_disk_full(&error) => {
                log::warn!("the torn tail of {path} can't be copied: {error}");
                self.uncut.push((generation, range.start as u64));
                return Ok(false);
            }
            // Were it left there, the next start would take it for damage.
            Err(error) => return Err(error).during(|| format!("copying the end of {path}")),
        };
        let length = range.len() as u64;
        log::warn!("{path} ends in {length} torn bytes, copied to quarantine/{name}");
        self.report.cut_bytes += length;
        file.erase(range).during(|| format!("cutting {path}"))?;
        Ok(true)
    }
}
