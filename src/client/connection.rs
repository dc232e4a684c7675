//! The task behind every handle of a client: connects, serves the connection, waits, connects again.
//!
//! Owns the socket, the pauses and the clock. Does not own what messages mean (`core`).
//!
//! ```text
//!  connect ──> Welcome ──> serve ──> ended ──> pause ──┐
//!     ^                                 │              │
//!     │                                 └─ 45xx: end   │
//!     └────────────────────────────────────────────────┘
//! ```

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Closed, ConnectionError, Status,
    backoff::Backoff,
    core::{Command, Core},
    socket::{Endpoint, Socket},
    token::{Renewal, TokenSource},
};
use crate::protocol::{
    Secret, ServerResponse, Welcome,
    codec::{ServerMessage, decode_response},
};

/// How long a full buffer may hold up the whole connection, so that TCP holds the server back, before its subscription falls
/// behind. Only a reader that takes nothing for so long is passed over; one that is merely slow sets the pace.
const STALL: Duration = Duration::from_millis(50);

/// How long the goodbye may take.
const CLOSE: Duration = Duration::from_secs(2);

/// How long requests may wait for their answers while the client closes.
const DRAIN: Duration = Duration::from_secs(10);

/// Commands that are taken in one turn.
const COMMANDS: usize = 256;

/// The one task of a client.
pub(super) struct Connection {
    pub(super) endpoint: Endpoint,
    pub(super) token: TokenSource,
    pub(super) connect_timeout: Duration,
    pub(super) backoff: Backoff,
    pub(super) core: Core,
    pub(super) commands: UnboundedReceiver<Command>,
    pub(super) status: watch::Sender<Status>,
    /// Told how the first attempt went, by who wants to know; if it fails then, there is no second one.
    pub(super) first: Option<oneshot::Sender<Result<(), ConnectionError>>>,
}

/// Whoever waits until the client has closed, and until when it may take.
struct Closing {
    done: Vec<oneshot::Sender<()>>,
    deadline: Instant,
}

impl Connection {
    pub(super) async fn run(mut self) {
        let mut closing = None;
        let closed = self.live(&mut closing).await;
        self.core.finish(&closed);
        self.status.send_replace(Status::Closed(closed.clone()));
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            if let Command::Close { done } = command {
                let _gone = done.send(());
            } else {
                // Whoever waits for an answer is told as everybody was.
                self.core.handle(command);
                self.core.finish(&closed);
            }
        }
        for done in closing.into_iter().flat_map(|closing| closing.done) {
            let _gone = done.send(());
        }
    }

    async fn live(&mut self, closing: &mut Option<Closing>) -> Closed {
        loop {
            let ended = match self.connect(closing).await {
                Some(Ok((socket, welcome, incoming))) => {
                    if let Some(first) = self.first.take() {
                        drop(first.send(Ok(())));
                    }
                    self.core.connected(&welcome, Instant::now());
                    self.status
                        .send_replace(Status::Connected(Arc::new(welcome)));
                    let ended = self.serve(socket, incoming, closing).await;
                    self.core.disconnected();
                    ended
                }
                Some(Err(error)) => Some(error),
                None => None,
            };
            let Some(error) = ended else {
                return Closed::ByClient;
            };
            if let Some(first) = self.first.take() {
                drop(first.send(Err(error.clone())));
                return Closed::GaveUp(error);
            }
            if error.is_final() {
                return Closed::ByServer(error);
            }
            if closing.is_some() {
                return Closed::ByClient;
            }
            if self.core.take_progress() {
                self.backoff.reset();
            }
            let Some(pause) = self.backoff.next(fastrand::f64()) else {
                return Closed::GaveUp(error);
            };
            let pause = pause.max(error.retry_after().unwrap_or_default());
            log::info!("{error}; connecting again in {pause:?}");
            self.status.send_replace(Status::Waiting { error, pause });
            let until = sleep_until(Instant::now() + pause);
            if self.while_commanded(closing, until).await.is_none() {
                return Closed::ByClient;
            }
            self.status.send_replace(Status::Connecting);
        }
    }

    /// `None` if the client was closed meanwhile.
    async fn connect(
        &mut self,
        closing: &mut Option<Closing>,
    ) -> Option<Result<(Socket, Welcome, VecDeque<Bytes>), ConnectionError>> {
        let (endpoint, token) = (self.endpoint.clone(), self.token.clone());
        let attempt = timeout(self.connect_timeout, open(endpoint, token));
        let result = self.while_commanded(closing, attempt).await?;
        Some(result.unwrap_or(Err(ConnectionError::TimedOut)))
    }

    /// What `future` gives; `None` if the client was closed before.
    async fn while_commanded<T>(
        &mut self,
        closing: &mut Option<Closing>,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Some(output),
                command = self.commands.recv() => {
                    self.command(command, closing);
                    if closing.is_some() {
                        return None;
                    }
                }
            }
        }
    }

    /// `None` is the end of every handle.
    fn command(&mut self, command: Option<Command>, closing: &mut Option<Closing>) {
        let done = match command {
            Some(Command::Close { done }) => Some(done),
            Some(command) => return self.core.handle(command),
            None => None,
        };
        self.core.close();
        let closing = closing.get_or_insert_with(|| Closing {
            done: Vec::new(),
            deadline: Instant::now() + DRAIN,
        });
        closing.done.extend(done);
    }

    /// Serves one connection. `None` is an end that the client wanted.
    async fn serve(
        &mut self,
        mut socket: Socket,
        mut incoming: VecDeque<Bytes>,
        closing: &mut Option<Closing>,
    ) -> Option<ConnectionError> {
        let silence = match &*self.status.borrow() {
            Status::Connected(welcome) => Duration::from_millis(
                welcome
                    .limits
                    .heartbeat_interval
                    .saturating_add(welcome.limits.heartbeat_timeout),
            ),
            _ => Duration::MAX,
        };
        let mut heard = Instant::now();
        let mut stalled_since = None;
        let mut renewal = None;
        let mut commands = Vec::with_capacity(COMMANDS);
        let mut handles_left = true;
        loop {
            while self.core.stalled().is_none()
                && let Some(message) = incoming.pop_front()
            {
                match decode_response(&message) {
                    Ok(received) => self.core.received(received, Instant::now()),
                    Err(error) => return Some(ConnectionError::Protocol(error.to_string())),
                }
            }
            if self.core.take_expiring() {
                renewal = self.token.renewed();
            }
            let stalled = self.core.stalled().cloned();
            if let Some(buffer) = &stalled {
                buffer.await_room();
                if !buffer.is_full() {
                    self.core.unstall();
                    stalled_since = None;
                    continue;
                }
            } else {
                stalled_since = None;
            }
            if let Some(closing) = &closing
                && (self.core.is_idle() || Instant::now() >= closing.deadline)
            {
                drop(timeout(CLOSE, socket.close()).await);
                return None;
            }
            let now = Instant::now();
            let give_way_at = stalled
                .as_ref()
                .map(|_| *stalled_since.get_or_insert(now) + STALL);
            let silent_at = heard.checked_add(silence).filter(|_| stalled.is_none());
            let wakes = [
                give_way_at,
                silent_at,
                self.core.next_retry(),
                closing.as_ref().map(|closing| closing.deadline),
            ];
            let wake = wakes.into_iter().flatten().min();
            let (core, reads) = (&mut self.core, stalled.is_none());
            tokio::select! {
                result = poll_fn(|cx| {
                    socket.poll(cx, core.outgoing(), reads.then_some(&mut incoming))
                }) => match result {
                    Ok(()) => heard = Instant::now(),
                    Err(error) => return Some(error),
                },
                count = self.commands.recv_many(&mut commands, COMMANDS), if handles_left => {
                    handles_left = count > 0;
                    if !handles_left {
                        self.command(None, closing);
                    }
                    for command in commands.drain(..) {
                        self.command(Some(command), closing);
                    }
                }
                token = renewed(&mut renewal) => {
                    renewal = None;
                    self.core.authenticate(token);
                }
                () = room(stalled.as_deref()) => {
                    // Time in which nothing is read is no silence of the server's.
                    heard = Instant::now();
                }
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {
                    let now = Instant::now();
                    if give_way_at.is_some_and(|at| at <= now) {
                        self.core.give_way();
                        heard = now;
                    }
                    if silent_at.is_some_and(|at| at <= now) {
                        return Some(ConnectionError::Silent);
                    }
                    self.core.retry(now);
                }
            }
        }
    }
}

async fn renewed(renewal: &mut Option<Renewal>) -> Secret {
    match renewal {
        Some(renewal) => renewal.await,
        None => std::future::pending().await,
    }
}

async fn room(stalled: Option<&super::buffer::Buffer>) {
    match stalled {
        Some(buffer) => buffer.room().await,
        None => std::future::pending().await,
    }
}

/// Connects, shakes hands, and waits for the `Welcome`. What came with it is the third part.
async fn open(
    endpoint: Endpoint,
    token: TokenSource,
) -> Result<(Socket, Welcome, VecDeque<Bytes>), ConnectionError> {
    let token = token.next().await?;
    let mut socket = Socket::open(&endpoint, token.as_ref()).await?;
    let mut incoming = VecDeque::new();
    let first = loop {
        poll_fn(|cx| socket.poll(cx, &mut VecDeque::new(), Some(&mut incoming))).await?;
        if let Some(first) = incoming.pop_front() {
            break first;
        }
    };
    match decode_response(&first).map(|received| received.message) {
        Ok(ServerMessage::Response(ServerResponse::Welcome(welcome))) => {
            Ok((socket, *welcome, incoming))
        }
        Ok(_) => Err(ConnectionError::Protocol(
            "its first message is no Welcome".to_owned(),
        )),
        Err(error) => Err(ConnectionError::Protocol(error.to_string())),
    }
}
