//! Every file of the data directory is opened, read, changed and made durable through here.
//!
//! Owns which calls of the operating system those are, and nothing else: no path, no format, no judgement of an error. In the
//! server each function is the call of `std` that it is named after. Does not own what sled does in its directory, nor the
//! stand-in that a check works in.
//!
//! In tests, a data directory may lie on a [simulated] disk, which is asked in each of these calls, and nowhere else.

#[cfg(test)]
pub(crate) mod simulated;

use std::{
    fs::{self, TryLockError},
    io,
    ops::Range,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

#[cfg(test)]
use simulated::Call;

/// An open file. It has no position: every read and write says where.
#[derive(Debug)]
pub(crate) struct File {
    file: fs::File,
    #[cfg(test)]
    simulated: Option<Box<simulated::Handle>>,
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    Read,
    Write,
    OpenOrCreate,
    Create,
}

impl File {
    /// Opens a file that is there, to read it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::open_as(path, How::Read)
    }

    /// Opens a file that is there, to read and write it.
    pub(crate) fn open_to_write(path: &Path) -> io::Result<Self> {
        Self::open_as(path, How::Write)
    }

    /// Opens a file to read and write it, as it is; makes an empty one if there is none.
    pub(crate) fn open_or_create(path: &Path) -> io::Result<Self> {
        Self::open_as(path, How::OpenOrCreate)
    }

    /// Makes an empty file to read and write it; one that is there is emptied.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Self::open_as(path, How::Create)
    }

    fn open_as(path: &Path, how: How) -> io::Result<Self> {
        let open = || {
            let mut options = fs::File::options();
            let is_new = matches!(how, How::OpenOrCreate | How::Create);
            options.read(true).write(how != How::Read);
            options.create(is_new).truncate(how == How::Create);
            options.open(path)
        };
        #[cfg(test)]
        if let Some(disk) = simulated::of(path) {
            let (file, handle) = disk.open(path, how, open)?;
            let simulated = Some(Box::new(handle));
            return Ok(Self { file, simulated });
        }
        Ok(Self {
            file: open()?,
            #[cfg(test)]
            simulated: None,
        })
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(crate) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return simulated.read_exact_at(&self.file, bytes, offset);
        }
        self.file.read_exact_at(bytes, offset)
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return simulated.write_all_at(&self.file, bytes, offset);
        }
        self.file.write_all_at(bytes, offset)
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return simulated.set_len(&self.file, len);
        }
        self.file.set_len(len)
    }

    /// Lets the system begin to write what was changed in a range, so that a later sync has less to wait for. Makes nothing durable,
    /// and an error is left to the sync.
    pub(crate) fn start_writing(&self, range: Range<u64>) {
        #[cfg(target_os = "linux")]
        start_writing(&self.file, range);
        #[cfg(not(target_os = "linux"))]
        let _ = range; // the system writes when it likes
    }

    /// Makes content durable, and of the metadata what is needed to read it.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return simulated.sync();
        }
        self.file.sync_data()
    }

    /// Makes content and metadata durable. The name of the file is its directory's: [`sync_dir`].
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return simulated.sync();
        }
        self.file.sync_all()
    }

    /// Locks it for this process alone.
    pub(crate) fn try_lock(&self) -> Result<(), TryLockError> {
        self.file.try_lock()
    }

    /// Locks it for everybody who only looks.
    pub(crate) fn try_lock_shared(&self) -> Result<(), TryLockError> {
        self.file.try_lock_shared()
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "std does not offer this call")]
fn start_writing(file: &fs::File, range: Range<u64>) {
    let (Ok(start), Ok(len)) = (range.start.try_into(), (range.end - range.start).try_into())
    else {
        return;
    };
    // SAFETY: the descriptor is open as long as `file` is, and no memory is handed over.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), start, len, libc::SYNC_FILE_RANGE_WRITE);
    }
}

/// Whether there is something with this name.
pub(crate) fn exists(path: &Path) -> io::Result<bool> {
    #[cfg(test)]
    if let Some(disk) = simulated::of(path) {
        return disk.look(Call::Open, path, || fs::exists(path));
    }
    fs::exists(path)
}

/// The length of a file in bytes.
pub(crate) fn len(path: &Path) -> io::Result<u64> {
    #[cfg(test)]
    if let Some(disk) = simulated::of(path) {
        disk.look(Call::Open, path, || Ok(()))?;
    }
    Ok(fs::metadata(path)?.len())
}

/// Reads a whole small file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    #[cfg(test)]
    if let Some(disk) = simulated::of(path) {
        return disk.look(Call::Read, path, || fs::read(path));
    }
    fs::read(path)
}

/// What is in a directory, in no order.
pub(crate) fn paths_in(dir: &Path) -> io::Result<impl Iterator<Item = io::Result<PathBuf>>> {
    #[cfg(test)]
    if let Some(disk) = simulated::of(dir) {
        disk.look(Call::Open, dir, || Ok(()))?;
    }
    Ok(fs::read_dir(dir)?.map(|entry| Ok(entry?.path())))
}

/// Makes a directory, and those above it, where there is none. Durable as any other name.
pub(crate) fn create_dir_all(dir: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = simulated::of(dir) {
        return disk.create_dir_all(dir);
    }
    fs::create_dir_all(dir)
}

/// Gives a file or directory another name, whole or not at all; a file that had it is gone.
///
/// # Durability
/// When the directories of both names are synced.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = simulated::of(to) {
        return disk.rename(from, to);
    }
    fs::rename(from, to)
}

/// Gives a file a second name.
pub(crate) fn hard_link(original: &Path, link: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = simulated::of(link) {
        return disk.hard_link(original, link);
    }
    fs::hard_link(original, link)
}

/// Removes a file; whoever has it open may go on.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = simulated::of(path) {
        return disk.remove(path);
    }
    fs::remove_file(path)
}

/// Removes a file if it is there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove_dir_all(dir: &Path) -> io::Result<()> {
    #[cfg(test)]
    if simulated::of(dir).is_some() {
        return remove_files(dir);
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// On a simulated disk, directories stay.
#[cfg(test)]
fn remove_files(dir: &Path) -> io::Result<()> {
    if !fs::exists(dir)? {
        return Ok(());
    }
    for path in paths_in(dir)? {
        let path = path?;
        match path.is_dir() {
            true => remove_files(&path)?,
            false => remove(&path)?,
        }
    }
    Ok(())
}

/// Makes the names in a directory durable: what was made, renamed or removed there.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Names the time since the system that the directory is on was started: only its end takes what was written and not synced.
pub(crate) fn boot_id(_dir: &Path) -> io::Result<String> {
    #[cfg(test)]
    if let Some(disk) = simulated::of(_dir) {
        return Ok(disk.boot_id());
    }
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
}
