//! What is said on the socket: one JSON value a line.
//!
//! ```text
//!  who asks                server
//!  "backup"        ──>
//!                  <──     {"frozen": {store, parts}}    or {"refused": why} or {"failed": why}
//!  reads the links
//!  "done"          ──>
//!                  <──     "thawed": everything was held still until now
//! ```
//!
//! Who closes the connection instead has no backup, and the server lets go. What the server closes too early, has failed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::datalog::{Contents, Frozen, Part};

/// The name of the socket in the data directory.
pub(super) const SOCKET: &str = "control.sock";

/// The longest line that is read: it tells of some 500,000 segments.
pub(super) const LONGEST: usize = 64 << 20;

/// One line, either way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// A backup is wanted.
    Backup,
    /// Everything is held still.
    Frozen(FrozenWord),
    /// The backup has everything.
    Done,
    /// Everything was held still until it was done.
    Thawed,
    /// Not you, or not now.
    Refused(String),
    /// It is impossible, or it ends before it was done.
    Failed(String),
}

/// What is held still, in the folder of the data directory that is for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct FrozenWord {
    store: Uuid,
    parts: Vec<(String, u64)>,
}

impl FrozenWord {
    pub(super) fn of(frozen: &Frozen) -> Self {
        let contents = frozen.contents();
        let parts = contents.parts.iter();
        Self {
            store: contents.store,
            parts: parts
                .map(|part| (part.name.to_string(), part.len))
                .collect(),
        }
    }

    /// The same, as it is found in the data directory `dir`. None: it can't be understood.
    pub(super) fn in_dir(self, dir: &std::path::Path) -> Option<Contents> {
        let folder = Frozen::folder_in(dir);
        let parts = self.parts.into_iter().map(|(name, len)| {
            let path = folder.join(&name);
            let name = name.parse().ok()?;
            Some(Part { name, path, len })
        });
        Some(Contents {
            store: self.store,
            parts: parts.collect::<Option<_>>()?,
        })
    }
}

impl Word {
    /// The line that says it.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("invariant: a word can be written");
        line.push(b'\n');
        line
    }

    /// What a line says, if anything.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}
