//! Until it is full.

use std::time::Instant;

use super::*;

const LOGS: [(&str, &str, &str); 3] = [
    ("synced", "Broadcast", "Synced"),
    ("written", "Broadcast", "Written"),
    ("queue", "Queue", "Synced"),
];

#[test]
fn publications_are_refused_in_time_and_none_that_was_answered_is_lost() {
    on_disks(this_test!(), async |small| {
        let Small { mut server, .. } = small;
        let mut client = server.client().await;
        let mut readers = Vec::new();
        for (name, kind, durability) in LOGS {
            let settings = fields! { "durability": durability };
            let fields = fields! { "subscription_id": name, "kind": kind, "settings": settings };
            client.call("CreateSubscription", fields).await;
            if kind == "Broadcast" {
                let mut reader = server.client().await;
                reader.subscribe(name, "New").await;
                readers.push((name, reader));
            }
        }
        let begun = Instant::now();
        let mut publishers = Vec::new();
        for number in 0..6 {
            let (name, ..) = LOGS[number % LOGS.len()];
            let publisher = server.client().await;
            let sizes = &[150_000, 300, 20_000, 90_000, 7];
            let filling = fill(publisher, name.into(), format!("{number}"), sizes);
            publishers.push((name, tokio::spawn(filling)));
        }
        let mut ledger = Ledger::default();
        for (name, publisher) in publishers {
            ledger.add(name, publisher.await.unwrap());
        }
        let count: usize = ledger.0.values().map(BTreeMap::len).sum();
        println!(
            "{count} publications, then full after {:?}",
            begun.elapsed()
        );
        ledger.check(&mut client).await;
        for (name, mut reader) in readers {
            for (sequence, data) in &ledger.0[name] {
                assert_eq!(reader.publication(*sequence).await.bytes("data"), data);
            }
            reader.hears_nothing().await;
        }

        server.kill();
        server.start_again();
        let mut client = server.client().await;
        ledger.check(&mut client).await;
        for (name, ..) in LOGS {
            assert_eq!(
                client.meta(name).await.number("last_sequence"),
                ledger.0[name].len() as u64
            );
        }

        server.signal("-TERM");
        assert_eq!(server.exited().await.code(), Some(0));
        server.start_again();
        ledger.check(&mut server.client().await).await;
    });
}
