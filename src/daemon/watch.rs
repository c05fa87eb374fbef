//! What the daemon's threads write on the [`Board`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::dispatch::Acting;
use super::recorder::Recorder;
use crate::actions::{CameraReport, Edge, Observer, Report};
use crate::capture::Rgb;
use crate::capture::supervise::CameraState;
use crate::clock::Monotonic;
use crate::config::Plan;
use crate::config::plan::{ActionKind, Level, Orientation};
use crate::model::{Labels, Model};
use crate::motion::Skip;
use crate::preprocess;
use crate::rules::{self, Change, Event, Observation, OffReason, RuleSet, RuleStatus};
use crate::telemetry::board::{
    ActionFacts, Board, CameraBoard, CameraFacts, EdgeLine, EventLine, ModelFacts, Picture, RuleView, Top,
};
use crate::telemetry::thermal;

/// Frames of each rule that a viewer is shown.
const DOTS: usize = 60;
/// Classes of each view that a viewer is shown.
const TOP: usize = 5;
/// A picture's longer side at most, in pixels: enough for a phone, and copied in a fraction of a millisecond.
const PICTURE: u32 = 640;
/// The same of an event's picture, which is kept.
const EVENT_PICTURE: u32 = 320;

/// The board is one of `plan` from now on.
pub(super) fn lay_out(board: &Board, plan: &Plan) {
    let cameras: Vec<_> = plan.cameras.iter().map(|camera| camera.name.clone()).collect();
    let views: Vec<Arc<str>> = rules::views_of(plan).iter().map(|view| view.to_string().into()).collect();
    let rules: Vec<_> = plan.rules.iter().map(|rule| (rule.name.clone(), rule.on, rule.off)).collect();
    board.lay_out(&cameras, &views, &rules);
}

/// The model that is in use from now on.
pub(super) fn model_facts(plan: &Plan, model: &Model) -> Arc<ModelFacts> {
    let report = model.load_report();
    Arc::new(ModelFacts {
        file: plan.model.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        kernel: report.kernel.clone(),
        threads: report.threads,
        classes: model.labels().iter().count(),
        description: report.to_string(),
    })
}

/// An action as the board shows it.
pub(super) fn action_facts(acting: &Acting) -> ActionFacts {
    let action = &acting.handle;
    let status = action.status();
    ActionFacts {
        name: action.name().clone(),
        kind: match acting.plan.kind {
            ActionKind::Gpio(_) => "gpio",
            ActionKind::Mqtt(_) => "mqtt",
            ActionKind::Log(_) => "log",
            ActionKind::Hook(_) => "hook",
            ActionKind::Webhook(_) => "webhook",
            ActionKind::Snapshot(_) => "snapshot",
        },
        health: status.health.to_string(),
        detail: status.detail,
        depth: action.depth(),
        dropped: action.dropped(),
        connected: action.connected(),
    }
}

/// Notes a camera's state.
pub(super) fn camera(board: &Board, camera: &CameraBoard, state: &CameraState) {
    let (state, reason) = match state {
        CameraState::Opening => ("opening", None),
        CameraState::Streaming => ("streaming", None),
        CameraState::Degraded(reason) => ("degraded", Some(reason.clone())),
        CameraState::Ended => ("ended", None),
    };
    camera.state.store(Arc::new(CameraFacts { state, reason }));
    board.touch();
}

/// Notes events, of frames and of time alike; the numbers of those that turned a rule on.
pub(super) fn events(board: &Board, events: &[Event]) -> Vec<u64> {
    let mut turned_on = Vec::new();
    for event in events {
        let id = board.count_event();
        let on = event.change.is_on();
        if let Some(rule) = board.rules().iter().find(|rule| rule.name == event.rule) {
            rule.on.store(on, Ordering::Relaxed);
            match event.change {
                Change::On => rule.turned_on.increment(),
                Change::Off(_) => rule.turned_off.increment(),
                Change::Escalated => {}
            }
        }
        let view = match &event.region {
            Some(region) => format!("{}/{region}", event.camera),
            None => event.camera.to_string(),
        };
        let (rule, label, probability) = (event.rule.clone(), event.label.clone(), event.probability);
        board.events.push(EventLine { id, at: event.decided, rule, on, view, label, probability });
        board.touch();
        turned_on.extend(on.then_some(id));
    }
    turned_on
}

/// Keeps a small copy of the frame that turned rules on.
pub(super) fn event_picture(board: &Board, events: Vec<u64>, frame: &crate::actions::Picture) {
    let small = shrunk(&frame.rgb, EVENT_PICTURE);
    board.picture_events(events, picture(small, frame.orientation, 0));
}

/// Told of edges and deliveries by the actions' threads.
pub(super) struct Witness {
    pub(super) recorder: Arc<Recorder>,
    pub(super) board: Arc<Board>,
}

impl Observer for Witness {
    fn edge(&self, edge: &Edge) {
        self.recorder.edge(edge);
        let tested = edge.cause.as_ref().is_some_and(|event| &*event.rule == super::pin_test::RULE);
        if let Some(latency) = edge.latency().filter(|_| !tested) {
            self.board.stages.capture_to_pin.add(latency);
        }
        self.board.edges.push(EdgeLine { at: edge.at, action: edge.action.clone(), high: edge.level == Level::High });
        self.board.touch();
    }

    fn delivered(&self, action: &str, event: &Event) {
        self.recorder.delivered(action, event);
    }
}

/// The inference loop's own memory of what a viewer may ask for.
pub(super) struct Watcher {
    board: Arc<Board>,
    /// By rule: its views by name, and the last probabilities of each.
    dots: HashMap<Arc<str>, Dots>,
    /// By view: the most probable class of the last frame, and how probable.
    tops: HashMap<Arc<str>, (usize, f32)>,
    /// By camera: the frames that it had delivered at the last report.
    delivered: HashMap<Arc<str>, u64>,
    reported: Monotonic,
}

/// The last probabilities of each view.
type Dots = Vec<(String, VecDeque<f32>)>;

impl Watcher {
    pub(super) fn new(board: Arc<Board>) -> Self {
        let (dots, tops, delivered) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { board, dots, tops, delivered, reported: Monotonic::now() }
    }

    /// Forgets what is not laid out on the board any more.
    pub(super) fn tidy(&mut self) {
        let (rules, views) = (self.board.rules(), self.board.views());
        self.dots.retain(|name, dots| {
            dots.retain(|(dots, _)| views.iter().any(|view| *view.name == **dots));
            rules.iter().any(|rule| rule.name == *name)
        });
        // Another model may have other classes.
        self.tops.clear();
        self.delivered.retain(|name, _| self.board.camera(name).is_some());
    }

    /// The board that is written on.
    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// A frame of `camera`, captured at `captured`, is not classified for this reason.
    pub(super) fn skipped(camera: &CameraBoard, skip: Skip, captured: Monotonic) {
        match skip {
            Skip::Still => camera.counters.skipped_still.increment(),
            Skip::Rate => camera.counters.skipped_rate.increment(),
            Skip::Heat => camera.counters.skipped_heat.increment(),
        }
        camera.note_seen(captured);
    }

    /// Whether something moves before `camera`.
    pub(super) fn active(&self, camera: &CameraBoard, active: bool) {
        if camera.active.swap(active, Ordering::Relaxed) != active {
            self.board.touch();
        }
    }

    /// A view of a frame has been classified, and the rules have decided.
    pub(super) fn view(&mut self, seen: &Observation, labels: &Labels, rules: &RuleSet) {
        let name = match &seen.region {
            Some(region) => format!("{}/{region}", seen.camera),
            None => seen.camera.to_string(),
        };
        let classes = seen.probabilities.iter().copied().enumerate();
        if let Some(best) = classes.max_by(|(_, a), (_, b)| a.total_cmp(b)) {
            self.tops.insert(name.as_str().into(), best);
        }
        let watched = self.board.is_watched();
        // The board's rules are the set's, in the same order.
        for (status, rule) in rules.states().zip(self.board.rules().iter()) {
            let dots = self.dots.entry(status.rule.clone()).or_default();
            remember(dots, &status, &name);
            if watched {
                rule.live.store(Some(Arc::new(live(&status, dots))));
                rule.why.store(obstacle(&status, Monotonic::now()).map(Arc::new));
            }
        }
        if watched {
            self.pictured(&name, seen, labels);
            self.board.touch();
        }
    }

    /// How the device is, and has been since the last report.
    pub(super) fn report(&mut self, labels: &Labels, now: Monotonic) -> Report {
        let board = &self.board;
        let views = board.views();
        let tops = views.iter().filter_map(|view| {
            let &(class, probability) = self.tops.get(&view.name)?;
            Some((view.name.clone(), labels.get(class).unwrap_or_default().into(), probability))
        });
        let tops = tops.collect();
        let seconds = now.since(self.reported).as_secs_f64().max(0.001);
        let mut cameras = Vec::new();
        for camera in board.cameras().iter() {
            let count = camera.counters.captured.get();
            let before = self.delivered.insert(camera.name.clone(), count).unwrap_or(0);
            cameras.push(CameraReport {
                camera: camera.name.clone(),
                frames_per_second: count.saturating_sub(before) as f64 / seconds,
                active: camera.active.load(Ordering::Relaxed),
            });
        }
        self.reported = now;
        let (thermal, thermal_step) = (thermal::read(&board.sysfs), board.thermal_step.load(Ordering::Relaxed));
        let refused = board.refusal.load_full();
        Report { tops, cameras, thermal, thermal_step, refused }
    }

    /// The classes of a frame that a viewer gets a picture of.
    fn pictured(&self, name: &str, seen: &Observation, labels: &Labels) {
        let picture = self.board.camera(&seen.camera).and_then(|camera| camera.picture.latest());
        if picture.is_some_and(|picture| picture.sequence == seen.sequence)
            && let Some(view) = self.board.views().iter().find(|view| *view.name == *name)
        {
            view.top.store(Some(Arc::new(Top { sequence: seen.sequence, classes: top(&seen.probabilities, labels) })));
        }
    }

    /// Keeps a copy of `rgb` if somebody wants one: a small one to look at, a whole one for a training photo.
    pub(super) fn picture(&self, camera: &CameraBoard, orientation: Orientation, rgb: &Rgb, sequence: u64) {
        if camera.picture.take_want() {
            camera.picture.store(picture(shrunk(rgb, PICTURE), orientation, sequence));
            self.board.touch();
        }
        if camera.photo.take_want() {
            camera.photo.store(picture(rgb.clone(), orientation, sequence));
        }
    }
}

/// What keeps a rule from firing whatever the frames show.
fn obstacle(status: &RuleStatus, now: Monotonic) -> Option<String> {
    let quiet = status.cooldown_end.filter(|&end| !status.on && now < end);
    let clockless = status.schedule.is_some_and(|schedule| !schedule.known);
    match status.closed {
        Some(OffReason::Unscheduled) if clockless => {
            Some("the board does not know the time, and `clock_unset` closes its schedule".into())
        }
        Some(OffReason::Unscheduled) => Some("outside its schedule".into()),
        Some(OffReason::Disarmed) => Some("disarmed".into()),
        Some(OffReason::Stale) => Some("its camera delivers no frames".into()),
        _ => quiet.map(|end| format!("cooldown: quiet for {:.0} s more", end.since(now).as_secs_f64().ceil())),
    }
}

fn remember(dots: &mut Dots, status: &RuleStatus, seen: &str) {
    let Some(view) = status.views.iter().find(|view| view.view.to_string() == seen) else { return };
    let Some((_, _, probability)) = &view.last else { return };
    let at = dots.iter().position(|(name, _)| name == seen).unwrap_or_else(|| {
        dots.push((seen.to_owned(), VecDeque::with_capacity(DOTS)));
        dots.len() - 1
    });
    let dots = &mut dots[at].1;
    if dots.len() == DOTS {
        dots.pop_front();
    }
    dots.push_back(*probability);
}

fn live(status: &RuleStatus, dots: &[(String, VecDeque<f32>)]) -> Vec<RuleView> {
    let views = status.views.iter().filter_map(|view| {
        let name = view.view.to_string();
        let (_, label, _) = view.last.as_ref()?;
        let dots = dots.iter().find(|(dots, _)| *dots == name).map(|(_, dots)| dots.iter().copied().collect());
        let hits = (view.hits, status.hits_needed, status.window);
        Some(RuleView { view: name, label: label.clone(), hits, dots: dots.unwrap_or_default() })
    });
    views.collect()
}

/// The most probable classes, best first.
fn top(probabilities: &[f32], labels: &Labels) -> Vec<(Arc<str>, f32)> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    order.truncate(TOP);
    order.into_iter().map(|class| (labels.get(class).unwrap_or_default().into(), probabilities[class])).collect()
}

fn picture(rgb: Rgb, orientation: Orientation, sequence: u64) -> Picture {
    let Rgb { width, height, data } =
        if orientation == Orientation::default() { rgb } else { preprocess::oriented(&rgb, orientation) };
    Picture { width, height, data, sequence, at: Monotonic::now() }
}

/// Every n-th pixel of every n-th row, so that the longer side is at most `side`.
fn shrunk(rgb: &Rgb, side: u32) -> Rgb {
    let step = rgb.width.max(rgb.height).div_ceil(side).max(1) as usize;
    let (width, height) = (rgb.width as usize / step, rgb.height as usize / step);
    let mut data = Vec::with_capacity(width * height * 3);
    for row in rgb.data.chunks_exact(rgb.width as usize * 3).step_by(step).take(height) {
        row.chunks_exact(3).step_by(step).take(width).for_each(|pixel| data.extend_from_slice(pixel));
    }
    Rgb { width: width as u32, height: height as u32, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_whose_clock_is_unknown_says_so_and_not_that_it_is_late() {
        use crate::rules::ScheduleStatus;
        let status = |known| RuleStatus {
            rule: "gate".into(),
            on: false,
            changed: None,
            cooldown_end: None,
            hits_needed: 1,
            window: 1,
            escalates_at: None,
            armed: None,
            schedule: Some(ScheduleStatus { open: false, known, until: None }),
            closed: Some(OffReason::Unscheduled),
            threshold_on: 0.6,
            threshold_off: 0.4,
            views: vec![],
        };
        let said = |known| obstacle(&status(known), Monotonic::default()).unwrap();
        assert!(said(false).contains("does not know the time"), "{}", said(false));
        assert_eq!(said(true), "outside its schedule");
    }

    #[test]
    fn a_picture_is_shrunk_by_whole_steps_and_keeps_its_length() {
        for (width, height, expected) in
            [(1280, 720, (640, 360)), (640, 480, (640, 480)), (641, 7, (320, 3)), (1, 1, (1, 1))]
        {
            let rgb = Rgb { width, height, data: vec![7; width as usize * height as usize * 3] };
            let picture = shrunk(&rgb, PICTURE);
            assert_eq!((picture.width, picture.height), expected);
            assert_eq!(picture.data.len(), expected.0 as usize * expected.1 as usize * 3);
        }
    }
}
