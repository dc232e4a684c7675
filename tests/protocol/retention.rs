//! Section 4: what is kept.

use serde_cbor::Value;

use crate::support::{Client, TestServer, eventually};

async fn create(client: &mut Client, name: &str, durability: &str, retention: Value) {
    let settings = fields! { "durability": durability, "retention": retention };
    let fields = fields! { "subscription_id": name, "settings": settings };
    client.call("CreateSubscription", fields).await;
}

/// Waits until the oldest kept of `name` is `first`, which retention does within 10 s.
async fn first_is(client: &mut Client, name: &str, first: u64) {
    eventually("retention acts", async || {
        let now = client.meta(name).await.number("first_sequence");
        assert!(now <= first, "{now} is too much");
        now == first
    })
    .await;
}

#[tokio::test]
async fn the_newest_so_many_are_kept() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for durability in ["Synced", "Written", "Memory"] {
        create(
            &mut client,
            durability,
            durability,
            fields! { "max_publications": 10 },
        )
        .await;
        client.publish_many(durability, 35).await;
    }
    for durability in ["Synced", "Written", "Memory"] {
        first_is(&mut client, durability, 26).await;
        let log = client.log(durability).await;
        assert_eq!(log.len(), 10);
        assert_eq!(log[0].number("sequence"), 26);
        assert_eq!(client.meta(durability).await.number("bytes"), 20);
    }
}

#[tokio::test]
async fn the_newest_that_together_have_so_many_bytes_are_kept() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for durability in ["Synced", "Memory"] {
        create(
            &mut client,
            durability,
            durability,
            fields! { "max_bytes": 1_000 },
        )
        .await;
        for size in [400, 500, 300, 300, 399, 300] {
            client.publish(durability, vec![0; size]).await;
        }
    }
    for durability in ["Synced", "Memory"] {
        // 300 + 399 + 300 fit; with one more 300 it would be too much.
        first_is(&mut client, durability, 4).await;
        assert_eq!(client.meta(durability).await.number("bytes"), 999);
    }
}

#[tokio::test]
async fn what_is_older_than_max_age_goes() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for durability in ["Synced", "Memory"] {
        create(
            &mut client,
            durability,
            durability,
            fields! { "max_age": 300 },
        )
        .await;
        client.publish_many(durability, 5).await;
    }
    for durability in ["Synced", "Memory"] {
        first_is(&mut client, durability, 6).await;
        let meta = client.meta(durability).await;
        assert_eq!((meta.number("last_sequence"), meta.number("bytes")), (5, 0));
        assert!(client.log(durability).await.is_empty());
        // The sequences go on.
        let next = client.publish(durability, b"x").await;
        assert_eq!(next.number("sequence"), 6);
    }
}

#[tokio::test]
async fn an_update_of_retention_acts_on_what_is_there() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 20).await;
    let settings = fields! { "retention": fields! { "max_publications": 3 } };
    let fields = fields! { "subscription_id": "orders", "settings": settings };
    client.call("UpdateSubscription", fields).await;
    first_is(&mut client, "orders", 18).await;
}

#[tokio::test]
async fn after_below_the_oldest_kept_is_a_gap_first_and_not_recovered() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for durability in ["Synced", "Memory"] {
        create(
            &mut client,
            durability,
            durability,
            fields! { "max_publications": 5 },
        )
        .await;
        client.publish_many(durability, 20).await;
    }
    for durability in ["Synced", "Memory"] {
        first_is(&mut client, durability, 16).await;
        let subscribed = client.subscribe(durability, fields! { "After": 4 }).await;
        assert!(!subscribed.truth("recovered"));
        assert_eq!(subscribed.number("first_sequence"), 16);
        assert_eq!(subscribed.number("cursor"), 4);
        let gap = client.next().await.expect("Gap");
        assert_eq!(gap.names(), ["cause", "from", "subscription_id", "to"]);
        assert_eq!((gap.number("from"), gap.number("to")), (5, 15));
        assert_eq!(gap.text("cause"), "retention");
        client.publications(16..=20).await;
        client.hears_nothing().await;
    }
}

#[tokio::test]
async fn after_right_in_front_of_the_oldest_kept_is_recovered() {
    let server = TestServer::start();
    let mut client = server.client().await;
    create(
        &mut client,
        "orders",
        "Synced",
        fields! { "max_publications": 5 },
    )
    .await;
    client.publish_many("orders", 20).await;
    first_is(&mut client, "orders", 16).await;
    let subscribed = client.subscribe("orders", fields! { "After": 15 }).await;
    assert!(subscribed.truth("recovered"));
    client.publications(16..=20).await;
    for from in ["First", "New"] {
        let subscribed = client.subscribe("orders", from).await;
        assert!(subscribed.truth("recovered"));
    }
    // "First" delivered five, of which "New" may have taken back what was not sent yet.
    let subscribed = client.subscribe("orders", fields! { "Last": 100 }).await;
    assert!(subscribed.truth("recovered"));
    assert_eq!(subscribed.number("cursor"), 15);
}

#[tokio::test]
async fn a_memory_subscription_without_limits_keeps_what_the_server_gives_it() {
    let server = TestServer::with(|config| config.memory_log = 64 << 10);
    let mut client = server.client().await;
    let settings = fields! { "durability": "Memory" };
    let fields = fields! { "subscription_id": "orders", "settings": settings };
    client.call("CreateSubscription", fields).await;
    for _ in 0..40 {
        client.publish("orders", vec![0; 4_000]).await;
    }
    eventually("the oldest went", async || {
        client.meta("orders").await.number("bytes") <= 64 << 10
    })
    .await;
    let meta = client.meta("orders").await;
    assert!(meta.number("bytes") > 32 << 10);
    assert_eq!(meta.number("last_sequence"), 40);
    let log = client.log("orders").await;
    assert_eq!(log.last().unwrap().number("sequence"), 40);
    assert_eq!(log[0].number("sequence"), meta.number("first_sequence"));
}

#[tokio::test]
async fn what_retention_removed_stays_removed_after_a_restart() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    create(
        &mut client,
        "orders",
        "Synced",
        fields! { "max_publications": 5 },
    )
    .await;
    client.publish_many("orders", 20).await;
    first_is(&mut client, "orders", 16).await;
    let before = client.log("orders").await;
    client.close().await;
    server.restart().await;
    let mut client = server.client().await;
    assert_eq!(client.log("orders").await, before);
    assert_eq!(client.meta("orders").await.number("first_sequence"), 16);
}

#[tokio::test]
async fn the_servers_default_retention_holds_for_what_says_nothing_else() {
    let server = TestServer::with(|config| config.retention.max_publications = Some(4));
    let mut client = server.client().await;
    client.publish_many("orders", 10).await;
    first_is(&mut client, "orders", 7).await;
}
