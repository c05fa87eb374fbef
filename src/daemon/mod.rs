//! The daemon: wiring, supervision, watchdog, signals.
//!
//! | module | what it is |
//! |---|---|
//! | `looping` | the loop: a frame, the rules, the commands, a configuration read again |
//! | `cameras` | the camera threads, by name |
//! | `inference` | from a frame to events |
//! | `dispatch` | from events to actions |
//! | `reload`, `change` | reading a configuration again; what two of them have in common |
//!
//! One thread a camera, this one for inference (with the kernel pool's workers), one an action. Pins are driven to their
//! safe levels before the model is loaded, and again before their lines are released, however the daemon ends.

mod arming;
mod cameras;
mod change;
mod dispatch;
#[cfg(feature = "faults")]
mod faults;
mod heat;
mod inference;
mod judge;
mod lines;
mod looping;
mod notify;
mod pin_test;
pub mod recorder;
mod reload;
mod self_test;
mod signals;
pub mod summary;
mod wall;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::actions::{ActionContext, ActionError, RuleInfo, Workshop, close_all, gpio};
use crate::capture::slot::FrameSlots;
use crate::clock::Monotonic;
use crate::config::Plan;
use crate::control::Control;
use crate::model::{ModelError, ModelFiles};
use crate::rules::station::StationSet;
use crate::rules::{self, RuleProblem, RuleSet};
use crate::telemetry::board::Board;
use crate::web;

pub use reload::load_options;

use dispatch::{Acting, Dispatcher};
use lines::Lines;
use looping::{Ending, Loop};
use recorder::Recorder;
use signals::SignalThread;

use summary::{ActionOutcome, Summary};

/// How long shutdown lets the outboxes drain.
const DRAIN: Duration = Duration::from_secs(5);

/// What to try when a self-test fails.
const SELF_TEST_REMEDY: &str = "the preprocessing or the labels in the manifest may be another model's; \
    `kernel = \"generic\"` in [model] tells whether a kernel computes wrongly on this CPU";

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The file that the plan is from, to be read again at SIGHUP.
    pub config: Option<PathBuf>,
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
pub fn run(plan: &Plan, options: &Options) -> Result<Summary, DaemonError> {
    crate::panics::end_process_on_panic(1, make_pins_safe);
    // What a look at the labels shows need not wait for the network.
    if let Some(labels) = ModelFiles::beside(&plan.model.path)?.labels {
        compile_rules(plan, &labels.iter().collect::<Vec<_>>())?;
    }
    let slots = Arc::new(FrameSlots::new(&[]));
    let stop = Arc::new(AtomicBool::new(false));
    let control = Control::new({
        let slots = slots.clone();
        move || slots.nudge()
    });
    // Before any pin is driven: a signal while the model loads must not end the process past the safe levels.
    let _signals = {
        let slots = slots.clone();
        SignalThread::start(stop.clone(), control.clone(), move || slots.close())
            .map_err(|e| start_error("signal handlers", e))?
    };
    // The fault line is active from here until the model is loaded.
    let lines = Lines::open(&plan.lines);
    let recorder = Arc::new(Recorder::new(options.once));
    let mut board = Board::new(plan.device.as_str().into());
    board.sysfs = plan.thermal.as_ref().map_or(board.sysfs, |thermal| thermal.sysfs.clone());
    let board = Arc::new(board);
    watch::lay_out(&board, plan);
    let witness = Arc::new(watch::Witness { recorder: recorder.clone(), board: board.clone() });
    let workshop = Workshop::new(action_context(plan, witness, control.clone()), &plan.actions);
    let started = std::iter::zip(workshop.start(&plan.actions)?, plan.actions.iter().cloned());
    let actions = started.map(|(handle, plan)| Arc::new(Acting { handle, plan })).collect();
    let dispatcher = Arc::new(Dispatcher::new(actions, plan, recorder.clone(), board.clone()));
    let plumbing = Plumbing { slots, stop, control, board, dispatcher, recorder };
    let page = start_page(plan, &plumbing)?;
    let outcome = Loop::start(plan, options, &plumbing, workshop, page.as_ref(), lines).and_then(Loop::run);
    let elapsed = Monotonic::now().since(plumbing.recorder.started());
    // However it ended, nothing is left behind.
    let actions = close_actions(&plumbing.dispatcher);
    let Ending { model, cameras } = outcome?;
    Ok(Summary { model, elapsed, cameras, actions, recorder: plumbing.recorder })
}

/// What every part of the daemon holds on to, whatever the configuration.
#[derive(Clone)]
struct Plumbing {
    slots: Arc<FrameSlots>,
    stop: Arc<AtomicBool>,
    control: Arc<Control>,
    board: Arc<Board>,
    dispatcher: Arc<Dispatcher>,
    recorder: Arc<Recorder>,
}

fn action_context(plan: &Plan, observer: Arc<watch::Witness>, control: Arc<Control>) -> ActionContext {
    ActionContext {
        device: plan.device.as_str().into(),
        rules: plan.rules.iter().map(RuleInfo::from).collect(),
        cameras: plan.cameras.iter().map(|c| c.name.clone()).collect(),
        views: rules::views_of(plan).iter().map(|view| view.to_string().into()).collect(),
        pins: vec![],
        observer,
        control,
    }
}

/// The page, if one is configured; it shows the actions until it is dropped.
fn start_page(plan: &Plan, plumbing: &Plumbing) -> Result<Option<web::Page>, DaemonError> {
    if plan.page.is_none() {
        return Ok(None);
    }
    // Weak: the board is known to the dispatcher too.
    let dispatcher = Arc::downgrade(&plumbing.dispatcher);
    plumbing.board.connect_actions(move || {
        let actions = dispatcher.upgrade().map(|it| it.actions()).unwrap_or_default();
        actions.iter().map(|acting| watch::action_facts(acting)).collect()
    });
    web::start(plan, plumbing.board.clone(), plumbing.control.clone()).map_err(|e| start_error("page", e))
}

fn start_error(what: &str, source: std::io::Error) -> DaemonError {
    DaemonError::Start { what: what.to_owned(), source }
}

/// Drains and closes every action at the same time, so that a broker that is away does not keep a pin from its level.
fn close_actions(dispatcher: &Dispatcher) -> Vec<ActionOutcome> {
    let actions = dispatcher.actions();
    let late = close_all(&actions.iter().map(|it| &it.handle).collect::<Vec<_>>(), DRAIN);
    for name in &late {
        log::warn!("action {name}: not finished within {DRAIN:?}");
    }
    let outcome = |it: &Arc<Acting>| ActionOutcome {
        name: it.plan.name.clone(),
        dropped: it.handle.dropped(),
        left: it.handle.depth() as u64,
    };
    actions.iter().map(outcome).collect()
}

fn compile_rules<L: AsRef<str>>(plan: &Plan, labels: &[L]) -> Result<RuleSet, DaemonError> {
    rules::compile(plan, labels).map_err(DaemonError::Rules)
}

fn compile_stations<L: AsRef<str>>(plan: &Plan, labels: &[L]) -> Result<StationSet, DaemonError> {
    StationSet::compile(plan, labels).map_err(DaemonError::Rules)
}

/// Drives every line to its safe level, from any thread, in whatever state the rest is.
fn make_pins_safe() {
    let (driven, errors) = gpio::drive_all_safe();
    log::warn!("{driven} lines driven to their safe levels");
    errors.iter().for_each(|error| log::error!("{error}"));
}
