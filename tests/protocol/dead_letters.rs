//! What a Queue gives up, where it goes, and what it tells there.

use uuid::Uuid;

use super::queue::{
    DURABILITIES, all_delivered, counts, counts_are, create, delivered, settle, work,
};
use crate::support::{Client, Process, TestServer, eventually};

async fn give_up(client: &mut Client, name: &str, ids: Vec<Uuid>) {
    let count = ids.len() as u64;
    let fields = fields! { "subscription_id": name, "publication_ids": ids, "dead_letter": true };
    let rejected = client.call("Reject", fields).await;
    assert_eq!(rejected.number("count"), count);
}

#[tokio::test]
async fn after_max_deliveries_a_publication_is_a_dead_letter() {
    let server = TestServer::start();
    for durability in DURABILITIES {
        let mut client = server.client().await;
        let settings = fields! { "max_deliveries": 3, "durability": durability };
        create(&mut client, durability, settings).await;
        let epoch = work(&mut client, durability, 1).await.uuid("epoch");
        let source = client.meta(durability).await.uuid("subscription_id");
        client.publish_many(durability, 2).await;
        let mut id = Uuid::nil();
        for delivery in 1..=3 {
            id = delivered(&mut client, 1, delivery).await;
            assert_eq!(
                settle(&mut client, "Reject", durability, vec![id]).await,
                (1, vec![])
            );
        }
        delivered(&mut client, 2, 1).await;
        let target = format!("{durability}.dead-letter");
        counts_are(&mut client, durability, 0, 1).await;
        let meta = client.meta(&*target).await;
        assert_eq!(meta.text("kind"), "Broadcast");
        assert_eq!(meta.map("settings").text("durability"), durability);
        assert_eq!(meta.map("settings").text("name"), target);
        let shown = client
            .meta(durability)
            .await
            .map("settings")
            .uuid("dead_letter");
        assert_eq!(shown, meta.uuid("subscription_id"));
        let letters = client.log(&target).await;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].uuid("publication_id"), id);
        assert_eq!(letters[0].bytes("data"), b"1");
        let told = letters[0].map("dead_letter");
        let names = [
            "deliveries",
            "epoch",
            "reason",
            "sequence",
            "subscription_id",
        ];
        assert_eq!(told.names(), names);
        assert_eq!(
            (told.uuid("subscription_id"), told.uuid("epoch")),
            (source, epoch)
        );
        assert_eq!((told.number("sequence"), told.number("deliveries")), (1, 3));
        assert_eq!(told.text("reason"), "max-deliveries");
        // It can be subscribed like any other.
        client.subscribe(&*target, "First").await;
        let letter = client.publication(1).await;
        assert_eq!(letter.map("dead_letter"), told);
        assert!(!letter.has("delivery"));
        // In the Queue's log it stays as retention says.
        assert_eq!(client.log(durability).await.len(), 2);
    }
}

#[tokio::test]
async fn a_dead_letter_by_order_is_never_delivered_again() {
    let server = TestServer::start();
    for durability in DURABILITIES {
        let mut client = server.client().await;
        create(
            &mut client,
            durability,
            fields! { "durability": durability },
        )
        .await;
        let target = format!("{durability}.dead-letter");
        client.subscribe(&*target, "New").await;
        work(&mut client, durability, 10).await;
        client.publish_many(durability, 5).await;
        let ids = all_delivered(&mut client, 1..=5).await;
        give_up(&mut client, durability, vec![ids[3], ids[1]]).await;
        for (place, sequence) in [(1, 2), (2, 4)] {
            let letter = client.publication(place).await;
            let told = letter.map("dead_letter");
            assert_eq!(letter.uuid("publication_id"), ids[sequence - 1]);
            assert_eq!(told.number("sequence"), sequence as u64);
            assert_eq!(
                (told.number("deliveries"), told.text("reason")),
                (1, "rejected")
            );
        }
        counts_are(&mut client, durability, 0, 3).await;
        client.hears_nothing().await;
    }
}

#[tokio::test]
async fn without_a_limit_a_publication_is_never_given_up() {
    let server = TestServer::start();
    let mut client = server.client().await;
    create(&mut client, "work", fields! { "max_deliveries": 0 }).await;
    work(&mut client, "work", 1).await;
    client.publish("work", b"x").await;
    for delivery in 1..=30 {
        let id = delivered(&mut client, 1, delivery).await;
        settle(&mut client, "Reject", "work", vec![id]).await;
    }
}

#[tokio::test]
async fn ends_by_an_orderly_shutdown_do_not_count() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    create(&mut client, "work", fields! { "max_deliveries": 2 }).await;
    client.publish("work", b"x").await;
    for delivery in 1..=4 {
        work(&mut client, "work", 1).await;
        delivered(&mut client, 1, delivery).await;
        let stopped = server.begin_stop();
        assert_eq!(client.closed().await, 1001);
        client.let_go().await;
        stopped.await.unwrap();
        server.start_again().await;
        client = server.client().await;
    }
    work(&mut client, "work", 1).await;
    for delivery in 5..=6 {
        let id = delivered(&mut client, 1, delivery).await;
        settle(&mut client, "Reject", "work", vec![id]).await;
    }
    counts_are(&mut client, "work", 0, 0).await;
    assert_eq!(client.log("work.dead-letter").await.len(), 1);
}

#[tokio::test]
async fn a_dead_letter_that_is_there_already_is_only_settled() {
    let server = TestServer::start();
    let mut client = server.client().await;
    create(&mut client, "work", fields! { "dead_letter": "bin" }).await;
    work(&mut client, "work", 10).await;
    let id = Uuid::new_v4();
    for name in ["bin", "work"] {
        let fields = fields! { "subscription_id": name, "publication_id": id, "submission": name.as_bytes() };
        client.call("SubmitPublication", fields).await;
    }
    delivered(&mut client, 1, 1).await;
    give_up(&mut client, "work", vec![id]).await;
    counts_are(&mut client, "work", 0, 0).await;
    let letters = client.log("bin").await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].bytes("data"), b"bin");
}

#[tokio::test]
async fn a_dead_letter_subscription_that_was_deleted_is_made_again() {
    let server = TestServer::start();
    let mut client = server.client().await;
    work(&mut client, "work", 10).await;
    client.publish_many("work", 2).await;
    let ids = all_delivered(&mut client, 1..=2).await;
    for id in ids {
        give_up(&mut client, "work", vec![id]).await;
        eventually("the dead letter is there", async || {
            let fields = fields! { "subscription_id": "work.dead-letter" };
            client.ask("GetSubscription", fields).await.name == "SubscriptionMeta"
        })
        .await;
        assert_eq!(
            client.log("work.dead-letter").await[0].uuid("publication_id"),
            id
        );
        let fields = fields! { "subscription_id": "work.dead-letter" };
        client.call("DeleteSubscription", fields).await;
    }
}

#[tokio::test]
async fn dead_letters_can_go_to_a_queue_and_from_there_on() {
    let server = TestServer::start();
    let mut client = server.client().await;
    create(&mut client, "bin", fields! { "dead_letter": "end" }).await;
    create(&mut client, "work", fields! { "dead_letter": "bin" }).await;
    work(&mut client, "bin", 10).await;
    work(&mut client, "work", 10).await;
    client.publish("work", b"x").await;
    let id = delivered(&mut client, 1, 1).await;
    give_up(&mut client, "work", vec![id]).await;
    let letter = client.publication(1).await;
    assert_eq!(letter.number("delivery"), 1);
    assert_eq!(letter.map("dead_letter").text("reason"), "rejected");
    let bin = client.meta("bin").await.uuid("subscription_id");
    assert_eq!(letter.uuid("subscription_id"), bin);
    give_up(&mut client, "bin", vec![id]).await;
    counts_are(&mut client, "bin", 0, 0).await;
    let told = client.log("end").await[0].map("dead_letter");
    assert_eq!(told.uuid("subscription_id"), bin);
}

#[tokio::test]
async fn dead_letters_that_would_come_back_are_invalid_argument() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let make = |name: &str, target: &str| {
        let settings = fields! { "dead_letter": target };
        fields! { "subscription_id": name, "kind": "Queue", "settings": settings }
    };
    let fields = make("work", "work");
    client
        .fail("invalid-argument", "CreateSubscription", fields)
        .await;
    client.call("CreateSubscription", make("a", "b")).await;
    client.call("CreateSubscription", make("b", "c")).await;
    client
        .fail("invalid-argument", "CreateSubscription", make("c", "a"))
        .await;
    // Neither by default, nor later.
    client.call("CreateSubscription", make("x", "y")).await;
    client
        .call("CreateSubscription", make("x.dead-letter", "x"))
        .await;
    let settings = fields! { "dead_letter": () };
    let fields = fields! { "subscription_id": "x", "settings": settings };
    client
        .fail("invalid-argument", "UpdateSubscription", fields)
        .await;
    create(&mut client, "c", fields! {}).await;
    let settings = fields! { "dead_letter": "b" };
    let fields = fields! { "subscription_id": "c", "settings": settings };
    client
        .fail("invalid-argument", "UpdateSubscription", fields)
        .await;
    let id = client.meta("c").await.map("settings").uuid("dead_letter");
    let fields = fields! { "subscription_id": "c", "settings": fields! { "dead_letter": id } };
    client.call("UpdateSubscription", fields).await;
}

#[tokio::test]
async fn a_long_chain_of_dead_letter_subscriptions_is_not_walked_and_never_closed() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let fields = |number: u64| {
        let settings = fields! { "dead_letter": format!("q{}", (number + 1) % 100) };
        fields! { "subscription_id": format!("q{number}"), "kind": "Queue", "settings": settings }
    };
    for number in 0..99 {
        client.call("CreateSubscription", fields(number)).await;
    }
    client
        .fail("invalid-argument", "CreateSubscription", fields(99))
        .await;
    // Where the chain was already, everything else goes on.
    let settings = fields! { "ack_timeout": 1_000 };
    let update = fields! { "subscription_id": "q0", "settings": settings };
    client.call("UpdateSubscription", update).await;
    work(&mut client, "q0", 1).await;
    client.publish("q0", b"a").await;
    let id = delivered(&mut client, 1, 1).await;
    give_up(&mut client, "q0", vec![id]).await;
    counts_are(&mut client, "q1", 1, 0).await;
}

#[tokio::test]
async fn a_dead_letter_that_finds_no_room_waits_and_holds_nobody_up() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let retention = fields! { "retention": fields! { "max_bytes": 4 } };
    client
        .call(
            "CreateSubscription",
            fields! { "subscription_id": "bin", "settings": retention },
        )
        .await;
    create(&mut client, "work", fields! { "dead_letter": "bin" }).await;
    work(&mut client, "work", 1).await;
    client.publish("work", b"too long").await;
    client.publish("work", b"ok").await;
    let id = delivered(&mut client, 1, 1).await;
    give_up(&mut client, "work", vec![id]).await;
    // It stays pending, undelivered.
    delivered(&mut client, 2, 1).await;
    assert_eq!(counts(&mut client, "work").await, (1, 1));
    let retention = fields! { "retention": () };
    client
        .call(
            "UpdateSubscription",
            fields! { "subscription_id": "bin", "settings": retention },
        )
        .await;
    counts_are(&mut client, "work", 0, 1).await;
    assert_eq!(client.log("bin").await[0].bytes("data"), b"too long");
}

#[tokio::test]
async fn dead_letters_that_find_room_do_not_wait_for_one_that_finds_none() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let retention = fields! { "retention": fields! { "max_bytes": 4 } };
    client
        .call(
            "CreateSubscription",
            fields! { "subscription_id": "bin", "settings": retention },
        )
        .await;
    create(&mut client, "work", fields! { "dead_letter": "bin" }).await;
    work(&mut client, "work", 2).await;
    client.publish("work", b"too long").await;
    client.publish("work", b"ok").await;
    let ids = all_delivered(&mut client, 1..=2).await;
    give_up(&mut client, "work", ids).await;
    counts_are(&mut client, "work", 1, 0).await;
    assert_eq!(client.log("bin").await[0].bytes("data"), b"ok");
}

#[tokio::test]
async fn a_dead_letter_that_waits_survives_a_restart() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    let retention = fields! { "retention": fields! { "max_bytes": 4 } };
    client
        .call(
            "CreateSubscription",
            fields! { "subscription_id": "bin", "settings": retention },
        )
        .await;
    create(&mut client, "work", fields! { "dead_letter": "bin" }).await;
    work(&mut client, "work", 1).await;
    client.publish("work", b"too long").await;
    let id = delivered(&mut client, 1, 1).await;
    give_up(&mut client, "work", vec![id]).await;
    client.close().await;
    server.restart().await;
    let mut client = server.client().await;
    work(&mut client, "work", 1).await;
    assert_eq!(counts(&mut client, "work").await, (1, 0));
    client.hears_nothing().await;
    let retention = fields! { "retention": () };
    client
        .call(
            "UpdateSubscription",
            fields! { "subscription_id": "bin", "settings": retention },
        )
        .await;
    counts_are(&mut client, "work", 0, 0).await;
    let told = client.log("bin").await[0].map("dead_letter");
    assert_eq!(
        (told.number("deliveries"), told.text("reason")),
        (1, "rejected")
    );
}

#[tokio::test]
async fn what_was_on_lease_at_a_kill_was_delivered_in_vain() {
    let mut server = Process::start(&[]);
    let mut client = server.client().await;
    create(&mut client, "work", fields! { "max_deliveries": 1 }).await;
    work(&mut client, "work", 1).await;
    client.publish_many("work", 2).await;
    let id = delivered(&mut client, 1, 1).await;
    server.kill();
    server.start_again();
    // Nobody subscribes, and it is moved all the same.
    let mut client = server.client().await;
    counts_are(&mut client, "work", 1, 0).await;
    let letters = client.log("work.dead-letter").await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].uuid("publication_id"), id);
    assert_eq!(
        letters[0].map("dead_letter").text("reason"),
        "max-deliveries"
    );
    work(&mut client, "work", 1).await;
    delivered(&mut client, 2, 1).await;
}

#[tokio::test]
async fn a_dead_letter_put_back_twice_is_there_once() {
    let server = TestServer::start();
    let mut client = server.client().await;
    work(&mut client, "work", 10).await;
    client.publish("work", b"x").await;
    let id = delivered(&mut client, 1, 1).await;
    give_up(&mut client, "work", vec![id]).await;
    counts_are(&mut client, "work", 0, 0).await;
    for is_again in [false, true] {
        let letter = client.log("work.dead-letter").await.remove(0);
        let queue = letter.map("dead_letter").uuid("subscription_id");
        // Its old id is still in the Queue's log: the new one follows from it.
        let again = Uuid::new_v5(&queue, letter.uuid("publication_id").as_bytes());
        let fields = fields! {
            "subscription_id": queue,
            "publication_id": again,
            "submission": letter.bytes("data"),
        };
        let submitted = client.call("SubmitPublication", fields).await;
        assert_eq!(submitted.truth("duplicate"), is_again);
    }
    delivered(&mut client, 2, 1).await;
    client.hears_nothing().await;
}
