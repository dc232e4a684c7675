//! Connections and the sessions behind them.

use super::{
    super::{
        Handed, Held, Identity, Opening, Principal, ReplyTo, Restored, Session, WelcomeEffect,
        state,
    },
    Broker,
    access::{NOT_AUTHORIZED, fallen_by},
    subscribing::PREFETCH,
};
use crate::{
    domain::{ConnectionId, Effect},
    protocol::{Durability, RestoredSubscription, SERVER, SessionId, Timestamp, Welcome},
};

/// The close code of a connection that may come back later (protocol, section 1).
const FULL: u16 = 4010;

impl Broker {
    /// Whether a connection of `identity`, which is `principal`, may be opened.
    pub fn may_connect(&self, identity: Identity, principal: &Principal) -> Opening {
        if self.stopping {
            return Opening::Full;
        }
        let Identity::Durable(id) = identity else {
            return Opening::Granted;
        };
        match self.sessions.get(&id) {
            Some(session) if session.may_be_of(principal) => Opening::Granted,
            Some(_) => Opening::Foreign,
            None if self.durable_sessions < self.limits.max_sessions => Opening::Granted,
            None => Opening::Full,
        }
    }

    /// `connection` speaks for `identity` from now on. If another one did, it is fenced: it has to be taken over, and
    /// [`taken_over`](Self::taken_over) or [`disconnected`](Self::disconnected) called with its cursors; until then there is no `Welcome`.
    /// A connection that may not speak for its session is closed, and nothing else happens.
    pub fn connect(
        &mut self,
        connection: ConnectionId,
        identity: Identity,
        principal: &Principal,
        now: Timestamp,
    ) -> Option<ConnectionId> {
        self.begin(connection, identity, principal, None, now)
    }

    /// The same for a connection whose first command, `Authenticate`, said for whom it speaks. It is answered with the `Welcome`; without one,
    /// nothing comes of it.
    pub fn connect_by(
        &mut self,
        command: ReplyTo,
        identity: Identity,
        principal: &Principal,
        now: Timestamp,
    ) -> Option<ConnectionId> {
        self.begin(command.connection, identity, principal, Some(command), now)
    }

    fn begin(
        &mut self,
        connection: ConnectionId,
        identity: Identity,
        principal: &Principal,
        reply: Option<ReplyTo>,
        now: Timestamp,
    ) -> Option<ConnectionId> {
        let (id, durable) = match identity {
            Identity::Transient => (SessionId::random(), false),
            Identity::Durable(id) => (id, true),
        };
        if let Some((code, reason)) = self.refusal(identity, id, principal, now) {
            self.refuse(connection, code, reason);
            if let Some(to) = reply {
                self.drop_command(to);
            }
            return None;
        }
        self.admit(connection, id, principal, reply, now);
        let mut is_new = false;
        let session = self.sessions.entry(id).or_insert_with(|| {
            is_new = true;
            Session::new(id, durable, now)
        });
        self.durable_sessions += usize::from(is_new && durable);
        if session.owner.is_none() {
            session.owner.clone_from(&principal.name);
        }
        let old = session.connection.replace(connection);
        self.away.remove(&(session.away_since, id));
        // One that holds nothing is only still there because its end has not been told yet.
        session.resumed = !is_new && !session.held.is_empty();
        match old {
            Some(old) => {
                session.takeovers += 1;
                self.dismiss(old);
                self.fenced.insert(old, id);
                self.unserve(id, old);
            }
            None if session.takeovers == 0 => self.welcome(id),
            None => {}
        }
        old
    }

    /// Why `principal` may not speak for the session `id`: the code with which its connection is closed, and the reason.
    fn refusal(
        &self,
        identity: Identity,
        id: SessionId,
        principal: &Principal,
        now: Timestamp,
    ) -> Option<(u16, &'static str)> {
        if let Some(fallen) = fallen_by(principal, now) {
            return Some(fallen);
        }
        match self.may_connect(identity, principal) {
            Opening::Foreign => return Some((NOT_AUTHORIZED, "the session belongs to another")),
            // A server that stops closes it by itself.
            Opening::Full if identity != Identity::Transient && !self.stopping => {
                return Some((FULL, "too many durable sessions"));
            }
            Opening::Full | Opening::Granted => {}
        }
        self.is_crowded(principal, id)
            .then_some((FULL, "too many connections of this identity"))
    }

    /// `connection`, which was taken over, handed so much. Only the first word about that counts.
    pub fn taken_over(&mut self, connection: ConnectionId, handed: &[Handed]) {
        let Some(id) = self.fenced.remove(&connection) else {
            return;
        };
        self.write_cursors(id, handed);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.takeovers -= 1;
        if session.takeovers == 0 && session.connection.is_some() {
            self.welcome(id);
        }
    }

    /// The session that `connection` speaks for.
    pub fn session_of(&self, connection: ConnectionId) -> Option<SessionId> {
        self.connections
            .get(&connection)
            .map(|speaker| speaker.session)
    }

    /// Durable connections handed more.
    pub fn handed(&mut self, connection: ConnectionId, handed: &[Handed]) {
        if let Some(id) = self.session_of(connection) {
            self.write_cursors(id, handed);
        }
    }

    /// `connection` ended, having handed so much.
    pub fn disconnected(&mut self, connection: ConnectionId, handed: &[Handed], now: Timestamp) {
        let Some(id) = self.dismiss(connection) else {
            // It may have ended by itself just when it was to be taken over.
            return self.taken_over(connection, handed);
        };
        self.write_cursors(id, handed);
        self.unserve(id, connection);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.connection = None;
        session.away_since = now;
        if session.durable {
            self.away.insert((now, id));
        }
        if !session.durable || session.held.is_empty() {
            self.forget(id);
        }
    }

    /// Forgets durable sessions that were away for too long.
    pub fn expire_sessions(&mut self, now: Timestamp) {
        while self.writable().is_ok()
            && let Some(&(since, id)) = self.away.first()
            && now.0.saturating_sub(since.0) >= self.limits.session_expiry
        {
            log::debug!("session {id} was away for too long and is forgotten");
            self.forget(id);
        }
    }

    fn forget(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        for held in &session.held {
            if let Some(subscription) = self.subscriptions.get_mut(&held.subscription) {
                subscription.remove_session(id);
            }
            if session.durable {
                self.record(state::delete_cursor(id, held.subscription));
            }
        }
        if session.is_owner_written {
            self.record(state::delete_owner(id));
        }
        if session.takeovers > 0 {
            self.fenced.retain(|_, fenced| *fenced != id);
        }
        self.away.remove(&(session.away_since, id));
        self.durable_sessions -= usize::from(session.durable);
    }

    /// The session's subscriptions are no longer served over `connection`.
    fn unserve(&mut self, id: SessionId, connection: ConnectionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if !std::mem::take(&mut session.welcomed) {
            return;
        }
        let mut queues = Vec::new();
        for held in &session.held {
            if let Some(subscription) = self.subscriptions.get_mut(&held.subscription) {
                subscription.disconnect(connection.worker());
                if subscription.serving.is_some() {
                    queues.push(subscription.id);
                }
            }
        }
        for id in queues {
            self.leave_queue(id, connection);
            self.dispatch(id);
        }
    }

    fn write_cursors(&mut self, id: SessionId, handed: &[Handed]) {
        let is_writable = self.writable().is_ok();
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let is_written = session.durable && self.available;
        for &Handed {
            subscription,
            log,
            cursor,
        } in handed
        {
            match session.held_mut(subscription) {
                Some(held) if held.log == log && held.handed != cursor => {
                    held.handed = cursor;
                    if !is_written || held.acknowledged.is_some() {
                        continue;
                    }
                    if is_writable {
                        self.building
                            .record(state::put_cursor(id, subscription, &held.state()));
                    } else {
                        self.held_up.cursors.insert((id, subscription));
                    }
                }
                _ => {}
            }
        }
    }

    fn welcome(&mut self, id: SessionId) {
        self.withdraw(id, None);
        let is_writable = self.writable().is_ok();
        if is_writable
            && self
                .sessions
                .get(&id)
                .is_some_and(|one| !one.held.is_empty())
        {
            self.write_owner(id);
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(connection) = session.connection else {
            return;
        };
        session.welcomed = true;
        let (mut told, mut restored, mut queues) = (Vec::new(), Vec::new(), Vec::new());
        for held in &mut session.held {
            let Some(subscription) = self.subscriptions.get_mut(&held.subscription) else {
                continue;
            };
            let (cursor, recovered) = match &subscription.serving {
                Some(serving) => {
                    queues.push((subscription.id, held.prefetch));
                    let settled = serving.queue.progress().settled();
                    (settled, held.epoch == subscription.epoch)
                }
                None => subscription.resume(held.resume_at(), held.epoch),
            };
            *held = resumed(held, cursor, subscription.epoch);
            if session.durable && is_writable {
                self.building
                    .record(state::put_cursor(id, subscription.id, &held.state()));
            } else if session.durable && self.available {
                self.held_up.cursors.insert((id, subscription.id));
            }
            subscription.connect(connection.worker());
            subscription.staging.close_chunk();
            subscription.staging.wait_for_sync(&self.building);
            told.push(RestoredSubscription {
                subscription_id: subscription.id,
                kind: subscription.kind,
                epoch: subscription.epoch,
                cursor,
                recovered,
            });
            restored.push(Restored {
                subscription: subscription.id,
                kind: subscription.kind,
                log: subscription.log,
                source: subscription.source(),
                last: subscription.last,
                cursor,
                joined: 0,
            });
        }
        for &(id, prefetch) in &queues {
            let joined = self.join_queue(id, connection, prefetch.unwrap_or(PREFETCH));
            let of_queue = restored.iter_mut().find(|one| one.subscription == id);
            if let Some(restored) = of_queue {
                restored.joined = joined;
            }
        }
        let answer = self.take_beginning(connection);
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let welcome = Welcome {
            session_id: id,
            durable: session.durable,
            resumed: session.resumed,
            subscriptions: told,
            server: SERVER.into(),
            limits: self.limits.limits,
        };
        let effect = WelcomeEffect {
            connection,
            durable: session.durable,
            welcome,
            restored,
            answer,
        };
        self.building
            .effect(Durability::Synced, Effect::Welcome(Box::new(effect)));
        for (id, _) in queues {
            self.dispatch(id);
        }
    }
}

/// The place of a session that goes on at `cursor`: what was acknowledged in another epoch says nothing about this one.
fn resumed(held: &Held, cursor: crate::protocol::Sequence, epoch: crate::protocol::Epoch) -> Held {
    let acknowledged = held
        .acknowledged
        .filter(|_| held.epoch == epoch && held.resume_at() == cursor);
    Held {
        epoch,
        acknowledged,
        handed: cursor,
        ..*held
    }
}
