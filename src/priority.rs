//! Who goes first where several threads want one core: pins, then what watches, then what is told of it, and last whoever looks on.
//!
//! Niceness is a thread's own on Linux (setpriority(2), NOTES), and whatever a thread starts inherits it. It needs no privilege downwards;
//! upwards the kernel grants it within RLIMIT_NICE (`LimitNICE=` in the unit) and refuses it elsewhere: all else is behind the pins all the same.

use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// The place of a thread. Cameras and inference, which have none of these, stand between the first and the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Drives a line: works for microseconds an event, and is waited for by a machine.
    Pin,
    /// May be some milliseconds late: a message, a snapshot's JPEG, a hook's program.
    Message,
    /// May be later still: the page, which people look at.
    Onlooker,
}

impl Priority {
    /// Puts the calling thread in its place, as far as the system lets it.
    pub(crate) fn take(self) {
        // Refused for want of RLIMIT_NICE, upwards only: then everything else still stands behind.
        let _ = setpriority_process(Some(gettid()), self.niceness());
    }

    fn niceness(self) -> i32 {
        match self {
            Self::Pin => -10,
            Self::Message => 5,
            Self::Onlooker => 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn a_place_is_of_one_thread_and_pins_come_before_messages_before_onlookers() {
        let of = |priority: Option<Priority>| {
            let thread = std::thread::spawn(move || {
                priority.inspect(|priority| priority.take());
                getpriority_process(Some(gettid())).unwrap()
            });
            thread.join().unwrap()
        };
        let usual = of(None);
        // The first two may not be told apart by an unprivileged user.
        assert!(of(Some(Priority::Pin)) <= usual);
        assert!(usual < of(Some(Priority::Message)));
        assert!(of(Some(Priority::Message)) < of(Some(Priority::Onlooker)));
        assert_eq!(of(None), usual, "the others stay where they were");
    }
}
