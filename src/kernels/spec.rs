//! What a layer computes, apart from how: shapes, zero points, requantisation.

use serde::{Deserialize, Serialize};

/// A 2-D convolution over an NHWC tensor of `u8` with `i8` weights, batch 1.
///
/// `acc[c] = bias[c] + Σ weight[c][ky][kx][i] * (input[y*stride - pad + ky*dilation][…][i] - input_zero_point)` in i32; what
/// lies outside of the image counts as `input_zero_point`, that is, as zero. Then [`Requantize`], then `pool`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConvSpec {
    /// Channels of the input, as stored (a padded fourth channel included).
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Vertical and horizontal dilation.
    pub dilation: [usize; 2],
    /// Padding at top, left, bottom, right.
    pub padding: [usize; 4],
    /// `in_channels / groups` inputs feed each output.
    pub groups: usize,
    /// The code of the value 0 in the input.
    pub input_zero_point: u8,
    /// A 2x2 max-pool of stride 2 (odd last rows and columns are dropped) on the output, fused.
    pub pool: bool,
}

/// From an i32 accumulator to an 8-bit code: `clamp(round_ties_even(acc as f32 * multiplier[c]) + zero_point, min, max)`.
///
/// This is onnxruntime's `QLinearConv` with `multiplier[c] = x_scale * w_scale[c] / y_scale`, all in f32. ReLU and clip
/// are `min` and `max`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requantize {
    /// One per output channel, positive and finite.
    #[serde(with = "crate::float_bits::many")]
    pub multiplier: Vec<f32>,
    /// The code of the value 0 in the output.
    pub zero_point: u8,
    /// The smallest code written.
    pub min: u8,
    /// The largest code written; `min <= max`.
    pub max: u8,
}
