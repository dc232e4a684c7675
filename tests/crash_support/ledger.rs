//! Everything that clients of one server were told, as far as the checkers want to know it.
//!
//! It is written while the load goes on, in the order in which things happen on this side: what is sent is in it before it goes out, what is
//! answered when the answer has come. So a copy taken at some moment says what a server must have had by then.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use super::{
    log_checker::KnownLog,
    passing::Passing,
    queue_checker::KnownQueue,
    subscriptions::{SUBSCRIPTIONS, dead_letter_logs},
};

/// How far a durable session acknowledged a subscription.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Cursor {
    pub answered: u64,
    pub asked: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub logs: BTreeMap<&'static str, KnownLog>,
    pub queues: BTreeMap<&'static str, KnownQueue>,
    pub passing: BTreeMap<String, Passing>,
    pub session: Uuid,
    /// What the session subscribes to.
    pub cursors: BTreeMap<&'static str, Cursor>,
    pub contradictions: Vec<String>,
}

impl Ledger {
    /// Of a server that holds nothing yet.
    pub fn new() -> Self {
        let subscriptions = SUBSCRIPTIONS.into_iter();
        let mut logs: BTreeMap<_, _> = subscriptions
            .map(|subscription| (subscription.name, KnownLog::default()))
            .collect();
        for log in dead_letter_logs() {
            logs.insert(log.name, KnownLog::of_dead_letters());
        }
        let queues = SUBSCRIPTIONS
            .into_iter()
            .filter(|subscription| subscription.is_queue());
        Self {
            logs,
            queues: queues
                .map(|queue| (queue.name, KnownQueue::default()))
                .collect(),
            passing: BTreeMap::new(),
            session: Uuid::new_v4(),
            cursors: BTreeMap::new(),
            contradictions: Vec::new(),
        }
    }

    pub fn log(&mut self, name: &str) -> &mut KnownLog {
        self.logs
            .get_mut(name)
            .expect("invariant: a log under load")
    }

    pub fn queue(&mut self, name: &str) -> &mut KnownQueue {
        self.queues
            .get_mut(name)
            .expect("invariant: a Queue under load")
    }
}

/// A ledger that many clients write.
#[derive(Debug)]
pub struct Shared {
    ledger: Mutex<Ledger>,
    answered: AtomicU64,
}

impl Shared {
    pub fn new(ledger: Ledger) -> Self {
        Self {
            ledger: Mutex::new(ledger),
            answered: AtomicU64::new(0),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// Everything that was told until now.
    pub fn copy(&self) -> Ledger {
        self.lock().clone()
    }

    /// Counts an answer to a command that changed something.
    pub fn count(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}
