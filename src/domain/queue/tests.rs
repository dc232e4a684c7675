//! What the queue is meant to do in single cases, and to cost.

mod model;

use std::collections::BTreeMap;

use super::*;
use crate::{
    domain::{MissingRange, Page},
    protocol::{GapCause, Publication, SubscriptionId, Timestamp},
};

const RULES: QueueRules = QueueRules {
    ack_timeout: 100,
    max_deliveries: 3,
    unwritten: 1 << 20,
};

fn connection(number: u64) -> ConnectionId {
    ConnectionId::new(0, number)
}

fn id(sequence: u64) -> PublicationId {
    PublicationId::made(Timestamp(1), Sequence(sequence), 0)
}

fn frames(first: u64, last: u64) -> Bytes {
    let mut out = Vec::new();
    for sequence in first..=last {
        Publication {
            subscription_id: SubscriptionId::of_name("q"),
            publication_id: id(sequence),
            sequence: Sequence(sequence),
            time: Timestamp(1),
            publisher: None,
            dead_letter: None,
            data: &sequence.to_be_bytes(),
        }
        .encode_into(&mut out);
    }
    out.into()
}

fn page((first, last): Range) -> (Range, Page) {
    let page = Page {
        gap: None,
        frames: frames(first.0, last.0),
        first,
        last,
    };
    ((first, last), page)
}

fn empty() -> Queue {
    Queue::new(Progress::default(), RULES, Sequence::ZERO)
}

fn with(pending: u64) -> Queue {
    let head = QueueHead::default();
    let progress = Progress::restored(head, [], Sequence(1), Sequence(pending));
    Queue::new(progress, RULES, Sequence(pending))
}

/// Reads what the queue wants, and returns what is granted then.
fn grants(queue: &mut Queue, now: u64) -> Vec<(ConnectionId, u64, u32)> {
    let mut granted = Vec::new();
    loop {
        while let Some(grant) = queue.next_grant(now) {
            let (publication, _) = crate::protocol::StoredPublication::split_first(&grant.frame)
                .expect("a whole frame");
            assert_eq!(publication.sequence(), grant.sequence);
            granted.push((grant.connection, grant.sequence.0, grant.delivery));
        }
        let Some(ranges) = queue.wanted() else {
            return granted;
        };
        for dead in queue.load(ranges.into_iter().map(page).collect(), now) {
            queue.moved(dead.sequence);
        }
    }
}

fn sequences(granted: &[(ConnectionId, u64, u32)]) -> Vec<u64> {
    granted.iter().map(|(_, sequence, _)| *sequence).collect()
}

/// What a restart makes of `queue`.
fn restarted(queue: &mut Queue, stored: &mut Stored, last: u64) -> Queue {
    stored.write(queue);
    let blocks = stored.blocks.clone();
    let progress = Progress::restored(stored.head, blocks, Sequence(1), Sequence(last));
    Queue::new(progress, RULES, Sequence(last))
}

/// What is written down.
#[derive(Default)]
struct Stored {
    head: QueueHead,
    blocks: BTreeMap<u64, QueueBlock>,
}

impl Stored {
    fn write(&mut self, queue: &mut Queue) {
        for change in queue.progress_mut().take_changes() {
            match change {
                QueueChange::Head(head) => self.head = head,
                QueueChange::Block(number, block) => {
                    // As it is read again.
                    let bytes = crate::protocol::codec::encode_state(&block);
                    let block = crate::protocol::codec::decode_state(&bytes).unwrap();
                    self.blocks.insert(number, block);
                }
                QueueChange::NoBlock(number) => {
                    assert!(self.blocks.remove(&number).is_some(), "block {number}");
                }
            }
        }
        assert!(!queue.progress().has_changed());
        let written: Vec<_> = queue.progress().written().collect();
        assert!(written.iter().eq(self.blocks.keys()));
    }
}

#[test]
fn subscribers_with_room_are_served_in_turn() {
    let mut queue = with(9);
    for number in 0..3 {
        queue.subscribe(connection(number), 2);
    }
    let granted = grants(&mut queue, 0);
    assert_eq!(sequences(&granted), [1, 2, 3, 4, 5, 6]);
    let connections: Vec<_> = granted.iter().map(|granted| granted.0).collect();
    assert_eq!(connections, [0, 1, 2, 0, 1, 2].map(connection));
    assert_eq!((queue.pending(Sequence(9)), queue.in_flight()), (3, 6));
}

#[test]
fn nothing_of_the_pending_is_remembered_and_little_of_the_settled() {
    const LAST: u64 = 1_000_000;
    let mut queue = with(LAST);
    queue.subscribe(connection(0), 1000);
    let mut stored = Stored::default();
    let mut taken = 0;
    while taken < 100_000 {
        let granted = grants(&mut queue, 0);
        assert!(granted.len() >= 999);
        queue.written(connection(0), 1, u64::MAX);
        taken += granted.len() as u64;
        // One of a thousand stays, so that everything else is settled out of order.
        let done: Vec<_> = sequences(&granted)
            .into_iter()
            .filter(|sequence| *sequence != 1)
            .map(id)
            .collect();
        assert_eq!(queue.acknowledge(connection(0), &done).lost, []);
        stored.write(&mut queue);
    }
    assert_eq!(stored.head.settled, Sequence::ZERO);
    assert!(stored.blocks.len() as u64 <= taken / BLOCK + 1);
    assert_eq!(queue.pending(Sequence(LAST)), LAST - taken);
    queue.acknowledge(connection(0), &[id(1)]);
    stored.write(&mut queue);
    assert_eq!(stored.head.settled, Sequence(taken));
    assert!(stored.blocks.len() <= 1);
}

#[test]
fn time_outs_are_looked_for_only_when_one_may_be_due() {
    let mut queue = with(10);
    assert_eq!(queue.next_due(), None);
    queue.subscribe(connection(0), 4);
    grants(&mut queue, 7);
    assert_eq!(queue.next_due(), Some(107));
    queue.extend(connection(0), &[id(1), id(2), id(3)], 50);
    queue.expire(107);
    assert_eq!(queue.in_flight(), 3);
    assert_eq!(queue.next_due(), Some(150));
    // Its room is free, and what came back goes first.
    assert_eq!(grants(&mut queue, 107), [(connection(0), 4, 2)]);
}

#[test]
fn unreadable_publications_are_settled_in_their_turn() {
    let mut queue = with(6);
    queue.subscribe(connection(0), 2);
    assert_eq!(queue.wanted(), Some(vec![(Sequence(1), Sequence(6))]));
    let gap = MissingRange {
        from: Sequence(3),
        to: Sequence(4),
        cause: GapCause::Damage,
    };
    let holed = Page {
        gap: Some(gap),
        ..page((Sequence(5), Sequence(6))).1
    };
    let pages = vec![
        page((Sequence(1), Sequence(2))),
        ((Sequence(3), Sequence(6)), holed),
    ];
    queue.load(pages, 0);
    assert_eq!(sequences(&grants(&mut queue, 0)), [1, 2]);
    queue.acknowledge(connection(0), &[id(1), id(2)]);
    assert_eq!(sequences(&grants(&mut queue, 0)), [5, 6]);
    assert_eq!(queue.progress().settled(), Sequence(4));
}

#[test]
fn a_subscriber_that_takes_nothing_off_its_socket_has_no_room() {
    let rules = QueueRules {
        unwritten: 300,
        ..RULES
    };
    let mut queue = with(100);
    queue.set_rules(rules);
    queue.subscribe(connection(0), 50);
    let first = grants(&mut queue, 0).len();
    assert!((2..10).contains(&first), "{first}");
    // Acknowledging is no sign that anything of what is under way was written.
    queue.written(connection(0), 1, 10_000_000);
    assert_eq!(grants(&mut queue, 0).len(), 50 - first);
    // What is told of an earlier membership says nothing about this one.
    queue.unsubscribe(connection(0), true);
    assert_eq!(queue.subscribe(connection(0), 50), 2);
    assert_eq!(grants(&mut queue, 0).len(), first);
    queue.written(connection(0), 1, 10_000_000);
    assert!(grants(&mut queue, 0).is_empty());
}

#[test]
fn a_log_that_can_not_be_read_is_tried_again_later() {
    let mut queue = with(3);
    queue.subscribe(connection(0), 5);
    assert!(queue.wanted().is_some());
    queue.load_failed(0);
    assert_eq!(queue.wanted(), None);
    let due = queue.next_due().unwrap();
    queue.expire(due);
    assert_eq!(grants(&mut queue, due).len(), 3);
}

#[test]
fn a_move_that_failed_is_tried_again_and_holds_nothing_else_up() {
    let mut queue = with(3);
    queue.subscribe(connection(0), 1);
    grants(&mut queue, 0);
    queue.reject(connection(0), &[id(1)], Rejected::DeadLetter, 0);
    let ranges = queue.wanted().unwrap();
    assert_eq!(
        queue.load(ranges.into_iter().map(page).collect(), 0).len(),
        1
    );
    queue.not_moved(0);
    assert_eq!(sequences(&grants(&mut queue, 0)), [2]);
    assert_eq!(queue.pending(Sequence(3)), 2);
    queue.expire(PAUSE);
    // The lease has ended meanwhile.
    assert_eq!(grants(&mut queue, PAUSE), [(connection(0), 2, 2)]);
    assert_eq!(queue.progress().settled(), Sequence(1));
}

#[test]
fn ends_by_an_orderly_shutdown_do_not_count() {
    let mut queue = with(1);
    let mut stored = Stored::default();
    for delivery in 1..=8 {
        queue.subscribe(connection(0), 1);
        assert_eq!(grants(&mut queue, 0), [(connection(0), 1, delivery)]);
        queue.unsubscribe(connection(0), true);
        queue = restarted(&mut queue, &mut stored, 1);
    }
    for delivery in 9..=11 {
        queue.subscribe(connection(0), 1);
        assert_eq!(grants(&mut queue, 0), [(connection(0), 1, delivery)]);
        queue.unsubscribe(connection(0), false);
    }
    queue.subscribe(connection(0), 1);
    assert!(grants(&mut queue, 0).is_empty());
    assert_eq!(queue.progress().settled(), Sequence(1));
}

#[test]
fn a_log_that_lost_its_end_takes_the_marks_with_it() {
    let mut queue = with(3000);
    queue.subscribe(connection(0), 3000);
    let done: Vec<_> = sequences(&grants(&mut queue, 0))
        .into_iter()
        .map(id)
        .collect();
    queue.acknowledge(connection(0), &done[10..]);
    let mut stored = Stored::default();
    stored.write(&mut queue);
    assert_eq!(stored.blocks.len(), 3);
    let progress = Progress::restored(stored.head, stored.blocks.clone(), Sequence(1), Sequence(5));
    let mut queue = Queue::new(progress, RULES, Sequence(5));
    stored.write(&mut queue);
    assert!(stored.blocks.is_empty());
    assert_eq!(
        (stored.head.settled, stored.head.delivered),
        (Sequence(0), Sequence(5))
    );
    assert_eq!(queue.pending(Sequence(5)), 5);
}

#[test]
fn whoever_comes_and_goes_has_one_turn_like_the_others() {
    let mut queue = with(20);
    queue.subscribe(connection(0), 100);
    for _ in 0..1_000 {
        queue.subscribe(connection(1), 100);
        queue.unsubscribe(connection(1), false);
    }
    assert_eq!(queue.turns.len(), 1);
    queue.subscribe(connection(1), 100);
    let granted = grants(&mut queue, 0);
    let mine = |who| granted.iter().filter(|(to, ..)| *to == who).count();
    assert_eq!((mine(connection(0)), mine(connection(1))), (10, 10));
}

#[test]
fn what_came_back_before_its_own_commit_is_read_behind_it() {
    let mut queue = empty();
    queue.subscribe(connection(0), 1);
    queue.subscribe(connection(1), 1);
    assert!(queue.lease_fresh(Sequence(1), id(1), 50, 0).is_some());
    queue.unsubscribe(connection(0), false);
    assert_eq!(queue.wanted(), None);
    queue.set_readable(Sequence(1));
    assert_eq!(grants(&mut queue, 0), [(connection(1), 1, 2)]);
    // Nor is a dead one moved before.
    assert_eq!(queue.lease_fresh(Sequence(2), id(2), 50, 0), None);
    queue.subscribe(connection(0), 1);
    assert!(queue.lease_fresh(Sequence(2), id(2), 50, 0).is_some());
    queue.reject(connection(0), &[id(2)], Rejected::DeadLetter, 0);
    assert_eq!(queue.wanted(), None);
    queue.set_readable(Sequence(2));
    assert_eq!(queue.wanted(), Some(vec![(Sequence(2), Sequence(2))]));
}

#[test]
fn little_is_loaded_whatever_comes_back_in_front_of_it() {
    const COUNT: u64 = 30_000;
    let mut queue = with(COUNT);
    queue.set_rules(QueueRules {
        max_deliveries: 0,
        unwritten: u64::MAX,
        ..RULES
    });
    queue.subscribe(connection(0), u16::MAX);
    let all = sequences(&grants(&mut queue, 0));
    assert_eq!(all.len() as u64, COUNT);
    queue.subscribe(connection(1), 1);
    // From the back to the front, so that what comes back goes before all that is loaded.
    for ids in all.rchunks(50) {
        let ids: Vec<_> = ids.iter().copied().map(id).collect();
        // Who gives back has no room for them.
        queue.subscribe(connection(0), 1);
        queue.reject(connection(0), &ids, Rejected::Later(0), 0);
        let granted = sequences(&grants(&mut queue, 0));
        queue.acknowledge(
            connection(1),
            &granted.into_iter().map(id).collect::<Vec<_>>(),
        );
        assert!(
            queue.loaded_bytes <= 5 * LOAD_SIZE,
            "{}",
            queue.loaded_bytes
        );
    }
    let counted: usize = queue.loaded.values().map(|loaded| loaded.frame.len()).sum();
    assert_eq!(queue.loaded_bytes, counted);
    // The first, given back again and again, brings nothing else.
    for _ in 0..1_000 {
        let (_, first, _) = grants(&mut queue, 0)[0];
        queue.reject(connection(1), &[id(first)], Rejected::Later(0), 0);
    }
    assert!(
        queue.loaded_bytes <= 5 * LOAD_SIZE,
        "{}",
        queue.loaded_bytes
    );
}

#[test]
fn dead_ones_hold_up_neither_each_other_nor_those_that_are_delivered() {
    const COUNT: u64 = 1_000;
    let mut queue = with(COUNT + 1);
    queue.subscribe(connection(0), COUNT as u16);
    let all = sequences(&grants(&mut queue, 0));
    // Every second one, so that each is a range of its own.
    let odd: Vec<_> = all.into_iter().filter(|one| one % 2 == 1).map(id).collect();
    queue.reject(connection(0), &odd, Rejected::DeadLetter, 0);
    let mut reads = 0;
    let mut seen = BTreeSet::new();
    while seen.len() < odd.len() {
        let ranges = queue.wanted().unwrap();
        reads += 1;
        assert!(reads <= 2 * odd.len() / 64 + 2, "{}", seen.len());
        // No one of them can be moved, and all get their try.
        for dead in queue.load(ranges.into_iter().map(page).collect(), 0) {
            seen.insert(dead.sequence);
        }
        if reads == 2 {
            let granted = sequences(
                &std::iter::from_fn(|| {
                    let Grant {
                        connection,
                        sequence,
                        delivery,
                        ..
                    } = queue.next_grant(0)?;
                    Some((connection, sequence.0, delivery))
                })
                .collect::<Vec<_>>(),
            );
            assert_eq!(granted, [COUNT + 1]);
        }
    }
}

#[test]
fn many_leases_that_end_one_by_one_are_not_looked_at_for_each() {
    const COUNT: u64 = 50_000;
    let mut queue = empty();
    queue.subscribe(connection(0), u16::MAX);
    for sequence in 1..=COUNT {
        queue.set_readable(Sequence(sequence));
        queue
            .lease_fresh(Sequence(sequence), id(sequence), 1, sequence)
            .unwrap();
    }
    let mut looks = 0;
    while let Some(due) = queue.next_due() {
        queue.expire(due);
        looks += 1;
    }
    assert_eq!(queue.in_flight(), 0);
    assert!(looks < 10_000, "{looks}");
}
