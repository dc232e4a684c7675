//! The parts of a backup: their names, where they are, and reading them.

use std::{
    fmt,
    io::{self, Read},
    path::PathBuf,
    str::FromStr,
};

use uuid::Uuid;

use crate::datalog::{disk::File, segment::SegmentId};

/// Everything that a backup is made of.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Whose it is: without it, neither state log nor journals can be read.
    pub store: Uuid,
    /// In order of their names.
    pub parts: Vec<Part>,
}

impl Contents {
    /// Bytes of all parts.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len).sum()
    }
}

/// One file of a data directory, as far as it counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// What it is.
    pub name: PartName,
    /// Where it is.
    pub path: PathBuf,
    /// Its first so many bytes count.
    pub len: u64,
}

impl Part {
    /// Reads it; what is not there of it is an error.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub fn open(&self) -> io::Result<impl Read> {
        Ok(PartReader {
            file: File::open(&self.path)?,
            at: 0,
            end: self.len,
        })
    }
}

struct PartReader {
    file: File,
    at: u64,
    end: u64,
}

impl Read for PartReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = bytes.len().min(left);
        self.file.read_exact_at(&mut bytes[..len], self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

/// What a part is. As text it is a path, which is that in the data directory but for journals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PartName {
    /// The state log.
    StateLog,
    /// The journal of this generation, which is not sealed.
    Journal(u64),
    /// The segment with this number.
    Segment(u64),
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateLog => f.write_str("state/log"),
            Self::Journal(generation) => write!(f, "journal/{generation}"),
            Self::Segment(id) => write!(f, "segments/{}", SegmentId(*id).file_name()),
        }
    }
}

/// A text that names no part.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no part of a backup")]
pub struct NoPart(String);

impl FromStr for PartName {
    type Err = NoPart;

    fn from_str(text: &str) -> Result<Self, NoPart> {
        let name = match text.split_once('/') {
            Some(("state", "log")) => Some(Self::StateLog),
            Some(("journal", generation)) => generation.parse().ok().map(Self::Journal),
            Some(("segments", name)) => {
                SegmentId::of_file_name(name).map(|SegmentId(id)| Self::Segment(id))
            }
            _ => None,
        };
        // A name is written in one way.
        let name = name.filter(|name| name.to_string() == text);
        name.ok_or_else(|| NoPart(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_part_is_read_as_it_is_written_and_in_no_other_way() {
        for name in [
            PartName::StateLog,
            PartName::Journal(12),
            PartName::Segment(u64::MAX),
        ] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for text in [
            "",
            "state",
            "state/log2",
            "state//log",
            "/state/log",
            "journal/",
            "journal/012",
            "journal/+1",
            "journal/../format",
            "segments/1",
            "segments/01.segment",
            "segments/../../x.segment",
            "format",
        ] {
            assert!(text.parse::<PartName>().is_err(), "{text}");
        }
    }
}
