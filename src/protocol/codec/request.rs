//! Requests as messages: the client's half of the codec, whose other half is `response`.
//!
//! Every number and length is in its shortest form, UUIDs are byte strings, names are texts, and what is `None` is left
//! out. What [`decode_request`](super::decode_request) makes of a message is the request that it was made of.

use super::encode::shortest;
use crate::protocol::{
    Acknowledged, ClientCommand, Durability, GetLogEntries, GetLogIndex, Kind, Patch,
    PublicationId, Request, Retention, SettingsPatch, SubscribeFrom, SubscriptionReference,
};

const UNSIGNED: u8 = 0x00;
const BYTES: u8 = 0x40;
const TEXT: u8 = 0x60;
const ARRAY: u8 = 0x80;
const MAP: u8 = 0xa0;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;

/// The payload of the binary WebSocket message that `request` travels in.
pub fn encode_request(request: &Request) -> Vec<u8> {
    let mut writer = Writer(Vec::with_capacity(encoded_len_at_least(&request.command)));
    if let Some(id) = request.id {
        writer.head(ARRAY, 2);
        writer.unsigned(id.0);
    }
    if request.command == ClientCommand::Ping {
        writer.text("Ping");
        return writer.0;
    }
    writer.head(MAP, 1);
    writer.text(request.command.name());
    put_fields(&mut writer, &request.command);
    writer.0
}

fn encoded_len_at_least(command: &ClientCommand) -> usize {
    const WITHOUT_PAYLOAD: usize = 128;
    WITHOUT_PAYLOAD
        + match command {
            ClientCommand::SubmitPublication(submit) => submit.submission.len() + 64,
            ClientCommand::GetLogEntries(GetLogEntries::Ids(_, ids)) => {
                ids.len() * PublicationId::ENCODED_LEN
            }
            _ => 0,
        }
}

fn put_fields(writer: &mut Writer, command: &ClientCommand) {
    match command {
        ClientCommand::Subscribe(subscribe) => writer.map(|map| {
            map.reference("subscription_id", &subscribe.subscription);
            map.kind(subscribe.kind);
            if let Some(from) = subscribe.from {
                map.from(from);
            }
            map.optional_uuid("epoch", subscribe.epoch.map(|epoch| epoch.0));
            map.optional_number("prefetch", subscribe.prefetch.map(u64::from));
        }),
        ClientCommand::SubmitPublication(submit) => writer.map(|map| {
            map.reference("subscription_id", &submit.subscription);
            map.optional_uuid("publication_id", submit.publication_id.map(|id| id.0));
            map.optional_number(
                "expected_sequence",
                submit.expected_sequence.map(|sequence| sequence.0),
            );
            map.kind(submit.kind);
            map.key("submission").bytes(&submit.submission);
        }),
        ClientCommand::Acknowledge(acknowledge) => writer.map(|map| {
            map.reference("subscription_id", &acknowledge.subscription);
            match &acknowledge.what {
                Acknowledged::UpTo(sequence) => map.number("sequence", sequence.0),
                Acknowledged::Ids(ids) => map.ids("publication_ids", ids),
            }
        }),
        ClientCommand::Reject(reject) => writer.map(|map| {
            map.reference("subscription_id", &reject.subscription);
            map.ids("publication_ids", &reject.publication_ids);
            map.optional_number("delay", reject.delay);
            if reject.dead_letter {
                map.key("dead_letter").byte(TRUE);
            }
        }),
        ClientCommand::Extend(extend) => writer.map(|map| {
            map.reference("subscription_id", &extend.subscription);
            map.ids("publication_ids", &extend.publication_ids);
        }),
        ClientCommand::GetLogIndex(range)
        | ClientCommand::GetLogEntries(GetLogEntries::Range(range)) => {
            writer.map(|map| map.range(range));
        }
        ClientCommand::GetLogEntries(GetLogEntries::Ids(log, ids)) => writer.map(|map| {
            map.reference("log_id", log);
            map.ids("entries", ids);
        }),
        ClientCommand::CreateSubscription(create) => writer.map(|map| {
            map.reference("subscription_id", &create.subscription);
            map.kind(create.kind);
            if create.settings != SettingsPatch::default() {
                map.settings(&create.settings);
            }
        }),
        ClientCommand::UpdateSubscription(update) => writer.map(|map| {
            map.reference("subscription_id", &update.subscription);
            map.settings(&update.settings);
        }),
        ClientCommand::Unsubscribe(subscription)
        | ClientCommand::GetSubscription(subscription)
        | ClientCommand::DeleteSubscription(subscription) => {
            writer.map(|map| map.reference("subscription_id", subscription));
        }
        ClientCommand::ListSubscriptions(list) => writer.map(|map| {
            map.optional_uuid("after", list.after.map(|id| id.0));
            map.number("limit", list.limit as u64);
        }),
        ClientCommand::Authenticate(authenticate) => {
            writer.map(|map| map.key("token").text(authenticate.token.reveal()));
        }
        ClientCommand::Ping => writer.head(MAP, 0),
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn head(&mut self, major: u8, argument: u64) {
        let (head, len) = shortest(major, argument);
        self.0.extend_from_slice(&head[..len]);
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn unsigned(&mut self, number: u64) {
        self.head(UNSIGNED, number);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.head(BYTES, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn reference(&mut self, reference: &SubscriptionReference) {
        match &reference.name {
            Some(name) => self.text(name),
            None => self.bytes(reference.id.0.as_bytes()),
        }
    }

    /// A map with the pairs that `put_pairs` puts. They are counted while they are put, so that what is left out stands in one
    /// place.
    fn map(&mut self, put_pairs: impl FnOnce(&mut MapWriter<'_>)) {
        let at = self.0.len();
        self.byte(MAP);
        let mut map = MapWriter {
            writer: self,
            pairs: 0,
        };
        put_pairs(&mut map);
        // No map of the protocol has more pairs than fit into the first byte.
        self.0[at] |= map.pairs;
    }
}

struct MapWriter<'a> {
    writer: &'a mut Writer,
    pairs: u8,
}

impl MapWriter<'_> {
    fn key(&mut self, name: &str) -> &mut Writer {
        self.pairs += 1;
        self.writer.text(name);
        self.writer
    }

    fn number(&mut self, name: &str, number: u64) {
        self.key(name).unsigned(number);
    }

    fn optional_number(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.number(name, number);
        }
    }

    fn optional_uuid(&mut self, name: &str, uuid: Option<uuid::Uuid>) {
        if let Some(uuid) = uuid {
            self.key(name).bytes(uuid.as_bytes());
        }
    }

    fn reference(&mut self, name: &str, reference: &SubscriptionReference) {
        self.key(name).reference(reference);
    }

    fn ids(&mut self, name: &str, ids: &[PublicationId]) {
        let writer = self.key(name);
        writer.head(ARRAY, ids.len() as u64);
        for id in ids {
            writer.bytes(id.0.as_bytes());
        }
    }

    fn kind(&mut self, kind: Option<Kind>) {
        if let Some(kind) = kind {
            self.key("kind").text(match kind {
                Kind::Broadcast => "Broadcast",
                Kind::Queue => "Queue",
            });
        }
    }

    fn from(&mut self, from: SubscribeFrom) {
        let writer = self.key("from");
        match from {
            SubscribeFrom::New => writer.text("New"),
            SubscribeFrom::First => writer.text("First"),
            SubscribeFrom::After(position) => writer.map(|map| map.number("After", position.0)),
            SubscribeFrom::Since(time) => writer.map(|map| map.number("Since", time.0)),
            SubscribeFrom::Last(count) => writer.map(|map| map.number("Last", count)),
        }
    }

    fn range(&mut self, range: &GetLogIndex) {
        self.reference("log_id", &range.log);
        self.number("after", range.after.0);
        self.number("limit", range.limit as u64);
    }

    fn settings(&mut self, settings: &SettingsPatch) {
        let SettingsPatch {
            retention,
            durability,
            ack_timeout,
            max_deliveries,
            dead_letter,
        } = settings;
        self.key("settings").map(|map| {
            map.patch("retention", retention, |writer, retention| {
                let Retention {
                    max_publications,
                    max_bytes,
                    max_age,
                } = *retention;
                writer.map(|map| {
                    map.optional_number("max_publications", max_publications);
                    map.optional_number("max_bytes", max_bytes);
                    map.optional_number("max_age", max_age);
                });
            });
            map.patch("durability", durability, |writer, durability| {
                writer.text(match durability {
                    Durability::Memory => "Memory",
                    Durability::Written => "Written",
                    Durability::Synced => "Synced",
                });
            });
            map.patch("ack_timeout", ack_timeout, |writer, number| {
                writer.unsigned(*number);
            });
            map.patch("max_deliveries", max_deliveries, |writer, number| {
                writer.unsigned(*number);
            });
            map.patch("dead_letter", dead_letter, Writer::reference);
        });
    }

    fn patch<T>(&mut self, name: &str, patch: &Patch<T>, put_value: impl FnOnce(&mut Writer, &T)) {
        match patch {
            Patch::Absent => {}
            Patch::Default => self.key(name).byte(NULL),
            Patch::Value(value) => put_value(self.key(name), value),
        }
    }
}

#[cfg(test)]
mod tests;
