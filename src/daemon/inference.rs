//! The inference loop: from a frame to events, one frame after another, on one thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cameras::Camera;
use super::heat::Heat;
use super::recorder::{Recorder, Sighting};
use super::watch::Watcher;
use crate::actions::{Picture, Report};
use crate::capture::{Frame, Rgb, decode};
use crate::clock::Monotonic;
use crate::config::plan::{Orientation, RegionPlan, SourcePlan, ThermalPlan};
use crate::model::{Model, ModelError};
use crate::motion::{Decision, Gate, Luma, Skip, Wanted};
use crate::preprocess::{InputTensor, Preprocessor};
use crate::rules::adopt::Common;
use crate::rules::station::{Request, StationSet};
use crate::rules::{Change, Event, Observation, RuleSet};
use crate::telemetry::board::CameraBoard;

/// Pictures kept for a contact sheet at most.
const PICTURES_KEPT: usize = 240;

/// One camera, as the inference loop sees it.
struct View {
    /// Its frames' number.
    number: usize,
    name: Arc<str>,
    regions: Vec<RegionPlan>,
    orientation: Orientation,
    preprocessor: Preprocessor,
    board: Arc<CameraBoard>,
    /// `None`: every frame is worth an inference.
    gate: Option<Gate>,
    /// Every photo is classified, however hot it is.
    patient: bool,
    complained: bool,
}

impl View {
    fn new(camera: &Camera, model: &Model, gate: Option<Gate>) -> Self {
        let plan = &camera.plan;
        Self {
            number: camera.number,
            name: plan.name.clone(),
            regions: plan.regions.clone(),
            orientation: plan.orientation,
            preprocessor: Preprocessor::new(model.input(), plan.fit, plan.orientation),
            board: camera.board.clone(),
            gate,
            patient: matches!(plan.source, SourcePlan::Files { live: false, .. }),
            complained: false,
        }
    }
}

/// The model, the rules and the buffers between them.
pub(super) struct Inference {
    model: Model,
    rules: RuleSet,
    stations: StationSet,
    cameras: Vec<View>,
    recorder: Arc<Recorder>,
    watcher: Watcher,
    heat: Heat,
    keep_pictures: bool,
    rgb: Rgb,
    input: InputTensor,
}

impl Inference {
    /// Makes ready to classify, once it [has cameras](Self::set_cameras).
    pub(super) fn new(
        model: Model,
        (rules, stations): (RuleSet, StationSet),
        thermal: Option<ThermalPlan>,
        recorder: Arc<Recorder>,
        watcher: Watcher,
        keep_pictures: bool,
    ) -> Self {
        let (cameras, rgb, input) = (Vec::new(), Rgb::default(), InputTensor::U8(Vec::new()));
        let heat = Heat::new(thermal);
        Self { model, rules, stations, cameras, recorder, watcher, heat, keep_pictures, rgb, input }
    }

    /// These are the cameras, and this model's input is what their frames are made into, from now on.
    pub(super) fn set_cameras(&mut self, cameras: &[Camera]) {
        let mut old = std::mem::take(&mut self.cameras);
        for camera in cameras {
            // One that goes on has learnt what does not move.
            let known = old.iter_mut().find(|known| known.number == camera.number).map(|known| known.gate.take());
            let gate = known.unwrap_or_else(|| Gate::new(&camera.plan));
            self.cameras.push(View::new(camera, &self.model, gate));
        }
        self.watcher.tidy();
    }

    /// These are the rules and stations from now on, and the model, if there is a new one; cameras are to be set next. What rules and
    /// stations have in common with the present ones goes on; gives the events of those that do not.
    pub(super) fn take_over(
        &mut self,
        model: Option<Model>,
        (mut rules, mut stations): (RuleSet, StationSet),
        common: &Common<'_>,
    ) -> Vec<Event> {
        let now = Monotonic::now();
        if let Some(model) = model {
            self.model = model;
            self.input = InputTensor::U8(Vec::new());
        }
        std::mem::swap(&mut self.rules, &mut rules);
        std::mem::swap(&mut self.stations, &mut stations);
        let mut events = self.stations.take_over(stations, common, now);
        events.extend(self.rules.take_over(rules, common, now));
        events
    }

    /// The model in use.
    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// Classifies every view of a frame of the camera `number`, if it is worth it, and gives the events that follow.
    ///
    /// A frame that does not decode, or that a region does not fit, is counted and gives none.
    ///
    /// # Errors
    /// The network failed: the model is broken, and the daemon with it.
    pub(super) fn classify(&mut self, number: usize, frame: &Frame) -> Result<Vec<Event>, ModelError> {
        let Some(index) = self.index(number) else { return Ok(Vec::new()) };
        let wanted = self.wanted(index, frame);
        // A raw frame is judged as it is, and not decoded for nothing.
        let raw = Luma::of_frame(frame);
        if let Some(skip) = self.skip_before_decoding(index, frame, raw.as_ref(), wanted) {
            return Ok(self.skipped(index, frame, skip));
        }
        let camera = &mut self.cameras[index];
        let started = Monotonic::now();
        if let Err(error) = decode::decode(frame, &mut self.rgb) {
            camera.board.counters.dropped_corrupt.increment();
            log::debug!("camera {}: frame {}: {error}", camera.name, frame.sequence);
            return Ok(Vec::new());
        }
        self.watcher.board().stages.decode.add(Monotonic::now().since(started));
        if let (None, Some(gate)) = (&raw, &mut camera.gate)
            && let Decision::Skip(skip) = gate.judge(Some(&Luma::of_rgb(&self.rgb)), wanted, frame.captured)
        {
            return Ok(self.skipped(index, frame, skip));
        }
        let views = camera.regions.len().max(1);
        self.watcher.picture(&camera.board, camera.orientation, &self.rgb, frame.sequence);
        let mut events = Vec::new();
        let began = Monotonic::now();
        for view in 0..views {
            events.extend(self.classify_view(index, view, frame)?);
        }
        let ended = Monotonic::now();
        self.heat.worked(ended.since(began), ended);
        self.note_activity(index, frame);
        self.recorder.lock().frames += 1;
        self.cameras[index].board.note_classified(frame.captured);
        Ok(events)
    }

    fn index(&self, number: usize) -> Option<usize> {
        self.cameras.iter().position(|camera| camera.number == number)
    }

    /// Who wants this frame, whatever it shows.
    fn wanted(&self, index: usize, frame: &Frame) -> Wanted {
        let camera = &self.cameras[index];
        Wanted {
            asked: self.stations.is_asked(&camera.name, frame.captured) || camera.board.is_picture_wanted(),
            rule: self.rules.is_engaged(&camera.name),
            resting: !camera.patient && self.heat.rests(Monotonic::now()),
        }
    }

    fn skip_before_decoding(
        &mut self,
        index: usize,
        frame: &Frame,
        raw: Option<&Luma<'_>>,
        wanted: Wanted,
    ) -> Option<Skip> {
        let Some(gate) = &mut self.cameras[index].gate else {
            return (wanted.resting && !wanted.asked).then_some(Skip::Heat);
        };
        if !gate.looks(wanted, frame.captured) {
            return Some(Skip::Rate);
        }
        match gate.judge(Some(raw?), wanted, frame.captured) {
            Decision::Skip(skip) => Some(skip),
            Decision::Classify(_) => None,
        }
    }

    /// A frame that is not classified: its camera is there all the same.
    fn skipped(&mut self, index: usize, frame: &Frame, skip: Skip) -> Vec<Event> {
        Watcher::skipped(&self.cameras[index].board, skip, frame.captured);
        self.note_activity(index, frame);
        self.rules.hear(&self.cameras[index].name, Monotonic::now())
    }

    fn note_activity(&self, index: usize, frame: &Frame) {
        let camera = &self.cameras[index];
        if let Some(gate) = &camera.gate {
            self.watcher.active(&camera.board, gate.is_active(frame.captured));
        }
    }

    /// Looks at the board's temperature, not too often, and does less if it is high.
    pub(super) fn mind_the_heat(&mut self, now: Monotonic) {
        if let Some(step) = self.heat.look(now) {
            self.watcher.board().thermal_step.store(step, Ordering::Relaxed);
            self.watcher.board().touch();
        }
    }

    /// How the device is, for those who are told now and then.
    pub(super) fn report(&mut self, now: Monotonic) -> Report {
        self.watcher.report(self.model.labels(), now)
    }

    /// What the status line says of the heat.
    pub(super) fn heat(&self) -> String {
        self.heat.describe()
    }

    fn classify_view(&mut self, index: usize, view: usize, frame: &Frame) -> Result<Vec<Event>, ModelError> {
        let camera = &mut self.cameras[index];
        let region = camera.regions.get(view);
        let began = Monotonic::now();
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
        let decided = Monotonic::now();
        // A part that waits at the gate before a rule.
        let mut events = self.stations.observe(&observation, decided);
        events.extend(self.rules.observe(&observation, decided));
        let stages = &self.watcher.board().stages;
        stages.preprocess.add(started.since(began));
        stages.inference.add(inference);
        stages.capture_to_decision.add(decided.since(frame.captured));
        self.watcher.view(&observation, self.model.labels(), &self.rules);
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
        record.saw(sighting);
    }

    /// The frame that [`classify`](Self::classify) has just seen, of the camera `number`. It is moved out, not copied: the
    /// next frame is decoded into a buffer of its own.
    pub(super) fn take_picture(&mut self, number: usize) -> Option<Picture> {
        let camera = &self.cameras[self.index(number)?];
        let (orientation, regions) = (camera.orientation, camera.regions.clone());
        Some(Picture { rgb: std::mem::take(&mut self.rgb), orientation, regions })
    }

    /// Lets time pass in the rules: holds end, cameras become stale.
    pub(super) fn tick(&mut self, now: Monotonic) -> Vec<Event> {
        let mut events = self.stations.tick(now);
        events.extend(self.rules.tick(now));
        events
    }

    /// The rules, for what is asked of them from outside.
    pub(super) fn rules(&mut self) -> &mut RuleSet {
        &mut self.rules
    }

    /// When [`Self::tick`] is wanted next.
    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        self.rules.next_deadline().into_iter().chain(self.stations.next_deadline()).min()
    }

    /// Asks a station for a verdict; one follows at once if too many are asked for.
    pub(super) fn ask(&mut self, station: &str, request: Request) -> Vec<Event> {
        self.stations.ask(station, request, Monotonic::now()).unwrap_or_else(|| {
            log::warn!("a verdict was asked of the station {station:?}, and there is none of that name");
            Vec::new()
        })
    }
}
