//! Quantised graphs in the forms that exporters write, rewritten to one: products as QLinearConv and QLinearMatMul, and everything else as
//! a single operation in float between DequantizeLinear and QuantizeLinear. That is what `lower` knows; tract's own ops run it as well.
//!
//! | file | what |
//! |---|---|
//! | `graph` | a graph while it is rewritten |
//! | `contrib` | onnxruntime's own operators (domain com.microsoft): to standard ones |
//! | `tidy` | constants, zero points left out, weights that are quantised in the graph, one QuantizeLinear for many readers |
//! | `movement` | operations that only move codes move codes, not floats |
//! | `products` | Conv, Gemm and MatMul between DequantizeLinear and QuantizeLinear (the QDQ form): to QLinearConv and QLinearMatMul |
//!
//! What is not recognised stays as it is. Each step is a function from graph to graph.

mod contrib;
mod graph;
mod movement;
mod products;
mod tidy;

use tract_onnx::pb::{GraphProto, NodeProto};

use graph::Graph;

/// Rewrites a quantised graph; leaves any other alone.
pub(super) fn canonical(proto: &mut GraphProto) {
    // A node without what its operator needs is told of by the type check, by its name.
    if !proto.node.iter().any(is_quantised) || !proto.node.iter().all(is_whole) {
        return;
    }
    let mut graph = Graph::take(proto);
    contrib::rewrite(&mut graph);
    tidy::rewrite(&mut graph);
    movement::rewrite(&mut graph);
    products::rewrite(&mut graph);
    graph.drop_unread();
    graph.put_back(proto);
}

/// Whether the inputs and the output that a rewriting counts upon are there.
fn is_whole(node: &NodeProto) -> bool {
    let least = match node.op_type.as_str() {
        "Conv" | "Gemm" | "MatMul" | "QuantizeLinear" | "DequantizeLinear" => 2,
        "Constant" => 0,
        _ => 1,
    };
    node.input.len() >= least && !node.output.is_empty()
}

fn is_quantised(node: &NodeProto) -> bool {
    matches!(node.op_type.as_str(), "QuantizeLinear" | "DequantizeLinear" | "QGemm")
        || node.op_type.starts_with("QLinear")
}
