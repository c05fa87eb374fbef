//! Whether this board knows what time it is. Most have no battery: until the network has told them, their clock shows the time of
//! the last shutdown, which looks right and is not.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::Monotonic;

/// systemd-timesyncd makes it when it has set the clock since boot (systemd-timesyncd.service(8)).
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";
/// The kernel's real-time clocks (Documentation/ABI/testing/rtc-cdev, sysfs-class-rtc).
const CLOCKS: &str = "/sys/class/rtc";
/// How far the system's clock may have gone from the battery's: a bad crystal's drift in some months of running.
const DRIFT: SignedDuration = SignedDuration::from_mins(10);
/// 2026-01-01: nobody ran this program before. A battery's clock that has stood still begins in 1970 or 2000.
const EARLIEST: i64 = 1_767_225_600;
/// Somebody has set the clock if it moves by this much against the monotonic one; the kernel slews what is less.
const STEP: SignedDuration = SignedDuration::from_secs(30);
/// How often to look.
const EVERY: Duration = Duration::from_secs(2);

/// Tells the time once the board knows it.
pub(super) struct WallClock {
    known: bool,
    looked: Option<Monotonic>,
    /// Wall minus monotonic at the start: a step tells that somebody has set the clock.
    offset: SignedDuration,
}

impl WallClock {
    pub(super) fn new(now: Monotonic) -> Self {
        Self { known: false, looked: None, offset: offset(now) }
    }

    /// What the clock shows; `None` while the board does not know the time. A change is logged by `concerned`, if any rule is.
    pub(super) fn read(&mut self, now: Monotonic, concerned: bool) -> Option<Timestamp> {
        if !self.known && self.looked.is_none_or(|looked| now.since(looked) >= EVERY) {
            let first = self.looked.replace(now).is_none();
            self.known =
                (offset(now) - self.offset).abs() >= STEP || is_set(Path::new(SYNCHRONISED), Path::new(CLOCKS));
            match (concerned, self.known, first) {
                (true, false, true) => {
                    log::warn!("the board does not know the time yet: schedules go by `clock_unset`")
                }
                (true, true, false) => log::info!("the clock is set: schedules go by it"),
                _ => {}
            }
        }
        self.known.then(Timestamp::now)
    }
}

fn offset(now: Monotonic) -> SignedDuration {
    let since_boot = SignedDuration::try_from(now.as_duration()).unwrap_or(SignedDuration::MAX);
    Timestamp::now().as_duration().saturating_sub(since_boot)
}

/// The network has set the clock since boot, or a battery's clock has that agrees with it.
fn is_set(synchronised: &Path, clocks: &Path) -> bool {
    let clocks = std::fs::read_dir(clocks).into_iter().flatten().filter_map(Result::ok);
    synchronised.exists() || clocks.map(|clock| clock.path()).any(|clock| agrees(&clock, Timestamp::now()))
}

/// The kernel set the system's clock by this one at boot (`hctosys`), and it still shows the same.
fn agrees(clock: &Path, now: Timestamp) -> bool {
    let number = |name: &str| std::fs::read_to_string(clock.join(name)).ok()?.trim().parse::<i64>().ok();
    let shown = number("since_epoch").filter(|&shown| shown >= EARLIEST).and_then(|s| Timestamp::from_second(s).ok());
    number("hctosys") == Some(1) && shown.is_some_and(|shown| now.duration_since(shown).abs() <= DRIFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_believed_if_the_network_or_a_battery_has_set_it() {
        let folder = tempfile::tempdir().unwrap();
        let (flag, clocks) = (folder.path().join("synchronized"), folder.path().join("rtc"));
        assert!(!is_set(&flag, &clocks), "nothing is known of it");
        let rtc = clocks.join("rtc0");
        std::fs::create_dir_all(&rtc).unwrap();
        let now = Timestamp::now().as_second();
        for (hctosys, since_epoch, expected) in [
            ("1\n", now, true),
            ("1\n", now - 300, true),
            ("0\n", now, false),
            // Stood still since the factory, or for an hour.
            ("1\n", 12, false),
            ("1\n", now - 3600, false),
        ] {
            std::fs::write(rtc.join("hctosys"), hctosys).unwrap();
            std::fs::write(rtc.join("since_epoch"), format!("{since_epoch}\n")).unwrap();
            assert_eq!(is_set(&flag, &clocks), expected, "{hctosys:?} {since_epoch}");
        }
        std::fs::write(&flag, "").unwrap();
        assert!(is_set(&flag, &clocks));
    }
}
