//! The way back: from the two actors that release effects to the workers that carry them out.

use actix::{Addr, Message};

use super::hub::{Hub, Release};
use crate::domain::{ConnectionId, Effect, Workers};

/// A worker has started. Sent by its factory to PubSubService and DataLogger before any of its connections is.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub(crate) struct RegisterHub {
    pub(crate) worker: usize,
    pub(crate) hub: Addr<Hub>,
}

/// The Hubs of all workers.
#[derive(Default)]
pub(crate) struct Hubs {
    hubs: Vec<Option<Addr<Hub>>>,
    releases: Vec<Vec<Effect>>,
}

impl Hubs {
    /// Adds a worker's Hub.
    pub(crate) fn register(&mut self, RegisterHub { worker, hub }: RegisterHub) {
        if self.hubs.len() <= worker {
            self.hubs.resize(worker + 1, None);
            self.releases.resize_with(worker + 1, Vec::new);
        }
        self.hubs[worker] = Some(hub);
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
    /// Sent without waiting: an effect is either for a command, which holds credit, or the publications of one, which are shared.
    pub(crate) fn release(&mut self, effects: Vec<(Workers, Effect)>) {
        for (workers, effect) in effects {
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
            if let (Some(hub), false) = (hub, release.is_empty()) {
                hub.do_send(Release(std::mem::take(release)));
            }
        }
    }
}
