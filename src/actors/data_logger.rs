//! The actor that writes the data log, on a thread of its own: the only place where a write or a sync may block.
//!
//! Owns the [`DataLog`]. Gets one batch at a time from PubSubService, which fills the next one meanwhile: so batches grow with the load by
//! themselves, and no timer is needed.
//!
//! ```text
//!  DataLogPut ──write──> effects that wait for the write ──sync──> effects that wait for the sync ──> Committed
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};

use super::{
    hubs::{Hubs, RegisterHub},
    pubsub_service::{CommitFailed, Committed, PubSubService},
};
use crate::{
    datalog::{DataLog, WriteError},
    domain::SealedBatch,
    metrics::{Metrics, Pulse},
};

/// Written publications are synced within a second.
const SYNC_DELAY: Duration = Duration::from_millis(500);

/// The actor.
pub(crate) struct DataLogger {
    /// `None` once it is closed.
    log: Option<DataLog>,
    hubs: Hubs,
    pubsub: Option<Addr<PubSubService>>,
    sync_is_due: bool,
    /// Something is written and not synced.
    is_unsynced: bool,
    metrics: Arc<Metrics>,
}

impl DataLogger {
    /// An actor that writes `log`.
    pub(crate) fn new(log: DataLog, metrics: Arc<Metrics>) -> Self {
        Self {
            log: Some(log),
            hubs: Hubs::default(),
            pubsub: None,
            sync_is_due: false,
            is_unsynced: false,
            metrics,
        }
    }

    /// Commits a batch whose newest command was applied at `since`.
    fn commit(&mut self, mut batch: SealedBatch, since: Instant, ctx: &mut Context<Self>) {
        let Some(log) = &mut self.log else { return };
        let is_written = !batch.records.is_empty();
        if is_written && let Err(error) = log.write(&batch.records) {
            return self.fail(Some(batch), false, &error);
        }
        self.hubs.release(std::mem::take(&mut batch.at_write));
        self.is_unsynced |= is_written;
        let mut committed_at = None;
        if batch.needs_sync {
            match Self::sync(log, &self.metrics) {
                Ok(at) => committed_at = Some(at),
                Err(error) => return self.fail(Some(batch), true, &error),
            }
            self.is_unsynced = false;
        } else if is_written && !self.sync_is_due {
            self.sync_is_due = true;
            ctx.run_later(SYNC_DELAY, Self::sync_written);
        }
        if is_written {
            let committed_at = committed_at.unwrap_or_else(Instant::now);
            self.count(&batch, committed_at.saturating_duration_since(since));
        }
        let Some(log) = &self.log else { return };
        let space = log.space();
        self.hubs.release(std::mem::take(&mut batch.at_sync));
        let SealedBatch { number, size, .. } = batch;
        self.tell(Committed {
            number,
            size,
            space,
        });
    }

    fn sync_written(&mut self, _: &mut Context<Self>) {
        self.sync_is_due = false;
        let Some(log) = self.log.as_mut().filter(|_| self.is_unsynced) else {
            return;
        };
        match Self::sync(log, &self.metrics) {
            Ok(_) => self.is_unsynced = false,
            Err(error) => self.fail(None, true, &error),
        }
    }

    /// Makes what is written durable. Returns when it was.
    fn sync(log: &mut DataLog, metrics: &Metrics) -> Result<Instant, WriteError> {
        let began = Instant::now();
        log.sync()?;
        let ended = Instant::now();
        metrics.log.fsync.add_time(ended - began);
        Ok(ended)
    }

    fn count(&self, batch: &SealedBatch, waited: Duration) {
        let counts = &self.metrics.log;
        let (publications, bytes) = (batch.publications, batch.publication_bytes);
        counts.published.add(publications, bytes);
        counts.commit.add_time(waited);
        counts.batch_publications.add(publications);
        counts.batch_bytes.add(batch.size);
    }

    fn fail(&mut self, batch: Option<SealedBatch>, was_written: bool, error: &WriteError) {
        log::error!(
            "{error}: nothing is accepted any more until the server is started again; reading goes on"
        );
        self.tell(CommitFailed { batch, was_written });
    }

    fn tell<M>(&self, message: M)
    where
        M: Message + Send + 'static,
        M::Result: Send,
        PubSubService: Handler<M>,
    {
        // One batch is under way at a time, so there is at most one of these in the mailbox.
        if let Some(pubsub) = &self.pubsub {
            pubsub.do_send(message);
        }
    }
}

impl Actor for DataLogger {
    type Context = Context<Self>;
}

/// The actor that batches come from. Sent by itself, before the first of them.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Attach(pub(crate) Addr<PubSubService>);

impl Handler<Attach> for DataLogger {
    type Result = ();

    fn handle(&mut self, Attach(pubsub): Attach, _: &mut Self::Context) {
        self.pubsub = Some(pubsub);
    }
}

impl Handler<RegisterHub> for DataLogger {
    type Result = ();

    fn handle(&mut self, message: RegisterHub, _: &mut Self::Context) {
        self.hubs.register(message);
    }
}

/// A batch to be committed and released. The next one is sent when this one was answered by `Committed` or `CommitFailed`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DataLogPut {
    pub(crate) batch: SealedBatch,
    /// When the newest command in it was applied.
    pub(crate) since: Instant,
}

impl Handler<DataLogPut> for DataLogger {
    type Result = ();

    fn handle(&mut self, DataLogPut { batch, since }: DataLogPut, ctx: &mut Self::Context) {
        self.commit(batch, since, ctx);
    }
}

impl Handler<Pulse> for DataLogger {
    type Result = ();

    fn handle(&mut self, _: Pulse, _: &mut Self::Context) {}
}

/// The orderly end: what is written is synced, and the data directory is marked as closed.
#[derive(Message)]
#[rtype(result = "Result<(), WriteError>")]
pub(crate) struct CloseLog;

impl Handler<CloseLog> for DataLogger {
    type Result = Result<(), WriteError>;

    fn handle(&mut self, _: CloseLog, _: &mut Self::Context) -> Self::Result {
        self.log.take().map_or(Ok(()), DataLog::close)
    }
}
