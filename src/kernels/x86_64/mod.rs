//! Register tiles for x86-64.

mod avx2;
mod float;
mod vnni;

pub(crate) use float::multiply_floats;

use super::{
    Kernel,
    conv::{Algorithm, Layer, Strategy},
    dense::{DenseAlgorithm, DenseLayer, Streamed},
    depthwise::{Depthwise, Taps},
    direct::{Direct, Micro},
    packed::Packer,
    winograd::{Transforms, Winograd},
};

/// The algorithm for a layer, or `None` where only `generic` serves it.
pub(crate) fn conv(
    kernel: Kernel,
    strategy: Strategy,
    layer: &Layer,
    packer: &mut Packer,
) -> Option<Box<dyn Algorithm>> {
    match kernel {
        Kernel::Avx2 => Some(choose::<avx2::Avx2Wide, avx2::Avx2>(strategy, layer, packer)),
        Kernel::Vnni => Some(choose::<vnni::VnniWide, vnni::Vnni>(strategy, layer, packer)),
        _ => None,
    }
}

/// Fewer inputs or outputs than this, and the transforms cost more than the multiplications they save.
const LEAST_CHANNELS: usize = 32;

/// | layer | algorithm |
/// |---|---|
/// | a group a channel, no fused pool | depthwise |
/// | 3x3 of stride 1, at least 32 channels on both sides, a multiple of 32 (AVX2: 16) inputs, sums below 2^25 | Winograd |
/// | any other | direct |
fn choose<W: Transforms, D: Micro + Taps>(
    strategy: Strategy,
    layer: &Layer,
    packer: &mut Packer,
) -> Box<dyn Algorithm> {
    if let Some(depthwise) = Depthwise::<D>::new(layer, packer) {
        return Box::new(depthwise);
    }
    let wide = layer.spec.in_channels.min(layer.spec.out_channels) >= LEAST_CHANNELS;
    let winograd = match strategy {
        Strategy::Winograd => Winograd::<W>::new(layer, packer),
        // Large layers keep their weights as they are, and U is made anew in each inference: compact as it is.
        Strategy::Auto | Strategy::Compact if wide => Winograd::<W>::new(layer, packer),
        _ => None,
    };
    match winograd {
        Some(winograd) => Box::new(winograd),
        None => Box::new(Direct::<D>::new(layer, packer)),
    }
}

/// The algorithm for a dense layer, or `None` where only `generic` serves it.
pub(crate) fn dense(kernel: Kernel, layer: &DenseLayer, packer: &mut Packer) -> Option<Box<dyn DenseAlgorithm>> {
    match kernel {
        Kernel::Avx2 => Some(Box::new(Streamed::<avx2::Avx2>::new(layer, packer))),
        Kernel::Vnni => Some(Box::new(Streamed::<vnni::Vnni>::new(layer, packer))),
        _ => None,
    }
}
