//! Subscriptions: made, shown, changed, listed, deleted.

use serde_json::json;
use uuid::Uuid;

use crate::support::{Http, TestServer};

const ORDERS: &str = "/v1/subscriptions/orders";

#[tokio::test]
async fn a_subscription_is_made_shown_changed_and_deleted() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    http.get(ORDERS).await.problem(404, "not-found");
    let settings = json!({"kind": "Queue", "settings": {"ack_timeout": 1000, "retention": {"max_bytes": 4096}}});
    let made = http.json("PUT", ORDERS, &settings).await.json(200);
    assert_eq!(made["kind"], "Queue");
    assert_eq!(made["settings"]["name"], "orders");
    assert_eq!(made["settings"]["ack_timeout"], 1000);
    assert_eq!(made["settings"]["retention"], json!({"max_bytes": 4096}));
    assert_eq!(made["pending"], 0);
    // The same again, and less, is fine.
    assert_eq!(
        http.json("PUT", ORDERS, &settings).await.json(200)["epoch"],
        made["epoch"]
    );
    http.ask("PUT", ORDERS, &[], b"").await.json(200);
    http.json("PUT", ORDERS, &json!({"kind": "Broadcast"}))
        .await
        .problem(409, "conflict");
    let changed =
        json!({"settings": {"ack_timeout": null, "retention": null, "dead_letter": "lost"}});
    let changed = http.json("PATCH", ORDERS, &changed).await.json(200);
    assert_eq!(changed["settings"]["ack_timeout"], 30_000);
    assert_eq!(changed["settings"]["retention"], json!({}));
    let by_id = format!(
        "/v1/subscriptions/{}",
        made["subscription_id"].as_str().unwrap()
    );
    assert_eq!(http.get(&by_id).await.json(200), changed);
    let answer = http.ask("DELETE", &by_id, &[], b"").await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    http.ask("DELETE", ORDERS, &[], b"")
        .await
        .problem(404, "not-found");
    http.json("PATCH", ORDERS, &json!({"settings": {}}))
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn settings_are_judged_as_on_the_socket() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    for (body, code) in [
        (json!({"settings": {"ack_timeout": 1}}), "invalid-argument"),
        (json!({"settings": {"unknown": 1}}), "invalid-argument"),
        (
            json!({"settings": {"retention": {"max_bytes": 0}}}),
            "invalid-argument",
        ),
        (json!({"settings": 1}), "invalid-argument"),
        (json!({"kind": "Topic"}), "invalid-argument"),
        (json!([]), "malformed"),
    ] {
        let problem = http.json("PUT", ORDERS, &body).await.problem(400, code);
        assert!(
            problem
                .get("command")
                .is_none_or(|name| name == "CreateSubscription")
        );
    }
    http.get(ORDERS).await.problem(404, "not-found");
    http.json("PATCH", ORDERS, &json!({}))
        .await
        .problem(400, "invalid-argument");
}

#[tokio::test]
async fn subscriptions_are_listed_page_by_page() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    for number in 0..7 {
        let path = format!("/v1/subscriptions/of%20{number}%2F7");
        let made = http.ask("PUT", &path, &[], b"").await.json(200);
        assert_eq!(made["settings"]["name"], format!("of {number}/7"));
    }
    let (mut path, mut listed) = ("/v1/subscriptions?limit=3".to_owned(), Vec::new());
    loop {
        let page = http.get(&path).await.json(200);
        for one in page["subscriptions"].as_array().unwrap() {
            let id = one["subscription_id"].as_str().unwrap();
            listed.push(Uuid::try_parse(id).unwrap());
        }
        match page.get("next") {
            Some(next) => {
                path = format!("/v1/subscriptions?limit=3&after={}", next.as_str().unwrap());
            }
            None => break,
        }
    }
    assert_eq!(listed.len(), 7);
    assert!(listed.is_sorted());
    http.get("/v1/subscriptions?after=orders")
        .await
        .problem(400, "invalid-argument");
}
