//! The figures of a run as a table in Markdown, which `docs/performance.md` has a copy of.
//!
//! Criterion says what it found beside each benchmark, at length, and keeps it in files: the times are taken from there.

use std::{fs, path::PathBuf, time::SystemTime};

use criterion::Throughput;

use crate::allocations::Allocations;

pub(crate) struct Table {
    began: SystemTime,
    rows: Vec<String>,
}

/// Where criterion keeps what it found.
pub(crate) fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("criterion")
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            began: SystemTime::now(),
            rows: Vec::new(),
        }
    }

    /// Adds what was found of a benchmark that handles so much each time. There are no times if benchmarks are only tested.
    pub(crate) fn add(
        &mut self,
        group: &str,
        name: &str,
        handled: &Throughput,
        allocations: &Allocations,
    ) {
        let Some(nanoseconds) = self.median(group, name) else {
            return;
        };
        let (operations, speed) = match *handled {
            Throughput::Bytes(bytes) => {
                let speed = bytes as f64 / nanoseconds * 1e3;
                (1.0, format!("{speed:.0} MB/s"))
            }
            Throughput::Elements(elements) => {
                let speed = elements as f64 / nanoseconds * 1e3;
                (elements as f64, format!("{speed:.2} M/s"))
            }
            _ => (1.0, String::new()),
        };
        let (times, bytes) = (allocations.times, allocations.bytes);
        self.rows.push(format!(
            "| {group} | {name} | {:.0} | {speed} | {times:.2} | {bytes:.0} |",
            nanoseconds / operations
        ));
    }

    #[expect(
        clippy::print_stdout,
        reason = "it stands beside what criterion prints"
    )]
    pub(crate) fn print(&self) {
        if self.rows.is_empty() {
            return;
        }
        println!(
            "\n| area | operation | ns each | speed | allocations each | bytes allocated each |"
        );
        println!("| --- | --- | --- | --- | --- | --- |");
        for row in &self.rows {
            println!("{row}");
        }
    }

    /// The median time of an iteration, in nanoseconds, if this run took it.
    fn median(&self, group: &str, name: &str) -> Option<f64> {
        let file = kept().join(group).join(name).join("new/estimates.json");
        if fs::metadata(&file).ok()?.modified().ok()? < self.began {
            return None;
        }
        let estimates: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        estimates["median"]["point_estimate"].as_f64()
    }
}
