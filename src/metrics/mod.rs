//! What the server tells about itself: numbers at `/metrics`, and whether it is well ([`Health`]).
//!
//! Owns the counters, whom a scrape asks, and the text that it answers. Does not own who may read it (`http`), nor what anything means:
//! `docs/operations.md` has a table of every metric, and a test that compares it with what is told.
//!
//! * **Counting costs nothing that is noticed.** A [`Count`] is a field of the one thread that adds to it, readable by others; what is
//!   counted per publication or delivery is added up in a register and added to it once for each chunk. A commit reads the clock twice.
//! * **A scrape blocks nobody.** Sums over subscriptions (bytes of logs, what waits in Queues) are kept by the
//!   [`Broker`](crate::domain::Broker) while things change, since there may be a million of them. What changes too often for that is walked when
//!   it is asked for: connections, by each Hub, some ten nanoseconds for each. The actors are asked by messages, with a time-out; for one that
//!   does not answer, its last figures are told again, and `infotainer_actor_silence_seconds` says how old they are.
//! * **Labels are bounded**: every value of every label stands in [`labels`].
//!
//! To count something more: add a field to [`WorkerCounts`] (what happens on an HTTP worker), [`LogCounts`] (on DataLogger) or [`Metrics`]
//! (a [`SharedCount`], from anywhere), write it out in `page`, and add it to the table. Who refuses credentials counts that in
//! [`Authenticator::failures`](crate::access::Authenticator::failures); a handshake that is refused for that is counted by `http` besides.

mod count;
mod health;
pub(crate) mod labels;
mod page;
mod process;
mod scrape;
mod text;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;

pub(crate) use count::{By, Count, Histogram, SharedCount};
pub(crate) use health::{Health, Pulse, Reason, Wellbeing, watch};
use labels::{AuthFailure, Closed, CommandName, Outcome, Refused};
pub(crate) use scrape::{HubFigures, TellBroker, TellHub};
pub(crate) use text::{CLASSIC, OPEN_METRICS, to_classic};

use crate::{
    connection::Gate,
    datalog::{Journals, RecoveryReport, Stored},
    protocol::{ErrorCode, ServerResponse},
};
use scrape::Sources;

/// Bounds of times, in microseconds: from a fast disk's sync to where somebody has to look.
const TIMES: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// Bounds of times of work in the background, in microseconds.
const LONG_TIMES: &[u64] = &[
    10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    30_000_000, 60_000_000,
];

/// Bounds of how many publications a batch has.
const PUBLICATIONS: &[u64] = &[0, 1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536];

/// Bounds of the sizes of batches, in bytes.
const SIZES: &[u64] = &[
    256,
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    16 << 20,
];

/// How often somebody was not let in, by the reason.
pub(crate) type AuthFailures = By<AuthFailure, SharedCount>;

/// What the server tells about itself.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Whether it is well.
    pub(crate) health: Health,
    workers: Mutex<Vec<Arc<WorkerCounts>>>,
    /// What DataLogger counts.
    pub(crate) log: LogCounts,
    /// What PubSubService published past the log.
    pub(crate) direct: Published,
    /// Who was not let in, and why.
    auth_failures: Arc<AuthFailures>,
    /// What the data log's background thread counts.
    pub(crate) background: BackgroundCounts,
    recovery: OnceLock<RecoveryReport>,
    journals: OnceLock<Journals>,
    gate: OnceLock<Arc<Gate>>,
    sources: Mutex<Sources>,
    data_dir: PathBuf,
    max_connections: u64,
}

/// What was published.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Publications.
    pub(crate) publications: Count,
    /// Bytes of their frames.
    pub(crate) bytes: Count,
}

/// What DataLogger counts.
#[derive(Debug)]
pub(crate) struct LogCounts {
    /// What was committed.
    pub(crate) published: Published,
    /// From the newest command of a batch to its commit.
    pub(crate) commit: Histogram,
    /// Syncs of the journal.
    pub(crate) fsync: Histogram,
    /// Publications of each batch.
    pub(crate) batch_publications: Histogram,
    /// Bytes of each batch.
    pub(crate) batch_bytes: Histogram,
}

/// What the data log's background thread counts. Damage is found by readers, too.
#[derive(Debug)]
pub(crate) struct BackgroundCounts {
    /// How long sealing took, of each journal.
    pub(crate) seal: Histogram,
    /// Merges of segments.
    pub(crate) merges: Count,
    /// Parts of files that could not be read.
    pub(crate) damage: SharedCount,
    /// What lies in files besides the journals.
    pub(crate) stored: Mutex<Stored>,
}

/// What happens on one HTTP worker, whose thread is the only one that counts here.
#[derive(Debug, Default)]
pub(crate) struct WorkerCounts {
    /// Connections that were taken over from HTTP.
    pub(crate) opened: Count,
    /// Connections that ended.
    pub(crate) closed: By<Closed, Count>,
    /// Handshakes that were refused.
    pub(crate) refused: By<Refused, Count>,
    commands: By<CommandName, By<Outcome, Count>>,
    errors: By<ErrorCode, Count>,
    /// Publications that were put into outboxes.
    pub(crate) deliveries: Count,
    /// Times that a subscriber became one of those who are behind.
    pub(crate) fell_behind: Count,
    /// Bytes that were read from sockets.
    pub(crate) received: Count,
    /// Bytes that sockets took.
    pub(crate) sent: Count,
}

impl Metrics {
    /// Nothing has happened.
    pub(crate) fn new(
        data_dir: PathBuf,
        max_connections: usize,
        auth_failures: Arc<AuthFailures>,
    ) -> Self {
        Self {
            health: Health::new(),
            workers: Mutex::default(),
            log: LogCounts {
                published: Published::default(),
                commit: Histogram::new(TIMES),
                fsync: Histogram::new(TIMES),
                batch_publications: Histogram::new(PUBLICATIONS),
                batch_bytes: Histogram::new(SIZES),
            },
            direct: Published::default(),
            auth_failures,
            background: BackgroundCounts {
                seal: Histogram::new(LONG_TIMES),
                merges: Count::default(),
                damage: SharedCount::default(),
                stored: Mutex::default(),
            },
            recovery: OnceLock::new(),
            journals: OnceLock::new(),
            gate: OnceLock::new(),
            sources: Mutex::default(),
            data_dir,
            max_connections: max_connections as u64,
        }
    }

    /// The counters of one more worker.
    pub(crate) fn worker(&self) -> Arc<WorkerCounts> {
        let counts = Arc::new(WorkerCounts::default());
        self.workers.lock().push(Arc::clone(&counts));
        counts
    }

    /// The data log is open.
    pub(crate) fn opened(&self, report: RecoveryReport, journals: Journals) {
        // Once for each server.
        let _ = self.recovery.set(report);
        let _ = self.journals.set(journals);
    }

    /// Connections are accepted through `gate`.
    pub(crate) fn accepts(&self, gate: Arc<Gate>) {
        let _ = self.gate.set(gate);
    }
}

impl WorkerCounts {
    /// A command of this name was answered.
    #[inline]
    pub(crate) fn answered(&self, command: Option<&str>, response: &ServerResponse) {
        let (command, outcome) = match response {
            ServerResponse::Submitted(_) => (CommandName::SUBMIT_PUBLICATION, Outcome::Ok),
            ServerResponse::Error(error) => {
                self.errors.of(error.code).add(1);
                (CommandName::of(command), Outcome::Error)
            }
            _ => (CommandName::of(command), Outcome::Ok),
        };
        self.commands.of(command).of(outcome).add(1);
    }

    /// Nobody is there any more to be answered.
    pub(crate) fn dropped(&self, command: Option<&str>) {
        let command = CommandName::of(command);
        self.commands.of(command).of(Outcome::Dropped).add(1);
    }
}

impl Published {
    /// So many publications of so many bytes.
    pub(crate) fn add(&self, publications: u64, bytes: u64) {
        self.publications.add(publications);
        self.bytes.add(bytes);
    }
}
