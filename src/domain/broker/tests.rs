//! The broker with made-up time, a log that is a list, and connections that are numbers.

mod beginnings;
mod full;
mod queues;
mod quotas;

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use bytes::Bytes;

use super::*;
use crate::{
    domain::{Handed, Identity, Opening, Principal, SealedBatch, Start, WelcomeEffect, Workers},
    protocol::{
        Acknowledge, Acknowledged, ClientCommand, CreateSubscription, Epoch, Kind, Patch, Request,
        RequestId, Retention, SettingsPatch, SubmitPublication, Subscribe, SubscribeFrom,
        SubscriptionReference, UpdateSubscription, stored_publications,
    },
};

/// What was written: the publications of each log, by id, and the state map.
#[derive(Default)]
struct Disk {
    ids: HashMap<(LogNumber, PublicationId), Sequence>,
    frames: HashMap<(LogNumber, Sequence), Bytes>,
    state: HashMap<Box<[u8]>, Box<[u8]>>,
}

struct KnownToDisk(Rc<RefCell<Disk>>);

impl KnownIds for KnownToDisk {
    fn find(
        &self,
        log: LogNumber,
        id: PublicationId,
        through: Sequence,
    ) -> Result<Option<Sequence>, String> {
        Ok(self
            .0
            .borrow()
            .ids
            .get(&(log, id))
            .copied()
            .filter(|sequence| *sequence <= through))
    }

    fn bytes_through(&self, _: LogNumber, _: Sequence) -> Result<u64, String> {
        Ok(0)
    }
}

/// A broker whose log never fails, and what it released.
struct Bench {
    broker: Broker,
    disk: Rc<RefCell<Disk>>,
    now: Timestamp,
}

const ALICE: ConnectionId = connection(1);
const BOB: ConnectionId = connection(2);

const fn connection(number: u64) -> ConnectionId {
    ConnectionId::of_worker_zero(number)
}

fn limits() -> BrokerLimits {
    BrokerLimits {
        defaults: Defaults {
            durability: Durability::Synced,
            retention: Retention::default(),
        },
        max_subscriptions: 100,
        max_sessions: 2,
        session_expiry: 1000,
        outbox_size: 1 << 20,
        memory_log: 64 << 20,
        quotas: Default::default(),
        limits: Limits {
            max_message_size: 1 << 18,
            max_subscriptions: 3,
            heartbeat_interval: 25_000,
            heartbeat_timeout: 10_000,
        },
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: BrokerLimits) -> Self {
        let disk = Rc::<RefCell<Disk>>::default();
        let restored = RestoredState {
            entries: vec![],
            logs: Default::default(),
            next_log: 1,
            uncertain: vec![],
            unclean_boot: false,
        };
        let now = Timestamp(1_000_000);
        let broker = Broker::new(
            limits,
            restored,
            Box::new(KnownToDisk(Rc::clone(&disk))),
            now,
        );
        let mut bench = Self { broker, disk, now };
        for connection in [ALICE, BOB] {
            bench.broker.connect(
                connection,
                Identity::Transient,
                &Principal::anonymous(),
                now,
            );
        }
        bench.commit();
        bench
    }

    /// Commits everything, and returns what is released, in order.
    fn commit(&mut self) -> Vec<Effect> {
        let mut released = Vec::new();
        while let Some(batch) = self.broker.take_direct() {
            released.extend(batch.at_write.into_iter().chain(batch.at_sync));
        }
        while let Some(batch) = self.broker.take_logged() {
            self.write(&batch);
            let SealedBatch {
                number,
                at_write,
                at_sync,
                size,
                ..
            } = batch;
            released.extend(at_write.into_iter().chain(at_sync));
            self.broker.committed(number, size);
        }
        released.into_iter().map(|(_, effect)| effect).collect()
    }

    fn write(&mut self, batch: &SealedBatch) {
        let mut disk = self.disk.borrow_mut();
        for record in &batch.records {
            match record {
                Record::Publications(chunk) => {
                    for publication in stored_publications(&chunk.frames) {
                        let publication = publication.unwrap();
                        let frame = Bytes::copy_from_slice(publication.frame());
                        disk.frames
                            .insert((chunk.log, publication.sequence()), frame);
                        disk.ids.insert(
                            (chunk.log, publication.publication_id()),
                            publication.sequence(),
                        );
                    }
                }
                Record::Put { key, value } => _ = disk.state.insert(key.clone(), value.clone()),
                Record::Delete { key } => _ = disk.state.remove(key),
                _ => {}
            }
        }
    }

    fn send(&mut self, connection: ConnectionId, command: ClientCommand) {
        let request = Request {
            id: Some(RequestId(1)),
            command,
        };
        let to = ReplyTo {
            connection,
            request_id: request.id,
            command: Some(request.command.name()),
            silent: false,
            credit: 10,
        };
        self.broker.handle(to, request, self.now);
    }

    /// The answer to one command.
    fn call(&mut self, connection: ConnectionId, command: ClientCommand) -> ServerResponse {
        self.send(connection, command);
        let mut answers: Vec<_> = self
            .commit()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Answer(to, response) | Effect::Unsubscribe(to, _, response)
                    if to.connection == connection =>
                {
                    Some(response)
                }
                _ => None,
            })
            .collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    /// The answer to a command that others were sent in front of.
    fn call_last(&mut self, connection: ConnectionId, command: ClientCommand) -> ServerResponse {
        self.send(connection, command);
        let answers = self.commit().into_iter().filter_map(|effect| match effect {
            Effect::Answer(to, response) if to.connection == connection => Some(response),
            _ => None,
        });
        answers.last().expect("an answer")
    }

    fn error(&mut self, connection: ConnectionId, command: ClientCommand) -> ErrorCode {
        match self.call(connection, command) {
            ServerResponse::Error(error) => error.code,
            other => panic!("no error: {other:?}"),
        }
    }

    fn submit(&mut self, name: &str) -> Sequence {
        match self.call(ALICE, submission(name)) {
            ServerResponse::Submitted(submitted) => submitted.sequence,
            other => panic!("not submitted: {other:?}"),
        }
    }

    fn start(
        &mut self,
        connection: ConnectionId,
        name: &str,
        from: Option<SubscribeFrom>,
        epoch: Option<Epoch>,
    ) -> Start {
        self.send(connection, subscribe(name, from, epoch));
        let starts: Vec<_> = self
            .commit()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Subscribe(effect) => Some(effect.start),
                _ => None,
            })
            .collect();
        assert_eq!(starts.len(), 1);
        starts[0]
    }

    fn connect(&mut self, connection: ConnectionId, session: SessionId) -> WelcomeEffect {
        let old = self.broker.connect(
            connection,
            Identity::Durable(session),
            &Principal::anonymous(),
            self.now,
        );
        assert_eq!(old, None);
        let mut effects = self.commit();
        match effects.remove(0) {
            Effect::Welcome(welcome) => *welcome,
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// A broker that begins with what is written; logs are as they are in this one.
    fn restart(self) -> Self {
        let logs = self
            .broker
            .subscriptions
            .values()
            .map(|known| {
                let extent = crate::domain::LogExtent {
                    first: known.first,
                    last: known.last,
                    bytes: known.bytes,
                    first_time: known.first_time,
                    last_time: known.last_time,
                };
                (known.log, extent)
            })
            .collect();
        let entries = self.disk.borrow().state.clone().into_iter().collect();
        let restored = RestoredState {
            entries,
            logs,
            next_log: self.broker.next_log,
            uncertain: vec![],
            unclean_boot: false,
        };
        let known = Box::new(KnownToDisk(Rc::clone(&self.disk)));
        let broker = Broker::new(self.broker.limits, restored, known, self.now);
        Self {
            broker,
            disk: self.disk,
            now: self.now,
        }
    }
}

fn named(name: &str) -> SubscriptionReference {
    SubscriptionReference {
        id: SubscriptionId::of_name(name),
        name: Some(name.into()),
    }
}

fn submission(name: &str) -> ClientCommand {
    ClientCommand::SubmitPublication(SubmitPublication {
        subscription: named(name),
        submission: Bytes::from_static(b"data"),
        kind: None,
        publication_id: None,
        expected_sequence: None,
    })
}

fn submission_with_id(name: &str, id: u128) -> ClientCommand {
    let ClientCommand::SubmitPublication(mut command) = submission(name) else {
        unreachable!()
    };
    command.publication_id = Some(PublicationId(uuid::Uuid::from_u128(id)));
    ClientCommand::SubmitPublication(command)
}

fn subscribe(name: &str, from: Option<SubscribeFrom>, epoch: Option<Epoch>) -> ClientCommand {
    ClientCommand::Subscribe(Subscribe {
        subscription: named(name),
        kind: None,
        from,
        epoch,
        prefetch: None,
    })
}

fn acknowledge(name: &str, sequence: u64) -> ClientCommand {
    ClientCommand::Acknowledge(Acknowledge {
        subscription: named(name),
        what: Acknowledged::UpTo(Sequence(sequence)),
    })
}

fn create(name: &str, settings: SettingsPatch) -> ClientCommand {
    ClientCommand::CreateSubscription(CreateSubscription {
        subscription: named(name),
        kind: None,
        settings,
    })
}

fn at(cursor: u64, recovered: bool) -> Start {
    Start::At {
        cursor: Sequence(cursor),
        recovered,
    }
}

#[test]
fn sequences_of_each_subscription_are_counted_from_one() {
    let mut bench = Bench::new();
    assert_eq!(
        [bench.submit("a"), bench.submit("b"), bench.submit("a")].map(|sequence| sequence.0),
        [1, 1, 2]
    );
}

#[test]
fn publications_of_a_batch_are_one_chunk_which_a_subscribe_divides() {
    let mut bench = Bench::new();
    bench.start(BOB, "a", None, None);
    for _ in 0..3 {
        bench.send(ALICE, submission("a"));
    }
    bench.send(ALICE, subscribe("a", None, None));
    bench.send(ALICE, submission("a"));
    let chunks: Vec<_> = bench
        .commit()
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publications(delivery) => Some((delivery.chunk.first.0, delivery.chunk.last.0)),
            _ => None,
        })
        .collect();
    assert_eq!(chunks, [(1, 3), (4, 4)]);
}

#[test]
fn publications_go_only_to_workers_that_have_subscribers() {
    let mut bench = Bench::new();
    bench.send(ALICE, submission("a"));
    assert!(
        !bench
            .commit()
            .iter()
            .any(|effect| matches!(effect, Effect::Publications(_)))
    );
}

#[test]
fn an_id_that_is_on_its_way_is_a_duplicate_before_it_is_committed() {
    let mut bench = Bench::new();
    bench.send(ALICE, submission_with_id("a", 7));
    bench.send(BOB, submission_with_id("a", 7));
    let answers: Vec<_> = bench
        .commit()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Answer(to, ServerResponse::Submitted(submitted)) => {
                Some((to.connection, submitted.sequence.0, submitted.duplicate))
            }
            _ => None,
        })
        .collect();
    assert_eq!(answers, [(ALICE, 1, false), (BOB, 1, true)]);
    assert!(
        matches!(bench.call(BOB, submission_with_id("a", 7)), ServerResponse::Submitted(submitted) if submitted.duplicate)
    );
}

#[test]
fn a_wrong_expected_sequence_is_a_conflict_and_makes_no_subscription() {
    let mut bench = Bench::new();
    let ClientCommand::SubmitPublication(mut command) = submission("a") else {
        unreachable!()
    };
    command.expected_sequence = Some(Sequence(2));
    assert_eq!(
        bench.error(ALICE, ClientCommand::SubmitPublication(command.clone())),
        ErrorCode::Conflict
    );
    assert_eq!(
        bench.error(ALICE, ClientCommand::GetSubscription(named("a"))),
        ErrorCode::NotFound
    );
    bench.submit("a");
    assert!(matches!(
        bench.call(ALICE, ClientCommand::SubmitPublication(command)),
        ServerResponse::Submitted(submitted) if submitted.sequence == Sequence(2)
    ));
}

#[test]
fn delivery_begins_where_from_says() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.submit("a");
    }
    let epoch = bench.broker.subscriptions[&SubscriptionId::of_name("a")].epoch;
    let mut start = |from, epoch| bench.start(BOB, "a", Some(from), epoch);
    assert_eq!(start(SubscribeFrom::New, None), at(5, true));
    assert_eq!(start(SubscribeFrom::First, None), at(0, true));
    assert_eq!(start(SubscribeFrom::Last(2), None), at(3, true));
    assert_eq!(start(SubscribeFrom::Last(9), None), at(0, true));
    assert_eq!(
        start(SubscribeFrom::After(Sequence(2)), Some(epoch)),
        at(2, true)
    );
    assert_eq!(start(SubscribeFrom::After(Sequence(5)), None), at(5, true));
    assert_eq!(start(SubscribeFrom::After(Sequence(6)), None), at(0, false));
    assert_eq!(
        start(SubscribeFrom::After(Sequence(2)), Some(Epoch::random())),
        at(0, false)
    );
    assert_eq!(
        start(SubscribeFrom::Since(Timestamp(7)), None),
        Start::Since(Timestamp(7))
    );
}

#[test]
fn without_from_a_new_subscriber_begins_at_new_and_an_old_one_keeps_its_cursor() {
    let mut bench = Bench::new();
    bench.submit("a");
    assert_eq!(bench.start(BOB, "a", None, None), at(1, true));
    bench.submit("a");
    assert_eq!(bench.start(BOB, "a", None, None), Start::Keep);
    assert_eq!(
        bench.start(BOB, "a", None, Some(Epoch::random())),
        at(0, false)
    );
}

#[test]
fn below_the_oldest_kept_is_not_recovered() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.submit("a");
    }
    let log = bench.broker.subscriptions[&SubscriptionId::of_name("a")].log;
    let cut = crate::domain::Cut {
        first: Sequence(4),
        removed: 3,
        removed_bytes: 12,
        oldest_time: Some(bench.now),
    };
    bench.broker.retain(RetentionCut {
        subscription: SubscriptionId::of_name("a"),
        log,
        cut,
    });
    assert_eq!(
        bench.start(BOB, "a", Some(SubscribeFrom::After(Sequence(1))), None),
        at(1, false)
    );
    assert_eq!(
        bench.start(BOB, "a", Some(SubscribeFrom::After(Sequence(3))), None),
        at(3, true)
    );
    assert_eq!(
        bench.start(BOB, "a", Some(SubscribeFrom::First), None),
        at(3, true)
    );
}

#[test]
fn acknowledging_counts_what_is_new_and_never_goes_back() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.submit("a");
    }
    bench.start(BOB, "a", Some(SubscribeFrom::First), None);
    let mut count = |sequence| match bench.call(BOB, acknowledge("a", sequence)) {
        ServerResponse::Acknowledged(settled) => settled.count,
        other => panic!("{other:?}"),
    };
    assert_eq!([count(3), count(2), count(3), count(5)], [3, 0, 0, 2]);
    assert_eq!(
        bench.error(BOB, acknowledge("a", 6)),
        ErrorCode::InvalidArgument
    );
}

#[test]
fn a_durable_session_goes_on_behind_what_it_acknowledged_after_a_restart() {
    let session = SessionId::random();
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.submit("a");
    }
    let welcome = bench.connect(connection(3), session);
    assert!(!welcome.welcome.resumed && welcome.restored.is_empty());
    bench.start(connection(3), "a", Some(SubscribeFrom::First), None);
    bench.call(connection(3), acknowledge("a", 2));
    let log = bench.broker.subscriptions[&SubscriptionId::of_name("a")].log;
    let handed = [Handed {
        subscription: SubscriptionId::of_name("a"),
        log,
        cursor: Sequence(4),
    }];
    bench.broker.disconnected(connection(3), &handed, bench.now);
    bench.commit();

    let mut bench = bench.restart();
    let welcome = bench.connect(connection(3), session);
    assert!(welcome.welcome.resumed);
    assert_eq!(welcome.restored[0].cursor, Sequence(2));
    assert!(welcome.welcome.subscriptions[0].recovered);
}

#[test]
fn a_durable_session_that_never_acknowledged_goes_on_behind_what_it_was_handed() {
    let session = SessionId::random();
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.submit("a");
    }
    bench.connect(connection(3), session);
    bench.start(connection(3), "a", Some(SubscribeFrom::First), None);
    let log = bench.broker.subscriptions[&SubscriptionId::of_name("a")].log;
    let handed = [Handed {
        subscription: SubscriptionId::of_name("a"),
        log,
        cursor: Sequence(4),
    }];
    bench.broker.handed(connection(3), &handed);
    bench.commit();
    let mut bench = bench.restart();
    assert_eq!(
        bench.connect(connection(3), session).restored[0].cursor,
        Sequence(4)
    );
}

#[test]
fn a_taken_over_connection_changes_nothing_and_the_new_one_waits_for_its_cursors() {
    let session = SessionId::random();
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.submit("a");
    }
    bench.connect(connection(3), session);
    bench.start(connection(3), "a", Some(SubscribeFrom::First), None);
    let old = bench.broker.connect(
        connection(4),
        Identity::Durable(session),
        &Principal::anonymous(),
        bench.now,
    );
    assert_eq!(old, Some(connection(3)));
    bench.send(connection(3), submission("a"));
    // Dropped, but not without a word: it is under way no longer.
    assert!(matches!(
        bench.commit()[..],
        [Effect::Dropped(to)] if to.connection == connection(3)
    ));
    let log = bench.broker.subscriptions[&SubscriptionId::of_name("a")].log;
    let handed = [Handed {
        subscription: SubscriptionId::of_name("a"),
        log,
        cursor: Sequence(3),
    }];
    bench.broker.taken_over(connection(3), &handed);
    let Effect::Welcome(welcome) = bench.commit().remove(0) else {
        panic!("no welcome")
    };
    assert_eq!(
        (welcome.connection, welcome.restored[0].cursor),
        (connection(4), Sequence(3))
    );
    let meta = bench.broker.subscriptions[&SubscriptionId::of_name("a")].meta(&limits().defaults);
    assert_eq!((meta.subscribers, meta.connected), (1, 1));
}

#[test]
fn a_connection_that_ends_while_it_is_taken_over_tells_its_cursors() {
    let session = SessionId::random();
    let mut bench = Bench::new();
    bench.connect(connection(3), session);
    bench.start(connection(3), "a", None, None);
    bench.submit("a");
    let old = bench.broker.connect(
        connection(4),
        Identity::Durable(session),
        &Principal::anonymous(),
        bench.now,
    );
    assert_eq!(old, Some(connection(3)));
    assert!(bench.commit().is_empty());
    let handed = [Handed {
        subscription: SubscriptionId::of_name("a"),
        log: bench.broker.subscriptions[&SubscriptionId::of_name("a")].log,
        cursor: Sequence(1),
    }];
    bench.broker.disconnected(connection(3), &handed, bench.now);
    let Effect::Welcome(welcome) = bench.commit().remove(0) else {
        panic!("no welcome")
    };
    assert_eq!(
        (welcome.connection, welcome.restored[0].cursor),
        (connection(4), Sequence(1))
    );
    bench.broker.taken_over(connection(3), &[]);
    assert!(bench.commit().is_empty());
}

#[test]
fn a_session_forgotten_during_a_takeover_begins_anew() {
    let session = SessionId::random();
    let mut bench = Bench::new();
    bench.connect(connection(3), session);
    for (number, old) in [(4, connection(3)), (5, connection(4))] {
        let taken_over = bench.broker.connect(
            connection(number),
            Identity::Durable(session),
            &Principal::anonymous(),
            bench.now,
        );
        assert_eq!(taken_over, Some(old));
    }
    bench.broker.disconnected(connection(5), &[], bench.now);
    let welcome = bench.connect(connection(6), session);
    assert!(!welcome.welcome.resumed);
    bench.broker.taken_over(connection(3), &[]);
    bench.broker.taken_over(connection(4), &[]);
    assert!(bench.commit().is_empty());
}

#[test]
fn durable_sessions_are_forgotten_when_they_expire_or_end_without_subscriptions() {
    let (session, empty) = (SessionId::random(), SessionId::random());
    let mut bench = Bench::new();
    bench.connect(connection(3), session);
    bench.start(connection(3), "a", None, None);
    bench.connect(connection(4), empty);
    assert!(
        bench.broker.may_connect(
            Identity::Durable(SessionId::random()),
            &Principal::anonymous()
        ) != Opening::Granted
    );
    bench.broker.disconnected(connection(4), &[], bench.now);
    assert_eq!(bench.broker.durable_session_count(), 1);
    bench.broker.disconnected(connection(3), &[], bench.now);
    bench.broker.expire_sessions(Timestamp(bench.now.0 + 999));
    assert_eq!(bench.broker.durable_session_count(), 1);
    bench.broker.expire_sessions(Timestamp(bench.now.0 + 1000));
    assert_eq!(bench.broker.durable_session_count(), 0);
    bench.commit();
    assert_eq!(
        bench.broker.subscriptions[&SubscriptionId::of_name("a")]
            .sessions()
            .count(),
        0
    );
    assert!(!bench.connect(connection(5), session).welcome.resumed);
}

#[test]
fn a_session_that_holds_nothing_is_not_resumed_even_if_its_end_is_not_told_yet() {
    let session = SessionId::random();
    let mut bench = Bench::new();
    bench.connect(connection(3), session);
    let identity = Identity::Durable(session);
    let fenced = bench
        .broker
        .connect(connection(4), identity, &Principal::anonymous(), bench.now);
    assert_eq!(fenced, Some(connection(3)));
    bench.broker.taken_over(connection(3), &[]);
    let released = bench.commit();
    let welcomed = released.iter().find_map(|effect| match effect {
        Effect::Welcome(welcome) => Some(welcome.welcome.resumed),
        _ => None,
    });
    assert_eq!(welcomed, Some(false));
}

#[test]
fn a_deleted_subscription_is_gone_from_sessions_even_if_it_is_made_again() {
    let session = SessionId::random();
    let mut bench = Bench::new();
    bench.connect(connection(3), session);
    bench.start(connection(3), "a", None, None);
    bench.broker.disconnected(connection(3), &[], bench.now);
    let before = bench.broker.subscriptions[&SubscriptionId::of_name("a")].epoch;
    bench.call(ALICE, ClientCommand::DeleteSubscription(named("a")));
    assert_eq!(bench.submit("a"), Sequence(1));
    assert_ne!(
        bench.broker.subscriptions[&SubscriptionId::of_name("a")].epoch,
        before
    );
    let mut bench = bench.restart();
    assert!(bench.connect(connection(3), session).restored.is_empty());
}

#[test]
fn subscribers_of_a_deleted_subscription_are_told_in_the_place_of_the_stream() {
    let mut bench = Bench::new();
    bench.start(BOB, "a", None, None);
    bench.send(ALICE, submission("a"));
    bench.send(ALICE, ClientCommand::DeleteSubscription(named("a")));
    bench.send(ALICE, submission("a"));
    let order: Vec<_> = bench
        .commit()
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publications(delivery) => Some(format!("publication {}", delivery.chunk.last)),
            Effect::Deleted { except, .. } => {
                Some(format!("deleted but for {}", *except == Some(ALICE)))
            }
            _ => None,
        })
        .collect();
    assert_eq!(order, ["publication 1", "deleted but for true"]);
}

#[test]
fn the_first_name_used_is_shown_and_stays() {
    let mut bench = Bench::new();
    let unnamed = SubscriptionReference {
        name: None,
        ..named("a")
    };
    let shown = |bench: &mut Bench| match bench
        .call(ALICE, ClientCommand::GetSubscription(unnamed.clone()))
    {
        ServerResponse::SubscriptionMeta(meta) => meta.settings.name.as_deref().map(String::from),
        other => panic!("{other:?}"),
    };
    bench.call(
        ALICE,
        ClientCommand::CreateSubscription(CreateSubscription {
            subscription: unnamed.clone(),
            kind: None,
            settings: SettingsPatch::default(),
        }),
    );
    assert_eq!(shown(&mut bench), None);
    bench.submit("a");
    assert_eq!(shown(&mut bench).as_deref(), Some("a"));
    let mut bench = bench.restart();
    bench.broker.connect(
        ALICE,
        Identity::Transient,
        &Principal::anonymous(),
        bench.now,
    );
    bench.commit();
    assert_eq!(shown(&mut bench).as_deref(), Some("a"));
}

#[test]
fn making_the_same_again_is_fine_and_something_else_is_a_conflict() {
    let mut bench = Bench::new();
    let keep = |n| SettingsPatch {
        retention: Patch::Value(Retention {
            max_publications: Some(n),
            ..Retention::default()
        }),
        ..SettingsPatch::default()
    };
    assert!(matches!(
        bench.call(ALICE, create("a", keep(3))),
        ServerResponse::SubscriptionMeta(_)
    ));
    assert!(matches!(
        bench.call(ALICE, create("a", keep(3))),
        ServerResponse::SubscriptionMeta(_)
    ));
    assert!(matches!(
        bench.call(ALICE, create("a", SettingsPatch::default())),
        ServerResponse::SubscriptionMeta(_)
    ));
    assert_eq!(
        bench.error(ALICE, create("a", keep(4))),
        ErrorCode::Conflict
    );
    let queue = SettingsPatch {
        ack_timeout: Patch::Value(1),
        ..SettingsPatch::default()
    };
    assert_eq!(
        bench.error(ALICE, create("b", queue)),
        ErrorCode::InvalidArgument
    );
}

#[test]
fn synced_and_written_change_into_each_other_and_memory_does_not() {
    let mut bench = Bench::new();
    bench.submit("a");
    let to = |durability| {
        ClientCommand::UpdateSubscription(UpdateSubscription {
            subscription: named("a"),
            settings: SettingsPatch {
                durability: Patch::Value(durability),
                ..SettingsPatch::default()
            },
        })
    };
    assert!(matches!(
        bench.call(ALICE, to(Durability::Written)),
        ServerResponse::SubscriptionMeta(_)
    ));
    assert!(matches!(
        bench.call(ALICE, to(Durability::Synced)),
        ServerResponse::SubscriptionMeta(_)
    ));
    assert_eq!(
        bench.error(ALICE, to(Durability::Memory)),
        ErrorCode::InvalidArgument
    );
}

#[test]
fn what_waits_for_the_write_never_passes_what_waits_for_the_sync_of_the_same_subscription() {
    let mut bench = Bench::new();
    let written = SettingsPatch {
        durability: Patch::Value(Durability::Written),
        ..SettingsPatch::default()
    };
    bench.send(ALICE, create("w", written));
    bench.send(ALICE, submission("w"));
    let batch = bench.broker.take_logged().unwrap();
    assert!(batch.at_write.is_empty());
    assert_eq!(batch.at_sync.len(), 2);
    bench.broker.committed(batch.number, batch.size);
    bench.send(ALICE, submission("w"));
    let batch = bench.broker.take_logged().unwrap();
    assert!(!batch.needs_sync);
    assert_eq!((batch.at_write.len(), batch.at_sync.len()), (1, 0));
}

#[test]
fn what_is_submitted_behind_a_change_to_synced_waits_for_the_sync() {
    let mut bench = Bench::new();
    let durability = |durability| SettingsPatch {
        durability: Patch::Value(durability),
        ..SettingsPatch::default()
    };
    bench.call(ALICE, create("w", durability(Durability::Written)));
    bench.start(BOB, "w", None, None);
    bench.send(ALICE, submission("w"));
    bench.send(
        ALICE,
        ClientCommand::UpdateSubscription(UpdateSubscription {
            subscription: named("w"),
            settings: durability(Durability::Synced),
        }),
    );
    bench.send(ALICE, submission("w"));
    let batch = bench.broker.take_logged().unwrap();
    let published = |effects: &[(Workers, Effect)]| {
        let last = effects.iter().filter_map(|(_, effect)| match effect {
            Effect::Publications(delivery) => Some(delivery.chunk.last.0),
            _ => None,
        });
        last.collect::<Vec<_>>()
    };
    assert_eq!(published(&batch.at_write), [1]);
    assert_eq!(published(&batch.at_sync), [2]);
}

#[test]
fn a_memory_subscription_passes_the_log_only_when_nothing_of_it_is_in_there() {
    let mut bench = Bench::new();
    let memory = SettingsPatch {
        durability: Patch::Value(Durability::Memory),
        ..SettingsPatch::default()
    };
    bench.send(ALICE, create("m", memory));
    bench.send(ALICE, submission("m"));
    assert!(bench.broker.take_direct().is_none());
    assert_eq!(bench.commit().len(), 2);
    bench.send(ALICE, submission("m"));
    assert!(!bench.broker.has_logged());
    assert_eq!(bench.commit().len(), 1);
}

#[test]
fn a_memory_subscription_has_a_new_epoch_and_nothing_after_a_restart() {
    let mut bench = Bench::new();
    let memory = SettingsPatch {
        durability: Patch::Value(Durability::Memory),
        ..SettingsPatch::default()
    };
    bench.call(ALICE, create("m", memory));
    bench.submit("m");
    let before = bench.broker.subscriptions[&SubscriptionId::of_name("m")].epoch;
    let mut disk_only = bench;
    disk_only
        .broker
        .subscriptions
        .get_mut(&SubscriptionId::of_name("m"))
        .unwrap()
        .log = LogNumber(99);
    let bench = disk_only.restart();
    let known = &bench.broker.subscriptions[&SubscriptionId::of_name("m")];
    assert_ne!(known.epoch, before);
    assert_eq!(known.last, Sequence::ZERO);
}

#[test]
fn damage_removes_no_log_and_reuses_no_sequence() {
    let mut bench = Bench::new();
    bench.submit("kept");
    bench.submit("lost");
    let known = |bench: &Bench, name| {
        let known = &bench.broker.subscriptions[&SubscriptionId::of_name(name)];
        (known.log, known.epoch)
    };
    let (log, epoch) = known(&bench, "lost");
    let entries: Vec<_> = bench.disk.borrow().state.clone().into_iter().collect();
    let extent = crate::domain::LogExtent {
        first: Sequence(1),
        last: Sequence(1),
        bytes: 4,
        first_time: bench.now,
        last_time: bench.now,
    };
    let restored = RestoredState {
        entries,
        logs: [known(&bench, "kept").0, LogNumber(77)]
            .map(|log| (log, extent))
            .into(),
        next_log: 78,
        uncertain: vec![],
        unclean_boot: false,
    };
    let known_ids = Box::new(KnownToDisk(Rc::clone(&bench.disk)));
    bench.broker = Broker::new(limits(), restored, known_ids, bench.now);
    let (made, begun) = known(&bench, "lost");
    assert_eq!(made, log);
    assert_ne!(begun, epoch);
    let batch = bench.broker.take_logged().unwrap();
    let records = &batch.records;
    assert!(records.contains(&Record::CreateLog(log)), "{records:?}");
    assert!(
        !records
            .iter()
            .any(|record| matches!(record, Record::RemoveLog(_)))
    );
}

#[test]
fn limits_are_answered_and_make_nothing() {
    let mut bench = Bench::with(BrokerLimits {
        max_subscriptions: 4,
        ..limits()
    });
    for name in ["a", "b", "c"] {
        bench.start(BOB, name, None, None);
    }
    assert_eq!(
        bench.error(BOB, subscribe("d", None, None)),
        ErrorCode::LimitReached
    );
    assert_eq!(bench.broker.subscription_count(), 3);
    bench.submit("d");
    assert_eq!(bench.error(ALICE, submission("e")), ErrorCode::LimitReached);
}

#[test]
fn a_submission_over_max_bytes_is_too_large() {
    let mut bench = Bench::new();
    let small = SettingsPatch {
        retention: Patch::Value(Retention {
            max_bytes: Some(3),
            ..Retention::default()
        }),
        ..SettingsPatch::default()
    };
    bench.call(ALICE, create("a", small));
    assert_eq!(bench.error(ALICE, submission("a")), ErrorCode::TooLarge);
}

#[test]
fn after_a_failed_write_nothing_of_it_is_shown_and_reading_goes_on() {
    let mut bench = Bench::new();
    bench.submit("a");
    bench.start(BOB, "a", None, None);
    bench.send(ALICE, submission("a"));
    bench.send(ALICE, submission("new"));
    let batch = bench.broker.take_logged().unwrap();
    bench.send(ALICE, submission("a"));
    bench.broker.commit_failed(Some(batch), false);
    let released = bench.commit();
    assert!(released.iter().all(|effect| matches!(
        effect,
        Effect::Answer(_, ServerResponse::Error(error)) if error.code == ErrorCode::LogUnavailable
    )));
    assert_eq!(released.len(), 3);
    assert_eq!(
        bench.error(ALICE, submission("a")),
        ErrorCode::LogUnavailable
    );
    match bench.call(ALICE, ClientCommand::GetSubscription(named("a"))) {
        ServerResponse::SubscriptionMeta(meta) => {
            assert_eq!((meta.last_sequence, meta.bytes), (Sequence(1), 4))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        bench.error(ALICE, ClientCommand::GetSubscription(named("new"))),
        ErrorCode::NotFound
    );
    assert_eq!(
        bench.start(ALICE, "a", Some(SubscribeFrom::First), None),
        at(0, true)
    );
}

#[test]
fn a_failure_between_batches_does_not_pass_the_one_that_is_under_way() {
    let mut bench = Bench::new();
    bench.submit("a");
    bench.start(BOB, "a", None, None);
    bench.send(BOB, submission("a"));
    let under_way = bench.broker.take_logged().unwrap();
    bench.send(ALICE, submission("a"));
    bench.broker.commit_failed(None, true);
    bench.broker.commit_failed(Some(under_way), false);
    let failed: Vec<_> = bench
        .commit()
        .into_iter()
        .map(|effect| match effect {
            Effect::Answer(to, ServerResponse::Error(_)) => to.connection,
            other => panic!("not failed: {other:?}"),
        })
        .collect();
    assert_eq!(failed, [BOB, ALICE]);
    let known = &bench.broker.subscriptions[&SubscriptionId::of_name("a")];
    assert_eq!((known.last, known.bytes), (Sequence(1), 4));
}

#[test]
fn a_session_welcomed_by_a_failed_batch_is_not_served_what_was_taken_back() {
    let session = SessionId::random();
    let mut bench = Bench::new();
    bench.submit("a");
    bench.connect(connection(3), session);
    bench.start(connection(3), "a", Some(SubscribeFrom::First), None);
    bench.broker.disconnected(connection(3), &[], bench.now);
    bench.commit();
    bench.send(ALICE, submission("a"));
    bench.broker.connect(
        connection(4),
        Identity::Durable(session),
        &Principal::anonymous(),
        bench.now,
    );
    let batch = bench.broker.take_logged().unwrap();
    bench.broker.commit_failed(Some(batch), true);
    let welcome = bench.commit().into_iter().find_map(|effect| match effect {
        Effect::Welcome(welcome) => Some(welcome),
        _ => None,
    });
    assert_eq!(welcome.unwrap().restored[0].last, Sequence(1));
}

#[test]
fn retention_asks_about_those_over_their_limits_only() {
    let mut bench = Bench::new();
    let keep_two = SettingsPatch {
        retention: Patch::Value(Retention {
            max_publications: Some(2),
            ..Retention::default()
        }),
        ..SettingsPatch::default()
    };
    bench.call(ALICE, create("a", keep_two));
    bench.submit("b");
    for _ in 0..2 {
        bench.submit("a");
    }
    assert_eq!(bench.broker.retention_due(1, bench.now), []);
    bench.submit("a");
    let mut due = bench.broker.retention_due(2, bench.now);
    due.extend(bench.broker.retention_due(2, bench.now));
    due.extend(bench.broker.retention_due(2, bench.now));
    assert_eq!(due.len(), 1);
    assert_eq!(
        (due[0].last, due[0].subscription),
        (Sequence(3), SubscriptionId::of_name("a"))
    );
}

#[test]
fn a_queue_is_made_and_an_existing_broadcast_is_a_mismatch() {
    let mut bench = Bench::new();
    let queue = |name: &str| {
        ClientCommand::Subscribe(Subscribe {
            subscription: named(name),
            kind: Some(Kind::Queue),
            from: None,
            epoch: None,
            prefetch: None,
        })
    };
    bench.submit("a");
    assert_eq!(bench.error(ALICE, queue("a")), ErrorCode::KindMismatch);
    bench.send(ALICE, queue("b"));
    let effects = bench.commit();
    assert!(matches!(&effects[..], [Effect::Subscribe(effect)] if effect.kind == Kind::Queue));
}

#[test]
fn effects_for_all_name_each_worker_once() {
    let workers = Workers::default().with(0).with(5).with(63);
    assert_eq!(workers.iter().collect::<Vec<_>>(), [0, 5, 63]);
}
