//! How a client is made.

use std::{error::Error, future::Future, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    Client, ConnectionError, Reconnect, Status, backoff::Backoff, buffer::Bound,
    connection::Connection, core::Core, handle::Handle, socket::Endpoint, tls::Tls,
    token::TokenSource,
};
use crate::protocol::{Secret, SessionId};

/// What a subscription's buffer holds unless it says otherwise.
pub(super) const BUFFER: Bound = Bound {
    count: 4096,
    bytes: 4 << 20,
};

/// Makes a [`Client`]. Begins with [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `connect` or `start`"]
pub struct Builder {
    url: String,
    session: Option<SessionId>,
    tls: Tls,
    token: TokenSource,
    reconnect: Reconnect,
    in_flight: usize,
    connect_timeout: Duration,
    request_timeout: Duration,
}

impl Builder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            session: None,
            tls: Tls::default(),
            token: TokenSource::default(),
            reconnect: Reconnect::default(),
            in_flight: 256,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }

    /// Opens, or resumes, the durable session with this id, so that its subscriptions and cursors outlive the client. Without it the
    /// session is transient.
    ///
    /// The id is a secret, made by [`SessionId::random`] and kept by the application. A second client with the same id takes over: the
    /// first one ends with 4502 and does not come back.
    pub fn session(mut self, id: SessionId) -> Self {
        self.session = Some(id);
        self
    }

    /// Trusts servers whose certificates were issued by one of these, in PEM, in place of those that the system trusts. For `wss://`.
    pub fn certificate_authority(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.authorities = Some(pem.into());
        self
    }

    /// Shows this certificate to a server that wants to see one: the certificate with those that lead to its CA, and its private key, both
    /// in PEM. For `wss://`.
    pub fn client_certificate(
        mut self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.tls.own = Some((chain.into(), key.into()));
        self
    }

    /// Proves with this token (a JWT or an API key) for whom it speaks, in the header of each handshake. A server that asks nobody does not
    /// look at it. When it ends the server closes the connection with 4501, and the client does not come back: see
    /// [`token_from`](Self::token_from) for tokens that are renewed.
    pub fn token(mut self, token: impl Into<Secret>) -> Self {
        self.token = TokenSource::Given(token.into());
        self
    }

    /// Asks `fetch` for a token before each handshake, and again when the server warns that the one in use is about to end; the new one
    /// then takes its place on the living connection. An attempt to connect whose token can't be fetched is one that failed.
    ///
    /// # Examples
    /// ```
    /// # use infotainer::client::Client;
    /// let client = Client::builder("ws://127.0.0.1:8949/ws").token_from(|| async {
    ///     std::fs::read_to_string("/run/secrets/token").map(|token| token.trim().to_owned())
    /// });
    /// ```
    pub fn token_from<F, T, E>(mut self, fetch: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Into<String>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.token = TokenSource::fetched(fetch);
        self
    }

    /// How it comes back when the connection ends. By default for ever, after pauses that grow from 100 ms to 30 s.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// How many requests wait for their answers at once, publications among them; further ones wait for their turn. Default 256,
    /// at least 1. Each costs the memory of its message until it is answered.
    pub fn in_flight(mut self, requests: usize) -> Self {
        self.in_flight = requests.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How long one attempt to connect may take, from the look-up of the host to the server's `Welcome`. Default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one waits for the answer to a request, reconnects included. Default 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// What its TLS handshakes begin with: for programs that speak to the same server otherwise than by this client, too.
    ///
    /// # Errors
    /// If a certificate that was given is none, or the system trusts nobody.
    pub fn tls_config(&self) -> Result<rustls::ClientConfig, ConnectionError> {
        self.tls.config()
    }

    /// Whether the URL is one that can be used. Needs no runtime, and nothing is looked up.
    ///
    /// # Errors
    /// If it is not; `connect` and `start` would fail too.
    pub fn check(&self) -> Result<(), ConnectionError> {
        Endpoint::new(&self.url, self.session).map(drop)
    }

    /// Connects, and gives the client when the server has said `Welcome`. From then on it comes back by itself.
    ///
    /// # Errors
    /// If this first attempt fails.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub async fn connect(self) -> Result<Client, ConnectionError> {
        let (first, went) = oneshot::channel();
        let client = self.spawn(Some(first))?;
        match went.await {
            Ok(result) => result.map(|()| client),
            Err(_gone) => Err(ConnectionError::Broken),
        }
    }

    /// Gives the client at once, which connects in the background and does not mind if the server is not there yet. Requests wait.
    ///
    /// # Errors
    /// If the URL is none that can be used, or a certificate that was given is none.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub fn start(self) -> Result<Client, ConnectionError> {
        self.spawn(None)
    }

    fn spawn(
        self,
        first: Option<oneshot::Sender<Result<(), ConnectionError>>>,
    ) -> Result<Client, ConnectionError> {
        let mut endpoint = Endpoint::new(&self.url, self.session)?;
        if endpoint.is_encrypted() {
            endpoint.trust(self.tls_config()?);
        }
        let (sender, commands) = mpsc::unbounded_channel();
        let (status, watched) = watch::channel(Status::Connecting);
        let is_durable = self.session.is_some();
        let connection = Connection {
            endpoint,
            token: self.token,
            connect_timeout: self.connect_timeout,
            backoff: Backoff::new(self.reconnect),
            core: Core::new(is_durable, BUFFER),
            commands,
            status,
            first,
        };
        tokio::spawn(connection.run());
        Ok(Client {
            handle: Handle {
                commands: sender,
                permits: Arc::new(Semaphore::new(self.in_flight)),
                request_timeout: self.request_timeout,
                status: watched,
            },
            is_durable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_judged_without_a_runtime_or_a_look_at_the_network() {
        let check = |url| Client::builder(url).check();
        assert!(check("ws://a.host.that.is.nowhere:1/ws").is_ok());
        assert!(matches!(check("http://a"), Err(ConnectionError::Url(_))));
    }
}
