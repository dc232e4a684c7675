//! The items of a message that was scanned: looked at where they stand, never decoded as a whole.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use super::cursor::{ARRAY, BREAK, BYTES, Cursor, Head, MAP, NEGATIVE, NULL, TAG, TEXT, UNSIGNED};

/// One well-formed data item of a message that was scanned.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::protocol) struct Item<'m> {
    bytes: &'m [u8],
}

impl<'m> Item<'m> {
    /// The whole of `bytes`, which is one well-formed item.
    pub(super) fn new(bytes: &'m [u8]) -> Self {
        Self { bytes }
    }

    pub(in crate::protocol) const EMPTY_MAP: Item<'static> = Item { bytes: &[0xa0] };

    /// The item's bytes without the tags in front.
    pub(in crate::protocol) fn untagged_bytes(self) -> &'m [u8] {
        let mut cursor = self.cursor();
        let mut start = 0;
        while cursor.peek().is_some_and(|byte| byte >> 5 == TAG) && cursor.head().is_ok() {
            start = cursor.at();
        }
        &self.bytes[start..]
    }

    pub(in crate::protocol) fn is_null(self) -> bool {
        self.untagged_bytes() == [NULL]
    }

    #[cfg(any(feature = "server", feature = "fuzzing"))]
    pub(in crate::protocol) fn is_bytes(self) -> bool {
        self.cursor()
            .untagged_head()
            .is_ok_and(|head| head.major == BYTES)
    }

    pub(in crate::protocol) fn is_map(self) -> bool {
        self.pairs().is_some()
    }

    /// The pairs, if it is a map.
    pub(in crate::protocol) fn pairs(self) -> Option<impl Iterator<Item = (Item<'m>, Item<'m>)>> {
        let mut members = self.members(MAP)?;
        Some(std::iter::from_fn(move || {
            Some((members.next()?, members.next()?))
        }))
    }

    /// The value of the one pair with a text key that it is, if it is a map of that.
    pub(in crate::protocol) fn only_pair(self) -> Option<(Cow<'m, [u8]>, Item<'m>)> {
        let mut pairs = self.pairs()?;
        let (key, value) = pairs.next()?;
        if pairs.next().is_some() {
            return None;
        }
        Some((key.text()?, value))
    }

    /// The content, if it is a text; not necessarily UTF-8.
    pub(in crate::protocol) fn text(self) -> Option<Cow<'m, [u8]>> {
        self.string(TEXT)
    }

    /// The first key that stands in this map, if it is one, a second time.
    pub(in crate::protocol) fn first_repeated_key(self) -> Option<Item<'m>> {
        let mut seen = SeenKeys::new();
        self.pairs()?
            .map(|(key, _)| key)
            .find(|key| !seen.insert(*key))
    }

    /// The elements, if it is an array.
    pub(in crate::protocol) fn elements(self) -> Option<Members<'m>> {
        self.members(ARRAY)
    }

    pub(super) fn unsigned(self) -> Option<u64> {
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
        Cursor::new(self.bytes)
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
pub(in crate::protocol) struct Excerpt<'a>(pub(in crate::protocol) &'a [u8]);

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
pub(in crate::protocol) struct Members<'m> {
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
        let start = self.cursor.at();
        // The scan has passed it, so this never fails.
        self.cursor.skip_item(0).ok()?;
        Some(Item {
            bytes: self.cursor.since(start),
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
pub(in crate::protocol) struct SeenKeys<'m> {
    few: [Key<'m>; FEW_KEYS],
    count: usize,
    many: HashSet<Key<'m>>,
}

impl<'m> SeenKeys<'m> {
    pub(in crate::protocol) fn new() -> Self {
        Self {
            few: std::array::from_fn(|_| Key::Unsigned(0)),
            count: 0,
            many: HashSet::new(),
        }
    }

    /// `false` if it was there.
    pub(in crate::protocol) fn insert(&mut self, key: Item<'m>) -> bool {
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
