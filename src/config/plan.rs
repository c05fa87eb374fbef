//! The plan: a configuration that has passed every check. Plain data, valid by type, that every other module reads.

mod motion;
mod reactions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use super::schedule::{SchedulePlan, Span};
pub use motion::{MaskPlan, MotionPlan, ThermalPlan};
pub use reactions::{HookPlan, SnapshotPlan, WebhookPlan};

/// Everything that the daemon is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The board's name; prefixes MQTT topics and client ids.
    pub device: String,
    /// The zone of its schedules, and of times without one.
    pub timezone: jiff::tz::TimeZone,
    /// What recognises.
    pub model: ModelPlan,
    /// What is watched, in the file's order; names are unique.
    pub cameras: Vec<CameraPlan>,
    /// What is to be noticed, in the file's order; names are unique.
    pub rules: Vec<RulePlan>,
    /// Classes under one name, which rules write as `@NAME`; names are unique.
    pub groups: Vec<GroupPlan>,
    /// What is done about it; names are unique, and every rule's actions exist.
    pub actions: Vec<ActionPlan>,
    /// The page and the metrics; `None`: nothing listens.
    pub page: Option<PagePlan>,
    /// Where single parts are judged, in the file's order; names are unique.
    pub stations: Vec<StationPlan>,
    /// Lines that are listened to; names are unique.
    pub inputs: Vec<InputPlan>,
    /// What a PLC is told of the device itself.
    pub lines: DeviceLines,
    /// When to do less because of heat; `None`: never.
    pub thermal: Option<ThermalPlan>,
}

/// `[page]`
#[derive(Clone, Debug, PartialEq)]
pub struct PagePlan {
    /// Where it listens. Not on loopback: there is a token.
    pub listen: std::net::SocketAddr,
    /// Needed for every action, and for reading where the page is not open.
    pub token: Option<Secret>,
    /// Reading needs the token even on loopback.
    pub private: bool,
    /// Names, in lower case, by which it may be called beside its addresses and this host's own name.
    pub hosts: Vec<String>,
    /// The folder for training photos; `None`: none are taken.
    pub photos: Option<PathBuf>,
}

/// `[device.ready]`, `[device.fault]`, `[device.heartbeat]`; their mode is [`GpioMode::Follow`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceLines {
    /// Active while the model is loaded and the loop runs.
    pub ready: Option<GpioPlan>,
    /// Active while something does not work as configured.
    pub fault: Option<GpioPlan>,
    /// Changes while the inference loop makes progress.
    pub heartbeat: Option<GpioPlan>,
}

/// `[[station]]`: each request gets one verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct StationPlan {
    /// Unique, also among the rules.
    pub name: Arc<str>,
    /// `camera` or `camera/region`: one view, which exists.
    pub view: String,
    /// The input whose edges ask, if any; a message can always ask.
    pub trigger: Option<String>,
    /// Labels, indices or globs that a good part shows; never empty.
    pub classes: Vec<String>,
    /// A part passes from this probability up.
    pub on: f32,
    /// From the edge to the earliest frame that counts.
    pub delay: Duration,
    /// From the edge to the verdict at most. Longer than `delay`.
    pub timeout: Duration,
    /// Requests that may wait at a time.
    pub queue: usize,
    /// Actions for a part that passes. All of them exist; none follows.
    pub pass: Vec<String>,
    /// Actions for a part that fails.
    pub fail: Vec<String>,
    /// Actions for a part without a verdict.
    pub fault: Vec<String>,
}

/// `[input.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct InputPlan {
    /// Unique.
    pub name: Arc<str>,
    /// Never [`GpioBackend::Rppal`].
    pub backend: GpioBackend,
    /// As an action's.
    pub chip: Option<String>,
    /// Which line of it.
    pub line: GpioLine,
    /// The active level is low.
    pub active_low: bool,
    /// The resistor in the chip.
    pub bias: Bias,
    /// An edge counts when the line was quiet for this long before it.
    pub debounce: Duration,
    /// Simulated: an edge by itself every so often.
    pub beat: Option<Duration>,
}

/// The resistor of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// As the chip or the device tree set it.
    AsIs,
    /// Towards the supply.
    PullUp,
    /// Towards ground.
    PullDown,
    /// None.
    Disabled,
}

/// `[model]`
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPlan {
    /// The ONNX file; its manifest lies beside it. Relative paths are relative to the configuration file.
    pub path: PathBuf,
    /// A kernel by name instead of the CPU's best one.
    pub kernel: Option<String>,
    /// Threads of the kernel pool; as many as suit the CPU when absent.
    pub threads: Option<usize>,
    /// Weights are held once, in about their own size, where speed would cost memory.
    pub compact: bool,
    /// Layers, or kinds of layer, and how they are computed instead of by the table.
    pub layers: Vec<(String, MethodPlan)>,
    /// Where the packed model is kept.
    pub cache: CachePlan,
}

/// How the convolutions of an element of `layers` of `[model]` are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodPlan {
    /// By the table of CPU and shape.
    Auto,
    /// Every product is computed.
    Direct,
    /// Winograd's algorithm, where it is exact.
    Winograd,
}

/// `cache` of `[model]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CachePlan {
    /// systemd's cache folder of the service, else the user's.
    #[default]
    Default,
    /// Nowhere.
    None,
    /// In this folder.
    Folder(PathBuf),
}

/// `[[camera]]`
#[derive(Clone, Debug, PartialEq)]
pub struct CameraPlan {
    /// Unique; no `/`.
    pub name: Arc<str>,
    /// Where frames come from.
    pub source: SourcePlan,
    /// Asked of the source; it may give another.
    pub size: Option<[u32; 2]>,
    /// Frames a second asked of a device; the rate at which a files source is played.
    pub fps: Option<f64>,
    /// Applied to every frame before regions are cut.
    pub orientation: Orientation,
    /// How a frame (or region) of another aspect meets the model's square.
    pub fit: Fit,
    /// Classified on their own; empty: the whole frame.
    pub regions: Vec<RegionPlan>,
    /// Without a frame for this long the source is closed and opened again.
    pub timeout: Duration,
    /// Without a frame for this long the camera is stale: its rules turn off.
    pub stale: Duration,
    /// V4L2 controls by name (`exposure_time_absolute`, `focus_absolute`, …), set at each opening.
    pub controls: BTreeMap<String, i64>,
    /// Which frames are worth an inference; `None`: all.
    pub motion: Option<MotionPlan>,
}

/// Where a camera's frames come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourcePlan {
    /// A V4L2 capture device.
    V4l2 {
        /// `/dev/v4l/by-id/…`, `/dev/v4l/by-path/…`, `/dev/videoN`, or a card name; resolved afresh at each attempt.
        device: String,
        /// Asked of the device; the best it offers when absent.
        format: Option<PixelFormat>,
    },
    /// A child that writes frames to its stdout.
    Process {
        /// Program and arguments; at least the program.
        command: Vec<String>,
        /// [`PixelFormat::Jpeg`] (a stream of JPEGs), [`PixelFormat::I420`] or [`PixelFormat::Rgb24`] (`size` is then set).
        format: PixelFormat,
    },
    /// Photos.
    Files {
        /// A photo, a glob, or a folder.
        path: PathBuf,
        /// From the start again at the end.
        repeat: bool,
        /// As a camera: the newest frame wins. Otherwise every photo is classified, in order.
        live: bool,
    },
}

/// The pixel formats that Spotter reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Packed 4:2:2, Y0 U Y1 V.
    Yuyv,
    /// Packed 4:2:2, U Y0 V Y1.
    Uyvy,
    /// A luma plane, then interleaved U V at half resolution in both directions.
    Nv12,
    /// A luma plane, then U, then V, at half resolution in both directions.
    I420,
    /// Red, green, blue.
    Rgb24,
    /// Blue, green, red.
    Bgr24,
    /// Luma only.
    Grey,
    /// One JPEG picture a frame, with or without Huffman tables.
    Jpeg,
}

/// Clockwise rotation, then a mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    /// Clockwise.
    pub rotate: Rotation,
    /// Applied after the rotation.
    pub flip: Option<Flip>,
}

/// Clockwise rotation in quarter turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// As it comes.
    #[default]
    None,
    /// A quarter turn clockwise.
    Quarter,
    /// Upside down.
    Half,
    /// A quarter turn anticlockwise.
    ThreeQuarters,
}

/// A mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flip {
    /// Left and right change places.
    Horizontal,
    /// Top and bottom change places.
    Vertical,
}

/// How a picture of another aspect meets the model's square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The model's own resize and centre crop: the sides of a wide frame are not seen.
    Crop,
    /// Grey bars make it square first: everything is seen, smaller.
    Pad,
    /// Squeezed to the square: everything is seen, distorted.
    Stretch,
}

/// `[[camera.region]]`
#[derive(Clone, Debug, PartialEq)]
pub struct RegionPlan {
    /// Unique in its camera; a rule names it `camera/region`.
    pub name: Arc<str>,
    /// Where it lies in the oriented frame.
    pub area: Area,
}

/// A rectangle in a frame: left, top, width, height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Area {
    /// Fractions of the frame, all within 0..=1, width and height above 0.
    Fractions([f64; 4]),
    /// Pixels; checked against the frame when it arrives.
    Pixels([u32; 4]),
}

/// `[[rule]]`
#[derive(Clone, Debug, PartialEq)]
pub struct RulePlan {
    /// Unique.
    pub name: Arc<str>,
    /// `camera` or `camera/region`; empty: every view. All of them exist.
    pub cameras: Vec<String>,
    /// Labels, indices, globs, or `@NAME` of a group that exists; resolved against the model's labels when it is loaded.
    /// Never empty.
    pub classes: Vec<String>,
    /// What of `classes` does not count, in the same forms.
    pub not_classes: Vec<String>,
    /// A frame is a hit from this probability up, while the rule is off.
    pub on: f32,
    /// Once on, a frame counts as a hit down to this probability. `off <= on`.
    pub off: f32,
    /// This many hits...
    pub hits: u32,
    /// ...among this many frames turn the rule on. `1 <= hits <= window`.
    pub window: u32,
    /// How long the rule stays on after the last frame that supported it.
    pub hold: Duration,
    /// The quiet time after the last event that was sent, in which the rule does not turn on again.
    pub cooldown: Duration,
    /// When the rule is to notice anything; always when absent.
    pub schedule: Option<SchedulePlan>,
    /// What switches it on and off; always on when absent.
    pub armed_by: Option<ArmedBy>,
    /// With `armed_by`: whether it is armed before the first command.
    pub armed: bool,
    /// Names of actions. All of them exist.
    pub actions: Vec<String>,
    /// More actions, once it has stayed on for long.
    pub escalation: Option<EscalationPlan>,
}

/// `escalate_after` and `escalate`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EscalationPlan {
    /// How long after its `On` a rule that is still on escalates.
    pub after: Duration,
    /// Names of actions. All of them exist; never empty.
    pub actions: Vec<String>,
}

/// What arms and disarms a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArmedBy {
    /// `ON` and `OFF` on the topic `TOPIC/DEVICE/rule/RULE/armed/set` of any broker of the file.
    Mqtt,
    /// An input line: armed while it is active.
    Gpio(ArmingInput),
}

/// The input line of [`ArmedBy::Gpio`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmingInput {
    /// A chip's label or path; any chip that has the named line when absent.
    pub chip: Option<String>,
    /// Which line of it.
    pub line: GpioLine,
    /// The active level is low.
    pub active_low: bool,
    /// The resistor that holds an open line.
    pub bias: Bias,
}

/// `[group.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// Unique.
    pub name: Arc<str>,
    /// Labels, indices or globs; never empty.
    pub classes: Vec<String>,
}

/// `[action.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct ActionPlan {
    /// Unique.
    pub name: Arc<str>,
    /// What it does.
    pub kind: ActionKind,
}

/// The kinds of action.
#[derive(Clone, Debug, PartialEq)]
pub enum ActionKind {
    /// `type = "gpio"`
    Gpio(GpioPlan),
    /// `type = "mqtt"`
    Mqtt(MqttPlan),
    /// `type = "log"`
    Log(LogPlan),
    /// `type = "hook"`
    Hook(HookPlan),
    /// `type = "webhook"`
    Webhook(WebhookPlan),
    /// `type = "snapshot"`
    Snapshot(SnapshotPlan),
}

/// `type = "gpio"`
#[derive(Clone, Debug, PartialEq)]
pub struct GpioPlan {
    /// The implementation that drives the line.
    pub backend: GpioBackend,
    /// A chip's label (`pinctrl-rp1`) or path (`/dev/gpiochip0`); any chip that has the named line when absent.
    pub chip: Option<String>,
    /// Which line of it.
    pub line: GpioLine,
    /// How the line follows the rule.
    pub mode: GpioMode,
    /// The active level is low.
    pub active_low: bool,
    /// Driven at start, and before the line is released.
    pub safe: Level,
}

/// The implementation that drives a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpioBackend {
    /// The kernel's character device; uAPI v2, else v1.
    Chardev,
    /// Memory-mapped on a Raspberry Pi, through the `rppal` crate.
    Rppal,
    /// No hardware: a chip in memory that keeps a timeline.
    Simulated,
    /// A channel of a PWM chip, through `/sys/class/pwm`: active is a share of each period.
    Pwm {
        /// Of the period, in thousandths, 1 to 1000.
        duty: u16,
        /// Periods a second, 1 to 1000000.
        hertz: u32,
    },
}

/// A line by offset on its chip or by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpioLine {
    /// `line = 17`
    Offset(u32),
    /// `name = "GPIO17"`
    Name(String),
}

/// How a line follows a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpioMode {
    /// Active while the rule is on.
    Follow,
    /// Active for this long when the rule turns on; a second one in the meantime extends it.
    Pulse(Duration),
    /// Changes each time the rule turns on.
    Toggle,
    /// Plays this when the rule turns on; a second one in the meantime makes it begin its count anew.
    Pattern(Pattern),
}

/// Times for which a line is active, inactive, active and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Active first; never empty, none zero.
    pub steps: Vec<Duration>,
    /// How often the whole is played, at least once.
    pub repeat: u32,
}

/// An electrical level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// 0 V.
    Low,
    /// The supply's voltage.
    High,
}

/// `type = "mqtt"`
#[derive(Clone, Debug, PartialEq)]
pub struct MqttPlan {
    /// The version of the protocol.
    pub version: MqttVersion,
    /// TLS (`mqtts://`) or not (`mqtt://`).
    pub tls: bool,
    /// The broker's name or address.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// User and password, if the broker wants them.
    pub credentials: Option<(String, Secret)>,
    /// A PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The first part of every topic: `TOPIC/DEVICE/…`.
    pub topic: String,
    /// Home Assistant's discovery prefix (`homeassistant`); `None` publishes no discovery.
    pub discovery: Option<String>,
    /// Whoever may publish under the device's topics may test pins.
    pub commands: bool,
    /// The frame that turned a rule on is published.
    pub snapshots: bool,
    /// How many events wait for an absent broker before the oldest is dropped and counted.
    pub outbox: usize,
}

/// The versions of MQTT that brokers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    /// MQTT 3.1.1: every broker.
    V311,
    /// MQTT 5: a broker that says why it refuses a message.
    V5,
}

/// `type = "log"`
#[derive(Clone, Debug, PartialEq)]
pub struct LogPlan {
    /// The file that lines are appended to; the human log when absent.
    pub path: Option<PathBuf>,
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `value`.
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("\"…\"")
    }
}
