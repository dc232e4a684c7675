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

mod delivering;
mod leases;
mod progress;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

pub use progress::{BLOCK, Exception, Progress, QueueBlock, QueueChange, QueueHead};

use super::ConnectionId;
use crate::protocol::{DeadLetterReason, PublicationId, Sequence};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What a read of the log for a queue brings, in bytes: enough to feed many subscribers, little enough for many queues.
pub const LOAD_SIZE: usize = 128 << 10;

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
    /// Where the next read of the dead begins.
    moves_from: u64,
    /// The next read brings the dead before the others.
    moves_first: bool,
    /// Read from the log, and not leased.
    loaded: BTreeMap<u64, Loaded>,
    loaded_bytes: usize,
    /// What lies behind `delivered` is loaded up to here.
    loaded_through: Sequence,
    /// A read of the log is under way.
    is_loading: bool,
    /// A read failed: none is tried until then.
    loads_pause: Option<u64>,
    /// Up to here the log can be read, and may be shown.
    readable: Sequence,
    members: Map<ConnectionId, Member>,
    /// How many members there ever were.
    joined: u64,
    /// Members who have room, in turn, each once. Some may have none any more.
    turns: VecDeque<ConnectionId>,
    prefetch: u64,
    in_flight: u64,
    /// No lease ends by itself before.
    check_at: u64,
    /// Leases are not looked at before, though some may have ended.
    check_from: u64,
}

#[derive(Debug)]
struct Loaded {
    id: PublicationId,
    frame: Bytes,
}

#[derive(Debug)]
struct Member {
    /// The number of its membership.
    joined: u64,
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
            moves_from: 0,
            moves_first: false,
            loaded: BTreeMap::new(),
            loaded_bytes: 0,
            is_loading: false,
            loads_pause: None,
            readable: last,
            members: Map::default(),
            joined: 0,
            turns: VecDeque::new(),
            prefetch: 0,
            in_flight: 0,
            check_at: u64::MAX,
            check_from: 0,
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
    /// A connection subscribes from now on, or with another prefetch. Returns the number of its membership.
    pub fn subscribe(&mut self, connection: ConnectionId, prefetch: u16) -> u64 {
        let next = self.joined + 1;
        let member = self.members.entry(connection).or_insert_with(|| Member {
            joined: next,
            prefetch: 0,
            leases: Map::default(),
            leased: 0,
            written: 0,
            has_turn: false,
        });
        self.prefetch += u64::from(prefetch);
        self.prefetch -= u64::from(member.prefetch);
        member.prefetch = prefetch;
        let joined = member.joined;
        self.joined = self.joined.max(joined);
        self.give_turn(connection);
        joined
    }

    /// A connection subscribes no longer: its leases end. With `spare`, since the server stops in order.
    pub fn unsubscribe(&mut self, connection: ConnectionId, spare: bool) {
        let Some(member) = self.members.remove(&connection) else {
            return;
        };
        self.prefetch -= u64::from(member.prefetch);
        self.in_flight -= member.leases.len() as u64;
        let end = if spare { End::Spared } else { End::Failed };
        if member.has_turn {
            self.turns.retain(|one| *one != connection);
        }
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

    /// So many bytes of what was leased in a membership were written to the socket.
    pub fn written(&mut self, connection: ConnectionId, joined: u64, bytes: u64) {
        if let Some(member) = self.members.get_mut(&connection)
            && member.joined == joined
        {
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
