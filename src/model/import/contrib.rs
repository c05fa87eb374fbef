//! onnxruntime's own quantised operators, as `quantize_static` writes them in its QOperator form: each becomes the float operation that it
//! stands for, between DequantizeLinear and QuantizeLinear; QGemm becomes a product of codes at once where it can.
//!
//! The order of inputs is that of onnxruntime's `docs/ContribOperators.md`.

use tract_onnx::pb::NodeProto;

use super::graph::{Graph, Grid, dequantize, quantize};
use super::products::{self, FullyConnected};
use crate::onnx::{attribute, float_or, integer_or, node};

pub(super) fn rewrite(graph: &mut Graph) {
    let readers = Graph::readers(&graph.nodes);
    for node in std::mem::take(&mut graph.nodes) {
        let shared = |name: &str| readers.get(name).copied().unwrap_or(0) > 1;
        match replacement(graph, &node, &shared) {
            Some(nodes) => graph.nodes.extend(nodes),
            None => graph.nodes.push(node),
        }
    }
}

fn replacement(graph: &mut Graph, node: &NodeProto, shared: &dyn Fn(&str) -> bool) -> Option<Vec<NodeProto>> {
    // after onnxruntime's own change of layout; nothing else reads such a file
    if integer_or(node, "channels_last", 0) != 0 {
        return None;
    }
    let input = |i: usize| node.input.get(i).map(String::as_str).unwrap_or_default();
    let grid = |i: usize| Grid { scale: input(i).into(), zero: input(i + 1).into() };
    let (op, operands, output) = match node.op_type.as_str() {
        "QLinearAdd" => ("Add", vec![(input(0), grid(1)), (input(3), grid(4))], grid(6)),
        "QLinearMul" => ("Mul", vec![(input(0), grid(1)), (input(3), grid(4))], grid(6)),
        "QLinearSigmoid" => ("Sigmoid", vec![(input(0), grid(1))], grid(3)),
        "QLinearLeakyRelu" => ("LeakyRelu", vec![(input(0), grid(1))], grid(3)),
        "QLinearSoftmax" => ("Softmax", vec![(input(0), grid(1))], grid(3)),
        "QLinearAveragePool" => ("AveragePool", vec![(input(0), grid(1))], grid(3)),
        "QLinearGlobalAveragePool" => ("GlobalAveragePool", vec![(input(0), grid(1))], grid(3)),
        "QLinearReduceMean" => ("ReduceMean", vec![(input(0), grid(1))], grid(3)),
        "QLinearConcat" => {
            let parts = (2..node.input.len()).step_by(3).map(|i| (input(i), grid(i + 1))).collect();
            ("Concat", parts, grid(0))
        }
        "QGemm" => return gemm(graph, node, shared),
        _ => return None,
    };
    Some(in_float(graph, node, op, &operands, &output))
}

/// The operation in float.
fn in_float(graph: &mut Graph, node: &NodeProto, op: &str, operands: &[(&str, Grid)], output: &Grid) -> Vec<NodeProto> {
    let (mut nodes, mut floats) = (Vec::new(), Vec::new());
    let name = &node.name;
    for (index, (codes, grid)) in operands.iter().enumerate() {
        let float = graph.fresh(&format!("{}.input{index}", node.output[0]));
        nodes.push(dequantize(&format!("{name}.dequantize{index}"), codes, grid, &float));
        floats.push(float);
    }
    let result = graph.fresh(&format!("{}.float", node.output[0]));
    let inputs: Vec<&str> = floats.iter().map(String::as_str).collect();
    let attributes = node.attribute.iter().filter(|a| a.name != "channels_last" && a.name != "opset").cloned();
    nodes.push(self::node(op, &format!("{name}.float"), &inputs, &result, attributes.collect()));
    nodes.push(quantize(name, &result, output, &node.output[0]));
    nodes
}

/// `A, its scale and zero point, B, its scale and zero point, C (i32), the output's scale and zero point`; without the last two the output
/// is float.
fn gemm(graph: &mut Graph, node: &NodeProto, shared: &dyn Fn(&str) -> bool) -> Option<Vec<NodeProto>> {
    let input = |i: usize| node.input.get(i).map(String::as_str).unwrap_or_default();
    let plain = integer_or(node, "transA", 0) == 0 && float_or(node, "alpha", 1.0) == 1.0;
    let grid = |i: usize| Grid { scale: input(i).into(), zero: input(i + 1).into() };
    if plain && !input(7).is_empty() {
        let layer = FullyConnected {
            name: &node.name,
            input: input(0),
            input_grid: &grid(1),
            weights: input(3),
            weights_grid: &grid(4),
            by_output: integer_or(node, "transB", 0) != 0,
            bias: Some(input(6)).filter(|b| !b.is_empty()).map(str::to_owned),
            output_grid: &grid(7),
            output: &node.output[0],
        };
        if let Some(nodes) = products::fully_connected(graph, &layer, shared(input(3))) {
            return Some(nodes);
        }
    }
    float_gemm(graph, node)
}

/// A QGemm whose matrix is no constant, or whose output is float.
fn float_gemm(graph: &mut Graph, node: &NodeProto) -> Option<Vec<NodeProto>> {
    let input = |i: usize| node.input.get(i).map(String::as_str).unwrap_or_default();
    let grid = |i: usize| Grid { scale: input(i).into(), zero: input(i + 1).into() };
    let (name, output) = (&node.name, &node.output[0]);
    let [a, b] = [0, 1].map(|i| graph.fresh(&format!("{output}.input{i}")));
    let mut nodes = vec![
        dequantize(&format!("{name}.dequantize0"), input(0), &grid(1), &a),
        dequantize(&format!("{name}.dequantize1"), input(3), &grid(4), &b),
    ];
    let mut operands = vec![a, b];
    if !input(6).is_empty() {
        operands.push(products::float_bias(graph, input(6), &grid(1), &grid(4))?);
    }
    let quantised = !input(7).is_empty();
    let result = if quantised { graph.fresh(&format!("{output}.float")) } else { output.clone() };
    let inputs: Vec<&str> = operands.iter().map(String::as_str).collect();
    let kept = ["alpha", "transA", "transB"].iter().filter_map(|name| attribute(node, name).cloned());
    let float_name = if quantised { format!("{name}.float") } else { name.clone() };
    nodes.push(self::node("Gemm", &float_name, &inputs, &result, kept.collect()));
    if quantised {
        nodes.push(quantize(name, &result, &grid(7), output));
    }
    Some(nodes)
}
