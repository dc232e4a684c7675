//! How background work shares the machine with commits: step by step, with a rest behind each step.
//!
//! Owns how long the rests are. Without them, sealing a journal takes a core and the disk for a tenth of a second, and every
//! acknowledgement of that time is late; with them it takes longer, and none is. Does not own what a step is.

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

/// A rest takes so many times what the step before it took.
const RESTS: u32 = 3;

/// No rest is longer, whatever held the step up.
const LONGEST: Duration = Duration::from_millis(10);

/// The pace of one piece of work.
pub(crate) struct Pace<'a> {
    is_urgent: &'a dyn Fn() -> bool,
    began: Cell<Instant>,
}

impl<'a> Pace<'a> {
    /// The work begins. While `is_urgent`, there are no rests.
    pub(crate) fn new(is_urgent: &'a dyn Fn() -> bool) -> Self {
        Self {
            is_urgent,
            began: Instant::now().into(),
        }
    }

    /// Work without rests.
    pub(crate) fn hurried() -> Pace<'static> {
        Pace::new(&|| true)
    }

    /// A step was done.
    pub(crate) fn rest(&self) {
        if !(self.is_urgent)() {
            thread::sleep((self.began.get().elapsed() * RESTS).min(LONGEST));
        }
        self.began.set(Instant::now());
    }
}
