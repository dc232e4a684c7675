//! The ceiling: a server on one thread that does the least that one could do for a publication.
//!
//! What one round of epoll brings for a topic is one run of ready frames, and one send for each subscriber. Publishes that
//! want it are acknowledged at the end of the round, with `--file` behind one write of all of them, with `--sync` behind one
//! fdatasync too. It checks nothing, keeps nothing, forgets no subscriber, and trusts whoever connects: loopback only.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Write},
    net::SocketAddrV4,
    os::fd::OwnedFd,
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, ipproto,
        listen, recv, send, socket_with,
        sockopt::{set_socket_reuseaddr, set_tcp_nodelay},
    },
};

use crate::{
    arguments::{Arguments, Misused},
    measure::now_ns,
    raw::{ACK, PUBLISH, PUBLISH_ACKED, SUBSCRIBE, SUBSCRIBED},
    websocket::{ACCEPT, BINARY, mask, server_frame},
};

const LISTENER: u64 = u64::MAX;
/// More topics than any load has.
const TOPICS: usize = 1 << 16;
const READ_SIZE: usize = 256 << 10;

pub(crate) fn serve(arguments: &Arguments) -> Result<(), Misused> {
    let until = now_ns() + arguments.nanoseconds("seconds", 120.0)?;
    let log = match arguments.text("file") {
        Some(path) => Some(File::create(path).map_err(|error| format!("{path}: {error}"))?),
        None => None,
    };
    let serve = || -> io::Result<()> {
        let mut server = Limit::listen(arguments.address, log, arguments.has("sync"))?;
        while now_ns() < until {
            server.round()?;
        }
        Ok(())
    };
    serve().map_err(|error| error.to_string())
}

struct Client {
    socket: OwnedFd,
    is_up: bool,
    /// The beginning of a message that is not there whole.
    carry: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    waits_to_write: bool,
}

#[derive(Default, Clone)]
struct Topic {
    subscribers: Vec<usize>,
    /// Frames of this round.
    frames: Vec<u8>,
}

struct Limit {
    epoll: OwnedFd,
    listener: OwnedFd,
    /// By number; those who left are none.
    clients: Vec<Option<Client>>,
    topics: Vec<Topic>,
    published_to: BTreeSet<usize>,
    /// Who is to be acknowledged what at the end of this round.
    acks: Vec<(usize, [u8; 8])>,
    log: Option<File>,
    syncs: bool,
    records: Vec<u8>,
    buffer: Vec<u8>,
    events: Vec<Event>,
}

impl Limit {
    fn listen(address: SocketAddrV4, log: Option<File>, syncs: bool) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let listener = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            flags,
            Some(ipproto::TCP),
        )?;
        set_socket_reuseaddr(&listener, true)?;
        bind(&listener, &address)?;
        listen(&listener, 4096)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let data = EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, data, EventFlags::IN)?;
        Ok(Self {
            epoll,
            listener,
            clients: Vec::new(),
            topics: vec![Topic::default(); TOPICS],
            published_to: BTreeSet::new(),
            acks: Vec::new(),
            log,
            syncs,
            records: Vec::new(),
            buffer: vec![0; READ_SIZE],
            events: Vec::with_capacity(1024),
        })
    }

    fn round(&mut self) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let (number, flags) = (event.data.u64(), event.flags);
            if number == LISTENER {
                self.accept()?;
                continue;
            }
            if flags.contains(EventFlags::OUT) {
                self.flush(number as usize);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(number as usize);
            }
        }
        self.events = events;
        self.keep()?;
        self.acknowledge();
        self.spread();
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        while let Ok(socket) = accept_with(&self.listener, flags) {
            set_tcp_nodelay(&socket, true)?;
            let data = EventData::new_u64(self.clients.len() as u64);
            epoll::add(&self.epoll, &socket, data, EventFlags::IN)?;
            self.clients.push(Some(Client {
                socket,
                is_up: false,
                carry: Vec::new(),
                out: Vec::new(),
                sent: 0,
                waits_to_write: false,
            }));
        }
        Ok(())
    }

    fn read(&mut self, number: usize) {
        let Some(client) = &mut self.clients[number] else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        match recv(&client.socket, &mut buffer[..], RecvFlags::empty()) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok((0, _)) | Err(_) => self.clients[number] = None,
            Ok((length, _)) if client.carry.is_empty() => {
                let used = self.take(number, &mut buffer[..length]);
                self.keep_rest(number, &buffer[used..length]);
            }
            Ok((length, _)) => {
                let mut begun = std::mem::take(&mut client.carry);
                begun.extend_from_slice(&buffer[..length]);
                let used = self.take(number, &mut begun);
                self.keep_rest(number, &begun[used..]);
            }
        }
        self.buffer = buffer;
        self.flush(number);
    }

    fn keep_rest(&mut self, number: usize, rest: &[u8]) {
        if let Some(client) = &mut self.clients[number] {
            client.carry.extend_from_slice(rest);
        }
    }

    /// Takes the whole messages at the front of `bytes`, and says how many bytes that were.
    fn take(&mut self, number: usize, bytes: &mut [u8]) -> usize {
        let mut used = 0;
        let Some(client) = &mut self.clients[number] else {
            return 0;
        };
        if !client.is_up {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
                return 0;
            };
            client.is_up = true;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            );
            client.out.extend_from_slice(answer.as_bytes());
            used = end + 4;
        }
        while let Some((opcode, payload, length)) = masked_frame(&mut bytes[used..]) {
            used += length;
            if opcode == BINARY {
                self.message(number, payload);
            }
        }
        used
    }

    fn message(&mut self, number: usize, message: &[u8]) {
        let &[kind, a, b, c, d, ref payload @ ..] = message else {
            return;
        };
        let topic = u32::from_le_bytes([a, b, c, d]) as usize % TOPICS;
        let of_topic = &mut self.topics[topic];
        match (kind, payload.split_first_chunk()) {
            (SUBSCRIBE, _) => {
                of_topic.subscribers.push(number);
                if let Some(client) = &mut self.clients[number] {
                    server_frame(&mut client.out, BINARY, &[&[SUBSCRIBED]]);
                }
            }
            (PUBLISH, _) => {
                server_frame(&mut of_topic.frames, BINARY, &[message]);
                self.published_to.insert(topic);
            }
            (PUBLISH_ACKED, Some((slot, payload))) => {
                self.acks.push((number, *slot));
                self.records
                    .extend_from_slice(&(payload.len() as u32).to_le_bytes());
                self.records.extend_from_slice(&message[1..5]);
                self.records.extend_from_slice(payload);
            }
            _ => {}
        }
    }

    fn keep(&mut self) -> io::Result<()> {
        if let Some(log) = &mut self.log
            && !self.records.is_empty()
        {
            log.write_all(&self.records)?;
            if self.syncs {
                log.sync_data()?;
            }
        }
        self.records.clear();
        Ok(())
    }

    fn acknowledge(&mut self) {
        let acks = std::mem::take(&mut self.acks);
        for of_one in acks.chunk_by(|a, b| a.0 == b.0) {
            let number = of_one[0].0;
            if let Some(client) = &mut self.clients[number] {
                for (_, slot) in of_one {
                    server_frame(&mut client.out, BINARY, &[&[ACK], slot]);
                }
            }
            self.flush(number);
        }
        self.acks = acks;
        self.acks.clear();
    }

    fn spread(&mut self) {
        while let Some(topic) = self.published_to.pop_first() {
            let Topic {
                subscribers,
                mut frames,
            } = std::mem::take(&mut self.topics[topic]);
            for &number in &subscribers {
                let Some(client) = &mut self.clients[number] else {
                    continue;
                };
                let sent = if client.out.is_empty() {
                    send(&client.socket, &frames, SendFlags::NOSIGNAL).unwrap_or(0)
                } else {
                    0
                };
                if sent < frames.len() {
                    client.out.extend_from_slice(&frames[sent..]);
                    self.flush(number);
                }
            }
            frames.clear();
            self.topics[topic] = Topic {
                subscribers,
                frames,
            };
        }
    }

    fn flush(&mut self, number: usize) {
        let Some(client) = &mut self.clients[number] else {
            return;
        };
        while client.sent < client.out.len() {
            match send(
                &client.socket,
                &client.out[client.sent..],
                SendFlags::NOSIGNAL,
            ) {
                Ok(sent) => client.sent += sent,
                // A connection that is broken is found by its next read.
                Err(_) => break,
            }
        }
        let waits = client.sent < client.out.len();
        if !waits {
            client.out.clear();
            client.sent = 0;
        }
        if client.waits_to_write != waits {
            client.waits_to_write = waits;
            let mut flags = EventFlags::IN;
            flags.set(EventFlags::OUT, waits);
            let data = EventData::new_u64(number as u64);
            epoll::modify(&self.epoll, &client.socket, data, flags)
                .expect("invariant: a client's socket was added when it was accepted");
        }
    }
}

/// The client's frame at the front of `bytes`, if it is there whole: its opcode, its payload, and its length with all.
fn masked_frame(bytes: &mut [u8]) -> Option<(u8, &[u8], usize)> {
    let &mut [first, second, ref rest @ ..] = bytes else {
        return None;
    };
    let (head, length) = match second & 127 {
        126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    let key = *bytes.get(head..)?.first_chunk()?;
    let from = head + 4;
    let whole = from.checked_add(usize::try_from(length).ok()?)?;
    let payload = bytes.get_mut(from..whole)?;
    mask(payload, key);
    Some((first & 15, payload, whole))
}
