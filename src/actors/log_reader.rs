//! Reading the data log, on threads of its own: a read may wait for the disk, and nobody else waits for it.

use std::fmt;

use actix::{Actor, Handler, Message, SyncContext};

use crate::{
    datalog::{LogReader, ReadError},
    domain::{
        Cut, Ids, KnownIds, LogNumber, Page, Read, ReadLog, answer_read,
        broker::{QueueLoad, RetentionCheck, RetentionCut},
        queue::{LOAD_SIZE, Range},
    },
    protocol::{
        ErrorCode, PublicationId, Retention, Sequence, ServerError, ServerResponse, Timestamp,
    },
};

/// One thread of the pool.
pub(crate) struct LogFetcher {
    reader: LogReader,
}

impl LogFetcher {
    /// A thread that reads with `reader`.
    pub(crate) fn new(reader: LogReader) -> Self {
        Self { reader }
    }
}

impl Actor for LogFetcher {
    type Context = SyncContext<Self>;
}

/// A client's read, answered ready to be sent.
#[derive(Message)]
#[rtype(result = "ServerResponse")]
pub(crate) struct DataLogFetch(pub(crate) Read);

impl actix::dev::MessageResponse<LogFetcher, DataLogFetch> for ServerResponse {
    fn handle(self, _: &mut SyncContext<LogFetcher>, tx: Option<actix::dev::OneshotSender<Self>>) {
        if let Some(tx) = tx {
            // The connection that asked may be gone.
            let _ = tx.send(self);
        }
    }
}

impl Handler<DataLogFetch> for LogFetcher {
    type Result = ServerResponse;

    fn handle(
        &mut self,
        DataLogFetch(read): DataLogFetch,
        _: &mut Self::Context,
    ) -> ServerResponse {
        self.answer(&read)
    }
}

/// A page for a subscriber.
#[derive(Message)]
#[rtype(result = "Result<Page, ReadError>")]
pub(crate) struct DataLogPage {
    pub(crate) log: LogNumber,
    pub(crate) after: Sequence,
    pub(crate) through: Sequence,
    pub(crate) max_bytes: usize,
}

impl Handler<DataLogPage> for LogFetcher {
    type Result = Result<Page, ReadError>;

    fn handle(&mut self, message: DataLogPage, _: &mut Self::Context) -> Self::Result {
        let DataLogPage {
            log,
            after,
            through,
            max_bytes,
        } = message;
        self.reader.page(log, after, through, max_bytes)
    }
}

/// The first publication of `time` or later; one behind `through` if there is none.
#[derive(Message)]
#[rtype(result = "Result<Sequence, ReadError>")]
pub(crate) struct DataLogSince {
    pub(crate) log: LogNumber,
    pub(crate) time: Timestamp,
    pub(crate) through: Sequence,
}

impl Handler<DataLogSince> for LogFetcher {
    type Result = Result<Sequence, ReadError>;

    fn handle(
        &mut self,
        DataLogSince { log, time, through }: DataLogSince,
        _: &mut Self::Context,
    ) -> Self::Result {
        self.reader.since(log, time, through)
    }
}

/// A part of a Queue's log. Answered with what was read of the ranges, in order, as far as it went; `None` if it can't be read.
#[derive(Message)]
#[rtype(result = "Option<Vec<(Range, Page)>>")]
pub(crate) struct DataLogLoad(pub(crate) QueueLoad);

impl Handler<DataLogLoad> for LogFetcher {
    type Result = Option<Vec<(Range, Page)>>;

    fn handle(&mut self, DataLogLoad(load): DataLogLoad, _: &mut Self::Context) -> Self::Result {
        self.load(&load)
    }
}

/// What it does, whoever asks.
impl LogFetcher {
    /// See [`DataLogFetch`].
    pub(crate) fn answer(&self, read: &Read) -> ServerResponse {
        let log = DiskLog {
            reader: &self.reader,
            log: read.log,
        };
        answer_read(&log, read).unwrap_or_else(|error| {
            let code = match error {
                ReadError::Gone => ErrorCode::NotFound,
                ReadError::Io(_) | ReadError::Catalogue(_) => ErrorCode::LogUnavailable,
            };
            ServerError::new(code, error.to_string())
                .for_subscription(read.subscription)
                .into()
        })
    }

    /// See [`DataLogLoad`].
    pub(crate) fn load(&self, load: &QueueLoad) -> Option<Vec<(Range, Page)>> {
        match self.pages(load) {
            Ok(pages) => Some(pages),
            // It was deleted meanwhile.
            Err(ReadError::Gone) => None,
            Err(error) => {
                log::warn!("the Queue {} has to wait: {error}", load.subscription);
                None
            }
        }
    }

    fn pages(&self, load: &QueueLoad) -> Result<Vec<(Range, Page)>, ReadError> {
        let (mut pages, mut room) = (Vec::new(), LOAD_SIZE);
        for &(first, last) in &load.ranges {
            let mut reached = first.previous();
            while reached < last && room > 0 {
                let page = self.reader.page(load.log, reached, last, room)?;
                let gap = page.gap.map_or(Sequence::ZERO, |gap| gap.to);
                let position = page.last.max(gap);
                room = room.saturating_sub(page.frames.len());
                pages.push(((reached.next(), last), page));
                if position <= reached {
                    break;
                }
                reached = position;
            }
        }
        Ok(pages)
    }
}

/// Limits that keep nothing.
const EVERYTHING: Retention = Retention {
    max_publications: Some(0),
    max_bytes: None,
    max_age: None,
};

/// Where logs that are over their limits are to be cut.
#[derive(Message)]
#[rtype(result = "Vec<RetentionCut>")]
pub(crate) struct DataLogCut {
    pub(crate) checks: Vec<RetentionCheck>,
    pub(crate) now: Timestamp,
}

impl Handler<DataLogCut> for LogFetcher {
    type Result = Vec<RetentionCut>;

    fn handle(
        &mut self,
        DataLogCut { checks, now }: DataLogCut,
        _: &mut Self::Context,
    ) -> Self::Result {
        self.cuts(checks, now)
    }
}

impl LogFetcher {
    /// See [`DataLogCut`].
    pub(crate) fn cuts(&self, checks: Vec<RetentionCheck>, now: Timestamp) -> Vec<RetentionCut> {
        let cut = |check: RetentionCheck| {
            let RetentionCheck {
                subscription,
                log,
                last,
                through,
                retention,
            } = check;
            let cut = match self.reader.cut(log, last, retention, now) {
                // What is behind is not settled: everything up to there is taken.
                Ok(Some(cut)) if cut.first > through.next() => {
                    self.reader.cut(log, through, EVERYTHING, now)
                }
                cut => cut,
            };
            match cut {
                Ok(cut) => cut.map(|cut: Cut| RetentionCut {
                    subscription,
                    log,
                    cut,
                }),
                // It was deleted meanwhile.
                Err(ReadError::Gone) => None,
                Err(error) => {
                    log::error!("retention of subscription {subscription} has to wait: {error}");
                    None
                }
            }
        };
        checks.into_iter().filter_map(cut).collect()
    }
}

/// One log of the data log.
struct DiskLog<'a> {
    reader: &'a LogReader,
    log: LogNumber,
}

impl ReadLog for DiskLog<'_> {
    type Error = ReadError;

    fn page(
        &self,
        after: Sequence,
        through: Sequence,
        max_bytes: usize,
    ) -> Result<Page, ReadError> {
        self.reader.page(self.log, after, through, max_bytes)
    }

    fn ids(&self, after: Sequence, through: Sequence, limit: usize) -> Result<Ids, ReadError> {
        self.reader.ids(self.log, after, through, limit)
    }

    fn find(
        &self,
        ids: &[PublicationId],
        through: Sequence,
    ) -> Result<Vec<Option<Sequence>>, ReadError> {
        self.reader.find(self.log, ids, through)
    }
}

/// The ids that the data log holds, for duplicate checks.
///
/// PubSubService asks it in its own thread: the answer is in memory for what is not sealed yet, and otherwise a look into the catalogue,
/// about a microsecond where its page is cached. Asking elsewhere and waiting would let a later submission pass.
pub(crate) struct CommittedIds(pub(crate) LogReader);

impl KnownIds for CommittedIds {
    fn find(
        &self,
        log: LogNumber,
        id: PublicationId,
        through: Sequence,
    ) -> Result<Option<Sequence>, String> {
        match self.0.find(log, &[id], through) {
            Ok(found) => Ok(found.into_iter().next().flatten()),
            // Nothing of it is committed yet.
            Err(ReadError::Gone) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn bytes_through(&self, log: LogNumber, last: Sequence) -> Result<u64, String> {
        match self.0.cut(log, last, EVERYTHING, Timestamp(0)) {
            Ok(cut) => Ok(cut.map_or(0, |cut| cut.removed_bytes)),
            Err(ReadError::Gone) => Ok(0),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl fmt::Debug for CommittedIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommittedIds")
    }
}
