//! A panic in any thread leaves every line at its safe level, for good. A process of its own: the fence is global.

use std::sync::Arc;
use std::time::Duration;

use spotter::actions::gpio::simulated::{Stamp, timeline};
use spotter::actions::gpio::{Cause, drive_all_safe};
use spotter::actions::{self, ActionContext, Edge, Message, Observer};
use spotter::clock::Monotonic;
use spotter::config::plan::{ActionKind, ActionPlan, GpioBackend, GpioLine, GpioMode, GpioPlan, Level};
use spotter::rules::{Change, Event};

/// Panics on the action's own thread when its line becomes active: the worst moment.
struct PanicsOnHigh;

impl Observer for PanicsOnHigh {
    fn edge(&self, edge: &Edge) {
        assert!(edge.level == Level::Low || &*edge.action != "fragile", "as the test asks");
    }
    fn delivered(&self, _: &str, _: &Event) {}
}

fn gpio(name: &str, line: u32) -> ActionPlan {
    let plan = GpioPlan {
        backend: GpioBackend::Simulated,
        chip: None,
        line: GpioLine::Offset(line),
        mode: GpioMode::Follow,
        active_low: false,
        safe: Level::Low,
    };
    ActionPlan { name: name.into(), kind: ActionKind::Gpio(plan) }
}

fn on() -> Message {
    let now = Monotonic::now();
    Message::Event(Arc::new(Event {
        rule: "cat".into(),
        change: Change::On,
        camera: "feeder".into(),
        region: None,
        class: 0,
        label: "cat".into(),
        probability: 0.9,
        captured: now,
        decided: now,
        verdict: None,
        sequence: 1,
        origin: None,
    }))
}

fn last(line: &str) -> Stamp {
    timeline("simulated", line).pop().unwrap()
}

fn wait_for(line: &str, level: Level) {
    for _ in 0..2000 {
        if last(line).level == level {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("line {line} is {:?}", last(line));
}

#[test]
fn a_panic_hook_drives_every_line_to_safety_from_any_thread() {
    std::panic::set_hook(Box::new(|_| {
        drive_all_safe();
    }));
    let context = ActionContext {
        device: "garden".into(),
        rules: vec![],
        cameras: vec![],
        views: vec![],
        pins: vec![],
        observer: Arc::new(PanicsOnHigh),
        control: spotter::control::Control::new(|| ()),
    };
    let handles = actions::start(&[gpio("steady", 1), gpio("fragile", 2)], context).unwrap();
    handles[0].send(on());
    wait_for("1", Level::High);
    handles[1].send(on());
    wait_for("1", Level::Low);
    wait_for("2", Level::Low);
    assert_eq!(last("1").cause, Cause::Emergency);
    // Whatever is still queued, nothing moves any more.
    let stamps = timeline("simulated", "1").len();
    handles[0].send(on());
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(timeline("simulated", "1")[stamps..], []);
    assert!(handles.iter().all(|handle| handle.close(Duration::from_millis(100))));
}
