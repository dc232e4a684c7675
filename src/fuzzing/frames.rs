//! The frame reader, from a stream of any bytes in any pieces.
//!
//! What is judged: it gives the messages, and ends with the close code, that a second reader finds in the stream as a whole; where the
//! stream is cut changes nothing; and it holds no more memory than the limit on messages allows.

use bytes::{Bytes, BytesMut};

use super::input::Input;
use crate::connection::{FrameReader, Received};

/// Below, at and above where lengths take more bytes.
const LIMITS: [usize; 4] = [10, 125, 300, 70_000];

/// What a reader may hold besides a message: a control frame, and what its buffers have in reserve.
const SPARE: usize = 512;

/// See the module. `input`: which limit, the lengths of the pieces, and then the stream.
pub fn frames(input: &[u8]) {
    let mut input = Input::new(input);
    let limit = LIMITS[usize::from(input.choice(LIMITS.len() as u8))];
    let lengths = input.bytes();
    let stream = input.rest();
    let expected = expected(stream, limit);
    assert_eq!(read(&[stream], limit), expected);

    let mut pieces = Vec::new();
    let mut rest = stream;
    for &length in lengths {
        let (piece, behind) = rest.split_at(usize::from(length).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    assert_eq!(read(&pieces, limit), expected);
    let single: Vec<_> = stream.chunks(1).collect();
    assert_eq!(read(&single, limit), expected);
}

type Outcome = (Vec<Received>, Option<u16>);

/// What the server's reader makes of the stream in these pieces.
fn read(pieces: &[&[u8]], limit: usize) -> Outcome {
    let mut reader = FrameReader::new(limit);
    let mut received = Vec::new();
    for piece in pieces {
        let mut input = BytesMut::from(*piece);
        loop {
            let next = reader.next(&mut input);
            let held = reader.held();
            assert!(held <= 2 * limit + SPARE, "{held} bytes are held");
            match next {
                Ok(Some(message)) => received.push(message),
                Ok(None) => break,
                Err(error) => return (received, Some(error.close_code())),
            }
        }
        assert!(input.is_empty(), "what was read is left lying");
    }
    (received, None)
}

/// What RFC 6455 and the limit make of the stream.
fn expected(stream: &[u8], limit: usize) -> Outcome {
    let mut received = Vec::new();
    let error = Second::default().read(stream, limit, &mut received).err();
    (received, error)
}

/// The other reader, which has the whole stream before it.
#[derive(Default)]
struct Second {
    /// Opcode of the message whose fragments come, and what came of it.
    message: Option<(u8, Vec<u8>)>,
}

const PROTOCOL: u16 = 1002;
const NOT_UTF8: u16 = 1007;
const TOO_LARGE: u16 = 1009;

impl Second {
    fn read(
        &mut self,
        mut stream: &[u8],
        limit: usize,
        received: &mut Vec<Received>,
    ) -> Result<(), u16> {
        while let Some(&first) = stream.first() {
            let (opcode, is_final) = (first & 15, first >= 0x80);
            let is_control = opcode >= 8;
            let is_known = matches!(opcode, 0..=2 | 8..=10);
            if first & 0x70 != 0 || !is_known || is_control && !is_final {
                return Err(PROTOCOL);
            }
            let Some(&second) = stream.get(1) else { break };
            let short = second & 0x7f;
            if second < 0x80 || is_control && short > 125 {
                return Err(PROTOCOL);
            }
            let more = match short {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let Some(long) = stream.get(2..2 + more) else {
                break;
            };
            let number = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
            let len = match more {
                0 => u64::from(short),
                _ => long.iter().fold(0, number),
            };
            if len > i64::MAX as u64 {
                return Err(PROTOCOL);
            }
            let Some(mask) = stream.get(2 + more..6 + more) else {
                break;
            };
            if !is_control {
                if (opcode == 0) != self.message.is_some() {
                    return Err(PROTOCOL);
                }
                let joined = self.message.as_ref().map_or(0, |(_, joined)| joined.len());
                if joined as u64 + len > limit as u64 {
                    return Err(TOO_LARGE);
                }
            }
            let masked = &stream[6 + more..];
            let come = masked.len().min(len as usize);
            let unmasked = masked[..come].iter().zip(mask.iter().cycle());
            let payload: Vec<_> = unmasked.map(|(byte, mask)| byte ^ mask).collect();
            stream = &masked[come..];
            let is_whole = come as u64 == len;
            if is_control {
                if is_whole {
                    received.push(control(opcode, &payload)?);
                }
                continue;
            }
            let (opcode, joined) = self.message.get_or_insert((opcode, Vec::new()));
            joined.extend_from_slice(&payload);
            let is_text = *opcode == 1;
            if let Err(error) = std::str::from_utf8(joined)
                && is_text
                && (error.error_len().is_some() || is_whole && is_final)
            {
                return Err(NOT_UTF8);
            }
            if is_whole
                && is_final
                && let Some((_, joined)) = self.message.take()
            {
                let joined = Bytes::from(joined);
                received.push(match is_text {
                    true => Received::Text(joined),
                    false => Received::Binary(joined),
                });
            }
        }
        Ok(())
    }
}

fn control(opcode: u8, payload: &[u8]) -> Result<Received, u16> {
    Ok(match opcode {
        9 => Received::Ping(Bytes::copy_from_slice(payload)),
        10 => Received::Pong,
        _ => match payload {
            [] => Received::Close(None),
            [_] => return Err(PROTOCOL),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                // Those that are defined or for anybody's use, but for 1004, 1005, 1006 and 1015.
                let is_sent = [1000, 1001, 1002, 1003].contains(&code)
                    || (1007..=1014).contains(&code)
                    || (3000..5000).contains(&code);
                if !is_sent {
                    return Err(PROTOCOL);
                }
                if std::str::from_utf8(reason).is_err() {
                    return Err(NOT_UTF8);
                }
                Received::Close(Some(code))
            }
        },
    })
}
