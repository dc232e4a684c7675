//! A client of HTTP/1.1 over one connection, which it keeps.

use std::{net::SocketAddr, sync::Arc};

use rustls::ClientConfig;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpSocket,
};

use super::{connect_over_tls, within};

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What the server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body, unless it is a stream.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON, whose status has to be this one.
    #[track_caller]
    pub fn json(&self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The problem that it tells of, whose status and code have to be these.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.json(status);
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{problem}");
        problem
    }
}

/// One server-sent event.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ServerSent {
    /// Its name; empty for a message.
    pub name: String,
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its data.
    pub data: Value,
    /// The pause that it asks for.
    pub retry: Option<u64>,
}

/// The connection.
pub struct Http {
    stream: Box<dyn Stream>,
    address: SocketAddr,
    /// What has come and was not taken.
    unread: Vec<u8>,
    /// Of a stream of events, what was taken out of its chunks.
    text: String,
}

impl Http {
    /// A connection to the server.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with_receive_buffer(address, None).await
    }

    /// A connection whose kernel takes few bytes that the client does not read.
    pub async fn with_small_window(address: SocketAddr) -> Self {
        Self::with_receive_buffer(address, Some(16 << 10)).await
    }

    /// A connection over TLS, to the server that is called `localhost`.
    pub async fn over_tls(address: SocketAddr, tls: &Arc<ClientConfig>) -> Self {
        let stream = connect_over_tls(address, tls).await.unwrap();
        Self::over(stream, address)
    }

    async fn with_receive_buffer(address: SocketAddr, size: Option<u32>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(size) = size {
            socket.set_recv_buffer_size(size).unwrap();
        }
        let stream = within("the connection", socket.connect(address))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, address)
    }

    fn over(stream: impl Stream + 'static, address: SocketAddr) -> Self {
        Self {
            stream: Box::new(stream),
            address,
            unread: Vec::new(),
            text: String::new(),
        }
    }

    /// Sends a request; `Host` and `Content-Length` are added.
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        self.write(&[head.as_bytes(), body].concat()).await;
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        within("writing", self.stream.write_all(bytes))
            .await
            .unwrap();
    }

    /// Sends a request and reads its answer.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.send(method, path, headers, body).await;
        let mut answer = self.head().await;
        if method != "HEAD" {
            self.body(&mut answer).await;
        }
        answer
    }

    /// Asks for JSON with JSON.
    pub async fn json(&mut self, method: &str, path: &str, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.ask(method, path, &headers, body.to_string().as_bytes())
            .await
    }

    /// Asks without a body.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"").await
    }

    /// Publishes a text, and gives its sequence.
    pub async fn publish(&mut self, subscription: &str, data: &str) -> u64 {
        let path = format!("/v1/subscriptions/{subscription}/publications");
        let answer = self
            .json("POST", &path, &serde_json::json!({ "data": data }))
            .await;
        answer.json(201)["sequence"].as_u64().unwrap()
    }

    /// The next answer.
    pub async fn next(&mut self) -> Answer {
        let mut answer = self.head().await;
        self.body(&mut answer).await;
        answer
    }

    /// The next answer, unless the connection ends first.
    pub async fn try_next(&mut self) -> Option<Answer> {
        if self.unread.is_empty() && !self.fill().await {
            return None;
        }
        Some(self.next().await)
    }

    /// The head of the next answer.
    pub async fn head(&mut self) -> Answer {
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
        Answer {
            status: status.parse().unwrap(),
            headers: lines.filter_map(header).collect(),
            body: Vec::new(),
        }
    }

    async fn body(&mut self, answer: &mut Answer) {
        assert_eq!(answer.header("transfer-encoding"), None, "a stream");
        let len = answer
            .header("content-length")
            .map_or(0, |len| len.parse().unwrap());
        while self.unread.len() < len {
            assert!(self.fill().await, "ended in the middle of a body");
        }
        answer.body = self.unread.drain(..len).collect();
    }

    /// Subscribes by server-sent events: the head of the answer.
    pub async fn subscribe(
        &mut self,
        subscription: &str,
        query: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let path = format!("/v1/subscriptions/{subscription}/events{query}");
        self.send("GET", &path, headers, b"").await;
        let mut answer = self.head().await;
        if answer.header("transfer-encoding").is_none() {
            self.body(&mut answer).await;
        }
        answer
    }

    /// The next event, comments left out; `None` at the end of the stream.
    pub async fn event(&mut self) -> Option<ServerSent> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = parse(block);
                self.text = rest.to_owned();
                if event.is_some() {
                    return event;
                }
            }
            if !self.chunk().await {
                return None;
            }
        }
    }

    /// Waits for a comment, and takes it; nothing else may come.
    pub async fn comment(&mut self) {
        while self.text.is_empty() {
            assert!(self.chunk().await);
        }
        assert_eq!(self.text.drain(..3).as_str(), ":\n\n");
    }

    /// Takes one chunk; false at the last.
    async fn chunk(&mut self) -> bool {
        let end = loop {
            match self.unread.windows(2).position(|two| two == b"\r\n") {
                Some(end) => break end,
                None => {
                    if !self.fill().await {
                        return false;
                    }
                }
            }
        };
        let len = usize::from_str_radix(str::from_utf8(&self.unread[..end]).unwrap(), 16).unwrap();
        while self.unread.len() < end + 2 + len + 2 {
            if !self.fill().await {
                return false;
            }
        }
        let text = self.unread[end + 2..][..len].to_vec();
        self.unread.drain(..end + 2 + len + 2);
        self.text.push_str(str::from_utf8(&text).unwrap());
        len > 0
    }

    /// Whether the server has ended the connection, when nothing more comes.
    pub async fn is_over(&mut self) -> bool {
        !self.fill().await
    }

    async fn fill(&mut self) -> bool {
        let read = within(
            "bytes from the server",
            self.stream.read_buf(&mut self.unread),
        )
        .await;
        matches!(read, Ok(1..))
    }
}

fn parse(block: &str) -> Option<ServerSent> {
    let mut event = ServerSent::default();
    let mut data = String::new();
    for line in block.lines().filter(|line| !line.starts_with(':')) {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match name {
            "event" => value.clone_into(&mut event.name),
            "id" => event.id = Some(value.to_owned()),
            "retry" => event.retry = Some(value.parse().unwrap()),
            "data" => data += value,
            _ => panic!("what is {line:?}?"),
        }
    }
    if data.is_empty() {
        return None;
    }
    event.data = serde_json::from_str(&data).unwrap();
    Some(event)
}
