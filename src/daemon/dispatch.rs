//! Events to the actions that their rules name, camera states to every action.

use std::collections::HashMap;
use std::sync::Arc;

use super::recorder::{Recorder, push_bounded};
use crate::actions::{ActionHandle, CameraStatus, Health, Message};
use crate::config::Plan;
use crate::config::plan::StationPlan;
use crate::rules::{Change, Event, Outcome};
use crate::telemetry::Counter;

/// The actions of a station's verdicts.
struct Consequences {
    pass: Vec<usize>,
    fail: Vec<usize>,
    fault: Vec<usize>,
}

/// The actions' outboxes, by rule.
pub(super) struct Dispatcher {
    actions: Vec<ActionHandle>,
    by_rule: HashMap<Arc<str>, Vec<usize>>,
    by_station: HashMap<Arc<str>, Consequences>,
    verdicts: Counter,
    faults: Counter,
    recorder: Arc<Recorder>,
}

impl Dispatcher {
    /// Connects the plan's rules and stations to the `actions` that they name.
    pub(super) fn new(actions: Vec<ActionHandle>, plan: &Plan, recorder: Arc<Recorder>) -> Self {
        let rules = &plan.rules;
        let position = |name: &String| actions.iter().position(|a| **a.name() == **name);
        let by_rule = rules.iter().map(|r| (r.name.clone(), r.actions.iter().filter_map(position).collect())).collect();
        let all = |names: &[String]| names.iter().filter_map(position).collect();
        let of = |it: &StationPlan| Consequences { pass: all(&it.pass), fail: all(&it.fail), fault: all(&it.fault) };
        let by_station = plan.stations.iter().map(|it| (it.name.clone(), of(it))).collect();
        let (verdicts, faults) = (Counter::default(), Counter::default());
        Self { actions, by_rule, by_station, verdicts, faults, recorder }
    }

    /// Hands events on; never waits.
    pub(super) fn events(&self, events: Vec<Event>) {
        for event in events {
            let event = Arc::new(event);
            log_event(&event);
            for &index in self.receivers(&event) {
                // A full outbox drops, counts and says so itself.
                self.actions[index].send(Message::Event(event.clone()));
            }
            push_bounded(&mut self.recorder.lock().events, event);
        }
    }

    /// The actions that an event is for.
    fn receivers(&self, event: &Event) -> &[usize] {
        let Some(verdict) = &event.verdict else { return self.by_rule.get(&event.rule).map_or(&[], Vec::as_slice) };
        let counter = if verdict.outcome.is_fault() { &self.faults } else { &self.verdicts };
        counter.increment();
        let Some(consequences) = self.by_station.get(&event.rule) else { return &[] };
        match verdict.outcome {
            Outcome::Pass => &consequences.pass,
            Outcome::Fail => &consequences.fail,
            Outcome::TimedOut | Outcome::Overflow => &consequences.fault,
        }
    }

    /// An action does not work.
    pub(super) fn is_degraded(&self) -> bool {
        let bad = |action: &ActionHandle| matches!(action.status().health, Health::Degraded | Health::Rejected);
        self.actions.iter().any(bad)
    }

    /// Parts without a verdict, and events that a full outbox dropped, since the start.
    pub(super) fn mishaps(&self) -> u64 {
        self.faults.get() + self.actions.iter().map(ActionHandle::dropped).sum::<u64>()
    }

    /// Parts that were judged since the start.
    pub(super) fn verdicts(&self) -> u64 {
        self.verdicts.get()
    }

    /// Tells every action of a camera that came or went.
    pub(super) fn camera(&self, status: &CameraStatus) {
        for action in &self.actions {
            action.send(Message::Camera(status.clone()));
        }
    }

    /// The actions, for their counts and states.
    pub(super) fn actions(&self) -> &[ActionHandle] {
        &self.actions
    }
}

fn log_event(event: &Event) {
    let view = match &event.region {
        Some(region) => format!("{}/{region}", event.camera),
        None => event.camera.to_string(),
    };
    if let Some(verdict) = &event.verdict {
        let part = verdict.part.as_deref().unwrap_or("without a number");
        let outcome = verdict.outcome;
        return match outcome.is_fault() {
            false => {
                log::info!(
                    "station {}: part {part}: {outcome:?}: {} {:.2}",
                    event.rule,
                    event.label,
                    event.probability
                );
            }
            true => log::warn!("station {}: part {part}: no verdict: {outcome:?}", event.rule),
        };
    }
    match event.change {
        Change::On => log::info!("rule {} on: {} {:.2} at {view}", event.rule, event.label, event.probability),
        Change::Off(reason) => log::info!("rule {} off ({reason:?}) at {view}", event.rule),
    }
}
