//! Judge every part: from an input's edge or a message to a frame that is kept for it.

use std::sync::Arc;

use crate::capture::slot::FrameSlots;
use crate::config::Plan;
use crate::config::plan::InputPlan;
use crate::control::{Command, Control};
use crate::inputs::{Heard, Listener};

/// Reserves each asked part's frame on the thread that asks: the frame may come, and be replaced by a newer one, while the
/// inference loop is still busy with an older one.
pub(super) fn keep_frames_that_are_asked_for(plan: &Plan, slots: &Arc<FrameSlots>, control: &Control) {
    let camera_of = |view: &str| {
        let name = view.split_once('/').map_or(view, |(camera, _)| camera);
        plan.cameras.iter().position(|camera| &*camera.name == name)
    };
    let stations: Vec<_> = plan.stations.iter().map(|it| (it.name.clone(), camera_of(&it.view), it.delay)).collect();
    let slots = slots.clone();
    control.before(move |command| {
        let Command::Judge { station, asked, .. } = command else { return };
        let found = stations.iter().find(|(name, ..)| name == station);
        if let Some((_, Some(camera), delay)) = found {
            slots.reserve(*camera, *asked + *delay);
        }
    });
}

/// The inputs whose edges ask a station.
pub(super) fn listeners(plan: &Plan, control: &Arc<Control>) -> Vec<Listener> {
    plan.inputs.iter().map(|input| listener(plan, input, control.clone())).collect()
}

fn listener(plan: &Plan, input: &InputPlan, control: Arc<Control>) -> Listener {
    let triggered = plan.stations.iter().filter(|it| it.trigger.as_deref() == Some(&*input.name));
    let stations: Vec<Arc<str>> = triggered.map(|station| station.name.clone()).collect();
    let name = input.name.clone();
    let hear = move |heard: Heard| {
        for station in stations.iter().filter(|_| heard.counts) {
            let command = Command::Judge { station: station.clone(), part: None, asked: heard.at };
            if let Err(full) = control.send(command) {
                log::warn!("input {name}, station {station}: {full}");
            }
        }
    };
    Listener { plan: input.clone(), hear: Box::new(hear) }
}
