//! `spotter capture` with photos and with a child process as its camera.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use spotter::capture::decode;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A configuration with one camera; `camera` are its further keys.
fn configuration(folder: &Path, camera: &str) -> String {
    let path = folder.join("spotter.toml");
    let text = format!(
        "[model]\npath = \"{ROOT}/models/vgg16-gap-caltech101.onnx\"\n[[camera]]\nname = \"feeder\"\n{camera}\n\
         [[camera.region]]\nname = \"perch\"\nbox = [0.25, 0.5, 0.5, 0.5]\n[[rule]]\nname = \"r\"\nclasses = [\"wild_cat\"]\n"
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn command(config: &str, output: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spotter"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.args(["capture", "--config", config, "--format", "json", "--output"]).arg(output);
    if !arguments.contains(&"--label") {
        command.args(["--label", "cat"]);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(config: &str, output: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    told(command(config, output, arguments).output().unwrap())
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn summary(config: &str, output: &Path, arguments: &[&str]) -> Value {
    let (code, out, err) = run(config, output, arguments);
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

fn photos(folder: &Path) -> Vec<PathBuf> {
    let mut photos: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    photos.sort();
    photos
}

/// Copies of shipped photos, in this order.
fn recording(folder: &Path, names: &[&str]) {
    std::fs::create_dir(folder).unwrap();
    for (index, name) in names.iter().enumerate() {
        std::fs::copy(format!("{ROOT}/tests/photos/{name}"), folder.join(format!("{index}.jpg"))).unwrap();
    }
}

#[test]
fn photos_of_a_folder_are_taken_in_turn_without_their_copies() {
    let folder = tempfile::tempdir().unwrap();
    let [cat, pizza] = ["wild_cat/image_0006.jpg", "pizza/image_0003.jpg"];
    recording(&folder.path().join("frames"), &[cat, cat, pizza, cat, pizza]);
    std::fs::write(folder.path().join("frames/9.jpg"), "no photo").unwrap();
    let config = configuration(folder.path(), "files = \"frames\"\nrotate = 90");
    let output = folder.path().join("photos");
    let told = summary(&config, &output, &["--camera", "feeder", "--every", "0s", "--count", "5"]);
    let number = |key: &str| told[key].as_u64().unwrap();
    assert_eq!((number("kept"), number("alike"), number("earlier")), (2, 3, 0), "{told}");
    assert_eq!((told["ended"].as_str(), told["label"].as_str()), (Some("source"), Some("cat")));
    // upright, at the camera's own resolution
    let [first, _] = &photos(&output.join("cat"))[..] else { panic!("two photos") };
    let (kept, photo) = (decode::decode_file(first).unwrap(), folder.path().join("frames/0.jpg"));
    let photo = decode::decode_file(&photo).unwrap();
    assert_eq!((kept.width, kept.height), (photo.height, photo.width));

    // the next session knows the photos; a region is cut out, and is another picture
    let told = summary(&config, &output, &["--camera", "feeder", "--every", "0s", "--count", "5"]);
    assert_eq!((told["kept"].as_u64(), told["earlier"].as_u64()), (Some(0), Some(2)), "{told}");
    let told = summary(&config, &output, &["--camera", "feeder/perch", "--every", "0s", "--count", "1"]);
    assert_eq!((told["kept"].as_u64(), told["ended"].as_str()), (Some(1), Some("enough")), "{told}");
    let region = photos(&output.join("cat")).into_iter().find(|p| p.to_string_lossy().contains("feeder-perch-"));
    let region = decode::decode_file(&region.unwrap()).unwrap();
    assert!(region.width.abs_diff(photo.height / 2) <= 1 && region.height.abs_diff(photo.width / 2) <= 1);
    let told = summary(&config, &output, &["--camera", "feeder", "--every", "0s", "--different", "0"]);
    assert_eq!((told["kept"].as_u64(), told["alike"].as_u64()), (Some(5), Some(0)), "{told}");
    assert_eq!(photos(&output.join("cat")).len(), 8, "and nothing else is in the folder");
}

/// A child that shows one photo again and again, then another.
fn child(folder: &Path) -> String {
    let photo = |name: &str| format!("{ROOT}/tests/photos/{name}");
    let (cat, pizza) = (photo("wild_cat/image_0006.jpg"), photo("pizza/image_0003.jpg"));
    let script = folder.join("camera.sh");
    let text =
        format!("for i in 1 2 3 4 5 6 7 8 9; do cat {cat}; sleep 0.05; done\nwhile cat {pizza}; do sleep 0.05; done\n");
    std::fs::write(&script, text).unwrap();
    configuration(folder, &format!("process = [\"sh\", \"{}\"]\nformat = \"mjpeg\"", script.display()))
}

#[test]
fn a_child_process_is_a_camera() {
    let folder = tempfile::tempdir().unwrap();
    let (config, output) = (child(folder.path()), folder.path().join("photos"));
    let told = summary(&config, &output, &["--camera", "feeder", "--every", "30ms", "--count", "2"]);
    assert_eq!((told["kept"].as_u64(), told["ended"].as_str()), (Some(2), Some("enough")), "{told}");
    assert!(told["alike"].as_u64() > Some(0), "{told}");
    assert_eq!(photos(&output.join("cat")).len(), 2);
}

#[test]
fn an_interruption_keeps_what_was_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (config, output) = (child(folder.path()), folder.path().join("photos"));
    let child = command(&config, &output, &["--camera", "feeder", "--every", "30ms", "--count", "50"]).spawn().unwrap();
    let started = Instant::now();
    while photos_or_none(&output.join("cat")) < 2 {
        assert!(started.elapsed() < Duration::from_secs(30), "no photo is taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let (code, out, err) = told(child.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((told["kept"].as_u64(), told["ended"].as_str()), (Some(2), Some("stopped")), "{told}");
    assert!(photos(&output.join("cat")).iter().all(|photo| decode::decode_file(photo).is_ok()));
}

fn photos_or_none(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |entries| {
        entries.filter(|e| e.as_ref().is_ok_and(|e| e.path().extension().is_some_and(|x| x == "jpg"))).count()
    })
}

#[test]
fn what_cannot_be_taken_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(folder.path(), "process = [\"sh\", \"-c\", \"exit 3\"]\nformat = \"mjpeg\"");
    let output = folder.path().join("photos");
    let fails = |arguments: &[&str], code: i32, words: &str| {
        let (got, _, err) = run(&config, &output, arguments);
        assert!(got == Some(code) && err.contains(words) && !err.contains("panicked"), "{got:?} {err}");
    };
    fails(&["--camera", "door"], 2, "there are feeder, feeder/perch");
    fails(&["--camera", "feeder/roof"], 2, "there are feeder, feeder/perch");
    fails(&["--camera", "feeder", "--every", "soon"], 2, "no duration");
    fails(&["--camera", "feeder", "--count", "0"], 2, "1 to 100000");
    fails(&["--camera", "feeder", "--every", "10ms", "--patience", "300ms"], 1, "exit status 3");
    let (code, _, err) = run(&config, &output, &["--camera", "feeder", "--label", "../x"]);
    assert!(code == Some(2), "{err}");
    assert!(!folder.path().join("x").exists());
}
