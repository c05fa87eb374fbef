//! Between codes and floats, and functions of one code.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::quant::{DequantizeLinearF32, QuantizeLinearI8, QuantizeLinearU8};

use super::{Entry, Graph, Judged, Layer, entry, shift, zero_point};
use crate::model::program::Affine;

pub(super) fn quantizer(node: &TypedNode) -> Option<(f32, u8)> {
    let op = node.op_as::<ElementWiseOp>()?;
    if let Some(op) = op.0.downcast_ref::<QuantizeLinearU8>() {
        return Some((op.scale, op.zero_point));
    }
    let op = op.0.downcast_ref::<QuantizeLinearI8>()?;
    Some((op.scale, zero_point(i32::from(op.zero_point), DatumType::I8)?))
}

/// QuantizeLinear: of a function of one code (then a table), else of floats.
pub(super) fn quantize(graph: Graph, node: &TypedNode) -> Judged {
    let (reciprocal, zero_point) = quantizer(node)?;
    if let Some(lookup) = lookup(graph, node) {
        return Some(Ok(lookup));
    }
    let (input_type, _) = graph.tensor(node.inputs[0])?;
    let layer = Layer::Quantize { reciprocal, zero_point, bounds: [0, 255] };
    (input_type == DatumType::F32).then(|| Ok(entry(node, layer, &node.inputs, vec![])))
}

/// Element-wise operations on one tensor of codes, up to QuantizeLinear: run once for each of the 256 codes. The codes may be read more
/// than once, and may be quantised on the way: `x * sigmoid(x)`.
fn lookup(graph: Graph, node: &TypedNode) -> Option<Entry> {
    let (_, shape) = graph.tensor(node.id.into())?;
    // the codes that are read first are the last candidates: what stands behind them may be a function of the others
    let mut roots = leaves(graph, node, &shape)?;
    if roots.len() > 4 {
        return None;
    }
    if let [root] = roots[..] {
        return table(graph, node, root, &shape);
    }
    roots.reverse();
    roots.into_iter().find_map(|root| table(graph, node, root, &shape))
}

/// The tensors of codes that element-wise operations before `node` read.
fn leaves(graph: Graph, node: &TypedNode, shape: &[usize]) -> Option<Vec<OutletId>> {
    let (mut open, mut seen, mut leaves) = (vec![node.inputs[0]], Vec::new(), Vec::new());
    while let Some(outlet) = open.pop() {
        let maker = graph.node(outlet.node);
        if seen.contains(&outlet) {
            continue;
        }
        seen.push(outlet);
        if seen.len() > MOST_NODES || graph.tensor(outlet)?.1 != shape {
            return None;
        }
        if maker.op_as::<DequantizeLinearF32>().is_some() {
            if !leaves.contains(&maker.inputs[0]) {
                leaves.push(maker.inputs[0]);
            }
            continue;
        }
        open.extend(element_wise_inputs(graph, maker)?);
    }
    (!leaves.is_empty()).then_some(leaves)
}

/// More element-wise operations in a row than any exporter writes.
const MOST_NODES: usize = 24;

/// The function of the codes `root` that `node` makes, if it is one.
fn table(graph: Graph, node: &TypedNode, root: OutletId, shape: &[usize]) -> Option<Entry> {
    let (code_type, found) = graph.tensor(root)?;
    if found != shape {
        return None;
    }
    let rank = shape.len();
    let codes: Vec<u8> = (0..=255u8).map(|c| c ^ shift(code_type).unwrap_or(0) as u8).collect();
    let mut all = vec![1; rank];
    all[1] = 256;
    let start = match code_type {
        DatumType::U8 => Tensor::from_shape(&all, &codes).ok()?,
        DatumType::I8 => Tensor::from_shape(&all, &codes.iter().map(|c| *c as i8).collect::<Vec<_>>()).ok()?,
        _ => return None,
    };
    let mut values = vec![(root, start.into_tvalue())];
    evaluate(graph, node.id.into(), shape, &mut values)?;
    let value = &values.last()?.1;
    let codes: Vec<u8> = match value.datum_type() {
        DatumType::U8 => value.try_as_plain_ram().ok()?.as_slice::<u8>().ok()?.to_vec(),
        DatumType::I8 => {
            value.try_as_plain_ram().ok()?.as_slice::<i8>().ok()?.iter().map(|c| *c as u8 ^ 0x80).collect()
        }
        _ => return None,
    };
    let table: [u8; 256] = codes.try_into().ok()?;
    let covers = private_to(graph, node, values[1..].iter().map(|(outlet, _)| outlet.node));
    Some(entry(node, Layer::Lookup(Box::new(table)), &[root], covers))
}

/// What an outlet is for each code; appends it, after all that it needs, to `values`.
fn evaluate(graph: Graph, outlet: OutletId, shape: &[usize], values: &mut Vec<(OutletId, TValue)>) -> Option<()> {
    if values.iter().any(|(known, _)| *known == outlet) {
        return Some(());
    }
    let node = graph.node(outlet.node);
    if values.len() > MOST_NODES || graph.tensor(outlet)?.1 != shape {
        return None;
    }
    for input in element_wise_inputs(graph, node)? {
        evaluate(graph, input, shape, values)?;
    }
    let inputs = node.inputs.iter().map(|outlet| match graph.constant(*outlet) {
        Some(constant) => uniform_of_rank(&constant, shape.len()),
        None => values.iter().find(|(known, _)| known == outlet).map(|(_, value)| value.clone()),
    });
    let inputs: TVec<TValue> = inputs.collect::<Option<_>>()?;
    let value = node.op.eval_out_of_plan(inputs).ok()??.remove(0);
    values.push((outlet, value));
    Some(())
}

/// Those of `nodes` (each after its inputs) whose results only `last` and others of them read.
fn private_to(graph: Graph, last: &TypedNode, nodes: impl DoubleEndedIterator<Item = usize>) -> Vec<usize> {
    let mut kept = vec![last.id];
    for id in nodes.rev().filter(|id| *id != last.id) {
        let readers = graph.model.outlet_successors(id.into());
        if graph.users(id.into()) == readers.len() && readers.iter().all(|r| kept.contains(&r.node)) {
            kept.push(id);
        }
    }
    kept.split_off(1)
}

/// The variable inputs of an operation that treats every element alike.
fn element_wise_inputs(graph: Graph, node: &TypedNode) -> Option<Vec<OutletId>> {
    if node.op_as::<ElementWiseOp>().is_some() || node.op_as::<DequantizeLinearF32>().is_some() {
        return Some(vec![node.inputs[0]]);
    }
    node.op_as::<TypedBinOp>()?;
    let variable: Vec<OutletId> = node.inputs.iter().copied().filter(|i| graph.constant(*i).is_none()).collect();
    let uniform = node.inputs.iter().filter_map(|i| graph.constant(*i)).all(|c| c.is_uniform());
    (!variable.is_empty() && uniform).then_some(variable)
}

fn uniform_of_rank(constant: &Tensor, rank: usize) -> Option<TValue> {
    let scalar = constant.as_uniform()?;
    Some(scalar.broadcast_into_rank(rank).ok()?.into_tvalue())
}

pub(super) fn affine(graph: Graph, node: &TypedNode) -> Option<Affine> {
    let op = node.op_as::<DequantizeLinearF32>()?;
    let (code_type, _) = graph.tensor(node.inputs[0])?;
    Some(Affine { scale: op.scale, zero_point: zero_point(op.zero_point, code_type)? })
}

pub(super) fn dequantize(graph: Graph, node: &TypedNode) -> Judged {
    let affine = affine(graph, node)?;
    Some(Ok(entry(node, Layer::Dequantize(affine), &node.inputs, vec![])))
}
