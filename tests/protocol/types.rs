//! Section 2: the forms that values may have.

use serde_cbor::Value;
use uuid::Uuid;

use crate::support::{Cbor, Client, TestServer, encode, named};

const NAMESPACE: Uuid = Uuid::from_u128(0x6ba7b811_9dad_11d1_80b4_00c04fd430c8);

/// The UUID that a name stands for.
fn uuid_of(name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("infotainer:{name}").as_bytes())
}

/// A map of one pair, from bytes: for what a plain value can't express.
fn command_of(name: &str, pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0xa1];
    bytes.extend(encode(&name.cbor()));
    bytes.push(0xa0 | pairs.len() as u8);
    for (key, value) in pairs {
        bytes.extend(encode(&(*key).cbor()));
        bytes.extend(*value);
    }
    bytes
}

/// Sends a command of such bytes with the request id 1, and gives its answer.
async fn ask(client: &mut Client, command: Vec<u8>) -> crate::support::Response {
    client
        .send_bytes([&[0x82, 0x01], &command[..]].concat())
        .await;
    client.answer(1).await
}

#[tokio::test]
async fn a_uuid_may_be_16_bytes_or_text_in_either_case_or_tagged_37() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let id = Uuid::new_v4();
    client.publish(id, b"x").await;
    let bytes = encode(&id.cbor());
    let forms = [
        bytes.clone(),
        encode(&id.to_string().cbor()),
        encode(&id.to_string().to_uppercase().cbor()),
        [&[0xd8, 37], &bytes[..]].concat(),
        [&[0xd9, 0, 37], &bytes[..]].concat(),
        // In two chunks.
        [
            &[0x5f, 0x4a],
            &id.as_bytes()[..10],
            &[0x46],
            &id.as_bytes()[10..],
            &[0xff],
        ]
        .concat(),
    ];
    for form in forms {
        let answer = ask(
            &mut client,
            command_of("GetSubscription", &[("subscription_id", &form)]),
        )
        .await;
        assert_eq!(
            answer.expect("SubscriptionMeta").uuid("subscription_id"),
            id,
            "{form:x?}"
        );
    }
}

#[tokio::test]
async fn a_uuid_of_another_length_is_invalid_argument() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for len in [0, 15, 17, 32] {
        let fields = fields! { "subscription_id": vec![1_u8; len] };
        client.fail("invalid-argument", "Subscribe", fields).await;
    }
}

#[tokio::test]
async fn publication_ids_and_epochs_have_the_same_forms() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let id = Uuid::new_v4();
    let text = fields! { "subscription_id": "orders", "submission": b"x", "publication_id": id.to_string() };
    let submitted = client.call("SubmitPublication", text).await;
    assert_eq!(submitted.uuid("publication_id"), id);
    let fields =
        fields! { "log_id": "orders", "entries": vec![id.to_string().to_uppercase().cbor()] };
    let entry = client.call("GetLogEntries", fields).await;
    assert_eq!(entry.maps("publications")[0].uuid("publication_id"), id);
    let epoch = client.meta("orders").await.uuid("epoch");
    let fields = fields! {
        "subscription_id": "orders", "from": fields! { "After": 0 }, "epoch": epoch.to_string(),
    };
    assert!(client.call("Subscribe", fields).await.truth("recovered"));
}

#[tokio::test]
async fn bytes_may_be_a_byte_string_an_array_of_integers_or_tagged() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.subscribe("orders", "New").await;
    let forms: [&[u8]; 9] = [
        &[0x43, 1, 2, 255],
        &[0x83, 0x01, 0x02, 0x18, 0xff],
        &[0x9f, 0x01, 0x02, 0x18, 0xff, 0xff],
        &[0x83, 0x01, 0x19, 0, 2, 0x1b, 0, 0, 0, 0, 0, 0, 0, 255],
        &[0xd8, 64, 0x43, 1, 2, 255],
        &[0xd8, 24, 0x43, 1, 2, 255],
        &[0xd9, 0xd9, 0xf7, 0xd8, 64, 0x43, 1, 2, 255],
        &[0x5f, 0x41, 1, 0x40, 0x42, 2, 255, 0xff],
        &[0x58, 3, 1, 2, 255],
    ];
    let name = encode(&"orders".cbor());
    for (sequence, form) in (1..).zip(forms) {
        let command = command_of(
            "SubmitPublication",
            &[("subscription_id", &name), ("submission", form)],
        );
        ask(&mut client, command).await.expect("Submitted");
        assert_eq!(
            client.publication(sequence).await.bytes("data"),
            [1, 2, 255],
            "{form:x?}"
        );
    }
}

#[tokio::test]
async fn an_array_of_anything_but_0_to_255_is_no_bytes() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for wrong in [
        vec![256.cbor()],
        vec![(-1).cbor()],
        vec!["x".cbor()],
        vec![1.0.cbor()],
        vec![().cbor()],
    ] {
        let fields = fields! { "subscription_id": "orders", "submission": wrong };
        client
            .fail("invalid-argument", "SubmitPublication", fields)
            .await;
    }
}

#[tokio::test]
async fn no_bytes_at_all_are_a_submission_too() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.subscribe("orders", "New").await;
    client.publish("orders", b"").await;
    client.publish("orders", Value::Array(vec![])).await;
    for sequence in 1..=2 {
        assert_eq!(client.publication(sequence).await.bytes("data"), b"");
    }
}

#[tokio::test]
async fn a_name_stands_for_its_version_5_uuid() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let longest = "é".repeat(127) + "x";
    for name in [
        "orders",
        "Orders",
        " orders",
        "a/b.c:d",
        "名前",
        "e\u{301}",
        "\u{a0}",
        &longest,
        "3fa85f6457174562b3fc2c963f66afa6",
        "3fa85f64-5717-4562-b3fc-2c963f66afag",
    ] {
        let subscribed = client.subscribe(name, "New").await;
        assert_eq!(subscribed.uuid("subscription_id"), uuid_of(name), "{name}");
        let by_id = client.meta(uuid_of(name)).await;
        assert_eq!(by_id.map("settings").text("name"), name);
    }
}

#[tokio::test]
async fn what_is_no_name_is_invalid_argument() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let too_long = "x".repeat(256);
    for name in [
        "", &too_long, "a\nb", "\0", "\u{1f}", "\u{7f}", "\u{80}", "\u{9f}",
    ] {
        let fields = fields! { "subscription_id": name };
        let error = client.fail("invalid-argument", "Subscribe", fields).await;
        assert!(!error.has("subscription_id"));
    }
}

#[tokio::test]
async fn the_name_is_set_by_the_first_command_that_uses_one() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish(uuid_of("orders"), b"x").await;
    assert!(
        !client
            .meta(uuid_of("orders"))
            .await
            .map("settings")
            .has("name")
    );
    client.subscribe("orders", "New").await;
    let settings = client.meta(uuid_of("orders")).await.map("settings");
    assert_eq!(settings.text("name"), "orders");
}

#[tokio::test]
async fn a_float_is_never_taken_for_an_integer() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish("orders", b"x").await;
    let name = encode(&"orders".cbor());
    let floats: [&[u8]; 3] = [
        &[0xf9, 0x3c, 0x00],
        &[0xfa, 0x3f, 0x80, 0, 0],
        &[0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0],
    ];
    for one in floats {
        for field in ["after", "limit"] {
            let command = command_of("GetLogIndex", &[("log_id", &name), (field, one)]);
            ask(&mut client, command)
                .await
                .expect_error("invalid-argument");
        }
        let command = command_of(
            "Acknowledge",
            &[("subscription_id", &name), ("sequence", one)],
        );
        ask(&mut client, command)
            .await
            .expect_error("invalid-argument");
    }
}

#[tokio::test]
async fn integers_may_be_longer_than_they_need_and_containers_of_indefinite_length() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 3).await;
    // [_ 9, {_ "GetLogIndex": {_ (_ "log", "_id"): "orders", "after": 2 as eight bytes}}]
    let mut bytes = vec![0x9f, 0x19, 0x00, 0x09, 0xbf];
    bytes.extend(encode(&"GetLogIndex".cbor()));
    bytes.extend([0xbf, 0x7f]);
    bytes.extend(encode(&"log".cbor()));
    bytes.extend(encode(&"_id".cbor()));
    bytes.push(0xff);
    bytes.extend(encode(&"orders".cbor()));
    bytes.extend(encode(&"after".cbor()));
    bytes.extend([0x1b, 0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0xff]);
    client.send_bytes(bytes).await;
    let index = client.answer(9).await.expect("LogIndex");
    assert_eq!(index.array("entries").len(), 1);
}

#[tokio::test]
async fn numbers_go_up_to_2_to_the_53rd() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish("orders", b"x").await;
    let largest = (1_u64 << 53) - 1;
    let fields = fields! { "log_id": "orders", "after": largest };
    assert!(
        client
            .call("GetLogIndex", fields)
            .await
            .array("entries")
            .is_empty()
    );
    let fields = fields! { "log_id": "orders", "after": largest + 1 };
    client.fail("invalid-argument", "GetLogIndex", fields).await;

    let request = Value::Array(vec![largest.cbor(), named("Ping", fields! {})]);
    client.send(&request).await;
    client.answer(largest).await.expect("Pong");
}
