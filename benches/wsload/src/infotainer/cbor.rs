//! CBOR (RFC 8949), read in place and written by hand: no more of it than the adapter needs.

use std::borrow::Cow;

/// Items inside items: what the protocol sends is far below.
pub(super) const MAX_DEPTH: u32 = 32;

pub(super) fn put_head(out: &mut Vec<u8>, major: u8, n: u64) {
    let m = major << 5;
    if n < 24 {
        out.push(m | n as u8);
    } else if n < 1 << 8 {
        out.extend_from_slice(&[m | 24, n as u8]);
    } else if n < 1 << 16 {
        out.push(m | 25);
        out.extend_from_slice(&(n as u16).to_be_bytes());
    } else if n < 1 << 32 {
        out.push(m | 26);
        out.extend_from_slice(&(n as u32).to_be_bytes());
    } else {
        out.push(m | 27);
        out.extend_from_slice(&n.to_be_bytes());
    }
}

pub(super) fn put_text(out: &mut Vec<u8>, t: &str) {
    put_head(out, 3, t.len() as u64);
    out.extend_from_slice(t.as_bytes());
}

/// Walks one CBOR item. None: the bytes end too early, or are not what CBOR allows.
pub(super) struct Cbor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cbor<'a> {
    /// The initial byte and its argument.
    #[inline(always)]
    pub(super) fn head(&mut self) -> Option<(u8, u64)> {
        let ib = *self.bytes.get(self.at)?;
        self.at += 1;
        if ib & 31 < 24 {
            return Some((ib, (ib & 31) as u64));
        }
        self.long_head(ib)
    }

    #[inline]
    fn long_head(&mut self, ib: u8) -> Option<(u8, u64)> {
        let r = &self.bytes[self.at..];
        let (n, v) = match ib & 31 {
            24 => (1, *r.first()? as u64),
            25 => (2, u16::from_be_bytes(r.get(..2)?.try_into().ok()?) as u64),
            26 => (4, u32::from_be_bytes(r.get(..4)?.try_into().ok()?) as u64),
            27 => (8, u64::from_be_bytes(r.get(..8)?.try_into().ok()?)),
            // 31: indefinite length, or the break; not for integers and tags
            31 if !matches!(ib >> 5, 0 | 1 | 6) => (0, 0),
            _ => return None,
        };
        self.at += n;
        Some((ib, v))
    }

    #[inline(always)]
    pub(super) fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        let r = &self.bytes[self.at..];
        if n > r.len() as u64 {
            return None;
        }
        self.at += n as usize;
        Some(&r[..n as usize])
    }

    /// Consumes the break of an indefinite item if it is next.
    pub(super) fn at_break(&mut self) -> Option<bool> {
        let is = *self.bytes.get(self.at)? == 0xff;
        self.at += is as usize;
        Some(is)
    }

    #[inline]
    pub(super) fn skip(&mut self, depth: u32) -> Option<()> {
        let (ib, n) = self.head()?;
        match ib >> 5 {
            0 | 1 => Some(()),
            2 | 3 if ib & 31 < 31 => self.take(n).map(|_| ()),
            7 if ib != 0xff => Some(()),
            _ => self.skip_nested(ib, n, depth),
        }
    }

    fn skip_nested(&mut self, ib: u8, n: u64, depth: u32) -> Option<()> {
        if depth == 0 {
            return None;
        }
        let (major, indefinite) = (ib >> 5, ib & 31 == 31);
        match major {
            2 | 3 => self.chunks(major, |_| ()),
            4 | 5 => {
                let mut i = 0;
                loop {
                    if if indefinite { self.at_break()? } else { i == n } {
                        return Some(());
                    }
                    i += 1;
                    self.skip(depth - 1)?;
                    if major == 5 {
                        self.skip(depth - 1)?;
                    }
                }
            }
            6 => self.skip(depth - 1),
            _ => None,
        }
    }

    /// The chunks of an indefinite string, up to its break.
    fn chunks(&mut self, major: u8, mut f: impl FnMut(&'a [u8])) -> Option<()> {
        while !self.at_break()? {
            let (ib, n) = self.head()?;
            if ib >> 5 != major || ib & 31 == 31 {
                return None;
            }
            f(self.take(n)?);
        }
        Some(())
    }

    fn tagged_head(&mut self) -> Option<(u8, u64)> {
        loop {
            let h = self.head()?;
            if h.0 >> 5 != 6 {
                return Some(h);
            }
        }
    }

    #[inline]
    pub(super) fn uint(&mut self) -> Option<u64> {
        let (ib, n) = self.head()?;
        if ib >> 5 == 0 { Some(n) } else { None }
    }

    /// A byte string or a text, whole.
    #[inline]
    pub(super) fn string(&mut self, major: u8) -> Option<Cow<'a, [u8]>> {
        let (ib, n) = self.tagged_head()?;
        if ib >> 5 != major {
            return None;
        }
        if ib & 31 != 31 {
            return self.take(n).map(Cow::Borrowed);
        }
        let mut v = Vec::new();
        self.chunks(major, |c| v.extend_from_slice(c))?;
        Some(Cow::Owned(v))
    }

    /// Calls `f(self, key)` for each pair whose key is a text; f consumes the value. Returns the number of pairs.
    #[inline(always)]
    pub(super) fn map(
        &mut self,
        mut f: impl FnMut(&mut Self, &'a [u8]) -> Option<()>,
    ) -> Option<u64> {
        let (ib, n) = self.tagged_head()?;
        if ib >> 5 != 5 {
            return None;
        }
        let mut i = 0;
        loop {
            if if ib & 31 == 31 {
                self.at_break()?
            } else {
                i == n
            } {
                return Some(i);
            }
            i += 1;
            let at = self.at;
            let (k, len) = self.head()?;
            if k >> 5 == 3 && k & 31 != 31 {
                let key = self.take(len)?;
                f(self, key)?;
            } else {
                self.at = at;
                self.skip(MAX_DEPTH)?;
                self.skip(MAX_DEPTH)?;
            }
        }
    }
}
