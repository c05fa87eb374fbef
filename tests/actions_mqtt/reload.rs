//! A configuration that is read again while the daemon runs: real processes, a real broker, real signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::support::{Broker, Watcher};
use super::{EVENT, RULE, STATUS};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BOARD: &str = "spotter/garden/board";
const MODEL: &str = "vgg16-gap-caltech101";
/// The longest that anything takes: a model is loaded, on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running daemon; what it logs, and what it tells the service manager.
struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
    log: Arc<Mutex<Vec<String>>>,
    told: Arc<Mutex<Vec<String>>>,
    page: String,
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Daemon {
    /// Starts with the configuration that `text` makes of the folder it lies in.
    fn start(prepare: impl Fn(&Path), text: impl Fn(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        std::fs::write(folder.path().join("spotter.toml"), text(folder.path())).unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_spotter"))
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .args(["run", "--config"])
            .arg(folder.path().join("spotter.toml"))
            .env("NOTIFY_SOCKET", folder.path().join("notify"))
            .env("STATE_DIRECTORY", folder.path())
            .env("RUST_LOG", "spotter=info")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (log, told) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (lines, messages) = (log.clone(), told.clone());
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || stderr.map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line)));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                messages.lock().unwrap().push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        });
        let mut daemon = Self { child, folder, log, told, page: String::new() };
        wait_until("the page is there", || daemon.logged("page: http://") == 1);
        let line = daemon.log.lock().unwrap().iter().find(|line| line.contains("page: http://")).cloned().unwrap();
        daemon.page = line.split_once("http://").unwrap().1.trim_end_matches('/').to_owned();
        daemon
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration, sends SIGHUP, and waits until it is in force or refused.
    fn reload(&self, text: Option<&str>) -> bool {
        match text {
            Some(text) => std::fs::write(self.path("spotter.toml"), text).unwrap(),
            None => std::fs::remove_file(self.path("spotter.toml")).unwrap(),
        }
        self.hang_up()
    }

    /// Sends SIGHUP. `true`: what was read is in force.
    fn hang_up(&self) -> bool {
        let (applied, refused) = (self.logged("the configuration is in force"), self.logged("is not applied"));
        let readies = self.told("READY=1");
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
        // The log and the notification come by two ways, in any order.
        wait_until("the reload is over", || {
            let now = (self.logged("the configuration is in force"), self.logged("is not applied"));
            self.told("READY=1") > readies && now.0 + now.1 == applied + refused + 1
        });
        self.logged("the configuration is in force") > applied
    }

    fn logged(&self, words: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    fn told(&self, words: &str) -> usize {
        self.told.lock().unwrap().iter().filter(|message| message.contains(words)).count()
    }

    /// A number of `/metrics`.
    fn metric(&self, name: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(&self.page).unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.page);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Waits until the camera has had another five frames classified.
    fn expect_frames(&self, camera: &str) {
        let name = format!("spotter_frames_classified_total{{camera=\"{camera}\"}}");
        let before = self.metric(&name).unwrap_or(0.0);
        wait_until("frames go on", || self.metric(&name).unwrap_or(0.0) >= before + 5.0);
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "{:?}", self.log.lock().unwrap());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn base(model: &str, port: u16) -> String {
    format!(
        "[device]\nname = \"garden\"\n[page]\nlisten = \"127.0.0.1:0\"\n[model]\npath = \"{model}\"\n\
         [[camera]]\nname = \"feeder\"\nfiles = \"{ROOT}/tests/photos/wild_cat\"\nrepeat = true\nfps = 10\n\
         [[rule]]\nname = \"cat\"\ncameras = [\"feeder\"]\nclasses = [\"wild_cat\"]\nhold = \"10m\"\nactions = [\"broker\"]\n\
         [action.broker]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{port}\"\ndiscovery = false\n"
    )
}

/// A second camera, a rule over it, and an action that it alone feeds.
fn more() -> String {
    format!(
        "[[camera]]\nname = \"sky\"\nfiles = \"{ROOT}/tests/photos/airplanes\"\nrepeat = true\nfps = 10\n\
         [[rule]]\nname = \"plane\"\ncameras = [\"sky\"]\nclasses = [\"airplanes\"]\nactions = [\"broker\", \"pin\"]\n\
         [action.pin]\ntype = \"gpio\"\nbackend = \"simulated\"\nline = 4\n"
    )
}

#[test]
fn what_did_not_change_goes_on_and_a_bad_file_changes_nothing() {
    let broker = Broker::start();
    let watcher = Watcher::new(broker.port);
    let first = base(&format!("{ROOT}/models/{MODEL}.onnx"), broker.port);
    let daemon = Daemon::start(|_| (), |_| first.clone());
    wait_until("the cat is seen", || watcher.payloads(RULE).last().is_some_and(|state| state == "ON"));
    daemon.expect_frames("feeder");

    // More of everything: the camera, the connection and the rule know nothing of it.
    assert!(daemon.reload(Some(&(first.clone() + &more()))));
    assert_eq!(daemon.logged("camera sky new, rule plane new, action pin new"), 1);
    let plane = "spotter/garden/rule/plane/state";
    wait_until("the plane is seen", || watcher.payloads(plane).last().is_some_and(|state| state == "ON"));
    daemon.expect_frames("feeder");
    assert_eq!(daemon.metric("spotter_camera_opens_total{camera=\"feeder\"}"), Some(1.0));
    assert_eq!(daemon.metric("spotter_action_connects_total{action=\"broker\"}"), Some(1.0));
    assert_eq!(daemon.metric("spotter_action_up{action=\"pin\"}"), Some(1.0));

    // A class that there is not, no TOML at all, and no file: each says why, and all goes on.
    for (text, why) in [
        (Some(first.replace("\"wild_cat\"", "\"unicorn\"")), "unicorn"),
        (Some("[[rule".to_owned()), "mend the TOML"),
        (None, "cannot read the configuration"),
    ] {
        assert!(!daemon.reload(text.as_deref()), "{why}");
        assert!(daemon.logged(why) > 0, "{why}: {:?}", daemon.log.lock().unwrap());
        wait_until("the status says so", || daemon.told("not in force: ") > 0);
        assert_eq!(daemon.metric("spotter_configuration_refused"), Some(1.0));
        // A report comes every ten seconds.
        wait_until("the broker is told", || {
            watcher.of(BOARD).last().is_some_and(|it| it.json()["refused"].is_string())
        });
        daemon.expect_frames("sky");
    }
    assert_eq!(watcher.payloads(RULE), ["OFF", "ON"], "nothing of it was seen");
    assert_eq!(watcher.payloads(STATUS), ["online"]);

    // A rule that has changed turns off visibly and begins anew; what is gone is taken from the broker.
    assert!(daemon.reload(Some(&first.replace("hold = \"10m\"", "hold = \"9m\""))));
    assert_eq!(daemon.logged("camera sky gone"), 1);
    wait_until("off and on again", || watcher.payloads(RULE) == ["OFF", "ON", "OFF", "ON"]);
    let reasons: Vec<_> = watcher.of(EVENT).iter().map(|event| event.json()["reason"].clone()).collect();
    assert!(reasons.contains(&"reloaded".into()), "{reasons:?}");
    for topic in [plane, "spotter/garden/camera/sky/state"] {
        wait_until("it is taken away", || watcher.payloads(topic).last().is_some_and(String::is_empty));
    }
    assert_eq!(daemon.metric("spotter_camera_up{camera=\"sky\"}"), None);
    assert_eq!(daemon.metric("spotter_configuration_refused"), Some(0.0));
    wait_until("the broker is told", || watcher.of(BOARD).last().is_some_and(|it| it.json()["refused"].is_null()));
    assert_eq!(daemon.metric("spotter_camera_opens_total{camera=\"feeder\"}"), Some(1.0));
    assert_eq!(daemon.metric("spotter_reloads_total{outcome=\"applied\"}"), Some(2.0));
    assert_eq!(daemon.metric("spotter_reloads_total{outcome=\"refused\"}"), Some(3.0));
    assert_eq!(daemon.told("RELOADING=1\nMONOTONIC_USEC="), 5);

    // An action that is another one now is told what stands.
    let moved = first.replace("hold = \"10m\"", "hold = \"9m\"").replace("discovery = false", "topic = \"other\"");
    assert!(daemon.reload(Some(&moved)));
    watcher.expect(STATUS, "offline");
    wait_until("the rule is on", || watcher.payloads("other/garden/rule/cat/state") == ["ON"]);
    wait_until("the camera is there", || {
        let states = watcher.payloads("other/garden/camera/feeder/state");
        states.last().is_some_and(|state| state.contains("online"))
    });
    daemon.stop();
}

#[test]
fn a_model_is_exchanged_between_two_frames_and_a_broken_one_is_refused() {
    let broker = Broker::start();
    let watcher = Watcher::new(broker.port);
    let files = ["onnx", "toml", "jpg"].map(|end| format!("{MODEL}.{end}"));
    let files = [&files[0], "caltech101-labels.txt", &files[1], &files[2]];
    let original = |name: &str| std::fs::read(Path::new(ROOT).join("models").join(name)).unwrap();
    let prepare =
        |folder: &Path| files.iter().for_each(|name| std::fs::write(folder.join(name), original(name)).unwrap());
    let text = |folder: &Path| base(&folder.join(format!("{MODEL}.onnx")).display().to_string(), broker.port);
    let daemon = Daemon::start(prepare, text);
    wait_until("the cat is seen", || watcher.payloads(RULE).last().is_some_and(|state| state == "ON"));
    let replace = |name: &str, bytes: &[u8]| {
        std::fs::write(daemon.path("new"), bytes).unwrap();
        std::fs::rename(daemon.path("new"), daemon.path(name)).unwrap();
    };

    // Cut short: the one in use stays, and frames go on.
    let whole = original(files[0]);
    replace(files[0], &whole[..whole.len() / 2]);
    assert!(!daemon.hang_up());
    let names_it = |line: &String| line.contains("is not applied") && line.contains(files[0]);
    assert!(daemon.log.lock().unwrap().iter().any(names_it), "{:?}", daemon.log.lock().unwrap());
    daemon.expect_frames("feeder");

    // The same again, as another file; then nothing has changed.
    replace(files[0], &whole);
    assert!(daemon.hang_up());
    assert_eq!(daemon.logged("the model's files have changed"), 1);
    assert_eq!(daemon.logged("loaded in "), 2);
    daemon.expect_frames("feeder");
    assert!(daemon.hang_up());
    assert_eq!((daemon.logged("nothing has changed"), daemon.logged("loaded in ")), (1, 2));

    // One that takes its self-test photo for something else than its manifest promises.
    let manifest = String::from_utf8(original(files[2])).unwrap();
    replace(files[2], manifest.replace("class = \"wild_cat\"", "class = \"pizza\"").as_bytes());
    assert!(!daemon.hang_up());
    assert_eq!(daemon.logged("its manifest says pizza"), 1);
    daemon.expect_frames("feeder");
    assert_eq!(daemon.metric("spotter_configuration_refused"), Some(1.0));
    replace(files[2], manifest.as_bytes());

    // One that cannot see what the rules want.
    let told = daemon.logged("wild_cat");
    let labels = std::fs::read_to_string(daemon.path(files[1])).unwrap();
    replace(files[1], labels.replace("wild_cat", "tame_cat").as_bytes());
    assert!(!daemon.hang_up());
    assert!(daemon.logged("wild_cat") > told);
    daemon.expect_frames("feeder");
    assert_eq!(watcher.payloads(RULE), ["OFF", "ON"], "the rule has been on throughout");
    assert_eq!(watcher.payloads(STATUS), ["online"]);
    assert_eq!(daemon.metric("spotter_camera_opens_total{camera=\"feeder\"}"), Some(1.0));
    daemon.stop();
}
