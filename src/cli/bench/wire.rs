//! The messages of the loads: few commands, encoded once; answers, looked at no further than needed.
//!
//! Owns the bytes of commands and the first look at answers. Does not own frames ([`connection`](super::connection)).

use infotainer::protocol::{Durability, SubscriptionId, codec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// `SubmitPublication`, encoded once; for each publication only the request id and the subscription are written anew.
pub(super) struct Submission {
    message: Vec<u8>,
}

impl Submission {
    /// Array of two, and the head of a request id of four bytes.
    const ENVELOPE: &[u8] = b"\x82\x1a\0\0\0\0";
    const HEAD: &[u8] = b"\xa1\x71SubmitPublication\xa2\x6fsubscription_id\x50";
    /// Bytes of payload that a number takes.
    pub(super) const NUMBER: u32 = 4;
    const REQUEST_ID_AT: usize = 2;
    const SUBSCRIPTION_AT: usize = Self::ENVELOPE.len() + Self::HEAD.len();
    /// The head of a byte string whose length has four bytes.
    const DATA: &[u8] = b"\x6asubmission\x5a";
    const DATA_AT: usize = Self::SUBSCRIPTION_AT + 16 + Self::DATA.len() + 4;

    /// A submission of `size` random bytes.
    pub(super) fn new(size: u32) -> Self {
        let mut message = [Self::ENVELOPE, Self::HEAD, &[0; 16]].concat();
        message.extend_from_slice(Self::DATA);
        message.extend_from_slice(&size.to_be_bytes());
        message.extend((0..size).map(|_| fastrand::u8(..)));
        Self { message }
    }

    /// Writes `number` at the beginning of the payload, if there is room.
    pub(super) fn number(&mut self, number: u32) {
        if let Some(begin) = self.message[Self::DATA_AT..].first_chunk_mut() {
            *begin = number.to_be_bytes();
        }
    }

    /// The number at the beginning of a payload.
    pub(super) fn number_of(payload: &[u8]) -> Option<u32> {
        payload.first_chunk().copied().map(u32::from_be_bytes)
    }

    /// The message that asks for an answer under `request_id`.
    pub(super) fn asked(&mut self, request_id: u32, subscription: SubscriptionId) -> &[u8] {
        let id = Self::REQUEST_ID_AT;
        self.message[id..id + 4].copy_from_slice(&request_id.to_be_bytes());
        self.address(subscription);
        &self.message
    }

    /// The message that is answered by silence.
    pub(super) fn bare(&mut self, subscription: SubscriptionId) -> &[u8] {
        self.address(subscription);
        &self.message[Self::ENVELOPE.len()..]
    }

    fn address(&mut self, subscription: SubscriptionId) {
        let at = Self::SUBSCRIPTION_AT;
        self.message[at..at + 16].copy_from_slice(subscription.0.as_bytes());
    }
}

/// The commands round a load.
#[derive(Serialize)]
pub(super) enum Command<'a> {
    CreateSubscription {
        subscription_id: &'a str,
        settings: Settings,
    },
    Subscribe {
        subscription_id: &'a str,
        kind: &'static str,
        from: &'static str,
    },
    GetSubscription {
        subscription_id: &'a str,
    },
    DeleteSubscription {
        subscription_id: &'a str,
    },
}

/// Settings of the subscriptions that a load makes.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) durability: Option<Durability>,
}

impl Command<'_> {
    /// The message that asks for an answer under `request_id`.
    pub(super) fn asked(&self, request_id: u32) -> Vec<u8> {
        codec::encode_value(&(request_id, self))
    }
}

/// A message from the server, seen from outside.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Answer<'m> {
    /// What it answers.
    pub(super) request_id: Option<u64>,
    /// Which response it is.
    pub(super) name: &'m [u8],
    fields: &'m [u8],
}

/// The `Error` response.
#[derive(Deserialize, Debug)]
pub(super) struct ErrorFields {
    code: String,
    message: String,
}

/// What of `Subscribed` a load needs.
#[derive(Deserialize)]
pub(super) struct SubscribedFields {
    pub(super) cursor: u64,
    pub(super) last_sequence: u64,
}

/// What of `Gap` a load needs.
#[derive(Deserialize)]
pub(super) struct GapFields {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// What of `SubscriptionMeta` a load needs.
#[derive(Deserialize)]
pub(super) struct MetaFields {
    pub(super) last_sequence: u64,
    pub(super) connected: u64,
}

impl<'m> Answer<'m> {
    /// `None` if `payload` is no response.
    pub(super) fn of(payload: &'m [u8]) -> Option<Self> {
        let (request_id, response) = match payload.strip_prefix(b"\x82") {
            Some(rest) => split_unsigned(rest).map(|(id, rest)| (Some(id), rest))?,
            None => (None, payload),
        };
        let [0xa1, head, rest @ ..] = response else {
            return None;
        };
        let (name, fields) = rest.split_at_checked(match head {
            0x60..=0x77 => usize::from(head - 0x60),
            _ => return None,
        })?;
        Some(Self {
            request_id,
            name,
            fields,
        })
    }

    /// The fields, decoded. `None` if they are others.
    pub(super) fn fields<T: DeserializeOwned>(&self) -> Option<T> {
        codec::decode_value(self.fields).ok()
    }

    /// What the server says went wrong, if this is an `Error`.
    pub(super) fn error(&self) -> Option<String> {
        (self.name == b"Error").then(|| match self.fields::<ErrorFields>() {
            Some(error) => format!("{}: {}", error.code, error.message),
            None => "an error that can't be read".to_owned(),
        })
    }
}

fn split_unsigned(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&head, rest) = bytes.split_first()?;
    let len = match head {
        0..=23 => return Some((u64::from(head), rest)),
        24..=27 => 1 << (head - 24),
        _ => return None,
    };
    let (number, rest) = rest.split_at_checked(len)?;
    let number = number
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use infotainer::protocol::{
        ClientCommand, ErrorCode, Request, RequestId, ServerError, ServerResponse,
    };

    use super::*;

    #[test]
    fn submissions_are_what_the_server_reads() {
        let mut submission = Submission::new(300);
        submission.number(70_000);
        let id = SubscriptionId::of_name("a");
        let asked = Bytes::copy_from_slice(submission.asked(7, id));
        let bare = Bytes::copy_from_slice(submission.bare(id));
        for (message, request_id) in [(asked, Some(RequestId(7))), (bare, None)] {
            let Request { id: got, command } = codec::decode_request(&message).unwrap();
            let ClientCommand::SubmitPublication(submit) = command else {
                panic!("{command:?}");
            };
            assert_eq!(
                (got, submit.subscription.id, submit.submission.len()),
                (request_id, id, 300)
            );
            assert_eq!(Submission::number_of(&submit.submission), Some(70_000));
        }
    }

    #[test]
    fn a_payload_without_room_for_a_number_has_none() {
        let mut submission = Submission::new(3);
        let before = submission.bare(SubscriptionId::of_name("a")).to_vec();
        submission.number(u32::MAX);
        assert_eq!(submission.bare(SubscriptionId::of_name("a")), before);
        assert_eq!(Submission::number_of(&[0; 3]), None);
    }

    #[test]
    fn commands_are_what_the_server_reads() {
        let name = "a";
        for command in [
            Command::CreateSubscription {
                subscription_id: name,
                settings: Settings {
                    durability: Some(Durability::Written),
                },
            },
            Command::Subscribe {
                subscription_id: name,
                kind: "Broadcast",
                from: "First",
            },
            Command::GetSubscription {
                subscription_id: name,
            },
            Command::DeleteSubscription {
                subscription_id: name,
            },
        ] {
            let message = Bytes::from(command.asked(70_000));
            let request = codec::decode_request(&message).unwrap();
            assert_eq!(request.id, Some(RequestId(70_000)));
        }
    }

    #[test]
    fn an_error_is_told_with_its_code() {
        let mut frame = BytesMut::new();
        let error = ServerError::new(ErrorCode::LogFull, "no room");
        codec::encode_response(
            &mut frame,
            Some(RequestId(300)),
            &ServerResponse::from(error),
        );
        let answer = Answer::of(&frame[2..]).unwrap();
        assert_eq!(answer.request_id, Some(300));
        assert_eq!(answer.error().unwrap(), "log-full: no room");
    }
}
