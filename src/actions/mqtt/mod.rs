//! `type = "mqtt"`: states and events to a broker, MQTT 3.1.1 or 5.
//!
//! | topic | payload | |
//! |---|---|---|
//! | `TOPIC/DEVICE/status` | `online`, `offline` | retained; the first message of each connection, and the last will |
//! | `TOPIC/DEVICE/rule/RULE/state` | `ON`, `OFF` | retained; the latest wins over any absence of the broker |
//! | `TOPIC/DEVICE/rule/RULE/armed` | `ON`, `OFF` | retained; of each rule with `armed_by` |
//! | `TOPIC/DEVICE/rule/RULE/armed/set` | `ON`, `OFF` | subscribed to, for rules with `armed_by = "mqtt"`; not to be retained |
//! | `TOPIC/DEVICE/camera/NAME/state` | `{"state":"online"}`, `{"state":"degraded","reason":…}` | retained; likewise |
//! | `TOPIC/DEVICE/event` | one JSON object an event, see [`payload`](super::payload) | in order, from a bounded outbox |
//! | `TOPIC/DEVICE/station/NAME/verdict` | likewise, of a station's verdicts | in order, with the events |
//! | `TOPIC/DEVICE/station/NAME/judge` | subscribed, QoS 2: the part's number or nothing asks for a verdict | not retained |
//! | `TOPIC/DEVICE/camera/NAME/top`, `…/camera/NAME/region/REGION/top` | `{"label":…,"probability":…}` | retained; every 10 s, if it has changed |
//! | `TOPIC/DEVICE/camera/NAME/rate` | `{"frames_per_second":…,"active":…}` | likewise |
//! | `TOPIC/DEVICE/board` | `{"celsius":…,"throttled":…,"thermal_step":…,"refused":…}` | likewise |
//! | `TOPIC/DEVICE/camera/NAME/snapshot` | the frame that last turned a rule on, as JPEG | retained; with `snapshots = true` |
//! | `TOPIC/DEVICE/action/NAME/test` | `PRESS` | subscribed to, with `commands = true`; not to be retained |
//! | `PREFIX/COMPONENT/DEVICE/ENTITY/config` | Home Assistant's discovery | retained; if a prefix is set; empty to remove an entity that is no more |
//!
//! Everything is sent at QoS 1: after a connection breaks, what was not acknowledged is sent again, so that an event can
//! arrive twice, with the same `id`. All states are sent again at each connection.

mod commands;
mod discovery;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod judge;
mod outbox;
mod session;
mod snapshot;
mod tls;
pub mod topics;
mod wire;

#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::take as fuzz;

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use commands::Commands;
use discovery::{Described, Discovery};
use outbox::{MqttOutbox, Teller, Wanted};
use session::Session;
use topics::{Topics, object_id};

use super::pins::Shared;
use super::runner::{self, ActionHandle, StatusCell};
use super::{ActionContext, ActionError, CameraStatus, RuleInfo, fnv1a};
use crate::config::plan::MqttPlan;

const ONLINE: &str = "online";
const OFFLINE: &str = "offline";

pub(super) fn spawn(name: Arc<str>, plan: &MqttPlan, context: &Arc<Shared>) -> Result<ActionHandle, ActionError> {
    let topics = Topics::new(&plan.topic, &context.device);
    let teller = Teller { device: context.device.clone(), topics: topics.clone(), pins: context.pins.clone() };
    let discovery = Arc::new(ArcSwapOption::from_pointee(discovery(&name, plan, &topics, context)));
    let wanted = retained(&name, &topics, context, discovery.load().as_deref());
    let outbox = Arc::new(MqttOutbox::new(teller, plan.outbox, &wanted).with_snapshots(plan.snapshots));
    let waiting = Arc::downgrade(&outbox);
    context.pins.listen(move || waiting.upgrade().map(|outbox| outbox.wake()).is_some());
    let status = Arc::new(StatusCell::new(name.clone()));
    let status_topic = topics.status();
    let (known, control): (&ActionContext, _) = (context, context.control.clone());
    let commands = Arc::new(Commands::new(&topics, plan.commands, &known.rules, &known.pins, control));
    let reconfigure = {
        let (name, plan, topics) = (name.clone(), plan.clone(), topics.clone());
        let (commands, outbox, shown) = (commands.clone(), outbox.clone(), discovery.clone());
        move |context: &ActionContext| {
            commands.set(&context.rules, &context.pins);
            shown.store(self::discovery(&name, &plan, &topics, context).map(Arc::new));
            outbox.want(&retained(&name, &topics, context, shown.load().as_deref()));
        }
    };
    let session = Session::new(session::Parts {
        action: name.clone(),
        client_id: client_id(&context.device, &name),
        plan: plan.clone(),
        status_topic,
        topics,
        control: context.control.clone(),
        discovery,
        outbox: outbox.clone(),
        commands,
        status: status.clone(),
        observer: context.observer.clone(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ActionError::Network { action: name.clone(), source })?;
    let handle = runner::spawn(name, outbox, status, move || {
        runtime.block_on(session.run());
        // Not dropped: a name resolution that hangs would hold up the exit.
        runtime.shutdown_background();
    });
    handle.map(|handle| handle.told_of_changes(reconfigure))
}

/// The rules that feed the action `name`.
fn fed<'a>(name: &str, context: &'a ActionContext) -> Vec<&'a RuleInfo> {
    context.rules.iter().filter(|rule| rule.actions.iter().any(|it| **it == *name)).collect()
}

/// What Home Assistant is told of the action `name`, if it is.
fn discovery(name: &str, plan: &MqttPlan, topics: &Topics, context: &ActionContext) -> Option<Discovery> {
    let described = Described {
        plan,
        device: &context.device,
        topics,
        rules: &fed(name, context),
        armed: &context.rules.iter().filter(|rule| rule.armed_by_mqtt).collect::<Vec<_>>(),
        cameras: &context.cameras,
        views: &context.views,
        pins: &context.pins,
    };
    plan.discovery.as_ref().map(|prefix| Discovery::new(prefix, &described))
}

/// The retained topics of the action `name`. Every rule is off and every camera without a frame until somebody says otherwise: what a
/// former run left on the broker is corrected at the first connection.
fn retained(name: &str, topics: &Topics, context: &ActionContext, discovery: Option<&Discovery>) -> Vec<Wanted> {
    let entities = discovery.iter().flat_map(|discovery| &discovery.entities);
    let mut wanted: Vec<_> = entities.map(|(topic, payload)| Wanted::Fixed(topic.clone(), payload.clone())).collect();
    let rules = fed(name, context);
    wanted.extend(rules.iter().map(|rule| Wanted::First(topics.rule_state(&rule.name), "OFF".into())));
    for camera in &context.cameras {
        let unseen = CameraStatus { camera: camera.clone(), healthy: false, reason: Some("no frame yet".to_owned()) };
        wanted.push(Wanted::First(topics.camera_state(camera), outbox::camera_payload(&unseen)));
        wanted.extend([topics.camera_rate(camera), topics.camera_snapshot(camera)].map(Wanted::Later));
    }
    let switched = context.rules.iter().filter(|rule| rule.has_switch);
    wanted.extend(switched.map(|rule| Wanted::Later(topics.rule_armed(&rule.name))));
    wanted.extend(context.views.iter().map(|view| Wanted::Later(topics.top(view))));
    wanted.push(Wanted::Later(topics.board()));
    wanted
}

/// `spotter-DEVICE-HASH`: the hash of this machine's id and the action's name tells apart boards that were given one
/// name, and two actions of one board at one broker. A broker ends the older of two connections with one client id.
fn client_id(device: &str, action: &str) -> String {
    let machine = ["/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/random/boot_id"]
        .iter()
        .find_map(|path| std::fs::read(Path::new(path)).ok().filter(|id| !id.is_empty()))
        .unwrap_or_default();
    format!("spotter-{}-{:08x}", object_id(device), fnv1a(&[&machine, action.as_bytes()]) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_stable_and_told_apart() {
        let id = client_id("garden", "broker");
        assert!(id.starts_with("spotter-garden-") && id.len() == "spotter-garden-".len() + 8, "{id}");
        assert_eq!(id, client_id("garden", "broker"));
        assert_ne!(id, client_id("garden", "cloud"));
    }
}
