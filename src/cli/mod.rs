//! The command line: one file a subcommand, exit codes in one place ([`outcome`]).

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

mod bench;
mod check;
mod classify;
mod doctor;
mod evaluate;
mod look;
pub mod outcome;
mod quantize;
mod replay;
mod run;
mod sheet;
mod teach;

pub use outcome::{Failure, Outcome};

/// Where the package puts the configuration.
const DEFAULT_CONFIG: &str = "/etc/spotter/spotter.toml";

/// Watches cameras with an int8 VGG16 and acts on what it sees: GPIO, MQTT, an event log.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the configured cameras and act
    Run(run::Run),
    /// List every problem in a configuration
    Check(check::Check),
    /// Say what is on photos
    Classify(classify::Classify),
    /// Write a picture of exactly what the model sees through a camera
    Look(look::Look),
    /// Say what a recorded folder would have made the rules do, and why
    Replay(replay::Replay),
    /// Say what this board has: cameras, GPIO chips, CPU features
    Doctor(doctor::Doctor),
    /// Make an int8 model of a float one
    Quantize(quantize::Quantize),
    /// Measure a model on this machine, layer by layer
    Bench(bench::Bench),
    /// Judge a model on labelled photos
    Evaluate(evaluate::Evaluate),
    /// Teach a model classes of your own
    Teach(teach::Teach),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object on stdout, and nothing else there
    Json,
}

/// Reads the arguments, runs the subcommand, maps its outcome to an exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // To stdout for --help and --version, to stderr for mistakes; a closed pipe is nobody's fault.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    crate::telemetry::logging::start();
    let outcome = match &arguments.command {
        Command::Run(run) => run.execute(),
        Command::Check(check) => check.execute(),
        Command::Classify(classify) => classify.execute(),
        Command::Look(look) => look.execute(),
        Command::Replay(replay) => replay.execute(),
        Command::Doctor(doctor) => doctor.execute(),
        Command::Quantize(quantize) => quantize.execute(),
        Command::Bench(bench) => bench.execute(),
        Command::Evaluate(evaluate) => evaluate.execute(),
        Command::Teach(teach) => teach.execute(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Every subcommand and argument, for manual pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Prints one JSON object on stdout.
fn print_json(value: &serde_json::Value) -> Outcome {
    use std::io::Write;
    writeln!(std::io::stdout(), "{value:#}").map_err(Failure::runtime)
}
