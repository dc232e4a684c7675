//! Submissions become publications.

use super::{
    super::{DeliveryKey, Effect, FrameSource, ReplyTo, Settings, Subscription, Workers},
    Broker, PUBLICATION_OVERHEAD, advance,
    commands::{Outcome, check_kind},
    stage,
};
use crate::protocol::{
    DeadLetter, Durability, ErrorCode, Kind, Publication, PublicationId, Retention, Sequence,
    ServerError, ServerResponse, SettingsPatch, StoredPublication, SubmitPublication, Submitted,
    SubscriptionId, Timestamp,
};

/// What becomes a publication.
pub(super) struct Append<'a> {
    pub(super) data: &'a [u8],
    pub(super) publication_id: Option<PublicationId>,
    pub(super) publisher: Option<&'a str>,
    pub(super) dead_letter: Option<DeadLetter>,
}

impl Broker {
    pub(super) fn submit(
        &mut self,
        to: ReplyTo,
        command: SubmitPublication,
        publisher: Option<&str>,
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
                let takes_name =
                    command.subscription.name.is_some() && subscription.settings.name.is_none();
                if subscription.kind == Kind::Queue {
                    self.check_queue_room(id, size)?;
                }
                self.check_quota(id, size)?;
                if takes_name {
                    self.take_name(&command.subscription);
                }
            }
            None => {
                let owner = self.maker(to.connection);
                let (settings, kind) = self.may_make(
                    command.kind,
                    &SettingsPatch::default(),
                    &command.subscription,
                    owner.as_ref(),
                )?;
                self.check_size(id, &settings, size)?;
                self.check_quota_of(owner.clone(), id, size)?;
                self.make(&command.subscription, kind, settings, owner, now);
            }
        }
        let append = Append {
            data: &command.submission,
            publication_id: command.publication_id,
            publisher,
            dead_letter: None,
        };
        self.append(Some(to), id, append, now);
        Ok(())
    }

    /// Space and size are decided before a sequence is given.
    pub(super) fn check_size(&self, id: SubscriptionId, settings: &Settings, size: u64) -> Outcome {
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

    /// Whether what a Queue has not settled leaves room for `size` bytes more.
    pub(super) fn check_queue_room(&mut self, id: SubscriptionId, size: u64) -> Outcome {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return Ok(());
        };
        let retention = subscription.settings.retention(&self.limits.defaults);
        let removable = subscription.removable();
        let Some(serving) = &mut subscription.serving else {
            return Ok(());
        };
        let is_full = if let Some(memory) = &mut subscription.memory {
            let capacity = self.limits.memory_log.saturating_sub(size);
            let limits = Retention {
                max_bytes: retention.max_bytes.map(|most| most.saturating_sub(size)),
                ..retention
            };
            let cut = memory.retain(limits, capacity, self.now, removable);
            // What is not settled stays in memory whatever the other limits say.
            let is_full = match retention.max_bytes {
                Some(most) => memory.payload_bytes() + size > most,
                None => memory.frame_bytes_behind(removable) > capacity,
            };
            if let Some(cut) = cut {
                self.figures.shrink(subscription.cut(&cut));
            }
            is_full
        } else if let Some(most) = retention.max_bytes {
            let fits = |bytes: u64| subscription.bytes.saturating_sub(bytes) + size <= most;
            if !fits(serving.removable.1) && serving.removable.0 < removable {
                let bytes = self.known.bytes_through(subscription.log, removable);
                serving.removable = (removable, bytes.unwrap_or_default());
            }
            !fits(serving.removable.1)
        } else {
            false
        };
        if is_full {
            let message = "what the Queue has not settled leaves no room for another publication";
            return Err(ServerError::new(ErrorCode::LogFull, message).for_subscription(id));
        }
        Ok(())
    }

    /// Gives a publication its sequence, and sends it on its way. `Submitted` is answered to whoever asks.
    pub(super) fn append(
        &mut self,
        to: Option<ReplyTo>,
        id: SubscriptionId,
        append: Append<'_>,
        now: Timestamp,
    ) {
        let Append {
            data,
            publication_id: supplied,
            publisher,
            dead_letter,
        } = append;
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
            publisher,
            dead_letter,
            data,
        };
        if subscription.kept() == 0 {
            subscription.first_time = time;
        }
        subscription.last = sequence;
        subscription.last_time = time;
        subscription.bytes += data.len() as u64;
        self.figures.log_bytes += data.len() as u64;

        let removable = subscription.removable();
        // A Queue's go to one subscriber, not to all.
        let workers = match subscription.kind {
            Kind::Broadcast => subscription.workers(),
            Kind::Queue => Workers::default(),
        };
        let (log, durability) = (subscription.log, subscription.settings.durability);
        let is_written = subscription.memory.is_none();
        let (batch, level) = stage(
            &mut self.building,
            &mut self.direct,
            self.committed,
            durability,
            &mut subscription.staging,
        );
        let placed = batch.publish(
            &mut subscription.staging,
            log,
            &publication,
            level,
            workers,
            is_written,
        );
        if let Some(memory) = &mut subscription.memory {
            let frame = batch.frame(&placed);
            let (stored, _) = StoredPublication::split_first(frame)
                .expect("invariant: it was encoded a line above");
            memory.push(&stored);
            let retention = subscription.settings.retention(&self.limits.defaults);
            let capacity = self.limits.memory_log;
            if let Some(cut) = memory.retain(retention, capacity, time, removable) {
                self.figures.shrink(subscription.cut(&cut));
            }
        }
        if let Some(to) = to {
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
        }
        if let Some(serving) = &mut subscription.serving {
            let len = batch.frame(&placed).len();
            let leased = (!self.stopping)
                .then(|| {
                    serving
                        .queue
                        .lease_fresh(sequence, publication_id, len, self.uptime)
                })
                .flatten();
            if let Some(connection) = leased {
                let key = DeliveryKey {
                    connection,
                    log,
                    part: serving.part,
                    level,
                };
                batch.deliver(key, id, FrameSource::Placed(placed), 1);
            }
            if is_written {
                self.note_for_batch(id);
            } else {
                serving.queue.set_readable(sequence);
            }
            self.note(id);
        }
        self.use_quota(id, data.len() as u64);
        if supplied.is_some() && is_written {
            self.uncommitted.insert((log, publication_id), sequence);
            self.uncommitted_order
                .push_back((self.building.number(), log, publication_id));
        }
    }

    pub(super) fn sequence_of(
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
