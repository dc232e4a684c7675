//! A queue: who has which publication on lease, what goes next to whom, and what is settled.
//!
//! Owns leases, turns, time-outs, and the counts of deliveries ([`Progress`]). Does not own clocks (it is handed `now`, milliseconds of a
//! clock that never goes back), the log (it says what it needs read, [`Queue::wanted`], and is handed it, [`Queue::load`]), nor the
//! dead-letter subscription (it says what is to be moved, and is told when it was).
//!
//! ```text
//!                   ┌──────────── returned, delayed <──── time-out, Reject, end of the connection
//!                   v                                                  │
//!   pending ──read from the log──> loaded ──a subscriber has room──> leased ──Acknowledge──> settled
//!                                                                      └──too often──> dead ──moved──> settled
//! ```
//!
//! Invariants: a publication is leased to one subscriber at most; what is deliverable goes in sequence order; nothing is remembered of a
//! publication that was never delivered, but for the few that are loaded.

mod progress;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

pub use progress::{BLOCK, Exception, Progress, QueueBlock, QueueChange, QueueHead};

use super::{ConnectionId, Page};
use crate::protocol::{DeadLetterReason, PublicationId, Sequence, stored_publications};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What a read of the log for a queue brings, in bytes: enough to feed many subscribers, little enough for many queues.
pub const LOAD_SIZE: usize = 128 << 10;

/// Publications that are asked for one by one, at most.
const MAX_RANGES: usize = 64;

/// How long a move to the dead letters, or a read, that failed waits. Milliseconds.
const PAUSE: u64 = 1_000;

/// What a queue is held to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueRules {
    /// How long a lease lasts. Milliseconds.
    pub ack_timeout: u64,
    /// Deliveries without acknowledgement before a publication is moved to the dead letters; 0 is no limit.
    pub max_deliveries: u64,
    /// Bytes that may be leased to a subscriber and not written to its socket.
    pub unwritten: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    rules: QueueRules,
    progress: Progress,
    /// Delivered before, and free for the next with room.
    returned: BTreeSet<u64>,
    /// Delivered before, and held back until a time.
    delayed: BTreeSet<(u64, u64)>,
    /// To be moved to the dead letters.
    dead: BTreeSet<u64>,
    /// A move failed: none is tried until then.
    moves_pause: Option<u64>,
    /// Read from the log, and not leased.
    loaded: BTreeMap<u64, Loaded>,
    /// What lies behind `delivered` is loaded up to here.
    loaded_through: Sequence,
    /// A read of the log is under way.
    is_loading: bool,
    /// A read failed: none is tried until then.
    loads_pause: Option<u64>,
    /// Up to here the log can be read, and may be shown.
    readable: Sequence,
    members: Map<ConnectionId, Member>,
    /// Those who have room, in turn. Some may have none any more.
    turns: VecDeque<ConnectionId>,
    prefetch: u64,
    in_flight: u64,
    /// No lease ends by itself before.
    check_at: u64,
}

#[derive(Debug)]
struct Loaded {
    id: PublicationId,
    frame: Bytes,
}

#[derive(Debug)]
struct Member {
    prefetch: u16,
    leases: Map<PublicationId, Lease>,
    /// Bytes ever leased, and of these written to the socket, as far as it was told.
    leased: u64,
    written: u64,
    has_turn: bool,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    sequence: u64,
    ends_at: u64,
}

impl Member {
    fn has_room(&self, rules: &QueueRules) -> bool {
        self.leases.len() < usize::from(self.prefetch)
            && self.leased.saturating_sub(self.written) < rules.unwritten
    }
}

/// A lease that begins: the publication goes to the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Whose it is now.
    pub connection: ConnectionId,
    /// The publication.
    pub sequence: Sequence,
    /// Which delivery this is, from 1.
    pub delivery: u32,
    /// Its ready frame.
    pub frame: Bytes,
}

/// A publication that is to be moved to the dead letters, and was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dead {
    /// The publication.
    pub sequence: Sequence,
    /// How often it was delivered.
    pub deliveries: u32,
    /// Why.
    pub reason: DeadLetterReason,
    /// Its ready frame.
    pub frame: Bytes,
}

/// What became of ids that a connection settles or prolongs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// Those it held.
    pub count: u64,
    /// The others.
    pub lost: Vec<PublicationId>,
}

/// How a lease ends without acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It counts towards `max_deliveries`.
    Failed,
    /// The server stops in order: it does not.
    Spared,
}

/// What `Reject` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// Deliver it again, this many milliseconds from now at the earliest.
    Later(u64),
    /// Never deliver it again.
    DeadLetter,
}

/// A part of the log: both ends are in it.
pub type Range = (Sequence, Sequence);

impl Queue {
    /// A queue of which so much is settled and delivered; nothing is on lease. What lies up to `last` can be read.
    pub fn new(progress: Progress, rules: QueueRules, last: Sequence) -> Self {
        let mut queue = Self {
            rules,
            loaded_through: progress.delivered(),
            progress,
            returned: BTreeSet::new(),
            delayed: BTreeSet::new(),
            dead: BTreeSet::new(),
            moves_pause: None,
            loaded: BTreeMap::new(),
            is_loading: false,
            loads_pause: None,
            readable: last,
            members: Map::default(),
            turns: VecDeque::new(),
            prefetch: 0,
            in_flight: 0,
            check_at: u64::MAX,
        };
        let open: Vec<_> = queue.progress.open().collect();
        for sequence in open {
            queue.put_back(sequence, None);
        }
        queue
    }

    /// How it is written down.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// What is to be written down.
    pub fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }

    /// Publications that are neither settled nor in flight, of a log whose newest is `last`.
    pub fn pending(&self, last: Sequence) -> u64 {
        let fresh = last.0.saturating_sub(self.progress.delivered().0);
        fresh + (self.returned.len() + self.delayed.len() + self.dead.len()) as u64
    }

    /// Publications on lease.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Changes what it is held to. Leases that began keep their time.
    pub fn set_rules(&mut self, rules: QueueRules) {
        self.rules = rules;
        for member in self.members.keys().copied().collect::<Vec<_>>() {
            self.give_turn(member);
        }
    }
}

/// Subscribers.
impl Queue {
    /// A connection subscribes from now on, or with another prefetch.
    pub fn subscribe(&mut self, connection: ConnectionId, prefetch: u16) {
        let member = self.members.entry(connection).or_insert_with(|| Member {
            prefetch: 0,
            leases: Map::default(),
            leased: 0,
            written: 0,
            has_turn: false,
        });
        self.prefetch += u64::from(prefetch);
        self.prefetch -= u64::from(member.prefetch);
        member.prefetch = prefetch;
        self.give_turn(connection);
    }

    /// A connection subscribes no longer: its leases end. With `spare`, since the server stops in order.
    pub fn unsubscribe(&mut self, connection: ConnectionId, spare: bool) {
        let Some(member) = self.members.remove(&connection) else {
            return;
        };
        self.prefetch -= u64::from(member.prefetch);
        self.in_flight -= member.leases.len() as u64;
        let end = if spare { End::Spared } else { End::Failed };
        for lease in member.leases.into_values() {
            self.end(lease.sequence, end, None);
        }
        if self.members.is_empty() {
            self.turns = VecDeque::new();
            self.unload();
        }
    }

    /// The prefetch of a connection that subscribes.
    pub fn prefetch(&self, connection: ConnectionId) -> Option<u16> {
        self.members.get(&connection).map(|member| member.prefetch)
    }

    /// So many bytes of what was leased to a connection were written to its socket since it subscribes.
    pub fn written(&mut self, connection: ConnectionId, bytes: u64) {
        if let Some(member) = self.members.get_mut(&connection) {
            member.written = member.written.max(bytes);
            self.give_turn(connection);
        }
    }

    fn give_turn(&mut self, connection: ConnectionId) {
        if let Some(member) = self.members.get_mut(&connection)
            && !member.has_turn
            && member.has_room(&self.rules)
        {
            member.has_turn = true;
            self.turns.push_back(connection);
        }
    }

    /// The next who has room. Its turn stays until a lease is given to it.
    fn next_turn(&mut self) -> Option<ConnectionId> {
        while let Some(&connection) = self.turns.front() {
            match self.members.get_mut(&connection) {
                Some(member) if member.has_room(&self.rules) => return Some(connection),
                Some(member) => member.has_turn = false,
                None => {}
            }
            self.turns.pop_front();
        }
        None
    }
}

/// Settling.
impl Queue {
    /// A connection acknowledges.
    pub fn acknowledge(&mut self, connection: ConnectionId, ids: &[PublicationId]) -> Touched {
        self.take_leases(connection, ids, |queue, lease| {
            queue.progress.settle(lease.sequence);
        })
    }

    /// A connection gives leases back.
    pub fn reject(
        &mut self,
        connection: ConnectionId,
        ids: &[PublicationId],
        what: Rejected,
        now: u64,
    ) -> Touched {
        self.take_leases(connection, ids, |queue, lease| match what {
            Rejected::Later(delay) => {
                let until = (delay > 0).then(|| now.saturating_add(delay));
                queue.end(lease.sequence, End::Failed, until);
            }
            Rejected::DeadLetter => queue.condemn(lease.sequence, DeadLetterReason::Rejected),
        })
    }

    /// The time of a connection's leases begins anew.
    pub fn extend(&mut self, connection: ConnectionId, ids: &[PublicationId], now: u64) -> Touched {
        let mut touched = Touched::default();
        let ends_at = now.saturating_add(self.rules.ack_timeout);
        let mut member = self.members.get_mut(&connection);
        for id in ids {
            match member.as_mut().and_then(|member| member.leases.get_mut(id)) {
                Some(lease) => {
                    lease.ends_at = ends_at;
                    touched.count += 1;
                }
                None => touched.lost.push(*id),
            }
        }
        self.check_at = self.check_at.min(ends_at);
        touched
    }

    fn take_leases(
        &mut self,
        connection: ConnectionId,
        ids: &[PublicationId],
        mut end: impl FnMut(&mut Self, Lease),
    ) -> Touched {
        let mut touched = Touched::default();
        for id in ids {
            let member = self.members.get_mut(&connection);
            match member.and_then(|member| member.leases.remove(id)) {
                Some(lease) => {
                    touched.count += 1;
                    self.in_flight -= 1;
                    end(self, lease);
                }
                None => touched.lost.push(*id),
            }
        }
        self.give_turn(connection);
        touched
    }

    /// A lease has ended without acknowledgement.
    fn end(&mut self, sequence: u64, end: End, until: Option<u64>) {
        if end == End::Spared {
            let exception = self.progress.exception(sequence);
            let spared = exception.spared + 1;
            self.progress.except(
                sequence,
                Exception {
                    spared,
                    ..exception
                },
            );
        }
        self.put_back(sequence, until);
    }

    /// A publication that was delivered and is not on lease has its place: among the dead, or those that are delivered again.
    fn put_back(&mut self, sequence: u64, until: Option<u64>) {
        let exception = self.progress.exception(sequence);
        if exception.dead.is_some() {
            self.dead.insert(sequence);
        } else if self.has_failed(&exception) {
            self.condemn(sequence, DeadLetterReason::MaxDeliveries);
        } else if let Some(until) = until {
            self.delayed.insert((until, sequence));
        } else {
            self.returned.insert(sequence);
        }
    }

    fn has_failed(&self, exception: &Exception) -> bool {
        let most = self.rules.max_deliveries;
        most > 0 && u64::from(exception.failures()) >= most
    }

    fn condemn(&mut self, sequence: u64, reason: DeadLetterReason) {
        let exception = Exception {
            dead: Some(reason),
            ..self.progress.exception(sequence)
        };
        self.progress.except(sequence, exception);
        self.dead.insert(sequence);
    }

    /// A publication that was to be moved to the dead letters was.
    pub fn moved(&mut self, sequence: Sequence) {
        if self.dead.remove(&sequence.0) {
            self.progress.settle(sequence.0);
        }
    }

    /// A move failed: none is tried for a while.
    pub fn not_moved(&mut self, now: u64) {
        self.moves_pause = Some(now.saturating_add(PAUSE));
    }
}

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
        if self.moves_pause.is_none() {
            add_ranges(&mut ranges, self.dead.iter().copied());
        }
        if self.next_turn().is_some() {
            let loaded = &self.loaded;
            let returned = self.returned.iter().copied();
            let missing = returned.filter(|sequence| !loaded.contains_key(sequence));
            add_ranges(&mut ranges, missing);
            let next = self.loaded_through.next();
            let has_fresh = loaded.contains_key(&self.progress.delivered().next().0);
            if !has_fresh && next <= self.readable && ranges.len() < MAX_RANGES {
                // Some in advance, and not the whole log for one who takes one at a time.
                let count = 64.max(4 * self.prefetch);
                let last = Sequence(self.loaded_through.0.saturating_add(count));
                ranges.push((next, last.min(self.readable)));
            }
        }
        self.is_loading = !ranges.is_empty();
        self.is_loading.then_some(ranges)
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
                self.loaded.insert(sequence, Loaded { id, frame });
            }
        }
        if !is_any {
            self.load_failed(now);
        }
        if self.members.is_empty() {
            self.unload();
        }
        dead
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

    fn unload(&mut self) {
        self.loaded = BTreeMap::new();
        self.loaded_through = self.progress.delivered();
    }
}

/// Time.
impl Queue {
    /// When there is something to do though nothing comes; [`expire`](Self::expire) does it.
    pub fn next_due(&self) -> Option<u64> {
        let check_at = (self.in_flight > 0).then_some(self.check_at);
        let delayed = self.delayed.first().map(|(until, _)| *until);
        let times = [check_at, delayed, self.moves_pause, self.loads_pause];
        times.into_iter().flatten().min()
    }

    /// Ends what ends by itself at `now`. Looks at leases only when one may have ended: while all are settled in time, that is once in
    /// their time, however many there were.
    pub fn expire(&mut self, now: u64) {
        for pause in [&mut self.moves_pause, &mut self.loads_pause] {
            pause.take_if(|until| *until <= now);
        }
        while let Some(&(until, sequence)) = self.delayed.first()
            && until <= now
        {
            self.delayed.pop_first();
            self.returned.insert(sequence);
        }
        if now < self.check_at {
            return;
        }
        let mut ended = Vec::new();
        let mut next = u64::MAX;
        for (connection, member) in &mut self.members {
            let before = ended.len();
            member.leases.retain(|_, lease| {
                let is_over = lease.ends_at <= now;
                if is_over {
                    ended.push((*connection, lease.sequence));
                } else {
                    next = next.min(lease.ends_at);
                }
                !is_over
            });
            self.in_flight -= (ended.len() - before) as u64;
        }
        self.check_at = next;
        for (connection, sequence) in ended {
            self.end(sequence, End::Failed, None);
            self.give_turn(connection);
        }
    }
}

/// Adds single publications, those that follow each other as one range.
fn add_ranges(ranges: &mut Vec<Range>, sequences: impl Iterator<Item = u64>) {
    for sequence in sequences.map(Sequence) {
        let is_full = ranges.len() == MAX_RANGES;
        match ranges.last_mut() {
            Some((_, last)) if last.next() == sequence => *last = sequence,
            _ if is_full => return,
            _ => ranges.push((sequence, sequence)),
        }
    }
}
