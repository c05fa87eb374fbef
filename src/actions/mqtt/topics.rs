//! Topic names, and the names that Home Assistant allows.

use crate::actions::fnv1a;

/// The topics of one device: `TOPIC/DEVICE/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    base: String,
}

impl Topics {
    /// `prefix` may have several levels (`home/spotter`).
    pub fn new(prefix: &str, device: &str) -> Self {
        let levels = prefix.split('/').filter(|level| !level.is_empty()).map(level);
        Self { base: levels.chain([level(device)]).collect::<Vec<_>>().join("/") }
    }

    /// What all topics begin with.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `online` or `offline`, retained; the last will.
    pub fn status(&self) -> String {
        format!("{}/status", self.base)
    }

    /// One JSON object an event.
    pub fn event(&self) -> String {
        format!("{}/event", self.base)
    }

    /// The filter of the topics that ask a station for a verdict; the payload is the part's number, or empty.
    pub fn judge_filter(&self) -> String {
        format!("{}/station/+/judge", self.base)
    }

    /// The station that a topic asks.
    pub fn station_asked<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(&self.base)?.strip_prefix("/station/")?.strip_suffix("/judge").filter(|it| !it.contains('/'))
    }

    /// One JSON object a verdict.
    pub fn verdict(&self, station: &str) -> String {
        format!("{}/station/{}/verdict", self.base, level(station))
    }

    /// `ON` or `OFF`, retained.
    pub fn rule_state(&self, rule: &str) -> String {
        format!("{}/rule/{}/state", self.base, level(rule))
    }

    /// `ON` or `OFF`, retained: whether the rule is armed.
    pub fn rule_armed(&self, rule: &str) -> String {
        format!("{}/rule/{}/armed", self.base, level(rule))
    }

    /// Where `ON` and `OFF` arm and disarm the rule.
    pub fn rule_armed_set(&self, rule: &str) -> String {
        format!("{}/set", self.rule_armed(rule))
    }

    /// The filter of [`Topics::rule_armed_set`] of every rule.
    pub fn every_rule_armed_set(&self) -> String {
        format!("{}/rule/+/armed/set", self.base)
    }

    /// `{"frames_per_second":…,"active":…}`, retained.
    pub fn camera_rate(&self, camera: &str) -> String {
        format!("{}/camera/{}/rate", self.base, level(camera))
    }

    /// The frame that last turned a rule on, as JPEG, retained.
    pub fn camera_snapshot(&self, camera: &str) -> String {
        format!("{}/camera/{}/snapshot", self.base, level(camera))
    }

    /// `{"label":…,"probability":…}`, retained, of a `camera` or `camera/region`.
    pub fn top(&self, view: &str) -> String {
        match view.split_once('/') {
            Some((camera, region)) => format!("{}/camera/{}/region/{}/top", self.base, level(camera), level(region)),
            None => format!("{}/camera/{}/top", self.base, level(view)),
        }
    }

    /// `{"celsius":…,"throttled":…,"thermal_step":…,"refused":…}`, retained.
    pub fn board(&self) -> String {
        format!("{}/board", self.base)
    }

    /// Where `PRESS` tests the pin of an action.
    pub fn pin_test(&self, action: &str) -> String {
        format!("{}/action/{}/test", self.base, level(action))
    }

    /// The filter of [`Topics::pin_test`] of every action.
    pub fn every_pin_test(&self) -> String {
        format!("{}/action/+/test", self.base)
    }

    /// `{"state":"online"}` or `{"state":"degraded","reason":…}`, retained.
    pub fn camera_state(&self, camera: &str) -> String {
        format!("{}/camera/{}/state", self.base, level(camera))
    }
}

/// `name` as one level of a topic: what MQTT forbids or reads otherwise (`/`, `+`, `#`, control characters) becomes
/// `_`, and then a hash of the name follows, so that two names never share a topic.
fn level(name: &str) -> String {
    mend(name, |letter| !matches!(letter, '/' | '+' | '#') && !letter.is_control())
}

/// `name` as Home Assistant's discovery wants a node or object id: letters, digits, `_` and `-`.
pub fn object_id(name: &str) -> String {
    mend(name, |letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-'))
}

fn mend(name: &str, allowed: impl Fn(char) -> bool) -> String {
    let mended: String = name.chars().map(|letter| if allowed(letter) { letter } else { '_' }).collect();
    if mended == name && !name.is_empty() {
        return mended;
    }
    format!("{mended}-{:08x}", fnv1a(&[name.as_bytes()]) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_as_documented() {
        for (prefix, device, base) in [
            ("spotter", "garden", "spotter/garden"),
            ("home/spotter/", "garden", "home/spotter/garden"),
            ("spotter", "my garden", "spotter/my garden"),
        ] {
            let topics = Topics::new(prefix, device);
            assert_eq!(topics.status(), format!("{base}/status"));
            assert_eq!(topics.event(), format!("{base}/event"));
            assert_eq!(topics.rule_state("cat"), format!("{base}/rule/cat/state"));
            assert_eq!(topics.rule_armed("cat"), format!("{base}/rule/cat/armed"));
            assert_eq!(topics.rule_armed_set("cat"), format!("{base}/rule/cat/armed/set"));
            assert_eq!(topics.camera_state("feeder"), format!("{base}/camera/feeder/state"));
            assert_eq!(topics.camera_rate("feeder"), format!("{base}/camera/feeder/rate"));
            assert_eq!(topics.camera_snapshot("feeder"), format!("{base}/camera/feeder/snapshot"));
            assert_eq!(topics.top("feeder"), format!("{base}/camera/feeder/top"));
            assert_eq!(topics.top("feeder/perch"), format!("{base}/camera/feeder/region/perch/top"));
            assert_eq!(topics.board(), format!("{base}/board"));
            assert_eq!(topics.pin_test("siren"), format!("{base}/action/siren/test"));
        }
    }

    #[test]
    fn wildcards_and_levels_never_reach_a_topic() {
        for name in ["a/b", "a+b", "a#b", "a\0b", "a\nb", ""] {
            let topic = Topics::new("spotter", "garden").rule_state(name);
            assert_eq!(topic.matches('/').count(), 4, "{topic:?}");
            assert!(!topic.contains(['+', '#', '\0', '\n']), "{topic:?}");
        }
        assert_ne!(level("a/b"), level("a+b"));
        assert_ne!(level("a/b"), level("a_b"));
    }

    #[test]
    fn object_ids_have_only_what_home_assistant_allows() {
        assert_eq!(object_id("wild_cat-2"), "wild_cat-2");
        for name in ["front door", "Tür", "a/b", ""] {
            let id = object_id(name);
            assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'), "{id}");
            assert!(!id.is_empty());
        }
        assert_ne!(object_id("front door"), object_id("front_door"));
    }
}
