//! MQTT 5, and a board whose clock is wrong at boot.

use std::path::Path;
use std::time::Duration;

use spotter::actions::Health;
use spotter::config::plan::{MqttPlan, MqttVersion, Secret};

use super::support::{Broker, Gate, OFF, ON, Rig, Watcher, plan, wait_until};
use super::{EVENT, RULE, STATUS, make_authority, run};

fn v5(port: u16) -> MqttPlan {
    MqttPlan { version: MqttVersion::V5, ..plan(port) }
}

#[test]
fn version_5_publishes_states_and_events_and_leaves_in_order() {
    let broker = Broker::start();
    let watcher = Watcher::new(broker.port);
    let rig = Rig::new(MqttPlan { discovery: Some("homeassistant".into()), ..v5(broker.port) });
    watcher.expect(STATUS, "online");
    assert_eq!(watcher.all()[0].topic, STATUS);
    for sequence in 0..100 {
        rig.send(if sequence % 2 == 0 { ON } else { OFF }, sequence);
    }
    assert!(rig.handle.close(Duration::from_secs(4)));
    watcher.expect(STATUS, "offline");
    assert_eq!(watcher.sequences(), (0..100).collect::<Vec<_>>());
    assert_eq!(rig.deliveries.sequences(), (0..100).collect::<Vec<_>>());
    assert_eq!(watcher.payloads(RULE).last().map(String::as_str), Some("OFF"));
    assert!(Watcher::new(broker.port).of(EVENT).is_empty(), "events are not retained");
    assert_eq!((rig.handle.depth(), rig.handle.dropped()), (0, 0));
}

#[test]
fn version_5_loses_nothing_when_the_broker_is_killed_and_leaves_its_will() {
    let mut broker = Broker::start();
    let gate = Gate::before(broker.port, true);
    let rig = Rig::new(v5(gate.port));
    let watcher = Watcher::new(broker.port);
    (0..50).for_each(|sequence| _ = rig.send(ON, sequence));
    watcher.expect_event(10);
    gate.shut();
    watcher.expect(STATUS, "offline");
    broker.kill();
    watcher.wait_for_the_end();
    (50..80).for_each(|sequence| _ = rig.send(if sequence == 79 { OFF } else { ON }, sequence));
    broker.restart();
    let later = Watcher::new(broker.port);
    gate.open();
    rig.wait_until_empty();
    later.expect_event(79);
    assert_eq!(later.payloads(RULE), ["OFF"], "the latest state alone");
    let mut all = [watcher.sequences(), later.sequences()].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!((all, rig.handle.dropped()), ((0..80).collect::<Vec<_>>(), 0));
}

#[test]
fn version_5_says_what_is_refused() {
    let extra = "allow_anonymous false\npassword_file {folder}/passwords\nacl_file {folder}/acl";
    let broker = Broker::prepared(extra, |folder| {
        run("mosquitto_passwd", &["-b", "-c", folder.join("passwords").to_str().unwrap(), "spotter", "right"]);
        std::fs::write(folder.join("acl"), "user spotter\ntopic write spotter/#\ntopic deny spotter/garden/event\n")
            .unwrap();
    });
    let with = |password: &str| MqttPlan {
        credentials: Some(("spotter".to_owned(), Secret::new(password.to_owned()))),
        ..v5(broker.port)
    };
    let refused = Rig::new(with("wrong"));
    wait_until("rejected", || refused.handle.status().health == Health::Rejected);
    let detail = refused.handle.status().detail;
    assert!(detail.contains("refuses user and password") && !detail.contains("wrong"), "{detail}");
    assert!(refused.handle.close(Duration::from_secs(1)));

    // Of the right user the broker takes everything but events: a message that it does not take is no delivery.
    let rig = Rig::new(with("right"));
    rig.send(ON, 1);
    wait_until("the refusal is counted", || rig.handle.dropped() == 1);
    // Mosquitto 2.0 closes the connection after it; the reason is still what is shown.
    wait_until("the reason is shown", || {
        let status = rig.handle.status();
        status.health == Health::Rejected && status.detail.contains("NotAuthorized; check its access list")
    });
    assert!(rig.deliveries.sequences().is_empty());
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_waited_for() {
    let extra =
        "allow_anonymous true\ncafile {folder}/ca.pem\ncertfile {folder}/broker.pem\nkeyfile {folder}/broker.key";
    let mut broker = Broker::prepared(extra, |folder| {
        make_authority(folder, "ca");
        make_certificate_from(folder, "20900101000000Z");
    });
    for version in [MqttVersion::V311, MqttVersion::V5] {
        make_certificate_from(broker.folder(), "20900101000000Z");
        broker.kill();
        broker.restart();
        let ca = Some(broker.folder().join("ca.pem"));
        let rig = Rig::new(MqttPlan { version, tls: true, ca, host: "localhost".into(), ..plan(broker.port) });
        wait_until("degraded", || rig.handle.status().health == Health::Degraded);
        let status = rig.handle.status();
        for words in ["not valid yet", "is this board's clock right? It is tried again until the clock is set"] {
            assert!(status.detail.contains(words), "{}", status.detail);
        }
        rig.send(ON, 1);
        // Far more than the first attempts: it is no refusal, and nothing is given up.
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!((rig.handle.status().health, rig.handle.status().since), (Health::Degraded, status.since));
        // The clock is set: from the certificate's point of view, the same as a certificate that has become valid.
        make_certificate_from(broker.folder(), "20200101000000Z");
        broker.kill();
        broker.restart();
        wait_until("ready", || rig.handle.status().health == Health::Ready);
        rig.wait_until_empty();
        assert_eq!((rig.deliveries.sequences(), rig.handle.dropped()), (vec![1], 0));
    }
}

/// As `make_certificate`, valid from `begin` (`YYYYMMDDHHMMSSZ`) for a long time. `openssl ca`, because `openssl x509`
/// takes dates from version 3.4 on only.
fn make_certificate_from(folder: &Path, begin: &str) {
    let script = "set -e; cd $0; rm -f index*; : > index; echo 01 > serial
        printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > san
        printf '[ca]\ndefault_ca=a\n[a]\ndatabase=index\nserial=serial\ndefault_md=sha256\npolicy=p\nnew_certs_dir=.\n[p]\ncommonName=supplied\n' > conf
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout broker.key -out broker.csr -subj /CN=localhost
        openssl ca -batch -notext -config conf -cert ca.pem -keyfile ca.key -extfile san \
            -startdate $1 -enddate 20991231235959Z -in broker.csr -out broker.pem";
    run("sh", &["-c", script, folder.to_str().unwrap(), begin]);
}
