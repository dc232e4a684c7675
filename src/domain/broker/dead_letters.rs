//! What a Queue gives up: where it goes, and that it never comes back to where it was.

use super::{
    super::{Settings, queue::Dead},
    Broker,
    commands::invalid,
    publishing::Append,
};
use crate::protocol::{
    DeadLetter, Kind, Patch, ServerError, SettingsPatch, StoredPublication, SubscriptionId,
};

/// Queues behind each other that a dead letter can pass: nobody can make the server walk for long.
const MAX_CHAIN: usize = 64;

impl Broker {
    /// Publishes a dead letter where it belongs, unless it is there already.
    pub(super) fn bury(&mut self, id: SubscriptionId, dead: &Dead) -> Result<(), ServerError> {
        let Ok((publication, _)) = StoredPublication::split_first(&dead.frame) else {
            return Ok(());
        };
        let source = &self.subscriptions[&id];
        let target = source.settings.dead_letter(id);
        if target.id == id {
            return Err(leads_back(id));
        }
        let durability = source.settings.durability;
        let owner = source.owner.clone();
        let dead_letter = DeadLetter {
            subscription_id: id,
            epoch: source.epoch,
            sequence: dead.sequence,
            deliveries: u64::from(dead.deliveries),
            reason: dead.reason,
        };
        if source.memory.is_none() {
            self.writable()?;
        }
        let publication_id = publication.publication_id();
        if let Some(known) = self.subscriptions.get(&target.id)
            && self.sequence_of(known, publication_id)?.is_some()
        {
            return Ok(());
        }
        let size = publication.data().len() as u64;
        match self.subscriptions.get(&target.id) {
            Some(known) => self.check_size(target.id, &known.settings, size)?,
            None => {
                let patch = SettingsPatch {
                    durability: Patch::Value(durability),
                    ..SettingsPatch::default()
                };
                // It belongs to whoever made the Queue, and its bytes are counted, but never refused: they were let in once.
                let (settings, kind) = self.may_make(None, &patch, &target, None)?;
                self.check_size(target.id, &settings, size)?;
                self.make(&target, kind, settings, owner, self.now);
            }
        }
        self.check_queue_room(target.id, size)?;
        let append = Append {
            data: publication.data(),
            publication_id: Some(publication_id),
            publisher: publication.publisher(),
            dead_letter: Some(dead_letter),
        };
        self.append(None, target.id, append, self.now);
        Ok(())
    }

    /// Whether the dead letters of a Queue with these settings would come back to it, or nobody knows since the chain is too long. It is
    /// asked before a Queue gets another target, so a chain never becomes a circle.
    pub(super) fn leads_back(&self, id: SubscriptionId, settings: &Settings) -> bool {
        let mut target = settings.dead_letter(id).id;
        for _ in 0..MAX_CHAIN {
            if target == id {
                return true;
            }
            match self.subscriptions.get(&target) {
                Some(known) if known.kind == Kind::Queue => {
                    target = known.settings.dead_letter(target).id;
                }
                _ => return false,
            }
        }
        true
    }
}

/// The answer where dead letters would go round.
pub(super) fn leads_back(id: SubscriptionId) -> ServerError {
    let message =
        format!("the dead letters of the Queue would come back to it, or pass {MAX_CHAIN} Queues");
    invalid(id, message)
}
