//! The whole server: starts its parts in order, and stops them in order.
//!
//! ```text
//!  start: bind -> open the data log (lock, catalogue, replay) -> actors -> workers -> accept
//!  stop:  accept no more -> read no more -> commit and answer what was taken -> close connections (1001) -> write their cursors
//!         -> sync, mark as closed, unlock
//! ```

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix::{Actor, Addr, Arbiter, Recipient, SyncArbiter, System};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    access::{Authenticator, CredentialsError},
    actors::{
        commands::Commands,
        data_logger::{CloseLog, DataLogger},
        hub::{CloseAll, Hub, StopReading},
        log_reader::{CommittedIds, LogFetcher},
        messages::Disconnected,
        neighbours::Neighbours,
        pubsub_service::{
            CommitFailed, CredentialsChanged, Drain, PubSubService, SpaceChanged, StopAccepting,
        },
    },
    backup::Socket,
    certificates::{CertificateError, Certificates},
    config::{Config, ConfigError},
    datalog::{
        self, DataLog, Event, Freezer, LogReader, OpenError, Recovered, RecoveryReport, WriteError,
    },
    domain::{
        Broker, BrokerLimits, Defaults,
        broker::{Quotas, RestoredState},
    },
    http::{self, Backend, Otherwise, Readers},
    memory,
    metrics::{self, Metrics, Pulse, Reason},
    protocol::{Limits, Timestamp},
    reload::Reloads,
};

/// Connections that wait to be accepted: enough for all clients of a server that restarts to come back at once.
const BACKLOG: u32 = 4096;

/// A start that takes no longer tells nobody that it is under way: who connects meanwhile waits, and is served.
const SHORT_START: Duration = Duration::from_millis(200);

/// Starts servers.
///
/// # Examples
/// ```no_run
/// use infotainer::{Config, Server};
///
/// let server = Server::start(Config::default())?;
/// println!("listening on {}", server.address());
/// server.stop()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server;

/// A server that runs on threads of its own. It goes on when this is dropped.
#[derive(Debug)]
pub struct RunningServer {
    started: Started,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), StopError>>,
}

/// What is known of a server once it runs.
#[derive(Debug)]
struct Started {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    report: RecoveryReport,
    health: Recipient<Pulse>,
    reloads: Reloads,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The files for TLS can't be used.
    #[error("TLS: {0}")]
    Tls(#[from] CertificateError),
    /// The credentials can't be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The data directory can't be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The operating system gave no thread.
    #[error("can't start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// What went wrong at the end. Whatever was acknowledged is on disk all the same.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The last sync failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A part of the server was gone already.
    #[error("the server ended before it was stopped")]
    Gone,
}

impl Server {
    /// Opens the data directory and listens. Returns when connections are accepted.
    ///
    /// # Errors
    /// If a setting is out of its range, the data directory can't be used, or the address can't be listened on.
    pub fn start(config: Config) -> Result<RunningServer, StartError> {
        config.validate()?;
        let (ready, is_ready) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("infotainer".to_owned())
            .spawn(move || {
                System::new().block_on(async move {
                    match Parts::start(config).await {
                        Ok((parts, started)) => {
                            // Whoever started the server may have gone: then it runs until the process ends.
                            let _ = ready.send(Ok(started));
                            if stopped.await.is_err() {
                                std::future::pending::<()>().await;
                            }
                            parts.stop().await
                        }
                        Err(error) => {
                            let _ = ready.send(Err(error));
                            Ok(())
                        }
                    }
                })
            })
            .map_err(StartError::Thread)?;
        let started = is_ready
            .recv()
            .expect("invariant: the thread says how the start went")?;
        Ok(RunningServer {
            started,
            stop,
            thread,
        })
    }
}

impl RunningServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.started.address
    }

    /// Where it serves its metrics, if that is an address of their own.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.started.metrics_address
    }

    /// What the start found in the data directory.
    pub fn report(&self) -> &RecoveryReport {
        &self.started.report
    }

    /// Ends the server in order, and waits for it: what was accepted is committed and answered, connections are closed with 1001.
    ///
    /// # Errors
    /// If the last sync failed.
    pub fn stop(self) -> Result<(), StopError> {
        let Self { stop, thread, .. } = self;
        if stop.send(()).is_err() {
            return Err(StopError::Gone);
        }
        thread.join().unwrap_or(Err(StopError::Gone))
    }

    /// Reads again what lies in files and may change while the server runs. What can't be read stays as it was, and the log says so.
    /// Returns whether all of it could be read. Blocks for as long as reading files does.
    pub fn reload(&self) -> bool {
        self.started.reloads.run()
    }

    /// Waits until the server's centre answers, in whatever state the data log is. `false` if it is gone; whoever asks says how long that
    /// may take. Needs no runtime of its own.
    pub async fn answers(&self) -> bool {
        self.started.health.send(Pulse).await.is_ok()
    }
}

/// What has to be stopped.
struct Parts {
    actors: Actors,
    accepting: actix_server::ServerHandle,
    /// None: the file system has no sockets.
    backups: Option<Socket>,
}

/// What opening the data log came to.
struct Opened {
    actors: Actors,
    backend: Backend,
    report: RecoveryReport,
    freezer: Freezer,
}

/// The actors that need no connections.
struct Actors {
    config: Arc<Config>,
    pubsub: Addr<PubSubService>,
    logger: Addr<DataLogger>,
    arbiters: [Arbiter; 2],
}

impl Parts {
    async fn start(config: Config) -> Result<(Self, Started), StartError> {
        let config = Arc::new(config);
        let mut reloads = Reloads::default();
        let authenticator = Arc::new(Authenticator::new(config.credentials.clone())?);
        let certificates = config.tls.clone().map(Certificates::load).transpose()?;
        let certificates = certificates.map(Arc::new);
        if let Some(certificates) = certificates.clone() {
            reloads.register("the certificate", move || certificates.reload());
        }
        let metrics = Arc::new(Metrics::new(
            config.data_dir.clone(),
            config.max_connections,
            Arc::clone(authenticator.failures()),
        ));
        let (listener, address) = listen(config.listen)?;
        let metrics_address = match config.metrics_listen {
            Some(address) => Some(serve_metrics(address, &metrics)?),
            None => None,
        };
        let opening = Self::open(&config, authenticator.clone(), &metrics);
        let probes = Probes {
            listener: &listener,
            certificates: certificates.clone(),
            readers: Readers::beside(config.metrics_listen),
            metrics: Arc::clone(&metrics),
        };
        let Opened {
            actors,
            backend,
            report,
            freezer,
        } = probes.beside(opening).await?;
        let health = actors.pubsub.clone().recipient();
        if !authenticator.is_open() {
            let pubsub = actors.pubsub.clone();
            reloads.register("the credentials", move || {
                let now = authenticator.reload()?;
                // Without waiting: whoever reloads does so now and then.
                pubsub.do_send(CredentialsChanged);
                Ok::<_, CredentialsError>(now)
            });
        }
        let server = match http::serve::<Commands>(listener, certificates.clone(), &config, backend)
        {
            Ok(server) => server,
            Err(source) => {
                end(actors.arbiters);
                return Err(StartError::Listen { address, source });
            }
        };
        let accepting = server.handle();
        actix::spawn(async move {
            if let Err(error) = server.await {
                log::error!("the listener ended: {error}");
            }
        });
        let backups = Socket::listen(&config.data_dir, freezer)
            .inspect_err(|error| {
                log::warn!(
                    "no backup can be made while the server runs: its socket can't be made: {error}"
                );
            })
            .ok();
        if let Some(certificates) = certificates {
            actix::spawn(async move { certificates.watch().await });
        }
        metrics.health.set(Reason::Recovering, false);
        let started = Started {
            address,
            metrics_address,
            report,
            health,
            reloads,
        };
        let parts = Self {
            actors,
            accepting,
            backups,
        };
        Ok((parts, started))
    }

    /// Opens the data log, and starts the actors that need no connections. Returns when all of them do their work.
    async fn open(
        config: &Arc<Config>,
        authenticator: Arc<Authenticator>,
        metrics: &Arc<Metrics>,
    ) -> Result<Opened, StartError> {
        let events = Arc::new(LogEvents::new(Arc::clone(metrics)));
        let options = log_options(config, Arc::clone(&events));
        // On a thread of its own, since this one answers who asks how the server is.
        let opened = match spawn_blocking(move || DataLog::open(options)).await {
            Ok(opened) => opened,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let (log, recovered) = opened?;
        let report = recovered.report.clone();
        metrics.opened(report.clone(), log.journals());
        let (reader, space, freezer) = (log.reader(), log.space(), log.freezer());
        let threads = thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4));
        let fetchers = {
            let reader = reader.clone();
            SyncArbiter::start(threads, move || LogFetcher::new(reader.clone()))
        };
        let arbiters = [Arbiter::new(), Arbiter::new()];
        let logger = {
            let metrics = Arc::clone(metrics);
            DataLogger::start_in_arbiter(&arbiters[0].handle(), move |_| {
                DataLogger::new(log, metrics)
            })
        };
        let pubsub = {
            let (config, metrics) = (Arc::clone(config), Arc::clone(metrics));
            let (logger, fetchers) = (logger.clone(), fetchers.clone());
            PubSubService::start_in_arbiter(&arbiters[1].handle(), move |_| {
                let broker = broker(&config, recovered, reader);
                memory::give_back();
                PubSubService::new(broker, space, logger, fetchers, metrics)
            })
        };
        events.go_to(&pubsub);
        metrics.watch_broker(pubsub.clone().recipient(), pubsub.clone().recipient());
        metrics.health.add("DataLogger", logger.clone().recipient());
        let backend = Backend {
            authenticator,
            neighbours: Neighbours::new(&pubsub, &fetchers),
            releasers: [logger.clone().recipient(), pubsub.clone().recipient()],
            metrics: Arc::clone(metrics),
        };
        // It is there when what was stored is in its tables; without it, who connects finds that out.
        let _ = pubsub.send(Pulse).await;
        actix::spawn(metrics::watch(Arc::clone(metrics)));
        let actors = Actors {
            config: Arc::clone(config),
            pubsub,
            logger,
            arbiters,
        };
        Ok(Opened {
            actors,
            backend,
            report,
            freezer,
        })
    }

    /// Each step waits for the one before; a step whose actor is gone is skipped, since there is nothing left to do.
    async fn stop(self) -> Result<(), StopError> {
        let Self {
            actors,
            accepting,
            backups,
        } = self;
        let Actors {
            config,
            pubsub,
            logger,
            arbiters,
        } = actors;
        let limit = config.shutdown_timeout;
        let hubs: Vec<Addr<Hub>> = pubsub.send(StopAccepting).await.unwrap_or_default();
        accepting.pause().await;
        if let Some(backups) = backups {
            backups.stop().await;
        }
        for hub in &hubs {
            let _ = hub.send(StopReading).await;
        }
        if timeout(limit, pubsub.send(Drain)).await.is_err() {
            log::warn!(
                "not everything that was accepted could be committed in {limit:?}; it was not acknowledged"
            );
        }
        let closing: Vec<_> = hubs
            .iter()
            .map(|hub| hub.send(CloseAll { timeout: limit }))
            .collect();
        for closed in closing {
            for (connection, handed) in closed.await.unwrap_or_default() {
                pubsub.do_send(Disconnected { connection, handed });
            }
        }
        if timeout(limit, pubsub.send(Drain)).await.is_err() {
            log::warn!(
                "not every cursor could be written in {limit:?}; some publications will be delivered again"
            );
        }
        let closed = logger.send(CloseLog).await;
        accepting.stop(false).await;
        end(arbiters);
        System::current().stop();
        closed
            .map_err(|_| StopError::Gone)?
            .map_err(StopError::from)
    }
}

/// Serves the metrics at an address of their own, from now on until the thread ends; returns where that is.
fn serve_metrics(address: SocketAddr, metrics: &Arc<Metrics>) -> Result<SocketAddr, StartError> {
    let (listener, address) = listen(address)?;
    let metrics = Arc::clone(metrics);
    actix::spawn(async move {
        let readers = Readers::Everybody;
        http::serve_status(&listener, None, metrics, readers, Otherwise::NotFound).await
    });
    Ok(address)
}

/// Who answers on the port of the clients before there are workers.
struct Probes<'a> {
    listener: &'a TcpListener,
    certificates: Option<Arc<Certificates>>,
    readers: Readers,
    metrics: Arc<Metrics>,
}

impl Probes<'_> {
    /// Waits for a start. If it takes a while, who asks meanwhile how the server is gets an answer, and everybody else that it is not ready.
    async fn beside<T>(self, start: impl Future<Output = T>) -> T {
        let mut start = pin!(start);
        if let Ok(started) = timeout(SHORT_START, &mut start).await {
            return started;
        }
        let Self {
            listener,
            certificates,
            readers,
            metrics,
        } = self;
        let answering =
            http::serve_status(listener, certificates, metrics, readers, Otherwise::NotYet);
        tokio::select! {
            biased;
            started = start => started,
            never = answering => match never {},
        }
    }
}

/// Ends the threads of these arbiters, and the actors on them. The system would not: it ends before it could.
fn end(arbiters: [Arbiter; 2]) {
    for arbiter in &arbiters {
        arbiter.stop();
    }
    for arbiter in arbiters {
        // A panic there has been told where it happened.
        let _ = arbiter.join();
    }
}

fn log_options(config: &Config, events: Arc<LogEvents>) -> datalog::Options {
    datalog::Options {
        journal_size: config.journal_size,
        events: Arc::new(move |event| events.tell(event)),
        ..datalog::Options::new(&config.data_dir)
    }
}

/// On their way from the data log, which begins to work before there is anybody to tell.
struct LogEvents {
    metrics: Arc<Metrics>,
    to: Mutex<(Option<Addr<PubSubService>>, Vec<Event>)>,
}

impl LogEvents {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            to: Mutex::default(),
        }
    }

    fn tell(&self, event: Event) {
        let background = &self.metrics.background;
        match event {
            Event::Sealed(time) => background.seal.add_time(time),
            Event::Merged => background.merges.add(1),
            Event::Stored(stored) => *background.stored.lock() = stored,
            // It is logged, and whoever reads there is told.
            Event::Damage(_) => background.damage.add_one(),
            Event::SpaceChanged(_) | Event::Failed(_) => self.pass_on(event),
        }
    }

    fn pass_on(&self, event: Event) {
        let (pubsub, waiting) = &mut *self.to.lock();
        match pubsub {
            Some(pubsub) => forward(event, pubsub),
            None => waiting.push(event),
        }
    }

    /// What waits goes first.
    fn go_to(&self, address: &Addr<PubSubService>) {
        let (pubsub, waiting) = &mut *self.to.lock();
        for event in waiting.drain(..) {
            forward(event, address);
        }
        *pubsub = Some(address.clone());
    }
}

fn forward(event: Event, pubsub: &Addr<PubSubService>) {
    // Rare: at most one for each journal that fills up, and one at the end.
    match event {
        Event::SpaceChanged(space) => pubsub.do_send(SpaceChanged(space)),
        Event::Failed(_) => pubsub.do_send(CommitFailed {
            batch: None,
            was_written: false,
        }),
        Event::Damage(_) | Event::Sealed(_) | Event::Merged | Event::Stored(_) => {}
    }
}

fn broker(config: &Config, recovered: Recovered, reader: LogReader) -> Broker {
    let Recovered {
        state,
        logs,
        next_log,
        uncertain,
        unclean_boot,
        ..
    } = recovered;
    let restored = RestoredState {
        entries: state,
        logs,
        next_log,
        uncertain,
        unclean_boot,
    };
    let limits = BrokerLimits {
        defaults: Defaults {
            durability: config.durability,
            retention: config.retention,
        },
        max_subscriptions: config.max_subscriptions,
        max_sessions: config.max_sessions,
        session_expiry: millis(config.session_expiry),
        outbox_size: config.outbox_size as u64,
        memory_log: config.memory_log,
        quotas: Quotas {
            connections: config.limits.identity.max_connections,
            subscriptions: config.limits.identity.max_subscriptions,
            log_bytes: config.limits.identity.max_log_bytes,
        },
        limits: Limits {
            max_message_size: config.max_message_size as u64,
            max_subscriptions: config.max_subscriptions_per_session as u64,
            heartbeat_interval: millis(config.heartbeat_interval),
            heartbeat_timeout: millis(config.heartbeat_timeout),
        },
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Broker::new(
        limits,
        restored,
        Box::new(CommittedIds(reader)),
        Timestamp(millis(now)),
    )
}

/// Listens at `address`; returns where that is.
fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen().map_err(|source| StartError::Listen { address, source })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
