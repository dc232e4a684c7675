//! What is damaged on disk is told, and never taken for what was written.

use std::{fs, path::PathBuf};

use super::*;
use crate::datalog::journal::format::{ALIGNMENT, Batch, BatchBuilder, BatchHeader};
use crate::protocol::GapCause;

pub(super) const ONE: LogNumber = LogNumber(1);
pub(super) const TWO: LogNumber = LogNumber(2);

/// Batches of 10 publications of the log, each synced.
pub(super) fn append(log: &mut DataLog, number: LogNumber, first: u64, last: u64) {
    for from in (first..=last).step_by(10) {
        log.write(&[chunk(number, from, (from + 9).min(last))])
            .unwrap();
        log.sync().unwrap();
    }
}

pub(super) fn files(dir: &Path, sub: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join(sub)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Where a publication stands in a journal.
pub(super) fn place_of(journal: &[u8], number: LogNumber, sequence: u64) -> Option<usize> {
    let Record::Publications(chunk) = chunk(number, sequence, sequence) else {
        unreachable!("a chunk is of publications");
    };
    let frames = chunk.frames;
    let mut windows = journal.windows(frames.len());
    windows.position(|window| window == frames)
}

/// The journal that holds the publication, and how long it is.
pub(super) fn journal_of(dir: &Path, number: LogNumber, sequence: u64) -> (PathBuf, usize) {
    for path in files(dir, "journal") {
        let bytes = fs::read(&path).unwrap();
        if place_of(&bytes, number, sequence).is_some() {
            let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
            return (path, end);
        }
    }
    panic!("no journal has log {}", number.0);
}

pub(super) fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x5a;
    fs::write(path, bytes).unwrap();
}

/// Everything that the log had is read right, or told to be missing; how many are missing.
fn check_told(log: &DataLog, recovered: &Recovered, number: LogNumber, had: u64) -> u64 {
    let Some(extent) = recovered.logs.get(&number) else {
        assert!(!recovered.report.damage.is_empty());
        return had;
    };
    let last = extent.last.0;
    if last < had {
        assert!(
            recovered.uncertain.contains(&number),
            "log {} ends at {last}",
            number.0
        );
    }
    let (sequences, gaps) = read(&log.reader(), number, 0, last, 2000);
    let gaps = gaps
        .iter()
        .inspect(|gap| assert_eq!(gap.cause, GapCause::Damage));
    let missing: u64 = gaps.map(|gap| gap.to.0 - gap.from.0 + 1).sum();
    assert_eq!(sequences.len() as u64 + missing, last);
    missing + (had - last)
}

#[test]
fn torn_tail_costs_what_was_not_synced_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.write(&[Record::CreateLog(ONE)]).unwrap();
    append(&mut log, ONE, 1, 20);
    let (path, synced) = journal_of(dir.path(), ONE, 1);
    log.write(&[chunk(ONE, 21, 22)]).unwrap();
    drop(log);
    let (_, end) = journal_of(dir.path(), ONE, 1);
    let whole = fs::read(&path).unwrap();
    let before: Vec<_> = files(dir.path(), "journal")
        .into_iter()
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    for cut in (synced + 8..end).step_by(5) {
        let copy = tempfile::tempdir().unwrap();
        for sub in ["journal", "state", "segments", "quarantine"] {
            fs::create_dir(copy.path().join(sub)).unwrap();
        }
        for name in ["format", "running"] {
            fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        for (bytes, path) in &before {
            let name = path.file_name().unwrap();
            fs::write(copy.path().join("journal").join(name), bytes).unwrap();
        }
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        fs::write(
            copy.path().join("journal").join(path.file_name().unwrap()),
            torn,
        )
        .unwrap();
        for _ in 0..2 {
            let (log, recovered) = open(copy.path());
            assert_eq!(recovered.logs[&ONE].last, Sequence(20), "cut at {cut}");
            assert_eq!(recovered.uncertain, vec![], "cut at {cut}");
            assert_eq!(check_told(&log, &recovered, ONE, 20), 0);
        }
    }
}

#[test]
fn end_in_another_boot_is_told_until_something_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.write(&[Record::CreateLog(ONE)]).unwrap();
    append(&mut log, ONE, 1, 20);
    drop(log);
    let running = dir.path().join("running");
    let text = fs::read_to_string(&running).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(&running, format!("another boot\n{rest}")).unwrap();
    for _ in 0..2 {
        // As when the port is in use: nothing could be done about it.
        let (_, recovered) = open(dir.path());
        assert!(recovered.unclean_boot);
    }
    let (mut log, recovered) = open(dir.path());
    assert!(recovered.unclean_boot);
    log.write(&[put("epoch", "new")]).unwrap();
    log.sync().unwrap();
    drop(log);
    let (_, recovered) = open(dir.path());
    assert!(recovered.report.unclean && !recovered.unclean_boot);
}

#[test]
fn end_that_is_gone_since_an_orderly_one_is_damage() {
    for whole_file in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path());
        log.write(&[Record::CreateLog(ONE)]).unwrap();
        log.end_journal();
        log.settle();
        append(&mut log, ONE, 1, 20);
        let (_, before) = journal_of(dir.path(), ONE, 1);
        append(&mut log, ONE, 21, 30);
        log.close().unwrap();

        let (path, end) = journal_of(dir.path(), ONE, 1);
        if whole_file {
            fs::remove_file(path).unwrap();
        } else {
            let mut bytes = fs::read(&path).unwrap();
            bytes[before..end].fill(0);
            fs::write(&path, bytes).unwrap();
        }
        let (mut log, recovered) = open(dir.path());
        assert_eq!(recovered.uncertain, vec![ONE]);
        log.write(&[put("epoch", "new")]).unwrap();
        // The damaged journal is gone then: as long as it is there, each start finds the end missing.
        log.settle();
        log.close().unwrap();
        let (_, recovered) = open(dir.path());
        assert_eq!(recovered.uncertain, vec![]);
    }
}

#[test]
fn log_without_its_end_is_told_until_something_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.write(&[Record::CreateLog(ONE), Record::CreateLog(TWO)])
        .unwrap();
    append(&mut log, ONE, 1, 20);
    let (path, before) = journal_of(dir.path(), ONE, 1);
    append(&mut log, ONE, 21, 30);
    let (_, after) = journal_of(dir.path(), ONE, 1);
    append(&mut log, TWO, 1, 30);
    append(&mut log, TWO, 31, 60);
    drop(log);
    flip(&path, (before + after) / 2);
    for _ in 0..2 {
        let (mut log, recovered) = open(dir.path());
        assert!(recovered.uncertain.contains(&ONE));
        // The damaged journal is gone then.
        log.settle();
    }
    let (mut log, recovered) = open(dir.path());
    assert!(recovered.uncertain.contains(&ONE));
    log.write(&[put("epoch", "new")]).unwrap();
    log.sync().unwrap();
    drop(log);
    assert_eq!(open(dir.path()).1.uncertain, vec![]);
}

#[test]
fn damaged_batch_is_a_hole_and_logs_not_written_behind_it_are_uncertain() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.write(&[Record::CreateLog(ONE), Record::CreateLog(TWO)])
        .unwrap();
    append(&mut log, ONE, 1, 30);
    let (path, before) = journal_of(dir.path(), ONE, 1);
    append(&mut log, TWO, 1, 30);
    let (_, after) = journal_of(dir.path(), ONE, 1);
    append(&mut log, TWO, 31, 60);
    drop(log);
    flip(&path, (before + after) / 2);
    let (mut log, recovered) = open(dir.path());
    assert_eq!(recovered.uncertain, vec![ONE]);
    assert_eq!(recovered.report.damage.len(), 1);
    assert_eq!(check_told(&log, &recovered, ONE, 30), 0);
    assert_eq!(check_told(&log, &recovered, TWO, 60), 10);
    log.write(&[put("epoch", "new")]).unwrap();
    log.settle();
    drop(log);
    let (log, recovered) = open(dir.path());
    assert_eq!(recovered.uncertain, vec![]);
    assert_eq!(check_told(&log, &recovered, TWO, 60), 10);
}

#[test]
fn damage_at_the_end_of_a_journal_is_seen_by_the_one_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.settle();
    log.write(&[Record::CreateLog(ONE), Record::CreateLog(TWO)])
        .unwrap();
    append(&mut log, ONE, 1, 30);
    let (path, end) = journal_of(dir.path(), ONE, 1);
    // Nothing is sealed.
    log.backlog().pretend_room(0);
    log.end_journal();
    append(&mut log, TWO, 1, 30);
    drop(log);
    flip(&path, end - 20);
    let (log, recovered) = open(dir.path());
    assert_eq!(recovered.uncertain, vec![ONE]);
    assert_eq!(check_told(&log, &recovered, ONE, 30), 10);
    assert_eq!(check_told(&log, &recovered, TWO, 30), 0);
}

/// Nothing in it said that it was synced, and everything behind the damage was cut.
#[test]
fn damage_in_a_journal_that_was_synced_at_its_end_only_costs_its_batch() {
    for (is_orderly, note) in [
        (true, None),
        (false, None),
        (true, Some("ended")),
        (false, Some("running")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (path, end) = synced_at_its_end_only(dir.path(), is_orderly);
        flip(&path, end / 2);
        if let Some(note) = note {
            damage_note(dir.path(), note);
        }
        let (log, recovered) = open(dir.path());
        assert!(recovered.uncertain.contains(&ONE));
        assert_eq!(
            recovered.report.damage.len(),
            1 + usize::from(note.is_some())
        );
        assert_eq!(check_told(&log, &recovered, ONE, 10), 10);
        assert_eq!(check_told(&log, &recovered, TWO, 30), 0);
    }
}

/// As a start leaves it that has no room to copy it. It came over what was written since.
#[test]
fn what_was_never_synced_is_none_of_a_journal_that_another_goes_on_behind() {
    for note in [None, Some("running")] {
        let dir = tempfile::tempdir().unwrap();
        synced_at_its_end_only(dir.path(), false);
        let (path, _) = journal_of(dir.path(), ONE, 1);
        let mut bytes = fs::read(&path).unwrap();
        let format = fs::read_to_string(dir.path().join("format")).unwrap();
        let store = format.lines().nth(1).unwrap().parse().unwrap();
        let (mut end, mut last) = (0, None);
        while let Some(batch) = Batch::read(&bytes[end..], store) {
            end += batch.len();
            last = Some(batch.header);
        }
        let last = last.unwrap();
        let mut builder = BatchBuilder::new();
        builder.push(&chunk(TWO, 21, 25));
        let header = BatchHeader {
            // The one in front of it never came to the disk.
            number: last.number + 2,
            ..last
        };
        let never_synced = builder.finish(store, header);
        let at = end + 4 * ALIGNMENT;
        bytes[at..at + never_synced.len()].copy_from_slice(never_synced);
        fs::write(&path, bytes).unwrap();
        if let Some(note) = note {
            damage_note(dir.path(), note);
        }
        let (log, recovered) = open(dir.path());
        assert_eq!(recovered.report.damage.len(), usize::from(note.is_some()));
        assert_eq!(check_told(&log, &recovered, ONE, 10), 0);
        assert_eq!(check_told(&log, &recovered, TWO, 30), 0);
    }
}

/// In its checksum: the boot in front of it has none.
fn damage_note(dir: &Path, name: &str) {
    let note = dir.join(name);
    flip(&note, fs::read(&note).unwrap().len() - 2);
}

/// A journal that does not say that anything in it was synced, with a batch of `ONE` and two of `TWO`, in front of another. Its path, and
/// the end of the first batch.
fn synced_at_its_end_only(dir: &Path, is_orderly: bool) -> (PathBuf, usize) {
    let (mut log, _) = open(dir);
    log.write(&[Record::CreateLog(ONE), Record::CreateLog(TWO)])
        .unwrap();
    log.end_journal();
    log.settle();
    // Nothing is sealed.
    log.backlog().pretend_room(0);
    log.write(&[chunk(ONE, 1, 10)]).unwrap();
    let first = journal_of(dir, ONE, 1);
    log.write(&[chunk(TWO, 1, 10)]).unwrap();
    log.write(&[chunk(TWO, 11, 20)]).unwrap();
    log.end_journal();
    append(&mut log, TWO, 21, 30);
    match is_orderly {
        true => log.close().unwrap(),
        false => drop(log),
    }
    first
}

/// What was left of the beginning said that the file was in use by a generation to come, and that this one's end was gone.
#[test]
fn damaged_beginning_of_a_journal_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.write(&[Record::CreateLog(ONE)]).unwrap();
    append(&mut log, ONE, 1, 30);
    log.close().unwrap();
    let (path, _) = journal_of(dir.path(), ONE, 11);
    // The highest byte of the first batch's generation.
    flip(&path, 15);
    let (mut log, recovered) = open(dir.path());
    assert_eq!(recovered.report.damage.len(), 1);
    log.write(&[put("epoch", "new")]).unwrap();
    log.settle();
    log.close().unwrap();
    let (_, recovered) = open(dir.path());
    assert_eq!(recovered.report.damage, Vec::<String>::new());
    assert_eq!(recovered.uncertain, vec![]);
}

/// Nothing in front of it told how the next journal had to begin, and what was lost was not told.
#[test]
fn oldest_journal_that_is_gone_is_told() {
    for (is_first_of_its_run, is_orderly, whole_file) in [
        (true, false, true),
        (true, false, false),
        (false, false, true),
        (false, false, false),
        (true, true, true),
        (false, true, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path());
        log.write(&[Record::CreateLog(ONE), Record::CreateLog(TWO)])
            .unwrap();
        log.end_journal();
        log.settle();
        if is_first_of_its_run {
            drop(log);
            (log, _) = open(dir.path());
            log.settle();
        }
        // Nothing is sealed.
        log.backlog().pretend_room(0);
        append(&mut log, ONE, 1, 10);
        let (path, end) = journal_of(dir.path(), ONE, 1);
        log.end_journal();
        append(&mut log, TWO, 1, 30);
        if is_orderly {
            log.close().unwrap();
        } else {
            drop(log);
        }
        if whole_file {
            fs::remove_file(&path).unwrap();
        } else {
            flip(&path, end / 2);
        }
        let (log, recovered) = open(dir.path());
        assert!(!recovered.report.damage.is_empty());
        assert_eq!(recovered.uncertain, vec![ONE]);
        assert_eq!(check_told(&log, &recovered, TWO, 30), 0);
    }
}

#[test]
fn end_of_a_journal_that_was_whole_when_closed_is_never_torn() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.write(&[Record::CreateLog(ONE)]).unwrap();
    append(&mut log, ONE, 1, 30);
    log.close().unwrap();
    let (path, end) = journal_of(dir.path(), ONE, 1);
    flip(&path, end - 20);
    let (log, recovered) = open(dir.path());
    assert_eq!(recovered.uncertain, vec![ONE]);
    assert_eq!(check_told(&log, &recovered, ONE, 30), 10);
}

/// Three segments, with a journal behind them.
pub(super) fn sealed(dir: &Path) -> DataLog {
    let (mut log, _) = open(dir);
    log.write(&[
        Record::CreateLog(ONE),
        Record::CreateLog(TWO),
        put("a", "1"),
    ])
    .unwrap();
    for part in 0..3 {
        append(&mut log, ONE, part * 30 + 1, part * 30 + 30);
        append(&mut log, TWO, part * 20 + 1, part * 20 + 20);
        log.write(&[put("b", &part.to_string())]).unwrap();
        log.end_journal();
        log.settle();
    }
    append(&mut log, ONE, 91, 100);
    append(&mut log, TWO, 61, 70);
    log
}

#[test]
fn byte_flipped_in_a_segment_costs_its_block_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    drop(sealed(dir.path()));
    let path = files(dir.path(), "segments").swap_remove(1);
    let whole = fs::read(&path).unwrap();
    let mut costs = 0;
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        flip(&path, at);
        let (log, recovered) = open(dir.path());
        let missing =
            check_told(&log, &recovered, ONE, 100) + check_told(&log, &recovered, TWO, 70);
        assert!(missing <= 30, "{missing} for byte {at}");
        costs += missing;
        drop(log);
        fs::write(&path, &whole).unwrap();
    }
    assert!(costs > 0);
}

#[test]
fn byte_flipped_anywhere_is_never_taken_for_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    sealed(dir.path()).close().unwrap();
    let mut victims = files(dir.path(), "segments");
    victims.extend(files(dir.path(), "state"));
    victims.push(dir.path().join("catalogue/db"));
    victims.push(journal_of(dir.path(), ONE, 91).0);
    for (number, path) in victims.iter().enumerate() {
        let whole = fs::read(path).unwrap();
        let end = whole.iter().rposition(|&byte| byte != 0).unwrap_or(0) + 1;
        for part in 0..5 {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let victim = copy.path().join(path.strip_prefix(dir.path()).unwrap());
            flip(&victim, (end * part / 5 + number * 7) % end);
            let without_catalogue = part == 4;
            if without_catalogue {
                fs::remove_dir_all(copy.path().join("catalogue")).unwrap();
            }
            let (mut log, recovered) = open(copy.path());
            check_told(&log, &recovered, ONE, 100);
            check_told(&log, &recovered, TWO, 70);
            let state: Vec<_> = recovered.state.iter().map(|(key, _)| &key[..]).collect();
            if state != [b"a", b"b"] {
                assert!(!recovered.report.damage.is_empty(), "{}", victim.display());
            }
            log.settle();
            log.close().unwrap();
        }
    }
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn state_log_that_is_gone_is_made_again_by_the_catalogue() {
    let dir = tempfile::tempdir().unwrap();
    drop(sealed(dir.path()));
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    drop(open(dir.path()));
    fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
    let (log, recovered) = open(dir.path());
    assert!(recovered.report.catalogue_rebuilt);
    assert_eq!(recovered.state.len(), 2);
    assert_eq!(check_told(&log, &recovered, ONE, 100), 0);
    assert_eq!(check_told(&log, &recovered, TWO, 70), 0);
}

#[test]
fn segment_that_is_gone_is_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    drop(sealed(dir.path()));
    fs::remove_file(files(dir.path(), "segments").swap_remove(1)).unwrap();
    let (mut log, recovered) = open(dir.path());
    assert!(!recovered.report.damage.is_empty());
    assert_eq!(check_told(&log, &recovered, ONE, 100), 30);
    assert_eq!(check_told(&log, &recovered, TWO, 70), 20);
    log.settle();
}

#[test]
fn merging_leaves_a_damaged_block_out_and_keeps_its_file() {
    let dir = tempfile::tempdir().unwrap();
    drop(sealed(dir.path()));
    let path = files(dir.path(), "segments").swap_remove(1);
    flip(&path, 100);
    let options = Options {
        merge_at: 2,
        ..options(dir.path())
    };
    let (mut log, recovered) = DataLog::open(options).unwrap();
    log.settle();
    assert!(files(dir.path(), "segments").len() < 3);
    assert_eq!(files(dir.path(), "quarantine").len(), 1);
    assert_eq!(check_told(&log, &recovered, ONE, 100), 30);
    assert_eq!(check_told(&log, &recovered, TWO, 70), 0);
}

/// What was sealed next was appended behind the gap, and hid it: when the catalogue was lost later, so were the changes in the gap.
#[test]
fn state_log_that_could_not_be_made_again_is_before_anything_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    sealed(dir.path()).close().unwrap();
    let (path, in_the_way) = (
        dir.path().join("state/log"),
        dir.path().join("state/log.tmp"),
    );
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    fs::create_dir(&in_the_way).unwrap();
    let (mut log, recovered) = open(dir.path());
    let damage = &recovered.report.damage;
    assert!(damage[0].contains("state/log lacks its end"), "{damage:?}");
    fs::remove_dir(&in_the_way).unwrap();
    log.write(&[put("c", "3")]).unwrap();
    log.end_journal();
    log.settle();
    log.close().unwrap();
    fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
    let (_, recovered) = open(dir.path());
    let entry = |key: &str, value: &str| (key.as_bytes().into(), value.as_bytes().into());
    let state = [entry("a", "1"), entry("b", "2"), entry("c", "3")];
    assert_eq!(recovered.state, state);
}
