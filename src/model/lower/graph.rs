//! Questions to tract's graph.

use tract_onnx::tract_core::internal::*;

/// Reading access to a typed graph.
#[derive(Clone, Copy)]
pub(super) struct Graph<'a> {
    pub(super) model: &'a TypedModel,
}

impl<'a> Graph<'a> {
    pub(super) fn node(&self, id: usize) -> &'a TypedNode {
        &self.model.nodes()[id]
    }

    /// The element type and the shape, when every axis is known and the batch is 1.
    pub(super) fn tensor(&self, outlet: OutletId) -> Option<(DatumType, Vec<usize>)> {
        let fact = self.model.outlet_fact(outlet).ok()?;
        let shape = fact.shape.as_concrete()?.to_vec();
        (shape.len() >= 2 && shape[0] == 1).then_some((fact.datum_type, shape))
    }

    /// The value of a constant.
    pub(super) fn constant(&self, outlet: OutletId) -> Option<Arc<Tensor>> {
        self.model.outlet_fact(outlet).ok()?.konst.clone()
    }

    /// The elements of a constant, converted.
    pub(super) fn constants<D: Datum + Copy>(&self, outlet: OutletId) -> Option<Vec<D>> {
        let tensor = self.constant(outlet)?;
        let cast = tensor.cast_to::<D>().ok()?;
        Some(cast.try_as_plain_ram().ok()?.as_slice::<D>().ok()?.to_vec())
    }

    /// The one value that all elements of a constant have.
    pub(super) fn scalar<D: Datum + Copy + PartialEq>(&self, outlet: OutletId) -> Option<D> {
        let values = self.constants::<D>(outlet)?;
        let first = *values.first()?;
        values.iter().all(|v| *v == first).then_some(first)
    }

    /// How many nodes read an outlet; the model's own outputs count too.
    pub(super) fn users(&self, outlet: OutletId) -> usize {
        let leaves = self.model.outputs.iter().filter(|o| **o == outlet).count();
        self.model.outlet_successors(outlet).len() + leaves
    }

    /// The node that makes an outlet, when nobody else reads it.
    pub(super) fn private(&self, outlet: OutletId) -> Option<&'a TypedNode> {
        (self.users(outlet) == 1).then(|| self.node(outlet.node))
    }
}

/// Height, width and channels of a tensor `[1, channels, height, width]`, or of one with fewer axes.
pub(super) fn height_width_channels(shape: &[usize]) -> [usize; 3] {
    match shape {
        [_, channels] => [1, 1, *channels],
        [_, channels, height] => [*height, 1, *channels],
        [_, channels, height, rest @ ..] => [*height, rest.iter().product(), *channels],
        _ => [1, 1, 1],
    }
}
