//! A real Mosquitto, a gate in front of it that can be shut, and a second client that watches.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rumqttc::{Client, Event as Happening, MqttOptions, Packet, QoS};
use spotter::actions::{self, ActionContext, ActionHandle, Edge, Message, Observer, RuleInfo};
use spotter::clock::Monotonic;
use spotter::config::plan::{ActionKind, ActionPlan, MqttPlan, MqttVersion};
use spotter::rules::{Change, Event, OffReason};

pub(crate) const ON: Change = Change::On;
pub(crate) const OFF: Change = Change::Off(OffReason::Gone);

/// Waits for `condition`, at most 8 s.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(8);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn mosquitto() -> PathBuf {
    let folders = std::env::var("PATH").unwrap_or_default();
    let mut candidates =
        folders.split(':').chain(["/usr/sbin", "/usr/local/sbin"]).map(|dir| Path::new(dir).join("mosquitto"));
    candidates.find(|path| path.is_file()).expect("mosquitto is not installed: apt-get install mosquitto")
}

/// Mosquitto on a free port of the loopback interface, without persistence: a restart loses the retained messages.
pub(crate) struct Broker {
    pub(crate) port: u16,
    folder: tempfile::TempDir,
    process: Child,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::with("allow_anonymous true")
    }

    /// `extra` lines of configuration for the one listener; `{folder}` is a folder for its files.
    pub(crate) fn with(extra: &str) -> Self {
        Self::prepared(extra, |_| ())
    }

    /// `prepare` may put files into the folder first.
    pub(crate) fn prepared(extra: &str, prepare: impl Fn(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let port = free_port();
        let extra = extra.replace("{folder}", folder.path().to_str().unwrap());
        // As root it would change its user and then not read the folder.
        let config = format!(
            "user root\npersistence false\nlog_dest none\nmax_queued_messages 0\nmax_inflight_messages 0\n\
             listener {port} 127.0.0.1\n{extra}\n"
        );
        std::fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
        let process = Self::launch(folder.path(), port);
        Self { port, folder, process }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn launch(folder: &Path, port: u16) -> Child {
        let mut process = Command::new(mosquitto())
            .arg("-c")
            .arg(folder.join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("mosquitto listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        assert!(process.try_wait().unwrap().is_none(), "mosquitto ended by itself; is port {port} taken?");
        process
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// On the same port, with nothing remembered.
    pub(crate) fn restart(&mut self) {
        self.process = Self::launch(self.folder.path(), self.port);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A TCP forwarder: shut, it ends what runs through it and lets nobody in. So an observer can be in place before the
/// action under test comes back, and a connection can die without a word to the broker.
pub(crate) struct Gate {
    pub(crate) port: u16,
    open: Arc<AtomicBool>,
    running: Arc<Mutex<Vec<TcpStream>>>,
}

impl Gate {
    pub(crate) fn before(target: u16, open: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, running) = (Arc::new(AtomicBool::new(open)), Arc::new(Mutex::new(Vec::new())));
        let gate = Self { port, open: open.clone(), running: running.clone() };
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
                let Some(far) = open.load(Ordering::SeqCst).then(|| TcpStream::connect(target).ok()).flatten() else {
                    continue;
                };
                running.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                forward(near.try_clone().unwrap(), far.try_clone().unwrap());
                forward(far, near);
            }
        });
        gate
    }

    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    pub(crate) fn shut(&self) {
        self.open.store(false, Ordering::SeqCst);
        for stream in self.running.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count) = from.read(&mut buffer)
            && count > 0
            && to.write_all(&buffer[..count]).is_ok()
        {}
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}

/// A message as the observer got it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) retained: bool,
}

impl Seen {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|error| panic!("{error}: {}", self.payload))
    }
}

/// A second client, subscribed to everything.
pub(crate) struct Watcher {
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicBool>,
    // Held for its connection.
    client: Client,
}

impl Watcher {
    pub(crate) fn new(port: u16) -> Self {
        Self::with(port, |_| ())
    }

    pub(crate) fn with(port: u16, adapt: impl FnOnce(&mut MqttOptions)) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let id = format!("watcher-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        adapt(&mut options);
        let (client, mut connection) = Client::new(options, 10);
        // QoS 0: nothing is sent back, so that all that a killed broker had written is read to its end; rumqttc stops
        // reading when it cannot write an acknowledgement.
        client.subscribe("#", QoS::AtMostOnce).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let ready = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicBool::new(false));
        let (theirs, subscribed, over) = (seen.clone(), ready.clone(), ended.clone());
        std::thread::spawn(move || {
            let note = |happening| match happening {
                Happening::Incoming(Packet::SubAck(_)) => subscribed.store(true, Ordering::SeqCst),
                Happening::Incoming(Packet::Publish(publish)) => theirs.lock().unwrap().push(Seen {
                    topic: publish.topic,
                    payload: String::from_utf8(publish.payload.to_vec()).unwrap(),
                    retained: publish.retain,
                }),
                _ => {}
            };
            connection.iter().map_while(Result::ok).for_each(&note);
            // What was read together with the end.
            std::mem::take(&mut connection.eventloop.state.events).into_iter().for_each(&note);
            over.store(true, Ordering::SeqCst);
        });
        wait_until("the watcher is subscribed", || ready.load(Ordering::SeqCst));
        Self { seen, ended, client }
    }

    /// Publishes at QoS 1, not retained.
    pub(crate) fn publish(&self, topic: &str, payload: &str) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
    }

    /// What came before the broker's death, to its last byte.
    pub(crate) fn wait_for_the_end(&self) {
        wait_until("the watcher has read all", || self.ended.load(Ordering::SeqCst));
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn of(&self, topic: &str) -> Vec<Seen> {
        self.all().into_iter().filter(|seen| seen.topic == topic).collect()
    }

    pub(crate) fn payloads(&self, topic: &str) -> Vec<String> {
        self.of(topic).into_iter().map(|seen| seen.payload).collect()
    }

    /// Waits until the latest message of `topic` is `payload`.
    pub(crate) fn expect(&self, topic: &str, payload: &str) {
        let what = format!("{topic} is {payload}");
        wait_until(&what, || self.payloads(topic).last().is_some_and(|last| last == payload));
    }

    /// Waits until event `sequence` has come. That the broker has acknowledged it does not mean that it has reached a
    /// subscriber; what was published before it has, by then.
    pub(crate) fn expect_event(&self, sequence: u64) {
        wait_until(&format!("event {sequence}"), || self.sequences().contains(&sequence));
    }

    /// The frame numbers of all events, in the order of arrival.
    pub(crate) fn sequences(&self) -> Vec<u64> {
        self.of("spotter/garden/event").iter().map(|seen| seen.json()["sequence"].as_u64().unwrap()).collect()
    }
}

/// Counts what the broker acknowledged.
#[derive(Default)]
pub(crate) struct Deliveries(Mutex<Vec<u64>>);

impl Deliveries {
    pub(crate) fn sequences(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Deliveries {
    fn edge(&self, _: &Edge) {}
    fn delivered(&self, action: &str, event: &Event) {
        assert_eq!(action, "broker");
        self.0.lock().unwrap().push(event.sequence);
    }
}

/// The action under test: device "garden", rules "cat" and "front door" (which does not feed it), camera "feeder".
pub(crate) struct Rig {
    pub(crate) handle: ActionHandle,
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) control: Arc<spotter::control::Control>,
}

pub(crate) fn plan(port: u16) -> MqttPlan {
    MqttPlan {
        version: MqttVersion::V311,
        tls: false,
        host: "127.0.0.1".into(),
        port,
        credentials: None,
        ca: None,
        topic: "spotter".into(),
        discovery: None,
        outbox: 1000,
    }
}

impl Rig {
    pub(crate) fn new(plan: MqttPlan) -> Self {
        let deliveries = Arc::new(Deliveries::default());
        let rule = |name: &str, action: &str| RuleInfo {
            name: name.into(),
            label: format!("The {name}"),
            actions: vec![action.into()],
            has_switch: name == "cat",
            armed_by_mqtt: name == "cat",
        };
        let control = spotter::control::Control::new(|| ());
        let context = ActionContext {
            device: "garden".into(),
            rules: vec![rule("cat", "broker"), rule("front door", "siren")],
            cameras: vec!["feeder".into()],
            observer: deliveries.clone(),
            control: control.clone(),
        };
        let plans = [ActionPlan { name: "broker".into(), kind: ActionKind::Mqtt(plan) }];
        let handle = actions::start(&plans, context).unwrap().pop().unwrap();
        Self { handle, deliveries, control }
    }

    /// Sends an event of the rule "cat" on the frame `sequence`.
    pub(crate) fn send(&self, change: Change, sequence: u64) -> bool {
        self.handle.send(Message::Event(Arc::new(event(change, sequence))))
    }

    pub(crate) fn wait_until_empty(&self) {
        wait_until("the outbox is empty", || self.handle.depth() == 0);
    }
}

fn event(change: Change, sequence: u64) -> Event {
    let decided = Monotonic::now();
    Event {
        rule: "cat".into(),
        change,
        camera: "feeder".into(),
        region: None,
        class: 3,
        label: "wild_cat".into(),
        probability: 0.75,
        captured: decided - Duration::from_millis(25),
        decided,
        verdict: None,
        sequence,
        origin: None,
    }
}
