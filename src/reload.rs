//! What a running server reads again when it is told to.
//!
//! Owns the list of those who have something to read again. Does not own what they read, nor what tells them to: SIGHUP in the program,
//! [`RunningServer::reload`](crate::RunningServer::reload) anywhere else.
//!
//! Invariant: what can't be read again stays as it was, and that is told.

use std::fmt::{self, Debug, Display, Formatter};

type Reload = Box<dyn Fn() -> Result<String, String> + Send + Sync>;

/// Those who have something to read again.
#[derive(Default)]
pub(crate) struct Reloads(Vec<(&'static str, Reload)>);

impl Reloads {
    /// Calls `reload` whenever the server is told to read again. `what` names it in the log; a success says what is so now.
    pub(crate) fn register<E: Display>(
        &mut self,
        what: &'static str,
        reload: impl Fn() -> Result<String, E> + Send + Sync + 'static,
    ) {
        let reload = move || reload().map_err(|error| error.to_string());
        self.0.push((what, Box::new(reload)));
    }

    /// Lets everybody read again. Returns whether all of them could.
    pub(crate) fn run(&self) -> bool {
        let mut all = true;
        for (what, reload) in &self.0 {
            match reload() {
                Ok(now) => log::info!("{what} read again: {now}"),
                Err(error) => {
                    all = false;
                    log::error!("{what} can't be read again, and what was there stays: {error}");
                }
            }
        }
        all
    }
}

impl Debug for Reloads {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(what, _)| what))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;

    #[test]
    fn one_that_can_not_be_read_again_keeps_nobody_else_from_it() {
        let read = Arc::new(AtomicUsize::new(0));
        let mut reloads = Reloads::default();
        assert!(reloads.run());
        for can in [true, false, true] {
            let read = Arc::clone(&read);
            reloads.register("something", move || {
                read.fetch_add(1, Relaxed);
                if can {
                    Ok(String::new())
                } else {
                    Err("it is gone")
                }
            });
        }
        assert!(!reloads.run());
        assert_eq!(read.load(Relaxed), 3);
    }
}
