//! A full disk, and the real program on it: what is refused, what goes on, and that everything goes on when there is room again.
//!
//! Each test has a small file system of its own, once tmpfs and once ext4; where none can be mounted, it says so and is left out.
//! Seeds are printed: `INFOTAINER_TEST_SEED` repeats a run as far as timing lets it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "figures and the seed have to be known")]

#[path = "../support/mod.rs"]
#[macro_use]
mod support;

mod coming_and_going;
mod filling;
mod reserve;
mod room_again;
mod starting;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use support::{Client, Event, Process, eventually, on_small_disks};

/// Large enough for a server that does its work (three journals of 32 MiB, and 8 MiB in reserve) and a little more.
const DISK: u64 = 192;

/// Submissions that a publisher has under way at once.
const WINDOW: usize = 16;

/// The program, with its data on a small disk.
struct Small {
    server: Process,
    disk: PathBuf,
}

/// Runs `test`, which is all of `this_test`, on small disks.
fn on_disks<T: Future<Output = ()>>(this_test: &str, test: impl Fn(Small) -> T) {
    on_small_disks(this_test, DISK, |disk| {
        let small = Small {
            server: start(disk),
            disk: disk.to_owned(),
        };
        run(async {
            let reserve = small.server.data_dir().join("reserve");
            eventually("the reserve is made", async || reserve.exists()).await;
            test(small).await;
        });
    });
}

fn start(disk: &Path) -> Process {
    let data = disk.join("data");
    // Some clients hear nothing for as long as a disk takes to be filled.
    Process::start(&[
        ("DATA_DIR", data.to_str().unwrap()),
        ("HEARTBEAT_TIMEOUT", "1h"),
    ])
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(test);
}

/// The data of a submission, which tells whose it is: `name` is not used twice.
fn data(name: &str, size: usize) -> Vec<u8> {
    let mut data = name.as_bytes().to_vec();
    data.resize(size.max(data.len()), b'.');
    data
}

/// What was answered of the submissions to one subscription, by sequence.
type Answered = BTreeMap<u64, Vec<u8>>;

/// Everything that was answered `Submitted`, by subscription.
#[derive(Default)]
struct Ledger(HashMap<String, Answered>);

impl Ledger {
    fn add(&mut self, subscription: &str, answered: Answered) {
        if answered.is_empty() {
            return; // it may not even have been made
        }
        let known = self.0.entry(subscription.to_owned()).or_default();
        for (sequence, data) in answered {
            let before = known.insert(sequence, data);
            assert_eq!(before, None, "{subscription} {sequence} was given twice");
        }
    }

    /// The logs hold this and nothing else: what was refused is not there.
    async fn check(&self, client: &mut Client) {
        self.check_kept(client).await;
        for (name, answered) in &self.0 {
            let last = client.meta(&name[..]).await.number("last_sequence");
            assert_eq!(last, answered.len() as u64, "{name}");
        }
    }

    /// The logs hold this. There may be more that was under way at the end.
    async fn check_kept(&self, client: &mut Client) {
        for (name, answered) in &self.0 {
            let log = client.log(name).await;
            for (publication, sequence) in log.iter().zip(1..) {
                assert_eq!(publication.number("sequence"), sequence, "{name}");
            }
            for (sequence, data) in answered {
                let there = log.get(*sequence as usize - 1);
                let there = there.unwrap_or_else(|| panic!("{name} {sequence} is lost"));
                assert_eq!(there.bytes("data"), data, "{name} {sequence}");
            }
        }
    }
}

/// Submits, `WINDOW` at once, until so many in a row were refused with `log-full`, or the connection ends; what else was answered.
async fn fill(
    client: Client,
    subscription: String,
    name: String,
    sizes: &'static [usize],
) -> Answered {
    submit(client, subscription, name, sizes, usize::MAX).await
}

/// The same, `most` publications at most.
async fn submit(
    mut client: Client,
    subscription: String,
    name: String,
    sizes: &'static [usize],
    most: usize,
) -> Answered {
    const REFUSED: usize = 2 * WINDOW;
    let (mut answered, mut under_way) = (Answered::new(), HashMap::new());
    let (mut sent, mut refused) = (0, 0);
    loop {
        while sent < most && refused < REFUSED && under_way.len() < WINDOW {
            let data = data(&format!("{name}:{sent}:"), sizes[sent % sizes.len()]);
            let fields = fields! { "subscription_id": &subscription[..], "submission": &data[..] };
            let Some(request) = client.try_request("SubmitPublication", fields).await else {
                return answered;
            };
            under_way.insert(request, data);
            sent += 1;
        }
        if under_way.is_empty() {
            return answered;
        }
        let Event::Response(response) = client.event().await else {
            return answered;
        };
        let data = under_way.remove(&response.id.unwrap()).unwrap();
        if response.name == "Error" {
            assert!(response.truth("temporary"), "{response:?}");
            response.expect_error("log-full");
            refused += 1;
        } else {
            answered.insert(response.expect("Submitted").number("sequence"), data);
            refused = 0;
        }
    }
}

/// Fills the log with publications of this subscription, large ones and then small ones, until nothing more is taken.
async fn fill_with(small: &Small, subscription: &str) -> Ledger {
    let mut ledger = Ledger::default();
    for (name, sizes) in [("large", &[200_000]), ("small", &[2_000]), ("tiny", &[1])] {
        let client = small.server.client().await;
        let answered = fill(client, subscription.into(), name.into(), sizes).await;
        ledger.add(subscription, answered);
    }
    ledger
}

/// Whether a publication of a few bytes is taken now.
async fn takes_more(client: &mut Client) -> bool {
    let fields = fields! { "subscription_id": "probe", "submission": b"a few bytes" };
    let response = client.ask("SubmitPublication", fields).await;
    if response.name == "Error" {
        response.expect_error("log-full");
        return false;
    }
    response.expect("Submitted");
    true
}
