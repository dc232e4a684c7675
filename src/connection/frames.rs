//! From the bytes of a socket to WebSocket messages, on the server's side (RFC 6455).
//!
//! Owns framing: headers, masks, fragments, and every rule whose breach fails the connection. Does no I/O, and does not know what
//! messages mean.
//!
//! Invariants: a length is judged when it is declared, before its bytes are kept; text is judged as it comes, so that it fails with the
//! first byte that no UTF-8 has, in the middle of a message as at its end (RFC 6455, section 8.1); a reader that stands between two messages holds no
//! memory of its own; a message that lies whole in one read is a slice of that read and is not copied.

use std::mem;

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
    /// A text message, its fragments joined. It is valid UTF-8.
    Text(Bytes),
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
    /// Of a text's payload, the bytes that are whole characters: what follows them is at most the beginning of one.
    checked: usize,
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

    /// From now on, messages of up to `max_message_size` bytes are taken.
    #[cfg(feature = "server")]
    pub(crate) fn set_max_message_size(&mut self, max_message_size: usize) {
        self.max_message_size = max_message_size;
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
        if !frame.opcode.is_control() && partial.message == Some(Opcode::Text) {
            partial.checked += whole_characters(&partial.payload[partial.checked..])?;
        }
        if frame.remaining > 0 {
            return Ok(Progress::Starved);
        }
        let Frame {
            is_final, opcode, ..
        } = *frame;
        partial.frame = None;
        let finished = if opcode.is_control() {
            Some(message(opcode, mem::take(&mut partial.control))?)
        } else if is_final {
            Some(partial.join()?)
        } else {
            None
        };
        self.release();
        Ok(finished.map_or(Progress::Frame, Progress::Message))
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

#[cfg(any(test, feature = "fuzzing"))]
impl FrameReader {
    /// Bytes of messages and frames that it has room for.
    pub(crate) fn held(&self) -> usize {
        let partial = self.partial.as_ref();
        partial.map_or(0, |partial| {
            partial.payload.capacity() + partial.control.capacity()
        })
    }
}

impl Partial {
    /// The data message whose last fragment came.
    fn join(&mut self) -> Result<Received, FrameError> {
        let payload = mem::take(&mut self.payload).freeze();
        let checked = mem::take(&mut self.checked);
        match self.message.take() {
            Some(Opcode::Text) if checked < payload.len() => Err(FrameError::Utf8),
            Some(Opcode::Text) => Ok(Received::Text(payload)),
            _ => Ok(Received::Binary(payload)),
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
            Received::Text(payload.freeze())
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

/// How many bytes of `text` are whole characters. What is left is the beginning of one that may still become whole.
fn whole_characters(text: &[u8]) -> Result<usize, FrameError> {
    match std::str::from_utf8(text) {
        Ok(text) => Ok(text.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(FrameError::Utf8),
    }
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
mod tests;
