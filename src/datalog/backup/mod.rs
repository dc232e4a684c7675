//! What a backup is made of, and how it becomes a data directory again.
//!
//! Owns which files of a data directory are needed, how far each of them counts, and what has to be changed so that they are another
//! store's. Does not own the file that a backup is written to (`crate::backup`), nor what the entries of the state map mean.
//!
//! ```text
//!  an open data log    ──Freezer──> Frozen: hard links in backup.tmp/, and journals that are not used again
//!  a directory at rest ───────────> Still:  links and a recovery, as for a check
//!            Contents: state log, journals, segments <──┘
//!               └──read part by part──> Revival: the same as the data directory of a new store ──> Place
//! ```
//!
//! Invariants: everything that was acknowledged before freezing began is in the contents, and of what comes meanwhile each batch whole or
//! not at all; while it is frozen, nothing of it changes or goes; nobody's commit waits for it. The catalogue is not part of it,
//! since it is made again of the rest.

mod contents;
mod freezing;
mod place;
mod revival;
mod still;

pub use contents::{Contents, Part, PartName};
pub(crate) use freezing::FreezeRequest;
pub use freezing::{FreezeError, Freezer, Frozen};
pub use place::{Place, PlaceError};
pub use revival::Revival;
pub use still::Still;

/// Folders of the files that are part of a backup.
pub(crate) const FOLDERS: [&str; 3] = ["state", "journal", "segments"];
