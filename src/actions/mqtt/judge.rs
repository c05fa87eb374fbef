//! A message that asks a station for a verdict on one part.

use super::topics::Topics;
use super::wire::Heard;
use crate::clock::Monotonic;
use crate::control::{Command, Control};

/// Letters of a part's number that are kept: an EAN, a serial number, a UUID.
const LONGEST_PART: usize = 64;

/// Asks, and gives `true`, if `message` is one that asks. A retained one is an old one, and asks nothing.
pub(super) fn ask(topics: &Topics, message: &Heard, control: &Control) -> bool {
    let Some(station) = topics.station_asked(&message.topic) else { return false };
    if message.retained {
        log::warn!("{}: a retained message asks for no verdict; publish it without retain", message.topic);
        return true;
    }
    let part = part_number(&message.payload);
    let command = Command::Judge { station: station.into(), part: part.map(Into::into), asked: Monotonic::now() };
    if let Err(full) = control.send(command) {
        log::warn!("{}: {full}", message.topic);
    }
    true
}

/// The payload as a name that a log can show; `None` for an empty one.
fn part_number(payload: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(payload);
    let part: String = text.trim().chars().filter(|letter| !letter.is_control()).take(LONGEST_PART).collect();
    (!part.is_empty()).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fresh_message_to_a_station_asks() {
        let (topics, control) = (Topics::new("spotter", "line"), Control::new(|| ()));
        for (topic, payload, retain, expected) in [
            ("spotter/line/station/gate/judge", &b" A-17\n"[..], false, Some(("gate", Some("A-17")))),
            ("spotter/line/station/gate/judge", b"", false, Some(("gate", None))),
            ("spotter/line/station/gate/judge", b"A-17", true, None),
            ("spotter/line/station/gate/verdict", b"", false, None),
            ("spotter/line/station/a/b/judge", b"", false, None),
            ("spotter/lines/station/gate/judge", b"", false, None),
        ] {
            let message = Heard { topic: topic.into(), payload: payload.to_vec(), retained: retain };
            assert_eq!(ask(&topics, &message, &control), topics.station_asked(topic).is_some());
            let asked = control.next().map(|command| match command {
                Command::Judge { station, part, .. } => (station.to_string(), part.map(|part| part.to_string())),
                other => panic!("{other:?}"),
            });
            assert_eq!(
                asked,
                expected.map(|(s, p): (&str, Option<&str>)| (s.to_owned(), p.map(str::to_owned))),
                "{topic}"
            );
        }
        assert_eq!(part_number(&[b'x'; 100]).map(|part| part.len()), Some(64));
        assert_eq!(part_number(b"a\x01\xff"), Some("a\u{fffd}".into()));
    }
}
