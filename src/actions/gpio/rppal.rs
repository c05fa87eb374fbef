//! `backend = "rppal"`: a Raspberry Pi's GPIO registers, mapped into memory (BCM numbers).
//!
//! Faster to write than the character device, but it knows no owners: it drives a line that another program holds. The
//! pin is *not* reset when it is dropped: it stays an output at the safe level until a program or a reboot changes it.

#[cfg(all(feature = "rppal", target_arch = "aarch64"))]
pub(super) use built_in::open;

#[cfg(not(all(feature = "rppal", target_arch = "aarch64")))]
pub(super) fn open(_: &crate::config::plan::GpioPlan) -> Result<Box<dyn super::Line>, super::GpioError> {
    let reason = match cfg!(feature = "rppal") {
        true => "it is for 64-bit ARM alone",
        false => "built without the feature rppal",
    };
    Err(super::GpioError::NotBuiltIn { reason })
}

#[cfg(all(feature = "rppal", target_arch = "aarch64"))]
mod built_in {
    use std::sync::{Mutex, PoisonError};

    use rppal::gpio::{Error, Gpio, Level as PinLevel, OutputPin};

    use crate::actions::gpio::guard::lock_patiently;
    use crate::actions::gpio::{Cause, GpioError, Line, line_name};
    use crate::config::plan::{GpioLine, GpioPlan, Level};

    struct RppalLine {
        number: u8,
        pin: Mutex<OutputPin>,
    }

    pub(in crate::actions::gpio) fn open(plan: &GpioPlan) -> Result<Box<dyn Line>, GpioError> {
        let number = pin_number(&plan.line).ok_or_else(|| no_line(&line_name(&plan.line)))?;
        let pin = Gpio::new().and_then(|gpio| gpio.get(number)).map_err(|error| explain(number, error))?;
        // Level first, then direction: no glitch.
        let mut pin = match plan.safe {
            Level::Low => pin.into_output_low(),
            Level::High => pin.into_output_high(),
        };
        pin.set_reset_on_drop(false);
        Ok(Box::new(RppalLine { number, pin: Mutex::new(pin) }))
    }

    /// `17`, or the header's name for it, `GPIO17`.
    fn pin_number(line: &GpioLine) -> Option<u8> {
        match line {
            GpioLine::Offset(offset) => u8::try_from(*offset).ok(),
            GpioLine::Name(name) => name.strip_prefix("GPIO")?.parse().ok(),
        }
    }

    fn no_line(line: &str) -> GpioError {
        GpioError::NoLine { line: line.to_owned(), place: "the header (BCM numbers, or names such as GPIO17)".into() }
    }

    fn explain(number: u8, error: Error) -> GpioError {
        let line = format!("BCM GPIO {number}");
        match error {
            Error::PermissionDenied(path) => GpioError::NotPermitted { path },
            Error::PinNotAvailable(_) => no_line(&number.to_string()),
            Error::PinUsed(_) => GpioError::Busy { line, holder: "another action of this program".into() },
            other => GpioError::Request { line, reason: other.to_string() },
        }
    }

    impl Line for RppalLine {
        fn set(&self, level: Level, _: &Cause) -> Result<(), GpioError> {
            let level = match level {
                Level::Low => PinLevel::Low,
                Level::High => PinLevel::High,
            };
            // For `OutputPin::write`'s `&mut self` alone: held for one register write, so that a short wait suffices.
            let Some(mut pin) = lock_patiently(&self.pin) else {
                let reason = "another thread is stuck in it".into();
                return Err(GpioError::Access { doing: "driving", line: self.describe(), reason });
            };
            pin.write(level);
            Ok(())
        }

        fn get(&self) -> Result<Level, GpioError> {
            let pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(if pin.is_set_high() { Level::High } else { Level::Low })
        }

        fn describe(&self) -> String {
            format!("BCM GPIO {} through rppal", self.number)
        }
    }
}
