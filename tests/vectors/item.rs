//! A CBOR reader of the tests' own, which keeps how an item was encoded: for its diagnostic notation (RFC 8949, section 8,
//! with encoding indicators), and for the grammar, which does not care.

use std::fmt;

/// A data item and its encoding.
pub(crate) enum Item {
    Unsigned(u64, Width),
    /// -1 minus this.
    Negative(u64, Width),
    Bytes(Vec<u8>, Width),
    Text(String, Width),
    /// An indefinite string by its chunks; which of the two types it is.
    Chunks(Vec<Item>, &'static str),
    Array(Vec<Item>, Length),
    Map(Vec<(Item, Item)>, Length),
    Tag(u64, Width, Box<Item>),
    Float(f64, Width),
    Simple(u8),
}

/// `n` of `_n`, if the argument is not in its shortest form.
type Width = Option<u8>;

/// How the length of an array or a map stands there.
pub(crate) enum Length {
    Definite(Width),
    Indefinite,
}

impl Length {
    fn is_shortest(&self) -> bool {
        matches!(self, Self::Definite(None))
    }
}

const BREAK: u8 = 0xff;

struct Reader<'m> {
    rest: &'m [u8],
}

impl Item {
    /// The one item that `bytes` are, unless they are not well-formed or have a text that is not UTF-8.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: bytes };
        let item = reader.item()?;
        reader.rest.is_empty().then_some(item)
    }

    /// Whether there is no tag, and nothing indefinite or longer than needed.
    pub(crate) fn is_plain(&self) -> bool {
        match self {
            Self::Unsigned(_, width)
            | Self::Negative(_, width)
            | Self::Bytes(_, width)
            | Self::Text(_, width)
            | Self::Float(_, width) => width.is_none(),
            Self::Chunks(..) | Self::Tag(..) => false,
            Self::Array(items, length) => length.is_shortest() && items.iter().all(Self::is_plain),
            Self::Map(pairs, length) => {
                length.is_shortest()
                    && pairs
                        .iter()
                        .all(|(key, value)| key.is_plain() && value.is_plain())
            }
            Self::Simple(_) => true,
        }
    }

    /// The item as a value of the data model, without its tags.
    pub(crate) fn untagged_value(&self) -> ciborium::Value {
        use ciborium::Value;
        match self {
            Self::Unsigned(number, _) => Value::from(*number),
            Self::Negative(number, _) => {
                Value::Integer((-1 - i128::from(*number)).try_into().unwrap())
            }
            Self::Bytes(bytes, _) => Value::Bytes(bytes.clone()),
            Self::Text(text, _) => Value::Text(text.clone()),
            Self::Chunks(chunks, empty) => {
                let mut bytes = Vec::new();
                for chunk in chunks {
                    match chunk {
                        Self::Bytes(piece, _) => bytes.extend(piece),
                        Self::Text(piece, _) => bytes.extend(piece.as_bytes()),
                        _ => unreachable!("a chunk is a string"),
                    }
                }
                if *empty == "''" {
                    Value::Bytes(bytes)
                } else {
                    Value::Text(String::from_utf8(bytes).unwrap())
                }
            }
            Self::Array(items, _) => Value::Array(items.iter().map(Self::untagged_value).collect()),
            Self::Map(pairs, _) => Value::Map(
                pairs
                    .iter()
                    .map(|(key, value)| (key.untagged_value(), value.untagged_value()))
                    .collect(),
            ),
            Self::Tag(_, _, item) => item.untagged_value(),
            Self::Float(number, _) => Value::Float(*number),
            Self::Simple(20) => Value::Bool(false),
            Self::Simple(21) => Value::Bool(true),
            Self::Simple(22) => Value::Null,
            // ciborium has no other simple values; this one too is no type that the grammar names.
            Self::Simple(_) => Value::Float(f64::NAN),
        }
    }
}

impl Reader<'_> {
    fn take(&mut self, len: u64) -> Option<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(len).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn is_at_break(&mut self) -> bool {
        let at = self.rest.first() == Some(&BREAK);
        if at {
            self.rest = &self.rest[1..];
        }
        at
    }

    /// Major type, additional information, argument, and whether that could have been shorter.
    fn head(&mut self) -> Option<(u8, u8, u64, Width)> {
        let first = self.take(1)?[0];
        let (major, additional) = (first >> 5, first & 0x1f);
        let argument = match additional {
            0..=23 => return Some((major, additional, additional.into(), None)),
            24..=27 => self
                .take(1 << (additional - 24))?
                .iter()
                .fold(0, |argument, byte| argument << 8 | u64::from(*byte)),
            31 => 0,
            _ => return None,
        };
        let shortest = match argument {
            0..=23 => 0,
            24..=0xff => 24,
            0x100..=0xffff => 25,
            0x1_0000..=0xffff_ffff => 26,
            _ => 27,
        };
        let width = (additional != 31 && additional != shortest).then(|| additional - 24);
        Some((major, additional, argument, width))
    }

    fn item(&mut self) -> Option<Item> {
        let (major, additional, argument, width) = self.head()?;
        let is_indefinite = additional == 31;
        let length = if is_indefinite {
            Length::Indefinite
        } else {
            Length::Definite(width)
        };
        Some(match major {
            0 if !is_indefinite => Item::Unsigned(argument, width),
            1 if !is_indefinite => Item::Negative(argument, width),
            2 | 3 if is_indefinite => self.chunks(major)?,
            2 => Item::Bytes(self.take(argument)?.to_vec(), width),
            3 => Item::Text(
                String::from_utf8(self.take(argument)?.to_vec()).ok()?,
                width,
            ),
            4 => {
                let mut items = Vec::new();
                while self.has_more(is_indefinite, items.len(), argument) {
                    items.push(self.item()?);
                }
                Item::Array(items, length)
            }
            5 => {
                let mut pairs = Vec::new();
                while self.has_more(is_indefinite, pairs.len(), argument) {
                    pairs.push((self.item()?, self.item()?));
                }
                Item::Map(pairs, length)
            }
            6 if !is_indefinite => Item::Tag(argument, width, Box::new(self.item()?)),
            7 => simple(additional, argument)?,
            _ => return None,
        })
    }

    fn has_more(&mut self, is_indefinite: bool, read: usize, announced: u64) -> bool {
        if is_indefinite {
            !self.is_at_break()
        } else {
            (read as u64) < announced
        }
    }

    fn chunks(&mut self, major: u8) -> Option<Item> {
        let mut chunks = Vec::new();
        while !self.is_at_break() {
            if self.rest.first()? >> 5 != major || self.rest[0] & 0x1f == 31 {
                return None;
            }
            chunks.push(self.item()?);
        }
        Some(Item::Chunks(chunks, if major == 2 { "''" } else { "\"\"" }))
    }
}

fn simple(additional: u8, argument: u64) -> Option<Item> {
    Some(match additional {
        0..=23 => Item::Simple(additional),
        24 if argument >= 32 => Item::Simple(argument as u8),
        25..=27 => {
            let number = match additional {
                25 => half(argument as u16),
                26 => f32::from_bits(argument as u32).into(),
                _ => f64::from_bits(argument),
            };
            let is_half = half_of(number).is_some();
            let is_single = f64::from(number as f32) == number || number.is_nan();
            let shortest = match (is_half, is_single) {
                (true, _) => 25,
                (false, true) => 26,
                (false, false) => 27,
            };
            Item::Float(number, (additional != shortest).then(|| additional - 24))
        }
        _ => return None,
    })
}

fn half(bits: u16) -> f64 {
    let mantissa = f64::from(bits & 0x3ff);
    let magnitude = match (bits >> 10) & 0x1f {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1024.0 + mantissa) * 2f64.powi(i32::from(exponent) - 25),
    };
    if bits >> 15 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

/// The bits of `number` as a half, if it is one.
fn half_of(number: f64) -> Option<u16> {
    (0..=u16::MAX).find(|bits| half(*bits) == number || (number.is_nan() && half(*bits).is_nan()))
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(number, width) => write!(f, "{number}{}", indicator(*width)),
            Self::Negative(number, width) => {
                write!(f, "{}{}", -1 - i128::from(*number), indicator(*width))
            }
            Self::Bytes(bytes, width) => {
                f.write_str("h'")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, "'{}", indicator(*width))
            }
            Self::Text(text, width) => {
                f.write_str("\"")?;
                for character in text.chars() {
                    match character {
                        '"' | '\\' => write!(f, "\\{character}")?,
                        _ if character.is_control() => write!(f, "\\u{:04x}", character as u32)?,
                        _ => write!(f, "{character}")?,
                    }
                }
                write!(f, "\"{}", indicator(*width))
            }
            Self::Chunks(chunks, empty) if chunks.is_empty() => write!(f, "{empty}_"),
            Self::Chunks(chunks, _) => {
                f.write_str("(_ ")?;
                separated(f, chunks)?;
                f.write_str(")")
            }
            Self::Array(items, length) => {
                write!(f, "[{}", Prefix(length))?;
                separated(f, items)?;
                f.write_str("]")
            }
            Self::Map(pairs, length) => {
                write!(f, "{{{}", Prefix(length))?;
                for (at, (key, value)) in pairs.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            Self::Tag(tag, width, item) => write!(f, "{tag}{}({item})", indicator(*width)),
            Self::Float(number, width) if number.is_infinite() => {
                let sign = if *number < 0.0 { "-" } else { "" };
                write!(f, "{sign}Infinity{}", indicator(*width))
            }
            Self::Float(number, width) => write!(f, "{number:?}{}", indicator(*width)),
            Self::Simple(20) => f.write_str("false"),
            Self::Simple(21) => f.write_str("true"),
            Self::Simple(22) => f.write_str("null"),
            Self::Simple(23) => f.write_str("undefined"),
            Self::Simple(value) => write!(f, "simple({value})"),
        }
    }
}

fn indicator(width: Width) -> String {
    width.map_or_else(String::new, |width| format!("_{width}"))
}

fn separated(f: &mut fmt::Formatter<'_>, items: &[Item]) -> fmt::Result {
    items.iter().enumerate().try_for_each(|(at, item)| {
        let separator = if at == 0 { "" } else { ", " };
        write!(f, "{separator}{item}")
    })
}

/// What stands behind an opening bracket.
struct Prefix<'a>(&'a Length);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match self.0 {
            Length::Definite(None) => return Ok(()),
            Length::Definite(width) => indicator(*width),
            Length::Indefinite => "_".to_owned(),
        };
        write!(f, "{shown} ")
    }
}
