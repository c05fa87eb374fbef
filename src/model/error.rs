//! What goes wrong with a model, for the person who reads it at night.

use std::fmt;
use std::path::PathBuf;

/// Everything that this room reports.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read.
    #[error("cannot read the {what} {}: {source}; {remedy}", path.display())]
    Read {
        /// `model`, `manifest` or `labels file`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to try.
        remedy: String,
    },
    /// A file is above the limit that protects the board's memory.
    #[error("the {what} {} has {bytes} bytes, above the limit of {limit}; {remedy}", path.display())]
    TooLarge {
        /// `model`, `manifest` or `labels file`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
        /// What to try.
        remedy: &'static str,
    },
    /// The model has no manifest beside it.
    #[error(
        "the model {} has no manifest: {} does not exist. A manifest says how a picture becomes the model's input. \
         Start from this one, and correct what is marked:\n\n{template}",
        model.display(),
        manifest.display()
    )]
    NoManifest {
        /// The ONNX file.
        model: PathBuf,
        /// Where the manifest was looked for.
        manifest: PathBuf,
        /// A manifest to start from.
        template: String,
    },
    /// The manifest says things that it may not say; all of them.
    #[error("{0}")]
    Manifest(Problems),
    /// The labels file is not one label a line.
    #[error("the labels file {}{}: {problem}; {remedy}", path.display(), line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Labels {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
        /// What to try.
        remedy: &'static str,
    },
    /// A preference for a layer that is not there.
    #[error(
        "the model {} has no convolution `{layer}` on Spotter's kernels; name a kind (depthwise, 3x3, 3x3-narrow, other) or one of: {}",
        path.display(),
        known.join(", ")
    )]
    UnknownLayer {
        /// The ONNX file.
        path: PathBuf,
        /// What was asked for.
        layer: String,
        /// The convolutions that there are.
        known: Vec<String>,
    },
    /// The manifest promises another file.
    #[error(
        "the model {} is not the file that its manifest {} describes: [source] sha256 says {expected}, the file has {found}; \
         the download may be incomplete, or the manifest belongs to another version: get the right file, or correct the manifest",
        model.display(),
        manifest.display()
    )]
    Digest {
        /// The ONNX file.
        model: PathBuf,
        /// Its manifest.
        manifest: PathBuf,
        /// In hexadecimal.
        expected: String,
        /// In hexadecimal.
        found: String,
    },
    /// The file is no ONNX model, or a damaged one.
    #[error("the model {} is not a readable ONNX file: {detail}; it may be truncated: compare its size and SHA-256 with the original", path.display())]
    NotOnnx {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        detail: String,
    },
    /// The graph is readable but cannot be run.
    #[error("the model {} cannot be used while {doing}: {detail}", path.display())]
    Graph {
        /// Which file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What went wrong, the innermost cause last.
        detail: String,
    },
    /// The graph's input is not what the manifest promises, or nothing that a camera can fill.
    #[error("the model {} takes {found}, but {wanted}; {remedy}", path.display())]
    Input {
        /// Which file.
        path: PathBuf,
        /// The graph's input.
        found: String,
        /// What would fit.
        wanted: String,
        /// What to try.
        remedy: String,
    },
    /// The number of classes and the number of labels differ.
    #[error(
        "the model {} has {classes} outputs, but its labels file {} has {labels} lines; \
         give it the labels that it was trained with (one a line, in the order of the outputs), or leave [output] labels out of {}",
        model.display(),
        file.display(),
        manifest.display()
    )]
    LabelCount {
        /// The ONNX file.
        model: PathBuf,
        /// Its manifest.
        manifest: PathBuf,
        /// The labels file.
        file: PathBuf,
        /// Outputs of the network.
        classes: usize,
        /// Lines of the labels file.
        labels: usize,
    },
    /// A class pattern matches no label.
    #[error("no class of the model is called `{pattern}`{}; {remedy}", did_you_mean(near))]
    UnknownClass {
        /// What was asked for.
        pattern: String,
        /// Labels that look like it, the nearest first.
        near: Vec<String>,
        /// What to try.
        remedy: &'static str,
    },
    /// A kernel was asked for that this CPU or this program does not have, or a layer is impossible.
    #[error("cannot set up the kernels: {0}")]
    Kernel(#[from] crate::kernels::KernelError),
    /// The tensor handed over is not the one that the model takes.
    #[error("the model takes {wanted}, but was given {found}; fill the tensor by `Model::input`")]
    Tensor {
        /// Type and number of elements.
        wanted: String,
        /// Type and number of elements.
        found: String,
    },
    /// The network failed while running.
    #[error("the model {} failed while running: {detail}", path.display())]
    Run {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        detail: String,
    },
}

fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean `{}`?", near.join("`, `")) }
}

/// One thing wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The manifest.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// Dotted, as in `output.temperature`; empty when the file is no TOML.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to try.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

/// All that is wrong in a manifest, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}
