//! A publication, encoded once: the bytes of [`encode`](Publication::encode_into) are the live WebSocket frame, the record in the
//! journal and in the segment, and the replay frame; their inner map is the entry of `DataLogEntry`.
//!
//! The layout is fixed but for the WebSocket header, the optional `publisher` and the length of `data`, so that a stored
//! publication's fields are found without decoding:
//!
//! ```text
//! WebSocket header (2, 4 or 10 bytes: FIN, binary, unmasked)
//! a1 6b "Publication" a5|a6
//!   6f "subscription_id" 50 <16>
//!   6e "publication_id"  50 <16>
//!   68 "sequence"        1b <8, big endian>
//!   64 "time"            1b <8, big endian>
//!   [69 "publisher" <text>]
//!   64 "data"            <byte string head, definite, shortest> <data>
//! ```

use super::{PublicationId, Sequence, SubscriptionId, Timestamp};

/// What a publication is made of.
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Publication<'a> {
    pub subscription_id: SubscriptionId,
    pub publication_id: PublicationId,
    pub sequence: Sequence,
    pub time: Timestamp,
    pub publisher: Option<&'a str>,
    pub data: &'a [u8],
}

impl Publication<'_> {
    /// The bytes that [`encode_into`](Self::encode_into) adds.
    pub fn encoded_len(&self) -> usize {
        todo!()
    }

    /// Adds the ready frame to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
}

/// A publication as it is stored: a view on the bytes of one ready frame.
#[derive(Clone, Copy)]
pub struct StoredPublication<'a> {
    frame: &'a [u8],
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
        let _ = bytes;
        todo!()
    }

    /// The ready frame.
    pub fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// The encoded map of the fields: an entry of `DataLogEntry`.
    pub fn fields(&self) -> &'a [u8] {
        todo!()
    }

    /// The subscription it was submitted to.
    pub fn subscription_id(&self) -> SubscriptionId {
        todo!()
    }

    /// Its id.
    pub fn publication_id(&self) -> PublicationId {
        todo!()
    }

    /// Its number in the log.
    pub fn sequence(&self) -> Sequence {
        todo!()
    }

    /// When it was accepted.
    pub fn time(&self) -> Timestamp {
        todo!()
    }

    /// Its payload.
    pub fn data(&self) -> &'a [u8] {
        todo!()
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

impl PublicationId {
    /// The id that the server makes: version 7 of the publication's own `time`, the low 24 bits of its sequence, and 50
    /// random bits (RFC 9562, section 5.7: `rand_a` and the first 12 bits of `rand_b` hold the sequence's bits).
    pub fn made(time: Timestamp, sequence: Sequence, random: u64) -> Self {
        let _ = (time, sequence, random);
        todo!()
    }

    /// The time and the low 24 bits of the sequence, if the id has the form that the server makes. A client's own id may have
    /// it too; only comparing tells.
    pub fn made_of(self) -> Option<(Timestamp, u32)> {
        todo!()
    }

    /// Whether the server may have made this id for the publication at `sequence`, `time`: such ids need no index.
    pub fn is_made_for(self, time: Timestamp, sequence: Sequence) -> bool {
        self.made_of() == Some((time, (sequence.0 & 0xff_ffff) as u32))
    }
}
