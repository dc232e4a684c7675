//! The lines of stdin, read by a thread of their own: a read of a terminal or a pipe can't be given up.
//!
//! At most [`BATCHES`] batches of about [`BATCH`] bytes wait in memory.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, IsTerminal, Read},
    os::fd::AsFd,
    thread,
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Failure;

/// Bytes after which lines are handed over.
const BATCH: usize = 64 << 10;

/// Batches that wait to be taken.
const BATCHES: usize = 2;

/// No server takes a longer message.
const LONGEST_LINE: u64 = 16 << 20;

/// Lines without their ends.
pub(super) struct Lines {
    batches: mpsc::Receiver<Result<Vec<Bytes>, Failure>>,
    batch: VecDeque<Bytes>,
}

impl Lines {
    /// Begins to read stdin. Once in a process.
    pub(super) fn of_stdin() -> Self {
        let (sender, batches) = mpsc::channel(BATCHES);
        // It ends with stdin, or when nobody takes lines any more, or with the process.
        thread::spawn(move || {
            let mut input = BufReader::with_capacity(BATCH, io::stdin().lock());
            let mut number = 0;
            loop {
                let batch = read_batch(&mut input, &mut number);
                let is_last = !matches!(&batch, Ok(lines) if !lines.is_empty());
                if sender.blocking_send(batch).is_err() || is_last {
                    return;
                }
            }
        });
        Self {
            batches,
            batch: VecDeque::new(),
        }
    }

    /// The next line. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        loop {
            if let Some(line) = self.batch.pop_front() {
                return Some(Ok(line));
            }
            match self.batches.recv().await? {
                Ok(batch) => self.batch = batch.into(),
                Err(failure) => return Some(Err(failure)),
            }
        }
    }
}

/// Whether a person types what is read.
pub(super) fn is_typed() -> bool {
    io::stdin().is_terminal()
}

/// The size of the file that stdin is, if it is one.
pub(super) fn file_size() -> Option<u64> {
    let file = io::stdin().as_fd().try_clone_to_owned().ok()?;
    let metadata = std::fs::File::from(file).metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}

/// The lines that are there already, but at least one; none at the end. `number` counts them.
fn read_batch<R: Read>(input: &mut BufReader<R>, number: &mut u64) -> Result<Vec<Bytes>, Failure> {
    let mut lines = Vec::new();
    let mut bytes = 0;
    while lines.is_empty() || (bytes < BATCH && input.buffer().contains(&b'\n')) {
        let mut line = Vec::new();
        // One more for the line's end.
        let read = input
            .by_ref()
            .take(LONGEST_LINE + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::Failed(format!("can't read stdin: {error}")))?;
        if read == 0 {
            break;
        }
        *number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 > LONGEST_LINE {
            return Err(Failure::Failed(format!(
                "line {number} of stdin is longer than the 16MiB that a server takes at the most"
            )));
        }
        bytes += read;
        lines.push(line.into());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<Bytes> {
        let mut input = BufReader::new(text);
        let mut lines = Vec::new();
        loop {
            let batch = read_batch(&mut input, &mut 0).unwrap();
            if batch.is_empty() {
                return lines;
            }
            lines.extend(batch);
        }
    }

    #[test]
    fn a_line_is_what_stands_before_its_end_and_the_last_needs_none() {
        assert_eq!(lines(b""), [""; 0]);
        assert_eq!(lines(b"a\n\nb\r\nc"), ["a", "", "b\r", "c"]);
        assert_eq!(lines(b"a\n\xff\n"), [&b"a"[..], b"\xff"]);
    }

    #[test]
    fn a_line_without_end_is_given_up_before_it_fills_the_memory() {
        let mut endless = BufReader::new(io::repeat(b'x'));
        let failed = read_batch(&mut endless, &mut 6);
        assert!(matches!(failed, Err(Failure::Failed(sentence)) if sentence.contains("line 7")));
    }
}
