//! The log of a Memory subscription: its newest publications, in memory.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::{Cut, Ids, MissingRange, Page, ReadLog};
use crate::protocol::{GapCause, PublicationId, Retention, Sequence, StoredPublication, Timestamp};

/// Publications in memory, oldest first, without holes.
#[derive(Debug, Default)]
pub struct MemoryLog {
    entries: VecDeque<Entry>,
    /// Ids that clients supplied; those that the server made are found by their sequence.
    supplied: HashMap<PublicationId, Sequence, foldhash::fast::RandomState>,
    /// The sequence of the newest that was removed.
    removed: Sequence,
    payload_bytes: u64,
    frame_bytes: u64,
    /// Bytes of frames ever added.
    added_bytes: u64,
}

#[derive(Debug)]
struct Entry {
    id: PublicationId,
    time: Timestamp,
    data_len: u32,
    frame: Bytes,
    /// Bytes of frames ever added, with this one.
    added_bytes: u64,
}

impl MemoryLog {
    /// Adds the newest publication; its sequence follows the one before.
    pub fn push(&mut self, publication: &StoredPublication<'_>) {
        let (id, time, sequence) = (
            publication.publication_id(),
            publication.time(),
            publication.sequence(),
        );
        debug_assert_eq!(sequence, self.last().next());
        if !id.is_made_for(time, sequence) {
            self.supplied.insert(id, sequence);
        }
        self.added_bytes += publication.frame().len() as u64;
        let entry = Entry {
            id,
            time,
            data_len: publication.data().len() as u32,
            frame: Bytes::copy_from_slice(publication.frame()),
            added_bytes: self.added_bytes,
        };
        self.payload_bytes += u64::from(entry.data_len);
        self.frame_bytes += entry.frame.len() as u64;
        self.entries.push_back(entry);
    }

    /// The newest, or the position that it would follow.
    pub fn last(&self) -> Sequence {
        Sequence(self.removed.0 + self.entries.len() as u64)
    }

    /// The oldest kept; one behind the newest if none is.
    pub fn first(&self) -> Sequence {
        self.removed.next()
    }

    /// Bytes of payload kept.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Removes what `retention` does not keep at `now`; where it sets no limit at all, what is over `capacity` bytes of frames.
    /// Nothing behind `through` is removed.
    pub fn retain(
        &mut self,
        retention: Retention,
        capacity: u64,
        now: Timestamp,
        through: Sequence,
    ) -> Option<Cut> {
        let unlimited = retention == Retention::default();
        let before = (self.removed, self.payload_bytes);
        while let Some(oldest) = self.entries.front() {
            let over = |limit: Option<u64>, has: u64| limit.is_some_and(|limit| has > limit);
            if self.removed >= through {
                break;
            }
            if !(over(retention.max_publications, self.entries.len() as u64)
                || over(retention.max_bytes, self.payload_bytes)
                || over(retention.max_age, now.0.saturating_sub(oldest.time.0))
                || unlimited && self.frame_bytes > capacity && self.entries.len() > 1)
            {
                break;
            }
            self.remove_oldest();
        }
        (self.removed != before.0).then(|| Cut {
            first: self.first(),
            removed: self.removed.0 - before.0.0,
            removed_bytes: before.1 - self.payload_bytes,
            oldest_time: self.entries.front().map(|entry| entry.time),
        })
    }

    /// Bytes of frames kept behind `through`.
    pub fn frame_bytes_behind(&self, through: Sequence) -> u64 {
        let place = through.0.checked_sub(self.removed.0 + 1);
        match place.and_then(|place| self.entries.get(place as usize)) {
            Some(entry) => self.added_bytes - entry.added_bytes,
            None if place.is_some() => 0,
            None => self.frame_bytes,
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.removed = self.removed.next();
            self.payload_bytes -= u64::from(entry.data_len);
            self.frame_bytes -= entry.frame.len() as u64;
            if self.supplied.get(&entry.id) == Some(&self.removed) {
                self.supplied.remove(&entry.id);
            }
        }
    }

    /// As the data log's `page`.
    pub fn page(&self, after: Sequence, through: Sequence, max_bytes: usize) -> Page {
        let from = after.max(self.removed);
        let gap = (from > after).then_some(MissingRange {
            from: after.next(),
            to: from,
            cause: GapCause::Retention,
        });
        let (mut frames, mut last) = (BytesMut::new(), from);
        for entry in self.behind(from, through) {
            if !frames.is_empty() && frames.len() + entry.frame.len() > max_bytes {
                break;
            }
            frames.extend_from_slice(&entry.frame);
            last = last.next();
        }
        Page {
            gap,
            frames: frames.freeze(),
            first: from.next(),
            last,
        }
    }

    /// Where the publication with this id is.
    pub fn find(&self, id: PublicationId) -> Option<Sequence> {
        if let Some(sequence) = self.supplied.get(&id) {
            return Some(*sequence);
        }
        let (time, low) = id.made_of()?;
        let begin = self.entries.partition_point(|entry| entry.time < time);
        self.entries
            .range(begin..)
            .zip(begin as u64..)
            .take_while(|(entry, _)| entry.time == time)
            .map(|(entry, place)| (entry, Sequence(self.removed.0 + place + 1)))
            .find(|(entry, sequence)| sequence.0 & 0xff_ffff == u64::from(low) && entry.id == id)
            .map(|(_, sequence)| sequence)
    }

    /// The first published at `time` or later; one behind the newest if none was.
    pub fn since(&self, time: Timestamp) -> Sequence {
        let place = self.entries.partition_point(|entry| entry.time < time);
        Sequence(self.removed.0 + place as u64 + 1)
    }

    fn behind(&self, after: Sequence, through: Sequence) -> impl Iterator<Item = &Entry> {
        let begin = (after.0 - self.removed.0).min(self.entries.len() as u64) as usize;
        let end = through
            .0
            .saturating_sub(self.removed.0)
            .min(self.entries.len() as u64) as usize;
        self.entries.range(begin..end.max(begin))
    }
}

impl ReadLog for MemoryLog {
    type Error = std::convert::Infallible;

    fn page(
        &self,
        after: Sequence,
        through: Sequence,
        max_bytes: usize,
    ) -> Result<Page, Self::Error> {
        Ok(Self::page(self, after, through, max_bytes))
    }

    fn ids(&self, after: Sequence, through: Sequence, limit: usize) -> Result<Ids, Self::Error> {
        let from = after.max(self.removed);
        let ids: Vec<_> = self
            .behind(from, through)
            .take(limit)
            .map(|entry| entry.id)
            .collect();
        let reached = Sequence(from.0 + ids.len() as u64);
        Ok(Ids {
            ids,
            missing: Vec::new(),
            reached,
            first: self.first(),
        })
    }

    fn find(
        &self,
        ids: &[PublicationId],
        _: Sequence,
    ) -> Result<Vec<Option<Sequence>>, Self::Error> {
        Ok(ids.iter().map(|id| Self::find(self, *id)).collect())
    }
}
