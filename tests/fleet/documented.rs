//! The bridge of a site that docs/fleet.md shows, as it stands there.

use std::time::Instant;

use rumqttc::QoS;

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
