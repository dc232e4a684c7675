//! A client on tokio-tungstenite.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use serde_cbor::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::HeaderValue,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use uuid::Uuid;

use super::{Cbor, Fields, Response, encode, named, within};

/// What comes from the server.
#[derive(Debug)]
pub enum Event {
    /// A response, or what it says on its own.
    Response(Response),
    /// It closes, with this code.
    Closed(Option<u16>),
    /// The connection ended without a Close.
    Ended(String),
}

/// A connection that had its `Welcome`.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Which subprotocol the server chose.
    pub subprotocol: Option<String>,
    last_id: u64,
    /// What came while something else was waited for, in order.
    inbox: VecDeque<Response>,
    /// What the server said first.
    pub welcome: Response,
    /// How many pings came (each is answered when more is read or written).
    pub pings: usize,
    /// The payloads of the pongs that came.
    pub pongs: Vec<Bytes>,
}

impl Client {
    /// A transient session.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::open(address, "/ws", None).await
    }

    /// The durable session with this id.
    pub async fn resume(address: SocketAddr, session: Uuid) -> Self {
        Self::open(address, &format!("/ws/{session}"), None).await
    }

    /// A transient session whose kernel takes few bytes that the client does not read.
    pub async fn with_small_window(address: SocketAddr) -> Self {
        Self::open(address, "/ws", Some(16 << 10)).await
    }

    /// A connection to `path`.
    pub async fn open(address: SocketAddr, path: &str, receive_buffer: Option<u32>) -> Self {
        match Self::try_open(address, path, receive_buffer).await {
            Ok(client) => client,
            Err(event) => panic!("instead of Welcome: {event:?}"),
        }
    }

    /// A transient session over TLS, to the server that is called `localhost`. With `receive_buffer`, its kernel takes few bytes that the
    /// client does not read.
    pub async fn over_tls(
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
        receive_buffer: Option<u32>,
    ) -> Self {
        let url = format!("wss://localhost:{}/ws", address.port());
        let stream = connected(address, receive_buffer).await;
        match Self::over(stream, &url, Connector::Rustls(Arc::clone(tls))).await {
            Ok(client) => client,
            Err(event) => panic!("instead of Welcome: {event:?}"),
        }
    }

    /// A connection to `path`, or what came instead of its `Welcome`.
    pub async fn try_open(
        address: SocketAddr,
        path: &str,
        receive_buffer: Option<u32>,
    ) -> Result<Self, Event> {
        let stream = connected(address, receive_buffer).await;
        Self::over(stream, &format!("ws://{address}{path}"), Connector::Plain).await
    }

    async fn over(stream: TcpStream, url: &str, connector: Connector) -> Result<Self, Event> {
        let mut client = match Self::shake_hands(stream, url, connector, &[]).await {
            Ok(client) => client,
            Err(status) => panic!("the handshake is answered with {status}"),
        };
        client.begin().await.map(|()| client)
    }

    /// A connection to `path` before its `Welcome`, whose handshake had these headers, too; or the status that it was answered with. Headers
    /// that are given take the place of the usual ones.
    pub async fn upgrade(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Self, u16> {
        let stream = connected(address, None).await;
        let url = format!("ws://{address}{path}");
        Self::shake_hands(stream, &url, Connector::Plain, headers).await
    }

    async fn shake_hands(
        stream: TcpStream,
        url: &str,
        connector: Connector,
        headers: &[(&'static str, String)],
    ) -> Result<Self, u16> {
        let mut request = url.into_client_request().unwrap();
        let subprotocol = HeaderValue::from_static("infotainer.v1.cbor");
        let sent = request.headers_mut();
        sent.insert("Sec-WebSocket-Protocol", subprotocol);
        for (name, value) in headers {
            let value: HeaderValue = value.parse().unwrap();
            if *name == "Sec-WebSocket-Protocol" {
                sent.insert(*name, value);
            } else {
                sent.append(*name, value);
            }
        }
        let handshake = client_async_tls_with_config(request, stream, None, Some(connector));
        let (socket, response) = match within("the handshake", handshake).await {
            Ok(answered) => answered,
            Err(tungstenite::Error::Http(response)) => return Err(response.status().as_u16()),
            Err(error) => panic!("the handshake fails: {error}"),
        };
        let subprotocol = response.headers().get("Sec-WebSocket-Protocol");
        Ok(Self {
            socket,
            subprotocol: subprotocol.map(|value| value.to_str().unwrap().to_owned()),
            last_id: 0,
            inbox: VecDeque::new(),
            welcome: Response {
                id: None,
                name: String::new(),
                fields: Fields::of(&fields! {}),
            },
            pings: 0,
            pongs: Vec::new(),
        })
    }

    /// Waits for `Welcome`, or says what came instead.
    pub async fn begin(&mut self) -> Result<(), Event> {
        match self.event().await {
            Event::Response(response) => self.welcome = response.expect("Welcome"),
            other => return Err(other),
        }
        assert_eq!(self.welcome.id, None);
        Ok(())
    }

    /// Sends a WebSocket message.
    pub async fn send_message(&mut self, message: Message) {
        within("sending", self.socket.send(message)).await.unwrap();
    }

    /// Sends a binary message of these bytes.
    pub async fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.send_message(Message::Binary(bytes.into())).await;
    }

    /// Sends one CBOR item.
    pub async fn send(&mut self, item: &Value) {
        self.send_bytes(encode(item)).await;
    }

    /// Sends a command without a request id.
    pub async fn send_bare(&mut self, command: &str, fields: Value) {
        self.send(&named(command, fields)).await;
    }

    /// Sends a command, and gives the request id under which its answer will come.
    pub async fn request(&mut self, command: &str, fields: Value) -> u64 {
        self.last_id += 1;
        let item = Value::Array(vec![
            Value::Integer(self.last_id.into()),
            named(command, fields),
        ]);
        self.send(&item).await;
        self.last_id
    }

    /// Sends a command as [`request`](Self::request) does; `None` if the connection is gone.
    pub async fn try_request(&mut self, command: &str, fields: Value) -> Option<u64> {
        self.last_id += 1;
        let id = Value::Integer(self.last_id.into());
        let item = encode(&Value::Array(vec![id, named(command, fields)]));
        let sent = within("sending", self.socket.send(Message::Binary(item.into()))).await;
        sent.ok().map(|()| self.last_id)
    }

    /// The answer to a request.
    pub async fn answer(&mut self, id: u64) -> Response {
        let waiting = self
            .inbox
            .iter()
            .position(|response| response.id == Some(id));
        if let Some(place) = waiting {
            return self
                .inbox
                .remove(place)
                .expect("invariant: it was found there");
        }
        loop {
            let response = self.receive().await;
            if response.id == Some(id) {
                return response;
            }
            self.inbox.push_back(response);
        }
    }

    /// Sends a command and gives its answer, whatever that is.
    pub async fn ask(&mut self, command: &str, fields: Value) -> Response {
        let id = self.request(command, fields).await;
        self.answer(id).await
    }

    /// Sends a command that has to succeed, and gives its answer.
    pub async fn call(&mut self, command: &str, fields: Value) -> Response {
        let response = self.ask(command, fields).await;
        let expected = match command {
            "Subscribe" => "Subscribed",
            "Unsubscribe" => "Unsubscribed",
            "SubmitPublication" => "Submitted",
            "Acknowledge" => "Acknowledged",
            "Reject" => "Rejected",
            "Extend" => "Extended",
            "GetLogIndex" => "LogIndex",
            "GetLogEntries" => "DataLogEntry",
            "ListSubscriptions" => "Subscriptions",
            "DeleteSubscription" => "Deleted",
            "Ping" => "Pong",
            "Authenticate" => "Authenticated",
            _ => "SubscriptionMeta",
        };
        response.expect(expected)
    }

    /// Sends a command that has to fail with this code, and gives the error.
    pub async fn fail(&mut self, code: &str, command: &str, fields: Value) -> Response {
        let sent: String = format!("{command} {fields:?}").chars().take(500).collect();
        let response = self.ask(command, fields).await;
        assert_eq!(response.name, "Error", "{sent} was answered {response:?}");
        assert_eq!(
            response.text("code"),
            code,
            "{sent} was answered {response:?}"
        );
        if code != "malformed" && code != "unknown-command" {
            assert_eq!(response.text("command"), command);
        }
        response.expect_error(code)
    }

    /// Submits a publication, and gives its `Submitted`.
    pub async fn publish(&mut self, subscription: impl Cbor, data: impl Cbor) -> Response {
        let fields = fields! { "subscription_id": subscription, "submission": data };
        self.call("SubmitPublication", fields).await
    }

    /// Submits so many publications, one behind the other without waiting, whose data are `1`, `2`, ... in decimal; gives their ids.
    pub async fn publish_many(&mut self, subscription: &str, count: usize) -> Vec<Uuid> {
        let mut requests = Vec::new();
        for number in 1..=count {
            let data = number.to_string();
            let fields = fields! { "subscription_id": subscription, "submission": data.as_bytes() };
            requests.push(self.request("SubmitPublication", fields).await);
        }
        let mut ids = Vec::new();
        for request in requests {
            let submitted = self.answer(request).await.expect("Submitted");
            ids.push(submitted.uuid("publication_id"));
        }
        ids
    }

    /// Subscribes, and gives `Subscribed`.
    pub async fn subscribe(&mut self, subscription: impl Cbor, from: impl Cbor) -> Response {
        let fields = fields! { "subscription_id": subscription, "from": from };
        self.call("Subscribe", fields).await
    }

    /// The state of a subscription.
    pub async fn meta(&mut self, subscription: impl Cbor) -> Response {
        let fields = fields! { "subscription_id": subscription };
        self.call("GetSubscription", fields).await
    }

    /// The whole log of a subscription, read page by page.
    pub async fn log(&mut self, subscription: &str) -> Vec<Fields> {
        let mut publications: Vec<Fields> = Vec::new();
        loop {
            let after = publications
                .last()
                .map_or(0, |last| last.number("sequence"));
            let fields = fields! { "log_id": subscription, "after": after };
            let page = self.call("GetLogEntries", fields).await;
            publications.extend(page.maps("publications"));
            if !page.truth("more") {
                return publications;
            }
        }
    }

    /// What the server said next, answer or not, in the order in which it came.
    pub async fn any(&mut self) -> Response {
        match self.inbox.pop_front() {
            Some(response) => response,
            None => self.receive().await,
        }
    }

    /// What the server said next on its own, or bare.
    pub async fn next(&mut self) -> Response {
        let waiting = self.inbox.iter().position(|response| response.id.is_none());
        if let Some(place) = waiting {
            return self
                .inbox
                .remove(place)
                .expect("invariant: it was found there");
        }
        loop {
            let response = self.receive().await;
            if response.id.is_none() {
                return response;
            }
            self.inbox.push_back(response);
        }
    }

    /// The next that the server says on its own, which has to be the publication with this sequence.
    pub async fn publication(&mut self, sequence: u64) -> Response {
        let response = self.next().await.expect("Publication");
        assert_eq!(response.number("sequence"), sequence, "{response:?}");
        response
    }

    /// The next publications, which have to have these sequences.
    pub async fn publications(&mut self, sequences: impl IntoIterator<Item = u64>) {
        for sequence in sequences {
            self.publication(sequence).await;
        }
    }

    /// Fails if the server said or will say anything bare in front of the answer to a `Ping` that is sent now.
    pub async fn hears_nothing(&mut self) {
        self.call("Ping", fields! {}).await;
        let bare = self.inbox.iter().find(|response| response.id.is_none());
        assert_eq!(bare, None);
    }

    /// The code with which the server closes; what it says before stays to be asked for.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.event().await {
                Event::Response(response) => self.inbox.push_back(response),
                Event::Closed(code) => return code.expect("a code in the Close frame"),
                Event::Ended(why) => panic!("ended without a Close: {why}"),
            }
        }
    }

    /// Sends a Close with 1000. What the server says before its own can still be read.
    pub async fn begin_close(&mut self) {
        let close = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        self.socket.close(Some(close)).await.unwrap();
    }

    /// After the server's Close: waits until it has let go of the connection.
    pub async fn let_go(&mut self) {
        while let Some(Ok(_)) = within("the end", self.socket.next()).await {}
    }

    /// What came while something else was waited for.
    pub fn unread(&mut self) -> Vec<Response> {
        self.inbox.drain(..).collect()
    }

    /// Closes with 1000 and waits until the server closed, too.
    pub async fn close(mut self) {
        self.begin_close().await;
        loop {
            match self.event().await {
                Event::Response(_) => {}
                Event::Closed(code) => {
                    assert_eq!(code, Some(1000));
                    break;
                }
                Event::Ended(why) => panic!("the Close was not answered: {why}"),
            }
        }
        self.let_go().await;
    }

    async fn receive(&mut self) -> Response {
        match self.event().await {
            Event::Response(response) => response,
            other => panic!("instead of a response: {other:?}"),
        }
    }

    /// The next that comes, apart from pings and pongs, which are counted.
    pub async fn event(&mut self) -> Event {
        loop {
            let message = within("something from the server", self.socket.next()).await;
            match message {
                Some(Ok(Message::Binary(bytes))) => {
                    return Event::Response(Response::decode(&bytes));
                }
                Some(Ok(Message::Ping(_))) => self.pings += 1,
                Some(Ok(Message::Pong(payload))) => self.pongs.push(payload),
                Some(Ok(Message::Close(frame))) => {
                    return Event::Closed(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(other)) => panic!("the server never sends such: {other:?}"),
                Some(Err(error)) => return Event::Ended(error.to_string()),
                None => return Event::Ended("end of stream".into()),
            }
        }
    }

    /// Waits until so many pings came since the connection was opened.
    pub async fn wait_for_pings(&mut self, count: usize) {
        while self.pings < count {
            let message = within("a ping", self.socket.next()).await.unwrap().unwrap();
            match message {
                Message::Ping(_) => self.pings += 1,
                Message::Binary(bytes) => self.inbox.push_back(Response::decode(&bytes)),
                other => panic!("instead of a ping: {other:?}"),
            }
        }
    }
}

async fn connected(address: SocketAddr, receive_buffer: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(size) = receive_buffer {
        socket.set_recv_buffer_size(size).unwrap();
    }
    let stream = socket.connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}
