//! The frame that decided, on its way to an action that keeps pictures.

use crate::capture::Rgb;
use crate::config::plan::{Orientation, RegionPlan};
use crate::preprocess::{Rect, area_in_frame, oriented};

/// A decoded frame as it was captured. It is handed over after every other action has been told, and is turned and
/// drawn on by the thread that wants it: no pin waits for a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// As the camera delivered it.
    pub rgb: Rgb,
    /// How the camera is mounted.
    pub orientation: Orientation,
    /// The camera's regions, in the oriented frame.
    pub regions: Vec<RegionPlan>,
}

impl Picture {
    /// The upright frame, and where the region of this name lies in it.
    pub(super) fn upright(&self, region: Option<&str>) -> (Rgb, Option<Rect>) {
        let upright = oriented(&self.rgb, self.orientation);
        let region = region.and_then(|name| self.regions.iter().find(|region| *region.name == *name));
        let rect = region.and_then(|region| area_in_frame(Some(&region.area), upright.width, upright.height).ok());
        (upright, rect)
    }
}
