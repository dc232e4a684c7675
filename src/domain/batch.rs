//! The unit of commit: records, and the effects that wait for them.
//!
//! A [`Batch`] is filled by one command after the other; [`Batch::seal`] makes it ready to be written. Its invariants:
//!
//! * records and effects keep the order in which they came, but an effect that waits for the write only may pass one that waits for
//!   the sync: [`Staging`] sees to it that no two effects about one subscription do;
//! * publications of one subscription that follow each other are one [`Chunk`], shared by all who get it. A chunk is closed at
//!   64 KiB, and by everything that has its place in the subscription's stream (`Subscribed`, `Unsubscribed`, `Deleted`).

use std::{collections::HashMap, ops::Range};

use bytes::Bytes;

use super::{Chunk, ConnectionId, Delivery, Effect, LogNumber, MAX_WORKERS, QueueDelivery, Record};
use crate::protocol::{Durability, Publication, Sequence, SubscriptionId};

/// A chunk that has grown to this is closed: it bounds what one page, and one half-written item of an outbox, is.
const CHUNK_SIZE: usize = 64 * 1024;

/// The most effects that room is made for before they come: a vector that grows copies them again and again.
const MAX_EXPECTED: usize = 512;

/// The most bytes that room is made for in a chunk before they come. What is not used stays taken as long as anybody has the chunk.
const MAX_EXPECTED_BYTES: usize = 8 * 1024;

/// What a chunk takes in the journal beside its frames, at most (see [`Record::encoded_len`]).
const CHUNK_HEAD: u64 = 128;

/// A set of workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Workers(u64);

impl Workers {
    /// The worker that owns `connection`.
    pub fn of(connection: ConnectionId) -> Self {
        Self(1 << connection.worker())
    }

    /// With `worker` in it.
    #[must_use]
    pub fn with(self, worker: usize) -> Self {
        debug_assert!(worker < MAX_WORKERS);
        Self(self.0 | 1 << worker)
    }

    /// Those of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let worker = left.trailing_zeros() as usize;
            left &= left.checked_sub(1)?;
            Some(worker)
        })
    }
}

/// What a subscription remembers of the batch that it last was in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Staging {
    /// The batch whose effects about the subscription all wait for the sync, from here on.
    synced_in: u64,
    /// The batch in which its last effect travels through the log, for a Memory subscription.
    logged_in: u64,
    /// The chunk that may still grow: batch, level at which it is released, place in the batch.
    open: Option<(u64, Durability, u32)>,
    /// What the last chunk has grown to: the next one may as well.
    grown: u32,
}

impl Staging {
    /// From here on, effects about the subscription in `batch` wait for its sync: state was changed.
    pub fn wait_for_sync(&mut self, batch: &Batch) {
        self.synced_in = batch.number;
        self.logged_in = batch.number;
    }

    /// Effects of a Memory subscription follow what `batch` brings.
    pub fn travel_with(&mut self, batch: &Batch) {
        self.logged_in = batch.number;
    }

    /// The next publication begins a chunk: something has its place in front of it.
    pub fn close_chunk(&mut self) {
        self.open = None;
    }

    /// Whether a Memory subscription's effects must still travel through the log, so as not to pass earlier ones.
    pub fn is_logged_after(&self, committed: u64) -> bool {
        self.logged_in > committed
    }

    /// The level at which effects about the subscription in `batch` are released.
    pub fn level(&self, batch: &Batch, durability: Durability) -> Durability {
        if self.synced_in == batch.number {
            Durability::Synced
        } else {
            durability
        }
    }
}

/// A batch that is being filled.
#[derive(Debug)]
pub struct Batch {
    number: u64,
    steps: Vec<Step>,
    staged: Vec<Staged>,
    chunks: Vec<ChunkBuilder>,
    deliveries: Vec<DeliveryBuilder>,
    /// The delivery that may still grow.
    open_deliveries: HashMap<DeliveryKey, u32, foldhash::fast::RandomState>,
    size: u64,
    needs_sync: bool,
}

/// Where a publication stands in a batch that is being filled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    chunk: u32,
    range: Range<usize>,
}

/// What a delivery of a Queue grows by as long as it stays the same: who gets it, of which log, in which part of its stream, and when.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DeliveryKey {
    /// Who gets it.
    pub connection: ConnectionId,
    /// Of which log.
    pub log: LogNumber,
    /// A number that changes whenever something has its place in the subscription's stream.
    pub part: u32,
    /// When it is released.
    pub level: Durability,
}

#[derive(Debug)]
struct DeliveryBuilder {
    connection: ConnectionId,
    subscription: SubscriptionId,
    log: LogNumber,
    publications: Vec<(FrameSource, u32)>,
}

/// Where the frame of a delivery is.
#[derive(Clone, Debug)]
pub enum FrameSource {
    /// It was read from the log.
    Read(Bytes),
    /// It is published with the same batch.
    Placed(Placed),
}

#[derive(Debug)]
enum Step {
    Record(Record),
    Chunk(u32),
}

#[derive(Debug)]
struct Staged {
    level: Durability,
    workers: Workers,
    what: StagedEffect,
}

#[derive(Debug)]
enum StagedEffect {
    Effect(Effect),
    Chunk(u32),
    Deliver(u32),
}

#[derive(Debug)]
struct ChunkBuilder {
    subscription: SubscriptionId,
    log: LogNumber,
    first: Sequence,
    last: Sequence,
    frames: Vec<u8>,
}

impl ChunkBuilder {
    fn freeze(self) -> (SubscriptionId, Chunk) {
        let Self {
            subscription,
            log,
            first,
            last,
            frames,
        } = self;
        (
            subscription,
            Chunk {
                log,
                first,
                last,
                frames: Bytes::from(frames),
            },
        )
    }
}

impl DeliveryBuilder {
    fn freeze(self, chunks: &[(SubscriptionId, Chunk)]) -> QueueDelivery {
        let Self {
            connection,
            subscription,
            log,
            publications,
        } = self;
        let frame = |source| match source {
            FrameSource::Read(frame) => frame,
            FrameSource::Placed(Placed { chunk, range }) => {
                chunks[chunk as usize].1.frames.slice(range)
            }
        };
        QueueDelivery {
            connection,
            subscription,
            log,
            publications: publications
                .into_iter()
                .map(|(source, delivery)| (frame(source), delivery))
                .collect(),
        }
    }
}

impl Batch {
    /// An empty batch. Numbers grow, from 1.
    pub fn new(number: u64) -> Self {
        Self {
            number,
            steps: Vec::new(),
            staged: Vec::new(),
            chunks: Vec::new(),
            deliveries: Vec::new(),
            open_deliveries: HashMap::default(),
            size: 0,
            needs_sync: false,
        }
    }

    /// An empty batch in its place, with room for what is expected after it: as much as before.
    pub fn take(&mut self, next: u64) -> Self {
        let expected = self.staged.len().min(MAX_EXPECTED);
        let next = Self {
            staged: Vec::with_capacity(expected),
            ..Self::new(next)
        };
        std::mem::replace(self, next)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.staged.is_empty()
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The most bytes that it takes in the journal.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a change of state, which is synced before what waits for the sync is released.
    pub fn record(&mut self, record: Record) {
        self.needs_sync = true;
        self.size += record.encoded_len();
        self.steps.push(Step::Record(record));
    }

    /// Adds a change of state that nothing waits for but what [`require_sync`](Self::require_sync) is called for.
    pub fn note(&mut self, record: Record) {
        self.size += record.encoded_len();
        self.steps.push(Step::Record(record));
    }

    /// What waits for the sync waits for one.
    pub fn require_sync(&mut self) {
        self.needs_sync = true;
    }

    /// Adds an effect for one connection.
    pub fn effect(&mut self, level: Durability, effect: Effect) {
        let connection = effect
            .connection()
            .expect("invariant: an effect for one connection");
        self.effect_for(level, Workers::of(connection), effect);
    }

    /// Adds an effect for `workers`.
    pub fn effect_for(&mut self, level: Durability, workers: Workers, effect: Effect) {
        if !workers.is_empty() {
            self.staged.push(Staged {
                level,
                workers,
                what: StagedEffect::Effect(effect),
            });
        }
    }

    /// Adds a publication to its subscription's open chunk, or to a new one. It is written unless its durability is `Memory`, and goes
    /// to `workers` when `level` is reached. Returns where its [`frame`](Self::frame) stands.
    pub fn publish(
        &mut self,
        staging: &mut Staging,
        log: LogNumber,
        publication: &Publication<'_>,
        level: Durability,
        workers: Workers,
        is_written: bool,
    ) -> Placed {
        let place = match staging.open {
            Some((batch, open_level, place))
                if (batch, open_level) == (self.number, level)
                    && self.chunks[place as usize].frames.len() < CHUNK_SIZE =>
            {
                place
            }
            _ => {
                let place = self.chunks.len() as u32;
                self.chunks.push(ChunkBuilder {
                    subscription: publication.subscription_id,
                    log,
                    first: publication.sequence,
                    last: publication.sequence,
                    frames: Vec::with_capacity(
                        MAX_EXPECTED_BYTES
                            .min(staging.grown as usize)
                            .max(publication.encoded_len()),
                    ),
                });
                if is_written {
                    self.size += CHUNK_HEAD;
                    self.steps.push(Step::Chunk(place));
                }
                self.staged.push(Staged {
                    level,
                    workers,
                    what: StagedEffect::Chunk(place),
                });
                staging.open = Some((self.number, level, place));
                place
            }
        };
        let chunk = &mut self.chunks[place as usize];
        let before = chunk.frames.len();
        publication.encode_into(&mut chunk.frames);
        chunk.last = publication.sequence;
        staging.grown = chunk.frames.len() as u32;
        if is_written {
            self.size += (chunk.frames.len() - before) as u64;
            self.needs_sync |= level == Durability::Synced;
        }
        Placed {
            chunk: place,
            range: before..chunk.frames.len(),
        }
    }

    /// The frame of a publication of this batch.
    pub fn frame(&self, placed: &Placed) -> &[u8] {
        &self.chunks[placed.chunk as usize].frames[placed.range.clone()]
    }

    /// Adds a publication of a Queue for the connection that has it on lease now. Its frame, if it is of this batch, is released no earlier
    /// than the delivery.
    pub fn deliver(
        &mut self,
        key: DeliveryKey,
        subscription: SubscriptionId,
        frame: FrameSource,
        delivery: u32,
    ) {
        let place = *self.open_deliveries.entry(key).or_insert_with(|| {
            let place = self.deliveries.len() as u32;
            self.deliveries.push(DeliveryBuilder {
                connection: key.connection,
                subscription,
                log: key.log,
                publications: Vec::new(),
            });
            self.staged.push(Staged {
                level: key.level,
                workers: Workers::of(key.connection),
                what: StagedEffect::Deliver(place),
            });
            place
        });
        let publications = &mut self.deliveries[place as usize].publications;
        publications.push((frame, delivery));
    }

    /// The batch as it is written and released.
    pub fn seal(self) -> SealedBatch {
        let chunks: Vec<_> = self.chunks.into_iter().map(ChunkBuilder::freeze).collect();
        let (mut publications, mut publication_bytes) = (0, 0);
        for (_, chunk) in &chunks {
            publications += chunk.last.0 + 1 - chunk.first.0;
            publication_bytes += chunk.frames.len() as u64;
        }
        let records = self
            .steps
            .into_iter()
            .map(|step| match step {
                Step::Record(record) => record,
                Step::Chunk(place) => Record::Publications(chunks[place as usize].1.clone()),
            })
            .collect();
        let mut deliveries: Vec<_> = self.deliveries.into_iter().map(Some).collect();
        let waits = |staged: &&Staged| staged.level == Durability::Synced;
        let waiting = self.staged.iter().filter(waits).count();
        let mut at_sync = Vec::with_capacity(waiting);
        let mut at_write = Vec::with_capacity(self.staged.len() - waiting);
        for Staged {
            level,
            workers,
            what,
        } in self.staged
        {
            let effect = match what {
                StagedEffect::Effect(effect) => effect,
                StagedEffect::Deliver(place) => {
                    let delivery = deliveries[place as usize]
                        .take()
                        .expect("invariant: it is staged once");
                    Effect::Deliver(Box::new(delivery.freeze(&chunks)))
                }
                StagedEffect::Chunk(_) if workers.is_empty() => continue,
                StagedEffect::Chunk(place) => {
                    let (subscription, chunk) = chunks[place as usize].clone();
                    Effect::Publications(Delivery {
                        subscription,
                        chunk,
                        json: None,
                    })
                }
            };
            let released = if level == Durability::Synced {
                &mut at_sync
            } else {
                &mut at_write
            };
            released.push((workers, effect));
        }
        SealedBatch {
            number: self.number,
            records,
            at_write,
            at_sync,
            needs_sync: self.needs_sync,
            size: self.size,
            publications,
            publication_bytes,
        }
    }
}

/// A batch as it is written and released.
#[derive(Debug)]
pub struct SealedBatch {
    /// Batches are written in the order of their numbers.
    pub number: u64,
    /// What is written, in order.
    pub records: Vec<Record>,
    /// What is released when the operating system has the records.
    pub at_write: Vec<(Workers, Effect)>,
    /// What is released when they are synced; if the batch needs no sync, behind the former.
    pub at_sync: Vec<(Workers, Effect)>,
    /// Whether anything in it waits for the sync.
    pub needs_sync: bool,
    /// The most bytes that it takes in the journal.
    pub size: u64,
    /// How many publications are in it, those that are not written included.
    pub publications: u64,
    /// Bytes of their frames.
    pub publication_bytes: u64,
}
