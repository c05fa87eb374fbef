//! Register tiles for x86-64.

mod avx2;
mod vnni;

use super::{
    Kernel,
    conv::{Algorithm, Layer, Strategy},
    dense::{DenseAlgorithm, DenseLayer, Streamed},
    direct::Direct,
};

/// The algorithm for a layer, or `None` where only `generic` serves it.
pub(crate) fn conv(kernel: Kernel, _strategy: Strategy, layer: &Layer) -> Option<Box<dyn Algorithm>> {
    match kernel {
        Kernel::Avx2 => Some(Box::new(Direct::<avx2::Avx2>::new(layer))),
        Kernel::Vnni => Some(Box::new(Direct::<vnni::Vnni>::new(layer))),
        _ => None,
    }
}

/// The algorithm for a dense layer, or `None` where only `generic` serves it.
pub(crate) fn dense(kernel: Kernel, layer: &DenseLayer) -> Option<Box<dyn DenseAlgorithm>> {
    match kernel {
        Kernel::Avx2 => Some(Box::new(Streamed::<avx2::Avx2>::new(layer))),
        Kernel::Vnni => Some(Box::new(Streamed::<vnni::Vnni>::new(layer))),
        _ => None,
    }
}
