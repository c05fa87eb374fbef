//! What an event looks like to the outside: one JSON object, the same in the log and on the broker.
//!
//! | field | meaning |
//! |---|---|
//! | `id` | unique to this event; a duplicate (MQTT's QoS 1 allows them) has the same |
//! | `device`, `rule` | who says it, and which rule changed |
//! | `state` | `"on"`, `"escalated"` (still on, for the rule's `escalate_after`) or `"off"` |
//! | `reason` | why off: `"gone"` (the scores fell), `"stale"` (no camera delivers frames), `"unscheduled"`, `"disarmed"`, `"reloaded"`; else `null` |
//! | `part` | a station's verdict only (then `rule` is the station, `state` `"pass"`, `"fail"` or `"fault"`, and `reason` `"timeout"` or `"overflow"`): the part's number, or `null` |
//! | `camera`, `region` | the view that decided it; `region` is `null` for the whole frame |
//! | `class`, `label`, `probability` | the rule's best class in that frame: index, name, 0 to 1 |
//! | `sequence`, `origin` | the frame's number, and its file if it came from one (else `null`) |
//! | `captured` | when the frame was captured: RFC 3339, UTC, by the wall clock at the time of sending |
//! | `latency_ms` | from the capture to the rule's decision, in milliseconds |
//! | `pin_latency_ms` | from the capture to the edge on the last of the rule's GPIO lines, in milliseconds; `null` if it has none, or none had moved 50 ms after the decision |

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::fnv1a;
use crate::clock::Monotonic;
use crate::rules::{Change, Event, Outcome};

/// An event as JSON shows it; see the [module](self) for the fields. Field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the module's table says what each field means")]
pub struct EventPayload {
    pub id: String,
    pub device: Arc<str>,
    pub rule: Arc<str>,
    pub state: &'static str,
    pub reason: Option<&'static str>,
    pub camera: Arc<str>,
    pub region: Option<Arc<str>>,
    pub class: usize,
    pub label: Arc<str>,
    pub probability: f32,
    pub sequence: u64,
    pub origin: Option<String>,
    pub captured: String,
    pub latency_ms: f64,
    pub pin_latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Option<Arc<str>>>,
}

impl EventPayload {
    /// `event` as it is told now.
    pub fn new(device: &Arc<str>, event: &Event) -> Self {
        Self {
            id: event_id(device, event),
            device: device.clone(),
            rule: event.rule.clone(),
            state: state_name(event),
            reason: reason_name(event),
            camera: event.camera.clone(),
            region: event.region.clone(),
            class: event.class,
            label: event.label.clone(),
            probability: event.probability,
            sequence: event.sequence,
            origin: event.origin.as_ref().map(|path| path.display().to_string()),
            captured: wall_clock(event.captured),
            latency_ms: milliseconds(event.decided.since(event.captured)),
            pin_latency_ms: None,
            part: event.verdict.as_ref().map(|verdict| verdict.part.clone()),
        }
    }

    /// With what is known of the rule's lines: from the capture to the edge of the last one.
    pub fn with_pin(self, latency: Option<Duration>) -> Self {
        Self { pin_latency_ms: latency.map(milliseconds), ..self }
    }

    /// The object as one line without a line feed.
    pub fn to_json(&self) -> String {
        // Strings, numbers and options only: serde_json fails on neither (a NaN becomes null).
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn state_name(event: &Event) -> &'static str {
    match (event.verdict.as_ref().map(|verdict| verdict.outcome), event.change) {
        (Some(Outcome::Pass), _) => "pass",
        (Some(Outcome::Fail), _) => "fail",
        (Some(Outcome::TimedOut | Outcome::Overflow), _) => "fault",
        (None, Change::On) => "on",
        (None, Change::Escalated) => "escalated",
        (None, Change::Off(_)) => "off",
    }
}

fn reason_name(event: &Event) -> Option<&'static str> {
    match event.verdict.as_ref().map(|verdict| verdict.outcome) {
        Some(Outcome::TimedOut) => return Some("timeout"),
        Some(Outcome::Overflow) => return Some("overflow"),
        Some(Outcome::Pass | Outcome::Fail) | None => {}
    }
    match event.change {
        Change::On | Change::Escalated => None,
        Change::Off(reason) => Some(reason.name()),
    }
}

/// The same event gives the same id to every action; another event, run or boot gives another.
fn event_id(device: &str, event: &Event) -> String {
    let decided = event.decided.as_duration().as_nanos().to_le_bytes();
    let sequence = event.sequence.to_le_bytes();
    // Two parts may be judged by one frame.
    let verdict = event.verdict.as_ref();
    let asked = verdict.map_or(0, |verdict| verdict.asked.as_duration().as_nanos()).to_le_bytes();
    let part = verdict.and_then(|verdict| verdict.part.as_deref()).unwrap_or_default();
    let parts: [&[u8]; 8] = [
        device.as_bytes(),
        event.rule.as_bytes(),
        state_name(event).as_bytes(),
        event.camera.as_bytes(),
        &decided,
        &sequence,
        &asked,
        part.as_bytes(),
    ];
    format!("{:08x}-{:016x}", run_id(), fnv1a(&parts))
}

/// Tells this run of the program from every other: monotonic stamps repeat after a reboot.
fn run_id() -> u32 {
    static RUN: OnceLock<u32> = OnceLock::new();
    *RUN.get_or_init(|| {
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let (started, pid) = (Timestamp::now().as_nanosecond().to_le_bytes(), std::process::id().to_le_bytes());
        (fnv1a(&[&boot, &started, &pid]) >> 32) as u32
    })
}

/// The wall clock's time at `moment`, RFC 3339 in UTC to the millisecond.
fn wall_clock(moment: Monotonic) -> String {
    let ago = Monotonic::now().since(moment);
    let at = Timestamp::now().saturating_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

/// In milliseconds, to the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::rules::OffReason;

    /// An event of `rule`, decided now on a frame captured 25 ms ago.
    pub(crate) fn event(rule: &str, change: Change) -> Event {
        let decided = Monotonic::now();
        Event {
            rule: rule.into(),
            change,
            camera: "feeder".into(),
            region: Some("perch".into()),
            class: 3,
            label: "wild_cat".into(),
            probability: 0.75,
            captured: decided - Duration::from_millis(25),
            decided,
            verdict: None,
            sequence: 42,
            origin: Some(Arc::from(Path::new("photos/cat.jpg"))),
        }
    }

    fn parse(event: &Event) -> serde_json::Value {
        serde_json::from_str(&EventPayload::new(&"garden".into(), event).to_json()).unwrap()
    }

    #[test]
    fn every_field_has_its_documented_name_and_value() {
        let json = parse(&event("cat", Change::Off(OffReason::Stale)));
        let mut json = json.as_object().unwrap().clone();
        let captured: Timestamp = json.remove("captured").unwrap().as_str().unwrap().parse().unwrap();
        let age = Timestamp::now().duration_since(captured).as_millis();
        assert!((24..2000).contains(&age), "{age} ms ago");
        assert!(json.remove("id").unwrap().as_str().unwrap().len() == 25);
        let expected = serde_json::json!({
            "device": "garden", "rule": "cat", "state": "off", "reason": "stale", "camera": "feeder",
            "region": "perch", "class": 3, "label": "wild_cat", "probability": 0.75, "sequence": 42,
            "origin": "photos/cat.jpg", "latency_ms": 25.0, "pin_latency_ms": null,
        });
        assert_eq!(serde_json::Value::Object(json), expected);
    }

    #[test]
    fn absent_things_are_null() {
        let json = parse(&Event { region: None, origin: None, ..event("cat", Change::On) });
        assert_eq!((&json["region"], &json["origin"], &json["reason"]), (&().into(), &().into(), &().into()));
        assert_eq!(json["state"], "on");
    }

    #[test]
    fn the_captured_time_is_utc_with_milliseconds() {
        let text = wall_clock(Monotonic::now());
        let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z");
    }

    #[test]
    fn ids_are_stable_for_an_event_and_differ_between_events() {
        let one = event("cat", Change::On);
        let id = |event: &Event| parse(event)["id"].clone();
        assert_eq!(id(&one), id(&one.clone()));
        for other in [
            Event { rule: "dog".into(), ..one.clone() },
            Event { change: Change::Off(OffReason::Gone), ..one.clone() },
            Event { decided: one.decided + Duration::from_nanos(1), ..one.clone() },
        ] {
            assert_ne!(id(&one), id(&other), "{other:?}");
        }
    }

    #[test]
    fn a_score_that_is_no_number_is_still_json() {
        assert!(parse(&Event { probability: f32::NAN, ..event("cat", Change::On) })["probability"].is_null());
    }
}
