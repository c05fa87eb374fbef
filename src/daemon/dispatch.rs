//! Events to the actions that their rules name, camera states to every action.

use std::collections::HashMap;
use std::sync::Arc;

use super::recorder::{Recorder, push_bounded};
use crate::actions::{ActionHandle, CameraStatus, Message};
use crate::config::plan::RulePlan;
use crate::rules::{Change, Event};
use crate::telemetry::board::Board;

/// The actions' outboxes, by rule.
pub(super) struct Dispatcher {
    actions: Vec<ActionHandle>,
    by_rule: HashMap<Arc<str>, Vec<usize>>,
    recorder: Arc<Recorder>,
    board: Arc<Board>,
}

impl Dispatcher {
    /// Connects `rules` to the `actions` that they name.
    pub(super) fn new(
        actions: Vec<ActionHandle>,
        rules: &[RulePlan],
        recorder: Arc<Recorder>,
        board: Arc<Board>,
    ) -> Self {
        let position = |name: &String| actions.iter().position(|a| **a.name() == **name);
        let by_rule = rules.iter().map(|r| (r.name.clone(), r.actions.iter().filter_map(position).collect())).collect();
        Self { actions, by_rule, recorder, board }
    }

    /// Hands events on; never waits.
    pub(super) fn events(&self, events: Vec<Event>) {
        super::watch::events(&self.board, &events);
        for event in events {
            let event = Arc::new(event);
            log_event(&event);
            for &index in self.by_rule.get(&event.rule).into_iter().flatten() {
                // A full outbox drops, counts and says so itself.
                self.actions[index].send(Message::Event(event.clone()));
            }
            push_bounded(&mut self.recorder.lock().events, event);
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
