//! Spend nothing on nothing: which frames of a fixed camera are worth an inference.
//!
//! A [`Gate`] looks at every frame for a fraction of a millisecond, as means of blocks of 16 x 16 pixels ([`luma`]), and compares
//! them with what the scene usually looks like ([`background`]). The zones that count are the camera's regions without its
//! masks ([`zones`]). What follows from motion or stillness over time is decided by a small state machine ([`pace`]).
//!
//! It errs on the side of classifying. These are never held back: the first frame, a frame that somebody asked for, one frame
//! after each motion or change of scene, one every `floor`. While a rule is on, or has a hit in its window, its camera's frames
//! count as moving ones, however still they are.

pub mod background;
pub mod luma;
pub mod pace;
pub mod zones;

use background::{Background, Change};
pub use luma::Luma;
pub use pace::{Decision, Reason, Skip, Wanted};
use pace::{Pace, Sight};
use zones::Zones;

use crate::clock::Monotonic;
use crate::config::plan::{CameraPlan, MotionPlan};

/// Decides frame by frame for one camera.
#[derive(Debug)]
pub struct Gate {
    camera: CameraPlan,
    plan: MotionPlan,
    /// For the size of the last frame.
    zones: Option<Zones>,
    background: Background,
    pace: Pace,
    means: Vec<u16>,
}

impl Gate {
    /// A gate that has seen nothing; `None` for a camera whose every frame is to be classified.
    pub fn new(camera: &CameraPlan) -> Option<Self> {
        let plan = camera.motion.clone()?;
        let (background, means) = (Background::new(plan.threshold), Vec::new());
        Some(Self { camera: camera.clone(), plan, zones: None, background, pace: Pace::default(), means })
    }

    /// Whether a frame captured at `now` is to be looked at: not if nothing moves, nobody wants it, and the last look was less than
    /// `idle_fps` says ago. To be asked before a frame is decoded.
    pub fn looks(&mut self, wanted: Wanted, now: Monotonic) -> bool {
        self.pace.looks(&self.plan, wanted, now)
    }

    /// What is to become of the frame that `luma` is of; without one (a format that cannot be looked at) it is classified.
    pub fn judge(&mut self, luma: Option<&Luma<'_>>, wanted: Wanted, now: Monotonic) -> Decision {
        let sight = luma.map_or(Sight::Motion, |luma| self.sight(luma, now));
        self.pace.decide(&self.plan, sight, wanted, now)
    }

    /// Whether something moves, or has moved a moment ago.
    pub fn is_active(&self, now: Monotonic) -> bool {
        self.pace.is_active(&self.plan, now)
    }

    fn sight(&mut self, luma: &Luma<'_>, now: Monotonic) -> Sight {
        luma.block_means(&mut self.means);
        if self.means.is_empty() {
            return Sight::Motion;
        }
        let size = luma.size();
        if self.zones.as_ref().is_none_or(|zones| zones.size() != size) {
            let zones = Zones::new(&self.camera, &self.plan.masks, size);
            for name in zones.blind() {
                log::warn!(
                    "camera {}: nothing of {name} is left to look for motion in; it is classified every {:?} only",
                    self.camera.name,
                    self.plan.floor
                );
            }
            self.background.forget();
            self.zones = Some(zones);
        }
        let Some(zones) = &self.zones else { return Sight::Motion };
        match self.background.see(&self.means, zones.watched(), now) {
            Change::NewScene => Sight::NewScene,
            Change::Moving(moving) if zones.any_moves(moving, self.plan.area) => Sight::Motion,
            Change::Moving(_) => Sight::Still,
        }
    }
}

#[cfg(test)]
mod tests;
