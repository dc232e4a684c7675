//! Section 6: what survives what.

use serde_cbor::Value;
use uuid::Uuid;

use crate::support::{Client, Process, TestServer};

async fn create(client: &mut Client, name: &str, durability: &str) {
    let settings = fields! { "durability": durability };
    let fields = fields! { "subscription_id": name, "settings": settings };
    client.call("CreateSubscription", fields).await;
}

/// Everything that the server can be asked about these subscriptions.
async fn everything(client: &mut Client, names: &[&str]) -> Vec<String> {
    let mut told = Vec::new();
    for name in names {
        told.push(format!("{:?}", client.meta(*name).await.fields));
        told.push(format!("{:?}", client.log(name).await));
        let fields = fields! { "log_id": *name };
        let index = client.call("GetLogIndex", fields).await;
        told.push(format!("{:?}", index.fields));
    }
    told
}

async fn fill(client: &mut Client) {
    for (name, durability) in [("s", "Synced"), ("w", "Written")] {
        create(client, name, durability).await;
        client.publish_many(name, 50).await;
        let id = Uuid::new_v4();
        let fields = fields! {
            "subscription_id": name, "submission": vec![5; 100_000], "publication_id": id,
        };
        client.call("SubmitPublication", fields).await;
    }
    let retention = fields! { "max_publications": 1_000, "max_age": 1_000_000_000 };
    let fields = fields! { "subscription_id": "s", "settings": fields! { "retention": retention } };
    client.call("UpdateSubscription", fields).await;
    client.publish("named/ünïcode", b"x").await;
    create(client, "empty", "Synced").await;
}

const NAMES: [&str; 4] = ["s", "w", "named/ünïcode", "empty"];

#[tokio::test]
async fn a_restart_keeps_every_subscription_with_its_settings_and_its_log() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    fill(&mut client).await;
    let before = everything(&mut client, &NAMES).await;
    client.close().await;
    for _ in 0..2 {
        server.restart().await;
        let mut client = server.client().await;
        assert_eq!(everything(&mut client, &NAMES).await, before);
        client.close().await;
    }
    let mut client = server.client().await;
    let submitted = client.publish("s", b"x").await;
    assert_eq!(submitted.number("sequence"), 52);
}

#[tokio::test]
async fn kill_9_keeps_everything_that_was_answered() {
    let mut server = Process::start(&[]);
    let mut client = server.client().await;
    fill(&mut client).await;
    let before = everything(&mut client, &NAMES).await;
    for _ in 0..2 {
        server.kill();
        server.start_again();
        let mut client = server.client().await;
        assert_eq!(everything(&mut client, &NAMES).await, before);
    }
}

#[tokio::test]
async fn a_memory_subscription_is_empty_after_a_restart_and_has_a_new_epoch() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    create(&mut client, "orders", "Memory").await;
    client.publish_many("orders", 10).await;
    let before = client.meta("orders").await;
    assert_eq!(client.log("orders").await.len(), 10);
    client.close().await;
    server.restart().await;
    let mut client = server.client().await;
    let after = client.meta("orders").await;
    assert_ne!(before.uuid("epoch"), after.uuid("epoch"));
    assert_eq!(before.value("settings"), after.value("settings"));
    assert_eq!(
        (
            after.number("first_sequence"),
            after.number("last_sequence")
        ),
        (1, 0)
    );
    assert!(client.log("orders").await.is_empty());
    let submitted = client.publish("orders", b"x").await;
    assert_eq!(submitted.number("sequence"), 1);
    assert_eq!(submitted.text("durability"), "Memory");
}

#[tokio::test]
async fn a_start_that_has_something_to_write_serves_from_its_first_moment_on() {
    let mut server = TestServer::start();
    for _ in 0..6 {
        // Its new epoch is written when the server starts.
        let mut client = server.client().await;
        create(&mut client, "orders", "Memory").await;
        client.publish("orders", b"x").await;
        client.close().await;
        server.restart().await;
    }
}

#[tokio::test]
async fn each_level_delivers_live_and_from_the_log() {
    let server = TestServer::start();
    for level in ["Memory", "Written", "Synced"] {
        let mut live = server.client().await;
        create(&mut live, level, level).await;
        live.subscribe(level, "New").await;
        live.publish_many(level, 100).await;
        let mut late = server.client().await;
        late.subscribe(level, "First").await;
        for sequence in 1..=100 {
            let (one, other) = (
                live.publication(sequence).await,
                late.publication(sequence).await,
            );
            assert_eq!(one.fields, other.fields);
        }
    }
}

#[tokio::test]
async fn subscriptions_of_all_levels_together_keep_each_its_order() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let levels = ["Memory", "Written", "Synced"];
    for level in levels {
        create(&mut client, level, level).await;
        client.subscribe(level, "New").await;
    }
    for round in 0..300_usize {
        let level = levels[round % 3];
        let fields = fields! { "subscription_id": level, "submission": level.as_bytes() };
        client.send_bare("SubmitPublication", fields).await;
    }
    let mut next = std::collections::HashMap::new();
    for _ in 0..300 {
        let publication = client.next().await.expect("Publication");
        let expected = next.entry(publication.bytes("data").to_vec()).or_insert(1);
        assert_eq!(publication.number("sequence"), *expected);
        *expected += 1;
    }
    assert!(next.values().all(|next| *next == 101));
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_does_not_start() {
    let server = TestServer::start();
    let config = infotainer::config::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: server.data_dir().to_owned(),
        ..Default::default()
    };
    assert!(infotainer::Server::start(config).is_err());
    let mut client = server.client().await;
    client.publish("orders", b"x").await;
}

#[tokio::test]
async fn settings_survive_kill_9_from_their_answer_on() {
    let mut server = Process::start(&[]);
    let mut client = server.client().await;
    create(&mut client, "orders", "Synced").await;
    for count in [5_u64, 6, 7] {
        let settings: Value = fields! { "retention": fields! { "max_publications": count } };
        let fields = fields! { "subscription_id": "orders", "settings": settings };
        client.call("UpdateSubscription", fields).await;
    }
    client.publish("deleted", b"x").await;
    client
        .call(
            "DeleteSubscription",
            fields! { "subscription_id": "deleted" },
        )
        .await;
    server.kill();
    server.start_again();
    let mut client = server.client().await;
    let settings = client.meta("orders").await.map("settings");
    assert_eq!(settings.map("retention").number("max_publications"), 7);
    let fields = fields! { "subscription_id": "deleted" };
    client.fail("not-found", "GetSubscription", fields).await;
}
