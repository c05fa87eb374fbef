//! Models: the manifest beside the ONNX file, loading through tract, the lowering of quantised graphs to our kernels.
//!
//! | file | what |
//! |---|---|
//! | [`manifest`], `labels` | what a model's files say; [`ModelFiles`] reads them without touching the network |
//! | `trunk` | a model cut at its feature tensor, to teach a head on |
//! | `load` | ONNX to tract's typed graph, with limits; damaged files are errors, never panics |
//! | `limits`, `folding` | what a file of a stranger's making may ask for, and what its constants may make |
//! | `import` | quantised graphs in every form that exporters write, rewritten to one |
//! | `lower` | which nodes of the graph become steps of our programs |
//! | `program` | those steps: 8-bit NHWC tensors in one arena |
//! | `network` | [`Model`]: all of it together, ready to run |
//! | [`cache`] | loaded models kept in files, mapped at the next start |
//!
//! What is not lowered runs on tract's own ops, so every model that tract runs, runs here.

pub mod cache;
mod error;
mod files;
pub(crate) mod folding;
mod import;
mod labels;
mod limits;
mod load;
mod lower;
pub mod manifest;
mod network;
mod program;
mod toml_reader;
mod trunk;

pub use error::{ModelError, Problem, Problems};
pub use labels::Labels;
pub use load::{FloatModel, Layout};
pub use lower::Foreign;
pub use manifest::{Manifest, OutputKind};
pub use network::{CacheUse, LayerInfo, LoadOptions, LoadReport, Memory, Model, ModelFiles, Traced};
pub use trunk::Trunk;
