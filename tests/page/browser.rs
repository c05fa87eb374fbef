//! The page in a real browser: Debian's Chromium, without a window, driven through its WebDriver. `make test-web` installs both.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};

use super::support::{Daemon, TOKEN};

const PATIENCE: Duration = Duration::from_secs(30);

/// A window to look through.
struct Window {
    driver: Child,
    client: Client,
    _profile: tempfile::TempDir,
}

impl Window {
    /// `dark` or light, of `width` by `height` CSS pixels. A phone is emulated: a real window is never that narrow.
    async fn open(dark: bool, width: u32, height: u32) -> Self {
        // Free a moment ago; taken by another in between, the driver ends and the test says so.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed: cross/packages.sh web");
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "chromedriver does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless".into(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-quic".into(),
            "--no-first-run".into(),
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--disable-sync".into(),
            "--hide-scrollbars".into(),
            format!("--user-data-dir={}", profile.path().display()),
            format!("--window-size={width},{height}"),
            format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)),
        ];
        let mut chrome = json!({ "args": arguments });
        if width < 500 {
            let metrics = json!({ "width": width, "height": height, "pixelRatio": 2.0, "touch": true });
            chrome["mobileEmulation"] = json!({ "deviceMetrics": metrics });
        }
        let capabilities = [("goog:chromeOptions".to_owned(), chrome)].into_iter().collect();
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("Chromium starts");
        Self { driver, client, _profile: profile }
    }

    async fn go(&self, daemon: &Daemon, path: &str) {
        self.client.goto(&format!("http://{}{path}", daemon.host)).await.unwrap();
    }

    /// What a function of this body returns in the page.
    async fn ask(&self, body: &str) -> Value {
        self.client.execute(body, vec![]).await.unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    /// Waits until a function of this body returns true; how long that took.
    async fn until(&self, body: &str) -> Duration {
        let began = Instant::now();
        while self.ask(body).await != json!(true) {
            if began.elapsed() > PATIENCE {
                panic!("never true: {body}\n{}", self.ask("return document.body.innerText").await);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        began.elapsed()
    }

    async fn click(&self, css: &str) {
        self.client.find(Locator::Css(css)).await.unwrap().click().await.unwrap();
    }

    async fn press_enter(&self, css: &str) {
        self.client.find(Locator::Css(css)).await.unwrap().send_keys("\u{e007}").await.unwrap();
    }

    async fn sign_in(&self, daemon: &Daemon, token: &str) {
        self.go(daemon, "/login").await;
        self.client.find(Locator::Css("#token")).await.unwrap().send_keys(token).await.unwrap();
        self.click("button.primary").await;
    }

    /// What axe-core finds, of the grave kinds.
    async fn accessibility(&self) -> Vec<String> {
        let path = std::env::var("SPOTTER_AXE").expect("SPOTTER_AXE names axe.min.js: make test-web");
        self.client.execute(&std::fs::read_to_string(path).unwrap(), vec![]).await.unwrap();
        let run = "const done = arguments[arguments.length - 1]; axe.run().then((r) => done(r.violations), (e) => done(String(e)));";
        let found = self.client.execute_async(run, vec![]).await.unwrap();
        let list = found.as_array().unwrap_or_else(|| panic!("axe: {found}"));
        let grave = list.iter().filter(|it| it["impact"] == "serious" || it["impact"] == "critical");
        grave.map(|it| format!("{}: {} {}", it["id"], it["help"], it["nodes"][0]["html"])).collect()
    }

    /// For `docs/`, if asked for.
    async fn keep(&self, name: &str) {
        if let Some(folder) = std::env::var_os("SPOTTER_SCREENSHOTS") {
            let bytes = self.client.screenshot().await.unwrap();
            std::fs::write(std::path::Path::new(&folder).join(name), bytes).unwrap();
        }
    }

    async fn close(mut self) {
        let _ = self.client.clone().close().await;
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// A daemon that has seen a cat.
fn daemon() -> Daemon {
    let daemon = Daemon::start(&format!("token = {TOKEN:?}"));
    let seen = "spotter_events_total{rule=\"cat\",change=\"on\"} 0\n";
    daemon.wait_for("/metrics", |answer| answer.body.contains("spotter_events_total{") && !answer.body.contains(seen));
    daemon
}

const NO_SCROLL: &str = "return document.documentElement.scrollWidth <= window.innerWidth";
const PICTURE: &str =
    "return [...document.querySelectorAll('.picture img')].some((i) => !i.hidden && i.naturalWidth > 0)";

#[test]
#[ignore = "needs Chromium: make test-web"]
fn a_detection_is_shown_within_three_seconds_with_picture_bars_and_dots() {
    run(async {
        let daemon = daemon();
        let window = Window::open(false, 1360, 1500).await;
        let began = Instant::now();
        window.go(&daemon, "/").await;
        window
            .until("return [...document.querySelectorAll('#events tr')].some((r) => r.innerText.includes('cat on'))")
            .await;
        window.until("return document.querySelectorAll('#rule-cat circle').length > 0").await;
        window.until("return document.querySelector('.classes .percent').innerText.includes('%')").await;
        window.until(PICTURE).await;
        window.until("return [...document.querySelectorAll('#events img')].some((i) => i.naturalWidth > 0)").await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert_eq!(window.ask("return document.querySelectorAll('#rule-cat line').length").await, json!(2));
        window.ask("document.querySelector('#events .look').click()").await;
        window.until("return document.querySelector('#snapshot').open").await;
        window.until("return document.querySelector('#snapshot-image').naturalWidth > 0").await;
        window.click("#snapshot button").await;
        window.until("return !document.querySelector('#snapshot').open").await;
        // The curves of the last hour have a point every ten seconds.
        tokio::time::sleep(Duration::from_secs(if std::env::var_os("SPOTTER_SCREENSHOTS").is_some() { 75 } else { 0 }))
            .await;
        window.until("return document.querySelector('#rule-cat').classList.contains('on')").await;
        window.keep("page-light.png").await;
        window.close().await;
    });
}

#[test]
#[ignore = "needs Chromium: make test-web"]
fn testing_a_pin_asks_first_and_then_moves_it() {
    run(async {
        let daemon = daemon();
        let window = Window::open(false, 1360, 1000).await;
        window.sign_in(&daemon, TOKEN).await;
        window
            .until("const b = document.querySelector('#action-spare button'); return !!b && !b.closest('.row').hidden")
            .await;
        let edges = "return document.querySelector('#action-spare').dataset.edges";
        assert_eq!(window.ask(edges).await, json!("1"), "its safe level at the start");
        // By keyboard, and the safe answer is the one that has the focus.
        window.press_enter("#action-spare button").await;
        window.until("return document.querySelector('#confirm').open").await;
        window.press_enter("#confirm :focus").await;
        window.until("return !document.querySelector('#confirm').open").await;
        window.click("#action-spare button").await;
        window.click("#confirm-yes").await;
        window.until("return document.querySelector('#action-spare').dataset.edges === '3'").await;
        window.until("return document.querySelector('#said').innerText.includes('spare is tested')").await;
        window.close().await;
    });
}

#[test]
#[ignore = "needs Chromium: make test-web"]
fn a_wrong_token_gets_nothing() {
    run(async {
        let daemon = daemon();
        let window = Window::open(false, 1000, 800).await;
        window.sign_in(&daemon, "not-the-token-at-all").await;
        window.until("return document.body.innerText.includes('That is not the token')").await;
        assert!(window.client.get_all_cookies().await.unwrap().is_empty());
        window.go(&daemon, "/").await;
        window.until("return document.querySelector('#link').innerText === 'live'").await;
        window.until("return !document.querySelector('#sign-in').hidden").await;
        assert_eq!(window.ask("return document.querySelector('#reload').checkVisibility()").await, json!(false));
        let ask = "return fetch('/api/test', { method: 'POST', headers: { 'X-Spotter': '1' }, \
            body: new URLSearchParams({ action: 'spare' }) }).then((r) => r.status)";
        assert_eq!(window.ask(ask).await, json!(401));
        assert_eq!(window.ask("return document.querySelector('#action-spare').dataset.edges").await, json!("1"));
        window.close().await;
    });
}

/// Beside the demo's: a hot board, a camera before which nothing moves, a rule with a switch, and a broker that is away.
fn troubled(folder: &Path) -> String {
    let zone = folder.join("sys/class/thermal/thermal_zone0");
    std::fs::create_dir_all(&zone).unwrap();
    std::fs::write(zone.join("temp"), "79000\n").unwrap();
    let [still, photos] = ["still", "photos"].map(|name| folder.join(name));
    std::fs::create_dir(&still).unwrap();
    let pizzas = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos/pizza")).unwrap();
    let pizza = pizzas.map(|entry| entry.unwrap().path()).min().unwrap();
    std::fs::copy(pizza, still.join("one.jpg")).unwrap();
    Daemon::demo(&format!("token = {TOKEN:?}\nphotos = {photos:?}"))
        .replace("[model]", &format!("thermal = {{ limit = 90, sysfs = {:?} }}\n[model]", folder.join("sys")))
        .replace("repeat = true\nfps = 8\n", "repeat = true\nlive = true\nfps = 8\n")
        // A rule that is on wants every frame, moving or not.
        .replace("[[rule]]\n", "[[rule]]\ncameras = [\"feeder\"]\n")
        + &format!(
            "[[camera]]\nname = \"attic\"\nfiles = {still:?}\nrepeat = true\nlive = true\nfps = 25\n\
             motion = {{ floor = \"30s\", linger = \"500ms\" }}\n\
             [[rule]]\nname = \"burglar\"\ncameras = [\"attic\"]\nclasses = [\"Faces\"]\narmed_by = \"mqtt\"\nactions = [\"broker\"]\n\
             [action.broker]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1\"\n"
        )
}

#[test]
#[ignore = "needs Chromium: make test-web"]
fn cameras_rules_pins_the_broker_and_the_last_hour_are_drawn_and_why_it_is_slow() {
    run(async {
        let daemon = Daemon::run(troubled);
        daemon.wait_for("/readyz", |answer| answer.status == 200);
        let window = Window::open(false, 1360, 1500).await;
        window.go(&daemon, "/").await;
        let says = |css: &str, words: &str| {
            format!("const it = document.querySelector({css:?}); return !!it && it.innerText.includes({words:?})")
        };
        for (css, words) in [
            ("#camera-feeder .chip", "streaming"),
            ("#camera-feeder .figures", "since the last"),
            ("#camera-feeder .why", "thermal step 1"),
            ("#camera-feeder .why", "1/2 of the time"),
            ("#camera-feeder .figures", "spared by heat"),
            ("#camera-attic .why", "nothing moves"),
            ("#camera-attic .figures", "still"),
            ("#action-broker .chip", "degraded"),
            ("#action-siren .figures", "waiting"),
            ("#health", "79.0 °C"),
        ] {
            window.until(&says(css, words)).await;
        }
        window
            .until("return /[1-9][0-9.]* frames\\/s/.test(document.querySelector('#camera-feeder .figures').innerText)")
            .await;
        // A rule's thresholds on the bar of its class, whenever that is among the first five.
        window.until("return document.querySelectorAll('#camera-feeder .meter s').length >= 2").await;
        window.until("return document.querySelector('#action-siren .level').getAttribute('d').includes('L')").await;
        // A point every ten seconds: two make a line.
        let lines = "return [...document.querySelectorAll('#health .curve')].filter((c) => c.getAttribute('d').includes('L')).length === 3";
        window.until(lines).await;
        window.ask("document.querySelector('#configuration').open = true").await;
        window.until("return document.querySelector('#sections').innerText.includes('set, hidden')").await;
        assert_eq!(window.ask(&format!("return document.body.innerText.includes({TOKEN:?})")).await, json!(false));
        window.close().await;
    });
}

#[test]
#[ignore = "needs Chromium: make test-web"]
fn a_rule_is_disarmed_a_photo_taken_and_another_configuration_shown() {
    run(async {
        let daemon = Daemon::run(troubled);
        daemon.wait_for("/readyz", |answer| answer.status == 200);
        let window = Window::open(false, 1360, 1500).await;
        window.sign_in(&daemon, TOKEN).await;
        let shown =
            |css: &str| format!("const it = document.querySelector({css:?}); return !!it && it.checkVisibility()");
        window.until(&shown("#rule-burglar button")).await;
        window.click("#rule-burglar button").await;
        window.until("return document.querySelector('#rule-burglar .chip').innerText === 'disarmed'").await;
        window.click("#camera-attic .row button").await;
        window.until("return document.querySelector('#photo').open").await;
        window.client.find(Locator::Css("#label")).await.unwrap().send_keys("cat").await.unwrap();
        window.click("#photo .primary").await;
        window.until("return document.querySelector('#said').innerText.includes('cat')").await;
        assert_eq!(std::fs::read_dir(daemon.path("photos/cat")).unwrap().count(), 1);

        daemon.rewrite("[[rule");
        window.click("#reload").await;
        window.until(&shown("#refusal")).await;
        // Without the second camera and all that hangs on it.
        daemon.rewrite(&Daemon::demo(&format!("token = {TOKEN:?}")));
        window.click("#reload").await;
        window.until("return document.querySelector('#camera-attic') === null").await;
        for gone in ["#rule-burglar", "#action-broker"] {
            assert_eq!(window.ask(&format!("return document.querySelector({gone:?})")).await, Value::Null);
        }
        window.until("return !document.querySelector('#refusal').checkVisibility()").await;
        window.until("return document.querySelectorAll('#rule-cat circle').length > 0").await;
        window.close().await;
    });
}

#[test]
#[ignore = "needs Chromium: make test-web"]
fn a_phone_scrolls_down_only_and_axe_finds_nothing_grave() {
    run(async {
        let daemon = daemon();
        for (dark, width, height, name) in [(true, 1360, 1500, "page-dark.png"), (false, 390, 844, "page-phone.png")] {
            let window = Window::open(dark, width, height).await;
            window.go(&daemon, "/login").await;
            assert_eq!(window.ask(NO_SCROLL).await, json!(true), "/login at {width}");
            assert_eq!(window.accessibility().await, [""; 0], "/login at {width}, dark: {dark}");
            window.sign_in(&daemon, TOKEN).await;
            window.until("return document.querySelectorAll('#rule-cat circle').length > 0").await;
            window.until(PICTURE).await;
            window.keep(name).await;
            window.ask("document.querySelector('#configuration').open = true").await;
            window.until("return document.querySelectorAll('#sections article').length > 3").await;
            assert_eq!(window.ask("return window.innerWidth").await, json!(width));
            assert_eq!(window.ask(NO_SCROLL).await, json!(true), "/ at {width}");
            assert_eq!(window.accessibility().await, [""; 0], "/ at {width}, dark: {dark}");
            window.close().await;
        }
    });
}
