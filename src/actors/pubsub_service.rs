//! The actor that decides: every command of every connection passes here, once.
//!
//! Owns the [`Broker`]. Does not own any rule: it hands messages to the broker, its batches to DataLogger, one at a time, and what needs no
//! log to the Hubs. It waits for nobody: what needs an answer from a Hub or a reader comes back as a message.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult,
    ResponseFuture, SpawnHandle, WrapFuture,
};
use tokio::sync::oneshot;

use super::{
    data_logger::{Attach, DataLogPut, DataLogger},
    hub::{Hub, TakeOver},
    hubs::{Hubs, RegisterHub},
    log_reader::{DataLogCut, DataLogLoad, LogFetcher},
    messages::{
        Connect, Cursors, Disconnected, Forward, Incoming, MayConnect, MemoryPage, QueueWritten,
    },
};
use crate::{
    datalog::{Page, ReadError, Space},
    domain::{Broker, ConnectionId, Handed, ReplyTo, Room, SealedBatch},
    metrics::{Metrics, Pulse, Reason, TellBroker},
    protocol::{RequestId, Timestamp},
};

/// Retention looks at every subscription within this time, so it acts well within the 10 s that the protocol gives it.
const RETENTION_INTERVAL: Duration = Duration::from_secs(4);
/// In so many parts, so that none holds up the commands for long.
const RETENTION_PARTS: u32 = 20;
/// How often sessions that were away for too long are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long a connection that is taken over may take to tell its cursors; then the written ones count.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(2);

/// The timer of the queues comes no more often than this, however many leases end: milliseconds.
const TIMER_GRAIN: u64 = 10;

/// Commands after which what is ready is sent although more wait: a mailbox that is never empty must not hold anything up.
const MAX_UNFLUSHED: usize = 512;

/// The close code of a connection that sent nothing but malformed messages (protocol, section 1).
const CLOSE_MALFORMED: (u16, &str) = (4503, "malformed messages");

/// The actor.
pub(crate) struct PubSubService {
    broker: Broker,
    logger: Addr<DataLogger>,
    fetchers: Addr<LogFetcher>,
    hubs: Hubs,
    /// What came while the log had no room to promise: bounded by the credit of the connections, and their number.
    deferred: VecDeque<Deferred>,
    /// DataLogger has a batch.
    is_committing: bool,
    flush_is_due: bool,
    /// Commands since the last flush.
    unflushed: usize,
    retention_is_read: bool,
    started: Instant,
    /// When the clock was read last.
    clock: Instant,
    /// The timer for all queues, and when it comes: milliseconds since the actor was made.
    timer: Option<(u64, SpawnHandle)>,
    /// Those who wait until everything that came is released.
    drained: Vec<oneshot::Sender<()>>,
    metrics: Arc<Metrics>,
}

enum Deferred {
    Connect(Connect),
    Forward(Forward),
    Disconnected(Disconnected),
}

impl PubSubService {
    /// An actor with what a restart found; `space` is what the log has room for.
    pub(crate) fn new(
        broker: Broker,
        space: Space,
        logger: Addr<DataLogger>,
        fetchers: Addr<LogFetcher>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let started = Instant::now();
        let mut actor = Self {
            broker,
            logger,
            fetchers,
            hubs: Hubs::default(),
            deferred: VecDeque::new(),
            is_committing: false,
            flush_is_due: false,
            unflushed: 0,
            retention_is_read: false,
            started,
            clock: started,
            timer: None,
            drained: Vec::new(),
            metrics,
        };
        actor.set_space(space);
        actor
    }

    /// What the log has room for.
    fn set_space(&mut self, space: Space) {
        self.broker.set_room(room(space));
        self.metrics.health.set(Reason::DiskFull, space.full);
    }

    /// Applies commands as far as the log can promise room; the others wait, and all that comes behind them.
    fn apply(&mut self, forward: Forward) {
        let now = self.read_clock();
        let Forward {
            connection,
            incoming,
        } = forward;
        let mut incoming = incoming.into_iter();
        while self.broker.is_ready() {
            let Some(one) = incoming.next() else { return };
            self.apply_one(connection, one, now);
        }
        let incoming: Vec<_> = incoming.collect();
        if !incoming.is_empty() {
            self.deferred.push_front(Deferred::Forward(Forward {
                connection,
                incoming,
            }));
        }
    }

    fn apply_one(&mut self, connection: ConnectionId, incoming: Incoming, now: Timestamp) {
        self.unflushed += 1;
        match incoming {
            Incoming::Request { request, credit } => {
                let to = ReplyTo {
                    connection,
                    request_id: request.id,
                    command: Some(request.command.name()),
                    silent: request.id.is_none() && request.command.is_silent(),
                    credit,
                };
                self.broker.handle(to, request, now);
            }
            Incoming::Token {
                judged,
                request_id,
                credit,
            } => {
                let to = authentication(connection, request_id, credit);
                self.broker.authenticate(to, judged, now);
            }
            Incoming::Rejected {
                rejection,
                credit,
                close,
            } => {
                let to = ReplyTo {
                    connection,
                    request_id: rejection.request_id,
                    command: None,
                    silent: false,
                    credit,
                };
                self.broker
                    .reject(to, rejection.error, close.then_some(CLOSE_MALFORMED));
            }
        }
    }

    fn apply_deferred(&mut self, ctx: &mut Context<Self>) {
        while self.broker.is_ready()
            && let Some(deferred) = self.deferred.pop_front()
        {
            match deferred {
                Deferred::Connect(message) => self.connect(&message, ctx),
                Deferred::Forward(forward) => self.apply(forward),
                Deferred::Disconnected(message) => self.disconnect(&message),
            }
        }
    }

    fn connect(&mut self, message: &Connect, ctx: &mut Context<Self>) {
        let now = self.read_clock();
        let Connect {
            connection,
            identity,
            ref principal,
            reply,
        } = *message;
        let broker = &mut self.broker;
        let taken_over = match reply {
            Some(command) => broker.connect_by(command, identity, principal, now),
            None => broker.connect(connection, identity, principal, now),
        };
        if let Some(old) = taken_over {
            self.take_over(old, ctx);
        }
    }

    fn disconnect(&mut self, message: &Disconnected) {
        let now = self.read_clock();
        self.broker
            .disconnected(message.connection, &message.handed, now);
    }

    /// The wall clock; the broker knows it, and the one that never jumps, from then on.
    fn read_clock(&mut self) -> Timestamp {
        let now = now();
        self.clock = Instant::now();
        self.broker.set_clock(now, self.uptime_at(self.clock));
        now
    }

    fn uptime_at(&self, time: Instant) -> u64 {
        u64::try_from((time - self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Sees to it that the timer comes when the first queue has to be looked at.
    fn set_timer(&mut self, ctx: &mut Context<Self>) {
        let Some(due) = self.broker.next_due() else {
            return;
        };
        if let Some((at, timer)) = self.timer {
            if at <= due {
                return;
            }
            ctx.cancel_future(timer);
        }
        let uptime = self.uptime_at(Instant::now());
        let wait = due.saturating_sub(uptime).max(TIMER_GRAIN);
        let timer = ctx.run_later(Duration::from_millis(wait), |actor, ctx| {
            actor.timer = None;
            actor.read_clock();
            actor.broker.expire_leases();
            actor.flush(ctx);
        });
        self.timer = Some((due, timer));
    }

    /// Asks for what queues want read.
    fn load(&mut self, ctx: &mut Context<Self>) {
        for load in self.broker.take_loads() {
            let (subscription, log) = (load.subscription, load.log);
            let pages = self.fetchers.send(DataLogLoad(load));
            ctx.spawn(pages.into_actor(self).map(move |pages, actor, ctx| {
                actor.read_clock();
                actor
                    .broker
                    .loaded(subscription, log, pages.unwrap_or_default());
                actor.flush_soon(ctx);
            }));
        }
    }

    /// Sends what is ready when the mailbox is empty: what comes together leaves together.
    fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        if self.unflushed >= MAX_UNFLUSHED {
            self.flush(ctx);
        } else if !self.flush_is_due {
            self.flush_is_due = true;
            ctx.notify(Flush);
        }
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        self.unflushed = 0;
        self.load(ctx);
        self.set_timer(ctx);
        if let Some(SealedBatch {
            at_write,
            at_sync,
            publications,
            publication_bytes,
            ..
        }) = self.broker.take_direct()
        {
            self.metrics.direct.add(publications, publication_bytes);
            self.hubs.release(at_write);
            self.hubs.release(at_sync);
        }
        if !self.is_committing
            && let Some(batch) = self.broker.take_logged()
        {
            self.is_committing = true;
            let since = self.clock;
            self.logger.do_send(DataLogPut { batch, since });
        }
        if !self.is_committing && self.deferred.is_empty() {
            for drained in self.drained.drain(..) {
                // Who waited may have given up.
                let _ = drained.send(());
            }
        }
    }

    fn take_over(&mut self, old: ConnectionId, ctx: &mut Context<Self>) {
        let Some(hub) = self.hubs.of(old) else {
            return self.taken_over(old, &[], ctx);
        };
        let cursors = hub.send(TakeOver { connection: old });
        let cursors = async move {
            match tokio::time::timeout(TAKEOVER_TIMEOUT, cursors).await {
                Ok(Ok(handed)) => handed,
                Ok(Err(_)) | Err(_) => {
                    log::warn!(
                        "a session goes on from its written cursors: its old connection did not tell its own"
                    );
                    Some(Vec::new())
                }
            }
        };
        ctx.spawn(cursors.into_actor(self).map(move |handed, actor, ctx| {
            // If the connection had ended, `Disconnected` is on its way, and tells them.
            if let Some(handed) = handed {
                actor.taken_over(old, &handed, ctx);
            }
        }));
    }

    fn taken_over(&mut self, old: ConnectionId, handed: &[Handed], ctx: &mut Context<Self>) {
        self.read_clock();
        self.broker.taken_over(old, handed);
        self.flush_soon(ctx);
    }

    fn check_retention(&mut self, ctx: &mut Context<Self>) {
        if self.retention_is_read {
            return;
        }
        let now = now();
        let checks = self.broker.retention_due(RETENTION_PARTS as usize, now);
        if checks.is_empty() {
            return;
        }
        self.retention_is_read = true;
        let cuts = self.fetchers.send(DataLogCut { checks, now });
        ctx.spawn(cuts.into_actor(self).map(|cuts, actor, ctx| {
            actor.retention_is_read = false;
            actor.read_clock();
            for cut in cuts.unwrap_or_default() {
                actor.broker.retain(cut);
            }
            actor.flush_soon(ctx);
        }));
    }
}

/// Where the answer to an `Authenticate` goes.
pub(super) fn authentication(
    connection: ConnectionId,
    request_id: Option<RequestId>,
    credit: u32,
) -> ReplyTo {
    ReplyTo {
        connection,
        request_id,
        command: Some("Authenticate"),
        silent: request_id.is_none(),
        credit,
    }
}

pub(crate) fn room(space: Space) -> Room {
    let Space {
        guaranteed,
        changes,
        clearing,
        full,
    } = space;
    Room {
        guaranteed,
        changes,
        clearing,
        full,
    }
}

/// The wall clock.
fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(since_epoch.as_millis() as u64)
}

impl Actor for PubSubService {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // In front of the first batch: what commits nobody could be told of would be the last one.
        self.logger.do_send(Attach(ctx.address()));
        ctx.run_interval(RETENTION_INTERVAL / RETENTION_PARTS, Self::check_retention);
        ctx.run_interval(EXPIRY_INTERVAL, |actor, ctx| {
            let now = actor.read_clock();
            actor.broker.expire_sessions(now);
            actor.broker.expire_tokens(now);
            actor.flush_soon(ctx);
        });
        self.flush_soon(ctx);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Handler<Flush> for PubSubService {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.flush_is_due = false;
        self.flush(ctx);
    }
}

impl Handler<RegisterHub> for PubSubService {
    type Result = ();

    fn handle(&mut self, message: RegisterHub, _: &mut Self::Context) {
        self.hubs.register(message);
    }
}

impl Handler<MayConnect> for PubSubService {
    type Result = MessageResult<MayConnect>;

    fn handle(&mut self, message: MayConnect, _: &mut Self::Context) -> Self::Result {
        let MayConnect {
            identity,
            principal,
        } = message;
        MessageResult(self.broker.may_connect(identity, &principal))
    }
}

/// The credentials were read again: connections whose own are not what they were are closed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CredentialsChanged;

impl Handler<CredentialsChanged> for PubSubService {
    type Result = ();

    fn handle(&mut self, _: CredentialsChanged, ctx: &mut Self::Context) {
        self.broker.check_standing();
        self.flush_soon(ctx);
    }
}

impl Handler<Connect> for PubSubService {
    type Result = ();

    fn handle(&mut self, message: Connect, ctx: &mut Self::Context) {
        if self.deferred.is_empty() {
            self.connect(&message, ctx);
        } else {
            self.deferred.push_back(Deferred::Connect(message));
        }
        self.flush_soon(ctx);
    }
}

impl Handler<Forward> for PubSubService {
    type Result = ();

    fn handle(&mut self, message: Forward, ctx: &mut Self::Context) {
        if self.deferred.is_empty() {
            self.apply(message);
        } else {
            self.deferred.push_back(Deferred::Forward(message));
        }
        self.flush_soon(ctx);
    }
}

impl Handler<Disconnected> for PubSubService {
    type Result = ();

    fn handle(&mut self, message: Disconnected, ctx: &mut Self::Context) {
        if self.deferred.is_empty() {
            self.disconnect(&message);
        } else {
            self.deferred.push_back(Deferred::Disconnected(message));
        }
        self.flush_soon(ctx);
    }
}

impl Handler<Cursors> for PubSubService {
    type Result = ();

    fn handle(&mut self, Cursors(cursors): Cursors, ctx: &mut Self::Context) {
        self.read_clock();
        for (connection, handed) in cursors {
            self.broker.handed(connection, &handed);
        }
        self.flush_soon(ctx);
    }
}

impl Handler<QueueWritten> for PubSubService {
    type Result = ();

    fn handle(&mut self, message: QueueWritten, ctx: &mut Self::Context) {
        let QueueWritten {
            connection,
            subscription,
            log,
            joined,
            bytes,
        } = message;
        self.read_clock();
        self.broker
            .queue_written(connection, subscription, log, joined, bytes);
        self.flush_soon(ctx);
    }
}

impl Handler<MemoryPage> for PubSubService {
    type Result = Result<Page, ReadError>;

    fn handle(&mut self, message: MemoryPage, _: &mut Self::Context) -> Self::Result {
        let MemoryPage {
            subscription,
            log,
            after,
            through,
            max_bytes,
        } = message;
        self.broker
            .memory_page(subscription, log, after, through, max_bytes)
            .ok_or(ReadError::Gone)
    }
}

/// DataLogger has committed and released a batch.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Committed {
    pub(crate) number: u64,
    /// What it took in the journal, at most.
    pub(crate) size: u64,
    /// What the log has room for behind it.
    pub(crate) space: Space,
}

impl Handler<Committed> for PubSubService {
    type Result = ();

    fn handle(&mut self, message: Committed, ctx: &mut Self::Context) {
        let Committed {
            number,
            size,
            space,
        } = message;
        self.is_committing = false;
        self.read_clock();
        self.broker.committed(number, size);
        self.set_space(space);
        self.apply_deferred(ctx);
        // At once, not behind the mailbox: DataLogger is idle until then.
        self.flush(ctx);
    }
}

/// DataLogger will never commit a batch again.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CommitFailed {
    /// `None` if the failure came between batches: one may be on its way, and fails by itself.
    pub(crate) batch: Option<SealedBatch>,
    /// Whether the write succeeded, and what waited for it was released.
    pub(crate) was_written: bool,
}

impl Handler<CommitFailed> for PubSubService {
    type Result = ();

    fn handle(&mut self, message: CommitFailed, ctx: &mut Self::Context) {
        if message.batch.is_some() {
            self.is_committing = false;
        }
        self.metrics.health.set(Reason::LogUnavailable, true);
        self.read_clock();
        self.broker
            .commit_failed(message.batch, message.was_written);
        self.apply_deferred(ctx);
        self.flush(ctx);
    }
}

/// The log has room for more, or less, than it said with the last commit.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SpaceChanged(pub(crate) Space);

impl Handler<SpaceChanged> for PubSubService {
    type Result = ();

    fn handle(&mut self, SpaceChanged(space): SpaceChanged, ctx: &mut Self::Context) {
        self.read_clock();
        self.set_space(space);
        self.apply_deferred(ctx);
        self.flush_soon(ctx);
    }
}

/// No connection begins any more. Answered with the Hubs that there are.
#[derive(Message)]
#[rtype(result = "Vec<Addr<Hub>>")]
pub(crate) struct StopAccepting;

impl Handler<StopAccepting> for PubSubService {
    type Result = Vec<Addr<Hub>>;

    fn handle(&mut self, _: StopAccepting, _: &mut Self::Context) -> Self::Result {
        self.broker.stop();
        self.metrics.health.set(Reason::Stopping, true);
        self.hubs.iter().cloned().collect()
    }
}

/// Answered when everything that came before is committed and released.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Drain;

impl Handler<Drain> for PubSubService {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) -> Self::Result {
        let (drained, is_drained) = oneshot::channel();
        self.drained.push(drained);
        self.read_clock();
        self.flush_soon(ctx);
        Box::pin(async move {
            // The sender lives as long as the actor: if it is gone, there is nothing to wait for.
            let _ = is_drained.await;
        })
    }
}

impl Handler<Pulse> for PubSubService {
    type Result = ();

    fn handle(&mut self, _: Pulse, _: &mut Self::Context) {}
}

impl Handler<TellBroker> for PubSubService {
    type Result = MessageResult<TellBroker>;

    fn handle(&mut self, _: TellBroker, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.broker.figures())
    }
}
