//! A disk without room: what still goes on, and that it ends.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use super::{
    small_disk::{Ballast, on_small_disks},
    *,
};

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
    log.write(&[put("first", "value")]).unwrap();
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
fn fill_and_free(disk: &Path, journal_size: u64, let_go: impl Fn(u64) -> Record) {
    let (options, events) = events(&disk.join("data"));
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

/// More than is in reserve for a start: that room would soon be a journal otherwise.
const LARGE_JOURNAL: u64 = 9 << 20;

#[test]
fn disk_that_is_really_full_can_be_opened_read_and_freed() {
    on_small_disks(this_test!(), 64, |disk| {
        fill_and_free(disk, LARGE_JOURNAL, |last| Record::Truncate {
            log: LOG,
            first: Sequence(last - 99),
        });
    });
}

#[test]
fn disk_that_is_full_of_a_removed_log_can_be_freed() {
    on_small_disks(this_test!(), 64, |disk| {
        fill_and_free(disk, LARGE_JOURNAL, |_| Record::RemoveLog(LOG));
    });
}

/// What a disk has to do in which it may find no room: journals, segments, state log, catalogue, merges.
#[derive(Default)]
struct Worked {
    last: u64,
    first: u64,
    puts: u64,
}

impl Worked {
    fn go_on(&mut self, log: &mut DataLog) {
        for _ in 0..40 {
            let record = chunk(LOG, self.last + 1, self.last + 20);
            if record.encoded_len() <= log.space().guaranteed {
                log.write(&[record]).unwrap();
                self.last += 20;
            }
            let space = log.space();
            if space.changes > 1000 {
                let key = (self.puts % 50).to_string();
                log.write(&[put(&key, &self.puts.to_string())]).unwrap();
                self.puts += 1;
            }
            if space.clearing > 1000 && self.last > self.first + 2000 {
                self.first = self.last - 1000;
                let first = Sequence(self.first);
                log.write(&[Record::Truncate { log: LOG, first }]).unwrap();
            }
            log.sync().unwrap();
        }
        log.backlog().wait_until_still();
    }

    fn check(&self, log: &DataLog, recovered: &Recovered) {
        assert_eq!(recovered.uncertain, vec![]);
        assert_eq!(recovered.logs[&LOG].last, Sequence(self.last));
        assert_eq!(recovered.logs[&LOG].first, Sequence(self.first));
        let (sequences, gaps) = read(&log.reader(), LOG, self.first - 1, self.last, 9000);
        assert_eq!(gaps, vec![]);
        assert_eq!(sequences.len() as u64, self.last + 1 - self.first);
        for (key, value) in &recovered.state {
            let key: u64 = str::from_utf8(key).unwrap().parse().unwrap();
            let newest = (self.puts - 1 - key) / 50 * 50 + key;
            assert_eq!(**value, *newest.to_string().as_bytes());
        }
        assert_eq!(recovered.state.len() as u64, self.puts.min(50));
    }
}

#[test]
fn room_that_ends_anywhere_in_the_background_costs_nothing_that_was_written() {
    on_small_disks(this_test!(), 32, |disk| {
        let options = Options {
            merge_at: 3,
            ..options(&disk.join("data"))
        };
        let open = |ballast: &Ballast| {
            loop {
                match DataLog::open(options.clone()) {
                    Ok(opened) => return opened,
                    Err(OpenError::Io { source, .. }) if store::is_disk_full(&source) => {
                        ballast.give(64 << 10)
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let ballast = Ballast::leaving(disk, 12 << 20);
        let (mut log, _) = open(&ballast);
        log.write(&[Record::CreateLog(LOG)]).unwrap();
        let mut worked = Worked {
            first: 1,
            ..Worked::default()
        };
        worked.go_on(&mut log);
        for room in [
            0, 4, 12, 20, 36, 52, 68, 84, 100, 132, 164, 196, 260, 516, 1028, 2052,
        ] {
            ballast.take_all();
            ballast.give(room << 10);
            worked.go_on(&mut log);
            ballast.give(8 << 10);
            worked.go_on(&mut log);
            drop(log);
            let (reopened, recovered) = open(&ballast);
            log = reopened;
            worked.check(&log, &recovered);
        }
        ballast.remove();
        let before = worked.last;
        worked.go_on(&mut log);
        log.settle();
        worked.go_on(&mut log);
        assert!(worked.last > before + 100);
        log.close().unwrap();
        let (log, recovered) = DataLog::open(options.clone()).unwrap();
        worked.check(&log, &recovered);
    });
}
