//! kill -9 of the real program under load: nothing that was answered is missing, nothing has another place or another content.
//!
//! Each round several publishers submit in a pipeline, subscribers read along, and a durable session acknowledges; at some moment the
//! program is killed and started again on what it left. Seeds are printed: `INFOTAINER_TEST_SEED` repeats a run as far as timing lets it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "the seed has to be known")]

#[macro_use]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use support::{Client, Event, Fields, Process, eventually};
use tokio::task::JoinHandle;
use uuid::Uuid;

const SUBSCRIPTIONS: [(&str, &str); 3] = [
    ("synced-a", "Synced"),
    ("synced-b", "Synced"),
    ("written", "Written"),
];
const PUBLISHERS: u64 = 4;
const ROUNDS: u64 = 6;
/// Submissions that a publisher has under way at once.
const WINDOW: usize = 64;

/// What was told of a publication.
#[derive(Clone, PartialEq, Debug)]
struct Told {
    id: Uuid,
    data: Vec<u8>,
}

/// A submission, in the order in which its publisher sent them.
struct Sent {
    subscription: usize,
    data: Vec<u8>,
    supplied: Option<Uuid>,
    /// Sequence and id of its `Submitted`.
    answer: Option<(u64, Uuid)>,
}

/// Submits until the connection ends; counts the answers in `answered`.
async fn publish(mut client: Client, seed: u64, name: u64, answered: Arc<AtomicU64>) -> Vec<Sent> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sent: Vec<Sent> = Vec::new();
    let mut under_way: VecDeque<(u64, usize)> = VecDeque::new();
    loop {
        while under_way.len() < WINDOW {
            let subscription = random.usize(..SUBSCRIPTIONS.len());
            let size = if random.u8(..) < 40 {
                random.usize(10_000..60_000)
            } else {
                random.usize(30..300)
            };
            let mut data = format!("{name}:{}:", sent.len()).into_bytes();
            data.resize(size, random.u8(..));
            let supplied = random.bool().then(|| Uuid::from_u128(random.u128(..)));
            let fields = fields! {
                "subscription_id": SUBSCRIPTIONS[subscription].0,
                "submission": &data[..],
                "publication_id": supplied,
            };
            let Some(request) = client.try_request("SubmitPublication", fields).await else {
                return sent;
            };
            under_way.push_back((request, sent.len()));
            sent.push(Sent {
                subscription,
                data,
                supplied,
                answer: None,
            });
        }
        let Event::Response(response) = client.event().await else {
            return sent;
        };
        let response = response.expect("Submitted");
        assert!(!response.truth("duplicate"));
        let place = under_way
            .iter()
            .position(|(request, _)| response.id == Some(*request))
            .unwrap();
        let (_, number) = under_way.remove(place).unwrap();
        sent[number].answer = Some((response.number("sequence"), response.uuid("publication_id")));
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads along until the connection ends; gives what was delivered.
async fn read_along(mut client: Client, from: u64) -> BTreeMap<u64, Told> {
    let mut delivered = BTreeMap::new();
    let mut position = from;
    while let Event::Response(response) = client.event().await {
        let publication = response.expect("Publication");
        position += 1;
        assert_eq!(publication.number("sequence"), position);
        delivered.insert(position, told(&publication));
    }
    delivered
}

fn told(publication: &Fields) -> Told {
    Told {
        id: publication.uuid("publication_id"),
        data: publication.bytes("data").to_vec(),
    }
}

/// What a durable session knows of its acknowledgements.
#[derive(Default)]
struct Acknowledged {
    asked: u64,
    answered: u64,
}

/// Acknowledges whatever comes until the connection ends.
async fn acknowledge_along(mut client: Client, from: u64) -> Acknowledged {
    let mut known = Acknowledged {
        asked: from,
        answered: from,
    };
    let mut position = from;
    while let Event::Response(response) = client.event().await {
        match response.name.as_str() {
            "Publication" => {
                position += 1;
                assert_eq!(response.number("sequence"), position);
                let fields = fields! { "subscription_id": "synced-b", "sequence": position };
                known.asked = position;
                if client.try_request("Acknowledge", fields).await.is_none() {
                    break;
                }
            }
            _ => known.answered += response.expect("Acknowledged").number("count"),
        }
    }
    known
}

/// What is known of the logs: it only ever grows.
#[derive(Default)]
struct Ledger {
    logs: HashMap<&'static str, BTreeMap<u64, Told>>,
    epochs: HashMap<&'static str, Uuid>,
    acknowledged: Acknowledged,
}

impl Ledger {
    /// Reads what the server has now, holds it against all that was ever told, and gives how much came anew.
    async fn check(&mut self, client: &mut Client) {
        for (name, _) in SUBSCRIPTIONS {
            let meta = client.meta(name).await;
            let epoch = *self.epochs.entry(name).or_insert(meta.uuid("epoch"));
            assert_eq!(meta.uuid("epoch"), epoch, "{name} has another epoch");
            let log = client.log(name).await;
            let known = self.logs.entry(name).or_default();
            for (sequence, publication) in (1..).zip(&log) {
                assert_eq!(publication.number("sequence"), sequence, "a hole in {name}");
                let now = told(publication);
                let before = known.entry(sequence).or_insert_with(|| now.clone());
                assert_eq!(*before, now, "{name} {sequence} is another one");
            }
            assert_eq!(known.len(), log.len(), "the end of {name} is missing");
            assert_eq!(meta.number("last_sequence"), log.len() as u64);
        }
    }

    /// What was answered or delivered before the crash has to be there when the server is back.
    fn remember(&mut self, subscription: &'static str, sequence: u64, told: Told) {
        let known = self
            .logs
            .entry(subscription)
            .or_default()
            .entry(sequence)
            .or_insert_with(|| told.clone());
        assert_eq!(*known, told, "{subscription} {sequence} was used twice");
    }

    fn last(&self, subscription: &str) -> u64 {
        self.logs[subscription].len() as u64
    }
}

/// What a publisher sent is in each log from its first submission on, in order, without one left out: as much as there was time for.
fn check_order(sent: &[Sent], name: u64, begun_at: &HashMap<&str, u64>, ledger: &Ledger) {
    for (number, (subscription, _)) in SUBSCRIPTIONS.into_iter().enumerate() {
        let mine = format!("{name}:").into_bytes();
        let there = ledger.logs[subscription]
            .range(begun_at[subscription] + 1..)
            .map(|(_, told)| &told.data)
            .filter(|data| data.starts_with(&mine));
        let wanted = sent
            .iter()
            .filter(|submission| submission.subscription == number);
        for (there, wanted) in there.zip(wanted) {
            assert_eq!(*there, wanted.data, "out of order in {subscription}");
        }
    }
}

/// An id that a client supplied is known to the server that came back, if its publication is there.
async fn check_ids(client: &mut Client, sent: &[Sent], ledger: &Ledger) {
    let mut asked = 0;
    for submission in sent.iter().rev() {
        let Some(id) = submission.supplied else {
            continue;
        };
        let subscription = SUBSCRIPTIONS[submission.subscription].0;
        let there = ledger.logs[subscription]
            .iter()
            .find(|(_, told)| told.id == id);
        let Some((&sequence, _)) = there else {
            continue;
        };
        let fields = fields! {
            "subscription_id": subscription, "submission": b"again", "publication_id": id,
        };
        let again = client.call("SubmitPublication", fields).await;
        assert!(again.truth("duplicate"), "{subscription} {sequence}");
        assert_eq!(again.number("sequence"), sequence);
        asked += 1;
        if asked == 20 {
            break;
        }
    }
}

fn seed() -> u64 {
    let seed = std::env::var("INFOTAINER_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("INFOTAINER_TEST_SEED={seed}");
    seed
}

#[tokio::test]
async fn kill_9_under_load_loses_nothing_that_was_answered_and_uses_no_sequence_twice() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut server = Process::start(&[]);
    let mut ledger = Ledger::default();
    let session = Uuid::new_v4();
    let mut client = server.client().await;
    for (name, durability) in SUBSCRIPTIONS {
        let settings = fields! { "durability": durability };
        let fields = fields! { "subscription_id": name, "settings": settings };
        client.call("CreateSubscription", fields).await;
    }
    ledger.check(&mut client).await;

    for round in 0..ROUNDS {
        let begun_at: HashMap<_, _> = SUBSCRIPTIONS
            .map(|(name, _)| (name, ledger.last(name)))
            .into();
        let mut readers: Vec<(&'static str, JoinHandle<_>)> = Vec::new();
        for (name, _) in SUBSCRIPTIONS {
            let mut reader = server.client().await;
            reader.subscribe(name, "New").await;
            readers.push((name, tokio::spawn(read_along(reader, begun_at[name]))));
        }
        let mut worker = server.resume(session).await;
        if round == 0 {
            worker.subscribe("synced-b", "First").await;
        }
        let restored = worker.welcome.maps("subscriptions");
        let cursor = restored
            .first()
            .map_or(0, |restored| restored.number("cursor"));
        let known = &ledger.acknowledged;
        assert!(
            (known.answered..=known.asked).contains(&cursor),
            "acknowledged up to {} to {}, but the server says {cursor}",
            known.answered,
            known.asked
        );
        let worker = tokio::spawn(acknowledge_along(worker, cursor));

        let answered = Arc::new(AtomicU64::new(0));
        let mut publishers = Vec::new();
        for number in 0..PUBLISHERS {
            let publisher = server.client().await;
            let name = round * PUBLISHERS + number;
            let publishing = publish(publisher, random.u64(..), name, answered.clone());
            publishers.push((name, tokio::spawn(publishing)));
        }
        let enough = random.u64(500..4_000);
        eventually("enough was answered", async || {
            answered.load(Ordering::Relaxed) >= enough
        })
        .await;
        server.kill();

        let mut rounds_work = Vec::new();
        for (name, publisher) in publishers {
            let sent = publisher.await.unwrap();
            for submission in &sent {
                if let Some((sequence, id)) = submission.answer {
                    assert!(submission.supplied.is_none_or(|supplied| supplied == id));
                    let told = Told {
                        id,
                        data: submission.data.clone(),
                    };
                    ledger.remember(SUBSCRIPTIONS[submission.subscription].0, sequence, told);
                }
            }
            rounds_work.push((name, sent));
        }
        for (name, reader) in readers {
            for (sequence, told) in reader.await.unwrap() {
                ledger.remember(name, sequence, told);
            }
        }
        ledger.acknowledged = worker.await.unwrap();

        match round {
            // The catalogue is only a copy of what stands elsewhere.
            2 => fs::remove_dir_all(server.data_dir().join("catalogue")).unwrap(),
            4 => spoil(&server.data_dir().join("catalogue").join("db")),
            _ => {}
        }
        server.start_again();
        let mut client = server.client().await;
        ledger.check(&mut client).await;
        for (name, sent) in &rounds_work {
            check_order(sent, *name, &begun_at, &ledger);
            check_ids(&mut client, sent, &ledger).await;
        }
    }
}

/// Writes nonsense into a file.
fn spoil(file: &std::path::Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..(middle + 64)] {
        *byte ^= 0xa5;
    }
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn kill_9_while_starting_is_no_harm() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut server = Process::start(&[]);
    let mut client = server.client().await;
    for _ in 0..20 {
        client.publish("orders", vec![7; 100_000]).await;
    }
    let before = client.log("orders").await;
    drop(client);
    server.kill();
    for _ in 0..12 {
        // A start takes about as long, so that each of its steps is hit now and then.
        server
            .start_for(Duration::from_millis(random.u64(..150)))
            .await;
    }
    server.start_again();
    let mut client = server.client().await;
    assert!(client.log("orders").await == before);
    let next = client.publish("orders", b"x").await;
    assert_eq!(next.number("sequence"), 21);
}

/// What a worker of a Queue saw, by sequence.
#[derive(Default)]
struct Worked {
    /// The newest delivery of each.
    deliveries: HashMap<u64, u64>,
    /// Acknowledged, and answered so.
    settled: HashSet<u64>,
    /// Acknowledged, but the answer did not come.
    asked: HashSet<u64>,
}

/// Acknowledges what comes, now and then late and in another order, until the connection ends.
async fn work_along(mut client: Client, queue: &str, seed: u64) -> Worked {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut worked = Worked::default();
    let mut held = Vec::new();
    let mut requests: HashMap<u64, Vec<u64>> = HashMap::new();
    while let Event::Response(response) = client.event().await {
        if response.name == "Publication" {
            let sequence = response.number("sequence");
            let delivery = response.number("delivery");
            let before = worked.deliveries.insert(sequence, delivery);
            assert!(before.is_none_or(|before| before < delivery));
            assert!(!worked.settled.contains(&sequence), "{sequence} came again");
            held.push((sequence, response.uuid("publication_id")));
            if held.len() < 20 {
                continue;
            }
            random.shuffle(&mut held);
            let done = held.split_off(random.usize(..20));
            let ids: Vec<_> = done.iter().map(|(_, id)| *id).collect();
            let done: Vec<_> = done.iter().map(|(sequence, _)| *sequence).collect();
            worked.asked.extend(&done);
            let fields = fields! { "subscription_id": queue, "publication_ids": ids };
            match client.try_request("Acknowledge", fields).await {
                Some(request) => _ = requests.insert(request, done),
                None => break,
            }
        } else {
            let id = response.id.unwrap();
            let response = response.expect("Acknowledged");
            assert!(response.uuids("lost").is_empty());
            for sequence in requests.remove(&id).unwrap() {
                worked.asked.remove(&sequence);
                worked.settled.insert(sequence);
            }
        }
    }
    worked
}

#[tokio::test]
async fn kill_9_while_workers_work_brings_nothing_again_that_was_acknowledged_and_all_else() {
    const WORKERS: usize = 8;
    let mut random = fastrand::Rng::with_seed(seed());
    for durability in ["Synced", "Written"] {
        let mut server = Process::start(&[]);
        let mut client = server.client().await;
        let settings = fields! { "durability": durability, "max_deliveries": 0 };
        let fields = fields! { "subscription_id": "work", "kind": "Queue", "settings": settings };
        client.call("CreateSubscription", fields).await;
        let (mut settled, mut asked) = (HashSet::new(), HashSet::new());
        let mut deliveries: HashMap<u64, u64> = HashMap::new();
        let mut last = 0;
        for round in 0..ROUNDS {
            let mut workers = Vec::new();
            for _ in 0..WORKERS {
                let mut worker = server.client().await;
                let fields = fields! { "subscription_id": "work", "prefetch": 50 };
                worker.call("Subscribe", fields).await;
                workers.push(tokio::spawn(work_along(worker, "work", random.u64(..))));
            }
            let publisher = server.client().await;
            let publishing = tokio::spawn(publish_to(publisher, "work"));
            let enough = last + random.u64(500..3_000);
            let mut watcher = server.client().await;
            eventually("enough is published", async || {
                watcher.meta("work").await.number("last_sequence") >= enough
            })
            .await;
            server.kill();
            last = last.max(publishing.await.unwrap());
            for worker in workers {
                let worked = worker.await.unwrap();
                for (sequence, delivery) in worked.deliveries {
                    assert!(!settled.contains(&sequence), "{sequence} came again");
                    let newest = deliveries.entry(sequence).or_default();
                    *newest = delivery.max(*newest);
                }
                settled.extend(worked.settled);
                asked.extend(worked.asked);
            }
            if round % 2 == 1 {
                // The catalogue is only a copy of what stands elsewhere.
                fs::remove_dir_all(server.data_dir().join("catalogue")).unwrap();
            }
            server.start_again();
        }
        // Everything else comes, in order, as often as is told.
        let mut client = server.client().await;
        let meta = client.meta("work").await;
        last = last.max(meta.number("last_sequence"));
        let pending = meta.number("pending");
        let fields = fields! { "subscription_id": "work", "prefetch": 65_535 };
        client.call("Subscribe", fields).await;
        let mut came = BTreeSet::new();
        for _ in 0..pending {
            let publication = client.next().await.expect("Publication");
            let sequence = publication.number("sequence");
            assert!(came.last().is_none_or(|last| *last < sequence));
            let before = deliveries.get(&sequence).copied().unwrap_or_default();
            assert!(publication.number("delivery") > before);
            came.insert(sequence);
        }
        client.hears_nothing().await;
        for sequence in 1..=last {
            let is_settled = settled.contains(&sequence);
            assert!(
                !(is_settled && came.contains(&sequence)),
                "{sequence} came again"
            );
            let is_known = is_settled || asked.contains(&sequence) || came.contains(&sequence);
            assert!(is_known, "{sequence} is lost");
        }
        println!(
            "{durability}: {} settled, {} came",
            settled.len(),
            came.len()
        );
    }
}

/// Submits until the connection ends; gives the last sequence that was answered.
async fn publish_to(mut client: Client, queue: &str) -> u64 {
    let mut last = 0;
    let mut under_way = 0;
    loop {
        while under_way < WINDOW {
            let fields = fields! { "subscription_id": queue, "submission": &[7; 6_000] };
            if client
                .try_request("SubmitPublication", fields)
                .await
                .is_none()
            {
                return last;
            }
            under_way += 1;
        }
        let Event::Response(response) = client.event().await else {
            return last;
        };
        last = response.expect("Submitted").number("sequence");
        under_way -= 1;
    }
}
