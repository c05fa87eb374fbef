//! When the pins of an event moved, so that what is told about the event can say it.
//!
//! Pins do not wait for this: a line's thread notes its edge after the edge. What is told waits for the note instead, a
//! short time after the decision and on its own thread, and then goes without it.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::payload::EventPayload;
use super::{ActionContext, Edge, Observer, RuleInfo};
use crate::clock::Monotonic;
use crate::config::plan::{ActionKind, ActionPlan};
use crate::rules::Event;

/// How long after a decision what is told of it waits for the pins. A line is driven within a millisecond; one that has not
/// moved by then is busy, broken, or already where the event wants it.
const PATIENCE: Duration = Duration::from_millis(50);

/// Events that are remembered: more than can be decided in [`PATIENCE`] by any number of rules.
const REMEMBERED: usize = 256;

/// See the [module](self).
pub(super) struct PinBook {
    /// How many lines each rule drives.
    lines: Mutex<HashMap<Arc<str>, usize>>,
    moved: Mutex<VecDeque<Moved>>,
    noted: Condvar,
    /// Each gives `false` when it does not listen any more.
    listeners: Mutex<Vec<Listener>>,
}

type Listener = Box<dyn Fn() -> bool + Send + Sync>;

/// One event and what the lines did about it. It is held, so that no other event can have its address.
struct Moved {
    event: Arc<Event>,
    lines: usize,
    last: Duration,
}

impl PinBook {
    fn new(context: &ActionContext, plans: &[ActionPlan]) -> Self {
        let lines = Mutex::new(lines_of(&context.rules, plans));
        Self { lines, moved: Mutex::default(), noted: Condvar::new(), listeners: Mutex::default() }
    }

    /// Calls `listener` after each edge that an event caused, until it gives `false`.
    pub(super) fn listen(&self, listener: impl Fn() -> bool + Send + Sync + 'static) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    fn note(&self, edge: &Edge) {
        let (Some(event), Some(latency)) = (&edge.cause, edge.latency()) else { return };
        let mut moved = self.lock();
        match moved.iter_mut().find(|moved| Arc::ptr_eq(&moved.event, event)) {
            Some(moved) => (moved.lines, moved.last) = (moved.lines + 1, moved.last.max(latency)),
            None => {
                if moved.len() == REMEMBERED {
                    moved.pop_front();
                }
                moved.push_back(Moved { event: event.clone(), lines: 1, last: latency });
            }
        }
        drop(moved);
        self.noted.notify_all();
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).retain(|listener| listener());
    }

    /// From the capture to the edge of the last of the event's lines, if any has moved; or for how long to wait for more.
    pub(super) fn latency(&self, event: &Event) -> Result<Option<Duration>, Duration> {
        self.look(&self.lock(), event)
    }

    fn look(&self, moved: &VecDeque<Moved>, event: &Event) -> Result<Option<Duration>, Duration> {
        let known = moved.iter().find(|moved| std::ptr::eq(&*moved.event, event));
        let expected = self.lines.lock().unwrap_or_else(PoisonError::into_inner).get(&event.rule).copied().unwrap_or(0);
        let left = (event.decided + PATIENCE).since(Monotonic::now());
        if known.map_or(0, |moved| moved.lines) < expected && !left.is_zero() {
            return Err(left);
        }
        Ok(known.map(|moved| moved.last))
    }

    /// As [`latency`](Self::latency), and waits.
    fn wait(&self, event: &Event) -> Option<Duration> {
        let mut moved = self.lock();
        loop {
            match self.look(&moved, event) {
                Ok(latency) => return latency,
                Err(left) => moved = self.noted.wait_timeout(moved, left).unwrap_or_else(PoisonError::into_inner).0,
            }
        }
    }

    /// When to look again for an event that is waited for.
    pub(super) fn again(left: Duration) -> Instant {
        Instant::now() + left
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Moved>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lines_of(rules: &[RuleInfo], plans: &[ActionPlan]) -> HashMap<Arc<str>, usize> {
    let is_line =
        |name: &&String| plans.iter().any(|plan| *plan.name == ***name && matches!(plan.kind, ActionKind::Gpio(_)));
    rules.iter().map(|rule| (rule.name.clone(), rule.actions.iter().filter(is_line).count())).collect()
}

/// What all actions are given, and what they know of each other.
pub(super) struct Shared {
    context: ActionContext,
    pub(super) pins: Arc<PinBook>,
}

impl Shared {
    /// From now on the context's observer is told through the book.
    pub(super) fn new(mut context: ActionContext, plans: &[ActionPlan]) -> Arc<Self> {
        let pins = Arc::new(PinBook::new(&context, plans));
        context.observer = Arc::new(Noting { pins: pins.clone(), observer: context.observer });
        Arc::new(Self { context, pins })
    }

    /// For the actions of another configuration, whose pins are noted in the same book.
    pub(super) fn reconfigured(&self, rules: Vec<RuleInfo>, cameras: Vec<Arc<str>>, plans: &[ActionPlan]) -> Arc<Self> {
        *self.pins.lines.lock().unwrap_or_else(PoisonError::into_inner) = lines_of(&rules, plans);
        let context = ActionContext { rules, cameras, ..self.context.clone() };
        Arc::new(Self { context, pins: self.pins.clone() })
    }

    /// `event` as it is told now. Waits for its pins, never longer than 50 ms after the decision.
    pub(super) fn payload(&self, event: &Event) -> EventPayload {
        EventPayload::new(&self.context.device, event).with_pin(self.pins.wait(event))
    }
}

impl Deref for Shared {
    type Target = ActionContext;

    fn deref(&self) -> &ActionContext {
        &self.context
    }
}

/// Writes the book before it passes on what it is told.
struct Noting {
    pins: Arc<PinBook>,
    observer: Arc<dyn Observer>,
}

impl Observer for Noting {
    fn edge(&self, edge: &Edge) {
        self.pins.note(edge);
        self.observer.edge(edge);
    }

    fn delivered(&self, action: &str, event: &Event) {
        self.observer.delivered(action, event);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::actions::payload::tests::event;
    use crate::config::plan::{GpioBackend, GpioLine, GpioMode, GpioPlan, Level, LogPlan};
    use crate::rules::Change;

    pub(in crate::actions) struct Nobody;

    impl Observer for Nobody {
        fn edge(&self, _: &Edge) {}
        fn delivered(&self, _: &str, _: &Event) {}
    }

    /// A book in which the rule "cat" drives two lines, and "dog" none.
    fn shared() -> Arc<Shared> {
        let line = |name: &str| {
            let (backend, line, mode) = (GpioBackend::Simulated, GpioLine::Offset(1), GpioMode::Follow);
            let plan = GpioPlan { backend, chip: None, line, mode, active_low: false, safe: Level::Low };
            ActionPlan { name: name.into(), kind: ActionKind::Gpio(plan) }
        };
        let log = ActionPlan { name: "log".into(), kind: ActionKind::Log(LogPlan { path: None }) };
        let rule = |name: &str, actions: &[&str]| RuleInfo {
            name: name.into(),
            label: name.into(),
            actions: actions.iter().map(ToString::to_string).collect(),
            has_switch: false,
            armed_by_mqtt: false,
        };
        let context = ActionContext {
            device: "garden".into(),
            rules: vec![rule("cat", &["one", "log", "two"]), rule("dog", &["log"])],
            cameras: vec![],
            observer: Arc::new(Nobody),
            control: crate::control::Control::new(|| ()),
        };
        Shared::new(context, &[line("one"), line("two"), log])
    }

    fn edge(event: &Arc<Event>, after: Duration) -> Edge {
        Edge { action: "one".into(), level: Level::High, at: event.captured + after, cause: Some(event.clone()) }
    }

    #[test]
    fn what_is_told_waits_for_the_last_line_of_its_rule() {
        let (shared, event) = (shared(), Arc::new(event("cat", Change::On)));
        assert!(shared.pins.latency(&event).is_err());
        shared.observer.edge(&edge(&event, Duration::from_millis(30)));
        assert!(shared.pins.latency(&event).is_err(), "one of two");
        std::thread::scope(|scope| {
            let told = scope.spawn(|| shared.payload(&event));
            shared.observer.edge(&edge(&event, Duration::from_millis(31)));
            assert_eq!(told.join().unwrap().pin_latency_ms, Some(31.0));
        });
    }

    #[test]
    fn a_rule_without_lines_is_told_at_once_and_a_line_that_does_not_move_is_not_waited_for_long() {
        let shared = shared();
        assert_eq!(shared.pins.latency(&event("dog", Change::On)), Ok(None));
        let stuck = event("cat", Change::On);
        assert_eq!(shared.payload(&stuck).pin_latency_ms, None);
        assert!(Monotonic::now().since(stuck.decided) >= PATIENCE);
    }

    #[test]
    fn old_events_are_forgotten_and_listeners_hear_of_each_edge() {
        let shared = shared();
        let heard = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let ears = heard.clone();
        shared.pins.listen(move || {
            ears.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            true
        });
        shared.pins.listen(|| false);
        for _ in 0..REMEMBERED + 5 {
            shared.observer.edge(&edge(&Arc::new(event("cat", Change::On)), Duration::from_millis(30)));
        }
        assert_eq!(shared.pins.lock().len(), REMEMBERED);
        assert_eq!(heard.load(std::sync::atomic::Ordering::SeqCst), REMEMBERED + 5);
        assert_eq!(shared.pins.listeners.lock().unwrap().len(), 1, "who does not listen any more is let go");
    }
}
