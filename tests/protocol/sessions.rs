//! Section 3: durable sessions.

use std::{net::SocketAddr, time::Duration};

use uuid::Uuid;

use crate::support::{Client, Event, Process, TestServer, eventually, named};

fn about(subscription: &str) -> serde_cbor::Value {
    fields! { "subscription_id": subscription }
}

async fn acknowledge(client: &mut Client, sequence: u64) -> u64 {
    let fields = fields! { "subscription_id": "orders", "sequence": sequence };
    let acknowledged = client.call("Acknowledge", fields).await;
    assert_eq!(acknowledged.names(), ["count", "subscription_id"]);
    acknowledged.number("count")
}

#[tokio::test]
async fn a_new_durable_session_is_welcomed_as_one() {
    let server = TestServer::start();
    let id = Uuid::new_v4();
    let client = server.resume(id).await;
    assert_eq!(client.welcome.uuid("session_id"), id);
    assert!(client.welcome.truth("durable"));
    assert!(!client.welcome.truth("resumed"));
    assert!(client.welcome.array("subscriptions").is_empty());
}

#[tokio::test]
async fn a_session_that_comes_back_has_its_subscriptions_and_goes_on_behind_what_was_handed() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut publisher = server.client().await;
    publisher.publish_many("orders", 3).await;
    let mut client = server.resume(session).await;
    let subscribed = client.subscribe("orders", "First").await;
    client.publications(1..=3).await;
    client.close().await;

    publisher.publish_many("orders", 2).await;
    let mut client = server.resume(session).await;
    assert!(client.welcome.truth("resumed"));
    let restored = client.welcome.maps("subscriptions");
    assert_eq!(restored.len(), 1);
    assert_eq!(
        restored[0].names(),
        ["cursor", "epoch", "kind", "recovered", "subscription_id"]
    );
    assert_eq!(
        restored[0].uuid("subscription_id"),
        subscribed.uuid("subscription_id")
    );
    assert_eq!(restored[0].text("kind"), "Broadcast");
    assert_eq!(restored[0].uuid("epoch"), subscribed.uuid("epoch"));
    assert_eq!(restored[0].number("cursor"), 3);
    assert!(restored[0].truth("recovered"));
    client.publications(4..=5).await;
    publisher.publish("orders", b"x").await;
    client.publication(6).await;
    client.hears_nothing().await;
}

#[tokio::test]
async fn a_session_goes_on_behind_the_last_acknowledged() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut publisher = server.client().await;
    publisher.publish_many("orders", 10).await;
    let mut client = server.resume(session).await;
    client.subscribe("orders", "First").await;
    client.publications(1..=10).await;
    acknowledge(&mut client, 4).await;
    client.close().await;
    for _ in 0..2 {
        let mut client = server.resume(session).await;
        assert_eq!(client.welcome.maps("subscriptions")[0].number("cursor"), 4);
        client.publications(5..=10).await;
        client.close().await;
    }
}

#[tokio::test]
async fn acknowledged_counts_what_it_settled_anew() {
    let server = TestServer::start();
    let mut client = server.resume(Uuid::new_v4()).await;
    client.publish_many("orders", 10).await;
    client.subscribe("orders", "First").await;
    client.publications(1..=10).await;
    assert_eq!(acknowledge(&mut client, 4).await, 4);
    assert_eq!(acknowledge(&mut client, 9).await, 5);
    // Below the last one it changes nothing.
    assert_eq!(acknowledge(&mut client, 9).await, 0);
    assert_eq!(acknowledge(&mut client, 1).await, 0);
    let beyond = fields! { "subscription_id": "orders", "sequence": 11 };
    client.fail("invalid-argument", "Acknowledge", beyond).await;
    assert_eq!(acknowledge(&mut client, 10).await, 1);
}

#[tokio::test]
async fn who_does_not_subscribe_has_nothing_to_acknowledge() {
    let server = TestServer::start();
    let mut client = server.resume(Uuid::new_v4()).await;
    client.publish("orders", b"x").await;
    let first = fields! { "subscription_id": "orders", "sequence": 1 };
    client
        .fail("invalid-argument", "Acknowledge", first.clone())
        .await;
    client.subscribe("orders", "First").await;
    client.call("Unsubscribe", about("orders")).await;
    client.fail("invalid-argument", "Acknowledge", first).await;
}

#[tokio::test]
async fn a_transient_session_can_acknowledge_as_well() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 3).await;
    client.subscribe("orders", "First").await;
    client.publications(1..=3).await;
    assert_eq!(acknowledge(&mut client, 2).await, 2);
    assert_eq!(acknowledge(&mut client, 3).await, 1);
}

#[tokio::test]
async fn an_older_acknowledgement_does_not_move_the_cursor_back() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    client.publish_many("orders", 5).await;
    client.subscribe("orders", "First").await;
    client.publications(1..=5).await;
    acknowledge(&mut client, 4).await;
    acknowledge(&mut client, 2).await;
    client.close().await;
    let mut client = server.resume(session).await;
    client.publication(5).await;
    client.hears_nothing().await;
}

#[tokio::test]
async fn subscribing_with_from_forgets_what_was_acknowledged() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    client.publish_many("orders", 5).await;
    client.subscribe("orders", "First").await;
    client.publications(1..=5).await;
    acknowledge(&mut client, 5).await;
    client.subscribe("orders", fields! { "After": 1 }).await;
    client.publications(2..=5).await;
    acknowledge(&mut client, 2).await;
    client.close().await;
    let mut client = server.resume(session).await;
    client.publications(3..=5).await;
}

#[tokio::test]
async fn subscribing_without_from_keeps_what_was_acknowledged() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    client.publish_many("orders", 5).await;
    client.subscribe("orders", "First").await;
    client.publications(1..=5).await;
    acknowledge(&mut client, 2).await;
    client.call("Subscribe", about("orders")).await;
    client.hears_nothing().await;
    client.close().await;
    let mut client = server.resume(session).await;
    client.publications(3..=5).await;
}

#[tokio::test]
async fn a_session_comes_back_after_a_restart_of_the_server() {
    let mut server = TestServer::start();
    let session = Uuid::new_v4();
    let mut publisher = server.client().await;
    publisher.publish_many("orders", 10).await;
    publisher.publish_many("news", 10).await;
    let mut client = server.resume(session).await;
    client.subscribe("orders", "First").await;
    client.publications(1..=10).await;
    acknowledge(&mut client, 6).await;
    client.subscribe("news", "First").await;
    client.publications(1..=10).await;
    client.close().await;
    publisher.close().await;
    server.restart().await;

    let mut client = server.resume(session).await;
    assert!(client.welcome.truth("resumed"));
    let mut cursors: Vec<u64> = client
        .welcome
        .maps("subscriptions")
        .iter()
        .map(|restored| restored.number("cursor"))
        .collect();
    cursors.sort_unstable();
    assert_eq!(cursors, [6, 10]);
    client.publications(7..=10).await;
    client.hears_nothing().await;
}

#[tokio::test]
async fn a_session_that_is_connected_when_the_server_stops_comes_back_as_well() {
    let mut server = TestServer::start();
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    client.publish_many("orders", 10).await;
    client.subscribe("orders", "First").await;
    client.publications(1..=10).await;
    let (code, ()) = tokio::join!(client.closed(), server.stop());
    assert_eq!(code, 1001);
    server.start_again().await;
    let client = server.resume(session).await;
    assert_eq!(client.welcome.maps("subscriptions")[0].number("cursor"), 10);
}

#[tokio::test]
async fn an_acknowledgement_survives_kill_9_from_its_answer_on() {
    let mut server = Process::start(&[]);
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    client.publish_many("orders", 10).await;
    client.subscribe("orders", "First").await;
    client.publications(1..=10).await;
    for sequence in 1..=7 {
        acknowledge(&mut client, sequence).await;
    }
    server.kill();
    server.start_again();
    let mut client = server.resume(session).await;
    assert!(client.welcome.truth("resumed"));
    client.publications(8..=10).await;
}

#[tokio::test]
async fn what_was_handed_is_written_down_every_second() {
    let mut server = Process::start(&[("HEARTBEAT_INTERVAL", "500ms")]);
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    client.subscribe("orders", "New").await;
    client.publish_many("orders", 10).await;
    client.publications(1..=10).await;
    client.wait_for_pings(client.pings + 5).await;
    server.kill();
    server.start_again();
    let client = server.resume(session).await;
    assert_eq!(client.welcome.maps("subscriptions")[0].number("cursor"), 10);
}

#[tokio::test]
async fn an_unsubscribed_subscription_does_not_come_back() {
    let mut server = TestServer::start();
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    client.subscribe("a", "New").await;
    client.subscribe("b", "New").await;
    client.call("Unsubscribe", about("a")).await;
    client.close().await;
    server.restart().await;
    let mut client = server.resume(session).await;
    assert_eq!(client.welcome.array("subscriptions").len(), 1);
    assert_eq!(client.meta("a").await.number("subscribers"), 0);
    assert_eq!(client.meta("b").await.number("subscribers"), 1);
}

#[tokio::test]
async fn a_session_without_subscriptions_is_forgotten_with_its_connection() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    client.subscribe("orders", "New").await;
    client.call("Unsubscribe", about("orders")).await;
    client.close().await;
    eventually("the session is forgotten", async || {
        !server.resume(session).await.welcome.truth("resumed")
    })
    .await;
}

#[tokio::test]
async fn the_id_of_a_transient_session_can_not_be_resumed() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.subscribe("orders", "New").await;
    let id = client.welcome.uuid("session_id");
    client.close().await;
    let client = server.resume(id).await;
    assert!(!client.welcome.truth("resumed"));
    assert!(client.welcome.array("subscriptions").is_empty());
}

#[tokio::test]
async fn a_subscription_that_was_deleted_meanwhile_is_gone_even_if_it_was_made_again() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut other = server.client().await;
    let mut client = server.resume(session).await;
    for name in ["orders", "news", "kept"] {
        client.subscribe(name, "New").await;
    }
    client.close().await;
    other.call("DeleteSubscription", about("orders")).await;
    other.call("DeleteSubscription", about("news")).await;
    other.publish_many("news", 3).await;
    let mut client = server.resume(session).await;
    let restored = client.welcome.maps("subscriptions");
    assert_eq!(restored.len(), 1);
    let kept = client.meta("kept").await.uuid("subscription_id");
    assert_eq!(restored[0].uuid("subscription_id"), kept);
    client.hears_nothing().await;
    assert_eq!(client.meta("news").await.number("subscribers"), 0);
}

#[tokio::test]
async fn another_epoch_begins_at_the_oldest_kept_and_welcome_says_so() {
    let mut server = TestServer::start();
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    let settings = fields! { "durability": "Memory" };
    let fields = fields! { "subscription_id": "orders", "settings": settings };
    client.call("CreateSubscription", fields).await;
    let subscribed = client.subscribe("orders", "New").await;
    client.publish_many("orders", 5).await;
    client.publications(1..=5).await;
    acknowledge(&mut client, 5).await;
    client.close().await;
    server.restart().await;

    let mut publisher = server.client().await;
    publisher.publish_many("orders", 7).await;
    let mut client = server.resume(session).await;
    let restored = client.welcome.maps("subscriptions");
    assert_ne!(restored[0].uuid("epoch"), subscribed.uuid("epoch"));
    assert_eq!(restored[0].number("cursor"), 0);
    assert!(!restored[0].truth("recovered"));
    client.publications(1..=7).await;
    // What was acknowledged in the other epoch says nothing about this one.
    assert_eq!(acknowledge(&mut client, 2).await, 2);
    client.close().await;
    let mut client = server.resume(session).await;
    assert!(client.welcome.maps("subscriptions")[0].truth("recovered"));
    client.publications(3..=7).await;
}

#[tokio::test]
async fn what_retention_took_while_the_session_was_away_is_a_gap() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    let settings = fields! { "retention": fields! { "max_publications": 3 } };
    let fields = fields! { "subscription_id": "orders", "settings": settings };
    client.call("CreateSubscription", fields).await;
    client.subscribe("orders", "New").await;
    client.publish("orders", b"1").await;
    client.publication(1).await;
    client.close().await;
    let mut publisher = server.client().await;
    publisher.publish_many("orders", 9).await;
    eventually("retention acts", async || {
        publisher.meta("orders").await.number("first_sequence") == 8
    })
    .await;
    let mut client = server.resume(session).await;
    let restored = client.welcome.maps("subscriptions");
    assert_eq!(restored[0].number("cursor"), 1);
    assert!(!restored[0].truth("recovered"));
    let gap = client.next().await.expect("Gap");
    assert_eq!((gap.number("from"), gap.number("to")), (2, 7));
    client.publications(8..=10).await;
}

#[tokio::test]
async fn a_second_connection_takes_over_and_the_first_is_closed_with_4502() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut first = server.resume(session).await;
    first.subscribe("orders", "New").await;
    first.publish_many("orders", 3).await;
    first.publications(1..=3).await;
    let mut second = server.resume(session).await;
    assert!(second.welcome.truth("resumed"));
    assert_eq!(second.welcome.maps("subscriptions")[0].number("cursor"), 3);
    assert_eq!(first.closed().await, 4502);
    second.publish("orders", b"x").await;
    second.publication(4).await;
    let meta = second.meta("orders").await;
    assert_eq!(
        (meta.number("subscribers"), meta.number("connected")),
        (1, 1)
    );
}

#[tokio::test]
async fn nothing_that_the_first_connection_sends_after_a_takeover_is_applied() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut first = server.resume(session).await;
    first.subscribe("orders", "New").await;
    let mut second = server.resume(session).await;
    // The first has not read its Close, and goes on.
    for (command, fields) in [
        (
            "SubmitPublication",
            fields! { "subscription_id": "orders", "submission": b"late" },
        ),
        ("Unsubscribe", about("orders")),
        ("DeleteSubscription", about("orders")),
    ] {
        first.send(&named(command, fields)).await;
    }
    assert_eq!(first.closed().await, 4502);
    let meta = second.meta("orders").await;
    assert_eq!(
        (meta.number("last_sequence"), meta.number("subscribers")),
        (0, 1)
    );
}

#[tokio::test]
async fn many_takeovers_in_a_row_end_with_one_connection() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut publisher = server.client().await;
    let mut client = server.resume(session).await;
    client.subscribe("orders", "New").await;
    let mut delivered = 0;
    for _ in 0..10 {
        publisher.publish_many("orders", 5).await;
        let next = server.resume(session).await;
        let cursor = next.welcome.maps("subscriptions")[0].number("cursor");
        // What the first got was handed; what was handed may still have been on its way.
        loop {
            match client.event().await {
                Event::Response(response) => {
                    delivered += 1;
                    let sequence = response.expect("Publication").number("sequence");
                    assert_eq!(sequence, delivered);
                }
                Event::Closed(code) => {
                    assert_eq!(code, Some(4502));
                    break;
                }
                Event::Ended(why) => panic!("{why}"),
            }
        }
        assert_eq!(cursor, delivered);
        client = next;
    }
    client.publications(delivered + 1..=50).await;
    client.hears_nothing().await;
    assert_eq!(publisher.meta("orders").await.number("connected"), 1);
}

/// Takes the session over so many times, whoever has it, and reads each time until it is taken away; gives what it got.
async fn snatch(address: SocketAddr, session: Uuid, times: usize) -> Vec<u64> {
    let path = format!("/ws/{session}");
    let mut got = Vec::new();
    for _ in 0..times {
        let mut client = match Client::try_open(address, &path, None).await {
            Ok(client) => client,
            // The other one was quicker still.
            Err(Event::Closed(Some(4502))) => continue,
            Err(other) => panic!("{other:?}"),
        };
        let mut position = client.welcome.maps("subscriptions")[0].number("cursor");
        loop {
            match client.event().await {
                Event::Response(response) => {
                    position += 1;
                    let sequence = response.expect("Publication").number("sequence");
                    assert_eq!(sequence, position);
                    got.push(sequence);
                }
                Event::Closed(code) => {
                    assert_eq!(code, Some(4502));
                    break;
                }
                Event::Ended(why) => panic!("{why}"),
            }
        }
    }
    got
}

#[tokio::test]
async fn connections_that_snatch_a_session_from_each_other_get_everything_once_between_them() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut first = server.resume(session).await;
    first.subscribe("orders", "New").await;
    first.close().await;
    let snatchers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(snatch(server.address(), session, 10)))
        .collect();
    let mut publisher = server.client().await;
    let mut published = 0;
    let mut got = Vec::new();
    // Whoever has it last waits for somebody to take it away.
    while !snatchers.iter().all(|snatcher| snatcher.is_finished()) {
        publisher.publish_many("orders", 20).await;
        published += 20;
        if snatchers
            .iter()
            .filter(|snatcher| snatcher.is_finished())
            .count()
            == 2
        {
            got.extend(snatch_once(server.address(), session).await);
        }
    }
    for snatcher in snatchers {
        got.extend(snatcher.await.unwrap());
    }
    let mut last = server.resume(session).await;
    while got.len() < published as usize {
        let publication = last.next().await.expect("Publication");
        got.push(publication.number("sequence"));
    }
    last.hears_nothing().await;
    got.sort_unstable();
    assert_eq!(got, (1..=published).collect::<Vec<u64>>());
}

/// Takes the session over, and closes at once; gives what it got.
async fn snatch_once(address: SocketAddr, session: Uuid) -> Vec<u64> {
    let Ok(mut client) = Client::try_open(address, &format!("/ws/{session}"), None).await else {
        return Vec::new();
    };
    client.begin_close().await;
    let mut got = Vec::new();
    while let Event::Response(response) = client.event().await {
        got.push(response.expect("Publication").number("sequence"));
    }
    client.let_go().await;
    got
}

#[tokio::test]
async fn what_is_half_written_at_a_takeover_is_delivered_once() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let path = format!("/ws/{session}");
    let mut publisher = server.client().await;
    let mut first = Client::open(server.address(), &path, Some(16 << 10)).await;
    first.subscribe("orders", "New").await;
    for _ in 0..40 {
        publisher.publish("orders", vec![0; 100_000]).await;
    }
    let second = server.resume(session).await;
    let cursor = second.welcome.maps("subscriptions")[0].number("cursor");
    assert!(cursor < 40, "the first reads nothing");
    assert_eq!(first.closed().await, 4502);
    let last = first.unread().pop().unwrap();
    assert_eq!(last.expect("Publication").number("sequence"), cursor);
}

#[tokio::test]
async fn a_session_away_too_long_is_forgotten() {
    let server = TestServer::with(|config| config.session_expiry = Duration::from_millis(300));
    let session = Uuid::new_v4();
    let mut watcher = server.client().await;
    let mut client = server.resume(session).await;
    client.subscribe("orders", "New").await;
    client.close().await;
    eventually("the session is forgotten", async || {
        watcher.meta("orders").await.number("subscribers") == 0
    })
    .await;
    let client = server.resume(session).await;
    assert!(!client.welcome.truth("resumed"));
    assert!(client.welcome.array("subscriptions").is_empty());
}

#[tokio::test]
async fn a_session_that_is_connected_does_not_expire() {
    let server = TestServer::with(|config| {
        config.session_expiry = Duration::from_millis(100);
        config.heartbeat_interval = Duration::from_millis(500);
    });
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    client.subscribe("orders", "New").await;
    client.wait_for_pings(3).await;
    client.publish("orders", b"x").await;
    client.publication(1).await;
    assert_eq!(client.meta("orders").await.number("subscribers"), 1);
}

#[tokio::test]
async fn sessions_away_do_not_hold_retention_back() {
    let server = TestServer::start();
    let mut client = server.resume(Uuid::new_v4()).await;
    let settings = fields! { "retention": fields! { "max_publications": 1 } };
    let fields = fields! { "subscription_id": "orders", "settings": settings };
    client.call("CreateSubscription", fields).await;
    client.subscribe("orders", "New").await;
    client.close().await;
    let mut publisher = server.client().await;
    publisher.publish_many("orders", 5).await;
    eventually("retention acts", async || {
        publisher.meta("orders").await.number("first_sequence") == 5
    })
    .await;
    let meta = publisher.meta("orders").await;
    assert_eq!(
        (meta.number("subscribers"), meta.number("connected")),
        (1, 0)
    );
}

#[tokio::test]
async fn a_session_id_is_never_shown_to_another_client() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    let mut other = server.client().await;
    client.subscribe("orders", "New").await;
    other.subscribe("orders", "New").await;
    client.publish("orders", b"x").await;
    let seen = [
        other.publication(1).await,
        other.meta("orders").await,
        other.call("ListSubscriptions", fields! {}).await,
    ];
    let (text, bytes) = (session.to_string(), format!("{:?}", session.as_bytes()));
    for response in seen {
        let shown = format!("{response:?}");
        assert!(!shown.contains(&text) && !shown.contains(&bytes));
    }
}
