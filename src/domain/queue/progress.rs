//! What of a queue's log is settled, and how often the rest was delivered.
//!
//! Owns nothing for each publication that was never delivered, nor for those settled in order: two marks stand for all of these. Between
//! the marks one bit says whether a publication is settled, and only what was delivered more than once, or otherwise is not as usual, has
//! an entry of its own. What changed is told in blocks of [`BLOCK`] sequences, so that what is written down stays small, whatever was
//! settled in which order.
//!
//! ```text
//!   1 ........ settled ......................... delivered ........ last
//!     all settled      a bit for each, exceptions         never delivered
//! ```
//!
//! Invariants: `settled <= delivered`, but where the newest are settled without a delivery; nothing above `delivered` is settled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::protocol::{DeadLetterReason, Sequence};

/// Sequences of one block.
pub const BLOCK: u64 = 1024;

const WORDS: usize = BLOCK as usize / 64;

type Bits = [u64; WORDS];

/// What is not as usual with a publication that was delivered and is not settled. Usual is: delivered once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// How often it was delivered.
    pub deliveries: u32,
    /// How many of these ended with an orderly shutdown, which does not count.
    pub spared: u32,
    /// It is to be moved to the dead letters.
    pub dead: Option<DeadLetterReason>,
}

impl Exception {
    const USUAL: Self = Self {
        deliveries: 1,
        spared: 0,
        dead: None,
    };

    /// Deliveries that ended without acknowledgement, once the last one has.
    pub fn failures(&self) -> u32 {
        self.deliveries.saturating_sub(self.spared)
    }
}

/// The marks, as they are written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct QueueHead {
    /// Everything up to here is settled.
    pub settled: Sequence,
    /// Everything up to here was delivered, or is settled.
    pub delivered: Sequence,
}

/// One block, as it is written down.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct QueueBlock {
    /// One bit for each sequence, the lowest first; of those up to the mark they say nothing. Empty: none is settled.
    #[serde(default, with = "bit_bytes", skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<u8>,
    /// Place in the block, deliveries, of these spared, and 1 or 2 if it is to be moved to the dead letters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<(u16, u32, u32, u8)>,
}

/// One change of what is written down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueueChange {
    /// The marks moved.
    Head(QueueHead),
    /// A block is now this.
    Block(u64, QueueBlock),
    /// A block has nothing to be told any more.
    NoBlock(u64),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Progress {
    head: QueueHead,
    /// The number of the first of `blocks`: the one that holds the first that is not settled.
    base: u64,
    blocks: VecDeque<Block>,
    exceptions: BTreeMap<u64, Exception>,
    head_changed: bool,
    changed: BTreeSet<u64>,
    /// Blocks that are written down.
    written: BTreeSet<u64>,
}

#[derive(Debug, Default)]
enum Block {
    #[default]
    Empty,
    Some(Box<Bits>, u16),
    Full,
}

impl Block {
    fn has(&self, place: usize) -> bool {
        match self {
            Self::Empty => false,
            Self::Some(bits, _) => bits[place / 64] >> (place % 64) & 1 == 1,
            Self::Full => true,
        }
    }

    fn set(&mut self, place: usize) {
        if matches!(self, Self::Empty) {
            *self = Self::Some(Box::default(), 0);
        }
        if let Self::Some(bits, count) = self
            && bits[place / 64] >> (place % 64) & 1 == 0
        {
            bits[place / 64] |= 1 << (place % 64);
            *count += 1;
            if u64::from(*count) == BLOCK {
                *self = Self::Full;
            }
        }
    }

    /// How many from `place` on are settled without a hole.
    fn run(&self, place: usize) -> u64 {
        let bits = match self {
            Self::Empty => return 0,
            Self::Full => return BLOCK - place as u64,
            Self::Some(bits, _) => bits,
        };
        let mut at = place;
        while at < BLOCK as usize {
            // Shifted in are zeros, so a run never seems longer than its word.
            let ones = (bits[at / 64] >> (at % 64)).trailing_ones() as usize;
            at += ones;
            if ones == 0 || !at.is_multiple_of(64) {
                break;
            }
        }
        (at - place) as u64
    }
}

fn block_of(sequence: u64) -> u64 {
    sequence / BLOCK
}

fn place_of(sequence: u64) -> usize {
    (sequence % BLOCK) as usize
}

impl Progress {
    /// What a restart found of a log that keeps `first` to `last`. Where that does not fit what was written down, the log counts: what
    /// was removed is settled, and nothing is said of what is not there.
    pub fn restored(
        head: QueueHead,
        blocks: impl IntoIterator<Item = (u64, QueueBlock)>,
        first: Sequence,
        last: Sequence,
    ) -> Self {
        let clamped = QueueHead {
            settled: head.settled.max(first.previous()).min(last),
            delivered: head.delivered.max(first.previous()).min(last),
        };
        let mut progress = Self {
            head: clamped,
            base: block_of(clamped.settled.0 + 1),
            head_changed: head != clamped,
            ..Self::default()
        };
        for (number, block) in blocks {
            progress.written.insert(number);
            progress.changed.insert(number);
            progress.restore_block(number, &block);
        }
        progress.advance();
        if !progress.head_changed {
            // Only what is to be corrected is written again.
            let through = block_of(progress.head.delivered.0);
            let base = progress.base;
            progress
                .changed
                .retain(|number| *number < base || *number > through);
        }
        progress
    }

    fn restore_block(&mut self, number: u64, block: &QueueBlock) {
        let open = self.head.settled.0 + 1..self.head.delivered.0 + 1;
        let begin = number * BLOCK;
        for (place, byte) in block.settled.iter().take(WORDS * 8).enumerate() {
            let mut byte = *byte;
            while byte != 0 {
                let sequence = begin + place as u64 * 8 + u64::from(byte.trailing_zeros());
                byte &= byte - 1;
                if open.contains(&sequence) {
                    self.set(sequence);
                }
            }
        }
        for &(place, deliveries, spared, dead) in &block.exceptions {
            let sequence = begin + u64::from(place);
            if open.contains(&sequence) && !self.is_settled(sequence) {
                let dead = DeadLetterReason::from_number(dead);
                let exception = Exception {
                    deliveries,
                    spared,
                    dead,
                };
                self.exceptions.insert(sequence, exception);
            }
        }
    }

    /// Everything up to here is settled.
    pub fn settled(&self) -> Sequence {
        self.head.settled
    }

    /// Everything up to here was delivered, or is settled.
    pub fn delivered(&self) -> Sequence {
        self.head.delivered
    }

    /// Whether a publication is settled.
    pub fn is_settled(&self, sequence: u64) -> bool {
        sequence <= self.head.settled.0
            || block_of(sequence)
                .checked_sub(self.base)
                .and_then(|place| self.blocks.get(place as usize))
                .is_some_and(|block| block.has(place_of(sequence)))
    }

    /// What was delivered and is not settled.
    pub fn open(&self) -> impl Iterator<Item = u64> {
        // Whole blocks of settled ones are passed at once.
        let last = self.head.delivered.0;
        let mut at = self.head.settled.0 + 1;
        std::iter::from_fn(move || {
            while at <= last {
                let block = block_of(at)
                    .checked_sub(self.base)
                    .and_then(|place| self.blocks.get(place as usize));
                match block.map_or(0, |block| block.run(place_of(at))) {
                    0 => {
                        at += 1;
                        return Some(at - 1);
                    }
                    run => at += run,
                }
            }
            None
        })
    }

    /// How a publication that was delivered and is not settled stands.
    pub fn exception(&self, sequence: u64) -> Exception {
        let exception = self.exceptions.get(&sequence);
        exception.copied().unwrap_or(Exception::USUAL)
    }

    /// The next that was never delivered is delivered now.
    pub fn deliver_next(&mut self) -> u64 {
        self.head.delivered = self.head.delivered.next();
        self.head_changed = true;
        self.head.delivered.0
    }

    /// Notes how a publication that was delivered and is not settled stands.
    pub fn except(&mut self, sequence: u64, exception: Exception) {
        if exception == Exception::USUAL {
            self.exceptions.remove(&sequence);
        } else {
            self.exceptions.insert(sequence, exception);
        }
        self.changed.insert(block_of(sequence));
    }

    /// Settles a publication. Whatever is above `delivered` in front of it has to be settled already, or with it.
    pub fn settle(&mut self, sequence: u64) {
        if self.is_settled(sequence) {
            return;
        }
        if !self.exceptions.is_empty() && self.exceptions.remove(&sequence).is_some() {
            self.changed.insert(block_of(sequence));
        }
        if sequence > self.head.delivered.0 {
            self.head.delivered = Sequence(sequence);
            self.head_changed = true;
        }
        if sequence == self.head.settled.0 + 1 && self.blocks.is_empty() {
            // The usual way: nothing was settled out of order.
            self.head.settled = Sequence(sequence);
            self.head_changed = true;
            self.base = block_of(sequence + 1);
            return;
        }
        self.set(sequence);
        self.changed.insert(block_of(sequence));
        self.advance();
    }

    fn set(&mut self, sequence: u64) {
        let place = (block_of(sequence) - self.base) as usize;
        if self.blocks.len() <= place {
            self.blocks.resize_with(place + 1, Block::default);
        }
        self.blocks[place].set(place_of(sequence));
    }

    /// Moves the mark over what is settled behind it.
    fn advance(&mut self) {
        loop {
            let next = self.head.settled.0 + 1;
            while self.base < block_of(next) {
                self.blocks.pop_front();
                self.base += 1;
                if self.blocks.is_empty() {
                    self.base = block_of(next);
                }
            }
            let run = self
                .blocks
                .front()
                .map_or(0, |block| block.run(place_of(next)));
            if run == 0 {
                return;
            }
            self.head.settled = Sequence(self.head.settled.0 + run);
            self.head_changed = true;
        }
    }

    /// Whether anything is to be written down.
    pub fn has_changed(&self) -> bool {
        self.head_changed || !self.changed.is_empty()
    }

    /// What is to be written down since the last time.
    pub fn take_changes(&mut self) -> Vec<QueueChange> {
        let mut changes = Vec::new();
        if std::mem::take(&mut self.head_changed) {
            changes.push(QueueChange::Head(self.head));
            // What the mark has passed needs no block.
            let passed = self.written.range(..self.base).copied();
            self.changed.extend(passed);
        }
        for number in std::mem::take(&mut self.changed) {
            match self.block(number) {
                Some(block) => {
                    self.written.insert(number);
                    changes.push(QueueChange::Block(number, block));
                }
                None if self.written.remove(&number) => {
                    changes.push(QueueChange::NoBlock(number));
                }
                None => {}
            }
        }
        changes
    }

    /// The blocks that are written down: they go with the queue.
    pub fn written(&self) -> impl Iterator<Item = u64> {
        self.written.iter().copied()
    }

    fn block(&self, number: u64) -> Option<QueueBlock> {
        let begin = number * BLOCK;
        let exceptions: Vec<_> = self
            .exceptions
            .range(begin..begin + BLOCK)
            .map(|(sequence, exception)| {
                let dead = exception.dead.map_or(0, DeadLetterReason::number);
                let place = place_of(*sequence) as u16;
                (place, exception.deliveries, exception.spared, dead)
            })
            .collect();
        let block = number
            .checked_sub(self.base)
            .and_then(|place| self.blocks.get(place as usize));
        let settled = match block {
            None | Some(Block::Empty) => Vec::new(),
            Some(Block::Full) => vec![0xff; WORDS * 8],
            Some(Block::Some(bits, _)) => bits.iter().flat_map(|word| word.to_le_bytes()).collect(),
        };
        (!settled.is_empty() || !exceptions.is_empty()).then_some(QueueBlock {
            settled,
            exceptions,
        })
    }
}

/// A byte string, where serde would make an array of numbers.
mod bit_bytes {
    use serde::{Deserializer, Serializer, de::Visitor};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}
