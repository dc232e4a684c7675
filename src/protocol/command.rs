//! What clients ask for (protocol, section 4).

use std::{cell::RefCell, fmt, str::FromStr, sync::Arc};

use bytes::Bytes;

use super::{Epoch, PublicationId, RequestId, Secret, Sequence, SubscriptionId, Timestamp};

/// One client message: a command, and the id under which its answer is expected.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// `None` for a bare command.
    pub id: Option<RequestId>,
    /// What is asked for.
    pub command: ClientCommand,
}

/// Every command of protocol 1.
#[derive(Clone, PartialEq, Debug)]
pub enum ClientCommand {
    /// Makes the session a subscriber.
    Subscribe(Subscribe),
    /// Ends that.
    Unsubscribe(SubscriptionReference),
    /// Appends to the subscription's log.
    SubmitPublication(SubmitPublication),
    /// Settles what was delivered.
    Acknowledge(Acknowledge),
    /// Gives leases back (Queue).
    Reject(Reject),
    /// Prolongs leases (Queue).
    Extend(Extend),
    /// Reads the ids of a range of the log.
    GetLogIndex(GetLogIndex),
    /// Reads publications of the log.
    GetLogEntries(GetLogEntries),
    /// Makes a subscription with settings.
    CreateSubscription(CreateSubscription),
    /// Replaces settings.
    UpdateSubscription(UpdateSubscription),
    /// Asks for a subscription's state.
    GetSubscription(SubscriptionReference),
    /// Asks for many.
    ListSubscriptions(ListSubscriptions),
    /// Removes a subscription with its log.
    DeleteSubscription(SubscriptionReference),
    /// Proves for whom the connection speaks: first of all, and again before that ends.
    Authenticate(Authenticate),
    /// Asks for `Pong`.
    Ping,
}

impl ClientCommand {
    /// The command's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Subscribe(_) => "Subscribe",
            Self::Unsubscribe(_) => "Unsubscribe",
            Self::SubmitPublication(_) => "SubmitPublication",
            Self::Acknowledge(_) => "Acknowledge",
            Self::Reject(_) => "Reject",
            Self::Extend(_) => "Extend",
            Self::GetLogIndex(_) => "GetLogIndex",
            Self::GetLogEntries(_) => "GetLogEntries",
            Self::CreateSubscription(_) => "CreateSubscription",
            Self::UpdateSubscription(_) => "UpdateSubscription",
            Self::GetSubscription(_) => "GetSubscription",
            Self::ListSubscriptions(_) => "ListSubscriptions",
            Self::DeleteSubscription(_) => "DeleteSubscription",
            Self::Authenticate(_) => "Authenticate",
            Self::Ping => "Ping",
        }
    }

    /// Whether success is silent when the command came without a request id: true for those that change something.
    pub fn is_silent(&self) -> bool {
        !matches!(
            self,
            Self::GetLogIndex(_)
                | Self::GetLogEntries(_)
                | Self::GetSubscription(_)
                | Self::ListSubscriptions(_)
                | Self::Ping
        )
    }
}

/// The most bytes of a name.
pub const MAX_NAME: usize = 255;

/// Whether `text` can be a name: 1 to [`MAX_NAME`] bytes without control characters.
pub fn is_name(text: &str) -> bool {
    // `is_control` is exactly U+0000 to 001F and U+007F to 009F.
    (1..=MAX_NAME).contains(&text.len()) && !text.contains(char::is_control)
}

/// How a command names a subscription: by its UUID, or by a name that stands for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriptionReference {
    /// The id, given or of the name.
    pub id: SubscriptionId,
    /// The name, if one was given.
    pub name: Option<Arc<str>>,
}

impl SubscriptionReference {
    /// The subscription that `name` stands for. A name that is too long to be given in a command stands for one all the same, which is
    /// then known by its UUID alone.
    pub fn named(name: String) -> Self {
        Self {
            id: SubscriptionId::of_name(&name),
            name: (name.len() <= MAX_NAME).then(|| name.into()),
        }
    }
}

impl From<SubscriptionId> for SubscriptionReference {
    fn from(id: SubscriptionId) -> Self {
        Self { id, name: None }
    }
}

/// A text of the 36 characters of a UUID is that UUID; any other is a name, which the server judges.
impl From<&str> for SubscriptionReference {
    fn from(text: &str) -> Self {
        let uuid = (text.len() == uuid::fmt::Hyphenated::LENGTH)
            .then(|| uuid::Uuid::try_parse(text).ok())
            .flatten();
        match uuid {
            Some(uuid) => SubscriptionId(uuid).into(),
            None => Self {
                id: SubscriptionId::of_name(text),
                name: Some(text.into()),
            },
        }
    }
}

/// Why a text refers to no subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a name has 1 to 255 bytes and no control characters")]
pub struct BadName;

thread_local! {
    /// The last name that was given on this thread, and what it stands for.
    static LAST: RefCell<Option<SubscriptionReference>> = const { RefCell::new(None) };
}

/// As [`From`], but names are judged. One that comes again and again, as in what a publisher sends, is judged and hashed once.
impl FromStr for SubscriptionReference {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        LAST.with_borrow_mut(|last| match last {
            Some(known) if known.name.as_deref() == Some(text) => Ok(known.clone()),
            // None that is no name is a UUID.
            _ if is_name(text) => Ok(last.insert(text.into()).clone()),
            _ => Err(BadName),
        })
    }
}

/// The name, or else the id.
impl fmt::Display for SubscriptionReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => self.id.fmt(f),
        }
    }
}

impl From<String> for SubscriptionReference {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&Self> for SubscriptionReference {
    fn from(reference: &Self) -> Self {
        reference.clone()
    }
}

/// What a subscription does with its publications.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// Every subscriber gets every publication.
    Broadcast,
    /// Every publication goes to one subscriber at a time.
    Queue,
}

/// When `Submitted` is sent and subscribers are served (protocol, section 6).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Durability {
    /// At once; never written.
    Memory,
    /// When the operating system has it; survives kill -9, synced within a second.
    Written,
    /// When it is on disk and synced; survives power loss.
    Synced,
}

/// Fields of `Subscribe`.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Subscribe {
    pub subscription: SubscriptionReference,
    pub kind: Option<Kind>,
    pub from: Option<SubscribeFrom>,
    pub epoch: Option<Epoch>,
    pub prefetch: Option<u16>,
}

/// Where delivery begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
pub enum SubscribeFrom {
    /// What is published from now on.
    New,
    /// The oldest kept.
    First,
    /// What follows this position.
    After(Sequence),
    /// What was published at this time or later.
    Since(Timestamp),
    /// The last so many.
    Last(u64),
}

/// Fields of `SubmitPublication`.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct SubmitPublication {
    pub subscription: SubscriptionReference,
    /// A slice of the message it came in, where the client sent one plain byte string.
    pub submission: Bytes,
    pub kind: Option<Kind>,
    pub publication_id: Option<PublicationId>,
    pub expected_sequence: Option<Sequence>,
}

/// Fields of `Acknowledge`.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Acknowledge {
    pub subscription: SubscriptionReference,
    pub what: Acknowledged,
}

/// What is acknowledged. Exactly one of the two is given.
#[derive(Clone, PartialEq, Debug)]
pub enum Acknowledged {
    /// Broadcast: everything up to this sequence (1 or more).
    UpTo(Sequence),
    /// Queue: these. Each stands once.
    Ids(Vec<PublicationId>),
}

/// Fields of `Reject`.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Reject {
    pub subscription: SubscriptionReference,
    /// Each stands once.
    pub publication_ids: Vec<PublicationId>,
    /// Milliseconds.
    pub delay: Option<u64>,
    pub dead_letter: bool,
}

/// Fields of `Extend`.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Extend {
    pub subscription: SubscriptionReference,
    /// Each stands once.
    pub publication_ids: Vec<PublicationId>,
}

/// Entries that one read of the log may ask for, and the most ids a list holds.
pub const MAX_ENTRIES: usize = 10_000;

/// Fields of `GetLogIndex`, and of `GetLogEntries` by range.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct GetLogIndex {
    pub log: SubscriptionReference,
    pub after: Sequence,
    /// 1 to [`MAX_ENTRIES`].
    pub limit: usize,
}

/// Fields of `GetLogEntries`.
#[derive(Clone, PartialEq, Debug)]
pub enum GetLogEntries {
    /// A range, by `after` and `limit`.
    Range(GetLogIndex),
    /// Those with these ids (at most [`MAX_ENTRIES`], each standing once).
    Ids(SubscriptionReference, Vec<PublicationId>),
}

/// Fields of `CreateSubscription`.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct CreateSubscription {
    pub subscription: SubscriptionReference,
    pub kind: Option<Kind>,
    pub settings: SettingsPatch,
}

/// Fields of `UpdateSubscription`.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct UpdateSubscription {
    pub subscription: SubscriptionReference,
    pub settings: SettingsPatch,
}

/// A setting in a command: not given, `null` (the default again), or a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Patch<T> {
    /// Not given.
    #[default]
    Absent,
    /// `null`.
    Default,
    /// This value.
    Value(T),
}

impl<T> From<T> for Patch<T> {
    fn from(value: T) -> Self {
        Self::Value(value)
    }
}

/// The settings that a command gives.
#[derive(Clone, PartialEq, Debug, Default)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct SettingsPatch {
    pub retention: Patch<Retention>,
    pub durability: Patch<Durability>,
    /// Milliseconds.
    pub ack_timeout: Patch<u64>,
    pub max_deliveries: Patch<u64>,
    pub dead_letter: Patch<SubscriptionReference>,
}

/// How much of a log is kept. `None` is no limit, or the server's default where a default is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The newest so many; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_publications: Option<u64>,
    /// The newest whose payloads together have at most so many bytes; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Milliseconds; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
}

/// Fields of `ListSubscriptions`.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct ListSubscriptions {
    pub after: Option<SubscriptionId>,
    /// 1 to 1,000.
    pub limit: usize,
}

/// Fields of `Authenticate`.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the protocol's table")]
pub struct Authenticate {
    /// At most [`MAX_TOKEN`](super::MAX_TOKEN) bytes.
    pub token: Secret,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_name_a_uuid_or_neither() {
        let of = |text: &str| text.parse::<SubscriptionReference>();
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        assert_eq!(of("news"), Ok("news".into()));
        assert_eq!(of(id), Ok(id.into()));
        assert_eq!(
            of(&id.replace('-', "")).map(|named| named.name.is_some()),
            Ok(true)
        );
        assert!(of(&"x".repeat(255)).is_ok());
        for text in ["", "a\0", "\u{85}", &"x".repeat(256)] {
            assert_eq!(of(text), Err(BadName), "{text:?}");
        }
    }

    #[test]
    fn a_text_stands_for_the_same_whatever_came_before_it() {
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let of = |text: &str| text.parse::<SubscriptionReference>().ok();
        for before in ["news", "new", "", id, "newsy"] {
            for text in ["news", "new", "", id, "newsy"] {
                of(before);
                assert_eq!(
                    of(text),
                    is_name(text).then(|| text.into()),
                    "{text:?} behind {before:?}"
                );
            }
        }
    }

    #[test]
    fn a_reference_is_shown_as_it_was_given() {
        for text in ["news", "67e55044-10b1-426f-9247-bb680e5fe0c8"] {
            assert_eq!(SubscriptionReference::from(text).to_string(), text);
        }
    }
}
