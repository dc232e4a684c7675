//! Queues in the broker: what goes into which batch, and what a failed one leaves.

use super::*;
use crate::{
    domain::QueueDelivery,
    protocol::{Reject, Settled},
};

pub(super) fn work(prefetch: u16) -> ClientCommand {
    ClientCommand::Subscribe(Subscribe {
        subscription: named("work"),
        kind: Some(Kind::Queue),
        from: None,
        epoch: None,
        prefetch: Some(prefetch),
    })
}

pub(super) fn acknowledge(ids: Vec<PublicationId>) -> ClientCommand {
    ClientCommand::Acknowledge(Acknowledge {
        subscription: named("work"),
        what: Acknowledged::Ids(ids),
    })
}

pub(super) fn deliveries(effects: &[Effect]) -> Vec<QueueDelivery> {
    let delivery = |effect: &Effect| match effect {
        Effect::Deliver(delivery) => Some((**delivery).clone()),
        _ => None,
    };
    effects.iter().filter_map(delivery).collect()
}

fn sequences(delivery: &QueueDelivery) -> Vec<u64> {
    let frames = delivery.publications.iter();
    frames
        .map(|(frame, _)| {
            let (publication, _) = crate::protocol::StoredPublication::split_first(frame).unwrap();
            publication.sequence().0
        })
        .collect()
}

pub(super) fn ids(delivery: &QueueDelivery) -> Vec<PublicationId> {
    let frames = delivery.publications.iter();
    frames
        .map(|(frame, _)| {
            let (publication, _) = crate::protocol::StoredPublication::split_first(frame).unwrap();
            publication.publication_id()
        })
        .collect()
}

#[test]
fn what_is_fresh_is_delivered_with_the_batch_that_writes_it_and_its_count() {
    let mut bench = Bench::new();
    bench.send(ALICE, work(2));
    bench.commit();
    for _ in 0..3 {
        bench.send(BOB, submission("work"));
    }
    let batch = bench.broker.take_logged().unwrap();
    assert!(batch.needs_sync && batch.at_write.is_empty());
    let is_head = |record: &Record| matches!(record, Record::Put { key, .. } if key[0] == b'q');
    assert_eq!(
        batch
            .records
            .iter()
            .filter(|record| is_head(record))
            .count(),
        1
    );
    let effects: Vec<_> = batch
        .at_sync
        .into_iter()
        .map(|(_, effect)| effect)
        .collect();
    let delivered = deliveries(&effects);
    assert_eq!(delivered.len(), 1, "what goes to one goes together");
    assert_eq!(
        (delivered[0].connection, sequences(&delivered[0])),
        (ALICE, vec![1, 2])
    );
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Publications(_)))
    );
}

#[test]
fn a_delivery_alone_asks_for_no_sync_but_is_written_first() {
    let mut bench = Bench::new();
    bench.send(ALICE, work(1));
    bench.send(ALICE, submission("work"));
    let first = ids(&deliveries(&bench.commit())[0]);
    bench.send(BOB, work(1));
    bench.commit();
    // The holder goes, and the other has room: it is read again.
    bench.broker.disconnected(ALICE, &[], bench.now);
    bench.commit();
    let load = bench.broker.take_loads().pop().unwrap();
    assert_eq!(load.ranges, [(Sequence(1), Sequence(1))]);
    let frame = bench.disk.borrow().frames[&(load.log, Sequence(1))].clone();
    let page = crate::domain::Page {
        gap: None,
        frames: frame,
        first: Sequence(1),
        last: Sequence(1),
    };
    bench.broker.loaded(
        load.subscription,
        load.log,
        Some(vec![(load.ranges[0], page)]),
    );
    let batch = bench.broker.take_logged().unwrap();
    assert!(!batch.needs_sync && !batch.records.is_empty());
    let effects: Vec<_> = batch
        .at_sync
        .into_iter()
        .map(|(_, effect)| effect)
        .collect();
    let delivered = deliveries(&effects);
    assert_eq!(
        (delivered[0].connection, delivered[0].publications[0].1),
        (BOB, 2)
    );
    assert_eq!(ids(&delivered[0]), first);
}

#[test]
fn a_failed_batch_delivers_nothing_and_settles_nothing_more() {
    let mut bench = Bench::new();
    bench.send(ALICE, work(5));
    bench.send(BOB, submission("work"));
    let held = ids(&deliveries(&bench.commit())[0]);
    bench.send(BOB, submission("work"));
    bench.send(ALICE, acknowledge(held.clone()));
    let batch = bench.broker.take_logged().unwrap();
    bench.broker.commit_failed(Some(batch), false);
    let effects = bench.commit();
    assert!(deliveries(&effects).is_empty());
    let failed = |effect: &&Effect| {
        matches!(effect, Effect::Answer(_, ServerResponse::Error(error))
            if error.code == ErrorCode::LogUnavailable)
    };
    assert_eq!(effects.iter().filter(failed).count(), 2);
    let reject = ClientCommand::Reject(Reject {
        subscription: named("work"),
        publication_ids: held.clone(),
        delay: None,
        dead_letter: true,
    });
    assert_eq!(
        bench.error(ALICE, acknowledge(held)),
        ErrorCode::LogUnavailable
    );
    assert_eq!(bench.error(ALICE, reject), ErrorCode::LogUnavailable);
    // The end of a connection, and time, write nothing that would fail again.
    bench.broker.disconnected(ALICE, &[], bench.now);
    bench.broker.set_clock(bench.now, 1_000_000);
    bench.broker.expire_leases();
    while let Some(batch) = bench.broker.take_logged() {
        assert!(batch.records.is_empty());
        bench.broker.committed(batch.number, batch.size);
    }
    let pong = bench.call(BOB, ClientCommand::Ping);
    assert!(matches!(pong, ServerResponse::Pong(_)));
}

#[test]
fn an_acknowledgement_pipelined_behind_its_own_submission_settles_it() {
    let mut bench = Bench::new();
    bench.send(ALICE, work(5));
    bench.commit();
    let id = PublicationId::made(Timestamp(5), Sequence(7), 3);
    let submit = ClientCommand::SubmitPublication(SubmitPublication {
        subscription: named("work"),
        submission: Bytes::from_static(b"x"),
        kind: None,
        publication_id: Some(id),
        expected_sequence: None,
    });
    bench.send(ALICE, submit);
    let settled = bench.call_last(ALICE, acknowledge(vec![id]));
    assert!(matches!(
        settled,
        ServerResponse::Acknowledged(Settled { count: 1, .. })
    ));
}
