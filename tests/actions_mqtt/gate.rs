//! The shipped example of a gate, run in the demo's manner: photos, a real broker, a chip in memory.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::support::{Broker, Watcher};

/// Runs the example with `from` replaced by `to`, and gives its summary.
fn run(from: &str, to: &str, broker: &Broker) -> Value {
    let (root, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().unwrap());
    let example = std::fs::read_to_string(root.join("config/gate.toml")).unwrap();
    assert!(example.contains(from) && example.contains("fps = 8"));
    let example = example.replace("\"../", &format!("\"{}/", root.display()));
    let config = folder.path().join("gate.toml");
    std::fs::write(&config, example.replace("fps = 8", "fps = 1000").replace("armed = true ", "# ").replace(from, to))
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_spotter"))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .args(["run", "--once", "--format", "json", "--config"])
        .arg(&config)
        .env("SPOTTER_BROKER", format!("mqtt://127.0.0.1:{}", broker.port))
        .env_remove("STATE_DIRECTORY")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The rules that turned on.
fn fired(summary: &Value) -> BTreeSet<&str> {
    let events = summary["events"].as_array().unwrap();
    events.iter().filter(|it| it["on"] == true).map(|it| it["rule"].as_str().unwrap()).collect()
}

/// At any time of day, and also while the board does not know it, one of the two rules watches, and the other does not.
#[test]
fn the_gate_opens_by_day_or_rings_by_night_and_its_switch_ends_both() {
    let broker = Broker::start();
    let watcher = Watcher::new(broker.port);
    let summary = run("armed_by", "armed_by", &broker);
    assert_eq!(summary["frames"], 40);
    let fired_once = fired(&summary);
    assert!(fired_once == BTreeSet::from(["arrival"]) || fired_once == BTreeSet::from(["night"]), "{fired_once:?}");
    for rule in ["arrival", "night"] {
        watcher.expect(&format!("spotter/gate/rule/{rule}/armed"), "ON");
    }
    // Both switches off from the start.
    let disarmed = run("armed_by = \"mqtt\"", "armed_by = \"mqtt\"\narmed = false", &broker);
    assert_eq!(fired(&disarmed), BTreeSet::new());
    for rule in ["arrival", "night"] {
        watcher.expect(&format!("spotter/gate/rule/{rule}/armed"), "OFF");
    }
}
