//! A chip in memory: it has every line that is asked for, refuses a line that is taken, can be made to fail, and keeps
//! a timeline of each line. What the demo and most tests drive.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Cause, GpioError, Line};
use crate::clock::Monotonic;
use crate::config::plan::{GpioLine, GpioPlan, Level};

/// The chip's name when the configuration gives none.
pub const DEFAULT_CHIP: &str = "simulated";

/// How many edges of a line are remembered; older ones are forgotten, so that a daemon can run on it for years.
const REMEMBERED: usize = 4096;

/// One edge of one simulated line.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    /// When the line took the level.
    pub at: Monotonic,
    /// The electrical level.
    pub level: Level,
    /// Why.
    pub cause: Cause,
}

/// What happened on one simulated line.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// The chip.
    pub chip: String,
    /// The line's offset or name.
    pub line: String,
    /// Its changes, oldest first; the first is its opening. At most the last 4096.
    pub stamps: Vec<Stamp>,
}

/// The timelines of all simulated lines of this process, by chip and line.
pub fn timelines() -> Vec<Timeline> {
    let chips = lock(&CHIPS);
    let timeline = |((chip, line), state): (&(String, String), &Arc<Mutex<State>>)| Timeline {
        chip: chip.clone(),
        line: line.clone(),
        stamps: lock(state).stamps.iter().cloned().collect(),
    };
    chips.iter().map(timeline).collect()
}

/// The timeline of one simulated line; empty if it was never opened.
pub fn timeline(chip: &str, line: &str) -> Vec<Stamp> {
    timelines().into_iter().find(|known| known.chip == chip && known.line == line).map_or(Vec::new(), |it| it.stamps)
}

/// Makes a line refuse everything (as if its chip had been unplugged), or work again.
pub fn set_broken(chip: &str, line: &str, broken: bool) {
    lock(&state_of(chip, line)).broken = broken;
}

/// Makes each later driving of a line take this long (as on a slow bus).
pub fn set_slow(chip: &str, line: &str, delay: Duration) {
    lock(&state_of(chip, line)).delay = delay;
}

/// By chip and line.
type Lines = BTreeMap<(String, String), Arc<Mutex<State>>>;

static CHIPS: Mutex<Lines> = Mutex::new(BTreeMap::new());

#[derive(Default)]
struct State {
    holder: Option<String>,
    broken: bool,
    delay: Duration,
    stamps: VecDeque<Stamp>,
}

struct SimulatedLine {
    name: String,
    state: Arc<Mutex<State>>,
}

pub(super) fn open(plan: &GpioPlan, action: &str) -> Result<Box<dyn Line>, GpioError> {
    let chip = plan.chip.as_deref().unwrap_or(DEFAULT_CHIP);
    let line = match &plan.line {
        GpioLine::Offset(offset) => offset.to_string(),
        GpioLine::Name(name) => name.clone(),
    };
    let opened = SimulatedLine { name: format!("line {line} of {chip} (simulated)"), state: state_of(chip, &line) };
    let mut state = lock(&opened.state);
    if state.broken {
        return Err(GpioError::Request { line: opened.name.clone(), reason: "the simulated chip is broken".into() });
    }
    if let Some(holder) = &state.holder {
        return Err(GpioError::Busy { line: opened.name.clone(), holder: format!("\"{holder}\"") });
    }
    state.holder = Some(format!("spotter:{action}"));
    state.record(plan.safe, &Cause::Start);
    drop(state);
    Ok(Box::new(opened))
}

fn state_of(chip: &str, line: &str) -> Arc<Mutex<State>> {
    lock(&CHIPS).entry((chip.to_owned(), line.to_owned())).or_default().clone()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn record(&mut self, level: Level, cause: &Cause) {
        let unchanged = self.stamps.back().is_some_and(|last| last.level == level);
        if unchanged && *cause != Cause::Start {
            return;
        }
        if self.stamps.len() == REMEMBERED {
            self.stamps.pop_front();
        }
        self.stamps.push_back(Stamp { at: Monotonic::now(), level, cause: cause.clone() });
    }
}

impl SimulatedLine {
    fn check(&self, doing: &'static str, state: &State) -> Result<(), GpioError> {
        match state.broken {
            true => Err(GpioError::Access { doing, line: self.describe(), reason: "it was made to fail".into() }),
            false => Ok(()),
        }
    }
}

impl Line for SimulatedLine {
    fn set(&self, level: Level, cause: &Cause) -> Result<(), GpioError> {
        let delay = lock(&self.state).delay;
        std::thread::sleep(delay);
        // Held for the length of `record` only, which calls nobody: a thread cannot panic or wait with it.
        let mut state = lock(&self.state);
        self.check("driving", &state)?;
        state.record(level, cause);
        Ok(())
    }

    fn get(&self) -> Result<Level, GpioError> {
        let state = lock(&self.state);
        self.check("reading", &state)?;
        Ok(state.stamps.back().map_or(Level::Low, |last| last.level))
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}

impl Drop for SimulatedLine {
    fn drop(&mut self) {
        lock(&self.state).holder = None;
    }
}
