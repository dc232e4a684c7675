//! A data directory made of the parts of a backup.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{FOLDERS, PartName};
use crate::datalog::{
    disk::{self, File},
    journal::{
        format::{ALIGNMENT, adopt},
        scan,
    },
    segment::SegmentId,
    store,
};

/// Bytes that are written at once.
const STEP: usize = 256 << 10;

/// A data directory that is being made of parts. It is one of a new store, so that no file of it can be taken for one of the store that
/// the backup is of, nor the other way round.
#[derive(Debug)]
pub struct Revival {
    dir: PathBuf,
    from: Uuid,
    id: Uuid,
    /// Generation and number of the last batch in journals.
    newest: (u64, u64),
    unsealed: Vec<u64>,
}

impl Revival {
    /// Begins in the directory `dir`, which holds nothing yet and is made if it does not exist, with the parts of the store `from`.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn begin(dir: &Path, from: Uuid) -> io::Result<Self> {
        for sub in FOLDERS {
            disk::create_dir_all(&dir.join(sub))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            from,
            id: Uuid::new_v4(),
            newest: (0, 0),
            unsealed: Vec::new(),
        })
    }

    /// Adds the next part, which is read to its end. Parts come in order of their names.
    ///
    /// # Errors
    /// If it can't be read or written.
    pub fn add(&mut self, name: PartName, content: &mut dyn Read) -> io::Result<()> {
        match name {
            PartName::StateLog => {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes)?;
                self.adopt_all(&mut bytes);
                self.write("state/log", &mut &bytes[..])
            }
            PartName::Journal(generation) => {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes)?;
                let (_, before) = self.newest;
                let found = scan(&bytes, self.from, generation.saturating_sub(1), before);
                let last = found.numbers.map_or(before, |(_, last)| last);
                self.newest = (generation, last);
                self.unsealed.push(generation);
                self.adopt_all(&mut bytes);
                let name = format!("journal/{}.journal", self.unsealed.len());
                self.write(&name, &mut &bytes[..])
            }
            PartName::Segment(id) => {
                let name = format!("segments/{}", SegmentId(id).file_name());
                self.write(&name, content)
            }
        }
    }

    /// Makes it a data directory, as after an orderly end. Synced.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn finish(self) -> io::Result<()> {
        for sub in FOLDERS {
            disk::sync_dir(&self.dir.join(sub))?;
        }
        disk::sync_dir(&self.dir)?;
        store::found(&self.dir, self.id, self.newest, &self.unsealed)
    }

    /// What is no batch stays as it is: it was damaged before, and is told so as it would have been.
    fn adopt_all(&self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += adopt(&mut bytes[at..], self.from, self.id).unwrap_or(ALIGNMENT);
        }
    }

    fn write(&self, name: &str, content: &mut dyn Read) -> io::Result<()> {
        let file = File::create(&self.dir.join(name))?;
        let mut step = vec![0; STEP];
        let mut written = 0;
        loop {
            let len = match content.read(&mut step) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            file.write_all_at(&step[..len], written)?;
            let end = written + len as u64;
            file.start_writing(written..end);
            written = end;
        }
        file.sync_all()
    }
}
