//! A client of HTTP/1.1 over one connection, which it keeps.

use std::{net::SocketAddr, sync::Arc};

use rustls::ClientConfig;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    connect_over_tls,
    incoming::{self, Headers, Incoming},
};

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What the server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    headers: Headers,
    /// The body, unless it is a stream.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        incoming::header(&self.headers, name)
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
    incoming: Incoming<Box<dyn Stream>>,
    address: SocketAddr,
    /// Of a stream of events, what was taken out of its chunks.
    text: String,
}

impl Http {
    /// A connection to the server.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(incoming::connected(address, None).await, address)
    }

    /// A connection whose kernel takes few bytes that the client does not read.
    pub async fn with_small_window(address: SocketAddr) -> Self {
        let stream = incoming::connected(address, Some(16 << 10)).await;
        Self::over(stream, address)
    }

    /// A connection over TLS, to the server that is called `localhost`.
    pub async fn over_tls(address: SocketAddr, tls: &Arc<ClientConfig>) -> Self {
        let stream = connect_over_tls(address, tls).await.unwrap();
        Self::over(stream, address)
    }

    fn over(stream: impl Stream + 'static, address: SocketAddr) -> Self {
        Self {
            incoming: Incoming::over(Box::new(stream)),
            address,
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
        self.incoming.write(bytes).await;
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
        if self.incoming.unread.is_empty() && !self.incoming.fill().await {
            return None;
        }
        Some(self.next().await)
    }

    /// The head of the next answer.
    pub async fn head(&mut self) -> Answer {
        let (status, headers) = self.incoming.head().await;
        Answer {
            status,
            headers,
            body: Vec::new(),
        }
    }

    async fn body(&mut self, answer: &mut Answer) {
        assert_eq!(answer.header("transfer-encoding"), None, "a stream");
        let len = answer
            .header("content-length")
            .map_or(0, |len| len.parse().unwrap());
        while self.incoming.unread.len() < len {
            assert!(self.incoming.fill().await, "ended in the middle of a body");
        }
        answer.body = self.incoming.unread.drain(..len).collect();
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
            match self
                .incoming
                .unread
                .windows(2)
                .position(|two| two == b"\r\n")
            {
                Some(end) => break end,
                None => {
                    if !self.incoming.fill().await {
                        return false;
                    }
                }
            }
        };
        let len = usize::from_str_radix(str::from_utf8(&self.incoming.unread[..end]).unwrap(), 16)
            .unwrap();
        while self.incoming.unread.len() < end + 2 + len + 2 {
            if !self.incoming.fill().await {
                return false;
            }
        }
        let text = self.incoming.unread[end + 2..][..len].to_vec();
        self.incoming.unread.drain(..end + 2 + len + 2);
        self.text.push_str(str::from_utf8(&text).unwrap());
        len > 0
    }

    /// Whether the server has ended the connection, when nothing more comes.
    pub async fn is_over(&mut self) -> bool {
        !self.incoming.fill().await
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
