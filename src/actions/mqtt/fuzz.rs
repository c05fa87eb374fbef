//! What a broker may send, for the fuzzer.

use prost::bytes::BytesMut;

use super::commands::{Commands, PRESS};
use super::judge;
use super::topics::Topics;
use super::wire::{self, Heard};
use crate::actions::RuleInfo;
use crate::control::{Command, Control};

/// The bytes as packets of MQTT 3.1.1 and 5, and as `FLAGS TOPIC NUL PAYLOAD`: bit 0 of the flags retains, bit 1 has the topic lie
/// below the device's own. Only an order that is one, and is not retained, is passed on.
pub(crate) fn take(data: &[u8]) {
    read_packets(data);
    let Some((flags, rest)) = data.split_first() else { return };
    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    let (topic, payload) = (String::from_utf8_lossy(&rest[..end]), &rest[(end + 1).min(rest.len())..]);
    let topic = if flags & 2 == 0 { topic.into_owned() } else { format!("spotter/garden/{topic}") };
    obey(Heard { topic, payload: payload.to_vec(), retained: flags & 1 != 0 });
}

/// A client's parser ends a broken stream with an error; it must not end the daemon.
fn read_packets(data: &[u8]) {
    let (in_size, _) = wire::LARGEST;
    let mut stream = BytesMut::from(data);
    while rumqttc::Packet::read(&mut stream, in_size).is_ok() {}
    let mut stream = BytesMut::from(data);
    while rumqttc::v5::mqttbytes::v5::Packet::read(&mut stream, u32::try_from(in_size).ok()).is_ok() {}
}

fn obey(message: Heard) {
    let (topics, control) = (Topics::new("spotter", "garden"), Control::new(|| ()));
    let rule = |name: &str, armed_by_mqtt| RuleInfo {
        name: name.into(),
        label: name.into(),
        actions: vec![],
        has_switch: armed_by_mqtt,
        armed_by_mqtt,
    };
    let rules = [rule("cat", true), rule("dog", false)];
    let commands = Commands::new(&topics, true, &rules, &["buzzer".into()], control.clone());
    let asked = judge::ask(&topics, &message, &control);
    let obeyed = !asked && commands.take(&message.topic, &message.payload, message.retained);
    match control.next() {
        Some(Command::Arm { rule, armed }) => {
            assert!(obeyed && &*rule == "cat" && message.payload == if armed { &b"ON"[..] } else { b"OFF" });
            assert!(!message.retained);
        }
        Some(Command::TestPin { action }) => {
            assert!(obeyed && &*action == "buzzer" && message.payload == PRESS.as_bytes() && !message.retained);
        }
        Some(Command::Judge { part, .. }) => {
            assert!(asked && !message.retained);
            assert!(part.is_none_or(|part| part.chars().count() <= 64 && !part.contains(char::is_control)));
        }
        Some(Command::Reload) => panic!("no broker asks for that"),
        None => assert!(!obeyed),
    }
}
