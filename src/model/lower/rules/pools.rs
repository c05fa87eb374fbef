//! Pools, and tensors side by side.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::array::TypedConcat;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{MaxPool, PoolSpec, SumPool};
use tract_onnx::tract_core::ops::math::Div;
use tract_onnx::tract_core::ops::nn::{DataFormat, Reduce, Reducer};

use super::codes::{affine, quantizer};
use super::{Graph, Judged, Layer, Window, entry, is_codes};
use crate::model::program::Affine;

pub(super) fn padding(pool: &PoolSpec, input: [usize; 2]) -> [usize; 4] {
    let dims = pool.computed_padding(&input);
    [dims[0].pad_before, dims[1].pad_before, dims[0].pad_after, dims[1].pad_after]
}

/// The window of a pool over `[1, channels, height, width]`.
fn window(graph: Graph, node: &TypedNode, pool: &PoolSpec) -> Option<Window> {
    let (_, input) = graph.tensor(node.inputs[0])?;
    let plain = input.len() == 4 && pool.kernel_shape.len() == 2 && pool.data_format == DataFormat::NCHW;
    plain.then(|| Window {
        kernel: [pool.kernel_shape[0], pool.kernel_shape[1]],
        stride: [pool.stride(0), pool.stride(1)],
        padding: padding(pool, [input[2], input[3]]),
    })
}

/// How far the last window of each axis hangs over the padded edge (ONNX's `ceil_mode`).
fn overhang(graph: Graph, node: &TypedNode, window: &Window) -> Option<[usize; 2]> {
    let (input, output) = (graph.tensor(node.inputs[0])?.1, graph.tensor(node.id.into())?.1);
    let side = |d: usize| {
        let reach = (output[2 + d].checked_sub(1)?) * window.stride[d] + window.kernel[d];
        Some(reach.saturating_sub(input[2 + d] + window.padding[d] + window.padding[d + 2]))
    };
    Some([side(0)?, side(1)?])
}

pub(super) fn max_pool(graph: Graph, node: &TypedNode) -> Judged {
    let op = node.op_as::<MaxPool>()?;
    let (input_type, _) = graph.tensor(node.inputs[0])?;
    if !is_codes(input_type) {
        return None;
    }
    let mut window = window(graph, node, &op.pool_spec)?;
    if op.with_index_outputs.is_some() || op.pool_spec.dilations().iter().any(|d| *d != 1) {
        return Some(Err("max-pools with dilation or with indices are not lowered"));
    }
    // what lies outside never wins, so it may as well be padding
    for (d, over) in overhang(graph, node, &window)?.into_iter().enumerate() {
        window.padding[d + 2] += over;
    }
    Some(Ok(entry(node, Layer::MaxPool(window), &node.inputs, vec![])))
}

/// AveragePool of dequantised codes.
pub(super) fn average_pool(graph: Graph, node: &TypedNode) -> Judged {
    let op = node.op_as::<SumPool>()?;
    let floats = graph.node(node.inputs[0].node);
    let affine = affine(graph, floats)?;
    let window = window(graph, node, &op.pool_spec)?;
    if !op.normalize || op.pool_spec.dilations().iter().any(|d| *d != 1) {
        return None;
    }
    if overhang(graph, node, &window)? != [0, 0] {
        return Some(Err("an average pool whose last window hangs over the edge is not lowered"));
    }
    let covers = if graph.users(node.inputs[0]) == 1 { vec![floats.id] } else { vec![] };
    let layer = Layer::AveragePool { window, count_padding: op.count_include_pad, affine };
    Some(Ok(entry(node, layer, &floats.inputs, covers)))
}

/// Codes side by side: as they are, or dequantised and quantised anew.
pub(super) fn concat(graph: Graph, node: &TypedNode) -> Judged {
    let (output_type, shape) = graph.tensor(node.id.into())?;
    let along_channels = |op: &TypedConcat| op.axis == 1 && matches!(shape.len(), 2 | 4);
    if let Some(op) = node.op_as::<TypedConcat>() {
        let tables = vec![None; node.inputs.len()];
        let ours = is_codes(output_type) && along_channels(op) && all_variable(graph, node);
        return ours.then(|| Ok(entry(node, Layer::Concat(tables), &node.inputs, vec![])));
    }
    let (reciprocal, zero_point) = quantizer(node)?;
    let joint = graph.private(node.inputs[0])?;
    if !along_channels(joint.op_as::<TypedConcat>()?) || !all_variable(graph, joint) {
        return None;
    }
    let to = Affine { scale: reciprocal.recip(), zero_point };
    let (mut tables, mut inputs, mut covers) = (Vec::new(), Vec::new(), vec![joint.id]);
    for part in &joint.inputs {
        let floats = graph.node(part.node);
        let from = affine(graph, floats)?;
        tables.push(table(from, to));
        inputs.push(floats.inputs[0]);
        if graph.users(*part) == 1 {
            covers.push(floats.id);
        }
    }
    Some(Ok(entry(node, Layer::Concat(tables), &inputs, covers)))
}

fn all_variable(graph: Graph, node: &TypedNode) -> bool {
    node.inputs.iter().all(|i| graph.constant(*i).is_none())
}

/// From one grid to another; `None` where the codes stay.
fn table(from: Affine, to: Affine) -> Option<Box<[u8; 256]>> {
    let table: [u8; 256] = std::array::from_fn(|code| to.quantize(from.dequantize(code as u8)));
    (!table.iter().enumerate().all(|(code, to)| code == usize::from(*to))).then(|| Box::new(table))
}

/// GlobalAveragePool of dequantised codes: tract has it as a sum over the image, divided by the number of pixels.
pub(super) fn average(graph: Graph, node: &TypedNode) -> Judged {
    node.op_as::<TypedBinOp>()?.0.downcast_ref::<Div>()?;
    let count: f32 = graph.scalar(node.inputs[1])?;
    let sum = graph.private(node.inputs[0])?;
    let reduce = sum.op_as::<Reduce>()?;
    let floats = graph.node(sum.inputs[0].node);
    let affine = affine(graph, floats)?;
    let (_, shape) = graph.tensor(floats.inputs[0])?;
    let whole_image = reduce.axes.as_slice() == [2, 3] && shape.len() == 4 && count == (shape[2] * shape[3]) as f32;
    if reduce.reducer != Reducer::Sum || !whole_image {
        return None;
    }
    let mut covers = vec![sum.id];
    if graph.users(sum.inputs[0]) == 1 {
        covers.push(floats.id);
    }
    Some(Ok(entry(node, Layer::Average(affine), &floats.inputs, covers)))
}
