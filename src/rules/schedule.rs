//! Whether a schedule is open at a moment, and until when: pure, from a wall-clock time that is given.
//!
//! Each span of each day is an interval between two moments. So a night in which the clocks change is one interval like any
//! other: an hour that comes twice is inside from its first beginning to its last end, and a time that is skipped
//! lies at the moment of the change.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span as Days, Timestamp};

use crate::config::schedule::{SchedulePlan, Span};

/// What a schedule says of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Whether the rule is to notice anything.
    pub open: bool,
    /// From this moment...
    pub from: Timestamp,
    /// ...until before this one, that is so.
    pub until: Timestamp,
}

/// How many days ahead a boundary is looked for: each span begins once a week.
const AHEAD: i8 = 8;
/// How many days back a span may have begun that is still open.
const BACK: i8 = -2;

/// Whether `plan` is open at `now`. Near the ends of time, where no day is left to look at, it is closed.
pub fn opening(plan: &SchedulePlan, now: Timestamp) -> Opening {
    let today = plan.zone.to_datetime(now).date();
    let mut found = Opening { open: false, from: now, until: Timestamp::MAX };
    for day in BACK..=AHEAD {
        let Ok(date) = today.checked_add(Days::new().days(day)) else { continue };
        let begun = plan.spans.iter().filter(|span| span.begins_on(date.weekday()));
        for (start, end) in begun.filter_map(|span| interval(span, date, &plan.zone)) {
            found.open |= start <= now && now < end;
            for boundary in [start, end] {
                if boundary > now {
                    found.until = found.until.min(boundary);
                }
            }
        }
    }
    found
}

/// When a span that begins on `date` begins and ends; `None` if nothing is left of it, or at the end of time.
fn interval(span: &Span, date: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
    let last = if span.crosses_midnight() { date.tomorrow().ok()? } else { date };
    let start = moment(date.to_datetime(span.start), zone, false)?;
    let end = moment(last.to_datetime(span.end), zone, true)?;
    (start < end).then_some((start, end))
}

/// The moment when the clocks show `time`: the later one of two if `late`, the moment of the change if they skip it.
fn moment(time: DateTime, zone: &TimeZone, late: bool) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(time);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => ambiguous.compatible().ok(),
        AmbiguousOffset::Fold { .. } if late => ambiguous.later().ok(),
        AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
        AmbiguousOffset::Gap { .. } => {
            // With the offset after the change a skipped time lies before it.
            let before = ambiguous.earlier().ok()?;
            zone.following(before).next().map(|change| change.timestamp())
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::Time;

    use super::*;

    fn plan(spans: &[(&str, &str, &str)], zone: &str) -> SchedulePlan {
        let time = |text: &str| text.parse::<Time>().expect("a time");
        let spans = spans.iter().map(|(days, start, end)| Span {
            days: std::array::from_fn(|day| days.as_bytes()[day] == b'1'),
            start: time(start),
            end: time(end),
        });
        SchedulePlan { spans: spans.collect(), zone: TimeZone::get(zone).expect("the zone"), unset: true }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect(text)
    }

    /// Whether the plan is open at each time, and its next boundary (`-`: not looked at).
    fn check(plan: &SchedulePlan, table: &[(&str, bool, &str)]) {
        for (now, open, until) in table {
            let found = opening(plan, at(now));
            assert_eq!(found.open, *open, "{now}");
            if *until != "-" {
                assert_eq!(found.until, at(until), "{now}");
            }
        }
    }

    /// Weekday nights, Monday to Friday, 18:00 to 06:00 in Berlin. 2026-11-20 is a Friday.
    #[test]
    fn a_span_across_midnight_belongs_to_the_day_that_it_begins_on() {
        let nights = plan(&[("1111100", "18:00", "06:00")], "Europe/Berlin");
        check(
            &nights,
            &[
                ("2026-11-20T17:59:59+01", false, "2026-11-20T18:00:00+01"),
                ("2026-11-20T18:00:00+01", true, "2026-11-21T06:00:00+01"),
                ("2026-11-21T05:59:59+01", true, "2026-11-21T06:00:00+01"),
                ("2026-11-21T06:00:00+01", false, "2026-11-23T18:00:00+01"),
                ("2026-11-22T23:00:00+01", false, "2026-11-23T18:00:00+01"),
                // Monday before dawn belongs to Sunday, which has no span.
                ("2026-11-23T03:00:00+01", false, "2026-11-23T18:00:00+01"),
                ("2026-11-24T03:00:00+01", true, "2026-11-24T06:00:00+01"),
            ],
        );
    }

    #[test]
    fn whole_days_join_and_the_zone_decides_the_day() {
        let weekend = plan(&[("0000011", "00:00", "00:00")], "Pacific/Auckland");
        check(
            &weekend,
            &[
                ("2026-11-20T10:59:59Z", false, "2026-11-20T11:00:00Z"),
                ("2026-11-20T11:00:00Z", true, "-"),
                ("2026-11-21T11:00:00Z", true, "2026-11-22T11:00:00Z"),
                ("2026-11-22T11:00:00Z", false, "2026-11-27T11:00:00Z"),
            ],
        );
    }

    /// 2026-03-29 in Berlin: 02:00 becomes 03:00.
    #[test]
    fn a_time_that_spring_skips_is_the_moment_of_the_change() {
        let zone = "Europe/Berlin";
        let begins_in_gap = plan(&[("1111111", "02:30", "04:00")], zone);
        check(
            &begins_in_gap,
            &[
                ("2026-03-29T00:59:59Z", false, "2026-03-29T01:00:00Z"),
                ("2026-03-29T01:00:00Z", true, "2026-03-29T02:00:00Z"),
                ("2026-03-29T02:00:00Z", false, "2026-03-30T00:30:00Z"),
            ],
        );
        let ends_in_gap = plan(&[("1111111", "22:00", "02:30")], zone);
        check(
            &ends_in_gap,
            &[("2026-03-28T22:00:00Z", true, "2026-03-29T01:00:00Z"), ("2026-03-29T01:00:00Z", false, "-")],
        );
        let inside_gap = plan(&[("1111111", "02:10", "02:50")], zone);
        check(&inside_gap, &[("2026-03-29T01:00:00Z", false, "2026-03-30T00:10:00Z")]);
        // The night is an hour shorter and still one.
        let night = plan(&[("1111111", "18:00", "06:00")], zone);
        check(&night, &[("2026-03-28T17:00:00Z", true, "2026-03-29T04:00:00Z")]);
    }

    /// 2026-10-25 in Berlin: 03:00 becomes 02:00.
    #[test]
    fn an_hour_that_autumn_repeats_is_inside_once_and_whole() {
        let zone = "Europe/Berlin";
        let inside = plan(&[("1111111", "02:15", "02:45")], zone);
        check(
            &inside,
            &[
                ("2026-10-25T00:14:59Z", false, "2026-10-25T00:15:00Z"),
                ("2026-10-25T00:15:00Z", true, "2026-10-25T01:45:00Z"),
                ("2026-10-25T00:50:00Z", true, "2026-10-25T01:45:00Z"),
                ("2026-10-25T01:45:00Z", false, "2026-10-26T01:15:00Z"),
            ],
        );
        let night = plan(&[("1111111", "18:00", "06:00")], zone);
        check(&night, &[("2026-10-24T16:00:00Z", true, "2026-10-25T05:00:00Z")]);
    }

    #[test]
    fn the_ends_of_time_are_answered() {
        let night = plan(&[("1111111", "18:00", "06:00")], "UTC");
        for end in [Timestamp::MIN, Timestamp::MAX] {
            let found = opening(&night, end);
            assert!(found.until >= end);
        }
    }

    proptest::proptest! {
        /// Between `now` and `until` nothing changes, and `until` lies ahead.
        #[test]
        fn nothing_changes_before_the_next_boundary(
            now in 1_700_000_000i64..1_900_000_000, share in 0.0f64..1.0,
            days in "[01]{6}1", start in 0i8..24, end in 0i8..24, minute in 1i8..60,
        ) {
            let (start, end) = (format!("{start:02}:00"), format!("{end:02}:{minute:02}"));
            let plan = plan(&[(&days, &start, &end)], "America/New_York");
            let now = Timestamp::from_second(now).expect("in range");
            let found = opening(&plan, now);
            proptest::prop_assert!(found.until > now);
            let span = found.until.as_second() - now.as_second();
            let within = now.as_second() + (span as f64 * share) as i64;
            let within = opening(&plan, Timestamp::from_second(within.min(found.until.as_second() - 1)).expect("in range"));
            proptest::prop_assert_eq!((within.open, within.until), (found.open, found.until));
        }
    }
}
