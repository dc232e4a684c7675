//! The actors that a worker sends to.

use actix::{Actor, Addr, Context, Handler, Recipient, dev::ToEnvelope};

use super::{
    log_reader::{DataLogFetch, DataLogPage, DataLogSince},
    messages::{Connect, Cursors, Disconnected, Forward, MayConnect, MemoryPage, QueueWritten},
};

/// The actors that a worker sends to.
#[derive(Clone)]
pub(crate) struct Neighbours {
    pub(super) may_connect: Recipient<MayConnect>,
    pub(super) connect: Recipient<Connect>,
    pub(super) forward: Recipient<Forward>,
    pub(super) disconnected: Recipient<Disconnected>,
    pub(super) cursors: Recipient<Cursors>,
    pub(super) memory_page: Recipient<MemoryPage>,
    pub(super) queue_written: Recipient<QueueWritten>,
    pub(super) fetch: Recipient<DataLogFetch>,
    pub(super) page: Recipient<DataLogPage>,
    pub(super) since: Recipient<DataLogSince>,
}

impl Neighbours {
    /// Commands go to `pubsub`, reads of the data log to `fetchers`.
    pub(crate) fn new<P, F>(pubsub: &Addr<P>, fetchers: &Addr<F>) -> Self
    where
        P: Actor<Context = Context<P>>
            + Handler<MayConnect>
            + Handler<Connect>
            + Handler<Forward>
            + Handler<Disconnected>
            + Handler<Cursors>
            + Handler<MemoryPage>
            + Handler<QueueWritten>,
        F: Actor + Handler<DataLogFetch> + Handler<DataLogPage> + Handler<DataLogSince>,
        F::Context:
            ToEnvelope<F, DataLogFetch> + ToEnvelope<F, DataLogPage> + ToEnvelope<F, DataLogSince>,
    {
        Self {
            may_connect: pubsub.clone().recipient(),
            connect: pubsub.clone().recipient(),
            forward: pubsub.clone().recipient(),
            disconnected: pubsub.clone().recipient(),
            cursors: pubsub.clone().recipient(),
            memory_page: pubsub.clone().recipient(),
            queue_written: pubsub.clone().recipient(),
            fetch: fetchers.clone().recipient(),
            page: fetchers.clone().recipient(),
            since: fetchers.clone().recipient(),
        }
    }
}
