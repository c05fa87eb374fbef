//! The hand-over from the camera threads to the one inference thread: one slot a camera.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Frame;
use crate::telemetry::CameraCounters;

/// One slot a camera; a live camera's newest frame replaces the one that waits, a file waits its turn.
pub struct FrameSlots {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    counters: Vec<Arc<CameraCounters>>,
}

struct State {
    slots: Vec<Option<Frame>>,
    /// The camera that is served first next time, so that a fast one does not starve the others.
    next: usize,
    closed: bool,
}

impl FrameSlots {
    /// A slot for each camera, with its counters.
    pub fn new(counters: &[Arc<CameraCounters>]) -> Self {
        let state = State { slots: counters.iter().map(|_| None).collect(), next: 0, closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new(), counters: counters.to_vec() }
    }

    /// The newest frame wins: one that still waits is dropped and counted.
    pub fn put(&self, camera: usize, frame: Frame) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if state.slots[camera].replace(frame).is_some() {
            self.counters[camera].dropped_stale.increment();
        }
        self.filled.notify_one();
    }

    /// Waits until the camera's slot is empty. False when the slots were closed in the meantime.
    pub fn put_and_wait(&self, camera: usize, frame: Frame) -> bool {
        let mut state = self.lock();
        while state.slots[camera].is_some() && !state.closed {
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return false;
        }
        state.slots[camera] = Some(frame);
        self.filled.notify_one();
        true
    }

    /// The next frame and its camera's index, round robin; nothing after `timeout`, or at once when closed.
    pub fn take(&self, timeout: Duration) -> Option<(usize, Frame)> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(taken) = state.take() {
                self.emptied.notify_all();
                return Some(taken);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Wakes everybody; nothing is handed over any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one assignment: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Option<(usize, Frame)> {
        let count = self.slots.len();
        let index = (0..count).map(|i| (self.next + i) % count).find(|&i| self.slots[i].is_some())?;
        self.next = (index + 1) % count;
        self.slots[index].take().map(|frame| (index, frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::PixelFormat;
    use crate::clock::Monotonic;

    fn frame(sequence: u64) -> Frame {
        let (format, data) = (PixelFormat::Grey, vec![0]);
        Frame { format, width: 1, height: 1, stride: 1, data, captured: Monotonic::default(), sequence, origin: None }
    }

    fn slots(cameras: usize) -> FrameSlots {
        let counters: Vec<_> = (0..cameras).map(|_| Arc::new(CameraCounters::default())).collect();
        FrameSlots::new(&counters)
    }

    #[test]
    fn the_newest_frame_wins_and_the_others_are_counted() {
        let slots = slots(1);
        (0..3).for_each(|n| slots.put(0, frame(n)));
        assert_eq!(slots.take(Duration::ZERO).map(|(_, f)| f.sequence), Some(2));
        assert_eq!(slots.counters[0].dropped_stale.get(), 2);
        assert!(slots.take(Duration::from_millis(5)).is_none());
    }

    #[test]
    fn a_fast_camera_does_not_starve_a_slow_one() {
        let slots = slots(2);
        slots.put(0, frame(0));
        slots.put(1, frame(10));
        assert_eq!(slots.take(Duration::ZERO).map(|(i, _)| i), Some(0));
        slots.put(0, frame(1));
        assert_eq!(slots.take(Duration::ZERO).map(|(i, _)| i), Some(1));
    }

    #[test]
    fn every_file_is_handed_over_in_order() {
        let slots = slots(1);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..50).for_each(|n| assert!(slots.put_and_wait(0, frame(n)))));
            for expected in 0..50 {
                let taken = slots.take(Duration::from_secs(5)).map(|(_, f)| f.sequence);
                assert_eq!(taken, Some(expected));
            }
        });
        assert_eq!(slots.counters[0].dropped_stale.get(), 0);
    }

    #[test]
    fn closing_wakes_both_sides() {
        let slots = slots(1);
        slots.put(0, frame(0));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| slots.put_and_wait(0, frame(1)));
            std::thread::sleep(Duration::from_millis(20));
            slots.close();
            assert!(!waiting.join().unwrap());
        });
        assert!(slots.take(Duration::from_secs(5)).is_none());
    }
}
