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
