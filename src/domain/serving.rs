//! What the broker keeps of a Queue beside its subscription: the queue itself, and its place in what is under way.

use super::{
    broker::Tally,
    queue::{Progress, Queue, QueueRules},
};
use crate::protocol::Sequence;

/// What the broker keeps of a Queue. Boxed, so that a Broadcast subscription pays for a pointer only.
#[derive(Debug)]
pub struct Serving {
    /// Who has what.
    pub queue: Queue,
    /// Changes whenever something has its place in the subscription's stream: deliveries on both sides of that are not joined.
    pub part: u32,
    /// It is among those whose changes are written with the batch that is being filled.
    pub is_noted: bool,
    /// When it is looked at next though nothing comes.
    pub due: Option<u64>,
    /// A move to the dead letters failed, and that was told.
    pub is_stuck: bool,
    /// Bytes of payload up to this position, as they were last asked for: at least so many can be removed.
    pub removable: (Sequence, u64),
    /// What it is counted for among all Queues.
    pub tally: Tally,
}

impl Serving {
    /// A queue of which so much is settled; what lies up to `last` can be read.
    pub fn new(progress: Progress, rules: QueueRules, last: Sequence) -> Self {
        Self {
            queue: Queue::new(progress, rules, last),
            part: 0,
            is_noted: false,
            due: None,
            is_stuck: false,
            removable: (Sequence::ZERO, 0),
            tally: Tally::default(),
        }
    }
}
