//! MQTT 3.1.1 over plain TCP: Debian builds mosquitto without WebSocket. Unacknowledged publishes are QoS 0, others QoS 1.

use crate::adapter::{Adapter, Context, Role, Sink};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 9;

pub(crate) struct Mqtt;

/// Appends a packet's length: seven bits a byte, the lowest first.
fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length > 127 {
        out.push(length as u8 | 128);
        length >>= 7;
    }
    out.push(length as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The packet at the front of `bytes`, if it is there whole: its first byte, its body, and its length with all.
fn packet(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().skip(1).take(4) {
        length |= usize::from(byte & 127) << (7 * (at - 1));
        if byte & 128 == 0 {
            let whole = at + 1 + length;
            return Some((bytes[0], bytes.get(at + 1..whole)?, whole));
        }
    }
    None
}

impl Adapter for Mqtt {
    fn is_websocket(&self) -> bool {
        false
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn hello(&self, context: &mut Context, sink: &mut Sink<'_>) {
        // Version 4, a clean session, no keep-alive.
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        put_text(&mut body, &format!("c{}", context.id));
        let mut packet = vec![CONNECT];
        put_length(&mut packet, body.len());
        packet.extend(body);
        sink.send(&packet);
    }

    fn publish(&self, context: &mut Context, slot: u32, payload: &[u8], out: &mut Vec<u8>) {
        let topic = format!("t{}", context.topic);
        let qos = u8::from(context.acked);
        out.push(PUBLISH << 4 | qos << 1);
        put_length(out, 2 + topic.len() + 2 * usize::from(qos) + payload.len());
        put_text(out, &topic);
        if context.acked {
            // 0 is no packet's number.
            out.extend_from_slice(&(slot as u16 + 1).to_be_bytes());
        }
        out.extend_from_slice(payload);
    }

    fn parse(&self, context: &mut Context, bytes: &[u8], sink: &mut Sink<'_>) -> usize {
        let mut at = 0;
        while let Some((first, body, length)) = packet(&bytes[at..]) {
            at += length;
            match (first >> 4, body) {
                (PUBLISH, &[high, low, ref rest @ ..]) => {
                    let topic = usize::from(u16::from_be_bytes([high, low]));
                    sink.delivery(rest.get(topic..).unwrap_or_default());
                }
                (PUBACK, &[high, low, ..]) => {
                    sink.ack(u32::from(u16::from_be_bytes([high, low])).wrapping_sub(1));
                }
                (CONNACK, &[_, 0, ..]) if context.role == Role::Publisher => sink.ready = true,
                (CONNACK, &[_, 0, ..]) => {
                    let topic = format!("t{}", context.topic);
                    let mut packet = vec![SUBSCRIBE];
                    put_length(&mut packet, 5 + topic.len());
                    packet.extend([0, 1]);
                    put_text(&mut packet, &topic);
                    packet.push(0);
                    sink.send(&packet);
                }
                (SUBACK, _) => sink.ready = true,
                _ => sink.error(b"an unexpected packet"),
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;

    #[test]
    fn packets_of_every_length_are_found_wherever_they_are_cut() {
        let mut stream = b"\x20\x02\x00\x00\x90\x03\x00\x01\x00".to_vec();
        for payload in [0, 100, 123, 124, 200, 20_000] {
            stream.push(PUBLISH << 4);
            put_length(&mut stream, 4 + payload);
            put_text(&mut stream, "t0");
            stream.resize(stream.len() + payload, b'x');
        }
        for cut in 0..stream.len().min(1000) {
            let mut engine = Engine::without_sockets(Box::new(Mqtt));
            engine.fake(Role::Subscriber, false, 0);
            engine.stream(0, &stream[..cut]);
            engine.stream(0, &stream[cut..]);
            assert!(engine.connections[0].ready);
            assert_eq!((engine.delivered, engine.errors), (6, 0), "cut at {cut}");
        }
    }

    #[test]
    fn an_acknowledgement_names_the_slot_of_its_publish() {
        let mut engine = Engine::without_sockets(Box::new(Mqtt));
        engine.fake(Role::Publisher, true, 300);
        engine.publish(0, 258, b"x");
        assert_eq!(engine.sent(0), b"\x32\x07\x00\x02t0\x01\x03x");
        engine.stream(0, b"\x40\x02\x01\x03");
        assert_eq!(engine.connections[0].free, [258]);
    }
}
