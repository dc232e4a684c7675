//! Making a data directory of a backup, which a server can open.

use std::{io::Read, ops::ControlFlow, path::Path};

use super::{BackupError, During, archive::Manifest, looking::Unpacking};
use crate::{
    datalog::{DataLog, Options, Place, Progress, RecoveryReport},
    domain,
};

/// Records that are written at once.
const BATCH: usize = 1000;

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// What opening it found.
    pub report: RecoveryReport,
    /// Subscriptions, each of which has a new epoch.
    pub subscriptions: u64,
}

/// Makes the directory `dir`, which has to be empty, the data directory of the backup that is read from `input`. Every subscription gets a
/// new epoch: a client that knows more of a log than the backup does is told so, instead of being given what it takes for
/// duplicates. Durable sessions are kept, and begin with the oldest. `progress` is told how far it is, and whether to go on is its
/// answer.
///
/// # Errors
/// If there is something in the directory, the backup is damaged, it can't be read or written, or `progress` wanted no more. The directory is
/// as empty then as it was.
pub fn restore(
    input: &mut dyn Read,
    dir: &Path,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Restored, BackupError> {
    let place = Place::take(dir)?;
    let manifest = Unpacking::unpack(input, &place.making(), progress)?;
    let (report, subscriptions) = renew(&place.making())?;
    let filled = place.fill();
    filled.during(|| format!("moving what was restored to {}", dir.display()))?;
    Ok(Restored {
        manifest,
        report,
        subscriptions,
    })
}

/// Opens the data directory once, which makes its catalogue, and writes the new epochs.
fn renew(dir: &Path) -> Result<(RecoveryReport, u64), BackupError> {
    let (mut log, recovered) = DataLog::open(Options::new(dir))?;
    let mut records = domain::renew_epochs(recovered.state).peekable();
    let mut subscriptions = 0;
    while records.peek().is_some() {
        let batch: Vec<_> = records.by_ref().take(BATCH).collect();
        log.write(&batch)?;
        subscriptions += batch.len() as u64;
    }
    log.close()?;
    Ok((recovered.report, subscriptions))
}
