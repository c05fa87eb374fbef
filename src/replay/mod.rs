//! A recorded folder through decode, preprocess, model and rules, on a clock made from the files' names: a false alarm in the
//! field becomes a test.
//!
//! The rules see what they would have seen then: each frame is decided at its own time, and between two frames holds end, cameras
//! become stale, schedules open and close when they would have, and a camera's motion gate decides which frames are classified. Only the time that the board took for a frame is left out, and
//! every rule counts as armed.

pub mod names;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::capture::{Rgb, decode};
use crate::clock::Monotonic;
use crate::config::Plan;
use crate::config::plan::CameraPlan;
use crate::model::{Model, ModelError};
use crate::motion::{Decision, Gate, Luma, Skip, Wanted};
use crate::preprocess::{InputTensor, Preprocessor};
use crate::rules::{Event, Observation, RuleSet, RuleStatus};

/// Frames at most, so that a folder of a whole disk ends.
const MOST_FRAMES: usize = 1_000_000;

/// One recorded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When it was taken.
    pub time: Timestamp,
    /// The index of its camera in the plan.
    pub camera: usize,
    /// The file.
    pub path: PathBuf,
}

/// Why there is nothing to replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A folder cannot be read.
    #[error("reading {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A name without a time.
    #[error("{}: the name carries no time; rename it to a form such as {}", .0.display(), names::FORMS)]
    NoTime(PathBuf),
    /// Whose frames these are is not told.
    #[error(
        "{}: of which camera? The configuration has {cameras}: sort the frames into folders of these names, or say --camera NAME",
        path.display()
    )]
    WhichCamera {
        /// The folder.
        path: PathBuf,
        /// The cameras of the configuration.
        cameras: String,
    },
    /// No frame is found.
    #[error("{}: no frame (.jpg, .jpeg, .png) in it, or in folders of the cameras' names", .0.display())]
    Nothing(PathBuf),
}

/// Lists the frames under `folder` in the order of their times: those in folders that are called as a camera are that camera's, the
/// others the one of `camera`, or of the only camera.
///
/// # Errors
/// [`ReplayError`]: each names the folder or file, and what to do.
pub fn list(folder: &Path, plan: &Plan, camera: Option<usize>) -> Result<Vec<Recorded>, ReplayError> {
    let only = camera.or((plan.cameras.len() == 1).then_some(0));
    let mut frames = Vec::new();
    for photo in photos(folder)? {
        let index = only.ok_or_else(|| ReplayError::WhichCamera {
            path: folder.to_owned(),
            cameras: plan.cameras.iter().map(|c| &*c.name).collect::<Vec<_>>().join(", "),
        })?;
        frames.push(recorded(photo, index, plan)?);
    }
    for (index, own) in plan.cameras.iter().enumerate().filter(|&(index, _)| camera.is_none_or(|only| only == index)) {
        let folder = folder.join(&*own.name);
        if folder.is_dir() {
            let photos = photos(&folder)?.into_iter().map(|photo| recorded(photo, index, plan));
            frames.extend(photos.collect::<Result<Vec<_>, _>>()?);
        }
    }
    if frames.is_empty() {
        return Err(ReplayError::Nothing(folder.to_owned()));
    }
    frames.sort_by(|a, b| (a.time, a.camera, &a.path).cmp(&(b.time, b.camera, &b.path)));
    Ok(frames)
}

fn photos(folder: &Path) -> Result<Vec<PathBuf>, ReplayError> {
    let failed = |source| ReplayError::Folder { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)?.take(MOST_FRAMES) {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known)) {
            found.push(path);
        }
    }
    Ok(found)
}

fn recorded(path: PathBuf, camera: usize, plan: &Plan) -> Result<Recorded, ReplayError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match names::time_in(&stem, &plan.timezone).filter(|&time| names::since_1970(time).is_some()) {
        Some(time) => Ok(Recorded { time, camera, path }),
        None => Err(ReplayError::NoTime(path)),
    }
}

/// What is told while a recording is replayed.
pub enum Happening<'a> {
    /// Events, and the states of all rules after them.
    Events(&'a [Event], &'a [RuleStatus]),
    /// A view of a frame has been decided on.
    Frame {
        /// The frame.
        frame: &'a Recorded,
        /// What the rules were shown.
        seen: &'a Observation,
        /// The states of all rules after it.
        rules: &'a [RuleStatus],
    },
    /// A frame is not worth an inference.
    Skipped(&'a Recorded, Skip),
    /// A frame, or a region of it, cannot be classified.
    Unusable(&'a Recorded, String),
}

/// The model, the rules, and the clock that the names make.
pub struct Replay {
    model: Model,
    rules: RuleSet,
    cameras: Vec<(CameraPlan, Preprocessor)>,
    gates: Vec<Option<Gate>>,
    rgb: Rgb,
    input: InputTensor,
}

impl Replay {
    /// Makes ready, with every rule armed.
    pub fn new(plan: &Plan, model: Model, mut rules: RuleSet) -> Self {
        let armed: Vec<_> = rules.armed().map(|(rule, _)| rule.clone()).collect();
        for rule in armed {
            // A rule that has seen nothing has no event.
            let _ = rules.arm(&rule, true, Monotonic::default());
        }
        let preprocessor = |camera: &CameraPlan| Preprocessor::new(model.input(), camera.fit, camera.orientation);
        let cameras = plan.cameras.iter().map(|camera| (camera.clone(), preprocessor(camera))).collect();
        let gates = plan.cameras.iter().map(Gate::new).collect();
        Self { model, rules, cameras, gates, rgb: Rgb::default(), input: InputTensor::U8(Vec::new()) }
    }

    /// Replays `frames`, which are in the order of their times, and gives the states at the end.
    ///
    /// # Errors
    /// The network failed.
    pub fn run(
        mut self,
        frames: &[Recorded],
        tell: &mut dyn FnMut(Happening<'_>),
    ) -> Result<Vec<RuleStatus>, ModelError> {
        let mut now = None;
        for (number, frame) in frames.iter().enumerate() {
            let Some(at) = names::since_1970(frame.time).map(Monotonic::from_duration) else { continue };
            self.pass(now, at, tell);
            now = Some(at);
            self.rules.tell_time(Some(frame.time), at);
            self.classify(number as u64, frame, at, tell)?;
        }
        Ok(self.rules.states().collect())
    }

    /// Lets the time between two frames pass.
    fn pass(&mut self, from: Option<Monotonic>, to: Monotonic, tell: &mut dyn FnMut(Happening<'_>)) {
        let Some(mut now) = from else { return };
        // The first tick brings the deadlines up to date with the clock that was told; each one after it lies ahead.
        self.tick(now, tell);
        while let Some(deadline) = self.rules.next_deadline().filter(|&deadline| now < deadline && deadline < to) {
            now = deadline;
            self.tick(now, tell);
        }
    }

    fn tick(&mut self, now: Monotonic, tell: &mut dyn FnMut(Happening<'_>)) {
        let events = self.rules.tick(now);
        self.tell_events(&events, tell);
    }

    fn tell_events(&self, events: &[Event], tell: &mut dyn FnMut(Happening<'_>)) {
        if !events.is_empty() {
            tell(Happening::Events(events, &self.rules.states().collect::<Vec<_>>()));
        }
    }

    /// Why the frame that has been decoded is not worth an inference, if it is not.
    fn skip(&mut self, camera: usize, at: Monotonic) -> Option<Skip> {
        let gate = self.gates[camera].as_mut()?;
        let rule = self.rules.is_engaged(&self.cameras[camera].0.name);
        let wanted = Wanted { rule, ..Wanted::default() };
        if !gate.looks(wanted, at) {
            return Some(Skip::Rate);
        }
        match gate.judge(Some(&Luma::of_rgb(&self.rgb)), wanted, at) {
            Decision::Skip(skip) => Some(skip),
            Decision::Classify(_) => None,
        }
    }

    fn classify(
        &mut self,
        number: u64,
        frame: &Recorded,
        at: Monotonic,
        tell: &mut dyn FnMut(Happening<'_>),
    ) -> Result<(), ModelError> {
        match decode::decode_file(&frame.path) {
            Ok(rgb) => self.rgb = rgb,
            Err(error) => {
                tell(Happening::Unusable(frame, error.to_string()));
                return Ok(());
            }
        }
        if let Some(skip) = self.skip(frame.camera, at) {
            tell(Happening::Skipped(frame, skip));
            let events = self.rules.hear(&self.cameras[frame.camera].0.name, at);
            self.tell_events(&events, tell);
            return Ok(());
        }
        for region in 0..self.cameras[frame.camera].0.regions.len().max(1) {
            let (camera, preprocessor) = &mut self.cameras[frame.camera];
            let region = camera.regions.get(region);
            if let Err(error) = preprocessor.fill(&self.rgb, region.map(|r| &r.area), &mut self.input) {
                tell(Happening::Unusable(frame, error.to_string()));
                continue;
            }
            let scores = self.model.run(&self.input)?;
            let seen = Observation {
                camera: camera.name.clone(),
                region: region.map(|r| r.name.clone()),
                captured: at,
                sequence: number,
                origin: Some(Arc::from(frame.path.as_path())),
                probabilities: self.model.probabilities(&scores).into(),
            };
            let events = self.rules.observe(&seen, at);
            let rules: Vec<_> = self.rules.states().collect();
            tell(Happening::Frame { frame, seen: &seen, rules: &rules });
            self.tell_events(&events, tell);
        }
        Ok(())
    }
}
