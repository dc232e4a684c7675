//! Identifiers and numbers as newtypes, so that none is taken for another.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid};

/// Sequences, positions and request ids stay below this (2^53), so that every client's numbers hold them exactly.
pub const NUMBER_LIMIT: u64 = 1 << 53;

/// The namespace of the version 5 UUIDs that names stand for: `6ba7b811-9dad-11d1-80b4-00c04fd430c8` (RFC 9562, section 6.6).
const NAME_NAMESPACE: Uuid = Uuid::NAMESPACE_URL;

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }
    };
}

macro_rules! shown_whole {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_newtype! {
    /// Names a subscription for ever, across deletion and re-creation.
    SubscriptionId
}
uuid_newtype! {
    /// Names a publication within its subscription's log.
    PublicationId
}
uuid_newtype! {
    /// Names one life of a log.
    Epoch
}
uuid_newtype! {
    /// A client's identity; of a durable session it is a capability, and so shown only by its first eight characters.
    SessionId
}
shown_whole!(SubscriptionId);
shown_whole!(PublicationId);
shown_whole!(Epoch);

impl SubscriptionId {
    /// The id that `name` stands for: version 5 of `infotainer:` + name (protocol, section 2).
    pub fn of_name(name: &str) -> Self {
        // What `Uuid::new_v5` does, with the processor's instructions for it where there are any: this is done for each
        // publication that names its subscription.
        let digest = Sha1::new()
            .chain_update(NAME_NAMESPACE)
            .chain_update("infotainer:")
            .chain_update(name)
            .finalize();
        let bytes = digest.first_chunk().expect("invariant: SHA-1 has 20 bytes");
        Self(Builder::from_sha1_bytes(*bytes).into_uuid())
    }
}

impl Epoch {
    /// A new, random epoch.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl SessionId {
    /// A new, random session id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}…", self.0.as_fields().0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in a log: publications are numbered 1, 2, 3, ... without holes. As a *position* it may be 0, which is in front
/// of the first.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The position in front of every publication.
    pub const ZERO: Self = Self(0);

    /// The sequence behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position in front of this sequence; 0 stays 0.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since 1970-01-01 UTC.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// What a client puts in front of a command to find its answer; below 2^53.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);
