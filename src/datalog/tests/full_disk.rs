//! A disk without room: what still goes on, and that it ends.

use std::sync::{Arc, mpsc};

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
    let mut spaces = events.iter().filter_map(|event| match event {
        Event::SpaceChanged(space) => Some(space),
        _ => None,
    });
    assert!(spaces.any(is_it));
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
    log.backlog().pretend_full_disk(true);
    let last = fill(&mut log);
    log.end_journal();
    until_space(&events, |space| space.full);
    for n in 0..100 {
        log.write(&[put(&n.to_string(), "value")]).unwrap();
    }
    log.sync().unwrap();
    assert_eq!(read(&log.reader(), LOG, 0, last, 9000).0.len() as u64, last);
    assert!(log.space().guaranteed < 20 * 400, "{:?}", log.space());

    log.backlog().pretend_full_disk(false);
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
    log.backlog().pretend_full_disk(true);
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
    log.backlog().pretend_full_disk(true);
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
#[ignore = "needs a file system of about 24 MiB, mounted at $INFOTAINER_SMALL_DISK"]
fn disk_that_is_really_full_can_be_opened_read_and_freed() {
    let root = std::env::var_os("INFOTAINER_SMALL_DISK").unwrap();
    let dir = tempfile::tempdir_in(root).unwrap();
    let (options, events) = events(dir.path());
    let options = Options {
        journal_size: 256 << 10,
        ..options
    };
    let (mut log, _) = DataLog::open(options.clone()).unwrap();
    log.write(&[Record::CreateLog(LOG)]).unwrap();
    let mut last = 0;
    loop {
        let record = chunk(LOG, last + 1, last + 100);
        let space = log.space();
        if record.encoded_len() <= space.guaranteed {
            log.write(&[record]).unwrap();
            last += 100;
        } else if space.full {
            break;
        } else {
            log.sync().unwrap();
            let _ = events.recv_timeout(std::time::Duration::from_millis(100));
        }
    }
    assert!(last > 10_000, "{last}");
    for round in 0..3 {
        for n in 0..20 {
            let record = put(&n.to_string(), &round.to_string());
            log.write(&[record]).unwrap();
        }
        log.sync().unwrap();
        assert_eq!(read(&log.reader(), LOG, 0, last, 9000).0.len() as u64, last);
        drop(log);
        let (reopened, recovered) = DataLog::open(options.clone()).unwrap();
        println!("{}", recovered.report);
        assert_eq!(recovered.state.len(), 20);
        assert_eq!(recovered.uncertain, vec![]);
        assert_eq!(recovered.logs[&LOG].last, Sequence(last));
        log = reopened;
    }
    let kept = last - 100;
    log.write(&[Record::Truncate {
        log: LOG,
        first: Sequence(kept + 1),
    }])
    .unwrap();
    log.sync().unwrap();
    until_space(&events, |space| !space.full && space.guaranteed > 100_000);
    log.write(&[chunk(LOG, last + 1, last + 100)]).unwrap();
    log.settle();
    assert_eq!(
        read(&log.reader(), LOG, kept, last + 100, 9000).0.len(),
        200
    );
    log.close().unwrap();
}
