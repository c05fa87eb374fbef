//! The monotonic clock that every frame, event and edge is stamped with.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time on `CLOCK_MONOTONIC`, the clock that V4L2 stamps its buffers with: time since boot without suspend.
///
/// Unlike [`std::time::Instant`] it can be made from a driver's time stamp, and from a number in a test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// The clock's reading now.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // The kernel promises both fields to be non-negative on this clock.
        Self(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
    }

    /// The point `since_boot` after the clock's zero.
    pub const fn from_duration(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// The time since the clock's zero.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// The time that has passed from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

impl Sub<Duration> for Monotonic {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(rhs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_same_clock_as_instant() {
        let (a, before) = (Monotonic::now(), std::time::Instant::now());
        std::thread::sleep(Duration::from_millis(5));
        let (b, after) = (Monotonic::now(), std::time::Instant::now());
        let difference = b.since(a).abs_diff(after - before);
        assert!(difference < Duration::from_millis(5), "{difference:?}");
    }

    #[test]
    fn an_earlier_point_is_zero_away() {
        let early = Monotonic::from_duration(Duration::from_secs(1));
        assert_eq!(early.since(early + Duration::from_secs(1)), Duration::ZERO);
    }
}
