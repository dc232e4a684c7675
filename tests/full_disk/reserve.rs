//! What goes on while it is full, and for how long.

use std::collections::HashSet;
use std::time::Instant;

use uuid::Uuid;

use super::{support::Ballast, *};

#[test]
fn reading_and_acknowledging_go_on_and_are_known_after_kill_9() {
    const JOBS: u64 = 2_000;
    on_disks(this_test!(), async |mut small| {
        let mut client = small.server.client().await;
        let fields = fields! { "subscription_id": "work", "kind": "Queue", "settings": fields! { "max_deliveries": 0 } };
        client.call("CreateSubscription", fields).await;
        client.publish_many("work", JOBS as usize).await;
        client.publish_many("news", JOBS as usize).await;
        let ballast = Ballast::leaving(&small.disk, 0);
        let ledger = fill_with(&small, "large").await;
        assert!(!takes_more(&mut client).await);

        let session = Uuid::new_v4();
        let mut reader = small.server.resume(session).await;
        reader.subscribe("news", "First").await;
        let mut worker = small.server.client().await;
        let fields = fields! { "subscription_id": "work", "prefetch": 100 };
        worker.call("Subscribe", fields).await;
        let begun = Instant::now();
        let (mut requests, mut settled) = (Vec::new(), HashSet::new());
        for sequence in 1..=JOBS {
            reader.publication(sequence).await;
            let fields = fields! { "subscription_id": "news", "sequence": sequence };
            requests.push(reader.request("Acknowledge", fields).await);
            let job = worker.next().await.expect("Publication");
            let ids = vec![job.uuid("publication_id")];
            let fields = fields! { "subscription_id": "work", "publication_ids": ids };
            if sequence % 10 == 0 {
                worker.call("Reject", fields).await;
            } else {
                assert_eq!(worker.call("Acknowledge", fields).await.number("count"), 1);
                settled.insert(job.number("sequence"));
            }
        }
        for request in requests {
            reader.answer(request).await.expect("Acknowledged");
        }
        println!(
            "{JOBS} of each acknowledged one by one in {:?}",
            begun.elapsed()
        );
        assert!(!takes_more(&mut client).await);
        ledger.check(&mut client).await;

        small.server.kill();
        small.server.start_again();
        let mut reader = small.server.resume(session).await;
        let restored = reader.welcome.maps("subscriptions");
        assert_eq!(restored[0].number("cursor"), JOBS);
        reader.hears_nothing().await;
        let mut worker = small.server.client().await;
        let pending = JOBS - settled.len() as u64;
        assert_eq!(worker.meta("work").await.number("pending"), pending);
        worker
            .call(
                "Subscribe",
                fields! { "subscription_id": "work", "prefetch": 65_535 },
            )
            .await;
        let mut came = HashSet::new();
        for _ in 0..pending {
            let job = worker.next().await.expect("Publication");
            assert!(
                !settled.contains(&job.number("sequence")),
                "was acknowledged: {job:?}"
            );
            assert!(came.insert(job.number("sequence")), "came twice: {job:?}");
        }
        ledger.check(&mut worker).await;
        ballast.remove();
    });
}

#[test]
fn with_the_reserve_used_up_changes_are_refused_and_go_on_when_there_is_room() {
    on_disks(this_test!(), async |small| {
        let mut client = small.server.client().await;
        client.publish_many("news", 100).await;
        let settings = fields! { "ack_timeout": 3_600_000 };
        let fields = fields! { "subscription_id": "work", "kind": "Queue", "settings": settings };
        client.call("CreateSubscription", fields).await;
        client.publish_many("work", 3).await;
        let session = Uuid::new_v4();
        let mut reader = small.server.resume(session).await;
        reader.subscribe("news", "First").await;
        reader.publications(1..=100).await;
        let mut worker = small.server.client().await;
        worker
            .call(
                "Subscribe",
                fields! { "subscription_id": "work", "prefetch": 1 },
            )
            .await;
        let job = vec![worker.publication(1).await.uuid("publication_id")];

        let ballast = Ballast::leaving(&small.disk, 0);
        let ledger = fill_with(&small, "large").await;
        let made = make_until_refused(small.server.client().await).await;
        println!("{made} subscriptions made");
        assert!(made > 10_000);
        // What is left is less than one of them takes.
        let acknowledge =
            |sequence: u64| fields! { "subscription_id": "news", "sequence": sequence };
        let mut acknowledged = 0;
        let refused = loop {
            let answer = reader
                .ask("Acknowledge", acknowledge(acknowledged + 1))
                .await;
            if answer.name == "Error" {
                break answer;
            }
            acknowledged += 1;
        };
        refused.expect_error("log-full");
        let settle = || fields! { "subscription_id": "work", "publication_ids": job.clone() };
        worker.fail("log-full", "Acknowledge", settle()).await;
        // What asks for nothing to be written goes on, and so does what makes room.
        let mut another = small.server.client().await;
        another.subscribe("news", "First").await;
        another.publications(1..=100).await;
        ledger.check(&mut another).await;
        let fields = fields! { "subscription_id": name_of(1) };
        another.call("DeleteSubscription", fields).await;
        assert!(!takes_more(&mut another).await);

        ballast.remove();
        eventually("publications are taken again", async || {
            takes_more(&mut another).await
        })
        .await;
        reader.call("Acknowledge", acknowledge(50)).await;
        worker.call("Acknowledge", settle()).await;
        worker.publication(2).await;
        ledger.check(&mut another).await;

        small.server.signal("-TERM");
        let mut server = small.server;
        assert_eq!(server.exited().await.code(), Some(0));
        server.start_again();
        let mut reader = server.resume(session).await;
        reader.publications(51..=100).await;
        assert_eq!(reader.meta("work").await.number("pending"), 2);
        ledger.check(&mut reader).await;
    });
}

/// Long, so that the reserve is soon full of them.
fn name_of(number: u64) -> String {
    format!("{number:>0250}")
}

/// Makes subscriptions until the log has no room for one more; how many it had.
async fn make_until_refused(mut client: Client) -> u64 {
    let (mut made, mut sent, mut answered, mut window) = (0, 0, 0, 100);
    loop {
        while sent - answered < window {
            let settings = fields! { "dead_letter": format!("dead {}", name_of(0)) };
            let fields = fields! {
                "subscription_id": name_of(sent), "kind": "Queue", "settings": settings,
            };
            client.request("CreateSubscription", fields).await;
            sent += 1;
        }
        let response = client.any().await;
        answered += 1;
        if response.name != "Error" {
            made += 1;
            continue;
        }
        response.expect_error("log-full");
        // What is under way counts for more than it takes, so some are tried alone.
        if window == 1 && sent == answered {
            return made;
        }
        window = 1;
    }
}
