//! A backup that is only looked at: its data directory in a folder for temporary files.

use std::{
    env, fs,
    io::{self, Read},
    ops::ControlFlow,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    BackupError, During,
    archive::{self, Manifest, Taking},
};
use crate::datalog::{PartName, Progress, Revival};

/// Makes a data directory of the parts of a backup.
#[derive(Debug)]
pub(super) struct Unpacking {
    dir: PathBuf,
    revival: Option<Revival>,
}

impl Unpacking {
    /// Makes the data directory `dir` of the backup that is read from `input`, to whose end every checksum was right.
    pub(super) fn unpack(
        input: &mut dyn Read,
        dir: &Path,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Manifest, BackupError> {
        let mut unpacking = Self {
            dir: dir.to_owned(),
            revival: None,
        };
        let manifest = archive::read(input, &mut unpacking, progress)?;
        if let Some(revival) = unpacking.revival {
            let finished = revival.finish();
            finished.during(|| format!("writing {}", dir.display()))?;
        }
        Ok(manifest)
    }
}

impl Taking for Unpacking {
    fn begin(&mut self, manifest: &Manifest) -> io::Result<()> {
        self.revival = Some(Revival::begin(&self.dir, manifest.store)?);
        Ok(())
    }

    fn part(&mut self, name: PartName, content: &mut dyn Read) -> io::Result<()> {
        let revival = self.revival.as_mut();
        let revival = revival.expect("invariant: parts come behind the beginning");
        revival.add(name, content)
    }
}

/// A backup whose checksums are right, as a data directory that can be checked. Removed when it is dropped.
#[derive(Debug)]
pub struct Unpacked {
    dir: PathBuf,
    manifest: Option<Manifest>,
}

impl Unpacked {
    /// Unpacks the backup that is read from `input` to the system's folder for temporary files.
    ///
    /// # Errors
    /// If it is no backup, a checksum is wrong, it can't be read or written, or `progress` wanted no more.
    pub fn of(
        input: &mut dyn Read,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, BackupError> {
        let dir = env::temp_dir().join(format!("infotainer-backup-{}", Uuid::new_v4()));
        let made = fs::DirBuilder::new().mode(0o700).create(&dir);
        made.during(|| format!("making {}", dir.display()))?;
        let mut unpacked = Self {
            dir,
            manifest: None,
        };
        unpacked.manifest = Some(Unpacking::unpack(input, &unpacked.dir, progress)?);
        Ok(unpacked)
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was damaged when the backup was made, one sentence each.
    pub fn damage(&self) -> &[String] {
        let manifest = self.manifest.as_ref();
        manifest.map_or(&[], |manifest| &manifest.damage)
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            log::warn!("{} can't be removed: {error}", self.dir.display());
        }
    }
}
