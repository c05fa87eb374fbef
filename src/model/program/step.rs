//! What a step does.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::pair::{self, Codes, Operand};
use super::saved::{table, tables};
use super::{Program, ProgramError, Slot, Value, Workspace};
use crate::kernels::{
    self, AveragePool, Combine, Conv, Dense, Grid, Kind, average_pool, dequantize, global_average, max_pool, quantize,
};

/// `value = (code - zero_point) * scale`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::model) struct Affine {
    /// The quantisation step.
    #[serde(with = "crate::float_bits")]
    pub(in crate::model) scale: f32,
    /// The code of the value 0, for `u8` codes.
    pub(in crate::model) zero_point: u8,
}

impl Affine {
    /// ONNX's QuantizeLinear: `clamp(round_ties_even(value / scale) + zero_point)`.
    pub(in crate::model) fn quantize(self, value: f32) -> u8 {
        self.grid().code(value)
    }

    /// ONNX's DequantizeLinear.
    pub(in crate::model) fn dequantize(self, code: u8) -> f32 {
        self.grid().value(code)
    }

    /// As the kernels take it.
    pub(super) fn grid(self) -> Grid {
        Grid { scale: self.scale, zero_point: self.zero_point }
    }
}

/// A tensor that comes from outside of the program, in the layout of the graph.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) enum External<'a> {
    /// `u8`, or the bytes of `i8`.
    Codes(&'a [u8]),
    /// `i8`
    Signed(&'a [i8]),
    /// `f32`
    Floats(&'a [f32]),
}

/// One step. Shapes are those of the values; layouts are NHWC.
///
/// What holds weights is saved by [`Saved`](super::Saved), all else as it stands.
#[derive(Serialize, Deserialize)]
pub(in crate::model) enum Step {
    /// An input that is NHWC already: preprocessing wrote it.
    Image { input: usize },
    /// An NCHW input to NHWC; `i8` becomes `u8` by adding 128.
    Import { input: usize },
    /// Convolution, requantisation, clamp, perhaps a 2x2 max-pool.
    #[serde(skip)]
    Conv { conv: Conv, input: Value },
    /// Fully connected, 8-bit.
    #[serde(skip)]
    Dense { dense: Dense, input: Value },
    /// Max-pool; padding at top, left, bottom, right.
    MaxPool { input: Value, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 4] },
    /// An average pool, as floats.
    AveragePool { input: Value, pool: AveragePool },
    /// Floats to codes.
    Quantize { input: Value, codes: Codes },
    /// Codes to floats.
    Dequantize { input: Value, affine: Affine },
    /// The mean of each channel, as a float.
    Average { input: Value, affine: Affine },
    /// The sum or product of two values of one shape, or of one and a value a channel; as floats, or as codes.
    Pair { op: Combine, operands: [Operand; 2], codes: Option<Codes> },
    /// Floats that are always the same.
    Constants {
        #[serde(with = "crate::float_bits::many")]
        values: Box<[f32]>,
    },
    /// Channels side by side, each part by its table.
    Concat {
        #[serde(with = "tables")]
        parts: Vec<(Value, Option<Box<[u8; 256]>>)>,
    },
    /// Fully connected, in floats: `weights [out][in]`.
    #[serde(skip)]
    Linear { input: Value, weights: Box<[f32]>, bias: Box<[f32]> },
    /// A function of one code.
    Lookup {
        input: Value,
        #[serde(with = "table")]
        table: Box<[u8; 256]>,
    },
    /// Every channel twice, side by side: for weights that need two `i8` each.
    Twice { input: Value },
    /// Some channels once more, behind the others: for the few weights that need two `i8`.
    Extend { input: Value, channels: usize, extra: Box<[usize]> },
}

impl Step {
    /// The values read.
    pub(in crate::model) fn inputs(&self) -> Vec<Value> {
        match self {
            Step::Image { .. } | Step::Import { .. } | Step::Constants { .. } => Vec::new(),
            Step::Pair { operands, .. } => operands.iter().map(|o| o.value()).collect(),
            Step::Concat { parts } => parts.iter().map(|(value, _)| *value).collect(),
            Step::Conv { input, .. }
            | Step::Dense { input, .. }
            | Step::MaxPool { input, .. }
            | Step::AveragePool { input, .. }
            | Step::Extend { input, .. }
            | Step::Quantize { input, .. }
            | Step::Dequantize { input, .. }
            | Step::Average { input, .. }
            | Step::Linear { input, .. }
            | Step::Lookup { input, .. }
            | Step::Twice { input } => vec![*input],
        }
    }

    /// How it is computed, in a word.
    pub(in crate::model) fn algorithm(&self) -> String {
        match self {
            Step::Conv { conv, .. } => conv.algorithm().to_string(),
            Step::Dense { .. } => "dense".into(),
            Step::Image { .. } => "input".into(),
            Step::Import { .. } => "import".into(),
            Step::MaxPool { .. } => "max-pool".into(),
            Step::Quantize { .. } => "quantize".into(),
            Step::Dequantize { .. } => "dequantize".into(),
            Step::Average { .. } => "average".into(),
            Step::AveragePool { .. } => "average-pool".into(),
            Step::Pair { op: Combine::Add, .. } => "add".into(),
            Step::Pair { op: Combine::Multiply, .. } => "multiply".into(),
            Step::Constants { .. } => "constants".into(),
            Step::Concat { .. } => "concat".into(),
            Step::Linear { .. } => "linear-f32".into(),
            Step::Lookup { .. } => "lookup".into(),
            Step::Twice { .. } | Step::Extend { .. } => "twice".into(),
        }
    }

    /// What kind of convolution it is, if it is one.
    pub(in crate::model) fn kind(&self) -> Option<Kind> {
        if let Step::Conv { conv, .. } = self { Some(Kind::of(conv.spec())) } else { None }
    }

    /// Multiplications and additions of one run.
    pub(in crate::model) fn macs(&self, program: &Program, output: Value) -> u64 {
        match self {
            Step::Conv { conv, input } => conv.macs(height_width(program, *input)),
            Step::Dense { input, .. } => (program.values[*input].len() * program.values[output].len()) as u64,
            Step::Linear { weights, .. } => weights.len() as u64,
            _ => 0,
        }
    }

    pub(super) fn run(
        &self,
        program: &Program,
        output: Value,
        work: &mut Workspace,
        inputs: &[External],
    ) -> Result<(), ProgramError> {
        match self {
            Step::Image { input } => copy_image(inputs, *input, work.codes.get_mut(codes(program, output)?)),
            Step::Import { input } => import(program, output, work, inputs, *input),
            Step::Conv { conv, input } => {
                let [from, to] = work.codes.disjoint([codes(program, *input)?, codes(program, output)?])?;
                conv.run(&program.pool, from, height_width(program, *input), to, &mut work.scratch);
                Ok(())
            }
            Step::Dense { dense, input } => {
                let [from, to] = work.codes.disjoint([codes(program, *input)?, codes(program, output)?])?;
                dense.run(&program.pool, from, to, &mut work.scratch);
                Ok(())
            }
            Step::MaxPool { input, kernel, stride, padding } => {
                let [from, to] = work.codes.disjoint([codes(program, *input)?, codes(program, output)?])?;
                let channels = program.values[*input].shape[2];
                max_pool(from, height_width(program, *input), channels, *kernel, *stride, *padding, to);
                Ok(())
            }
            Step::AveragePool { input, pool } => {
                let [height, width, channels] = program.values[*input].shape;
                let from = work.codes.get(codes(program, *input)?);
                let to = work.floats.get_mut(floats(program, output)?);
                average_pool(from, [height, width], channels, pool, to);
                Ok(())
            }
            Step::Quantize { input, codes: to } => {
                let from = work.floats.get(floats(program, *input)?);
                quantize(from, to.affine.grid(), to.bounds, work.codes.get_mut(codes(program, output)?));
                Ok(())
            }
            Step::Dequantize { input, affine } => {
                let from = work.codes.get(codes(program, *input)?);
                dequantize(from, affine.grid(), work.floats.get_mut(floats(program, output)?));
                Ok(())
            }
            Step::Average { input, affine } => {
                let [height, width, channels] = program.values[*input].shape;
                let from = work.codes.get(codes(program, *input)?);
                let to = work.floats.get_mut(floats(program, output)?);
                global_average(from, height * width, channels, to, affine.scale, affine.zero_point);
                Ok(())
            }
            Step::Pair { op, operands, codes } => pair::run(program, work, *op, *operands, *codes, output),
            Step::Constants { values } => {
                work.floats.get_mut(floats(program, output)?).copy_from_slice(values);
                Ok(())
            }
            Step::Concat { parts } => concat(program, work, parts, output),
            Step::Linear { input, weights, bias } => {
                let [from, to] = work.floats.disjoint([floats(program, *input)?, floats(program, output)?])?;
                linear(from, weights, bias, to);
                Ok(())
            }
            Step::Lookup { input, table } => {
                let [from, to] = work.codes.disjoint([codes(program, *input)?, codes(program, output)?])?;
                to.iter_mut().zip(from).for_each(|(to, from)| *to = table[usize::from(*from)]);
                Ok(())
            }
            Step::Twice { input } => {
                let [from, to] = work.codes.disjoint([codes(program, *input)?, codes(program, output)?])?;
                to.as_chunks_mut::<2>().0.iter_mut().zip(from).for_each(|(to, from)| *to = [*from; 2]);
                Ok(())
            }
            Step::Extend { input, channels, extra } => {
                let [from, to] = work.codes.disjoint([codes(program, *input)?, codes(program, output)?])?;
                kernels::extend(&program.pool, from, *channels, extra, to);
                Ok(())
            }
        }
    }
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {:?}", self.algorithm(), self.inputs())
    }
}

fn height_width(program: &Program, value: Value) -> [usize; 2] {
    let [height, width, _] = program.values[value].shape;
    [height, width]
}

pub(super) fn codes(program: &Program, value: Value) -> Result<&Range<usize>, ProgramError> {
    match &program.values[value].slot {
        Slot::Codes(range) => Ok(range),
        Slot::Floats(_) => Err(ProgramError::Overlap),
    }
}

pub(super) fn floats(program: &Program, value: Value) -> Result<&Range<usize>, ProgramError> {
    match &program.values[value].slot {
        Slot::Floats(range) => Ok(range),
        Slot::Codes(_) => Err(ProgramError::Overlap),
    }
}

fn copy_image(inputs: &[External], input: usize, to: &mut [u8]) -> Result<(), ProgramError> {
    match inputs.get(input) {
        Some(External::Codes(from)) if from.len() == to.len() => {
            to.copy_from_slice(from);
            Ok(())
        }
        _ => Err(ProgramError::Input(input)),
    }
}

fn import(
    program: &Program,
    output: Value,
    work: &mut Workspace,
    inputs: &[External],
    input: usize,
) -> Result<(), ProgramError> {
    let value = &program.values[output];
    let [height, width, channels] = value.shape;
    let (pixels, len) = (height * width, value.len());
    match (inputs.get(input), &value.slot) {
        (Some(External::Codes(from)), Slot::Codes(range)) if from.len() == len => {
            interleave(from, work.codes.get_mut(range), pixels, channels, |code| code)
        }
        (Some(External::Signed(from)), Slot::Codes(range)) if from.len() == len => {
            interleave(from, work.codes.get_mut(range), pixels, channels, |code| code as u8 ^ 0x80)
        }
        (Some(External::Floats(from)), Slot::Floats(range)) if from.len() == len => {
            interleave(from, work.floats.get_mut(range), pixels, channels, |float| float)
        }
        _ => return Err(ProgramError::Input(input)),
    }
    Ok(())
}

/// `[channels][pixels]` to `[pixels][channels]`.
fn interleave<A: Copy, B>(from: &[A], to: &mut [B], pixels: usize, channels: usize, convert: impl Fn(A) -> B) {
    for (pixel, to) in to.chunks_exact_mut(channels).enumerate() {
        for (channel, to) in to.iter_mut().enumerate() {
            *to = convert(from[channel * pixels + pixel]);
        }
    }
}

/// `[pixels][channels]` to `[channels][pixels]`.
pub(super) fn deinterleave<A: Copy, B>(from: &[A], to: &mut [B], channels: usize, convert: impl Fn(A) -> B) {
    let pixels = from.len() / channels.max(1);
    for (channel, to) in to.chunks_exact_mut(pixels.max(1)).enumerate() {
        for (pixel, to) in to.iter_mut().enumerate() {
            *to = convert(from[pixel * channels + channel]);
        }
    }
}

fn concat(
    program: &Program,
    work: &mut Workspace,
    parts: &[(Value, Option<Box<[u8; 256]>>)],
    output: Value,
) -> Result<(), ProgramError> {
    let channels = program.values[output].shape[2];
    let mut first = 0;
    for (part, table) in parts {
        let each = program.values[*part].shape[2];
        let [from, to] = work.codes.disjoint([codes(program, *part)?, codes(program, output)?])?;
        for (from, to) in from.chunks_exact(each).zip(to.chunks_exact_mut(channels)) {
            let to = &mut to[first..first + each];
            match table {
                None => to.copy_from_slice(from),
                Some(table) => to.iter_mut().zip(from).for_each(|(to, from)| *to = table[usize::from(*from)]),
            }
        }
        first += each;
    }
    Ok(())
}

/// Sums in eight lanes, so that the compiler may use vectors: the order of a float sum is part of its result, and is the same on every
/// CPU this way.
fn linear(from: &[f32], weights: &[f32], bias: &[f32], to: &mut [f32]) {
    for ((to, row), bias) in to.iter_mut().zip(weights.chunks_exact(from.len().max(1))).zip(bias) {
        let mut lanes = [0f32; 8];
        let (rows, row_tail) = row.as_chunks::<8>();
        let (inputs, input_tail) = from.as_chunks::<8>();
        for (weights, inputs) in rows.iter().zip(inputs) {
            for lane in 0..8 {
                lanes[lane] += weights[lane] * inputs[lane];
            }
        }
        let tail: f32 = row_tail.iter().zip(input_tail).map(|(w, x)| w * x).sum();
        *to = lanes.iter().sum::<f32>() + tail + bias;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantize_rounds_ties_to_even_and_saturates() {
        let affine = Affine { scale: 0.5, zero_point: 10 };
        for (value, code) in
            [(0.0, 10), (0.25, 10), (0.75, 12), (1.25, 12), (-0.25, 10), (1e9, 255), (-1e9, 0), (f32::NAN, 0)]
        {
            assert_eq!(affine.quantize(value), code, "{value}");
        }
        assert_eq!(affine.dequantize(7), -1.5);
    }

    #[test]
    fn linear_is_a_matrix_times_a_vector() {
        let from: Vec<f32> = (0..19).map(|i| i as f32).collect();
        let weights: Vec<f32> = (0..38).map(|i| (i % 5) as f32 - 2.0).collect();
        let mut to = [0.0; 2];
        linear(&from, &weights, &[1.0, -1.0], &mut to);
        let expected = |row: usize| (0..19).map(|i| i as f32 * weights[row * 19 + i]).sum::<f32>();
        assert_eq!(to, [expected(0) + 1.0, expected(1) - 1.0]);
    }

    #[test]
    fn layouts_convert_there_and_back() {
        let planar: Vec<u8> = (0..24).collect();
        let mut packed = vec![0; 24];
        interleave(&planar, &mut packed, 8, 3, |v| v);
        assert_eq!(packed[..6], [0, 8, 16, 1, 9, 17]);
        let mut back = vec![0; 24];
        deinterleave(&packed, &mut back, 3, |v| v);
        assert_eq!(back, planar);
    }
}
