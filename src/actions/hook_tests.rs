use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::actions::payload::tests::event;
use crate::actions::{ActionContext, Edge, Message, Observer};
use crate::rules::Change;

#[derive(Default)]
struct Delivered(Mutex<Vec<String>>);

impl Observer for Delivered {
    fn edge(&self, _: &Edge) {}
    fn delivered(&self, _: &str, event: &Event) {
        self.0.lock().unwrap().push(event.rule.to_string());
    }
}

/// A shell script as a hook, in a folder of its own (`$0`).
struct Rig {
    handle: ActionHandle,
    delivered: Arc<Delivered>,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new(script: &str, adapt: impl FnOnce(&mut HookPlan)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        let command = vec!["sh".into(), "-c".into(), script.into(), path];
        let mut plan = HookPlan { command, timeout: Duration::from_secs(20), parallel: 1, queue: 8 };
        adapt(&mut plan);
        let delivered = Arc::new(Delivered::default());
        let context = ActionContext {
            device: "garden".into(),
            rules: vec![],
            cameras: vec![],
            views: vec![],
            pins: vec![],
            observer: delivered.clone(),
            control: crate::control::Control::new(|| ()),
        };
        let handle = spawn("hook".into(), &plan, &Shared::new(context, &[])).unwrap();
        Self { handle, delivered, folder }
    }

    fn send(&self, rule: &str) -> bool {
        self.handle.send(Message::Event(Arc::new(event(rule, Change::On))))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn wait_until_done(&self) {
        wait_until("the queue is empty", || self.handle.depth() == 0);
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process that runs; one that only waits to be collected by its parent does not.
fn runs(id: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[test]
fn the_program_gets_the_event_as_json_on_its_stdin() {
    let rig = Rig::new("cat > $0/event.json", |_| ());
    assert_eq!(rig.handle.status().health, Health::Ready);
    rig.send("cat");
    rig.wait_until_done();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(rig.file("event.json")).unwrap()).unwrap();
    assert_eq!((&json["rule"], &json["device"], &json["label"]), (&"cat".into(), &"garden".into(), &"wild_cat".into()));
    assert_eq!((rig.handle.dropped(), rig.delivered.0.lock().unwrap().len()), (0, 1));
}

#[test]
fn a_failure_is_said_and_counted_and_the_next_run_recovers() {
    let rig = Rig::new("read json; case $json in *good*) exit 0;; *) exit 3;; esac", |_| ());
    rig.send("bad");
    rig.wait_until_done();
    let status = rig.handle.status();
    assert_eq!((status.health, rig.handle.dropped()), (Health::Degraded, 1));
    assert!(status.detail.contains("sh ended with exit status 3"), "{}", status.detail);
    rig.send("good");
    rig.wait_until_done();
    assert_eq!((rig.handle.status().health, rig.handle.dropped()), (Health::Ready, 1));
    assert_eq!(*rig.delivered.0.lock().unwrap(), ["good"]);
}

#[test]
fn at_the_time_out_the_whole_group_is_killed() {
    let script = "sleep 300 & echo $! > $0/child; echo $$ > $0/own; wait";
    let rig = Rig::new(script, |plan| plan.timeout = Duration::from_millis(500));
    rig.send("cat");
    rig.wait_until_done();
    assert!(rig.handle.status().detail.contains("ran longer than 500ms and was killed"), "{:?}", rig.handle.status());
    assert_eq!(rig.handle.dropped(), 1);
    for name in ["child", "own"] {
        let id = std::fs::read_to_string(rig.file(name)).unwrap();
        wait_until("it is gone", || !runs(&id));
    }
}

#[test]
fn what_a_program_leaves_behind_ends_with_it() {
    let rig = Rig::new("sleep 300 & echo $! > $0/child", |_| ());
    rig.send("cat");
    rig.wait_until_done();
    assert_eq!(rig.delivered.0.lock().unwrap().len(), 1);
    let id = std::fs::read_to_string(rig.file("child")).unwrap();
    wait_until("it is gone", || !runs(&id));
}

#[test]
fn never_more_at_once_than_allowed_and_what_does_not_fit_is_counted() {
    // Each waits for the gate, so that as many as may are in there together.
    let script =
        "touch $0/in.$$; while [ ! -e $0/gate ]; do sleep 0.02; done; ls $0 | grep -c in. >> $0/seen; rm $0/in.$$";
    let rig = Rig::new(script, |plan| (plan.parallel, plan.queue) = (3, 2));
    let inside = || std::fs::read_dir(rig.folder.path()).unwrap().count();
    for running in 1..=3 {
        assert!(rig.send("running"));
        wait_until("it runs", || inside() == running);
    }
    let kept: Vec<bool> = (0..4).map(|_| rig.send("waiting")).collect();
    assert_eq!(kept, [true, true, false, false]);
    assert_eq!((rig.handle.depth(), rig.handle.dropped(), inside()), (5, 2, 3));
    std::fs::write(rig.file("gate"), "").unwrap();
    rig.wait_until_done();
    assert_eq!((rig.delivered.0.lock().unwrap().len(), rig.handle.dropped()), (5, 2));
    let seen = std::fs::read_to_string(rig.file("seen")).unwrap();
    assert!(seen.lines().all(|count| count.parse::<u32>().unwrap() <= 3), "{seen}");
}

#[test]
fn a_missing_program_is_named_at_once_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("late");
    let rig = Rig::new("", |plan| plan.command = vec![path.display().to_string()]);
    let status = rig.handle.status();
    assert_eq!(status.health, Health::Rejected);
    assert!(status.detail.contains("late; install it"), "{}", status.detail);
    rig.send("lost");
    rig.wait_until_done();
    assert_eq!(rig.handle.dropped(), 1);
    std::fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
    rig.send("lost too");
    rig.wait_until_done();
    assert!(rig.handle.status().detail.contains("chmod +x"), "{:?}", rig.handle.status());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    rig.send("done");
    rig.wait_until_done();
    assert_eq!((rig.handle.status().health, rig.handle.dropped()), (Health::Ready, 2));
}

#[test]
fn a_close_waits_for_a_run_until_the_deadline_and_no_longer() {
    let rig = Rig::new("touch $0/begun; sleep 300", |_| ());
    rig.send("running");
    rig.send("waiting");
    wait_until("it runs", || rig.file("begun").exists());
    let began = Instant::now();
    assert!(rig.handle.close(Duration::from_millis(300)), "ended in time");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((rig.handle.depth(), rig.handle.dropped()), (1, 1));
}
