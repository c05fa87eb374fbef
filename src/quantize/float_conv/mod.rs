//! Float convolutions for the calibration, faster than tract's own and with little memory beside the weights.
//!
//! tract packs every weight anew and unfolds a whole image at once: for VGG16 twice the weights and 115 MB. Here the weights
//! stay as they were read, and an image is unfolded in strips. 3x3 convolutions of stride 1 on large images go by Winograd's
//! minimal filtering, a quarter of the multiplications; its error, about 1e-5 of the largest value, is far below a code's step.
//! The products themselves are those of [`crate::kernels::float`], and `matrixmultiply`'s, which tract's arrays bring along, where there is no
//! tile for the CPU.

mod winograd;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use tract_onnx::prelude::tract_ndarray::linalg::general_mat_mul;
use tract_onnx::prelude::tract_ndarray::{ArrayView2, ArrayViewMut2};
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat};
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::float_run::Dense;
use crate::kernels::Kernel;
use crate::kernels::float::{self, Loops, Sides};
use winograd::Winograd;

/// Floats of an unfolded strip.
const STRIP: usize = 1 << 20;

thread_local! {
    /// One for all layers that a thread runs.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Sides and channels; padding above and on the left (what is missing below and on the right is padding too).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    channels: usize,
    height: usize,
    width: usize,
    outputs: usize,
    out_height: usize,
    out_width: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    padding: [usize; 2],
}

impl Shape {
    fn takes_winograd(&self) -> bool {
        let plain = self.kernel == [3, 3] && self.stride == [1, 1] && self.dilation == [1, 1];
        // on smaller images the weights' way there costs more than the multiplications
        plain && self.channels >= 16 && self.out_height * self.out_width >= 14 * 14
    }
}

/// A convolution and the activation behind it, as a node of tract's graph.
#[derive(Clone)]
pub(super) struct FloatConv {
    shape: Shape,
    /// `[outputs][channels][height][width]`
    weights: Arc<Tensor>,
    /// Of a single pixel; the weights are `[channels][outputs]`.
    by_columns: bool,
    bias: Vec<f32>,
    limits: (f32, f32),
    fact: TypedFact,
}

impl FloatConv {
    /// What computes the same as the convolution `node`, cut to `limits`; `None` for one with groups or another layout.
    pub(super) fn of(model: &TypedModel, node: usize, limits: (f32, f32)) -> Option<FloatConv> {
        let node = model.nodes().get(node)?;
        let (conv, pool) = node.op_as::<Conv>().map(|conv| (conv, &conv.pool_spec))?;
        let input = model.outlet_fact(*node.inputs.first()?).ok()?;
        let fact = &node.outputs.first()?.fact;
        let (&[1, channels, height, width], &[1, outputs, out_height, out_width]) =
            (input.shape.as_concrete()?, fact.shape.as_concrete()?)
        else {
            return None;
        };
        let &[kernel_height, kernel_width] = pool.kernel_shape.as_slice() else { return None };
        let ours = conv.group == 1 && conv.q_params.is_none() && conv.kernel_fmt == KernelFormat::OIHW;
        if !ours || pool.data_format != DataFormat::NCHW || input.datum_type != f32::datum_type() {
            return None;
        }
        let constant = |index: usize| model.outlet_fact(*node.inputs.get(index)?).ok()?.konst.clone();
        let (weights, bias) = (constant(1)?, constant(2)?);
        let bias = bias.cast_to::<f32>().ok()?.try_as_plain_ram().ok()?.as_slice::<f32>().ok()?.to_vec();
        let bias = if bias.len() == 1 { vec![bias[0]; outputs] } else { bias };
        let padding = pool.computed_padding(&[height, width]);
        let shape = Shape {
            channels,
            height,
            width,
            outputs,
            out_height,
            out_width,
            kernel: [kernel_height, kernel_width],
            stride: [pool.stride(0), pool.stride(1)],
            dilation: [pool.dilation(0), pool.dilation(1)],
            padding: [padding[0].pad_before, padding[1].pad_before],
        };
        let fits = weights.shape() == [outputs, channels, kernel_height, kernel_width] && bias.len() == outputs;
        let fact = f32::fact(fact.shape.clone());
        (fits && weights.datum_type() == f32::datum_type()).then_some(FloatConv {
            shape,
            weights,
            by_columns: false,
            bias,
            limits,
            fact,
        })
    }

    /// What computes a fully connected layer, cut to `limits`: a convolution of a single pixel.
    pub(super) fn dense(weights: Dense, bias: Vec<f32>, limits: (f32, f32)) -> Option<FloatConv> {
        let (weights, by_columns) = match weights {
            Dense::Rows(weights) => (weights, false),
            Dense::Columns(weights) => (weights, true),
        };
        let (outputs, channels) = match *weights.shape() {
            [channels, outputs] if by_columns => (outputs, channels),
            [outputs, channels] => (outputs, channels),
            _ => return None,
        };
        let shape = Shape {
            channels,
            height: 1,
            width: 1,
            outputs,
            out_height: 1,
            out_width: 1,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [0, 0],
        };
        let fits = weights.datum_type() == f32::datum_type() && bias.len() == outputs;
        fits.then(|| FloatConv { shape, weights, by_columns, bias, limits, fact: f32::fact([1, outputs]) })
    }

    /// The shape of what it makes.
    pub(super) fn output(&self) -> &[usize] {
        // one that is not known is none: `of` and `dense` know theirs
        self.fact.shape.as_concrete().unwrap_or_default()
    }

    /// Runs on the first of `inputs`; all of `output` is written anew.
    pub(super) fn make(&self, inputs: &[TValue], mut output: Tensor) -> TractResult<TVec<TValue>> {
        let input = inputs.first().context("a convolution of nothing")?.try_as_plain_ram()?;
        self.run(input.as_slice::<f32>()?, output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?)?;
        Ok(tvec!(output.into_tvalue()))
    }

    /// How many there are.
    pub(super) fn weights(&self) -> usize {
        self.weights.len()
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> TractResult<()> {
        let FloatConv { shape, bias, limits, .. } = self;
        let (weights, limits, kernel) = (self.weights.try_as_plain_ram()?.as_slice::<f32>()?, *limits, Kernel::best());
        SCRATCH.with_borrow_mut(|scratch| {
            if shape.takes_winograd() {
                float::vectorized(kernel, Winograd { kernel, shape, input, weights, bias, limits, output, scratch });
            } else {
                match self.by_columns {
                    true => float::vectorized(kernel, Columns { input, weights, output: &mut *output }),
                    false => direct(kernel, shape, input, weights, output, scratch),
                }
                float::vectorized(kernel, Finish { output, bias, limits });
            }
        });
        Ok(())
    }
}

impl fmt::Debug for FloatConv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FloatConv({:?})", self.shape)
    }
}

impl PartialEq for FloatConv {
    fn eq(&self, other: &FloatConv) -> bool {
        self.shape == other.shape && self.by_columns == other.by_columns && Arc::ptr_eq(&self.weights, &other.weights)
    }
}

impl Eq for FloatConv {}

impl Op for FloatConv {
    fn name(&self) -> StaticName {
        "SpotterFloatConv".into()
    }

    op_as_typed_op!();
}

impl EvalOp for FloatConv {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.make(&inputs, crate::memory::zeros(self.output())?)
    }
}

impl TypedOp for FloatConv {
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(self.fact.clone()))
    }

    as_op!();
}

/// Adds each channel's bias, and cuts to the limits.
struct Finish<'a> {
    output: &'a mut [f32],
    bias: &'a [f32],
    limits: (f32, f32),
}

impl Loops for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let pixels = self.output.len() / self.bias.len().max(1);
        let (low, high) = self.limits;
        for (channel, bias) in self.output.chunks_mut(pixels.max(1)).zip(self.bias) {
            channel.iter_mut().for_each(|v| *v = (*v + bias).max(low).min(high));
        }
    }
}

/// A vector times a matrix `[inputs][outputs]`, read once from its first element to its last.
struct Columns<'a> {
    input: &'a [f32],
    weights: &'a [f32],
    output: &'a mut [f32],
}

impl Loops for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.output.fill(0.0);
        let rows = self.weights.chunks_exact(self.output.len().max(1));
        // behind a Relu half of the inputs are zeros
        for (value, row) in self.input.iter().zip(rows).filter(|(value, _)| **value != 0.0) {
            self.output.iter_mut().zip(row).for_each(|(sum, weight)| *sum += value * weight);
        }
    }
}

/// `c = a b` for row-major matrices `[rows][inner]` and `[inner][columns]`; a row of `c` is `stride` long.
fn multiply(kernel: Kernel, a: &[f32], b: &[f32], c: &mut [f32], sides: Sides, stride: usize) {
    use tract_onnx::prelude::tract_ndarray::ShapeBuilder;
    if float::multiply(kernel, a, b, c, sides, stride) {
        return;
    }
    let [rows, inner, columns] = sides;
    let a = ArrayView2::from_shape((rows, inner), &a[..rows * inner]);
    let b = ArrayView2::from_shape((inner, columns), &b[..inner * columns]);
    let c = ArrayViewMut2::from_shape((rows, columns).strides((stride, 1)), c);
    if let (Ok(a), Ok(b), Ok(mut c)) = (a, b, c) {
        general_mat_mul(1.0, &a, &b, 0.0, &mut c);
    }
}

/// The image unfolded strip by strip, then a matrix product.
fn direct(engine: Kernel, shape: &Shape, input: &[f32], weights: &[f32], output: &mut [f32], scratch: &mut Vec<f32>) {
    let Shape { channels, outputs, out_height, out_width, kernel, stride, padding, .. } = *shape;
    let inner = channels * kernel[0] * kernel[1];
    let pixels = out_height * out_width;
    if kernel == [1, 1] && stride == [1, 1] && padding == [0, 0] && pixels == shape.height * shape.width {
        return multiply(engine, weights, input, output, [outputs, channels, pixels], pixels);
    }
    let rows = (STRIP / (inner * out_width).max(1)).clamp(1, out_height.max(1));
    for first in (0..out_height).step_by(rows) {
        let rows = rows.min(out_height - first);
        let columns = rows * out_width;
        scratch.resize(scratch.len().max(inner * columns), 0.0);
        for (index, row) in scratch[..inner * columns].chunks_mut(columns).enumerate() {
            let window = [index / kernel[1] % kernel[0], index % kernel[1]];
            let channel = &input[index / (kernel[0] * kernel[1]) * shape.height * shape.width..];
            unfold(shape, channel, window, first, row);
        }
        multiply(engine, weights, scratch, &mut output[first * out_width..], [outputs, inner, columns], pixels);
    }
}

/// What one place of the window sees, for the output's rows from `first` on.
fn unfold(shape: &Shape, channel: &[f32], window: [usize; 2], first: usize, to: &mut [f32]) {
    let place = |axis: usize, output: usize, side: usize| {
        let at = output * shape.stride[axis] + window[axis] * shape.dilation[axis];
        at.checked_sub(shape.padding[axis]).filter(|at| *at < side)
    };
    for (row, to) in to.chunks_mut(shape.out_width).enumerate() {
        let Some(y) = place(0, first + row, shape.height) else {
            to.fill(0.0);
            continue;
        };
        let from = &channel[y * shape.width..][..shape.width];
        for (x, to) in to.iter_mut().enumerate() {
            *to = place(1, x, shape.width).map_or(0.0, |x| from[x]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, mut state: u64) -> Vec<f32> {
        let mut next = || {
            // xorshift64 (Marsaglia 2003)
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn naive(shape: &Shape, input: &[f32], weights: &[f32]) -> Vec<f32> {
        let mut output = Vec::new();
        for o in 0..shape.outputs {
            for pixel in 0..shape.out_height * shape.out_width {
                let mut sum = 0f64;
                for c in 0..shape.channels {
                    for k in 0..shape.kernel[0] * shape.kernel[1] {
                        let at = |axis: usize, out: usize, k: usize| {
                            (out * shape.stride[axis] + k * shape.dilation[axis]) as i64 - shape.padding[axis] as i64
                        };
                        let y = at(0, pixel / shape.out_width, k / shape.kernel[1]);
                        let x = at(1, pixel % shape.out_width, k % shape.kernel[1]);
                        if (0..shape.height as i64).contains(&y) && (0..shape.width as i64).contains(&x) {
                            let value = input[(c * shape.height + y as usize) * shape.width + x as usize];
                            let window = shape.kernel[0] * shape.kernel[1];
                            sum += f64::from(value) * f64::from(weights[(o * shape.channels + c) * window + k]);
                        }
                    }
                }
                output.push(sum as f32);
            }
        }
        output
    }

    #[track_caller]
    fn check(shape: Shape) {
        let input = noise(shape.channels * shape.height * shape.width, 7);
        let weights = noise(shape.outputs * shape.channels * shape.kernel[0] * shape.kernel[1], 11);
        let expected = naive(&shape, &input, &weights);
        let compare = |found: &[f32], how: &str| {
            let far = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 2e-4 * (shape.channels as f32).sqrt(), "{how}, {shape:?}: {far}");
        };
        // what a layer before left there must not matter
        let (mut output, mut scratch) = (vec![7.0; expected.len()], vec![f32::NAN; 100_000]);
        for kernel in Kernel::available() {
            direct(kernel, &shape, &input, &weights, &mut output, &mut scratch);
            compare(&output, "direct");
            if shape.kernel == [3, 3] && shape.stride == [1, 1] && shape.dilation == [1, 1] {
                output.fill(7.0);
                let (shape, bias, limits) = (&shape, &vec![0.0; shape.outputs], (f32::NEG_INFINITY, f32::INFINITY));
                let (input, weights, output, scratch) = (&input, &weights, &mut output, &mut scratch);
                float::vectorized(kernel, Winograd { kernel, shape, input, weights, bias, limits, output, scratch });
                compare(output, "winograd");
            }
        }
    }

    /// Both ways in which a matrix lies give the same, and each writes all of what it is given.
    #[test]
    fn fully_connected_layers_by_rows_and_by_columns() {
        let (inputs, outputs) = (70, 45);
        let rows = noise(inputs * outputs, 7);
        let columns: Vec<f32> = (0..rows.len()).map(|i| rows[i % outputs * inputs + i / outputs]).collect();
        let input = Tensor::from_shape(&[1, inputs], &noise(inputs, 11)).unwrap().into_tvalue();
        let tensor = |shape: [usize; 2], values: &[f32]| Arc::new(Tensor::from_shape(&shape, values).unwrap());
        let run = |dense: Dense| {
            let layer = FloatConv::dense(dense, vec![0.25; outputs], (0.0, 2.0)).unwrap();
            assert_eq!(layer.output(), [1, outputs]);
            let stale = Tensor::from_shape(&[1, outputs], &vec![9.0f32; outputs]).unwrap();
            let made = layer.make(std::slice::from_ref(&input), stale).unwrap();
            made[0].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
        };
        let by_rows = run(Dense::Rows(tensor([outputs, inputs], &rows)));
        let by_columns = run(Dense::Columns(tensor([inputs, outputs], &columns)));
        assert!(by_rows.iter().any(|v| *v > 0.0 && *v < 2.0));
        assert!(by_rows.iter().zip(&by_columns).all(|(a, b)| (a - b).abs() < 1e-4), "{by_rows:?} {by_columns:?}");
    }

    /// The bias and the activation are the layer's own.
    #[test]
    fn the_bias_is_added_and_the_limits_cut() {
        let (input, weights) = (noise(PLAIN.channels * 90, 7), noise(PLAIN.outputs * PLAIN.channels * 9, 11));
        let (bias, limits) = ([0.5, -1.0, 0.0, 2.0, -0.25], (0.0, 1.5));
        let expected: Vec<f32> = std::iter::zip(naive(&PLAIN, &input, &weights).chunks(90), bias)
            .flat_map(|(channel, bias)| {
                channel.iter().map(|v| (v + bias).clamp(limits.0, limits.1)).collect::<Vec<_>>()
            })
            .collect();
        for kernel in Kernel::available() {
            let mut output = vec![0.0; expected.len()];
            let (shape, bias, scratch) = (&PLAIN, &bias, &mut Vec::new());
            let (input, weights) = (&input, &weights);
            float::vectorized(
                kernel,
                Winograd { kernel, shape, input, weights, bias, limits, output: &mut output, scratch },
            );
            assert!(output.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{kernel}");
            direct(kernel, shape, input, weights, &mut output, scratch);
            float::vectorized(kernel, Finish { output: &mut output, bias, limits });
            assert!(output.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{kernel}");
        }
    }

    const PLAIN: Shape = Shape {
        channels: 3,
        height: 9,
        width: 10,
        outputs: 5,
        out_height: 9,
        out_width: 10,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [1, 1],
    };

    #[test]
    fn convolutions_of_all_shapes() {
        check(PLAIN);
        check(Shape { channels: 20, height: 21, width: 30, out_height: 21, out_width: 30, outputs: 33, ..PLAIN });
        check(Shape { out_height: 7, out_width: 8, padding: [0, 0], ..PLAIN });
        check(Shape { out_height: 10, out_width: 12, padding: [2, 2], ..PLAIN });
        check(Shape { out_height: 5, out_width: 5, stride: [2, 2], ..PLAIN });
        check(Shape { out_height: 5, out_width: 6, dilation: [2, 2], padding: [0, 0], ..PLAIN });
        check(Shape { kernel: [1, 1], padding: [0, 0], ..PLAIN });
        check(Shape { kernel: [5, 1], padding: [2, 0], ..PLAIN });
    }

    /// More tiles and more channels than one block holds.
    #[test]
    fn convolutions_in_several_blocks() {
        check(Shape { height: 70, width: 62, out_height: 70, out_width: 62, channels: 16, ..PLAIN });
        check(Shape { height: 6, width: 5, out_height: 6, out_width: 5, channels: 300, outputs: 300, ..PLAIN });
    }
}
