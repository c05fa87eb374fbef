//! A program as one node of tract's graph.

use std::fmt;
use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::step::deinterleave;
use super::{Export, External, Program, Slot, Watch, Workspace};

/// The node: immutable, shared by all states.
#[derive(Clone, Debug)]
pub(in crate::model) struct Run {
    /// What it does.
    pub(in crate::model) program: Arc<Program>,
    /// The types and shapes of its results.
    pub(in crate::model) facts: TVec<TypedFact>,
}

impl PartialEq for Run {
    fn eq(&self, other: &Run) -> bool {
        Arc::ptr_eq(&self.program, &other.program)
    }
}

impl Eq for Run {}

impl Op for Run {
    fn name(&self) -> StaticName {
        "SpotterRun".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(self.program.layers.iter().map(|l| format!("{}: {}", l.name, l.step.algorithm())).collect())
    }

    op_as_typed_op!();
}

impl EvalOp for Run {
    // keeps an arena between turns, so there is no answer without a plan
    not_out_of_plan!();

    fn state(&self, _ctx: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        Ok(Some(Box::new(RunState::new(&self.program))))
    }
}

impl TypedOp for Run {
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.facts.clone())
    }

    as_op!();
}

/// The arena that a state of the plan works in.
pub(in crate::model) struct RunState {
    program: Arc<Program>,
    work: Workspace,
}

impl RunState {
    fn new(program: &Arc<Program>) -> RunState {
        RunState { program: Arc::clone(program), work: program.workspace() }
    }

    /// Runs the program and hands its results out as tensors of the graph.
    pub(in crate::model) fn run(&mut self, inputs: &[TValue], watch: Watch) -> TractResult<TVec<TValue>> {
        let externals: TVec<External> = inputs.iter().map(|t| external(t)).collect::<TractResult<_>>()?;
        self.program.run(&mut self.work, &externals, watch)?;
        self.program.exports.iter().map(|e| Ok(export(&self.program, &self.work, e)?.into_tvalue())).collect()
    }
}

impl fmt::Debug for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunState({} layers)", self.program.layers.len())
    }
}

impl Clone for RunState {
    /// A fresh arena: nothing in it outlives a turn.
    fn clone(&self) -> RunState {
        RunState::new(&self.program)
    }
}

impl OpState for RunState {
    fn eval(&mut self, _ctx: &EvalContext, _op: &dyn Op, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.run(&inputs, Watch::Nothing)
    }

    fn reset_lanes(&mut self, _lanes: &[LaneId]) -> TractResult<()> {
        Ok(())
    }
}

fn external(tensor: &Tensor) -> TractResult<External<'_>> {
    Ok(match tensor.datum_type() {
        DatumType::U8 => External::Codes(tensor.as_plain_slice::<u8>()?),
        DatumType::I8 => External::Signed(tensor.as_plain_slice::<i8>()?),
        DatumType::F32 => External::Floats(tensor.as_plain_slice::<f32>()?),
        other => bail!("a lowered run cannot take {other:?}"),
    })
}

trait PlainSlice {
    fn as_plain_slice<D: Datum>(&self) -> TractResult<&[D]>;
}

impl PlainSlice for Tensor {
    fn as_plain_slice<D: Datum>(&self) -> TractResult<&[D]> {
        self.try_as_plain_ram()?.as_slice::<D>()
    }
}

fn export(program: &Program, work: &Workspace, export: &Export) -> TractResult<Tensor> {
    let value = &program.values[export.value];
    let channels = value.shape[2];
    match &value.slot {
        Slot::Codes(range) if export.signed => {
            let codes = work.codes.get(range);
            filled::<i8>(&export.shape, |to| deinterleave(codes, to, channels, |code| (code ^ 0x80) as i8))
        }
        Slot::Codes(range) => {
            let codes = work.codes.get(range);
            filled::<u8>(&export.shape, |to| deinterleave(codes, to, channels, |code| code))
        }
        Slot::Floats(range) => {
            let floats = work.floats.get(range);
            filled::<f32>(&export.shape, |to| deinterleave(floats, to, channels, |float| float))
        }
    }
}

fn filled<D: Datum + tract_onnx::prelude::tract_num_traits::Zero>(
    shape: &[usize],
    fill: impl FnOnce(&mut [D]),
) -> TractResult<Tensor> {
    let mut tensor = Tensor::zero::<D>(shape)?;
    fill(tensor.try_as_plain_ram_mut()?.as_slice_mut::<D>()?);
    Ok(tensor)
}
