//! The parts that a log is read by: chunks and blocks, each with a checksum of its own.
//!
//! Owns walking through a log part by part, holes included, and reading parts. Does not own what is asked of them (the
//! reader does). A part that fails its checksum is told once, and from then on is a hole.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{
    Event, LogNumber, MissingRange, ReadError,
    catalogue::Catalogue,
    chunk::ChunkEntry,
    index::{Index, Piece},
    journal::JournalFile,
    segment::{Block, Damaged, RunDescriptor, RunIndex, SegmentFile, SegmentId},
};
use crate::protocol::{
    GapCause, PublicationId, Sequence, StoredPublication, Timestamp, stored_publications,
};

/// Parts that are looked up at once.
const LOOKAHEAD: usize = 64;
/// Bytes between two chunks of a journal that are rather read than asked for twice.
const NEAR: u64 = 16 << 10;

/// A part of a log.
#[derive(Clone, Debug)]
pub(crate) enum Unit {
    Chunk(ChunkEntry, Arc<JournalFile>),
    Block(Block, Arc<SegmentFile>),
    Hole(MissingRange),
}

impl Unit {
    pub(crate) fn first(&self) -> Sequence {
        match self {
            Self::Chunk(chunk, _) => chunk.first,
            Self::Block(block, _) => block.first,
            Self::Hole(range) => range.from,
        }
    }

    pub(crate) fn last(&self) -> Sequence {
        match self {
            Self::Chunk(chunk, _) => chunk.last(),
            Self::Block(block, _) => block.last,
            Self::Hole(range) => range.to,
        }
    }

    /// First and last; none of a hole.
    pub(crate) fn times(&self) -> Option<(Timestamp, Timestamp)> {
        match self {
            Self::Chunk(chunk, _) => Some((chunk.first_time, chunk.last_time)),
            Self::Block(block, _) => Some((block.first_time, block.last_time)),
            Self::Hole(_) => None,
        }
    }
}

/// What reading takes: the index, the ids in the catalogue, a cache of run indexes, and whom to tell of damage.
pub(crate) struct Source {
    pub(crate) index: Arc<Index>,
    /// None when the data log was closed: readers may live longer.
    catalogue: RwLock<Option<Arc<Catalogue>>>,
    runs: Mutex<RunCache>,
    told: Mutex<HashSet<(PathBuf, u64)>>,
    events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Source {
    pub(crate) fn new(
        index: Arc<Index>,
        catalogue: Arc<Catalogue>,
        events: Arc<dyn Fn(Event) + Send + Sync>,
    ) -> Self {
        Self {
            index,
            catalogue: RwLock::new(Some(catalogue)),
            runs: Mutex::default(),
            told: Mutex::default(),
            events,
        }
    }

    /// Lets go of the catalogue.
    pub(crate) fn close(&self) {
        self.catalogue.write().take();
    }

    #[cfg(test)]
    pub(crate) fn allow_steps(&self, steps: u64) {
        if let Some(catalogue) = &*self.catalogue.read() {
            catalogue.allow_steps(steps);
        }
    }

    /// Where the catalogue has an id that a client supplied; it may be below what the log keeps.
    pub(crate) fn sealed_id(
        &self,
        log: LogNumber,
        id: PublicationId,
    ) -> Result<Option<Sequence>, ReadError> {
        let catalogue = self.catalogue.read();
        let catalogue = catalogue
            .as_ref()
            .ok_or_else(|| ReadError::Catalogue("the data log is closed".into()))?;
        let found = catalogue.find_id(log, &id);
        found.map_err(|error| ReadError::Catalogue(error.to_string()))
    }

    /// The parts of a log that hold `from` to `through`, as far as the log goes.
    pub(crate) fn units(&self, log: LogNumber, from: Sequence, through: Sequence) -> Units<'_> {
        Units {
            source: self,
            log,
            next: from,
            through,
            ready: VecDeque::new(),
        }
    }

    /// The frames of a part, or `None` if they are damaged, which was told.
    pub(crate) fn frames(&self, unit: &Unit) -> Result<Option<Bytes>, ReadError> {
        match unit {
            Unit::Chunk(chunk, file) => {
                let group = [(*chunk, file.clone())];
                Ok(self.read_chunks(&group)?.pop().flatten())
            }
            Unit::Block(block, file) => self.undamaged(file.read_block(block)),
            Unit::Hole(_) => Ok(None),
        }
    }

    /// The id and payload length of each publication of a part, or `None` if they are damaged, which was told.
    pub(crate) fn ids(&self, unit: &Unit) -> Result<Option<Vec<(PublicationId, u32)>>, ReadError> {
        if let Unit::Block(block, file) = unit {
            let ids = self.undamaged(file.read_ids(block))?;
            return Ok(ids.map(|ids| ids.iter().map(|entry| (entry.id, entry.payload)).collect()));
        }
        Ok(self.frames(unit)?.map(|frames| ids_of(&frames)))
    }

    /// Where the blocks of a run are, or `None` if that is damaged, which was told.
    pub(crate) fn run_index(
        &self,
        run: &RunDescriptor,
        file: &SegmentFile,
    ) -> Result<Option<Arc<RunIndex>>, ReadError> {
        let key = (run.segment, run.index_offset);
        if let Some(index) = self.runs.lock().find(key) {
            return Ok(Some(index));
        }
        let index = self.undamaged(file.run_index(run))?;
        if let Some(index) = &index {
            self.runs.lock().keep(key, index.clone());
        }
        Ok(index)
    }

    /// Reads chunks of one journal that lie near each other, with one read. What is damaged is told, and `None`.
    pub(crate) fn read_chunks(
        &self,
        group: &[(ChunkEntry, Arc<JournalFile>)],
    ) -> Result<Vec<Option<Bytes>>, ReadError> {
        let (Some((first, file)), Some((last, _))) = (group.first(), group.last()) else {
            return Ok(Vec::new());
        };
        let start = u64::from(first.offset);
        let length = usize::try_from(last.end() - start).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        let readable = match file.read_at(&mut bytes, start) {
            Ok(()) => true,
            Err(error) if is_damage(&error) => false,
            Err(error) => return Err(error.into()),
        };
        let bytes = Bytes::from(bytes);
        let parts = group.iter().map(|(chunk, _)| {
            let at = (u64::from(chunk.offset) - start) as usize;
            let frames = bytes.slice(at..at + chunk.len as usize);
            if readable && crc32c::crc32c(&frames) == chunk.crc {
                return Some(frames);
            }
            let (offset, range) = (u64::from(chunk.offset), (chunk.first, chunk.last()));
            self.tell(
                file.path(),
                offset,
                &format!("publications {} to {}", range.0, range.1),
            );
            None
        });
        Ok(parts.collect())
    }

    fn undamaged<T>(&self, read: Result<T, Damaged>) -> Result<Option<T>, ReadError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(damaged) => {
                self.tell(&damaged.file.clone(), damaged.offset, &damaged.to_string());
                Ok(None)
            }
        }
    }

    /// Tells of a place that can't be read, once.
    fn tell(&self, file: &std::path::Path, offset: u64, what: &str) {
        const MOST_TOLD: usize = 10_000;
        let mut told = self.told.lock();
        if told.len() < MOST_TOLD && told.insert((file.to_owned(), offset)) {
            drop(told);
            let what = format!("{} is damaged at {offset}: {what}", file.display());
            log::error!("{what}");
            (self.events)(Event::Damage(what));
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// Whether the error says that the medium lost what was there; others may pass.
fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(libc::EIO)
}

/// The publications in frames whose checksum was right.
pub(crate) fn publications(frames: &[u8]) -> impl Iterator<Item = StoredPublication<'_>> {
    stored_publications(frames).map_while(Result::ok)
}

/// The id and payload length of each publication in `frames`.
pub(crate) fn ids_of(frames: &[u8]) -> Vec<(PublicationId, u32)> {
    stored_publications(frames)
        .map_while(Result::ok)
        .map(|publication| {
            (
                publication.publication_id(),
                publication.data().len() as u32,
            )
        })
        .collect()
}

/// Walks through a log part by part: no sequence is passed over, since what can't be had is a hole.
#[derive(Debug)]
pub(crate) struct Units<'a> {
    source: &'a Source,
    log: LogNumber,
    next: Sequence,
    through: Sequence,
    ready: VecDeque<Unit>,
}

impl Units<'_> {
    /// The next part.
    pub(crate) fn next(&mut self) -> Result<Option<Unit>, ReadError> {
        if self.ready.is_empty() {
            self.look_up()?;
        }
        Ok(self.ready.pop_front())
    }

    /// Takes the chunks that follow `chunk` and can be read with it in one go, up to about `budget` bytes in all.
    pub(crate) fn group(
        &mut self,
        chunk: ChunkEntry,
        file: Arc<JournalFile>,
        budget: usize,
    ) -> Result<Vec<(ChunkEntry, Arc<JournalFile>)>, ReadError> {
        let mut bytes = chunk.len as usize;
        let mut group = vec![(chunk, file)];
        while bytes < budget {
            if self.ready.is_empty() {
                self.look_up()?;
            }
            let (previous, _) = group[group.len() - 1];
            let follows = |chunk: &ChunkEntry| {
                chunk.generation == previous.generation
                    && (previous.end()..=previous.end() + NEAR).contains(&u64::from(chunk.offset))
            };
            let (chunk, file) = match self.ready.front() {
                Some(Unit::Chunk(chunk, file)) if follows(chunk) => (*chunk, file.clone()),
                _ => break,
            };
            self.ready.pop_front();
            bytes += chunk.len as usize;
            group.push((chunk, file));
        }
        Ok(group)
    }

    fn look_up(&mut self) -> Result<(), ReadError> {
        let index = &self.source.index;
        let found = index.pieces(self.log, self.next, LOOKAHEAD);
        let (bounds, pieces) = found.ok_or(ReadError::Gone)?;
        let through = self.through.min(bounds.last);
        self.hole_up_to(bounds.first.previous().min(through), GapCause::Retention);
        for piece in pieces {
            if piece.first() > through || self.ready.len() >= LOOKAHEAD {
                break;
            }
            self.hole_up_to(piece.first().previous(), GapCause::Damage);
            match piece {
                Piece::Chunk(chunk, file) => self.push(Unit::Chunk(chunk, file)),
                Piece::Run(run, file) => match self.source.run_index(&run, &file)? {
                    Some(index) => self.push_blocks(&index, &file, through),
                    None => self.hole_up_to(run.last.min(through), GapCause::Damage),
                },
            }
        }
        if self.ready.is_empty() {
            self.hole_up_to(through, GapCause::Damage);
        }
        Ok(())
    }

    fn push_blocks(&mut self, index: &RunIndex, file: &Arc<SegmentFile>, through: Sequence) {
        let Some(at) = index.position_of(self.next) else {
            return;
        };
        let blocks = index.blocks()[at..].iter().take(LOOKAHEAD);
        for block in blocks.take_while(|block| block.first <= through) {
            self.push(Unit::Block(*block, file.clone()));
        }
    }

    fn hole_up_to(&mut self, to: Sequence, cause: GapCause) {
        if self.next <= to {
            let from = self.next;
            self.push(Unit::Hole(MissingRange { from, to, cause }));
        }
    }

    fn push(&mut self, unit: Unit) {
        self.next = unit.last().next();
        self.ready.push_back(unit);
    }
}

/// Run indexes that were read, the least recently used of which go when they take too much memory.
#[derive(Debug, Default)]
struct RunCache {
    entries: HashMap<(SegmentId, u64), (Arc<RunIndex>, u64)>,
    memory: usize,
    uses: u64,
}

impl RunCache {
    const MEMORY: usize = 8 << 20;

    fn find(&mut self, key: (SegmentId, u64)) -> Option<Arc<RunIndex>> {
        self.uses += 1;
        let (index, used) = self.entries.get_mut(&key)?;
        *used = self.uses;
        Some(index.clone())
    }

    fn keep(&mut self, key: (SegmentId, u64), index: Arc<RunIndex>) {
        self.memory += index.memory();
        if let Some((replaced, _)) = self.entries.insert(key, (index, self.uses)) {
            self.memory -= replaced.memory();
        }
        if self.memory > Self::MEMORY {
            self.shrink();
        }
    }

    /// Lets go of the older half, so that it need not be done for each entry.
    fn shrink(&mut self) {
        let mut uses: Vec<_> = self.entries.values().map(|(_, used)| *used).collect();
        let middle = uses.len() / 2;
        let (_, &mut limit, _) = uses.select_nth_unstable(middle);
        self.entries.retain(|_, (_, used)| *used > limit);
        self.memory = self.entries.values().map(|(index, _)| index.memory()).sum();
    }
}
