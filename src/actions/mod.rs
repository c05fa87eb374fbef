//! What is done about events: each action has a bounded outbox and a thread of its own, so that none waits for another.
//!
//! [`start`] drives every GPIO line to its safe level first, then starts one thread an action and returns an
//! [`ActionHandle`] for each. Whoever has events calls [`ActionHandle::send`], which never blocks; [`close_all`] drains
//! what is queued within a limit and releases the lines. An action that cannot work (a line held by another process, a
//! broker that is away) is degraded, says so once, and tries again by itself: it never stops the daemon.

pub mod gpio;
mod hook;
pub mod log;
pub mod mqtt;
mod outbox;
pub mod payload;
mod picture;
mod pins;
mod runner;
mod snapshot;
mod tls;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

#[cfg(any(test, fuzzing))]
pub(crate) use mqtt::fuzz as fuzz_mqtt;
pub use picture::Picture;
pub use runner::{ActionHandle, ActionStatus, Health, close_all};

use pins::Shared;

use crate::clock::Monotonic;
use crate::config::plan::{
    ActionKind, ActionPlan, ArmedBy, HookPlan, Level, LogPlan, MqttPlan, RulePlan, SnapshotPlan, WebhookPlan,
};
use crate::control::Control;
use crate::rules::Event;
use crate::telemetry::thermal::Thermal;

/// What an action is told.
#[derive(Clone, Debug)]
pub enum Message {
    /// A rule of this action turned on or off.
    Event(Arc<Event>),
    /// The same, with the frame that decided it: for those that [want pictures](ActionHandle::wants_pictures).
    Pictured(Arc<Event>, Arc<Picture>),
    /// A rule of this action is on already, while the action is new: for those that show states. Nothing has happened.
    Standing(Arc<Event>),
    /// A camera came or went. Every action is told; most do not care.
    Camera(CameraStatus),
    /// A rule that something arms was armed or disarmed. Every action is told.
    Armed {
        /// The rule's name.
        rule: Arc<str>,
        /// Whether it is armed now.
        armed: bool,
    },
    /// How the device is, every few seconds. Every action is told.
    Report(Arc<Report>),
}

/// How the device is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// By view (`camera` or `camera/region`): what its last classified frame was taken for, and how surely.
    pub tops: Vec<(Arc<str>, Arc<str>, f32)>,
    /// By camera.
    pub cameras: Vec<CameraReport>,
    /// How warm the board is.
    pub thermal: Thermal,
    /// How much less is done because of that, 0 to 3.
    pub thermal_step: usize,
    /// Why the configuration that was read last is not in force.
    pub refused: Option<Arc<String>>,
}

/// How a camera is.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraReport {
    /// Its name.
    pub camera: Arc<str>,
    /// Frames that it delivered, since the last report.
    pub frames_per_second: f64,
    /// Something moves before it; without a motion gate always.
    pub active: bool,
}

/// A camera's state, as an operator is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraStatus {
    /// The camera's name.
    pub camera: Arc<str>,
    /// Frames are coming.
    pub healthy: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// What actions tell back, for the summary, the metrics and the tests.
///
/// It is called on the action's own thread and must return quickly: the action waits meanwhile.
pub trait Observer: Send + Sync {
    /// A line changed. `cause` is the event behind it, absent for the safe level at start and exit.
    fn edge(&self, edge: &Edge);
    /// A message left for good: published and acknowledged, or written.
    fn delivered(&self, action: &str, event: &Event);
}

/// One change of one line.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The action that owns the line.
    pub action: Arc<str>,
    /// The electrical level driven.
    pub level: Level,
    /// When the call that drove it had returned.
    pub at: Monotonic,
    /// The event that caused it. Absent for the safe level at start and exit, and for a pulse's end, which time causes.
    pub cause: Option<Arc<Event>>,
}

impl Edge {
    /// From the capture of the frame that decided to the edge on the pin; `None` if no event caused the edge.
    pub fn latency(&self) -> Option<Duration> {
        self.cause.as_ref().map(|event| self.at.since(event.captured))
    }
}

/// What every action of a device needs to know.
#[derive(Clone)]
pub struct ActionContext {
    /// The board's name; the second part of every topic.
    pub device: Arc<str>,
    /// The rules, so that their states can be published before they first change.
    pub rules: Vec<RuleInfo>,
    /// The cameras, so that their states can be published before they first change.
    pub cameras: Vec<Arc<str>>,
    /// What is classified: `camera` or `camera/region`.
    pub views: Vec<Arc<str>>,
    /// The actions that drive a pin; made from the plans at the start, whatever is written here.
    pub pins: Vec<Arc<str>>,
    /// Who is told of edges and deliveries.
    pub observer: Arc<dyn Observer>,
    /// Where an action that hears commands (a broker's subscriptions) asks the daemon.
    pub control: Arc<Control>,
}

/// A rule as an action sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// The rule's name: part of its topic.
    pub name: Arc<str>,
    /// What people are shown.
    pub label: String,
    /// The actions that it feeds.
    pub actions: Vec<String>,
    /// Something arms and disarms it.
    pub has_switch: bool,
    /// A broker does.
    pub armed_by_mqtt: bool,
}

impl From<&RulePlan> for RuleInfo {
    /// The label is the name with spaces for `_` and `-`.
    fn from(rule: &RulePlan) -> Self {
        let escalation = rule.escalation.iter().flat_map(|escalation| &escalation.actions);
        let actions = rule.actions.iter().chain(escalation).cloned().collect();
        Self {
            name: rule.name.clone(),
            label: rule.name.replace(['_', '-'], " "),
            actions,
            has_switch: rule.armed_by.is_some(),
            armed_by_mqtt: rule.armed_by == Some(ArmedBy::Mqtt),
        }
    }
}

/// Why the actions could not be started at all.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The system gave no thread.
    #[error(
        "action \"{action}\": starting its thread failed: {source}; look at the limits of tasks (ulimit -u, TasksMax=)"
    )]
    Thread {
        /// The action.
        action: Arc<str>,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gave no event queue (epoll) for a network connection.
    #[error(
        "action \"{action}\": starting its network loop failed: {source}; look at the limit of open files (ulimit -n)"
    )]
    Network {
        /// The action.
        action: Arc<str>,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What the actions of one device share; starts them, now and when a configuration brings more.
pub struct Workshop(Arc<Shared>);

impl Workshop {
    /// For the actions of `plans`, of which none is started yet.
    pub fn new(context: ActionContext, plans: &[ActionPlan]) -> Self {
        Self(Shared::new(context, plans))
    }

    /// Another configuration: `rules`, `cameras` and their `views` are those that actions started from now on are told of, `plans` all actions that
    /// there are. Actions that go on are told by [`ActionHandle::reconfigure`].
    pub fn reconfigure(
        &mut self,
        rules: Vec<RuleInfo>,
        (cameras, views): (Vec<Arc<str>>, Vec<Arc<str>>),
        plans: &[ActionPlan],
    ) {
        self.0 = self.0.reconfigured(rules, (cameras, views), plans);
    }

    /// What actions are told of the device now.
    pub fn context(&self) -> &ActionContext {
        &self.0
    }

    /// As [`start`], for some of the plans or all.
    ///
    /// # Errors
    /// As [`start`].
    pub fn start(&self, plans: &[ActionPlan]) -> Result<Vec<ActionHandle>, ActionError> {
        // Collected before the first thread starts: no line waits for another action.
        let prepared: Vec<Prepared<'_>> = plans.iter().map(|plan| Prepared::new(plan, &self.0)).collect();
        prepared.into_iter().map(|prepared| prepared.spawn(&self.0)).collect()
    }
}

/// Starts every action of `plans`, in their order.
///
/// All GPIO lines are driven to their safe level before any thread is started. A line, file or broker that fails is not
/// an error here: its handle is degraded ([`ActionHandle::status`]), the reason is logged, and the action tries again
/// by itself with back-off.
///
/// # Errors
/// [`ActionError`] when the system gives no thread or no event queue; lines opened so far are released at their safe level.
pub fn start(plans: &[ActionPlan], context: ActionContext) -> Result<Vec<ActionHandle>, ActionError> {
    Workshop::new(context, plans).start(plans)
}

/// An action whose line, if it has one, is at its safe level.
enum Prepared<'a> {
    Gpio(Box<gpio::Driver>),
    Mqtt(Arc<str>, &'a MqttPlan),
    Log(Arc<str>, &'a LogPlan),
    Hook(Arc<str>, &'a HookPlan),
    Webhook(Arc<str>, &'a WebhookPlan),
    Snapshot(Arc<str>, &'a SnapshotPlan),
}

impl<'a> Prepared<'a> {
    fn new(plan: &'a ActionPlan, context: &Shared) -> Self {
        let name = plan.name.clone();
        match &plan.kind {
            ActionKind::Gpio(gpio) => Self::Gpio(Box::new(gpio::Driver::open(name, gpio, context.observer.clone()))),
            ActionKind::Mqtt(mqtt) => Self::Mqtt(name, mqtt),
            ActionKind::Log(log) => Self::Log(name, log),
            ActionKind::Hook(hook) => Self::Hook(name, hook),
            ActionKind::Webhook(webhook) => Self::Webhook(name, webhook),
            ActionKind::Snapshot(snapshot) => Self::Snapshot(name, snapshot),
        }
    }

    fn spawn(self, context: &Arc<Shared>) -> Result<ActionHandle, ActionError> {
        match self {
            Self::Gpio(driver) => driver.spawn(),
            Self::Mqtt(name, plan) => mqtt::spawn(name, plan, context),
            Self::Log(name, plan) => log::spawn(name, plan, context),
            Self::Hook(name, plan) => hook::spawn(name, plan, context),
            Self::Webhook(name, plan) => webhook::spawn(name, plan, context),
            Self::Snapshot(name, plan) => snapshot::spawn(name, plan, context),
        }
    }
}

/// FNV-1a, 64 bit (Fowler, Noll, Vo): for names and seeds, not for secrets. Parts are separated, so that
/// `["ab", "c"]` and `["a", "bc"]` differ.
pub(crate) fn fnv1a(parts: &[&[u8]]) -> u64 {
    let separated = parts.iter().flat_map(|part| part.iter().copied().chain([0xff]));
    separated.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
