//! What is well-formed (RFC 8949, section 3 and appendix C), and how deep it may be nested.

use super::Malformed;

/// Arrays, maps and tags that may stand round an item. The scan recurses as deep, and no deeper.
pub(in crate::protocol) const MAX_NESTING: usize = 64;

// The major types.
pub(in crate::protocol) const UNSIGNED: u8 = 0;
pub(in crate::protocol) const NEGATIVE: u8 = 1;
pub(in crate::protocol) const BYTES: u8 = 2;
pub(in crate::protocol) const TEXT: u8 = 3;
pub(in crate::protocol) const ARRAY: u8 = 4;
pub(in crate::protocol) const MAP: u8 = 5;
pub(in crate::protocol) const TAG: u8 = 6;
const SIMPLE: u8 = 7;

pub(in crate::protocol) const BREAK: u8 = 0xff;
pub(in crate::protocol) const NULL: u8 = 0xf6;

/// The first byte of an item and its argument.
#[derive(Clone, Copy)]
pub(in crate::protocol) struct Head {
    /// Where it stands.
    at: usize,
    pub(in crate::protocol) major: u8,
    /// `None` is an indefinite length, or (of [`SIMPLE`]) a break.
    pub(in crate::protocol) argument: Option<u64>,
}

/// A place in a message.
#[derive(Clone, Copy)]
pub(in crate::protocol) struct Cursor<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl<'m> Cursor<'m> {
    pub(in crate::protocol) fn new(bytes: &'m [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(in crate::protocol) fn at(&self) -> usize {
        self.at
    }

    /// What it went over since it was at `start`.
    pub(in crate::protocol) fn since(&self, start: usize) -> &'m [u8] {
        &self.bytes[start..self.at]
    }

    /// What it went over since it was in front of `head`.
    #[cfg(any(feature = "server", feature = "fuzzing"))]
    pub(in crate::protocol) fn since_head(&self, head: Head) -> &'m [u8] {
        self.since(head.at)
    }

    pub(in crate::protocol) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(in crate::protocol) fn take(&mut self, len: u64) -> Result<&'m [u8], Malformed> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let taken = taken.ok_or(Malformed::Truncated(self.bytes.len()))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn take_number<const N: usize>(&mut self) -> Result<u64, Malformed> {
        let mut number = [0; 8];
        number[8 - N..].copy_from_slice(self.take(N as u64)?);
        Ok(u64::from_be_bytes(number))
    }

    pub(in crate::protocol) fn head(&mut self) -> Result<Head, Malformed> {
        let at = self.at;
        let first = self.peek().ok_or(Malformed::Truncated(at))?;
        self.at += 1;
        let (major, additional) = (first >> 5, first & 0x1f);
        let argument = match additional {
            0..=23 => Some(u64::from(additional)),
            24 => Some(self.take_number::<1>()?),
            25 => Some(self.take_number::<2>()?),
            26 => Some(self.take_number::<4>()?),
            27 => Some(self.take_number::<8>()?),
            31 if !matches!(major, UNSIGNED | NEGATIVE | TAG) => None,
            _ => return Err(Malformed::IllFormed(at)),
        };
        // A simple value has one encoding only: those below 32 do not take a second byte.
        if major == SIMPLE && additional == 24 && argument.is_some_and(|value| value < 32) {
            return Err(Malformed::IllFormed(at));
        }
        Ok(Head {
            at,
            major,
            argument,
        })
    }

    /// The head of what stands behind any tags.
    pub(in crate::protocol) fn untagged_head(&mut self) -> Result<Head, Malformed> {
        loop {
            let head = self.head()?;
            if head.major != TAG {
                return Ok(head);
            }
        }
    }

    /// Goes behind one item, which stands inside `depth` arrays, maps and tags.
    pub(in crate::protocol) fn skip_item(&mut self, depth: usize) -> Result<(), Malformed> {
        let head = self.head()?;
        if matches!(head.major, ARRAY | MAP | TAG) && depth == MAX_NESTING {
            return Err(Malformed::Nested(head.at));
        }
        match (head.major, head.argument) {
            (UNSIGNED | NEGATIVE, _) | (SIMPLE, Some(_)) => Ok(()),
            (BYTES | TEXT, Some(len)) => self.take(len).map(|_| ()),
            (BYTES | TEXT, None) => self.skip_chunks(head.major),
            (ARRAY, Some(len)) => self.skip_items(len, depth + 1),
            (MAP, Some(pairs)) => self.skip_items(pairs.saturating_mul(2), depth + 1),
            (ARRAY, None) => self.skip_until_break(1, depth + 1),
            (MAP, None) => self.skip_until_break(2, depth + 1),
            (TAG, _) => self.skip_item(depth + 1),
            _ => Err(Malformed::IllFormed(head.at)),
        }
    }

    fn skip_chunks(&mut self, major: u8) -> Result<(), Malformed> {
        while self.peek() != Some(BREAK) {
            let chunk = self.head()?;
            match chunk.argument {
                Some(len) if chunk.major == major => self.take(len)?,
                _ => return Err(Malformed::IllFormed(chunk.at)),
            };
        }
        self.at += 1;
        Ok(())
    }

    fn skip_items(&mut self, count: u64, depth: usize) -> Result<(), Malformed> {
        for _ in 0..count {
            self.skip_item(depth)?;
        }
        Ok(())
    }

    /// Goes behind the break of an array or map. An entry is `per_entry` items, all of which have to be there.
    fn skip_until_break(&mut self, per_entry: u64, depth: usize) -> Result<(), Malformed> {
        while self.peek() != Some(BREAK) {
            self.skip_items(per_entry, depth)?;
        }
        self.at += 1;
        Ok(())
    }
}
