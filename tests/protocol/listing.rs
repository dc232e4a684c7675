//! Section 4: `ListSubscriptions`.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::support::{Client, Response, TestServer};

async fn list(client: &mut Client, after: Option<Uuid>, limit: u64) -> Response {
    let fields = fields! { "after": after, "limit": limit };
    client.call("ListSubscriptions", fields).await
}

fn ids(response: &Response) -> Vec<Uuid> {
    let subscriptions = response.maps("subscriptions");
    subscriptions
        .iter()
        .map(|meta| meta.uuid("subscription_id"))
        .collect()
}

/// Makes so many subscriptions, and gives their ids in order.
async fn make(client: &mut Client, count: usize) -> Vec<Uuid> {
    let mut made = BTreeSet::new();
    let mut requests = Vec::new();
    for _ in 0..count {
        let id = Uuid::new_v4();
        made.insert(id);
        let fields = fields! { "subscription_id": id };
        requests.push(client.request("CreateSubscription", fields).await);
    }
    for request in requests {
        client.answer(request).await.expect("SubscriptionMeta");
    }
    made.into_iter().collect()
}

#[tokio::test]
async fn a_server_without_subscriptions_lists_none() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let all = client.call("ListSubscriptions", fields! {}).await;
    assert_eq!(all.names(), ["more", "subscriptions"]);
    assert!(all.array("subscriptions").is_empty());
    assert!(!all.truth("more"));
}

#[tokio::test]
async fn subscriptions_are_listed_in_the_order_of_their_uuid_page_by_page() {
    let mut server = TestServer::start();
    let mut client = server.client().await;
    let made = make(&mut client, 250).await;
    let default = client.call("ListSubscriptions", fields! {}).await;
    assert_eq!(ids(&default), made[..100]);
    assert!(default.truth("more"));
    let all = list(&mut client, None, 1_000).await;
    assert_eq!(ids(&all), made);
    assert!(!all.truth("more"));
    let exact = list(&mut client, None, 250).await;
    assert!(!exact.truth("more"));

    client.close().await;
    server.restart().await;
    let mut client = server.client().await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = list(&mut client, after, 33).await;
        seen.extend(ids(&page));
        after = seen.last().copied();
        if !page.truth("more") {
            break;
        }
        assert_eq!(page.array("subscriptions").len(), 33);
    }
    assert_eq!(seen, made);
}

#[tokio::test]
async fn after_may_be_an_id_that_does_not_exist() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let made = make(&mut client, 5).await;
    let all = list(&mut client, Some(Uuid::nil()), 10).await;
    assert_eq!(ids(&all), made);
    let none = list(&mut client, Some(Uuid::max()), 10).await;
    assert!(ids(&none).is_empty());
    let between = Uuid::from_u128(made[2].as_u128() + 1);
    let rest = list(&mut client, Some(between), 10).await;
    assert_eq!(ids(&rest), made[3..]);
}

#[tokio::test]
async fn what_is_listed_is_what_get_subscription_tells() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 3).await;
    client.subscribe("news", "New").await;
    let all = client.call("ListSubscriptions", fields! {}).await;
    for meta in all.maps("subscriptions") {
        let alone = client.meta(meta.uuid("subscription_id")).await;
        assert_eq!(alone.fields, meta);
    }
    assert_eq!(all.array("subscriptions").len(), 2);
}
