//! One bounded pass over a client message: well-formedness, nesting, envelope; and the items of a message that passed it.
//!
//! Owns what `malformed` means, but for duplicate keys, which only matter where the fields are known
//! ([`codec`](super::codec) asks [`SeenKeys`]). Does not own what the fields mean.
//!
//! Tags are skipped wherever they stand, in front of the envelope's items and of keys too, as serde_cbor does where values
//! are decoded: a client may put the self-described tag (55799) in front of everything it sends.

pub(super) mod cursor;
mod item;

use std::borrow::Cow;

use cursor::{ARRAY, BREAK, Cursor, MAP, MAX_NESTING, TEXT, UNSIGNED};
pub(super) use item::{Excerpt, Item, Members, SeenKeys};

use super::{NUMBER_LIMIT, RequestId};

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
    if let Some(envelope) = plain_envelope(message) {
        return Ok(envelope);
    }
    only_item(message)
        .and_then(|item| envelope(item).ok_or(Malformed::NoCommand))
        .map_err(|malformed| (begun_request_id(message), malformed))
}

/// The one well-formed item that `bytes` is.
pub(super) fn only_item(bytes: &[u8]) -> Result<Item<'_>, Malformed> {
    let mut cursor = Cursor::new(bytes);
    cursor.skip_item(0)?;
    if cursor.at() < bytes.len() {
        return Err(Malformed::Trailing(cursor.at()));
    }
    Ok(Item::new(bytes))
}

/// What nearly every client sends, `[id, {name: fields}]` or `{name: fields}` without tags and indefinite lengths round
/// the fields, is judged while it is scanned: one pass instead of three. `None` says nothing about the message.
fn plain_envelope(message: &[u8]) -> Option<Envelope<'_>> {
    let mut cursor = Cursor::new(message);
    let (request_id, command) = begin_plain(&mut cursor)?;
    let start = cursor.at();
    if cursor.peek()? >> 5 != MAP {
        return None;
    }
    let depth = if request_id.is_some() { 2 } else { 1 };
    cursor.skip_item(depth).ok()?;
    (cursor.at() == message.len()).then(|| Envelope {
        request_id,
        command: Cow::Borrowed(command),
        fields: Item::new(cursor.since(start)),
    })
}

/// The request id and the command's name, in front of the fields, if the message begins so. `None` says nothing about it.
pub(super) fn begin_plain<'m>(cursor: &mut Cursor<'m>) -> Option<(Option<RequestId>, &'m str)> {
    let mut head = cursor.head().ok()?;
    let mut id = None;
    if (head.major, head.argument) == (ARRAY, Some(2)) {
        let number = cursor.head().ok()?;
        if number.major != UNSIGNED {
            return None;
        }
        id = Some(request_id(number.argument?)?);
        head = cursor.head().ok()?;
    }
    if (head.major, head.argument) != (MAP, Some(1)) {
        return None;
    }
    let name = cursor.head().ok()?;
    if name.major != TEXT {
        return None;
    }
    let command = std::str::from_utf8(cursor.take(name.argument?).ok()?).ok()?;
    Some((id, command))
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
pub(super) fn begun_request_id(message: &[u8]) -> Option<RequestId> {
    let mut cursor = Cursor::new(message);
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

#[cfg(test)]
mod tests;
