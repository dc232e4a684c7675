//! Section 1: request ids, silence, and the order of answers.

use serde_cbor::Value;

use crate::support::{Cbor, TestServer, named};

#[tokio::test]
async fn a_request_is_answered_once_under_its_id_whichever_that_is() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for id in [0_u64, 23, 24, 1_000_000, 7, 7] {
        let request = Value::Array(vec![id.cbor(), named("Ping", fields! {})]);
        client.send(&request).await;
        let answer = client.any().await.expect("Pong");
        assert_eq!(answer.id, Some(id));
        assert!(answer.number("time") > 1_600_000_000_000);
    }
    client.hears_nothing().await;
}

#[tokio::test]
async fn a_command_without_fields_may_be_its_bare_name() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.send(&"Ping".cbor()).await;
    assert_eq!(client.any().await.expect("Pong").id, None);
    client
        .send(&Value::Array(vec![5.cbor(), "Ping".cbor()]))
        .await;
    assert_eq!(client.any().await.expect("Pong").id, Some(5));
    client
        .send(&Value::Array(vec![6.cbor(), "ListSubscriptions".cbor()]))
        .await;
    client.answer(6).await.expect("Subscriptions");
    client.send(&"Subscribe".cbor()).await;
    client.next().await.expect_error("invalid-argument");
}

#[tokio::test]
async fn a_bare_command_that_changes_something_is_answered_by_silence() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let id = "orders";
    client
        .send_bare("CreateSubscription", fields! { "subscription_id": id })
        .await;
    client.hears_nothing().await;
    client
        .send_bare(
            "UpdateSubscription",
            fields! { "subscription_id": id, "settings": fields! { "durability": "Written" } },
        )
        .await;
    client.hears_nothing().await;
    client
        .send_bare("Subscribe", fields! { "subscription_id": id })
        .await;
    client.hears_nothing().await;
    client
        .send_bare(
            "SubmitPublication",
            fields! { "subscription_id": id, "submission": b"x" },
        )
        .await;
    client.publication(1).await;
    client.hears_nothing().await;
    client
        .send_bare(
            "Acknowledge",
            fields! { "subscription_id": id, "sequence": 1 },
        )
        .await;
    client.hears_nothing().await;
    client
        .send_bare("Unsubscribe", fields! { "subscription_id": id })
        .await;
    client.hears_nothing().await;
    let meta = client.meta(id).await;
    assert_eq!(meta.number("last_sequence"), 1);
    assert_eq!(meta.map("settings").text("durability"), "Written");
    assert_eq!(meta.number("subscribers"), 0);
    client
        .send_bare("DeleteSubscription", fields! { "subscription_id": id })
        .await;
    client.hears_nothing().await;
    client
        .fail(
            "not-found",
            "GetSubscription",
            fields! { "subscription_id": id },
        )
        .await;
}

#[tokio::test]
async fn a_bare_command_that_asks_is_answered_bare() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish("orders", b"x").await;
    for (command, fields, answer) in [
        ("GetLogIndex", fields! { "log_id": "orders" }, "LogIndex"),
        (
            "GetLogEntries",
            fields! { "log_id": "orders" },
            "DataLogEntry",
        ),
        (
            "GetSubscription",
            fields! { "subscription_id": "orders" },
            "SubscriptionMeta",
        ),
        ("ListSubscriptions", fields! {}, "Subscriptions"),
        ("Ping", fields! {}, "Pong"),
    ] {
        client.send_bare(command, fields).await;
        assert_eq!(client.any().await.expect(answer).id, None);
    }
}

#[tokio::test]
async fn a_bare_command_that_fails_is_answered_by_a_bare_error() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for command in [
        "Unsubscribe",
        "Acknowledge",
        "UpdateSubscription",
        "DeleteSubscription",
        "GetSubscription",
    ] {
        let fields =
            fields! { "subscription_id": "nothing", "sequence": 1, "settings": fields! {} };
        client.send_bare(command, fields).await;
        let error = client.any().await.expect_error("not-found");
        assert_eq!(error.id, None);
        assert_eq!(error.text("command"), command);
    }
    client
        .send_bare("SubmitPublication", fields! { "subscription_id": "orders" })
        .await;
    client.any().await.expect_error("invalid-argument");
}

#[tokio::test]
async fn commands_about_what_does_not_exist_are_not_found_but_for_those_that_make_it() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for (command, fields) in [
        ("Unsubscribe", fields! { "subscription_id": "nothing" }),
        (
            "Acknowledge",
            fields! { "subscription_id": "nothing", "sequence": 1 },
        ),
        ("GetLogIndex", fields! { "log_id": "nothing" }),
        ("GetLogEntries", fields! { "log_id": "nothing" }),
        (
            "GetLogEntries",
            fields! { "log_id": "nothing", "entries": vec![] as Vec<Value> },
        ),
        (
            "UpdateSubscription",
            fields! { "subscription_id": "nothing", "settings": fields! {} },
        ),
        ("GetSubscription", fields! { "subscription_id": "nothing" }),
        (
            "DeleteSubscription",
            fields! { "subscription_id": "nothing" },
        ),
    ] {
        client.fail("not-found", command, fields).await;
    }
    for (command, fields) in [
        ("Subscribe", fields! { "subscription_id": "a" }),
        (
            "SubmitPublication",
            fields! { "subscription_id": "b", "submission": b"" },
        ),
        ("CreateSubscription", fields! { "subscription_id": "c" }),
    ] {
        client.call(command, fields).await;
    }
    let all = client.call("ListSubscriptions", fields! {}).await;
    assert_eq!(all.array("subscriptions").len(), 3);
}

#[tokio::test]
async fn answers_about_one_subscription_come_in_the_order_of_the_commands() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let mut requests = Vec::new();
    for round in 0..50 {
        let submit = fields! { "subscription_id": "orders", "submission": b"x" };
        requests.push((
            client.request("SubmitPublication", submit).await,
            "Submitted",
        ));
        let read = fields! { "log_id": "orders", "after": round };
        requests.push((client.request("GetLogEntries", read).await, "DataLogEntry"));
        let index = fields! { "log_id": "orders", "limit": 1 };
        requests.push((client.request("GetLogIndex", index).await, "LogIndex"));
        let meta = fields! { "subscription_id": "orders" };
        requests.push((
            client.request("GetSubscription", meta).await,
            "SubscriptionMeta",
        ));
        let wrong = fields! { "subscription_id": "orders", "sequence": 1_000 };
        requests.push((client.request("Acknowledge", wrong).await, "Error"));
    }
    for (id, name) in requests {
        let answer = client.any().await;
        assert_eq!((answer.id, answer.name.as_str()), (Some(id), name));
    }
}

#[tokio::test]
async fn a_read_shows_what_its_own_connection_submitted_before() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let mut reads = Vec::new();
    for round in 1..=30_u64 {
        let submit = fields! { "subscription_id": "orders", "submission": b"x" };
        client.send_bare("SubmitPublication", submit).await;
        let index = client
            .request("GetLogIndex", fields! { "log_id": "orders" })
            .await;
        let read = fields! { "log_id": "orders", "after": round - 1 };
        let entries = client.request("GetLogEntries", read).await;
        let meta = fields! { "subscription_id": "orders" };
        let meta = client.request("GetSubscription", meta).await;
        reads.push((round, index, entries, meta));
    }
    for (round, index, entries, meta) in reads {
        let index = client.answer(index).await;
        assert_eq!(index.number("last_sequence"), round);
        assert_eq!(index.array("entries").len() as u64, round);
        let entries = client.answer(entries).await.maps("publications");
        assert_eq!(entries[0].number("sequence"), round);
        let meta = client.answer(meta).await;
        assert_eq!(meta.number("last_sequence"), round);
    }
}

#[tokio::test]
async fn pong_comes_when_every_earlier_command_has_been_answered() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client
        .call(
            "CreateSubscription",
            fields! { "subscription_id": "m", "settings": fields! { "durability": "Memory" } },
        )
        .await;
    client
        .call(
            "CreateSubscription",
            fields! { "subscription_id": "w", "settings": fields! { "durability": "Written" } },
        )
        .await;
    for _ in 0..20 {
        let mut expected = Vec::new();
        for subscription in ["s", "m", "w", "s"] {
            let fields = fields! { "subscription_id": subscription, "submission": b"x" };
            expected.push(client.request("SubmitPublication", fields).await);
            let read = fields! { "log_id": subscription };
            expected.push(client.request("GetLogEntries", read).await);
        }
        let ping = client.request("Ping", fields! {}).await;
        let mut answered = Vec::new();
        loop {
            let answer = client.any().await;
            if answer.id == Some(ping) {
                break;
            }
            answered.extend(answer.id);
        }
        answered.sort_unstable();
        assert_eq!(answered, expected);
    }
}
