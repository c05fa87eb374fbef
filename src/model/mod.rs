//! Models: the manifest beside the ONNX file, loading through tract, the lowering of quantised graphs to our kernels.
//!
//! | file | what |
//! |---|---|
//! | [`manifest`], `labels` | what a model's files say; [`Manifest::beside`] and [`Labels::load`] do not touch the network |
//! | `load` | ONNX to tract's typed graph, with limits; damaged files are errors, never panics |
//! | `lower` | which nodes of the graph become steps of our programs |
//! | `program` | those steps: 8-bit NHWC tensors in one arena |
//!
//! What is not lowered runs on tract's own ops, so every model that tract runs, runs here.

mod engine;
mod error;
mod files;
mod labels;
mod load;
mod lower;
pub mod manifest;
mod program;
mod toml_reader;

pub use engine::{Engine, LayerInfo, LoadOptions, LoadReport, Model, TraceEntry};
pub use error::{ModelError, Problem, Problems};
pub use labels::Labels;
pub use load::panic_is_contained;
pub use lower::Foreign;
pub use manifest::{Manifest, OutputKind};
