//! Section 1: messages, frames, closing.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::support::{Client, Raw, TestServer, encode, eventually, named};

const FINAL_BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;

#[tokio::test]
async fn welcome_is_first_and_tells_the_session_the_server_and_the_limits() {
    let server = TestServer::start();
    let welcome = server.client().await.welcome;
    assert_eq!(
        welcome.names(),
        [
            "durable",
            "limits",
            "resumed",
            "server",
            "session_id",
            "subscriptions"
        ]
    );
    assert!(!welcome.truth("durable"));
    assert!(!welcome.truth("resumed"));
    assert!(!welcome.uuid("session_id").is_nil());
    assert!(welcome.array("subscriptions").is_empty());
    assert_eq!(
        welcome.text("server"),
        concat!("infotainer/", env!("CARGO_PKG_VERSION"))
    );
    let limits = welcome.map("limits");
    assert_eq!(limits.number("max_message_size"), 256 << 10);
    assert_eq!(limits.number("max_subscriptions"), 128);
    assert_eq!(limits.number("heartbeat_interval"), 25_000);
    assert_eq!(limits.number("heartbeat_timeout"), 10_000);
}

#[tokio::test]
async fn each_transient_connection_is_a_session_of_its_own() {
    let server = TestServer::start();
    let (one, other) = (server.client().await, server.client().await);
    assert_ne!(
        one.welcome.uuid("session_id"),
        other.welcome.uuid("session_id")
    );
}

#[tokio::test]
async fn a_text_message_is_unsupported_format_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.send_message(Message::text("{\"Ping\":{}}")).await;
    client.next().await.expect_error("unsupported-format");
    client.call("Ping", fields! {}).await;
}

#[tokio::test]
async fn fragments_are_joined() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let command = encode(&named(
        "SubmitPublication",
        fields! { "subscription_id": "orders", "submission": &[7; 1000] },
    ));
    let mut pieces = command.chunks(100).peekable();
    let mut opcode = OpCode::Data(Data::Binary);
    let mut sent = 0;
    while let Some(piece) = pieces.next() {
        let frame = Frame::message(piece.to_vec(), opcode, pieces.peek().is_none());
        client.send_message(Message::Frame(frame)).await;
        // Control frames may stand between fragments.
        sent += 1;
        let ping = Message::Ping(Bytes::copy_from_slice(&[sent]));
        client.send_message(ping).await;
        opcode = OpCode::Data(Data::Continue);
    }
    let log = client.log("orders").await;
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].bytes("data"), [7; 1000]);
    let pongs: Vec<u8> = client.pongs.iter().map(|payload| payload[0]).collect();
    assert_eq!(pongs, (1..=sent).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_is_understood_however_its_bytes_arrive() {
    let server = TestServer::start();
    let mut raw = Raw::open(server.address(), "/ws").await;
    let ping = Raw::frame(FINAL_BINARY, &encode(&named("Ping", fields! {})));
    let submit = Raw::frame(
        FINAL_BINARY,
        &encode(&named(
            "SubmitPublication",
            fields! { "subscription_id": "orders", "submission": &[1; 300] },
        )),
    );
    for byte in submit.iter().chain(&ping) {
        raw.write(&[*byte]).await;
    }
    raw.response().await.expect("Pong");
    let many: Vec<u8> = ping.repeat(100);
    raw.write(&many).await;
    for _ in 0..100 {
        raw.response().await.expect("Pong");
    }
}

#[tokio::test]
async fn what_comes_with_the_handshake_belongs_to_the_first_frames() {
    let server = TestServer::start();
    let mut raw = Raw::connect(server.address(), None).await;
    let mut bytes = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address()
    )
    .into_bytes();
    let ping = Raw::frame(FINAL_BINARY, &encode(&named("Ping", fields! {})));
    bytes.extend(&ping);
    bytes.extend(&ping[..3]);
    raw.write(&bytes).await;
    raw.head_of_answer().await;
    raw.response().await.expect("Welcome");
    raw.response().await.expect("Pong");
    raw.write(&ping[3..]).await;
    raw.response().await.expect("Pong");
}

#[tokio::test]
async fn a_ping_is_answered_with_its_payload() {
    let server = TestServer::start();
    let mut raw = Raw::open(server.address(), "/ws").await;
    for payload in [&b""[..], b"x", &[9; 125]] {
        raw.send(0x89, payload).await;
        let pong = raw.read().await.unwrap();
        assert_eq!((pong.opcode, &pong.payload[..]), (10, payload));
    }
    // Nobody asked for it, and nobody minds.
    raw.send(0x8a, b"unasked").await;
    raw.send(FINAL_BINARY, &encode(&named("Ping", fields! {})))
        .await;
    raw.response().await.expect("Pong");
}

/// A `SubmitPublication` that is a message of exactly so many bytes.
fn message_of(size: usize) -> Vec<u8> {
    let command = |data: usize| {
        encode(&named(
            "SubmitPublication",
            fields! { "subscription_id": "big", "submission": vec![b'x'; data] },
        ))
    };
    let around = command(size).len() - size;
    let message = command(size - around);
    assert_eq!(message.len(), size);
    message
}

#[tokio::test]
async fn a_message_of_the_largest_size_is_taken() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.send_bytes(message_of(256 << 10)).await;
    assert_eq!(client.meta("big").await.number("last_sequence"), 1);
}

#[tokio::test]
async fn a_message_over_the_size_is_closed_with_1009_by_what_its_frame_declares() {
    let server = TestServer::start();
    for size in [(256 << 10) + 1, 2 << 30, (1 << 63) - 1] {
        let mut raw = Raw::open(server.address(), "/ws").await;
        // Nothing but the head: the server does not wait for the bytes.
        raw.write(&Raw::head(FINAL_BINARY, size)).await;
        assert_eq!(raw.closed().await, 1009, "{size}");
    }
}

#[tokio::test]
async fn fragments_that_are_too_large_together_are_closed_with_1009() {
    let server = TestServer::start();
    let mut raw = Raw::open(server.address(), "/ws").await;
    raw.send(0x02, &[0; 200 << 10]).await;
    raw.write(&Raw::head(0x80, (56 << 10) + 1)).await;
    assert_eq!(raw.closed().await, 1009);
}

#[tokio::test]
async fn broken_framing_is_closed_with_1002() {
    let server = TestServer::start();
    let ping = encode(&named("Ping", fields! {}));
    let mut unmasked = vec![FINAL_BINARY, ping.len() as u8];
    unmasked.extend(&ping);
    for (what, bytes) in [
        ("not masked", unmasked),
        ("a reserved bit", Raw::frame(0xc2, &ping)),
        ("a reserved data opcode", Raw::frame(0x83, &ping)),
        ("a reserved control opcode", Raw::frame(0x8b, b"")),
        ("a continuation of nothing", Raw::frame(0x80, &ping)),
        (
            "a message inside a message",
            [Raw::frame(0x02, &ping), Raw::frame(0x82, &ping)].concat(),
        ),
        ("a fragmented control frame", Raw::frame(0x09, b"")),
        ("a long control frame", Raw::head(0x89, 126)),
        ("a Close of one byte", Raw::frame(CLOSE, &[3])),
        (
            "a code that nobody sends",
            Raw::frame(CLOSE, &1005u16.to_be_bytes()),
        ),
        ("a code below all", Raw::frame(CLOSE, &999u16.to_be_bytes())),
    ] {
        let mut raw = Raw::open(server.address(), "/ws").await;
        raw.write(&bytes).await;
        assert_eq!(raw.closed().await, 1002, "{what}");
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_closed_with_1007() {
    let server = TestServer::start();
    for bytes in [
        Raw::frame(0x81, &[0xff]),
        Raw::frame(0x81, &[0xe2, 0x82]),
        Raw::frame(CLOSE, &[0x03, 0xe8, 0xff]),
        // It fails where the fault is seen, not at the end of the message.
        Raw::frame(0x01, &[b'x', 0xf4, 0x90]),
        Raw::frame(0x81, &[b'x', 0xf4, 0x90, b'x', b'x'])[..6 + 3].to_vec(),
    ] {
        let mut raw = Raw::open(server.address(), "/ws").await;
        raw.write(&bytes).await;
        assert_eq!(raw.closed().await, 1007, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_and_the_connection_ends() {
    let server = TestServer::start();
    for code in [1000_u16, 1001, 3000, 4999] {
        let mut raw = Raw::open(server.address(), "/ws").await;
        raw.send(CLOSE, &code.to_be_bytes()).await;
        let close = raw.read().await.unwrap();
        assert_eq!(close.close_code(), code);
        raw.ended().await;
    }
    let mut raw = Raw::open(server.address(), "/ws").await;
    raw.send(CLOSE, b"").await;
    assert_eq!(raw.read().await.unwrap().opcode, 8);
    raw.ended().await;
}

#[tokio::test]
async fn commands_in_front_of_a_close_are_applied() {
    let server = TestServer::start();
    let mut raw = Raw::open(server.address(), "/ws").await;
    let submit = encode(&named(
        "SubmitPublication",
        fields! { "subscription_id": "orders", "submission": b"last words" },
    ));
    let mut bytes = Raw::frame(FINAL_BINARY, &submit);
    bytes.extend(Raw::frame(CLOSE, &1000_u16.to_be_bytes()));
    raw.write(&bytes).await;
    raw.closed().await;
    raw.ended().await;
    let mut client = server.client().await;
    assert_eq!(client.log("orders").await.len(), 1);
}

#[tokio::test]
async fn after_its_close_the_server_discards_input_so_that_the_peer_sees_the_code() {
    let server = TestServer::start();
    let mut raw = Raw::open(server.address(), "/ws").await;
    let submit = encode(&named(
        "SubmitPublication",
        fields! { "subscription_id": "orders", "submission": &[0; 1000] },
    ));
    // The protocol error comes first, a megabyte of commands behind it: none of them counts, and none of them makes the kernel throw
    // the Close away.
    raw.write(&Raw::frame(0x83, b"")).await;
    raw.write(&Raw::frame(FINAL_BINARY, &submit).repeat(1000))
        .await;
    assert_eq!(raw.closed().await, 1002);
    raw.send(CLOSE, &1002_u16.to_be_bytes()).await;
    raw.ended().await;
    let mut client = server.client().await;
    client
        .fail(
            "not-found",
            "GetSubscription",
            fields! { "subscription_id": "orders" },
        )
        .await;
}

#[tokio::test]
async fn a_peer_that_never_answers_the_close_is_dropped() {
    let server = TestServer::start();
    let mut raw = Raw::open(server.address(), "/ws").await;
    raw.write(&Raw::frame(0x83, b"")).await;
    assert_eq!(raw.closed().await, 1002);
    raw.ended().await;
}

#[tokio::test]
async fn a_connection_that_breaks_off_ends_its_session() {
    let server = TestServer::start();
    let mut client = Client::connect(server.address()).await;
    client.subscribe("orders", "New").await;
    let mut watcher = server.client().await;
    assert_eq!(watcher.meta("orders").await.number("subscribers"), 1);
    drop(client);
    eventually("the session is gone", async || {
        watcher.meta("orders").await.number("subscribers") == 0
    })
    .await;
}
