//! One bounded pass over a client message: well-formedness, nesting, envelope; and the items of a message that passed it.
//!
//! Owns what `malformed` means, but for duplicate keys, which only matter where the fields are known
//! ([`codec`](super::codec) asks [`Item::first_repeated_key`]). Does not own what the fields mean.
//!
//! Tags are skipped wherever they stand, in front of the envelope's items and of keys too, as serde_cbor does where values
//! are decoded: a client may put the self-described tag (55799) in front of everything it sends.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use super::{NUMBER_LIMIT, RequestId};

/// Arrays, maps and tags that may stand round an item. The scan recurses as deep, and no deeper.
pub(super) const MAX_NESTING: usize = 64;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const BREAK: u8 = 0xff;
const NULL: u8 = 0xf6;

/// Why a message is no command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the CBOR item ends too early, at byte {0}")]
    Truncated(usize),
    #[error("the CBOR is not well-formed at byte {0}")]
    IllFormed(usize),
    #[error("arrays, maps and tags are nested deeper than {MAX_NESTING} levels at byte {0}")]
    Nested(usize),
    #[error("bytes follow the CBOR item, from byte {0} on")]
    Trailing(usize),
    #[error(
        "the message is neither a command nor an array of a request id below 2^53 and a command"
    )]
    NoCommand,
}

/// What stands round a command's fields.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Envelope<'m> {
    pub(super) request_id: Option<RequestId>,
    pub(super) command: Cow<'m, str>,
    /// A map.
    pub(super) fields: Item<'m>,
}

/// The envelope of the one command that `message` is. On failure also the request id, if the message begins as an array
/// of two with a valid one.
pub(super) fn scan(message: &[u8]) -> Result<Envelope<'_>, (Option<RequestId>, Malformed)> {
    let mut cursor = Cursor {
        bytes: message,
        at: 0,
    };
    cursor
        .skip_item(0)
        .map_err(|malformed| (begun_request_id(message), malformed))?;
    if cursor.at < message.len() {
        return Err((begun_request_id(message), Malformed::Trailing(cursor.at)));
    }
    envelope(Item { bytes: message })
        .ok_or_else(|| (begun_request_id(message), Malformed::NoCommand))
}

fn envelope(message: Item<'_>) -> Option<Envelope<'_>> {
    let (request_id, command) = match message.elements() {
        None => (None, message),
        Some(mut elements) => {
            let (id, command) = (elements.next()?, elements.next()?);
            if elements.next().is_some() {
                return None;
            }
            (Some(request_id(id.unsigned()?)?), command)
        }
    };
    let (name, fields) = match command.pairs() {
        None => (command, Item::EMPTY_MAP),
        Some(mut pairs) => {
            let (name, fields) = pairs.next()?;
            // A command is a map of one pair, the name to a *map* of its fields: anything else is no command at all.
            if pairs.next().is_some() || !fields.is_map() {
                return None;
            }
            (name, fields)
        }
    };
    let command = match name.text()? {
        Cow::Borrowed(name) => Cow::Borrowed(std::str::from_utf8(name).ok()?),
        Cow::Owned(name) => Cow::Owned(String::from_utf8(name).ok()?),
    };
    Some(Envelope {
        request_id,
        command,
        fields,
    })
}

fn request_id(number: u64) -> Option<RequestId> {
    (number < NUMBER_LIMIT).then_some(RequestId(number))
}

/// The request id of a broken message, if it begins as an array of two with a valid id. An array of indefinite length that
/// breaks off counts as one of two as long as it may still be one.
fn begun_request_id(message: &[u8]) -> Option<RequestId> {
    let mut cursor = Cursor {
        bytes: message,
        at: 0,
    };
    let array = cursor.untagged_head().ok()?;
    if array.major != ARRAY || array.argument.is_some_and(|len| len != 2) {
        return None;
    }
    let id = cursor.untagged_head().ok()?;
    if id.major != UNSIGNED {
        return None;
    }
    let id = request_id(id.argument?)?;
    if array.argument.is_none() {
        if cursor.peek() == Some(BREAK) {
            return None;
        }
        if cursor.skip_item(1).is_ok() && cursor.peek().is_some_and(|byte| byte != BREAK) {
            return None;
        }
    }
    Some(id)
}

/// One well-formed data item of a message that was scanned.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Item<'m> {
    bytes: &'m [u8],
}

impl<'m> Item<'m> {
    pub(super) const EMPTY_MAP: Item<'static> = Item { bytes: &[0xa0] };

    /// The item's bytes without the tags in front.
    pub(super) fn untagged_bytes(self) -> &'m [u8] {
        let mut cursor = self.cursor();
        let mut start = 0;
        while cursor.peek().is_some_and(|byte| byte >> 5 == TAG) && cursor.head().is_ok() {
            start = cursor.at;
        }
        &self.bytes[start..]
    }

    pub(super) fn is_null(self) -> bool {
        self.untagged_bytes() == [NULL]
    }

    pub(super) fn is_map(self) -> bool {
        self.pairs().is_some()
    }

    /// The pairs, if it is a map.
    pub(super) fn pairs(self) -> Option<impl Iterator<Item = (Item<'m>, Item<'m>)>> {
        let mut members = self.members(MAP)?;
        Some(std::iter::from_fn(move || {
            Some((members.next()?, members.next()?))
        }))
    }

    /// The value of the one pair with a text key that it is, if it is a map of that.
    pub(super) fn only_pair(self) -> Option<(Cow<'m, [u8]>, Item<'m>)> {
        let mut pairs = self.pairs()?;
        let (key, value) = pairs.next()?;
        if pairs.next().is_some() {
            return None;
        }
        Some((key.text()?, value))
    }

    /// The content, if it is a text; not necessarily UTF-8.
    pub(super) fn text(self) -> Option<Cow<'m, [u8]>> {
        self.string(TEXT)
    }

    /// The first key that stands in this map, if it is one, a second time.
    pub(super) fn first_repeated_key(self) -> Option<Item<'m>> {
        let mut seen = SeenKeys::new();
        self.pairs()?
            .map(|(key, _)| key)
            .find(|key| !seen.insert(*key))
    }

    fn elements(self) -> Option<Members<'m>> {
        self.members(ARRAY)
    }

    fn unsigned(self) -> Option<u64> {
        let head = self.cursor().untagged_head().ok()?;
        if head.major == UNSIGNED {
            head.argument
        } else {
            None
        }
    }

    fn members(self, major: u8) -> Option<Members<'m>> {
        let mut cursor = self.cursor();
        let head = cursor.untagged_head().ok()?;
        let per_entry = if major == MAP { 2 } else { 1 };
        let left = head
            .argument
            .map(|entries| entries.saturating_mul(per_entry));
        (head.major == major).then_some(Members { cursor, left })
    }

    fn string(self, major: u8) -> Option<Cow<'m, [u8]>> {
        let mut cursor = self.cursor();
        let head = cursor.untagged_head().ok()?;
        if head.major != major {
            return None;
        }
        if let Some(len) = head.argument {
            return cursor.take(len).ok().map(Cow::Borrowed);
        }
        let mut joined = Vec::new();
        while cursor.peek() != Some(BREAK) {
            let len = cursor.head().ok()?.argument?;
            joined.extend_from_slice(cursor.take(len).ok()?);
        }
        Some(Cow::Owned(joined))
    }

    fn key(self) -> Key<'m> {
        let Ok(head) = self.cursor().untagged_head() else {
            return Key::Other(self.bytes);
        };
        match (head.major, head.argument) {
            (UNSIGNED, Some(number)) => Key::Unsigned(number),
            (NEGATIVE, Some(number)) => Key::Negative(number),
            (BYTES, _) => self
                .string(BYTES)
                .map_or(Key::Other(self.bytes), Key::Bytes),
            (TEXT, _) => self.string(TEXT).map_or(Key::Other(self.bytes), Key::Text),
            _ => Key::Other(self.untagged_bytes()),
        }
    }

    fn cursor(self) -> Cursor<'m> {
        Cursor {
            bytes: self.bytes,
            at: 0,
        }
    }
}

/// What a person is told that a field got: never long, whatever the client sent.
impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(Head {
            major, argument, ..
        }) = self.cursor().untagged_head()
        else {
            return f.write_str("no item");
        };
        match (major, argument) {
            (UNSIGNED, Some(number)) => write!(f, "the number {number}"),
            (NEGATIVE, Some(number)) => write!(f, "the number {}", -1 - i128::from(number)),
            (BYTES, Some(len)) => write!(f, "a byte string of length {len}"),
            (BYTES, None) => f.write_str("a byte string"),
            (TEXT, _) => write!(f, "the text {}", Excerpt(&self.text().unwrap_or_default())),
            (ARRAY, Some(len)) => write!(f, "an array of length {len}"),
            (ARRAY, None) => f.write_str("an array"),
            (MAP, _) => f.write_str("a map"),
            _ => f.write_str(match self.untagged_bytes() {
                [0xf4] => "false",
                [0xf5] => "true",
                [NULL] => "null",
                [0xf7] => "undefined",
                [0xf9..=0xfb, ..] => "a floating point number",
                _ => "a simple value",
            }),
        }
    }
}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The beginning of a client's text, quoted, without control characters.
pub(super) struct Excerpt<'a>(pub(super) &'a [u8]);

impl Excerpt<'_> {
    const CHARACTERS: usize = 40;
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A character has at most four bytes, so a longer prefix tells no more.
        let prefix = &self.0[..self.0.len().min(Self::CHARACTERS * 4 + 4)];
        let text = String::from_utf8_lossy(prefix);
        let mut characters = text.chars();
        f.write_str("\"")?;
        for character in characters.by_ref().take(Self::CHARACTERS) {
            write!(f, "{}", character.escape_debug())?;
        }
        f.write_str(if characters.next().is_some() {
            "…\""
        } else {
            "\""
        })
    }
}

/// The elements of an array, or the keys and values of a map in turn.
struct Members<'m> {
    cursor: Cursor<'m>,
    /// `None` until a break.
    left: Option<u64>,
}

impl<'m> Iterator for Members<'m> {
    type Item = Item<'m>;

    fn next(&mut self) -> Option<Item<'m>> {
        match &mut self.left {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None if self.cursor.peek() == Some(BREAK) => return None,
            None => {}
        }
        let start = self.cursor.at;
        // The scan has passed it, so this never fails.
        self.cursor.skip_item(0).ok()?;
        Some(Item {
            bytes: &self.cursor.bytes[start..self.cursor.at],
        })
    }
}

/// A key in a form in which two encodings of the same are equal.
#[derive(PartialEq, Eq, Hash)]
enum Key<'m> {
    Unsigned(u64),
    Negative(u64),
    Bytes(Cow<'m, [u8]>),
    Text(Cow<'m, [u8]>),
    /// Keys that no client of this protocol has a reason to send are compared as encoded.
    Other(&'m [u8]),
}

/// The keys that are compared one by one: more than any map of the protocol has fields.
const FEW_KEYS: usize = 16;

/// The keys of one map: few are compared one by one without allocating, many are hashed.
pub(super) struct SeenKeys<'m> {
    few: [Key<'m>; FEW_KEYS],
    count: usize,
    many: HashSet<Key<'m>>,
}

impl<'m> SeenKeys<'m> {
    pub(super) fn new() -> Self {
        Self {
            few: std::array::from_fn(|_| Key::Unsigned(0)),
            count: 0,
            many: HashSet::new(),
        }
    }

    /// `false` if it was there.
    pub(super) fn insert(&mut self, key: Item<'m>) -> bool {
        let key = key.key();
        if self.few[..self.count].contains(&key) {
            return false;
        }
        if self.count < FEW_KEYS {
            self.few[self.count] = key;
            self.count += 1;
            return true;
        }
        self.many.insert(key)
    }
}

/// The first byte of an item and its argument.
#[derive(Clone, Copy)]
struct Head {
    /// Where it stands.
    at: usize,
    major: u8,
    /// `None` is an indefinite length, or (of [`SIMPLE`]) a break.
    argument: Option<u64>,
}

#[derive(Clone, Copy)]
struct Cursor<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl<'m> Cursor<'m> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, len: u64) -> Result<&'m [u8], Malformed> {
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

    fn head(&mut self) -> Result<Head, Malformed> {
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
    fn untagged_head(&mut self) -> Result<Head, Malformed> {
        loop {
            let head = self.head()?;
            if head.major != TAG {
                return Ok(head);
            }
        }
    }

    /// Goes behind one item, which stands inside `depth` arrays, maps and tags.
    fn skip_item(&mut self, depth: usize) -> Result<(), Malformed> {
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

#[cfg(test)]
mod tests;
