//! CBOR read a second time, by the text of RFC 8949 alone, and written in its plainest form.
//!
//! Knows nothing of the server's own reader, and is slow: it makes a tree of everything. What the two disagree about is a bug of one.

/// Arrays, maps and tags that may stand round an item (protocol, section 1).
const MAX_NESTING: usize = 64;

const BREAK: u8 = 0xff;

/// One item without the tags in front of it.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    /// As it was encoded.
    raw: &'a [u8],
    node: Node<'a>,
}

#[derive(Debug)]
enum Node<'a> {
    /// Major type 0 or 1, and the argument.
    Integer(u8, u64),
    /// Major type 2 or 3, and the bytes, joined.
    String(u8, Vec<u8>),
    Array(Vec<Tree<'a>>),
    Map(Vec<(Tree<'a>, Tree<'a>)>),
    /// A float or a simple value.
    Other,
}

/// The tree of the one item that `bytes` is; `None` if it is not exactly one well-formed item. `depth` arrays, maps and tags stand round it.
pub(super) fn tree(bytes: &[u8], depth: usize) -> Option<Tree<'_>> {
    let mut reader = Reader { bytes, at: 0 };
    let tree = reader.item(depth)?;
    (reader.at == bytes.len()).then_some(tree)
}

/// First byte and argument.
struct Head {
    major: u8,
    /// The low five bits of the first byte.
    info: u8,
    argument: u64,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let end = self.at.checked_add(usize::try_from(len).ok()?)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn head(&mut self) -> Option<Head> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 31);
        let argument = match info {
            0..=23 => u64::from(info),
            24..=27 => {
                let bytes = self.take(1 << (info - 24))?;
                bytes
                    .iter()
                    .fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
            31 => 0,
            _ => return None,
        };
        Some(Head {
            major,
            info,
            argument,
        })
    }

    fn is_at_break(&self) -> bool {
        self.bytes.get(self.at) == Some(&BREAK)
    }

    fn item(&mut self, depth: usize) -> Option<Tree<'a>> {
        let begin = self.at;
        let head = self.head()?;
        let is_indefinite = head.info == 31;
        if matches!(head.major, 4..=6) && depth == MAX_NESTING {
            return None;
        }
        let node = match head.major {
            0 | 1 | 6 if is_indefinite => return None,
            0 | 1 => Node::Integer(head.major, head.argument),
            2 | 3 if is_indefinite => Node::String(head.major, self.pieces(head.major)?),
            2 | 3 => Node::String(head.major, self.take(head.argument)?.to_vec()),
            4 => {
                let mut elements = Vec::new();
                self.each(&head, |reader| {
                    elements.push(reader.item(depth + 1)?);
                    Some(())
                })?;
                Node::Array(elements)
            }
            5 => {
                let mut pairs = Vec::new();
                self.each(&head, |reader| {
                    pairs.push((reader.item(depth + 1)?, reader.item(depth + 1)?));
                    Some(())
                })?;
                Node::Map(pairs)
            }
            6 => return self.item(depth + 1),
            // A break where none belongs, and a simple value of two bytes that has one of one byte.
            _ if is_indefinite || head.info == 24 && head.argument < 32 => return None,
            _ => Node::Other,
        };
        let raw = &self.bytes[begin..self.at];
        Some(Tree { raw, node })
    }

    fn each(&mut self, head: &Head, mut one: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if head.info == 31 {
            while !self.is_at_break() {
                one(self)?;
            }
            self.at += 1;
        } else {
            for _ in 0..head.argument {
                one(self)?;
            }
        }
        Some(())
    }

    fn pieces(&mut self, major: u8) -> Option<Vec<u8>> {
        let mut joined = Vec::new();
        while !self.is_at_break() {
            let piece = self.head()?;
            if piece.major != major || piece.info == 31 {
                return None;
            }
            joined.extend_from_slice(self.take(piece.argument)?);
        }
        self.at += 1;
        Some(joined)
    }
}

impl Tree<'_> {
    /// The item with shortest heads and definite lengths, and without tags. Keys that are no number and no string stay as they are: two
    /// encodings of them are two keys for the server.
    pub(super) fn plain(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Whether a text has a character that is spread over two pieces, which is well-formed and not valid (RFC 8949, section 3.2.3): what is
    /// made of it is not said.
    pub(super) fn has_odd_text(&self) -> bool {
        match &self.node {
            Node::String(3, joined) => {
                self.raw[0] & 31 == 31 && joined.iter().any(|byte| !byte.is_ascii())
            }
            Node::Array(elements) => elements.iter().any(Self::has_odd_text),
            Node::Map(pairs) => pairs
                .iter()
                .any(|(key, value)| key.has_odd_text() || value.has_odd_text()),
            _ => false,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match &self.node {
            Node::Integer(major, number) => put_head(out, *major, *number),
            Node::String(major, bytes) => {
                put_head(out, *major, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Node::Array(elements) => {
                put_head(out, 4, elements.len() as u64);
                for element in elements {
                    element.put(out);
                }
            }
            Node::Map(pairs) => {
                put_head(out, 5, pairs.len() as u64);
                for (key, value) in pairs {
                    key.put_key(out);
                    value.put(out);
                }
            }
            Node::Other => out.extend_from_slice(self.raw),
        }
    }

    fn put_key(&self, out: &mut Vec<u8>) {
        match self.node {
            Node::Integer(..) | Node::String(..) => self.put(out),
            _ => out.extend_from_slice(self.raw),
        }
    }
}

fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let (info, len) = match argument {
        0..=23 => (argument as u8, 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | info);
    out.extend_from_slice(&argument.to_be_bytes()[8 - len..]);
}
