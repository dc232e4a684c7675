//! A disk with a cache that a power cut empties: a file that FUSE serves and a loop device is made of.
//!
//! Speaks as much of the kernel's FUSE protocol (version 7.31, `linux/fuse.h`) as a loop device asks of a file: the root of the file
//! system is that file. Requests are answered one at a time, so that there is an order of all writes and flushes.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use super::mounts::{Mounted, run};

/// What a disk writes as a whole.
const UNIT: usize = 4_096;
/// The longest write that the kernel may send at once.
const MAX_WRITE: u32 = 128 << 10;
const REQUEST_HEADER: usize = 40;

const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const ENOSYS: i32 = 38;
const EIO: i32 = 5;

/// See the module. Its file is at [`path`](Self::path) until it is dropped.
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    mounted: Option<Mounted>,
    serving: Option<JoinHandle<()>>,
    path: PathBuf,
    durable: PathBuf,
}

struct State {
    /// What reads see.
    current: File,
    /// What was flushed.
    durable: File,
    /// Writes that are only in `current`, in order.
    cached: Vec<(u64, Vec<u8>)>,
    len: u64,
}

/// What of the cache a cut leaves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Cache {
    Lost,
    Written,
    /// Each unit by chance.
    Some,
}

impl Disk {
    /// A disk that holds what `image` holds and changes it, in a folder for what it needs besides. Or why there can't be one.
    pub(crate) fn of(image: &Path, dir: &Path) -> Result<Self, String> {
        let durable = dir.join("flushed");
        copy(image, &durable);
        let open = |path: &Path| File::options().read(true).write(true).open(path);
        let connection =
            open(Path::new("/dev/fuse")).map_err(|error| format!("/dev/fuse: {error}"))?;
        let state = Arc::new(Mutex::new(State {
            current: open(image).unwrap(),
            durable: open(&durable).unwrap(),
            cached: Vec::new(),
            len: image.metadata().unwrap().len(),
        }));
        let path = dir.join("disk");
        let mounted = Mounted::fuse_file(&connection, &path)?;
        let serving = thread::spawn({
            let state = Arc::clone(&state);
            move || serve(connection, &state)
        });
        Ok(Self {
            state,
            mounted: Some(mounted),
            serving: Some(serving),
            path,
            durable,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts the power, as far as `image` knows: it becomes what the disk holds then. The disk itself goes on. Gives how many units
    /// were in the cache, and how many of them are lost.
    pub(crate) fn cut(
        &self,
        image: &Path,
        cache: Cache,
        random: &mut fastrand::Rng,
    ) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        copy(&self.durable, image);
        let image = File::options().write(true).open(image).unwrap();
        let (mut units, mut lost) = (0, 0);
        for (offset, bytes) in &state.cached {
            for (at, unit) in in_units(*offset, bytes) {
                let is_kept = match cache {
                    Cache::Lost => false,
                    Cache::Written => true,
                    Cache::Some => random.bool(),
                };
                units += 1;
                if is_kept {
                    image.write_all_at(unit, at).unwrap();
                } else {
                    lost += 1;
                }
            }
        }
        (units, lost)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.mounted.take();
        _ = fs::remove_file(&self.durable);
        // If something still uses it, it is served on; the namespace ends that.
        if self.serving.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(serving) = self.serving.take()
        {
            _ = serving.join();
        }
    }
}

/// A copy in which what is empty takes no room.
pub(crate) fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("--sparse=always").arg(from).arg(to)).unwrap();
}

fn in_units(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let first = UNIT - offset as usize % UNIT;
    let (first, rest) = bytes.split_at(first.min(bytes.len()));
    std::iter::once(first)
        .chain(rest.chunks(UNIT))
        .scan(offset, |at, unit| {
            let place = *at;
            *at += unit.len() as u64;
            Some((place, unit))
        })
}

impl State {
    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let left = self.len.saturating_sub(offset);
        let mut bytes = vec![0; len.min(usize::try_from(left).unwrap_or(len))];
        self.current.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.current.write_all_at(bytes, offset)?;
        self.cached.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for (offset, bytes) in self.cached.drain(..) {
            self.durable.write_all_at(&bytes, offset)?;
        }
        Ok(())
    }
}

/// Answers requests until the file is no longer mounted.
fn serve(mut connection: File, state: &Mutex<State>) {
    let mut buffer = vec![0; MAX_WRITE as usize + UNIT];
    while let Ok(len) = connection.read(&mut buffer) {
        let request = Request(&buffer[..len]);
        let answer = match request.opcode() {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            _ => request.answer(&mut state.lock().unwrap()),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (error, Vec::new()),
        };
        let mut reply = Vec::with_capacity(16 + body.len());
        reply.extend((16 + body.len() as u32).to_ne_bytes());
        reply.extend((-error).to_ne_bytes());
        reply.extend(request.unique().to_ne_bytes());
        reply.extend(body);
        if connection.write_all(&reply).is_err() {
            return;
        }
    }
}

/// What the kernel asks: a header, and what belongs to its opcode.
struct Request<'a>(&'a [u8]);

impl Request<'_> {
    fn opcode(&self) -> u32 {
        u32_at(self.0, 4)
    }

    fn unique(&self) -> u64 {
        u64_at(self.0, 8)
    }

    fn answer(&self, state: &mut State) -> Result<Vec<u8>, i32> {
        let body = &self.0[REQUEST_HEADER..];
        let failed = |_: io::Error| EIO;
        Ok(match self.opcode() {
            INIT => init(),
            GETATTR | SETATTR => attributes(state.len),
            OPEN => {
                // With direct I/O, so that nothing is kept in front of the disk.
                const DIRECT_IO: u64 = 1;
                [1, DIRECT_IO].map(u64::to_ne_bytes).concat()
            }
            READ => state
                .read(u64_at(body, 8), u32_at(body, 16) as usize)
                .map_err(failed)?,
            WRITE => {
                let len = u32_at(body, 16);
                let bytes = &body[40..40 + len as usize];
                state.write(u64_at(body, 8), bytes).map_err(failed)?;
                u64::from(len).to_le_bytes().to_vec()
            }
            FSYNC => {
                state.flush().map_err(failed)?;
                Vec::new()
            }
            FLUSH | RELEASE => Vec::new(),
            STATFS => vec![0; 80],
            _ => return Err(ENOSYS),
        })
    }
}

/// `fuse_init_out`.
fn init() -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    let mut out = Vec::new();
    for number in [7, 31, 0, BIG_WRITES] {
        out.extend(number.to_ne_bytes());
    }
    let (max_background, congestion_threshold) = (12_u16, 10_u16);
    out.extend(max_background.to_ne_bytes());
    out.extend(congestion_threshold.to_ne_bytes());
    out.extend(MAX_WRITE.to_ne_bytes());
    let granularity_of_time = 1_u32;
    out.extend(granularity_of_time.to_ne_bytes());
    out.resize(64, 0);
    out
}

/// `fuse_attr_out` of a file of this length.
fn attributes(len: u64) -> Vec<u8> {
    const VALID_FOR: u64 = 1 << 30;
    const FILE: u32 = 0o100_600;
    let mut out = Vec::new();
    let (inode, blocks, no_time) = (1, len / 512, 0);
    for number in [VALID_FOR, 0, inode, len, blocks, no_time, no_time, no_time] {
        out.extend(number.to_ne_bytes());
    }
    let (links, user, group, device, block) = (1, 0, 0, 0, UNIT as u32);
    for number in [0, 0, 0, FILE, links, user, group, device, block, 0] {
        out.extend(number.to_ne_bytes());
    }
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}
