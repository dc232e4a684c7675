//! RFC 6455, no more than a load generator needs: masked frames out, a server's frames in, whatever way they are cut.

pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The example of RFC 6455, section 1.3: the key need not be random where nobody is to be fooled.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What a server answers to it.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) fn upgrade(host: &str, path: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
    );
    if let Some(subprotocol) = subprotocol {
        request += &format!("Sec-WebSocket-Protocol: {subprotocol}\r\n");
    }
    request += "\r\n";
    request.into_bytes()
}

fn put_head(out: &mut Vec<u8>, opcode: u8, masked: bool, length: usize) {
    let mask = if masked { 0x80 } else { 0 };
    out.push(0x80 | opcode);
    if length < 126 {
        out.push(mask | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(mask | 126);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(mask | 127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// Appends one masked frame that is a whole message.
#[inline]
pub(crate) fn frame(out: &mut Vec<u8>, opcode: u8, message: &[u8], key: u32) {
    put_head(out, opcode, true, message.len());
    let key = key.to_le_bytes();
    out.extend_from_slice(&key);
    let at = out.len();
    out.extend_from_slice(message);
    mask(&mut out[at..], key);
}

/// Appends one frame of a server that is a whole message.
#[inline]
pub(crate) fn server_frame(out: &mut Vec<u8>, opcode: u8, parts: &[&[u8]]) {
    put_head(
        out,
        opcode,
        false,
        parts.iter().map(|part| part.len()).sum(),
    );
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Masks or unmasks in place.
#[inline]
pub(crate) fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let word = u32::from_ne_bytes(key);
    let word = u64::from(word) << 32 | u64::from(word);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// A part of a server's frame: all of it, but where reads cut it.
pub(crate) struct Piece<'a> {
    pub(crate) opcode: u8,
    pub(crate) data: &'a [u8],
    pub(crate) ends_frame: bool,
    /// Whether the frame is the message's last.
    pub(crate) is_final: bool,
}

/// Finds frames in what reads bring.
#[derive(Default)]
pub(crate) struct Reader {
    /// What came of a head that was cut.
    head: [u8; 10],
    head_length: usize,
    in_frame: bool,
    missing: u64,
    opcode: u8,
    is_final: bool,
}

impl Reader {
    /// Takes a frame's head, if it is there whole, and says how long it is.
    #[inline]
    fn set(&mut self, head: &[u8]) -> Option<usize> {
        let &[first, second, ref rest @ ..] = head else {
            return None;
        };
        let (length, payload) = match second & 127 {
            126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
            short => (2, u64::from(short)),
        };
        self.opcode = first & 15;
        self.is_final = first & 128 != 0;
        self.missing = payload;
        self.in_frame = true;
        Some(length)
    }

    /// The head at the front of `bytes`, or what is missing of one; true if it is whole now.
    #[inline]
    fn take_head(&mut self, bytes: &mut &[u8]) -> bool {
        if self.head_length == 0
            && let Some(length) = self.set(bytes)
        {
            *bytes = &bytes[length..];
            return true;
        }
        while let Some((&byte, rest)) = bytes.split_first() {
            self.head[self.head_length] = byte;
            self.head_length += 1;
            *bytes = rest;
            let head = self.head;
            if self.set(&head[..self.head_length]).is_some() {
                self.head_length = 0;
                return true;
            }
        }
        false
    }

    /// Takes one piece from the front of `bytes`.
    #[inline]
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Piece<'a>> {
        if !self.in_frame && !self.take_head(bytes) {
            return None;
        }
        if bytes.is_empty() && self.missing > 0 {
            return None;
        }
        let length = usize::try_from(self.missing).map_or(bytes.len(), |n| n.min(bytes.len()));
        let (data, rest) = bytes.split_at(length);
        *bytes = rest;
        self.missing -= length as u64;
        self.in_frame = self.missing > 0;
        Some(Piece {
            opcode: self.opcode,
            data,
            ends_frame: !self.in_frame,
            is_final: self.is_final,
        })
    }
}
