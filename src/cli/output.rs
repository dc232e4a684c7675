//! What goes to stdout: the data that was asked for, and nothing else.
//!
//! Owns buffering, colour, and what it means that stdout can't be written. Does not own what is said on stderr (`progress`).

use std::{
    fmt::Display,
    fs::File,
    future::pending,
    io::{self, BufWriter, ErrorKind, IsTerminal, Stdout, Write},
    os::{fd::AsFd, unix::fs::FileTypeExt},
};

use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::Style;
use serde::Serialize;
use tokio::{io::Interest, net::unix::pipe};

use super::Failure;

/// Stdout, buffered.
pub(super) struct Output {
    out: BufWriter<Stdout>,
    has_colour: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        let stdout = io::stdout();
        Self {
            // Not off a terminal, nor with NO_COLOR.
            has_colour: AutoStream::choice(&stdout) != ColorChoice::Never,
            out: BufWriter::new(stdout),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(unwritten)
    }

    /// `text` in this style, where stdout shows colour.
    pub(super) fn styled(&mut self, style: Style, text: impl Display) -> Result<(), Failure> {
        if self.has_colour {
            write!(self.out, "{style}{text}{style:#}").map_err(unwritten)
        } else {
            write!(self.out, "{text}").map_err(unwritten)
        }
    }

    /// One object on a line of its own.
    pub(super) fn json(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, object).map_err(|error| unwritten(error.into()))?;
        self.write(b"\n")
    }

    /// Hands everything to whoever reads stdout.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(unwritten)
    }
}

/// Whether a person looks at stdout.
pub(super) fn is_watched() -> bool {
    io::stdout().is_terminal()
}

/// What follows from an error of stdout: who has closed a pipe wants nothing more.
pub(super) fn unwritten(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::Unread,
        _ => Failure::Failed(format!("can't write to stdout: {error}")),
    }
}

/// Waits until nobody reads the pipe that stdout is, so that a command that has nothing to write ends too. For ever if it is none.
pub(super) async fn unread() {
    if let Ok(pipe) = pipe()
        && let Ok(_) = pipe.ready(Interest::ERROR).await
    {
        return;
    }
    pending().await
}

fn pipe() -> io::Result<pipe::Sender> {
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    if !stdout.metadata()?.file_type().is_fifo() {
        return Err(ErrorKind::Unsupported.into());
    }
    // It is only watched. Made with the checks, writing to stdout would no longer wait for its reader.
    pipe::Sender::from_file_unchecked(stdout)
}
