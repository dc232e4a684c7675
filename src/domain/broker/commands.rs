//! What each command does: its way to the part that does it, and what all parts have in common.

use super::{
    super::{Effect, ReplyTo, Subscription},
    Broker,
};
use crate::protocol::{
    ClientCommand, Durability, ErrorCode, Kind, Pong, Request, ServerError, ServerResponse,
    SubscriptionId, SubscriptionReference, Timestamp,
};

/// What a command comes to: its answer is among the effects, an error is answered for it.
pub(super) type Outcome = Result<(), ServerError>;

impl Broker {
    /// Applies a command; its answer is among the effects. Commands of a connection that speaks for no session any more are dropped.
    pub fn handle(&mut self, to: ReplyTo, request: Request, now: Timestamp) {
        self.now = now;
        let (session, publisher) = match self.judge(to.connection, &request.command) {
            Ok(judged) => judged,
            Err(Some(error)) => {
                self.deny(to, error);
                return self.seal_if_large();
            }
            Err(None) => return self.drop_command(to),
        };
        let outcome = match request.command {
            ClientCommand::SubmitPublication(command) => {
                self.submit(to, command, publisher.as_deref(), now)
            }
            ClientCommand::Subscribe(command) => self.subscribe(to, session, command, now),
            ClientCommand::Unsubscribe(reference) => self.unsubscribe(to, session, &reference),
            ClientCommand::Acknowledge(command) => self.acknowledge(to, session, &command),
            ClientCommand::Reject(command) => self.reject_ids(to, &command),
            ClientCommand::Extend(command) => self.extend(to, &command),
            ClientCommand::GetLogIndex(command) => self.log_index(to, &command),
            ClientCommand::GetLogEntries(command) => self.log_entries(to, command),
            ClientCommand::CreateSubscription(command) => self.create(to, &command, now),
            ClientCommand::UpdateSubscription(command) => self.update(to, &command),
            ClientCommand::GetSubscription(reference) => self.subscription_meta(to, &reference),
            ClientCommand::ListSubscriptions(command) => self.list(to, &command),
            ClientCommand::DeleteSubscription(reference) => self.delete(to, &reference),
            // A token is judged before it comes here: see `authenticate`.
            ClientCommand::Authenticate(_) => Ok(()),
            ClientCommand::Ping => {
                self.answer(to, ServerResponse::Pong(Pong { time: now }));
                Ok(())
            }
        };
        if let Err(error) = outcome {
            self.fail(to, error);
        }
        self.seal_if_large();
    }

    /// Answers what was no command, in its turn. With `close`, the connection is closed behind the answer.
    pub fn reject(&mut self, to: ReplyTo, error: ServerError, close: Option<(u16, &'static str)>) {
        self.fail(to, error);
        if let Some((code, reason)) = close {
            self.building.effect(
                Durability::Synced,
                Effect::Close(to.connection, code, reason),
            );
        }
    }

    /// The subscription that a command is about.
    pub(super) fn found(
        &self,
        reference: &SubscriptionReference,
    ) -> Result<&Subscription, ServerError> {
        let known = self.subscriptions.get(&reference.id);
        known
            .map(|known| &**known)
            .ok_or_else(|| not_found(reference))
    }

    /// Nothing comes of a command, but it is under way no longer.
    pub(super) fn drop_command(&mut self, to: ReplyTo) {
        self.building
            .effect(Durability::Synced, Effect::Dropped(to));
    }
}

/// The answer about a subscription that does not exist, or of which whoever asks may not know.
pub(super) fn not_found(reference: &SubscriptionReference) -> ServerError {
    let message = match &reference.name {
        Some(name) => format!("there is no subscription {name:?}"),
        None => format!("there is no subscription {}", reference.id),
    };
    ServerError::new(ErrorCode::NotFound, message).for_subscription(reference.id)
}

pub(super) fn check_kind(subscription: &Subscription, asked: Option<Kind>) -> Outcome {
    match asked {
        Some(kind) if kind != subscription.kind => Err(ServerError::new(
            ErrorCode::KindMismatch,
            format!(
                "the subscription is a {:?}, not a {kind:?}",
                subscription.kind
            ),
        )
        .for_subscription(subscription.id)),
        _ => Ok(()),
    }
}

pub(super) fn invalid(id: SubscriptionId, message: impl Into<String>) -> ServerError {
    ServerError::new(ErrorCode::InvalidArgument, message).for_subscription(id)
}
