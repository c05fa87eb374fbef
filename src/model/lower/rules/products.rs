//! Convolutions and fully connected layers.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math::Add;
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::matrix::{Matrix, MatrixShape};
use super::pools::padding;
use super::{ConvLayer, DenseLayer, Entry, Graph, Judged, Layer, entry, is_codes, keeps_order, zero_point};
use crate::kernels::{ConvSpec, Requantize};
use crate::model::lower::graph::height_width_channels;
use crate::model::program::Affine;

/// One value for all outputs, or one each.
fn per_output<T: Copy>(values: Vec<T>, outputs: usize) -> Option<Vec<T>> {
    match values.len() {
        1 => Some(vec![values[0]; outputs]),
        n if n == outputs => Some(values),
        _ => None,
    }
}

/// The seven constants of a quantised product, in tract's order: bias, then zero point and scale of input, weights, output.
struct Quantization {
    bias: Vec<i32>,
    input: Affine,
    weight_zero_points: Vec<i32>,
    requantize: Requantize,
}

fn quantization(graph: Graph, node: &TypedNode, outputs: usize) -> Result<Quantization, &'static str> {
    const CONSTANT: &str = "a scale, zero point or bias is no constant, or has an unexpected shape";
    let input_type = graph.tensor(node.inputs[0]).ok_or("its input has an unknown shape or a batch above 1")?.0;
    let output_type = graph.tensor(node.id.into()).ok_or("its output has an unknown shape")?.0;
    let read = || {
        let bias = per_output(graph.constants::<i32>(node.inputs[2])?, outputs)?;
        let input_zero = zero_point(graph.scalar(node.inputs[3])?, input_type)?;
        let input_scale: f32 = graph.scalar(node.inputs[4])?;
        let weight_zero_points = per_output(graph.constants::<i32>(node.inputs[5])?, outputs)?;
        let weight_scales = per_output(graph.constants::<f32>(node.inputs[6])?, outputs)?;
        let output_zero = zero_point(graph.scalar(node.inputs[7])?, output_type)?;
        let output_scale: f32 = graph.scalar(node.inputs[8])?;
        // onnxruntime's order of operations
        let multiplier: Vec<f32> = weight_scales.iter().map(|w| input_scale * w / output_scale).collect();
        Some(Quantization {
            bias,
            input: Affine { scale: input_scale, zero_point: input_zero },
            weight_zero_points,
            requantize: Requantize { multiplier, zero_point: output_zero, min: 0, max: 255 },
        })
    };
    let quantization = read().ok_or(CONSTANT)?;
    let multiplier = &quantization.requantize.multiplier;
    if !multiplier.iter().all(|m| m.is_finite() && *m > 0.0) {
        return Err("a scale is not a positive number");
    }
    Ok(quantization)
}

/// Of ConvInteger and MatMulInteger.
const SUMS: &str =
    "it gives 32-bit sums, and only products that give 8-bit codes are lowered: quantize_static makes those";

/// QLinearConv.
pub(super) fn conv(graph: Graph, node: &TypedNode) -> Judged {
    let op = node.op_as::<Conv>()?;
    let output = op.q_params?;
    Some(if is_codes(output) { conv_entry(graph, node, op) } else { Err(SUMS) })
}

fn conv_entry(graph: Graph, node: &TypedNode, op: &Conv) -> Result<Entry, &'static str> {
    let pool = &op.pool_spec;
    if op.kernel_fmt != KernelFormat::OIHW || pool.data_format != DataFormat::NCHW || pool.kernel_shape.len() != 2 {
        return Err("only two-dimensional convolutions over [1, channels, height, width] are lowered");
    }
    let (input_type, input) =
        graph.tensor(node.inputs[0]).ok_or("its input has an unknown shape or a batch above 1")?;
    if !is_codes(input_type) || input.len() != 4 {
        return Err("its input is not 8-bit");
    }
    let outputs = pool.output_channels;
    let quantization = quantization(graph, node, outputs)?;
    let weights = graph.constant(node.inputs[1]).ok_or("its weights are no constant")?;
    if !is_codes(weights.datum_type()) {
        return Err("its weights are not 8-bit");
    }
    if let Some(entry) = conv_as_dense(graph, node, op, &quantization) {
        return Ok(entry);
    }
    let weights = graph.constants::<i16>(node.inputs[1]).ok_or("its weights cannot be read")?;
    let weights = less_zero_points(weights, &quantization.weight_zero_points).into();
    let spec = ConvSpec {
        in_channels: pool.input_channels,
        out_channels: outputs,
        kernel: [pool.kernel_shape[0], pool.kernel_shape[1]],
        stride: [pool.stride(0), pool.stride(1)],
        dilation: [pool.dilation(0), pool.dilation(1)],
        padding: padding(pool, [input[2], input[3]]),
        groups: op.group,
        input_zero_point: quantization.input.zero_point,
        pool: false,
    };
    let layer = ConvLayer {
        spec,
        weights,
        bias: quantization.bias,
        requantize: quantization.requantize,
        input_scale: quantization.input.scale,
    };
    Ok(entry(node, Layer::Conv(Box::new(layer)), &node.inputs[..1], vec![]))
}

/// Gemm or MatMul on one row of floats, with a bias where one follows.
pub(super) fn linear(graph: Graph, node: &TypedNode) -> Judged {
    if let Some(op) = node.op_as::<EinSum>() {
        // with a bias behind it, the pattern ends there
        let follower = graph.model.single_succ(node.id).ok().flatten();
        let biased = follower.is_some_and(|f| bias_of(graph, f, node.id).is_some());
        return if biased { None } else { linear_entry(graph, node, node, op, None) };
    }
    node.op_as::<TypedBinOp>()?;
    let product = node.inputs.iter().map(|i| i.node).find(|id| graph.node(*id).op_is::<EinSum>())?;
    let bias = bias_of(graph, node, product)?;
    let product = graph.private(product.into())?;
    linear_entry(graph, node, product, product.op_as::<EinSum>()?, Some(bias))
}

/// The constant that `node` adds to what `product` makes.
fn bias_of(graph: Graph, node: &TypedNode, product: usize) -> Option<Vec<f32>> {
    node.op_as::<TypedBinOp>()?.0.downcast_ref::<Add>()?;
    let other = node.inputs.iter().find(|i| i.node != product)?;
    let outputs = *graph.tensor(product.into())?.1.last()?;
    per_output(graph.constants::<f32>(*other)?, outputs)
}

fn linear_entry(graph: Graph, node: &TypedNode, product: &TypedNode, op: &EinSum, bias: Option<Vec<f32>>) -> Judged {
    if op.q_params.is_some() || op.operating_dt != DatumType::F32 {
        return None;
    }
    let shape = MatrixShape::of(graph, product, op)?;
    let weights = shape.by_output(&graph.constants::<f32>(product.inputs[1])?);
    let (source, mut covers) = behind_flatten(graph, product.inputs[0], shape.inputs)?;
    let (datum_type, source_shape) = graph.tensor(source)?;
    if datum_type != DatumType::F32 {
        return None;
    }
    let weights = channels_last(weights, shape.inputs, &source_shape);
    let bias = bias.unwrap_or_else(|| vec![0.0; shape.outputs]);
    if product.id != node.id {
        covers.push(product.id);
    }
    let layer = Layer::Linear { weights: weights.into(), bias: bias.into() };
    Some(Ok(entry(node, layer, &[source], covers)))
}

/// A convolution whose kernel covers all of its input is a fully connected layer.
fn conv_as_dense(graph: Graph, node: &TypedNode, op: &Conv, quantization: &Quantization) -> Option<Entry> {
    let (_, input) = graph.tensor(node.inputs[0])?;
    let pool = &op.pool_spec;
    let covered = pool.kernel_shape.as_slice() == &input[2..] && padding(pool, [input[2], input[3]]) == [0; 4];
    if op.group != 1 || !covered {
        return None;
    }
    let inputs = input.iter().product();
    let (source, covers) = behind_flatten(graph, node.inputs[0], inputs)?;
    let (_, shape) = graph.tensor(source)?;
    let tensor = graph.constant(node.inputs[1])?;
    let matrix = MatrixShape { inputs, outputs: pool.output_channels, by_rows: true };
    let weights = Matrix::new(tensor, matrix, quantization.weight_zero_points.clone(), shape)?;
    Some(entry(node, Layer::Dense(Box::new(dense_layer(weights, quantization))), &[source], covers))
}

/// QLinearMatMul with constant weights.
pub(super) fn dense(graph: Graph, node: &TypedNode) -> Judged {
    let op = node.op_as::<EinSum>()?;
    let output = op.q_params?;
    Some(if is_codes(output) { dense_entry(graph, node, op) } else { Err(SUMS) })
}

fn dense_entry(graph: Graph, node: &TypedNode, op: &EinSum) -> Result<Entry, &'static str> {
    let shape = MatrixShape::of(graph, node, op).ok_or("only one row times a constant matrix is lowered")?;
    let quantization = quantization(graph, node, shape.outputs)?;
    let (source, covers) =
        behind_flatten(graph, node.inputs[0], shape.inputs).ok_or("its input has an unknown shape")?;
    let (_, source_shape) = graph.tensor(source).ok_or("its input has an unknown shape")?;
    let weights = graph
        .constant(node.inputs[1])
        .and_then(|tensor| Matrix::new(tensor, shape, quantization.weight_zero_points.clone(), source_shape))
        .ok_or("its weights cannot be read")?;
    Ok(entry(node, Layer::Dense(Box::new(dense_layer(weights, &quantization))), &[source], covers))
}

fn dense_layer(weights: Matrix, quantization: &Quantization) -> DenseLayer {
    DenseLayer {
        weights,
        bias: quantization.bias.clone(),
        input_zero_point: quantization.input.zero_point,
        requantize: quantization.requantize.clone(),
    }
}

/// Weights by output, less their zero points.
fn less_zero_points(mut weights: Vec<i16>, zeros: &[i32]) -> Vec<i16> {
    let each = weights.len() / zeros.len().max(1);
    for (output, zero) in weights.chunks_mut(each.max(1)).zip(zeros) {
        output.iter_mut().for_each(|w| *w -= *zero as i16);
    }
    weights
}

/// Looks through reshapes that only flatten `[1, channels, height, width]` to the tensor that is flattened.
fn behind_flatten(graph: Graph, outlet: OutletId, elements: usize) -> Option<(OutletId, Vec<usize>)> {
    let mut at = outlet;
    let mut covers = Vec::new();
    while let Some(node) = graph.private(at).filter(|n| keeps_order(graph, n)) {
        covers.push(node.id);
        at = node.inputs[0];
    }
    let (_, shape) = graph.tensor(at)?;
    (shape.iter().product::<usize>() == elements).then_some((at, covers))
}

/// The columns of `[out][channels][pixels]` in the order of an NHWC input: `[out][pixels][channels]`.
fn channels_last<T: Copy>(weights: Vec<T>, inputs: usize, source: &[usize]) -> Vec<T> {
    let [height, width, channels] = height_width_channels(source);
    let pixels = height * width;
    if pixels == 1 || channels == 1 {
        return weights;
    }
    let row = |row: &[T]| (0..inputs).map(|i| row[i % channels * pixels + i / channels]).collect::<Vec<T>>();
    weights.chunks(inputs.max(1)).flat_map(row).collect()
}
