//! Client messages as commands.
//!
//! The scan has found the envelope; here the fields of each command are picked out of its map and judged one by one, so
//! that an error can say which field it is about, what came and what is wanted. Unknown fields are never looked into.

mod plain;

use bytes::Bytes;

use super::Rejection;
use super::field::{Failure, Field, Fields, pick, unknown_key};
use crate::protocol::scan::{Excerpt, Item, scan};
use crate::protocol::{
    Acknowledge, Acknowledged, Authenticate, ClientCommand, CreateSubscription, ErrorCode, Extend,
    GetLogEntries, GetLogIndex, ListSubscriptions, MAX_ENTRIES, Patch, Reject, Request, Retention,
    Sequence, ServerError, SettingsPatch, SubmitPublication, Subscribe, SubscriptionReference,
    UpdateSubscription,
};

/// Decodes one binary WebSocket message. Byte strings of the result are slices of `message` where they can be.
///
/// # Errors
/// `malformed`, `unknown-command` or `invalid-argument`, as protocol, section 1 tells them apart.
pub fn decode_request(message: &Bytes) -> Result<Request, Rejection> {
    plain::submission(message).map_or_else(|| decode(message, &[]), Ok)
}

/// The same of a message that [`json`](crate::protocol::json) made of a text: some commands have more fields there.
#[cfg(any(feature = "server", feature = "fuzzing"))]
pub(in crate::protocol) fn decode_request_of_json(message: &Bytes) -> Result<Request, Rejection> {
    decode(
        message,
        &[("SubmitPublication", submit_publication_of_json)],
    )
}

/// `first` are looked through in front of [`COMMANDS`].
fn decode(message: &Bytes, first: &[(&'static str, Decode)]) -> Result<Request, Rejection> {
    let envelope = scan(message).map_err(|(request_id, malformed)| Rejection {
        request_id,
        error: ServerError::new(ErrorCode::Malformed, malformed.to_string()),
    })?;
    match decode_command(message, first, &envelope.command, envelope.fields) {
        Ok(command) => Ok(Request {
            id: envelope.request_id,
            command,
        }),
        Err(error) => Err(Rejection {
            request_id: envelope.request_id,
            error,
        }),
    }
}

type Decode = fn(&mut Fields<'_>) -> Result<ClientCommand, Failure>;

/// Searched from the front: what comes millions of times stands first.
const COMMANDS: [(&str, Decode); 15] = [
    ("SubmitPublication", submit_publication),
    ("Acknowledge", acknowledge),
    ("Ping", ping),
    ("Subscribe", subscribe),
    ("Unsubscribe", unsubscribe),
    ("Reject", reject),
    ("Extend", extend),
    ("GetLogIndex", log_index),
    ("GetLogEntries", log_entries),
    ("CreateSubscription", create_subscription),
    ("UpdateSubscription", update_subscription),
    ("GetSubscription", subscription),
    ("ListSubscriptions", list_subscriptions),
    ("DeleteSubscription", delete_subscription),
    ("Authenticate", authenticate),
];

fn decode_command(
    message: &Bytes,
    first: &[(&'static str, Decode)],
    name: &str,
    fields: Item<'_>,
) -> Result<ClientCommand, ServerError> {
    let mut commands = first.iter().chain(&COMMANDS);
    let Some((name, decode)) = commands.find(|(known, _)| *known == name) else {
        let message = format!("the command {} is not known", Excerpt(name.as_bytes()));
        return Err(ServerError::new(ErrorCode::UnknownCommand, message));
    };
    let mut fields = Fields::new(message, fields);
    decode(&mut fields).map_err(|failure| {
        let mut error = ServerError::from(failure).for_command(name);
        error.subscription_id = fields.about();
        error
    })
}

/// The name of the command that is called `name`.
pub(super) fn known_command(name: &str) -> Option<&'static str> {
    COMMANDS
        .iter()
        .map(|(known, _)| *known)
        .find(|known| *known == name)
}

fn ping(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [] = fields.pick([])?;
    Ok(ClientCommand::Ping)
}

fn authenticate(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [token] = fields.pick(["token"])?;
    Ok(ClientCommand::Authenticate(Authenticate {
        token: token.required(Field::token, Field::TOKEN)?,
    }))
}

fn only_subscription(fields: &mut Fields<'_>) -> Result<SubscriptionReference, Failure> {
    let [subscription] = fields.pick(["subscription_id"])?;
    fields.reference(&subscription)
}

fn unsubscribe(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    only_subscription(fields).map(ClientCommand::Unsubscribe)
}

fn subscription(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    only_subscription(fields).map(ClientCommand::GetSubscription)
}

fn delete_subscription(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    only_subscription(fields).map(ClientCommand::DeleteSubscription)
}

fn submit_publication(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [
        subscription,
        submission,
        kind,
        publication_id,
        expected_sequence,
    ] = fields.pick([
        "subscription_id",
        "submission",
        "kind",
        "publication_id",
        "expected_sequence",
    ])?;
    Ok(ClientCommand::SubmitPublication(SubmitPublication {
        subscription: fields.reference(&subscription)?,
        submission: fields.bytes(&submission)?,
        kind: kind.optional(Field::kind)?,
        publication_id: publication_id.optional(Field::uuid)?,
        expected_sequence: expected_sequence.optional(Field::sequence)?,
    }))
}

/// In JSON, what is submitted may also be given as `text`, or as a value: both have become byte strings.
#[cfg(any(feature = "server", feature = "fuzzing"))]
fn submit_publication_of_json(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    const WANTED: &str = "bytes in base64url; or `text` or `json` stands in its place";
    let [
        subscription,
        submission,
        text,
        json,
        kind,
        publication_id,
        expected_sequence,
    ] = fields.pick([
        "subscription_id",
        "submission",
        "text",
        "json",
        "kind",
        "publication_id",
        "expected_sequence",
    ])?;
    let subscription = fields.reference(&subscription)?;
    text.only_byte_string(Field::TEXT)?;
    let mut given = [submission, text, json].into_iter().filter(Field::is_given);
    let data = given.next().unwrap_or(submission);
    if let Some(other) = given.next() {
        let message = format!("{data} and {other} are both given, but only one of them can be");
        return Err(Failure::invalid(message));
    }
    Ok(ClientCommand::SubmitPublication(SubmitPublication {
        subscription,
        submission: fields.bytes_as(&data, WANTED)?,
        kind: kind.optional(Field::kind)?,
        publication_id: publication_id.optional(Field::uuid)?,
        expected_sequence: expected_sequence.optional(Field::sequence)?,
    }))
}

fn subscribe(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [subscription, kind, from, epoch, prefetch] =
        fields.pick(["subscription_id", "kind", "from", "epoch", "prefetch"])?;
    from.no_key_twice()?;
    Ok(ClientCommand::Subscribe(Subscribe {
        subscription: fields.reference(&subscription)?,
        kind: kind.optional(Field::kind)?,
        from: from.optional(Field::subscribe_from)?,
        epoch: epoch.optional(Field::uuid)?,
        prefetch: prefetch.optional(Field::prefetch)?,
    }))
}

fn acknowledge(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [subscription, sequence, publication_ids] =
        fields.pick(["subscription_id", "sequence", "publication_ids"])?;
    let subscription = fields.reference(&subscription)?;
    let what = match (
        sequence.optional(Field::sequence)?,
        publication_ids.optional(Field::ids)?,
    ) {
        (Some(sequence), None) => Acknowledged::UpTo(sequence),
        (None, Some(ids)) => Acknowledged::Ids(ids),
        (Some(_), Some(_)) => {
            return Err(Failure::invalid(
                "`sequence` and `publication_ids` are both given, but only one of them can be",
            ));
        }
        (None, None) => {
            return Err(Failure::invalid(
                "`sequence` (of a Broadcast) or `publication_ids` (of a Queue) is missing",
            ));
        }
    };
    Ok(ClientCommand::Acknowledge(Acknowledge {
        subscription,
        what,
    }))
}

fn reject(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [subscription, publication_ids, delay, dead_letter] =
        fields.pick(["subscription_id", "publication_ids", "delay", "dead_letter"])?;
    Ok(ClientCommand::Reject(Reject {
        subscription: fields.reference(&subscription)?,
        publication_ids: publication_ids.required(Field::ids, Field::IDS)?,
        delay: delay.optional(Field::natural)?,
        dead_letter: dead_letter.optional(Field::boolean)?.unwrap_or(false),
    }))
}

fn extend(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [subscription, publication_ids] = fields.pick(["subscription_id", "publication_ids"])?;
    Ok(ClientCommand::Extend(Extend {
        subscription: fields.reference(&subscription)?,
        publication_ids: publication_ids.required(Field::ids, Field::IDS)?,
    }))
}

fn log_index(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [log, after, limit] = fields.pick(["log_id", "after", "limit"])?;
    let log = fields.reference(&log)?;
    range(log, &after, &limit).map(ClientCommand::GetLogIndex)
}

fn log_entries(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [log, entries, after, limit] = fields.pick(["log_id", "entries", "after", "limit"])?;
    let log = fields.reference(&log)?;
    let Some(entries) = entries.optional(Field::ids)? else {
        return range(log, &after, &limit)
            .map(|range| ClientCommand::GetLogEntries(GetLogEntries::Range(range)));
    };
    for beside in [after, limit] {
        if beside.is_given() {
            let message =
                format!("`entries` and {beside} are both given, but only one of them can be");
            return Err(Failure::invalid(message));
        }
    }
    Ok(ClientCommand::GetLogEntries(GetLogEntries::Ids(
        log, entries,
    )))
}

fn range(
    log: SubscriptionReference,
    after: &Field<'_>,
    limit: &Field<'_>,
) -> Result<GetLogIndex, Failure> {
    Ok(GetLogIndex {
        log,
        after: after.optional(Field::position)?.unwrap_or(Sequence::ZERO),
        limit: limit.optional(Field::entries_limit)?.unwrap_or(MAX_ENTRIES),
    })
}

/// How many subscriptions `ListSubscriptions` asks for unless it says so.
const DEFAULT_SUBSCRIPTIONS: usize = 100;

fn list_subscriptions(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [after, limit] = fields.pick(["after", "limit"])?;
    Ok(ClientCommand::ListSubscriptions(ListSubscriptions {
        after: after.optional(Field::uuid)?,
        limit: limit
            .optional(Field::subscriptions_limit)?
            .unwrap_or(DEFAULT_SUBSCRIPTIONS),
    }))
}

fn create_subscription(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [subscription, kind, settings] = fields.pick(["subscription_id", "kind", "settings"])?;
    let settings = settings.map()?.map(Settings::pick).transpose()?;
    Ok(ClientCommand::CreateSubscription(CreateSubscription {
        subscription: fields.reference(&subscription)?,
        kind: kind.optional(Field::kind)?,
        settings: settings
            .map(Settings::decode)
            .transpose()?
            .unwrap_or_default(),
    }))
}

fn update_subscription(fields: &mut Fields<'_>) -> Result<ClientCommand, Failure> {
    let [subscription, settings] = fields.pick(["subscription_id", "settings"])?;
    let given = settings.map()?.map(Settings::pick).transpose()?;
    let subscription = fields.reference(&subscription)?;
    let settings = given.ok_or_else(|| settings.missing("a map"))?.decode()?;
    Ok(ClientCommand::UpdateSubscription(UpdateSubscription {
        subscription,
        settings,
    }))
}

/// The map `settings`, taken apart but not yet judged: a key that stands twice in it is `malformed`, and has to be found
/// before anything else is called an invalid argument.
struct Settings<'m> {
    fields: [Field<'m>; 5],
    unknown: Option<Item<'m>>,
    retention: Option<([Field<'m>; 3], Option<Item<'m>>)>,
}

impl<'m> Settings<'m> {
    const NAMES: [&'static str; 5] = [
        "retention",
        "durability",
        "ack_timeout",
        "max_deliveries",
        "dead_letter",
    ];
    const RETENTION_NAMES: [&'static str; 3] = ["max_publications", "max_bytes", "max_age"];
    const PATH: &'static str = "settings.";
    const RETENTION_PATH: &'static str = "settings.retention.";

    fn pick(map: Item<'m>) -> Result<Self, Failure> {
        let (fields, unknown) = pick(map, Self::PATH, Self::NAMES)?;
        let retention = match fields[0].map()? {
            Some(map) => Some(pick(map, Self::RETENTION_PATH, Self::RETENTION_NAMES)?),
            None => None,
        };
        Ok(Self {
            fields,
            unknown,
            retention,
        })
    }

    fn decode(self) -> Result<SettingsPatch, Failure> {
        if let Some(unknown) = self.unknown {
            return Err(unknown_key(unknown, Self::PATH, &Self::NAMES));
        }
        let [
            retention,
            durability,
            ack_timeout,
            max_deliveries,
            dead_letter,
        ] = self.fields;
        Ok(SettingsPatch {
            retention: match self.retention {
                Some((_, Some(unknown))) => {
                    return Err(unknown_key(
                        unknown,
                        Self::RETENTION_PATH,
                        &Self::RETENTION_NAMES,
                    ));
                }
                Some((fields, None)) => Patch::Value(Self::decode_retention(fields)?),
                None if retention.is_null() => Patch::Default,
                None => Patch::Absent,
            },
            durability: patch(&durability, Field::durability)?,
            ack_timeout: patch(&ack_timeout, Field::natural)?,
            max_deliveries: patch(&max_deliveries, Field::natural)?,
            dead_letter: patch(&dead_letter, Field::reference)?,
        })
    }

    fn decode_retention(fields: [Field<'m>; 3]) -> Result<Retention, Failure> {
        let [max_publications, max_bytes, max_age] = fields;
        Ok(Retention {
            max_publications: max_publications.optional(Field::at_least_one)?,
            max_bytes: max_bytes.optional(Field::at_least_one)?,
            max_age: max_age.optional(Field::at_least_one)?,
        })
    }
}

fn patch<'m, T>(
    field: &Field<'m>,
    judge: impl FnOnce(&Field<'m>, Item<'m>) -> Result<T, Failure>,
) -> Result<Patch<T>, Failure> {
    Ok(match field.optional(judge)? {
        Some(value) => Patch::Value(value),
        None if field.is_null() => Patch::Default,
        None => Patch::Absent,
    })
}

#[cfg(test)]
mod tests;
