//! Publications as objects that carry the fields of the protocol, for where a publication is no ready frame: HTTP, server-sent events,
//! the command line. The one place that says what becomes of bytes in JSON.
//!
//! | form | `data` |
//! | --- | --- |
//! | [`Text`](DataForm::Text) | `data`, a text; or `data_base64` where it is no UTF-8 |
//! | [`Json`](DataForm::Json) | `data_json`, the value, as it was written; or as `Text` where it is no JSON |
//! | [`Base64`](DataForm::Base64) | `data_base64` |
//! | [`Bytes`](DataForm::Bytes) | `data`, a byte string, as on the socket: only for CBOR |

use std::str;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{
    DeadLetter, Epoch, PublicationId, ReceivedPublication, Sequence, SubscriptionId, Timestamp,
};

/// How data is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DataForm {
    /// As text where it is UTF-8.
    #[default]
    Text,
    /// As the value that it is where it is JSON.
    Json,
    /// In base64 (RFC 4648, section 4), always.
    Base64,
    /// As bytes.
    Bytes,
}

/// A publication as an object: the fields of the protocol, but for data.
#[derive(Serialize, Debug)]
pub struct ShownPublication<'a> {
    subscription_id: SubscriptionId,
    publication_id: PublicationId,
    sequence: Sequence,
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    publisher: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<ShownDeadLetter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

#[derive(Debug)]
enum Data<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

#[derive(Serialize, Debug)]
struct ShownDeadLetter {
    subscription_id: SubscriptionId,
    epoch: Epoch,
    sequence: Sequence,
    deliveries: u64,
    reason: &'static str,
}

impl From<DeadLetter> for ShownDeadLetter {
    fn from(dead_letter: DeadLetter) -> Self {
        Self {
            subscription_id: dead_letter.subscription_id,
            epoch: dead_letter.epoch,
            sequence: dead_letter.sequence,
            deliveries: dead_letter.deliveries,
            reason: dead_letter.reason.text(),
        }
    }
}

impl<'a> ShownPublication<'a> {
    /// `publication`, its data in this form.
    pub fn new(publication: &'a ReceivedPublication, form: DataForm) -> Self {
        let bytes = &publication.data[..];
        let (mut data, mut data_json, mut data_base64) = (None, None, None);
        match form {
            DataForm::Bytes => data = Some(Data::Bytes(bytes)),
            DataForm::Json => data_json = serde_json::from_slice(bytes).ok(),
            DataForm::Text | DataForm::Base64 => {}
        }
        if data.is_none() && data_json.is_none() {
            match str::from_utf8(bytes) {
                Ok(text) if form != DataForm::Base64 => data = Some(Data::Text(text)),
                _ => data_base64 = Some(STANDARD.encode(bytes)),
            }
        }
        Self {
            subscription_id: publication.subscription_id,
            publication_id: publication.publication_id,
            sequence: publication.sequence,
            time: publication.time,
            publisher: publication.publisher.as_deref(),
            dead_letter: publication.dead_letter.map(Into::into),
            delivery: publication.delivery,
            data,
            data_json,
            data_base64,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    fn shown(data: &'static [u8], form: DataForm) -> String {
        let publication = ReceivedPublication {
            subscription_id: SubscriptionId(Uuid::nil()),
            publication_id: PublicationId(Uuid::nil()),
            sequence: Sequence(1),
            time: Timestamp(2),
            publisher: None,
            dead_letter: None,
            data: Bytes::from_static(data),
            delivery: None,
        };
        let shown = serde_json::to_string(&ShownPublication::new(&publication, form)).unwrap();
        let (_, data) = shown.split_once("\"time\":2,").unwrap();
        data.trim_end_matches('}').to_owned()
    }

    #[test]
    fn the_name_of_the_field_tells_what_stands_in_it() {
        for (data, form, field) in [
            (&b"a\"\n"[..], DataForm::Text, r#""data":"a\"\n""#),
            (b"", DataForm::Text, r#""data":"""#),
            (b"\xff\x00", DataForm::Text, r#""data_base64":"/wA=""#),
            (b"abc", DataForm::Base64, r#""data_base64":"YWJj""#),
            (b"abc", DataForm::Json, r#""data":"abc""#),
            (b"\xff", DataForm::Json, r#""data_base64":"/w==""#),
        ] {
            assert_eq!(shown(data, form), field);
        }
    }

    #[test]
    fn json_is_shown_as_it_was_written() {
        for json in [
            r#"{"b":1.0, "a":[12345678901234567890]}"#,
            "null",
            "\"x\"",
            "1e400",
        ] {
            let json: &'static str = json;
            let field = format!("\"data_json\":{json}");
            assert_eq!(
                shown(json.as_bytes(), DataForm::Json),
                field.trim_end_matches('}')
            );
        }
    }
}
