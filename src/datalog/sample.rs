//! Publications whose content follows from their place, for tests and fuzz targets: what is read can be checked without being kept.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use bytes::Bytes;

use super::{Chunk, LogNumber, LogReader, MissingRange, Record};
use crate::protocol::{
    Publication, PublicationId, Sequence, SubscriptionId, Timestamp, stored_publications,
};

/// A publication's payload, id and time follow from its log and sequence, so that what is read can be checked.
pub(in crate::datalog) fn payload(log: LogNumber, sequence: u64) -> Vec<u8> {
    // Wrapping: fuzz targets go to the end of all numbers.
    let length = sequence
        .wrapping_mul(31)
        .wrapping_add(log.0.wrapping_mul(7))
        % 200;
    vec![sequence as u8; length as usize]
}

pub(in crate::datalog) fn time(sequence: u64) -> Timestamp {
    Timestamp(1_000_000 + sequence / 3)
}

/// Every fifth was supplied by a client.
pub(in crate::datalog) fn id(log: LogNumber, sequence: u64) -> PublicationId {
    if sequence.is_multiple_of(5) {
        PublicationId(uuid::Uuid::from_u64_pair(log.0, sequence))
    } else {
        PublicationId::made(time(sequence), Sequence(sequence), log.0)
    }
}

pub(in crate::datalog) fn chunk(log: LogNumber, first: u64, last: u64) -> Record {
    let mut frames = Vec::new();
    for sequence in first..=last {
        Publication {
            subscription_id: SubscriptionId(uuid::Uuid::from_u128(log.0.into())),
            publication_id: id(log, sequence),
            sequence: Sequence(sequence),
            time: time(sequence),
            publisher: None,
            dead_letter: None,
            data: &payload(log, sequence),
        }
        .encode_into(&mut frames);
    }
    Record::Publications(Chunk {
        log,
        first: Sequence(first),
        last: Sequence(last),
        frames: Bytes::from(frames),
    })
}

/// Sequences of everything that pages give, each checked, and the gaps between.
pub(in crate::datalog) fn read(
    reader: &LogReader,
    log: LogNumber,
    after: u64,
    through: u64,
    max_bytes: usize,
) -> (Vec<u64>, Vec<MissingRange>) {
    let (mut sequences, mut gaps) = (Vec::new(), Vec::new());
    let mut at = after;
    while at < through {
        let page = reader
            .page(log, Sequence(at), Sequence(through), max_bytes)
            .unwrap();
        if let Some(gap) = page.gap {
            assert_eq!(gap.from, Sequence(at + 1));
            gaps.push(gap);
            at = gap.to.0;
        }
        assert_eq!(page.first, Sequence(at + 1));
        for publication in stored_publications(&page.frames) {
            let publication = publication.unwrap();
            at += 1;
            assert_eq!(publication.sequence(), Sequence(at));
            assert_eq!(publication.publication_id(), id(log, at));
            assert_eq!(publication.time(), time(at));
            assert_eq!(publication.data(), payload(log, at));
            sequences.push(at);
        }
        assert_eq!(page.last, Sequence(at));
        if page.frames.is_empty() && page.gap.is_none() {
            break;
        }
    }
    (sequences, gaps)
}
