//! The real server's queues against what its clients know: random commands of several workers, connections that end, kill -9 and orderly
//! stops. Seeds are printed: `INFOTAINER_TEST_SEED` repeats a run as far as timing lets it.
//!
//! What is checked: nothing is in flight to two at once, nothing that was acknowledged comes again, nothing is lost, first deliveries
//! come in order, and `delivery` is right.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "the seed has to be known")]

#[macro_use]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use support::{Client, Process, Response};
use uuid::Uuid;

const WORKERS: usize = 4;
const STEPS: usize = 250;

/// What is known of one publication.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    deliveries: u64,
    holder: Option<usize>,
    /// A delivery may have been written down that nobody saw: its connection ended.
    is_blurred: bool,
    is_settled: bool,
    /// The acknowledgement was under way when the server was killed.
    is_uncertain: bool,
    is_dead: bool,
}

struct Model {
    server: Process,
    random: fastrand::Rng,
    workers: Vec<Option<Client>>,
    publisher: Client,
    known: BTreeMap<u64, Known>,
    ids: HashMap<u64, Uuid>,
    newest_first_delivery: u64,
}

impl Model {
    async fn new(seed: u64, durability: &str) -> Self {
        let server = Process::start(&[]);
        let mut publisher = server.client().await;
        let settings =
            fields! { "durability": durability, "max_deliveries": 0, "ack_timeout": 3_600_000 };
        let fields = fields! { "subscription_id": "work", "kind": "Queue", "settings": settings };
        publisher.call("CreateSubscription", fields).await;
        Self {
            server,
            random: fastrand::Rng::with_seed(seed),
            workers: (0..WORKERS).map(|_| None).collect(),
            publisher,
            known: BTreeMap::new(),
            ids: HashMap::new(),
            newest_first_delivery: 0,
        }
    }

    fn saw(&mut self, who: usize, publication: &Response) {
        let sequence = publication.number("sequence");
        let delivery = publication.number("delivery");
        let known = self.known.get_mut(&sequence).unwrap();
        assert_eq!(publication.uuid("publication_id"), self.ids[&sequence]);
        assert!(
            !known.is_settled && !known.is_dead,
            "{sequence} came again: {known:?}"
        );
        assert_eq!(known.holder, None, "{sequence} is in flight twice");
        if known.is_blurred {
            assert!(
                delivery > known.deliveries,
                "{sequence}: {delivery}, {known:?}"
            );
        } else {
            assert_eq!(delivery, known.deliveries + 1, "{sequence}: {known:?}");
        }
        *known = Known {
            deliveries: delivery,
            holder: Some(who),
            ..Known::default()
        };
        if delivery == 1 {
            self.newest_first_delivery = self.newest_first_delivery.max(sequence);
        }
    }

    /// Takes what was sent up to now to everybody.
    async fn read(&mut self) {
        for who in 0..WORKERS {
            let Some(mut client) = self.workers[who].take() else {
                continue;
            };
            client.call("Ping", fields! {}).await;
            let mut last_first = 0;
            for response in client.unread() {
                let publication = response.expect("Publication");
                if publication.number("delivery") == 1 {
                    let sequence = publication.number("sequence");
                    assert!(sequence > last_first, "first deliveries are in order");
                    last_first = sequence;
                }
                self.saw(who, &publication);
            }
            self.workers[who] = Some(client);
        }
    }

    fn held_by(&self, who: usize) -> Vec<u64> {
        let known = self.known.iter();
        known
            .filter(|(_, known)| known.holder == Some(who))
            .map(|(sequence, _)| *sequence)
            .collect()
    }

    /// Leases of `who` ended that it may not have seen: those that were under way.
    fn ended(&mut self, who: usize) {
        for known in self.known.values_mut() {
            if known.holder == Some(who) {
                known.holder = None;
            }
            known.is_blurred = true;
        }
    }

    async fn settle(&mut self, command: &str) {
        let who = self.random.usize(..WORKERS);
        let mut held = self.held_by(who);
        let Some(mut client) = self.workers[who].take() else {
            return;
        };
        self.random.shuffle(&mut held);
        held.truncate(self.random.usize(..=held.len()));
        let stranger = Uuid::new_v4();
        let mut ids: Vec<_> = held.iter().map(|sequence| self.ids[sequence]).collect();
        ids.push(stranger);
        let dead_letter = command == "Reject" && self.random.u8(..) < 40;
        let delay =
            (command == "Reject" && self.random.u8(..) < 40).then(|| self.random.u64(1..50));
        let fields = match command {
            "Reject" => fields! {
                "subscription_id": "work",
                "publication_ids": ids,
                "dead_letter": dead_letter,
                "delay": delay,
            },
            _ => fields! { "subscription_id": "work", "publication_ids": ids },
        };
        // What was under way comes in front of what follows from this, so it is judged with the leases as they were.
        let answer = client.call(command, fields).await;
        assert_eq!(answer.number("count"), held.len() as u64);
        assert_eq!(answer.uuids("lost"), [stranger]);
        for sequence in held {
            let known = self.known.get_mut(&sequence).unwrap();
            match command {
                "Acknowledge" => (known.is_settled, known.holder) = (true, None),
                "Reject" => {
                    known.holder = None;
                    known.is_dead = dead_letter;
                }
                _ => {}
            }
        }
        self.workers[who] = Some(client);
    }

    async fn subscribe(&mut self) {
        let who = self.random.usize(..WORKERS);
        let mut client = match self.workers[who].take() {
            Some(client) => client,
            None => self.server.client().await,
        };
        let prefetch = self.random.u64(1..12);
        let fields = fields! { "subscription_id": "work", "prefetch": prefetch };
        client.call("Subscribe", fields).await;
        self.workers[who] = Some(client);
    }

    async fn leave(&mut self) {
        let who = self.random.usize(..WORKERS);
        let Some(mut client) = self.workers[who].take() else {
            return;
        };
        if self.random.bool() {
            let fields = fields! { "subscription_id": "work" };
            client.call("Unsubscribe", fields).await;
            let unread = client.unread();
            for publication in unread {
                self.saw(who, &publication.expect("Publication"));
            }
            client.hears_nothing().await;
            self.workers[who] = Some(client);
        } else {
            client.close().await;
        }
        self.ended(who);
    }

    async fn submit(&mut self) {
        let count = self.random.usize(1..20);
        let first = self.known.len() as u64 + 1;
        let ids = self.publisher.publish_many("work", count).await;
        for (sequence, id) in (first..).zip(ids) {
            self.known.insert(sequence, Known::default());
            self.ids.insert(sequence, id);
        }
    }

    async fn restart(&mut self) {
        // An acknowledgement may be under way.
        let who = self.random.usize(..WORKERS);
        let held = self.held_by(who);
        if let (Some(client), false) = (&mut self.workers[who], held.is_empty()) {
            let ids: Vec<_> = held.iter().map(|sequence| self.ids[sequence]).collect();
            let fields = fields! { "subscription_id": "work", "publication_ids": ids };
            client.request("Acknowledge", fields).await;
            for sequence in held {
                self.known.get_mut(&sequence).unwrap().is_uncertain = true;
            }
        }
        self.server.kill();
        self.server.start_again();
        for who in 0..WORKERS {
            self.workers[who] = None;
            self.ended(who);
        }
        self.publisher = self.server.client().await;
    }

    async fn step(&mut self) {
        match self.random.u8(..100) {
            0..25 => self.submit().await,
            25..45 => self.settle("Acknowledge").await,
            45..55 => self.settle("Reject").await,
            55..58 => self.settle("Extend").await,
            58..73 => self.subscribe().await,
            73..79 => self.leave().await,
            79..81 => self.restart().await,
            _ => {}
        }
        self.read().await;
        self.check_numbers().await;
    }

    /// What the server counts is what the clients know, as far as nothing is under way.
    async fn check_numbers(&mut self) {
        let meta = self.publisher.meta("work").await;
        let open = meta.number("pending") + meta.number("in_flight");
        let known = self.known.values();
        let certain = known
            .clone()
            .filter(|known| !known.is_settled && !known.is_dead && !known.is_uncertain);
        let possible = known.filter(|known| !known.is_settled);
        let range = certain.count() as u64..=possible.count() as u64;
        assert!(range.contains(&open), "{open} are open, not {range:?}");
    }

    /// All that is left goes to one, who acknowledges it.
    async fn drain(mut self) {
        for who in 0..WORKERS {
            if let Some(client) = self.workers[who].take() {
                client.close().await;
            }
            self.ended(who);
        }
        let mut last = self.server.client().await;
        let fields = fields! { "subscription_id": "work", "prefetch": 7 };
        last.call("Subscribe", fields).await;
        loop {
            let meta = self.publisher.meta("work").await;
            if meta.number("pending") + meta.number("in_flight") == 0 {
                break;
            }
            last.call("Ping", fields! {}).await;
            let mut ids = Vec::new();
            for publication in last.unread() {
                let publication = publication.expect("Publication");
                self.saw(0, &publication);
                let known = self.known.get_mut(&publication.number("sequence")).unwrap();
                (known.is_settled, known.holder) = (true, None);
                ids.push(publication.uuid("publication_id"));
            }
            let fields = fields! { "subscription_id": "work", "publication_ids": ids };
            let answer = last.call("Acknowledge", fields).await;
            assert!(answer.uuids("lost").is_empty());
        }
        for (sequence, known) in &self.known {
            let is_fine = known.is_settled || known.is_dead || known.is_uncertain;
            assert!(is_fine, "{sequence} is lost: {known:?}");
        }
        let dead: BTreeSet<_> = self
            .known
            .iter()
            .filter(|(_, known)| known.is_dead)
            .map(|(sequence, _)| self.ids[sequence])
            .collect();
        if dead.is_empty() {
            return;
        }
        let letters = self.publisher.log("work.dead-letter").await;
        let found: BTreeSet<_> = letters
            .iter()
            .map(|one| one.uuid("publication_id"))
            .collect();
        assert_eq!(found.len(), letters.len(), "a dead letter is there twice");
        assert_eq!(found, dead);
        for letter in letters {
            let told = letter.map("dead_letter");
            let sequence = told.number("sequence");
            assert_eq!(self.ids[&sequence], letter.uuid("publication_id"));
            assert!(told.number("deliveries") >= self.known[&sequence].deliveries);
        }
    }
}

#[tokio::test]
async fn workers_and_crashes_in_any_order_leave_nothing_out_and_nothing_twice() {
    let seed = std::env::var("INFOTAINER_TEST_SEED")
        .ok()
        .map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("INFOTAINER_TEST_SEED={seed}");
    for (round, durability) in (0..).zip(["Synced", "Written", "Synced"]) {
        let mut model = Model::new(seed.wrapping_add(round), durability).await;
        for _ in 0..STEPS {
            model.step().await;
        }
        model.drain().await;
    }
}

/// A worker that is too slow now and then, until it is told that all is settled.
async fn work_slowly(
    mut client: Client,
    seed: u64,
    all: usize,
    settled: Settled,
) -> Vec<(u64, u64)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen = Vec::new();
    let fields = fields! { "subscription_id": "work", "prefetch": 5 };
    client.call("Subscribe", fields).await;
    while settled.lock().unwrap().len() < all {
        client.call("Ping", fields! {}).await;
        let mut held = Vec::new();
        for publication in client.unread() {
            let publication = publication.expect("Publication");
            let sequence = publication.number("sequence");
            seen.push((sequence, publication.number("delivery")));
            held.push((sequence, publication.uuid("publication_id")));
        }
        if random.u8(..) < 60 {
            // Longer than a lease, or shorter, or about as long.
            tokio::time::sleep(Duration::from_millis(random.u64(1..60))).await;
        }
        // What came to the same worker again stands once.
        held.sort_unstable();
        held.dedup();
        random.shuffle(&mut held);
        let ids: Vec<_> = held.iter().map(|(_, id)| *id).collect();
        let fields = fields! { "subscription_id": "work", "publication_ids": ids };
        let answer = client.call("Acknowledge", fields).await;
        let lost = answer.uuids("lost");
        let mut settled = settled.lock().unwrap();
        for (sequence, _) in held.iter().filter(|(_, id)| !lost.contains(id)) {
            assert!(settled.insert(*sequence), "{sequence} was settled twice");
        }
    }
    seen
}

type Settled = Arc<Mutex<BTreeSet<u64>>>;

#[tokio::test]
async fn leases_that_end_by_time_settle_nothing_twice_and_lose_nothing() {
    const ALL: usize = 800;
    let server = Process::start(&[]);
    let mut publisher = server.client().await;
    let settings = fields! { "max_deliveries": 0, "ack_timeout": 25 };
    let fields = fields! { "subscription_id": "work", "kind": "Queue", "settings": settings };
    publisher.call("CreateSubscription", fields).await;
    let settled = Settled::default();
    let mut workers = Vec::new();
    for seed in 0..6 {
        let client = server.client().await;
        workers.push(tokio::spawn(work_slowly(
            client,
            seed,
            ALL,
            settled.clone(),
        )));
    }
    publisher.publish_many("work", ALL).await;
    let mut seen = BTreeSet::new();
    for worker in workers {
        for delivery in worker.await.unwrap() {
            assert!(seen.insert(delivery), "{delivery:?} went to two");
        }
    }
    assert!(settled.lock().unwrap().iter().copied().eq(1..=ALL as u64));
    let meta = publisher.meta("work").await;
    assert_eq!((meta.number("pending"), meta.number("in_flight")), (0, 0));
    assert!(seen.len() > ALL, "some leases ended by time");
}
