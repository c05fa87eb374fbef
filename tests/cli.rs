//! The program from outside: exit codes, what it prints, and how it ends.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const MODEL: &str = "models/vgg16-gap-caltech101.onnx";

fn spotter(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spotter"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = spotter(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A configuration over the shipped model and photos, with `extra` at its end.
fn configuration(folder: &Path, extra: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let text = format!(
        "[device]\nname = \"test\"\n[model]\npath = \"{root}/{MODEL}\"\n\
         [[camera]]\nname = \"c\"\nfiles = \"{root}/tests/photos/wild_cat\"\n{extra}"
    );
    let path = folder.join("spotter.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

const CAT: &str = "[[rule]]\nname = \"cat\"\nclasses = [\"wild_cat\"]\nactions = [\"pin\"]\n\
    [action.pin]\ntype = \"gpio\"\nbackend = \"simulated\"\nline = 1\nmode = \"follow\"\n";

#[test]
fn exit_codes_tell_usage_configuration_and_run_time_apart() {
    let folder = tempfile::tempdir().unwrap();
    let unknown_class = configuration(folder.path(), &CAT.replace("wild_cat", "unicorn"));
    let check = |arguments: &[&str], code: i32, words: &str| {
        let (got, out, err) = run(arguments);
        assert_eq!(got, Some(code), "{arguments:?}: {err}");
        assert!(out.contains(words) || err.contains(words), "{arguments:?} does not say {words:?}: {out}{err}");
        assert!(!err.contains("panicked"), "{err}");
    };
    check(&["--help"], 0, "Usage");
    check(&["classify", "--help"], 0, "Example");
    check(&["juggle"], 2, "juggle");
    check(&["run", "--config", "/nowhere.toml"], 78, "/nowhere.toml");
    check(&["check", "--config", &unknown_class], 78, "unicorn");
    check(&["run", "--once", "--config", &unknown_class], 78, "unicorn");
    check(&["classify", "--model", "Cargo.toml", "README.md"], 78, "Cargo.toml");
    check(&["classify", "--model", MODEL, "README.md"], 1, "README.md");
    check(&["bench", "--model", MODEL, "--kernel", "abacus"], 78, "abacus");
    check(&["bench", "--model", MODEL, "--strategy", "abacus"], 2, "known are auto");
    check(&["bench", "--model", MODEL, "--layer", "abacus"], 2, "write LAYER=STRATEGY");
    check(&["bench", "--model", MODEL, "--layer", "abacus=direct"], 78, "no convolution `abacus`");
    check(&["doctor"], 0, "chosen");
}

#[test]
fn the_shipped_configurations_are_good() {
    let demo = spotter(&["check", "--config", "config/demo.toml"])
        .env("SPOTTER_DEMO_BROKER", "mqtt://127.0.0.1:1883")
        .output()
        .unwrap();
    assert!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stderr));
}

#[test]
fn init_writes_a_configuration_that_check_accepts_and_overwrites_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spotter.toml").display().to_string();
    let (code, out, err) = run(&["init", "--model", MODEL, "--output", &path]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("spotter check"), "{out}");
    let (code, out, err) = run(&["check", "--config", &path]);
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, printed, _) = run(&["init", "--model", MODEL]);
    assert_eq!((code, &printed), (Some(0), &std::fs::read_to_string(&path).unwrap()));
    std::fs::write(&path, "mine").unwrap();
    let (code, _, err) = run(&["init", "--model", MODEL, "--output", &path]);
    assert_eq!(code, Some(2));
    assert!(err.contains("--force"), "{err}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    let (code, _, _) = run(&["init", "--model", MODEL, "--output", &path, "--force"]);
    assert_eq!((code, std::fs::read_to_string(&path).unwrap()), (Some(0), printed));
}

#[test]
fn classify_prints_one_json_object() {
    let photo = "tests/photos/wild_cat/image_0006.jpg";
    let (code, out, err) = run(&["classify", "--model", MODEL, "--top", "2", "--format", "json", photo]);
    assert_eq!(code, Some(0), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    let top = json["results"][0]["top"].as_array().unwrap();
    assert_eq!((top.len(), top[0]["label"].as_str()), (2, Some("wild_cat")));
    assert!(top[0]["probability"].as_f64() > Some(0.9), "{out}");
}

/// From the JPEG files on, the top class is onnxruntime's on at least 39 of 40 photos: decoders differ among themselves.
#[test]
fn the_shipped_photos_are_seen_as_onnxruntime_sees_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("tests/reference/onnxruntime/top1.json")).unwrap();
    let expected: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 40);
    let photos: Vec<String> = expected.keys().map(|photo| format!("tests/photos/{photo}")).collect();
    let mut arguments = vec!["classify", "--model", MODEL, "--top", "1", "--format", "json"];
    arguments.extend(photos.iter().map(String::as_str));
    let (_, out, err) = run(&arguments);
    let json: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {err}"));
    let same = |(result, label): &(&Value, &Value)| result["top"][0]["label"] == **label;
    let agree = std::iter::zip(json["results"].as_array().unwrap(), expected.values()).filter(same).count();
    println!("top-1 as onnxruntime's on {agree} of 40");
    assert!(agree >= 39, "{agree}: {out}");
}

/// A camera that is none, a chip that is missing and a broker that refuses: each is named, and the rest runs to its end.
#[test]
fn what_is_broken_is_named_and_the_rest_runs() {
    let folder = tempfile::tempdir().unwrap();
    let extra = "[[camera]]\nname = \"none\"\ndevice = \"/dev/null\"\n\
        [[rule]]\nname = \"cat\"\ncameras = [\"c\"]\nclasses = [\"wild_cat\"]\nactions = [\"pin\", \"broker\", \"events\"]\n\
        [action.pin]\ntype = \"gpio\"\nchip = \"no-such-chip\"\nline = 1\n\
        [action.broker]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1\"\n\
        [action.events]\ntype = \"log\"\npath = \"events.jsonl\"\n";
    let config = configuration(folder.path(), extra);
    let (code, out, err) = run(&["run", "--once", "--format", "json", "--config", &config]);
    assert_eq!(code, Some(0), "{err}");
    for named in ["/dev/null", "no-such-chip", "127.0.0.1:1"] {
        assert!(err.contains(named), "{named} is not named: {err}");
    }
    assert!(!err.contains("panicked"), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["frames"].as_u64(), Some(2));
    let events = std::fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
    assert!(events.contains("\"state\":\"on\""), "{events}");
}

/// A copy of the shipped model whose manifest promises that the self-test photo shows something else.
#[test]
fn a_model_that_fails_its_self_test_is_refused() {
    let (folder, root) = (tempfile::tempdir().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")));
    for name in ["vgg16-gap-caltech101.onnx", "vgg16-gap-caltech101.jpg", "caltech101-labels.txt"] {
        std::fs::copy(root.join("models").join(name), folder.path().join(name)).unwrap();
    }
    let manifest = std::fs::read_to_string(root.join("models/vgg16-gap-caltech101.toml")).unwrap();
    let wrong = manifest.replace("class = \"wild_cat\"", "class = \"pizza\"");
    assert_ne!(wrong, manifest);
    std::fs::write(folder.path().join("vgg16-gap-caltech101.toml"), wrong).unwrap();
    let config = configuration(folder.path(), CAT);
    let text = std::fs::read_to_string(&config).unwrap();
    let ours = text.replace(&format!("{}/{MODEL}", root.display()), "vgg16-gap-caltech101.onnx");
    std::fs::write(&config, ours).unwrap();
    let (code, _, err) = run(&["run", "--once", "--config", &config]);
    assert_eq!(code, Some(78), "{err}");
    assert!(err.contains("wild_cat") && err.contains("pizza"), "{err}");
}

#[test]
fn bench_prints_what_was_promised() {
    let arguments = ["bench", "--model", MODEL, "--runs", "2", "--threads", "1", "--format", "json"];
    let (code, out, err) = run(&arguments);
    assert_eq!(code, Some(0), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    let times = ["median_ms", "min_ms", "p95_ms", "load_ms"];
    let rates = ["peak_rss_bytes", "macs", "gmacs_per_s", "peak_gmacs_per_s", "bandwidth_gb_per_s"];
    for key in times.iter().chain(&rates) {
        assert!(json[key].as_f64() > Some(0.0), "{key}: {out}");
    }
    // 13 convolutions, the picture and the head at least.
    let layers = json["layers"].as_array().unwrap();
    assert!(layers.len() >= 15, "{out}");
    let shares: f64 = layers.iter().map(|layer| layer["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-6, "{out}");
    assert_eq!(json["threads"].as_u64(), Some(1));
}

#[test]
fn bench_takes_the_algorithm_that_is_asked_for() {
    let names = |strategy: &str| -> Vec<String> {
        let arguments =
            ["bench", "--model", MODEL, "--runs", "1", "--threads", "1", "--strategy", strategy, "--format", "json"];
        let (code, out, err) = run(&arguments);
        assert_eq!(code, Some(0), "{err}");
        let json: Value = serde_json::from_str(&out).unwrap();
        let layers = json["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["algorithm"].as_str().unwrap().to_owned()).collect()
    };
    assert!(!names("direct").iter().any(|name| name.starts_with("winograd")));
    #[cfg(target_arch = "x86_64")]
    assert!(names("winograd").iter().any(|name| name.starts_with("winograd")));
}

#[test]
fn a_run_ends_by_itself_and_says_what_fired() {
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(folder.path(), CAT);
    let (code, out, err) = run(&["run", "--once", "--format", "json", "--config", &config]);
    assert_eq!(code, Some(0), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((json["frames"].as_u64(), json["events"][0]["rule"].as_str()), (Some(2), Some("cat")));
    assert!(json["capture_to_pin"]["max_ms"].as_f64() > Some(0.0), "{out}");
}

/// Runs the daemon, sends it a signal after two seconds, and gives how it ended and its log.
fn after_signal(signal: Signal) -> (ExitStatus, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(folder.path(), CAT);
    let mut child = spotter(&["run", "--config", &config]).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    // The photos are read through by now: only --once ends with them.
    assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    kill_process(Pid::from_child(&child), signal).unwrap();
    let asked = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(asked.elapsed() < Duration::from_secs(8), "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut log = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut log).unwrap();
    (status, log)
}

#[test]
fn sigterm_ends_it_in_order() {
    let (status, log) = after_signal(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGTERM"), "{log}");
}

/// So ends systemd a service whose watchdog has starved.
#[test]
fn sigabrt_makes_pins_safe_and_still_looks_like_one() {
    let (status, log) = after_signal(Signal::ABORT);
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{log}");
    assert!(log.contains("1 lines driven to their safe levels"), "{log}");
}
