//! What a backup is made of: a server that holds still, or a directory that no server has open.

use std::{
    io::Write,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    BackupError,
    archive::{self, Manifest, Meter},
    asking::Asked,
};
use crate::{
    datalog::{Contents, Pace, Progress, Still},
    protocol::Timestamp,
};

/// Steps after which a server is asked whether it still holds.
const ASKING: u32 = 16;

/// A data directory that is held still until this is dropped.
#[derive(Debug)]
pub struct Source(Kind);

#[derive(Debug)]
enum Kind {
    Server(Asked),
    Directory(Box<Still>),
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Bytes of the backup.
    pub bytes: u64,
    /// Files that it holds.
    pub parts: usize,
    /// How long it took, once everything was held still.
    pub duration: Duration,
    /// What was damaged, one sentence each.
    pub damage: Vec<String>,
}

impl Source {
    /// The data directory `dir`, held still by the server that has it open, or else by its lock. `goes_on` is asked again and again
    /// while a server is waited for.
    ///
    /// # Errors
    /// If the server refuses, the directory can't be read, or nobody wants it any more.
    pub fn hold(dir: &Path, goes_on: &mut dyn FnMut() -> bool) -> Result<Self, BackupError> {
        Ok(Self(match Asked::of(dir, goes_on)? {
            Some(asked) => Kind::Server(asked),
            None => Kind::Directory(Box::new(Still::open(dir)?)),
        }))
    }

    /// Whether a server holds it.
    pub fn is_served(&self) -> bool {
        matches!(self.0, Kind::Server(_))
    }

    fn contents(&self) -> (&Contents, &[String]) {
        match &self.0 {
            Kind::Server(asked) => (asked.contents(), &[]),
            Kind::Directory(still) => (still.contents(), still.damage()),
        }
    }

    /// Writes the backup to `out`, from the beginning to the end, and lets go. `progress` is told how far it is, and whether to go
    /// on is its answer. Where a server serves meanwhile, it is slow on purpose.
    ///
    /// # Errors
    /// If something can't be read or written, the server ended meanwhile, or `progress` wanted no more.
    pub fn write(
        mut self,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Written, BackupError> {
        let began = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        let created = Timestamp(now.try_into().unwrap_or(u64::MAX));
        let (contents, damage) = self.contents();
        let (contents, damage) = (contents.clone(), damage.to_vec());
        let manifest = Manifest::new(&contents, created, damage.clone());
        let is_urgent = !self.is_served();
        let is_urgent = || is_urgent;
        let pace = Pace::new(&is_urgent);
        let mut steps = 0;
        let mut rest = || {
            pace.rest();
            steps += 1;
            match &mut self.0 {
                Kind::Server(asked) if steps % ASKING == 0 => asked.check(),
                _ => Ok(()),
            }
        };
        let mut meter = Meter::new(contents.bytes(), progress);
        let bytes = archive::write(&contents, &manifest, out, &mut meter, &mut rest)?;
        if let Kind::Server(asked) = self.0 {
            let (done, total) = (contents.bytes(), contents.bytes());
            asked.done(&mut || progress(Progress { done, total }).is_continue())?;
        }
        Ok(Written {
            bytes,
            parts: contents.parts.len(),
            duration: began.elapsed(),
            damage,
        })
    }
}
