//! `infotainer backup` and `restore`: a data directory into one file, and out of it.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use bytesize::ByteSize;
use clap::Args;
use infotainer::{
    backup::{self, BackupError, Destination, Source, Written},
    counted, datalog,
};

use super::{
    Failure,
    connect::run_blocking,
    output::Output,
    print::Utc,
    progress::{Extent, Progress, say},
    verify::spare_the_catalogue,
};

/// What is read of a backup at once.
const STEP: usize = 256 << 10;

/// What is copied, and what a copy becomes.
#[derive(Args, Debug)]
struct DirectoryArgs {
    /// The data directory
    #[arg(
        long,
        env = "INFOTAINER_DATA_DIR",
        value_name = "DIR",
        default_value = "./infotainer-data"
    )]
    data_dir: PathBuf,
}

/// Copies everything that a server stores into one file, while it serves
///
/// The server that has the data directory open holds its files still meanwhile, and goes on serving; what was acknowledged before the
/// command began is in the backup. Without a server, the directory is copied as it is, and no server can open it meanwhile;
/// its folder `catalogue` is copied to the folder for temporary files (TMPDIR) then. FILE is a tar archive that only its owner
/// can read, and gets its name when it is complete. Nothing in it is compressed: infotainer backup - | zstd > FILE.
#[derive(Args, Debug)]
pub(super) struct BackupArgs {
    /// Where to write, - for stdout
    file: PathBuf,

    #[command(flatten)]
    directory: DirectoryArgs,

    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
}

/// Makes a data directory of a backup
///
/// The directory must be empty, or not exist. Every checksum of the backup is compared, and every subscription gets a new epoch, so that
/// clients who know more than the backup does notice. Durable sessions are kept, and begin with the oldest publication; queues go on
/// where they were. Nothing is left in the directory if it fails. Exit code 1 means that it failed, or that the backup was
/// made of what was damaged already: then everything else is restored.
#[derive(Args, Debug)]
pub(super) struct RestoreArgs {
    /// The backup, - for stdin
    file: PathBuf,

    #[command(flatten)]
    directory: DirectoryArgs,
}

pub(super) fn backup(args: BackupArgs) -> Result<(), Failure> {
    spare_the_catalogue();
    let file = args.file.clone();
    let written = run_blocking(move |is_stopped| make(&args, is_stopped).map_err(failure))?;
    for line in &written.damage {
        say(format_args!("damage: {line}"));
    }
    if !written.damage.is_empty() {
        let what = "the data directory is damaged, and so is its backup";
        return Err(Failure::Failed(what.into()));
    }
    if !is_pipe(&file) {
        let mut out = Output::new();
        let summary = format!(
            "{}: {} in {}, in {} ms\n",
            file.display(),
            ByteSize(written.bytes).display().iec(),
            counted(written.parts, "file", "files"),
            written.duration.as_millis()
        );
        out.write(summary.as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

fn make(args: &BackupArgs, is_stopped: &AtomicBool) -> Result<Written, BackupError> {
    let mut goes_on = || !is_stopped.load(Ordering::Relaxed);
    let mut progress = reporting("backing up", is_stopped);
    if is_pipe(&args.file) {
        let source = Source::hold(&args.directory.data_dir, &mut goes_on)?;
        return source.write(&mut io::stdout().lock(), &mut progress);
    }
    // Before the server is asked for anything.
    let mut file = Destination::create(&args.file, args.force)?;
    let source = Source::hold(&args.directory.data_dir, &mut goes_on)?;
    let written = source.write(&mut file, &mut progress)?;
    file.finish()?;
    Ok(written)
}

pub(super) fn restore(args: RestoreArgs) -> Result<(), Failure> {
    spare_the_catalogue();
    let dir = args.directory.data_dir.clone();
    let restored = run_blocking(move |is_stopped| {
        let mut input = open(&args.file)?;
        let mut progress = reporting("restoring", is_stopped);
        backup::restore(&mut input, &args.directory.data_dir, &mut progress).map_err(failure)
    })?;
    let mut out = Output::new();
    let summary = format!(
        "{}: {} with {}, as of {}; every log has a new epoch\n",
        dir.display(),
        counted(restored.subscriptions, "subscription", "subscriptions"),
        counted(restored.report.publications, "publication", "publications"),
        Utc(restored.manifest.created),
    );
    out.write(summary.as_bytes())?;
    out.flush()?;
    let damage: Vec<_> = restored
        .manifest
        .damage
        .iter()
        .chain(&restored.report.damage)
        .collect();
    for line in &damage {
        say(format_args!("damage: {line}"));
    }
    if damage.is_empty() {
        return Ok(());
    }
    let what = "what the backup is of was damaged when it was made; everything else is restored";
    Err(Failure::Failed(what.into()))
}

/// The backup, to be read from its beginning.
pub(super) fn open(file: &Path) -> Result<Box<dyn Read>, Failure> {
    if is_pipe(file) {
        return Ok(Box::new(io::stdin().lock()));
    }
    match File::open(file) {
        Ok(file) => Ok(Box::new(BufReader::with_capacity(STEP, file))),
        Err(error) => Err(Failure::Failed(format!(
            "opening {}: {error}",
            file.display()
        ))),
    }
}

/// Whether stdin or stdout is meant.
pub(super) fn is_pipe(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Shows how far some work is, and ends it when it is to be stopped.
pub(super) fn reporting(
    what: &'static str,
    is_stopped: &AtomicBool,
) -> impl FnMut(datalog::Progress) -> ControlFlow<()> {
    let mut bar = None;
    move |progress| {
        bar.get_or_insert_with(|| Progress::new(what, &Extent::Stored(progress.total)))
            .reach(progress.done);
        match is_stopped.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

pub(super) fn failure(error: BackupError) -> Failure {
    let sentence = error.to_string();
    match error {
        BackupError::Refused(_) => Failure::Refused(sentence),
        BackupError::Exists(_) => Failure::Usage(sentence),
        BackupError::Place(datalog::PlaceError::NotEmpty(_)) => Failure::Usage(sentence),
        BackupError::Directory(datalog::VerifyError::InUse(dir)) => Failure::Failed(format!(
            "data directory {} is in use, but no server listens on its socket control.sock",
            dir.display()
        )),
        _ => Failure::Failed(sentence),
    }
}
