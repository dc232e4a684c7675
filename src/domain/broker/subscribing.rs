//! Who subscribes what, and how far it got.

use super::{
    super::{Effect, Held, ReplyTo, Start, SubscribeEffect, Subscription, state},
    Broker,
    commands::{Outcome, check_kind, invalid},
};
use crate::counted;
use crate::protocol::{
    About, Acknowledge, Acknowledged, ErrorCode, Kind, ServerError, ServerResponse, SessionId,
    SettingsPatch, Settled, Subscribe, SubscriptionReference, Timestamp,
};

/// How much of a Queue is in flight to a subscriber that does not say.
pub(super) const PREFETCH: u16 = 32;

impl Broker {
    pub(super) fn subscribe(
        &mut self,
        to: ReplyTo,
        session_id: SessionId,
        command: Subscribe,
        now: Timestamp,
    ) -> Outcome {
        let id = command.subscription.id;
        let session = self
            .sessions
            .get(&session_id)
            .expect("invariant: a connection speaks for a session");
        let durable = session.durable;
        let held = session.held(id).copied();
        let owner = self.maker(to.connection);
        match self.subscriptions.get(&id) {
            Some(subscription) => check_kind(subscription, command.kind)?,
            None => {
                _ = self.may_make(
                    command.kind,
                    &SettingsPatch::default(),
                    &command.subscription,
                    owner.as_ref(),
                )?
            }
        }
        if held.is_none() && session.held.len() as u64 >= self.limits.limits.max_subscriptions {
            let message = format!(
                "a session has at most {}",
                counted(
                    self.limits.limits.max_subscriptions,
                    "subscription",
                    "subscriptions"
                )
            );
            return Err(ServerError::new(ErrorCode::LimitReached, message).for_subscription(id));
        }
        if durable {
            self.writable()?;
        }
        if self.subscriptions.contains_key(&id) {
            self.take_name(&command.subscription);
        } else {
            let (settings, kind) = self.may_make(
                command.kind,
                &SettingsPatch::default(),
                &command.subscription,
                owner.as_ref(),
            )?;
            self.make(&command.subscription, kind, settings, owner, now);
        }
        if durable {
            // In the same batch: what is there again after a crash is there with its owner.
            self.write_owner(session_id);
        }

        let subscription = self
            .subscriptions
            .get_mut(&id)
            .expect("invariant: found or made above");
        let prefetch = (subscription.kind == Kind::Queue).then(|| {
            let kept = held.and_then(|held| held.prefetch);
            command.prefetch.or(kept).unwrap_or(PREFETCH)
        });
        // The subscribers of a Queue share one position.
        let from = command.from.filter(|_| prefetch.is_none());
        let start = match (from, held) {
            (Some(from), _) => subscription.start(from, command.epoch),
            (None, Some(_))
                if command
                    .epoch
                    .is_none_or(|epoch| epoch == subscription.epoch) =>
            {
                Start::Keep
            }
            (None, Some(_)) => Start::At {
                cursor: subscription.oldest(),
                recovered: false,
            },
            (None, None) => Start::At {
                cursor: subscription.last,
                recovered: true,
            },
        };
        let place = Held {
            prefetch,
            ..place(subscription, start, held)
        };
        if held.is_none() {
            subscription.add_session(session_id);
            subscription.connect(to.connection.worker());
        }
        if durable && held != Some(place) {
            self.building
                .record(state::put_cursor(session_id, id, &place.state()));
            subscription.staging.wait_for_sync(&self.building);
        }
        subscription.staging.close_chunk();
        let joined = prefetch.map_or(0, |prefetch| self.join_queue(id, to.connection, prefetch));
        let subscription = &self.subscriptions[&id];
        let effect = SubscribeEffect {
            to,
            subscription: id,
            log: subscription.log,
            source: subscription.source(),
            kind: subscription.kind,
            epoch: subscription.epoch,
            first: subscription.first,
            last: subscription.last,
            start,
            prefetch,
            joined,
        };
        self.effect_about(id, Effect::Subscribe(Box::new(effect)));
        self.sessions
            .get_mut(&session_id)
            .expect("invariant: it was there above")
            .hold(place);
        if prefetch.is_some() {
            self.dispatch(id);
        }
        Ok(())
    }

    pub(super) fn unsubscribe(
        &mut self,
        to: ReplyTo,
        session_id: SessionId,
        reference: &SubscriptionReference,
    ) -> Outcome {
        let id = self.found(reference)?.id;
        let session = self
            .sessions
            .get_mut(&session_id)
            .expect("invariant: a connection speaks for a session");
        if session.durable && session.held(id).is_some() {
            self.clearable()?;
        }
        let session = self
            .sessions
            .get_mut(&session_id)
            .expect("invariant: it was there above");
        let was_held = session.release(id);
        let durable = session.durable;
        let subscription = self
            .subscriptions
            .get_mut(&id)
            .expect("invariant: found above");
        if was_held {
            subscription.remove_session(session_id);
            subscription.disconnect(to.connection.worker());
            if durable {
                self.building.record(state::delete_cursor(session_id, id));
                subscription.staging.wait_for_sync(&self.building);
            }
        }
        subscription.staging.close_chunk();
        let unsubscribed = ServerResponse::Unsubscribed(About {
            subscription_id: id,
        });
        self.effect_about(id, Effect::Unsubscribe(to, id, unsubscribed));
        self.leave_queue(id, to.connection);
        self.dispatch(id);
        Ok(())
    }

    pub(super) fn acknowledge(
        &mut self,
        to: ReplyTo,
        session_id: SessionId,
        command: &Acknowledge,
    ) -> Outcome {
        let subscription = self.found(&command.subscription)?;
        if subscription.kind == Kind::Queue {
            return self.acknowledge_ids(to, command);
        }
        let (id, first, last) = (subscription.id, subscription.first, subscription.last);
        let Acknowledged::UpTo(sequence) = command.what else {
            return Err(invalid(
                id,
                "publication_ids are acknowledged in a Queue; a Broadcast takes sequence",
            ));
        };
        if sequence > last {
            return Err(invalid(
                id,
                format!("the newest sequence is {last}, so {sequence} can't be acknowledged"),
            ));
        }
        let writable = self.writable();
        let session = self
            .sessions
            .get_mut(&session_id)
            .expect("invariant: a connection speaks for a session");
        let durable = session.durable;
        let Some(held) = session.held_mut(id) else {
            return Err(invalid(
                id,
                "the session does not subscribe it, so it has nothing to acknowledge",
            ));
        };
        let mut count = 0;
        if held
            .acknowledged
            .is_none_or(|acknowledged| acknowledged < sequence)
        {
            if durable {
                writable?;
            }
            let before = held.acknowledged.unwrap_or_default().max(first.previous());
            count = sequence.0.saturating_sub(before.0);
            held.acknowledged = Some(sequence);
            if durable {
                self.building
                    .record(state::put_cursor(session_id, id, &held.state()));
                let subscription = self
                    .subscriptions
                    .get_mut(&id)
                    .expect("invariant: found above");
                subscription.staging.wait_for_sync(&self.building);
            }
        }
        let settled = Settled {
            subscription_id: id,
            count,
            lost: None,
        };
        self.answer_about(to, id, ServerResponse::Acknowledged(settled));
        Ok(())
    }
}

/// A session's place in a subscription that it begins to be served from `start`.
fn place(subscription: &Subscription, start: Start, held: Option<Held>) -> Held {
    let begin = |handed| Held {
        subscription: subscription.id,
        log: subscription.log,
        epoch: subscription.epoch,
        acknowledged: None,
        handed,
        prefetch: None,
    };
    match (start, held) {
        (Start::At { cursor, .. }, _) => begin(cursor),
        (Start::Keep, Some(held)) => held,
        // Where it begins is known when the log was asked; until the first cursor comes back, a crash repeats rather than skips.
        (Start::Since(_), _) | (Start::Keep, None) => begin(subscription.oldest()),
    }
}
