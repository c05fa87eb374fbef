//! Integer kernels on NHWC 8-bit tensors: convolution, dense, pooling. They know nothing of models.
//!
//! # Where things are
//!
//! | file | what |
//! |---|---|
//! | [`spec`] | what a layer computes |
//! | `generic` | the truth: plain scalar code that every other kernel must equal byte for byte |
//! | `cpu` | [`Kernel`]: which instruction set, chosen once |
//! | `conv`, `dense` | [`Conv`] and [`Dense`]: validation and the choice of an algorithm |
//! | `direct` | the implicit GEMM driver, generic over a register tile (`direct::Micro`) |
//! | `winograd` | exact 3x3 convolution with a quarter of the multiplications, on the same register tile with 16-bit operands |
//! | `depthwise` | one input channel an output channel |
//! | `dense` | the GEMV driver, generic over an inner loop (`dense::Stream`) |
//! | `requantize` | i32 to codes; written once in plain Rust, compiled once per instruction set |
//! | `pool`, [`cores`], `scratch` | threads; on which cores; memory |
//! | `packed` | packed weights, in memory or in a mapped file |
//! | `pooling` | max-pool, average pools |
//! | `elementwise` | codes to floats and back; sums and products of two tensors |
//! | [`float`] | products of `f32` matrices, loops over `f32`: for the calibration of a float network |
//! | `x86_64/`, `aarch64/` | the register tiles |
//!
//! # Adding an instruction set
//!
//! Implement [`direct::Micro`] (and [`dense::Stream`]) for a unit type and name it in the architecture's `conv` and `dense` functions
//! (`x86_64/mod.rs`, `aarch64/mod.rs`). The drivers do the rest: padding, strides, dilation, groups, threads, fused pooling, the zero
//! point, requantisation, odd sizes. A tile only multiplies: `PIXELS` output pixels in one row by `CHANNELS` outputs, over runs of
//! adjacent input elements, into an i32 buffer. Which shapes fit which instruction:
//!
//! | instruction | activation | `GROUP` | remark |
//! |---|---|---|---|
//! | `vpdpbusd` | `u8` | 4 | broadcast 4 bytes of a pixel against 16 outputs |
//! | `vpmaddwd` | `i16` | 2 | broadcast a pair, weights widened at the load |
//! | `sdot` by lane | `i8` | 4 | 16 bytes of a pixel are four lanes; one weight vector is 4 outputs x 4 |
//! | `smmla` | `i8` | 8 | a vector is 2 pixels (outputs) x 8; set `STEP = 2` |
//! | `smlal` by lane | `i16` | 1 | weights `i16`, 4 outputs an instruction |

mod choice;
mod conv;
pub mod cores;
mod cpu;
#[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "aarch64 has drivers of its own"))]
mod dense;
#[cfg(not(target_arch = "aarch64"))]
mod depthwise;
#[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "aarch64 has drivers of its own"))]
mod direct;
mod elementwise;
pub mod float;
pub mod generic;
mod packed;
mod pool;
#[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "aarch64 has drivers of its own"))]
mod pooling;
#[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "aarch64 has drivers of its own"))]
mod requantize;
mod scratch;
pub mod spec;
#[cfg(not(target_arch = "aarch64"))]
mod winograd;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(test)]
mod tests;

pub use choice::{Choice, Kind, Method, Preference, Strategy};
pub use conv::{Conv, ConvRecipe};
pub use cpu::Kernel;
pub use dense::{Dense, DenseRecipe};
pub use elementwise::{Combine, Grid, Source, Target, combine, dequantize, extend, quantize};
pub use packed::Part;
pub use pool::Pool;
pub use pooling::{AveragePool, average_pool, global_average, max_pool};
pub use scratch::Scratch;
pub(crate) use scratch::{Buffer, Plain};
pub use spec::{ConvSpec, Requantize};

/// Why a layer cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The CPU lacks the instructions.
    #[error("kernel `{0}` needs instructions that this CPU does not have; available here: {1}")]
    Unavailable(Kernel, String),
    /// No such kernel.
    #[error("there is no kernel `{0}`; known are generic, neon, dotprod, i8mm, avx2, vnni")]
    Unknown(String),
    /// No such strategy.
    #[error("there is no strategy `{0}`; known are auto, compact, direct, winograd")]
    UnknownStrategy(String),
    /// A preference that names no layer or no strategy.
    #[error("`{0}` is no preference; write LAYER=STRATEGY, such as 3x3=direct")]
    Preference(String),
    /// An array's length does not follow from the layer's shape.
    #[error("a layer of this shape needs {expected} values of {what}, but {found} were given")]
    Length {
        /// Which array.
        what: &'static str,
        /// What the shape asks for.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A field of the specification has no meaning.
    #[error("the layer's specification is impossible: {0}")]
    Spec(&'static str),
    /// A multiplier is not a positive finite number, or the output range is empty.
    #[error("the layer's requantisation is impossible: {0}")]
    Requantize(&'static str),
    /// Packed weights that are handed back are not the layer's.
    #[error("the packed weights are not those of a layer of this shape")]
    Parts,
}
