//! Commands become sequences, records, and effects for those who are concerned: what PubSubService's thread does for them.

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use infotainer::{
    domain::{
        Broker, BrokerLimits, ConnectionId, Defaults, Identity, KnownIds, LogNumber, Principal,
        ReplyTo, broker::RestoredState,
    },
    protocol::{
        ClientCommand, Durability, Kind, Limits, PublicationId, Request, RequestId, Retention,
        Sequence, SubmitPublication, Subscribe, SubscriptionId, SubscriptionReference, Timestamp,
    },
};

use crate::{Area, PAYLOAD, table::Table};

/// Publications that come in between two commits.
const BATCH: usize = 64;
const NOW: Timestamp = Timestamp(1_790_000_000_000);

/// No publication has an id that its publisher chose.
struct NoneKnown;

impl KnownIds for NoneKnown {
    fn find(
        &self,
        _: LogNumber,
        _: PublicationId,
        _: Sequence,
    ) -> Result<Option<Sequence>, String> {
        Ok(None)
    }

    fn bytes_through(&self, _: LogNumber, _: Sequence) -> Result<u64, String> {
        Ok(0)
    }
}

fn broker(durability: Durability) -> Broker {
    let limits = BrokerLimits {
        defaults: Defaults {
            durability,
            retention: Retention::default(),
        },
        max_subscriptions: 1_000_000,
        max_sessions: 1_000_000,
        session_expiry: 86_400_000,
        outbox_size: 1 << 20,
        memory_log: 1 << 20,
        quotas: Default::default(),
        limits: Limits {
            max_message_size: 256 << 10,
            max_subscriptions: 128,
            heartbeat_interval: 25_000,
            heartbeat_timeout: 10_000,
        },
    };
    let restored = RestoredState {
        entries: Vec::new(),
        logs: Default::default(),
        next_log: 1,
        uncertain: Vec::new(),
        unclean_boot: false,
    };
    Broker::new(limits, restored, Box::new(NoneKnown), NOW)
}

fn send(broker: &mut Broker, connection: ConnectionId, command: ClientCommand) {
    let request = Request {
        id: Some(RequestId(1)),
        command,
    };
    let to = ReplyTo {
        connection,
        request_id: request.id,
        command: Some(request.command.name()),
        silent: false,
        credit: 256,
    };
    broker.handle(to, request, NOW);
}

/// Everything is released, as if it had been written; says how many effects that were.
fn commit(broker: &mut Broker) -> usize {
    let mut effects = 0;
    while let Some(batch) = broker.take_direct() {
        effects += batch.at_write.len() + batch.at_sync.len();
    }
    while let Some(batch) = broker.take_logged() {
        effects += batch.at_write.len() + batch.at_sync.len();
        broker.committed(batch.number, batch.size);
    }
    effects
}

/// By their ids, as a command that was decoded has them.
fn subscriptions(count: usize) -> Vec<SubscriptionReference> {
    (0..count)
        .map(|number| SubscriptionId::of_name(&format!("measurements/room-{number}")).into())
        .collect()
}

/// A broker with subscriptions that have a subscriber each, and a connection that publishes.
fn serving(
    durability: Durability,
    subscriptions: &[SubscriptionReference],
) -> (Broker, ConnectionId) {
    let mut broker = broker(durability);
    let publisher = ConnectionId::new(0, 0);
    broker.connect(publisher, Identity::Transient, &Principal::anonymous(), NOW);
    // As many as a session may hold.
    for (number, subscriptions) in subscriptions.chunks(100).enumerate() {
        let subscriber = ConnectionId::new(0, 1 + number as u64);
        broker.connect(
            subscriber,
            Identity::Transient,
            &Principal::anonymous(),
            NOW,
        );
        for subscription in subscriptions {
            let subscribe = Subscribe {
                subscription: subscription.clone(),
                kind: Some(Kind::Broadcast),
                from: None,
                epoch: None,
                prefetch: None,
            };
            send(&mut broker, subscriber, ClientCommand::Subscribe(subscribe));
        }
    }
    commit(&mut broker);
    (broker, publisher)
}

pub(crate) fn benchmarks(criterion: &mut Criterion, table: &mut Table) {
    let mut area = Area::new("routing", criterion, table);
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let publications = || Throughput::Elements(BATCH as u64);
    for (case, durability, count) in [
        ("64 submissions to one, Synced", Durability::Synced, 1),
        ("64 submissions to one, Memory", Durability::Memory, 1),
        (
            "64 submissions to 64 of 10,000, Synced",
            Durability::Synced,
            10_000,
        ),
    ] {
        let subscriptions = subscriptions(count);
        let (mut broker, publisher) = serving(durability, &subscriptions);
        let mut turns = subscriptions.iter().cycle();
        area.measure(case, publications(), || {
            for subscription in turns.by_ref().take(BATCH) {
                let submit = SubmitPublication {
                    subscription: subscription.clone(),
                    submission: payload.clone(),
                    kind: None,
                    publication_id: None,
                    expected_sequence: None,
                };
                send(
                    &mut broker,
                    publisher,
                    ClientCommand::SubmitPublication(submit),
                );
            }
            assert!(commit(&mut broker) > BATCH, "answers and publications");
        });
    }

    let one = subscriptions(1);
    let (mut broker, subscriber) = serving(Durability::Synced, &one);
    area.measure("subscribe and unsubscribe", Throughput::Elements(2), || {
        let subscribe = Subscribe {
            subscription: one[0].clone(),
            kind: None,
            from: None,
            epoch: None,
            prefetch: None,
        };
        send(&mut broker, subscriber, ClientCommand::Subscribe(subscribe));
        send(
            &mut broker,
            subscriber,
            ClientCommand::Unsubscribe(one[0].clone()),
        );
        assert_eq!(commit(&mut broker), 2);
    });
}
