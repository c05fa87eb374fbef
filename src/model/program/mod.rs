//! A run of lowered layers: steps over values in one arena, executed by our kernels.
//!
//! All 8-bit tensors inside are `u8`, NHWC, batch 1. A tensor that is `i8` in the graph is the same bytes XOR 0x80, with 128
//! added to its zero point: order, sums of differences and rounding are unchanged by that.

mod arena;
mod op;
mod pair;
mod saved;
mod step;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::kernels::{Pool, Scratch};

pub(super) use arena::{Arena, Lifetime, Slot, place};
pub(super) use op::{Run, RunState};
pub(super) use pair::{Codes, Operand};
pub(super) use saved::Saved;
pub(super) use step::{Affine, External, Step};

/// Why a program stopped; it means a mistake in the lowering, never bad pixels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProgramError {
    /// Two values of one step share memory.
    #[error("the values of a step overlap in the arena")]
    Overlap,
    /// A tensor from outside has another size or type than was planned.
    #[error("input {0} is not the tensor that was planned")]
    Input(usize),
}

/// A value's number: an index into [`Program::values`].
pub(super) type Value = usize;

/// Where a value lives, and its shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ValueInfo {
    /// Height, width, channels as stored.
    pub(super) shape: [usize; 3],
    /// Bytes (codes) or floats.
    pub(super) slot: Slot,
}

impl ValueInfo {
    /// Elements.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One step with what is told of it.
#[derive(Debug)]
pub(super) struct Layer {
    /// The graph's node.
    pub(super) name: String,
    /// What is done.
    pub(super) step: Step,
    /// What it makes.
    pub(super) output: Value,
}

/// A result that leaves the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Export {
    /// Which value.
    pub(super) value: Value,
    /// The tensor's shape in the graph: `[1, channels, height, width]` or fewer axes.
    pub(super) shape: Vec<usize>,
    /// `i8` in the graph.
    pub(super) signed: bool,
}

/// Steps in order, over values in an arena. Immutable: what changes while running is the [`Workspace`].
pub(super) struct Program {
    /// The steps.
    pub(super) layers: Vec<Layer>,
    /// The values that the steps read and write.
    pub(super) values: Vec<ValueInfo>,
    /// What leaves.
    pub(super) exports: Vec<Export>,
    /// The arena's size: bytes and floats.
    pub(super) arena: [usize; 2],
    /// The threads.
    pub(super) pool: Arc<Pool>,
}

/// The memory that a program works in: allocated once.
pub(super) struct Workspace {
    pub(super) codes: Arena<u8>,
    pub(super) floats: Arena<f32>,
    pub(super) scratch: Scratch,
}

/// What is recorded while a program runs.
pub(super) enum Watch<'a> {
    /// Nothing.
    Nothing,
    /// The time of each layer.
    Times(&'a mut Vec<Duration>),
    /// Each 8-bit value: layer, height, width, channels, bytes.
    Codes(&'a mut Vec<(String, [usize; 3], Vec<u8>)>),
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.layers.iter().map(|l| &l.name)).finish()
    }
}

impl Program {
    pub(super) fn workspace(&self) -> Workspace {
        Workspace { codes: Arena::new(self.arena[0]), floats: Arena::new(self.arena[1]), scratch: Scratch::new() }
    }

    /// Runs all steps on `inputs`; the results stay in `work` until the next run.
    pub(super) fn run(&self, work: &mut Workspace, inputs: &[External], mut watch: Watch) -> Result<(), ProgramError> {
        for layer in &self.layers {
            let start = matches!(watch, Watch::Times(_)).then(Instant::now);
            layer.step.run(self, layer.output, work, inputs)?;
            match &mut watch {
                Watch::Nothing => {}
                Watch::Times(times) => times.push(start.map_or(Duration::ZERO, |s| s.elapsed())),
                Watch::Codes(codes) => {
                    let value = &self.values[layer.output];
                    if let Slot::Codes(range) = &value.slot {
                        codes.push((layer.name.clone(), value.shape, work.codes.get(range).to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}
