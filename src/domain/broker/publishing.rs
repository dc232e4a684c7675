//! Submissions become publications.

use super::{
    super::{Effect, ReplyTo, Settings, Subscription},
    Broker, PUBLICATION_OVERHEAD, advance,
    commands::{Outcome, check_kind},
    stage,
};
use crate::protocol::{
    Durability, ErrorCode, Publication, PublicationId, Sequence, ServerError, ServerResponse,
    SettingsPatch, StoredPublication, SubmitPublication, Submitted, SubscriptionId, Timestamp,
};

impl Broker {
    pub(super) fn submit(
        &mut self,
        to: ReplyTo,
        command: SubmitPublication,
        now: Timestamp,
    ) -> Outcome {
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
        if self.pending_bytes() + size + PUBLICATION_OVERHEAD > self.room.guaranteed {
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
}
