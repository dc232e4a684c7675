//! Section 1: stopping in order.

use std::time::{Duration, Instant};

use crate::support::{Client, Event, Process, Raw, TestServer, encode, named};

#[tokio::test]
async fn every_connection_is_closed_with_1001() {
    let mut server = TestServer::start();
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(server.client().await);
    }
    let closing = async {
        for client in &mut clients {
            assert_eq!(client.closed().await, 1001);
        }
    };
    tokio::join!(closing, server.stop());
}

#[tokio::test]
async fn what_was_accepted_is_committed_and_answered_before_the_close() {
    for durability in ["Synced", "Written"] {
        let mut server = TestServer::start();
        let mut client = server.client().await;
        let settings = fields! { "durability": durability };
        let fields = fields! { "subscription_id": "orders", "settings": settings };
        client.call("CreateSubscription", fields).await;
        for _ in 0..2_000 {
            let fields = fields! { "subscription_id": "orders", "submission": &[7; 50] };
            client.request("SubmitPublication", fields).await;
        }
        let reading = async {
            let mut answered = 0;
            loop {
                match client.event().await {
                    Event::Response(response) if response.name == "Submitted" => {
                        answered += 1;
                        assert_eq!(response.number("sequence"), answered);
                    }
                    Event::Response(response) => {
                        response.expect_error("shutting-down");
                    }
                    Event::Closed(code) => {
                        assert_eq!(code, Some(1001));
                        break answered;
                    }
                    Event::Ended(why) => panic!("ended without a Close: {why}"),
                }
            }
        };
        let (answered, ()) = tokio::join!(reading, server.stop());
        server.start_again().await;
        let mut client = server.client().await;
        let last = client.meta("orders").await.number("last_sequence");
        assert_eq!(last, answered, "what is in the log was answered");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_hold_the_stop_back_for_ever() {
    let mut server = TestServer::with(|config| {
        config.shutdown_timeout = Duration::from_millis(500);
    });
    let mut publisher = server.client().await;
    for _ in 0..50 {
        publisher.publish("orders", vec![0; 200_000]).await;
    }
    let mut stuck = Client::with_small_window(server.address()).await;
    let fields = fields! { "subscription_id": "orders", "from": "First" };
    stuck.request("Subscribe", fields).await;
    publisher.close().await;
    let begun = Instant::now();
    server.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn connections_in_their_handshake_do_not_hold_the_stop_back() {
    let mut server = TestServer::with(|config| {
        config.handshake_timeout = Duration::from_secs(600);
        config.shutdown_timeout = Duration::from_millis(500);
    });
    let mut raw = Raw::connect(server.address(), None).await;
    raw.write(b"GET /ws HTTP/1.1\r\n").await;
    let begun = Instant::now();
    server.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn nobody_is_accepted_after_a_stop() {
    let mut server = TestServer::start();
    let address = server.address();
    server.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn sigterm_and_sigint_end_the_program_in_order_with_0() {
    for signal in ["-TERM", "-INT"] {
        let mut server = Process::start(&[]);
        let mut client = server.client().await;
        client.publish("orders", b"x").await;
        for _ in 0..100 {
            let fields = fields! { "subscription_id": "orders", "submission": b"x" };
            client.request("SubmitPublication", fields).await;
        }
        server.signal(signal);
        assert_eq!(client.closed().await, 1001);
        drop(client);
        assert_eq!(server.exited().await.code(), Some(0), "{signal}");
        server.start_again();
        let mut client = server.client().await;
        assert!(client.meta("orders").await.number("last_sequence") >= 1);
    }
}

#[tokio::test]
async fn deliveries_of_what_was_committed_come_before_the_close() {
    let mut server = TestServer::start();
    let mut subscriber = server.client().await;
    subscriber.subscribe("orders", "New").await;
    let mut publisher = server.client().await;
    publisher.publish_many("orders", 500).await;
    let reading = async {
        subscriber.publications(1..=500).await;
        assert_eq!(subscriber.closed().await, 1001);
        publisher.closed().await;
    };
    tokio::join!(reading, server.stop());
}

#[tokio::test]
async fn a_peer_that_does_not_answer_the_close_does_not_hold_the_stop_back() {
    let mut server = TestServer::start();
    let mut raw = Raw::open(server.address(), "/ws").await;
    raw.send(0x82, &encode(&named("Ping", fields! {}))).await;
    raw.response().await.expect("Pong");
    let begun = Instant::now();
    tokio::join!(server.stop(), async {
        assert_eq!(raw.closed().await, 1001);
        raw.ended().await;
    });
    assert!(begun.elapsed() < Duration::from_secs(8));
}
