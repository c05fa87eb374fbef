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
//! | `PREFIX/binary_sensor/DEVICE/RULE/config`, `PREFIX/switch/DEVICE/RULE/config` | Home Assistant's discovery | retained; if a prefix is set |
//!
//! Everything is sent at QoS 1: after a connection breaks, what was not acknowledged is sent again, so that an event can
//! arrive twice, with the same `id`. All states are sent again at each connection.

mod commands;
mod discovery;
mod judge;
mod outbox;
mod session;
mod tls;
pub mod topics;
mod wire;

use std::path::Path;
use std::sync::Arc;

use commands::Commands;
use outbox::{MqttOutbox, Teller, Wanted};
use session::Session;
use topics::{Topics, object_id};

use super::pins::Shared;
use super::runner::{self, ActionHandle, StatusCell};
use super::{ActionContext, ActionError, CameraStatus, fnv1a};
use crate::config::plan::MqttPlan;

const ONLINE: &str = "online";
const OFFLINE: &str = "offline";

pub(super) fn spawn(name: Arc<str>, plan: &MqttPlan, context: &Arc<Shared>) -> Result<ActionHandle, ActionError> {
    let topics = Topics::new(&plan.topic, &context.device);
    let teller = Teller { device: context.device.clone(), topics: topics.clone(), pins: context.pins.clone() };
    let outbox = Arc::new(MqttOutbox::new(teller, plan.outbox, &retained(&name, plan, &topics, context)));
    let waiting = Arc::downgrade(&outbox);
    context.pins.listen(move || waiting.upgrade().map(|outbox| outbox.wake()).is_some());
    let status = Arc::new(StatusCell::new(name.clone()));
    let status_topic = topics.status();
    let commands = Arc::new(Commands::new(&topics, &context.rules, context.control.clone()));
    let reconfigure = {
        let (name, plan, topics) = (name.clone(), plan.clone(), topics.clone());
        let (commands, outbox) = (commands.clone(), outbox.clone());
        move |context: &ActionContext| {
            commands.set_rules(&context.rules);
            outbox.want(&retained(&name, &plan, &topics, context));
        }
    };
    let session = Session::new(session::Parts {
        action: name.clone(),
        client_id: client_id(&context.device, &name),
        plan: plan.clone(),
        status_topic,
        topics,
        control: context.control.clone(),
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

/// The retained topics of the action `name`. Every rule is off and every camera without a frame until somebody says otherwise: what a
/// former run left on the broker is corrected at the first connection.
fn retained(name: &str, plan: &MqttPlan, topics: &Topics, context: &ActionContext) -> Vec<Wanted> {
    let rules: Vec<_> = context.rules.iter().filter(|rule| rule.actions.iter().any(|it| **it == *name)).collect();
    let mut wanted = Vec::new();
    if let Some(prefix) = &plan.discovery {
        let switches = context.rules.iter().filter(|rule| rule.armed_by_mqtt);
        let sensors = rules.iter().map(|rule| discovery::message(prefix, &context.device, topics, rule));
        let all = sensors.chain(switches.map(|rule| discovery::switch(prefix, &context.device, topics, rule)));
        wanted.extend(all.map(|(topic, payload)| Wanted::Fixed(topic, payload)));
    }
    wanted.extend(rules.iter().map(|rule| Wanted::First(topics.rule_state(&rule.name), "OFF".into())));
    wanted.extend(context.cameras.iter().map(|camera| {
        let unseen = CameraStatus { camera: camera.clone(), healthy: false, reason: Some("no frame yet".to_owned()) };
        Wanted::First(topics.camera_state(camera), outbox::camera_payload(&unseen))
    }));
    let switched = context.rules.iter().filter(|rule| rule.has_switch);
    wanted.extend(switched.map(|rule| Wanted::Later(topics.rule_armed(&rule.name))));
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
