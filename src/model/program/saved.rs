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

/// The parts of a [`Step::Concat`], each with its table or none.
pub(super) mod tables {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::table;
    use crate::model::program::Value;

    type Parts = Vec<(Value, Option<Box<[u8; 256]>>)>;

    #[derive(Serialize)]
    struct Borrowed<'a>(#[serde(serialize_with = "table::serialize")] &'a [u8; 256]);

    #[derive(Deserialize)]
    struct Owned(#[serde(with = "table")] Box<[u8; 256]>);

    pub(crate) fn serialize<S: Serializer>(
        parts: &[(Value, Option<Box<[u8; 256]>>)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(parts.iter().map(|(value, table)| (value, table.as_deref().map(Borrowed))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Parts, D::Error> {
        let parts = Vec::<(Value, Option<Owned>)>::deserialize(deserializer)?;
        Ok(parts.into_iter().map(|(value, table)| (value, table.map(|Owned(table)| table))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{AveragePool, Combine};
    use crate::model::program::{Affine, Codes, External, Operand, Slot, Watch};

    /// A program of every step that holds more than sizes; its floats have no short decimals.
    fn program() -> Program {
        let affine = |scale: f32, zero_point| Affine { scale, zero_point };
        let written = |scale, bounds| Codes { affine: affine(scale, 9), bounds };
        let pool = AveragePool {
            kernel: [2, 1],
            stride: [1, 1],
            padding: [1, 0, 0, 0],
            count_padding: false,
            scale: 0.123_456_79,
            zero_point: 7,
        };
        let (image, average, constants, product, sum, quantized) = (0, 2, 3, 4, 5, 7);
        let table = Box::new(std::array::from_fn(|code| (code * 7 % 256) as u8));
        let steps = [
            (Step::Image { input: 0 }, 3, false),
            (Step::Extend { input: image, channels: 3, extra: [2, 0].into() }, 5, false),
            (Step::AveragePool { input: image, pool }, 3, true),
            (Step::Constants { values: [f32::MIN_POSITIVE, 1.0 / 3.0, -0.1].into() }, 3, true),
            (
                Step::Pair {
                    op: Combine::Multiply,
                    operands: [Operand::Floats(average), Operand::Floats(constants)],
                    codes: None,
                },
                3,
                true,
            ),
            (
                Step::Pair {
                    op: Combine::Add,
                    operands: [Operand::Codes(image, affine(0.1, 128)), Operand::Floats(product)],
                    codes: Some(written(0.07, [20, 250])),
                },
                3,
                false,
            ),
            (Step::Concat { parts: vec![(image, Some(table.clone())), (sum, None)] }, 6, false),
            (Step::Quantize { input: product, codes: written(0.01, [3, 200]) }, 3, false),
            (Step::Dequantize { input: quantized, affine: affine(1.0 / 7.0, 9) }, 3, true),
            (Step::Lookup { input: image, table }, 3, false),
        ];
        let mut arena = [0; 2];
        let (mut layers, mut values, mut exports) = (Vec::new(), Vec::new(), Vec::new());
        for (value, (step, channels, floats)) in steps.into_iter().enumerate() {
            let pixels = if value == constants { [1, 1] } else { [2, 2] };
            let shape = [pixels[0], pixels[1], channels];
            let end = &mut arena[usize::from(floats)];
            // on cache lines, as the planner has them
            let range = *end..*end + shape.iter().product::<usize>();
            *end = range.end.next_multiple_of(64);
            values.push(ValueInfo { shape, slot: if floats { Slot::Floats(range) } else { Slot::Codes(range) } });
            layers.push(Layer { name: format!("layer {value}"), step, output: value });
            exports.push(Export { value, shape: vec![1, channels, pixels[0], pixels[1]], signed: false });
        }
        Program { layers, values, exports, arena, pool: Arc::new(Pool::new(1)) }
    }

    /// All values after a run, floats as their bits.
    fn results(program: &Program) -> Vec<Vec<u32>> {
        let image = [0, 200, 255, 131, 17, 64, 90, 128, 3, 254, 77, 1];
        let mut work = program.workspace();
        program.run(&mut work, &[External::Codes(&image)], Watch::Nothing).unwrap();
        let result = |value: &ValueInfo| match &value.slot {
            Slot::Codes(range) => work.codes.get(range).iter().map(|code| u32::from(*code)).collect(),
            Slot::Floats(range) => work.floats.get(range).iter().map(|float| float.to_bits()).collect(),
        };
        program.values.iter().map(result).collect()
    }

    fn whole_numbers_only(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Number(number) => !number.is_f64(),
            serde_json::Value::Array(values) => values.iter().all(whole_numbers_only),
            serde_json::Value::Object(fields) => fields.values().all(whole_numbers_only),
            _ => true,
        }
    }

    #[test]
    fn every_step_comes_back_as_it_was() {
        let program = program();
        let (saved, arrays) = program.save();
        let json = serde_json::to_value(&saved).unwrap();
        assert!(whole_numbers_only(&json), "a float is kept as decimals, which may lose its last bit: {json}");
        let read = serde_json::from_str(&json.to_string()).unwrap();
        let restored = Program::restore(read, arrays, Arc::new(Pool::new(1))).unwrap();
        assert_eq!(results(&restored), results(&program));
        assert_eq!(serde_json::to_value(restored.save().0).unwrap(), json);
    }

    /// Steps with weights are saved by their recipes and arrays; as they stand they would come back without.
    #[test]
    fn a_step_with_weights_is_not_saved_as_it_stands() {
        let step = Step::Linear { input: 0, weights: [1.0].into(), bias: [0.5].into() };
        assert!(serde_json::to_value(&step).is_err());
        assert!(serde_json::from_str::<Step>(r#"{"Linear":{"input":0,"weights":[1],"bias":[0]}}"#).is_err());
    }
}
