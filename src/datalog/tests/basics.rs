//! Writing, reading and coming back, without damage.

use super::*;
use crate::protocol::{GapCause, Retention};

const LOG: LogNumber = LogNumber(1);

fn of(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

fn written(dir: &Path) -> DataLog {
    let (mut log, recovered) = open(dir);
    assert!(recovered.logs.is_empty());
    log.write(&[Record::CreateLog(LOG), put("a", "1"), put("b", "2")])
        .unwrap();
    log.write(&[chunk(LOG, 1, 10), delete("a")]).unwrap();
    log.write(&[chunk(LOG, 11, 12), chunk(LOG, 13, 40)])
        .unwrap();
    log.sync().unwrap();
    log
}

#[test]
fn what_is_written_is_read_in_pages_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let log = written(dir.path());
    let reader = log.reader();
    for max_bytes in [1, 300, 1000, 100_000] {
        for (after, through) in [(0, 40), (5, 12), (11, 11), (12, 35), (39, 99)] {
            let (sequences, gaps) = read(&reader, LOG, after, through, max_bytes);
            assert_eq!(sequences, of(after + 1..=through.min(40)));
            assert_eq!(gaps, vec![]);
        }
    }
    let page = reader.page(LOG, Sequence(0), Sequence(40), 1000).unwrap();
    assert!(page.frames.len() <= 1000);
}

#[test]
fn removed_log_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = written(dir.path());
    log.write(&[Record::RemoveLog(LOG)]).unwrap();
    let reader = log.reader();
    let page = reader.page(LOG, Sequence(0), Sequence(40), 1000);
    assert!(matches!(page, Err(ReadError::Gone)));
    drop(log);
    let (_, recovered) = open(dir.path());
    assert!(recovered.logs.is_empty());
    assert_eq!(recovered.next_log, 2);
}

#[test]
fn truncated_part_is_a_gap_of_retention() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = written(dir.path());
    log.write(&[Record::Truncate {
        log: LOG,
        first: Sequence(15),
    }])
    .unwrap();
    let gap = MissingRange {
        from: Sequence(3),
        to: Sequence(14),
        cause: GapCause::Retention,
    };
    let expected = (of(15..=40), vec![gap]);
    assert_eq!(read(&log.reader(), LOG, 2, 40, 1000), expected);
    drop(log);
    let (log, recovered) = open(dir.path());
    assert_eq!(read(&log.reader(), LOG, 2, 40, 1000), expected);
    let kept: usize = (15..=40).map(|sequence| payload(LOG, sequence).len()).sum();
    let extent = recovered.logs[&LOG];
    assert_eq!(extent.bytes, kept as u64);
    assert_eq!((extent.first_time, extent.last_time), (time(15), time(40)));
}

#[test]
fn everything_is_there_again_after_a_crash_and_after_an_orderly_end() {
    let dir = tempfile::tempdir().unwrap();
    drop(written(dir.path()));
    for unclean in [true, false, false] {
        let (log, recovered) = open(dir.path());
        assert_eq!(recovered.report.unclean, unclean);
        assert!(!recovered.unclean_boot);
        assert_eq!(recovered.state, vec![((*b"b").into(), (*b"2").into())]);
        assert_eq!((recovered.next_log, recovered.uncertain), (2, vec![]));
        assert_eq!(recovered.logs[&LOG].last, Sequence(40));
        assert_eq!(read(&log.reader(), LOG, 0, 40, 5000).0, of(1..=40));
        log.close().unwrap();
    }
}

#[test]
fn ids_are_listed_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let log = written(dir.path());
    let reader = log.reader();
    let ids = reader.ids(LOG, Sequence(4), Sequence(40), 20).unwrap();
    let expected: Vec<_> = (5..=24).map(|sequence| id(LOG, sequence)).collect();
    assert_eq!(ids.ids, expected);
    assert_eq!((ids.first, ids.reached), (Sequence(1), Sequence(24)));
    let all: Vec<_> = (1..=41).map(|sequence| id(LOG, sequence)).collect();
    let found = reader.find(LOG, &all, Sequence(30)).unwrap();
    for (sequence, found) in (1..).zip(found) {
        assert_eq!(found, (sequence <= 30).then_some(Sequence(sequence)));
    }
}

#[test]
fn first_of_a_time_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let log = written(dir.path());
    let reader = log.reader();
    for sequence in 1..=40 {
        let mut same = (1..=40).filter(|&other| time(other) >= time(sequence));
        let since = reader.since(LOG, time(sequence), Sequence(40)).unwrap();
        assert_eq!(since, Sequence(same.next().unwrap()));
    }
    let since = |time| reader.since(LOG, time, Sequence(40)).unwrap();
    assert_eq!(since(Timestamp(0)), Sequence(1));
    assert_eq!(since(Timestamp(u64::MAX)), Sequence(41));
}

#[test]
fn retention_cuts_by_number_bytes_and_age() {
    let dir = tempfile::tempdir().unwrap();
    let log = written(dir.path());
    let reader = log.reader();
    let payloads: Vec<u64> = (1..=40)
        .map(|sequence| payload(LOG, sequence).len() as u64)
        .collect();
    let cut = |retention| {
        reader
            .cut(LOG, Sequence(40), retention, time(40))
            .unwrap()
            .map(|cut| {
                let removed = (cut.first.0 - 1) as usize;
                assert_eq!(cut.removed, removed as u64);
                let bytes: u64 = payloads[..removed].iter().sum();
                assert_eq!(cut.removed_bytes, bytes);
                let oldest = (cut.first.0 <= 40).then(|| time(cut.first.0));
                assert_eq!(cut.oldest_time, oldest);
                cut.first.0
            })
    };
    let none = Retention::default();
    assert_eq!(cut(none), None);
    for n in 1..40 {
        let max_publications = Some(n);
        let by_number = Retention {
            max_publications,
            ..none
        };
        assert_eq!(cut(by_number), Some(41 - n));
        let max_bytes = Some(n * 77);
        let by_bytes = Retention { max_bytes, ..none };
        let fits = |first: &u64| payloads[*first as usize - 1..].iter().sum::<u64>() <= n * 77;
        let first = (1..=41).find(fits).unwrap();
        assert_eq!(cut(by_bytes), Some(first).filter(|&first| first > 1), "{n}");
        let max_age = Some(n);
        let by_age = Retention { max_age, ..none };
        let first = (1..=40).find(|&s| time(s).0 >= time(40).0 - n).unwrap();
        assert_eq!(cut(by_age), Some(first).filter(|&first| first > 1), "{n}");
    }
}

#[test]
fn second_data_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _log = written(dir.path());
    let second = DataLog::open(options(dir.path()));
    assert!(matches!(second, Err(OpenError::Locked(_))));
}
