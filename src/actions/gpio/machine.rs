//! Follow, pulse, toggle: from events and time to "active or not". Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::config::plan::GpioMode;

/// The state of one line's mode.
#[derive(Debug)]
pub(super) struct Machine {
    mode: GpioMode,
    /// Follow: the rules that are on. The line is active while any is.
    on: BTreeSet<Arc<str>>,
    /// Pulse: when the running one ends.
    until: Option<Instant>,
}

impl Machine {
    pub(super) fn new(mode: GpioMode) -> Self {
        Self { mode, on: BTreeSet::new(), until: None }
    }

    /// A rule turned on or off while the line is (in)active: what the line shall be now, `None` to leave it alone.
    /// A pulse counts only once [`driven`](Self::driven) says when it began.
    pub(super) fn event(&mut self, rule: &Arc<str>, on: bool, active: bool) -> Option<bool> {
        match self.mode {
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
        }
    }

    /// The line was driven as an event asked, and the call returned at `now`: a pulse is never shorter than asked, and a
    /// second one extends the first.
    pub(super) fn driven(&mut self, now: Instant) {
        if let GpioMode::Pulse(length) = self.mode {
            // A pulse so long that the clock cannot name its end has none.
            let end = now.checked_add(length);
            self.until = self.until.max(end);
        }
    }

    /// When the running pulse ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Whether a running pulse is over at `now`; said once.
    pub(super) fn pulse_over(&mut self, now: Instant) -> bool {
        let over = self.until.is_some_and(|until| now >= until);
        if over {
            self.until = None;
        }
        over
    }

    /// The line was lost, and is at its safe level when it comes back: what it shall be then. Only a state is caught up
    /// on; a pulse or a toggle that nobody saw is lost.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PULSE: GpioMode = GpioMode::Pulse(Duration::from_millis(500));

    /// At this millisecond, a rule and whether it turned on (`None`: time alone), and whether the line is active afterwards.
    type Step = (u64, Option<(&'static str, bool)>, bool);

    fn check(mode: GpioMode, steps: &[Step]) {
        let start = Instant::now();
        let (mut machine, mut active) = (Machine::new(mode), false);
        for (index, &(at, event, expected)) in steps.iter().enumerate() {
            let now = start + Duration::from_millis(at);
            if machine.pulse_over(now) {
                active = false;
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
            let mut machine = Machine::new(mode);
            machine.event(&"a".into(), true, false);
            machine.driven(Instant::now());
            assert_eq!(machine.reopened(), expected, "{mode:?}");
            assert_eq!(machine.deadline(), None);
        }
    }
}
