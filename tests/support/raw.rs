//! A connection byte by byte, for what no WebSocket library would send.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Response,
    incoming::{self, Headers, Incoming},
    within,
};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What the server said to a request for a WebSocket.
pub struct Handshake {
    /// The status.
    pub status: u16,
    headers: Headers,
    raw: Raw,
}

impl Handshake {
    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        incoming::header(&self.headers, name)
    }

    /// The connection, if it was accepted. `Welcome` has not been read.
    #[track_caller]
    pub fn accepted(self) -> Raw {
        assert_eq!(self.status, 101);
        self.raw
    }
}

/// Asks for a WebSocket at `path`. `headers` come besides the usual ones, or in their place.
pub async fn handshake(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Handshake {
    let host = address.to_string();
    let usual = [
        ("Host", host.as_str()),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let replaced = |name: &str| {
        headers
            .iter()
            .any(|(given, _)| given.eq_ignore_ascii_case(name))
    };
    let all = usual
        .iter()
        .filter(|(name, _)| !replaced(name))
        .chain(headers);
    request(address, "GET", path, all.copied()).await
}

/// Asks plainly for `path`; the status and what comes until the server closes.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let (status, body, _) = ask(address, "GET", path, &[]).await;
    (status, body)
}

/// Asks for `path` with this method and these headers; the status, what comes until the server closes, and the headers of the answer.
pub async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, String, Headers) {
    let host = address.to_string();
    let usual = [("Host", host.as_str()), ("Connection", "close")];
    let all = usual.iter().chain(headers).copied();
    let mut answer = request(address, method, path, all).await;
    let mut body = std::mem::take(&mut answer.raw.0.unread);
    within("the body", answer.raw.0.stream.read_to_end(&mut body))
        .await
        .unwrap();
    (
        answer.status,
        String::from_utf8(body).unwrap(),
        answer.headers,
    )
}

async fn request<'a>(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Handshake {
    let mut raw = Raw::connect(address, None).await;
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    raw.write(request.as_bytes()).await;
    let (status, headers) = raw.0.head().await;
    Handshake {
        status,
        headers,
        raw,
    }
}

/// A frame from the server.
#[derive(Clone, PartialEq, Debug)]
pub struct Frame {
    /// Final.
    pub fin: bool,
    /// 1 text, 2 binary, 8 close, 9 ping, 10 pong.
    pub opcode: u8,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a Close frame.
    #[track_caller]
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, 8, "{self:?}");
        u16::from_be_bytes([self.payload[0], self.payload[1]])
    }
}

/// The bytes of a connection.
pub struct Raw(Incoming<TcpStream>);

impl Raw {
    /// A TCP connection; with `receive_buffer` its kernel takes few bytes that nobody reads.
    pub async fn connect(address: SocketAddr, receive_buffer: Option<u32>) -> Self {
        Self(Incoming::over(
            incoming::connected(address, receive_buffer).await,
        ))
    }

    /// An accepted WebSocket that had its `Welcome`.
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        let mut raw = handshake(address, path, &[]).await.accepted();
        raw.response().await.expect("Welcome");
        raw
    }

    /// Reads the head of the answer to a handshake: its status.
    pub async fn head_of_answer(&mut self) -> u16 {
        self.0.head().await.0
    }

    /// Writes bytes.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes).await;
    }

    /// Writes bytes; false if the server has ended the connection.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        within("writing", self.0.stream.write_all(bytes))
            .await
            .is_ok()
    }

    /// Writes as much as the kernel takes at once; 0 if it takes nothing now.
    pub fn write_now(&mut self, bytes: &[u8]) -> usize {
        match self.0.stream.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// A frame as bytes: `first` is its first byte (FIN, RSV and opcode); masked, as clients do.
    pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Self::head(first, payload.len() as u64);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
        bytes
    }

    /// The head of a masked frame that declares so many bytes.
    pub fn head(first: u8, len: u64) -> Vec<u8> {
        let mut bytes = vec![first];
        match len {
            0..126 => bytes.push(0x80 | len as u8),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend(len.to_be_bytes());
            }
        }
        bytes.extend(MASK);
        bytes
    }

    /// Writes a whole frame.
    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        self.write(&Self::frame(first, payload)).await;
    }

    /// Reads at most `limit` bytes that are thrown away; 0 at the end.
    pub async fn discard(&mut self, limit: usize) -> usize {
        let mut buffer = vec![0; limit];
        within("bytes", self.0.stream.read(&mut buffer))
            .await
            .unwrap_or(0)
    }

    /// Takes at most `limit` bytes as they come; none at the end.
    pub async fn take(&mut self, limit: usize) -> Vec<u8> {
        let mut buffer = vec![0; limit];
        let len = within("bytes", self.0.stream.read(&mut buffer)).await;
        buffer.truncate(len.unwrap_or(0));
        buffer
    }

    /// Lets what was taken be read again, in front of what comes.
    pub fn unread(&mut self, bytes: Vec<u8>) {
        let behind = std::mem::replace(&mut self.0.unread, bytes);
        self.0.unread.extend(behind);
    }

    /// Ends this half of the connection: nothing more is written.
    pub async fn finish(&mut self) {
        self.0.stream.shutdown().await.unwrap();
    }

    /// The next frame; `None` at the end of the connection, however it came.
    pub async fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, len)) = parse(&self.0.unread) {
                self.0.unread.drain(..len);
                return Some(frame);
            }
            if !self.0.fill().await {
                assert!(self.0.unread.is_empty(), "ended in the middle of a frame");
                return None;
            }
        }
    }

    /// The next response, pings left out.
    pub async fn response(&mut self) -> Response {
        loop {
            let frame = self.read().await.expect("a frame");
            match frame.opcode {
                2 => return Response::decode(&frame.payload),
                9 => {}
                _ => panic!("instead of a response: {frame:?}"),
            }
        }
    }

    /// The code of the next Close frame; what comes before is thrown away.
    pub async fn closed(&mut self) -> u16 {
        loop {
            let frame = self
                .read()
                .await
                .expect("a Close frame before the end of the connection");
            if frame.opcode == 8 {
                return frame.close_code();
            }
        }
    }

    /// Waits until the server ends the connection.
    pub async fn ended(&mut self) {
        while self.read().await.is_some() {}
    }
}

fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "servers do not mask");
    let (head, len) = match second {
        126 => (
            4,
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
        ),
        127 => (
            10,
            u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()),
        ),
        len => (2, u64::from(len)),
    };
    let end = head + len as usize;
    let payload = bytes.get(head..end)?.to_vec();
    assert_eq!(first & 0x70, 0, "no extension was negotiated");
    Some((
        Frame {
            fin: first & 0x80 != 0,
            opcode: first & 0x0f,
            payload,
        },
        end,
    ))
}
