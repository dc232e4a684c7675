//! The files of a server with TLS, and what a client trusts.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use infotainer::config::TlsFiles;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Authority, Pair, within};

/// A folder with the certificate of a server called `localhost`, and the authority that issued it.
pub struct Secured {
    /// Who issues.
    pub authority: Authority,
    dir: TempDir,
}

impl Secured {
    /// A fresh one.
    pub fn new() -> Self {
        let secured = Self {
            authority: Authority::new("a test"),
            dir: TempDir::new().unwrap(),
        };
        secured.renew();
        let ca = &secured.authority.certificate;
        fs::write(secured.path("ca.crt"), ca).unwrap();
        secured
    }

    /// Puts a new certificate in the place of the old one, and gives it.
    pub fn renew(&self) -> CertificateDer<'static> {
        let pair = self.authority.issue(&["localhost", "127.0.0.1"]);
        self.put(&pair);
        certificate(&pair.certificate)
    }

    /// Puts this pair in the place of the old one.
    pub fn put(&self, pair: &Pair) {
        fs::write(self.path("tls.crt"), &pair.certificate).unwrap();
        fs::write(self.path("tls.key"), &pair.key).unwrap();
    }

    /// A file in the folder: `tls.crt`, `tls.key`, or `ca.crt` of the authority.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the server finds its pair.
    pub fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
            client_ca: None,
        }
    }

    /// What a client trusts that trusts the authority.
    pub fn roots(&self) -> RootCertStore {
        roots(&self.authority)
    }

    /// A client that trusts the authority.
    pub fn client(&self) -> Arc<ClientConfig> {
        trusting(&self.authority)
    }
}

/// A client that trusts this authority alone.
pub fn trusting(authority: &Authority) -> Arc<ClientConfig> {
    trusting_with(authority, None)
}

/// The same, and shows this certificate.
pub fn trusting_with(authority: &Authority, pair: Option<&Pair>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(authority));
    Arc::new(match pair {
        Some(Pair {
            certificate: chain,
            key,
        }) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config
                .with_client_auth_cert(vec![certificate(chain)], key)
                .unwrap()
        }
        None => config.with_no_client_auth(),
    })
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&authority.certificate)).unwrap();
    roots
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A TLS connection on which nothing was said yet.
pub async fn connect_over_tls(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    within("the TLS handshake", connector.connect(name, tcp)).await
}
