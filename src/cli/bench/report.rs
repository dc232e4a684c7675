//! What a load says at its end: figures for a person, or one JSON object.

use std::{fmt, io, io::Write, time::Duration};

use hdrhistogram::Histogram;
use infotainer::counted;
use serde::Serialize;

use super::args::Target;
use crate::cli::{Failure, output::unwritten};

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

/// What a load comes to.
pub(super) trait Figures: Serialize + fmt::Display {
    /// What was not as it has to be, if anything.
    fn failure(&self) -> Option<String> {
        None
    }
}

/// What is said of a load whose subscribers missed something.
pub(super) fn broken_sequence(times: u64) -> Option<String> {
    let told = || {
        let times = counted(times, "time", "times");
        format!("sequences did not follow each other {times}")
    };
    (times > 0).then(told)
}

/// Prints `figures`.
pub(super) fn print(target: &Target, figures: &impl Figures) -> Result<(), Failure> {
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

/// How much of something comes to one of something else; 0 if that is nothing.
pub(super) fn ratio(of: f64, to: f64) -> f64 {
    if to > 0.0 { of / to } else { 0.0 }
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
