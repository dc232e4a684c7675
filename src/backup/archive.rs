//! The file that a backup is: a tar archive, so that it can be looked into with what every system has.
//!
//! ```text
//!  infotainer-backup/manifest.json       whose it is, when it was made, every part with its length
//!  infotainer-backup/state/log           the parts, in the order of the manifest
//!  infotainer-backup/journal/12
//!  infotainer-backup/segments/5.segment
//!  infotainer-backup/checksums           the CRC-32C of manifest and parts, in the same order: a line each
//! ```
//!
//! It is written and read from the beginning to the end, so that it may come out of a pipe. Without the checksums it was cut. Nothing in
//! it is compressed: that is for whoever it is piped to.

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    ops::ControlFlow,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BackupError, During};
use crate::{
    datalog::{Contents, PartName, Progress},
    protocol::Timestamp,
};

const ROOT: &str = "infotainer-backup/";
const MANIFEST: &str = "manifest.json";
const CHECKSUMS: &str = "checksums";
const FORMAT: &str = "infotainer backup 1";

/// Archives are made of blocks of so many bytes.
const BLOCK: usize = 512;

/// Bytes that are copied at once.
const STEP: usize = 256 << 10;

/// The longest manifest that is read: one of some 500,000 segments.
const LONGEST_MANIFEST: u64 = 64 << 20;

/// What a backup says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    /// The version of the program that made it.
    pub version: String,
    /// When it was made.
    pub created: Timestamp,
    /// The store that it is of.
    pub store: Uuid,
    /// What was damaged when it was made, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<String>,
    parts: Vec<ListedPart>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct ListedPart {
    name: String,
    bytes: u64,
}

impl Manifest {
    pub(super) fn new(contents: &Contents, created: Timestamp, damage: Vec<String>) -> Self {
        let parts = contents.parts.iter().map(|part| ListedPart {
            name: part.name.to_string(),
            bytes: part.len,
        });
        Self {
            format: FORMAT.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            created,
            store: contents.store,
            damage,
            parts: parts.collect(),
        }
    }

    /// Its parts, in order; the state log is the first.
    fn parts(&self) -> Result<Vec<(PartName, u64)>, BackupError> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let name: PartName = part.name.parse().map_err(|error| damaged(&error))?;
            if parts.last().is_some_and(|&(before, _)| before >= name) {
                return Err(damaged(&format_args!("part {name} is out of order")));
            }
            parts.push((name, part.bytes));
        }
        match parts.first() {
            Some((PartName::StateLog, _)) => Ok(parts),
            _ => Err(damaged(&"the manifest lists no state log")),
        }
    }

    /// Bytes of all parts.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = self.parts.iter().map(|part| part.bytes);
        bytes.fold(0, u64::saturating_add)
    }
}

fn damaged(what: &dyn std::fmt::Display) -> BackupError {
    BackupError::Damaged(what.to_string())
}

/// How far writing or reading is, told to who asked for it.
pub(super) struct Meter<'a> {
    done: Progress,
    tell: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

impl<'a> Meter<'a> {
    /// Of so many bytes nothing is done.
    pub(super) fn new(total: u64, tell: &'a mut dyn FnMut(Progress) -> ControlFlow<()>) -> Self {
        let done = Progress { done: 0, total };
        Self { done, tell }
    }

    fn add(&mut self, bytes: usize) -> Result<(), BackupError> {
        self.done.done += bytes as u64;
        match (self.tell)(self.done) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(BackupError::Stopped),
        }
    }
}

/// Writes a backup of `contents` to `out`, and says how long it is. After each step, `rest` decides when it goes on.
pub(super) fn write(
    contents: &Contents,
    manifest: &Manifest,
    out: &mut dyn Write,
    meter: &mut Meter<'_>,
    rest: &mut dyn FnMut() -> Result<(), BackupError>,
) -> Result<u64, BackupError> {
    let writing = || "writing the backup".to_owned();
    let created = manifest.created;
    let json = serde_json::to_vec_pretty(manifest).expect("invariant: a manifest can be written");
    let mut checksums = String::new();
    add_checksum(&mut checksums, MANIFEST, crc32c::crc32c(&json));
    let mut written = put_small(out, MANIFEST, &json, created).during(writing)?;
    let mut bytes = vec![0; STEP];
    for part in &contents.parts {
        let name = part.name.to_string();
        let reading = || format!("reading {}", part.path.display());
        let mut from = part.open().during(reading)?;
        written += put_header(out, &name, part.len, created).during(writing)?;
        let mut crc = 0;
        loop {
            let len = from.read(&mut bytes).during(reading)?;
            if len == 0 {
                break;
            }
            crc = crc32c::crc32c_append(crc, &bytes[..len]);
            out.write_all(&bytes[..len]).during(writing)?;
            meter.add(len)?;
            rest()?;
        }
        written += part.len + put_padding(out, part.len).during(writing)?;
        add_checksum(&mut checksums, &name, crc);
    }
    written += put_small(out, CHECKSUMS, checksums.as_bytes(), created).during(writing)?;
    let end = [0; 2 * BLOCK];
    out.write_all(&end)
        .and_then(|()| out.flush())
        .during(writing)?;
    Ok(written + end.len() as u64)
}

fn put_small(out: &mut dyn Write, name: &str, bytes: &[u8], made: Timestamp) -> io::Result<u64> {
    let len = bytes.len() as u64;
    let header = put_header(out, name, len, made)?;
    out.write_all(bytes)?;
    Ok(header + len + put_padding(out, len)?)
}

fn put_header(out: &mut dyn Write, name: &str, len: u64, created: Timestamp) -> io::Result<u64> {
    let mut header = tar::Header::new_gnu();
    header.set_path(format!("{ROOT}{name}"))?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o600);
    header.set_mtime(created.0 / 1000);
    header.set_size(len);
    header.set_cksum();
    out.write_all(header.as_bytes())?;
    Ok(BLOCK as u64)
}

fn put_padding(out: &mut dyn Write, len: u64) -> io::Result<u64> {
    let padding = len.next_multiple_of(BLOCK as u64) - len;
    out.write_all(&[0; BLOCK][..padding as usize])?;
    Ok(padding)
}

fn add_checksum(checksums: &mut String, name: &str, crc: u32) {
    writeln!(checksums, "{crc:08x} {name}").expect("invariant: a string takes everything");
}

/// Who takes the parts of a backup that is read.
pub(super) trait Taking {
    /// The backup is this one.
    fn begin(&mut self, manifest: &Manifest) -> io::Result<()>;

    /// The next part, to be read to its end.
    fn part(&mut self, name: PartName, content: &mut dyn Read) -> io::Result<()>;
}

/// Reads a backup to its end: what it says of itself, after every checksum was found right.
pub(super) fn read(
    input: &mut dyn Read,
    taking: &mut dyn Taking,
    tell: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Manifest, BackupError> {
    let mut archive = tar::Archive::new(input);
    let manifest = {
        let mut entries = archive.entries().map_err(unread)?;
        let mut next = |name: &str| match entries.next() {
            Some(Ok(entry)) if is_called(&entry, name) => Ok(entry),
            Some(Ok(_)) => Err(damaged(&format_args!("{name} is not where it should be"))),
            Some(Err(error)) => Err(unread(error)),
            None => Err(damaged(&format_args!("it ends in front of {name}"))),
        };
        let (manifest, json) = match next(MANIFEST) {
            Ok(entry) => manifest_of(entry)?,
            Err(error @ BackupError::Io { .. }) => return Err(error),
            Err(_) => {
                return Err(BackupError::NotABackup(
                    "it does not begin with a manifest (one that is compressed has to be unpacked first)"
                        .into(),
                ));
            }
        };
        let parts = manifest.parts()?;
        taking
            .begin(&manifest)
            .during(|| "making a data directory".into())?;
        let mut meter = Meter::new(manifest.bytes(), tell);
        let mut expected = vec![(MANIFEST.to_owned(), crc32c::crc32c(&json))];
        for (name, len) in parts {
            let entry = next(&name.to_string())?;
            if entry.size() != len {
                let what = format!("{name} has another length than the manifest says");
                return Err(BackupError::Damaged(what));
            }
            expected.push((name.to_string(), part(entry, name, taking, &mut meter)?));
        }
        let mut found = String::new();
        let most = expected
            .iter()
            .map(|(name, _)| name.len() + 10)
            .sum::<usize>();
        let checksums = next(CHECKSUMS)?;
        checksums
            .take(most as u64 + 1)
            .read_to_string(&mut found)
            .map_err(unread)?;
        compare(&expected, &found)?;
        manifest
    };
    // Whoever writes into a pipe is heard to the end.
    io::copy(archive.into_inner(), &mut io::sink()).map_err(unread)?;
    Ok(manifest)
}

fn is_called(entry: &tar::Entry<'_, &mut dyn Read>, name: &str) -> bool {
    let path = entry.path_bytes();
    path.strip_prefix(ROOT.as_bytes()) == Some(name.as_bytes())
}

fn manifest_of(entry: tar::Entry<'_, &mut dyn Read>) -> Result<(Manifest, Vec<u8>), BackupError> {
    let mut json = Vec::new();
    entry
        .take(LONGEST_MANIFEST)
        .read_to_end(&mut json)
        .map_err(unread)?;
    #[derive(Deserialize)]
    struct Format {
        format: String,
    }
    let format = serde_json::from_slice(&json).map(|Format { format }| format);
    match format {
        Ok(format) if format == FORMAT => {}
        Ok(format) => {
            let what = format!("it has the format {format:?}, and this version knows {FORMAT:?}");
            return Err(BackupError::NotABackup(what));
        }
        Err(error) => {
            return Err(damaged(&format_args!(
                "the manifest can't be read: {error}"
            )));
        }
    }
    match serde_json::from_slice(&json) {
        Ok(manifest) => Ok((manifest, json)),
        Err(error) => Err(damaged(&format_args!(
            "the manifest can't be read: {error}"
        ))),
    }
}

/// The checksum of a part that was taken.
fn part(
    entry: tar::Entry<'_, &mut dyn Read>,
    name: PartName,
    taking: &mut dyn Taking,
    meter: &mut Meter<'_>,
) -> Result<u32, BackupError> {
    let mut content = Summing {
        left: entry.size(),
        from: entry,
        crc: 0,
        meter,
        failed: None,
    };
    let taken = taking.part(name, &mut content);
    match (content.failed, taken) {
        (Some(failed), _) => Err(failed),
        (None, Err(error)) => Err(error).during(|| format!("writing {name}")),
        (None, Ok(())) if content.left > 0 => {
            Err(damaged(&format_args!("it ends in the midst of {name}")))
        }
        (None, Ok(())) => Ok(content.crc),
    }
}

/// A part as it is read.
struct Summing<'a, 'b, R> {
    from: R,
    left: u64,
    crc: u32,
    meter: &'a mut Meter<'b>,
    /// Why it can't be read to its end.
    failed: Option<BackupError>,
}

impl<R: Read> Read for Summing<'_, '_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(bytes).map_err(unread).and_then(|len| {
            self.meter.add(len)?;
            Ok(len)
        });
        match read {
            Ok(len) => {
                self.crc = crc32c::crc32c_append(self.crc, &bytes[..len]);
                self.left = self.left.saturating_sub(len as u64);
                Ok(len)
            }
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("the backup is read no more"))
            }
        }
    }
}

fn compare(expected: &[(String, u32)], found: &str) -> Result<(), BackupError> {
    let mut rest = found;
    for (name, crc) in expected {
        let mut line = String::new();
        add_checksum(&mut line, name, *crc);
        match rest.strip_prefix(&line) {
            Some(behind) => rest = behind,
            None => return Err(damaged(&format_args!("{name} has a wrong checksum"))),
        }
    }
    match rest {
        "" => Ok(()),
        _ => Err(damaged(&"there are checksums of what is not there")),
    }
}

/// What is wrong with the bytes is damage; what the system refuses is not.
fn unread(error: io::Error) -> BackupError {
    if error.raw_os_error().is_some() {
        let what = "reading the backup".to_owned();
        return BackupError::Io {
            what,
            source: error,
        };
    }
    damaged(&error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datalog::Part;

    type Parts = Vec<(PartName, Vec<u8>)>;

    #[derive(Default)]
    struct Taken(Parts);

    impl Taking for Taken {
        fn begin(&mut self, _: &Manifest) -> io::Result<()> {
            Ok(())
        }

        fn part(&mut self, name: PartName, content: &mut dyn Read) -> io::Result<()> {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            self.0.push((name, bytes));
            Ok(())
        }
    }

    fn go_on(_: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn parts() -> Parts {
        vec![
            (PartName::StateLog, vec![1; 700]),
            (PartName::Journal(3), Vec::new()),
            (PartName::Journal(12), vec![2; 512]),
            (PartName::Segment(5), vec![3; 90]),
        ]
    }

    fn written() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let part = |(name, bytes): (PartName, Vec<u8>)| {
            let path = dir.path().join(name.to_string().replace('/', "-"));
            // What is behind its end does not count.
            std::fs::write(&path, [&bytes[..], b"more"].concat()).unwrap();
            let len = bytes.len() as u64;
            Part { name, path, len }
        };
        let contents = Contents {
            store: Uuid::from_u128(1),
            parts: parts().into_iter().map(part).collect(),
        };
        let manifest = Manifest::new(&contents, Timestamp(1_000_000), vec!["a word".into()]);
        let mut out = Vec::new();
        let mut told = Vec::new();
        let mut tell = |progress| {
            told.push(progress);
            go_on(progress)
        };
        let mut meter = Meter::new(contents.bytes(), &mut tell);
        let len = write(&contents, &manifest, &mut out, &mut meter, &mut || Ok(())).unwrap();
        assert_eq!(len, out.len() as u64);
        let last = told.last().copied().unwrap();
        assert_eq!((last.done, last.total), (1302, 1302));
        out
    }

    fn read_back(mut bytes: &[u8]) -> Result<(Manifest, Parts), BackupError> {
        let mut taken = Taken::default();
        read(&mut bytes, &mut taken, &mut go_on).map(|manifest| (manifest, taken.0))
    }

    #[test]
    fn backup_reads_back_as_it_was_written() {
        let (manifest, taken) = read_back(&written()).unwrap();
        assert_eq!(taken, parts());
        assert_eq!(manifest.store, Uuid::from_u128(1));
        assert_eq!(manifest.created, Timestamp(1_000_000));
        assert_eq!(manifest.damage, ["a word"]);
        assert_eq!(manifest.bytes(), 1302);
    }

    #[test]
    fn bit_flipped_anywhere_is_found_or_of_no_account() {
        let whole = written();
        let expected = read_back(&whole).unwrap();
        let (mut found, mut flips) = (0, 0);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            flips += 1;
            match read_back(&bytes) {
                Ok(read) => assert!(read == expected, "byte {at}"),
                Err(BackupError::Damaged(_) | BackupError::NotABackup(_)) => found += 1,
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
        assert!(found > flips / 2, "{found} of {flips}");
    }

    #[test]
    fn backup_that_was_cut_anywhere_is_found() {
        let whole = written();
        let end = whole.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        for cut in 0..end {
            let error = read_back(&whole[..cut]).unwrap_err();
            let is_told = matches!(error, BackupError::Damaged(_) | BackupError::NotABackup(_));
            assert!(is_told, "cut at {cut}: {error}");
        }
    }

    #[test]
    fn manifest_lists_parts_in_order_and_nothing_else() {
        let (manifest, _) = read_back(&written()).unwrap();
        let with = |change: fn(&mut Vec<ListedPart>)| {
            let mut manifest = manifest.clone();
            change(&mut manifest.parts);
            manifest.parts()
        };
        assert!(with(|_| {}).is_ok());
        assert!(with(|parts| parts.swap(1, 2)).is_err());
        assert!(with(|parts| parts[3].name = "segments/../format".into()).is_err());
        assert!(with(|parts| drop(parts.remove(0))).is_err());
        assert!(with(|parts| parts[2].name = "journal/3".into()).is_err());
    }

    #[test]
    fn who_wants_no_more_is_heard() {
        let whole = written();
        let mut taken = Taken::default();
        let mut stop = |_| ControlFlow::Break(());
        let stopped = read(&mut &whole[..], &mut taken, &mut stop);
        assert!(matches!(stopped, Err(BackupError::Stopped)), "{stopped:?}");
    }
}
