//! `make test-pi`: the rppal backend as the daemon drives it, on a Raspberry Pi (an emulated 3B there; a real one with nothing on these pins
//! serves as well). It runs as root and reads the registers of the BCM2837 back with busybox's `devmem`, which knows nothing of rppal.
//!
//! | pin | mode | safe level |
//! |---|---|---|
//! | GPIO17 | follow | low |
//! | GPIO27 | pulse of 300 ms | low |
//! | GPIO22 | follow, active low | high |
//!
//! `pi panic` and `pi hang` are the processes that it ends. The table is printed by `tests/pi/run.sh`, which builds and boots it.

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spotter::actions::gpio::drive_all_safe;
use spotter::actions::{self, ActionContext, ActionHandle, Edge, Health, Message, Observer};
use spotter::clock::Monotonic;
use spotter::config::plan::{ActionKind, ActionPlan, GpioBackend, GpioLine, GpioMode, GpioPlan, Level};
use spotter::rules::{Change, Event, OffReason};

/// Of the BCM2837's GPIO block (BCM2835 ARM Peripherals, 6.1): function select, and the levels of pins 0 to 31.
const FUNCTION_SELECT: u64 = 0x3F20_0000;
const LEVELS: u64 = 0x3F20_0034;

const PULSE: Duration = Duration::from_millis(300);
/// An emulated Pi is slow.
const PATIENCE: Duration = Duration::from_secs(10);

struct Silent;

impl Observer for Silent {
    fn edge(&self, _: &Edge) {}
    fn delivered(&self, _: &str, _: &Event) {}
}

fn pin(line: u32, mode: GpioMode, active_low: bool, safe: Level) -> ActionPlan {
    let plan =
        GpioPlan { backend: GpioBackend::Rppal, chip: None, line: GpioLine::Offset(line), mode, active_low, safe };
    ActionPlan { name: format!("GPIO{line}").into(), kind: ActionKind::Gpio(plan) }
}

/// All three pins, opened and so at their safe levels.
fn open() -> Result<Vec<ActionHandle>, String> {
    let context = ActionContext {
        device: "pi".into(),
        rules: vec![],
        cameras: vec![],
        views: vec![],
        pins: vec![],
        observer: Arc::new(Silent),
        control: spotter::control::Control::new(|| ()),
    };
    let plans = [
        pin(17, GpioMode::Follow, false, Level::Low),
        pin(27, GpioMode::Pulse(PULSE), false, Level::Low),
        pin(22, GpioMode::Follow, true, Level::High),
    ];
    let pins = actions::start(&plans, context).map_err(|error| error.to_string())?;
    match pins.iter().map(ActionHandle::status).find(|status| status.health != Health::Ready) {
        Some(status) => Err(status.detail),
        None => Ok(pins),
    }
}

fn tell(pins: &[ActionHandle], change: Change) {
    let now = Monotonic::now();
    let event = Event {
        rule: "cat".into(),
        change,
        camera: "feeder".into(),
        region: None,
        class: 0,
        label: "cat".into(),
        probability: 0.9,
        captured: now,
        decided: now,
        sequence: 1,
        origin: None,
        verdict: None,
    };
    for pin in pins {
        pin.send(Message::Event(Arc::new(event.clone())));
    }
}

/// A register, by a program of somebody else's.
fn register(address: u64) -> Result<u32, String> {
    let output = Command::new("busybox").arg("devmem").arg(format!("{address:#x}")).output();
    let output = output.map_err(|error| format!("busybox devmem: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let digits = text.trim().trim_start_matches("0x");
    u32::from_str_radix(digits, 16).map_err(|_| format!("devmem says {:?}", String::from_utf8_lossy(&output.stderr)))
}

/// The levels of GPIO17, GPIO27 and GPIO22, as `1` and `0`.
fn levels() -> Result<String, String> {
    let levels = register(LEVELS)?;
    Ok([17, 27, 22].map(|pin| if levels >> pin & 1 == 1 { '1' } else { '0' }).iter().collect())
}

/// Whether all three are outputs: function 1 in three bits a pin, ten pins a register.
fn are_outputs() -> Result<bool, String> {
    let mut outputs = true;
    for pin in [17, 27, 22] {
        outputs &= register(FUNCTION_SELECT + pin / 10 * 4)? >> (pin % 10 * 3) & 7 == 1;
    }
    Ok(outputs)
}

/// Waits until the levels are `wanted`, and says after how long.
fn until(wanted: &str, what: &str) -> Result<Duration, String> {
    let started = Instant::now();
    loop {
        let found = levels()?;
        if found == wanted {
            println!("{what:58} {found}   after {:5} ms", started.elapsed().as_millis());
            return Ok(started.elapsed());
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("{what}: the levels are {found}, and should be {wanted}"));
        }
    }
}

/// A process of its own that turns everything on, and then panics or hangs.
fn child(how: &str) -> Result<std::process::Child, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    Command::new(own).arg(how).spawn().map_err(|error| error.to_string())
}

fn be_a_child(how: &str) -> Result<(), String> {
    spotter::panics::end_process_on_panic(70, || _ = drive_all_safe());
    let pins = open()?;
    tell(&pins, Change::On);
    std::thread::sleep(Duration::from_secs(3));
    match how {
        "panic" => _ = std::thread::spawn(|| panic!("as the test asks")).join(),
        _ => std::thread::sleep(Duration::from_secs(600)),
    }
    Err("a panic does not end the process".into())
}

fn check() -> Result<(), String> {
    println!("{:58} GPIO17 GPIO27 GPIO22", "");
    let pins = open()?;
    until("001", "opened: safe levels")?;
    if !are_outputs()? {
        return Err("a pin that was opened is no output".into());
    }
    tell(&pins, Change::On);
    until("110", "on: all active")?;
    let pulse = until("100", "a while later: the pulse is over, the others follow")?;
    if pulse > PULSE * 10 {
        return Err(format!("a pulse of {PULSE:?} took {pulse:?}"));
    }
    tell(&pins, Change::Off(OffReason::Gone));
    until("001", "off")?;
    tell(&pins, Change::On);
    until("100", "on again, and the pulse over")?;
    actions::close_all(&pins, Duration::from_secs(2));
    drop(pins);
    until("001", "an orderly end: safe levels")?;
    if !are_outputs()? {
        return Err("a pin is no output any more after the end".into());
    }
    let mut process = child("panic")?;
    until("100", "another process: on")?;
    let status = process.wait().map_err(|error| error.to_string())?;
    until("001", &format!("it panicked ({status}): safe levels"))?;
    let mut process = child("hang")?;
    until("100", "another process: on")?;
    process.kill().and_then(|()| process.wait()).map_err(|error| error.to_string())?;
    // The registers have no owner: what nobody drives stays.
    until("100", "SIGKILL: nothing drives the pins, their levels stay")?;
    let pins = open()?;
    until("001", "started again: safe levels")?;
    actions::close_all(&pins, Duration::from_secs(2));
    Ok(())
}

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1) {
        Some(how) => be_a_child(&how),
        None => check(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}
