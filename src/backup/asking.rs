//! Asking the server that has a data directory open to hold it still.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{
    BackupError, During,
    socket::Reachable,
    words::{LONGEST, SOCKET, Word},
};
use crate::datalog::Contents;

/// How often somebody who waits is asked whether he goes on waiting.
const TURN: Duration = Duration::from_millis(100);

/// A server that holds still until this is dropped.
#[derive(Debug)]
pub(super) struct Asked {
    stream: UnixStream,
    read: Vec<u8>,
    contents: Contents,
}

impl Asked {
    /// Asks the server of the data directory `dir`. None: nobody listens there. `goes_on` is asked again and again.
    pub(super) fn of(
        dir: &Path,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Self>, BackupError> {
        let socket = dir.join(SOCKET);
        let doing = || format!("asking the server at {}", socket.display());
        let reachable = match Reachable::of(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            reachable => reachable.during(doing)?,
        };
        let stream = match UnixStream::connect(reachable.join(SOCKET)) {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
                io::ErrorKind::PermissionDenied => {
                    let socket = socket.display();
                    let why = format!("{socket} can only be opened by its owner and root");
                    return Err(BackupError::Refused(why));
                }
                _ => return Err(error).during(doing),
            },
        };
        stream.set_read_timeout(Some(TURN)).during(doing)?;
        let mut asked = Self {
            stream,
            read: Vec::new(),
            contents: Contents {
                store: uuid::Uuid::nil(),
                parts: Vec::new(),
            },
        };
        asked.say(&Word::Backup)?;
        let Word::Frozen(frozen) = asked.hear(goes_on)? else {
            return Err(misunderstood());
        };
        asked.contents = frozen.in_dir(dir).ok_or_else(misunderstood)?;
        Ok(Some(asked))
    }

    pub(super) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Whether it still holds: what the server says before it is asked is why it does not.
    pub(super) fn check(&mut self) -> Result<(), BackupError> {
        self.stream
            .set_nonblocking(true)
            .during(|| "asking the server".into())?;
        let said = self.fill();
        self.stream
            .set_nonblocking(false)
            .during(|| "asking the server".into())?;
        match said? {
            true => self.next_word().map_or(Ok(()), |_| Err(misunderstood())),
            false => Ok(()),
        }
    }

    /// Everything was read: it was held still until now.
    pub(super) fn done(mut self, goes_on: &mut dyn FnMut() -> bool) -> Result<(), BackupError> {
        self.say(&Word::Done)?;
        match self.hear(goes_on)? {
            Word::Thawed => Ok(()),
            _ => Err(misunderstood()),
        }
    }

    fn say(&mut self, word: &Word) -> Result<(), BackupError> {
        self.stream.write_all(&word.line()).map_err(gone)
    }

    /// The next word that is no refusal.
    fn hear(&mut self, goes_on: &mut dyn FnMut() -> bool) -> Result<Word, BackupError> {
        loop {
            if let Some(word) = self.next_word() {
                return word;
            }
            if !goes_on() {
                return Err(BackupError::Stopped);
            }
            self.fill()?;
        }
    }

    /// Reads some more, if there is some; whether there was.
    fn fill(&mut self) -> Result<bool, BackupError> {
        let mut bytes = [0; 8192];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) if self.read.len() > LONGEST => Err(misunderstood()),
            Ok(len) => {
                self.read.extend_from_slice(&bytes[..len]);
                Ok(true)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => Ok(false),
                _ => Err(gone(error)),
            },
        }
    }

    fn next_word(&mut self) -> Option<Result<Word, BackupError>> {
        let end = self.read.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<_> = self.read.drain(..=end).collect();
        Some(match Word::read(&line) {
            Some(Word::Refused(why)) => Err(BackupError::Refused(why)),
            Some(Word::Failed(why)) => Err(BackupError::Failed(why)),
            Some(word) => Ok(word),
            None => Err(misunderstood()),
        })
    }
}

fn gone(error: io::Error) -> BackupError {
    BackupError::Failed(format!(
        "the server ended before the backup was made ({error})"
    ))
}

fn misunderstood() -> BackupError {
    BackupError::Failed(
        "the server answers what is not understood: is it of another version?".into(),
    )
}
