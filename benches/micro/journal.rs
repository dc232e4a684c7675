//! Batches are appended to the journal: what the data log's thread does for them, but for syncing, and with it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use infotainer::{
    datalog::{DataLog, Options, Record},
    domain::{Chunk, LogNumber},
    protocol::Sequence,
};

use crate::{Area, allocations, frames_of, table::Table};

/// The log is begun anew when it has grown so much, so that no sealing holds writes up, and the disk is not filled.
const GROWN: u64 = 48 << 20;

/// A log that a batch of as many publications is appended to, again and again.
struct Appending {
    log: DataLog,
    /// Behind the log, so that it goes after it.
    _dir: tempfile::TempDir,
    publications: u64,
    last: u64,
    grown: u64,
}

impl Appending {
    fn begin(publications: u64) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        Self {
            log: open(dir.path()),
            _dir: dir,
            publications,
            last: 0,
            grown: 0,
        }
    }

    /// The next batch. Not measured: that it is encoded, and that a log which has grown is begun anew.
    fn next(&mut self) -> [Record; 1] {
        if self.grown > GROWN {
            *self = Self::begin(self.publications);
        }
        let first = self.last + 1;
        self.last += self.publications;
        let record = Record::Publications(Chunk {
            log: LogNumber(1),
            first: Sequence(first),
            last: Sequence(self.last),
            frames: frames_of(first, self.last).into(),
        });
        self.grown += record.encoded_len();
        [record]
    }

    fn write(&mut self, batch: &[Record], syncs: bool) {
        self.log.write(batch).expect("a batch is written");
        if syncs {
            self.log.sync().expect("the journal is synced");
        }
    }
}

fn open(dir: &Path) -> DataLog {
    let (mut log, _) = DataLog::open(Options::new(dir)).expect("an empty data directory opens");
    log.write(&[Record::CreateLog(LogNumber(1))])
        .expect("a batch is written");
    log
}

fn append(area: &mut Area<'_>, name: &str, publications: u64, syncs: bool) {
    let bytes = frames_of(1, publications).len() as u64;
    area.run(name, Throughput::Bytes(bytes), |bencher, allocations| {
        let mut appending = Appending::begin(publications);
        let batch = appending.next();
        appending.write(&batch, syncs);
        let batch = appending.next();
        allocations
            .get_or_insert_with(|| allocations::during(1, || appending.write(&batch, syncs)));
        bencher.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                let batch = appending.next();
                let began = Instant::now();
                appending.write(&batch, syncs);
                took += began.elapsed();
            }
            took
        });
    });
}

pub(crate) fn benchmarks(criterion: &mut Criterion, table: &mut Table) {
    let mut area = Area::new("journal", criterion, table);
    append(&mut area, "append 1 publication", 1, false);
    append(&mut area, "append 256 publications", 256, false);
    append(&mut area, "append and sync 1 publication", 1, true);
    append(&mut area, "append and sync 256 publications", 256, true);
}
