//! `spotter teach` on the shipped trunk and photos.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const TRUNK: &str = "models/vgg16-gap-caltech101.onnx";
const LABELS: [&str; 4] = ["airplanes", "stop_sign", "sunflower", "wild_cat"];

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_spotter"))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .output();
    let output = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Photos of some labels in a folder, as links.
fn lesson(folder: &Path, labels: &[&str]) {
    for label in labels {
        let from = format!("{}/tests/photos/{label}", env!("CARGO_MANIFEST_DIR"));
        std::os::unix::fs::symlink(from, folder.join(label)).unwrap();
    }
}

fn taught(arguments: &[&str]) -> Value {
    let (code, out, err) = run(&[&["teach", "--model", TRUNK, "--format", "json"], arguments].concat());
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

fn top(model: &str, photo: &str) -> (String, f64) {
    let (code, out, err) = run(&["classify", "--model", model, "--top", "1", "--format", "json", photo]);
    assert_eq!(code, Some(0), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    let top = &json["results"][0]["top"][0];
    (top["label"].as_str().unwrap().to_owned(), top["probability"].as_f64().unwrap())
}

/// Four classes of two photos each, and "none"; a fifth label afterwards costs its own photos only; the taught model is a trunk again, here
/// with photos of the background. (How well "none" does cannot be seen on two photos a class: `teach::novelty`, `teach::train`.)
#[test]
fn a_few_photos_make_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    lesson(&photos, &LABELS);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (images, output, confusion, mistakes) = (at("photos"), at("m/own.onnx"), at("c.png"), at("m.png"));
    let told = taught(&[
        "--images",
        &images,
        "--output",
        &output,
        "--augment",
        "off",
        "--picture",
        &confusion,
        "--mistakes",
        &mistakes,
    ]);
    assert_eq!((told["photos"].as_u64(), told["trunk_runs"].as_u64()), (Some(8), Some(8)));
    assert!(told["cross_validated_top1"].as_f64() > Some(0.4), "{told}");
    assert!(image::open(&confusion).is_ok() && image::open(&mistakes).is_ok());
    for label in LABELS {
        let photo = std::fs::read_dir(photos.join(label)).unwrap().next().unwrap().unwrap().path();
        assert_eq!(top(&output, photo.to_str().unwrap()).0, label);
    }
    let labels = std::fs::read_to_string(at("m/own-labels.txt")).unwrap();
    assert_eq!(labels.lines().collect::<Vec<_>>(), [&LABELS[..], &["none"]].concat());
    let mut left: Vec<_> =
        std::fs::read_dir(folder.path().join("m")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["own-labels.txt", "own-photo.jpg", "own.features", "own.onnx", "own.toml"]);

    lesson(&photos, &["watch"]);
    let told = taught(&["--images", &images, "--output", &output, "--augment", "off", "--without-none"]);
    assert_eq!((told["photos"].as_u64(), told["trunk_runs"].as_u64()), (Some(10), Some(2)));
    let again = at("again.onnx");
    let (code, _, err) = run(&[
        "teach",
        "--model",
        &output,
        "--images",
        &images,
        "--output",
        &again,
        "--augment",
        "off",
        "--background",
        "tests/photos/pizza",
    ]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(top(&again, "tests/photos/pizza/image_0003.jpg").0, "none");
}

#[test]
fn what_cannot_be_taught_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    lesson(&photos, &LABELS[..1]);
    let (images, output) = (photos.display().to_string(), folder.path().join("m.onnx").display().to_string());
    let check = |model: &str, output: &str, code: i32, words: &str| {
        let (got, _, err) = run(&["teach", "--model", model, "--images", &images, "--output", output]);
        assert!(got == Some(code) && err.contains(words), "{got:?} {err}");
        assert!(!folder.path().join("m.onnx").exists());
    };
    check(TRUNK, &output, 1, "one class only");
    check(TRUNK, "m.txt", 2, ".onnx");
    lesson(&photos, &LABELS[1..]);
    check("tests/models/plain.onnx", &output, 78, "features = \"TENSOR\"");
    check("/nowhere.onnx", &output, 78, "/nowhere.onnx");
}
