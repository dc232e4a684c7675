//! The types of fields (protocol, section 2), decoded with serde_cbor.
//!
//! Every type has a wrapper here with the one visitor method for each encoding that it accepts, and no other: what serde
//! would take besides (numbers as enum variants, floats, packed structs) is not in the protocol.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use uuid::Uuid;

use crate::protocol::scan::Item;
use crate::protocol::{MAX_ENTRIES, PublicationId, SubscriptionId, SubscriptionReference};

/// The one value that `item` is, if it is a `T`.
pub(super) fn decode<'m, T: Deserialize<'m>>(item: Item<'m>) -> Option<T> {
    let mut deserializer = serde_cbor::Deserializer::from_slice(item.untagged_bytes())
        .disable_packed_format()
        .disable_legacy_enums();
    T::deserialize(&mut deserializer).ok()
}

/// A UUID: 16 bytes, or the 36-character text form.
pub(super) struct WireUuid(pub(super) Uuid);

impl<'de> Deserialize<'de> for WireUuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UuidVisitor).map(Self)
    }
}

struct UuidVisitor;

impl Visitor<'_> for UuidVisitor {
    type Value = Uuid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Uuid, E> {
        Uuid::from_slice(bytes).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Uuid, E> {
        hyphenated(text).ok_or_else(|| E::custom("no UUID"))
    }
}

/// The UUID that `text` is in the 36-character form, the only one of its text forms that the protocol knows.
fn hyphenated(text: &str) -> Option<Uuid> {
    if text.len() != uuid::fmt::Hyphenated::LENGTH {
        return None;
    }
    Uuid::try_parse(text).ok()
}

/// A UUID, or a name.
pub(super) struct WireReference(pub(super) SubscriptionReference);

impl<'de> Deserialize<'de> for WireReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReferenceVisitor).map(Self)
    }
}

struct ReferenceVisitor;

impl Visitor<'_> for ReferenceVisitor {
    type Value = SubscriptionReference;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID or a name")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<SubscriptionReference, E> {
        let id = SubscriptionId(UuidVisitor.visit_bytes(bytes)?);
        Ok(SubscriptionReference { id, name: None })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SubscriptionReference, E> {
        text.parse().map_err(E::custom)
    }
}

/// A byte string, borrowed where it stands in one piece, or an array of integers 0 to 255.
pub(super) struct WireBytes<'m>(pub(super) Cow<'m, [u8]>);

impl<'de> Deserialize<'de> for WireBytes<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(BytesVisitor(PhantomData))
            .map(Self)
    }
}

struct BytesVisitor<'m>(PhantomData<&'m ()>);

impl<'de> Visitor<'de> for BytesVisitor<'de> {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // The scan has seen every element, so the hint is no more than the message is long.
        let mut bytes = Vec::with_capacity(seq.size_hint().unwrap_or(0));
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(Cow::Owned(bytes))
    }
}

/// An array of at most [`MAX_ENTRIES`] different UUIDs; each is kept where it stands first.
pub(super) struct WireIds(pub(super) Vec<PublicationId>);

impl<'de> Deserialize<'de> for WireIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdsVisitor).map(Self)
    }
}

struct IdsVisitor;

impl<'de> Visitor<'de> for IdsVisitor {
    type Value = Vec<PublicationId>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of UUIDs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut ids = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(MAX_ENTRIES));
        let mut seen = HashSet::with_capacity_and_hasher(
            ids.capacity(),
            foldhash::fast::RandomState::default(),
        );
        while let Some(WireUuid(uuid)) = seq.next_element()? {
            if !seen.insert(uuid) {
                continue;
            }
            if ids.len() == MAX_ENTRIES {
                return Err(A::Error::custom("too many"));
            }
            ids.push(PublicationId(uuid));
        }
        Ok(ids)
    }
}
