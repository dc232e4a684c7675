//! A model of what a subscriber sees: whatever is published, deleted, retained and asked meanwhile, and however slowly it reads, each
//! stream is contiguous from its `Subscribed` to the end, but for gaps that are told.
//!
//! One task takes random steps for everybody, so the model knows the state of the server whenever a command is answered. The seed of
//! a run is printed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that can't go on fails, and a seed is worth printing"
)]

#[macro_use]
mod support;

use std::collections::HashMap;

use serde_cbor::Value;
use support::{Client, Response, TestServer};
use uuid::Uuid;

const STEPS: usize = 250;
const READERS: usize = 4;
const NAMES: [&str; 3] = ["a", "b", "deleted-now-and-then"];
const DELETED: usize = 2;

/// What the publisher knows of a subscription.
#[derive(Clone, Copy, Default)]
struct Log {
    /// How often it was deleted.
    life: u32,
    last: u64,
}

/// What a reader knows of a subscription that it subscribes.
#[derive(Clone, Copy)]
struct Stream {
    life: u32,
    next: u64,
}

struct Reader {
    client: Client,
    streams: [Option<Stream>; 3],
    ids: HashMap<Uuid, usize>,
}

struct Model {
    random: fastrand::Rng,
    durability: &'static str,
    publisher: Client,
    logs: [Log; 3],
    readers: Vec<Reader>,
}

impl Model {
    async fn create(&mut self, which: usize) {
        let retention = fields! { "max_bytes": 200_000 };
        let settings = fields! { "durability": self.durability, "retention": retention };
        let fields = fields! { "subscription_id": NAMES[which], "settings": settings };
        let meta = self.publisher.call("CreateSubscription", fields).await;
        for reader in &mut self.readers {
            reader.ids.insert(meta.uuid("subscription_id"), which);
        }
    }

    async fn step(&mut self) {
        match self.random.u8(0..20) {
            0 => {
                let fields = fields! { "subscription_id": NAMES[DELETED] };
                self.publisher.call("DeleteSubscription", fields).await;
                self.logs[DELETED].life += 1;
                self.logs[DELETED].last = 0;
                self.create(DELETED).await;
            }
            1..8 => self.publish().await,
            8..13 => {
                let reader = self.random.usize(0..READERS);
                let commands = self.random.usize(1..5);
                self.readers[reader]
                    .ask(&mut self.random, commands, &self.logs)
                    .await;
            }
            _ => {
                let reader = self.random.usize(0..READERS);
                for _ in 0..self.random.usize(1..30) {
                    self.readers[reader].read_if_due(&self.logs).await;
                }
            }
        }
    }

    async fn publish(&mut self) {
        let mut requests = Vec::new();
        for _ in 0..self.random.usize(1..20) {
            let which = self.random.usize(0..3);
            let len = match self.random.u8(0..8) {
                0 => self.random.usize(0..50_000),
                _ => self.random.usize(0..400),
            };
            let fields = fields! { "subscription_id": NAMES[which], "submission": vec![b'x'; len] };
            requests.push((
                which,
                self.publisher.request("SubmitPublication", fields).await,
            ));
        }
        for (which, request) in requests {
            let submitted = self.publisher.answer(request).await.expect("Submitted");
            self.logs[which].last += 1;
            assert_eq!(submitted.number("sequence"), self.logs[which].last);
        }
    }
}

impl Reader {
    /// Sends random commands without waiting, and reads up to the last answer.
    async fn ask(&mut self, random: &mut fastrand::Rng, commands: usize, logs: &[Log; 3]) {
        let mut asked = HashMap::new();
        for _ in 0..commands {
            let which = random.usize(0..3);
            let name = NAMES[which];
            let from: Option<Value> = match random.u8(0..5) {
                0 => Some(Value::Text("New".into())),
                1 => Some(Value::Text("First".into())),
                2 => Some(fields! { "Since": 1 }),
                _ => None,
            };
            let fields = match &from {
                Some(from) => fields! { "subscription_id": name, "from": from },
                None => fields! { "subscription_id": name },
            };
            let request = match random.u8(0..8) {
                0..4 => self.client.request("Subscribe", fields).await,
                4 => self.client.request("Unsubscribe", fields).await,
                5 => {
                    let fields = fields! { "log_id": name, "limit": 20 };
                    self.client.request("GetLogEntries", fields).await
                }
                _ => {
                    let fields = fields! { "log_id": name };
                    self.client.request("GetLogIndex", fields).await
                }
            };
            asked.insert(request, (which, from.is_some()));
        }
        let ping = self.client.request("Ping", fields! {}).await;
        loop {
            let response = self.client.any().await;
            let Some(id) = response.id else {
                self.take(&response);
                continue;
            };
            if id == ping {
                assert!(asked.is_empty(), "Pong came before {asked:?}");
                return;
            }
            let (which, has_from) = asked.remove(&id).unwrap();
            self.answered(&response, which, has_from, logs[which]);
        }
    }

    fn answered(&mut self, response: &Response, which: usize, has_from: bool, log: Log) {
        match response.name.as_str() {
            "Subscribed" => {
                let next = response.number("cursor") + 1;
                if let Some(stream) = self.streams[which]
                    && stream.life == log.life
                    && !has_from
                {
                    assert_eq!(next, stream.next, "a kept cursor moved");
                }
                assert_eq!(response.number("last_sequence"), log.last);
                let life = log.life;
                self.streams[which] = Some(Stream { life, next });
            }
            "Unsubscribed" => self.streams[which] = None,
            "LogIndex" | "DataLogEntry" => {}
            other => panic!("answered by {other}: {response:?}"),
        }
    }

    /// Takes what the server says on its own.
    fn take(&mut self, response: &Response) {
        let which = self.ids[&response.uuid("subscription_id")];
        let stream = &mut self.streams[which];
        let Some(Stream { next, .. }) = stream else {
            panic!("not subscribed: {response:?}");
        };
        match response.name.as_str() {
            "Publication" => {
                assert_eq!(response.number("sequence"), *next);
                *next += 1;
            }
            "Gap" => {
                assert_eq!(response.number("from"), *next);
                assert_eq!(response.text("cause"), "retention");
                *next = response.number("to") + 1;
            }
            "Deleted" => *stream = None,
            other => panic!("the server said {other}"),
        }
    }

    /// Reads one message, if the server owes one.
    async fn read_if_due(&mut self, logs: &[Log; 3]) -> bool {
        let is_due = self.streams.iter().zip(logs).any(|(stream, log)| {
            stream.is_some_and(|stream| stream.life < log.life || stream.next <= log.last)
        });
        if is_due {
            let response = self.client.any().await;
            self.take(&response);
        }
        is_due
    }
}

async fn run(durability: &'static str) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let server = TestServer::with(|config| config.outbox_size = 64 << 10);
    let mut model = Model {
        random: fastrand::Rng::with_seed(seed),
        durability,
        publisher: server.client().await,
        logs: Default::default(),
        readers: Vec::new(),
    };
    for number in 0..READERS {
        let client = match number % 2 {
            0 => server.client().await,
            _ => Client::with_small_window(server.address()).await,
        };
        model.readers.push(Reader {
            client,
            streams: [None; 3],
            ids: HashMap::new(),
        });
    }
    for which in 0..3 {
        model.create(which).await;
    }
    for _ in 0..STEPS {
        model.step().await;
    }
    for reader in &mut model.readers {
        while reader.read_if_due(&model.logs).await {}
        reader.client.hears_nothing().await;
    }
}

#[tokio::test]
async fn streams_of_synced_subscriptions_have_no_untold_hole() {
    run("Synced").await;
}

#[tokio::test]
async fn streams_of_written_subscriptions_have_no_untold_hole() {
    run("Written").await;
}

#[tokio::test]
async fn streams_of_memory_subscriptions_have_no_untold_hole() {
    run("Memory").await;
}
