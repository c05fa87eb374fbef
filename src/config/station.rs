//! What judges single parts: `[[station]]`, `[input.NAME]`, and the lines `[device.ready]`, `fault` and `heartbeat`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::defaults::{DEFAULT_DEBOUNCE, DEFAULT_ON, DEFAULT_STATION_QUEUE, DEFAULT_VERDICT_TIMEOUT};
use super::keys::Section;
use super::plan::{
    ActionKind, ActionPlan, Bias, DeviceLines, GpioBackend, GpioMode, GpioPlan, InputPlan, Level, StationPlan,
};
use super::reader::Table;
use super::rule::{self, Known};
use super::values;
use super::{action, classes};

const MOST_STATIONS: usize = 32;
const MOST_INPUTS: usize = 64;
const DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);
const DEBOUNCE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10);
const BEAT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// Reads every station.
pub(super) fn read_all(
    root: &Table<'_>,
    known: &Known,
    inputs: &[InputPlan],
    actions: &[ActionPlan],
) -> Vec<StationPlan> {
    let mut stations: Vec<StationPlan> = Vec::new();
    for table in root.tables("station", Section::Station, MOST_STATIONS) {
        let station = read(&table, known, inputs, actions);
        if stations.iter().any(|other| other.name == station.name) && !station.name.is_empty() {
            table.problem("name", format!("{:?} is the name of another station too; names must differ", station.name));
        }
        stations.push(station);
    }
    stations
}

fn read(table: &Table<'_>, known: &Known, inputs: &[InputPlan], actions: &[ActionPlan]) -> StationPlan {
    ["name", "camera"].into_iter().for_each(|key| table.require(key));
    let delay = table.duration("delay", DELAY).unwrap_or_default();
    let timeout = table.duration("timeout", TIMEOUT).unwrap_or(DEFAULT_VERDICT_TIMEOUT);
    if timeout <= delay {
        let key = if table.has("timeout") { "timeout" } else { "delay" };
        table.problem(key, format!("timeout = {timeout:?} is not longer than delay = {delay:?}, so no part is judged"));
    }
    let queue = table.integer("queue", 1..=32).and_then(|count| usize::try_from(count).ok());
    StationPlan {
        name: table.name("name").unwrap_or_default().into(),
        view: one_of(table, "camera", "camera or region", &known.views).unwrap_or_default(),
        trigger: {
            let names: Vec<String> = inputs.iter().map(|input| input.name.to_string()).collect();
            one_of(table, "trigger", "input", &names)
        },
        classes: classes::require(table, "classes", &known.groups),
        on: rule::probability(table, "on").unwrap_or(DEFAULT_ON),
        delay,
        timeout,
        queue: queue.unwrap_or(DEFAULT_STATION_QUEUE),
        pass: consequences(table, "pass", known, actions),
        fail: consequences(table, "fail", known, actions),
        fault: consequences(table, "fault", known, actions),
    }
}

/// A reference that must be one of `known`.
fn one_of(table: &Table<'_>, key: &str, what: &str, known: &[String]) -> Option<String> {
    table.parsed(key, |text| match known.iter().any(|name| name == text) {
        true => Ok(text.to_owned()),
        false if known.is_empty() => Err(format!("there is no {what} {text:?}; this file has none")),
        false => {
            let names = values::enumerate(known.iter().map(String::as_str));
            Err(format!("there is no {what} {text:?}; there are {names}"))
        }
    })
}

/// Actions of a verdict: it has no end, so that a line that follows would stay active for ever.
fn consequences(table: &Table<'_>, key: &str, known: &Known, actions: &[ActionPlan]) -> Vec<String> {
    let names = table.references(key, "action", &known.actions);
    for name in &names {
        let follows = |action: &&ActionPlan| {
            *action.name == **name && matches!(&action.kind, ActionKind::Gpio(it) if it.mode == GpioMode::Follow)
        };
        if actions.iter().any(|action| follows(&action)) {
            table
                .problem(key, format!("action {name:?} follows, and a verdict has no end; give it `mode = \"pulse\"`"));
        }
    }
    names
}

/// Reads every input.
pub(super) fn read_inputs(root: &Table<'_>) -> Vec<InputPlan> {
    let Some(inputs) = root.table("input", Section::Inputs) else { return Vec::new() };
    let names = inputs.keys();
    if names.len() > MOST_INPUTS {
        inputs.problem_here(format!("there are {} inputs; at most {MOST_INPUTS} are allowed", names.len()));
    }
    names.iter().take(MOST_INPUTS).filter_map(|name| read_input(&inputs, name)).collect()
}

fn read_input(inputs: &Table<'_>, name: &str) -> Option<InputPlan> {
    if let Err(problem) = values::name(name) {
        inputs.problem(name, problem);
    }
    let table = inputs.table(name, Section::Input)?;
    let backends = [("chardev", GpioBackend::Chardev), ("simulated", GpioBackend::Simulated)];
    let backend = table.choice("backend", &backends).unwrap_or(GpioBackend::Chardev);
    let biases =
        [("as-is", Bias::AsIs), ("pull-up", Bias::PullUp), ("pull-down", Bias::PullDown), ("disabled", Bias::Disabled)];
    if table.has("beat") && backend != GpioBackend::Simulated {
        table.problem("beat", "has an effect with `backend = \"simulated\"` only; set that backend, or remove it");
    }
    Some(InputPlan {
        name: Arc::from(name),
        backend,
        chip: table.text("chip"),
        line: action::line(&table, backend),
        active_low: table.boolean("active_low").unwrap_or(false),
        bias: table.choice("bias", &biases).unwrap_or(Bias::AsIs),
        debounce: table.duration("debounce", DEBOUNCE).unwrap_or(DEFAULT_DEBOUNCE),
        beat: table.duration("beat", BEAT),
    })
}

/// Reads the lines that tell a PLC of the device itself.
pub(super) fn read_device_lines(device: &Table<'_>, actions: &[ActionPlan]) -> DeviceLines {
    let line = |key: &str| {
        let plan = device_line(&device.table(key, Section::DeviceLine)?, key);
        if let Some(other) = action::same_line(&plan, actions) {
            device.problem(key, format!("is the line of action {:?} too; give each a line of its own", other.name));
        }
        Some(plan)
    };
    DeviceLines { ready: line("ready"), fault: line("fault"), heartbeat: line("heartbeat") }
}

fn device_line(table: &Table<'_>, key: &str) -> GpioPlan {
    let backends =
        [("chardev", GpioBackend::Chardev), ("rppal", GpioBackend::Rppal), ("simulated", GpioBackend::Simulated)];
    let backend = table.choice("backend", &backends).unwrap_or(GpioBackend::Chardev);
    let active_low = table.boolean("active_low").unwrap_or(false);
    // A device that does not run is a fault.
    let high = (key == "fault") != active_low;
    let safe = table.choice("safe", &[("low", Level::Low), ("high", Level::High)]);
    GpioPlan {
        backend,
        chip: table.text("chip"),
        line: action::line(table, backend),
        mode: GpioMode::Follow,
        active_low,
        safe: safe.unwrap_or(if high { Level::High } else { Level::Low }),
    }
}
