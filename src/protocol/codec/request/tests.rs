//! Every command there and back, and the bytes of some.

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::protocol::codec::decode_request;
use crate::protocol::{
    Acknowledge, Authenticate, CreateSubscription, Epoch, Extend, ListSubscriptions, MAX_ENTRIES,
    NUMBER_LIMIT, Reject, RequestId, Sequence, SubmitPublication, Subscribe, SubscriptionId,
    Timestamp, UpdateSubscription,
};

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, 0..NUMBER_LIMIT]
}

fn positive() -> impl Strategy<Value = u64> {
    prop_oneof![1..300_u64, 1..NUMBER_LIMIT]
}

fn reference() -> impl Strategy<Value = SubscriptionReference> {
    let named = "[a-zé -]{1,60}".prop_map(|name: String| SubscriptionReference {
        id: SubscriptionId::of_name(&name),
        name: Some(name.into()),
    });
    let by_id = uuid().prop_map(|uuid| SubscriptionReference {
        id: SubscriptionId(uuid),
        name: None,
    });
    prop_oneof![named, by_id]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Broadcast), Just(Kind::Queue)]
}

fn ids() -> impl Strategy<Value = Vec<PublicationId>> {
    proptest::collection::btree_set(uuid(), 0..30)
        .prop_map(|ids| ids.into_iter().map(PublicationId).collect())
}

fn patch<T: Clone + std::fmt::Debug>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Patch<T>> {
    value.prop_flat_map(|value| {
        prop_oneof![
            Just(Patch::Absent),
            Just(Patch::Default),
            Just(Patch::Value(value))
        ]
    })
}

fn settings() -> impl Strategy<Value = SettingsPatch> {
    let limit = || proptest::option::of(positive());
    let retention =
        (limit(), limit(), limit()).prop_map(|(max_publications, max_bytes, max_age)| Retention {
            max_publications,
            max_bytes,
            max_age,
        });
    let durability = prop_oneof![
        Just(Durability::Memory),
        Just(Durability::Written),
        Just(Durability::Synced)
    ];
    (
        patch(retention),
        patch(durability),
        patch(number()),
        patch(number()),
        patch(reference()),
    )
        .prop_map(
            |(retention, durability, ack_timeout, max_deliveries, dead_letter)| SettingsPatch {
                retention,
                durability,
                ack_timeout,
                max_deliveries,
                dead_letter,
            },
        )
}

fn range() -> impl Strategy<Value = GetLogIndex> {
    (reference(), number(), 1..=MAX_ENTRIES).prop_map(|(log, after, limit)| GetLogIndex {
        log,
        after: Sequence(after),
        limit,
    })
}

fn subscribe() -> impl Strategy<Value = ClientCommand> {
    let from = prop_oneof![
        Just(SubscribeFrom::New),
        Just(SubscribeFrom::First),
        number().prop_map(|position| SubscribeFrom::After(Sequence(position))),
        number().prop_map(|time| SubscribeFrom::Since(Timestamp(time))),
        number().prop_map(SubscribeFrom::Last),
    ];
    (
        reference(),
        proptest::option::of(kind()),
        proptest::option::of(from),
        proptest::option::of(uuid()),
        proptest::option::of(1..=u16::MAX),
    )
        .prop_map(|(subscription, kind, from, epoch, prefetch)| {
            ClientCommand::Subscribe(Subscribe {
                subscription,
                kind,
                from,
                epoch: epoch.map(Epoch),
                prefetch,
            })
        })
}

fn submit() -> impl Strategy<Value = ClientCommand> {
    (
        reference(),
        proptest::collection::vec(any::<u8>(), 0..400),
        proptest::option::of(kind()),
        proptest::option::of(uuid()),
        proptest::option::of(positive()),
    )
        .prop_map(|(subscription, data, kind, id, expected)| {
            ClientCommand::SubmitPublication(SubmitPublication {
                subscription,
                submission: Bytes::from(data),
                kind,
                publication_id: id.map(PublicationId),
                expected_sequence: expected.map(Sequence),
            })
        })
}

fn command() -> impl Strategy<Value = ClientCommand> {
    let acknowledged = prop_oneof![
        positive().prop_map(|sequence| Acknowledged::UpTo(Sequence(sequence))),
        ids().prop_map(Acknowledged::Ids)
    ];
    prop_oneof![
        subscribe(),
        submit(),
        reference().prop_map(ClientCommand::Unsubscribe),
        reference().prop_map(ClientCommand::GetSubscription),
        reference().prop_map(ClientCommand::DeleteSubscription),
        (reference(), acknowledged).prop_map(|(subscription, what)| {
            ClientCommand::Acknowledge(Acknowledge { subscription, what })
        }),
        (
            reference(),
            ids(),
            proptest::option::of(number()),
            any::<bool>()
        )
            .prop_map(|(subscription, publication_ids, delay, dead_letter)| {
                ClientCommand::Reject(Reject {
                    subscription,
                    publication_ids,
                    delay,
                    dead_letter,
                })
            }),
        (reference(), ids()).prop_map(|(subscription, publication_ids)| {
            ClientCommand::Extend(Extend {
                subscription,
                publication_ids,
            })
        }),
        range().prop_map(ClientCommand::GetLogIndex),
        range().prop_map(|range| ClientCommand::GetLogEntries(GetLogEntries::Range(range))),
        (reference(), ids())
            .prop_map(|(log, ids)| ClientCommand::GetLogEntries(GetLogEntries::Ids(log, ids))),
        (reference(), proptest::option::of(kind()), settings()).prop_map(
            |(subscription, kind, settings)| {
                ClientCommand::CreateSubscription(CreateSubscription {
                    subscription,
                    kind,
                    settings,
                })
            }
        ),
        (reference(), settings()).prop_map(|(subscription, settings)| {
            ClientCommand::UpdateSubscription(UpdateSubscription {
                subscription,
                settings,
            })
        }),
        (proptest::option::of(uuid()), 1..=1_000_usize).prop_map(|(after, limit)| {
            ClientCommand::ListSubscriptions(ListSubscriptions {
                after: after.map(SubscriptionId),
                limit,
            })
        }),
        any::<String>().prop_map(|token| {
            ClientCommand::Authenticate(Authenticate {
                token: token.into(),
            })
        }),
        Just(ClientCommand::Ping),
    ]
}

proptest! {
    #[test]
    fn request_survives_the_way_to_the_server(
        id in proptest::option::of(number().prop_map(RequestId)),
        command in command(),
    ) {
        let request = Request { id, command };
        let message = Bytes::from(encode_request(&request));
        prop_assert_eq!(decode_request(&message).expect("a request"), request);
    }
}

#[test]
fn ping_is_a_bare_name() {
    let request = Request {
        id: Some(RequestId(7)),
        command: ClientCommand::Ping,
    };
    assert_eq!(encode_request(&request), b"\x82\x07\x64Ping");
}

#[test]
fn what_is_absent_is_left_out() {
    let request = Request {
        id: None,
        command: ClientCommand::Subscribe(Subscribe {
            subscription: SubscriptionReference {
                id: SubscriptionId::of_name("a"),
                name: Some("a".into()),
            },
            kind: None,
            from: Some(SubscribeFrom::After(Sequence(300))),
            epoch: None,
            prefetch: None,
        }),
    };
    assert_eq!(
        encode_request(&request),
        b"\xa1\x69Subscribe\xa2\x6fsubscription_id\x61a\x64from\xa1\x65After\x19\x01\x2c"
    );
}
