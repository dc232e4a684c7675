//! Section 5: limits on subscriptions and sessions.

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
