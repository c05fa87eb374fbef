//! The hand-over from the camera threads to the one inference thread: one slot a camera.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Frame;
use crate::clock::Monotonic;
use crate::telemetry::CameraCounters;

/// One slot a camera; a live camera's newest frame replaces the one that waits, a file waits its turn.
///
/// Cameras come and go while frames are handed over: each has a number that no other camera gets again, and what is asked of
/// the number of a camera that has gone does nothing.
pub struct FrameSlots {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

/// Reservations of one camera, with the frames that are kept, at most.
const MOST_RESERVED: usize = 64;

/// A frame that waits to be taken.
struct Waiting {
    frame: Frame,
    /// A photo that waits its turn, and is captured only when it is looked at.
    patient: bool,
}

/// One camera's.
struct Slot {
    camera: usize,
    waiting: Option<Waiting>,
    /// The first frame captured from each of these moments on is kept, and not dropped for a newer one.
    reserved: Vec<Monotonic>,
    counters: Arc<CameraCounters>,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Frames that are kept, with their cameras: no more than there were reservations.
    kept: VecDeque<(usize, Frame)>,
    /// The place that is served first next time, so that a fast camera does not starve the others.
    next: usize,
    /// The number of the next camera.
    number: usize,
    closed: bool,
    /// Somebody wants the taker to look at something else.
    nudged: bool,
}

impl FrameSlots {
    /// A slot for each camera, with its counters; their numbers are their places here.
    pub fn new(counters: &[Arc<CameraCounters>]) -> Self {
        let slots = Self { state: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new() };
        counters.iter().for_each(|counters| _ = slots.add(counters.clone()));
        slots
    }

    /// A slot for one more camera; gives its number.
    pub fn add(&self, counters: Arc<CameraCounters>) -> usize {
        let mut state = self.lock();
        let camera = state.number;
        state.number += 1;
        state.slots.push(Slot { camera, waiting: None, reserved: Vec::new(), counters });
        camera
    }

    /// The camera has gone, and what waits of it with it.
    pub fn remove(&self, camera: usize) {
        let mut state = self.lock();
        state.slots.retain(|slot| slot.camera != camera);
        state.kept.retain(|(other, _)| *other != camera);
        drop(state);
        self.emptied.notify_all();
    }

    /// The newest frame wins: one that still waits is dropped and counted.
    pub fn put(&self, camera: usize, frame: Frame) {
        let mut state = self.lock();
        let closed = state.closed;
        let Some(slot) = state.slot(camera).filter(|_| !closed) else { return };
        if slot.redeem(frame.captured) {
            state.kept.push_back((camera, frame));
        } else if slot.waiting.replace(Waiting { frame, patient: false }).is_some() {
            slot.counters.dropped_stale.increment();
        }
        self.filled.notify_one();
    }

    /// Waits until the camera's slot is empty. False when the slots were closed in the meantime, or the camera has gone.
    ///
    /// Such a frame is stamped again when it is taken: a photo has no time of its own, and the time that it waits for the
    /// one before it is no latency.
    pub fn put_and_wait(&self, camera: usize, frame: Frame) -> bool {
        let mut state = self.lock();
        while !state.closed && state.slot(camera).is_some_and(|slot| slot.waiting.is_some()) {
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let closed = state.closed;
        let Some(slot) = state.slot(camera).filter(|_| !closed) else { return false };
        slot.waiting = Some(Waiting { frame, patient: true });
        self.filled.notify_one();
        true
    }

    /// The first frame of `camera` that was captured at `from` or later is taken before all others, and not dropped for a
    /// newer one; also if it waits here already. `false`: too many frames are reserved, and this one is not.
    pub fn reserve(&self, camera: usize, from: Monotonic) -> bool {
        let mut state = self.lock();
        let kept = state.kept.len();
        let has = state.kept.iter().any(|(other, frame)| *other == camera && frame.captured >= from);
        let Some(slot) = state.slot(camera).filter(|slot| slot.reserved.len() + kept < MOST_RESERVED) else {
            return false;
        };
        if has {
            return true;
        }
        let waits = |it: &Waiting| !it.patient && it.frame.captured >= from;
        match slot.waiting.take_if(|waiting| waits(waiting)) {
            Some(waiting) => state.kept.push_back((camera, waiting.frame)),
            None => slot.reserved.push(from),
        }
        true
    }

    /// The next frame and its camera's number, round robin; nothing after `timeout`, after [`Self::nudge`], or at once when closed.
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

impl Slot {
    /// Whether a frame captured at `captured` was reserved; it stands for all reservations up to then.
    fn redeem(&mut self, captured: Monotonic) -> bool {
        let before = self.reserved.len();
        self.reserved.retain(|from| *from > captured);
        self.reserved.len() < before
    }
}

impl State {
    fn slot(&mut self, camera: usize) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.camera == camera)
    }

    fn take(&mut self) -> Option<(usize, Frame)> {
        if let Some(kept) = self.kept.pop_front() {
            return Some(kept);
        }
        let count = self.slots.len();
        let place = (0..count).map(|i| (self.next + i) % count).find(|&i| self.slots[i].waiting.is_some())?;
        self.next = (place + 1) % count;
        let slot = &mut self.slots[place];
        slot.waiting.take().map(|Waiting { mut frame, patient }| {
            if patient {
                frame.captured = Monotonic::now();
            }
            slot.redeem(frame.captured);
            (slot.camera, frame)
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

    /// Frames of `camera` that a newer one has replaced.
    fn stale(slots: &FrameSlots, camera: usize) -> u64 {
        slots.lock().slot(camera).unwrap().counters.dropped_stale.get()
    }

    #[test]
    fn the_newest_frame_wins_and_the_others_are_counted() {
        let slots = slots(1);
        (0..3).for_each(|n| slots.put(0, frame(n)));
        assert_eq!(slots.take(Duration::ZERO).map(|(_, f)| f.sequence), Some(2));
        assert_eq!(stale(&slots, 0), 2);
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
        assert_eq!(stale(&slots, 0), 5);
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
        assert_eq!(stale(&slots, 0), 0);
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
        for (camera, taken) in taken.into_iter().enumerate() {
            assert_eq!(taken + stale(&slots, camera), FRAMES, "camera {camera}");
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
    fn a_camera_that_has_gone_takes_its_frames_along_and_a_new_one_is_another() {
        let slots = slots(2);
        slots.put(0, frame(0));
        assert!(slots.reserve(0, Monotonic::default()), "its frame is kept");
        slots.put(0, frame(1));
        slots.put(1, frame(10));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| slots.put_and_wait(0, frame(2)));
            std::thread::sleep(Duration::from_millis(20));
            slots.remove(0);
            assert!(!waiting.join().unwrap());
        });
        slots.put(0, frame(3));
        assert!(!slots.put_and_wait(0, frame(4)) && !slots.reserve(0, Monotonic::default()));
        let new = slots.add(Arc::default());
        assert_eq!(new, 2);
        slots.put(new, frame(20));
        let mut taken: Vec<_> =
            std::iter::from_fn(|| slots.take(Duration::ZERO)).map(|(i, f)| (i, f.sequence)).collect();
        taken.sort_unstable();
        assert_eq!(taken, [(1, 10), (2, 20)]);
        slots.remove(1);
        slots.remove(2);
        assert!(slots.take(Duration::ZERO).is_none(), "no camera at all");
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
