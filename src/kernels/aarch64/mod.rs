//! Register tiles for aarch64.

use super::{
    Kernel,
    conv::{Algorithm, Layer, Strategy},
    dense::{DenseAlgorithm, DenseLayer},
};

/// The algorithm for a layer, or `None` where only `generic` serves it.
pub(crate) fn conv(_kernel: Kernel, _strategy: Strategy, _layer: &Layer) -> Option<Box<dyn Algorithm>> {
    None
}

/// The algorithm for a dense layer, or `None` where only `generic` serves it.
pub(crate) fn dense(_kernel: Kernel, _layer: &DenseLayer) -> Option<Box<dyn DenseAlgorithm>> {
    None
}
