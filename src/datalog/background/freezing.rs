//! Holding still what a backup is made of: between two steps, so that nothing of it is half done.

use std::io;

use super::Worker;
use crate::datalog::{
    backup::{FOLDERS, FreezeError, Frozen, PartName},
    disk,
};

impl Worker {
    /// Gives everything that is known a second name, and keeps the journals that are written from being used again.
    ///
    /// What is sealed and what is not are of one moment, since only this thread seals, merges and drops. What of the journals is there
    /// is synced: a backup holds nothing that a power cut could take back.
    pub(super) fn freeze(&mut self) -> Result<Frozen, FreezeError> {
        let folder = self.store.backup_dir();
        let refused = |source: io::Error| FreezeError::Io {
            what: format!("making {}", folder.display()),
            source,
        };
        disk::remove_dir_all(&folder).map_err(refused)?;
        let mut frozen = Frozen::new(self.store.id(), folder.clone());
        for sub in FOLDERS {
            disk::create_dir_all(&folder.join(sub)).map_err(refused)?;
        }
        let holdings = &mut self.holdings;
        let sealed_through = holdings.meta.sealed_through;
        let state_log = &mut holdings.state_log;
        let len = state_log.len_through(&holdings.catalogue, sealed_through)?;
        frozen.link(PartName::StateLog, state_log.path(), len)?;
        for journal in self.backlog.written() {
            let path = journal.file.path();
            journal
                .file
                .sync_apart()
                .map_err(|source| FreezeError::Io {
                    what: format!("syncing {}", path.display()),
                    source,
                })?;
            frozen.link(PartName::Journal(journal.generation), path, journal.end)?;
            frozen.hold(journal.file);
        }
        let segments = self.store.segment_dir();
        for (id, entry) in &self.holdings.segments {
            let name = PartName::Segment(id.0);
            frozen.link(name, &id.path(&segments), entry.file_len)?;
        }
        Ok(frozen)
    }
}
