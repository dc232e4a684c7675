//! One thread, one epoll, non-blocking sockets: everything that all protocols share.
//!
//! Owns the connections, their buffers and the counters. Does not know what is in the bytes (the adapter does), nor when to
//! publish (the scenario does). Invariant: nothing here waits, but for [`Engine::poll`] as long as it is told to.

use std::{collections::VecDeque, net::SocketAddrV4, os::fd::OwnedFd};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, recv,
        send, socket_with, sockopt::set_tcp_nodelay,
    },
};

use crate::{
    adapter::{Adapter, Context, Mask, REFUSED, Role, Sink},
    histogram::Histogram,
    measure::now_ns,
    websocket::{self, BINARY, CLOSE, PING, PONG, Reader},
};

/// How much one read takes at most.
const READ_SIZE: usize = 256 << 10;
/// By so much an unfinished message of a stream is completed at a time: what lies behind it is parsed where it lies.
const CARRY_STEP: usize = 4096;
/// Connections that may be unfinished at once: less than a listener's queue.
const CONNECTING_AT_ONCE: usize = 256;
/// Connections from one source address, so that there are ports enough.
const CONNECTIONS_PER_ADDRESS: usize = 4000;
/// Sent bytes are dropped from the front of a buffer when they are so many.
const SENT_KEPT: usize = 1 << 20;

#[derive(PartialEq, Clone, Copy)]
enum State {
    Connecting,
    Upgrading,
    Up,
    Dead,
}

pub(crate) struct Connection {
    /// None: a dead one, or a test's.
    socket: Option<OwnedFd>,
    state: State,
    out: Vec<u8>,
    /// How much of `out` was sent.
    sent: usize,
    waits_to_write: bool,
    reader: Reader,
    /// What came of an unfinished message.
    carry: Vec<u8>,
    /// What came of an unfinished control frame.
    control: Vec<u8>,
    context: Context,
    pub(crate) ready: bool,
    /// Slots for publishes that may be unacknowledged.
    pub(crate) free: VecDeque<u32>,
    pub(crate) sent_at: Vec<u64>,
}

/// A connection to be made: whether its publishes are acknowledged follows from its having slots.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) role: Role,
    pub(crate) topic: u32,
    pub(crate) slots: u32,
}

pub(crate) struct Engine {
    adapter: Box<dyn Adapter>,
    epoll: OwnedFd,
    address: SocketAddrV4,
    pub(crate) connections: Vec<Connection>,
    pub(crate) delivered_by_topic: Vec<u64>,
    pub(crate) delivered: u64,
    pub(crate) acked: u64,
    /// Publishes that were answered with an error.
    pub(crate) refused: u64,
    pub(crate) published: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: String,
    pub(crate) dead: u64,
    pub(crate) reads: u64,
    ready: usize,
    /// Of deliveries, if they are measured; their payloads begin with a time stamp then.
    pub(crate) latency: Histogram,
    pub(crate) measures_latency: bool,
    pub(crate) ack_latency: Histogram,
    /// Connections whose publishes were answered in the last poll.
    pub(crate) answered: Vec<usize>,
    read_buffer: Vec<u8>,
    message: Vec<u8>,
    acks: Vec<u32>,
    mask: Mask,
    events: Vec<Event>,
}

const READS: EventFlags = EventFlags::IN;
const READS_AND_WRITES: EventFlags = EventFlags::IN.union(EventFlags::OUT);

impl Engine {
    pub(crate) fn new(
        adapter: Box<dyn Adapter>,
        address: SocketAddrV4,
        topics: usize,
    ) -> rustix::io::Result<Self> {
        Ok(Self {
            adapter,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            address,
            connections: Vec::new(),
            delivered_by_topic: vec![0; topics],
            delivered: 0,
            acked: 0,
            refused: 0,
            published: 0,
            errors: 0,
            first_error: String::new(),
            dead: 0,
            reads: 0,
            ready: 0,
            latency: Histogram::new(),
            measures_latency: false,
            ack_latency: Histogram::new(),
            answered: Vec::new(),
            read_buffer: vec![0; READ_SIZE],
            message: Vec::new(),
            acks: Vec::new(),
            mask: Mask(0x9e37_79b9),
            events: Vec::with_capacity(1024),
        })
    }

    fn add(&mut self, socket: Option<OwnedFd>, state: State, wanted: Wanted, acked: bool) {
        let Wanted { role, topic, slots } = wanted;
        self.connections.push(Connection {
            socket,
            state,
            out: Vec::new(),
            sent: 0,
            waits_to_write: state == State::Connecting,
            reader: Reader::default(),
            carry: Vec::new(),
            control: Vec::new(),
            context: Context {
                role,
                topic,
                id: self.connections.len() as u32,
                acked,
                stage: 0,
                sequence: 0,
                slots: slots.into(),
            },
            ready: false,
            free: (0..slots).collect(),
            sent_at: vec![0; slots as usize],
        });
    }

    fn open(&mut self, wanted: Wanted) -> rustix::io::Result<()> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            Some(ipproto::TCP),
        )?;
        set_tcp_nodelay(&socket, true)?;
        let number = self.connections.len();
        let from = [127, 0, 0, 2 + (number / CONNECTIONS_PER_ADDRESS) as u8];
        bind(&socket, &SocketAddrV4::new(from.into(), 0))?;
        match connect(&socket, &self.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let data = EventData::new_u64(number as u64);
        epoll::add(&self.epoll, &socket, data, READS_AND_WRITES)?;
        self.add(Some(socket), State::Connecting, wanted, wanted.slots > 0);
        Ok(())
    }

    /// Opens connections, and waits until all are ready.
    pub(crate) fn connect_all(&mut self, wanted: &[Wanted], seconds: f64) -> Result<(), String> {
        let began = now_ns();
        let before = self.ready;
        let mut next = 0;
        loop {
            let ready = self.ready - before;
            if ready == wanted.len() {
                return Ok(());
            }
            while next < wanted.len() && next - ready < CONNECTING_AT_ONCE {
                self.open(wanted[next])
                    .map_err(|error| format!("connecting: {error}"))?;
                next += 1;
            }
            self.poll(50);
            self.all_alive()?;
            if (now_ns() - began) as f64 / 1e9 > seconds {
                let all = wanted.len();
                return Err(format!("only {ready} of {all} ready after {seconds} s"));
            }
        }
    }

    /// An error if the server closed a connection.
    pub(crate) fn all_alive(&self) -> Result<(), String> {
        match self.dead {
            0 => Ok(()),
            dead => Err(format!("{dead} connections were closed")),
        }
    }

    /// Puts one publish into the connection's buffer; [`flush`](Self::flush) sends it.
    #[inline]
    pub(crate) fn publish(&mut self, number: usize, slot: u32, payload: &[u8]) {
        let connection = &mut self.connections[number];
        let (context, out) = (&mut connection.context, &mut connection.out);
        if self.adapter.is_websocket() {
            self.message.clear();
            self.adapter
                .publish(context, slot, payload, &mut self.message);
            websocket::frame(out, BINARY, &self.message, self.mask.next());
        } else {
            self.adapter.publish(context, slot, payload, out);
        }
        self.published += 1;
    }

    /// Bytes that wait to be sent.
    pub(crate) fn backlog(&self, number: usize) -> usize {
        let connection = &self.connections[number];
        connection.out.len() - connection.sent
    }

    pub(crate) fn flush(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        let Some(socket) = &connection.socket else {
            return;
        };
        while connection.sent < connection.out.len() {
            match send(
                socket,
                &connection.out[connection.sent..],
                SendFlags::NOSIGNAL,
            ) {
                Ok(sent) => connection.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if connection.sent > SENT_KEPT {
                        connection.out.drain(..connection.sent);
                        connection.sent = 0;
                    }
                    return self.wait_to_write(number, true);
                }
                Err(_) => return self.kill(number),
            }
        }
        connection.out.clear();
        connection.sent = 0;
        self.wait_to_write(number, false);
    }

    fn wait_to_write(&mut self, number: usize, waits: bool) {
        let connection = &mut self.connections[number];
        let Some(socket) = &connection.socket else {
            return;
        };
        if connection.waits_to_write == waits {
            return;
        }
        connection.waits_to_write = waits;
        let flags = if waits { READS_AND_WRITES } else { READS };
        epoll::modify(
            &self.epoll,
            socket,
            EventData::new_u64(number as u64),
            flags,
        )
        .expect("invariant: an open socket was added when it was made");
    }

    fn kill(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if connection.state != State::Dead {
            connection.state = State::Dead;
            connection.socket = None;
            self.dead += 1;
        }
    }

    fn note(&mut self, error: impl FnOnce() -> String) {
        if self.first_error.is_empty() {
            self.first_error = error();
        }
    }

    /// One round of epoll, which waits so many milliseconds at most; says how many events there were.
    pub(crate) fn poll(&mut self, milliseconds: i64) -> usize {
        self.answered.clear();
        let timeout = Timespec {
            tv_sec: milliseconds / 1000,
            tv_nsec: milliseconds % 1000 * 1_000_000,
        };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout));
        let count = waited.unwrap_or(0);
        for event in &events {
            let (number, flags) = (event.data.u64() as usize, event.flags);
            if self.connections[number].state == State::Connecting {
                self.connected(number, flags);
                continue;
            }
            if flags.contains(EventFlags::OUT) {
                self.flush(number);
            }
            if flags.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP) {
                self.readable(number);
            }
        }
        self.events = events;
        count
    }

    fn connected(&mut self, number: usize, flags: EventFlags) {
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            self.note(|| "the server can't be connected to".to_owned());
            return self.kill(number);
        }
        let connection = &mut self.connections[number];
        if self.adapter.is_websocket() {
            connection.state = State::Upgrading;
            let (path, subprotocol) = (self.adapter.path(), self.adapter.subprotocol());
            connection.out = websocket::upgrade(&self.address.to_string(), path, subprotocol);
        } else {
            connection.state = State::Up;
            self.hello(number);
        }
        self.flush(number);
    }

    pub(crate) fn hello(&mut self, number: usize) {
        self.with_sink(number, |adapter, context, sink| {
            adapter.hello(context, sink);
            0
        });
    }

    fn readable(&mut self, number: usize) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        if let Some(socket) = &self.connections[number].socket {
            match recv(socket, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok((0, _)) | Err(_) => {
                    self.note(|| "closed by the server".to_owned());
                    self.kill(number);
                }
                Ok((length, _)) => {
                    self.reads += 1;
                    self.take(number, &buffer[..length]);
                }
            }
        }
        self.read_buffer = buffer;
    }

    fn take(&mut self, number: usize, bytes: &[u8]) {
        if self.connections[number].state == State::Upgrading {
            self.upgrading(number, bytes);
        } else if self.adapter.is_websocket() {
            self.feed(number, bytes);
        } else {
            self.stream(number, bytes);
        }
        if self.backlog(number) > 0 {
            self.flush(number);
        }
    }

    fn upgrading(&mut self, number: usize, bytes: &[u8]) {
        let connection = &mut self.connections[number];
        connection.carry.extend_from_slice(bytes);
        let Some(end) = memchr::memmem::find(&connection.carry, b"\r\n\r\n") else {
            return;
        };
        let answer = std::mem::take(&mut connection.carry);
        if !answer.starts_with(b"HTTP/1.1 101") {
            self.note(|| String::from_utf8_lossy(&answer[..end.min(200)]).into_owned());
            return self.kill(number);
        }
        connection.state = State::Up;
        self.hello(number);
        self.feed(number, &answer[end + 4..]);
    }

    /// Takes bytes that came on a WebSocket.
    pub(crate) fn feed(&mut self, number: usize, mut bytes: &[u8]) {
        let is_stream = self.adapter.is_stream();
        let mut reader = std::mem::take(&mut self.connections[number].reader);
        while let Some(piece) = reader.next(&mut bytes) {
            if piece.opcode >= CLOSE {
                self.control(number, piece.opcode, piece.data, piece.ends_frame);
            } else if is_stream {
                self.stream(number, piece.data);
            } else {
                let ends = piece.ends_frame && piece.is_final;
                self.message(number, piece.data, ends);
            }
        }
        self.connections[number].reader = reader;
    }

    #[inline]
    fn message(&mut self, number: usize, data: &[u8], ends: bool) {
        let carry = &mut self.connections[number].carry;
        if ends && carry.is_empty() {
            if !data.is_empty() {
                self.parse(number, data);
            }
            return;
        }
        carry.extend_from_slice(data);
        if ends {
            let mut message = std::mem::take(carry);
            self.parse(number, &message);
            message.clear();
            self.connections[number].carry = message;
        }
    }

    fn control(&mut self, number: usize, opcode: u8, data: &[u8], ends: bool) {
        let connection = &mut self.connections[number];
        connection.control.extend_from_slice(data);
        if !ends {
            return;
        }
        let payload = std::mem::take(&mut connection.control);
        let out = &mut connection.out;
        match (opcode, &payload[..]) {
            (PING, payload) => websocket::frame(out, PONG, payload, self.mask.next()),
            (CLOSE, payload) => {
                let (code, reason) = payload.split_at(payload.len().min(2));
                websocket::frame(out, CLOSE, code, self.mask.next());
                let role = connection.context.role;
                let code = code.try_into().map_or(0, u16::from_be_bytes);
                let reason = String::from_utf8_lossy(reason);
                self.note(|| format!("close frame {code} on a {role:?} connection: {reason}"));
                self.flush(number);
                self.kill(number);
            }
            _ => {}
        }
    }

    /// Takes bytes of a protocol whose messages follow one another without frames.
    pub(crate) fn stream(&mut self, number: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.connections[number].carry.is_empty() {
                let used = self.parse(number, bytes);
                let carry = &mut self.connections[number].carry;
                return carry.extend_from_slice(&bytes[used..]);
            }
            let mut begun = std::mem::take(&mut self.connections[number].carry);
            let had = begun.len();
            let step = bytes.len().min(CARRY_STEP);
            begun.extend_from_slice(&bytes[..step]);
            let used = self.parse(number, &begun);
            if used >= had {
                bytes = &bytes[used - had..];
                begun.clear();
            } else {
                begun.drain(..used);
                bytes = &bytes[step..];
            }
            self.connections[number].carry = begun;
        }
    }

    #[inline]
    fn parse(&mut self, number: usize, bytes: &[u8]) -> usize {
        self.with_sink(number, |adapter, context, sink| {
            adapter.parse(context, bytes, sink)
        })
    }

    /// Lets the adapter work at a connection, and counts what it tells.
    #[inline]
    fn with_sink(
        &mut self,
        number: usize,
        work: impl FnOnce(&dyn Adapter, &mut Context, &mut Sink<'_>) -> usize,
    ) -> usize {
        let connection = &mut self.connections[number];
        let measures = self.measures_latency;
        let mut sink = Sink {
            deliveries: 0,
            acks: &mut self.acks,
            now: if measures { now_ns() } else { 0 },
            latency: measures.then_some(&mut self.latency),
            ready: false,
            errors: 0,
            first_error: &mut self.first_error,
            out: &mut connection.out,
            opcode: self.adapter.is_websocket().then_some(BINARY),
            mask: &mut self.mask,
        };
        let used = work(&*self.adapter, &mut connection.context, &mut sink);
        let (deliveries, ready, errors) = (sink.deliveries, sink.ready, sink.errors);
        self.delivered += deliveries;
        self.delivered_by_topic[connection.context.topic as usize] += deliveries;
        self.errors += errors;
        if ready && !connection.ready {
            connection.ready = true;
            self.ready += 1;
        }
        if !self.acks.is_empty() {
            self.count_acks(number);
        }
        used
    }

    fn count_acks(&mut self, number: usize) {
        let now = now_ns();
        let connection = &mut self.connections[number];
        for ack in self.acks.drain(..) {
            let (slot, refused) = (ack & !REFUSED, ack & REFUSED != 0);
            self.refused += u64::from(refused);
            self.acked += u64::from(!refused);
            if let Some(sent_at) = connection.sent_at.get(slot as usize) {
                if !refused {
                    self.ack_latency.add(now.saturating_sub(*sent_at));
                }
                connection.free.push_back(slot);
            }
        }
        self.answered.push(number);
    }
}

/// Without sockets: tests feed the bytes.
#[cfg(test)]
impl Engine {
    pub(crate) fn without_sockets(adapter: Box<dyn Adapter>) -> Self {
        Self::new(adapter, SocketAddrV4::new([127, 0, 0, 1].into(), 1), 1).unwrap()
    }

    /// A connection that is up; its slots are in use.
    pub(crate) fn fake(&mut self, role: Role, acked: bool, slots: u32) {
        let wanted = Wanted {
            role,
            topic: 0,
            slots,
        };
        self.add(None, State::Up, wanted, acked);
        let added = self.connections.last_mut().unwrap();
        added.free.clear();
    }

    pub(crate) fn sent(&self, number: usize) -> &[u8] {
        &self.connections[number].out
    }
}
