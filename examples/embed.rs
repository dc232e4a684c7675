//! A server inside of a program: it starts, a client subscribes, publishes and receives, and it stops.
//!
//! `cargo run --example embed`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::{collections::BTreeMap, error::Error, io};

use futures_util::{SinkExt, Stream, StreamExt};
use infotainer::{Config, Server, protocol::SUBPROTOCOL};
use serde_cbor::Value;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, ClientRequestBuilder, Message},
};

fn main() -> Result<(), Box<dyn Error>> {
    // The data directory outlives the server in earnest; here it is gone at the end.
    let data_dir = tempfile::tempdir()?;
    let server = Server::start(Config {
        listen: "127.0.0.1:0".parse()?,
        data_dir: data_dir.path().into(),
        ..Config::default()
    })?;
    println!("the server listens on ws://{}/ws", server.address());

    // The server runs on threads of its own, and needs no runtime of its host.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(greet(&format!("ws://{}/ws", server.address())))?;

    server.stop()?;
    println!("the server stopped");
    Ok(())
}

/// Subscribes to `greetings`, publishes to it, and waits for what was published.
async fn greet(url: &str) -> Result<(), Box<dyn Error>> {
    let request = ClientRequestBuilder::new(url.parse()?).with_sub_protocol(SUBPROTOCOL);
    let (mut socket, _) = connect_async(request).await?;

    // 1 and 2 are request ids: the answers carry them.
    let subscription = ("subscription_id", text("greetings"));
    let subscribe = command("Subscribe", [subscription.clone(), ("from", text("First"))]);
    let submission = ("submission", Value::Bytes(b"hello".to_vec()));
    let publish = command("SubmitPublication", [subscription, submission]);
    socket.send(request_message(1, subscribe)?).await?;
    socket.send(request_message(2, publish)?).await?;

    let publication = publication(&mut socket).await?;
    println!("received {publication:?}");
    socket.close(None).await?;
    Ok(())
}

/// The first publication that comes; what comes before it is printed.
async fn publication(
    messages: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
) -> Result<Value, Box<dyn Error>> {
    while let Some(message) = messages.next().await {
        let Message::Binary(bytes) = message? else {
            continue;
        };
        let response = serde_cbor::from_slice(&bytes)?;
        if let Value::Map(named) = &response
            && let Some(publication) = named.get(&text("Publication"))
        {
            return Ok(publication.clone());
        }
        println!("the server says {response:?}");
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

fn command<const N: usize>(name: &str, fields: [(&str, Value); N]) -> Value {
    let fields = fields.map(|(name, value)| (text(name), value));
    let fields = Value::Map(BTreeMap::from(fields));
    Value::Map(BTreeMap::from([(text(name), fields)]))
}

fn request_message(request_id: i128, command: Value) -> Result<Message, serde_cbor::Error> {
    let request = Value::Array(vec![Value::Integer(request_id), command]);
    Ok(Message::binary(serde_cbor::to_vec(&request)?))
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}
