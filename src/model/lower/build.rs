//! From the entries of one run to a program: steps, values, places in the arena, packed kernels.

use std::collections::HashMap;
use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::source::TypedSource;

use super::graph::{Graph, height_width_channels};
use super::rules::{ConvLayer, DenseLayer, Entry, Layer, Weights, Window};
use super::{Image, Options};
use crate::kernels::{AveragePool, Conv, ConvSpec, Dense};
use crate::model::program::{
    Affine, Codes, Export, Layer as ProgramLayer, Lifetime, Operand, Program, Slot, Step, Value, ValueInfo, place,
};

/// A program and how it connects to the graph.
pub(super) struct Built {
    pub(super) program: Program,
    /// Outlets of the graph that it reads.
    pub(super) inputs: Vec<OutletId>,
    /// Outlets of the graph that it replaces, in the order of the program's exports.
    pub(super) outputs: Vec<OutletId>,
    /// Set when the first input is the model's own, to be fed as `u8` NHWC.
    pub(super) image: Option<Image>,
}

/// A node that the kernels cannot take after all.
pub(super) struct Refusal {
    pub(super) node: usize,
    pub(super) why: &'static str,
}

pub(super) fn build(graph: Graph, run: &[Entry], options: &Options) -> Result<Built, Refusal> {
    let mut builder = Builder {
        graph,
        run,
        options,
        layers: Vec::new(),
        values: Vec::new(),
        made: HashMap::new(),
        inputs: Vec::new(),
        image: None,
    };
    builder.feed_image();
    for entry in run {
        builder.entry(entry)?;
    }
    Ok(builder.finish())
}

#[derive(Clone, Copy)]
struct Planned {
    shape: [usize; 3],
    floats: bool,
}

struct Builder<'a> {
    graph: Graph<'a>,
    run: &'a [Entry],
    options: &'a Options,
    layers: Vec<ProgramLayer>,
    values: Vec<Planned>,
    /// Outlets that are values of the program.
    made: HashMap<OutletId, Value>,
    inputs: Vec<OutletId>,
    image: Option<Image>,
}

impl Builder<'_> {
    /// When the model's input is only ever quantised, in one way, preprocessing writes the codes itself.
    fn feed_image(&mut self) {
        let Some(source) = self.graph.model.inputs.first().copied() else { return };
        if self.graph.model.inputs.len() != 1 || !self.graph.node(source.node).op_is::<TypedSource>() {
            return;
        }
        let Some((DatumType::F32, shape)) = self.graph.tensor(source) else { return };
        let readers: Vec<&Entry> = self.run.iter().filter(|e| e.inputs.contains(&source)).collect();
        let [first] = readers.as_slice() else { return };
        let Layer::Quantize { reciprocal, zero_point, bounds: [0, 255] } = first.layer else { return };
        if self.graph.users(source) != 1 || shape.len() != 4 || shape[1] != 3 {
            return;
        }
        let scale = self.exact_scale(first.output, reciprocal);
        let users: Vec<&Entry> = self.run.iter().filter(|e| e.inputs.contains(&first.output)).collect();
        let only_convs = users.len() == self.graph.users(first.output)
            && users.iter().all(|e| matches!(&e.layer, Layer::Conv(c) if c.spec.groups == 1));
        // a pixel of four bytes is one load; the fourth meets weights of zero
        let channels = if only_convs { 4 } else { 3 };
        self.image = Some(Image { affine: Affine { scale, zero_point }, channels });
        self.inputs.push(source);
        let value = self.push(&first.name, Step::Image { input: 0 }, [shape[2], shape[3], channels], false);
        self.made.insert(first.output, value);
    }

    /// tract keeps the reciprocal of QuantizeLinear's scale. The scale itself stands at the reader of the codes; where there is none,
    /// the reciprocal's reciprocal is right within one unit in the last place.
    fn exact_scale(&self, codes: OutletId, reciprocal: f32) -> f32 {
        let readers = self.run.iter().filter(|e| e.inputs.contains(&codes));
        let scales = readers.filter_map(|e| match &e.layer {
            Layer::Conv(conv) => Some(conv.input_scale),
            Layer::Dequantize(affine) | Layer::Average(affine) | Layer::AveragePool { affine, .. } => {
                Some(affine.scale)
            }
            _ => None,
        });
        scales.into_iter().find(|s| s.recip() == reciprocal).unwrap_or_else(|| reciprocal.recip())
    }

    fn push(&mut self, name: &str, step: Step, shape: [usize; 3], floats: bool) -> Value {
        self.values.push(Planned { shape, floats });
        let output = self.values.len() - 1;
        self.layers.push(ProgramLayer { name: name.into(), step, output });
        output
    }

    /// The value of an outlet, imported from the graph where the run does not make it.
    fn value(&mut self, outlet: OutletId) -> Option<Value> {
        if let Some(value) = self.made.get(&outlet) {
            return Some(*value);
        }
        let (datum_type, shape) = self.graph.tensor(outlet)?;
        let input = self.inputs.iter().position(|i| *i == outlet).unwrap_or_else(|| {
            self.inputs.push(outlet);
            self.inputs.len() - 1
        });
        let floats = datum_type == DatumType::F32;
        let name = format!("{}.import", self.graph.node(outlet.node).name);
        let value = self.push(&name, Step::Import { input }, height_width_channels(&shape), floats);
        self.made.insert(outlet, value);
        Some(value)
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if self.made.contains_key(&entry.output) {
            return Ok(());
        }
        let refusal = |why| Refusal { node: entry.output.node, why };
        let inputs: Option<Vec<Value>> = entry.inputs.iter().map(|i| self.value(*i)).collect();
        let inputs = inputs.ok_or_else(|| refusal("an input has an unknown shape"))?;
        let (_, shape) = self.graph.tensor(entry.output).ok_or_else(|| refusal("its output has an unknown shape"))?;
        let shape = height_width_channels(&shape);
        let input = inputs[0];
        let (step, floats) = match &entry.layer {
            Layer::View => {
                self.made.insert(entry.output, input);
                return Ok(());
            }
            Layer::Conv(layer) => (self.conv(&entry.name, layer, input).map_err(refusal)?, false),
            Layer::Dense(layer) => (self.dense(&entry.name, layer, input).map_err(refusal)?, false),
            Layer::MaxPool(Window { kernel, stride, padding }) => {
                (Step::MaxPool { input, kernel: *kernel, stride: *stride, padding: *padding }, false)
            }
            Layer::AveragePool { window: Window { kernel, stride, padding }, count_padding, affine } => {
                let pool = AveragePool {
                    kernel: *kernel,
                    stride: *stride,
                    padding: *padding,
                    count_padding: *count_padding,
                    scale: affine.scale,
                    zero_point: affine.zero_point,
                };
                (Step::AveragePool { input, pool }, true)
            }
            Layer::Quantize { reciprocal, zero_point, bounds } => {
                let scale = self.exact_scale(entry.output, *reciprocal);
                (
                    self.quantize(input, Codes { affine: Affine { scale, zero_point: *zero_point }, bounds: *bounds }),
                    false,
                )
            }
            Layer::Dequantize(affine) => (Step::Dequantize { input, affine: *affine }, true),
            Layer::Average(affine) => (Step::Average { input, affine: *affine }, true),
            Layer::Pair { op, constants } => {
                let other = match constants {
                    Some(values) => self.constants(&entry.name, values),
                    None => inputs[1],
                };
                if input == other {
                    return Err(refusal("a value is paired with itself"));
                }
                (Step::Pair { op: *op, operands: [self.operand(input), self.operand(other)], codes: None }, true)
            }
            Layer::Concat(tables) => {
                (Step::Concat { parts: inputs.into_iter().zip(tables.iter().cloned()).collect() }, false)
            }
            Layer::Linear { weights, bias } => {
                (Step::Linear { input, weights: weights.clone(), bias: bias.clone() }, true)
            }
            Layer::Lookup(table) => (Step::Lookup { input, table: table.clone() }, false),
        };
        let value = self.push(&entry.name, step, shape, floats);
        self.made.insert(entry.output, value);
        Ok(())
    }

    fn maker(&self, value: Value) -> Option<&Step> {
        self.layers.iter().find(|l| l.output == value).map(|l| &l.step)
    }

    /// Adds codes where the floats are nothing but dequantised codes.
    fn operand(&self, value: Value) -> Operand {
        match self.maker(value) {
            Some(Step::Dequantize { input, affine }) => Operand::Codes(*input, *affine),
            _ => Operand::Floats(value),
        }
    }

    /// Quantising a sum adds straight to codes; whether anybody needs the float sum too, [`Builder::finish`] finds out.
    fn quantize(&self, input: Value, codes: Codes) -> Step {
        match self.maker(input) {
            Some(Step::Pair { op, operands, codes: None }) => {
                Step::Pair { op: *op, operands: *operands, codes: Some(codes) }
            }
            _ => Step::Quantize { input, codes },
        }
    }

    /// A value that is always the same: one a channel.
    fn constants(&mut self, name: &str, values: &[f32]) -> Value {
        let step = Step::Constants { values: values.into() };
        self.push(&format!("{name}.constants"), step, [1, 1, values.len()], true)
    }

    fn conv(&mut self, name: &str, layer: &ConvLayer, input: Value) -> Result<Step, &'static str> {
        const IMPOSSIBLE: &str = "the kernels do not take a layer of this shape";
        let mut spec = layer.spec.clone();
        let stored = self.values[input].shape[2];
        let mut weights = channels_last(layer, spec.in_channels / spec.groups.max(1));
        if stored != spec.in_channels {
            // the picture is stored with a fourth channel
            weights = pad_channels(&weights, spec.in_channels, stored);
            spec.in_channels = stored;
        }
        let kernel = self.options.kernel;
        let strategy = self.options.choice.strategy_of(name, &spec);
        let requantize = layer.requantize.clone();
        let (conv, input) = match narrow(&weights) {
            Some(weights) => (Conv::with_strategy(kernel, strategy, spec, &weights, &layer.bias, requantize), input),
            None if Conv::takes_pairs(kernel, &spec) => {
                let pairs = halves(&weights).ok_or(TOO_WIDE)?;
                (Conv::of_pairs(kernel, spec, &pairs, &layer.bias, requantize), input)
            }
            None => {
                let [height, width, _] = self.values[input].shape;
                let (step, parts) = eight_bits(&mut spec, &weights, input)?;
                let shape = [height, width, spec.in_channels];
                let conv = Conv::with_strategy(kernel, strategy, spec, &parts, &layer.bias, requantize);
                (conv, self.push(&format!("{name}.twice"), step, shape, false))
            }
        };
        let conv = conv.map_err(|_| IMPOSSIBLE)?;
        let [height, width, _] = self.values[input].shape;
        conv.output_shape([height, width]).ok_or(IMPOSSIBLE)?;
        Ok(Step::Conv { conv, input })
    }

    fn dense(&mut self, name: &str, layer: &DenseLayer, input: Value) -> Result<Step, &'static str> {
        const IMPOSSIBLE: &str = "the kernels do not take a layer of this shape";
        let (mut inputs, outputs) = (self.values[input].shape.iter().product::<usize>(), layer.bias.len());
        let (weights, input) = match layer.weights.by_output().ok_or("its weights cannot be read")? {
            Weights::Narrow(weights) => (weights, input),
            Weights::Wide(weights) => {
                if weights.len() != inputs * outputs {
                    return Err(IMPOSSIBLE);
                }
                let extra = beyond(&weights, inputs, 1);
                let parts = split(&weights, inputs, &extra).ok_or(TOO_WIDE)?;
                let step = Step::Extend { input, channels: inputs, extra: extra.clone().into() };
                inputs += extra.len();
                (parts, self.push(&format!("{name}.twice"), step, [1, 1, inputs], false))
            }
        };
        let (zero_point, requantize) = (layer.input_zero_point, layer.requantize.clone());
        let dense = Dense::new(self.options.kernel, inputs, outputs, &weights, &layer.bias, zero_point, requantize);
        let dense = dense.map_err(|_| IMPOSSIBLE)?;
        Ok(Step::Dense { dense, input })
    }

    fn finish(mut self) -> Built {
        let outputs = self.outputs();
        self.drop_unread(&outputs);
        let (values, arena) = self.place(&outputs);
        let export = |outlet: &OutletId| {
            let (datum_type, shape) = self.graph.tensor(*outlet).unwrap_or((DatumType::F32, Vec::new()));
            Export { value: self.made[outlet], shape, signed: datum_type == DatumType::I8 }
        };
        let exports = outputs.iter().map(export).collect();
        let pool = Arc::clone(&self.options.pool);
        let program = Program { layers: self.layers, values, exports, arena, pool };
        Built { program, inputs: self.inputs, outputs, image: self.image }
    }

    /// Outlets that somebody outside of the run reads.
    fn outputs(&self) -> Vec<OutletId> {
        let mut inside: HashMap<OutletId, usize> = HashMap::new();
        for entry in self.run {
            // a pattern reads an outlet once, whichever of its nodes does
            for input in &entry.inputs {
                *inside.entry(*input).or_default() += 1;
            }
        }
        let read_outside = |outlet: &OutletId| self.graph.users(*outlet) > inside.get(outlet).copied().unwrap_or(0);
        self.run.iter().map(|e| e.output).filter(read_outside).collect()
    }

    /// Steps whose value nobody reads fall away: dequantised codes that were added as codes, sums that were quantised at once.
    fn drop_unread(&mut self, outputs: &[OutletId]) {
        let mut needed = vec![false; self.values.len()];
        for outlet in outputs {
            needed[self.made[outlet]] = true;
        }
        for layer in self.layers.iter().rev() {
            if needed[layer.output] {
                for input in layer.step.inputs() {
                    needed[input] = true;
                }
            }
        }
        self.layers.retain(|l| needed[l.output]);
    }

    fn place(&self, outputs: &[OutletId]) -> (Vec<ValueInfo>, [usize; 2]) {
        let mut lives: Vec<Lifetime> = self
            .values
            .iter()
            .map(|v| Lifetime { len: v.shape.iter().product(), first: usize::MAX, last: 0 })
            .collect();
        for (index, layer) in self.layers.iter().enumerate() {
            lives[layer.output].first = index;
            lives[layer.output].last = lives[layer.output].last.max(index);
            for input in layer.step.inputs() {
                lives[input].last = lives[input].last.max(index);
            }
        }
        for outlet in outputs {
            lives[self.made[outlet]].last = self.layers.len();
        }
        let mut slots = vec![Slot::Codes(0..0); self.values.len()];
        let mut arena = [0; 2];
        for floats in [false, true] {
            // values of dropped steps have no life
            let members: Vec<Value> = (0..self.values.len())
                .filter(|v| self.values[*v].floats == floats && lives[*v].first != usize::MAX)
                .collect();
            let (ranges, total) = place(&members.iter().map(|v| lives[*v]).collect::<Vec<_>>());
            for (value, range) in members.into_iter().zip(ranges) {
                slots[value] = if floats { Slot::Floats(range) } else { Slot::Codes(range) };
            }
            arena[usize::from(floats)] = total;
        }
        let values = self.values.iter().zip(slots).map(|(v, slot)| ValueInfo { shape: v.shape, slot }).collect();
        (values, arena)
    }
}

/// `[out][in][kernel]` to `[out][kernel][in]`.
fn channels_last(layer: &ConvLayer, each: usize) -> Vec<i16> {
    let window = layer.spec.kernel[0] * layer.spec.kernel[1];
    let row = |row: &[i16]| (0..each * window).map(|i| row[i % each * window + i / each]).collect::<Vec<i16>>();
    layer.weights.chunks((each * window).max(1)).flat_map(row).collect()
}

/// The weights as `i8`, when all fit.
fn narrow(weights: &[i16]) -> Option<Vec<i8>> {
    weights.iter().map(|w| i8::try_from(*w).ok()).collect()
}

const TOO_WIDE: &str = "its weights less their zero point do not fit into two 8-bit parts";

/// Weights of 9 bits in 8: each of those that do not fit is two that add up to it, and its channel is there twice. Usually one weight in
/// thousands is such (the end of the range that the zero point is off-centre by), so all channels twice are the exception: where there is
/// one input an output (depthwise), which has no room for another channel.
///
/// Returns the step that repeats the channels, and the weights.
fn eight_bits(spec: &mut ConvSpec, weights: &[i16], input: Value) -> Result<(Step, Vec<i8>), &'static str> {
    if spec.groups > 1 {
        spec.in_channels *= 2;
        return Ok((Step::Twice { input }, halves(weights).ok_or(TOO_WIDE)?));
    }
    // Winograd wants whole vectors of channels, the rest whole words
    let winograd = spec.kernel == [3, 3] && spec.stride == [1, 1];
    let extra = beyond(weights, spec.in_channels, if winograd { 32 } else { 4 });
    let parts = split(weights, spec.in_channels, &extra).ok_or(TOO_WIDE)?;
    let step = Step::Extend { input, channels: spec.in_channels, extra: extra.clone().into() };
    spec.in_channels += extra.len();
    Ok((step, parts))
}

/// The channels (the last axis, `channels` long) in which a weight does not fit 8 bits; some other one after them, up to a multiple of `unit`
/// channels in all.
fn beyond(weights: &[i16], channels: usize, unit: usize) -> Vec<usize> {
    let mut wide = vec![false; channels];
    for pixel in weights.chunks(channels.max(1)) {
        wide.iter_mut().zip(pixel).for_each(|(wide, w)| *wide |= i8::try_from(*w).is_err());
    }
    let mut extra: Vec<usize> = (0..channels).filter(|c| wide[*c]).collect();
    extra.resize((channels + extra.len()).next_multiple_of(unit) - channels, 0);
    extra
}

/// The weights cut to 8 bits, followed by what was cut off in the `extra` channels (a channel's second time there is padding).
fn split(weights: &[i16], channels: usize, extra: &[usize]) -> Option<Vec<i8>> {
    let first: Vec<bool> = extra.iter().enumerate().map(|(i, c)| !extra[..i].contains(c)).collect();
    let mut parts = Vec::with_capacity(weights.len() / channels.max(1) * (channels + extra.len()));
    for pixel in weights.chunks(channels.max(1)) {
        parts.extend(pixel.iter().map(|w| (*w).clamp(-128, 127) as i8));
        for (&c, first) in extra.iter().zip(&first) {
            let rest = if *first { pixel[c] - pixel[c].clamp(-128, 127) } else { 0 };
            parts.push(i8::try_from(rest).ok()?);
        }
    }
    Some(parts)
}

/// Each weight as two that add up to it: from -256 to 254, all but the one difference 255 - 0 of two bytes.
fn halves(weights: &[i16]) -> Option<Vec<i8>> {
    let split = |w: &i16| {
        let a = (*w).clamp(-128, 127);
        [i8::try_from(a).ok(), i8::try_from(*w - a).ok()]
    };
    weights.iter().flat_map(split).collect()
}

/// Weights of zero for stored channels that mean nothing.
fn pad_channels(weights: &[i16], each: usize, wanted: usize) -> Vec<i16> {
    let widen = |pixel: &[i16]| {
        let mut wide = pixel.to_vec();
        wide.resize(wanted, 0);
        wide
    };
    weights.chunks(each.max(1)).flat_map(widen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_beyond_eight_bits_are_two_that_add_up() {
        for weight in -255i16..=254 {
            let [a, b] = halves(&[weight]).unwrap()[..] else { panic!("not two") };
            assert_eq!(i16::from(a) + i16::from(b), weight);
        }
        assert_eq!(halves(&[255]), None);
        assert_eq!(narrow(&[-128, 127]), Some(vec![-128, 127]));
        assert_eq!(narrow(&[0, 128]), None);
    }

    #[test]
    fn only_channels_beyond_eight_bits_are_there_twice() {
        let weights = [1, 130, -5, 7, -200, 2];
        assert_eq!(beyond(&weights, 3, 1), [1]);
        assert_eq!(beyond(&weights, 3, 4), [1]);
        assert_eq!(beyond(&weights, 3, 8), [1, 0, 0, 0, 0]);
        assert_eq!(split(&weights, 3, &[1]), Some(vec![1, 127, -5, 3, 7, -128, 2, -72]));
        assert_eq!(split(&weights, 3, &[1, 0]), Some(vec![1, 127, -5, 3, 0, 7, -128, 2, -72, 0]));
        assert_eq!(split(&[255], 1, &[0]), None);
    }

    #[test]
    fn a_fourth_channel_gets_weights_of_zero() {
        assert_eq!(pad_channels(&[1, 2, 3, 4, 5, 6], 3, 4), [1, 2, 3, 0, 4, 5, 6, 0]);
    }
}
