//! What is in a file, and what becomes of it when writes reach the disk in part.

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;

/// A file's bytes; those behind `bytes` are zeros.
#[derive(Clone, Default, Debug)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) len: u64,
}

/// What changes a file.
#[derive(Clone, Debug)]
pub(super) enum Write {
    Bytes(u64, Box<[u8]>),
    Zeros(u64, u64),
    Length(u64),
}

/// How much of the writes that were not synced a power cut leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    Nothing,
    Everything,
    /// Those in front of one that is torn.
    Begin,
    /// Each whole or not at all.
    SomeWrites,
    /// Each sector, whichever write it is of.
    SomeSectors,
    /// Lengths, but no content.
    Lengths,
}

impl Left {
    pub(super) fn random(random: &mut fastrand::Rng) -> Self {
        match random.u8(0..12) {
            0 | 1 => Self::Nothing,
            2 | 3 => Self::Everything,
            4..6 => Self::Begin,
            6..8 => Self::SomeWrites,
            8 => Self::Lengths,
            _ => Self::SomeSectors,
        }
    }
}

impl Write {
    pub(super) fn new(offset: u64, bytes: &[u8]) -> Self {
        if is_zeros(bytes) {
            Self::Zeros(offset, bytes.len() as u64)
        } else {
            Self::Bytes(offset, bytes.into())
        }
    }

    fn end(&self) -> u64 {
        match self {
            Self::Bytes(offset, bytes) => offset + bytes.len() as u64,
            Self::Zeros(offset, len) => offset + len,
            Self::Length(len) => *len,
        }
    }
}

pub(super) fn is_zeros(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|part| part == &ZEROS[..part.len()])
}

impl Content {
    pub(super) fn apply(&mut self, write: &Write) {
        match write {
            Write::Bytes(offset, bytes) => self.put(*offset, bytes),
            Write::Zeros(offset, len) => self.put_zeros(*offset, *len),
            Write::Length(len) => {
                self.len = *len;
                self.bytes
                    .truncate(usize::try_from(*len).unwrap_or(usize::MAX));
            }
        }
    }

    /// Some of the writes, as a power cut leaves them.
    pub(super) fn apply_some(&mut self, writes: &[Write], random: &mut fastrand::Rng) {
        let left = Left::random(random);
        let torn = match writes.len() {
            0 => return,
            count => random.usize(..count),
        };
        for (number, write) in writes.iter().enumerate() {
            match left {
                Left::Nothing => {}
                Left::Everything => self.apply(write),
                Left::Begin if number < torn => self.apply(write),
                Left::Begin if number > torn => {}
                Left::Begin => self.tear(write, random, true),
                Left::SomeSectors => self.tear(write, random, false),
                Left::SomeWrites => {
                    if random.bool() {
                        self.apply(write);
                    }
                }
                Left::Lengths => self.len = self.len.max(write.end()),
            }
        }
    }

    /// Some sectors of one write: its first ones, or any.
    fn tear(&mut self, write: &Write, random: &mut fastrand::Rng, is_begin: bool) {
        let (from, to) = match write {
            Write::Bytes(offset, _) | Write::Zeros(offset, _) => (*offset, write.end()),
            Write::Length(_) => {
                if random.bool() {
                    self.apply(write);
                }
                return;
            }
        };
        if matches!(write, Write::Zeros(..)) && to - from > 64 * SECTOR {
            // One of a preallocation; its sectors are all alike.
            let kept = random.u64(..=to - from);
            return self.put_zeros(from, kept);
        }
        let sectors = to.div_ceil(SECTOR) - from / SECTOR;
        let kept = random.u64(..=sectors);
        for number in 0..sectors {
            if (is_begin && number >= kept) || (!is_begin && random.bool()) {
                continue;
            }
            let begin = ((from / SECTOR + number) * SECTOR).max(from);
            let end = ((from / SECTOR + number + 1) * SECTOR).min(to);
            match write {
                Write::Bytes(_, bytes) => {
                    self.put(
                        begin,
                        &bytes[(begin - from) as usize..(end - from) as usize],
                    );
                }
                _ => self.put_zeros(begin, end - begin),
            }
        }
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let (begin, end) = (offset as usize, offset as usize + bytes.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[begin..end].copy_from_slice(bytes);
        self.len = self.len.max(end as u64);
    }

    fn put_zeros(&mut self, offset: u64, len: u64) {
        let held = self.bytes.len() as u64;
        let (begin, end) = (offset.min(held), (offset + len).min(held));
        self.bytes[begin as usize..end as usize].fill(0);
        self.len = self.len.max(offset + len);
    }
}
