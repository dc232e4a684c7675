//! The server as a part of another program.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[macro_use]
mod support;

use std::{collections::BTreeMap, fs};

use support::TestServer;

/// How many threads of this process have which name.
fn threads() -> BTreeMap<String, usize> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        // A thread may end meanwhile.
        if let Ok(name) = fs::read_to_string(task.unwrap().path().join("comm")) {
            *threads.entry(name.trim().to_owned()).or_insert(0) += 1;
        }
    }
    threads
}

// The only test of this binary: threads are counted.
#[tokio::test]
async fn servers_live_side_by_side_and_leave_no_thread_behind() {
    let ours = |threads: BTreeMap<String, usize>| {
        let ours = ["actix", "infotainer", "datalog"];
        let of_ours = threads
            .into_iter()
            .filter(|(name, _)| ours.iter().any(|ours| name.starts_with(ours)));
        of_ours.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(ours(threads()), BTreeMap::new());
    for _ in 0..3 {
        let mut one = TestServer::start();
        let mut other = TestServer::start();
        let mut client_of_one = one.client().await;
        let mut client_of_other = other.client().await;
        client_of_one.publish("orders", b"x").await;
        let fields = fields! { "subscription_id": "orders" };
        client_of_other
            .fail("not-found", "GetSubscription", fields)
            .await;
        assert!(!ours(threads()).is_empty());
        drop((client_of_one, client_of_other));
        one.stop().await;
        other.stop().await;
        support::eventually("their threads are gone", async || {
            ours(threads()).is_empty()
        })
        .await;
    }
}
