//! What keeps a board from working for nothing, and from becoming too hot.

use std::path::PathBuf;
use std::time::Duration;

/// `motion` of a camera
#[derive(Clone, Debug, PartialEq)]
pub struct MotionPlan {
    /// A block moves when its mean changes by more levels than this, and by more than it usually does.
    pub threshold: u8,
    /// The part of a region (or of the frame) that must move, 0 to 1.
    pub area: f64,
    /// After this long without one, a frame is classified whatever it shows.
    pub floor: Duration,
    /// How long after the last motion frames still count as moving.
    pub linger: Duration,
    /// Frames a second that are looked at while nothing moves; all when absent.
    pub idle_fps: Option<f64>,
    /// Frames a second that are classified at most while something does; all when absent.
    pub active_fps: Option<f64>,
    /// Where motion does not count.
    pub masks: Vec<MaskPlan>,
}

/// A polygon in the oriented frame.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskPlan {
    /// Left and top as fractions of the frame; at least three.
    pub points: Vec<[f64; 2]>,
}

/// `[device.thermal]`
#[derive(Clone, Debug, PartialEq)]
pub struct ThermalPlan {
    /// The temperature in degrees Celsius at which the board would slow itself down.
    pub limit: f64,
    /// Where temperature and flags are read: `/sys`.
    pub sysfs: PathBuf,
}
