//! A rule's state in a line of plain words: what an operator asks when it did or did not fire.

use std::fmt::Write;

use jiff::tz::TimeZone;

use super::{RuleStatus, ScheduleStatus, ViewStatus};
use crate::clock::Monotonic;

/// Says how a rule stands at `now` and what it lacks, with times of day in `zone`.
pub fn explain(status: &RuleStatus, now: Monotonic, zone: &TimeZone) -> String {
    let mut text = format!("{}: {}", status.rule, if status.on { "on" } else { "off" });
    // Writing to a string does not fail.
    if let Some(reason) = status.closed {
        let _ = write!(text, ", {}", reason.name());
    }
    if let Some(schedule) = &status.schedule {
        let _ = write!(text, "; {}", scheduled(schedule, zone));
    }
    if status.armed == Some(true) {
        text.push_str("; armed");
    }
    if let Some(end) = status.cooldown_end.filter(|&end| !status.on && now < end) {
        let _ = write!(text, "; cooldown for {:.1} s", end.since(now).as_secs_f64());
    }
    if let Some(at) = status.escalates_at {
        let _ = write!(text, "; escalates in {:.1} s", at.since(now).as_secs_f64());
    }
    for view in status.views.iter().filter(|_| status.closed.is_none()) {
        let _ = write!(text, "; {}", seen(status, view, now));
    }
    text
}

fn scheduled(schedule: &ScheduleStatus, zone: &TimeZone) -> String {
    let open = if schedule.open { "open" } else { "closed" };
    match schedule.until {
        Some(until) => format!("schedule {open} until {}", zone.to_datetime(until).strftime("%a %H:%M")),
        None => format!("schedule counts as {open}, because the board does not know the time"),
    }
}

fn seen(status: &RuleStatus, view: &ViewStatus, now: Monotonic) -> String {
    let threshold = if view.on { status.threshold_off } else { status.threshold_on };
    let counts = format!("{} of {} needed in {} of {}", view.hits, status.hits_needed, view.frames, status.window);
    let last = match &view.last {
        _ if view.stale => "no frames".to_owned(),
        None => "no frame yet".to_owned(),
        Some((_, label, p)) => {
            let relation = if *p >= threshold { "≥" } else { "<" };
            format!("{label} {p:.2} {relation} {threshold:.2}, {counts}")
        }
    };
    let held = view.off_at.map_or(String::new(), |at| format!(", held for {:.1} s", at.since(now).as_secs_f64()));
    format!("{} {}: {last}{held}", view.view, if view.on { "on" } else { "off" })
}
