//! Trying a pin from the page: a made-up rule turns on for a second, for one action alone, which does with it what it does with any rule.

use std::sync::Arc;
use std::time::Duration;

use super::dispatch::{Acting, Dispatcher};
use crate::actions::Message;
use crate::clock::Monotonic;
use crate::config::plan::{ActionKind, GpioMode, GpioPlan};
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
    pub(super) fn begin(&mut self, name: &Arc<str>, dispatcher: &Dispatcher, now: Monotonic) {
        let actions = dispatcher.actions();
        let Some(ActionKind::Gpio(gpio)) = kind(name, &actions) else {
            return log::warn!("action \"{name}\" is no pin: nothing is tested");
        };
        if self.0.iter().any(|(_, running)| running == name) {
            return;
        }
        log::info!("action \"{name}\": its pin is tested");
        send(name, &actions, Change::On, now);
        if needs_end(gpio) {
            self.0.push((now + LENGTH, name.clone()));
        }
    }

    /// Ends the tests whose time is over.
    pub(super) fn end(&mut self, dispatcher: &Dispatcher, now: Monotonic) {
        if self.0.is_empty() {
            return;
        }
        let actions = dispatcher.actions();
        self.0.retain(|(end, name)| {
            let over = now >= *end;
            if over {
                send(name, &actions, last_change(kind(name, &actions)), now);
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
fn last_change(kind: Option<&ActionKind>) -> Change {
    match kind {
        Some(ActionKind::Gpio(GpioPlan { mode: GpioMode::Toggle, .. })) => Change::On,
        _ => Change::Off(OffReason::Gone),
    }
}

fn kind<'a>(name: &str, actions: &'a [Arc<Acting>]) -> Option<&'a ActionKind> {
    actions.iter().find(|it| *it.plan.name == *name).map(|it| &it.plan.kind)
}

fn send(name: &str, actions: &[Arc<Acting>], change: Change, now: Monotonic) {
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
    if let Some(action) = actions.iter().find(|it| *it.plan.name == *name) {
        // A full outbox drops, counts and says so itself.
        action.handle.send(Message::Event(Arc::new(event)));
    }
}
