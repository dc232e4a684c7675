//! The values that travel between the data log and those who use it.

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::counted;
pub use crate::domain::{
    Chunk, Cut, Ids, LogExtent, LogNumber, MissingRange, Page, Record, StateMap,
};

impl Record {
    /// The most bytes that this record takes in the journal, its share of a batch included.
    ///
    /// Sum these against [`Space::guaranteed`]: the sum holds however the records are spread over batches.
    pub fn encoded_len(&self) -> u64 {
        // A header and its padding.
        const BATCH_SHARE: usize = 48;
        let body = match self {
            Self::CreateLog(_) | Self::RemoveLog(_) => 9,
            Self::Publications(chunk) => 29 + chunk.frames.len(),
            Self::Truncate { .. } => 17,
            Self::Put { key, value } => 9 + key.len() + value.len(),
            Self::Delete { key } => 5 + key.len(),
        };
        (BATCH_SHARE + body) as u64
    }
}

/// How a data log is opened.
#[derive(Clone)]
pub struct Options {
    /// The directory that holds everything. Made if it does not exist.
    pub data_dir: PathBuf,
    /// Bytes of one journal file. 32 MiB.
    pub journal_size: u64,
    /// Journals that may wait to be sealed, the current one included, before [`DataLog::write`](crate::datalog) waits. 3.
    pub max_unsealed: usize,
    /// Segments of one level that are merged into one. 16.
    pub merge_at: usize,
    /// How long no journal is filled before what can wait is done. 1 s.
    pub lull: Duration,
    /// Bytes of memory for the catalogue's cache. 32 MiB.
    pub sled_cache: u64,
    /// Told what happens in the background, on the background thread. Must not block.
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Options {
    /// What a server uses; events are dropped.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            journal_size: 32 << 20,
            max_unsealed: 3,
            merge_at: 16,
            lull: Duration::from_secs(1),
            sled_cache: 32 << 20,
            events: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("data_dir", &self.data_dir)
            .field("journal_size", &self.journal_size)
            .field("max_unsealed", &self.max_unsealed)
            .field("merge_at", &self.merge_at)
            .field("lull", &self.lull)
            .field("sled_cache", &self.sled_cache)
            .finish_non_exhaustive()
    }
}

/// What the background thread tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// Room for publications came or went.
    SpaceChanged(Space),
    /// Background work hit an error, which has been logged: the data log is no longer in order.
    Failed(String),
    /// Something on disk can't be read; it has been logged and set aside.
    Damage(String),
    /// A journal was sealed, which took so long.
    Sealed(Duration),
    /// Segments were merged.
    Merged,
    /// What lies in files besides the journals is now this.
    Stored(Stored),
}

/// What lies in files besides the journals.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// Segments.
    pub segments: u64,
    /// Bytes of their files.
    pub segment_bytes: u64,
    /// Bytes of the state log.
    pub state_bytes: u64,
}

/// What may still be appended.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// Bytes ([`Record::encoded_len`]) that will certainly find room, counted from the commit that reported this.
    pub guaranteed: u64,
    /// The same for records other than publications, which go on in a reserve while the disk is full; without a limit otherwise.
    pub changes: u64,
    /// The same for those of them that make room. What is left behind them is for what can't be refused.
    pub clearing: u64,
    /// The disk has no room for another journal. Where this is false, being short of room passes by itself.
    pub full: bool,
}

/// What [`DataLog::open`](crate::datalog) found.
#[derive(Debug)]
pub struct Recovered {
    /// The whole state map.
    pub state: StateMap,
    /// Every live log.
    pub logs: HashMap<LogNumber, LogExtent>,
    /// Numbers from here on were never used.
    pub next_log: u64,
    /// Logs whose end may be missing by damage: they need a new epoch.
    pub uncertain: Vec<LogNumber>,
    /// The last end was unclean and in another boot: logs that were not synced need a new epoch.
    pub unclean_boot: bool,
    /// For the server's log.
    pub report: RecoveryReport,
}

/// What a start did, for a person: its `Display` is a few short lines.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// Live logs.
    pub logs: u64,
    /// Publications kept in them.
    pub publications: u64,
    /// Entries of the state map.
    pub state_entries: u64,
    /// Journal batches that were replayed.
    pub batches: u64,
    /// Bytes of torn tails that were cut.
    pub cut_bytes: u64,
    /// What was found damaged, and where a copy of it is, one line each.
    pub damage: Vec<String>,
    /// The catalogue was made again from the other files.
    pub catalogue_rebuilt: bool,
    /// The last end was not orderly.
    pub unclean: bool,
    /// How long it took.
    pub duration: Duration,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (logs, millis) = (self.logs, self.duration.as_millis());
        let found = logs + self.batches + self.state_entries;
        if found == 0 && !self.unclean && self.damage.is_empty() {
            write!(
                f,
                "nothing, the data directory holds nothing yet ({millis} ms)"
            )?;
        } else {
            write!(
                f,
                "{}, {} and {} opened in {millis} ms (after an {} end, {} replayed)",
                counted(logs, "log", "logs"),
                counted(self.publications, "publication", "publications"),
                counted(self.state_entries, "state entry", "state entries"),
                if self.unclean { "unclean" } else { "orderly" },
                counted(self.batches, "journal batch", "journal batches"),
            )?;
        }
        if self.cut_bytes > 0 {
            write!(
                f,
                "\ncut {} of an unfinished write",
                counted(self.cut_bytes, "byte", "bytes")
            )?;
        }
        if self.catalogue_rebuilt {
            write!(
                f,
                "\nthe catalogue was made again from segments, state log and journals"
            )?;
        }
        for line in &self.damage {
            write!(f, "\ndamage: {line}")?;
        }
        Ok(())
    }
}

/// Why a data log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("data directory {0} is in use by another server")]
    Locked(PathBuf),
    /// It was written in a format that this version does not know.
    #[error("data directory {dir} has the format {found:?}, this version knows {known:?}")]
    Format {
        /// The data directory.
        dir: PathBuf,
        /// What the directory says.
        found: String,
        /// What this version writes.
        known: &'static str,
    },
    /// What says in which format it is, and whose data it is, is damaged.
    #[error("the file format of data directory {0} is damaged, and has to be put back from a copy")]
    DamagedFormat(PathBuf),
    /// It holds data, but nothing that says in which format.
    #[error("data directory {0} has data but no format file")]
    NoFormat(PathBuf),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The refusal.
        source: std::io::Error,
    },
    /// The catalogue could neither be opened nor made again.
    #[error("the catalogue can't be opened: {0}")]
    Catalogue(String),
}

/// Why nothing can be written any more. It is final: what is on disk is only known again after a restart.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// A write or sync failed, now or earlier.
    #[error("the log can't be written: {0}")]
    Failed(Arc<str>),
}

/// Why something can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log was removed, or never was.
    #[error("the log does not exist")]
    Gone,
    /// The operating system refused to read, for a reason that is not damage.
    #[error("the log can't be read: {0}")]
    Io(#[from] std::io::Error),
    /// The catalogue can't answer.
    #[error("the catalogue can't be read: {0}")]
    Catalogue(String),
}
