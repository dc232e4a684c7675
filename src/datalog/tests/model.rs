//! The data log against a simple model of it, with every way of ending among the operations.

use std::fs;

use proptest::prelude::*;

use super::{
    backup::{freeze, revived},
    shadow::Shadow,
    *,
};
use crate::datalog::disk::simulated::{Disk, End};

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
    /// What is changed while everything is held still is not in the backup.
    Backup(Vec<Change>),
    Close,
    Crash,
    LoseCatalogue,
    /// So many steps of what the catalogue is to be told next are done.
    EndInCommit(u64, How),
    /// What of that which was not synced is lost follows from the number.
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
        1 => proptest::collection::vec(change(), 0..6).prop_map(Operation::Backup),
        2 => any::<u64>().prop_map(Operation::CutPower),
        3 => (0..24_u64, how()).prop_map(|(steps, how)| Operation::EndInCommit(steps, how)),
    ]
}

/// Turns changes into records.
fn record(shadow: &Shadow, change: &Change) -> Option<Record> {
    let pick = |at: usize| {
        let nth = at.checked_rem(shadow.logs.len())?;
        shadow.logs.iter().nth(nth)
    };
    Some(match *change {
        Change::Create => Record::CreateLog(shadow.next_log()),
        Change::Append { log, count } => {
            let (number, log) = pick(log)?;
            chunk(*number, log.last.0 + 1, log.last.0 + count)
        }
        Change::Truncate { log, removed } => {
            let (number, log) = pick(log)?;
            let first = (log.first.0 + removed).min(log.last.0 + 1);
            Record::Truncate {
                log: *number,
                first: Sequence(first),
            }
        }
        Change::Remove { log } => Record::RemoveLog(*pick(log)?.0),
        Change::Put { key, value } => Record::Put {
            key: [key].into(),
            value: vec![value; 3].into(),
        },
        Change::Delete { key } => Record::Delete { key: [key].into() },
    })
}

/// The records of one batch, and what is there then.
fn records(shadow: &mut Shadow, changes: &[Change]) -> Vec<Record> {
    let mut records = Vec::new();
    for change in changes {
        if let Some(record) = record(shadow, change) {
            shadow.apply(&record);
            records.push(record);
        }
    }
    records
}

/// What was recovered is what was written.
fn check_recovered(shadow: &Shadow, recovered: &Recovered) {
    assert_eq!(shadow.difference(recovered), None);
    // Of sled's files any part may be lost with the power.
    let mut damage = recovered.report.damage.iter();
    let other = damage.find(|line| !line.starts_with("the catalogue"));
    assert_eq!(other, None);
    assert_eq!(recovered.uncertain, vec![]);
}

fn small(dir: &Path) -> Options {
    Options {
        journal_size: 16 << 10,
        merge_at: 3,
        ..options(dir)
    }
}

/// Ends a data log with a power cut.
fn cut_power(log: DataLog, disk: &Disk, seed: u64) {
    disk.seed(seed);
    disk.end(End::PowerCut);
    drop(log);
    disk.revive();
}

/// A backup is what was written before, and whole.
fn check_revived(contents: &Contents, model: &Shadow) {
    let dir = revived(contents);
    let (log, recovered) = DataLog::open(small(dir.path())).unwrap();
    check_recovered(model, &recovered);
    model.check(&log.reader());
}

/// Whether the last commit that was to end before its last step did.
fn run(operations: &[Operation]) -> bool {
    let mut ended_in_commit = false;
    let disk = Disk::new(0);
    let dir = disk.dir();
    let mut model = Shadow::default();
    // As of each batch that a power cut could take, and the one before.
    let mut volatile = vec![model.clone()];
    let mut log = DataLog::open(small(&dir)).unwrap().0;
    for operation in operations {
        match operation {
            Operation::Write(changes) => {
                log.write(&records(&mut model, changes)).unwrap();
                volatile.push(model.clone());
            }
            Operation::Sync => {
                log.sync().unwrap();
                volatile = vec![model.clone()];
            }
            Operation::EndJournal => {
                // No journal is ever handed over empty.
                let put = Change::Put { key: 7, value: 7 };
                log.write(&records(&mut model, &[put])).unwrap();
                log.end_journal();
                volatile = vec![model.clone()];
            }
            Operation::Settle => {
                log.settle();
                volatile = vec![model.clone()];
            }
            Operation::Backup(changes) => {
                let (frozen, backed_up) = (freeze(&log), model.clone());
                log.write(&records(&mut model, changes)).unwrap();
                let put = Change::Put { key: 7, value: 8 };
                log.write(&records(&mut model, &[put])).unwrap();
                log.end_journal();
                log.settle();
                volatile = vec![model.clone()];
                check_revived(frozen.contents(), &backed_up);
            }
            Operation::CutPower(seed) => {
                cut_power(log, &disk, *seed);
                let (reopened, recovered) = DataLog::open(small(&dir)).unwrap();
                assert!(recovered.unclean_boot);
                let left = volatile.iter().rev();
                let mut left = left.filter(|model| model.difference(&recovered).is_none());
                model = left.next().expect("a state from the last sync on").clone();
                check_recovered(&model, &recovered);
                volatile = vec![model.clone()];
                log = reopened;
            }
            Operation::EndInCommit(steps, how) => {
                // No journal is ever handed over empty.
                let put = Change::Put { key: 7, value: 7 };
                log.write(&records(&mut model, &[put])).unwrap();
                log.settle();
                log.allow_steps(*steps);
                log.end_journal();
                log.backlog().wait_until_still();
                ended_in_commit = log.backlog().space().full;
                match how {
                    How::CutPower => cut_power(log, &disk, *steps),
                    How::Crash | How::LoseCatalogue => drop(log),
                }
                if matches!(how, How::LoseCatalogue) {
                    fs::remove_dir_all(dir.join("catalogue")).unwrap();
                }
                let (reopened, recovered) = DataLog::open(small(&dir)).unwrap();
                check_recovered(&model, &recovered);
                volatile = vec![model.clone()];
                log = reopened;
            }
            ending => {
                match ending {
                    Operation::Close => log.close().unwrap(),
                    _ => drop(log),
                }
                if matches!(ending, Operation::LoseCatalogue) {
                    fs::remove_dir_all(dir.join("catalogue")).unwrap();
                }
                let (reopened, recovered) = DataLog::open(small(&dir)).unwrap();
                check_recovered(&model, &recovered);
                volatile = vec![model.clone()];
                log = reopened;
            }
        }
        model.check(&log.reader());
    }
    log.settle();
    model.check(&log.reader());
    log.close().unwrap();
    let (_, recovered) = DataLog::open(small(&dir)).unwrap();
    check_recovered(&model, &recovered);
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

/// A batch that is larger than a journal once ended one that held nothing, and whose generation was missed after a power cut.
#[test]
fn batch_that_is_larger_than_an_empty_journal_leaves_no_generation_out() {
    for seed in 0..20 {
        run(&[
            Operation::Write(vec![Change::Create]),
            Operation::EndJournal,
            Operation::Write(vec![Change::Append { log: 0, count: 37 }; 3]),
            Operation::Write(vec![Change::Append { log: 0, count: 34 }]),
            Operation::CutPower(seed),
            Operation::Write(vec![Change::Append { log: 0, count: 37 }; 3]),
            Operation::Crash,
        ]);
    }
}

/// Behind journals that are all sealed, a start can't tell the number of the first batch: when that was lost, unsynced, and one
/// behind it was not, it was once taken for damage.
#[test]
fn first_batch_of_a_journal_that_was_never_synced_is_no_damage() {
    for seed in 0..40 {
        run(&[
            Operation::Write(vec![Change::Create]),
            Operation::Settle,
            Operation::EndJournal,
            Operation::Settle,
            Operation::Write(vec![Change::Append { log: 0, count: 31 }]),
            Operation::Write(vec![Change::Append { log: 0, count: 2 }]),
            Operation::CutPower(seed),
        ]);
    }
}

/// Of a journal that was used again, a power cut may take the first batch and leave a later one, behind the batch of the use before: it
/// is free then. Where the batch of its next use was torn, what was left came to light, and was taken for damage of an earlier run.
#[test]
fn batch_that_is_left_in_a_journal_used_again_is_no_damage() {
    for (first, second) in (0..20).flat_map(|first| (0..3).map(move |second| (first, second))) {
        run(&[
            Operation::Write(vec![Change::Create]),
            Operation::Settle,
            Operation::EndJournal,
            Operation::Settle,
            Operation::Crash,
            Operation::Write(vec![Change::Append { log: 0, count: 31 }]),
            Operation::Write(vec![Change::Create]),
            Operation::CutPower(first),
            Operation::Write(vec![Change::Append { log: 0, count: 36 }]),
            Operation::CutPower(second),
        ]);
    }
}
