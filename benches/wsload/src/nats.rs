//! NATS over WebSocket: core NATS, and for publishes that are acknowledged JetStream, whose stream `S` of the subjects `js.>`
//! whoever starts the server makes. Replay is a push consumer without acknowledgements, in memory, with flow control.

use std::io::Write;

use crate::adapter::{Adapter, Context, Role, Sink, number};

pub(crate) struct Nats {
    pub(crate) replay: bool,
}

/// What the subscriptions of a connection are for, by the number it gave them.
const DELIVERIES: u8 = b'1';
const ACKS: u8 = b'2';
const ANSWERS: u8 = b'3';

const STALLED: &[u8] = b"Nats-Consumer-Stalled: ";

impl Nats {
    /// A message without headers: `MSG subject number [reply] length`.
    #[inline]
    fn message(line: &[u8], body: &[u8], sink: &mut Sink<'_>) {
        let subject = 4 + memchr::memchr(b' ', &line[4..]).unwrap_or(0);
        match line.get(subject + 1) {
            Some(&DELIVERIES) => sink.delivery(body),
            Some(&ACKS) => {
                let slot = Self::slot(&line[..subject]);
                if body.starts_with(b"{\"error") {
                    sink.error(body);
                    sink.refuse(slot);
                } else {
                    sink.ack(slot);
                }
            }
            _ => {
                if memchr::memmem::find(body, b"\"error\"").is_some() {
                    sink.error(body);
                }
            }
        }
    }

    /// A message with headers: `HMSG subject number [reply] header-length length`.
    fn message_with_headers(words: &[&[u8]], headers: &[u8], body: &[u8], sink: &mut Sink<'_>) {
        let answer = |sink: &mut Sink<'_>, subject: &[u8]| {
            sink.send(&[b"PUB ", subject, b" 0\r\n\r\n"].concat());
        };
        if headers.starts_with(b"NATS/1.0 100") {
            // Flow control is answered; an idle heartbeat says whether one was missed.
            if let [_, _, _, reply, _, _] = words {
                answer(sink, reply);
            } else if let Some(at) = memchr::memmem::find(headers, STALLED) {
                let subject = &headers[at + STALLED.len()..];
                let end = memchr::memchr(b'\r', subject).unwrap_or(subject.len());
                answer(sink, &subject[..end]);
            }
        } else if headers.starts_with(b"NATS/1.0 ") {
            sink.error(headers);
            if words[2] == [ACKS] {
                sink.refuse(Self::slot(words[1]));
            }
        } else {
            sink.delivery(body);
        }
    }

    /// The slot that an ack's subject ends with.
    fn slot(subject: &[u8]) -> u32 {
        let dot = memchr::memrchr(b'.', subject).unwrap_or(0);
        number(&subject[dot..]) as u32
    }
}

impl Adapter for Nats {
    fn is_stream(&self) -> bool {
        true
    }

    fn hello(&self, context: &mut Context, sink: &mut Sink<'_>) {
        let mut hello = concat!(
            r#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"#,
            r#""protocol":1,"lang":"wsload","version":"0"}"#,
            "\r\n"
        )
        .to_owned();
        let id = context.id;
        match context.role {
            Role::Subscriber if self.replay => {
                let consumer = format!(
                    concat!(
                        r#"{{"stream_name":"S","config":{{"deliver_subject":"d.{}","deliver_policy":"all","#,
                        r#""ack_policy":"none","replay_policy":"instant","mem_storage":true,"flow_control":true,"#,
                        r#""idle_heartbeat":5000000000,"inactive_threshold":30000000000}}}}"#
                    ),
                    id
                );
                hello += &format!("SUB d.{id} 1\r\nSUB r.{id} {}\r\n", ANSWERS as char);
                hello += &format!(
                    "PUB $JS.API.CONSUMER.CREATE.S r.{id} {}\r\n",
                    consumer.len()
                );
                hello += &consumer;
                hello += "\r\n";
            }
            Role::Subscriber => hello += &format!("SUB t{} 1\r\n", context.topic),
            Role::Publisher if context.acked => hello += &format!("SUB a.{id}.* 2\r\n"),
            Role::Publisher => {}
        }
        hello += "PING\r\n";
        sink.send(hello.as_bytes());
    }

    fn publish(&self, context: &mut Context, slot: u32, payload: &[u8], out: &mut Vec<u8>) {
        let (topic, id, length) = (context.topic, context.id, payload.len());
        if context.acked {
            write!(out, "PUB js.t{topic} a.{id}.{slot} {length}\r\n")
        } else {
            write!(out, "PUB t{topic} {length}\r\n")
        }
        .expect("invariant: a vector takes every byte");
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn parse(&self, context: &mut Context, bytes: &[u8], sink: &mut Sink<'_>) -> usize {
        let mut at = 0;
        while let Some(end) = memchr::memchr(b'\n', &bytes[at..]) {
            let rest = &bytes[at..];
            let line = &rest[..end.saturating_sub(1)];
            let body = &rest[end + 1..];
            at += end + 1;
            match line {
                [b'M', b'S', b'G', ..] => {
                    let space = memchr::memrchr(b' ', line).unwrap_or(0);
                    let length = number(&line[space..]) as usize;
                    if body.len() < length + 2 {
                        return at - (end + 1);
                    }
                    Self::message(line, &body[..length], sink);
                    at += length + 2;
                }
                [b'H', ..] => {
                    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
                    let [_, _, _, .., headers, length] = &words[..] else {
                        sink.error(line);
                        continue;
                    };
                    let (headers, length) = (number(headers) as usize, number(length) as usize);
                    if body.len() < length + 2 {
                        return at - (end + 1);
                    }
                    let (headers, body) = body[..length].split_at(headers.min(length));
                    Self::message_with_headers(&words, headers, body, sink);
                    at += length + 2;
                }
                b"PING" => sink.send(b"PONG\r\n"),
                // The first one answers the PING behind the subscriptions.
                b"PONG" if context.stage == 0 => {
                    context.stage = 1;
                    sink.ready = true;
                }
                [b'-', ..] => sink.error(line),
                _ => {}
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::Engine, websocket};

    /// Fed as frames of `size` bytes.
    fn fed(role: Role, stream: &[u8], size: usize) -> Engine {
        let mut engine = Engine::without_sockets(Box::new(Nats { replay: false }));
        engine.fake(role, true, 8);
        for piece in stream.chunks(size) {
            let mut frame = Vec::new();
            websocket::server_frame(&mut frame, 2, &[piece]);
            engine.feed(0, &frame);
        }
        engine
    }

    #[test]
    fn messages_are_counted_wherever_frames_cut_them() {
        let stream = b"INFO {}\r\nPONG\r\nMSG t0 1 5\r\nhello\r\nMSG t0 1 reply 0\r\n\r\nHMSG t0 1 12 15\r\nNATS/1.0\r\n\r\nabc\r\n";
        for size in 1..stream.len() {
            let engine = fed(Role::Subscriber, stream, size);
            assert!(engine.connections[0].ready);
            assert_eq!(
                (engine.delivered, engine.errors),
                (3, 0),
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn an_acknowledgement_with_an_error_is_none() {
        let stream = b"MSG a.0.3 2 20\r\n{\"stream\":\"S\",\"a\":1}\r\nMSG a.0.7 2 12\r\n{\"error\":{}}\r\nHMSG a.0.5 2 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
        for size in 1..stream.len() {
            let engine = fed(Role::Publisher, stream, size);
            assert_eq!((engine.acked, engine.refused, engine.errors), (1, 2, 2));
            assert_eq!(engine.connections[0].free, [3, 7, 5], "pieces of {size}");
        }
    }

    #[test]
    fn flow_control_is_answered() {
        let stream = b"HMSG d.0 1 $JS.FC.x 28 28\r\nNATS/1.0 100 FlowControl\r\n\r\n\r\nHMSG d.0 1 50 50\r\nNATS/1.0 100 Idle\r\nNats-Consumer-Stalled: fc.y\r\n\r\n\r\n";
        let engine = fed(Role::Subscriber, stream, 1000);
        assert_eq!(
            (engine.delivered, engine.errors),
            (0, 0),
            "{}",
            engine.first_error
        );
        let sent = [&b"PUB $JS.FC.x 0\r\n\r\n"[..], b"PUB fc.y 0\r\n\r\n"].concat();
        let lengths: usize = engine.sent(0).len();
        assert_eq!(lengths, sent.len() + 2 * 6, "two masked frames");
    }
}
