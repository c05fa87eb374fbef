//! Integer kernels on NHWC 8-bit tensors: convolution, dense, pooling. They know nothing of models.

pub mod spec;

pub use spec::{ConvSpec, Requantize};
