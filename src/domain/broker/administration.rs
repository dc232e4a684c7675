//! Making, changing, showing and deleting subscriptions.

use std::sync::Arc;

use super::{
    super::{
        Effect, LogNumber, LogSource, Record, ReplyTo, Serving, Settings, Subscription,
        SubscriptionState, queue::Progress, state,
    },
    Broker,
    commands::Outcome,
    dead_letters::leads_back,
};
use crate::counted;
use crate::protocol::{
    About, CreateSubscription, Durability, Epoch, ErrorCode, Kind, ListSubscriptions, ResponseRoom,
    Sequence, ServerError, ServerResponse, SettingsPatch, SubscriptionId, SubscriptionReference,
    Subscriptions, Timestamp, UpdateSubscription, codec,
};

impl Broker {
    pub(super) fn create(
        &mut self,
        to: ReplyTo,
        command: &CreateSubscription,
        now: Timestamp,
    ) -> Outcome {
        let id = command.subscription.id;
        match self.subscriptions.get(&id) {
            Some(subscription) => {
                // A setting that the kind does not have is wrong whatever exists.
                Settings::made(
                    &command.settings,
                    subscription.kind,
                    None,
                    &self.limits.defaults,
                )
                .map_err(|error| error.for_subscription(id))?;
                let difference = match command.kind {
                    Some(kind) if kind != subscription.kind => Some("kind"),
                    _ => subscription.settings.difference(
                        id,
                        &command.settings,
                        &self.limits.defaults,
                    ),
                };
                if let Some(difference) = difference {
                    let message = format!("the subscription exists with another {difference}");
                    return Err(ServerError::new(ErrorCode::Conflict, message).for_subscription(id));
                }
                self.take_name(&command.subscription);
            }
            None => {
                let owner = self.maker(to.connection);
                let (settings, kind) = self.may_make(
                    command.kind,
                    &command.settings,
                    &command.subscription,
                    owner.as_ref(),
                )?;
                self.make(&command.subscription, kind, settings, owner, now);
            }
        }
        self.answer_meta(to, id);
        Ok(())
    }

    pub(super) fn update(&mut self, to: ReplyTo, command: &UpdateSubscription) -> Outcome {
        let subscription = self.found(&command.subscription)?;
        let id = subscription.id;
        let mut settings = subscription
            .settings
            .updated(&command.settings, subscription.kind, &self.limits.defaults)
            .map_err(|error| error.for_subscription(id))?;
        if settings.name.is_none() {
            settings.name = command.subscription.name.clone();
        }
        let moves_dead = subscription.kind == Kind::Queue
            && settings.dead_letter(id).id != subscription.settings.dead_letter(id).id;
        if moves_dead && self.leads_back(id, &settings) {
            return Err(leads_back(id));
        }
        if settings != subscription.settings {
            // It may be what makes room.
            self.clearable()?;
            self.change(id, |subscription| subscription.settings = settings);
            self.dispatch(id);
        }
        self.answer_meta(to, id);
        Ok(())
    }

    pub(super) fn subscription_meta(
        &mut self,
        to: ReplyTo,
        reference: &SubscriptionReference,
    ) -> Outcome {
        let id = self.found(reference)?.id;
        self.answer_meta(to, id);
        Ok(())
    }

    fn answer_meta(&mut self, to: ReplyTo, id: SubscriptionId) {
        let meta = self.subscriptions[&id].meta(&self.limits.defaults);
        self.answer_about(to, id, ServerResponse::SubscriptionMeta(Box::new(meta)));
    }

    pub(super) fn list(&mut self, to: ReplyTo, command: &ListSubscriptions) -> Outcome {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut ids = self
            .order
            .range((command.after.map_or(Unbounded, Excluded), Unbounded));
        let (mut subscriptions, mut room, mut more) = (Vec::new(), ResponseRoom::new(), false);
        for id in ids.by_ref() {
            let subscription = &self.subscriptions[id];
            if !self.may_see(to.connection, subscription) {
                continue;
            }
            let meta = subscription.meta(&self.limits.defaults);
            if subscriptions.len() == command.limit || !room.take(codec::encoded_len(&meta)) {
                more = true;
                break;
            }
            subscriptions.push(meta);
        }
        self.answer(
            to,
            ServerResponse::Subscriptions(Box::new(Subscriptions {
                subscriptions,
                more,
            })),
        );
        Ok(())
    }

    pub(super) fn delete(&mut self, to: ReplyTo, reference: &SubscriptionReference) -> Outcome {
        let id = self.found(reference)?.id;
        self.clearable()?;
        let subscription = self.remove(id).expect("invariant: found above");
        for session_id in subscription.sessions() {
            let Some(session) = self.sessions.get_mut(&session_id) else {
                continue;
            };
            session.release(id);
            if session.durable {
                self.building.record(state::delete_cursor(session_id, id));
            }
        }
        self.building.record(state::delete_subscription(id));
        if subscription.source() == LogSource::Disk {
            self.building.record(Record::RemoveLog(subscription.log));
        }
        if let Some(serving) = &subscription.serving {
            self.building
                .record(state::delete_queue_head(subscription.log));
            for number in serving.queue.progress().written() {
                self.building
                    .record(state::delete_queue_block(subscription.log, number));
            }
            if let Some(due) = serving.due {
                self.due.remove(&(due, id));
            }
        }
        let workers = subscription.workers();
        let effect = Effect::Deleted {
            subscription: id,
            except: Some(to.connection),
        };
        self.building
            .effect_for(Durability::Synced, workers, effect);
        let deleted = ServerResponse::Deleted(About {
            subscription_id: id,
        });
        self.effect_about(id, Effect::Unsubscribe(to, id, deleted));
        Ok(())
    }

    /// Whether a subscription can be made, and with which settings.
    pub(super) fn may_make(
        &self,
        kind: Option<Kind>,
        patch: &SettingsPatch,
        reference: &SubscriptionReference,
        owner: Option<&Arc<str>>,
    ) -> Result<(Settings, Kind), ServerError> {
        let kind = kind.unwrap_or(Kind::Broadcast);
        let settings = Settings::made(patch, kind, reference.name.clone(), &self.limits.defaults)
            .map_err(|error| error.for_subscription(reference.id))?;
        if kind == Kind::Queue && self.leads_back(reference.id, &settings) {
            return Err(leads_back(reference.id));
        }
        self.writable()?;
        if self.subscriptions.len() >= self.limits.max_subscriptions {
            let message = format!(
                "the server has {}, which is its limit",
                counted(self.subscriptions.len(), "subscription", "subscriptions")
            );
            return Err(
                ServerError::new(ErrorCode::LimitReached, message).for_subscription(reference.id)
            );
        }
        self.may_own(owner, reference.id)?;
        Ok((settings, kind))
    }

    pub(super) fn make(
        &mut self,
        reference: &SubscriptionReference,
        kind: Kind,
        settings: Settings,
        owner: Option<Arc<str>>,
        now: Timestamp,
    ) {
        let log = LogNumber(self.next_log);
        self.next_log += 1;
        let state = SubscriptionState {
            log,
            kind,
            epoch: Epoch::random(),
            created: now,
            owner: owner.as_deref().map(Into::into),
            settings,
        };
        self.building
            .record(state::put_subscription(reference.id, &state));
        if state.settings.durability != Durability::Memory {
            self.building.record(Record::CreateLog(log));
        }
        let mut subscription = Subscription::new(reference.id, state);
        subscription.owner = owner;
        subscription.staging.wait_for_sync(&self.building);
        if kind == Kind::Queue {
            let rules = self.limits.rules(&subscription.settings);
            let serving = Serving::new(Progress::default(), rules, Sequence::ZERO);
            subscription.serving = Some(Box::new(serving));
        }
        self.insert(subscription);
    }

    /// The first command that uses a name gives it to the subscription.
    pub(super) fn take_name(&mut self, reference: &SubscriptionReference) {
        let Some(name) = &reference.name else { return };
        let Some(known) = self.subscriptions.get(&reference.id) else {
            return;
        };
        if known.settings.name.is_some() {
            return;
        }
        let named = Settings {
            name: Some(name.clone()),
            ..known.settings.clone()
        };
        // With its name, a Queue takes another dead-letter subscription by default, which must not lead back to it.
        let may_change = known.kind == Kind::Broadcast || !self.leads_back(reference.id, &named);
        if self.writable().is_ok() && may_change {
            self.change(reference.id, |subscription| {
                subscription.settings.name = Some(name.clone())
            });
        }
    }

    /// Changes what is written down of a subscription.
    fn change(&mut self, id: SubscriptionId, change: impl FnOnce(&mut Subscription)) {
        let subscription = self
            .subscriptions
            .get_mut(&id)
            .expect("invariant: the caller found it");
        change(subscription);
        if let Some(serving) = &mut subscription.serving {
            serving
                .queue
                .set_rules(self.limits.rules(&subscription.settings));
        }
        if subscription.settings.retention.is_some() {
            self.retained.insert(id);
        } else {
            self.retained.remove(&id);
        }
        self.building
            .record(state::put_subscription(id, &subscription.state()));
        subscription.staging.wait_for_sync(&self.building);
    }
}
