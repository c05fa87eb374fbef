//! Events to the actions that their rules name, camera states to every action.

use std::collections::HashMap;
use std::sync::Arc;

use super::recorder::{Recorder, push_bounded};
use crate::actions::{ActionHandle, CameraStatus, Message, Picture};
use crate::config::plan::RulePlan;
use crate::rules::{Change, Event};

/// The actions' outboxes, by rule.
pub(super) struct Dispatcher {
    actions: Vec<ActionHandle>,
    by_rule: HashMap<Arc<str>, Vec<usize>>,
    recorder: Arc<Recorder>,
}

impl Dispatcher {
    /// Connects `rules` to the `actions` that they name.
    pub(super) fn new(actions: Vec<ActionHandle>, rules: &[RulePlan], recorder: Arc<Recorder>) -> Self {
        let position = |name: &String| actions.iter().position(|a| **a.name() == **name);
        let by_rule = rules.iter().map(|r| (r.name.clone(), r.actions.iter().filter_map(position).collect())).collect();
        Self { actions, by_rule, recorder }
    }

    /// Hands events on, to the pins first; never waits. `picture` gives the frame that decided them: it is asked once at most, only if an
    /// action wants it, and after every other action has its events.
    pub(super) fn events(&self, events: Vec<Event>, picture: impl FnOnce() -> Option<Picture>) {
        let events: Vec<_> = events.into_iter().map(Arc::new).collect();
        let mut pictured = Vec::new();
        for urgent in [true, false] {
            for event in &events {
                let actions = self.by_rule.get(&event.rule).into_iter().flatten();
                for &index in actions.filter(|&&index| self.actions[index].is_urgent() == urgent) {
                    if self.actions[index].wants_pictures() && event.change == Change::On {
                        pictured.push((index, event.clone()));
                    } else {
                        // A full outbox drops, counts and says so itself.
                        self.actions[index].send(Message::Event(event.clone()));
                    }
                }
            }
        }
        for event in events {
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
        Change::Off(reason) => log::info!("rule {} off ({reason:?}) at {view}", event.rule),
    }
}
