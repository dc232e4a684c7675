//! A directory that stands in for the data directory while that is looked at.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::VerifyError;

/// Folders whose files are only read, and never under their names changed: links do.
const LINKED: [&str; 3] = ["journal", "segments", "state"];

/// See the module. Removed when it is dropped.
#[derive(Debug)]
pub(in crate::datalog) struct StandIn {
    original: PathBuf,
    path: PathBuf,
    copied: std::cell::Cell<u64>,
}

impl StandIn {
    /// An empty one, for the directory `original`.
    pub(in crate::datalog) fn of(original: &Path) -> Result<Self, VerifyError> {
        let has = |name: &&str| original.join(name).exists();
        if !["format", "journal", "segments"].iter().any(has) {
            return Err(VerifyError::None(original.to_owned()));
        }
        let absolute = original.canonicalize();
        let original = absolute.map_err(during(format!("reading {}", original.display())))?;
        let name = format!("infotainer-verify-{}", Uuid::new_v4());
        let path = env::temp_dir().join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(during(format!("making {}", path.display())))?;
        Ok(Self {
            original,
            path,
            copied: 0.into(),
        })
    }

    pub(in crate::datalog) fn original(&self) -> &Path {
        &self.original
    }

    pub(in crate::datalog) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that were copied.
    pub(in crate::datalog) fn copied(&self) -> u64 {
        self.copied.get()
    }

    /// Links and copies what is in the original, which is locked.
    pub(in crate::datalog) fn fill(&self) -> Result<(), VerifyError> {
        for name in LINKED.into_iter().chain(["quarantine"]) {
            let to = self.path.join(name);
            let made = fs::create_dir(&to);
            made.map_err(during(format!("making {}", to.display())))?;
        }
        for name in LINKED {
            let from = self.original.join(name);
            let linked = link_all(&from, &self.path.join(name));
            linked.map_err(during(format!("reading {}", from.display())))?;
        }
        let copying = |name: &str| format!("copying {name} to {}", self.path.display());
        for name in ["catalogue", "catalogue.suspect"] {
            self.copy(&self.original.join(name), &self.path.join(name))
                .map_err(during(copying(name)))?;
        }
        Ok(())
    }

    /// What is said of the stand-in, said of the original.
    pub(in crate::datalog) fn in_place(&self, line: &str) -> String {
        let of = |path: &Path| path.display().to_string();
        line.replace(&of(&self.path), &of(&self.original))
    }

    /// A file, or a folder with all that is in it; nothing where there is none.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let metadata = match fs::metadata(from) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if metadata.is_dir() {
            fs::create_dir(to)?;
            for entry in fs::read_dir(from)? {
                let name = entry?.file_name();
                self.copy(&from.join(&name), &to.join(&name))?;
            }
        } else {
            let copied = io::copy(&mut fs::File::open(from)?, &mut fs::File::create(to)?)?;
            self.copied.set(self.copied.get() + copied);
        }
        Ok(())
    }
}

/// What a start removes unread is not linked.
fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("tmp")) {
            continue;
        }
        if let Some(name) = path.file_name() {
            symlink(&path, to.join(name))?;
        }
    }
    Ok(())
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            log::warn!("{} can't be removed: {error}", self.path.display());
        }
    }
}

fn during(what: String) -> impl FnOnce(io::Error) -> VerifyError {
    move |source| VerifyError::Io { what, source }
}
