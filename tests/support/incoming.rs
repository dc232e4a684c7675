//! A connection and what has come over it that was not taken yet: what clients byte by byte begin with.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::within;

/// The headers of an answer.
pub type Headers = Vec<(String, String)>;

/// A TCP connection; with `receive_buffer` its kernel takes few bytes that nobody reads.
pub async fn connected(address: SocketAddr, receive_buffer: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(size) = receive_buffer {
        socket.set_recv_buffer_size(size).unwrap();
    }
    let stream = within("the connection", socket.connect(address))
        .await
        .unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The header of this name.
pub fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// The connection.
pub struct Incoming<S> {
    pub stream: S,
    pub unread: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Incoming<S> {
    /// Nothing has come.
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Writes bytes.
    pub async fn write(&mut self, bytes: &[u8]) {
        within("writing", self.stream.write_all(bytes))
            .await
            .unwrap();
    }

    /// More of what comes; false at the end.
    pub async fn fill(&mut self) -> bool {
        let read = within(
            "bytes from the server",
            self.stream.read_buf(&mut self.unread),
        )
        .await;
        // A connection that is reset has ended, too.
        matches!(read, Ok(1..))
    }

    /// Takes the head of an answer of HTTP: the status, and the headers.
    pub async fn head(&mut self) -> (u16, Headers) {
        let end = loop {
            match self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end,
                None => assert!(self.fill().await, "ended in the middle of a head"),
            }
        };
        let head = String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        (status.parse().unwrap(), lines.filter_map(header).collect())
    }
}
