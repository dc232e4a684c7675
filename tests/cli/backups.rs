//! `infotainer backup` and `restore`, and `verify` of a backup.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{self, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use assert_cmd::{Command, cargo::cargo_bin};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::{JoinHandle, spawn_blocking};
use uuid::Uuid;

use crate::{
    infotainer, output, printed, said, sentence,
    support::{Client, Fields, FileSystem, Process, eventually, on_small_disk},
};

/// So that some journals are sealed.
const SMALL_JOURNALS: (&str, &str) = ("JOURNAL_SIZE", "512KiB");

fn arguments<'a>(command: &'a str, file: &'a Path, dir: &'a Path) -> [&'a str; 4] {
    let dir = dir.to_str().unwrap();
    [command, file.to_str().unwrap(), "--data-dir", dir]
}

fn backup(dir: &Path, file: &Path) -> Output {
    infotainer(&arguments("backup", file, dir), &[])
}

fn restore(file: &Path, dir: &Path) -> Output {
    infotainer(&arguments("restore", file, dir), &[])
}

fn verify(path: &Path) -> Output {
    infotainer(&["verify", path.to_str().unwrap()], &[])
}

#[track_caller]
fn succeeded(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    assert_eq!(said(output), "");
}

/// A server on a restored directory.
fn serve(dir: &Path) -> Process {
    let dir = dir.to_str().unwrap();
    Process::start(&[SMALL_JOURNALS, ("DATA_DIR", dir)])
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn data(name: &str, number: u64) -> Vec<u8> {
    let mut data = format!("{name} {number}").into_bytes();
    data.resize(4096, b'.');
    data
}

fn id(number: u64) -> Uuid {
    Uuid::from_u64_pair(7, number)
}

/// Publishes a batch to a subscription: the publications behind `last`, with ids of its own.
async fn publish(client: &mut Client, name: &str, last: u64, count: u64) {
    let mut requests = Vec::new();
    for number in last + 1..=last + count {
        let fields = fields! {
            "subscription_id": name,
            "submission": data(name, number),
            "publication_id": id(number)
        };
        requests.push(client.request("SubmitPublication", fields).await);
    }
    for (request, number) in requests.into_iter().zip(last + 1..) {
        let submitted = client.answer(request).await.expect("Submitted");
        assert_eq!(submitted.number("sequence"), number);
    }
}

const NAMES: [&str; 3] = ["news", "jobs", "short"];

/// Publishes until it is told to stop; how much of each subscription was acknowledged.
struct Load {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Load {
    fn start(mut client: Client) -> Self {
        let (acknowledged, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counted, stopped) = (acknowledged.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut last = 0;
            while !stopped.load(Ordering::SeqCst) {
                for name in NAMES {
                    publish(&mut client, name, last, 8).await;
                }
                last += 8;
                counted.store(last, Ordering::SeqCst);
                for command in ["CreateSubscription", "DeleteSubscription"] {
                    let fields = fields! { "subscription_id": "comes and goes" };
                    client.call(command, fields).await;
                }
            }
            client.close().await;
        });
        Self {
            acknowledged,
            stop,
            task,
        }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn backup_of_a_server_at_work_holds_everything_that_was_acknowledged_before() {
    let server = Process::start(&[SMALL_JOURNALS]);
    let dir = server.data_dir();
    let mut client = server.client().await;
    let settings = fields! { "retention": fields! { "max_publications": 50 } };
    let fields = fields! { "subscription_id": "short", "settings": settings };
    client.call("CreateSubscription", fields).await;
    let fields = fields! { "subscription_id": "jobs", "kind": "Queue" };
    client.call("CreateSubscription", fields).await;
    client.publish("deleted", "x".as_bytes()).await;
    let fields = fields! { "subscription_id": "deleted" };
    client.call("DeleteSubscription", fields).await;

    let load = Load::start(server.client().await);
    eventually("a megabyte of each is published", async || {
        load.acknowledged() >= 256
    })
    .await;
    eventually("retention acts", async || {
        client.meta("short").await.number("first_sequence") > 1
    })
    .await;
    let session = Uuid::new_v4();
    let mut reader = server.resume(session).await;
    reader.subscribe("news", "First").await;
    reader.publications(1..=20).await;
    let fields = fields! { "subscription_id": "news", "sequence": 10 };
    reader.call("Acknowledge", fields).await;
    let mut worker = server.client().await;
    let fields = fields! { "subscription_id": "jobs", "prefetch": 8 };
    worker.call("Subscribe", fields).await;
    let mut leased = Vec::new();
    for sequence in 1..=8 {
        leased.push(worker.publication(sequence).await.uuid("publication_id"));
    }
    let fields = fields! { "subscription_id": "jobs", "publication_ids": leased[..5].to_vec() };
    worker.call("Acknowledge", fields).await;

    let before = load.acknowledged();
    let elsewhere = TempDir::new().unwrap();
    let file = elsewhere.path().join("backup.tar");
    let output = {
        let (dir, file) = (dir.clone(), file.clone());
        spawn_blocking(move || backup(&dir, &file)).await.unwrap()
    };
    succeeded(&output);
    let summary = format!("{}: ", file.display());
    assert!(printed(&output).starts_with(&summary), "{output:?}");
    assert!(!dir.join("backup.tmp").exists());
    load.stop().await;
    let mut epochs = BTreeMap::new();
    for name in NAMES {
        epochs.insert(name, client.meta(name).await.uuid("epoch"));
    }
    drop(server);

    succeeded(&verify(&file));
    let restored = elsewhere.path().join("restored");
    succeeded(&restore(&file, &restored));
    assert!(names_in(&restored).contains(&"format".to_owned()));
    assert!(!names_in(&restored).contains(&"restore.tmp".to_owned()));
    succeeded(&verify(&restored));
    let server = serve(&restored);
    let mut client = server.client().await;
    for name in NAMES {
        let meta = client.meta(name).await;
        assert_ne!(meta.uuid("epoch"), epochs[name]);
        let last = meta.number("last_sequence");
        assert!(last >= before, "{name} ends with {last}, not {before}");
        let log = client.log(name).await;
        let numbers: Vec<_> = log.iter().map(|it| it.number("sequence")).collect();
        // Retention goes on there, too.
        let is_short = name == "short";
        let first = numbers[0];
        assert!(is_short || first == 1, "{name} begins with {first}");
        assert_eq!(numbers, (first..=last).collect::<Vec<_>>());
        for publication in log {
            let number = publication.number("sequence");
            assert_eq!(publication.bytes("data"), data(name, number));
            assert_eq!(publication.uuid("publication_id"), id(number));
        }
        // What a client supplied is known again, sealed or not.
        for number in [if is_short { last } else { first }, last] {
            let fields = fields! { "subscription_id": name, "submission": b"x", "publication_id": id(number) };
            let again = client.call("SubmitPublication", fields).await;
            assert!(again.truth("duplicate"));
            assert_eq!(again.number("sequence"), number);
        }
    }
    let fields = fields! { "subscription_id": "deleted" };
    client.fail("not-found", "GetSubscription", fields).await;
    // The queue goes on where it was: five are settled, and what was on its way comes for the second time.
    let meta = client.meta("jobs").await;
    let left = meta.number("pending") + meta.number("in_flight");
    assert_eq!(left, meta.number("last_sequence") - 5);
    let fields = fields! { "subscription_id": "jobs", "prefetch": 8 };
    client.call("Subscribe", fields).await;
    for sequence in 6..=8 {
        let publication = client.publication(sequence).await;
        assert_eq!(publication.number("delivery"), 2);
    }
    // The session is told that its place was in another life of the log.
    let mut reader = server.resume(session).await;
    assert!(reader.welcome.truth("resumed"));
    let held = &reader.welcome.maps("subscriptions")[0];
    assert!(!held.truth("recovered"));
    assert_ne!(held.uuid("epoch"), epochs["news"]);
    reader.publications(1..=20).await;
}

/// Everything that is served: of each subscription what it says of itself, but for its epoch, and its log.
async fn served(server: &Process) -> Vec<(Fields, Vec<Fields>)> {
    let mut client = server.client().await;
    let list = client.call("ListSubscriptions", fields! {}).await;
    let mut all = Vec::new();
    for meta in list.maps("subscriptions") {
        let name = meta.map("settings").text("name").to_owned();
        all.push((meta, client.log(&name).await));
    }
    client.close().await;
    all
}

/// A directory with sealed and unsealed publications, after an orderly end, and what was served of it.
async fn at_rest() -> (Process, Vec<(Fields, Vec<Fields>)>) {
    let mut server = Process::start(&[SMALL_JOURNALS]);
    let mut client = server.client().await;
    let fields = fields! { "subscription_id": "jobs", "kind": "Queue" };
    client.call("CreateSubscription", fields).await;
    for name in NAMES {
        publish(&mut client, name, 0, 150).await;
    }
    client.close().await;
    let all = served(&server).await;
    server.signal("-TERM");
    assert!(server.exited().await.success());
    (server, all)
}

#[tokio::test]
async fn backup_of_a_directory_at_rest_restores_all_that_was_served() {
    let (mut server, all) = at_rest().await;
    assert_eq!(all.len(), NAMES.len());
    let dir = server.data_dir();
    let elsewhere = TempDir::new().unwrap();
    let before = names_in(&dir);
    // Through a pipe, to be compressed.
    let piped = backup(&dir, Path::new("-"));
    assert_eq!(piped.status.code(), Some(0), "{}", said(&piped));
    assert_eq!(names_in(&dir), before);
    let mut command = Command::cargo_bin("infotainer").unwrap();
    command.write_stdin(piped.stdout.clone());
    succeeded(&output(command, &["verify", "-"], &[]));
    let restored = elsewhere.path().join("restored");
    let mut command = Command::cargo_bin("infotainer").unwrap();
    command.write_stdin(piped.stdout);
    let output = output(
        command,
        &arguments("restore", Path::new("-"), &restored),
        &[],
    );
    succeeded(&output);
    let told = printed(&output);
    assert!(
        told.contains(": 3 subscriptions with 450 publications, as of 2"),
        "{told}"
    );

    server.start_again();
    let copy = serve(&restored);
    let (mut original, copied) = (served(&server).await, served(&copy).await);
    assert_eq!(original.len(), copied.len());
    for ((before, log), (after, copied)) in original.drain(..).zip(&copied) {
        for name in before.names() {
            let is_same = before.value(name) == after.value(name);
            assert_eq!(is_same, name != "epoch", "{name}: {before:?}, {after:?}");
        }
        assert!(log == *copied);
    }
    assert_eq!(copied.len(), all.len());
}

#[tokio::test]
async fn damaged_or_cut_backup_is_found_and_restores_nothing() {
    let (server, _) = at_rest().await;
    let elsewhere = TempDir::new().unwrap();
    let file = elsewhere.path().join("backup.tar");
    succeeded(&backup(&server.data_dir(), &file));
    let whole = fs::read(&file).unwrap();
    let restored = elsewhere.path().join("restored");
    let damaged = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).unwrap();
        for output in [verify(&file), restore(&file, &restored)] {
            let said = sentence(&output, 1);
            assert!(said.contains("the backup is damaged: "), "{what}: {said}");
        }
        assert_eq!(names_in(&restored), Vec::<String>::new());
    };
    for cut in [whole.len() / 4, whole.len() * 3 / 4, whole.len() - 2000] {
        damaged(&whole[..cut], "cut");
    }
    for at in [whole.len() / 4, whole.len() * 3 / 4] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        damaged(&bytes, "flipped");
    }
    for bytes in [&b""[..], b"hello", &whole[600..]] {
        fs::write(&file, bytes).unwrap();
        let said = sentence(&verify(&file), 1);
        assert!(
            said.starts_with("this is no backup of infotainer: "),
            "{said}"
        );
    }
    fs::write(&file, &whole).unwrap();
    succeeded(&restore(&file, &restored));
}

#[tokio::test]
async fn nothing_is_replaced_that_nobody_said_is_to_be() {
    let (server, _) = at_rest().await;
    let dir = server.data_dir();
    let elsewhere = TempDir::new().unwrap();
    let file = elsewhere.path().join("backup.tar");
    fs::write(&file, "mine").unwrap();
    let said = sentence(&backup(&dir, &file), 2);
    let expected = format!(
        "{} exists, and is only replaced with --force",
        file.display()
    );
    assert_eq!(said, expected);
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    let mut forced = arguments("backup", &file, &dir).to_vec();
    forced.push("--force");
    succeeded(&infotainer(&forced, &[]));
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let said = sentence(&restore(&file, &dir), 2);
    assert!(
        said.ends_with("is not empty, and what is there is not touched"),
        "{said}"
    );
    succeeded(&verify(&dir));
    let said = sentence(
        &backup(&elsewhere.path().join("none"), &elsewhere.path().join("b")),
        1,
    );
    assert!(said.ends_with("none is no data directory"), "{said}");
    assert_eq!(names_in(elsewhere.path()), ["backup.tar"]);
    assert_eq!(infotainer(&["backup"], &[]).status.code(), Some(2));
    assert_eq!(infotainer(&["restore"], &[]).status.code(), Some(2));
}

/// Whoever has asked a server to hold still, and reads nothing.
struct Held(BufReader<UnixStream>);

impl Held {
    fn ask(server: &Process) -> Self {
        let mut stream = UnixStream::connect(server.data_dir().join("control.sock")).unwrap();
        stream.write_all(b"\"backup\"\n").unwrap();
        let mut held = Self(BufReader::new(stream));
        assert!(held.line().unwrap()["frozen"]["store"].is_string());
        held
    }

    /// What the server says next. None: it has closed.
    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).ok()
    }
}

#[tokio::test]
async fn server_makes_one_backup_at_a_time_and_lets_go_of_what_nobody_wants_any_more() {
    let server = Process::start(&[SMALL_JOURNALS]);
    let mut client = server.client().await;
    publish(&mut client, "news", 0, 300).await;
    let elsewhere = TempDir::new().unwrap();
    let file = elsewhere.path().join("backup.tar");
    let held = Held::ask(&server);
    let links = server.data_dir().join("backup.tmp");
    assert!(links.join("state/log").exists());
    let said = sentence(&backup(&server.data_dir(), &file), 4);
    assert_eq!(said, "the server has another backup made from it just now");
    assert_eq!(names_in(elsewhere.path()), Vec::<String>::new());
    publish(&mut client, "news", 300, 300).await;
    drop(held);
    eventually("it lets go", async || !links.exists()).await;
    succeeded(&backup(&server.data_dir(), &file));
    succeeded(&verify(&file));
    // What is no request for a backup is told so.
    let mut stream = UnixStream::connect(server.data_dir().join("control.sock")).unwrap();
    stream.write_all(b"\"thawed\"\n").unwrap();
    let refused = Held(BufReader::new(stream)).line().unwrap();
    assert!(refused["refused"].is_string(), "{refused}");
}

#[tokio::test]
async fn server_that_is_killed_while_a_backup_is_made_leaves_nothing_that_a_start_trips_over() {
    let mut server = Process::start(&[SMALL_JOURNALS]);
    let mut client = server.client().await;
    publish(&mut client, "news", 0, 300).await;
    let mut held = Held::ask(&server);
    publish(&mut client, "news", 300, 300).await;
    server.kill();
    assert_eq!(held.line(), None);
    assert!(names_in(&server.data_dir()).contains(&"backup.tmp".to_owned()));
    let elsewhere = TempDir::new().unwrap();
    let file = elsewhere.path().join("backup.tar");
    // The socket is nobody's, and so the directory is.
    succeeded(&backup(&server.data_dir(), &file));
    server.start_again();
    assert!(!names_in(&server.data_dir()).contains(&"backup.tmp".to_owned()));
    let mut client = server.client().await;
    assert_eq!(client.log("news").await.len(), 600);
    succeeded(&{
        let mut args = arguments("backup", &file, Path::new("")).to_vec();
        let dir = server.data_dir();
        args[3] = dir.to_str().unwrap();
        args.push("--force");
        infotainer(&args, &[])
    });
}

#[tokio::test]
async fn server_that_stops_while_a_backup_is_made_says_so_and_stops() {
    let mut server = Process::start(&[SMALL_JOURNALS]);
    let mut client = server.client().await;
    publish(&mut client, "news", 0, 300).await;
    client.close().await;
    let mut held = Held::ask(&server);
    server.signal("-TERM");
    assert_eq!(held.line().unwrap()["failed"], "the server stops");
    assert!(server.exited().await.success());
    let left = names_in(&server.data_dir());
    assert!(
        left.iter()
            .all(|name| !name.starts_with("backup") && !name.starts_with("control")),
        "{left:?}"
    );
}

#[tokio::test]
async fn backup_is_made_for_nobody_but_the_owner() {
    const NOBODY: u32 = 65534;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("left out: only root can be somebody else");
        return;
    }
    let server = Process::start(&[]);
    let dir = server.data_dir();
    // Everybody may reach what is only the owner's.
    let open =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(dir.parent().unwrap(), 0o755);
    open(&dir, 0o755);
    let elsewhere = TempDir::new().unwrap();
    open(elsewhere.path(), 0o777);
    let program = elsewhere.path().join("infotainer");
    fs::copy(cargo_bin("infotainer"), &program).unwrap();
    let file = elsewhere.path().join("backup.tar");
    let ask = || {
        let mut command = process::Command::new(&program);
        command.args(arguments("backup", &file, &dir));
        command.uid(NOBODY).gid(NOBODY).output().unwrap()
    };
    let said = sentence(&ask(), 4);
    assert!(
        said.ends_with("control.sock can only be opened by its owner and root"),
        "{said}"
    );
    open(&dir.join("control.sock"), 0o666);
    let said = sentence(&ask(), 4);
    assert_eq!(
        said,
        "the server makes backups for its own user and for root only"
    );
    assert_eq!(names_in(elsewhere.path()), ["infotainer"]);
}

#[test]
fn full_disk_leaves_neither_half_a_backup_nor_half_a_directory() {
    on_small_disk(this_test!(), FileSystem::Tmpfs, 1, |disk| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (server, _) = runtime.block_on(at_rest());
        let dir = server.data_dir();
        let on_disk = disk.join("backup.tar");
        let said = sentence(&backup(&dir, &on_disk), 1);
        assert!(said.contains("No space left"), "{said}");
        assert_eq!(names_in(disk), Vec::<String>::new());
        let elsewhere = TempDir::new().unwrap();
        let file: PathBuf = elsewhere.path().join("backup.tar");
        succeeded(&backup(&dir, &file));
        let restored = disk.join("restored");
        let said = sentence(&restore(&file, &restored), 1);
        assert!(said.contains("No space left"), "{said}");
        assert_eq!(names_in(&restored), Vec::<String>::new());
    });
}
