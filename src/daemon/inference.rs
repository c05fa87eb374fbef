//! The inference loop: from a frame to events, one frame after another, on one thread.

use std::sync::Arc;
use std::time::Duration;

use super::recorder::{Recorder, Sighting, push_bounded};
use crate::actions::Picture;
use crate::capture::{Frame, Rgb, decode};
use crate::clock::Monotonic;
use crate::config::plan::{CameraPlan, Orientation, RegionPlan};
use crate::model::{Model, ModelError};
use crate::preprocess::{InputTensor, Preprocessor};
use crate::rules::{Change, Event, Observation, RuleSet};
use crate::telemetry::CameraCounters;

/// Pictures kept for a contact sheet at most.
const PICTURES_KEPT: usize = 240;

/// One camera, as the inference loop sees it.
pub(super) struct View {
    name: Arc<str>,
    regions: Vec<RegionPlan>,
    orientation: Orientation,
    preprocessor: Preprocessor,
    counters: Arc<CameraCounters>,
    complained: bool,
}

/// The model, the rules and the buffers between them.
pub(super) struct Inference {
    model: Model,
    rules: RuleSet,
    cameras: Vec<View>,
    recorder: Arc<Recorder>,
    keep_pictures: bool,
    rgb: Rgb,
    input: InputTensor,
}

impl Inference {
    /// Makes ready to classify the frames of `cameras`, whose counters are in the same order.
    pub(super) fn new(
        model: Model,
        rules: RuleSet,
        cameras: &[CameraPlan],
        counters: &[Arc<CameraCounters>],
        recorder: Arc<Recorder>,
        keep_pictures: bool,
    ) -> Self {
        let cameras = std::iter::zip(cameras, counters)
            .map(|(plan, counters)| View {
                name: plan.name.clone(),
                regions: plan.regions.clone(),
                orientation: plan.orientation,
                preprocessor: Preprocessor::new(model.input(), plan.fit, plan.orientation),
                counters: counters.clone(),
                complained: false,
            })
            .collect();
        let input = InputTensor::U8(Vec::new());
        Self { model, rules, cameras, recorder, keep_pictures, rgb: Rgb::default(), input }
    }

    /// Classifies every view of a frame of camera `index` and gives the events that follow.
    ///
    /// A frame that does not decode, or that a region does not fit, is counted and gives none.
    ///
    /// # Errors
    /// The network failed: the model is broken, and the daemon with it.
    pub(super) fn classify(&mut self, index: usize, frame: &Frame) -> Result<Vec<Event>, ModelError> {
        let Some(camera) = self.cameras.get_mut(index) else { return Ok(Vec::new()) };
        if let Err(error) = decode::decode(frame, &mut self.rgb) {
            camera.counters.dropped_corrupt.increment();
            log::debug!("camera {}: frame {}: {error}", camera.name, frame.sequence);
            return Ok(Vec::new());
        }
        let mut events = Vec::new();
        for view in 0..camera.regions.len().max(1) {
            events.extend(self.classify_view(index, view, frame)?);
        }
        self.recorder.lock().frames += 1;
        Ok(events)
    }

    fn classify_view(&mut self, index: usize, view: usize, frame: &Frame) -> Result<Vec<Event>, ModelError> {
        let camera = &mut self.cameras[index];
        let region = camera.regions.get(view);
        if let Err(error) = camera.preprocessor.fill(&self.rgb, region.map(|r| &r.area), &mut self.input) {
            if !std::mem::replace(&mut camera.complained, true) {
                log::error!("camera {}: {error}", camera.name);
            }
            return Ok(Vec::new());
        }
        let started = Monotonic::now();
        let scores = self.model.run(&self.input)?;
        let inference = Monotonic::now().since(started);
        let observation = Observation {
            camera: camera.name.clone(),
            region: region.map(|r| r.name.clone()),
            captured: frame.captured,
            sequence: frame.sequence,
            origin: frame.origin.clone(),
            probabilities: self.model.probabilities(&scores).into(),
        };
        let events = self.rules.observe(&observation, Monotonic::now());
        self.record(index, view, &observation, &events, inference);
        Ok(events)
    }

    fn record(&mut self, index: usize, view: usize, seen: &Observation, events: &[Event], inference: Duration) {
        let best = |(i, p): (usize, f32), (j, q): (usize, &f32)| if *q > p { (j, *q) } else { (i, p) };
        let (class, probability) = seen.probabilities.iter().enumerate().fold((0, 0.0), best);
        let mut record = self.recorder.lock();
        record.views += 1;
        record.inference.add(inference);
        let camera = &mut self.cameras[index];
        let area = camera.regions.get(view).map(|r| &r.area);
        let keep = self.keep_pictures && record.sightings.len() < PICTURES_KEPT;
        let picture = keep.then(|| camera.preprocessor.view(&self.rgb, area).ok()).flatten();
        let title = match &seen.origin {
            Some(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            None => format!("frame {}", seen.sequence),
        };
        let fired = events.iter().filter(|e| e.change == Change::On).map(|e| e.rule.clone()).collect();
        let sighting = Sighting {
            camera: seen.camera.clone(),
            region: seen.region.clone(),
            title,
            label: Arc::from(self.model.labels().get(class).unwrap_or_default()),
            probability,
            fired,
            picture,
        };
        push_bounded(&mut record.sightings, sighting);
    }

    /// The frame that [`classify`](Self::classify) has just seen, of camera `index`. It is moved out, not copied: the
    /// next frame is decoded into a buffer of its own.
    pub(super) fn take_picture(&mut self, index: usize) -> Option<Picture> {
        let camera = self.cameras.get(index)?;
        let (orientation, regions) = (camera.orientation, camera.regions.clone());
        Some(Picture { rgb: std::mem::take(&mut self.rgb), orientation, regions })
    }

    /// Lets time pass in the rules: holds end, cameras become stale.
    pub(super) fn tick(&mut self, now: Monotonic) -> Vec<Event> {
        self.rules.tick(now)
    }

    /// The rules, for what is asked of them from outside.
    pub(super) fn rules(&mut self) -> &mut RuleSet {
        &mut self.rules
    }

    /// When [`Self::tick`] is wanted next.
    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        self.rules.next_deadline()
    }
}
