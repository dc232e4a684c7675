//! Reading logs: pages, ids, places, and what retention would remove.
//!
//! Reads block, take the index's lock for moments only, and decode nothing but the fixed fields of publications. They see
//! what was written, synced or not: the caller says how far it may be shown (`through`).

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Cut, Ids, LogExtent, LogNumber, Page, ReadError,
    index::{Bounds, Piece},
    page::{PageBuilder, missing},
    units::{Source, Unit, Units, ids_of, publications},
};
use crate::protocol::{PublicationId, Retention, Sequence, Timestamp};

/// Bytes that are read at once where a caller sets no limit.
const READ_SIZE: usize = 256 << 10;
/// How many low bits of a sequence stand in the ids that the server makes.
const SEQUENCE_BITS: u32 = 24;

/// Reads logs, from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogReader {
    source: Arc<Source>,
}

impl LogReader {
    pub(crate) fn new(source: Arc<Source>) -> Self {
        Self { source }
    }

    /// Ready frames that follow `after`, up to and including `through`, of at most about `max_bytes`, but at least one.
    ///
    /// A hole right behind `after` is the page's `gap`, and the frames follow it; there may be none, with more behind: ask
    /// again. The frames themselves have no holes.
    ///
    /// # Errors
    /// If the log does not exist or can't be read. Damage is no error but a gap.
    pub fn page(
        &self,
        log: LogNumber,
        after: Sequence,
        through: Sequence,
        max_bytes: usize,
    ) -> Result<Page, ReadError> {
        let mut units = self.source.units(log, after.next(), through);
        let mut page = PageBuilder::new(after, through, max_bytes);
        while page.has_room()
            && let Some(unit) = units.next()?
        {
            for (unit, frames) in self.read(&mut units, unit, page.room())? {
                if !page.add(&unit, frames) {
                    return Ok(page.finish());
                }
            }
        }
        Ok(page.finish())
    }

    /// Ids in sequence order, at most `limit`, behind `after` and up to `through`.
    ///
    /// # Errors
    /// If the log does not exist or can't be read.
    pub fn ids(
        &self,
        log: LogNumber,
        after: Sequence,
        through: Sequence,
        limit: usize,
    ) -> Result<Ids, ReadError> {
        let mut answer = Ids {
            ids: Vec::new(),
            missing: Vec::new(),
            reached: after,
            first: self.bounds(log)?.first,
        };
        let mut units = self.source.units(log, after.next(), through);
        while answer.ids.len() < limit
            && let Some(unit) = units.next()?
        {
            for (unit, ids) in self.read_ids(&mut units, unit)? {
                let from = answer.reached.next();
                let Some(ids) = ids else {
                    let to = unit.last().min(through);
                    answer.missing.push(missing(&unit, from, to));
                    answer.reached = to;
                    continue;
                };
                let wanted = (unit.first().0..=through.0).zip(ids);
                for (sequence, (id, _)) in wanted.skip_while(|(sequence, _)| *sequence < from.0) {
                    if answer.ids.len() == limit {
                        return Ok(answer);
                    }
                    answer.ids.push(id);
                    answer.reached = Sequence(sequence);
                }
            }
        }
        Ok(answer)
    }

    /// Where each id is, if the log holds it at or below `through`.
    ///
    /// # Errors
    /// If the log does not exist or can't be read.
    pub fn find(
        &self,
        log: LogNumber,
        ids: &[PublicationId],
        through: Sequence,
    ) -> Result<Vec<Option<Sequence>>, ReadError> {
        let bounds = self.bounds(log)?;
        let kept = (bounds.first.0, bounds.last.min(through).0);
        let mut last_read = None;
        ids.iter()
            .map(|&id| {
                if let Some(sequence) = self.find_made(log, id, kept, &mut last_read)? {
                    return Ok(Some(sequence));
                }
                let found = self.find_supplied(log, id)?;
                Ok(found.filter(|sequence| (kept.0..=kept.1).contains(&sequence.0)))
            })
            .collect()
    }

    /// The first sequence whose time is `time` or later, looking up to `through`; the one behind the last looked at if none is.
    ///
    /// # Errors
    /// If the log does not exist or can't be read.
    pub fn since(
        &self,
        log: LogNumber,
        time: Timestamp,
        through: Sequence,
    ) -> Result<Sequence, ReadError> {
        let bounds = self.bounds(log)?;
        let through = through.min(bounds.last);
        let Some(piece) = self.source.index.piece_since(log, time) else {
            return Ok(through.next());
        };
        let from = piece.max(bounds.first);
        let mut units = self.source.units(log, from, through);
        while let Some(unit) = units.next()? {
            let Some((_, last)) = unit.times() else {
                continue;
            };
            if last < time {
                continue;
            }
            let Some(frames) = self.source.frames(&unit)? else {
                return Ok(unit.first().max(from));
            };
            let mut late = publications(&frames)
                .filter(|publication| publication.sequence() >= from && publication.time() >= time);
            if let Some(publication) = late.next() {
                return Ok(publication.sequence().min(through.next()));
            }
        }
        Ok(through.next())
    }

    /// What `retention` removes at `now` from a log of which `through` is the newest. `None`: nothing.
    ///
    /// # Errors
    /// If the log does not exist or can't be read.
    pub fn cut(
        &self,
        log: LogNumber,
        through: Sequence,
        retention: Retention,
        now: Timestamp,
    ) -> Result<Option<Cut>, ReadError> {
        let bounds = self.bounds(log)?;
        let end = through.min(bounds.last).next();
        let mut first = bounds.first;
        if let Some(most) = retention.max_publications {
            first = first.max(Sequence(end.0.saturating_sub(most)));
        }
        if let Some(age) = retention.max_age {
            let oldest = Timestamp(now.0.saturating_sub(age));
            first = first.max(self.since(log, oldest, through)?);
        }
        if let Some(most) = retention.max_bytes {
            let excess = self.bytes_before(log, end)?.saturating_sub(most);
            if excess > 0 {
                first = first.max(self.reached_by(log, excess)?);
            }
        }
        let first = first.min(end);
        if first <= bounds.first {
            return Ok(None);
        }
        let removed_bytes =
            self.bytes_before(log, first)? - self.bytes_before(log, bounds.first)?;
        Ok(Some(Cut {
            first,
            removed: first.0 - bounds.first.0,
            removed_bytes,
            oldest_time: self.time_of(log, first)?,
        }))
    }

    /// What the log keeps.
    pub(crate) fn extent(&self, log: LogNumber) -> Result<LogExtent, ReadError> {
        let Bounds { first, last } = self.bounds(log)?;
        let all = self.bytes_before(log, last.next())?;
        let (_, oldest) = self
            .source
            .index
            .pieces(log, first, 1)
            .ok_or(ReadError::Gone)?;
        let first_time = match oldest.first() {
            Some(Piece::Chunk(chunk, _)) if chunk.first == first => Some(chunk.first_time),
            Some(Piece::Run(run, _)) if run.first == first => Some(run.first_time),
            _ => self.time_of(log, first)?,
        };
        Ok(LogExtent {
            first,
            last,
            bytes: all - self.bytes_before(log, first)?.min(all),
            first_time: first_time.unwrap_or_default(),
            last_time: self.source.index.last_time(log).unwrap_or_default(),
        })
    }

    fn bounds(&self, log: LogNumber) -> Result<Bounds, ReadError> {
        self.source.index.bounds(log).ok_or(ReadError::Gone)
    }

    /// Reads a part, and with it what lies near it.
    fn read(
        &self,
        units: &mut Units<'_>,
        unit: Unit,
        budget: usize,
    ) -> Result<Vec<(Unit, Option<Bytes>)>, ReadError> {
        let Unit::Chunk(chunk, file) = unit else {
            let frames = self.source.frames(&unit)?;
            return Ok(vec![(unit, frames)]);
        };
        let group = units.group(chunk, file, budget)?;
        let frames = self.source.read_chunks(&group)?;
        let units = group
            .into_iter()
            .map(|(chunk, file)| Unit::Chunk(chunk, file));
        Ok(units.zip(frames).collect())
    }

    fn read_ids(&self, units: &mut Units<'_>, unit: Unit) -> Result<Vec<UnitIds>, ReadError> {
        if let Unit::Block(..) = unit {
            let ids = self.source.ids(&unit)?;
            return Ok(vec![(unit, ids)]);
        }
        let read = self.read(units, unit, READ_SIZE)?;
        let ids = read.into_iter().map(|(unit, frames)| {
            let ids = frames.map(|frames| ids_of(&frames));
            (unit, ids)
        });
        Ok(ids.collect())
    }

    /// Where an id is that has the form of those that the server makes.
    fn find_made(
        &self,
        log: LogNumber,
        id: PublicationId,
        kept: (u64, u64),
        last_read: &mut Option<UnitIds>,
    ) -> Result<Option<Sequence>, ReadError> {
        let Some((time, low)) = id.made_of() else {
            return Ok(None);
        };
        let step = 1_u64 << SEQUENCE_BITS;
        let mut candidate = (kept.0 & !(step - 1)) | u64::from(low);
        if candidate < kept.0 {
            candidate += step;
        }
        while candidate <= kept.1 {
            let sequence = Sequence(candidate);
            candidate += step;
            let holds = |unit: &Unit| unit.first() <= sequence && sequence <= unit.last();
            if !matches!(last_read, Some((unit, _)) if holds(unit)) {
                let Some(unit) = self.source.units(log, sequence, sequence).next()? else {
                    continue;
                };
                let in_time = |(first, last)| first <= time && time <= last;
                if !unit.times().is_some_and(in_time) {
                    continue;
                }
                let ids = self.source.ids(&unit)?;
                *last_read = Some((unit, ids));
            }
            if let Some((unit, Some(ids))) = last_read {
                let at = (sequence.0 - unit.first().0) as usize;
                if ids.get(at).is_some_and(|(found, _)| *found == id) {
                    return Ok(Some(sequence));
                }
            }
        }
        Ok(None)
    }

    /// Where an id is that a client supplied. Journals are asked first: what is sealed meanwhile is in the catalogue before it
    /// leaves them.
    fn find_supplied(
        &self,
        log: LogNumber,
        id: PublicationId,
    ) -> Result<Option<Sequence>, ReadError> {
        match self.source.index.unsealed_id(log, id) {
            Some(sequence) => Ok(Some(sequence)),
            None => self.source.sealed_id(log, id),
        }
    }

    /// Payload bytes in front of `sequence`, counted from the log's first piece.
    fn bytes_before(&self, log: LogNumber, sequence: Sequence) -> Result<u64, ReadError> {
        let weighed = self.source.index.weigh_before(log, sequence);
        let weighed = weighed.ok_or(ReadError::Gone)?;
        let within = match weighed.piece {
            Some(piece) if piece.first() < sequence => {
                self.entries_to(&piece, |at, _| at >= sequence)?.1
            }
            _ => 0,
        };
        Ok(weighed.before + within)
    }

    /// The first sequence that has at least `bytes` payload bytes in front of it, counted from the log's first piece.
    fn reached_by(&self, log: LogNumber, bytes: u64) -> Result<Sequence, ReadError> {
        let weighed = self.source.index.weigh_to(log, bytes);
        let weighed = weighed.ok_or(ReadError::Gone)?;
        match weighed.piece {
            Some(piece) => {
                let wanted = bytes - weighed.before;
                Ok(self.entries_to(&piece, |_, before| before >= wanted)?.0)
            }
            None => Ok(self.bounds(log)?.first),
        }
    }

    /// The first place of a piece at which `is_it` holds, told its sequence and the payload bytes in front of it; the place
    /// behind the piece if none is. What is damaged counts whole, or not at all.
    fn entries_to(
        &self,
        piece: &Piece,
        is_it: impl Fn(Sequence, u64) -> bool,
    ) -> Result<(Sequence, u64), ReadError> {
        let (unit, mut before, end) = match piece {
            Piece::Chunk(chunk, file) => {
                let end = (chunk.last().next(), u64::from(chunk.bytes));
                (Unit::Chunk(*chunk, file.clone()), 0, end)
            }
            Piece::Run(run, file) => {
                let Some(index) = self.source.run_index(run, file)? else {
                    return Ok((run.last.next(), run.bytes));
                };
                let at = index.blocks().partition_point(|block| {
                    !is_it(block.last.next(), block.bytes_before + block.bytes)
                });
                let Some(block) = index.blocks().get(at) else {
                    return Ok((run.last.next(), run.bytes));
                };
                let end = (block.last.next(), block.bytes_before + block.bytes);
                (Unit::Block(*block, file.clone()), block.bytes_before, end)
            }
        };
        let Some(ids) = self.source.ids(&unit)? else {
            return Ok(end);
        };
        for (sequence, (_, payload)) in (unit.first().0..).map(Sequence).zip(ids) {
            if is_it(sequence, before) {
                return Ok((sequence, before));
            }
            before += u64::from(payload);
        }
        Ok(end)
    }

    /// The time of a publication, or of the first one behind it that is known.
    fn time_of(&self, log: LogNumber, sequence: Sequence) -> Result<Option<Timestamp>, ReadError> {
        let last = self.bounds(log)?.last;
        let mut units = self.source.units(log, sequence, last);
        while let Some(unit) = units.next()? {
            let Some((first_time, last_time)) = unit.times() else {
                continue;
            };
            if unit.first() >= sequence || first_time == last_time {
                return Ok(Some(first_time));
            }
            let Some(frames) = self.source.frames(&unit)? else {
                continue;
            };
            let mut behind = publications(&frames).filter(|found| found.sequence() >= sequence);
            if let Some(publication) = behind.next() {
                return Ok(Some(publication.time()));
            }
        }
        Ok(None)
    }
}

type UnitIds = (Unit, Option<Vec<(PublicationId, u32)>>);
