//! What a server must be spoken to with: the trait, and what an adapter tells the engine.
//!
//! An adapter owns a protocol's bytes and nothing else: no socket, no clock, no count. To add a server, implement
//! [`Adapter`] in a file of its own and name it in [`adapter`].

use crate::{
    histogram::Histogram, infotainer::Infotainer, mqtt::Mqtt, nats::Nats, raw::Raw, redis::Redis,
    websocket,
};

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Role {
    Subscriber,
    Publisher,
}

/// One connection, as its adapter sees it.
pub(crate) struct Context {
    pub(crate) role: Role,
    pub(crate) topic: u32,
    /// Its place among the connections, from 0.
    pub(crate) id: u32,
    /// Whether its publishes are to be acknowledged.
    pub(crate) acked: bool,
    /// For the adapter: how far the conversation has come.
    pub(crate) stage: u32,
    /// For the adapter: the last sequence, or a count.
    pub(crate) sequence: u64,
    /// How many publishes may be unacknowledged.
    pub(crate) slots: u64,
}

/// Marks a refused publish in [`Sink::acks`].
pub(crate) const REFUSED: u32 = 1 << 31;

/// What an adapter reports while it parses.
pub(crate) struct Sink<'a> {
    pub(crate) deliveries: u64,
    pub(crate) acks: &'a mut Vec<u32>,
    /// Where latencies are counted, if they are.
    pub(crate) latency: Option<&'a mut Histogram>,
    pub(crate) now: u64,
    pub(crate) ready: bool,
    pub(crate) errors: u64,
    pub(crate) first_error: &'a mut String,
    pub(crate) out: &'a mut Vec<u8>,
    /// The WebSocket opcode of what is sent back; none over plain TCP.
    pub(crate) opcode: Option<u8>,
    pub(crate) mask: &'a mut Mask,
}

/// Masking keys, which are cheap and not random: nothing between here and the server could be fooled.
pub(crate) struct Mask(pub(crate) u32);

impl Mask {
    #[inline]
    pub(crate) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0
    }
}

impl Sink<'_> {
    /// One message was delivered.
    #[inline]
    pub(crate) fn delivery(&mut self, payload: &[u8]) {
        self.deliveries += 1;
        if let Some(latency) = self.latency.as_mut()
            && let Some(stamp) = payload.get(..16)
        {
            let sent = stamp.iter().fold(0, |sent, &digit| {
                let value = if digit > b'9' {
                    digit.wrapping_sub(b'a').wrapping_add(10)
                } else {
                    digit.wrapping_sub(b'0')
                };
                sent << 4 | u64::from(value)
            });
            latency.add(self.now.saturating_sub(sent));
        }
    }

    /// The publish in `slot` was acknowledged.
    #[inline]
    pub(crate) fn ack(&mut self, slot: u32) {
        self.acks.push(slot);
    }

    /// The publish in `slot` was refused: the slot is free again, but nothing was acknowledged.
    pub(crate) fn refuse(&mut self, slot: u32) {
        self.acks.push(slot | REFUSED);
    }

    /// Something is wrong. The first one is shown.
    pub(crate) fn error(&mut self, what: &[u8]) {
        self.errors += 1;
        if self.first_error.is_empty() {
            *self.first_error = String::from_utf8_lossy(&what[..what.len().min(200)]).into_owned();
        }
    }

    /// Sends one message of the application back.
    pub(crate) fn send(&mut self, message: &[u8]) {
        match self.opcode {
            Some(opcode) => websocket::frame(self.out, opcode, message, self.mask.next()),
            None => self.out.extend_from_slice(message),
        }
    }
}

/// A protocol. What it does not override is that of binary WebSocket messages.
pub(crate) trait Adapter {
    /// False: plain TCP, without an upgrade and without frames.
    fn is_websocket(&self) -> bool {
        true
    }
    /// True: messages may straddle frames, so the frames' payloads are one stream of bytes.
    fn is_stream(&self) -> bool {
        false
    }
    fn path(&self) -> &'static str {
        "/"
    }
    fn subprotocol(&self) -> Option<&'static str> {
        None
    }
    /// Sent right after the upgrade, to log in and to subscribe. [`Sink::ready`] must follow from what is answered, or be set
    /// here when there is nothing to wait for.
    fn hello(&self, context: &mut Context, sink: &mut Sink<'_>);
    /// One publish to the context's topic as one message; `slot` tells it apart where acks are wanted.
    fn publish(&self, context: &mut Context, slot: u32, payload: &[u8], out: &mut Vec<u8>);
    /// Parses the whole messages at the front of `bytes`, and says how many bytes that were (of single messages: all).
    fn parse(&self, context: &mut Context, bytes: &[u8], sink: &mut Sink<'_>) -> usize;
}

/// The adapter of that name. With `replay`, subscribers want all that is stored.
pub(crate) fn adapter(name: &str, replay: bool) -> Option<Box<dyn Adapter>> {
    Some(match name {
        "infotainer" => Box::new(Infotainer { replay }),
        "nats" => Box::new(Nats { replay }),
        "mqtt" => Box::new(Mqtt),
        "redis" => Box::new(Redis),
        "raw" => Box::new(Raw),
        _ => return None,
    })
}

/// The number that the digits of `bytes` are.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |number: u64, digit| {
        number
            .wrapping_mul(10)
            .wrapping_add(u64::from(digit - b'0'))
    })
}
