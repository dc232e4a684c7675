//! Section 1: heartbeat and stuck peers.

use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::support::{Client, Event, Raw, TestServer, encode, eventually, named};

fn short_heartbeat() -> TestServer {
    TestServer::with(|config| {
        config.heartbeat_interval = Duration::from_millis(200);
        config.heartbeat_timeout = Duration::from_millis(700);
    })
}

#[tokio::test]
async fn the_server_pings_and_a_peer_that_answers_stays() {
    let server = short_heartbeat();
    let mut client = server.client().await;
    let begun = Instant::now();
    client.wait_for_pings(6).await;
    assert!(begun.elapsed() >= Duration::from_millis(900));
    client.call("Ping", fields! {}).await;
}

#[tokio::test]
async fn welcome_tells_the_heartbeat() {
    let server = short_heartbeat();
    let limits = server.client().await.welcome.map("limits");
    assert_eq!(limits.number("heartbeat_interval"), 200);
    assert_eq!(limits.number("heartbeat_timeout"), 700);
}

#[tokio::test]
async fn a_peer_not_heard_for_too_long_is_closed_with_4008() {
    let server = short_heartbeat();
    let begun = Instant::now();
    let mut raw = Raw::open(server.address(), "/ws").await;
    let ping = raw.read().await.unwrap();
    assert_eq!(ping.opcode, 9);
    assert_eq!(raw.closed().await, 4008);
    assert!(begun.elapsed() >= Duration::from_millis(900));
}

#[tokio::test]
async fn any_byte_received_is_heard() {
    let server = short_heartbeat();
    let mut raw = Raw::open(server.address(), "/ws").await;
    let begun = Instant::now();
    // One command, a byte for each ping: no frame is ever finished in the time that is allowed.
    let submit = encode(&named(
        "SubmitPublication",
        fields! { "subscription_id": "orders", "submission": b"x" },
    ));
    let frame = Raw::frame(0x82, &submit);
    for byte in &frame[..8] {
        raw.write(&[*byte]).await;
        assert_eq!(raw.read().await.unwrap().opcode, 9);
    }
    assert!(begun.elapsed() > Duration::from_millis(1_000));
    raw.write(&frame[8..]).await;
    let mut client = server.client().await;
    eventually("the command is applied", async || {
        let response = client
            .ask("GetSubscription", fields! { "subscription_id": "orders" })
            .await;
        response.name == "SubscriptionMeta"
    })
    .await;
}

/// Publishes so many publications of 100,000 bytes to `orders`.
async fn publish_large(server: &TestServer, count: usize) {
    let mut client = server.client().await;
    for number in 0..count {
        client.publish("orders", vec![number as u8; 100_000]).await;
    }
}

/// A subscriber of `orders` from the first on, whose kernel takes little, and who has not read anything yet.
async fn subscribed_raw(server: &TestServer) -> Raw {
    let mut raw = Raw::connect(server.address(), Some(16 << 10)).await;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address()
    );
    raw.write(request.as_bytes()).await;
    raw.head_of_answer().await;
    raw.response().await.expect("Welcome");
    let subscribe = fields! { "subscription_id": "orders", "from": "First" };
    raw.send(0x82, &encode(&named("Subscribe", subscribe)))
        .await;
    raw
}

#[tokio::test]
async fn a_peer_that_only_takes_publications_slowly_is_heard() {
    let server = short_heartbeat();
    publish_large(&server, 60).await;
    let mut raw = subscribed_raw(&server).await;
    // It answers no ping, but takes what waits for it, 16 KiB at a time: for three seconds, far longer than it may be silent.
    let mut pace = interval(Duration::from_millis(20));
    let mut taken = 0;
    for _ in 0..150 {
        pace.tick().await;
        let bytes = raw.discard(16 << 10).await;
        assert!(bytes > 0, "closed after {taken} bytes");
        taken += bytes;
    }
    assert!(taken < 6_000_000);
    let mut client = server.client().await;
    assert_eq!(client.meta("orders").await.number("connected"), 1);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_of_what_waits_for_it_is_closed_with_4009() {
    let server = TestServer::with(|config| config.write_timeout = Duration::from_millis(500));
    publish_large(&server, 100).await;
    let mut stuck = Client::with_small_window(server.address()).await;
    let fields = fields! { "subscription_id": "orders", "from": "First" };
    stuck.request("Subscribe", fields).await;
    let mut watcher = server.client().await;
    eventually("it subscribes", async || {
        watcher.meta("orders").await.number("connected") == 1
    })
    .await;
    eventually("it is given up", async || {
        watcher.meta("orders").await.number("connected") == 0
    })
    .await;
    let mut sequence = 0;
    let end = loop {
        match stuck.event().await {
            Event::Response(response) if response.name == "Publication" => sequence += 1,
            Event::Response(_) => {}
            end => break end,
        }
    };
    assert!(sequence < 100, "it got everything");
    // It may have come back too late to hear why.
    if let Event::Closed(code) = end {
        assert_eq!(code, Some(4009));
    }
}

#[tokio::test]
async fn a_peer_for_whom_nothing_waits_is_never_stuck() {
    let server = TestServer::with(|config| {
        config.write_timeout = Duration::from_millis(100);
        config.heartbeat_interval = Duration::from_millis(200);
    });
    let mut idle = server.client().await;
    idle.subscribe("orders", "New").await;
    let mut other = server.client().await;
    other.wait_for_pings(7).await;
    other.publish("orders", b"x").await;
    idle.publication(1).await;
}

#[tokio::test]
async fn pings_go_in_front_of_queued_publications() {
    let server = TestServer::with(|config| {
        config.heartbeat_interval = Duration::from_millis(300);
        config.heartbeat_timeout = Duration::from_secs(20);
    });
    publish_large(&server, 200).await;
    let mut raw = subscribed_raw(&server).await;
    // While it reads nothing, others had their pings, so it had one, too.
    server.client().await.wait_for_pings(3).await;
    let mut publications = 0;
    loop {
        let frame = raw.read().await.unwrap();
        match frame.opcode {
            9 => break,
            _ => publications += 1,
        }
    }
    assert!(publications < 50, "the ping came behind {publications}");
}
