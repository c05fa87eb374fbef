//! Changes that leave the network's function as it is: constants become weights, nodes that do nothing go, what several nodes do becomes
//! part of one layer ([`fold`](super::fold), [`transposes`]).

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::fold::{fold_affines, fold_pads, norms_to_convolutions};
use super::onnx::{attribute, is_standard};
use super::transposes;

/// Simplifies a graph in place.
pub(super) fn simplify(graph: &mut GraphProto) {
    name_nodes(graph);
    constants_to_weights(graph);
    drop_idle(graph);
    transposes::settle(graph);
    drop_idle(graph);
    fold_pads(graph);
    fold_affines(graph);
    norms_to_convolutions(graph);
    drop_unread_weights(graph);
}

/// Every node gets a name of its own: messages and `--keep-float` go by it.
fn name_nodes(graph: &mut GraphProto) {
    let mut taken: HashSet<String> = HashSet::new();
    for (index, node) in graph.node.iter_mut().enumerate() {
        if node.name.is_empty() {
            node.name = node.output.iter().find(|o| !o.is_empty()).cloned().unwrap_or_else(|| format!("node_{index}"));
        }
        if !taken.insert(node.name.clone()) {
            node.name = format!("{}_{index}", node.name);
            taken.insert(node.name.clone());
        }
    }
}

fn constants_to_weights(graph: &mut GraphProto) {
    let mut weights = Vec::new();
    graph.node.retain_mut(|node| {
        let constant = is_standard(node) && node.op_type == "Constant";
        let tensor = node.attribute.iter_mut().find(|a| a.name == "value").and_then(|a| a.t.take());
        match (constant, tensor, node.output.first()) {
            (true, Some(tensor), Some(output)) => {
                weights.push(TensorProto { name: output.clone(), ..tensor });
                false
            }
            _ => true,
        }
    });
    graph.initializer.extend(weights);
}

/// Identity; Dropout, which does nothing outside of training; an average over single pixels, which PyTorch's adaptive pool of a picture
/// that has its size already becomes.
fn is_idle(node: &NodeProto) -> bool {
    let all = |name: &str, value: i64| attribute(node, name).is_none_or(|a| a.ints.iter().all(|i| *i == value));
    let is_pixel = attribute(node, "kernel_shape").is_some() && all("kernel_shape", 1) && all("strides", 1);
    is_standard(node)
        && match node.op_type.as_str() {
            "Identity" | "Dropout" => true,
            "AveragePool" => is_pixel && all("pads", 0),
            _ => false,
        }
}

/// Takes out what [`is_idle`].
fn drop_idle(graph: &mut GraphProto) {
    let outputs: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let mut stands_for: HashMap<String, String> = HashMap::new();
    graph.node.retain_mut(|node| {
        for input in &mut node.input {
            if let Some(source) = stands_for.get(input) {
                input.clone_from(source);
            }
        }
        // an output of the model keeps its name, and a mask is somebody's business
        if !is_idle(node) || node.output.len() != 1 || outputs.contains(&node.output[0]) {
            return true;
        }
        stands_for.insert(node.output[0].clone(), node.input[0].clone());
        false
    });
}

/// How often each tensor is read, by nodes and as an output.
pub(super) fn readers(graph: &GraphProto) -> HashMap<String, usize> {
    let mut readers = HashMap::new();
    let reads = graph.node.iter().flat_map(|n| n.input.iter().cloned());
    for name in reads.chain(graph.output.iter().map(|o| o.name.clone())) {
        *readers.entry(name).or_default() += 1;
    }
    readers
}

pub(super) fn drop_unread_weights(graph: &mut GraphProto) {
    let readers = readers(graph);
    graph.initializer.retain(|i| readers.contains_key(&i.name));
    // old exporters list weights among the inputs as well
    graph.input.retain(|i| readers.contains_key(&i.name));
}
