//! `spotter evaluate` on the shipped model and photos.

use std::process::Command;

use serde_json::Value;

const MODEL: &str = "models/vgg16-gap-caltech101.onnx";

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

/// The shipped model against itself: the same figures twice, agreement 1, a picture, and a sum that is right.
#[test]
fn the_shipped_model_is_judged_on_the_shipped_photos() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.txt");
    let root = env!("CARGO_MANIFEST_DIR");
    let mut lines = String::new();
    for label in ["wild_cat", "airplanes", "stop_sign"] {
        for entry in std::fs::read_dir(format!("{root}/tests/photos/{label}")).unwrap() {
            lines += &format!("{}\t{label}\n", entry.unwrap().path().display());
        }
    }
    std::fs::write(&list, lines).unwrap();
    let picture = folder.path().join("out/confusion.png");
    let (list, picture) = (list.to_str().unwrap(), picture.to_str().unwrap());
    let arguments = ["evaluate", "--model", MODEL, "--against", MODEL, "--format", "json", "--picture", picture, list];
    let (code, out, err) = run(&arguments);
    assert_eq!(code, Some(0), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((json["images"].as_u64(), json["agreement_top1"].as_f64()), (Some(6), Some(1.0)));
    assert_eq!(json["against"]["top1"], json["top1"]);
    assert!(json["top5"].as_f64() >= json["top1"].as_f64() && json["top1"].as_f64() >= Some(0.8), "{out}");
    assert!(json["images_per_s"].as_f64() > Some(0.0) && json["calibration_error"].as_f64() < Some(0.3), "{out}");
    let photos = json["classes"].as_array().unwrap().iter().map(|c| c["photos"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(photos, 6);
    assert!(image::open(picture).unwrap().width() > 300);
}

#[test]
fn a_label_that_the_model_does_not_know_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let unicorns = folder.path().join("unicorn");
    std::fs::create_dir(&unicorns).unwrap();
    let photo = format!("{}/tests/photos/wild_cat/image_0006.jpg", env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(photo, unicorns.join("1.jpg")).unwrap();
    let (code, _, err) = run(&["evaluate", "--model", MODEL, folder.path().to_str().unwrap()]);
    assert!(code == Some(1) && err.contains("unicorn"), "{code:?} {err}");
    let (code, _, err) = run(&["evaluate", "--model", MODEL, "/nowhere"]);
    assert!(code == Some(1) && err.contains("/nowhere"), "{code:?} {err}");
}
