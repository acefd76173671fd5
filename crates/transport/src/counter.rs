//! Counters and histograms of one thread: a cell each, no lock, no allocation.

use std::cell::Cell;
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    pub fn add(&self) {
        self.0.set(self.0.get() + 1);
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Upper bounds of the buckets of a [`Histogram`], in microseconds and as seconds in text.
pub const BOUNDS: [(u64, &str); 15] = [
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
];

/// How long something took, in buckets from 250 us to 10 s.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last is for what is longer than all bounds.
    buckets: [Cell<u64>; BOUNDS.len() + 1],
    microseconds: Cell<u64>,
}

impl Histogram {
    pub fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|(bound, _)| *bound < micros);
        let bucket = &self.buckets[place];
        bucket.set(bucket.get() + 1);
        let sum = self.microseconds.get();
        self.microseconds.set(sum.saturating_add(micros));
    }

    /// Adds what `other` has counted.
    pub fn absorb(&self, other: &Self) {
        for (own, theirs) in self.buckets.iter().zip(&other.buckets) {
            own.set(own.get() + theirs.get());
        }
        let sum = self.microseconds.get();
        self.microseconds
            .set(sum.saturating_add(other.microseconds.get()));
    }

    /// In the order of [`BOUNDS`], then what is longer.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(Cell::get)
    }

    pub fn seconds(&self) -> f64 {
        self.microseconds.get() as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_on_a_bound_belongs_below_it() {
        let histogram = Histogram::default();
        for micros in [0, 250, 251, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counts: Vec<_> = histogram.counts().collect();
        assert_eq!(counts[0], 2);
        assert_eq!(counts[1], 1);
        assert_eq!(counts[14..], [1, 1]);
        assert_eq!(histogram.seconds(), 20.000_502);
        let sum = Histogram::default();
        sum.absorb(&histogram);
        sum.absorb(&histogram);
        assert_eq!(sum.counts().sum::<u64>(), 10);
    }

    #[test]
    fn bounds_rise_and_are_their_texts() {
        assert!(BOUNDS.is_sorted_by(|a, b| a.0 < b.0));
        for (micros, text) in BOUNDS {
            assert_eq!(text.parse::<f64>().unwrap() * 1e6, micros as f64);
        }
    }
}
