//! Home Assistant's MQTT discovery: a binary sensor a rule, available while the device is online.
//! Fields: <https://www.home-assistant.io/integrations/binary_sensor.mqtt/>.

use serde::Serialize;

use super::topics::{Topics, object_id};
use crate::actions::RuleInfo;

#[derive(Serialize)]
struct BinarySensor<'a> {
    name: &'a str,
    unique_id: String,
    state_topic: String,
    payload_on: &'static str,
    payload_off: &'static str,
    availability_topic: String,
    payload_available: &'static str,
    payload_not_available: &'static str,
    qos: u8,
    device: Device<'a>,
    origin: Origin,
}

#[derive(Serialize)]
struct Device<'a> {
    identifiers: [String; 1],
    name: &'a str,
    manufacturer: &'static str,
    model: &'static str,
    sw_version: &'static str,
}

#[derive(Serialize)]
struct Origin {
    name: &'static str,
    sw_version: &'static str,
}

/// Topic and payload of the retained discovery message of `rule`, under `prefix` (`homeassistant`).
pub(super) fn message(prefix: &str, device: &str, topics: &Topics, rule: &RuleInfo) -> (String, String) {
    let (node, object) = (object_id(device), object_id(&rule.name));
    let prefix: Vec<&str> = prefix.split('/').filter(|level| !level.is_empty()).collect();
    let sensor = BinarySensor {
        name: &rule.label,
        unique_id: format!("spotter_{node}_{object}"),
        state_topic: topics.rule_state(&rule.name),
        payload_on: "ON",
        payload_off: "OFF",
        availability_topic: topics.status(),
        payload_available: super::ONLINE,
        payload_not_available: super::OFFLINE,
        qos: 1,
        device: Device {
            identifiers: [format!("spotter_{node}")],
            name: device,
            manufacturer: "Spotter",
            model: "camera watcher",
            sw_version: env!("CARGO_PKG_VERSION"),
        },
        origin: Origin { name: "Spotter", sw_version: env!("CARGO_PKG_VERSION") },
    };
    // Strings and numbers only: serde_json does not fail on them.
    let payload = serde_json::to_string(&sensor).unwrap_or_default();
    (format!("{}/binary_sensor/{node}/{object}/config", prefix.join("/")), payload)
}

/// Topic and payload of the retained discovery message of the switch that arms `rule`.
/// Fields: <https://www.home-assistant.io/integrations/switch.mqtt/>.
pub(super) fn switch(prefix: &str, device: &str, topics: &Topics, rule: &RuleInfo) -> (String, String) {
    let (node, object) = (object_id(device), object_id(&rule.name));
    let prefix: Vec<&str> = prefix.split('/').filter(|level| !level.is_empty()).collect();
    let payload = serde_json::json!({
        "name": format!("{} armed", rule.label),
        "unique_id": format!("spotter_{node}_{object}_armed"),
        "state_topic": topics.rule_armed(&rule.name),
        "command_topic": topics.rule_armed_set(&rule.name),
        "payload_on": "ON", "payload_off": "OFF", "retain": false, "qos": 1,
        "availability_topic": topics.status(),
        "payload_available": super::ONLINE, "payload_not_available": super::OFFLINE,
        // The device's other fields come with its sensors.
        "device": { "identifiers": [format!("spotter_{node}")], "name": device },
    });
    (format!("{}/switch/{node}/{object}/config", prefix.join("/")), payload.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_has_what_home_assistant_needs() {
        let rule = RuleInfo {
            name: "wild/cat".into(),
            label: "Wild cat".into(),
            actions: vec![],
            has_switch: true,
            armed_by_mqtt: true,
        };
        let (topic, payload) = switch("ha", "garden", &Topics::new("spotter", "garden"), &rule);
        let json: serde_json::Value = serde_json::from_str(&payload).unwrap();
        assert!(topic.starts_with("ha/switch/garden/wild_cat-"), "{topic}");
        let set = format!("{}/set", json["state_topic"].as_str().unwrap());
        assert_eq!((json["command_topic"].as_str(), &json["retain"]), (Some(&*set), &false.into()));
        let topics = Topics::new("spotter", "my garden");
        let (topic, payload) = message("homeassistant/", "my garden", &topics, &rule);
        let levels: Vec<&str> = topic.split('/').collect();
        let [prefix, component, node, object, config] = levels.as_slice() else { panic!("{topic}") };
        assert_eq!((*prefix, *component, *config), ("homeassistant", "binary_sensor", "config"));
        assert!(node.starts_with("my_garden-") && object.starts_with("wild_cat-"), "{topic}");
        let json: serde_json::Value = serde_json::from_str(&payload).unwrap();
        assert_eq!(json["name"], "Wild cat");
        assert_eq!(json["unique_id"], format!("spotter_{node}_{object}"));
        assert_eq!(json["state_topic"], topics.rule_state("wild/cat"));
        assert_eq!(json["availability_topic"], "spotter/my garden/status");
        assert_eq!((&json["payload_on"], &json["payload_off"]), (&"ON".into(), &"OFF".into()));
        assert_eq!(json["device"]["name"], "my garden");
        assert_eq!(json["device"]["identifiers"][0], format!("spotter_{node}"));
    }
}
