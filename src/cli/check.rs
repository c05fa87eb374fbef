//! `spotter check`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::outcome::{Failure, Outcome};
use super::{DEFAULT_CONFIG, Format, print_json};
use crate::config::{self, Plan};
use crate::model::ModelFiles;
use crate::rules::{self, RuleProblem};

/// List every problem in a configuration: its keys, its model's manifest and labels, its rules' classes.
#[derive(Debug, Args)]
#[command(after_help = "Example: spotter check --config garden.toml\nExit code 0: none; 78: some.")]
pub(super) struct Check {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// How the problems are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Check {
    pub(super) fn execute(&self) -> Outcome {
        let (plan, problems) = match config::load(&self.config) {
            Ok(plan) => {
                let problems = model_and_classes(&plan, &self.config);
                (Some(plan), problems)
            }
            Err(error) => (None, error.to_string().lines().map(str::to_owned).collect()),
        };
        if self.format == Format::Json {
            print_json(&json!({ "ok": problems.is_empty(), "problems": problems }))?;
        }
        match plan {
            Some(plan) if problems.is_empty() => {
                if self.format == Format::Text {
                    let (cameras, rules, actions) = (plan.cameras.len(), plan.rules.len(), plan.actions.len());
                    println!("{}: {cameras} cameras, {rules} rules, {actions} actions: good", self.config.display());
                }
                Ok(())
            }
            _ => Err(Failure::Configuration(problems.join("\n"))),
        }
    }
}

/// What can be wrong beyond the file itself, without loading the network.
fn model_and_classes(plan: &Plan, config: &Path) -> Vec<String> {
    match ModelFiles::beside(&plan.model.path) {
        Err(error) => vec![error.to_string()],
        Ok(files) => match files.labels.map(|l| rules::compile(plan, &l.iter().collect::<Vec<_>>())) {
            Some(Err(problems)) => locate(config, &problems),
            // Without labels the classes are numbers, and only the network knows how many.
            Some(Ok(_)) | None => Vec::new(),
        },
    }
}

/// The problems with the lines that they stand on.
fn locate(config: &Path, problems: &[RuleProblem]) -> Vec<String> {
    let pairs = problems.iter().map(|p| (p.key.clone(), p.problem.clone()));
    match config::locate(config, pairs) {
        Ok(located) => located.to_string().lines().map(str::to_owned).collect(),
        Err(_) => problems.iter().map(ToString::to_string).collect(),
    }
}
