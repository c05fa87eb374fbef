//! The taught model as files: one ONNX of standard operators (trunk and head), its manifest, its labels.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use prost::Message;
use sha2::{Digest, Sha256};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dim;
use tract_onnx::pb::type_proto::{Tensor, Value as Type};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};

use super::novelty::SMALLEST;
use super::train::Taught;
use crate::files::write_atomically;
use crate::model::{Manifest, Trunk};
use crate::preprocess::{ChannelOrder, Filter, PreprocessSpec, Resize};

/// What every tensor and node of a head is called first.
const PREFIX: &str = "taught_head";

/// The files of one model, in the order in which they are written: the manifest, which makes a model of them, last.
#[derive(Debug)]
pub struct Export {
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// A photo for the self-test at start, and its class.
#[derive(Clone, Debug)]
pub struct Proof {
    /// JPEG or PNG.
    pub photo: PathBuf,
    /// A label.
    pub class: String,
}

impl Export {
    /// Makes the files of `output` (`NAME.onnx`).
    ///
    /// # Errors
    /// The self-test photo cannot be read, or the path is no file's.
    pub fn new(
        output: &Path,
        trunk: Trunk,
        taught: &Taught,
        labels: &[String],
        proof: &Proof,
    ) -> Result<Export, String> {
        let stem = output.file_stem().ok_or_else(|| format!("{} does not name a file", output.display()))?;
        let stem = stem.to_string_lossy();
        let onnx = graph(trunk.graph, &trunk.features, taught, labels.len())?.encode_to_vec();
        let sha256: String = Sha256::digest(&onnx).iter().map(|b| format!("{b:02x}")).collect();
        let photo = std::fs::read(&proof.photo).map_err(|e| format!("reading {}: {e}", proof.photo.display()))?;
        let extension = proof.photo.extension().map_or("jpg".into(), |e| e.to_string_lossy().to_lowercase());
        let (labels_name, photo_name) = (format!("{stem}-labels.txt"), format!("{stem}-photo.{extension}"));
        let names = Names { labels: &labels_name, photo: &photo_name, class: &proof.class, sha256: &sha256 };
        let manifest = manifest(&trunk.manifest, &trunk.features, &trunk.sha256, &names);
        let beside = |name: &str| output.with_file_name(name);
        let files = vec![
            (beside(&labels_name), (labels.join("\n") + "\n").into_bytes()),
            (beside(&photo_name), photo),
            (output.to_owned(), onnx),
            (Manifest::path_for(output), manifest.into_bytes()),
        ];
        Ok(Export { files })
    }

    /// Writes the files, each whole or not at all.
    ///
    /// # Errors
    /// A file cannot be written; the message names it.
    pub fn write(&self) -> Result<(), String> {
        self.files.iter().try_for_each(|(path, bytes)| write_atomically(path, bytes).map_err(|e| e.to_string()))
    }

    /// The same files in another folder, to try them before they take their place.
    pub fn in_folder(&self, folder: &Path) -> Export {
        let moved =
            |(path, bytes): &(PathBuf, Vec<u8>)| (folder.join(path.file_name().unwrap_or_default()), bytes.clone());
        Export { files: self.files.iter().map(moved).collect() }
    }
}

/// The trunk with the head behind it.
fn graph(mut model: ModelProto, features: &str, taught: &Taught, labels: usize) -> Result<ModelProto, String> {
    let graph = model.graph.as_mut().ok_or("the trunk holds no graph")?;
    let taken = |name: &String| name.starts_with(PREFIX);
    if graph.node.iter().any(|n| n.output.iter().any(taken)) || graph.initializer.iter().any(|i| taken(&i.name)) {
        return Err(format!("the trunk has tensors called {PREFIX}…: teach from the model that it was taught from"));
    }
    let mut head = Writer { graph };
    let flat = head.node("Flatten", &[features], vec![integer("axis", 1)]);
    let (dims, classes) = (taught.head.dims, taught.head.rows.len() / (taught.head.dims + 1));
    let rows = taught.head.rows.chunks_exact(dims + 1);
    let weights: Vec<f32> = rows.clone().flat_map(|row| &row[..dims]).copied().collect();
    let bias: Vec<f32> = rows.map(|row| row[dims]).collect();
    let (weights, bias) = (head.weight("W", &[classes, dims], &weights), head.weight("b", &[classes], &bias));
    let scores = head.node("Gemm", &[&flat, &weights, &bias], vec![integer("transB", 1)]);
    let scores = match &taught.none {
        Some((centres, limit)) => {
            // steepness * (1 - cosine - limit), smallest over the classes: the factor and the constant go into the Gemm
            let steepness = limit.steepness;
            let matrix: Vec<f32> = centres.centres.iter().flatten().map(|c| -steepness * c).collect();
            let constant = vec![steepness * (1.0 - limit.distance); centres.centres.len()];
            let whitening = head.weight("whitening", &[dims, dims], &centres.whitening);
            let offset = head.weight("offset", &[dims], &centres.offset);
            let smallest = head.weight("smallest", &[1, 1], &[SMALLEST]);
            let matrix = head.weight("centres", &[constant.len(), dims], &matrix);
            let constant = head.weight("limit", &[constant.len()], &constant);
            let white = head.node("Gemm", &[&flat, &whitening, &offset], vec![integer("transB", 1)]);
            let squares = head.node("Mul", &[&white, &white], vec![]);
            // without axes (whose place changed with opset 13 and 18) all of them are reduced, to [1, 1]
            let sum = head.node("ReduceSum", &[&squares], vec![integer("keepdims", 1)]);
            let length = head.node("Sqrt", &[&sum], vec![]);
            let length = head.node("Max", &[&length, &smallest], vec![]);
            let direction = head.node("Div", &[&white, &length], vec![]);
            let distances = head.node("Gemm", &[&direction, &matrix, &constant], vec![integer("transB", 1)]);
            let nearest = head.node("ReduceMin", &[&distances], vec![integer("keepdims", 1)]);
            let largest = head.node("ReduceMax", &[&scores], vec![integer("keepdims", 1)]);
            let none = head.node("Add", &[&largest, &nearest], vec![]);
            head.node("Concat", &[&scores, &none], vec![integer("axis", 1)])
        }
        None => scores,
    };
    graph.output = vec![output(&scores, labels)];
    model.producer_name = "spotter".into();
    model.producer_version = env!("CARGO_PKG_VERSION").into();
    Ok(model)
}

struct Writer<'a> {
    graph: &'a mut GraphProto,
}

impl Writer<'_> {
    /// Adds a node; returns its output.
    fn node(&mut self, operator: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let name = format!("{PREFIX}_{}_{operator}", self.graph.node.len());
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: operator.into(),
            attribute,
            ..NodeProto::default()
        });
        name
    }

    /// Adds a constant; returns its name.
    fn weight(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let name = format!("{PREFIX}_{name}");
        self.graph.initializer.push(TensorProto {
            dims: shape.iter().map(|&d| d as i64).collect(),
            data_type: DataType::Float as i32,
            name: name.clone(),
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..TensorProto::default()
        });
        name
    }
}

fn integer(name: &str, value: i64) -> AttributeProto {
    let r#type = tract_onnx::pb::attribute_proto::AttributeType::Int as i32;
    AttributeProto { name: name.into(), i: value, r#type, ..AttributeProto::default() }
}

fn output(name: &str, classes: usize) -> ValueInfoProto {
    let dim = |size: usize| Dimension { value: Some(Dim::DimValue(size as i64)), ..Dimension::default() };
    let shape = Some(TensorShapeProto { dim: vec![dim(1), dim(classes)] });
    let value = Some(Type::TensorType(Tensor { elem_type: DataType::Float as i32, shape }));
    let r#type = Some(TypeProto { value, ..TypeProto::default() });
    ValueInfoProto { name: name.into(), r#type, ..ValueInfoProto::default() }
}

struct Names<'a> {
    labels: &'a str,
    photo: &'a str,
    class: &'a str,
    sha256: &'a str,
}

fn manifest(trunk: &Manifest, features: &str, trunk_sha256: &str, names: &Names) -> String {
    let quoted = |text: &str| toml::Value::String(text.into()).to_string();
    let mut text = String::from("# Written by `spotter teach`.\n\n[input]\n");
    // Writing to a String cannot fail.
    if let Some(name) = &trunk.input_name {
        let _ = writeln!(text, "name = {}", quoted(name));
    }
    let _ = writeln!(text, "size = [{}, {}]", trunk.width, trunk.height);
    let _ = writeln!(text, "preprocess = {}", preprocess(&trunk.preprocess));
    let _ = writeln!(text, "\n[output]\nkind = \"logits\"\nlabels = {}", quoted(names.labels));
    let _ = writeln!(text, "features = {}    # to teach from this model again", quoted(features));
    let _ = writeln!(text, "\n[source]");
    if let Some(licence) = &trunk.source.licence {
        let _ = writeln!(text, "licence = {}", quoted(&format!("the trunk's: {licence}")));
    }
    let origin = format!("a head taught on the trunk with SHA-256 {trunk_sha256}");
    let _ = writeln!(text, "origin = {}\nsha256 = {}", quoted(&origin), quoted(names.sha256));
    let _ = writeln!(text, "photo = {}\nclass = {}", quoted(names.photo), quoted(names.class));
    text
}

fn preprocess(spec: &PreprocessSpec) -> String {
    let resize = match spec.resize {
        Resize::ShorterSide(side) => side.to_string(),
        Resize::Stretch => "\"stretch\"".into(),
    };
    let filter = match spec.filter {
        Filter::Bilinear => "bilinear",
        Filter::Nearest => "nearest",
    };
    let order = match spec.order {
        ChannelOrder::Rgb => "rgb",
        ChannelOrder::Bgr => "bgr",
    };
    // {:?} of a float has as many digits as bring the same float back
    format!(
        "{{ resize = {resize}, order = \"{order}\", mean = {:?}, std = {:?}, scale = {:?}, filter = \"{filter}\" }}",
        spec.mean, spec.std, spec.scale
    )
}
