//! The actor of one connection: from frames to messages.
//!
//! Owns what it takes to read one client, and what is said between the messages: pings and the end. Does not own what messages mean: that is
//! its [`Conversation`]. Does not write: everything that goes out lies in the connection's outbox. It is an actix-web-actors
//! `WebsocketContext` actor whose messages come from our own reader, since the context's own would copy each frame and stop the actor while
//! its client does not read.
//!
//! ```text
//!   socket ──> Reader ──ws::Message──> WebSocketSession ──> Commands ──Incoming──> ConnectionTask ──one Forward a turn──> PubSubService
//! ```
//!
//! Invariants: a message is taken only while there is credit; what one turn of the task brought is forwarded before the turn ends.

use std::{
    marker::PhantomData,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix::{Actor, StreamHandler};
use actix_http::ws::{CloseReason, Message, ProtocolError};
use actix_web_actors::ws::WebsocketContext;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use super::{authentication::MAX_FIRST_MESSAGE, worker::Worker};
use crate::{
    access::Admission,
    connection::{Connection, FrameReader, Phase, Received},
    domain::Identity,
};

/// How many times a task polls its session before others have their turn. A context takes 16 messages a time.
const MAX_ROUNDS: usize = 32;

/// How many times a task reads its socket before others have their turn: what is read may have no message in it, or many.
const MAX_READS: u32 = 2;

/// What the messages of one connection mean. The server's is [`Commands`](super::commands::Commands).
pub(crate) trait Conversation: Default + Unpin + 'static {
    /// The handshake was answered. Nothing is read until the connection is [open](Connection::open).
    fn begin(
        worker: &Rc<Worker>,
        connection: &Rc<Connection>,
        identity: Identity,
        admission: Admission,
    );

    /// A binary message came whole.
    fn binary(&mut self, worker: &Rc<Worker>, connection: &Rc<Connection>, message: &Bytes);

    /// A text message came whole.
    fn text(&mut self, worker: &Rc<Worker>, connection: &Rc<Connection>, text: &Bytes);
}

/// The actor.
pub(crate) struct WebSocketSession<C> {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    conversation: C,
}

impl<C: Conversation> Actor for WebSocketSession<C> {
    type Context = WebsocketContext<Self>;
}

impl<C: Conversation> StreamHandler<Result<Message, ProtocolError>> for WebSocketSession<C> {
    fn handle(&mut self, message: Result<Message, ProtocolError>, _: &mut Self::Context) {
        let Self {
            worker,
            connection,
            conversation,
        } = self;
        match message {
            Ok(Message::Binary(message)) => conversation.binary(worker, connection, &message),
            Ok(Message::Text(text)) => conversation.text(worker, connection, text.as_bytes()),
            Ok(Message::Ping(payload)) => {
                connection.with_outbox(|outbox| outbox.pong(payload));
                worker.mark_dirty(connection);
            }
            Ok(Message::Close(reason)) => {
                let code = reason.map(|reason| reason.code.into());
                // What came before the end is applied before it.
                worker.forward(connection);
                worker.peer_closed(connection, code);
            }
            Ok(Message::Pong(_) | Message::Continuation(_) | Message::Nop) => {}
            Err(_) => {
                worker.forward(connection);
                worker.end(connection);
            }
        }
    }
}

/// The messages of one connection, as its session's context takes them.
struct Reader {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    frames: FrameReader,
    /// What was read and not yet taken.
    input: BytesMut,
    /// Reads in this turn of the connection's task.
    reads: u32,
    /// Whether messages may only be as long as a token, since nobody knows who sends them.
    is_limited: bool,
}

impl Reader {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, ProtocolError>> {
        loop {
            match self.connection.phase() {
                Phase::Opening | Phase::Ended => return Poll::Pending,
                Phase::Closing if self.connection.peer_closed() => return Poll::Pending,
                Phase::Closing => self.discard(),
                Phase::Authenticating | Phase::Open => {
                    if self.is_limited && self.connection.phase() == Phase::Open {
                        self.is_limited = false;
                        let limit = self.worker.max_message_size;
                        self.frames.set_max_message_size(limit);
                    }
                    if !self.worker.may_take(&self.connection) {
                        self.shrink();
                        return Poll::Pending;
                    }
                    match self.frames.next(&mut self.input) {
                        Ok(Some(received)) => return Poll::Ready(Ok(message(received))),
                        Ok(None) => {}
                        Err(error) => {
                            log::debug!("a client's framing is wrong: {error}");
                            self.worker.fail(&self.connection, error);
                        }
                    }
                }
            }
            if self.reads == MAX_READS {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.reads += 1;
            match self.worker.poll_read(&self.connection, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(read)) if !read.is_empty() => self.input = read,
                Poll::Ready(Ok(_)) => {
                    self.worker.forward(&self.connection);
                    self.worker.end(&self.connection);
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Drops what comes behind our Close frame, up to the peer's.
    fn discard(&mut self) {
        loop {
            match self.frames.next(&mut self.input) {
                Ok(Some(Received::Close(code))) => {
                    return self.worker.peer_closed(&self.connection, code);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return self.input.clear(),
            }
        }
    }

    /// What has to wait for credit keeps no larger buffer than it needs.
    fn shrink(&mut self) {
        if !self.input.is_empty() {
            self.input = BytesMut::from(&self.input[..]);
        }
    }
}

impl Stream for Reader {
    type Item = Result<Message, ProtocolError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let polled = this.poll_message(cx).map(Some);
        this.connection.set_has_input(polled.is_ready());
        if polled.is_pending() {
            // The turn is over.
            this.reads = 0;
        }
        polled
    }
}

fn message(received: Received) -> Message {
    match received {
        Received::Binary(message) => Message::Binary(message),
        Received::Text(text) => Message::Text(
            text.try_into()
                .expect("invariant: the frame reader judged the text"),
        ),
        Received::Ping(payload) => Message::Ping(payload),
        Received::Pong => Message::Pong(Bytes::new()),
        Received::Close(code) => Message::Close(code.map(|code| CloseReason {
            code: code.into(),
            description: None,
        })),
    }
}

type SessionStream = Pin<Box<dyn Stream<Item = Result<Bytes, actix_web::Error>>>>;

/// Drives one connection: its session's context, and what the socket could not take at once.
pub(crate) struct ConnectionTask<C> {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    session: SessionStream,
    /// For whom the connection speaks, until its conversation begins.
    beginning: Option<(Identity, Admission)>,
    conversation: PhantomData<C>,
}

impl<C: Conversation> ConnectionTask<C> {
    /// A task for `connection`, of which `input` has been read with its handshake.
    pub(crate) fn new(
        worker: Rc<Worker>,
        connection: Rc<Connection>,
        identity: Identity,
        admission: Admission,
        input: BytesMut,
    ) -> Self {
        let is_limited = !matches!(admission, Admission::Granted(_));
        let limit = if is_limited {
            worker.max_message_size.min(MAX_FIRST_MESSAGE)
        } else {
            worker.max_message_size
        };
        let reader = Reader {
            frames: FrameReader::new(limit),
            worker: Rc::clone(&worker),
            connection: Rc::clone(&connection),
            input,
            reads: 0,
            is_limited,
        };
        let session = WebSocketSession {
            worker: Rc::clone(&worker),
            connection: Rc::clone(&connection),
            conversation: C::default(),
        };
        let nothing = futures_util::stream::pending();
        let session = WebsocketContext::with_factory(nothing, |ctx| {
            WebSocketSession::<C>::add_stream(reader, ctx);
            session
        });
        Self {
            worker,
            connection,
            session: Box::pin(session),
            beginning: Some((identity, admission)),
            conversation: PhantomData,
        }
    }
}

impl<C: Conversation> Future for ConnectionTask<C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.connection.phase() == Phase::Ended {
            return Poll::Ready(());
        }
        this.connection.set_waker(cx.waker());
        if let Some((identity, admission)) = this.beginning.take() {
            this.worker.flush(&this.connection);
            C::begin(&this.worker, &this.connection, identity, admission);
        } else if this.connection.is_blocked() {
            this.worker.flush(&this.connection);
        }
        for _ in 0..MAX_ROUNDS {
            // What the context itself would write is never used.
            let _ = this.session.as_mut().poll_next(cx);
            if !this.connection.has_input() {
                break;
            }
        }
        this.worker.forward(&this.connection);
        match this.connection.phase() {
            Phase::Ended => Poll::Ready(()),
            Phase::Authenticating | Phase::Opening | Phase::Open | Phase::Closing => Poll::Pending,
        }
    }
}

impl<C> Drop for ConnectionTask<C> {
    fn drop(&mut self) {
        self.worker.end(&self.connection);
    }
}
