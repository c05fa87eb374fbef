//! What a graph may make of its constants alone.
//!
//! tract computes such tensors when it reads the graph, and looks at their size afterwards: a file of a hundred bytes could ask for
//! gigabytes (an outer product of two small constants, a Pad, a Range whose end is computed). So each node is inferred here first, in the order
//! of the graph, and one that makes too much out of constants is refused before it runs.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_hir::infer::{Factoid, InferenceFact, InferenceModel};
use tract_onnx::tract_hir::ops::konst::Const;

/// A tensor made of constants may always have so many bytes.
const ALWAYS: u64 = 16 << 20;
/// And so many times the file's: weights in 8 bits become floats.
const TIMES_THE_FILE: u64 = 4;
/// Passes over the graph; each carries what is known one step back, and as far forth as it goes.
const PASSES: usize = 4;

/// Checks the graph of a file of `bytes`, whose input has its shape. What is learnt about the tensors stays in it.
///
/// # Errors
/// A node makes too large a tensor out of constants, or the graph contradicts itself.
pub(crate) fn check(model: &mut InferenceModel, bytes: u64) -> TractResult<()> {
    let limit = (bytes.saturating_mul(TIMES_THE_FILE)).max(ALWAYS);
    let order = model.eval_order()?;
    for _ in 0..PASSES {
        let mut constant = vec![false; model.nodes().len()];
        let mut learnt = false;
        for &id in &order {
            let node = model.node(id);
            let made_of_constants = !node.inputs.is_empty() && node.inputs.iter().all(|input| constant[input.node]);
            constant[id] = made_of_constants || node.op_is::<Const>();
            learnt |= infer(model, id, made_of_constants.then_some(limit))?;
        }
        if !learnt {
            break;
        }
    }
    Ok(())
}

/// One step of tract's analysis. Whether it told anything new.
fn infer(model: &mut InferenceModel, id: usize, limit: Option<u64>) -> TractResult<bool> {
    let owned = |facts: TVec<&InferenceFact>| -> TVec<InferenceFact> { facts.into_iter().cloned().collect() };
    let (inputs, outputs) = model.node_facts(id)?;
    let (inputs, outputs) = (owned(inputs), owned(outputs));
    let outlets = model.node(id).op.observe_outlets(model, model.node(id))?;
    let observed = outlets.iter().map(|o| model.outlet_fact(*o).cloned()).collect::<TractResult<TVec<_>>>()?;
    let node = model.node_mut(id);
    if let Some(limit) = limit {
        let shapes: Inferred =
            node.op.infer_facts(inputs.iter().collect(), outputs.iter().collect(), observed.iter().collect())?;
        let made: u64 = shapes.1.iter().map(|fact| size(fact).unwrap_or(0)).fold(0, u64::saturating_add);
        let ranged = node.op.name() == "Range" && range(&inputs).is_none_or(|elements| elements > limit / 8);
        ensure!(
            made <= limit && !ranged,
            "the node `{}` ({}) makes too large a tensor of constants",
            node.name,
            node.op.name()
        );
    }
    let found: Inferred =
        node.op.infer(inputs.iter().collect(), outputs.iter().collect(), observed.iter().collect())?;
    let mut places: Vec<OutletId> = model.node(id).inputs.to_vec();
    places.extend((0..outputs.len()).map(|slot| OutletId::new(id, slot)));
    places.extend(&outlets);
    let mut learnt = false;
    for (place, fact) in places.into_iter().zip(found.0.iter().chain(&found.1).chain(&found.2)) {
        let old = model.outlet_fact(place)?;
        let both = fact.unify(old)?;
        if both != *old {
            model.set_outlet_fact(place, both)?;
            learnt = true;
        }
    }
    Ok(learnt)
}

/// Of inputs, of outputs, of what is observed.
type Inferred = (TVec<InferenceFact>, TVec<InferenceFact>, TVec<InferenceFact>);

/// Bytes of a tensor whose shape is known.
fn size(fact: &InferenceFact) -> Option<u64> {
    let shape = fact.shape.concretize()?;
    let element = fact.datum_type.concretize().map_or(8, |datum| datum.size_of()) as u64;
    shape.iter().try_fold(element, |bytes, axis| Some(bytes.saturating_mul(axis.to_i64().ok()?.try_into().ok()?)))
}

/// Elements of a Range, whose length is in no shape before it is made.
fn range(inputs: &[InferenceFact]) -> Option<u64> {
    let number = |index: usize| {
        let value = inputs.get(index)?.value.concretize()?;
        value.cast_to_scalar::<f64>().ok()
    };
    let [from, to, step] = [number(0)?, number(1)?, number(2)?];
    Some(((to - from) / step).max(0.0).ceil() as u64)
}
