//! The file that a backup is written to: whole under its name, or not there.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{BackupError, During};
use crate::datalog::disk::{self, File};

/// Bytes that are collected before they are written.
const STEP: usize = 256 << 10;

/// A file that gets its name when it is [finished](Self::finish). Dropped before, it is gone.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    partial: PathBuf,
    replaces: bool,
    file: File,
    buffer: Vec<u8>,
    written: u64,
    is_finished: bool,
}

impl Destination {
    /// A file at `path`, which only its owner can read. One that is there is refused, unless it `replaces` it.
    ///
    /// # Errors
    /// If there is one, or it can't be made.
    pub fn create(path: &Path, replaces: bool) -> Result<Self, BackupError> {
        if !replaces && fs::symlink_metadata(path).is_ok() {
            return Err(BackupError::Exists(path.to_owned()));
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
        let partial = path.with_file_name(name);
        let doing = || format!("making {}", partial.display());
        let mut options = fs::File::options();
        options.write(true).create_new(true).mode(0o600);
        options.open(&partial).during(doing)?;
        let file = File::open_to_write(&partial).during(doing)?;
        Ok(Self {
            path: path.to_owned(),
            partial,
            replaces,
            file,
            buffer: Vec::with_capacity(STEP),
            written: 0,
            is_finished: false,
        })
    }

    /// Gives it its name, synced.
    ///
    /// # Errors
    /// If it can't be written, or there is one by now that is not to be replaced.
    pub fn finish(mut self) -> Result<(), BackupError> {
        let path = self.path.clone();
        let doing = || format!("writing {}", path.display());
        self.flush().during(doing)?;
        self.file.sync_all().during(doing)?;
        if self.replaces {
            disk::rename(&self.partial, &self.path).during(doing)?;
            self.is_finished = true;
        } else {
            self.name_a_new_one()?;
        }
        let above = match self.path.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        disk::sync_dir(above).during(doing)
    }

    /// A link replaces nothing, whoever was quicker.
    fn name_a_new_one(&mut self) -> Result<(), BackupError> {
        let (partial, path) = (&self.partial, &self.path);
        match disk::hard_link(partial, path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(BackupError::Exists(path.clone()))
            }
            // Not every file system has links.
            Err(_) if !path.exists() => {
                let renamed = disk::rename(partial, path);
                renamed.during(|| format!("writing {}", path.display()))?;
                self.is_finished = true;
                Ok(())
            }
            Err(_) => Err(BackupError::Exists(path.clone())),
        }
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= STEP {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    /// What is written is handed to the disk at once, so that no commit of a server finds it in front of its own.
    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.written)?;
        let end = self.written + self.buffer.len() as u64;
        self.file.start_writing(self.written..end);
        self.written = end;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        if let Err(error) = disk::remove(&self.partial) {
            log::warn!("{} is left behind: {error}", self.partial.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.tar");
        let mut file = Destination::create(&path, false).unwrap();
        file.write_all(&vec![7; 3 * STEP + 5]).unwrap();
        assert!(!path.exists());
        drop(file);
        assert!(names(dir.path()).is_empty());
        let mut file = Destination::create(&path, false).unwrap();
        file.write_all(&vec![7; 3 * STEP + 5]).unwrap();
        file.finish().unwrap();
        assert_eq!(names(dir.path()), ["b.tar"]);
        assert_eq!(fs::read(&path).unwrap(), vec![7; 3 * STEP + 5]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn file_that_is_there_is_replaced_only_if_that_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.tar");
        let quick = Destination::create(&path, false).unwrap();
        fs::write(&path, "old").unwrap();
        assert!(matches!(quick.finish(), Err(BackupError::Exists(_))));
        let refused = Destination::create(&path, false);
        assert!(matches!(refused, Err(BackupError::Exists(_))));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let mut new = Destination::create(&path, true).unwrap();
        new.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        new.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["b.tar"]);
    }
}
