//! The daemon: wiring, supervision, watchdog, signals.
//!
//! One thread a camera, this one for inference (with the kernel pool's workers), one an action. Pins are driven to their
//! safe levels before the model is loaded, and again before their lines are released, however the daemon ends.

mod arming;
mod dispatch;
#[cfg(feature = "faults")]
mod faults;
mod inference;
mod judge;
mod lines;
mod notify;
mod pin_test;
pub mod recorder;
mod self_test;
mod signals;
pub mod summary;
mod wall;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::actions::{self, ActionContext, ActionError, CameraStatus, RuleInfo, close_all, gpio};
use crate::capture::slot::FrameSlots;
use crate::capture::supervise::{CameraState, run_camera};
use crate::clock::Monotonic;
use crate::config::Plan;
use crate::config::plan::{ActionPlan, SourcePlan};
use crate::control::{Command, Control};
use crate::inputs::Inputs;
use crate::model::{Labels, LoadOptions, Model, ModelError, ModelFiles};
use crate::rules::station::{Request, StationSet};
use crate::rules::{self, RuleProblem, RuleSet};
use crate::telemetry::CameraCounters;
use crate::telemetry::board::Board;
use crate::web;

use arming::ArmingStore;
use dispatch::Dispatcher;
use inference::Inference;
use lines::Lines;
use notify::Notifier;
use pin_test::PinTests;
use recorder::Recorder;
use signals::SignalThread;
use wall::WallClock;

use summary::{ActionOutcome, CameraOutcome, Summary};

/// The longest that the loop waits without a frame: the watchdog's rhythm while every camera is away.
const EMPTY_WAIT: Duration = Duration::from_secs(5);
/// How often the end of a `--once` run, a stop and the status line are looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// How long shutdown lets the outboxes drain.
const DRAIN: Duration = Duration::from_secs(5);

/// What to try when a self-test fails.
const SELF_TEST_REMEDY: &str = "the preprocessing or the labels in the manifest may be another model's; \
    `kernel = \"generic\"` in [model] tells whether a kernel computes wrongly on this CPU";

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// End when every files source is read through and the outboxes are empty.
    pub once: bool,
    /// Keep what the model saw, for a contact sheet.
    pub keep_pictures: bool,
}

/// Why the daemon could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The model cannot be loaded, or failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Rules name classes that the model does not have.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Rules(Vec<RuleProblem>),
    /// An action cannot work as configured.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// The model does not see in its self-test photo what its manifest promises.
    #[error(
        "the self-test of {model} failed: {photo} is taken for {seen}, and its manifest says {expected}; {SELF_TEST_REMEDY}"
    )]
    SelfTest {
        /// The ONNX file.
        model: String,
        /// The manifest's photo.
        photo: String,
        /// The top class, or why there is none.
        seen: String,
        /// The manifest's class.
        expected: String,
    },
    /// A thread or a signal handler could not be set up.
    #[error("starting the {what}: {source}; the board may be out of memory or the unit's TasksMax too low")]
    Start {
        /// What was being started.
        what: String,
        /// What the kernel answered.
        source: std::io::Error,
    },
}

/// Runs until a signal, or with `once` until the files are read through, and says what happened.
///
/// # Errors
/// The daemon could not start, or the model failed while running. Pins are safe in either case.
pub fn run(plan: &Plan, options: Options) -> Result<Summary, DaemonError> {
    crate::panics::end_process_on_panic(1, make_pins_safe);
    // What a look at the labels shows need not wait for the network.
    if let Some(labels) = ModelFiles::beside(&plan.model.path)?.labels {
        compile_rules(plan, &labels)?;
    }
    let counters: Vec<_> = plan.cameras.iter().map(|_| Arc::new(CameraCounters::default())).collect();
    let slots = Arc::new(FrameSlots::new(&counters));
    let stop = Arc::new(AtomicBool::new(false));
    let control = Control::new({
        let slots = slots.clone();
        move || slots.nudge()
    });
    judge::keep_frames_that_are_asked_for(plan, &slots, &control);
    // Before any pin is driven: a signal while the model loads must not end the process past the safe levels.
    let _signals = {
        let slots = slots.clone();
        SignalThread::start(stop.clone(), move || slots.close()).map_err(|e| start_error("signal handlers", e))?
    };
    // The fault line is active from here until the model is loaded.
    let lines = Lines::open(&plan.lines);
    let recorder = Arc::new(Recorder::new());
    let board = watch::board(plan, &counters);
    let witness = Arc::new(watch::Witness { recorder: recorder.clone(), board: board.clone() });
    let actions = actions::start(&plan.actions, action_context(plan, witness, control.clone()))?;
    let dispatcher = Arc::new(Dispatcher::new(actions, plan, recorder.clone(), board.clone()));
    let _page = start_page(plan, &board, &control, &dispatcher)?;
    let watch = Watch {
        plan,
        options,
        counters: &counters,
        slots: &slots,
        stop: &stop,
        dispatcher: &dispatcher,
        control: &control,
        board: &board,
    };
    let outcome = watch.run(&recorder, lines);
    let elapsed = Monotonic::now().since(recorder.started());
    // However it ended, nothing is left behind.
    let actions = close_actions(&dispatcher);
    let model = outcome?;
    let cameras = std::iter::zip(&plan.cameras, counters)
        .map(|(plan, counters)| CameraOutcome { name: plan.name.clone(), counters })
        .collect();
    Ok(Summary { model, elapsed, cameras, actions, recorder })
}

/// What the run needs between the start of the actions and their end.
struct Watch<'a> {
    plan: &'a Plan,
    options: Options,
    counters: &'a [Arc<CameraCounters>],
    slots: &'a Arc<FrameSlots>,
    stop: &'a Arc<AtomicBool>,
    dispatcher: &'a Arc<Dispatcher>,
    control: &'a Arc<Control>,
    board: &'a Arc<Board>,
}

impl Watch<'_> {
    /// Loads the model, watches the cameras until the end, and describes the model.
    fn run(&self, recorder: &Arc<Recorder>, lines: Lines) -> Result<String, DaemonError> {
        let plan = self.plan;
        let load = LoadOptions { engine: plan.model.kernel.clone(), threads: plan.model.threads };
        let mut model = Model::load(&plan.model.path, &load)?;
        let mut rules = compile_rules(plan, model.labels())?;
        let arming = self.recall(&mut rules);
        let rules = (rules, compile_stations(plan, model.labels())?);
        self_test::run(&mut model)?;
        let description = model.load_report().to_string();
        log::info!("model {}: {description}", plan.model.path.display());
        let keep = self.options.keep_pictures;
        self.board.model.store(Some(watch::model_facts(plan, &model)));
        let watcher = watch::Watcher::new(self.board.clone(), plan);
        let inference = Inference::new(model, rules, &plan.cameras, self.counters, recorder.clone(), watcher, keep);
        let mut cameras = Cameras::new(plan.cameras.len());
        let started = cameras.start(self);
        let outcome = started.and_then(|()| {
            let (slots, stop, dispatcher, control) = (self.slots, self.stop, self.dispatcher, self.control);
            let listeners = judge::listeners(self.plan, self.control);
            let inputs = Inputs::start(listeners).map_err(|e| start_error("threads of the inputs", e))?;
            let (wall, schedules) = (WallClock::new(Monotonic::now()), plan.rules.iter().any(|r| r.schedule.is_some()));
            let cameras = &cameras;
            let (plan, tests) = (&self.plan.actions[..], PinTests::default());
            let watching = Loop {
                inference,
                slots,
                stop,
                dispatcher,
                control,
                cameras,
                arming,
                wall,
                schedules,
                plan,
                tests,
                inputs,
                lines,
            };
            Ok(watching.run(self.options.once, recorder)?)
        });
        self.stop.store(true, Ordering::SeqCst);
        self.slots.close();
        cameras.join();
        outcome.map(|()| description)
    }
}

impl Watch<'_> {
    /// Arms the rules as an earlier run left them, and tells the actions.
    fn recall(&self, rules: &mut RuleSet) -> ArmingStore {
        let needed = rules.armed().next().is_some();
        // systemd names several folders if a unit has several (systemd.exec(5)); ours has one.
        let folder = std::env::var_os("STATE_DIRECTORY").filter(|folder| !folder.is_empty());
        let store = ArmingStore::open(folder.map(std::path::PathBuf::from), needed);
        store.apply(rules);
        rules.armed().for_each(|(rule, armed)| self.dispatcher.armed(rule, armed));
        store
    }
}

fn action_context(plan: &Plan, observer: Arc<watch::Witness>, control: Arc<Control>) -> ActionContext {
    ActionContext {
        device: plan.device.as_str().into(),
        rules: plan.rules.iter().map(RuleInfo::from).collect(),
        cameras: plan.cameras.iter().map(|c| c.name.clone()).collect(),
        observer,
        control,
    }
}

/// The page, if one is configured; it shows the actions until it is dropped.
fn start_page(
    plan: &Plan,
    board: &Arc<Board>,
    control: &Arc<Control>,
    dispatcher: &Arc<Dispatcher>,
) -> Result<Option<web::Page>, DaemonError> {
    if plan.page.is_none() {
        return Ok(None);
    }
    // Weak: the board is known to the dispatcher too.
    let (dispatcher, plans) = (Arc::downgrade(dispatcher), plan.actions.clone());
    board.connect_actions(move || {
        let dispatcher = dispatcher.upgrade();
        // Both are in the plan's order.
        dispatcher.iter().flat_map(|it| std::iter::zip(it.actions(), &plans)).map(watch::action_facts).collect()
    });
    let page = web::start(plan, board.clone(), control.clone()).map_err(|e| start_error("page", e))?;
    Ok(page)
}

fn start_error(what: &str, source: std::io::Error) -> DaemonError {
    DaemonError::Start { what: what.to_owned(), source }
}

/// Drains and closes every action at the same time, so that a broker that is away does not keep a pin from its level.
fn close_actions(dispatcher: &Dispatcher) -> Vec<ActionOutcome> {
    let late = close_all(dispatcher.actions(), DRAIN);
    for name in &late {
        log::warn!("action {name}: not finished within {DRAIN:?}");
    }
    let outcome = |action: &actions::ActionHandle| ActionOutcome {
        name: action.name().clone(),
        dropped: action.dropped(),
        left: action.depth() as u64,
    };
    dispatcher.actions().iter().map(outcome).collect()
}

fn compile_rules(plan: &Plan, labels: &Labels) -> Result<RuleSet, DaemonError> {
    rules::compile(plan, &labels.iter().collect::<Vec<_>>()).map_err(DaemonError::Rules)
}

fn compile_stations(plan: &Plan, labels: &Labels) -> Result<StationSet, DaemonError> {
    StationSet::compile(plan, &labels.iter().collect::<Vec<_>>()).map_err(DaemonError::Rules)
}

/// Drives every line to its safe level, from any thread, in whatever state the rest is.
fn make_pins_safe() {
    let (driven, errors) = gpio::drive_all_safe();
    log::warn!("{driven} lines driven to their safe levels");
    errors.iter().for_each(|error| log::error!("{error}"));
}

/// The camera threads.
struct Cameras {
    threads: Vec<(JoinHandle<()>, bool)>,
    healthy: Arc<Vec<AtomicBool>>,
}

impl Cameras {
    fn new(count: usize) -> Self {
        Self { threads: Vec::new(), healthy: Arc::new((0..count).map(|_| AtomicBool::new(false)).collect()) }
    }

    /// Starts a thread a camera. After an error those that run are still to be joined.
    fn start(&mut self, watch: &Watch<'_>) -> Result<(), DaemonError> {
        for (index, plan) in watch.plan.cameras.iter().enumerate() {
            let (plan, counters, healthy) = (plan.clone(), watch.counters[index].clone(), self.healthy.clone());
            let (slots, stop, dispatcher) = (watch.slots.clone(), watch.stop.clone(), watch.dispatcher.clone());
            let board = watch.board.clone();
            let files = matches!(plan.source, SourcePlan::Files { .. });
            let what = format!("thread of camera {}", plan.name);
            let thread = std::thread::Builder::new()
                .name(format!("camera {}", plan.name))
                .spawn(move || {
                    let on_state = |state: &CameraState| {
                        healthy[index]
                            .store(matches!(state, CameraState::Streaming | CameraState::Ended), Ordering::Relaxed);
                        watch::camera(&board, index, state);
                        if let Some(status) = status_of(&plan.name, state) {
                            dispatcher.camera(&status);
                        }
                    };
                    run_camera(&plan, index, &slots, &counters, &stop, &on_state);
                })
                .map_err(|e| start_error(&what, e))?;
            self.threads.push((thread, files));
        }
        Ok(())
    }

    /// Every files source is read through.
    fn files_are_read(&self) -> bool {
        self.threads.iter().all(|(thread, files)| !files || thread.is_finished())
    }

    fn join(self) {
        for (thread, _) in self.threads {
            // A panic in it has ended the process already.
            let _ = thread.join();
        }
    }
}

/// What the actions are told of a camera's state, if anything.
fn status_of(camera: &Arc<str>, state: &CameraState) -> Option<CameraStatus> {
    let (healthy, reason) = match state {
        CameraState::Streaming => (true, None),
        CameraState::Degraded(reason) => (false, Some(reason.clone())),
        CameraState::Opening | CameraState::Ended => return None,
    };
    Some(CameraStatus { camera: camera.clone(), healthy, reason })
}

/// The inference loop and what it looks at between two frames.
struct Loop<'a> {
    inference: Inference,
    slots: &'a FrameSlots,
    stop: &'a AtomicBool,
    dispatcher: &'a Dispatcher,
    control: &'a Control,
    cameras: &'a Cameras,
    arming: ArmingStore,
    wall: WallClock,
    /// Some rule has a schedule.
    schedules: bool,
    plan: &'a [ActionPlan],
    tests: PinTests,
    inputs: Inputs,
    lines: Lines,
}

impl Loop<'_> {
    fn run(mut self, once: bool, recorder: &Recorder) -> Result<(), ModelError> {
        let mut notifier = Notifier::from_environment();
        notifier.ready();
        let mut housekeeping = Monotonic::now();
        while !self.stop.load(Ordering::SeqCst) {
            while let Some(command) = self.control.next() {
                self.obey(&command);
            }
            #[cfg(feature = "faults")]
            faults::inject();
            let now = Monotonic::now();
            let shown = self.wall.read(now, self.schedules);
            self.inference.rules().tell_time(shown, now);
            // Looked at before the slots: what a finished source has put there is still taken.
            let read = once && self.cameras.files_are_read();
            let frame = self.slots.take(if read { Duration::ZERO } else { self.wait(once) });
            let nothing_left = read && frame.is_none();
            if let Some((index, frame)) = frame {
                let events = self.inference.classify(index, &frame)?;
                self.dispatcher.events(events, || self.inference.take_picture(index));
            }
            let now = Monotonic::now();
            self.dispatcher.events(self.inference.tick(now), || None);
            self.tests.end(self.plan, self.dispatcher.actions(), now);
            notifier.feed_watchdog(now);
            self.drive_lines(now);
            if nothing_left {
                break;
            }
            if now.since(housekeeping) >= HOUSEKEEPING {
                housekeeping = now;
                notifier.status(&self.status(recorder));
            }
        }
        notifier.stopping();
        Ok(())
    }

    /// Does what was asked from outside.
    fn obey(&mut self, command: &Command) {
        match command {
            Command::Reload => log::warn!("the configuration cannot be read again while running; restart the daemon"),
            Command::Arm { rule, armed } => self.arm(rule, *armed),
            Command::TestPin { action } => {
                self.tests.begin(action, self.plan, self.dispatcher.actions(), Monotonic::now());
            }
            Command::Judge { station, part, asked } => {
                let events = self.inference.ask(station, Request { part: part.clone(), asked: *asked });
                self.dispatcher.events(events, || None);
            }
        }
    }

    fn arm(&mut self, rule: &Arc<str>, armed: bool) {
        match self.inference.rules().arm(rule, armed, Monotonic::now()) {
            Some(events) => {
                log::info!("rule {rule} {}", if armed { "armed" } else { "disarmed" });
                self.dispatcher.events(events, || None);
                self.dispatcher.armed(rule, armed);
                self.arming.note(rule, armed);
            }
            None => log::warn!("rule {rule} cannot be armed: no such rule, or it has no `armed_by`"),
        }
    }

    /// Tells a PLC how the device is.
    fn drive_lines(&mut self, now: Monotonic) {
        if self.lines.are_wanted(now) {
            let cameras = self.cameras.healthy.iter().all(|healthy| healthy.load(Ordering::Relaxed));
            let works = cameras && self.inputs.healthy();
            let trouble = !works || self.dispatcher.is_degraded();
            self.lines.drive(
                trouble,
                self.dispatcher.mishaps() + self.control.refused(),
                self.dispatcher.verdicts(),
                now,
            );
        }
    }

    /// How long to wait for a frame: until a rule wants to be looked at, and not so long that an end goes unnoticed.
    fn wait(&self, once: bool) -> Duration {
        let limit = if once { HOUSEKEEPING } else { EMPTY_WAIT };
        let limit = self.lines.rhythm().map_or(limit, |rhythm| limit.min(rhythm));
        let rules = [self.inference.next_deadline(), self.tests.next_deadline()]
            .into_iter()
            .flatten()
            .min()
            .map(|deadline| deadline.since(Monotonic::now()));
        rules.map_or(limit, |wait| wait.clamp(Duration::from_millis(1), limit))
    }

    /// The line of `systemctl status`.
    fn status(&self, recorder: &Recorder) -> String {
        let healthy = self.cameras.healthy.iter().filter(|h| h.load(Ordering::Relaxed)).count();
        let record = recorder.lock();
        let last = record.events.back().map(|e| format!("; last event: {} ({})", e.rule, e.label)).unwrap_or_default();
        format!("{healthy} of {} cameras streaming{last}", self.cameras.healthy.len())
    }
}
