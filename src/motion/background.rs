//! What each block usually looks like, and how much it usually changes: Σ-Δ background estimation (A. Manzanera, J. C. Richefeu,
//! "A new motion detection algorithm based on Σ-Δ background estimation", Pattern Recognition Letters 28(3), 2007).
//!
//! A block's expected brightness and its usual change both move by one step towards what is seen, however far that is away. So
//! a thing that passes leaves hardly a trace, leaves in the wind become the block's own noise, and a thing that stays becomes
//! scenery within a minute.
//!
//! The sun, a cloud and a camera's automatic exposure change all blocks by the same factor: the median of the blocks' factors
//! is taken out first. If most blocks still differ, it is another scene (a lamp was switched, the camera was moved), and learning
//! begins anew.

use std::time::Duration;

use super::luma::UNITS;
use crate::clock::Monotonic;

/// The usual change is compared at this many times its median: the paper has 1 to 4; a missed motion costs an event, a false one an inference.
const AMPLIFICATION: u16 = 4;
/// A block that changes all the time by more than this still counts as moving: levels.
const LOUDEST: u16 = 32 * UNITS;
/// Learning goes by time and not by frames: the steps a second of the paper's 10 to 25 frames a second.
const STEP: Duration = Duration::from_millis(100);
/// Blocks darker than this say nothing of a factor: levels.
const DARK: u16 = 8 * UNITS;
/// One, as a factor.
const ONE: u32 = 1 << 12;
/// Factors nearer to one than this are no change of light: 2 %.
const SAME_LIGHT: u32 = ONE / 50;
/// Tenths of the blocks that must differ for another scene.
const NEW_SCENE: usize = 6;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// By block, whether it moves.
    Moving(&'a [bool]),
    /// Nothing to compare with, or nearly everything differs.
    NewScene,
}

/// The memory of one camera.
#[derive(Clone, Debug)]
pub struct Background {
    /// The least difference that counts, in units.
    least: u16,
    /// By block; empty before the first picture.
    expected: Vec<u16>,
    /// By block: the usual change, amplified.
    noise: Vec<u16>,
    moving: Vec<bool>,
    factors: Vec<u32>,
    learnt: Monotonic,
}

impl Background {
    /// Knows nothing; differences below `threshold` levels never count.
    pub fn new(threshold: u8) -> Self {
        let (expected, noise, moving, factors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let least = u16::from(threshold) * UNITS;
        Self { least, expected, noise, moving, factors, learnt: Monotonic::default() }
    }

    /// Knows nothing any more.
    pub fn forget(&mut self) {
        self.expected.clear();
    }

    /// Compares a picture's block means with what is expected, and learns from it. Only `watched` blocks count for light and scene.
    pub fn see(&mut self, means: &[u16], watched: &[bool], now: Monotonic) -> Change<'_> {
        if self.expected.len() != means.len() {
            self.learn_anew(means, now);
            return Change::NewScene;
        }
        self.follow_the_light(means, watched);
        self.moving.clear();
        let blocks = std::iter::zip(means, &self.expected).zip(&self.noise);
        self.moving.extend(blocks.map(|((&seen, &expected), &noise)| seen.abs_diff(expected) > noise.max(self.least)));
        let count = |of: &dyn Fn(usize) -> bool| (0..means.len()).filter(|&block| watched[block] && of(block)).count();
        let (all, moving) = (count(&|_| true), count(&|block| self.moving[block]));
        if moving * 10 > all * NEW_SCENE {
            self.learn_anew(means, now);
            return Change::NewScene;
        }
        if now.since(self.learnt) >= STEP {
            self.learnt = now;
            self.learn(means);
        }
        Change::Moving(&self.moving)
    }

    fn learn_anew(&mut self, means: &[u16], now: Monotonic) {
        self.expected = means.to_vec();
        self.noise = vec![self.least; means.len()];
        self.learnt = now;
    }

    /// One step each towards what is seen.
    fn learn(&mut self, means: &[u16]) {
        for ((expected, noise), &seen) in self.expected.iter_mut().zip(&mut self.noise).zip(means) {
            *expected = towards(*expected, seen);
            let change = seen.abs_diff(*expected).saturating_mul(AMPLIFICATION).min(LOUDEST);
            *noise = towards(*noise, change);
        }
    }

    /// Multiplies what is expected by the factor by which the picture as a whole became brighter or darker, if it did.
    fn follow_the_light(&mut self, means: &[u16], watched: &[bool]) {
        self.factors.clear();
        let blocks = std::iter::zip(means, &self.expected).zip(watched);
        let bright = blocks.filter(|((_, expected), watched)| **watched && **expected >= DARK);
        self.factors.extend(bright.map(|((&seen, &expected), _)| u32::from(seen) * ONE / u32::from(expected)));
        if self.factors.is_empty() {
            return;
        }
        let middle = self.factors.len() / 2;
        let factor = *self.factors.select_nth_unstable(middle).1;
        if factor.abs_diff(ONE) > SAME_LIGHT {
            let brightest = u32::from(u8::MAX) * u32::from(UNITS);
            for expected in &mut self.expected {
                *expected = (u32::from(*expected) * factor / ONE).min(brightest) as u16;
            }
        }
    }
}

/// One step from `value` towards `goal`.
fn towards(value: u16, goal: u16) -> u16 {
    match value.cmp(&goal) {
        std::cmp::Ordering::Less => value + 1,
        std::cmp::Ordering::Equal => value,
        std::cmp::Ordering::Greater => value - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: usize = 100;
    const LEVEL: i32 = UNITS as i32;

    /// A number in `-range..=range` that depends on nothing but its arguments.
    fn noise(frame: u32, block: usize, range: i32) -> i32 {
        let hash =
            (frame.wrapping_mul(97) ^ block as u32).wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(40_503);
        (hash >> 16) as i32 % (2 * range + 1) - range
    }

    /// A scene in units, on which `paint` may change block `n` of frame `t`; frames 100 ms apart.
    struct Scene(Background, u32);

    impl Scene {
        fn new() -> Self {
            Self(Background::new(4), 0)
        }

        /// The number of moving blocks; `None` for a new scene.
        fn frame(&mut self, paint: impl Fn(usize, i32) -> i32) -> Option<usize> {
            self.1 += 1;
            let base = |block: usize| (60 + (block as i32 * 37) % 120) * LEVEL;
            let value =
                |block| (paint(block, base(block)) + noise(self.1, block, LEVEL / 2)).clamp(0, 255 * LEVEL) as u16;
            let means: Vec<u16> = (0..BLOCKS).map(value).collect();
            let now = Monotonic::from_duration(STEP * self.1);
            match self.0.see(&means, &[true; BLOCKS], now) {
                Change::NewScene => None,
                Change::Moving(moving) => Some(moving.iter().filter(|moving| **moving).count()),
            }
        }

        fn settled() -> Self {
            let mut scene = Self::new();
            assert_eq!(scene.frame(|_, base| base), None, "the first picture is a new scene");
            assert!((0..50).all(|_| scene.frame(|_, base| base) == Some(0)), "sensor noise is no motion");
            scene
        }
    }

    #[test]
    fn what_differs_moves_and_what_went_leaves_no_trace() {
        let mut scene = Scene::settled();
        let thing = |block: usize, base: i32| if block < 7 { base + 30 * LEVEL } else { base };
        for _ in 0..20 {
            assert_eq!(scene.frame(thing), Some(7));
        }
        assert_eq!(scene.frame(|_, base| base), Some(0), "two seconds of it are forgotten");
    }

    #[test]
    fn what_stays_becomes_scenery_within_a_minute() {
        let mut scene = Scene::settled();
        let thing = |block: usize, base: i32| if block < 7 { base + 60 * LEVEL } else { base };
        let frames = (0..1200).take_while(|_| scene.frame(thing) != Some(0)).count();
        assert!((50..600).contains(&frames), "{frames} frames of 100 ms");
    }

    #[test]
    fn leaves_in_the_wind_become_noise_and_a_thing_before_them_is_still_seen() {
        let mut scene = Scene::settled();
        let leaves = |frame: u32, block: usize, base: i32| match block {
            0..20 => base + noise(frame, block + 500, 6 * LEVEL),
            _ => base,
        };
        let mut frame = 0;
        let mut moving = |scene: &mut Scene, thing: i32| {
            frame += 1;
            scene.frame(|block, base| leaves(frame, block, base) + if block < 10 { thing } else { 0 }).unwrap()
        };
        let early: usize = (0..20).map(|_| moving(&mut scene, 0)).sum();
        (0..1500).for_each(|_| _ = moving(&mut scene, 0));
        let late: usize = (0..20).map(|_| moving(&mut scene, 0)).sum();
        assert!(early > 60 && late * 10 <= early, "{early} {late}");
        assert!(moving(&mut scene, 60 * LEVEL) >= 8);
    }

    #[test]
    fn light_is_followed_whatever_stands_in_it() {
        let mut scene = Scene::settled();
        // A cloud, at once and by a third; then slowly back.
        assert_eq!(scene.frame(|_, base| base * 2 / 3), Some(0));
        for tenth in 0..=33 {
            assert_eq!(scene.frame(|_, base| base * (67 + tenth) / 100), Some(0), "{tenth}");
        }
        // A thing that comes with the cloud is seen.
        assert_eq!(scene.frame(|block, base| base * 2 / 3 + if block < 9 { 40 * LEVEL } else { 0 }), Some(9));
    }

    #[test]
    fn another_scene_is_one_frame_and_then_the_usual() {
        let mut scene = Scene::settled();
        let other = |block: usize, _: i32| (40 + (block as i32 * 53) % 170) * LEVEL;
        assert_eq!(scene.frame(other), None);
        assert!((0..20).all(|_| scene.frame(other) == Some(0)));
    }

    #[test]
    fn learning_goes_by_time_and_not_by_frames() {
        let mut fast = Background::new(4);
        let at = |ms| Monotonic::from_duration(Duration::from_millis(ms));
        fast.see(&[1000; 4], &[true; 4], at(0));
        // 200 frames in 2 seconds move the expectation by 20 steps.
        (0..200).for_each(|n| _ = fast.see(&[1000, 1000, 1000, 1400], &[true; 4], at(n * 10)));
        assert!((1018..=1021).contains(&fast.expected[3]), "{:?}", fast.expected);
    }
}
