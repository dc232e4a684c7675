//! The message that comes millions of times, as nearly every client encodes it, read in one pass.
//!
//! A `SubmitPublication` with a subscription, what is submitted and perhaps its id, in lengths that are said beforehand and without
//! tags: that takes a quarter of the time. What has anything else in it, or anything wrong, is left to the decoder of all messages,
//! which finds the same in what is read here.

use bytes::Bytes;
use uuid::Uuid;

use crate::protocol::scan::begin_plain;
use crate::protocol::scan::cursor::{BYTES, Cursor, MAP, TEXT};
use crate::protocol::{
    ClientCommand, PublicationId, Request, SubmitPublication, SubscriptionId, SubscriptionReference,
};

/// The request that `message` is. `None` says nothing about the message.
pub(super) fn submission(message: &Bytes) -> Option<Request> {
    let mut cursor = Cursor::new(message);
    let (id, command) = begin_plain(&mut cursor)?;
    if command != "SubmitPublication" {
        return None;
    }
    let fields = cursor.head().ok().filter(|head| head.major == MAP)?;
    let (mut subscription, mut submission, mut publication_id) = (None, None, None);
    for _ in 0..fields.argument? {
        let (key, value) = (string(&mut cursor)?, string(&mut cursor)?);
        // A key that stands twice is an error.
        let is_second = match key {
            (TEXT, b"subscription_id") => subscription.replace(reference(value)?).is_some(),
            (TEXT, b"submission") if value.0 == BYTES => submission.replace(value.1).is_some(),
            (TEXT, b"publication_id") => publication_id.replace(uuid(value)?).is_some(),
            _ => return None,
        };
        if is_second {
            return None;
        }
    }
    if cursor.at() < message.len() {
        return None;
    }
    Some(Request {
        id,
        command: ClientCommand::SubmitPublication(SubmitPublication {
            subscription: subscription?,
            submission: message.slice_ref(submission?),
            kind: None,
            publication_id: publication_id.map(PublicationId),
            expected_sequence: None,
        }),
    })
}

/// A byte string or text: which of them, and what is in it.
type String<'m> = (u8, &'m [u8]);

fn string<'m>(cursor: &mut Cursor<'m>) -> Option<String<'m>> {
    let head = cursor.head().ok()?;
    if !matches!(head.major, BYTES | TEXT) {
        return None;
    }
    Some((head.major, cursor.take(head.argument?).ok()?))
}

fn uuid((major, content): String<'_>) -> Option<Uuid> {
    Uuid::from_slice(content).ok().filter(|_| major == BYTES)
}

fn reference(string: String<'_>) -> Option<SubscriptionReference> {
    match uuid(string) {
        Some(uuid) => Some(SubscriptionId(uuid).into()),
        None if string.0 == TEXT => std::str::from_utf8(string.1).ok()?.parse().ok(),
        None => None,
    }
}
