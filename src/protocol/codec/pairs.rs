//! Commands whose fields are known as pairs: a body that came by HTTP becomes the message of a command, and is judged as one.
//!
//! Owns the envelope round the pairs. Does not judge values: that is [`decode_request`](super::decode_request)'s, for every way in.

use bytes::Bytes;

use super::encode::shortest;
use crate::protocol::scan::{Item, only_item};
use crate::protocol::{ErrorCode, RequestId, ServerError, SubscriptionReference};

const UNSIGNED: u8 = 0x00;
const BYTES: u8 = 0x40;
const TEXT: u8 = 0x60;
const ARRAY: u8 = 0x80;
const MAP: u8 = 0xa0;

/// The fields of a command, each a name and the encoding of its value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pairs(Vec<(String, Bytes)>);

impl Pairs {
    /// The pairs of the one map that `body` is. Keys that are no text are left out, as unknown fields are.
    ///
    /// # Errors
    /// `malformed` if it is no such map.
    pub fn decode(body: &Bytes) -> Result<Self, ServerError> {
        let item = only_item(body).map_err(|error| malformed(error.to_string()))?;
        Self::of(body, item).ok_or_else(|| malformed("the body is no map"))
    }

    /// The pairs of each map in the array at `name`.
    ///
    /// # Errors
    /// `malformed` if `body` is no map, `invalid-argument` if there is no such array.
    pub fn decode_each(body: &Bytes, name: &str) -> Result<Vec<Self>, ServerError> {
        let mut pairs = Self::decode(body)?;
        let array = pairs.take(name).ok_or_else(|| {
            invalid(format!(
                "`{name}` is missing; it has to be an array of maps"
            ))
        })?;
        let item = only_item(&array).map_err(|error| malformed(error.to_string()))?;
        let elements = item.elements().ok_or_else(|| {
            invalid(format!(
                "`{name}` is {item}, but has to be an array of maps"
            ))
        })?;
        elements
            .map(|item| {
                Self::of(&array, item)
                    .ok_or_else(|| invalid(format!("`{name}` holds {item}, not a map")))
            })
            .collect()
    }

    fn of(whole: &Bytes, item: Item<'_>) -> Option<Self> {
        let pairs = item.pairs()?.filter_map(|(key, value)| {
            let key = String::from_utf8(key.text()?.into_owned()).ok()?;
            Some((key, whole.slice_ref(value.untagged_bytes())))
        });
        Some(Self(pairs.collect()))
    }

    /// Adds a pair.
    pub fn put(&mut self, name: &str, value: impl Into<Bytes>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// Takes the pairs of this name out that are `null`, which is absence.
    pub fn drop_null(&mut self, name: &str) {
        const NULL: [u8; 1] = [0xf6];
        self.0
            .retain(|(key, value)| key != name || value[..] != NULL);
    }

    /// Whether there is a pair of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Takes the first pair of this name out.
    pub fn take(&mut self, name: &str) -> Option<Bytes> {
        let place = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(place).1)
    }

    /// The message `[id, {command: pairs}]`.
    pub fn message(&self, id: RequestId, command: &str) -> Vec<u8> {
        let len = self
            .0
            .iter()
            .map(|(key, value)| key.len() + value.len() + 3);
        let mut message = Vec::with_capacity(len.sum::<usize>() + command.len() + 16);
        put_head(&mut message, ARRAY, 2);
        put_head(&mut message, UNSIGNED, id.0);
        put_head(&mut message, MAP, 1);
        put_text(&mut message, command);
        put_head(&mut message, MAP, self.0.len());
        for (key, value) in &self.0 {
            put_text(&mut message, key);
            message.extend_from_slice(value);
        }
        message
    }
}

/// A byte string as a value.
pub fn encode_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 9);
    put_head(&mut out, BYTES, bytes.len());
    out.extend_from_slice(bytes);
    out
}

/// A subscription reference as a value: the name, if it has one.
pub fn encode_reference(reference: &SubscriptionReference) -> Vec<u8> {
    match &reference.name {
        Some(name) => {
            let mut out = Vec::with_capacity(name.len() + 3);
            put_text(&mut out, name);
            out
        }
        None => encode_bytes(reference.id.0.as_bytes()),
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_head(out, TEXT, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_head(out: &mut Vec<u8>, major: u8, argument: impl TryInto<u64>) {
    let argument = argument.try_into().unwrap_or(u64::MAX);
    let (head, len) = shortest(major, argument);
    out.extend_from_slice(&head[..len]);
}

fn malformed(message: impl Into<String>) -> ServerError {
    ServerError::new(ErrorCode::Malformed, message)
}

fn invalid(message: impl Into<String>) -> ServerError {
    ServerError::new(ErrorCode::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ClientCommand, codec::decode_request};

    fn decoded(pairs: &Pairs, command: &str) -> Result<ClientCommand, ServerError> {
        let message = pairs.message(RequestId(7), command).into();
        match decode_request(&message) {
            Ok(request) => {
                assert_eq!(request.id, Some(RequestId(7)));
                Ok(request.command)
            }
            Err(rejection) => Err(rejection.error),
        }
    }

    #[test]
    fn pairs_of_a_body_become_the_command_that_they_are_the_fields_of() {
        // {_ "submission": h'01', 1: 2, "publication_id": 37(h'00…')}
        let mut body = b"\xbf\x6asubmission\x41\x01\x01\x02\x6epublication_id\xd8\x25\x50".to_vec();
        body.extend([0; 16]);
        body.push(0xff);
        let mut pairs = Pairs::decode(&body.into()).unwrap();
        pairs.put("subscription_id", encode_reference(&"news".into()));
        let ClientCommand::SubmitPublication(submit) =
            decoded(&pairs, "SubmitPublication").unwrap()
        else {
            panic!("another command");
        };
        assert_eq!(submit.subscription, "news".into());
        assert_eq!(&submit.submission[..], [1]);
        assert!(submit.publication_id.is_some());
    }

    #[test]
    fn a_field_that_is_given_twice_is_malformed_as_on_the_socket() {
        let mut pairs =
            Pairs::decode(&Bytes::from_static(b"\xa1\x6fsubscription_id\x61a")).unwrap();
        pairs.put("subscription_id", encode_reference(&"b".into()));
        let error = decoded(&pairs, "GetSubscription").unwrap_err();
        assert_eq!(error.code, ErrorCode::Malformed);
    }

    #[test]
    fn a_body_that_is_no_map_is_refused() {
        for body in [&b""[..], b"\x80", b"\xa0\xa0", b"\xa1\x61a", b"\xff"] {
            let error = Pairs::decode(&Bytes::from_static(body)).unwrap_err();
            assert_eq!(error.code, ErrorCode::Malformed, "{body:02x?}");
        }
        for body in [&b"\xa0"[..], b"\xa1\x61x\x01", b"\xa1\x61x\x81\x01"] {
            let error = Pairs::decode_each(&Bytes::from_static(body), "x").unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{body:02x?}");
        }
        let each = Pairs::decode_each(&Bytes::from_static(b"\xa1\x61x\x81\xa1\x61y\x01"), "x");
        assert_eq!(each.unwrap().len(), 1);
    }
}
