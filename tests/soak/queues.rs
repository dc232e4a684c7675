//! A Queue whose workers come and go: every job is settled once.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use super::{support::Client, *};

pub(crate) async fn make(client: &mut Client) {
    let retention = fields! { "max_publications": 100 };
    let settings = fields! { "retention": retention };
    let fields = fields! { "subscription_id": "dead", "settings": settings };
    client.call("CreateSubscription", fields).await;
    let retention = fields! { "max_bytes": KEPT };
    let settings = fields! { "retention": retention, "dead_letter": "dead", "max_deliveries": 0 };
    let fields = fields! { "subscription_id": "jobs", "kind": "Queue", "settings": settings };
    client.call("CreateSubscription", fields).await;
}

/// Which jobs are settled.
#[derive(Clone, Default)]
pub(crate) struct Jobs(Arc<Mutex<Settled>>);

/// Up to a mark all of them, and some behind it.
#[derive(Default)]
struct Settled {
    through: u64,
    behind: BTreeSet<u64>,
}

pub(crate) fn spawn(load: Load, tasks: &mut JoinSet<()>, random: &mut Rng) -> Jobs {
    let jobs = Jobs::default();
    tasks.spawn(publish(load, jobs.clone(), random.fork()));
    for _ in 0..3 {
        tasks.spawn(work(load, jobs.clone(), random.fork()));
    }
    jobs
}

/// Publishes no faster than is worked: what is not settled is never more than the Queue keeps.
async fn publish(load: Load, jobs: Jobs, mut random: Rng) {
    const WAITING: u64 = 1_000;
    const SIZE: usize = 4_000;
    let (mut client, mut beat) = (
        Client::connect(load.address).await,
        every(Duration::from_millis(30)),
    );
    let mut sequence = 0;
    while load.goes_on() {
        beat.tick().await;
        if sequence > jobs.oldest() + WAITING {
            // A job that nobody acknowledges takes its time, and who is not heard meanwhile is cut off.
            client.call("Ping", fields! {}).await;
            continue;
        }
        sequence += 1;
        let data = vec![sequence as u8; random.usize(10..SIZE)];
        let submitted = client.publish("jobs", &data[..]).await;
        assert_eq!(submitted.number("sequence"), sequence);
    }
}

async fn work(load: Load, jobs: Jobs, mut random: Rng) {
    while load.goes_on() {
        let mut client = Client::connect(load.address).await;
        let fields = fields! { "subscription_id": "jobs", "prefetch": 16 };
        client.call("Subscribe", fields).await;
        // What it holds at the end goes to others.
        for _ in 0..random.u32(20..300) {
            if !load.goes_on() {
                return;
            }
            jobs.take(&mut client, &mut random).await;
        }
    }
}

impl Jobs {
    /// Up to here all are settled.
    fn oldest(&self) -> u64 {
        self.0.lock().unwrap().through
    }

    fn has(&self, sequence: u64) -> bool {
        let settled = self.0.lock().unwrap();
        sequence <= settled.through || settled.behind.contains(&sequence)
    }

    fn settle(&self, sequence: u64) {
        assert!(!self.has(sequence), "{sequence} is settled twice");
        let settled = &mut *self.0.lock().unwrap();
        settled.behind.insert(sequence);
        while settled.behind.remove(&(settled.through + 1)) {
            settled.through += 1;
        }
    }

    /// Takes one job and does something with it.
    async fn take(&self, client: &mut Client, random: &mut Rng) {
        let job = client.next().await.expect("Publication");
        let sequence = job.number("sequence");
        assert!(!self.has(sequence), "{sequence} came again");
        let ids = || vec![job.uuid("publication_id")];
        let fields = fields! { "subscription_id": "jobs", "publication_ids": ids() };
        let (command, fields) = match random.u8(..100) {
            0..10 => ("Reject", fields),
            10..12 => {
                let fields = fields! {
                    "subscription_id": "jobs", "publication_ids": ids(), "dead_letter": true,
                };
                ("Reject", fields)
            }
            12..20 => ("Extend", fields),
            20..23 => return,
            _ => ("Acknowledge", fields),
        };
        let is_dead = command == "Reject" && format!("{fields:?}").contains("dead_letter");
        let settled = client.call(command, fields).await;
        assert_eq!(settled.number("count"), 1);
        if command == "Acknowledge" || is_dead {
            self.settle(sequence);
        }
    }

    /// Settles what is left: nothing is missing then.
    pub(crate) async fn finish(self, load: Load) {
        let mut client = Client::connect(load.address).await;
        let last = client.meta("jobs").await.number("last_sequence");
        let fields = fields! { "subscription_id": "jobs", "prefetch": 100 };
        client.call("Subscribe", fields).await;
        while self.oldest() < last {
            let job = client.next().await.expect("Publication");
            let ids = vec![job.uuid("publication_id")];
            let fields = fields! { "subscription_id": "jobs", "publication_ids": ids };
            assert_eq!(client.call("Acknowledge", fields).await.number("count"), 1);
            self.settle(job.number("sequence"));
        }
        let meta = client.meta("jobs").await;
        assert_eq!((meta.number("pending"), meta.number("in_flight")), (0, 0));
        println!("{last} jobs settled");
    }
}
