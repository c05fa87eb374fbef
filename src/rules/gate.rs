//! What lets a rule notice anything at all: its schedule, and whether it is armed. Pure: the time of day is given.

use jiff::{SignedDuration, Timestamp};

use super::OffReason;
use super::schedule::{Opening, opening};
use crate::clock::Monotonic;
use crate::config::plan::{RulePlan, SchedulePlan};

/// What the wall clock showed at a moment of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wall {
    pub(super) shown: Timestamp,
    pub(super) at: Monotonic,
}

impl Wall {
    /// What it shows at `now`, if nobody has set it meanwhile.
    fn read(&self, now: Monotonic) -> Option<Timestamp> {
        let passed = SignedDuration::try_from(now.since(self.at)).ok()?;
        self.shown.checked_add(passed).ok()
    }
}

/// How a schedule stands, for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleStatus {
    /// The rule may notice something.
    pub open: bool,
    /// The board knows the time; if not, `open` is what the configuration says for that (`clock_unset`).
    pub known: bool,
    /// Until when that is so, if the time is known.
    pub until: Option<Timestamp>,
}

/// The gate of one rule.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    schedule: Option<SchedulePlan>,
    /// What the schedule says of now; `None` while the time is not known.
    opening: Option<Opening>,
    /// `None`: nothing arms the rule, it always is.
    armed: Option<bool>,
}

impl Gate {
    pub(super) fn new(plan: &RulePlan) -> Self {
        let armed = plan.armed_by.as_ref().map(|_| plan.armed);
        Self { schedule: plan.schedule.clone(), opening: None, armed }
    }

    /// Arms or disarms. `false`: the rule has nothing that arms it, and stays as it is.
    pub(super) fn arm(&mut self, armed: bool) -> bool {
        let possible = self.armed.is_some();
        self.armed = self.armed.map(|_| armed);
        possible
    }

    /// Whether the rule is armed; `None` without a switch.
    pub(super) fn armed(&self) -> Option<bool> {
        self.armed
    }

    /// Why the rule is to notice nothing at `now`; `None` if it is to.
    pub(super) fn closed(&mut self, wall: Option<&Wall>, now: Monotonic) -> Option<OffReason> {
        if let Some(plan) = &self.schedule {
            let time = wall.and_then(|wall| wall.read(now));
            self.opening = match (time, self.opening) {
                // Days are looked at only when a boundary is reached, or the clock has been set.
                (Some(time), Some(known)) if known.from <= time && time < known.until => Some(known),
                (Some(time), _) => Some(opening(plan, time)),
                (None, _) => None,
            };
        }
        match (self.armed, self.status()) {
            (Some(false), _) => Some(OffReason::Disarmed),
            (_, Some(ScheduleStatus { open: false, .. })) => Some(OffReason::Unscheduled),
            _ => None,
        }
    }

    /// How the schedule stands; `None` without one.
    pub(super) fn status(&self) -> Option<ScheduleStatus> {
        let plan = self.schedule.as_ref()?;
        Some(match self.opening {
            Some(Opening { open, until, .. }) => ScheduleStatus { open, known: true, until: Some(until) },
            None => ScheduleStatus { open: plan.unset, known: false, until: None },
        })
    }

    /// When the schedule next has something to say.
    pub(super) fn deadline(&self, wall: Option<&Wall>) -> Option<Monotonic> {
        let (opening, wall) = (self.opening?, wall?);
        let left = opening.until.duration_since(wall.shown);
        Some(wall.at + left.try_into().unwrap_or_default())
    }
}
