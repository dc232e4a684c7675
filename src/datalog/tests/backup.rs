//! What is held still is a moment of the log, and becomes a log again, without a catalogue.

use std::{fs, sync::mpsc};

use super::{
    damage::{ONE, TWO, append, files, flip, sealed},
    shadow::Shadow,
    verify::{check, snapshot},
    *,
};

/// Everything of an open data log, held still.
pub(super) fn freeze(log: &DataLog) -> Frozen {
    try_to_freeze(log).unwrap()
}

fn try_to_freeze(log: &DataLog) -> Result<Frozen, FreezeError> {
    let (frozen, is_frozen) = mpsc::channel();
    log.freezer()
        .freeze(move |outcome| frozen.send(outcome).unwrap());
    is_frozen.recv().unwrap()
}

/// The data directory that is made of a backup.
pub(super) fn revived(contents: &Contents) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut revival = Revival::begin(dir.path(), contents.store).unwrap();
    for part in &contents.parts {
        revival.add(part.name, &mut part.open().unwrap()).unwrap();
    }
    revival.finish().unwrap();
    dir
}

/// What is in [`sealed`], and behind it: logs that were removed, and of which nothing or a part is kept.
fn rich(dir: &Path) -> (DataLog, Shadow) {
    let mut log = sealed(dir);
    let mut shadow = Shadow::default();
    let before = [
        Record::CreateLog(ONE),
        Record::CreateLog(TWO),
        put("a", "1"),
        chunk(ONE, 1, 100),
        chunk(TWO, 1, 70),
        put("b", "2"),
    ];
    before.iter().for_each(|record| shadow.apply(record));
    let mut write = |log: &mut DataLog, records: &[Record]| {
        log.write(records).unwrap();
        records.iter().for_each(|record| shadow.apply(record));
    };
    let (three, four, five) = (LogNumber(3), LogNumber(4), LogNumber(5));
    let create = [three, four, five].map(Record::CreateLog);
    write(&mut log, &create);
    for number in [three, four, five] {
        write(&mut log, &[chunk(number, 1, 40)]);
    }
    log.end_journal();
    let truncate = |log, first| Record::Truncate {
        log,
        first: Sequence(first),
    };
    write(
        &mut log,
        &[truncate(ONE, 35), truncate(three, 41), delete("a")],
    );
    // The newest number that was ever used must not be used again.
    write(&mut log, &[Record::RemoveLog(five), put("c", "3")]);
    log.end_journal();
    log.settle();
    write(
        &mut log,
        &[chunk(ONE, 101, 120), truncate(four, 12), put("b", "4")],
    );
    log.sync().unwrap();
    (log, shadow)
}

fn check_revived(contents: &Contents, shadow: &Shadow) {
    let dir = revived(contents);
    let report = check(dir.path()).unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert!(!report.recovery.unclean && !report.unclean_boot);
    let (log, recovered) = open(dir.path());
    assert_eq!(shadow.difference(&recovered), None);
    assert_eq!(recovered.report.damage, Vec::<String>::new());
    assert!(recovered.uncertain.is_empty() && !recovered.unclean_boot);
    shadow.check(&log.reader());
}

#[test]
fn what_is_held_still_is_restored_whole_however_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, shadow) = rich(dir.path());
    let frozen = freeze(&log);
    check_revived(frozen.contents(), &shadow);
    // All of it dies, and every journal comes to be used again that can be.
    let removed = [ONE, TWO, LogNumber(3), LogNumber(4)].map(Record::RemoveLog);
    log.write(&removed).unwrap();
    let other = LogNumber(6);
    log.write(&[Record::CreateLog(other), put("b", "5"), delete("c")])
        .unwrap();
    for part in 0..6 {
        append(&mut log, other, part * 10 + 1, part * 10 + 10);
        log.end_journal();
        log.settle();
    }
    for part in &frozen.contents().parts {
        let original = dir.path().join(part.name.to_string());
        let is_gone = matches!(part.name, PartName::Segment(_));
        assert!(!is_gone || !original.exists(), "{}", part.name);
    }
    check_revived(frozen.contents(), &shadow);
    drop(frozen);
    assert!(!dir.path().join("backup.tmp").exists());
    let (sequences, _) = read(&log.reader(), other, 0, 60, 1000);
    assert_eq!(sequences.len(), 60);
}

#[test]
fn publishing_goes_on_while_everything_is_held_still() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = sealed(dir.path());
    let frozen = freeze(&log);
    // Far more than the journals that are held have room for.
    for part in 10..80 {
        append(&mut log, ONE, part * 10 + 1, part * 10 + 10);
        if part % 5 == 0 {
            log.end_journal();
        }
    }
    log.settle();
    assert!(files(dir.path(), "journal").len() <= 6);
    drop(frozen);
    freeze(&log);
    log.close().unwrap();
    assert!(check(dir.path()).unwrap().is_whole());
}

/// The state log told of a journal whose commit had not ended: taken whole, the journal would have counted as sealed.
#[test]
fn log_that_is_held_still_between_any_two_steps_of_a_commit_is_restored_whole() {
    let mut was_between = 0;
    for steps in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, shadow) = rich(dir.path());
        log.settle();
        log.allow_steps(steps);
        log.end_journal();
        log.backlog().wait_until_still();
        was_between += u32::from(log.backlog().space().full);
        check_revived(freeze(&log).contents(), &shadow);
        drop(log);
        let still = Still::open(dir.path()).unwrap();
        check_revived(still.contents(), &shadow);
    }
    assert!(was_between > 3, "{was_between}");
}

#[test]
fn directory_at_rest_is_restored_whole_and_not_changed_whatever_its_end_was() {
    for is_orderly in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (log, shadow) = rich(dir.path());
        if is_orderly {
            log.close().unwrap();
        } else {
            drop(log);
        }
        let before = snapshot(dir.path());
        let still = Still::open(dir.path()).unwrap();
        let locked = DataLog::open(options(dir.path()));
        assert!(matches!(locked, Err(OpenError::Locked(_))));
        check_revived(still.contents(), &shadow);
        assert_eq!(still.damage(), Vec::<String>::new());
        drop(still);
        assert!(snapshot(dir.path()) == before);
        // The catalogue was damaged, and is not part of it.
        fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
        check_revived(Still::open(dir.path()).unwrap().contents(), &shadow);
    }
}

#[test]
fn directory_without_anything_is_restored_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    check_revived(freeze(&log).contents(), &Shadow::default());
    log.close().unwrap();
    let still = Still::open(dir.path()).unwrap();
    check_revived(still.contents(), &Shadow::default());
}

#[test]
fn restored_directory_takes_no_file_of_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let (log, shadow) = rich(dir.path());
    let copy = revived(freeze(&log).contents());
    log.close().unwrap();
    for path in files(dir.path(), "journal") {
        let name = format!("9{}", path.file_name().unwrap().to_str().unwrap());
        fs::copy(&path, copy.path().join("journal").join(name)).unwrap();
    }
    let (log, recovered) = open(copy.path());
    assert_eq!(shadow.difference(&recovered), None);
    shadow.check(&log.reader());
}

#[test]
fn damage_is_backed_up_as_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = rich(dir.path());
    log.close().unwrap();
    for path in files(dir.path(), "segments") {
        let len = fs::metadata(&path).unwrap().len() as usize;
        flip(&path, len / 2);
    }
    let of_original = check(dir.path()).unwrap();
    assert!(!of_original.is_whole());
    let still = Still::open(dir.path()).unwrap();
    let of_copy = check(revived(still.contents()).path()).unwrap();
    assert!(!of_copy.is_whole());
    assert_eq!(of_copy.logs, of_original.logs);
}

#[test]
fn segment_that_is_gone_is_told_and_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = rich(dir.path());
    let path = files(dir.path(), "segments").swap_remove(0);
    fs::remove_file(path).unwrap();
    let refused = try_to_freeze(&log);
    assert!(
        matches!(refused, Err(FreezeError::Io { .. })),
        "{refused:?}"
    );
    assert!(!dir.path().join("backup.tmp").exists());
    // Nothing else suffers.
    log.close().unwrap();
}

#[test]
fn what_a_backup_left_behind_is_removed_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, shadow) = rich(dir.path());
    std::mem::forget(freeze(&log));
    log.settle();
    drop(log);
    assert!(dir.path().join("backup.tmp/state/log").exists());
    assert!(check(dir.path()).unwrap().is_whole());
    let (log, recovered) = open(dir.path());
    assert!(!dir.path().join("backup.tmp").exists());
    assert_eq!(shadow.difference(&recovered), None);
    shadow.check(&log.reader());
}

#[test]
fn log_that_has_ended_is_held_still_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = rich(dir.path());
    let freezer = log.freezer();
    log.close().unwrap();
    let (told, is_told) = mpsc::channel();
    freezer.freeze(move |outcome| told.send(outcome.is_err()).unwrap());
    assert_eq!(is_told.recv(), Ok(true));
}
