//! A message asks a station of the whole daemon for a verdict, through a real Mosquitto.

use std::process::{Command, Stdio};

use rumqttc::{Client, MqttOptions, QoS};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Broker, Watcher, wait_until};

#[test]
fn a_message_with_a_part_number_is_answered_with_a_verdict() {
    let (broker, folder, root) = (Broker::start(), tempfile::tempdir().unwrap(), env!("CARGO_MANIFEST_DIR"));
    let watcher = Watcher::new(broker.port);
    let config = folder.path().join("spotter.toml");
    let text = format!(
        "[device]\nname = \"line\"\n[model]\npath = \"{root}/models/vgg16-gap-caltech101.onnx\"\n\
         [[camera]]\nname = \"belt\"\nfiles = \"{root}/tests/photos/wild_cat\"\nrepeat = true\nlive = true\nfps = 20\n\
         [[station]]\nname = \"gate\"\ncamera = \"belt\"\nclasses = [\"wild_cat\"]\ntimeout = \"60s\"\n\
         pass = [\"broker\"]\nfail = [\"broker\"]\nfault = [\"broker\"]\n\
         [action.broker]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\n",
        broker.port
    );
    std::fs::write(&config, text).unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_spotter"))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .args(["run", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    watcher.expect("spotter/line/camera/belt/state", r#"{"state":"online"}"#);
    let (client, mut connection) = Client::new(MqttOptions::new("plc", "127.0.0.1", broker.port), 10);
    std::thread::spawn(move || connection.iter().map_while(Result::ok).for_each(drop));
    let ask = |part: &str| client.publish("spotter/line/station/gate/judge", QoS::ExactlyOnce, false, part);
    ask("A-17").unwrap();
    let verdicts = || watcher.of("spotter/line/station/gate/verdict");
    wait_until("the verdict", || !verdicts().is_empty());
    ask("").unwrap();
    wait_until("a second one", || verdicts().len() >= 2);
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    let told: Vec<_> = verdicts().iter().map(|seen| seen.json()).collect();
    let named: Vec<_> = told.iter().filter(|json| json["part"] == "A-17").collect();
    let [verdict] = named.as_slice() else { panic!("{told:?}") };
    assert_eq!(
        (&verdict["rule"], &verdict["state"], &verdict["label"]),
        (&"gate".into(), &"pass".into(), &"wild_cat".into())
    );
    assert!(verdict["probability"].as_f64() >= Some(0.6), "{verdict}");
    assert!(
        told.iter().any(|json| json["part"].is_null() && json.as_object().unwrap().contains_key("part")),
        "{told:?}"
    );
    // A station has no state, and its verdicts are no events of a rule.
    assert!(watcher.of("spotter/line/event").is_empty());
    assert!(watcher.of("spotter/line/rule/gate/state").is_empty());
}
