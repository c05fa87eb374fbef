//! `spotter replay` on shipped photos under names that carry times.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn replay(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spotter"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    let output = command.arg("replay").args(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A night's recording: a cat in the afternoon, and three frames of it in the evening with a pizza between.
fn recording(folder: &Path) -> (String, String) {
    let frames = folder.join("frames");
    std::fs::create_dir(&frames).unwrap();
    let photo = |label: &str| {
        let mut photos: Vec<_> =
            std::fs::read_dir(format!("{ROOT}/tests/photos/{label}")).unwrap().map(|e| e.unwrap().path()).collect();
        photos.sort();
        photos.remove(0)
    };
    for (name, label) in [
        ("2026-11-24T16-00-00Z.jpg", "wild_cat"),
        ("2026-11-24T17-30-00.500Z.jpg", "wild_cat"),
        ("2026-11-24T17-30-01.500Z.jpg", "pizza"),
        ("20261124_183002.jpg", "wild_cat"),
        ("1795541403.500.jpg", "wild_cat"),
    ] {
        std::fs::copy(photo(label), frames.join(name)).unwrap();
    }
    let config = folder.join("spotter.toml");
    let text = format!(
        "[device]\nname = \"test\"\ntimezone = \"Europe/Berlin\"\n[model]\npath = \"{ROOT}/models/vgg16-gap-caltech101.onnx\"\n\
         [[camera]]\nname = \"c\"\ndevice = \"/dev/video0\"\n[group.cats]\nclasses = [\"wild_cat\"]\n\
         [[rule]]\nname = \"cat\"\nclasses = [\"@cats\"]\nhits = 2\nwindow = 3\nhold = \"5s\"\nschedule = [\"18:00-06:00\"]\n\
         escalate = [\"l\"]\nescalate_after = \"1s\"\n[action.l]\ntype = \"log\"\n\
         [[rule]]\nname = \"never\"\nclasses = [\"lamp\"]\non = 0.99\n"
    );
    std::fs::write(&config, text).unwrap();
    (config.display().to_string(), frames.display().to_string())
}

#[test]
fn a_recording_says_what_would_have_fired_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let (config, frames) = recording(folder.path());
    let arguments = ["--config", &config, "--frames", &frames, "--why", "--format", "json"];
    let (code, out, err) = replay(&arguments);
    assert_eq!(code, Some(0), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    let events: Vec<_> =
        json["events"].as_array().unwrap().iter().map(|e| (e["time"].as_str(), e["state"].as_str())).collect();
    // Not in the afternoon: the schedule is closed. In the evening at the second of three; a second later it escalates.
    let (on, escalated) = ("2026-11-24T17:30:02Z", "2026-11-24T17:30:03Z");
    assert_eq!(events, [(Some(on), Some("on")), (Some(escalated), Some("escalated"))], "{out}");
    assert!(json["events"][0]["why"].as_str().unwrap().contains("2 of 2 needed in 3 of 3"), "{out}");
    assert_eq!((json["rules"][0]["fired"].as_u64(), json["rules"][1]["fired"].as_u64()), (Some(1), Some(0)));
    let first = &json["frames"][0];
    assert_eq!(first["rules"][0]["closed"], "unscheduled", "{first}");
    assert!(first["rules"][0]["why"].as_str().unwrap().contains("schedule closed until Tue 18:00"), "{first}");
    assert_eq!(json["frames"].as_array().unwrap().len(), 5);
    assert_eq!(replay(&arguments).1, out, "the same recording gives the same");

    let (_, text, _) = replay(&["--config", &config, "--frames", &frames]);
    assert!(text.contains("2026-11-24 18:30:02.000  cat on  wild_cat"), "{text}");
    assert!(text.contains("never: fired 0 times; at most"), "{text}");
}

#[test]
fn what_cannot_be_replayed_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (config, frames) = recording(folder.path());
    let fails = |arguments: &[&str], code: i32, words: &str| {
        let (got, _, err) = replay(&[&["--config", &config], arguments].concat());
        assert_eq!(got, Some(code), "{err}");
        assert!(err.contains(words) && !err.contains("panicked"), "{err}");
    };
    fails(&["--frames", "/nowhere"], 1, "/nowhere");
    fails(&["--frames", &frames, "--camera", "x"], 2, "there are c");
    let unnamed = Path::new(&frames).join("image_0006.jpg");
    std::fs::write(&unnamed, "no photo").unwrap();
    fails(&["--frames", &frames], 1, "image_0006.jpg: the name carries no time");
    std::fs::rename(&unnamed, Path::new(&frames).join("2026-11-24T17-31-00Z.jpg")).unwrap();
    let (code, out, err) = replay(&["--config", &config, "--frames", &frames]);
    assert!(code == Some(0) && out.contains("1 of them unusable") && err.contains("17-31-00Z"), "{out}{err}");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    fails(&["--frames", empty.to_str().unwrap()], 1, "no frame");
}
