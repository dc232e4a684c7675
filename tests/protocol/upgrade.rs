//! Section 1, before the first message: endpoint, subprotocol, origin, limits of connections.

use std::time::Duration;

use infotainer::config::AllowedOrigins;
use uuid::Uuid;

use crate::support::{Client, Raw, TestServer, eventually, get, handshake};

#[tokio::test]
async fn a_websocket_on_any_other_path_is_404() {
    let server = TestServer::start();
    for path in [
        "/",
        "/ws/",
        "/wss",
        "/WS",
        "/healthz",
        "/ws/orders",
        "/ws/00000000-0000-0000-0000-000000000000",
        "/ws/ffffffff-ffff-ffff-ffff-ffffffffffff",
        "/ws/3fa85f6457174562b3fc2c963f66afa6",
        "/ws/{3fa85f64-5717-4562-b3fc-2c963f66afa6}",
        "/ws/urn:uuid:3fa85f64-5717-4562-b3fc-2c963f66afa6",
        "/ws/3fa85f64-5717-4562-b3fc-2c963f66afa6/",
        "/ws/3fa85f64-5717-4562-b3fc-2c963f66afa6/x",
        "/ws/3fa85f64-5717-4562-b3fc-2c963f66afag",
    ] {
        let answer = handshake(server.address(), path, &[]).await;
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_session_id_in_upper_case_is_the_same_session() {
    let server = TestServer::start();
    let id = Uuid::new_v4();
    let path = format!("/ws/{}", id.to_string().to_uppercase());
    let client = Client::open(server.address(), &path, None).await;
    assert_eq!(client.welcome.uuid("session_id"), id);
}

#[tokio::test]
async fn the_handshake_is_answered_as_rfc_6455_says() {
    let server = TestServer::start();
    let answer = handshake(server.address(), "/ws", &[]).await;
    assert_eq!(answer.status, 101);
    assert_eq!(
        answer.header("Sec-WebSocket-Accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert!(
        answer
            .header("Upgrade")
            .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    );
}

#[tokio::test]
async fn another_version_of_websocket_than_13_is_refused_and_told_which() {
    let server = TestServer::start();
    for version in ["8", "12", "14", "x"] {
        let answer = handshake(
            server.address(),
            "/ws",
            &[("Sec-WebSocket-Version", version)],
        )
        .await;
        assert_eq!(answer.status, 426, "{version}");
        assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
    }
}

#[tokio::test]
async fn the_subprotocol_is_chosen_if_it_is_offered() {
    let server = TestServer::start();
    for offered in [
        "infotainer.v1.cbor",
        "infotainer.v1.json, infotainer.v1.cbor",
        "a,infotainer.v1.cbor ,b",
    ] {
        let answer = handshake(
            server.address(),
            "/ws",
            &[("Sec-WebSocket-Protocol", offered)],
        )
        .await;
        assert_eq!(answer.status, 101, "{offered}");
        assert_eq!(
            answer.header("Sec-WebSocket-Protocol"),
            Some("infotainer.v1.cbor")
        );
    }
}

#[tokio::test]
async fn a_client_that_offers_no_subprotocol_is_accepted() {
    let server = TestServer::start();
    let answer = handshake(server.address(), "/ws", &[]).await;
    assert_eq!(answer.header("Sec-WebSocket-Protocol"), None);
    answer.accepted().response().await.expect("Welcome");
}

#[tokio::test]
async fn a_client_that_offers_only_other_subprotocols_is_refused_with_400() {
    let server = TestServer::start();
    for offered in ["infotainer.v1", "mqtt, infotainer.v2.cbor"] {
        let answer = handshake(
            server.address(),
            "/ws",
            &[("Sec-WebSocket-Protocol", offered)],
        )
        .await;
        assert_eq!(answer.status, 400, "{offered}");
    }
}

#[tokio::test]
async fn no_extension_is_negotiated() {
    let server = TestServer::start();
    let offer = [("Sec-WebSocket-Extensions", "permessage-deflate")];
    let answer = handshake(server.address(), "/ws", &offer).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("Sec-WebSocket-Extensions"), None);
}

#[tokio::test]
async fn what_is_no_upgrade_is_served_on_the_same_port() {
    let server = TestServer::start();
    let (status, body) = get(server.address(), "/").await;
    assert_eq!(status, 200);
    assert!(body.contains("infotainer"), "{body}");
    assert_eq!(get(server.address(), "/healthz").await.0, 200);
    assert_eq!(get(server.address(), "/nothing").await.0, 404);
    assert_eq!(get(server.address(), "/ws").await.0, 426);
}

#[tokio::test]
async fn a_foreign_origin_is_refused_with_403() {
    let server = TestServer::start();
    for origin in [
        "https://evil.example",
        "null",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://localhost:8949",
    ] {
        let answer = handshake(server.address(), "/ws", &[("Origin", origin)]).await;
        assert_eq!(answer.status, 403, "{origin}");
    }
}

#[tokio::test]
async fn the_servers_own_origin_is_accepted() {
    let server = TestServer::start();
    let own = format!("http://{}", server.address());
    let answer = handshake(server.address(), "/ws", &[("Origin", &own)]).await;
    assert_eq!(answer.status, 101);
    let headers = [("Host", "push.example"), ("Origin", "https://push.example")];
    let behind_a_proxy = handshake(server.address(), "/ws", &headers).await;
    assert_eq!(behind_a_proxy.status, 101);
}

#[tokio::test]
async fn allowed_origins_are_accepted_and_others_are_not() {
    let server = TestServer::with(|config| {
        config.allowed_origins = AllowedOrigins::List(vec!["https://app.example".into()]);
    });
    for (origin, status) in [
        ("https://app.example", 101),
        ("http://app.example", 403),
        ("https://app.example:444", 403),
    ] {
        let answer = handshake(server.address(), "/ws", &[("Origin", origin)]).await;
        assert_eq!(answer.status, status, "{origin}");
    }
    let server = TestServer::with(|config| config.allowed_origins = AllowedOrigins::Any);
    let answer = handshake(
        server.address(),
        "/ws",
        &[("Origin", "https://any.example")],
    )
    .await;
    assert_eq!(answer.status, 101);
}

#[tokio::test]
async fn over_the_limit_of_connections_the_handshake_is_503_with_retry_after() {
    let server = TestServer::with(|config| config.max_connections = 2);
    let first = server.client().await;
    let _second = server.client().await;
    let refused = handshake(server.address(), "/ws", &[]).await;
    assert_eq!(refused.status, 503);
    let retry_after = refused.header("Retry-After").unwrap();
    assert!(retry_after.parse::<u64>().is_ok(), "{retry_after}");
    drop(refused);

    first.close().await;
    eventually("a place is free again", async || {
        handshake(server.address(), "/ws", &[]).await.status == 101
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_in_time_is_dropped() {
    let server = TestServer::with(|config| config.handshake_timeout = Duration::from_millis(200));
    for begun in ["", "GET /ws HTTP/1.1\r\nHost: x\r\nUpgra"] {
        let mut raw = Raw::connect(server.address(), None).await;
        raw.write(begun.as_bytes()).await;
        // What it may say about it is no frame; what counts is the end.
        while raw.discard(1024).await > 0 {}
    }
}

#[tokio::test]
async fn a_session_is_not_bound_to_the_handshakes_time() {
    let server = TestServer::with(|config| {
        config.handshake_timeout = Duration::from_secs(1);
        config.heartbeat_interval = Duration::from_millis(200);
    });
    let mut client = server.client().await;
    client.wait_for_pings(8).await;
    client.hears_nothing().await;
}
