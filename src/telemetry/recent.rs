//! The last few thousand durations of a kind, for exact percentiles in bounded memory.

use std::collections::VecDeque;
use std::time::Duration;

/// A ring of the most recent durations.
#[derive(Clone, Debug)]
pub struct Recent {
    capacity: usize,
    samples: VecDeque<Duration>,
}

/// Percentiles over a [`Recent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentiles {
    /// Half are at most this.
    pub median: Duration,
    /// 99 of 100 are at most this.
    pub p99: Duration,
    /// The largest.
    pub max: Duration,
}

impl Recent {
    /// A ring of at most `capacity` samples.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, samples: VecDeque::new() }
    }

    /// Adds a sample; the oldest makes room.
    pub fn add(&mut self, sample: Duration) {
        if self.samples.len() == self.capacity {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The percentiles by nearest rank, or nothing without samples.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let mut sorted: Vec<Duration> = self.samples.iter().copied().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Percentiles { median: rank(50)?, p99: rank(99)?, max: rank(100)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(samples: impl Iterator<Item = u64>, capacity: usize, expected: Option<[u64; 3]>) {
        let mut recent = Recent::new(capacity);
        samples.for_each(|s| recent.add(Duration::from_millis(s)));
        let got = recent.percentiles().map(|p| [p.median, p.p99, p.max].map(|d| d.as_millis() as u64));
        assert_eq!(got, expected);
    }

    #[test]
    fn percentiles_are_by_nearest_rank_over_what_is_kept() {
        check(std::iter::empty(), 10, None);
        check([5].into_iter(), 10, Some([5, 5, 5]));
        check((1..=100).rev(), 100, Some([50, 99, 100]));
        check(1..=1000, 10, Some([995, 1000, 1000]));
    }
}
