//! What a load says at its end: figures for a person, or one JSON object.

use std::{fmt, fs, io, io::Write, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{LoadError, Target};
use crate::cli::{Failure, output::unwritten};

/// Linux tells the time of a process in these, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// The longest latency that is told apart.
const LONGEST: Duration = Duration::from_secs(600);

/// How long each of many things took.
pub(super) struct Latencies(Histogram<u64>);

/// Microseconds.
#[derive(Serialize)]
pub(super) struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    max: f64,
}

/// What the server's process used.
#[derive(Serialize)]
pub(super) struct ServerCpu {
    pub(super) seconds: f64,
    /// Of the load's work: 0 while less than one tick was used.
    pub(super) per_cpu_second: f64,
}

/// The server's process at the beginning of a load.
pub(super) struct CpuMeter {
    pid: Option<u32>,
    before: f64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        let longest = LONGEST.as_nanos() as u64;
        let histogram = Histogram::new_with_bounds(1, longest, 3)
            .expect("invariant: the bounds and three digits are possible");
        Self(histogram)
    }

    pub(super) fn add(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_nanos() as u64);
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let at = |quantile| micros(self.0.value_at_quantile(quantile));
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(self.0.max()),
        }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50,
            p90,
            p99,
            p999,
            max,
        } = *self;
        write!(
            f,
            "p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            time(p50),
            time(p90),
            time(p99),
            time(p999),
            time(max)
        )
    }
}

impl CpuMeter {
    pub(super) fn start(pid: Option<u32>) -> Result<Self, LoadError> {
        let before = pid.map_or(Ok(0.0), cpu_seconds)?;
        Ok(Self { pid, before })
    }

    /// What was used since the start, for `work` things.
    pub(super) fn used(&self, work: u64) -> Result<Option<ServerCpu>, LoadError> {
        let Some(pid) = self.pid else {
            return Ok(None);
        };
        let seconds = cpu_seconds(pid)? - self.before;
        let per_cpu_second = if seconds > 0.0 {
            work as f64 / seconds
        } else {
            0.0
        };
        Ok(Some(ServerCpu {
            seconds,
            per_cpu_second,
        }))
    }
}

impl fmt::Display for ServerCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} s, {} per CPU second",
            self.seconds,
            grouped(self.per_cpu_second)
        )
    }
}

/// User and system time of a process and all its threads (proc_pid_stat(5), fields 14 and 15).
fn cpu_seconds(pid: u32) -> Result<f64, LoadError> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_err(|error| LoadError::Pid(pid, error))?;
    used_ticks(&stat)
        .map(|ticks| ticks as f64 / TICKS_PER_SECOND)
        .ok_or_else(|| LoadError::Pid(pid, io::ErrorKind::InvalidData.into()))
}

/// Bytes of memory that a process has resident (proc_pid_status(5)).
pub(super) fn resident(pid: u32) -> Result<u64, LoadError> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|error| LoadError::Pid(pid, error))?;
    let kib = status.lines().find_map(|line| {
        let rest = line.strip_prefix("VmRSS:")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| LoadError::Pid(pid, io::ErrorKind::InvalidData.into()))
}

fn used_ticks(stat: &str) -> Option<u64> {
    // The program's name is in parentheses, and may hold anything.
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Prints `figures`.
pub(super) fn print<F: Serialize + fmt::Display>(
    target: &Target,
    figures: &F,
) -> Result<(), Failure> {
    let text = if target.json {
        serde_json::to_string(figures)
            .map_err(|error| Failure::Failed(format!("the figures are no JSON: {error}")))?
            + "\n"
    } else {
        figures.to_string()
    };
    io::stdout().write_all(text.as_bytes()).map_err(unwritten)
}

/// Microseconds, for a person.
fn time(micros: f64) -> String {
    match micros {
        ..1000.0 => format!("{micros:.0} us"),
        1000.0..1_000_000.0 => format!("{:.2} ms", micros / 1000.0),
        _ => format!("{:.2} s", micros / 1_000_000.0),
    }
}

/// A whole number in groups of three digits.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 100";
        assert_eq!(used_ticks(stat), Some(300));
        assert_eq!(used_ticks("7 (a"), None);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [
            (0.0, "0"),
            (999.4, "999"),
            (1000.0, "1,000"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn percentiles_are_microseconds() {
        let mut latencies = Latencies::new();
        for micros in 1..=1000 {
            latencies.add(Duration::from_micros(micros));
        }
        let Percentiles { p50, p99, max, .. } = latencies.percentiles();
        for (got, expected) in [(p50, 500.0), (p99, 990.0), (max, 1000.0)] {
            assert!((got - expected).abs() < expected / 500.0, "{got}");
        }
    }
}
