//! The data log as a whole, on real files.

mod basics;
mod crash_points;
mod damage;
mod every_file;
mod full_disk;
mod measure;
mod model;
mod outdated;
mod verify;

use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::protocol::{
    Publication, PublicationId, Sequence, SubscriptionId, Timestamp, stored_publications,
};

/// A publication's payload, id and time follow from its log and sequence, so that what is read can be checked.
pub(super) fn payload(log: LogNumber, sequence: u64) -> Vec<u8> {
    let length = (sequence * 31 + log.0 * 7) % 200;
    vec![sequence as u8; length as usize]
}

pub(super) fn time(sequence: u64) -> Timestamp {
    Timestamp(1_000_000 + sequence / 3)
}

/// Every fifth was supplied by a client.
pub(super) fn id(log: LogNumber, sequence: u64) -> PublicationId {
    if sequence.is_multiple_of(5) {
        PublicationId(uuid::Uuid::from_u64_pair(log.0, sequence))
    } else {
        PublicationId::made(time(sequence), Sequence(sequence), log.0)
    }
}

pub(super) fn chunk(log: LogNumber, first: u64, last: u64) -> Record {
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

pub(super) fn put(key: &str, value: &str) -> Record {
    Record::Put {
        key: key.as_bytes().into(),
        value: value.as_bytes().into(),
    }
}

pub(super) fn delete(key: &str) -> Record {
    Record::Delete {
        key: key.as_bytes().into(),
    }
}

/// Small journals, so that tests seal and rotate.
pub(super) fn options(dir: &Path) -> Options {
    Options {
        journal_size: 64 << 10,
        sled_cache: 1 << 20,
        ..Options::new(dir)
    }
}

pub(super) fn open(dir: &Path) -> (DataLog, Recovered) {
    DataLog::open(options(dir)).unwrap()
}

/// Sequences of everything that pages give, each checked, and the gaps between.
pub(super) fn read(
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
