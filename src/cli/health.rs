//! `infotainer health`: asks the server that runs here how it is, for containers without another program that could.
//!
//! Owns one request of HTTP. Does not own what being in order means: the server's answer does.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use infotainer::client::Client;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{self, WebPkiSupportedAlgorithms, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time,
};
use tokio_rustls::TlsConnector;

use super::{
    Failure,
    connect::{self, ClientCertificateArgs},
    output::Output,
    values,
};

/// More than any answer has.
const LONGEST_ANSWER: u64 = 16 << 10;

/// Asks the server that runs here whether it is in order
///
/// It is found by the settings that it was started with. The exit code is 0 if it says that it is in order.
#[derive(Args, Debug)]
pub(super) struct HealthArgs {
    /// Where it listens
    #[arg(long, env = "INFOTAINER_LISTEN", value_name = "ADDRESS:PORT", value_parser = values::address)]
    #[arg(default_value = "127.0.0.1:8949")]
    listen: SocketAddr,

    /// The certificate that it has to show; without it, it is asked without TLS
    #[arg(long, env = "INFOTAINER_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    #[command(flatten)]
    certificate: ClientCertificateArgs,

    /// How long to wait for its answer
    #[arg(long, value_name = "DURATION", value_parser = values::duration, default_value = "5s")]
    timeout: Duration,
}

pub(super) fn run(args: HealthArgs) -> Result<(), Failure> {
    let tls = match &args.tls_cert {
        Some(shown) => Some(args.config(shown)?),
        None => None,
    };
    let address = reached(args.listen);
    connect::run_unlogged(async {
        let asked = time::timeout(args.timeout, ask(address, tls)).await;
        let answer = asked
            .map_err(|_| Failure::TimedOut(format!("{address} did not answer in time")))?
            .map_err(|error| Failure::Failed(format!("{address} can't be asked: {error}")))?;
        let said = judge(&answer)?;
        let mut out = Output::new();
        out.write(said.as_bytes())?;
        out.flush()
    })
}

impl HealthArgs {
    /// Trusts nobody but who shows the certificate in `shown`, whatever it is called: on this machine no name leads to it.
    fn config(&self, shown: &Path) -> Result<ClientConfig, Failure> {
        let certificate = CertificateDer::from_pem_slice(&connect::read(shown)?)
            .map_err(|_| Failure::Usage(format!("{} holds no certificate", shown.display())))?;
        let builder = self.certificate.add(Client::builder("wss://localhost"))?;
        // Whom that would trust does not matter, but there has to be somebody.
        let mut config = builder
            .certificate_authority(connect::read(shown)?)
            .tls_config()?;
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(Pinned {
                certificate,
                algorithms,
            }));
        Ok(config)
    }
}

/// How a server that listens there is reached from here.
fn reached(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The whole answer.
async fn ask(address: SocketAddr, tls: Option<ClientConfig>) -> io::Result<String> {
    let tcp = TcpStream::connect(address).await?;
    match tls {
        Some(config) => {
            let name = ServerName::from(address.ip());
            let connector = TlsConnector::from(Arc::new(config));
            request(address, connector.connect(name, tcp).await?).await
        }
        None => request(address, tcp).await,
    }
}

async fn request(
    address: SocketAddr,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<String> {
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    String::from_utf8(answer).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// What it says of itself, if that is good.
fn judge(answer: &str) -> Result<&str, Failure> {
    let no_answer = || Failure::Failed("what answers is no server of HTTP".to_owned());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(no_answer)?;
    let status = head.strip_prefix("HTTP/1.1 ").ok_or_else(no_answer)?;
    if status.starts_with("200 ") {
        return Ok(body);
    }
    let status = status.lines().next().unwrap_or_default();
    let said = body.lines().next().unwrap_or_default();
    Err(Failure::Failed(format!("it answers {status}: {said}")))
}

/// Trusts one certificate.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *shown == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            let listen = listen.parse().unwrap();
            assert_eq!(reached(listen), asked.parse().unwrap());
        }
    }

    #[test]
    fn only_200_is_good() {
        let good = judge("HTTP/1.1 200 OK\r\nServer: x\r\n\r\nok\n");
        assert!(matches!(good, Ok("ok\n")), "{good:?}");
        for (answer, expected) in [
            (
                "HTTP/1.1 503 Service Unavailable\r\n\r\nthe server is stopping\n",
                "it answers 503 Service Unavailable: the server is stopping",
            ),
            ("220 mail", "what answers is no server of HTTP"),
            ("SSH\r\n\r\n", "what answers is no server of HTTP"),
        ] {
            let (code, said) = judge(answer).unwrap_err().end();
            assert_eq!((code, said.as_deref()), (1, Some(expected)));
        }
    }
}
