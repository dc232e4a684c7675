//! The small files that say whose a data directory is and how its last user ended: their text, with a checksum at the end.

use std::{io, path::Path};

use uuid::Uuid;

use super::{During, write_whole};
use crate::datalog::{OpenError, disk};

/// The first line of the file `format`.
const FORMAT: &str = "infotainer data 1";
/// In the file `running`, in place of the boot.
const LOST_BOOT: &str = "an earlier boot";
/// In both files, in front of the generations that are not sealed.
const UNSEALED: &str = "unsealed ";
/// In both files, in front of the torn tails that are still there.
const UNCUT: &str = "torn ";
/// In the file `running`, behind the batch.
const LOST_END: &str = "damaged";

/// How the last user of the directory ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    /// Not orderly.
    pub(crate) unclean: bool,
    /// Not orderly, and in another boot.
    pub(crate) unclean_boot: bool,
    /// What the start before found damaged, and nobody acted on: the ends of logs.
    pub(crate) lost_end: bool,
    /// Journal generations up to this one may have been used without a trace.
    pub(crate) generation: u64,
    /// The number of its first batch.
    pub(crate) batch: u64,
    /// Of an orderly end: generation and number of the last batch, as far as it may not be sealed.
    pub(crate) ended: Option<(u64, u64)>,
    /// The newest journal of which anything was synced.
    pub(crate) synced: Option<Synced>,
    /// Generations that were not sealed: one that is not sealed now has to be there.
    pub(crate) unsealed: Vec<u64>,
    /// Torn tails that the start before found and had no room to copy.
    pub(crate) uncut: Vec<Uncut>,
    /// The file that says so was there, and could not be read.
    pub(crate) damaged: Option<&'static str>,
}

/// A torn tail that is still there: the generation of its journal, and where it begins.
pub(crate) type Uncut = (u64, u64);

impl Found {
    /// Whether what the last user of the directory, or a start, wrote may be on the disk only in part.
    pub(crate) fn is_volatile(&self) -> bool {
        self.unclean || !self.uncut.is_empty()
    }
}

/// What is known to be in a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Synced {
    pub(crate) generation: u64,
    /// The first batch that was synced.
    pub(crate) batch: u64,
    /// Bytes of the file.
    pub(crate) capacity: u64,
}

/// What a start found lost. Until something is done about it, the next start has to find it lost too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lost {
    /// What was not synced, with the boot.
    pub(crate) boot: bool,
    /// The ends of logs, by damage.
    pub(crate) end: bool,
}

/// What `running` says beside the boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RunNote {
    /// Journal generation and batch from which on they are of this run.
    pub(crate) began: (u64, u64),
    pub(crate) lost: Lost,
    /// How far it is known to be synced.
    pub(crate) synced: Option<Synced>,
    /// Generations that wait to be sealed.
    pub(crate) unsealed: Vec<u64>,
    pub(crate) uncut: Vec<Uncut>,
}

/// The text of `running`.
pub(super) fn running(dir: &Path, note: &RunNote) -> String {
    let RunNote {
        began: (generation, batch),
        lost,
        synced,
        unsealed,
        uncut,
    } = note;
    let boot = if lost.boot {
        LOST_BOOT.to_owned()
    } else {
        boot_id(dir)
    };
    let end = if lost.end { LOST_END } else { "" };
    let mut rest = format!("{generation}\n{batch}\n{end}\n");
    if let Some(synced) = synced {
        let (generation, batch, capacity) = (synced.generation, synced.batch, synced.capacity);
        rest += &format!("{generation}\n{batch}\n{capacity}\n");
    }
    rest += &unsealed_line(unsealed);
    rest += &uncut_line(uncut);
    // The boot needs no checksum: one that is not this boot is another.
    format!("{boot}\n{}", with_checksum(rest))
}

/// The text of `ended`.
pub(super) fn ended(generation: u64, batch: u64, unsealed: &[u64], uncut: &[Uncut]) -> String {
    let (unsealed, uncut) = (unsealed_line(unsealed), uncut_line(uncut));
    with_checksum(format!("{generation}\n{batch}\n{unsealed}{uncut}"))
}

/// The text of `format`.
pub(super) fn format(id: Uuid) -> String {
    with_checksum(format!("{FORMAT}\n{id}\n"))
}

fn unsealed_line(unsealed: &[u64]) -> String {
    line(UNSEALED, unsealed.iter().map(u64::to_string))
}

/// What [`unsealed_line`] said. The first servers wrote none.
fn read_unsealed(text: &str) -> Vec<u64> {
    let numbers = items(text, UNSEALED);
    numbers.filter_map(|number| number.parse().ok()).collect()
}

fn uncut_line(uncut: &[Uncut]) -> String {
    let tails = uncut.iter();
    line(
        UNCUT,
        tails.map(|(generation, start)| format!("{generation}:{start}")),
    )
}

/// What [`uncut_line`] said.
fn read_uncut(text: &str) -> Vec<Uncut> {
    let tail = |tail: &str| {
        let (generation, start) = tail.split_once(':')?;
        Some((generation.parse().ok()?, start.parse().ok()?))
    };
    items(text, UNCUT).filter_map(tail).collect()
}

/// A line of items behind a word; none at all if there are none.
fn line(word: &str, items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    match items.is_empty() {
        true => String::new(),
        false => format!("{word}{}\n", items.join(" ")),
    }
}

/// The items of the line that begins with `word`.
fn items<'a>(text: &'a str, word: &str) -> impl Iterator<Item = &'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    line.unwrap_or_default().split(' ')
}

pub(super) fn read_or_make_format(dir: &Path) -> Result<Uuid, OpenError> {
    if let Some(id) = read_format(dir)? {
        return Ok(id);
    }
    for sub in ["journal", "segments"] {
        let sub = dir.join(sub);
        if disk::exists(&sub).during(|| format!("looking for {}", sub.display()))? {
            return Err(OpenError::NoFormat(dir.to_owned()));
        }
    }
    sync_above(dir).during(|| format!("syncing what {} is in", dir.display()))?;
    let id = Uuid::new_v4();
    write_whole(dir, "format", format(id).as_bytes())
        .during(|| format!("writing {}", dir.join("format").display()))?;
    Ok(id)
}

/// Makes the name of the directory durable, which may be as new as what will be in it, and those of the directories above.
fn sync_above(dir: &Path) -> io::Result<()> {
    for above in dir.ancestors().skip(1) {
        let above = match above.as_os_str().is_empty() {
            true => Path::new("."),
            false => above,
        };
        match disk::sync_dir(above) {
            // What is in there was not made by this user.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(error) => return Err(error),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// The store's id; none if the file is not there.
pub(super) fn read_format(dir: &Path) -> Result<Option<Uuid>, OpenError> {
    let path = dir.join("format");
    let Some(text) = read_text(&path).during(|| format!("reading {}", path.display()))? else {
        return Ok(None);
    };
    let mut lines = text.lines();
    let format = lines.next().unwrap_or_default();
    if format != FORMAT {
        return Err(OpenError::Format {
            dir: dir.to_owned(),
            found: format.to_owned(),
            known: FORMAT,
        });
    }
    let id = lines.next().and_then(|id| Uuid::parse_str(id).ok());
    // The first servers wrote no checksum.
    let is_whole = lines.next().is_none() || checked(&text).is_some();
    match id.filter(|_| is_whole) {
        Some(id) => Ok(Some(id)),
        None => Err(OpenError::DamagedFormat(dir.to_owned())),
    }
}

pub(super) fn read_running(dir: &Path) -> io::Result<Found> {
    let Some(text) = read_text(&dir.join("running"))? else {
        return read_ended(dir);
    };
    let unknown = Found {
        unclean: true,
        unclean_boot: true,
        damaged: Some("running"),
        ..Found::default()
    };
    let Some((boot, rest)) = text.split_once('\n') else {
        return Ok(unknown);
    };
    let Some(rest) = checked(rest) else {
        return Ok(unknown);
    };
    let mut lines = rest.lines();
    let mut number = || lines.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let (generation, batch) = (number(), number());
    let lost_end = lines.next() == Some(LOST_END);
    let numbers: Vec<_> = lines.map_while(|line| line.parse().ok()).collect();
    let synced = match numbers[..] {
        [generation, batch, capacity] => Some(Synced {
            generation,
            batch,
            capacity,
        }),
        _ => None,
    };
    Ok(Found {
        unclean: true,
        unclean_boot: boot != boot_id(dir),
        lost_end,
        generation,
        batch,
        synced,
        unsealed: read_unsealed(rest),
        uncut: read_uncut(rest),
        ..Found::default()
    })
}

fn read_ended(dir: &Path) -> io::Result<Found> {
    let Some(text) = read_text(&dir.join("ended"))? else {
        return Ok(Found::default());
    };
    let Some(rest) = checked(&text) else {
        return Ok(Found {
            damaged: Some("ended"),
            ..Found::default()
        });
    };
    let mut numbers = rest.lines().map_while(|line| line.parse().ok());
    Ok(Found {
        ended: numbers.next().zip(numbers.next()),
        unsealed: read_unsealed(rest),
        uncut: read_uncut(rest),
        ..Found::default()
    })
}

/// None: it is not there. What is no text becomes some that has a wrong checksum.
fn read_text(path: &Path) -> io::Result<Option<String>> {
    match disk::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn with_checksum(text: String) -> String {
    let crc = crc32c::crc32c(text.as_bytes());
    format!("{text}{crc:08x}\n")
}

/// What is in front of the checksum, if that is right.
fn checked(text: &str) -> Option<&str> {
    let end = text.strip_suffix('\n')?.rfind('\n')? + 1;
    let (rest, crc) = text.split_at(end);
    (crc.trim_end() == format!("{:08x}", crc32c::crc32c(rest.as_bytes()))).then_some(rest)
}

/// Where the system does not tell, every end counts as one in another boot.
fn boot_id(dir: &Path) -> String {
    match disk::boot_id(dir) {
        Ok(id) => id.trim().to_owned(),
        Err(_) => format!("unknown, {}", Uuid::new_v4()),
    }
}
