//! The way back: from the two actors that release effects to the workers that carry them out.

use std::sync::Arc;

use actix::{Addr, Message};

use super::hub::{Hub, Release};
use crate::{
    connection::Gate,
    domain::{ConnectionId, Effect, Workers},
};

/// The most effects that room is made for before they come: a vector that grows copies them again and again.
const MAX_EXPECTED: usize = 256;

/// A worker has started. Sent by its factory to PubSubService and DataLogger before any of its connections is.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub(crate) struct RegisterHub {
    pub(crate) worker: usize,
    pub(crate) hub: Addr<Hub>,
    pub(crate) gate: Arc<Gate>,
}

/// The Hubs of all workers.
#[derive(Default)]
pub(crate) struct Hubs {
    hubs: Vec<Option<Addr<Hub>>>,
    releases: Vec<Vec<Effect>>,
    gate: Option<Arc<Gate>>,
}

impl Hubs {
    /// Adds a worker's Hub.
    pub(crate) fn register(&mut self, RegisterHub { worker, hub, gate }: RegisterHub) {
        if self.hubs.len() <= worker {
            self.hubs.resize(worker + 1, None);
            self.releases.resize_with(worker + 1, Vec::new);
        }
        self.hubs[worker] = Some(hub);
        self.gate = Some(gate);
    }

    /// The Hub of the worker that owns `connection`.
    pub(crate) fn of(&self, connection: ConnectionId) -> Option<&Addr<Hub>> {
        self.hubs.get(connection.worker())?.as_ref()
    }

    /// Each Hub.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Addr<Hub>> {
        self.hubs.iter().flatten()
    }

    /// Sends every worker what is for it: one message each, its effects in order.
    ///
    /// Sent without waiting: an effect is either for a command, which holds credit, or publications, which cost of the budget that all
    /// connections share until the Hub has taken them.
    pub(crate) fn release(&mut self, effects: Vec<(Workers, Effect)>) {
        let wants_json = self.gate.as_ref().is_some_and(|gate| gate.has_json());
        for (workers, mut effect) in effects {
            if wants_json && let Effect::Publications(delivery) = &mut effect {
                delivery.json = Some(Arc::default());
            }
            let mut workers = workers.iter().peekable();
            while let Some(worker) = workers.next() {
                let Some(release) = self.releases.get_mut(worker) else {
                    continue;
                };
                if workers.peek().is_none() {
                    release.push(effect);
                    break;
                }
                release.push(effect.clone());
            }
        }
        for (hub, release) in self.hubs.iter().zip(&mut self.releases) {
            if let (Some(hub), Some(gate), false) = (hub, &self.gate, release.is_empty()) {
                let next = Vec::with_capacity(release.len().min(MAX_EXPECTED));
                let effects = std::mem::replace(release, next);
                let cost = effects.iter().map(cost).sum();
                gate.spend(cost);
                hub.do_send(Release { effects, cost });
            }
        }
    }
}

/// What an effect costs of the shared budget.
fn cost(effect: &Effect) -> u64 {
    match effect {
        Effect::Publications(delivery) => delivery.chunk.frames.len() as u64,
        Effect::Deliver(delivery) => {
            let frames = delivery.publications.iter();
            frames.map(|(frame, _)| frame.len() as u64).sum()
        }
        _ => 0,
    }
}
