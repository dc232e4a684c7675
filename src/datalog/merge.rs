//! Merging: some segments become one, and dead publications go.
//!
//! Owns which segments are worth merging and how it is done. Does not own when, nor making the result known. What is read
//! is checked and what is written gets new checksums, so that damage is never passed on: a damaged block is left out, told,
//! and the log has a hole there.

use std::iter::Peekable;
use std::path::Path;
use std::sync::Arc;

use super::LogNumber;
use super::index::Live;
use super::pace::Pace;
use super::seal::LiveWriter;
use super::segment::{
    Damaged, Footer, RunDescriptor, SegmentError, SegmentFile, SegmentHeader, SegmentId,
    SegmentSummary,
};
use crate::protocol::Sequence;

/// No merge makes a file that is larger: the time and the room that one takes stay bounded.
const LARGEST: u64 = 1 << 30;

/// Dead bytes below which a segment is not written anew for them: of a small one, header and footer alone are a good part.
const WORTHWHILE: u64 = 1 << 20;

/// So many neighbours are merged if they are crowded with tiny runs.
const EARLY: usize = 4;

/// While there is other work, so many times the neighbours of a merge may wait for a lull: merging them frees nothing and makes no read
/// faster, it only keeps the number of files low.
const PUT_OFF: usize = 4;

/// A run of less than this, on average, is tiny.
const TINY_RUN: u64 = 4 << 10;

/// So many runs in the segments to be merged are many.
const MANY_RUNS: u64 = 1 << 16;

/// What a merge made.
#[derive(Debug)]
pub(crate) struct Merged {
    /// None: nothing in the inputs was live.
    pub(crate) segment: Option<SegmentSummary>,
    /// What was live and could not be read. The inputs that are named have to be kept for a person to look at.
    pub(crate) damaged: Vec<Damaged>,
}

/// Why segments could not be merged. They are as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// It is not known what an input holds: it can't be merged, only read.
    #[error(transparent)]
    Input(Damaged),
    #[error(transparent)]
    Output(#[from] SegmentError),
}

/// Merges `inputs` into the new segment `id`. `live` says the first sequence that a log keeps, none if the log is no more.
///
/// The new segment covers every generation from the inputs' lowest to their highest: no other segment may be between them.
///
/// # Errors
/// If an input's footer can't be read or the output can't be written. Nothing of the output is left then.
pub(crate) fn merge(
    inputs: &[Arc<SegmentFile>],
    live: &dyn Fn(LogNumber) -> Option<Sequence>,
    segments: &Path,
    id: SegmentId,
    pace: &Pace<'_>,
) -> Result<Merged, MergeError> {
    let footers = inputs
        .iter()
        .map(|file| file.footer())
        .collect::<Result<Vec<_>, _>>()
        .map_err(MergeError::Input)?;
    let mut output = LiveWriter::new(segments, merged_header(id, &footers), live, pace);
    let mut damaged = Vec::new();
    let mut runs: Vec<_> = footers
        .iter()
        .map(|footer| footer.runs().peekable())
        .collect();
    while let Some((run, input)) = next_run(&mut runs) {
        copy(&run, &inputs[input], &mut output, &mut damaged)?;
    }
    Ok(Merged {
        segment: output.finish()?,
        damaged,
    })
}

fn merged_header(id: SegmentId, footers: &[Footer]) -> SegmentHeader {
    let headers = || footers.iter().map(|footer| footer.header);
    let level = headers().map(|header| header.level).max().unwrap_or(0);
    SegmentHeader {
        id,
        generations: (
            headers()
                .map(|header| header.generations.0)
                .min()
                .unwrap_or(0),
            headers()
                .map(|header| header.generations.1)
                .max()
                .unwrap_or(0),
        ),
        // One that is written anew alone is not further merged for it.
        level: if footers.len() > 1 {
            level.saturating_add(1)
        } else {
            level
        },
    }
}

/// The lowest of all runs that are next, and whose it is.
fn next_run<I: Iterator<Item = RunDescriptor>>(
    runs: &mut [Peekable<I>],
) -> Option<(RunDescriptor, usize)> {
    let heads = runs
        .iter_mut()
        .enumerate()
        .filter_map(|(input, runs)| Some((runs.peek()?, input)));
    let (_, input) = heads.min_by_key(|(run, input)| (run.log, run.first, *input))?;
    Some((runs[input].next()?, input))
}

fn copy(
    run: &RunDescriptor,
    file: &SegmentFile,
    output: &mut LiveWriter<'_>,
    damaged: &mut Vec<Damaged>,
) -> Result<(), SegmentError> {
    let Some(from) = output.wanted_from(run.log).filter(|&from| from <= run.last) else {
        return Ok(());
    };
    let index = match file.run_index(run) {
        Ok(index) => index,
        Err(damage) => {
            damaged.push(damage);
            return Ok(());
        }
    };
    for block in index.blocks().iter().filter(|block| from <= block.last) {
        match file.read_block(block) {
            Ok(frames) => {
                output.append(run.log, block.first, block.last, &frames, &mut |_, _| {})?
            }
            Err(damage) => damaged.push(damage),
        }
    }
    Ok(())
}

/// A segment in use, to choose from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) header: SegmentHeader,
    pub(crate) file_len: u64,
    pub(crate) live: Live,
    /// False for one whose footer can't be read: it stays what it is, and no merge reaches over it.
    pub(crate) mergeable: bool,
}

/// The segments that should become one now; empty if none. `merge_at` neighbours of one level do, fewer if they are crowded with tiny
/// runs, and one that is mostly dead is written anew. A segment without any live run is no candidate: it is unlinked. While it
/// `is_busy`, neighbours that aren't crowded wait until there are more of them.
pub(crate) fn choose(
    mut candidates: Vec<Candidate>,
    merge_at: usize,
    is_busy: bool,
) -> Vec<SegmentId> {
    candidates.sort_by_key(|candidate| candidate.header.generations);
    let together = |one: &Candidate, other: &Candidate| {
        one.mergeable && other.mergeable && one.header.level == other.header.level
    };
    let merge_at = merge_at.max(2);
    for neighbours in candidates.chunk_by(together) {
        let is_due = !is_busy || neighbours.len() >= PUT_OFF * merge_at;
        let enough = neighbours.windows(merge_at).filter(|_| is_due);
        let mut chosen = enough
            .chain(
                neighbours
                    .windows(EARLY.min(merge_at))
                    .filter(|window| is_crowded(window)),
            )
            .filter(|window| live(window).bytes <= LARGEST);
        if let Some(window) = chosen.next() {
            return window.iter().map(|candidate| candidate.header.id).collect();
        }
    }
    let mostly_dead = |candidate: &&Candidate| {
        let dead = candidate.file_len.saturating_sub(candidate.live.bytes);
        candidate.mergeable && dead > candidate.live.bytes && dead >= WORTHWHILE
    };
    candidates
        .iter()
        .find(mostly_dead)
        .map(|candidate| candidate.header.id)
        .into_iter()
        .collect()
}

/// What is alive in neighbours together.
fn live(neighbours: &[Candidate]) -> Live {
    neighbours
        .iter()
        .fold(Live::default(), |sum, candidate| Live {
            runs: sum.runs + candidate.live.runs,
            bytes: sum.bytes + candidate.live.bytes,
        })
}

/// Every run costs memory, a page or not: many subscriptions that get a little each would cost more by their runs than by
/// themselves, if they had to wait for the usual number of segments.
fn is_crowded(neighbours: &[Candidate]) -> bool {
    let Live { runs, bytes } = live(neighbours);
    runs >= MANY_RUNS && bytes < runs * TINY_RUN
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::datalog::segment::BLOCK_SIZE;
    use crate::datalog::segment::tests::{Made, contents, header, publications, segment};

    type Logs = BTreeMap<u64, Vec<Made>>;

    fn everything(_: LogNumber) -> Option<Sequence> {
        Some(Sequence(1))
    }

    fn merged(
        dir: &Path,
        inputs: &[Logs],
        live: &dyn Fn(LogNumber) -> Option<Sequence>,
    ) -> (Merged, Logs) {
        let files: Vec<_> = (1..)
            .zip(inputs)
            .map(|(id, logs)| segment(dir, header(id), logs).0)
            .collect();
        let merged = merge(&files, live, dir, SegmentId(100), &Pace::hurried()).unwrap();
        let logs = match &merged.segment {
            None => Logs::new(),
            Some(summary) => {
                let file = SegmentFile::open(dir, SegmentId(100)).unwrap();
                assert_eq!(&file.summary().unwrap(), summary);
                contents(&file).unwrap()
            }
        };
        (merged, logs)
    }

    #[test]
    fn few_neighbours_are_merged_if_they_are_crowded_with_tiny_runs() {
        let crowded = |id, runs| Candidate {
            live: Live {
                runs,
                bytes: 24 << 20,
            },
            ..candidate(id, 0, 24)
        };
        for is_busy in [false, true] {
            let of = |runs: u64| choose((1..=5).map(|id| crowded(id, runs)).collect(), 16, is_busy);
            assert_eq!(of(50_000), [1, 2, 3, 4].map(SegmentId));
            assert_eq!(of(1_000), []);
        }
    }

    #[test]
    fn runs_of_one_log_are_joined() {
        let dir = tempfile::tempdir().unwrap();
        let inputs: Vec<_> = (0..16)
            .map(|n| {
                Logs::from([
                    (1, publications(n * 10 + 1, n * 10 + 10, 100)),
                    (n + 2, publications(1, 5, 1)),
                ])
            })
            .collect();
        let (merged, logs) = merged(dir.path(), &inputs, &everything);
        let summary = merged.segment.unwrap();
        assert_eq!(
            summary.header,
            SegmentHeader {
                id: SegmentId(100),
                generations: (1, 16),
                level: 1
            }
        );
        assert_eq!(summary.runs.len(), 17);
        assert_eq!(logs[&1], publications(1, 160, 100));
        let file = SegmentFile::open(dir.path(), SegmentId(100)).unwrap();
        assert_eq!(file.run_index(&summary.runs[0]).unwrap().blocks().len(), 1);
    }

    #[test]
    fn damaged_block_leaves_a_hole_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::from([
            (1, publications(1, 400, 1000)),
            (2, publications(1, 10, 10)),
        ]);
        let (file, summary) = segment(dir.path(), header(1), &logs);
        let hit = file.run_index(&summary.runs[0]).unwrap().blocks()[2];
        let mut bytes = fs::read(file.path()).unwrap();
        bytes[hit.offset as usize + 5] ^= 1;
        fs::write(file.path(), bytes).unwrap();
        let merged = merge(
            &[file],
            &everything,
            dir.path(),
            SegmentId(2),
            &Pace::hurried(),
        )
        .unwrap();
        assert_eq!(merged.damaged.len(), 1);
        assert_eq!(
            merged.damaged[0].run,
            Some((LogNumber(1), hit.first, hit.last))
        );
        let mut expected = logs;
        expected
            .get_mut(&1)
            .unwrap()
            .retain(|made| made.sequence < hit.first || made.sequence > hit.last);
        assert_eq!(
            contents(&SegmentFile::open(dir.path(), SegmentId(2)).unwrap()).unwrap(),
            expected
        );
        let ranges: Vec<_> = merged
            .segment
            .unwrap()
            .runs
            .iter()
            .map(|run| (run.log.0, run.first.0, run.last.0))
            .collect();
        assert_eq!(
            ranges,
            [
                (1, 1, hit.first.0 - 1),
                (1, hit.last.0 + 1, 400),
                (2, 1, 10)
            ]
        );
    }

    #[test]
    fn damaged_run_index_leaves_a_hole_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::from([(1, publications(1, 40, 10)), (2, publications(1, 10, 10))]);
        let (file, summary) = segment(dir.path(), header(1), &logs);
        let mut bytes = fs::read(file.path()).unwrap();
        bytes[summary.runs[0].index_offset as usize] ^= 1;
        fs::write(file.path(), bytes).unwrap();
        let merged = merge(
            &[file],
            &everything,
            dir.path(),
            SegmentId(2),
            &Pace::hurried(),
        )
        .unwrap();
        assert_eq!(
            merged.damaged[0].run,
            Some((LogNumber(1), Sequence(1), Sequence(40)))
        );
        assert_eq!(merged.segment.unwrap().runs.len(), 1);
    }

    #[test]
    fn damaged_footer_keeps_a_segment_out() {
        let dir = tempfile::tempdir().unwrap();
        let (file, summary) = segment(
            dir.path(),
            header(1),
            &Logs::from([(1, publications(1, 4, 10))]),
        );
        let mut bytes = fs::read(file.path()).unwrap();
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        fs::write(file.path(), bytes).unwrap();
        let refused = merge(
            std::slice::from_ref(&file),
            &everything,
            dir.path(),
            SegmentId(2),
            &Pace::hurried(),
        );
        assert!(matches!(refused, Err(MergeError::Input(_))), "{refused:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(file.run_index(&summary.runs[0]).is_ok());
    }

    #[test]
    fn nothing_live_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let inputs = [Logs::from([(1, publications(1, 4, 10))])];
        assert!(merged(dir.path(), &inputs, &|_| None).0.segment.is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    fn candidate(id: u64, level: u8, live: u64) -> Candidate {
        let header = SegmentHeader {
            id: SegmentId(id),
            generations: (id, id),
            level,
        };
        Candidate {
            header,
            file_len: 32 << 20,
            live: Live {
                runs: 10,
                bytes: live << 20,
            },
            mergeable: true,
        }
    }

    #[test]
    fn neighbours_of_one_level_are_chosen_once_there_are_enough() {
        let mut candidates: Vec<_> = (1..=3).map(|id| candidate(id, 1, 31)).collect();
        candidates.extend((4..=6).map(|id| candidate(id, 0, 31)));
        assert_eq!(choose(candidates.clone(), 4, false), []);
        candidates.push(candidate(7, 0, 31));
        candidates.push(candidate(8, 0, 31));
        candidates.reverse();
        assert_eq!(
            choose(candidates.clone(), 4, false),
            [4, 5, 6, 7].map(SegmentId)
        );
    }

    #[test]
    fn neighbours_wait_for_a_lull_until_they_are_many() {
        let candidates: Vec<_> = (1..=16).map(|id| candidate(id, 0, 31)).collect();
        assert_eq!(choose(candidates[..15].to_vec(), 4, true), []);
        assert_eq!(
            choose(candidates.clone(), 4, true),
            [1, 2, 3, 4].map(SegmentId)
        );
        assert_eq!(
            choose(candidates[..4].to_vec(), 4, false),
            [1, 2, 3, 4].map(SegmentId)
        );
    }

    #[test]
    fn no_merge_reaches_over_what_can_not_be_merged() {
        let mut candidates: Vec<_> = (1..=5).map(|id| candidate(id, 0, 31)).collect();
        candidates[2].mergeable = false;
        assert_eq!(choose(candidates.clone(), 3, false), []);
        candidates.push(candidate(6, 0, 31));
        assert_eq!(choose(candidates, 3, false), [4, 5, 6].map(SegmentId));
    }

    #[test]
    fn merge_that_would_be_too_large_is_not_chosen() {
        let candidates: Vec<_> = (1..=3).map(|id| candidate(id, 1, 512)).collect();
        assert_eq!(choose(candidates, 3, false), []);
    }

    #[test]
    fn mostly_dead_segment_is_written_anew() {
        let candidates = vec![candidate(1, 0, 16), candidate(2, 1, 15)];
        assert_eq!(choose(candidates, 16, false), [SegmentId(2)]);
    }

    proptest! {
        // Each case makes and syncs files.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn merge_equals_the_live_part_of_its_inputs_put_together(
            lengths in proptest::collection::vec(proptest::collection::vec(0..6_u64, 4), 1..6),
            sizes in proptest::collection::vec(prop_oneof![0..200_usize, 15_000..30_000_usize, Just(BLOCK_SIZE)], 4),
            oldest in proptest::collection::vec(proptest::option::of(1..20_u64), 4),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (mut inputs, mut expected) = (Vec::new(), Logs::new());
            let mut next = [1; 4];
            for input in &lengths {
                let mut logs = Logs::new();
                for (log, count) in input.iter().enumerate() {
                    // One of each count is a hole.
                    if *count > 1 {
                        let made = publications(next[log], next[log] + count - 2, sizes[log]);
                        let live = made.iter().filter(|made| oldest[log].is_some_and(|oldest| oldest <= made.sequence.0));
                        let live: Vec<_> = live.cloned().collect();
                        if !live.is_empty() {
                            expected.entry(log as u64).or_default().extend(live);
                        }
                        logs.insert(log as u64, made);
                    }
                    next[log] += count;
                }
                inputs.push(logs);
            }
            let live = |log: LogNumber| oldest[log.0 as usize].map(Sequence);
            let (merged, found) = merged(dir.path(), &inputs, &live);
            prop_assert_eq!(merged.damaged, []);
            prop_assert_eq!(found, expected);
        }
    }
}
