//! A loaded model: scores for a filled input.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{OpState, TValue, TypedNode};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::source::TypedSource;
use tract_onnx::tract_core::plan::eval;

use super::cache::{self, Key, Restored, Writing};
use super::error::ModelError;
use super::import;
use super::labels::Labels;
use super::load::{self, Layout, Loaded, chain};
use super::lower::{self, Foreign, Image, Lowered};
use super::manifest::{Manifest, OutputKind};
use super::program::{Program, Run, RunState, Watch};
use super::trunk::cut_at_features;
use crate::kernels::{Choice, Kernel, KernelError, Kind, Pool, Preference, Strategy, cores};
use crate::memory;
use crate::panics;
use crate::preprocess::{InputSpec, InputTensor, TensorFormat};

/// What computes a model's quantised layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    /// Our kernels.
    Kernel(Kernel),
    /// tract's own ops for everything, for comparison.
    Tract,
}

impl Engine {
    /// `tract`, or a kernel's name; the best kernel of this CPU when absent.
    fn choose(name: Option<&str>) -> Result<Engine, KernelError> {
        let kernel = match name {
            Some("tract") => return Ok(Engine::Tract),
            Some(name) => name.parse()?,
            None => Kernel::best(),
        };
        if kernel.is_available() {
            return Ok(Engine::Kernel(kernel));
        }
        let available = Kernel::available().iter().map(Kernel::to_string).collect::<Vec<_>>().join(", ");
        Err(KernelError::Unavailable(kernel, available))
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Engine::Kernel(kernel) => kernel.fmt(f),
            Engine::Tract => f.pad("tract"),
        }
    }
}

/// The manifest and the labels of a model, without the network: what a configuration is checked against.
#[derive(Debug)]
pub struct ModelFiles {
    /// The manifest beside the model.
    pub manifest: Manifest,
    /// The labels that it names, if it names any.
    pub labels: Option<Labels>,
}

impl ModelFiles {
    /// Reads the manifest beside `model`, and the labels that it names.
    ///
    /// # Errors
    /// Either cannot be read, or is not what it must be.
    pub fn beside(model: &Path) -> Result<Self, ModelError> {
        let manifest = load::manifest(model)?;
        let labels = manifest.labels()?;
        Ok(Self { manifest, labels })
    }
}

/// How to load a model.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// A kernel by name, or `tract` for tract's own ops; the CPU's best kernel when absent.
    pub engine: Option<String>,
    /// Threads of the kernel pool; when absent as many as [suit the CPU](crate::kernels::cores::suitable_threads).
    pub threads: Option<usize>,
    /// The folder in which packed models are kept from start to start; nowhere when absent.
    pub cache: Option<PathBuf>,
    /// What is preferred where speed costs memory.
    pub memory: Memory,
    /// How convolutions are computed; when absent, by a table of CPU and shape, which minds `memory`. For measurements.
    pub strategy: Option<Strategy>,
    /// Exceptions from `strategy`, by layer or by kind of layer.
    pub layers: Vec<Preference>,
}

/// What is preferred where speed costs memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// Speed: on ARM CPUs without dot product, weights are kept in a form that takes eight times their size.
    #[default]
    Fast,
    /// Memory: weights are held once, in about their own size.
    Compact,
}

/// What the cache had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheUse {
    /// It was not asked, or cannot keep this model.
    None,
    /// Nothing of use; the model is being written to it.
    Written,
    /// The model.
    Read,
}

impl fmt::Display for CacheUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            CacheUse::None => "none",
            CacheUse::Written => "written",
            CacheUse::Read => "read",
        })
    }
}

/// What loading did.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// The kernel's name, or `tract`.
    pub kernel: String,
    /// Threads that work on a layer, the caller's included.
    pub threads: usize,
    /// From the file's first byte to ready.
    pub time: Duration,
    /// Layers that our kernels run.
    pub lowered: usize,
    /// Nodes that stay on tract's ops.
    pub foreign: Vec<Foreign>,
    /// Whether it came out of the cache.
    pub cache: CacheUse,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kernel, threads, time) = (&self.kernel, self.threads, self.time.as_secs_f64());
        write!(f, "kernel {kernel}, {threads} threads, loaded in {time:.2} s, {} layers ours", self.lowered)?;
        if self.lowered > 0 { write!(f, ", {} on tract's ops", self.foreign.len()) } else { Ok(()) }
    }
}

/// What a model is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Classify,
    /// Every convolution's own output is wanted.
    Trace,
    /// The same with little memory.
    Lean,
    /// The feature tensor is wanted.
    Features,
}

/// A layer as `bench` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerInfo {
    /// The graph's node.
    pub name: String,
    /// How it is computed: a kernel's algorithm, or `tract:OP`.
    pub algorithm: String,
    /// Multiplications and additions of one run; 0 where they do not count, or are not known.
    pub macs: u64,
    /// Which kind of convolution it is, if it is one of ours.
    pub kind: Option<Kind>,
    /// Height, width, channels of its output; empty for tract's own ops.
    pub shape: Vec<usize>,
}

/// An 8-bit tensor that a layer made: its name; height, width and channels; NHWC codes.
pub type Traced = (String, [usize; 3], Vec<u8>);

/// A network, ready to run.
pub struct Model {
    path: PathBuf,
    manifest: Manifest,
    labels: Labels,
    input: InputSpec,
    layout: Layout,
    outputs: usize,
    state: TypedSimpleState,
    report: LoadReport,
    /// Waited for at the end, so that a short-lived process leaves a whole file.
    writing: Option<Writing>,
}

impl Model {
    /// Loads `path` (ONNX) with the manifest beside it.
    ///
    /// # Errors
    /// Every file that is missing, damaged, too large, or in disagreement with another is an error that says which and what to do.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Model, ModelError> {
        Model::load_as(path, options, Purpose::Classify)
    }

    /// [`Model::load`] with max-pools kept out of the convolutions, so that [`Model::trace`] shows every convolution's own output.
    /// The same results, but slower.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_unfused(path: &Path, options: &LoadOptions) -> Result<Model, ModelError> {
        Model::load_as(path, options, Purpose::Trace)
    }

    /// [`Model::load_unfused`] with the direct method for every convolution: Winograd's holds its weights four times as large,
    /// or more. The same results.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_lean(path: &Path, options: &LoadOptions) -> Result<Model, ModelError> {
        Model::load_as(path, options, Purpose::Lean)
    }

    /// The model up to its feature tensor ([`Trunk`](super::Trunk)): what it gives are features.
    ///
    /// # Errors
    /// As [`Model::load`], and when the manifest names no feature tensor.
    pub fn load_trunk(path: &Path, options: &LoadOptions) -> Result<Model, ModelError> {
        Model::load_as(path, options, Purpose::Features)
    }

    fn load_as(path: &Path, options: &LoadOptions, purpose: Purpose) -> Result<Model, ModelError> {
        let start = Instant::now();
        let ModelFiles { mut manifest, mut labels } = ModelFiles::beside(path)?;
        let engine = Engine::choose(options.engine.as_deref())?;
        let threads = options.threads.unwrap_or_else(cores::suitable_threads).max(1);
        let choice = choice(purpose, options);
        let place = place(path, &manifest, engine, &choice, purpose, options);
        if let Some(restored) = place.as_ref().and_then(|(folder, key)| cache::restore(folder, key, threads)) {
            return Model::of_cache(path, manifest, labels, restored, engine, start)?.with_known(&choice);
        }
        let bytes = load::read(path)?;
        load::check_digest(path, &bytes, &manifest)?;
        let mut proto = load::parse(path, bytes)?;
        if purpose == Purpose::Features {
            cut_at_features(path, &mut proto, &manifest)?;
            (manifest.output.kind, labels) = (OutputKind::Features, None);
        }
        if let Some(graph) = &mut proto.graph {
            import::canonical(graph);
        }
        let Loaded { model, layout, outputs } = load::type_check(path, &proto, &manifest)?;
        drop(proto);
        let labels = match_labels(path, &manifest, labels, outputs)?;
        let prepared =
            load::contained(path, "preparing it", || prepare(model, engine, threads, choice.clone(), purpose));
        let (state, lowered) = prepared?;
        memory::return_free_memory();
        let input = input_spec(&manifest, lowered.image);
        let writing =
            place.and_then(|(folder, key)| cache::keep(&folder, key, state.plan(), lowered.image, layout, outputs));
        let report = LoadReport {
            kernel: engine.to_string(),
            threads: lowered.programs.first().map_or(1, |p| p.pool.threads()),
            time: start.elapsed(),
            lowered: lowered.programs.iter().map(|p| p.layers.len()).sum(),
            foreign: lowered.foreign,
            cache: if writing.is_some() { CacheUse::Written } else { CacheUse::None },
        };
        log_foreign(path, &report);
        let model = Model { path: path.into(), manifest, labels, input, layout, outputs, state, report, writing };
        model.with_known(&choice)
    }

    /// The model, when every preference is about a convolution of it, or about a kind.
    fn with_known(self, choice: &Choice) -> Result<Model, ModelError> {
        if choice.preferences.is_empty() {
            return Ok(self);
        }
        let convolutions: Vec<String> =
            self.layers().into_iter().filter(|l| l.kind.is_some()).map(|l| l.name).collect();
        let known = |name: &str| Kind::ALL.iter().any(|k| k.name() == name) || convolutions.iter().any(|c| c == name);
        match choice.preferences.iter().find(|p| !known(&p.layer)) {
            None => Ok(self),
            Some(unknown) => {
                let (path, layer) = (self.path.clone(), unknown.layer.clone());
                Err(ModelError::UnknownLayer { path, layer, known: convolutions })
            }
        }
    }

    fn of_cache(
        path: &Path,
        manifest: Manifest,
        labels: Option<Labels>,
        restored: Restored,
        engine: Engine,
        start: Instant,
    ) -> Result<Model, ModelError> {
        let Restored { plan, program, image, layout, outputs } = restored;
        let labels = match_labels(path, &manifest, labels, outputs)?;
        let state = load::contained(path, "preparing it", || plan.spawn())?;
        let report = LoadReport {
            kernel: engine.to_string(),
            threads: program.pool.threads(),
            time: start.elapsed(),
            lowered: program.layers.len(),
            foreign: Vec::new(),
            cache: CacheUse::Read,
        };
        let input = input_spec(&manifest, image);
        Ok(Model { path: path.into(), manifest, labels, input, layout, outputs, state, report, writing: None })
    }

    /// What [`Model::run`] takes.
    pub fn input(&self) -> &InputSpec {
        &self.input
    }

    /// The classes' names: from the labels file, or their numbers. For a model of features, the features' numbers.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The number of scores.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// What loading did.
    pub fn load_report(&self) -> &LoadReport {
        &self.report
    }

    /// Waits until the model is written to the cache, if it is being written: for measurements, which that would disturb.
    pub fn wait_until_kept(&mut self) {
        self.writing = None;
    }

    /// Raw scores, one a class.
    ///
    /// # Errors
    /// The input is not one of this model's, or an operator fails. An operator of tract's may panic on what a stranger's file asks of it:
    /// that is an error as well, after which the model is of no use, so that a model's self-test ends the model and not the daemon.
    pub fn run(&mut self, input: &InputTensor) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(input)?;
        let gave_up = |panic: String| {
            TractError::msg(format!("an operator gave up: {}", panic.lines().next().unwrap_or_default()))
        };
        let results = panics::contain(|| self.state.run(tvec!(tensor))).unwrap_or_else(|panic| Err(gave_up(panic)));
        self.scores(results)
    }

    /// [`Model::run`], and the time of each layer in the order of [`Model::layers`].
    pub fn run_timed(&mut self, input: &InputTensor) -> Result<(Vec<f32>, Vec<Duration>), ModelError> {
        let tensor = self.tensor(input)?;
        let mut times = Vec::new();
        let results = self.state.run_plan_with_eval(tvec!(tensor), |context, mut state, node, inputs| {
            if let Some(run) = run_state(&mut state) {
                return run.run(&inputs, Watch::Times(&mut times));
            }
            let start = Instant::now();
            let results = eval(context, state, node, inputs);
            if is_layer(node) {
                times.push(start.elapsed());
            }
            results
        });
        Ok((self.scores(results)?, times))
    }

    /// Every 8-bit tensor that a lowered layer makes, in order: the graph's node; height, width, channels; `u8` codes, NHWC (`i8`
    /// codes have 128 added).
    pub fn trace(&mut self, input: &InputTensor) -> Result<Vec<Traced>, ModelError> {
        let tensor = self.tensor(input)?;
        let mut codes = Vec::new();
        let results =
            self.state.run_plan_with_eval(tvec!(tensor), |context, mut state, node, inputs| {
                match run_state(&mut state) {
                    Some(run) => run.run(&inputs, Watch::Codes(&mut codes)),
                    None => eval(context, state, node, inputs),
                }
            });
        self.scores(results)?;
        Ok(codes)
    }

    /// The layers in the order in which they run.
    pub fn layers(&self) -> Vec<LayerInfo> {
        let plan = self.state.plan();
        let mut layers = Vec::new();
        for node in plan.order_without_consts().iter().map(|id| &plan.model().nodes()[*id]) {
            if let Some(run) = node.op_as::<Run>() {
                layers.extend(program_layers(&run.program));
            } else if is_layer(node) {
                let algorithm = format!("tract:{}", node.op.name());
                layers.push(LayerInfo {
                    name: node.name.clone(),
                    algorithm,
                    macs: tract_macs(plan.model(), node),
                    kind: None,
                    shape: vec![],
                });
            }
        }
        layers
    }

    /// What the scores mean: `softmax(scores / temperature)` for logits; probabilities and features as they are.
    pub fn probabilities(&self, scores: &[f32]) -> Vec<f32> {
        match self.manifest.output.kind {
            OutputKind::Logits => softmax(scores, self.manifest.output.temperature),
            OutputKind::Probabilities | OutputKind::Features => scores.to_vec(),
        }
    }

    fn tensor(&self, input: &InputTensor) -> Result<TValue, ModelError> {
        let (height, width) = (self.input.height, self.input.width);
        let wanted = || match self.input.format {
            TensorFormat::F32Nchw => format!("{} floats", 3 * height * width),
            TensorFormat::U8Nhwc { channels, .. } => format!("{} bytes", channels * height * width),
        };
        let made = match (input, self.input.format) {
            (InputTensor::U8(codes), TensorFormat::U8Nhwc { channels, .. })
                if codes.len() == height * width * channels =>
            {
                Tensor::from_shape(&[1, height, width, channels], codes)
            }
            (InputTensor::F32(values), TensorFormat::F32Nchw) if values.len() == 3 * height * width => {
                match self.layout {
                    Layout::Nchw => Tensor::from_shape(&[1, 3, height, width], values),
                    Layout::Nhwc => Tensor::from_shape(&[1, height, width, 3], &interleaved(values, height * width)),
                }
            }
            (other, _) => {
                let found = match other {
                    InputTensor::F32(values) => format!("{} floats", values.len()),
                    InputTensor::U8(codes) => format!("{} bytes", codes.len()),
                };
                return Err(ModelError::Tensor { wanted: wanted(), found });
            }
        };
        made.map(IntoTValue::into_tvalue).map_err(|e| self.failed(&e))
    }

    fn scores(&self, results: TractResult<TVec<TValue>>) -> Result<Vec<f32>, ModelError> {
        let read = |results: TVec<TValue>| -> TractResult<Vec<f32>> {
            let scores = results[0].cast_to::<f32>()?;
            Ok(scores.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        };
        results.and_then(read).map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &TractError) -> ModelError {
        ModelError::Run { path: self.path.clone(), detail: chain(error) }
    }
}

fn input_spec(manifest: &Manifest, image: Option<Image>) -> InputSpec {
    let format = match image {
        Some(Image { affine, channels }) => {
            TensorFormat::U8Nhwc { scale: affine.scale, zero_point: affine.zero_point, channels }
        }
        None => TensorFormat::F32Nchw,
    };
    InputSpec { height: manifest.height, width: manifest.width, format, preprocess: manifest.preprocess.clone() }
}

fn match_labels(
    path: &Path,
    manifest: &Manifest,
    labels: Option<Labels>,
    outputs: usize,
) -> Result<Labels, ModelError> {
    let Some(labels) = labels else { return Ok(Labels::numbered(outputs)) };
    if labels.len() == outputs {
        return Ok(labels);
    }
    Err(ModelError::LabelCount {
        model: path.into(),
        manifest: manifest.path.clone(),
        file: labels.file().unwrap_or(Path::new("")).into(),
        classes: outputs,
        labels: labels.len(),
    })
}

/// How convolutions are computed.
fn choice(purpose: Purpose, options: &LoadOptions) -> Choice {
    if purpose == Purpose::Lean {
        return Choice { strategy: Strategy::Direct, preferences: Vec::new() };
    }
    let strategy = options.strategy.unwrap_or(match options.memory {
        Memory::Compact => Strategy::Compact,
        Memory::Fast => Strategy::Auto,
    });
    Choice { strategy, preferences: options.layers.clone() }
}

/// Where the model may be kept, and under which key.
fn place(
    path: &Path,
    manifest: &Manifest,
    engine: Engine,
    choice: &Choice,
    purpose: Purpose,
    options: &LoadOptions,
) -> Option<(PathBuf, Key)> {
    let Engine::Kernel(kernel) = engine else { return None };
    let folder = options.cache.clone().filter(|_| purpose == Purpose::Classify)?;
    Some((folder, Key::new(path, manifest, kernel, choice.clone())?))
}

fn prepare(
    mut model: TypedModel,
    engine: Engine,
    threads: usize,
    choice: Choice,
    purpose: Purpose,
) -> TractResult<(TypedSimpleState, Lowered)> {
    let lowered = match engine {
        Engine::Tract => Lowered::default(),
        Engine::Kernel(kernel) => {
            let fuse_pools = !matches!(purpose, Purpose::Trace | Purpose::Lean);
            let options = lower::Options { kernel, choice, pool: Arc::new(Pool::new(threads)), fuse_pools };
            lower::lower(&mut model, &options)?
        }
    };
    let plan = TypedSimplePlan::new(model.into_optimized()?)?;
    Ok((plan.spawn()?, lowered))
}

/// Says once, by name, which nodes are slower than they could be.
fn log_foreign(path: &Path, report: &LoadReport) {
    if report.lowered == 0 && report.foreign.iter().all(|f| f.why.is_none()) || report.foreign.is_empty() {
        return;
    }
    let about = |f: &Foreign| match f.why {
        Some(why) => format!("{} ({}: {why})", f.name, f.op),
        None => format!("{} ({})", f.name, f.op),
    };
    let names: Vec<String> = report.foreign.iter().map(about).collect();
    log::info!("{}: these nodes stay on tract's ops, slower but right: {}", path.display(), names.join(", "));
}

/// The state of a lowered run, when the node is one.
fn run_state<'a>(state: &'a mut Option<&mut (dyn OpState + 'static)>) -> Option<&'a mut RunState> {
    state.as_deref_mut()?.downcast_mut::<RunState>()
}

/// Whether a node of tract's own does any work.
fn is_layer(node: &TypedNode) -> bool {
    !node.op_is::<Const>() && !node.op_is::<TypedSource>() && !node.op_is::<Run>()
}

fn tract_macs(model: &TypedModel, node: &TypedNode) -> u64 {
    use tract_onnx::tract_core::internal::{Cost, DimLike};
    let costs = model.node_input_facts(node.id).and_then(|facts| node.op.cost(&facts)).unwrap_or_default();
    costs.iter().filter(|(c, _)| matches!(c, Cost::FMA(_))).filter_map(|(_, n)| n.to_usize().ok()).sum::<usize>() as u64
}

fn program_layers(program: &Program) -> impl Iterator<Item = LayerInfo> {
    program.layers.iter().map(|layer| LayerInfo {
        name: layer.name.clone(),
        algorithm: layer.step.algorithm(),
        macs: layer.step.macs(program, layer.output),
        kind: layer.step.kind(),
        shape: program.values[layer.output].shape.into(),
    })
}

/// `[3][pixels]` to `[pixels][3]`.
fn interleaved(values: &[f32], pixels: usize) -> Vec<f32> {
    (0..3 * pixels).map(|i| values[i % 3 * pixels + i / 3]).collect()
}

/// `softmax(scores / temperature)`, by the largest score first, so that nothing overflows.
fn softmax(scores: &[f32], temperature: f32) -> Vec<f32> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = scores.iter().map(|s| ((s - largest) / temperature).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_send<T: Send>() {}

    #[test]
    fn a_model_moves_to_the_inference_thread() {
        assert_send::<Model>();
    }

    #[test]
    fn softmax_sums_to_one_and_follows_the_temperature() {
        let sharp = softmax(&[1000.0, 1001.0, 999.0], 1.0);
        assert!((sharp.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((sharp[1] - 1.0 / (1.0 + (-1f32).exp() + (-2f32).exp())).abs() < 1e-6);
        assert!(softmax(&[0.0, 1.0], 0.1)[1] > softmax(&[0.0, 1.0], 1.0)[1]);
    }

    #[test]
    fn engines_have_names() {
        assert_eq!(Engine::choose(Some("tract")).unwrap(), Engine::Tract);
        assert_eq!(Engine::choose(Some("generic")).unwrap().to_string(), "generic");
        assert!(Engine::choose(Some("gpu")).unwrap_err().to_string().contains("gpu"));
        assert_eq!(Engine::choose(None).unwrap(), Engine::Kernel(Kernel::best()));
    }
}
