//! The state log: appended to as journals are sealed, damaged, opened and replayed.

use std::{fs, io, ops::Range};

use uuid::Uuid;

use super::Damage;
use crate::{
    datalog::{
        LogNumber, Record,
        journal::format::{ALIGNMENT, Batch},
        state_log::{StateLog, state_record},
    },
    fuzzing::input::Input,
    protocol::Sequence,
};

const STORE: Uuid = Uuid::from_u128(42);
/// Journals that are sealed.
const MOST_BATCHES: u8 = 8;

struct Appended {
    generation: u64,
    records: Vec<Record>,
    range: Range<usize>,
}

/// What is read is what was appended; what is whole is read; what lies damaged in front of something whole is told.
pub(super) fn state_log(input: &mut Input<'_>) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("log");
    let open = || StateLog::open(dir.path(), STORE).expect("it is opened, however damaged");
    let appended = append(&mut open(), input);
    let original = fs::read(&path).expect("a file");
    let mut bytes = original.clone();
    let mut damage = Damage::default();
    while !input.is_empty() {
        damage.inflict(input, &mut bytes, original.len(), &[]);
    }
    fs::write(&path, &bytes).expect("a file");

    let mut log = open();
    let (told, damaged) = replay(&log);
    let generations = check_told(&told, &appended);
    let is_whole = |batch: &&Appended| {
        let now = bytes.get(batch.range.clone());
        now == Some(&original[batch.range.clone()])
    };
    let whole: Vec<_> = appended
        .iter()
        .filter(is_whole)
        .map(|batch| batch.generation)
        .collect();
    if !damage.is_spliced {
        assert_eq!(generations, whole);
        assert_eq!(log.generation(), whole.last().copied().unwrap_or_default());
        let is_gap = appended
            .iter()
            .zip(&whole)
            .any(|(batch, whole)| batch.generation != *whole);
        assert!(!is_gap || !damaged.is_empty(), "a hole is not told");
    }
    // What was torn is no part of what comes behind.
    let torn = log.torn().expect("it can be read");
    let is_all = log.generation() == generations.last().copied().unwrap_or_default();
    log.append(100, &[marker(100)])
        .expect("it can be appended to");
    let (mut again, _) = replay(&open());
    assert_eq!(again.pop(), Some(marker(100)));
    if is_all {
        assert_eq!(again, told, "torn: {torn:?}");
    }
}

fn append(log: &mut StateLog, input: &mut Input<'_>) -> Vec<Appended> {
    let mut appended = Vec::new();
    let mut end = 0;
    for generation in 1..=u64::from(input.choice(MOST_BATCHES)) {
        let mut records = vec![marker(generation)];
        for _ in 0..input.choice(8) {
            records.push(record(input));
        }
        log.append(generation, &records)
            .expect("it can be appended to");
        let bytes = log.read(0..fs::metadata(log.path()).expect("a file").len());
        let bytes = bytes.expect("it can be read");
        // The zeros behind a batch are no part of what is checked.
        let batch = Batch::read(&bytes[end..], STORE).expect("it was just written");
        let padding = bytes.len() - end - batch.unpadded_len();
        assert!(padding < ALIGNMENT);
        appended.push(Appended {
            generation,
            records,
            range: end..bytes.len() - padding,
        });
        end = bytes.len();
    }
    appended
}

/// The first record of each batch.
fn marker(generation: u64) -> Record {
    Record::Put {
        key: (*b"generation").into(),
        value: generation.to_le_bytes().into(),
    }
}

fn record(input: &mut Input<'_>) -> Record {
    let log = LogNumber(u64::from(input.byte()));
    match input.choice(5) {
        0 => Record::CreateLog(log),
        1 => Record::RemoveLog(log),
        2 => Record::Truncate {
            log,
            first: Sequence(u64::from(input.byte())),
        },
        3 => Record::Put {
            key: [1].into(),
            value: input.bytes().into(),
        },
        _ => Record::Delete { key: [1].into() },
    }
}

fn replay(log: &StateLog) -> (Vec<Record>, Vec<Range<u64>>) {
    let mut told = Vec::new();
    let replayed = log.replay(|record| {
        told.extend(state_record(record));
        Ok::<_, io::Error>(())
    });
    (told, replayed.expect("it can be read").damaged)
}

/// What is told is whole batches that were appended; their generations.
fn check_told(told: &[Record], appended: &[Appended]) -> Vec<u64> {
    let mut generations = Vec::new();
    let mut rest = told;
    while !rest.is_empty() {
        let batch = appended
            .iter()
            .find(|batch| rest.starts_with(&batch.records[..1]));
        let batch = batch.expect("batches are told from their beginning");
        assert!(
            rest.starts_with(&batch.records),
            "generation {}",
            batch.generation
        );
        rest = &rest[batch.records.len()..];
        generations.push(batch.generation);
    }
    generations
}
