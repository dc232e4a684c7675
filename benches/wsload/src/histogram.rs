//! How long things took: a log-linear histogram of nanoseconds.

/// Steps for each power of two: what is told is less than 1.6 % wrong.
const STEPS: usize = 64;
const POWERS: usize = 60;

pub(crate) struct Histogram {
    counts: Vec<u64>,
    pub(crate) count: u64,
    largest: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; STEPS * POWERS],
            count: 0,
            largest: 0,
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, value: u64) {
        let at = Self::place(value).min(self.counts.len() - 1);
        self.counts[at] += 1;
        self.count += 1;
        self.largest = self.largest.max(value);
    }

    #[inline]
    fn place(value: u64) -> usize {
        if value < STEPS as u64 {
            return value as usize;
        }
        let power = 63 - value.leading_zeros() as usize;
        (power - 5) * STEPS + ((value >> (power - 6)) as usize & (STEPS - 1))
    }

    /// The middle of what is counted at `place`.
    fn value(place: usize) -> u64 {
        if place < STEPS {
            return place as u64;
        }
        let power = place / STEPS + 5;
        (((STEPS + place % STEPS) as u64) << (power - 6)) + (1 << (power - 6)) / 2
    }

    /// What that share of all were at most, in microseconds.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Self::value(place).min(self.largest) as f64 / 1e3;
            }
        }
        0.0
    }

    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.count = 0;
        self.largest = 0;
    }

    /// The fields of a JSON object.
    pub(crate) fn json(&self) -> String {
        format!(
            r#""p50_us":{:.1},"p99_us":{:.1},"p999_us":{:.1},"max_us":{:.1}"#,
            self.quantile_us(0.5),
            self.quantile_us(0.99),
            self.quantile_us(0.999),
            self.largest as f64 / 1e3
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_less_than_two_hundredths_wrong() {
        for value in (0..60).flat_map(|power| [1 << power, (1 << power) + 1, (3 << power) / 2]) {
            let told = Histogram::value(Histogram::place(value));
            assert!(told.abs_diff(value) * 50 <= value, "{value} as {told}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile_us(0.5), 0.0);
        for value in 1..=1000 {
            histogram.add(value * 1000);
        }
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let told = histogram.quantile_us(share);
            assert!((told - expected).abs() < expected / 50.0, "{share}: {told}");
        }
    }
}
