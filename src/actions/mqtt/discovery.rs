//! Home Assistant's MQTT discovery (<https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>): one retained message an
//! entity, all entities in one device that is available while the last will has not been published.
//!
//! A message an entity and not one a device: Home Assistant understands device messages since 2024.11 only, and an entity
//! that is gone is then removed by an empty message on its own topic, which needs no memory of what was published.

use std::sync::Arc;

use serde_json::{Value, json};

use super::topics::{Topics, object_id};
use crate::actions::RuleInfo;
use crate::config::plan::MqttPlan;

/// What marks our messages among others'.
const ORIGIN: &str = "Spotter";

/// What the entities are made for.
pub(super) struct Described<'a> {
    pub(super) plan: &'a MqttPlan,
    pub(super) device: &'a str,
    pub(super) topics: &'a Topics,
    /// Those whose states this broker is told.
    pub(super) rules: &'a [&'a RuleInfo],
    /// Those that it may arm.
    pub(super) armed: &'a [&'a RuleInfo],
    pub(super) cameras: &'a [Arc<str>],
    /// `camera` or `camera/region`.
    pub(super) views: &'a [Arc<str>],
    /// Actions that drive a pin.
    pub(super) pins: &'a [Arc<str>],
}

/// The device's entities under one prefix.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    prefix: String,
    node: String,
    /// Where the device's own topics begin.
    base: String,
    /// Topic and payload of each entity.
    pub(super) entities: Vec<(String, String)>,
}

impl Discovery {
    /// Under `prefix` (`homeassistant`).
    pub(super) fn new(prefix: &str, described: &Described<'_>) -> Self {
        let levels: Vec<&str> = prefix.split('/').filter(|level| !level.is_empty()).collect();
        let topic = described.plan.topic.trim_matches('/');
        // Two boards of one name at one broker differ in their topic, and so do their entities.
        let node = match topic == crate::config::defaults::DEFAULT_TOPIC {
            true => object_id(described.device),
            false => object_id(&format!("{topic}/{}", described.device)),
        };
        let base = described.topics.base().to_owned();
        let mut discovery = Self { prefix: levels.join("/"), node, base, entities: Vec::new() };
        described.rules.iter().for_each(|rule| discovery.rule(described, rule));
        described.armed.iter().for_each(|rule| discovery.switch(described, rule));
        described.views.iter().for_each(|view| discovery.view(described, view));
        described.cameras.iter().for_each(|camera| discovery.camera(described, camera));
        discovery.board(described);
        if described.plan.commands {
            described.pins.iter().for_each(|pin| discovery.button(described, pin));
        }
        discovery
    }

    /// The filter of every entity of this device, whoever published it.
    pub(super) fn own_filter(&self) -> String {
        format!("{}/+/{}/+/config", self.prefix, self.node)
    }

    /// Where Home Assistant says that it has started: under its default prefix whatever the prefix of discovery is.
    pub(super) fn birth_topics(&self) -> Vec<String> {
        let mut topics = vec![format!("{}/status", crate::config::defaults::DEFAULT_DISCOVERY)];
        let own = format!("{}/status", self.prefix);
        topics.extend((own != topics[0]).then_some(own));
        topics
    }

    /// Whether `topic` is one that [`Self::own_filter`] stands for.
    pub(super) fn is_own(&self, topic: &str) -> bool {
        let rest = topic.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('/'));
        let levels: Vec<&str> = rest.map(|rest| rest.split('/').collect()).unwrap_or_default();
        matches!(levels.as_slice(), [_, node, _, "config"] if *node == self.node)
    }

    /// The topics to be emptied because of a retained message on an own topic: those of an entity that an earlier run made, and
    /// that is no more. Others' entities, and those that still are, give none.
    pub(super) fn stale(&self, topic: &str, payload: &[u8]) -> Vec<String> {
        if !self.is_own(topic) || self.entities.iter().any(|(own, _)| own == topic) {
            return Vec::new();
        }
        let Ok(json) = serde_json::from_slice::<Value>(payload) else { return Vec::new() };
        if json["origin"]["name"] != ORIGIN {
            return Vec::new();
        }
        // Its state too, unless another entity shows the same.
        let state = json["state_topic"].as_str().filter(|state| state.starts_with(&format!("{}/rule/", self.base)));
        let shared = |state: &&str| self.entities.iter().any(|(_, payload)| payload.contains(&format!("{state:?}")));
        let state = state.filter(|state| !shared(state)).map(str::to_owned);
        std::iter::once(topic.to_owned()).chain(state).collect()
    }

    /// Adds an entity: `fields` beside those that all have.
    fn add(&mut self, described: &Described<'_>, component: &str, object: &str, id: &str, fields: Value) {
        let node = &self.node;
        let mut payload = json!({
            "unique_id": format!("spotter_{node}_{id}"),
            "availability_topic": described.topics.status(),
            "payload_available": super::ONLINE,
            "payload_not_available": super::OFFLINE,
            "qos": 1,
            "device": {
                "identifiers": [format!("spotter_{node}")],
                "name": described.device,
                "manufacturer": "Spotter",
                "model": "camera watcher",
                "sw_version": env!("CARGO_PKG_VERSION"),
            },
            "origin": { "name": ORIGIN, "sw_version": env!("CARGO_PKG_VERSION") },
        });
        if let (Value::Object(payload), Value::Object(fields)) = (&mut payload, fields) {
            payload.extend(fields);
        }
        let topic = format!("{}/{component}/{node}/{object}/config", self.prefix);
        self.entities.push((topic, payload.to_string()));
    }

    /// <https://www.home-assistant.io/integrations/binary_sensor.mqtt/>
    fn rule(&mut self, described: &Described<'_>, rule: &RuleInfo) {
        let id = object_id(&rule.name);
        let fields = json!({
            "name": rule.label,
            "state_topic": described.topics.rule_state(&rule.name),
            "payload_on": "ON", "payload_off": "OFF",
        });
        self.add(described, "binary_sensor", &id, &id, fields);
    }

    /// <https://www.home-assistant.io/integrations/switch.mqtt/>
    fn switch(&mut self, described: &Described<'_>, rule: &RuleInfo) {
        let id = object_id(&rule.name);
        let fields = json!({
            "name": format!("{} armed", rule.label),
            "state_topic": described.topics.rule_armed(&rule.name),
            "command_topic": described.topics.rule_armed_set(&rule.name),
            "payload_on": "ON", "payload_off": "OFF", "retain": false,
        });
        self.add(described, "switch", &id, &format!("{id}_armed"), fields);
    }

    /// What a view is taken for, and how surely: <https://www.home-assistant.io/integrations/sensor.mqtt/>
    fn view(&mut self, described: &Described<'_>, view: &str) {
        let (id, name, topic) = (object_id(view), view.replace(['_', '-', '/'], " "), described.topics.top(view));
        let class = json!({
            "name": format!("{name} class"), "icon": "mdi:eye",
            "state_topic": topic, "value_template": "{{ value_json.label }}",
        });
        self.add(described, "sensor", &format!("{id}_class"), &format!("{id}_class"), class);
        let probability = json!({
            "name": format!("{name} probability"), "icon": "mdi:percent",
            "state_topic": topic, "value_template": "{{ (value_json.probability * 100) | round(0) }}",
            "unit_of_measurement": "%", "state_class": "measurement",
        });
        self.add(described, "sensor", &format!("{id}_probability"), &format!("{id}_probability"), probability);
    }

    fn camera(&mut self, described: &Described<'_>, camera: &str) {
        let (id, name) = (object_id(camera), camera.replace(['_', '-'], " "));
        // A rule may be called as a camera is.
        let health_id = object_id(&format!("{camera}/health"));
        let health = json!({
            "name": format!("{name} camera"), "device_class": "connectivity", "entity_category": "diagnostic",
            "state_topic": described.topics.camera_state(camera),
            "value_template": "{{ 'ON' if value_json.state == 'online' else 'OFF' }}",
        });
        self.add(described, "binary_sensor", &health_id, &health_id, health);
        let rate = json!({
            "name": format!("{name} frames a second"), "icon": "mdi:camera-timer", "entity_category": "diagnostic",
            "state_topic": described.topics.camera_rate(camera), "value_template": "{{ value_json.frames_per_second }}",
            "state_class": "measurement",
        });
        self.add(described, "sensor", &format!("{id}_rate"), &format!("{id}_rate"), rate);
        if described.plan.snapshots {
            // <https://www.home-assistant.io/integrations/image.mqtt/>
            let image = json!({
                "name": format!("{name} snapshot"), "content_type": "image/jpeg",
                "image_topic": described.topics.camera_snapshot(camera),
            });
            self.add(described, "image", &id, &format!("{id}_snapshot"), image);
        }
    }

    fn board(&mut self, described: &Described<'_>) {
        let temperature = json!({
            "name": "temperature", "device_class": "temperature", "unit_of_measurement": "°C",
            "state_class": "measurement", "entity_category": "diagnostic",
            "state_topic": described.topics.board(), "value_template": "{{ value_json.celsius }}",
        });
        // No camera or view has such an id: a name has no `/`.
        let id = object_id("board/temperature");
        self.add(described, "sensor", &id, &id, temperature);
        let refused = json!({
            "name": "configuration refused", "device_class": "problem", "entity_category": "diagnostic",
            "state_topic": described.topics.board(),
            "value_template": "{{ 'ON' if value_json.refused else 'OFF' }}",
        });
        let id = object_id("board/refused");
        self.add(described, "binary_sensor", &id, &id, refused);
    }

    /// <https://www.home-assistant.io/integrations/button.mqtt/>
    fn button(&mut self, described: &Described<'_>, pin: &str) {
        let id = object_id(pin);
        let fields = json!({
            "name": format!("test {}", pin.replace(['_', '-'], " ")), "icon": "mdi:electric-switch",
            "command_topic": described.topics.pin_test(pin), "payload_press": super::commands::PRESS,
            "retain": false, "entity_category": "diagnostic",
        });
        self.add(described, "button", &id, &format!("{id}_test"), fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> MqttPlan {
        let text = format!(
            "[model]\npath = \"m\"\n[[camera]]\nname = \"c\"\ndevice = \"d\"\n\
             [action.b]\ntype = \"mqtt\"\nurl = \"mqtt://h\"\n{text}"
        );
        let plan = crate::config::parse(&text, std::path::Path::new("f.toml"), &|_| None).unwrap();
        match plan.actions.into_iter().next().unwrap().kind {
            crate::config::plan::ActionKind::Mqtt(plan) => plan,
            other => panic!("{other:?}"),
        }
    }

    fn rule(name: &str) -> RuleInfo {
        RuleInfo { name: name.into(), label: "A label".into(), actions: vec![], has_switch: true, armed_by_mqtt: true }
    }

    fn discovery(text: &str, device: &str, names: [&str; 3]) -> Discovery {
        let plan = plan(text);
        let [rule_name, camera, region] = names;
        let (rule, topics) = (rule(rule_name), Topics::new(&plan.topic, device));
        let view = format!("{camera}/{region}");
        Discovery::new(
            "homeassistant/",
            &Described {
                plan: &plan,
                device,
                topics: &topics,
                rules: &[&rule],
                armed: &[&rule],
                cameras: &[camera.into()],
                views: &[view.as_str().into(), camera.into()],
                pins: &["siren".into()],
            },
        )
    }

    fn field<'a>(discovery: &'a Discovery, component: &str) -> (&'a str, Value) {
        let marked = format!("/{component}/");
        let (topic, payload) = discovery.entities.iter().find(|(topic, _)| topic.contains(&marked)).unwrap();
        (topic, serde_json::from_str(payload).unwrap())
    }

    #[test]
    fn entities_are_told_apart_and_named_as_home_assistant_allows() {
        let all = "commands = true\nsnapshots = true";
        for (device, names) in [
            ("garden", ["cat", "feeder", "perch"]),
            // Names that would be joined to the same id, and a device's name with what a topic does not take.
            ("my garden", ["a", "a", "a_class"]),
            ("gärten/2", ["feeder_rate", "feeder", "rate"]),
        ] {
            let discovery = discovery(all, device, names);
            assert_eq!(discovery.entities.len(), 12, "{device}");
            let mut seen = std::collections::HashSet::new();
            for (topic, payload) in &discovery.entities {
                assert!(discovery.is_own(topic), "{topic}");
                let ids = topic.split('/').skip(2).take(2).collect::<Vec<_>>().join("_");
                assert!(ids.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)), "{topic}");
                let json: Value = serde_json::from_str(payload).unwrap();
                assert_eq!(json["availability_topic"], Topics::new("spotter", device).status(), "{topic}");
                assert_eq!(json["device"]["name"], device);
                // Home Assistant tells entities apart by component and unique id.
                let component = topic.split('/').nth(1).unwrap();
                assert!(seen.insert((component.to_owned(), json["unique_id"].to_string())), "{topic}: {payload}");
            }
        }
    }

    #[test]
    fn commands_and_pictures_are_offered_only_where_they_are_configured() {
        let quiet = discovery("", "garden", ["cat", "feeder", "perch"]);
        assert!(!quiet.entities.iter().any(|(topic, _)| topic.contains("/button/") || topic.contains("/image/")));
        let loud = discovery("commands = true\nsnapshots = true", "garden", ["cat", "feeder", "perch"]);
        assert_eq!(field(&loud, "button").1["command_topic"], "spotter/garden/action/siren/test");
        assert_eq!(field(&loud, "image").1["image_topic"], "spotter/garden/camera/feeder/snapshot");
        let (topic, sensor) = field(&loud, "binary_sensor");
        assert_eq!(topic, "homeassistant/binary_sensor/garden/cat/config");
        assert_eq!(
            (&sensor["state_topic"], &sensor["payload_on"]),
            (&"spotter/garden/rule/cat/state".into(), &"ON".into())
        );
        assert_eq!((&sensor["name"], &sensor["unique_id"]), (&"A label".into(), &"spotter_garden_cat".into()));
        let (topic, switch) = field(&loud, "switch");
        assert_eq!(topic, "homeassistant/switch/garden/cat/config");
        assert_eq!(switch["command_topic"], format!("{}/set", switch["state_topic"].as_str().unwrap()));
        assert_eq!(switch["retain"], false);
    }

    #[test]
    fn boards_of_one_name_under_different_topics_do_not_share_entities() {
        let ids = |text: &str| discovery(text, "garden", ["cat", "feeder", "perch"]).own_filter();
        assert_eq!(ids(""), "homeassistant/+/garden/+/config");
        assert_ne!(ids("topic = \"home/a\""), ids("topic = \"home/b\""));
        assert_ne!(ids("topic = \"home/a\""), ids(""));
    }

    #[test]
    fn only_our_own_entities_that_are_no_more_are_removed() {
        let now = discovery("", "garden", ["cat", "feeder", "perch"]);
        let before = discovery("", "garden", ["dog", "feeder", "perch"]);
        let stale = |topic: &str, payload: &str| now.stale(topic, payload.as_bytes());
        for (topic, payload) in &before.entities {
            let gone = topic.contains("/dog/");
            let emptied = stale(topic, payload);
            assert_eq!(!emptied.is_empty(), gone, "{topic}");
            if topic.contains("/binary_sensor/") && gone {
                assert_eq!(emptied, [topic.clone(), "spotter/garden/rule/dog/state".to_owned()]);
            }
        }
        let dog = "homeassistant/binary_sensor/garden/dog/config";
        for (topic, payload) in [
            (dog, ""),
            (dog, "{\"name\": \"somebody else's\"}"),
            (dog, "{\"origin\": {\"name\": \"Zigbee2MQTT\"}}"),
            ("homeassistant/binary_sensor/terrace/dog/config", "{\"origin\": {\"name\": \"Spotter\"}}"),
            ("homeassistant/binary_sensor/garden/config", "{\"origin\": {\"name\": \"Spotter\"}}"),
        ] {
            assert_eq!(stale(topic, payload), Vec::<String>::new(), "{topic} {payload}");
        }
        // A state that is not this device's stays.
        let foreign = "{\"origin\": {\"name\": \"Spotter\"}, \"state_topic\": \"spotter/terrace/rule/dog/state\"}";
        assert_eq!(stale(dog, foreign), [dog]);
        assert_eq!(now.birth_topics(), ["homeassistant/status"]);
    }
}
