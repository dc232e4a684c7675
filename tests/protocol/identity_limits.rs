//! Section 9: what an identity may have and send, over all of its connections.

use std::time::{Duration, Instant};

use infotainer::config::IdentityLimits;
use uuid::Uuid;

use crate::{
    access::{all, bearer, client, connect, ended, guard, offer, token},
    support::{Client, Event, TestServer, eventually},
};

/// A server that asks who comes, and gives each no more than this.
fn limited(change: impl FnOnce(&mut IdentityLimits)) -> TestServer {
    TestServer::with(|config| {
        guard(config);
        change(&mut config.limits.identity);
    })
}

async fn of(server: &TestServer, name: &str) -> Client {
    client(server, &token(name, all())).await
}

#[tokio::test]
async fn one_connection_too_many_is_closed_with_4010_in_place_of_its_welcome() {
    let server = limited(|identity| identity.max_connections = Some(2));
    let alices = token("alice", all());
    let path = format!("/ws/{}", Uuid::new_v4());
    let mut first = connect(&server, &path, &alices).await.unwrap();
    first.subscribe("news", "New").await;
    let second = of(&server, "alice").await;

    let full = |come| matches!(come, Err(Event::Closed(Some(4010))));
    for headers in [bearer(&alices), offer(&alices)] {
        let mut third = Client::upgrade(server.address(), "/ws", &[headers])
            .await
            .unwrap();
        assert!(full(third.begin().await));
    }
    let mut late = Client::upgrade(server.address(), "/ws", &[]).await.unwrap();
    late.request("Authenticate", fields! { "token": alices.as_str() })
        .await;
    assert_eq!(ended(late).await, Some(4010));
    // A durable session of her own is no way round it, and none is left behind.
    let another = format!("/ws/{}", Uuid::new_v4());
    assert!(full(connect(&server, &another, &alices).await.map(drop)));
    // Others have their own, and whoever takes over is none more.
    of(&server, "bob").await;
    let mut again = connect(&server, &path, &alices).await.unwrap();
    assert!(again.welcome.truth("resumed"));
    assert_eq!(first.closed().await, 4502);
    assert!(full(connect(&server, "/ws", &alices).await.map(drop)));
    again.call("Ping", fields! {}).await;

    second.close().await;
    eventually("her place is free again", async || {
        connect(&server, "/ws", &alices).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn subscriptions_that_an_identity_made_are_limited_whichever_command_makes_them() {
    let mut server = limited(|identity| identity.max_subscriptions = Some(2));
    let (mut here, mut there) = (of(&server, "alice").await, of(&server, "alice").await);
    here.publish("one", b"x").await;
    there.subscribe("two", "New").await;
    let about = |name: &str| fields! { "subscription_id": name };
    let submit = fields! { "subscription_id": "three", "submission": b"x" };
    for client in [&mut here, &mut there] {
        for (command, fields) in [
            ("SubmitPublication", submit.clone()),
            ("Subscribe", about("three")),
            ("CreateSubscription", about("three")),
        ] {
            let error = client.fail("limit-reached", command, fields).await;
            assert!(error.truth("temporary"));
        }
        client
            .fail("not-found", "GetSubscription", about("three"))
            .await;
    }
    // What others made is theirs, whoever uses it.
    let mut bob = of(&server, "bob").await;
    bob.publish("three", b"x").await;
    here.publish("three", b"y").await;

    for client in [here, there, bob] {
        client.close().await;
    }
    server.restart().await;
    let mut alice = of(&server, "alice").await;
    let create = || about("four");
    alice
        .fail("limit-reached", "CreateSubscription", create())
        .await;
    // Whoever deletes it.
    let mut bob = of(&server, "bob").await;
    bob.call("DeleteSubscription", about("one")).await;
    alice.call("CreateSubscription", create()).await;
}

#[tokio::test]
async fn logs_that_an_identity_made_keep_no_more_bytes_than_they_may_whoever_publishes() {
    let mut server = limited(|identity| identity.max_log_bytes = Some(10 << 10));
    let (mut alice, mut bob) = (of(&server, "alice").await, of(&server, "bob").await);
    let submit = |name: &str| fields! { "subscription_id": name, "submission": vec![0; 4 << 10] };
    alice.call("SubmitPublication", submit("one")).await;
    bob.call("SubmitPublication", submit("one")).await;
    for client in [&mut alice, &mut bob] {
        let error = client
            .fail("log-full", "SubmitPublication", submit("one"))
            .await;
        assert!(error.truth("temporary"));
    }
    // Another log of hers is none more, and one of his is his.
    alice
        .fail("log-full", "SubmitPublication", submit("two"))
        .await;
    bob.call("SubmitPublication", submit("his")).await;
    alice.call("SubmitPublication", submit("his")).await;

    for client in [alice, bob] {
        client.close().await;
    }
    server.restart().await;
    let mut alice = of(&server, "alice").await;
    alice
        .fail("log-full", "SubmitPublication", submit("one"))
        .await;
    let settings = fields! { "retention": fields! { "max_publications": 1 } };
    let update = fields! { "subscription_id": "one", "settings": settings };
    alice.call("UpdateSubscription", update).await;
    eventually("retention makes room", async || {
        alice.ask("SubmitPublication", submit("two")).await.name == "Submitted"
    })
    .await;
    alice
        .call("DeleteSubscription", fields! { "subscription_id": "two" })
        .await;
    alice.call("SubmitPublication", submit("two")).await;
}

#[tokio::test]
async fn all_connections_of_an_identity_send_no_more_commands_than_one_may() {
    const RATE: u64 = 5;
    let server = limited(|identity| identity.rate.messages = Some(RATE));
    // They come to two workers in turn.
    let mut hers = Vec::new();
    for _ in 0..3 {
        hers.push(of(&server, "alice").await);
    }
    let began = Instant::now();
    let mut requests = Vec::new();
    for client in &mut hers {
        let mut sent = Vec::new();
        for _ in 0..20 {
            sent.push(client.request("Ping", fields! {}).await);
        }
        requests.push(sent);
    }
    let (mut accepted, mut wait) = (0, 0);
    for (client, requests) in hers.iter_mut().zip(requests) {
        for request in requests {
            let answer = client.answer(request).await;
            if answer.name == "Pong" {
                accepted += 1;
                continue;
            }
            let error = answer.expect_error("rate-limited");
            assert!(error.truth("temporary"));
            wait = error.number("retry_after");
            assert!((1..=1000 / RATE).contains(&wait), "{wait}");
        }
    }
    let most = RATE as f64 * (1.0 + began.elapsed().as_secs_f64());
    assert!((RATE..=most as u64).contains(&accepted), "{accepted}");
    // Others have their own.
    let mut bob = of(&server, "bob").await;
    bob.call("Ping", fields! {}).await;

    // Whoever comes anew has no more; after the time that was told, one is taken.
    drop(hers);
    let mut alice = of(&server, "alice").await;
    tokio::time::sleep(Duration::from_millis(wait)).await;
    alice.call("Ping", fields! {}).await;
}

#[tokio::test]
async fn bytes_of_an_identity_are_counted_over_its_connections_and_outlive_them() {
    let server = limited(|identity| identity.rate.bytes = Some(10 << 10));
    let submit = |size| fields! { "subscription_id": "news", "submission": vec![0; size] };
    let mut first = of(&server, "alice").await;
    first.call("SubmitPublication", submit(200 << 10)).await;
    first.close().await;
    let mut second = of(&server, "alice").await;
    let error = second
        .fail("rate-limited", "SubmitPublication", submit(100 << 10))
        .await;
    // 44 KiB are missing, or a bit less.
    let wait = error.number("retry_after");
    assert!((1..6_000).contains(&wait), "{wait}");
    let mut bob = of(&server, "bob").await;
    bob.call("SubmitPublication", submit(100 << 10)).await;
}
