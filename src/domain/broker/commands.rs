//! What each command does.

use super::{
    super::{
        Effect, Held, LogNumber, ReplyTo, Start, SubscribeEffect, Subscription, SubscriptionState,
        state,
    },
    Broker, PUBLICATION_OVERHEAD, advance, stage,
};
use crate::{
    domain::{LogSource, Record, Settings},
    protocol::{
        About, Acknowledge, Acknowledged, ClientCommand, CreateSubscription, Durability, Epoch,
        ErrorCode, Kind, ListSubscriptions, Pong, Publication, PublicationId, Request,
        ResponseRoom, Sequence, ServerError, ServerResponse, SessionId, SettingsPatch, Settled,
        StoredPublication, SubmitPublication, Submitted, Subscribe, SubscriptionId,
        SubscriptionReference, Subscriptions, Timestamp, UpdateSubscription, codec,
    },
};

type Outcome = Result<(), ServerError>;

impl Broker {
    /// Applies a command; its answer is among the effects. Commands of a connection that speaks for no session any more are dropped.
    pub fn handle(&mut self, to: ReplyTo, request: Request, now: Timestamp) {
        let Some(session) = self.session_of(to.connection) else {
            let dropped = Effect::Dropped(to);
            return self.building.effect(Durability::Synced, dropped);
        };
        let outcome = match request.command {
            ClientCommand::SubmitPublication(command) => self.submit(to, command, now),
            ClientCommand::Subscribe(command) => self.subscribe(to, session, command, now),
            ClientCommand::Unsubscribe(reference) => self.unsubscribe(to, session, &reference),
            ClientCommand::Acknowledge(command) => self.acknowledge(to, session, &command),
            ClientCommand::Reject(command) => self.queue_command(&command.subscription),
            ClientCommand::Extend(command) => self.queue_command(&command.subscription),
            ClientCommand::GetLogIndex(command) => self.log_index(to, &command),
            ClientCommand::GetLogEntries(command) => self.log_entries(to, command),
            ClientCommand::CreateSubscription(command) => self.create(to, &command, now),
            ClientCommand::UpdateSubscription(command) => self.update(to, &command),
            ClientCommand::GetSubscription(reference) => self.subscription_meta(to, &reference),
            ClientCommand::ListSubscriptions(command) => self.list(to, &command),
            ClientCommand::DeleteSubscription(reference) => self.delete(to, &reference),
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

    fn submit(&mut self, to: ReplyTo, command: SubmitPublication, now: Timestamp) -> Outcome {
        let id = command.subscription.id;
        let known = self.subscriptions.get(&id);
        if let Some(subscription) = known {
            check_kind(subscription, command.kind)?;
            if let Some(publication_id) = command.publication_id
                && let Some(sequence) = self.sequence_of(subscription, publication_id)?
            {
                let durability = subscription.settings.durability;
                let duplicate = Submitted {
                    subscription_id: id,
                    publication_id,
                    sequence,
                    duplicate: true,
                    durability,
                };
                self.answer_about(to, id, ServerResponse::Submitted(duplicate));
                return Ok(());
            }
        }
        let next = known.map_or(Sequence(1), |subscription| subscription.last.next());
        if command
            .expected_sequence
            .is_some_and(|expected| expected != next)
        {
            let message = format!("the next sequence is {next}");
            return Err(ServerError::new(ErrorCode::Conflict, message).for_subscription(id));
        }
        let size = command.submission.len() as u64;
        match known {
            Some(subscription) => {
                self.check_size(id, &subscription.settings, size)?;
                if command.subscription.name.is_some() && subscription.settings.name.is_none() {
                    self.take_name(&command.subscription);
                }
            }
            None => {
                let (settings, kind) = self.may_make(
                    command.kind,
                    &SettingsPatch::default(),
                    &command.subscription,
                )?;
                self.check_size(id, &settings, size)?;
                self.make(&command.subscription, kind, settings, now);
            }
        }
        self.append(to, id, &command.submission, command.publication_id, now);
        Ok(())
    }

    /// Space and size are decided before a sequence is given.
    fn check_size(&self, id: SubscriptionId, settings: &Settings, size: u64) -> Outcome {
        let retention = settings.retention(&self.limits.defaults);
        if let Some(max_bytes) = retention.max_bytes.filter(|max_bytes| size > *max_bytes) {
            let message = format!(
                "the submission has {size} bytes, and the subscription keeps at most {max_bytes}"
            );
            return Err(ServerError::new(ErrorCode::TooLarge, message).for_subscription(id));
        }
        if settings.durability == Durability::Memory {
            return Ok(());
        }
        self.writable()?;
        if self.pending_bytes + size + PUBLICATION_OVERHEAD > self.room.guaranteed {
            let message = "the disk has no room for another publication";
            return Err(ServerError::new(ErrorCode::LogFull, message).for_subscription(id));
        }
        Ok(())
    }

    /// Gives the submission its sequence, and sends it on its way.
    fn append(
        &mut self,
        to: ReplyTo,
        id: SubscriptionId,
        data: &[u8],
        supplied: Option<PublicationId>,
        now: Timestamp,
    ) {
        let subscription = self
            .subscriptions
            .get_mut(&id)
            .expect("invariant: the caller found or made it");
        let sequence = subscription.last.next();
        let time = advance(subscription.last_time, now);
        let publication_id =
            supplied.unwrap_or_else(|| PublicationId::made(time, sequence, self.random.u64(..)));
        let publication = Publication {
            subscription_id: id,
            publication_id,
            sequence,
            time,
            publisher: None,
            data,
        };
        if subscription.kept() == 0 {
            subscription.first_time = time;
        }
        subscription.last = sequence;
        subscription.last_time = time;
        subscription.bytes += data.len() as u64;

        let workers = subscription.workers();
        let (log, durability) = (subscription.log, subscription.settings.durability);
        let is_written = subscription.memory.is_none();
        let (batch, level) = stage(
            &mut self.building,
            &mut self.direct,
            self.committed,
            durability,
            &mut subscription.staging,
        );
        let before = batch.publication_bytes();
        let frame = batch.publish(
            &mut subscription.staging,
            log,
            &publication,
            level,
            workers,
            is_written,
        );
        if let Some(memory) = &mut subscription.memory {
            let (stored, _) = StoredPublication::split_first(frame)
                .expect("invariant: it was encoded a line above");
            memory.push(&stored);
            let retention = subscription.settings.retention(&self.limits.defaults);
            if let Some(cut) = memory.retain(retention, self.limits.memory_log, time) {
                subscription.cut(&cut);
            }
        }
        self.pending_bytes += batch.publication_bytes() - before;
        let submitted = Submitted {
            subscription_id: id,
            publication_id,
            sequence,
            duplicate: false,
            durability,
        };
        batch.effect(
            level,
            Effect::Answer(to, ServerResponse::Submitted(submitted)),
        );
        if supplied.is_some() && is_written {
            self.uncommitted.insert((log, publication_id), sequence);
            self.uncommitted_order
                .push_back((self.building.number(), log, publication_id));
        }
    }

    fn sequence_of(
        &self,
        subscription: &Subscription,
        id: PublicationId,
    ) -> Result<Option<Sequence>, ServerError> {
        if let Some(memory) = &subscription.memory {
            return Ok(memory.find(id));
        }
        if let Some(sequence) = self.uncommitted.get(&(subscription.log, id)) {
            return Ok(Some(*sequence));
        }
        self.known
            .find(subscription.log, id, subscription.last)
            .map_err(|error| {
                let message =
                    format!("whether the publication is there already can't be told: {error}");
                ServerError::new(ErrorCode::LogUnavailable, message)
                    .for_subscription(subscription.id)
            })
    }

    fn subscribe(
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
        match self.subscriptions.get(&id) {
            Some(subscription) => check_kind(subscription, command.kind)?,
            None => {
                _ = self.may_make(
                    command.kind,
                    &SettingsPatch::default(),
                    &command.subscription,
                )?
            }
        }
        if held.is_none() && session.held.len() as u64 >= self.limits.limits.max_subscriptions {
            let message = format!(
                "a session has at most {} subscriptions",
                self.limits.limits.max_subscriptions
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
            )?;
            self.make(&command.subscription, kind, settings, now);
        }

        let subscription = self
            .subscriptions
            .get_mut(&id)
            .expect("invariant: found or made above");
        let start = match (command.from, held) {
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
        let place = place(subscription, start, held);
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
        };
        self.effect_about(id, Effect::Subscribe(Box::new(effect)));
        self.sessions
            .get_mut(&session_id)
            .expect("invariant: it was there above")
            .hold(place);
        Ok(())
    }

    fn unsubscribe(
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
            self.writable()?;
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
        Ok(())
    }

    fn acknowledge(
        &mut self,
        to: ReplyTo,
        session_id: SessionId,
        command: &Acknowledge,
    ) -> Outcome {
        let subscription = self.found(&command.subscription)?;
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
        let available = self.available;
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
            if durable && !available {
                return self.writable();
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

    fn queue_command(&mut self, reference: &SubscriptionReference) -> Outcome {
        let id = self.found(reference)?.id;
        Err(invalid(
            id,
            "the command is for a Queue, and the subscription is a Broadcast",
        ))
    }

    fn create(&mut self, to: ReplyTo, command: &CreateSubscription, now: Timestamp) -> Outcome {
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
                    _ => subscription
                        .settings
                        .difference(&command.settings, &self.limits.defaults),
                };
                if let Some(difference) = difference {
                    let message = format!("the subscription exists with another {difference}");
                    return Err(ServerError::new(ErrorCode::Conflict, message).for_subscription(id));
                }
                self.take_name(&command.subscription);
            }
            None => {
                let (settings, kind) =
                    self.may_make(command.kind, &command.settings, &command.subscription)?;
                self.make(&command.subscription, kind, settings, now);
            }
        }
        self.answer_meta(to, id);
        Ok(())
    }

    fn update(&mut self, to: ReplyTo, command: &UpdateSubscription) -> Outcome {
        let subscription = self.found(&command.subscription)?;
        let id = subscription.id;
        let mut settings = subscription
            .settings
            .updated(&command.settings, subscription.kind, &self.limits.defaults)
            .map_err(|error| error.for_subscription(id))?;
        if settings.name.is_none() {
            settings.name = command.subscription.name.clone();
        }
        if settings != subscription.settings {
            self.writable()?;
            self.change(id, |subscription| subscription.settings = settings);
        }
        self.answer_meta(to, id);
        Ok(())
    }

    fn subscription_meta(&mut self, to: ReplyTo, reference: &SubscriptionReference) -> Outcome {
        let id = self.found(reference)?.id;
        self.answer_meta(to, id);
        Ok(())
    }

    fn answer_meta(&mut self, to: ReplyTo, id: SubscriptionId) {
        let meta = self.subscriptions[&id].meta(&self.limits.defaults);
        self.answer_about(to, id, ServerResponse::SubscriptionMeta(Box::new(meta)));
    }

    fn list(&mut self, to: ReplyTo, command: &ListSubscriptions) -> Outcome {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut ids = self
            .order
            .range((command.after.map_or(Unbounded, Excluded), Unbounded));
        let (mut subscriptions, mut room, mut more) = (Vec::new(), ResponseRoom::new(), false);
        for id in ids.by_ref() {
            let meta = self.subscriptions[id].meta(&self.limits.defaults);
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

    fn delete(&mut self, to: ReplyTo, reference: &SubscriptionReference) -> Outcome {
        let id = self.found(reference)?.id;
        self.writable()?;
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

    /// The subscription that a command is about.
    pub(super) fn found(
        &self,
        reference: &SubscriptionReference,
    ) -> Result<&Subscription, ServerError> {
        self.subscriptions.get(&reference.id).ok_or_else(|| {
            let message = match &reference.name {
                Some(name) => format!("there is no subscription {name:?}"),
                None => format!("there is no subscription {}", reference.id),
            };
            ServerError::new(ErrorCode::NotFound, message).for_subscription(reference.id)
        })
    }

    /// Whether a subscription can be made, and with which settings.
    fn may_make(
        &self,
        kind: Option<Kind>,
        patch: &SettingsPatch,
        reference: &SubscriptionReference,
    ) -> Result<(Settings, Kind), ServerError> {
        let kind = kind.unwrap_or(Kind::Broadcast);
        let settings = Settings::made(patch, kind, reference.name.clone(), &self.limits.defaults)
            .map_err(|error| error.for_subscription(reference.id))?;
        self.writable()?;
        if self.subscriptions.len() >= self.limits.max_subscriptions {
            let message = format!(
                "the server has {} subscriptions, which is its limit",
                self.subscriptions.len()
            );
            return Err(
                ServerError::new(ErrorCode::LimitReached, message).for_subscription(reference.id)
            );
        }
        Ok((settings, kind))
    }

    fn make(
        &mut self,
        reference: &SubscriptionReference,
        kind: Kind,
        settings: Settings,
        now: Timestamp,
    ) {
        let log = LogNumber(self.next_log);
        self.next_log += 1;
        let state = SubscriptionState {
            log,
            kind,
            epoch: Epoch::random(),
            created: now,
            settings,
        };
        self.building
            .record(state::put_subscription(reference.id, &state));
        if state.settings.durability != Durability::Memory {
            self.building.record(Record::CreateLog(log));
        }
        let mut subscription = Subscription::new(reference.id, state);
        subscription.staging.wait_for_sync(&self.building);
        self.insert(subscription);
    }

    /// The first command that uses a name gives it to the subscription.
    fn take_name(&mut self, reference: &SubscriptionReference) {
        let Some(name) = &reference.name else { return };
        if self.available
            && self
                .subscriptions
                .get(&reference.id)
                .is_some_and(|known| known.settings.name.is_none())
        {
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

/// A session's place in a subscription that it begins to be served from `start`.
fn place(subscription: &Subscription, start: Start, held: Option<Held>) -> Held {
    let begin = |handed| Held {
        subscription: subscription.id,
        log: subscription.log,
        epoch: subscription.epoch,
        acknowledged: None,
        handed,
    };
    match (start, held) {
        (Start::At { cursor, .. }, _) => begin(cursor),
        (Start::Keep, Some(held)) => held,
        // Where it begins is known when the log was asked; until the first cursor comes back, a crash repeats rather than skips.
        (Start::Since(_), _) | (Start::Keep, None) => begin(subscription.oldest()),
    }
}

fn check_kind(subscription: &Subscription, asked: Option<Kind>) -> Outcome {
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

fn invalid(id: SubscriptionId, message: impl Into<String>) -> ServerError {
    ServerError::new(ErrorCode::InvalidArgument, message).for_subscription(id)
}
