//! Section 4: `DeleteSubscription`.

use crate::support::{Client, TestServer, eventually, within};

#[tokio::test]
async fn deleted_is_answered_and_pushed_to_every_other_connection_that_holds_it() {
    let server = TestServer::start();
    let mut deleter = server.client().await;
    let mut others = [
        server.client().await,
        server.client().await,
        server.client().await,
    ];
    let id = deleter
        .subscribe("orders", "New")
        .await
        .uuid("subscription_id");
    for other in &mut others {
        other.subscribe("orders", "New").await;
    }
    let mut stranger = server.client().await;
    let answer = deleter
        .call(
            "DeleteSubscription",
            fields! { "subscription_id": "orders" },
        )
        .await;
    assert_eq!(answer.names(), ["subscription_id"]);
    assert_eq!(answer.uuid("subscription_id"), id);
    for other in &mut others {
        let pushed = other.next().await.expect("Deleted");
        assert_eq!(pushed.id, None);
        assert_eq!(pushed.uuid("subscription_id"), id);
    }
    deleter.hears_nothing().await;
    stranger.hears_nothing().await;
}

#[tokio::test]
async fn what_was_published_before_comes_in_front_of_deleted_and_nothing_behind() {
    let server = TestServer::start();
    let mut subscriber = server.client().await;
    let mut publisher = server.client().await;
    for _ in 0..10 {
        subscriber.subscribe("orders", "New").await;
        for _ in 0..20 {
            let fields = fields! { "subscription_id": "orders", "submission": b"x" };
            publisher.send_bare("SubmitPublication", fields).await;
        }
        publisher
            .send_bare(
                "DeleteSubscription",
                fields! { "subscription_id": "orders" },
            )
            .await;
        publisher.publish("orders", b"of another life").await;
        let mut expected = 1;
        loop {
            let response = subscriber.next().await;
            if response.name == "Deleted" {
                break;
            }
            assert_eq!(response.expect("Publication").number("sequence"), expected);
            expected += 1;
        }
        subscriber.hears_nothing().await;
        publisher
            .call(
                "DeleteSubscription",
                fields! { "subscription_id": "orders" },
            )
            .await;
    }
}

#[tokio::test]
async fn a_deleted_subscription_is_not_found() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    client.publish("orders", b"x").await;
    let fields = fields! { "subscription_id": "orders" };
    client.call("DeleteSubscription", fields.clone()).await;
    for command in ["GetSubscription", "DeleteSubscription", "Unsubscribe"] {
        client.fail("not-found", command, fields.clone()).await;
    }
    client
        .fail("not-found", "GetLogIndex", fields! { "log_id": "orders" })
        .await;
    client.close().await;
    server.restart().await;
    let mut client = server.client().await;
    client.fail("not-found", "GetSubscription", fields).await;
}

#[tokio::test]
async fn the_same_name_again_is_a_new_life() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    let id = uuid::Uuid::new_v4();
    let submission =
        fields! { "subscription_id": "orders", "submission": b"x", "publication_id": id };
    client.publish_many("orders", 5).await;
    client.call("SubmitPublication", submission.clone()).await;
    let first = client.meta("orders").await;
    client
        .call(
            "DeleteSubscription",
            fields! { "subscription_id": "orders" },
        )
        .await;
    // The new log never held the id.
    let submitted = client.call("SubmitPublication", submission).await;
    assert_eq!(submitted.number("sequence"), 1);
    assert!(!submitted.truth("duplicate"));
    let second = client.meta("orders").await;
    assert_eq!(
        first.uuid("subscription_id"),
        second.uuid("subscription_id")
    );
    assert_ne!(first.uuid("epoch"), second.uuid("epoch"));
    assert_eq!(second.number("last_sequence"), 1);
    assert_eq!(client.log("orders").await.len(), 1);
    client.close().await;

    server.restart().await;
    let mut client = server.client().await;
    let third = client.meta("orders").await;
    assert_eq!(second.uuid("epoch"), third.uuid("epoch"));
    assert_eq!(client.log("orders").await.len(), 1);
}

#[tokio::test]
async fn deleting_pipelined_with_making_it_again_leaves_the_last() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for _ in 0..30 {
        let submit = fields! { "subscription_id": "orders", "submission": b"x" };
        client.send_bare("SubmitPublication", submit).await;
        let delete = fields! { "subscription_id": "orders" };
        client.send_bare("DeleteSubscription", delete).await;
    }
    let submitted = client.publish("orders", b"y").await;
    assert_eq!(submitted.number("sequence"), 1);
    assert_eq!(client.log("orders").await.len(), 1);
    client.hears_nothing().await;
}

#[tokio::test]
async fn a_memory_subscription_can_be_deleted_as_well() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let mut other = server.client().await;
    let create = || {
        let settings = fields! { "durability": "Memory" };
        fields! { "subscription_id": "orders", "settings": settings }
    };
    client.call("CreateSubscription", create()).await;
    other.subscribe("orders", "New").await;
    client.publish_many("orders", 3).await;
    client
        .call(
            "DeleteSubscription",
            fields! { "subscription_id": "orders" },
        )
        .await;
    other.publications(1..=3).await;
    other.next().await.expect("Deleted");
    client.call("CreateSubscription", create()).await;
    let submitted = client.publish("orders", b"x").await;
    assert_eq!(submitted.number("sequence"), 1);
    other.hears_nothing().await;
}

#[tokio::test]
async fn nothing_of_an_earlier_life_follows_the_answer_to_deleting_a_later_one() {
    let server = TestServer::start();
    let mut other = server.client().await;
    let mut client = Client::with_small_window(server.address()).await;
    client.subscribe("orders", "New").await;
    for _ in 0..40 {
        other.publish("orders", vec![0; 100_000]).await;
    }
    let about = || fields! { "subscription_id": "orders" };
    other.call("DeleteSubscription", about()).await;
    other.publish("orders", b"x").await;
    // All of that waits for the client, which now deletes as well.
    let deleting = client.request("DeleteSubscription", about()).await;
    eventually("it is deleted", async || {
        other.ask("GetSubscription", about()).await.name == "Error"
    })
    .await;
    client.answer(deleting).await.expect("Deleted");
    client.unread();
    client.hears_nothing().await;
}

#[tokio::test]
async fn whoever_subscribes_by_time_is_told_of_a_deletion_that_comes_meanwhile() {
    let server = TestServer::start();
    let mut other = server.client().await;
    for round in 0..100 {
        let name = format!("orders-{round}");
        let mut client = server.client().await;
        other.publish(&*name, b"x").await;
        let epoch = other.meta(&*name).await.uuid("epoch");
        let from = fields! { "Since": 0 };
        let fields = fields! { "subscription_id": &*name, "from": from };
        let subscribing = client.request("Subscribe", fields).await;
        let fields = fields! { "subscription_id": &*name };
        other.call("DeleteSubscription", fields).await;
        let subscribed = client.answer(subscribing).await.expect("Subscribed");
        if subscribed.uuid("epoch") == epoch {
            let mut next = within("Deleted", client.next()).await;
            if next.name == "Publication" {
                next = within("Deleted", client.next()).await;
            }
            next.expect("Deleted");
        }
    }
}
