//! A write or sync that failed is final: what rested on it is taken back, and reading goes on.

use std::collections::HashSet;

use super::{
    super::{Effect, LogNumber, Record, ReplyTo, SealedBatch, WelcomeEffect},
    Broker,
};
use crate::protocol::{
    Durability, ErrorCode, Sequence, ServerError, ServerResponse, stored_publications,
};

impl Broker {
    /// The log can't be written any more, and `batch`, if there is one, was not committed; with `was_written`, the operating system has it,
    /// but may not have synced it.
    ///
    /// Nothing of it was released but, with `was_written`, what waits for the write only. A batch that is under way meanwhile fails in a
    /// call of its own, and goes in front of what waits then.
    pub fn commit_failed(&mut self, batch: Option<SealedBatch>, was_written: bool) {
        self.available = false;
        self.seal();
        let written = batch
            .as_ref()
            .map(|batch| batch.number)
            .filter(|_| was_written);
        let mut failed: Vec<_> = batch.into_iter().collect();
        failed.extend(self.ready.drain(..));
        let mut made = HashSet::new();
        for batch in &failed {
            let was_written = Some(batch.number) == written;
            for record in &batch.records {
                match record {
                    Record::Publications(_) => self.take_back(record, was_written),
                    Record::CreateLog(log) => _ = made.insert(*log),
                    _ => {}
                }
            }
        }
        self.unmake(&made);
        for batch in failed {
            let released = self.fail_effects(batch);
            self.ready.push_back(released);
        }
        self.unreadable.clear();
        self.uncommitted.clear();
        self.uncommitted_order.clear();
        self.sealed_bytes = 0;
    }

    /// Takes publications back that never were acknowledged.
    fn take_back(&mut self, record: &Record, was_written: bool) {
        let Record::Publications(chunk) = record else {
            return;
        };
        let mut publications = stored_publications(&chunk.frames)
            .map_while(Result::ok)
            .peekable();
        let Some(first) = publications.peek() else {
            return;
        };
        let Some(subscription) = self.subscriptions.get_mut(&first.subscription_id()) else {
            return;
        };
        let acknowledged = was_written && subscription.settings.durability == Durability::Written;
        if acknowledged || subscription.log != chunk.log {
            return;
        }
        let bytes = publications
            .map(|publication| publication.data().len() as u64)
            .sum::<u64>();
        subscription.bytes -= bytes;
        self.figures.shrink(bytes);
        subscription.last = subscription.last.min(chunk.first.previous());
        self.figures.recount(subscription);
    }

    fn unmake(&mut self, made: &HashSet<LogNumber>) {
        let unmade: Vec<_> = self
            .subscriptions
            .values()
            .filter(|known| made.contains(&known.log))
            .map(|known| known.id)
            .collect();
        for id in unmade {
            let Some(subscription) = self.remove(id) else {
                continue;
            };
            for session in subscription.sessions() {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.release(id);
                }
            }
        }
    }

    /// The batch without records, its successes turned into errors.
    fn fail_effects(&mut self, batch: SealedBatch) -> SealedBatch {
        let SealedBatch {
            number,
            at_write,
            at_sync,
            ..
        } = batch;
        let effects = at_write.into_iter().chain(at_sync);
        let at_sync = effects
            .filter_map(|(workers, effect)| Some((workers, self.fail_effect(effect)?)))
            .collect();
        SealedBatch {
            number,
            records: Vec::new(),
            at_write: Vec::new(),
            at_sync,
            needs_sync: false,
            size: 0,
            publications: 0,
            publication_bytes: 0,
        }
    }

    fn fail_effect(&mut self, effect: Effect) -> Option<Effect> {
        match effect {
            Effect::Publications(_) | Effect::Deliver(_) | Effect::Deleted { .. } => None,
            Effect::Answer(_, ServerResponse::Error(_) | ServerResponse::Pong(_))
            | Effect::Dropped(_)
            | Effect::Withdraw(..)
            | Effect::Push(..)
            | Effect::Close(..) => Some(effect),
            Effect::Welcome(mut effect) => {
                let known = &self.subscriptions;
                let WelcomeEffect {
                    welcome, restored, ..
                } = &mut *effect;
                welcome
                    .subscriptions
                    .retain(|one| known.contains_key(&one.subscription_id));
                restored.retain_mut(|one| {
                    let known = known.get(&one.subscription);
                    // What was taken back may lie in the log, but is not to be read.
                    one.last = known.map_or(Sequence::ZERO, |known| known.last.min(one.last));
                    known.is_some()
                });
                Some(Effect::Welcome(effect))
            }
            Effect::Answer(to, _) | Effect::Read(to, _) | Effect::Unsubscribe(to, ..) => {
                Some(unavailable(to))
            }
            Effect::Subscribe(subscribe) => {
                let (to, id) = (subscribe.to, subscribe.subscription);
                if let Some(session) = self
                    .session_of(to.connection)
                    .and_then(|id| self.sessions.get_mut(&id))
                    && session.release(id)
                    && let Some(subscription) = self.subscriptions.get_mut(&id)
                {
                    subscription.remove_session(session.id);
                    subscription.disconnect(to.connection.worker());
                    self.leave_queue(id, to.connection);
                }
                Some(unavailable(to))
            }
        }
    }
}

fn unavailable(to: ReplyTo) -> Effect {
    let message = "the log could not be written: whether the command took effect is not known before the next start";
    Effect::error(to, ServerError::new(ErrorCode::LogUnavailable, message))
}
