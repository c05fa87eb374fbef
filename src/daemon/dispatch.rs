//! Events to the actions that their rules name, camera states to every action.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::recorder::{Recorder, push_bounded};
use crate::actions::{ActionHandle, CameraStatus, Health, Message, Picture};
use crate::config::Plan;
use crate::config::plan::{RulePlan, StationPlan};
use crate::rules::{Change, Event, Outcome, Verdict};
use crate::telemetry::Counter;
use crate::telemetry::board::Board;

/// The indices of the actions that a rule feeds.
struct Feeds {
    at_once: Vec<usize>,
    escalation: Vec<usize>,
}

/// The actions of a station's verdicts.
struct Consequences {
    pass: Vec<usize>,
    fail: Vec<usize>,
    fault: Vec<usize>,
}

/// The actions' outboxes, by rule.
pub(super) struct Dispatcher {
    actions: Vec<ActionHandle>,
    by_rule: HashMap<Arc<str>, Feeds>,
    /// Rules that have escalated and are still on: their `Off` goes to the escalation's actions too.
    escalated: Mutex<HashSet<Arc<str>>>,
    by_station: HashMap<Arc<str>, Consequences>,
    verdicts: Counter,
    faults: Counter,
    recorder: Arc<Recorder>,
    board: Arc<Board>,
}

impl Dispatcher {
    /// Connects the plan's rules and stations to the `actions` that they name.
    pub(super) fn new(actions: Vec<ActionHandle>, plan: &Plan, recorder: Arc<Recorder>, board: Arc<Board>) -> Self {
        let position = |name: &String| actions.iter().position(|a| **a.name() == **name);
        let feeds = |rule: &RulePlan| Feeds {
            at_once: rule.actions.iter().filter_map(position).collect(),
            escalation: rule.escalation.iter().flat_map(|e| &e.actions).filter_map(position).collect(),
        };
        let all = |names: &[String]| names.iter().filter_map(position).collect();
        let of = |it: &StationPlan| Consequences { pass: all(&it.pass), fail: all(&it.fail), fault: all(&it.fault) };
        let by_station = plan.stations.iter().map(|it| (it.name.clone(), of(it))).collect();
        let (verdicts, faults) = (Counter::default(), Counter::default());
        let by_rule = plan.rules.iter().map(|rule| (rule.name.clone(), feeds(rule))).collect();
        Self { actions, by_rule, escalated: Mutex::default(), by_station, verdicts, faults, recorder, board }
    }

    /// Hands events on, to the pins first; never waits. `picture` gives the frame that decided them: it is asked once at most, only if an
    /// action wants it, and after every other action has its events.
    pub(super) fn events(&self, events: Vec<Event>, picture: impl FnOnce() -> Option<Picture>) {
        super::watch::events(&self.board, &events);
        let events: Vec<_> = events.into_iter().map(Arc::new).map(|event| (self.receivers(&event), event)).collect();
        let mut pictured = Vec::new();
        for urgent in [true, false] {
            for (receivers, event) in &events {
                for &index in receivers.iter().filter(|&&index| self.actions[index].is_urgent() == urgent) {
                    if self.actions[index].wants_pictures() && event.change.is_on() {
                        pictured.push((index, event.clone()));
                    } else {
                        // A full outbox drops, counts and says so itself.
                        self.actions[index].send(Message::Event(event.clone()));
                    }
                }
            }
        }
        for (_, event) in events {
            log_event(&event);
            push_bounded(&mut self.recorder.lock().events, event);
        }
        if pictured.is_empty() {
            return;
        }
        let picture = picture().map(Arc::new);
        for (index, event) in pictured {
            let message = match &picture {
                Some(picture) => Message::Pictured(event, picture.clone()),
                None => Message::Event(event),
            };
            self.actions[index].send(message);
        }
    }

    /// The actions that an event is for, each once.
    fn receivers(&self, event: &Event) -> Vec<usize> {
        if let Some(verdict) = &event.verdict {
            return self.receivers_of(&event.rule, verdict);
        }
        let Some(feeds) = self.by_rule.get(&event.rule) else { return Vec::new() };
        // One insertion or removal: a panic elsewhere leaves the set whole.
        let mut escalated = self.escalated.lock().unwrap_or_else(PoisonError::into_inner);
        let (at_once, escalation) = match event.change {
            Change::On => (true, false),
            Change::Escalated => (false, {
                escalated.insert(event.rule.clone());
                true
            }),
            Change::Off(_) => (true, escalated.remove(&event.rule)),
        };
        let mut receivers = if at_once { feeds.at_once.clone() } else { Vec::new() };
        let more = feeds.escalation.iter().filter(|index| !at_once || !feeds.at_once.contains(index));
        receivers.extend(more.filter(|_| escalation));
        receivers
    }

    /// Tells every action that a rule was armed or disarmed.
    pub(super) fn armed(&self, rule: &Arc<str>, armed: bool) {
        self.board.set_armed(rule, armed);
        self.actions.iter().for_each(|action| _ = action.send(Message::Armed { rule: rule.clone(), armed }));
    }

    /// The actions that a verdict is for; counts it.
    fn receivers_of(&self, station: &str, verdict: &Verdict) -> Vec<usize> {
        let counter = if verdict.outcome.is_fault() { &self.faults } else { &self.verdicts };
        counter.increment();
        let Some(consequences) = self.by_station.get(station) else { return Vec::new() };
        match verdict.outcome {
            Outcome::Pass => consequences.pass.clone(),
            Outcome::Fail => consequences.fail.clone(),
            Outcome::TimedOut | Outcome::Overflow => consequences.fault.clone(),
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
        Change::Escalated => log::info!("rule {} is still on and escalates: {} at {view}", event.rule, event.label),
        Change::Off(reason) => log::info!("rule {} off ({}) at {view}", event.rule, reason.name()),
    }
}
