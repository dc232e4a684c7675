//! One WebSocket to the server: the handshake, and whole messages both ways at once.
//!
//! Owns the URL, the handshake and what ends a connection. Does not own what messages mean.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{
        self, ClientRequestBuilder, Message,
        http::Uri,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::ConnectionError;
use crate::protocol::{SUBPROTOCOL, Secret, SessionId};

/// No message of a server is longer: answers are cut at 4 MiB, and a publication was a message of at most 16 MiB before.
const MAX_MESSAGE: usize = 32 << 20;

/// Messages that one look at the socket takes at the most, so that commands and timers get their turn.
const BATCH: usize = 64;

/// Where the server is.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
    /// Whom to trust, where the URL is `wss://`.
    tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    /// `url` is `ws://host:port/ws` or `wss://host:port/ws`; port 80 or 443 and the path `/ws` need not be said.
    pub(super) fn new(url: &str, session: Option<SessionId>) -> Result<Self, ConnectionError> {
        let wrong = || ConnectionError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (scheme, usual_port) = match uri.scheme_str() {
            Some("ws") => ("ws", 80),
            Some("wss") => ("wss", 443),
            _ => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = uri.port_u16().unwrap_or(usual_port);
        let authority = uri.authority().ok_or_else(wrong)?;
        let path = match uri.path().trim_end_matches('/') {
            "" => "/ws",
            path => path,
        };
        let session = session.map_or(String::new(), |SessionId(id)| format!("/{id}"));
        let uri = format!("{scheme}://{authority}{path}{session}");
        Ok(Self {
            uri: uri.parse().map_err(|_| wrong())?,
            host,
            port,
            tls: None,
        })
    }

    /// Whether it has to be told whom to trust.
    pub(super) fn is_encrypted(&self) -> bool {
        self.uri.scheme_str() == Some("wss")
    }

    /// Whom to trust.
    pub(super) fn trust(&mut self, tls: ClientConfig) {
        self.tls = Some(Arc::new(tls));
    }
}

#[derive(Debug)]
pub(super) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Whether writing failed. What the server said before has still to be read: it may say why.
    is_write_broken: bool,
    ended: Option<ConnectionError>,
}

impl Socket {
    /// Connects and shakes hands.
    pub(super) async fn open(
        endpoint: &Endpoint,
        token: Option<&Secret>,
    ) -> Result<Self, ConnectionError> {
        let mut request =
            ClientRequestBuilder::new(endpoint.uri.clone()).with_sub_protocol(SUBPROTOCOL);
        if let Some(token) = token {
            request = request.with_header("Authorization", format!("Bearer {}", token.reveal()));
        }
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        tcp.set_nodelay(true)?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let connector = match &endpoint.tls {
            Some(tls) => Connector::Rustls(Arc::clone(tls)),
            None => Connector::Plain,
        };
        let (stream, _response) =
            client_async_tls_with_config(request, tcp, Some(config), Some(connector))
                .await
                .map_err(failed)?;
        Ok(Self {
            stream,
            is_write_broken: false,
            ended: None,
        })
    }

    /// Writes what it can of `outgoing` and, with `incoming`, reads what has come. Ready when something was heard or the connection has
    /// ended; reading and writing never wait for each other, or client and server could both wait for ever.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut VecDeque<Bytes>,
        incoming: Option<&mut VecDeque<Bytes>>,
    ) -> Poll<Result<(), ConnectionError>> {
        self.poll_write(cx, outgoing);
        let Some(incoming) = incoming else {
            return Poll::Pending;
        };
        let mut heard = false;
        while self.ended.is_none() && incoming.len() < BATCH {
            let Poll::Ready(message) = Pin::new(&mut self.stream).poll_next(cx) else {
                break;
            };
            heard = true;
            match message {
                Some(Ok(Message::Binary(message))) => incoming.push_back(message),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    let text = "it sent a text message".to_owned();
                    self.ended = Some(ConnectionError::Protocol(text));
                }
                Some(Ok(Message::Close(frame))) => {
                    // The answer to it is a courtesy, and the server waits for it only so long.
                    drop(Pin::new(&mut self.stream).poll_flush(cx));
                    self.ended = Some(closed(frame));
                }
                Some(Err(error)) => self.ended = Some(failed(error)),
                None => self.ended = Some(ConnectionError::Broken),
            }
        }
        match self.ended.take_if(|_| incoming.is_empty()) {
            Some(error) => Poll::Ready(Err(error)),
            // A pong that was just queued, by what was read, goes out with the next look.
            None if heard || self.ended.is_some() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outgoing: &mut VecDeque<Bytes>) {
        if self.is_write_broken {
            outgoing.clear();
        }
        while !outgoing.is_empty() {
            match Pin::new(&mut self.stream).poll_ready(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return self.write_failed(&error),
            }
            if let Some(message) = outgoing.pop_front()
                && let Err(error) = Pin::new(&mut self.stream).start_send(Message::Binary(message))
            {
                return self.write_failed(&error);
            }
        }
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(cx) {
            self.write_failed(&error);
        }
    }

    fn write_failed(&mut self, error: &tungstenite::Error) {
        log::debug!("the connection can't be written to: {error}");
        self.is_write_broken = true;
    }

    /// Says goodbye, and waits for the server's. What comes before it is dropped.
    pub(super) async fn close(mut self) {
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        if self.stream.close(Some(frame)).await.is_err() {
            return;
        }
        while let Some(Ok(_)) =
            std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_next(cx)).await
        {}
    }
}

fn closed(frame: Option<CloseFrame>) -> ConnectionError {
    // A Close frame without a code counts as 1005 (RFC 6455, section 7.1.5).
    const NO_CODE: u16 = 1005;
    match frame {
        Some(frame) => ConnectionError::Closed {
            code: frame.code.into(),
            reason: frame.reason.as_str().to_owned(),
        },
        None => ConnectionError::Closed {
            code: NO_CODE,
            reason: String::new(),
        },
    }
}

fn failed(error: tungstenite::Error) -> ConnectionError {
    match error {
        tungstenite::Error::Io(error) => error.into(),
        tungstenite::Error::Http(response) => ConnectionError::Refused {
            status: response.status().as_u16(),
            retry_after: response
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .map(Duration::from_secs),
        },
        tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed
        | tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake
            | tungstenite::error::ProtocolError::HandshakeIncomplete,
        ) => ConnectionError::Broken,
        other => ConnectionError::Protocol(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn endpoint(url: &str) -> (String, String, u16) {
        let endpoint = Endpoint::new(url, None).unwrap();
        (endpoint.uri.to_string(), endpoint.host, endpoint.port)
    }

    #[test]
    fn url_needs_no_more_than_a_host() {
        for (url, uri, host, port) in [
            ("ws://localhost", "ws://localhost/ws", "localhost", 80),
            ("ws://[::1]:8949/", "ws://[::1]:8949/ws", "::1", 8949),
            ("ws://a:1/x/ws/", "ws://a:1/x/ws", "a", 1),
            ("wss://a", "wss://a/ws", "a", 443),
        ] {
            assert_eq!(endpoint(url), (uri.into(), host.into(), port));
        }
    }

    #[test]
    fn session_stands_behind_the_path() {
        let session = SessionId(Uuid::from_u128(1));
        let endpoint = Endpoint::new("ws://a:1/ws", Some(session)).unwrap();
        assert_eq!(
            endpoint.uri,
            "ws://a:1/ws/00000000-0000-0000-0000-000000000001"
        );
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused() {
        for url in [
            "",
            "localhost:8949",
            "http://a/ws",
            "wss:///ws",
            "ws://",
            "ws:///ws",
        ] {
            assert!(
                matches!(Endpoint::new(url, None), Err(ConnectionError::Url(_))),
                "{url}"
            );
        }
    }
}
