//! What is mounted, for as long as it is used.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A mounted file system, until it is dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    point: PathBuf,
}

impl Mounted {
    /// The ext4 in a file, or why it can't be mounted. It writes back by itself only after minutes.
    pub(crate) fn ext4(image: &Path, point: &Path) -> Result<Self, String> {
        fs::create_dir_all(point).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop,commit=300,noatime"]);
        run(mount.arg(image).arg(point))?;
        Ok(Self {
            point: point.to_owned(),
        })
    }

    /// A FUSE file system whose root is a file, served by whoever reads `connection`.
    pub(crate) fn fuse_file(connection: &File, point: &Path) -> Result<Self, String> {
        File::create(point).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-i", "-t", "fuse", "-o"])
            .arg("fd=0,rootmode=100000,user_id=0,group_id=0")
            .arg("disk")
            .arg(point)
            .stdin(Stdio::from(connection.try_clone().unwrap()));
        run(&mut mount)?;
        Ok(Self {
            point: point.to_owned(),
        })
    }

    /// A file that stands in front of another.
    pub(crate) fn in_front_of(file: &Path, point: &Path) -> Result<Self, String> {
        run(Command::new("mount").arg("--bind").arg(file).arg(point))?;
        Ok(Self {
            point: point.to_owned(),
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if run(Command::new("umount").arg(&self.point)).is_err() {
            // What is still in use goes with the namespace.
            _ = run(Command::new("umount").arg("--lazy").arg(&self.point));
        }
    }
}

/// Runs a command, or says why it failed.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or_default();
    Err(format!("{}: {}: {line}", program.display(), output.status))
}
