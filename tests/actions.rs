//! All kinds of action together, through `actions::start`: safe levels first, and no action waits for another.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use spotter::actions::gpio::simulated::timeline;
use spotter::actions::{self, ActionContext, ActionHandle, Edge, Health, Message, Observer, RuleInfo};
use spotter::clock::Monotonic;
use spotter::config::plan::{
    ActionKind, ActionPlan, GpioBackend, GpioLine, GpioMode, GpioPlan, Level, LogPlan, MqttPlan, MqttVersion,
};
use spotter::rules::{Change, Event, OffReason};

#[derive(Default)]
struct Edges(Mutex<Vec<Edge>>);

impl Observer for Edges {
    fn edge(&self, edge: &Edge) {
        self.0.lock().unwrap().push(edge.clone());
    }
    fn delivered(&self, _: &str, _: &Event) {}
}

fn event(change: Change) -> Message {
    let now = Monotonic::now();
    Message::Event(Arc::new(Event {
        rule: "cat".into(),
        change,
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

fn gpio(chip: &str, line: u32) -> ActionPlan {
    let plan = GpioPlan {
        backend: GpioBackend::Simulated,
        chip: Some(chip.into()),
        line: GpioLine::Offset(line),
        mode: GpioMode::Follow,
        active_low: false,
        safe: Level::Low,
    };
    ActionPlan { name: format!("pin{line}").into(), kind: ActionKind::Gpio(plan) }
}

/// A broker that nobody listens for.
fn absent_broker() -> ActionPlan {
    let plan = MqttPlan {
        version: MqttVersion::V311,
        tls: false,
        host: "127.0.0.1".into(),
        port: 1,
        credentials: None,
        ca: None,
        topic: "spotter".into(),
        discovery: None,
        outbox: 16,
    };
    ActionPlan { name: "broker".into(), kind: ActionKind::Mqtt(plan) }
}

fn log(path: &Path) -> ActionPlan {
    ActionPlan { name: "events".into(), kind: ActionKind::Log(LogPlan { path: Some(path.into()) }) }
}

fn start(plans: &[ActionPlan]) -> (Vec<ActionHandle>, Arc<Edges>) {
    let observer = Arc::new(Edges::default());
    let names = plans.iter().map(|plan| plan.name.to_string()).collect();
    let context = ActionContext {
        device: "garden".into(),
        rules: vec![RuleInfo {
            name: "cat".into(),
            label: "Cat".into(),
            actions: names,
            has_switch: false,
            armed_by_mqtt: false,
        }],
        cameras: vec!["feeder".into()],
        observer: observer.clone(),
        control: spotter::control::Control::new(|| ()),
    };
    (actions::start(plans, context).unwrap(), observer)
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn lines_are_safe_when_start_returns_and_after_the_close() {
    let plans = [absent_broker(), gpio("start", 1), gpio("start", 2)];
    let (handles, observer) = start(&plans);
    let safe: Vec<String> = observer.0.lock().unwrap().iter().map(|edge| edge.action.to_string()).collect();
    assert_eq!(safe, ["pin1", "pin2"]);
    assert_eq!(handles.iter().map(|handle| handle.name().to_string()).collect::<Vec<_>>(), ["broker", "pin1", "pin2"]);
    for handle in &handles {
        handle.send(event(Change::On));
    }
    wait_until("both are high", || observer.0.lock().unwrap().len() == 4);
    let began = Instant::now();
    let stuck = actions::close_all(&handles, Duration::from_millis(600));
    assert!(stuck.is_empty(), "{stuck:?}");
    assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
    let ends = observer.0.lock().unwrap().split_off(4);
    assert_eq!(ends.iter().map(|edge| (edge.level, edge.cause.is_none())).collect::<Vec<_>>(), [(Level::Low, true); 2]);
    for line in ["1", "2"] {
        let levels: Vec<Level> = timeline("start", line).iter().map(|stamp| stamp.level).collect();
        assert_eq!(levels, [Level::Low, Level::High, Level::Low], "line {line}");
    }
}

#[test]
fn a_pin_waits_neither_for_the_broker_nor_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let (handles, observer) = start(&[absent_broker(), log(&path), gpio("latency", 1)]);
    let rounds = 200;
    for round in 0..rounds {
        let change = if round % 2 == 0 { Change::On } else { Change::Off(OffReason::Gone) };
        let message = event(change);
        for handle in &handles {
            handle.send(message.clone());
        }
        wait_until("the edge", || observer.0.lock().unwrap().len() == round + 2);
    }
    wait_until("the log is written", || handles[1].depth() == 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), rounds);
    wait_until("the broker is missed", || handles[0].status().health == Health::Degraded);
    assert_eq!((handles[0].depth(), handles[0].dropped()), (16, 184));
    let mut latencies: Vec<Duration> = observer.0.lock().unwrap().iter().filter_map(Edge::latency).collect();
    latencies.sort_unstable();
    let median = latencies[latencies.len() / 2];
    println!("event to edge: median {median:?}, largest {:?}", latencies.last().unwrap());
    assert!(median < Duration::from_millis(20), "{median:?}");
}

#[test]
fn two_actions_on_one_line_leave_the_second_degraded_and_named() {
    let mut second = gpio("shared", 1);
    second.name = "second".into();
    let (handles, _) = start(&[gpio("shared", 1), second]);
    assert_eq!(handles[0].status().health, Health::Ready);
    let status = handles[1].status();
    assert_eq!(status.health, Health::Degraded);
    assert!(status.detail.contains("\"spotter:pin1\""), "{}", status.detail);
}

#[test]
fn what_is_told_of_an_event_says_when_its_pin_moved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let (handles, observer) = start(&[log(&path), gpio("told", 1)]);
    for round in 0..20 {
        let message = event(if round % 2 == 0 { Change::On } else { Change::Off(OffReason::Gone) });
        // The log first: it does not know yet, and waits for the pin and not the other way round.
        handles.iter().for_each(|handle| _ = handle.send(message.clone()));
        wait_until("the log is written", || handles[0].depth() == 0);
    }
    let edges: Vec<f64> =
        observer.0.lock().unwrap().iter().filter_map(Edge::latency).map(|it| it.as_secs_f64()).collect();
    let text = std::fs::read_to_string(&path).unwrap();
    let told: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((edges.len(), told.len()), (20, 20));
    // A line that took longer than what is told waits (50 ms, on a busy machine) is told as unknown, and never wrongly.
    let known = std::iter::zip(&told, &edges)
        .filter_map(|(told, edge)| Some((told["payload"]["pin_latency_ms"].as_f64()?, edge)));
    let known: Vec<_> = known.collect();
    assert!(known.len() >= 10, "{text}");
    for (told, edge) in known {
        assert!((told - edge * 1e3).abs() < 0.01, "{told} ms told, {edge} s measured");
    }
}
