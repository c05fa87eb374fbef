//! What the running daemon shows of itself: written by its threads as they go, read by the page and the metrics.
//!
//! A writer never waits for a reader: counts are atomics, and everything larger is an immutable value behind an [`ArcSwap`],
//! replaced whole. What only a viewer needs (the top classes, the rules' dots, a picture) is made while somebody looks.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::histogram::Histogram;
use super::{CameraCounters, Counter};
use crate::clock::Monotonic;

/// Events and edges that a viewer is shown at most.
const SHOWN: usize = 64;
/// Events with a picture at most: 173 kB each where a camera is 16:9.
const PICTURED: usize = 16;

/// The stages whose time is measured, in the order of the data's way.
#[derive(Debug, Default)]
pub struct Stages {
    /// From the driver's bytes to RGB.
    pub decode: Histogram,
    /// From RGB to the model's input, a view.
    pub preprocess: Histogram,
    /// The network, a view.
    pub inference: Histogram,
    /// From the capture of a frame to the rules' decision.
    pub capture_to_decision: Histogram,
    /// From the capture of a frame to the edge on the pin that it caused.
    pub capture_to_pin: Histogram,
}

/// The model that classifies.
#[derive(Clone, Debug, Default)]
pub struct ModelFacts {
    /// The file's name.
    pub file: String,
    /// The kernels' name.
    pub kernel: String,
    /// Threads that work on a layer.
    pub threads: usize,
    /// Classes.
    pub classes: usize,
    /// All of it in a sentence.
    pub description: String,
}

/// What became of configurations that were read while the daemon ran.
#[derive(Debug, Default)]
pub struct Reloads {
    /// They are, or were, in force.
    pub applied: Counter,
    /// They were wrong, and the one in force stayed.
    pub refused: Counter,
}

/// What became of the parts that stations were asked for.
#[derive(Debug, Default)]
pub struct Parts {
    /// They passed or failed.
    pub judged: Counter,
    /// They got no verdict in time, or too many waited.
    pub faults: Counter,
}

/// One camera.
#[derive(Debug)]
pub struct CameraBoard {
    /// Its name.
    pub name: Arc<str>,
    /// What became of its frames.
    pub counters: Arc<CameraCounters>,
    /// Frames classified.
    pub classified: Counter,
    /// Something moves before it; without a motion gate always.
    pub active: AtomicBool,
    /// `opening`, `streaming`, `ended`, or why it is degraded.
    pub state: ArcSwap<CameraFacts>,
    /// When the last frame that was classified or found still was captured, in nanoseconds of the monotonic clock; 0: never.
    last: AtomicU64,
    /// A small picture, for viewers.
    pub picture: PictureBoard,
    /// A whole frame, for a training photo.
    pub photo: PictureBoard,
}

/// A picture that is made of the next frame when somebody wants it.
#[derive(Debug, Default)]
pub struct PictureBoard {
    wanted: AtomicBool,
    latest: ArcSwapOption<Picture>,
}

impl PictureBoard {
    /// Asks for a picture of the next frame.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether a picture is wanted.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether a picture is wanted; it is then no more.
    pub fn take_want(&self) -> bool {
        self.is_wanted() && self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Shows a picture.
    pub fn store(&self, picture: Picture) {
        self.latest.store(Some(Arc::new(picture)));
    }

    /// The latest picture.
    pub fn latest(&self) -> Option<Arc<Picture>> {
        self.latest.load_full()
    }

    /// The latest picture, which is then nobody else's: a whole frame is not kept for nothing.
    pub fn take(&self) -> Option<Arc<Picture>> {
        self.latest.swap(None)
    }
}

/// A camera's state for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CameraFacts {
    /// `opening`, `streaming`, `degraded` or `ended`.
    pub state: &'static str,
    /// Why it is degraded.
    pub reason: Option<String>,
}

/// A small picture in RGB, `width * height * 3` bytes.
#[derive(Debug)]
pub struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Row after row from the top.
    pub data: Vec<u8>,
    /// The frame's number, to tell pictures apart.
    pub sequence: u64,
    /// When it was taken.
    pub at: Monotonic,
}

/// One thing that is classified, as the last frame had it.
#[derive(Debug)]
pub struct ViewBoard {
    /// `camera` or `camera/region`.
    pub name: Arc<str>,
    /// Nothing before somebody looked.
    pub top: ArcSwapOption<Top>,
}

/// What the frame of the camera's small picture was taken for, so that viewers see both of one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Top {
    /// The frame's number.
    pub sequence: u64,
    /// The most probable classes, best first.
    pub classes: Vec<(Arc<str>, f32)>,
}

/// One rule.
#[derive(Debug)]
pub struct RuleBoard {
    /// Its name.
    pub name: Arc<str>,
    /// Its thresholds: a hit from the first up, support down to the second.
    pub thresholds: (f32, f32),
    /// It is on.
    pub on: AtomicBool,
    /// Whether it is armed; nothing if nothing arms it.
    pub armed: ArcSwapOption<bool>,
    /// Times it turned on.
    pub turned_on: Counter,
    /// Times it turned off.
    pub turned_off: Counter,
    /// What keeps it from firing at the moment, whatever the frames show.
    pub why: ArcSwapOption<String>,
    /// How far from firing it is; nothing before somebody looked.
    pub live: ArcSwapOption<Vec<RuleView>>,
}

/// A rule at one view.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleView {
    /// `camera` or `camera/region`.
    pub view: String,
    /// The best of the rule's classes in the last frame.
    pub label: Arc<str>,
    /// Frames of the window that count, and how many it needs among how many.
    pub hits: (usize, usize, usize),
    /// The rule's probability in the last frames, oldest first.
    pub dots: Vec<f32>,
}

/// The picture of the frame that turned rules on.
#[derive(Debug)]
pub struct EventPicture {
    /// The events' numbers.
    pub events: Vec<u64>,
    /// Small.
    pub picture: Picture,
}

/// An event for people.
#[derive(Clone, Debug, PartialEq)]
pub struct EventLine {
    /// Counted from 0 since the start.
    pub id: u64,
    /// Of the monotonic clock.
    pub at: Monotonic,
    /// The rule.
    pub rule: Arc<str>,
    /// It turned on.
    pub on: bool,
    /// Where.
    pub view: String,
    /// What was seen.
    pub label: Arc<str>,
    /// How surely.
    pub probability: f32,
}

/// An edge of a line for people.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeLine {
    /// Of the monotonic clock.
    pub at: Monotonic,
    /// The action that owns the line.
    pub action: Arc<str>,
    /// The electrical level is high.
    pub high: bool,
}

/// An action as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Its `type` in the configuration.
    pub kind: &'static str,
    /// `starting`, `ready`, `degraded` or `rejected`.
    pub health: String,
    /// What it is connected to, or what is wrong.
    pub detail: String,
    /// Events that wait.
    pub depth: usize,
    /// Events that were dropped.
    pub dropped: u64,
    /// Times it became ready: connections made.
    pub connected: u64,
}

/// Asks the actions how they are.
type ActionSource = Box<dyn Fn() -> Vec<ActionFacts> + Send + Sync>;

/// The whole daemon.
pub struct Board {
    /// The board's name.
    pub device: Arc<str>,
    /// When the daemon started.
    pub started: Monotonic,
    cameras: ArcSwap<Vec<Arc<CameraBoard>>>,
    views: ArcSwap<Vec<Arc<ViewBoard>>>,
    rules: ArcSwap<Vec<Arc<RuleBoard>>>,
    /// Where the time goes.
    pub stages: Stages,
    /// How much less is done because of heat, 0 to 3: each step halves inference's share of the time.
    pub thermal_step: AtomicUsize,
    /// Where the temperature is read: `/sys`.
    pub sysfs: PathBuf,
    /// Nothing until it is loaded.
    pub model: ArcSwapOption<ModelFacts>,
    /// Times the configuration was read again.
    pub reloads: Reloads,
    /// Why the configuration that was read last is not in force.
    pub refusal: ArcSwapOption<String>,
    /// What became of the parts that stations were asked for.
    pub parts: Parts,
    /// The last ones, oldest first.
    pub events: Recently<EventLine>,
    event_pictures: Recently<EventPicture>,
    event_count: AtomicU64,
    /// The last ones, oldest first.
    pub edges: Recently<EdgeLine>,
    actions: std::sync::OnceLock<ActionSource>,
    viewers: AtomicUsize,
    version: AtomicU64,
}

/// The last few of something that happens rarely.
#[derive(Debug)]
pub struct Recently<T>(ArcSwap<VecDeque<Arc<T>>>);

impl<T> Default for Recently<T> {
    fn default() -> Self {
        Self(ArcSwap::from_pointee(VecDeque::new()))
    }
}

impl<T> Recently<T> {
    /// Adds one; the oldest makes room.
    pub fn push(&self, item: T) {
        self.push_within(item, SHOWN);
    }

    /// Adds one of `most`.
    fn push_within(&self, item: T, most: usize) {
        let item = Arc::new(item);
        self.0.rcu(|old| {
            let skip = (old.len() + 1).saturating_sub(most);
            old.iter().skip(skip).cloned().chain([item.clone()]).collect::<VecDeque<_>>()
        });
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Arc<VecDeque<Arc<T>>> {
        self.0.load_full()
    }
}

impl CameraBoard {
    /// A camera that has not been opened.
    pub fn new(name: Arc<str>, counters: Arc<CameraCounters>) -> Self {
        Self {
            name,
            counters,
            classified: Counter::default(),
            active: AtomicBool::new(true),
            state: ArcSwap::from_pointee(CameraFacts { state: "opening", reason: None }),
            last: AtomicU64::new(0),
            picture: PictureBoard::default(),
            photo: PictureBoard::default(),
        }
    }

    /// Whether somebody waits for a picture.
    pub fn is_picture_wanted(&self) -> bool {
        self.picture.is_wanted() || self.photo.is_wanted()
    }

    /// A frame captured at `captured` has been classified.
    pub fn note_classified(&self, captured: Monotonic) {
        self.classified.increment();
        self.note_seen(captured);
    }

    /// A frame captured at `captured` has been looked at.
    pub fn note_seen(&self, captured: Monotonic) {
        self.last.store(captured.as_duration().as_nanos() as u64, Ordering::Relaxed);
    }

    /// How long ago the last frame that was looked at was captured.
    pub fn age(&self, now: Monotonic) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed);
        (last > 0).then(|| now.since(Monotonic::from_duration(Duration::from_nanos(last))))
    }
}

impl RuleBoard {
    /// A rule that is off.
    pub fn new(name: Arc<str>, on: f32, off: f32) -> Self {
        Self {
            name,
            thresholds: (on, off),
            on: AtomicBool::new(false),
            armed: ArcSwapOption::empty(),
            turned_on: Counter::default(),
            turned_off: Counter::default(),
            why: ArcSwapOption::empty(),
            live: ArcSwapOption::empty(),
        }
    }
}

impl Board {
    /// Nothing has happened yet.
    pub fn new(device: Arc<str>) -> Self {
        Self {
            device,
            started: Monotonic::now(),
            cameras: ArcSwap::default(),
            views: ArcSwap::default(),
            rules: ArcSwap::default(),
            stages: Stages::default(),
            thermal_step: AtomicUsize::new(0),
            sysfs: "/sys".into(),
            model: ArcSwapOption::empty(),
            reloads: Reloads::default(),
            refusal: ArcSwapOption::empty(),
            parts: Parts::default(),
            events: Recently::default(),
            event_pictures: Recently::default(),
            event_count: AtomicU64::new(0),
            edges: Recently::default(),
            actions: std::sync::OnceLock::new(),
            viewers: AtomicUsize::new(0),
            version: AtomicU64::new(1),
        }
    }

    /// The cameras, in the plan's order.
    pub fn cameras(&self) -> Arc<Vec<Arc<CameraBoard>>> {
        self.cameras.load_full()
    }

    /// What is classified, in the plan's order.
    pub fn views(&self) -> Arc<Vec<Arc<ViewBoard>>> {
        self.views.load_full()
    }

    /// The rules, in the plan's order.
    pub fn rules(&self) -> Arc<Vec<Arc<RuleBoard>>> {
        self.rules.load_full()
    }

    /// The camera of this name.
    pub fn camera(&self, name: &str) -> Option<Arc<CameraBoard>> {
        self.cameras.load().iter().find(|camera| *camera.name == *name).cloned()
    }

    /// These are the cameras, views and rules from now on. What is known of a name stays, except for a rule's thresholds; the counts of
    /// a name that comes back after it was gone begin anew.
    pub fn lay_out(&self, cameras: &[Arc<str>], views: &[Arc<str>], rules: &[(Arc<str>, f32, f32)]) {
        let (old_cameras, old_views, old_rules) = (self.cameras(), self.views(), self.rules());
        let camera = |name: &Arc<str>| {
            let old = old_cameras.iter().find(|old| old.name == *name).cloned();
            old.unwrap_or_else(|| Arc::new(CameraBoard::new(name.clone(), Arc::default())))
        };
        let view = |name: &Arc<str>| {
            let old = old_views.iter().find(|old| old.name == *name).cloned();
            old.unwrap_or_else(|| Arc::new(ViewBoard { name: name.clone(), top: ArcSwapOption::empty() }))
        };
        let rule = |(name, on, off): &(Arc<str>, f32, f32)| {
            let same = |old: &&Arc<RuleBoard>| old.name == *name && old.thresholds == (*on, *off);
            let old = old_rules.iter().find(same).cloned();
            old.unwrap_or_else(|| Arc::new(RuleBoard::new(name.clone(), *on, *off)))
        };
        // Whoever arms rules says anew which.
        old_rules.iter().for_each(|rule| rule.armed.store(None));
        self.cameras.store(Arc::new(cameras.iter().map(camera).collect()));
        self.views.store(Arc::new(views.iter().map(view).collect()));
        self.rules.store(Arc::new(rules.iter().map(rule).collect()));
        self.touch();
    }

    /// Says whom to ask how the actions are; the first one counts.
    pub fn connect_actions(&self, source: impl Fn() -> Vec<ActionFacts> + Send + Sync + 'static) {
        let _ = self.actions.set(Box::new(source));
    }

    /// The number of the next event.
    pub fn count_event(&self) -> u64 {
        self.event_count.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether pictures of events are kept: there is a page that shows them.
    pub fn keeps_event_pictures(&self) -> bool {
        self.actions.get().is_some()
    }

    /// Shows the frame of these events.
    pub fn picture_events(&self, events: Vec<u64>, picture: Picture) {
        self.event_pictures.push_within(EventPicture { events, picture }, PICTURED);
        self.touch();
    }

    /// The pictures of the last events.
    pub fn event_pictures(&self) -> Arc<VecDeque<Arc<EventPicture>>> {
        self.event_pictures.all()
    }

    /// How the actions are now.
    pub fn actions(&self) -> Vec<ActionFacts> {
        self.actions.get().map(|ask| ask()).unwrap_or_default()
    }

    /// A rule was armed or disarmed.
    pub fn set_armed(&self, rule: &str, armed: bool) {
        if let Some(rule) = self.rules.load().iter().find(|own| &*own.name == rule) {
            rule.armed.store(Some(Arc::new(armed)));
            self.touch();
        }
    }

    /// Something has changed that a viewer would see.
    pub fn touch(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Grows with each change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether anybody looks.
    pub fn is_watched(&self) -> bool {
        self.viewers.load(Ordering::Relaxed) > 0
    }

    /// Somebody looks until the value is dropped.
    pub fn watch(self: &Arc<Self>) -> Viewer {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        Viewer(self.clone())
    }
}

/// Somebody who looks at a [`Board`].
pub struct Viewer(Arc<Board>);

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_in_order() {
        let recently = Recently::default();
        (0..SHOWN as u64 + 3).for_each(|n| recently.push(n));
        let all: Vec<u64> = recently.all().iter().map(|n| **n).collect();
        assert_eq!(all, (3..SHOWN as u64 + 3).collect::<Vec<_>>());
    }

    #[test]
    fn pictures_of_events_are_few_and_kept_only_for_a_page() {
        let board = Board::new("garden".into());
        assert!(!board.keeps_event_pictures());
        board.connect_actions(Vec::new);
        assert!(board.keeps_event_pictures());
        for sequence in 0..PICTURED as u64 + 2 {
            let picture = Picture { width: 1, height: 1, data: vec![0; 3], sequence, at: Monotonic::default() };
            board.picture_events(vec![board.count_event()], picture);
        }
        let kept: Vec<u64> = board.event_pictures().iter().flat_map(|it| it.events.clone()).collect();
        assert_eq!(kept, (2..PICTURED as u64 + 2).collect::<Vec<_>>());
    }

    #[test]
    fn a_board_is_watched_while_somebody_looks() {
        let board = Arc::new(Board::new("garden".into()));
        assert!(!board.is_watched());
        let (one, two) = (board.watch(), board.watch());
        drop(one);
        assert!(board.is_watched());
        drop(two);
        assert!(!board.is_watched());
    }

    #[test]
    fn what_is_known_of_a_name_stays_when_others_come_and_go() {
        let board = Board::new("garden".into());
        let names = |names: &[&str]| names.iter().map(|&name| Arc::from(name)).collect::<Vec<Arc<str>>>();
        board.lay_out(
            &names(&["a", "b"]),
            &names(&["a", "b/x"]),
            &[("cat".into(), 0.6, 0.4), ("dog".into(), 0.6, 0.4)],
        );
        board.camera("b").unwrap().counters.captured.add(7);
        board.rules().iter().for_each(|rule| rule.turned_on.increment());
        let before = board.version();
        board.lay_out(&names(&["c", "b"]), &names(&["b/x"]), &[("dog".into(), 0.7, 0.4), ("cat".into(), 0.6, 0.4)]);
        assert!(board.version() > before);
        let cameras: Vec<_> =
            board.cameras().iter().map(|it| (it.name.to_string(), it.counters.captured.get())).collect();
        assert_eq!(cameras, [("c".to_owned(), 0), ("b".to_owned(), 7)]);
        assert_eq!(board.views().len(), 1);
        let rules: Vec<_> = board.rules().iter().map(|it| (it.name.to_string(), it.turned_on.get())).collect();
        assert_eq!(rules, [("dog".to_owned(), 0), ("cat".to_owned(), 1)], "other thresholds: another rule");
        assert!(board.camera("a").is_none());
    }

    #[test]
    fn a_picture_is_wanted_once() {
        let board = PictureBoard::default();
        assert!(!board.take_want());
        board.want();
        assert!(board.take_want() && !board.take_want());
    }
}
