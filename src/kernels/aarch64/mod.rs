//! Kernels for 64-bit Arm.
//!
//! | file | what |
//! |---|---|
//! | `neon`, `dotprod`, `i8mm` | register tiles of 8 pixels by 8 channels, one an instruction set: all that is specific to it |
//! | `tile` | what such a tile brings |
//! | `direct` | every kind of convolution, by panels of eight pixels, for any tile |
//! | `winograd` | 3x3 of stride 1 with a quarter of the multiplications, where there is no dot product |
//! | `depthwise` | one input channel an output channel |
//! | `dense` | fully connected layers |
//! | `finish` | from sums to codes, in registers |
//!
//! These have a driver of their own, and not the shared one, because of how Arm multiplies by lane: no instruction multiplies straight from memory, so what
//! counts is loads. Packed panels bring them to one for 16 (`usmmla` 8, `smlal` 32) multiplications.

mod dense;
mod depthwise;
mod direct;
mod dotprod;
mod finish;
mod i8mm;
mod neon;
#[cfg(test)]
mod tests;
mod tile;
mod winograd;

use super::{
    Kernel, Method,
    conv::{Algorithm, Layer},
    dense::{DenseAlgorithm, DenseLayer},
    packed::Packer,
};

/// The algorithm for a layer, or `None` where only `generic` serves it: the method where it can (depthwise kernels need one input an output, Winograd
/// whole vectors of inputs and sums below 2^25), else the direct one.
pub(crate) fn conv(kernel: Kernel, method: Method, layer: &Layer, packer: &mut Packer) -> Option<Box<dyn Algorithm>> {
    match method {
        Method::Plain => return None,
        Method::Depthwise => {
            if let Some(depthwise) = depthwise::Depthwise::new(layer, packer) {
                return Some(Box::new(depthwise));
            }
        }
        Method::Winograd => {
            if let Some(winograd) = winograd::Winograd::new(layer, packer) {
                return Some(Box::new(winograd));
            }
        }
        Method::Direct => {}
    }
    match kernel {
        Kernel::Neon => Some(Box::new(direct::Direct::<neon::Neon>::new(layer, packer))),
        Kernel::DotProd => Some(Box::new(direct::Direct::<dotprod::DotProd>::new(layer, packer))),
        Kernel::I8mm => Some(Box::new(direct::Direct::<i8mm::I8mm>::new(layer, packer))),
        _ => None,
    }
}

/// The algorithm for a dense layer, or `None` where only `generic` serves it.
pub(crate) fn dense(kernel: Kernel, layer: &DenseLayer, packer: &mut Packer) -> Option<Box<dyn DenseAlgorithm>> {
    match kernel {
        Kernel::Neon => Some(Box::new(dense::Dense::new(layer, false, packer))),
        // A matrix product by a single row would waste half of it, and memory is the limit anyway.
        Kernel::DotProd | Kernel::I8mm => Some(Box::new(dense::Dense::new(layer, true, packer))),
        _ => None,
    }
}
