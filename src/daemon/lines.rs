//! What a PLC is told of the device itself: **ready**, **fault** and **heartbeat**.

use std::time::Duration;

use crate::actions::gpio::Output;
use crate::clock::Monotonic;
use crate::config::plan::DeviceLines;

/// How often the heartbeat changes at most, and the others are looked at at least.
const RHYTHM: Duration = Duration::from_millis(250);

/// When the fault line is active. Pure.
///
/// Trouble that lasts (a camera that is away) is a fault while it lasts. A mishap (a part without a verdict, a full queue) is
/// over in a moment, and a fault until the next verdict in time, or for [`SHOWN`] where nothing is judged.
#[derive(Debug, Default)]
struct Fault {
    mishaps: u64,
    verdicts: u64,
    /// The last mishap that no verdict has followed.
    since: Option<Monotonic>,
}

/// Long enough for any PLC's cycle.
const SHOWN: Duration = Duration::from_secs(5);

impl Fault {
    /// Whether the line is active, `mishaps` and `verdicts` being counted from the start.
    fn step(&mut self, trouble: bool, mishaps: u64, verdicts: u64, now: Monotonic) -> bool {
        if mishaps > self.mishaps {
            self.since = Some(now);
        } else if verdicts > self.verdicts || (verdicts == 0 && self.since.is_some_and(|it| now.since(it) >= SHOWN)) {
            self.since = None;
        }
        (self.mishaps, self.verdicts) = (mishaps, verdicts);
        trouble || self.since.is_some()
    }
}

/// The three lines, as many as are configured.
pub(super) struct Lines {
    ready: Option<Output>,
    fault: Option<Output>,
    heartbeat: Option<Output>,
    state: Fault,
    beat: bool,
    driven: Option<Monotonic>,
}

impl Lines {
    /// Opens them at their safe levels.
    pub(super) fn open(plan: &DeviceLines) -> Self {
        Self {
            ready: plan.ready.as_ref().map(|plan| Output::open("ready", plan)),
            fault: plan.fault.as_ref().map(|plan| Output::open("fault", plan)),
            heartbeat: plan.heartbeat.as_ref().map(|plan| Output::open("heartbeat", plan)),
            state: Fault::default(),
            beat: false,
            driven: None,
        }
    }

    /// How often the loop has to come by.
    pub(super) fn rhythm(&self) -> Option<Duration> {
        (self.ready.is_some() || self.fault.is_some() || self.heartbeat.is_some()).then_some(RHYTHM)
    }

    /// Whether [`Self::drive`] has something to do: the fault line follows each frame, the heartbeat has its rhythm.
    pub(super) fn are_wanted(&self, now: Monotonic) -> bool {
        self.fault.is_some() || (self.rhythm().is_some() && self.is_beat(now))
    }

    fn is_beat(&self, now: Monotonic) -> bool {
        self.driven.is_none_or(|last| now.since(last) >= RHYTHM)
    }

    /// The inference loop has come by. It alone calls this: the heartbeat stands still when that loop does.
    pub(super) fn drive(&mut self, trouble: bool, mishaps: u64, verdicts: u64, now: Monotonic) {
        let fault = self.state.step(trouble, mishaps, verdicts, now);
        let beat = self.is_beat(now);
        if beat {
            self.driven = Some(now);
            self.beat = !self.beat;
        }
        let states = [(&mut self.ready, true), (&mut self.fault, fault), (&mut self.heartbeat, self.beat)];
        for (line, active) in states {
            // One that cannot be driven says so itself, and is tried again.
            line.iter_mut().for_each(|line| _ = line.set(active, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::gpio::simulated::timeline;
    use crate::config::plan::{GpioBackend, GpioLine, GpioMode, GpioPlan, Level};

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_duration(Duration::from_millis(ms))
    }

    #[test]
    fn a_table_of_trouble_mishaps_and_verdicts() {
        let mut fault = Fault::default();
        for (time, trouble, mishaps, verdicts, active) in [
            (0, false, 0, 0, false),
            (1, true, 0, 0, true),
            (2, false, 0, 0, false),
            // Something was dropped, and nothing is ever judged.
            (10, false, 1, 0, true),
            (5009, false, 1, 0, true),
            (5010, false, 1, 0, false),
            // A part without a verdict: until there is one.
            (6000, false, 1, 3, false),
            (7000, false, 2, 3, true),
            (99_000, false, 2, 3, true),
            (99_001, false, 3, 4, true),
            (99_002, false, 3, 5, false),
        ] {
            assert_eq!(fault.step(trouble, mishaps, verdicts, at(time)), active, "at {time}");
        }
    }

    #[test]
    fn lines_are_safe_then_driven_then_safe() {
        let plan = |line, safe| {
            Some(GpioPlan {
                backend: GpioBackend::Simulated,
                chip: Some("device-lines".into()),
                line: GpioLine::Offset(line),
                mode: GpioMode::Follow,
                active_low: false,
                safe,
            })
        };
        use Level::{High, Low};
        let mut lines =
            Lines::open(&DeviceLines { ready: plan(1, Low), fault: plan(2, High), heartbeat: plan(3, Low) });
        let levels = |line: &str| timeline("device-lines", line).iter().map(|it| it.level).collect::<Vec<_>>();
        assert_eq!([levels("1"), levels("2"), levels("3")], [vec![Low], vec![High], vec![Low]]);
        for time in [0, 100, 250, 500, 750] {
            lines.drive(false, 0, 0, at(time));
        }
        lines.drive(true, 0, 0, at(760));
        assert_eq!([levels("1"), levels("2")], [vec![Low, High], vec![High, Low, High]]);
        assert_eq!(levels("3"), [Low, High, Low, High, Low], "four beats, and none between");
        drop(lines);
        assert_eq!([levels("1"), levels("2")], [vec![Low, High, Low], vec![High, Low, High]]);
    }
}
