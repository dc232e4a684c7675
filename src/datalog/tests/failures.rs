//! One failure behind another: what the first left, the second finds.

use std::{fs, sync::mpsc};

use super::{
    backup::revived,
    damage::{ONE, append, copy_dir, files, journal_of, place_of},
    *,
};
use crate::datalog::disk::simulated::{Call, Disk, End};

fn turns(log: &DataLog, count: usize) {
    for _ in 0..count {
        log.backlog().let_merge();
        log.backlog().do_one();
    }
}

/// Another sync, through a handle that came later, succeeded: what the log was to be without was let go, and what said so was lost.
#[test]
fn what_a_failed_sync_took_is_relied_on_by_nobody() {
    for seed in 0..30 {
        let disk = Disk::with_turns(seed);
        let (mut log, _) = open(&disk.dir());
        log.write(&[Record::CreateLog(ONE)]).unwrap();
        append(&mut log, ONE, 1, 20);
        log.try_to_end_journal().unwrap();
        let is_sealed = seed % 2 == 0;
        if is_sealed {
            turns(&log, 20);
        }
        log.write(&[put("a", "1"), Record::RemoveLog(ONE)]).unwrap();
        disk.fail(Call::Sync, 0);
        log.sync().unwrap_err();
        turns(&log, 20);
        disk.end(End::PowerCut);
        drop(log);
        disk.revive();
        let (log, recovered) = open(&disk.dir());
        assert_eq!(recovered.report.damage, [""; 0], "seed {seed}");
        if recovered.state.is_empty() {
            let (sequences, gaps) = read(&log.reader(), ONE, 0, 20, 2000);
            assert_eq!((sequences.len(), gaps), (20, vec![]), "seed {seed}");
        }
    }
}

/// The first of the journals that a merge was made of was sealed again, and hid the merge.
#[test]
fn merge_that_a_catalogue_forgot_is_not_hidden_by_what_is_sealed_again() {
    let disk = Disk::with_turns(1);
    let (dir, earlier) = (disk.dir(), tempfile::tempdir().unwrap());
    let catalogue = dir.join("catalogue");
    let open = || {
        let options = Options {
            merge_at: 2,
            ..options(&dir)
        };
        DataLog::open(options).unwrap()
    };
    open().0.close().unwrap();
    copy_dir(&catalogue, earlier.path());
    let (mut log, _) = open();
    log.write(&[Record::CreateLog(ONE)]).unwrap();
    for first in [1, 21] {
        append(&mut log, ONE, first, first + 19);
        log.try_to_end_journal().unwrap();
        turns(&log, 20);
    }
    log.close().unwrap();
    assert_eq!(files(&dir, "segments").len(), 1);

    fs::remove_dir_all(&catalogue).unwrap();
    fs::create_dir(&catalogue).unwrap();
    copy_dir(earlier.path(), &catalogue);
    let (log, recovered) = open();
    assert!(!recovered.report.catalogue_rebuilt);
    let unsealed = || log.backlog().unsealed_generations().len();
    assert_eq!(unsealed(), 2);
    while unsealed() > 1 {
        log.backlog().do_one();
    }
    drop(log);
    fs::remove_dir_all(&catalogue).unwrap();
    let (log, _) = open();
    let (sequences, gaps) = read(&log.reader(), ONE, 0, 40, 2000);
    assert_eq!((sequences.len(), gaps), (40, vec![]));
}

/// 20 publications, and a torn tail for the copy of which there is no room.
fn torn(disk: &Disk) {
    let (mut log, _) = open(&disk.dir());
    log.write(&[Record::CreateLog(ONE)]).unwrap();
    append(&mut log, ONE, 1, 20);
    log.write(&[chunk(ONE, 21, 250)]).unwrap();
    let (path, offset) = log.last_batch();
    disk.end(End::Kill);
    drop(log);
    disk.revive();
    disk.damage(&path, |bytes| bytes[offset as usize + 20_000..].fill(0));
    disk.set_room(Some(9_000));
}

/// What there was of the copy took the room.
#[test]
fn torn_tail_that_can_not_be_copied_is_no_reason_not_to_start() {
    let disk = Disk::with_turns(1);
    torn(&disk);
    for _ in 0..3 {
        let (_, recovered) = open(&disk.dir());
        assert_eq!(recovered.logs[&ONE].last, Sequence(20));
    }
}

/// The next start took it for damage of an earlier run.
#[test]
fn torn_tail_that_could_not_be_copied_is_no_damage_later() {
    for is_orderly in [false, true] {
        let disk = Disk::with_turns(1);
        torn(&disk);
        for is_full in [true, true, false] {
            if !is_full {
                disk.set_room(None);
            }
            let (log, recovered) = open(&disk.dir());
            assert_eq!(recovered.report.cut_bytes == 0, is_full);
            assert_eq!(recovered.logs[&ONE].last, Sequence(20));
            assert_eq!(recovered.report.damage, [""; 0]);
            assert_eq!(recovered.uncertain, []);
            if is_orderly {
                log.close().unwrap();
            } else {
                drop(log);
            }
        }
    }
}

/// What a backup has is as after an orderly end, with which no tail is torn.
#[test]
fn torn_tail_that_is_still_there_is_not_backed_up() {
    let disk = Disk::with_turns(1);
    torn(&disk);
    let (log, _) = open(&disk.dir());
    let (frozen, is_frozen) = mpsc::channel();
    log.freezer()
        .freeze(move |outcome| frozen.send(outcome).unwrap());
    log.backlog().do_one();
    let frozen = is_frozen.try_recv().unwrap().unwrap();
    let copy = revived(frozen.contents());
    let (_, recovered) = open(copy.path());
    assert_eq!(recovered.logs[&ONE].last, Sequence(20));
    assert_eq!(recovered.report.damage, [""; 0]);
}

/// Generations 1 to 3, sealed, of 20 publications each; their segments are merged if there are `merge_at`.
fn three_sealed(dir: &Path, merge_at: usize) {
    let options = Options {
        merge_at,
        ..options(dir)
    };
    let (mut log, _) = DataLog::open(options).unwrap();
    log.write(&[Record::CreateLog(ONE)]).unwrap();
    for first in [1, 21, 41] {
        append(&mut log, ONE, first, first + 19);
        log.write(&[put(&first.to_string(), "value")]).unwrap();
        log.try_to_end_journal().unwrap();
        turns(&log, 20);
    }
    log.close().unwrap();
}

/// The state log keeps its first batches, and the catalogue is gone.
fn lose_catalogue_and_end_of_state_log(disk: &Disk, kept: usize) {
    let path = disk.dir().join("state/log");
    disk.damage(&path, |bytes| {
        let mut at = 0;
        for _ in 0..kept {
            let (len, _) = journal::format::peek(&bytes[at..]).unwrap();
            at = (at + len).next_multiple_of(journal::format::ALIGNMENT);
        }
        bytes.truncate(at);
    });
    fs::remove_dir_all(disk.dir().join("catalogue")).unwrap();
}

/// A segment was to be made again of a journal, which counted as sealed for another that was behind it.
#[test]
fn segment_in_front_of_one_that_is_kept_is_kept() {
    for lost in 1..=3 {
        let disk = Disk::with_turns(1);
        three_sealed(&disk.dir(), 16);
        lose_catalogue_and_end_of_state_log(&disk, 1);
        // Its file was used again.
        for path in files(&disk.dir(), "journal") {
            let bytes = fs::read(&path).unwrap();
            if place_of(&bytes, ONE, lost * 20).is_some() {
                disk.damage(&path, |bytes| bytes.fill(0));
            }
        }
        for _ in 0..2 {
            let (log, recovered) = open(&disk.dir());
            let (sequences, gaps) = read(&log.reader(), ONE, 0, 60, 2000);
            assert_eq!((sequences.len(), gaps), (60, vec![]), "{lost}");
            // The state log told of the first; of the one that is lost, nobody knows.
            let state = if lost == 1 { 3 } else { 2 };
            assert_eq!(recovered.state.len(), state, "{lost}");
            turns(&log, 20);
        }
    }
}

/// It was taken for one that never became known, for one of the journals that it was made of.
#[test]
fn merge_is_kept_where_the_state_log_lost_its_end() {
    for kept in 0..3 {
        let disk = Disk::with_turns(1);
        three_sealed(&disk.dir(), 3);
        assert_eq!(files(&disk.dir(), "segments").len(), 1);
        lose_catalogue_and_end_of_state_log(&disk, kept);
        for _ in 0..2 {
            let (log, recovered) = open(&disk.dir());
            let (sequences, gaps) = read(&log.reader(), ONE, 0, 60, 2000);
            assert_eq!((sequences.len(), gaps), (60, vec![]), "{kept}");
            assert_eq!(recovered.state.len(), 3, "{kept}");
            turns(&log, 20);
        }
    }
}

/// The journal was to be sealed again although a part of it was damaged, and the segment that had everything was removed.
#[test]
fn segment_of_a_journal_that_was_damaged_since_is_kept() {
    let disk = Disk::with_turns(1);
    three_sealed(&disk.dir(), 16);
    lose_catalogue_and_end_of_state_log(&disk, 2);
    let (path, _) = journal_of(&disk.dir(), ONE, 60);
    disk.damage(&path, |bytes| {
        let at = place_of(bytes, ONE, 45).unwrap();
        bytes[at] ^= 1;
    });
    let (log, recovered) = open(&disk.dir());
    let (sequences, gaps) = read(&log.reader(), ONE, 0, 60, 2000);
    assert_eq!((sequences.len(), gaps), (60, vec![]));
    assert_eq!(recovered.state.len(), 3);
    let damage = &recovered.report.damage;
    assert!(damage[0].contains(path.to_str().unwrap()), "{damage:?}");
}
