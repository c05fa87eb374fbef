//! What a broker may ask of the daemon: `ON` and `OFF` on `TOPIC/DEVICE/rule/RULE/armed/set`, and, where the configuration has
//! `commands = true`, `PRESS` on `TOPIC/DEVICE/action/ACTION/test`. Who may publish there is the broker's access list's business.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::topics::Topics;
use crate::actions::RuleInfo;
use crate::control::{Command, Control};

/// How much of a payload that is no command is shown.
const SHOWN: usize = 32;

/// The payload that tests a pin; Home Assistant's own for a button.
pub(super) const PRESS: &str = "PRESS";

/// What a topic is for.
#[derive(Clone, Debug)]
enum Target {
    /// Arms a rule.
    Arm(Arc<str>),
    /// Tests the pin of an action.
    Test(Arc<str>),
}

/// The commands of one broker.
pub(super) struct Commands {
    topics: Topics,
    /// It may test pins.
    tests: bool,
    by_topic: Mutex<HashMap<String, Target>>,
    control: Arc<Control>,
    complained: AtomicBool,
}

impl Commands {
    /// For the `rules` that a broker may arm, and, if it `tests`, the actions that drive `pins`.
    pub(super) fn new(
        topics: &Topics,
        tests: bool,
        rules: &[RuleInfo],
        pins: &[Arc<str>],
        control: Arc<Control>,
    ) -> Self {
        let (topics, by_topic) = (topics.clone(), Mutex::default());
        let commands = Self { topics, tests, by_topic, control, complained: AtomicBool::new(false) };
        commands.set(rules, pins);
        commands
    }

    /// The rules and pins that there are now.
    pub(super) fn set(&self, rules: &[RuleInfo], pins: &[Arc<str>]) {
        let armed = rules.iter().filter(|rule| rule.armed_by_mqtt);
        let arms = armed.map(|rule| (self.topics.rule_armed_set(&rule.name), Target::Arm(rule.name.clone())));
        let tested = pins.iter().filter(|_| self.tests);
        let tests = tested.map(|pin| (self.topics.pin_test(pin), Target::Test(pin.clone())));
        *self.by_topic.lock().unwrap_or_else(PoisonError::into_inner) = arms.chain(tests).collect();
    }

    /// What to subscribe to: one filter for all rules, one for all pins, also for those that a later configuration brings.
    pub(super) fn filters(&self) -> Vec<String> {
        let pins = self.tests.then(|| self.topics.every_pin_test());
        std::iter::once(self.topics.every_rule_armed_set()).chain(pins).collect()
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
        let target = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner).get(topic).cloned();
        let target = target.ok_or("nothing is asked for by this topic")?;
        if retained {
            return Err("a retained command is not obeyed; publish it without the retain flag".into());
        }
        let command = match (target, payload) {
            (Target::Arm(rule), b"ON" | b"OFF") => Command::Arm { rule, armed: payload == b"ON" },
            (Target::Test(action), payload) if payload == PRESS.as_bytes() => Command::TestPin { action },
            (target, other) => {
                let text = String::from_utf8_lossy(&other[..other.len().min(SHOWN)]);
                let words = if matches!(target, Target::Arm(_)) { "ON or OFF" } else { PRESS };
                return Err(format!("{text:?} is no command; publish {words}"));
            }
        };
        self.control.send(command).map_err(|full| full.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_of_known_rules_and_pins_are_obeyed() {
        let rule = |name: &str, armed_by_mqtt| RuleInfo {
            name: name.into(),
            label: name.into(),
            actions: vec![],
            has_switch: armed_by_mqtt,
            armed_by_mqtt,
        };
        let control = Control::new(|| ());
        let topics = Topics::new("spotter", "garden");
        let (rules, pins) = ([rule("cat", true), rule("dog", false)], ["siren".into()]);
        let commands = Commands::new(&topics, true, &rules, &pins, control.clone());
        assert_eq!(commands.filters(), ["spotter/garden/rule/+/armed/set", "spotter/garden/action/+/test"]);
        let (topic, test) = ("spotter/garden/rule/cat/armed/set", "spotter/garden/action/siren/test");
        assert!(commands.take(topic, b"OFF", false) && commands.take(test, b"PRESS", false));
        assert_eq!(control.next(), Some(Command::Arm { rule: "cat".into(), armed: false }));
        assert_eq!(control.next(), Some(Command::TestPin { action: "siren".into() }));
        for (topic, payload, retained) in [
            (topic, &b"off"[..], false),
            (topic, b"", false),
            (topic, &[0xff; 70_000], false),
            (topic, b"ON", true),
            (topic, b"PRESS", false),
            (test, b"ON", false),
            (test, b"PRESS", true),
            ("spotter/garden/action/broker/test", b"PRESS", false),
            ("spotter/garden/rule/dog/armed/set", b"ON", false),
            ("spotter/garden/rule/\n/armed/set", b"ON", false),
        ] {
            assert!(!commands.take(topic, payload, retained), "{topic} {retained}");
        }
        assert_eq!(control.next(), None);
        assert!((0..100).any(|_| !commands.take(topic, b"ON", false)), "a full queue refuses");
        while control.next().is_some() {}
        let deaf = Commands::new(&topics, false, &rules, &pins, control.clone());
        assert!(!deaf.take(test, b"PRESS", false) && deaf.filters().len() == 1);
        commands.set(&[rule("cat", false), rule("dog", true)], &[]);
        assert!(!commands.take(test, b"PRESS", false));
        assert!(!commands.take(topic, b"ON", false) && commands.take(&topic.replace("cat", "dog"), b"ON", false));
    }
}
