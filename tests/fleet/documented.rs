//! The files for Mosquitto that docs/fleet.md shows, as they stand there: the bridge of a site, and the access list.

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
fn the_access_list_lets_a_board_speak_for_itself_only() {
    let folder = tempfile::tempdir().unwrap();
    member::write_photos(folder.path());
    let (access, passwords) = (folder.path().join("access"), folder.path().join("passwords"));
    let list = block("pattern readwrite spotter/%u/#");
    std::fs::write(&access, format!("{list}\nuser watcher\ntopic read #\n")).unwrap();
    std::fs::write(&passwords, "").unwrap();
    for user in ["board-0000", "board-0001", "watcher"] {
        let status = Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args([user, "word"]).status();
        assert!(status.expect("mosquitto_passwd comes with mosquitto").success());
    }
    let lines = format!("password_file {}\nacl_file {}\n", passwords.display(), access.display());
    let broker = Broker::with(folder.path(), "broker", &lines);
    let board = Member::with(folder.path(), 0, &format!("board-0000:word@127.0.0.1:{}", broker.port));
    let told = |filter| retained_under(filter, connect_as(broker.port, Some(("watcher", "word"))));
    wait(Instant::now(), "the board is known", || board.agrees_with(&told("spotter/#")));
    let discovered = told("homeassistant/#");
    assert!(discovered.keys().any(|topic| topic.contains("/board-0000/")), "{discovered:?}");
    // Another board says that this one is away, and then something of its own.
    for (topic, payload) in [(board.topic("status"), "offline"), ("spotter/board-0001/status".into(), "online")] {
        let (client, mut connection) = connect_as(broker.port, Some(("board-0001", "word")));
        client.publish(topic, QoS::AtLeastOnce, true, payload).unwrap();
        // Acknowledged, or hung up on: a broker may do either with what it does not take.
        let acknowledged = |event: &Result<Event, _>| matches!(event, Ok(Event::Incoming(Packet::PubAck(_))) | Err(_));
        connection.iter().find(acknowledged);
    }
    wait(Instant::now(), "the other is known", || told("spotter/#").contains_key("spotter/board-0001/status"));
    assert_eq!(told("spotter/#").get(&board.topic("status")).map(String::as_str), Some("online"));
}
