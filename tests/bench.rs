//! `infotainer bench` against a server: what it says, what it leaves behind, and with what it ends.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[macro_use]
mod support;

use std::{
    net::TcpListener,
    process::{Child, Output, Stdio},
    time::Duration,
};

use assert_cmd::{Command, cargo::cargo_bin};
use serde_json::Value;
use support::{TestServer, eventually};

const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

/// A server, and loads on it.
struct Served(TestServer);

fn serve() -> Served {
    Served(TestServer::start())
}

impl Served {
    fn url(&self) -> String {
        format!("ws://{}/ws", self.0.address())
    }

    fn bench(&self, args: &[&str]) -> Output {
        bench(&self.url(), args)
    }

    fn figures(&self, args: &[&str]) -> Value {
        figures(&self.bench(&[args, &["--json"]].concat()))
    }

    /// A load that goes on while others are put on the server.
    fn begin(&self, args: &[&str]) -> Child {
        std::process::Command::new(cargo_bin!("infotainer"))
            .arg("bench")
            .args(args)
            .arg("--json")
            .env("INFOTAINER_URL", self.url())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

fn figures(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// These are latencies: each percentile that is told is no smaller than the one before.
fn assert_told(latencies: &Value) {
    let told = PERCENTILES.map(|name| latencies[name].as_f64().unwrap());
    assert!(told[0] > 0.0 && told.is_sorted(), "{latencies}");
}

fn bench(url: &str, args: &[&str]) -> Output {
    let mut command = Command::new(cargo_bin!("infotainer"));
    command.arg("bench").args(args).env("INFOTAINER_URL", url);
    command.output().unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
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
    assert_eq!(figures["in_flight"], 5);
    assert_eq!(figures["schedule"], Value::Null);
    assert_told(&figures["latency_us"]);
}

#[test]
fn pub_at_a_rate_publishes_as_much_as_is_due_and_tells_how_late_it_was() {
    let served = serve();
    let load = ["pub", "--publishers", "3", "--rate", "2000"];
    let figures = served.figures(&[&load[..], &["--duration", "250ms", "--size", "3"]].concat());
    assert_eq!(figures["acknowledged"], 500);
    assert_eq!(figures["errors"], 0);
    assert_eq!(figures["in_flight"], Value::Null);
    assert_told(&figures["latency_us"]);
    let schedule = &figures["schedule"];
    assert_eq!(schedule["rate"], 2000);
    // The schedule says when it ends; nothing is sent before its time.
    assert!(schedule["sent_per_second"].as_f64().unwrap() <= 2000.1);
    assert!(
        PERCENTILES
            .iter()
            .all(|name| schedule["late_us"][name].is_f64())
    );
    assert!(schedule["held_back"].is_u64());
}

#[test]
fn pub_says_which_loop_its_latencies_are_of() {
    let served = serve();
    let closed = served.bench(&["pub", "--count", "10"]);
    assert!(printed(&closed).contains("a closed loop"), "{closed:?}");
    let open = served.bench(&["pub", "--count", "10", "--rate", "1000"]);
    for part in ["an open loop", "p99.9 ", "from when it was due"] {
        assert!(printed(&open).contains(part), "{open:?}");
    }
}

#[test]
fn latency_is_told_of_every_acknowledgement_and_every_delivery() {
    let served = serve();
    let load = ["latency", "--publishers", "2", "--subscribers", "5"];
    let rate = ["--rate", "1000", "--count", "200"];
    for durability in ["Synced", "Memory"] {
        let durability = ["--durability", durability];
        let figures = served.figures(&[&load[..], &rate, &durability].concat());
        assert_eq!(figures["published"], 200);
        assert_eq!(figures["acknowledged"], 200);
        assert_eq!(figures["deliveries"], 1000);
        assert_eq!(figures["holes"], 0);
        assert_eq!(figures["peers"], Value::Null);
        assert_told(&figures["latency_us"]);
        assert_told(&figures["delivery_latency_us"]);
    }
}

#[test]
fn peers_that_do_what_no_good_one_does_take_nothing_from_the_others() {
    let served = serve();
    let load = ["latency", "--subscribers", "3", "--rate", "500"];
    let bulk = ["--count", "100", "--size", "20KiB"];
    let peers = [
        "--stalled",
        "2",
        "--slow",
        "1",
        "--slow-rate",
        "100",
        "--half-open",
        "1",
        "--deaf",
        "1",
    ];
    let figures = served.figures(&[&load[..], &bulk, &peers].concat());
    assert_eq!(figures["deliveries"], 300);
    assert_eq!(figures["holes"], 0);
    let peers = &figures["peers"];
    for (kind, count) in [("stalled", 2), ("slow", 1), ("half_open", 1), ("deaf", 1)] {
        assert_eq!(peers[kind], count);
    }
    // None of them was away for as long as it takes to notice.
    assert_eq!(peers["subscribed_at_end"], 4);
}

#[test]
fn who_is_stuck_or_gone_is_given_up_meanwhile_and_who_is_slow_is_not() {
    let served = Served(TestServer::with(|config| {
        config.heartbeat_interval = Duration::from_millis(500);
        config.heartbeat_timeout = Duration::from_secs(1);
    }));
    // Long enough for the server to wait in vain, to close, and to wait in vain for the answer to that.
    let load = ["latency", "--subscribers", "2", "--rate", "100"];
    let bulk = ["--duration", "6s", "--size", "8KiB"];
    let slow = ["--slow", "1", "--slow-rate", "100KiB"];
    let gone = ["--stalled", "1", "--half-open", "1"];
    let figures = served.figures(&[&load[..], &bulk, &slow, &gone].concat());
    assert_eq!(figures["deliveries"], 1_200);
    assert_eq!(figures["peers"]["subscribed_at_end"], 1);
}

#[test]
fn sub_receives_what_others_publish() {
    let served = serve();
    let names = ["--subscription", "news", "--subscriptions", "3"];
    let end = ["--from", "first", "--count", "600"];
    let sub = ["sub", "--subscribers", "6"];
    // Whichever is first.
    let receiving = served.begin(&[&sub[..], &names, &end].concat());
    served.figures(&[&["pub", "--count", "300", "--keep"][..], &names].concat());
    let received = figures(&receiving.wait_with_output().unwrap());
    assert_eq!(received["deliveries"], 600);
    assert_eq!(received["bytes"], 600 * 128);
    for nothing in ["gaps", "missing", "holes", "deleted"] {
        assert_eq!(received[nothing], 0, "{nothing}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sub_ends_with_its_subscription_and_says_so_if_that_was_too_early() {
    let served = serve();
    let mut client = served.0.client().await;
    for (count, code) in [("10", 0), ("11", 1)] {
        let receiving = served.begin(&["sub", "--subscription", "news", "--count", count]);
        eventually("it subscribes", async || {
            let fields = fields! { "subscription_id": "news" };
            let meta = client.ask("GetSubscription", fields).await;
            meta.name == "SubscriptionMeta" && meta.number("connected") == 1
        })
        .await;
        let load = ["pub", "--subscription", "news", "--count", "10"];
        let url = served.url();
        tokio::task::spawn_blocking(move || {
            figures(&bench(&url, &[&load[..], &["--json"]].concat()))
        })
        .await
        .unwrap();
        let output = receiving.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let received: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(received["deliveries"], 10);
    }
}

#[test]
fn sub_ends_by_its_time_behind_the_first_delivery() {
    let served = serve();
    let name = ["--subscription", "news"];
    served.figures(&[&["pub", "--count", "20", "--keep"][..], &name].concat());
    let load = ["sub", "--from", "first", "--duration", "100ms"];
    let received = served.figures(&[&load[..], &name].concat());
    assert_eq!(received["deliveries"], 20);
}

#[test]
#[cfg(target_os = "linux")]
fn the_servers_process_is_found_by_its_end_of_a_connection() {
    let served = serve();
    let load = ["fanout", "--subscribers", "2", "--count", "10"];
    let found = &served.figures(&load)["server_cpu"];
    assert_eq!(found["process"]["pid"], std::process::id());
    assert!(found["seconds"].is_f64());
    // It may be another one that is meant, such as the server behind a proxy.
    let init = served.figures(&[&load[..], &["--pid", "1"]].concat());
    assert_eq!(init["server_cpu"]["process"]["pid"], 1);
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
    let figures = served.figures(&["idle", "--connections", "20", "--duration", "10ms"]);
    assert!(figures["resident_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn idle_connections_may_have_several_subscriptions_and_no_more_than_there_are() {
    let served = serve();
    let several = ["idle", "--connections", "5", "--subscriptions", "4"];
    let several = [&several[..], &["--duration", "10ms", "--each"]].concat();
    let figures = served.figures(&[&several[..], &["3"]].concat());
    assert_eq!(figures["subscriptions_of_each"], 3);
    let output = bench(&served.url(), &[&several[..], &["5"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--each 5"), "{output:?}");
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
        &["sub"],
        &["sub", "--subscription", "a", "--from", "last"],
        &["pub", "--rate", "0"],
        &["pub", "--rate", "1", "--in-flight", "1"],
        &["pub", "--rate", "1000000", "--duration", "2h"],
        &["latency", "--size", "3"],
    ] {
        let output = bench("ws://127.0.0.1:1/ws", args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
