//! The subscriptions under load: each durability, kind and retention that a crash could treat in a way of its own.

use std::time::Duration;

use uuid::Uuid;

use super::{ledger::Ledger, log_checker::Keep};
use crate::support::{Client, Process};

/// Deliveries of a publication of a Queue before it is a dead letter: few, so that kills alone make some.
pub const MAX_DELIVERIES: u64 = 3;

/// One subscription.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Subscription {
    pub name: &'static str,
    pub durability: &'static str,
    pub keep: Keep,
    /// Of a Queue: where its dead letters go.
    pub dead_letters: Option<&'static str>,
}

const fn broadcast(name: &'static str, durability: &'static str, keep: Keep) -> Subscription {
    Subscription {
        name,
        durability,
        keep,
        dead_letters: None,
    }
}

const fn queue(
    name: &'static str,
    durability: &'static str,
    keep: Keep,
    dead_letters: &'static str,
) -> Subscription {
    Subscription {
        name,
        durability,
        keep,
        dead_letters: Some(dead_letters),
    }
}

pub const SUBSCRIPTIONS: [Subscription; 7] = [
    broadcast("synced", "Synced", Keep::All),
    broadcast("written", "Written", Keep::All),
    broadcast("newest", "Synced", Keep::Newest(60)),
    broadcast("small", "Written", Keep::Bytes(300_000)),
    broadcast(
        "young",
        "Synced",
        Keep::YoungerThan(Duration::from_millis(1_500)),
    ),
    queue("jobs", "Synced", Keep::All, "jobs.dead-letter"),
    queue("chores", "Written", Keep::Newest(50), "chores.dead-letter"),
];

/// What a durable session subscribes to and acknowledges.
pub const ACKNOWLEDGED: [&str; 2] = ["synced", "written"];

impl Subscription {
    pub fn is_synced(&self) -> bool {
        self.durability == "Synced"
    }

    pub fn is_queue(&self) -> bool {
        self.dead_letters.is_some()
    }

    /// Makes it, and gives its epoch.
    async fn create(&self, client: &mut Client) -> Uuid {
        let limit = match self.keep {
            Keep::All => fields! {},
            Keep::Newest(count) => fields! { "max_publications": count },
            Keep::Bytes(bytes) => fields! { "max_bytes": bytes },
            Keep::YoungerThan(age) => fields! { "max_age": age.as_millis() as u64 },
        };
        let settings = if self.is_queue() {
            fields! {
                "durability": self.durability,
                "retention": limit,
                "max_deliveries": MAX_DELIVERIES,
            }
        } else {
            fields! { "durability": self.durability, "retention": limit }
        };
        let kind = if self.is_queue() {
            "Queue"
        } else {
            "Broadcast"
        };
        let fields = fields! { "subscription_id": self.name, "kind": kind, "settings": settings };
        let meta = client.call("CreateSubscription", fields).await;
        meta.uuid("epoch")
    }
}

/// Makes all of them on a server that holds nothing yet.
pub async fn create_all(server: &Process) -> Ledger {
    let mut client = server.client().await;
    let mut ledger = Ledger::new();
    for subscription in SUBSCRIPTIONS {
        let epoch = subscription.create(&mut client).await;
        ledger.log(subscription.name).epoch = Some(epoch);
    }
    ledger
}

/// The dead-letter logs, with the durability that their Queues give them.
pub fn dead_letter_logs() -> impl Iterator<Item = Subscription> {
    SUBSCRIPTIONS.into_iter().filter_map(|queue| {
        let name = queue.dead_letters?;
        Some(broadcast(name, queue.durability, Keep::All))
    })
}

/// Settings of a server that has to seal and merge all the time.
pub const SMALL_JOURNALS: [(&str, &str); 4] = [
    ("JOURNAL_SIZE", "256KiB"),
    ("MAX_MESSAGE_SIZE", "64KiB"),
    ("WORKERS", "2"),
    ("LOG", "info"),
];
