//! What a server is told before it starts.
//!
//! Owns the settings, their defaults and their limits. Does not read the environment: the binary does (`infotainer serve`), and
//! whoever embeds the server fills a [`Config`] in code. A `Config` that passed [`Config::validate`] is never judged again.
//!
//! In the environment a field is called `INFOTAINER_` and its name in capitals.

mod limits;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    thread,
    time::Duration,
};

pub use limits::{IdentityLimits, Limits, Rate};

use crate::protocol::{Durability, Retention, Secret};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The port that the server listens on unless it is told another.
pub const DEFAULT_PORT: u16 = 8949;

/// The most messages may ever be allowed to have. A message is held in memory whole, and one journal file has to take
/// the publication that it becomes.
pub const LARGEST_MESSAGE_SIZE: usize = 16 << 20;

/// The most worker threads.
pub const MOST_WORKERS: usize = 64;

/// What a server is told before it starts.
///
/// # Examples
/// ```
/// use infotainer::config::Config;
///
/// let config = Config { max_connections: 100, ..Config::default() };
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Where connections are accepted. Default `127.0.0.1:8949`; port 0 takes a free one.
    pub listen: SocketAddr,

    /// Where `/metrics` is served, with `/healthz` and `/readyz`, to whoever connects there; without credentials, so it should be an address
    /// that only those who watch can reach. Default none: the metrics are then served at [`listen`](Self::listen), and to clients on this
    /// machine alone.
    pub metrics_listen: Option<SocketAddr>,

    /// The folder that holds the log; it is made if it lacks. Default `infotainer-data` in the working directory. One server at
    /// a time can use it.
    pub data_dir: PathBuf,

    /// The durability of subscriptions that are made without one. Default [`Durability::Synced`], whose price is one sync of
    /// the disk before each answer, shared by all that is submitted meanwhile.
    pub durability: Durability,

    /// The longest message that a client may send. Bytes; default 256 KiB; 1 KiB to [`LARGEST_MESSAGE_SIZE`]. Costs up to this
    /// much memory for each connection that is in the middle of sending one.
    pub max_message_size: usize,

    /// Connections at once, those in their handshake included. Default 10,000; 1 to 1,000,000. Each costs a file descriptor, of
    /// which the process has to be allowed that many and some more.
    pub max_connections: usize,

    /// Subscriptions that one session may hold. Default 128; 1 to 100,000. `Welcome` lists all of them to a session that
    /// comes back.
    pub max_subscriptions_per_session: usize,

    /// Subscriptions that the server holds. Default 1,000,000; 1 to 100,000,000. An idle one costs less than 1 KB of memory.
    pub max_subscriptions: usize,

    /// Durable sessions that the server remembers. Default 1,000,000; 1 to 100,000,000.
    pub max_sessions: usize,

    /// How long a connection may take until its WebSocket handshake is done. Default 5 s; 10 ms to 1 h.
    pub handshake_timeout: Duration,

    /// The pause between two pings to a client. Default 25 s; 10 ms to 1 day. Shorter ones find dead clients earlier and cost
    /// a packet each way.
    pub heartbeat_interval: Duration,

    /// How long beyond [`heartbeat_interval`](Self::heartbeat_interval) nothing may be heard from a client before it is closed
    /// with 4008. Default 10 s; 10 ms to 1 day.
    pub heartbeat_timeout: Duration,

    /// How long a client may acknowledge not one byte of what waits for it before it is closed with 4009. Default 60 s; 10 ms
    /// to 1 day. Up to [`outbox_size`](Self::outbox_size) of memory is held for that long.
    pub write_timeout: Duration,

    /// How long a stop may take to hand clients what is theirs; what is left then is dropped. Default 10 s; 10 ms to 1 h.
    pub shutdown_timeout: Duration,

    /// How long a durable session without a connection is remembered. Default 24 h; 10 ms to 10,000 days.
    pub session_expiry: Duration,

    /// The web origins whose pages may connect, besides the server's own. Default none.
    pub allowed_origins: AllowedOrigins,

    /// The certificate with which connections are encrypted (TLS 1.2 and 1.3). Default none: they are not. Costs some memory for each
    /// connection.
    pub tls: Option<TlsFiles>,

    /// The retention of subscriptions that are made without one. Default no limit, so that logs grow until the disk is full.
    /// Each limit is at least 1; `max_age` is in milliseconds.
    pub retention: Retention,

    /// How much payload a [`Durability::Memory`] subscription without a retention keeps. Bytes; default 64 MiB; 64 KiB to 1 TiB.
    /// Held in memory for each such subscription.
    pub memory_log: u64,

    /// The size of a journal file, of which there are up to five. Bytes; default 32 MiB; 128 KiB to 1 GiB, and at least twice
    /// [`max_message_size`](Self::max_message_size). Each that is full is sealed into a segment, which costs some syncs: smaller
    /// ones take less room and a start reads them sooner, but a server that is published much to is held up.
    pub journal_size: u64,

    /// How much may wait in memory for one client; a client over it is served from the log until it has caught up. Bytes; default
    /// 1 MiB; 64 KiB to 1 GiB. Held for each client that reads too slowly.
    pub outbox_size: usize,

    /// Limits for the good of others. Default none.
    pub limits: Limits,

    /// Threads that serve connections. Default one for each core; 1 to [`MOST_WORKERS`].
    pub workers: usize,

    /// By what clients prove who they are. Default nothing: everybody is anonymous, and may do everything.
    pub credentials: Credentials,

    /// Whether everybody may do everything although others than this machine can reach [`listen`](Self::listen). Default false. Not
    /// beside [`credentials`](Self::credentials), which it would make worthless.
    pub allow_anonymous: bool,
}

/// By what clients prove who they are.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Credentials {
    /// The secret of tokens signed with HS256: at least 32 bytes.
    pub jwt_secret: Option<Given>,
    /// The public key, in PEM, of tokens signed with RS256 (an RSA key), ES256 (P-256) or EdDSA (Ed25519).
    pub jwt_public_key: Option<Given>,
    /// A file with a JWK set of such public keys (RFC 7517).
    pub jwks_file: Option<PathBuf>,
    /// What the `aud` of a token has to be, or has to hold. Without this, a token may have none.
    pub jwt_audience: Option<String>,
    /// What the `iss` of a token has to be.
    pub jwt_issuer: Option<String>,
    /// The file of API keys, as `infotainer key` writes it.
    pub api_keys_file: Option<PathBuf>,
}

impl Credentials {
    /// Whether there is nothing by which anybody could prove anything.
    pub fn is_empty(&self) -> bool {
        let Self {
            jwt_secret,
            jwt_public_key,
            jwks_file,
            api_keys_file,
            ..
        } = self;
        jwt_secret.is_none()
            && jwt_public_key.is_none()
            && jwks_file.is_none()
            && api_keys_file.is_none()
    }
}

/// A credential, as it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Given {
    /// Itself.
    Value(Secret),
    /// By a file, which is read again when the server is told so.
    File(PathBuf),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            metrics_listen: None,
            data_dir: PathBuf::from("./infotainer-data"),
            durability: Durability::Synced,
            max_message_size: 256 << 10,
            max_connections: 10_000,
            max_subscriptions_per_session: 128,
            max_subscriptions: 1_000_000,
            max_sessions: 1_000_000,
            handshake_timeout: Duration::from_secs(5),
            heartbeat_interval: Duration::from_secs(25),
            heartbeat_timeout: Duration::from_secs(10),
            write_timeout: MINUTE,
            shutdown_timeout: Duration::from_secs(10),
            session_expiry: DAY,
            allowed_origins: AllowedOrigins::default(),
            tls: None,
            retention: Retention::default(),
            memory_log: 64 * MIB,
            journal_size: 32 * MIB,
            outbox_size: 1 << 20,
            limits: Limits::default(),
            workers: thread::available_parallelism()
                .map_or(1, usize::from)
                .min(MOST_WORKERS),
            credentials: Credentials::default(),
            allow_anonymous: false,
        }
    }
}

impl Config {
    /// Judges every field by its limits.
    ///
    /// # Errors
    /// The first field that is out of them.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::new("data_dir", "empty", "a folder's path"));
        }
        self.validate_access()?;
        self.validate_counts()?;
        self.validate_sizes()?;
        self.validate_durations()?;
        self.limits.validate()?;
        self.validate_retention()
    }

    fn validate_access(&self) -> Result<(), ConfigError> {
        let has_credentials = !self.credentials.is_empty();
        if has_credentials && self.allow_anonymous {
            let wants = "left away where there are credentials, which it would make worthless";
            return Err(ConfigError::new("allow_anonymous", "true", wants));
        }
        let is_local = self.listen.ip().to_canonical().is_loopback();
        if !is_local && !has_credentials && !self.allow_anonymous {
            let wants = "an address of this machine alone, such as 127.0.0.1:8949, while nobody has to prove who they are: \
                         set INFOTAINER_JWT_SECRET_FILE, INFOTAINER_JWT_PUBLIC_KEY_FILE, INFOTAINER_JWKS_FILE or \
                         INFOTAINER_API_KEYS_FILE, or INFOTAINER_ALLOW_ANONYMOUS=true if everybody who reaches it may really \
                         do everything";
            return Err(ConfigError::new("listen", self.listen.to_string(), wants));
        }
        Ok(())
    }

    fn validate_counts(&self) -> Result<(), ConfigError> {
        count("max_connections", self.max_connections, 1..=1_000_000)?;
        count(
            "max_subscriptions_per_session",
            self.max_subscriptions_per_session,
            1..=100_000,
        )?;
        count("max_subscriptions", self.max_subscriptions, 1..=100_000_000)?;
        count("max_sessions", self.max_sessions, 1..=100_000_000)?;
        count("workers", self.workers, 1..=MOST_WORKERS)
    }

    fn validate_sizes(&self) -> Result<(), ConfigError> {
        let largest_message = LARGEST_MESSAGE_SIZE as u64;
        let why = " (a message is held in memory whole, and has to fit into one journal file)";
        size(
            "max_message_size",
            self.max_message_size as u64,
            KIB..=largest_message,
            why,
        )?;
        size("memory_log", self.memory_log, 64 * KIB..=KIB * GIB, "")?;
        // What is written besides publications has to fit as well.
        let least = (self.max_message_size as u64 * 2).max(128 * KIB);
        let why = " (at least twice the longest message)";
        size("journal_size", self.journal_size, least..=GIB, why)?;
        size("outbox_size", self.outbox_size as u64, 64 * KIB..=GIB, "")
    }

    fn validate_durations(&self) -> Result<(), ConfigError> {
        duration("handshake_timeout", self.handshake_timeout, HOUR)?;
        duration("heartbeat_interval", self.heartbeat_interval, DAY)?;
        duration("heartbeat_timeout", self.heartbeat_timeout, DAY)?;
        duration("write_timeout", self.write_timeout, DAY)?;
        duration("shutdown_timeout", self.shutdown_timeout, HOUR)?;
        duration("session_expiry", self.session_expiry, 10_000 * DAY)
    }

    fn validate_retention(&self) -> Result<(), ConfigError> {
        let limits = [
            (
                "retention_max_publications",
                self.retention.max_publications,
            ),
            ("retention_max_bytes", self.retention.max_bytes),
            ("retention_max_age", self.retention.max_age),
        ];
        match limits.into_iter().find(|(_, limit)| *limit == Some(0)) {
            Some((setting, _)) => Err(ConfigError::new(
                setting,
                "0",
                "more than 0 (leave it away for no limit)",
            )),
            None => Ok(()),
        }
    }
}

/// What TLS needs: files in PEM, which are read again when they change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The server's certificate, and behind it those that lead to its CA.
    pub certificate: PathBuf,
    /// The certificate's private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// With these, only clients that show a certificate which was issued by one of them are let in.
    pub client_ca: Option<PathBuf>,
}

/// The web origins whose pages may connect. A page of the server's own origin, and whoever sends no `Origin`, always may.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowedOrigins {
    /// Every page.
    Any,
    /// Pages of these, each as browsers write it: `https://example.com`, in lower case, a port only where it is not the
    /// scheme's.
    List(Vec<String>),
}

impl AllowedOrigins {
    /// Whether a page of `origin` (the value of the request's `Origin`) may connect.
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::List(origins) => origins
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(origin)),
        }
    }
}

impl Default for AllowedOrigins {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// A setting out of its limits.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{setting} is {got}, but must be {wants}")]
pub struct ConfigError {
    /// The name of the field, `retention_` in front where it is one of [`Retention`].
    pub setting: &'static str,
    /// What it is.
    pub got: String,
    /// What it may be.
    pub wants: String,
}

impl ConfigError {
    fn new(setting: &'static str, got: impl Into<String>, wants: impl Into<String>) -> Self {
        Self {
            setting,
            got: got.into(),
            wants: wants.into(),
        }
    }
}

fn count(
    setting: &'static str,
    got: usize,
    limits: RangeInclusive<usize>,
) -> Result<(), ConfigError> {
    if limits.contains(&got) {
        return Ok(());
    }
    let wants = format!("from {} to {}", limits.start(), limits.end());
    Err(ConfigError::new(setting, got.to_string(), wants))
}

fn size(
    setting: &'static str,
    got: u64,
    limits: RangeInclusive<u64>,
    why: &str,
) -> Result<(), ConfigError> {
    if limits.contains(&got) {
        return Ok(());
    }
    let wants = format!(
        "from {} to {}{why}",
        InUnits(*limits.start()),
        InUnits(*limits.end())
    );
    Err(ConfigError::new(setting, InUnits(got).to_string(), wants))
}

/// Below this, timers would fire more often than anything happens.
const SHORTEST: Duration = Duration::from_millis(10);

fn duration(setting: &'static str, got: Duration, longest: Duration) -> Result<(), ConfigError> {
    if (SHORTEST..=longest).contains(&got) {
        return Ok(());
    }
    let hours = longest.as_secs() / HOUR.as_secs();
    let longest = if hours.is_multiple_of(24) {
        format!("{}d", hours / 24)
    } else {
        format!("{hours}h")
    };
    let wants = format!("from {}ms to {longest}", SHORTEST.as_millis());
    Err(ConfigError::new(
        setting,
        format!("{}ms", got.as_millis()),
        wants,
    ))
}

/// Bytes, in the largest unit that divides them.
struct InUnits(u64);

impl fmt::Display for InUnits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        match [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")]
            .into_iter()
            .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit))
        {
            Some((unit, name)) => write!(f, "{}{name}", bytes / unit),
            None => write!(f, "{bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(change: impl FnOnce(&mut Config)) -> Result<(), String> {
        let mut config = Config::default();
        change(&mut config);
        config.validate().map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn a_message_size_over_the_cap_is_told_why() {
        assert_eq!(
            judged(|config| config.max_message_size = 17 << 20).unwrap_err(),
            "max_message_size is 17MiB, but must be from 1KiB to 16MiB (a message is held in memory whole, and has to fit into \
             one journal file)"
        );
        assert_eq!(judged(|config| config.max_message_size = 16 << 20), Ok(()));
    }

    #[test]
    fn a_journal_has_room_for_the_longest_message() {
        let judged = |max_message_size| {
            judged(|config| {
                config.journal_size = MIB;
                config.max_message_size = max_message_size;
            })
        };
        assert_eq!(judged(512 << 10), Ok(()));
        assert_eq!(
            judged(1 << 20).unwrap_err(),
            "journal_size is 1MiB, but must be from 2MiB to 1GiB (at least twice the longest message)"
        );
    }

    #[test]
    fn what_is_zero_or_too_small_is_named() {
        type Change = fn(&mut Config);
        let cases: [(&str, Change); 8] = [
            ("max_connections is 0, but must be from 1 to 1000000", |c| {
                c.max_connections = 0
            }),
            ("workers is 0, but must be from 1 to 64", |c| c.workers = 0),
            (
                "heartbeat_interval is 0ms, but must be from 10ms to 1d",
                |c| c.heartbeat_interval = Duration::ZERO,
            ),
            (
                "handshake_timeout is 0ms, but must be from 10ms to 1h",
                |c| c.handshake_timeout = Duration::ZERO,
            ),
            (
                "outbox_size is 0 bytes, but must be from 64KiB to 1GiB",
                |c| c.outbox_size = 0,
            ),
            (
                "memory_log is 1000 bytes, but must be from 64KiB to 1024GiB",
                |c| c.memory_log = 1000,
            ),
            (
                "retention_max_age is 0, but must be more than 0 (leave it away for no limit)",
                |c| c.retention.max_age = Some(0),
            ),
            ("data_dir is empty, but must be a folder's path", |c| {
                c.data_dir = PathBuf::new()
            }),
        ];
        for (message, change) in cases {
            assert_eq!(judged(change).unwrap_err(), message);
        }
    }

    #[test]
    fn what_others_can_reach_needs_credentials_or_the_word_that_it_does_not() {
        let listen = |address: &str| {
            let address = address.parse().unwrap();
            move |config: &mut Config| config.listen = address
        };
        for local in [
            "127.0.0.1:1",
            "127.8.9.10:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert_eq!(judged(listen(local)), Ok(()), "{local}");
        }
        for wide in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let error = judged(listen(wide)).unwrap_err();
            assert!(
                error.starts_with(&format!("listen is {wide}, but must be")),
                "{error}"
            );
            assert!(error.contains("INFOTAINER_ALLOW_ANONYMOUS=true"), "{error}");
            let with = |change: fn(&mut Config)| {
                judged(|config| {
                    listen(wide)(config);
                    change(config);
                })
            };
            assert_eq!(with(|config| config.allow_anonymous = true), Ok(()));
            let keys = |config: &mut Config| config.credentials.api_keys_file = Some("k".into());
            assert_eq!(with(keys), Ok(()));
        }
    }

    #[test]
    fn credentials_and_anybody_exclude_each_other() {
        let error = judged(|config| {
            config.credentials.jwks_file = Some("jwks.json".into());
            config.allow_anonymous = true;
        });
        assert!(
            error
                .unwrap_err()
                .starts_with("allow_anonymous is true, but must be left away")
        );
    }

    #[test]
    fn origins_are_compared_without_case() {
        let list = AllowedOrigins::List(vec!["https://example.com".into()]);
        assert!(list.allows("https://Example.com"));
        assert!(!list.allows("http://example.com"));
        assert!(AllowedOrigins::Any.allows("null"));
        assert!(!AllowedOrigins::default().allows("null"));
    }
}
