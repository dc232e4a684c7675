//! Clients that do what no good client does: whatever they send, and however little, memory and time stay bounded, and others are served
//! meanwhile. The rules that they break, and how each is answered, are in `tests/protocol`.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(
    clippy::print_stdout,
    reason = "what was measured is there for who asks"
)]

#[macro_use]
mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use support::{Client, PATIENCE, Process, Raw, encode, eventually, handshake, named};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Mutex,
    time::{Instant, timeout},
};

const MIB: u64 = 1 << 20;

/// What is served meanwhile: so many publications, each acknowledged and delivered before the next.
const ROUNDS: u64 = 100;

/// Sockets that a crowd has. The limit on open files has to allow them for this process and for the server each.
const CROWD: usize = 10_000;

/// One crowd at a time: two would be over the limit.
static CROWDED: Mutex<()> = Mutex::const_new(());

/// A client that subscribes to a subscription of its own, connected before anything bad begins.
struct Witness {
    client: Client,
    name: &'static str,
    sequence: u64,
}

impl Witness {
    async fn of(server: &Process) -> Self {
        let mut client = server.client().await;
        client.subscribe("witnessed", "New").await;
        Self {
            client,
            name: "witnessed",
            sequence: 0,
        }
    }

    /// Publishes and receives, and gives how long the slowest round took.
    async fn is_served(&mut self) -> Duration {
        let mut slowest = Duration::ZERO;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            self.sequence += 1;
            self.client.publish(self.name, b"x").await;
            self.client.publication(self.sequence).await;
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    }

    /// Is served until a crowd is gone; gives how long its slowest round took.
    async fn outlives(&mut self, crowd: Vec<TcpStream>) -> Duration {
        let waiting = tokio::spawn(async move {
            for mut stream in crowd {
                let mut rest = Vec::new();
                let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
                assert!(ended.is_ok(), "one is still there");
            }
        });
        let mut slowest = Duration::ZERO;
        while !waiting.is_finished() {
            slowest = slowest.max(self.is_served().await);
        }
        waiting.await.unwrap();
        slowest
    }
}

/// Does one thing over and over until it is stopped, or until the server ends the connection. What comes back is not read.
struct Flood {
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u64>,
}

impl Flood {
    /// Of `bytes`, over `stream`.
    fn of(mut stream: TcpStream, bytes: Vec<u8>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let task = tokio::spawn(async move {
            let mut sent = 0;
            while !stop.load(Relaxed) {
                // A server that takes no more is not waited for: whoever floods would not mind.
                match timeout(Duration::from_millis(50), stream.write(&bytes)).await {
                    Ok(Ok(written)) => sent += written as u64,
                    Ok(Err(_)) => break,
                    Err(_) => {}
                }
            }
            sent
        });
        Self { is_over, task }
    }

    /// Stops it. Gives how many bytes it could send.
    async fn stop(self) -> u64 {
        self.is_over.store(true, Relaxed);
        self.task.await.unwrap()
    }
}

fn growth(server: &Process, before: u64) -> u64 {
    server.memory().saturating_sub(before)
}

/// A WebSocket as its bytes, which had its `Welcome`; its kernel takes few bytes that nobody reads.
async fn websocket(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(request(address).as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(7).any(|seven| seven == b"Welcome") {
        let read = timeout(PATIENCE, stream.read_buf(&mut seen)).await;
        assert!(read.unwrap().unwrap() > 0, "ended before Welcome");
    }
    stream
}

fn request(address: SocketAddr) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declared_lengths_cost_no_memory() {
    let server = Process::start(&[("DURABILITY", "Memory"), ("MAX_MESSAGE_SIZE", "16MiB")]);
    let mut witness = Witness::of(&server).await;
    let before = server.memory();
    let mut declaring = Vec::new();
    for _ in 0..100 {
        let mut raw = Raw::open(server.address(), "/ws").await;
        // 1,600 MiB in all, if somebody believed it. What is over the limit is not even waited for: see `tests/protocol/transport.rs`.
        raw.write(&Raw::head(0x82, 16 << 20)).await;
        raw.write(b"x").await;
        declaring.push(raw);
    }
    witness.is_served().await;
    let grown = growth(&server, before);
    assert!(grown < 16 * MIB, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_continuation_holds_nobody_up() {
    // Empty fragments never exceed any size. That the others do is in `tests/protocol/transport.rs`.
    endless_message_holds_nobody_up(Raw::frame(0x00, b"").repeat(10_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_between_fragments_that_nobody_reads_the_pongs_of_hold_nobody_up() {
    let pair = [Raw::frame(0x89, &[7; 125]), Raw::frame(0x00, b"")].concat();
    endless_message_holds_nobody_up(pair.repeat(1000)).await;
}

/// Begins a message, and goes on with `frames` again and again.
async fn endless_message_holds_nobody_up(frames: Vec<u8>) {
    let server = Process::start(&[("DURABILITY", "Memory"), ("WORKERS", "1")]);
    let mut witness = Witness::of(&server).await;
    let before = server.memory();
    let mut stream = websocket(server.address()).await;
    stream.write_all(&Raw::frame(0x02, b"x")).await.unwrap();
    let flood = Flood::of(stream, frames);
    let slowest = witness.is_served().await;
    let sent = flood.stop().await;
    assert!(sent > MIB, "only {sent} bytes were sent");
    let grown = growth(&server, before);
    println!("{sent} bytes were sent; {grown} bytes; the slowest round took {slowest:?}");
    assert!(grown < 16 * MIB, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_byte_by_byte_hold_nobody_up() {
    let server = Process::start(&[("DURABILITY", "Memory"), ("WORKERS", "1")]);
    let mut witness = Witness::of(&server).await;
    let stream = websocket(server.address()).await;
    stream.set_nodelay(true).unwrap();
    let frame = Raw::frame(0x82, &encode(&named("Ping", fields! {})));
    let (mut read, mut write) = stream.into_split();
    let sent = 500;
    let writing = tokio::spawn(async move {
        for byte in frame.repeat(sent) {
            write.write_all(&[byte]).await.unwrap();
        }
        write
    });
    witness.is_served().await;
    let mut answered = 0;
    let mut seen = Vec::new();
    while answered < sent {
        let more = timeout(PATIENCE, read.read_buf(&mut seen)).await;
        assert!(more.unwrap().unwrap() > 0, "ended after {answered} answers");
        answered = seen.windows(4).filter(|four| *four == b"Pong").count();
    }
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_never_ends_is_dropped_in_time() {
    let server = Process::start(&[("DURABILITY", "Memory"), ("HANDSHAKE_TIMEOUT", "1s")]);
    let mut witness = Witness::of(&server).await;
    let before = server.memory();
    let begun = Instant::now();
    let mut trickling = Vec::new();
    for _ in 0..100 {
        let mut raw = Raw::connect(server.address(), None).await;
        raw.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n").await;
        trickling.push(raw);
    }
    // A header now and then is no reason to wait longer.
    let mut is_trickling = true;
    while is_trickling {
        witness.is_served().await;
        for raw in &mut trickling {
            is_trickling &= raw.try_write(b"X-More: x\r\n").await;
        }
        assert!(begun.elapsed() < PATIENCE, "they are still listened to");
    }
    for mut raw in trickling {
        while raw.discard(1024).await > 0 {}
    }
    assert!(begun.elapsed() >= Duration::from_millis(900));
    let grown = growth(&server, before);
    assert!(grown < 16 * MIB, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_of_endless_headers_ends_before_it_costs_much() {
    let server = Process::start(&[("DURABILITY", "Memory"), ("HANDSHAKE_TIMEOUT", "1m")]);
    let mut witness = Witness::of(&server).await;
    let before = server.memory();
    let mut floods = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream
            .write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n")
            .await
            .unwrap();
        floods.push(Flood::of(stream, b"X-More: x\r\n".repeat(1000)));
    }
    witness.is_served().await;
    eventually("all are refused", async || {
        floods.iter().all(|flood| flood.task.is_finished())
    })
    .await;
    let grown = growth(&server, before);
    println!("headers: {grown} bytes");
    assert!(grown < 32 * MIB, "{grown} bytes");
}

/// A server that takes a crowd; `None` where so many files can't be open.
async fn crowded_server(variables: &[(&str, &str)]) -> Option<Process> {
    let wanted = CROWD as u64 + 1_000;
    let allowed = rlimit::increase_nofile_limit(wanted).unwrap();
    if allowed < wanted {
        println!("left out: the limit on open files is {allowed}, and {wanted} are needed");
        return None;
    }
    let usual = [("DURABILITY", "Memory"), ("MAX_CONNECTIONS", "12000")];
    Some(Process::start(&[&usual, variables].concat()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_that_begin_no_handshake_hold_nobody_up() {
    let _alone = CROWDED.lock().await;
    let Some(server) = crowded_server(&[("HANDSHAKE_TIMEOUT", "3s")]).await else {
        return;
    };
    let mut witness = Witness::of(&server).await;
    let before = server.memory();
    let begun = Instant::now();
    let mut crowd = Vec::with_capacity(CROWD);
    while crowd.len() < CROWD {
        crowd.push(TcpStream::connect(server.address()).await.unwrap());
    }
    witness.is_served().await;
    let grown = growth(&server, before);
    // Whoever comes meanwhile is served, too, at the latest when the crowd's time is up.
    timeout(PATIENCE, server.client()).await.unwrap();
    let newcomer_after = begun.elapsed();
    let slowest = witness.outlives(crowd).await;
    println!(
        "{grown} bytes; a newcomer came in after {newcomer_after:?}; the slowest round took {slowest:?}; all were gone after {:?}",
        begun.elapsed()
    );
    assert!(grown < 300 * MIB, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_that_say_nothing_cost_little_and_are_given_up() {
    let _alone = CROWDED.lock().await;
    let variables = [("HEARTBEAT_INTERVAL", "5s"), ("HEARTBEAT_TIMEOUT", "2s")];
    let Some(server) = crowded_server(&variables).await else {
        return;
    };
    let mut witness = Witness::of(&server).await;
    let before = server.memory();
    let begun = Instant::now();
    let mut crowd = Vec::with_capacity(CROWD);
    let request = request(server.address());
    while crowd.len() < CROWD {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        crowd.push(stream);
    }
    let connected_after = begun.elapsed();
    witness.is_served().await;
    let grown = growth(&server, before);
    let newcomer = handshake(server.address(), "/ws", &[]).await;
    assert_eq!(newcomer.status, 101);
    let slowest = witness.outlives(crowd).await;
    println!(
        "{grown} bytes; all were connected after {connected_after:?}; the slowest round took {slowest:?}; all were gone after {:?}",
        begun.elapsed()
    );
    assert!(grown < 100 * MIB, "{grown} bytes");
}
