//! Less work before the board is too hot: the kernel and the firmware throttle all cores at once, and with them the pins.
//!
//! Each step gives inference a smaller share of the time, by a rest after each. A rest never holds back what a station asked for.

use std::time::Duration;

use crate::clock::Monotonic;
use crate::config::plan::ThermalPlan;
use crate::telemetry::thermal::{self, Thermal};

/// A step: from so many degrees below the limit on, one part in so many of the time is for inference.
struct Step {
    below: f64,
    share: u32,
}

const STEPS: [Step; 3] = [Step { below: 12.0, share: 2 }, Step { below: 8.0, share: 4 }, Step { below: 4.0, share: 8 }];
/// How much cooler than where a step began it must be before the step is left.
const HYSTERESIS: f64 = 4.0;
/// A zone's temperature moves within seconds.
const RHYTHM: Duration = Duration::from_secs(2);
/// However slow a model is: a camera is not blind for longer.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// The step that follows `step` when the board is as `seen`; up at once, down one at a time.
fn follow(step: usize, limit: f64, seen: Thermal) -> usize {
    if seen.throttled == Some(true) {
        return STEPS.len();
    }
    let Some(celsius) = seen.celsius else { return step.min(STEPS.len() - 1) };
    let reached = STEPS.iter().filter(|step| celsius >= limit - step.below).count();
    let left = step > 0 && celsius < limit - STEPS[step - 1].below - HYSTERESIS;
    if left { step - 1 } else { step.max(reached) }
}

/// The steps of a running daemon.
pub(super) struct Heat {
    plan: Option<ThermalPlan>,
    step: usize,
    read: Monotonic,
    rest_until: Monotonic,
}

impl Heat {
    /// Cool; without a plan for ever.
    pub(super) fn new(plan: Option<ThermalPlan>) -> Self {
        if let Some(plan) = &plan {
            let seen = thermal::read(&plan.sysfs);
            if seen == Thermal::default() {
                let sysfs = plan.sysfs.display();
                log::warn!("[device.thermal]: {sysfs} shows no temperature and no throttling; nothing follows from it");
            }
        }
        Self { plan, step: 0, read: Monotonic::default(), rest_until: Monotonic::default() }
    }

    /// Looks at the board, not too often, and gives the step if it has changed.
    pub(super) fn look(&mut self, now: Monotonic) -> Option<usize> {
        let plan = self.plan.as_ref()?;
        if now.since(self.read) < RHYTHM {
            return None;
        }
        self.read = now;
        let seen = thermal::read(&plan.sysfs);
        let step = follow(self.step, plan.limit, seen);
        if step == self.step {
            return None;
        }
        let degrees = seen.celsius.map_or("unknown".into(), |celsius| format!("{celsius:.1} °C"));
        let share = if step == 0 { 1 } else { STEPS[step - 1].share };
        let words = format!("thermal step {step} of {} ({degrees}): inference gets 1/{share} of the time", STEPS.len());
        if step > self.step {
            log::warn!("{words}")
        } else {
            log::info!("{words}")
        }
        self.step = step;
        Some(step)
    }

    /// An inference that took `took` has ended at `now`.
    pub(super) fn worked(&mut self, took: Duration, now: Monotonic) {
        if self.step > 0 {
            self.rest_until = now + (took * (STEPS[self.step - 1].share - 1)).min(LONGEST_REST);
        }
    }

    /// Whether inference is to rest.
    pub(super) fn rests(&self, now: Monotonic) -> bool {
        self.step > 0 && now < self.rest_until
    }

    /// For the status line: nothing while the board is cool.
    pub(super) fn describe(&self) -> String {
        if self.step == 0 { String::new() } else { format!("; thermal step {} of {}", self.step, STEPS.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_halves_the_share_as_the_page_says() {
        assert!(STEPS.iter().zip(1..).all(|(step, number)| step.share == 1 << number));
    }

    fn warm(celsius: f64) -> Thermal {
        Thermal { celsius: Some(celsius), throttled: Some(false) }
    }

    #[test]
    fn steps_come_at_once_and_go_one_by_one_with_hysteresis() {
        let throttled = Thermal { celsius: Some(60.0), throttled: Some(true) };
        let unknown = Thermal::default();
        let mut step = 0;
        for (number, (seen, expected)) in [
            (warm(50.0), 0),
            (warm(67.9), 0),
            (warm(68.0), 1),
            (warm(66.0), 1),
            (warm(64.0), 1),
            (warm(63.9), 0),
            (warm(76.5), 3),
            (warm(72.0), 3),
            (warm(71.9), 2),
            (warm(71.9), 2),
            (warm(67.9), 1),
            (warm(72.5), 2),
            (throttled, 3),
            (warm(60.0), 2),
            (warm(60.0), 1),
            (warm(60.0), 0),
            (throttled, 3),
            // A zone that is not there any more is no reason to rest for ever at the longest.
            (unknown, 2),
            (unknown, 2),
        ]
        .into_iter()
        .enumerate()
        {
            step = follow(step, 80.0, seen);
            assert_eq!(step, expected, "reading {number}: {seen:?}");
        }
        assert_eq!(follow(0, 80.0, unknown), 0);
    }

    #[test]
    fn a_board_that_warms_up_rests_between_inferences_and_recovers() {
        let sys = tempfile::tempdir().unwrap();
        let zone = sys.path().join("class/thermal/thermal_zone0");
        std::fs::create_dir_all(&zone).unwrap();
        let set = |milli: u32| std::fs::write(zone.join("temp"), milli.to_string()).unwrap();
        let at = |ms| Monotonic::from_duration(Duration::from_secs(100) + Duration::from_millis(ms));
        set(50_000);
        let mut heat = Heat::new(Some(ThermalPlan { limit: 80.0, sysfs: sys.path().into() }));
        assert_eq!(heat.look(at(0)), None);
        heat.worked(Duration::from_millis(100), at(0));
        assert!(!heat.rests(at(1)));
        set(73_000);
        assert_eq!(heat.look(at(1000)), None, "not looked at so often");
        assert_eq!(heat.look(at(2000)), Some(2));
        assert!(heat.describe().contains("step 2 of 3"));
        // A quarter of the time: three times as much rest as work.
        heat.worked(Duration::from_millis(100), at(2000));
        assert!(heat.rests(at(2299)) && !heat.rests(at(2300)));
        heat.worked(Duration::from_secs(60), at(3000));
        assert!(heat.rests(at(7999)) && !heat.rests(at(8000)), "never longer than 5 s");
        set(50_000);
        assert_eq!([4000, 6000, 8000].map(|ms| heat.look(at(ms))), [Some(1), Some(0), None]);
        assert!(!heat.rests(at(7000)) && heat.describe().is_empty());
        let mut off = Heat::new(None);
        set(99_000);
        assert_eq!(off.look(at(9000)), None);
    }
}
