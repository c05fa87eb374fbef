//! How a command ends: the exit codes, in one place.

use std::process::ExitCode;

/// Why a command failed, and with which exit code.
#[derive(Debug)]
pub enum Failure {
    /// It failed at run time: 1.
    Runtime(String),
    /// The arguments make no sense: 2.
    Usage(String),
    /// The configuration (or the model's manifest) is not acceptable: 78, `EX_CONFIG` of sysexits.h. The unit does not
    /// restart on it.
    Configuration(String),
}

/// What a command gives back.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// A failure at run time, with the error's own words.
    pub fn runtime(error: impl std::fmt::Display) -> Self {
        Self::Runtime(error.to_string())
    }

    /// A bad configuration, with the error's own words.
    pub fn configuration(error: impl std::fmt::Display) -> Self {
        Self::Configuration(error.to_string())
    }

    /// Prints the failure on stderr and gives its exit code.
    pub fn report(&self) -> ExitCode {
        let (code, text) = match self {
            Self::Runtime(text) => (1, text),
            Self::Usage(text) => (2, text),
            Self::Configuration(text) => (78, text),
        };
        eprintln!("spotter: {}", text.trim_end());
        ExitCode::from(code)
    }
}
