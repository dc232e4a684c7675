//! Clients that are slow, stop, or are gone without a word. What bounds the memory that they cost: of publications, the outbox of each (whatever
//! is behind that is read from the log again); of commands and their answers, the credit of each; of both, what one connection can have
//! at most, however much is published or asked.

use std::time::Duration;

use serde_cbor::Value;
use tokio::time::{Instant, interval};
use uuid::Uuid;

use crate::support::{
    Client, Event, PATIENCE, Process, Raw, Response, encode, eventually, handshake, named,
};

const MIB: u64 = 1 << 20;

/// `command` under this request id, as a frame.
fn request(id: u64, command: &str, fields: Value) -> Vec<u8> {
    let item = Value::Array(vec![Value::Integer(id.into()), named(command, fields)]);
    Raw::frame(0x82, &encode(&item))
}

/// `command` without a request id, as a frame.
fn bare(command: &str, fields: Value) -> Vec<u8> {
    Raw::frame(0x82, &encode(&named(command, fields)))
}

/// A WebSocket as its bytes that had its `Welcome`; its kernel takes few bytes that nobody reads.
async fn small_window(server: &Process) -> Raw {
    let mut raw = Raw::connect(server.address(), Some(16 << 10)).await;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address()
    );
    raw.write(request.as_bytes()).await;
    raw.head_of_answer().await;
    raw.response().await.expect("Welcome");
    raw
}

/// A durable session that reads everything once, over as many connections as it takes, and acknowledges what it has.
struct Careful {
    session: Uuid,
    client: Client,
    position: u64,
    times_closed: usize,
}

impl Careful {
    async fn of(server: &Process) -> Self {
        let session = Uuid::new_v4();
        let path = format!("/ws/{session}");
        let mut client = Client::open(server.address(), &path, Some(16 << 10)).await;
        client.subscribe("news", "New").await;
        Self {
            session,
            client,
            position: 0,
            times_closed: 0,
        }
    }

    /// Reads up to this sequence; each comes, in order.
    async fn reads_up_to(&mut self, server: &Process, last: u64) {
        while self.position < last {
            match self.client.event().await {
                Event::Response(response) if response.name == "Publication" => {
                    let sequence = response.number("sequence");
                    // Behind a new connection, what was not acknowledged comes again.
                    assert!(sequence <= self.position + 1, "{} is lost", sequence - 1);
                    self.position = self.position.max(sequence);
                }
                Event::Response(response) => _ = response.expect("Acknowledged"),
                Event::Closed(_) | Event::Ended(_) => {
                    self.times_closed += 1;
                    self.client = server.resume(self.session).await;
                    assert!(self.client.welcome.truth("resumed"));
                }
            }
        }
        let fields = fields! { "subscription_id": "news", "sequence": last };
        self.client.request("Acknowledge", fields).await;
    }
}

/// One reader stops for `pause` among so many that do not, while something is published all the time. Gives how often it was closed.
async fn one_stops(server: &Process, readers: usize, pause: Duration, pace: Duration) -> usize {
    let mut publisher = server.client().await;
    let mut stopping = Careful::of(server).await;
    let mut others = Vec::new();
    for _ in 0..readers {
        let mut client = server.client().await;
        client.subscribe("news", "New").await;
        others.push(client);
    }
    let data = vec![7; 8 << 10];
    publisher.publish("news", &data[..]).await;
    stopping.reads_up_to(server, 1).await;
    let before = server.memory();
    let (told, count) = tokio::sync::watch::channel(u64::MAX);
    let reading: Vec<_> = others
        .into_iter()
        .map(|mut client| {
            let count = count.clone();
            tokio::spawn(async move {
                let mut sequence = 0;
                while sequence < *count.borrow() {
                    sequence += 1;
                    client.publication(sequence).await;
                }
            })
        })
        .collect();
    let begun = Instant::now();
    let mut pace = interval(pace);
    let (mut sequence, mut most) = (1, 0);
    let mut last = None;
    while last.is_none() {
        pace.tick().await;
        // More than lies in the kernel and the outbox for somebody who does not read.
        if begun.elapsed() >= pause && sequence >= 100 {
            last = Some(sequence + 1);
            told.send_replace(sequence + 1);
        }
        publisher.publish("news", &data[..]).await;
        sequence += 1;
        most = most.max(server.memory());
    }
    for reading in reading {
        reading.await.unwrap();
    }
    let others_after = begun.elapsed();
    stopping.reads_up_to(server, sequence).await;
    let grown = most.saturating_sub(before);
    println!(
        "{sequence} publications; the others had all after {others_after:?}, who stopped after {:?}; {grown} bytes",
        begun.elapsed()
    );
    assert!(grown < 32 * MIB, "{grown} bytes");
    stopping.times_closed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_for_a_while_loses_nothing_and_holds_nobody_up() {
    let server = Process::start(&[("OUTBOX_SIZE", "64KiB"), ("DURABILITY", "Written")]);
    let closed = one_stops(
        &server,
        200,
        Duration::from_secs(1),
        Duration::from_millis(5),
    )
    .await;
    assert_eq!(closed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_for_longer_than_it_may_comes_back_and_loses_nothing() {
    let server = Process::start(&[
        ("OUTBOX_SIZE", "64KiB"),
        ("DURABILITY", "Written"),
        ("HEARTBEAT_INTERVAL", "500ms"),
        ("HEARTBEAT_TIMEOUT", "1s"),
    ]);
    let closed = one_stops(
        &server,
        50,
        Duration::from_secs(3),
        Duration::from_millis(5),
    )
    .await;
    assert!(closed > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: with the times of a fresh installation"]
async fn a_reader_that_stops_for_a_minute_among_a_thousand_loses_nothing() {
    let server = Process::start(&[("MAX_CONNECTIONS", "2000")]);
    let pause = Duration::from_secs(60);
    let closed = one_stops(&server, 1_000, pause, Duration::from_millis(100)).await;
    // Nothing was heard of it for 35 s.
    assert_eq!(closed, 1);
}

/// A reader takes `bite` bytes every `pace`, behind somebody who publishes as fast as the server takes it, at most 50 MB a second, for `time`.
async fn one_is_slow(server: &Process, bite: usize, pace: Duration, time: Duration) {
    const PIECE: usize = 50_000;
    let mut watcher = server.client().await;
    watcher.publish("flood", vec![0; PIECE]).await;
    let mut slow = small_window(server).await;
    let from = fields! { "subscription_id": "flood", "from": "First" };
    slow.write(&bare("Subscribe", from)).await;
    let before = server.memory();

    let address = server.address();
    let flood = tokio::spawn(async move {
        let mut publisher = Raw::open(address, "/ws").await;
        let fields = fields! { "subscription_id": "flood", "submission": vec![7_u8; PIECE] };
        let ten = bare("SubmitPublication", fields).repeat(10);
        let begun = Instant::now();
        let mut pace = interval(Duration::from_millis(10));
        let mut sent = 1;
        while begun.elapsed() < time {
            pace.tick().await;
            publisher.write(&ten).await;
            sent += 10;
        }
        publisher.write(&bare("Ping", fields! {})).await;
        publisher.response().await.expect("Pong");
        sent
    });
    let mut taken = 0;
    let mut most = 0;
    let mut bites = interval(pace);
    let begun = Instant::now();
    let mut unread = Vec::new();
    while !flood.is_finished() {
        bites.tick().await;
        let bytes = slow.take(bite).await;
        assert!(!bytes.is_empty(), "closed after {taken} bytes");
        taken += bytes.len();
        unread.extend(bytes);
        most = most.max(server.memory());
    }
    let published = flood.await.unwrap();
    let took = begun.elapsed();
    slow.unread(unread);
    let grown = most.saturating_sub(before);
    println!(
        "{published} publications of 50 kB in {took:?}, of which it took {taken} bytes; {grown} bytes"
    );
    assert!(taken < published * PIECE / 2, "it was not slow");
    assert!(grown < 160 * MIB, "{grown} bytes");
    // Nothing is lost: it reads on at its own pace, which is quick now.
    for sequence in 1..=published as u64 {
        let publication = slow.response().await.expect("Publication");
        assert_eq!(publication.number("sequence"), sequence);
        assert_eq!(publication.bytes("data").len(), PIECE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_behind_a_flood_is_not_cut_off_and_loses_nothing() {
    let server = Process::start(&[
        ("DURABILITY", "Written"),
        ("HEARTBEAT_INTERVAL", "300ms"),
        ("HEARTBEAT_TIMEOUT", "700ms"),
        ("WRITE_TIMEOUT", "1s"),
    ]);
    let pace = Duration::from_millis(10);
    one_is_slow(&server, 1_000, pace, Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes 90 s and writes 4.5 GB: with the times of a fresh installation"]
async fn a_reader_at_a_kilobyte_a_second_behind_fifty_megabytes_a_second_loses_nothing() {
    let server = Process::start(&[("DURABILITY", "Written")]);
    one_is_slow(
        &server,
        1_000,
        Duration::from_secs(1),
        Duration::from_secs(90),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_gone_without_a_word_give_back_what_they_hold_and_their_places() {
    const GONE: usize = 50;
    let server = Process::start(&[
        ("DURABILITY", "Written"),
        ("MAX_CONNECTIONS", "52"),
        ("HEARTBEAT_INTERVAL", "300ms"),
        ("HEARTBEAT_TIMEOUT", "900ms"),
    ]);
    let mut publisher = server.client().await;
    let queue = fields! { "subscription_id": "work", "kind": "Queue" };
    publisher.call("CreateSubscription", queue).await;
    let mut gone = Vec::new();
    for _ in 0..GONE {
        let mut raw = small_window(&server).await;
        let fields = fields! { "subscription_id": "work", "prefetch": 10 };
        raw.write(&bare("Subscribe", fields)).await;
        raw.write(&bare("Ping", fields! {})).await;
        raw.response().await.expect("Pong");
        // From now on nobody is there who would read or write; the kernel still is.
        gone.push(raw);
    }
    let ids = publisher.publish_many("work", 500).await;
    // Their places are taken: one is free, and whoever comes second is told to come later.
    let mut worker = server.client().await;
    assert_eq!(handshake(server.address(), "/ws", &[]).await.status, 503);
    let fields = fields! { "subscription_id": "work", "prefetch": 1_000 };
    worker.call("Subscribe", fields).await;
    let mut got = std::collections::BTreeSet::new();
    while got.len() < ids.len() {
        let publication = worker.next().await.expect("Publication");
        let id = publication.uuid("publication_id");
        got.insert(id);
        let fields = fields! { "subscription_id": "work", "publication_ids": [id] };
        worker.send_bare("Acknowledge", fields).await;
    }
    assert_eq!(got, ids.into_iter().collect());
    eventually("their places are free", async || {
        handshake(server.address(), "/ws", &[]).await.status == 101
    })
    .await;
    for mut raw in gone {
        raw.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_ends_its_half_of_the_connection_is_applied_to_the_last_byte() {
    let server = Process::start(&[("DURABILITY", "Written")]);
    let mut raw = Raw::open(server.address(), "/ws").await;
    let fields = fields! { "subscription_id": "orders", "submission": &[7; 1_000] };
    raw.write(&bare("SubmitPublication", fields).repeat(5_000))
        .await;
    raw.finish().await;
    let mut client = server.client().await;
    eventually("all are there", async || {
        let fields = fields! { "subscription_id": "orders" };
        let meta = client.ask("GetSubscription", fields).await;
        meta.name == "SubscriptionMeta" && meta.number("last_sequence") == 5_000
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_never_reads_its_answers_is_given_up_and_what_was_taken_is_kept() {
    let server = Process::start(&[
        ("DURABILITY", "Written"),
        ("HEARTBEAT_INTERVAL", "300ms"),
        ("HEARTBEAT_TIMEOUT", "300ms"),
        ("WRITE_TIMEOUT", "1s"),
    ]);
    server.client().await.publish("flood", b"first").await;
    let before = server.memory();
    let mut most = before;
    let mut flooder = small_window(&server).await;
    let begun = Instant::now();
    let (mut id, mut is_open) = (0, true);
    while is_open {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            id += 1;
            let data = u64::to_be_bytes(id);
            let fields = fields! { "subscription_id": "flood", "submission": &data };
            bytes.extend(request(id, "SubmitPublication", fields));
        }
        is_open = flooder.try_write(&bytes).await;
        most = most.max(server.memory());
        assert!(begun.elapsed() < 2 * PATIENCE, "never given up");
    }
    let grown = most - before;
    let log = server.client().await.log("flood").await;
    println!("{} of {id} were taken; {grown} bytes", log.len() - 1);
    assert!(grown < 32 * MIB, "{grown} bytes");
    assert!(log.len() > 1_000 && log.len() as u64 <= id);
    for (number, entry) in (1_u64..).zip(&log[1..]) {
        assert_eq!(entry.bytes("data"), number.to_be_bytes());
    }
}

/// So many connections ask for as much as there is, again and again, and read nothing of it. Gives what that cost.
async fn nobody_takes_the_pages(variables: &[(&str, &str)], connections: usize) -> u64 {
    let server = Process::start(variables);
    let mut witness = server.client().await;
    for _ in 0..60 {
        witness.publish("pages", vec![7; 100_000]).await;
    }
    let before = server.memory();
    let mut asking: Vec<(Raw, Vec<u8>)> = Vec::new();
    for _ in 0..connections {
        let raw = small_window(&server).await;
        let ask = |id| request(id, "GetLogEntries", fields! { "log_id": "pages" });
        asking.push((raw, (1..=200).flat_map(ask).collect()));
    }
    let mut most = 0;
    let mut progress = Instant::now();
    while progress.elapsed() < Duration::from_secs(1) {
        for (raw, bytes) in &mut asking {
            let written = raw.write_now(bytes);
            bytes.drain(..written);
        }
        witness.publish("others", b"x").await;
        let now = server.memory();
        if now > most {
            (most, progress) = (now, Instant::now());
        }
    }
    // Who reads after all gets every answer, whole and in order.
    let (mut raw, _) = asking.pop().unwrap();
    for id in 1..=5 {
        let answer: Response = raw.response().await.expect("DataLogEntry");
        assert_eq!(answer.id, Some(id));
        assert_eq!(answer.maps("publications")[0].bytes("data").len(), 100_000);
    }
    most.saturating_sub(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_pages_that_nobody_takes_a_connection_holds_two() {
    const CONNECTIONS: u64 = 8;
    for (largest, variables) in [
        ("256KiB", &[("WORKERS", "2")][..]),
        ("8MiB", &[("WORKERS", "2"), ("MAX_MESSAGE_SIZE", "8MiB")]),
    ] {
        let grown = nobody_takes_the_pages(variables, CONNECTIONS as usize).await;
        println!("{largest}: {grown} bytes");
        // Two of 4 MiB for each connection, what is read at the moment, and what allocators keep.
        assert!(
            grown < (CONNECTIONS * 8 + 64) * MIB,
            "{largest}: {grown} bytes"
        );
    }
}
