//! What a connection may do: the one place where every command is judged.
//!
//! Owns which command needs which permission, what a denied one is answered, and when a token ends. Whoever may not know of a subscription is
//! answered as if there was none: with the same words, by the same way, and as soon.
//!
//! Invariants: a connection without [`Access`] may do everything, which costs one branch; names are matched once for each connection and
//! subscription, not for each publication; a connection whose token ended changes nothing any more.

use std::sync::Arc;

use super::{
    super::{
        Effect, Permission, PermissionSet, Principal, ReplyTo, Session, Stands, Subscription, state,
    },
    Broker, Map,
    commands::not_found,
};
use crate::{
    domain::ConnectionId,
    protocol::{
        Authenticated, ClientCommand, Durability, ErrorCode, GetLogEntries, Patch, ServerError,
        ServerResponse, SessionId, SettingsPatch, SubscriptionId, SubscriptionReference, Timestamp,
        TokenExpiring,
    },
};

/// So long before a token ends its connection is warned, or in the middle of what is left. Milliseconds.
const WARNING: u64 = 60_000;

/// A warning that has to wait for `Welcome` is tried again so much later. Milliseconds.
const POSTPONED: u64 = 500;

/// Subscriptions of which a connection's permissions are remembered. With more they are found out again.
const MAX_KNOWN: usize = 4096;

/// The close code of a connection that may not be there (protocol, section 1).
pub(super) const NOT_AUTHORIZED: u16 = 4501;
/// And of one that may come back with what it is allowed now.
const CREDENTIALS_CHANGED: u16 = 4011;

/// What the broker knows of a connection.
pub(super) struct Speaker {
    /// The session that it speaks for.
    pub(super) session: SessionId,
    /// Boxed, since where nobody is asked nobody has one.
    pub(super) access: Option<Box<Access>>,
}

/// Whom a connection speaks for, and what it may do.
pub(super) struct Access {
    principal: Principal,
    depends_on_names: bool,
    /// What is granted for the subscriptions that it named.
    granted: Map<SubscriptionId, PermissionSet>,
    /// When it is warned, or else ended.
    due: Option<Timestamp>,
    is_warned: bool,
    is_over: bool,
    /// The command that waits for `Welcome` to be answered.
    reply: Option<ReplyTo>,
}

impl Access {
    /// Of a connection that speaks for `principal`, which `reply` asked for; `None` if that is anybody.
    pub(super) fn of(
        principal: &Principal,
        reply: Option<ReplyTo>,
        now: Timestamp,
    ) -> Option<Box<Self>> {
        (!principal.is_anonymous()).then(|| {
            let due = principal.expires.map(|expires| {
                let left = expires.0.saturating_sub(now.0);
                Timestamp(expires.0.saturating_sub(WARNING.min(left / 2)))
            });
            Box::new(Self {
                depends_on_names: principal.permissions.depend_on_names(),
                principal: principal.clone(),
                granted: Map::default(),
                due,
                is_warned: false,
                is_over: false,
                reply,
            })
        })
    }

    /// Whether it has any of `wanted` for a subscription.
    fn allows(
        &mut self,
        wanted: PermissionSet,
        reference: &SubscriptionReference,
        subscriptions: &Map<SubscriptionId, Box<Subscription>>,
    ) -> bool {
        let id = reference.id;
        if let Some(granted) = self.granted.get(&id) {
            return granted.has_any(wanted);
        }
        let known = || subscriptions.get(&id)?.settings.name.as_deref();
        let name = reference.name.as_deref().or_else(known);
        let granted = self.principal.permissions.granted(id, name);
        // A subscription may come to know its name later.
        if name.is_some() || !self.depends_on_names {
            if self.granted.len() >= MAX_KNOWN {
                self.granted.clear();
            }
            self.granted.insert(id, granted);
        }
        granted.has_any(wanted)
    }

    /// Who it is.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        self.principal.name.as_ref()
    }

    fn authenticated(&self) -> Authenticated {
        Authenticated {
            name: self.principal.name.as_deref().map(Into::into),
            expires: self.principal.expires,
        }
    }
}

/// What a command needs.
enum Needed<'c> {
    Nothing,
    /// Any of these permissions for the subscription. Who lacks them is told that there is none.
    Any(PermissionSet, &'c SubscriptionReference),
    /// This one. The command would make the subscription, so there is no telling that there is none.
    ToMake(Permission, &'c SubscriptionReference),
}

fn needed(command: &ClientCommand) -> Needed<'_> {
    use Permission::{Acknowledge, Manage, Publish, Read, Subscribe};
    let any = |permissions: &[Permission]| permissions.iter().copied().collect();
    match command {
        ClientCommand::SubmitPublication(command) => Needed::ToMake(Publish, &command.subscription),
        ClientCommand::Subscribe(command) => Needed::ToMake(Subscribe, &command.subscription),
        ClientCommand::CreateSubscription(command) => Needed::ToMake(Manage, &command.subscription),
        ClientCommand::Unsubscribe(reference) => Needed::Any(any(&[Subscribe]), reference),
        ClientCommand::Acknowledge(command) => {
            Needed::Any(any(&[Acknowledge]), &command.subscription)
        }
        ClientCommand::Reject(command) => Needed::Any(any(&[Acknowledge]), &command.subscription),
        ClientCommand::Extend(command) => Needed::Any(any(&[Acknowledge]), &command.subscription),
        ClientCommand::GetLogIndex(command)
        | ClientCommand::GetLogEntries(GetLogEntries::Range(command)) => {
            Needed::Any(any(&[Read]), &command.log)
        }
        ClientCommand::GetLogEntries(GetLogEntries::Ids(log, _)) => Needed::Any(any(&[Read]), log),
        ClientCommand::GetSubscription(reference) => Needed::Any(any(&[Read, Manage]), reference),
        ClientCommand::UpdateSubscription(command) => {
            Needed::Any(any(&[Manage]), &command.subscription)
        }
        ClientCommand::DeleteSubscription(reference) => Needed::Any(any(&[Manage]), reference),
        // What is listed is filtered.
        ClientCommand::ListSubscriptions(_)
        | ClientCommand::Authenticate(_)
        | ClientCommand::Ping => Needed::Nothing,
    }
}

/// Where a command says that dead letters go: whoever says it publishes there.
fn dead_letter(command: &ClientCommand) -> Option<&SubscriptionReference> {
    let settings = match command {
        ClientCommand::CreateSubscription(command) => &command.settings,
        ClientCommand::UpdateSubscription(command) => &command.settings,
        _ => return None,
    };
    match settings {
        SettingsPatch {
            dead_letter: Patch::Value(target),
            ..
        } => Some(target),
        _ => None,
    }
}

fn not_authorized(permission: Permission, reference: &SubscriptionReference) -> ServerError {
    let message = format!(
        "this identity has no permission to {} {reference}",
        permission.name()
    );
    ServerError::new(ErrorCode::NotAuthorized, message).for_subscription(reference.id)
}

/// Commands.
impl Broker {
    /// Judges a command by what its connection may do. Returns the session that it is for, and who is its publisher, if it submits a
    /// publication.
    ///
    /// # Errors
    /// What a denied one is answered; `None` if its connection speaks for no session any more, or may do nothing.
    pub(super) fn judge(
        &mut self,
        connection: ConnectionId,
        command: &ClientCommand,
    ) -> Result<(SessionId, Option<Arc<str>>), Option<ServerError>> {
        let Some(speaker) = self.connections.get_mut(&connection) else {
            return Err(None);
        };
        let session = speaker.session;
        let Some(access) = &mut speaker.access else {
            return Ok((session, None));
        };
        if access.is_over {
            return Err(None);
        }
        let subscriptions = &self.subscriptions;
        match needed(command) {
            Needed::Nothing => {}
            Needed::ToMake(permission, reference) => {
                if !access.allows(permission.into(), reference, subscriptions) {
                    return Err(Some(not_authorized(permission, reference)));
                }
            }
            Needed::Any(permissions, reference) => {
                // Whoever is in may go.
                let may_leave = || {
                    let session = self.sessions.get(&session);
                    matches!(command, ClientCommand::Unsubscribe(_))
                        && session.is_some_and(|session| session.held(reference.id).is_some())
                };
                if !access.allows(permissions, reference, subscriptions) && !may_leave() {
                    return Err(Some(not_found(reference)));
                }
            }
        }
        if let Some(target) = dead_letter(command)
            && !access.allows(Permission::Publish.into(), target, subscriptions)
        {
            return Err(Some(not_authorized(Permission::Publish, target)));
        }
        let is_submission = matches!(command, ClientCommand::SubmitPublication(_));
        let publisher = is_submission.then(|| access.principal.name.clone());
        Ok((session, publisher.flatten()))
    }

    /// Answers a denied command: by the way of those about a subscription that does not exist.
    pub(super) fn deny(&mut self, to: ReplyTo, error: ServerError) {
        self.building
            .effect(Durability::Synced, Effect::error(to, error));
    }

    /// Whether a connection may see that there is this subscription.
    pub(super) fn may_see(&self, connection: ConnectionId, subscription: &Subscription) -> bool {
        let speaker = self.connections.get(&connection);
        match speaker.and_then(|speaker| speaker.access.as_ref()) {
            None => true,
            Some(access) => {
                let name = subscription.settings.name.as_deref();
                let granted = access.principal.permissions.granted(subscription.id, name);
                granted.has_any([Permission::Read, Permission::Manage].into_iter().collect())
            }
        }
    }
}

/// Why what was judged good is good no more: the code with which its connection is closed, and the reason.
fn fallen(principal: &Principal) -> Option<(u16, &'static str)> {
    match principal.standing.stands() {
        Stands::AsItWas => None,
        Stands::Changed => Some((CREDENTIALS_CHANGED, "the credentials were changed")),
        Stands::Revoked => Some((NOT_AUTHORIZED, "the credentials were revoked")),
    }
}

/// The same at a time at which it may have ended by itself: between the judgement and its use much may come.
pub(super) fn fallen_by(principal: &Principal, now: Timestamp) -> Option<(u16, &'static str)> {
    let is_over = principal.expires.is_some_and(|expires| expires <= now);
    let ended = || is_over.then_some((NOT_AUTHORIZED, "the token ended"));
    fallen(principal).or_else(ended)
}

/// Tokens.
impl Broker {
    /// A connection gave a token, which was judged: a good one takes the place of the one before.
    pub fn authenticate(
        &mut self,
        to: ReplyTo,
        judged: Result<Principal, ServerError>,
        now: Timestamp,
    ) {
        let Some(speaker) = self.connections.get_mut(&to.connection) else {
            return self.drop_command(to);
        };
        let Some(access) = &mut speaker.access else {
            // Nobody is asked here.
            let anybody = Authenticated {
                name: None,
                expires: None,
            };
            return self.answer(to, ServerResponse::Authenticated(anybody));
        };
        if access.is_over {
            return self.drop_command(to);
        }
        let judged = judged.and_then(|principal| {
            if let Some((_, reason)) = fallen_by(&principal, now) {
                return Err(ServerError::new(ErrorCode::NotAuthorized, reason));
            }
            if principal.name == access.principal.name {
                return Ok(principal);
            }
            let message = "the token speaks for another identity than this connection";
            Err(ServerError::new(ErrorCode::NotAuthorized, message))
        });
        let principal = match judged {
            Ok(principal) => principal,
            Err(error) => return self.fail(to, error),
        };
        let session = speaker.session;
        let due = access.due;
        let Some(renewed) = Access::of(&principal, None, now) else {
            return self.drop_command(to);
        };
        let answer = renewed.authenticated();
        let next = renewed.due;
        **access = *renewed;
        self.set_due(to.connection, due, next);
        self.withdraw(session, Some(to.connection));
        self.answer(to, ServerResponse::Authenticated(answer));
    }

    /// The command that `connection` began with, and what it is answered beside `Welcome`.
    pub(super) fn take_beginning(
        &mut self,
        connection: ConnectionId,
    ) -> Option<(ReplyTo, Authenticated)> {
        let access = self.connections.get_mut(&connection)?.access.as_mut()?;
        let to = access.reply.take()?;
        Some((to, access.authenticated()))
    }

    /// Warns connections whose token is about to end, and closes those whose token did.
    pub fn expire_tokens(&mut self, now: Timestamp) {
        while let Some(&(due, connection)) = self.deadlines.first()
            && due <= now
        {
            self.deadlines.pop_first();
            let Some(speaker) = self.connections.get_mut(&connection) else {
                continue;
            };
            let session = self.sessions.get(&speaker.session);
            let is_welcomed = session.is_some_and(|session| session.welcomed);
            let Some(access) = &mut speaker.access else {
                continue;
            };
            access.due = None;
            let Some(expires) = access.principal.expires else {
                continue;
            };
            if now >= expires {
                access.is_over = true;
                let close = Effect::Close(connection, NOT_AUTHORIZED, "the token ended");
                self.building.effect(Durability::Synced, close);
                continue;
            }
            if !is_welcomed {
                let later = Timestamp(now.0 + POSTPONED).min(expires);
                self.set_due(connection, None, Some(later));
                continue;
            }
            let was_warned = std::mem::replace(&mut access.is_warned, true);
            self.set_due(connection, None, Some(expires));
            if !was_warned {
                let warning = ServerResponse::TokenExpiring(TokenExpiring { expires });
                let push = Effect::Push(connection, Box::new(warning));
                self.building.effect(Durability::Synced, push);
            }
        }
    }

    /// Closes the connections whose credentials are not what they were.
    pub fn check_standing(&mut self) {
        for (connection, speaker) in &mut self.connections {
            let Some(access) = speaker.access.as_mut().filter(|access| !access.is_over) else {
                continue;
            };
            let Some((code, reason)) = fallen(&access.principal) else {
                continue;
            };
            access.is_over = true;
            let close = Effect::Close(*connection, code, reason);
            self.building.effect(Durability::Synced, close);
        }
    }

    /// The time at which a connection is looked at was `before`, and is `next`.
    fn set_due(
        &mut self,
        connection: ConnectionId,
        before: Option<Timestamp>,
        next: Option<Timestamp>,
    ) {
        if let Some(before) = before {
            self.deadlines.remove(&(before, connection));
        }
        if let Some(next) = next {
            self.deadlines.insert((next, connection));
        }
        if let Some(speaker) = self.connections.get_mut(&connection)
            && let Some(access) = &mut speaker.access
        {
            access.due = next;
        }
    }
}

/// Sessions.
impl Broker {
    /// `connection` speaks for a session.
    pub(super) fn admit(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        principal: &Principal,
        reply: Option<ReplyTo>,
        now: Timestamp,
    ) {
        self.note_connection(principal.name.as_ref());
        let access = Access::of(principal, reply, now);
        if let (None, Some(to)) = (&access, reply) {
            self.drop_command(to);
        }
        let due = access.as_ref().and_then(|access| access.due);
        self.connections
            .insert(connection, Speaker { session, access });
        self.set_due(connection, None, due);
    }

    /// `connection` speaks for no session any more. Returns for which it did.
    pub(super) fn dismiss(&mut self, connection: ConnectionId) -> Option<SessionId> {
        let speaker = self.connections.remove(&connection)?;
        if let Some(mut access) = speaker.access {
            // Its `Welcome` never came.
            if let Some(to) = access.reply.take() {
                self.drop_command(to);
            }
            if let Some(due) = access.due {
                self.deadlines.remove(&(due, connection));
            }
            self.forget_connection(access.name());
        }
        Some(speaker.session)
    }

    /// A connection that may not speak for its session is closed.
    pub(super) fn refuse(&mut self, connection: ConnectionId, code: u16, reason: &'static str) {
        let close = Effect::Close(connection, code, reason);
        self.building.effect(Durability::Synced, close);
    }

    /// Ends what a session subscribes and its connection may not subscribe: as if it had been deleted. `served` is the connection, if it is
    /// served already.
    pub(super) fn withdraw(&mut self, id: SessionId, served: Option<ConnectionId>) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let Some(connection) = session.connection else {
            return;
        };
        let speaker = self.connections.get_mut(&connection);
        let Some(access) = speaker.and_then(|speaker| speaker.access.as_mut()) else {
            return;
        };
        let mut lost = Vec::new();
        for held in &session.held {
            let reference = held.subscription.into();
            if !access.allows(
                Permission::Subscribe.into(),
                &reference,
                &self.subscriptions,
            ) {
                lost.push(held.subscription);
            }
        }
        for subscription in lost {
            self.end_held(id, subscription, served);
        }
    }

    fn end_held(
        &mut self,
        id: SessionId,
        subscription: SubscriptionId,
        served: Option<ConnectionId>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.release(subscription);
        if session.durable {
            self.record(state::delete_cursor(id, subscription));
        }
        let Some(known) = self.subscriptions.get_mut(&subscription) else {
            return;
        };
        known.remove_session(id);
        known.staging.wait_for_sync(&self.building);
        let Some(connection) = served else { return };
        known.disconnect(connection.worker());
        known.staging.close_chunk();
        self.effect_about(subscription, Effect::Withdraw(connection, subscription));
        self.leave_queue(subscription, connection);
        self.dispatch(subscription);
    }

    /// Writes down whose a durable session is, unless that is done.
    pub(super) fn write_owner(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if let Some(record) = owner_to_write(session) {
            self.record(record);
        }
    }
}

fn owner_to_write(session: &mut Session) -> Option<super::Record> {
    let owner = session.owner.as_ref().filter(|_| session.durable)?;
    (!std::mem::replace(&mut session.is_owner_written, true))
        .then(|| state::put_owner(session.id, owner))
}
