//! The catalogue's keys and values. Numbers in keys are big endian, so that they sort.

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

use crate::datalog::LogNumber;
use crate::datalog::segment::{
    RunDescriptor, SegmentHeader, SegmentId, encode_run, next_run, put_varint, take, take_varint,
};
use crate::protocol::{PublicationId, Sequence, Timestamp};

pub(super) const ACCOUNT: u8 = b'a';
pub(super) const ID: u8 = b'i';
pub(super) const IDS_ACCOUNT: u8 = b'j';
pub(super) const STATE: u8 = b'k';
pub(super) const LOG: u8 = b'l';
pub(super) const META: u8 = b'm';
pub(super) const RUN: u8 = b'r';
pub(super) const SEGMENT: u8 = b's';
pub(super) const REMOVED: u8 = b'x';

/// Bytes of an entry of runs: sled takes some ten microseconds for an entry, whatever its size.
const RUNS_SIZE: usize = 2048;

/// What the catalogue says about the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    /// The store that it belongs to.
    pub(crate) store: Uuid,
    /// Every journal generation up to this one is sealed, and in here.
    pub(crate) sealed_through: u64,
    /// Log numbers from here on were not used up to there.
    pub(crate) next_log: u64,
}

impl Meta {
    pub(super) fn encode(&self) -> Box<[u8]> {
        let mut out = self.store.as_bytes().to_vec();
        put_varint(&mut out, self.sealed_through);
        put_varint(&mut out, self.next_log);
        out.into()
    }

    pub(super) fn decode(mut value: &[u8]) -> Option<Self> {
        let rest = &mut value;
        let store = Uuid::from_bytes(take(rest)?);
        let (sealed_through, next_log) = (take_varint(rest)?, take_varint(rest)?);
        rest.is_empty().then_some(Self {
            store,
            sealed_through,
            next_log,
        })
    }
}

/// A segment whose file is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentEntry {
    pub(crate) header: SegmentHeader,
    pub(crate) file_len: u64,
}

impl SegmentEntry {
    pub(super) fn encode(&self) -> Box<[u8]> {
        let mut out = vec![self.header.level];
        put_varint(&mut out, self.header.generations.0);
        put_varint(&mut out, self.header.generations.1);
        put_varint(&mut out, self.file_len);
        out.into()
    }

    pub(super) fn decode(key: &[u8], mut value: &[u8]) -> Option<Self> {
        let id = SegmentId(u64::from_be_bytes(key.get(1..)?.try_into().ok()?));
        let rest = &mut value;
        let [level] = take(rest)?;
        let generations = (take_varint(rest)?, take_varint(rest)?);
        let file_len = take_varint(rest)?;
        rest.is_empty().then_some(Self {
            header: SegmentHeader {
                id,
                generations,
                level,
            },
            file_len,
        })
    }
}

/// A live log, as of the newest sealed journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogEntry {
    /// The oldest kept; one above `last` if none is.
    pub(crate) first: Sequence,
    /// The newest that there ever was.
    pub(crate) last: Sequence,
    /// Its time.
    pub(crate) last_time: Timestamp,
}

/// Neighbouring logs that share an entry.
const LOGS: u64 = 64;

/// The logs of one entry.
pub(super) type Logs = BTreeMap<LogNumber, LogEntry>;

/// The key of the entry that `log` is in.
pub(super) fn logs_key(log: LogNumber) -> Box<[u8]> {
    numbered(LOG, log.0 / LOGS)
}

/// None if there is none.
pub(super) fn encode_logs(logs: &Logs) -> Option<Box<[u8]>> {
    let mut out = Vec::new();
    for (log, entry) in logs {
        out.push((log.0 % LOGS) as u8);
        put_varint(&mut out, entry.first.0);
        put_varint(&mut out, entry.last.0);
        put_varint(&mut out, entry.last_time.0);
    }
    (!out.is_empty()).then(|| out.into())
}

pub(super) fn decode_logs(key: &[u8], mut value: &[u8]) -> Option<Logs> {
    let number = u64::from_be_bytes(key.get(1..)?.try_into().ok()?);
    let lowest = number.checked_mul(LOGS)?;
    let rest = &mut value;
    let mut logs = Logs::new();
    while !rest.is_empty() {
        let [place] = take(rest)?;
        let log = LogNumber(lowest.checked_add(u64::from(place))?);
        let (first, last) = (Sequence(take_varint(rest)?), Sequence(take_varint(rest)?));
        let last_time = Timestamp(take_varint(rest)?);
        logs.insert(
            log,
            LogEntry {
                first,
                last,
                last_time,
            },
        );
    }
    Some(logs)
}

pub(super) fn removed_key(log: LogNumber) -> Box<[u8]> {
    numbered(REMOVED, log.0)
}

pub(super) fn segment_key(segment: SegmentId) -> Box<[u8]> {
    numbered(SEGMENT, segment.0)
}

fn numbered(kind: u8, number: u64) -> Box<[u8]> {
    let mut key = vec![kind];
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

pub(super) fn state_key(key: &[u8]) -> Box<[u8]> {
    [&[STATE], key].concat().into()
}

/// What the keys of a segment's runs begin with.
pub(super) fn runs_of(segment: SegmentId) -> Box<[u8]> {
    numbered(RUN, segment.0)
}

/// Key and value.
type Entry = (Box<[u8]>, Box<[u8]>);

/// The entries of a segment's runs, many runs an entry.
pub(super) fn encode_runs<'a>(
    segment: SegmentId,
    runs: impl IntoIterator<Item = &'a RunDescriptor>,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut value = Vec::with_capacity(RUNS_SIZE + 64);
    let mut runs = runs.into_iter().peekable();
    while let Some(run) = runs.next() {
        encode_run(run, &mut value);
        if value.len() >= RUNS_SIZE || runs.peek().is_none() {
            let number = entries.len() as u32;
            let key = [&runs_of(segment)[..], &number.to_be_bytes()].concat();
            entries.push((key.into(), value[..].into()));
            value.clear();
        }
    }
    entries
}

/// The segment whose runs the entry with this key holds.
pub(super) fn decode_runs_key(key: &[u8]) -> Option<SegmentId> {
    let number = key.get(1..9).filter(|_| key.len() == 13)?;
    Some(SegmentId(u64::from_be_bytes(number.try_into().ok()?)))
}

/// Adds the runs of an entry to `runs`.
pub(super) fn decode_runs(
    segment: SegmentId,
    mut value: &[u8],
    runs: &mut Vec<RunDescriptor>,
) -> Option<()> {
    while !value.is_empty() {
        runs.push(next_run(&mut value, segment, u64::MAX)?);
    }
    Some(())
}

pub(super) fn id_key(log: LogNumber, id: &PublicationId) -> Box<[u8]> {
    [&[ID], &log.0.to_be_bytes()[..], id.0.as_bytes()]
        .concat()
        .into()
}

/// What the keys of a log's ids begin with; `log` as it stands in a key.
pub(super) fn ids_of(log: &[u8]) -> Box<[u8]> {
    [&[ID], log].concat().into()
}

pub(super) fn encode_sequence(sequence: Sequence) -> Box<[u8]> {
    let mut out = Vec::new();
    put_varint(&mut out, sequence.0);
    out.into()
}

pub(super) fn decode_sequence(mut value: &[u8]) -> Option<Sequence> {
    let sequence = take_varint(&mut value)?;
    value.is_empty().then_some(Sequence(sequence))
}

/// How many entries there are, and the sum of their checksums: whoever forgets one, or goes back to what it was, is found
/// out.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Account {
    entries: u64,
    sum: u64,
}

impl Account {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries = self.entries.wrapping_add(1);
        self.sum = self.sum.wrapping_add(checksum(key, value));
    }

    pub(super) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.entries = self.entries.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(checksum(key, value));
    }

    pub(super) fn encode(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.entries.to_le_bytes());
        out[8..].copy_from_slice(&self.sum.to_le_bytes());
        out
    }

    pub(super) fn decode(mut value: &[u8]) -> Option<Self> {
        let rest = &mut value;
        let (entries, sum) = (
            u64::from_le_bytes(take(rest)?),
            u64::from_le_bytes(take(rest)?),
        );
        rest.is_empty().then_some(Self { entries, sum })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries with the sum {:x}", self.entries, self.sum)
    }
}

/// Spread over 64 bits, or the sums of two changes could make up for each other too easily.
fn checksum(key: &[u8], value: &[u8]) -> u64 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), value);
    (u64::from(crc) ^ (key.len() as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
