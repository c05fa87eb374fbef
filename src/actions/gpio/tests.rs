//! The driver, end to end on simulated lines: what the pin does, and what the outside is told.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::guard::Registry;
use super::simulated::{Stamp, set_broken, timeline};
use super::*;
use crate::actions::payload::tests::event;
use crate::actions::runner::Mailbox;
use crate::actions::{ActionHandle, Edge, Health, Message, Observer};
use crate::clock::Monotonic;
use crate::config::plan::{GpioMode, Pattern};
use crate::rules::{Change, OffReason};

const ON: Change = Change::On;
const OFF: Change = Change::Off(OffReason::Gone);
use Level::{High, Low};

#[derive(Default)]
struct Edges(Mutex<Vec<Edge>>);

impl Observer for Edges {
    fn edge(&self, edge: &Edge) {
        self.0.lock().unwrap().push(edge.clone());
    }
    fn delivered(&self, _: &str, _: &Event) {}
}

/// One running action on a line of its own.
struct Rig {
    chip: String,
    handle: ActionHandle,
    edges: Arc<Edges>,
    registry: &'static Registry,
}

fn plan(chip: &str, mode: GpioMode) -> GpioPlan {
    GpioPlan {
        backend: GpioBackend::Simulated,
        chip: Some(chip.into()),
        line: GpioLine::Offset(17),
        mode,
        active_low: false,
        safe: Low,
    }
}

impl Rig {
    fn new(chip: &str, mode: GpioMode) -> Self {
        Self::with(plan(chip, mode))
    }

    fn with(plan: GpioPlan) -> Self {
        let edges = Arc::new(Edges::default());
        let registry: &'static Registry = Box::leak(Box::new(Registry::new()));
        let driver = Driver::open_in(registry, "siren".into(), &plan, edges.clone());
        let handle = driver.spawn().unwrap();
        Self { chip: plan.chip.unwrap(), handle, edges, registry }
    }

    fn send(&self, rule: &str, change: Change) {
        assert!(self.handle.send(Message::Event(Arc::new(event(rule, change)))));
    }

    /// Sends, and waits until the driver has dealt with it.
    fn send_and_wait(&self, rule: &str, change: Change) {
        self.send(rule, change);
        wait_until("the queue is empty", || self.handle.depth() == 0);
    }

    fn stamps(&self) -> Vec<Stamp> {
        timeline(&self.chip, "17")
    }

    fn levels(&self) -> Vec<Level> {
        self.stamps().iter().map(|stamp| stamp.level).collect()
    }

    fn wait_for(&self, levels: &[Level]) {
        wait_until(&format!("{levels:?}"), || self.levels() == levels);
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn follow_is_active_while_any_of_its_rules_is_on() {
    let rig = Rig::new("follow", GpioMode::Follow);
    assert_eq!(rig.levels(), [Low], "the safe level at once");
    rig.send_and_wait("cat", ON);
    rig.send_and_wait("dog", ON);
    rig.send_and_wait("cat", OFF);
    assert_eq!(rig.levels(), [Low, High]);
    rig.send_and_wait("dog", OFF);
    assert_eq!(rig.levels(), [Low, High, Low]);
}

#[test]
fn the_electrical_level_depends_on_active_low_and_safe() {
    for (active_low, safe, expected) in [
        (false, Low, vec![Low, High, Low]),
        (true, High, vec![High, Low, High]),
        // Safe is active: an alarm that sounds when nobody watches.
        (false, High, vec![High, Low, High]),
    ] {
        let chip = format!("levels-{active_low}-{safe:?}");
        let rig = Rig::with(GpioPlan { active_low, safe, ..plan(&chip, GpioMode::Follow) });
        rig.send_and_wait("cat", ON);
        rig.send_and_wait("cat", OFF);
        assert!(rig.handle.close(Duration::from_secs(1)));
        assert_eq!(rig.levels(), expected, "{chip}");
    }
}

#[test]
fn a_pulse_has_its_length_and_overlapping_ones_extend() {
    let rig = Rig::new("pulse", GpioMode::Pulse(Duration::from_millis(120)));
    rig.send("cat", ON);
    std::thread::sleep(Duration::from_millis(60));
    rig.send("dog", ON);
    rig.send("dog", OFF);
    rig.wait_for(&[Low, High, Low]);
    let stamps = rig.stamps();
    let length = stamps[2].at.since(stamps[1].at);
    assert!(length >= Duration::from_millis(175), "{length:?}");
    assert_eq!(stamps[2].cause, Cause::PulseEnd);
    rig.send("cat", ON);
    rig.wait_for(&[Low, High, Low, High, Low]);
    let stamps = rig.stamps();
    let length = stamps[4].at.since(stamps[3].at);
    assert!(length >= Duration::from_millis(120), "{length:?}");
}

#[test]
fn toggle_changes_at_each_on() {
    let rig = Rig::new("toggle", GpioMode::Toggle);
    for change in [ON, OFF, ON, OFF, ON] {
        rig.send_and_wait("cat", change);
    }
    assert_eq!(rig.levels(), [Low, High, Low, High]);
}

#[test]
fn a_pattern_is_driven_step_by_step_and_no_step_is_short() {
    let steps = [20, 10, 40, 10].map(Duration::from_millis);
    let rig = Rig::new("pattern", GpioMode::Pattern(Pattern { steps: steps.to_vec(), repeat: 2 }));
    rig.send("cat", ON);
    let edges: Vec<Level> = [Low, High].into_iter().cycle().take(9).collect();
    rig.wait_for(&edges);
    let stamps = rig.stamps();
    for (index, wanted) in steps.iter().cycle().take(7).enumerate() {
        let length = stamps[index + 2].at.since(stamps[index + 1].at);
        assert!(length >= *wanted, "step {index}: {length:?}");
    }
}

/// Each line has a thread of its own: a chip that takes its time (an expander on a slow bus) delays only its own lines.
#[test]
fn a_pulse_is_not_shortened_by_a_slow_neighbour() {
    let length = Duration::from_millis(30);
    let slow = Rig::new("slow", GpioMode::Toggle);
    simulated::set_slow("slow", "17", Duration::from_secs(2));
    let rig = Rig::new("quick", GpioMode::Pulse(length));
    for round in 0..5 {
        slow.send("cat", ON);
        let began = Monotonic::now();
        rig.send("cat", ON);
        wait_until("the pulse is over", || rig.stamps().len() == 3 + 2 * round);
        let stamps = rig.stamps();
        let [.., up, down] = stamps.as_slice() else { panic!("{stamps:?}") };
        assert!(down.at.since(up.at) >= length, "{stamps:?}");
        assert!(up.at >= began);
    }
    // The pulses have not waited for it.
    assert!(slow.handle.depth() > 0, "the neighbour is slow");
    drop(slow);
}

#[test]
fn an_edge_names_its_cause_and_its_latency() {
    let rig = Rig::new("edges", GpioMode::Pulse(Duration::from_millis(20)));
    rig.send("cat", ON);
    rig.wait_for(&[Low, High, Low]);
    wait_until("three edges", || rig.edges.0.lock().unwrap().len() == 3);
    let edges = rig.edges.0.lock().unwrap();
    let [start, answer, end] = edges.as_slice() else { panic!("{edges:?}") };
    assert_eq!((start.level, answer.level, end.level), (Low, High, Low));
    assert!(start.cause.is_none() && end.cause.is_none());
    assert_eq!(&*answer.cause.as_ref().unwrap().rule, "cat");
    let latency = answer.latency().unwrap();
    // The test's events were captured 25 ms before they were made.
    assert!(latency >= Duration::from_millis(25) && latency < Duration::from_secs(2), "{latency:?}");
    assert!(answer.at >= rig.stamps()[1].at, "stamped after the line was driven");
}

#[test]
fn closing_drains_lets_the_pulse_end_and_then_makes_safe() {
    let rig = Rig::new("close", GpioMode::Pulse(Duration::from_millis(100)));
    rig.send("cat", ON);
    assert!(rig.handle.close(Duration::from_secs(2)));
    assert_eq!(rig.levels(), [Low, High, Low]);
    let stamps = rig.stamps();
    assert!(stamps[2].at.since(stamps[1].at) >= Duration::from_millis(100));
}

#[test]
fn closing_cuts_a_pulse_at_the_limit() {
    let rig = Rig::new("cut", GpioMode::Pulse(Duration::from_secs(3600)));
    rig.send_and_wait("cat", ON);
    let began = Instant::now();
    assert!(rig.handle.close(Duration::from_millis(50)));
    assert!(began.elapsed() < Duration::from_millis(550));
    assert_eq!(rig.stamps().last().map(|stamp| stamp.cause.clone()), Some(Cause::Close));
    assert_eq!(rig.levels(), [Low, High, Low]);
    // Released: it can be had again.
    drop(open(&plan("cut", GpioMode::Follow), "other").unwrap());
}

#[test]
fn a_busy_line_names_its_holder_and_is_taken_over_when_free() {
    let holder = open(&plan("busy", GpioMode::Follow), "gate").unwrap();
    let rig = Rig::new("busy", GpioMode::Follow);
    let status = rig.handle.status();
    assert_eq!(status.health, Health::Degraded);
    assert!(status.detail.contains("is held by \"spotter:gate\""), "{}", status.detail);
    // The state that came meanwhile is caught up on.
    rig.send_and_wait("cat", ON);
    drop(holder);
    rig.wait_for(&[Low, Low, High]);
    assert_eq!(rig.handle.status().health, Health::Ready);
    assert_eq!(rig.handle.dropped(), 0, "a state is not lost");
}

#[test]
fn a_lost_line_comes_back_with_the_state_but_without_old_pulses() {
    for (chip, mode, expected, dropped) in [
        ("lost-follow", GpioMode::Follow, vec![Low, Low, High], 0),
        ("lost-pulse", GpioMode::Pulse(Duration::from_secs(9)), vec![Low, Low], 1),
        ("lost-toggle", GpioMode::Toggle, vec![Low, Low], 1),
    ] {
        let rig = Rig::new(chip, mode);
        set_broken(chip, "17", true);
        rig.send_and_wait("cat", ON);
        wait_until("degraded", || rig.handle.status().health == Health::Degraded);
        set_broken(chip, "17", false);
        rig.wait_for(&expected);
        wait_until("ready", || rig.handle.status().health == Health::Ready);
        assert_eq!(rig.handle.dropped(), dropped, "{chip}");
    }
}

#[test]
fn a_flood_never_leaves_a_follow_line_in_an_old_state() {
    let registry: &'static Registry = Box::leak(Box::new(Registry::new()));
    let plan = plan("flood", GpioMode::Follow);
    let driver = Driver::open_in(registry, "siren".into(), &plan, Arc::new(Edges::default()));
    // Before its thread runs, so that everything but the last few hundred is dropped.
    let send = |rule, change| {
        driver.outbox.push(Message::Event(Arc::new(event(rule, change))));
    };
    send("quiet", ON);
    for change in [ON, OFF].into_iter().cycle().take(2000) {
        send("busy", change);
    }
    assert!(driver.outbox.dropped() > 1000);
    let handle = driver.spawn().unwrap();
    wait_until("the queue is empty", || handle.depth() == 0);
    assert_eq!(timeline("flood", "17").last().map(|stamp| stamp.level), Some(High), "\"quiet\" is still on");
    handle.send(Message::Event(Arc::new(event("quiet", OFF))));
    wait_until("low", || timeline("flood", "17").last().is_some_and(|stamp| stamp.level == Low));
}

#[test]
fn an_emergency_makes_a_running_action_safe_for_good() {
    let rig = Rig::new("emergency", GpioMode::Follow);
    rig.send_and_wait("cat", ON);
    assert_eq!(rig.registry.drive_all_safe(), (1, vec![]));
    assert_eq!(rig.stamps().last().map(|stamp| (stamp.level, stamp.cause.clone())), Some((Low, Cause::Emergency)));
    rig.send_and_wait("dog", ON);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!rig.levels()[2..].contains(&High), "{:?}", rig.levels());
}

#[test]
fn a_backend_that_is_not_built_in_needs_a_person() {
    if cfg!(all(feature = "rppal", target_arch = "aarch64")) {
        return;
    }
    let rig = Rig::with(GpioPlan { backend: GpioBackend::Rppal, ..plan("rppal", GpioMode::Follow) });
    let status = rig.handle.status();
    assert_eq!(status.health, Health::Rejected);
    assert!(status.detail.contains("use backend = \"chardev\""), "{}", status.detail);
}

#[test]
fn a_missing_chip_leaves_the_action_rejected_and_closable() {
    let gpio = GpioPlan { backend: GpioBackend::Chardev, ..plan("no-such-chip", GpioMode::Follow) };
    let rig = Rig::with(gpio);
    let status = rig.handle.status();
    assert_eq!(status.health, Health::Rejected);
    assert!(status.detail.contains("there is no GPIO chip \"no-such-chip\""), "{}", status.detail);
    assert!(rig.handle.close(Duration::from_millis(100)));
}
