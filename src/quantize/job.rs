//! The whole of it, in the order that keeps memory low: the float network moves to tract, photos pass through it, weights become
//! codes, the graph is written, and the photos held back judge it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use prost::Message;
use sha2::{Digest, Sha256};
use tract_onnx::pb::{GraphProto, ModelProto, OperatorSetIdProto};
use tract_onnx::prelude::TractError;

use super::compare::{Comparison, Gathered};
use super::emit::{self, Codes, Quantized};
use super::float_run::{FloatNetwork, Photos, Typed, share};
use super::layers::{Weights, float_layers, layer_names, mean_of, products, release_weights, watched};
use super::roles::{self, Kept, Role, Roles, Wishes};
use super::simplify::simplify;
use super::statistics::{Method, Statistics, codes};
use crate::model::{FloatModel, LoadOptions, Manifest, Model, ModelError, OutputKind};
use crate::preprocess::{InputTensor, Preprocessor};

/// QLinearConv, and a scale an axis, are in the standard from 10 on.
const OLDEST_OPERATOR_SET: i64 = 10;

/// How to quantise.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the codes' ranges are chosen.
    pub method: Method,
    /// Nodes that stay float.
    pub keep_float: Vec<String>,
    /// Quantise the layer that makes the scores, too.
    pub quantize_output: bool,
    /// Correct each bias by what the weights' rounding adds on average.
    pub bias_correction: bool,
    /// Photos calibrated at the same time; all cores when absent.
    pub threads: Option<usize>,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// So many photos will be calibrated.
    Calibrating(usize),
    /// So many photos will be compared.
    Comparing(usize),
    /// One photo is done.
    Photo,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Photos calibrated.
    pub photos: usize,
    /// Layers in codes.
    pub layers: usize,
    /// Nodes that stay float.
    pub kept: Vec<Kept>,
    /// Float against int8 on the photos held back; none when none were.
    pub comparison: Option<Comparison>,
    /// Of the float model, in bytes.
    pub float_bytes: u64,
    /// Of the int8 model, in bytes.
    pub int8_bytes: u64,
    /// Until the model was written.
    pub time: Duration,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The float model, or the one that was made of it, does not load.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A photo or a file.
    #[error("{0}")]
    File(String),
    /// No node is called so.
    #[error("--keep-float {wanted}: the model has no node of this name{near}; `spotter bench --model` lists the names")]
    UnknownNode {
        /// What was asked for.
        wanted: String,
        /// Names like it.
        near: String,
    },
    /// There is nothing to quantise.
    #[error("the model {} has no layer that can be quantised: {reasons}", path.display())]
    Nothing {
        /// Which model.
        path: PathBuf,
        /// Why each stays float.
        reasons: String,
    },
    /// The model is of an operator set that has no quantised layers.
    #[error("the model {} uses operator set {found}; export it with operator set {OLDEST_OPERATOR_SET} or later, best 13", path.display())]
    OperatorSet {
        /// Which model.
        path: PathBuf,
        /// What it imports.
        found: i64,
    },
    /// tract cannot run it.
    #[error("running the float model {}: {detail}", path.display())]
    Run {
        /// Which model.
        path: PathBuf,
        /// What tract said.
        detail: String,
    },
}

/// Quantises `model` by the photos of `calibration` into `output`; compares both on the photos of `held_back`.
///
/// # Errors
/// [`QuantizeError`]. The old file at `output` is then untouched.
pub fn quantize(
    model: &Path,
    calibration: &[PathBuf],
    held_back: &[PathBuf],
    output: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Stage),
) -> Result<Report, QuantizeError> {
    let start = Instant::now();
    super::manifest::check_folder(output).map_err(QuantizeError::File)?;
    let job = Job { path: model, options, threads: threads(options) };
    let FloatModel { mut proto, manifest, layout, bytes: float_bytes } = FloatModel::read(model)?;
    job.check(&mut proto)?;
    let shape = layout.shape(manifest.height, manifest.width);
    let folder = model.parent().and_then(Path::to_str);
    let opset = operator_set(&proto);
    let typed = FloatModel::contained(model, "type-checking it", || Typed::new(&proto, folder, shape))?;
    let shapes = typed.shapes.clone();
    let graph = proto.graph.get_or_insert_default();
    let roles = roles::assign(graph, &shapes, opset, &job.wishes());
    job.check_roles(&roles)?;
    // they are tract's from here on
    let weights = Weights { tensors: typed.weights.clone(), shapes };
    release_weights(graph, &weights, &roles);
    let watched = watched(graph, &roles, &weights.shapes, options.bias_correction);
    let layers = float_layers(graph, &roles, &weights);
    let network = FloatModel::contained(model, "preparing it", || typed.watch(&watched, layers))?;
    let photos = Photos::new(&manifest, layout);
    crate::memory::return_free_memory();
    progress(Stage::Calibrating(calibration.len()));
    let statistics = job.calibrate(&network, &photos, &watched, calibration, progress)?;
    let codes = job.codes(&watched, &statistics, &roles);
    let products = job.products(graph, &roles, &weights, &watched, &statistics);
    let Weights { shapes, tensors } = weights;
    drop(tensors);
    let layers = products.len();
    let names = layer_names(graph, &products, &watched);
    emit::emit(graph, &roles.roles, products.into_iter().collect(), &codes, &shapes);
    seal(&mut proto, shape);
    let onnx = proto.encode_to_vec();
    drop(proto);
    let sha256: String = Sha256::digest(&onnx).iter().map(|b| format!("{b:02x}")).collect();
    let origin = origin(model, calibration.len(), options);
    super::manifest::write(&manifest, output, &onnx, &sha256, &origin).map_err(QuantizeError::File)?;
    let int8_bytes = onnx.len() as u64;
    drop(onnx);
    let time = start.elapsed();
    let comparison = if held_back.is_empty() {
        // it must load all the same; the float network has done its work
        drop(network);
        Model::load_lean(output, &LoadOptions::default())?;
        None
    } else {
        progress(Stage::Comparing(held_back.len()));
        Some(job.compare(&network, &photos, output, &manifest, &names, &watched, &codes, held_back, progress)?)
    };
    Ok(Report { photos: calibration.len(), layers, kept: roles.kept, comparison, float_bytes, int8_bytes, time })
}

fn threads(options: &Options) -> usize {
    options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
}

struct Job<'a> {
    path: &'a Path,
    options: &'a Options,
    threads: usize,
}

impl Job<'_> {
    /// Simplifies the graph, and checks that it is one that can be quantised, and what the user said of it.
    fn check(&self, proto: &mut ModelProto) -> Result<(), QuantizeError> {
        let found = operator_set(proto);
        if found < OLDEST_OPERATOR_SET {
            return Err(QuantizeError::OperatorSet { path: self.path.into(), found });
        }
        let graph = proto.graph.get_or_insert_default();
        simplify(graph);
        // further outputs are nobody's here, as when the model runs
        graph.output.truncate(1);
        for wanted in &self.options.keep_float {
            if !graph.node.iter().any(|n| n.name == *wanted) {
                let lower = wanted.to_lowercase();
                let like = |name: &&str| name.to_lowercase().contains(&lower) || lower.contains(&name.to_lowercase());
                let near: Vec<&str> = graph.node.iter().map(|n| n.name.as_str()).filter(like).take(5).collect();
                let near = if near.is_empty() { String::new() } else { format!("; like it: {}", near.join(", ")) };
                return Err(QuantizeError::UnknownNode { wanted: wanted.clone(), near });
            }
        }
        Ok(())
    }

    fn wishes(&self) -> Wishes {
        let keep_float = self.options.keep_float.iter().cloned().collect();
        Wishes { keep_float, quantize_output: self.options.quantize_output }
    }

    fn check_roles(&self, roles: &Roles) -> Result<(), QuantizeError> {
        if roles.roles.iter().any(|r| matches!(r, Role::Product(_))) {
            return Ok(());
        }
        let reason = |k: &Kept| format!("{} ({}): {}", k.node, k.op, k.why);
        let reasons: Vec<String> = roles.kept.iter().rev().take(5).map(reason).collect();
        Err(QuantizeError::Nothing { path: self.path.into(), reasons: reasons.join("; ") })
    }

    /// The layers with their weights in codes and their biases, corrected where asked for; by node.
    fn products(
        &self,
        graph: &GraphProto,
        roles: &Roles,
        weights: &Weights,
        watched: &[String],
        statistics: &[Statistics],
    ) -> Vec<(usize, Quantized)> {
        let mut made = Vec::new();
        for (index, product) in products(roles) {
            let Some(mut quantized) = weights.quantize(graph, product, self.options.bias_correction) else { continue };
            if self.options.bias_correction {
                let mean_of = mean_of(graph, product, &weights.shapes);
                let seen = watched.iter().position(|w| *w == mean_of).map(|at| statistics[at].means());
                quantized.correct_bias(&seen.unwrap_or_default());
            }
            made.push((index, quantized));
        }
        made
    }

    fn calibrate(
        &self,
        network: &FloatNetwork,
        photos: &Photos,
        watched: &[String],
        files: &[PathBuf],
        progress: &mut dyn FnMut(Stage),
    ) -> Result<Vec<Statistics>, QuantizeError> {
        let means = self.options.bias_correction;
        let workers = share(
            files,
            self.threads,
            || {
                Ok((
                    network.state().map_err(|e| detail(&e))?,
                    photos.clone(),
                    vec![Statistics::default(); watched.len()],
                ))
            },
            |(state, photos, statistics), photo| {
                let input = photos.tensor(photo)?;
                let mut look = |tensor: usize, values: &[f32]| {
                    let added = statistics[tensor].add(values, network.channels[tensor], means);
                    added.map_err(|_| TractError::msg(format!("`{}` has values that are not finite", watched[tensor])))
                };
                let ran = network.run(state, input, &mut look);
                ran.map(drop).map_err(|e| format!("{}: {}", photo.display(), detail(&e)))
            },
            &mut || progress(Stage::Photo),
        );
        let mut merged = vec![Statistics::default(); watched.len()];
        for (_, _, statistics) in workers.map_err(|detail| self.failed(detail))? {
            merged.iter_mut().zip(statistics).for_each(|(to, from)| to.merge(from));
        }
        Ok(merged)
    }

    /// The codes of every quantised tensor.
    fn codes(&self, watched: &[String], statistics: &[Statistics], roles: &Roles) -> Codes {
        let all = (f32::NEG_INFINITY, f32::INFINITY);
        let mut limits: HashMap<&str, (f32, f32)> = roles.quantized.iter().map(|t| (t.as_str(), all)).collect();
        limits.extend(products(roles).map(|(_, p)| (p.output.as_str(), p.limits)));
        let seen = watched.iter().zip(statistics);
        let range = |(tensor, seen): (&String, &Statistics)| {
            let limits = limits.get(tensor.as_str())?;
            Some((tensor.clone(), codes(seen.range(self.options.method, *limits))))
        };
        seen.filter_map(range).collect()
    }

    #[allow(clippy::too_many_arguments)]
    fn compare(
        &self,
        network: &FloatNetwork,
        photos: &Photos,
        output: &Path,
        manifest: &Manifest,
        names: &[(usize, String)],
        watched: &[String],
        codes: &Codes,
        files: &[PathBuf],
        progress: &mut dyn FnMut(Stage),
    ) -> Result<Comparison, QuantizeError> {
        let options = LoadOptions { threads: Some(self.threads), ..LoadOptions::default() };
        let int8 = Model::load_lean(output, &options)?;
        let preprocessor = Preprocessor::new(int8.input(), crate::config::plan::Fit::Crop, Default::default());
        let int8 = Mutex::new((int8, preprocessor));
        // one at a time: the int8 model takes all threads, and memory
        let layers: HashMap<&str, usize> = names.iter().map(|(tensor, name)| (name.as_str(), *tensor)).collect();
        let workers = share(
            files,
            1,
            || Ok((network.state().map_err(|e| detail(&e))?, photos.clone(), Gathered::default())),
            |(state, photos, gathered), photo| {
                let (scores, traced) = int8_run(&int8, photo)?;
                let codes_of: HashMap<usize, &Vec<u8>> =
                    traced.iter().filter_map(|(name, _, codes)| Some((*layers.get(name.as_str())?, codes))).collect();
                let input = photos.tensor(photo)?;
                let mut look = |tensor: usize, values: &[f32]| {
                    if let (Some(found), Some(affine)) = (codes_of.get(&tensor), codes.get(&watched[tensor])) {
                        gathered.layer(tensor, values, found, network.channels[tensor], *affine);
                    }
                    Ok(())
                };
                let float = network.run(state, input, &mut look);
                let float = float.map_err(|e| format!("{}: {}", photo.display(), detail(&e)))?;
                gathered.outputs(&float, &scores);
                Ok(())
            },
            &mut || progress(Stage::Photo),
        );
        let mut merged = Gathered::default();
        workers.map_err(|detail| self.failed(detail))?.into_iter().for_each(|(_, _, gathered)| merged.merge(gathered));
        Ok(merged.finish(manifest.output.kind != OutputKind::Features, names))
    }

    fn failed(&self, detail: String) -> QuantizeError {
        QuantizeError::Run { path: self.path.into(), detail }
    }
}

type Traced = Vec<crate::model::Traced>;

fn int8_run(int8: &Mutex<(Model, Preprocessor)>, photo: &Path) -> Result<(Vec<f32>, Traced), String> {
    let rgb = crate::capture::decode::decode_file(photo).map_err(|e| e.to_string())?;
    let mut input = InputTensor::U8(Vec::new());
    let mut guard = int8.lock().map_err(|_| "another worker died")?;
    let (model, preprocessor) = &mut *guard;
    preprocessor.fill(&rgb, None, &mut input).map_err(|e| format!("{}: {e}", photo.display()))?;
    let failed = |e: ModelError| format!("{}: {e}", photo.display());
    Ok((model.run(&input).map_err(failed)?, model.trace(&input).map_err(failed)?))
}

fn detail(error: &TractError) -> String {
    error.chain().map(|cause| cause.to_string()).collect::<Vec<_>>().join(": ")
}

fn operator_set(proto: &ModelProto) -> i64 {
    let standard = |o: &&OperatorSetIdProto| o.domain.is_empty() || o.domain == "ai.onnx";
    proto.opset_import.iter().find(standard).map_or(0, |o| o.version)
}

/// What the file says of itself: the standard domain only, one picture, who made it.
fn seal(proto: &mut ModelProto, shape: [usize; 4]) {
    use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as Dim};
    use tract_onnx::pb::type_proto::Value as Type;
    let graph = proto.graph.get_or_insert_default();
    let fixed = |d: &usize| Dimension { value: Some(Dim::DimValue(*d as i64)), ..Dimension::default() };
    for input in &mut graph.input {
        if let Some(Type::TensorType(tensor)) = input.r#type.as_mut().and_then(|t| t.value.as_mut()) {
            tensor.shape.get_or_insert_default().dim = shape.iter().map(fixed).collect();
        }
    }
    let used = |domain: &str| graph.node.iter().any(|n| n.domain == domain);
    proto.opset_import.retain(|o| o.domain.is_empty() || o.domain == "ai.onnx" || used(&o.domain));
    proto.producer_name = "spotter".into();
    proto.producer_version = env!("CARGO_PKG_VERSION").into();
    proto.doc_string.clear();
}

fn origin(model: &Path, photos: usize, options: &Options) -> String {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    let corrected = if options.bias_correction { ", biases corrected" } else { "" };
    let version = env!("CARGO_PKG_VERSION");
    format!("{name}, quantised by Spotter {version}: {photos} photos, {}{corrected}", options.method)
}
