//! The data log against a simple model of it, with every way of ending among the operations.

use std::{collections::BTreeMap, fs};

use proptest::prelude::*;

use super::*;
use crate::protocol::GapCause;

#[derive(Clone, Debug)]
enum Change {
    Create,
    Append { log: usize, count: u64 },
    Truncate { log: usize, removed: u64 },
    Remove { log: usize },
    Put { key: u8, value: u8 },
    Delete { key: u8 },
}

#[derive(Clone, Debug)]
enum Operation {
    Write(Vec<Change>),
    Sync,
    EndJournal,
    Settle,
    Close,
    Crash,
    LoseCatalogue,
    /// So many steps of what the catalogue is to be told next are done.
    EndInCommit(u64, How),
    /// Which of the sectors that were not synced are lost.
    CutPower(u64),
}

#[derive(Clone, Copy, Debug)]
enum How {
    Crash,
    LoseCatalogue,
    CutPower,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => Just(Change::Create),
        8 => (any::<usize>(), 1..40_u64).prop_map(|(log, count)| Change::Append { log, count }),
        3 => (any::<usize>(), 1..60_u64).prop_map(|(log, removed)| Change::Truncate { log, removed }),
        1 => any::<usize>().prop_map(|log| Change::Remove { log }),
        3 => (0..8_u8, any::<u8>()).prop_map(|(key, value)| Change::Put { key, value }),
        1 => (0..8_u8).prop_map(|key| Change::Delete { key }),
    ]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        4 => Just(How::Crash),
        1 => Just(How::LoseCatalogue),
        2 => Just(How::CutPower),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => proptest::collection::vec(change(), 1..6).prop_map(Operation::Write),
        2 => Just(Operation::Sync),
        3 => Just(Operation::EndJournal),
        1 => Just(Operation::Settle),
        1 => Just(Operation::Close),
        1 => Just(Operation::Crash),
        1 => Just(Operation::LoseCatalogue),
        2 => any::<u64>().prop_map(Operation::CutPower),
        3 => (0..24_u64, how()).prop_map(|(steps, how)| Operation::EndInCommit(steps, how)),
    ]
}

#[derive(Clone, Debug, Default)]
struct Model {
    /// First and last.
    logs: BTreeMap<u64, (u64, u64)>,
    removed: Vec<u64>,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    next_log: u64,
}

impl Model {
    fn pick(&self, at: usize) -> Option<u64> {
        let nth = at.checked_rem(self.logs.len())?;
        self.logs.keys().nth(nth).copied()
    }

    fn apply(&mut self, change: &Change) -> Option<Record> {
        Some(match *change {
            Change::Create => {
                self.next_log = self.next_log.max(1);
                let log = self.next_log;
                self.next_log += 1;
                self.logs.insert(log, (1, 0));
                Record::CreateLog(LogNumber(log))
            }
            Change::Append { log, count } => {
                let log = self.pick(log)?;
                let (_, last) = self.logs.get_mut(&log)?;
                let first = *last + 1;
                *last += count;
                chunk(LogNumber(log), first, *last)
            }
            Change::Truncate { log, removed } => {
                let log = self.pick(log)?;
                let (first, last) = self.logs.get_mut(&log)?;
                *first = (*first + removed).min(*last + 1);
                Record::Truncate {
                    log: LogNumber(log),
                    first: Sequence(*first),
                }
            }
            Change::Remove { log } => {
                let log = self.pick(log)?;
                self.logs.remove(&log);
                self.removed.push(log);
                Record::RemoveLog(LogNumber(log))
            }
            Change::Put { key, value } => {
                self.state.insert(vec![key], vec![value; 3]);
                Record::Put {
                    key: [key].into(),
                    value: vec![value; 3].into(),
                }
            }
            Change::Delete { key } => {
                self.state.remove(&vec![key]);
                Record::Delete { key: [key].into() }
            }
        })
    }

    fn is_what_was_recovered(&self, recovered: &Recovered) -> bool {
        let logs = recovered.logs.iter();
        let logs: BTreeMap<_, _> = logs
            .map(|(log, extent)| (log.0, (extent.first.0, extent.last.0)))
            .collect();
        let state = recovered.state.iter();
        let state: BTreeMap<_, _> = state
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        logs == self.logs && state == self.state && recovered.next_log == self.next_log.max(1)
    }

    /// What was recovered is what was written.
    fn check_recovered(&self, recovered: &Recovered) {
        let state: Vec<_> = recovered
            .state
            .iter()
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        let expected: Vec<_> = self.state.clone().into_iter().collect();
        assert_eq!(state, expected);
        assert_eq!(recovered.logs.len(), self.logs.len());
        assert_eq!(recovered.uncertain, vec![]);
        assert_eq!(recovered.next_log, self.next_log.max(1));
        assert_eq!(recovered.report.damage, Vec::<String>::new());
        for (&number, &(first, last)) in &self.logs {
            let log = LogNumber(number);
            let kept = first..=last;
            let bytes: usize = kept.map(|sequence| payload(log, sequence).len()).sum();
            let extent = recovered.logs[&log];
            assert_eq!((extent.first.0, extent.last.0), (first, last));
            assert_eq!(extent.bytes, bytes as u64, "log {number}");
            if first <= last {
                assert_eq!(
                    (extent.first_time, extent.last_time),
                    (time(first), time(last))
                );
            }
        }
    }

    /// What is read is what was written.
    fn check(&self, reader: &LogReader) {
        for log in &self.removed {
            let page = reader.page(LogNumber(*log), Sequence(0), Sequence(1), 1);
            assert!(matches!(page, Err(ReadError::Gone)), "log {log}");
        }
        for (&number, &(first, last)) in &self.logs {
            let log = LogNumber(number);
            let (sequences, gaps) = read(reader, log, 0, last, 700);
            assert_eq!(
                sequences,
                (first..=last).collect::<Vec<_>>(),
                "log {number}"
            );
            let gap = MissingRange {
                from: Sequence(1),
                to: Sequence(first - 1),
                cause: GapCause::Retention,
            };
            assert_eq!(
                gaps,
                Vec::from_iter((first > 1).then_some(gap)),
                "log {number}"
            );
            let ids = reader
                .ids(log, Sequence(0), Sequence(last), 10_000)
                .unwrap();
            let expected: Vec<_> = (first..=last).map(|sequence| id(log, sequence)).collect();
            assert_eq!(ids.ids, expected, "log {number}");
            let all: Vec<_> = (1..=last + 1).map(|sequence| id(log, sequence)).collect();
            let found = reader.find(log, &all, Sequence(last)).unwrap();
            for (sequence, found) in (1..).zip(found) {
                let expected = (first..=last)
                    .contains(&sequence)
                    .then_some(Sequence(sequence));
                assert_eq!(found, expected, "publication {sequence} of log {number}");
            }
        }
    }
}

fn small(dir: &Path) -> Options {
    Options {
        journal_size: 16 << 10,
        merge_at: 3,
        ..options(dir)
    }
}

/// Ends a data log as a power cut would: of what was not synced, some sectors never reached the disk.
fn cut_power(log: DataLog, dir: &Path, lost: u64) {
    const SECTOR: usize = 64;
    let journals = log.journal_files();
    drop(log);
    for journal in journals {
        let volatile = journal.volatile();
        let Ok(mut bytes) = fs::read(journal.path()) else {
            continue; // it was sealed meanwhile
        };
        let unsynced = &mut bytes[volatile.start as usize..volatile.end as usize];
        for (number, sector) in unsynced.chunks_mut(SECTOR).enumerate() {
            if lost >> (number % 64) & 1 == 1 {
                sector.fill(0);
            }
        }
        fs::write(journal.path(), bytes).unwrap();
    }
    let running = fs::read_to_string(dir.join("running")).unwrap();
    let (_, rest) = running.split_once('\n').unwrap();
    fs::write(dir.join("running"), format!("another boot\n{rest}")).unwrap();
}

/// Whether the last commit that was to end before its last step did.
fn run(operations: &[Operation]) -> bool {
    let mut ended_in_commit = false;
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    // As of each batch that a power cut could take, and the one before.
    let mut volatile = vec![model.clone()];
    let mut log = DataLog::open(small(dir.path())).unwrap().0;
    for operation in operations {
        match operation {
            Operation::Write(changes) => {
                let records = changes.iter().filter_map(|change| model.apply(change));
                log.write(&records.collect::<Vec<_>>()).unwrap();
                volatile.push(model.clone());
            }
            Operation::Sync => {
                log.sync().unwrap();
                volatile = vec![model.clone()];
            }
            Operation::EndJournal => {
                // No journal is ever handed over empty.
                let put = Change::Put { key: 7, value: 7 };
                log.write(&Vec::from_iter(model.apply(&put))).unwrap();
                log.end_journal();
                volatile = vec![model.clone()];
            }
            Operation::Settle => {
                log.settle();
                volatile = vec![model.clone()];
            }
            Operation::CutPower(lost) => {
                cut_power(log, dir.path(), *lost);
                let (reopened, recovered) = DataLog::open(small(dir.path())).unwrap();
                assert!(recovered.unclean_boot);
                let left = volatile.iter().rev();
                let mut left = left.filter(|model| model.is_what_was_recovered(&recovered));
                model = left.next().expect("a state from the last sync on").clone();
                model.check_recovered(&recovered);
                volatile = vec![model.clone()];
                log = reopened;
            }
            Operation::EndInCommit(steps, how) => {
                // No journal is ever handed over empty.
                let put = Change::Put { key: 7, value: 7 };
                log.write(&Vec::from_iter(model.apply(&put))).unwrap();
                log.settle();
                log.allow_steps(*steps);
                log.end_journal();
                log.backlog().wait_until_still();
                ended_in_commit = log.backlog().space().full;
                match how {
                    How::CutPower => cut_power(log, dir.path(), u64::MAX),
                    How::Crash | How::LoseCatalogue => drop(log),
                }
                if matches!(how, How::LoseCatalogue) {
                    fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
                }
                let (reopened, recovered) = DataLog::open(small(dir.path())).unwrap();
                model.check_recovered(&recovered);
                volatile = vec![model.clone()];
                log = reopened;
            }
            ending => {
                match ending {
                    Operation::Close => log.close().unwrap(),
                    _ => drop(log),
                }
                if matches!(ending, Operation::LoseCatalogue) {
                    fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
                }
                let (reopened, recovered) = DataLog::open(small(dir.path())).unwrap();
                model.check_recovered(&recovered);
                volatile = vec![model.clone()];
                log = reopened;
            }
        }
        model.check(&log.reader());
    }
    log.settle();
    model.check(&log.reader());
    log.close().unwrap();
    let (_, recovered) = DataLog::open(small(dir.path())).unwrap();
    model.check_recovered(&recovered);
    ended_in_commit
}

/// Each case opens real files several times; set PROPTEST_CASES for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").map_or(24, |_| default.cases),
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn data_log_does_what_its_model_does(operations in proptest::collection::vec(operation(), 1..40)) {
        run(&operations);
    }
}

/// The number of a run's first batch, which the data directory notes, was once taken for that of all journals: those of
/// earlier runs seemed torn.
#[test]
fn journal_of_the_run_before_the_last_is_whole() {
    let change = Change::Put { key: 1, value: 1 };
    run(&[
        Operation::Write(vec![Change::Create, change]),
        Operation::Close,
        Operation::Crash,
    ]);
}

/// Replayed, a journal meets logs and state as they were at its end: a chunk was once passed over there.
#[test]
fn end_between_any_two_steps_of_a_commit_loses_nothing() {
    let append = |log, count| Change::Append { log, count };
    let put = |key, value| Change::Put { key, value };
    for how in [How::Crash, How::LoseCatalogue, How::CutPower] {
        let mut steps = 0;
        loop {
            let create = Operation::Write(vec![Change::Create; 12]);
            let first = (0..12).map(|log| append(log, 3));
            let old = (0..8).map(|key| put(key, 1));
            let mut later: Vec<_> = (0..12).map(|log| append(log, 3)).collect();
            later.extend((2..8).map(|key| put(key, 2)));
            later.extend([
                Change::Create,
                Change::Delete { key: 0 },
                Change::Truncate { log: 1, removed: 4 },
                Change::Truncate { log: 2, removed: 6 },
                append(3, 2),
                Change::Remove { log: 0 },
                append(11, 5),
            ]);
            let ended = run(&[
                create,
                Operation::Write(first.chain(old).collect()),
                Operation::EndJournal,
                Operation::Settle,
                Operation::Write(later),
                Operation::EndInCommit(steps, how),
                Operation::Write((0..12).map(|log| append(log, 3)).collect()),
            ]);
            if !ended {
                break;
            }
            steps += 1;
        }
        assert!(steps > 10, "{how:?}: {steps} steps");
    }
}

/// A start once removed the segment of a journal that the state log told was sealed, and that the catalogue did not know to be:
/// when the catalogue was lost before the journal was sealed again, its publications were too.
#[test]
fn catalogue_that_is_lost_before_a_journal_is_sealed_again_takes_nothing_with_it() {
    for steps in 0..8 {
        run(&[
            Operation::Write(vec![Change::Create]),
            Operation::Write(vec![Change::Append { log: 0, count: 9 }]),
            Operation::EndInCommit(steps, How::Crash),
            Operation::LoseCatalogue,
        ]);
    }
}

/// The batch that answered what the power cut took was noted as one of a journal that had none, and so as lost.
#[test]
fn journal_that_is_empty_when_the_one_before_is_sealed_lacks_no_end() {
    run(&[
        Operation::Write(vec![Change::Create]),
        Operation::CutPower(1),
        Operation::Write(vec![Change::Create, Change::Append { log: 0, count: 16 }]),
        Operation::EndJournal,
        Operation::Settle,
        Operation::Crash,
    ]);
}
