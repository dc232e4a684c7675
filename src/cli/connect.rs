//! The way of the commands of clients to their server: which one, how long to wait, and when to stop.
//!
//! The connection's task has a thread of its own: a command that waits for whoever reads its stdout answers the server's
//! heartbeats all the same.

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Args;
use infotainer::{
    client::{Builder, Client, ConnectionError, Status},
    protocol::{Secret, SessionId},
};
use rustls::ClientConfig;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use super::{
    Failure, environment,
    logging::{self, Format},
    progress::Notes,
    values,
};

/// Where a server listens that was not told anything else.
pub(super) const DEFAULT_SERVER: &str = "ws://127.0.0.1:8949/ws";

/// How long a connection may take to begin, if `--timeout` is not shorter.
const CONNECT: Duration = Duration::from_secs(10);

/// What every command of a client takes.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerArgs {
    /// The server's URL
    #[arg(long, env = "INFOTAINER_URL", value_name = "URL", value_parser = values::server)]
    #[arg(default_value = DEFAULT_SERVER)]
    server: String,

    #[command(flatten)]
    proofs: ProofArgs,

    /// How long to wait for an answer of the server
    #[arg(long, value_name = "DURATION", value_parser = values::duration, default_value = "30s")]
    timeout: Duration,
}

/// Whom a command of a client trusts, and by what it proves who it is.
#[derive(Args, Clone, Debug)]
pub(super) struct ProofArgs {
    /// Trust servers with a certificate issued by one of these, in PEM (wss://) [default: those that the system trusts]
    #[arg(long, env = "INFOTAINER_CA", value_name = "FILE")]
    ca: Option<PathBuf>,

    #[command(flatten)]
    certificate: ClientCertificateArgs,

    /// The token (JWT or API key) by which to prove who this is; others can see a flag, so give the variable or a file
    /// [default: none]
    #[arg(long, env = "INFOTAINER_TOKEN", value_name = "TOKEN", value_parser = values::secret)]
    #[arg(hide_env_values = true, conflicts_with = "token_file")]
    token: Option<Secret>,

    /// The file with that token; it is read again whenever a token is needed [default: none]
    #[arg(long, env = "INFOTAINER_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// What a command shows to a server that wants to see a certificate.
#[derive(Args, Clone, Debug)]
pub(super) struct ClientCertificateArgs {
    /// The certificate to show to a server that wants to see one, in PEM (TLS) [default: none]
    #[arg(
        long,
        env = "INFOTAINER_CLIENT_CERT",
        value_name = "FILE",
        requires = "client_key"
    )]
    client_cert: Option<PathBuf>,

    /// The private key of that certificate, in PEM [default: none]
    #[arg(
        long,
        env = "INFOTAINER_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_cert"
    )]
    client_key: Option<PathBuf>,
}

impl ServerArgs {
    /// The server's URL.
    pub(super) fn url(&self) -> &str {
        &self.server
    }

    /// A client that is connected, and comes back by itself if it loses the connection. `notes` are told when it does.
    pub(super) async fn connect(
        &self,
        session: Option<SessionId>,
        notes: &Notes,
    ) -> Result<Client, Failure> {
        let mut builder = Client::builder(&self.server)
            .connect_timeout(self.timeout.min(CONNECT))
            .request_timeout(self.timeout);
        if let Some(session) = session {
            builder = builder.session(session);
        }
        builder = self.proofs.certify(builder)?;
        if let Some(token) = &self.proofs.token {
            builder = builder.token(token.clone());
        } else if let Some(file) = &self.proofs.token_file {
            let file = file.clone();
            builder = builder.token_from(move || {
                let token = read_token(&file);
                async { token }
            });
        }
        let client = builder.connect().await.map_err(|error| {
            let failure = match error {
                ConnectionError::Io(error) => Failure::Failed(error.to_string()),
                error => error.into(),
            };
            failure.reworded(|sentence| format!("can't connect to {}: {sentence}", self.server))
        })?;
        tokio::spawn(tell(client.status(), notes.clone()));
        Ok(client)
    }
}

impl ClientCertificateArgs {
    /// `builder` with it, if there is one.
    pub(super) fn add(&self, builder: Builder) -> Result<Builder, Failure> {
        match (&self.client_cert, &self.client_key) {
            (Some(chain), Some(key)) => Ok(builder.client_certificate(read(chain)?, read(key)?)),
            _ => Ok(builder),
        }
    }
}

impl ProofArgs {
    /// `builder` with the certificates.
    fn certify(&self, mut builder: Builder) -> Result<Builder, Failure> {
        if let Some(ca) = &self.ca {
            builder = builder.certificate_authority(read(ca)?);
        }
        self.certificate.add(builder)
    }

    /// What handshakes of TLS begin with.
    ///
    /// # Errors
    /// If a file can't be read, or nobody can be trusted.
    pub(super) fn tls_config(&self) -> Result<ClientConfig, Failure> {
        let builder = self.certify(Client::builder("wss://localhost"))?;
        Ok(builder.tls_config()?)
    }

    /// The token for the next connection, if it needs one.
    ///
    /// # Errors
    /// If its file can't be read, in a sentence.
    pub(super) fn token(&self) -> Result<Option<Secret>, String> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(file)) => read_token(file).map(|token| Some(token.into())),
            (None, None) => Ok(None),
        }
    }
}

/// What stands in the file of a token, without the blanks round it.
fn read_token(file: &Path) -> Result<String, String> {
    match fs::read_to_string(file) {
        Ok(token) => Ok(token.trim().to_owned()),
        Err(error) => Err(format!("{} can't be read: {error}", file.display())),
    }
}

/// The file of a certificate or a key.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file)
        .map_err(|error| Failure::Usage(format!("{} can't be read: {error}", file.display())))
}

/// Tells when the connection is lost, and when it is there again; not of every attempt between.
async fn tell(mut status: watch::Receiver<Status>, notes: Notes) {
    let mut is_lost = false;
    while status.changed().await.is_ok() {
        let note = match &*status.borrow_and_update() {
            Status::Waiting { error, .. } if !is_lost => {
                is_lost = true;
                Some(format!("{error}; connecting again"))
            }
            Status::Connected(_) if is_lost => {
                is_lost = false;
                Some("connected again".to_owned())
            }
            _ => None,
        };
        if let Some(note) = note {
            notes.say(note);
        }
    }
}

/// Does `work` to its end.
pub(super) fn run(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    // What is worth a word is said anyway.
    logging::start(&environment::log_filter("warn")?, Format::Text);
    run_unlogged(work)
}

/// The same for work whose outcome says everything.
pub(super) fn run_unlogged(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("can't start: {error}")))?;
    let outcome = runtime.block_on(work);
    // A look-up of a host may take longer than anybody wants to wait.
    runtime.shutdown_background();
    outcome
}

/// The same for work that blocks. A signal sets what it is handed, and it ends soon then, having cleared up.
pub(super) fn run_blocking<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let mut done = None;
    run_unlogged(async {
        let mut stop = Stop::new()?;
        let is_stopped = Arc::new(AtomicBool::new(false));
        let asked = is_stopped.clone();
        let mut work = tokio::task::spawn_blocking(move || work(&asked));
        let outcome = tokio::select! {
            outcome = &mut work => outcome,
            () = stop.asked() => {
                is_stopped.store(true, Ordering::Relaxed);
                work.await
            }
        };
        done = Some(outcome.map_err(|error| Failure::Failed(error.to_string()))??);
        Ok(())
    })?;
    Ok(done.expect("invariant: work that did not fail has an outcome"))
}

/// Somebody's wish that the command ends: SIGINT or SIGTERM. Once there is one of these, the signals do nothing else.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::Failed(format!("can't listen to signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next such wish. May be dropped and called again.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Does what is left to do at the end; who asks once more does not want to wait for it.
    pub(super) async fn unless_asked<T>(&mut self, last: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            output = last => Some(output),
            () = self.asked() => None,
        }
    }
}
