//! Letting go of what is dead, and merging segments.
//!
//! A merge reads and writes files only, on a thread of its own, so that sealing never waits for it; what it made is made known
//! by the background thread. One merge at a time.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{Trouble, Worker};
use crate::{
    datalog::{
        Event, LogNumber,
        catalogue::{CatalogueBatch, SegmentEntry},
        disk,
        index::Index,
        merge::{self, Candidate, MergeError, Merged},
        pace::Pace,
        segment::{RunDescriptor, SegmentError, SegmentFile, SegmentId},
        store::ignore_full,
    },
    protocol::Sequence,
};

/// Ids of removed logs that are removed at once.
const IDS_AT_ONCE: usize = 10_000;

/// A merge that is under way.
pub(super) struct Merging {
    inputs: Vec<Arc<SegmentFile>>,
    output: SegmentId,
    abandoned: Arc<AtomicBool>,
    thread: JoinHandle<Result<Merged, MergeError>>,
}

impl Worker {
    /// Lets go of dead runs, and of segments of which nothing else is left.
    pub(super) fn drop_runs(&mut self, dead: Vec<RunDescriptor>) -> Result<(), Trouble> {
        let dropped = self.try_to_drop(dead.clone());
        if let Err(trouble) = &dropped {
            if matches!(trouble, Trouble::Full) {
                // Letting go takes some room before it makes some.
                self.store.give_reserve_up();
            }
            self.backlog.bury(dead);
        }
        dropped
    }

    fn try_to_drop(&mut self, mut dead: Vec<RunDescriptor>) -> Result<(), Trouble> {
        // What was merged meanwhile is gone already.
        dead.retain(|run| self.holdings.segments.contains_key(&run.segment));
        let mut batch = CatalogueBatch::new(&self.holdings.meta);
        for run in &dead {
            self.remove_ids(&mut batch, run);
        }
        let inputs = self.merging.iter().flat_map(|merging| &merging.inputs);
        let busy: HashSet<_> = inputs.map(|file| file.id()).collect();
        let over: Vec<SegmentId> = self
            .holdings
            .segments
            .keys()
            .copied()
            .filter(|&id| self.index.live(id).runs == 0 && !busy.contains(&id))
            .collect();
        for segment in &over {
            batch.remove_segment(*segment);
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.sync_journals()?;
        self.holdings.catalogue.commit(batch)?;
        for segment in over {
            self.holdings.segments.remove(&segment);
            let is_odd = self.holdings.unmergeable.remove(&segment);
            if let Some(file) = self.index.remove_segment(segment) {
                self.let_go(file.path(), is_odd);
            }
        }
        self.backlog.retry_soon();
        Ok(())
    }

    /// Removes the ids of a run's publications that a living log does not keep any more. Those of a removed log go by
    /// themselves; those of a part that can't be read stay, and point to nothing.
    fn remove_ids(&self, batch: &mut CatalogueBatch, run: &RunDescriptor) {
        let Some(bounds) = self.index.bounds(run.log).filter(|_| run.client_ids) else {
            return;
        };
        if bounds.first <= run.first {
            return;
        }
        let file = self.index.segment(run.segment);
        let ids = file.and_then(|file| file.client_ids(run).ok());
        for (id, sequence) in ids.into_iter().flatten() {
            if sequence < bounds.first {
                batch.remove_id(run.log, &id, sequence);
            }
        }
    }

    /// Does what has time.
    pub(super) fn tidy(&mut self) -> Result<(), Trouble> {
        self.store.keep_reserve().or_else(ignore_full)?;
        if self.holdings.catalogue.tidy(IDS_AT_ONCE)? {
            self.backlog.set_untidy();
        }
        self.begin_merge()
    }

    pub(super) fn begin_merge(&mut self) -> Result<(), Trouble> {
        if self.merging.is_some() {
            return Ok(());
        }
        let candidates = self.holdings.segments.values().filter_map(|entry| {
            let id = entry.header.id;
            let live = self.index.live(id);
            (live.runs > 0).then_some(Candidate {
                header: entry.header,
                file_len: entry.file_len,
                live,
                mergeable: !self.holdings.unmergeable.contains(&id),
            })
        });
        let chosen = merge::choose(
            candidates.collect(),
            self.options.merge_at,
            self.backlog.is_busy(),
        );
        let inputs: Vec<_> = chosen
            .iter()
            .filter_map(|&id| self.index.segment(id))
            .collect();
        if inputs.is_empty() || inputs.len() < chosen.len() {
            return Ok(());
        }
        let output = SegmentId(self.holdings.next_segment);
        self.holdings.next_segment += 1;
        let abandoned = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("datalog-merge".into()).spawn({
            let (index, backlog) = (self.index.clone(), self.backlog.clone());
            let (inputs, abandoned) = (inputs.clone(), abandoned.clone());
            let segments = self.store.segment_dir();
            move || {
                #[cfg(test)]
                backlog.wait_to_merge();
                let first_kept = |log| first_kept(&index, &abandoned, log);
                let is_urgent = || abandoned.load(Ordering::Relaxed) || backlog.is_pressed();
                let pace = Pace::new(&is_urgent);
                let merged = merge::merge(&inputs, &first_kept, &segments, output, &pace);
                backlog.merged();
                merged
            }
        })?;
        self.backlog.set_merging(true);
        self.merging = Some(Merging {
            inputs,
            output,
            abandoned,
            thread,
        });
        Ok(())
    }

    /// Makes a merge known, and lets go of what it was made of.
    pub(super) fn finish_merge(&mut self) -> Result<(), Trouble> {
        let Some(merging) = self.merging.take() else {
            return Ok(());
        };
        let made_known = self.make_known(merging);
        self.backlog.set_merging(false);
        made_known
    }

    fn make_known(&mut self, merging: Merging) -> Result<(), Trouble> {
        let Ok(outcome) = merging.thread.join() else {
            return Err(Trouble::Fatal("merging panicked".into()));
        };
        let merged = match outcome {
            Ok(merged) => merged,
            Err(MergeError::Input(damaged)) => {
                let inputs = merging.inputs.iter();
                let hit = inputs.filter(|file| file.path() == damaged.file);
                self.holdings.unmergeable.extend(hit.map(|file| file.id()));
                self.tell_damage(damaged.to_string());
                self.backlog.set_untidy();
                return Ok(());
            }
            Err(MergeError::Output(error)) => return merge_failed(error),
        };
        let mut batch = CatalogueBatch::new(&self.holdings.meta);
        let mut footers = Vec::new();
        for file in &merging.inputs {
            if let Ok(footer) = file.footer() {
                for run in footer.runs() {
                    self.remove_ids(&mut batch, &run);
                }
                footers.push(footer);
            }
            batch.remove_segment(file.id());
        }
        let mut output = None;
        let mut runs = &[][..];
        if let Some(segment) = &merged.segment {
            let entry = SegmentEntry {
                header: segment.header,
                file_len: segment.file_len,
            };
            runs = &segment.runs;
            batch.put_segment(&entry, runs);
            let file = SegmentFile::open(&self.store.segment_dir(), segment.header.id)?;
            output = Some((entry, file));
        }
        self.sync_journals()?;
        let holdings = &mut self.holdings;
        holdings.catalogue.commit(batch)?;
        let inputs: Vec<_> = merging.inputs.iter().map(|file| file.id()).collect();
        for input in &inputs {
            holdings.segments.remove(input);
        }
        if let Some((entry, _)) = &output {
            holdings.segments.insert(entry.header.id, *entry);
        }
        let logs = footers
            .iter()
            .flat_map(|footer| footer.runs())
            .map(|run| run.log);
        let file = output.map(|(_, file)| file);
        let dead = self.index.merge(&inputs, logs, file, runs);
        (self.options.events)(Event::Merged);
        self.backlog.bury(dead);
        self.remove_inputs(&merging.inputs, &merged);
        self.backlog.retry_soon();
        Ok(())
    }

    /// A file in which something live could not be read is kept for a person to look at.
    fn remove_inputs(&self, inputs: &[Arc<SegmentFile>], merged: &Merged) {
        for damaged in &merged.damaged {
            self.tell_damage(format!("{damaged}; the file is kept in quarantine"));
        }
        for file in inputs {
            let mut damaged = merged.damaged.iter();
            self.let_go(
                file.path(),
                damaged.any(|damaged| damaged.file == file.path()),
            );
        }
    }

    /// Removes a segment's file, or sets it aside. What stays is removed at the next start.
    fn let_go(&self, path: &Path, set_aside: bool) {
        let gone = match set_aside {
            true => self.store.quarantine(path).map(drop),
            false => disk::remove(path),
        };
        if let Err(error) = gone {
            log::warn!("{} is left behind: {error}", path.display());
        }
    }

    /// At the end nobody waits for a merge; its inputs are as they were.
    pub(super) fn abandon_merge(&mut self) {
        let Some(merging) = self.merging.take() else {
            return;
        };
        merging.abandoned.store(true, Ordering::Relaxed);
        #[cfg(test)]
        self.backlog.let_abandoned_merge();
        if let Ok(Ok(Merged {
            segment: Some(_), ..
        })) = merging.thread.join()
        {
            let path = merging.output.path(&self.store.segment_dir());
            if let Err(error) = disk::remove(&path) {
                log::warn!("{} is left behind: {error}", path.display());
            }
        }
    }
}

/// A full disk is no reason to refuse publications, as long as there are journals: the merge is done another time.
fn merge_failed(error: SegmentError) -> Result<(), Trouble> {
    match error.into() {
        Trouble::Full => {
            log::warn!("the disk is too full to merge segments");
            Ok(())
        }
        trouble => Err(trouble),
    }
}

/// For an abandoned merge nothing lives, so that it ends soon.
fn first_kept(index: &Index, abandoned: &AtomicBool, log: LogNumber) -> Option<Sequence> {
    if abandoned.load(Ordering::Relaxed) {
        return None;
    }
    index.bounds(log).map(|bounds| bounds.first)
}
