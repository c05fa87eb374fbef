//! Changes that leave the network's function as it is: constants become weights, nodes that do nothing go, batch norm
//! becomes part of the convolution (or fully connected layer) before it.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::onnx::{attribute, dims, float_or, float_tensor, floats, integer_or, is_standard, set_floats};

/// Simplifies a graph in place.
pub(super) fn simplify(graph: &mut GraphProto) {
    name_nodes(graph);
    constants_to_weights(graph);
    drop_idle(graph);
    fold_batch_norms(graph);
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

fn readers(graph: &GraphProto) -> HashMap<String, usize> {
    let mut readers = HashMap::new();
    let reads = graph.node.iter().flat_map(|n| n.input.iter().cloned());
    for name in reads.chain(graph.output.iter().map(|o| o.name.clone())) {
        *readers.entry(name).or_default() += 1;
    }
    readers
}

fn fold_batch_norms(graph: &mut GraphProto) {
    let readers = readers(graph);
    let mut folded: HashSet<usize> = HashSet::new();
    for index in 0..graph.node.len() {
        if graph.node[index].op_type != "BatchNormalization" || !is_standard(&graph.node[index]) {
            continue;
        }
        let input = graph.node[index].input[0].clone();
        let maker = graph.node.iter().position(|n| n.output.first() == Some(&input));
        let Some(maker) = maker.filter(|_| readers.get(&input) == Some(&1)) else { continue };
        if fold_batch_norm(graph, maker, index, &readers).is_some() {
            folded.insert(index);
        }
    }
    let mut index = 0;
    graph.node.retain(|_| {
        index += 1;
        !folded.contains(&(index - 1))
    });
}

/// `w' = w * g / sqrt(v + e)`, `b' = (b - m) * g / sqrt(v + e) + beta`, in double precision.
fn fold_batch_norm(graph: &mut GraphProto, maker: usize, norm: usize, readers: &HashMap<String, usize>) -> Option<()> {
    let (product, norm) = (&graph.node[maker], &graph.node[norm]);
    let outputs_first = match product.op_type.as_str() {
        "Conv" => true,
        "Gemm" if integer_or(product, "transB", 0) == 1 && float_or(product, "alpha", 1.0) == 1.0 => true,
        _ => return None,
    };
    let weight = |name: &str| graph.initializer.iter().position(|i| i.name == name);
    let at = weight(product.input.get(1)?)?;
    let own = |name: &String| readers.get(name) == Some(&1);
    if !outputs_first || !own(product.input.get(1)?) || norm.output.iter().filter(|o| !o.is_empty()).count() != 1 {
        return None;
    }
    let parameters: Option<Vec<Vec<f32>>> =
        norm.input.get(1..5)?.iter().map(|name| floats(&graph.initializer[weight(name)?])).collect();
    let [gamma, beta, mean, variance] = parameters?.try_into().ok()?;
    let epsilon = f64::from(float_or(norm, "epsilon", 1e-5));
    let factor: Vec<f64> =
        gamma.iter().zip(&variance).map(|(g, v)| f64::from(*g) / (f64::from(*v) + epsilon).sqrt()).collect();
    let mut values = floats(&graph.initializer[at])?;
    let outputs = *dims(&graph.initializer[at]).first()?;
    let bias = match product.input.get(2).filter(|b| !b.is_empty()) {
        Some(name) => floats(&graph.initializer[weight(name)?])?,
        None => vec![0.0; outputs],
    };
    if [factor.len(), beta.len(), mean.len(), bias.len()] != [outputs; 4] || values.len() % outputs.max(1) != 0 {
        return None;
    }
    let each = values.len() / outputs;
    for (channel, factor) in values.chunks_mut(each.max(1)).zip(&factor) {
        channel.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
    }
    let shifted = |c: usize| ((f64::from(bias[c]) - f64::from(mean[c])) * factor[c] + f64::from(beta[c])) as f32;
    let bias: Vec<f32> = (0..outputs).map(shifted).collect();
    let (bias_name, output) = (format!("{}.folded_bias", product.name), norm.output[0].clone());
    set_floats(&mut graph.initializer[at], &values);
    graph.initializer.push(float_tensor(bias_name.clone(), &[outputs], &bias));
    let product: &mut NodeProto = &mut graph.node[maker];
    product.input.truncate(2);
    product.input.push(bias_name);
    product.output = vec![output];
    Some(())
}

pub(super) fn drop_unread_weights(graph: &mut GraphProto) {
    let readers = readers(graph);
    graph.initializer.retain(|i| readers.contains_key(&i.name));
    // old exporters list weights among the inputs as well
    graph.input.retain(|i| readers.contains_key(&i.name));
}
