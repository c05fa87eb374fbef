//! Register tiles for x86-64.

mod avx2;
mod float;
mod vnni;

pub(crate) use float::multiply_floats;

use super::{
    Kernel, Method,
    conv::{Algorithm, Layer},
    dense::{DenseAlgorithm, DenseLayer, Streamed},
    depthwise::{Depthwise, Taps},
    direct::{Direct, Micro},
    packed::Packer,
    winograd::{Transforms, Winograd},
};

/// The algorithm for a layer, or `None` where only `generic` serves it.
pub(crate) fn conv(kernel: Kernel, method: Method, layer: &Layer, packer: &mut Packer) -> Option<Box<dyn Algorithm>> {
    match kernel {
        Kernel::Avx2 => Some(make::<avx2::Avx2Wide, avx2::Avx2>(method, layer, packer)),
        Kernel::Vnni => Some(make::<vnni::VnniWide, vnni::Vnni>(method, layer, packer)),
        _ => None,
    }
}

/// The method where it can: depthwise kernels need an output a group, Winograd whole vectors of inputs and sums below 2^25. Else directly.
fn make<W: Transforms, D: Micro + Taps>(method: Method, layer: &Layer, packer: &mut Packer) -> Box<dyn Algorithm> {
    match method {
        Method::Depthwise => {
            if let Some(depthwise) = Depthwise::<D>::new(layer, packer) {
                return Box::new(depthwise);
            }
        }
        Method::Winograd => {
            if let Some(winograd) = Winograd::<W>::new(layer, packer) {
                return Box::new(winograd);
            }
        }
        Method::Plain | Method::Direct => {}
    }
    Box::new(Direct::<D>::new(layer, packer))
}

/// The algorithm for a dense layer, or `None` where only `generic` serves it.
pub(crate) fn dense(kernel: Kernel, layer: &DenseLayer, packer: &mut Packer) -> Option<Box<dyn DenseAlgorithm>> {
    match kernel {
        Kernel::Avx2 => Some(Box::new(Streamed::<avx2::Avx2>::new(layer, packer))),
        Kernel::Vnni => Some(Box::new(Streamed::<vnni::Vnni>::new(layer, packer))),
        _ => None,
    }
}
