//! `infotainer verify`: whether a data directory is whole, or a backup.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use bytesize::ByteSize;
use clap::Args;
use infotainer::{
    backup::Unpacked,
    counted,
    datalog::{self, LogReport, MissingRange, Report, VerifyError, panic_is_contained},
    domain::{LogNumber, StateEntry},
    protocol::SubscriptionId,
};
use serde_json::{Value, json};

use super::{
    Failure,
    backup::{self, reporting},
    connect::run_blocking,
    output::Output,
    table::{Column, Table},
};

/// Checks a data directory, or a backup, without changing it
///
/// It reads everything that is stored, compares checksums, sequences, and what the files say of each other, and says what is
/// damaged and what a start of the server would make of it. No server may have the directory open. The folder `catalogue` is
/// copied to the folder for temporary files (TMPDIR), and needs as much room there; a backup is unpacked there whole. Exit code 0 means that all is whole, 1 that
/// something is damaged or can't be read.
#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// The data directory, or a backup (- for stdin)
    #[arg(
        env = "INFOTAINER_DATA_DIR",
        value_name = "DIR|FILE",
        default_value = "./infotainer-data"
    )]
    dir: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What a log is called: the subscription's name if it has one, else its id, else the log's number.
type Names = HashMap<LogNumber, (SubscriptionId, String)>;

pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    spare_the_catalogue();
    let path = args.dir.clone();
    let report = run_blocking(move |is_stopped| checked(&path, is_stopped))?;
    let names = names(&report);
    let mut out = Output::new();
    if args.json {
        out.json(&object(args, &report, &names))?;
    } else {
        print(&report, &names, &mut out)?;
    }
    out.flush()?;
    if report.is_whole() {
        Ok(())
    } else {
        let what = match is_backup(&args.dir) {
            true => "backup",
            false => "data directory",
        };
        let path = args.dir.display();
        Err(Failure::Failed(format!("{what} {path} is damaged")))
    }
}

/// What was checked, and the report.
fn checked(path: &Path, is_stopped: &AtomicBool) -> Result<Report, Failure> {
    let failed = |error: VerifyError| Failure::Failed(error.to_string());
    let mut progress = reporting("checking", is_stopped);
    if !is_backup(path) {
        return datalog::verify(path, progress).map_err(failed);
    }
    let mut input = backup::open(path)?;
    let mut unpacking = reporting("unpacking", is_stopped);
    let unpacked = Unpacked::of(&mut input, &mut unpacking).map_err(backup::failure)?;
    drop(unpacking);
    let mut report = datalog::verify(unpacked.dir(), &mut progress).map_err(failed)?;
    // It is always made again of a backup.
    report.recovery.catalogue_rebuilt = false;
    let of_the_backup = |line: &String| {
        let dir = unpacked.dir().display().to_string();
        line.replace(&dir, &path.display().to_string())
    };
    let found = report.damage.iter().map(of_the_backup);
    let known = unpacked.damage().iter();
    let known = known.map(|line| format!("known when the backup was made: {line}"));
    report.damage = known.chain(found).collect();
    Ok(report)
}

/// A directory is a data directory, everything else that is there a backup.
fn is_backup(path: &Path) -> bool {
    backup::is_pipe(path) || fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}

/// A panic of sled's tells that the catalogue is damaged, and is said so.
pub(super) fn spare_the_catalogue() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic_is_contained() {
            report(panic);
        }
    }));
}

fn names(report: &Report) -> Names {
    let entries = report.state.iter();
    let subscriptions = entries.filter_map(|(key, value)| match StateEntry::decode(key, value) {
        Ok(StateEntry::Subscription(id, state)) => {
            let name = state.settings.name.as_ref();
            let name = name.map_or_else(|| id.to_string(), ToString::to_string);
            Some((state.log, (id, name)))
        }
        _ => None,
    });
    subscriptions.collect()
}

fn name(log: &LogReport, names: &Names) -> String {
    match names.get(&log.log) {
        Some((_, name)) => name.clone(),
        None => format!("log {}", log.log.0),
    }
}

fn print(report: &Report, names: &Names, out: &mut Output) -> Result<(), Failure> {
    let mut lines: Vec<_> = report
        .damage
        .iter()
        .map(|what| format!("damage: {what}"))
        .collect();
    if report.recovery.catalogue_rebuilt {
        lines.push("a start makes the catalogue again from the other files".to_owned());
    }
    if report.recovery.cut_bytes > 0 {
        let bytes = report.recovery.cut_bytes;
        lines.push(format!(
            "a start cuts {} of a write that did not end, which is no damage",
            counted(bytes, "byte", "bytes")
        ));
    }
    if report.unclean_boot {
        lines.push(
            "the last end was that of the machine: what is not Synced gets a new epoch".to_owned(),
        );
    }
    for line in lines {
        out.write(line.as_bytes())?;
        out.write(b"\n")?;
    }
    let damaged = report.logs.iter().filter(|log| !log.is_whole());
    let rows: Vec<_> = damaged.map(|log| row(log, names)).collect();
    if !rows.is_empty() {
        let table = Table::new(columns(), &rows);
        table.head(out)?;
        for row in &rows {
            table.row(row, out)?;
        }
    }
    out.write(summary(report).as_bytes())?;
    out.write(b"\n")
}

fn summary(report: &Report) -> String {
    let iec = |bytes| ByteSize(bytes).display().iec().to_string();
    format!(
        "{}: {} with {}, {} of them missing; {} of segments read in {} ms, {} copied meanwhile",
        if report.is_whole() {
            "whole"
        } else {
            "damaged"
        },
        counted(report.recovery.logs, "subscription", "subscriptions"),
        counted(report.recovery.publications, "publication", "publications"),
        report.logs.iter().map(missing).sum::<u64>(),
        iec(report.read_bytes),
        report.duration.as_millis(),
        iec(report.copied_bytes),
    )
}

fn missing(log: &LogReport) -> u64 {
    log.missing
        .iter()
        .map(|range| range.to.0 - range.from.0 + 1)
        .sum()
}

fn columns() -> [Column; 5] {
    let column = |head, is_number| Column { head, is_number };
    [
        column("NAME", false),
        column("FIRST", true),
        column("LAST", true),
        column("END", false),
        column("MISSING", false),
    ]
}

fn row(log: &LogReport, names: &Names) -> [String; 5] {
    /// Ranges that a line has room for.
    const SHOWN: usize = 8;
    let mut ranges: Vec<_> = log.missing.iter().take(SHOWN).map(range).collect();
    if log.missing.len() > SHOWN {
        ranges.push(format!("and {} more", log.missing.len() - SHOWN));
    }
    [
        name(log, names),
        log.first.to_string(),
        log.last.to_string(),
        if log.is_end_lost {
            "may be lost"
        } else {
            "there"
        }
        .to_owned(),
        ranges.join(", "),
    ]
}

fn range(range: &MissingRange) -> String {
    if range.from == range.to {
        range.from.to_string()
    } else {
        format!("{} to {}", range.from, range.to)
    }
}

fn object(args: &VerifyArgs, report: &Report, names: &Names) -> Value {
    let damaged = report.logs.iter().filter(|log| !log.is_whole());
    let subscriptions: Vec<_> = damaged
        .map(|log| {
            let ranges = log.missing.iter();
            let ranges = ranges.map(|range| json!({ "from": range.from.0, "to": range.to.0 }));
            json!({
                "subscription_id": names.get(&log.log).map(|(id, _)| id.to_string()),
                "name": name(log, names),
                "first_sequence": log.first.0,
                "last_sequence": log.last.0,
                "missing": ranges.collect::<Vec<_>>(),
                "new_epoch": log.is_end_lost,
            })
        })
        .collect();
    json!({
        "data_dir": args.dir.display().to_string(),
        "is_whole": report.is_whole(),
        "damage": report.damage,
        "damaged_subscriptions": subscriptions,
        "subscriptions": report.recovery.logs,
        "publications": report.recovery.publications,
        "missing": report.logs.iter().map(missing).sum::<u64>(),
        "is_catalogue_made_again": report.recovery.catalogue_rebuilt,
        "cut_bytes": report.recovery.cut_bytes,
        "is_unclean": report.recovery.unclean,
        "read_bytes": report.read_bytes,
        "copied_bytes": report.copied_bytes,
        "duration_ms": report.duration.as_millis() as u64,
    })
}
