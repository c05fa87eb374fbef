//! The thread of one line: takes events, drives the line by its mode, and gets a lost line back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guard::{GuardedLine, Registry};
use super::machine::Machine;
use super::{Cause, GpioError, opposite};
use crate::actions::outbox::{Outbox, Overflow, Taken};
use crate::actions::runner::{self, ActionHandle, Health, StatusCell};
use crate::actions::{ActionError, Edge, Observer, fnv1a};
use crate::backoff::Backoff;
use crate::clock::Monotonic;
use crate::config::plan::{GpioMode, GpioPlan, Level};
use crate::rules::Event;

/// Events that wait for a slow chip before the oldest is dropped (a follow line's state is kept all the same).
const CAPACITY: usize = 256;

/// How soon, and at last how often, a line that could not be had is asked for again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// One line and what drives it.
pub(in crate::actions) struct Driver {
    action: Arc<str>,
    plan: GpioPlan,
    observer: Arc<dyn Observer>,
    registry: &'static Registry,
    status: Arc<StatusCell>,
    pub(super) outbox: Arc<Outbox>,
    machine: Machine,
    line: Option<Arc<GuardedLine>>,
    /// The latest event, to name as the cause when a lost follow line is caught up on.
    latest: Option<Arc<Event>>,
    backoff: Backoff,
    retry_at: Instant,
}

impl Driver {
    /// Opens the line and so drives its safe level; a failure is noted and tried again by the thread.
    pub(in crate::actions) fn open(action: Arc<str>, plan: &GpioPlan, observer: Arc<dyn Observer>) -> Self {
        Self::open_in(Registry::global(), action, plan, observer)
    }

    pub(super) fn open_in(
        registry: &'static Registry,
        action: Arc<str>,
        plan: &GpioPlan,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let mut driver = Self {
            registry,
            status: Arc::new(StatusCell::new(action.clone())),
            outbox: Arc::new(Outbox::new(CAPACITY, overflow(&plan.mode))),
            machine: Machine::new(plan.mode.clone()),
            backoff: Backoff::new(RETRY.0, RETRY.1, fnv1a(&[action.as_bytes()])),
            retry_at: Instant::now(),
            line: None,
            latest: None,
            plan: plan.clone(),
            observer,
            action,
        };
        driver.try_open();
        driver
    }

    /// Starts the thread.
    pub(in crate::actions) fn spawn(mut self) -> Result<ActionHandle, ActionError> {
        let (name, outbox, status) = (self.action.clone(), self.outbox.clone(), self.status.clone());
        runner::spawn_urgent(name, outbox, status, move || self.run())
    }

    fn run(&mut self) {
        loop {
            let until = if self.line.is_some() { self.machine.deadline() } else { Some(self.retry_at) };
            match self.outbox.take(until) {
                Taken::Event(event) => self.on_event(event),
                Taken::Timeout => {}
                Taken::Closing(deadline) => return self.finish(deadline),
            }
            self.on_time();
        }
    }

    fn on_event(&mut self, event: Arc<Event>) {
        self.end_pulse_if_over();
        let active = self.line.as_ref().is_some_and(|line| line.level() == self.level(true));
        let wanted = self.machine.event(&event.rule, event.change.is_on(), active);
        self.latest = Some(event.clone());
        let Some(active) = wanted else { return };
        if self.line.is_none() {
            if self.machine.loses_while_away() {
                self.outbox.count_lost();
            }
            return;
        }
        if self.drive(self.level(active), Cause::Event(event)) {
            self.machine.driven(Instant::now());
        } else if self.machine.loses_while_away() {
            self.outbox.count_lost();
        }
    }

    fn on_time(&mut self) {
        self.end_pulse_if_over();
        if self.line.is_none() && Instant::now() >= self.retry_at {
            self.try_open();
        }
    }

    fn end_pulse_if_over(&mut self) {
        if let Some(active) = self.machine.advance(Instant::now())
            && self.drive(self.level(active), Cause::PulseEnd)
            && self.machine.counts_on()
        {
            self.machine.driven(Instant::now());
        }
    }

    /// Lets a running pulse or pattern end in time, then drives the safe level and releases the line.
    fn finish(&mut self, deadline: Instant) {
        while let Some(end) = self.machine.deadline()
            && Instant::now() < deadline
        {
            std::thread::sleep(end.min(deadline).saturating_duration_since(Instant::now()));
            self.end_pulse_if_over();
        }
        self.drive(self.plan.safe, Cause::Close);
        self.line = None;
    }

    /// Drives `level` and tells the observer if that was a change. `false`: the line could not be driven.
    fn drive(&mut self, level: Level, cause: Cause) -> bool {
        let Some(line) = &self.line else { return false };
        let driven = line.set(level, &cause);
        let at = Monotonic::now();
        match driven {
            Ok(changed) => {
                if changed {
                    self.tell(level, at, cause);
                }
                true
            }
            Err(error) => {
                self.lose(error);
                false
            }
        }
    }

    fn tell(&self, level: Level, at: Monotonic, cause: Cause) {
        let cause = match cause {
            Cause::Event(event) => Some(event),
            Cause::Start | Cause::PulseEnd | Cause::Device | Cause::Close | Cause::Emergency => None,
        };
        self.observer.edge(&Edge { action: self.action.clone(), level, at, cause });
    }

    fn try_open(&mut self) {
        let opened = super::open(&self.plan, &self.action).and_then(|line| self.registry.guard(line, self.plan.safe));
        let at = Monotonic::now();
        match opened {
            Ok(line) => {
                self.status.set(Health::Ready, format!("drives {}", line.describe()));
                self.backoff.reset();
                self.line = Some(line);
                self.tell(self.plan.safe, at, Cause::Start);
                self.catch_up();
            }
            Err(error) => self.lose(error),
        }
    }

    fn catch_up(&mut self) {
        if let (Some(active), Some(event)) = (self.machine.reopened(), self.latest.clone()) {
            self.drive(self.level(active), Cause::Event(event));
        }
    }

    fn lose(&mut self, error: GpioError) {
        if matches!(error, GpioError::Ending { .. }) && self.line.is_some() {
            // Held at its safe level until the process is gone: better than what its release would leave to the pull.
            return self.status.set(Health::Degraded, error.to_string());
        }
        let health = if error.needs_a_person() { Health::Rejected } else { Health::Degraded };
        self.status.set(health, format!("{error}; tried again until it works"));
        self.line = None;
        self.retry_at = Instant::now() + self.backoff.next_delay();
    }

    /// The electrical level of "active" or "inactive".
    fn level(&self, active: bool) -> Level {
        let level = if self.plan.active_low { Level::Low } else { Level::High };
        if active { level } else { opposite(level) }
    }
}

fn overflow(mode: &GpioMode) -> Overflow {
    match mode {
        GpioMode::Follow => Overflow::KeepLatest,
        GpioMode::Pulse(_) | GpioMode::Toggle | GpioMode::Pattern(_) => Overflow::Drop,
    }
}
