//! The actor that carries out effects: one for each HTTP worker.
//!
//! Owns nothing by itself: what it works on it shares with the worker's sessions ([`Worker`]). Effects come in the order of the log, one
//! message for what a batch brings; `effects` carries them out, `catch_up` serves those who are behind, `watch` is the one timer for
//! heartbeats, stuck clients and cursors.
//!
//! ```text
//!   Release ──> effects ──> outboxes, marked dirty ──mailbox empty──> one vectored write for each
//! ```

mod catch_up;
mod effects;
pub(crate) mod table;
mod watch;

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use actix::{
    Actor, ActorFuture, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture,
};

use super::{
    closing::{CloseReason, milliseconds},
    worker::Worker,
};
use crate::{
    connection::Held,
    domain::{ConnectionId, Effect, Handed},
    metrics::{Pulse, TellHub},
};

/// Messages that others than `do_send` may have waiting: only takeovers and the steps of a shutdown.
const MAILBOX_CAPACITY: usize = 1024;

/// The actor.
pub(crate) struct Hub {
    worker: Rc<Worker>,
}

impl Hub {
    /// The Hub of `worker`.
    pub(crate) fn new(worker: Rc<Worker>) -> Self {
        Self { worker }
    }
}

impl Actor for Hub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        ctx.run_interval(self.worker.heartbeat.tick(), |hub, _| hub.worker.watch());
        ctx.run_interval(Duration::from_secs(1), |hub, _| hub.worker.tell_cursors());
        ctx.spawn(Flush);
    }
}

/// Flushes what is dirty whenever the mailbox is empty: a context polls its futures behind its mailbox.
struct Flush;

impl ActorFuture<Hub> for Flush {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        hub: &mut Hub,
        _: &mut Context<Hub>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        hub.worker.poll_flush(cx);
        Poll::Pending
    }
}

/// Everything that one batch brings for a worker, in order.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Release {
    pub(crate) effects: Vec<Effect>,
    /// What the sender spent for it of the shared budget.
    pub(crate) cost: u64,
}

impl Handler<Release> for Hub {
    type Result = ();

    fn handle(&mut self, Release { effects, cost }: Release, _: &mut Self::Context) {
        self.worker.release(effects);
        self.worker.gate.refund(cost);
    }
}

impl Handler<Pulse> for Hub {
    type Result = ();

    fn handle(&mut self, _: Pulse, _: &mut Self::Context) {}
}

impl Handler<TellHub> for Hub {
    type Result = MessageResult<TellHub>;

    fn handle(&mut self, _: TellHub, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.worker.figures())
    }
}

/// A connection speaks for its session no longer: it is closed with 4502, and nothing more of its queued publications goes out.
/// Answered with how far it was served; `None` if it had ended, so that PubSubService has been told.
#[derive(Message)]
#[rtype(result = "Option<Vec<Handed>>")]
pub(crate) struct TakeOver {
    pub(crate) connection: ConnectionId,
}

impl Handler<TakeOver> for Hub {
    type Result = Option<Vec<Handed>>;

    fn handle(&mut self, message: TakeOver, _: &mut Self::Context) -> Self::Result {
        let connection = self.worker.connection(message.connection)?;
        self.worker.close(&connection, CloseReason::TAKEN_OVER);
        connection.with_outbox(|outbox| outbox.hand_begun());
        Some(connection.cursors())
    }
}

/// A step of the shutdown: no session of the worker reads commands any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StopReading;

impl Handler<StopReading> for Hub {
    type Result = ();

    fn handle(&mut self, _: StopReading, _: &mut Self::Context) {
        self.worker.stop_reading();
    }
}

/// The last step of the shutdown: every connection is closed with 1001 behind what is queued for it. Answered when all are gone or
/// the time is up, with how far the durable ones were served.
#[derive(Message)]
#[rtype(result = "Vec<(ConnectionId, Vec<Handed>)>")]
pub(crate) struct CloseAll {
    pub(crate) timeout: Duration,
}

impl Handler<CloseAll> for Hub {
    type Result = ResponseFuture<Vec<(ConnectionId, Vec<Handed>)>>;

    fn handle(&mut self, CloseAll { timeout }: CloseAll, _: &mut Self::Context) -> Self::Result {
        const CODE: u16 = 1001;
        const REASON: &str = "the server stops";
        let worker = Rc::clone(&self.worker);
        worker.stop_reading();
        worker.keep_cursors();
        for connection in worker.connections() {
            if connection.is_holding() {
                connection.hold(Held::Close(CODE, REASON));
            } else {
                let reason = CloseReason::orderly(CODE, REASON, milliseconds(timeout));
                worker.close(&connection, reason);
            }
        }
        Box::pin(async move {
            let emptied = worker.emptied.notified();
            if !worker.is_empty() {
                // Those that are left behind are dropped, whichever it was.
                let _ = tokio::time::timeout(timeout, emptied).await;
            }
            for connection in worker.connections() {
                worker.end(&connection);
            }
            worker.take_cursors()
        })
    }
}
