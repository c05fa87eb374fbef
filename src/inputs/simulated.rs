//! Inputs in memory: a test sets their levels, and one with a `beat` has an edge every so often.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Input;
use crate::actions::gpio::{GpioError, simulated::DEFAULT_CHIP};
use crate::clock::Monotonic;
use crate::config::plan::{GpioLine, InputPlan};

/// Edges that wait for whoever reads them, as in the kernel's buffer; older ones are lost.
const BUFFER: usize = 1024;

/// Drives an input from outside: `high` is the electrical level.
pub fn set(chip: &str, line: &str, high: bool) {
    line_of(chip, line).set(high);
}

/// Makes an input fail (as if its chip had been unplugged), or work again.
pub fn set_broken(chip: &str, line: &str, broken: bool) {
    let line = line_of(chip, line);
    line.lock().broken = broken;
    line.changed.notify_all();
}

/// Whether somebody has ever opened the input: edges before that are heard by nobody.
pub fn is_listened_to(chip: &str, line: &str) -> bool {
    line_of(chip, line).lock().listened
}

type Lines = BTreeMap<(String, String), Arc<Line>>;

static LINES: Mutex<Lines> = Mutex::new(BTreeMap::new());

#[derive(Default)]
struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    high: bool,
    broken: bool,
    listened: bool,
    edges: VecDeque<(bool, Monotonic)>,
}

fn line_of(chip: &str, line: &str) -> Arc<Line> {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.entry((chip.to_owned(), line.to_owned())).or_default().clone()
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, high: bool) {
        let mut state = self.lock();
        if state.high == high {
            return;
        }
        state.high = high;
        if state.edges.len() == BUFFER {
            state.edges.pop_front();
        }
        state.edges.push_back((high, Monotonic::now()));
        self.changed.notify_all();
    }
}

struct SimulatedInput {
    line: Arc<Line>,
    name: String,
    active_low: bool,
    /// Half a beat, and when the level changes next.
    beat: Option<(Duration, Monotonic)>,
}

pub(super) fn open(plan: &InputPlan) -> Result<Box<dyn Input>, GpioError> {
    let chip = plan.chip.as_deref().unwrap_or(DEFAULT_CHIP);
    let line = match &plan.line {
        GpioLine::Offset(offset) => offset.to_string(),
        GpioLine::Name(name) => name.clone(),
    };
    let beat = plan.beat.map(|beat| (beat / 2, Monotonic::now() + beat));
    let name = format!("line {line} of {chip} (simulated)");
    let input = SimulatedInput { line: line_of(chip, &line), name, active_low: plan.active_low, beat };
    // What came before the opening is not heard, as with the kernel.
    let mut state = input.check()?;
    state.edges.clear();
    state.listened = true;
    drop(state);
    Ok(Box::new(input))
}

impl SimulatedInput {
    fn check(&self) -> Result<MutexGuard<'_, State>, GpioError> {
        let state = self.line.lock();
        match state.broken {
            false => Ok(state),
            true => {
                let reason = "it was made to fail".into();
                Err(GpioError::Access { doing: "reading", line: self.name.clone(), reason })
            }
        }
    }

    /// Changes the level if it is time, and says how long it is until the next time.
    fn beat(&mut self, timeout: Duration) -> Duration {
        let Some((half, due)) = &mut self.beat else { return timeout };
        let now = Monotonic::now();
        if now >= *due {
            *due = now + *half;
            let high = self.line.lock().high;
            self.line.set(!high);
        }
        due.since(now).min(timeout)
    }
}

impl Input for SimulatedInput {
    fn active(&mut self) -> Result<bool, GpioError> {
        let high = self.check()?.high;
        Ok(high != self.active_low)
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<(bool, Monotonic)>, GpioError> {
        let wait = self.beat(timeout);
        let mut state = self.check()?;
        if state.edges.is_empty() {
            let line = &self.line;
            state = line.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        let edge = state.edges.pop_front();
        let broken = state.broken;
        drop(state);
        if broken {
            drop(self.check()?);
        }
        Ok(edge.map(|(high, at)| (high != self.active_low, at)))
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}
