//! What a client hears: one that listens all the time, and one that has just come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rumqttc::{Client, Connection, Event, MqttOptions, Packet, Publish, QoS};

/// Everything that was heard, over all lives of the broker.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    /// By topic: when a board last said that it is online.
    online: HashMap<String, Instant>,
    /// Of the latest `online_since`.
    since: Option<Instant>,
    /// The ids of events, in the order of arrival.
    events: Vec<String>,
    last: Option<Instant>,
}

impl Record {
    fn hear(&self, publish: &Publish) {
        let mut heard = self.0.lock().unwrap();
        let now = Instant::now();
        heard.last = Some(now);
        if publish.topic.ends_with("/status") && publish.payload == "online" {
            heard.online.insert(publish.topic.clone(), now);
        } else if publish.topic.ends_with("/event") {
            heard.events.push(id_of(&serde_json::from_slice(&publish.payload).unwrap()));
        }
    }

    /// Boards that have said that they are online since then.
    pub(crate) fn online_since(&self, since: Instant) -> usize {
        let mut heard = self.0.lock().unwrap();
        heard.since = Some(since);
        heard.online.values().filter(|at| **at >= since).count()
    }

    /// How long after the moment of [`Record::online_since`] the last board was online.
    pub(crate) fn last_online(&self) -> Duration {
        let heard = self.0.lock().unwrap();
        let last = heard.online.values().max().copied();
        last.zip(heard.since).map(|(last, since)| last - since).unwrap_or_default()
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.0.lock().unwrap().events.clone()
    }

    /// Nothing has come for so long.
    pub(crate) fn is_quiet_for(&self, time: Duration) -> bool {
        self.0.lock().unwrap().last.is_none_or(|last| last.elapsed() >= time)
    }
}

/// The `id` of an event.
pub(crate) fn id_of(event: &serde_json::Value) -> String {
    event["id"].as_str().unwrap_or_else(|| panic!("no id: {event}")).to_owned()
}

/// Writes down what it hears until the broker ends.
pub(crate) struct Listener {
    // Held for its connection.
    _client: Client,
}

impl Listener {
    /// Subscribed when it returns.
    pub(crate) fn start(port: u16, record: &Record) -> Self {
        let (client, mut connection) = connect(port);
        // QoS 0: nothing is sent back, so that the broker never waits for us.
        client.subscribe("spotter/#", QoS::AtMostOnce).unwrap();
        let (ready, subscribed) = mpsc::channel();
        let record = record.clone();
        std::thread::spawn(move || {
            for event in connection.iter().map_while(Result::ok) {
                match event {
                    Event::Incoming(Packet::SubAck(_)) => ready.send(()).unwrap(),
                    Event::Incoming(Packet::Publish(publish)) => record.hear(&publish),
                    _ => {}
                }
            }
        });
        subscribed.recv_timeout(Duration::from_secs(20)).expect("the broker serves the listener");
        Self { _client: client }
    }
}

/// What the broker retains under `spotter/`, as a client is told that has just come: topic and payload.
pub(crate) fn retained(port: u16) -> HashMap<String, String> {
    retained_under("spotter/#", connect(port))
}

/// What a broker retains under `filter`.
pub(crate) fn retained_under(filter: &str, (client, mut connection): (Client, Connection)) -> HashMap<String, String> {
    client.subscribe(filter, QoS::AtLeastOnce).unwrap();
    // Its acknowledgement comes behind all that the subscription has brought: a broker answers one client in order.
    client.subscribe("end", QoS::AtMostOnce).unwrap();
    let (mut told, mut acknowledged) = (HashMap::new(), 0);
    for event in connection.iter().map_while(Result::ok) {
        match event {
            Event::Incoming(Packet::Publish(publish)) if publish.retain => {
                told.insert(publish.topic, String::from_utf8_lossy(&publish.payload).into_owned());
            }
            Event::Incoming(Packet::SubAck(_)) => acknowledged += 1,
            _ => {}
        }
        if acknowledged == 2 {
            break;
        }
    }
    told
}

fn connect(port: u16) -> (Client, Connection) {
    connect_as(port, None)
}

/// As a user with a password, if one is named.
pub(crate) fn connect_as(port: u16, user: Option<(&str, &str)>) -> (Client, Connection) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut options = MqttOptions::new(format!("listener-{}", COUNT.fetch_add(1, Ordering::SeqCst)), "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    if let Some((name, password)) = user {
        options.set_credentials(name, password);
    }
    Client::new(options, 16)
}
