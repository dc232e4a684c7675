//! Putting a page together from the parts of a log that it is read by.

use bytes::{Bytes, BytesMut};

use super::{
    MissingRange, Page,
    units::{Unit, publications},
};
use crate::protocol::{GapCause, Sequence};

/// Puts a page together.
pub(crate) struct PageBuilder {
    through: Sequence,
    max_bytes: usize,
    gap: Option<MissingRange>,
    parts: Vec<Bytes>,
    bytes: usize,
    first: Sequence,
    reached: Sequence,
}

impl PageBuilder {
    pub(crate) fn new(after: Sequence, through: Sequence, max_bytes: usize) -> Self {
        Self {
            through,
            max_bytes,
            gap: None,
            parts: Vec::new(),
            bytes: 0,
            first: after.next(),
            reached: after,
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.reached < self.through && (self.parts.is_empty() || self.bytes < self.max_bytes)
    }

    pub(crate) fn room(&self) -> usize {
        self.max_bytes.saturating_sub(self.bytes)
    }

    /// Adds a part, as far as there is room. False: the page ends here.
    pub(crate) fn add(&mut self, unit: &Unit, frames: Option<Bytes>) -> bool {
        let from = self.reached.next();
        let Some(frames) = frames else {
            if self.gap.is_some() || !self.parts.is_empty() {
                return false;
            }
            let to = unit.last().min(self.through);
            self.gap = Some(missing(unit, from, to));
            self.first = to.next();
            self.reached = to;
            return true;
        };
        let whole = unit.first() == from && unit.last() <= self.through;
        if whole && (frames.len() <= self.room() || unit.first() == unit.last()) {
            if frames.len() > self.room() && !self.parts.is_empty() {
                return false;
            }
            self.bytes += frames.len();
            self.parts.push(frames);
            self.reached = unit.last();
            return true;
        }
        self.add_some(from, &frames)
    }

    fn add_some(&mut self, from: Sequence, frames: &Bytes) -> bool {
        let mut start = 0;
        let mut end = 0;
        let mut all = true;
        for publication in publications(frames) {
            let (sequence, length) = (publication.sequence(), publication.frame().len());
            if sequence < from {
                start += length;
                end = start;
                continue;
            }
            let is_first = self.parts.is_empty() && end == start;
            if sequence > self.through || !(is_first || end - start + length <= self.room()) {
                all = false;
                break;
            }
            end += length;
            self.reached = sequence;
        }
        if end > start {
            self.bytes += end - start;
            self.parts.push(frames.slice(start..end));
        }
        all
    }

    pub(crate) fn finish(mut self) -> Page {
        let frames = match self.parts.len() {
            0 | 1 => self.parts.pop().unwrap_or_default(),
            _ => {
                let mut joined = BytesMut::with_capacity(self.bytes);
                for part in &self.parts {
                    joined.extend_from_slice(part);
                }
                joined.freeze()
            }
        };
        Page {
            gap: self.gap,
            frames,
            first: self.first,
            last: self.reached,
        }
    }
}

/// What is told where a part can't be had.
pub(crate) fn missing(unit: &Unit, from: Sequence, to: Sequence) -> MissingRange {
    let cause = match unit {
        Unit::Hole(range) => range.cause,
        _ => GapCause::Damage,
    };
    MissingRange { from, to, cause }
}
