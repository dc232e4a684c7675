//! Section 1: malformed messages, and what is only wrong inside a command.

use serde_cbor::Value;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::support::{Cbor, TestServer, encode, named};

/// Arrays in arrays.
fn nested(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
}

#[tokio::test]
async fn what_is_not_exactly_one_command_is_malformed_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let ping = encode(&"Ping".cbor());
    let text = |text: &str| encode(&text.cbor());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("a number", vec![0x05]),
        ("null", vec![0xf6]),
        ("a byte string", vec![0x41, 0x00]),
        ("an empty array", vec![0x80]),
        ("an id alone", vec![0x81, 0x05]),
        ("three", [&[0x83, 0x05], &ping[..], &[0x00]].concat()),
        ("a text as id", [&[0x82], &text("1")[..], &ping].concat()),
        ("a negative id", [&[0x82, 0x20], &ping[..]].concat()),
        (
            "a float as id",
            [&[0x82, 0xf9, 0x3c, 0x00], &ping[..]].concat(),
        ),
        (
            "an id of 2^53",
            [&[0x82, 0x1b, 0, 0x20, 0, 0, 0, 0, 0, 0], &ping[..]].concat(),
        ),
        ("an empty map", vec![0xa0]),
        (
            "two commands in one map",
            [&[0xa2], &ping[..], &[0xa0], &text("Pong")[..], &[0xa0]].concat(),
        ),
        ("a number as name", vec![0xa1, 0x01, 0xa0]),
        (
            "fields that are no map",
            [&[0xa1], &ping[..], &[0x80]].concat(),
        ),
        ("two items", [&ping[..], &ping].concat()),
        ("a break from nowhere", vec![0xff]),
        ("half a name", ping[..3].to_vec()),
        ("half a byte string", {
            let whole = encode(&named(
                "SubmitPublication",
                fields! { "submission": &[0; 50], "subscription_id": "orders" },
            ));
            whole[..30].to_vec()
        }),
        ("a reserved length", vec![0x1c]),
        ("a name that is not UTF-8", vec![0x62, 0xc3, 0x28]),
        (
            "a byte string in chunks of text",
            [
                &[0xa1],
                &ping[..],
                &[0xa1, 0x61, b'a', 0x5f, 0x61, b'x', 0xff],
            ]
            .concat(),
        ),
        (
            "too deep",
            encode(&named("Ping", fields! { "x": nested(70) })),
        ),
    ];
    for (what, bytes) in cases {
        client.send_bytes(bytes).await;
        let error = client.next().await;
        assert_eq!(error.name, "Error", "{what}: {error:?}");
        assert_eq!(error.text("code"), "malformed", "{what}");
        assert!(!error.truth("temporary"));
        client.call("Ping", fields! {}).await;
    }
}

#[tokio::test]
async fn nesting_of_60_levels_is_no_fault() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.call("Ping", fields! { "x": nested(60) }).await;
}

#[tokio::test]
async fn a_key_that_stands_twice_is_malformed() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let key = encode(&"subscription_id".cbor());
    let name = encode(&"orders".cbor());
    let command = encode(&"Subscribe".cbor());
    let fields = [&[0xa2], &key[..], &name, &key, &name].concat();
    client
        .send_bytes([&[0xa1], &command[..], &fields].concat())
        .await;
    client.next().await.expect_error("malformed");

    // The same in a map inside the fields that is defined here.
    let create = encode(&"CreateSubscription".cbor());
    let settings = encode(&"settings".cbor());
    let durability = [encode(&"durability".cbor()), encode(&"Memory".cbor())].concat();
    let settings = [&settings[..], &[0xa2], &durability, &durability].concat();
    let fields = [&[0xa2], &key[..], &name, &settings].concat();
    client
        .send_bytes([&[0x82, 0x07, 0xa1], &create[..], &fields].concat())
        .await;
    client.answer(7).await.expect_error("malformed");
    client
        .fail(
            "not-found",
            "GetSubscription",
            fields! { "subscription_id": "orders" },
        )
        .await;
}

#[tokio::test]
async fn the_error_carries_the_request_id_if_the_message_begins_with_one() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let ping = encode(&"Ping".cbor());
    for bytes in [
        vec![0x82, 0x18, 0x64, 0x05],
        vec![0x82, 0x18, 0x64],
        [&[0x82, 0x18, 0x64], &ping[..3]].concat(),
        [&[0x82, 0x18, 0x64], &ping[..], &[0x00]].concat(),
        vec![0x9f, 0x18, 0x64, 0x05, 0xff],
        // Not the shortest form of 100.
        vec![0x82, 0x19, 0x00, 0x64, 0x05],
    ] {
        client.send_bytes(bytes).await;
        client.answer(100).await.expect_error("malformed");
    }
}

#[tokio::test]
async fn the_16th_malformed_message_in_a_row_is_answered_and_then_closes_with_4503() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for round in 0..16 {
        if round % 2 == 0 {
            client.send_bytes(vec![0xff]).await;
        } else {
            client.send_message(Message::text("Ping")).await;
        }
    }
    for round in 0..16 {
        let code = if round % 2 == 0 {
            "malformed"
        } else {
            "unsupported-format"
        };
        client.next().await.expect_error(code);
    }
    assert_eq!(client.closed().await, 4503);
}

#[tokio::test]
async fn nothing_behind_the_16th_malformed_message_is_applied() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let fields = fields! { "subscription_id": "orders", "submission": b"late" };
    for _ in 0..16 {
        client.send_bytes(vec![0xff]).await;
    }
    client.send_bare("SubmitPublication", fields).await;
    assert_eq!(client.closed().await, 4503);
    let mut other = server.client().await;
    other
        .fail(
            "not-found",
            "GetSubscription",
            fields! { "subscription_id": "orders" },
        )
        .await;
}

#[tokio::test]
async fn a_command_in_between_starts_the_count_anew() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for _ in 0..3 {
        for _ in 0..15 {
            client.send_bytes(vec![0xff]).await;
            client.next().await.expect_error("malformed");
        }
        client.call("Ping", fields! {}).await;
    }
}

#[tokio::test]
async fn what_is_wrong_inside_a_commands_fields_does_not_count() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for _ in 0..20 {
        client
            .fail("invalid-argument", "Subscribe", fields! {})
            .await;
    }
    client.call("Ping", fields! {}).await;
}

#[tokio::test]
async fn an_unknown_command_is_told_so() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client
        .fail("unknown-command", "Publish", fields! { "x": 1 })
        .await;
    client.fail("unknown-command", "ping", fields! {}).await;
    client.send(&"Subscrib".cbor()).await;
    client.next().await.expect_error("unknown-command");
}

#[tokio::test]
async fn unknown_fields_of_a_command_are_ignored() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let fields =
        fields! { "subscription_id": "orders", "colour": "blue", "nested": vec![1.cbor()] };
    client.call("Subscribe", fields).await;
}

#[tokio::test]
async fn null_in_an_optional_field_is_absence() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let fields = fields! { "subscription_id": "orders", "kind": (), "from": (), "epoch": (), "prefetch": () };
    client.call("Subscribe", fields).await;
    let fields = fields! {
        "subscription_id": "orders", "submission": b"x", "kind": (), "publication_id": (), "expected_sequence": (),
    };
    client.call("SubmitPublication", fields).await;
    client.publication(1).await;
    let fields = fields! { "log_id": "orders", "entries": (), "after": (), "limit": () };
    assert_eq!(
        client
            .call("GetLogEntries", fields)
            .await
            .array("publications")
            .len(),
        1
    );
    let fields = fields! { "after": (), "limit": () };
    assert_eq!(
        client
            .call("ListSubscriptions", fields)
            .await
            .array("subscriptions")
            .len(),
        1
    );
    client
        .call(
            "CreateSubscription",
            fields! { "subscription_id": "b", "kind": (), "settings": () },
        )
        .await;
}

#[tokio::test]
async fn a_missing_or_wrong_field_is_invalid_argument_and_changes_nothing() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish("orders", b"x").await;
    let id = "orders";
    let cases = [
        ("Subscribe", fields! {}),
        ("Subscribe", fields! { "subscription_id": () }),
        ("Subscribe", fields! { "subscription_id": 5 }),
        (
            "Subscribe",
            fields! { "subscription_id": id, "kind": "Fanout" },
        ),
        ("Subscribe", fields! { "subscription_id": id, "kind": 1 }),
        (
            "Subscribe",
            fields! { "subscription_id": id, "from": "Newest" },
        ),
        ("Subscribe", fields! { "subscription_id": id, "from": 3 }),
        (
            "Subscribe",
            fields! { "subscription_id": id, "from": fields! { "After": -1 } },
        ),
        (
            "Subscribe",
            fields! { "subscription_id": id, "from": fields! { "After": 1_u64 << 53 } },
        ),
        (
            "Subscribe",
            fields! { "subscription_id": id, "from": fields! { "Before": 1 } },
        ),
        (
            "Subscribe",
            fields! { "subscription_id": id, "from": fields! { "After": 1, "Last": 1 } },
        ),
        (
            "Subscribe",
            fields! { "subscription_id": id, "from": fields! { "After": 1.0 } },
        ),
        (
            "Subscribe",
            fields! { "subscription_id": id, "epoch": "yesterday" },
        ),
        (
            "Subscribe",
            fields! { "subscription_id": id, "prefetch": 0 },
        ),
        (
            "Subscribe",
            fields! { "subscription_id": id, "prefetch": 65_536 },
        ),
        ("Unsubscribe", fields! {}),
        ("SubmitPublication", fields! { "subscription_id": id }),
        ("SubmitPublication", fields! { "submission": b"x" }),
        (
            "SubmitPublication",
            fields! { "subscription_id": id, "submission": "text" },
        ),
        (
            "SubmitPublication",
            fields! { "subscription_id": id, "submission": b"x", "publication_id": b"short" },
        ),
        (
            "SubmitPublication",
            fields! { "subscription_id": id, "submission": b"x", "expected_sequence": 0 },
        ),
        (
            "SubmitPublication",
            fields! { "subscription_id": id, "submission": b"x", "expected_sequence": 2.0 },
        ),
        ("Acknowledge", fields! { "subscription_id": id }),
        (
            "Acknowledge",
            fields! { "subscription_id": id, "sequence": 0 },
        ),
        (
            "Acknowledge",
            fields! { "subscription_id": id, "sequence": 1, "publication_ids": [Uuid::nil()] },
        ),
        ("GetLogIndex", fields! {}),
        ("GetLogIndex", fields! { "log_id": id, "limit": 0 }),
        ("GetLogIndex", fields! { "log_id": id, "limit": 10_001 }),
        ("GetLogIndex", fields! { "log_id": id, "after": -1 }),
        ("GetLogEntries", fields! { "log_id": id, "limit": 0 }),
        (
            "GetLogEntries",
            fields! { "log_id": id, "entries": [Uuid::nil()], "after": 0 },
        ),
        (
            "GetLogEntries",
            fields! { "log_id": id, "entries": [Uuid::nil()], "limit": 5 },
        ),
        (
            "GetLogEntries",
            fields! { "log_id": id, "entries": vec![1.cbor()] },
        ),
        (
            "GetLogEntries",
            fields! { "log_id": id, "entries": Uuid::nil() },
        ),
        (
            "GetLogEntries",
            fields! { "log_id": id, "entries": (0..10_001).map(|_| Uuid::new_v4()).collect::<Vec<_>>() },
        ),
        ("GetSubscription", fields! {}),
        ("ListSubscriptions", fields! { "limit": 0 }),
        ("ListSubscriptions", fields! { "limit": 1_001 }),
        ("ListSubscriptions", fields! { "after": "orders" }),
        ("DeleteSubscription", fields! {}),
        (
            "UpdateSubscription",
            fields! { "subscription_id": id, "settings": 5 },
        ),
        (
            "CreateSubscription",
            fields! { "subscription_id": id, "settings": "Memory" },
        ),
    ];
    for (command, fields) in cases {
        client.fail("invalid-argument", command, fields).await;
    }
    let meta = client.meta("orders").await;
    assert_eq!(
        (meta.number("last_sequence"), meta.number("subscribers")),
        (1, 0)
    );
    assert_eq!(
        client
            .call("ListSubscriptions", fields! {})
            .await
            .array("subscriptions")
            .len(),
        1
    );
}

#[tokio::test]
async fn an_error_tells_its_command_its_subscription_and_whether_it_is_temporary() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let id = Uuid::new_v4();
    let error = client
        .fail(
            "not-found",
            "GetSubscription",
            fields! { "subscription_id": id },
        )
        .await;
    assert_eq!(error.text("command"), "GetSubscription");
    assert_eq!(error.uuid("subscription_id"), id);
    assert!(!error.truth("temporary"));
    assert!(!error.has("retry_after"));
}
