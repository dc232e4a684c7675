//! Segments as a fuzz target: written, damaged, and read; and tables that nobody writes, with the right checksums.

use std::{fs, ops::Range, path::Path, sync::Arc};

use super::{
    Block, RunDescriptor, SegmentFile, SegmentHeader, SegmentId, SegmentSummary, SegmentWriter,
    format::{
        HEADER_LEN, TRAILER_LEN, Trailer, encode_header, encode_run, encode_trailer, footer_crc,
        seal_index,
    },
};
use crate::{
    datalog::{LogNumber, fuzzing::Damage, runs::Runs, sample},
    fuzzing::input::Input,
    protocol::{Publication, Sequence, SubscriptionId, Timestamp},
};

const HEADER: SegmentHeader = SegmentHeader {
    id: SegmentId(7),
    generations: (2, 3),
    level: 1,
};
const MOST_PUBLICATIONS: usize = 64;
/// Publications that fill most of a block.
const MOST_LARGE: usize = 4;
const LARGE: usize = 40_000;

/// What is read is what was written, and what was not touched is read.
pub(in crate::datalog) fn segment(input: &mut Input<'_>) {
    let dir = tempfile::tempdir().expect("a folder");
    if input.choice(4) == 0 {
        wrong_tables(dir.path(), input);
        return;
    }
    let summary = write(dir.path(), input);
    let path = HEADER.id.path(dir.path());
    let original = fs::read(&path).expect("a file");
    let whole = open(dir.path());
    let mut bytes = original.clone();
    while !input.is_empty() {
        Damage::default().inflict(input, &mut bytes, original.len(), &[]);
    }
    // Not over the other, which is still open.
    let damaged_dir = tempfile::tempdir().expect("a folder");
    fs::write(HEADER.id.path(damaged_dir.path()), &bytes).expect("a file");
    let damaged = open(damaged_dir.path());
    let check = Check {
        is_whole: |range: Range<usize>| bytes.get(range.clone()) == Some(&original[range]),
    };
    let is_as_long = bytes.len() == original.len();
    let (head, footer) = (0..HEADER_LEN, footer_begin(&summary)..original.len());
    let is_table_whole = is_as_long && (check.is_whole)(head) && (check.is_whole)(footer);
    match damaged.summary() {
        Ok(found) => assert_eq!(found, summary),
        Err(error) => assert!(!is_table_whole, "{error}"),
    }
    for run in &summary.runs {
        check.run(&whole, &damaged, run);
    }
}

fn open(dir: &Path) -> Arc<SegmentFile> {
    SegmentFile::open(dir, HEADER.id).expect("a file")
}

fn footer_begin(summary: &SegmentSummary) -> usize {
    let runs = summary.runs.iter();
    let end = runs.map(|run| run.index_offset + u64::from(run.index_len));
    end.max().map_or(HEADER_LEN, |end| end as usize)
}

fn write(dir: &Path, input: &mut Input<'_>) -> SegmentSummary {
    let mut writer = SegmentWriter::create(dir, HEADER).expect("a file");
    let (mut log, mut sequence, mut large) = (1, 0, 0);
    for _ in 0..input.byte() as usize % MOST_PUBLICATIONS {
        match input.choice(8) {
            0 => (log, sequence) = (log + 1 + u64::from(input.byte()), 0),
            1 => sequence += 1 + u64::from(input.byte()),
            _ => {}
        }
        sequence += 1;
        let mut data = sample::payload(LogNumber(log), sequence);
        if large < MOST_LARGE && input.choice(8) == 7 {
            large += 1;
            data.resize(LARGE, 1);
        }
        let mut frame = Vec::new();
        Publication {
            subscription_id: SubscriptionId(uuid::Uuid::from_u128(log.into())),
            publication_id: sample::id(LogNumber(log), sequence),
            sequence: Sequence(sequence),
            time: sample::time(sequence),
            publisher: None,
            dead_letter: None,
            data: &data,
        }
        .encode_into(&mut frame);
        let appended = writer.append(LogNumber(log), &frame, &mut |_, _| {});
        appended.expect("publications come in order");
    }
    writer.finish().expect("a file")
}

struct Check<W> {
    is_whole: W,
}

impl<W: Fn(Range<usize>) -> bool> Check<W> {
    fn run(&self, whole: &SegmentFile, damaged: &SegmentFile, run: &RunDescriptor) {
        let index = whole.run_index(run).expect("it is whole");
        let begin = run.index_offset as usize;
        match damaged.run_index(run) {
            Ok(found) => assert_eq!(found, index),
            Err(error) => {
                let range = begin..begin + run.index_len as usize;
                assert!(!(self.is_whole)(range), "{error}");
            }
        }
        for block in index.blocks() {
            self.block(whole, damaged, block);
        }
        if let Ok(ids) = damaged.client_ids(run) {
            assert_eq!(ids, whole.client_ids(run).expect("it is whole"));
        }
    }

    fn block(&self, whole: &SegmentFile, damaged: &SegmentFile, block: &Block) {
        let begin = block.offset as usize;
        let ids_begin = begin + block.len as usize;
        match damaged.read_block(block) {
            Ok(frames) => assert_eq!(frames, whole.read_block(block).expect("it is whole")),
            Err(error) => assert!(!(self.is_whole)(begin..ids_begin), "{error}"),
        }
        match damaged.read_ids(block) {
            Ok(ids) => assert_eq!(ids, whole.read_ids(block).expect("it is whole")),
            Err(error) => {
                let range = ids_begin..ids_begin + block.ids_len() as usize;
                assert!(!(self.is_whole)(range), "{error}");
            }
        }
    }
}

/// A file of tables that make no sense, whose checksums are right: nothing panics, and nothing is read beyond the file.
fn wrong_tables(dir: &Path, input: &mut Input<'_>) {
    let head = encode_header(&HEADER);
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(input.bytes());
    let (log, first) = (LogNumber(input.number()), Sequence(input.number()));
    let mut index = input.bytes().to_vec();
    seal_index(HEADER.id, log, first, &mut index);
    let run = RunDescriptor {
        log,
        first,
        last: Sequence(first.0.saturating_add(input.short() as u64)),
        first_time: Timestamp(u64::from(input.byte())),
        last_time: Timestamp(255 + u64::from(input.byte())),
        bytes: input.short() as u64,
        segment: HEADER.id,
        index_offset: bytes.len() as u64,
        index_len: index.len() as u32,
        stored_bytes: input.short() as u64,
        client_ids: input.choice(2) == 1,
    };
    bytes.extend_from_slice(&index);
    let mut footer = Vec::new();
    encode_run(&run, &mut footer);
    footer.extend_from_slice(input.bytes());
    bytes.extend_from_slice(&footer);
    bytes.extend_from_slice(&encode_trailer(&Trailer {
        footer_len: footer.len() as u64 + u64::from(input.byte()),
        runs: 1 + u32::from(input.byte()),
        footer_crc: footer_crc(&head, &footer),
    }));
    bytes.extend_from_slice(input.rest());
    assert!(bytes.len() >= HEADER_LEN + TRAILER_LEN);
    fs::write(HEADER.id.path(dir), &bytes).expect("a file");

    let file = open(dir);
    let mut runs = file.summary().map_or(Vec::new(), |summary| summary.runs);
    runs.extend(super::next_run(
        &mut &footer[..],
        HEADER.id,
        bytes.len() as u64,
    ));
    for run in &runs {
        let Ok(index) = file.run_index(run) else {
            continue;
        };
        assert_eq!(index.position_of(run.first), Some(0));
        for block in index.blocks() {
            // Damaged or not, it says so.
            let _ = (file.read_block(block), file.read_ids(block));
        }
        let _ = file.client_ids(run);
    }
    let of_log: Vec<_> = runs.iter().filter(|other| other.log == log).collect();
    let packed: Runs = of_log.iter().copied().collect();
    assert!(packed.iter(log).eq(of_log.into_iter().copied()));
}
