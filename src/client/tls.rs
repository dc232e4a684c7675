//! Whom a client trusts over `wss://`, and what it says when it does not.
//!
//! Owns certificates on the client's side. Does not own the handshake itself: rustls does, by way of tokio-tungstenite.

use std::{fmt, io, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::ConnectionError;

/// What the application says about certificates.
#[derive(Clone, Default)]
pub(super) struct Tls {
    /// Certificates in PEM that are trusted in place of the system's.
    pub(super) authorities: Option<Vec<u8>>,
    /// The client's own certificate and its key, in PEM.
    pub(super) own: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    /// The key is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities.is_some())
            .field("own", &self.own.is_some())
            .finish()
    }
}

impl Tls {
    /// What handshakes begin with. Reads the system's certificates, unless others are trusted.
    ///
    /// # Errors
    /// If something that the application gave can't be used, or the system trusts nobody.
    pub(super) fn config(&self) -> Result<ClientConfig, ConnectionError> {
        let roots = match &self.authorities {
            Some(pem) => given(pem)?,
            None => of_the_system()?,
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConnectionError::Tls(error.to_string()))?
            .with_root_certificates(roots);
        let Some((chain, key)) = &self.own else {
            return Ok(config.with_no_client_auth());
        };
        let chain = certificates(chain).ok_or_else(|| wrong("the client's certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| wrong("the key of the client's certificate"))?;
        config
            .with_client_auth_cert(chain, key)
            .map_err(|error| match error {
                Error::InconsistentKeys(_) => ConnectionError::Tls(
                    "the client's key is not that of its certificate".to_owned(),
                ),
                error => {
                    ConnectionError::Tls(format!("the client's certificate can't be used: {error}"))
                }
            })
    }
}

fn wrong(what: &str) -> ConnectionError {
    ConnectionError::Tls(format!("{what} is not in PEM"))
}

/// At least one.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.ok().filter(|found| !found.is_empty())
}

fn given(pem: &[u8]) -> Result<RootCertStore, ConnectionError> {
    let what = "the certificate that is to be trusted";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).ok_or_else(|| wrong(what))? {
        roots
            .add(certificate)
            .map_err(|error| ConnectionError::Tls(format!("{what} can't be used: {error}")))?;
    }
    Ok(roots)
}

fn of_the_system() -> Result<RootCertStore, ConnectionError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("a certificate of the system can't be read: {error}");
    }
    let mut roots = RootCertStore::empty();
    // Some systems trust what no one can read; that is not the application's fault.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let none =
            "the system trusts no certificate authority: is the package ca-certificates there?";
        return Err(ConnectionError::Tls(none.to_owned()));
    }
    Ok(roots)
}

/// What TLS has against a connection, if `error` comes from it.
pub(super) fn objection(error: &io::Error) -> Option<ConnectionError> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(ConnectionError::Tls(sentence(error)))
}

/// A name as a person writes it: rustls tells what kind it is, too, such as in `DnsName("example.com")`.
fn bare(name: &str) -> &str {
    match name.split_once('(') {
        Some((_, name)) => name.trim_end_matches(')').trim_matches('"'),
        None => name,
    }
}

fn sentence(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => {
                "the server's certificate was issued by nobody who is trusted here; an authority of one's own is given with --ca (in a program, \
                 with Builder::certificate_authority)"
                    .to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has run out".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet".to_owned()
            }
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => format!(
                "the server's certificate is not for {} but for {}",
                expected.to_str(),
                presented
                    .iter()
                    .map(|name| bare(name))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            error => format!("the server's certificate can't be trusted: {error}"),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS there: is its URL ws:// and not wss://?".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server lets in only clients with a certificate".to_owned()
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied,
        ) => "the server does not accept the client's certificate".to_owned(),
        error => error.to_string(),
    }
}
