//! How a lease begins: what is read for it, whose turn it is, and which delivery it is.

use std::collections::BTreeMap;

use super::{Dead, Exception, Grant, LOAD_SIZE, Lease, Loaded, PAUSE, Queue, Range};
use crate::{
    domain::{ConnectionId, Page},
    protocol::{DeadLetterReason, PublicationId, Sequence, stored_publications},
};

/// Parts of the log that are asked for at once.
const MAX_RANGES: usize = 64;

/// Publications that were delivered before and are asked for at once.
const MAX_AGAIN: usize = 4096;

/// Bytes of publications that may be loaded and not leased: beyond that, those that are last in turn are dropped.
const MAX_LOADED: usize = 4 * LOAD_SIZE;

/// Delivering.
impl Queue {
    /// Up to here the log can be read, and may be shown.
    pub fn readable(&self) -> Sequence {
        self.readable
    }

    /// The log can be read up to `last`, and may be shown.
    pub fn set_readable(&mut self, last: Sequence) {
        self.readable = self.readable.max(last);
    }

    /// The newest publication, which was appended now, goes to whoever has room, unless others are in front of it.
    pub fn lease_fresh(
        &mut self,
        sequence: Sequence,
        id: PublicationId,
        frame_len: usize,
        now: u64,
    ) -> Option<ConnectionId> {
        if !self.returned.is_empty() || self.progress.delivered().next() != sequence {
            return None;
        }
        let connection = self.next_turn()?;
        self.progress.deliver_next();
        self.loaded_through = self.loaded_through.max(sequence);
        self.begin_lease(connection, sequence.0, id, frame_len, now);
        Some(connection)
    }

    /// The next lease of what was read from the log.
    pub fn next_grant(&mut self, now: u64) -> Option<Grant> {
        loop {
            let connection = self.next_turn()?;
            let fresh = self.progress.delivered().0 + 1;
            let sequence = self.returned.first().copied().unwrap_or(fresh);
            let Some(Loaded { id, frame }) = self.loaded.remove(&sequence) else {
                if sequence == fresh && fresh <= self.loaded_through.0 {
                    // It could not be read.
                    self.progress.settle(fresh);
                    continue;
                }
                return None;
            };
            self.loaded_bytes -= frame.len();
            let delivery = if sequence == fresh {
                self.progress.deliver_next();
                1
            } else {
                self.returned.remove(&sequence);
                let exception = self.progress.exception(sequence);
                if self.has_failed(&exception) {
                    // The limit was lowered meanwhile.
                    self.condemn(sequence, DeadLetterReason::MaxDeliveries);
                    continue;
                }
                let deliveries = exception.deliveries.saturating_add(1);
                self.progress.except(
                    sequence,
                    Exception {
                        deliveries,
                        ..exception
                    },
                );
                deliveries
            };
            self.begin_lease(connection, sequence, id, frame.len(), now);
            return Some(Grant {
                connection,
                sequence: Sequence(sequence),
                delivery,
                frame,
            });
        }
    }

    fn begin_lease(
        &mut self,
        connection: ConnectionId,
        sequence: u64,
        id: PublicationId,
        frame_len: usize,
        now: u64,
    ) {
        let ends_at = now.saturating_add(self.rules.ack_timeout);
        self.check_at = self.check_at.min(ends_at);
        self.in_flight += 1;
        self.turns.pop_front();
        if let Some(member) = self.members.get_mut(&connection) {
            member.leases.insert(id, Lease { sequence, ends_at });
            member.leased += frame_len as u64;
            member.has_turn = member.has_room(&self.rules);
            if member.has_turn {
                self.turns.push_back(connection);
            }
        }
    }

    /// What of the log has to be read, for the next in turn and for the dead letters. The answer goes to [`load`](Self::load), or the
    /// failure to [`load_failed`](Self::load_failed); until then nothing more is asked for.
    pub fn wanted(&mut self) -> Option<Vec<Range>> {
        if self.is_loading || self.loads_pause.is_some() {
            return None;
        }
        let mut ranges = Vec::new();
        // What comes first may take all that one read brings.
        self.moves_first = !self.moves_first;
        if self.moves_first {
            self.add_dead(&mut ranges);
        }
        if self.next_turn().is_some() {
            let readable = self.readable.0;
            let loaded = &self.loaded;
            let returned = self.returned.iter().copied();
            // What is behind one that is loaded is not needed yet, and what was leased with its own batch can't be read before that is
            // committed.
            let missing = returned
                .take_while(|sequence| *sequence <= readable && !loaded.contains_key(sequence));
            add_ranges(&mut ranges, missing);
            let next = self.loaded_through.next();
            let has_fresh = loaded.contains_key(&self.progress.delivered().next().0);
            if !has_fresh && next <= self.readable {
                // Some in advance, and not the whole log for one who takes one at a time.
                let count = 64.max(4 * self.prefetch);
                let last = Sequence(self.loaded_through.0.saturating_add(count));
                ranges.push((next, last.min(self.readable)));
            }
        }
        if !self.moves_first {
            self.add_dead(&mut ranges);
        }
        self.is_loading = !ranges.is_empty();
        self.is_loading.then_some(ranges)
    }

    /// Adds dead ones, from where the last read of them ended: those that can't be moved stand in front of nobody.
    fn add_dead(&self, ranges: &mut Vec<Range>) {
        if self.moves_pause.is_some() {
            return;
        }
        let behind = self.dead.range(self.moves_from..);
        let around = self.dead.range(..self.moves_from);
        let readable = behind.chain(around).copied();
        add_ranges(ranges, readable.filter(|one| *one <= self.readable.0));
    }

    /// What was read of each range that was asked for, or of the first ones. What can't be read is settled. Returns what is to be moved to
    /// the dead letters.
    pub fn load(&mut self, pages: Vec<(Range, Page)>, now: u64) -> Vec<Dead> {
        self.is_loading = false;
        let (mut dead, mut is_any) = (Vec::new(), false);
        for ((first, last), page) in pages {
            if let Some(gap) = page.gap {
                is_any = true;
                self.miss(first.max(gap.from), last.min(gap.to));
            }
            for publication in stored_publications(&page.frames).map_while(Result::ok) {
                is_any = true;
                let sequence = publication.sequence().0;
                let frame = page.frames.slice_ref(publication.frame());
                if self.dead.contains(&sequence) {
                    self.moves_from = sequence + 1;
                    let exception = self.progress.exception(sequence);
                    dead.push(Dead {
                        sequence: Sequence(sequence),
                        deliveries: exception.deliveries,
                        reason: exception.dead.unwrap_or(DeadLetterReason::MaxDeliveries),
                        frame,
                    });
                    continue;
                }
                if sequence == self.loaded_through.0 + 1 {
                    self.loaded_through = Sequence(sequence);
                } else if !self.returned.contains(&sequence) {
                    continue;
                }
                let id = publication.publication_id();
                self.loaded_bytes += frame.len();
                if let Some(known) = self.loaded.insert(sequence, Loaded { id, frame }) {
                    self.loaded_bytes -= known.frame.len();
                }
            }
        }
        if !is_any {
            self.load_failed(now);
        }
        self.drop_last_loaded();
        if self.members.is_empty() {
            self.unload();
        }
        dead
    }

    /// What came back in front of what is loaded is loaded, too: what is last in turn makes room for it.
    fn drop_last_loaded(&mut self) {
        while self.loaded_bytes > MAX_LOADED
            && self.loaded.len() > 1
            && let Some((sequence, dropped)) = self.loaded.pop_last()
        {
            self.loaded_bytes -= dropped.frame.len();
            if sequence > self.progress.delivered().0 {
                self.loaded_through = Sequence(sequence - 1);
            }
        }
    }

    /// The log could not be read: it is tried again later.
    pub fn load_failed(&mut self, now: u64) {
        self.is_loading = false;
        self.loads_pause = Some(now.saturating_add(PAUSE));
    }

    /// Damage on disk counts as settled.
    fn miss(&mut self, first: Sequence, last: Sequence) {
        if (first..=last).contains(&self.loaded_through.next()) {
            // It is settled when those in front of it were delivered.
            self.loaded_through = last;
        }
        let mut missed = Vec::new();
        for open in [&mut self.returned, &mut self.dead] {
            missed.extend(open.range(first.0..=last.0).copied());
            open.retain(|sequence| !(first.0..=last.0).contains(sequence));
        }
        for sequence in missed {
            self.progress.settle(sequence);
        }
    }

    pub(super) fn unload(&mut self) {
        self.loaded = BTreeMap::new();
        self.loaded_bytes = 0;
        self.loaded_through = self.progress.delivered();
    }
}

/// Adds single publications, those that follow each other as one range.
fn add_ranges(ranges: &mut Vec<Range>, sequences: impl Iterator<Item = u64>) {
    let most = ranges.len() + MAX_RANGES;
    for sequence in sequences.take(MAX_AGAIN).map(Sequence) {
        let is_full = ranges.len() == most;
        match ranges.last_mut() {
            Some((_, last)) if last.next() == sequence => *last = sequence,
            _ if is_full => return,
            _ => ranges.push((sequence, sequence)),
        }
    }
}
