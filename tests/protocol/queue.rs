//! Queues: leases and turns, what settles a publication and what brings it back, and what a restart keeps.

use serde_cbor::Value;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::support::{Cbor, Client, Response, TestServer, eventually};

/// Makes a Queue with these settings.
pub(super) async fn create(client: &mut Client, name: &str, settings: Value) {
    let fields = fields! { "subscription_id": name, "kind": "Queue", "settings": settings };
    client.call("CreateSubscription", fields).await;
}

/// Takes part in a Queue, which is made if it does not exist.
pub(super) async fn work(client: &mut Client, name: &str, prefetch: u64) -> Response {
    let fields = fields! { "subscription_id": name, "kind": "Queue", "prefetch": prefetch };
    client.call("Subscribe", fields).await
}

pub(super) async fn settle(
    client: &mut Client,
    command: &str,
    name: &str,
    ids: Vec<Uuid>,
) -> (u64, Vec<Uuid>) {
    let fields = fields! { "subscription_id": name, "publication_ids": ids };
    let settled = client.call(command, fields).await;
    (settled.number("count"), settled.uuids("lost"))
}

pub(super) async fn acknowledge(
    client: &mut Client,
    name: &str,
    ids: Vec<Uuid>,
) -> (u64, Vec<Uuid>) {
    settle(client, "Acknowledge", name, ids).await
}

/// The next delivery, which has to be of this sequence, and for the so manyeth time.
pub(super) async fn delivered(client: &mut Client, sequence: u64, delivery: u64) -> Uuid {
    let publication = client.publication(sequence).await;
    assert_eq!(publication.number("delivery"), delivery, "{publication:?}");
    publication.uuid("publication_id")
}

pub(super) async fn all_delivered(
    client: &mut Client,
    sequences: std::ops::RangeInclusive<u64>,
) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for sequence in sequences {
        ids.push(delivered(client, sequence, 1).await);
    }
    ids
}

/// `pending` and `in_flight`.
pub(super) async fn counts(client: &mut Client, name: &str) -> (u64, u64) {
    let meta = client.meta(name).await;
    (meta.number("pending"), meta.number("in_flight"))
}

pub(super) async fn counts_are(client: &mut Client, name: &str, pending: u64, in_flight: u64) {
    eventually("the Queue has that many", async || {
        counts(client, name).await == (pending, in_flight)
    })
    .await;
}

pub(super) const DURABILITIES: [&str; 3] = ["Synced", "Written", "Memory"];

#[tokio::test]
async fn every_publication_goes_to_one_subscriber_in_turn() {
    let server = TestServer::start();
    for durability in DURABILITIES {
        let mut publisher = server.client().await;
        create(
            &mut publisher,
            durability,
            fields! { "durability": durability },
        )
        .await;
        let mut workers = Vec::new();
        for _ in 0..3 {
            let mut worker = server.client().await;
            let subscribed = work(&mut worker, durability, 10).await;
            assert_eq!(subscribed.text("kind"), "Queue");
            assert_eq!(subscribed.number("prefetch"), 10);
            assert!(subscribed.truth("recovered") && !subscribed.has("cursor"));
            workers.push(worker);
        }
        publisher.publish_many(durability, 9).await;
        for (first, worker) in (1..).zip(&mut workers) {
            for sequence in [first, first + 3, first + 6] {
                delivered(worker, sequence, 1).await;
            }
            worker.hears_nothing().await;
        }
        assert_eq!(counts(&mut publisher, durability).await, (0, 9));
    }
}

#[tokio::test]
async fn a_delivery_is_the_publication_with_its_number() {
    let server = TestServer::start();
    let mut client = server.client().await;
    work(&mut client, "work", 10).await;
    let submitted = client.publish("work", b"data").await;
    let publication = client.publication(1).await;
    let names = [
        "data",
        "delivery",
        "publication_id",
        "sequence",
        "subscription_id",
        "time",
    ];
    assert_eq!(publication.names(), names);
    assert_eq!(publication.bytes("data"), b"data");
    assert_eq!(
        publication.uuid("publication_id"),
        submitted.uuid("publication_id")
    );
    assert_eq!(publication.number("delivery"), 1);
    // In the log it stands without.
    assert!(!client.log("work").await[0].has("delivery"));
}

#[tokio::test]
async fn no_more_than_prefetch_is_in_flight_and_32_by_default() {
    let server = TestServer::start();
    for durability in DURABILITIES {
        let mut client = server.client().await;
        create(
            &mut client,
            durability,
            fields! { "durability": durability },
        )
        .await;
        client.publish_many(durability, 100).await;
        let fields = fields! { "subscription_id": durability };
        let subscribed = client.call("Subscribe", fields).await;
        assert_eq!(subscribed.number("prefetch"), 32);
        let ids = all_delivered(&mut client, 1..=32).await;
        counts_are(&mut client, durability, 68, 32).await;
        client.hears_nothing().await;
        assert_eq!(
            acknowledge(&mut client, durability, ids[..2].to_vec()).await,
            (2, vec![])
        );
        all_delivered(&mut client, 33..=34).await;
        assert_eq!(counts(&mut client, durability).await, (66, 32));
    }
}

#[tokio::test]
async fn a_subscribe_again_changes_the_prefetch_and_keeps_the_leases() {
    let server = TestServer::start();
    let mut client = server.client().await;
    work(&mut client, "work", 2).await;
    client.publish_many("work", 10).await;
    let ids = all_delivered(&mut client, 1..=2).await;
    assert_eq!(work(&mut client, "work", 5).await.number("prefetch"), 5);
    all_delivered(&mut client, 3..=5).await;
    // Without one it stays.
    let fields = fields! { "subscription_id": "work" };
    let subscribed = client.call("Subscribe", fields).await;
    assert_eq!(subscribed.number("prefetch"), 5);
    work(&mut client, "work", 1).await;
    assert_eq!(acknowledge(&mut client, "work", ids).await, (2, vec![]));
    assert_eq!(counts(&mut client, "work").await, (5, 3));
    client.hears_nothing().await;
}

#[tokio::test]
async fn prefetch_out_of_its_range_is_invalid_argument() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for prefetch in [0, 65_536] {
        let fields = fields! { "subscription_id": "work", "kind": "Queue", "prefetch": prefetch };
        client.fail("invalid-argument", "Subscribe", fields).await;
    }
    let fields = fields! { "subscription_id": "work" };
    client.fail("not-found", "GetSubscription", fields).await;
}

#[tokio::test]
async fn a_new_subscriber_gets_what_is_pending_from_the_oldest_whatever_from_says() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for (name, from) in [
        ("a", "New".cbor()),
        ("b", "First".cbor()),
        ("c", fields! { "After": 7 }),
        ("d", fields! { "Last": 2 }),
        ("e", fields! { "Since": 1_u64 << 52 }),
    ] {
        create(&mut client, name, fields! {}).await;
        client.publish_many(name, 10).await;
        client.subscribe(name, from).await;
        all_delivered(&mut client, 1..=10).await;
    }
}

#[tokio::test]
async fn a_submission_can_make_the_queue() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let fields = fields! { "subscription_id": "work", "kind": "Queue", "submission": b"x" };
    client.call("SubmitPublication", fields).await;
    assert_eq!(counts(&mut client, "work").await, (1, 0));
    assert_eq!(client.meta("work").await.text("kind"), "Queue");
    let fields = fields! { "subscription_id": "work", "kind": "Broadcast" };
    client.fail("kind-mismatch", "Subscribe", fields).await;
}

#[tokio::test]
async fn only_the_holder_settles_and_the_rest_is_lost() {
    let server = TestServer::start();
    let mut holder = server.client().await;
    let mut other = server.client().await;
    work(&mut holder, "work", 10).await;
    holder.publish_many("work", 3).await;
    let ids = all_delivered(&mut holder, 1..=3).await;
    work(&mut other, "work", 10).await;
    for command in ["Acknowledge", "Reject", "Extend"] {
        assert_eq!(
            settle(&mut other, command, "work", ids.clone()).await,
            (0, ids.clone())
        );
    }
    assert_eq!(counts(&mut holder, "work").await, (0, 3));
    let unknown = Uuid::new_v4();
    let asked = vec![ids[0], unknown, ids[0], ids[1]];
    assert_eq!(
        acknowledge(&mut holder, "work", asked).await,
        (2, vec![unknown])
    );
    // The second time there is nothing to be settled.
    assert_eq!(
        acknowledge(&mut holder, "work", ids.clone()).await,
        (1, ids[..2].to_vec())
    );
    assert_eq!(counts(&mut holder, "work").await, (0, 0));
    // Who does not subscribe holds nothing.
    let mut stranger = server.client().await;
    assert_eq!(
        acknowledge(&mut stranger, "work", ids.clone()).await,
        (0, ids)
    );
    other.hears_nothing().await;
}

#[tokio::test]
async fn a_sequence_is_not_acknowledged_on_a_queue() {
    let server = TestServer::start();
    let mut client = server.client().await;
    work(&mut client, "work", 10).await;
    let fields = fields! { "subscription_id": "work", "sequence": 1 };
    client.fail("invalid-argument", "Acknowledge", fields).await;
    for command in ["Acknowledge", "Reject", "Extend"] {
        let ids = vec![Uuid::new_v4()];
        let fields = fields! { "subscription_id": "nothing", "publication_ids": ids };
        client.fail("not-found", command, fields).await;
        assert_eq!(
            settle(&mut client, command, "work", vec![]).await,
            (0, vec![])
        );
    }
}

#[tokio::test]
async fn what_is_rejected_comes_again_in_front_of_later_ones() {
    let server = TestServer::start();
    for durability in DURABILITIES {
        let mut client = server.client().await;
        create(
            &mut client,
            durability,
            fields! { "durability": durability },
        )
        .await;
        work(&mut client, durability, 3).await;
        client.publish_many(durability, 6).await;
        let ids = all_delivered(&mut client, 1..=3).await;
        let back = vec![ids[2], ids[0]];
        assert_eq!(
            settle(&mut client, "Reject", durability, back).await,
            (2, vec![])
        );
        delivered(&mut client, 1, 2).await;
        delivered(&mut client, 3, 2).await;
        acknowledge(&mut client, durability, ids.clone()).await;
        all_delivered(&mut client, 4..=6).await;
    }
}

#[tokio::test]
async fn a_delay_holds_that_publication_alone() {
    let server = TestServer::start();
    let mut client = server.client().await;
    work(&mut client, "work", 1).await;
    client.publish_many("work", 2).await;
    let ids = all_delivered(&mut client, 1..=1).await;
    let begun = Instant::now();
    let fields = fields! { "subscription_id": "work", "publication_ids": ids, "delay": 300 };
    client.call("Reject", fields).await;
    let second = delivered(&mut client, 2, 1).await;
    assert_eq!(counts(&mut client, "work").await, (1, 1));
    acknowledge(&mut client, "work", vec![second]).await;
    delivered(&mut client, 1, 2).await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

/// Long enough that a busy machine does what a test does in it, short enough to wait for.
const ACK_TIMEOUT: u64 = 1_500;

#[tokio::test]
async fn a_lease_ends_with_its_time_and_goes_to_another() {
    let server = TestServer::start();
    for durability in ["Synced", "Memory"] {
        let mut slow = server.client().await;
        let settings = fields! { "durability": durability, "ack_timeout": ACK_TIMEOUT };
        create(&mut slow, durability, settings).await;
        work(&mut slow, durability, 1).await;
        slow.publish_many(durability, 1).await;
        let ids = all_delivered(&mut slow, 1..=1).await;
        let mut other = server.client().await;
        work(&mut other, durability, 1).await;
        delivered(&mut other, 1, 2).await;
        assert_eq!(
            acknowledge(&mut slow, durability, ids.clone()).await,
            (0, ids.clone())
        );
        assert_eq!(counts(&mut other, durability).await, (0, 1));
        assert_eq!(acknowledge(&mut other, durability, ids).await, (1, vec![]));
    }
}

#[tokio::test]
async fn extend_starts_the_ack_time_out_anew() {
    let server = TestServer::start();
    let mut client = server.client().await;
    create(&mut client, "work", fields! { "ack_timeout": ACK_TIMEOUT }).await;
    work(&mut client, "work", 2).await;
    client.publish_many("work", 2).await;
    let begun = Instant::now();
    let ids = all_delivered(&mut client, 1..=2).await;
    let mut other = server.client().await;
    work(&mut other, "work", 2).await;
    // The first is held for longer than its time, the second not.
    while begun.elapsed() < Duration::from_millis(2 * ACK_TIMEOUT) {
        assert_eq!(
            settle(&mut client, "Extend", "work", ids[..1].to_vec()).await,
            (1, vec![])
        );
    }
    delivered(&mut other, 2, 2).await;
    assert_eq!(
        acknowledge(&mut client, "work", ids[..1].to_vec()).await,
        (1, vec![])
    );
}

#[tokio::test]
async fn unsubscribing_gives_the_leases_back_at_once() {
    let server = TestServer::start();
    for durability in DURABILITIES {
        let mut first = server.client().await;
        create(&mut first, durability, fields! { "durability": durability }).await;
        work(&mut first, durability, 5).await;
        first.publish_many(durability, 7).await;
        let ids = all_delivered(&mut first, 1..=5).await;
        acknowledge(&mut first, durability, ids[1..2].to_vec()).await;
        delivered(&mut first, 6, 1).await;
        // Pipelined: what comes behind it holds nothing any more.
        let fields = fields! { "subscription_id": durability };
        let unsubscribe = first.request("Unsubscribe", fields).await;
        let late = acknowledge(&mut first, durability, ids[..1].to_vec()).await;
        assert_eq!(late, (0, ids[..1].to_vec()));
        first.answer(unsubscribe).await.expect("Unsubscribed");
        first.hears_nothing().await;
        assert_eq!(counts(&mut first, durability).await, (6, 0));
        work(&mut first, durability, 10).await;
        for sequence in [1, 3, 4, 5, 6] {
            delivered(&mut first, sequence, 2).await;
        }
        delivered(&mut first, 7, 1).await;
    }
}

#[tokio::test]
async fn the_end_of_the_connection_gives_the_leases_back() {
    let server = TestServer::start();
    for durability in DURABILITIES {
        let mut first = server.client().await;
        create(&mut first, durability, fields! { "durability": durability }).await;
        work(&mut first, durability, 5).await;
        let mut second = server.client().await;
        second.publish_many(durability, 4).await;
        let ids = all_delivered(&mut first, 1..=4).await;
        work(&mut second, durability, 10).await;
        first.close().await;
        for sequence in 1..=4 {
            delivered(&mut second, sequence, 2).await;
        }
        assert_eq!(acknowledge(&mut second, durability, ids).await, (4, vec![]));
    }
}

#[tokio::test]
async fn a_queue_without_subscribers_keeps_what_it_gets() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    create(&mut client, "work", fields! {}).await;
    client.publish_many("work", 500).await;
    client.close().await;
    server.restart().await;
    let mut client = server.client().await;
    assert_eq!(counts(&mut client, "work").await, (500, 0));
    work(&mut client, "work", 1000).await;
    all_delivered(&mut client, 1..=500).await;
}

#[tokio::test]
async fn a_durable_session_that_resumes_holds_no_leases_from_before() {
    let mut server = TestServer::start();
    let session = Uuid::new_v4();
    let mut client = server.resume(session).await;
    let epoch = work(&mut client, "work", 3).await.uuid("epoch");
    client.publish_many("work", 5).await;
    let ids = all_delivered(&mut client, 1..=3).await;
    acknowledge(&mut client, "work", ids[..1].to_vec()).await;
    delivered(&mut client, 4, 1).await;
    // Taken over.
    let mut next = server.resume(session).await;
    assert_eq!(client.closed().await, 4502);
    let restored = next.welcome.maps("subscriptions");
    assert_eq!(restored.len(), 1);
    assert_eq!(restored[0].text("kind"), "Queue");
    assert_eq!(restored[0].uuid("epoch"), epoch);
    assert!(restored[0].truth("recovered"));
    for sequence in 2..=4 {
        delivered(&mut next, sequence, 2).await;
    }
    next.hears_nothing().await;
    acknowledge(&mut next, "work", ids[1..2].to_vec()).await;
    delivered(&mut next, 5, 1).await;
    next.close().await;
    let mut other = server.client().await;
    counts_are(&mut other, "work", 3, 0).await;
    other.close().await;
    server.restart().await;
    // It has its prefetch of 3 again.
    let mut next = server.resume(session).await;
    for (sequence, delivery) in [(3, 3), (4, 3), (5, 2)] {
        delivered(&mut next, sequence, delivery).await;
    }
    assert_eq!(counts(&mut next, "work").await, (0, 3));
}

#[tokio::test]
async fn acknowledgements_and_counts_are_back_after_a_restart() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    work(&mut client, "work", 3000).await;
    client.publish_many("work", 2500).await;
    let ids = all_delivered(&mut client, 1..=2500).await;
    // In any order, over several blocks, with holes.
    let is_done = |place: &usize| !place.is_multiple_of(3);
    let done: Vec<_> = (0..2500)
        .rev()
        .filter(is_done)
        .map(|place| ids[place])
        .collect();
    for some in done.chunks(700) {
        let (count, lost) = acknowledge(&mut client, "work", some.to_vec()).await;
        assert_eq!((count, lost), (some.len() as u64, vec![]));
    }
    let fields = fields! { "subscription_id": "work", "publication_ids": vec![ids[0]] };
    client.call("Reject", fields).await;
    delivered(&mut client, 1, 2).await;
    client.close().await;
    for round in 0..2 {
        server.restart().await;
        let mut client = server.client().await;
        assert_eq!(counts(&mut client, "work").await, (834, 0));
        work(&mut client, "work", 3000).await;
        delivered(&mut client, 1, 3 + round).await;
        for place in (3..2500).step_by(3) {
            delivered(&mut client, place + 1, 2 + round).await;
        }
        assert_eq!(counts(&mut client, "work").await, (0, 834));
    }
}

#[tokio::test]
async fn settings_of_queues_are_shown_with_their_defaults_and_changed() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    create(&mut client, "work", fields! {}).await;
    let meta = client.meta("work").await;
    assert_eq!((meta.number("pending"), meta.number("in_flight")), (0, 0));
    let settings = meta.map("settings");
    assert_eq!(settings.number("ack_timeout"), 30_000);
    assert_eq!(settings.number("max_deliveries"), 10);
    create(
        &mut client,
        "work",
        fields! { "ack_timeout": 30_000, "dead_letter": "work.dead-letter" },
    )
    .await;
    for other in [
        fields! { "ack_timeout": 5 },
        fields! { "max_deliveries": 5 },
        fields! { "dead_letter": "bin" },
    ] {
        let fields = fields! { "subscription_id": "work", "kind": "Queue", "settings": other };
        client.fail("conflict", "CreateSubscription", fields).await;
    }
    let settings = fields! { "ack_timeout": 5_000, "max_deliveries": 0, "dead_letter": "bin" };
    let fields = fields! { "subscription_id": "work", "settings": settings };
    client.call("UpdateSubscription", fields).await;
    client.close().await;
    server.restart().await;
    let mut client = server.client().await;
    let settings = client.meta("work").await.map("settings");
    assert_eq!(settings.number("ack_timeout"), 5_000);
    assert_eq!(settings.number("max_deliveries"), 0);
    let bin = client.publish("bin", b"x").await.uuid("subscription_id");
    assert_eq!(settings.uuid("dead_letter"), bin);
    let settings = fields! { "ack_timeout": (), "max_deliveries": (), "dead_letter": () };
    let fields = fields! { "subscription_id": "work", "settings": settings };
    let settings = client
        .call("UpdateSubscription", fields)
        .await
        .map("settings");
    assert_eq!(settings.number("ack_timeout"), 30_000);
    assert_eq!(settings.number("max_deliveries"), 10);
    assert_ne!(settings.uuid("dead_letter"), bin);
}

#[tokio::test]
async fn retention_never_takes_what_is_not_settled_nor_what_is_behind_it() {
    let server = TestServer::start();
    for durability in DURABILITIES {
        let mut client = server.client().await;
        let retention = fields! { "max_publications": 2 };
        let settings = fields! { "durability": durability, "retention": retention };
        create(&mut client, durability, settings).await;
        work(&mut client, durability, 20).await;
        client.publish_many(durability, 10).await;
        let ids = all_delivered(&mut client, 1..=10).await;
        acknowledge(&mut client, durability, ids[..3].to_vec()).await;
        acknowledge(&mut client, durability, ids[5..].to_vec()).await;
        eventually("what is settled in front goes", async || {
            client.meta(durability).await.number("first_sequence") >= 4
        })
        .await;
        assert_eq!(client.meta(durability).await.number("first_sequence"), 4);
        acknowledge(&mut client, durability, ids[3..5].to_vec()).await;
        eventually("the newest two stay", async || {
            client.meta(durability).await.number("first_sequence") >= 9
        })
        .await;
        assert_eq!(client.log(durability).await.len(), 2);
    }
}

#[tokio::test]
async fn what_is_not_settled_leaves_no_room_beyond_max_bytes() {
    let server = TestServer::start();
    for durability in DURABILITIES {
        let mut client = server.client().await;
        let retention = fields! { "max_bytes": 100 };
        let settings = fields! { "durability": durability, "retention": retention };
        create(&mut client, durability, settings).await;
        for _ in 0..10 {
            client.publish(durability, &[7; 10]).await;
        }
        let more = || fields! { "subscription_id": durability, "submission": &[7; 10] };
        client.fail("log-full", "SubmitPublication", more()).await;
        let long = fields! { "subscription_id": durability, "submission": &[7; 101] };
        client.fail("too-large", "SubmitPublication", long).await;
        work(&mut client, durability, 20).await;
        let ids = all_delivered(&mut client, 1..=10).await;
        // Behind one that is not settled, nothing is removed.
        acknowledge(&mut client, durability, ids[1..].to_vec()).await;
        client.fail("log-full", "SubmitPublication", more()).await;
        acknowledge(&mut client, durability, ids[..1].to_vec()).await;
        for sequence in 11..=20 {
            client.publish(durability, &[7; 10]).await;
            delivered(&mut client, sequence, 1).await;
        }
        client.fail("log-full", "SubmitPublication", more()).await;
    }
}

#[tokio::test]
async fn a_memory_queue_that_is_not_worked_on_is_full_whatever_else_it_keeps() {
    let server = TestServer::with(|config| config.memory_log = 64 << 10);
    let kept = [
        fields! {},
        fields! { "max_publications": 1_000_000 },
        fields! { "max_age": 3_600_000 },
    ];
    for (number, retention) in kept.into_iter().enumerate() {
        let mut client = server.client().await;
        let name = &format!("work{number}");
        let settings = fields! { "durability": "Memory", "retention": retention };
        create(&mut client, name, settings).await;
        let submission =
            || fields! { "subscription_id": name.as_str(), "submission": &[] as &[u8] };
        let mut count = 0;
        let full = loop {
            let response = client.ask("SubmitPublication", submission()).await;
            if response.name == "Error" {
                break response;
            }
            count += 1;
        };
        assert_eq!(full.text("code"), "log-full");
        assert!((300..1_500).contains(&count), "{count}");
        // What is settled makes room, though it is kept.
        work(&mut client, name, 10).await;
        let ids = all_delivered(&mut client, 1..=10).await;
        acknowledge(&mut client, name, ids).await;
        client.call("SubmitPublication", submission()).await;
    }
}

#[tokio::test]
async fn deletion_with_leases_out_is_told_and_nothing_is_left() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    let mut worker = server.client().await;
    work(&mut worker, "work", 10).await;
    client.publish_many("work", 20).await;
    let ids = all_delivered(&mut worker, 1..=10).await;
    acknowledge(&mut worker, "work", ids[2..5].to_vec()).await;
    let fields = fields! { "subscription_id": "work" };
    client.call("DeleteSubscription", fields).await;
    loop {
        let told = worker.next().await;
        if told.name == "Deleted" {
            break;
        }
        told.expect("Publication");
    }
    let late = fields! { "subscription_id": "work", "publication_ids": ids };
    worker.fail("not-found", "Acknowledge", late).await;
    // A new life begins at 1, and knows nothing of the old one.
    work(&mut worker, "work", 10).await;
    client.publish("work", b"new").await;
    delivered(&mut worker, 1, 1).await;
    client.close().await;
    worker.close().await;
    server.restart().await;
    let mut client = server.client().await;
    assert_eq!(counts(&mut client, "work").await, (1, 0));
    work(&mut client, "work", 10).await;
    delivered(&mut client, 1, 2).await;
}

#[tokio::test]
async fn a_worker_that_reads_nothing_gets_no_more_than_its_outbox_and_holds_nobody_up() {
    let server = TestServer::with(|config| config.outbox_size = 64 << 10);
    let mut stuck = Client::with_small_window(server.address()).await;
    let mut worker = server.client().await;
    create(&mut worker, "work", fields! {}).await;
    work(&mut stuck, "work", 60_000).await;
    work(&mut worker, "work", 60_000).await;
    let count = 2_000;
    for _ in 0..count {
        worker
            .send_bare(
                "SubmitPublication",
                fields! { "subscription_id": "work", "submission": vec![1_u8; 10_000] },
            )
            .await;
    }
    worker.call("Ping", fields! {}).await;
    // All but what was leased to the other comes, though it never reads.
    let mut got = Vec::new();
    eventually("the rest is leased to the one who reads", async || {
        got.extend(worker.unread());
        counts(&mut worker, "work").await == (0, count)
    })
    .await;
    let fields = fields! { "subscription_id": "work" };
    stuck.request("Unsubscribe", fields).await;
    let mut seen = std::collections::HashSet::new();
    while seen.len() < count as usize {
        let publication = match got.pop() {
            Some(response) => response,
            None => worker.next().await,
        };
        if publication.name == "Publication" {
            assert!(seen.insert(publication.number("sequence")));
        }
    }
}

#[tokio::test]
async fn many_workers_share_a_long_queue_and_each_publication_is_settled_once() {
    let server = TestServer::start();
    let mut publisher = server.client().await;
    create(&mut publisher, "work", fields! {}).await;
    publisher.publish_many("work", 3_000).await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let mut worker = server.client().await;
        tasks.push(tokio::spawn(async move {
            work(&mut worker, "work", 32).await;
            let mut seen = Vec::new();
            loop {
                let publication = worker.next().await.expect("Publication");
                assert_eq!(publication.number("delivery"), 1);
                let sequence = publication.number("sequence");
                if sequence > 3_000 {
                    return seen;
                }
                seen.push(sequence);
                let ids = vec![publication.uuid("publication_id")];
                let fields = fields! { "subscription_id": "work", "publication_ids": ids };
                worker.request("Acknowledge", fields).await;
            }
        }));
    }
    counts_are(&mut publisher, "work", 0, 0).await;
    publisher.publish_many("work", 8 * 32).await;
    let mut seen = Vec::new();
    for task in tasks {
        let mine = task.await.unwrap();
        assert!(mine.is_sorted());
        seen.extend(mine);
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(1..=3_000));
}
