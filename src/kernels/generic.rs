//! The definition of what the kernels compute, in plain scalar code. Every other kernel gives the same bytes.

use super::{ConvSpec, Requantize};
use std::ops::Range;

/// `clamp(round_ties_even(acc as f32 * multiplier) + zero_point, min, max)`: onnxruntime's requantisation.
pub fn requantize(acc: i32, channel: usize, requantize: &Requantize) -> u8 {
    let rounded = (acc as f32 * requantize.multiplier[channel]).round_ties_even();
    (rounded + f32::from(requantize.zero_point)).clamp(f32::from(requantize.min), f32::from(requantize.max)) as u8
}

/// A convolution before requantisation: the accumulator of output channel `c` at `[y, x]` (before any pooling). Sums wrap.
pub fn accumulate(
    spec: &ConvSpec,
    weights: &[i8],
    bias: &[i32],
    input: &[u8],
    shape: [usize; 2],
    [y, x]: [usize; 2],
    c: usize,
) -> i32 {
    let [height, width] = shape;
    let [kernel_height, kernel_width] = spec.kernel;
    let depth = spec.in_channels / spec.groups;
    let group = c / (spec.out_channels / spec.groups);
    let mut acc = bias[c];
    for ky in 0..kernel_height {
        // A negative position wraps to a huge one and fails the comparison as well.
        let iy = (y * spec.stride[0] + ky * spec.dilation[0]).wrapping_sub(spec.padding[0]);
        for kx in 0..kernel_width {
            let ix = (x * spec.stride[1] + kx * spec.dilation[1]).wrapping_sub(spec.padding[1]);
            if iy >= height || ix >= width {
                continue;
            }
            let pixel = &input[(iy * width + ix) * spec.in_channels + group * depth..][..depth];
            let taps = &weights[((c * kernel_height + ky) * kernel_width + kx) * depth..][..depth];
            for (&value, &weight) in pixel.iter().zip(taps) {
                let value = i32::from(value) - i32::from(spec.input_zero_point);
                acc = acc.wrapping_add(i32::from(weight) * value);
            }
        }
    }
    acc
}

/// The output rows `rows` (after the fused pool, if any) of a convolution, into `output`, which begins with the first of them.
#[allow(clippy::too_many_arguments)]
pub fn convolve_rows(
    spec: &ConvSpec,
    weights: &[i8],
    bias: &[i32],
    rule: &Requantize,
    input: &[u8],
    shape: [usize; 2],
    rows: Range<usize>,
    output: &mut [u8],
) {
    let width = output.len() / (rows.len() * spec.out_channels).max(1);
    for (i, code) in output.iter_mut().enumerate() {
        let (pixel, c) = (i / spec.out_channels, i % spec.out_channels);
        let (y, x) = (rows.start + pixel / width, pixel % width);
        let at = |y, x| requantize(accumulate(spec, weights, bias, input, shape, [y, x], c), c, rule);
        *code = match spec.pool {
            false => at(y, x),
            true => {
                [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(dy, dx)| at(2 * y + dy, 2 * x + dx)).into_iter().fold(0, u8::max)
            }
        };
    }
}

/// A dense layer's output `c`: `bias + Σ weight * (input - input_zero_point)`, requantised. Weights are `[out][in]`.
pub fn dense(weights: &[i8], bias: &[i32], rule: &Requantize, input_zero_point: u8, input: &[u8], c: usize) -> u8 {
    let row = &weights[c * input.len()..][..input.len()];
    let acc = row.iter().zip(input).fold(bias[c], |acc, (&weight, &value)| {
        acc.wrapping_add(i32::from(weight) * (i32::from(value) - i32::from(input_zero_point)))
    });
    requantize(acc, c, rule)
}
