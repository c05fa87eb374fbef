//! What docs/fleet.md shows of a broker's configuration, as it stands there: a site's bridge, and the access list.

use std::process::Command;
use std::time::Instant;

use rumqttc::{Event, Packet, QoS};

use super::broker::Broker;
use super::listener::{connect_as, retained_under};
use super::member::{self, Member};
use super::wait;

/// The block of docs/fleet.md that has this line.
fn block(line: &str) -> String {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fleet.md")).unwrap();
    let mut blocks = text.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.lines().any(|own| own == line)).unwrap_or_else(|| panic!("no {line:?}"));
    block.split_once('\n').unwrap().1.to_owned()
}

#[test]
fn a_bridge_carries_states_to_the_centre_and_commands_back() {
    let folder = tempfile::tempdir().unwrap();
    member::write_photos(folder.path());
    let centre = Broker::start(folder.path());
    let bridge = block("connection site-7").replace("broker.example.org:8883", &format!("127.0.0.1:{}", centre.port));
    // The test's centre speaks no TLS.
    let bridge: String =
        bridge.lines().filter(|line| !line.starts_with("bridge_cafile")).map(|l| format!("{l}\n")).collect();
    let site = Broker::with(folder.path(), "site", &format!("allow_anonymous true\n{bridge}"));
    let board = Member::start(folder.path(), 0, site.port);
    let at_centre = |rest: &str| {
        let all = retained_under("sites/#", connect_as(centre.port, None));
        all.get(&format!("sites/7/{}", board.topic(rest))).cloned()
    };
    for (topic, told) in [("status", "online"), ("rule/always/state", "ON"), ("rule/never/armed", "ON")] {
        wait(Instant::now(), topic, || at_centre(topic).as_deref() == Some(told));
    }
    let (client, mut connection) = connect_as(centre.port, None);
    let set = format!("sites/7/{}", board.topic("rule/never/armed/set"));
    client.publish(set, QoS::AtLeastOnce, false, "OFF").unwrap();
    std::thread::spawn(move || connection.iter().map_while(Result::ok).for_each(drop));
    wait(Instant::now(), "disarmed", || at_centre("rule/never/armed").as_deref() == Some("OFF"));
}

#[test]
fn the_access_list_keeps_each_board_to_its_own() {
    let folder = tempfile::tempdir().unwrap();
    member::write_photos(folder.path());
    let (passwords, list) = (folder.path().join("passwords"), folder.path().join("acl"));
    std::fs::write(&passwords, "").unwrap();
    for user in ["operator", "board-0000", "board-0001"] {
        let made = Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args([user, user]).output();
        assert!(made.expect("mosquitto_passwd is installed: cross/packages.sh demo").status.success());
    }
    std::fs::write(&list, "user operator\ntopic readwrite #\n".to_owned() + &block("pattern readwrite spotter/%u/#"))
        .unwrap();
    let lines = format!("allow_anonymous false\npassword_file {}\nacl_file {}\n", passwords.display(), list.display());
    let broker = Broker::with(folder.path(), "strict", &lines);
    let client = |user| connect_as(broker.port, Some((user, user)));
    let publish = |user, topic: &str, payload: &str| {
        let (client, mut connection) = client(user);
        client.publish(topic, QoS::AtLeastOnce, true, payload).unwrap();
        let acknowledged = |event: &_| matches!(event, Ok(Event::Incoming(Packet::PubAck(_))));
        assert!(connection.iter().any(|event| acknowledged(&event)), "Mosquitto acknowledges what it drops, too");
    };
    // What an earlier configuration of the board has left in Home Assistant.
    let entity = "homeassistant/binary_sensor/board-0000/gone/config";
    publish("operator", entity, r#"{"origin":{"name":"Spotter"},"state_topic":"spotter/board-0000/rule/gone/state"}"#);

    let board = Member::with(folder.path(), 0, &format!("board-0000:board-0000@127.0.0.1:{}", broker.port));
    let told = |user, filter| retained_under(filter, client(user));
    for (topic, payload) in [("status", "online"), ("rule/always/state", "ON"), ("rule/never/armed", "ON")] {
        wait(Instant::now(), topic, || {
            told("operator", "spotter/#").get(&board.topic(topic)).is_some_and(|it| it == payload)
        });
    }
    wait(Instant::now(), "discovery", || {
        let entities = told("operator", "homeassistant/#");
        entities.len() > 3 && entities.keys().all(|it| it.contains("/board-0000/")) && !entities.contains_key(entity)
    });
    // What a thief has of another board opens nothing.
    publish("board-0001", &board.topic("status"), "offline");
    publish("board-0001", &board.topic("rule/never/armed/set"), "OFF");
    publish("board-0001", "homeassistant/binary_sensor/board-0000/always/config", "");
    publish("board-0001", "spotter/board-0001/status", "online");
    assert_eq!(told("board-0001", "#").into_keys().collect::<Vec<_>>(), ["spotter/board-0001/status"]);
    let all = told("operator", "#");
    assert_eq!(all[&board.topic("status")], "online");
    assert_eq!(all[&board.topic("rule/never/armed")], "ON");
    assert!(all.contains_key("homeassistant/binary_sensor/board-0000/always/config"), "{all:?}");
}
