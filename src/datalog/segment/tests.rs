use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::protocol::{Publication, SubscriptionId, stored_publications};

/// One publication of a test.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::datalog) struct Made {
    pub(in crate::datalog) sequence: Sequence,
    pub(in crate::datalog) time: Timestamp,
    pub(in crate::datalog) id: PublicationId,
    pub(in crate::datalog) data: Vec<u8>,
}

impl Made {
    /// A publication whose id the server made, or a client's.
    pub(in crate::datalog) fn new(sequence: u64, time: u64, client: bool, data: Vec<u8>) -> Self {
        let (sequence, time) = (Sequence(sequence), Timestamp(time));
        let id = if client {
            PublicationId(Uuid::from_u128(u128::from(sequence.0) << 64 | 0x77))
        } else {
            PublicationId::made(time, sequence, sequence.0.wrapping_mul(0x9e37_79b9))
        };
        Self {
            sequence,
            time,
            id,
            data,
        }
    }

    pub(in crate::datalog) fn frame(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let publication = Publication {
            subscription_id: SubscriptionId(Uuid::from_u128(1)),
            publication_id: self.id,
            sequence: self.sequence,
            time: self.time,
            publisher: None,
            dead_letter: None,
            data: &self.data,
        };
        publication.encode_into(&mut out);
        out
    }
}

/// Publications `first` to `last`, a second apart; every third id is a client's.
pub(in crate::datalog) fn publications(first: u64, last: u64, size: usize) -> Vec<Made> {
    (first..=last)
        .map(|n| Made::new(n, n * 1000, n % 3 == 0, vec![n as u8; size]))
        .collect()
}

pub(in crate::datalog) fn frames(made: &[Made]) -> Vec<u8> {
    made.iter().flat_map(Made::frame).collect()
}

pub(in crate::datalog) fn header(id: u64) -> SegmentHeader {
    SegmentHeader {
        id: SegmentId(id),
        generations: (id, id),
        level: 0,
    }
}

/// Writes a segment and opens it.
pub(in crate::datalog) fn segment(
    dir: &Path,
    header: SegmentHeader,
    logs: &BTreeMap<u64, Vec<Made>>,
) -> (std::sync::Arc<SegmentFile>, SegmentSummary) {
    let mut writer = SegmentWriter::create(dir, header).unwrap();
    for (log, made) in logs {
        writer
            .append(LogNumber(*log), &frames(made), &mut |_, _| {})
            .unwrap();
    }
    let summary = writer.finish().unwrap();
    (SegmentFile::open(dir, header.id).unwrap(), summary)
}

/// Everything that a segment holds, read block by block.
pub(in crate::datalog) fn contents(
    file: &SegmentFile,
) -> Result<BTreeMap<u64, Vec<Made>>, Damaged> {
    let mut logs = BTreeMap::<u64, Vec<Made>>::new();
    for run in file.summary()?.runs {
        for block in file.run_index(&run)?.blocks() {
            let bytes = file.read_block(block)?;
            assert!(bytes.len() <= BLOCK_SIZE || block.first == block.last);
            let ids = file.read_ids(block)?;
            let found: Vec<_> = stored_publications(&bytes).map(Result::unwrap).collect();
            assert_eq!(found.len(), ids.len());
            assert_eq!(found[0].sequence(), block.first);
            assert_eq!(found[found.len() - 1].sequence(), block.last);
            assert_eq!(
                ids.iter()
                    .map(|entry| u64::from(entry.payload))
                    .sum::<u64>(),
                block.bytes
            );
            for (publication, entry) in found.iter().zip(ids) {
                assert_eq!(publication.publication_id(), entry.id);
                assert_eq!(publication.data().len(), entry.payload as usize);
                logs.entry(run.log.0).or_default().push(Made {
                    sequence: publication.sequence(),
                    time: publication.time(),
                    id: entry.id,
                    data: publication.data().to_vec(),
                });
            }
        }
    }
    Ok(logs)
}

#[test]
fn segment_reads_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let logs = BTreeMap::from([
        (1, publications(1, 2000, 100)),
        (2, publications(7, 7, 0)),
        // Larger than a block: each is a block of its own.
        (9, publications(3, 5, BLOCK_SIZE + 1)),
    ]);
    let (file, summary) = segment(dir.path(), header(4), &logs);
    assert_eq!(file.summary().unwrap(), summary);
    assert_eq!(summary.runs.len(), 3);
    assert_eq!(contents(&file).unwrap(), logs);
    let index = file.run_index(&summary.runs[2]).unwrap();
    assert_eq!(index.blocks().len(), 3);
}

#[test]
fn segment_without_publications_reads_back_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (file, summary) = segment(dir.path(), header(4), &BTreeMap::new());
    assert_eq!(file.summary().unwrap(), summary);
    assert!(summary.runs.is_empty());
}

#[test]
fn hole_begins_a_new_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut made = publications(1, 10, 10);
    made.remove(4);
    let logs = BTreeMap::from([(3, made)]);
    let (file, summary) = segment(dir.path(), header(1), &logs);
    let ranges: Vec<_> = summary
        .runs
        .iter()
        .map(|run| (run.first.0, run.last.0))
        .collect();
    assert_eq!(ranges, [(1, 4), (6, 10)]);
    assert_eq!(contents(&file).unwrap(), logs);
}

#[test]
fn client_ids_are_told_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let made = publications(1, 1000, 100);
    let mut told = Vec::new();
    let mut writer = SegmentWriter::create(dir.path(), header(1)).unwrap();
    writer
        .append(LogNumber(1), &frames(&made), &mut |id, sequence| {
            told.push((id, sequence))
        })
        .unwrap();
    let run = writer.finish().unwrap().runs[0];
    let expected: Vec<_> = made
        .iter()
        .filter(|made| made.sequence.0 % 3 == 0)
        .map(|made| (made.id, made.sequence))
        .collect();
    assert_eq!(told, expected);
    let file = SegmentFile::open(dir.path(), SegmentId(1)).unwrap();
    assert_eq!(file.client_ids(&run).unwrap(), expected);
}

#[test]
fn frames_out_of_order_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let made = publications(1, 3, 1);
    for (log, behind) in [(1, &made[1..2]), (1, &made[..1]), (0, &made[2..])] {
        let mut writer = SegmentWriter::create(dir.path(), header(1)).unwrap();
        writer
            .append(LogNumber(1), &frames(&made[..2]), &mut |_, _| {})
            .unwrap();
        let refused = writer.append(LogNumber(log), &frames(behind), &mut |_, _| {});
        assert!(
            matches!(refused, Err(SegmentError::Order { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn unfinished_segment_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), header(1)).unwrap();
    writer
        .append(
            LogNumber(1),
            &frames(&publications(1, 3, 1)),
            &mut |_, _| {},
        )
        .unwrap();
    assert!(
        writer
            .append(LogNumber(1), b"no frame", &mut |_, _| {})
            .is_err()
    );
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn tiny_runs_cost_little() {
    let dir = tempfile::tempdir().unwrap();
    let logs = (1..=1000)
        .map(|log| (log << 20, publications(log, log + 9, 100)))
        .collect();
    let (_, summary) = segment(dir.path(), header(1), &logs);
    let index: u64 = summary
        .runs
        .iter()
        .map(|run| u64::from(run.index_len))
        .sum();
    let stored: u64 = summary.runs.iter().map(|run| run.stored_bytes).sum();
    let footer = summary.file_len - stored;
    assert!(index <= 1000 * 24, "{index}");
    assert!(footer <= 1000 * 32, "{footer}");
}

#[test]
fn segment_id_is_told_by_its_file_name_only() {
    assert_eq!(
        SegmentId::of_file_name(&SegmentId(17).file_name()),
        Some(SegmentId(17))
    );
    for name in [
        "17",
        "17.segment.tmp",
        "017.segment",
        "+17.segment",
        "-1.segment",
        ".segment",
        "",
    ] {
        assert_eq!(SegmentId::of_file_name(name), None, "{name}");
    }
}

/// The path of a segment with some of everything, its bytes, and what it holds.
fn sample(dir: &Path) -> (PathBuf, Vec<u8>, BTreeMap<u64, Vec<Made>>, SegmentSummary) {
    let logs = BTreeMap::from([
        (1, publications(1, 6, 30)),
        (2, publications(2, 3, BLOCK_SIZE / 32)),
    ]);
    let (file, summary) = segment(dir, header(5), &logs);
    (
        file.path().into(),
        fs::read(file.path()).unwrap(),
        logs,
        summary,
    )
}

fn read_all_ids(file: &SegmentFile, run: &RunDescriptor) -> Result<(), Damaged> {
    let index = file.run_index(run)?;
    index
        .blocks()
        .iter()
        .try_for_each(|block| file.read_ids(block).map(drop))
}

#[test]
fn every_flipped_byte_is_damage_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (path, whole, logs, summary) = sample(dir.path());
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let file = SegmentFile::open(dir.path(), SegmentId(5)).unwrap();
        let damaged = contents(&file).expect_err(&format!("byte {at}"));
        assert!(
            damaged.offset <= at as u64 && (at as u64) < damaged.offset + damaged.len,
            "{damaged}"
        );
        // What is known from elsewhere is read on, but for the one run that was hit.
        let unread = summary
            .runs
            .iter()
            .filter(|run| read_all_ids(&file, run).is_err())
            .count();
        assert!(unread <= 1, "byte {at}");
        match damaged.run {
            None => assert_eq!(unread, 0),
            Some((log, first, last)) => {
                assert!(logs[&log.0].iter().any(|made| made.sequence == first) && first <= last)
            }
        }
    }
}

#[test]
fn every_cut_is_damage_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (path, whole, _, summary) = sample(dir.path());
    for len in (0..whole.len())
        .step_by(7)
        .chain(whole.len() - 40..whole.len())
    {
        fs::write(&path, &whole[..len]).unwrap();
        let file = SegmentFile::open(dir.path(), SegmentId(5)).unwrap();
        assert!(file.summary().is_err(), "cut to {len}");
        for run in &summary.runs {
            let end = run.index_offset + u64::from(run.index_len);
            assert_eq!(
                file.run_index(run).is_ok(),
                end <= len as u64,
                "cut to {len}"
            );
        }
    }
}

/// Whoever changes these bytes changes the format of the data directory.
#[test]
fn segment_has_the_bytes_of_format_1() {
    let dir = tempfile::tempdir().unwrap();
    let (_, bytes, _, summary) = sample(dir.path());
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(
        hex(&bytes[..40]),
        "69747365676d010a0500000000000000050000000000000005000000000000000000000095780ddf"
    );
    let begin = summary.runs[0].index_offset as usize;
    let index = &bytes[begin..begin + summary.runs[0].index_len as usize];
    assert_eq!(hex(index), "900706008827b401581eb50008f272eed1c8cff7");
    assert_eq!(
        hex(&bytes[summary.file_len as usize - 28..]),
        "1e0000000000000002000000d1099916697473666f6f740a39f866f3"
    );
    assert_eq!((bytes.len(), crc32c::crc32c(&bytes)), (5552, 2974501909));
}

#[test]
fn segment_of_another_number_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _, _, summary) = sample(dir.path());
    fs::rename(path, SegmentId(6).path(dir.path())).unwrap();
    let file = SegmentFile::open(dir.path(), SegmentId(6)).unwrap();
    assert!(file.summary().is_err());
    let stray = RunDescriptor {
        segment: SegmentId(6),
        ..summary.runs[0]
    };
    assert!(file.run_index(&stray).is_err());
}

proptest! {
    // Each case makes and syncs files.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn descriptor_that_lies_is_damage_and_nothing_else(
        index_offset in prop_oneof![0..5000_u64, any::<u64>()],
        index_len in prop_oneof![0..100_u32, any::<u32>()],
        stored_bytes in any::<u64>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (_, _, _, summary) = sample(dir.path());
        let file = SegmentFile::open(dir.path(), SegmentId(5)).unwrap();
        let run = RunDescriptor { index_offset, index_len, stored_bytes, ..summary.runs[0] };
        prop_assert!(file.run_index(&run).is_err());
    }

    #[test]
    fn hostile_index_footer_and_descriptor_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (_, _, _, summary) = sample(dir.path());
        // The checksum is right: whoever made these bytes knew how.
        let run = RunDescriptor { index_len: bytes.len() as u32 + 4, ..summary.runs[0] };
        let mut index = bytes.clone();
        format::seal_index(run.segment, run.log, run.first, &mut index);
        let _ = format::decode_index(&run, &index);
        let mut rest = &bytes[..];
        while next_run(&mut rest, SegmentId(1), 1000).is_some() {}
    }

    #[test]
    fn varint_reads_back(value in prop_oneof![any::<u64>(), 0..300_u64], behind in any::<u8>()) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        for end in 0..bytes.len() {
            prop_assert_eq!(take_varint(&mut &bytes[..end]), None);
        }
        bytes.push(behind);
        let mut rest = &bytes[..];
        prop_assert_eq!(take_varint(&mut rest), Some(value));
        prop_assert_eq!(rest, &[behind][..]);
    }

    #[test]
    fn blocks_say_which_sequences_times_and_bytes_they_hold(
        sizes in proptest::collection::vec(prop_oneof![0..300_usize, 20_000..40_000_usize], 1..40),
        first in 1..1_000_000_u64,
        steps in proptest::collection::vec(0..3_u64, 40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut time = 1_000_000;
        let made: Vec<_> = (first..).zip(&sizes).zip(&steps).map(|((n, size), step)| {
            time += step;
            Made::new(n, time, n % 5 == 0, vec![n as u8; *size])
        }).collect();
        let logs = BTreeMap::from([(8, made.clone())]);
        let (file, summary) = segment(dir.path(), header(1), &logs);
        prop_assert_eq!(contents(&file).unwrap(), logs);
        let run = summary.runs[0];
        prop_assert_eq!(run.bytes, sizes.iter().sum::<usize>() as u64);
        let index = file.run_index(&run).unwrap();

        for publication in &made {
            let at = index.position_of(publication.sequence).unwrap();
            let block = index.blocks()[at];
            prop_assert!(block.first <= publication.sequence && publication.sequence <= block.last);
            prop_assert!(block.first_time <= publication.time && publication.time <= block.last_time);
        }
        prop_assert_eq!(index.position_of(run.first.previous()), None);
        prop_assert_eq!(index.position_of(run.last.next()), None);
        for block in index.blocks() {
            let before = made.iter().take_while(|made| made.sequence < block.first);
            prop_assert_eq!(block.bytes_before, before.map(|made| made.data.len() as u64).sum::<u64>());
        }
    }
}
