//! How fast workers take and acknowledge, and what a long queue costs. Measurements, so they are ignored unless asked for:
//! `cargo test --release --test queue_speed -- --ignored --nocapture --test-threads 1`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement prints, and fails loudly"
)]

#[path = "support/mod.rs"]
#[macro_use]
mod support;

use support::{Process, encode, named};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

/// A WebSocket connection that only counts.
struct Wire {
    socket: TcpStream,
    input: Vec<u8>,
    at: usize,
}

impl Wire {
    async fn open(process: &Process) -> Self {
        let mut socket = TcpStream::connect(process.address()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let upgrade = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        socket.write_all(upgrade.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let mut wire = Self {
            socket,
            input: Vec::new(),
            at: 0,
        };
        assert!(contains(&wire.frame().await, b"Welcome"));
        wire
    }

    /// The payload of the next frame.
    async fn frame(&mut self) -> Vec<u8> {
        loop {
            let rest = &self.input[self.at..];
            let (head, len) = match rest.get(1) {
                Some(126) if rest.len() >= 4 => {
                    (4, usize::from(u16::from_be_bytes([rest[2], rest[3]])))
                }
                Some(127) if rest.len() >= 10 => (
                    10,
                    u64::from_be_bytes(rest[2..10].try_into().unwrap()) as usize,
                ),
                Some(&len) if len < 126 => (2, usize::from(len)),
                _ => (0, usize::MAX),
            };
            if head > 0 && rest.len() >= head + len {
                let payload = rest[head..head + len].to_vec();
                self.at += head + len;
                return payload;
            }
            self.input.drain(..self.at);
            self.at = 0;
            assert!(
                self.socket.read_buf(&mut self.input).await.unwrap() > 0,
                "ended"
            );
        }
    }

    async fn send(&mut self, messages: &[u8]) {
        self.socket.write_all(messages).await.unwrap();
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A frame masked with zeros.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x82];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

async fn publish(process: &Process, count: usize) {
    let mut wire = Wire::open(process).await;
    let fields = fields! { "subscription_id": "work", "kind": "Queue", "submission": &[7_u8; 128] };
    let one = frame(&encode(&named("SubmitPublication", fields)));
    let block = one.repeat(1000);
    let begun = Instant::now();
    for _ in 0..count.div_ceil(1000) {
        wire.send(&block).await;
    }
    wire.send(&frame(&encode(&named("Ping", fields! {})))).await;
    assert!(contains(&wire.frame().await, b"Pong"));
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!("published {count} at {rate:.0} a second");
}

/// Subscribes, and acknowledges `batch` at a time until `left` is used up. Returns how many this one did.
async fn work(
    process: &Process,
    prefetch: u64,
    batch: usize,
    left: &std::sync::atomic::AtomicI64,
) -> u64 {
    use std::sync::atomic::Ordering::Relaxed;
    let mut wire = Wire::open(process).await;
    let fields = fields! { "subscription_id": "work", "kind": "Queue", "prefetch": prefetch };
    wire.send(&frame(&encode(&named("Subscribe", fields))))
        .await;
    // The head of an Acknowledge of `batch` ids, under a request id.
    let empty =
        fields! { "subscription_id": "work", "publication_ids": vec![uuid::Uuid::nil(); batch] };
    let mut template = vec![0x82, 1];
    template.extend_from_slice(&encode(&named("Acknowledge", empty)));
    let ids_at = {
        let nil = [&[0x50_u8][..], &[0; 16]].concat();
        template
            .windows(17)
            .position(|window| window == nil)
            .unwrap()
    };
    let (mut ids, mut done) = (Vec::new(), 0);
    loop {
        let payload = wire.frame().await;
        if payload.starts_with(b"\xa1\x6bPublication") {
            let id_at = 13 + 1 + 17 + 16 + 16;
            ids.push(payload[id_at..id_at + 16].to_vec());
            if ids.len() == batch {
                for (place, id) in ids.drain(..).enumerate() {
                    let at = ids_at + place * 17 + 1;
                    template[at..at + 16].copy_from_slice(&id);
                }
                wire.send(&frame(&template)).await;
            }
        } else if contains(&payload, b"Acknowledged") {
            done += batch as u64;
            if left.fetch_sub(batch as i64, Relaxed) <= batch as i64 {
                return done;
            }
        }
        if left.load(Relaxed) <= 0 {
            return done;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn workers_take_what_is_published_meanwhile() {
    let count: usize = std::env::var("COUNT").map_or(400_000, |count| count.parse().unwrap());
    let process = std::sync::Arc::new(Process::start(&[]));
    publish(&process, 1000).await;
    let left = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(count as i64 - 64 * 32));
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..64 {
        let (process, left) = (process.clone(), left.clone());
        tasks.push(tokio::spawn(async move {
            work(&process, 32, 16, &left).await;
        }));
    }
    for _ in 0..4 {
        let process = process.clone();
        tasks.push(tokio::spawn(
            async move { publish(&process, count / 4).await },
        ));
    }
    let limit = std::time::Duration::from_secs(60);
    let all = async {
        while left.load(std::sync::atomic::Ordering::Relaxed) > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limit, all).await.unwrap();
    let rate = (count as f64 - 64.0 * 32.0) / begun.elapsed().as_secs_f64();
    println!("published, took and acknowledged {rate:.0} a second");
    for task in tasks {
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn workers_take_and_acknowledge() {
    let count: usize = std::env::var("COUNT").map_or(600_000, |count| count.parse().unwrap());
    let mut process = Process::start(&[]);
    publish(&process, count).await;
    let before = process.memory();
    process.kill();
    let begun = Instant::now();
    process.start_again();
    println!("started in {:?} with {count} pending", begun.elapsed());
    println!(
        "memory: {} MiB before, {} MiB behind the start",
        before >> 20,
        process.memory() >> 20
    );
    let process = std::sync::Arc::new(process);
    let left = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(count as i64 - 64 * 32));
    let begun = Instant::now();
    let workers: Vec<_> = (0..64)
        .map(|_| {
            let (process, left) = (process.clone(), left.clone());
            tokio::spawn(async move {
                let limit = std::time::Duration::from_secs(60);
                tokio::time::timeout(limit, work(&process, 32, 16, &left))
                    .await
                    .unwrap_or(0)
            })
        })
        .collect();
    let watch = {
        let left = left.clone();
        tokio::spawn(async move {
            while left.load(std::sync::atomic::Ordering::Relaxed) > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            begun.elapsed()
        })
    };
    let elapsed = tokio::time::timeout(std::time::Duration::from_secs(60), watch)
        .await
        .unwrap()
        .unwrap();
    for worker in workers {
        worker.abort();
    }
    let done = count as f64 - 64.0 * 32.0;
    println!(
        "took and acknowledged {:.0} a second",
        done / elapsed.as_secs_f64()
    );
    println!("memory: {} MiB behind it", process.memory() >> 20);
}
