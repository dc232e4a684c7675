//! A publication, encoded once: the bytes of [`encode`](Publication::encode_into) are the live WebSocket frame, the record in the
//! journal and in the segment, and the replay frame; their inner map is the entry of `DataLogEntry`.
//!
//! The layout is fixed but for the WebSocket header, the optional `publisher` and `dead_letter`, and the length of `data`, so that a
//! stored publication's fields are found without decoding:
//!
//! ```text
//! WebSocket header (2, 4 or 10 bytes: FIN, binary, unmasked)
//! a1 6b "Publication" a5|a6|a7
//!   6f "subscription_id" 50 <16>
//!   6e "publication_id"  50 <16>
//!   68 "sequence"        1b <8, big endian>
//!   64 "time"            1b <8, big endian>
//!   [69 "publisher" <text>]
//!   [6b "dead_letter" a5
//!     6f "subscription_id" 50 <16>
//!     65 "epoch"           50 <16>
//!     68 "sequence"        1b <8, big endian>
//!     6a "deliveries"      1b <8, big endian>
//!     66 "reason"          <text>]
//!   64 "data"            <byte string head, definite, shortest> <data>
//! ```
//!
//! What a Queue delivers is the same with one more pair, `delivery`, at the end: see
//! [`encode_delivery`](StoredPublication::encode_delivery).

use uuid::Uuid;

use super::frame::{FrameHead, head_len};
use super::{
    DeadLetter, DeadLetterReason, Epoch, PublicationId, Sequence, SubscriptionId, Timestamp,
};

const HEAD: &[u8; 13] = b"\xa1\x6bPublication";
/// A map of the pairs that every publication has.
const FIVE_PAIRS: u8 = 0xa5;
/// The most pairs that are stored.
const SEVEN_PAIRS: u8 = 0xa7;
const SUBSCRIPTION_ID_KEY: &[u8; 17] = b"\x6fsubscription_id\x50";
const PUBLICATION_ID_KEY: &[u8; 16] = b"\x6epublication_id\x50";
const SEQUENCE_KEY: &[u8; 10] = b"\x68sequence\x1b";
const TIME_KEY: &[u8; 6] = b"\x64time\x1b";
const PUBLISHER_KEY: &[u8; 10] = b"\x69publisher";
const DATA_KEY: &[u8; 5] = b"\x64data";
const DEAD_LETTER_KEY: &[u8; 13] = b"\x6bdead_letter\xa5";
const EPOCH_KEY: &[u8; 7] = b"\x65epoch\x50";
const DELIVERIES_KEY: &[u8; 12] = b"\x6adeliveries\x1b";
const REASON_KEY: &[u8; 7] = b"\x66reason";
const DELIVERY_KEY: &[u8; 9] = b"\x68delivery";

// Where the values stand in the frame's payload.
const FIELDS_AT: usize = HEAD.len();
const SUBSCRIPTION_ID_AT: usize = FIELDS_AT + 1 + SUBSCRIPTION_ID_KEY.len();
const PUBLICATION_ID_AT: usize = SUBSCRIPTION_ID_AT + 16 + PUBLICATION_ID_KEY.len();
const SEQUENCE_AT: usize = PUBLICATION_ID_AT + 16 + SEQUENCE_KEY.len();
const TIME_AT: usize = SEQUENCE_AT + 8 + TIME_KEY.len();
const FIXED: usize = TIME_AT + 8;

const BYTE_STRING: u8 = 0x40;
const TEXT_STRING: u8 = 0x60;

/// What a publication is made of.
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Publication<'a> {
    pub subscription_id: SubscriptionId,
    pub publication_id: PublicationId,
    pub sequence: Sequence,
    pub time: Timestamp,
    pub publisher: Option<&'a str>,
    pub dead_letter: Option<DeadLetter>,
    pub data: &'a [u8],
}

impl Publication<'_> {
    /// The bytes that [`encode_into`](Self::encode_into) adds.
    pub fn encoded_len(&self) -> usize {
        let payload_len = self.payload_len();
        head_len(payload_len) + payload_len
    }

    fn payload_len(&self) -> usize {
        let publisher = self
            .publisher
            .map_or(0, |text| PUBLISHER_KEY.len() + string_len(text.len()));
        let dead_letter = self.dead_letter.as_ref().map_or(0, dead_letter_len);
        FIXED + publisher + dead_letter + DATA_KEY.len() + string_len(self.data.len())
    }

    /// Adds the ready frame to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let payload_len = self.payload_len();
        let head = FrameHead::binary(payload_len);
        out.reserve(head.as_bytes().len() + payload_len);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&self.fixed());
        if let Some(publisher) = self.publisher {
            out.extend_from_slice(PUBLISHER_KEY);
            put_string(out, TEXT_STRING, publisher.as_bytes());
        }
        if let Some(dead_letter) = &self.dead_letter {
            put_dead_letter(out, dead_letter);
        }
        out.extend_from_slice(DATA_KEY);
        put_string(out, BYTE_STRING, self.data);
    }

    /// Everything between the WebSocket header and the optional publisher. Made on the stack, so that `out` grows once.
    fn fixed(&self) -> [u8; FIXED] {
        let mut fixed = [0; FIXED];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            fixed[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(HEAD);
        let optional = u8::from(self.publisher.is_some()) + u8::from(self.dead_letter.is_some());
        put(&[FIVE_PAIRS + optional]);
        put(SUBSCRIPTION_ID_KEY);
        put(self.subscription_id.0.as_bytes());
        put(PUBLICATION_ID_KEY);
        put(self.publication_id.0.as_bytes());
        put(SEQUENCE_KEY);
        put(&self.sequence.0.to_be_bytes());
        put(TIME_KEY);
        put(&self.time.0.to_be_bytes());
        fixed
    }
}

fn dead_letter_len(dead_letter: &DeadLetter) -> usize {
    const FIXED_PART: usize = DEAD_LETTER_KEY.len()
        + SUBSCRIPTION_ID_KEY.len()
        + 16
        + EPOCH_KEY.len()
        + 16
        + SEQUENCE_KEY.len()
        + 8
        + DELIVERIES_KEY.len()
        + 8
        + REASON_KEY.len();
    FIXED_PART + string_len(dead_letter.reason.text().len())
}

fn put_dead_letter(out: &mut Vec<u8>, dead_letter: &DeadLetter) {
    let DeadLetter {
        subscription_id,
        epoch,
        sequence,
        deliveries,
        reason,
    } = dead_letter;
    out.extend_from_slice(DEAD_LETTER_KEY);
    out.extend_from_slice(SUBSCRIPTION_ID_KEY);
    out.extend_from_slice(subscription_id.0.as_bytes());
    out.extend_from_slice(EPOCH_KEY);
    out.extend_from_slice(epoch.0.as_bytes());
    out.extend_from_slice(SEQUENCE_KEY);
    out.extend_from_slice(&sequence.0.to_be_bytes());
    out.extend_from_slice(DELIVERIES_KEY);
    out.extend_from_slice(&deliveries.to_be_bytes());
    out.extend_from_slice(REASON_KEY);
    put_string(out, TEXT_STRING, reason.text().as_bytes());
}

/// What [`put_dead_letter`] put in front of `bytes`, and what is behind it.
fn split_dead_letter(bytes: &[u8]) -> Option<(DeadLetter, &[u8])> {
    fn value<'b, const N: usize>(bytes: &'b [u8], key: &[u8]) -> Option<(&'b [u8; N], &'b [u8])> {
        bytes.strip_prefix(key)?.split_first_chunk()
    }
    let rest = bytes.strip_prefix(DEAD_LETTER_KEY)?;
    let (subscription_id, rest) = value(rest, SUBSCRIPTION_ID_KEY)?;
    let (epoch, rest) = value(rest, EPOCH_KEY)?;
    let (sequence, rest) = value(rest, SEQUENCE_KEY)?;
    let (deliveries, rest) = value(rest, DELIVERIES_KEY)?;
    let (reason, rest) = split_string(TEXT_STRING, rest.strip_prefix(REASON_KEY)?)?;
    let dead_letter = DeadLetter {
        subscription_id: SubscriptionId(Uuid::from_bytes(*subscription_id)),
        epoch: Epoch(Uuid::from_bytes(*epoch)),
        sequence: Sequence(u64::from_be_bytes(*sequence)),
        deliveries: u64::from_be_bytes(*deliveries),
        reason: DeadLetterReason::from_text(std::str::from_utf8(reason).ok()?)?,
    };
    Some((dead_letter, rest))
}

/// The bytes of a definite string of `len` bytes, its head included.
fn string_len(len: usize) -> usize {
    len + match len {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

fn put_string(out: &mut Vec<u8>, major: u8, string: &[u8]) {
    let len = string.len();
    match len {
        0..=23 => out.push(major + len as u8),
        24..=0xff => out.extend_from_slice(&[major + 24, len as u8]),
        0x100..=0xffff => {
            out.push(major + 25);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major + 26);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
        _ => {
            out.push(major + 27);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(string);
}

/// Writes an unsigned integer as shortly as it can be, and returns its length.
fn put_number(out: &mut [u8; 9], number: u64) -> usize {
    let (head, len) = match number {
        0..=23 => (number as u8, 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out[0] = head;
    out[1..=len].copy_from_slice(&number.to_be_bytes()[8 - len..]);
    1 + len
}

/// The definite string of major type `major` that `bytes` begins with, and what is behind it. Its head has to be as
/// short as it can be, or one publication would have two encodings.
fn split_string(major: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (len, rest) = match first.wrapping_sub(major) {
        len @ 0..=23 => (u64::from(len), rest),
        24 => rest
            .split_first()
            .map(|(&len, rest)| (u64::from(len), rest))?,
        25 => rest
            .split_first_chunk()
            .map(|(len, rest)| (u64::from(u16::from_be_bytes(*len)), rest))?,
        26 => rest
            .split_first_chunk()
            .map(|(len, rest)| (u64::from(u32::from_be_bytes(*len)), rest))?,
        27 => rest
            .split_first_chunk()
            .map(|(len, rest)| (u64::from_be_bytes(*len), rest))?,
        _ => return None,
    };
    let len = usize::try_from(len).ok()?;
    let head_len = bytes.len() - rest.len();
    let (string, behind) = rest.split_at_checked(len)?;
    (head_len + len == string_len(len)).then_some((string, behind))
}

/// A publication as it is stored: a view on the bytes of one ready frame.
#[derive(Clone, Copy)]
pub struct StoredPublication<'a> {
    frame: &'a [u8],
    /// Of the frame's payload: the part whose places are fixed.
    fixed: &'a [u8; FIXED],
    publisher: Option<&'a str>,
    dead_letter: Option<DeadLetter>,
    data: &'a [u8],
}

/// Bytes that are no stored publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a stored publication")]
pub struct NotAPublication;

impl<'a> StoredPublication<'a> {
    /// The publication that `bytes` begins with, and the bytes behind it.
    ///
    /// # Errors
    /// If `bytes` does not begin with one whole ready frame of the fixed layout.
    pub fn split_first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), NotAPublication> {
        Self::try_split_first(bytes).ok_or(NotAPublication)
    }

    fn try_split_first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head_len, payload_len) = FrameHead::read_binary(bytes)?;
        let (frame, behind) = bytes.split_at_checked(head_len.checked_add(payload_len)?)?;
        let (fixed, rest) = frame[head_len..].split_first_chunk::<FIXED>()?;
        if !has_fixed_keys(fixed) {
            return None;
        }
        let pairs = fixed[FIELDS_AT];
        if !(FIVE_PAIRS..=SEVEN_PAIRS).contains(&pairs) {
            return None;
        }
        let (publisher, rest) = match rest.strip_prefix(PUBLISHER_KEY) {
            Some(rest) if pairs > FIVE_PAIRS => {
                let (publisher, rest) = split_string(TEXT_STRING, rest)?;
                (Some(std::str::from_utf8(publisher).ok()?), rest)
            }
            _ => (None, rest),
        };
        let (dead_letter, rest) = if pairs - FIVE_PAIRS > u8::from(publisher.is_some()) {
            let (dead_letter, rest) = split_dead_letter(rest)?;
            (Some(dead_letter), rest)
        } else {
            (None, rest)
        };
        if pairs - FIVE_PAIRS != u8::from(publisher.is_some()) + u8::from(dead_letter.is_some()) {
            return None;
        }
        let (data, rest) = split_string(BYTE_STRING, rest.strip_prefix(DATA_KEY)?)?;
        let stored = Self {
            frame,
            fixed,
            publisher,
            dead_letter,
            data,
        };
        rest.is_empty().then_some((stored, behind))
    }

    /// The ready frame.
    pub fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// The encoded map of the fields: an entry of `DataLogEntry`.
    pub fn fields(&self) -> &'a [u8] {
        &self.frame[self.fields_offset()..]
    }

    /// Where [`fields`](Self::fields) begin in [`frame`](Self::frame).
    pub fn fields_offset(&self) -> usize {
        let payload_len = match self.frame[1] {
            126 => 126,
            127 => usize::MAX,
            len => usize::from(len),
        };
        head_len(payload_len) + FIELDS_AT
    }

    /// The subscription it was submitted to.
    pub fn subscription_id(&self) -> SubscriptionId {
        SubscriptionId(Uuid::from_bytes(self.fixed_value(SUBSCRIPTION_ID_AT)))
    }

    /// Its id.
    pub fn publication_id(&self) -> PublicationId {
        PublicationId(Uuid::from_bytes(self.fixed_value(PUBLICATION_ID_AT)))
    }

    /// Its number in the log.
    pub fn sequence(&self) -> Sequence {
        Sequence(u64::from_be_bytes(self.fixed_value(SEQUENCE_AT)))
    }

    /// When it was accepted.
    pub fn time(&self) -> Timestamp {
        Timestamp(u64::from_be_bytes(self.fixed_value(TIME_AT)))
    }

    /// Who published it, where that is known.
    pub fn publisher(&self) -> Option<&'a str> {
        self.publisher
    }

    /// Where it comes from, if it is a dead letter.
    pub fn dead_letter(&self) -> Option<DeadLetter> {
        self.dead_letter
    }

    /// Its payload.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Adds the frame that a Queue's subscriber gets to `out`: the stored pairs, and which `delivery` it is.
    pub fn encode_delivery(&self, delivery: u64, out: &mut Vec<u8>) {
        let fields = self.fields();
        let mut number = [0; 9];
        let number_len = put_number(&mut number, delivery);
        let len = FIELDS_AT + fields.len() + DELIVERY_KEY.len() + number_len;
        let head = FrameHead::binary(len);
        out.reserve(head.as_bytes().len() + len);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(HEAD);
        // One pair more.
        out.push(fields[0] + 1);
        out.extend_from_slice(&fields[1..]);
        out.extend_from_slice(DELIVERY_KEY);
        out.extend_from_slice(&number[..number_len]);
    }

    fn fixed_value<const N: usize>(&self, at: usize) -> [u8; N] {
        *self.fixed[at..]
            .first_chunk()
            .expect("invariant: every value lies within the fixed part")
    }
}

fn has_fixed_keys(fixed: &[u8; FIXED]) -> bool {
    fixed.starts_with(HEAD)
        && fixed[FIELDS_AT + 1..].starts_with(SUBSCRIPTION_ID_KEY)
        && fixed[SUBSCRIPTION_ID_AT + 16..].starts_with(PUBLICATION_ID_KEY)
        && fixed[PUBLICATION_ID_AT + 16..].starts_with(SEQUENCE_KEY)
        && fixed[SEQUENCE_AT + 8..].starts_with(TIME_KEY)
}

impl std::fmt::Debug for StoredPublication<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredPublication")
            .field("subscription_id", &self.subscription_id())
            .field("publication_id", &self.publication_id())
            .field("sequence", &self.sequence())
            .field("time", &self.time())
            .field("data_len", &self.data.len())
            .finish()
    }
}

/// The publications in `bytes`, which hold ready frames back to back; ends behind the first error.
pub fn stored_publications(
    bytes: &[u8],
) -> impl Iterator<Item = Result<StoredPublication<'_>, NotAPublication>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        Some(match StoredPublication::split_first(rest) {
            Ok((publication, behind)) => {
                rest = behind;
                Ok(publication)
            }
            Err(error) => {
                rest = &[];
                Err(error)
            }
        })
    })
}

/// Length and sequence of each publication in `bytes`, which hold ready frames of either form back to back; ends in front of what is none.
#[cfg(any(feature = "server", feature = "fuzzing"))]
pub fn published(bytes: &[u8]) -> impl Iterator<Item = (usize, Sequence)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (len, sequence) = match StoredPublication::split_first(rest) {
            Ok((publication, _)) => (publication.frame().len(), publication.sequence()),
            Err(_) => super::json::first_publication(rest)?,
        };
        rest = &rest[len..];
        Some((len, sequence))
    })
}

/// The bits of a made id that tell nothing.
const RANDOM_BITS: u32 = 50;

impl PublicationId {
    /// The id that the server makes: version 7 of the publication's own `time`, the low 24 bits of its sequence, and 50
    /// random bits (RFC 9562, section 5.7: `rand_a` and the first 12 bits of `rand_b` hold the sequence's bits).
    pub fn made(time: Timestamp, sequence: Sequence, random: u64) -> Self {
        let sequence = u128::from(sequence.0 & 0xff_ffff);
        let bits = (u128::from(time.0) & 0xffff_ffff_ffff) << 80
            | 7 << 76
            | (sequence >> 12) << 64
            | 0b10 << 62
            | (sequence & 0xfff) << RANDOM_BITS
            | u128::from(random) & ((1 << RANDOM_BITS) - 1);
        Self(Uuid::from_u128(bits))
    }

    /// The time and the low 24 bits of the sequence, if the id has the form that the server makes. A client's own id may have
    /// it too; only comparing tells.
    pub fn made_of(self) -> Option<(Timestamp, u32)> {
        let bits = self.0.as_u128();
        if (bits >> 76) & 0xf != 7 || (bits >> 62) & 0b11 != 0b10 {
            return None;
        }
        let high = (bits >> 64) as u32 & 0xfff;
        let low = (bits >> RANDOM_BITS) as u32 & 0xfff;
        Some((Timestamp((bits >> 80) as u64), high << 12 | low))
    }

    /// Whether the server may have made this id for the publication at `sequence`, `time`: such ids need no index.
    pub fn is_made_for(self, time: Timestamp, sequence: Sequence) -> bool {
        self.made_of() == Some((time, (sequence.0 & 0xff_ffff) as u32))
    }
}

#[cfg(test)]
mod tests;
