//! One WebSocket to the server, made for load.
//!
//! Owns the handshake, the frames and the bytes that wait to be sent. Does not own what the messages mean ([`wire`](super::wire)).
//! tungstenite makes the request and judges keys; frames are read here, in place, out of one buffer that all connections share,
//! since a message object for each of some million deliveries a second would measure the client.
//!
//! Invariants: every frame sent is masked with a fresh key; what [`Connection::read`] hands on is one whole binary message.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, ToSocketAddrs},
    str::FromStr,
    sync::Arc,
};

use infotainer::protocol::SUBPROTOCOL;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{io::Interest, net::TcpStream};
use tokio_tungstenite::tungstenite::{
    ClientRequestBuilder,
    client::IntoClientRequest,
    handshake::{client::generate_request, derive_accept_key},
    http::Uri,
};

use super::stream::Stream;
use crate::cli::{connect::ProofArgs, values};

/// What one read takes at the most; the shared buffer is a little larger.
const READ: usize = 256 * 1024;

/// An answer to the handshake is never longer.
const MAX_HANDSHAKE: usize = 16 * 1024;

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Where the server is: a `ws://` or `wss://` URL whose host was looked up.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    uri: Uri,
    name: ServerName<'static>,
    address: SocketAddr,
    /// Whom to trust, where the URL is `wss://`.
    tls: Option<Arc<ClientConfig>>,
    /// Where the token of each connection comes from.
    proofs: Option<ProofArgs>,
}

/// Why a connection could not be made or did not last.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("the token can't be given: {0}")]
    Token(String),
    #[error("can't connect to {0}: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("the server refused the connection: {0}")]
    Refused(String),
    #[error("the server answered the handshake with something that is no WebSocket")]
    Handshake,
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the server closed the connection{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Closed(Option<String>),
    #[error("the server sent a frame of a kind that it never sends")]
    Frame,
}

/// One whole binary message.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    /// The frame, as it came.
    pub(super) frame: &'a [u8],
    /// What it carries.
    pub(super) payload: &'a [u8],
}

/// A WebSocket that is open.
pub(super) struct Connection {
    stream: Stream,
    outgoing: Outgoing,
    /// The begun frame that the last read ended in.
    begun: Vec<u8>,
}

/// Frames that wait to be written.
#[derive(Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| values::SERVER)?;
        let usual_port = match uri.scheme_str() {
            Some("ws") => 80,
            Some("wss") => 443,
            _ => return Err(values::SERVER.into()),
        };
        let host = uri.host().ok_or(values::SERVER)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|_| values::SERVER)?;
        let address = (host, uri.port_u16().unwrap_or(usual_port))
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next())
            .ok_or("the URL of a server whose host can be found")?;
        Ok(Self {
            uri,
            name,
            address,
            tls: None,
            proofs: None,
        })
    }
}

impl Endpoint {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.uri.scheme_str() == Some("wss")
    }

    pub(super) fn trust(&mut self, tls: Arc<ClientConfig>) {
        self.tls = Some(tls);
    }

    pub(super) fn prove(&mut self, proofs: ProofArgs) {
        self.proofs = Some(proofs);
    }

    /// What a handshake begins with, and the key that its answer proves to know.
    fn request(&self) -> Result<(Vec<u8>, String), ConnectionError> {
        let mut request =
            ClientRequestBuilder::new(self.uri.clone()).with_sub_protocol(SUBPROTOCOL);
        let token = match &self.proofs {
            Some(proofs) => proofs.token().map_err(ConnectionError::Token)?,
            None => None,
        };
        if let Some(token) = token {
            request = request.with_header("Authorization", format!("Bearer {}", token.reveal()));
        }
        // The URL was judged when it was given.
        let unfit = |_| ConnectionError::Token("no header can hold it".to_owned());
        request
            .into_client_request()
            .and_then(generate_request)
            .map_err(unfit)
    }
}

impl Connection {
    /// Connects and shakes hands. The server's `Welcome` is the first message to read; it may be here already, so wait for
    /// nothing before something was sent.
    ///
    /// # Errors
    /// If nothing listens there, or it refuses.
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Self, ConnectionError> {
        let stream = TcpStream::connect(endpoint.address)
            .await
            .map_err(|error| ConnectionError::Connect(endpoint.address, error))?;
        Self::over(stream, endpoint).await
    }

    /// Shakes hands over `stream`, which is connected to the endpoint's address.
    pub(super) async fn over(
        stream: TcpStream,
        endpoint: &Endpoint,
    ) -> Result<Self, ConnectionError> {
        let (request, key) = endpoint.request()?;
        stream.set_nodelay(true)?;
        let stream = match &endpoint.tls {
            Some(tls) => Stream::encrypted(stream, tls, endpoint.name.clone())
                .await
                .map_err(|error| ConnectionError::Connect(endpoint.address, error))?,
            None => Stream::plain(stream),
        };
        let mut connection = Self {
            stream,
            outgoing: Outgoing {
                bytes: request,
                written: 0,
            },
            begun: Vec::new(),
        };
        connection.finish_handshake(&key).await?;
        Ok(connection)
    }

    async fn finish_handshake(&mut self, key: &str) -> Result<(), ConnectionError> {
        let mut answer = Vec::new();
        let mut chunk = [0; 1024];
        let end = loop {
            self.ready().await?;
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return Err(ConnectionError::Handshake),
                Ok(len) => answer.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(at) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            if answer.len() > MAX_HANDSHAKE {
                return Err(ConnectionError::Handshake);
            }
        };
        let head = std::str::from_utf8(&answer[..end]).map_err(|_| ConnectionError::Handshake)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
        match status {
            Some(status) if status.starts_with("101") => {}
            Some(status) => return Err(ConnectionError::Refused(status.to_owned())),
            None => return Err(ConnectionError::Handshake),
        }
        let expected = derive_accept_key(key.as_bytes());
        let is_accepted = lines
            .filter_map(|line| line.split_once(':'))
            .any(|(name, value)| {
                name.eq_ignore_ascii_case("Sec-WebSocket-Accept") && value.trim() == expected
            });
        if !is_accepted {
            return Err(ConnectionError::Handshake);
        }
        self.begun.extend_from_slice(&answer[end..]);
        Ok(())
    }

    /// The addresses of this end and of the other.
    pub(super) fn ends(&self) -> Result<(SocketAddr, SocketAddr), ConnectionError> {
        let tcp = self.stream.tcp();
        Ok((tcp.local_addr()?, tcp.peer_addr()?))
    }

    /// What is to be sent; it goes out with the next [`ready`](Self::ready).
    pub(super) fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    /// Writes what waits, and waits until there is something to read.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub(super) async fn ready(&mut self) -> Result<(), ConnectionError> {
        loop {
            self.write()?;
            let interest = if self.has_sent() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            if self.stream.has_read() || self.stream.tcp().ready(interest).await?.is_readable() {
                return Ok(());
            }
        }
    }

    /// Writes all that waits, and reads nothing.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        loop {
            self.write()?;
            if self.has_sent() {
                return Ok(());
            }
            self.stream.tcp().writable().await?;
        }
    }

    /// Takes up to `most` bytes of what has come, whatever they are, and says how many.
    pub(super) fn discard(&mut self, most: usize) -> io::Result<usize> {
        let mut bytes = vec![0; most.min(READ)];
        match self.stream.try_read(&mut bytes) {
            Ok(0) if most > 0 => Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => Ok(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// From now on the kernel throws away whatever comes, and answers none of it: as if this end's machine was gone.
    #[cfg(target_os = "linux")]
    pub(super) fn lose_what_comes(&mut self) -> Result<(), ConnectionError> {
        // A filter of one instruction: take 0 bytes.
        const RETURN_NUMBER: u16 = 0x06;
        let nothing = socket2::SockFilter::new(RETURN_NUMBER, 0, 0, 0);
        Ok(socket2::SockRef::from(self.stream.tcp()).attach_filter(&[nothing])?)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn lose_what_comes(&mut self) -> Result<(), ConnectionError> {
        Err(io::Error::from(ErrorKind::Unsupported).into())
    }

    fn has_sent(&self) -> bool {
        self.outgoing.is_empty() && !self.stream.has_unsent()
    }

    fn write(&mut self) -> io::Result<()> {
        self.stream.try_send()?;
        while !self.outgoing.is_empty() {
            match self.stream.try_write(self.outgoing.waiting()) {
                Ok(len) => self.outgoing.wrote(len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once, and hands each message that is whole to `each`. `buffer` may be shared by all connections of a thread.
    ///
    /// # Errors
    /// If the connection is at its end, and with what `each` fails with.
    pub(super) fn read<E: From<ConnectionError>>(
        &mut self,
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(&mut Outgoing, Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let begun = self.begun.len();
        if buffer.len() < begun + READ {
            buffer.resize(begun + READ, 0);
        }
        let len = match self.stream.try_read(&mut buffer[begun..]) {
            Ok(0) => return Err(ConnectionError::Closed(None).into()),
            Ok(len) => len,
            // What came with the handshake may be all there is for now.
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(ConnectionError::Io(error).into()),
        };
        buffer[..begun].copy_from_slice(&self.begun);
        let mut rest = &buffer[..begun + len];
        while let Some(split) = split_frame(rest).map_err(E::from)? {
            rest = split.behind;
            let Message { payload, .. } = split.message;
            match split.opcode {
                BINARY => each(&mut self.outgoing, split.message)?,
                PING => self.outgoing.put_frame(PONG, &[payload]),
                PONG => {}
                CLOSE => return Err(ConnectionError::Closed(reason(payload)).into()),
                _ => return Err(ConnectionError::Frame.into()),
            }
        }
        self.begun.clear();
        self.begun.extend_from_slice(rest);
        Ok(())
    }
}

impl Outgoing {
    /// Adds one binary message of `parts`.
    pub(super) fn send(&mut self, parts: &[&[u8]]) {
        self.put_frame(BINARY, parts);
    }

    fn put_frame(&mut self, opcode: u8, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.bytes.push(FIN | opcode);
        match len {
            0..=125 => self.bytes.push(MASKED | len as u8),
            126..=0xffff => {
                self.bytes.push(MASKED | 126);
                self.bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                self.bytes.push(MASKED | 127);
                self.bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        let key = fastrand::u32(..).to_ne_bytes();
        self.bytes.extend_from_slice(&key);
        let at = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        mask(&mut self.bytes[at..], key);
    }

    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Bytes that the socket has not taken yet.
    pub(super) fn waiting_len(&self) -> usize {
        self.bytes.len() - self.written
    }

    fn wrote(&mut self, len: usize) {
        self.written += len;
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        }
    }
}

fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

struct Split<'a> {
    opcode: u8,
    message: Message<'a>,
    behind: &'a [u8],
}

/// The frame that `bytes` begins with; `None` while it is not whole.
fn split_frame(bytes: &[u8]) -> Result<Option<Split<'_>>, ConnectionError> {
    let Some((&[first, second], rest)) = bytes.split_first_chunk::<2>() else {
        return Ok(None);
    };
    // The server neither masks nor uses fragments or extensions.
    if first & 0xf0 != FIN || second & MASKED != 0 {
        return Err(ConnectionError::Frame);
    }
    let head = match second {
        126 => rest
            .first_chunk()
            .map(|len| (4, usize::from(u16::from_be_bytes(*len)))),
        127 => rest.first_chunk().map(|len| {
            let len = u64::from_be_bytes(*len);
            (10, usize::try_from(len).unwrap_or(usize::MAX))
        }),
        len => Some((2, usize::from(len))),
    };
    let whole = head.and_then(|(head, len): (usize, usize)| {
        let (frame, behind) = bytes.split_at_checked(head.checked_add(len)?)?;
        let message = Message {
            frame,
            payload: &frame[head..],
        };
        Some(Split {
            opcode: first & 0x0f,
            message,
            behind,
        })
    });
    Ok(whole)
}

/// Code and reason of a Close frame.
fn reason(payload: &[u8]) -> Option<String> {
    let (code, reason) = payload.split_first_chunk()?;
    let code = u16::from_be_bytes(*code);
    Some(
        format!("{code} {}", String::from_utf8_lossy(reason))
            .trim_end()
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split_only_where_they_are_whole() {
        let mut bytes = vec![0x82, 3, b'a', b'b', b'c', 0x82, 126, 0, 130];
        bytes.extend_from_slice(&[7; 130]);
        for end in 0..bytes.len() {
            let mut rest = &bytes[..end];
            let mut found = Vec::new();
            while let Some(split) = split_frame(rest).unwrap() {
                found.push(split.message.payload.len());
                rest = split.behind;
            }
            assert_eq!(found, if end < 5 { vec![] } else { vec![3] }, "{end}");
        }
        let first = split_frame(&bytes).unwrap().unwrap();
        let second = split_frame(first.behind).unwrap().unwrap();
        assert_eq!(
            (first.message.payload, second.message.payload),
            (&b"abc"[..], &[7; 130][..])
        );
        assert!(second.behind.is_empty());
    }

    #[test]
    fn masking_twice_gives_back_the_message() {
        let message: Vec<u8> = (0..=255).collect();
        for len in 0..message.len() {
            let mut bytes = message[..len].to_vec();
            mask(&mut bytes, [1, 2, 3, 4]);
            assert!(
                bytes
                    .iter()
                    .enumerate()
                    .all(|(i, byte)| { *byte == message[i] ^ [1, 2, 3, 4][i % 4] })
            );
            mask(&mut bytes, [1, 2, 3, 4]);
            assert_eq!(bytes, message[..len]);
        }
    }

    #[test]
    fn an_endpoint_is_a_ws_url() {
        for url in [
            "ws://127.0.0.1:8949/ws",
            "ws://[::1]:1/ws",
            "ws://127.0.0.1",
            "wss://127.0.0.1/ws",
        ] {
            assert!(url.parse::<Endpoint>().is_ok(), "{url}");
        }
        for url in ["", "127.0.0.1:8949", "http://127.0.0.1/ws", "ws://"] {
            assert!(url.parse::<Endpoint>().is_err(), "{url}");
        }
    }
}
