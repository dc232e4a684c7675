//! The server against a model that fits on a few pages: random conversations of several sessions, with restarts among them.
//!
//! The model knows what every log holds, where every session is, and nothing of how the server does it. Where the protocol leaves the
//! server a choice (when retention acts), the model keeps both ends of it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "where it fails has to be known")]

#[macro_use]
mod support;

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, test_runner::Config};
use serde_cbor::Value;
use support::{Client, Event, Fields, Response, TestServer};
use uuid::Uuid;

const LOGS: [(&str, &str); 3] = [("s", "Synced"), ("w", "Written"), ("m", "Memory")];
/// The first ones are durable, the last one is not.
const SESSIONS: usize = 3;

#[derive(Clone, Debug)]
enum From {
    New,
    First,
    After(u64),
    Last(u64),
    Keep,
}

#[derive(Clone, Debug)]
enum Operation {
    /// So many submissions at once; with an id out of a few, so that it comes again.
    Submit {
        log: usize,
        count: u64,
        size: usize,
        id: Option<u128>,
    },
    Subscribe {
        session: usize,
        log: usize,
        from: From,
    },
    Unsubscribe {
        session: usize,
        log: usize,
    },
    /// Up to the newest less this many (one too many where it is negative).
    Acknowledge {
        session: usize,
        log: usize,
        behind: i64,
    },
    Retain {
        log: usize,
        max_publications: Option<u64>,
    },
    Delete {
        log: usize,
    },
    Read {
        log: usize,
        after: u64,
        limit: u64,
    },
    /// Everything that is due arrives.
    CatchUp {
        session: usize,
    },
    Disconnect {
        session: usize,
    },
    TakeOver {
        session: usize,
    },
    Restart,
}

fn operation() -> impl Strategy<Value = Operation> {
    let log = || 0..LOGS.len();
    let session = || 0..SESSIONS;
    let from = prop_oneof![
        Just(From::New),
        Just(From::First),
        (0..40_u64).prop_map(From::After),
        (0..40_u64).prop_map(From::Last),
        Just(From::Keep),
    ];
    let size = prop_oneof![3 => Just(8_usize), 1 => 8..60_000_usize];
    prop_oneof![
        8 => (log(), 1..9_u64, size, proptest::option::weighted(0.3, 0..4_u128))
            .prop_map(|(log, count, size, id)| Operation::Submit { log, count, size, id }),
        6 => (session(), log(), from)
            .prop_map(|(session, log, from)| Operation::Subscribe { session, log, from }),
        1 => (session(), log())
            .prop_map(|(session, log)| Operation::Unsubscribe { session, log }),
        4 => (session(), log(), -1..6_i64)
            .prop_map(|(session, log, behind)| Operation::Acknowledge { session, log, behind }),
        2 => (log(), proptest::option::of(1..10_u64))
            .prop_map(|(log, max_publications)| Operation::Retain { log, max_publications }),
        1 => log().prop_map(|log| Operation::Delete { log }),
        2 => (log(), 0..30_u64, 1..20_u64)
            .prop_map(|(log, after, limit)| Operation::Read { log, after, limit }),
        4 => session().prop_map(|session| Operation::CatchUp { session }),
        3 => session().prop_map(|session| Operation::Disconnect { session }),
        1 => session().prop_map(|session| Operation::TakeOver { session }),
        1 => Just(Operation::Restart),
    ]
}

/// One life of a log.
struct Log {
    id: Uuid,
    epoch: Uuid,
    /// The publication with the sequence `n` is the one at `n - 1`.
    publications: Vec<(Uuid, Vec<u8>)>,
    max_publications: Option<u64>,
    /// The oldest kept is known to be this one or a later one.
    oldest_at_least: u64,
    /// Nothing from here on may have been removed.
    oldest_at_most: u64,
}

impl Log {
    fn last(&self) -> u64 {
        self.publications.len() as u64
    }

    /// Retention may act from now on, whenever it likes.
    fn retention_may_act(&mut self) {
        if let Some(max) = self.max_publications {
            self.oldest_at_most = self
                .oldest_at_most
                .max((self.last() + 1).saturating_sub(max));
        }
    }

    /// The server said that this is the oldest kept.
    fn oldest_is(&mut self, sequence: u64) {
        assert!(
            (self.oldest_at_least..=self.oldest_at_most).contains(&sequence),
            "the oldest is {sequence}, but has to be from {} to {}",
            self.oldest_at_least,
            self.oldest_at_most
        );
        self.oldest_at_least = sequence;
    }

    fn check(&self, publication: &Fields) {
        let sequence = publication.number("sequence");
        let (id, data) = &self.publications[sequence as usize - 1];
        assert_eq!(publication.uuid("publication_id"), *id);
        assert_eq!(publication.bytes("data"), data);
        assert_eq!(publication.uuid("subscription_id"), self.id);
    }

    /// Whether nothing behind `position` is missing, if that can be told.
    fn check_recovered(&self, position: u64, recovered: bool) {
        if position + 1 < self.oldest_at_least {
            assert!(!recovered);
        }
        if position + 1 >= self.oldest_at_most {
            assert!(recovered);
        }
    }
}

/// A session's place in a subscription.
#[derive(Clone, Debug)]
struct Place {
    epoch: Uuid,
    /// What arrived last.
    position: u64,
    acknowledged: Option<u64>,
}

#[derive(Default)]
struct Session {
    id: Option<Uuid>,
    client: Option<Client>,
    places: BTreeMap<usize, Place>,
}

struct World {
    admin: Client,
    logs: BTreeMap<usize, Log>,
    sessions: Vec<Session>,
    submissions: u64,
    /// Dropped last: a stop waits for clients that are there and say nothing.
    server: TestServer,
}

impl World {
    async fn new() -> Self {
        // Little is queued for a client, so that those who lag are served from the log.
        let server = TestServer::with(|config| config.outbox_size = 64 << 10);
        let admin = server.client().await;
        let mut sessions: Vec<Session> = (0..SESSIONS).map(|_| Session::default()).collect();
        for session in &mut sessions[..SESSIONS - 1] {
            session.id = Some(Uuid::new_v4());
        }
        Self {
            server,
            admin,
            logs: BTreeMap::new(),
            sessions,
            submissions: 0,
        }
    }

    async fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Submit {
                log,
                count,
                size,
                id,
            } => self.submit(log, count, size, id).await,
            Operation::Subscribe { session, log, from } => {
                self.subscribe(session, log, from).await;
            }
            Operation::Unsubscribe { session, log } => self.unsubscribe(session, log).await,
            Operation::Acknowledge {
                session,
                log,
                behind,
            } => {
                self.acknowledge(session, log, behind).await;
            }
            Operation::Retain {
                log,
                max_publications,
            } => {
                self.retain(log, max_publications).await;
            }
            Operation::Delete { log } => self.delete(log).await,
            Operation::Read { log, after, limit } => self.read(log, after, limit).await,
            Operation::CatchUp { session } => self.catch_up(session).await,
            Operation::Disconnect { session } => self.disconnect(session).await,
            Operation::TakeOver { session } => self.take_over(session).await,
            Operation::Restart => self.restart().await,
        }
    }

    /// Makes the subscription, so that each has its durability.
    async fn make(&mut self, log: usize) {
        if self.logs.contains_key(&log) {
            return;
        }
        let (name, durability) = LOGS[log];
        let settings = fields! { "durability": durability };
        let fields = fields! { "subscription_id": name, "settings": settings };
        let meta = self.admin.call("CreateSubscription", fields).await;
        assert_eq!(
            (meta.number("first_sequence"), meta.number("last_sequence")),
            (1, 0)
        );
        self.logs.insert(
            log,
            Log {
                id: meta.uuid("subscription_id"),
                epoch: meta.uuid("epoch"),
                publications: Vec::new(),
                max_publications: None,
                oldest_at_least: 1,
                oldest_at_most: 1,
            },
        );
    }

    async fn submit(&mut self, log: usize, count: u64, size: usize, id: Option<u128>) {
        self.make(log).await;
        let mut requests = Vec::new();
        for _ in 0..count {
            self.submissions += 1;
            let mut data = self.submissions.to_be_bytes().to_vec();
            data.resize(size, self.submissions as u8);
            let id = id.map(Uuid::from_u128);
            let fields = fields! {
                "subscription_id": LOGS[log].0, "submission": &data[..], "publication_id": id,
            };
            let request = self.admin.request("SubmitPublication", fields).await;
            requests.push((request, id, data));
        }
        let log = self.logs.get_mut(&log).unwrap();
        for (request, id, data) in requests {
            let submitted = self.admin.answer(request).await.expect("Submitted");
            let told = submitted.uuid("publication_id");
            let sequence = submitted.number("sequence");
            assert!(id.is_none_or(|id| id == told));
            let known = log
                .publications
                .iter()
                .rposition(|(known, _)| *known == told);
            match known.map(|place| place as u64 + 1) {
                Some(known) if submitted.truth("duplicate") => {
                    assert_eq!(sequence, known);
                    assert!(known >= log.oldest_at_least);
                    continue;
                }
                // It can only be new if retention took the one before.
                Some(known) => {
                    assert!(known < log.oldest_at_most);
                    log.oldest_at_least = log.oldest_at_least.max(known + 1);
                }
                None => assert!(!submitted.truth("duplicate")),
            }
            log.publications.push((told, data));
            assert_eq!(sequence, log.last());
            log.retention_may_act();
        }
    }

    /// A connection for a durable session, whose kernel takes little.
    async fn resume(&self, id: Uuid) -> Client {
        let path = format!("/ws/{id}");
        Client::open(self.server.address(), &path, Some(16 << 10)).await
    }

    /// Connects the session, if it is not, and checks its `Welcome`.
    async fn connect(&mut self, session: usize) {
        if self.sessions[session].client.is_some() {
            return;
        }
        let client = match self.sessions[session].id {
            Some(id) => self.resume(id).await,
            None => Client::with_small_window(self.server.address()).await,
        };
        self.welcomed(session, &client.welcome);
        self.sessions[session].client = Some(client);
    }

    fn welcomed(&mut self, session: usize, welcome: &Response) {
        let Session { id, places, .. } = &mut self.sessions[session];
        assert_eq!(welcome.truth("durable"), id.is_some());
        // Without subscriptions it is forgotten, but perhaps not yet.
        assert!(welcome.truth("resumed") || places.is_empty());
        let restored = welcome.maps("subscriptions");
        assert_eq!(restored.len(), places.len());
        for restored in restored {
            let id = restored.uuid("subscription_id");
            let (number, log) = self.logs.iter_mut().find(|(_, log)| log.id == id).unwrap();
            let place = places.get_mut(number).unwrap();
            assert_eq!(restored.uuid("epoch"), log.epoch);
            let cursor = restored.number("cursor");
            if place.epoch == log.epoch {
                let expected = place.acknowledged.unwrap_or(place.position);
                assert_eq!(cursor, expected, "{place:?}");
                log.check_recovered(cursor, restored.truth("recovered"));
            } else {
                log.oldest_is(cursor + 1);
                assert!(!restored.truth("recovered"));
                place.acknowledged = None;
                place.epoch = log.epoch;
            }
            place.position = cursor;
        }
    }

    /// What the server says on its own.
    fn said(&mut self, session: usize, response: &Response) {
        assert_eq!(response.id, None);
        let id = response.uuid("subscription_id");
        let (number, log) = self.logs.iter_mut().find(|(_, log)| log.id == id).unwrap();
        let place = self.sessions[session]
            .places
            .get_mut(number)
            .unwrap_or_else(|| panic!("it does not subscribe that: {response:?}"));
        match response.name.as_str() {
            "Publication" => {
                assert_eq!(response.number("sequence"), place.position + 1);
                log.check(response);
                place.position += 1;
            }
            "Gap" => {
                let (from, to) = (response.number("from"), response.number("to"));
                assert_eq!(from, place.position + 1);
                assert!(to >= from && to < log.oldest_at_most, "{response:?}");
                assert_eq!(response.text("cause"), "retention");
                log.oldest_at_least = log.oldest_at_least.max(to + 1);
                place.position = to;
            }
            _ => panic!("unasked: {response:?}"),
        }
    }

    /// Sends a command of a session, and gives its answer; what comes before it has its place in the model already then.
    async fn ask(&mut self, session: usize, command: &str, fields: Value) -> Response {
        self.connect(session).await;
        let client = self.sessions[session].client.as_mut().unwrap();
        let request = client.request(command, fields).await;
        loop {
            let client = self.sessions[session].client.as_mut().unwrap();
            let response = client.any().await;
            if response.id == Some(request) {
                return response;
            }
            self.said(session, &response);
        }
    }

    async fn subscribe(&mut self, session: usize, number: usize, from: From) {
        self.make(number).await;
        let wire = match from {
            From::New => Value::Text("New".into()),
            From::First => Value::Text("First".into()),
            From::After(position) => fields! { "After": position },
            From::Last(count) => fields! { "Last": count },
            From::Keep => Value::Null,
        };
        let fields = fields! { "subscription_id": LOGS[number].0, "from": wire };
        let answer = self
            .ask(session, "Subscribe", fields)
            .await
            .expect("Subscribed");
        let log = self.logs.get_mut(&number).unwrap();
        let first = answer.number("first_sequence");
        log.oldest_is(first);
        assert_eq!(answer.number("last_sequence"), log.last());
        assert_eq!(answer.uuid("epoch"), log.epoch);
        let places = &mut self.sessions[session].places;
        let (mut acknowledged, mut exact) = (None, true);
        let cursor = match from {
            From::New => log.last(),
            From::First => first - 1,
            From::Last(count) => log.last().saturating_sub(count).max(first - 1),
            From::After(position) if position > log.last() => {
                exact = false;
                first - 1
            }
            From::After(position) => position,
            From::Keep => match places.get(&number) {
                Some(place) => {
                    acknowledged = place.acknowledged;
                    place.position
                }
                None => log.last(),
            },
        };
        assert_eq!(answer.number("cursor"), cursor);
        assert_eq!(answer.truth("recovered"), exact && cursor + 1 >= first);
        let place = Place {
            epoch: log.epoch,
            position: cursor,
            acknowledged,
        };
        places.insert(number, place);
    }

    async fn unsubscribe(&mut self, session: usize, log: usize) {
        let fields = fields! { "subscription_id": LOGS[log].0 };
        let answer = self.ask(session, "Unsubscribe", fields).await;
        if self.logs.contains_key(&log) {
            answer.expect("Unsubscribed");
            self.sessions[session].places.remove(&log);
        } else {
            answer.expect_error("not-found");
        }
    }

    async fn acknowledge(&mut self, session: usize, number: usize, behind: i64) {
        let last = self.logs.get(&number).map_or(0, Log::last);
        let sequence = last.saturating_add_signed(-behind).max(1);
        let fields = fields! { "subscription_id": LOGS[number].0, "sequence": sequence };
        let answer = self.ask(session, "Acknowledge", fields).await;
        if !self.logs.contains_key(&number) {
            answer.expect_error("not-found");
            return;
        }
        let Some(place) = self.sessions[session].places.get_mut(&number) else {
            answer.expect_error("invalid-argument");
            return;
        };
        if sequence > last {
            answer.expect_error("invalid-argument");
            return;
        }
        let count = answer.expect("Acknowledged").number("count");
        let before = place.acknowledged.unwrap_or(0);
        assert!(count <= sequence.saturating_sub(before));
        if place.acknowledged.is_none_or(|before| sequence > before) {
            place.acknowledged = Some(sequence);
        }
    }

    async fn retain(&mut self, log: usize, max_publications: Option<u64>) {
        self.make(log).await;
        let retention = max_publications.map(|max| fields! { "max_publications": max });
        let settings = fields! { "retention": retention };
        let fields = fields! { "subscription_id": LOGS[log].0, "settings": settings };
        self.admin.call("UpdateSubscription", fields).await;
        let log = self.logs.get_mut(&log).unwrap();
        log.max_publications = max_publications;
        log.retention_may_act();
    }

    async fn delete(&mut self, number: usize) {
        let fields = fields! { "subscription_id": LOGS[number].0 };
        let answer = self.admin.ask("DeleteSubscription", fields).await;
        let Some(id) = self.logs.get(&number).map(|log| log.id) else {
            answer.expect_error("not-found");
            return;
        };
        answer.expect("Deleted");
        for session in 0..SESSIONS {
            if !self.sessions[session].places.contains_key(&number) {
                continue;
            }
            while let Some(client) = &mut self.sessions[session].client {
                let response = client.any().await;
                if response.name == "Deleted" {
                    assert_eq!(response.uuid("subscription_id"), id);
                    break;
                }
                self.said(session, &response);
            }
            self.sessions[session].places.remove(&number);
        }
        self.logs.remove(&number);
    }

    async fn read(&mut self, number: usize, after: u64, limit: u64) {
        let fields = || {
            fields! { "log_id": LOGS[number].0, "after": after, "limit": limit }
        };
        let index = self.admin.ask("GetLogIndex", fields()).await;
        let entries = self.admin.ask("GetLogEntries", fields()).await;
        let Some(log) = self.logs.get_mut(&number) else {
            index.expect_error("not-found");
            entries.expect_error("not-found");
            return;
        };
        log.oldest_is(index.number("first_sequence"));
        assert_eq!(index.number("last_sequence"), log.last());
        let expected: Vec<u64> = ((after + 1).max(log.oldest_at_least)..=log.last())
            .take(limit as usize)
            .collect();
        let ids: Vec<Uuid> = expected
            .iter()
            .map(|sequence| log.publications[*sequence as usize - 1].0)
            .collect();
        assert_eq!(index.uuids("entries"), ids);
        let reached = expected.last().is_none_or(|last| *last == log.last());
        assert_eq!(index.truth("more"), !reached);
        // Retention may have acted between the two.
        let publications = entries.maps("publications");
        for publication in &publications {
            assert!(publication.number("sequence") > after);
            log.check(publication);
        }
        assert!(publications.len() <= limit as usize);
        let sequences = publications
            .iter()
            .map(|publication| publication.number("sequence"));
        if let Some(first) = sequences.clone().next() {
            let contiguous: Vec<u64> = (first..first + publications.len() as u64).collect();
            assert_eq!(sequences.collect::<Vec<_>>(), contiguous);
            assert!(first == after + 1 || first <= log.oldest_at_most);
        }
    }

    async fn catch_up(&mut self, session: usize) {
        self.connect(session).await;
        while self.sessions[session]
            .places
            .iter()
            .any(|(log, place)| place.position < self.logs[log].last())
        {
            let client = self.sessions[session].client.as_mut().unwrap();
            let response = client.any().await;
            self.said(session, &response);
        }
    }

    /// Reads what a connection still gets until it is closed.
    async fn last_words(&mut self, session: usize, expected: u16) {
        let mut client = self.sessions[session].client.take().unwrap();
        for response in client.unread() {
            self.said(session, &response);
        }
        loop {
            match client.event().await {
                Event::Response(response) => self.said(session, &response),
                Event::Closed(code) => {
                    assert_eq!(code, Some(expected));
                    client.let_go().await;
                    return;
                }
                Event::Ended(why) => panic!("ended without a Close: {why}"),
            }
        }
    }

    fn forget_what_is_not_durable(&mut self, session: usize) {
        if self.sessions[session].id.is_none() {
            self.sessions[session].places.clear();
        }
    }

    async fn disconnect(&mut self, session: usize) {
        let Some(client) = &mut self.sessions[session].client else {
            return;
        };
        client.begin_close().await;
        self.last_words(session, 1000).await;
        self.forget_what_is_not_durable(session);
    }

    async fn take_over(&mut self, session: usize) {
        let Some(id) = self.sessions[session].id else {
            return;
        };
        if self.sessions[session].client.is_none() {
            return self.connect(session).await;
        }
        let client = self.resume(id).await;
        self.last_words(session, 4502).await;
        let welcome = client.welcome.clone();
        self.welcomed(session, &welcome);
        self.sessions[session].client = Some(client);
    }

    async fn restart(&mut self) {
        let connected: Vec<usize> = (0..SESSIONS)
            .filter(|session| self.sessions[*session].client.is_some())
            .collect();
        let server = self.server.begin_stop();
        for session in connected {
            self.last_words(session, 1001).await;
            self.forget_what_is_not_durable(session);
        }
        assert_eq!(self.admin.closed().await, 1001);
        self.admin.let_go().await;
        server.await.unwrap();
        self.server.start_again().await;
        self.admin = self.server.client().await;
        for (number, log) in &mut self.logs {
            let (name, durability) = LOGS[*number];
            let meta = self.admin.meta(name).await;
            if durability == "Memory" {
                assert_ne!(meta.uuid("epoch"), log.epoch);
                log.epoch = meta.uuid("epoch");
                log.publications.clear();
                (log.oldest_at_least, log.oldest_at_most) = (1, 1);
            }
            assert_eq!(meta.uuid("epoch"), log.epoch);
            assert_eq!(meta.number("last_sequence"), log.last());
            log.oldest_is(meta.number("first_sequence"));
        }
    }

    /// Everything arrives, and the logs hold what they should.
    async fn check(&mut self) {
        for session in 0..SESSIONS {
            self.catch_up(session).await;
        }
        for number in 0..LOGS.len() {
            self.read(number, 0, 10_000).await;
        }
        for (number, log) in &self.logs {
            let meta = self.admin.meta(LOGS[*number].0).await;
            let holding = self
                .sessions
                .iter()
                .filter(|session| session.places.contains_key(number))
                .count();
            assert_eq!(meta.number("connected"), holding as u64);
            assert_eq!(meta.number("subscribers"), holding as u64);
            assert_eq!(meta.number("last_sequence"), log.last());
        }
    }
}

/// Where a conversation is: told if it fails there.
struct At(usize, String);

impl Drop for At {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed at {}: {}", self.0, self.1);
        }
    }
}

/// So many conversations, unless `PROPTEST_CASES` wants others.
fn cases() -> u32 {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted.and_then(|cases| cases.parse().ok()).unwrap_or(40)
}

proptest! {
    #![proptest_config(Config {
        cases: cases(),
        max_shrink_iters: 300,
        max_shrink_time: 90_000,
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn the_server_does_what_the_model_says(operations in vec(operation(), 10..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for (number, operation) in operations.into_iter().enumerate() {
                let _at = At(number, format!("{operation:?}"));
                world.apply(operation).await;
            }
            let _at = At(0, "the check at the end".to_owned());
            world.check().await;
        });
    }
}
