//! Section 5: limits on subscriptions and sessions; section 9: limits for the good of others.

use tokio::time::{Duration, Instant, sleep_until};
use uuid::Uuid;

use crate::support::{TestServer, eventually, handshake};

#[tokio::test]
async fn subscriptions_of_a_session_are_limited() {
    let server = TestServer::with(|config| config.max_subscriptions_per_session = 3);
    let mut client = server.client().await;
    assert_eq!(client.welcome.map("limits").number("max_subscriptions"), 3);
    for name in ["a", "b", "c"] {
        client.subscribe(name, "New").await;
    }
    let one_more = fields! { "subscription_id": "d" };
    let error = client
        .fail("limit-reached", "Subscribe", one_more.clone())
        .await;
    assert!(error.truth("temporary"));
    client
        .fail("not-found", "GetSubscription", one_more.clone())
        .await;
    // One that it has can be subscribed again, and one given up makes room.
    client.subscribe("a", "First").await;
    client
        .call("Unsubscribe", fields! { "subscription_id": "b" })
        .await;
    client.call("Subscribe", one_more).await;
    // Other sessions have their own, and publishing is none.
    let mut other = server.client().await;
    for name in ["a", "b", "c"] {
        other.subscribe(name, "New").await;
    }
    client.publish("e", b"x").await;
}

#[tokio::test]
async fn a_deleted_subscription_makes_room_in_the_session() {
    let server = TestServer::with(|config| config.max_subscriptions_per_session = 1);
    let mut client = server.client().await;
    let mut other = server.client().await;
    client.subscribe("a", "New").await;
    other
        .call("DeleteSubscription", fields! { "subscription_id": "a" })
        .await;
    client.next().await.expect("Deleted");
    client.subscribe("b", "New").await;
}

#[tokio::test]
async fn subscriptions_in_all_are_limited() {
    let mut server = TestServer::with(|config| config.max_subscriptions = 2);
    let mut client = server.client().await;
    client.publish("a", b"x").await;
    client.subscribe("b", "New").await;
    client.close().await;
    server.restart().await;
    let mut client = server.client().await;
    for (command, fields) in [
        ("Subscribe", fields! { "subscription_id": "c" }),
        (
            "SubmitPublication",
            fields! { "subscription_id": "c", "submission": b"x" },
        ),
        ("CreateSubscription", fields! { "subscription_id": "c" }),
    ] {
        let error = client.fail("limit-reached", command, fields).await;
        assert!(error.truth("temporary"));
    }
    client.publish("a", b"x").await;
    client
        .call("DeleteSubscription", fields! { "subscription_id": "b" })
        .await;
    client.publish("c", b"x").await;
}

#[tokio::test]
async fn over_the_limit_of_durable_sessions_the_handshake_is_503() {
    let server = TestServer::with(|config| config.max_sessions = 2);
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let mut first = server.resume(one).await;
    first.subscribe("orders", "New").await;
    let second = server.resume(two).await;
    let third = format!("/ws/{}", Uuid::new_v4());
    assert_eq!(handshake(server.address(), &third, &[]).await.status, 503);
    // Transient ones do not count, and who is remembered can come back.
    server.client().await;
    first.close().await;
    assert!(server.resume(one).await.welcome.truth("resumed"));
    // The second holds nothing, so it is forgotten and makes room.
    second.close().await;
    eventually("a place is free again", async || {
        handshake(server.address(), &third, &[]).await.status == 101
    })
    .await;
}

#[tokio::test]
async fn a_command_over_the_rate_is_not_applied_and_is_answered_in_its_turn() {
    let server = TestServer::with(|config| config.limits.connection_rate.messages = Some(5));
    let mut client = server.client().await;
    let mut other = server.client().await;
    let mut requests = Vec::new();
    for number in 0..20_u8 {
        let fields = fields! { "subscription_id": "orders", "submission": &[number] };
        requests.push(client.request("SubmitPublication", fields).await);
    }
    let mut accepted = Vec::new();
    let mut wait = 0;
    for (place, request) in (0..).zip(requests) {
        // In the order of the commands.
        let answer = client.any().await;
        assert_eq!(answer.id, Some(request));
        if answer.name == "Submitted" {
            accepted.push(place);
            continue;
        }
        let error = answer.expect_error("rate-limited");
        assert!(error.truth("temporary"));
        assert_eq!(error.text("command"), "SubmitPublication");
        wait = error.number("retry_after");
        assert!((1..=200).contains(&wait), "{wait}");
    }
    assert!((5..12).contains(&accepted.len()), "{accepted:?}");
    // After that time it would have been taken.
    sleep_until(Instant::now() + Duration::from_millis(wait)).await;
    client.publish("orders", b"later").await;
    // Nobody else is held up, and only what was accepted is there.
    let stored: Vec<_> = other.log("orders").await;
    let data: Vec<_> = stored
        .iter()
        .map(|one| one.bytes("data").to_vec())
        .collect();
    let mut expected: Vec<_> = accepted.into_iter().map(|place| vec![place]).collect();
    expected.push(b"later".to_vec());
    assert_eq!(data, expected);
}

#[tokio::test]
async fn bytes_over_the_rate_are_refused_but_the_longest_message_passes() {
    let server = TestServer::with(|config| config.limits.connection_rate.bytes = Some(10 << 10));
    let mut client = server.client().await;
    client.publish("orders", vec![0; 200 << 10]).await;
    let fields = fields! { "subscription_id": "orders", "submission": vec![0; 100 << 10] };
    let error = client
        .fail("rate-limited", "SubmitPublication", fields)
        .await;
    // 44 KiB are missing, or a bit less.
    let wait = error.number("retry_after");
    assert!((1_000..6_000).contains(&wait), "{wait}");
}

#[tokio::test]
async fn an_address_with_too_many_connections_is_refused_with_429() {
    let server = TestServer::with(|config| config.limits.max_connections_per_address = Some(2));
    let first = server.client().await;
    let _second = server.client().await;
    let answer = handshake(server.address(), "/ws", &[]).await;
    assert_eq!(answer.status, 429);
    assert!(answer.header("Retry-After").is_some());
    first.close().await;
    eventually("a place is free again", async || {
        handshake(server.address(), "/ws", &[]).await.status == 101
    })
    .await;
}
