//! Section 4: `CreateSubscription`, `UpdateSubscription`, and settings.

use serde_cbor::Value;
use uuid::Uuid;

use crate::support::{Client, Response, TestServer};

fn with_settings(settings: Value) -> Value {
    fields! { "subscription_id": "orders", "settings": settings }
}

async fn create(client: &mut Client, settings: Value) -> Response {
    client
        .call("CreateSubscription", with_settings(settings))
        .await
}

async fn update(client: &mut Client, settings: Value) -> Response {
    client
        .call("UpdateSubscription", with_settings(settings))
        .await
}

#[tokio::test]
async fn a_created_subscription_tells_its_state() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let meta = client
        .call(
            "CreateSubscription",
            fields! { "subscription_id": "orders" },
        )
        .await;
    assert_eq!(
        meta.names(),
        [
            "bytes",
            "connected",
            "created",
            "epoch",
            "first_sequence",
            "kind",
            "last_sequence",
            "settings",
            "subscribers",
            "subscription_id"
        ]
    );
    assert_eq!(meta.text("kind"), "Broadcast");
    assert_eq!(
        (meta.number("first_sequence"), meta.number("last_sequence")),
        (1, 0)
    );
    assert_eq!(
        (
            meta.number("bytes"),
            meta.number("subscribers"),
            meta.number("connected")
        ),
        (0, 0, 0)
    );
    assert!(meta.number("created") > 1_600_000_000_000);
    let settings = meta.map("settings");
    assert_eq!(settings.names(), ["durability", "name", "retention"]);
    assert_eq!(settings.text("durability"), "Synced");
    assert!(settings.map("retention").names().is_empty());
    assert_eq!(client.meta("orders").await.fields, meta.fields);
}

#[tokio::test]
async fn the_state_counts_payload_bytes_and_sequences() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish("orders", &[0; 100]).await;
    client.publish("orders", &[0; 11]).await;
    let meta = client.meta("orders").await;
    assert_eq!(meta.number("bytes"), 111);
    assert_eq!(
        (meta.number("first_sequence"), meta.number("last_sequence")),
        (1, 2)
    );
}

#[tokio::test]
async fn the_servers_defaults_are_the_settings_of_what_says_nothing_else() {
    let server = TestServer::with(|config| {
        config.durability = infotainer::protocol::Durability::Written;
        config.retention.max_publications = Some(1_000);
        config.retention.max_age = Some(60_000);
    });
    let mut client = server.client().await;
    client.subscribe("orders", "New").await;
    let settings = client.meta("orders").await.map("settings");
    assert_eq!(settings.text("durability"), "Written");
    let retention = settings.map("retention");
    assert_eq!(retention.names(), ["max_age", "max_publications"]);
    assert_eq!(retention.number("max_age"), 60_000);
}

#[tokio::test]
async fn creating_the_same_again_is_fine() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let settings = || {
        fields! { "durability": "Written", "retention": fields! { "max_publications": 7 } }
    };
    let first = create(&mut client, settings()).await;
    let again = create(&mut client, settings()).await;
    assert_eq!(again.fields, first.fields);
    // What is not given is not compared.
    create(&mut client, fields! {}).await;
    create(&mut client, fields! { "durability": "Written" }).await;
    let fields = fields! { "subscription_id": "orders", "kind": "Broadcast" };
    client.call("CreateSubscription", fields).await;
}

#[tokio::test]
async fn creating_with_another_kind_or_setting_is_conflict_and_changes_nothing() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let first = create(
        &mut client,
        fields! { "retention": fields! { "max_bytes": 7 } },
    )
    .await;
    for other in [
        fields! { "durability": "Written" },
        fields! { "retention": fields! { "max_bytes": 8 } },
        fields! { "retention": fields! { "max_publications": 7 } },
    ] {
        client
            .fail("conflict", "CreateSubscription", with_settings(other))
            .await;
    }
    let fields = fields! { "subscription_id": "orders", "kind": "Queue" };
    client.fail("conflict", "CreateSubscription", fields).await;
    assert_eq!(client.meta("orders").await.fields, first.fields);
}

#[tokio::test]
async fn wrong_settings_are_invalid_argument_and_make_nothing() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let wrong = [
        fields! { "colour": "blue" },
        fields! { "name": "other" },
        fields! { "durability": "synced" },
        fields! { "durability": 1 },
        fields! { "retention": 5 },
        fields! { "retention": fields! { "max_publications": 0 } },
        fields! { "retention": fields! { "max_bytes": 0 } },
        fields! { "retention": fields! { "max_age": 0 } },
        fields! { "retention": fields! { "max_age": -1 } },
        fields! { "retention": fields! { "max_age": 1.5 } },
        fields! { "retention": fields! { "max_count": 5 } },
        fields! { "ack_timeout": 1_000 },
        fields! { "max_deliveries": 3 },
        fields! { "dead_letter": Uuid::new_v4() },
    ];
    for settings in wrong.clone() {
        client
            .fail(
                "invalid-argument",
                "CreateSubscription",
                with_settings(settings),
            )
            .await;
    }
    let fields = fields! { "subscription_id": "orders" };
    client.fail("not-found", "GetSubscription", fields).await;

    let before = create(&mut client, fields! {}).await;
    for settings in wrong {
        client
            .fail(
                "invalid-argument",
                "UpdateSubscription",
                with_settings(settings),
            )
            .await;
    }
    assert_eq!(client.meta("orders").await.fields, before.fields);
}

#[tokio::test]
async fn an_update_replaces_what_is_given_and_retention_as_a_whole() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let retention = fields! { "max_publications": 100, "max_bytes": 1_000 };
    create(&mut client, fields! { "retention": retention }).await;
    let meta = update(&mut client, fields! { "durability": "Written" }).await;
    let settings = meta.map("settings");
    assert_eq!(settings.text("durability"), "Written");
    assert_eq!(
        settings.map("retention").names(),
        ["max_bytes", "max_publications"]
    );
    let meta = update(
        &mut client,
        fields! { "retention": fields! { "max_age": 5_000 } },
    )
    .await;
    let settings = meta.map("settings");
    assert_eq!(settings.text("durability"), "Written");
    assert_eq!(settings.map("retention").names(), ["max_age"]);
    assert_eq!(settings.text("name"), "orders");
}

#[tokio::test]
async fn null_sets_the_default_again() {
    let server = TestServer::with(|config| config.retention.max_publications = Some(9));
    let mut client = server.client().await;
    let retention = fields! { "max_publications": 100 };
    create(
        &mut client,
        fields! { "durability": "Written", "retention": retention },
    )
    .await;
    let meta = update(&mut client, fields! { "durability": (), "retention": () }).await;
    let settings = meta.map("settings");
    assert_eq!(settings.text("durability"), "Synced");
    assert_eq!(settings.map("retention").number("max_publications"), 9);
}

#[tokio::test]
async fn a_limit_that_retention_leaves_out_is_the_servers_default() {
    let server = TestServer::with(|config| config.retention.max_publications = Some(9));
    let mut client = server.client().await;
    let meta = create(
        &mut client,
        fields! { "retention": fields! { "max_bytes": 5 } },
    )
    .await;
    let retention = meta.map("settings").map("retention");
    assert_eq!(retention.names(), ["max_bytes", "max_publications"]);
    assert_eq!(retention.number("max_publications"), 9);
    // What is in force is what creating it again is compared with.
    let same = fields! { "max_bytes": 5, "max_publications": 9 };
    create(&mut client, fields! { "retention": same }).await;
}

#[tokio::test]
async fn synced_and_written_can_be_changed_into_each_other_while_publishing() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.subscribe("orders", "New").await;
    let mut requests = Vec::new();
    for round in 0..40 {
        let level = if round % 2 == 0 { "Written" } else { "Synced" };
        let fields = with_settings(fields! { "durability": level });
        client.request("UpdateSubscription", fields).await;
        for _ in 0..5 {
            let fields = fields! { "subscription_id": "orders", "submission": b"x" };
            requests.push((client.request("SubmitPublication", fields).await, level));
        }
    }
    for (sequence, (request, level)) in (1..).zip(requests) {
        let submitted = client.answer(request).await.expect("Submitted");
        assert_eq!(submitted.number("sequence"), sequence);
        assert_eq!(submitted.text("durability"), level);
    }
    let mut sequence = 0;
    while sequence < 200 {
        let response = client.any().await;
        if response.name == "Publication" {
            sequence += 1;
            assert_eq!(response.number("sequence"), sequence);
        }
    }
}

#[tokio::test]
async fn memory_is_fixed_when_the_subscription_is_made() {
    let server = TestServer::start();
    let mut client = server.client().await;
    create(&mut client, fields! { "durability": "Memory" }).await;
    for level in ["Written", "Synced"] {
        let fields = with_settings(fields! { "durability": level });
        client
            .fail("invalid-argument", "UpdateSubscription", fields)
            .await;
    }
    update(&mut client, fields! { "durability": "Memory" }).await;
    client.publish("synced", b"x").await;
    let settings = fields! { "durability": "Memory" };
    let fields = fields! { "subscription_id": "synced", "settings": settings };
    client
        .fail("invalid-argument", "UpdateSubscription", fields)
        .await;
}
