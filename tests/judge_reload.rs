//! Stations and their inputs across a reload: edges on simulated lines, a real SIGHUP, verdicts on simulated lines.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use spotter::actions::gpio::simulated::timeline;
use spotter::config;
use spotter::config::plan::Level;
use spotter::daemon::{self, Options};
use spotter::inputs::simulated;

/// Photos as a live camera, one that is away, and a station at each.
const FIRST: &str = "
[device]
name = \"judge\"
ready = { backend = \"simulated\", chip = \"plc\", line = 5 }
[model]
cache = \"none\"
path = \"ROOT/models/vgg16-gap-caltech101.onnx\"
[[camera]]
name = \"belt\"
files = \"ROOT/tests/photos/wild_cat\"
repeat = true
live = true
fps = 20
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
[[station]]
name = \"nobody\"
camera = \"away\"
trigger = \"door\"
classes = [\"cup\"]
timeout = \"60s\"
fault = [\"late\"]
";

fn configuration(inputs: [(&str, u32); 2], edit: impl Fn(&str) -> String) -> String {
    let mut text = edit(&FIRST.replace("ROOT", env!("CARGO_MANIFEST_DIR")));
    for (name, line) in inputs {
        text += &format!("[input.{name}]\nbackend = \"simulated\"\nchip = \"plc\"\nline = {line}\ndebounce = \"0s\"\n");
    }
    for (name, line) in [("good", 1), ("late", 4)] {
        text += &format!(
            "[action.{name}]\ntype = \"gpio\"\nbackend = \"simulated\"\nchip = \"plc\"\nline = {line}\nmode = \"pulse\"\npulse = \"5ms\"\n"
        );
    }
    text
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pulses(line: &str) -> usize {
    timeline("plc", line).iter().filter(|stamp| stamp.level == Level::High).count()
}

fn edge(line: &str) {
    simulated::set("plc", line, true);
    simulated::set("plc", line, false);
}

#[test]
fn stations_answer_through_a_reload_and_a_changed_one_gives_up_its_parts_as_faults() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("judge.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let reload = |text: &str| {
        write(text);
        kill_process(getpid(), Signal::HUP).unwrap();
    };
    let same = |text: &str| text.to_owned();
    write(&configuration([("barrier", 22), ("door", 24)], same));
    let plan = config::load(Path::new(&file)).unwrap_or_else(|problems| panic!("{problems}"));
    let options = Options { config: Some(file.clone()), ..Options::default() };
    let running = std::thread::spawn(move || daemon::run(&plan, &options));
    for line in ["22", "24"] {
        wait_until("the input is heard", || simulated::is_listened_to("plc", line));
    }
    wait_until("ready", || timeline("plc", "5").last().is_some_and(|stamp| stamp.level == Level::High));
    edge("22");
    wait_until("a verdict", || pulses("1") == 1);
    // It waits for a camera that does not come.
    edge("24");

    // A camera more, before the others; stations and inputs are the same, and know nothing of it.
    let album = format!(
        "[[camera]]\nname = \"album\"\nfiles = \"{}/tests/photos/cup\"\nrepeat = true\nlive = true\nfps = 1\n[[camera]]\nname = \"belt\"",
        env!("CARGO_MANIFEST_DIR")
    );
    let with_album = |text: &str| text.replace("[[camera]]\nname = \"belt\"", &album);
    let second = configuration([("barrier", 22), ("door", 24)], with_album);
    reload(&second);
    for verdicts in 2..=20 {
        edge("22");
        wait_until("a verdict", || pulses("1") == verdicts);
    }
    assert_eq!(pulses("4"), 0, "the part at the other station still waits");

    // Another input, and a station that waits otherwise: its part is given up visibly.
    let third = configuration([("barrier", 25), ("door", 24)], with_album)
        .replace("camera = \"away\"", "camera = \"away\"\ndelay = \"10ms\"");
    reload(&third);
    wait_until("the part at the changed station is a fault", || pulses("4") == 1);
    wait_until("the new input is heard", || simulated::is_listened_to("plc", "25"));
    edge("25");
    wait_until("a verdict by the new input", || pulses("1") == 21);
    edge("22");
    edge("25");
    wait_until("a verdict", || pulses("1") == 22);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(pulses("1"), 22, "nobody hears the old input");
    kill_process(getpid(), Signal::TERM).unwrap();
    running.join().unwrap().unwrap();
}
