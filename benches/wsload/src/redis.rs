//! Redis, which has no WebSocket: streams (`XADD`) over plain TCP.

use std::io::Write;

use crate::adapter::{Adapter, Context, Sink, number};

pub(crate) struct Redis;

impl Redis {
    /// Answers come in the order of what was asked.
    fn next_slot(context: &mut Context) -> u32 {
        let slot = context.sequence % context.slots.max(1);
        context.sequence += 1;
        slot as u32
    }
}

impl Adapter for Redis {
    fn is_websocket(&self) -> bool {
        false
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn hello(&self, _: &mut Context, sink: &mut Sink<'_>) {
        sink.send(b"PING\r\n");
    }

    fn publish(&self, context: &mut Context, _: u32, payload: &[u8], out: &mut Vec<u8>) {
        let topic = format!("t{}", context.topic);
        write!(
            out,
            "*5\r\n$4\r\nXADD\r\n${}\r\n{topic}\r\n$1\r\n*\r\n$1\r\nd\r\n${}\r\n",
            topic.len(),
            payload.len()
        )
        .expect("invariant: a vector takes every byte");
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn parse(&self, context: &mut Context, bytes: &[u8], sink: &mut Sink<'_>) -> usize {
        let mut at = 0;
        while let Some(end) = memchr::memchr(b'\n', &bytes[at..]) {
            let line = &bytes[at..at + end];
            match line {
                // The id of the entry, on a line of its own.
                [b'$', length @ ..] => {
                    let whole = end + 1 + number(length) as usize + 2;
                    if bytes.len() < at + whole {
                        return at;
                    }
                    at += whole;
                    sink.ack(Self::next_slot(context));
                    continue;
                }
                [b'+', ..] => sink.ready = true,
                _ => {
                    sink.error(line);
                    sink.refuse(Self::next_slot(context));
                }
            }
            at += end + 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{adapter::Role, engine::Engine};

    #[test]
    fn answers_free_the_slots_in_turn_wherever_they_are_cut() {
        let stream =
            b"+PONG\r\n$15\r\n1790000000000-0\r\n-OOM no memory\r\n$15\r\n1790000000000-1\r\n";
        for cut in 0..stream.len() {
            let mut engine = Engine::without_sockets(Box::new(Redis));
            engine.fake(Role::Publisher, true, 2);
            engine.stream(0, &stream[..cut]);
            engine.stream(0, &stream[cut..]);
            assert!(engine.connections[0].ready);
            assert_eq!(engine.connections[0].free, [0, 1, 0]);
            assert_eq!((engine.acked, engine.refused, engine.errors), (2, 1, 1));
        }
    }
}
