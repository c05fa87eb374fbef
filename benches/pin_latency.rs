//! From an event to the edge on a simulated pin: alone, and while every other kind of action is at work on the same events.
//!
//! `cargo bench --bench pin_latency -- [--blocks N] [--events N]`
//!
//! Blocks of events alternate between a pin alone and a pin beside a log, a hook (`true`), a webhook (a receiver on the loopback
//! interface), a broker that is away and a snapshot (a JPEG of 1280x720), told in the daemon's order. So the two see the
//! same machine; a ratio near 1 means that no action waits for another. What the others do takes cores, and that is in the figures.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spotter::actions::{self, ActionContext, ActionHandle, Edge, Message, Observer, Picture, RuleInfo};
use spotter::capture::Rgb;
use spotter::clock::Monotonic;
use spotter::config::plan::{
    ActionKind, ActionPlan, GpioBackend, GpioLine, GpioMode, GpioPlan, HookPlan, Level, LogPlan, MqttPlan, MqttVersion,
    Orientation, Secret, SnapshotPlan, WebhookPlan,
};
use spotter::rules::{Change, Event, OffReason};

/// Between two events: a fast camera's.
const PERIOD: Duration = Duration::from_millis(20);

struct Latencies(Mutex<Sender<Duration>>);

impl Observer for Latencies {
    fn edge(&self, edge: &Edge) {
        if let Some(latency) = edge.latency() {
            // Nobody listens any more at the end.
            let _ = self.0.lock().expect("no one panics with it").send(latency);
        }
    }
    fn delivered(&self, _: &str, _: &Event) {}
}

/// Running actions, and what their pin says.
struct Rig {
    handles: Vec<ActionHandle>,
    latencies: Receiver<Duration>,
    picture: Arc<Picture>,
}

impl Rig {
    fn start(plans: &[ActionPlan]) -> Result<Self, actions::ActionError> {
        let (sender, latencies) = channel();
        let names = plans.iter().map(|plan| plan.name.to_string()).collect();
        let context = ActionContext {
            device: "bench".into(),
            rules: vec![RuleInfo {
                name: "cat".into(),
                label: "Cat".into(),
                actions: names,
                has_switch: false,
                armed_by_mqtt: false,
            }],
            cameras: vec!["feeder".into()],
            observer: Arc::new(Latencies(Mutex::new(sender))),
            control: spotter::control::Control::new(|| ()),
        };
        let rgb = Rgb { width: 1280, height: 720, data: (0..1280 * 720 * 3).map(|i| (i * 31 % 251) as u8).collect() };
        let picture = Arc::new(Picture { rgb, orientation: Orientation::default(), regions: vec![] });
        Ok(Self { handles: actions::start(plans, context)?, latencies, picture })
    }

    /// One event to all of them, pins first as the daemon does. From the event to its edge.
    fn event(&self, sequence: u64) -> Duration {
        let now = Monotonic::now();
        let event = Arc::new(Event {
            rule: "cat".into(),
            change: if sequence.is_multiple_of(2) { Change::On } else { Change::Off(OffReason::Gone) },
            camera: "feeder".into(),
            region: None,
            class: 0,
            label: "wild_cat".into(),
            probability: 0.9,
            captured: now,
            decided: now,
            sequence,
            origin: None,
            verdict: None,
        });
        let pins = self.handles.iter().filter(|handle| handle.is_urgent());
        for handle in pins.chain(self.handles.iter().filter(|handle| !handle.is_urgent())) {
            handle.send(match handle.wants_pictures() {
                true => Message::Pictured(event.clone(), self.picture.clone()),
                false => Message::Event(event.clone()),
            });
        }
        self.latencies.recv_timeout(Duration::from_secs(10)).expect("the simulated line moves")
    }

    fn block(&self, events: u64) -> Vec<Duration> {
        let one = |sequence| {
            let latency = self.event(sequence);
            std::thread::sleep(PERIOD);
            latency
        };
        (0..events).map(one).collect()
    }

    /// Until the work of the block is done, so that it does not run into the other's.
    fn rest(&self) {
        while self.handles.iter().any(|handle| handle.depth() > 0 && &**handle.name() != "broker") {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn pin(chip: &str) -> ActionPlan {
    let plan = GpioPlan {
        backend: GpioBackend::Simulated,
        chip: Some(chip.into()),
        line: GpioLine::Offset(1),
        mode: GpioMode::Follow,
        active_low: false,
        safe: Level::Low,
    };
    ActionPlan { name: "pin".into(), kind: ActionKind::Gpio(plan) }
}

fn others(folder: &Path, port: u16) -> Vec<ActionPlan> {
    let timeout = Duration::from_secs(10);
    let broker = MqttPlan {
        version: MqttVersion::V311,
        tls: false,
        host: "127.0.0.1".into(),
        port: 1,
        credentials: None,
        ca: None,
        topic: "spotter".into(),
        discovery: None,
        outbox: 256,
    };
    let webhook = WebhookPlan {
        url: Secret::new(format!("http://127.0.0.1:{port}/")),
        token: None,
        ca: None,
        timeout,
        retries: 0,
        queue: 256,
    };
    let hook = HookPlan { command: vec!["true".into()], timeout, parallel: 2, queue: 64 };
    let snapshot = SnapshotPlan { folder: folder.join("pictures"), count: 20, bytes: 100_000_000, quality: 85 };
    let plan = |name: &str, kind| ActionPlan { name: name.into(), kind };
    vec![
        plan("events", ActionKind::Log(LogPlan { path: Some(folder.join("events.jsonl")) })),
        plan("hook", ActionKind::Hook(hook)),
        plan("webhook", ActionKind::Webhook(webhook)),
        plan("broker", ActionKind::Mqtt(broker)),
        plan("snapshot", ActionKind::Snapshot(snapshot)),
    ]
}

/// Answers every request with 200, one connection after another.
fn receiver() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 8192];
            while !matches!(socket.read(&mut request), Ok(0) | Err(_)) {
                let answered = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                if answered.is_err() {
                    break;
                }
            }
        }
    });
    Ok(port)
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1e6
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut blocks, mut events) = (10, 50);
    // `cargo bench` passes `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(name) = arguments.next() {
        let number: u64 = arguments
            .next()
            .and_then(|value| value.parse().ok())
            .filter(|number| *number > 0)
            .ok_or(format!("{name} needs a number from 1"))?;
        match name.as_str() {
            "--blocks" => blocks = number,
            "--events" => events = number,
            _ => return Err(format!("unknown option {name}; there are --blocks and --events").into()),
        }
    }
    let folder = tempfile::tempdir()?;
    let mut plans = others(folder.path(), receiver()?);
    plans.push(pin("loaded"));
    let (alone, loaded) = (Rig::start(&[pin("alone")])?, Rig::start(&plans)?);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..blocks {
        without.extend(alone.block(events));
        with.extend(loaded.block(events));
        loaded.rest();
    }
    without.sort_unstable();
    with.sort_unstable();
    println!("event to edge, {} events each      median        p99", without.len());
    let rows = [("the pin alone", &without), ("beside all others", &with)];
    for (name, sorted) in rows {
        println!("{name:30} {:8.1} µs {:8.1} µs", percentile(sorted, 50), percentile(sorted, 99));
    }
    let ratio = |percent| percentile(&with, percent) / percentile(&without, percent);
    println!("{:30} {:8.2}    {:8.2}", "ratio", ratio(50), ratio(99));
    for handle in &loaded.handles {
        println!("  {}: {} of {} events dropped", handle.name(), handle.dropped(), with.len());
    }
    actions::close_all(&alone.handles, Duration::from_secs(1));
    actions::close_all(&loaded.handles, Duration::from_secs(1));
    Ok(())
}
