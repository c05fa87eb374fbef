//! `[[rule]]`

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::arming;
use super::classes;
use super::defaults::{DEFAULT_HITS, DEFAULT_OFF_SHARE, DEFAULT_ON};
use super::plan::{EscalationPlan, RulePlan};
use super::reader::Table;
use super::schedule;

/// The longest span of a rule: a week.
const SPAN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(7 * 86_400);
const ESCALATION: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(7 * 86_400);
const FRAMES: RangeInclusive<i64> = 1..=1000;

/// What rules may refer to.
pub(super) struct Known {
    /// Cameras and regions.
    pub(super) views: Vec<String>,
    pub(super) actions: Vec<String>,
    pub(super) groups: Vec<String>,
    /// Some action is a broker.
    pub(super) brokers: bool,
    pub(super) zone: jiff::tz::TimeZone,
}

/// Reads one rule; `names` are those of the rules before it.
pub(super) fn read(table: &Table<'_>, names: &[Arc<str>], known: &Known) -> RulePlan {
    table.require("name");
    let name: Arc<str> = table.name("name").unwrap_or_default().into();
    if names.contains(&name) && !name.is_empty() {
        table.problem("name", format!("{name:?} is the name of another rule too; names must differ"));
    }
    let (on, off) = thresholds(table);
    let (hits, window) = frames(table);
    let (armed_by, armed) = arming::read(table, known.brokers);
    RulePlan {
        name,
        cameras: table.references("cameras", "camera or region", &known.views),
        classes: classes::require(table, "classes", &known.groups),
        not_classes: classes::read(table, "not_classes", &known.groups),
        on,
        off,
        hits,
        window,
        hold: table.duration("hold", SPAN).unwrap_or_default(),
        cooldown: table.duration("cooldown", SPAN).unwrap_or_default(),
        schedule: schedule::read(table, &known.zone),
        armed_by,
        armed,
        actions: table.references("actions", "action", &known.actions),
        escalation: escalation(table, known),
    }
}

fn escalation(table: &Table<'_>, known: &Known) -> Option<EscalationPlan> {
    let after = table.duration("escalate_after", ESCALATION);
    let actions = table.references("escalate", "action", &known.actions);
    match (table.has("escalate_after"), actions.is_empty()) {
        (false, false) => {
            table.problem("escalate", "says not after how long; add for instance `escalate_after = \"1m\"`")
        }
        (true, true) => table.problem("escalate_after", "has no effect without `escalate`; name actions there"),
        _ => {}
    }
    (!actions.is_empty()).then(|| EscalationPlan { after: after.unwrap_or(*ESCALATION.end()), actions })
}

fn thresholds(table: &Table<'_>) -> (f32, f32) {
    let probability = |key| {
        let value = table.number(key, 0.0..=1.0)?;
        if value > 0.0 {
            return Some(value as f32);
        }
        table.problem(key, "0 is reached by every frame; write a probability above 0");
        None
    };
    let on = probability("on").unwrap_or(DEFAULT_ON);
    let off = probability("off");
    if let Some(problem) = off.and_then(|off| above(off, on)) {
        table.problem("off", problem);
    }
    (on, off.unwrap_or(on * DEFAULT_OFF_SHARE))
}

/// `off` must not be above `on`: a frame that turns a rule on would turn it off.
fn above(off: f32, on: f32) -> Option<String> {
    (off > on).then(|| format!("{off} is above on = {on}; write at most that, better two thirds of it"))
}

/// `hits` of `window`. A `share` of the window is as many hits as it takes to reach it: 60 % of 20 frames are 12.
fn frames(table: &Table<'_>) -> (u32, u32) {
    let frames = |key| table.integer(key, FRAMES).and_then(|frames| u32::try_from(frames).ok());
    if table.has("share") {
        return shared(table, frames("window"));
    }
    let hits = frames("hits").unwrap_or(DEFAULT_HITS);
    let window = frames("window").unwrap_or(hits);
    if hits > window {
        let key = if table.has("hits") { "hits" } else { "window" };
        table.problem(
            key,
            format!("hits = {hits} is above window = {window}, so the rule would never turn on; write at most that"),
        );
    }
    (hits, window)
}

fn shared(table: &Table<'_>, window: Option<u32>) -> (u32, u32) {
    if table.has("hits") {
        table.problem("hits", "says a second time beside `share` how many hits it takes; keep one of them");
    }
    if !table.has("window") {
        table.problem("share", "is a share of `window`, which is missing; add for instance `window = 20`");
    }
    let share = table.number("share", 0.0..=1.0);
    if share == Some(0.0) {
        table.problem("share", "0 is reached without a single hit; write a share above 0, or `hits = 1`");
    }
    let window = window.unwrap_or(DEFAULT_HITS);
    // Less than a millionth of a frame is the rounding of a share such as 0.07, not a frame.
    let hits = (share.unwrap_or(1.0) * f64::from(window) - 1e-6).ceil() as u32;
    (hits.clamp(1, window), window)
}
