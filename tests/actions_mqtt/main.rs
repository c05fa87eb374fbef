//! The MQTT action against a real Mosquitto: what a subscriber sees through kills, cuts, refusals and overflow.

mod bird_feeder;
mod gate;
mod home_assistant;
mod judge;
mod reload;
mod support;
mod versions;

use std::time::{Duration, Instant};

use spotter::actions::{CameraStatus, Health, Message};
use spotter::config::plan::{MqttPlan, Secret};
use spotter::control::Command;
use support::{Broker, Gate, OFF, ON, Rig, Watcher, plan, wait_until};

const STATUS: &str = "spotter/garden/status";
const RULE: &str = "spotter/garden/rule/cat/state";
const CAMERA: &str = "spotter/garden/camera/feeder/state";
const SWITCH: &str = "homeassistant/switch/garden/cat/config";
const ARMED: &str = "spotter/garden/rule/cat/armed";
const EVENT: &str = "spotter/garden/event";

#[test]
fn the_birth_comes_first_then_discovery_and_every_state() {
    let broker = Broker::start();
    let watcher = Watcher::new(broker.port);
    let rig = Rig::new(MqttPlan { discovery: Some("homeassistant".into()), ..plan(broker.port) });
    wait_until("eleven messages", || watcher.all().len() >= 11);
    let seen = watcher.all();
    let topics: Vec<&str> = seen.iter().map(|seen| seen.topic.as_str()).collect();
    assert_eq!(topics[..3], [STATUS, "homeassistant/binary_sensor/garden/cat/config", SWITCH]);
    assert!(topics[3..9].iter().all(|topic| topic.starts_with("homeassistant/")), "{topics:?}");
    assert_eq!(topics[9..], [RULE, CAMERA]);
    assert_eq!((seen[0].payload.as_str(), seen[9].payload.as_str()), ("online", "OFF"));
    assert_eq!(seen[10].json()["state"], "degraded");

    let sensor = seen[1].json();
    assert_eq!((&sensor["state_topic"], &sensor["availability_topic"]), (&RULE.into(), &STATUS.into()));
    assert_eq!((&sensor["name"], &sensor["unique_id"]), (&"The cat".into(), &"spotter_garden_cat".into()));

    rig.handle.send(Message::Camera(CameraStatus { camera: "feeder".into(), healthy: true, reason: None }));
    rig.send(ON, 7);
    watcher.expect(RULE, "ON");
    watcher.expect(CAMERA, r#"{"state":"online"}"#);
    rig.wait_until_empty();
    watcher.expect_event(7);
    let event = watcher.of(EVENT).pop().unwrap();
    assert!(!event.retained);
    let json = event.json();
    assert_eq!((&json["rule"], &json["state"], &json["sequence"]), (&"cat".into(), &"on".into(), &7.into()));
    assert_eq!((&json["label"], &json["latency_ms"]), (&"wild_cat".into(), &25.0.into()));
    assert_eq!(rig.deliveries.sequences(), [7]);

    // Who comes later finds the states, and no old event.
    let late = Watcher::new(broker.port);
    late.expect(CAMERA, r#"{"state":"online"}"#);
    for (topic, payload) in [(STATUS, "online"), (RULE, "ON")] {
        let seen = late.of(topic);
        assert!(matches!(seen.as_slice(), [one] if one.retained && one.payload == payload), "{seen:?}");
    }
    assert_eq!(late.of(EVENT), []);
}

#[test]
fn a_switch_on_the_broker_arms_and_its_state_is_retained() {
    let mut broker = Broker::start();
    let rig = Rig::new(plan(broker.port));
    let tell = |armed| rig.handle.send(Message::Armed { rule: "cat".into(), armed });
    let command = |armed| Some(Command::Arm { rule: "cat".into(), armed });
    tell(true);
    for round in 0..2 {
        let watcher = Watcher::new(broker.port);
        watcher.expect(ARMED, if round == 0 { "ON" } else { "OFF" });
        let set = format!("{ARMED}/set");
        for (payload, armed) in [("OFF", false), ("ON", true), ("OFF", false)] {
            watcher.publish(&set, payload);
            let got = std::cell::Cell::new(None);
            wait_until(payload, || {
                got.set(rig.control.next());
                got.take().is_some_and(|next| Some(next) == command(armed))
            });
            tell(armed);
            watcher.expect(ARMED, if armed { "ON" } else { "OFF" });
        }
        // Neither nonsense nor another rule's topic; what comes after it is still obeyed.
        watcher.publish(&set, "toggle");
        watcher.publish("spotter/garden/rule/front door/armed/set", "ON");
        watcher.publish(&set, "ON");
        wait_until("the command after nonsense", || rig.control.next() == command(true));
        assert_eq!(rig.control.next(), None);
        assert_eq!(rig.handle.refused(), 2 * (round + 1));
        Watcher::new(broker.port).expect(ARMED, "OFF");
        // A broker that was away is listened to again.
        broker.kill();
        broker.restart();
    }
}

/// The whole daemon: disarmed over the broker, it turns its rule off, and is still disarmed after a restart.
#[test]
fn what_is_disarmed_over_the_broker_stays_so_after_a_restart() {
    let (broker, folder) = (Broker::start(), tempfile::tempdir().unwrap());
    let (root, port) = (env!("CARGO_MANIFEST_DIR"), broker.port);
    let config = folder.path().join("spotter.toml");
    let text = format!(
        "[device]\nname = \"garden\"\n[model]\npath = \"{root}/models/vgg16-gap-caltech101.onnx\"\n\
         [[camera]]\nname = \"c\"\nfiles = \"{root}/tests/photos/wild_cat\"\nrepeat = true\nfps = 10\n\
         [[rule]]\nname = \"cat\"\nclasses = [\"wild_cat\"]\nhold = \"1m\"\narmed_by = \"mqtt\"\nactions = [\"b\"]\n\
         [action.b]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{port}\"\ndiscovery = false\n"
    );
    std::fs::write(&config, text).unwrap();
    let start = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_spotter"));
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        let command = command.args(["run", "--config"]).arg(&config).env("STATE_DIRECTORY", folder.path());
        command.stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let stop = |mut daemon: std::process::Child| {
        rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), rustix::process::Signal::TERM)
            .unwrap();
        assert!(daemon.wait().unwrap().success());
    };
    let daemon = start();
    let watcher = Watcher::new(port);
    watcher.expect(RULE, "ON");
    watcher.expect(ARMED, "ON");
    watcher.publish(&format!("{ARMED}/set"), "OFF");
    watcher.expect(RULE, "OFF");
    watcher.expect(ARMED, "OFF");
    wait_until("the reason is told", || watcher.of(EVENT).last().is_some_and(|e| e.json()["reason"] == "disarmed"));
    stop(daemon);

    let daemon = start();
    let watcher = Watcher::new(port);
    watcher.expect(STATUS, "online");
    watcher.expect(ARMED, "OFF");
    watcher.publish(&format!("{ARMED}/set"), "ON");
    watcher.expect(ARMED, "ON");
    watcher.expect(RULE, "ON");
    assert!(watcher.payloads(ARMED).iter().rev().nth(1).is_some_and(|before| before == "OFF"), "it came back disarmed");
    stop(daemon);
}

#[test]
fn an_abrupt_death_leaves_offline_and_the_return_online_first() {
    let broker = Broker::start();
    let gate = Gate::before(broker.port, true);
    let rig = Rig::new(plan(gate.port));
    let watcher = Watcher::new(broker.port);
    rig.send(ON, 1);
    watcher.expect(RULE, "ON");
    gate.shut();
    watcher.expect(STATUS, "offline");
    Watcher::new(broker.port).expect(STATUS, "offline");
    wait_until("degraded", || rig.handle.status().health == Health::Degraded);
    rig.send(OFF, 2);
    let before = watcher.all().len();
    gate.open();
    watcher.expect(RULE, "OFF");
    rig.wait_until_empty();
    let back = watcher.all()[before..].to_vec();
    assert_eq!((back[0].topic.as_str(), back[0].payload.as_str()), (STATUS, "online"), "{back:?}");
    let retained = Watcher::new(broker.port);
    retained.expect(STATUS, "online");
    wait_until("ready", || rig.handle.status().health == Health::Ready);
}

#[test]
fn a_clean_close_drains_then_says_offline_last() {
    let broker = Broker::start();
    let watcher = Watcher::new(broker.port);
    let rig = Rig::new(plan(broker.port));
    watcher.expect(STATUS, "online");
    for sequence in 0..200 {
        rig.send(if sequence % 2 == 0 { ON } else { OFF }, sequence);
    }
    assert!(rig.handle.close(Duration::from_secs(4)));
    watcher.expect(STATUS, "offline");
    assert_eq!(watcher.sequences(), (0..200).collect::<Vec<_>>());
    assert_eq!(watcher.payloads(RULE).last().map(String::as_str), Some("OFF"));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(watcher.payloads(STATUS), ["online", "offline"], "and no will after it");
    assert_eq!(watcher.all().last().unwrap().topic, STATUS);
    assert_eq!((rig.handle.depth(), rig.handle.dropped()), (0, 0));
    assert!(!rig.send(ON, 201), "closed");
}

#[test]
fn no_event_is_lost_when_the_broker_is_killed_under_load() {
    let mut broker = Broker::start();
    let gate = Gate::before(broker.port, true);
    let rig = Rig::new(plan(gate.port));
    let mut watcher = Watcher::new(broker.port);
    let mut arrived: Vec<Vec<u64>> = Vec::new();
    let mut sequence = 0;
    let mut send = |count: u64, pause: Duration| {
        for _ in 0..count {
            rig.send(if sequence % 2 == 0 { ON } else { OFF }, sequence);
            sequence += 1;
            std::thread::sleep(pause);
        }
    };
    for _ in 0..3 {
        send(60, Duration::from_millis(1));
        send(40, Duration::ZERO);
        broker.kill();
        gate.shut();
        send(40, Duration::ZERO);
        watcher.wait_for_the_end();
        broker.restart();
        arrived.push(watcher.sequences());
        watcher = Watcher::new(broker.port);
        gate.open();
        watcher.expect(STATUS, "online");
    }
    send(10, Duration::ZERO);
    rig.wait_until_empty();
    watcher.expect_event(429);
    arrived.push(watcher.sequences());
    assert_eq!(rig.handle.dropped(), 0);
    for part in &arrived {
        assert!(part.is_sorted(), "in order while a broker lives: {part:?}");
    }
    let mut all: Vec<u64> = arrived.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (0..430).collect::<Vec<_>>());
    let mut delivered = rig.deliveries.sequences();
    delivered.sort_unstable();
    assert_eq!(delivered, (0..430).collect::<Vec<_>>(), "each delivery is told once");
}

#[test]
fn a_broker_that_forgot_everything_is_told_again() {
    let mut broker = Broker::start();
    let rig = Rig::new(MqttPlan { discovery: Some("homeassistant".into()), ..plan(broker.port) });
    rig.send(ON, 1);
    rig.wait_until_empty();
    for _ in 0..2 {
        broker.kill();
        broker.restart();
        let restarted = Instant::now();
        let watcher = Watcher::new(broker.port);
        watcher.expect(STATUS, "online");
        watcher.expect(RULE, "ON");
        assert!(restarted.elapsed() < Duration::from_secs(5), "{:?}", restarted.elapsed());
        let retained = Watcher::new(broker.port);
        retained.expect("homeassistant/binary_sensor/garden/cat/config", &retained_config(&watcher));
        retained.expect(CAMERA, r#"{"reason":"no frame yet","state":"degraded"}"#);
    }
}

fn retained_config(watcher: &Watcher) -> String {
    watcher.payloads("homeassistant/binary_sensor/garden/cat/config").pop().unwrap()
}

#[test]
fn overflow_drops_the_oldest_and_the_count_is_exact() {
    let broker = Broker::start();
    let gate = Gate::before(broker.port, false);
    let rig = Rig::new(MqttPlan { outbox: 10, ..plan(gate.port) });
    let kept = (0..101).filter(|&sequence| rig.send(if sequence % 2 == 0 { ON } else { OFF }, sequence)).count();
    assert_eq!((kept, rig.handle.depth(), rig.handle.dropped()), (10, 10, 91));
    let watcher = Watcher::new(broker.port);
    gate.open();
    rig.wait_until_empty();
    watcher.expect(RULE, "ON");
    watcher.expect_event(100);
    assert_eq!(watcher.sequences(), (91..101).collect::<Vec<_>>());
    assert_eq!(watcher.payloads(RULE), ["ON"], "the latest state alone");
    assert_eq!(rig.handle.dropped(), 91);
}

#[test]
fn refused_credentials_are_a_clear_state_and_right_ones_work() {
    let extra = "allow_anonymous false\npassword_file {folder}/passwords";
    let broker = Broker::prepared(extra, |folder| {
        run("mosquitto_passwd", &["-b", "-c", folder.join("passwords").to_str().unwrap(), "spotter", "right"]);
    });
    let credentials = |password: &str| Some(("spotter".to_owned(), Secret::new(password.to_owned())));
    let refused = Rig::new(MqttPlan { credentials: credentials("wrong"), ..plan(broker.port) });
    wait_until("rejected", || refused.handle.status().health == Health::Rejected);
    let status = refused.handle.status();
    assert!(status.detail.contains("the broker refuses user and password"), "{}", status.detail);
    assert!(status.detail.contains(&format!("mqtt://127.0.0.1:{}", broker.port)), "{}", status.detail);
    assert!(!status.detail.contains("wrong"), "a password is never shown: {}", status.detail);
    let began = Instant::now();
    refused.send(ON, 1);
    assert!(refused.handle.close(Duration::from_secs(4)));
    assert!(began.elapsed() < Duration::from_secs(2), "a refusal is not argued with: {:?}", began.elapsed());

    let watcher = Watcher::with(broker.port, |options| {
        options.set_credentials("spotter", "right");
    });
    let right = Rig::new(MqttPlan { credentials: credentials("right"), ..plan(broker.port) });
    watcher.expect(STATUS, "online");
    wait_until("ready", || right.handle.status().health == Health::Ready);
}

#[test]
fn two_clients_with_one_id_say_what_is_wrong() {
    let broker = Broker::start();
    let (one, other) = (Rig::new(plan(broker.port)), Rig::new(plan(broker.port)));
    let hint = "does another client use the id spotter-garden-";
    wait_until("a hint", || [&one, &other].iter().any(|rig| rig.handle.status().detail.contains(hint)));
    assert!(other.handle.close(Duration::from_secs(1)));
    one.send(ON, 1);
    one.wait_until_empty();
}

#[test]
fn an_absent_broker_holds_up_neither_start_nor_send_nor_close() {
    let gate = Gate::before(1, false);
    let began = Instant::now();
    let rig = Rig::new(plan(gate.port));
    for sequence in 0..5000 {
        rig.send(ON, sequence);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    wait_until("degraded", || rig.handle.status().health == Health::Degraded);
    let began = Instant::now();
    assert!(rig.handle.close(Duration::from_millis(700)));
    assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
    assert_eq!((rig.handle.depth(), rig.handle.dropped()), (1000, 4000));
}

#[test]
fn a_close_while_the_broker_is_away_still_delivers_if_it_comes_back_in_time() {
    let broker = Broker::start();
    let watcher = Watcher::new(broker.port);
    let gate = Gate::before(broker.port, false);
    let rig = Rig::new(plan(gate.port));
    rig.send(ON, 1);
    rig.handle.begin_close(Duration::from_secs(4));
    std::thread::sleep(Duration::from_millis(300));
    gate.open();
    assert!(rig.handle.close(Duration::from_secs(4)));
    watcher.expect(STATUS, "offline");
    assert_eq!(watcher.sequences(), [1]);
}

#[test]
fn tls_works_with_the_right_authority_and_says_what_is_wrong_otherwise() {
    let extra =
        "allow_anonymous true\ncafile {folder}/ca.pem\ncertfile {folder}/broker.pem\nkeyfile {folder}/broker.key";
    let broker = Broker::prepared(extra, |folder| {
        make_authority(folder, "ca");
        make_authority(folder, "stranger");
        make_certificate(folder);
    });
    let mqtts = |ca: &str| {
        let ca = Some(broker.folder().join(ca));
        Rig::new(MqttPlan { tls: true, ca, host: "localhost".into(), ..plan(broker.port) })
    };
    let trusted = mqtts("ca.pem");
    wait_until("ready", || trusted.handle.status().health == Health::Ready);
    assert!(trusted.handle.status().detail.contains("mqtts://localhost"), "{:?}", trusted.handle.status());
    trusted.send(ON, 1);
    trusted.wait_until_empty();
    assert_eq!(trusted.deliveries.sequences(), [1]);

    for (ca, words) in [("stranger.pem", "its authority known"), ("missing.pem", "missing.pem (ca = …) cannot be read")]
    {
        let rig = mqtts(ca);
        wait_until("rejected", || rig.handle.status().health == Health::Rejected);
        assert!(rig.handle.status().detail.contains(words), "{:?}", rig.handle.status());
    }
}

fn make_authority(folder: &std::path::Path, name: &str) {
    let (key, certificate) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.pem")));
    let (key, certificate, subject) = (key.to_str().unwrap(), certificate.to_str().unwrap(), format!("/CN={name}"));
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    run(
        "openssl",
        &[&["req", "-x509"], &curve[..], &["-keyout", key, "-out", certificate, "-subj", &subject]].concat(),
    );
}

fn make_certificate(folder: &std::path::Path) {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    std::fs::write(at("san"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let (key, request) = (at("broker.key"), at("broker.csr"));
    run("openssl", &[&["req"], &curve[..], &["-keyout", &key, "-out", &request, "-subj", "/CN=localhost"]].concat());
    let (ca, ca_key, out, san) = (at("ca.pem"), at("ca.key"), at("broker.pem"), at("san"));
    let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "2"];
    run("openssl", &[&sign[..], &["-extfile", &san, "-out", &out]].concat());
}

/// Runs a program that the test needs; its absence is a failure, not a skip.
fn run(program: &str, arguments: &[&str]) {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; is it installed?"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
