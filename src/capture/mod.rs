//! Sources of frames: V4L2 devices, child processes, files; and the slot that hands the newest frame on.

pub mod frame;

use std::time::Duration;

pub use frame::{Frame, PixelFormat, Rgb};

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

/// Why a source could not be opened, or ended.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {}
