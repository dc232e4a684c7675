//! The background thread: makes journals, seals them, drops what is dead, merges.
//!
//! It is the only one that changes the catalogue. Each step is complete on disk before the index shows it.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use super::{
    Event, Options,
    backlog::{Backlog, Task},
    store,
};

/// What the background thread works with.
pub(crate) struct Background {
    pub(crate) options: Options,
    pub(crate) backlog: Arc<Backlog>,
}

impl Background {
    /// Starts the thread, which ends when the backlog is stopped or when it fails.
    pub(crate) fn start(self) -> io::Result<JoinHandle<()>> {
        thread::Builder::new()
            .name("datalog".into())
            .spawn(move || self.run())
    }

    fn run(self) {
        loop {
            let done = match self.backlog.next_task() {
                Task::Stop => return,
                Task::Make => self.make(),
                Task::Seal(_) | Task::Drop(_) | Task::Tidy => Ok(()),
            };
            match done {
                Ok(()) => {}
                Err(error) if store::is_disk_full(&error) => self.set_full(true),
                Err(error) => self.fail(&error.to_string()),
            }
        }
    }

    fn make(&self) -> io::Result<()> {
        let file = self.backlog.make()?;
        if let Err(file) = self.backlog.put(file) {
            file.remove()?;
        }
        self.set_full(false);
        self.tell_space();
        Ok(())
    }

    fn set_full(&self, full: bool) {
        if self.backlog.set_full(full) {
            if full {
                log::error!(
                    "the disk is full: publications are refused until there is room for a journal"
                );
            } else {
                log::warn!("there is room on the disk again");
            }
            self.tell_space();
        }
    }

    fn tell_space(&self) {
        (self.options.events)(Event::SpaceChanged(self.backlog.space()));
    }

    fn fail(&self, why: &str) {
        log::error!("the data log can be written no more: {why}");
        self.backlog.fail(why.into());
        (self.options.events)(Event::Failed(why.to_owned()));
    }
}
