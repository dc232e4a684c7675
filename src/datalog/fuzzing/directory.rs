//! A whole data directory, damaged, checked by `verify`, and opened by a start.
//!
//! What is judged: a start goes on, and gives what was written or tells that it is missing; a check said the same before, and changed
//! nothing; and the next start finds nothing more.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Damage, format};
use crate::{
    datalog::{
        DataLog, LogNumber, MissingRange, OpenError, Options, Record, Recovered, Report,
        VerifyError,
        sample::{chunk, read},
        verify,
    },
    fuzzing::input::Input,
    protocol::GapCause,
};

const JOURNAL_SIZE: u64 = 16 << 10;
/// How many publications each log has.
const LOGS: [(LogNumber, u64); 3] = [(LogNumber(1), 50), (LogNumber(2), 30), (LogNumber(3), 20)];
/// What a start gives up on a full disk, and then makes again.
const RESERVE: &str = "reserve";
const MOST_DAMAGES: usize = 6;

/// See the module. `input`: how the directory was left, and what happened to which of its files then.
pub(crate) fn directory(input: &[u8]) {
    let mut input = Input::new(input);
    thread_local! {
        static LEFT: [OnceCell<Files>; 2] = const { [const { OnceCell::new() }; 2] };
    }
    LEFT.with(|left| {
        let how = input.choice(4);
        let is_orderly = how & 1 == 1;
        let files = left[usize::from(is_orderly)].get_or_init(|| left_behind(is_orderly));
        damaged(files, is_orderly, how & 2 == 2, &mut input);
    });
}

/// The files of a directory, by their path in it.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn options(dir: &Path) -> Options {
    Options {
        journal_size: JOURNAL_SIZE,
        lull: Duration::ZERO,
        sled_cache: 1 << 20,
        ..Options::new(dir)
    }
}

fn put(key: &str) -> Record {
    Record::Put {
        key: key.as_bytes().into(),
        value: (*b"value").into(),
    }
}

/// Two segments, log 3 in the first only, and a journal behind them.
fn left_behind(is_orderly: bool) -> Files {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("format"), format()).expect("a file");
    let (mut log, _) = DataLog::open(options(dir.path())).expect("a data directory");
    let write = |log: &mut DataLog, records: &[Record]| {
        log.write(records).expect("a data log");
        log.sync().expect("a data log");
    };
    let creates = LOGS.map(|(number, _)| Record::CreateLog(number));
    write(&mut log, &creates);
    write(&mut log, &[put("first"), chunk(LogNumber(3), 1, 20)]);
    for part in 0..2 {
        for half in [part * 20, part * 20 + 10] {
            write(&mut log, &[chunk(LogNumber(1), half + 1, half + 10)]);
        }
        write(
            &mut log,
            &[chunk(LogNumber(2), part * 10 + 1, part * 10 + 10)],
        );
        log.end_journal();
        log.settle();
    }
    write(&mut log, &[chunk(LogNumber(1), 41, 50)]);
    write(&mut log, &[chunk(LogNumber(2), 21, 30)]);
    write(&mut log, &[put("last")]);
    log.settle();
    if is_orderly {
        log.close().expect("a data log");
    } else {
        drop(log);
    }
    files(dir.path(), dir.path())
}

/// All but the reserve, which is so long that the rest would be as nothing beside it.
fn files(root: &Path, dir: &Path) -> Files {
    let mut found = Files::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(root, &path));
        } else if !path.ends_with(RESERVE) {
            let name = path.strip_prefix(root).expect("it is in there");
            found.insert(name.to_owned(), fs::read(&path).expect("a file"));
        }
    }
    found
}

fn fill(dir: &Path, files: &Files) {
    for sub in ["journal", "segments", "state", "quarantine", "catalogue"] {
        fs::create_dir(dir.join(sub)).expect("a folder");
    }
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("it is in there")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }
    // Zeros that take no room.
    let reserve = fs::File::create(dir.join(RESERVE)).expect("a file");
    reserve.set_len(8 << 20).expect("a file");
}

/// The files that may be damaged, in an order that is the same each time: which numbers journals and the catalogue's snapshots have, is not.
fn victims(files: &Files) -> Vec<PathBuf> {
    let is_one = |(name, bytes): &(&PathBuf, &Vec<u8>)| {
        let is_free = name.starts_with("journal") && bytes.iter().all(|&byte| byte == 0);
        let is_snapshot = name.to_string_lossy().contains("snap.");
        !is_free && !is_snapshot && **name != Path::new("lock")
    };
    let mut victims: Vec<_> = files.iter().filter(is_one).collect();
    // Of journals, the first bytes tell the generation.
    victims.sort_by_key(|(name, bytes)| {
        let journal = name.starts_with("journal").then(|| bytes.get(8..16));
        (journal, (*name).clone())
    });
    victims.into_iter().map(|(name, _)| name.clone()).collect()
}

/// Which files were changed, and how often.
#[derive(Debug, Default)]
struct Done {
    names: Vec<PathBuf>,
    is_spliced: bool,
}

impl Done {
    fn has(&self, begin: &str) -> bool {
        self.names.iter().any(|name| name.starts_with(begin))
    }
}

fn damaged(whole: &Files, is_orderly: bool, goes_on: bool, input: &mut Input<'_>) {
    let mut files = whole.clone();
    let mut done = Done::default();
    while !input.is_empty() && done.names.len() < MOST_DAMAGES {
        let names = victims(&files);
        let nth = usize::from(input.byte()).checked_rem(names.len());
        let Some(name) = nth.map(|nth| names[nth].clone()) else {
            break;
        };
        let bytes = files.get_mut(&name).expect("it is one of them");
        if input.choice(16) == 0 {
            files.remove(&name);
        } else {
            let used = bytes
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |at| at + 1);
            let mut damage = Damage::default();
            damage.inflict(input, bytes, used, &[]);
            done.is_spliced |= damage.is_spliced;
        }
        done.names.push(name);
    }
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), &files);
    start(dir.path(), is_orderly, goes_on, &done);
}

fn start(dir: &Path, is_orderly: bool, goes_on: bool, done: &Done) {
    let before = files(dir, dir);
    let checked = verify(dir, |_| ControlFlow::Continue(()));
    assert!(files(dir, dir) == before, "a check changed something");
    let (log, recovered) = match (DataLog::open(options(dir)), checked) {
        (Err(error), checked) => {
            refused(&error, checked, done);
            return;
        }
        (Ok((log, recovered)), checked) => {
            let report = checked.expect("what starts can be checked");
            agrees(&log, &recovered, &report);
            judged(&recovered, &report, is_orderly, done);
            (log, recovered)
        }
    };
    if goes_on {
        again(dir, log, &recovered);
    }
}

/// Without what says whose it is, a directory is none.
fn refused(error: &OpenError, checked: Result<Report, VerifyError>, done: &Done) {
    assert!(
        checked.is_err(),
        "a check takes what a start does not: {error}"
    );
    let is_unknown = matches!(
        error,
        OpenError::Format { .. } | OpenError::DamagedFormat(_) | OpenError::NoFormat(_)
    );
    assert!(
        is_unknown && done.has("format"),
        "it does not start: {error}"
    );
}

/// What is read is what was written, and the check says of each log what reading it says.
fn agrees(log: &DataLog, recovered: &Recovered, report: &Report) {
    let told = &recovered.report.damage;
    assert_eq!(report.recovery.damage.len(), told.len(), "{told:?}");
    assert_eq!(report.state, recovered.state);
    assert_eq!(report.logs.len(), recovered.logs.len());
    for checked in &report.logs {
        let extent = recovered.logs[&checked.log];
        assert_eq!((checked.first, checked.last), (extent.first, extent.last));
        let had = LOGS.iter().find(|(number, _)| *number == checked.log);
        let (number, had) = had.expect("a log that there was");
        assert!(extent.last.0 <= *had, "publications that nobody wrote");
        let (_, gaps) = read(&log.reader(), *number, 0, extent.last.0, 2000);
        assert!(gaps.iter().all(|gap| gap.cause == GapCause::Damage));
        assert_eq!(checked.missing, joined(gaps));
        let is_end_lost = recovered.uncertain.contains(number);
        assert_eq!(checked.is_end_lost, is_end_lost);
    }
}

/// Pages tell of two holes that lie side by side as they come.
fn joined(gaps: Vec<MissingRange>) -> Vec<MissingRange> {
    let mut joined: Vec<MissingRange> = Vec::new();
    for gap in gaps {
        match joined.last_mut() {
            Some(before) if before.to.next() == gap.from => before.to = gap.to,
            _ => joined.push(gap),
        }
    }
    joined
}

/// Damage of one kind is told, whatever it takes.
fn judged(recovered: &Recovered, report: &Report, is_orderly: bool, done: &Done) {
    let logs = report.logs.iter();
    let is_missing = |name: &str| done.has(name);
    let mut lost = LOGS.len() - report.logs.len();
    lost += logs.clone().filter(|log| !log.missing.is_empty()).count();
    let is_cut = |number: &LogNumber, had: u64| {
        recovered
            .logs
            .get(number)
            .is_some_and(|extent| extent.last.0 < had)
    };
    let cut = LOGS.iter().filter(|(number, had)| is_cut(number, *had));
    if lost > 0 {
        assert!(!report.is_whole(), "what is missing is not in the report");
    }
    if done.names.len() > 1 || done.is_spliced {
        return;
    }
    let holds_logs = is_missing("journal") || is_missing("segments");
    assert!(lost == 0 || holds_logs, "{lost} logs are not whole");
    for (number, had) in cut {
        // After a kill, the last batches can't be told from some that were never synced.
        let is_told = recovered.uncertain.contains(number);
        assert!(
            is_told || !is_orderly,
            "log {} ends before {had} untold",
            number.0
        );
        assert!(holds_logs);
    }
    if done.names.is_empty() {
        assert!(
            report.is_whole() && recovered.report.damage.is_empty(),
            "{report:?}"
        );
    }
}

/// What was found lost is answered, and then found no more.
fn again(dir: &Path, mut log: DataLog, recovered: &Recovered) {
    log.write(&[put("epoch")]).expect("a data log");
    log.settle();
    log.close().expect("a data log");
    let (_, again) = DataLog::open(options(dir)).expect("a data log");
    assert!(again.uncertain.is_empty(), "{:?}", again.report.damage);
    for (number, extent) in &recovered.logs {
        let found = again.logs.get(number);
        assert_eq!(found.map(|found| found.last), Some(extent.last));
    }
}
