//! The time that a recorded file's name carries.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// What a name may look like, for errors and help.
pub const FORMS: &str =
    "2026-11-24T18-00-05.250Z.jpg, 20261124_180005.jpg or 1795543205.250.jpg (seconds or milliseconds since 1970)";

/// The time in a file's name without its extension: a date and a time of day anywhere in it (with `Z` or an offset, else in
/// `zone`), or seconds or milliseconds since 1970. `None` if there is none.
pub fn time_in(stem: &str, zone: &TimeZone) -> Option<Timestamp> {
    // Only where a number begins: the last digits of a serial number are no date.
    let bytes = stem.as_bytes();
    let begins = |&at: &usize| bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_digit());
    let starts: Vec<usize> = (0..bytes.len()).filter(begins).collect();
    let dated = starts.iter().find_map(|&at| Cursor(&bytes[at..]).moment(zone));
    dated.or_else(|| starts.iter().find_map(|&at| Cursor(&bytes[at..]).since_1970()))
}

/// What is left of a name.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// `YYYY-MM-DDTHH-MM-SS[.fraction][zone]`, the separators being of several kinds, and those within date and time optional.
    fn moment(&mut self, zone: &TimeZone) -> Option<Timestamp> {
        let year = i16::try_from(self.digits(4)?).ok()?;
        self.any(b"-_.");
        let month = self.digits(2)?;
        self.any(b"-_.");
        let day = self.digits(2)?;
        self.any(b"Tt_- ").then_some(())?;
        let hour = self.digits(2)?;
        self.any(b":-_.h");
        let minute = self.digits(2)?;
        self.any(b":-_.m");
        let second = self.digits(2)?;
        let nanoseconds = self.fraction();
        let part = |number: u64| i8::try_from(number).ok();
        let (month, day) = (part(month)?, part(day)?);
        let time = DateTime::new(year, month, day, part(hour)?, part(minute)?, part(second)?, nanoseconds).ok()?;
        match self.offset() {
            Some(offset) => offset.to_timestamp(time).ok(),
            // Of an hour that comes twice, the first.
            None => zone.to_timestamp(time).ok(),
        }
    }

    /// Ten digits and a fraction, or thirteen digits.
    fn since_1970(&mut self) -> Option<Timestamp> {
        match self.0.iter().take_while(|byte| byte.is_ascii_digit()).count() {
            10 => {
                let seconds = i64::try_from(self.digits(10)?).ok()?;
                Timestamp::new(seconds, self.fraction()).ok()
            }
            13 => Timestamp::from_millisecond(i64::try_from(self.digits(13)?).ok()?).ok(),
            _ => None,
        }
    }

    /// Exactly `count` digits.
    fn digits(&mut self, count: usize) -> Option<u64> {
        let digits = self.0.get(..count).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        self.0 = &self.0[count..];
        Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    }

    /// Passes over one of `bytes`, if it comes next and a digit follows.
    fn any(&mut self, bytes: &[u8]) -> bool {
        let found = matches!(self.0, [first, next, ..] if bytes.contains(first) && next.is_ascii_digit());
        self.0 = &self.0[usize::from(found)..];
        found
    }

    /// `.250` in nanoseconds; 0 without one.
    fn fraction(&mut self) -> i32 {
        if !self.any(b".,") {
            return 0;
        }
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (mut value, digits) = (0, &self.0[..count]);
        for place in 0..9 {
            value = value * 10 + digits.get(place).map_or(0, |digit| i32::from(digit - b'0'));
        }
        self.0 = &self.0[count..];
        value
    }

    /// `Z`, `+01`, `+0100`, `+01:00`.
    fn offset(&mut self) -> Option<Offset> {
        let sign = match self.0.first()? {
            b'Z' | b'z' => return Some(Offset::UTC),
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.0 = &self.0[1..];
        let hours = self.digits(2)?;
        self.any(b":");
        let minutes = self.digits(2).unwrap_or(0);
        let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
        Offset::from_seconds(sign * seconds).ok()
    }
}

/// The time from 1970 to `time`: what a replay's monotonic clock shows. `None` before 1970.
pub(super) fn since_1970(time: Timestamp) -> Option<std::time::Duration> {
    time.duration_since(Timestamp::UNIX_EPOCH).max(SignedDuration::from_nanos(-1)).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_times() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        for (name, expected) in [
            ("2026-11-24T18-00-05.250Z", "2026-11-24T18:00:05.250Z"),
            ("2026-11-24T18:00:05+0100", "2026-11-24T17:00:05Z"),
            ("feeder_2026-11-24_18-00-05", "2026-11-24T17:00:05Z"),
            ("20261124_180005", "2026-11-24T17:00:05Z"),
            ("cam1-20260724T180005.5-04:00-cat", "2026-07-24T22:00:05.5Z"),
            ("IMG_20260724-180005_0042", "2026-07-24T16:00:05Z"),
            ("1795543205", "2026-11-24T18:00:05Z"),
            ("1795543205.25", "2026-11-24T18:00:05.25Z"),
            ("frame-1795543205250", "2026-11-24T18:00:05.250Z"),
            // An hour that comes twice: the first.
            ("2026-10-25_02-30-00", "2026-10-25T00:30:00Z"),
        ] {
            assert_eq!(time_in(name, &zone), Some(expected.parse().unwrap()), "{name}");
        }
        for name in ["", "image_0006", "2026-11-24", "2026-13-24T18-00-05Z", "120261124_180005", "99999999999", "٣"] {
            assert_eq!(time_in(name, &zone), None, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_answered(name in "\\PC{0,40}|[0-9TZ:.+_-]{0,40}") {
            let _ = time_in(&name, &TimeZone::UTC);
        }
    }
}
