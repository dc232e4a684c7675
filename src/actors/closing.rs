//! How connections of a worker end.
//!
//! Owns the way from the first Close frame, ours or the peer's, to the report that a connection is gone.
//!
//! Invariants: a connection is reported as gone once, with how far it was served; nothing of it is left behind.

use std::{rc::Rc, time::Duration};

use super::{
    messages::Disconnected,
    worker::{ConnectionCursors, Worker},
};
use crate::{
    connection::{Connection, FrameError, Held, Phase},
    domain::Effect,
    metrics::labels::Closed,
    protocol::Form,
};

/// How long a closing connection may take to write what is in front of its Close frame.
const CLOSE_TIMEOUT: u64 = 10_000;

/// How long input is discarded behind our Close frame (protocol, section 1). Milliseconds.
pub(super) const DISCARD_TIMEOUT: u64 = 2_000;

/// A reason that the worker itself closes a connection for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CloseReason {
    pub(super) code: u16,
    pub(super) text: &'static str,
    /// Whether publications that are queued go out first.
    pub(super) keeps_publications: bool,
    /// Milliseconds until the connection is dropped, if its Close frame can't be written.
    pub(super) timeout: u64,
}

impl CloseReason {
    pub(super) const SILENT: Self = Self::abrupt(4008, "nothing heard");
    pub(super) const STUCK: Self = Self::abrupt(4009, "nothing taken");
    pub(super) const NOT_AUTHORIZED: Self = Self::at_once(4501, "not authorized");
    pub(super) const TAKEN_OVER: Self = Self::at_once(4502, "taken over");

    /// The connection is closed behind what it was answered.
    pub(super) const fn at_once(code: u16, text: &'static str) -> Self {
        Self {
            code,
            text,
            keeps_publications: false,
            timeout: CLOSE_TIMEOUT,
        }
    }

    /// The client is not expected to take anything any more.
    const fn abrupt(code: u16, text: &'static str) -> Self {
        Self {
            timeout: DISCARD_TIMEOUT,
            ..Self::at_once(code, text)
        }
    }

    /// The connection is closed behind everything that waits for it.
    pub(super) const fn orderly(code: u16, text: &'static str, timeout: u64) -> Self {
        Self {
            code,
            text,
            keeps_publications: true,
            timeout,
        }
    }
}

/// The end.
impl Worker {
    /// Queues a Close frame; from then on nothing is taken from the client.
    pub(super) fn close(self: &Rc<Self>, connection: &Rc<Connection>, reason: CloseReason) {
        let CloseReason {
            code,
            text,
            keeps_publications,
            timeout,
        } = reason;
        let close_by = self.now().saturating_add(timeout);
        let why = Closed::of_code(code);
        self.begin_close(
            connection,
            Some(code),
            text,
            keeps_publications,
            close_by,
            why,
        );
    }

    /// The framing of a client is wrong: its connection fails.
    pub(super) fn fail(self: &Rc<Self>, connection: &Rc<Connection>, error: FrameError) {
        let close_by = self.now() + CLOSE_TIMEOUT;
        let reason = error.to_string();
        self.begin_close(
            connection,
            Some(error.close_code()),
            &reason,
            false,
            close_by,
            Closed::of_code(error.close_code()),
        );
    }

    /// The peer's Close frame came: it is echoed, if it is no echo itself.
    pub(super) fn peer_closed(self: &Rc<Self>, connection: &Rc<Connection>, code: Option<u16>) {
        connection.set_peer_closed();
        let close_by = self.now() + CLOSE_TIMEOUT;
        self.begin_close(connection, code, "", false, close_by, Closed::Client);
        if !connection.is_blocked() && connection.with_outbox(|outbox| outbox.is_finished()) {
            self.end(connection);
        }
    }

    fn begin_close(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        code: Option<u16>,
        reason: &str,
        keep: bool,
        close_by: u64,
        why: Closed,
    ) {
        match connection.phase() {
            Phase::Authenticating | Phase::Opening | Phase::Open => {}
            Phase::Closing | Phase::Ended => return,
        }
        self.counts.closed.of(why).add(1);
        connection.close(code, reason, keep, close_by);
        for subscriber in connection.subscribers() {
            self.table.borrow_mut().remove(&subscriber);
        }
        self.mark_dirty(connection);
        connection.wake();
    }

    /// The connection is over: gives up everything that it holds, and reports it as gone.
    pub(super) fn end(&self, connection: &Rc<Connection>) {
        match connection.phase() {
            Phase::Authenticating | Phase::Opening | Phase::Open => {
                let why = match connection.is_inner() {
                    true => Closed::Http,
                    false => Closed::Lost,
                };
                self.counts.closed.of(why).add(1);
            }
            // It was counted when that began.
            Phase::Closing => {}
            Phase::Ended => return,
        }
        let id = connection.id();
        for subscriber in connection.subscribers() {
            self.table.borrow_mut().remove(&subscriber);
        }
        self.stop_holding(connection);
        let (cursors, held) = connection.end();
        for held in held {
            self.drop_held(&held);
        }
        self.connections.borrow_mut().remove(&id);
        if connection.form() == Form::Json {
            self.gate.leave_json();
        }
        let handed = if connection.is_durable() {
            cursors
        } else {
            Vec::new()
        };
        if !handed.is_empty()
            && let Some(last_cursors) = &mut *self.last_cursors.borrow_mut()
        {
            last_cursors.push((id, handed.clone()));
        }
        // Without waiting: one message for each connection.
        self.neighbours.disconnected.do_send(Disconnected {
            connection: id,
            handed,
        });
        if self.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// What was held for a connection will not be carried out.
    pub(super) fn drop_held(&self, held: &Held) {
        if let Held::Effect(effect) = held
            && let Some(to) = effect.reply_to()
        {
            self.counts.dropped(to.command);
        }
        if let Held::Effect(Effect::Subscribe(effect)) = held {
            let mut table = self.table.borrow_mut();
            table.retract(effect.subscription, effect.log);
        }
    }

    /// From now on, cursors of durable connections that end are kept for [`take_cursors`](Self::take_cursors).
    pub(super) fn keep_cursors(&self) {
        self.last_cursors.borrow_mut().get_or_insert_default();
    }

    /// The cursors that were kept.
    pub(super) fn take_cursors(&self) -> Vec<ConnectionCursors> {
        self.last_cursors.take().unwrap_or_default()
    }
}

/// Milliseconds of a time-out.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
