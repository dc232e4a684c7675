//! infotainer, subprotocol `infotainer.v1.cbor`: one CBOR item in each binary message, read and written by hand.
//!
//! Besides counting, the reader checks what the protocol promises: every message is one well-formed item, and the
//! sequences of a subscription follow the `cursor` of its `Subscribed` without a hole or a repetition. What breaks
//! that is counted in `errors` (the first one is shown); the message itself still counts as delivered.

mod cbor;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::adapter::{Adapter, Context, Role, Sink};
use cbor::{Cbor, MAX_DEPTH, put_head, put_text};

pub(crate) struct Infotainer {
    /// Subscribe from "First".
    pub(crate) replay: bool,
}

/// `Context::stage`: the sequence that must come next is known to be behind `Context::sequence`.
const POSITION_KNOWN: u32 = 1;
/// Request id of `Subscribe`.
const SUBSCRIBE_ID: u64 = 1;

/// The subscription named `t` and the topic's number.
fn put_reference(out: &mut Vec<u8>, topic: u32) {
    let (mut digits, mut at, mut rest) = ([0; 10], 10, topic);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    put_head(out, 3, 1 + digits[at..].len() as u64);
    out.push(b't');
    out.extend_from_slice(&digits[at..]);
}

/// What a server message says, as far as a load generator cares.
enum Said<'a> {
    Publication { sequence: u64, data: Cow<'a, [u8]> },
    Submitted,
    Subscribed { cursor: Option<u64> },
    Welcome,
    Gap { to: u64 },
    Deleted,
    Error(String),
    Other,
}

/// One whole message: the request id it carries, and what it says.
#[inline]
fn read(b: &[u8]) -> Option<(Option<u64>, Said<'_>)> {
    let mut c = Cbor { bytes: b, at: 0 };
    let (mut id, mut array) = (None, 0u8);
    if *b.first()? >> 5 == 4 {
        let (ib, n) = c.head()?;
        if n != 2 && ib != 0x9f {
            return None;
        }
        array = ib;
        id = Some(c.uint()?);
    }
    let mut said = Said::Other;
    if *b.get(c.at)? >> 5 == 3 {
        c.skip(0)?; // a response without fields, by its bare name
    } else {
        let pairs = c.map(|c, k| {
            said = match k {
                b"Publication" => publication(c)?,
                b"Submitted" => {
                    c.map(|c, _| c.skip(MAX_DEPTH))?;
                    Said::Submitted
                }
                _ => rare(c, k)?,
            };
            Some(())
        })?;
        if pairs != 1 {
            return None;
        }
    }
    if array == 0x9f && !c.at_break()? || c.at != b.len() {
        return None;
    }
    Some((id, said))
}

#[inline(always)]
fn publication<'a>(c: &mut Cbor<'a>) -> Option<Said<'a>> {
    let (mut sequence, mut data) = (0, None);
    c.map(|c, k| {
        match k {
            b"data" => data = Some(c.string(2)?),
            b"sequence" => sequence = c.uint()?,
            _ => c.skip(MAX_DEPTH)?,
        }
        Some(())
    })?;
    Some(Said::Publication {
        sequence,
        data: data?,
    })
}

#[cold]
fn rare<'a>(c: &mut Cbor<'a>, name: &[u8]) -> Option<Said<'a>> {
    let (mut cursor, mut to, mut code, mut message) = (None, 0, String::new(), String::new());
    if !matches!(
        name,
        b"Welcome" | b"Subscribed" | b"Gap" | b"Deleted" | b"Error"
    ) {
        c.skip(MAX_DEPTH)?;
        return Some(Said::Other);
    }
    c.map(|c, k| {
        match k {
            b"cursor" if name == b"Subscribed" => cursor = Some(c.uint()?),
            b"to" if name == b"Gap" => to = c.uint()?,
            b"code" if name == b"Error" => {
                code = String::from_utf8_lossy(&c.string(3)?).into_owned()
            }
            b"message" if name == b"Error" => {
                message = String::from_utf8_lossy(&c.string(3)?).into_owned()
            }
            _ => c.skip(MAX_DEPTH)?,
        }
        Some(())
    })?;
    Some(match name {
        b"Welcome" => Said::Welcome,
        b"Subscribed" => Said::Subscribed { cursor },
        b"Gap" => Said::Gap { to },
        b"Deleted" => Said::Deleted,
        _ => Said::Error(format!("{code}: {message}")),
    })
}

/// `read` for the usual `Publication`: lengths are definite, keys short, values plain. None: ask `read`.
#[inline]
fn read_usual(b: &[u8]) -> Option<(u64, &[u8])> {
    const HEAD: &[u8; 13] = b"\xa1\x6bPublication";
    let n = *b.get(HEAD.len())?;
    if b[..HEAD.len()] != *HEAD || !(0xa0..0xb8).contains(&n) {
        return None;
    }
    let (mut r, mut sequence, mut data) = (&b[HEAD.len() + 1..], 0, None);
    for _ in 0..n & 31 {
        let (&k, rest) = r.split_first()?;
        if !(0x60..0x78).contains(&k) {
            return None;
        }
        let (key, rest) = rest.split_at_checked((k & 31) as usize)?;
        let (&v, rest) = rest.split_first()?;
        let (arg, rest) = match v & 31 {
            a @ 0..=23 => (a as u64, rest),
            24 => rest
                .split_first_chunk()
                .map(|(x, r)| (u8::from_be_bytes(*x) as u64, r))?,
            25 => rest
                .split_first_chunk()
                .map(|(x, r)| (u16::from_be_bytes(*x) as u64, r))?,
            26 => rest
                .split_first_chunk()
                .map(|(x, r)| (u32::from_be_bytes(*x) as u64, r))?,
            27 => rest
                .split_first_chunk()
                .map(|(x, r)| (u64::from_be_bytes(*x), r))?,
            _ => return None,
        };
        match v >> 5 {
            0 => {
                if key == b"sequence" {
                    sequence = arg;
                } else if key == b"data" {
                    return None;
                }
                r = rest;
            }
            m @ (2 | 3) => {
                let (x, rest) = rest.split_at_checked(usize::try_from(arg).ok()?)?;
                if key == b"data" && m == 2 {
                    data = Some(x);
                } else if key == b"data" || key == b"sequence" {
                    return None;
                }
                r = rest;
            }
            _ => return None,
        }
    }
    if r.is_empty() {
        Some((sequence, data?))
    } else {
        None
    }
}

impl Adapter for Infotainer {
    fn path(&self) -> &'static str {
        "/ws"
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some("infotainer.v1.cbor")
    }

    /// A publisher is ready with `Welcome`, a subscriber with `Subscribed`.
    fn hello(&self, context: &mut Context, sink: &mut Sink<'_>) {
        if context.role != Role::Subscriber {
            return;
        }
        let mut m = vec![0x82];
        put_head(&mut m, 0, SUBSCRIBE_ID);
        m.push(0xa1);
        put_text(&mut m, "Subscribe");
        m.push(0xa1 + self.replay as u8);
        put_text(&mut m, "subscription_id");
        put_reference(&mut m, context.topic);
        if self.replay {
            put_text(&mut m, "from");
            put_text(&mut m, "First");
        }
        sink.send(&m);
    }

    fn publish(&self, context: &mut Context, slot: u32, p: &[u8], out: &mut Vec<u8>) {
        if context.acked {
            out.push(0x82);
            put_head(out, 0, slot as u64);
        }
        // {"SubmitPublication": {"subscription_id": ..., "submission": ...}}
        out.extend_from_slice(b"\xa1\x71SubmitPublication\xa2\x6fsubscription_id");
        put_reference(out, context.topic);
        out.extend_from_slice(b"\x6asubmission");
        put_head(out, 2, p.len() as u64);
        out.extend_from_slice(p);
    }

    #[inline]
    fn parse(&self, context: &mut Context, b: &[u8], sink: &mut Sink<'_>) -> usize {
        if let Some((sequence, data)) = read_usual(b) {
            delivered(context, sequence, data, sink);
            return b.len();
        }
        match read(b) {
            Some((None, Said::Publication { sequence, data })) => {
                delivered(context, sequence, &data, sink)
            }
            Some((Some(id), Said::Submitted)) if context.acked => sink.ack(id as u32),
            Some((id, said)) => other(context, id, said, sink),
            None => sink.error(b"a message that is not one well-formed CBOR item of the protocol"),
        }
        b.len()
    }
}

#[inline(always)]
fn delivered(context: &mut Context, sequence: u64, data: &[u8], sink: &mut Sink<'_>) {
    if sequence != context.sequence.wrapping_add(1) && context.stage == POSITION_KNOWN {
        out_of_order(context, sequence, sink);
    }
    context.stage = POSITION_KNOWN;
    context.sequence = sequence;
    sink.delivery(data);
}

#[cold]
#[inline(never)]
fn out_of_order(context: &Context, sequence: u64, sink: &mut Sink<'_>) {
    sink.error(format!("sequence {sequence} came after {}", context.sequence).as_bytes());
}

#[cold]
fn other(context: &mut Context, id: Option<u64>, said: Said, sink: &mut Sink<'_>) {
    match said {
        Said::Welcome => sink.ready |= context.role == Role::Publisher,
        Said::Subscribed { cursor } if id == Some(SUBSCRIBE_ID) => {
            if let Some(c) = cursor {
                context.stage = POSITION_KNOWN;
                context.sequence = c;
            }
            sink.ready |= context.role == Role::Subscriber;
        }
        Said::Gap { to } => {
            sink.error(
                format!(
                    "Gap: retention removed {} to {to}",
                    context.sequence.wrapping_add(1)
                )
                .as_bytes(),
            );
            context.sequence = to;
        }
        Said::Deleted => sink.error(b"Deleted: the subscription is gone"),
        Said::Error(e) => {
            sink.error(e.as_bytes());
            if let (Some(id), true) = (id, context.acked) {
                sink.refuse(id as u32);
            }
        }
        Said::Publication { .. } => sink.error(b"a Publication with a request id"),
        _ => {}
    }
}
