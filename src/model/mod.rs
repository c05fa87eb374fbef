//! Models: the manifest beside the ONNX file, loading through tract, the lowering of quantised graphs to our kernels.

mod error;
mod files;
mod labels;
mod lower;
pub mod manifest;
mod network;
mod program;
mod toml_reader;

pub use error::{ModelError, Problem, Problems};
pub use labels::Labels;
pub use manifest::{Manifest, OutputKind};
pub use network::{LayerInfo, LoadOptions, LoadReport, Model, ModelFiles, Traced};
