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
    /// `motion` of a camera
    Motion,
    /// `[device.thermal]`
    Thermal,
    /// `[camera.controls]`: any key.
    Controls,
    /// `[[rule]]`
    Rule,
    /// `armed_by` of a rule, as a table
    ArmedBy,
    /// `[group]`: any key, the groups' names.
    Groups,
    /// `[group.NAME]`
    Group,
    /// `[page]`
    Page,
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
    /// `[action.NAME]` with `type = "hook"`
    Hook,
    /// `[action.NAME]` with `type = "webhook"`
    Webhook,
    /// `[action.NAME]` with `type = "snapshot"`
    Snapshot,
}

impl Section {
    /// The sections that have a table of keys in the reference, in its order.
    pub const REFERENCE: [Section; 19] = [
        Section::Device,
        Section::DeviceLine,
        Section::Thermal,
        Section::Model,
        Section::Camera,
        Section::Region,
        Section::Motion,
        Section::Rule,
        Section::ArmedBy,
        Section::Group,
        Section::Station,
        Section::Input,
        Section::Gpio,
        Section::Mqtt,
        Section::Log,
        Section::Hook,
        Section::Webhook,
        Section::Snapshot,
        Section::Page,
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
            Section::Motion => "motion = { … } in [[camera]]",
            Section::Thermal => "[device.thermal]",
            Section::Rule => "[[rule]]",
            Section::ArmedBy => "armed_by = { … } in [[rule]]",
            Section::Groups | Section::Group => "[group.NAME]",
            Section::Page => "[page]",
            Section::Station => "[[station]]",
            Section::Inputs | Section::Input => "[input.NAME]",
            Section::Actions | Section::Action => "[action.NAME]",
            Section::Gpio => "[action.NAME], type = \"gpio\"",
            Section::Mqtt => "[action.NAME], type = \"mqtt\"",
            Section::Log => "[action.NAME], type = \"log\"",
            Section::Hook => "[action.NAME], type = \"hook\"",
            Section::Webhook => "[action.NAME], type = \"webhook\"",
            Section::Snapshot => "[action.NAME], type = \"snapshot\"",
        }
    }

    /// The section takes any key.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Section::Controls | Section::Groups | Section::Inputs | Section::Actions | Section::Action)
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
use Section::{
    ArmedBy, Camera, Device, DeviceLine, Gpio, Group, Hook, Input, Log, Model, Motion, Mqtt, Page, Region, Root, Rule,
    Snapshot, Station, Thermal, Webhook,
};

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
    key(Root, "group", "a table of tables", Means("no groups"), "classes under one name", "{ pets = { classes = [\"*cat*\"] } }"),
    key(Root, "action", "a table of tables", Means("nothing is done"), "what is done about it", "{ events = { type = \"log\" } }"),
    key(Root, "page", "a table", Means("nothing listens"), "the page in a browser, and the metrics", "{ listen = \"127.0.0.1:8080\" }"),
    key(Root, "station", "a list of tables", Means("no part is judged"), "where single parts are judged on request", "[{ name = \"gate\", camera = \"feeder\", classes = [\"cup\"] }]"),
    key(Root, "input", "a table of tables", Means("nothing is listened to"), "GPIO lines that are listened to", "{ sensor = { chip = \"pinctrl-rp1\", line = 22 } }"),

    key(Device, "name", STRING, Means("the host's name"), "the board's name, in MQTT topics and client ids", "\"garden\""),
    key(Device, "timezone", STRING, Means("the system's"), "the time zone of schedules", "\"Europe/Berlin\""),
    key(Device, "ready", "a table", Means("no such line"), "a line that is active while the model is loaded and the daemon runs", "{ chip = \"pinctrl-rp1\", line = 5 }"),
    key(Device, "fault", "a table", Means("no such line"), "a line that is active while a camera or an action does not work, or after something was dropped or timed out, until the next verdict in time", "{ chip = \"pinctrl-rp1\", line = 6 }"),
    key(Device, "heartbeat", "a table", Means("no such line"), "a line that changes, at most four times a second, while the inference loop makes progress", "{ chip = \"pinctrl-rp1\", line = 13 }"),
    key(Device, "thermal", "a table", Means("the board slows itself down"), "do less before the board is too hot", "{ limit = 80 }"),

    key(DeviceLine, "backend", STRING, Default("\"chardev\""), "as an action's", "\"simulated\""),
    key(DeviceLine, "chip", STRING, Means("any chip that has the named line"), "the chip's label or path", "\"pinctrl-rp1\""),
    key(DeviceLine, "line", INTEGER, Means("`line` or `name` is needed"), "the line's offset on the chip", "5"),
    key(DeviceLine, "name", STRING, Means("see `line`"), "the line's name, instead of `line`", "\"GPIO5\""),
    key(DeviceLine, "active_low", BOOLEAN, Default("false"), "the active level is low", "true"),
    key(DeviceLine, "safe", STRING, Means("the inactive level; of `fault` the active one"), "`low` or `high`: the level driven at start, at exit and at a failure", "\"low\""),

    key(Thermal, "limit", NUMBER, Default("80"), "the temperature in °C at which the board slows itself down (a Raspberry Pi: 80, a Jetson: 95), 40 to 120; 12, 8 and 4 degrees below it, or at once when it slows down, inference gets half, a quarter, an eighth of the time; back 4 degrees below each", "95"),
    key(Thermal, "sysfs", STRING, Default("\"/sys\""), "where temperature and flags are read", "\"/tmp/simulated-sys\""),

    key(Model, "path", STRING, Required, "the ONNX file; its manifest lies beside it", "\"models/vgg16-gap-caltech101.onnx\""),
    key(Model, "kernel", STRING, Means("the best for the CPU"), "the kernels by name; `tract` for tract's own", "\"generic\""),
    key(Model, "threads", INTEGER, Means("all cores, of big and small ones the big"), "threads for inference, 1 to 1024", "4"),
    key(Model, "memory", STRING, Default("\"fast\""), "`compact`: where speed costs memory, memory is spared; it changes something on ARM CPUs without dot product only", "\"compact\""),
    key(Model, "layers", STRINGS, Default("[]"), "exceptions from the table by which each convolution gets its algorithm (`spotter bench` prints it): `LAYER=METHOD`, where the layer is its name or a kind (`depthwise`, `3x3`, `3x3-narrow`, `other`) and the method `auto`, `direct` or `winograd`; the results are the same", "[\"3x3=direct\"]"),
    key(Model, "cache", STRING, Means("systemd's `$CACHE_DIRECTORY`, else `~/.cache/spotter`"), "the folder in which the packed model is kept for the next start, as large as the model; `none`: nowhere", "\"/var/cache/spotter\""),

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
    key(Camera, "motion", "a table", Means("every frame is classified"), "classify a frame only when something moves in it; frames of a rule that is on, and those that a station or a viewer asks for, always are", "{ floor = \"30s\" }"),

    key(Region, "name", STRING, Required, "the region's name; a rule names it `camera/region`", "\"perch\""),
    key(Region, "box", "a list of four numbers", Required, "left, top, width, height of the oriented frame: fractions, or whole pixels", "[0.30, 0.10, 0.40, 0.70]"),

    key(Motion, "threshold", INTEGER, Default("4"), "a block of 16 x 16 pixels moves when its mean changes by more levels (of 256) than this and than it usually does, 1 to 100", "6"),
    key(Motion, "area", NUMBER, Default("0.005"), "the part of a region (or of the frame) that must move, 0 to 1", "0.02"),
    key(Motion, "floor", DURATION, Default("\"10s\""), "after this long without one, a frame is classified all the same, 1s to 1h", "\"30s\""),
    key(Motion, "linger", DURATION, Default("\"2s\""), "how long after the last motion frames are still classified, at most 1h", "\"5s\""),
    key(Motion, "idle_fps", NUMBER, Means("every frame"), "frames a second that are looked at while nothing moves, 0.1 to 1000", "5"),
    key(Motion, "active_fps", NUMBER, Means("every frame"), "frames a second that are classified at most, 0.1 to 1000", "10"),
    key(Motion, "masks", "a list of polygons", Default("[]"), "where motion does not count: each a list of points `[left, top]`, fractions of the frame as it is shown", "[[[0, 0], [1, 0], [1, 0.2], [0, 0.2]]]"),

    key(Rule, "name", STRING, Required, "the rule's name, in topics: letters, digits, `-`, `_`", "\"cat\""),
    key(Rule, "cameras", STRINGS, Default("[]"), "what it watches: `camera` (all its regions) or `camera/region`; empty means everything", "[\"feeder\"]"),
    key(Rule, "classes", "a list of labels", Required, "labels, indices, globs, or `@NAME` of a group, without regard to case; the most probable one counts", "[\"wild_cat\", \"*cat*\"]"),
    key(Rule, "not_classes", "a list of labels", Default("[]"), "what of `classes` does not count, in the same forms", "[\"catamaran\"]"),
    key(Rule, "on", NUMBER, Default("0.6"), "a frame is a hit from this probability up", "0.60"),
    key(Rule, "off", NUMBER, Means("two thirds of `on`"), "once on, a frame counts down to this probability", "0.40"),
    key(Rule, "hits", INTEGER, Default("1"), "this many hits turn the rule on, 1 to 1000", "1"),
    key(Rule, "window", INTEGER, Means("as `hits`"), "among this many frames of a view, 1 to 1000", "5"),
    key(Rule, "share", NUMBER, Means("`hits` says it"), "instead of `hits`: this part of the `window` must be hits, above 0 to 1", "0.6"),
    key(Rule, "hold", DURATION, Default("\"0s\""), "how long it stays on after the last frame that supported it", "\"2s\""),
    key(Rule, "cooldown", DURATION, Default("\"0s\""), "how long after its last event it does not turn on", "\"30s\""),
    key(Rule, "schedule", STRINGS, Means("always"), "when it notices anything: weekdays (`mon-fri`, `sat,sun`, none for every day) and a span of the clock, across midnight if it ends before it begins", "[\"mon-fri 18:00-06:00\", \"sat,sun 00:00-24:00\"]"),
    key(Rule, "clock_unset", STRING, Means("`\"active\"`, because a missed alarm is worse than one too many"), "with `schedule`, while the board does not know the time: `active` or `inactive`", "\"inactive\""),
    key(Rule, "armed_by", "`\"mqtt\"` or a table", Means("always armed"), "what switches it on and off: `ON` and `OFF` on `TOPIC/DEVICE/rule/RULE/armed/set`, or an input line; remembered across restarts", "\"mqtt\""),
    key(Rule, "armed", BOOLEAN, Means("`true`"), "with `armed_by`: whether it is armed before the first command", "false"),
    key(Rule, "actions", STRINGS, Default("[]"), "names of actions", "[\"siren\"]"),
    key(Rule, "escalate", STRINGS, Default("[]"), "names of more actions, for when it stays on", "[\"siren\"]"),
    key(Rule, "escalate_after", DURATION, Means("needed with `escalate`"), "how long it must have been on", "\"1m\""),

    key(ArmedBy, "chip", STRING, Means("any chip that has the named line"), "the chip's label or path", "\"pinctrl-rp1\""),
    key(ArmedBy, "line", INTEGER, Means("`line` or `name` is needed"), "the input's offset on the chip; armed while it is active", "27"),
    key(ArmedBy, "name", STRING, Means("see `line`"), "the line's name, instead of `line`", "\"GPIO27\""),
    key(ArmedBy, "active_low", BOOLEAN, Default("false"), "the active level is low", "true"),
    key(ArmedBy, "bias", STRING, Default("\"as-is\""), "the resistor at the line: `as-is`, `pull-up` or `pull-down`", "\"pull-up\""),

    key(Group, "classes", "a list of labels", Required, "labels, indices or globs, as of a rule", "[\"wild_cat\", \"*dog*\"]"),

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
    key(Mqtt, "version", STRING, Default("\"3.1.1\""), "the protocol: `3.1.1`, or `5`, with which a broker says why it refuses", "\"5\""),
    key(Mqtt, "topic", STRING, Default("\"spotter\""), "the first part of every topic, before the device's name", "\"home/spotter\""),
    key(Mqtt, "user", STRING, Means("none, or the URL's"), "the user that the broker knows", "\"garden\""),
    key(Mqtt, "password", STRING, Means("none, or the URL's"), "the password", "\"${MQTT_PASSWORD}\""),
    key(Mqtt, "password_file", STRING, Means("see `password`"), "a file whose first line is the password", "\"${CREDENTIALS_DIRECTORY}/mqtt\""),
    key(Mqtt, "credential", STRING, Means("see `password`"), "a systemd credential (`LoadCredential=NAME:FILE` in the unit) whose first line is the password", "\"mqtt\""),
    key(Mqtt, "ca", STRING, Means("the system's authorities"), "with TLS: a PEM file of the authorities to trust", "\"ca.pem\""),
    key(Mqtt, "discovery", "true, false or a string", Default("true"), "Home Assistant's discovery: on, off, or under another prefix than `homeassistant`", "false"),
    key(Mqtt, "commands", BOOLEAN, Default("false"), "`PRESS` on `TOPIC/DEVICE/action/ACTION/test` drives the action's pin for a second; let the broker's access list say who may publish there", "true"),
    key(Mqtt, "snapshots", BOOLEAN, Default("false"), "the frame that turned a rule on is published, at most 640 pixels wide", "true"),
    key(Mqtt, "outbox", INTEGER, Default("256"), "events that wait for an absent broker, 1 to 65536; then the oldest is dropped and counted", "1000"),

    key(Log, "type", STRING, Required, "a line of JSON an event", "\"log\""),
    key(Log, "path", STRING, Means("the daemon's own log"), "the file that lines are appended to", "\"/var/log/spotter/events.jsonl\""),

    key(Hook, "type", STRING, Required, "a program that is run for each event", "\"hook\""),
    key(Hook, "command", STRINGS, Required, "the program and its arguments; it gets the event as JSON on its standard input", "[\"/usr/local/bin/alarm\", \"--quiet\"]"),
    key(Hook, "timeout", DURATION, Default("\"10s\""), "after this long the program and what it started is killed, 100ms to 1h", "\"30s\""),
    key(Hook, "parallel", INTEGER, Default("2"), "how many may run at once, 1 to 16", "1"),
    key(Hook, "queue", INTEGER, Default("64"), "events that wait, 1 to 4096; then the oldest is dropped and counted", "16"),

    key(Webhook, "type", STRING, Required, "an HTTP server that each event is posted to as JSON", "\"webhook\""),
    key(Webhook, "url", STRING, Required, "`http://` or `https://`, host and path", "\"https://home.local:8123/api/webhook/spotter\""),
    key(Webhook, "token", STRING, Means("none is sent"), "sent as `Authorization: Bearer …`", "\"${WEBHOOK_TOKEN}\""),
    key(Webhook, "token_file", STRING, Means("see `token`"), "a file whose first line is the token", "\"${CREDENTIALS_DIRECTORY}/webhook\""),
    key(Webhook, "ca", STRING, Means("the system's authorities"), "with TLS: a PEM file of the authorities to trust", "\"ca.pem\""),
    key(Webhook, "timeout", DURATION, Default("\"10s\""), "for one attempt, 100ms to 1h", "\"5s\""),
    key(Webhook, "retries", INTEGER, Default("5"), "attempts after the first one, 0 to 100, with growing pauses; then the event is given up and counted", "20"),
    key(Webhook, "queue", INTEGER, Default("256"), "events that wait, 1 to 4096; then the oldest is dropped and counted", "1000"),

    key(Snapshot, "type", STRING, Required, "a JPEG of the frame that turned a rule on, with label, probability and time", "\"snapshot\""),
    key(Snapshot, "folder", STRING, Required, "where the pictures go: under `/run` they do not wear the card and are gone after a restart", "\"/run/spotter/snapshots\""),
    key(Snapshot, "count", INTEGER, Default("200"), "pictures kept at most, 1 to 100000; then the oldest is deleted", "50"),
    key(Snapshot, "megabytes", INTEGER, Default("50"), "what they take at most together, in millions of bytes", "20"),
    key(Snapshot, "quality", INTEGER, Default("85"), "JPEG quality, 1 to 100", "70"),

    key(Page, "listen", STRING, Default("\"127.0.0.1:8080\""), "address and port; any but a loopback address needs a token", "\"0.0.0.0:8080\""),
    key(Page, "token", STRING, Means("nothing can be done on the page"), "at least 16 characters, needed for every action, and for reading from other machines", "\"${PAGE_TOKEN}\""),
    key(Page, "token_file", STRING, Means("see `token`"), "a file whose first line is the token", "\"${CREDENTIALS_DIRECTORY}/page\""),
    key(Page, "private", BOOLEAN, Default("false"), "reading needs the token on loopback too: behind a reverse proxy everybody comes from there", "true"),
    key(Page, "hosts", STRINGS, Default("[]"), "names by which the page may be called, beside its addresses and the host's own name", "[\"garden.example.org\"]"),
    key(Page, "photos", STRING, Means("no photos are taken"), "the folder for training photos, `LABEL/CAMERA-TIME.jpg`", "\"/var/lib/spotter/photos\""),
];

/// The key of this name in `section`.
pub(super) fn find(section: Section, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// The problem of a key that is in no table.
pub(super) fn unknown(section: Section, name: &str) -> String {
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
