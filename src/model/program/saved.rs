//! A program as it is kept in a file: all but its packed arrays, which lie beside it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Export, Layer, Program, Step, Value, ValueInfo};
use crate::kernels::{Conv, ConvRecipe, Dense, DenseRecipe, KernelError, Part, Pool};

/// A program without its arrays. `S` is a [`Step`], borrowed when it is saved.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::model) struct Saved<S> {
    layers: Vec<SavedLayer<S>>,
    values: Vec<ValueInfo>,
    exports: Vec<Export>,
    arena: [usize; 2],
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedLayer<S> {
    name: String,
    step: SavedStep<S>,
    output: Value,
}

/// A step; `arrays` of the program's are its own.
#[derive(Debug, Serialize, Deserialize)]
enum SavedStep<S> {
    Conv { recipe: ConvRecipe, input: Value, arrays: usize },
    Dense { recipe: DenseRecipe, input: Value, arrays: usize },
    Linear { input: Value },
    Plain(S),
}

impl Program {
    /// The program, and its arrays in the order in which [`Program::restore`] wants them.
    pub(in crate::model) fn save(&self) -> (Saved<&Step>, Vec<Part>) {
        let mut arrays = Vec::new();
        let mut layers = Vec::new();
        for Layer { name, step, output } in &self.layers {
            let step = match step {
                Step::Conv { conv, input } => {
                    arrays.extend_from_slice(conv.parts());
                    SavedStep::Conv { recipe: conv.recipe().clone(), input: *input, arrays: conv.parts().len() }
                }
                Step::Dense { dense, input } => {
                    arrays.extend_from_slice(dense.parts());
                    SavedStep::Dense { recipe: dense.recipe().clone(), input: *input, arrays: dense.parts().len() }
                }
                Step::Linear { input, weights, bias } => {
                    arrays.extend([weights, bias].map(|floats| Part::copied(&to_bytes(floats))));
                    SavedStep::Linear { input: *input }
                }
                plain => SavedStep::Plain(plain),
            };
            layers.push(SavedLayer { name: name.clone(), step, output: *output });
        }
        let saved = Saved { layers, values: self.values.clone(), exports: self.exports.clone(), arena: self.arena };
        (saved, arrays)
    }

    /// The program that was saved.
    ///
    /// # Errors
    /// The arrays are not this program's.
    pub(in crate::model) fn restore(
        saved: Saved<Step>,
        arrays: Vec<Part>,
        pool: Arc<Pool>,
    ) -> Result<Program, KernelError> {
        let mut arrays = arrays.into_iter();
        let mut take = |count: usize| -> Result<Vec<Part>, KernelError> {
            let taken: Vec<Part> = arrays.by_ref().take(count).collect();
            if taken.len() == count { Ok(taken) } else { Err(KernelError::Parts) }
        };
        let mut restore = |step| {
            Ok(match step {
                SavedStep::Conv { recipe, input, arrays } => {
                    Step::Conv { conv: Conv::restore(recipe, take(arrays)?)?, input }
                }
                SavedStep::Dense { recipe, input, arrays } => {
                    Step::Dense { dense: Dense::restore(recipe, take(arrays)?)?, input }
                }
                SavedStep::Linear { input } => {
                    let floats = take(2)?;
                    Step::Linear { input, weights: to_floats(floats[0].bytes()), bias: to_floats(floats[1].bytes()) }
                }
                SavedStep::Plain(step) => step,
            })
        };
        let layers = saved.layers.into_iter();
        let layers = layers.map(|l| Ok(Layer { name: l.name, step: restore(l.step)?, output: l.output }));
        let layers = layers.collect::<Result<_, KernelError>>()?;
        if arrays.next().is_some() {
            return Err(KernelError::Parts);
        }
        Ok(Program { layers, values: saved.values, exports: saved.exports, arena: saved.arena, pool })
    }
}

fn to_bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|float| float.to_le_bytes()).collect()
}

fn to_floats(bytes: &[u8]) -> Box<[f32]> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The table of a [`Step::Lookup`]: serde knows arrays of up to 32 elements.
pub(super) mod table {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(table: &[u8; 256], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(table)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[u8; 256]>, D::Error> {
        let codes = Vec::<u8>::deserialize(deserializer)?;
        codes.into_boxed_slice().try_into().map_err(|_| D::Error::custom("a table has 256 codes"))
    }
}
