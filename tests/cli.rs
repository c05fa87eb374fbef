//! The program from outside: exit codes, what it prints, and how it ends.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const MODEL: &str = "models/vgg16-gap-caltech101.onnx";

fn spotter(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spotter"));
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
fn classify_prints_one_json_object() {
    let photo = "tests/photos/wild_cat/image_0006.jpg";
    let (code, out, err) = run(&["classify", "--model", MODEL, "--top", "2", "--format", "json", photo]);
    assert_eq!(code, Some(0), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    let top = json["results"][0]["top"].as_array().unwrap();
    assert_eq!((top.len(), top[0]["label"].as_str()), (2, Some("wild_cat")));
    assert!(top[0]["probability"].as_f64() > Some(0.9), "{out}");
}

/// The labels of the shipped photos are right as often as onnxruntime's are on the same files: 36 of 40.
#[test]
fn the_shipped_photos_are_recognised() {
    let photos: Vec<String> = glob::glob(&format!("{}/tests/photos/*/*.jpg", env!("CARGO_MANIFEST_DIR")))
        .unwrap()
        .map(|p| p.unwrap().display().to_string())
        .collect();
    let mut arguments = vec!["classify", "--model", MODEL, "--top", "1", "--format", "json"];
    arguments.extend(photos.iter().map(String::as_str));
    let (_, out, err) = run(&arguments);
    let json: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {err}"));
    let results = json["results"].as_array().unwrap();
    let right = |r: &&Value| {
        let folder = Path::new(r["image"].as_str().unwrap()).parent().unwrap().file_name().unwrap().to_owned();
        r["top"][0]["label"].as_str() == folder.to_str()
    };
    assert_eq!(results.len(), 40);
    assert!(results.iter().filter(right).count() >= 35, "{out}");
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

#[test]
fn sigterm_ends_it_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(folder.path(), &format!("repeat = true\nfps = 5\n{CAT}"));
    let mut child = spotter(&["run", "--config", &config]).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
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
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGTERM"), "{log}");
}
