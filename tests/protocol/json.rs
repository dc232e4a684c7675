//! Section 8: the same protocol in JSON.

use std::net::SocketAddr;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};
use uuid::Uuid;

use crate::support::{Client, TestServer, within};

/// A client that speaks JSON and knows nothing of CBOR.
struct JsonClient {
    socket: WebSocketStream<TcpStream>,
    last_id: u64,
}

impl JsonClient {
    /// A transient session that had its `Welcome`.
    async fn connect(address: SocketAddr) -> Self {
        let (client, _) = Self::open(address, "/ws", None).await;
        client
    }

    async fn open(address: SocketAddr, path: &str, receive_buffer: Option<u32>) -> (Self, Value) {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size).unwrap();
        }
        let stream = socket.connect(address).await.unwrap();
        let mut request = format!("ws://{address}{path}")
            .into_client_request()
            .unwrap();
        let subprotocol = HeaderValue::from_static("infotainer.v1.json");
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", subprotocol.clone());
        let handshake = within("the handshake", client_async(request, stream)).await;
        let (socket, response) = handshake.unwrap();
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], subprotocol);
        let mut client = Self { socket, last_id: 0 };
        let welcome = client.next().await;
        (client, welcome["Welcome"].clone())
    }

    async fn send(&mut self, text: impl Into<String>) {
        let message = Message::text(text.into());
        within("sending", self.socket.send(message)).await.unwrap();
    }

    async fn message(&mut self) -> Message {
        loop {
            let message = within("something from the server", self.socket.next()).await;
            match message.unwrap().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// What the server says next: always a text.
    async fn next(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("instead of a text: {other:?}"),
        }
    }

    /// Sends a command, and gives the answer, which has to come next.
    async fn call(&mut self, command: Value) -> Value {
        self.last_id += 1;
        self.send(json!([self.last_id, command]).to_string()).await;
        let answer = self.next().await;
        assert_eq!(answer[0], self.last_id, "{answer}");
        answer[1].clone()
    }

    async fn closed(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.message().await {
                return frame.unwrap().code.into();
            }
        }
    }
}

fn base64(data: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(data)
}

#[tokio::test]
async fn a_client_in_json_has_the_same_types_by_the_same_names() {
    let server = TestServer::start();
    let (mut client, welcome) = JsonClient::open(server.address(), "/ws", None).await;
    assert_eq!(welcome["durable"], false);
    assert!(Uuid::try_parse(welcome["session_id"].as_str().unwrap()).is_ok());

    let subscribed = client
        .call(json!({"Subscribe": {"subscription_id": "orders", "from": "First"}}))
        .await;
    assert_eq!(subscribed["Subscribed"]["cursor"], 0);
    let id = subscribed["Subscribed"]["subscription_id"].clone();
    assert_eq!(
        id.as_str().unwrap(),
        Uuid::new_v5(&Uuid::NAMESPACE_URL, b"infotainer:orders").to_string()
    );

    let data = [0, 255, 191, 62];
    let submit = json!({"SubmitPublication": {"subscription_id": id, "submission": base64(&data)}});
    let submitted = client.call(submit).await;
    assert_eq!(submitted["Submitted"]["sequence"], 1);
    let publication = client.next().await["Publication"].clone();
    assert_eq!(publication["data"], base64(&data));
    assert_eq!(
        publication["publication_id"],
        submitted["Submitted"]["publication_id"]
    );

    let entries = client
        .call(json!({"GetLogEntries": {"log_id": "orders"}}))
        .await;
    assert_eq!(
        entries["DataLogEntry"]["publications"],
        json!([publication])
    );
    let index = client
        .call(json!({"GetLogIndex": {"log_id": "orders"}}))
        .await;
    assert_eq!(
        index["LogIndex"]["entries"],
        json!([publication["publication_id"]])
    );
    let meta = client
        .call(json!({"GetSubscription": {"subscription_id": "orders"}}))
        .await;
    assert_eq!(meta["SubscriptionMeta"]["settings"]["name"], "orders");
    client.send(r#""Ping""#).await;
    assert!(client.next().await["Pong"]["time"].is_u64());

    let deleted = client
        .call(json!({"DeleteSubscription": {"subscription_id": "orders"}}))
        .await;
    assert_eq!(deleted, json!({"Deleted": {"subscription_id": id}}));
    let error = client
        .call(json!({"GetSubscription": {"subscription_id": "orders"}}))
        .await;
    assert_eq!(error["Error"]["code"], "not-found");
    assert_eq!(error["Error"]["subscription_id"], id);
}

#[tokio::test]
async fn text_and_json_are_published_as_they_are_written() {
    let server = TestServer::start();
    let mut client = JsonClient::connect(server.address()).await;
    let mut other = server.client().await;
    other.subscribe("orders", "New").await;
    for (field, data) in [
        (r#""text": "h\u00e9llo""#, "héllo"),
        (r#""json": { "a": [1.0, null] }"#, r#"{ "a": [1.0, null] }"#),
        (r#""submission": "aGk""#, "hi"),
    ] {
        let fields = format!(r#"{{"subscription_id": "orders", {field}}}"#);
        client
            .send(format!(r#"{{"SubmitPublication": {fields}}}"#))
            .await;
        let publication = other.next().await.expect("Publication");
        assert_eq!(publication.bytes("data"), data.as_bytes());
    }
}

/// The messages that the README shows are sent as they stand there.
#[tokio::test]
async fn what_the_readme_types_by_hand_is_published() {
    let readme = include_str!("../../README.md");
    let block = |begin: &str| {
        let (_, rest) = readme.split_once(begin).unwrap();
        rest.split_once("```").unwrap().0
    };
    let typed = block("$ websocat --protocol infotainer.v1.json ws://127.0.0.1:8949/ws\n");
    let in_page = block("\"infotainer.v1.json\");\n")
        .split('\'')
        .nth(1)
        .unwrap();
    let server = TestServer::start();
    let mut client = JsonClient::connect(server.address()).await;
    for line in typed.lines().chain([in_page]) {
        client.send(line).await;
    }
    for data in [&b"hello by hand"[..], br#"{"hello": "console"}"#] {
        let publication = client.next().await["Publication"].clone();
        assert_eq!(publication["data"], base64(data));
    }
}

#[tokio::test]
async fn both_forms_are_served_the_same_on_every_worker() {
    let server = TestServer::start();
    let mut publisher = server.client().await;
    let mut in_json = Vec::new();
    let mut in_cbor = Vec::new();
    for _ in 0..6 {
        let mut client = JsonClient::connect(server.address()).await;
        let subscribe = json!({"Subscribe": {"subscription_id": "orders"}});
        client.call(subscribe).await;
        in_json.push(client);
        let mut client = server.client().await;
        client.subscribe("orders", "New").await;
        in_cbor.push(client);
    }
    publisher.publish_many("orders", 200).await;
    for client in &mut in_cbor {
        client.publications(1..=200).await;
    }
    for client in &mut in_json {
        for sequence in 1..=200_u64 {
            let publication = client.next().await["Publication"].clone();
            assert_eq!(publication["sequence"], sequence);
        }
    }
    // Deletion is told to each in its form.
    let fields = fields! { "subscription_id": "orders" };
    publisher.call("DeleteSubscription", fields).await;
    for client in &mut in_cbor {
        client.next().await.expect("Deleted");
    }
    for client in &mut in_json {
        assert!(client.next().await["Deleted"].is_object());
    }
}

#[tokio::test]
async fn a_slow_reader_in_json_gets_everything_in_order_out_of_the_log() {
    for durability in ["Synced", "Memory"] {
        let server = TestServer::with(|config| config.outbox_size = 64 << 10);
        let (mut slow, _) = JsonClient::open(server.address(), "/ws", Some(16 << 10)).await;
        let settings = json!({"durability": durability, "retention": {"max_publications": 350}});
        let create =
            json!({"CreateSubscription": {"subscription_id": "orders", "settings": settings}});
        slow.call(create).await;
        slow.call(json!({"Subscribe": {"subscription_id": "orders"}}))
            .await;
        let mut publisher = server.client().await;
        for number in 0..400_u32 {
            let mut data = vec![0; 18_000];
            data[..4].copy_from_slice(&number.to_be_bytes());
            publisher.publish("orders", data).await;
        }
        let mut position = 0;
        while position < 400 {
            let said = slow.next().await;
            if said["Gap"].is_object() {
                // What retention took, if it was quicker.
                assert_eq!(said["Gap"]["from"], position + 1);
                assert_eq!(said["Gap"]["cause"], "retention");
                position = said["Gap"]["to"].as_u64().unwrap();
                continue;
            }
            let publication = &said["Publication"];
            assert_eq!(publication["sequence"], position + 1);
            let data = publication["data"].as_str().unwrap();
            assert_eq!(data.len(), 24_000);
            assert!(data.starts_with(&base64(&(position as u32).to_be_bytes())[..5]));
            position += 1;
        }
        // It has caught up, and is served live again.
        publisher.publish("orders", b"live").await;
        let publication = slow.next().await["Publication"].clone();
        assert_eq!(publication["sequence"], 401);
        assert_eq!(publication["data"], "bGl2ZQ");
    }
}

#[tokio::test]
async fn a_durable_session_goes_on_in_the_other_form() {
    let server = TestServer::start();
    let session = Uuid::new_v4();
    let mut publisher = server.client().await;
    let path = format!("/ws/{session}");
    let (mut client, _) = JsonClient::open(server.address(), &path, None).await;
    client
        .call(json!({"Subscribe": {"subscription_id": "orders"}}))
        .await;
    publisher.publish_many("orders", 3).await;
    for sequence in 1..=3_u64 {
        assert_eq!(client.next().await["Publication"]["sequence"], sequence);
    }
    client
        .call(json!({"Acknowledge": {"subscription_id": "orders", "sequence": 2}}))
        .await;
    // Taken over, in CBOR.
    let mut other = Client::resume(server.address(), session).await;
    assert_eq!(client.closed().await, 4502);
    other.publication(3).await;
    let (mut client, welcome) = JsonClient::open(server.address(), &path, None).await;
    assert_eq!(welcome["resumed"], true);
    assert_eq!(welcome["subscriptions"][0]["cursor"], 2);
    assert_eq!(client.next().await["Publication"]["sequence"], 3);
}

#[tokio::test]
async fn a_queue_is_worked_in_json() {
    let server = TestServer::start();
    let mut client = JsonClient::connect(server.address()).await;
    let subscribed = client
        .call(json!({"Subscribe": {"subscription_id": "jobs", "kind": "Queue", "prefetch": 2}}))
        .await;
    assert_eq!(subscribed["Subscribed"]["prefetch"], 2);
    let mut publisher = server.client().await;
    publisher.publish_many("jobs", 3).await;
    let first = client.next().await["Publication"].clone();
    let second = client.next().await["Publication"].clone();
    assert_eq!(
        (&first["delivery"], &second["delivery"]),
        (&json!(1), &json!(1))
    );
    let reject = json!({"Reject": {
        "subscription_id": "jobs", "publication_ids": [first["publication_id"]], "dead_letter": true
    }});
    let rejected = client.call(reject).await;
    assert_eq!(rejected["Rejected"]["count"], 1);
    assert_eq!(client.next().await["Publication"]["sequence"], 3);
    client
        .send(r#"{"Subscribe": {"subscription_id": "jobs.dead-letter", "from": "First"}}"#)
        .await;
    let dead = client.next().await["Publication"].clone();
    assert_eq!(dead["dead_letter"]["reason"], "rejected");
    assert_eq!(dead["dead_letter"]["sequence"], 1);
    assert_eq!(dead["data"], first["data"]);
}

#[tokio::test]
async fn a_message_of_the_other_kind_is_an_unsupported_format_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut client = JsonClient::connect(server.address()).await;
    let ping = Message::binary(&b"\x64Ping"[..]);
    client.socket.send(ping).await.unwrap();
    let error = client.next().await;
    assert_eq!(error["Error"]["code"], "unsupported-format");
    assert!(client.call(json!({"Ping": {}})).await["Pong"].is_object());
}

#[tokio::test]
async fn the_16th_message_in_a_row_that_is_no_json_is_answered_and_then_closes_with_4503() {
    let server = TestServer::start();
    let mut client = JsonClient::connect(server.address()).await;
    for round in 0..15 {
        client.send(format!("[{round}, {{")).await;
        let error = client.next().await;
        assert_eq!(error[0], round);
        assert_eq!(error[1]["Error"]["code"], "malformed");
    }
    assert!(client.call(json!("Ping")).await["Pong"].is_object());
    for round in 0..16 {
        if round % 2 == 0 {
            client.send("}").await;
        } else {
            let binary = Message::binary(vec![0]);
            client.socket.send(binary).await.unwrap();
        }
        assert!(client.next().await["Error"].is_object());
    }
    assert_eq!(client.closed().await, 4503);
}

#[tokio::test]
async fn hostile_json_is_answered_and_harms_nobody() {
    let server = TestServer::with(|config| config.max_message_size = 1 << 20);
    let mut client = JsonClient::connect(server.address()).await;
    let size = (1 << 20) - 100;
    let deep = |begin: &str| begin.repeat(size / begin.len());
    let cases = [
        (deep("["), "malformed"),
        (deep(r#"{"a":"#), "malformed"),
        (deep(r#"{"Ping":"#), "malformed"),
        (format!("[1, {}]", "9".repeat(size)), "malformed"),
        (format!("0.{}", "1".repeat(size)), "malformed"),
        (format!("1e{}", "9".repeat(size)), "malformed"),
        (format!("\"{}", deep(r"\u00")), "malformed"),
        (format!("\"{}\"", deep(r"\ud83d\ude80")), "unknown-command"),
        (format!("[{}1]", deep("1e1,")), "malformed"),
        (format!("{{{}\"\":0}}", deep(r#""":0,"#)), "malformed"),
        (
            format!(r#"{{"Ping": {{"x": "{}"}}, "Ping": 1}}"#, deep("é")),
            "malformed",
        ),
        (
            format!(
                r#"{{"Extend": {{"subscription_id": "{}", "publication_ids": []}}}}"#,
                deep("a")
            ),
            "invalid-argument",
        ),
        (
            format!(
                r#"{{"SubmitPublication": {{"subscription_id": "a", "submission": "{}"}}}}"#,
                deep("=")
            ),
            "invalid-argument",
        ),
    ];
    for (text, code) in cases {
        let begin: String = text.chars().take(30).collect();
        client.send(text).await;
        let error = client.next().await;
        let error = if error.is_array() { &error[1] } else { &error };
        assert_eq!(error["Error"]["code"], code, "{begin}");
        assert!(error.to_string().len() < 1_000, "{begin}");
        assert!(client.call(json!("Ping")).await["Pong"].is_object());
    }
    // Over the limit.
    client.send(" ".repeat((1 << 20) + 1)).await;
    assert_eq!(client.closed().await, 1009);
    let mut other = server.client().await;
    other.call("Ping", fields! {}).await;
}
