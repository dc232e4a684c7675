//! What the server sends: the bytes of each exact vector are those that it makes of the vector's JSON, and what the client
//! makes of the bytes of each is that JSON.

use bytes::{Bytes, BytesMut};
use infotainer::protocol::codec::{Received, ServerMessage, decode_response, encode_response};
use infotainer::protocol::{
    About, Authenticated, DataLogEntry, DeadLetter, DeadLetterReason, Epoch, Gap, GapCause, Limits,
    LogIndex, Pong, Publication, PublicationId, ReceivedPublication, RequestId,
    RestoredSubscription, Sequence, ServerError, ServerResponse, SessionId, Settled, ShownSettings,
    StoredPublication, Submitted, Subscribed, SubscriptionId, SubscriptionMeta, Subscriptions,
    Timestamp, TokenExpiring, Welcome,
};
use serde_json::{Map, Value};

use super::commands::{known, uuid};
use super::{Direction, ERROR_CODES, bytes_of, vectors};

#[test]
fn each_response_is_sent_as_its_vector_says() {
    let mut count = 0;
    for vector in vectors(Direction::ServerToClient) {
        let fields = Fields(vector.fields.as_ref().unwrap());
        if !vector.exact {
            continue;
        }
        count += 1;
        let mut frame = BytesMut::new();
        match vector.response.as_deref().unwrap() {
            "Publication" => frame.extend_from_slice(&fields.delivered()),
            name => encode_response(
                &mut frame,
                vector.request_id.map(RequestId),
                &fields.response(name),
            ),
        }
        assert_eq!(payload(&frame), vector.bytes, "{}", vector.name);
    }
    assert!(count > 0);
}

#[test]
fn each_response_is_understood_as_its_vector_says() {
    for vector in vectors(Direction::ServerToClient) {
        let fields = Fields(vector.fields.as_ref().unwrap());
        let message = match vector.response.as_deref().unwrap() {
            "Publication" => ServerMessage::Publication(fields.received_publication()),
            name => ServerMessage::Response(fields.response(name)),
        };
        let expected = Received {
            request_id: vector.request_id.map(RequestId),
            message,
        };
        let received = decode_response(&Bytes::copy_from_slice(&vector.bytes));
        assert_eq!(received, Ok(expected), "{}", vector.name);
    }
}

/// The message in a whole, unmasked frame (RFC 6455, section 5.2).
fn payload(frame: &[u8]) -> &[u8] {
    assert_eq!(frame[0], 0x82);
    let (len, at) = match frame[1] {
        126 => (u64::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        127 => (u64::from_be_bytes(frame[2..10].try_into().unwrap()), 10),
        len => (u64::from(len), 2),
    };
    assert_eq!(len, (frame.len() - at) as u64);
    &frame[at..]
}

/// The server's own names are static.
fn kept(text: &str) -> &'static str {
    text.to_owned().leak()
}

/// A vector's `fields`: UUIDs as text, bytes as hex.
struct Fields<'v>(&'v Map<String, Value>);

impl Fields<'_> {
    fn response(&self, name: &str) -> ServerResponse {
        match name {
            "Welcome" => ServerResponse::Welcome(Box::new(self.welcome())),
            "Subscribed" => ServerResponse::Subscribed(Box::new(Subscribed {
                subscription_id: self.subscription_id(),
                kind: self.known("kind"),
                epoch: self.epoch(),
                first_sequence: self.sequence("first_sequence"),
                last_sequence: self.sequence("last_sequence"),
                recovered: self.known("recovered"),
                cursor: self.number("cursor").map(Sequence),
                prefetch: self.number("prefetch").map(|number| number as u16),
            })),
            "Unsubscribed" => ServerResponse::Unsubscribed(self.about()),
            "Deleted" => ServerResponse::Deleted(self.about()),
            "Submitted" => ServerResponse::Submitted(Submitted {
                subscription_id: self.subscription_id(),
                publication_id: PublicationId(uuid(&self.0["publication_id"])),
                sequence: self.sequence("sequence"),
                duplicate: self.known("duplicate"),
                durability: self.known("durability"),
            }),
            "Acknowledged" => ServerResponse::Acknowledged(self.settled()),
            "Rejected" => ServerResponse::Rejected(self.settled()),
            "Extended" => ServerResponse::Extended(self.settled()),
            "LogIndex" => ServerResponse::LogIndex(Box::new(LogIndex {
                log_id: SubscriptionId(uuid(&self.0["log_id"])),
                entries: self.ids("entries").unwrap(),
                first_sequence: self.sequence("first_sequence"),
                last_sequence: self.sequence("last_sequence"),
                more: self.known("more"),
            })),
            "DataLogEntry" => ServerResponse::DataLogEntry(Box::new(self.data_log_entry())),
            "SubscriptionMeta" => ServerResponse::SubscriptionMeta(Box::new(self.meta())),
            "Subscriptions" => ServerResponse::Subscriptions(Box::new(Subscriptions {
                subscriptions: self.maps("subscriptions").map(|map| map.meta()).collect(),
                more: self.known("more"),
            })),
            "Gap" => ServerResponse::Gap(Gap {
                subscription_id: self.subscription_id(),
                from: self.sequence("from"),
                to: self.sequence("to"),
                cause: match self.0["cause"].as_str().unwrap() {
                    "retention" => GapCause::Retention,
                    "damage" => GapCause::Damage,
                    other => panic!("{other}"),
                },
            }),
            "Pong" => ServerResponse::Pong(Pong {
                time: self.time("time"),
            }),
            "Authenticated" => ServerResponse::Authenticated(Authenticated {
                name: self.0.get("name").map(known),
                expires: self.0.contains_key("expires").then(|| self.time("expires")),
            }),
            "TokenExpiring" => ServerResponse::TokenExpiring(TokenExpiring {
                expires: self.time("expires"),
            }),
            "Error" => ServerResponse::from(self.error()),
            other => panic!("{other} is no response"),
        }
    }

    fn welcome(&self) -> Welcome {
        let limits = Fields(self.0["limits"].as_object().unwrap());
        Welcome {
            session_id: SessionId(uuid(&self.0["session_id"])),
            durable: self.known("durable"),
            resumed: self.known("resumed"),
            subscriptions: self
                .maps("subscriptions")
                .map(|map| RestoredSubscription {
                    subscription_id: map.subscription_id(),
                    kind: map.known("kind"),
                    epoch: map.epoch(),
                    cursor: map.sequence("cursor"),
                    recovered: map.known("recovered"),
                })
                .collect(),
            server: self.0["server"].as_str().unwrap().to_owned().into(),
            limits: Limits {
                max_message_size: limits.known("max_message_size"),
                max_subscriptions: limits.known("max_subscriptions"),
                heartbeat_interval: limits.known("heartbeat_interval"),
                heartbeat_timeout: limits.known("heartbeat_timeout"),
            },
        }
    }

    fn meta(&self) -> SubscriptionMeta {
        let settings = Fields(self.0["settings"].as_object().unwrap());
        SubscriptionMeta {
            subscription_id: self.subscription_id(),
            kind: self.known("kind"),
            epoch: self.epoch(),
            settings: ShownSettings {
                name: settings.0.get("name").map(known),
                retention: settings.known("retention"),
                durability: settings.known("durability"),
                ack_timeout: settings.number("ack_timeout"),
                max_deliveries: settings.number("max_deliveries"),
                dead_letter: settings.0.get("dead_letter").map(uuid).map(Into::into),
            },
            created: self.time("created"),
            first_sequence: self.sequence("first_sequence"),
            last_sequence: self.sequence("last_sequence"),
            bytes: self.known("bytes"),
            subscribers: self.known("subscribers"),
            connected: self.known("connected"),
            pending: self.number("pending"),
            in_flight: self.number("in_flight"),
        }
    }

    fn data_log_entry(&self) -> DataLogEntry {
        DataLogEntry {
            log_id: SubscriptionId(uuid(&self.0["log_id"])),
            publications: self
                .maps("publications")
                .map(|map| {
                    let frame = map.publication();
                    let (stored, behind) = StoredPublication::split_first(&frame).unwrap();
                    assert_eq!(behind, b"");
                    Bytes::copy_from_slice(stored.fields())
                })
                .collect(),
            missing: self.ids("missing").unwrap(),
            more: self.known("more"),
        }
    }

    fn error(&self) -> ServerError {
        let code = ERROR_CODES
            .into_iter()
            .find(|code| self.0["code"] == code.as_str())
            .unwrap();
        let error = ServerError {
            command: self
                .0
                .get("command")
                .map(|name| kept(name.as_str().unwrap())),
            retry_after: self.number("retry_after"),
            subscription_id: self.0.get("subscription_id").map(uuid).map(Into::into),
            ..ServerError::new(code, self.0["message"].as_str().unwrap())
        };
        assert_eq!(error.temporary, self.known::<bool>("temporary"), "{code}");
        error
    }

    /// The whole frame.
    fn publication(&self) -> Vec<u8> {
        let data = bytes_of(self.0["data"].as_str().unwrap());
        let mut frame = Vec::new();
        Publication {
            subscription_id: self.subscription_id(),
            publication_id: PublicationId(uuid(&self.0["publication_id"])),
            sequence: self.sequence("sequence"),
            time: self.time("time"),
            publisher: self.0.get("publisher").map(|name| name.as_str().unwrap()),
            dead_letter: self.dead_letter(),
            data: &data,
        }
        .encode_into(&mut frame);
        frame
    }

    /// The whole frame of what a subscriber gets.
    fn delivered(&self) -> Vec<u8> {
        let stored = self.publication();
        let Some(delivery) = self.number("delivery") else {
            return stored;
        };
        let (stored, _) = StoredPublication::split_first(&stored).unwrap();
        let mut frame = Vec::new();
        stored.encode_delivery(delivery, &mut frame);
        frame
    }

    fn dead_letter(&self) -> Option<DeadLetter> {
        let fields = Fields(self.0.get("dead_letter")?.as_object().unwrap());
        Some(DeadLetter {
            subscription_id: fields.subscription_id(),
            epoch: fields.epoch(),
            sequence: fields.sequence("sequence"),
            deliveries: fields.known("deliveries"),
            reason: DeadLetterReason::from_text(fields.0["reason"].as_str().unwrap()).unwrap(),
        })
    }

    fn received_publication(&self) -> ReceivedPublication {
        ReceivedPublication {
            subscription_id: self.subscription_id(),
            publication_id: PublicationId(uuid(&self.0["publication_id"])),
            sequence: self.sequence("sequence"),
            time: self.time("time"),
            publisher: self.0.get("publisher").map(known),
            dead_letter: self.dead_letter(),
            data: bytes_of(self.0["data"].as_str().unwrap()).into(),
            delivery: self.number("delivery"),
        }
    }

    fn about(&self) -> About {
        About {
            subscription_id: self.subscription_id(),
        }
    }

    fn settled(&self) -> Settled {
        Settled {
            subscription_id: self.subscription_id(),
            count: self.known("count"),
            lost: self.ids("lost"),
        }
    }

    fn known<T: serde::de::DeserializeOwned>(&self, name: &str) -> T {
        known(&self.0[name])
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(known)
    }

    fn sequence(&self, name: &str) -> Sequence {
        Sequence(self.known(name))
    }

    fn time(&self, name: &str) -> Timestamp {
        Timestamp(self.known(name))
    }

    fn subscription_id(&self) -> SubscriptionId {
        SubscriptionId(uuid(&self.0["subscription_id"]))
    }

    fn epoch(&self) -> Epoch {
        Epoch(uuid(&self.0["epoch"]))
    }

    fn ids(&self, name: &str) -> Option<Vec<PublicationId>> {
        let ids = self.0.get(name)?.as_array().unwrap();
        Some(ids.iter().map(|id| PublicationId(uuid(id))).collect())
    }

    fn maps(&self, name: &str) -> impl Iterator<Item = Fields<'_>> {
        let maps = self.0[name].as_array().unwrap();
        maps.iter().map(|map| Fields(map.as_object().unwrap()))
    }
}
