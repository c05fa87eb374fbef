//! From a frame's pixels to the model's input: regions, orientation, crop, resize, colour order, normalisation.

pub mod spec;

pub use spec::{ChannelOrder, Filter, InputSpec, InputTensor, PreprocessSpec, Resize, TensorFormat};
