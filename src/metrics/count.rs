//! The counters: numbers that one thread adds to and a scrape reads.
//!
//! Owns how they are added to. A [`Count`] has one writer, the thread of its actor or worker: so adding is a load, an addition and a store,
//! which costs what a plain field does. What several threads count is a [`SharedCount`]. Neither orders anything else.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A number that only grows, and that one thread adds to.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Of two threads that do at once, one may be forgotten.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// What was added.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that only grows, and that any thread adds to.
#[derive(Debug, Default)]
pub(crate) struct SharedCount(AtomicU64);

impl SharedCount {
    /// Adds one.
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// What was added.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The values of a label, which are few and known.
pub(crate) trait Label: Copy + 'static {
    /// As a scrape shows them, in the order of [`index`](Self::index).
    const VALUES: &'static [&'static str];

    /// Its place among these.
    fn index(self) -> usize;
}

/// A counter for each value of a label; `C` is the kind of counter. All are there from the beginning, so that the first increase is seen.
#[derive(Debug)]
pub(crate) struct By<L, C> {
    counts: Box<[C]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, C: Default> Default for By<L, C> {
    fn default() -> Self {
        Self {
            counts: L::VALUES.iter().map(|_| C::default()).collect(),
            label: PhantomData,
        }
    }
}

impl<L: Label, C> By<L, C> {
    /// The counter of a value.
    #[inline]
    pub(crate) fn of(&self, label: L) -> &C {
        &self.counts[label.index()]
    }

    /// All values, with their counters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &C)> {
        L::VALUES.iter().copied().zip(&self.counts)
    }
}

/// How often values up to each of some bounds were seen. One thread adds.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Upper bounds, in the unit in which values are added, and one more counter for what is above.
    bounds: &'static [u64],
    counts: Box<[Count]>,
    sum: Count,
}

impl Histogram {
    /// Nothing was seen. `bounds` grow.
    pub(crate) fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| Count::default()).collect(),
            sum: Count::default(),
        }
    }

    /// Adds a value.
    pub(crate) fn add(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place].add(1);
        self.sum.add(value);
    }

    /// Adds a time, in microseconds.
    pub(crate) fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The sum, and how many lie above the bound before and up to each; `unit` is what one of the unit is in the unit of the scrape.
    pub(crate) fn seen(&self, unit: f64) -> Seen {
        let bounds = self.bounds.iter().map(|bound| *bound as f64 * unit);
        let counts = self.counts.iter().map(Count::get);
        Seen {
            sum: self.sum.get() as f64 * unit,
            buckets: bounds.chain([f64::INFINITY]).zip(counts).collect(),
        }
    }
}

/// What a histogram has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Of all values.
    pub(crate) sum: f64,
    /// Upper bounds, and how many lie between the one before and it.
    pub(crate) buckets: Vec<(f64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::new(&[10, 100]);
        for value in [0, 10, 11, 100, 101, 5_000] {
            histogram.add(value);
        }
        let seen = histogram.seen(0.5);
        assert_eq!(seen.buckets, [(5.0, 2), (50.0, 2), (f64::INFINITY, 2)]);
        assert_eq!(seen.sum, 2611.0);
    }

    #[test]
    fn every_value_of_a_label_is_there_before_it_is_counted() {
        #[derive(Clone, Copy)]
        struct Side(usize);
        impl Label for Side {
            const VALUES: &'static [&'static str] = &["left", "right"];
            fn index(self) -> usize {
                self.0
            }
        }
        let by = By::<Side, Count>::default();
        by.of(Side(1)).add(3);
        let counted: Vec<_> = by.iter().map(|(name, count)| (name, count.get())).collect();
        assert_eq!(counted, [("left", 0), ("right", 3)]);
    }
}
