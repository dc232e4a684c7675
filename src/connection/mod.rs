//! One WebSocket connection after its handshake: what it reads, what it owes, what waits for it.
//!
//! Owns the socket and everything that belongs to one connection alone. Does not own who subscribes what, nor what a command means;
//! the worker decides, and calls in here. Everything is local to one worker's thread (`Rc`, `Cell`): nothing here is ever locked.
//!
//! ```text
//!   socket ──> FrameReader ──> session          credit: taken when forwarded, given back when the answer is written
//!   socket <── Outbox <── answers, publications
//!
//!   Authenticating ──token──>
//!   Opening ──Welcome──> Open ──Close queued──> Closing ──Close seen, or time up──> Ended
//! ```
//!
//! Invariants: no borrow of a field outlives the method that takes it, so any method may be called from anywhere; a connection that
//! ended holds nothing.

mod addresses;
mod credit;
mod frames;
mod gate;
mod heartbeat;
mod identities;
mod meter;
mod outbox;
mod serving;
mod socket;
mod subscriber;

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use actix_codec::AsyncWrite;
use bytes::{Bytes, BytesMut};

pub(crate) use credit::{Credit, budget_cost};
pub(crate) use frames::{FrameError, FrameReader, Received};
pub(crate) use gate::{Gate, Overfull, Permit};
pub(crate) use heartbeat::{Heartbeat, HeartbeatLimits, Observed, Verdict};
pub(crate) use identities::Identities;
pub(crate) use meter::{Meter, retry_after};
pub(crate) use outbox::{Credited, Outbox};
pub(crate) use serving::kept_position;
pub(crate) use socket::{Encrypted, Socket, TLS_BUFFER, tune, tune_accepted};
pub(crate) use subscriber::{Offer, Subscriber};

use crate::{
    domain::{Chunk, ConnectionId, Effect, Handed, Identity},
    protocol::{
        Form, RequestId, Sequence, ServerResponse, StoredPublication, SubscriptionId, codec, json,
    },
};

/// Publications of a Queue are joined up to so many bytes.
const LEASED_ITEM: usize = 64 << 10;

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Upgraded; nothing but a token is read, and nothing is known of the connection elsewhere.
    Authenticating,
    /// Upgraded, and its identity known; nothing is read until `Welcome`.
    Opening,
    /// In use.
    Open,
    /// Our Close frame is queued or sent: input is discarded until the peer's Close, or until the time is up.
    Closing,
    /// Over.
    Ended,
}

/// The state of reading pages for a connection that is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Paging {
    /// None is asked for.
    Idle,
    /// One is on its way.
    Asked,
    /// The last one failed: the timer tries again.
    Paused,
}

/// What waits until a read of the connection is answered, so that answers keep their order.
#[derive(Debug)]
pub(crate) enum Held {
    /// An effect.
    Effect(Effect),
    /// The subscription was deleted at this place of the stream.
    Deleted(SubscriptionId),
    /// The connection is closed at this place of the stream.
    Close(u16, &'static str),
}

/// What a write gave back, and took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flushed {
    /// Credit of answers that were written.
    pub(crate) credited: Credited,
    /// Bytes that the socket took.
    pub(crate) sent: u64,
}

/// What a write came to.
#[derive(Debug)]
pub(crate) enum Written {
    /// Everything that waited; the kernel has it.
    All,
    /// What the socket took; its task is woken when it takes more. The outbox may be empty all the same.
    Some,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    id: ConnectionId,
    form: Form,
    is_inner: bool,
    phase: Cell<Phase>,
    is_durable: Cell<bool>,
    socket: RefCell<Option<Socket>>,
    outbox: RefCell<Outbox>,
    /// Of the connection's task, which is woken when the socket can be read or takes more.
    waker: RefCell<Option<Waker>>,
    is_dirty: Cell<bool>,
    is_blocked: Cell<bool>,
    credit: Credit,
    /// `None` while it may send as much as it can.
    meter: Option<Box<Meter>>,
    /// That of its identity, which others share.
    identity_meter: OnceCell<Arc<Meter>>,
    heartbeat: Cell<Heartbeat>,
    has_heard: Cell<bool>,
    is_held_back: Cell<bool>,
    is_parked: Cell<bool>,
    has_input: Cell<bool>,
    takes_no_more: Cell<bool>,
    peer_closed: Cell<bool>,
    /// When a closing connection is dropped, or one that says nothing is closed; milliseconds since the worker began.
    close_by: Cell<u64>,
    /// For whom it will speak, once its token came.
    awaited: Cell<Option<Identity>>,
    subscribers: RefCell<Vec<Rc<Subscriber>>>,
    /// It subscribed a Queue at least once.
    has_queues: Cell<bool>,
    /// Those that need pages, in turn.
    behind: RefCell<VecDeque<Rc<Subscriber>>>,
    paging: Cell<Paging>,
    page_size: Cell<usize>,
    page_failed: Cell<bool>,
    is_holding: Cell<bool>,
    held: RefCell<VecDeque<Held>>,
    permit: RefCell<Option<Rc<Permit>>>,
}

impl Connection {
    /// A connection over `socket`, to which `head`, the answer to its handshake, is written first.
    pub(crate) fn new(
        id: ConnectionId,
        form: Form,
        socket: Socket,
        head: &[u8],
        permit: Rc<Permit>,
        credit: Credit,
        now: u64,
    ) -> Self {
        let mut outbox = Outbox::default();
        if let Some(out) = outbox.answers() {
            out.extend_from_slice(head);
            outbox.answered(Credited::default());
        }
        Self {
            id,
            form,
            is_inner: socket.is_inner(),
            phase: Cell::new(Phase::Opening),
            is_durable: Cell::new(false),
            socket: RefCell::new(Some(socket)),
            outbox: RefCell::new(outbox),
            waker: RefCell::new(None),
            is_dirty: Cell::new(false),
            is_blocked: Cell::new(false),
            credit,
            meter: None,
            identity_meter: OnceCell::new(),
            heartbeat: Cell::new(Heartbeat::new(now)),
            has_heard: Cell::new(false),
            // Until `Welcome`, the server reads nothing.
            is_held_back: Cell::new(true),
            is_parked: Cell::new(false),
            has_input: Cell::new(false),
            takes_no_more: Cell::new(false),
            peer_closed: Cell::new(false),
            close_by: Cell::new(u64::MAX),
            awaited: Cell::new(None),
            subscribers: RefCell::new(Vec::new()),
            has_queues: Cell::new(false),
            behind: RefCell::new(VecDeque::new()),
            paging: Cell::new(Paging::Idle),
            page_size: Cell::new(0),
            page_failed: Cell::new(false),
            is_holding: Cell::new(false),
            held: RefCell::new(VecDeque::new()),
            permit: RefCell::new(Some(permit)),
        }
    }

    /// The same, which may send no more than `meter` allows.
    pub(crate) fn metered(self, meter: Option<Meter>) -> Self {
        let meter = meter.map(Box::new);
        Self { meter, ..self }
    }

    /// Its number.
    pub(crate) fn id(&self) -> ConnectionId {
        self.id
    }

    /// In which form its messages are.
    #[inline]
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Where it stands.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// It has to say by `close_by` for whom it speaks.
    pub(crate) fn await_token(&self, identity: Identity, close_by: u64) {
        self.phase.set(Phase::Authenticating);
        self.awaited.set(Some(identity));
        self.close_by.set(close_by);
    }

    /// It said it, and is opened by `Welcome`. Returns for whom it is to speak, if it was asked.
    pub(crate) fn token_came(&self) -> Option<Identity> {
        let identity = self.awaited.take()?;
        self.phase.set(Phase::Opening);
        self.close_by.set(u64::MAX);
        Some(identity)
    }

    /// It was welcomed.
    pub(crate) fn open(&self, is_durable: bool) {
        self.phase.set(Phase::Open);
        self.is_durable.set(is_durable);
    }

    /// Whether it is the server's own: nobody is at the other end whose silence would tell anything.
    pub(crate) fn is_inner(&self) -> bool {
        self.is_inner
    }

    /// Whether its cursors are to be told.
    pub(crate) fn is_durable(&self) -> bool {
        self.is_durable.get()
    }

    /// Its credit.
    pub(crate) fn credit(&self) -> &Credit {
        &self.credit
    }
}

/// Reading.
impl Connection {
    /// Reads what has come into `buffer`; 0 is the end.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut socket = self.socket.borrow_mut();
        let Some(socket) = socket.as_mut() else {
            return Poll::Pending;
        };
        let len = ready!(actix_codec::poll_read_buf(Pin::new(socket), cx, buffer))?;
        self.has_heard.set(true);
        Poll::Ready(Ok(len))
    }

    /// Whether the session may take another message.
    pub(crate) fn may_take(&self) -> bool {
        !self.takes_no_more.get() && self.credit.may_take()
    }

    /// Counts a message of `bytes` bytes.
    ///
    /// # Errors
    /// If it is over a rate: the time after which it would not be.
    pub(crate) fn count(&self, bytes: usize) -> Result<(), Duration> {
        if let Some(meter) = &self.meter {
            meter.take(bytes)?;
        }
        match self.identity_meter.get() {
            None => Ok(()),
            Some(meter) => meter.take(bytes),
        }
    }

    /// All connections of its identity together may send no more than `meter` allows.
    pub(crate) fn share_meter(&self, meter: Arc<Meter>) {
        // An identity does not change.
        let _ = self.identity_meter.set(meter);
    }

    /// The session takes nothing more from this client, which is about to be closed.
    pub(crate) fn take_no_more(&self) {
        self.takes_no_more.set(true);
    }

    /// Notes whether the server itself keeps the session from reading: that time is not the client's.
    pub(crate) fn hold_back(&self, is_held_back: bool) {
        self.is_held_back.set(is_held_back);
    }

    /// Notes whether the session waits for the budget that all connections share. Returns whether it did.
    pub(crate) fn park(&self, is_parked: bool) -> bool {
        self.is_parked.replace(is_parked)
    }

    /// Notes whether the session's reader could go on at once.
    pub(crate) fn set_has_input(&self, has_input: bool) {
        self.has_input.set(has_input);
    }

    /// Whether the session's reader could go on at once.
    pub(crate) fn has_input(&self) -> bool {
        self.has_input.get()
    }
}

/// Waking, and being written to.
impl Connection {
    /// The connection's task is polled with this waker.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        let mut current = self.waker.borrow_mut();
        match &mut *current {
            Some(current) => current.clone_from(waker),
            None => *current = Some(waker.clone()),
        }
    }

    /// Wakes the connection's task.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Marks that something was queued. Returns whether the connection has to be put among those to be flushed: not if it is there,
    /// nor if its own task flushes it as soon as the socket takes more.
    #[inline]
    pub(crate) fn mark_dirty(&self) -> bool {
        !self.is_blocked.get() && !self.is_dirty.replace(true)
    }

    /// Whether the last write left something.
    pub(crate) fn is_blocked(&self) -> bool {
        self.is_blocked.get()
    }

    /// Writes what waits, as far as the socket takes it. Returns what it came to, and what it gave back.
    ///
    /// # Errors
    /// If the socket is broken.
    pub(crate) fn write(&self) -> (io::Result<Written>, Flushed) {
        self.is_dirty.set(false);
        let mut flushed = Flushed::default();
        let written = self.write_all(&mut flushed);
        let is_blocked = matches!(written, Ok(Written::Some));
        self.is_blocked.set(is_blocked);
        if is_blocked {
            self.page_size.set(0);
        }
        (written, flushed)
    }

    fn write_all(&self, flushed: &mut Flushed) -> io::Result<Written> {
        let waker = self.waker.borrow();
        let mut socket = self.socket.borrow_mut();
        let (Some(waker), Some(socket)) = (waker.as_ref(), socket.as_mut()) else {
            // Before its first turn and behind its end, the task flushes by itself or not at all.
            return Ok(Written::All);
        };
        let cx = &mut Context::from_waker(waker);
        let mut outbox = self.outbox.borrow_mut();
        while !outbox.is_empty() {
            let socket = Pin::new(&mut *socket);
            let written = match outbox.single() {
                Some(single) => socket.poll_write(cx, single),
                None => {
                    let mut slices = [IoSlice::new(&[]); outbox::MAX_SLICES];
                    let count = outbox.slices(&mut slices);
                    socket.poll_write_vectored(cx, &slices[..count])
                }
            };
            match written {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => {
                    flushed.credited.add(outbox.wrote(len));
                    flushed.sent += len as u64;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Written::Some),
            }
        }
        match Pin::new(socket).poll_flush(cx) {
            Poll::Ready(flushed) => flushed.map(|()| Written::All),
            Poll::Pending => Ok(Written::Some),
        }
    }
}

/// Queueing.
impl Connection {
    /// Queues an answer. Returns credit that is given back at once, because nothing may be answered any more.
    pub(crate) fn answer(
        &self,
        request_id: Option<RequestId>,
        response: &ServerResponse,
        credit: Credited,
    ) -> Credited {
        let mut outbox = self.outbox.borrow_mut();
        match outbox.answers() {
            Some(out) => {
                encode(self.form, out, request_id, response);
                outbox.answered(credit);
                Credited::default()
            }
            None => credit,
        }
    }

    /// Queues bytes of an answer that were encoded already.
    pub(crate) fn answer_encoded(&self, bytes: &[u8]) {
        let mut outbox = self.outbox.borrow_mut();
        if let Some(out) = outbox.answers() {
            out.extend_from_slice(bytes);
            outbox.answered(Credited::default());
        }
    }

    /// Offers released publications to one of the connection's subscribers, and queues them if they are next and find room. Their frames are
    /// in CBOR: for a connection in JSON, see [`deliver_json`](Self::deliver_json).
    #[inline]
    pub(crate) fn deliver(
        &self,
        subscriber: &Rc<Subscriber>,
        chunk: &Chunk,
        outbox_size: usize,
    ) -> Offer {
        let sequences = (chunk.first, chunk.last);
        self.offer(subscriber, sequences, &chunk.frames, outbox_size)
    }

    /// The same in JSON. `frames` gives those of `chunk`, and is asked only if they are next and likely to find room.
    pub(crate) fn deliver_json<'f>(
        &self,
        subscriber: &Rc<Subscriber>,
        chunk: &Chunk,
        frames: impl FnOnce() -> &'f Bytes,
        outbox_size: usize,
    ) -> Offer {
        let is_wanted = subscriber.position().next() == chunk.first
            && self
                .outbox
                .borrow()
                .has_room(chunk.frames.len(), outbox_size);
        if !is_wanted {
            return subscriber.offer(chunk.first, chunk.last, false);
        }
        let sequences = (chunk.first, chunk.last);
        self.offer(subscriber, sequences, frames(), outbox_size)
    }

    #[inline]
    fn offer(
        &self,
        subscriber: &Rc<Subscriber>,
        (first, last): (Sequence, Sequence),
        frames: &Bytes,
        outbox_size: usize,
    ) -> Offer {
        let mut outbox = self.outbox.borrow_mut();
        let has_room = outbox.has_room(frames.len(), outbox_size);
        let offer = subscriber.offer(first, last, has_room);
        if offer == Offer::Taken {
            outbox.push(Rc::clone(subscriber), frames.clone(), last);
        }
        offer
    }

    /// Queues publications of a Queue that one of the connection's subscribers has on lease.
    pub(crate) fn deliver_leased(
        &self,
        subscriber: &Rc<Subscriber>,
        publications: &[(Bytes, u32)],
    ) {
        let mut outbox = self.outbox.borrow_mut();
        let (mut out, mut leased) = (Vec::new(), 0);
        for (place, (frame, delivery)) in publications.iter().enumerate() {
            if let Ok((publication, _)) = StoredPublication::split_first(frame) {
                publication.encode_delivery(u64::from(*delivery), &mut out);
            }
            leased += frame.len();
            // Items of this size go one by one when they are written.
            if out.len() >= LEASED_ITEM || place + 1 == publications.len() {
                let last = subscriber.lease(mem::take(&mut leased));
                let frames = in_form(self.form, mem::take(&mut out).into());
                outbox.push(Rc::clone(subscriber), frames, last);
            }
        }
    }

    /// What only its owner changes: see [`Outbox`].
    pub(crate) fn with_outbox<T>(&self, change: impl FnOnce(&mut Outbox) -> T) -> T {
        change(&mut self.outbox.borrow_mut())
    }
}

/// Heartbeat and end.
impl Connection {
    /// Looks whether the client is still there.
    pub(crate) fn look(&self, now: u64, limits: &HeartbeatLimits) -> Verdict {
        if self.is_inner {
            return Verdict::Well;
        }
        let outbox = self.outbox.borrow();
        let observed = Observed {
            heard: self.has_heard.take(),
            is_held_back: self.is_held_back.get(),
            outbox_waits: !outbox.is_empty(),
            publications_wait: outbox.has_publications(),
            written: outbox.written(),
            publications_written_to: outbox.publications_written_to(),
        };
        let mut heartbeat = self.heartbeat.get();
        let verdict = heartbeat.look(now, limits, observed, || {
            self.socket
                .borrow()
                .as_ref()
                .and_then(socket::unacknowledged)
        });
        self.heartbeat.set(heartbeat);
        verdict
    }

    /// The Close frame is queued behind what waits; `keep` tells whether publications do.
    pub(crate) fn close(&self, code: Option<u16>, reason: &str, keep: bool, close_by: u64) {
        self.phase.set(Phase::Closing);
        self.close_by.set(close_by);
        let mut outbox = self.outbox.borrow_mut();
        if !keep {
            outbox.drop_publications();
        }
        outbox.push_close(code, reason);
    }

    /// The time by which a closing connection is dropped, or one that says nothing is closed.
    pub(crate) fn close_by(&self) -> u64 {
        self.close_by.get()
    }

    /// Brings that time forward.
    pub(crate) fn hurry(&self, close_by: u64) {
        self.close_by.set(self.close_by.get().min(close_by));
    }

    /// The peer's Close frame came.
    pub(crate) fn set_peer_closed(&self) {
        self.peer_closed.set(true);
    }

    /// Whether it did.
    pub(crate) fn peer_closed(&self) -> bool {
        self.peer_closed.get()
    }

    /// Gives everything up but the subscribers' cursors, which are returned with what was held; wakes the task, so that it ends.
    pub(crate) fn end(&self) -> (Vec<Handed>, VecDeque<Held>) {
        self.phase.set(Phase::Ended);
        let outbox = self.outbox.take();
        outbox.hand_whole_frames();
        let cursors = self.cursors();
        for subscriber in self.subscribers.take() {
            subscriber.detach();
        }
        self.behind.take();
        if let Some(socket) = self.socket.take() {
            socket.part();
        }
        self.permit.take();
        let held = mem::take(&mut *self.held.borrow_mut());
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        (cursors, held)
    }
}

/// A bare response as bytes of its own.
pub(crate) fn encoded(form: Form, response: &ServerResponse) -> Bytes {
    let mut out = BytesMut::new();
    encode(form, &mut out, None, response);
    out.freeze()
}

fn encode(
    form: Form,
    out: &mut BytesMut,
    request_id: Option<RequestId>,
    response: &ServerResponse,
) {
    match form {
        Form::Cbor => codec::encode_response(out, request_id, response),
        Form::Json => json::encode_response(out, request_id, response),
    }
}

/// Ready CBOR frames as frames of this form.
pub(crate) fn in_form(form: Form, frames: Bytes) -> Bytes {
    match form {
        Form::Cbor => frames,
        Form::Json => json::convert_frames(&frames),
    }
}
