//! Every key of a configuration, in one table: what is not in it is an unknown key, and the README's reference is made of it.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::similar::nearest;

/// A kind of table in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The document itself.
    Root,
    /// `[device]`
    Device,
    /// `[device.ready]`, `[device.fault]`, `[device.heartbeat]`
    DeviceLine,
    /// `[model]`
    Model,
    /// `[[camera]]`
    Camera,
    /// `[[camera.region]]`
    Region,
    /// `[camera.controls]`: any key.
    Controls,
    /// `[[rule]]`
    Rule,
    /// `[[station]]`
    Station,
    /// `[input]`: any key, the inputs' names.
    Inputs,
    /// `[input.NAME]`
    Input,
    /// `[action]`: any key, the actions' names.
    Actions,
    /// `[action.NAME]` before its type is known.
    Action,
    /// `[action.NAME]` with `type = "gpio"`
    Gpio,
    /// `[action.NAME]` with `type = "mqtt"`
    Mqtt,
    /// `[action.NAME]` with `type = "log"`
    Log,
}

impl Section {
    /// The sections that have a table of keys in the reference, in its order.
    pub const REFERENCE: [Section; 11] = [
        Section::Device,
        Section::DeviceLine,
        Section::Model,
        Section::Camera,
        Section::Region,
        Section::Rule,
        Section::Station,
        Section::Input,
        Section::Gpio,
        Section::Mqtt,
        Section::Log,
    ];

    /// How the section is begun in the file, for headings.
    pub fn heading(self) -> &'static str {
        match self {
            Section::Root => "the file",
            Section::Device => "[device]",
            Section::DeviceLine => "[device.ready], [device.fault], [device.heartbeat]",
            Section::Model => "[model]",
            Section::Camera => "[[camera]]",
            Section::Region => "[[camera.region]]",
            Section::Controls => "[camera.controls]",
            Section::Rule => "[[rule]]",
            Section::Station => "[[station]]",
            Section::Inputs | Section::Input => "[input.NAME]",
            Section::Actions | Section::Action => "[action.NAME]",
            Section::Gpio => "[action.NAME], type = \"gpio\"",
            Section::Mqtt => "[action.NAME], type = \"mqtt\"",
            Section::Log => "[action.NAME], type = \"log\"",
        }
    }

    /// The section takes any key.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Section::Controls | Section::Actions | Section::Action | Section::Inputs)
    }
}

/// What a key means when it is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The key must be there.
    Required,
    /// As if this TOML value were written.
    Default(&'static str),
    /// Something that no value says.
    Means(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where it stands.
    pub section: Section,
    /// Its name.
    pub name: &'static str,
    /// What it takes, with article: "a string".
    pub kind: &'static str,
    /// What its absence means.
    pub absent: Absent,
    /// What it does.
    pub meaning: &'static str,
    /// A value, as written in TOML.
    pub example: &'static str,
}

const fn key(
    section: Section,
    name: &'static str,
    kind: &'static str,
    absent: Absent,
    meaning: &'static str,
    example: &'static str,
) -> Key {
    Key { section, name, kind, absent, meaning, example }
}

use Absent::{Default, Means, Required};
use Section::{Camera, Device, DeviceLine, Gpio, Input, Log, Model, Mqtt, Region, Root, Rule, Station};

const DURATION: &str = "a duration";
const INTEGER: &str = "a whole number";
const NUMBER: &str = "a number";
const STRING: &str = "a string";
const BOOLEAN: &str = "true or false";
const STRINGS: &str = "a list of strings";

/// Every key, by section.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key(Root, "device", "a table", Means("the defaults"), "the board", "{ name = \"garden\" }"),
    key(Root, "model", "a table", Required, "what recognises", "{ path = \"model.onnx\" }"),
    key(Root, "camera", "a list of tables", Required, "what is watched", "[{ name = \"feeder\", device = \"/dev/video0\" }]"),
    key(Root, "rule", "a list of tables", Means("nothing is noticed"), "what is to be noticed", "[{ name = \"cat\", classes = [\"*cat*\"] }]"),
    key(Root, "action", "a table of tables", Means("nothing is done"), "what is done about it", "{ events = { type = \"log\" } }"),
    key(Root, "station", "a list of tables", Means("no part is judged"), "where single parts are judged on request", "[{ name = \"gate\", camera = \"feeder\", classes = [\"cup\"] }]"),
    key(Root, "input", "a table of tables", Means("nothing is listened to"), "GPIO lines that are listened to", "{ sensor = { chip = \"pinctrl-rp1\", line = 22 } }"),

    key(Device, "name", STRING, Means("the host's name"), "the board's name, in MQTT topics and client ids", "\"garden\""),
    key(Device, "ready", "a table", Means("no such line"), "a line that is active while the model is loaded and the daemon runs", "{ chip = \"pinctrl-rp1\", line = 5 }"),
    key(Device, "fault", "a table", Means("no such line"), "a line that is active while a camera or an action does not work, or after something was dropped or timed out, until the next verdict in time", "{ chip = \"pinctrl-rp1\", line = 6 }"),
    key(Device, "heartbeat", "a table", Means("no such line"), "a line that changes, at most four times a second, while the inference loop makes progress", "{ chip = \"pinctrl-rp1\", line = 13 }"),

    key(DeviceLine, "backend", STRING, Default("\"chardev\""), "as an action's", "\"simulated\""),
    key(DeviceLine, "chip", STRING, Means("any chip that has the named line"), "the chip's label or path", "\"pinctrl-rp1\""),
    key(DeviceLine, "line", INTEGER, Means("`line` or `name` is needed"), "the line's offset on the chip", "5"),
    key(DeviceLine, "name", STRING, Means("see `line`"), "the line's name, instead of `line`", "\"GPIO5\""),
    key(DeviceLine, "active_low", BOOLEAN, Default("false"), "the active level is low", "true"),
    key(DeviceLine, "safe", STRING, Means("the inactive level; of `fault` the active one"), "`low` or `high`: the level driven at start, at exit and at a failure", "\"low\""),

    key(Model, "path", STRING, Required, "the ONNX file; its manifest lies beside it", "\"models/vgg16-gap-caltech101.onnx\""),
    key(Model, "kernel", STRING, Means("the best for the CPU"), "the kernels by name; `tract` for tract's own", "\"generic\""),
    key(Model, "threads", INTEGER, Means("all cores"), "threads for inference, 1 to 1024", "4"),

    key(Camera, "name", STRING, Required, "the camera's name, in rules and topics: letters, digits, `-`, `_`", "\"feeder\""),
    key(Camera, "device", STRING, Means("one of `device`, `process`, `files` is needed"), "a V4L2 camera: `/dev/v4l/by-id/…`, `/dev/v4l/by-path/…`, `/dev/videoN`, or a card name", "\"/dev/video0\""),
    key(Camera, "process", STRINGS, Means("see `device`"), "a program that writes frames to its stdout, and its arguments", "[\"rpicam-vid\", \"-n\", \"-t\", \"0\", \"--codec\", \"mjpeg\", \"-o\", \"-\"]"),
    key(Camera, "files", STRING, Means("see `device`"), "a photo, a glob, or a folder; every photo is classified, in order", "\"photos/\""),
    key(Camera, "format", STRING, Means("the best that a device offers; `\"mjpeg\"` for a process"), "the pixel format: `MJPG`, `YUYV`, `UYVY`, `NV12`, `YU12`, `RGB3`, `BGR3` or `GREY` of a device; `mjpeg`, `yuv420` or `rgb24` of a process", "\"MJPG\""),
    key(Camera, "size", "a list of two whole numbers", Means("the source's own; needed for a process with raw frames"), "width and height in pixels, 16 to 16384", "[1280, 720]"),
    key(Camera, "fps", NUMBER, Means("the source's own; files as fast as they are classified"), "frames a second asked of a device, or at which files are played, 0.001 to 1000", "15"),
    key(Camera, "rotate", INTEGER, Default("0"), "clockwise: 0, 90, 180 or 270", "90"),
    key(Camera, "flip", STRING, Means("no mirror"), "a mirror after the rotation: `horizontal` or `vertical`", "\"horizontal\""),
    key(Camera, "fit", STRING, Default("\"crop\""), "how a frame or region meets the model's square: `crop` (the centre only), `pad` (grey bars) or `stretch`", "\"pad\""),
    key(Camera, "repeat", BOOLEAN, Default("false"), "files: from the start again at the end", "true"),
    key(Camera, "live", BOOLEAN, Default("false"), "files: as a camera, the newest frame wins", "true"),
    key(Camera, "timeout", DURATION, Default("\"5s\""), "without a frame for this long the source is closed and opened again", "\"10s\""),
    key(Camera, "stale", DURATION, Default("\"10s\""), "without a frame for this long the camera's rules turn off", "\"30s\""),
    key(Camera, "controls", "a table of whole numbers", Means("left as they are"), "V4L2 controls by name, as `v4l2-ctl --list-ctrls` shows them; `true` is 1", "{ focus_automatic_continuous = 0, focus_absolute = 30 }"),
    key(Camera, "region", "a list of tables", Means("the whole frame"), "parts of the frame that are classified each on its own", "[{ name = \"perch\", box = [0.3, 0.1, 0.4, 0.7] }]"),

    key(Region, "name", STRING, Required, "the region's name; a rule names it `camera/region`", "\"perch\""),
    key(Region, "box", "a list of four numbers", Required, "left, top, width, height of the oriented frame: fractions, or whole pixels", "[0.30, 0.10, 0.40, 0.70]"),

    key(Rule, "name", STRING, Required, "the rule's name, in topics: letters, digits, `-`, `_`", "\"cat\""),
    key(Rule, "cameras", STRINGS, Default("[]"), "what it watches: `camera` (all its regions) or `camera/region`; empty means everything", "[\"feeder\"]"),
    key(Rule, "classes", "a list of labels", Required, "labels, indices or globs, without regard to case; the most probable one counts", "[\"wild_cat\", \"*cat*\"]"),
    key(Rule, "on", NUMBER, Default("0.6"), "a frame is a hit from this probability up", "0.60"),
    key(Rule, "off", NUMBER, Means("two thirds of `on`"), "once on, a frame counts down to this probability", "0.40"),
    key(Rule, "hits", INTEGER, Default("1"), "this many hits turn the rule on, 1 to 1000", "1"),
    key(Rule, "window", INTEGER, Means("as `hits`"), "among this many frames of a view, 1 to 1000", "5"),
    key(Rule, "hold", DURATION, Default("\"0s\""), "how long it stays on after the last frame that supported it", "\"2s\""),
    key(Rule, "cooldown", DURATION, Default("\"0s\""), "how long after its last event it does not turn on", "\"30s\""),
    key(Rule, "actions", STRINGS, Default("[]"), "names of actions", "[\"siren\"]"),

    key(Station, "name", STRING, Required, "the station's name, in topics: letters, digits, `-`, `_`", "\"gate\""),
    key(Station, "camera", STRING, Required, "the one view that it looks at: `camera` or `camera/region`", "\"feeder\""),
    key(Station, "trigger", STRING, Means("messages alone ask"), "the input whose edges ask for a verdict", "\"sensor\""),
    key(Station, "classes", "a list of labels", Required, "what a good part shows: labels, indices or globs; the most probable one counts", "[\"cup\"]"),
    key(Station, "on", NUMBER, Default("0.6"), "a part passes from this probability up", "0.80"),
    key(Station, "delay", DURATION, Default("\"0s\""), "from the edge to the earliest frame that is judged: the way from the sensor to the camera", "\"120ms\""),
    key(Station, "timeout", DURATION, Default("\"2s\""), "from the edge to the verdict at most; then it is a fault", "\"1s\""),
    key(Station, "queue", INTEGER, Default("8"), "requests that may wait, 1 to 32; one more is a fault", "4"),
    key(Station, "pass", STRINGS, Default("[]"), "actions for a part that passes", "[\"siren\"]"),
    key(Station, "fail", STRINGS, Default("[]"), "actions for a part that fails", "[\"siren\"]"),
    key(Station, "fault", STRINGS, Default("[]"), "actions for a part without a verdict", "[\"siren\"]"),

    key(Input, "backend", STRING, Default("\"chardev\""), "`chardev` or `simulated`", "\"simulated\""),
    key(Input, "chip", STRING, Means("any chip that has the named line"), "the chip's label or path", "\"pinctrl-rp1\""),
    key(Input, "line", INTEGER, Means("`line` or `name` is needed"), "the line's offset on the chip", "22"),
    key(Input, "name", STRING, Means("see `line`"), "the line's name, instead of `line`", "\"GPIO22\""),
    key(Input, "active_low", BOOLEAN, Default("false"), "the active level is low: a falling edge counts", "true"),
    key(Input, "bias", STRING, Default("\"as-is\""), "the resistor in the chip: `as-is`, `pull-up`, `pull-down` or `disabled`", "\"pull-up\""),
    key(Input, "debounce", DURATION, Default("\"5ms\""), "an edge counts, at once, when the line was inactive for this long before it", "\"20ms\""),
    key(Input, "beat", DURATION, Means("none"), "with `backend = \"simulated\"`: an edge by itself every so often", "\"500ms\""),

    key(Section::Action, "type", STRING, Required, "what kind of action it is", "\"log\""),

    key(Gpio, "type", STRING, Required, "a pin", "\"gpio\""),
    key(Gpio, "backend", STRING, Default("\"chardev\""), "`chardev` (the kernel's character device), `rppal` (memory-mapped, Raspberry Pi), `pwm` (a channel of a PWM chip) or `simulated`", "\"simulated\""),
    key(Gpio, "chip", STRING, Means("any chip that has the named line"), "the chip's label or path", "\"pinctrl-rp1\""),
    key(Gpio, "line", INTEGER, Means("`line` or `name` is needed"), "the line's offset on the chip", "17"),
    key(Gpio, "name", STRING, Means("see `line`"), "the line's name, instead of `line`", "\"GPIO17\""),
    key(Gpio, "mode", STRING, Default("\"follow\""), "`follow` (active while a rule is on), `pulse`, `toggle` (changes each time a rule turns on) or `pattern`", "\"follow\""),
    key(Gpio, "pulse", DURATION, Means("`\"500ms\"`"), "with `mode = \"pulse\"`: how long", "\"500ms\""),
    key(Gpio, "pattern", "a list of durations", Means("needed with `mode = \"pattern\"`"), "with `mode = \"pattern\"`: how long active, inactive, active…; another event in the meantime begins the count of repetitions anew", "[\"200ms\", \"100ms\", \"200ms\"]"),
    key(Gpio, "repeat", INTEGER, Means("once"), "with `mode = \"pattern\"`: how often it is played, 1 to 1000; an inactive time at its end parts the repetitions", "3"),
    key(Gpio, "duty", NUMBER, Means("`0.5`"), "with `backend = \"pwm\"`: the share of each period when active, 0.001 to 1", "0.25"),
    key(Gpio, "frequency", INTEGER, Means("`1000`"), "with `backend = \"pwm\"`: periods a second, 1 to 1000000", "1000"),
    key(Gpio, "active_low", BOOLEAN, Default("false"), "the active level is low", "true"),
    key(Gpio, "safe", STRING, Means("the inactive level"), "`low` or `high`: the level driven at start, at exit and at a failure", "\"low\""),

    key(Mqtt, "type", STRING, Required, "an MQTT broker", "\"mqtt\""),
    key(Mqtt, "url", STRING, Required, "`mqtt://` or, with TLS, `mqtts://`, then `[user:password@]host[:port]`; ports 1883 and 8883", "\"mqtts://broker.local:8883\""),
    key(Mqtt, "topic", STRING, Default("\"spotter\""), "the first part of every topic, before the device's name", "\"home/spotter\""),
    key(Mqtt, "user", STRING, Means("none, or the URL's"), "the user that the broker knows", "\"garden\""),
    key(Mqtt, "password", STRING, Means("none, or the URL's"), "the password", "\"${MQTT_PASSWORD}\""),
    key(Mqtt, "password_file", STRING, Means("see `password`"), "a file whose first line is the password", "\"${CREDENTIALS_DIRECTORY}/mqtt\""),
    key(Mqtt, "ca", STRING, Means("the system's authorities"), "with TLS: a PEM file of the authorities to trust", "\"ca.pem\""),
    key(Mqtt, "discovery", "true, false or a string", Default("true"), "Home Assistant's discovery: on, off, or under another prefix than `homeassistant`", "false"),
    key(Mqtt, "outbox", INTEGER, Default("256"), "events that wait for an absent broker, 1 to 65536; then the oldest is dropped and counted", "1000"),

    key(Log, "type", STRING, Required, "a line of JSON an event", "\"log\""),
    key(Log, "path", STRING, Means("the daemon's own log"), "the file that lines are appended to", "\"/var/log/spotter/events.jsonl\""),
];

/// Keys that a later version has; said so rather than called unknown.
const LATER: &[(Section, &str)] = &[(Rule, "schedule"), (Rule, "armed_by"), (Rule, "not_classes"), (Rule, "share")];

/// The key of this name in `section`.
pub(super) fn find(section: Section, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// The problem of a key that is in no table.
pub(super) fn unknown(section: Section, name: &str) -> String {
    if LATER.contains(&(section, name)) {
        return "is not available in this version of Spotter; remove it".into();
    }
    let names = || KEYS.iter().filter(move |key| key.section == section).map(|key| key.name);
    let heading = section.heading();
    if let Some(near) = nearest(name, names()) {
        return format!("is no key of {heading}; did you mean `{near}`?");
    }
    let elsewhere = KEYS.iter().find(|key| key.name == name && key.section != Root);
    match elsewhere {
        Some(key) => format!("is no key of {heading} but of {}; move it there, or remove it", key.section.heading()),
        None => {
            format!("is no key of {heading}; remove it, or write one of {}", names().collect::<Vec<_>>().join(", "))
        }
    }
}

/// The reference of every key, in Markdown: one table a section.
pub fn reference() -> String {
    let mut out = String::new();
    for section in Section::REFERENCE {
        let _ = write!(
            out,
            "### `{}`\n\n| key | takes | default | meaning | example |\n|---|---|---|---|---|\n",
            section.heading()
        );
        for key in KEYS.iter().filter(|key| key.section == section) {
            let absent = match key.absent {
                Required => "required".to_owned(),
                Default(value) => format!("`{value}`"),
                Means(meaning) => meaning.to_owned(),
            };
            let kind = key.kind.trim_start_matches("a ");
            let _ = writeln!(out, "| `{}` | {kind} | {absent} | {} | `{}` |", key.name, key.meaning, key.example);
        }
        out.push('\n');
    }
    out.pop();
    out
}
