//! Follow, pulse, toggle, pattern: from events and time to "active or not". Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::plan::{GpioMode, Pattern};

/// The state of one line's mode.
#[derive(Debug)]
pub(super) struct Machine {
    mode: GpioMode,
    /// Follow: the rules that are on. The line is active while any is.
    on: BTreeSet<Arc<str>>,
    /// Pulse, pattern: when the level that is driven ends.
    until: Option<Instant>,
    /// Pattern: the step that is played, counted through all repetitions.
    step: usize,
}

impl Machine {
    pub(super) fn new(mode: GpioMode) -> Self {
        Self { mode, on: BTreeSet::new(), until: None, step: 0 }
    }

    /// A rule turned on or off while the line is (in)active: what the line shall be now, `None` to leave it alone.
    /// A pulse counts only once [`driven`](Self::driven) says when it began.
    pub(super) fn event(&mut self, rule: &Arc<str>, on: bool, active: bool) -> Option<bool> {
        match &self.mode {
            GpioMode::Follow => {
                if on {
                    self.on.insert(rule.clone());
                } else {
                    self.on.remove(rule);
                }
                Some(!self.on.is_empty())
            }
            GpioMode::Pulse(_) => on.then_some(true),
            GpioMode::Toggle => on.then_some(!active),
            GpioMode::Pattern(pattern) if on && self.until.is_some() => {
                // The repetition that is running ends as it would, and counts as the first.
                self.step %= pattern.steps.len();
                None
            }
            GpioMode::Pattern(_) if on => {
                self.step = 0;
                Some(true)
            }
            GpioMode::Pattern(_) => None,
        }
    }

    /// The line was driven as [`event`](Self::event) or [`advance`](Self::advance) asked, and the call returned at `now`: no
    /// level is ever shorter than asked, however slow the call or the thread was, and a second pulse extends the first.
    pub(super) fn driven(&mut self, now: Instant) {
        // A level so long that the clock cannot name its end has none.
        match &self.mode {
            GpioMode::Pulse(length) => self.until = self.until.max(now.checked_add(*length)),
            GpioMode::Pattern(pattern) => self.until = step_of(pattern, self.step).and_then(|it| now.checked_add(it)),
            GpioMode::Follow | GpioMode::Toggle => {}
        }
    }

    /// When the level that is driven ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// What the line shall be now that the time of its level is over at `now`; said once. If it is something,
    /// [`driven`](Self::driven) is to follow.
    pub(super) fn advance(&mut self, now: Instant) -> Option<bool> {
        if self.until.is_none_or(|until| now < until) {
            return None;
        }
        self.until = None;
        match &self.mode {
            GpioMode::Pattern(pattern) => {
                self.step += 1;
                let more = step_of(pattern, self.step).is_some();
                Some(more && (self.step % pattern.steps.len()).is_multiple_of(2))
            }
            _ => Some(false),
        }
    }

    /// Whether a level that time ends is to be followed by another one: a pulse has none.
    pub(super) fn counts_on(&self) -> bool {
        matches!(self.mode, GpioMode::Pattern(_))
    }

    /// The line was lost, and is at its safe level when it comes back: what it shall be then. Only a state is caught up
    /// on; a pulse, a pattern or a toggle that nobody saw is lost.
    pub(super) fn reopened(&mut self) -> Option<bool> {
        self.until = None;
        match self.mode {
            GpioMode::Follow if !self.on.is_empty() => Some(true),
            _ => None,
        }
    }

    /// Whether an event for an absent line is lost: a state can be caught up on later.
    pub(super) fn loses_while_away(&self) -> bool {
        self.mode != GpioMode::Follow
    }
}

/// The length of step `index`, counted through all repetitions; none after the last.
fn step_of(pattern: &Pattern, index: usize) -> Option<Duration> {
    let count = pattern.steps.len();
    (index < count.saturating_mul(pattern.repeat as usize)).then(|| pattern.steps[index % count])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PULSE: GpioMode = GpioMode::Pulse(Duration::from_millis(500));

    /// At this millisecond, a rule and whether it turned on (`None`: time alone), and whether the line is active afterwards.
    type Step = (u64, Option<(&'static str, bool)>, bool);

    fn check(mode: GpioMode, steps: &[Step]) {
        let start = Instant::now();
        let (mut machine, mut active) = (Machine::new(mode.clone()), false);
        for (index, &(at, event, expected)) in steps.iter().enumerate() {
            let now = start + Duration::from_millis(at);
            if let Some(wanted) = machine.advance(now) {
                active = wanted;
                if machine.counts_on() {
                    machine.driven(now);
                }
            }
            if let Some((rule, on)) = event
                && let Some(wanted) = machine.event(&rule.into(), on, active)
            {
                active = wanted;
                machine.driven(now);
            }
            assert_eq!(active, expected, "{mode:?}, step {index} at {at} ms of {steps:?}");
        }
    }

    #[test]
    fn follow_is_active_while_any_rule_is_on() {
        check(
            GpioMode::Follow,
            &[
                (0, Some(("a", true)), true),
                (1, Some(("b", true)), true),
                (2, Some(("a", false)), true),
                (3, Some(("a", false)), true),
                (4, Some(("b", false)), false),
                (5, Some(("c", false)), false),
                (9_000_000, None, false),
            ],
        );
    }

    #[test]
    fn a_pulse_ends_by_itself_and_ignores_off() {
        check(
            PULSE,
            &[
                (0, Some(("a", true)), true),
                (100, Some(("a", false)), true),
                (499, None, true),
                (500, None, false),
                (501, Some(("a", false)), false),
                (600, None, false),
            ],
        );
    }

    #[test]
    fn overlapping_pulses_extend_and_never_shorten() {
        check(
            PULSE,
            &[
                (0, Some(("a", true)), true),
                (400, Some(("b", true)), true),
                (500, None, true),
                (899, None, true),
                (900, None, false),
            ],
        );
    }

    #[test]
    fn toggle_changes_at_each_on() {
        check(
            GpioMode::Toggle,
            &[
                (0, Some(("a", true)), true),
                (1, Some(("a", false)), true),
                (2, Some(("b", true)), false),
                (3, Some(("a", true)), true),
            ],
        );
    }

    #[test]
    fn an_endless_pulse_does_not_overflow() {
        check(GpioMode::Pulse(Duration::MAX), &[(0, Some(("a", true)), true), (9_000_000, None, true)]);
    }

    #[test]
    fn only_a_state_is_caught_up_on() {
        for (mode, expected) in [(GpioMode::Follow, Some(true)), (PULSE, None), (GpioMode::Toggle, None)] {
            let mut machine = Machine::new(mode.clone());
            machine.event(&"a".into(), true, false);
            machine.driven(Instant::now());
            assert_eq!(machine.reopened(), expected, "{mode:?}");
            assert_eq!(machine.deadline(), None);
        }
    }

    fn pattern(steps: &[u64], repeat: u32) -> GpioMode {
        GpioMode::Pattern(Pattern { steps: steps.iter().map(|&ms| Duration::from_millis(ms)).collect(), repeat })
    }

    #[test]
    fn a_pattern_is_played_as_often_as_asked_and_ends_inactive() {
        check(
            pattern(&[100, 50], 2),
            &[
                (0, Some(("a", true)), true),
                (99, Some(("a", false)), true),
                (100, None, false),
                (149, None, false),
                (150, None, true),
                (250, None, false),
                (300, None, false),
                (9000, None, false),
            ],
        );
        // Of an odd count the last is active, and so one repetition runs into the next.
        check(
            pattern(&[100], 2),
            &[(0, Some(("a", true)), true), (100, None, true), (199, None, true), (200, None, false)],
        );
    }

    #[test]
    fn an_event_during_a_pattern_cuts_nothing_and_counts_anew() {
        check(
            pattern(&[100, 50], 2),
            &[
                (0, Some(("a", true)), true),
                (100, None, false),
                (150, None, true),
                (160, Some(("b", true)), true),
                (250, None, false),
                (300, None, true),
                (400, None, false),
                (450, None, false),
                (500, None, false),
            ],
        );
    }

    /// A thread that comes late makes a level longer, never shorter, and loses no step.
    #[test]
    fn lateness_lengthens() {
        check(
            pattern(&[100, 50, 100], 1),
            &[
                (0, Some(("a", true)), true),
                (190, None, false),
                (239, None, false),
                (240, None, true),
                (340, None, false),
            ],
        );
    }
}
