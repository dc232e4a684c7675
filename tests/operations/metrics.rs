//! `/metrics`: what is told, in which form, and to whom.

use std::collections::BTreeSet;

use infotainer::{access::api_keys::KeyFile, domain::Permissions, protocol::Timestamp};
use tempfile::TempDir;

use crate::{
    page::{Page, told},
    support::{Client, TestServer, ask, get, handshake},
};

/// Lets a server do a bit of everything. One client stays, and is given back.
pub(crate) async fn work(server: &TestServer) -> Client {
    let mut client = server.client().await;
    let mut other = server.client().await;
    client.subscribe("orders", "New").await;
    other.subscribe("orders", "New").await;
    for sequence in 1..=3 {
        client.publish("orders", b"to two").await;
        client.publication(sequence).await;
        other.publication(sequence).await;
    }
    let unknown = fields! { "subscription_id": "nobody knows" };
    client.fail("not-found", "GetSubscription", unknown).await;
    client.send_bytes(vec![0xff]).await;
    client.next().await.expect_error("malformed");

    let settings = fields! { "dead_letter": "dead" };
    let queue = fields! { "subscription_id": "jobs", "kind": "Queue", "settings": settings };
    client.call("CreateSubscription", queue).await;
    let ids = client.publish_many("jobs", 4).await;
    let subscribe = fields! { "subscription_id": "jobs", "prefetch": 3 };
    other.call("Subscribe", subscribe).await;
    other.publications(1..=3).await;
    let settle = |id| fields! { "subscription_id": "jobs", "publication_ids": vec![ids[id]] };
    other.call("Acknowledge", settle(0)).await;
    other.publication(4).await;
    let dead = fields! {
        "subscription_id": "jobs", "publication_ids": vec![ids[1]], "dead_letter": true,
    };
    other.call("Reject", dead).await;
    other.call("Reject", settle(2)).await;
    other.publication(3).await;

    let refused = handshake(server.address(), "/elsewhere", &[]).await;
    assert_eq!(refused.status, 404);
    client.close().await;
    let at = server.address();
    told(at, "infotainer_connections", &[], 1.0).await;
    let dead = [("reason", "rejected")];
    told(at, "infotainer_queue_dead_letters_total", &dead, 1.0).await;
    // A dead letter is a publication, too.
    told(at, "infotainer_publications_total", &[], 8.0).await;
    other
}

#[tokio::test]
async fn what_happens_is_counted() {
    let server = TestServer::start();
    let _client = work(&server).await;
    let at = server.address();
    let page = Page::of(at).await;
    let is = |name: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(page.value(name, labels), value, "{name} {labels:?}");
    };
    let submitted = [("command", "SubmitPublication"), ("outcome", "ok")];
    is("infotainer_commands_total", &submitted, 7.0);
    let unknown = [("command", "GetSubscription"), ("outcome", "error")];
    is("infotainer_commands_total", &unknown, 1.0);
    is(
        "infotainer_commands_total",
        &[("command", "none"), ("outcome", "error")],
        1.0,
    );
    is(
        "infotainer_command_errors_total",
        &[("code", "not-found")],
        1.0,
    );
    is(
        "infotainer_command_errors_total",
        &[("code", "malformed")],
        1.0,
    );
    // To each of two subscribers three, and five leases of four publications.
    is("infotainer_deliveries_total", &[], 11.0);
    is("infotainer_queue_acknowledged_total", &[], 1.0);
    is("infotainer_queue_redeliveries_total", &[], 1.0);
    is("infotainer_queue_in_flight", &[], 2.0);
    is("infotainer_queue_pending", &[], 0.0);
    is("infotainer_subscriptions", &[("kind", "Broadcast")], 2.0);
    is("infotainer_subscriptions", &[("kind", "Queue")], 1.0);
    is("infotainer_subscribers", &[], 2.0);
    is("infotainer_subscribers_behind", &[], 0.0);
    is("infotainer_outbox_bytes", &[], 0.0);
    is("infotainer_connections_opened_total", &[], 2.0);
    is(
        "infotainer_connections_closed_total",
        &[("reason", "client")],
        1.0,
    );
    is(
        "infotainer_handshakes_refused_total",
        &[("reason", "not-found")],
        1.0,
    );
    is("infotainer_ready", &[], 1.0);
    let commits = page.value("infotainer_commit_seconds_count", &[]);
    assert!(commits >= 6.0, "{commits}");
    is("infotainer_batch_publications_count", &[], commits);
    is("infotainer_batch_publications_sum", &[], 8.0);
    let over = |name, least: f64| {
        let value = page.value(name, &[]);
        assert!(value >= least, "{name} is {value}");
    };
    over("infotainer_fsync_seconds_count", 5.0);
    over("infotainer_fsync_seconds_sum", 1e-6);
    over("infotainer_commit_seconds_sum", 1e-6);
    over("infotainer_publication_bytes_total", 8.0 * 60.0);
    over("infotainer_received_bytes_total", 500.0);
    over("infotainer_sent_bytes_total", 500.0);
    over("infotainer_log_bytes", 18.0);
    over("process_resident_memory_bytes", 1e6);
    over("process_cpu_seconds_total", 0.0);
    over("process_open_fds", 5.0);
}

#[tokio::test]
async fn figures_outlive_a_restart_where_what_they_count_does() {
    let mut server = TestServer::start();
    let client = work(&server).await;
    let before = Page::of(server.address()).await;
    client.close().await;
    server.restart().await;
    let after = Page::of(server.address()).await;
    for name in ["infotainer_log_bytes", "infotainer_segments"] {
        assert_eq!(after.value(name, &[]), before.value(name, &[]), "{name}");
    }
    // What was on lease waits again.
    assert_eq!(before.value("infotainer_queue_in_flight", &[]), 2.0);
    assert_eq!(after.value("infotainer_queue_in_flight", &[]), 0.0);
    assert_eq!(after.value("infotainer_queue_pending", &[]), 2.0);
    assert_eq!(after.value("infotainer_publications_total", &[]), 0.0);
    assert_eq!(after.value("infotainer_recovery_unclean", &[]), 0.0);
    assert!(after.value("infotainer_recovery_batches", &[]) > 0.0);
}

#[tokio::test]
async fn who_does_not_read_is_told_to_be_behind_and_by_how_much() {
    let server = TestServer::with(|config| config.outbox_size = 64 << 10);
    let mut slow = Client::with_small_window(server.address()).await;
    slow.subscribe("orders", "New").await;
    let mut publisher = server.client().await;
    for _ in 0..60 {
        publisher.publish("orders", vec![0; 100_000]).await;
    }
    let at = server.address();
    told(at, "infotainer_subscribers_behind", &[], 1.0).await;
    let page = Page::of(at).await;
    let behind = page.value("infotainer_subscribers_behind_publications", &[]);
    assert!((1.0..60.0).contains(&behind), "{behind}");
    let most = page.value("infotainer_subscribers_behind_publications_max", &[]);
    assert_eq!(most, behind);
    assert!(page.value("infotainer_outbox_bytes", &[]) > 0.0);
    assert!(page.value("infotainer_subscribers_fell_behind_total", &[]) >= 1.0);
    slow.publications(1..=60).await;
    told(at, "infotainer_subscribers_behind", &[], 0.0).await;
}

#[tokio::test]
async fn a_full_journal_that_is_sealed_is_told() {
    let server = TestServer::with(|config| {
        config.journal_size = 512 << 10;
        config.max_message_size = 128 << 10;
    });
    let mut client = server.client().await;
    for _ in 0..12 {
        client.publish("orders", vec![0; 100_000]).await;
    }
    let at = server.address();
    told(at, "infotainer_seal_seconds_count", &[], 2.0).await;
    told(at, "infotainer_journals_unsealed", &[], 0.0).await;
    let page = Page::of(at).await;
    assert_eq!(page.value("infotainer_segments", &[]), 2.0);
    let segments = page.value("infotainer_log_file_bytes", &[("file", "segment")]);
    assert!(segments > 800_000.0, "{segments}");
    let journals = page.value("infotainer_log_file_bytes", &[("file", "journal")]);
    assert!(journals >= 1024.0 * 1024.0, "{journals}");
}

#[tokio::test]
async fn both_formats_tell_the_same() {
    let server = TestServer::start();
    let _client = work(&server).await;
    let (status, body, headers) = ask(server.address(), "GET", "/metrics", &[]).await;
    assert_eq!(status, 200);
    let is_classic = |(name, value): &(String, String)| {
        name.eq_ignore_ascii_case("content-type")
            && value == "text/plain; version=0.0.4; charset=utf-8"
    };
    assert!(headers.iter().any(is_classic), "{headers:?}");
    let (classic, open) = (Page::read(&body), Page::of(server.address()).await);
    let series = |page: &Page| {
        let series = page
            .samples()
            .map(|one| (one.name.clone(), one.labels.clone()));
        series.collect::<BTreeSet<_>>()
    };
    assert_eq!(series(&classic), series(&open));
    for (name, family) in &open.0 {
        let suffix = match &family.kind[..] {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let same = &classic.0[&format!("{name}{suffix}")];
        assert_eq!(same.help, family.help);
    }
}

#[tokio::test]
async fn names_follow_the_conventions_of_prometheus() {
    let server = TestServer::start();
    let _client = work(&server).await;
    for (name, family) in Page::of(server.address()).await.0 {
        let is_word = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        assert!(is_word(&name), "{name}");
        assert!(
            name.starts_with("infotainer_") || name.starts_with("process_"),
            "{name}"
        );
        assert!(!name.ends_with("_total"), "the samples of {name} say that");
        for unit in [
            "milli", "micro", "nano", "minutes", "hours", "kib", "mib", "percent",
        ] {
            assert!(!name.contains(unit), "{name} is in no base unit");
        }
        assert!(
            family.help.ends_with('.') && family.help.len() > 10,
            "{name}: {}",
            family.help
        );
        assert!(!family.samples.is_empty(), "{name}");
        for sample in &family.samples {
            let suffixes: &[&str] = match &family.kind[..] {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_sum", "_count", "_bucket"],
                kind => panic!("{name} is a {kind}"),
            };
            let suffix = sample.name.strip_prefix(&name[..]).unwrap();
            assert!(suffixes.contains(&suffix), "{sample:?}");
            assert!(sample.value >= 0.0, "{sample:?}");
            for label in sample.labels.keys() {
                assert!(is_word(label), "{sample:?}");
            }
        }
        assert!(family.samples.len() <= 70, "{name} has many labels");
    }
}

#[tokio::test]
async fn on_the_port_of_the_clients_metrics_are_for_this_machine_and_not_for_a_proxy_on_it() {
    let server = TestServer::start();
    assert_eq!(get(server.address(), "/metrics").await.0, 200);
    for header in ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"] {
        let headers = [(header, "203.0.113.1")];
        let (status, body, _) = ask(server.address(), "GET", "/metrics", &headers).await;
        assert_eq!(status, 403, "{header}");
        assert!(body.contains("INFOTAINER_METRICS_LISTEN"), "{body}");
        let (status, ..) = ask(server.address(), "GET", "/healthz", &headers).await;
        assert_eq!(status, 200, "{header}");
    }
}

#[tokio::test]
async fn on_a_port_of_their_own_metrics_are_for_everybody_and_nowhere_else() {
    let server = TestServer::with(|config| {
        config.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    });
    let own = server.metrics_address().unwrap();
    assert_eq!(get(server.address(), "/metrics").await.0, 404);
    assert_eq!(get(server.address(), "/readyz").await.0, 200);
    let proxied = [("X-Forwarded-For", "203.0.113.1")];
    assert_eq!(ask(own, "GET", "/metrics", &proxied).await.0, 200);
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/", 404),
        ("/ws", 404),
    ] {
        assert_eq!(get(own, path).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn who_is_not_let_in_is_counted_and_who_may_manage_everything_may_read_that() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("keys");
    let mut file = KeyFile::default();
    let mut add = |name: &str, permissions| {
        let key = file.add(name.to_owned(), permissions, Timestamp(0), None);
        format!("Bearer {}", key.unwrap().reveal())
    };
    let all = add("all", Permissions::all());
    let none = add("none", Permissions::default());
    file.write(&path).unwrap();
    let server = TestServer::with(|config| config.credentials.api_keys_file = Some(path.clone()));
    let at = server.address();
    for wrong in ["Bearer nobody made this", "Bearer a.b.c", "Basic YTpi"] {
        let refused = handshake(at, "/ws", &[("Authorization", wrong)]).await;
        assert_eq!(refused.status, 401);
    }
    told(
        at,
        "infotainer_auth_failures_total",
        &[("reason", "invalid")],
        3.0,
    )
    .await;
    assert_eq!(get(at, "/v1/subscriptions").await.0, 401);
    told(
        at,
        "infotainer_auth_failures_total",
        &[("reason", "missing")],
        1.0,
    )
    .await;
    told(
        at,
        "infotainer_handshakes_refused_total",
        &[("reason", "not-authorized")],
        3.0,
    )
    .await;
    for (token, status) in [(&all, 200), (&none, 403)] {
        let headers = [
            ("X-Forwarded-For", "203.0.113.1"),
            ("Authorization", &token[..]),
        ];
        assert_eq!(ask(at, "GET", "/metrics", &headers).await.0, status);
    }
}
