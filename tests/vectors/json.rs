//! The same messages in JSON (`infotainer.v1.json`): every vector goes through both forms and means the same in each.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use infotainer::protocol::codec::{
    Rejection, ServerMessage, decode_publication, decode_request, decode_response,
};
use infotainer::protocol::{ErrorCode, Request, ServerResponse, json};
use serde_json::{Map, Value};

use super::{Direction, bytes_of, vectors};

/// What a message comes to; the sentence of an error may tell of the form.
fn outcome(
    decoded: Result<Request, Rejection>,
) -> Result<Request, (Option<u64>, ErrorCode, Option<&'static str>)> {
    decoded.map_err(|Rejection { request_id, error }| {
        (request_id.map(|id| id.0), error.code, error.command)
    })
}

/// Vectors whose message is JSON as well, and says something else there: a text in the place of bytes is base64url.
const ONLY_IN_CBOR: [&str; 1] = ["tagged_text_is_no_bytes"];

#[test]
fn each_command_means_the_same_in_json() {
    let (mut count, mut without) = (0, Vec::new());
    for vector in vectors(Direction::ClientToServer) {
        let name = vector.name;
        let message = Bytes::from(vector.bytes);
        let Some(text) = json::from_cbor(&message) else {
            without.push(name);
            continue;
        };
        if ONLY_IN_CBOR.contains(&name.as_str()) {
            continue;
        }
        count += 1;
        // What is well-formed JSON for somebody else, too.
        assert!(
            serde_json::from_str::<Value>(&text).is_ok(),
            "{name}: {text}"
        );
        let (binary, in_json) = (decode_request(&message), json::decode_request(&text));
        assert_eq!(outcome(in_json), outcome(binary), "{name}: {text}");
    }
    assert!(count > 100, "{count}");
    // Every command that is taken has a JSON form, but for what it ignores: a float, and bytes that are no UUID.
    let taken: Vec<_> = vectors(Direction::ClientToServer)
        .into_iter()
        .filter(|vector| vector.error.is_none() && without.contains(&vector.name))
        .map(|vector| vector.name)
        .collect();
    assert_eq!(
        taken,
        [
            "unknown_fields_are_ignored",
            "unknown_fields_of_ping_are_ignored",
        ]
    );
}

#[test]
fn each_response_is_in_json_what_its_vector_says() {
    for vector in vectors(Direction::ServerToClient) {
        let name = vector.name;
        let text = json::from_cbor(&vector.bytes).unwrap_or_else(|| panic!("{name}"));
        let mut fields = vector.fields.unwrap();
        data_in_base64url(&mut fields);
        let mut pair = Map::new();
        pair.insert(vector.response.unwrap(), Value::Object(fields));
        let said = match vector.request_id {
            Some(id) => Value::from(vec![id.into(), Value::Object(pair)]),
            None => Value::Object(pair),
        };
        let shown: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(shown, said, "{name}");
        // And back.
        let back = json::to_cbor(&text).unwrap();
        assert_eq!(meaning(back), meaning(vector.bytes), "{name}");
    }
}

/// A message with its publications decoded, which an answer carries as they are encoded.
fn meaning(message: Vec<u8>) -> impl PartialEq + std::fmt::Debug {
    let mut received = decode_response(&message.into()).unwrap();
    let mut publications = Vec::new();
    if let ServerMessage::Response(ServerResponse::DataLogEntry(entry)) = &mut received.message {
        let fields = entry.publications.drain(..);
        publications.extend(fields.map(|fields| decode_publication(&fields).unwrap()));
    }
    (received, publications)
}

/// The vectors have `data` in hexadecimal digits.
fn data_in_base64url(fields: &mut Map<String, Value>) {
    for (key, value) in fields {
        match value {
            Value::String(hex) if key == "data" => *hex = URL_SAFE_NO_PAD.encode(bytes_of(hex)),
            Value::Object(inner) => data_in_base64url(inner),
            Value::Array(items) => {
                let maps = items.iter_mut().filter_map(Value::as_object_mut);
                maps.for_each(data_in_base64url);
            }
            _ => {}
        }
    }
}
