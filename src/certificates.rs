//! The certificate that the server shows, and whom it lets in by theirs.
//!
//! Owns reading the files, judging what they hold, and looking whether they were changed. Does not own handshakes: those take what is current
//! when they begin, so that a change drops no connection.
//!
//! Invariant: what is current was whole. A pair that can't be read, or does not belong together, changes nothing.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    CertificateError as Judgement, Error, InconsistentKeys, RootCertStore, ServerConfig,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem, pem::PemObject},
    server::{NoClientAuth, ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::TlsFiles;

/// How often the files are looked at. Two looks that see the same change take it up, so that a pair of which one file is new is not.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// From so long before its end on, a certificate that is read is warned of.
const NEAR_END: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The only protocol that is spoken over a connection.
const HTTP: &[u8] = b"http/1.1";

/// Why files can't be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file can't be read.
    #[error("the {what} {} can't be read: {source}", .file.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what}{hint}", .file.display())]
    Missing {
        /// What it should hold.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What may help, behind a comma.
        hint: &'static str,
    },
    /// What a file holds can't be used.
    #[error("the {what} {} can't be used: {why}", .file.display())]
    Unusable {
        /// What it holds.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// The key is of another certificate.
    #[error("the private key {} is not that of the certificate {}", .key.display(), .certificate.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
}

impl TlsFiles {
    /// Reads the files and judges what they hold, as a start does. Gives what somebody should know though it hinders no start.
    ///
    /// # Errors
    /// If a server would not start on them.
    pub fn check(&self) -> Result<Option<String>, CertificateError> {
        let read = Read::from(self)?;
        Ok(read.warning(self, SystemTime::now()))
    }
}

/// What handshakes begin with.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    /// The files when they were last read, whatever came of it.
    read: Traces,
    /// And when they were last looked at.
    seen: Traces,
    valid_until: Option<SystemTime>,
}

/// By what a change of a file shows: of the one that a symbolic link leads to. `None` is a file that is not there.
type Traces = Vec<Option<(u64, u64, i64, i64, u64)>>;

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// If they can't be used.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, CertificateError> {
        let traces = traces(&files);
        let read = Read::from(&files)?;
        if let Some(warning) = read.warning(&files, SystemTime::now()) {
            log::warn!("{warning}");
        }
        Ok(Self {
            watched: Mutex::new(Watched {
                seen: traces.clone(),
                read: traces,
                valid_until: read.valid_until,
            }),
            current: ArcSwap::from_pointee(read.config),
            files,
        })
    }

    /// What a handshake begins with.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files again. Connections that are there go on with what they began with. Gives what is current now.
    ///
    /// # Errors
    /// If they can't be used: then everything is as before.
    pub(crate) fn reload(&self) -> Result<String, CertificateError> {
        // In front of reading: a change that comes meanwhile is seen by the next look.
        let traces = traces(&self.files);
        let mut watched = self.watched.lock();
        watched.read.clone_from(&traces);
        watched.seen = traces;
        let read = Read::from(&self.files)?;
        if let Some(warning) = read.warning(&self.files, SystemTime::now()) {
            log::warn!("{warning}");
        }
        watched.valid_until = read.valid_until;
        let until = read.valid_until.map_or(String::new(), |until| {
            format!(", valid until {}", humantime::format_rfc3339_seconds(until))
        });
        self.current.store(Arc::new(read.config));
        Ok(format!("{}{until}", self.files.certificate.display()))
    }

    /// Looks at the files for ever, and takes up what has changed.
    pub(crate) async fn watch(&self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look(SystemTime::now());
        }
    }

    fn look(&self, now: SystemTime) {
        let traces = traces(&self.files);
        let mut watched = self.watched.lock();
        let is_settled = traces == watched.seen;
        let is_new = is_settled && traces != watched.read;
        watched.seen = traces;
        if watched.valid_until.is_some_and(|until| until < now) && !is_new {
            // Once.
            watched.valid_until = None;
            log::error!(
                "the certificate {} has run out: clients refuse it",
                self.files.certificate.display()
            );
        }
        drop(watched);
        if is_new {
            match self.reload() {
                Ok(now) => log::info!("the certificate was changed: {now}"),
                Err(error) => log::error!(
                    "the certificate was changed and can't be taken up, the old one stays: {error}"
                ),
            }
        }
    }
}

/// What the files hold.
struct Read {
    config: ServerConfig,
    valid_from: Option<SystemTime>,
    valid_until: Option<SystemTime>,
}

impl Read {
    fn from(files: &TlsFiles) -> Result<Self, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates("certificate", &files.certificate)?;
        let key = private_key(&files.key)?;
        let clients: Arc<dyn ClientCertVerifier> = match &files.client_ca {
            Some(file) => clients_of(file, &provider)?,
            None => Arc::new(NoClientAuth),
        };
        let first = &chain[0];
        let unusable = |error: Error| CertificateError::Unusable {
            what: "certificate",
            file: files.certificate.clone(),
            why: error.to_string(),
        };
        let parsed = ParsedCertificate::try_from(first).map_err(unusable)?;
        let (valid_from, valid_until) = (
            beginning(&parsed, &provider).map(system_time),
            end(&parsed, &provider).map(system_time),
        );
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    CertificateError::Mismatch {
                        certificate: files.certificate.clone(),
                        key: files.key.clone(),
                    }
                }
                error => CertificateError::Unusable {
                    what: "private key",
                    file: files.key.clone(),
                    why: error.to_string(),
                },
            })?;
        config.alpn_protocols = vec![HTTP.to_vec()];
        // Who comes back need not be shown a signature again. Keys of tickets live as long as what was read: after a change nobody comes in
        // with a ticket of before, who might not come in now.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(unusable)?;
        Ok(Self {
            config,
            valid_from,
            valid_until,
        })
    }

    /// Whether clients refuse the certificate now, or soon will.
    fn warning(&self, files: &TlsFiles, now: SystemTime) -> Option<String> {
        let file = files.certificate.display();
        let spelled = humantime::format_rfc3339_seconds;
        match (self.valid_from, self.valid_until) {
            (Some(from), _) if now < from => Some(format!(
                "the certificate {file} is not valid before {}: clients refuse it",
                spelled(from)
            )),
            (_, Some(until)) if until < now => Some(format!(
                "the certificate {file} ran out at {}: clients refuse it",
                spelled(until)
            )),
            (_, Some(until)) if until < now + NEAR_END => Some(format!(
                "the certificate {file} runs out at {}",
                spelled(until)
            )),
            _ => None,
        }
    }
}

fn read(what: &'static str, file: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(file).map_err(|source| CertificateError::Read {
        what,
        file: file.to_owned(),
        source,
    })
}

/// At least one.
fn certificates(
    what: &'static str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let bytes = read(what, file)?;
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(CertificateError::Missing {
            what,
            file: file.to_owned(),
            hint: " in PEM (-----BEGIN CERTIFICATE-----)",
        }),
        Err(_) => Err(no_pem(what, file)),
    }
}

/// The reasons in detail are lists of bytes.
fn no_pem(what: &'static str, file: &Path) -> CertificateError {
    CertificateError::Unusable {
        what,
        file: file.to_owned(),
        why: "it is damaged, or not in PEM".to_owned(),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let what = "private key";
    let bytes = read(what, file)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => CertificateError::Missing {
            what,
            file: file.to_owned(),
            hint: " in PEM (-----BEGIN PRIVATE KEY-----); one that is encrypted can't be used",
        },
        _ => no_pem(what, file),
    })
}

/// Lets in only clients whose certificates were issued by those in `file`.
fn clients_of(
    file: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let what = "client CA";
    let unusable = |why: String| CertificateError::Unusable {
        what,
        file: file.to_owned(),
        why,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, file)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| unusable(error.to_string()))
}

/// When a certificate becomes valid, if that is not long ago: what a client whose clock stands at 1970 is told about it.
fn beginning(certificate: &ParsedCertificate<'_>, provider: &CryptoProvider) -> Option<UnixTime> {
    let at = UnixTime::since_unix_epoch(Duration::ZERO);
    match judged(certificate, provider, at)? {
        Judgement::NotValidYetContext { not_before, .. } => Some(not_before),
        _ => None,
    }
}

/// When it runs out: what a client at the end of all times is told about it.
fn end(certificate: &ParsedCertificate<'_>, provider: &CryptoProvider) -> Option<UnixTime> {
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    match judged(certificate, provider, at)? {
        Judgement::ExpiredContext { not_after, .. } => Some(not_after),
        _ => None,
    }
}

/// What is wrong with a certificate at this time. Without anybody to trust there is always something; its times are looked at first.
fn judged(
    certificate: &ParsedCertificate<'_>,
    provider: &CryptoProvider,
    at: UnixTime,
) -> Option<Judgement> {
    let nobody = RootCertStore::empty();
    let algorithms = provider.signature_verification_algorithms.all;
    match verify_server_cert_signed_by_trust_anchor(certificate, &nobody, &[], at, algorithms) {
        Err(Error::InvalidCertificate(judgement)) => Some(judgement),
        _ => None,
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

fn traces(files: &TlsFiles) -> Traces {
    [&files.certificate, &files.key]
        .into_iter()
        .chain(&files.client_ca)
        .map(|file| {
            let of = fs::metadata(file).ok()?;
            Some((of.dev(), of.ino(), of.mtime(), of.mtime_nsec(), of.size()))
        })
        .collect()
}

#[cfg(test)]
mod tests;
