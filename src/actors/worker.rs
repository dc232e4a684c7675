//! What one HTTP worker's sessions and its Hub share: its connections, and who of them subscribes what.
//!
//! Owns the worker's connections from upgrade to end, the buffer that all of them read with, and the list of those to be flushed. Does not
//! own what effects mean ([`hub`](super::hub)). Made in the worker's service factory, handed by constructor to the Hub and to every
//! session; it never leaves the worker's thread, so nothing here is locked.
//!
//! Invariants: what writes to a socket or ends a connection is called with no field borrowed; a connection is in `connections` until it
//! ended, and is announced to PubSubService once and reported as gone once.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    io, mem,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::BytesMut;
use tokio::{sync::Notify, task::coop::unconstrained};

use super::{
    closing::{DISCARD_TIMEOUT, milliseconds},
    hub::table::Table,
    messages::{Connect, Forward, Incoming, MayConnect, QueueWritten},
    neighbours::Neighbours,
};
use crate::{
    access::Authenticator,
    config::{Config, Rate},
    connection::{
        Connection, Credit, Credited, Gate, HeartbeatLimits, Meter, Permit, Phase, Socket, Written,
        budget_cost, tune,
    },
    domain::{ConnectionId, Handed, Identity, Opening, Principal, ReplyTo},
    metrics::WorkerCounts,
    protocol::Form,
};

/// What one read of a socket may bring. One such buffer serves all connections of a worker.
const READ_SIZE: usize = 64 << 10;

/// With less room left than this, the read buffer is made anew.
const MIN_READ: usize = 16 << 10;

/// The most commands that room is made for before they come.
const MAX_EXPECTED: usize = 64;

/// The least credit of a connection, in bytes of commands under way. A message over it still passes.
const MIN_CREDIT: u64 = 1 << 20;

/// How far one connection was served.
pub(super) type ConnectionCursors = (ConnectionId, Vec<Handed>);

type Connections = HashMap<ConnectionId, Rc<Connection>, foldhash::fast::RandomState>;

/// What one HTTP worker's sessions and its Hub share.
pub(crate) struct Worker {
    number: usize,
    pub(super) max_message_size: usize,
    pub(super) outbox_size: usize,
    connection_rate: Rate,
    pub(super) heartbeat: HeartbeatLimits,
    /// How long a connection may take to say for whom it speaks. Milliseconds.
    pub(super) authentication_timeout: u64,
    pub(super) neighbours: Neighbours,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(super) gate: Arc<Gate>,
    /// What happens here; this thread alone counts it.
    pub(crate) counts: Arc<WorkerCounts>,
    started: Instant,
    next_connection: Cell<u64>,
    pub(super) connections: RefCell<Connections>,
    pub(super) table: RefCell<Table<Rc<Connection>>>,
    read_buffer: RefCell<BytesMut>,
    /// What the connection whose task has its turn brought.
    incoming: RefCell<Vec<Incoming>>,
    /// Those to be flushed when the Hub's mailbox is empty.
    dirty: RefCell<Vec<Rc<Connection>>>,
    /// What was released since the last flush.
    unflushed: Cell<usize>,
    flusher: RefCell<Option<Waker>>,
    /// Those for which a read is under way.
    holding: RefCell<Connections>,
    /// Those that wait for the budget that all connections share.
    parked: RefCell<Vec<Rc<Connection>>>,
    is_reading: Cell<bool>,
    /// Cursors of durable connections that ended since `CloseAll`.
    pub(super) last_cursors: RefCell<Option<Vec<ConnectionCursors>>>,
    pub(super) emptied: Notify,
}

impl Worker {
    /// Worker `number` of the server.
    pub(crate) fn new(
        number: usize,
        config: &Config,
        neighbours: Neighbours,
        authenticator: Arc<Authenticator>,
        gate: Arc<Gate>,
        counts: Arc<WorkerCounts>,
    ) -> Self {
        Self {
            number,
            max_message_size: config.max_message_size,
            outbox_size: config.outbox_size,
            connection_rate: config.limits.connection_rate,
            heartbeat: HeartbeatLimits::new(
                config.heartbeat_interval,
                config.heartbeat_timeout,
                config.write_timeout,
            ),
            authentication_timeout: milliseconds(config.handshake_timeout),
            neighbours,
            authenticator,
            gate,
            counts,
            started: Instant::now(),
            next_connection: Cell::new(0),
            connections: RefCell::default(),
            table: RefCell::default(),
            read_buffer: RefCell::default(),
            incoming: RefCell::default(),
            dirty: RefCell::default(),
            unflushed: Cell::new(0),
            flusher: RefCell::default(),
            holding: RefCell::default(),
            parked: RefCell::default(),
            is_reading: Cell::new(true),
            last_cursors: RefCell::default(),
            emptied: Notify::new(),
        }
    }

    /// Milliseconds since the worker began.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A connection that is alive.
    pub(super) fn connection(&self, id: ConnectionId) -> Option<Rc<Connection>> {
        self.connections.borrow().get(&id).cloned()
    }

    /// All connections that are alive.
    pub(super) fn connections(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }

    /// Whether no connection is alive.
    pub(super) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }
}

/// The beginning.
impl Worker {
    /// Whether a connection of `identity`, which is `principal`, may be opened.
    pub(crate) async fn may_connect(&self, identity: Identity, principal: Principal) -> Opening {
        let asked = self.neighbours.may_connect.send(MayConnect {
            identity,
            principal,
        });
        asked.await.unwrap_or(Opening::Full)
    }

    /// Takes a socket over whose handshake is answered by `head`; `None` if it is broken.
    pub(crate) fn take(
        &self,
        form: Form,
        socket: Socket,
        head: &[u8],
        permit: Rc<Permit>,
    ) -> Option<Rc<Connection>> {
        tune(&socket).ok()?;
        let number = self.next_connection.get();
        self.next_connection.set(number + 1);
        let id = ConnectionId::new(self.number, number);
        let credit = Credit::new(MIN_CREDIT.max(self.max_message_size as u64));
        let connection = Connection::new(id, form, socket, head, permit, credit, self.now());
        let meter = Meter::new(self.connection_rate, self.max_message_size);
        let connection = connection.metered(meter);
        let connection = Rc::new(connection);
        self.counts.opened.add(1);
        self.connections
            .borrow_mut()
            .insert(id, Rc::clone(&connection));
        if form == Form::Json {
            self.gate.enter_json();
        }
        Some(connection)
    }

    /// Announces a connection whose identity is known. `reply` is the command that told it.
    pub(super) fn announce(
        &self,
        connection: &Connection,
        identity: Identity,
        principal: Principal,
        reply: Option<ReplyTo>,
    ) {
        if let Some(meter) = principal
            .name
            .as_ref()
            .and_then(|name| self.gate.meter(name))
        {
            connection.share_meter(meter);
        }
        if let Some(to) = &reply {
            connection.credit().take(to.credit);
            self.gate.spend(budget_cost(to.credit));
        }
        // Without waiting: one message for each connection, of which there is a limited number.
        self.neighbours.connect.do_send(Connect {
            connection: connection.id(),
            identity,
            principal,
            reply,
        });
    }
}

/// Reading.
impl Worker {
    /// Whether a session may take another message that has come.
    pub(super) fn may_take(&self, connection: &Connection) -> bool {
        let may = self.is_reading.get() && connection.may_take();
        connection.hold_back(!may);
        may
    }

    /// Reads what has come for `connection`; an empty result is the end. Commands are not read over the budget that all share.
    pub(super) fn poll_read(
        &self,
        connection: &Rc<Connection>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<BytesMut>> {
        if connection.phase() == Phase::Open && !self.gate.has_budget() {
            connection.hold_back(true);
            self.park(connection);
            return Poll::Pending;
        }
        let mut buffer = self.read_buffer.borrow_mut();
        if buffer.capacity() < MIN_READ {
            buffer.reserve(READ_SIZE);
        }
        let len = ready!(connection.poll_read(cx, &mut buffer))?;
        self.counts.received.add(len as u64);
        Poll::Ready(Ok(buffer.split()))
    }

    /// The session of `connection` waits for the shared budget: the Hub's future looks after it.
    fn park(&self, connection: &Rc<Connection>) {
        if !connection.park(true) {
            let mut parked = self.parked.borrow_mut();
            parked.push(Rc::clone(connection));
            if parked.len() == 1
                && let Some(flusher) = &*self.flusher.borrow()
            {
                flusher.wake_by_ref();
            }
        }
    }

    /// Wakes the sessions that wait for the shared budget, or `waker` once there is some.
    fn unpark(&self, waker: &Waker) {
        if self.parked.borrow().is_empty() {
            return;
        }
        self.gate.wait(waker);
        if self.gate.has_budget() {
            for connection in self.parked.take() {
                connection.park(false);
                connection.wake();
            }
        }
    }

    /// A message of `bytes` bytes was taken.
    pub(super) fn collect(&self, connection: &Connection, incoming: Incoming, bytes: u32) {
        connection.credit().take(bytes);
        self.incoming.borrow_mut().push(incoming);
    }

    /// Forwards what the connection brought in this turn of its task.
    pub(super) fn forward(&self, connection: &Connection) {
        if self.incoming.borrow().is_empty() {
            return;
        }
        let mut incoming = self.incoming.borrow_mut();
        // The next turn is likely to bring as many: a vector that grows copies its commands again and again.
        let next = Vec::with_capacity(incoming.len().min(MAX_EXPECTED));
        let incoming = mem::replace(&mut *incoming, next);
        let cost = incoming.iter().map(|one| match one {
            Incoming::Request { credit, .. }
            | Incoming::Token { credit, .. }
            | Incoming::Rejected { credit, .. } => budget_cost(*credit),
        });
        self.gate.spend(cost.sum());
        // Without waiting: every command holds credit, which bounds the mailbox.
        self.neighbours.forward.do_send(Forward {
            connection: connection.id(),
            incoming,
        });
    }

    /// No session reads commands any more, and no connection begins.
    pub(super) fn stop_reading(&self) {
        self.gate.close();
        self.is_reading.set(false);
    }
}

/// Writing.
impl Worker {
    /// So much was released. Flushes if it has grown: else what comes in one turn could fill an outbox whose client reads all the time,
    /// and a mailbox that never becomes empty would keep everybody waiting.
    pub(super) fn flush_if_much(self: &Rc<Self>, released: usize) {
        let unflushed = self.unflushed.get() + released;
        self.unflushed.set(unflushed);
        if unflushed > self.outbox_size / 4 {
            self.flush_dirty();
        }
    }

    /// Something was queued: `connection` is flushed when the Hub's mailbox is empty.
    #[inline]
    pub(super) fn mark_dirty(&self, connection: &Rc<Connection>) {
        if connection.mark_dirty() {
            let mut dirty = self.dirty.borrow_mut();
            dirty.push(Rc::clone(connection));
            if dirty.len() == 1
                && let Some(flusher) = &*self.flusher.borrow()
            {
                flusher.wake_by_ref();
            }
        }
    }

    /// The Hub's turn to flush: everything that is dirty, and again when woken.
    pub(super) fn poll_flush(self: &Rc<Self>, cx: &Context<'_>) {
        self.flusher.replace(Some(cx.waker().clone()));
        self.flush_dirty();
        self.unpark(cx.waker());
    }

    /// Flushes everything that is dirty.
    pub(super) fn flush_dirty(self: &Rc<Self>) {
        self.unflushed.set(0);
        if self.dirty.borrow().is_empty() {
            return;
        }
        let mut dirty = self.dirty.take();
        // tokio would let one task write to 128 sockets and then say that none is ready; here one task writes for all.
        let flush = pin!(unconstrained(poll_fn(|_| {
            for connection in dirty.drain(..) {
                self.flush(&connection);
            }
            Poll::Ready(())
        })));
        let Poll::Ready(()) = flush.poll(&mut Context::from_waker(Waker::noop())) else {
            return;
        };
        // The vector is used again, unless something was marked meanwhile.
        let mut current = self.dirty.borrow_mut();
        if current.is_empty() {
            *current = dirty;
        }
    }

    /// Writes what waits for `connection`, and looks what follows from that.
    pub(super) fn flush(self: &Rc<Self>, connection: &Rc<Connection>) {
        if connection.phase() == Phase::Ended {
            return;
        }
        let (written, flushed) = connection.write();
        self.counts.sent.add(flushed.sent);
        self.give_back(connection, flushed.credited);
        self.tell_written(connection);
        match written {
            Ok(Written::All | Written::Some) => {}
            Err(_) => return self.end(connection),
        }
        if !connection.is_blocked() && connection.with_outbox(|outbox| outbox.is_finished()) {
            // The other end of a connection of the server's own has no more to say than that it has read this.
            if connection.peer_closed() || connection.is_inner() {
                return self.end(connection);
            }
            connection.hurry(self.now() + DISCARD_TIMEOUT);
        }
        self.serve_behind(connection);
    }

    /// Tells how much of what was leased to a connection its socket took: those who have much unwritten are leased nothing more.
    fn tell_written(&self, connection: &Connection) {
        for (subscriber, bytes) in connection.newly_written(self.outbox_size as u64 / 4) {
            // Without waiting: one for many publications, each of which was leased.
            self.neighbours.queue_written.do_send(QueueWritten {
                connection: connection.id(),
                subscription: subscriber.subscription,
                log: subscriber.log,
                joined: subscriber.joined(),
                bytes,
            });
        }
    }

    /// Gives a connection credit back, and wakes its session if it waits for that.
    pub(super) fn give_back(&self, connection: &Connection, credited: Credited) {
        if credited != Credited::default() && connection.credit().give_back(credited) {
            connection.wake();
        }
    }
}

/// Holding.
impl Worker {
    /// A read of `connection` is under way: what comes behind it waits.
    pub(super) fn start_holding(&self, connection: &Rc<Connection>) {
        connection.set_holding(true);
        let mut holding = self.holding.borrow_mut();
        holding.insert(connection.id(), Rc::clone(connection));
    }

    /// It is not any more.
    pub(super) fn stop_holding(&self, connection: &Connection) {
        connection.set_holding(false);
        self.holding.borrow_mut().remove(&connection.id());
    }

    /// The connections for which a read is under way.
    pub(super) fn holding(&self) -> Vec<Rc<Connection>> {
        self.holding.borrow().values().cloned().collect()
    }
}
