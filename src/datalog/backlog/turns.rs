//! On a simulated disk, the background thread may take turns with the test: what is asked of the disk comes in one order, which
//! follows from the test.
//!
//! It does one task when it is given a turn, and tasks without asking while the writer waits for a journal, until there is one. A
//! merge, which has a thread of its own, is done whole when it is let. When the data log ends or fails, nobody waits for a turn.

use std::path::Path;

use parking_lot::MutexGuard;

use super::{Backlog, State};
use crate::datalog::disk::simulated;

#[derive(Debug, Default)]
pub(super) struct Turns {
    are_given: bool,
    /// Tasks that may be done.
    left: u64,
    /// The writer waits for a journal for so many bytes.
    waited_for: Option<u64>,
    merge_may_run: bool,
}

impl Turns {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            are_given: simulated::of(dir).is_some_and(|disk| disk.takes_turns()),
            ..Self::default()
        }
    }

    pub(super) fn are_given(&self) -> bool {
        self.are_given
    }
}

impl Backlog {
    /// What the background thread does before it looks for a task.
    pub(super) fn wait_for_turn(&self, state: &mut MutexGuard<'_, State>) {
        while state.turns.are_given && !self.has_turn(state) {
            state.idle = true;
            self.changed.notify_all();
            self.changed.wait(state);
        }
    }

    fn has_turn(&self, state: &State) -> bool {
        if state.stopping || state.failed.is_some() || state.turns.left > 0 {
            return true;
        }
        state.turns.waited_for.is_some_and(|needed| {
            let full = state.full.is_some();
            let is_there = !state.spares.is_empty() || full || needed > self.journal_size;
            !(is_there && (full || self.may_rotate(state)))
        })
    }

    /// What the writer does before it waits.
    pub(super) fn give_turn(&self, state: &mut State, needed: u64) {
        if state.turns.are_given {
            state.turns.waited_for = Some(needed);
            state.idle = false;
            self.changed.notify_all();
        }
    }

    /// What the writer does when it need not wait any more: the background thread ends its task first.
    pub(super) fn take_turn(&self, state: &mut MutexGuard<'_, State>) {
        if state.turns.are_given {
            while !state.idle && state.failed.is_none() {
                self.changed.wait(state);
            }
            state.turns.waited_for = None;
        }
    }

    /// What the background thread does when it comes from a task.
    pub(super) fn end_turn(&self, state: &mut State) {
        state.turns.left = 0;
    }

    /// Lets the background thread do one task; whether there was one.
    pub(crate) fn do_one(&self) -> bool {
        let mut state = self.state.lock();
        while !state.idle && state.failed.is_none() {
            self.changed.wait(&mut state);
        }
        if state.failed.is_some() {
            return false;
        }
        state.turns.left = 1;
        state.idle = false;
        self.changed.notify_all();
        while !state.idle && state.failed.is_none() {
            self.changed.wait(&mut state);
        }
        std::mem::take(&mut state.turns.left) == 0
    }

    /// Lets the merge that was begun come to its end, if there is one; whether there was one.
    pub(crate) fn let_merge(&self) -> bool {
        let mut state = self.state.lock();
        let is_merging = state.merging && !state.merged;
        if is_merging {
            state.turns.merge_may_run = true;
            self.changed.notify_all();
            while !state.merged {
                self.changed.wait(&mut state);
            }
        }
        is_merging
    }

    /// What the merging thread does first.
    pub(crate) fn wait_to_merge(&self) {
        let mut state = self.state.lock();
        while state.turns.are_given && !state.turns.merge_may_run {
            self.changed.wait(&mut state);
        }
        state.turns.merge_may_run = false;
    }

    /// A merge that is abandoned comes to its end.
    pub(crate) fn let_abandoned_merge(&self) {
        self.state.lock().turns.merge_may_run = true;
        self.changed.notify_all();
    }
}
