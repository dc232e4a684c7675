//! A server of one test, and a proxy in front of it that cuts.

#![allow(unreachable_pub, reason = "shared by the tests of one binary")]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use futures_util::SinkExt;
use infotainer::{
    Config, RunningServer, Server,
    protocol::{
        Durability, Limits, SERVER, SUBPROTOCOL, ServerResponse, SessionId, Welcome,
        codec::encode_response,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{self as handshake, Callback},
    },
};

/// How long a test waits for what has to come. Only a failing test ever waits for so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `future`, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not come within {PATIENCE:?}: {what}"),
    }
}

/// A server with a data directory of its own.
pub struct TestServer {
    directory: tempfile::TempDir,
    running: RunningServer,
}

impl TestServer {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let running = run(&directory, ([127, 0, 0, 1], 0).into(), change);
        Self { directory, running }
    }

    pub fn address(&self) -> SocketAddr {
        self.running.address()
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address())
    }

    pub fn stop(self) {
        self.running.stop().unwrap();
    }

    /// Stops it in order, and starts it again where it was.
    pub fn restart(self) -> Self {
        let Self { directory, running } = self;
        let address = running.address();
        running.stop().unwrap();
        let running = run(&directory, address, |_| {});
        Self { directory, running }
    }
}

fn run(
    directory: &tempfile::TempDir,
    listen: SocketAddr,
    change: impl FnOnce(&mut Config),
) -> RunningServer {
    let mut config = Config {
        listen,
        data_dir: directory.path().join("data"),
        // The disk's syncs are not what is tested here.
        durability: Durability::Written,
        workers: 1,
        ..Config::default()
    };
    change(&mut config);
    Server::start(config).unwrap()
}

/// After how many bytes in each direction a connection is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    pub to_server: u64,
    pub to_client: u64,
}

impl Cut {
    const NEVER: Self = Self {
        to_server: u64::MAX,
        to_client: u64::MAX,
    };

    pub fn halved(self) -> Self {
        let halved = |bytes| if bytes == u64::MAX { bytes } else { bytes / 2 };
        Self {
            to_server: halved(self.to_server),
            to_client: halved(self.to_client),
        }
    }
}

/// Carries connections to a server, and cuts them.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    is_up: watch::Sender<bool>,
    // Ends with the proxy.
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    /// For the next connections.
    cuts: Mutex<VecDeque<Cut>>,
    connections: AtomicU64,
    open: watch::Sender<u64>,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl Proxy {
    pub async fn new(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let (is_up, _) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(
            listener,
            server,
            Arc::clone(&shared),
            is_up.subscribe(),
        ));
        Self {
            address,
            shared,
            is_up,
            _tasks: tasks,
        }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Cuts the next connections there; those behind them are left alone.
    pub fn cut(&self, cuts: impl IntoIterator<Item = Cut>) {
        self.shared.cuts.lock().unwrap().extend(cuts);
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The bytes carried so far.
    pub fn carried(&self) -> Cut {
        Cut {
            to_server: self.shared.to_server.load(Ordering::Relaxed),
            to_client: self.shared.to_client.load(Ordering::Relaxed),
        }
    }

    /// Cuts every connection, and accepts none that lasts. Returns when all are cut.
    pub async fn down(&self) {
        self.is_up.send_replace(false);
        let mut open = self.shared.open.subscribe();
        open.wait_for(|open| *open == 0).await.unwrap();
    }

    pub fn up(&self) {
        self.is_up.send_replace(true);
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    shared: Arc<Shared>,
    is_up: watch::Receiver<bool>,
) {
    let mut carrying = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        while carrying.try_join_next().is_some() {}
        if !*is_up.borrow() {
            continue;
        }
        let cut = shared.cuts.lock().unwrap().pop_front();
        let cut = cut.unwrap_or(Cut::NEVER);
        shared.connections.fetch_add(1, Ordering::Relaxed);
        shared.open.send_modify(|open| *open += 1);
        let (shared, mut is_up) = (Arc::clone(&shared), is_up.clone());
        carrying.spawn(async move {
            tokio::select! {
                () = carry(client, server, cut, &shared) => {}
                _ = is_up.wait_for(|is_up| !is_up) => {}
            }
            shared.open.send_modify(|open| *open -= 1);
        });
    }
}

/// Carries until one direction is cut or ends; then both are dropped.
async fn carry(client: TcpStream, server: SocketAddr, cut: Cut, shared: &Shared) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        () = pump(client_read, server_write, cut.to_server, &shared.to_server) => {}
        () = pump(server_read, client_write, cut.to_client, &shared.to_client) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, limit: u64, carried: &AtomicU64) {
    let mut chunk = [0; 4096];
    let mut left = limit;
    while left > 0 {
        let room = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let len = match from.read(&mut chunk[..room]).await {
            Ok(0) | Err(_) => return,
            Ok(len) => len,
        };
        if to.write_all(&chunk[..len]).await.is_err() {
            return;
        }
        carried.fetch_add(len as u64, Ordering::Relaxed);
        left -= len as u64;
    }
}

/// A peer that shakes hands and then does what the test wants.
pub struct Peer {
    listener: TcpListener,
}

impl Peer {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.listener.local_addr().unwrap())
    }

    /// The next connection, with its handshake done.
    pub async fn accept(&self) -> WebSocketStream<TcpStream> {
        let (stream, _) = within("a connection", self.listener.accept())
            .await
            .unwrap();
        accept_hdr_async(stream, Agree).await.unwrap()
    }

    /// The next connection, which has had a `Welcome` with a heartbeat of so many milliseconds.
    pub async fn welcome(&self, heartbeat: u64) -> WebSocketStream<TcpStream> {
        let mut socket = self.accept().await;
        let welcome = Welcome {
            session_id: SessionId::random(),
            durable: false,
            resumed: false,
            subscriptions: Vec::new(),
            server: SERVER.into(),
            limits: Limits {
                max_message_size: 1 << 20,
                max_subscriptions: 10,
                heartbeat_interval: heartbeat,
                heartbeat_timeout: heartbeat,
            },
        };
        let mut frame = BytesMut::new();
        let welcome = ServerResponse::Welcome(Box::new(welcome));
        encode_response(&mut frame, None, &welcome);
        // tungstenite makes the head itself; that of the codec has 4 bytes here.
        let payload = frame.freeze().slice(4..);
        socket.send(Message::Binary(payload)).await.unwrap();
        socket
    }
}

/// Agrees to the one subprotocol there is.
struct Agree;

impl Callback for Agree {
    fn on_request(
        self,
        _request: &handshake::Request,
        mut response: handshake::Response,
    ) -> Result<handshake::Response, handshake::ErrorResponse> {
        let name = "sec-websocket-protocol";
        response
            .headers_mut()
            .insert(name, SUBPROTOCOL.parse().unwrap());
        Ok(response)
    }
}
