//! From JSON (RFC 8259) to CBOR.
//!
//! One bounded pass, which judges and writes at once. An array or an object is begun as one of indefinite length, since how many members it has
//! shows at its end; a short one gets a definite head then.

use std::borrow::Cow;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::protocol::{
    codec::shortest,
    scan::cursor::{ARRAY, BREAK, BYTES, MAP, MAX_NESTING, NEGATIVE, NULL, TEXT, UNSIGNED},
};

/// Why a text is not exactly one JSON value, or one that is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotJson {
    /// It ends in the middle.
    #[error("the JSON ends too early, at byte {0}")]
    Truncated(usize),
    /// It breaks a rule.
    #[error("the JSON is not well-formed at byte {0}")]
    IllFormed(usize),
    /// It is nested too deep.
    #[error("arrays and objects are nested deeper than {MAX_NESTING} levels at byte {0}")]
    Nested(usize),
    /// More than blanks follow it.
    #[error("something follows the JSON value, from byte {0} on")]
    Trailing(usize),
}

/// A text that is not exactly one value.
pub(super) struct Broken {
    /// What it was up to there; arrays and maps that did not end are of indefinite length.
    pub(super) begun: Vec<u8>,
    pub(super) why: NotJson,
}

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const FLOAT_64: u8 = 0xfb;
/// In a head, behind the major type: until a break.
const INDEFINITE: u8 = 31;
/// Counts below this stand in the head's first byte.
const SHORT: u8 = 24;

/// With or without padding, and one text for the same bytes.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The CBOR of the one value that `text` is.
pub(super) fn read(text: &str) -> Result<Vec<u8>, Broken> {
    let mut reader = Reader {
        text,
        at: 0,
        cbor: Vec::with_capacity(text.len() + 16),
        fields_depth: 2,
    };
    reader.skip_blanks();
    if reader.peek() == Some(b'[') {
        reader.fields_depth += 1;
    }
    match reader.message() {
        Ok(()) => Ok(reader.cbor),
        Err(why) => Err(Broken {
            begun: reader.cbor,
            why,
        }),
    }
}

/// What a value is made into, which its key tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// What it is.
    Plain,
    /// A text in base64url: the bytes.
    Base64,
    /// A text: its UTF-8.
    TextBytes,
    /// Anything but `null`: the characters that it is written with.
    Written,
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    cbor: Vec<u8>,
    /// How many arrays and objects stand round the values of a command's fields.
    fields_depth: usize,
}

impl<'t> Reader<'t> {
    fn message(&mut self) -> Result<(), NotJson> {
        self.value(0, Place::Plain)?;
        self.skip_blanks();
        if self.at < self.text.len() {
            return Err(NotJson::Trailing(self.at));
        }
        Ok(())
    }

    /// Reads one value, round which `depth` arrays and objects stand.
    fn value(&mut self, depth: usize, place: Place) -> Result<(), NotJson> {
        self.skip_blanks();
        let (begin, begun) = (self.at, self.cbor.len());
        match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => {
                let text = self.string()?;
                match place {
                    Place::Base64 => self.put_base64(&text),
                    Place::TextBytes => self.put_string(BYTES, text.as_bytes()),
                    Place::Plain | Place::Written => self.put_string(TEXT, text.as_bytes()),
                }
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.literal("true", TRUE)?,
            Some(b'f') => self.literal("false", FALSE)?,
            Some(b'n') => self.literal("null", NULL)?,
            _ => return Err(self.unexpected()),
        }
        if place == Place::Written && self.cbor[begun..] != [NULL] {
            self.cbor.truncate(begun);
            self.put_string(BYTES, &self.text.as_bytes()[begin..self.at]);
        }
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), NotJson> {
        let head = self.open(ARRAY, depth)?;
        let mut count = 0;
        if !self.ends_empty(b']') {
            loop {
                self.value(depth + 1, Place::Plain)?;
                count += 1;
                if self.ends(b']')? {
                    break;
                }
            }
        }
        self.close(head, ARRAY, count);
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), NotJson> {
        let head = self.open(MAP, depth)?;
        let mut count = 0;
        if !self.ends_empty(b'}') {
            loop {
                self.pair(depth + 1)?;
                count += 1;
                if self.ends(b'}')? {
                    break;
                }
            }
        }
        self.close(head, MAP, count);
        Ok(())
    }

    fn pair(&mut self, depth: usize) -> Result<(), NotJson> {
        self.skip_blanks();
        if self.peek() != Some(b'"') {
            return Err(self.unexpected());
        }
        let key = self.string()?;
        self.put_string(TEXT, key.as_bytes());
        self.skip_blanks();
        if !self.eat(b':') {
            return Err(self.unexpected());
        }
        let place = match &*key {
            "text" if depth == self.fields_depth => Place::TextBytes,
            "json" if depth == self.fields_depth => Place::Written,
            key if super::holds_data(key.as_bytes()) => Place::Base64,
            _ => Place::Plain,
        };
        self.value(depth, place)
    }

    /// Begins an array or an object; returns where its head stands.
    fn open(&mut self, major: u8, depth: usize) -> Result<usize, NotJson> {
        if depth == MAX_NESTING {
            return Err(NotJson::Nested(self.at));
        }
        self.at += 1;
        self.cbor.push(major << 5 | INDEFINITE);
        Ok(self.cbor.len() - 1)
    }

    fn close(&mut self, head: usize, major: u8, count: usize) {
        match u8::try_from(count) {
            Ok(count) if count < SHORT => self.cbor[head] = major << 5 | count,
            _ => self.cbor.push(BREAK),
        }
    }

    /// Whether an array or an object ends right behind its beginning.
    fn ends_empty(&mut self, end: u8) -> bool {
        self.skip_blanks();
        self.eat(end)
    }

    /// Whether an array or an object ends behind a member; if not, there is another one.
    fn ends(&mut self, end: u8) -> Result<bool, NotJson> {
        self.skip_blanks();
        if self.eat(end) {
            return Ok(true);
        }
        if self.eat(b',') {
            return Ok(false);
        }
        Err(self.unexpected())
    }

    fn literal(&mut self, name: &str, simple: u8) -> Result<(), NotJson> {
        let rest = &self.text.as_bytes()[self.at..];
        if !rest.starts_with(name.as_bytes()) {
            let is_cut = name.as_bytes().starts_with(rest);
            return Err(if is_cut {
                NotJson::Truncated(self.text.len())
            } else {
                NotJson::IllFormed(self.at)
            });
        }
        self.at += name.len();
        self.cbor.push(simple);
        Ok(())
    }

    /// An integer of 64 bits is one; whatever else, `-0` and `1.0` too, is a float.
    fn number(&mut self) -> Result<(), NotJson> {
        let begin = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        let mut is_integer = true;
        if self.eat(b'.') {
            is_integer = false;
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            is_integer = false;
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        let text = &self.text[begin..self.at];
        if let Some((major, argument)) = integer(text).filter(|_| is_integer) {
            self.put_head(major, argument);
            return Ok(());
        }
        let float: f64 = text.parse().map_err(|_| NotJson::IllFormed(begin))?;
        self.cbor.push(FLOAT_64);
        self.cbor.extend_from_slice(&float.to_be_bytes());
        Ok(())
    }

    /// Goes behind at least one digit.
    fn digits(&mut self) -> Result<(), NotJson> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == begin {
            return Err(self.unexpected());
        }
        Ok(())
    }

    /// Goes behind a string, and gives what it says: a part of the text where nothing in it is escaped.
    fn string(&mut self) -> Result<Cow<'t, str>, NotJson> {
        self.at += 1;
        let mut plain = self.at;
        let mut joined: Option<String> = None;
        loop {
            match self.peek() {
                None => return Err(NotJson::Truncated(self.at)),
                Some(b'"') => {
                    let rest = &self.text[plain..self.at];
                    self.at += 1;
                    return Ok(match joined {
                        None => Cow::Borrowed(rest),
                        Some(joined) => Cow::Owned(joined + rest),
                    });
                }
                Some(b'\\') => {
                    let joined = joined.get_or_insert_default();
                    joined.push_str(&self.text[plain..self.at]);
                    joined.push(self.escaped()?);
                    plain = self.at;
                }
                Some(0..=0x1f) => return Err(NotJson::IllFormed(self.at)),
                Some(_) => self.at += 1,
            }
        }
    }

    /// Goes behind an escape, and gives the character that it stands for. Half of a surrogate pair stands for none.
    fn escaped(&mut self) -> Result<char, NotJson> {
        let begin = self.at;
        self.at += 1;
        let escape = self.peek().ok_or(NotJson::Truncated(self.at))?;
        self.at += 1;
        Ok(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.code_unit()?;
                let units = if (0xd800..0xdc00).contains(&unit) {
                    for byte in [b'\\', b'u'] {
                        if !self.eat(byte) {
                            return Err(self.unexpected());
                        }
                    }
                    [unit, self.code_unit()?]
                } else {
                    [unit, 0]
                };
                char::decode_utf16(units)
                    .next()
                    .and_then(Result::ok)
                    .ok_or(NotJson::IllFormed(begin))?
            }
            _ => return Err(NotJson::IllFormed(begin)),
        })
    }

    fn code_unit(&mut self) -> Result<u16, NotJson> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().ok_or(NotJson::Truncated(self.at))?;
            let digit = char::from(digit).to_digit(16);
            unit = unit << 4 | digit.ok_or(NotJson::IllFormed(self.at))?;
            self.at += 1;
        }
        Ok(unit as u16)
    }

    /// The bytes that `text` stands for; the text itself, if it stands for none: whoever wants bytes will say so.
    fn put_base64(&mut self, text: &str) {
        match BASE64URL.decode(text) {
            Ok(bytes) => self.put_string(BYTES, &bytes),
            Err(_) => self.put_string(TEXT, text.as_bytes()),
        }
    }

    fn put_string(&mut self, major: u8, string: &[u8]) {
        self.put_head(major, string.len() as u64);
        self.cbor.extend_from_slice(string);
    }

    fn put_head(&mut self, major: u8, argument: u64) {
        let (head, len) = shortest(major << 5, argument);
        self.cbor.extend_from_slice(&head[..len]);
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// What stands here does not belong here.
    fn unexpected(&self) -> NotJson {
        if self.at < self.text.len() {
            NotJson::IllFormed(self.at)
        } else {
            NotJson::Truncated(self.at)
        }
    }
}

/// Major type and argument of an integer, if 64 bits hold it.
fn integer(text: &str) -> Option<(u8, u64)> {
    match text.strip_prefix('-') {
        None => Some((UNSIGNED, text.parse().ok()?)),
        Some(text) => Some((NEGATIVE, text.parse::<u64>().ok()?.checked_sub(1)?)),
    }
}
