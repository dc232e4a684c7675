//! Section 6, point 6: damage on disk is told, never hidden, and all else is served.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{Client, Fields, Process, eventually};

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort_unstable();
    files
}

fn is_anything_kept_aside(server: &Process) -> bool {
    let quarantine = server.data_dir().join("quarantine");
    quarantine.exists() && !files(&quarantine).is_empty()
}

/// Publishes so much to `orders` that a journal is sealed, and gives the segment that it became.
async fn publish_until_sealed(server: &Process, client: &mut Client) -> PathBuf {
    for number in 0..200_u8 {
        client.publish("orders", vec![number; 200_000]).await;
    }
    let segments = server.data_dir().join("segments");
    let sealed = || {
        let mut files = files(&segments);
        files.retain(|file| file.extension().is_some_and(|name| name == "segment"));
        files.into_iter().next()
    };
    eventually("a journal is sealed", async || sealed().is_some()).await;
    sealed().expect("a segment")
}

/// Stops in order, so that a journal that is being sealed is: killed in the midst, the server would seal it again.
async fn stop(server: &mut Process, client: Client) {
    client.close().await;
    server.signal("-TERM");
    assert!(server.exited().await.success());
}

fn sequences(publications: &[Fields]) -> Vec<u64> {
    publications
        .iter()
        .map(|publication| publication.number("sequence"))
        .collect()
}

#[tokio::test]
async fn what_can_not_be_read_is_a_gap_for_subscribers_and_missing_in_reads() {
    let mut server = Process::start(&[("MAX_MESSAGE_SIZE", "1MiB")]);
    let mut client = server.client().await;
    client.publish_many("news", 20).await;
    let segment = publish_until_sealed(&server, &mut client).await;
    let ids = client
        .call("GetLogIndex", fields! { "log_id": "orders" })
        .await
        .uuids("entries");
    assert_eq!(ids.len(), 200);
    stop(&mut server, client).await;
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 4] {
        *byte ^= 0x55;
    }
    fs::write(&segment, bytes).unwrap();
    server.start_again();

    let mut client = server.client().await;
    client.subscribe("orders", "First").await;
    let (mut position, mut lost) = (0, Vec::new());
    while position < 200 {
        let response = client.next().await;
        if response.name == "Gap" {
            assert_eq!(response.text("cause"), "damage");
            assert_eq!(response.number("from"), position + 1);
            position = response.number("to");
            lost.extend(response.number("from")..=position);
        } else {
            position += 1;
            let publication = response.expect("Publication");
            assert_eq!(publication.number("sequence"), position);
            assert_eq!(publication.bytes("data"), vec![position as u8 - 1; 200_000]);
        }
    }
    assert!(
        (1..=3).contains(&lost.len()),
        "four bytes took {}",
        lost.len()
    );
    // The same in reads, page by page and by id.
    let kept: Vec<u64> = (1..=200)
        .filter(|sequence| !lost.contains(sequence))
        .collect();
    assert_eq!(sequences(&client.log("orders").await), kept);
    let around = lost[0] as usize - 3..lost[0] as usize + 3;
    let asked = &ids[around.clone()];
    let fields = fields! { "log_id": "orders", "entries": asked.to_vec() };
    let found = client.call("GetLogEntries", fields).await;
    let missing: Vec<_> = lost
        .iter()
        .map(|sequence| ids[*sequence as usize - 1])
        .filter(|id| asked.contains(id))
        .collect();
    assert_eq!(found.uuids("missing"), missing);
    assert_eq!(
        found.array("publications").len(),
        asked.len() - missing.len()
    );
    // Nothing else is hurt.
    assert_eq!(client.log("news").await.len(), 20);
    let next = client.publish("orders", b"x").await;
    assert_eq!(next.number("sequence"), 201);
}

#[tokio::test]
async fn a_torn_end_of_the_journal_is_cut_kept_aside_and_the_rest_served() {
    let mut server = Process::start(&[]);
    let mut client = server.client().await;
    for _ in 0..10 {
        client.publish("orders", vec![7; 1_000]).await;
    }
    server.kill();
    let before = is_anything_kept_aside(&server);
    assert!(!before);
    // The last bytes that were written: those of the tenth.
    let journals = files(&server.data_dir().join("journal"));
    let written = |file: &PathBuf| {
        let bytes = fs::read(file).unwrap();
        bytes.windows(7).rposition(|seven| seven == [7; 7])
    };
    let (journal, end) = journals
        .iter()
        .find_map(|file| written(file).map(|end| (file, end)))
        .expect("a journal with the publications");
    let mut bytes = fs::read(journal).unwrap();
    bytes[end - 500..].fill(0);
    fs::write(journal, bytes).unwrap();

    server.start_again();
    let mut client = server.client().await;
    let log = client.log("orders").await;
    assert_eq!(sequences(&log), (1..=9).collect::<Vec<_>>());
    assert!(is_anything_kept_aside(&server));
    client.publish("orders", b"x").await;
    server.kill();
    server.start_again();
    let mut client = server.client().await;
    assert_eq!(client.log("orders").await.len(), 10);
}

#[tokio::test]
async fn nonsense_behind_the_end_of_the_journal_is_no_harm() {
    let mut server = Process::start(&[]);
    let mut client = server.client().await;
    client.publish_many("orders", 10).await;
    let before = client.log("orders").await;
    server.kill();
    for journal in files(&server.data_dir().join("journal")) {
        let mut bytes = fs::read(&journal).unwrap();
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 8);
        let tail = &mut bytes[end..];
        let len = tail.len().min(10_000);
        for (at, byte) in tail[..len].iter_mut().enumerate() {
            *byte = (at * 37 + 11) as u8;
        }
        fs::write(journal, bytes).unwrap();
    }
    server.start_again();
    let mut client = server.client().await;
    assert_eq!(client.log("orders").await, before);
}

#[tokio::test]
async fn what_can_not_be_read_counts_as_settled_in_a_queue() {
    let mut server = Process::start(&[("MAX_MESSAGE_SIZE", "1MiB")]);
    let mut client = server.client().await;
    let fields = fields! { "subscription_id": "orders", "kind": "Queue" };
    client.call("CreateSubscription", fields).await;
    let segment = publish_until_sealed(&server, &mut client).await;
    stop(&mut server, client).await;
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 4] {
        *byte ^= 0x55;
    }
    fs::write(&segment, bytes).unwrap();
    server.start_again();

    let mut client = server.client().await;
    let open = client.meta("orders").await.number("pending");
    assert_eq!(open, 200);
    let fields = fields! { "subscription_id": "orders", "prefetch": 3 };
    client.call("Subscribe", fields).await;
    let (mut came, mut last) = (0, 0);
    while last < 200 {
        let publication = client.next().await.expect("Publication");
        assert!(publication.number("sequence") > last);
        last = publication.number("sequence");
        came += 1;
        let ids = vec![publication.uuid("publication_id")];
        let fields = fields! { "subscription_id": "orders", "publication_ids": ids };
        client.call("Acknowledge", fields).await;
    }
    assert!((150..200).contains(&came), "{came} could be read");
    let meta = client.meta("orders").await;
    assert_eq!((meta.number("pending"), meta.number("in_flight")), (0, 0));
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Deleted,
    Emptied,
    Garbled,
}

impl Damage {
    fn inflict(self, file: &Path) {
        match self {
            // Some are made when there is time for it, and may not be there yet.
            Self::Deleted => _ = fs::remove_file(file),
            Self::Emptied => fs::write(file, "").unwrap(),
            Self::Garbled => {
                let mut bytes = fs::read(file).unwrap_or_default();
                for byte in bytes.iter_mut().step_by(5) {
                    *byte ^= 0xa5;
                }
                fs::write(file, bytes).unwrap();
            }
        }
    }
}

/// Publishes to a Broadcast and a Queue, and starts again, so that what was published is in a segment.
async fn sealed_of_both_kinds() -> Process {
    let mut server = Process::start(&[]);
    let mut client = server.client().await;
    let fields = fields! { "subscription_id": "jobs", "kind": "Queue" };
    client.call("CreateSubscription", fields).await;
    client.publish_many("jobs", 10).await;
    client.publish_many("orders", 10).await;
    stop(&mut server, client).await;
    server.start_again();
    let segments = server.data_dir().join("segments");
    eventually("a journal is sealed", async || !files(&segments).is_empty()).await;
    server
}

#[tokio::test]
async fn a_file_that_holds_no_publications_costs_none_whatever_becomes_of_it() {
    let mut server = sealed_of_both_kinds().await;
    let mut had = 10;
    for file in [
        "lock",
        "running",
        "ended",
        "reserve",
        "state/log",
        "catalogue/db",
        "catalogue/conf",
    ] {
        for damage in [Damage::Deleted, Damage::Emptied, Damage::Garbled] {
            server.kill();
            damage.inflict(&server.data_dir().join(file));
            server.start_again();
            let mut client = server.client().await;
            let what = format!("{file} {damage:?}");
            assert_eq!(client.log("orders").await.len(), had, "{what}");
            let meta = client.meta("jobs").await;
            assert_eq!(meta.number("pending"), had as u64, "{what}");
            had += 1;
            for name in ["orders", "jobs"] {
                let answer = client.publish(name, b"x").await;
                assert_eq!(answer.number("sequence"), had as u64, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_journal_that_is_gone_after_a_kill_is_a_new_epoch_for_both_kinds() {
    for damage in [Damage::Deleted, Damage::Emptied, Damage::Garbled] {
        let mut server = sealed_of_both_kinds().await;
        let mut client = server.client().await;
        let before = client.meta("orders").await.uuid("epoch");
        for name in ["orders", "jobs"] {
            client.publish(name, b"what is lost").await;
        }
        server.kill();
        let journals = files(&server.data_dir().join("journal"));
        let holds = |file: &&PathBuf| {
            let bytes = fs::read(file).unwrap();
            bytes.windows(12).any(|bytes| bytes == b"what is lost")
        };
        let journal = journals.iter().find(holds).expect("a journal that has it");
        damage.inflict(journal);
        server.start_again();
        let mut client = server.client().await;
        assert_ne!(
            client.meta("orders").await.uuid("epoch"),
            before,
            "{damage:?}"
        );
        assert_eq!(client.log("orders").await.len(), 10);
        assert_eq!(client.meta("jobs").await.number("pending"), 10);
    }
}

#[tokio::test]
async fn a_damaged_format_is_refused_with_a_sentence_and_everything_left_as_it_is() {
    let mut server = sealed_of_both_kinds().await;
    server.kill();
    let format = server.data_dir().join("format");
    let whole = fs::read(&format).unwrap();
    let segments = files(&server.data_dir().join("segments"));
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&format, bytes).unwrap();
        let (code, said) = Process::refused(&server.data_dir(), &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("format"), "{said}");
    }
    assert_eq!(files(&server.data_dir().join("segments")), segments);
    fs::write(&format, whole).unwrap();
    server.start_again();
    assert_eq!(server.client().await.log("orders").await.len(), 10);
}
