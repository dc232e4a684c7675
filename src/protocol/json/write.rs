//! From CBOR to JSON.
//!
//! One pass over the bytes, in their order, which nothing has to have judged before. Compact: no blank stands between two tokens, so that a
//! publication's sequence is found at a fixed place.

use std::{borrow::Cow, fmt::Write};

use base64::{Engine, encoded_len, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, BytesMut};
use uuid::Uuid;

use crate::protocol::scan::cursor::{
    ARRAY, BREAK, BYTES, Cursor, MAP, MAX_NESTING, NEGATIVE, NULL, TEXT, UNSIGNED,
};

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

/// Adds the JSON of the one item that `item` is; `None`, with part of it added, if that has none.
pub(super) fn put(out: &mut BytesMut, item: &[u8]) -> Option<()> {
    let mut cursor = Cursor::new(item);
    put_item(out, &mut cursor, 0, false)?;
    (cursor.at() == item.len()).then_some(())
}

/// `depth` arrays and maps stand round the item. A byte string is data if it stands where data does, and else a UUID.
fn put_item(
    out: &mut BytesMut,
    cursor: &mut Cursor<'_>,
    depth: usize,
    is_data: bool,
) -> Option<()> {
    let head = cursor.untagged_head().ok()?;
    if matches!(head.major, ARRAY | MAP) && depth == MAX_NESTING {
        return None;
    }
    match (head.major, head.argument) {
        (UNSIGNED, Some(number)) => write!(out, "{number}").ok()?,
        (NEGATIVE, Some(number)) => write!(out, "{}", -1 - i128::from(number)).ok()?,
        (BYTES, len) => {
            let bytes = string(cursor, len)?;
            if is_data {
                put_bytes(out, &bytes);
            } else {
                put_uuid(out, Uuid::from_slice(&bytes).ok()?);
            }
        }
        (TEXT, len) => put_text(out, std::str::from_utf8(&string(cursor, len)?).ok()?),
        (ARRAY, len) => {
            out.put_u8(b'[');
            put_members(out, cursor, len, |out, cursor| {
                put_item(out, cursor, depth + 1, false)
            })?;
            out.put_u8(b']');
        }
        (MAP, len) => {
            out.put_u8(b'{');
            put_members(out, cursor, len, |out, cursor| {
                put_pair(out, cursor, depth + 1)
            })?;
            out.put_u8(b'}');
        }
        _ => out.put_slice(match cursor.since_head(head) {
            [FALSE] => b"false",
            [TRUE] => b"true",
            [NULL] => b"null",
            _ => return None,
        }),
    }
    Some(())
}

fn put_pair(out: &mut BytesMut, cursor: &mut Cursor<'_>, depth: usize) -> Option<()> {
    let head = cursor.untagged_head().ok()?;
    if head.major != TEXT {
        return None;
    }
    let key = string(cursor, head.argument)?;
    put_text(out, std::str::from_utf8(&key).ok()?);
    out.put_u8(b':');
    put_item(out, cursor, depth, super::holds_data(&key))
}

/// So many members, or as many as stand in front of a break.
fn put_members(
    out: &mut BytesMut,
    cursor: &mut Cursor<'_>,
    count: Option<u64>,
    mut put_member: impl FnMut(&mut BytesMut, &mut Cursor<'_>) -> Option<()>,
) -> Option<()> {
    let mut done = 0;
    loop {
        match count {
            Some(count) if done == count => return Some(()),
            None if cursor.peek() == Some(BREAK) => return cursor.take(1).ok().map(|_| ()),
            _ => {}
        }
        if done > 0 {
            out.put_u8(b',');
        }
        put_member(out, cursor)?;
        done += 1;
    }
}

/// The content of a string whose head was read.
fn string<'m>(cursor: &mut Cursor<'m>, len: Option<u64>) -> Option<Cow<'m, [u8]>> {
    if let Some(len) = len {
        return cursor.take(len).ok().map(Cow::Borrowed);
    }
    let mut joined = Vec::new();
    while cursor.peek() != Some(BREAK) {
        let len = cursor.head().ok()?.argument?;
        joined.extend_from_slice(cursor.take(len).ok()?);
    }
    cursor.take(1).ok()?;
    Some(Cow::Owned(joined))
}

fn put_uuid(out: &mut BytesMut, uuid: Uuid) {
    let mut text = Uuid::encode_buffer();
    out.put_u8(b'"');
    out.put_slice(uuid.as_hyphenated().encode_lower(&mut text).as_bytes());
    out.put_u8(b'"');
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    let len =
        encoded_len(bytes.len(), false).expect("invariant: a message is far below usize::MAX");
    out.reserve(len + 2);
    out.put_u8(b'"');
    let begin = out.len();
    out.put_bytes(0, len);
    URL_SAFE_NO_PAD
        .encode_slice(bytes, &mut out[begin..])
        .expect("invariant: there is room for the whole text");
    out.put_u8(b'"');
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.reserve(text.len() + 2);
    out.put_u8(b'"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.put_slice(&text.as_bytes()[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.put_slice(br#"\""#),
            b'\\' => out.put_slice(br"\\"),
            b'\n' => out.put_slice(br"\n"),
            b'\r' => out.put_slice(br"\r"),
            b'\t' => out.put_slice(br"\t"),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.put_slice(br"\u00");
                out.put_u8(DIGITS[usize::from(control >> 4)]);
                out.put_u8(DIGITS[usize::from(control & 0xf)]);
            }
        }
    }
    out.put_slice(&text.as_bytes()[plain..]);
    out.put_u8(b'"');
}
