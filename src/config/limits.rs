//! Limits that are off unless they are set: what one connection, or one address, may ask of the server.

use super::{ConfigError, GIB, KIB, count, size};

/// What one party may send in a second. `None` is no limit; what a second allows may come at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// Messages; 1 to 1,000,000.
    pub messages: Option<u64>,
    /// Bytes of messages; 1 KiB to 1 GiB. A message that is longer than that passes after a pause.
    pub bytes: Option<u64>,
}

/// Limits for the good of others. Each is off by default, and costs nothing then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Connections of one address at once, where 64 bits of an IPv6 address are one; 1 to 1,000,000. Behind a proxy all connections have the
    /// proxy's address.
    pub max_connections_per_address: Option<u64>,

    /// What each connection may send. A command over it is answered `rate-limited` and not applied.
    pub connection_rate: Rate,

    /// What each identity may have and send, over all of its connections. Who is anonymous is none.
    pub identity: IdentityLimits,
}

/// What one identity may have and send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IdentityLimits {
    /// As that of a connection.
    pub rate: Rate,

    /// Connections at once; 1 to 1,000,000. One over it is closed with 4010.
    pub max_connections: Option<u64>,

    /// Subscriptions that it made; 1 to 1,000,000.
    pub max_subscriptions: Option<u64>,

    /// Bytes of payload that the subscriptions which it made keep together; 1 KiB to 1 PiB.
    pub max_log_bytes: Option<u64>,
}

impl Limits {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let Self {
            max_connections_per_address,
            connection_rate,
            identity,
        } = *self;
        optional_count("max_connections_per_address", max_connections_per_address)?;
        optional_count("connection_rate_messages", connection_rate.messages)?;
        optional_size("connection_rate_bytes", connection_rate.bytes, GIB)?;
        optional_count("identity_rate_messages", identity.rate.messages)?;
        optional_size("identity_rate_bytes", identity.rate.bytes, GIB)?;
        optional_count("identity_max_connections", identity.max_connections)?;
        optional_count("identity_max_subscriptions", identity.max_subscriptions)?;
        let most = KIB * KIB * GIB;
        optional_size("identity_max_log_bytes", identity.max_log_bytes, most)
    }
}

fn optional_count(setting: &'static str, got: Option<u64>) -> Result<(), ConfigError> {
    got.map_or(Ok(()), |got| {
        count(
            setting,
            usize::try_from(got).unwrap_or(usize::MAX),
            1..=1_000_000,
        )
    })
}

fn optional_size(setting: &'static str, got: Option<u64>, most: u64) -> Result<(), ConfigError> {
    got.map_or(Ok(()), |got| size(setting, got, KIB..=most, ""))
}
