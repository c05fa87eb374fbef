//! A model that is loaded and runs: tract's plan with our programs in it.

use std::fmt;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tract_onnx::prelude::{Framework, InferenceModelExt};
use tract_onnx::tract_core::internal::*;

use super::error::ModelError;
use super::files::read_limited;
use super::labels::Labels;
use super::lower::{self, Foreign, Image, Lowered};
use super::manifest::{Manifest, OutputKind};
use super::program::{RunState, Watch};
use crate::kernels::{Kernel, Pool};
use crate::panics;
use crate::preprocess::{InputSpec, InputTensor, TensorFormat};

/// The largest model file: VGG19 in float has 575 MB.
const MAX_MODEL: u64 = 2 << 30;
/// The engine's name that keeps every node on tract's own operators.
const TRACT: &str = "tract";

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// A kernel by name, or `tract` for tract's own operators; the CPU's best one when absent.
    pub engine: Option<String>,
    /// Threads of the kernel pool; all cores when absent.
    pub threads: Option<usize>,
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
        let manifest = Manifest::beside(model)?;
        let labels = manifest.labels()?;
        Ok(Self { manifest, labels })
    }
}

/// One layer, for `bench`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerInfo {
    /// The graph's node.
    pub name: String,
    /// Which kernel runs it.
    pub algorithm: String,
    /// Multiplications with addition.
    pub macs: u64,
}

/// What loading found.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// The kernel's name, or `tract`.
    pub kernel: String,
    /// Threads that work on a layer.
    pub threads: usize,
    /// From the file to ready.
    pub time: Duration,
    /// Layers that run on our kernels.
    pub lowered: usize,
    /// Nodes that stay on tract's operators.
    pub foreign: Vec<Foreign>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kernel, threads, time) = (&self.kernel, self.threads, self.time.as_secs_f64());
        write!(f, "kernel {kernel}, {threads} threads, loaded in {time:.2} s, {} layers ours", self.lowered)?;
        write!(f, ", {} on tract's operators", self.foreign.len())
    }
}

/// A model that is ready to run.
pub struct Model {
    path: PathBuf,
    manifest: Manifest,
    labels: Labels,
    input: InputSpec,
    shape: Vec<usize>,
    state: TypedSimpleState,
    programs: Vec<Arc<super::program::Program>>,
    report: LoadReport,
}

/// An 8-bit tensor that a layer made: its name; height, width and channels; NHWC codes.
pub type Traced = (String, [usize; 3], Vec<u8>);

/// Runs one of our programs in its state.
type RunProgram<'a> = dyn FnMut(&mut RunState, &[TValue]) -> TractResult<TVec<TValue>> + 'a;

type TypedSimpleState = SimpleState<TypedFact, Box<dyn TypedOp>>;

impl Model {
    /// Reads the model and its manifest, lowers what our kernels can run, and makes it ready.
    ///
    /// # Errors
    /// [`ModelError`]: a file that is missing, damaged, too large or not what the manifest says; an unknown kernel.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, ModelError> {
        Self::load_with(path, options, true)
    }

    fn load_with(path: &Path, options: &LoadOptions, fuse_pools: bool) -> Result<Self, ModelError> {
        let started = Instant::now();
        let ModelFiles { manifest, labels } = ModelFiles::beside(path)?;
        let missing = "check the path in [model] and the file's permissions";
        let bytes = read_limited("model", path, MAX_MODEL, missing, "is it a classifier?")?;
        check_digest(path, &manifest, &bytes)?;
        let mut graph = contained(path, "reading it", || parse(&bytes, &manifest))?
            .map_err(|e| ModelError::NotOnnx { path: path.into(), detail: causes(&e) })?;
        drop(bytes);
        let classes = classes(path, &graph)?;
        let labels = check_labels(path, &manifest, labels, classes)?;

        let tract_only = options.engine.as_deref() == Some(TRACT);
        let kernel = match options.engine.as_deref() {
            None | Some(TRACT) => Kernel::best(),
            Some(name) => name.parse()?,
        };
        let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let unusable = |doing| move |e: TractError| ModelError::Graph { path: path.into(), doing, detail: causes(&e) };
        let lowered = if tract_only {
            Lowered::default()
        } else {
            let options = lower::Options { kernel, pool: Arc::new(Pool::new(threads)), fuse_pools };
            contained(path, "lowering it", || lower::lower(&mut graph, &options))?.map_err(unusable("lowering it"))?
        };
        let shape = input_shape(&graph).map_err(unusable("looking at its input"))?;
        let input = input_spec(&manifest, lowered.image);
        let state = contained(path, "optimising it", || graph.into_optimized()?.into_runnable()?.spawn())?
            .map_err(unusable("optimising it"))?;
        let report = LoadReport {
            kernel: if tract_only { TRACT.to_owned() } else { kernel.to_string() },
            threads: if tract_only { 1 } else { threads },
            time: started.elapsed(),
            lowered: lowered.programs.iter().map(|p| p.layers.len()).sum(),
            foreign: lowered.foreign,
        };
        for node in report.foreign.iter().filter_map(|n| n.why.map(|why| (&n.name, why))) {
            log::info!("{}: {} runs on tract's operator: {}", path.display(), node.0, node.1);
        }
        let programs = lowered.programs;
        Ok(Self { path: path.into(), manifest, labels, input, shape, state, programs, report })
    }

    /// What the model takes, and how pixels get there.
    pub fn input(&self) -> &InputSpec {
        &self.input
    }

    /// The classes' names.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The manifest beside the model.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How loading went.
    pub fn load_report(&self) -> &LoadReport {
        &self.report
    }

    /// The layers that run on our kernels, in order.
    pub fn layers(&self) -> Vec<LayerInfo> {
        let of = |program: &Arc<super::program::Program>| {
            let info = |layer: &super::program::Layer| LayerInfo {
                name: layer.name.clone(),
                algorithm: layer.step.algorithm(),
                macs: layer.step.macs(program, layer.output),
            };
            program.layers.iter().map(info).collect::<Vec<_>>()
        };
        self.programs.iter().flat_map(of).collect()
    }

    /// Runs the network: one score a class (or feature), unnormalised.
    ///
    /// # Errors
    /// The tensor is not the one of [`Self::input`], or the network failed.
    pub fn run(&mut self, input: &InputTensor) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(input)?;
        let failed = |e: TractError| ModelError::Run { path: self.path.clone(), detail: causes(&e) };
        let outputs = self.state.run(tvec!(tensor.into_tvalue())).map_err(failed)?;
        floats(&outputs[0]).map_err(failed)
    }

    /// Runs the network and gives the time of each layer of [`Self::layers`] beside the scores.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_timed(&mut self, input: &InputTensor) -> Result<(Vec<f32>, Vec<Duration>), ModelError> {
        let mut times = Vec::new();
        let scores = self.run_watched(input, &mut |state, inputs| state.run(inputs, Watch::Times(&mut times)))?;
        Ok((scores, times))
    }

    /// Runs the network and gives every 8-bit tensor that a layer made: name, height, width and channels, NHWC codes.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn trace(&mut self, input: &InputTensor) -> Result<Vec<Traced>, ModelError> {
        let mut codes = Vec::new();
        self.run_watched(input, &mut |state, inputs| state.run(inputs, Watch::Codes(&mut codes)))?;
        Ok(codes)
    }

    fn run_watched(&mut self, input: &InputTensor, ours: &mut RunProgram<'_>) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(input)?;
        let failed = |e: TractError| ModelError::Run { path: self.path.clone(), detail: causes(&e) };
        let outputs = self
            .state
            .run_plan_with_eval(tvec!(tensor.into_tvalue()), |turn, mut state, node, inputs| {
                match state.as_deref_mut().and_then(|s| s.downcast_mut::<RunState>()) {
                    Some(run) => ours(run, &inputs),
                    None => tract_onnx::tract_core::plan::eval(turn, state, node, inputs),
                }
            })
            .map_err(failed)?;
        floats(&outputs[0]).map_err(failed)
    }

    /// Probabilities from scores: `softmax(scores / temperature)`, or the scores where they are probabilities or
    /// features already.
    pub fn probabilities(&self, scores: &[f32]) -> Vec<f32> {
        match self.manifest.output.kind {
            OutputKind::Logits => softmax(scores, self.manifest.output.temperature),
            OutputKind::Probabilities | OutputKind::Features => scores.to_vec(),
        }
    }

    fn tensor(&self, input: &InputTensor) -> Result<Tensor, ModelError> {
        let failed = |e: TractError| ModelError::Run { path: self.path.clone(), detail: causes(&e) };
        let elements: usize = self.shape.iter().product();
        let mismatch = |kind: &str, found: usize| ModelError::Tensor {
            wanted: format!("{elements} elements as {:?}", self.input.format),
            found: format!("{found} {kind}"),
        };
        match (input, self.input.format) {
            (InputTensor::U8(codes), TensorFormat::U8Nhwc { .. }) if codes.len() == elements => {
                Tensor::from_shape(&self.shape, codes).map_err(failed)
            }
            (InputTensor::F32(values), TensorFormat::F32Nchw) if values.len() == elements => {
                Tensor::from_shape(&self.shape, values).map_err(failed)
            }
            (InputTensor::U8(codes), _) => Err(mismatch("codes", codes.len())),
            (InputTensor::F32(values), _) => Err(mismatch("floats", values.len())),
        }
    }
}

/// `softmax(scores / temperature)`, stable: the largest score is subtracted first.
fn softmax(scores: &[f32], temperature: f32) -> Vec<f32> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = scores.iter().map(|s| ((s - largest) / temperature).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

fn floats(tensor: &Tensor) -> TractResult<Vec<f32>> {
    let cast = tensor.cast_to::<f32>()?;
    Ok(cast.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
}

/// Runs a step of tract's on untrusted bytes: a panic in it is an error.
fn contained<R>(path: &Path, doing: &'static str, work: impl FnOnce() -> R) -> Result<R, ModelError> {
    panics::contain(work).map_err(|detail| ModelError::Graph { path: path.into(), doing, detail })
}

fn parse(bytes: &[u8], manifest: &Manifest) -> TractResult<TypedModel> {
    let shape = [1, 3, manifest.height, manifest.width];
    let model = tract_onnx::onnx().model_for_read(&mut Cursor::new(bytes))?;
    ensure!(!model.inputs.is_empty() && !model.outputs.is_empty(), "the graph has no input or no output");
    model.with_input_fact(0, f32::fact(shape).into())?.into_typed()
}

fn classes(path: &Path, graph: &TypedModel) -> Result<usize, ModelError> {
    let detail =
        |e: TractError| ModelError::Graph { path: path.into(), doing: "looking at its output", detail: causes(&e) };
    let fact = graph.output_fact(0).map_err(detail)?;
    let shape = fact.shape.as_concrete().map(<[usize]>::to_vec);
    match shape {
        Some(shape) => Ok(shape.iter().product()),
        None => Err(detail(format_err!("its output has the unknown shape {:?}", fact.shape))),
    }
}

fn check_labels(
    path: &Path,
    manifest: &Manifest,
    labels: Option<Labels>,
    classes: usize,
) -> Result<Labels, ModelError> {
    let Some(labels) = labels else { return Ok(Labels::numbered(classes)) };
    if labels.len() == classes {
        return Ok(labels);
    }
    Err(ModelError::LabelCount {
        model: path.into(),
        manifest: manifest.path.clone(),
        file: labels.file().unwrap_or(Path::new("")).into(),
        classes,
        labels: labels.len(),
    })
}

fn check_digest(path: &Path, manifest: &Manifest, bytes: &[u8]) -> Result<(), ModelError> {
    let Some(expected) = &manifest.source.sha256 else { return Ok(()) };
    let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let (model, manifest) = (path.into(), manifest.path.clone());
    Err(ModelError::Digest { model, manifest, expected: expected.clone(), found })
}

fn input_shape(graph: &TypedModel) -> TractResult<Vec<usize>> {
    let fact = graph.input_fact(0)?;
    Ok(fact.shape.as_concrete().context("its input has an unknown shape")?.to_vec())
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

/// An error with its causes, the innermost last.
fn causes(error: &TractError) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::softmax;

    #[test]
    fn softmax_sums_to_one_and_a_low_temperature_sharpens_it() {
        let plain = softmax(&[1.0, 2.0, 1000.0, 999.0], 1.0);
        assert!((plain.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{plain:?}");
        assert!((plain[2] - 0.731_058_6).abs() < 1e-5, "{plain:?}");
        assert!(softmax(&[1.0, 2.0], 0.5)[1] > softmax(&[1.0, 2.0], 1.0)[1]);
    }
}
