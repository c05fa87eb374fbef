//! `[action.NAME]`

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::defaults::{DEFAULT_DISCOVERY, DEFAULT_OUTBOX, DEFAULT_PULSE, DEFAULT_TOPIC};
use super::keys::Section;
use super::plan::{
    ActionKind, ActionPlan, GpioBackend, GpioLine, GpioMode, GpioPlan, Level, LogPlan, MqttPlan, MqttVersion, Secret,
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
    let backends =
        [("chardev", GpioBackend::Chardev), ("rppal", GpioBackend::Rppal), ("simulated", GpioBackend::Simulated)];
    let backend = table.choice("backend", &backends).unwrap_or(GpioBackend::Chardev);
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

fn line(table: &Table<'_>, backend: GpioBackend) -> GpioLine {
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

fn mode(table: &Table<'_>) -> GpioMode {
    let pulse = table.duration("pulse", PULSE);
    let modes = [
        ("follow", GpioMode::Follow),
        ("pulse", GpioMode::Pulse(pulse.unwrap_or(DEFAULT_PULSE))),
        ("toggle", GpioMode::Toggle),
    ];
    let mode = table.choice("mode", &modes).unwrap_or(GpioMode::Follow);
    if table.has("pulse") && !matches!(mode, GpioMode::Pulse(_)) {
        table.problem("pulse", "has an effect with `mode = \"pulse\"` only; set that mode, or remove it");
    }
    mode
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

/// The action among `others` that drives the same line as `action`.
pub(super) fn same_line<'a>(action: &GpioPlan, others: &'a [ActionPlan]) -> Option<&'a ActionPlan> {
    others.iter().find(|other| match &other.kind {
        ActionKind::Gpio(other) => conflict(action, other),
        _ => false,
    })
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
