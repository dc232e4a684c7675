//! Section 9: who may come in, and what they may do.

use std::{path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use infotainer::{
    access::api_keys::KeyFile,
    config::{Config, Given},
    domain::{Permission, Permissions},
    protocol::Timestamp,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_cbor::Value;
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::{Client, Event, Fields, Process, Response, TestServer, eventually, named};

const SECRET: &str = "a secret of more than thirty-two bytes";

fn guarded() -> TestServer {
    TestServer::with(guard)
}

pub(crate) fn guard(config: &mut Config) {
    config.credentials.jwt_secret = Some(Given::Value(SECRET.into()));
}

fn now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

fn token_for(name: &str, seconds: f64, grants: serde_json::Value) -> String {
    let claims = json!({ "sub": name, "exp": now() + seconds, "infotainer": grants });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

/// Good for an hour.
pub(crate) fn token(name: &str, grants: serde_json::Value) -> String {
    token_for(name, 3600.0, grants)
}

/// Everything.
pub(crate) fn all() -> serde_json::Value {
    serde_json::to_value(Permissions::all()).unwrap()
}

pub(crate) fn bearer(token: &str) -> (&'static str, String) {
    ("Authorization", format!("Bearer {token}"))
}

pub(crate) fn offer(token: &str) -> (&'static str, String) {
    let encoded = URL_SAFE_NO_PAD.encode(token);
    let offer = format!("infotainer.bearer.{encoded}, infotainer.v1.cbor");
    ("Sec-WebSocket-Protocol", offer)
}

pub(crate) async fn connect(server: &TestServer, path: &str, token: &str) -> Result<Client, Event> {
    let mut client = Client::upgrade(server.address(), path, &[bearer(token)])
        .await
        .map_err(|status| panic!("the handshake is answered with {status}"))?;
    client.begin().await.map(|()| client)
}

pub(crate) async fn client(server: &TestServer, token: &str) -> Client {
    connect(server, "/ws", token).await.expect("Welcome")
}

async fn status(server: &TestServer, headers: &[(&'static str, String)]) -> Option<u16> {
    let upgraded = Client::upgrade(server.address(), "/ws", headers).await;
    upgraded.err()
}

pub(crate) async fn ended(mut client: Client) -> Option<u16> {
    match client.event().await {
        Event::Closed(code) => code,
        other => panic!("instead of a Close: {other:?}"),
    }
}

fn about(subscription: &str) -> Value {
    fields! { "subscription_id": subscription }
}

/// Every command but `Ping`, `ListSubscriptions` and `Authenticate`, about the Broadcast or the Queue `name`.
fn commands(broadcast: &str, queue: &str) -> Vec<(&'static str, Value)> {
    let ids = [Uuid::nil()];
    vec![
        ("Subscribe", about(broadcast)),
        (
            "SubmitPublication",
            fields! { "subscription_id": broadcast, "submission": b"x" },
        ),
        ("GetLogIndex", fields! { "log_id": broadcast }),
        ("GetLogEntries", fields! { "log_id": broadcast }),
        (
            "GetLogEntries",
            fields! { "log_id": broadcast, "entries": ids },
        ),
        (
            "Acknowledge",
            fields! { "subscription_id": queue, "publication_ids": ids },
        ),
        (
            "Reject",
            fields! { "subscription_id": queue, "publication_ids": ids },
        ),
        (
            "Extend",
            fields! { "subscription_id": queue, "publication_ids": ids },
        ),
        ("GetSubscription", about(broadcast)),
        ("CreateSubscription", about(broadcast)),
        (
            "UpdateSubscription",
            fields! { "subscription_id": broadcast, "settings": fields! {} },
        ),
        ("Unsubscribe", about(broadcast)),
        ("DeleteSubscription", about(broadcast)),
    ]
}

/// The permissions of which any allows a command.
fn needed(command: &str) -> &'static [&'static str] {
    match command {
        "Subscribe" | "Unsubscribe" => &["subscribe"],
        "SubmitPublication" => &["publish"],
        "GetLogIndex" | "GetLogEntries" => &["read"],
        "Acknowledge" | "Reject" | "Extend" => &["acknowledge"],
        "GetSubscription" => &["read", "manage"],
        "CreateSubscription" | "UpdateSubscription" | "DeleteSubscription" => &["manage"],
        other => panic!("{other} needs none"),
    }
}

fn makes(command: &str) -> bool {
    matches!(
        command,
        "Subscribe" | "SubmitPublication" | "CreateSubscription"
    )
}

/// An error without what names the subscription.
fn told(error: &Response, name: &str) -> String {
    let (code, message) = (error.text("code"), error.text("message"));
    let (fields, temporary) = (error.names(), error.truth("temporary"));
    format!("{code}: {message} {fields:?} {temporary}").replace(name, "it")
}

#[tokio::test]
async fn every_command_needs_its_permission_and_what_is_denied_looks_like_what_is_not_there() {
    let server = guarded();
    let mut owner = client(&server, &token("owner", all())).await;
    for name in ["granted.b", "theirs.b"] {
        owner.publish(name, b"x").await;
    }
    let queue = |name: &str| fields! { "subscription_id": name, "kind": "Queue" };
    for name in ["granted.q", "theirs.q"] {
        owner.call("CreateSubscription", queue(name)).await;
    }
    let granted = Permission::ALL.map(|permission| Some(permission.name()));
    for permission in [None].into_iter().chain(granted) {
        let grants = match permission {
            Some(name) => json!({ name: ["granted.*"] }),
            None => json!({}),
        };
        let mut client = client(&server, &token("somebody", grants)).await;
        for (command, fields) in commands("granted.b", "granted.q") {
            let response = client.ask(command, fields).await;
            let is_allowed = permission.is_some_and(|name| needed(command).contains(&name));
            assert_eq!(
                response.name != "Error",
                is_allowed,
                "{command} with {permission:?}: {response:?}"
            );
        }
        if permission == Some("manage") {
            owner.publish("granted.b", b"x").await;
        }
        let (theirs, absent) = (
            commands("theirs.b", "theirs.q"),
            commands("absent.b", "absent.q"),
        );
        for ((command, theirs), (_, absent)) in theirs.into_iter().zip(absent) {
            let code = if makes(command) {
                "not-authorized"
            } else {
                "not-found"
            };
            let denied = client.fail(code, command, theirs).await;
            let missing = client.fail(code, command, absent).await;
            assert_eq!(
                told(&denied, "theirs"),
                told(&missing, "absent"),
                "{command}"
            );
        }
        // These need nothing.
        client.call("Ping", fields! {}).await;
        let listed = client.call("ListSubscriptions", fields! {}).await;
        let may_see = matches!(permission, Some("read" | "manage"));
        assert_eq!(
            listed.array("subscriptions").len(),
            if may_see { 2 } else { 0 }
        );
        assert!(!listed.truth("more"));
    }
    // Nobody made anything by being denied.
    let listed = owner.call("ListSubscriptions", fields! {}).await;
    assert_eq!(listed.array("subscriptions").len(), 4);
}

#[tokio::test]
async fn a_list_that_is_filtered_is_as_long_as_it_was_asked_to_be() {
    let server = guarded();
    let mut owner = client(&server, &token("owner", all())).await;
    for number in 0..20 {
        let name = format!(
            "{}.{number}",
            if number % 2 == 0 { "mine" } else { "theirs" }
        );
        owner.publish(name, b"x").await;
    }
    let mut client = client(&server, &token("me", json!({ "read": ["mine.*"] }))).await;
    let (mut seen, mut after) = (0, None);
    loop {
        let page = client
            .call("ListSubscriptions", fields! { "after": after, "limit": 4 })
            .await;
        let page_of = page.maps("subscriptions");
        for meta in &page_of {
            assert!(meta.map("settings").text("name").starts_with("mine."));
        }
        seen += page_of.len();
        after = page_of
            .last()
            .map(|meta: &Fields| meta.uuid("subscription_id"));
        assert_eq!(page.truth("more"), seen < 10);
        if !page.truth("more") {
            break;
        }
    }
    assert_eq!(seen, 10);
}

#[tokio::test]
async fn a_prefix_reaches_what_is_called_by_its_uuid_and_nothing_else() {
    let server = guarded();
    let mut owner = client(&server, &token("owner", all())).await;
    let named = owner
        .publish("orders.eu", b"x")
        .await
        .uuid("subscription_id");
    let nameless = Uuid::new_v4();
    owner.publish(nameless, b"x").await;
    let grants = json!({ "read": ["orders.*"], "publish": ["orders.*"] });
    let mut client = client(&server, &token("me", grants)).await;
    client
        .call("GetLogIndex", fields! { "log_id": named })
        .await;
    client.publish(named, b"y").await;
    for other in [nameless, Uuid::new_v4()] {
        client
            .fail("not-found", "GetLogIndex", fields! { "log_id": other })
            .await;
        let submit = fields! { "subscription_id": other, "submission": b"x" };
        client
            .fail("not-authorized", "SubmitPublication", submit)
            .await;
    }
}

#[tokio::test]
async fn dead_letters_go_only_where_whoever_says_so_may_publish() {
    let server = guarded();
    let grants = json!({ "manage": ["jobs"], "publish": ["graveyard"] });
    let mut client = client(&server, &token("me", grants)).await;
    let jobs = |target: &str| {
        let settings = fields! { "dead_letter": target };
        fields! { "subscription_id": "jobs", "kind": "Queue", "settings": settings }
    };
    client
        .fail("not-authorized", "CreateSubscription", jobs("theirs"))
        .await;
    client.call("CreateSubscription", jobs("graveyard")).await;
    let settings = fields! { "dead_letter": "theirs" };
    let update = fields! { "subscription_id": "jobs", "settings": settings };
    client
        .fail("not-authorized", "UpdateSubscription", update)
        .await;
}

#[tokio::test]
async fn publications_carry_who_published_them() {
    let server = guarded();
    let mut alice = client(&server, &token("alice", all())).await;
    let mut bob = client(&server, &token("bob", all())).await;
    bob.subscribe("news", "New").await;
    alice.publish("news", b"x").await;
    bob.publish("news", b"y").await;
    for name in ["alice", "bob"] {
        assert_eq!(
            bob.next().await.expect("Publication").text("publisher"),
            name
        );
    }
    let log = bob.log("news").await;
    let publishers: Vec<_> = log.iter().map(|one| one.text("publisher")).collect();
    assert_eq!(publishers, ["alice", "bob"]);
}

#[tokio::test]
async fn a_token_that_is_not_good_gets_nobody_in() {
    let server = guarded();
    let good = token("alice", all());
    let (head, _) = good.rsplit_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let body = head.split_once('.').unwrap().1;
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let claims = json!({ "sub": "alice", "exp": now() + 60.0 });
    for bad in [
        format!("{head}.{}", "A".repeat(43)),
        format!("{header}.{body}."),
        encode(&Header::new(Algorithm::HS512), &claims, &key).unwrap(),
        token_for("alice", -1.0, all()),
        "ifk_0123456789abcdef_secret".to_owned(),
        "nonsense".to_owned(),
    ] {
        assert_eq!(status(&server, &[bearer(&bad)]).await, Some(401), "{bad}");
        // A page sees no status.
        let page = Client::upgrade(server.address(), "/ws", &[offer(&bad)]).await;
        assert_eq!(ended(page.unwrap()).await, Some(4501), "{bad}");
        let mut client = Client::upgrade(server.address(), "/ws", &[]).await.unwrap();
        client
            .request("Authenticate", fields! { "token": bad.as_str() })
            .await;
        assert_eq!(ended(client).await, Some(4501), "{bad}");
    }
    let basic = ("Authorization", "Basic YTpi".to_owned());
    assert_eq!(status(&server, &[basic]).await, Some(401));
    assert_eq!(
        status(&server, &[bearer(&good), offer(&good)]).await,
        Some(400)
    );
    assert_eq!(
        status(&server, &[bearer(&good), bearer(&good)]).await,
        Some(400)
    );
}

#[tokio::test]
async fn a_browsers_token_comes_as_a_subprotocol_and_is_not_said_back() {
    let server = guarded();
    let headers = [offer(&token("alice", all()))];
    let mut client = Client::upgrade(server.address(), "/ws", &headers)
        .await
        .unwrap();
    assert_eq!(client.subprotocol.as_deref(), Some("infotainer.v1.cbor"));
    client.begin().await.unwrap();
    client.publish("news", b"x").await;
}

#[tokio::test]
async fn without_a_token_in_the_handshake_nothing_is_said_before_authenticate() {
    let server = guarded();
    let mut client = Client::upgrade(server.address(), "/ws", &[]).await.unwrap();
    // Had it begun, Welcome would be in front of this.
    let token = token("alice", all());
    let id = client
        .request("Authenticate", fields! { "token": token.as_str() })
        .await;
    client.begin().await.expect("Welcome");
    let answer = client.answer(id).await.expect("Authenticated");
    assert_eq!(answer.text("name"), "alice");
    assert!(answer.number("expires") > 0);
    client.publish("news", b"x").await;

    let mut bare = Client::upgrade(server.address(), "/ws", &[]).await.unwrap();
    bare.send_bare("Authenticate", fields! { "token": token.as_str() })
        .await;
    // What comes with it waits for it.
    bare.send_bare("Ping", fields! {}).await;
    bare.begin().await.expect("Welcome");
    bare.next().await.expect("Pong");
}

#[tokio::test]
async fn whoever_says_anything_else_first_or_nothing_is_turned_away() {
    let server = TestServer::with(|config| {
        guard(config);
        config.handshake_timeout = Duration::from_millis(300);
        config.heartbeat_timeout = Duration::from_millis(100);
    });
    let upgrade = || async { Client::upgrade(server.address(), "/ws", &[]).await.unwrap() };
    let mut client = upgrade().await;
    client.send(&named("Ping", fields! {})).await;
    assert_eq!(ended(client).await, Some(4501));
    let mut client = upgrade().await;
    client.send_bytes(vec![0xff]).await;
    assert_eq!(ended(client).await, Some(4501));
    let mut client = upgrade().await;
    client.send_bytes(vec![0; 16 << 10]).await;
    assert_eq!(ended(client).await, Some(1009));
    assert_eq!(ended(upgrade().await).await, Some(4501));
}

#[tokio::test]
async fn nothing_of_a_session_is_taken_over_before_the_token() {
    let server = guarded();
    let path = format!("/ws/{}", Uuid::new_v4());
    let alices = token("alice", all());
    let mut first = connect(&server, &path, &alices).await.unwrap();
    first.publish("news", b"x").await;
    first.subscribe("news", "New").await;
    let mut second = Client::upgrade(server.address(), &path, &[]).await.unwrap();
    first.call("Ping", fields! {}).await;
    second
        .request("Authenticate", fields! { "token": alices.as_str() })
        .await;
    second.begin().await.unwrap();
    assert_eq!(first.closed().await, 4502);
    assert_eq!(second.welcome.array("subscriptions").len(), 1);
}

#[tokio::test]
async fn a_session_belongs_to_the_identity_that_made_it_after_a_restart_too() {
    let mut server = guarded();
    let path = format!("/ws/{}", Uuid::new_v4());
    let (alices, bobs) = (token("alice", all()), token("bob", all()));
    let mut alice = connect(&server, &path, &alices).await.unwrap();
    alice.publish("news", b"x").await;
    alice.subscribe("news", "New").await;
    for _ in 0..2 {
        let refused = connect(&server, &path, &bobs).await;
        assert!(matches!(refused, Err(Event::Closed(Some(4501)))));
        let mut late = Client::upgrade(server.address(), &path, &[]).await.unwrap();
        late.request("Authenticate", fields! { "token": bobs.as_str() })
            .await;
        assert_eq!(ended(late).await, Some(4501));
        // She has not noticed.
        alice.call("Ping", fields! {}).await;
        alice.close().await;
        server.restart().await;
        alice = connect(&server, &path, &alices).await.unwrap();
        assert!(alice.welcome.truth("resumed"));
    }
}

#[tokio::test]
async fn a_session_of_nobody_belongs_to_whoever_comes_first() {
    let mut server = TestServer::start();
    let session = Uuid::new_v4();
    let path = format!("/ws/{session}");
    let mut anybody = server.resume(session).await;
    anybody.publish("news", b"x").await;
    anybody.subscribe("news", "New").await;
    anybody.close().await;
    server.stop().await;
    server.configure(guard);
    server.start_again().await;
    let alice = connect(&server, &path, &token("alice", all()))
        .await
        .unwrap();
    assert!(alice.welcome.truth("resumed"));
    alice.close().await;
    let refused = connect(&server, &path, &token("bob", all())).await;
    assert!(matches!(refused, Err(Event::Closed(Some(4501)))));
}

#[tokio::test]
async fn a_connection_is_warned_before_its_token_ends_and_closed_when_it_does() {
    let server = guarded();
    let expires = now() + 2.0;
    let mut client = client(&server, &token_for("alice", 2.0, all())).await;
    let warning = client.next().await.expect("TokenExpiring");
    assert!(now() < expires);
    assert!((warning.number("expires") as f64 / 1000.0 - expires).abs() < 0.5);
    assert_eq!(client.closed().await, 4501);
    assert!(now() >= expires - 0.1);
}

#[tokio::test]
async fn another_token_keeps_the_connection_and_its_permissions_are_those_that_count() {
    let server = guarded();
    let first_ends = now() + 3.0;
    let mut client = client(&server, &token_for("alice", 3.0, all())).await;
    client.publish("news", b"x").await;
    client.subscribe("news", "New").await;
    client.publish("old", b"x").await;
    client.subscribe("old", "New").await;
    // Of another, or none: the first one stays.
    let bobs = token("bob", all());
    for bad in [bobs.as_str(), "nonsense"] {
        client
            .fail("not-authorized", "Authenticate", fields! { "token": bad })
            .await;
    }
    let grants = json!({ "subscribe": ["news"], "publish": ["news"] });
    let renewed = token("alice", grants);
    let answer = client
        .call("Authenticate", fields! { "token": renewed.as_str() })
        .await;
    assert_eq!(answer.text("name"), "alice");
    // What it may subscribe no longer is as if it had been deleted.
    let deleted = client.next().await.expect("Deleted");
    let mut owner = self::client(&server, &token("owner", all())).await;
    let old = owner.meta("old").await;
    assert_eq!(deleted.uuid("subscription_id"), old.uuid("subscription_id"));
    assert_eq!(old.number("subscribers"), 0);
    let submit = fields! { "subscription_id": "old", "submission": b"y" };
    client
        .fail("not-authorized", "SubmitPublication", submit)
        .await;
    owner.publish("old", b"y").await;
    client.publish("news", b"y").await;
    client.publication(2).await;
    eventually("the first token ends", async || now() > first_ends + 1.0).await;
    client.hears_nothing().await;
}

#[tokio::test]
async fn what_a_session_may_subscribe_no_longer_is_gone_from_it() {
    let server = guarded();
    let path = format!("/ws/{}", Uuid::new_v4());
    let mut alice = connect(&server, &path, &token("alice", all()))
        .await
        .unwrap();
    for name in ["news", "old"] {
        alice.publish(name, b"x").await;
        alice.subscribe(name, "New").await;
    }
    alice.close().await;
    let less = token("alice", json!({ "subscribe": ["news"] }));
    let alice = connect(&server, &path, &less).await.unwrap();
    assert_eq!(alice.welcome.array("subscriptions").len(), 1);
    alice.close().await;
    let alice = connect(&server, &path, &token("alice", all()))
        .await
        .unwrap();
    assert_eq!(alice.welcome.array("subscriptions").len(), 1);
}

#[tokio::test]
async fn an_open_server_takes_no_notice_of_tokens() {
    let server = TestServer::start();
    let mut client = client(&server, "nonsense").await;
    let answer = client
        .call("Authenticate", fields! { "token": "nonsense" })
        .await;
    assert!(answer.names().is_empty());
    client.publish("news", b"x").await;
}

fn keys(dir: &TempDir) -> PathBuf {
    dir.path().join("keys.json")
}

#[tokio::test]
async fn a_revoked_key_ends_its_connections_when_the_file_is_read_again() {
    let dir = TempDir::new().unwrap();
    let path = keys(&dir);
    let mut file = KeyFile::default();
    let mut add = |name: &str| {
        file.add(name.to_owned(), Permissions::all(), Timestamp(0), None)
            .unwrap()
    };
    let [stays, goes, changes] = ["stays", "goes", "changes"].map(&mut add);
    file.write(&path).unwrap();
    let server = TestServer::with(|config| config.credentials.api_keys_file = Some(path.clone()));
    let mut of_stays = client(&server, stays.reveal()).await;
    let mut of_goes = client(&server, goes.reveal()).await;
    let mut of_changes = client(&server, changes.reveal()).await;
    file.keys.remove(1);
    file.keys[1].permissions = Permissions::default();
    file.write(&path).unwrap();
    server.reload();
    assert_eq!(of_goes.closed().await, 4501);
    assert_eq!(of_changes.closed().await, 4011);
    assert_eq!(status(&server, &[bearer(goes.reveal())]).await, Some(401));
    let mut back = client(&server, changes.reveal()).await;
    let submit = fields! { "subscription_id": "news", "submission": b"x" };
    back.fail("not-authorized", "SubmitPublication", submit)
        .await;
    of_stays.publish("news", b"x").await;
}

#[tokio::test]
async fn no_log_line_holds_a_token_or_a_secret() {
    let everything = "trace,actix_http=trace,actix_server=trace";
    let mut server = Process::start(&[("JWT_SECRET", SECRET), ("LOG", everything)]);
    let good = token("alice", all());
    for headers in [vec![bearer(&good)], vec![offer(&good)], vec![]] {
        let mut client = Client::upgrade(server.address(), "/ws", &headers)
            .await
            .unwrap();
        if headers.is_empty() {
            client
                .request("Authenticate", fields! { "token": good.as_str() })
                .await;
        }
        client.begin().await.unwrap();
        client
            .call("Authenticate", fields! { "token": good.as_str() })
            .await;
        client.close().await;
    }
    let bad = good.replace('.', ".x");
    for headers in [vec![bearer(&bad)], vec![offer(&bad)]] {
        _ = Client::upgrade(server.address(), "/ws", &headers).await;
    }
    server.signal("-TERM");
    server.exited().await;
    let said = server.said();
    assert!(said.contains("a token is refused"), "{said}");
    let encoded = URL_SAFE_NO_PAD.encode(&good);
    for secret in [SECRET, &good, &good[good.len() - 20..], &encoded[..40]] {
        assert!(!said.contains(secret), "{secret} is in {said}");
    }
}

#[test]
fn what_others_can_reach_is_not_served_to_anybody_by_mistake() {
    let dir = TempDir::new().unwrap();
    let (code, said) = Process::refused(dir.path(), &[("LISTEN", "0.0.0.0:0")]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("INFOTAINER_LISTEN is 0.0.0.0:0"), "{said}");
    assert!(said.contains("INFOTAINER_ALLOW_ANONYMOUS=true"), "{said}");
    assert!(!dir.path().join("format").exists());
}
