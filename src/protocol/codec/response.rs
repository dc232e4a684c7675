//! Server messages, decoded: the client's half of the codec, whose other half is `request`.
//!
//! What a server sends is as little trusted as what a client sends: the same bounded scan comes first, and nothing here panics
//! on any bytes. Fields and responses that are not known are ignored, since a later server may have more of them.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::field::{Failure, Field, Fields};
use crate::protocol::scan::{Envelope, Item, only_item, scan};
use crate::protocol::{
    About, Authenticated, DataLogEntry, DeadLetter, DeadLetterReason, ErrorCode, Gap, GapCause,
    Limits, LogIndex, Pong, PublicationId, ReceivedPublication, RequestId, RestoredSubscription,
    Retention, ServerError, ServerResponse, SessionId, Settled, ShownSettings, Submitted,
    Subscribed, SubscriptionMeta, Subscriptions, TokenExpiring, Welcome,
};

/// One message of the server.
#[derive(Clone, PartialEq, Debug)]
pub struct Received {
    /// The id of the request that this answers; `None` for what is bare.
    pub request_id: Option<RequestId>,
    /// What the server says.
    pub message: ServerMessage,
}

/// What a server says.
#[derive(Clone, PartialEq, Debug)]
pub enum ServerMessage {
    /// A publication.
    Publication(ReceivedPublication),
    /// Any other response.
    Response(ServerResponse),
    /// A response that this version does not know, by its name.
    Unknown(String),
}

/// Bytes that are no message of a server.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a message of a server: {0}")]
pub struct NotAResponse(String);

impl From<Failure> for NotAResponse {
    fn from(failure: Failure) -> Self {
        Self(match failure {
            Failure::RepeatedKey(message) | Failure::Invalid(message) => message,
        })
    }
}

/// Decodes one binary WebSocket message of a server. Payloads are slices of `message` where they stand in it in one piece.
///
/// # Errors
/// If it is not exactly one well-formed response.
pub fn decode_response(message: &Bytes) -> Result<Received, NotAResponse> {
    let Envelope {
        request_id,
        command: name,
        fields,
    } = scan(message).map_err(|(_, malformed)| NotAResponse(malformed.to_string()))?;
    let name = &*name;
    let fields = Fields::new(message, fields);
    let message = if name == "Publication" {
        ServerMessage::Publication(publication(&fields)?)
    } else {
        match RESPONSES.iter().find(|(known, _)| *known == name) {
            Some((_, decode)) => ServerMessage::Response(decode(&fields)?),
            None => ServerMessage::Unknown(name.to_owned()),
        }
    };
    Ok(Received {
        request_id,
        message,
    })
}

/// Decodes the map of one publication's fields, as it stands in [`DataLogEntry::publications`].
///
/// # Errors
/// If it is no such map.
pub fn decode_publication(fields: &Bytes) -> Result<ReceivedPublication, NotAResponse> {
    let map = only_item(fields).map_err(|malformed| NotAResponse(malformed.to_string()))?;
    Ok(publication(&Fields::new(fields, map))?)
}

type Decode = fn(&Fields<'_>) -> Result<ServerResponse, Failure>;

/// Searched from the front: what comes millions of times stands first.
const RESPONSES: [(&str, Decode); 17] = [
    ("Submitted", |fields| {
        submitted(fields).map(ServerResponse::Submitted)
    }),
    ("Acknowledged", |fields| {
        settled(fields).map(ServerResponse::Acknowledged)
    }),
    ("Error", |fields| {
        error(fields).map(|error| ServerResponse::Error(Box::new(error)))
    }),
    ("Welcome", |fields| {
        welcome(fields).map(|welcome| ServerResponse::Welcome(Box::new(welcome)))
    }),
    ("Subscribed", |fields| {
        subscribed(fields).map(|subscribed| ServerResponse::Subscribed(Box::new(subscribed)))
    }),
    ("Unsubscribed", |fields| {
        about(fields).map(ServerResponse::Unsubscribed)
    }),
    ("Deleted", |fields| {
        about(fields).map(ServerResponse::Deleted)
    }),
    ("Rejected", |fields| {
        settled(fields).map(ServerResponse::Rejected)
    }),
    ("Extended", |fields| {
        settled(fields).map(ServerResponse::Extended)
    }),
    ("LogIndex", |fields| {
        log_index(fields).map(|index| ServerResponse::LogIndex(Box::new(index)))
    }),
    ("DataLogEntry", |fields| {
        data_log_entry(fields).map(|entry| ServerResponse::DataLogEntry(Box::new(entry)))
    }),
    ("SubscriptionMeta", |fields| {
        subscription_meta(fields).map(|meta| ServerResponse::SubscriptionMeta(Box::new(meta)))
    }),
    ("Subscriptions", |fields| {
        subscriptions(fields)
            .map(|subscriptions| ServerResponse::Subscriptions(Box::new(subscriptions)))
    }),
    ("Gap", |fields| gap(fields).map(ServerResponse::Gap)),
    ("Pong", |fields| pong(fields).map(ServerResponse::Pong)),
    ("Authenticated", |fields| {
        authenticated(fields).map(ServerResponse::Authenticated)
    }),
    ("TokenExpiring", |fields| {
        token_expiring(fields).map(ServerResponse::TokenExpiring)
    }),
];

fn publication(fields: &Fields<'_>) -> Result<ReceivedPublication, Failure> {
    let [
        subscription_id,
        publication_id,
        sequence,
        time,
        publisher,
        dead_letter,
        data,
        delivery,
    ] = fields.pick([
        "subscription_id",
        "publication_id",
        "sequence",
        "time",
        "publisher",
        "dead_letter",
        "data",
        "delivery",
    ])?;
    Ok(ReceivedPublication {
        subscription_id: subscription_id.required(Field::uuid, Field::UUID)?,
        publication_id: publication_id.required(Field::uuid, Field::UUID)?,
        sequence: sequence.required(Field::sequence, Field::NUMBER)?,
        time: time.required(Field::time, Field::NUMBER)?,
        publisher: publisher.optional(Field::text)?,
        dead_letter: match dead_letter.map()? {
            Some(map) => self::dead_letter(&fields.within(map))?,
            None => None,
        },
        data: fields.bytes(&data)?,
        delivery: delivery.optional(Field::natural)?,
    })
}

/// `None` for a reason that is not known: a dead letter of a later version.
fn dead_letter(fields: &Fields<'_>) -> Result<Option<DeadLetter>, Failure> {
    let [subscription_id, epoch, sequence, deliveries, reason] = fields.pick([
        "subscription_id",
        "epoch",
        "sequence",
        "deliveries",
        "reason",
    ])?;
    let subscription_id = subscription_id.required(Field::uuid, Field::UUID)?;
    let epoch = epoch.required(Field::uuid, Field::UUID)?;
    let sequence = sequence.required(Field::sequence, Field::NUMBER)?;
    let deliveries = deliveries.required(Field::natural, Field::NUMBER)?;
    let reason = DeadLetterReason::from_text(&reason.required(Field::text, Field::TEXT)?);
    Ok(reason.map(|reason| DeadLetter {
        subscription_id,
        epoch,
        sequence,
        deliveries,
        reason,
    }))
}

fn submitted(fields: &Fields<'_>) -> Result<Submitted, Failure> {
    let [
        subscription_id,
        publication_id,
        sequence,
        duplicate,
        durability,
    ] = fields.pick([
        "subscription_id",
        "publication_id",
        "sequence",
        "duplicate",
        "durability",
    ])?;
    Ok(Submitted {
        subscription_id: subscription_id.required(Field::uuid, Field::UUID)?,
        publication_id: publication_id.required(Field::uuid, Field::UUID)?,
        sequence: sequence.required(Field::sequence, Field::NUMBER)?,
        duplicate: duplicate.required(Field::boolean, Field::BOOLEAN)?,
        durability: durability.required(Field::durability, Field::TEXT)?,
    })
}

fn settled(fields: &Fields<'_>) -> Result<Settled, Failure> {
    let [subscription_id, count, lost] = fields.pick(["subscription_id", "count", "lost"])?;
    Ok(Settled {
        subscription_id: subscription_id.required(Field::uuid, Field::UUID)?,
        count: count.required(Field::natural, Field::NUMBER)?,
        lost: lost.optional(Field::ids)?,
    })
}

/// A code that is not known is shown as `internal`, with its own text in front of the message: whether to try again stands
/// in `temporary`.
fn error(fields: &Fields<'_>) -> Result<ServerError, Failure> {
    let [
        code,
        message,
        command,
        temporary,
        retry_after,
        subscription_id,
    ] = fields.pick([
        "code",
        "message",
        "command",
        "temporary",
        "retry_after",
        "subscription_id",
    ])?;
    let code = code.required(Field::text, Field::TEXT)?;
    let message = message.optional(Field::text)?.unwrap_or_default();
    let (code, message) = match ErrorCode::of_text(&code) {
        Some(code) => (code, message.into_string()),
        None => (ErrorCode::Internal, format!("{code}: {message}")),
    };
    let command = command.optional(Field::text)?;
    Ok(ServerError {
        code,
        message,
        command: command.and_then(|name| super::decode::known_command(&name)),
        temporary: temporary.optional(Field::boolean)?.unwrap_or(false),
        retry_after: retry_after.optional(Field::natural)?,
        subscription_id: subscription_id.optional(Field::uuid)?,
    })
}

fn welcome(fields: &Fields<'_>) -> Result<Welcome, Failure> {
    let [session_id, durable, resumed, subscriptions, server, limits] = fields.pick([
        "session_id",
        "durable",
        "resumed",
        "subscriptions",
        "server",
        "limits",
    ])?;
    let limits = fields.within(limits.required(Field::any_map, Field::MAP)?);
    let [
        max_message_size,
        max_subscriptions,
        heartbeat_interval,
        heartbeat_timeout,
    ] = limits.pick([
        "max_message_size",
        "max_subscriptions",
        "heartbeat_interval",
        "heartbeat_timeout",
    ])?;
    let server = server.required(Field::text, Field::TEXT)?;
    Ok(Welcome {
        session_id: SessionId(session_id.required(Field::uuid, Field::UUID)?),
        durable: durable.required(Field::boolean, Field::BOOLEAN)?,
        resumed: resumed.required(Field::boolean, Field::BOOLEAN)?,
        subscriptions: elements(fields, &subscriptions, restored_subscription)?,
        server: Cow::Owned(server.into_string()),
        limits: Limits {
            max_message_size: max_message_size.required(Field::natural, Field::NUMBER)?,
            max_subscriptions: max_subscriptions.required(Field::natural, Field::NUMBER)?,
            heartbeat_interval: heartbeat_interval.required(Field::natural, Field::NUMBER)?,
            heartbeat_timeout: heartbeat_timeout.required(Field::natural, Field::NUMBER)?,
        },
    })
}

fn restored_subscription(fields: &Fields<'_>) -> Result<RestoredSubscription, Failure> {
    let [subscription_id, kind, epoch, cursor, recovered] =
        fields.pick(["subscription_id", "kind", "epoch", "cursor", "recovered"])?;
    Ok(RestoredSubscription {
        subscription_id: subscription_id.required(Field::uuid, Field::UUID)?,
        kind: kind.required(Field::kind, Field::TEXT)?,
        epoch: epoch.required(Field::uuid, Field::UUID)?,
        cursor: cursor.optional(Field::position)?.unwrap_or_default(),
        recovered: recovered.required(Field::boolean, Field::BOOLEAN)?,
    })
}

fn subscribed(fields: &Fields<'_>) -> Result<Subscribed, Failure> {
    let [
        subscription_id,
        kind,
        epoch,
        first_sequence,
        last_sequence,
        recovered,
        cursor,
        prefetch,
    ] = fields.pick([
        "subscription_id",
        "kind",
        "epoch",
        "first_sequence",
        "last_sequence",
        "recovered",
        "cursor",
        "prefetch",
    ])?;
    Ok(Subscribed {
        subscription_id: subscription_id.required(Field::uuid, Field::UUID)?,
        kind: kind.required(Field::kind, Field::TEXT)?,
        epoch: epoch.required(Field::uuid, Field::UUID)?,
        first_sequence: first_sequence.required(Field::position, Field::NUMBER)?,
        last_sequence: last_sequence.required(Field::position, Field::NUMBER)?,
        recovered: recovered.required(Field::boolean, Field::BOOLEAN)?,
        cursor: cursor.optional(Field::position)?,
        prefetch: prefetch.optional(Field::prefetch)?,
    })
}

fn about(fields: &Fields<'_>) -> Result<About, Failure> {
    let [subscription_id] = fields.pick(["subscription_id"])?;
    Ok(About {
        subscription_id: subscription_id.required(Field::uuid, Field::UUID)?,
    })
}

fn log_index(fields: &Fields<'_>) -> Result<LogIndex, Failure> {
    let [log_id, entries, first_sequence, last_sequence, more] = fields.pick([
        "log_id",
        "entries",
        "first_sequence",
        "last_sequence",
        "more",
    ])?;
    Ok(LogIndex {
        log_id: log_id.required(Field::uuid, Field::UUID)?,
        entries: entries.required(Field::ids, Field::IDS)?,
        first_sequence: first_sequence.required(Field::position, Field::NUMBER)?,
        last_sequence: last_sequence.required(Field::position, Field::NUMBER)?,
        more: more.required(Field::boolean, Field::BOOLEAN)?,
    })
}

fn data_log_entry(fields: &Fields<'_>) -> Result<DataLogEntry, Failure> {
    let [log_id, publications, missing, more] =
        fields.pick(["log_id", "publications", "missing", "more"])?;
    let publications = publications.required(Field::elements, Field::ARRAY)?;
    Ok(DataLogEntry {
        log_id: log_id.required(Field::uuid, Field::UUID)?,
        publications: publications
            .map(|item| fields.slice(item.untagged_bytes()))
            .collect(),
        missing: missing
            .optional(Field::ids)?
            .unwrap_or_else(Vec::<PublicationId>::new),
        more: more.required(Field::boolean, Field::BOOLEAN)?,
    })
}

fn subscription_meta(fields: &Fields<'_>) -> Result<SubscriptionMeta, Failure> {
    let [
        subscription_id,
        kind,
        epoch,
        settings,
        created,
        first_sequence,
        last_sequence,
        bytes,
        subscribers,
        connected,
        pending,
        in_flight,
    ] = fields.pick([
        "subscription_id",
        "kind",
        "epoch",
        "settings",
        "created",
        "first_sequence",
        "last_sequence",
        "bytes",
        "subscribers",
        "connected",
        "pending",
        "in_flight",
    ])?;
    let settings = fields.within(settings.required(Field::any_map, Field::MAP)?);
    Ok(SubscriptionMeta {
        subscription_id: subscription_id.required(Field::uuid, Field::UUID)?,
        kind: kind.required(Field::kind, Field::TEXT)?,
        epoch: epoch.required(Field::uuid, Field::UUID)?,
        settings: shown_settings(&settings)?,
        created: created.required(Field::time, Field::NUMBER)?,
        first_sequence: first_sequence.required(Field::position, Field::NUMBER)?,
        last_sequence: last_sequence.required(Field::position, Field::NUMBER)?,
        bytes: bytes.required(Field::natural, Field::NUMBER)?,
        subscribers: subscribers.required(Field::natural, Field::NUMBER)?,
        connected: connected.required(Field::natural, Field::NUMBER)?,
        pending: pending.optional(Field::natural)?,
        in_flight: in_flight.optional(Field::natural)?,
    })
}

fn shown_settings(fields: &Fields<'_>) -> Result<ShownSettings, Failure> {
    let [
        name,
        retention,
        durability,
        ack_timeout,
        max_deliveries,
        dead_letter,
    ] = fields.pick([
        "name",
        "retention",
        "durability",
        "ack_timeout",
        "max_deliveries",
        "dead_letter",
    ])?;
    let retention = match retention.map()? {
        None => Retention::default(),
        Some(map) => {
            let [max_publications, max_bytes, max_age] =
                fields
                    .within(map)
                    .pick(["max_publications", "max_bytes", "max_age"])?;
            Retention {
                max_publications: max_publications.optional(Field::natural)?,
                max_bytes: max_bytes.optional(Field::natural)?,
                max_age: max_age.optional(Field::natural)?,
            }
        }
    };
    Ok(ShownSettings {
        name: name.optional(Field::text)?.map(Arc::from),
        retention,
        durability: durability.required(Field::durability, Field::TEXT)?,
        ack_timeout: ack_timeout.optional(Field::natural)?,
        max_deliveries: max_deliveries.optional(Field::natural)?,
        dead_letter: dead_letter.optional(Field::uuid)?,
    })
}

fn subscriptions(fields: &Fields<'_>) -> Result<Subscriptions, Failure> {
    let [subscriptions, more] = fields.pick(["subscriptions", "more"])?;
    Ok(Subscriptions {
        subscriptions: elements(fields, &subscriptions, subscription_meta)?,
        more: more.required(Field::boolean, Field::BOOLEAN)?,
    })
}

fn gap(fields: &Fields<'_>) -> Result<Gap, Failure> {
    let [subscription_id, from, to, cause] =
        fields.pick(["subscription_id", "from", "to", "cause"])?;
    Ok(Gap {
        subscription_id: subscription_id.required(Field::uuid, Field::UUID)?,
        from: from.required(Field::sequence, Field::NUMBER)?,
        to: to.required(Field::sequence, Field::NUMBER)?,
        cause: match &*cause.required(Field::text, Field::TEXT)? {
            "retention" => GapCause::Retention,
            // A cause that is not known is no removal that somebody asked for.
            _ => GapCause::Damage,
        },
    })
}

fn pong(fields: &Fields<'_>) -> Result<Pong, Failure> {
    let [time] = fields.pick(["time"])?;
    Ok(Pong {
        time: time.required(Field::time, Field::NUMBER)?,
    })
}

fn authenticated(fields: &Fields<'_>) -> Result<Authenticated, Failure> {
    let [name, expires] = fields.pick(["name", "expires"])?;
    Ok(Authenticated {
        name: name.optional(Field::text)?,
        expires: expires.optional(Field::time)?,
    })
}

fn token_expiring(fields: &Fields<'_>) -> Result<TokenExpiring, Failure> {
    let [expires] = fields.pick(["expires"])?;
    Ok(TokenExpiring {
        expires: expires.required(Field::time, Field::NUMBER)?,
    })
}

/// What `decode` makes of each map in the array `field`.
fn elements<T>(
    fields: &Fields<'_>,
    field: &Field<'_>,
    decode: impl Fn(&Fields<'_>) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    field
        .required(Field::elements, Field::ARRAY)?
        .map(|item: Item<'_>| {
            if item.is_map() {
                decode(&fields.within(item))
            } else {
                Err(Failure::invalid(format!("{field} holds {item}, not a map")))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
