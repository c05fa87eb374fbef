//! Rules: pure `(state, observation, now) → (state, events)`. They know nothing of cameras, models or clocks.
//!
//! # What a rule does
//! - A rule watches **views**: a view is a camera's whole frame or, when the camera has regions, one of them. `camera` in a
//!   rule means all views of that camera, `camera/region` one; a rule that names none watches all of them.
//! - A frame's **probability** for a rule is the highest among the rule's classes, and the event names that class. It is not
//!   their sum: a threshold then means the same for one class as for fifty, a wide glob does not add up the noise of
//!   many classes to a false alarm, and an event can name one class. `not_classes` are taken out of the rule's classes
//!   (`*cat*` without `catamaran`): a frame that shows one of them is no evidence for the others, and none against them.
//! - Each view has a **window** of its last `window` frames. While the view is off, a frame with `p >= on` is a hit; the
//!   view turns on at a hit, when at least `hits` frames of the window are hits.
//! - Once on, a frame with `p >= off` **supports** the view (`off <= on`: hysteresis). The view turns off when fewer than
//!   `hits` frames of the window support it *and* `hold` has passed since the last frame that did. With `hits < window`
//!   single missed frames do not flap.
//! - A rule is on while any of its views is. One [`Change::On`] is sent when the first turns on, one [`Change::Off`]
//!   when the last turns off.
//! - The **cooldown** is counted from the last event that was sent, on or off. In that time a rule that is off does not turn on;
//!   after it, the next frame that is a hit turns it on if the window then still says so. An `Off` is always
//!   sent at once, so that no pin and no state hangs.
//! - A camera without a frame for its `stale` time, since the start or the last frame, is **stale**: its views are off and their windows empty
//!   ([`OffReason::Stale`] if a rule turns off by it). The next frame begins anew.
//! - A rule may be **closed**: outside of its schedule, or while it is disarmed. Then it notices nothing, its windows are empty, and
//!   if it was on it turns off at once ([`OffReason::Unscheduled`], [`OffReason::Disarmed`]). While the board does not know the time
//!   ([`RuleSet::tell_time`]) a schedule counts as open or closed as the configuration says, and [`RuleStatus`] shows that.
//! - When the configuration is read again, a rule that is the same goes on as it stands; any other that is on turns off at once
//!   ([`OffReason::Reloaded`]), and begins anew if it is still there ([`adopt`]).
//! - A rule that has been on for its escalation's time sends one [`Change::Escalated`]; no cooldown is counted from that.
//! - Windows and thresholds go by frames; `hold`, `cooldown` and `stale` go by `now`. What is not a number, and a class
//!   that the model did not score, counts as 0.

pub mod adopt;
mod classes;
pub mod event;
mod explain;
mod gate;
pub mod machine;
pub mod schedule;
pub mod station;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use event::{Change, Event, Observation, OffReason, Outcome, Verdict};
pub use explain::explain;
pub use gate::ScheduleStatus;
use gate::{Gate, Wall};
use jiff::Timestamp;
use machine::{Input, Limits, State, Transition};

use crate::clock::Monotonic;
use crate::config::plan::{Plan, RulePlan};

/// One thing that is classified: a camera's whole frame, or one region of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The camera's name.
    pub camera: Arc<str>,
    /// The region's name; `None` for the whole frame.
    pub region: Option<Arc<str>>,
}

impl View {
    /// Whether `name` (`camera` or `camera/region`) means this view.
    fn is_named(&self, name: &str) -> bool {
        match (name.split_once('/'), &self.region) {
            (None, _) => name == &*self.camera,
            (Some((camera, region)), Some(own)) => camera == &*self.camera && region == &**own,
            (Some(_), None) => false,
        }
    }
}

impl std::fmt::Display for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.region {
            Some(region) => write!(f, "{}/{region}", self.camera),
            None => f.write_str(&self.camera),
        }
    }
}

/// Something in a rule that does not fit the model, or the cameras.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} ({kind} {name:?}): {problem}")]
pub struct RuleProblem {
    /// `rule` or `group`.
    pub kind: &'static str,
    /// The rule's or group's name.
    pub name: Arc<str>,
    /// The key in the configuration, such as `rule[0].classes[1]` or `group.pets.classes[0]`; [`crate::config::locate`] finds its line.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

/// How a rule stands, and why: what an operator asks when it did or did not fire.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleStatus {
    /// The rule's name.
    pub rule: Arc<str>,
    /// An `On` was the last event.
    pub on: bool,
    /// When the last event was sent.
    pub changed: Option<Monotonic>,
    /// The end of the quiet time after the last event.
    pub cooldown_end: Option<Monotonic>,
    /// Frames needed...
    pub hits_needed: usize,
    /// ...among this many.
    pub window: usize,
    /// When it escalates if it stays on.
    pub escalates_at: Option<Monotonic>,
    /// Whether it is armed; `None` if nothing arms it.
    pub armed: Option<bool>,
    /// How its schedule stands; `None` without one.
    pub schedule: Option<ScheduleStatus>,
    /// Why it notices nothing at the moment.
    pub closed: Option<OffReason>,
    /// A frame is a hit from this probability up...
    pub threshold_on: f32,
    /// ...and supports a view that is on from this one up.
    pub threshold_off: f32,
    /// Each view that the rule watches.
    pub views: Vec<ViewStatus>,
}

/// How one view of a rule stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewStatus {
    /// Which.
    pub view: View,
    /// The view holds the rule on.
    pub on: bool,
    /// Its camera delivers no frames.
    pub stale: bool,
    /// Frames of the window that count: hits while off, support while on.
    pub hits: usize,
    /// Frames in the window.
    pub frames: usize,
    /// The best class of the last frame, its label and probability; `None` before the first frame.
    pub last: Option<(usize, Arc<str>, f32)>,
    /// When the view turns off if nothing supports it before.
    pub off_at: Option<Monotonic>,
}

/// Every rule of a plan, resolved against a model's labels, with its state.
#[derive(Clone, Debug)]
pub struct RuleSet {
    views: Vec<View>,
    cameras: Vec<Camera>,
    rules: Vec<Rule>,
    labels: Vec<Arc<str>>,
    /// `None` while the board does not know the time.
    wall: Option<Wall>,
}

/// When a camera was last heard of.
#[derive(Clone, Debug)]
struct Camera {
    name: Arc<str>,
    patience: Duration,
    /// The last frame, or the start; `None` before the first call.
    heard: Option<Monotonic>,
    stale: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    name: Arc<str>,
    classes: Vec<usize>,
    limits: Limits,
    gate: Gate,
    /// Indices into [`RuleSet::views`], in the order of [`State::views`].
    views: Vec<usize>,
    state: State,
    /// The last frame of each view, in the same order.
    last: Vec<Option<Sample>>,
}

/// What a rule keeps of a frame, to name it in events.
#[derive(Clone, Debug)]
struct Sample {
    class: usize,
    probability: f32,
    captured: Monotonic,
    sequence: u64,
    origin: Option<Arc<std::path::Path>>,
}

/// Resolves a plan's rules against a model's labels, by index.
///
/// # Errors
/// Every class that the model does not have, and every view that the plan does not have.
pub fn compile<L: AsRef<str>>(plan: &Plan, labels: &[L]) -> Result<RuleSet, Vec<RuleProblem>> {
    let views = views_of(plan);
    let mut problems = Vec::new();
    let groups = classes::Groups::resolve(&plan.groups, labels, &mut problems);
    let rules = plan.rules.iter().enumerate();
    let rules = rules.map(|(index, rule)| compile_rule(index, rule, &views, &groups, &mut problems)).collect();
    // Found together, so that a check lists all.
    problems.extend(station::StationSet::compile(plan, labels).err().unwrap_or_default());
    if !problems.is_empty() {
        return Err(problems);
    }
    let cameras = plan.cameras.iter();
    let cameras =
        cameras.map(|c| Camera { name: c.name.clone(), patience: c.stale, heard: None, stale: false }).collect();
    let labels = labels.iter().map(|label| Arc::from(label.as_ref())).collect();
    Ok(RuleSet { views, cameras, rules, labels, wall: None })
}

/// Everything of a plan that is classified: each camera's regions, or its whole frame.
pub fn views_of(plan: &Plan) -> Vec<View> {
    let mut views = Vec::new();
    for camera in &plan.cameras {
        if camera.regions.is_empty() {
            views.push(View { camera: camera.name.clone(), region: None });
        }
        let regions = camera.regions.iter();
        views.extend(regions.map(|r| View { camera: camera.name.clone(), region: Some(r.name.clone()) }));
    }
    views
}

fn compile_rule<L: AsRef<str>>(
    index: usize,
    plan: &RulePlan,
    views: &[View],
    groups: &classes::Groups<'_, L>,
    problems: &mut Vec<RuleProblem>,
) -> Rule {
    let mut report = |key: String, problem| {
        let (name, key) = (plan.name.clone(), format!("rule[{index}].{key}"));
        problems.push(RuleProblem { kind: "rule", name, key, problem })
    };
    let mut classes = groups.union("classes", &plan.classes, &mut report);
    let excluded = groups.union("not_classes", &plan.not_classes, &mut report);
    let wanted = !classes.is_empty();
    classes.retain(|class| !excluded.contains(class));
    if wanted && classes.is_empty() {
        report("not_classes".into(), "leaves none of the rule's classes; take one out of it".into());
    }
    for (position, name) in plan.cameras.iter().enumerate() {
        if !views.iter().any(|view| view.is_named(name)) {
            report(format!("cameras[{position}]"), format!("there is no camera or region {name:?}"));
        }
    }
    let watched = |view: &View| plan.cameras.is_empty() || plan.cameras.iter().any(|name| view.is_named(name));
    let views: Vec<usize> = (0..views.len()).filter(|&view| watched(&views[view])).collect();
    Rule {
        name: plan.name.clone(),
        classes,
        limits: Limits {
            on: plan.on,
            off: plan.off,
            hits: plan.hits as usize,
            window: plan.window as usize,
            hold: plan.hold,
            cooldown: plan.cooldown,
            escalate: plan.escalation.as_ref().map(|escalation| escalation.after),
        },
        gate: Gate::new(plan),
        state: State::new(views.len()),
        last: vec![None; views.len()],
        views,
    }
}

impl RuleSet {
    /// Takes the scores of one view of one frame. An observation of an unknown view changes nothing.
    ///
    /// The first call of this or of [`RuleSet::tick`] is the start that staleness is counted from.
    pub fn observe(&mut self, observation: &Observation, now: Monotonic) -> Vec<Event> {
        let mut events = self.expire(now);
        if let Some(camera) = self.cameras.iter_mut().find(|camera| camera.name == observation.camera) {
            camera.heard = Some(now);
            camera.stale = false;
        }
        let seen = |view: &View| view.camera == observation.camera && view.region == observation.region;
        let Some(view) = self.views.iter().position(seen) else { return events };
        for rule in &mut self.rules {
            let Some(slot) = rule.views.iter().position(|&watched| watched == view) else { continue };
            let sample = Sample::new(&rule.classes, observation);
            let input = Input::Frame { view: slot, probability: sample.probability };
            rule.last[slot] = Some(sample);
            events.extend(rule.step(input, now, &self.views, &self.labels));
        }
        events
    }

    /// Takes notice of a camera that delivers, of a frame that is not classified: it is not stale.
    pub fn hear(&mut self, camera: &str, now: Monotonic) -> Vec<Event> {
        let events = self.expire(now);
        if let Some(camera) = self.cameras.iter_mut().find(|own| &*own.name == camera) {
            camera.heard = Some(now);
            camera.stale = false;
        }
        events
    }

    /// Whether the camera's next frames matter to a rule: it is on, or has a hit in its window.
    pub fn is_engaged(&self, camera: &str) -> bool {
        self.rules.iter().any(|rule| {
            let mut views = rule.views.iter().zip(&rule.state.views);
            views
                .any(|(&view, state)| *self.views[view].camera == *camera && (state.on || state.hits(&rule.limits) > 0))
        })
    }

    /// Tells what the wall clock shows at `now`, or that the board does not know the time. It is to be told whenever the clock may have
    /// been set; in between it is reckoned on. Schedules follow at the next call of [`RuleSet::observe`] or [`RuleSet::tick`].
    pub fn tell_time(&mut self, shown: Option<Timestamp>, now: Monotonic) {
        self.wall = shown.map(|shown| Wall { shown, at: now });
    }

    /// Arms or disarms the rule of this name, and gives what follows from it; `None` if there is no such rule, or nothing arms it.
    pub fn arm(&mut self, rule: &str, armed: bool, now: Monotonic) -> Option<Vec<Event>> {
        let own = self.rules.iter_mut().find(|own| &*own.name == rule)?;
        own.gate.arm(armed).then(|| self.tick(now))
    }

    /// The rules that something arms, and whether they are.
    pub fn armed(&self) -> impl Iterator<Item = (&Arc<str>, bool)> {
        self.rules.iter().filter_map(|rule| rule.gate.armed().map(|armed| (&rule.name, armed)))
    }

    /// Lets time pass: views whose hold is over turn off, cameras without frames become stale. To be called when
    /// [`RuleSet::next_deadline`] is reached; more often does no harm.
    pub fn tick(&mut self, now: Monotonic) -> Vec<Event> {
        let mut events = self.expire(now);
        for rule in &mut self.rules {
            events.extend(rule.step(Input::Tick, now, &self.views, &self.labels));
        }
        events
    }

    /// When [`RuleSet::tick`] next has something to do, if no frame comes before. Always later than the last `tick`.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let stale = self.cameras.iter().filter(|camera| !camera.stale);
        let stale = stale.filter_map(|camera| camera.heard.map(|heard| heard + camera.patience));
        let holds = self.rules.iter().filter_map(|rule| rule.state.next_deadline(&rule.limits));
        let schedules = self.rules.iter().filter_map(|rule| rule.gate.deadline(self.wall.as_ref()));
        stale.chain(holds).chain(schedules).min()
    }

    /// Everything that is to be classified: each camera's regions, or its whole frame.
    pub fn views(&self) -> &[View] {
        &self.views
    }

    /// The cameras that have had no frame for their `stale` time.
    pub fn stale_cameras(&self) -> impl Iterator<Item = &Arc<str>> {
        self.cameras.iter().filter(|camera| camera.stale).map(|camera| &camera.name)
    }

    /// How the rule of this name stands, and why.
    pub fn state(&self, rule: &str) -> Option<RuleStatus> {
        self.rules.iter().find(|own| &*own.name == rule).map(|own| self.status(own))
    }

    /// How every rule stands, in the plan's order.
    pub fn states(&self) -> impl Iterator<Item = RuleStatus> {
        self.rules.iter().map(|rule| self.status(rule))
    }

    /// Closes and opens rules, makes cameras stale whose time has come, and turns off what follows from that.
    fn expire(&mut self, now: Monotonic) -> Vec<Event> {
        let mut events = Vec::new();
        for rule in &mut self.rules {
            let closed = rule.gate.closed(self.wall.as_ref(), now);
            if closed != rule.state.closed {
                let input = closed.map_or(Input::Open, |reason| Input::Close { reason });
                events.extend(rule.step(input, now, &self.views, &self.labels));
            }
        }
        for camera in &mut self.cameras {
            let heard = *camera.heard.get_or_insert(now);
            if camera.stale || now.since(heard) < camera.patience {
                continue;
            }
            camera.stale = true;
            for rule in &mut self.rules {
                for slot in 0..rule.views.len() {
                    if self.views[rule.views[slot]].camera == camera.name {
                        events.extend(rule.step(Input::Stale { view: slot }, now, &self.views, &self.labels));
                    }
                }
            }
        }
        events
    }

    fn status(&self, rule: &Rule) -> RuleStatus {
        let views = rule.views.iter().zip(&rule.state.views).zip(&rule.last).map(|((&view, state), last)| ViewStatus {
            view: self.views[view].clone(),
            on: state.on,
            stale: self.stale_cameras().any(|camera| *camera == self.views[view].camera),
            hits: state.hits(&rule.limits),
            frames: state.window.len(),
            last: last.as_ref().map(|sample| (sample.class, label(&self.labels, sample.class), sample.probability)),
            off_at: state.off_at(&rule.limits).filter(|_| state.on),
        });
        RuleStatus {
            rule: rule.name.clone(),
            on: rule.state.on,
            changed: rule.state.changed,
            cooldown_end: rule.state.cooldown_end(&rule.limits),
            hits_needed: rule.limits.hits,
            window: rule.limits.window,
            escalates_at: rule.state.escalates_at(&rule.limits),
            armed: rule.gate.armed(),
            schedule: rule.gate.status(),
            closed: rule.state.closed,
            threshold_on: rule.limits.on,
            threshold_off: rule.limits.off,
            views: views.collect(),
        }
    }
}

impl Rule {
    /// One step of the core, and the event that tells of it.
    fn step(&mut self, input: Input, now: Monotonic, views: &[View], labels: &[Arc<str>]) -> Option<Event> {
        let (state, transition) = std::mem::take(&mut self.state).step(&self.limits, input, now);
        self.state = state;
        let (slot, change) = match transition? {
            Transition::On { view } => (view, Change::On),
            Transition::Escalated { view } => (view, Change::Escalated),
            Transition::Off { view, reason } => (view, Change::Off(reason)),
        };
        self.event(slot, change, now, views, labels)
    }

    /// The event that tells of `change` by the view in `slot`. A view that was ever on has had a frame, and so there is one.
    fn event(&self, slot: usize, change: Change, now: Monotonic, views: &[View], labels: &[Arc<str>]) -> Option<Event> {
        let sample = self.last[slot].as_ref()?;
        let view = &views[self.views[slot]];
        Some(Event {
            rule: self.name.clone(),
            change,
            camera: view.camera.clone(),
            region: view.region.clone(),
            class: sample.class,
            label: label(labels, sample.class),
            probability: sample.probability,
            captured: sample.captured,
            decided: now,
            verdict: None,
            sequence: sample.sequence,
            origin: sample.origin.clone(),
        })
    }
}

impl Sample {
    /// The best of `classes` (never empty) in a frame; the first of equals.
    fn new(classes: &[usize], observation: &Observation) -> Self {
        let mut best = (classes.first().copied().unwrap_or(0), 0.0);
        for &class in classes {
            let probability = observation.probabilities.get(class).copied().unwrap_or(0.0);
            // Also false for what is not a number.
            if probability > best.1 && probability.is_finite() {
                best = (class, probability);
            }
        }
        Self {
            class: best.0,
            probability: best.1,
            captured: observation.captured,
            sequence: observation.sequence,
            origin: observation.origin.clone(),
        }
    }
}

fn label(labels: &[Arc<str>], class: usize) -> Arc<str> {
    labels.get(class).cloned().unwrap_or_else(|| Arc::from(class.to_string()))
}
