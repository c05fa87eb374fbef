//! How often one place in the program may warn. Pure.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Monotonic;

/// Lines at once: all that a rare fault ever says.
const BURST: u32 = 20;
/// Then one every so often.
const EVERY: Duration = Duration::from_secs(30);

/// A file of the program, and a line in it: there are only so many.
type Place = (&'static str, u32);

/// What has been said lately.
#[derive(Default)]
pub(super) struct Limits(HashMap<Place, Bucket>);

/// Lines that may be said, more with time.
struct Bucket {
    tokens: u32,
    /// When the next one comes, while there are fewer than [`BURST`].
    since: Monotonic,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is said.
    Say,
    /// It is said, with how many were not since the last.
    SayAfter(u64),
    /// It is counted.
    LeaveOut,
}

impl Limits {
    /// What becomes of a line from `place` at `now`.
    pub(super) fn judge(&mut self, place: Place, now: Monotonic) -> Verdict {
        let bucket = self.0.entry(place).or_insert(Bucket { tokens: BURST, since: now, left_out: 0 });
        let earned = (now.since(bucket.since).as_secs() / EVERY.as_secs()).min(u64::from(BURST)) as u32;
        bucket.since = if bucket.tokens + earned >= BURST { now } else { bucket.since + EVERY * earned };
        bucket.tokens = (bucket.tokens + earned).min(BURST);
        if bucket.tokens == 0 {
            bucket.left_out += 1;
            return Verdict::LeaveOut;
        }
        bucket.tokens -= 1;
        match std::mem::take(&mut bucket.left_out) {
            0 => Verdict::Say,
            left_out => Verdict::SayAfter(left_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_duration(Duration::from_secs(1000 + seconds))
    }

    #[test]
    fn a_burst_is_said_then_one_now_and_then_with_the_count_of_the_others() {
        let mut limits = Limits::default();
        let mut say = |line: u32, second: u64| limits.judge(("f.rs", line), at(second));
        assert!((0..BURST).all(|_| say(1, 0) == Verdict::Say));
        assert!((1..30).all(|second| say(1, second) == Verdict::LeaveOut));
        assert_eq!(say(2, 29), Verdict::Say, "another place");
        assert_eq!(say(1, 30), Verdict::SayAfter(29));
        assert_eq!([say(1, 59), say(1, 60), say(1, 61)], [Verdict::LeaveOut, Verdict::SayAfter(1), Verdict::LeaveOut]);
        // Quiet for long: a whole burst again, and no more.
        assert_eq!(say(1, 9000), Verdict::SayAfter(1));
        assert!((1..BURST).all(|_| say(1, 9000) == Verdict::Say));
        assert_eq!(say(1, 9001), Verdict::LeaveOut);
    }

    #[test]
    fn a_place_that_warns_now_and_then_is_never_left_out() {
        let mut limits = Limits::default();
        assert!((0..200).all(|turn| limits.judge(("f.rs", 1), at(turn * 30)) == Verdict::Say));
    }
}
