//! The end comes between two steps of the background thread: each composes what is on disk before and after them.

use std::fs;

use super::*;

const LOGS: u64 = 3;
const LAST: u64 = 60;

/// Writes `first` to `last` of each log, and some state.
fn write(log: &mut DataLog, first: u64, last: u64) {
    for number in (1..=LOGS).map(LogNumber) {
        let mut records = vec![chunk(number, first, last), put("last", &last.to_string())];
        if first == 1 {
            records.insert(0, Record::CreateLog(number));
        }
        log.write(&records).unwrap();
    }
    log.sync().unwrap();
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A data directory with these parts of `after` in place of those of `before`; of segments, both.
fn compose(before: &Path, after: &Path, parts: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(before, dir.path());
    for part in parts {
        let target = dir.path().join(part);
        if *part != "segments" {
            fs::remove_dir_all(&target).unwrap();
        }
        copy_dir(&after.join(part), &target);
    }
    dir
}

/// Opens twice, since what the first start does must be right too.
fn check(dir: &Path, options: impl Fn(&Path) -> Options, case: &str) {
    let is_gone = !dir.join("catalogue").exists();
    for start in 0..2 {
        let (mut log, recovered) = DataLog::open(options(dir)).unwrap();
        let is_rebuilt = recovered.report.catalogue_rebuilt;
        assert_eq!(is_rebuilt, is_gone && start == 0, "{case}");
        assert_eq!(recovered.uncertain, [], "{case}");
        assert_eq!(recovered.report.damage, [""; 0], "{case}");
        let last = (*b"last".as_slice()).into();
        assert_eq!(
            recovered.state,
            [(last, LAST.to_string().into_bytes().into())],
            "{case}"
        );
        assert_eq!(recovered.next_log, LOGS + 1, "{case}");
        let reader = log.reader();
        for _ in 0..2 {
            for number in (1..=LOGS).map(LogNumber) {
                let (sequences, gaps) = read(&reader, number, 0, LAST, 3000);
                assert_eq!(sequences.len() as u64, LAST, "{case}: {gaps:?}");
                let ids = [id(number, 5), id(number, LAST), id(number, LAST + 5)];
                let found = reader.find(number, &ids, Sequence(LAST)).unwrap();
                assert_eq!(
                    found,
                    [Some(Sequence(5)), Some(Sequence(LAST)), None],
                    "{case}"
                );
            }
            log.settle();
        }
        drop(log);
    }
}

#[test]
fn end_between_any_two_steps_of_sealing_loses_nothing() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut log, _) = open(before.path());
    write(&mut log, 1, 30);
    log.end_journal();
    log.settle();
    log.backlog().pretend_room(0);
    write(&mut log, 31, 50);
    log.end_journal();
    write(&mut log, 51, LAST);
    drop(log);
    copy_dir(before.path(), after.path());
    let (mut log, _) = open(after.path());
    log.settle();
    drop(log);
    let segments = |dir: &Path| fs::read_dir(dir.join("segments")).unwrap().count();
    assert!(segments(before.path()) < segments(after.path()));

    let steps: [&[&str]; 5] = [
        &[],
        &["segments"],
        &["segments", "state"],
        &["segments", "state", "catalogue"],
        &["segments", "state", "catalogue", "journal"],
    ];
    for parts in steps {
        let dir = compose(before.path(), after.path(), parts);
        check(dir.path(), options, &format!("{parts:?}"));
        let dir = compose(before.path(), after.path(), parts);
        fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
        check(dir.path(), options, &format!("{parts:?} without catalogue"));
    }
}

#[test]
fn end_between_any_two_steps_of_merging_loses_nothing() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut log, _) = open(before.path());
    for part in 0..LAST / 10 {
        write(&mut log, part * 10 + 1, part * 10 + 10);
        log.end_journal();
        log.settle();
    }
    log.close().unwrap();
    copy_dir(before.path(), after.path());
    let merging = |dir: &Path| Options {
        merge_at: 3,
        ..options(dir)
    };
    let (mut log, _) = DataLog::open(merging(after.path())).unwrap();
    log.settle();
    log.close().unwrap();

    for parts in [&["segments"][..], &["segments", "catalogue"]] {
        let dir = compose(before.path(), after.path(), parts);
        check(dir.path(), options, &format!("{parts:?}, not merged again"));
        let dir = compose(before.path(), after.path(), parts);
        check(dir.path(), merging, &format!("{parts:?}, merged again"));
        let dir = compose(before.path(), after.path(), parts);
        fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
        check(
            dir.path(),
            merging,
            &format!("{parts:?}, without catalogue"),
        );
    }
}
