//! Events to the actions that their rules name, camera states to every action.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::recorder::{Recorder, push_bounded};
use crate::actions::{ActionHandle, CameraStatus, Message, Picture};
use crate::config::plan::RulePlan;
use crate::rules::{Change, Event};

/// The indices of the actions that a rule feeds.
struct Feeds {
    at_once: Vec<usize>,
    escalation: Vec<usize>,
}

/// The actions' outboxes, by rule.
pub(super) struct Dispatcher {
    actions: Vec<ActionHandle>,
    by_rule: HashMap<Arc<str>, Feeds>,
    /// Rules that have escalated and are still on: their `Off` goes to the escalation's actions too.
    escalated: Mutex<HashSet<Arc<str>>>,
    recorder: Arc<Recorder>,
}

impl Dispatcher {
    /// Connects `rules` to the `actions` that they name.
    pub(super) fn new(actions: Vec<ActionHandle>, rules: &[RulePlan], recorder: Arc<Recorder>) -> Self {
        let position = |name: &String| actions.iter().position(|a| **a.name() == **name);
        let feeds = |rule: &RulePlan| Feeds {
            at_once: rule.actions.iter().filter_map(position).collect(),
            escalation: rule.escalation.iter().flat_map(|e| &e.actions).filter_map(position).collect(),
        };
        let by_rule = rules.iter().map(|rule| (rule.name.clone(), feeds(rule))).collect();
        Self { actions, by_rule, escalated: Mutex::default(), recorder }
    }

    /// Hands events on, to the pins first; never waits. `picture` gives the frame that decided them: it is asked once at most, only if an
    /// action wants it, and after every other action has its events.
    pub(super) fn events(&self, events: Vec<Event>, picture: impl FnOnce() -> Option<Picture>) {
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
        self.actions.iter().for_each(|action| _ = action.send(Message::Armed { rule: rule.clone(), armed }));
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
    match event.change {
        Change::On => log::info!("rule {} on: {} {:.2} at {view}", event.rule, event.label, event.probability),
        Change::Escalated => log::info!("rule {} is still on and escalates: {} at {view}", event.rule, event.label),
        Change::Off(reason) => log::info!("rule {} off ({}) at {view}", event.rule, reason.name()),
    }
}
