//! Products in the QDQ form: `DequantizeLinear → Conv | Gemm | MatMul → (Relu | Clip) → QuantizeLinear` is a product of codes.

use std::collections::HashMap;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{NodeProto, TensorProto};

use super::graph::{Graph, Grid, GridValues, Quantised, dequantize, grid_of, quantize};
use crate::onnx::{codes, dims, float_or, float_tensor, floats, integer_or, node};

pub(super) fn rewrite(graph: &mut Graph) {
    let nodes = std::mem::take(&mut graph.nodes);
    let (makers, readers) = (Graph::makers(&nodes), Graph::readers(&nodes));
    let view = View { nodes: &nodes, makers: &makers, readers: &readers };
    let mut rewritten = Vec::with_capacity(nodes.len());
    for node in &nodes {
        match (node.op_type == "QuantizeLinear").then(|| product(graph, &view, node)).flatten() {
            Some(replacement) => rewritten.extend(replacement),
            None => rewritten.push(node.clone()),
        }
    }
    graph.nodes = rewritten;
}

/// The nodes as they were.
struct View<'a> {
    nodes: &'a [NodeProto],
    makers: &'a HashMap<String, usize>,
    readers: &'a HashMap<String, usize>,
}

impl<'a> View<'a> {
    fn maker(&self, name: &str) -> Option<&'a NodeProto> {
        self.makers.get(name).map(|i| &self.nodes[*i])
    }

    /// The maker of a tensor that has one reader.
    fn private(&self, graph: &Graph, name: &str) -> Option<&'a NodeProto> {
        (self.readers.get(name) == Some(&1) && !graph.is_fixed(name)).then(|| self.maker(name)).flatten()
    }

    fn dequantised(&self, name: &str) -> Option<(Quantised, &'a NodeProto)> {
        let node = self.maker(name).filter(|n| n.op_type == "DequantizeLinear")?;
        Some((Quantised { codes: node.input[0].clone(), grid: grid_of(node)? }, node))
    }

    fn shared(&self, name: &str) -> bool {
        self.readers.get(name).copied().unwrap_or(0) > 1
    }
}

/// What takes the place of a QuantizeLinear behind a product.
fn product(graph: &mut Graph, view: &View, last: &NodeProto) -> Option<Vec<NodeProto>> {
    let output_grid = grid_of(last)?;
    graph.uniform_grid(&output_grid)?;
    let mut activations = Vec::new();
    let mut at = view.private(graph, &last.input[0])?;
    while matches!(at.op_type.as_str(), "Relu" | "Clip") {
        activations.push(at);
        at = view.private(graph, &at.input[0])?;
    }
    // the codes of the product itself, where an activation follows
    let codes =
        if activations.is_empty() { last.output[0].clone() } else { graph.fresh(&format!("{}.codes", at.output[0])) };
    let mut nodes = match at.op_type.as_str() {
        "Conv" => conv(graph, view, at, &output_grid, &codes)?,
        "Gemm" => gemm(graph, view, at, &output_grid, &codes)?,
        "MatMul" => matmul(graph, view, at, &output_grid, &codes)?,
        _ => return None,
    };
    if !activations.is_empty() {
        let mut value = graph.fresh(&format!("{}.float", at.output[0]));
        nodes.push(dequantize(&format!("{}.dequantize", at.name), &codes, &output_grid, &value));
        for activation in activations.into_iter().rev() {
            let mut activation = activation.clone();
            activation.input[0] = value;
            value = graph.fresh(&format!("{}.clipped", activation.output[0]));
            activation.output[0].clone_from(&value);
            nodes.push(activation);
        }
        nodes.push(quantize(&last.name, &value, &output_grid, &last.output[0]));
    }
    Some(nodes)
}

/// The first operand: codes that come from somewhere, on one grid.
fn input(graph: &Graph, view: &View, name: &str) -> Option<(Quantised, GridValues)> {
    let (input, _) = view.dequantised(name)?;
    let values = graph.uniform_grid(&input.grid).filter(|v| is_byte(v.data_type))?;
    graph.constant(&input.codes).is_none().then_some((input, values))
}

/// The second operand: constant codes, on one grid or on one for each index of `axis`.
fn weights(graph: &Graph, view: &View, name: &str, axis: i64) -> Option<(Quantised, GridValues)> {
    let (weights, node) = view.dequantised(name)?;
    let values = graph.grid_values(&weights.grid).filter(|v| is_byte(v.data_type))?;
    let shape = dims(graph.constant(&weights.codes)?);
    let along = integer_or(node, "axis", 1);
    let along = if along < 0 { along + shape.len() as i64 } else { along };
    let size = shape.get(usize::try_from(axis).ok()?)?;
    let per_output = along == axis && values.scales.len() == *size && values.zeros.len() == *size;
    (values.scales.len() == 1 && values.zeros.len() == 1 || per_output).then_some((weights, values))
}

fn is_byte(data_type: i32) -> bool {
    [DataType::Uint8 as i32, DataType::Int8 as i32].contains(&data_type)
}

fn conv(graph: &mut Graph, view: &View, at: &NodeProto, output: &Grid, codes: &str) -> Option<Vec<NodeProto>> {
    let (x, x_values) = input(graph, view, &at.input[0])?;
    let (w, w_values) = weights(graph, view, &at.input[1], 0)?;
    let outputs = *dims(graph.constant(&w.codes)?).first()?;
    let bias = bias(graph, view, at.input.get(2), &x_values, &w_values, outputs)?;
    let mut inputs =
        vec![&x.codes, &x.grid.scale, &x.grid.zero, &w.codes, &w.grid.scale, &w.grid.zero, &output.scale, &output.zero];
    inputs.extend(&bias);
    let inputs: Vec<&str> = inputs.into_iter().map(String::as_str).collect();
    Some(vec![node("QLinearConv", &at.name, &inputs, codes, at.attribute.clone())])
}

fn gemm(graph: &mut Graph, view: &View, at: &NodeProto, output: &Grid, codes: &str) -> Option<Vec<NodeProto>> {
    let by_output = integer_or(at, "transB", 0) != 0;
    let biased = at.input.get(2).is_some_and(|b| !b.is_empty());
    if integer_or(at, "transA", 0) != 0
        || float_or(at, "alpha", 1.0) != 1.0
        || biased && float_or(at, "beta", 1.0) != 1.0
    {
        return None;
    }
    let (x, x_values) = input(graph, view, &at.input[0])?;
    let (w, w_values) = weights(graph, view, &at.input[1], if by_output { 0 } else { 1 })?;
    let &[rows, columns] = dims(graph.constant(&w.codes)?).as_slice() else { return None };
    let outputs = if by_output { rows } else { columns };
    let layer = FullyConnected {
        name: &at.name,
        input: &x.codes,
        input_grid: &x.grid,
        weights: &w.codes,
        weights_grid: &w.grid,
        by_output,
        bias: bias(graph, view, at.input.get(2), &x_values, &w_values, outputs)?,
        output_grid: output,
        output: codes,
    };
    fully_connected(graph, &layer, view.shared(&w.codes))
}

fn matmul(graph: &mut Graph, view: &View, at: &NodeProto, output: &Grid, codes: &str) -> Option<Vec<NodeProto>> {
    let (x, _) = input(graph, view, &at.input[0])?;
    let (w, _) = weights(graph, view, &at.input[1], 1)?;
    if dims(graph.constant(&w.codes)?).len() != 2 {
        return None;
    }
    let inputs =
        [&x.codes, &x.grid.scale, &x.grid.zero, &w.codes, &w.grid.scale, &w.grid.zero, &output.scale, &output.zero];
    Some(vec![node("QLinearMatMul", &at.name, &inputs.map(String::as_str), codes, vec![])])
}

/// The bias as i32 in units of input scale times weight scale: `Some(None)` without one, `None` where it is not known.
fn bias(
    graph: &mut Graph,
    view: &View,
    name: Option<&String>,
    input: &GridValues,
    weights: &GridValues,
    outputs: usize,
) -> Option<Option<String>> {
    let Some(name) = name.filter(|n| !n.is_empty()) else { return Some(None) };
    let (values, units) = match (graph.constant(name), view.dequantised(name)) {
        (Some(constant), _) => (floats(constant)?.into_iter().map(f64::from).collect::<Vec<f64>>(), vec![1.0]),
        (None, Some((bias, _))) => {
            let grid = graph.grid_values(&bias.grid).filter(|g| g.zeros.iter().all(|z| *z == 0))?;
            (codes(graph.constant(&bias.codes)?)?.into_iter().map(f64::from).collect(), grid.scales)
        }
        _ => return None,
    };
    let pick = |values: &[f32], c: usize| f64::from(values[if values.len() == 1 { 0 } else { c }]);
    let fits = |len: usize| len == 1 || len == outputs;
    if !fits(values.len()) || !fits(units.len()) {
        return None;
    }
    let value = |c: usize| {
        let value = values[if values.len() == 1 { 0 } else { c }];
        let ratio = pick(&units, c) / (pick(&input.scales, 0) * pick(&weights.scales, c));
        // the exporter's scale is this product, in f32
        let ratio = if (ratio - 1.0).abs() < 1e-5 { 1.0 } else { ratio };
        (value * ratio).round_ties_even() as i32
    };
    let bytes = (0..outputs).flat_map(|c| value(c).to_le_bytes()).collect();
    Some(Some(graph.add(&format!("{name}.i32"), DataType::Int32, &[outputs], bytes)))
}

/// A fully connected layer on codes.
pub(super) struct FullyConnected<'a> {
    pub(super) name: &'a str,
    pub(super) input: &'a str,
    pub(super) input_grid: &'a Grid,
    /// A constant matrix.
    pub(super) weights: &'a str,
    pub(super) weights_grid: &'a Grid,
    /// The matrix is `[outputs][inputs]`, else `[inputs][outputs]`.
    pub(super) by_output: bool,
    /// i32, in units of input scale times weight scale.
    pub(super) bias: Option<String>,
    pub(super) output_grid: &'a Grid,
    pub(super) output: &'a str,
}

/// The layer as a QLinearConv over a picture of one pixel (QLinearMatMul has no bias). `None` where the weights are no constant matrix;
/// `shared` says that somebody else reads them too.
pub(super) fn fully_connected(graph: &mut Graph, layer: &FullyConnected, shared: bool) -> Option<Vec<NodeProto>> {
    let shape = dims(graph.constant(layer.weights)?);
    let [rows, columns] = shape[..] else { return None };
    let (outputs, inputs) = if layer.by_output { (rows, columns) } else { (columns, rows) };
    let bias = match &layer.bias {
        Some(bias) => Some(flat_bias(graph, bias, outputs)?),
        None => None,
    };
    let weights = matrix(graph, layer, shared, [outputs, inputs])?;
    let shape = |graph: &mut Graph, hint: &str, axes: &[i64]| {
        let bytes = axes.iter().flat_map(|a| a.to_le_bytes()).collect();
        graph.add(&format!("{}.{hint}", layer.output), DataType::Int64, &[axes.len()], bytes)
    };
    let (image, flat) =
        (shape(graph, "image", &[-1, inputs as i64, 1, 1]), shape(graph, "flat", &[-1, outputs as i64]));
    let [pixel, result] = ["pixel", "result"].map(|hint| graph.fresh(&format!("{}.{hint}", layer.output)));
    let (x, w, y) = (layer.input_grid, layer.weights_grid, layer.output_grid);
    let mut operands = vec![pixel.as_str(), &x.scale, &x.zero, &weights, &w.scale, &w.zero, &y.scale, &y.zero];
    operands.extend(bias.as_deref());
    let name = layer.name;
    Some(vec![
        node("Reshape", &format!("{name}.pixel"), &[layer.input, &image], &pixel, vec![]),
        node("QLinearConv", name, &operands, &result, vec![]),
        node("Reshape", &format!("{name}.flat"), &[&result, &flat], layer.output, vec![]),
    ])
}

/// The bias as `[outputs]`.
fn flat_bias(graph: &mut Graph, name: &str, outputs: usize) -> Option<String> {
    let tensor = graph.constant(name)?;
    if dims(tensor) == [outputs] {
        return Some(name.to_owned());
    }
    let values = codes(tensor).filter(|v| v.len() == 1 || v.len() == outputs)?;
    let bytes = (0..outputs).flat_map(|c| values[if values.len() == 1 { 0 } else { c }].to_le_bytes()).collect();
    Some(graph.add(&format!("{name}.flat"), DataType::Int32, &[outputs], bytes))
}

/// The weights as `[outputs][inputs][1][1]`; their bytes move where nobody else reads them.
fn matrix(graph: &mut Graph, layer: &FullyConnected, shared: bool, [outputs, inputs]: [usize; 2]) -> Option<String> {
    let shape = [outputs, inputs, 1, 1];
    let tensor = graph.constant(layer.weights)?;
    let data_type = DataType::try_from(tensor.data_type).ok().filter(|t| is_byte(*t as i32))?;
    let hint = format!("{}.matrix", layer.weights);
    if layer.by_output {
        let tensor = if shared { tensor.clone() } else { graph.take_constant(layer.weights)? };
        let name = graph.fresh(&hint);
        graph.set_constant(TensorProto { name: name.clone(), dims: shape.map(|d| d as i64).to_vec(), ..tensor });
        return Some(name);
    }
    let values = codes(tensor).filter(|v| v.len() == outputs * inputs)?;
    // the low byte is that of a u8 and of an i8
    let bytes = (0..values.len()).map(|i| values[i % inputs * outputs + i / inputs] as u8).collect();
    Some(graph.add(&hint, data_type, &shape, bytes))
}

/// An i32 bias in floats: times input scale times weight scale.
pub(super) fn float_bias(graph: &mut Graph, name: &str, input: &Grid, weights: &Grid) -> Option<String> {
    let values = codes(graph.constant(name)?)?;
    let x = floats(graph.constant(&input.scale)?).filter(|s| s.len() == 1)?[0];
    let w = floats(graph.constant(&weights.scale)?).filter(|s| s.len() == 1 || s.len() == values.len())?;
    let value = |(c, value): (usize, &i32)| *value as f32 * x * w[if w.len() == 1 { 0 } else { c }];
    let values: Vec<f32> = values.iter().enumerate().map(value).collect();
    let fresh = graph.fresh(&format!("{name}.float"));
    graph.set_constant(float_tensor(fresh.clone(), &[values.len()], &values));
    Some(fresh)
}
