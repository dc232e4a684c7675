//! The codec, from bytes that anybody may send, to a client or to the server, and from frames that are stored.
//!
//! What is judged: nothing panics; what is well-formed is what a second reader finds so; a message means the same in its plainest
//! encoding; what was decoded and encoded again is decoded to the same, in JSON too; a stored publication has one encoding only, and one in
//! JSON. Bytes that are a text are a message in JSON besides.

use bytes::{Bytes, BytesMut};

use super::cbor::{Tree, tree};
use crate::protocol::{
    ErrorCode, NUMBER_LIMIT, Publication, ReceivedPublication, Request, ServerResponse,
    StoredPublication,
    codec::{
        NotAResponse, Received, Rejection, ServerMessage, decode_publication, decode_request,
        decode_response, encode_request, encode_response,
    },
    json, published, stored_publications,
};

/// See the module. `input` is one message, or frames back to back.
pub fn codec(input: &[u8]) {
    let message = Bytes::copy_from_slice(input);
    let tree = tree(input, 0);
    well_formedness(input);
    request(&message, tree.as_ref());
    response(&message, tree.as_ref());
    let _ = decode_publication(&message); // it must not panic
    if let Ok(text) = std::str::from_utf8(input) {
        json_text(text);
    }
    stored(input);
    stored(&framed(input));
}

/// What is JSON becomes one well-formed item, of a length that follows from the text's.
fn json_text(text: &str) {
    let request = json::decode_request(text);
    let Ok(item) = json::to_cbor(text) else {
        let rejected = request.expect_err("what is no JSON is no command");
        assert_eq!(rejected.error.code, ErrorCode::Malformed);
        return;
    };
    assert!(tree(&item, 0).is_some(), "{item:02x?}");
    assert!(item.len() <= text.len() * 9 / 4 + 9);
    if let Ok(request) = request {
        same_in_json(&request);
    }
}

fn same_in_json(request: &Request) {
    let text = json::from_cbor(&encode_request(request)).expect("a command has a JSON form");
    assert_eq!(json::decode_request(&text).as_ref(), Ok(request));
}

/// The server's reader and the other agree whether `input` is one item. It stands in the fields of a message that nobody knows, whose
/// envelope is always right.
fn well_formedness(input: &[u8]) {
    let message = [b"\xa1\x61?\xa1\x00", input].concat();
    let known = decode_response(&Bytes::from(message));
    assert_eq!(known.is_ok(), tree(input, 2).is_some(), "{known:?}");
}

fn request(message: &Bytes, tree: Option<&Tree<'_>>) {
    let decoded = decode_request(message);
    let Some(tree) = tree else {
        let rejected = decoded.expect_err("what is not well-formed is no command");
        assert_eq!(rejected.error.code, ErrorCode::Malformed);
        return;
    };
    if let Ok(request) = &decoded {
        let encoded = Bytes::from(encode_request(request));
        assert_eq!(decode_request(&encoded).as_ref(), Ok(request));
        same_in_json(request);
    }
    if !tree.has_odd_text() {
        let plain = decode_request(&Bytes::from(tree.plain()));
        assert_eq!(outcome(&decoded), outcome(&plain));
    }
}

/// What both encodings of a message have to come to. The sentences of errors may tell of the encoding.
fn outcome(
    decoded: &Result<Request, Rejection>,
) -> Result<&Request, impl PartialEq + std::fmt::Debug> {
    decoded.as_ref().map_err(|rejected| {
        let error = &rejected.error;
        (
            rejected.request_id,
            error.code,
            error.command,
            error.subscription_id,
        )
    })
}

fn response(message: &Bytes, tree: Option<&Tree<'_>>) {
    let decoded = decode_response(message);
    let Some(tree) = tree else {
        assert!(decoded.is_err(), "what is not well-formed is no response");
        return;
    };
    if let Ok(received) = &decoded
        && let ServerMessage::Response(response) = &received.message
    {
        let mut frame = BytesMut::new();
        encode_response(&mut frame, received.request_id, response);
        let again = decode_response(&payload(&frame.clone().freeze()));
        assert_eq!(again.as_ref(), Ok(received));
        // The publications of an answer are handed on unread, so that they can be anything. What is none may be one in JSON, where a
        // text and bytes are written alike.
        let meant = meaning(Ok(received.clone()));
        let is_readable = |(_, publications): &Meaning| publications.iter().all(Option::is_some);
        if meant.as_ref().is_some_and(is_readable)
            && let Some(text) = json::from_cbor(&payload(&frame.freeze()))
        {
            let item = json::to_cbor(&text).expect("what was written as JSON");
            assert_eq!(meaning(decode_response(&item.into())), meant);
        }
    }
    if !tree.has_odd_text() {
        let plain = decode_response(&Bytes::from(tree.plain()));
        assert_eq!(meaning(decoded), meaning(plain));
    }
}

/// What was received without its publications, and those that are some.
type Meaning = (Received, Vec<Option<ReceivedPublication>>);

/// What is received, with its publications decoded: they are handed on as they are encoded.
fn meaning(decoded: Result<Received, NotAResponse>) -> Option<Meaning> {
    let mut received = decoded.ok()?;
    let mut publications = Vec::new();
    if let ServerMessage::Response(ServerResponse::DataLogEntry(entry)) = &mut received.message {
        let fields = entry.publications.drain(..);
        publications.extend(fields.map(|fields| decode_publication(&fields).ok()));
    }
    Some((received, publications))
}

fn stored(frames: &[u8]) {
    for publication in stored_publications(frames).map_while(Result::ok) {
        let mut encoded = Vec::new();
        let fields = Publication {
            subscription_id: publication.subscription_id(),
            publication_id: publication.publication_id(),
            sequence: publication.sequence(),
            time: publication.time(),
            publisher: publication.publisher(),
            dead_letter: publication.dead_letter(),
            data: publication.data(),
        };
        fields.encode_into(&mut encoded);
        assert_eq!(encoded, publication.frame());
        assert_eq!(encoded.len(), fields.encoded_len());
        let in_json = json::convert_frames(&encoded);
        let whole = (in_json.len(), publication.sequence());
        assert_eq!(published(&in_json).collect::<Vec<_>>(), [whole]);

        let mut delivery = Vec::new();
        publication.encode_delivery(7, &mut delivery);
        delivered(
            &publication,
            &Bytes::copy_from_slice(publication.frame()),
            None,
        );
        delivered(&publication, &Bytes::from(delivery), Some(7));
    }
}

/// A client gets out of the frame what was stored, if its numbers are ones that a server gives.
fn delivered(stored: &StoredPublication<'_>, frame: &Bytes, delivery: Option<u64>) {
    let numbers =
        |sequence: u64, time: u64| (1..NUMBER_LIMIT).contains(&sequence) && time < NUMBER_LIMIT;
    let dead_letter = stored.dead_letter();
    let is_given = numbers(stored.sequence().0, stored.time().0)
        && dead_letter.is_none_or(|dead| numbers(dead.sequence.0, dead.deliveries));
    let received = decode_response(&payload(frame));
    if !is_given {
        assert!(received.is_err(), "{received:?}");
        return;
    }
    let expected = ReceivedPublication {
        subscription_id: stored.subscription_id(),
        publication_id: stored.publication_id(),
        sequence: stored.sequence(),
        time: stored.time(),
        publisher: stored.publisher().map(Into::into),
        dead_letter,
        data: Bytes::copy_from_slice(stored.data()),
        delivery,
    };
    let received = received.map(|received| received.message);
    assert_eq!(received, Ok(ServerMessage::Publication(expected)));
}

/// The payload of the unmasked frame that `frame` is.
fn payload(frame: &Bytes) -> Bytes {
    let head = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    frame.slice(head..)
}

/// `payload` as an unmasked binary message.
fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload.len() {
        len @ 0..=125 => frame.push(len as u8),
        len @ 126..=0xffff => {
            frame.push(126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}
