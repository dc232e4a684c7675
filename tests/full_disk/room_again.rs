//! Room comes back, one way or another: writing goes on, without a restart.

use super::{
    support::{Ballast, get},
    *,
};

async fn goes_on(small: &Small, client: &mut Client) {
    eventually("publications are taken again", async || {
        takes_more(client).await
    })
    .await;
    // Not only what is small.
    let answered = fill(
        small.server.client().await,
        "more".into(),
        "more".into(),
        &[200_000],
    )
    .await;
    println!("{} more large ones", answered.len());
    assert!(answered.len() > 50);
    let mut ledger = Ledger::default();
    ledger.add("more", answered);
    ledger.check(client).await;
}

#[test]
fn somebody_elses_file_that_is_removed_gives_room() {
    on_disks(this_test!(), async |small| {
        let mut client = small.server.client().await;
        let ballast = Ballast::leaving(&small.disk, 0);
        let ledger = fill_with(&small, "large").await;
        assert!(!takes_more(&mut client).await);
        let (status, why) = get(small.server.address(), "/readyz").await;
        assert!(status == 503 && why.starts_with("disk-full: "), "{why}");
        ballast.remove();
        eventually("it is ready again", async || {
            get(small.server.address(), "/readyz").await.0 == 200
        })
        .await;
        goes_on(&small, &mut client).await;
        ledger.check(&mut client).await;
    });
}

#[test]
fn deleting_a_subscription_gives_room() {
    on_disks(this_test!(), async |small| {
        let mut client = small.server.client().await;
        let ledger = fill_with(&small, "large").await;
        let _ballast = Ballast::leaving(&small.disk, 0);
        assert!(!takes_more(&mut client).await);
        ledger.check(&mut client).await;
        client
            .call("DeleteSubscription", fields! { "subscription_id": "large" })
            .await;
        goes_on(&small, &mut client).await;
    });
}

#[test]
fn retention_gives_room() {
    on_disks(this_test!(), async |small| {
        let mut client = small.server.client().await;
        let ledger = fill_with(&small, "large").await;
        let _ballast = Ballast::leaving(&small.disk, 0);
        assert!(!takes_more(&mut client).await);
        let settings = fields! { "retention": fields! { "max_publications": 3 } };
        let fields = fields! { "subscription_id": "large", "settings": settings };
        client.call("UpdateSubscription", fields).await;
        goes_on(&small, &mut client).await;
        let log = client.log("large").await;
        let kept: Vec<_> = ledger.0["large"].iter().rev().take(3).rev().collect();
        assert_eq!(log.len(), 3);
        for (publication, (sequence, data)) in log.iter().zip(kept) {
            assert_eq!(
                (publication.number("sequence"), publication.bytes("data")),
                (*sequence, &data[..])
            );
        }
    });
}

#[test]
fn dead_letters_wait_for_room() {
    on_disks(this_test!(), async |small| {
        let mut worker = small.server.client().await;
        let settings = fields! { "dead_letter": "dead" };
        let fields = fields! { "subscription_id": "work", "kind": "Queue", "settings": settings };
        worker.call("CreateSubscription", fields).await;
        let ids = worker.publish_many("work", 3).await;
        let ballast = Ballast::leaving(&small.disk, 0);
        let ledger = fill_with(&small, "large").await;
        worker
            .call("Subscribe", fields! { "subscription_id": "work" })
            .await;
        worker.publications(1..=3).await;
        let fields = fields! { "subscription_id": "work", "publication_ids": ids.clone(), "dead_letter": true };
        assert_eq!(worker.call("Reject", fields).await.number("count"), 3);
        assert_eq!(worker.meta("work").await.number("pending"), 3);
        ballast.remove();
        eventually("they are moved", async || {
            worker.meta("work").await.number("pending") == 0
        })
        .await;
        let dead = worker.log("dead").await;
        let moved: Vec<_> = dead.iter().map(|one| one.uuid("publication_id")).collect();
        assert_eq!(moved, ids);
        ledger.check(&mut worker).await;
    });
}
