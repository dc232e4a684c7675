//! Every text that JSON is, and none that it is not; and that both forms say the same.

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::protocol::{
    About, ClientCommand, DataLogEntry, DeadLetter, DeadLetterReason, Epoch, Gap, GapCause, Limits,
    Publication, PublicationId, ReceivedPublication, SessionId, Settled, StoredPublication,
    SubmitPublication, SubscriptionId, Timestamp, Welcome,
    codec::{Received, ServerMessage, decode_response, encode_request},
    published, stored_publications,
};

fn cbor(text: &str) -> Vec<u8> {
    to_cbor(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn submitted(fields: &str) -> Result<SubmitPublication, ServerError> {
    let message = format!(r#"[1, {{"SubmitPublication": {{"subscription_id": "s", {fields}}}}}]"#);
    match decode_request(&message) {
        Ok(request) => match request.command {
            ClientCommand::SubmitPublication(submit) => Ok(submit),
            other => panic!("{other:?}"),
        },
        Err(rejection) => {
            assert_eq!(rejection.request_id, Some(RequestId(1)));
            Err(rejection.error)
        }
    }
}

#[test]
fn values_are_taken_as_what_they_are() {
    let cases: [(&str, &[u8]); 22] = [
        ("0", b"\x00"),
        (" \t\r\n24 ", b"\x18\x18"),
        (
            "18446744073709551615",
            b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
        ("-1", b"\x20"),
        (
            "-18446744073709551615",
            b"\x3b\xff\xff\xff\xff\xff\xff\xff\xfe",
        ),
        // No integer is written so, nor one of more than 64 bits.
        ("-0", b"\xfb\x80\x00\x00\x00\x00\x00\x00\x00"),
        ("1.0", b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
        ("1e0", b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
        ("10E-1", b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
        (
            "18446744073709551616",
            b"\xfb\x43\xf0\x00\x00\x00\x00\x00\x00",
        ),
        ("true", b"\xf5"),
        ("false", b"\xf4"),
        ("null", b"\xf6"),
        (r#""""#, b"\x60"),
        (r#""\"\\\/\b\f\n\r\t""#, b"\x68\"\\/\x08\x0c\n\r\t"),
        (
            r#""\u0041\u00e9\u20AC\ud83d\ude80""#,
            "\u{6a}Aé€🚀".as_bytes(),
        ),
        ("\"é\u{7f}\"", b"\x63\xc3\xa9\x7f"),
        ("[]", b"\x80"),
        ("[ 1 , [ ] ]", b"\x82\x01\x80"),
        ("{}", b"\xa0"),
        (r#"{"a":1,"a":2}"#, b"\xa2\x61a\x01\x61a\x02"),
        (
            r#"{"data":"AP-_","x":"AP-_"}"#,
            b"\xa2\x64data\x43\x00\xff\xbf\x61x\x64AP-_",
        ),
    ];
    for (text, bytes) in cases {
        assert_eq!(cbor(text), bytes, "{text}");
    }
}

#[test]
fn long_arrays_and_objects_end_with_a_break() {
    let array = format!("[{}]", vec!["1"; 24].join(","));
    assert_eq!(cbor(&array), [&b"\x9f"[..], &[1; 24], b"\xff"].concat());
    let array = format!("[{}]", vec!["1"; 23].join(","));
    assert_eq!(cbor(&array), [&b"\x97"[..], &[1; 23]].concat());
}

#[test]
fn what_is_no_json_is_told_with_its_place() {
    for (text, error) in [
        ("", NotJson::Truncated(0)),
        (" ", NotJson::Truncated(1)),
        ("[", NotJson::Truncated(1)),
        ("[1", NotJson::Truncated(2)),
        ("[1,", NotJson::Truncated(3)),
        ("[1,]", NotJson::IllFormed(3)),
        ("[,1]", NotJson::IllFormed(1)),
        ("[1 2]", NotJson::IllFormed(3)),
        ("{1:2}", NotJson::IllFormed(1)),
        (r#"{"a"}"#, NotJson::IllFormed(4)),
        (r#"{"a":}"#, NotJson::IllFormed(5)),
        (r#"{"a":1,}"#, NotJson::IllFormed(7)),
        ("{'a':1}", NotJson::IllFormed(1)),
        ("1 2", NotJson::Trailing(2)),
        ("[]]", NotJson::Trailing(2)),
        ("tru", NotJson::Truncated(3)),
        ("trux", NotJson::IllFormed(0)),
        ("True", NotJson::IllFormed(0)),
        ("NaN", NotJson::IllFormed(0)),
        ("Infinity", NotJson::IllFormed(0)),
        ("-", NotJson::Truncated(1)),
        ("-x", NotJson::IllFormed(1)),
        ("+1", NotJson::IllFormed(0)),
        ("01", NotJson::Trailing(1)),
        (".5", NotJson::IllFormed(0)),
        ("1.", NotJson::Truncated(2)),
        ("1.e", NotJson::IllFormed(2)),
        ("1e", NotJson::Truncated(2)),
        ("1e+", NotJson::Truncated(3)),
        ("0x1", NotJson::Trailing(1)),
        ("\"", NotJson::Truncated(1)),
        ("\"a", NotJson::Truncated(2)),
        ("\"\\", NotJson::Truncated(2)),
        ("\"\\x\"", NotJson::IllFormed(1)),
        ("\"\n\"", NotJson::IllFormed(1)),
        ("\"\u{1f}\"", NotJson::IllFormed(1)),
        (r#""\u12"#, NotJson::Truncated(5)),
        (r#""\u12g4""#, NotJson::IllFormed(5)),
        (r#""\u+123""#, NotJson::IllFormed(3)),
        (r#""\ud800""#, NotJson::IllFormed(7)),
        (r#""\ud800x""#, NotJson::IllFormed(7)),
        (r#""\ud800\n""#, NotJson::IllFormed(8)),
        (r#""\ud800\ud800""#, NotJson::IllFormed(1)),
        (r#""\udc00""#, NotJson::IllFormed(1)),
        ("/* a */ 1", NotJson::IllFormed(0)),
        ("\u{feff}1", NotJson::IllFormed(0)),
    ] {
        assert_eq!(to_cbor(text), Err(error), "{text}");
    }
}

#[test]
fn nesting_ends_at_64_levels() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(to_cbor(&nested(64)).is_ok());
    assert_eq!(to_cbor(&nested(65)), Err(NotJson::Nested(64)));
    assert_eq!(to_cbor(&"[".repeat(1 << 20)), Err(NotJson::Nested(64)));
    assert_eq!(
        to_cbor(&r#"{"":"#.repeat(1 << 18)),
        Err(NotJson::Nested(256))
    );
}

#[test]
fn no_message_makes_much_more_cbor_than_it_has_text() {
    let limit = 1 << 18;
    for piece in [
        "1e1,",
        "1,",
        "-1,",
        "\"\",",
        "[],",
        "{},",
        "65536,",
        "4294967296,",
    ] {
        let text = format!("[{}1]", piece.repeat(limit / piece.len()));
        assert!(cbor(&text).len() <= text.len() * 9 / 4 + 8, "{piece}");
    }
}

#[test]
fn a_broken_message_is_answered_under_its_request_id() {
    for (text, id) in [
        ("[7", Some(7)),
        ("[7,", Some(7)),
        (r#"[7, {"Ping": {}"#, Some(7)),
        (r#"[7, {"Ping": {}}, "#, Some(7)),
        (r#"[7, {"Ping": {}}, 1"#, None),
        (r#"[7, {"Ping": {}}] x"#, Some(7)),
        (r#"[7, {"Ping": tru}]"#, Some(7)),
        (r#"[7, 5]"#, Some(7)),
        (r#"[9007199254740992, 5]"#, None),
        ("[7]", None),
        ("[-7, ", None),
        ("[7.0, ", None),
        (r#"["7", "#, None),
        (r#"{"Ping": "#, None),
        ("7", None),
        ("", None),
    ] {
        let rejection = decode_request(text).unwrap_err();
        assert_eq!(rejection.error.code, ErrorCode::Malformed, "{text}");
        assert_eq!(rejection.request_id, id.map(RequestId), "{text}");
    }
}

#[test]
fn a_key_that_stands_twice_is_malformed_however_it_is_written() {
    for text in [
        r#"{"Subscribe": {"subscription_id": "s", "subscription_id": "s"}}"#,
        r#"{"Subscribe": {"subscription_id": "s", "subscription\u005fid": "s"}}"#,
        r#"{"SubmitPublication": {"subscription_id": "s", "text": "a", "text": "a"}}"#,
        r#"{"CreateSubscription": {"subscription_id": "s", "settings": {"ack_timeout": 1, "ack_timeout": 1}}}"#,
        r#"{"Ping": {}, "Ping": {}}"#,
    ] {
        let rejection = decode_request(text).unwrap_err();
        assert_eq!(rejection.error.code, ErrorCode::Malformed, "{text}");
    }
}

#[test]
fn a_submission_is_base64url_or_an_array_of_bytes_or_text_or_json() {
    for (fields, data) in [
        (r#""submission": """#, &b""[..]),
        (r#""submission": "AP-_""#, b"\x00\xff\xbf"),
        (r#""submission": "aGk""#, b"hi"),
        (r#""submission": "aGk=""#, b"hi"),
        (r#""submission": "\u0061Gk""#, b"hi"),
        (r#""submission": [0, 104, 255]"#, b"\x00h\xff"),
        (r#""text": """#, b""),
        (r#""text": "hi \u00e9\n""#, "hi é\n".as_bytes()),
        (
            r#""json": {"a" : [1.50, null]} "#,
            br#"{"a" : [1.50, null]}"#,
        ),
        (r#""json": "aGk""#, br#""aGk""#),
        (r#""json":   -0"#, b"-0"),
        (
            r#""json": false, "text": null, "submission": null"#,
            b"false",
        ),
    ] {
        let submit = submitted(fields).unwrap_or_else(|error| panic!("{fields}: {error}"));
        assert_eq!(submit.submission, data, "{fields}");
    }
}

#[test]
fn a_submission_that_is_none_or_two_is_refused() {
    for (fields, why) in [
        (r#""kind": "Queue""#, "`submission` is missing"),
        (r#""json": null"#, "`submission` is missing"),
        (
            r#""submission": "aGk", "text": "hi""#,
            "`submission` and `text` are both given",
        ),
        (
            r#""text": "hi", "json": 1"#,
            "`text` and `json` are both given",
        ),
        (r#""submission": "a""#, "has to be bytes in base64url"),
        (r#""submission": "aGl""#, "has to be bytes in base64url"),
        (r#""submission": "AP+/""#, "has to be bytes in base64url"),
        (r#""submission": "a Gk""#, "has to be bytes in base64url"),
        (r#""submission": 5"#, "has to be bytes in base64url"),
        (r#""submission": [256]"#, "has to be bytes in base64url"),
        (
            r#""text": 5"#,
            "`text` is the number 5, but has to be a text",
        ),
        (
            r#""text": [104]"#,
            "`text` is an array of length 1, but has to be a text",
        ),
    ] {
        let error = submitted(fields).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{fields}");
        assert!(error.message.contains(why), "{fields}: {error}");
    }
}

#[test]
fn text_and_json_are_fields_of_a_submission_alone() {
    let ping = decode_request(r#"{"Ping": {"text": 1, "json": [], "data": "!"}}"#).unwrap();
    assert_eq!(ping.command, ClientCommand::Ping);
    let rejection = decode_request(r#"{"json": {"text": "a"}}"#).unwrap_err();
    assert_eq!(rejection.error.code, ErrorCode::UnknownCommand);
}

#[test]
fn an_integer_of_more_than_53_bits_is_out_of_every_range_and_a_float_is_none() {
    for number in [
        "9007199254740992",
        "18446744073709551616",
        "1.0",
        "1e3",
        "-1",
        "-0",
    ] {
        let text = format!(r#"{{"GetLogIndex": {{"log_id": "s", "after": {number}}}}}"#);
        let rejection = decode_request(&text).unwrap_err();
        assert_eq!(rejection.error.code, ErrorCode::InvalidArgument, "{number}");
    }
    assert!(
        decode_request(r#"{"GetLogIndex": {"log_id": "s", "after": 9007199254740991}}"#).is_ok()
    );
}

fn frame_text(frame: &[u8]) -> &str {
    let (head, len) = FrameHead::read(TEXT, frame).expect("a text frame");
    assert_eq!(frame.len(), head + len);
    std::str::from_utf8(&frame[head..]).unwrap()
}

#[test]
fn a_response_is_compact_and_its_uuids_are_text() {
    let mut out = BytesMut::new();
    let id = SubscriptionId::of_name("a");
    let unsubscribed = ServerResponse::Unsubscribed(About {
        subscription_id: id,
    });
    encode_response(&mut out, Some(RequestId(300)), &unsubscribed);
    assert_eq!(
        frame_text(&out),
        format!(r#"[300,{{"Unsubscribed":{{"subscription_id":"{id}"}}}}]"#)
    );
    let said = "a \"quote\",\\ \u{1}\u{1f}\u{7f}\n\t\r é 🚀 </script>";
    out.clear();
    encode_response(
        &mut out,
        None,
        &ServerError::new(ErrorCode::Internal, said).into(),
    );
    let value: serde_json::Value = serde_json::from_str(frame_text(&out)).unwrap();
    assert_eq!(
        value,
        json!({"Error": {"code": "internal", "message": said, "temporary": false}})
    );
}

fn publication<'a>(sequence: u64, publisher: Option<&'a str>, data: &'a [u8]) -> Publication<'a> {
    Publication {
        subscription_id: SubscriptionId::of_name("s"),
        publication_id: PublicationId::made(Timestamp(5), Sequence(sequence), 6),
        sequence: Sequence(sequence),
        time: Timestamp(1_754_000_000_000),
        publisher,
        dead_letter: sequence.is_multiple_of(2).then(|| DeadLetter {
            subscription_id: SubscriptionId::of_name("q"),
            epoch: Epoch(Uuid::from_u128(1)),
            sequence: Sequence(3),
            deliveries: 4,
            reason: DeadLetterReason::Rejected,
        }),
        data,
    }
}

#[test]
fn frames_are_converted_one_by_one_and_their_places_are_found() {
    let mut frames = Vec::new();
    let long = vec![7; 70_000];
    let publications: Vec<_> = [&b""[..], b"a", b"ab", b"abc", &long, &long[..100]]
        .into_iter()
        .zip([1, 9, 10, 99, 1 << 40, (1 << 53) - 1])
        .map(|(data, sequence)| publication(sequence, Some("an \"identity\""), data))
        .collect();
    for publication in &publications {
        publication.encode_into(&mut frames);
    }
    let converted = convert_frames(&frames);
    let places: Vec<_> = published(&converted).collect();
    assert_eq!(places.len(), publications.len());
    let mut at = 0;
    for ((len, sequence), publication) in places.iter().zip(&publications) {
        assert_eq!(*sequence, publication.sequence);
        let frame = &converted[at..at + len];
        at += len;
        let back = decode_response(&cbor(frame_text(frame)).into()).unwrap();
        let ServerMessage::Publication(received) = back.message else {
            panic!("{back:?}")
        };
        assert_eq!(received.data, publication.data);
        assert_eq!(received.dead_letter, publication.dead_letter);
        // What is cut is none.
        assert_eq!(published(&frame[..len - 1]).count(), 0);
    }
    assert_eq!(at, converted.len());
    assert_eq!(published(&frames).count(), publications.len());
}

#[test]
fn what_is_no_publication_has_no_place() {
    let mut out = BytesMut::new();
    let gap = ServerResponse::Gap(Gap {
        subscription_id: SubscriptionId::of_name("s"),
        from: Sequence(1),
        to: Sequence(2),
        cause: GapCause::Damage,
    });
    encode_response(&mut out, None, &gap);
    assert_eq!(published(&out).count(), 0);
    assert_eq!(published(b"\x81\x7f").count(), 0);
    assert_eq!(
        published(b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff").count(),
        0
    );
}

#[test]
fn conversion_ends_in_front_of_what_is_no_frame() {
    let mut frames = Vec::new();
    publication(1, None, b"a").encode_into(&mut frames);
    let whole = convert_frames(&frames);
    for behind in [&b"\x82"[..], b"\x82\x05\xa1", b"\x82\x01\xff", b"\x81\x00"] {
        assert_eq!(convert_frames(&[&frames, behind].concat()), whole);
    }
}

/// What both forms of a message of the server say, with the publications of an answer decoded.
fn meaning(message: Vec<u8>) -> (Received, Vec<ReceivedPublication>) {
    let mut received = decode_response(&message.into()).unwrap();
    let mut publications = Vec::new();
    if let ServerMessage::Response(ServerResponse::DataLogEntry(entry)) = &mut received.message {
        publications.extend(
            entry
                .publications
                .drain(..)
                .map(|fields| codec::decode_publication(&fields).unwrap()),
        );
    }
    (received, publications)
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn response() -> impl Strategy<Value = ServerResponse> {
    let ids = || prop::collection::vec(uuid().prop_map(PublicationId), 0..40);
    let text = "\\PC{0,30}|[\\x00-\\x7f]{0,30}";
    prop_oneof![
        (uuid(), any::<bool>(), text, 0..1_u64 << 53).prop_map(|(id, durable, server, number)| {
            ServerResponse::Welcome(Box::new(Welcome {
                session_id: SessionId(id),
                durable,
                resumed: !durable,
                subscriptions: Vec::new(),
                server: server.into(),
                limits: Limits {
                    max_message_size: number,
                    max_subscriptions: 1,
                    heartbeat_interval: 2,
                    heartbeat_timeout: 3,
                },
            }))
        }),
        (uuid(), 0..1_u64 << 53, prop::option::of(ids())).prop_map(|(id, count, lost)| {
            ServerResponse::Acknowledged(Settled {
                subscription_id: SubscriptionId(id),
                count,
                lost,
            })
        }),
        (text, prop::option::of(0..1_u64 << 53)).prop_map(|(message, retry_after)| {
            let mut error = ServerError::new(ErrorCode::RateLimited, message);
            error.retry_after = retry_after;
            error.into()
        }),
        (
            uuid(),
            ids(),
            prop::collection::vec(
                (1..1_u64 << 53, prop::collection::vec(any::<u8>(), 0..90)),
                0..5
            )
        )
            .prop_map(|(id, missing, publications)| {
                let mut frames = Vec::new();
                for (sequence, data) in &publications {
                    publication(*sequence, None, data).encode_into(&mut frames);
                }
                ServerResponse::DataLogEntry(Box::new(DataLogEntry {
                    log_id: SubscriptionId(id),
                    publications: stored_publications(&frames)
                        .map(|stored| Bytes::copy_from_slice(stored.unwrap().fields()))
                        .collect(),
                    missing,
                    more: true,
                }))
            }),
    ]
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<u64>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        any::<String>().prop_map(|value| json!(value)),
    ];
    leaf.prop_recursive(4, 60, 30, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..30).prop_map(|items| json!(items)),
            prop::collection::btree_map("[a-z]{0,3}|\\PC{1,2}", inner, 0..30)
                .prop_map(|pairs| json!(pairs)),
        ]
    })
}

/// The same by a reader of CBOR that is not ours.
fn same(json: &serde_json::Value, cbor: &serde_cbor::Value) -> bool {
    use serde_cbor::Value as Cbor;
    match (json, cbor) {
        (serde_json::Value::Null, Cbor::Null) => true,
        (serde_json::Value::Bool(json), Cbor::Bool(cbor)) => json == cbor,
        (serde_json::Value::Number(json), Cbor::Integer(cbor)) => json.as_i128() == Some(*cbor),
        (serde_json::Value::Number(json), Cbor::Float(cbor)) => json.as_f64() == Some(*cbor),
        (serde_json::Value::String(json), Cbor::Text(cbor)) => json == cbor,
        (serde_json::Value::Array(json), Cbor::Array(cbor)) => {
            json.len() == cbor.len() && json.iter().zip(cbor).all(|(json, cbor)| same(json, cbor))
        }
        (serde_json::Value::Object(json), Cbor::Map(cbor)) => {
            json.len() == cbor.len()
                && json.iter().all(|(key, json)| {
                    let cbor = cbor.get(&Cbor::Text(key.clone()));
                    cbor.is_some_and(|cbor| same(json, cbor))
                })
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn any_json_is_read_as_what_it_says(value in json_value(), is_pretty: bool) {
        let text = if is_pretty {
            serde_json::to_string_pretty(&value).unwrap()
        } else {
            value.to_string()
        };
        let read: serde_cbor::Value = serde_cbor::from_slice(&cbor(&text)).unwrap();
        prop_assert!(same(&value, &read), "{text} became {read:?}");
    }

    #[test]
    fn any_text_is_json_for_us_where_it_is_for_others(
        text in "\\PC{0,8}|[\\[\\]{}\":,0-9eE+. tn-]{0,8}|\\[1,(\\\\?\"|u|\\\\u|d|8|0|[a-f]){0,9}\\]"
    ) {
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text);
        // They let half of a surrogate pair pass in what they ignore.
        prop_assert!(to_cbor(&text).is_ok() == theirs.is_ok() || text.contains("\\u"), "{text}");
    }

    #[test]
    fn messages_of_the_server_are_the_same_in_both_forms(
        response in response(),
        id in prop::option::of(0..1_u64 << 53),
    ) {
        let id = id.map(RequestId);
        let mut binary = BytesMut::new();
        codec::encode_response(&mut binary, id, &response);
        let (head, len) = FrameHead::read_binary(&binary).unwrap();
        prop_assert_eq!(head + len, binary.len());
        let mut text = BytesMut::new();
        encode_response(&mut text, id, &response);
        let text = frame_text(&text);
        prop_assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
        prop_assert_eq!(from_cbor(&binary[head..]), Some(text.to_owned()));
        prop_assert_eq!(meaning(binary[head..].to_vec()), meaning(cbor(text)));
    }

    #[test]
    fn submissions_are_the_same_in_both_forms(
        data in prop::collection::vec(any::<u8>(), 0..300),
        name in "[a-zé\"\\\\ -]{1,60}",
        id in prop::option::of(uuid()),
    ) {
        let request = Request {
            id: Some(RequestId(7)),
            command: ClientCommand::SubmitPublication(SubmitPublication {
                subscription: name.as_str().into(),
                submission: data.into(),
                kind: None,
                publication_id: id.map(PublicationId),
                expected_sequence: None,
            }),
        };
        let text = from_cbor(&encode_request(&request)).unwrap();
        prop_assert_eq!(decode_request(&text), Ok(request));
    }

    #[test]
    fn deliveries_are_the_same_in_both_forms(
        data in prop::collection::vec(any::<u8>(), 0..300),
        sequence in 1..1_u64 << 53,
        delivery in 1..1_u64 << 32,
    ) {
        let mut stored = Vec::new();
        publication(sequence, Some("é\n"), &data).encode_into(&mut stored);
        let (publication, _) = StoredPublication::split_first(&stored).unwrap();
        let mut delivered = Vec::new();
        publication.encode_delivery(delivery, &mut delivered);
        let (head, _) = FrameHead::read_binary(&delivered).unwrap();
        let converted = convert_frames(&delivered);
        prop_assert_eq!(
            meaning(delivered[head..].to_vec()),
            meaning(cbor(frame_text(&converted)))
        );
    }
}
