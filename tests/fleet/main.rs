//! Many boards at one broker: the real daemon, N times, on a tiny model and photos, against one Mosquitto.
//!
//! What it prints is what an operator of many boards has to know: how hard the boards come down on a broker that starts, how soon all are
//! back, whether an event is lost or doubled by its absence, whether what the broker retains is true then, and what a daemon costs.
//! `make fleet N=50` runs it large; `cargo test` runs three, so that it works on the day that it is needed.

mod broker;
mod documented;
mod gate;
mod listener;
mod member;
mod table;

use std::time::{Duration, Instant};

use broker::Broker;
use gate::Gate;
use listener::{Listener, Record, retained};
use member::Member;
use table::Table;

/// All retained states are right this long after the broker is back.
const BAR: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn three_boards_survive_a_broker_that_dies() {
    Fleet { size: 3, calm: Duration::from_secs(2), away: Duration::from_secs(1) }.run().assert();
}

#[test]
#[ignore = "fifty daemons: make fleet N=50"]
fn a_fleet_survives_a_broker_that_dies() {
    let size = std::env::var("SPOTTER_FLEET").map_or(50, |n| n.parse().expect("N is a whole number"));
    // Away until every board tries at the longest interval of its back-off: its times are 0.2 s doubled up to 4 s.
    Fleet { size, calm: Duration::from_secs(8), away: Duration::from_secs(15) }.run().assert();
}

/// What is tried.
struct Fleet {
    size: usize,
    /// Of undisturbed running before and after the broker's death, for events to flow.
    calm: Duration,
    /// How long the broker stays away.
    away: Duration,
}

impl Fleet {
    fn run(&self) -> Table {
        let folder = tempfile::tempdir().unwrap();
        member::write_photos(folder.path());
        let (mut broker, record) = (Broker::start(folder.path()), Record::default());
        let _listener = Listener::start(broker.port, &record);
        let gate = Gate::before(broker.port);
        let mut table = Table::new(self.size);

        let began = Instant::now();
        let mut boards: Vec<_> = (0..self.size).map(|n| Member::start(folder.path(), n, gate.port)).collect();
        let online = wait(began, "all boards are online", || record.online_since(began) == self.size);
        table.note("cold start: all online", online);
        table.note("cold start: most connections in one second", gate.storm(began).peak);
        std::thread::sleep(self.calm);

        let died = Instant::now();
        broker.kill();
        gate.shut();
        std::thread::sleep(self.away);
        table.note("broker away: attempts a second of all boards", gate.storm(died).rate(self.away));
        // It remembers nothing: whatever it retains from now on, the boards have told it again.
        broker.restart();
        let _listener = Listener::start(broker.port, &record);
        let began = Instant::now();
        gate.open();
        let right = wait_for_truth(began, broker.port, &boards);
        wait(began, "all boards are online again", || record.online_since(began) == self.size);
        table.note("restart: all online", record.last_online());
        table.at_most("restart: all retained states right", right, BAR);
        let storm = gate.storm(began);
        table.note("restart: most connections in one second", storm.peak);
        table.exactly("restart: connections that were needed", storm.count, self.size);
        std::thread::sleep(self.calm);
        table.at_most("later: all retained states right", wait_for_truth(Instant::now(), broker.port, &boards), BAR);

        table.costs(&boards.iter().map(Member::cost).collect::<Vec<_>>());
        boards.iter().for_each(Member::ask_to_end);
        boards.iter_mut().for_each(Member::wait_for_the_end);
        let sent: Vec<_> = boards.iter().map(Member::logged).collect();
        // A broker that has acknowledged an event has not yet handed it on.
        wait(Instant::now(), "the listener has read all", || record.is_quiet_for(Duration::from_secs(1)));
        table.delivery(&sent, &record.events());
        let retained = retained(broker.port);
        let left = boards.iter().filter(|board| retained.get(&board.topic("status")).is_none_or(|it| it != "offline"));
        table.exactly("end: boards whose status is not `offline`", left.count(), 0);
        table
    }
}

/// How long after `began` a client that has just subscribed is told the truth of every board. Each board's states change on, so each
/// counts from the moment when it was right.
fn wait_for_truth(began: Instant, port: u16, boards: &[Member]) -> Duration {
    let mut wrong: Vec<&Member> = boards.iter().collect();
    wait(began, "all retained states are right", || {
        let retained = retained(port);
        wrong.retain(|board| !board.agrees_with(&retained));
        wrong.is_empty()
    })
}

/// Waits for `condition`; how long after `began` it held.
fn wait(began: Instant, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    began.elapsed()
}
