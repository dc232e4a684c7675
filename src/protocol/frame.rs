//! WebSocket frames from the server to a client (RFC 6455, section 5): whole messages, unmasked.
//!
//! Owns the header's bytes. Does not own the other direction, which `connection` reads; but for the two ends of a connection that the server
//! has with itself, `encode_inner` and `split_inner`.

#[cfg(feature = "server")]
use bytes::{Buf, Bytes};
use bytes::{BufMut, BytesMut};

/// FIN and the binary opcode: the first byte of every message that carries CBOR.
pub(super) const BINARY: u8 = 0x82;

/// FIN and the text opcode: the first byte of every message that carries JSON.
#[cfg(any(feature = "server", feature = "fuzzing"))]
pub(super) const TEXT: u8 = 0x81;

const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// The most bytes that a control frame carries.
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// The head of one frame: 2, 4 or 10 bytes.
#[derive(Clone, Copy)]
pub(super) struct FrameHead {
    bytes: [u8; 10],
    len: usize,
}

impl FrameHead {
    /// The head of a binary message of `payload_len` bytes.
    pub(super) fn binary(payload_len: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = BINARY;
        let len = head_len(payload_len);
        match len {
            2 => bytes[1] = payload_len as u8,
            4 => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
            }
        }
        Self { bytes, len }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The lengths of the head and of the payload of the binary message that `bytes` begins with; `None` if it begins with
    /// none, or with one whose length is not in its shortest form. The payload itself may be missing.
    pub(super) fn read_binary(bytes: &[u8]) -> Option<(usize, usize)> {
        Self::read(BINARY, bytes)
    }

    /// The same of a message whose first byte is `opcode`.
    pub(super) fn read(opcode: u8, bytes: &[u8]) -> Option<(usize, usize)> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        if first != opcode {
            return None;
        }
        match second {
            0..=125 => Some((2, usize::from(second))),
            126 => {
                let len = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
                (len > MAX_CONTROL_PAYLOAD).then_some((4, len))
            }
            127 => {
                let len = usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?;
                (len > usize::from(u16::MAX)).then_some((10, len))
            }
            _ => None,
        }
    }
}

/// The bytes of the head in front of a payload of `payload_len` bytes.
pub(super) fn head_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Adds a binary message to `out`.
#[cfg(feature = "conformance")]
pub(crate) fn encode_binary(out: &mut BytesMut, payload: &[u8]) {
    let head = FrameHead::binary(payload.len());
    out.put_slice(head.as_bytes());
    out.put_slice(payload);
}

/// Adds a text message to `out`.
#[cfg(feature = "conformance")]
pub(crate) fn encode_text(out: &mut BytesMut, payload: &[u8]) {
    let first = out.len();
    encode_binary(out, payload);
    out[first] = TEXT;
}

/// Adds a binary message as a client's side of a connection within the server sends it to `out`: its mask changes nothing.
#[cfg(feature = "server")]
pub(crate) fn encode_inner(out: &mut BytesMut, payload: &[u8]) {
    const MASKED: u8 = 0x80;
    const NO_MASK: [u8; 4] = [0; 4];
    let mut head = FrameHead::binary(payload.len());
    head.bytes[1] |= MASKED;
    out.reserve(head.len + NO_MASK.len() + payload.len());
    out.put_slice(head.as_bytes());
    out.put_slice(&NO_MASK);
    out.put_slice(payload);
}

/// What the server's side of such a connection says.
#[cfg(feature = "server")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Inner {
    /// A binary message.
    Message(Bytes),
    /// It closes, with this code, or 1005 without one (RFC 6455, section 7.1.5).
    Close(u16),
    /// A ping, which nobody waits to be answered, or what else means nothing here.
    Other,
}

/// Takes the first frame off `input`, which holds what the server's side wrote; `Err` is how many bytes it lacks at least.
#[cfg(feature = "server")]
pub(crate) fn split_inner(input: &mut BytesMut) -> Result<Inner, usize> {
    const NO_CODE: u16 = 1005;
    const HEAD: usize = 10;
    let lacking = |len: usize| len.saturating_sub(input.len()).max(1);
    let &[first, second, ..] = &input[..] else {
        return Err(lacking(2));
    };
    let (head_len, len) = match second {
        0..=125 => (2, usize::from(second)),
        _ => {
            // Told at once where there is less: no frame with a long length is shorter.
            let mut binary = [0; HEAD];
            let known = input.len().min(HEAD);
            binary[..known].copy_from_slice(&input[..known]);
            binary[0] = BINARY;
            FrameHead::read_binary(&binary[..known]).ok_or_else(|| lacking(HEAD))?
        }
    };
    if input.len() < head_len + len {
        return Err(lacking(head_len + len));
    }
    input.advance(head_len);
    let payload = input.split_to(len).freeze();
    Ok(match first {
        BINARY => Inner::Message(payload),
        CLOSE => Inner::Close(
            payload
                .first_chunk()
                .map_or(NO_CODE, |code| u16::from_be_bytes(*code)),
        ),
        _ => Inner::Other,
    })
}

/// Adds a Close frame with `code` to `out`. Of `reason`, what a control frame has no room for is left out.
pub fn encode_close(out: &mut BytesMut, code: u16, reason: &str) {
    let end =
        (0..=reason.len().min(MAX_CONTROL_PAYLOAD - 2)).rfind(|&end| reason.is_char_boundary(end));
    let reason = &reason[..end.unwrap_or(0)];
    out.reserve(4 + reason.len());
    out.put_slice(&[CLOSE, (2 + reason.len()) as u8]);
    out.put_u16(code);
    out.put_slice(reason.as_bytes());
}

/// Adds a Ping frame to `out`; `payload` is cut to [`MAX_CONTROL_PAYLOAD`].
pub fn encode_ping(out: &mut BytesMut, payload: &[u8]) {
    put_control(out, PING, payload);
}

/// Adds a Pong frame to `out`; `payload`, that of the Ping it answers, is cut to [`MAX_CONTROL_PAYLOAD`].
pub fn encode_pong(out: &mut BytesMut, payload: &[u8]) {
    put_control(out, PONG, payload);
}

fn put_control(out: &mut BytesMut, first: u8, payload: &[u8]) {
    let payload = &payload[..payload.len().min(MAX_CONTROL_PAYLOAD)];
    out.reserve(2 + payload.len());
    out.put_slice(&[first, payload.len() as u8]);
    out.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_takes_the_shortest_form_at_every_border() {
        for (len, head) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(FrameHead::binary(len).as_bytes(), head);
            assert_eq!(FrameHead::read_binary(head), Some((head.len(), len)));
        }
    }

    #[test]
    fn head_that_is_cut_masked_or_not_shortest_is_refused() {
        for head in [
            &[][..],
            &[0x82],
            &[0x82, 126, 0],
            &[0x82, 126, 0, 125],
            &[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            &[0x82, 127, 0, 0, 0, 0, 0, 1, 0],
            &[0x82, 0x80],
            &[0x81, 0],
            &[0x02, 0],
        ] {
            assert_eq!(FrameHead::read_binary(head), None, "{head:02x?}");
        }
    }

    #[test]
    fn close_frame_carries_code_and_reason() {
        let mut out = BytesMut::new();
        encode_close(&mut out, 4009, "stuck");
        assert_eq!(&out[..], b"\x88\x07\x0f\xa9stuck");
    }

    #[test]
    fn close_reason_is_cut_at_a_character() {
        let mut out = BytesMut::new();
        encode_close(&mut out, 1001, &format!("{}é", "x".repeat(122)));
        assert_eq!(out.len(), 2 + 2 + 122);
        assert_eq!(out[1], 124);
    }

    #[test]
    fn ping_and_pong_carry_their_payload_up_to_the_limit() {
        let mut out = BytesMut::new();
        encode_ping(&mut out, b"ab");
        encode_pong(&mut out, b"");
        assert_eq!(&out[..], b"\x89\x02ab\x8a\x00");
        out.clear();
        encode_pong(&mut out, &[7; 200]);
        assert_eq!((out.len(), out[1]), (127, 125));
    }

    #[cfg(feature = "server")]
    #[test]
    fn what_the_server_says_to_itself_is_split_where_it_ends() {
        let mut written = BytesMut::new();
        for len in [0, 125, 126, 65_535, 65_536] {
            written.put_slice(FrameHead::binary(len).as_bytes());
            written.put_bytes(7, len);
        }
        encode_ping(&mut written, b"ab");
        encode_close(&mut written, 1001, "the server stops");
        let mut input = BytesMut::new();
        let mut split = Vec::new();
        for byte in written {
            input.put_u8(byte);
            match split_inner(&mut input) {
                Ok(Inner::Message(message)) => split.push(message.len()),
                Ok(Inner::Close(code)) => split.push(usize::from(code)),
                Ok(Inner::Other) | Err(1..) => {}
                Err(0) => panic!("nothing lacks, and nothing is there"),
            }
        }
        assert_eq!(split, [0, 125, 126, 65_535, 65_536, 1001]);
        assert!(input.is_empty());
    }
}
