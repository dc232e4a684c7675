//! What the server makes of each client message, and what the client sends. The expected command is put together here from the vector's JSON, by the
//! protocol's text and not by the server's decoder.

use bytes::Bytes;
use infotainer::protocol::codec::{decode_request, encode_request};
use infotainer::protocol::{
    Acknowledge, Acknowledged, Authenticate, ClientCommand, CreateSubscription, Durability, Extend,
    GetLogEntries, GetLogIndex, Kind, ListSubscriptions, Patch, PublicationId, Reject, Request,
    RequestId, Retention, Sequence, SettingsPatch, SubmitPublication, Subscribe, SubscribeFrom,
    SubscriptionId, SubscriptionReference, Timestamp, UpdateSubscription,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::grammar::Grammar;
use super::{Direction, Item, Vector, bytes_of, vectors};

fn accepted() -> impl Iterator<Item = Vector> {
    vectors(Direction::ClientToServer)
        .into_iter()
        .filter(|vector| vector.error.is_none())
}

fn decode(vector: &Vector) -> Request {
    decode_request(&Bytes::copy_from_slice(&vector.bytes))
        .unwrap_or_else(|rejection| panic!("{}: {rejection:?}", vector.name))
}

#[test]
fn each_command_is_understood_as_its_vector_says() {
    for vector in accepted() {
        let expected = Request {
            id: vector.request_id.map(RequestId),
            command: Fields(vector.fields.as_ref().unwrap())
                .command(vector.command.as_deref().unwrap()),
        };
        assert_eq!(decode(&vector), expected, "{}", vector.name);
    }
}

#[test]
fn each_command_is_sent_shortest_within_the_grammar_and_understood_by_the_server() {
    let grammar = Grammar::read();
    for vector in accepted() {
        let request = decode(&vector);
        let sent = encode_request(&request);
        let item = Item::read(&sent).unwrap();
        assert_eq!(grammar.check("client-message", &item), Ok(()), "{item}");
        assert!(item.is_plain(), "{item}");
        assert_eq!(decode_request(&sent.into()), Ok(request), "{}", vector.name);
    }
}

#[test]
fn each_refusal_has_the_code_and_the_request_id_that_its_vector_says() {
    let mut count = 0;
    for vector in vectors(Direction::ClientToServer) {
        let Some(expected) = vector.error else {
            continue;
        };
        count += 1;
        let name = &vector.name;
        let rejection = match decode_request(&Bytes::copy_from_slice(&vector.bytes)) {
            Err(rejection) => rejection,
            Ok(request) => panic!("{name}: {request:?}"),
        };
        assert_eq!(rejection.error.code.as_str(), expected.code, "{name}");
        assert_eq!(
            rejection.request_id.map(|id| id.0),
            vector.request_id,
            "{name}"
        );
        if expected.command.is_some() {
            assert_eq!(
                rejection.error.command,
                expected.command.as_deref(),
                "{name}"
            );
        }
    }
    assert!(count > 0);
}

#[test]
fn each_reference_stands_for_the_uuid_that_its_vector_says() {
    let mut count = 0;
    for vector in accepted() {
        let Some(uuid) = &vector.uuid else { continue };
        count += 1;
        let ClientCommand::GetSubscription(reference) = decode(&vector).command else {
            panic!("{}", vector.name)
        };
        assert_eq!(reference.id.to_string(), *uuid, "{}", vector.name);
    }
    assert!(count > 0);
}

/// A vector's `fields`: UUIDs as text, bytes as hex, and what is not given not there.
struct Fields<'v>(&'v Map<String, Value>);

impl Fields<'_> {
    fn command(&self, name: &str) -> ClientCommand {
        let command = match name {
            "Subscribe" => ClientCommand::Subscribe(Subscribe {
                subscription: self.reference("subscription_id"),
                kind: self.kind(),
                from: self.0.get("from").map(subscribe_from),
                epoch: self.uuid("epoch").map(Into::into),
                prefetch: self.number("prefetch").map(|number| number as u16),
            }),
            "Unsubscribe" => ClientCommand::Unsubscribe(self.reference("subscription_id")),
            "SubmitPublication" => ClientCommand::SubmitPublication(SubmitPublication {
                subscription: self.reference("subscription_id"),
                submission: bytes_of(self.0["submission"].as_str().unwrap()).into(),
                kind: self.kind(),
                publication_id: self.uuid("publication_id").map(PublicationId),
                expected_sequence: self.number("expected_sequence").map(Sequence),
            }),
            "Acknowledge" => ClientCommand::Acknowledge(Acknowledge {
                subscription: self.reference("subscription_id"),
                what: match self.number("sequence") {
                    Some(sequence) => Acknowledged::UpTo(Sequence(sequence)),
                    None => Acknowledged::Ids(self.ids("publication_ids").unwrap()),
                },
            }),
            "Reject" => ClientCommand::Reject(Reject {
                subscription: self.reference("subscription_id"),
                publication_ids: self.ids("publication_ids").unwrap(),
                delay: self.number("delay"),
                dead_letter: self.0.get("dead_letter").is_some_and(|value| value == true),
            }),
            "Extend" => ClientCommand::Extend(Extend {
                subscription: self.reference("subscription_id"),
                publication_ids: self.ids("publication_ids").unwrap(),
            }),
            "GetLogIndex" => ClientCommand::GetLogIndex(self.range()),
            "GetLogEntries" => ClientCommand::GetLogEntries(match self.ids("entries") {
                Some(ids) => GetLogEntries::Ids(self.reference("log_id"), ids),
                None => GetLogEntries::Range(self.range()),
            }),
            "CreateSubscription" => ClientCommand::CreateSubscription(CreateSubscription {
                subscription: self.reference("subscription_id"),
                kind: self.kind(),
                settings: self.settings().unwrap_or_default(),
            }),
            "UpdateSubscription" => ClientCommand::UpdateSubscription(UpdateSubscription {
                subscription: self.reference("subscription_id"),
                settings: self.settings().unwrap(),
            }),
            "GetSubscription" => ClientCommand::GetSubscription(self.reference("subscription_id")),
            "ListSubscriptions" => ClientCommand::ListSubscriptions(ListSubscriptions {
                after: self.uuid("after").map(SubscriptionId),
                limit: self.number("limit").unwrap_or(100) as usize,
            }),
            "DeleteSubscription" => {
                ClientCommand::DeleteSubscription(self.reference("subscription_id"))
            }
            "Authenticate" => ClientCommand::Authenticate(Authenticate {
                token: self.0["token"].as_str().unwrap().into(),
            }),
            "Ping" => ClientCommand::Ping,
            other => panic!("{other} is no command"),
        };
        assert_eq!(command.name(), name);
        command
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|value| value.as_u64().unwrap())
    }

    fn uuid(&self, name: &str) -> Option<Uuid> {
        self.0.get(name).map(uuid)
    }

    fn ids(&self, name: &str) -> Option<Vec<PublicationId>> {
        let ids = self.0.get(name)?.as_array().unwrap();
        Some(ids.iter().map(|id| PublicationId(uuid(id))).collect())
    }

    fn reference(&self, name: &str) -> SubscriptionReference {
        reference(&self.0[name])
    }

    fn kind(&self) -> Option<Kind> {
        self.0.get("kind").map(known)
    }

    fn range(&self) -> GetLogIndex {
        GetLogIndex {
            log: self.reference("log_id"),
            after: Sequence(self.number("after").unwrap_or(0)),
            limit: self.number("limit").unwrap_or(10_000) as usize,
        }
    }

    fn settings(&self) -> Option<SettingsPatch> {
        let settings = self.0.get("settings")?.as_object().unwrap();
        let number = |value: &Value| value.as_u64().unwrap();
        Some(SettingsPatch {
            retention: patch(settings, "retention", known::<Retention>),
            durability: patch(settings, "durability", known::<Durability>),
            ack_timeout: patch(settings, "ack_timeout", number),
            max_deliveries: patch(settings, "max_deliveries", number),
            dead_letter: patch(settings, "dead_letter", reference),
        })
    }
}

fn patch<T>(settings: &Map<String, Value>, name: &str, read: fn(&Value) -> T) -> Patch<T> {
    match settings.get(name) {
        None => Patch::Absent,
        Some(Value::Null) => Patch::Default,
        Some(value) => Patch::Value(read(value)),
    }
}

pub(crate) fn known<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

pub(crate) fn uuid(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}

fn reference(value: &Value) -> SubscriptionReference {
    let text = value.as_str().unwrap();
    let is_uuid = text.len() == 36 && Uuid::try_parse(text).is_ok();
    SubscriptionReference {
        id: SubscriptionId(if is_uuid {
            uuid(value)
        } else {
            Uuid::new_v5(
                &Uuid::NAMESPACE_URL,
                format!("infotainer:{text}").as_bytes(),
            )
        }),
        name: (!is_uuid).then(|| text.into()),
    }
}

fn subscribe_from(value: &Value) -> SubscribeFrom {
    if value == "New" {
        return SubscribeFrom::New;
    }
    if value == "First" {
        return SubscribeFrom::First;
    }
    let (name, number) = value.as_object().unwrap().iter().next().unwrap();
    let number = number.as_u64().unwrap();
    match name.as_str() {
        "After" => SubscribeFrom::After(Sequence(number)),
        "Since" => SubscribeFrom::Since(Timestamp(number)),
        "Last" => SubscribeFrom::Last(number),
        other => panic!("{other}"),
    }
}
