//! `[[rule]]`

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::defaults::{DEFAULT_HITS, DEFAULT_OFF_SHARE, DEFAULT_ON};
use super::plan::RulePlan;
use super::reader::Table;
use super::values;

/// The longest span of a rule: a week.
const SPAN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(7 * 86_400);
const FRAMES: RangeInclusive<i64> = 1..=1000;

/// What rules may refer to.
pub(super) struct Known {
    /// Cameras and regions.
    pub(super) views: Vec<String>,
    pub(super) actions: Vec<String>,
}

/// Reads one rule; `names` are those of the rules before it.
pub(super) fn read(table: &Table<'_>, names: &[Arc<str>], known: &Known) -> RulePlan {
    table.require("name");
    table.require("classes");
    let name: Arc<str> = table.name("name").unwrap_or_default().into();
    if names.contains(&name) && !name.is_empty() {
        table.problem("name", format!("{name:?} is the name of another rule too; names must differ"));
    }
    let (on, off) = thresholds(table);
    let (hits, window) = frames(table);
    RulePlan {
        name,
        cameras: table.references("cameras", "camera or region", &known.views),
        classes: classes(table),
        on,
        off,
        hits,
        window,
        hold: table.duration("hold", SPAN).unwrap_or_default(),
        cooldown: table.duration("cooldown", SPAN).unwrap_or_default(),
        actions: table.references("actions", "action", &known.actions),
    }
}

pub(super) fn classes(table: &Table<'_>) -> Vec<String> {
    let classes = table.list("classes", |table, value| match value {
        DeValue::Integer(number) => match values::integer(number) {
            Some(index @ 0..) => Ok(index.to_string()),
            _ => Err(format!("{number} is no index of a class; they begin at 0")),
        },
        DeValue::String(text) if text.is_empty() => Err("is empty; write a label, an index or a glob".into()),
        DeValue::String(text) => table.expand(text),
        other => Err(format!("is {}, and must be a label in quotes or an index", values::with_article(other))),
    });
    let Some(classes) = classes else { return Vec::new() };
    if classes.is_empty() {
        table.problem("classes", "has no class; write labels, indices or globs, or [\"*\"] for all");
    }
    classes.into_iter().map(|(_, class)| class).collect()
}

pub(super) fn probability(table: &Table<'_>, key: &str) -> Option<f32> {
    let value = table.number(key, 0.0..=1.0)?;
    if value > 0.0 {
        return Some(value as f32);
    }
    table.problem(key, "0 is reached by every frame; write a probability above 0");
    None
}

fn thresholds(table: &Table<'_>) -> (f32, f32) {
    let on = probability(table, "on").unwrap_or(DEFAULT_ON);
    let off = probability(table, "off");
    if let Some(problem) = off.and_then(|off| above(off, on)) {
        table.problem("off", problem);
    }
    (on, off.unwrap_or(on * DEFAULT_OFF_SHARE))
}

/// `off` must not be above `on`: a frame that turns a rule on would turn it off.
fn above(off: f32, on: f32) -> Option<String> {
    (off > on).then(|| format!("{off} is above on = {on}; write at most that, better two thirds of it"))
}

fn frames(table: &Table<'_>) -> (u32, u32) {
    let frames = |key| table.integer(key, FRAMES).and_then(|frames| u32::try_from(frames).ok());
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
