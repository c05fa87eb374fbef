//! From motion and stillness over time to what is looked at and what is classified: a pure state machine.

use std::time::Duration;

use crate::clock::Monotonic;
use crate::config::plan::MotionPlan;

/// What a frame shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The usual.
    Still,
    /// Something moves.
    Motion,
    /// Another scene than before.
    NewScene,
}

/// Who wants a frame, whatever it shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A station is to judge a part by it, or somebody looks at the camera: nothing holds it back.
    pub asked: bool,
    /// A rule is on, or has a hit in its window.
    pub rule: bool,
    /// The processor is to rest.
    pub resting: bool,
}

/// Why a frame is classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody asked for it.
    Asked,
    /// Something moves in it, or did a moment ago, or did in one that had to be skipped.
    Motion,
    /// A rule is on, or has a hit in its window.
    Rule,
    /// It has been long enough.
    Floor,
}

/// Why it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Nothing moves.
    Still,
    /// More frames come than `idle_fps` or `active_fps` wants.
    Rate,
    /// The processor is too warm.
    Heat,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is classified.
    Classify(Reason),
    /// It is not.
    Skip(Skip),
}

/// One camera's memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pace {
    /// When something last moved.
    moved: Option<Monotonic>,
    /// When a frame was last classified; nothing before the first.
    classified: Option<Monotonic>,
    /// Something moved, or the scene changed, and no frame has been classified since.
    owed: bool,
    next_look: Monotonic,
    next_active: Monotonic,
}

impl Pace {
    /// Whether a frame is to be looked at; see [`Gate::looks`](super::Gate::looks).
    pub fn looks(&mut self, plan: &MotionPlan, wanted: Wanted, now: Monotonic) -> bool {
        let idle = !(wanted.asked || wanted.rule || self.owed || self.is_active(plan, now));
        match plan.idle_fps {
            Some(rate) if idle && !self.floor_is_reached(plan, now) => due(&mut self.next_look, rate, now),
            _ => true,
        }
    }

    /// What becomes of a frame that shows `sight`.
    pub fn decide(&mut self, plan: &MotionPlan, sight: Sight, wanted: Wanted, now: Monotonic) -> Decision {
        if sight == Sight::Motion {
            self.moved = Some(now);
        }
        self.owed |= sight != Sight::Still;
        let decision = self.choose(plan, wanted, now);
        if let Decision::Classify(_) = decision {
            self.classified = Some(now);
            self.owed = false;
        }
        decision
    }

    fn choose(&mut self, plan: &MotionPlan, wanted: Wanted, now: Monotonic) -> Decision {
        let reason = match () {
            () if wanted.asked => return Decision::Classify(Reason::Asked),
            () if wanted.rule => Reason::Rule,
            () if self.owed || self.is_active(plan, now) => Reason::Motion,
            () if self.floor_is_reached(plan, now) => Reason::Floor,
            () => return Decision::Skip(Skip::Still),
        };
        match plan.active_fps {
            _ if wanted.resting => Decision::Skip(Skip::Heat),
            Some(rate) if !due(&mut self.next_active, rate, now) => Decision::Skip(Skip::Rate),
            _ => Decision::Classify(reason),
        }
    }

    /// Whether something moves, or did less than `linger` ago.
    pub fn is_active(&self, plan: &MotionPlan, now: Monotonic) -> bool {
        self.moved.is_some_and(|moved| now.since(moved) < plan.linger)
    }

    fn floor_is_reached(&self, plan: &MotionPlan, now: Monotonic) -> bool {
        self.classified.is_none_or(|classified| now.since(classified) >= plan.floor)
    }
}

/// Whether `next` is reached; it then moves on by one period of `rate`, so that the mean rate is kept whatever the frames' own is.
fn due(next: &mut Monotonic, rate: f64, now: Monotonic) -> bool {
    if now < *next {
        return false;
    }
    let period = Duration::from_secs_f64(1.0 / rate);
    // What was not used up is not saved up.
    *next = if now.since(*next) < period { *next + period } else { now + period };
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{Classify, Skip as Skipped};
    use Sight::{Motion, NewScene, Still};

    fn plan() -> MotionPlan {
        MotionPlan {
            threshold: 4,
            area: 0.0,
            floor: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            idle_fps: None,
            active_fps: None,
            masks: Vec::new(),
        }
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_duration(Duration::from_millis(100_000 + ms))
    }

    const NOBODY: Wanted = Wanted { asked: false, rule: false, resting: false };
    const ASKED: Wanted = Wanted { asked: true, ..NOBODY };
    const RULE: Wanted = Wanted { rule: true, ..NOBODY };
    const RESTING: Wanted = Wanted { resting: true, ..NOBODY };

    /// Milliseconds, what is seen, who wants it, and what follows.
    fn check(plan: &MotionPlan, steps: &[(u64, Sight, Wanted, Decision)]) {
        let mut pace = Pace::default();
        for (step, &(ms, sight, wanted, expected)) in steps.iter().enumerate() {
            assert_eq!(pace.decide(plan, sight, wanted, at(ms)), expected, "step {step}, {ms} ms");
        }
    }

    #[test]
    fn motion_is_classified_until_it_has_been_still_for_a_while() {
        check(
            &plan(),
            &[
                (0, NewScene, NOBODY, Classify(Reason::Motion)),
                (100, Still, NOBODY, Skipped(Skip::Still)),
                (200, Motion, NOBODY, Classify(Reason::Motion)),
                (300, Still, NOBODY, Classify(Reason::Motion)),
                (1199, Still, NOBODY, Classify(Reason::Motion)),
                (1200, Still, NOBODY, Skipped(Skip::Still)),
                (11_198, Still, NOBODY, Skipped(Skip::Still)),
                (11_199, Still, NOBODY, Classify(Reason::Floor)),
                (11_300, Still, NOBODY, Skipped(Skip::Still)),
            ],
        );
    }

    #[test]
    fn a_rule_that_is_on_and_a_station_are_never_gated() {
        check(
            &plan(),
            &[
                (0, NewScene, NOBODY, Classify(Reason::Motion)),
                (100, Still, ASKED, Classify(Reason::Asked)),
                (200, Still, RULE, Classify(Reason::Rule)),
                (300, Still, NOBODY, Skipped(Skip::Still)),
                (400, Still, Wanted { resting: true, ..ASKED }, Classify(Reason::Asked)),
                (500, Still, Wanted { resting: true, ..RULE }, Skipped(Skip::Heat)),
                (600, Still, RULE, Classify(Reason::Rule)),
            ],
        );
    }

    #[test]
    fn what_moves_in_a_skipped_frame_is_owed_one() {
        check(
            &plan(),
            &[
                (0, NewScene, RESTING, Skipped(Skip::Heat)),
                (100, Still, NOBODY, Classify(Reason::Motion)),
                (200, Motion, RESTING, Skipped(Skip::Heat)),
                (5000, Still, RESTING, Skipped(Skip::Heat)),
                (5100, Still, NOBODY, Classify(Reason::Motion)),
                (5200, Still, NOBODY, Skipped(Skip::Still)),
            ],
        );
    }

    #[test]
    fn rates_are_means_and_not_saved_up() {
        let plan = MotionPlan { idle_fps: Some(2.0), active_fps: Some(10.0), ..plan() };
        let mut pace = Pace::default();
        assert!(pace.looks(&plan, NOBODY, at(0)), "the first");
        assert_eq!(pace.decide(&plan, NewScene, NOBODY, at(0)), Classify(Reason::Motion));
        // 30 frames a second for 5 seconds: idle, 2 a second are looked at.
        let looks = (1..=150).filter(|n| pace.looks(&plan, NOBODY, at(n * 1000 / 30))).count();
        assert!((10..=11).contains(&looks), "{looks}");
        assert!(pace.looks(&plan, RULE, at(5010)) && pace.looks(&plan, ASKED, at(5011)));
        // Moving, all are looked at and 10 a second classified.
        let classified = (0..150).filter(|n| {
            let now = at(10_000 + n * 1000 / 30);
            pace.looks(&plan, NOBODY, now);
            let decision = pace.decide(&plan, Motion, NOBODY, now);
            assert!(matches!(decision, Classify(Reason::Motion) | Skipped(Skip::Rate)), "{decision:?}");
            decision == Classify(Reason::Motion)
        });
        assert!((50..=51).contains(&classified.count()));
        // After a pause not all at once.
        let burst =
            (0..10).filter(|n| pace.decide(&plan, Motion, NOBODY, at(30_000 + n)) != Skipped(Skip::Rate)).count();
        assert_eq!(burst, 1);
    }
}
