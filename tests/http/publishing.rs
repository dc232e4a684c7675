//! Publishing: one and many, and both again.

use serde_json::json;
use uuid::Uuid;

use crate::support::{Http, TestServer};

const LOG: &str = "/v1/subscriptions/orders/publications";

#[tokio::test]
async fn what_is_published_by_http_is_served_over_websocket_and_stored() {
    let server = TestServer::start();
    let mut subscriber = server.client().await;
    subscriber.subscribe("orders", "New").await;
    let mut http = Http::connect(server.address()).await;
    let answer = http.json("POST", LOG, &json!({"data": "ü"})).await;
    let submitted = answer.json(201);
    assert_eq!(submitted["sequence"], 1);
    assert_eq!(submitted["duplicate"], false);
    assert_eq!(submitted["durability"], "Synced");
    let publication = subscriber.publication(1).await;
    assert_eq!(publication.bytes("data"), "ü".as_bytes());
    assert_eq!(
        publication.uuid("publication_id").to_string(),
        submitted["publication_id"].as_str().unwrap()
    );
    let location = answer.header("location").unwrap().to_owned();
    assert_eq!(http.get(&location).await.json(200)["data"], "ü");
}

#[tokio::test]
async fn a_body_can_be_the_payload_itself() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    let headers = [("Content-Type", "application/octet-stream")];
    let answer = http.ask("POST", LOG, &headers, b"\xff\x00").await;
    assert_eq!(answer.json(201)["sequence"], 1);
    let read = http.get(LOG).await.json(200);
    assert_eq!(read["publications"][0]["data_base64"], "/wA=");
}

#[tokio::test]
async fn the_same_idempotency_key_is_answered_with_the_first_sequence_after_a_restart_too() {
    let mut server = TestServer::start();
    let id = Uuid::new_v4().to_string();
    for key in [id.as_str(), "order 17"] {
        let headers = [
            ("Content-Type", "application/json"),
            ("Idempotency-Key", key),
        ];
        let mut http = Http::connect(server.address()).await;
        let first = http.ask("POST", LOG, &headers, br#"{"data": "a"}"#).await;
        let first = first.json(201);
        http.publish("orders", "between").await;
        drop(http);
        server.restart().await;
        let mut http = Http::connect(server.address()).await;
        // `null` is absence.
        let body = br#"{"data": "b", "publication_id": null}"#;
        let again = http.ask("POST", LOG, &headers, body).await.json(200);
        assert_eq!(again["duplicate"], true);
        assert_eq!(again["sequence"], first["sequence"]);
        assert_eq!(again["publication_id"], first["publication_id"]);
        if key == id {
            assert_eq!(first["publication_id"], key);
        }
    }
    let mut http = Http::connect(server.address()).await;
    for key in ["", "\"\"", &"x".repeat(256)] {
        let headers = [
            ("Content-Type", "application/json"),
            ("Idempotency-Key", key),
        ];
        let answer = http.ask("POST", LOG, &headers, br#"{"data": "a"}"#).await;
        answer.problem(400, "invalid-argument");
    }
}

#[tokio::test]
async fn many_are_each_answered_in_the_order_of_the_request() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    let memory = json!({"settings": {"durability": "Memory"}});
    http.json("PUT", "/v1/subscriptions/quick", &memory)
        .await
        .json(200);
    let many: Vec<_> = (0..1_000)
        .map(|number| {
            let name = ["orders", "quick"][number % 2];
            json!({"subscription_id": name, "data": number.to_string()})
        })
        .collect();
    let headers = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "batch 1"),
    ];
    let body = json!({"publications": many}).to_string();
    for is_again in [false, true] {
        let answer = http
            .ask("POST", "/v1/publications", &headers, body.as_bytes())
            .await;
        let answer = answer.json(200);
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), 1_000);
        for (number, result) in results.iter().enumerate() {
            let submitted = &result["Submitted"];
            assert_eq!(submitted["sequence"], number / 2 + 1, "{result}");
            assert_eq!(submitted["duplicate"], is_again, "{result}");
        }
    }
    let read = http.get(&format!("{LOG}?limit=10000")).await.json(200);
    let data = |place: usize| {
        read["publications"][place]["data"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(read["publications"].as_array().unwrap().len(), 500);
    assert_eq!([data(0), data(1), data(499)], ["0", "2", "998"]);
}

#[tokio::test]
async fn one_of_many_that_fails_keeps_no_other_back() {
    let server = TestServer::with(|config| config.max_message_size = 1 << 10);
    let mut http = Http::connect(server.address()).await;
    http.json("PUT", "/v1/subscriptions/jobs", &json!({"kind": "Queue"}))
        .await
        .json(200);
    let body = json!({"publications": [
        {"subscription_id": "orders", "data": "1"},
        {"subscription_id": "jobs", "data": "2", "kind": "Broadcast"},
        {"subscription_id": "orders", "data": "x".repeat(1 << 10)},
        {"subscription_id": "", "data": "3"},
        {"subscription_id": "orders", "data": "4", "expected_sequence": 9},
        {"subscription_id": "orders", "data": "5"},
    ]});
    let answer = http.json("POST", "/v1/publications", &body).await.json(200);
    let code = |place: usize| answer["results"][place]["Error"]["code"].as_str();
    assert_eq!(answer["results"][0]["Submitted"]["sequence"], 1);
    assert_eq!(code(1), Some("kind-mismatch"));
    assert_eq!(code(2), Some("too-large"));
    assert_eq!(code(3), Some("invalid-argument"));
    assert_eq!(code(4), Some("conflict"));
    assert_eq!(answer["results"][5]["Submitted"]["sequence"], 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_publication_is_told() {
    let server = TestServer::with(|config| config.max_message_size = 1 << 10);
    let mut http = Http::connect(server.address()).await;
    for (body, status, code) in [
        (json!({}), 400, "invalid-argument"),
        (json!({"data": 1}), 400, "invalid-argument"),
        (
            json!({"data": "a", "publication_id": "1"}),
            400,
            "invalid-argument",
        ),
        (
            json!({"data": "a", "expected_sequence": 0}),
            400,
            "invalid-argument",
        ),
        (
            json!({"data": "a", "subscription_id": "orders"}),
            400,
            "malformed",
        ),
        (json!([]), 400, "malformed"),
        (
            json!({"data": "a", "expected_sequence": 7}),
            409,
            "conflict",
        ),
        (json!({"data": "x".repeat(1 << 10)}), 413, "too-large"),
    ] {
        let answer = http.json("POST", LOG, &body).await;
        let problem = answer.problem(status, code);
        assert_eq!(problem["temporary"], false, "{problem}");
    }
    http.json("PUT", "/v1/subscriptions/orders", &json!({"kind": "Queue"}))
        .await
        .json(200);
    let answer = http
        .json("POST", LOG, &json!({"data": "a", "kind": "Broadcast"}))
        .await;
    let problem = answer.problem(409, "kind-mismatch");
    assert_eq!(problem["command"], "SubmitPublication");
    let many: Vec<_> = (0..1_001)
        .map(|_| json!({"subscription_id": "a", "data": ""}))
        .collect();
    let answer = http
        .json("POST", "/v1/publications", &json!({"publications": many}))
        .await;
    answer.problem(400, "invalid-argument");
}
