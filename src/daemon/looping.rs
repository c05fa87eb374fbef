//! The inference loop and what it looks at between two frames: commands, time, pins under test, the configuration read again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::arming::ArmingStore;
use super::cameras::Cameras;
use super::change::Change;
use super::dispatch::Acting;
use super::inference::Inference;
use super::judge::{Reservations, listeners};
use super::lines::Lines;
use super::notify::Notifier;
use super::pin_test::PinTests;
use super::reload::{Loaded, Next, Present, Reloader, Stamp};
use super::summary::CameraOutcome;
use super::wall::WallClock;
use super::{DaemonError, Options, Plumbing, compile_rules, compile_stations, start_error, watch};
use crate::actions::{CameraStatus, Message, RuleInfo, Workshop, close_all};
use crate::clock::Monotonic;
use crate::config::Plan;
use crate::control::Command;
use crate::inputs::Inputs;
use crate::rules;
use crate::rules::adopt::Common;
use crate::rules::station::Request;
use crate::web::Page;

/// The longest that the loop waits without a frame: the watchdog's rhythm while every camera is away.
const EMPTY_WAIT: Duration = Duration::from_secs(5);
/// How often the end of a `--once` run, a stop and the status line are looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// How often the actions are told how the device is: often enough for a curve, seldom enough for thousands of boards at a broker.
const REPORTS: Duration = Duration::from_secs(10);
/// How long an action that a configuration has no more, or otherwise, may drain its outbox. No frame is looked at meanwhile.
const LEAVE: Duration = Duration::from_secs(1);

/// What became of the run.
pub(super) struct Ending {
    /// The model, its kernel, what it took to load.
    pub(super) model: String,
    pub(super) cameras: Vec<CameraOutcome>,
}

/// The loop's own.
pub(super) struct Loop<'a> {
    plumbing: Plumbing,
    workshop: Workshop,
    page: Option<&'a Page>,
    /// The configuration in force.
    plan: Plan,
    /// What the files of the model in use were when it was loaded.
    stamp: Stamp,
    inference: Inference,
    cameras: Cameras,
    reservations: Reservations,
    arming: ArmingStore,
    wall: WallClock,
    tests: PinTests,
    inputs: Inputs,
    lines: Lines,
    notifier: Notifier,
    reloader: Reloader,
    once: bool,
}

impl<'a> Loop<'a> {
    /// Loads the model and starts the cameras and inputs of `plan`.
    ///
    /// # Errors
    /// The model cannot be loaded or fails its self-test, or the system gives no thread.
    pub(super) fn start(
        plan: &Plan,
        options: &Options,
        plumbing: &Plumbing,
        workshop: Workshop,
        page: Option<&'a Page>,
        lines: Lines,
    ) -> Result<Self, DaemonError> {
        let Loaded { model, stamp } = Loaded::load(&plan.model)?;
        let labels: Vec<_> = model.labels().iter().collect();
        let mut rules = compile_rules(plan, &labels)?;
        let arming = ArmingStore::recall(&mut rules);
        rules.armed().for_each(|(rule, armed)| plumbing.dispatcher.armed(rule, armed));
        let rules = (rules, compile_stations(plan, &labels)?);
        log::info!("model {}: {}", plan.model.path.display(), model.load_report());
        plumbing.board.model.store(Some(watch::model_facts(plan, &model)));
        let watcher = watch::Watcher::new(plumbing.board.clone());
        let recorder = plumbing.recorder.clone();
        let mut inference =
            Inference::new(model, rules, plan.thermal.clone(), recorder, watcher, options.keep_pictures);
        let reservations = Reservations::attach(&plumbing.slots, &plumbing.control);
        let mut cameras = Cameras::default();
        let started = cameras.reconfigure(&plan.cameras, plumbing).and_then(|()| {
            reservations.set(&plan.stations, |camera| cameras.number(camera));
            Inputs::start(listeners(plan, &plumbing.control)).map_err(|e| start_error("threads of the inputs", e))
        });
        let inputs = match started {
            Ok(inputs) => inputs,
            Err(error) => {
                cameras.end();
                return Err(error);
            }
        };
        inference.set_cameras(cameras.all());
        Ok(Self {
            plumbing: plumbing.clone(),
            workshop,
            page,
            plan: plan.clone(),
            stamp,
            inference,
            cameras,
            reservations,
            arming,
            wall: WallClock::new(Monotonic::now()),
            tests: PinTests::default(),
            inputs,
            lines,
            notifier: Notifier::from_environment(),
            reloader: Reloader::new(options.config.clone()),
            once: options.once,
        })
    }

    /// Watches until the end.
    ///
    /// # Errors
    /// The model failed, or the system gave no thread for what a new configuration wants.
    pub(super) fn run(mut self) -> Result<Ending, DaemonError> {
        self.notifier.ready();
        let outcome = self.watch();
        self.notifier.stopping();
        self.plumbing.stop.store(true, Ordering::SeqCst);
        self.plumbing.slots.close();
        let cameras = self.cameras.end();
        outcome.map(|()| Ending { model: self.inference.model().load_report().to_string(), cameras })
    }

    fn watch(&mut self) -> Result<(), DaemonError> {
        let mut housekeeping = Monotonic::now();
        let mut reported = housekeeping;
        while !self.plumbing.stop.load(Ordering::SeqCst) {
            while let Some(command) = self.plumbing.control.next() {
                self.obey(&command);
            }
            self.take_what_was_read()?;
            #[cfg(feature = "faults")]
            super::faults::inject();
            let now = Monotonic::now();
            let schedules = self.plan.rules.iter().any(|rule| rule.schedule.is_some());
            let shown = self.wall.read(now, schedules);
            self.inference.rules().tell_time(shown, now);
            // Looked at before the slots: what a finished source has put there is still taken.
            let read = self.once && self.cameras.files_are_read();
            let frame = self.plumbing.slots.take(if read { Duration::ZERO } else { self.wait() });
            let nothing_left = read && frame.is_none();
            if let Some((camera, frame)) = frame {
                let events = self.inference.classify(camera, &frame)?;
                self.plumbing.dispatcher.events(events, || self.inference.take_picture(camera));
            }
            let now = Monotonic::now();
            let events = self.inference.tick(now);
            self.plumbing.dispatcher.events(events, || None);
            self.tests.end(&self.plumbing.dispatcher, now);
            self.inference.mind_the_heat(now);
            self.notifier.feed_watchdog(now);
            self.drive_lines(now);
            if nothing_left {
                break;
            }
            if now.since(housekeeping) >= HOUSEKEEPING {
                housekeeping = now;
                if now.since(reported) >= REPORTS {
                    reported = now;
                    self.plumbing.dispatcher.report(self.inference.report(now));
                }
                self.notifier.status(&self.status());
            }
        }
        Ok(())
    }

    /// Does what was asked from outside.
    fn obey(&mut self, command: &Command) {
        match command {
            Command::Reload => self.read_again(),
            Command::Arm { rule, armed } => self.arm(rule, *armed),
            Command::TestPin { action } => self.tests.begin(action, &self.plumbing.dispatcher, Monotonic::now()),
            Command::Judge { station, part, asked } => {
                let events = self.inference.ask(station, Request { part: part.clone(), asked: *asked });
                self.plumbing.dispatcher.events(events, || None);
            }
        }
    }

    fn arm(&mut self, rule: &Arc<str>, armed: bool) {
        match self.inference.rules().arm(rule, armed, Monotonic::now()) {
            Some(events) => {
                log::info!("rule {rule} {}", if armed { "armed" } else { "disarmed" });
                self.plumbing.dispatcher.events(events, || None);
                self.plumbing.dispatcher.armed(rule, armed);
                self.arming.note(rule, armed);
            }
            None => log::warn!("rule {rule} cannot be armed: no such rule, or it has no `armed_by`"),
        }
    }

    /// Tells a PLC how the device is.
    fn drive_lines(&mut self, now: Monotonic) {
        if self.lines.are_wanted(now) {
            let (dispatcher, control) = (&self.plumbing.dispatcher, &self.plumbing.control);
            let cameras = self.cameras.healthy() == self.cameras.all().len();
            let trouble = !(cameras && self.inputs.healthy()) || dispatcher.is_degraded();
            self.lines.drive(trouble, dispatcher.mishaps() + control.refused(), dispatcher.verdicts(), now);
        }
    }

    /// How long to wait for a frame: until a rule wants to be looked at, and not so long that an end goes unnoticed.
    fn wait(&self) -> Duration {
        let limit = if self.once { HOUSEKEEPING } else { EMPTY_WAIT };
        let limit = self.lines.rhythm().map_or(limit, |rhythm| limit.min(rhythm));
        let rules = [self.inference.next_deadline(), self.tests.next_deadline()]
            .into_iter()
            .flatten()
            .min()
            .map(|deadline| deadline.since(Monotonic::now()));
        rules.map_or(limit, |wait| wait.clamp(Duration::from_millis(1), limit))
    }

    /// The line of `systemctl status`.
    fn status(&self) -> String {
        let (healthy, cameras) = (self.cameras.healthy(), self.cameras.all().len());
        let record = self.plumbing.recorder.lock();
        let last = record.events.back().map(|e| format!("; last event: {} ({})", e.rule, e.label)).unwrap_or_default();
        let refusal = self.plumbing.board.refusal.load();
        let refusal = refusal.as_ref().map(|why| format!("; not in force: {why}")).unwrap_or_default();
        format!("{healthy} of {cameras} cameras streaming{}{last}{refusal}", self.inference.heat())
    }
}

/// The configuration read again.
impl Loop<'_> {
    /// Begins to read the configuration, on a thread of its own.
    fn read_again(&mut self) {
        let present = Present {
            model: self.plan.model.clone(),
            stamp: self.stamp.clone(),
            labels: self.inference.model().labels().iter().map(str::to_owned).collect(),
        };
        let slots = self.plumbing.slots.clone();
        match self.reloader.begin(present, move || slots.nudge()) {
            Ok(true) => self.notifier.reloading(),
            Ok(false) => log::info!("the configuration is being read already, and will be once more after that"),
            Err(problem) => self.refuse(&problem),
        }
    }

    /// Applies what the thread has read, or says why not.
    fn take_what_was_read(&mut self) -> Result<(), DaemonError> {
        let Some((outcome, again)) = self.reloader.outcome() else { return Ok(()) };
        match outcome {
            Ok(next) => self.apply(*next)?,
            Err(problem) => self.refuse(&problem),
        }
        self.notifier.ready();
        self.notifier.status(&self.status());
        if again {
            self.read_again();
        }
        Ok(())
    }

    fn refuse(&mut self, problem: &str) {
        log::error!("the configuration is not applied, and the one in force stays: {problem}");
        let board = &self.plumbing.board;
        board.reloads.refused.increment();
        board.refusal.store(Some(Arc::new(problem.lines().next().unwrap_or_default().to_owned())));
        board.touch();
    }

    /// Puts another configuration in force, between two frames. What is the same in both goes on.
    fn apply(&mut self, next: Next) -> Result<(), DaemonError> {
        let began = Monotonic::now();
        let Next { plan, model, rules, stations } = next;
        let old = std::mem::replace(&mut self.plan, plan);
        let plan = self.plan.clone();
        let change = Change { old: &old, new: &plan };
        let swapped = model.is_some();
        let model = model.map(|Loaded { model, stamp }| {
            self.stamp = stamp;
            self.plumbing.board.model.store(Some(watch::model_facts(&plan, &model)));
            model
        });
        // What turns off does so through the actions that it had.
        let common = Common { section: &|name| change.keeps_section(name), camera: &|name| change.keeps_camera(name) };
        let events = self.inference.take_over(model, (rules, stations), &common);
        self.plumbing.dispatcher.events(events, || None);
        watch::lay_out(&self.plumbing.board, &plan);
        self.replace_actions(&change)?;
        self.cameras.reconfigure(&plan.cameras, &self.plumbing)?;
        self.inference.set_cameras(self.cameras.all());
        self.reservations.set(&plan.stations, |camera| self.cameras.number(camera));
        self.recall_arming();
        if !change.keeps_inputs() {
            // The lines are let go before they are asked for again.
            self.inputs = Inputs::none();
            let listeners = listeners(&plan, &self.plumbing.control);
            self.inputs = Inputs::start(listeners).map_err(|error| start_error("threads of the inputs", error))?;
        }
        if let Some(page) = self.page {
            page.show(&plan);
        }
        self.plumbing.board.reloads.applied.increment();
        self.plumbing.board.refusal.store(None);
        self.tell_of(&change, swapped, Monotonic::now().since(began));
        Ok(())
    }

    /// Ends the actions that are gone or changed, starts those that are new or changed, and tells the others of rules and cameras.
    fn replace_actions(&mut self, change: &Change<'_>) -> Result<(), DaemonError> {
        let (plan, dispatcher) = (change.new, &self.plumbing.dispatcher);
        let running = dispatcher.actions();
        let leaving: Vec<_> = running.iter().filter(|it| !change.keeps_action(&it.plan.name)).collect();
        // Waited for: a new action may want the line, or the broker's ear, of an old one.
        for name in close_all(&leaving.iter().map(|it| &it.handle).collect::<Vec<_>>(), LEAVE) {
            log::warn!("action {name}: its outbox was not empty within {LEAVE:?}; what is left is lost");
        }
        let (rules, cameras) = (plan.rules.iter().map(RuleInfo::from), plan.cameras.iter().map(|it| it.name.clone()));
        let views = rules::views_of(plan).iter().map(|view| view.to_string().into()).collect();
        self.workshop.reconfigure(rules.collect(), (cameras.collect(), views), &plan.actions);
        let is_new = |name: &str| !change.keeps_action(name);
        let new: Vec<_> = plan.actions.iter().filter(|it| is_new(&it.name)).cloned().collect();
        let handles = self.workshop.start(&new)?;
        let started = std::iter::zip(new, handles).map(|(plan, handle)| Arc::new(Acting { plan, handle }));
        let kept = running.iter().filter(|it| change.keeps_action(&it.plan.name)).cloned();
        kept.clone().for_each(|it| it.handle.reconfigure(self.workshop.context()));
        let all: Vec<_> = kept.chain(started).collect();
        let ordered =
            plan.actions.iter().filter_map(|action| all.iter().find(|it| it.plan.name == action.name).cloned());
        let ordered: Vec<_> = ordered.collect();
        dispatcher.reroute(ordered.clone(), plan);
        for status in self.cameras.all().iter().filter_map(|camera| present_status(&camera.board)) {
            for action in ordered.iter().filter(|it| is_new(&it.plan.name)) {
                action.handle.send(Message::Camera(status.clone()));
            }
        }
        dispatcher.standing(self.inference.rules().standing(Monotonic::now()), &is_new);
        Ok(())
    }

    /// Arms and disarms rules as remembered, also those that have just got their switch, and tells the actions.
    fn recall_arming(&mut self) {
        self.arming.need(self.inference.rules());
        self.arming.apply(self.inference.rules());
        let dispatcher = &self.plumbing.dispatcher;
        self.inference.rules().armed().for_each(|(rule, armed)| dispatcher.armed(rule, armed));
    }

    fn tell_of(&self, change: &Change<'_>, swapped: bool, took: Duration) {
        let what = match change.describe() {
            nothing if nothing.is_empty() && !swapped => "nothing has changed".to_owned(),
            nothing if nothing.is_empty() => "the model's files have changed".to_owned(),
            what => what,
        };
        log::info!("the configuration is in force: {what} ({} ms)", took.as_millis());
        if swapped {
            let report = self.inference.model().load_report();
            log::info!("model {}: {report}", change.new.model.path.display());
        }
        for section in change.needs_restart() {
            log::warn!("{section} needs a restart: the old one stays until then (systemctl restart spotter)");
        }
    }
}

/// What an action that comes later is told of a camera, if anything.
fn present_status(camera: &crate::telemetry::board::CameraBoard) -> Option<CameraStatus> {
    let facts = camera.state.load();
    let healthy = match facts.state {
        "streaming" => true,
        "degraded" => false,
        _ => return None,
    };
    Some(CameraStatus { camera: camera.name.clone(), healthy, reason: facts.reason.clone() })
}
