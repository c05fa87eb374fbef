//! The camera threads, by name: each has a stop flag of its own, so that one can go while the others watch on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::summary::CameraOutcome;
use super::{DaemonError, Plumbing, start_error, watch};
use crate::actions::CameraStatus;
use crate::capture::supervise::{CameraState, run_camera};
use crate::config::plan::{CameraPlan, SourcePlan};
use crate::telemetry::board::CameraBoard;

/// Every camera of the configuration in force.
#[derive(Default)]
pub(super) struct Cameras {
    running: Vec<Camera>,
    /// Threads of cameras that are no more, on their way out.
    leaving: Vec<JoinHandle<()>>,
}

/// One camera and its thread.
pub(super) struct Camera {
    pub(super) plan: CameraPlan,
    /// Its slot's.
    pub(super) number: usize,
    pub(super) board: Arc<CameraBoard>,
    stop: Arc<AtomicBool>,
    healthy: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Cameras {
    /// These are the cameras from now on. One whose plan is the same goes on; one that has changed is opened again when its old thread has
    /// let go of the device. The board must know their names.
    ///
    /// # Errors
    /// The system gave no thread.
    pub(super) fn reconfigure(&mut self, plans: &[CameraPlan], plumbing: &Plumbing) -> Result<(), DaemonError> {
        self.leaving.retain(|thread| !thread.is_finished());
        let mut old = std::mem::take(&mut self.running);
        for plan in plans {
            let place = old.iter().position(|camera| camera.plan.name == plan.name);
            let camera = match place.map(|place| old.swap_remove(place)) {
                Some(camera) if camera.plan == *plan => Ok(camera),
                Some(camera) => start(plan, Some(camera.leave(plumbing)), plumbing),
                None => start(plan, None, plumbing),
            };
            self.running.push(camera?);
        }
        self.leaving.extend(old.into_iter().map(|camera| camera.leave(plumbing)));
        Ok(())
    }

    /// In the plan's order.
    pub(super) fn all(&self) -> &[Camera] {
        &self.running
    }

    /// The number of the camera of this name.
    pub(super) fn number(&self, name: &str) -> Option<usize> {
        self.running.iter().find(|camera| *camera.plan.name == *name).map(|camera| camera.number)
    }

    /// How many deliver frames.
    pub(super) fn healthy(&self) -> usize {
        self.running.iter().filter(|camera| camera.healthy.load(Ordering::Relaxed)).count()
    }

    /// Every files source is read through.
    pub(super) fn files_are_read(&self) -> bool {
        let reads = |camera: &&Camera| matches!(camera.plan.source, SourcePlan::Files { .. });
        self.running.iter().filter(reads).all(|camera| camera.thread.is_finished())
    }

    /// Ends every thread, and says what became of the frames.
    pub(super) fn end(self) -> Vec<CameraOutcome> {
        self.running.iter().for_each(|camera| camera.stop.store(true, Ordering::SeqCst));
        let mut outcomes = Vec::new();
        for camera in self.running {
            outcomes.push(CameraOutcome { name: camera.plan.name, counters: camera.board.counters.clone() });
            // A panic in it has ended the process already.
            let _ = camera.thread.join();
        }
        self.leaving.into_iter().for_each(|thread| _ = thread.join());
        outcomes
    }
}

impl Camera {
    /// The camera is to end; what waits of it is not looked at any more.
    fn leave(self, plumbing: &Plumbing) -> JoinHandle<()> {
        self.stop.store(true, Ordering::SeqCst);
        plumbing.slots.remove(self.number);
        self.thread
    }
}

/// Starts the thread of a camera; it waits for `previous`, which may hold the same device.
fn start(plan: &CameraPlan, previous: Option<JoinHandle<()>>, plumbing: &Plumbing) -> Result<Camera, DaemonError> {
    let board = plumbing.board.camera(&plan.name).unwrap_or_else(|| {
        // Laid out before; a camera that nobody sees would still work.
        Arc::new(CameraBoard::new(plan.name.clone(), Arc::default()))
    });
    let (stop, healthy) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let number = plumbing.slots.add(board.counters.clone());
    let thread = {
        let (plan, board, stop, healthy) = (plan.clone(), board.clone(), stop.clone(), healthy.clone());
        let Plumbing { slots, dispatcher, board: shared, .. } = plumbing.clone();
        move || {
            // A panic in it has ended the process already.
            let _ = previous.map(JoinHandle::join);
            let on_state = |state: &CameraState| {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                healthy.store(matches!(state, CameraState::Streaming | CameraState::Ended), Ordering::Relaxed);
                watch::camera(&shared, &board, state);
                if let Some(status) = status_of(&plan.name, state) {
                    dispatcher.camera(&status);
                }
            };
            run_camera(&plan, number, &slots, &board.counters, &stop, &on_state);
        }
    };
    let what = format!("thread of camera {}", plan.name);
    let thread = std::thread::Builder::new().name(format!("camera {}", plan.name)).spawn(thread);
    let thread = thread.map_err(|error| start_error(&what, error))?;
    Ok(Camera { plan: plan.clone(), number, board, stop, healthy, thread })
}

/// What the actions are told of a camera's state, if anything.
fn status_of(camera: &Arc<str>, state: &CameraState) -> Option<CameraStatus> {
    let (healthy, reason) = match state {
        CameraState::Streaming => (true, None),
        CameraState::Degraded(reason) => (false, Some(reason.clone())),
        CameraState::Opening | CameraState::Ended => return None,
    };
    Some(CameraStatus { camera: camera.clone(), healthy, reason })
}
