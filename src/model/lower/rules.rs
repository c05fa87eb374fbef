//! Which nodes of a typed graph become which layers. A rule looks at one node, the last of its pattern.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, MaxPool, PoolSpec};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::math::{Add, Div};
use tract_onnx::tract_core::ops::nn::{DataFormat, Reduce, Reducer};
use tract_onnx::tract_core::ops::quant::{DequantizeLinearF32, QuantizeLinearI8, QuantizeLinearU8};

use super::graph::{Graph, height_width_channels};
use crate::kernels::{ConvSpec, Requantize};
use crate::model::program::Affine;

/// A pattern of nodes that our kernels compute.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The graph's node, for people.
    pub(super) name: String,
    /// What it computes.
    pub(super) layer: Layer,
    /// What it reads; constants are in the layer.
    pub(super) inputs: Vec<OutletId>,
    /// What it makes.
    pub(super) output: OutletId,
    /// Further nodes of the pattern, whose results nobody else reads.
    pub(super) covers: Vec<usize>,
}

/// What an entry computes. Zero points are those of `u8` codes.
#[derive(Clone, Debug)]
pub(super) enum Layer {
    Conv(Box<ConvLayer>),
    Dense(Box<DenseLayer>),
    MaxPool {
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 4],
    },
    Quantize {
        reciprocal: f32,
        zero_point: u8,
    },
    Dequantize(Affine),
    Average(Affine),
    Add,
    Linear {
        weights: Box<[f32]>,
        bias: Box<[f32]>,
    },
    Lookup(Box<[u8; 256]>),
    /// The same elements in the same order under another shape.
    View,
}

/// An 8-bit convolution.
#[derive(Clone, Debug)]
pub(super) struct ConvLayer {
    pub(super) spec: ConvSpec,
    /// `[out][in / groups][kernel height][kernel width]`, less the zero point.
    pub(super) weights: Arc<[i16]>,
    pub(super) bias: Vec<i32>,
    pub(super) requantize: Requantize,
    /// The scale of the input: QuantizeLinear's own, of which tract keeps the reciprocal only.
    pub(super) input_scale: f32,
}

/// An 8-bit fully connected layer.
#[derive(Clone, Debug)]
pub(super) struct DenseLayer {
    pub(super) weights: Matrix,
    pub(super) bias: Vec<i32>,
    pub(super) input_zero_point: u8,
    pub(super) requantize: Requantize,
}

/// What a rule says.
pub(super) enum Verdict {
    /// Ours.
    Ours(Entry),
    /// A quantised node that we should know but do not.
    Refused(&'static str),
    /// Not our business.
    Foreign,
}

/// A rule's inner result: `None` is not our business.
type Judged = Option<Result<Entry, &'static str>>;

/// Asks every rule about a node.
pub(super) fn judge(graph: Graph, node: &TypedNode) -> Verdict {
    let rules: [fn(Graph, &TypedNode) -> Judged; 9] =
        [conv, dense, max_pool, quantize, dequantize, average, linear, add, view];
    match rules.iter().find_map(|rule| rule(graph, node)) {
        Some(Ok(entry)) => Verdict::Ours(entry),
        Some(Err(why)) => Verdict::Refused(why),
        None => Verdict::Foreign,
    }
}

fn entry(node: &TypedNode, layer: Layer, inputs: &[OutletId], covers: Vec<usize>) -> Entry {
    Entry { name: node.name.clone(), layer, inputs: inputs.into(), output: node.id.into(), covers }
}

/// What is added to an `i8` code to make it a `u8` code.
fn shift(datum_type: DatumType) -> Option<i32> {
    match datum_type {
        DatumType::U8 => Some(0),
        DatumType::I8 => Some(128),
        _ => None,
    }
}

fn zero_point(value: i32, datum_type: DatumType) -> Option<u8> {
    u8::try_from(value + shift(datum_type)?).ok()
}

/// One value for all outputs, or one each.
fn per_output<T: Copy>(values: Vec<T>, outputs: usize) -> Option<Vec<T>> {
    match values.len() {
        1 => Some(vec![values[0]; outputs]),
        n if n == outputs => Some(values),
        _ => None,
    }
}

/// The seven constants of a quantised product, in tract's order: bias, then zero point and scale of input, weights, output.
struct Quantization {
    bias: Vec<i32>,
    input: Affine,
    weight_zero_points: Vec<i32>,
    requantize: Requantize,
}

fn quantization(graph: Graph, node: &TypedNode, outputs: usize) -> Result<Quantization, &'static str> {
    const CONSTANT: &str = "a scale, zero point or bias is no constant, or has an unexpected shape";
    let input_type = graph.tensor(node.inputs[0]).ok_or("its input has an unknown shape or a batch above 1")?.0;
    let output_type = graph.tensor(node.id.into()).ok_or("its output has an unknown shape")?.0;
    let read = || {
        let bias = per_output(graph.constants::<i32>(node.inputs[2])?, outputs)?;
        let input_zero = zero_point(graph.scalar(node.inputs[3])?, input_type)?;
        let input_scale: f32 = graph.scalar(node.inputs[4])?;
        let weight_zero_points = per_output(graph.constants::<i32>(node.inputs[5])?, outputs)?;
        let weight_scales = per_output(graph.constants::<f32>(node.inputs[6])?, outputs)?;
        let output_zero = zero_point(graph.scalar(node.inputs[7])?, output_type)?;
        let output_scale: f32 = graph.scalar(node.inputs[8])?;
        // onnxruntime's order of operations
        let multiplier: Vec<f32> = weight_scales.iter().map(|w| input_scale * w / output_scale).collect();
        Some(Quantization {
            bias,
            input: Affine { scale: input_scale, zero_point: input_zero },
            weight_zero_points,
            requantize: Requantize { multiplier, zero_point: output_zero, min: 0, max: 255 },
        })
    };
    let quantization = read().ok_or(CONSTANT)?;
    let multiplier = &quantization.requantize.multiplier;
    if !multiplier.iter().all(|m| m.is_finite() && *m > 0.0) {
        return Err("a scale is not a positive number");
    }
    Ok(quantization)
}

fn is_codes(datum_type: DatumType) -> bool {
    shift(datum_type).is_some()
}

/// QLinearConv.
fn conv(graph: Graph, node: &TypedNode) -> Judged {
    let op = node.op_as::<Conv>()?;
    op.q_params.filter(|dt| is_codes(*dt))?;
    Some(conv_entry(graph, node, op))
}

fn conv_entry(graph: Graph, node: &TypedNode, op: &Conv) -> Result<Entry, &'static str> {
    let pool = &op.pool_spec;
    if op.kernel_fmt != KernelFormat::OIHW || pool.data_format != DataFormat::NCHW || pool.kernel_shape.len() != 2 {
        return Err("only two-dimensional convolutions over [1, channels, height, width] are lowered");
    }
    let (input_type, input) =
        graph.tensor(node.inputs[0]).ok_or("its input has an unknown shape or a batch above 1")?;
    if !is_codes(input_type) || input.len() != 4 {
        return Err("its input is not 8-bit");
    }
    let outputs = pool.output_channels;
    let quantization = quantization(graph, node, outputs)?;
    let weights = graph.constant(node.inputs[1]).ok_or("its weights are no constant")?;
    if !is_codes(weights.datum_type()) {
        return Err("its weights are not 8-bit");
    }
    let weights = graph.constants::<i16>(node.inputs[1]).ok_or("its weights cannot be read")?;
    let each = weights.len() / outputs.max(1);
    let weights = weights
        .chunks(each.max(1))
        .zip(&quantization.weight_zero_points)
        .flat_map(|(channel, &zero)| channel.iter().map(move |&w| w.wrapping_sub(zero as i16)))
        .collect();
    let spec = ConvSpec {
        in_channels: pool.input_channels,
        out_channels: outputs,
        kernel: [pool.kernel_shape[0], pool.kernel_shape[1]],
        stride: [pool.stride(0), pool.stride(1)],
        dilation: [pool.dilation(0), pool.dilation(1)],
        padding: padding(pool, [input[2], input[3]]),
        groups: op.group,
        input_zero_point: quantization.input.zero_point,
        pool: false,
    };
    let layer = ConvLayer {
        spec,
        weights,
        bias: quantization.bias,
        requantize: quantization.requantize,
        input_scale: quantization.input.scale,
    };
    Ok(entry(node, Layer::Conv(Box::new(layer)), &node.inputs[..1], vec![]))
}

fn padding(pool: &PoolSpec, input: [usize; 2]) -> [usize; 4] {
    let dims = pool.computed_padding(&input);
    [dims[0].pad_before, dims[1].pad_before, dims[0].pad_after, dims[1].pad_after]
}

fn max_pool(graph: Graph, node: &TypedNode) -> Judged {
    let op = node.op_as::<MaxPool>()?;
    let (input_type, input) = graph.tensor(node.inputs[0])?;
    let pool = &op.pool_spec;
    let plain = input.len() == 4 && pool.kernel_shape.len() == 2 && pool.data_format == DataFormat::NCHW;
    if !is_codes(input_type) || !plain {
        return None;
    }
    if op.with_index_outputs.is_some() || pool.dilations().iter().any(|d| *d != 1) {
        return Some(Err("max-pools with dilation or with indices are not lowered"));
    }
    let kernel = [pool.kernel_shape[0], pool.kernel_shape[1]];
    let stride = [pool.stride(0), pool.stride(1)];
    let padding = padding(pool, [input[2], input[3]]);
    let sides = [0, 1].map(|d| {
        let padded = input[2 + d] + padding[d] + padding[d + 2];
        padded.checked_sub(kernel[d]).map(|rest| rest / stride[d].max(1) + 1)
    });
    let output = graph.tensor(node.id.into())?.1;
    if sides != [Some(output[2]), Some(output[3])] {
        return Some(Err("a max-pool whose last window hangs over the edge is not lowered"));
    }
    Some(Ok(entry(node, Layer::MaxPool { kernel, stride, padding }, &node.inputs, vec![])))
}

fn quantizer(node: &TypedNode) -> Option<(f32, u8)> {
    let op = node.op_as::<ElementWiseOp>()?;
    if let Some(op) = op.0.downcast_ref::<QuantizeLinearU8>() {
        return Some((op.scale, op.zero_point));
    }
    let op = op.0.downcast_ref::<QuantizeLinearI8>()?;
    Some((op.scale, zero_point(i32::from(op.zero_point), DatumType::I8)?))
}

/// QuantizeLinear: of a function of one code (then a table), else of floats.
fn quantize(graph: Graph, node: &TypedNode) -> Judged {
    let (reciprocal, zero_point) = quantizer(node)?;
    if let Some(lookup) = lookup(graph, node) {
        return Some(Ok(lookup));
    }
    let (input_type, _) = graph.tensor(node.inputs[0])?;
    (input_type == DatumType::F32)
        .then(|| Ok(entry(node, Layer::Quantize { reciprocal, zero_point }, &node.inputs, vec![])))
}

/// DequantizeLinear, element-wise operations, QuantizeLinear: run once for each of the 256 codes.
fn lookup(graph: Graph, node: &TypedNode) -> Option<Entry> {
    let mut chain = vec![node];
    let mut at = graph.private(node.inputs[0])?;
    while at.op_as::<DequantizeLinearF32>().is_none() {
        let variable = element_wise_input(graph, at)?;
        chain.push(at);
        at = graph.private(variable)?;
    }
    let (code_type, _) = graph.tensor(at.inputs[0])?;
    let rank = graph.tensor(node.id.into())?.1.len();
    chain.push(at);
    let codes: Vec<u8> = (0..=255u8).map(|c| c ^ shift(code_type).unwrap_or(0) as u8).collect();
    let mut shape = vec![1; rank];
    shape[1] = 256;
    let mut value = match code_type {
        DatumType::U8 => Tensor::from_shape(&shape, &codes).ok()?,
        DatumType::I8 => Tensor::from_shape(&shape, &codes.iter().map(|c| *c as i8).collect::<Vec<_>>()).ok()?,
        _ => return None,
    };
    for step in chain.iter().rev() {
        let inputs = step.inputs.iter().map(|outlet| match graph.constant(*outlet) {
            Some(constant) => uniform_of_rank(&constant, rank),
            None => Some(value.clone().into_tvalue()),
        });
        let inputs: TVec<TValue> = inputs.collect::<Option<_>>()?;
        value = step.op.eval_out_of_plan(inputs).ok()??.remove(0).into_tensor();
    }
    let codes: Vec<u8> = match value.datum_type() {
        DatumType::U8 => value.try_as_plain_ram().ok()?.as_slice::<u8>().ok()?.to_vec(),
        DatumType::I8 => {
            value.try_as_plain_ram().ok()?.as_slice::<i8>().ok()?.iter().map(|c| *c as u8 ^ 0x80).collect()
        }
        _ => return None,
    };
    let table: [u8; 256] = codes.try_into().ok()?;
    let covers = chain[1..].iter().map(|n| n.id).collect();
    Some(entry(node, Layer::Lookup(Box::new(table)), &at.inputs[..1], covers))
}

/// The one variable input of an operation that treats every element alike.
fn element_wise_input(graph: Graph, node: &TypedNode) -> Option<OutletId> {
    if node.op_as::<ElementWiseOp>().is_some() {
        return Some(node.inputs[0]);
    }
    node.op_as::<TypedBinOp>()?;
    let variable: Vec<OutletId> = node.inputs.iter().copied().filter(|i| graph.constant(*i).is_none()).collect();
    let uniform = node.inputs.iter().filter_map(|i| graph.constant(*i)).all(|c| c.is_uniform());
    (variable.len() == 1 && uniform).then(|| variable[0])
}

fn uniform_of_rank(constant: &Tensor, rank: usize) -> Option<TValue> {
    let scalar = constant.as_uniform()?;
    Some(scalar.broadcast_into_rank(rank).ok()?.into_tvalue())
}

fn affine(graph: Graph, node: &TypedNode) -> Option<Affine> {
    let op = node.op_as::<DequantizeLinearF32>()?;
    let (code_type, _) = graph.tensor(node.inputs[0])?;
    Some(Affine { scale: op.scale, zero_point: zero_point(op.zero_point, code_type)? })
}

fn dequantize(graph: Graph, node: &TypedNode) -> Judged {
    let affine = affine(graph, node)?;
    Some(Ok(entry(node, Layer::Dequantize(affine), &node.inputs, vec![])))
}

/// GlobalAveragePool of dequantised codes: tract has it as a sum over the image, divided by the number of pixels.
fn average(graph: Graph, node: &TypedNode) -> Judged {
    node.op_as::<TypedBinOp>()?.0.downcast_ref::<Div>()?;
    let count: f32 = graph.scalar(node.inputs[1])?;
    let sum = graph.private(node.inputs[0])?;
    let reduce = sum.op_as::<Reduce>()?;
    let floats = graph.node(sum.inputs[0].node);
    let affine = affine(graph, floats)?;
    let (_, shape) = graph.tensor(floats.inputs[0])?;
    let whole_image = reduce.axes.as_slice() == [2, 3] && shape.len() == 4 && count == (shape[2] * shape[3]) as f32;
    if reduce.reducer != Reducer::Sum || !whole_image {
        return None;
    }
    let mut covers = vec![sum.id];
    if graph.users(sum.inputs[0]) == 1 {
        covers.push(floats.id);
    }
    Some(Ok(entry(node, Layer::Average(affine), &floats.inputs, covers)))
}

/// The sum of two float tensors of one shape: the residual connection.
fn add(graph: Graph, node: &TypedNode) -> Judged {
    node.op_as::<TypedBinOp>()?.0.downcast_ref::<Add>()?;
    let inputs: Option<Vec<_>> = node.inputs.iter().map(|i| graph.tensor(*i)).collect();
    let inputs = inputs?;
    let alike = inputs.len() == 2 && inputs[0] == inputs[1] && inputs[0].0 == DatumType::F32 && inputs[0].1.len() == 4;
    let variable = node.inputs.iter().all(|i| graph.constant(*i).is_none()) && node.inputs[0] != node.inputs[1];
    (alike && variable).then(|| Ok(entry(node, Layer::Add, &node.inputs, vec![])))
}

/// Gemm or MatMul on one row of floats, with a bias where one follows.
fn linear(graph: Graph, node: &TypedNode) -> Judged {
    if let Some(op) = node.op_as::<EinSum>() {
        // with a bias behind it, the pattern ends there
        let follower = graph.model.single_succ(node.id).ok().flatten();
        let biased = follower.is_some_and(|f| bias_of(graph, f, node.id).is_some());
        return if biased { None } else { linear_entry(graph, node, node, op, None) };
    }
    node.op_as::<TypedBinOp>()?;
    let product = node.inputs.iter().map(|i| i.node).find(|id| graph.node(*id).op_is::<EinSum>())?;
    let bias = bias_of(graph, node, product)?;
    let product = graph.private(product.into())?;
    linear_entry(graph, node, product, product.op_as::<EinSum>()?, Some(bias))
}

/// The constant that `node` adds to what `product` makes.
fn bias_of(graph: Graph, node: &TypedNode, product: usize) -> Option<Vec<f32>> {
    node.op_as::<TypedBinOp>()?.0.downcast_ref::<Add>()?;
    let other = node.inputs.iter().find(|i| i.node != product)?;
    let outputs = *graph.tensor(product.into())?.1.last()?;
    per_output(graph.constants::<f32>(*other)?, outputs)
}

fn linear_entry(graph: Graph, node: &TypedNode, product: &TypedNode, op: &EinSum, bias: Option<Vec<f32>>) -> Judged {
    if op.q_params.is_some() || op.operating_dt != DatumType::F32 {
        return None;
    }
    let shape = MatrixShape::of(graph, product, op)?;
    let weights = shape.by_output(&graph.constants::<f32>(product.inputs[1])?);
    let (source, mut covers) = behind_flatten(graph, product.inputs[0], shape.inputs)?;
    let (datum_type, source_shape) = graph.tensor(source)?;
    if datum_type != DatumType::F32 {
        return None;
    }
    let weights = channels_last(weights, shape.inputs, &source_shape);
    let bias = bias.unwrap_or_else(|| vec![0.0; shape.outputs]);
    if product.id != node.id {
        covers.push(product.id);
    }
    let layer = Layer::Linear { weights: weights.into(), bias: bias.into() };
    Some(Ok(entry(node, layer, &[source], covers)))
}

/// QLinearMatMul with constant weights.
fn dense(graph: Graph, node: &TypedNode) -> Judged {
    let op = node.op_as::<EinSum>()?;
    op.q_params.filter(|dt| is_codes(*dt))?;
    Some(dense_entry(graph, node, op))
}

fn dense_entry(graph: Graph, node: &TypedNode, op: &EinSum) -> Result<Entry, &'static str> {
    let shape = MatrixShape::of(graph, node, op).ok_or("only one row times a constant matrix is lowered")?;
    let quantization = quantization(graph, node, shape.outputs)?;
    let tensor = graph.constant(node.inputs[1]).ok_or("its weights cannot be read")?;
    let (source, covers) =
        behind_flatten(graph, node.inputs[0], shape.inputs).ok_or("its input has an unknown shape")?;
    let (_, source_shape) = graph.tensor(source).ok_or("its input has an unknown shape")?;
    let layer = DenseLayer {
        weights: Matrix { tensor, shape, zero_points: quantization.weight_zero_points, source: source_shape },
        bias: quantization.bias,
        input_zero_point: quantization.input.zero_point,
        requantize: quantization.requantize,
    };
    Ok(entry(node, Layer::Dense(Box::new(layer)), &[source], covers))
}

/// The weights of a fully connected layer as they lie in the graph. They are read when the layer is packed, so that no copy waits for that:
/// VGG16's first have 103 MB.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    tensor: Arc<Tensor>,
    shape: MatrixShape,
    /// One an output.
    zero_points: Vec<i32>,
    /// The shape of the tensor that is multiplied, in the graph.
    source: Vec<usize>,
}

impl Matrix {
    /// `[out][in]`, less the zero point, in the order of the NHWC input; `None` where one does not fit into 8 bits.
    pub(super) fn by_output(&self) -> Option<Vec<i8>> {
        match self.tensor.datum_type() {
            DatumType::I8 => self.gather(self.tensor.try_as_plain_ram().ok()?.as_slice::<i8>().ok()?),
            DatumType::U8 => self.gather(self.tensor.try_as_plain_ram().ok()?.as_slice::<u8>().ok()?),
            _ => self.gather(self.tensor.cast_to::<i16>().ok()?.try_as_plain_ram().ok()?.as_slice::<i16>().ok()?),
        }
    }

    fn gather<T: Copy + Into<i32>>(&self, matrix: &[T]) -> Option<Vec<i8>> {
        /// Outputs at once: a cache line of a matrix that lies by inputs.
        const BLOCK: usize = 64;
        let MatrixShape { inputs, outputs, by_rows } = self.shape;
        let [height, width, channels] = height_width_channels(&self.source);
        let pixels = height * width;
        let (across, down) = if by_rows { (inputs, 1) } else { (1, outputs) };
        let mut gathered = vec![0; matrix.len()];
        let mut fits = true;
        for (first, rows) in gathered.chunks_mut((inputs * BLOCK).max(1)).enumerate().map(|(i, rows)| (i * BLOCK, rows))
        {
            for to in 0..inputs {
                let from = (to % channels * pixels + to / channels) * down;
                for (output, row) in rows.chunks_exact_mut(inputs.max(1)).enumerate().map(|(o, row)| (first + o, row)) {
                    let weight = matrix[from + output * across].into() - self.zero_points[output];
                    row[to] = weight as i8;
                    fits &= i32::from(row[to]) == weight;
                }
            }
        }
        fits.then_some(gathered)
    }
}

/// A vector times a constant matrix.
#[derive(Clone, Copy, Debug)]
struct MatrixShape {
    inputs: usize,
    outputs: usize,
    /// The matrix is `[outputs][inputs]`.
    by_rows: bool,
}

impl MatrixShape {
    fn of(graph: Graph, node: &TypedNode, op: &EinSum) -> Option<MatrixShape> {
        let (_, vector) = graph.tensor(node.inputs[0])?;
        let matrix = graph.constant(node.inputs[1])?;
        let (&[1, inputs], &[rows, columns]) = (vector.as_slice(), matrix.shape()) else { return None };
        // the axis of the result that the matrix provides
        let axis = op.axes.axis((InOut::Out(0), 1)).ok()?;
        let place = *axis.inputs.get(1)?.first()?;
        let by_rows = place == 0;
        let outputs = if by_rows { rows } else { columns };
        (inputs * outputs == matrix.len()).then_some(MatrixShape { inputs, outputs, by_rows })
    }

    fn by_output<T: Copy>(&self, matrix: &[T]) -> Vec<T> {
        if self.by_rows {
            return matrix.to_vec();
        }
        let element = |index: usize| matrix[index % self.inputs * self.outputs + index / self.inputs];
        (0..matrix.len()).map(element).collect()
    }
}

/// Looks through reshapes that only flatten `[1, channels, height, width]` to the tensor that is flattened.
fn behind_flatten(graph: Graph, outlet: OutletId, elements: usize) -> Option<(OutletId, Vec<usize>)> {
    let mut at = outlet;
    let mut covers = Vec::new();
    while let Some(node) = graph.private(at).filter(|n| keeps_order(graph, n)) {
        covers.push(node.id);
        at = node.inputs[0];
    }
    let (_, shape) = graph.tensor(at)?;
    (shape.iter().product::<usize>() == elements).then_some((at, covers))
}

/// A change of axes that leaves the elements in order (in tract's layout).
fn keeps_order(graph: Graph, node: &TypedNode) -> bool {
    match node.op_as::<AxisOp>() {
        Some(AxisOp::Move(from, to)) => from == to,
        Some(_) => graph.tensor(node.inputs[0]).is_some() && graph.tensor(node.id.into()).is_some(),
        None => false,
    }
}

/// The columns of `[out][channels][pixels]` in the order of an NHWC input: `[out][pixels][channels]`.
fn channels_last<T: Copy>(weights: Vec<T>, inputs: usize, source: &[usize]) -> Vec<T> {
    let [height, width, channels] = height_width_channels(source);
    let pixels = height * width;
    if pixels == 1 || channels == 1 {
        return weights;
    }
    let row = |row: &[T]| (0..inputs).map(|i| row[i % channels * pixels + i / channels]).collect::<Vec<T>>();
    weights.chunks(inputs.max(1)).flat_map(row).collect()
}

/// A change of axes after which our layout is still the same.
fn view(graph: Graph, node: &TypedNode) -> Judged {
    if !keeps_order(graph, node) {
        return None;
    }
    let (datum_type, from) = graph.tensor(node.inputs[0])?;
    let (_, to) = graph.tensor(node.id.into())?;
    let same = height_width_channels(&from) == height_width_channels(&to);
    (same && (datum_type == DatumType::F32 || is_codes(datum_type)))
        .then(|| Ok(entry(node, Layer::View, &node.inputs, vec![])))
}
