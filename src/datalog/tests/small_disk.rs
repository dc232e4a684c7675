//! Small file systems for tests that fill them.
//!
//! Owns mounting them: each test that wants one is run again as a child with mounts of its own, which end with it, however it
//! ends. Does not own what is done on them. Where nothing can be mounted, the test is left out and says so.
//!
//! Used by the data log's tests and, by its path, by those of the whole program.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail loudly, and say what they leave out"
)]

use std::{
    env, fs,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// Tells the child which one it has, and where.
const GIVEN: &str = "INFOTAINER_TEST_SMALL_DISK";

/// The exit code of a child that got no file system.
const NONE: i32 = 77;

/// A kind of file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// Gives room by the page, at once, to everybody.
    Tmpfs,
    /// Gives room by the block, some of it late (delayed allocation), and to root only at the very end (reserved blocks).
    Ext4,
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
        }
    }

    /// Mounts one of `$1` MiB at the folder `$2`; `$3` is a file for it.
    fn script(self) -> &'static str {
        match self {
            Self::Tmpfs => "mount -t tmpfs -o size=${1}m tmpfs \"$2\"",
            Self::Ext4 => {
                "PATH=$PATH:/usr/sbin:/sbin; truncate -s ${1}M \"$3\" && mkfs.ext4 -q \"$3\" && mount -o loop \"$3\" \"$2\""
            }
        }
    }
}

/// Where it is written: in which test, as [`on_small_disk`] wants it.
#[allow(unused_macros, reason = "not every test binary has such a test")]
macro_rules! this_test {
    () => {{
        struct Here;
        std::any::type_name::<Here>()
    }};
}

/// Runs `test` once on a fresh file system of each kind, of so many MiB. See [`on_small_disk`].
pub fn on_small_disks(this_test: &str, mib: u64, test: impl Fn(&Path)) {
    for kind in [FileSystem::Tmpfs, FileSystem::Ext4] {
        on_small_disk(this_test, kind, mib, &test);
    }
}

/// Runs `test` on a fresh file system of this kind, of so many MiB.
///
/// It has to be all that the calling test, [`this_test!`], does: that is run as a child.
pub fn on_small_disk(this_test: &str, kind: FileSystem, mib: u64, test: impl Fn(&Path)) {
    if let Some(given) = env::var_os(GIVEN) {
        let given = given.into_string().unwrap();
        let (name, dir) = given.split_once(' ').unwrap();
        if name == kind.name() {
            test(Path::new(dir));
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mounted, image) = (dir.path().join("disk"), dir.path().join("image"));
    fs::create_dir(&mounted).unwrap();
    let script = format!("({}) || exit {NONE}; shift 3; exec \"$@\"", kind.script());
    let name = as_runner_names(this_test);
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--mount", "sh", "-c", &script, "sh", &mib.to_string()])
        .args([&mounted, &image, &env::current_exe().unwrap()])
        .args(["--exact", name, "--nocapture", "--include-ignored"])
        .env(GIVEN, format!("{} {}", kind.name(), mounted.display()));
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("left out: there is no `unshare` to mount a small file system with");
            return;
        }
        output => output.unwrap(),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    let has_none = output.status.code() == Some(NONE) || complained.starts_with("unshare:");
    if has_none {
        let (kind, why) = (kind.name(), complained.trim().replace('\n', "; "));
        println!("left out: no small {kind} can be mounted here: {why}");
        return;
    }
    println!("{said}");
    let is_run = output.status.success() && said.contains("1 passed");
    assert!(is_run, "{name} on {}: {said}\n{complained}", kind.name());
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.unwrap().split_whitespace().nth(1) == Some("0")
}

/// Without the crate, and what stands in the test.
fn as_runner_names(this_test: &str) -> &str {
    let (_, path) = this_test.split_once("::").unwrap();
    let (test, _) = path.rsplit_once("::").unwrap();
    test
}

/// A file of somebody else's that takes room on the disk.
#[derive(Debug)]
pub struct Ballast(PathBuf);

impl Ballast {
    /// Takes all the room there is at `dir`, but for `spare` bytes.
    pub fn leaving(dir: &Path, spare: u64) -> Self {
        let ballast = Self(dir.join("ballast"));
        ballast.take_all();
        ballast.give(spare);
        ballast
    }

    /// Takes what room there is now.
    pub fn take_all(&self) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&self.0)
            .unwrap();
        let mut step = 1 << 20;
        while step >= 512 {
            let written = file
                .write_all(&vec![1; step])
                .and_then(|()| file.sync_all());
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => step /= 2,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Gives some of its room back.
    pub fn give(&self, bytes: u64) {
        let file = File::options().write(true).open(&self.0).unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len.saturating_sub(bytes)).unwrap();
        file.sync_all().unwrap();
    }

    /// Gives all of its room back.
    pub fn remove(self) {
        fs::remove_file(self.0).unwrap();
    }
}
