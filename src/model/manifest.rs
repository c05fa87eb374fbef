//! The manifest beside a model: `NAME.toml` beside `NAME.onnx` says how pixels become the model's input and what its
//! outputs mean. `models/README.md` describes every key.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::error::{ModelError, Problem, Problems};
use super::files::read_limited;
use super::labels::Labels;
use super::toml_reader::{Reader, Table, Value};
use crate::preprocess::{ChannelOrder, Filter, PreprocessSpec, Resize};

/// A manifest is a page of text.
const MAX_BYTES: u64 = 64 << 10;
/// The largest side of an input picture.
pub const MAX_SIDE: usize = 4096;

/// ImageNet's means and standard deviations in 0..=1, RGB, as torchvision's models use them.
const TORCHVISION: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
/// ImageNet's means in 0..=255, BGR, as Keras's "caffe" mode subtracts them.
const KERAS_CAFFE: [f32; 3] = [103.939, 116.779, 123.68];

/// What a manifest says.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The manifest's own path.
    pub path: PathBuf,
    /// The name of the graph's input, for checking.
    pub input_name: Option<String>,
    /// Width of the input in pixels.
    pub width: usize,
    /// Height of the input in pixels.
    pub height: usize,
    /// How pixels become the model's input.
    pub preprocess: PreprocessSpec,
    /// What the outputs mean.
    pub output: OutputSpec,
    /// Where the model comes from.
    pub source: SourceSpec,
}

/// `[output]`
#[derive(Clone, Debug, PartialEq)]
pub struct OutputSpec {
    /// What the numbers are.
    pub kind: OutputKind,
    /// One label a line; resolved against the manifest's folder.
    pub labels: Option<PathBuf>,
    /// The tensor of the graph that a head can be taught on.
    pub features: Option<String>,
    /// `softmax(scores / temperature)`; above 1 makes a model less sure of itself, below 1 more.
    pub temperature: f32,
}

/// What a model's outputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// Scores before softmax.
    Logits,
    /// Probabilities: they are shown as they are.
    Probabilities,
    /// No classes but features, to teach a head on.
    Features,
}

/// `[source]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceSpec {
    /// The licence of the weights.
    pub licence: Option<String>,
    /// Where the weights come from.
    pub origin: Option<String>,
    /// SHA-256 of the ONNX file, 64 lower-case hexadecimal digits; checked at load.
    pub sha256: Option<String>,
    /// A photo for the self-test and the class that it must get.
    pub self_test: Option<SelfTest>,
}

/// A photo and what the model must see in it.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfTest {
    /// Resolved against the manifest's folder.
    pub photo: PathBuf,
    /// A label or an index.
    pub class: String,
}

impl Manifest {
    /// Where the manifest of a model is: `NAME.toml` beside `NAME.onnx`.
    pub fn path_for(model: &Path) -> PathBuf {
        model.with_extension("toml")
    }

    /// Reads and checks the manifest beside a model; the network itself is not touched.
    pub fn beside(model: &Path) -> Result<Manifest, ModelError> {
        let path = Manifest::path_for(model);
        if !path.exists() {
            return Err(ModelError::NoManifest {
                model: model.into(),
                manifest: path,
                template: template(&Guess::default()),
            });
        }
        let bytes =
            read_limited("manifest", &path, MAX_BYTES, "check its permissions", "a manifest is a page of text")?;
        let text = String::from_utf8_lossy(&bytes);
        Manifest::parse(&path, &text).map_err(ModelError::Manifest)
    }

    /// Parses a manifest; `path` is for messages and for resolving the paths in it. All problems are reported, not the first.
    pub fn parse(path: &Path, text: &str) -> Result<Manifest, Problems> {
        let mut reader = Reader::new(path, text);
        let manifest = parse(&mut reader, path);
        reader.finish()?;
        manifest.ok_or_else(|| {
            Problems(vec![Problem {
                file: path.into(),
                line: 1,
                key: String::new(),
                problem: "is not a manifest".into(),
                remedy: format!("start from this one:\n\n{}", template(&Guess::default())),
            }])
        })
    }

    /// The labels that the manifest names, if it names any.
    pub fn labels(&self) -> Result<Option<Labels>, ModelError> {
        self.output.labels.as_deref().map(Labels::load).transpose()
    }
}

fn parse(reader: &mut Reader, path: &Path) -> Option<Manifest> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut root = reader.root()?;
    let input =
        root.required(reader, "input", "add a section [input] with size and preprocess").and_then(|v| v.table(reader));
    let output = root.required(reader, "output", "add a section [output] with kind").and_then(|v| v.table(reader));
    let source = root.optional("source").and_then(|v| v.table(reader));
    root.nothing_else(reader, &["input", "output", "source"]);
    let input = input.and_then(|table| parse_input(reader, table));
    let output = output.and_then(|table| parse_output(reader, table, folder));
    let source = source.map(|table| parse_source(reader, table, folder)).unwrap_or_default();
    let (input_name, [width, height], preprocess) = input?;
    Some(Manifest { path: path.into(), input_name, width, height, preprocess, output: output?, source })
}

type Input = (Option<String>, [usize; 2], PreprocessSpec);

fn parse_input(reader: &mut Reader, mut table: Table) -> Option<Input> {
    let name = table.optional("name").and_then(|v| v.text(reader));
    let size = table
        .required(reader, "size", "write size = [width, height] in pixels, as in size = [224, 224]")
        .and_then(|v| parse_size(reader, v));
    let preprocess = table.required(
        reader,
        "preprocess",
        "write preprocess = \"torchvision\", \"keras-caffe\", \"keras-tf\", or a table",
    );
    table.nothing_else(reader, &["name", "size", "preprocess"]);
    // checked even when the size is wrong, so that all problems are seen at once
    let preprocess = parse_preprocess(reader, preprocess?, size)?;
    Some((name, size?, preprocess))
}

fn parse_size(reader: &mut Reader, value: Value) -> Option<[usize; 2]> {
    let sides = value.integers::<2>(reader)?;
    if sides.iter().any(|&s| s < 1 || s > MAX_SIDE as i64) {
        reader.problem(
            &value,
            "a side is out of range",
            format!("write [width, height] in pixels, each 1 to {MAX_SIDE}"),
        );
        return None;
    }
    Some(sides.map(|s| s as usize))
}

fn parse_preprocess(reader: &mut Reader, value: Value, size: Option<[usize; 2]>) -> Option<PreprocessSpec> {
    if !value.is_text() {
        let table = value.table(reader)?;
        return parse_preprocess_table(reader, table, size);
    }
    let name = value.text(reader)?;
    let preset = preset(&name, size.unwrap_or([224, 224]));
    if preset.is_none() {
        let remedy =
            "write \"torchvision\", \"keras-caffe\", \"keras-tf\", or a table with resize, order, mean, std, scale";
        reader.problem(&value, format!("`{name}` is no preprocessing that Spotter knows"), remedy);
    }
    preset
}

/// The conventions of widely used model collections.
fn preset(name: &str, size: [usize; 2]) -> Option<PreprocessSpec> {
    let spec = match name {
        // 256 for a crop of 224, and in proportion for others
        "torchvision" => PreprocessSpec {
            resize: Resize::ShorterSide((size[0].min(size[1]) * 8).div_ceil(7) as u32),
            filter: Filter::Bilinear,
            order: ChannelOrder::Rgb,
            scale: 1.0 / 255.0,
            mean: TORCHVISION.0,
            std: TORCHVISION.1,
        },
        "keras-caffe" => PreprocessSpec {
            resize: Resize::Stretch,
            filter: Filter::Bilinear,
            order: ChannelOrder::Bgr,
            scale: 1.0,
            mean: KERAS_CAFFE,
            std: [1.0; 3],
        },
        // x / 127.5 - 1
        "keras-tf" => PreprocessSpec {
            resize: Resize::Stretch,
            filter: Filter::Bilinear,
            order: ChannelOrder::Rgb,
            scale: 1.0 / 127.5,
            mean: [1.0; 3],
            std: [1.0; 3],
        },
        _ => return None,
    };
    Some(spec)
}

const PREPROCESS_KEYS: [&str; 7] = ["resize", "crop", "order", "mean", "std", "scale", "filter"];

fn parse_preprocess_table(reader: &mut Reader, mut table: Table, size: Option<[usize; 2]>) -> Option<PreprocessSpec> {
    let resize = table.optional("resize");
    let crop = table.optional("crop");
    let order =
        table.optional("order").map(|v| v.one_of(reader, &[("rgb", ChannelOrder::Rgb), ("bgr", ChannelOrder::Bgr)]));
    let filter = table
        .optional("filter")
        .map(|v| v.one_of(reader, &[("bilinear", Filter::Bilinear), ("nearest", Filter::Nearest)]));
    let mean = table.optional("mean").map(|v| v.floats::<3>(reader));
    let std = table.optional("std").map(|v| parse_nonzero(reader, v));
    let scale = table.optional("scale").map(|v| parse_scale(reader, v));
    table.nothing_else(reader, &PREPROCESS_KEYS);
    let resize = resize.map_or(Some(Resize::Stretch), |v| parse_resize(reader, v, size));
    let cropped = crop.is_none_or(|v| parse_crop(reader, v, size, resize));
    let spec = PreprocessSpec {
        resize: resize?,
        filter: filter.unwrap_or(Some(Filter::Bilinear))?,
        order: order.unwrap_or(Some(ChannelOrder::Rgb))?,
        scale: scale.unwrap_or(Some(1.0))?,
        mean: mean.unwrap_or(Some([0.0; 3]))?,
        std: std.unwrap_or(Some([1.0; 3]))?,
    };
    cropped.then_some(spec)
}

fn parse_nonzero(reader: &mut Reader, value: Value) -> Option<[f32; 3]> {
    let std = value.floats::<3>(reader)?;
    if std.iter().any(|&s| s <= 0.0) {
        reader.problem(&value, "a standard deviation is not above 0", "write three positive numbers");
        return None;
    }
    Some(std)
}

fn parse_scale(reader: &mut Reader, value: Value) -> Option<f32> {
    let scale = value.float(reader)?;
    if scale <= 0.0 {
        reader.problem(&value, "is not above 0", "write 1.0 for pixels in 0 to 255, 0.00392156862745098 for 0 to 1");
        return None;
    }
    Some(scale)
}

fn parse_resize(reader: &mut Reader, value: Value, size: Option<[usize; 2]>) -> Option<Resize> {
    if value.is_text() {
        return value.one_of(reader, &[("stretch", Resize::Stretch)]);
    }
    let side = value.integer(reader)?;
    let smallest = size.map_or(1, |[width, height]| width.max(height));
    if side < smallest as i64 || side > MAX_SIDE as i64 {
        let remedy = format!("write the shorter side in pixels, {smallest} to {MAX_SIDE}, or \"stretch\"");
        reader.problem(&value, "the shorter side after the resize is out of range", remedy);
        return None;
    }
    Some(Resize::ShorterSide(side as u32))
}

/// `crop` says again what `size` says; it must not say something else.
fn parse_crop(reader: &mut Reader, value: Value, size: Option<[usize; 2]>, resize: Option<Resize>) -> bool {
    let crop = if value.is_integer() { value.integer(reader).map(|c| [c, c]) } else { value.integers::<2>(reader) };
    let Some(crop) = crop else { return false };
    if size.is_some_and(|size| crop != size.map(|s| s as i64)) {
        reader.problem(&value, "differs from [input] size", "leave crop out: the crop is the model's size");
        return false;
    }
    if resize == Some(Resize::Stretch) {
        reader.problem(&value, "has no meaning without resize", "add resize = 256, or leave crop out");
        return false;
    }
    true
}

fn parse_output(reader: &mut Reader, mut table: Table, folder: &Path) -> Option<OutputSpec> {
    const KINDS: [(&str, OutputKind); 3] = [
        ("logits", OutputKind::Logits),
        ("probabilities", OutputKind::Probabilities),
        ("features", OutputKind::Features),
    ];
    let kind = table
        .required(reader, "kind", "write kind = \"logits\" (before softmax), \"probabilities\" or \"features\"")
        .and_then(|v| v.one_of(reader, &KINDS));
    let labels = table.optional("labels").and_then(|v| v.text(reader)).map(|l| folder.join(l));
    let features = table.optional("features").and_then(|v| v.text(reader));
    let temperature = table.optional("temperature").map(|v| parse_temperature(reader, v));
    table.nothing_else(reader, &["kind", "labels", "features", "temperature"]);
    Some(OutputSpec { kind: kind?, labels, features, temperature: temperature.unwrap_or(Some(1.0))? })
}

fn parse_temperature(reader: &mut Reader, value: Value) -> Option<f32> {
    let temperature = value.float(reader)?;
    if !(1e-3..=1e3).contains(&temperature) {
        reader.problem(&value, "is out of range", "write a number from 0.001 to 1000; 1.0 changes nothing");
        return None;
    }
    Some(temperature)
}

fn parse_source(reader: &mut Reader, mut table: Table, folder: &Path) -> SourceSpec {
    let licence = table.optional("licence").and_then(|v| v.text(reader));
    let origin = table.optional("origin").and_then(|v| v.text(reader));
    let sha256 = table.optional("sha256").and_then(|v| parse_sha256(reader, v));
    let photo = table.optional("photo");
    let class = table.optional("class");
    table.nothing_else(reader, &["licence", "origin", "sha256", "photo", "class"]);
    let self_test = match (photo, class) {
        (Some(photo), Some(class)) => {
            let (photo, class) = (photo.text(reader), class.text(reader));
            photo.zip(class).map(|(photo, class)| SelfTest { photo: folder.join(photo), class })
        }
        (Some(lonely), None) | (None, Some(lonely)) => {
            reader.problem(&lonely, "stands alone", "give both photo and class, or neither");
            None
        }
        (None, None) => None,
    };
    SourceSpec { licence, origin, sha256, self_test }
}

fn parse_sha256(reader: &mut Reader, value: Value) -> Option<String> {
    let digest = value.text(reader)?.to_ascii_lowercase();
    if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
        reader.problem(&value, "is not 64 hexadecimal digits", "write what `sha256sum MODEL.onnx` prints first");
        return None;
    }
    Some(digest)
}

/// What is known of a model without a manifest.
#[derive(Clone, Debug)]
pub(super) struct Guess {
    /// The graph's input.
    pub(super) name: String,
    /// Width and height.
    pub(super) size: [usize; 2],
}

impl Default for Guess {
    fn default() -> Guess {
        Guess { name: "input".into(), size: [224, 224] }
    }
}

/// A manifest to start from.
pub(super) fn template(guess: &Guess) -> String {
    let mut text = String::new();
    let [width, height] = guess.size;
    let name = toml::Value::String(guess.name.clone());
    let _ = write!(
        text,
        r#"[input]
name = {name}
size = [{width}, {height}]             # width, height
preprocess = "torchvision"    # correct me: "torchvision", "keras-caffe", "keras-tf", or a table, applied as (pixel * scale - mean) / std:
# preprocess = {{ resize = 256, order = "bgr", mean = [103.939, 116.779, 123.68], std = [1.0, 1.0, 1.0], scale = 1.0 }}

[output]
kind = "logits"               # correct me: "logits" (before softmax), "probabilities" or "features"
# labels = "labels.txt"       # one a line, in the order of the outputs; without it, classes are named by index
temperature = 1.0
"#
    );
    text
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
