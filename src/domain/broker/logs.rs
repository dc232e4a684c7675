//! Reading logs: from memory at once, from the data log when what may be shown is released.

use super::{
    super::{Effect, Read, ReadWhat, ReplyTo, answer_read},
    Broker,
    commands::Outcome,
};
use crate::protocol::{GetLogEntries, GetLogIndex, Sequence, SubscriptionReference};

impl Broker {
    pub(super) fn log_index(&mut self, to: ReplyTo, command: &GetLogIndex) -> Outcome {
        self.read(
            to,
            &command.log,
            ReadWhat::Index {
                after: command.after,
                limit: command.limit,
            },
        )
    }

    pub(super) fn log_entries(&mut self, to: ReplyTo, command: GetLogEntries) -> Outcome {
        match command {
            GetLogEntries::Range(GetLogIndex { log, after, limit }) => {
                self.read(to, &log, ReadWhat::Range { after, limit })
            }
            GetLogEntries::Ids(log, ids) => self.read(to, &log, ReadWhat::Ids(ids)),
        }
    }

    /// A page of a Memory subscription; `None` if there is no such log any more.
    pub fn memory_page(
        &self,
        subscription: crate::protocol::SubscriptionId,
        log: super::LogNumber,
        after: Sequence,
        through: Sequence,
        max_bytes: usize,
    ) -> Option<super::super::Page> {
        let subscription = self
            .subscriptions
            .get(&subscription)
            .filter(|known| known.log == log)?;
        Some(
            subscription
                .memory
                .as_ref()?
                .page(after, through, max_bytes),
        )
    }

    fn read(&mut self, to: ReplyTo, reference: &SubscriptionReference, what: ReadWhat) -> Outcome {
        let subscription = self.found(reference)?;
        let id = subscription.id;
        let read = Read {
            subscription: id,
            log: subscription.log,
            last: subscription.last,
            what,
        };
        let effect = match &subscription.memory {
            Some(memory) => {
                let Ok(answer) = answer_read(&**memory, &read);
                Effect::Answer(to, answer)
            }
            None => Effect::Read(to, read),
        };
        self.effect_about(id, effect);
        Ok(())
    }
}
