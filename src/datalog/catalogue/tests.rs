use std::fs;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use uuid::Uuid;

use super::database::{OPENINGS, suspect, suspicion_path};
use super::guard::guarded;
use super::*;
use crate::datalog::disk::simulated;
use crate::datalog::segment::{SegmentHeader, SegmentId};
use crate::protocol::Timestamp;

const CACHE: u64 = 8 << 20;

fn meta(sealed_through: u64) -> Meta {
    Meta {
        store: Uuid::from_u128(5),
        sealed_through,
        next_log: 1000,
    }
}

fn segment(id: u64, generations: (u64, u64)) -> SegmentEntry {
    SegmentEntry {
        header: SegmentHeader {
            id: SegmentId(id),
            generations,
            level: 0,
        },
        file_len: 10_000,
    }
}

fn run(log: u64, first: u64, last: u64, segment: u64) -> RunDescriptor {
    RunDescriptor {
        log: LogNumber(log),
        first: Sequence(first),
        last: Sequence(last),
        first_time: Timestamp(1_700_000_000_000 + first),
        last_time: Timestamp(1_700_000_000_000 + last),
        bytes: 100 * (last - first),
        segment: SegmentId(segment),
        index_offset: 2_000_000,
        index_len: 30,
        stored_bytes: 2300,
        client_ids: first.is_multiple_of(2),
    }
}

fn entry(first: u64, last: u64) -> LogEntry {
    LogEntry {
        first: Sequence(first),
        last: Sequence(last),
        last_time: Timestamp(1_700_000_000_000 + last),
    }
}

fn id(n: u64) -> PublicationId {
    PublicationId(Uuid::from_u128(u128::from(n) << 64))
}

impl Catalogue {
    /// Lets so many steps be done, and refuses what comes behind.
    pub(crate) fn allow_steps(&self, steps: u64) {
        self.steps_left.store(steps, Ordering::SeqCst);
    }

    pub(super) fn take_step(&self) -> Result<(), CatalogueError> {
        let dir = self.database.dir();
        if let Some(disk) = simulated::of(dir) {
            disk.step(dir)?;
        }
        let take = |left: u64| left.checked_sub(1);
        let taken = self
            .steps_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        match taken {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::from(io::ErrorKind::StorageFull).into()),
        }
    }
}

/// A catalogue of one segment, closed.
fn fill(dir: &Path) {
    let catalogue = Catalogue::open(dir, CACHE).unwrap();
    let mut batch = CatalogueBatch::new(&meta(1));
    let runs: Vec<_> = (1..=300).map(|log| run(log, 1, 10, 1)).collect();
    batch.put_segment(&segment(1, (1, 1)), &runs);
    let state: Vec<_> = (1..=300)
        .map(|log| (format!("key {log}"), [log as u8; 50]))
        .collect();
    for (log, (key, value)) in (1..).zip(&state) {
        batch.put_log(LogNumber(log), &entry(1, 10));
        batch.put_id(LogNumber(log), &id(log), Sequence(7));
        batch.put_state(key.as_bytes(), value);
    }
    catalogue.commit(batch).unwrap();
}

fn damaged<T: std::fmt::Debug>(outcome: Result<T, CatalogueError>) -> String {
    match outcome {
        Err(CatalogueError::Damaged(what)) => what,
        other => panic!("not damage: {other:?}"),
    }
}

#[test]
fn new_catalogue_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let state = Catalogue::open(&dir.path().join("catalogue"), CACHE)
        .unwrap()
        .load()
        .unwrap();
    assert!(state.meta.is_none() && state.runs.is_empty() && state.state.is_empty());
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue");
    fill(&path);
    {
        let catalogue = Catalogue::open(&path, CACHE).unwrap();
        catalogue.load().unwrap();
        let mut batch = CatalogueBatch::new(&meta(2));
        batch.put_segment(&segment(2, (2, 2)), [&run(1, 11, 20, 2)]);
        batch.put_log(LogNumber(1), &entry(3, 20));
        batch.remove_log(LogNumber(2));
        batch.remove_state(b"key 3");
        batch.put_state(b"key 4", b"another");
        batch.remove_id(LogNumber(5), &id(5), Sequence(7));
        catalogue.commit(batch).unwrap();
    }
    let catalogue = Catalogue::open(&path, CACHE).unwrap();
    let state = catalogue.load().unwrap();
    catalogue.verify_ids().unwrap();
    assert_eq!(state.meta, Some(meta(2)));
    assert_eq!(state.segments, [segment(1, (1, 1)), segment(2, (2, 2))]);
    assert_eq!(
        state.runs[..3],
        [run(1, 1, 10, 1), run(1, 11, 20, 2), run(2, 1, 10, 1)]
    );
    assert_eq!(state.runs.len(), 301);
    assert_eq!(
        state.logs[..2],
        [(LogNumber(1), entry(3, 20)), (LogNumber(3), entry(1, 10))]
    );
    assert_eq!(state.state.len(), 299);
    assert!(state.state.is_sorted());
    assert!(
        state
            .state
            .contains(&((*b"key 4").into(), (*b"another").into()))
    );
    let found = |log, n| catalogue.find_id(LogNumber(log), &id(n)).unwrap();
    assert_eq!(found(1, 1), Some(Sequence(7)));
    assert_eq!(found(5, 5), None);
    assert_eq!(found(1, 3), None);
}

#[test]
fn ids_of_a_removed_log_go_by_and_by() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue");
    {
        let catalogue = Catalogue::open(&path, CACHE).unwrap();
        let mut batch = CatalogueBatch::new(&meta(1));
        for n in 0..1500 {
            batch.put_id(LogNumber(1), &id(n), Sequence(n + 1));
            batch.put_id(LogNumber(2), &id(n), Sequence(n + 1));
        }
        catalogue.commit(batch).unwrap();
        let mut batch = CatalogueBatch::new(&meta(2));
        batch.remove_log(LogNumber(1));
        catalogue.commit(batch).unwrap();
        assert!(catalogue.tidy(1000).unwrap());
    }
    let catalogue = Catalogue::open(&path, CACHE).unwrap();
    catalogue.load().unwrap();
    assert!(!catalogue.tidy(1000).unwrap());
    for n in 0..1500 {
        assert_eq!(catalogue.find_id(LogNumber(1), &id(n)).unwrap(), None);
        assert_eq!(
            catalogue.find_id(LogNumber(2), &id(n)).unwrap(),
            Some(Sequence(n + 1))
        );
    }
    catalogue.load().unwrap();
    catalogue.verify_ids().unwrap();
}

/// A commit whose process ends before its last sled batch.
fn commit_without_end(catalogue: &Catalogue, batch: &CatalogueBatch<'_>) {
    let mut accounts = catalogue.accounts.lock();
    catalogue
        .apply(ACCOUNT, &mut accounts.entries, &batch.new_runs)
        .unwrap();
}

#[test]
fn commit_counts_only_when_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue");
    fill(&path);
    let before = Catalogue::open(&path, CACHE).unwrap().load().unwrap();
    {
        let catalogue = Catalogue::open(&path, CACHE).unwrap();
        let mut batch = CatalogueBatch::new(&meta(2));
        batch.put_segment(&segment(2, (2, 2)), &[run(1, 11, 20, 2), run(2, 11, 20, 2)]);
        commit_without_end(&catalogue, &batch);
    }
    {
        let catalogue = Catalogue::open(&path, CACHE).unwrap();
        let state = catalogue.load().unwrap();
        assert_eq!((state.segments, state.runs), (before.segments, before.runs));
        // The journal is sealed again, with the same number, and fewer of its publications are live.
        let mut batch = CatalogueBatch::new(&meta(2));
        batch.put_segment(&segment(2, (2, 2)), [&run(1, 12, 20, 2)]);
        catalogue.commit(batch).unwrap();
    }
    let state = Catalogue::open(&path, CACHE).unwrap().load().unwrap();
    assert_eq!(state.segments, [segment(1, (1, 1)), segment(2, (2, 2))]);
    assert_eq!(state.runs[..2], [run(1, 1, 10, 1), run(1, 12, 20, 2)]);
    assert_eq!(state.runs.len(), 301);
}

#[test]
fn merge_counts_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue");
    let runs = |first, last, segment| {
        (1..=1000)
            .map(|log| run(log, first, last, segment))
            .collect::<Vec<_>>()
    };
    let merge = || {
        let mut batch = CatalogueBatch::new(&meta(2));
        batch.put_segment(&segment(3, (1, 2)), &runs(1, 20, 3));
        batch.remove_segment(SegmentId(1));
        batch.remove_segment(SegmentId(2));
        batch
    };
    {
        let catalogue = Catalogue::open(&path, CACHE).unwrap();
        let mut batch = CatalogueBatch::new(&meta(2));
        batch.put_segment(&segment(1, (1, 1)), &runs(1, 10, 1));
        batch.put_segment(&segment(2, (2, 2)), &runs(11, 20, 2));
        catalogue.commit(batch).unwrap();
        commit_without_end(&catalogue, &merge());
    }
    {
        let catalogue = Catalogue::open(&path, CACHE).unwrap();
        let state = catalogue.load().unwrap();
        assert_eq!(state.segments.len(), 2);
        assert_eq!(state.runs.len(), 2000);
        assert!(state.runs.iter().all(|run| run.segment != SegmentId(3)));
        catalogue.commit(merge()).unwrap();
        // What a failure leaves behind its last batch.
        let mut leftover = CatalogueBatch::new(&meta(2));
        leftover.put_segment(&segment(2, (2, 2)), &runs(11, 20, 2));
        commit_without_end(&catalogue, &leftover);
    }
    let catalogue = Catalogue::open(&path, CACHE).unwrap();
    let state = catalogue.load().unwrap();
    assert_eq!(state.segments, [segment(3, (1, 2))]);
    assert_eq!(state.runs, runs(1, 20, 3));
    let entries = |segment| {
        let prefix = entry::runs_of(SegmentId(segment));
        let found = catalogue
            .database
            .ask(|db| Ok(db.scan_prefix(&prefix).count()));
        found.unwrap()
    };
    assert!(entries(1) == 0 && entries(2) > 1 && entries(3) > 1);
    catalogue.commit(CatalogueBatch::new(&meta(2))).unwrap();
    assert!(entries(2) == 0 && entries(3) > 1);
    assert_eq!(catalogue.load().unwrap().runs, runs(1, 20, 3));
}

#[test]
fn commit_that_ends_between_two_steps_leaves_a_catalogue_of_old_and_new_entries() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    fill(&origin);
    let old = Catalogue::open(&origin, CACHE).unwrap().load().unwrap();
    let commit = |catalogue: &Catalogue| {
        let mut batch = CatalogueBatch::new(&Meta {
            next_log: 1003,
            ..meta(2)
        });
        batch.put_segment(&segment(2, (2, 2)), &[run(7, 11, 20, 2), run(8, 11, 20, 2)]);
        for log in [7, 8, 200, 999, 1002] {
            batch.put_log(LogNumber(log), &entry(5, 20));
            batch.put_id(LogNumber(log), &id(log), Sequence(12));
            batch.put_state(b"key 7", b"new");
        }
        batch.remove_log(LogNumber(9));
        for key in [&b"key 10"[..], b"key 11", b"key 12", b"key 13"] {
            batch.remove_state(key);
        }
        catalogue.commit(batch)
    };
    let new = {
        let path = dir.path().join("new");
        copy(&origin, &path);
        let catalogue = Catalogue::open(&path, CACHE).unwrap();
        commit(&catalogue).unwrap();
        catalogue.load().unwrap()
    };
    for steps in 0.. {
        let path = dir.path().join(steps.to_string());
        copy(&origin, &path);
        let catalogue = Catalogue::open(&path, CACHE).unwrap();
        catalogue.allow_steps(steps);
        let committed = commit(&catalogue);
        drop(catalogue);
        let catalogue = Catalogue::open(&path, CACHE).unwrap();
        catalogue.verify_ids().unwrap();
        let state = catalogue.load().unwrap();
        if committed.is_ok() {
            assert!(steps > 7, "{steps} steps");
            break;
        }
        // The last step makes it count, and what comes behind makes it last.
        let listed = state.meta == new.meta;
        let whole = if listed { &new } else { &old };
        assert_eq!((state.meta, &state.segments), (whole.meta, &whole.segments));
        assert_eq!(state.runs, whole.runs);
        let either = |log| old.logs.contains(log) || new.logs.contains(log);
        assert!(state.logs.iter().all(either), "after {steps} steps");
        let either = |entry| old.state.contains(entry) || new.state.contains(entry);
        assert!(state.state.iter().all(either), "after {steps} steps");
        let newest = state.logs.last().unwrap().0;
        let told = |removed| {
            let mut told = 0;
            let counted = catalogue.records(|record| {
                told += u64::from(record == Record::RemoveLog(removed));
                Ok::<_, CatalogueError>(())
            });
            counted.unwrap();
            told
        };
        assert_eq!(told(newest), 0, "after {steps} steps");
        commit(&catalogue).unwrap();
        let state = catalogue.load().unwrap();
        assert_eq!((state.meta, &state.segments), (new.meta, &new.segments));
        assert_eq!((&state.runs, &state.logs), (&new.runs, &new.logs));
        assert_eq!(state.state, new.state);
        catalogue.verify_ids().unwrap();
    }
}

#[test]
fn id_that_came_again_is_found_where_it_is_now() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue");
    let log = LogNumber(1);
    let catalogue = Catalogue::open(&path, CACHE).unwrap();
    let mut batch = CatalogueBatch::new(&meta(1));
    for n in 1..=3 {
        batch.put_id(log, &id(n), Sequence(n));
    }
    batch.put_id(log, &id(1), Sequence(11));
    catalogue.commit(batch).unwrap();
    let mut batch = CatalogueBatch::new(&meta(2));
    batch.put_id(log, &id(2), Sequence(12));
    for n in 1..=3 {
        batch.remove_id(log, &id(n), Sequence(n));
    }
    catalogue.commit(batch).unwrap();
    let found = [1, 2, 3].map(|n| catalogue.find_id(log, &id(n)).unwrap());
    assert_eq!(found, [Some(Sequence(11)), Some(Sequence(12)), None]);
    catalogue.load().unwrap();
    catalogue.verify_ids().unwrap();
}

#[test]
fn overlapping_runs_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::open(&dir.path().join("catalogue"), CACHE).unwrap();
    let mut batch = CatalogueBatch::new(&meta(1));
    batch.put_segment(&segment(1, (1, 1)), &[run(1, 1, 10, 1), run(1, 10, 11, 1)]);
    catalogue.commit(batch).unwrap();
    damaged(catalogue.load());
}

#[test]
fn records_make_logs_and_state_anew() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::open(&dir.path().join("catalogue"), CACHE).unwrap();
    let mut batch = CatalogueBatch::new(&meta(1));
    batch.put_log(LogNumber(3), &entry(5, 9));
    batch.put_state(b"a", b"1");
    catalogue.commit(batch).unwrap();
    let mut records = Vec::new();
    catalogue
        .records(|record| {
            records.push(record);
            Ok::<_, CatalogueError>(())
        })
        .unwrap();
    let expected = [
        Record::CreateLog(LogNumber(3)),
        Record::Truncate {
            log: LogNumber(3),
            first: Sequence(5),
        },
        // The newest number that was used.
        Record::CreateLog(LogNumber(999)),
        Record::RemoveLog(LogNumber(999)),
        Record::Put {
            key: (*b"a").into(),
            value: (*b"1").into(),
        },
    ];
    assert_eq!(records, expected);
    let mut told = 0;
    let failed = catalogue.records(|_| {
        told += 1;
        Err(CatalogueError::Damaged("enough".into()))
    });
    assert!(failed.is_err() && told == 1);
}

#[test]
fn lost_entry_is_found_out() {
    for lost in [
        [&entry::runs_of(SegmentId(1))[..], &[0, 0, 0, 1]]
            .concat()
            .into(),
        entry::state_key(b"key 9"),
        [META].into(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue");
        fill(&path);
        let catalogue = Catalogue::open(&path, CACHE).unwrap();
        catalogue
            .database
            .ask(|db| db.remove(lost))
            .unwrap()
            .unwrap();
        damaged(catalogue.load());
    }
}

#[test]
fn refused_commit_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue");
    fill(&path);
    let catalogue = Catalogue::open(&path, CACHE).unwrap();
    let mut batch = CatalogueBatch::new(&meta(2));
    batch.put_segment(&segment(2, (2, 2)), [&run(1, 11, 20, 2)]);
    commit_without_end(&catalogue, &batch);
    let refused = catalogue.database.ask::<()>(|_| {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        Err(sled::Error::Io(full))
    });
    assert!(matches!(refused, Err(CatalogueError::Io(_))));
    assert_eq!(
        catalogue.find_id(LogNumber(1), &id(1)).unwrap(),
        Some(Sequence(7))
    );
    catalogue.commit(batch).unwrap();
    drop(catalogue);
    let state = Catalogue::open(&path, CACHE).unwrap().load().unwrap();
    assert_eq!(state.meta, Some(meta(2)));
    assert_eq!(state.runs.len(), 301);
}

#[test]
fn lost_id_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue");
    fill(&path);
    let catalogue = Catalogue::open(&path, CACHE).unwrap();
    catalogue
        .database
        .ask(|db| db.remove(entry::id_key(LogNumber(4), &id(4))))
        .unwrap()
        .unwrap();
    catalogue.load().unwrap();
    damaged(catalogue.verify_ids());
}

#[test]
fn damaged_catalogue_stays_refused_until_it_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (path, quarantine) = (dir.path().join("catalogue"), dir.path().join("quarantine"));
    fs::create_dir(&quarantine).unwrap();
    for round in 0..2 {
        fill(&path);
        let catalogue = Catalogue::open(&path, CACHE).unwrap();
        let panicked = catalogue.database.ask::<()>(|_| panic!("as sled does"));
        assert!(damaged(panicked).contains("as sled does"));
        damaged(catalogue.find_id(LogNumber(1), &id(1)));
        damaged(Catalogue::open(&path, CACHE));
        let aside = Catalogue::set_aside(&path, &quarantine).unwrap();
        assert!(aside.join("db").exists());
        assert!(!path.exists());
        assert_eq!(fs::read_dir(&quarantine).unwrap().count(), round + 1);
    }
    Catalogue::open(&path, CACHE).unwrap();
}

#[test]
fn directory_whose_opening_never_ends_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue");
    fill(&path);
    for _ in 0..OPENINGS {
        drop(Catalogue::open(&path, CACHE).unwrap());
        suspect(&suspicion_path(&path), 1).unwrap();
    }
    // One opening that ended clears it.
    for _ in 0..OPENINGS - 1 {
        suspect(&suspicion_path(&path), 1).unwrap();
    }
    damaged(Catalogue::open(&path, CACHE));
}

#[test]
fn refused_opening_is_no_sign_of_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue");
    fs::write(&path, "no directory").unwrap();
    for _ in 0..2 * OPENINGS {
        let refused = Catalogue::open(&path, CACHE);
        assert!(matches!(refused, Err(CatalogueError::Io(_))), "{refused:?}");
    }
    fs::remove_file(&path).unwrap();
    Catalogue::open(&path, CACHE).unwrap();
}

#[test]
fn panic_is_contained_only_inside() {
    assert!(!panic_is_contained());
    guarded(|| {
        assert!(panic_is_contained());
        Ok(())
    })
    .unwrap();
    assert!(!panic_is_contained());
    assert!(guarded::<()>(|| panic!("inside")).is_err());
    assert!(!panic_is_contained());
}

#[test]
fn flipped_bytes_are_survived_or_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    fill(&origin);
    let expected = Catalogue::open(&origin, CACHE).unwrap().load().unwrap();
    let db = fs::read(origin.join("db")).unwrap();
    let used = db.iter().rposition(|&byte| byte != 0).unwrap();
    let mut found_out = 0;
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..60 {
        let path = dir.path().join(format!("copy-{round}"));
        copy(&origin, &path);
        let mut bytes = db.clone();
        for _ in 0..=round % 4 {
            bytes[random.usize(..=used)] ^= 1 << random.u8(..8);
        }
        fs::write(path.join("db"), bytes).unwrap();
        match Catalogue::open(&path, CACHE).and_then(|catalogue| {
            catalogue.verify_ids()?;
            catalogue.load()
        }) {
            Ok(state) => assert_eq!(state.runs, expected.runs),
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                found_out += 1;
            }
        }
    }
    assert!(found_out > 0);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn values_read_back_and_hostile_ones_are_refused_without_a_panic(
        numbers in any::<(u64, u64, u64)>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
        key in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let (first, second, third) = numbers;
        let meta = Meta { store: Uuid::from_u64_pair(first, second), sealed_through: second, next_log: third };
        prop_assert_eq!(Meta::decode(&meta.encode()), Some(meta));
        let log = LogEntry { first: Sequence(first), last: Sequence(second), last_time: Timestamp(third) };
        let logs = entry::Logs::from([(LogNumber(third), log), (LogNumber(third ^ 1), log)]);
        let key_of_logs = entry::logs_key(LogNumber(third));
        let value = entry::encode_logs(&logs).unwrap();
        prop_assert_eq!(entry::decode_logs(&key_of_logs, &value), Some(logs));
        let segment = segment(first, (second, third));
        prop_assert_eq!(SegmentEntry::decode(&entry::segment_key(SegmentId(first)), &segment.encode()), Some(segment));
        let run = run(first, second % (1 << 52) + 1, second % (1 << 52) + third % 1000 + 1, third);
        let (key_of_runs, value) = entry::encode_runs(run.segment, [&run]).pop().unwrap();
        let mut runs = Vec::new();
        entry::decode_runs(entry::decode_runs_key(&key_of_runs).unwrap(), &value, &mut runs).unwrap();
        prop_assert_eq!(&runs, &[run]);
        let _ = Meta::decode(&bytes);
        let _ = entry::decode_logs(&key, &bytes);
        let _ = SegmentEntry::decode(&key, &bytes);
        let _ = entry::decode_runs(SegmentId(1), &bytes, &mut Vec::new());
        let _ = entry::decode_runs_key(&key);
        let _ = entry::decode_sequence(&bytes);
        let _ = Account::decode(&bytes);
    }
}

/// Whoever changes these bytes changes the format of the data directory.
#[test]
fn entries_have_the_bytes_of_format_1() {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let (runs_key, runs) =
        entry::encode_runs(SegmentId(7), &[run(300, 1, 10, 7), run(301, 2, 3, 7)]).remove(0);
    let logs = entry::Logs::from([(LogNumber(65), entry(3, 20))]);
    let mut account = Account::default();
    account.add(b"key", b"value");
    let entries = [
        (runs_key, runs),
        (
            entry::logs_key(LogNumber(65)),
            entry::encode_logs(&logs).unwrap(),
        ),
        (
            entry::segment_key(SegmentId(7)),
            segment(7, (3, 9)).encode(),
        ),
        (
            entry::id_key(LogNumber(1), &id(2)),
            entry::encode_sequence(Sequence(300)),
        ),
        (entry::state_key(b"key"), (*b"value").into()),
        (entry::removed_key(LogNumber(1)), [].into()),
        ([META].into(), meta(12).encode()),
        ([ACCOUNT].into(), account.encode().into()),
    ];
    let lines: Vec<_> = entries
        .iter()
        .map(|(key, value)| format!("{} {}", hex(key), hex(value)))
        .collect();
    let format_1 = [
        "72000000000000000700000000 ac02010981d095ffbc3109840780897a1efc1100ad02020182d095ffbc31016480897a1efc1101",
        "6c0000000000000001 01031494d095ffbc31",
        "730000000000000007 000309904e",
        "69000000000000000100000000000000020000000000000000 ac02",
        "6b6b6579 76616c7565",
        "780000000000000001 ",
        "6d 000000000000000000000000000000050ce807",
        "61 0100000000000000943230b4168f1b50",
    ];
    assert_eq!(lines, format_1);
}

/// Figures, on demand: `cargo test --release --lib catalogue -- --ignored --nocapture`.
#[test]
#[ignore = "measures, with --release"]
fn two_hundred_thousand_runs_load_in_half_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue");
    let begun = Instant::now();
    {
        let catalogue = Catalogue::open(&path, 32 << 20).unwrap();
        for generation in 1..=2 {
            let mut batch = CatalogueBatch::new(&meta(generation));
            let first = generation * 10;
            let runs: Vec<_> = (1..=100_000)
                .map(|log| run(log, first, first + 9, generation))
                .collect();
            batch.put_segment(&segment(generation, (generation, generation)), &runs);
            for log in 1..=100_000 {
                batch.put_log(LogNumber(log), &entry(10, generation * 10 + 9));
            }
            catalogue.commit(batch).unwrap();
        }
    }
    let committed = begun.elapsed();
    let begun = Instant::now();
    let catalogue = Catalogue::open(&path, 32 << 20).unwrap();
    let opened = begun.elapsed();
    let state = catalogue.load().unwrap();
    let loaded = begun.elapsed();
    assert_eq!(state.runs.len(), 200_000);
    let figures = format!("committed in {committed:?}, opened in {opened:?}, loaded in {loaded:?}");
    assert!(loaded < Duration::from_millis(500), "{figures}");
    io::stderr()
        .write_all(format!("{figures}\n").as_bytes())
        .unwrap();
}

/// Figures, on demand, as above: what an id that a client supplied costs.
#[test]
#[ignore = "measures, with --release"]
fn client_ids_of_a_journal_are_noted_in_two_seconds() {
    const JOURNAL: u64 = 130_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue");
    let catalogue = Catalogue::open(&path, 32 << 20).unwrap();
    let ids: Vec<_> = (0..8 * JOURNAL)
        .map(|_| PublicationId(Uuid::new_v4()))
        .collect();
    let mut figures = Vec::new();
    for (generation, ids) in (1..).zip(ids.chunks(JOURNAL as usize)) {
        let mut batch = CatalogueBatch::new(&meta(generation));
        for (n, id) in (1..).zip(ids) {
            batch.put_id(LogNumber(generation % 3), id, Sequence(n));
        }
        let begun = Instant::now();
        catalogue.commit(batch).unwrap();
        figures.push(begun.elapsed());
    }
    let begun = Instant::now();
    for id in ids.iter().step_by(100) {
        catalogue.find_id(LogNumber(0), id).unwrap();
    }
    let found = begun.elapsed() / (ids.len() / 100) as u32;
    let size = fs::metadata(path.join("db")).unwrap().len() / ids.len() as u64;
    let text =
        format!("{JOURNAL} ids a commit: {figures:?}; found in {found:?}; {size} bytes an id");
    assert!(figures.iter().all(|figure| figure.as_secs() < 2), "{text}");
    io::stderr().write_all(text.as_bytes()).unwrap();
}
