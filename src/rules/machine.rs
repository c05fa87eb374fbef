//! The pure core of a rule: `(state, input, now) → (state, transition)`, with views as numbers and scores as one number.
//!
//! The semantics are told at the top of [`crate::rules`].

use std::collections::VecDeque;
use std::time::Duration;

use super::OffReason;
use crate::clock::Monotonic;

/// A rule's thresholds and times.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// A frame is a hit from this probability up.
    pub on: f32,
    /// A frame supports a view that is on from this probability up; `off <= on`.
    pub off: f32,
    /// `1 <= hits <= window`.
    pub hits: usize,
    /// How many frames of a view are remembered.
    pub window: usize,
    /// How long a view stays on after the last frame that supported it.
    pub hold: Duration,
    /// How long after the last transition the rule does not turn on.
    pub cooldown: Duration,
    /// How long after its `On` a rule that is still on escalates; never when absent.
    pub escalate: Option<Duration>,
}

/// What a rule remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The rule is on: a [`Transition::On`] was the last one.
    pub on: bool,
    /// When the last transition was.
    pub changed: Option<Monotonic>,
    /// It has escalated since it turned on.
    pub escalated: bool,
    /// Why it notices nothing at the moment.
    pub closed: Option<OffReason>,
    /// Each view's own memory.
    pub views: Vec<ViewState>,
}

/// What a rule remembers of one view.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ViewState {
    /// The view is on.
    pub on: bool,
    /// The probabilities of the last frames, oldest first, at most `window`.
    pub window: VecDeque<f32>,
    /// When the last frame that was a hit, or that supported the view while it was on, came.
    pub supported: Monotonic,
}

/// What happens to a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    /// A frame of a view, with the rule's probability in it.
    Frame {
        /// The view's place in [`State::views`].
        view: usize,
        /// In `0.0..=1.0`.
        probability: f32,
    },
    /// A view has had no frame for too long.
    Stale {
        /// The view's place in [`State::views`].
        view: usize,
    },
    /// Nothing is to be noticed any more, for this reason.
    Close {
        /// What its `Off` says, if it is on.
        reason: OffReason,
    },
    /// Everything is to be noticed again.
    Open,
    /// Time has passed.
    Tick,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It turns on, by a frame of this view.
    On {
        /// The view's place in [`State::views`].
        view: usize,
    },
    /// It turns off: this view was the last that was on.
    Off {
        /// The view's place in [`State::views`].
        view: usize,
        /// Why that view turned off.
        reason: OffReason,
    },
    /// It stays on for so long that it escalates.
    Escalated {
        /// The first view that is on, in [`State::views`].
        view: usize,
    },
}

impl State {
    /// A rule that is off and has seen nothing of its `views` views.
    pub fn new(views: usize) -> Self {
        Self { views: vec![ViewState::default(); views], ..Self::default() }
    }

    /// One step. `now` must not go back from step to step; if it does, no time has passed.
    pub fn step(mut self, limits: &Limits, input: Input, now: Monotonic) -> (Self, Option<Transition>) {
        let mut turned_off = None;
        match input {
            Input::Frame { view, probability } => self.frame(limits, view, probability, now),
            Input::Stale { view } => {
                if let Some(state) = self.views.get_mut(view) {
                    turned_off = state.on.then_some((view, OffReason::Stale));
                    // What was seen before the gap says nothing about what is seen after it.
                    *state = ViewState::default();
                }
            }
            Input::Close { reason } => {
                let on = self.views.iter().position(|view| view.on);
                turned_off = on.map(|view| (view, reason));
                self.closed = Some(reason);
                // As with a gap: what was seen before says nothing about what is seen when it opens again.
                self.views.fill_with(ViewState::default);
            }
            Input::Open => self.closed = None,
            Input::Tick => {}
        }
        for (view, state) in self.views.iter_mut().enumerate() {
            if state.on && state.off_at(limits).is_some_and(|at| now >= at) {
                state.on = false;
                turned_off = turned_off.or(Some((view, OffReason::Gone)));
            }
        }
        let transition = self.transition(input, turned_off);
        if transition.is_some() {
            self.on = !self.on;
            self.changed = Some(now);
            self.escalated = false;
            return (self, transition);
        }
        let escalation = self.escalation(limits, now);
        self.escalated |= escalation.is_some();
        (self, escalation)
    }

    /// The escalation that is due at `now`, if one is.
    fn escalation(&self, limits: &Limits, now: Monotonic) -> Option<Transition> {
        self.escalates_at(limits).filter(|&at| now >= at)?;
        self.views.iter().position(|view| view.on).map(|view| Transition::Escalated { view })
    }

    /// When the rule escalates if it stays on.
    pub fn escalates_at(&self, limits: &Limits) -> Option<Monotonic> {
        let due = self.on && !self.escalated;
        self.changed.filter(|_| due).zip(limits.escalate).map(|(changed, after)| changed + after)
    }

    /// Puts a frame into its view's window, and turns the view on if the window says so.
    fn frame(&mut self, limits: &Limits, view: usize, probability: f32, now: Monotonic) {
        // A view may join a rule that is on: nothing is sent then, and so nothing is inside the cooldown.
        let may_turn_on = self.on || self.cooldown_end(limits).is_none_or(|end| now >= end);
        let open = self.closed.is_none();
        let Some(state) = self.views.get_mut(view).filter(|_| open) else { return };
        if state.window.len() >= limits.window {
            state.window.pop_front();
        }
        state.window.push_back(probability);
        if state.counts(limits, probability) {
            state.supported = now;
            state.on = state.on || (may_turn_on && state.hits(limits) >= limits.hits);
        }
    }

    /// The change of the whole rule that the changes of its views amount to.
    fn transition(&self, input: Input, turned_off: Option<(usize, OffReason)>) -> Option<Transition> {
        let on = self.views.iter().any(|view| view.on);
        match (self.on, on, input, turned_off) {
            (false, true, Input::Frame { view, .. }, _) => Some(Transition::On { view }),
            (true, false, _, Some((view, reason))) => Some(Transition::Off { view, reason }),
            _ => None,
        }
    }

    /// The end of the quiet time, in which the rule does not turn on.
    pub fn cooldown_end(&self, limits: &Limits) -> Option<Monotonic> {
        self.changed.map(|changed| changed + limits.cooldown)
    }

    /// When a [`Input::Tick`] turns a view off or escalates, if no frame comes before.
    pub fn next_deadline(&self, limits: &Limits) -> Option<Monotonic> {
        let off = self.views.iter().filter(|view| view.on).filter_map(|view| view.off_at(limits));
        off.chain(self.escalates_at(limits)).min()
    }
}

impl ViewState {
    /// A frame with this probability counts: as a hit while the view is off, as support while it is on.
    fn counts(&self, limits: &Limits, probability: f32) -> bool {
        probability >= if self.on { limits.off } else { limits.on }
    }

    /// How many frames of the window count.
    pub fn hits(&self, limits: &Limits) -> usize {
        self.window.iter().filter(|&&probability| self.counts(limits, probability)).count()
    }

    /// When the view turns off; `None` while the window still supports it.
    pub fn off_at(&self, limits: &Limits) -> Option<Monotonic> {
        (self.hits(limits) < limits.hits).then_some(self.supported + limits.hold)
    }
}
