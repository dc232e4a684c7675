//! The checkers themselves: each kind of loss is found, and called what it is; what is allowed is not.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use crate::crash_support::{
    log_checker::{
        Allowance, Content, Keep, KnownLog,
        LogFinding::{
            self, Changed, Moved, OtherEpoch, OutOfOrder, Replaced, SameEpoch, Stranger, Twice,
        },
        LogThere, Submission, payload,
    },
    lost::{Lost, Part},
    passing::{Change, Passing, PassingFinding, PassingThere},
    queue_checker::{
        Dead, End, KnownQueue, QueueAllowance,
        QueueFinding::{
            self, CameAgain, DeadThoughSettled, DeadTwice, DeadWithoutCause, InBothPlaces,
            NotCounted, TooOften,
        },
        QueueThere,
    },
};

const EPOCH: Uuid = Uuid::from_u128(1);
const LEN: u64 = 100;

fn content(number: u64) -> Content {
    let submission = Submission {
        publisher: 3,
        number,
    };
    Content::of(&payload(submission, LEN as usize, 7))
}

fn id(sequence: u64) -> Uuid {
    Uuid::from_u128(1_000 + u128::from(sequence))
}

/// A log of ten, all submitted by one publisher and all told of at `now`.
fn known(now: Instant) -> KnownLog {
    let mut known = KnownLog::default();
    known.epoch = Some(EPOCH);
    for sequence in 1..=10 {
        known.submit(content(sequence - 1), None, now);
        known.tell(sequence, id(sequence), content(sequence - 1), now);
    }
    known
}

fn there(sequences: impl IntoIterator<Item = u64>) -> LogThere {
    let publications: BTreeMap<_, _> = sequences
        .into_iter()
        .map(|sequence| (sequence, (id(sequence), content(sequence - 1))))
        .collect();
    LogThere {
        epoch: EPOCH,
        last: publications.keys().last().copied().unwrap_or(0),
        publications,
    }
}

fn check(there: &LogThere, keep: Keep) -> Vec<LogFinding> {
    let now = Instant::now();
    known(now).check(there, Allowance::only(keep), now)
}

fn lost(part: Part, from: u64, to: u64) -> LogFinding {
    LogFinding::Lost(Lost { part, from, to })
}

#[test]
fn a_whole_log_is_found_whole() {
    assert_eq!(check(&there(1..=10), Keep::All), []);
}

#[test]
fn lost_beginnings_middles_and_ends_are_told_apart() {
    let cases = [
        (there(3..=10), vec![lost(Part::Beginning, 1, 2)]),
        (there((1..=4).chain(7..=10)), vec![lost(Part::Middle, 5, 6)]),
        (there(1..=8), vec![lost(Part::End, 9, 10)]),
        (there([]), vec![lost(Part::Everything, 1, 10)]),
        (
            there([2, 3, 5, 6, 7, 8]),
            vec![
                lost(Part::Beginning, 1, 1),
                lost(Part::Middle, 4, 4),
                lost(Part::End, 9, 10),
            ],
        ),
    ];
    for (there, expected) in cases {
        let mut found = check(&there, Keep::All);
        // What follows a hole is not behind what its publisher submitted before it, either.
        found.retain(|finding| !matches!(finding, OutOfOrder { .. }));
        assert_eq!(found, expected);
    }
}

#[test]
fn what_nobody_was_told_of_has_to_be_there_below_what_somebody_was() {
    let now = Instant::now();
    let mut known = KnownLog::default();
    for sequence in 1..=5 {
        known.submit(content(sequence - 1), None, now);
    }
    known.tell(4, id(4), content(3), now);
    let allowed = Allowance::only(Keep::All);
    assert_eq!(known.check(&there(1..=4), allowed, now), []);
    assert_eq!(known.check(&there(1..=5), allowed, now), []);
    let found = known.check(&there([1, 2, 4]), allowed, now);
    assert_eq!(found[0], lost(Part::Middle, 3, 3));
}

#[test]
fn retention_may_take_what_it_is_set_to_take_and_no_more() {
    assert_eq!(check(&there(7..=10), Keep::Newest(4)), []);
    assert_eq!(check(&there(2..=10), Keep::Newest(4)), []);
    assert_eq!(
        check(&there(8..=10), Keep::Newest(4)),
        [lost(Part::Beginning, 7, 7)]
    );
    assert_eq!(check(&there(7..=10), Keep::Bytes(4 * LEN)), []);
    assert_eq!(check(&there(7..=10), Keep::Bytes(4 * LEN + 99)), []);
    assert_eq!(
        check(&there(7..=10), Keep::Bytes(5 * LEN)),
        [lost(Part::Beginning, 6, 6)]
    );
    let all_taken = LogThere {
        last: 10,
        ..there([])
    };
    let now = Instant::now();
    let age = Duration::from_secs(5);
    let allowed = Allowance::only(Keep::YoungerThan(age));
    assert_eq!(known(now).check(&all_taken, allowed, now + age), []);
    assert_eq!(
        known(now).check(&all_taken, allowed, now),
        [lost(Part::Everything, 1, 10)]
    );
}

#[test]
fn a_power_cut_may_take_the_end_of_what_is_not_synced_if_it_is_young_and_the_epoch_is_new() {
    let now = Instant::now();
    let mut known = known(now);
    known.submit(content(10), None, now);
    let later = now + Duration::from_secs(1);
    known.tell(11, id(11), content(10), later);
    let allowed = Allowance {
        keep: Keep::All,
        end_since: Some(later),
    };
    let cut = LogThere {
        epoch: Uuid::from_u128(2),
        ..there(1..=10)
    };
    assert_eq!(known.check(&cut, allowed, later), []);
    assert_eq!(known.check(&there(1..=10), allowed, later), [SameEpoch]);
    let cut = LogThere {
        epoch: Uuid::from_u128(2),
        ..there(1..=9)
    };
    assert_eq!(known.check(&cut, allowed, later), [lost(Part::End, 10, 11)]);
    let cut = LogThere {
        epoch: Uuid::from_u128(2),
        ..there(2..=11)
    };
    assert_eq!(
        known.check(&cut, allowed, later),
        [lost(Part::Beginning, 1, 1)]
    );
}

#[test]
fn a_new_epoch_without_reason_is_found() {
    let other = LogThere {
        epoch: Uuid::from_u128(2),
        ..there(1..=10)
    };
    assert_eq!(check(&other, Keep::All), [OtherEpoch]);
}

#[test]
fn what_is_there_twice_moved_replaced_changed_or_nobodys_is_found() {
    type Publications = BTreeMap<u64, (Uuid, Content)>;
    let changed = |change: &dyn Fn(&mut Publications)| {
        let mut there = there(1..=11);
        there.publications.remove(&11);
        change(&mut there.publications);
        there.last = *there.publications.keys().last().unwrap();
        check(&there, Keep::All)
    };
    let copied = changed(&|log| _ = log.insert(11, log[&10]));
    assert!(copied.contains(&Twice {
        first: 10,
        second: 11
    }));
    assert!(copied.contains(&Moved { from: 10, to: 11 }));
    let same_data = changed(&|log| _ = log.insert(11, (id(11), log[&10].1)));
    assert!(same_data.contains(&Twice {
        first: 10,
        second: 11
    }));
    let swapped = changed(&|log| {
        let (four, five) = (log[&4], log[&5]);
        log.extend([(4, five), (5, four)]);
    });
    for finding in [
        Replaced { sequence: 4 },
        Moved { from: 5, to: 4 },
        OutOfOrder { sequence: 4 },
    ] {
        assert!(swapped.contains(&finding), "{finding:?}");
    }
    let other_bytes = Content::of(b"3:3:other");
    let rewritten = changed(&|log| log.get_mut(&4).unwrap().1 = other_bytes);
    assert!(rewritten.contains(&Changed { sequence: 4 }));
    let strange = changed(&|log| _ = log.insert(11, (id(11), Content::of(b"nobody's"))));
    assert_eq!(strange, [Stranger { sequence: 11 }]);
}

#[test]
fn a_sequence_that_is_told_twice_and_differently_is_found() {
    let now = Instant::now();
    let mut known = known(now);
    known.tell(3, id(4), content(3), now);
    let found = known.check(&there(1..=10), Allowance::only(Keep::All), now);
    assert_eq!(found, [Replaced { sequence: 3 }]);
}

/// Of six jobs: 1 acknowledged, 2 asked to be, 3 given up, 4 asked to be, 5 and 6 delivered, 5 twice.
fn jobs(now: Instant) -> KnownQueue {
    let mut known = KnownQueue::default();
    for sequence in 1..=6 {
        known.deliver(sequence, 1);
    }
    known.deliver(5, 2);
    for (sequence, end) in [
        (1, End::Acknowledged),
        (2, End::Acknowledged),
        (3, End::GivenUp),
        (4, End::GivenUp),
    ] {
        known.ask(sequence, end);
    }
    known.answer(1, now);
    known.answer(3, now);
    known
}

const ALLOWED: QueueAllowance = QueueAllowance {
    max_deliveries: 3,
    counts_may_lag: false,
    undone_since: None,
};

fn rejected(sequence: u64) -> Dead {
    Dead {
        sequence,
        deliveries: 1,
        reason: "rejected".into(),
    }
}

fn pending(came: &[(u64, u64)], dead: &[Dead]) -> QueueThere {
    QueueThere {
        last: 6,
        came: came.iter().copied().collect(),
        dead: dead.to_vec(),
    }
}

fn check_jobs(came: &[(u64, u64)], dead: &[Dead]) -> Vec<QueueFinding> {
    jobs(Instant::now()).check(&pending(came, dead), ALLOWED)
}

#[test]
fn what_was_not_answered_may_have_happened_or_not() {
    assert_eq!(check_jobs(&[(4, 2), (5, 3), (6, 2)], &[rejected(3)]), []);
    assert_eq!(
        check_jobs(&[(2, 2), (5, 3), (6, 2)], &[rejected(3), rejected(4)]),
        []
    );
}

#[test]
fn jobs_that_are_in_no_place_are_lost() {
    let lost = |part, from, to| QueueFinding::Lost(Lost { part, from, to });
    assert_eq!(
        check_jobs(&[(4, 2), (5, 3)], &[rejected(3)]),
        [lost(Part::End, 6, 6)]
    );
    assert_eq!(
        check_jobs(&[(4, 2), (6, 2)], &[rejected(3)]),
        [lost(Part::Middle, 5, 5)]
    );
    assert_eq!(
        check_jobs(&[(5, 3), (6, 2)], &[]),
        [lost(Part::Beginning, 3, 4)]
    );
}

#[test]
fn jobs_that_come_again_are_in_two_places_or_are_not_counted_are_found() {
    let rest = [(4, 2), (5, 3), (6, 2)];
    let with = |sequence, delivery| {
        let mut came = rest.to_vec();
        came.push((sequence, delivery));
        came
    };
    assert_eq!(
        check_jobs(&with(1, 2), &[rejected(3)]),
        [CameAgain { sequence: 1 }]
    );
    assert_eq!(
        check_jobs(&with(3, 2), &[rejected(3)]),
        [CameAgain { sequence: 3 }, InBothPlaces { sequence: 3 }]
    );
    assert_eq!(
        check_jobs(&rest, &[rejected(3), rejected(3)]),
        [DeadTwice { sequence: 3 }]
    );
    assert_eq!(
        check_jobs(&rest, &[rejected(1), rejected(3)]),
        [
            DeadThoughSettled { sequence: 1 },
            DeadWithoutCause { sequence: 1 }
        ]
    );
    assert_eq!(
        check_jobs(&[(4, 2), (5, 2), (6, 2)], &[rejected(3)]),
        [NotCounted {
            sequence: 5,
            before: 2,
            now: 2
        }]
    );
    assert_eq!(
        check_jobs(&[(4, 2), (5, 4), (6, 2)], &[rejected(3)]),
        [TooOften {
            sequence: 5,
            delivery: 4
        }]
    );
}

#[test]
fn dead_letters_need_a_cause() {
    let came = [(4, 2), (6, 2)];
    let in_vain = |deliveries| Dead {
        sequence: 5,
        deliveries,
        reason: "max-deliveries".into(),
    };
    assert_eq!(check_jobs(&came, &[rejected(3), in_vain(3)]), []);
    let early = [DeadWithoutCause { sequence: 5 }];
    assert_eq!(check_jobs(&came, &[rejected(3), in_vain(2)]), early);
    assert_eq!(check_jobs(&came, &[rejected(3), rejected(5)]), early);
}

#[test]
fn a_power_cut_may_undo_what_is_not_synced_if_it_is_young() {
    let now = Instant::now();
    let there = pending(&[(1, 1), (3, 1), (4, 1), (5, 2), (6, 1)], &[]);
    let allowed = QueueAllowance {
        counts_may_lag: true,
        undone_since: Some(now),
        ..ALLOWED
    };
    assert_eq!(jobs(now).check(&there, allowed), []);
    let synced = QueueAllowance {
        undone_since: None,
        ..allowed
    };
    assert_eq!(
        jobs(now).check(&there, synced),
        [CameAgain { sequence: 1 }, CameAgain { sequence: 3 }]
    );
}

#[test]
fn subscriptions_that_come_and_go_are_where_they_were_told_to_be() {
    let made = Passing {
        made: Change::Answered,
        epoch: Some(EPOCH),
        published: 5,
        limit: (10, 12),
        ..Passing::default()
    };
    let there = PassingThere {
        epoch: EPOCH,
        last: 6,
        limit: 11,
    };
    assert_eq!(made.check(Some(there)), []);
    assert_eq!(made.check(None), [PassingFinding::Gone]);
    let shorter = PassingThere { last: 3, ..there };
    let end = PassingFinding::LostEnd { from: 4, to: 5 };
    assert_eq!(made.check(Some(shorter)), [end]);
    let older = PassingThere { limit: 9, ..there };
    let setting = PassingFinding::OtherSetting { limit: 9 };
    assert_eq!(made.check(Some(older)), [setting]);
    let mut deleted = Passing {
        deleted: Change::Asked,
        ..made
    };
    assert_eq!(deleted.check(None), []);
    assert_eq!(deleted.check(Some(there)), []);
    deleted.deleted = Change::Answered;
    assert_eq!(deleted.check(Some(there)), [PassingFinding::NotGone]);
    let again = deleted.again(11);
    assert_eq!(again.check(None), []);
    assert_eq!(again.check(Some(there)), [PassingFinding::AnotherLife]);
    let anew = PassingThere {
        epoch: Uuid::from_u128(9),
        ..there
    };
    assert_eq!(again.check(Some(anew)), []);
}
