//! One board of the fleet: the real daemon, as small as it gets.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use image::{Rgb, RgbImage};
use rustix::process::{Pid, Signal, kill_process};

use super::listener::id_of;

/// Killed when dropped.
pub(crate) struct Member {
    name: String,
    log: PathBuf,
    child: Child,
}

/// What a daemon needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Resident memory, shared pages of the program included, in KiB.
    pub(crate) resident: u64,
    /// Its share of memory: a page that N processes map counts as one N-th to each. In KiB.
    pub(crate) share: u64,
    pub(crate) threads: u64,
}

/// Two scenes that the tiny model tells apart, in turns.
pub(crate) fn write_photos(folder: &Path) {
    let photos = folder.join("photos");
    std::fs::create_dir_all(&photos).unwrap();
    for (name, colour) in [("a.png", BRIGHT), ("b.png", DARK)] {
        RgbImage::from_pixel(32, 32, Rgb(colour)).save(photos.join(name)).unwrap();
    }
}

const BRIGHT: [u8; 3] = [255, 255, 255];
const DARK: [u8; 3] = [0, 0, 0];

impl Member {
    pub(crate) fn start(folder: &Path, number: usize, port: u16) -> Self {
        Self::with(folder, number, &format!("127.0.0.1:{port}"))
    }

    /// With the broker's address as it stands in a URL: `user:password@host:port`.
    pub(crate) fn with(folder: &Path, number: usize, broker: &str) -> Self {
        let name = format!("board-{number:04}");
        let log = folder.join(format!("{name}.jsonl"));
        let config = folder.join(format!("{name}.toml"));
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/plain.onnx");
        std::fs::write(&config, configuration(&name, &model, &log, broker)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_spotter"))
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .args(["run", "--config"])
            .arg(&config)
            .env("RUST_LOG", "error")
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { name, log, child }
    }

    pub(crate) fn topic(&self, rest: &str) -> String {
        format!("spotter/{}/{rest}", self.name)
    }

    /// Whether what a broker retains of this board is true now, by the daemon's own log.
    pub(crate) fn agrees_with(&self, retained: &HashMap<String, String>) -> bool {
        let blinks = self.lines().iter().rev().find(|line| line["rule"] == "blinks").map(|line| line["state"].clone());
        let is = |topic: &str, wanted: &str| retained.get(&self.topic(topic)).is_some_and(|told| told == wanted);
        is("status", "online")
            && is("camera/door/state", r#"{"state":"online"}"#)
            && is("rule/always/state", "ON")
            && is("rule/never/state", "OFF")
            && is("rule/never/armed", "ON")
            && blinks.is_some_and(|state| is("rule/blinks/state", if state == "on" { "ON" } else { "OFF" }))
    }

    /// The events as the broker is told them.
    fn lines(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may be half written.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.map(|mut line| line["payload"].take()).collect()
    }

    /// The ids of all events that the rules have made, in their order.
    pub(crate) fn logged(&self) -> Vec<String> {
        self.lines().iter().map(id_of).collect()
    }

    /// From /proc: `VmRSS` and `Threads` of status, `Pss` of smaps_rollup (proc(5)).
    pub(crate) fn cost(&self) -> Cost {
        let number = |file: &str, key: &str| {
            let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace()
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or_else(|| panic!("{file}: {text}"))
        };
        Cost {
            resident: number("status", "VmRSS:"),
            share: number("smaps_rollup", "Pss:"),
            threads: number("status", "Threads:"),
        }
    }

    pub(crate) fn ask_to_end(&self) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    pub(crate) fn wait_for_the_end(&mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}: {status}", self.name);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A rule that is always on, one that never is, and one that changes with each photo.
fn configuration(name: &str, model: &Path, log: &Path, broker: &str) -> String {
    let photos = log.with_file_name("photos");
    format!(
        r#"
[device]
name = "{name}"
[model]
path = {model:?}
threads = 1
[[camera]]
name = "door"
files = {photos:?}
repeat = true
fps = 0.5
[[rule]]
name = "always"
classes = ["*"]
on = 0.01
actions = ["broker", "events"]
[[rule]]
name = "never"
classes = ["1"]
on = 0.99
armed_by = "mqtt"
actions = ["broker", "events"]
[[rule]]
name = "blinks"
classes = ["0"]
on = 0.5
off = 0.5
actions = ["broker", "events"]
[action.broker]
type = "mqtt"
url = "mqtt://{broker}"
topic = "spotter"
[action.events]
type = "log"
path = {log:?}
"#
    )
}
