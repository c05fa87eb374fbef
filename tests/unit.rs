//! The shipped unit and its drop-ins, as systemd reads them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What `systemd-analyze security` may say of the unit alone, and with each drop-in.
const EXPOSURE: [(&str, f64); 4] = [("", 1.6), ("rpicam", 1.6), ("rppal", 1.6), ("ffmpeg", 1.6)];

/// The unit with one of its drop-ins, in a folder of its own; the program is one that exists here.
fn unit(folder: &Path, drop_in: &str) -> PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let text = std::fs::read_to_string(shipped.join("spotter.service")).unwrap();
    assert!(text.contains("/usr/bin/spotter"));
    let unit = folder.join("spotter.service");
    std::fs::write(&unit, text.replace("/usr/bin/spotter", "/bin/true")).unwrap();
    if !drop_in.is_empty() {
        let (name, own) = (format!("spotter.service.d/{drop_in}.conf"), folder.join("spotter.service.d"));
        std::fs::create_dir(&own).unwrap();
        std::fs::copy(shipped.join(&name), folder.join(&name)).unwrap();
    }
    unit
}

fn analyze(verb: &[&str], unit: &Path) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(verb).arg(unit).env("SYSTEMD_COLORS", "0").output();
    let output = output.expect("systemd-analyze is not installed: apt-get install systemd");
    (
        output.status.success(),
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat(),
    )
}

#[test]
fn the_unit_is_well_formed_and_little_exposed_with_each_drop_in() {
    for (drop_in, limit) in EXPOSURE {
        let folder = tempfile::tempdir().unwrap();
        let unit = unit(folder.path(), drop_in);
        let (good, said) = analyze(&["verify", "--man=no"], &unit);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("spotter")).collect();
        assert!(good && ours.is_empty(), "{drop_in}: {said}");
        let (_, said) = analyze(&["security", "--offline=yes", "--no-pager"], &unit);
        let exposure = said.lines().find_map(|line| {
            line.split_once("Overall exposure level for spotter.service: ")?.1.split(' ').next()?.parse().ok()
        });
        let exposure: f64 = exposure.unwrap_or_else(|| panic!("{drop_in}: {said}"));
        assert!(exposure <= limit, "{drop_in}: {exposure}");
        println!("{drop_in:8} {exposure}");
    }
}

#[test]
fn every_drop_in_is_listed_where_people_look() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let readme = std::fs::read_to_string(shipped.join("README.md")).unwrap();
    for entry in std::fs::read_dir(shipped.join("spotter.service.d")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(readme.contains(&format!("`{name}`")), "{name}");
        assert!(EXPOSURE.iter().any(|(drop_in, _)| format!("{drop_in}.conf") == name), "{name}");
    }
}
