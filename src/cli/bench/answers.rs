//! What the server answered to what was published.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{
    LoadError,
    report::{Latencies, Percentiles, grouped, ratio},
    wire::Answer,
};

/// What was acknowledged, how long that took, and what was not.
pub(super) struct Answers {
    acknowledged: u64,
    errors: u64,
    first_error: Option<String>,
    latencies: Latencies,
    /// When the last one came, from the beginning.
    last: Duration,
}

/// The same, told.
#[derive(Serialize)]
pub(super) struct Answered {
    acknowledged: u64,
    seconds: f64,
    acknowledged_per_second: f64,
    pub(super) latency_us: Percentiles,
    errors: u64,
    first_error: Option<String>,
}

/// The request id under which a publication was sent. `None` if `answer` answers nothing, such as `Welcome`.
pub(super) fn request_id(answer: &Answer<'_>) -> Result<Option<u32>, LoadError> {
    match (answer.request_id, answer.error()) {
        (Some(id), _) => id.try_into().map(Some).map_err(|_| LoadError::NoResponse),
        (None, Some(error)) => Err(LoadError::Server(error)),
        (None, None) => Ok(None),
    }
}

impl Answers {
    pub(super) fn new() -> Self {
        Self {
            acknowledged: 0,
            errors: 0,
            first_error: None,
            latencies: Latencies::new(),
            last: Duration::ZERO,
        }
    }

    /// One came at this time from the beginning; its latency counts from `since`.
    pub(super) fn add(&mut self, answer: &Answer<'_>, since: Duration, now: Duration) {
        self.last = now;
        match answer.error() {
            None => {
                self.acknowledged += 1;
                self.latencies.add(now.saturating_sub(since));
            }
            Some(error) => {
                self.errors += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn told(&self) -> Answered {
        let seconds = self.last.as_secs_f64();
        Answered {
            acknowledged: self.acknowledged,
            seconds,
            acknowledged_per_second: ratio(self.acknowledged as f64, seconds),
            latency_us: self.latencies.percentiles(),
            errors: self.errors,
            first_error: self.first_error.clone(),
        }
    }
}

impl Answered {
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.first_error.as_ref().map(|error| {
            format!(
                "answers that were an error: {}, the first {error}",
                grouped(self.errors as f64)
            )
        })
    }
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "acknowledged  {} in {:.2} s: {} per second",
            grouped(self.acknowledged as f64),
            self.seconds,
            grouped(self.acknowledged_per_second)
        )?;
        writeln!(f, "errors        {}", self.errors)
    }
}
