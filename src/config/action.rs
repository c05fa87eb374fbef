//! `[action.NAME]`

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::defaults::{
    DEFAULT_DISCOVERY, DEFAULT_DUTY, DEFAULT_FREQUENCY, DEFAULT_OUTBOX, DEFAULT_PATTERN_REPEAT, DEFAULT_PULSE,
    DEFAULT_TOPIC,
};
use super::keys::Section;
use super::plan::{
    ActionKind, ActionPlan, GpioBackend, GpioLine, GpioMode, GpioPlan, Level, LogPlan, MqttPlan, MqttVersion, Pattern,
    Secret,
};
use super::reader::Table;
use super::values::{self, BrokerUrl};
use super::{reactions, secrets};

const PULSE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
/// No chip has nearly as many lines.
pub(super) const LINES: RangeInclusive<i64> = 0..=4095;

const TYPES: [(&str, Section); 6] = [
    ("gpio", Section::Gpio),
    ("mqtt", Section::Mqtt),
    ("log", Section::Log),
    ("hook", Section::Hook),
    ("webhook", Section::Webhook),
    ("snapshot", Section::Snapshot),
];

/// Reads the action called `name`; `None` if its type is not known.
pub(super) fn read(actions: &Table<'_>, name: &str) -> Option<ActionPlan> {
    if let Err(problem) = values::name(name) {
        actions.problem(name, problem);
    }
    let table = actions.table(name, Section::Action)?;
    if !table.has("type") {
        table.problem(
            "type",
            "is missing; add `type = \"gpio\"`, \"mqtt\", \"log\", \"hook\", \"webhook\" or \"snapshot\"",
        );
    }
    let section = table.choice("type", &TYPES)?;
    let table = table.of_section(section);
    let kind = match section {
        Section::Gpio => ActionKind::Gpio(gpio(&table)),
        Section::Mqtt => ActionKind::Mqtt(mqtt(&table)),
        Section::Hook => ActionKind::Hook(reactions::hook(&table)),
        Section::Webhook => ActionKind::Webhook(reactions::webhook(&table)),
        Section::Snapshot => ActionKind::Snapshot(reactions::snapshot(&table)),
        _ => ActionKind::Log(LogPlan { path: table.path("path") }),
    };
    Some(ActionPlan { name: Arc::from(name), kind })
}

fn gpio(table: &Table<'_>) -> GpioPlan {
    let backends = [
        ("chardev", GpioBackend::Chardev),
        ("rppal", GpioBackend::Rppal),
        ("pwm", pwm(table)),
        ("simulated", GpioBackend::Simulated),
    ];
    let backend = table.choice("backend", &backends).unwrap_or(GpioBackend::Chardev);
    only_with_pwm(table, backend);
    let active_low = table.boolean("active_low").unwrap_or(false);
    let safe = table.choice("safe", &[("low", Level::Low), ("high", Level::High)]);
    GpioPlan {
        backend,
        chip: table.text("chip"),
        line: line(table, backend),
        mode: mode(table),
        active_low,
        // The inactive level.
        safe: safe.unwrap_or(if active_low { Level::High } else { Level::Low }),
    }
}

pub(super) fn line(table: &Table<'_>, backend: GpioBackend) -> GpioLine {
    let offset = table.integer("line", LINES).and_then(|line| u32::try_from(line).ok());
    let name = table.text("name");
    match (table.has("line"), table.has("name")) {
        (true, true) => table.problem("name", "says the line a second time beside `line`; keep one of them"),
        (false, false) => table.problem("line", "is missing; add for instance `line = 17`, or `name = \"GPIO17\"`"),
        (true, false) if backend == GpioBackend::Chardev && !table.has("chip") => {
            table.problem("chip", "is missing, and `line` counts on a chip; add for instance `chip = \"pinctrl-rp1\"`");
        }
        (false, true) if backend == GpioBackend::Rppal => {
            table.problem("name", "rppal knows lines by number only; write `line`, the BCM number");
        }
        _ => {}
    }
    match (offset, name) {
        (None, Some(name)) => GpioLine::Name(name),
        (offset, _) => GpioLine::Offset(offset.unwrap_or(0)),
    }
}

fn pwm(table: &Table<'_>) -> GpioBackend {
    let duty = table.number("duty", 0.001..=1.0).unwrap_or(f64::from(DEFAULT_DUTY) / 1000.0);
    let hertz = table.integer("frequency", 1..=1_000_000).and_then(|hertz| u32::try_from(hertz).ok());
    GpioBackend::Pwm { duty: (duty * 1000.0).round() as u16, hertz: hertz.unwrap_or(DEFAULT_FREQUENCY) }
}

fn only_with_pwm(table: &Table<'_>, backend: GpioBackend) {
    let is_pwm = matches!(backend, GpioBackend::Pwm { .. });
    for key in ["duty", "frequency"].into_iter().filter(|key| table.has(key) && !is_pwm) {
        table.problem(key, "has an effect with `backend = \"pwm\"` only; set that backend, or remove it");
    }
    if is_pwm && table.has("name") {
        table.problem("name", "a PWM chip knows channels by number only; write `line`, the channel");
    }
    if is_pwm && !table.has("chip") {
        table.problem("chip", "is missing; add for instance `chip = \"pwmchip0\"`: `ls -l /sys/class/pwm` shows them");
    }
}

fn mode(table: &Table<'_>) -> GpioMode {
    let modes = [("follow", "follow"), ("pulse", "pulse"), ("toggle", "toggle"), ("pattern", "pattern")];
    let word = table.choice("mode", &modes).unwrap_or("follow");
    for (key, mode) in [("pulse", "pulse"), ("pattern", "pattern"), ("repeat", "pattern")] {
        if table.has(key) && word != mode {
            table.problem(key, format!("has an effect with `mode = {mode:?}` only; set that mode, or remove it"));
        }
    }
    let pulse = table.duration("pulse", PULSE).unwrap_or(DEFAULT_PULSE);
    let pattern = pattern(table, word == "pattern");
    match word {
        "pulse" => GpioMode::Pulse(pulse),
        "pattern" => GpioMode::Pattern(pattern),
        "toggle" => GpioMode::Toggle,
        _ => GpioMode::Follow,
    }
}

fn pattern(table: &Table<'_>, needed: bool) -> Pattern {
    if needed {
        table.require("pattern");
    }
    let step = |table: &Table<'_>, value: &DeValue<'_>| match value.as_str() {
        Some(text) => values::duration_within(&table.expand(text)?, &PULSE),
        None => Err(format!("is {}, and must be a duration such as \"200ms\"", values::with_article(value))),
    };
    let steps: Option<Vec<Duration>> =
        table.list("pattern", step).map(|steps| steps.into_iter().map(|(_, step)| step).collect());
    if table.is_empty_list("pattern") {
        table.problem("pattern", "is empty; write how long the line is active, inactive, active…");
    }
    let repeat = table.integer("repeat", 1..=1000).and_then(|times| u32::try_from(times).ok());
    Pattern { steps: steps.unwrap_or_default(), repeat: repeat.unwrap_or(DEFAULT_PATTERN_REPEAT) }
}

fn mqtt(table: &Table<'_>) -> MqttPlan {
    table.require("url");
    let url = table.parsed("url", values::broker_url);
    let url = url.unwrap_or(BrokerUrl { tls: true, host: String::new(), port: 0, user: None });
    if table.has("ca") && !url.tls {
        table.problem("ca", "has no effect without TLS; write mqtts:// in the URL, or remove it");
    }
    let prefix = match table.is_boolean("discovery") {
        true => table.boolean("discovery").unwrap_or(true).then(|| DEFAULT_DISCOVERY.to_owned()),
        false => Some(table.parsed("discovery", values::topic).unwrap_or_else(|| DEFAULT_DISCOVERY.to_owned())),
    };
    MqttPlan {
        version: table
            .choice("version", &[("3.1.1", MqttVersion::V311), ("5", MqttVersion::V5)])
            .unwrap_or(MqttVersion::V311),
        credentials: credentials(table, url.user),
        tls: url.tls,
        host: url.host,
        port: url.port,
        ca: table.path("ca"),
        topic: table.parsed("topic", values::topic).unwrap_or_else(|| DEFAULT_TOPIC.to_owned()),
        discovery: prefix,
        commands: table.boolean("commands").unwrap_or(false),
        snapshots: table.boolean("snapshots").unwrap_or(false),
        outbox: table
            .integer("outbox", 1..=65_536)
            .and_then(|events| usize::try_from(events).ok())
            .unwrap_or(DEFAULT_OUTBOX),
    }
}

/// User and password from the URL, or from keys of their own, or the password from a file or a systemd credential.
fn credentials(table: &Table<'_>, url: Option<(String, Option<String>)>) -> Option<(String, Secret)> {
    let (url_user, url_password) = url.map_or((None, None), |(user, password)| (Some(user), password));
    for key in ["user", "password", "password_file", "credential"] {
        let in_url = if key == "user" { url_user.is_some() } else { url_password.is_some() };
        if table.has(key) && in_url {
            table.problem(key, "is in the URL too; keep one of them");
        }
    }
    let password = secrets::read(table, "password", "password_file", Some("credential")).or(url_password);
    match (table.text("user").or(url_user), password) {
        (Some(user), password) => Some((user, Secret::new(password.unwrap_or_default()))),
        (None, Some(_)) if !table.has("user") => {
            // MQTT 3.1.1, section 3.1.2.9: no password flag without a user name flag.
            table.problem("user", "is missing: MQTT has no password without a user; add `user = \"…\"`");
            None
        }
        (None, _) => None,
    }
}

/// What of `action` one of `others` has already, for a problem's message.
pub(super) fn taken(action: &ActionPlan, others: &[ActionPlan]) -> Option<String> {
    match &action.kind {
        ActionKind::Gpio(gpio) => same_line(gpio, others)
            .map(|other| format!("drives the same line as action {:?}; give each a line of its own", other.name)),
        ActionKind::Mqtt(mqtt) => same_topics(mqtt, others).map(|other| {
            format!("has the broker and topic of action {:?}; one action serves any number of rules", other.name)
        }),
        _ => None,
    }
}

/// The action among `others` that drives the same line as `action`.
pub(super) fn same_line<'a>(action: &GpioPlan, others: &'a [ActionPlan]) -> Option<&'a ActionPlan> {
    others.iter().find(|other| match &other.kind {
        ActionKind::Gpio(other) => conflict(action, other),
        _ => false,
    })
}

/// The action among `others` that publishes the same topics: each would say `offline` for both when it ends, and remove what the other announced.
fn same_topics<'a>(action: &MqttPlan, others: &'a [ActionPlan]) -> Option<&'a ActionPlan> {
    let place = |plan: &MqttPlan| (plan.host.clone(), plan.port, plan.topic.clone());
    others.iter().find(|other| matches!(&other.kind, ActionKind::Mqtt(other) if place(other) == place(action)))
}

/// Whether both drive one line, as far as the file tells: a chip has a label and a path, and a line a number and a name.
fn conflict(a: &GpioPlan, b: &GpioPlan) -> bool {
    let chips = match a.backend {
        // It knows one chip only.
        GpioBackend::Rppal => true,
        _ => a.chip == b.chip || (matches!(a.line, GpioLine::Name(_)) && (a.chip.is_none() || b.chip.is_none())),
    };
    a.backend == b.backend && a.line == b.line && chips
}
