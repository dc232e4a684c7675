//! What the server has: looked at while it works, and judged at the end.
//!
//! Each figure goes up and down with what is done, so no two moments are compared but medians of quarters: the second, when
//! everything is warm, and the last. A bound is what may be between them by chance, with room; a leak that matters is more in two
//! minutes, and ten times as much in twenty. What has to be as it was when all clients are gone is held to that exactly.

use std::{fs, path::Path, time::Instant};

use super::support::Process;

const MIB: u64 = 1 << 20;

/// What is looked at, its name, and by how much the last quarter may be above the second.
const BOUNDS: [(&str, u64); 6] = [
    // What allocator, sled's cache and a journal being sealed (32 MiB read at once) make of it.
    ("memory", 24 * MIB),
    ("threads", 1),
    // Connections that are open at the time, and segments.
    ("files", 8),
    ("sockets", 6),
    // Segments wait for their last publication to be outdated, or for a merge.
    ("data", 48 * MIB),
    ("catalogue", 4 * MIB),
];

/// Figures in the order of [`BOUNDS`].
type Sample = [u64; BOUNDS.len()];

pub(crate) struct Watch {
    begun: Instant,
    idle: Files,
    samples: Vec<Sample>,
}

impl Watch {
    /// Remembers what is open while nobody is connected.
    pub(crate) fn begin(server: &Process) -> Self {
        Self {
            begun: Instant::now(),
            idle: Files::of(server),
            samples: Vec::new(),
        }
    }

    pub(crate) fn sample(&mut self, server: &Process) {
        let files = Files::of(server);
        let proc = server.proc();
        let data = server.data_dir();
        self.samples.push([
            server.memory(),
            fs::read_dir(proc.join("task")).unwrap().count() as u64,
            files.all,
            files.sockets,
            used(&data),
            used(&data.join("catalogue")),
        ]);
    }

    /// Whether as many sockets are open as at first, and no file that is no more.
    pub(crate) fn is_idle(&self, server: &Process) -> bool {
        let files = Files::of(server);
        files.sockets <= self.idle.sockets && files.deleted == 0
    }

    fn median(&self, quarter: usize, figure: usize) -> u64 {
        let quarters = self.samples.len() / 4;
        let samples = &self.samples[quarter * quarters..(quarter + 1) * quarters];
        let mut figures: Vec<_> = samples.iter().map(|sample| sample[figure]).collect();
        figures.sort_unstable();
        figures[figures.len() / 2]
    }

    pub(crate) fn report(&self) {
        if self.samples.len() < 4 {
            return;
        }
        println!(
            "{} samples in {:?}; medians of the quarters, and the most",
            self.samples.len(),
            self.begun.elapsed()
        );
        for (figure, (name, _)) in BOUNDS.iter().enumerate() {
            let most = self
                .samples
                .iter()
                .map(|sample| sample[figure])
                .max()
                .unwrap();
            let medians = [0, 1, 2, 3].map(|quarter| self.median(quarter, figure));
            println!("{name:>10}: {medians:?}, {most}");
        }
    }

    pub(crate) fn judge(&self) {
        for (figure, (name, bound)) in BOUNDS.iter().enumerate() {
            let (before, after) = (self.median(1, figure), self.median(3, figure));
            assert!(
                after <= before + bound,
                "{name} grew from {before} to {after}"
            );
        }
    }
}

/// Open files.
struct Files {
    all: u64,
    sockets: u64,
    /// Those without a name.
    deleted: u64,
}

impl Files {
    fn of(server: &Process) -> Self {
        let (mut all, mut sockets, mut deleted) = (0, 0, 0);
        for file in fs::read_dir(server.proc().join("fd")).unwrap() {
            // It may be closed by now.
            let Ok(target) = fs::read_link(file.unwrap().path()) else {
                continue;
            };
            let target = target.to_string_lossy();
            all += 1;
            sockets += u64::from(target.starts_with("socket:"));
            deleted += u64::from(target.ends_with(" (deleted)"));
        }
        Self {
            all,
            sockets,
            deleted,
        }
    }
}

/// Bytes on disk of what is in a folder; what goes meanwhile counts for nothing.
fn used(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => used(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
