//! The rounds.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    disk::{Cache, Disk},
    mounts::{Mounted, run as run_command},
};
use crate::{
    crash_support::{
        inspect::{Ended, There},
        ledger::Ledger,
        load::Load,
        number_from, seed,
        subscriptions::{SMALL_JOURNALS, create_all},
    },
    support::Process,
};

const ROUNDS: u64 = 6;
/// After so many rounds a disk with nothing on it is next: each cut is read whole.
const LIFE: u64 = 10;
/// Cuts of a round besides its last, from which the next round goes on.
const CUTS: u64 = 2;
const IMAGE: u64 = 256 << 20;
/// What was told longer ago than this survives even where it is not Synced. It is synced within a second; but nobody knows how long this
/// machine lets anybody wait.
const SYNCED_WITHIN: Duration = Duration::from_secs(10);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A disk after a power cut, and what had been told by then.
struct Cut {
    image: PathBuf,
    told: Ledger,
    at: Instant,
}

/// What a run came across.
#[derive(Default, Debug)]
struct Seen {
    rounds: u64,
    answers: u64,
    cuts: u64,
    /// Units of 4,096 bytes that were in the disk's cache at a cut, and those that it lost.
    cached: usize,
    lost: usize,
}

/// Boots, as the program is told of them.
struct Boots {
    id: PathBuf,
    _mounted: Mounted,
}

impl Boots {
    fn begin(dir: &Path) -> Result<Self, String> {
        let id = dir.join("boot_id");
        fs::write(&id, format!("{}\n", Uuid::new_v4())).unwrap();
        let mounted = Mounted::in_front_of(&id, Path::new(BOOT_ID))?;
        Ok(Self {
            id,
            _mounted: mounted,
        })
    }

    /// The next boot. No server may run, since one asks for the boot now and then.
    fn next(&self) {
        fs::write(&self.id, format!("{}\n", Uuid::new_v4())).unwrap();
    }
}

/// A server on a disk of ours.
struct Machine {
    // In the order in which they end.
    server: Process,
    _mounted: Mounted,
    disk: Disk,
}

impl Machine {
    fn start(image: &Path, dir: &Path) -> Result<Self, String> {
        fs::create_dir_all(dir).unwrap();
        let disk = Disk::of(image, dir)?;
        let point = dir.join("mounted");
        let mounted = Mounted::ext4(disk.path(), &point)?;
        Ok(Self {
            server: server_on(&point),
            _mounted: mounted,
            disk,
        })
    }
}

fn server_on(point: &Path) -> Process {
    let data_dir = point.join("data");
    let mut variables = SMALL_JOURNALS.to_vec();
    variables.push(("DATA_DIR", data_dir.to_str().unwrap()));
    Process::start(&variables)
}

/// Everything, where the namespaces are the test's own.
pub(crate) fn run() {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = dir.path().join("image-0");
    let prepared = make(&image)
        .and_then(|()| try_out(&image, dir.path()))
        .and_then(|()| Boots::begin(dir.path()));
    let boots = match prepared {
        Ok(boots) => boots,
        Err(why) => return println!("left out: nothing can be mounted: {why}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut random = fastrand::Rng::with_seed(seed());
    let (began, mut seen) = (Instant::now(), Seen::default());
    let mut left = number_from("INFOTAINER_TEST_ROUNDS", ROUNDS);
    while left > 0 {
        make(&image).unwrap();
        let rounds = left.min(LIFE);
        let life = live(
            rounds,
            dir.path(),
            image.clone(),
            &boots,
            &mut seen,
            &mut random,
        );
        runtime.block_on(life);
        left -= rounds;
    }
    println!("{seen:?} in {:?}", began.elapsed());
}

fn make(image: &Path) -> Result<(), String> {
    File::create(image).unwrap().set_len(IMAGE).unwrap();
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-F", "-E"]);
    make.arg("lazy_itable_init=0,lazy_journal_init=0,nodiscard");
    run_command(make.arg(image))
}

/// Whether such a disk can be had here at all.
fn try_out(image: &Path, dir: &Path) -> Result<(), String> {
    let disk = Disk::of(image, dir)?;
    Mounted::ext4(disk.path(), &dir.join("tried")).map(drop)
}

/// One disk, with so many rounds on it.
async fn live(
    rounds: u64,
    dir: &Path,
    mut image: PathBuf,
    boots: &Boots,
    seen: &mut Seen,
    random: &mut fastrand::Rng,
) {
    let mut before: Option<Cut> = None;
    for round in 0..rounds {
        let dir = dir.join(format!("round-{}", seen.rounds));
        boots.next();
        let mut machine = Machine::start(&image, &dir).unwrap();
        let ledger = match before.take() {
            Some(cut) => {
                let there = whole(&machine.server, &cut, "the last of a round").await;
                let mut ledger = cut.told;
                there.absorb(&mut ledger, random).await;
                ledger
            }
            None => create_all(&machine.server).await,
        };
        let (cuts, last) = cut_under_load(&mut machine, &dir, ledger, round, seen, random).await;
        drop(machine);
        for (number, cut) in cuts.into_iter().enumerate() {
            check(&cut, &dir, boots, &format!("cut {number} of round {round}")).await;
            fs::remove_file(cut.image).unwrap();
        }
        fs::remove_file(&image).unwrap();
        image.clone_from(&last.image);
        before = Some(last);
        seen.rounds += 1;
    }
    if let Some(cut) = before {
        check(&cut, dir, boots, "the last cut").await;
        fs::remove_file(cut.image).unwrap();
    }
}

/// Loads a server, cuts the power under it now and then, and at last for good: sometimes after a kill, or while it starts after one.
async fn cut_under_load(
    machine: &mut Machine,
    dir: &Path,
    ledger: Ledger,
    round: u64,
    seen: &mut Seen,
    random: &mut fastrand::Rng,
) -> (Vec<Cut>, Cut) {
    let mut load = Load::on(&machine.server, ledger, 2 * round, random).await;
    let mut cuts = Vec::new();
    let cut = |machine: &Machine, told: Ledger, seen: &mut Seen, random: &mut fastrand::Rng| {
        let image = dir.join(format!("image-{}", seen.cuts + 1));
        let cache = random
            .choice([Cache::Lost, Cache::Written, Cache::Some])
            .unwrap();
        // Nobody is told of anything between the copy of the ledger and this: what tells is on this thread.
        let (cached, lost) = machine.disk.cut(&image, cache, random);
        seen.cuts += 1;
        seen.cached += cached;
        seen.lost += lost;
        Cut {
            image,
            told,
            at: Instant::now(),
        }
    };
    for _ in 0..CUTS {
        load.goes_on(random).await;
        cuts.push(cut(machine, load.shared.copy(), seen, random));
    }
    load.goes_on(random).await;
    let way = random.u8(..4);
    if way == 0 {
        let last = cut(machine, load.shared.copy(), seen, random);
        machine.server.kill();
        seen.answers += load.shared.answered();
        load.over().await;
        return (cuts, last);
    }
    machine.server.kill();
    seen.answers += load.shared.answered();
    let mut told = load.over().await;
    match way {
        1 => {}
        2 => {
            let time = Duration::from_millis(random.u64(..200));
            machine.server.start_for(time).await;
        }
        _ => {
            machine.server.start_again();
            load = Load::on(&machine.server, told, 2 * round + 1, random).await;
            load.goes_on(random).await;
            machine.server.kill();
            seen.answers += load.shared.answered();
            told = load.over().await;
        }
    }
    let last = cut(machine, told, seen, random);
    (cuts, last)
}

/// Starts a server in another boot on what a cut left, and holds what it has against what was told.
async fn check(cut: &Cut, dir: &Path, boots: &Boots, which: &str) {
    boots.next();
    let point = dir.join("checked");
    let mounted = Mounted::ext4(&cut.image, &point).unwrap();
    let server = server_on(&point);
    whole(&server, cut, which).await;
    drop(server);
    drop(mounted);
}

async fn whole(server: &Process, cut: &Cut, which: &str) -> There {
    let there = There::on(server, &cut.told).await;
    let may_lack_since = cut.at - SYNCED_WITHIN;
    let mut wrong = there.check(&cut.told, Ended::Cut { may_lack_since });
    // A torn end is none: what is called damage was on the disk once.
    let damage = server.said();
    let damage = damage.lines().filter(|line| line.contains("damage"));
    wrong.extend(damage.map(str::to_owned));
    assert!(wrong.is_empty(), "{which}:\n{}", wrong.join("\n"));
    there
}
