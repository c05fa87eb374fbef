//! Judge every part, end to end: edges on simulated lines, the shipped model and photos, verdicts on simulated lines.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use spotter::actions::gpio::simulated::{Stamp, timeline};
use spotter::config;
use spotter::config::plan::Level;
use spotter::daemon::{self, Options};
use spotter::inputs::simulated;
use spotter::rules::Outcome;

/// Photos as a live camera of which most frames are dropped, a camera that is away, and a station at each.
const CONFIGURATION: &str = "
[device]
name = \"judge\"
ready = { backend = \"simulated\", chip = \"plc\", line = 5 }
fault = { backend = \"simulated\", chip = \"plc\", line = 6 }
heartbeat = { backend = \"simulated\", chip = \"plc\", line = 13 }
[model]
cache = \"none\"
path = \"ROOT/models/vgg16-gap-caltech101.onnx\"
[[camera]]
name = \"belt\"
files = \"ROOT/tests/photos/wild_cat\"
repeat = true
live = true
fps = 50
[[camera]]
name = \"away\"
device = \"/dev/null\"
[[station]]
name = \"cats\"
camera = \"belt\"
trigger = \"barrier\"
classes = [\"wild_cat\"]
timeout = \"60s\"
pass = [\"good\"]
fail = [\"bad\"]
[[station]]
name = \"dogs\"
camera = \"belt\"
trigger = \"burst\"
classes = [\"dalmatian\"]
delay = \"400ms\"
timeout = \"60s\"
queue = 2
pass = [\"good\"]
fail = [\"bad\"]
fault = [\"none\"]
[[station]]
name = \"nobody\"
camera = \"away\"
trigger = \"door\"
classes = [\"cup\"]
timeout = \"200ms\"
fault = [\"late\"]
[input.barrier]
backend = \"simulated\"
chip = \"plc\"
line = 22
debounce = \"0s\"
[input.burst]
backend = \"simulated\"
chip = \"plc\"
line = 23
debounce = \"0s\"
[input.door]
backend = \"simulated\"
chip = \"plc\"
line = 24
";

fn plan() -> config::Plan {
    let mut text = CONFIGURATION.replace("ROOT", env!("CARGO_MANIFEST_DIR"));
    for (name, line) in [("good", 1), ("bad", 2), ("none", 3), ("late", 4)] {
        text += &format!(
            "[action.{name}]\ntype = \"gpio\"\nbackend = \"simulated\"\nchip = \"plc\"\nline = {line}\n\
             mode = \"pulse\"\npulse = \"5ms\"\n"
        );
    }
    config::parse(&text, Path::new("judge.toml"), &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_high(line: &str) -> bool {
    timeline("plc", line).last().is_some_and(|stamp| stamp.level == Level::High)
}

fn pulses(line: &str) -> usize {
    timeline("plc", line).iter().filter(|stamp| stamp.level == Level::High).count()
}

fn edge(line: &str) {
    simulated::set("plc", line, true);
    simulated::set("plc", line, false);
}

#[test]
fn every_edge_gets_its_verdict_and_the_plc_its_lines() {
    let plan = plan();
    let running = std::thread::spawn(move || daemon::run(&plan, &Options::default()));
    wait_until("ready", || is_high("5"));
    for line in ["22", "23", "24"] {
        wait_until("the input is heard", || simulated::is_listened_to("plc", line));
    }
    // One by one: each edge, one pulse.
    for round in 1..=5 {
        edge("22");
        wait_until("the verdict", || pulses("1") == round);
        wait_until("its end", || !is_high("1"));
    }
    assert_eq!(pulses("2"), 0, "every photo is a wild cat");
    // Four at once, of which two fit: two overflow at once, two are judged by a frame 400 ms later.
    (0..4).for_each(|_| edge("23"));
    wait_until("both have overflowed", || pulses("3") >= 1);
    wait_until("a dog was looked for", || pulses("2") >= 1);
    assert!(is_high("6"), "a camera is away: fault");
    edge("24");
    wait_until("time-out", || pulses("4") == 1);
    let beats = timeline("plc", "13").len();
    wait_until("the heart beats", || timeline("plc", "13").len() > beats + 2);
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
    let summary = running.join().unwrap().unwrap();

    let record = summary.recorder.lock();
    let verdicts: Vec<_> = record.events.iter().filter_map(|event| Some((event, event.verdict.as_ref()?))).collect();
    let of = |station: &str, outcome| {
        verdicts.iter().filter(|(event, verdict)| *event.rule == *station && verdict.outcome == outcome).count()
    };
    assert_eq!((of("cats", Outcome::Pass), of("dogs", Outcome::Fail), of("dogs", Outcome::Overflow)), (5, 2, 2));
    assert_eq!((of("nobody", Outcome::TimedOut), verdicts.len()), (1, 10));
    for (event, verdict) in verdicts.iter().filter(|(_, verdict)| !verdict.outcome.is_fault()) {
        let delay = Duration::from_millis(if &*event.rule == "dogs" { 400 } else { 0 });
        let waited = event.captured.since(verdict.asked);
        assert!(event.captured >= verdict.asked + delay, "{}: {waited:?}", event.rule);
    }
    drop(record);
    // At the end every line is at its safe level: the fault line's is the active one.
    let ends: Vec<Option<Level>> =
        ["5", "6", "13", "1"].map(|line| timeline("plc", line).last().map(|it: &Stamp| it.level)).to_vec();
    assert_eq!(ends[..2], [Some(Level::Low), Some(Level::High)]);
    assert_eq!(ends[2..], [Some(Level::Low), Some(Level::Low)]);
}

#[test]
fn the_conveyor_runs_in_the_demo_manner() {
    let output = Command::new(env!("CARGO_BIN_EXE_spotter"))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["run", "--once", "--format", "json", "--config", "config/conveyor.toml"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["frames"].as_u64(), Some(40));
    let events = json["events"].as_array().unwrap();
    let good = ["watch", "camera", "cellphone", "laptop", "scissors", "cup"];
    let mut seen = [0, 0];
    for event in events {
        let (label, probability) = (event["label"].as_str().unwrap(), event["probability"].as_f64().unwrap());
        match event["verdict"].as_str() {
            Some("pass") => {
                seen[0] += 1;
                assert!(good.contains(&label) && probability >= 0.6, "{event}");
            }
            Some("fail") => {
                seen[1] += 1;
                assert!(probability < 0.6, "{event}");
            }
            other => panic!("{other:?}: {event}"),
        }
    }
    println!("{} passed, {} failed", seen[0], seen[1]);
    assert!(seen[0] >= 1 && seen[1] >= 1, "{seen:?}");
}
