//! What waits for the broker: events in order, and the latest of each state.
//!
//! It is our own because rumqttc's request queue is short and forgets what was not acknowledged when a connection is
//! made anew. Here nothing leaves before the broker has acknowledged it, and what a full queue drops is counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Notify;

use super::topics::Topics;
use crate::actions::payload::EventPayload;
use crate::actions::pins::PinBook;
use crate::actions::runner::Mailbox;
use crate::actions::{CameraStatus, Message, Picture, Report};
use crate::rules::Event;
use crate::telemetry::Counter;
use crate::telemetry::thermal::Thermal;

/// Retained topics at most; more is what others have put there for us to remove.
const MOST_STATES: usize = 1 << 14;

/// What a publication stands for, so that its acknowledgement finds its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// An event, by its number in the outbox.
    Event(u64),
    /// A retained state, by its number and the version that was sent.
    State { number: u64, version: u64 },
    /// The birth: sent anew at each connection.
    Greeting,
    /// The `offline` of a clean close.
    Farewell,
}

/// One message to publish at QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Publication {
    pub(super) token: Token,
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
}

/// A retained topic that a configuration has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It says this.
    Fixed(String, String),
    /// It says this until somebody says otherwise.
    First(String, String),
    /// It says nothing until somebody says something.
    Later(String),
}

impl Wanted {
    fn topic(&self) -> &str {
        match self {
            Self::Fixed(topic, _) | Self::First(topic, _) | Self::Later(topic) => topic,
        }
    }
}

/// When the outbox was closed, and when all must be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) since: Instant,
    pub(super) deadline: Instant,
}

impl Closing {
    /// Until when events are drained: a quarter of the time, at most half a second, is kept for the farewell.
    pub(super) fn drain_until(&self) -> Instant {
        let whole = self.deadline.saturating_duration_since(self.since);
        self.deadline - (whole / 4).min(Duration::from_millis(500))
    }
}

/// How an event becomes a message.
pub(super) struct Teller {
    pub(super) device: Arc<str>,
    pub(super) topics: Topics,
    pub(super) pins: Arc<PinBook>,
}

impl Teller {
    /// The payload; as long as the event's pins are waited for, when to look again.
    fn payload(&self, event: &Event) -> Result<String, Instant> {
        let latency = self.pins.latency(event).map_err(PinBook::again)?;
        Ok(EventPayload::new(&self.device, event).with_pin(latency).to_json())
    }
}

/// The bounded outbox of one broker.
pub(super) struct MqttOutbox {
    teller: Teller,
    capacity: usize,
    snapshots: bool,
    inner: Mutex<Inner>,
    changed: Notify,
    dropped: Counter,
    refused: Counter,
}

#[derive(Default)]
struct Inner {
    /// Oldest first; those in flight come before those that wait.
    events: VecDeque<Entry>,
    states: Vec<State>,
    /// Of the last event or state that was added.
    serial: u64,
    closing: Option<Closing>,
    /// When to look again at the next event, whose pins are waited for.
    due: Option<Instant>,
    /// By camera, the latest frame that turned a rule on and is not yet a JPEG.
    pictures: Vec<(Arc<str>, Arc<Picture>)>,
}

struct Entry {
    serial: u64,
    event: Arc<Event>,
    /// Made when it is first sent: by then the wall clock is more likely to be right than at boot.
    payload: Option<String>,
    in_flight: bool,
}

/// A retained topic. Versions count its changes, from 1; 0 is "none".
struct State {
    number: u64,
    topic: String,
    /// Empty: the broker is to forget it, and so are we once it has.
    payload: Vec<u8>,
    version: u64,
    sent: u64,
    acknowledged: u64,
}

impl MqttOutbox {
    /// An outbox for `capacity` events, with these retained topics.
    pub(super) fn new(teller: Teller, capacity: usize, wanted: &[Wanted]) -> Self {
        let outbox = Self {
            teller,
            capacity: capacity.max(1),
            snapshots: false,
            inner: Mutex::default(),
            changed: Notify::new(),
            dropped: Counter::default(),
            refused: Counter::default(),
        };
        outbox.want(wanted);
        outbox
    }

    /// Takes the frames that turn rules on, too.
    pub(super) fn with_snapshots(self, snapshots: bool) -> Self {
        Self { snapshots, ..self }
    }

    /// A frame that is to become a camera's snapshot. Encoding takes milliseconds, so it is done without the lock.
    pub(super) fn take_picture(&self) -> Option<(Arc<str>, Arc<Picture>)> {
        self.lock().pictures.pop()
    }

    /// Publishes `jpeg` as the camera's snapshot.
    pub(super) fn set_snapshot(&self, camera: &str, jpeg: Vec<u8>) {
        self.lock().set_state(self.teller.topics.camera_snapshot(camera), jpeg);
    }

    /// Has the broker forget the retained topic of an earlier run, if it is none of ours.
    pub(super) fn forget(&self, topic: &str) {
        let mut inner = self.lock();
        if inner.states.len() < MOST_STATES && !inner.states.iter().any(|state| state.topic == topic) {
            inner.set_state(topic.to_owned(), "");
        }
    }

    /// Sends the states whose topics are `told` once more; those on their way are told anyway.
    pub(super) fn tell_again(&self, told: impl Fn(&str) -> bool) {
        let mut inner = self.lock();
        let settled = inner.states.iter_mut().filter(|state| state.sent == state.acknowledged && told(&state.topic));
        settled.for_each(|state| (state.sent, state.acknowledged) = (0, 0));
    }

    /// These are the retained topics from now on: what is known of one stays, and those that are gone are taken from the broker.
    pub(super) fn want(&self, wanted: &[Wanted]) {
        let mut inner = self.lock();
        for state in inner.states.iter_mut().filter(|state| !state.payload.is_empty()) {
            if !wanted.iter().any(|it| it.topic() == state.topic) {
                state.payload.clear();
                state.version += 1;
            }
        }
        for it in wanted {
            match it {
                Wanted::Fixed(topic, payload) => inner.set_state(topic.clone(), payload.clone()),
                Wanted::First(topic, payload) if !inner.is_known(topic) => {
                    inner.set_state(topic.clone(), payload.clone());
                }
                Wanted::First(..) | Wanted::Later(_) => {}
            }
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// A new connection: nothing is in flight, and every state is to be sent, because this broker may have lost its
    /// retained messages.
    pub(super) fn connected(&self) {
        let mut inner = self.lock();
        inner.events.iter_mut().for_each(|entry| entry.in_flight = false);
        inner.states.iter_mut().for_each(|state| (state.sent, state.acknowledged) = (0, 0));
    }

    /// The next message to send, now counted as in flight: states before events, one of a kind at a time.
    pub(super) fn next(&self) -> Option<Publication> {
        let mut inner = self.lock();
        inner.next_state().or_else(|| inner.next_event(&self.teller))
    }

    /// The broker has it. Returns the event if it was one that is still known.
    pub(super) fn acknowledged(&self, token: &Token) -> Option<Arc<Event>> {
        let mut inner = self.lock();
        match *token {
            Token::Event(serial) => {
                let index = inner.events.iter().position(|entry| entry.serial == serial)?;
                inner.events.remove(index).map(|entry| entry.event)
            }
            Token::State { number, version } => {
                if let Some(state) = inner.states.iter_mut().find(|state| state.number == number) {
                    state.acknowledged = version;
                }
                inner.states.retain(|state| !state.payload.is_empty() || state.acknowledged < state.version);
                None
            }
            Token::Greeting | Token::Farewell => None,
        }
    }

    /// Counts an event that the broker does not want.
    pub(super) fn count_lost(&self) {
        self.dropped.increment();
    }

    /// When [`next`](Self::next) is to be asked again although nothing was pushed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lock().due
    }

    /// Makes [`changed`](Self::changed) return.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Counts a command from the broker that was none, or could not be taken.
    pub(super) fn count_refused(&self) {
        self.refused.increment();
    }

    /// Whether everything has been acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.events.is_empty() && inner.states.iter().all(|state| state.acknowledged == state.version)
    }

    /// Whether and until when the outbox is being closed.
    pub(super) fn closing(&self) -> Option<Closing> {
        self.lock().closing
    }

    /// Returns when something was pushed or closed since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn set_state(&mut self, topic: String, payload: impl Into<Vec<u8>>) {
        let payload = payload.into();
        match self.states.iter_mut().find(|state| state.topic == topic) {
            Some(state) if state.payload == payload => {}
            Some(state) => {
                state.payload = payload;
                state.version += 1;
            }
            None => {
                self.serial += 1;
                let number = self.serial;
                self.states.push(State { number, topic, payload, version: 1, sent: 0, acknowledged: 0 });
            }
        }
    }

    fn is_known(&self, topic: &str) -> bool {
        self.states.iter().any(|state| state.topic == topic && !state.payload.is_empty())
    }

    /// States that move all the time, rounded so that what does not matter is not published.
    fn report(&mut self, topics: &Topics, report: &Report) {
        let rounded = |value: f64, parts: f64| (value * parts).round() / parts;
        for (view, label, probability) in &report.tops {
            let json = json!({ "label": **label, "probability": rounded(f64::from(*probability), 100.0) });
            self.set_state(topics.top(view), json.to_string());
        }
        for camera in &report.cameras {
            let rate = rounded(camera.frames_per_second, 10.0);
            let json = json!({ "frames_per_second": rate, "active": camera.active });
            self.set_state(topics.camera_rate(&camera.camera), json.to_string());
        }
        let Thermal { celsius, throttled } = report.thermal;
        let celsius = celsius.map(|celsius| rounded(celsius, 2.0));
        let (step, refused) = (report.thermal_step, report.refused.as_deref());
        let json = json!({ "celsius": celsius, "throttled": throttled, "thermal_step": step, "refused": refused });
        self.set_state(topics.board(), json.to_string());
    }

    /// A state waits while an older version of it is in flight: the broker never gets them in the wrong order.
    fn next_state(&mut self) -> Option<Publication> {
        let due = |state: &State| state.sent < state.version && state.sent == state.acknowledged;
        let state = self.states.iter_mut().find(|state| due(state))?;
        state.sent = state.version;
        Some(Publication {
            token: Token::State { number: state.number, version: state.version },
            topic: state.topic.clone(),
            payload: state.payload.clone(),
            retain: true,
        })
    }

    fn next_event(&mut self, teller: &Teller) -> Option<Publication> {
        self.due = None;
        let entry = self.events.iter_mut().find(|entry| !entry.in_flight)?;
        let payload = match &entry.payload {
            Some(payload) => payload.clone(),
            None => match teller.payload(&entry.event) {
                Ok(payload) => entry.payload.insert(payload).clone(),
                Err(again) => {
                    self.due = Some(again);
                    return None;
                }
            },
        };
        entry.in_flight = true;
        let topic = if entry.event.verdict.is_some() {
            teller.topics.verdict(&entry.event.rule)
        } else {
            teller.topics.event()
        };
        Some(Publication { token: Token::Event(entry.serial), topic, payload: payload.into(), retain: false })
    }

    /// Adds an event; of those that wait, the oldest makes room. What is in flight may already be with the broker and
    /// stays. `false`: one was dropped, if all others are in flight the new one itself.
    fn add_event(&mut self, event: Arc<Event>, capacity: usize) -> bool {
        self.serial += 1;
        self.events.push_back(Entry { serial: self.serial, event, payload: None, in_flight: false });
        if self.events.len() <= capacity {
            return true;
        }
        if let Some(oldest) = self.events.iter().position(|entry| !entry.in_flight) {
            self.events.remove(oldest);
        }
        false
    }
}

impl Mailbox for MqttOutbox {
    fn refused(&self) -> u64 {
        self.refused.get()
    }

    fn wants_pictures(&self) -> bool {
        self.snapshots
    }

    fn push(&self, message: Message) -> bool {
        let mut inner = self.lock();
        if inner.closing.is_some() {
            return false;
        }
        if let Message::Pictured(event, picture) = &message {
            inner.pictures.retain(|(camera, _)| *camera != event.camera);
            inner.pictures.push((event.camera.clone(), picture.clone()));
        }
        let kept = match message {
            Message::Camera(status) => {
                let topic = self.teller.topics.camera_state(&status.camera);
                // One that has just gone may still tell of its end.
                if inner.is_known(&topic) {
                    inner.set_state(topic, camera_payload(&status));
                }
                true
            }
            Message::Standing(event) => {
                inner.set_state(self.teller.topics.rule_state(&event.rule), "ON");
                true
            }
            Message::Armed { rule, armed } => {
                inner.set_state(self.teller.topics.rule_armed(&rule), if armed { "ON" } else { "OFF" });
                true
            }
            Message::Report(report) => {
                inner.report(&self.teller.topics, &report);
                true
            }
            // A station has no state.
            Message::Event(event) | Message::Pictured(event, _) if event.verdict.is_some() => {
                inner.add_event(event, self.capacity)
            }
            Message::Event(event) | Message::Pictured(event, _) => {
                let state = if event.change.is_on() { "ON" } else { "OFF" };
                inner.set_state(self.teller.topics.rule_state(&event.rule), state);
                inner.add_event(event, self.capacity)
            }
        };
        drop(inner);
        if !kept {
            self.dropped.increment();
        }
        self.changed.notify_one();
        kept
    }

    fn close(&self, until: Instant) {
        self.lock().closing.get_or_insert(Closing { since: Instant::now(), deadline: until });
        self.changed.notify_one();
    }

    fn depth(&self) -> usize {
        self.lock().events.len()
    }

    fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

pub(super) fn camera_payload(status: &CameraStatus) -> String {
    match status.healthy {
        true => json!({ "state": "online" }),
        false => json!({ "state": "degraded", "reason": status.reason }),
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::CameraReport;
    use crate::actions::payload::tests::event;
    use crate::rules::OffReason;

    use crate::rules::Change;

    const OFF: Change = Change::Off(OffReason::Gone);

    fn outbox(capacity: usize) -> MqttOutbox {
        let context = crate::actions::ActionContext {
            device: "garden".into(),
            rules: vec![],
            cameras: vec![],
            views: vec![],
            pins: vec![],
            observer: Arc::new(crate::actions::pins::tests::Nobody),
            control: crate::control::Control::new(|| ()),
        };
        let pins = crate::actions::pins::Shared::new(context, &[]).pins.clone();
        let teller = Teller { device: "garden".into(), topics: Topics::new("spotter", "garden"), pins };
        MqttOutbox::new(teller, capacity, &wanted(&["cat"]))
    }

    /// Discovery and states of these rules, and of one camera.
    fn wanted(rules: &[&str]) -> Vec<Wanted> {
        let topics = Topics::new("spotter", "garden");
        let camera = CameraStatus { camera: "feeder".into(), healthy: false, reason: Some("no frame yet".into()) };
        let rules = rules.iter().map(|rule| Wanted::First(topics.rule_state(rule), "OFF".into()));
        rules.chain([Wanted::First(topics.camera_state("feeder"), camera_payload(&camera))]).collect()
    }

    fn push(outbox: &MqttOutbox, rule: &str, change: Change) -> bool {
        outbox.push(Message::Event(Arc::new(event(rule, change))))
    }

    /// Everything that may be sent now.
    fn send_all(outbox: &MqttOutbox) -> Vec<Publication> {
        std::iter::from_fn(|| outbox.next()).collect()
    }

    fn summary(publications: &[Publication]) -> Vec<(String, String)> {
        let short = |publication: &Publication| {
            let text = std::str::from_utf8(&publication.payload).unwrap();
            let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            let payload = json["rule"].as_str().unwrap_or(text);
            (publication.topic.trim_start_matches("spotter/garden/").to_owned(), payload.to_owned())
        };
        publications.iter().map(short).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    #[test]
    fn states_start_known_and_come_before_events() {
        let outbox = outbox(9);
        push(&outbox, "cat", Change::On);
        push(&outbox, "cat", OFF);
        push(&outbox, "cat", Change::On);
        let sent = send_all(&outbox);
        let camera = r#"{"reason":"no frame yet","state":"degraded"}"#;
        let expected = [
            ("rule/cat/state", "ON"),
            ("camera/feeder/state", camera),
            ("event", "cat"),
            ("event", "cat"),
            ("event", "cat"),
        ];
        assert_eq!(summary(&sent), pairs(&expected));
        assert_eq!(sent.iter().map(|one| one.retain).collect::<Vec<_>>(), [true, true, false, false, false]);
    }

    #[test]
    fn nothing_leaves_before_it_is_acknowledged() {
        let outbox = outbox(9);
        push(&outbox, "cat", Change::On);
        let sent = send_all(&outbox);
        assert_eq!((outbox.depth(), outbox.is_empty()), (1, false));
        outbox.connected();
        assert_eq!(send_all(&outbox), sent, "the same again, with the same id, on a new connection");
        for publication in &sent {
            let event = outbox.acknowledged(&publication.token);
            assert_eq!(event.is_some(), matches!(publication.token, Token::Event(_)));
        }
        assert_eq!((outbox.depth(), outbox.is_empty()), (0, true));
        outbox.connected();
        assert_eq!(send_all(&outbox).len(), 2, "the states alone");
    }

    #[test]
    fn a_state_that_changes_in_flight_is_sent_again_afterwards() {
        let outbox = outbox(9);
        let sent = send_all(&outbox);
        push(&outbox, "cat", Change::On);
        assert_eq!(summary(&send_all(&outbox)), pairs(&[("event", "cat")]), "not beside the older one");
        outbox.acknowledged(&sent[0].token);
        assert_eq!(summary(&send_all(&outbox)), pairs(&[("rule/cat/state", "ON")]));
        assert!(!outbox.is_empty());
    }

    #[test]
    fn what_a_configuration_has_no_more_is_taken_from_the_broker_and_forgotten() {
        let outbox = outbox(9);
        push(&outbox, "cat", Change::On);
        let acknowledge = |sent: &[Publication]| sent.iter().for_each(|one| _ = outbox.acknowledged(&one.token));
        acknowledge(&send_all(&outbox));
        outbox.want(&wanted(&["cat", "dog"]));
        let sent = send_all(&outbox);
        assert_eq!(summary(&sent), pairs(&[("rule/dog/state", "OFF")]), "what is known stays");
        acknowledge(&sent);
        outbox.want(&wanted(&["dog"]));
        let sent = send_all(&outbox);
        assert_eq!(summary(&sent), pairs(&[("rule/cat/state", "")]));
        outbox.connected();
        assert_eq!(summary(&send_all(&outbox)).iter().filter(|(topic, _)| topic == "rule/cat/state").count(), 1);
        acknowledge(&sent);
        outbox.connected();
        assert!(!summary(&send_all(&outbox)).iter().any(|(topic, _)| topic == "rule/cat/state"), "forgotten");
        let gone = CameraStatus { camera: "other".into(), healthy: true, reason: None };
        assert!(outbox.push(Message::Camera(gone)));
        assert_eq!(send_all(&outbox), [], "no such camera");
        outbox.push(Message::Standing(Arc::new(event("dog", Change::On))));
        outbox.connected();
        let states: Vec<_> = summary(&send_all(&outbox));
        assert!(states.contains(&("rule/dog/state".into(), "ON".into())), "{states:?}");
        assert_eq!(outbox.depth(), 0, "and no event");
    }

    #[test]
    fn overflow_drops_the_oldest_that_waits_and_counts() {
        let outbox = outbox(3);
        push(&outbox, "a", Change::On);
        let in_flight = send_all(&outbox);
        for rule in ["b", "c", "d", "e"] {
            push(&outbox, rule, Change::On);
        }
        assert_eq!((outbox.depth(), outbox.dropped()), (3, 2));
        outbox.connected();
        let events: Vec<_> = summary(&send_all(&outbox)).into_iter().filter(|(topic, _)| topic == "event").collect();
        assert_eq!(events, pairs(&[("event", "a"), ("event", "d"), ("event", "e")]));
        assert!(in_flight.iter().any(|one| matches!(one.token, Token::Event(_))));
    }

    #[test]
    fn with_everything_in_flight_the_new_event_is_the_one_dropped() {
        let outbox = outbox(1);
        assert!(push(&outbox, "a", Change::On));
        let sent = send_all(&outbox);
        assert!(!push(&outbox, "b", Change::On));
        assert_eq!((outbox.depth(), outbox.dropped()), (1, 1));
        sent.iter().for_each(|one| _ = outbox.acknowledged(&one.token));
        assert_eq!(outbox.depth(), 0);
    }

    #[test]
    fn a_camera_says_why_it_is_degraded() {
        let outbox = outbox(1);
        let camera = |healthy, reason: Option<&str>| {
            let status = CameraStatus { camera: "feeder".into(), healthy, reason: reason.map(str::to_owned) };
            outbox.push(Message::Camera(status));
            outbox.connected();
            String::from_utf8(send_all(&outbox).pop().unwrap().payload).unwrap()
        };
        assert_eq!(camera(true, None), r#"{"state":"online"}"#);
        assert_eq!(camera(false, Some("unplugged")), r#"{"reason":"unplugged","state":"degraded"}"#);
    }

    #[test]
    fn what_an_earlier_run_left_is_forgotten_and_what_is_known_is_told_again() {
        let outbox = outbox(9);
        let acknowledge = |sent: &[Publication]| sent.iter().for_each(|one| _ = outbox.acknowledged(&one.token));
        acknowledge(&send_all(&outbox));
        outbox.forget("spotter/garden/rule/dog/state");
        outbox.forget("spotter/garden/rule/cat/state");
        let sent = send_all(&outbox);
        assert_eq!(summary(&sent), pairs(&[("rule/dog/state", "")]), "its own is not forgotten");
        acknowledge(&sent);
        outbox.tell_again(|topic| topic.contains("/rule/"));
        assert_eq!(summary(&send_all(&outbox)), pairs(&[("rule/cat/state", "OFF")]));
        outbox.tell_again(|_| true);
        let camera = ("camera/feeder/state", r#"{"reason":"no frame yet","state":"degraded"}"#);
        assert_eq!(summary(&send_all(&outbox)), pairs(&[camera]), "what is on its way is not sent twice");
    }

    #[test]
    fn a_report_is_published_where_it_has_changed() {
        let outbox = outbox(9);
        let acknowledge = |sent: &[Publication]| sent.iter().for_each(|one| _ = outbox.acknowledged(&one.token));
        acknowledge(&send_all(&outbox));
        let mut report = Report {
            tops: vec![("feeder/perch".into(), "wild_cat".into(), 0.876_543), ("gate".into(), "cup".into(), 0.5)],
            cameras: vec![CameraReport { camera: "feeder".into(), frames_per_second: 14.96, active: false }],
            thermal: Thermal { celsius: Some(51.36), throttled: None },
            thermal_step: 1,
            refused: None,
        };
        outbox.push(Message::Report(Arc::new(report.clone())));
        let sent = send_all(&outbox);
        let expected = [
            ("camera/feeder/region/perch/top", r#"{"label":"wild_cat","probability":0.88}"#),
            ("camera/gate/top", r#"{"label":"cup","probability":0.5}"#),
            ("camera/feeder/rate", r#"{"active":false,"frames_per_second":15.0}"#),
            ("board", r#"{"celsius":51.5,"refused":null,"thermal_step":1,"throttled":null}"#),
        ];
        assert_eq!(summary(&sent), pairs(&expected));
        assert!(sent.iter().all(|one| one.retain));
        acknowledge(&sent);
        (report.tops[0].2, report.thermal.celsius, report.tops[1].1) = (0.875_1, Some(51.4), "mug".into());
        report.refused = Some(Arc::new("no TOML".into()));
        outbox.push(Message::Report(Arc::new(report)));
        let changed = [
            ("camera/gate/top", r#"{"label":"mug","probability":0.5}"#),
            ("board", r#"{"celsius":51.5,"refused":"no TOML","thermal_step":1,"throttled":null}"#),
        ];
        assert_eq!(summary(&send_all(&outbox)), pairs(&changed));
    }

    #[test]
    fn of_each_camera_the_latest_frame_waits() {
        let outbox = outbox(9).with_snapshots(true);
        assert!(outbox.wants_pictures());
        let picture = |side: u32| {
            let data = vec![0; (side * side * 3) as usize];
            let rgb = crate::capture::Rgb { width: side, height: side, data };
            Arc::new(Picture { rgb, orientation: Default::default(), regions: vec![] })
        };
        for side in [2, 3] {
            outbox.push(Message::Pictured(Arc::new(event("cat", Change::On)), picture(side)));
        }
        let (camera, taken) = outbox.take_picture().unwrap();
        assert_eq!((taken.rgb.width, outbox.take_picture().is_none(), outbox.depth()), (3, true, 2));
        outbox.set_snapshot(&camera, vec![0xff, 0xd8]);
        let sent = send_all(&outbox);
        let snapshot = sent.iter().find(|one| one.topic.ends_with("/snapshot")).unwrap();
        assert_eq!((&snapshot.payload[..], snapshot.retain), (&[0xff, 0xd8][..], true));
    }

    #[test]
    fn closing_keeps_time_for_the_farewell() {
        let since = Instant::now();
        for (limit, drained) in [(2000, 1500), (10_000, 9500), (400, 300), (0, 0)] {
            let closing = Closing { since, deadline: since + Duration::from_millis(limit) };
            assert_eq!(closing.drain_until() - since, Duration::from_millis(drained), "{limit} ms");
        }
    }
}
