//! Journals: written as a run writes them, damaged, and replayed as the next start replays them.
//!
//! Three kinds of input: a run whose journals are damaged, of which is known what has to be read and what has to be told; records that
//! nobody writes, in batches whose checksum is right; and any bytes for a journal. Of the last two, nothing may panic.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use tempfile::TempDir;

use super::{Damage, format};
use crate::{
    datalog::{
        Chunk, LogNumber, Record,
        catalogue::Catalogue,
        journal::{
            format::{Batch, BatchBuilder, BatchHeader},
            newest_generation, scan_of,
        },
        recovery::fuzzing::{Journals, replay_journals},
        sample::{chunk, read},
        store::{Lost, RunNote, Store, Synced},
    },
    fuzzing::input::Input,
    protocol::{GapCause, Sequence, Timestamp},
};

/// Bytes of a journal.
const CAPACITY: usize = 8 << 10;
/// Journals that wait to be sealed.
const MOST_JOURNALS: usize = 3;
/// Everything up to this generation is sealed, and in the files under what came later.
const SEALED: u64 = 1;
/// Of the first batch that is not sealed.
const FIRST_BATCH: u64 = 11;

/// See the module.
pub(crate) fn journal(input: &[u8]) {
    let mut input = Input::new(input);
    thread_local! {
        static BENCH: OnceCell<Bench> = const { OnceCell::new() };
    }
    BENCH.with(|bench| {
        let bench = bench.get_or_init(Bench::new);
        match input.choice(4) {
            0 | 1 => damaged_run(bench, &mut input),
            2 => wrong_records(bench, &mut input),
            _ => any_bytes(bench, input.rest()),
        }
    });
}

/// A data directory that is used again and again: only its journals are new each time.
struct Bench {
    dir: TempDir,
    /// Where a start's changes go.
    stand_in: TempDir,
    store: Store,
    catalogue: Arc<Catalogue>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let stand_in = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("format"), format()).expect("a file");
        for sub in ["journal", "quarantine"] {
            fs::create_dir(stand_in.path().join(sub)).expect("a folder");
        }
        let store = Store::open(dir.path()).expect("an empty data directory");
        // Nobody else is here, and looking takes the lock too.
        fs::remove_file(dir.path().join("lock")).expect("a file");
        let catalogue = Catalogue::open(&stand_in.path().join("catalogue"), 1 << 20);
        Self {
            store,
            catalogue: Arc::new(catalogue.expect("an empty catalogue")),
            dir,
            stand_in,
        }
    }

    /// What a start makes of the journals, after a run that noted `synced` and was killed.
    fn replay(&self, journals: &[&[u8]], synced: Option<Synced>) -> Journals {
        let note = RunNote {
            began: (SEALED + 1, FIRST_BATCH),
            lost: Lost::default(),
            synced,
            unsealed: Vec::new(),
            uncut: Vec::new(),
        };
        self.store.mark_running(&note).expect("a file");
        empty(&self.stand_in.path().join("quarantine"));
        let journal_dir = self.stand_in.path().join("journal");
        empty(&journal_dir);
        for (number, bytes) in (1..).zip(journals) {
            fs::write(journal_dir.join(format!("{number}.journal")), bytes).expect("a file");
        }
        let store = Store::look(self.dir.path(), self.stand_in.path()).expect("a directory");
        replay_journals(&store, &self.catalogue, SEALED)
            .expect("journals are opened, however damaged")
    }
}

fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a folder") {
        fs::remove_file(entry.expect("an entry").path()).expect("a file");
    }
}

/// One batch of a run.
struct Written {
    number: u64,
    /// What its header says, of its own journal.
    synced_through: u64,
    /// How far all journals were synced when it was written.
    all_through: u64,
    range: Range<usize>,
    records: Vec<Record>,
}

/// One journal of a run.
struct File {
    generation: u64,
    /// What an earlier use left.
    before: Vec<u8>,
    bytes: Vec<u8>,
    used: usize,
    batches: Vec<Written>,
}

impl File {
    fn new(store: &Store, generation: u64, is_used_again: bool) -> Self {
        let mut before = Vec::new();
        if is_used_again {
            for number in 1..FIRST_BATCH {
                let header = BatchHeader {
                    generation: SEALED,
                    number,
                    synced_through: number - 1,
                };
                let mut builder = BatchBuilder::new();
                builder.push(&chunk(LogNumber(99), 5 * number + 1, 5 * number + 5));
                before.extend_from_slice(builder.finish(store.id(), header));
            }
        }
        before.resize(CAPACITY, 0);
        Self {
            generation,
            bytes: before.clone(),
            before,
            used: 0,
            batches: Vec::new(),
        }
    }
}

/// A run: what a server could have written, in the order in which it would.
struct Run<'a> {
    store: &'a Store,
    files: Vec<File>,
    number: u64,
    synced_through: u64,
    noted: Option<Synced>,
    next_log: u64,
    /// First and last of the logs that live.
    logs: BTreeMap<u64, (u64, u64)>,
    records: Vec<Record>,
}

impl<'a> Run<'a> {
    fn of(store: &'a Store, input: &mut Input<'_>) -> Self {
        let mut run = Self {
            store,
            files: Vec::new(),
            number: FIRST_BATCH - 1,
            synced_through: FIRST_BATCH - 1,
            noted: None,
            next_log: 1,
            logs: BTreeMap::new(),
            records: Vec::new(),
        };
        run.begin(input.choice(2) == 1);
        loop {
            match input.choice(12) {
                0 => break,
                1 | 2 => run.write(),
                3 => {
                    run.write();
                    run.sync();
                }
                4 => run.rotate(input.choice(2) == 1),
                choice => run.change(choice, input),
            }
        }
        run.write();
        run
    }

    fn begin(&mut self, is_used_again: bool) {
        let generation = SEALED + 1 + self.files.len() as u64;
        let file = File::new(self.store, generation, is_used_again);
        self.files.push(file);
    }

    /// Adds a record to the next batch.
    fn change(&mut self, choice: u8, input: &mut Input<'_>) {
        let which = usize::from(input.byte());
        let nth = which.checked_rem(self.logs.len()).unwrap_or_default();
        let log = self.logs.iter().nth(nth).map(|(log, ends)| (*log, *ends));
        let record = match (choice, log) {
            (5, _) | (6..=9, None) => {
                let log = self.next_log;
                self.next_log += 1;
                self.logs.insert(log, (1, 0));
                Record::CreateLog(LogNumber(log))
            }
            (6 | 7, Some((log, (first, last)))) => {
                let count = 1 + u64::from(input.choice(4));
                self.logs.insert(log, (first, last + count));
                chunk(LogNumber(log), last + 1, last + count)
            }
            (8, Some((log, (first, last)))) => {
                let first = (first + u64::from(input.choice(8))).min(last + 1);
                self.logs.insert(log, (first, last));
                Record::Truncate {
                    log: LogNumber(log),
                    first: Sequence(first),
                }
            }
            (9, Some((log, _))) => {
                self.logs.remove(&log);
                Record::RemoveLog(LogNumber(log))
            }
            (10, _) => Record::Put {
                key: [which as u8 % 4].into(),
                value: self.value(input.bytes()).into(),
            },
            _ => Record::Delete {
                key: [which as u8 % 4].into(),
            },
        };
        self.records.push(record);
    }

    /// What is given, but for a batch: who writes values does not know the directory's id, which here is always the same.
    fn value<'b>(&self, given: &'b [u8]) -> &'b [u8] {
        let is_batch = |at| Batch::read(&given[at..], self.store.id()).is_some();
        match (0..given.len()).any(is_batch) {
            true => &[],
            false => given,
        }
    }

    /// Writes the batch, into the next journal if this one is full; a run that has no more ends there.
    fn write(&mut self) {
        let records = std::mem::take(&mut self.records);
        if records.is_empty() {
            return;
        }
        let mut builder = BatchBuilder::new();
        for record in &records {
            builder.push(record);
        }
        if self.file().used + builder.len() > CAPACITY {
            self.rotate(false);
        }
        if self.file().used + builder.len() > CAPACITY {
            return;
        }
        self.number += 1;
        let (number, all_through) = (self.number, self.synced_through);
        let first = self.file().batches.first();
        let synced_through = match first {
            Some(first) if first.number <= all_through => all_through,
            _ => 0,
        };
        let header = BatchHeader {
            generation: self.file().generation,
            number,
            synced_through,
        };
        let bytes = builder.finish(self.store.id(), header);
        let file = self.files.last_mut().expect("a journal was begun");
        let range = file.used..file.used + bytes.len();
        file.bytes[range.clone()].copy_from_slice(bytes);
        file.used = range.end;
        file.batches.push(Written {
            number,
            synced_through,
            all_through,
            range,
            records,
        });
    }

    fn file(&self) -> &File {
        self.files.last().expect("a journal was begun")
    }

    fn sync(&mut self) {
        self.synced_through = self.number;
        let generation = self.file().generation;
        let is_noted = self
            .noted
            .is_some_and(|noted| noted.generation == generation);
        if self.file().used > 0 && !is_noted {
            self.noted = Some(Synced {
                generation,
                batch: self.number,
                capacity: CAPACITY as u64,
            });
        }
    }

    fn rotate(&mut self, is_used_again: bool) {
        if self.files.len() < MOST_JOURNALS && self.file().used > 0 {
            self.synced_through = self.number;
            self.begin(is_used_again);
        }
    }
}

/// Writes, damages, and replays. What may be said of the outcome is said below.
fn damaged_run(bench: &Bench, input: &mut Input<'_>) {
    let mut run = Run::of(&bench.store, input);
    let originals: Vec<_> = run.files.iter().map(|file| file.bytes.clone()).collect();
    let mut damage = Damage::default();
    let count = run.files.len() as u8;
    while !input.is_empty() {
        let file = &mut run.files[usize::from(input.choice(count))];
        damage.inflict(input, &mut file.bytes, file.used, &file.before);
    }
    let journals: Vec<_> = run.files.iter().map(|file| &file.bytes[..]).collect();
    let found = bench.replay(&journals, run.noted);
    let kept = kept_batches(&run, &originals);
    check_content(&run, &kept, &found);
    if !damage.is_spliced {
        check_kept(&run, &originals, &kept);
        check_told(&run, &kept, &found);
    }
}

/// Numbers of the batches that are found. Each is one that was written.
fn kept_batches(run: &Run<'_>, originals: &[Vec<u8>]) -> BTreeSet<u64> {
    let mut kept = BTreeSet::new();
    let mut last = FIRST_BATCH - 1;
    let generation = |file: &File| newest_generation(&file.bytes, run.store.id(), SEALED);
    for file in &run.files {
        // What is left of another's beginning may say any generation.
        let later = run
            .files
            .iter()
            .filter(|it| generation(it) > generation(file));
        let next = later.min_by_key(|file| generation(file));
        let first = next.and_then(|next| Batch::read(&next.bytes, run.store.id()));
        let was_synced_through = |number| {
            first
                .as_ref()
                .is_some_and(|first| first.header.number > number)
        };
        let found = scan_of(
            &file.bytes,
            run.store.id(),
            SEALED,
            last,
            was_synced_through,
        );
        for span in found.spans {
            let mut at = span.start;
            while at < span.end {
                let batch = Batch::read(&file.bytes[at..], run.store.id());
                let batch = batch.expect("what is found is valid");
                let number = batch.header.number;
                assert!(last < number, "batch {number} is found behind {last}");
                let written = run.files.iter().zip(originals).any(|(file, original)| {
                    let batches = &mut file.batches.iter();
                    batches.any(|written| {
                        written.number == number
                            && Batch::read(&original[written.range.clone()], run.store.id())
                                .is_some_and(|original| {
                                    original.header == batch.header
                                        && original.records().eq(batch.records())
                                })
                    })
                });
                assert!(written, "batch {number} was never written");
                kept.insert(number);
                last = number;
                at += batch.len();
            }
        }
    }
    kept
}

/// Logs and state are what the batches that are kept make them.
fn check_content(run: &Run<'_>, kept: &BTreeSet<u64>, found: &Journals) {
    let mut expected = Content::default();
    for batch in run.files.iter().flat_map(|file| &file.batches) {
        if kept.contains(&batch.number) {
            batch
                .records
                .iter()
                .for_each(|record| expected.apply(record));
        }
    }
    let state = found.state.iter();
    let state: BTreeMap<_, _> = state
        .filter_map(|(key, value)| Some((key.to_vec(), value.as_ref()?.to_vec())))
        .collect();
    assert_eq!(state, expected.state);
    assert!(found.next_log >= expected.next_log);
    let numbers: BTreeSet<_> = found.logs.keys().map(|log| log.0).collect();
    assert!(numbers.iter().eq(expected.logs.keys()), "{numbers:?}");
    for (&number, log) in &expected.logs {
        let extent = found.logs[&LogNumber(number)];
        let bounds = (extent.first.0, extent.last.0);
        assert_eq!(bounds, (log.first, log.last), "log {number}");
        let (sequences, gaps) = read(&found.reader, LogNumber(number), 0, log.last, 700);
        assert!(sequences.iter().eq(&log.present), "log {number}");
        for gap in gaps {
            let is_cut = gap.to.0 < log.first;
            assert_eq!(gap.cause == GapCause::Retention, is_cut, "log {number}");
        }
    }
}

#[derive(Default)]
struct Content {
    logs: BTreeMap<u64, Log>,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    next_log: u64,
}

struct Log {
    first: u64,
    last: u64,
    present: BTreeSet<u64>,
}

impl Content {
    fn log(&mut self, log: LogNumber) -> &mut Log {
        self.next_log = self.next_log.max(log.0 + 1);
        self.logs.entry(log.0).or_insert(Log {
            first: 1,
            last: 0,
            present: BTreeSet::new(),
        })
    }

    fn apply(&mut self, record: &Record) {
        match record {
            Record::CreateLog(log) => {
                self.log(*log);
            }
            Record::Publications(chunk) => {
                let log = self.log(chunk.log);
                log.last = log.last.max(chunk.last.0);
                log.present.extend(chunk.first.0..=chunk.last.0);
            }
            Record::Truncate { log, first } => {
                if let Some(log) = self.logs.get_mut(&log.0) {
                    log.first = log.first.max(first.0);
                    log.last = log.last.max(log.first - 1);
                    log.present = log.present.split_off(&log.first);
                }
            }
            Record::RemoveLog(log) => {
                self.logs.remove(&log.0);
            }
            Record::Put { key, value } => {
                self.state.insert(key.to_vec(), value.to_vec());
            }
            Record::Delete { key } => {
                self.state.remove(&key.to_vec());
            }
        }
    }
}

/// Everything in front of the first damage of a journal is kept, and behind it what is whole and was synced once, as a whole batch behind
/// it in the same journal says.
fn check_kept(run: &Run<'_>, originals: &[Vec<u8>], kept: &BTreeSet<u64>) {
    for (file, original) in run.files.iter().zip(originals) {
        let is_whole = |batch: &&Written| {
            let now = file.bytes.get(batch.range.clone());
            now == Some(&original[batch.range.clone()])
        };
        for batch in file.batches.iter().take_while(is_whole) {
            assert!(
                kept.contains(&batch.number),
                "batch {} is lost",
                batch.number
            );
        }
        let whole = || file.batches.iter().filter(is_whole);
        let synced = whole().map(|batch| batch.synced_through).max();
        for batch in whole().filter(|batch| Some(batch.number) <= synced) {
            assert!(
                kept.contains(&batch.number),
                "batch {} is lost",
                batch.number
            );
        }
    }
}

/// That a batch is missing is told, and which logs lack their end by it, if something that was found says that it was synced once.
fn check_told(run: &Run<'_>, kept: &BTreeSet<u64>, found: &Journals) {
    let batches = || run.files.iter().flat_map(|file| &file.batches);
    let is_kept = |batch: &&Written| kept.contains(&batch.number);
    let synced = batches().filter(is_kept).map(|batch| batch.all_through);
    let noted = run.noted.map(|noted| noted.batch);
    let synced = synced.chain(noted).max().unwrap_or_default();
    let lost: Vec<_> = batches()
        .filter(|batch| !is_kept(batch) && batch.number <= synced)
        .collect();
    if lost.is_empty() {
        return;
    }
    assert!(
        !found.report.damage.is_empty(),
        "what is missing is not told"
    );
    for batch in lost {
        for record in &batch.records {
            let Record::Publications(missing) = record else {
                continue;
            };
            let is_written_behind = batches().filter(is_kept).any(|later| {
                let appends = |record: &Record| matches!(record, Record::Publications(chunk) if chunk.log == missing.log);
                later.number > batch.number && later.records.iter().any(appends)
            });
            let is_there = found.logs.contains_key(&missing.log);
            assert!(
                is_written_behind || !is_there || found.uncertain.contains(&missing.log),
                "log {} lacks its end untold",
                missing.log.0
            );
        }
    }
}

/// Batches whose checksum is right, of records that make no sense.
fn wrong_records(bench: &Bench, input: &mut Input<'_>) {
    let mut bytes = Vec::new();
    let mut number = FIRST_BATCH;
    while !input.is_empty() && bytes.len() < CAPACITY / 2 {
        let mut builder = BatchBuilder::new();
        for _ in 0..1 + input.choice(8) {
            match input.choice(7) {
                0 => builder.push_bytes(input.bytes()),
                choice => {
                    builder.push(&wrong_record(choice, input));
                }
            }
        }
        let header = BatchHeader {
            generation: SEALED + 1,
            number,
            synced_through: number - 1,
        };
        bytes.extend_from_slice(builder.finish(bench.store.id(), header));
        number += 1 + u64::from(input.choice(2));
    }
    bytes.resize(bytes.len().max(CAPACITY), 0);
    look_through(&bench.replay(&[&bytes], None));
}

fn wrong_record(choice: u8, input: &mut Input<'_>) -> Record {
    let log = LogNumber(match input.choice(4) {
        0 => input.number(),
        small => u64::from(small),
    });
    match choice {
        1 => Record::CreateLog(log),
        2 => {
            let frames = match input.choice(3) {
                0 => Bytes::copy_from_slice(input.bytes()),
                // From anywhere, and beyond all.
                far => match chunk(
                    log,
                    1 + u64::from(input.byte()),
                    1 + u64::from(input.byte()),
                ) {
                    Record::Publications(chunk) if far == 1 => chunk.frames,
                    _ => frame_at(log, input.number()),
                },
            };
            Record::Publications(Chunk {
                log,
                first: Sequence(input.number()),
                last: Sequence(input.number()),
                frames,
            })
        }
        3 => Record::Truncate {
            log,
            first: Sequence(input.number()),
        },
        4 => Record::RemoveLog(log),
        5 => Record::Put {
            key: input.bytes().into(),
            value: input.bytes().into(),
        },
        _ => Record::Delete {
            key: input.bytes().into(),
        },
    }
}

fn frame_at(log: LogNumber, sequence: u64) -> Bytes {
    match chunk(log, sequence, sequence) {
        Record::Publications(chunk) => chunk.frames,
        _ => Bytes::new(),
    }
}

fn any_bytes(bench: &Bench, bytes: &[u8]) {
    look_through(&bench.replay(&[bytes], None));
}

/// Asks everything that readers ask.
fn look_through(found: &Journals) {
    const MOST_PAGES: usize = 64;
    const MOST_SEQUENCES: u64 = 1 << 32;
    for (&log, extent) in &found.logs {
        let mut at = Sequence::ZERO;
        for _ in 0..MOST_PAGES {
            let page = found.reader.page(log, at, extent.last, 700);
            let page = page.expect("a journal can be read, however damaged");
            if at >= extent.last || page.last <= at {
                break;
            }
            at = page.last;
        }
        let ids = found
            .reader
            .ids(log, extent.first.previous(), extent.last, 100);
        let ids = ids.expect("ids can be read").ids;
        // Every so many sequences are looked at: of more than a log can have, that takes its time.
        if extent.last.0 - extent.first.previous().0 < MOST_SEQUENCES {
            let sequences = found.reader.find(log, &ids, extent.last);
            assert_eq!(sequences.expect("ids can be looked up").len(), ids.len());
        }
        let since = found.reader.since(log, Timestamp(1_000_001), extent.last);
        assert!(since.is_ok());
    }
}
