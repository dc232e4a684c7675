//! Clients that do everything at once until their connection ends, and note in a ledger what they were told.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use tokio::{task::JoinHandle, time::Instant};
use uuid::Uuid;

use super::{
    ledger::{Ledger, Shared},
    log_checker::{Content, Submission, payload},
    passing::{Change, Passing},
    queue_checker::End,
    subscriptions::{ACKNOWLEDGED, SUBSCRIPTIONS, Subscription},
};
use crate::support::{Client, Event, Process, Response, eventually};

const PUBLISHERS: u64 = 3;
const WORKERS: u64 = 3;
/// Submissions that a publisher has under way at once.
const WINDOW: usize = 24;
/// Leases that a worker has at once.
const PREFETCH: usize = 24;
/// Of these a worker settles some in one go.
const HELD: usize = 8;
/// What a subscription that comes and goes is given: enough that journals and segments are worth their removal.
const PASSING_PUBLICATIONS: usize = 6;
/// Its payload.
const PASSING_LEN: usize = 16_000;
/// Subscriptions that come and go and are there at once.
const PASSING: usize = 4;

/// A load that is under way.
pub struct Load {
    pub shared: Arc<Shared>,
    /// Only on what is Written: then nothing but the time makes the server sync.
    pub is_unsynced: bool,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Lets clients of all kinds loose on a server. `round` counts the loads that a ledger saw.
    pub async fn on(
        server: &Process,
        ledger: Ledger,
        round: u64,
        random: &mut fastrand::Rng,
    ) -> Self {
        let lasts: BTreeMap<_, _> = ledger
            .logs
            .iter()
            .map(|(name, log)| (*name, log.last()))
            .collect();
        let shared = Arc::new(Shared::new(ledger));
        let is_unsynced = random.u8(..4) == 0;
        let targets: Arc<[_]> = SUBSCRIPTIONS
            .into_iter()
            .filter(|subscription| !(is_unsynced && subscription.is_synced()))
            .collect();
        let mut clients = Vec::new();
        for subscription in targets.iter() {
            let name = subscription.name;
            if !subscription.is_queue() {
                let mut reader = server.client().await;
                let last = lasts[name];
                let fields = fields! { "After": last };
                reader.subscribe(name, fields).await;
                clients.push(tokio::spawn(read_along(reader, shared.clone(), name, last)));
                continue;
            }
            for _ in 0..WORKERS {
                let mut worker = server.client().await;
                let fields = fields! { "subscription_id": name, "prefetch": PREFETCH };
                worker.call("Subscribe", fields).await;
                let seed = random.u64(..);
                clients.push(tokio::spawn(work_along(worker, shared.clone(), name, seed)));
            }
        }
        for number in 0..PUBLISHERS {
            let publisher = server.client().await;
            let (name, seed) = (round * PUBLISHERS + number, random.u64(..));
            let publishing = publish(publisher, shared.clone(), targets.clone(), name, seed);
            clients.push(tokio::spawn(publishing));
        }
        if !is_unsynced {
            let subscriber = subscriber(server, &shared).await;
            clients.push(tokio::spawn(acknowledge_along(subscriber, shared.clone())));
            let administrator = server.client().await;
            let seed = random.u64(..);
            let administering = administer(administrator, shared.clone(), round, seed);
            clients.push(tokio::spawn(administering));
        }
        Self {
            shared,
            is_unsynced,
            clients,
        }
    }

    /// Waits until some more was answered.
    pub async fn goes_on(&self, random: &mut fastrand::Rng) {
        // What waits for no sync is answered sooner.
        let share = if self.is_unsynced { 5 } else { 1 };
        let enough = self.shared.answered() + share * random.u64(50..600);
        eventually("enough was answered", async || {
            self.shared.answered() >= enough
        })
        .await;
    }

    /// After the server's end: what they were told.
    pub async fn over(self) -> Ledger {
        for client in self.clients {
            client.await.unwrap();
        }
        Arc::into_inner(self.shared)
            .expect("invariant: everybody who wrote it has ended")
            .copy()
    }
}

/// Submits to all of these.
async fn publish(
    mut client: Client,
    shared: Arc<Shared>,
    targets: Arc<[Subscription]>,
    publisher: u64,
    seed: u64,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut numbers = vec![0; targets.len()];
    let mut under_way: VecDeque<(u64, &str, Content)> = VecDeque::new();
    loop {
        while under_way.len() < WINDOW {
            let target = random.usize(..targets.len());
            let name = targets[target].name;
            let number = numbers[target];
            numbers[target] += 1;
            let len = match random.u8(..) {
                0..24 => random.usize(8_000..40_000),
                _ => random.usize(30..300),
            };
            let data = payload(Submission { publisher, number }, len, random.u8(..));
            let content = Content::of(&data);
            let supplied = random.bool().then(|| Uuid::from_u128(random.u128(..)));
            shared
                .lock()
                .log(name)
                .submit(content, supplied, Instant::now());
            let fields = fields! {
                "subscription_id": name, "submission": data, "publication_id": supplied,
            };
            let Some(request) = client.try_request("SubmitPublication", fields).await else {
                return;
            };
            under_way.push_back((request, name, content));
        }
        let Event::Response(response) = client.event().await else {
            return;
        };
        let response = response.expect("Submitted");
        assert!(!response.truth("duplicate"), "{response:?}");
        let place = under_way
            .iter()
            .position(|(request, ..)| response.id == Some(*request));
        let (_, name, content) = place.and_then(|place| under_way.remove(place)).unwrap();
        let (sequence, id) = (response.number("sequence"), response.uuid("publication_id"));
        shared
            .lock()
            .log(name)
            .tell(sequence, id, content, Instant::now());
        shared.count();
    }
}

/// Reads along from behind `position`.
async fn read_along(
    mut client: Client,
    shared: Arc<Shared>,
    name: &'static str,
    mut position: u64,
) {
    while let Event::Response(response) = client.event().await {
        let mut ledger = shared.lock();
        let from = match response.name.as_str() {
            "Gap" => response.number("from"),
            _ => sequence_told(&mut ledger, name, &response),
        };
        if from != position + 1 {
            let told = format!("{name}: {from} was delivered behind {position}");
            ledger.contradictions.push(told);
        }
        position = match response.name.as_str() {
            "Gap" => response.number("to"),
            _ => from,
        };
    }
}

/// Notes a publication, and gives its sequence.
fn sequence_told(ledger: &mut Ledger, name: &str, response: &Response) -> u64 {
    assert_eq!(response.name, "Publication", "{response:?}");
    let (sequence, id) = (response.number("sequence"), response.uuid("publication_id"));
    let content = Content::of(response.bytes("data"));
    ledger.log(name).tell(sequence, id, content, Instant::now());
    sequence
}

/// The durable session, which subscribes to what it did not yet.
async fn subscriber(server: &Process, shared: &Shared) -> Client {
    let session = shared.lock().session;
    let mut client = server.resume(session).await;
    for name in ACKNOWLEDGED {
        let is_new = !shared.lock().cursors.contains_key(name);
        if is_new {
            client.subscribe(name, "First").await;
            shared.lock().cursors.entry(name).or_default();
        }
    }
    client
}

/// Acknowledges what comes in a durable session, a few at a time.
async fn acknowledge_along(mut client: Client, shared: Arc<Shared>) {
    let ids = ACKNOWLEDGED.map(|name| (uuid_of(name), name));
    let name_of = |response: &Response| {
        let id = response.uuid("subscription_id");
        ids.iter()
            .find(|(it, _)| *it == id)
            .map(|(_, name)| *name)
            .unwrap()
    };
    let mut requests = HashMap::new();
    let mut come = 0;
    while let Event::Response(response) = client.event().await {
        let name = name_of(&response);
        if response.name != "Publication" {
            let response = response.expect("Acknowledged");
            let sequence = requests.remove(&response.id.unwrap()).unwrap();
            let mut ledger = shared.lock();
            let cursor = ledger.cursors.entry(name).or_default();
            cursor.answered = cursor.answered.max(sequence);
            continue;
        }
        let sequence = sequence_told(&mut shared.lock(), name, &response);
        come += 1;
        if come % 5 != 0 {
            continue;
        }
        shared.lock().cursors.entry(name).or_default().asked = sequence;
        let fields = fields! { "subscription_id": name, "sequence": sequence };
        match client.try_request("Acknowledge", fields).await {
            Some(request) => _ = requests.insert(request, sequence),
            None => return,
        }
    }
}

/// The UUID of a name.
pub fn uuid_of(name: &str) -> Uuid {
    let namespace = Uuid::from_u128(0x6ba7_b811_9dad_11d1_80b4_00c0_4fd4_30c8);
    Uuid::new_v5(&namespace, format!("infotainer:{name}").as_bytes())
}

/// What a worker does with publications that it holds.
#[derive(Clone, Copy, PartialEq)]
enum Settling {
    End(End),
    /// Puts them back.
    PutBack,
}

/// Works a Queue: acknowledges most, in another order, gives some up, puts some back, and holds some for ever.
async fn work_along(mut client: Client, shared: Arc<Shared>, queue: &'static str, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut held: Vec<(u64, Uuid)> = Vec::new();
    let mut requests: HashMap<u64, (Settling, Vec<(u64, Uuid)>)> = HashMap::new();
    while let Event::Response(response) = client.event().await {
        if response.name != "Publication" {
            let id = response.id.unwrap();
            let (settling, settled) = requests.remove(&id).unwrap();
            note_settled(&mut shared.lock(), queue, settling, &settled, &response);
            shared.count();
            continue;
        }
        {
            let mut ledger = shared.lock();
            let sequence = sequence_told(&mut ledger, queue, &response);
            let delivery = response.number("delivery");
            ledger.queue(queue).deliver(sequence, delivery);
            held.push((sequence, response.uuid("publication_id")));
        }
        if held.len() < HELD {
            continue;
        }
        random.shuffle(&mut held);
        let settled = held.split_off(random.usize(..4));
        let settling = match random.u8(..) {
            0..180 => Settling::End(End::Acknowledged),
            180..200 => Settling::End(End::GivenUp),
            _ => Settling::PutBack,
        };
        let ids: Vec<_> = settled.iter().map(|(_, id)| *id).collect();
        if let Settling::End(end) = settling {
            let mut ledger = shared.lock();
            for (sequence, _) in &settled {
                ledger.queue(queue).ask(*sequence, end);
            }
        }
        let (command, fields) = match settling {
            Settling::End(End::Acknowledged) => (
                "Acknowledge",
                fields! { "subscription_id": queue, "publication_ids": ids },
            ),
            other => {
                let dead_letter = other == Settling::End(End::GivenUp);
                let fields = fields! {
                    "subscription_id": queue, "publication_ids": ids, "dead_letter": dead_letter,
                };
                ("Reject", fields)
            }
        };
        match client.try_request(command, fields).await {
            Some(request) => _ = requests.insert(request, (settling, settled)),
            None => return,
        }
    }
}

fn note_settled(
    ledger: &mut Ledger,
    queue: &str,
    settling: Settling,
    settled: &[(u64, Uuid)],
    response: &Response,
) {
    let lost = response.uuids("lost");
    let known = ledger.queue(queue);
    for (sequence, id) in settled {
        if lost.contains(id) {
            known.was_late(*sequence);
        } else if settling != Settling::PutBack {
            known.answer(*sequence, Instant::now());
        }
    }
}

/// Acknowledges these, which its connection holds.
pub async fn settle(client: &mut Client, ledger: &mut Ledger, queue: &str, held: &[(u64, Uuid)]) {
    let ids: Vec<_> = held.iter().map(|(_, id)| *id).collect();
    for (sequence, _) in held {
        ledger.queue(queue).ask(*sequence, End::Acknowledged);
    }
    let fields = fields! { "subscription_id": queue, "publication_ids": ids };
    let response = client.call("Acknowledge", fields).await;
    let settling = Settling::End(End::Acknowledged);
    note_settled(ledger, queue, settling, held, &response);
}

/// Makes subscriptions, fills them, changes their settings, and deletes them again.
async fn administer(mut client: Client, shared: Arc<Shared>, round: u64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0_u64.. {
        // Some names come again and again.
        let name = match random.bool() {
            true => format!("passing-{round}-{number}"),
            false => format!("passing-{}", random.u8(..3)),
        };
        if pass(&mut client, &shared, name, &mut random)
            .await
            .is_none()
        {
            return;
        }
    }
}

async fn pass(
    client: &mut Client,
    shared: &Shared,
    name: String,
    random: &mut fastrand::Rng,
) -> Option<()> {
    let there = |passing: &Passing| passing.deleted == Change::Not;
    let limit = 10;
    let before = shared.lock().passing.get(&name).cloned();
    if before.as_ref().is_some_and(there) {
        return delete(client, shared, &name).await;
    }
    let passing = before.unwrap_or_default().again(limit);
    shared.lock().passing.insert(name.clone(), passing);
    let note = |change: &dyn Fn(&mut Passing)| {
        change(shared.lock().passing.get_mut(&name).unwrap());
        shared.count();
    };
    let settings = fields! { "retention": fields! { "max_publications": limit } };
    let fields = fields! { "subscription_id": &*name, "settings": settings };
    let meta = call(client, "CreateSubscription", fields).await?;
    note(&|passing| {
        passing.made = Change::Answered;
        passing.epoch = Some(meta.uuid("epoch"));
    });
    for _ in 0..PASSING_PUBLICATIONS {
        let data = vec![random.u8(..); PASSING_LEN];
        let fields = fields! { "subscription_id": &*name, "submission": data };
        let submitted = call(client, "SubmitPublication", fields).await?;
        note(&|passing| passing.published = submitted.number("sequence"));
    }
    let limit = random.u64(11..1_000);
    note(&|passing| passing.limit.1 = limit);
    let settings = fields! { "retention": fields! { "max_publications": limit } };
    let fields = fields! { "subscription_id": &*name, "settings": settings };
    call(client, "UpdateSubscription", fields).await?;
    note(&|passing| passing.limit.0 = limit);
    loop {
        let names: Vec<_> = {
            let ledger = shared.lock();
            let there = ledger.passing.iter().filter(|(_, it)| there(it));
            there.map(|(name, _)| name.clone()).collect()
        };
        if names.len() <= PASSING {
            return Some(());
        }
        delete(client, shared, &names[random.usize(..names.len())]).await?;
    }
}

async fn delete(client: &mut Client, shared: &Shared, name: &str) -> Option<()> {
    let note = |deleted| {
        shared.lock().passing.get_mut(name).unwrap().deleted = deleted;
        shared.count();
    };
    note(Change::Asked);
    call(
        client,
        "DeleteSubscription",
        fields! { "subscription_id": name },
    )
    .await?;
    note(Change::Answered);
    Some(())
}

/// A command that has to succeed, if it is answered at all.
async fn call(client: &mut Client, command: &str, fields: serde_cbor::Value) -> Option<Response> {
    let request = client.try_request(command, fields).await?;
    loop {
        let Event::Response(response) = client.event().await else {
            return None;
        };
        assert_ne!(response.name, "Error", "{response:?}");
        if response.id == Some(request) {
            return Some(response);
        }
    }
}
