//! Sums and products of two tensors.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::math::{Add, Mul};

use super::{Graph, Judged, Layer, entry, height_width_channels};
use crate::kernels::Combine;

/// The sum or product of two float tensors of one shape (the residual connection), of a tensor and one value a channel (the scale of
/// squeeze and excitation), or of a tensor and constants.
pub(super) fn pair(graph: Graph, node: &TypedNode) -> Judged {
    let op = node.op_as::<TypedBinOp>()?;
    let op = match () {
        () if op.0.is::<Add>() => Combine::Add,
        () if op.0.is::<Mul>() => Combine::Multiply,
        () => return None,
    };
    let (output_type, shape) = graph.tensor(node.id.into())?;
    if output_type != DatumType::F32 || !matches!(shape.len(), 2 | 4) || node.inputs[0] == node.inputs[1] {
        return None;
    }
    let (fixed, variable): (Vec<OutletId>, Vec<OutletId>) =
        node.inputs.iter().copied().partition(|i| graph.constant(*i).is_some());
    match (variable.as_slice(), fixed.as_slice()) {
        ([_, _], []) => {
            let shapes: Option<Vec<_>> = variable.iter().map(|i| graph.tensor(*i)).collect();
            let fits = |(datum_type, found): &(DatumType, Vec<usize>)| {
                *datum_type == DatumType::F32
                    && (*found == shape || found.len() == shape.len() && a_channel(found, &shape))
            };
            let ours = shapes?.iter().all(fits);
            ours.then(|| Ok(entry(node, Layer::Pair { op, constants: None }, &variable, vec![])))
        }
        ([one], [constant]) => {
            let (_, found) = graph.tensor(*one)?;
            let constants = by_channel(graph, *constant, &shape)?;
            let ours = found == shape;
            ours.then(|| Ok(entry(node, Layer::Pair { op, constants: Some(constants) }, &variable, vec![])))
        }
        _ => None,
    }
}

/// One value a channel: `[1, channels, 1, 1]`.
fn a_channel(found: &[usize], shape: &[usize]) -> bool {
    height_width_channels(found) == [1, 1, height_width_channels(shape)[2]]
}

fn by_channel(graph: Graph, constant: OutletId, shape: &[usize]) -> Option<Box<[f32]>> {
    let channels = height_width_channels(shape)[2];
    let tensor = graph.constant(constant)?;
    let values = graph.constants::<f32>(constant)?;
    match values.as_slice() {
        [one] => Some(vec![*one; channels].into()),
        _ if tensor.rank() == shape.len() && a_channel(tensor.shape(), shape) => Some(values.into()),
        _ => None,
    }
}
