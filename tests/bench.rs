//! `infotainer bench` against a server: what it says, what it leaves behind, and with what it ends.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{net::TcpListener, process::Output};

use assert_cmd::Command;
use infotainer::{Config, RunningServer, Server};
use serde_json::Value;
use tempfile::TempDir;

/// A server that stops before its data directory goes.
struct Served {
    server: Option<RunningServer>,
    url: String,
    _data_dir: TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let stopped = self.server.take().map(RunningServer::stop);
        // A test that failed says more than its server.
        assert!(std::thread::panicking() || matches!(stopped, Some(Ok(()))));
    }
}

fn serve() -> Served {
    let data_dir = tempfile::tempdir().unwrap();
    let server = Server::start(Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: data_dir.path().into(),
        ..Config::default()
    })
    .unwrap();
    Served {
        url: format!("ws://{}/ws", server.address()),
        server: Some(server),
        _data_dir: data_dir,
    }
}

impl Served {
    fn bench(&self, args: &[&str]) -> Output {
        bench(&self.url, args)
    }

    fn figures(&self, args: &[&str]) -> Value {
        let output = self.bench(&[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn bench(url: &str, args: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("infotainer"));
    command.arg("bench").args(args).env("INFOTAINER_URL", url);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn pub_publishes_what_it_was_told_to_and_each_is_acknowledged() {
    let served = serve();
    let load = [
        "pub",
        "--publishers",
        "3",
        "--in-flight",
        "5",
        "--count",
        "1000",
    ];
    let figures = served.figures(&[&load[..], &["--subscriptions", "7"]].concat());
    assert_eq!(figures["acknowledged"], 1000);
    assert_eq!(figures["errors"], 0);
    assert!(figures["latency_us"]["p99.9"].as_f64().unwrap() > 0.0);
}

#[test]
fn fanout_delivers_everything_to_everybody_whatever_the_window() {
    let served = serve();
    for window in ["1", "64"] {
        let load = [
            "fanout",
            "--subscribers",
            "5",
            "--count",
            "200",
            "--window",
            window,
        ];
        for durability in ["Synced", "Memory"] {
            let figures = served.figures(&[&load[..], &["--durability", durability]].concat());
            assert_eq!(figures["deliveries"], 1000);
            assert_eq!(figures["holes"], 0);
        }
    }
}

#[test]
fn what_is_kept_can_be_replayed_and_is_not_deleted_by_another_load() {
    let served = serve();
    let kept = ["--subscription", "kept"];
    served.figures(&[&["pub", "--count", "300", "--keep"][..], &kept].concat());

    let refused = served.bench(&[&["pub", "--count", "1"][..], &kept].concat());
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("--keep"), "{refused:?}");

    let load = ["replay", "--subscribers", "2"];
    let figures = served.figures(&[&load[..], &kept].concat());
    assert_eq!(figures["deliveries"], 600);
}

#[test]
fn a_load_leaves_nothing_behind() {
    let served = serve();
    let load = ["--count", "10", "--subscription", "gone"];
    served.figures(&[&["pub"][..], &load].concat());
    let output = served.bench(&["replay", "--subscription", "gone"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("not-found"), "{output:?}");
}

#[test]
fn idle_tells_what_a_connection_costs() {
    let served = serve();
    let pid = std::process::id().to_string();
    let load = ["idle", "--connections", "20", "--duration", "10ms"];
    let figures = served.figures(&[&load[..], &["--pid", &pid]].concat());
    assert!(figures["resident_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn what_can_not_be_done_ends_with_1_and_a_sentence() {
    let nobody_listens = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("ws://{}/ws", listener.local_addr().unwrap())
    };
    let output = bench(&nobody_listens, &["pub"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("can't connect"), "{output:?}");

    let served = serve();
    let too_long = [
        "fanout",
        "--subscribers",
        "1",
        "--duration",
        "1h",
        "--timeout",
        "50ms",
    ];
    let output = served.bench(&too_long);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("within 50ms"), "{output:?}");
}

#[test]
fn a_load_that_can_not_be_meant_ends_with_2() {
    for args in [
        &["pub", "--server", "http://127.0.0.1:1/ws"][..],
        &["pub", "--count", "0"],
        &["pub", "--count", "1", "--duration", "1s"],
        &["fanout", "--size", "1GiB"],
        &["replay"],
    ] {
        let output = bench("ws://127.0.0.1:1/ws", args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
