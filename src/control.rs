//! What is asked of the running daemon from outside: by a broker, a GPIO input, the page, a signal.
//!
//! Whoever asks puts a [`Command`] into [`Control`] and is answered at once; the inference loop takes them between two frames. So rules, model and
//! configuration are only ever touched by one thread, and nobody who asks can delay a pin.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::telemetry::Counter;

/// Commands that may wait: more than a person or a conveyor asks for in the time of one inference.
const CAPACITY: usize = 64;

/// One thing that is asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read the configuration again, and apply it if it is good.
    Reload,
    /// Arm or disarm a rule.
    Arm {
        /// The rule's name.
        rule: std::sync::Arc<str>,
        /// What it shall be.
        armed: bool,
    },
}

/// The queue is full: the command was not taken, and is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{CAPACITY} commands already wait; ask again later")]
pub struct Full;

/// The bounded queue from those who ask to the inference loop.
pub struct Control {
    queue: Mutex<VecDeque<Command>>,
    refused: Counter,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Control {
    /// An empty queue. `wake` is called after each command and makes the loop look.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), refused: Counter::default(), wake: Box::new(wake) })
    }

    /// Asks for `command`; never waits.
    ///
    /// # Errors
    /// [`Full`] when too many wait already.
    pub fn send(&self, command: Command) -> Result<(), Full> {
        let mut queue = self.lock();
        if queue.len() >= CAPACITY {
            self.refused.increment();
            return Err(Full);
        }
        queue.push_back(command);
        drop(queue);
        (self.wake)();
        Ok(())
    }

    /// The command that has waited longest.
    pub fn next(&self) -> Option<Command> {
        self.lock().pop_front()
    }

    /// Commands refused because too many waited.
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Command>> {
        // Every change is one push or pop: a panic elsewhere leaves the queue whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Control({} waiting)", self.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn commands_come_in_order_and_what_does_not_fit_is_refused_and_counted() {
        let woken = Arc::new(AtomicU32::new(0));
        let control = Control::new({
            let woken = woken.clone();
            move || _ = woken.fetch_add(1, Ordering::SeqCst)
        });
        assert_eq!(control.next(), None);
        (0..CAPACITY).for_each(|_| assert_eq!(control.send(Command::Reload), Ok(())));
        assert_eq!(control.send(Command::Reload), Err(Full));
        assert_eq!((control.refused(), woken.load(Ordering::SeqCst)), (1, CAPACITY as u32));
        assert_eq!(control.next(), Some(Command::Reload));
        assert_eq!(control.send(Command::Reload), Ok(()));
    }
}
