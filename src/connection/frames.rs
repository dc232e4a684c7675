//! From the bytes of a socket to WebSocket messages, on the server's side (RFC 6455).
//!
//! Owns framing: headers, masks, fragments, and every rule whose breach fails the connection. Does no I/O, and does not know what
//! messages mean.
//!
//! Invariants: a length is judged when it is declared, before its bytes are kept; a reader that stands between two messages holds no
//! memory of its own; a message that lies whole in one read is a slice of that read and is not copied.

use bytes::{Buf, Bytes, BytesMut};

/// The longest payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL_PAYLOAD: usize = 125;

/// The longest header of a masked frame.
const MAX_HEADER: usize = 14;

/// One message of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Received {
    /// A binary message, its fragments joined.
    Binary(Bytes),
    /// A text message. It is never looked into, so its text is not kept.
    Text,
    /// A ping, with what the pong repeats.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// The client closes, with this code.
    Close(Option<u16>),
}

/// Why a connection fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The framing is wrong.
    #[error("{0}")]
    Protocol(&'static str),
    /// Text that is not UTF-8.
    #[error("text that is not valid UTF-8")]
    Utf8,
    /// A message over the limit.
    #[error("a message over the limit")]
    TooLarge,
}

impl FrameError {
    /// The code that the connection is closed with (RFC 6455, section 7.4.1).
    pub(crate) fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::Utf8 => 1007,
            Self::TooLarge => 1009,
        }
    }
}

/// Reads the frames of one connection.
#[derive(Debug)]
pub(crate) struct FrameReader {
    max_message_size: usize,
    /// What is there of the message or frame that has not come whole; `None` between messages.
    partial: Option<Box<Partial>>,
}

#[derive(Debug, Default)]
struct Partial {
    /// The beginning of a header that has not come whole.
    head: [u8; MAX_HEADER],
    head_len: usize,
    /// The frame whose payload is on its way.
    frame: Option<Frame>,
    /// The data message that is being joined.
    message: Option<Opcode>,
    /// What came of it, unmasked.
    payload: BytesMut,
    /// What came of a control frame's payload, unmasked: such frames may stand between the fragments of a message.
    control: BytesMut,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    is_final: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the payload that have not come.
    remaining: usize,
}

impl FrameReader {
    /// A reader that refuses messages of more than `max_message_size` bytes.
    pub(crate) fn new(max_message_size: usize) -> Self {
        Self {
            max_message_size,
            partial: None,
        }
    }

    /// The next message of `input`, which holds what was read and not yet taken; `None` once everything is taken.
    ///
    /// # Errors
    /// If the connection has to be failed. Nothing may be read after that.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Received>, FrameError> {
        loop {
            if self.partial.as_ref().is_some_and(|p| p.frame.is_some()) {
                match self.take_payload(input)? {
                    Progress::Starved => return Ok(None),
                    Progress::Frame => {}
                    Progress::Message(received) => return Ok(Some(received)),
                }
            }
            let Some(mut frame) = self.take_header(input)? else {
                return Ok(None);
            };
            self.judge(frame)?;
            let is_joined = frame.opcode == Opcode::Continuation || !frame.is_final;
            if !is_joined && frame.remaining <= input.len() {
                let mut payload = input.split_to(frame.remaining);
                unmask(&mut payload, frame.mask);
                return message(frame.opcode, payload).map(Some);
            }
            let partial = self.partial.get_or_insert_default();
            if !frame.opcode.is_control() && frame.opcode != Opcode::Continuation {
                partial.message = Some(frame.opcode);
                frame.opcode = Opcode::Continuation;
            }
            partial.frame = Some(frame);
        }
    }

    /// Takes a header, whose beginning may have come earlier.
    fn take_header(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let early = self.partial.as_ref().map_or(0, |partial| partial.head_len);
        if early == 0 {
            if let Some((frame, len)) = parse_header(input)? {
                input.advance(len);
                return Ok(Some(frame));
            }
            if !input.is_empty() {
                let partial = self.partial.get_or_insert_default();
                partial.head[..input.len()].copy_from_slice(input);
                partial.head_len = input.len();
                input.clear();
            }
            return Ok(None);
        }
        let partial = self
            .partial
            .as_mut()
            .expect("invariant: it holds the beginning of the header");
        let len = input.len().min(MAX_HEADER - early);
        partial.head[early..early + len].copy_from_slice(&input[..len]);
        match parse_header(&partial.head[..early + len])? {
            Some((frame, len)) => {
                input.advance(len - early);
                partial.head_len = 0;
                self.release();
                Ok(Some(frame))
            }
            None => {
                input.advance(len);
                partial.head_len += len;
                Ok(None)
            }
        }
    }

    /// Judges a frame by its header and what came before it.
    fn judge(&self, frame: Frame) -> Result<(), FrameError> {
        if frame.opcode.is_control() {
            return Ok(());
        }
        let (is_joining, joined) = match &self.partial {
            Some(partial) => (partial.message.is_some(), partial.payload.len()),
            None => (false, 0),
        };
        if is_joining != (frame.opcode == Opcode::Continuation) {
            return Err(FrameError::Protocol(if is_joining {
                "a new message inside a fragmented one"
            } else {
                "a continuation of nothing"
            }));
        }
        if frame.remaining > self.max_message_size - joined {
            return Err(FrameError::TooLarge);
        }
        Ok(())
    }

    /// Takes what came of a frame's payload.
    fn take_payload(&mut self, input: &mut BytesMut) -> Result<Progress, FrameError> {
        let partial = self
            .partial
            .as_mut()
            .expect("invariant: a frame is on its way");
        let frame = partial
            .frame
            .as_mut()
            .expect("invariant: a frame is on its way");
        let len = frame.remaining.min(input.len());
        let mut piece = input.split_to(len);
        unmask(&mut piece, frame.mask);
        frame.mask.rotate_left(len % 4);
        frame.remaining -= len;
        let kept = if frame.opcode.is_control() {
            &mut partial.control
        } else {
            &mut partial.payload
        };
        kept.extend_from_slice(&piece);
        if frame.remaining > 0 {
            return Ok(Progress::Starved);
        }
        let Frame {
            is_final, opcode, ..
        } = *frame;
        partial.frame = None;
        let finished = if opcode.is_control() {
            Some((opcode, std::mem::take(&mut partial.control)))
        } else if is_final {
            let payload = std::mem::take(&mut partial.payload);
            let opcode = partial.message.take();
            Some((opcode.expect("invariant: a message is joined"), payload))
        } else {
            None
        };
        self.release();
        match finished {
            Some((opcode, payload)) => message(opcode, payload).map(Progress::Message),
            None => Ok(Progress::Frame),
        }
    }

    /// Gives the memory back if nothing is on its way.
    fn release(&mut self) {
        let is_idle = self.partial.as_ref().is_some_and(|partial| {
            partial.head_len == 0 && partial.frame.is_none() && partial.message.is_none()
        });
        if is_idle {
            self.partial = None;
        }
    }
}

enum Progress {
    /// The payload has not come whole.
    Starved,
    /// A frame ended, its message did not.
    Frame,
    /// A message ended.
    Message(Received),
}

/// The header that `bytes` begin with, and its length; `None` if it has not come whole. Its faults are told as soon as they can
/// be seen.
fn parse_header(bytes: &[u8]) -> Result<Option<(Frame, usize)>, FrameError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(FrameError::Protocol("a reserved bit is set"));
    }
    let is_final = first & 0x80 != 0;
    let opcode = match first & 0x0f {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xa => Opcode::Pong,
        _ => return Err(FrameError::Protocol("a reserved opcode")),
    };
    if opcode.is_control() && !is_final {
        return Err(FrameError::Protocol("a fragmented control frame"));
    }
    let Some(&second) = bytes.get(1) else {
        return Ok(None);
    };
    if second & 0x80 == 0 {
        return Err(FrameError::Protocol("a frame that is not masked"));
    }
    let short = usize::from(second & 0x7f);
    if opcode.is_control() && short > MAX_CONTROL_PAYLOAD {
        return Err(FrameError::Protocol("a control frame over 125 bytes"));
    }
    let (len, mask_at) = match short {
        126 => match bytes.get(2..4) {
            Some(len) => (u64::from(u16::from_be_bytes([len[0], len[1]])), 4),
            None => return Ok(None),
        },
        127 => match bytes.get(2..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(len) => (u64::from_be_bytes(*len), 10),
            None => return Ok(None),
        },
        short => (short as u64, 2),
    };
    if len >> 63 != 0 {
        return Err(FrameError::Protocol("a length of more than 63 bits"));
    }
    let Some(&mask) = bytes
        .get(mask_at..)
        .and_then(|rest| rest.first_chunk::<4>())
    else {
        return Ok(None);
    };
    let frame = Frame {
        is_final,
        opcode,
        mask,
        remaining: usize::try_from(len).map_err(|_| FrameError::TooLarge)?,
    };
    Ok(Some((frame, mask_at + 4)))
}

/// The message that `payload` is.
fn message(opcode: Opcode, payload: BytesMut) -> Result<Received, FrameError> {
    Ok(match opcode {
        Opcode::Binary => Received::Binary(payload.freeze()),
        Opcode::Text => {
            std::str::from_utf8(&payload).map_err(|_| FrameError::Utf8)?;
            Received::Text
        }
        // Copied, because it is kept until it can be written: a slice would keep the whole read.
        Opcode::Ping => Received::Ping(Bytes::copy_from_slice(&payload)),
        Opcode::Pong => Received::Pong,
        Opcode::Close => Received::Close(close_code(&payload)?),
        Opcode::Continuation => {
            return Err(FrameError::Protocol("a continuation of nothing"));
        }
    })
}

/// The code of a Close frame, which may say nothing (RFC 6455, sections 5.5.1 and 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload.len() {
            0 => Ok(None),
            _ => Err(FrameError::Protocol("a close frame of one byte")),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(FrameError::Protocol("a close code that may not be sent"));
    }
    std::str::from_utf8(reason).map_err(|_| FrameError::Utf8)?;
    Ok(Some(code))
}

/// Takes the mask off, eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let masked: &mut [u8; 8] = word
            .try_into()
            .expect("invariant: the chunks are eight bytes long");
        *masked = (u64::from_ne_bytes(*masked) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1000;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..=125 => bytes.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        bytes
    }

    fn read_all(
        reader: &mut FrameReader,
        bytes: &[u8],
        received: &mut Vec<Received>,
    ) -> Result<(), FrameError> {
        let mut input = BytesMut::from(bytes);
        while let Some(message) = reader.next(&mut input)? {
            received.push(message);
        }
        assert!(input.is_empty());
        Ok(())
    }

    fn read(bytes: &[u8]) -> Result<Vec<Received>, FrameError> {
        let mut received = Vec::new();
        read_all(&mut FrameReader::new(LIMIT), bytes, &mut received).map(|()| received)
    }

    fn code(bytes: &[u8]) -> u16 {
        read(bytes).unwrap_err().close_code()
    }

    #[test]
    fn a_whole_message_is_a_slice_of_its_read() {
        let mut input = BytesMut::from(&frame(0x82, b"0123456789")[..]);
        let payload_at = input.as_ptr() as usize + 6;
        let message = FrameReader::new(LIMIT).next(&mut input).unwrap().unwrap();
        let Received::Binary(bytes) = message else {
            panic!("a binary message was expected, not {message:?}");
        };
        assert_eq!(bytes, &b"0123456789"[..]);
        assert_eq!(bytes.as_ptr() as usize, payload_at);
    }

    #[test]
    fn a_reader_between_two_messages_holds_no_memory() {
        let mut reader = FrameReader::new(LIMIT);
        let mut received = Vec::new();
        for byte in [frame(0x02, b"ab"), frame(0x80, b"cd")].concat() {
            read_all(&mut reader, &[byte], &mut received).unwrap();
        }
        assert_eq!(received, [Received::Binary(Bytes::from_static(b"abcd"))]);
        assert!(reader.partial.is_none());
    }

    #[test]
    fn control_frames_may_stand_between_fragments() {
        let bytes = [
            frame(0x02, b"ab"),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x8a, b""),
            frame(0x80, b"cd"),
        ];
        assert_eq!(
            read(&bytes.concat()).unwrap(),
            [
                Received::Ping(Bytes::from_static(b"ping")),
                Received::Pong,
                Received::Binary(Bytes::from_static(b"abcd")),
            ]
        );
    }

    #[test]
    fn a_declared_length_over_the_limit_fails_before_its_bytes_come() {
        let whole = frame(0x82, &[0; LIMIT + 1]);
        assert_eq!(read(&whole[..8]), Err(FrameError::TooLarge));
        assert_eq!(read(&whole[..3]), Ok(vec![]));
        assert!(read(&frame(0x82, &[0; LIMIT])).is_ok());
    }

    #[test]
    fn fragments_over_the_limit_together_fail_when_the_last_is_declared() {
        let bytes = [frame(0x02, &[0; LIMIT]), frame(0x80, b"x")].concat();
        assert_eq!(read(&bytes[..bytes.len() - 1]), Err(FrameError::TooLarge));
        let bytes = [frame(0x02, &[0; LIMIT]), frame(0x80, b"")].concat();
        assert!(read(&bytes).is_ok());
    }

    #[test]
    fn breaches_of_framing_fail_with_1002() {
        let unmasked = [0x82, 0x00];
        assert_eq!(code(&unmasked), 1002);
        for reserved_bit in [0x40, 0x20, 0x10] {
            assert_eq!(code(&frame(0x82 | reserved_bit, b"")), 1002);
        }
        for reserved_opcode in [0x83, 0x87, 0x8b, 0x8f] {
            assert_eq!(code(&frame(reserved_opcode, b"")), 1002);
        }
        assert_eq!(code(&frame(0x09, b"")), 1002, "fragmented ping");
        assert_eq!(code(&frame(0x89, &[0; 126])), 1002, "long ping");
        assert_eq!(code(&frame(0x80, b"")), 1002, "continuation of nothing");
        let nested = [frame(0x02, b""), frame(0x82, b"")].concat();
        assert_eq!(code(&nested), 1002);
        let mut endless = vec![0x82, 0xff];
        endless.extend_from_slice(&[0xff; 8]);
        assert_eq!(code(&endless), 1002);
    }

    #[test]
    fn an_unfinished_header_fails_as_soon_as_its_fault_shows() {
        assert_eq!(code(&[0xc2]), 1002);
        assert_eq!(code(&[0x89, 0xfe]), 1002);
    }

    #[test]
    fn text_is_checked_as_a_whole_message() {
        let euro = "€".as_bytes();
        let split = [frame(0x01, &euro[..1]), frame(0x80, &euro[1..])].concat();
        assert_eq!(read(&split).unwrap(), [Received::Text]);
        assert_eq!(code(&frame(0x81, &euro[..2])), 1007);
    }

    #[test]
    fn close_codes_that_may_not_be_sent_fail() {
        let close = |payload: &[u8]| read(&frame(0x88, payload));
        assert_eq!(close(b""), Ok(vec![Received::Close(None)]));
        for code in [1000_u16, 1003, 1007, 1011, 1014, 3000, 4999] {
            let payload = [&code.to_be_bytes()[..], b"why"].concat();
            assert_eq!(close(&payload), Ok(vec![Received::Close(Some(code))]));
        }
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            assert_eq!(close(&code.to_be_bytes()).unwrap_err().close_code(), 1002);
        }
        assert_eq!(close(b"\x03").unwrap_err().close_code(), 1002);
        assert_eq!(close(b"\x03\xe8\xff").unwrap_err().close_code(), 1007);
    }

    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let payload = || prop::collection::vec(any::<u8>(), 0..300);
        let message = prop_oneof![
            payload().prop_map(|payload| frame(0x82, &payload)),
            (payload(), payload(), 0..100_usize).prop_map(|(first, last, ping)| {
                [
                    frame(0x02, &first),
                    frame(0x89, &vec![7; ping]),
                    frame(0x80, &last),
                ]
                .concat()
            }),
            "[a-zäöü€]{0,100}".prop_map(|text| frame(0x81, text.as_bytes())),
            Just(frame(0x8a, b"pong")),
            Just(frame(0x88, &[0x03, 0xe8])),
            prop::collection::vec(any::<u8>(), 1..20),
        ];
        prop::collection::vec(message, 1..6).prop_map(|messages| messages.concat())
    }

    proptest! {
        #[test]
        fn splits_do_not_change_what_is_read(
            bytes in any_bytes(),
            mut splits in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut whole = Vec::new();
            let outcome = read_all(&mut FrameReader::new(LIMIT), &bytes, &mut whole);
            splits.sort_by_key(|split| split.index(bytes.len()));
            let mut at = 0;
            let mut pieces = Vec::new();
            for split in &splits {
                pieces.push(&bytes[at..split.index(bytes.len())]);
                at = split.index(bytes.len());
            }
            pieces.push(&bytes[at..]);
            let single: Vec<_> = bytes.chunks(1).collect();
            for pieces in [pieces, single] {
                let mut reader = FrameReader::new(LIMIT);
                let mut received = Vec::new();
                let split_outcome = pieces
                    .iter()
                    .try_for_each(|piece| read_all(&mut reader, piece, &mut received));
                prop_assert_eq!(&received, &whole);
                prop_assert_eq!(split_outcome, outcome);
            }
        }
    }
}
