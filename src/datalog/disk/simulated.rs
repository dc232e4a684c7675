//! A disk under the data log of a test, which forgets, tears, refuses and runs full.
//!
//! Real files are what the system shows: its page cache. Beside them, the disk remembers of each file what is durable and the writes
//! that are not, in order, and of the names the same. It is found by the directory that the data log lives in, so that many run
//! in one process.
//!
//! ```text
//!             every call of the data log ──judged: done, refused, or the end──> files (what the system shows)
//!                                            │
//!   write, set_len ─> not durable ──sync of the file──> durable content
//!   create, rename, remove, link ─> not durable ──sync of every directory that it touches──> durable names
//! ```
//!
//! * *The process is killed*: what was issued stays, durable or not.
//! * *The power is cut*: durable content and names stay; of the rest any part, in any order, content torn at 512 bytes. A rename is
//!   there whole or not at all, and so is every other change of names; of two that touch the same name, the second needs the
//!   first. That a sync of a file also made its name durable, as ext4 does, is nothing to rely on, nor is the order of changes of different names.
//! * *A sync fails*: of what was not durable any part reached the disk, the rest never will, though the system goes on showing it;
//!   the failure is told once to each handle that was open.
//! * *The disk is full*: a write is done as far as there is room.
//!
//! sled does its own I/O. Its directory is one thing here, of which the disk remembers how it was whenever the data log synced its file.
//! After a power cut it is as it was then, as it is now, or mixed of both. With [`Disk::forget_catalogue`] it is as it was at any
//! earlier sync, or gone: nothing that was acknowledged depends on it.
//!
//! Megabytes of the reserve, and of what only tries whether there is room, count as kibibytes, so that they are to the small journals
//! of a test what they are to real ones.

mod content;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, RwLock, Weak},
};

use parking_lot::Mutex;

use super::How;
use content::{Content, Write, is_zeros};

/// The disks that there are, by the directory that they are mounted at.
static DISKS: LazyLock<RwLock<HashMap<PathBuf, Weak<Shared>>>> = LazyLock::new(RwLock::default);

/// Bytes of what only tries whether there is room that count as one.
const SCALE: u64 = 1024;

/// So many earlier states of sled's directory are remembered.
const KEPT: usize = 6;

/// The disk that `path` is on, if it is a simulated one.
pub(crate) fn of(path: &Path) -> Option<Arc<Shared>> {
    let disks = DISKS.read().expect("nobody panics with the lock");
    if disks.is_empty() {
        return None;
    }
    path.ancestors()
        .find_map(|path| disks.get(path))
        .and_then(Weak::upgrade)
}

/// What is asked of a disk, as far as it can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Write,
    Sync,
    /// Making, renaming, linking and removing.
    Name,
    Open,
    Read,
}

impl Call {
    fn failed(self) -> &'static str {
        match self {
            Self::Write => "failed writes",
            Self::Sync => "failed syncs",
            Self::Name => "failed changes of names",
            Self::Open => "failed opens",
            Self::Read => "failed reads",
        }
    }
}

const FULL: &str = "times the disk was full";

/// How everything ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Kill,
    PowerCut,
}

/// A simulated disk. Dropped, it is gone with all that is on it.
#[derive(Debug)]
pub(crate) struct Disk {
    shared: Arc<Shared>,
    _root: tempfile::TempDir,
}

/// See [`Disk`]; what calls find.
#[derive(Debug)]
pub(crate) struct Shared {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    files: Vec<Inode>,
    /// What the system shows.
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    /// Changes of names that are not durable, in order.
    changes: Vec<NameChange>,
    /// sled's directory as of each sync.
    catalogues: Vec<Tree>,
    boot: u64,
    plan: Plan,
    /// After the end: what a start will find. Until then everything fails.
    ended: Option<Found>,
    /// Of everything that was asked, in order.
    trace: u64,
    takes_turns: bool,
    counts: BTreeMap<&'static str, u64>,
}

/// What will go wrong.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// After so many calls that change something.
    end: Option<(u64, End)>,
    /// The so manieth call of this kind, from 0.
    fail: Option<(Call, u64)>,
    /// Bytes in all.
    capacity: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    Dir,
    File(usize),
    /// sled's directory.
    Catalogue,
}

#[derive(Clone, Default, Debug)]
struct Inode {
    durable: Content,
    /// Not durable, in order.
    writes: Vec<Write>,
    len: u64,
    failed_syncs: u64,
    is_small: bool,
}

/// Names that appear or go together.
#[derive(Clone, Debug)]
struct NameChange {
    names: Vec<(PathBuf, Option<Node>)>,
    /// Directories whose sync is still to come.
    unsynced: BTreeSet<PathBuf>,
}

/// Files below a directory.
type Tree = Vec<(PathBuf, Vec<u8>)>;

#[derive(Debug)]
enum Found {
    /// What the system shows, but sled's directory is as it was at the end.
    Killed(Tree),
    Cut {
        names: BTreeMap<PathBuf, Node>,
        contents: BTreeMap<usize, Content>,
        catalogue: Tree,
    },
}

/// What becomes of a call.
enum Verdict {
    Do,
    Fail,
    /// It is the last one.
    End(End),
}

fn gone() -> io::Error {
    io::Error::other("the disk is gone")
}

fn refused() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl Disk {
    /// An empty disk; what it does by chance follows from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let memory = Path::new("/dev/shm");
        let root = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let root = root.expect("a directory for the disk");
        let path = root.path().to_owned();
        let mut names = BTreeMap::new();
        names.insert(path.clone(), Node::Dir);
        let shared = Arc::new(Shared {
            root: path.clone(),
            state: Mutex::new(State {
                random: fastrand::Rng::with_seed(seed),
                files: Vec::new(),
                durable_names: names.clone(),
                names,
                changes: Vec::new(),
                catalogues: Vec::new(),
                boot: 1,
                plan: Plan::default(),
                ended: None,
                trace: 0,
                takes_turns: false,
                counts: BTreeMap::new(),
            }),
        });
        let mut disks = DISKS.write().expect("nobody panics with the lock");
        disks.insert(path, Arc::downgrade(&shared));
        Self {
            shared,
            _root: root,
        }
    }

    /// The same, on which test and background thread take turns: everything follows from the seed.
    pub(crate) fn with_turns(seed: u64) -> Self {
        let disk = Self::new(seed);
        disk.shared.state.lock().takes_turns = true;
        disk
    }

    /// From here on, what it does by chance follows from `seed`.
    pub(crate) fn seed(&self, seed: u64) {
        self.shared.state.lock().random = fastrand::Rng::with_seed(seed);
    }

    /// Where the data log is to live.
    pub(crate) fn dir(&self) -> PathBuf {
        self.shared.root.join("data")
    }

    /// Everything ends so many calls from now: a call that changes something is the last one that counts.
    pub(crate) fn end_after(&self, calls: u64, end: End) {
        self.shared.state.lock().plan.end = Some((calls, end));
    }

    /// The end that was planned does not come.
    pub(crate) fn go_on(&self) {
        let mut state = self.shared.state.lock();
        (state.plan.end, state.plan.fail) = (None, None);
    }

    /// The call that was to fail does not.
    pub(crate) fn fail_no_more(&self) {
        self.shared.state.lock().plan.fail = None;
    }

    /// The `nth` call of this kind from now fails.
    pub(crate) fn fail(&self, call: Call, nth: u64) {
        self.shared.state.lock().plan.fail = Some((call, nth));
    }

    /// Calls that failed because they were to.
    pub(crate) fn failures(&self) -> u64 {
        let calls = [Call::Write, Call::Sync, Call::Name, Call::Open, Call::Read];
        let counts = self.counts();
        let failed = calls.iter().filter_map(|call| counts.get(call.failed()));
        failed.sum()
    }

    /// From now on there is so much room; without an end to it for `None`.
    pub(crate) fn set_room(&self, room: Option<u64>) {
        let mut state = self.shared.state.lock();
        state.plan.capacity = room.map(|room| state.used() + room);
    }

    /// What happened, and how often.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.shared.state.lock().counts.clone()
    }

    /// Calls that found it full.
    pub(crate) fn times_full(&self) -> u64 {
        self.counts().get(FULL).copied().unwrap_or_default()
    }

    /// Whether the end came.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.state.lock().ended.is_some()
    }

    /// The end comes now.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.shared.state.lock();
        if state.ended.is_none() {
            state.end(&self.shared.root, end);
        }
    }

    /// A number that stands for everything that was asked of it, in its order.
    pub(crate) fn trace(&self) -> u64 {
        self.shared.state.lock().trace
    }

    /// After the end, and when nobody uses it any more: makes what a start finds, and says how it ended.
    pub(crate) fn revive(&self) -> End {
        let mut state = self.shared.state.lock();
        let data = self.shared.root.join("data");
        let found = state.ended.take().expect("it ended");
        (state.plan.end, state.plan.fail) = (None, None);
        match found {
            Found::Killed(catalogue) => {
                put_tree(&data.join("catalogue"), &catalogue);
                End::Kill
            }
            Found::Cut {
                names,
                contents,
                catalogue,
            } => {
                if data.exists() {
                    fs::remove_dir_all(&data).expect("files can be removed");
                }
                state.boot += 1;
                state.changes.clear();
                materialize(&names, &contents);
                put_tree(&data.join("catalogue"), &catalogue);
                state.names = names;
                for (number, inode) in state.files.iter_mut().enumerate() {
                    inode.writes.clear();
                    if let Some(content) = contents.get(&number) {
                        (inode.len, inode.durable) = (content.len, content.clone());
                    }
                }
                state.durable_names = state.names.clone();
                End::PowerCut
            }
        }
    }

    /// While it is not in use: sled's directory goes back to how it was at any sync, or is gone.
    pub(crate) fn forget_catalogue(&self) {
        let mut state = self.shared.state.lock();
        let State {
            catalogues, random, ..
        } = &mut *state;
        // What came later never was.
        catalogues.truncate(random.usize(..=catalogues.len()));
        let tree = catalogues.last().cloned().unwrap_or_default();
        put_tree(&self.shared.root.join("data/catalogue"), &tree);
    }

    /// The files that there are, and how long they are. sled's are among them.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.shared.state.lock();
        let files = state.names.iter().filter_map(|(path, node)| match node {
            Node::File(number) => Some((path.clone(), state.files[*number].len)),
            _ => None,
        });
        let mut files: Vec<_> = files.collect();
        let db = self.shared.root.join("data/catalogue/db");
        if let Ok(metadata) = fs::metadata(&db) {
            files.push((db, metadata.len()));
        }
        files
    }

    /// While it is not in use: what a file holds is changed for good.
    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.shared.state.lock();
        let mut bytes = fs::read(path).expect("the file is there");
        change(&mut bytes);
        fs::write(path, &bytes).expect("the file can be written");
        if let Some(Node::File(number)) = state.names.get(path) {
            let number = *number;
            let inode = &mut state.files[number];
            inode.writes.clear();
            inode.len = bytes.len() as u64;
            inode.durable = Content {
                len: inode.len,
                bytes,
            };
        }
    }

    /// While it is not in use: a file is gone for good.
    pub(crate) fn lose(&self, path: &Path) {
        let mut state = self.shared.state.lock();
        fs::remove_file(path).expect("the file is there");
        state.names.remove(path);
        state.durable_names.remove(path);
        for change in &mut state.changes {
            change.names.retain(|(name, _)| name != path);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut disks = DISKS.write().expect("nobody panics with the lock");
        disks.remove(&self.shared.root);
    }
}

/// What an open file has of the disk it is on.
#[derive(Debug)]
pub(crate) struct Handle {
    disk: Arc<Shared>,
    node: Node,
    path: PathBuf,
    failed_syncs: Mutex<u64>,
}

impl Shared {
    fn is_catalogue(&self, path: &Path) -> bool {
        path.starts_with(self.root.join("data/catalogue"))
    }

    /// Does what changes something, unless the disk is against it.
    fn change<T>(
        &self,
        call: Call,
        path: &Path,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        match state.judge(call, path)? {
            Verdict::Do => act(&mut state),
            Verdict::Fail => Err(refused()),
            Verdict::End(end) => {
                if state.random.bool() {
                    // The call was made, and nobody is told.
                    let _ = act(&mut state);
                }
                state.end(&self.root, end);
                Err(gone())
            }
        }
    }

    /// Opens a file; `open` opens the real one.
    pub(crate) fn open(
        self: &Arc<Self>,
        path: &Path,
        how: How,
        open: impl FnOnce() -> io::Result<fs::File>,
    ) -> io::Result<(fs::File, Handle)> {
        let mut state = self.state.lock();
        let (node, file) = if self.is_catalogue(path) {
            state.look(Call::Open, path)?;
            (Node::Catalogue, open()?)
        } else {
            let known = state.names.get(path).copied();
            let is_made = known.is_none() && matches!(how, How::Create | How::OpenOrCreate);
            if is_made || how == How::Create {
                drop(state);
                let make = |state: &mut State| state.make(path, open);
                let file = self.change(Call::Name, path, make)?;
                state = self.state.lock();
                (state.names[path], file)
            } else {
                state.look(Call::Open, path)?;
                let file = open()?;
                (known.ok_or(io::ErrorKind::NotFound)?, file)
            }
        };
        let failed_syncs = match node {
            Node::File(number) => state.files[number].failed_syncs,
            _ => 0,
        };
        let handle = Handle {
            disk: self.clone(),
            node,
            path: path.into(),
            failed_syncs: failed_syncs.into(),
        };
        Ok((file, handle))
    }

    /// Asks about a name, or for a file's content.
    pub(crate) fn look<T>(
        &self,
        call: Call,
        path: &Path,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.state.lock().look(call, path)?;
        act()
    }

    pub(crate) fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if self.state.lock().names.contains_key(dir) {
            return self.look(Call::Open, dir, || Ok(()));
        }
        self.change(Call::Name, dir, |state| {
            fs::create_dir_all(dir)?;
            state.rename([(dir, Some(Node::Dir))]);
            Ok(())
        })
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Call::Name, from, |state| {
            fs::rename(from, to)?;
            if self.is_catalogue(from) {
                state.catalogues.clear();
            } else {
                let node = state.names.get(from).copied();
                state.rename([(from, None), (to, node)]);
                if to.ends_with("state/log") {
                    state.count("state logs written anew");
                }
            }
            Ok(())
        })
    }

    pub(crate) fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.change(Call::Name, link, |state| {
            fs::hard_link(original, link)?;
            let node = state.names.get(original).copied();
            state.rename([(link, node)]);
            Ok(())
        })
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Call::Name, path, |state| {
            fs::remove_file(path)?;
            state.rename([(path, None)]);
            if path.extension().is_some_and(|kind| kind == "segment") {
                state.count("segments let go");
            }
            Ok(())
        })
    }

    /// A step of sled's.
    pub(crate) fn step(&self, dir: &Path) -> io::Result<()> {
        self.change(Call::Write, dir, |state| state.take_room(1).map(drop))
    }

    pub(crate) fn takes_turns(&self) -> bool {
        self.state.lock().takes_turns
    }

    /// Names the time since the last power cut.
    pub(crate) fn boot_id(&self) -> String {
        format!("boot {}", self.state.lock().boot)
    }
}

impl Handle {
    pub(crate) fn read_exact_at(
        &self,
        file: &fs::File,
        bytes: &mut [u8],
        offset: u64,
    ) -> io::Result<()> {
        let read = || file.read_exact_at(bytes, offset);
        self.disk.look(Call::Read, &self.path, read)
    }

    pub(crate) fn write_all_at(
        &self,
        file: &fs::File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        let Node::File(number) = self.node else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let mut state = self.disk.state.lock();
        let verdict = state.judge(Call::Write, &self.path)?;
        let (part, failure) = match verdict {
            Verdict::Do => (bytes.len(), None),
            Verdict::Fail => (state.random.usize(..=bytes.len()), Some(refused())),
            Verdict::End(_) if state.random.bool() => (bytes.len(), Some(gone())),
            Verdict::End(_) => (state.random.usize(..=bytes.len()), Some(gone())),
        };
        let written = state.write(number, file, &bytes[..part], offset);
        if let Verdict::End(end) = verdict {
            state.end(&self.disk.root, end);
        }
        failure.map_or(written, Err)
    }

    pub(crate) fn set_len(&self, file: &fs::File, len: u64) -> io::Result<()> {
        let Node::File(number) = self.node else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        self.disk.change(Call::Write, &self.path, |state| {
            file.set_len(len)?;
            let inode = &mut state.files[number];
            inode.len = len;
            inode.writes.push(Write::Length(len));
            Ok(())
        })
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let verdict = state.judge(Call::Sync, &self.path)?;
        if let Verdict::End(end) = verdict {
            if state.random.bool() {
                state.make_durable(&self.disk.root, self.node, &self.path);
            }
            state.end(&self.disk.root, end);
            return Err(gone());
        }
        let is_refused = matches!(verdict, Verdict::Fail);
        if is_refused {
            state.lose_writes(self.node);
        } else {
            state.make_durable(&self.disk.root, self.node, &self.path);
        }
        let mut told = self.failed_syncs.lock();
        let failed = match self.node {
            Node::File(number) => state.files[number].failed_syncs,
            _ => *told,
        };
        if is_refused || *told < failed {
            *told = failed;
            return Err(refused());
        }
        Ok(())
    }
}

impl State {
    fn judge(&mut self, call: Call, path: &Path) -> io::Result<Verdict> {
        self.alive()?;
        self.note(call, path);
        if let Some((left, end)) = &mut self.plan.end {
            if *left == 0 {
                return Ok(Verdict::End(*end));
            }
            *left -= 1;
        }
        Ok(match self.is_to_fail(call) {
            true => Verdict::Fail,
            false => Verdict::Do,
        })
    }

    /// What changes nothing may fail, and is never the end.
    fn look(&mut self, call: Call, path: &Path) -> io::Result<()> {
        self.alive()?;
        self.note(call, path);
        match self.is_to_fail(call) {
            true => Err(refused()),
            false => Ok(()),
        }
    }

    fn is_to_fail(&mut self, call: Call) -> bool {
        match &mut self.plan.fail {
            Some((to_fail, left)) if *to_fail == call => match left.checked_sub(1) {
                Some(rest) => {
                    *left = rest;
                    false
                }
                None => {
                    self.plan.fail = None;
                    self.count(call.failed());
                    true
                }
            },
            _ => false,
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn alive(&self) -> io::Result<()> {
        match self.ended {
            Some(_) => Err(gone()),
            None => Ok(()),
        }
    }

    fn note(&mut self, call: Call, path: &Path) {
        // A start reads logs in any order; and names in the quarantine may have a checksum in them, which is never the same.
        if call == Call::Read {
            return;
        }
        let kind = path.extension().unwrap_or_default().as_encoded_bytes();
        for byte in kind.iter().chain(&[call as u8]) {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn used(&self) -> u64 {
        let mut counted = BTreeSet::new();
        let files = self.names.values().filter_map(|node| match node {
            Node::File(number) if counted.insert(*number) => Some(&self.files[*number]),
            _ => None,
        });
        files.map(Inode::takes).sum()
    }

    /// How much of `wanted` there is room for.
    fn room(&self) -> u64 {
        let capacity = self.plan.capacity.unwrap_or(u64::MAX);
        capacity.saturating_sub(self.used())
    }

    fn take_room(&mut self, wanted: u64) -> io::Result<()> {
        if self.plan.capacity.is_some() && self.room() < wanted {
            self.count(FULL);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Makes a file, or empties the one that is there.
    fn make(
        &mut self,
        path: &Path,
        open: impl FnOnce() -> io::Result<fs::File>,
    ) -> io::Result<fs::File> {
        self.take_room(1)?;
        let file = open()?;
        match self.names.get(path) {
            Some(Node::File(number)) => {
                let inode = &mut self.files[*number];
                inode.len = 0;
                inode.writes.push(Write::Length(0));
            }
            _ => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                self.files.push(Inode {
                    is_small: ["probe", "reserve", "reserve.tmp", "catalogue.room"]
                        .contains(&&*name),
                    ..Inode::default()
                });
                let node = Node::File(self.files.len() - 1);
                self.rename([(path, Some(node))]);
            }
        }
        Ok(file)
    }

    fn write(
        &mut self,
        number: usize,
        file: &fs::File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        let inode = &self.files[number];
        let mut part = bytes;
        if self.plan.capacity.is_some() {
            let mut room = self.room();
            if inode.is_small {
                room = room.saturating_mul(SCALE);
            }
            let fits = inode.len.saturating_add(room).saturating_sub(offset);
            let fits = usize::try_from(fits).unwrap_or(usize::MAX);
            part = &bytes[..bytes.len().min(fits)];
        }
        if part.len() < bytes.len() {
            self.count(FULL);
        }
        let inode = &mut self.files[number];
        let end = offset + part.len() as u64;
        if !part.is_empty() {
            if offset >= inode.len && is_zeros(part) {
                file.set_len(end)?;
            } else {
                file.write_all_at(part, offset)?;
            }
            inode.len = inode.len.max(end);
            inode.writes.push(Write::new(offset, part));
        }
        match part.len() < bytes.len() {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    /// Changes names together, which is not durable yet.
    fn rename<const N: usize>(&mut self, names: [(&Path, Option<Node>); N]) {
        for (path, node) in names {
            match node {
                Some(node) => drop(self.names.insert(path.into(), node)),
                None => drop(self.names.remove(path)),
            }
        }
        let parents = names.iter().filter_map(|(path, _)| path.parent());
        self.changes.push(NameChange {
            unsynced: parents.map(Path::to_owned).collect(),
            names: names.map(|(path, node)| (path.into(), node)).into(),
        });
    }

    fn make_durable(&mut self, root: &Path, node: Node, path: &Path) {
        match node {
            Node::File(number) => {
                let inode = &mut self.files[number];
                for write in std::mem::take(&mut inode.writes) {
                    inode.durable.apply(&write);
                }
            }
            Node::Dir => {
                for change in &mut self.changes {
                    change.unsynced.remove(path);
                }
                let durable = &mut self.durable_names;
                self.changes.retain(|change| {
                    if change.unsynced.is_empty() {
                        set_names(durable, change);
                    }
                    !change.unsynced.is_empty()
                });
            }
            Node::Catalogue => {
                if self.catalogues.len() == KEPT {
                    self.catalogues.remove(0);
                }
                self.catalogues.push(tree(&root.join("data/catalogue")));
            }
        }
    }

    /// A sync failed.
    fn lose_writes(&mut self, node: Node) {
        if let Node::File(number) = node {
            let inode = &mut self.files[number];
            let writes = std::mem::take(&mut inode.writes);
            inode.durable.apply_some(&writes, &mut self.random);
            inode.failed_syncs += 1;
        }
    }

    fn end(&mut self, root: &Path, end: End) {
        let now = tree(&root.join("data/catalogue"));
        self.ended = Some(match end {
            End::Kill => Found::Killed(now),
            End::PowerCut => self.cut(root, now),
        });
    }

    fn cut(&mut self, root: &Path, now: Tree) -> Found {
        let mut names = self.durable_names.clone();
        let (mut left_out, often) = (BTreeSet::new(), self.random.u8(0..4));
        for change in &self.changes {
            let touches = |path: &PathBuf| left_out.contains(path);
            let needs_one = change.names.iter().any(|(path, _)| touches(path));
            if needs_one || self.random.u8(0..3) >= often {
                left_out.extend(change.names.iter().map(|(path, _)| path.clone()));
            } else {
                set_names(&mut names, change);
            }
        }
        // What is in a directory that is gone is gone.
        let is_dir = |path: &Path| names.get(path) == Some(&Node::Dir);
        let lost: Vec<_> = names
            .keys()
            .filter(|path| {
                let above = path.ancestors().skip(1);
                !above
                    .take_while(|above| above.starts_with(root))
                    .all(is_dir)
            })
            .cloned()
            .collect();
        for path in lost {
            names.remove(&path);
        }
        let mut contents = BTreeMap::new();
        for node in names.values() {
            if let Node::File(number) = *node
                && !contents.contains_key(&number)
            {
                let inode = &self.files[number];
                let mut content = inode.durable.clone();
                content.apply_some(&inode.writes, &mut self.random);
                contents.insert(number, content);
            }
        }
        let synced = self.catalogues.last().cloned().unwrap_or_default();
        let catalogue = match self.random.u8(0..6) {
            0..4 => synced,
            4 => now,
            _ => mixed(synced, &now, &mut self.random),
        };
        Found::Cut {
            names,
            contents,
            catalogue,
        }
    }
}

impl Inode {
    fn takes(&self) -> u64 {
        match self.is_small {
            true => self.len / SCALE,
            false => self.len,
        }
    }
}

fn set_names(names: &mut BTreeMap<PathBuf, Node>, change: &NameChange) {
    for (path, node) in &change.names {
        match node {
            Some(node) => drop(names.insert(path.clone(), *node)),
            None => drop(names.remove(path)),
        }
    }
}

fn materialize(names: &BTreeMap<PathBuf, Node>, contents: &BTreeMap<usize, Content>) {
    let mut made = BTreeMap::new();
    for (path, node) in names {
        match node {
            Node::Dir => fs::create_dir_all(path).expect("a directory can be made"),
            Node::File(number) => match made.get(number) {
                Some(first) => fs::hard_link(first, path).expect("a file can be linked"),
                None => {
                    let content = &contents[number];
                    fs::write(path, &content.bytes).expect("a file can be written");
                    let file = fs::File::options().write(true).open(path);
                    let file = file.expect("a file can be opened");
                    file.set_len(content.len).expect("a file can be extended");
                    made.insert(*number, path.clone());
                }
            },
            Node::Catalogue => {}
        }
    }
}

/// The files below a directory.
fn tree(dir: &Path) -> Tree {
    let (mut files, mut dirs) = (Tree::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&next) else {
            continue;
        };
        for path in entries.map(|entry| entry.expect("a name").path()) {
            match path.is_dir() {
                true => dirs.push(path),
                false => {
                    // sled may have removed it just now.
                    let Ok(bytes) = fs::read(&path) else { continue };
                    let name = path.strip_prefix(dir).expect("it is below");
                    files.push((name.to_owned(), bytes));
                }
            }
        }
    }
    files.sort();
    files
}

fn put_tree(dir: &Path, files: &Tree) {
    if dir.exists() {
        fs::remove_dir_all(dir).expect("sled's files can be removed");
    }
    if !dir.parent().is_some_and(Path::exists) {
        return;
    }
    for (name, bytes) in files {
        let path = dir.join(name);
        let parent = path.parent().expect("it is below");
        fs::create_dir_all(parent).expect("a directory can be made");
        fs::write(path, bytes).expect("a file can be written");
    }
}

/// Some sectors of sled's files are as they are now.
fn mixed(mut synced: Tree, now: &Tree, random: &mut fastrand::Rng) -> Tree {
    const SECTOR: usize = 512;
    for (name, bytes) in &mut synced {
        let Some((_, now)) = now.iter().find(|(other, _)| other == name) else {
            continue;
        };
        if random.bool() {
            bytes.resize(now.len().max(bytes.len()), 0);
        }
        for (old, new) in bytes.chunks_mut(SECTOR).zip(now.chunks(SECTOR)) {
            if old.len() == new.len() && random.bool() {
                old.copy_from_slice(new);
            }
        }
    }
    synced
}
