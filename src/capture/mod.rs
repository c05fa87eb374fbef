//! Sources of frames: V4L2 devices, child processes, files; and the slot that hands the newest frame on.

pub mod decode;
mod files;
pub mod frame;
mod jpeg;
mod process;
pub mod slot;
pub mod supervise;
pub mod v4l2;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use frame::{Frame, PixelFormat, Rgb};
#[cfg(any(test, fuzzing))]
pub(crate) use process::fuzz_split;

use crate::config::plan::{CameraPlan, SourcePlan};
use crate::telemetry::CameraCounters;

/// What a source gave within the time it was allowed.
#[derive(Debug)]
pub enum Next {
    /// A whole, usable frame.
    Frame(Frame),
    /// Nothing within the time-out. The caller decides when that is too long.
    Idle,
    /// A files source is read through.
    End,
}

/// A camera, a child process or a set of files, opened and delivering.
pub trait Source: Send {
    /// Waits at most `timeout` for a frame. Unusable ones (error flag, short, corrupt) are counted and passed over.
    ///
    /// # Errors
    /// The source has failed and must be dropped and opened again.
    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError>;

    /// What was opened, for the log: device, format, size, rate.
    fn describe(&self) -> String;
}

/// Frames a second of photos that are played as a camera, where none are configured: without a rate, most would be read
/// only to be replaced.
const LIVE_FILES_RATE: f64 = 10.0;

/// Opens the source of a camera.
///
/// # Errors
/// [`CaptureError`]; for a camera that is away, worth another try later.
pub fn open(plan: &CameraPlan, counters: &Arc<CameraCounters>) -> Result<Box<dyn Source>, CaptureError> {
    let counters = counters.clone();
    Ok(match &plan.source {
        SourcePlan::V4l2 { device, format } => Box::new(v4l2::Camera::open(plan, device, *format, counters)?),
        SourcePlan::Process { command, format } => {
            Box::new(process::Process::spawn(command, *format, plan.size, counters)?)
        }
        SourcePlan::Files { path, repeat, live } => {
            let fps = plan.fps.or(live.then_some(LIVE_FILES_RATE));
            Box::new(files::Files::open(path, *repeat, fps, counters)?)
        }
    })
}

/// Why a source could not be opened, or ended.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Nothing answers to the device's name.
    #[error("no camera \"{device}\"; there are: {}; `spotter doctor` shows them", list(known))]
    NoSuchDevice {
        /// The name in the configuration.
        device: String,
        /// The capture devices that exist.
        known: Vec<String>,
    },
    /// The node is there and is no camera that we can use.
    #[error("{device} {problem}")]
    Unusable {
        /// The device node.
        device: String,
        /// What it is, and the remedy.
        problem: String,
    },
    /// A call on the device failed.
    #[error("{device}: {call}: {source}{}", remedy(source))]
    Device {
        /// The device node.
        device: String,
        /// The call that failed.
        call: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// No frame came for too long.
    #[error("no frame for {after:?}; the camera hangs or its cable is loose")]
    Silent {
        /// The configured time-out.
        after: Duration,
    },
    /// The child could not be started.
    #[error("starting \"{command}\": {source}; is the program installed and on the PATH of the service?")]
    Spawn {
        /// The program.
        command: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The child ended, or what it wrote is no stream of frames.
    #[error("\"{command}\" {problem}")]
    Child {
        /// The program.
        command: String,
        /// What happened.
        problem: String,
    },
    /// A folder could not be read.
    #[error("reading the folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A glob is not one.
    #[error("the pattern \"{pattern}\" is not a glob: {problem}")]
    Pattern {
        /// The pattern in the configuration.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Photos are found, and no photo in them.
    #[error("none of the {count} photos of {path} can be read; the log names each once")]
    Unreadable {
        /// The file, folder or glob in the configuration.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// No photo is found.
    #[error("no photo (.jpg, .jpeg, .png) at {path}")]
    NoPhotos {
        /// The file, folder or glob in the configuration.
        path: PathBuf,
    },
}

/// What to try after the kernel's answer.
fn remedy(answer: &std::io::Error) -> &'static str {
    match answer.raw_os_error() {
        Some(libc::EBUSY) => "; another program uses the camera: `fuser -v` on the device names it",
        Some(libc::EACCES | libc::EPERM) => "; the user must be in the group \"video\"",
        Some(libc::ENOSPC) => "; the USB bus has no bandwidth left: a smaller size, MJPG, or another port",
        _ => "",
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
