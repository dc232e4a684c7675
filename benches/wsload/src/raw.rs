//! The protocol of [`limit`](crate::limit), in binary messages: `[3][topic, u32]` subscribes and is answered by `[4]`;
//! `[0][topic][payload]` publishes, and is delivered as it is; `[1][topic][slot, u64][payload]` publishes and is answered by
//! `[2][slot]`. Numbers have their lowest byte first.

use crate::adapter::{Adapter, Context, Role, Sink};

pub(crate) const PUBLISH: u8 = 0;
pub(crate) const PUBLISH_ACKED: u8 = 1;
pub(crate) const ACK: u8 = 2;
pub(crate) const SUBSCRIBE: u8 = 3;
pub(crate) const SUBSCRIBED: u8 = 4;

pub(crate) struct Raw;

impl Adapter for Raw {
    fn hello(&self, context: &mut Context, sink: &mut Sink<'_>) {
        if context.role == Role::Subscriber {
            let mut message = vec![SUBSCRIBE];
            message.extend_from_slice(&context.topic.to_le_bytes());
            sink.send(&message);
        } else {
            sink.ready = true;
        }
    }

    fn publish(&self, context: &mut Context, slot: u32, payload: &[u8], out: &mut Vec<u8>) {
        out.push(if context.acked {
            PUBLISH_ACKED
        } else {
            PUBLISH
        });
        out.extend_from_slice(&context.topic.to_le_bytes());
        if context.acked {
            out.extend_from_slice(&u64::from(slot).to_le_bytes());
        }
        out.extend_from_slice(payload);
    }

    #[inline]
    fn parse(&self, _: &mut Context, bytes: &[u8], sink: &mut Sink<'_>) -> usize {
        match *bytes {
            [PUBLISH, _, _, _, _, ref payload @ ..] => sink.delivery(payload),
            [ACK, a, b, c, d, ..] => sink.ack(u32::from_le_bytes([a, b, c, d])),
            [SUBSCRIBED] => sink.ready = true,
            _ => sink.error(bytes),
        }
        bytes.len()
    }
}
