//! The table of keys against the reader: no key, example or default of it may be wrong.

use std::path::Path;

use super::*;
use crate::config::parse;

fn variables(name: &str) -> Option<String> {
    matches!(name, "MQTT_PASSWORD" | "PAGE_TOKEN" | "WEBHOOK_TOKEN").then(|| "s3cret-s3cret-s3cret".to_owned())
}

/// A valid file in which `key` can be written, and the file with `value` for it.
fn with_key(key: &Key, value: &str) -> (String, String) {
    let source = match key.name {
        "process" | "files" | "device" if key.section == Section::Camera => "",
        "repeat" | "live" => "files = \"f\"\n",
        _ => "device = \"d\"\n",
    };
    let source = if source.is_empty() && value.starts_with('1') { "fps = 1\n" } else { source };
    let (before, section, after) = match key.section {
        Section::Root => ("", "", ""),
        Section::Device => ("", "[device]\n", ""),
        Section::DeviceLine if key.name == "name" => ("", "[device.fault]\nname = \"x\"\n", ""),
        Section::DeviceLine => ("", "[device.fault]\nchip = \"c\"\nline = 1\n", ""),
        Section::Station => (
            "[action.siren]\ntype = \"log\"\n[input.sensor]\nname = \"x\"\n",
            "[[station]]\nname = \"s\"\ncamera = \"feeder\"\nclasses = [1]\n",
            "",
        ),
        Section::Input if key.name == "name" => ("", "[input.i]\nname = \"x\"\n", ""),
        Section::Input if key.name == "beat" => ("", "[input.i]\nline = 1\nbackend = \"simulated\"\n", ""),
        Section::Input => ("", "[input.i]\nchip = \"c\"\nline = 1\n", ""),
        Section::Model => ("", "[model]\npath = \"m\"\n", ""),
        Section::Camera => ("", "[[camera]]\nname = \"c\"\n", source),
        Section::Region => {
            ("[[camera]]\nname = \"c\"\ndevice = \"d\"\n", "[[camera.region]]\nname = \"r\"\nbox = [0, 0, 1, 1]\n", "")
        }
        Section::Motion => ("", "[[camera]]\nname = \"c\"\ndevice = \"d\"\n[camera.motion]\n", ""),
        Section::Thermal => ("", "[device.thermal]\n", ""),
        Section::Rule if key.name == "share" => ("", "[[rule]]\nname = \"r\"\nclasses = [1]\nwindow = 20\n", ""),
        Section::Rule if key.name == "clock_unset" => {
            ("", "[[rule]]\nname = \"r\"\nclasses = [1]\nschedule = [\"18:00-06:00\"]\n", "")
        }
        Section::Rule if key.name.starts_with("armed") => (
            "[action.b]\ntype = \"mqtt\"\nurl = \"mqtt://h\"\n",
            "[[rule]]\nname = \"r\"\nclasses = [1]\narmed_by = \"mqtt\"\n",
            "",
        ),
        Section::Rule if key.name == "escalate" => {
            let needed = if value == "[]" { "" } else { "escalate_after = \"1m\"\n" };
            ("[action.siren]\ntype = \"log\"\n", "[[rule]]\nname = \"r\"\nclasses = [1]\n", needed)
        }
        Section::Rule if key.name == "escalate_after" => (
            "[action.siren]\ntype = \"log\"\n",
            "[[rule]]\nname = \"r\"\nclasses = [1]\nescalate = [\"siren\"]\nescalate_after = \"1m\"\n",
            "",
        ),
        Section::ArmedBy if key.name == "name" => {
            ("[[rule]]\nname = \"r\"\nclasses = [1]\n", "[rule.armed_by]\nname = \"x\"\n", "")
        }
        Section::ArmedBy => {
            ("[[rule]]\nname = \"r\"\nclasses = [1]\n", "[rule.armed_by]\nchip = \"c\"\nline = 1\n", "")
        }
        Section::Group => ("", "[group.g]\nclasses = [1]\n", ""),
        Section::Rule => ("[action.siren]\ntype = \"log\"\n", "[[rule]]\nname = \"r\"\nclasses = [1]\n", ""),
        Section::Gpio if key.name == "name" => ("", "[action.a]\ntype = \"gpio\"\nname = \"x\"\n", ""),
        Section::Gpio if key.name == "pulse" => {
            ("", "[action.a]\ntype = \"gpio\"\nname = \"x\"\nmode = \"pulse\"\n", "")
        }
        Section::Gpio if key.name == "duty" || key.name == "frequency" => {
            ("", "[action.a]\ntype = \"gpio\"\nbackend = \"pwm\"\nchip = \"pwmchip0\"\nline = 1\n", "")
        }
        Section::Gpio if key.name == "pattern" || key.name == "repeat" => {
            let gpio = "[action.a]\ntype = \"gpio\"\nname = \"x\"\nmode = \"pattern\"\npattern = [\"1s\"]\n";
            ("", gpio, "")
        }
        Section::Gpio => ("", "[action.a]\ntype = \"gpio\"\nchip = \"c\"\nline = 1\n", ""),
        Section::Mqtt if key.name == "user" => ("", "[action.a]\ntype = \"mqtt\"\nurl = \"mqtts://h\"\n", ""),
        Section::Mqtt => ("", "[action.a]\ntype = \"mqtt\"\nurl = \"mqtts://h\"\nuser = \"joe\"\n", ""),
        Section::Hook => ("", "[action.a]\ntype = \"hook\"\ncommand = [\"true\"]\n", ""),
        Section::Webhook => ("", "[action.a]\ntype = \"webhook\"\nurl = \"https://h\"\n", ""),
        Section::Snapshot => ("", "[action.a]\ntype = \"snapshot\"\nfolder = \"f\"\n", ""),
        Section::Page if key.name.starts_with("token") => ("", "[page]\n", ""),
        Section::Page => ("", "[page]\ntoken = \"0123456789abcdef\"\n", ""),
        Section::Log | Section::Action => ("", "[action.a]\ntype = \"log\"\n", ""),
        other => panic!("{other:?} has no keys"),
    };
    let model =
        if key.section == Section::Model || key.section == Section::Root { "" } else { "[model]\npath = \"m\"\n" };
    let needed = match (key.section, key.name) {
        (Section::Camera | Section::Region | Section::Motion, _) => "",
        (Section::Root, "model") => "camera = [{ name = \"feeder\", device = \"d\" }]\n",
        (Section::Root, "camera") => "model = { path = \"m\" }\n",
        (Section::Root, _) => "model = { path = \"m\" }\ncamera = [{ name = \"feeder\", device = \"d\" }]\n",
        _ => "[[camera]]\nname = \"feeder\"\ndevice = \"d\"\n",
    };
    let own: String = section
        .lines()
        .filter(|line| !line.starts_with(&format!("{} =", key.name)))
        .map(|line| format!("{line}\n"))
        .collect();
    let base = |section: &str, line: &str| format!("{model}{needed}{before}{section}{after}{line}");
    (base(section, ""), base(&own, &format!("{} = {value}\n", key.name)))
}

#[test]
fn every_key_of_the_table_is_read_and_its_example_is_valid() {
    let credentials = tempfile::tempdir().expect("a folder");
    for name in ["mqtt", "page", "webhook"] {
        std::fs::write(credentials.path().join(name), "s3cret-s3cret-s3cret\n").expect("written");
    }
    let variables = |name: &str| match name {
        "CREDENTIALS_DIRECTORY" => Some(credentials.path().display().to_string()),
        _ => variables(name),
    };
    for key in KEYS {
        let (_, text) = with_key(key, key.example);
        let found = parse(&text, Path::new("f.toml"), &variables);
        assert!(found.is_ok(), "{}\n{}", text, found.unwrap_err());
        // No key takes a date: one that is read says so.
        let (_, text) = with_key(key, "1979-05-27");
        let problems = parse(&text, Path::new("f.toml"), &variables).expect_err("a date").to_string();
        assert!(problems.contains(&format!("{}: is a date, and must be {}", key.name, key.kind)), "{text}\n{problems}");
    }
}

#[test]
fn defaults_are_those_of_the_table() {
    let read = |text: &str| parse(text, Path::new("f.toml"), &variables).expect("valid");
    let mut seen = 0;
    for key in KEYS {
        if let Absent::Default(value) = key.absent {
            let (without, with) = with_key(key, value);
            assert_eq!(read(&without), read(&with), "{} = {value}", key.name);
            seen += 1;
        }
    }
    assert!(seen > 10);
}

#[test]
fn the_reference_lists_every_key_once() {
    let reference = reference();
    let listed = |key: &&Key| Section::REFERENCE.contains(&key.section);
    for key in KEYS.iter().filter(listed) {
        let row = format!("| `{}` |", key.name);
        let alike = KEYS.iter().filter(listed).filter(|other| other.name == key.name).count();
        assert_eq!(reference.matches(&row).count(), alike, "{row}");
        assert_eq!(KEYS.iter().filter(|other| (other.section, other.name) == (key.section, key.name)).count(), 1);
    }
}
