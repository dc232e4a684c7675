//! `/healthz` and `/readyz`.

use std::{fs, io::Write, net::SocketAddr, process::Command};

use infotainer::{Config, Server};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{
    page::Page,
    support::{Client, Http, Process, TestServer, ask, eventually, get, handshake, within},
};

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

/// From now on no write goes behind so many bytes of a file.
#[cfg(target_os = "linux")]
fn let_writes_fail_behind(bytes: u64, server: &Process) {
    let pid = server.proc();
    let pid = pid.file_name().unwrap().to_str().unwrap();
    let limit = (bytes, rlimit::INFINITY);
    rlimit::prlimit(
        pid.parse().unwrap(),
        rlimit::Resource::FSIZE,
        Some(limit),
        None,
    )
    .unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_whose_log_can_not_be_written_is_alive_and_not_ready_until_it_is_started_again() {
    const NOT_READY: &str = "infotainer_not_ready";
    const REASON: [(&str, &str); 1] = [("reason", "log-unavailable")];
    // Without this a write over the limit is a signal that ends the program, and no error.
    let mut server = Process::start_behind("trap '' XFSZ", &[]);
    let at = server.address();
    let mut client = server.client().await;
    client.subscribe("orders", "New").await;
    let submit = || fields! { "subscription_id": "orders", "submission": vec![7; 100_000] };
    client.call("SubmitPublication", submit()).await;
    client.publication(1).await;
    assert_eq!(get(at, "/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(Page::of(at).await.value(NOT_READY, &REASON), 0.0);

    let_writes_fail_behind(1 << 20, &server);
    let mut acknowledged = 1;
    let refused = loop {
        let answer = client.ask("SubmitPublication", submit()).await;
        if answer.name == "Error" {
            break answer.expect_error("log-unavailable");
        }
        acknowledged += 1;
        client.publication(acknowledged).await;
        assert!(acknowledged < 20, "no write failed");
    };
    assert!(refused.truth("temporary"));

    let (status, body) = get(at, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.starts_with("log-unavailable: "), "{body}");
    let (status, ready) = json(at, "/readyz").await;
    assert_eq!((status, &ready["ready"]), (503, &Value::Bool(false)));
    assert_eq!(ready["reasons"].as_array().unwrap().len(), 1);
    assert_eq!(ready["reasons"][0]["reason"], "log-unavailable");
    assert_eq!(get(at, "/healthz").await.0, 200);
    let page = Page::of(at).await;
    assert_eq!(page.value("infotainer_ready", &[]), 0.0);
    assert_eq!(page.value(NOT_READY, &REASON), 1.0);
    let refusals = [("code", "log-unavailable")];
    assert!(page.value("infotainer_command_errors_total", &refusals) >= 1.0);
    assert!(server.said().contains("ERROR"), "{}", server.said());

    // Nothing is accepted any more, by no way, and what was acknowledged can be read and was delivered; nothing else was.
    let mut http = Http::connect(at).await;
    let body = serde_json::json!({ "data": "x" });
    let path = "/v1/subscriptions/orders/publications";
    http.json("POST", path, &body)
        .await
        .problem(503, "log-unavailable");
    let mut newcomer = server.client().await;
    newcomer
        .fail("log-unavailable", "SubmitPublication", submit())
        .await;
    assert_eq!(newcomer.log("orders").await.len() as u64, acknowledged);
    newcomer.subscribe("orders", "First").await;
    newcomer.publications(1..=acknowledged).await;
    client.hears_nothing().await;

    // There is room again for every file, and that changes nothing: what the last write left behind is not known before a start.
    let_writes_fail_behind(rlimit::INFINITY, &server);
    client
        .fail("log-unavailable", "SubmitPublication", submit())
        .await;
    assert_eq!(get(at, "/readyz").await.0, 503);
    server.kill();
    server.start_again();
    assert_eq!(get(server.address(), "/readyz").await.0, 200);
    let mut client = server.client().await;
    let kept = client.log("orders").await.len() as u64;
    assert!(kept >= acknowledged, "{kept} of {acknowledged}");
    let next = client.call("SubmitPublication", submit()).await;
    assert_eq!(next.number("sequence"), kept + 1);
}
