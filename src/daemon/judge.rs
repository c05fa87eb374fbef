//! What inputs ask for: a verdict on a part, whose frame is kept for it, and the arming of rules.

use std::sync::Arc;

use crate::capture::slot::FrameSlots;
use crate::config::Plan;
use crate::config::defaults::DEFAULT_DEBOUNCE;
use crate::config::plan::{ArmedBy, ArmingInput, GpioBackend, InputPlan};
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

/// The inputs whose edges ask a station, and those whose levels arm a rule.
pub(super) fn listeners(plan: &Plan, control: &Arc<Control>) -> Vec<Listener> {
    let asking = plan.inputs.iter().map(|input| listener(plan, input, control.clone()));
    let arming = plan.rules.iter().filter_map(|rule| match &rule.armed_by {
        Some(ArmedBy::Gpio(input)) => Some(arming_listener(&rule.name, input, control.clone())),
        _ => None,
    });
    asking.chain(arming).collect()
}

/// Arms `rule` while the line is active; the level that is found at opening counts.
fn arming_listener(rule: &Arc<str>, input: &ArmingInput, control: Arc<Control>) -> Listener {
    let plan = InputPlan {
        name: format!("armed_by of rule {rule}").into(),
        backend: GpioBackend::Chardev,
        chip: input.chip.clone(),
        line: input.line.clone(),
        active_low: input.active_low,
        bias: input.bias,
        debounce: DEFAULT_DEBOUNCE,
        beat: None,
    };
    let rule = rule.clone();
    let hear = move |heard: Heard| {
        if let Err(full) = control.send(Command::Arm { rule: rule.clone(), armed: heard.active }) {
            log::warn!("rule {rule} is not {}: {full}", if heard.active { "armed" } else { "disarmed" });
        }
    };
    Listener { plan, hear: Box::new(hear) }
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
