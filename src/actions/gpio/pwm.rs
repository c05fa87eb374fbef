//! `backend = "pwm"`: a channel of a PWM chip through sysfs (Linux, Documentation/driver-api/pwm.rst). Active is a share of each
//! period, inactive none of it; so a lamp is dimmed and a buzzer sounds by the same modes as a line is driven.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Cause, GpioError, Line, line_name};
use crate::config::plan::{GpioLine, GpioPlan, Level};

const CLASS: &str = "/sys/class/pwm";

/// udev gives a channel's files to their group a moment after its export.
const PATIENCE: Duration = Duration::from_millis(500);

struct PwmLine {
    /// `…/pwmchipN/pwmM`
    channel: PathBuf,
    name: String,
    /// Nanoseconds of each period when active.
    high: u64,
}

pub(super) fn open(plan: &GpioPlan, duty: u16, hertz: u32) -> Result<Box<dyn Line>, GpioError> {
    open_in(Path::new(CLASS), plan, duty, hertz)
}

fn open_in(class: &Path, plan: &GpioPlan, duty: u16, hertz: u32) -> Result<Box<dyn Line>, GpioError> {
    let name = plan.chip.as_deref().unwrap_or_default();
    let chip = class.join(Path::new(name).file_name().unwrap_or_default());
    if name.is_empty() || !chip.is_dir() {
        return Err(GpioError::NoPwm { chip: name.to_owned(), available: chips(class) });
    }
    let number = match &plan.line {
        GpioLine::Offset(number) => *number,
        GpioLine::Name(_) => return Err(no_channel(&plan.line, &chip)),
    };
    let channel = chip.join(format!("pwm{number}"));
    let line = format!("channel {number} of {}", chip.display());
    if !channel.exists() {
        match write(&chip.join("export"), &number.to_string()) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Err(no_channel(&plan.line, &chip)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(GpioError::Busy { line, holder: "the kernel or another program".into() });
            }
            Err(error) => return Err(explain(&chip.join("export"), &line, &error)),
            Ok(()) => {}
        }
    }
    let period = 1_000_000_000 / u64::from(hertz.max(1));
    let opened = PwmLine { channel, name: line, high: period * u64::from(duty) / 1000 };
    opened.begin(period, plan.safe)?;
    Ok(Box::new(opened))
}

impl PwmLine {
    /// The duty first becomes 0, since the kernel refuses a period shorter than it; then period and safe level, and then on.
    fn begin(&self, period: u64, safe: Level) -> Result<(), GpioError> {
        self.patiently("duty_cycle", "0")?;
        let settings = [("period", period), ("duty_cycle", self.duty(safe)), ("enable", 1)];
        settings.iter().try_for_each(|(file, value)| self.patiently(file, &value.to_string()))
    }

    fn patiently(&self, file: &str, value: &str) -> Result<(), GpioError> {
        let (path, deadline) = (self.channel.join(file), Instant::now() + PATIENCE);
        loop {
            match write(&path, value) {
                // A channel that was never used has no period, and so takes no duty.
                Err(error) if file == "duty_cycle" && value == "0" && error.kind() == ErrorKind::InvalidInput => {
                    return Ok(());
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound)
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                written => return written.map_err(|error| explain(&path, &self.name, &error)),
            }
        }
    }

    fn duty(&self, level: Level) -> u64 {
        if level == Level::High { self.high } else { 0 }
    }

    fn access(&self, doing: &'static str, error: &io::Error) -> GpioError {
        GpioError::Access { doing, line: self.name.clone(), reason: error.to_string() }
    }
}

impl Line for PwmLine {
    fn set(&self, level: Level, _: &Cause) -> Result<(), GpioError> {
        let duty = self.duty(level).to_string();
        write(&self.channel.join("duty_cycle"), &duty).map_err(|error| self.access("driving", &error))
    }

    fn get(&self) -> Result<Level, GpioError> {
        let duty = std::fs::read_to_string(self.channel.join("duty_cycle"));
        let duty = duty.map_err(|error| self.access("reading", &error))?;
        Ok(if duty.trim() == "0" { Level::Low } else { Level::High })
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}

/// One write, as sysfs wants it; no file is made where there is none.
fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(path)?.write_all(value.as_bytes())
}

fn explain(path: &Path, line: &str, error: &io::Error) -> GpioError {
    match error.kind() {
        ErrorKind::PermissionDenied => GpioError::NotPermitted { path: path.display().to_string() },
        _ => GpioError::Request { line: line.to_owned(), reason: format!("{}: {error}", path.display()) },
    }
}

fn no_channel(line: &GpioLine, chip: &Path) -> GpioError {
    let count = std::fs::read_to_string(chip.join("npwm")).unwrap_or_default();
    GpioError::NoLine { line: line_name(line), place: format!("{} ({} PWM channels)", chip.display(), count.trim()) }
}

fn chips(class: &Path) -> String {
    let entries = std::fs::read_dir(class).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::{GpioBackend, GpioMode};

    fn plan(chip: &str, line: u32) -> GpioPlan {
        GpioPlan {
            backend: GpioBackend::Pwm { duty: 250, hertz: 1000 },
            chip: Some(chip.into()),
            line: GpioLine::Offset(line),
            mode: GpioMode::Follow,
            active_low: false,
            safe: Level::Low,
        }
    }

    /// Files such as the kernel has, with a channel that is exported already.
    fn class() -> tempfile::TempDir {
        let class = tempfile::tempdir().unwrap();
        let channel = class.path().join("pwmchip0/pwm1");
        std::fs::create_dir_all(&channel).unwrap();
        for file in ["duty_cycle", "period", "enable"] {
            std::fs::write(channel.join(file), "7").unwrap();
        }
        std::fs::write(class.path().join("pwmchip0/npwm"), "2\n").unwrap();
        class
    }

    #[test]
    fn a_level_is_a_share_of_the_period() {
        let class = class();
        let read = |file: &str| std::fs::read_to_string(class.path().join("pwmchip0/pwm1").join(file)).unwrap();
        let line = open_in(class.path(), &plan("pwmchip0", 1), 250, 1000).unwrap();
        assert_eq!([read("period"), read("duty_cycle"), read("enable")], ["1000000", "0", "1"]);
        line.set(Level::High, &Cause::Start).unwrap();
        assert_eq!((read("duty_cycle").as_str(), line.get()), ("250000", Ok(Level::High)));
        line.set(Level::Low, &Cause::Close).unwrap();
        assert_eq!((read("duty_cycle").as_str(), line.get()), ("0", Ok(Level::Low)));
        std::fs::remove_dir_all(class.path().join("pwmchip0")).unwrap();
        let error = line.set(Level::High, &Cause::Start).unwrap_err().to_string();
        assert!(error.contains("driving channel 1 of"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let class = class();
        let error = |chip: &str, line| open_in(class.path(), &plan(chip, line), 250, 1000).err().unwrap();
        let none = error("pwmchip4", 1);
        assert!(none.needs_a_person(), "{none}");
        let none = none.to_string();
        assert!(none.contains("no PWM chip \"pwmchip4\"; this board has pwmchip0 (a Raspberry Pi needs"), "{none}");
        // It is not exported, and there is no `export` here.
        let none = error("pwmchip0", 0).to_string();
        assert!(none.contains("requesting channel 0 of") && none.contains("export"), "{none}");
        let named = GpioPlan { line: GpioLine::Name("fan".into()), ..plan("pwmchip0", 0) };
        let none = open_in(class.path(), &named, 250, 1000).err().unwrap().to_string();
        assert!(none.contains("(2 PWM channels)"), "{none}");
    }
}
