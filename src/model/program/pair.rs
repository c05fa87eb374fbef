//! Sums and products of two values.

use serde::{Deserialize, Serialize};

use super::step::{Affine, codes, floats};
use super::{Program, ProgramError, Value, Workspace};
use crate::kernels::{Combine, Source, Target, combine};

/// How codes are written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::model) struct Codes {
    /// The grid.
    pub(in crate::model) affine: Affine,
    /// The smallest and the largest code.
    pub(in crate::model) bounds: [u8; 2],
}

/// A summand or factor.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::model) enum Operand {
    /// Dequantised on the way.
    Codes(Value, Affine),
    /// As it is.
    Floats(Value),
}

impl Operand {
    pub(in crate::model) fn value(self) -> Value {
        match self {
            Operand::Codes(value, _) | Operand::Floats(value) => value,
        }
    }
}

pub(super) fn run(
    program: &Program,
    work: &mut Workspace,
    op: Combine,
    operands: [Operand; 2],
    to: Option<Codes>,
    output: Value,
) -> Result<(), ProgramError> {
    let channels = program.values[output].shape[2];
    let go = |operands: [Source; 2], to: Target| combine(&program.pool, op, operands, channels, to);
    match (operands, to) {
        ([Operand::Codes(a, fa), Operand::Codes(b, fb)], Some(to)) => {
            let [a, b, target] =
                work.codes.disjoint([codes(program, a)?, codes(program, b)?, codes(program, output)?])?;
            go(
                [Source::Codes(a, fa.grid()), Source::Codes(b, fb.grid())],
                Target::Codes(target, to.affine.grid(), to.bounds),
            );
        }
        ([Operand::Codes(a, fa), Operand::Codes(b, fb)], None) => {
            let (a, b) = (work.codes.get(codes(program, a)?), work.codes.get(codes(program, b)?));
            let target = work.floats.get_mut(floats(program, output)?);
            go([Source::Codes(a, fa.grid()), Source::Codes(b, fb.grid())], Target::Floats(target));
        }
        ([Operand::Floats(a), Operand::Codes(b, fb)] | [Operand::Codes(b, fb), Operand::Floats(a)], Some(to)) => {
            let [b, target] = work.codes.disjoint([codes(program, b)?, codes(program, output)?])?;
            let a = work.floats.get(floats(program, a)?);
            go([Source::Floats(a), Source::Codes(b, fb.grid())], Target::Codes(target, to.affine.grid(), to.bounds));
        }
        ([Operand::Floats(a), Operand::Codes(b, fb)] | [Operand::Codes(b, fb), Operand::Floats(a)], None) => {
            let b = work.codes.get(codes(program, b)?);
            let [a, target] = work.floats.disjoint([floats(program, a)?, floats(program, output)?])?;
            go([Source::Floats(a), Source::Codes(b, fb.grid())], Target::Floats(target));
        }
        ([Operand::Floats(a), Operand::Floats(b)], Some(to)) => {
            let (a, b) = (work.floats.get(floats(program, a)?), work.floats.get(floats(program, b)?));
            let target = work.codes.get_mut(codes(program, output)?);
            go([Source::Floats(a), Source::Floats(b)], Target::Codes(target, to.affine.grid(), to.bounds));
        }
        ([Operand::Floats(a), Operand::Floats(b)], None) => {
            let [a, b, target] =
                work.floats.disjoint([floats(program, a)?, floats(program, b)?, floats(program, output)?])?;
            go([Source::Floats(a), Source::Floats(b)], Target::Floats(target));
        }
    }
    Ok(())
}
