//! `infotainer serve`: the environment becomes a [`Config`], and the server runs on it until it is told to stop.

use std::{
    ffi::OsString,
    fmt::Display,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, CommandFactory};
use infotainer::{
    Server, StartError,
    config::{AllowedOrigins, Config, ConfigError, IdentityLimits, Limits, Rate, TlsFiles},
    datalog::panic_is_contained,
    protocol::{Durability, Retention},
};

use super::{
    Cli, Failure, allocator,
    connect::DEFAULT_SERVER,
    credentials::CredentialsArgs,
    environment,
    logging::{self, Format},
    signals::Signals,
    values,
};

/// Files besides connections: segments, journals, the catalogue, what the threads need.
const FILES_BESIDES_CONNECTIONS: u64 = 256;

/// The exit code of a process that ends by a panic, as the standard library's own.
const FAILED_BY_A_DEFECT: i32 = 101;

const HOW_VALUES_ARE_GIVEN: &str =
    "A flag goes before its variable. A variable that is set but empty is a bad value.";

/// The settings, each a flag and a variable.
#[derive(Args, Debug)]
#[command(after_help = format!("{HOW_VALUES_ARE_GIVEN}\n{}", values::UNITS))]
pub(super) struct ServeArgs {
    /// Where to accept connections; port 0 takes a free one
    #[arg(long, env = "INFOTAINER_LISTEN", value_name = "ADDRESS:PORT", value_parser = values::address)]
    #[arg(default_value = "127.0.0.1:8949")]
    listen: SocketAddr,

    /// Where to serve /metrics, besides /healthz and /readyz, to whoever connects [default: at INFOTAINER_LISTEN, to this machine alone]
    #[arg(long, env = "INFOTAINER_METRICS_LISTEN", value_name = "ADDRESS:PORT", value_parser = values::address)]
    metrics_listen: Option<SocketAddr>,

    /// The folder that holds the log; made if it lacks
    #[arg(
        long,
        env = "INFOTAINER_DATA_DIR",
        value_name = "FOLDER",
        default_value = "./infotainer-data"
    )]
    data_dir: PathBuf,

    /// What to log, in env_logger's syntax [default: what RUST_LOG says, else info]
    #[arg(long, env = "INFOTAINER_LOG", value_name = "FILTER", value_parser = values::log_filter)]
    log: Option<String>,

    /// The form of log lines on stderr: text or json (one object a line)
    #[arg(long, env = "INFOTAINER_LOG_FORMAT", value_name = "FORMAT", value_parser = values::log_format)]
    #[arg(default_value = "text")]
    log_format: Format,

    /// When a publication counts as accepted, where its subscription doesn't say: Synced (on disk), Written (handed to the
    /// operating system) or Memory (never written)
    #[arg(long, env = "INFOTAINER_DURABILITY", value_name = "LEVEL", value_parser = values::durability)]
    #[arg(default_value = "Synced")]
    durability: Durability,

    /// The longest message that a client may send, 1KiB to 16MiB
    #[arg(long, env = "INFOTAINER_MAX_MESSAGE_SIZE", value_name = "SIZE", value_parser = values::small_size)]
    #[arg(default_value = "256KiB")]
    max_message_size: usize,

    /// Connections at once; each needs a file descriptor
    #[arg(long, env = "INFOTAINER_MAX_CONNECTIONS", value_name = "COUNT", value_parser = values::small_count)]
    #[arg(default_value = "10000")]
    max_connections: usize,

    /// Subscriptions that one session may hold
    #[arg(long, env = "INFOTAINER_MAX_SUBSCRIPTIONS_PER_SESSION", value_name = "COUNT", value_parser = values::small_count)]
    #[arg(default_value = "128")]
    max_subscriptions_per_session: usize,

    /// Subscriptions in all
    #[arg(long, env = "INFOTAINER_MAX_SUBSCRIPTIONS", value_name = "COUNT", value_parser = values::small_count)]
    #[arg(default_value = "1000000")]
    max_subscriptions: usize,

    /// Durable sessions that are remembered
    #[arg(long, env = "INFOTAINER_MAX_SESSIONS", value_name = "COUNT", value_parser = values::small_count)]
    #[arg(default_value = "1000000")]
    max_sessions: usize,

    /// How long a WebSocket handshake may take
    #[arg(long, env = "INFOTAINER_HANDSHAKE_TIMEOUT", value_name = "DURATION", value_parser = values::duration)]
    #[arg(default_value = "5s")]
    handshake_timeout: Duration,

    /// The pause between two pings to a client
    #[arg(long, env = "INFOTAINER_HEARTBEAT_INTERVAL", value_name = "DURATION", value_parser = values::duration)]
    #[arg(default_value = "25s")]
    heartbeat_interval: Duration,

    /// How long beyond that a client may be silent
    #[arg(long, env = "INFOTAINER_HEARTBEAT_TIMEOUT", value_name = "DURATION", value_parser = values::duration)]
    #[arg(default_value = "10s")]
    heartbeat_timeout: Duration,

    /// How long a client may take nothing of what waits for it
    #[arg(long, env = "INFOTAINER_WRITE_TIMEOUT", value_name = "DURATION", value_parser = values::duration)]
    #[arg(default_value = "60s")]
    write_timeout: Duration,

    /// How long a stop may take to hand clients what is theirs
    #[arg(long, env = "INFOTAINER_SHUTDOWN_TIMEOUT", value_name = "DURATION", value_parser = values::duration)]
    #[arg(default_value = "10s")]
    shutdown_timeout: Duration,

    /// How long a durable session without a connection is remembered
    #[arg(long, env = "INFOTAINER_SESSION_EXPIRY", value_name = "DURATION", value_parser = values::duration)]
    #[arg(default_value = "24h")]
    session_expiry: Duration,

    /// Web origins whose pages may connect besides the server's own: a comma list, or * for all [default: none]
    #[arg(long, env = "INFOTAINER_ALLOWED_ORIGINS", value_name = "ORIGINS", value_parser = values::origins)]
    allowed_origins: Option<AllowedOrigins>,

    /// The certificate to encrypt connections with (TLS), and behind it those that lead to its CA, in PEM; read again when it changes
    /// [default: none]
    #[arg(long, env = "INFOTAINER_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// The private key of that certificate, in PEM [default: none]
    #[arg(long, env = "INFOTAINER_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// Let in only clients that show a certificate issued by one of these, in PEM [default: none]
    #[arg(long, env = "INFOTAINER_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,

    /// Keep the newest so many publications of a subscription that doesn't say [default: no limit]
    #[arg(long, env = "INFOTAINER_RETENTION_MAX_PUBLICATIONS", value_name = "COUNT", value_parser = values::count)]
    retention_max_publications: Option<u64>,

    /// Keep the newest publications with at most so much payload [default: no limit]
    #[arg(long, env = "INFOTAINER_RETENTION_MAX_BYTES", value_name = "SIZE", value_parser = values::size)]
    retention_max_bytes: Option<u64>,

    /// Keep publications for so long [default: no limit]
    #[arg(long, env = "INFOTAINER_RETENTION_MAX_AGE", value_name = "DURATION", value_parser = values::duration)]
    retention_max_age: Option<Duration>,

    /// How much payload a Memory subscription without retention keeps, 64KiB to 1024GiB
    #[arg(long, env = "INFOTAINER_MEMORY_LOG", value_name = "SIZE", value_parser = values::size)]
    #[arg(default_value = "64MiB")]
    memory_log: u64,

    /// The size of a journal file, 128KiB to 1GiB and at least twice the longest message; a full one is sealed in the background
    #[arg(long, env = "INFOTAINER_JOURNAL_SIZE", value_name = "SIZE", value_parser = values::size)]
    #[arg(default_value = "32MiB")]
    journal_size: u64,

    /// How much may wait in memory for one slow client before it is served from the log, 64KiB to 1GiB
    #[arg(long, env = "INFOTAINER_OUTBOX_SIZE", value_name = "SIZE", value_parser = values::small_size)]
    #[arg(default_value = "1MiB")]
    outbox_size: usize,

    /// Connections of one address at once; 64 bits of an IPv6 address are one [default: no limit]
    #[arg(long, env = "INFOTAINER_MAX_CONNECTIONS_PER_ADDRESS", value_name = "COUNT", value_parser = values::count)]
    max_connections_per_address: Option<u64>,

    /// Messages a second from each connection; what is over it is refused [default: no limit]
    #[arg(long, env = "INFOTAINER_CONNECTION_RATE_MESSAGES", value_name = "COUNT", value_parser = values::count)]
    connection_rate_messages: Option<u64>,

    /// Bytes of messages a second from each connection, 1KiB to 1GiB [default: no limit]
    #[arg(long, env = "INFOTAINER_CONNECTION_RATE_BYTES", value_name = "SIZE", value_parser = values::size)]
    connection_rate_bytes: Option<u64>,

    /// Messages a second from all connections of an identity [default: no limit]
    #[arg(long, env = "INFOTAINER_IDENTITY_RATE_MESSAGES", value_name = "COUNT", value_parser = values::count)]
    identity_rate_messages: Option<u64>,

    /// Bytes of messages a second from all connections of an identity, 1KiB to 1GiB [default: no limit]
    #[arg(long, env = "INFOTAINER_IDENTITY_RATE_BYTES", value_name = "SIZE", value_parser = values::size)]
    identity_rate_bytes: Option<u64>,

    /// Connections of an identity at once [default: no limit]
    #[arg(long, env = "INFOTAINER_IDENTITY_MAX_CONNECTIONS", value_name = "COUNT", value_parser = values::count)]
    identity_max_connections: Option<u64>,

    /// Subscriptions that an identity made [default: no limit]
    #[arg(long, env = "INFOTAINER_IDENTITY_MAX_SUBSCRIPTIONS", value_name = "COUNT", value_parser = values::count)]
    identity_max_subscriptions: Option<u64>,

    /// Payload that the subscriptions of an identity keep together, 1KiB or more [default: no limit]
    #[arg(long, env = "INFOTAINER_IDENTITY_MAX_LOG_BYTES", value_name = "SIZE", value_parser = values::size)]
    identity_max_log_bytes: Option<u64>,

    /// Threads that serve connections, 1 to 64 [default: one for each core]
    #[arg(long, env = "INFOTAINER_WORKERS", value_name = "COUNT", value_parser = values::small_count)]
    workers: Option<usize>,

    /// Let everybody do everything although others than this machine can reach the address [default: not]
    #[arg(long, env = "INFOTAINER_ALLOW_ANONYMOUS", value_name = "true", value_parser = values::boolean)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_anonymous: Option<bool>,

    #[command(flatten)]
    credentials: CredentialsArgs,
}

impl ServeArgs {
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        let defaults = Config::default();
        let config = Config {
            listen: self.listen,
            metrics_listen: self.metrics_listen,
            data_dir: self.data_dir.clone(),
            durability: self.durability,
            max_message_size: self.max_message_size,
            max_connections: self.max_connections,
            max_subscriptions_per_session: self.max_subscriptions_per_session,
            max_subscriptions: self.max_subscriptions,
            max_sessions: self.max_sessions,
            handshake_timeout: self.handshake_timeout,
            heartbeat_interval: self.heartbeat_interval,
            heartbeat_timeout: self.heartbeat_timeout,
            write_timeout: self.write_timeout,
            shutdown_timeout: self.shutdown_timeout,
            session_expiry: self.session_expiry,
            allowed_origins: self.allowed_origins.clone().unwrap_or_default(),
            tls: self.tls()?,
            retention: Retention {
                max_publications: self.retention_max_publications,
                max_bytes: self.retention_max_bytes,
                max_age: self
                    .retention_max_age
                    .map(|age| age.as_millis().try_into().unwrap_or(u64::MAX)),
            },
            memory_log: self.memory_log,
            journal_size: self.journal_size,
            outbox_size: self.outbox_size,
            limits: Limits {
                max_connections_per_address: self.max_connections_per_address,
                connection_rate: Rate {
                    messages: self.connection_rate_messages,
                    bytes: self.connection_rate_bytes,
                },
                identity: IdentityLimits {
                    rate: Rate {
                        messages: self.identity_rate_messages,
                        bytes: self.identity_rate_bytes,
                    },
                    max_connections: self.identity_max_connections,
                    max_subscriptions: self.identity_max_subscriptions,
                    max_log_bytes: self.identity_max_log_bytes,
                },
            },
            workers: self.workers.unwrap_or(defaults.workers),
            credentials: self.credentials.credentials(),
            allow_anonymous: self.allow_anonymous.unwrap_or(false),
        };
        config.validate().map(|()| config)
    }

    fn tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let missing = |setting, wants: &str| {
            Err(ConfigError {
                setting,
                got: "not set".to_owned(),
                wants: wants.to_owned(),
            })
        };
        match (&self.tls_cert, &self.tls_key, &self.tls_client_ca) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), client_ca) => Ok(Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: client_ca.clone(),
            })),
            (Some(_), None, _) => missing("tls_key", "the file with the key of the certificate"),
            (None, Some(_), _) => missing("tls_cert", "the file with the certificate of the key"),
            (None, None, Some(_)) => missing(
                "tls_cert",
                "the file with a certificate if clients are to show theirs",
            ),
        }
    }

    /// What to log: the setting, else `RUST_LOG`, else `info`.
    pub(super) fn log_filter(&self) -> Result<String, Failure> {
        match &self.log {
            Some(filter) => Ok(filter.clone()),
            None => environment::log_filter("info"),
        }
    }
}

/// Serves until SIGTERM or SIGINT. `args` are those of the process, to name a bad setting as it was given.
pub(super) fn run(serve: ServeArgs, args: &[OsString]) -> Result<(), Failure> {
    let config = serve
        .config()
        .map_err(|error| out_of_limits(&error, args))?;
    logging::start(&serve.log_filter()?, serve.log_format);
    for unknown in environment::unknown(&Cli::command()) {
        log::warn!("{unknown}");
    }
    raise_file_limit(config.max_connections)?;
    allocator::share_heaps(config.workers);
    serve_until_stopped(config)
}

/// What the help of a setting says of a default that clap does not fill in.
pub(super) fn told_default(help: &str) -> Option<&str> {
    help.split_once("[default: ")?.1.strip_suffix(']')
}

/// That a setting is out of its limits, by the name with which it was given.
pub(super) fn out_of_limits(error: &ConfigError, args: &[OsString]) -> Failure {
    let flag = format!("--{}", error.setting.replace('_', "-"));
    let name = environment::spoken_name(&flag, &Cli::command(), args);
    Failure::Usage(format!(
        "{name} is {}, but must be {}",
        error.got, error.wants
    ))
}

/// Raises the soft limit of open files to what so many connections need.
fn raise_file_limit(max_connections: usize) -> Result<(), Failure> {
    let needed = max_connections as u64 + FILES_BESIDES_CONNECTIONS;
    let allowed = rlimit::increase_nofile_limit(needed).map_err(|error| {
        Failure::Failed(format!(
            "the limit of open files can't be raised to {needed}: {error}"
        ))
    })?;
    if allowed < needed {
        return Err(Failure::Failed(format!(
            "{max_connections} connections need {needed} open files, but this process may have {allowed}: raise its hard limit \
             (ulimit -Hn, LimitNOFILE=), or lower INFOTAINER_MAX_CONNECTIONS"
        )));
    }
    Ok(())
}

fn serve_until_stopped(config: Config) -> Result<(), Failure> {
    end_with_a_panic();
    let data_dir = config.data_dir.clone();
    let scheme = if config.tls.is_some() { "wss" } else { "ws" };
    let signals = Signals::new()?;
    let server = Server::start(config).map_err(|error| match error {
        StartError::Config(_) | StartError::Tls(_) | StartError::Credentials(_) => {
            Failure::Usage(error.to_string())
        }
        _ => Failure::Failed(error.to_string()),
    })?;
    let signals = signals.all()?;
    // Whoever started it may not listen; the server is there all the same.
    let _ = announce(
        &mut io::stdout(),
        &format!("{scheme}://{}/ws", server.address()),
        server.metrics_address(),
        &data_dir,
        server.report(),
    );
    signals.serve(server)
}

/// A panic anywhere ends the process: a half-dead server is worse than a restarted one, and a restart loses nothing that was
/// acknowledged. Spared is what the data log contains: the catalogue can be made again.
fn end_with_a_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic_is_contained() {
            log::warn!("contained in the catalogue: {panic}");
            return;
        }
        report(panic);
        std::process::exit(FAILED_BY_A_DEFECT);
    }));
}

/// Says on `out` that the server is there, and what to do with it.
fn announce(
    out: &mut dyn Write,
    url: &str,
    metrics: Option<SocketAddr>,
    data_dir: &Path,
    recovered: &dyn Display,
) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    // What a person can look for, where it can be told.
    let data_dir = data_dir
        .canonicalize()
        .unwrap_or_else(|_| data_dir.to_owned());
    writeln!(out, "infotainer {version} listens on {url}")?;
    if let Some(metrics) = metrics {
        writeln!(out, "metrics:   http://{metrics}/metrics")?;
    }
    writeln!(out, "data:      {}", data_dir.display())?;
    let mut label = "recovered:";
    for line in recovered.to_string().lines() {
        writeln!(out, "{label:10} {line}")?;
        label = "";
    }
    let there = match url {
        DEFAULT_SERVER => String::new(),
        _ => format!(" --server {url}"),
    };
    writeln!(
        out,
        "next:      infotainer sub greetings{there}, and in another terminal infotainer pub greetings hello{there}; Ctrl-C stops"
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use infotainer::config::{Credentials, Given};

    use super::*;
    use crate::cli::connect::ServerArgs;

    /// The settings that the variables of this process do not touch.
    fn serve_with(args: &[&str]) -> ServeArgs {
        let command = ServeArgs::augment_args(clap::Command::new("serve"))
            .mut_args(|arg| arg.env(None::<&str>));
        let mut matches = command
            .try_get_matches_from([&["serve"], args].concat())
            .unwrap();
        ServeArgs::from_arg_matches_mut(&mut matches).unwrap()
    }

    #[test]
    fn the_start_says_where_it_listens_where_its_data_lies_what_it_recovered_and_what_to_try() {
        let mut said = Vec::new();
        announce(
            &mut said,
            "ws://127.0.0.1:8949/ws",
            Some("127.0.0.1:9090".parse().unwrap()),
            Path::new("/nowhere/data"),
            &"3 logs\n7 bytes were cut",
        )
        .unwrap();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(
            said.lines().collect::<Vec<_>>(),
            [
                concat!(
                    "infotainer ",
                    env!("CARGO_PKG_VERSION"),
                    " listens on ws://127.0.0.1:8949/ws"
                ),
                "metrics:   http://127.0.0.1:9090/metrics",
                "data:      /nowhere/data",
                "recovered: 3 logs",
                "           7 bytes were cut",
                "next:      infotainer sub greetings, and in another terminal infotainer pub greetings hello; Ctrl-C stops",
            ]
        );
    }

    #[test]
    fn readme_lists_exactly_the_variables_with_their_defaults() {
        let command = ServerArgs::augment_args(ServeArgs::augment_args(clap::Command::new("")));
        let settings = command.get_arguments().filter_map(|arg| {
            let variable = arg.get_env()?.to_str()?.to_owned();
            let default = match arg.get_default_values() {
                [] => told_default(&arg.get_help()?.to_string())?.to_owned(),
                [default, ..] => format!("`{}`", default.to_str()?),
            };
            Some((variable, default))
        });
        let rows = include_str!("../../README.md").lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| `INFOTAINER_")?.split(" | ");
            let name = format!("INFOTAINER_{}", cells.next()?.strip_suffix('`')?);
            Some((name, cells.next()?.to_owned()))
        });
        assert_eq!(rows.collect::<Vec<_>>(), settings.collect::<Vec<_>>());
    }

    #[test]
    fn without_settings_the_defaults_hold() {
        assert_eq!(serve_with(&[]).config().unwrap(), Config::default());
    }

    #[test]
    fn a_certificate_has_a_key_and_a_key_has_a_certificate() {
        for (args, missing) in [
            (&["--tls-cert=c"][..], "tls_key"),
            (&["--tls-key=k"], "tls_cert"),
            (&["--tls-client-ca=a"], "tls_cert"),
            (&["--tls-client-ca=a", "--tls-cert=c"], "tls_key"),
        ] {
            let error = serve_with(args).config().unwrap_err();
            assert_eq!((error.setting, &*error.got), (missing, "not set"));
        }
    }

    #[test]
    fn every_setting_reaches_the_config() {
        let serve = serve_with(&[
            "--listen=[::1]:1",
            "--metrics-listen=127.0.0.1:19",
            "--data-dir=d",
            "--durability=Written",
            "--max-message-size=1MiB",
            "--max-connections=2",
            "--max-subscriptions-per-session=3",
            "--max-subscriptions=4",
            "--max-sessions=5",
            "--handshake-timeout=6s",
            "--heartbeat-interval=7s",
            "--heartbeat-timeout=8s",
            "--write-timeout=9s",
            "--shutdown-timeout=10m",
            "--session-expiry=11d",
            "--allowed-origins=*",
            "--tls-cert=c",
            "--tls-key=k",
            "--tls-client-ca=a",
            "--retention-max-publications=12",
            "--retention-max-bytes=13KiB",
            "--retention-max-age=14ms",
            "--memory-log=15MiB",
            "--journal-size=18MiB",
            "--outbox-size=16MiB",
            "--max-connections-per-address=19",
            "--connection-rate-messages=20",
            "--connection-rate-bytes=21KiB",
            "--identity-rate-messages=22",
            "--identity-rate-bytes=23KiB",
            "--identity-max-connections=24",
            "--identity-max-subscriptions=25",
            "--identity-max-log-bytes=26KiB",
            "--workers=17",
            "--jwt-secret=0123456789abcdef0123456789abcdef",
            "--jwt-public-key-file=public.pem",
            "--jwks-file=jwks.json",
            "--jwt-audience=a",
            "--jwt-issuer=i",
            "--api-keys-file=keys.json",
        ]);
        let expected = Config {
            listen: "[::1]:1".parse().unwrap(),
            metrics_listen: Some("127.0.0.1:19".parse().unwrap()),
            data_dir: "d".into(),
            durability: Durability::Written,
            max_message_size: 1 << 20,
            max_connections: 2,
            max_subscriptions_per_session: 3,
            max_subscriptions: 4,
            max_sessions: 5,
            handshake_timeout: Duration::from_secs(6),
            heartbeat_interval: Duration::from_secs(7),
            heartbeat_timeout: Duration::from_secs(8),
            write_timeout: Duration::from_secs(9),
            shutdown_timeout: Duration::from_secs(600),
            session_expiry: Duration::from_secs(11 * 24 * 60 * 60),
            allowed_origins: AllowedOrigins::Any,
            tls: Some(TlsFiles {
                certificate: "c".into(),
                key: "k".into(),
                client_ca: Some("a".into()),
            }),
            retention: Retention {
                max_publications: Some(12),
                max_bytes: Some(13 << 10),
                max_age: Some(14),
            },
            memory_log: 15 << 20,
            journal_size: 18 << 20,
            outbox_size: 16 << 20,
            limits: Limits {
                max_connections_per_address: Some(19),
                connection_rate: Rate {
                    messages: Some(20),
                    bytes: Some(21 << 10),
                },
                identity: IdentityLimits {
                    rate: Rate {
                        messages: Some(22),
                        bytes: Some(23 << 10),
                    },
                    max_connections: Some(24),
                    max_subscriptions: Some(25),
                    max_log_bytes: Some(26 << 10),
                },
            },
            workers: 17,
            credentials: Credentials {
                jwt_secret: Some(Given::Value("0123456789abcdef0123456789abcdef".into())),
                jwt_public_key: Some(Given::File("public.pem".into())),
                jwks_file: Some("jwks.json".into()),
                jwt_audience: Some("a".to_owned()),
                jwt_issuer: Some("i".to_owned()),
                api_keys_file: Some("keys.json".into()),
            },
            allow_anonymous: false,
        };
        assert_eq!(serve.config().unwrap(), expected);
    }
}
