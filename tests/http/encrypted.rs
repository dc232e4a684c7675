//! `/v1` over TLS, and what becomes of who asks without TLS there.

use serde_json::json;

use crate::{
    access::{ask, bearer, guard},
    support::{Client, Http, Raw, Secured, TestServer, eventually},
};

const LOG: &str = "/v1/subscriptions/orders/publications";

#[tokio::test]
async fn requests_and_streams_are_served_over_tls_as_without() {
    let secured = Secured::new();
    let server = TestServer::with(|config| {
        config.tls = Some(secured.files());
        guard(config);
    });
    let tls = secured.client();
    let all = ["*"];
    let shop = bearer("shop", 60.0, &json!({"publish": all, "read": all}));
    let reader = bearer("reader", 60.0, &json!({"subscribe": all}));
    let mut stream = Http::over_tls(server.address(), &tls).await;
    let from_first = [("Authorization", &*reader)];
    let head = stream.subscribe("orders", "?from=first", &from_first).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.event().await.unwrap().name, "subscribed");

    // One connection for all requests, longer ones than a record of TLS (16 KiB) too.
    let mut http = Http::over_tls(server.address(), &tls).await;
    for path in ["/healthz", "/readyz", "/v1/openapi.json"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
    let mut nobody = Http::over_tls(server.address(), &tls).await;
    nobody
        .get("/v1/subscriptions")
        .await
        .problem(401, "not-authorized");
    assert!(nobody.is_over().await);
    for sequence in 1..=3 {
        let body = json!({"data": sequence.to_string().repeat(100_000)}).to_string();
        let answer = ask(&mut http, "POST", LOG, &shop, &body).await.json(201);
        assert_eq!(answer["sequence"], sequence);
    }
    let read = ask(&mut http, "GET", LOG, &shop, "").await.json(200);
    assert_eq!(read["publications"].as_array().unwrap().len(), 3);
    for sequence in 1..=3 {
        let event = stream.event().await.unwrap();
        assert_eq!(event.data["sequence"], sequence);
        let data = event.data["data"].as_str().unwrap();
        assert!(data == sequence.to_string().repeat(100_000), "{sequence}");
        assert_eq!(event.data["publisher"], "shop");
    }
}

#[tokio::test]
async fn who_asks_without_tls_is_told_so_and_takes_nothing_from_others() {
    let secured = Secured::new();
    let server = TestServer::with(|config| {
        config.tls = Some(secured.files());
        config.max_connections = 3;
    });
    let tls = secured.client();
    let mut client = Client::over_tls(server.address(), &tls, None).await;
    client.subscribe("orders", "New").await;
    let mut stream = Http::over_tls(server.address(), &tls).await;
    assert_eq!(stream.subscribe("orders", "", &[]).await.status, 200);
    assert_eq!(stream.event().await.unwrap().name, "subscribed");

    let body = json!({"data": "x".repeat(10_000)}).to_string();
    for _ in 0..20 {
        for (method, path) in [("GET", "/healthz"), ("POST", LOG), ("DELETE", LOG)] {
            let mut plain = Http::connect(server.address()).await;
            let answer = ask(&mut plain, method, path, "", &body).await;
            assert_eq!(answer.status, 400);
            let told = String::from_utf8_lossy(&answer.body);
            assert!(told.contains("this port speaks TLS"), "{told}");
            assert_eq!(answer.header("connection"), Some("close"));
            assert!(plain.is_over().await);
        }
    }
    // Neither a request nor a handshake: ended without a word of HTTP.
    let mut noise = Raw::connect(server.address(), None).await;
    noise.write(b"get /healthz HTTP/1.1\r\n\r\n").await;
    let answer = noise.take(1024).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    drop(noise);

    // Nothing of it was done, and each of them gave its place back.
    eventually("there is room for one more", async || {
        let mut http = Http::over_tls(server.address(), &tls).await;
        let body = r#"{"data": "1"}"#;
        let headers = [("Content-Type", "application/json")];
        let answer = http.ask("POST", LOG, &headers, body.as_bytes()).await;
        answer.status == 201
    })
    .await;
    client.publication(1).await;
    assert_eq!(stream.event().await.unwrap().data["sequence"], 1);
}
