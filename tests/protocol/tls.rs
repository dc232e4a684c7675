//! Section 1 over TLS: handshakes, what is refused, certificates that change, and what heartbeat and limits make of it.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use rustls::{ClientConfig, pki_types::CertificateDer, version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Authority, Client, Event, Process, Raw, Secured, TestServer, connect_over_tls, eventually, get,
    trusting, trusting_with, within,
};

fn server_with(secured: &Secured) -> TestServer {
    TestServer::with(|config| config.tls = Some(secured.files()))
}

/// The certificate that the server shows to somebody who comes now.
async fn shown(server: &TestServer, client: &Arc<ClientConfig>) -> CertificateDer<'static> {
    // Not one that resumes what it began before, and is shown none.
    let mut client = ClientConfig::clone(client);
    client.resumption = rustls::client::Resumption::disabled();
    let stream = connect_over_tls(server.address(), &Arc::new(client))
        .await
        .unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// What comes until the server ends the connection, which it has to say: an end without a word would be an error.
async fn rest(mut stream: impl AsyncReadExt + Unpin) -> String {
    let mut rest = String::new();
    within("the end", stream.read_to_string(&mut rest))
        .await
        .unwrap();
    rest
}

#[tokio::test]
async fn both_versions_of_tls_carry_the_protocol() {
    let secured = Secured::new();
    let server = server_with(&secured);
    for version in [&version::TLS12, &version::TLS13] {
        let roots = secured.client();
        let mut client = ClientConfig::builder_with_provider(Arc::clone(roots.crypto_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(secured.roots())
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = Arc::new(client);
        let stream = connect_over_tls(server.address(), &client).await.unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.protocol_version(), Some(version.version));
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));

        let mut client = Client::over_tls(server.address(), &client, None).await;
        let name = format!("{:?}", version.version);
        client.subscribe(&*name, "New").await;
        client.publish_many(&name, 100).await;
        client.publications(1..=100).await;
        client.close().await;
    }
}

#[tokio::test]
async fn large_messages_arrive_whole_both_ways() {
    let secured = Secured::new();
    let server = TestServer::with(|config| {
        config.tls = Some(secured.files());
        config.max_message_size = 4 << 20;
    });
    let tls = secured.client();
    let mut subscriber = Client::over_tls(server.address(), &tls, Some(16 << 10)).await;
    subscriber.subscribe("large", "New").await;
    let mut publisher = Client::over_tls(server.address(), &tls, None).await;
    let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
    for _ in 0..5 {
        publisher.publish("large", &*data).await;
    }
    for sequence in 1..=5 {
        let publication = subscriber.publication(sequence).await;
        assert!(publication.bytes("data") == data, "{sequence} differs");
    }
}

#[tokio::test]
async fn plain_requests_are_answered_400_and_told_why() {
    let secured = Secured::new();
    let server = server_with(&secured);
    let (status, body) = get(server.address(), "/ws").await;
    assert_eq!(status, 400);
    assert_eq!(
        body,
        "this port speaks TLS: connect with wss:// or with https://\n"
    );
}

#[tokio::test]
async fn a_plain_request_with_a_large_body_hears_its_400_too() {
    let secured = Secured::new();
    let server = server_with(&secured);
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let length = 1 << 20;
    let head = format!(
        "POST /v1/publications HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; length]).await.unwrap();
    let answer = rest(stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn plain_http_over_tls_is_served_and_its_end_is_told() {
    let secured = Secured::new();
    let server = server_with(&secured);
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut stream = connect_over_tls(server.address(), &secured.client())
        .await
        .unwrap();
    stream.write_all(request).await.unwrap();
    let answer = rest(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn the_end_of_a_websocket_is_told_by_tls_too() {
    let secured = Secured::new();
    let server = server_with(&secured);
    let mut stream = connect_over_tls(server.address(), &secured.client())
        .await
        .unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let close = Raw::frame(0x88, &1000_u16.to_be_bytes());
    stream.write_all(&close).await.unwrap();
    let mut all = Vec::new();
    // Without TLS's word for it, this were an error.
    within("the end", stream.read_to_end(&mut all))
        .await
        .unwrap();
    assert!(all.ends_with(&[0x88, 2, 0x03, 0xe8]), "no Close at the end");
}

#[tokio::test]
async fn a_protocol_other_than_http_1_1_is_refused_in_the_handshake() {
    let secured = Secured::new();
    let server = server_with(&secured);
    let mut client = ClientConfig::clone(&secured.client());
    client.alpn_protocols = vec![b"h2".to_vec()];
    let error = connect_over_tls(server.address(), &Arc::new(client))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );
}

#[tokio::test]
async fn who_does_not_shake_hands_in_time_is_dropped_and_gives_its_place_back() {
    let secured = Secured::new();
    let server = TestServer::with(|config| {
        config.tls = Some(secured.files());
        config.max_connections = 2;
        config.handshake_timeout = Duration::from_millis(500);
    });
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut tcp = TcpStream::connect(server.address()).await.unwrap();
        // The beginning of a handshake, and never its end.
        tcp.write_all(&[22, 3, 1]).await.unwrap();
        silent.push(tcp);
    }
    for mut tcp in silent {
        let mut byte = [0];
        let read = within("the end", tcp.read(&mut byte)).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let tls = secured.client();
    let _first = Client::over_tls(server.address(), &tls, None).await;
    let _second = Client::over_tls(server.address(), &tls, None).await;
}

#[tokio::test]
async fn handshakes_of_tls_count_among_the_connections() {
    let secured = Secured::new();
    let server = TestServer::with(|config| {
        config.tls = Some(secured.files());
        config.max_connections = 1;
        config.handshake_timeout = Duration::from_secs(60);
    });
    let mut begun = TcpStream::connect(server.address()).await.unwrap();
    begun.write_all(&[22, 3, 1]).await.unwrap();
    let tls = secured.client();
    let refused = async || {
        let mut stream = connect_over_tls(server.address(), &tls).await.unwrap();
        let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        head == *b"HTTP/1.1 503"
    };
    eventually("the one in its handshake counts", refused).await;
    drop(begun);
    eventually("it counts no more", async || !refused().await).await;
}

#[tokio::test]
async fn a_client_ca_lets_in_only_whom_it_knows() {
    let secured = Secured::new();
    let clients = Authority::new("who may come");
    fs::write(secured.path("clients.crt"), &clients.certificate).unwrap();
    let mut files = secured.files();
    files.client_ca = Some(secured.path("clients.crt"));
    let server = TestServer::with(|config| config.tls = Some(files));

    let known = clients.issue_to_client("known");
    let known = trusting_with(&secured.authority, Some(&known));
    let mut client = Client::over_tls(server.address(), &known, None).await;
    client.publish("orders", b"x").await;

    let unknown = Authority::new("another").issue_to_client("unknown");
    for stranger in [
        trusting_with(&secured.authority, Some(&unknown)),
        secured.client(),
    ] {
        let stream = connect_over_tls(server.address(), &stranger).await;
        // In TLS 1.3 a client learns what the server made of its certificate with the first that it reads.
        let refused = match stream {
            Ok(mut stream) => stream.read(&mut [0]).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(refused.to_string().contains("alert"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_taken_up_under_load_without_dropping_a_connection() {
    const CHANGES: usize = 20;
    const LOADS: usize = 4;
    let secured = Secured::new();
    let server = server_with(&secured);
    let tls = secured.client();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut loads = Vec::new();
    for number in 0..LOADS {
        let name = format!("load-{number}");
        let mut subscriber = Client::over_tls(server.address(), &tls, None).await;
        subscriber.subscribe(&*name, "New").await;
        let mut publisher = Client::over_tls(server.address(), &tls, None).await;
        let is_over = Arc::clone(&is_over);
        loads.push(tokio::spawn(async move {
            let mut published = 0;
            while !is_over.load(Relaxed) {
                // Panics if either connection breaks.
                publisher.publish(&*name, vec![7; 5_000]).await;
                published += 1;
                subscriber.publication(published).await;
            }
            published
        }));
    }
    for change in 0..CHANGES {
        let renewed = secured.renew();
        assert!(server.reload());
        assert_eq!(shown(&server, &tls).await, renewed);
        if change % 5 == 0 {
            // A certificate of another key: the one of before stays.
            let other = secured.authority.issue(&["localhost"]);
            fs::write(secured.path("tls.crt"), &other.certificate).unwrap();
            assert!(!server.reload());
            assert_eq!(shown(&server, &tls).await, renewed);
        }
        let mut newcomer = Client::over_tls(server.address(), &tls, None).await;
        newcomer.publish("newcomers", b"x").await;
    }
    is_over.store(true, Relaxed);
    for load in loads {
        assert!(load.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn who_comes_back_resumes_but_not_behind_a_change() {
    let secured = Secured::new();
    let server = server_with(&secured);
    let tls = secured.client();
    let resumed = async || {
        let mut stream = connect_over_tls(server.address(), &tls).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        rest(stream).await;
        kind == rustls::HandshakeKind::Resumed
    };
    assert!(!resumed().await);
    assert!(resumed().await);
    secured.renew();
    assert!(server.reload());
    assert!(!resumed().await);
}

#[tokio::test]
async fn sighup_takes_up_a_changed_certificate_and_tells_of_a_broken_one() {
    let secured = Secured::new();
    let (certificate, key) = (secured.path("tls.crt"), secured.path("tls.key"));
    let server = Process::start(&[
        ("TLS_CERT", certificate.to_str().unwrap()),
        ("TLS_KEY", key.to_str().unwrap()),
    ]);
    let mut client = Client::over_tls(server.address(), &secured.client(), None).await;
    let another = Authority::new("another");
    secured.put(&another.issue(&["localhost"]));
    server.signal("-HUP");
    eventually("it is taken up", async || {
        connect_over_tls(server.address(), &trusting(&another))
            .await
            .is_ok()
    })
    .await;
    fs::write(&key, "no key").unwrap();
    server.signal("-HUP");
    eventually("it is told", async || {
        let said = server.said();
        said.contains("the certificate can't be read again, and what was there stays")
            && said.contains("holds no private key")
    })
    .await;
    Client::over_tls(server.address(), &trusting(&another), None).await;
    client.publish("orders", b"x").await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_closed_with_4009_over_tls_too() {
    let secured = Secured::new();
    let server = TestServer::with(|config| {
        config.tls = Some(secured.files());
        config.write_timeout = Duration::from_millis(500);
    });
    let tls = secured.client();
    let mut watcher = Client::over_tls(server.address(), &tls, None).await;
    for number in 0..100 {
        watcher.publish("orders", vec![number; 100_000]).await;
    }
    let mut stuck = Client::over_tls(server.address(), &tls, Some(16 << 10)).await;
    let fields = fields! { "subscription_id": "orders", "from": "First" };
    stuck.request("Subscribe", fields).await;
    for connected in [1, 0] {
        eventually("it comes and goes", async || {
            watcher.meta("orders").await.number("connected") == connected
        })
        .await;
    }
    let mut publications = 0;
    while let Event::Response(response) = stuck.event().await {
        publications += u64::from(response.name == "Publication");
    }
    assert!(publications < 100, "it got everything");
}

#[tokio::test]
async fn a_peer_that_takes_slowly_is_heard_over_tls_too() {
    let secured = Secured::new();
    let server = TestServer::with(|config| {
        config.tls = Some(secured.files());
        config.heartbeat_interval = Duration::from_millis(200);
        config.heartbeat_timeout = Duration::from_millis(400);
        config.write_timeout = Duration::from_millis(600);
    });
    let tls = secured.client();
    let mut publisher = Client::over_tls(server.address(), &tls, None).await;
    for _ in 0..30 {
        publisher.publish("orders", vec![1; 100_000]).await;
    }
    let mut slow = Client::over_tls(server.address(), &tls, Some(16 << 10)).await;
    slow.subscribe("orders", "First").await;
    let mut pace = tokio::time::interval(Duration::from_millis(60));
    for sequence in 1..=30 {
        pace.tick().await;
        slow.publication(sequence).await;
    }
    slow.call("Ping", fields! {}).await;
}
