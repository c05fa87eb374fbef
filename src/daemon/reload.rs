//! Reading the configuration again: on a thread of its own, so that frames go on, until everything is known to be good.
//!
//! What comes back is a whole: the plan, its rules compiled against the labels that will be in force and, where the model or its
//! files have changed, the new model, loaded beside the old one and self-tested. Anything wrong, and nothing of it is used.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use super::{compile_rules, compile_stations, self_test};
use crate::config::plan::{CachePlan, MethodPlan, ModelPlan};
use crate::config::{self, Plan};
use crate::files;
use crate::kernels::{Preference, Strategy};
use crate::model::{LoadOptions, Memory, Model, ModelFiles, cache};
use crate::rules::RuleSet;
use crate::rules::station::StationSet;

/// A configuration that can be applied.
pub(super) struct Next {
    pub(super) plan: Plan,
    /// `None`: the model in use stays.
    pub(super) model: Option<Loaded>,
    pub(super) rules: RuleSet,
    pub(super) stations: StationSet,
}

/// A model and what its files were when it was read.
pub(super) struct Loaded {
    pub(super) model: Model,
    pub(super) stamp: Stamp,
}

impl Loaded {
    /// Loads and self-tests the model of `plan`.
    ///
    /// # Errors
    /// It cannot be loaded, or does not see what its manifest promises.
    pub(super) fn load(plan: &ModelPlan) -> Result<Self, super::DaemonError> {
        // Before it is read: what is replaced meanwhile is read again the next time.
        let stamp = Stamp::of(&plan.path);
        let mut model = Model::load(&plan.path, &load_options(plan))?;
        self_test::run(&mut model)?;
        Ok(Self { model, stamp })
    }
}

/// How `[model]` wants its model loaded.
pub fn load_options(plan: &ModelPlan) -> LoadOptions {
    LoadOptions {
        engine: plan.kernel.clone(),
        threads: plan.threads,
        memory: if plan.compact { Memory::Compact } else { Memory::Fast },
        strategy: None,
        layers: plan.layers.iter().map(preference).collect(),
        cache: match &plan.cache {
            CachePlan::Default => cache::default_folder(),
            CachePlan::None => None,
            CachePlan::Folder(folder) => Some(folder.clone()),
        },
    }
}

fn preference((layer, method): &(String, MethodPlan)) -> Preference {
    let strategy = match method {
        MethodPlan::Auto => Strategy::Auto,
        MethodPlan::Direct => Strategy::Direct,
        MethodPlan::Winograd => Strategy::Winograd,
    };
    Preference { layer: layer.clone(), strategy }
}

/// What tells whether one of a model's files has been replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<files::Stamp>>);

impl Stamp {
    /// Of the model at `path`, its manifest and its labels.
    fn of(path: &Path) -> Self {
        let mut files = vec![path.to_path_buf()];
        if let Ok(ModelFiles { manifest, .. }) = ModelFiles::beside(path) {
            files.extend([Some(manifest.path), manifest.output.labels].into_iter().flatten());
        }
        Self(files.iter().map(|path| files::Stamp::of(path)).collect())
    }
}

/// What is in force, as far as the next configuration depends on it.
pub(super) struct Present {
    pub(super) model: ModelPlan,
    pub(super) stamp: Stamp,
    pub(super) labels: Vec<String>,
}

/// Reads the configuration when it is asked to, one at a time.
pub(super) struct Reloader {
    path: Option<PathBuf>,
    running: Option<Receiver<Result<Box<Next>, String>>>,
    /// Asked for again meanwhile: what is being read may be older than the wish.
    again: bool,
}

impl Reloader {
    /// For the file at `path`; without one, nothing can be read again.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, running: None, again: false }
    }

    /// Begins to read; `wake` is called when it has been read. While a reading runs, another follows it. `false`: none was begun.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn begin(&mut self, present: Present, wake: impl FnOnce() + Send + 'static) -> Result<bool, String> {
        let Some(path) = self.path.clone() else { return Err("it was not read from a file".to_owned()) };
        if self.running.is_some() {
            self.again = true;
            return Ok(false);
        }
        let (sender, receiver) = channel();
        let read = move || {
            // Whoever asked may be gone: the daemon ends.
            let _ = sender.send(read(&path, &present).map(Box::new));
            wake();
        };
        std::thread::Builder::new().name("reload".into()).spawn(read).map_err(|error| error.to_string())?;
        self.running = Some(receiver);
        Ok(true)
    }

    /// What was read, once it has been; then also whether it was asked for again meanwhile.
    pub(super) fn outcome(&mut self) -> Option<(Result<Box<Next>, String>, bool)> {
        let outcome = match self.running.as_ref()?.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Empty) => return None,
            // A panic in it has ended the process already.
            Err(TryRecvError::Disconnected) => Err("reading it gave no answer".to_owned()),
        };
        self.running = None;
        Some((outcome, std::mem::take(&mut self.again)))
    }
}

/// Reads and checks the configuration at `path` as `spotter check` does, and loads what it needs.
fn read(path: &Path, present: &Present) -> Result<Next, String> {
    // Before opening: to open a pipe would wait for a writer, and no later wish would be heard.
    if std::fs::metadata(path).is_ok_and(|file| !file.is_file()) {
        return Err(format!("{} is not a regular file", path.display()));
    }
    let plan = config::load(path).map_err(|error| error.to_string())?;
    let new = |loaded: &Loaded| loaded.model.labels().iter().map(str::to_owned).collect::<Vec<_>>();
    let same = plan.model == present.model && Stamp::of(&plan.model.path) == present.stamp;
    if let Some(labels) = ModelFiles::beside(&plan.model.path).map_err(|error| error.to_string())?.labels {
        // What a look at the labels shows need not wait for the network.
        rules(&plan, &labels.iter().map(str::to_owned).collect::<Vec<_>>(), path)?;
    }
    let model = match same {
        true => None,
        false => Some(Loaded::load(&plan.model).map_err(|error| error.to_string())?),
    };
    let labels = model.as_ref().map_or_else(|| present.labels.clone(), new);
    let (rules, stations) = rules(&plan, &labels, path)?;
    Ok(Next { plan, model, rules, stations })
}

/// The rules against `labels`, or the problems with the lines that they stand on.
fn rules(plan: &Plan, labels: &[String], path: &Path) -> Result<(RuleSet, StationSet), String> {
    let compiled = compile_rules(plan, labels).and_then(|rules| Ok((rules, compile_stations(plan, labels)?)));
    compiled.map_err(|error| match &error {
        super::DaemonError::Rules(problems) => {
            let pairs = problems.iter().map(|it| (it.key.clone(), it.problem.clone()));
            config::locate(path, pairs).map_or_else(|_| error.to_string(), |located| located.to_string())
        }
        _ => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_of_each_file_that_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let model = at("m.onnx");
        std::fs::write(&model, "network").unwrap();
        std::fs::write(at("labels.txt"), "a\nb\n").unwrap();
        let manifest = "[input]\nsize = [8, 8]\npreprocess = \"torchvision\"\n\
            [output]\nkind = \"logits\"\nlabels = \"labels.txt\"\n";
        std::fs::write(at("m.toml"), manifest).unwrap();
        let mut stamps = vec![Stamp::of(&model)];
        assert_eq!(Stamp::of(&model), stamps[0]);
        assert_eq!(stamps[0].0.len(), 3);
        for name in ["m.onnx", "m.toml", "labels.txt"] {
            // As an editor or a package does it: another file of the same size takes its place.
            let text = std::fs::read(at(name)).unwrap();
            std::fs::write(at("new"), text).unwrap();
            std::fs::rename(at("new"), at(name)).unwrap();
            stamps.push(Stamp::of(&model));
            assert_ne!(stamps[stamps.len() - 1], stamps[stamps.len() - 2], "{name}");
        }
        assert_ne!(Stamp::of(&at("none.onnx")), stamps[0]);
    }
}
