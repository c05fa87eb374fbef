//! Every open line of the process, so that a panic hook or an exit can drive all of them to safety from any thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use super::{Cause, GpioError, Line};
use crate::config::plan::Level;

/// How long one lock is waited for before the line is driven without it. Its holder is then either stuck in the kernel
/// or the panicking thread itself, which would never let go.
const PATIENCE: Duration = Duration::from_millis(20);

static LINES: Registry = Registry::new();

/// Drives every open line of this process to its safe level, now and for good: later attempts to drive one fail with
/// [`GpioError::Ending`]. For a panic hook and for an exit that does not wait; callable from any thread, also from one
/// that panicked while it drove a line. Returns how many lines were driven, and the errors of those that were not.
pub fn drive_all_safe() -> (usize, Vec<GpioError>) {
    LINES.drive_all_safe()
}

/// The lines that are open.
pub(super) struct Registry {
    fenced: AtomicBool,
    lines: Mutex<Vec<Weak<GuardedLine>>>,
}

impl Registry {
    pub(super) const fn new() -> Self {
        Self { fenced: AtomicBool::new(false), lines: Mutex::new(Vec::new()) }
    }

    /// The one that [`drive_all_safe`] drives.
    pub(super) fn global() -> &'static Self {
        &LINES
    }

    /// Takes `line`, which has just been opened at `safe`, into care.
    pub(super) fn guard(&self, line: Box<dyn Line>, safe: Level) -> Result<Arc<GuardedLine>, GpioError> {
        let guarded = Arc::new(GuardedLine { line, safe, fenced: AtomicBool::new(false), level: Mutex::new(safe) });
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(&guarded));
        drop(lines);
        // After the push: either the fence is seen here, or whoever raised it sees the line.
        if self.fenced.load(Ordering::SeqCst) {
            return Err(GpioError::Ending { line: guarded.line.describe() });
        }
        Ok(guarded)
    }

    pub(super) fn drive_all_safe(&self) -> (usize, Vec<GpioError>) {
        self.fenced.store(true, Ordering::SeqCst);
        // Held elsewhere only to add a line, never while one is driven.
        let lines = match lock_patiently(&self.lines) {
            Some(lines) => lines.iter().filter_map(Weak::upgrade).collect::<Vec<_>>(),
            None => Vec::new(),
        };
        let failed: Vec<_> = lines.iter().filter_map(|line| line.make_safe().err()).collect();
        (lines.len() - failed.len(), failed)
    }
}

/// A line in the registry's care. When it is dropped, it is at its safe level.
pub(super) struct GuardedLine {
    line: Box<dyn Line>,
    safe: Level,
    fenced: AtomicBool,
    /// What was driven last; also the turn: whoever drives holds it.
    level: Mutex<Level>,
}

impl GuardedLine {
    /// Drives `level`. `true`: it was another before.
    pub(super) fn set(&self, level: Level, cause: &Cause) -> Result<bool, GpioError> {
        let mut last = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        if self.fenced.load(Ordering::SeqCst) {
            return Err(GpioError::Ending { line: self.describe() });
        }
        self.line.set(level, cause)?;
        // The fence may have been raised by a thread that did not get the turn: its safe level came before ours.
        if self.fenced.load(Ordering::SeqCst) {
            self.line.set(self.safe, &Cause::Emergency)?;
            *last = self.safe;
            return Err(GpioError::Ending { line: self.describe() });
        }
        Ok(std::mem::replace(&mut *last, level) != level)
    }

    /// The level driven last.
    pub(super) fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn describe(&self) -> String {
        self.line.describe()
    }

    /// Drives the safe level, with the lock if it is to be had, else without; nothing else can be driven afterwards.
    fn make_safe(&self) -> Result<(), GpioError> {
        self.fenced.store(true, Ordering::SeqCst);
        let turn = lock_patiently(&self.level);
        self.line.set(self.safe, &Cause::Emergency)?;
        if let Some(mut last) = turn {
            *last = self.safe;
        }
        Ok(())
    }
}

impl Drop for GuardedLine {
    /// For ways out that forgot: an unwinding thread releases no line at its active level.
    fn drop(&mut self) {
        if *self.level.get_mut().unwrap_or_else(PoisonError::into_inner) != self.safe
            && let Err(error) = self.line.set(self.safe, &Cause::Close)
        {
            log::error!("{error}");
        }
    }
}

/// The lock, if it can be had within [`PATIENCE`]; poisoned or not.
pub(super) fn lock_patiently<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers what it was driven to; `block` makes the next calls hang or panic.
    #[derive(Default)]
    struct Probe {
        levels: Mutex<Vec<Level>>,
        entered: AtomicBool,
        hang_on_high: Duration,
        panic_on_high: bool,
    }

    impl Line for Arc<Probe> {
        fn set(&self, level: Level, _: &Cause) -> Result<(), GpioError> {
            if level == Level::High {
                self.entered.store(true, Ordering::SeqCst);
                std::thread::sleep(self.hang_on_high);
            }
            self.levels.lock().unwrap().push(level);
            assert!(!(self.panic_on_high && level == Level::High), "as asked");
            Ok(())
        }
        fn get(&self) -> Result<Level, GpioError> {
            Ok(*self.levels.lock().unwrap().last().unwrap())
        }
        fn describe(&self) -> String {
            "the probe".into()
        }
    }

    fn guarded(registry: &Registry, probe: Probe) -> (Arc<Probe>, Arc<GuardedLine>) {
        let probe = Arc::new(probe);
        let line = registry.guard(Box::new(probe.clone()), Level::Low).unwrap();
        (probe, line)
    }

    #[test]
    fn every_line_is_safe_and_stays_so() {
        let registry = Registry::new();
        let (first, line) = guarded(&registry, Probe::default());
        let (second, other) = guarded(&registry, Probe::default());
        assert_eq!(line.set(Level::High, &Cause::Start), Ok(true));
        assert_eq!(line.set(Level::High, &Cause::Start), Ok(false), "no change");
        assert_eq!(registry.drive_all_safe(), (2, vec![]));
        for probe in [first, second] {
            assert_eq!(probe.get(), Ok(Level::Low));
        }
        for line in [line, other] {
            assert_eq!(line.set(Level::High, &Cause::Start), Err(GpioError::Ending { line: "the probe".into() }));
        }
        let late = registry.guard(Box::new(Arc::new(Probe::default())), Level::Low);
        assert!(late.is_err(), "no line is opened after the fence");
    }

    #[test]
    fn a_line_stuck_in_its_driver_is_driven_without_the_lock_and_ends_safe() {
        let registry = Registry::new();
        let hang_on_high = Duration::from_millis(200);
        let (probe, line) = guarded(&registry, Probe { hang_on_high, ..Probe::default() });
        let owner = std::thread::spawn(move || line.set(Level::High, &Cause::Start));
        while !probe.entered.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let began = Instant::now();
        assert_eq!(registry.drive_all_safe(), (1, vec![]));
        assert!(began.elapsed() < Duration::from_millis(150), "{:?}", began.elapsed());
        assert!(owner.join().unwrap().is_err());
        assert_eq!(*probe.levels.lock().unwrap(), [Level::Low, Level::High, Level::Low]);
    }

    #[test]
    fn a_panic_inside_the_driver_is_no_deadlock() {
        let registry = Registry::new();
        let (probe, line) = guarded(&registry, Probe { panic_on_high: true, ..Probe::default() });
        let theirs = line.clone();
        let panicked = std::thread::spawn(move || theirs.set(Level::High, &Cause::Start)).join();
        assert!(panicked.is_err());
        assert_eq!(registry.drive_all_safe(), (1, vec![]));
        assert_eq!(probe.get(), Ok(Level::Low));
        drop(line);
    }

    #[test]
    fn a_dropped_line_is_safe_first() {
        let registry = Registry::new();
        let (probe, line) = guarded(&registry, Probe::default());
        line.set(Level::High, &Cause::Start).unwrap();
        drop(line);
        assert_eq!(*probe.levels.lock().unwrap(), [Level::High, Level::Low]);
        assert_eq!(registry.drive_all_safe(), (0, vec![]));
    }
}
