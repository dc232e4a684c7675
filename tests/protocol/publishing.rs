//! Section 4: `SubmitPublication`.

use serde_cbor::Value;
use uuid::Uuid;

use crate::support::{TestServer, eventually};

/// A submission to `orders` under this id.
fn submission(id: Uuid, data: &[u8]) -> Value {
    fields! { "subscription_id": "orders", "submission": data, "publication_id": id }
}

#[tokio::test]
async fn submitted_tells_id_sequence_and_the_level_reached() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for sequence in 1..=3 {
        let submitted = client.publish("orders", b"x").await;
        assert_eq!(
            submitted.names(),
            [
                "duplicate",
                "durability",
                "publication_id",
                "sequence",
                "subscription_id"
            ]
        );
        assert_eq!(submitted.number("sequence"), sequence);
        assert!(!submitted.truth("duplicate"));
        assert_eq!(submitted.text("durability"), "Synced");
        assert_eq!(submitted.uuid("publication_id").get_version_num(), 7);
    }
}

#[tokio::test]
async fn each_level_of_durability_is_told() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for level in ["Memory", "Written", "Synced"] {
        let settings = fields! { "durability": level };
        let fields = fields! { "subscription_id": level, "settings": settings };
        client.call("CreateSubscription", fields).await;
        let submitted = client.publish(level, b"x").await;
        assert_eq!(submitted.text("durability"), level);
    }
}

#[tokio::test]
async fn submissions_of_one_connection_get_sequences_in_the_order_sent() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let mut requests = Vec::new();
    for round in 0..500_u64 {
        let name = if round % 3 == 0 { "a" } else { "b" };
        let data = round.to_be_bytes();
        let fields = fields! { "subscription_id": name, "submission": &data };
        requests.push(client.request("SubmitPublication", fields).await);
    }
    for request in requests {
        client.answer(request).await.expect("Submitted");
    }
    for name in ["a", "b"] {
        let log = client.log(name).await;
        let rounds: Vec<&[u8]> = log.iter().map(|entry| entry.bytes("data")).collect();
        assert!(rounds.is_sorted());
        let sequences: Vec<u64> = log.iter().map(|entry| entry.number("sequence")).collect();
        assert_eq!(sequences, (1..=log.len() as u64).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn times_never_decrease_and_ids_are_all_different() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let mut ids = client.publish_many("orders", 500).await;
    let log = client.log("orders").await;
    let times: Vec<u64> = log.iter().map(|entry| entry.number("time")).collect();
    assert!(times.is_sorted());
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 500);
}

#[tokio::test]
async fn a_publisher_need_not_subscribe_and_gets_nothing_but_answers() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 10).await;
    client.hears_nothing().await;
}

#[tokio::test]
async fn a_publication_id_that_the_log_holds_is_not_added_again() {
    let server = TestServer::start();
    for durability in ["Synced", "Written", "Memory"] {
        let mut client = server.client().await;
        let settings = fields! { "durability": durability };
        let fields = fields! { "subscription_id": durability, "settings": settings };
        client.call("CreateSubscription", fields).await;
        client.subscribe(durability, "New").await;
        client.publish(durability, b"1").await;
        let id = Uuid::new_v4();
        let submission = |data: &[u8]| {
            fields! { "subscription_id": durability, "submission": data, "publication_id": id }
        };
        let first = client.call("SubmitPublication", submission(b"2")).await;
        assert_eq!(first.uuid("publication_id"), id);
        assert_eq!(
            (first.number("sequence"), first.truth("duplicate")),
            (2, false)
        );
        client.publish(durability, b"3").await;
        // The data is not compared.
        let again = client.call("SubmitPublication", submission(b"other")).await;
        assert_eq!(again.uuid("publication_id"), id);
        assert_eq!(
            (again.number("sequence"), again.truth("duplicate")),
            (2, true)
        );
        assert_eq!(again.text("durability"), durability);
        client.publications(1..=3).await;
        client.hears_nothing().await;
        let log = client.log(durability).await;
        assert_eq!(log.len(), 3);
        assert_eq!(log[1].bytes("data"), b"2");
    }
}

#[tokio::test]
async fn an_id_that_the_server_made_is_known_as_well() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let ids = client.publish_many("orders", 20).await;
    let again = client
        .call("SubmitPublication", submission(ids[6], b"again"))
        .await;
    assert_eq!(
        (again.number("sequence"), again.truth("duplicate")),
        (7, true)
    );
}

#[tokio::test]
async fn a_duplicate_of_what_is_still_on_its_way_is_a_duplicate() {
    let server = TestServer::start();
    let mut one = server.client().await;
    let mut other = server.client().await;
    for _ in 0..20 {
        let id = Uuid::new_v4();
        let mut of_one = Vec::new();
        let mut of_other = Vec::new();
        for _ in 0..5 {
            let fields = submission(id, b"x");
            of_one.push(one.request("SubmitPublication", fields.clone()).await);
            of_other.push(other.request("SubmitPublication", fields).await);
        }
        let mut answers = Vec::new();
        for request in of_one {
            answers.push(one.answer(request).await.expect("Submitted"));
        }
        for request in of_other {
            answers.push(other.answer(request).await.expect("Submitted"));
        }
        let first = answers.iter().filter(|answer| !answer.truth("duplicate"));
        assert_eq!(first.count(), 1);
        let sequence = answers[0].number("sequence");
        assert!(
            answers
                .iter()
                .all(|answer| answer.number("sequence") == sequence)
        );
    }
    assert_eq!(one.meta("orders").await.number("last_sequence"), 20);
}

#[tokio::test]
async fn an_id_is_known_after_a_restart() {
    let mut server = TestServer::start();
    let id = Uuid::new_v4();
    let mut client = server.client().await;
    let made = client.publish("orders", b"1").await.uuid("publication_id");
    client.call("SubmitPublication", submission(id, b"2")).await;
    client.close().await;
    server.restart().await;
    let mut client = server.client().await;
    for (id, sequence) in [(made, 1), (id, 2)] {
        let again = client.call("SubmitPublication", submission(id, b"x")).await;
        assert_eq!(
            (again.number("sequence"), again.truth("duplicate")),
            (sequence, true)
        );
    }
    assert_eq!(client.log("orders").await.len(), 2);
}

#[tokio::test]
async fn the_same_id_is_another_publication_in_another_subscription() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let id = Uuid::new_v4();
    for name in ["a", "b"] {
        let fields = fields! { "subscription_id": name, "submission": b"x", "publication_id": id };
        let submitted = client.call("SubmitPublication", fields).await;
        assert!(!submitted.truth("duplicate"));
    }
}

#[tokio::test]
async fn an_id_that_retention_removed_can_be_added_again() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let settings = fields! { "retention": fields! { "max_publications": 1 } };
    let fields = fields! { "subscription_id": "orders", "settings": settings };
    client.call("CreateSubscription", fields).await;
    let id = Uuid::new_v4();
    client.call("SubmitPublication", submission(id, b"1")).await;
    client.publish("orders", b"2").await;
    eventually("the first is removed", async || {
        client.meta("orders").await.number("first_sequence") == 2
    })
    .await;
    let again = client.call("SubmitPublication", submission(id, b"3")).await;
    assert_eq!(
        (again.number("sequence"), again.truth("duplicate")),
        (3, false)
    );
}

#[tokio::test]
async fn an_expected_sequence_is_held_to() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let expecting = |sequence: u64| {
        fields! { "subscription_id": "orders", "submission": b"x", "expected_sequence": sequence }
    };
    // A command that fails does not make its subscription.
    client
        .fail("conflict", "SubmitPublication", expecting(2))
        .await;
    let fields = fields! { "subscription_id": "orders" };
    client.fail("not-found", "GetSubscription", fields).await;

    client.call("SubmitPublication", expecting(1)).await;
    for wrong in [1, 3, 1 << 50] {
        let error = client
            .fail("conflict", "SubmitPublication", expecting(wrong))
            .await;
        assert!(!error.truth("temporary"));
    }
    let second = client.call("SubmitPublication", expecting(2)).await;
    assert_eq!(second.number("sequence"), 2);
    assert_eq!(client.meta("orders").await.number("last_sequence"), 2);
}

#[tokio::test]
async fn of_two_who_expect_the_same_sequence_one_gets_it() {
    let server = TestServer::start();
    let mut clients = [server.client().await, server.client().await];
    for round in 1..=20_u64 {
        let fields =
            fields! { "subscription_id": "orders", "submission": b"x", "expected_sequence": round };
        let mut requests = Vec::new();
        for client in &mut clients {
            requests.push(client.request("SubmitPublication", fields.clone()).await);
        }
        let mut names = Vec::new();
        for (client, request) in clients.iter_mut().zip(requests) {
            names.push(client.answer(request).await.name);
        }
        names.sort_unstable();
        assert_eq!(names, ["Error", "Submitted"]);
    }
}

#[tokio::test]
async fn a_duplicate_is_answered_as_one_whatever_sequence_it_expects() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let id = Uuid::new_v4();
    for expected in [1_u64, 1, 2, 77] {
        let fields = fields! {
            "subscription_id": "orders", "submission": b"x", "publication_id": id, "expected_sequence": expected,
        };
        let submitted = client.call("SubmitPublication", fields).await;
        assert_eq!(submitted.number("sequence"), 1);
    }
}

#[tokio::test]
async fn a_submission_over_max_bytes_is_too_large() {
    let server = TestServer::start();
    for durability in ["Synced", "Memory"] {
        let mut client = server.client().await;
        let settings =
            fields! { "durability": durability, "retention": fields! { "max_bytes": 100 } };
        let fields = fields! { "subscription_id": durability, "settings": settings };
        client.call("CreateSubscription", fields).await;
        client.publish(durability, &[0; 100]).await;
        let fields = fields! { "subscription_id": durability, "submission": &[0; 101] };
        client.fail("too-large", "SubmitPublication", fields).await;
        assert_eq!(client.meta(durability).await.number("last_sequence"), 1);
    }
}

#[tokio::test]
async fn a_submission_over_the_default_max_bytes_does_not_make_its_subscription() {
    let server = TestServer::with(|config| config.retention.max_bytes = Some(100));
    let mut client = server.client().await;
    let fields = fields! { "subscription_id": "orders", "submission": &[0; 101] };
    client.fail("too-large", "SubmitPublication", fields).await;
    let fields = fields! { "subscription_id": "orders" };
    client.fail("not-found", "GetSubscription", fields).await;
}

#[tokio::test]
async fn data_comes_back_as_it_was_sent_whatever_its_size() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.subscribe("orders", "New").await;
    let sizes = [
        0_usize, 1, 23, 24, 100, 255, 256, 65_535, 65_536, 65_537, 260_000,
    ];
    for (sequence, size) in (1..).zip(sizes) {
        let data: Vec<u8> = (0..size).map(|at| (at * 31 + size) as u8).collect();
        client.publish("orders", data.clone()).await;
        assert_eq!(client.publication(sequence).await.bytes("data"), data);
        let fields = fields! { "log_id": "orders", "after": sequence - 1 };
        let entry = client.call("GetLogEntries", fields).await;
        assert_eq!(entry.maps("publications")[0].bytes("data"), data);
    }
}
