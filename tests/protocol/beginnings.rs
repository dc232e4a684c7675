//! Section 9: connections that come to nothing at their beginning, and what becomes of who comes just when its credentials go.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use infotainer::{access::api_keys::KeyFile, domain::Permissions, protocol::Timestamp};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    access::{all, bearer, connect, ended, guard, token},
    support::{Client, Event, TestServer, eventually, get, within},
};

/// A connection that has said for whom it speaks, and has not heard whether that is good.
async fn begun(server: &TestServer, path: &str, token: &str) -> Client {
    let mut client = Client::upgrade(server.address(), path, &[]).await.unwrap();
    let fields = fields! { "token": token };
    client.request("Authenticate", fields).await;
    client
}

#[tokio::test]
async fn beginnings_that_come_to_nothing_leave_nothing_under_way() {
    let server = TestServer::with(|config| {
        guard(config);
        config.limits.identity.max_connections = Some(1);
    });
    let [alices, bobs] = ["alice", "bob"].map(|name| token(name, all()));
    let path = format!("/ws/{}", Uuid::new_v4());
    let mut first = connect(&server, &path, &alices).await.unwrap();
    first.subscribe("news", "New").await;
    // Of another identity, one too many, and gone before it was heard.
    for _ in 0..5 {
        let foreign = begun(&server, &path, &bobs).await;
        assert_eq!(ended(foreign).await, Some(4501));
        let crowded = begun(&server, "/ws", &alices).await;
        assert_eq!(ended(crowded).await, Some(4010));
        drop(begun(&server, "/ws", &bobs).await);
    }
    // Each takes the place of the one before, in whatever order they are heard; some of those wait for their Welcome still.
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(begun(&server, &path, &alices).await);
    }
    let mut welcomed = Vec::new();
    for mut one in crowd {
        match one.event().await {
            // Never that its token was good, and then no Welcome.
            Event::Response(response) => {
                assert_eq!(response.name, "Welcome");
                welcomed.push(one);
            }
            Event::Closed(code) => assert_eq!(code, Some(4502)),
            Event::Ended(why) => panic!("ended without a Close: {why}"),
        }
    }
    let mut last = connect(&server, &path, &alices).await.unwrap();
    assert!(last.welcome.truth("resumed"));
    for mut one in welcomed {
        assert_eq!(one.closed().await, 4502);
    }
    eventually("nothing is under way", async || {
        let (status, page) = get(server.address(), "/metrics").await;
        assert_eq!(status, 200);
        page.contains("\ninfotainer_commands_under_way_bytes 0\n")
    })
    .await;
    last.publish("news", b"x").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_just_when_its_key_is_revoked_does_not_stay() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("keys.json");
    KeyFile::default().write(&path).unwrap();
    let server = Arc::new(TestServer::with(|config| {
        config.credentials.api_keys_file = Some(path.clone());
    }));
    for round in 0..10 {
        let mut file = KeyFile::default();
        let key = file.add("alice".to_owned(), Permissions::all(), Timestamp(0), None);
        let key: Arc<str> = key.unwrap().reveal().into();
        file.write(&path).unwrap();
        assert!(server.reload());
        let arrived = Arc::new(AtomicUsize::new(0));
        let come = |number: usize| {
            let (server, key) = (Arc::clone(&server), Arc::clone(&key));
            let arrived = Arc::clone(&arrived);
            tokio::spawn(async move {
                let mut client = if number.is_multiple_of(2) {
                    begun(&server, "/ws", &key).await
                } else {
                    let headers = [bearer(&key)];
                    match Client::upgrade(server.address(), "/ws", &headers).await {
                        Ok(client) => client,
                        Err(status) => return assert_eq!(status, 401),
                    }
                };
                arrived.fetch_add(1, Relaxed);
                // Welcome, perhaps, and its answer; and then no more.
                loop {
                    match client.event().await {
                        Event::Response(response) => assert_ne!(response.name, "Error"),
                        Event::Closed(code) => return assert_eq!(code, Some(4501)),
                        Event::Ended(why) => panic!("ended without a Close: {why}"),
                    }
                }
            })
        };
        let coming: Vec<_> = (0..10).map(come).collect();
        eventually("some have come", async || arrived.load(Relaxed) >= round).await;
        KeyFile::default().write(&path).unwrap();
        assert!(server.reload());
        for one in coming {
            within("its end", one).await.unwrap();
        }
    }
}
