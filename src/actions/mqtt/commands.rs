//! What a broker may ask of the daemon: `ON` and `OFF` on `TOPIC/DEVICE/rule/RULE/armed/set`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::topics::Topics;
use crate::actions::RuleInfo;
use crate::control::{Command, Control};

/// How much of a payload that is no command is shown.
const SHOWN: usize = 32;

/// The commands of one broker.
pub(super) struct Commands {
    topics: Topics,
    by_topic: Mutex<HashMap<String, Arc<str>>>,
    control: Arc<Control>,
    complained: AtomicBool,
}

impl Commands {
    pub(super) fn new(topics: &Topics, rules: &[RuleInfo], control: Arc<Control>) -> Self {
        let (topics, by_topic) = (topics.clone(), Mutex::default());
        let commands = Self { topics, by_topic, control, complained: AtomicBool::new(false) };
        commands.set_rules(rules);
        commands
    }

    /// The rules that there are now.
    pub(super) fn set_rules(&self, rules: &[RuleInfo]) {
        let armed = rules.iter().filter(|rule| rule.armed_by_mqtt);
        let by_topic = armed.map(|rule| (self.topics.rule_armed_set(&rule.name), rule.name.clone())).collect();
        *self.by_topic.lock().unwrap_or_else(PoisonError::into_inner) = by_topic;
    }

    /// What to subscribe to: one filter for all rules, also for those that a later configuration brings.
    pub(super) fn filter(&self) -> String {
        self.topics.every_rule_armed_set()
    }

    /// Obeys a message, or gives `false` and says so in the log once: whoever sends nonsense sends it often.
    ///
    /// A retained command is none: the broker hands it out again at each connection, and it would undo what was asked later.
    pub(super) fn take(&self, topic: &str, payload: &[u8], retained: bool) -> bool {
        if let Err(problem) = self.obey(topic, payload, retained) {
            if !self.complained.swap(true, Ordering::Relaxed) {
                log::warn!("{}: {problem}; further such messages are only counted", topic.escape_debug());
            }
            return false;
        }
        true
    }

    fn obey(&self, topic: &str, payload: &[u8], retained: bool) -> Result<(), String> {
        let rule = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner).get(topic).cloned();
        let rule = rule.ok_or("no rule is armed by this topic")?;
        if retained {
            return Err("a retained command is not obeyed; publish it without the retain flag".into());
        }
        let armed = match payload {
            b"ON" => true,
            b"OFF" => false,
            other => {
                let text = String::from_utf8_lossy(&other[..other.len().min(SHOWN)]);
                return Err(format!("{text:?} is no command; publish ON or OFF"));
            }
        };
        self.control.send(Command::Arm { rule, armed }).map_err(|full| full.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_of_known_rules_are_obeyed() {
        let rule = |name: &str, armed_by_mqtt| RuleInfo {
            name: name.into(),
            label: name.into(),
            actions: vec![],
            has_switch: armed_by_mqtt,
            armed_by_mqtt,
        };
        let control = Control::new(|| ());
        let topics = Topics::new("spotter", "garden");
        let commands = Commands::new(&topics, &[rule("cat", true), rule("dog", false)], control.clone());
        assert_eq!(commands.filter(), "spotter/garden/rule/+/armed/set");
        let topic = "spotter/garden/rule/cat/armed/set";
        assert!(commands.take(topic, b"OFF", false));
        assert_eq!(control.next(), Some(Command::Arm { rule: "cat".into(), armed: false }));
        for (topic, payload, retained) in [
            (topic, &b"off"[..], false),
            (topic, b"", false),
            (topic, &[0xff; 70_000], false),
            (topic, b"ON", true),
            ("spotter/garden/rule/dog/armed/set", b"ON", false),
            ("spotter/garden/rule/\n/armed/set", b"ON", false),
        ] {
            assert!(!commands.take(topic, payload, retained), "{topic} {retained}");
        }
        assert_eq!(control.next(), None);
        assert!((0..100).any(|_| !commands.take(topic, b"ON", false)), "a full queue refuses");
        while control.next().is_some() {}
        commands.set_rules(&[rule("cat", false), rule("dog", true)]);
        assert!(!commands.take(topic, b"ON", false) && commands.take(&topic.replace("cat", "dog"), b"ON", false));
    }
}
