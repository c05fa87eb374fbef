//! `spotter run`

use std::path::PathBuf;

use clap::Args;

use super::outcome::{Failure, Outcome};
use super::{DEFAULT_CONFIG, Format, print_json, sheet};
use crate::config;
use crate::daemon::{self, DaemonError, Options};
use crate::model::ModelError;

/// Watch the configured cameras and act.
#[derive(Debug, Args)]
#[command(after_help = "Example: spotter run --config garden.toml")]
pub(super) struct Run {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// End when every files source is read through and the outboxes are empty, with a summary
    #[arg(long)]
    once: bool,
    /// With --once: write a contact sheet of what the model saw
    #[arg(long, value_name = "FILE.png", requires = "once")]
    sheet: Option<PathBuf>,
    /// With --once: how the summary is printed
    #[arg(long, value_enum, default_value_t, requires = "once")]
    format: Format,
}

impl Run {
    pub(super) fn execute(&self) -> Outcome {
        let plan = config::load(&self.config).map_err(Failure::configuration)?;
        let (config, once) = (Some(self.config.clone()), self.once);
        let options = Options { config, once, keep_pictures: self.sheet.is_some() };
        let summary = daemon::run(&plan, &options).map_err(failure)?;
        if !self.once {
            return Ok(());
        }
        if let Some(path) = &self.sheet {
            sheet::write(&summary, &plan.device, path).map_err(Failure::Runtime)?;
        }
        match self.format {
            Format::Json => print_json(&summary.to_json()),
            Format::Text => {
                print!("{summary}");
                if let Some(path) = &self.sheet {
                    println!("  contact sheet   {}", path.display());
                }
                Ok(())
            }
        }
    }
}

fn failure(error: DaemonError) -> Failure {
    match error {
        // A network that failed while it ran may do better after a restart; a file that does not load will not.
        DaemonError::Model(ModelError::Run { .. }) | DaemonError::Action(_) | DaemonError::Start { .. } => {
            Failure::runtime(error)
        }
        DaemonError::Model(_) | DaemonError::Rules(_) | DaemonError::SelfTest { .. } => Failure::configuration(error),
    }
}
