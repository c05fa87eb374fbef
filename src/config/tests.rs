//! Files and the plans or problems that they must give; the table of keys against the reader; files that make no sense.

mod station;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::plan::*;
use super::*;

/// The example of the design, with a part of everything.
const GARDEN: &str = r#"
[device]
name = "garden"

[model]
path = "vgg16-gap-caltech101.onnx"

[[camera]]
name = "feeder"
device = "/dev/v4l/by-id/usb-046d_C270-video-index0"
format = "MJPG"
size = [1280, 720]
fps = 15
rotate = 90
flip = "horizontal"
fit = "stretch"
stale = "1m"
controls = { focus_absolute = 30, auto = true }

[[camera.region]]
name = "perch"
box = [0.30, 0.10, 0.40, 0.70]

[[camera.region]]
name = "floor"
box = [20, 640, 700, 640]

[[camera]]
name = "gate"
process = ["rpicam-vid", "-t", "0", "-o", "-"]

[[camera]]
name = "photos"
files = "photos/"
repeat = true

[[rule]]
name = "cat"
cameras = ["feeder", "gate"]
classes = ["wild_cat", "*cat*", 281]
on = 0.60
off = 0.40
hits = 3
window = 5
hold = "2s"
cooldown = "30s"
actions = ["siren", "broker"]

[action.siren]
type = "gpio"
chip = "pinctrl-rp1"
line = 17
mode = "pulse"
pulse = "250ms"
active_low = false
safe = "low"

[action.lamp]
type = "gpio"
name = "GPIO18"
active_low = true

[action.broker]
type = "mqtts-or-mqtt"
url = "mqtts://joe:${PASSWORD}@broker.local:8884"
ca = "/etc/ca.pem"

[action.events]
type = "log"
path = "events.jsonl"
"#;

fn variables(name: &str) -> Option<String> {
    match name {
        "PASSWORD" | "MQTT_PASSWORD" => Some("s3cret".into()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Plan, Problems> {
    parse(text, Path::new("/etc/spotter/garden.toml"), &variables)
}

fn garden() -> String {
    GARDEN.replace("mqtts-or-mqtt", "mqtt")
}

/// A file of five lines, the last of them in the camera's table.
const BASE: &str = "[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"cam\"\ndevice = \"/dev/video0\"\n";

/// Compares the problems of `text` with `expected`, each `LINE KEY: a part of the message`.
fn check_file(text: &str, expected: &[&str]) {
    let problems = read(text).err().unwrap_or_default().list;
    let found: Vec<_> = problems.iter().map(|p| format!("{} {}: {}", p.line, p.key, p.message)).collect();
    assert_eq!(found.len(), expected.len(), "{text}\n{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        let (place, part) = expected.split_once(": ").expect("a place and a message");
        let message = found.strip_prefix(place).and_then(|rest| rest.strip_prefix(": "));
        assert!(message.is_some_and(|message| message.contains(part)), "{text}\nexpected {expected}\nfound    {found}");
    }
}

/// As [`check_file`], for [`BASE`] and `more` behind it, from line 6.
fn check(more: &str, expected: &[&str]) {
    check_file(&format!("{BASE}{more}"), expected);
}

/// As [`check`], with other sources than a device, from line 5.
fn check_source(source: &str, expected: &[&str]) {
    check_file(&BASE.replace("device = \"/dev/video0\"", source), expected);
}

#[test]
fn the_example_gives_its_plan() {
    let plan = read(&garden()).expect("valid");
    assert_eq!(plan.device, "garden");
    assert_eq!(plan.model.path, Path::new("/etc/spotter/vgg16-gap-caltech101.onnx"));
    let feeder = CameraPlan {
        name: "feeder".into(),
        source: SourcePlan::V4l2 {
            device: "/dev/v4l/by-id/usb-046d_C270-video-index0".into(),
            format: Some(PixelFormat::Jpeg),
        },
        size: Some([1280, 720]),
        fps: Some(15.0),
        orientation: Orientation { rotate: Rotation::Quarter, flip: Some(Flip::Horizontal) },
        fit: Fit::Stretch,
        regions: vec![
            RegionPlan { name: "perch".into(), area: Area::Fractions([0.3, 0.1, 0.4, 0.7]) },
            // Inside only because the rotation makes the frame 720 wide and 1280 high.
            RegionPlan { name: "floor".into(), area: Area::Pixels([20, 640, 700, 640]) },
        ],
        timeout: Duration::from_secs(5),
        stale: Duration::from_secs(60),
        controls: BTreeMap::from([("auto".into(), 1), ("focus_absolute".into(), 30)]),
        motion: None,
    };
    assert_eq!(plan.cameras[0], feeder);
    let command = ["rpicam-vid", "-t", "0", "-o", "-"].map(String::from).to_vec();
    assert_eq!(plan.cameras[1].source, SourcePlan::Process { command, format: PixelFormat::Jpeg });
    let photos = SourcePlan::Files { path: "/etc/spotter/photos/".into(), repeat: true, live: false };
    assert_eq!(plan.cameras[2].source, photos);
    let cat = RulePlan {
        name: "cat".into(),
        cameras: vec!["feeder".into(), "gate".into()],
        classes: vec!["wild_cat".into(), "*cat*".into(), "281".into()],
        not_classes: Vec::new(),
        on: 0.6,
        off: 0.4,
        hits: 3,
        window: 5,
        hold: Duration::from_secs(2),
        cooldown: Duration::from_secs(30),
        schedule: None,
        armed_by: None,
        armed: true,
        actions: vec!["siren".into(), "broker".into()],
        escalation: None,
    };
    assert_eq!(plan.rules, [cat]);
    let gpio = |chip: Option<&str>, line, mode, active_low, safe| {
        let chip = chip.map(String::from);
        ActionKind::Gpio(GpioPlan { backend: GpioBackend::Chardev, chip, line, mode, active_low, safe })
    };
    let pulse = GpioMode::Pulse(Duration::from_millis(250));
    let siren = gpio(Some("pinctrl-rp1"), GpioLine::Offset(17), pulse, false, Level::Low);
    // The safe level of an active-low line is, unless said otherwise, high: inactive.
    let lamp = gpio(None, GpioLine::Name("GPIO18".into()), GpioMode::Follow, true, Level::High);
    let broker = ActionKind::Mqtt(MqttPlan {
        version: MqttVersion::V311,
        tls: true,
        host: "broker.local".into(),
        port: 8884,
        credentials: Some(("joe".into(), Secret::new("s3cret".into()))),
        ca: Some("/etc/ca.pem".into()),
        topic: "spotter".into(),
        discovery: Some("homeassistant".into()),
        commands: false,
        snapshots: false,
        outbox: 256,
    });
    let events = ActionKind::Log(LogPlan { path: Some("/etc/spotter/events.jsonl".into()) });
    let kinds: Vec<_> = plan.actions.iter().map(|action| (&*action.name, action.kind.clone())).collect();
    assert_eq!(kinds, [("siren", siren), ("lamp", lamp), ("broker", broker), ("events", events)]);
    assert!(!format!("{plan:?}").contains("s3cret"));
}

/// Found by `mutated_files_are_answered`: a problem quoted the value of a variable.
#[test]
fn a_problem_never_shows_a_value_from_the_environment() {
    let text = format!("{BASE}[[rule]]\nname = \"${{PASSWORD}}/\"\nclasses = [\"*\"]\n");
    let problems = read(&text).expect_err("a name with a slash").to_string();
    assert!(!problems.contains("s3cret") && problems.contains("${PASSWORD}"), "{problems}");
}

#[test]
fn the_least_file_is_enough() {
    let plan = read(BASE).expect("valid");
    assert_eq!(plan.cameras[0].fit, defaults::DEFAULT_FIT);
    assert_eq!((plan.rules.len(), plan.actions.len()), (0, 0));
    assert!(values::name(&plan.device).is_ok(), "{}", plan.device);
    let rule =
        read(&format!("{BASE}[[rule]]\nname = \"r\"\nclasses = [\"*\"]\nhits = 4\non = 0.9\n")).expect("valid").rules;
    assert_eq!((rule[0].hits, rule[0].window), (4, 4));
    assert!((rule[0].off - 0.6).abs() < 1e-6);
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = "[[camera]]\nnam = \"cam\"\ndevice = 5\n\n[[rule]]\nname = \"a/b\"\nclasses = []\nof = 0.3\nhits = 0\nactions = [\"bell\"]\n";
    check_file(
        text,
        &[
            "1 camera[0].name: is missing; add for instance `name = \"feeder\"`",
            "1 model: is missing",
            "2 camera[0].nam: is no key of [[camera]]; did you mean `name`?",
            "3 camera[0].device: is an integer, and must be a string, such as `device = \"/dev/video0\"`",
            "6 rule[0].name: is no name, because of '/'",
            "7 rule[0].classes: has no class",
            "8 rule[0].of: did you mean `off`?",
            "9 rule[0].hits: 0 is out of range; write 1 to 1000",
            "10 rule[0].actions[0]: there is no action \"bell\"; this file has none",
        ],
    );
}

#[test]
fn a_problem_is_printed_with_file_line_key_and_remedy() {
    let text = format!("{BASE}[[rule]]\nname = \"r\"\nclasses = [\"*\"]\non = 0.6\noff = 0.7\n");
    let problems = parse(&text, Path::new("garden.toml"), &variables).expect_err("a problem");
    let expected = "garden.toml:10: rule[0].off: 0.7 is above on = 0.6; write at most that, better two thirds of it";
    assert_eq!(problems.to_string(), expected);
    assert_eq!(ConfigError::from(problems).to_string(), expected);
}

#[test]
fn syntax_errors_have_line_and_column() {
    for (text, line, column) in [
        ("[model]\npath = \"m.onnx\n", 2, 15),
        ("[model]\npath = \n", 2, 8),
        ("a = 1\nä = 2\na = 3\n", 2, 1),
        ("]", 1, 1),
    ] {
        let problems = read(text).expect_err(text);
        let first = &problems.list[0];
        assert_eq!((first.line, first.key.as_str()), (line, ""), "{text}: {problems}");
        assert!(first.message.contains(&format!("column {column}: ")), "{text}: {problems}");
    }
    check_file("[model]\npath = \"a\"\npath = \"b\"\n", &["3 : duplicate key"]);
    check_file("\u{0}\n", &["1 : column 2"]);
}

#[test]
fn unknown_keys_say_what_was_meant() {
    check("[cameras]\n", &["6 cameras: is no key of the file; did you mean `camera`?"]);
    check(
        "[device]\ntimezone = \"Berlin\"\n",
        &["7 device.timezone: there is no time zone \"Berlin\"; write one such as"],
    );
    check("[device]\nnmae = \"x\"\n", &["7 device.nmae: did you mean `name`?"]);
    check("box = [0, 0, 1, 1]\n", &["6 camera[0].box: is no key of [[camera]] but of [[camera.region]]"]);
    check("\"a b\" = 1\n", &["6 camera[0].\"a b\": is no key of [[camera]]; remove it"]);
    check(
        "[action.x]\ntype = \"log\"\nurl = \"mqtt://h\"\n",
        &["8 action.x.url: but of [action.NAME], type = \"mqtt\""],
    );
}

#[test]
fn layers_have_a_method_each() {
    let text = BASE.replacen("[model]\n", "[model]\nlayers = [\"3x3=direct\", \"a=b=winograd\"]\n", 1);
    let plan = read(&text).expect("a plan");
    let expected = [("3x3", MethodPlan::Direct), ("a=b", MethodPlan::Winograd)].map(|(l, m)| (l.to_owned(), m));
    assert_eq!(plan.model.layers, expected);
    let text = BASE.replacen("[model]\n", "[model]\nlayers = [\"conv\", \"conv=fast\", \"=direct\"]\n", 1);
    let problems: Vec<String> = (0..3).map(|i| format!("2 model.layers[{i}]: is no choice for a layer")).collect();
    check_file(&text, &problems.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn sources_of_cameras() {
    check_source("fps = 5", &["3 camera[0]: has no source; add one of `device`, `process`, `files`"]);
    check_source("device = \"d\"\nfiles = \"f\"", &["6 camera[0].files: one source too many beside `device`"]);
    check_source("device = \"\"", &["5 camera[0].device: is empty"]);
    check_source("device = \"d\"\nformat = \"MJPEG\"", &["6 camera[0].format: did you mean \"MJPG\"?"]);
    check_source("device = \"d\"\nlive = true", &["6 camera[0].live: has no effect with `device`, only with `files`"]);
    check_source("process = []", &["5 camera[0].process: names no program"]);
    check_source(
        "process = [\"x\", 1, \"\"]",
        &["5 camera[0].process[1]: is an integer", "5 camera[0].process[2]: empty"],
    );
    check_source("process = [\"x\"]\nformat = \"rgb24\"", &["6 camera[0].format: do not say their size"]);
    check_source("process = [\"x\"]\nformat = \"rgb24\"\nsize = [640, 480]", &[]);
    check_source("process = [\"x\"]\nformat = \"yuv420\"\nsize = [641, 480]", &["7 camera[0].size: even"]);
    check_source(
        "process = [\"x\"]\nformat = \"YUYV\"",
        &["6 camera[0].format: write \"mjpeg\", \"yuv420\" or \"rgb24\""],
    );
    check_source("files = \"f\"\nformat = \"MJPG\"", &["6 camera[0].format: has no effect with `files`"]);
    check_source("files = \"f\"\ncontrols = { a = 1 }", &["6 camera[0].controls: has no effect with `files`"]);
    check_source("files = \"f\"\nlive = \"yes\"", &["6 camera[0].live: is a string, and must be true or false"]);
    check(
        "[[camera]]\nname = \"b\"\ndevice = \"/dev/video0\"",
        &["8 camera[1].device: is the device of camera \"cam\" too"],
    );
    check("[[camera]]\nname = \"cam\"\ndevice = \"/dev/video1\"", &["7 camera[1].name: name of another camera"]);
    check_file("camera = []\n[model]\npath = \"m\"", &["1 camera: there is no camera"]);
    check_file("camera = 5\n[model]\npath = \"m\"", &["1 camera: is an integer"]);
    check_file("camera = [5]\n[model]\npath = \"m\"", &["1 camera[0]: must be a table"]);
}

#[test]
fn pictures_of_cameras() {
    check("size = [640, 480]\nfps = 0.5\nrotate = 270\nflip = \"vertical\"\nfit = \"crop\"\ntimeout = \"1m\"", &[]);
    check("size = [640]", &["6 camera[0].size: has 1 elements, and needs 2"]);
    check("size = [640.5, 480]", &["6 camera[0].size: must be whole numbers"]);
    check("size = [1, 480]", &["6 camera[0].size: must be whole numbers, 16 to 16384"]);
    check("size = [99999999999999999999, 480]", &["6 camera[0].size: holds something that is no number"]);
    check("size = \"640x480\"", &["6 camera[0].size: is a string, and must be a list of two whole numbers"]);
    check("fps = 0", &["6 camera[0].fps: out of range"]);
    check("fps = nan", &["6 camera[0].fps: out of range"]);
    check("rotate = 45", &["6 camera[0].rotate: write 0, 90, 180 or 270"]);
    check("flip = \"left\"", &["6 camera[0].flip: write \"horizontal\" or \"vertical\""]);
    check("stale = \"10\"", &["6 camera[0].stale: is no duration"]);
    check("stale = 10", &["6 camera[0].stale: is an integer, and must be a duration, such as `stale = \"30s\"`"]);
    check("timeout = \"1ms\"", &["6 camera[0].timeout: out of range; write 100ms to"]);
    check("controls = { focus = \"far\" }", &["6 camera[0].controls.focus: must be"]);
}

#[test]
fn regions() {
    let region = |area: &str, expected: &[&str]| {
        check(&format!("size = [640, 480]\n[[camera.region]]\nname = \"r\"\nbox = {area}\n"), expected);
    };
    for inside in ["[0, 0, 1, 1]", "[0.7, 0.1, 0.3, 0.9]", "[0, 0, 640, 480]", "[639, 479, 1, 1]"] {
        region(inside, &[]);
    }
    region(
        "[0.5, 0.0, 0.6, 1.0]",
        &["9 camera[0].region[0].box: reaches to 1.1, outside of the frame, which is 1 wide"],
    );
    region(
        "[0, 240, 640, 241]",
        &["9 camera[0].region[0].box: reaches to 481, outside of the frame, which is 480 high"],
    );
    region("[0.5, 0.5, 100, 100]", &["9 camera[0].region[0].box: mixes fractions and pixels"]);
    region("[0, 0, 640.0, 480]", &["9 camera[0].region[0].box: mixes fractions and pixels"]);
    region("[-1, 0, 10, 10]", &["9 camera[0].region[0].box: must not be negative"]);
    region("[nan, 0, 10, 10]", &["9 camera[0].region[0].box: must not be negative"]);
    region("[0.1, 0.1, 0, 0.5]", &["9 camera[0].region[0].box: is empty"]);
    region("[0.1, 0.1, 0.5]", &["9 camera[0].region[0].box: has 3 elements, and needs 4"]);
    region("[0.1, 0.1, 0.5, \"x\"]", &["9 camera[0].region[0].box: no number"]);
    check("[[camera.region]]\nname = \"r\"", &["6 camera[0].region[0].box: is missing"]);
    let twice = "[[camera.region]]\nname = \"r\"\nbox = [0, 0, 1, 1]\n";
    check(&twice.repeat(2), &["10 camera[0].region[1].name: another region"]);
}

#[test]
fn rules_and_what_they_name() {
    let rule = |more: &str, expected: &[&str]| {
        let region = "[[camera.region]]\nname = \"perch\"\nbox = [0, 0, 1, 1]\n[action.siren]\ntype = \"log\"\n";
        check(&format!("{region}[[rule]]\nname = \"r\"\nclasses = [\"*\"]\n{more}\n"), expected);
    };
    rule("cameras = [\"cam\", \"cam/perch\"]\nactions = [\"siren\"]", &[]);
    rule(
        "cameras = [\"cma\"]",
        &["14 rule[0].cameras[0]: there is no camera or region \"cma\"; did you mean \"cam\"?"],
    );
    rule("cameras = [\"cam/porch\"]", &["14 rule[0].cameras[0]: did you mean \"cam/perch\"?"]);
    rule("cameras = [\"elsewhere\"]", &["14 rule[0].cameras[0]: there are \"cam\" or \"cam/perch\""]);
    check_file(
        "[model]\npath = \"m\"\n[[camera]]\nname = \"a/b\"\ndevice = \"d\"\n[[rule]]\nname = \"r\"\nclasses = [1]\ncameras = [\"a\"]",
        &["4 camera[0].name: is no name", "9 rule[0].cameras[0]: this file has none with a valid name"],
    );
    rule("cameras = \"cam\"", &["14 rule[0].cameras: is a string, and must be a list of strings"]);
    rule("actions = [\"siren\",\n\"sirene\"]", &["15 rule[0].actions[1]: did you mean \"siren\"?"]);
    rule("actions = [\"siren\", \"siren\"]", &["14 rule[0].actions[1]: named twice"]);
    rule("on = 1.5", &["14 rule[0].on: out of range; write 0 to 1"]);
    rule("on = 0", &["14 rule[0].on: is reached by every frame"]);
    rule("on = 0.5\noff = 0.5", &[]);
    rule("on = \"0.5\"", &["14 rule[0].on: is a string, and must be a number"]);
    rule("hits = 3\nwindow = 2", &["14 rule[0].hits: hits = 3 is above window = 2"]);
    rule("share = 0.6\nwindow = 20\nhits = 3", &["16 rule[0].hits: a second time beside `share`"]);
    rule("share = 0.6", &["14 rule[0].share: `window`, which is missing"]);
    rule("share = 0\nwindow = 20", &["14 rule[0].share: without a single hit"]);
    rule("share = 60\nwindow = 20", &["14 rule[0].share: out of range; write 0 to 1"]);
    rule("schedule = [\"mon-fri 18:00-06:00\", \"sat\"]", &["14 rule[0].schedule[1]: is no span of time; write"]);
    rule("schedule = []", &["14 rule[0].schedule: has no span"]);
    rule("clock_unset = \"active\"", &["14 rule[0].clock_unset: has no effect without `schedule`"]);
    rule("armed_by = \"mqtt\"", &["14 rule[0].armed_by: there is none; add an action with `type = \"mqtt\"`"]);
    rule("armed_by = \"mqtt\"\n[action.b]\ntype = \"mqtt\"\nurl = \"mqtt://h\"", &[]);
    rule("armed_by = \"gpio\"", &["14 rule[0].armed_by: is not known; write \"mqtt\""]);
    rule("armed_by = { chip = \"c\", line = 27, bias = \"pull-up\", active_low = true }\narmed = false", &[]);
    rule("armed_by = { line = 27 }", &["14 rule[0].armed_by.chip: is missing"]);
    rule("armed_by = {}", &["14 rule[0].armed_by.line: is missing"]);
    rule("armed = true", &["14 rule[0].armed: has no effect without `armed_by`"]);
    rule("escalate = [\"siren\"]", &["14 rule[0].escalate: says not after how long"]);
    rule("escalate_after = \"1m\"", &["14 rule[0].escalate_after: has no effect without `escalate`"]);
    rule("escalate = [\"siren\"]\nescalate_after = \"1m\"", &[]);
    rule("hits = 3.0", &["14 rule[0].hits: is a float, and must be a whole number"]);
    rule("hits = 0x3\nwindow = 1_0", &[]);
    rule("hold = \"8d\"", &["14 rule[0].hold: is no duration"]);
    rule("cooldown = \"200h\"", &["14 rule[0].cooldown: out of range"]);
    rule(
        "[[rule]]\nname = \"r\"\nclasses = [-1, 3, 1.5, \"\"]",
        &[
            "15 rule[1].name: name of another rule",
            "16 rule[1].classes[0]: -1 is no index",
            "16 rule[1].classes[2]: is a float",
            "16 rule[1].classes[3]: is empty",
        ],
    );
}

#[test]
fn a_share_is_the_hits_that_reach_it() {
    for (share, window, hits) in [("0.6", 20, 12), ("0.07", 100, 7), ("0.61", 20, 13), ("1", 7, 7), ("0.001", 5, 1)] {
        let rule = format!("[[rule]]\nname = \"r\"\nclasses = [1]\nshare = {share}\nwindow = {window}\n");
        let plan = read(&format!("{BASE}{rule}")).expect("valid");
        assert_eq!((plan.rules[0].hits, plan.rules[0].window), (hits, window), "{share} of {window}");
    }
}

#[test]
fn groups_of_classes() {
    let rule = |classes: &str, expected: &[&str]| {
        let group = "[group.pets]\nclasses = [\"*cat*\", 5]\n[[rule]]\nname = \"r\"\n";
        check(&format!("{group}{classes}\n"), expected);
    };
    rule("classes = [\"@pets\", \"lamp\"]\nnot_classes = [\"wild_cat\", 5]", &[]);
    rule("classes = [\"@pet\"]", &["10 rule[0].classes[0]: there is no group \"pet\"; did you mean \"@pets\"?"]);
    rule("classes = [\"*\"]\nnot_classes = [\"@x\"]", &["11 rule[0].not_classes[0]: there are \"pets\""]);
    rule("classes = [\"@\"]", &["10 rule[0].classes[0]: there is no group \"\""]);
    rule("classes = [1]\nnot_classes = \"a\"", &["11 rule[0].not_classes: is a string, and must be a list of labels"]);
    check("[group.a]\n", &["6 group.a.classes: is missing"]);
    check("[group.a]\nclasses = []\n", &["7 group.a.classes: has no class"]);
    check("[group.a]\nclasses = [\"@a\"]\n", &["7 group.a.classes[0]: groups hold no groups"]);
    check("[group.\"a b\"]\nclasses = [1]\n", &["6 group.\"a b\": is no name"]);
}

#[test]
fn lines_of_gpio_actions() {
    let gpio = |keys: &str, expected: &[&str]| check(&format!("[action.a]\ntype = \"gpio\"\n{keys}\n"), expected);
    gpio("chip = \"c\"\nline = 17\nmode = \"toggle\"", &[]);
    gpio("backend = \"rppal\"\nline = 17", &[]);
    gpio("backend = \"simulated\"\nname = \"relay\"", &[]);
    gpio("chip = \"c\"", &["6 action.a.line: is missing; add for instance `line = 17`"]);
    gpio("line = 17", &["6 action.a.chip: is missing"]);
    gpio("chip = \"c\"\nline = 17\nname = \"GPIO17\"", &["10 action.a.name: a second time"]);
    gpio("backend = \"rppal\"\nname = \"GPIO17\"", &["9 action.a.name: rppal knows lines by number only"]);
    gpio("chip = \"c\"\nline = -1", &["9 action.a.line: out of range; write 0 to 4095"]);
    gpio("name = \"x\"\npulse = \"1s\"", &["9 action.a.pulse: with `mode = \"pulse\"` only"]);
    gpio("name = \"x\"\nmode = \"pulse\"\npulse = \"0s\"", &["10 action.a.pulse: out of range"]);
    gpio("name = \"x\"\nsafe = \"of\"", &["9 action.a.safe: write \"low\" or \"high\""]);
    check("[action.a]\n", &["6 action.a.type: is missing"]);
    check("[action.a]\ntype = \"gpoi\"\n", &["7 action.a.type: did you mean \"gpio\"?"]);
    check("[action.\"a b\"]\ntype = \"log\"\n", &["6 action.\"a b\": is no name"]);
    check("action = 5", &["6 camera[0].action: is no key"]);
    check("[action]\na = 5", &["7 action.a: must be"]);
}

#[test]
fn two_actions_on_one_line() {
    let both = |a: &str, b: &str, conflict: bool| {
        let text = format!("[action.a]\ntype = \"gpio\"\n{a}\n[action.b]\ntype = \"gpio\"\n{b}\n");
        let line = 9 + a.lines().count();
        let expected = format!("{} action.b: drives the same line as action \"a\"", line - 1);
        check(
            &text,
            if conflict { std::slice::from_ref(&expected) } else { &[] }
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .as_slice(),
        );
    };
    both("chip = \"c\"\nline = 17", "chip = \"c\"\nline = 17", true);
    both("chip = \"c\"\nline = 17", "chip = \"c\"\nline = 18", false);
    both("chip = \"c\"\nline = 17", "chip = \"d\"\nline = 17", false);
    both("name = \"x\"", "name = \"x\"", true);
    both("name = \"x\"", "chip = \"c\"\nname = \"x\"", true);
    both("chip = \"c\"\nname = \"x\"", "chip = \"d\"\nname = \"x\"", false);
    both("backend = \"rppal\"\nline = 1", "backend = \"rppal\"\nchip = \"c\"\nline = 1", true);
    both("backend = \"simulated\"\nline = 1", "chip = \"c\"\nline = 1", false);
}

#[test]
fn two_actions_on_one_topic_of_a_broker() {
    let both = |second: &str, problems: &[&str]| {
        let text = format!("[action.a]\ntype = \"mqtt\"\nurl = \"mqtt://h\"\n[action.b]\ntype = \"mqtt\"\n{second}\n");
        check(&text, problems);
    };
    both("url = \"mqtt://h:1883\"", &["9 action.b: has the broker and topic of action \"a\""]);
    both("url = \"mqtt://h\"\ntopic = \"other\"", &[]);
    both("url = \"mqtt://g\"", &[]);
}

#[test]
fn brokers() {
    let mqtt = |keys: &str, expected: &[&str]| check(&format!("[action.a]\ntype = \"mqtt\"\n{keys}\n"), expected);
    let plan = |keys: &str| match &read(&format!("{BASE}[action.a]\ntype = \"mqtt\"\n{keys}\n")).expect(keys).actions[0]
        .kind
    {
        ActionKind::Mqtt(mqtt) => mqtt.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(plan("url = \"mqtt://h\"\ndiscovery = false").discovery, None);
    assert_eq!(plan("url = \"mqtt://h\"\ndiscovery = \"ha\"").discovery, Some("ha".into()));
    let credentials = plan("url = \"mqtt://h\"\nuser = \"joe\"\npassword = \"${PASSWORD}\"").credentials.expect("some");
    assert_eq!((credentials.0.as_str(), credentials.1.reveal()), ("joe", "s3cret"));
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "from a file\nsecond line\n").expect("written");
    let credentials = plan(&format!("url = \"mqtt://joe@h\"\npassword_file = {secret:?}")).credentials.expect("some");
    assert_eq!((credentials.0.as_str(), credentials.1.reveal()), ("joe", "from a file"));
    std::fs::write(&secret, "\n").expect("written");
    mqtt(&format!("url = \"mqtt://joe@h\"\npassword_file = {secret:?}"), &["9 action.a.password_file: is empty"]);
    mqtt("url = \"mqtt://joe@h\"\npassword_file = \"/dev/zero\"", &["9 action.a.password_file: is no file"]);
    mqtt(
        "url = \"mqtt://joe@h\"\npassword_file = \"none\"",
        &["9 action.a.password_file: cannot read /etc/spotter/none"],
    );
    mqtt("", &["6 action.a.url: is missing"]);
    mqtt("url = \"mqtt:/h\"", &["8 action.a.url: no \"://\""]);
    mqtt("url = \"mqtt://h\"\nca = \"ca.pem\"", &["9 action.a.ca: has no effect without TLS"]);
    mqtt("url = \"mqtt://h\"\npassword = \"x\"", &["6 action.a.user: no password without a user"]);
    mqtt(
        "url = \"mqtt://a:b@h\"\npassword = \"x\"\nuser = \"u\"",
        &["9 action.a.password: in the URL too", "10 action.a.user: in the URL too"],
    );
    mqtt("url = \"mqtt://h\"\nuser = \"${NONE}\"", &["9 action.a.user: the environment variable \"NONE\" is not set"]);
    mqtt("url = \"mqtt://h\"\ntopic = \"a/#\"", &["9 action.a.topic: wildcard"]);
    mqtt("url = \"mqtt://h\"\noutbox = 0", &["9 action.a.outbox: out of range"]);
    mqtt(
        "url = \"mqtt://h\"\ndiscovery = 1",
        &["9 action.a.discovery: is an integer, and must be true, false or a string"],
    );
}

#[test]
fn sizes_are_bounded() {
    let cameras: String = (0..70).map(|i| format!("[[camera]]\nname = \"c{i}\"\ndevice = \"d{i}\"\n")).collect();
    check(&cameras, &["3 camera: there are 71; at most 64 are allowed"]);
    let rules: String = (0..257).map(|i| format!("[[rule]]\nname = \"r{i}\"\nclasses = [1]\n")).collect();
    check(&rules, &["6 rule: there are 257; at most 256"]);
    let actions: String = (0..257).map(|i| format!("[action.a{i}]\ntype = \"log\"\n")).collect();
    check(&actions, &["6 action: there are 257 actions; at most 256"]);
    let classes = format!("[[rule]]\nname = \"r\"\nclasses = [{}]\n", "1, ".repeat(257));
    check(&classes, &["8 rule[0].classes: has 257 elements"]);
    check(&format!("[device]\nname = \"{}\"\n", "x".repeat(5000)), &["7 device.name: has 5000 bytes"]);
    let noise: String = (0..1000).map(|i| format!("x{i} = 1\n")).collect();
    let problems = read(&format!("{BASE}{noise}")).expect_err("noise");
    assert_eq!((problems.list.len(), problems.count()), (200, 1000));
    assert!(problems.to_string().ends_with("and 800 more problems"));
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.toml");
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        load(&path).expect_err("an error").to_string()
    };
    assert!(error(&vec![b'\n'; LARGEST_FILE as usize + 1]).contains("larger than 1048576 bytes"));
    assert!(error(b"# ok\n\xff").contains("config.toml:2: a byte that is not UTF-8"));
    assert!(error(b"").contains("config.toml:1: model: is missing"));
    std::fs::write(&path, BASE).expect("written");
    assert_eq!(load(&path).expect("valid").model.path, folder.path().join("m.onnx"));
    let missing = load(&folder.path().join("none.toml")).expect_err("missing").to_string();
    assert!(missing.contains("cannot read the configuration") && missing.contains("--config"), "{missing}");
}

#[test]
fn problems_found_later_are_located() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.toml");
    std::fs::write(&path, garden()).expect("written");
    let line = |key: &str| locate(&path, [(key.to_owned(), "wrong".to_owned())]).expect("located").list[0].line;
    for (key, part) in [
        ("rule[0].classes[1]", "classes = "),
        ("camera[0].region[1].box", "box = [20"),
        ("camera[2]", "[[camera]]"),
        ("camera[2].nothing", "[[camera]]"),
        ("action.broker.url", "url ="),
        ("model.path", "path = "),
    ] {
        let found = garden().lines().nth(line(key) - 1).map(str::to_owned).unwrap_or_default();
        assert!(found.contains(part), "{key}: {found}");
    }
    for key in ["", "x", "rule[9]", "rule[x].y", "[[]]..", "camera[0].name.x[1]"] {
        assert!(line(key) >= 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in any::<String>(), key in any::<String>()) {
        let problems = read(&text).expect_err("no configuration");
        prop_assert!(!problems.list.is_empty() && problems.list.iter().all(|problem| problem.line >= 1));
        offset_of(&DeTable::parse_recoverable(&text).0.into_inner(), &key);
    }

    #[test]
    fn mutated_files_are_answered(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..12usize, "[ -~\n]{0,6}|nan|-1|\\[\\[|99999999999999999999|\\$\\{"), 1..6),
    ) {
        let mut text = garden();
        for (at, removed, inserted) in edits {
            let at = at.index(text.len());
            text.replace_range(at..(at + removed).min(text.len()), &inserted);
        }
        if let Err(problems) = read(&text) {
            prop_assert!(problems.count() > 0);
            prop_assert!(problems.list.iter().all(|problem| problem.line <= text.lines().count() + 1 && !problem.message.is_empty()));
            prop_assert!(!problems.to_string().contains("s3cret"));
        }
    }
}
