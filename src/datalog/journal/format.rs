//! The bytes of a batch of records, in journals and in the state log.
//!
//! ```text
//! header (40 bytes, little endian)
//!   magic u32 | body length u32 | generation u64 | number u64 | synced through u64 | records u32 | crc32c u32
//! body: records, each a tag and its fields
//! zeros up to the next multiple of 8
//! ```
//!
//! The checksum covers header and body, and is seeded with the store's id and the generation: what another store or an
//! earlier use of the file left behind is never taken for a batch.

use std::ops::Range;

use uuid::Uuid;

use crate::{
    datalog::{LogNumber, Record},
    protocol::{NUMBER_LIMIT, Sequence},
};

/// What a batch begins with.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"iBat");
/// Bytes in front of a batch's body.
pub(crate) const HEADER_LEN: usize = 40;
/// Batches begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;

const CRC_AT: usize = 36;

const CREATE_LOG: u8 = 1;
const PUBLICATIONS: u8 = 2;
const TRUNCATE: u8 = 3;
const REMOVE_LOG: u8 = 4;
const PUT: u8 = 5;
const DELETE: u8 = 6;

/// What a batch says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchHeader {
    /// Which use of a journal file it belongs to.
    pub(crate) generation: u64,
    /// Counts the batches of the store.
    pub(crate) number: u64,
    /// Every batch up to this one was synced before this one was written; 0 while none of the same journal was.
    pub(crate) synced_through: u64,
}

fn seed(store: Uuid, generation: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(store.as_bytes()), &generation.to_le_bytes())
}

/// Collects records into the bytes of one batch, in a buffer that is used again for the next.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    buffer: Vec<u8>,
    records: u32,
}

impl BatchBuilder {
    /// Capacity that is kept from one batch to the next.
    const KEPT: usize = 4 << 20;

    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; HEADER_LEN],
            records: 0,
        }
    }

    /// Begins a new batch.
    pub(crate) fn clear(&mut self) {
        if self.buffer.capacity() > Self::KEPT {
            self.buffer = Vec::with_capacity(HEADER_LEN);
        }
        self.buffer.clear();
        self.buffer.resize(HEADER_LEN, 0);
        self.records = 0;
    }

    /// Bytes of the batch as it stands, padding included.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len().next_multiple_of(ALIGNMENT)
    }

    /// Adds a record. Of publications: where in the batch their frames are.
    pub(crate) fn push(&mut self, record: &Record) -> Option<Range<usize>> {
        self.records += 1;
        let out = &mut self.buffer;
        match record {
            Record::CreateLog(log) => {
                out.push(CREATE_LOG);
                out.extend_from_slice(&log.0.to_le_bytes());
            }
            Record::Publications(chunk) => {
                out.push(PUBLICATIONS);
                out.extend_from_slice(&chunk.log.0.to_le_bytes());
                out.extend_from_slice(&chunk.first.0.to_le_bytes());
                out.extend_from_slice(&chunk.last.0.to_le_bytes());
                put_length(out, chunk.frames.len());
                let start = out.len();
                out.extend_from_slice(&chunk.frames);
                return Some(start..out.len());
            }
            Record::Truncate { log, first } => {
                out.push(TRUNCATE);
                out.extend_from_slice(&log.0.to_le_bytes());
                out.extend_from_slice(&first.0.to_le_bytes());
            }
            Record::RemoveLog(log) => {
                out.push(REMOVE_LOG);
                out.extend_from_slice(&log.0.to_le_bytes());
            }
            Record::Put { key, value } => {
                out.push(PUT);
                put_length(out, key.len());
                put_length(out, value.len());
                out.extend_from_slice(key);
                out.extend_from_slice(value);
            }
            Record::Delete { key } => {
                out.push(DELETE);
                put_length(out, key.len());
                out.extend_from_slice(key);
            }
        }
        None
    }

    /// The bytes of the whole batch, padded.
    pub(crate) fn finish(&mut self, store: Uuid, header: BatchHeader) -> &[u8] {
        let end = self.buffer.len();
        let body = u32::try_from(end - HEADER_LEN).expect("invariant: a batch is below 4 GiB");
        let head = &mut self.buffer[..HEADER_LEN];
        head[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        head[4..8].copy_from_slice(&body.to_le_bytes());
        head[8..16].copy_from_slice(&header.generation.to_le_bytes());
        head[16..24].copy_from_slice(&header.number.to_le_bytes());
        head[24..32].copy_from_slice(&header.synced_through.to_le_bytes());
        head[32..36].copy_from_slice(&self.records.to_le_bytes());
        let crc = checksum(store, header.generation, &self.buffer);
        self.buffer[CRC_AT..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        self.buffer.resize(end.next_multiple_of(ALIGNMENT), 0);
        &self.buffer
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl BatchBuilder {
    /// Adds what says that it is a record.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        self.records += 1;
        self.buffer.extend_from_slice(bytes);
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("invariant: a record's parts are below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
}

fn checksum(store: Uuid, generation: u64, batch: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(seed(store, generation), &batch[..CRC_AT]);
    crc32c::crc32c_append(crc, &batch[HEADER_LEN..])
}

/// Makes the batch of the store `from` that `bytes` begins with one of the store `to`; its length, padding included. None: it is no
/// such batch, and as it was.
pub(crate) fn adopt(bytes: &mut [u8], from: Uuid, to: Uuid) -> Option<usize> {
    let batch = Batch::read(bytes, from)?;
    let (len, unpadded) = (batch.len(), HEADER_LEN + batch.body.len());
    let crc = checksum(to, batch.header.generation, &bytes[..unpadded]);
    bytes[CRC_AT..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    Some(len)
}

/// A batch as it was found, its checksum being right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) header: BatchHeader,
    records: u32,
    body: &'a [u8],
}

/// A record as it stands in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecordView<'a> {
    CreateLog(LogNumber),
    Publications {
        log: LogNumber,
        first: Sequence,
        last: Sequence,
        frames: &'a [u8],
        /// Where the frames begin, from the beginning of the batch.
        offset: usize,
    },
    Truncate {
        log: LogNumber,
        first: Sequence,
    },
    RemoveLog(LogNumber),
    Put {
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        key: &'a [u8],
    },
}

/// The length and generation that stand where a batch's header would, if its magic does; nothing else was checked.
pub(crate) fn peek(bytes: &[u8]) -> Option<(usize, u64)> {
    let head = bytes.get(..HEADER_LEN)?;
    (u32_at(head, 0) == MAGIC).then(|| (HEADER_LEN + u32_at(head, 4) as usize, u64_at(head, 8)))
}

impl<'a> Batch<'a> {
    /// The batch that `bytes` begins with, if it does with a whole one of this store.
    pub(crate) fn read(bytes: &'a [u8], store: Uuid) -> Option<Self> {
        let (length, generation) = peek(bytes)?;
        let whole = bytes.get(..length)?;
        (u32_at(whole, CRC_AT) == checksum(store, generation, whole)).then(|| Self {
            header: BatchHeader {
                generation,
                number: u64_at(whole, 16),
                synced_through: u64_at(whole, 24),
            },
            records: u32_at(whole, 32),
            body: &whole[HEADER_LEN..],
        })
    }

    /// Bytes that the checksum covers.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn unpadded_len(&self) -> usize {
        HEADER_LEN + self.body.len()
    }

    /// Bytes that it takes, padding included.
    pub(crate) fn len(&self) -> usize {
        (HEADER_LEN + self.body.len()).next_multiple_of(ALIGNMENT)
    }

    /// Its records. `None` in place of one, and nothing behind, where the body is not what its writer should have written.
    pub(crate) fn records(&self) -> impl Iterator<Item = Option<RecordView<'a>>> + use<'a> {
        let mut cursor = Cursor {
            body: self.body,
            at: 0,
        };
        let mut left = self.records;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let record = cursor.record();
            if record.is_none() {
                left = 0;
            }
            Some(record)
        })
    }
}

struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn record(&mut self) -> Option<RecordView<'a>> {
        Some(match self.take(1)?[0] {
            CREATE_LOG => RecordView::CreateLog(self.log()?),
            PUBLICATIONS => {
                let (log, first, last) = (self.log()?, self.sequence()?, self.sequence()?);
                let length = self.length()?;
                let offset = HEADER_LEN + self.at;
                RecordView::Publications {
                    log,
                    first,
                    last,
                    frames: self.take(length)?,
                    offset,
                }
            }
            TRUNCATE => RecordView::Truncate {
                log: self.log()?,
                first: self.sequence()?,
            },
            REMOVE_LOG => RecordView::RemoveLog(self.log()?),
            PUT => {
                let (key, value) = (self.length()?, self.length()?);
                RecordView::Put {
                    key: self.take(key)?,
                    value: self.take(value)?,
                }
            }
            DELETE => {
                let key = self.length()?;
                RecordView::Delete {
                    key: self.take(key)?,
                }
            }
            _ => return None,
        })
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.body.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn log(&mut self) -> Option<LogNumber> {
        self.number().map(LogNumber)
    }

    fn sequence(&mut self) -> Option<Sequence> {
        self.number().map(Sequence)
    }

    /// A number to which one can be added, and none that a server gives is larger.
    fn number(&mut self) -> Option<u64> {
        let number = self.take(8).map(|bytes| u64_at(bytes, 0));
        number.filter(|number| *number <= NUMBER_LIMIT)
    }

    fn length(&mut self) -> Option<usize> {
        self.take(4).map(|bytes| u32_at(bytes, 0) as usize)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("invariant: four bytes are four bytes"),
    )
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("invariant: eight bytes are eight bytes"),
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::datalog::Chunk;

    const STORE: Uuid = Uuid::from_u128(7);

    fn every_record() -> Vec<Record> {
        vec![
            Record::CreateLog(LogNumber(1)),
            Record::Publications(Chunk {
                log: LogNumber(1),
                first: Sequence(1),
                last: Sequence(3),
                frames: Bytes::from_static(b"frames"),
            }),
            Record::Truncate {
                log: LogNumber(1),
                first: Sequence(2),
            },
            Record::RemoveLog(LogNumber(1)),
            Record::Put {
                key: (*b"key").into(),
                value: (*b"value").into(),
            },
            Record::Delete {
                key: (*b"key").into(),
            },
        ]
    }

    fn batch(header: BatchHeader) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        for record in every_record() {
            builder.push(&record);
        }
        builder.finish(STORE, header).to_vec()
    }

    const HEADER: BatchHeader = BatchHeader {
        generation: 3,
        number: 9,
        synced_through: 8,
    };

    #[test]
    fn batch_reads_back_as_it_was_written() {
        let bytes = batch(HEADER);
        let read = Batch::read(&bytes, STORE).unwrap();
        assert_eq!(read.header, HEADER);
        assert_eq!(read.len(), bytes.len());
        let records: Vec<_> = read.records().map(Option::unwrap).collect();
        assert_eq!(records.len(), every_record().len());
        let RecordView::Publications { frames, offset, .. } = records[1] else {
            panic!("not publications: {:?}", records[1]);
        };
        assert_eq!(frames, b"frames");
        assert_eq!(&bytes[offset..offset + 6], b"frames");
    }

    #[test]
    fn batch_that_was_adopted_is_the_other_stores_alone() {
        let (mut bytes, other) = (batch(HEADER), Uuid::from_u128(8));
        let len = bytes.len();
        assert_eq!(adopt(&mut bytes, other, STORE), None);
        assert_eq!(bytes, batch(HEADER));
        assert_eq!(adopt(&mut bytes, STORE, other), Some(len));
        assert!(Batch::read(&bytes, STORE).is_none());
        let read = Batch::read(&bytes, other).unwrap();
        assert_eq!(read.header, HEADER);
        assert_eq!(read.records().flatten().count(), every_record().len());
    }

    #[test]
    fn batch_is_refused_when_any_bit_is_another() {
        let bytes = batch(HEADER);
        let unpadded = HEADER_LEN + u32_at(&bytes, 4) as usize;
        for bit in 0..unpadded * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Batch::read(&flipped, STORE).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn batch_is_refused_when_it_is_cut_or_of_another_store() {
        let bytes = batch(HEADER);
        let unpadded = HEADER_LEN + u32_at(&bytes, 4) as usize;
        for end in 0..unpadded {
            assert!(Batch::read(&bytes[..end], STORE).is_none(), "cut at {end}");
        }
        assert!(Batch::read(&bytes, Uuid::from_u128(8)).is_none());
    }

    #[test]
    fn encoded_len_covers_any_split_into_batches() {
        let mut builder = BatchBuilder::new();
        for record in every_record() {
            builder.clear();
            builder.push(&record);
            assert!(builder.len() as u64 <= record.encoded_len(), "{record:?}");
        }
    }
}
