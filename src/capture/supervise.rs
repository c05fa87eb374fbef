//! One camera's thread: open, hand frames on, and after any failure close everything and open it again, for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::slot::FrameSlots;
use super::{CaptureError, Next, Source, open};
use crate::backoff::Backoff;
use crate::clock::Monotonic;
use crate::config::plan::{CameraPlan, SourcePlan};
use crate::telemetry::CameraCounters;

/// The longest wait without a look at the stop flag.
const STEP: Duration = Duration::from_millis(100);
const FLOOR: Duration = Duration::from_millis(100);
/// While the device node exists.
const CEILING_PRESENT: Duration = Duration::from_secs(1);
/// While it does not.
const CEILING_ABSENT: Duration = Duration::from_secs(5);
/// A camera that delivers for this long is well: the next failure is answered at once. One that fails after each first
/// frame is not.
const WELL: Duration = Duration::from_secs(5);

/// What a camera is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraState {
    /// The first attempt to open it.
    Opening,
    /// Frames are coming.
    Streaming,
    /// They are not, and why.
    Degraded(String),
    /// A files source is read through.
    Ended,
}

/// Runs camera `index` until `stop`, or until its files are read through.
///
/// `on_state` is called, and one line is logged, at each change of state and not at each attempt.
pub fn run_camera(
    plan: &CameraPlan,
    index: usize,
    slots: &FrameSlots,
    counters: &Arc<CameraCounters>,
    stop: &AtomicBool,
    on_state: &dyn Fn(&CameraState),
) {
    let mut opener = || open(plan, counters);
    Camera { plan, index, slots, counters, stop, on_state, state: None }.run(&mut opener);
}

type Opener<'a> = dyn FnMut() -> Result<Box<dyn Source>, CaptureError> + 'a;

struct Camera<'a> {
    plan: &'a CameraPlan,
    index: usize,
    slots: &'a FrameSlots,
    counters: &'a CameraCounters,
    stop: &'a AtomicBool,
    on_state: &'a dyn Fn(&CameraState),
    state: Option<CameraState>,
}

impl Camera<'_> {
    fn run(mut self, opener: &mut Opener<'_>) {
        let seed = self.plan.name.bytes().fold(u64::from(std::process::id()), |h, b| h.wrapping_mul(31) + u64::from(b));
        let mut backoff = Backoff::new(FLOOR, CEILING_PRESENT, seed);
        self.change(CameraState::Opening);
        while !self.stopping() {
            match self.stream(opener, &mut backoff) {
                Ok(()) => return,
                Err(error) => {
                    self.counters.failed.increment();
                    backoff.set_ceiling(if is_absent(&error) { CEILING_ABSENT } else { CEILING_PRESENT });
                    self.change(CameraState::Degraded(error.to_string()));
                }
            }
            self.sleep(backoff.next_delay());
        }
    }

    /// Opens the source and hands its frames on, until it ends (`Ok`), fails or is silent for too long.
    fn stream(&mut self, opener: &mut Opener<'_>, backoff: &mut Backoff) -> Result<(), CaptureError> {
        let mut source = opener()?;
        self.counters.opened.increment();
        let mut last_frame = Monotonic::now();
        let mut first_frame = None;
        while !self.stopping() {
            match source.next_frame(STEP)? {
                Next::Frame(frame) => {
                    let now = Monotonic::now();
                    if now.since(*first_frame.get_or_insert(now)) >= WELL {
                        backoff.reset();
                    }
                    if !matches!(self.state, Some(CameraState::Streaming)) {
                        log::info!("camera {}: {}", self.plan.name, source.describe());
                        self.change(CameraState::Streaming);
                    }
                    match self.plan.source {
                        SourcePlan::Files { live: false, .. } => {
                            if !self.slots.put_and_wait(self.index, frame) {
                                return Ok(());
                            }
                        }
                        _ => self.slots.put(self.index, frame),
                    }
                    last_frame = Monotonic::now();
                }
                Next::Idle if self.is_silent_since(last_frame) => {
                    return Err(CaptureError::Silent { after: self.plan.timeout });
                }
                Next::Idle => {}
                Next::End => {
                    self.change(CameraState::Ended);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Photos come when they are due, however slowly; everything else must keep delivering.
    fn is_silent_since(&self, last_frame: Monotonic) -> bool {
        let files = matches!(self.plan.source, SourcePlan::Files { .. });
        !files && Monotonic::now().since(last_frame) >= self.plan.timeout
    }

    fn change(&mut self, state: CameraState) {
        // Another reason for the same trouble is not another state.
        let same = self.state.as_ref().is_some_and(|old| std::mem::discriminant(old) == std::mem::discriminant(&state));
        if same {
            log::debug!("camera {}: still {state:?}", self.plan.name);
            return;
        }
        match &state {
            CameraState::Degraded(reason) => log::warn!("camera {}: {reason}; trying again", self.plan.name),
            CameraState::Ended => log::info!("camera {}: read through", self.plan.name),
            CameraState::Opening | CameraState::Streaming => {}
        }
        (self.on_state)(&state);
        self.state = Some(state);
    }

    fn sleep(&self, time: Duration) {
        let until = Monotonic::now() + time;
        while !self.stopping() && Monotonic::now() < until {
            std::thread::sleep(until.since(Monotonic::now()).min(STEP));
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Whether what is to be opened is not there, rather than in trouble.
fn is_absent(error: &CaptureError) -> bool {
    use CaptureError::*;
    matches!(error, NoSuchDevice { .. } | Spawn { .. } | Folder { .. } | NoPhotos { .. } | Unreadable { .. })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Mutex;

    use super::*;
    use crate::capture::{Frame, PixelFormat};
    use crate::config::plan::{Fit, Orientation};

    /// A source that delivers so many frames and then fails, falls silent, or ends.
    struct Scripted(u32, fn() -> Result<Next, CaptureError>);

    impl Source for Scripted {
        fn next_frame(&mut self, _: Duration) -> Result<Next, CaptureError> {
            if self.0 == 0 {
                std::thread::sleep(Duration::from_millis(1));
                return (self.1)();
            }
            self.0 -= 1;
            let (format, data, captured) = (PixelFormat::Grey, vec![0], Monotonic::now());
            let (width, height, stride, sequence, origin) = (1, 1, 1, 0, None);
            Ok(Next::Frame(Frame { format, width, height, stride, data, captured, sequence, origin }))
        }

        fn describe(&self) -> String {
            "scripted".into()
        }
    }

    fn plan() -> CameraPlan {
        CameraPlan {
            name: "c".into(),
            source: SourcePlan::V4l2 { device: "none".into(), format: None },
            size: None,
            fps: None,
            orientation: Orientation::default(),
            fit: Fit::Crop,
            regions: Vec::new(),
            timeout: Duration::from_millis(30),
            stale: Duration::from_secs(1),
            controls: Default::default(),
            motion: None,
        }
    }

    fn lost() -> Result<Next, CaptureError> {
        Err(CaptureError::NoSuchDevice { device: "none".into(), known: Vec::new() })
    }

    /// Runs the supervisor over the scripted openings and gives the states that it told.
    fn check(mut script: Vec<Option<Scripted>>, expected: &[&str]) -> CameraCounters {
        script.reverse();
        let (plan, counters, states) = (plan(), Arc::new(CameraCounters::default()), Mutex::new(Vec::new()));
        let (slots, stop) = (FrameSlots::new(std::slice::from_ref(&counters)), AtomicBool::new(false));
        let on_state = |state: &CameraState| {
            let name = format!("{state:?}");
            states.lock().unwrap().push(name.split('(').next().unwrap().to_owned());
        };
        let camera = Camera {
            plan: &plan,
            index: 0,
            slots: &slots,
            counters: &counters,
            stop: &stop,
            on_state: &on_state,
            state: None,
        };
        camera.run(&mut || match script.pop() {
            Some(Some(source)) => Ok(Box::new(source)),
            Some(None) => Err(CaptureError::NoPhotos { path: PathBuf::new() }),
            None => {
                stop.store(true, Ordering::SeqCst);
                Err(CaptureError::NoPhotos { path: PathBuf::new() })
            }
        });
        assert_eq!(*states.lock().unwrap(), expected);
        drop(slots);
        Arc::into_inner(counters).unwrap()
    }

    #[test]
    fn a_camera_that_fails_is_opened_again_and_tells_each_change_once() {
        let script = vec![None, None, Some(Scripted(2, lost)), None, Some(Scripted(1, lost))];
        let counters = check(script, &["Opening", "Degraded", "Streaming", "Degraded", "Streaming", "Degraded"]);
        assert_eq!((counters.opened.get(), counters.failed.get()), (2, 6));
    }

    #[test]
    fn silence_is_a_failure_and_an_end_is_an_end() {
        check(vec![Some(Scripted(1, || Ok(Next::Idle)))], &["Opening", "Streaming", "Degraded"]);
        let counters = check(vec![Some(Scripted(1, || Ok(Next::End)))], &["Opening", "Streaming", "Ended"]);
        assert_eq!(counters.failed.get(), 0);
    }
}
