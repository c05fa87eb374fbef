//! A histogram of durations that any thread adds to without a lock, in the shape that Prometheus reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: from a pin's edge to an inference on the slowest board, about 2.2 apart.
pub const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Counts of durations by size.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Each bucket's own count; the last is for what is longer than every bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Of each bucket alone, not of those below it.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// The sum of all durations, in microseconds.
    pub sum: u64,
}

impl Histogram {
    /// Adds one duration.
    pub fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // Relaxed: a reader may see the count before the sum, and the next scrape sees both.
        self.buckets[BOUNDS.partition_point(|&bound| bound < micros)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        let buckets = std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed));
        Counts { buckets, sum: self.sum.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_longer_to_the_next() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 10_000_000, 10_000_001] {
            histogram.add(Duration::from_micros(micros));
        }
        let counts = histogram.counts();
        assert_eq!((counts.buckets[0], counts.buckets[1]), (2, 1));
        assert_eq!((counts.buckets[BOUNDS.len() - 1], counts.buckets[BOUNDS.len()]), (1, 1));
        assert_eq!((counts.buckets.iter().sum::<u64>(), counts.sum), (5, 20_000_202));
    }
}
