//! Connections: kept alive, counted, bounded.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Http, Process, Raw, TestServer, eventually, within};

#[tokio::test]
async fn requests_of_one_connection_are_answered_in_order_pipelined_or_not() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    for number in 1..=100 {
        assert_eq!(http.publish("orders", "kept alive").await, number);
    }
    let body = br#"{"data": "pipelined"}"#;
    let path = "/v1/subscriptions/orders/publications";
    for _ in 0..10 {
        http.send("POST", path, &[("Content-Type", "application/json")], body)
            .await;
    }
    http.send("GET", "/v1/subscriptions/orders", &[], b"").await;
    for number in 101..=110 {
        let answer = http.next().await;
        assert_eq!(answer.json(201)["sequence"], number);
    }
    assert_eq!(http.next().await.json(200)["last_sequence"], 110);
}

#[tokio::test]
async fn connections_over_the_limit_are_told_to_come_back() {
    let server = TestServer::with(|config| config.max_connections = 2);
    let _websocket = server.client().await;
    let mut first = Http::connect(server.address()).await;
    first.get("/v1/subscriptions").await.json(200);
    let mut second = Http::connect(server.address()).await;
    let answer = second.get("/v1/subscriptions").await;
    assert_eq!(answer.problem(503, "limit-reached")["temporary"], true);
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(second.is_over().await);
    // A link within the server counts with the connection that it serves.
    first.get("/v1/subscriptions").await.json(200);
    drop(first);
    eventually("room for another", async || {
        let mut third = Http::connect(server.address()).await;
        third.get("/v1/subscriptions").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_before_they_are_read() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    let head =
        "POST /v1/publications HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    http.write(format!("{head}Content-Length: 1048577\r\n\r\n{{").as_bytes())
        .await;
    http.next().await.problem(413, "too-large");
    let mut http = Http::connect(server.address()).await;
    http.write(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
        .await;
    let chunk = [b"10000\r\n", &[b' '; 0x10000][..], b"\r\n"].concat();
    for _ in 0..17 {
        http.write(&chunk).await;
    }
    http.next().await.problem(413, "too-large");
    // As large as may be, in pieces.
    let mut http = Http::connect(server.address()).await;
    let many: Vec<_> = (0..4)
        .map(|_| json!({"subscription_id": "orders", "data": "x".repeat(250_000)}))
        .collect();
    let answer = http
        .json("POST", "/v1/publications", &json!({"publications": many}))
        .await;
    assert_eq!(answer.json(200)["results"][3]["Submitted"]["sequence"], 4);
}

#[tokio::test]
async fn heads_that_do_not_come_or_do_not_end_are_given_up() {
    let server = TestServer::with(|config| config.handshake_timeout = Duration::from_millis(100));
    let mut slow = Http::connect(server.address()).await;
    slow.write(b"GET /v1/subscriptions HTTP/1.1\r\nHost:").await;
    assert_eq!(slow.next().await.status, 408);
    assert!(slow.is_over().await);
    let mut long = Raw::connect(server.address(), None).await;
    long.write(b"GET /v1/subscriptions HTTP/1.1\r\nX: ").await;
    let line = [b'x'; 1 << 16];
    while long.try_write(&line).await {
        // Until it is refused, which the kernel tells some writes later.
    }
}

#[tokio::test]
async fn a_stop_answers_what_was_accepted() {
    let mut server = TestServer::start();
    let mut all = Vec::new();
    for _ in 0..20 {
        let mut http = Http::connect(server.address()).await;
        http.publish("orders", "before").await;
        let path = "/v1/subscriptions/orders/publications";
        let headers = [("Content-Type", "application/json")];
        http.send("POST", path, &headers, br#"{"data": "during"}"#)
            .await;
        all.push(http);
    }
    let stopping = server.begin_stop();
    let mut accepted = 20;
    for mut http in all {
        // Cut off is who had not been read.
        if let Some(answer) = http.try_next().await {
            match answer.status {
                201 => accepted += 1,
                // Whose session had ended before its request was read wanted another one.
                _ => {
                    let problem = answer.json(503);
                    let refused = ["shutting-down", "limit-reached"];
                    assert!(refused.iter().any(|code| problem["code"] == *code));
                }
            }
        }
    }
    stopping.await.unwrap();
    server.start_again().await;
    let mut http = Http::connect(server.address()).await;
    let meta = http.get("/v1/subscriptions/orders").await.json(200);
    assert!(meta["last_sequence"].as_u64().unwrap() >= accepted);
}

#[tokio::test]
async fn what_strangers_send_is_no_error_of_the_server() {
    let mut server = Process::start(&[("LOG", "info")]);
    for request in [
        "\u{1}nothing\r\n\r\n",
        "POST /v1/publications HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("the end", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    server.signal("-TERM");
    server.exited().await;
    let said = server.said();
    assert!(
        said.contains("SIGTERM") && !said.contains("ERROR"),
        "{said}"
    );
}
