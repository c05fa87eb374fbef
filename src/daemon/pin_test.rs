//! Trying a pin from the page: a made-up rule turns on for a second, for one action alone, which does with it what it does with any rule.

use std::sync::Arc;
use std::time::Duration;

use crate::actions::{ActionHandle, Message};
use crate::clock::Monotonic;
use crate::config::plan::{ActionKind, ActionPlan, GpioMode, GpioPlan};
use crate::rules::{Change, Event, OffReason};

/// Long enough to hear a relay, short enough for whatever hangs on it.
const LENGTH: Duration = Duration::from_secs(1);

/// The rule's name; no configured rule can have it, because of the space.
pub(super) const RULE: &str = "pin test";

/// The tests that run, and when each ends. Kept by the inference loop, so that a test ends even if whoever asked is gone.
#[derive(Default)]
pub(super) struct PinTests(Vec<(Monotonic, Arc<str>)>);

impl PinTests {
    /// Begins a test of the pin of the action `name`; one that runs already goes on.
    pub(super) fn begin(&mut self, name: &Arc<str>, plans: &[ActionPlan], actions: &[ActionHandle], now: Monotonic) {
        let plan = plans.iter().find(|plan| plan.name == *name).map(|plan| &plan.kind);
        let Some(ActionKind::Gpio(gpio)) = plan else {
            return log::warn!("action \"{name}\" is no pin: nothing is tested");
        };
        if self.0.iter().any(|(_, running)| running == name) {
            return;
        }
        log::info!("action \"{name}\": its pin is tested");
        send(name, actions, Change::On, now);
        if needs_end(gpio) {
            self.0.push((now + LENGTH, name.clone()));
        }
    }

    /// Ends the tests whose time is over.
    pub(super) fn end(&mut self, plans: &[ActionPlan], actions: &[ActionHandle], now: Monotonic) {
        self.0.retain(|(end, name)| {
            let over = now >= *end;
            if over {
                send(name, actions, last_change(plans, name), now);
            }
            !over
        });
    }

    /// When [`Self::end`] is wanted next.
    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        self.0.iter().map(|(end, _)| *end).min()
    }
}

/// A pulse ends by itself.
fn needs_end(gpio: &GpioPlan) -> bool {
    !matches!(gpio.mode, GpioMode::Pulse(_))
}

/// A toggled line goes back by a second `On`.
fn last_change(plans: &[ActionPlan], name: &str) -> Change {
    let plan = plans.iter().find(|plan| &*plan.name == name).map(|plan| &plan.kind);
    match plan {
        Some(ActionKind::Gpio(GpioPlan { mode: GpioMode::Toggle, .. })) => Change::On,
        _ => Change::Off(OffReason::Gone),
    }
}

fn send(name: &str, actions: &[ActionHandle], change: Change, now: Monotonic) {
    let event = Event {
        rule: RULE.into(),
        change,
        camera: "page".into(),
        region: None,
        class: 0,
        label: "test".into(),
        probability: 1.0,
        captured: now,
        decided: now,
        sequence: 0,
        origin: None,
        verdict: None,
    };
    if let Some(action) = actions.iter().find(|action| &**action.name() == name) {
        // A full outbox drops, counts and says so itself.
        action.send(Message::Event(Arc::new(event)));
    }
}
