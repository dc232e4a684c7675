//! Section 4 and 5: `GetLogIndex` and `GetLogEntries`.

use serde_cbor::Value;
use uuid::Uuid;

use crate::support::{Client, Fields, Response, TestServer, encode};

/// A cut answer is at most so large, but for the little that stands round what is in it.
const RESPONSE_SIZE: usize = 4 << 20;

async fn index(client: &mut Client, after: u64, limit: u64) -> Response {
    let fields = fields! { "log_id": "orders", "after": after, "limit": limit };
    client.call("GetLogIndex", fields).await
}

async fn entries(client: &mut Client, ids: Vec<Uuid>) -> Response {
    let fields = fields! { "log_id": "orders", "entries": ids };
    client.call("GetLogEntries", fields).await
}

fn sequences(publications: &[Fields]) -> Vec<u64> {
    publications
        .iter()
        .map(|publication| publication.number("sequence"))
        .collect()
}

#[tokio::test]
async fn an_index_tells_the_ids_in_sequence_order() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let ids = client.publish_many("orders", 25).await;
    let all = client
        .call("GetLogIndex", fields! { "log_id": "orders" })
        .await;
    assert_eq!(
        all.names(),
        [
            "entries",
            "first_sequence",
            "last_sequence",
            "log_id",
            "more"
        ]
    );
    assert_eq!(all.uuids("entries"), ids);
    assert_eq!(all.number("first_sequence"), 1);
    assert_eq!(all.number("last_sequence"), 25);
    assert!(!all.truth("more"));

    let page = index(&mut client, 10, 5).await;
    assert_eq!(page.uuids("entries"), ids[10..15]);
    assert!(page.truth("more"));
    let end = index(&mut client, 20, 5).await;
    assert_eq!(end.uuids("entries"), ids[20..]);
    assert!(!end.truth("more"));
    for beyond in [25, 26, 1_000_000] {
        let nothing = index(&mut client, beyond, 5).await;
        assert!(nothing.array("entries").is_empty());
        assert!(!nothing.truth("more"));
    }
}

#[tokio::test]
async fn a_log_without_publications_reads_as_empty() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.subscribe("orders", "New").await;
    let index = index(&mut client, 0, 10).await;
    assert_eq!(
        (
            index.number("first_sequence"),
            index.number("last_sequence")
        ),
        (1, 0)
    );
    assert!(index.array("entries").is_empty());
    let read = client
        .call("GetLogEntries", fields! { "log_id": "orders" })
        .await;
    assert_eq!(read.names(), ["log_id", "missing", "more", "publications"]);
    assert!(read.array("publications").is_empty());
    assert!(!read.truth("more"));
}

#[tokio::test]
async fn entries_by_range_are_the_publications_that_were_delivered() {
    let server = TestServer::start();
    for durability in ["Synced", "Memory"] {
        let mut client = server.client().await;
        let settings = fields! { "durability": durability };
        let fields = fields! { "subscription_id": durability, "settings": settings };
        client.call("CreateSubscription", fields).await;
        client.subscribe(durability, "New").await;
        client.publish_many(durability, 12).await;
        let mut delivered = Vec::new();
        for sequence in 1..=12 {
            delivered.push(client.publication(sequence).await.fields);
        }
        assert_eq!(client.log(durability).await, delivered);
        let fields = fields! { "log_id": durability, "after": 4, "limit": 3 };
        let page = client.call("GetLogEntries", fields).await;
        assert_eq!(page.maps("publications"), delivered[4..7]);
        assert!(page.truth("more"));
        assert!(page.array("missing").is_empty());
        let fields = fields! { "log_id": durability, "after": 12 };
        let page = client.call("GetLogEntries", fields).await;
        assert!(page.array("publications").is_empty());
        assert!(!page.truth("more"));
    }
}

#[tokio::test]
async fn entries_by_id_come_in_sequence_order_each_once_and_the_others_are_missing() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let mut ids = client.publish_many("orders", 10).await;
    let own = Uuid::new_v4();
    let fields = fields! { "subscription_id": "orders", "submission": b"x", "publication_id": own };
    client.call("SubmitPublication", fields).await;
    ids.push(own);
    let unknown = [Uuid::new_v4(), neighbour(ids[3])];
    let asked = vec![
        ids[10], unknown[0], ids[3], ids[3], ids[7], ids[0], unknown[1], unknown[0],
    ];
    let found = entries(&mut client, asked).await;
    assert_eq!(sequences(&found.maps("publications")), [1, 4, 8, 11]);
    let mut missing = found.uuids("missing");
    missing.sort_unstable();
    let mut expected = unknown.to_vec();
    expected.sort_unstable();
    assert_eq!(missing, expected);
    assert!(!found.truth("more"));
    let nothing = entries(&mut client, vec![]).await;
    assert!(nothing.array("publications").is_empty());
    assert!(nothing.array("missing").is_empty());
}

#[tokio::test]
async fn ten_thousand_ids_can_be_asked_for() {
    let server = TestServer::with(|config| config.max_message_size = 1 << 20);
    let mut client = server.client().await;
    let mut asked = client.publish_many("orders", 100).await;
    asked.resize_with(10_000, Uuid::new_v4);
    let found = entries(&mut client, asked).await;
    assert_eq!(found.array("publications").len(), 100);
    assert_eq!(found.array("missing").len(), 9_900);
}

/// Publishes so many publications of 250,000 bytes, and gives their ids.
async fn publish_large(client: &mut Client, count: usize) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for number in 0..count {
        let data = vec![number as u8; 250_000];
        let submitted = client.publish("orders", data).await;
        ids.push(submitted.uuid("publication_id"));
    }
    ids
}

fn size_of(publications: &[Value]) -> usize {
    publications.iter().map(|value| encode(value).len()).sum()
}

#[tokio::test]
async fn a_range_over_4_mib_is_cut_and_read_on_behind_the_last() {
    let server = TestServer::start();
    let mut client = server.client().await;
    publish_large(&mut client, 40).await;
    let first = client
        .call("GetLogEntries", fields! { "log_id": "orders" })
        .await;
    assert!(first.truth("more"));
    let count = first.array("publications").len();
    assert!(size_of(first.array("publications")) <= RESPONSE_SIZE);
    assert_eq!(count, 16);
    assert_eq!(
        sequences(&client.log("orders").await),
        (1..=40).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn entries_by_id_over_4_mib_are_cut_and_the_rest_is_asked_for_again() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let ids = publish_large(&mut client, 40).await;
    let strangers: Vec<Uuid> = (0..10).map(|_| Uuid::new_v4()).collect();
    let mut open: Vec<Uuid> = ids.iter().chain(&strangers).copied().collect();
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for round in 0.. {
        assert!(round < 10, "it never ends");
        let page = entries(&mut client, open.clone()).await;
        let publications = page.maps("publications");
        assert!(size_of(page.array("publications")) <= RESPONSE_SIZE);
        assert!(!publications.is_empty());
        let lost = page.uuids("missing");
        open.retain(|id| {
            !lost.contains(id)
                && publications
                    .iter()
                    .all(|publication| publication.uuid("publication_id") != *id)
        });
        found.extend(publications);
        missing.extend(lost);
        if !page.truth("more") {
            break;
        }
    }
    assert!(open.is_empty(), "never told of: {open:?}");
    assert_eq!(sequences(&found), (1..=40).collect::<Vec<_>>());
    assert_eq!(missing.len(), strangers.len());
}

#[tokio::test]
async fn a_cut_answer_holds_at_least_one_item() {
    let server = TestServer::with(|config| config.max_message_size = 8 << 20);
    let mut client = server.client().await;
    for number in 0..2_u8 {
        client.publish("orders", vec![number; 5 << 20]).await;
    }
    let first = client
        .call("GetLogEntries", fields! { "log_id": "orders" })
        .await;
    assert_eq!(sequences(&first.maps("publications")), [1]);
    assert!(first.truth("more"));
    let fields = fields! { "log_id": "orders", "after": 1 };
    let second = client.call("GetLogEntries", fields).await;
    assert_eq!(sequences(&second.maps("publications")), [2]);
    assert!(!second.truth("more"));
}

#[tokio::test]
async fn a_read_behind_retention_begins_with_the_oldest_kept() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let settings = fields! { "retention": fields! { "max_publications": 5 } };
    let fields = fields! { "subscription_id": "orders", "settings": settings };
    client.call("CreateSubscription", fields).await;
    let ids = client.publish_many("orders", 20).await;
    crate::support::eventually("retention acts", async || {
        client.meta("orders").await.number("first_sequence") == 16
    })
    .await;
    let index = index(&mut client, 3, 100).await;
    assert_eq!(index.number("first_sequence"), 16);
    assert_eq!(index.uuids("entries"), ids[15..]);
    assert_eq!(
        sequences(&client.log("orders").await),
        (16..=20).collect::<Vec<_>>()
    );
    let found = entries(&mut client, vec![ids[0], ids[14], ids[15]]).await;
    assert_eq!(sequences(&found.maps("publications")), [16]);
    assert_eq!(found.uuids("missing").len(), 2);
}

/// An id that nobody made, but that looks as if it had been made beside another.
fn neighbour(other: Uuid) -> Uuid {
    let mut bytes = *other.as_bytes();
    bytes[15] ^= 1;
    Uuid::from_bytes(bytes)
}
