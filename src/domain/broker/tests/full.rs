//! A full disk: what goes on in the reserve, what when that is used up, and that nothing has to be told twice when there is room.

use super::{queues, *};
use crate::{domain::Cut, protocol::Settled};

/// No room for publications, but for everything else.
const FULL: Room = Room {
    guaranteed: 0,
    full: true,
    ..Room::UNLIMITED
};

/// No room but for what makes room.
const USED_UP: Room = Room { changes: 0, ..FULL };

#[test]
fn without_room_submissions_are_log_full_and_everything_else_goes_on() {
    let mut bench = Bench::new();
    bench.start(BOB, "a", None, None);
    bench.broker.set_room(FULL);
    assert!(bench.broker.is_ready());
    assert_eq!(bench.error(ALICE, submission("a")), ErrorCode::LogFull);
    bench.call(ALICE, create("b", SettingsPatch::default()));
    assert!(matches!(
        bench.call(ALICE, ClientCommand::DeleteSubscription(named("a"))),
        ServerResponse::Deleted(_)
    ));
    bench.broker.set_room(Room {
        full: false,
        ..FULL
    });
    assert!(!bench.broker.is_ready());
}

#[test]
fn with_the_reserve_used_up_what_changes_state_is_log_full_but_for_what_makes_room() {
    let mut bench = Bench::new();
    for name in ["a", "b"] {
        bench.submit(name);
        bench.submit(name);
    }
    let session = SessionId::random();
    bench.connect(connection(3), session);
    bench.start(connection(3), "a", Some(SubscribeFrom::First), None);
    bench.broker.set_room(USED_UP);
    for refused in [
        create("c", SettingsPatch::default()),
        acknowledge("a", 2),
        subscribe("b", None, None),
        subscribe("a", Some(SubscribeFrom::New), None),
    ] {
        assert_eq!(bench.error(connection(3), refused), ErrorCode::LogFull);
    }
    // What is not written down, and what asks.
    bench.start(ALICE, "a", None, None);
    bench.call(ALICE, ClientCommand::GetSubscription(named("a")));

    let settings = SettingsPatch {
        retention: Patch::Value(Retention {
            max_publications: Some(1),
            ..Retention::default()
        }),
        ..SettingsPatch::default()
    };
    let update = ClientCommand::UpdateSubscription(UpdateSubscription {
        subscription: named("a"),
        settings,
    });
    let updated = bench.call(ALICE, update);
    assert!(matches!(updated, ServerResponse::SubscriptionMeta(_)));
    let check = bench.broker.retention_due(10, bench.now).remove(0);
    let cut = |first| RetentionCut {
        subscription: check.subscription,
        log: check.log,
        cut: Cut {
            first: Sequence(first),
            removed: first - 1,
            removed_bytes: 4,
            oldest_time: None,
        },
    };
    bench.broker.retain(cut(2));
    let batch = bench.broker.take_logged().unwrap();
    assert!(matches!(batch.records[..], [Record::Truncate { .. }]));
    bench.broker.committed(batch.number, batch.size);

    bench.broker.set_room(Room {
        clearing: 0,
        ..USED_UP
    });
    bench.broker.retain(cut(3));
    assert!(!bench.broker.has_logged());
    let delete = || ClientCommand::DeleteSubscription(named("a"));
    assert_eq!(bench.error(ALICE, delete()), ErrorCode::LogFull);
    bench.broker.set_room(USED_UP);
    assert!(matches!(
        bench.call(ALICE, delete()),
        ServerResponse::Deleted(_)
    ));

    bench.broker.set_room(Room::UNLIMITED);
    bench.submit("b");
    bench.call(connection(3), create("c", SettingsPatch::default()));
}

#[test]
fn what_is_not_committed_counts_against_the_reserve() {
    let mut bench = Bench::new();
    bench.broker.set_room(Room {
        changes: 10,
        ..FULL
    });
    bench.send(ALICE, create("a", SettingsPatch::default()));
    bench.send(ALICE, create("b", SettingsPatch::default()));
    let answers: Vec<_> = bench.commit();
    assert!(matches!(
        &answers[..],
        [
            Effect::Answer(_, ServerResponse::SubscriptionMeta(_)),
            Effect::Answer(_, ServerResponse::Error(error)),
        ] if error.code == ErrorCode::LogFull
    ));
}

#[test]
fn places_that_could_not_be_written_down_are_when_there_is_room() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.submit("a");
    }
    let session = SessionId::random();
    bench.connect(connection(3), session);
    bench.start(connection(3), "a", Some(SubscribeFrom::First), None);
    let log = bench.broker.subscriptions[&SubscriptionId::of_name("a")].log;
    let handed = |cursor| {
        [Handed {
            subscription: SubscriptionId::of_name("a"),
            log,
            cursor: Sequence(cursor),
        }]
    };
    bench.broker.set_room(USED_UP);
    bench.broker.handed(connection(3), &handed(3));
    bench
        .broker
        .disconnected(connection(3), &handed(4), bench.now);
    assert!(!bench.broker.has_logged());
    // They are known as long as the server runs, and the time to forget it does not come.
    bench
        .broker
        .expire_sessions(Timestamp(bench.now.0 + 10_000));
    let welcome = bench.connect(connection(4), session);
    assert_eq!(welcome.restored[0].cursor, Sequence(4));
    bench.broker.set_room(Room::UNLIMITED);
    bench.commit();
    let mut bench = bench.restart();
    let welcome = bench.connect(connection(3), session);
    assert_eq!(welcome.restored[0].cursor, Sequence(4));
}

#[test]
fn queue_delivers_and_settles_nothing_without_room_and_goes_on_with_it() {
    let mut bench = Bench::new();
    bench.send(ALICE, queues::work(1));
    bench.send(BOB, submission("work"));
    bench.send(BOB, submission("work"));
    let held = queues::ids(&queues::deliveries(&bench.commit())[0]);
    bench.broker.set_room(USED_UP);
    let refused = bench.error(ALICE, queues::acknowledge(held.clone()));
    assert_eq!(refused, ErrorCode::LogFull);
    bench.send(ALICE, queues::work(2));
    assert!(queues::deliveries(&bench.commit()).is_empty());
    assert!(bench.broker.take_loads().is_empty());

    bench.broker.set_room(Room::UNLIMITED);
    assert_eq!(
        bench.broker.take_loads()[0].ranges,
        [(Sequence(2), Sequence(2))]
    );
    let settled = bench.call(ALICE, queues::acknowledge(held));
    assert!(matches!(
        settled,
        ServerResponse::Acknowledged(Settled { count: 1, .. })
    ));
}
