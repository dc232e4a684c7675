//! Bodies of requests: how they come, and the pairs that they hold.
//!
//! What stands for data in JSON is told by the name of the field, as in [`shown`](crate::protocol::shown): `data` is a text, `data_base64`
//! bytes, `data_json` a value as it is written. In CBOR `data` is a byte string. Everything else is handed on as it is, and judged where
//! commands are.

use std::{fmt, time::Duration};

use actix_web::{HttpRequest, http::header, rt::time::timeout, web::Payload};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{negotiate::Format, problem::Problem};
use crate::protocol::{
    codec::{Pairs, encode_bytes},
    json,
};

/// How long a body may take to come. Longer than any of the permitted size takes that somebody means to send.
const PATIENCE: Duration = Duration::from_secs(30);

/// The body of `request`, if it comes in time and has at most `limit` bytes.
///
/// # Errors
/// If it does not.
pub(super) async fn read(
    request: &HttpRequest,
    mut payload: Payload,
    limit: usize,
) -> Result<Bytes, Problem> {
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|len| len > limit) {
        return Err(Problem::too_large(limit));
    }
    let whole = async {
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| Problem::malformed(error.to_string()))?;
            if first.len() + joined.len() + chunk.len() > limit {
                return Err(Problem::too_large(limit));
            }
            if first.is_empty() && joined.is_empty() {
                // Most come in one piece, which is not copied.
                first = chunk;
            } else {
                if joined.is_empty() {
                    joined.reserve(declared.unwrap_or_default());
                    joined.extend_from_slice(&std::mem::take(&mut first));
                }
                joined.extend_from_slice(&chunk);
            }
        }
        Ok(if joined.is_empty() {
            first
        } else {
            joined.freeze()
        })
    };
    timeout(PATIENCE, whole)
        .await
        .unwrap_or_else(|_| Err(Problem::too_slow()))
}

/// The pairs of a body; none, if it is empty.
///
/// # Errors
/// If it is no map.
pub(super) fn pairs(format: Format, body: &Bytes) -> Result<Pairs, Problem> {
    if body.is_empty() {
        return Ok(Pairs::default());
    }
    match format {
        Format::Cbor => Ok(Pairs::decode(body)?),
        Format::Json => json::<Object<'_>>(body)?.pairs(),
    }
}

/// The pairs of a body that are those of a submission.
///
/// # Errors
/// If it is no map, or not one thing in it stands for the data.
pub(super) fn submission(format: Format, body: &Bytes) -> Result<Pairs, Problem> {
    match format {
        Format::Cbor => named(Pairs::decode(body)?),
        Format::Json => json::<Object<'_>>(body)?.submission(),
    }
}

/// The pairs of each of the submissions in `publications`.
///
/// # Errors
/// As for one; and if there is no such array.
pub(super) fn submissions(format: Format, body: &Bytes) -> Result<Vec<Pairs>, Problem> {
    const NAME: &str = "publications";
    match format {
        Format::Cbor => Pairs::decode_each(body, NAME)?
            .into_iter()
            .map(named)
            .collect(),
        Format::Json => {
            let Object(pairs) = json(body)?;
            let mut arrays = pairs.into_iter().filter(|(key, _)| key == NAME);
            let (Some((_, array)), None) = (arrays.next(), arrays.next()) else {
                return Err(Problem::invalid(
                    "`publications` has to stand there once, and to be an array of objects",
                ));
            };
            let objects: Vec<Object<'_>> = serde_json::from_str(array.get()).map_err(|error| {
                Problem::invalid(format!("`publications` is no array of objects: {error}"))
            })?;
            objects.into_iter().map(Object::submission).collect()
        }
    }
}

/// What CBOR calls data is what the command calls its submission.
fn named(mut pairs: Pairs) -> Result<Pairs, Problem> {
    let data = pairs
        .take("data")
        .ok_or_else(|| Problem::invalid("`data` is missing; it has to be a byte string"))?;
    pairs.put("submission", data);
    Ok(pairs)
}

fn json<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::malformed(format!("the body is no object of JSON: {error}")))
}

/// The pairs of an object in their order, those that stand twice, too: whether that may be is judged later.
struct Object<'b>(Vec<(String, &'b RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Object(pairs))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

impl Object<'_> {
    fn pairs(self) -> Result<Pairs, Problem> {
        let mut pairs = Pairs::default();
        for (key, value) in self.0 {
            pairs.put(&key, cbor(value)?);
        }
        Ok(pairs)
    }

    fn submission(self) -> Result<Pairs, Problem> {
        let mut pairs = Pairs::default();
        let mut data = None;
        for (key, value) in self.0 {
            let bytes = match &*key {
                "data" => field::<String>(&key, value, "a text")?.into_bytes(),
                "data_json" => value.get().as_bytes().to_vec(),
                "data_base64" => {
                    let text = field::<String>(&key, value, "a text")?;
                    BASE64.decode(text).map_err(|error| {
                        Problem::invalid(format!("`data_base64` is no base64: {error}"))
                    })?
                }
                _ => {
                    pairs.put(&key, cbor(value)?);
                    continue;
                }
            };
            if data.replace(bytes).is_some() {
                return Err(Problem::invalid(
                    "only one of `data`, `data_base64` and `data_json` can be given, once",
                ));
            }
        }
        let data = data
            .ok_or_else(|| Problem::invalid("`data`, `data_base64` or `data_json` is missing"))?;
        pairs.put("submission", encode_bytes(&data));
        Ok(pairs)
    }
}

/// With padding or without: both are written, and neither can be misread.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn field<T: DeserializeOwned>(key: &str, value: &RawValue, wanted: &str) -> Result<T, Problem> {
    serde_json::from_str(value.get())
        .map_err(|_| Problem::invalid(format!("`{key}` has to be {wanted}")))
}

/// A value as CBOR, by the bounded reader that messages in JSON have: serde_json's own value, with raw ones about, reads a text inside of
/// a text, and so without a limit to how deep. A UUID stays the text that it is, which a command takes for one.
fn cbor(value: &RawValue) -> Result<Vec<u8>, Problem> {
    json::to_cbor(value.get())
        .map_err(|error| Problem::malformed(format!("the body is no object of JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        ClientCommand, RequestId,
        codec::{decode_request, encode_reference},
    };

    fn submitted(body: &str) -> Result<Bytes, Problem> {
        let mut pairs = submission(Format::Json, &Bytes::copy_from_slice(body.as_bytes()))?;
        pairs.put("subscription_id", encode_reference(&"news".into()));
        let message = pairs.message(RequestId(1), "SubmitPublication").into();
        match decode_request(&message)
            .map_err(|rejection| rejection.error)?
            .command
        {
            ClientCommand::SubmitPublication(submit) => Ok(submit.submission),
            other => panic!("another command: {other:?}"),
        }
    }

    #[test]
    fn data_is_a_text_bytes_or_a_value() {
        for (body, data) in [
            (r#"{"data": "a\u00fc"}"#, "aü"),
            (r#"{"data_base64": "YcO8"}"#, "aü"),
            (r#"{"data_base64": "YQ"}"#, "a"),
            (r#"{"data_base64": "YQ=="}"#, "a"),
            (
                r#"{"data_json": {"b": 1.0,  "a": []}, "unknown": {}}"#,
                r#"{"b": 1.0,  "a": []}"#,
            ),
            (r#"{"data_json": null}"#, "null"),
            (
                r#"{"data": "", "publication_id": "5f2b6c1e-8d3a-4b7f-9c0d-1e2f3a4b5c6d", "kind": null}"#,
                "",
            ),
        ] {
            assert_eq!(submitted(body).unwrap(), data.as_bytes(), "{body}");
        }
    }

    #[test]
    fn what_is_no_submission_is_refused() {
        for body in [
            "",
            "[]",
            "{",
            "{}",
            r#"{"data": 1}"#,
            r#"{"data": null}"#,
            r#"{"data_base64": "%"}"#,
            r#"{"data": "a", "data_base64": "YQ=="}"#,
            r#"{"data": "a", "data": "a"}"#,
            r#"{"data": "a", "kind": "Queue", "kind": "Queue"}"#,
            r#"{"data": "a", "subscription_id": "news"}"#,
            r#"{"data": "a", "expected_sequence": 1.5}"#,
            r#"{"data": "a", "publication_id": "1"}"#,
        ] {
            assert!(submitted(body).is_err(), "{body}");
        }
    }

    #[test]
    fn many_are_an_array() {
        let many =
            |body: &'static str| submissions(Format::Json, &Bytes::from_static(body.as_bytes()));
        assert_eq!(
            many(r#"{"publications": [{"data": "a"}, {"data": "b"}]}"#)
                .unwrap()
                .len(),
            2
        );
        assert_eq!(many(r#"{"publications": []}"#).unwrap().len(), 0);
        for body in [
            "{}",
            r#"{"publications": {}}"#,
            r#"{"publications": [1]}"#,
            r#"{"publications": [], "publications": []}"#,
        ] {
            assert!(many(body).is_err(), "{body}");
        }
    }

    #[test]
    fn text_inside_of_a_text_is_read_no_deeper_than_any_other() {
        let mut nested = "1".to_owned();
        for _ in 0..280 {
            let text = nested.replace('\\', "\\u005c").replace('"', "\\u0022");
            let (open, close) = ("[".repeat(120), "]".repeat(120));
            nested = format!(r#"{open}{{"$serde_json::private::RawValue":"{text}"}}{close}"#);
        }
        assert!(submitted(&format!(r#"{{"data":"x","x":{nested}}}"#)).is_err());
        let one = r#"{"data":"x","x":{"$serde_json::private::RawValue":"[[1]]"}}"#;
        assert!(submitted(one).is_ok());
    }
}
