//! The command line: one file a subcommand, exit codes in one place.

use std::process::ExitCode;

/// Reads the arguments, runs the subcommand, maps its outcome to an exit code.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
