//! What the operating system says of this process, and of the disk under its data.
//!
//! Owns the reading of `/proc`. It may wait, so it is done on a thread where that holds up nobody. What can't be read is left out.

use std::{ffi::CString, fs, mem::MaybeUninit, os::unix::ffi::OsStrExt, path::Path};

/// Linux tells the time of a process in these, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the process uses.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Process {
    /// User and system time of all threads.
    pub(super) cpu_seconds: Option<f64>,
    /// Seconds since 1970.
    pub(super) start_time: Option<f64>,
    /// Bytes of memory that it has resident.
    pub(super) resident: Option<u64>,
    /// Files and sockets that it has open.
    pub(super) open_fds: Option<u64>,
    /// How many it may have.
    pub(super) max_fds: Option<u64>,
    /// Of the disk under the data directory: bytes that are free for the server, and all.
    pub(super) disk: Option<(u64, u64)>,
}

/// Looks at this process, and at the disk under `data_dir`.
pub(super) fn look(data_dir: &Path) -> Process {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let fields = stat.as_deref().map(Fields::of);
    let ticks = |number| Some(fields.as_ref()?.number(number)? as f64 / TICKS_PER_SECOND);
    let status = fs::read_to_string("/proc/self/status").ok();
    Process {
        cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| user + system),
        start_time: ticks(22).zip(boot_time()).map(|(since, boot)| boot + since),
        resident: status.as_deref().and_then(resident),
        open_fds: fs::read_dir("/proc/self/fd")
            .ok()
            // The folder that is read is open as well.
            .map(|entries| entries.count().saturating_sub(1) as u64),
        max_fds: rlimit::Resource::NOFILE.get_soft().ok(),
        disk: disk(data_dir),
    }
}

/// The fields of `/proc/self/stat` (proc_pid_stat(5)), by their numbers there.
struct Fields<'a>(Vec<&'a str>);

impl<'a> Fields<'a> {
    fn of(stat: &'a str) -> Self {
        // The second one, a name in parentheses, may hold anything.
        let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        Self(behind_name.split_ascii_whitespace().collect())
    }

    fn number(&self, field: usize) -> Option<u64> {
        self.0.get(field.checked_sub(3)?)?.parse().ok()
    }
}

fn resident(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let kib = lines.find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = kib.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// When the machine started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let mut lines = stat.lines();
    lines
        .find_map(|line| line.strip_prefix("btime "))?
        .parse()
        .ok()
}

#[expect(unsafe_code, reason = "std does not offer this call")]
fn disk(path: &Path) -> Option<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero, and the call writes a whole `statvfs` to where `found` is if it returns 0.
    let found = unsafe {
        if libc::statvfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    // Types differ from one architecture to the other.
    #[allow(clippy::unnecessary_cast, reason = "not on every architecture")]
    let (unit, free, all) = (
        found.f_frsize as u64,
        found.f_bavail as u64,
        found.f_blocks as u64,
    );
    Some((free * unit, all * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let process = look(Path::new("/"));
        assert!(process.cpu_seconds.unwrap() >= 0.0);
        assert!(process.start_time.unwrap() > 1e9);
        assert!(process.resident.unwrap() > 1 << 20);
        assert!(process.open_fds.unwrap() >= 3);
        assert!(process.max_fds.unwrap() >= process.open_fds.unwrap());
        let (free, all) = process.disk.unwrap();
        assert!(free <= all && all > 0);
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_moves_no_field() {
        let stat = "7 (a ) 1 2 3) S 1 1 1 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 12345 1 2";
        let fields = Fields::of(stat);
        assert_eq!(fields.number(14), Some(150));
        assert_eq!(fields.number(15), Some(50));
        assert_eq!(fields.number(22), Some(12345));
        assert_eq!(fields.number(99), None);
    }

    #[test]
    fn a_path_that_is_none_has_no_disk() {
        assert_eq!(disk(Path::new("/nowhere/at/all")), None);
    }
}
