//! `schedule = ["mon-fri 18:00-06:00", …]` of a rule.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use super::reader::Table;
use super::similar::nearest;

/// When a rule is to notice anything.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulePlan {
    /// Never empty; they may overlap.
    pub spans: Vec<Span>,
    /// Where the spans' times are the clocks' times.
    pub zone: TimeZone,
    /// Whether the rule notices while the board does not know what time it is.
    pub unset: bool,
}

/// A time of day, on some weekdays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The weekdays that it begins on, from Monday.
    pub days: [bool; 7],
    /// When it begins.
    pub start: Time,
    /// When it ends: on the day after, if that is not later than `start`. Midnight is the end of the day.
    pub end: Time,
}

impl Span {
    /// Whether it begins on `day`.
    pub fn begins_on(&self, day: Weekday) -> bool {
        self.days[usize::from(day.to_monday_zero_offset().unsigned_abs())]
    }

    /// Whether it ends on the day after the one that it begins on.
    pub fn crosses_midnight(&self) -> bool {
        self.end <= self.start
    }
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// What a value may look like.
const FORMS: &str = "write \"mon-fri 18:00-06:00\", \"sat,sun 00:00-24:00\" or \"22:00-06:00\" for every day";

/// Reads a rule's schedule; `None` without one.
pub(super) fn read(table: &Table<'_>, zone: &TimeZone) -> Option<SchedulePlan> {
    let unset = table.choice("clock_unset", &[("active", true), ("inactive", false)]).unwrap_or(true);
    if !table.has("schedule") {
        if table.has("clock_unset") {
            table.problem("clock_unset", "has no effect without `schedule`; add one, or remove it");
        }
        return None;
    }
    if table.is_empty_list("schedule") {
        table.problem(
            "schedule",
            format!("has no span, so the rule would never notice anything; {FORMS}, or remove it"),
        );
    }
    let mut spans = Vec::new();
    for (index, text) in table.strings("schedule").unwrap_or_default() {
        match span(&text) {
            Ok(span) => spans.push(span),
            Err(problem) => table.problem_in("schedule", index, problem),
        }
    }
    Some(SchedulePlan { spans, zone: zone.clone(), unset })
}

/// The zone of `timezone`, else the system's.
pub(super) fn zone(device: Option<&Table<'_>>) -> TimeZone {
    let named = |table: &Table<'_>| {
        table.parsed("timezone", |name| {
            TimeZone::get(name)
                .map_err(|_| format!("there is no time zone {name:?}; write one such as \"Europe/Berlin\" or \"UTC\""))
        })
    };
    device.and_then(named).unwrap_or_else(TimeZone::system)
}

/// `[DAYS ]HH:MM-HH:MM`
fn span(text: &str) -> Result<Span, String> {
    let mut parts = text.split_whitespace();
    let (days, times) = match (parts.next(), parts.next(), parts.next()) {
        (Some(times), None, None) => ("daily", times),
        (Some(days), Some(times), None) => (days, times),
        _ => return Err(format!("{text:?} is no span of time; {FORMS}")),
    };
    let (start, end) = times.split_once('-').ok_or_else(|| format!("{times:?} is no span of time; {FORMS}"))?;
    let start = time(start).filter(|&(_, last)| !last).ok_or_else(|| wrong_time(start, "00:00 to 23:59"))?.0;
    let end = time(end).ok_or_else(|| wrong_time(end, "00:00 to 24:00"))?.0;
    if start == end && start != Time::midnight() {
        return Err(format!("{times:?} ends when it begins; write 00:00-24:00 for the whole day"));
    }
    Ok(Span { days: weekdays(days)?, start, end })
}

fn wrong_time(text: &str, range: &str) -> String {
    format!("{text:?} is no time of day; write hours and minutes, {range}")
}

/// A time of day, and whether it is the day's end.
fn time(text: &str) -> Option<(Time, bool)> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| match text.len() {
        1..=2 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<i8>().ok(),
        _ => None,
    };
    match (number(hours)?, number(minutes)?) {
        (24, 0) => Some((Time::midnight(), true)),
        (hours, minutes) if minutes < 60 && text.len() >= 4 => Time::new(hours, minutes, 0, 0).ok().map(|t| (t, false)),
        _ => None,
    }
}

/// `mon`, `mon-fri`, `fri-mon`, `sat,sun`, `daily`
fn weekdays(text: &str) -> Result<[bool; 7], String> {
    let text = text.to_ascii_lowercase();
    if text == "daily" {
        return Ok([true; 7]);
    }
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (weekday(first)?, weekday(last)?);
        days[day] = true;
        while day != last {
            day = (day + 1) % 7;
            days[day] = true;
        }
    }
    Ok(days)
}

fn weekday(text: &str) -> Result<usize, String> {
    DAYS.iter().position(|&day| day == text).ok_or_else(|| {
        let meant = nearest(text, DAYS).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        format!("{text:?} is no weekday; write mon, tue, wed, thu, fri, sat, sun or daily{meant}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        let days = |text: &str| -> String {
            span(&format!("{text} 18:00-06:00")).expect(text).days.map(|on| if on { '1' } else { '0' }).iter().collect()
        };
        for (text, expected) in [
            ("mon-fri", "1111100"),
            ("sat,sun", "0000011"),
            ("Fri-Mon", "1000111"),
            ("wed", "0010000"),
            ("mon-tue,thu", "1101000"),
            ("daily", "1111111"),
        ] {
            assert_eq!(days(text), expected, "{text}");
        }
        let night = span("18:00-06:30").expect("every day");
        assert_eq!((night.days, night.crosses_midnight()), ([true; 7], true));
        assert!(!span("8:00-18:00").expect("day").crosses_midnight());
        for whole in ["00:00-24:00", "0:00-00:00"] {
            assert_eq!(span(whole).map(|s| (s.start, s.end)), Ok((Time::midnight(), Time::midnight())), "{whole}");
        }
    }

    #[test]
    fn what_is_no_span_says_what_to_write() {
        for (text, part) in [
            ("mon", "no span of time"),
            ("mon fri 18:00-06:00", "no span of time"),
            ("mnd 18:00-06:00", "\"mnd\" is no weekday; write mon, tue"),
            ("mon- 18:00-06:00", "\"\" is no weekday"),
            ("18:00-25:00", "\"25:00\" is no time of day; write hours and minutes, 00:00 to 24:00"),
            ("24:00-06:00", "\"24:00\" is no time of day; write hours and minutes, 00:00 to 23:59"),
            ("18:60-06:00", "no time of day"),
            ("18-06", "no time of day"),
            ("+1:00-06:00", "no time of day"),
            ("18:00-18:00", "ends when it begins"),
        ] {
            let error = span(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
