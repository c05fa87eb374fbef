//! Stations, inputs, the device's lines, and what actions of a verdict may be.

use super::{check, read};

/// From line 6: an input, a pulse, a line that follows.
const PARTS: &str = "[input.eye]\nname = \"x\"\n[action.ok]\ntype = \"gpio\"\nname = \"p\"\nmode = \"pulse\"\n\
    [action.lamp]\ntype = \"gpio\"\nname = \"q\"\n[[station]]\nname = \"gate\"\n";

/// With `more` from line 17.
fn check_station(more: &str, expected: &[&str]) {
    check(&format!("{PARTS}{more}"), expected);
}

#[test]
fn a_station_names_what_is_there() {
    let text =
        format!("{}{PARTS}camera = \"cam\"\nclasses = [\"cup\"]\ntrigger = \"eye\"\npass = [\"ok\"]\n", super::BASE);
    let station = &read(&text).expect("valid").stations[0];
    assert_eq!((&*station.view, station.trigger.as_deref(), station.queue), ("cam", Some("eye"), 8));
    for (more, expected) in [
        ("", vec!["15 station[0].camera: is missing", "15 station[0].classes: is missing"]),
        ("camera = \"gone\"\nclasses = [1]\n", vec!["17 station[0].camera: there is no camera or region \"gone\""]),
        (
            "camera = \"cam\"\nclasses = [1]\ntrigger = \"ear\"\n",
            vec!["19 station[0].trigger: there is no input \"ear\""],
        ),
        ("camera = \"cam\"\nclasses = [1]\ndelay = \"3s\"\n", vec!["19 station[0].delay: timeout = 2s is not longer"]),
        ("camera = \"cam\"\nclasses = [1]\nqueue = 33\n", vec!["19 station[0].queue: 33 is out of range"]),
        ("camera = \"cam\"\nclasses = [1]\npass = [\"lamp\"]\n", vec!["19 station[0].pass: action \"lamp\" follows"]),
        ("camera = \"cam\"\nclasses = [1]\nfail = [\"k\"]\n", vec!["19 station[0].fail[0]: there is no action \"k\""]),
    ] {
        check_station(more, &expected);
    }
}

#[test]
fn inputs_and_device_lines() {
    for (more, expected) in [
        ("[input.a]\nline = 1\n", vec!["6 input.a.chip: is missing, and `line` counts on a chip"]),
        (
            "[input.a]\nname = \"x\"\nbeat = \"1s\"\n",
            vec!["8 input.a.beat: has an effect with `backend = \"simulated\"`"],
        ),
        ("[input.a]\nname = \"x\"\nbias = \"up\"\n", vec!["8 input.a.bias: \"up\" is not known"]),
        ("[device.fault]\nline = 6\n", vec!["6 device.fault.chip: is missing"]),
        ("[device.fault]\nname = \"x\"\nmode = \"pulse\"\n", vec!["8 device.fault.mode: is no key of"]),
        (
            "[action.a]\ntype = \"gpio\"\nname = \"x\"\n[device.ready]\nname = \"x\"\n",
            vec!["9 device.ready: is the line of action \"a\" too"],
        ),
    ] {
        check(more, &expected);
    }
}

#[test]
fn patterns_and_pwm() {
    let gpio = "[action.a]\ntype = \"gpio\"\n";
    for (more, expected) in [
        ("name = \"x\"\nmode = \"pattern\"\n", "6 action.a.pattern: is missing"),
        ("name = \"x\"\nmode = \"pattern\"\npattern = []\n", "10 action.a.pattern: is empty; write how long"),
        ("name = \"x\"\nmode = \"pattern\"\npattern = [1]\n", "10 action.a.pattern[0]: is an integer"),
        ("name = \"x\"\nrepeat = 2\n", "9 action.a.repeat: has an effect with `mode = \"pattern\"` only"),
        ("name = \"x\"\nduty = 0.5\n", "9 action.a.duty: has an effect with `backend = \"pwm\"` only"),
        ("backend = \"pwm\"\nline = 0\n", "6 action.a.chip: is missing; add for instance `chip = \"pwmchip0\"`"),
        ("backend = \"pwm\"\nchip = \"pwmchip0\"\nname = \"x\"\n", "10 action.a.name: a PWM chip knows channels"),
    ] {
        check(&format!("{gpio}{more}"), &[expected]);
    }
}
