//! The hand-over from the camera threads to the one inference thread: one slot a camera.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Frame;
use crate::clock::Monotonic;
use crate::telemetry::CameraCounters;

/// One slot a camera; a live camera's newest frame replaces the one that waits, a file waits its turn.
pub struct FrameSlots {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    counters: Vec<Arc<CameraCounters>>,
}

/// Reservations of one camera, with the frames that are kept, at most.
const MOST_RESERVED: usize = 64;

/// A frame that waits to be taken.
struct Waiting {
    frame: Frame,
    /// A photo that waits its turn, and is captured only when it is looked at.
    patient: bool,
}

struct State {
    slots: Vec<Option<Waiting>>,
    /// By camera: the first frame captured from each of these moments on is kept, and not dropped for a newer one.
    reserved: Vec<Vec<Monotonic>>,
    /// Frames that are kept, with their cameras: no more than there were reservations.
    kept: VecDeque<(usize, Frame)>,
    /// The camera that is served first next time, so that a fast one does not starve the others.
    next: usize,
    closed: bool,
    /// Somebody wants the taker to look at something else.
    nudged: bool,
}

impl FrameSlots {
    /// A slot for each camera, with its counters.
    pub fn new(counters: &[Arc<CameraCounters>]) -> Self {
        let state = State {
            slots: counters.iter().map(|_| None).collect(),
            reserved: vec![Vec::new(); counters.len()],
            kept: VecDeque::new(),
            next: 0,
            closed: false,
            nudged: false,
        };
        Self { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new(), counters: counters.to_vec() }
    }

    /// The newest frame wins: one that still waits is dropped and counted.
    pub fn put(&self, camera: usize, frame: Frame) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if state.redeem(camera, frame.captured) {
            state.kept.push_back((camera, frame));
            self.filled.notify_one();
            return;
        }
        if state.slots[camera].replace(Waiting { frame, patient: false }).is_some() {
            self.counters[camera].dropped_stale.increment();
        }
        self.filled.notify_one();
    }

    /// Waits until the camera's slot is empty. False when the slots were closed in the meantime.
    ///
    /// Such a frame is stamped again when it is taken: a photo has no time of its own, and the time that it waits for the
    /// one before it is no latency.
    pub fn put_and_wait(&self, camera: usize, frame: Frame) -> bool {
        let mut state = self.lock();
        while state.slots[camera].is_some() && !state.closed {
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return false;
        }
        state.slots[camera] = Some(Waiting { frame, patient: true });
        self.filled.notify_one();
        true
    }

    /// The first frame of `camera` that was captured at `from` or later is taken before all others, and not dropped for a
    /// newer one; also if it waits here already. `false`: too many frames are reserved, and this one is not.
    pub fn reserve(&self, camera: usize, from: Monotonic) -> bool {
        let mut state = self.lock();
        if state.slots.get(camera).is_none() || state.reserved[camera].len() + state.kept.len() >= MOST_RESERVED {
            return false;
        }
        if state.kept.iter().any(|(other, frame)| *other == camera && frame.captured >= from) {
            return true;
        }
        let waits = |it: &Waiting| !it.patient && it.frame.captured >= from;
        match state.slots[camera].take_if(|waiting| waits(waiting)) {
            Some(waiting) => state.kept.push_back((camera, waiting.frame)),
            None => state.reserved[camera].push(from),
        }
        true
    }

    /// The next frame and its camera's index, round robin; nothing after `timeout`, after [`Self::nudge`], or at once when closed.
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
            if std::mem::take(&mut state.nudged) {
                return None;
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Makes the wait of the present or the next [`Self::take`] end without a frame, if none is there.
    pub fn nudge(&self) {
        self.lock().nudged = true;
        self.filled.notify_all();
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
    /// Whether a frame captured at `captured` was reserved; it stands for all reservations up to then.
    fn redeem(&mut self, camera: usize, captured: Monotonic) -> bool {
        let before = self.reserved[camera].len();
        self.reserved[camera].retain(|from| *from > captured);
        self.reserved[camera].len() < before
    }

    fn take(&mut self) -> Option<(usize, Frame)> {
        if let Some(kept) = self.kept.pop_front() {
            return Some(kept);
        }
        let count = self.slots.len();
        let index = (0..count).map(|i| (self.next + i) % count).find(|&i| self.slots[i].is_some())?;
        self.next = (index + 1) % count;
        self.slots[index].take().map(|Waiting { mut frame, patient }| {
            if patient {
                frame.captured = Monotonic::now();
            }
            self.redeem(index, frame.captured);
            (index, frame)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::PixelFormat;

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
    fn a_nudge_ends_one_wait_and_takes_no_frame_away() {
        let slots = slots(1);
        slots.nudge();
        assert!(slots.take(Duration::from_secs(60)).is_none());
        slots.nudge();
        slots.put(0, frame(7));
        assert_eq!(slots.take(Duration::ZERO).map(|(_, f)| f.sequence), Some(7));
    }

    #[test]
    fn a_reserved_frame_is_not_dropped_for_a_newer_one() {
        let at = |ms| Monotonic::default() + Duration::from_millis(ms);
        let stamped = |n: u64| Frame { captured: at(10 * n), ..frame(n) };
        let slots = slots(2);
        assert!(slots.reserve(0, at(15)) && slots.reserve(0, at(35)) && slots.reserve(0, at(38)));
        slots.put(1, stamped(1));
        (0..8).for_each(|n| slots.put(0, stamped(n)));
        // 2 is the first from 15 ms on, 4 from 35 and 38; then what waits by turns.
        let taken: Vec<_> = std::iter::from_fn(|| slots.take(Duration::ZERO)).map(|(i, f)| (i, f.sequence)).collect();
        assert_eq!(taken, [(0, 2), (0, 4), (0, 7), (1, 1)]);
        assert_eq!(slots.counters[0].dropped_stale.get(), 5);
        // One that waits already, and one that is too early.
        slots.put(0, stamped(9));
        assert!(slots.reserve(0, at(90)) && slots.reserve(0, at(95)));
        (10..13).for_each(|n| slots.put(0, stamped(n)));
        let taken: Vec<_> = std::iter::from_fn(|| slots.take(Duration::ZERO)).map(|(_, f)| f.sequence).collect();
        assert_eq!(taken, [9, 10, 12]);
        assert!((0..MOST_RESERVED).all(|_| slots.reserve(1, at(999))) && !slots.reserve(1, at(999)), "bounded");
        assert!(!slots.reserve(7, at(0)), "no such camera");
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
    fn a_live_frame_keeps_its_stamp_and_a_photo_gets_one_when_it_is_taken() {
        let (slots, before) = (slots(1), Monotonic::now());
        slots.put(0, frame(0));
        assert_eq!(slots.take(Duration::ZERO).map(|(_, f)| f.captured), Some(Monotonic::default()));
        assert!(slots.put_and_wait(0, frame(1)));
        let (_, photo) = slots.take(Duration::ZERO).unwrap();
        assert!(photo.captured >= before && photo.captured <= Monotonic::now());
    }

    #[test]
    fn many_cameras_and_one_taker_lose_nothing_uncounted() {
        const CAMERAS: usize = 4;
        const FRAMES: u64 = 2000;
        let slots = slots(CAMERAS);
        let mut last = [None; CAMERAS];
        let mut taken = [0; CAMERAS];
        std::thread::scope(|scope| {
            let slots = &slots;
            let cameras: Vec<_> =
                (0..CAMERAS).map(|c| scope.spawn(move || (0..FRAMES).for_each(|n| slots.put(c, frame(n))))).collect();
            while !cameras.iter().all(|c| c.is_finished()) || last.iter().any(|&l| l != Some(FRAMES - 1)) {
                let Some((camera, frame)) = slots.take(Duration::from_millis(100)) else { continue };
                assert!(last[camera] < Some(frame.sequence), "{camera}: {} after {:?}", frame.sequence, last[camera]);
                (last[camera], taken[camera]) = (Some(frame.sequence), taken[camera] + 1);
            }
        });
        for (camera, counters) in slots.counters.iter().enumerate() {
            assert_eq!(taken[camera] + counters.dropped_stale.get(), FRAMES, "camera {camera}");
        }
    }

    #[test]
    fn a_panic_of_another_thread_does_not_poison_the_slots() {
        let slots = slots(1);
        std::thread::scope(|scope| {
            let dead = scope.spawn(|| {
                crate::panics::contain(|| {
                    let _held = slots.state.lock().unwrap();
                    panic!("while it holds the lock");
                })
            });
            assert!(dead.join().unwrap().is_err());
        });
        assert!(slots.state.is_poisoned());
        slots.put(0, frame(3));
        assert_eq!(slots.take(Duration::ZERO).map(|(_, f)| f.sequence), Some(3));
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
