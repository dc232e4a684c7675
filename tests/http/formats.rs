//! Formats of bodies and answers, paths and methods.

use serde_cbor::Value;
use uuid::Uuid;

use crate::support::{Fields, Http, TestServer, encode};

const LOG: &str = "/v1/subscriptions/orders/publications";
const CBOR: (&str, &str) = ("Content-Type", "application/cbor");
const WANTS_CBOR: (&str, &str) = ("Accept", "application/json;q=0.1, application/cbor");

fn fields(body: &[u8]) -> Fields {
    Fields::of(&serde_cbor::from_slice(body).unwrap())
}

#[tokio::test]
async fn bodies_can_be_cbor_with_the_types_of_the_protocol() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    let id = Uuid::new_v4();
    let body =
        encode(&fields! { "data": &b"\xff\x00"[..], "publication_id": id, "kind": "Broadcast" });
    let answer = http.ask("POST", LOG, &[CBOR], &body).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("content-type"), Some("application/cbor"));
    assert_eq!(fields(&answer.body).uuid("publication_id"), id);
    let answer = http.ask("GET", LOG, &[WANTS_CBOR], b"").await;
    let page = fields(&answer.body);
    assert!(!page.truth("more"));
    let publication = &page.maps("publications")[0];
    assert_eq!(publication.bytes("data"), b"\xff\x00");
    assert_eq!(publication.uuid("publication_id"), id);
    let one = encode(&fields! { "subscription_id": "orders", "data": &b"2"[..] });
    let one: Value = serde_cbor::from_slice(&one).unwrap();
    let many = encode(&fields! { "publications": vec![one] });
    let answer = http.ask("POST", "/v1/publications", &[CBOR], &many).await;
    let result = &fields(&answer.body).maps("results")[0];
    assert_eq!(Fields::of(result.value("Submitted")).number("sequence"), 2);
    let settings =
        encode(&fields! { "settings": fields! { "retention": fields! { "max_bytes": 10 } } });
    let answer = http
        .ask("PATCH", "/v1/subscriptions/orders", &[CBOR], &settings)
        .await;
    let shown = Fields::of(fields(&answer.body).value("settings"));
    assert_eq!(Fields::of(shown.value("retention")).number("max_bytes"), 10);
    let answer = http
        .ask("GET", "/v1/subscriptions", &[WANTS_CBOR], b"")
        .await;
    assert_eq!(fields(&answer.body).maps("subscriptions").len(), 1);
}

#[tokio::test]
async fn what_is_no_cbor_harms_nobody() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    let deep = [&[0x81; 100][..], &[0x80]].concat();
    for body in [
        &b""[..],
        b"\xff",
        b"\xa1",
        b"\x80",
        b"\xa0\xa0",
        b"\xa1\x64data",
        &deep,
    ] {
        let answer = http.ask("POST", LOG, &[CBOR], body).await;
        answer.problem(400, "malformed");
    }
    // More in a row than a WebSocket may send: each request stands for itself.
    for _ in 0..40 {
        let mut nested = b"\xa2\x64data\x40\x61x".to_vec();
        nested.extend([0x81; 62]);
        nested.push(0x80);
        let answer = http.ask("POST", LOG, &[CBOR], &nested).await;
        answer.problem(400, "malformed");
    }
    assert_eq!(http.publish("orders", "well").await, 1);
}

#[tokio::test]
async fn formats_that_are_not_spoken_are_refused() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    for headers in [
        &[("Content-Type", "text/plain")][..],
        &[("Content-Type", "application/x-www-form-urlencoded")],
        &[],
        &[
            ("Content-Type", "application/json"),
            ("Content-Encoding", "gzip"),
        ],
    ] {
        let answer = http.ask("POST", LOG, headers, b"{\"data\": \"a\"}").await;
        answer.problem(415, "unsupported-format");
    }
    for path in ["/v1/subscriptions", LOG, "/v1/subscriptions/orders"] {
        let answer = http.ask("GET", path, &[("Accept", "text/html")], b"").await;
        answer.problem(406, "not-acceptable");
    }
    let answer = http
        .ask(
            "GET",
            "/v1/subscriptions/orders/events",
            &[("Accept", "application/json")],
            b"",
        )
        .await;
    answer.problem(406, "not-acceptable");
}

#[tokio::test]
async fn other_paths_are_nothing_and_other_methods_are_told_which() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    for path in [
        "/v1",
        "/v1/",
        "/v1/x",
        "/v1/subscriptions/a/b",
        "/v1/subscriptions/a/publications/b/c",
    ] {
        http.get(path).await.problem(404, "not-found");
    }
    http.get("/v1/subscriptions/%00")
        .await
        .problem(400, "invalid-argument");
    for (method, path, allow) in [
        ("POST", "/v1/subscriptions", "GET, HEAD, OPTIONS"),
        ("TRACE", "/v1/subscriptions", "GET, HEAD, OPTIONS"),
        ("GET", "/v1/publications", "POST, OPTIONS"),
        (
            "POST",
            "/v1/subscriptions/orders",
            "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
        ),
        ("DELETE", LOG, "GET, HEAD, POST, OPTIONS"),
        ("PUT", "/v1/openapi.json", "GET, HEAD, OPTIONS"),
    ] {
        let answer = http.ask(method, path, &[], b"").await;
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), Some(allow));
        let answer = http.ask("OPTIONS", path, &[], b"").await;
        assert_eq!((answer.status, answer.header("allow")), (204, Some(allow)));
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    http.publish("orders", "1").await;
    for path in [
        "/v1/subscriptions",
        "/v1/subscriptions/orders",
        LOG,
        "/v1/openapi.json",
    ] {
        let got = http.get(path).await;
        let head = http.ask("HEAD", path, &[], b"").await;
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(
            head.header("content-length"),
            got.header("content-length"),
            "{path}"
        );
    }
    let head = http
        .ask("HEAD", "/v1/subscriptions/orders/events", &[], b"")
        .await;
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    assert_eq!(http.publish("orders", "2").await, 2);
}
