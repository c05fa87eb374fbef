//! The page of a running daemon, as a browser, a scraper and an attacker meet it over the network.

mod browser;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{Daemon, TOKEN};

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed: cross/packages.sh test");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The value of the sample that begins with `name`.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}:\n{metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn metrics_count_what_happens_and_promtool_finds_nothing_wrong() {
    let daemon = Daemon::start("");
    assert_eq!(daemon.get("/healthz").status, 200);
    daemon.wait_for("/readyz", |answer| answer.status == 200);
    let on = "spotter_events_total{rule=\"cat\",change=\"on\"}";
    let metrics = daemon.wait_for("/metrics", |answer| answer.body.contains(on) && value(&answer.body, on) >= 1.0).body;
    let found = promtool(&["check", "metrics"], &metrics);
    let words = String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success() && words.trim().is_empty(), "{words}\n{metrics}");
    let classified = value(&metrics, "spotter_frames_classified_total{camera=\"feeder\"}");
    assert!(classified >= 1.0 && value(&metrics, "spotter_frames_captured_total") >= classified);
    // A view is counted before the frame is, and another may be under way.
    let views = value(&metrics, "spotter_stage_duration_seconds_count{stage=\"inference\"}");
    assert!((classified..=classified + 1.0).contains(&views), "{views} {classified}");
    assert_eq!(value(&metrics, "spotter_camera_up{camera=\"feeder\"}"), 1.0);
    assert_eq!(value(&metrics, "spotter_action_up{action=\"siren\"}"), 1.0);
    assert_eq!(value(&metrics, "spotter_action_connects_total{action=\"siren\"}"), 1.0);
    assert!(metrics.contains("spotter_model_info{model=\"vgg16-gap-caltech101.onnx\",kernel=\""), "{metrics}");
    let pins = value(&metrics, "spotter_latency_seconds_count{to=\"pin\"}");
    assert!(pins <= value(&metrics, on) + value(&metrics, "spotter_events_total{rule=\"vehicle\"") * 2.0 + 2.0);
}

#[test]
fn alert_rules_and_dashboard_name_metrics_that_exist() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
    let found = promtool(&["check", "rules", &format!("{docs}/alerts.yml")], "");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let daemon = Daemon::start("");
    daemon.wait_for("/readyz", |answer| answer.status == 200);
    let metrics = daemon.get("/metrics").body;
    // What a machine without sensors does not have.
    let optional = ["spotter_temperature_celsius", "spotter_throttled"];
    for file in ["alerts.yml", "grafana.json"] {
        let text = std::fs::read_to_string(format!("{docs}/{file}")).unwrap();
        if file.ends_with("json") {
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
        let names =
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("spotter_"));
        let names: Vec<_> = names.collect();
        assert!(names.len() > 5, "{file}: {names:?}");
        for name in names {
            let known = metrics
                .lines()
                .any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
            assert!(known || optional.contains(&name), "{file} names {name}, which /metrics does not have");
        }
    }
}

#[test]
fn a_private_page_shows_nothing_without_its_token_but_its_health() {
    let daemon = Daemon::start(&format!("private = true\ntoken = {TOKEN:?}"));
    assert_eq!(daemon.get("/healthz").status, 200);
    assert_eq!(daemon.get("/metrics").status, 401);
    assert_eq!(daemon.request("GET", "/metrics", "Authorization: Bearer wrong-token-wrong-token\r\n", "").status, 401);
    let answer = daemon.request("GET", "/metrics", &format!("Authorization: Bearer {TOKEN}\r\n"), "");
    assert_eq!(answer.status, 200, "{}", answer.head);
}

#[test]
fn a_strangers_name_an_endless_header_and_a_silent_client_are_turned_away() {
    let daemon = Daemon::start("");
    assert_eq!(daemon.request_as("evil.example.org", "GET", "/metrics", "", "").status, 421);
    let answer = daemon.request("GET", "/healthz", &format!("X-Long: {}\r\n", "x".repeat(64 * 1024)), "");
    assert!(answer.status == 431 || answer.status == 400 || answer.status == 0, "{}", answer.head);
    let mut silent = TcpStream::connect(&daemon.host).unwrap();
    silent.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).expect("the daemon hangs up");
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    let answer = daemon.get("/healthz");
    assert_eq!(answer.status, 200);
    for header in
        ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "x-frame-options: DENY"]
    {
        assert!(answer.head.contains(header), "{}", answer.head);
    }
}

#[test]
fn actions_need_the_token_and_a_page_of_ours() {
    let photos = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&format!("token = {TOKEN:?}\nphotos = {:?}", photos.path()));
    daemon.wait_for("/readyz", |answer| answer.status == 200);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let own = format!("{form}Origin: http://{}\r\n", daemon.host);
    assert_eq!(daemon.request("POST", "/login", &own, "token=wrong-wrong-wrong-wrong").status, 401);
    assert_eq!(daemon.request("POST", "/login", form, &format!("token={TOKEN}")).status, 403, "no Origin");
    let answer = daemon.request("POST", "/login", &own, &format!("token={TOKEN}"));
    assert_eq!(answer.status, 303, "{}", answer.head);
    let cookie = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    let pin = |headers: &str| daemon.request("POST", "/api/test", &format!("{form}{headers}"), "action=spare").status;
    let origin = format!("Origin: http://{}\r\n", daemon.host);
    assert_eq!(pin(""), 401);
    assert_eq!(pin(&cookie), 401, "no Origin, no mark");
    assert_eq!(pin(&format!("{cookie}{origin}")), 401, "a form of ours has no mark");
    assert_eq!(pin(&format!("{cookie}X-Spotter: 1\r\nOrigin: http://evil.example.org\r\n")), 401);
    let right = format!("{cookie}X-Spotter: 1\r\n{origin}");
    assert_eq!(pin(&right), 202);
    // Active for a second and back: with the safe level at the start, three edges.
    let edges = |answer: &support::Answer| answer.body.matches("\"action\":\"spare\"").count();
    daemon.wait_for("/api/state", |answer| edges(answer) == 3);
    for (path, body, status) in [
        ("/api/test", "action=nobody", 404),
        ("/api/arm", "rule=cat&armed=false", 409),
        ("/api/arm", "rule=dog&armed=false", 404),
        ("/api/photo", "camera=feeder&label=..%2Fx", 400),
        ("/api/photo", "camera=attic&label=cat", 404),
        ("/api/photo", "camera=feeder&label=cat", 201),
        ("/api/reload", "", 202),
    ] {
        let answer = daemon.request("POST", path, &format!("{form}{right}"), body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
    }
    let photo = std::fs::read_dir(photos.path().join("cat")).unwrap().next().unwrap().unwrap();
    assert!(std::fs::read(photo.path()).unwrap().starts_with(&[0xff, 0xd8]));
}

#[test]
fn a_viewer_gets_the_state_as_it_changes_and_no_secret() {
    let daemon = Daemon::start(&format!("token = {TOKEN:?}"));
    daemon.wait_for("/readyz", |answer| answer.status == 200);
    let configuration = daemon.get("/api/configuration").body;
    assert!(configuration.contains("set, hidden") && !configuration.contains(TOKEN), "{configuration}");
    assert_eq!(daemon.get("/camera/attic").status, 404);
    assert_eq!(daemon.get("/camera/feeder").status, 404, "no picture is made while nobody looks");
    let began = Instant::now();
    let mut stream = TcpStream::connect(&daemon.host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(format!("GET /api/live HTTP/1.1\r\nHost: {}\r\n\r\n", daemon.host).as_bytes()).unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    // Dots and top classes are made only while somebody looks, and of eight frames a second some three become pictures at most.
    let enough = |text: &str| began.elapsed() > Duration::from_secs(3) && text.matches("data: {").count() >= 3;
    while !(text.contains("\"dots\":[0.") && text.contains("\"top\":[[\"") && enough(&text)) {
        let read = stream.read(&mut buffer).expect("messages keep coming");
        assert!(read > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(text.contains("event: hello\ndata: {\"acts\":false,\"token\":true,\"photos\":false}"), "{text}");
    daemon.wait_for("/camera/feeder", |answer| answer.status == 200 && answer.head.contains("image/jpeg"));
    let shown = text.split("\"picture\":").filter_map(|rest| rest.split([',', '}']).next()?.parse::<u64>().ok());
    let shown = shown.collect::<std::collections::BTreeSet<_>>().len();
    let most = began.elapsed().as_millis() / 400 + 2;
    assert!((1..=most).contains(&(shown as u128)), "{shown} pictures, at most {most}");
}

#[test]
fn an_event_keeps_its_picture_for_the_page() {
    let daemon = Daemon::start("");
    let pictured = |answer: &support::Answer| {
        let state: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let events = state["events"].as_array().unwrap().clone();
        events.into_iter().find(|event| event["picture"] == true)
    };
    let event = pictured(&daemon.wait_for("/api/state", |answer| pictured(answer).is_some())).unwrap();
    assert_eq!(event["on"], true, "{event}");
    let picture = daemon.get(&format!("/event/{}", event["id"]));
    assert_eq!(picture.status, 200);
    assert!(picture.head.contains("image/jpeg") && picture.body.len() > 1000, "{}", picture.head);
    assert_eq!(daemon.get("/event/4294967295").status, 404);
    assert_eq!(daemon.get("/event/none").status, 400);
}

#[test]
fn what_holds_a_board_back_is_said() {
    let daemon = Daemon::run(|folder| {
        let zone = folder.join("class/thermal/thermal_zone0");
        std::fs::create_dir_all(&zone).unwrap();
        std::fs::write(zone.join("temp"), "83500\n").unwrap();
        let thermal = format!("thermal = {{ limit = 90, sysfs = {folder:?} }}\n[model]");
        Daemon::demo("").replace("[model]", &thermal)
    });
    let state = daemon.wait_for("/api/state", |answer| answer.body.contains("thermal step 2"));
    let state: serde_json::Value = serde_json::from_str(&state.body).unwrap();
    let camera = &state["cameras"][0];
    assert_eq!(camera["slower"], "the board is hot (thermal step 2): inference gets 1/4 of the time");
    assert_eq!((&state["now"]["celsius"], &state["now"]["thermal_step"]), (&83.5.into(), &2.into()));
    assert_eq!(camera["held_back"]["still"], 0);
    assert_eq!(state["refusal"], serde_json::Value::Null);
}
