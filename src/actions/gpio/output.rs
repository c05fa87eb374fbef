//! A line that its holder drives itself: what a PLC is told of the device. It needs no thread, since its holder has one.

use std::sync::Arc;
use std::time::Duration;

use super::guard::{GuardedLine, Registry};
use super::{Cause, GpioError, opposite};
use crate::actions::fnv1a;
use crate::backoff::Backoff;
use crate::clock::Monotonic;
use crate::config::plan::{GpioPlan, Level};

/// How soon, and at last how often, a line that could not be had is asked for again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// An output that is asked for again by itself when it is lost. Dropping it drives the safe level.
pub struct Output {
    name: &'static str,
    plan: GpioPlan,
    line: Option<Arc<GuardedLine>>,
    backoff: Backoff,
    retry_at: Monotonic,
    complained: bool,
}

impl Output {
    /// Opens the line of `plan` at its safe level; a failure is logged, and tried again by [`set`](Self::set).
    pub fn open(name: &'static str, plan: &GpioPlan) -> Self {
        let backoff = Backoff::new(RETRY.0, RETRY.1, fnv1a(&[name.as_bytes()]));
        let plan = plan.clone();
        let mut output = Self { name, plan, line: None, backoff, retry_at: Monotonic::default(), complained: false };
        output.try_open(Monotonic::now());
        output
    }

    /// Drives the line active or inactive, if it is to be had. `false`: it is not.
    pub fn set(&mut self, active: bool, now: Monotonic) -> bool {
        if self.line.is_none() && now >= self.retry_at {
            self.try_open(now);
        }
        let Some(line) = &self.line else { return false };
        let level = if self.plan.active_low { Level::Low } else { Level::High };
        let level = if active { level } else { opposite(level) };
        if line.level() == level {
            return true;
        }
        match line.set(level, &Cause::Device) {
            Ok(_) => true,
            Err(error) => {
                self.lose(&error, now);
                false
            }
        }
    }

    fn try_open(&mut self, now: Monotonic) {
        let opened = super::open(&self.plan, self.name).and_then(|it| Registry::global().guard(it, self.plan.safe));
        match opened {
            Ok(line) => {
                log::info!("line \"{}\": drives {}", self.name, line.describe());
                self.complained = false;
                self.backoff.reset();
                self.line = Some(line);
            }
            Err(error) => self.lose(&error, now),
        }
    }

    fn lose(&mut self, error: &GpioError, now: Monotonic) {
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("line \"{}\": {error}; tried again until it works", self.name);
        }
        // While the program ends, the line is held at its safe level: better than what its release leaves to the pull.
        if !matches!(error, GpioError::Ending { .. }) {
            self.line = None;
        }
        self.retry_at = now + self.backoff.next_delay();
    }
}
