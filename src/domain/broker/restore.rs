//! What a restart begins with.

use std::collections::HashMap;

use super::{
    super::{
        Batch, LogExtent, Serving, StateEntry, Subscription,
        queue::{Progress, QueueBlock, QueueHead},
        state,
    },
    Broker, BrokerLimits, KnownIds, Room,
};
use crate::{
    domain::{Held, LogNumber, Record, Session, StateMap},
    protocol::{Durability, Epoch, Kind, Timestamp},
};

/// What the data log holds.
pub struct Restored {
    /// The state map.
    pub entries: StateMap,
    /// Every live log.
    pub logs: HashMap<LogNumber, LogExtent>,
    /// Log numbers from here on were never used.
    pub next_log: u64,
    /// Logs whose end may be missing by damage.
    pub uncertain: Vec<LogNumber>,
    /// Whether Written logs may miss their end: the last end was unclean, and in another boot of the machine.
    pub unclean_boot: bool,
}

impl Broker {
    /// A broker with what a restart found. What that changes (new epochs) is in its first batch.
    pub fn new(
        limits: BrokerLimits,
        restored: Restored,
        known: Box<dyn KnownIds>,
        now: Timestamp,
    ) -> Self {
        let mut broker = Self {
            limits,
            known,
            random: fastrand::Rng::new(),
            subscriptions: Default::default(),
            order: Default::default(),
            retained: Default::default(),
            next_log: restored.next_log,
            sessions: Default::default(),
            away: Default::default(),
            connections: Default::default(),
            deadlines: Default::default(),
            fenced: Default::default(),
            holdings: Default::default(),
            durable_sessions: 0,
            uncommitted: Default::default(),
            uncommitted_order: Default::default(),
            building: Batch::new(1),
            ready: Default::default(),
            direct: Batch::new(2),
            next_batch: 2,
            committed: 0,
            sealed_bytes: 0,
            room: Room::UNLIMITED,
            retention_cursor: None,
            noted: Default::default(),
            unreadable: Default::default(),
            loads: Default::default(),
            due: Default::default(),
            held_up: Default::default(),
            figures: Default::default(),
            now,
            uptime: 0,
            available: true,
            stopping: false,
        };
        let (mut cursors, mut owners) = (Vec::new(), Vec::new());
        let mut queues = HashMap::<_, (QueueHead, Vec<_>)>::new();
        let mut logs = restored.logs;
        // Each entry goes when it was read, and what is made of it takes its place: together they would cost twice.
        for (key, value) in restored.entries {
            match StateEntry::decode(&key, &value) {
                Ok(StateEntry::Subscription(id, state)) => {
                    let mut subscription = Subscription::new(id, state);
                    let extent = logs.remove(&subscription.log);
                    if let Some(extent) = &extent {
                        subscription.restore(extent);
                    }
                    broker.next_log = broker.next_log.max(subscription.log.0 + 1);
                    let loses_end = match subscription.settings.durability {
                        Durability::Written | Durability::Synced if extent.is_none() => {
                            log::error!("the log of subscription {id} is lost: it begins anew");
                            let log = Record::CreateLog(subscription.log);
                            broker.building.record(log);
                            true
                        }
                        Durability::Memory => true,
                        Durability::Written => {
                            restored.unclean_boot || restored.uncertain.contains(&subscription.log)
                        }
                        Durability::Synced => restored.uncertain.contains(&subscription.log),
                    };
                    if loses_end {
                        subscription.epoch = Epoch::random();
                        broker
                            .building
                            .record(state::put_subscription(id, &subscription.state()));
                    }
                    broker.insert(subscription);
                }
                Ok(StateEntry::Cursor(session, id, state)) => {
                    cursors.push((session, Held::restored(id, state)))
                }
                Ok(StateEntry::Owner(session, owner)) => owners.push((session, owner)),
                Ok(StateEntry::QueueHead(log, head)) => queues.entry(log).or_default().0 = head,
                Ok(StateEntry::QueueBlock(log, number, block)) => {
                    queues.entry(log).or_default().1.push((number, block));
                }
                Err(error) => log::error!("an entry of the state map is left alone: {error}"),
            }
        }
        for (log, extent) in logs {
            // Subscription and log are made and removed together, so this is damage, and what is left of the log is not made worse.
            log::error!(
                "log {} with {} bytes belongs to no subscription that is known, and is left alone",
                log.0,
                extent.bytes
            );
        }
        broker.restore_queues(queues);
        for (id, held) in cursors {
            broker.restore_cursor(id, held, now);
        }
        for (id, owner) in owners {
            match broker.sessions.get_mut(&id) {
                Some(session) => {
                    session.owner = Some(owner.name.into());
                    session.is_owner_written = true;
                }
                None => broker.building.record(state::delete_owner(id)),
            }
        }
        broker
    }

    fn restore_queues(
        &mut self,
        mut found: HashMap<LogNumber, (QueueHead, Vec<(u64, QueueBlock)>)>,
    ) {
        let mut queues = Vec::new();
        for subscription in self.subscriptions.values_mut() {
            if subscription.kind != Kind::Queue {
                continue;
            }
            let (head, blocks) = found.remove(&subscription.log).unwrap_or_default();
            let (first, last) = (subscription.first, subscription.last);
            let progress = Progress::restored(head, blocks, first, last);
            let rules = self.limits.rules(&subscription.settings);
            subscription.serving = Some(Box::new(Serving::new(progress, rules, last)));
            queues.push(subscription.id);
        }
        for id in queues {
            self.dispatch(id);
        }
        for (log, (_, blocks)) in found {
            self.building.note(state::delete_queue_head(log));
            for (number, _) in blocks {
                self.building.note(state::delete_queue_block(log, number));
            }
        }
    }

    fn restore_cursor(&mut self, id: crate::protocol::SessionId, held: Held, now: Timestamp) {
        match self.subscriptions.get_mut(&held.subscription) {
            Some(subscription) if subscription.log == held.log => {
                subscription.add_session(id);
                let (durable_sessions, away) = (&mut self.durable_sessions, &mut self.away);
                self.sessions
                    .entry(id)
                    .or_insert_with(|| {
                        *durable_sessions += 1;
                        away.insert((now, id));
                        Session::new(id, true, now)
                    })
                    .hold(held);
            }
            _ => self
                .building
                .record(state::delete_cursor(id, held.subscription)),
        }
    }
}
