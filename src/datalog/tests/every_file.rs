//! Every file of a data directory, one at a time, damaged in every way: a start goes on, says what it found, gives what is whole,
//! and keeps what it could not read. A check says the same before.

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::{
    damage::{ONE, TWO, append, copy_dir, journal_of},
    verify::{check, snapshot},
    *,
};

const THREE: LogNumber = LogNumber(3);
const LOGS: [(LogNumber, u64); 3] = [(ONE, 100), (TWO, 70), (THREE, 40)];

/// Three segments, `THREE` in the first only, a rewritten use of journals, and a journal behind them.
fn populated(dir: &Path, is_orderly: bool) {
    // So that there is an orderly end before this one.
    open(dir).0.close().unwrap();
    let (mut log, _) = open(dir);
    let creates = LOGS.map(|(number, _)| Record::CreateLog(number));
    log.write(&creates).unwrap();
    log.write(&[put("a", "1")]).unwrap();
    append(&mut log, THREE, 1, 40);
    for part in 0..3 {
        append(&mut log, ONE, part * 30 + 1, part * 30 + 30);
        append(&mut log, TWO, part * 20 + 1, part * 20 + 20);
        log.write(&[put("b", &part.to_string())]).unwrap();
        log.end_journal();
        log.settle();
    }
    append(&mut log, ONE, 91, 100);
    append(&mut log, TWO, 61, 70);
    log.write(&[put("c", "last")]).unwrap();
    // Until the background thread has noted that there is a journal.
    log.settle();
    if is_orderly {
        log.close().unwrap();
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Deleted,
    Emptied,
    /// To this many parts of 8.
    Cut(usize),
    /// At a place in this part of 8.
    Flipped(usize),
    Overwritten,
}

impl Damage {
    fn all() -> impl Iterator<Item = Self> {
        let fixed = [Self::Deleted, Self::Emptied, Self::Overwritten];
        let cuts = [2, 7].map(Self::Cut);
        fixed
            .into_iter()
            .chain(cuts)
            .chain([0, 2, 5, 7].map(Self::Flipped))
    }

    /// Where it was done, as far as bytes are there that can't be read.
    fn inflict(self, path: &Path, random: &mut fastrand::Rng) -> Option<Vec<u8>> {
        let mut bytes = fs::read(path).unwrap();
        let end = bytes
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |at| at + 1);
        match self {
            Self::Deleted => {
                fs::remove_file(path).unwrap();
                return None;
            }
            Self::Emptied => bytes.clear(),
            Self::Cut(part) => bytes.truncate(end * part / 8),
            Self::Flipped(part) => {
                let range = end * part / 8..end * (part + 1) / 8;
                let at = if range.is_empty() {
                    0
                } else {
                    random.usize(range)
                };
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.u8(0..8);
                    fs::write(path, &bytes).unwrap();
                    let around = at.saturating_sub(8)..(at + 8).min(end.max(at + 1));
                    return Some(bytes[around].to_vec());
                }
            }
            // Zeros at the end are not copied.
            Self::Overwritten => bytes[..end].fill_with(|| random.u8(1..)),
        }
        fs::write(path, &bytes).unwrap();
        let last = bytes.len().min(end);
        Some(bytes[last.saturating_sub(4)..last].to_vec()).filter(|bytes| !bytes.is_empty())
    }
}

/// What is wrong about a start on the directory, in which one file was damaged.
fn start(dir: &Path, file: &str, unreadable: Option<&[u8]>) -> Result<(), String> {
    let checked = check(dir);
    let opened = DataLog::open(options(dir));
    let (mut log, recovered) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let is_right = file == "format" && checked.is_err();
            return is_right
                .then_some(())
                .ok_or(format!("does not start: {error}"));
        }
    };
    let report = checked.map_err(|error| format!("a check: {error}"))?;
    let told = recovered.report.damage.clone();
    let holds_logs = file.starts_with("journal/") || file.starts_with("segments/");
    let mut missing_at_all = 0;
    for (number, had) in LOGS {
        let Some(extent) = recovered.logs.get(&number) else {
            if told.is_empty() {
                return Err(format!("log {} is gone untold", number.0));
            }
            missing_at_all += had;
            if !holds_logs {
                return Err(format!("log {} is gone; told: {told:?}", number.0));
            }
            continue;
        };
        let is_uncertain = recovered.uncertain.contains(&number);
        let last = extent.last.0;
        if last < had && !is_uncertain {
            return Err(format!("log {} ends with {last} untold", number.0));
        }
        let (sequences, gaps) = read(&log.reader(), number, 0, last, 2000);
        let missing = last - sequences.len() as u64 + (had - last);
        let checked = report.logs.iter().find(|log| log.log == number);
        let checked = checked.ok_or("a log that a check does not know")?;
        if (&checked.missing, checked.is_end_lost) != (&gaps, is_uncertain) {
            return Err(format!(
                "log {}: {gaps:?} and {is_uncertain}, a check says {checked:?}",
                number.0
            ));
        }
        if number == THREE && missing > 0 && file != "segments/1.segment" {
            return Err(format!("{missing} of log 3 are missing"));
        }
        if !holds_logs && missing > 0 {
            return Err(format!("{missing} of log {} are missing", number.0));
        }
        missing_at_all += missing;
    }
    if report.recovery.damage.len() != told.len() || report.state != recovered.state {
        return Err(format!(
            "{told:?}, and a check said {:?}",
            report.recovery.damage
        ));
    }
    if missing_at_all > 0 && report.is_whole() {
        return Err("what is missing is not in the report".into());
    }
    let state: Vec<_> = recovered.state.iter().map(|(key, _)| &key[..]).collect();
    // The last batch can't be told from one that was never synced.
    let is_cut = recovered.report.unclean && recovered.report.cut_bytes > 0;
    if state != [b"a", b"b", b"c"] && told.is_empty() && !is_cut {
        return Err(format!("state is lost untold: {state:?}"));
    }
    log.write(&[put("epoch", "new")])
        .map_err(|error| error.to_string())?;
    log.settle();
    log.close().map_err(|error| error.to_string())?;
    let is_copy = file.starts_with("catalogue/") || ["lock", "reserve"].contains(&file);
    if let Some(bytes) = unreadable
        && (!told.is_empty() || recovered.report.cut_bytes > 0 || missing_at_all > 0)
        && !is_copy
    {
        let is_kept = snapshot(dir)
            .values()
            .any(|file| file.windows(bytes.len()).any(|window| window == bytes));
        if !is_kept {
            return Err(format!("what could not be read is gone; told: {told:?}"));
        }
    }
    // The next start finds no more than was told now.
    let (_, again) = DataLog::open(options(dir)).map_err(|error| format!("again: {error}"))?;
    let lost: Vec<_> = again.uncertain.iter().collect();
    if !lost.is_empty() {
        return Err(format!(
            "the next start finds ends lost again: {:?}",
            again.report.damage
        ));
    }
    Ok(())
}

fn damage_every_file(is_orderly: bool) {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let original = tempfile::tempdir().unwrap();
    populated(original.path(), is_orderly);
    let dirs = snapshot(original.path());
    let names: BTreeSet<PathBuf> = dirs
        .keys()
        .filter(|path| path.is_file())
        .map(|path| path.strip_prefix(original.path()).unwrap().to_owned())
        .collect();
    let has = |name: &str| names.iter().any(|path| path.starts_with(name));
    for name in [
        "format",
        "lock",
        "reserve",
        "ended",
        "journal",
        "segments",
        "state",
        "catalogue",
    ] {
        assert!(has(name), "{name} is not there: {names:?}");
    }
    assert_eq!(has("running"), !is_orderly);
    let (used, _) = journal_of(original.path(), ONE, 91);
    assert!(names.contains(used.strip_prefix(original.path()).unwrap()));

    let mut wrong = Vec::new();
    for name in &names {
        let file = name.to_str().unwrap();
        for damage in Damage::all() {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(original.path(), copy.path());
            let unreadable = damage.inflict(&copy.path().join(name), &mut random);
            if let Err(what) = start(copy.path(), file, unreadable.as_deref()) {
                wrong.push(format!("{file} {damage:?}: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
}

#[test]
fn whatever_is_damaged_after_an_orderly_end_is_told_and_the_rest_is_given() {
    damage_every_file(true);
}

#[test]
fn whatever_is_damaged_after_a_kill_is_told_and_the_rest_is_given() {
    damage_every_file(false);
}
