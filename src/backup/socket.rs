//! The socket in the data directory by which a server is asked to hold still for a backup.
//!
//! Owns the socket's file, who may ask, and how long something is held. One backup at a time; who goes away lets go.
//!
//! The file is made in a folder that nobody else can enter, gets its mode there, and only then its name: at no time can it be opened by
//! anybody but its owner. Who asks must be that, or root, as the system tells of the peer as well.

use std::{
    cell::Cell,
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::words::{FrozenWord, SOCKET, Word};
use crate::datalog::{Freezer, Frozen};

/// The private folder in which the socket gets its mode.
const MAKING: &str = "control.tmp";

/// Who connects says soon what is wanted.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections at once: one has a backup made, the others are told so.
const MOST: usize = 8;

/// Bytes of a line that somebody who asks may say.
const LONGEST: usize = 1024;

/// Bytes of a path that a socket's address has room for, with the zero behind it.
const LONGEST_PATH: usize = 108;

/// A socket that is listened on.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Socket {
    /// Listens in the data directory `dir`, which is locked: a socket that is there is nobody's. On the thread of a `LocalSet`.
    ///
    /// # Errors
    /// If the file system has no sockets, or the operating system refuses something.
    pub(crate) fn listen(dir: &Path, freezer: Freezer) -> io::Result<Self> {
        // What the system tells of this process's own.
        let own = UnixStream::pair()?.0.peer_cred()?.uid();
        let listener = UnixListener::from_std(bind(dir)?)?;
        let (stop, stopping) = watch::channel(false);
        let serving = Serving {
            freezer,
            own,
            is_busy: Rc::default(),
            stopping,
        };
        Ok(Self {
            path: dir.join(SOCKET),
            stop,
            task: tokio::task::spawn_local(serving.accept(listener)),
        })
    }

    /// Ends the backup that is being made, and listens no more. Nothing is held when it returns.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        // A panic there has been told where it happened.
        let _ = self.task.await;
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("{} is left behind: {error}", self.path.display());
        }
    }
}

/// A path to the directory that is short enough for the address of a socket in it.
pub(super) struct Reachable {
    path: PathBuf,
    _dir: Option<fs::File>,
}

impl Reachable {
    /// The directory as it is called, or else by a descriptor of it.
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let path = dir.to_owned();
        let longest = dir.join(MAKING).join(SOCKET);
        if longest.as_os_str().len() < LONGEST_PATH {
            return Ok(Self { path, _dir: None });
        }
        let dir = fs::File::open(dir)?;
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&dir);
        let path = PathBuf::from(format!("/proc/self/fd/{descriptor}"));
        if !path.join(".").exists() {
            let what = "its path is too long for the address of a socket, and there is no /proc";
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, what));
        }
        let dir = Some(dir);
        Ok(Self { path, _dir: dir })
    }

    pub(super) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

fn bind(dir: &Path) -> io::Result<StdListener> {
    let (making, socket) = (dir.join(MAKING), dir.join(SOCKET));
    for removed in [fs::remove_dir_all(&making), fs::remove_file(&socket)] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::DirBuilder::new().mode(0o700).create(&making)?;
    let listener = StdListener::bind(Reachable::of(dir)?.join(MAKING).join(SOCKET))?;
    listener.set_nonblocking(true)?;
    let made = making.join(SOCKET);
    fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
    fs::rename(&made, &socket)?;
    fs::remove_dir(&making)?;
    Ok(listener)
}

/// The owner and root could take everything anyway.
fn may_ask(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

/// Who answers.
#[derive(Clone)]
struct Serving {
    freezer: Freezer,
    /// The user of this process.
    own: u32,
    is_busy: Rc<Cell<bool>>,
    stopping: watch::Receiver<bool>,
}

/// A backup is being made, until this is dropped.
struct Busy(Rc<Cell<bool>>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Serving {
    async fn accept(mut self, listener: UnixListener) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = self.stopping.wait_for(|stopping| *stopping) => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept(), if connections.len() < MOST => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(self.clone().serve(Line::new(stream)));
                }
                Err(error) => {
                    log::warn!("who wants a backup can't be heard: {error}");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }

    async fn serve(mut self, mut line: Line) {
        // It is heard first whoever says it: what is not read of a socket takes the answer with it.
        let word = timeout(PATIENCE, line.next()).await;
        let peer = line.stream.peer_cred().map(|peer| peer.uid());
        if !peer.is_ok_and(|peer| may_ask(peer, self.own)) {
            log::warn!("a backup was asked for by a user who may not");
            let why = "the server makes backups for its own user and for root only";
            return line.say_last(&Word::Refused(why.into())).await;
        }
        match word {
            Ok(Some(Word::Backup)) => {}
            Ok(Some(_)) => {
                let why = "the server does not understand what it is asked for";
                return line.say_last(&Word::Refused(why.into())).await;
            }
            Ok(None) | Err(_) => return,
        }
        if self.is_busy.replace(true) {
            let why = "the server has another backup made from it just now";
            return line.say_last(&Word::Refused(why.into())).await;
        }
        let _busy = Busy(self.is_busy.clone());
        log::info!("a backup begins");
        let (frozen, is_frozen) = oneshot::channel();
        // Whoever does not wait for it any more lets it go where it was made.
        self.freezer
            .freeze(move |outcome| drop(frozen.send(outcome)));
        let frozen = match is_frozen.await {
            Ok(Ok(frozen)) => frozen,
            Ok(Err(error)) => {
                log::warn!("the backup is not made: {error}");
                return line.say_last(&Word::Failed(error.to_string())).await;
            }
            Err(_) => {
                let why = "the data log has ended".to_owned();
                return line.say_last(&Word::Failed(why)).await;
            }
        };
        let was_done = self.hold(&mut line, &frozen).await;
        // Unlinking takes a while where it is the last name of much.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(frozen)).await {
            log::warn!("what was held still for a backup was not let go: {error}");
        }
        match was_done {
            Ok(()) => {
                log::info!("a backup was made");
                line.say_last(&Word::Thawed).await;
            }
            Err(why) => {
                log::warn!("the backup was not made to its end: {why}");
                line.say_last(&Word::Failed(why.into())).await;
            }
        }
    }

    /// Until the backup has everything; or why it has not.
    async fn hold(&mut self, line: &mut Line, frozen: &Frozen) -> Result<(), &'static str> {
        let word = Word::Frozen(FrozenWord::of(frozen));
        let done = async {
            line.say(&word).await.ok()?;
            line.next().await
        };
        tokio::select! {
            _ = self.stopping.wait_for(|stopping| *stopping) => Err("the server stops"),
            word = done => match word {
                Some(Word::Done) => Ok(()),
                _ => Err("who made it has gone"),
            },
        }
    }
}

/// A connection, line by line.
struct Line {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Line {
    fn new(stream: UnixStream) -> Self {
        let read = Vec::new();
        Self { stream, read }
    }

    /// What is said next. None: nothing that can be understood.
    async fn next(&mut self) -> Option<Word> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<_> = self.read.drain(..=end).collect();
                return Word::read(&line);
            }
            if self.read.len() > LONGEST {
                return None;
            }
            self.stream.readable().await.ok()?;
            let mut bytes = [0; LONGEST];
            match self.stream.try_read(&mut bytes) {
                Ok(0) => return None,
                Ok(len) => self.read.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }

    async fn say(&mut self, word: &Word) -> io::Result<()> {
        let line = word.line();
        let mut rest = &line[..];
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(len) => rest = &rest[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Who has gone misses nothing.
    async fn say_last(mut self, word: &Word) {
        let _ = timeout(PATIENCE, self.say(word)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_root_may_ask_and_nobody_else() {
        assert!(may_ask(1000, 1000) && may_ask(0, 1000) && may_ask(0, 0));
        assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
    }

    #[test]
    fn socket_is_its_owners_alone_and_replaces_one_that_nobody_listens_on() {
        let dir = tempfile::tempdir().unwrap();
        drop(bind(dir.path()).unwrap());
        fs::create_dir(dir.path().join(MAKING)).unwrap();
        let _listener = bind(dir.path()).unwrap();
        let socket = dir.path().join(SOCKET);
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::os::unix::net::UnixStream::connect(&socket).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn directory_with_a_path_too_long_for_an_address_is_reached_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        fs::create_dir(&long).unwrap();
        let _listener = bind(&long).unwrap();
        let reachable = Reachable::of(&long).unwrap();
        std::os::unix::net::UnixStream::connect(reachable.join(SOCKET)).unwrap();
    }
}
