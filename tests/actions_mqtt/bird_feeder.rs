//! The shipped example of a bird feeder, run in the demo's manner: photos, a real broker, real files.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use spotter::capture::decode::decode_file;

use super::support::{Broker, Watcher, wait_until};
use super::{EVENT, STATUS};

#[test]
fn the_bird_feeder_keeps_pictures_and_tells_of_them() {
    let (root, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().unwrap());
    let broker = Broker::start();
    let watcher = Watcher::new(broker.port);
    // The same file elsewhere, so that the test leaves nothing in the tree.
    let example = std::fs::read_to_string(root.join("config/bird-feeder.toml")).unwrap();
    let (target, up) = ("\"../target/bird-feeder/", "\"../");
    assert!(example.contains(target) && example.contains("\"../tests/photos\""));
    let example = example
        .replace(target, &format!("\"{}/", folder.path().display()))
        .replace(up, &format!("\"{}/", root.display()))
        .replace("fps = 8", "fps = 1000");
    let config = folder.path().join("bird-feeder.toml");
    std::fs::write(&config, example).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_spotter"))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .args(["run", "--once", "--format", "json", "--config"])
        .arg(&config)
        .env("SPOTTER_BROKER", format!("mqtt://127.0.0.1:{}", broker.port))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["frames"], 40);
    let cats =
        summary["events"].as_array().unwrap().iter().filter(|it| it["rule"] == "cat" && it["on"] == true).count();
    assert!(cats >= 1, "{summary}");
    for action in summary["actions"].as_array().unwrap() {
        assert_eq!((&action["dropped"], &action["left"]), (&0.into(), &0.into()), "{action}");
    }

    let pictures: Vec<_> =
        std::fs::read_dir(folder.path().join("pictures")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(pictures.len(), cats);
    for picture in &pictures {
        let name = picture.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("album.") && name.contains(".cat.") && name.ends_with(".jpg"), "{name}");
        assert!(decode_file(picture).unwrap().height > 100, "{name}");
    }

    let ids = |events: &[Value]| events.iter().map(|event| event["id"].clone()).collect::<Vec<_>>();
    let lines = std::fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
    let logged: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["payload"].clone()).collect();
    assert_eq!(logged.iter().filter(|event| event["state"] == "on").count(), cats, "{lines}");
    assert_eq!((&logged[0]["rule"], &logged[0]["camera"]), (&"cat".into(), &"feeder".into()));
    watcher.expect(STATUS, "offline");
    wait_until("the events came", || watcher.of(EVENT).len() == logged.len());
    let told: Vec<Value> = watcher.of(EVENT).iter().map(|seen| seen.json()).collect();
    assert_eq!(ids(&told), ids(&logged), "the same events in the log and at the broker");
}
