//! The fields of one command: picked out of their map by name, and judged one by one.
//!
//! Owns ranges and the sentences about wrong fields. A field that is `null` counts as absent.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use bytes::Bytes;
use uuid::Uuid;

use super::value::{WireBytes, WireIds, WireReference, WireUuid, decode};
use crate::protocol::scan::{Excerpt, Item, Members, SeenKeys};
use crate::protocol::{
    Durability, ErrorCode, Kind, MAX_ENTRIES, MAX_TOKEN, NUMBER_LIMIT, PublicationId, Secret,
    Sequence, ServerError, SubscribeFrom, SubscriptionId, SubscriptionReference, Timestamp,
};

/// The most that `ListSubscriptions` may ask for.
const MAX_SUBSCRIPTIONS: u64 = 1_000;

const REFERENCE: &str = "a UUID, or a name of 1 to 255 bytes without control characters";

/// Why fields are no command.
#[derive(Debug)]
pub(super) enum Failure {
    /// A key stands twice in a map that the protocol defines: `malformed`.
    RepeatedKey(String),
    /// `invalid-argument`.
    Invalid(String),
}

impl Failure {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}

impl From<Failure> for ServerError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::RepeatedKey(message) => Self::new(ErrorCode::Malformed, message),
            Failure::Invalid(message) => Self::new(ErrorCode::InvalidArgument, message),
        }
    }
}

/// A command's fields, and what was learned from them.
pub(super) struct Fields<'m> {
    message: &'m Bytes,
    map: Item<'m>,
    about: Option<SubscriptionId>,
}

impl<'m> Fields<'m> {
    /// `map` is a slice of `message`.
    pub(super) fn new(message: &'m Bytes, map: Item<'m>) -> Self {
        Self {
            message,
            map,
            about: None,
        }
    }

    /// The fields that `map`, a value among these, has itself.
    pub(super) fn within(&self, map: Item<'m>) -> Self {
        Self::new(self.message, map)
    }

    /// The part of the message that `slice` of it is.
    pub(super) fn slice(&self, slice: &'m [u8]) -> Bytes {
        self.message.slice_ref(slice)
    }

    /// The fields with these names; others are ignored.
    pub(super) fn pick<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> Result<[Field<'m>; N], Failure> {
        let (fields, _unknown) = pick(self.map, "", names)?;
        Ok(fields)
    }

    /// The subscription that the command is about, which its error will name.
    pub(super) fn reference(
        &mut self,
        field: &Field<'m>,
    ) -> Result<SubscriptionReference, Failure> {
        let reference = field.required(Field::reference, REFERENCE)?;
        self.about = Some(reference.id);
        Ok(reference)
    }

    /// What [`reference`](Self::reference) found.
    pub(super) fn about(&self) -> Option<SubscriptionId> {
        self.about
    }

    /// A field of bytes: a slice of the message where it stands there in one piece.
    pub(super) fn bytes(&self, field: &Field<'m>) -> Result<Bytes, Failure> {
        self.bytes_as(field, Field::BYTES)
    }

    /// The same, called `wanted` in an error.
    pub(super) fn bytes_as(
        &self,
        field: &Field<'m>,
        wanted: &'static str,
    ) -> Result<Bytes, Failure> {
        Ok(
            match field.required(|field, item| field.bytes(item, wanted), wanted)? {
                Cow::Borrowed(slice) => self.message.slice_ref(slice),
                Cow::Owned(joined) => Bytes::from(joined),
            },
        )
    }
}

/// The fields of `map` with these names, and the first key that is none of them.
pub(super) fn pick<'m, const N: usize>(
    map: Item<'m>,
    path: &'static str,
    names: [&'static str; N],
) -> Result<([Field<'m>; N], Option<Item<'m>>), Failure> {
    let mut fields = names.map(|name| Field {
        path,
        name,
        item: None,
    });
    let mut unknown = None;
    // A known key that stands twice shows in its field, so that only unknown ones have to be remembered.
    let mut seen = None;
    for (key, value) in map.pairs().into_iter().flatten() {
        let text = key.text();
        let known = fields
            .iter_mut()
            .find(|field| text.as_deref() == Some(field.name.as_bytes()));
        let is_first = match known {
            Some(field) => field.item.replace(value).is_none(),
            None => {
                unknown = unknown.or(Some(key));
                seen.get_or_insert_with(SeenKeys::new).insert(key)
            }
        };
        if !is_first {
            return Err(repeated(key, path));
        }
    }
    Ok((fields, unknown))
}

fn repeated(key: Item<'_>, path: &str) -> Failure {
    let map = if path.is_empty() {
        "the command's fields"
    } else {
        path.trim_end_matches('.')
    };
    Failure::RepeatedKey(format!("{key} stands twice as a key in {map}"))
}

/// A field by name, present or not.
#[derive(Clone, Copy)]
pub(super) struct Field<'m> {
    /// The maps round it, each with a full stop behind.
    path: &'static str,
    name: &'static str,
    item: Option<Item<'m>>,
}

impl<'m> Field<'m> {
    const BYTES: &'static str = "a byte string";
    pub(super) const UUID: &'static str = "a UUID";
    pub(super) const NUMBER: &'static str = "an integer";
    pub(super) const BOOLEAN: &'static str = "true or false";
    pub(super) const TEXT: &'static str = "a text";
    pub(super) const TOKEN: &'static str = "a text of at most 8192 bytes";
    pub(super) const MAP: &'static str = "a map";
    pub(super) const ARRAY: &'static str = "an array";
    pub(super) const IDS: &'static str = "an array of at most 10,000 UUIDs";

    /// Whether it is there and not `null`.
    pub(super) fn is_given(&self) -> bool {
        self.given().is_some()
    }

    /// Whether it is there and `null`.
    pub(super) fn is_null(&self) -> bool {
        self.item.is_some_and(Item::is_null)
    }

    fn given(&self) -> Option<Item<'m>> {
        self.item.filter(|item| !item.is_null())
    }

    /// What `judge` makes of it, if it is given.
    pub(super) fn optional<T>(
        &self,
        judge: impl FnOnce(&Self, Item<'m>) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        self.given().map(|item| judge(self, item)).transpose()
    }

    /// What `judge` makes of it; an error that `wanted` is missing, unless it is given.
    pub(super) fn required<T>(
        &self,
        judge: impl FnOnce(&Self, Item<'m>) -> Result<T, Failure>,
        wanted: &str,
    ) -> Result<T, Failure> {
        self.optional(judge)?.ok_or_else(|| self.missing(wanted))
    }

    pub(super) fn missing(&self, wanted: &str) -> Failure {
        Failure::Invalid(format!("{self} is missing; it has to be {wanted}"))
    }

    fn wrong(&self, got: Item<'_>, wanted: impl fmt::Display) -> Failure {
        Failure::Invalid(format!("{self} is {got}, but has to be {wanted}"))
    }

    /// The map that it is, if it is given.
    pub(super) fn map(&self) -> Result<Option<Item<'m>>, Failure> {
        self.optional(Self::any_map)
    }

    pub(super) fn any_map(&self, item: Item<'m>) -> Result<Item<'m>, Failure> {
        if item.is_map() {
            Ok(item)
        } else {
            Err(self.wrong(item, Self::MAP))
        }
    }

    pub(super) fn elements(&self, item: Item<'m>) -> Result<Members<'m>, Failure> {
        item.elements().ok_or_else(|| self.wrong(item, Self::ARRAY))
    }

    pub(super) fn text(&self, item: Item<'m>) -> Result<Box<str>, Failure> {
        item.text()
            .and_then(|text| String::from_utf8(text.into_owned()).ok())
            .map(String::into_boxed_str)
            .ok_or_else(|| self.wrong(item, Self::TEXT))
    }

    /// What is wrong with it is told without a word of it.
    pub(super) fn token(&self, item: Item<'m>) -> Result<Secret, Failure> {
        item.text()
            .filter(|text| text.len() <= MAX_TOKEN)
            .and_then(|text| String::from_utf8(text.into_owned()).ok())
            .map(Secret::from)
            .ok_or_else(|| Failure::invalid(format!("{self} is not {}", Self::TOKEN)))
    }

    pub(super) fn no_key_twice(&self) -> Result<(), Failure> {
        match self.item.and_then(Item::first_repeated_key) {
            Some(key) => Err(repeated(key, self.name)),
            None => Ok(()),
        }
    }

    pub(super) fn reference(&self, item: Item<'m>) -> Result<SubscriptionReference, Failure> {
        decode(item)
            .map(|WireReference(reference)| reference)
            .ok_or_else(|| self.wrong(item, REFERENCE))
    }

    pub(super) fn uuid<T: From<Uuid>>(&self, item: Item<'m>) -> Result<T, Failure> {
        decode(item)
            .map(|WireUuid(uuid)| T::from(uuid))
            .ok_or_else(|| self.wrong(item, Self::UUID))
    }

    fn bytes(&self, item: Item<'m>, wanted: &str) -> Result<Cow<'m, [u8]>, Failure> {
        decode(item)
            .map(|WireBytes(bytes)| bytes)
            .ok_or_else(|| self.wrong(item, wanted))
    }

    /// Fails if it is given, and anything but one byte string.
    #[cfg(any(feature = "server", feature = "fuzzing"))]
    pub(super) fn only_byte_string(&self, wanted: &str) -> Result<(), Failure> {
        match self.given() {
            Some(item) if !item.is_bytes() => Err(self.wrong(item, wanted)),
            _ => Ok(()),
        }
    }

    pub(super) fn ids(&self, item: Item<'m>) -> Result<Vec<PublicationId>, Failure> {
        decode(item)
            .map(|WireIds(ids)| ids)
            .ok_or_else(|| self.wrong(item, Self::IDS))
    }

    pub(super) fn boolean(&self, item: Item<'m>) -> Result<bool, Failure> {
        decode(item).ok_or_else(|| self.wrong(item, Self::BOOLEAN))
    }

    fn number(&self, item: Item<'m>, range: RangeInclusive<u64>) -> Result<u64, Failure> {
        decode(item)
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                self.wrong(
                    item,
                    format_args!("an integer from {} to {}", range.start(), range.end()),
                )
            })
    }

    /// A number with no range of its own: a duration in milliseconds, or a count.
    pub(super) fn natural(&self, item: Item<'m>) -> Result<u64, Failure> {
        self.number(item, 0..=NUMBER_LIMIT - 1)
    }

    pub(super) fn at_least_one(&self, item: Item<'m>) -> Result<u64, Failure> {
        self.number(item, 1..=NUMBER_LIMIT - 1)
    }

    pub(super) fn sequence(&self, item: Item<'m>) -> Result<Sequence, Failure> {
        self.at_least_one(item).map(Sequence)
    }

    pub(super) fn position(&self, item: Item<'m>) -> Result<Sequence, Failure> {
        self.natural(item).map(Sequence)
    }

    pub(super) fn time(&self, item: Item<'m>) -> Result<Timestamp, Failure> {
        self.natural(item).map(Timestamp)
    }

    pub(super) fn prefetch(&self, item: Item<'m>) -> Result<u16, Failure> {
        self.number(item, 1..=u64::from(u16::MAX))
            .map(|number| number as u16)
    }

    pub(super) fn entries_limit(&self, item: Item<'m>) -> Result<usize, Failure> {
        self.number(item, 1..=MAX_ENTRIES as u64)
            .map(|number| number as usize)
    }

    pub(super) fn subscriptions_limit(&self, item: Item<'m>) -> Result<usize, Failure> {
        self.number(item, 1..=MAX_SUBSCRIPTIONS)
            .map(|number| number as usize)
    }

    pub(super) fn kind(&self, item: Item<'m>) -> Result<Kind, Failure> {
        match item.text().as_deref() {
            Some(b"Broadcast") => Ok(Kind::Broadcast),
            Some(b"Queue") => Ok(Kind::Queue),
            _ => Err(self.wrong(item, "\"Broadcast\" or \"Queue\"")),
        }
    }

    pub(super) fn durability(&self, item: Item<'m>) -> Result<Durability, Failure> {
        match item.text().as_deref() {
            Some(b"Memory") => Ok(Durability::Memory),
            Some(b"Written") => Ok(Durability::Written),
            Some(b"Synced") => Ok(Durability::Synced),
            _ => Err(self.wrong(item, "\"Memory\", \"Written\" or \"Synced\"")),
        }
    }

    pub(super) fn subscribe_from(&self, item: Item<'m>) -> Result<SubscribeFrom, Failure> {
        let inner = |name, value| Field {
            path: "from.",
            name,
            item: Some(value),
        };
        match item.text().as_deref() {
            Some(b"New") => return Ok(SubscribeFrom::New),
            Some(b"First") => return Ok(SubscribeFrom::First),
            _ => {}
        }
        if let Some((key, value)) = item.only_pair() {
            match &*key {
                b"After" => {
                    return inner("After", value)
                        .position(value)
                        .map(SubscribeFrom::After);
                }
                b"Since" => {
                    return inner("Since", value)
                        .natural(value)
                        .map(|time| SubscribeFrom::Since(Timestamp(time)));
                }
                b"Last" => return inner("Last", value).natural(value).map(SubscribeFrom::Last),
                _ => {}
            }
        }
        let wanted = "\"New\", \"First\", or a map of one pair, with the key \"After\", \"Since\" or \"Last\"";
        Err(self.wrong(item, wanted))
    }
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}{}`", self.path, self.name)
    }
}

/// The failure that the key `unknown` stands in the map at `path`, where only fields with these names can.
pub(super) fn unknown_key(unknown: Item<'_>, path: &str, names: &[&str]) -> Failure {
    let key = unknown.text();
    let shown: &dyn fmt::Display = match &key {
        Some(key) => &Excerpt(key),
        None => &unknown,
    };
    Failure::Invalid(format!(
        "`{}` has the key {shown}, but can only have {}",
        path.trim_end_matches('.'),
        names.join(", ")
    ))
}
