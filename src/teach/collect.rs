//! Photos from a camera while it runs: one look every so often, until there are enough.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::gallery::{Gallery, Offered};
use crate::capture::slot::FrameSlots;
use crate::capture::supervise::{CameraState, run_camera};
use crate::capture::{Frame, Rgb, decode};
use crate::clock::Monotonic;
use crate::config::plan::{Area, CameraPlan, SourcePlan};
use crate::preprocess::{PreprocessError, area_in_frame, oriented};
use crate::telemetry::CameraCounters;

/// The longest wait without a look at the stop flag.
const STEP: Duration = Duration::from_millis(50);
/// Live cameras adjust exposure and white balance over their first frames.
const SETTLE: usize = 5;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// From where.
    pub camera: &'a CameraPlan,
    /// A part of the oriented frame; the whole when absent.
    pub area: Option<&'a Area>,
    /// Photos.
    pub count: usize,
    /// From one look to the next at least.
    pub every: Duration,
    /// Without a usable frame at most.
    pub patience: Duration,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Photos kept.
    pub kept: usize,
    /// Pictures that were nearly the same as a photo.
    pub alike: usize,
    /// Frames that were no picture.
    pub unreadable: usize,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There are enough.
    Enough,
    /// A files source is read through.
    Source,
    /// Somebody set the stop flag.
    Stopped,
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The camera gave nothing.
    #[error("camera {camera}: no usable frame for {patience:?}{reason}")]
    Silent {
        /// Which.
        camera: String,
        /// How long it was waited for.
        patience: Duration,
        /// What it said last, after ": "; or nothing.
        reason: String,
    },
    /// The region is not in the frame.
    #[error("camera {camera}: {source}")]
    Region {
        /// Which.
        camera: String,
        /// Why.
        source: PreprocessError,
    },
    /// A photo could not be written.
    #[error("{0}")]
    Write(std::io::Error),
    /// The camera's thread could not be started.
    #[error("starting the camera's thread: {0}")]
    Thread(std::io::Error),
}

/// Collects photos into `gallery` until there are enough, the source ends or `stop` is set; `look` hears of each look.
///
/// A camera that goes away is opened again, as the daemon does it.
///
/// # Errors
/// [`CollectError`]; the photos that were kept stay.
pub fn collect(
    wanted: &Wanted<'_>,
    gallery: &mut Gallery,
    stop: &AtomicBool,
    look: &mut dyn FnMut(&Tally, Option<&Offered>),
) -> (Tally, Result<End, CollectError>) {
    let counters = Arc::new(CameraCounters::default());
    let slots = FrameSlots::new(std::slice::from_ref(&counters));
    let (done, trouble) = (AtomicBool::new(false), Mutex::new(None));
    let on_state = |state: &CameraState| {
        let reason = if let CameraState::Degraded(reason) = state { Some(reason.clone()) } else { None };
        *trouble.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    };
    let mut tally = Tally::default();
    let end = std::thread::scope(|scope| {
        let camera = || {
            let on_state: &dyn Fn(&CameraState) = &on_state;
            run_camera(wanted.camera, 0, &slots, &counters, &done, on_state);
        };
        let thread = std::thread::Builder::new().name("camera".into()).spawn_scoped(scope, camera);
        let thread = thread.map_err(CollectError::Thread)?;
        let mut session = Session { wanted, gallery, tally: &mut tally, picture: Rgb::default(), settled: 0 };
        let ended = session.run(&slots, stop, &|| thread.is_finished(), look);
        done.store(true, Ordering::SeqCst);
        slots.close();
        ended
    });
    let end = end.map_err(|error| match error {
        CollectError::Silent { camera, patience, .. } => {
            let reason = trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
            CollectError::Silent { camera, patience, reason: reason.map(|r| format!(": {r}")).unwrap_or_default() }
        }
        other => other,
    });
    (tally, end)
}

struct Session<'a> {
    wanted: &'a Wanted<'a>,
    gallery: &'a mut Gallery,
    tally: &'a mut Tally,
    picture: Rgb,
    /// Frames passed over while a live camera settles.
    settled: usize,
}

impl Session<'_> {
    fn run(
        &mut self,
        slots: &FrameSlots,
        stop: &AtomicBool,
        finished: &dyn Fn() -> bool,
        look: &mut dyn FnMut(&Tally, Option<&Offered>),
    ) -> Result<End, CollectError> {
        let stored = matches!(self.wanted.camera.source, SourcePlan::Files { .. });
        let interval =
            self.wanted.camera.fps.map_or(Duration::ZERO, |fps| Duration::from_secs_f64(1.0 / fps.max(1e-6)));
        let patience = self.wanted.patience.max(self.wanted.every * 2).max(interval * 2);
        let (mut due, mut last) = (Monotonic::now(), Monotonic::now());
        while self.tally.kept < self.wanted.count {
            if stop.load(Ordering::SeqCst) {
                return Ok(End::Stopped);
            }
            // a photo waits its turn in the slot; a live frame is taken and passed over, so that the next one is new
            if stored && Monotonic::now() < due {
                std::thread::sleep(due.since(Monotonic::now()).min(STEP));
                continue;
            }
            // asked before the slot is: what comes last is not lost
            let over = finished();
            let Some((_, frame)) = slots.take(STEP) else {
                if over {
                    return Ok(End::Source);
                }
                if Monotonic::now().since(last) > patience {
                    let camera = self.wanted.camera.name.to_string();
                    return Err(CollectError::Silent { camera, patience, reason: String::new() });
                }
                continue;
            };
            if !stored && (self.settling() || Monotonic::now() < due) {
                last = Monotonic::now();
                continue;
            }
            due = Monotonic::now() + self.wanted.every;
            let offered = self.look(&frame)?;
            if offered.is_some() {
                last = Monotonic::now();
            }
            look(self.tally, offered.as_ref());
        }
        Ok(End::Enough)
    }

    fn settling(&mut self) -> bool {
        self.settled += 1;
        self.settled <= SETTLE
    }

    fn look(&mut self, frame: &Frame) -> Result<Option<Offered>, CollectError> {
        if let Err(error) = decode::decode(frame, &mut self.picture) {
            self.tally.unreadable += 1;
            log::debug!("camera {}: {error}", self.wanted.camera.name);
            return Ok(None);
        }
        let cut = cut(&self.picture, self.wanted).map_err(|source| {
            let camera = self.wanted.camera.name.to_string();
            CollectError::Region { camera, source }
        })?;
        let offered = self.gallery.offer(&cut).map_err(CollectError::Write)?;
        match offered {
            Offered::Kept(_) => self.tally.kept += 1,
            Offered::Alike(_) => self.tally.alike += 1,
        }
        Ok(Some(offered))
    }
}

/// The wanted part of a frame, upright: what the model will be shown, in the camera's own resolution.
fn cut(frame: &Rgb, wanted: &Wanted<'_>) -> Result<Rgb, PreprocessError> {
    let upright = oriented(frame, wanted.camera.orientation);
    let rect = area_in_frame(wanted.area, upright.width, upright.height)?;
    let row = |y: u32| {
        let start = (y * upright.width + rect.left) as usize * 3;
        &upright.data[start..start + rect.width as usize * 3]
    };
    let data = (rect.top..rect.top + rect.height).flat_map(row).copied().collect();
    Ok(Rgb { width: rect.width, height: rect.height, data })
}
