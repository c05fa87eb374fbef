//! Exponential back-off with jitter, for cameras and brokers that come back in their own time.

use std::time::Duration;

/// Waiting times that double from `floor` to `ceiling`, each shortened by a random share of up to half, so that many
/// boards do not come back to one broker in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    floor: Duration,
    ceiling: Duration,
    attempts: u32,
    random: u64,
}

impl Backoff {
    /// Back-off from `floor` up to `ceiling`. `seed` picks the jitter; different boards and cameras give different ones.
    pub fn new(floor: Duration, ceiling: Duration, seed: u64) -> Self {
        Self { floor, ceiling: ceiling.max(floor), attempts: 0, random: seed | 1 }
    }

    /// How long to wait before the next attempt, in `[d/2, d]` with `d = min(floor * 2^attempts, ceiling)`.
    pub fn next_delay(&mut self) -> Duration {
        let factor = 2u32.saturating_pow(self.attempts.min(31));
        let delay = self.floor.saturating_mul(factor).min(self.ceiling);
        self.attempts = self.attempts.saturating_add(1);
        delay - delay.mul_f64(0.5 * self.fraction())
    }

    /// Changes the ceiling, for instance when the device node has gone away.
    pub fn set_ceiling(&mut self, ceiling: Duration) {
        self.ceiling = ceiling.max(self.floor);
    }

    /// Starts again from the floor, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// A number in `[0, 1)`: xorshift64* (Vigna 2016), plenty for jitter.
    fn fraction(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_ceiling_with_jitter_below() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 7);
        for expected in [100, 200, 400, 800, 1000, 1000, 1000] {
            let delay = backoff.next_delay().as_millis();
            assert!((expected / 2..=expected).contains(&delay), "{delay} not in half..full of {expected}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }

    #[test]
    fn never_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(u64::MAX / 2), Duration::MAX, 1);
        for _ in 0..100 {
            backoff.next_delay();
        }
    }
}
