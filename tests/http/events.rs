//! Server-sent events: a subscription as a stream.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;

use crate::support::{Http, PATIENCE, Process, TestServer, eventually, within};

#[tokio::test]
async fn publications_come_as_messages_with_ids_to_come_back_with() {
    let server = TestServer::start();
    let mut publisher = Http::connect(server.address()).await;
    publisher.publish("orders", "1").await;
    let mut stream = Http::connect(server.address()).await;
    let head = stream.subscribe("orders", "?from=first", &[]).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("cache-control"), Some("no-store"));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    let subscribed = stream.event().await.unwrap();
    assert_eq!(subscribed.name, "subscribed");
    assert_eq!(subscribed.data["recovered"], true);
    assert!(
        subscribed
            .retry
            .is_some_and(|millis| (1_000..5_000).contains(&millis))
    );
    let epoch = subscribed.data["epoch"].as_str().unwrap().to_owned();
    assert_eq!(subscribed.id, Some(format!("{epoch}:0")));
    let first = stream.event().await.unwrap();
    assert_eq!((&*first.name, &first.data["data"]), ("", &json!("1")));
    assert_eq!(first.id, Some(format!("{epoch}:1")));
    publisher.publish("orders", "2").await;
    assert_eq!(stream.event().await.unwrap().data["sequence"], 2);

    // Who comes back goes on behind what it has seen, wherever `from` points.
    drop(stream);
    publisher.publish("orders", "3").await;
    let mut stream = Http::connect(server.address()).await;
    let last = format!("{epoch}:2");
    stream
        .subscribe("orders", "?from=first", &[("Last-Event-ID", &last)])
        .await
        .json_head();
    assert_eq!(stream.event().await.unwrap().data["cursor"], 2);
    assert_eq!(stream.event().await.unwrap().data["sequence"], 3);
}

trait Head {
    fn json_head(self);
}

impl Head for crate::support::Answer {
    #[track_caller]
    fn json_head(self) {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
    }
}

#[tokio::test]
async fn a_stream_begins_where_it_is_told() {
    let server = TestServer::start();
    let mut publisher = Http::connect(server.address()).await;
    for number in 1..=5 {
        publisher.publish("orders", &number.to_string()).await;
    }
    for (query, cursor) in [
        ("", 5),
        ("?from=new", 5),
        ("?from=first", 0),
        ("?from=4", 3),
        ("?from=-2", 3),
    ] {
        let mut stream = Http::connect(server.address()).await;
        stream.subscribe("orders", query, &[]).await.json_head();
        assert_eq!(
            stream.event().await.unwrap().data["cursor"],
            cursor,
            "{query}"
        );
    }
    let mut http = Http::connect(server.address()).await;
    for query in ["?from=", "?from=last", "?from=0", "?payload=x"] {
        http.subscribe("orders", query, &[])
            .await
            .problem(400, "invalid-argument");
    }
    let headers = [("Last-Event-ID", "7")];
    http.subscribe("orders", "", &headers)
        .await
        .problem(400, "invalid-argument");
}

#[tokio::test]
async fn what_retention_took_is_told_as_a_gap() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    let settings = json!({"settings": {"retention": {"max_publications": 2}}});
    http.json("PUT", "/v1/subscriptions/orders", &settings)
        .await
        .json(200);
    for number in 1..=5 {
        http.publish("orders", &number.to_string()).await;
    }
    let epoch = http.get("/v1/subscriptions/orders").await.json(200)["epoch"].clone();
    eventually("retention", async || {
        let meta = http.get("/v1/subscriptions/orders").await.json(200);
        meta["first_sequence"] == 4
    })
    .await;
    let last = format!("{}:1", epoch.as_str().unwrap());
    let mut stream = Http::connect(server.address()).await;
    stream
        .subscribe("orders", "", &[("Last-Event-ID", &last)])
        .await
        .json_head();
    assert_eq!(stream.event().await.unwrap().data["recovered"], false);
    let gap = stream.event().await.unwrap();
    assert_eq!(gap.name, "gap");
    assert_eq!((&gap.data["from"], &gap.data["to"]), (&json!(2), &json!(3)));
    assert_eq!(gap.data["cause"], "retention");
    assert!(gap.id.unwrap().ends_with(":3"));
    assert_eq!(stream.event().await.unwrap().data["sequence"], 4);
}

#[tokio::test]
async fn a_deleted_subscription_ends_the_stream_for_good() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    http.publish("orders", "1").await;
    let mut stream = Http::connect(server.address()).await;
    stream
        .subscribe("orders", "?from=first", &[])
        .await
        .json_head();
    stream.event().await.unwrap();
    let last = stream.event().await.unwrap().id.unwrap();
    http.ask("DELETE", "/v1/subscriptions/orders", &[], b"")
        .await;
    assert_eq!(stream.event().await.unwrap().name, "deleted");
    assert_eq!(stream.event().await, None);
    let answer = http
        .subscribe("orders", "", &[("Last-Event-ID", &last)])
        .await;
    assert_eq!(answer.status, 204);
    // Made again, it is another life: what is kept of it comes from its beginning.
    http.publish("orders", "new").await;
    let mut stream = Http::connect(server.address()).await;
    stream
        .subscribe("orders", "", &[("Last-Event-ID", &last)])
        .await
        .json_head();
    let subscribed = stream.event().await.unwrap();
    assert_eq!(
        (&subscribed.data["recovered"], &subscribed.data["cursor"]),
        (&json!(false), &json!(0))
    );
    assert_eq!(stream.event().await.unwrap().data["data"], "new");
}

#[tokio::test]
async fn a_queue_is_no_stream_of_events() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    http.json("PUT", "/v1/subscriptions/jobs", &json!({"kind": "Queue"}))
        .await
        .json(200);
    http.subscribe("jobs", "", &[])
        .await
        .problem(409, "kind-mismatch");
    // What was refused has ended its subscriber.
    assert_eq!(
        http.get("/v1/subscriptions/jobs").await.json(200)["subscribers"],
        0
    );
}

#[tokio::test]
async fn a_stream_ends_with_its_client() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    let mut stream = Http::connect(server.address()).await;
    stream.subscribe("orders", "", &[]).await.json_head();
    stream.event().await.unwrap();
    assert_eq!(
        http.get("/v1/subscriptions/orders").await.json(200)["connected"],
        1
    );
    drop(stream);
    eventually("its end", async || {
        let meta = http.get("/v1/subscriptions/orders").await.json(200);
        meta["connected"] == 0
    })
    .await;
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_by_comments() {
    let server = TestServer::with(|config| {
        config.heartbeat_interval = Duration::from_millis(50);
        config.heartbeat_timeout = Duration::from_millis(50);
    });
    let mut stream = Http::connect(server.address()).await;
    stream.subscribe("orders", "", &[]).await.json_head();
    stream.event().await.unwrap();
    for _ in 0..5 {
        // Longer than a WebSocket could be silent.
        stream.comment().await;
    }
    Http::connect(server.address())
        .await
        .publish("orders", "1")
        .await;
    assert_eq!(stream.event().await.unwrap().data["sequence"], 1);
}

#[tokio::test]
async fn a_slow_reader_loses_nothing_and_holds_nobody_up() {
    const COUNT: usize = 200;
    const LEN: usize = 40_000;
    let server = TestServer::with(|config| config.outbox_size = 64 << 10);
    let mut stream = Http::with_small_window(server.address()).await;
    stream.subscribe("orders", "", &[]).await.json_head();
    let mut publisher = Http::connect(server.address()).await;
    for number in 0..COUNT {
        let data = format!("{number}:{}", "x".repeat(LEN));
        assert_eq!(publisher.publish("orders", &data).await, number as u64 + 1);
    }
    stream.event().await.unwrap();
    for number in 0..COUNT {
        let event = stream.event().await.unwrap();
        assert_eq!(event.name, "", "{}", event.data);
        assert_eq!(event.data["sequence"], number + 1);
        let data = event.data["data"].as_str().unwrap();
        assert!(data.starts_with(&format!("{number}:")) && data.len() > LEN);
    }
}

#[tokio::test]
async fn who_takes_nothing_at_all_is_given_up() {
    let server = TestServer::with(|config| {
        config.outbox_size = 64 << 10;
        config.write_timeout = Duration::from_millis(500);
    });
    let mut stream = Http::with_small_window(server.address()).await;
    stream.subscribe("orders", "", &[]).await.json_head();
    let mut publisher = Http::connect(server.address()).await;
    let data = "x".repeat(100_000);
    eventually("the end of the stream", async || {
        publisher.publish("orders", &data).await;
        publisher.get("/v1/subscriptions/orders").await.json(200)["connected"] == 0
    })
    .await;
}

#[tokio::test]
async fn json_of_many_lines_is_one_event() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client
        .publish("orders", &b"{\"a\":\n1,\r\"b\":\r\n2}"[..])
        .await;
    let mut stream = Http::connect(server.address()).await;
    stream
        .subscribe("orders", "?from=1&payload=json", &[])
        .await
        .json_head();
    stream.event().await.unwrap();
    let event = stream.event().await.unwrap();
    assert_eq!(event.data["data_json"], json!({"a": 1, "b": 2}));
}

#[tokio::test]
async fn a_stop_ends_streams_and_says_so() {
    let mut server = TestServer::start();
    let mut stream = Http::connect(server.address()).await;
    stream.subscribe("orders", "", &[]).await.json_head();
    stream.event().await.unwrap();
    let mut idle = Http::connect(server.address()).await;
    idle.publish("orders", "1").await;
    let stopping = server.begin_stop();
    assert_eq!(stream.event().await.unwrap().data["sequence"], 1);
    let closed = stream.event().await.unwrap();
    assert_eq!(
        (&*closed.name, &closed.data["code"]),
        ("closed", &json!(1001))
    );
    assert_eq!(stream.event().await, None);
    within("the stop", stopping).await.unwrap();
    assert!(idle.is_over().await);
}

#[test]
fn curl_follows_a_stream() {
    if Command::new("curl").arg("--version").output().is_err() {
        assert!(env::var_os("CI").is_none(), "curl is missing");
        return;
    }
    let server = Process::start(&[]);
    let url = format!("http://{}/v1/subscriptions/greetings", server.address());
    let patience = PATIENCE.as_secs().to_string();
    let mut stream = Command::new("curl")
        .args(["--silent", "--no-buffer", "--max-time", &patience])
        .arg(format!("{url}/events?from=first"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    let published = Command::new("curl")
        .args(["--silent", "--fail", "--max-time", &patience])
        .args(["--json", r#"{"data": "hello from curl"}"#])
        .arg(format!("{url}/publications"))
        .output()
        .unwrap();
    assert!(published.status.success());
    let is_it = |line: &str| line.contains("\"data\":\"hello from curl\"");
    assert!(lines.any(|line| is_it(&line.unwrap())));
    stream.kill().unwrap();
    stream.wait().unwrap();
}
