//! Slow readers, flooding publishers, and everybody else meanwhile.

use tokio::time::{Duration, Instant};

use crate::support::{Client, PATIENCE, Process, Raw, TestServer, encode, named};

/// A binary frame with this command in it.
fn frame(command: &str, fields: serde_cbor::Value) -> Vec<u8> {
    Raw::frame(0x82, &encode(&named(command, fields)))
}

#[tokio::test]
async fn a_slow_reader_gets_everything_in_order_out_of_the_log() {
    for durability in ["Synced", "Memory"] {
        let server = TestServer::with(|config| config.outbox_size = 64 << 10);
        let mut slow = Client::with_small_window(server.address()).await;
        let mut publisher = server.client().await;
        let settings = fields! { "durability": durability };
        let fields = fields! { "subscription_id": "orders", "settings": settings };
        publisher.call("CreateSubscription", fields).await;
        slow.subscribe("orders", "New").await;
        for number in 0..400_u32 {
            let mut data = vec![number as u8; 20_000];
            data[..4].copy_from_slice(&number.to_be_bytes());
            publisher.publish("orders", data).await;
        }
        for number in 0..400_u32 {
            let publication = slow.publication(u64::from(number) + 1).await;
            assert_eq!(publication.bytes("data")[..4], number.to_be_bytes());
            assert_eq!(publication.bytes("data").len(), 20_000);
        }
        // It has caught up, and is served live again.
        publisher.publish("orders", b"live").await;
        slow.publication(401).await;
        slow.hears_nothing().await;
    }
}

#[tokio::test]
async fn a_slow_reader_of_many_subscriptions_gets_each_in_order() {
    let server = TestServer::with(|config| config.outbox_size = 64 << 10);
    let mut slow = Client::with_small_window(server.address()).await;
    let mut publisher = server.client().await;
    let names = ["a", "b", "c", "d"];
    let mut next = std::collections::HashMap::new();
    for name in names {
        let subscribed = slow.subscribe(name, "New").await;
        next.insert(subscribed.uuid("subscription_id"), 1_u64);
    }
    for number in 0..400 {
        publisher.publish(names[number % 4], vec![0; 10_000]).await;
    }
    for _ in 0..400 {
        let publication = slow.next().await.expect("Publication");
        let expected = next.get_mut(&publication.uuid("subscription_id")).unwrap();
        assert_eq!(publication.number("sequence"), *expected);
        *expected += 1;
    }
    slow.hears_nothing().await;
}

#[tokio::test]
async fn a_subscriber_that_catches_up_while_others_publish_meets_the_live_end() {
    let server = TestServer::with(|config| config.outbox_size = 64 << 10);
    let mut publisher = server.client().await;
    publisher.publish_many("orders", 1_500).await;
    let address = server.address();
    let going_on = tokio::spawn(async move {
        for _ in 0..10 {
            publisher.publish_many("orders", 150).await;
        }
    });
    let mut late = Client::connect(address).await;
    late.subscribe("orders", "First").await;
    late.publications(1..=3_000).await;
    going_on.await.unwrap();
    late.hears_nothing().await;
}

#[tokio::test]
async fn a_stuck_reader_holds_nobody_back() {
    let server = TestServer::with(|config| config.outbox_size = 64 << 10);
    let mut stuck = Client::with_small_window(server.address()).await;
    stuck.subscribe("orders", "New").await;
    let mut quick = server.client().await;
    quick.subscribe("orders", "New").await;
    let mut publisher = server.client().await;
    for sequence in 1..=200 {
        publisher.publish("orders", vec![0; 50_000]).await;
        quick.publication(sequence).await;
    }
}

#[tokio::test]
async fn answers_go_in_front_of_queued_publications() {
    let server = TestServer::start();
    let mut publisher = server.client().await;
    for _ in 0..200 {
        publisher.publish("orders", vec![0; 100_000]).await;
    }
    let mut client = Client::with_small_window(server.address()).await;
    client.subscribe("orders", "First").await;
    client.publication(1).await;
    let ping = client.request("Ping", fields! {}).await;
    let mut publications = 1;
    loop {
        let response = client.any().await;
        if response.id == Some(ping) {
            break;
        }
        publications += 1;
        assert_eq!(response.number("sequence"), publications);
    }
    assert!(publications < 60, "Pong came behind {publications}");
    client.publications(publications + 1..=200).await;
}

#[tokio::test]
async fn memory_for_readers_that_do_not_read_is_bounded_however_much_is_published() {
    let mut readers = Vec::new();
    let server = Process::start(&[("OUTBOX_SIZE", "256KiB"), ("WORKERS", "2")]);
    let mut publisher = server.client().await;
    // Four subscriptions of which little is kept, so that what grows is what is held for the readers.
    let names = ["a", "b", "c", "d"];
    for name in names {
        let retention = fields! { "max_bytes": 1_000_000 };
        let settings = fields! { "durability": "Memory", "retention": retention };
        let fields = fields! { "subscription_id": name, "settings": settings };
        publisher.call("CreateSubscription", fields).await;
        for _ in 0..5 {
            let mut reader = Client::with_small_window(server.address()).await;
            reader.subscribe(name, "New").await;
            readers.push(reader);
        }
    }
    let before = server.memory();
    for number in 0..1_000_usize {
        let data = vec![number as u8; 200_000];
        let fields = fields! { "subscription_id": names[number % 4], "submission": data };
        publisher.call("SubmitPublication", fields).await;
    }
    let growth = server.memory().saturating_sub(before);
    // Twice the outbox for each of the 20, the logs, and what allocators keep.
    assert!(growth < 30 << 20, "grew by {} KiB", growth >> 10);

    // What is no longer kept is told; what is kept comes.
    let mut reader = readers.pop().expect("invariant: twenty were made");
    let (mut position, mut gaps) = (0, 0);
    while position < 250 {
        let response = reader.next().await;
        if response.name == "Gap" {
            assert_eq!(response.number("from"), position + 1);
            position = response.number("to");
            gaps += 1;
        } else {
            position += 1;
            assert_eq!(response.expect("Publication").number("sequence"), position);
        }
    }
    assert!(gaps > 0);
}

#[tokio::test]
async fn a_publisher_that_floods_and_reads_no_answers_is_held_back_and_nobody_else() {
    let server = Process::start(&[("WORKERS", "2"), ("WRITE_TIMEOUT", "10m")]);
    let mut other = server.client().await;
    other.publish("other", b"x").await;
    let mut flooder = Raw::connect(server.address(), Some(16 << 10)).await;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address()
    );
    flooder.write(request.as_bytes()).await;
    flooder.head_of_answer().await;
    flooder.response().await.expect("Welcome");
    let before = server.memory();

    // Requests of about 150 bytes, until the server has taken nothing for a second.
    let mut id = 0_u64;
    let mut pending: Vec<u8> = Vec::new();
    let begun = Instant::now();
    let mut progress = Instant::now();
    while progress.elapsed() < Duration::from_secs(1) {
        assert!(begun.elapsed() < 2 * PATIENCE, "never held back");
        while pending.len() < 64 << 10 {
            id += 1;
            let fields = fields! { "subscription_id": "flood", "submission": &[0; 100] };
            let request = serde_cbor::Value::Array(vec![
                serde_cbor::Value::Integer(id.into()),
                named("SubmitPublication", fields),
            ]);
            pending.extend(Raw::frame(0x82, &encode(&request)));
        }
        match flooder.write_now(&pending) {
            // The server has the core meanwhile.
            0 => other.call("Ping", fields! {}).await.number("time"),
            written => {
                progress = Instant::now();
                pending.drain(..written).count() as u64
            }
        };
    }
    let growth = server.memory().saturating_sub(before);
    assert!(growth < 100 << 20, "grew by {} KiB", growth >> 10);

    // Nobody else waits for it.
    for _ in 0..20 {
        let begun = Instant::now();
        other.publish("other", b"x").await;
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    // When it reads again, it finds its answers in order, and can go on.
    for expected in 1..=1_000 {
        let answer = flooder.response().await.expect("Submitted");
        assert_eq!(answer.id, Some(expected));
        assert_eq!(answer.number("sequence"), expected);
    }
}

#[tokio::test]
async fn bare_commands_of_a_flooding_publisher_are_all_applied_in_order() {
    let server = TestServer::start();
    let mut raw = Raw::open(server.address(), "/ws").await;
    let mut bytes = Vec::new();
    for number in 0..20_000_u32 {
        let data = number.to_be_bytes();
        let fields = fields! { "subscription_id": "orders", "submission": &data };
        bytes.extend(frame("SubmitPublication", fields));
    }
    bytes.extend(frame("Ping", fields! {}));
    raw.write(&bytes).await;
    raw.response().await.expect("Pong");
    let mut client = server.client().await;
    let log = client.log("orders").await;
    assert_eq!(log.len(), 20_000);
    for (number, entry) in (0_u32..).zip(&log) {
        assert_eq!(entry.bytes("data"), number.to_be_bytes());
    }
}
