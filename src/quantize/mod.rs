//! From a float ONNX model to an int8 one: post-training static quantisation.
//!
//! | file | what |
//! |---|---|
//! | `onnx` | making and reading ONNX nodes and tensors |
//! | `simplify`, `fold`, `transposes` | what is exact: constants, identities, batch norms and paddings folded, layouts settled |
//! | `roles` | which nodes work on codes, which stay float, and why |
//! | `weights` | symmetric int8 weights, one scale an output channel |
//! | [`photos`] | which photos calibrate and which are held back |
//! | `float_run` | the float network on tract, watched at chosen tensors |
//! | `float_conv` | its convolutions, faster and leaner than tract's |
//! | `statistics` | a tensor's distribution, streamed; and from it the range that its codes cover |
//! | `emit` | the standard-domain QOperator graph |
//! | `compare` | float against int8, layer by layer and at the end, on photos held back |
//! | `layers` | the layers that become codes: weights, tensors read and made |
//! | `job` | all of it in order |
//! | `manifest` | the manifest of the new model, and the files it names |
//!
//! The scheme is that of Jacob et al. 2018 ("Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference") with a scale per output channel (Krishnamoorthi 2018): activations in `u8` with a
//! zero point, weights in `i8` without one, biases in `i32`. Relu and Clip fall into the range of the codes.
//!
//! Memory: the float weights are held once while photos pass, one for each thread, and twice only while tract takes them over.

mod compare;
mod emit;
mod float_conv;
mod float_run;
mod fold;
mod job;
mod layers;
mod manifest;
mod onnx;
pub mod photos;
mod roles;
mod simplify;
mod statistics;
mod transposes;
mod weights;

pub use compare::{Comparison, LayerNoise};
pub use job::{Options, QuantizeError, Report, Stage, quantize};
pub use roles::Kept;
pub use statistics::Method;
