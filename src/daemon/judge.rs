//! What inputs ask for: a verdict on a part, whose frame is kept for it, and the arming of rules.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::capture::slot::FrameSlots;
use crate::config::Plan;
use crate::config::defaults::DEFAULT_DEBOUNCE;
use crate::config::plan::{ArmedBy, ArmingInput, GpioBackend, InputPlan, StationPlan};
use crate::control::{Command, Control};
use crate::inputs::{Heard, Listener};

/// Reserves each asked part's frame on the thread that asks: the frame may come, and be replaced by a newer one, while the
/// inference loop is still busy with an older one.
#[derive(Clone, Default)]
pub(super) struct Reservations(Arc<Mutex<Vec<Watched>>>);

/// What is reserved for a station: its camera's frame from this long after the asking.
struct Watched {
    station: Arc<str>,
    camera: usize,
    delay: Duration,
}

impl Reservations {
    /// Hears every command that `control` is given from now on.
    pub(super) fn attach(slots: &Arc<FrameSlots>, control: &Control) -> Self {
        let reservations = Self::default();
        let (theirs, slots) = (reservations.clone(), slots.clone());
        control.before(move |command| {
            let Command::Judge { station, asked, .. } = command else { return };
            if let Some(watched) = theirs.lock().iter().find(|it| it.station == *station) {
                slots.reserve(watched.camera, *asked + watched.delay);
            }
        });
        reservations
    }

    /// These are the stations, and the cameras' numbers by name, from now on.
    pub(super) fn set(&self, stations: &[StationPlan], number: impl Fn(&str) -> Option<usize>) {
        let watched = stations.iter().filter_map(|it| {
            let camera = it.view.split_once('/').map_or(&*it.view, |(camera, _)| camera);
            Some(Watched { station: it.name.clone(), camera: number(camera)?, delay: it.delay })
        });
        *self.lock() = watched.collect();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        // Replaced whole: a panic elsewhere leaves one list or the other.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::capture::{Frame, PixelFormat};
    use crate::clock::Monotonic;
    use crate::config;
    use crate::telemetry::CameraCounters;

    fn plan(stations: &str) -> Plan {
        let text = format!(
            "[model]\npath = \"m\"\n[[camera]]\nname = \"belt\"\ndevice = \"x\"\n[[camera]]\nname = \"gate\"\ndevice = \"y\"\n{stations}\
             [action.a]\ntype = \"log\"\n[action.b]\ntype = \"mqtt\"\nurl = \"mqtt://h\"\n"
        );
        config::parse(&text, Path::new("f.toml"), &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn station(camera: &str, more: &str) -> Plan {
        plan(&format!(
            "[[station]]\nname = \"cups\"\ncamera = \"{camera}\"\nclasses = [\"cup\"]\npass = [\"a\"]\n{more}"
        ))
    }

    /// Ten frames of each camera, 10 ms apart, after a part was asked for at 15 ms; those that are handed over.
    fn handed_over(slots: &FrameSlots, control: &Control, began: Monotonic) -> Vec<(usize, u64)> {
        let at = |number: u64| began + Duration::from_millis(10 * number);
        let asked = began + Duration::from_millis(15);
        control.send(Command::Judge { station: "cups".into(), part: None, asked }).unwrap();
        for sequence in 0..10 {
            for camera in [0, 1] {
                let (format, data, captured) = (PixelFormat::Grey, vec![0], at(sequence));
                let (width, height, stride, origin) = (1, 1, 1, None);
                slots.put(camera, Frame { format, width, height, stride, data, captured, sequence, origin });
            }
        }
        let mut taken: Vec<_> =
            std::iter::from_fn(|| slots.take(Duration::ZERO)).map(|(camera, frame)| (camera, frame.sequence)).collect();
        taken.sort_unstable();
        taken
    }

    #[test]
    fn a_parts_frame_is_reserved_by_the_stations_that_are_in_force() {
        let slots = Arc::new(FrameSlots::new(&[Arc::<CameraCounters>::default(), Arc::default()]));
        let control = Control::new(|| ());
        let reservations = Reservations::attach(&slots, &control);
        let number = |camera: &str| ["belt", "gate"].iter().position(|name| *name == camera);
        let began = |seconds| Monotonic::from_duration(Duration::from_secs(seconds));
        assert_eq!(handed_over(&slots, &control, began(1)), [(0, 9), (1, 9)], "no station yet");
        reservations.set(&station("belt", "").stations, number);
        assert_eq!(handed_over(&slots, &control, began(2)), [(0, 2), (0, 9), (1, 9)]);
        // Another configuration: the frame is a later one, then another camera's, then nobody's.
        reservations.set(&station("belt", "delay = \"30ms\"\n").stations, number);
        assert_eq!(handed_over(&slots, &control, began(3)), [(0, 5), (0, 9), (1, 9)]);
        reservations.set(&station("gate", "").stations, number);
        assert_eq!(handed_over(&slots, &control, began(4)), [(0, 9), (1, 2), (1, 9)]);
        reservations.set(&plan("").stations, number);
        assert_eq!(handed_over(&slots, &control, began(5)), [(0, 9), (1, 9)]);
    }
}
