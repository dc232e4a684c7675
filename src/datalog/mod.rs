//! What survives: numbered append-only logs and a small state map, with one commit point, the journal batch.
//!
//! Owns the data directory and everything in it. Knows the protocol's stored publications, nothing of actors, sockets or
//! what the state map's keys and values mean.
//!
//! ```text
//!  DataLog::write ──one batch──> journal ──sealed in the background──> segment (publications)
//!        │                          │                                  state log (everything else)
//!        └──────> index <───────────┘                                  catalogue (where all of it is)
//!                   │
//!               LogReader
//! ```
//!
//! Invariants: a record that `write` and `sync` returned for is never lost but by damage, and damage is told; nothing that
//! was acknowledged depends on the catalogue, which can be made again from the other files; every byte read from disk is
//! checked before it is handed out.

mod background;
mod backlog;
mod backup;
mod catalogue;
mod chunk;
pub(crate) mod disk;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod index;
mod journal;
mod journals;
mod log;
mod merge;
mod pace;
mod page;
mod reader;
mod recovery;
mod runs;
#[cfg(any(test, feature = "fuzzing"))]
mod sample;
mod seal;
mod segment;
mod state_log;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod types;
mod units;
mod verify;

pub use backup::{
    Contents, FreezeError, Freezer, Frozen, Part, PartName, Place, PlaceError, Revival, Still,
};
pub use catalogue::panic_is_contained;
pub use journals::Journals;
pub use log::DataLog;
#[cfg(feature = "server")]
pub(crate) use pace::Pace;
pub use reader::LogReader;
pub use types::*;
pub use verify::{LogReport, Progress, Report, VerifyError, verify};
