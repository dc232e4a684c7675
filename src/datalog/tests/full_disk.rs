//! A disk without room: what still goes on, and that it ends.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use super::*;

const LOG: LogNumber = LogNumber(1);

fn events(dir: &Path) -> (Options, mpsc::Receiver<Event>) {
    let (sender, receiver) = mpsc::channel();
    let events = Arc::new(move |event| {
        let _ = sender.send(event); // the test may be over
    });
    let options = Options {
        events,
        ..options(dir)
    };
    (options, receiver)
}

fn until_space(events: &mpsc::Receiver<Event>, is_it: impl Fn(Space) -> bool) {
    const PATIENCE: Duration = Duration::from_secs(30);
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            Event::SpaceChanged(space) if is_it(space) => return,
            _ => {}
        }
    }
}

/// Appends what is guaranteed until nothing more is; the last publication.
fn fill(log: &mut DataLog) -> u64 {
    let mut last = 0;
    loop {
        let record = chunk(LOG, last + 1, last + 20);
        if record.encoded_len() > log.space().guaranteed {
            return last;
        }
        log.write(&[record]).unwrap();
        last += 20;
    }
}

#[test]
fn state_changes_go_on_when_there_is_no_room_for_publications() {
    let dir = tempfile::tempdir().unwrap();
    let (options, events) = events(dir.path());
    let (mut log, _) = DataLog::open(options.clone()).unwrap();
    log.write(&[Record::CreateLog(LOG)]).unwrap();
    log.settle();
    log.backlog().pretend_room(0);
    let last = fill(&mut log);
    log.end_journal();
    until_space(&events, |space| space.full);
    for n in 0..100 {
        log.write(&[put(&n.to_string(), "value")]).unwrap();
    }
    log.sync().unwrap();
    assert_eq!(read(&log.reader(), LOG, 0, last, 9000).0.len() as u64, last);
    assert!(log.space().guaranteed < 20 * 400, "{:?}", log.space());

    log.backlog().pretend_room(u64::MAX);
    until_space(&events, |space| !space.full && space.guaranteed > 30_000);
    log.write(&[chunk(LOG, last + 1, last + 9)]).unwrap();
    log.settle();
    drop(log);
    let (log, recovered) = DataLog::open(options).unwrap();
    assert_eq!(recovered.state.len(), 100);
    assert_eq!(
        read(&log.reader(), LOG, 0, last + 9, 9000).0.len() as u64,
        last + 9
    );
}

#[test]
fn writing_ends_for_good_when_the_reserve_is_full_too() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.settle();
    log.backlog().pretend_room(0);
    log.end_journal();
    log.backlog().wait_until_full();
    let written = (0..10_000).find_map(|n| log.write(&[put(&n.to_string(), "value")]).err());
    assert!(
        matches!(written, Some(WriteError::Failed(_))),
        "{written:?}"
    );
    assert!(log.write(&[put("a", "b")]).is_err());
    assert!(log.sync().is_err());
}

#[test]
fn what_is_guaranteed_finds_room_in_any_batches() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.write(&[Record::CreateLog(LOG)]).unwrap();
    log.settle();
    log.backlog().pretend_room(0);
    let mut left = log.space().guaranteed;
    assert!(left > 50_000);
    let mut last = 0;
    loop {
        let record = chunk(LOG, last + 1, last + 1);
        let Some(rest) = left.checked_sub(record.encoded_len()) else {
            break;
        };
        left = rest;
        last += 1;
        log.write(&[record]).unwrap();
    }
    log.sync().unwrap();
    assert_eq!(read(&log.reader(), LOG, 0, last, 9000).0.len() as u64, last);
}

#[test]
fn room_comes_back_when_what_waits_to_be_sealed_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (options, events) = events(dir.path());
    let (mut log, _) = DataLog::open(options).unwrap();
    log.write(&[Record::CreateLog(LOG)]).unwrap();
    log.settle();
    // Enough for what is small, not for a journal.
    log.backlog().pretend_room(0);
    fill(&mut log);
    log.end_journal();
    until_space(&events, |space| space.full);
    log.write(&[Record::RemoveLog(LOG)]).unwrap();
    log.sync().unwrap();
    log.backlog().pretend_room(1000);
    until_space(&events, |space| !space.full && space.guaranteed > 30_000);
}

const SMALL_DISK: &str = "INFOTAINER_SMALL_DISK";

/// Appends until the disk is full; the last publication.
fn fill_disk(log: &mut DataLog, events: &mpsc::Receiver<Event>) -> u64 {
    log.write(&[Record::CreateLog(LOG)]).unwrap();
    let mut last = 0;
    loop {
        let record = chunk(LOG, last + 1, last + 100);
        let space = log.space();
        if record.encoded_len() <= space.guaranteed {
            log.write(&[record]).unwrap();
            last += 100;
        } else if space.full {
            return last;
        } else {
            log.sync().unwrap();
            let _ = events.recv_timeout(Duration::from_millis(100));
        }
    }
}

/// Fills the disk, starts again some times, and lets go of what `let_go` does away with.
fn fill_and_free(journal_size: u64, let_go: impl Fn(u64) -> Record) {
    let root = std::env::var_os(SMALL_DISK).unwrap();
    let dir = tempfile::tempdir_in(root).unwrap();
    let (options, events) = events(dir.path());
    let options = Options {
        journal_size,
        ..options
    };
    let (mut log, _) = DataLog::open(options.clone()).unwrap();
    let last = fill_disk(&mut log, &events);
    for round in 0..12 {
        for n in 0..20 {
            let record = put(&n.to_string(), &round.to_string());
            log.write(&[record]).unwrap();
        }
        log.sync().unwrap();
        assert_eq!(read(&log.reader(), LOG, 0, last, 9000).0.len() as u64, last);
        drop(log);
        let (reopened, recovered) = DataLog::open(options.clone()).unwrap();
        assert_eq!(recovered.state.len(), 20);
        assert_eq!(recovered.uncertain, vec![]);
        assert_eq!(recovered.logs[&LOG].last, Sequence(last));
        log = reopened;
    }
    log.write(&[let_go(last)]).unwrap();
    log.sync().unwrap();
    until_space(&events, |space| !space.full && space.guaranteed > 100_000);
    let next = LogNumber(2);
    log.write(&[Record::CreateLog(next), chunk(next, 1, 100)])
        .unwrap();
    log.settle();
    assert_eq!(read(&log.reader(), next, 0, 100, 9000).0.len(), 100);
    log.close().unwrap();
}

#[test]
#[ignore = "needs a file system of about 24 MiB, mounted at $INFOTAINER_SMALL_DISK"]
fn disk_that_is_really_full_can_be_opened_read_and_freed() {
    fill_and_free(256 << 10, |last| Record::Truncate {
        log: LOG,
        first: Sequence(last - 99),
    });
}

#[test]
#[ignore = "needs a file system of about 24 MiB, mounted at $INFOTAINER_SMALL_DISK"]
fn disk_that_is_full_of_journals_can_be_opened_and_freed() {
    fill_and_free(4 << 20, |_| Record::RemoveLog(LOG));
}
