//! What Home Assistant finds: entities that its own schemas take, again after its birth, and none that are no more.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use spotter::actions::RuleInfo;
use spotter::config::plan::{ActionKind, ActionPlan, GpioBackend, GpioLine, GpioMode, GpioPlan, Level, MqttPlan};
use spotter::control::Command as Asked;

use crate::support::{Broker, Rig, Seen, Watcher, plan, wait_until};

const SENSOR: &str = "homeassistant/binary_sensor/garden/cat/config";
const SIREN: &str = "spotter/garden/action/siren/test";

fn everything(port: u16) -> MqttPlan {
    MqttPlan { discovery: Some("homeassistant".into()), commands: true, snapshots: true, ..plan(port) }
}

fn siren() -> ActionPlan {
    let kind = ActionKind::Gpio(GpioPlan {
        backend: GpioBackend::Simulated,
        chip: Some("home-assistant".into()),
        line: GpioLine::Offset(17),
        mode: GpioMode::Pulse(Duration::from_millis(10)),
        active_low: false,
        safe: Level::Low,
    });
    ActionPlan { name: "siren".into(), kind }
}

fn rule(name: &str) -> RuleInfo {
    RuleInfo {
        name: name.into(),
        label: format!("The {name}"),
        actions: vec!["broker".into()],
        has_switch: true,
        armed_by_mqtt: true,
    }
}

fn entities(watcher: &Watcher) -> Vec<Seen> {
    watcher.all().into_iter().filter(|seen| seen.topic.ends_with("/config")).collect()
}

/// With `SPOTTER_HOMEASSISTANT` (the Python of an environment that has the package, `make test-homeassistant`) against Home Assistant's
/// own schemas; without it, that each entity is there.
#[test]
fn home_assistants_own_schemas_take_every_entity() {
    let broker = Broker::start();
    let watcher = Watcher::new(broker.port);
    let _rig = Rig::of(everything(broker.port), vec![rule("cat")], vec![siren()]);
    wait_until("ten entities", || entities(&watcher).len() == 10);
    let entities = entities(&watcher);
    for component in ["binary_sensor", "switch", "sensor", "image", "button"] {
        assert!(entities.iter().any(|seen| seen.topic.contains(&format!("/{component}/"))), "{component}");
    }
    let Some(python) = std::env::var_os("SPOTTER_HOMEASSISTANT") else { return };
    let lines: String = entities.iter().map(|seen| format!("{}\t{}\n", seen.topic, seen.payload)).collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/actions_mqtt/schemas.py");
    let mut checker = Command::new(python).arg(script).stdin(Stdio::piped()).spawn().expect("the environment's python");
    checker.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(checker.wait().unwrap().success());
}

#[test]
fn a_birth_is_answered_and_what_is_no_birth_is_not() {
    let broker = Broker::start();
    let watcher = Watcher::new(broker.port);
    let rig = Rig::of(everything(broker.port), vec![rule("cat")], vec![siren()]);
    wait_until("the first discovery", || entities(&watcher).len() == 10);
    watcher.publish("homeassistant/status", "offline");
    watcher.publish("homeassistant/status", "online");
    wait_until("the second discovery", || entities(&watcher).len() == 20);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(entities(&watcher).len(), 20);
    // Neither is a command, nor are the entities that we hear of ourselves.
    assert_eq!(rig.handle.refused(), 0);
}

#[test]
fn the_entities_of_a_rule_that_is_no_more_are_removed_after_a_restart() {
    let broker = Broker::start();
    let other = "homeassistant/binary_sensor/garden/porch/config";
    let foreign = r#"{"name":"porch","state_topic":"porch","origin":{"name":"Zigbee2MQTT"}}"#;
    Watcher::new(broker.port).retain(other, foreign);
    let before = Rig::of(everything(broker.port), vec![rule("cat"), rule("dog")], vec![siren()]);
    let watcher = Watcher::new(broker.port);
    wait_until("twelve entities and a foreign one", || entities(&watcher).len() == 13);
    watcher.expect("spotter/garden/rule/dog/state", "OFF");
    assert!(before.handle.close(Duration::from_secs(4)));
    let _after = Rig::of(everything(broker.port), vec![rule("cat")], vec![siren()]);
    for topic in ["binary_sensor/garden/dog/config", "switch/garden/dog/config"] {
        watcher.expect(&format!("homeassistant/{topic}"), "");
    }
    watcher.expect("spotter/garden/rule/dog/state", "");
    wait_until("nothing of it is retained", || {
        let late = Watcher::new(broker.port);
        late.expect(SENSOR, &watcher.payloads(SENSOR).pop().unwrap());
        let all = late.all();
        !all.iter().any(|seen| seen.topic.contains("/dog/"))
            && all.iter().any(|seen| seen.topic == other && seen.payload == foreign)
    });
}

#[test]
fn a_button_tests_its_pin_only_where_commands_are_configured() {
    let broker = Broker::start();
    let watcher = Watcher::new(broker.port);
    let rig = Rig::of(everything(broker.port), vec![rule("cat")], vec![siren()]);
    watcher.expect("spotter/garden/status", "online");
    wait_until("subscribed", || {
        watcher.publish(SIREN, "PRESS");
        std::thread::sleep(Duration::from_millis(20));
        rig.control.next() == Some(Asked::TestPin { action: "siren".into() })
    });
    drop(rig);
    let deaf = MqttPlan { commands: false, ..everything(broker.port) };
    let rig = Rig::of(deaf, vec![rule("cat")], vec![siren()]);
    wait_until("connected again", || rig.handle.connected() == 1);
    // The one is not subscribed to; when the other has come, it would have come too.
    watcher.publish(SIREN, "PRESS");
    wait_until("armed", || {
        watcher.publish("spotter/garden/rule/cat/armed/set", "ON");
        std::thread::sleep(Duration::from_millis(20));
        rig.control.next() == Some(Asked::Arm { rule: "cat".into(), armed: true })
    });
    assert!(!std::iter::from_fn(|| rig.control.next()).any(|asked| matches!(asked, Asked::TestPin { .. })));
}

/// The whole daemon: the frame that turned its rule on, what it sees, its rate, the board.
#[test]
fn the_daemon_publishes_its_snapshot_and_how_it_is() {
    let (broker, folder, root) = (Broker::start(), tempfile::tempdir().unwrap(), env!("CARGO_MANIFEST_DIR"));
    let watcher = Watcher::new(broker.port);
    let config = folder.path().join("spotter.toml");
    let text = format!(
        "[device]\nname = \"garden\"\n[device.thermal]\nsysfs = \"sys\"\n\
         [model]\npath = \"{root}/models/vgg16-gap-caltech101.onnx\"\n\
         [[camera]]\nname = \"c\"\nfiles = \"{root}/tests/photos/wild_cat\"\nrepeat = true\nfps = 5\n\
         [[rule]]\nname = \"cat\"\nclasses = [\"wild_cat\"]\nhold = \"1m\"\nactions = [\"b\"]\n\
         [action.b]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\nsnapshots = true\n",
        broker.port
    );
    std::fs::write(&config, text).unwrap();
    let zone = folder.path().join("sys/class/thermal/thermal_zone0");
    std::fs::create_dir_all(&zone).unwrap();
    std::fs::write(zone.join("temp"), "77000\n").unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_spotter"))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .args(["run", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let json = |topic: &str| watcher.of(&format!("spotter/garden/{topic}")).pop().map(|seen| seen.json());
    wait_until("the snapshot", || {
        watcher.payloads("spotter/garden/camera/c/snapshot").pop().is_some_and(|it| it.contains("JFIF"))
    });
    wait_until("some seconds of frames", || watcher.sequences().len() == 1);
    // A report comes every ten seconds.
    std::thread::sleep(Duration::from_secs(8));
    wait_until("what it sees", || json("camera/c/top").is_some_and(|top| top["label"] == "wild_cat"));
    wait_until("its rate", || json("camera/c/rate").is_some_and(|rate| rate["frames_per_second"].as_f64() > Some(0.0)));
    let board = json("board").unwrap();
    assert_eq!((&board["celsius"], &board["thermal_step"]), (&77.0.into(), &3.into()));
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
}
