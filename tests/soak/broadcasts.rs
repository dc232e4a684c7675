//! Logs that are published to by one publisher each, so that what stands at a sequence is known, and those who read them.

use uuid::Uuid;

use super::{
    support::{Client, Fields},
    *,
};

/// Name, durability, milliseconds between two publications, and their size. `ids` has publication ids of its publisher.
const LOGS: [(&str, &str, u64, usize); 4] = [
    ("synced", "Synced", 50, 20_000),
    ("written", "Written", 40, 30_000),
    ("memory", "Memory", 20, 5_000),
    ("ids", "Written", 15, 2_000),
];

pub(crate) async fn make(client: &mut Client) {
    for (name, durability, ..) in LOGS {
        let retention = fields! { "max_bytes": KEPT / 2 };
        let settings = fields! { "durability": durability, "retention": retention };
        let fields = fields! { "subscription_id": name, "settings": settings };
        client.call("CreateSubscription", fields).await;
    }
}

pub(crate) fn spawn(load: Load, tasks: &mut JoinSet<()>, random: &mut Rng) {
    for (name, _, period, size) in LOGS {
        tasks.spawn(publish(load, name, Duration::from_millis(period), size));
        for _ in 0..2 {
            tasks.spawn(come_and_go(load, name, random.fork()));
        }
        tasks.spawn(read_slowly(load, name));
        if name != "memory" {
            tasks.spawn(resume(load, name, random.fork()));
        }
        tasks.spawn(leaf_through(load, name, random.fork()));
    }
}

/// The data of the publication that will have this sequence.
fn numbered(sequence: u64, size: usize) -> Vec<u8> {
    let mut data = sequence.to_be_bytes().to_vec();
    data.resize(size, sequence as u8);
    data
}

fn check(publication: &Fields) {
    let (sequence, data) = (publication.number("sequence"), publication.bytes("data"));
    let (number, rest) = data.split_at(8);
    assert_eq!(number, sequence.to_be_bytes());
    assert!(
        rest.iter().all(|byte| *byte == sequence as u8),
        "{sequence} has other data"
    );
}

async fn publish(load: Load, name: &str, period: Duration, size: usize) {
    const CONNECTION: u64 = 500;
    let (mut client, mut beat) = (Client::connect(load.address).await, every(period));
    let mut sequence = 0;
    while load.is_published() {
        beat.tick().await;
        sequence += 1;
        let id = |sequence| (name == "ids").then(|| Uuid::from_u64_pair(1, sequence));
        let data = numbered(sequence, size);
        let fields = |id: Option<Uuid>| {
            fields! { "subscription_id": name, "submission": &data[..], "publication_id": id }
        };
        let submitted = client.call("SubmitPublication", fields(id(sequence))).await;
        assert_eq!(submitted.number("sequence"), sequence);
        assert!(!submitted.truth("duplicate"));
        if name == "ids" && sequence > 10 && sequence % 10 == 0 {
            let again = client
                .call("SubmitPublication", fields(id(sequence - 9)))
                .await;
            assert!(again.truth("duplicate"));
            assert_eq!(again.number("sequence"), sequence - 9);
        }
        if sequence % CONNECTION == 0 {
            client.close().await;
            client = Client::connect(load.address).await;
        }
    }
}

/// The next publication behind `position`; what retention took in front of it is told.
async fn next(client: &mut Client, mut position: u64) -> u64 {
    loop {
        let response = client.next().await;
        if response.name == "Gap" {
            assert_eq!(response.number("from"), position + 1);
            assert_eq!(response.text("cause"), "retention");
            position = response.number("to");
            continue;
        }
        let publication = response.expect("Publication");
        assert_eq!(publication.number("sequence"), position + 1);
        check(&publication);
        return position + 1;
    }
}

async fn come_and_go(load: Load, name: &str, mut random: Rng) {
    while load.goes_on() {
        let mut client = Client::connect(load.address).await;
        let subscribed = match random.u8(..3) {
            0 => client.subscribe(name, "First").await,
            1 => client.subscribe(name, "New").await,
            _ => client.subscribe(name, fields! { "Last": 20 }).await,
        };
        let mut position = subscribed.number("cursor");
        for _ in 0..random.u32(20..150) {
            if !load.goes_on() {
                break;
            }
            position = next(&mut client, position).await;
        }
        if random.bool() {
            client
                .call("Unsubscribe", fields! { "subscription_id": name })
                .await;
            client.close().await;
        }
    }
}

/// Takes less than comes, and never ends.
async fn read_slowly(load: Load, name: &str) {
    let mut client = Client::with_small_window(load.address).await;
    let mut position = client.subscribe(name, "First").await.number("cursor");
    let mut beat = every(Duration::from_millis(150));
    while load.goes_on() {
        beat.tick().await;
        position = next(&mut client, position).await;
    }
}

/// A durable session that goes on behind what it acknowledged.
async fn resume(load: Load, name: &str, mut random: Rng) {
    let session = Uuid::new_v4();
    let mut client = Client::resume(load.address, session).await;
    let mut position = client.subscribe(name, "First").await.number("cursor");
    while load.goes_on() {
        for _ in 0..random.u32(5..60) {
            position = next(&mut client, position).await;
        }
        let fields = fields! { "subscription_id": name, "sequence": position };
        client.call("Acknowledge", fields).await;
        if random.bool() {
            client.close().await;
        } else {
            drop(client);
        }
        client = Client::resume(load.address, session).await;
        let restored = client.welcome.maps("subscriptions");
        assert_eq!(restored.len(), 1);
        let cursor = restored[0].number("cursor");
        // A cursor never lies in front of what is kept; what is missing is told as a gap then.
        assert_eq!(cursor, position, "{restored:?}");
    }
    client
        .call("Unsubscribe", fields! { "subscription_id": name })
        .await;
}

/// Reads pages from somewhere in the log.
async fn leaf_through(load: Load, name: &str, mut random: Rng) {
    let (mut client, mut beat) = (
        Client::connect(load.address).await,
        every(Duration::from_millis(250)),
    );
    while load.goes_on() {
        beat.tick().await;
        let meta = client.meta(name).await;
        let (first, last) = (meta.number("first_sequence"), meta.number("last_sequence"));
        let after = random.u64(first - 1..=last);
        let fields = || fields! { "log_id": name, "after": after, "limit": 30 };
        let page = client.call("GetLogEntries", fields()).await;
        let mut sequence = None;
        for publication in page.maps("publications") {
            check(&publication);
            let number = publication.number("sequence");
            assert!(sequence.is_none_or(|before| number == before + 1));
            sequence = Some(number);
        }
        let index = client.call("GetLogIndex", fields()).await;
        assert!(index.uuids("entries").len() <= 30);
    }
}
