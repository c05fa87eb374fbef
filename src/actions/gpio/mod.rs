//! `type = "gpio"`: one output line, driven by the rules.
//!
//! **What a released line does.** Spotter drives the safe level at start (the line is *requested* at that level, so that
//! there is no glitch), and again before the line is released, at exit and at panic. After the release, the kernel and
//! the hardware decide: through the character device most drivers leave the level as it was, some turn the line back
//! into an input (`pinctrl-bcm2835` does, unless its parameter `persist_gpio_outputs` is set), and then the pull resistor
//! decides; after SIGKILL, a crash of the kernel or a power cut, nothing drives the line but that resistor. So fit a
//! pull resistor towards the safe level, always.
//!
//! | module | what it is |
//! |---|---|
//! | `chardev` | the kernel's character device, uAPI v2, else v1 |
//! | `rppal` | a Raspberry Pi's registers |
//! | `pwm` | a channel of a PWM chip |
//! | [`simulated`] | a chip in memory that keeps a timeline |
//! | `guard` | every open line, so that all can be driven to safety from any thread |
//! | `machine` | follow, pulse, toggle, pattern: pure |
//! | `driver` | the thread of one line |
//! | `output` | a line that its holder drives itself, without a thread |

pub(crate) mod chardev;
mod driver;
mod guard;
mod machine;
mod output;
mod pwm;
mod rppal;
pub mod simulated;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use chardev::{ChipInfo, LineInfo, list_chips};
pub(super) use driver::Driver;
pub use guard::drive_all_safe;
pub use output::Output;

use crate::config::plan::{GpioBackend, GpioLine, GpioPlan, Level};
use crate::rules::Event;

/// Why a line is driven.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// The safe level at start, or when a lost line has come back.
    Start,
    /// A rule turned on or off.
    Event(Arc<Event>),
    /// The time of a pulse, or of a step of a pattern, is over.
    PulseEnd,
    /// The state of the device itself: ready, fault, heartbeat.
    Device,
    /// The safe level before the line is released.
    Close,
    /// The safe level at panic, or at an exit that does not wait.
    Emergency,
}

/// One output line. Dropping it releases it; its holder drives the safe level before.
///
/// The methods take `&self` because a panic must be able to drive a line whose owner is in the middle of a call: the
/// implementations are single system calls or register writes, which need no lock.
pub trait Line: Send + Sync {
    /// Drives an electrical level; when it returns, the pin has it.
    ///
    /// # Errors
    /// The kernel's refusal, for instance because the chip was unplugged.
    fn set(&self, level: Level, cause: &Cause) -> Result<(), GpioError>;

    /// Reads the line's level.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    fn get(&self) -> Result<Level, GpioError>;

    /// Chip, offset and name, for people.
    fn describe(&self) -> String;
}

/// Opens the line of `plan` as an output at its safe level, in `action`'s name.
///
/// # Errors
/// [`GpioError`]: what is missing, or who holds the line.
pub fn open(plan: &GpioPlan, action: &str) -> Result<Box<dyn Line>, GpioError> {
    match plan.backend {
        GpioBackend::Chardev => chardev::open(plan, action),
        GpioBackend::Rppal => rppal::open(plan),
        GpioBackend::Pwm { duty, hertz } => pwm::open(plan, duty, hertz),
        GpioBackend::Simulated => simulated::open(plan, action),
    }
}

/// Why a line cannot be had or driven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpioError {
    /// No chip of that label, name or path.
    #[error("there is no GPIO chip \"{chip}\"; this board has {available}{}", hint_for_moved_chips(chip))]
    NoChip {
        /// What the configuration asks for.
        chip: String,
        /// Path and label of each chip that there is.
        available: String,
    },
    /// No such PWM chip.
    #[error(
        "there is no PWM chip \"{chip}\"; this board has {available} (a Raspberry Pi needs `dtoverlay=pwm` in config.txt)"
    )]
    NoPwm {
        /// What the configuration asks for.
        chip: String,
        /// The chips that there are.
        available: String,
    },
    /// A label that several chips have.
    #[error("the GPIO chip \"{chip}\" is ambiguous: {candidates} match; name one by its path")]
    AmbiguousChip {
        /// What the configuration asks for.
        chip: String,
        /// The chips that match.
        candidates: String,
    },
    /// No such line.
    #[error("there is no GPIO line {line} on {place}; `spotter doctor` lists the lines")]
    NoLine {
        /// Offset or name.
        line: String,
        /// The chips that were searched.
        place: String,
    },
    /// A line name that several lines have.
    #[error("the GPIO line name {line} is ambiguous: {candidates} have it; add `chip = …`")]
    AmbiguousLine {
        /// The name.
        line: String,
        /// The lines that have it.
        candidates: String,
    },
    /// Somebody else has the line.
    #[error("{line} is held by {holder}; end that program, or choose another line")]
    Busy {
        /// The line.
        line: String,
        /// Its consumer, as the kernel knows it.
        holder: String,
    },
    /// The device may not be opened.
    #[error("opening {path} is not permitted; add the user to the group that owns it (often gpio: `ls -l {path}`)")]
    NotPermitted {
        /// The device.
        path: String,
    },
    /// Anything else that went wrong while asking for a line.
    #[error("requesting {line} failed: {reason}")]
    Request {
        /// The line.
        line: String,
        /// What the system said.
        reason: String,
    },
    /// The line is ours and cannot be driven or read.
    #[error("{doing} {line} failed: {reason}; was the chip unplugged?")]
    Access {
        /// "driving" or "reading".
        doing: &'static str,
        /// The line.
        line: String,
        /// What the system said.
        reason: String,
    },
    /// The backend is not in this program.
    #[error("the GPIO backend \"rppal\" is not in this program ({reason}); use backend = \"chardev\"")]
    NotBuiltIn {
        /// Why not.
        reason: &'static str,
    },
    /// The lines have been driven to safety for good: the program is ending.
    #[error("the program is ending: {line} stays at its safe level")]
    Ending {
        /// The line.
        line: String,
    },
}

impl GpioError {
    /// Whether somebody must change the configuration or the system; otherwise waiting may help.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Self::NoChip { .. }
            | Self::NoPwm { .. }
            | Self::AmbiguousChip { .. }
            | Self::NoLine { .. }
            | Self::AmbiguousLine { .. }
            | Self::NotPermitted { .. }
            | Self::NotBuiltIn { .. } => true,
            Self::Busy { .. } | Self::Request { .. } | Self::Access { .. } | Self::Ending { .. } => false,
        }
    }
}

/// On a Raspberry Pi 5 the header's chip was gpiochip4 with the first kernels (6.1, early 6.6) and is gpiochip0 since.
fn hint_for_moved_chips(chip: &str) -> &'static str {
    match chip.contains("gpiochip") {
        true => {
            "; numbers move between kernels (the header of a Pi 5 went from gpiochip4 to gpiochip0): \
                 name the chip by its label (Pi 5: pinctrl-rp1, Pi 4: pinctrl-bcm2711, Pi 3: pinctrl-bcm2835)"
        }
        false => "",
    }
}

/// The other level.
fn opposite(level: Level) -> Level {
    match level {
        Level::Low => Level::High,
        Level::High => Level::Low,
    }
}

/// The line as the configuration names it.
fn line_name(line: &GpioLine) -> String {
    match line {
        GpioLine::Offset(offset) => offset.to_string(),
        GpioLine::Name(name) => format!("\"{name}\""),
    }
}
