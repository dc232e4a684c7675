//! What is said on stderr while a command works: sentences, and how far it is. A bar is drawn on a terminal only, and only for
//! work that takes a while.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that ends sooner needs no bar.
const A_WHILE: Duration = Duration::from_millis(500);

/// How far some work is.
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    is_drawn: bool,
    counts_bytes: bool,
}

/// What a bar counts.
pub(super) enum Extent {
    /// So many publications.
    Publications(u64),
    /// So many bytes of input.
    Bytes(u64),
    /// So many bytes on disk.
    Stored(u64),
    /// Publications, of which nobody knows how many there will be.
    Unknown,
}

/// Says sentences on stderr without tearing the bar.
#[derive(Clone)]
pub(super) struct Notes {
    bar: ProgressBar,
}

impl Progress {
    /// `what` is done, to this extent.
    pub(super) fn new(what: &'static str, extent: &Extent) -> Self {
        let (len, template) = match extent {
            Extent::Publications(len) => (
                Some(*len),
                "{msg} {wide_bar} {human_pos} of {human_len} publications, {eta} to go",
            ),
            Extent::Bytes(len) | Extent::Stored(len) => (
                Some(*len),
                "{msg} {wide_bar} {bytes} of {total_bytes}, {eta} to go",
            ),
            Extent::Unknown => (None, "{msg} {human_pos} publications, {per_sec}"),
        };
        let bar = ProgressBar::with_draw_target(len, ProgressDrawTarget::hidden());
        Self {
            bar: styled(bar, what, template),
            begun: Instant::now(),
            is_drawn: false,
            counts_bytes: matches!(extent, Extent::Bytes(_)),
        }
    }

    /// Nothing is drawn.
    pub(super) fn none() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            begun: Instant::now(),
            is_drawn: true,
            counts_bytes: false,
        }
    }

    /// One more publication is done, of so many bytes.
    pub(super) fn add_publication(&mut self, bytes: u64) {
        self.draw_after_a_while();
        // In a file, a line's end follows.
        self.bar.inc(if self.counts_bytes { bytes + 1 } else { 1 });
    }

    /// It is so far.
    pub(super) fn reach(&mut self, position: u64) {
        self.draw_after_a_while();
        self.bar.set_position(position);
    }

    fn draw_after_a_while(&mut self) {
        if !self.is_drawn && self.begun.elapsed() >= A_WHILE {
            self.is_drawn = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn notes(&self) -> Notes {
        Notes {
            bar: self.bar.clone(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Notes {
    /// Notes beside work that has no bar.
    pub(super) fn alone() -> Self {
        Self {
            bar: ProgressBar::hidden(),
        }
    }

    pub(super) fn say(&self, sentence: impl Display) {
        self.bar.suspend(|| say(sentence));
    }
}

/// Whether a person looks at stderr.
pub(super) fn is_told() -> bool {
    io::stderr().is_terminal()
}

/// Says a sentence on stderr.
pub(super) fn say(sentence: impl Display) {
    // Nobody is left to be told that stderr is gone.
    let _ = writeln!(io::stderr(), "infotainer: {sentence}");
}

/// `bar` with a text in front, drawn as `template` says.
pub(super) fn styled(bar: ProgressBar, what: &'static str, template: &str) -> ProgressBar {
    let bar = bar.with_message(what);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
