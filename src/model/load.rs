//! From an ONNX file to a typed tract graph: limits, checks, errors instead of panics.

use std::path::Path;

use prost::Message;
use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::ToDim;

use super::error::ModelError;
use super::files::read_limited;
use super::folding;
use super::limits;
use super::manifest::{Guess, MAX_SIDE, Manifest};
use crate::panics;

/// Float VGG19 has 575 MB. A protobuf message ends at 2 GiB.
const MAX_BYTES: u64 = 1 << 30;
/// No tensor of a network for one picture is larger: VGG16's largest weight, in floats, has 411 MB.
pub(super) const MAX_TENSOR_BYTES: usize = 1 << 30;

/// The layout in which the graph wants its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// `[1][3][height][width]`
    Nchw,
    /// `[1][height][width][3]`, as TensorFlow's converters write it.
    Nhwc,
}

impl Layout {
    /// The shape of one picture.
    pub fn shape(self, height: usize, width: usize) -> [usize; 4] {
        match self {
            Layout::Nchw => [1, 3, height, width],
            Layout::Nhwc => [1, height, width, 3],
        }
    }
}

/// A float model as read: its graph with all weights, to be changed and written again.
pub struct FloatModel {
    /// The file's message.
    pub proto: ModelProto,
    /// The manifest beside it.
    pub manifest: Manifest,
    /// How its picture lies.
    pub layout: Layout,
    /// The file's size.
    pub bytes: u64,
}

impl FloatModel {
    /// Reads the model at `path` and its manifest, with the same limits and checks as a model that is to be run.
    ///
    /// # Errors
    /// The files cannot be read, or are not what they must be.
    pub fn read(path: &Path) -> Result<FloatModel, ModelError> {
        let manifest = manifest(path)?;
        let bytes = read(path)?;
        check_digest(path, &bytes, &manifest)?;
        let length = bytes.len() as u64;
        let proto = parse(path, bytes)?;
        let layout = check_input(path, &proto, &manifest)?;
        Ok(FloatModel { proto, manifest, layout, bytes: length })
    }

    /// Runs what handles such a graph; a panic in it becomes an error.
    ///
    /// # Errors
    /// What `body` says, with the file and what was being done.
    pub fn contained<T>(
        path: &Path,
        doing: &'static str,
        body: impl FnOnce() -> TractResult<T>,
    ) -> Result<T, ModelError> {
        contained(path, doing, body)
    }
}

/// A graph that type-checks and takes one picture.
pub(super) struct Loaded {
    pub(super) model: TypedModel,
    pub(super) layout: Layout,
    /// Elements of the output.
    pub(super) outputs: usize,
}

/// Runs `body`, which handles a file of a stranger's making; a panic in it becomes an error.
pub(super) fn contained<T>(
    path: &Path,
    doing: &'static str,
    body: impl FnOnce() -> TractResult<T>,
) -> Result<T, ModelError> {
    let failed = |detail| ModelError::Graph { path: path.into(), doing, detail };
    match panics::contain(body) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(chain(&error))),
        Err(panic) => Err(failed(format!("the parser gave up: {}", panic.lines().next().unwrap_or_default()))),
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &TractError) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let line = cause.lines().next().unwrap_or_default();
        if !line.is_empty() && !text.ends_with(line) {
            text += if text.is_empty() { "" } else { ": " };
            text.extend(line.chars().take(300));
        }
    }
    text
}

/// Reads the manifest; where there is none, the error shows one that fits the model.
pub(super) fn manifest(path: &Path) -> Result<Manifest, ModelError> {
    match Manifest::beside(path) {
        Err(ModelError::NoManifest { model, manifest, .. }) => {
            // a missing model is the better news
            let bytes = read(path)?;
            let guess = parse(path, bytes).ok().and_then(|proto| guess(&proto)).unwrap_or_default();
            Err(ModelError::NoManifest { model, manifest, template: super::manifest::template(&guess) })
        }
        other => other,
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    let missing =
        "check the model's path; relative paths are relative to the configuration file, or to the current folder";
    read_limited("model", path, MAX_BYTES, missing, "split weights are not needed below 1 GiB: use an int8 model")
}

/// Compares the file with what its manifest promises.
pub(super) fn check_digest(path: &Path, bytes: &[u8], manifest: &Manifest) -> Result<(), ModelError> {
    let Some(expected) = &manifest.source.sha256 else { return Ok(()) };
    let found: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    if found == *expected {
        return Ok(());
    }
    let (model, manifest) = (path.into(), manifest.path.clone());
    Err(ModelError::Digest { model, manifest, expected: expected.clone(), found })
}

/// The file's bytes as a message, with sizes that agree with one another.
pub(super) fn parse(path: &Path, bytes: Vec<u8>) -> Result<ModelProto, ModelError> {
    let broken = |detail: String| ModelError::NotOnnx { path: path.into(), detail };
    // prost itself, and from `Bytes`: tract's reader copies all bytes once more, a slice's each tensor's
    let proto = contained(path, "reading it", || Ok(ModelProto::decode(Bytes::from(bytes))?));
    let proto = proto.map_err(|e| match e {
        ModelError::Graph { detail, .. } => broken(detail),
        other => other,
    })?;
    let graph = proto.graph.as_ref().ok_or_else(|| broken("it holds no graph".into()))?;
    if graph.node.is_empty() || graph.output.is_empty() {
        return Err(broken("its graph is empty".into()));
    }
    limits::check(graph).map_err(broken)?;
    Ok(proto)
}

/// The graph's inputs that are no weights: name and declared axes (0 where open).
fn inputs(proto: &ModelProto) -> Vec<(String, Vec<i64>)> {
    use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dim;
    use tract_onnx::pb::type_proto::Value as Type;
    let Some(graph) = &proto.graph else { return Vec::new() };
    let weight = |name: &str| graph.initializer.iter().any(|i| i.name == name);
    let axes = |input: &tract_onnx::pb::ValueInfoProto| {
        let Some(Type::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
            return Vec::new();
        };
        let dims = tensor.shape.iter().flat_map(|s| &s.dim);
        dims.map(|d| if let Some(Dim::DimValue(v)) = d.value { v } else { 0 }).collect()
    };
    graph.input.iter().filter(|i| !weight(&i.name)).map(|i| (i.name.clone(), axes(i))).collect()
}

fn guess(proto: &ModelProto) -> Option<Guess> {
    let (name, axes) = inputs(proto).into_iter().next()?;
    let side = |axis: &i64| usize::try_from(*axis).ok().filter(|a| (1..=MAX_SIDE).contains(a)).unwrap_or(224);
    let size = match axes.as_slice() {
        [_, 3, height, width] | [_, height, width, 3] => [side(width), side(height)],
        _ => Guess::default().size,
    };
    Some(Guess { name, size })
}

/// Type-checks the graph with a batch of one picture of the manifest's size.
pub(super) fn type_check(path: &Path, proto: &ModelProto, manifest: &Manifest) -> Result<Loaded, ModelError> {
    let layout = check_input(path, proto, manifest)?;
    let (height, width) = (manifest.height, manifest.width);
    let shape = layout.shape(height, width);
    let folder = path.parent().and_then(Path::to_str);
    let model = contained(path, "type-checking it", || {
        let parsed = tract_onnx::onnx().parse(proto, folder)?;
        let mut model = parsed.model.with_input_fact(0, f32::fact(shape).into())?;
        let first = model.output_outlets()?[0];
        model.select_output_outlets(&[first])?;
        folding::check(&mut model, proto.encoded_len() as u64)?;
        model.into_typed()
    })?;
    check_activations(path, &model)?;
    let outputs = output_elements(path, &model)?;
    Ok(Loaded { model, layout, outputs })
}

fn check_input(path: &Path, proto: &ModelProto, manifest: &Manifest) -> Result<Layout, ModelError> {
    let inputs = inputs(proto);
    let fail = |found: String, wanted: String, remedy: &str| {
        Err(ModelError::Input { path: path.into(), found, wanted, remedy: remedy.into() })
    };
    let [(name, axes)] = inputs.as_slice() else {
        let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
        let found = format!("{} inputs ({})", inputs.len(), names.join(", "));
        return fail(found, "Spotter feeds one picture".into(), "export the network with one input");
    };
    if let Some(wanted) = manifest.input_name.as_ref().filter(|wanted| *wanted != name) {
        let remedy = format!(
            "correct [input] name in {}, or check that the manifest belongs to this model",
            manifest.path.display()
        );
        return fail(format!("the input `{name}`"), format!("its manifest names `{wanted}`"), &remedy);
    }
    let (height, width) = (manifest.height as i64, manifest.width as i64);
    let open = |axis: i64, size: i64| axis <= 0 || axis == size;
    let found = format!("`{name}` of the shape {axes:?}");
    let remedy = format!("correct [input] size in {}, or export the network for that size", manifest.path.display());
    match axes.as_slice() {
        [] => Ok(Layout::Nchw),
        &[batch, channels, h, w] if open(batch, 1) && open(channels, 3) && w != 3 => {
            if open(h, height) && open(w, width) {
                return Ok(Layout::Nchw);
            }
            fail(
                found,
                format!("its manifest says {width} x {height} pixels (shape [1, 3, {height}, {width}])"),
                &remedy,
            )
        }
        &[batch, h, w, 3] if open(batch, 1) => {
            if open(h, height) && open(w, width) {
                return Ok(Layout::Nhwc);
            }
            fail(
                found,
                format!("its manifest says {width} x {height} pixels (shape [1, {height}, {width}, 3])"),
                &remedy,
            )
        }
        _ => fail(
            found,
            format!("a colour picture is [1, 3, {height}, {width}]"),
            "Spotter feeds one picture of three channels at a time: export the network with a batch of 1 (or open) and 3 channels",
        ),
    }
}

/// A graph may ask for any size; the board has little memory.
fn check_activations(path: &Path, model: &TypedModel) -> Result<(), ModelError> {
    for node in model.nodes() {
        for output in &node.outputs {
            let Some(shape) = output.fact.shape.as_concrete() else { continue };
            let bytes = shape.iter().try_fold(output.fact.datum_type.size_of(), |p, &d| p.checked_mul(d));
            if bytes.is_none_or(|b| b > MAX_TENSOR_BYTES) {
                let detail =
                    format!("its node `{}` makes a tensor of the shape {shape:?}, which is too large", node.name);
                return Err(ModelError::Graph { path: path.into(), doing: "type-checking it", detail });
            }
        }
    }
    Ok(())
}

fn output_elements(path: &Path, model: &TypedModel) -> Result<usize, ModelError> {
    let fail = |detail: String| ModelError::Graph { path: path.into(), doing: "looking at its output", detail };
    let fact = model.output_fact(0).map_err(|e| fail(chain(&e)))?;
    let shape = fact.shape.as_concrete().ok_or_else(|| fail(format!("its shape {:?} is not fixed", fact.shape)))?;
    let elements: usize = shape.iter().product();
    if elements == 0 || fact.shape.volume() != elements.to_dim() {
        return Err(fail(format!("its shape {shape:?} has no elements")));
    }
    if !fact.datum_type.is_number() {
        return Err(fail(format!("it holds {:?}, not numbers", fact.datum_type)));
    }
    Ok(elements)
}
