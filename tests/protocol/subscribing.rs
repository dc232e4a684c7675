//! Section 4: `Subscribe`, `Unsubscribe`, and where delivery begins.

use serde_cbor::Value;
use uuid::Uuid;

use crate::support::{Cbor, Client, Response, TestServer, eventually};

fn after(position: u64) -> Value {
    fields! { "After": position }
}

/// Subscribes to `orders` behind `position` of `epoch`.
async fn subscribe_after(client: &mut Client, position: u64, epoch: Uuid) -> Response {
    let fields = fields! { "subscription_id": "orders", "from": after(position), "epoch": epoch };
    client.call("Subscribe", fields).await
}

#[tokio::test]
async fn the_first_subscribe_makes_the_subscription() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let fields = fields! { "subscription_id": "orders" };
    let subscribed = client.call("Subscribe", fields).await;
    assert_eq!(
        subscribed.names(),
        [
            "cursor",
            "epoch",
            "first_sequence",
            "kind",
            "last_sequence",
            "recovered",
            "subscription_id"
        ]
    );
    assert_eq!(subscribed.text("kind"), "Broadcast");
    assert_eq!(subscribed.number("first_sequence"), 1);
    assert_eq!(subscribed.number("last_sequence"), 0);
    assert_eq!(subscribed.number("cursor"), 0);
    assert!(subscribed.truth("recovered"));
    assert_eq!(
        client.meta("orders").await.uuid("epoch"),
        subscribed.uuid("epoch")
    );
}

#[tokio::test]
async fn every_subscriber_gets_every_publication_in_order() {
    let server = TestServer::start();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = server.client().await;
        client.subscribe("orders", "New").await;
        clients.push(client);
    }
    let ids = server.client().await.publish_many("orders", 200).await;
    for client in &mut clients {
        for (sequence, id) in (1..).zip(&ids) {
            let publication = client.publication(sequence).await;
            assert_eq!(publication.uuid("publication_id"), *id);
            assert_eq!(publication.bytes("data"), sequence.to_string().as_bytes());
        }
    }
}

#[tokio::test]
async fn a_publication_tells_what_it_is() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let subscribed = client.subscribe("orders", "New").await;
    let submitted = client.publish("orders", b"eggs").await;
    let publication = client.publication(1).await;
    assert_eq!(publication.id, None);
    assert_eq!(
        publication.names(),
        [
            "data",
            "publication_id",
            "sequence",
            "subscription_id",
            "time"
        ]
    );
    assert_eq!(
        publication.uuid("subscription_id"),
        subscribed.uuid("subscription_id")
    );
    assert_eq!(
        publication.uuid("publication_id"),
        submitted.uuid("publication_id")
    );
    assert_eq!(publication.bytes("data"), b"eggs");
    assert!(publication.number("time") > 1_600_000_000_000);
}

#[tokio::test]
async fn new_begins_with_what_is_published_from_now_on() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 3).await;
    let subscribed = client.subscribe("orders", "New").await;
    assert_eq!(subscribed.number("cursor"), 3);
    assert!(subscribed.truth("recovered"));
    client.publish("orders", b"4").await;
    client.publication(4).await;
}

#[tokio::test]
async fn without_from_a_new_subscriber_begins_at_new() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 3).await;
    let fields = fields! { "subscription_id": "orders" };
    assert_eq!(client.call("Subscribe", fields).await.number("cursor"), 3);
    client.hears_nothing().await;
}

#[tokio::test]
async fn first_begins_with_the_oldest_kept() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 300).await;
    let subscribed = client.subscribe("orders", "First").await;
    assert_eq!(subscribed.number("cursor"), 0);
    assert_eq!(subscribed.number("first_sequence"), 1);
    assert_eq!(subscribed.number("last_sequence"), 300);
    client.publications(1..=300).await;
    client.publish("orders", b"x").await;
    client.publication(301).await;
}

#[tokio::test]
async fn after_begins_behind_the_position() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 10).await;
    for position in [0, 1, 9, 10] {
        let subscribed = client.subscribe("orders", after(position)).await;
        assert_eq!(subscribed.number("cursor"), position);
        assert!(subscribed.truth("recovered"));
        client.publications(position + 1..=10).await;
        client.hears_nothing().await;
    }
}

#[tokio::test]
async fn after_with_the_right_epoch_is_recovered() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 5).await;
    let epoch = client.meta("orders").await.uuid("epoch");
    let subscribed = subscribe_after(&mut client, 3, epoch).await;
    assert_eq!(subscribed.number("cursor"), 3);
    assert!(subscribed.truth("recovered"));
    client.publications(4..=5).await;
}

#[tokio::test]
async fn after_of_another_epoch_begins_at_the_oldest_and_is_not_recovered() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 5).await;
    let subscribed = subscribe_after(&mut client, 3, Uuid::new_v4()).await;
    assert_eq!(subscribed.number("cursor"), 0);
    assert!(!subscribed.truth("recovered"));
    client.publications(1..=5).await;
}

#[tokio::test]
async fn after_beyond_the_end_begins_at_the_oldest_and_is_not_recovered() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 5).await;
    for position in [6, (1 << 53) - 1] {
        let subscribed = client.subscribe("orders", after(position)).await;
        assert_eq!(subscribed.number("cursor"), 0);
        assert!(!subscribed.truth("recovered"));
        client.publications(1..=5).await;
        client.hears_nothing().await;
    }
}

#[tokio::test]
async fn since_begins_with_what_was_published_then_or_later() {
    let server = TestServer::start();
    for durability in ["Synced", "Memory"] {
        let mut client = server.client().await;
        let settings = fields! { "durability": durability };
        client
            .call(
                "CreateSubscription",
                fields! { "subscription_id": durability, "settings": settings },
            )
            .await;
        for _ in 0..30 {
            client.publish(durability, b"x").await;
        }
        let log = client.log(durability).await;
        let times: Vec<u64> = log
            .iter()
            .map(|publication| publication.number("time"))
            .collect();
        let wanted = [
            0,
            times[0],
            times[7],
            times[7] + 1,
            times[29],
            times[29] + 1_000_000,
        ];
        for time in wanted {
            let first = (1..)
                .zip(&times)
                .find(|(_, published)| **published >= time)
                .map_or(31, |(sequence, _)| sequence);
            let subscribed = client
                .subscribe(durability, fields! { "Since": time })
                .await;
            assert_eq!(subscribed.number("cursor"), first - 1);
            client.publications(first..=30).await;
            client.hears_nothing().await;
        }
    }
}

#[tokio::test]
async fn last_begins_with_the_last_so_many() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 5).await;
    for (last, cursor) in [(0_u64, 5), (1, 4), (5, 0), (6, 0), (1 << 40, 0)] {
        let subscribed = client.subscribe("orders", fields! { "Last": last }).await;
        assert_eq!(subscribed.number("cursor"), cursor);
        assert!(subscribed.truth("recovered"));
        client.publications(cursor + 1..=5).await;
        client.hears_nothing().await;
    }
}

#[tokio::test]
async fn each_form_of_from_works_on_an_empty_log() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let forms = [
        "New".cbor(),
        "First".cbor(),
        after(0),
        fields! { "Since": 0 },
        fields! { "Last": 5 },
    ];
    for (number, from) in (0..).zip(forms) {
        let name = format!("empty-{number}");
        let subscribed = client.subscribe(name.as_str(), from).await;
        assert_eq!(subscribed.number("cursor"), 0);
        assert!(subscribed.truth("recovered"));
        client.publish(name.as_str(), b"x").await;
        client.publication(1).await;
    }
}

#[tokio::test]
async fn subscribing_again_without_from_keeps_the_cursor() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 3).await;
    client.subscribe("orders", "First").await;
    client.publications(1..=3).await;
    let fields = fields! { "subscription_id": "orders" };
    let again = client.call("Subscribe", fields).await;
    assert_eq!(again.number("cursor"), 3);
    assert!(again.truth("recovered"));
    client.publish("orders", b"x").await;
    client.publication(4).await;
    client.hears_nothing().await;
}

#[tokio::test]
async fn a_kept_cursor_of_another_epoch_begins_at_the_oldest() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 3).await;
    let epoch = client.subscribe("orders", "New").await.uuid("epoch");
    let same = fields! { "subscription_id": "orders", "epoch": epoch };
    let kept = client.call("Subscribe", same).await;
    assert_eq!((kept.number("cursor"), kept.truth("recovered")), (3, true));
    let other = fields! { "subscription_id": "orders", "epoch": Uuid::new_v4() };
    let begun = client.call("Subscribe", other).await;
    assert_eq!(
        (begun.number("cursor"), begun.truth("recovered")),
        (0, false)
    );
    client.publications(1..=3).await;
}

#[tokio::test]
async fn subscribing_again_with_from_moves_the_cursor() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 5).await;
    client.subscribe("orders", "First").await;
    client.publications(1..=5).await;
    client.subscribe("orders", after(2)).await;
    client.publications(3..=5).await;
    client.subscribe("orders", "New").await;
    client.publish("orders", b"x").await;
    client.publication(6).await;
    let meta = client.meta("orders").await;
    assert_eq!(
        (meta.number("subscribers"), meta.number("connected")),
        (1, 1)
    );
}

#[tokio::test]
async fn subscribed_has_its_place_in_the_stream() {
    let server = TestServer::start();
    let mut publisher = server.client().await;
    let mut client = server.client().await;
    client.subscribe("orders", "New").await;
    for round in 0..20 {
        let mut sent = Vec::new();
        for _ in 0..10 {
            let fields = fields! { "subscription_id": "orders", "submission": b"x" };
            sent.push(publisher.request("SubmitPublication", fields).await);
        }
        let from = after(round * 7);
        let request = fields! { "subscription_id": "orders", "from": from };
        client.request("Subscribe", request).await;
        for request in sent {
            publisher.answer(request).await.expect("Submitted");
        }
    }
    let last = publisher.meta("orders").await.number("last_sequence");
    // What comes is a row without holes, that begins anew behind each `Subscribed`.
    let (mut expected, mut answers) = (1, 0);
    while answers < 20 || expected <= last {
        let response = client.any().await;
        match response.name.as_str() {
            "Publication" => {
                assert_eq!(response.number("sequence"), expected);
                expected += 1;
            }
            _ => {
                let subscribed = response.expect("Subscribed");
                expected = subscribed.number("cursor") + 1;
                answers += 1;
            }
        }
    }
    client.hears_nothing().await;
}

#[tokio::test]
async fn after_unsubscribed_nothing_comes() {
    let server = TestServer::start();
    let mut publisher = server.client().await;
    let mut client = server.client().await;
    for _ in 0..10 {
        client.subscribe("orders", "First").await;
        for _ in 0..20 {
            let fields = fields! { "subscription_id": "orders", "submission": b"x" };
            publisher.send_bare("SubmitPublication", fields).await;
        }
        client
            .request("Unsubscribe", fields! { "subscription_id": "orders" })
            .await;
        let mut expected = 1;
        loop {
            let response = client.any().await;
            if response.name == "Unsubscribed" {
                break;
            }
            assert_eq!(response.expect("Publication").number("sequence"), expected);
            expected += 1;
        }
        publisher.publish("orders", b"late").await;
        client.hears_nothing().await;
    }
    assert_eq!(publisher.meta("orders").await.number("subscribers"), 0);
}

#[tokio::test]
async fn unsubscribing_what_one_does_not_subscribe_is_answered_all_the_same() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let id = client.publish("orders", b"x").await.uuid("subscription_id");
    let fields = fields! { "subscription_id": "orders" };
    let unsubscribed = client.call("Unsubscribe", fields).await;
    assert_eq!(unsubscribed.names(), ["subscription_id"]);
    assert_eq!(unsubscribed.uuid("subscription_id"), id);
}

#[tokio::test]
async fn one_session_holds_many_subscriptions_each_in_its_order() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let names: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    let mut next = std::collections::HashMap::new();
    for name in &names {
        let subscribed = client.subscribe(name.as_str(), "New").await;
        next.insert(subscribed.uuid("subscription_id"), 1);
    }
    let mut publisher = server.client().await;
    for _ in 0..10 {
        for name in &names {
            let fields = fields! { "subscription_id": name.as_str(), "submission": b"x" };
            publisher.send_bare("SubmitPublication", fields).await;
        }
    }
    for _ in 0..200 {
        let publication = client.next().await.expect("Publication");
        let expected = next.get_mut(&publication.uuid("subscription_id")).unwrap();
        assert_eq!(publication.number("sequence"), *expected);
        *expected += 1;
    }
}

#[tokio::test]
async fn subscribers_and_connected_are_counted() {
    let server = TestServer::start();
    let mut one = server.client().await;
    let mut other = server.client().await;
    one.subscribe("orders", "New").await;
    one.subscribe("orders", "New").await;
    other.subscribe("orders", "New").await;
    let meta = one.meta("orders").await;
    assert_eq!(
        (meta.number("subscribers"), meta.number("connected")),
        (2, 2)
    );
    other.close().await;
    eventually("the other is gone", async || {
        one.meta("orders").await.number("connected") == 1
    })
    .await;
    assert_eq!(one.meta("orders").await.number("subscribers"), 1);
}

#[tokio::test]
async fn what_is_for_queues_is_invalid_argument_on_a_broadcast() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.subscribe("orders", "New").await;
    let ids = [Uuid::new_v4()];
    for command in ["Reject", "Extend", "Acknowledge"] {
        let fields = fields! { "subscription_id": "orders", "publication_ids": ids };
        client.fail("invalid-argument", command, fields).await;
    }
}

#[tokio::test]
async fn another_kind_than_it_has_is_kind_mismatch() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish("orders", b"x").await;
    let fields = fields! { "subscription_id": "orders", "kind": "Queue" };
    client.fail("kind-mismatch", "Subscribe", fields).await;
    let fields = fields! { "subscription_id": "orders", "kind": "Queue", "submission": b"x" };
    client
        .fail("kind-mismatch", "SubmitPublication", fields)
        .await;
    let fields = fields! { "subscription_id": "orders", "kind": "Broadcast" };
    client.call("Subscribe", fields).await;
    assert_eq!(client.meta("orders").await.number("last_sequence"), 1);
}
