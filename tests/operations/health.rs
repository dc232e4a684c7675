//! `/healthz` and `/readyz`.

use std::{fs, io::Write, net::SocketAddr, process::Command};

use infotainer::{Config, Server};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::{Client, TestServer, ask, eventually, get, handshake, within};

const JSON: (&str, &str) = ("Accept", "application/json");

async fn json(address: SocketAddr, path: &str) -> (u16, Value) {
    let (status, body, _) = ask(address, "GET", path, &[JSON]).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn a_server_that_works_is_alive_and_ready_and_says_which_actors_answered() {
    let server = TestServer::start();
    let (status, body) = get(server.address(), "/healthz").await;
    assert_eq!(status, 200);
    assert!(body.starts_with("ok\n"), "{body}");
    for actor in ["PubSubService", "DataLogger", "Hub 0", "Hub 1"] {
        assert!(body.contains(&format!("\n{actor} answered ")), "{body}");
    }
    let (status, health) = json(server.address(), "/healthz").await;
    assert_eq!((status, &health["alive"]), (200, &Value::Bool(true)));
    assert_eq!(health["actors"].as_array().unwrap().len(), 4);
    let first = &health["actors"][0];
    assert_eq!(first["actor"], "PubSubService");
    assert!(first["answered_seconds_ago"].as_f64().unwrap() < 30.0);
    let ready = get(server.address(), "/readyz").await;
    assert_eq!(ready, (200, "ready\n".to_owned()));
    let (status, ready) = json(server.address(), "/readyz").await;
    assert_eq!(
        (status, ready.to_string()),
        (200, r#"{"ready":true,"reasons":[]}"#.to_owned())
    );
}

#[tokio::test]
async fn head_is_answered_as_get_is_without_the_body_and_nothing_else_is() {
    let server = TestServer::start();
    for path in ["/healthz", "/readyz", "/metrics"] {
        let (status, body, headers) = ask(server.address(), "HEAD", path, &[]).await;
        assert_eq!((status, &body[..]), (200, ""), "{path}");
        assert!(!headers.is_empty());
        let (status, ..) = ask(server.address(), "POST", path, &[]).await;
        assert!(matches!(status, 404 | 405), "{path}: {status}");
    }
}

#[tokio::test]
async fn a_server_that_recovers_is_alive_and_not_ready_and_takes_nobody() {
    let mut before = TestServer::start();
    let (address, data_dir) = (before.address(), before.data_dir().to_owned());
    before.stop().await;
    // The start waits until somebody says what is in this file.
    let format = data_dir.join("format");
    let aside = data_dir.join("format-aside");
    fs::rename(&format, &aside).unwrap();
    let made = Command::new("mkfifo").arg(&format).status().unwrap();
    assert!(made.success());
    let config = Config {
        listen: address,
        data_dir,
        ..Config::default()
    };
    // On a thread that nobody waits for: a test that fails would wait for ever.
    let (ended, has_ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        _ = ended.send(Server::start(config));
    });
    eventually("the port is open", async || {
        TcpStream::connect(address).await.is_ok()
    })
    .await;

    let (status, ready) = json(address, "/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(ready["reasons"][0]["reason"], "recovering");
    let (status, body) = get(address, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.starts_with("recovering: "), "{body}");
    assert_eq!(get(address, "/healthz").await.0, 200);
    let refused = handshake(address, "/ws", &[]).await;
    assert_eq!(
        (refused.status, refused.header("Retry-After")),
        (503, Some("1"))
    );
    let (status, body) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(
        body.contains("\ninfotainer_not_ready{reason=\"recovering\"} 1\n"),
        "{body}"
    );
    let content = fs::read(&aside).unwrap();
    let mut fifo = fs::File::options().write(true).open(&format).unwrap();
    fs::rename(&aside, &format).unwrap();
    fifo.write_all(&content).unwrap();
    drop(fifo);
    let server = within("the start", has_ended).await.unwrap().unwrap();
    assert_eq!(get(address, "/readyz").await.0, 200);
    Client::connect(address).await.close().await;
    tokio::task::spawn_blocking(move || server.stop().unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_that_stops_says_so_where_it_can_still_be_asked() {
    let mut server = TestServer::with(|config| {
        config.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    });
    let probes = server.metrics_address().unwrap();
    assert_eq!(get(probes, "/readyz").await.0, 200);
    // Who takes nothing of what waits for it holds the end up for a while.
    let mut publisher = server.client().await;
    let mut stuck = Client::with_small_window(server.address()).await;
    stuck.subscribe("orders", "New").await;
    for _ in 0..40 {
        publisher.publish("orders", vec![0; 100_000]).await;
    }
    let stop = server.begin_stop();
    eventually("it says that it stops", async || {
        let (status, body) = get(probes, "/readyz").await;
        status == 503 && body.contains("stopping: ")
    })
    .await;
    assert_eq!(get(probes, "/healthz").await.0, 200);
    stuck.let_go().await;
    publisher.closed().await;
    stop.await.unwrap();
}
