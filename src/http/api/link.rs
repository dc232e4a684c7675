//! A connection of the server's own, on which a request that came by HTTP speaks as a WebSocket client does.
//!
//! Owns the client's end: it frames commands, and takes frames apart. At the other end is a connection of this worker like any other, so what
//! comes by HTTP passes the same session, credit, actors, outbox and log, in the same order, with the same answers. Back-pressure is the
//! pipe's: who takes nothing from here makes that connection fall behind, and it is served from the log later.
//!
//! ```text
//!   handler ──Link──pipe──> session ──> PubSubService ──> ... ──> Hub ──> outbox ──pipe──Link──> handler
//! ```

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use actix_codec::{AsyncWrite, poll_read_buf};
use actix_web::rt::spawn;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{DuplexStream, duplex};

use crate::{
    access::Admission,
    actors::{
        session::{ConnectionTask, Conversation},
        worker::Worker,
    },
    connection::{Permit, Socket},
    domain::{Identity, Permission, Principal},
    protocol::{
        ErrorCode, Form, RequestId, ServerError, ServerResponse, SubscriptionReference,
        codec::{Received, ServerMessage, decode_response},
        frame::{Inner, encode_inner, split_inner},
    },
};

/// Bytes that lie between the two ends, each way: what one read of a socket takes.
const PIPE: usize = 64 << 10;

/// What a read makes room for at the least.
const READ: usize = 4 << 10;

/// The connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Closed {
    /// The close code; `None` if there was none.
    pub(super) code: Option<u16>,
}

impl From<Closed> for ServerError {
    fn from(Closed { code }: Closed) -> Self {
        const GOING_AWAY: u16 = 1001;
        const TOO_LARGE: u16 = 1009;
        const FULL: u16 = 4010;
        const CREDENTIALS_CHANGED: u16 = 4011;
        const NOT_AUTHORIZED: u16 = 4501;
        const MALFORMED: u16 = 4503;
        match code {
            Some(GOING_AWAY) | None => Self::new(ErrorCode::ShuttingDown, "the server stops"),
            Some(TOO_LARGE) => Self::new(ErrorCode::TooLarge, "the command is too long"),
            Some(FULL) => Self::new(
                ErrorCode::LimitReached,
                "there are too many connections of this identity",
            ),
            Some(CREDENTIALS_CHANGED) => Self::new(
                ErrorCode::ShuttingDown,
                "the credentials were changed: ask again",
            ),
            Some(NOT_AUTHORIZED) => Self::new(ErrorCode::NotAuthorized, "the token has run out"),
            Some(MALFORMED) => Self::new(ErrorCode::Malformed, "too much was malformed"),
            Some(code) => Self::new(ErrorCode::Internal, format!("closed with {code}")),
        }
    }
}

/// The client's end.
#[derive(Debug)]
pub(super) struct Link {
    pipe: DuplexStream,
    output: BytesMut,
    input: BytesMut,
    last_request: u64,
    closed: Option<Closed>,
    /// Whom it speaks for.
    principal: Principal,
}

/// Where a link waits for the next request of its HTTP connection.
#[derive(Debug, Default)]
pub(crate) struct LinkPlace(RefCell<Option<Link>>);

impl LinkPlace {
    /// Takes the link out: while a request uses it, it is nowhere else. So a request that is given up takes its link with it, answers that
    /// nobody waits for included.
    /// It is left for another one if it speaks for somebody else: a proxy's connections have requests of many.
    pub(super) fn take(&self, principal: &Principal) -> Option<Link> {
        let mut link = self.0.take()?;
        (link.speaks_for(principal) && link.is_alive()).then_some(link)
    }

    /// Keeps a link of which nothing is awaited, unless much went through it: an idle connection holds no large buffers.
    pub(super) fn keep(&self, mut link: Link) {
        if link.input.capacity().max(link.output.capacity()) > PIPE {
            return;
        }
        link.input = BytesMut::from(&link.input[..]);
        link.output = BytesMut::from(&link.output[..]);
        self.0.replace(Some(link));
    }
}

/// Opens a connection that counts as the permit says, for the principal.
pub(super) type Open = fn(&Rc<Worker>, Rc<Permit>, Principal) -> Option<Link>;

impl Link {
    /// Opens a connection with a session of its own.
    pub(super) fn open<C: Conversation>(
        worker: &Rc<Worker>,
        permit: Rc<Permit>,
        principal: Principal,
    ) -> Option<Self> {
        let (pipe, other) = duplex(PIPE);
        let connection = worker.take(Form::Cbor, Socket::Inner(other), b"", permit)?;
        spawn(ConnectionTask::<C>::new(
            Rc::clone(worker),
            connection,
            Identity::Transient,
            Admission::Granted(principal.clone()),
            BytesMut::new(),
        ));
        Some(Self {
            pipe,
            output: BytesMut::new(),
            input: BytesMut::new(),
            last_request: 0,
            closed: None,
            principal,
        })
    }

    /// Whether it may do what `principal` may, in its name and as long.
    fn speaks_for(&self, principal: &Principal) -> bool {
        let own = &self.principal;
        own.name == principal.name
            && own.expires == principal.expires
            && (Arc::ptr_eq(&own.permissions, &principal.permissions)
                || own.permissions == principal.permissions)
    }

    /// Whether it is told what `subscription` is, if there is one.
    pub(super) fn may_look_at(&self, subscription: &SubscriptionReference) -> bool {
        let permissions = &self.principal.permissions;
        let granted = permissions.granted(subscription.id, subscription.name.as_deref());
        granted.has_any([Permission::Read, Permission::Manage].into_iter().collect())
    }

    /// Whether the server has not closed it. What it said since the last answer is dropped: nobody waits for it.
    fn is_alive(&mut self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        loop {
            match self.poll_next(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return false,
                Poll::Pending => return true,
            }
        }
    }

    /// The id of the next request.
    pub(super) fn next_id(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    /// Sends a message as soon as something is awaited.
    pub(super) fn push(&mut self, message: &[u8]) {
        encode_inner(&mut self.output, message);
    }

    /// The answer to the request with this id. What comes before it that is no answer is dropped.
    ///
    /// # Errors
    /// If the answer is one, or none comes.
    pub(super) async fn answer(&mut self, id: RequestId) -> Result<ServerResponse, ServerError> {
        loop {
            let message = poll_fn(|cx| self.poll_next(cx)).await?;
            let received = decode(&message)?;
            if received.request_id != Some(id) {
                continue;
            }
            return response(received.message);
        }
    }

    /// The answers to the requests with these ids. They come in any order, where subscriptions differ in durability.
    pub(super) async fn answers(
        &mut self,
        ids: &[RequestId],
    ) -> HashMap<RequestId, Result<ServerResponse, ServerError>> {
        let mut answers = HashMap::with_capacity(ids.len());
        let mut awaited: HashSet<_> = ids.iter().copied().collect();
        while !awaited.is_empty() {
            let received = match poll_fn(|cx| self.poll_next(cx)).await {
                Ok(message) => decode(&message),
                Err(closed) => Err(closed.into()),
            };
            match received {
                Ok(Received {
                    request_id: Some(id),
                    message,
                }) if awaited.remove(&id) => {
                    answers.insert(id, response(message));
                }
                Ok(_) => {}
                Err(error) => {
                    let failed = awaited.drain().map(|id| (id, Err(error.clone())));
                    answers.extend(failed);
                }
            }
        }
        answers
    }

    /// The next message. What was pushed is sent meanwhile: neither waits for the other.
    ///
    /// # Errors
    /// If the connection is over.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Closed>> {
        if let Some(closed) = self.closed {
            return Poll::Ready(Err(closed));
        }
        let polled = self.poll_message(cx);
        if let Poll::Ready(Err(closed)) = polled {
            self.closed = Some(closed);
        }
        polled
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Closed>> {
        // An end that can't be written to may have said why.
        if let Poll::Ready(Err(_)) = self.poll_write(cx) {
            self.output.clear();
        }
        loop {
            let lacking = match split_inner(&mut self.input) {
                Ok(Inner::Message(message)) => return Poll::Ready(Ok(message)),
                Ok(Inner::Close(code)) => return Poll::Ready(Err(Closed { code: Some(code) })),
                Ok(Inner::Other) => continue,
                Err(lacking) => lacking,
            };
            self.input.reserve(lacking.max(READ));
            let read = poll_read_buf(Pin::new(&mut self.pipe), cx, &mut self.input);
            if !matches!(ready!(read), Ok(1..)) {
                return Poll::Ready(Err(Closed { code: None }));
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(Pin::new(&mut self.pipe).poll_write(cx, &self.output))?;
            self.output.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

fn response(message: ServerMessage) -> Result<ServerResponse, ServerError> {
    match message {
        ServerMessage::Response(ServerResponse::Error(error)) => Err(*error),
        ServerMessage::Response(response) => Ok(response),
        ServerMessage::Publication(_) | ServerMessage::Unknown(_) => Err(internal()),
    }
}

/// A message of the server itself, which is always one.
pub(super) fn decode(message: &Bytes) -> Result<Received, ServerError> {
    decode_response(message).map_err(|error| {
        log::error!("the server does not understand itself: {error}");
        internal()
    })
}

/// The server says what it can't have meant.
pub(super) fn internal() -> ServerError {
    ServerError::new(ErrorCode::Internal, "the server contradicts itself")
}
