//! What exporters write in several nodes and is one layer: batch norm, factors and offsets of channels, and zeros around an image go into
//! the convolution (or fully connected layer) beside them.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, NodeProto};

use super::onnx::{
    attribute, dims, float_or, float_tensor, floats, integer, integer_list, integer_or, integers, is_standard, node,
    set_floats,
};
use super::simplify::readers;

/// `y = factor x + offset`, channel by channel, in double precision.
struct Affine {
    input: String,
    factor: Vec<f64>,
    offset: Vec<f64>,
}

/// Folds every batch norm, and every product and sum with a constant a channel, into the layer that alone makes its input.
pub(super) fn fold_affines(graph: &mut GraphProto) {
    let readers = readers(graph);
    let mut folded: HashSet<usize> = HashSet::new();
    for index in 0..graph.node.len() {
        let maker = |input: &String| {
            let makes = |(at, n): (usize, &NodeProto)| !folded.contains(&at) && n.output.first() == Some(input);
            graph.node.iter().enumerate().position(makes).filter(|_| readers.get(input) == Some(&1))
        };
        // of the inputs of a sum only one is made by a node
        let Some(maker) = graph.node[index].input.iter().find_map(maker) else { continue };
        if fold_affine(graph, maker, index, &readers).is_some() {
            folded.insert(index);
        }
    }
    let mut index = 0;
    graph.node.retain(|_| {
        index += 1;
        !folded.contains(&(index - 1))
    });
}

fn weight(graph: &GraphProto, name: &str) -> Option<usize> {
    graph.initializer.iter().position(|i| i.name == name)
}

fn constant(graph: &GraphProto, name: &str) -> Option<Vec<f32>> {
    floats(&graph.initializer[weight(graph, name)?])
}

/// How a layer's weights lie.
struct Product {
    weights: usize,
    outputs: usize,
    /// Axes of its output.
    rank: usize,
    /// A weight's output by its place: `place / each % outputs`.
    each: usize,
    takes_bias: bool,
}

fn product(graph: &GraphProto, node: &NodeProto) -> Option<Product> {
    if !is_standard(node) {
        return None;
    }
    let weights = weight(graph, node.input.get(1)?)?;
    let shape = dims(&graph.initializer[weights]);
    let plain = float_or(node, "alpha", 1.0) == 1.0 && float_or(node, "beta", 1.0) == 1.0;
    let all: usize = shape.iter().product();
    let (outputs, rank, each, takes_bias) = match (node.op_type.as_str(), shape.as_slice()) {
        ("Conv", [outputs, ..]) => (*outputs, shape.len(), all / outputs.max(&1), true),
        ("Gemm", [outputs, _]) if plain && integer_or(node, "transB", 0) != 0 => (*outputs, 2, shape[1], true),
        ("Gemm", [_, outputs]) if plain => (*outputs, 2, 1, true),
        ("MatMul", [_, outputs]) => (*outputs, 2, 1, false),
        _ => return None,
    };
    (outputs > 0).then_some(Product { weights, outputs, rank, each: each.max(1), takes_bias })
}

/// What a node does to each of `channels` channels of a tensor of `rank` axes.
fn affine(graph: &GraphProto, node: &NodeProto, channels: usize, rank: usize) -> Option<Affine> {
    if !is_standard(node) || node.output.iter().filter(|o| !o.is_empty()).count() != 1 {
        return None;
    }
    if node.op_type == "BatchNormalization" {
        return norm(graph, node).filter(|norm| norm.factor.len() == channels);
    }
    let values = |name: &String| {
        let tensor = &graph.initializer[weight(graph, name)?];
        let shape = dims(tensor);
        // a longer shape would add axes; a channel's constant is [channels, 1, 1], with or without a leading 1
        let place = (shape.len() + 1).checked_sub(rank).unwrap_or(usize::MAX);
        let by_channel = shape.get(place) == Some(&channels) && shape.iter().product::<usize>() == channels;
        let values: Vec<f64> = floats(tensor)?.into_iter().map(f64::from).collect();
        match values.as_slice() {
            [one] if shape.len() <= rank => Some(vec![*one; channels]),
            _ => (by_channel && shape.len() <= rank).then_some(values),
        }
    };
    let [first, second] = node.input.as_slice() else { return None };
    let (input, constants) = match (values(first), values(second)) {
        (None, Some(constants)) => (first, constants),
        (Some(constants), None) if matches!(node.op_type.as_str(), "Mul" | "Add") => (second, constants),
        _ => return None,
    };
    let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
    let (factor, offset) = match node.op_type.as_str() {
        "Mul" => (constants, zeros),
        "Div" => (constants.iter().map(|c| 1.0 / c).collect(), zeros),
        "Add" => (ones, constants),
        "Sub" => (ones, constants.iter().map(|c| -c).collect()),
        _ => return None,
    };
    factor.iter().chain(&offset).all(|v| v.is_finite()).then(|| Affine { input: input.clone(), factor, offset })
}

/// `g / sqrt(v + e)` and `beta - m g / sqrt(v + e)`.
fn norm(graph: &GraphProto, node: &NodeProto) -> Option<Affine> {
    let parameters: Option<Vec<Vec<f32>>> = node.input.get(1..5)?.iter().map(|name| constant(graph, name)).collect();
    let [gamma, beta, mean, variance] = parameters?.try_into().ok()?;
    if [beta.len(), mean.len(), variance.len()] != [gamma.len(); 3] {
        return None;
    }
    let epsilon = f64::from(float_or(node, "epsilon", 1e-5));
    let factor: Vec<f64> =
        gamma.iter().zip(&variance).map(|(g, v)| f64::from(*g) / (f64::from(*v) + epsilon).sqrt()).collect();
    let offset = beta.iter().zip(&mean).zip(&factor).map(|((b, m), f)| f64::from(*b) - f64::from(*m) * f).collect();
    Some(Affine { input: node.input[0].clone(), factor, offset })
}

fn fold_affine(graph: &mut GraphProto, maker: usize, index: usize, readers: &HashMap<String, usize>) -> Option<()> {
    let (layer, follower) = (&graph.node[maker], &graph.node[index]);
    let Product { weights, outputs, rank, each, takes_bias } = product(graph, layer)?;
    let Affine { input, factor, offset } = affine(graph, follower, outputs, rank)?;
    let moves = offset.iter().any(|o| *o != 0.0);
    let own = readers.get(&layer.input[1]) == Some(&1);
    let scales = factor.iter().any(|f| *f != 1.0);
    if input != layer.output[0] || (moves && !takes_bias) || (scales && !own) {
        return None;
    }
    let bias = match layer.input.get(2).filter(|b| !b.is_empty()) {
        Some(name) => Some(constant(graph, name)?),
        None => None,
    };
    let bias = bias.filter(|_| takes_bias);
    let old = bias.clone().unwrap_or_else(|| vec![0.0; outputs]);
    if old.len() != outputs {
        return None;
    }
    if scales {
        let mut values = floats(&graph.initializer[weights])?;
        for (place, value) in values.iter_mut().enumerate() {
            *value = (f64::from(*value) * factor[place / each % outputs]) as f32;
        }
        set_floats(&mut graph.initializer[weights], &values);
    }
    let output = graph.node[index].output[0].clone();
    let bias_name = format!("{}.folded_bias_{index}", graph.node[maker].name);
    if moves || bias.is_some() {
        let new: Vec<f32> = (0..outputs).map(|o| (f64::from(old[o]) * factor[o] + offset[o]) as f32).collect();
        graph.initializer.push(float_tensor(bias_name.clone(), &[outputs], &new));
        let layer: &mut NodeProto = &mut graph.node[maker];
        layer.input.truncate(2);
        layer.input.push(bias_name);
    }
    graph.node[maker].output = vec![output];
    Some(())
}

/// A batch norm of an image that no layer took (behind a Relu or a concatenation, before a padded convolution) becomes a depthwise
/// convolution of single pixels, which runs on codes.
pub(super) fn norms_to_convolutions(graph: &mut GraphProto) {
    for index in 0..graph.node.len() {
        let norm_node = &graph.node[index];
        let single = norm_node.output.iter().filter(|o| !o.is_empty()).count() == 1;
        if norm_node.op_type != "BatchNormalization" || !is_standard(norm_node) || !single {
            continue;
        }
        let Some(Affine { input, factor, offset }) = norm(graph, norm_node).filter(|a| is_image(graph, &a.input))
        else {
            continue;
        };
        let (name, output, channels) = (norm_node.name.clone(), norm_node.output[0].clone(), factor.len());
        // `.weights` and `.bias` will be the names of its codes
        let [weights, bias] = ["factors", "offsets"].map(|part| format!("{name}.{part}"));
        let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<_>>();
        graph.initializer.push(float_tensor(weights.clone(), &[channels, 1, 1, 1], &single(factor)));
        graph.initializer.push(float_tensor(bias.clone(), &[channels], &single(offset)));
        let attributes = vec![integer("group", channels as i64), integer_list("kernel_shape", vec![1, 1])];
        graph.node[index] = node("Conv", &name, &[&input, &weights, &bias], &output, attributes);
    }
}

/// Whether a tensor has height and width, as far as the nodes that made it tell.
fn is_image(graph: &GraphProto, tensor: &str) -> bool {
    let mut tensor = tensor;
    // a chain is no longer than the graph
    for _ in 0..=graph.node.len() {
        let Some(maker) = graph.node.iter().find(|n| n.output.first().is_some_and(|o| o == tensor)) else {
            return false;
        };
        match maker.op_type.as_str() {
            "Conv" => return product(graph, maker).is_some_and(|p| p.rank == 4),
            "MaxPool" | "AveragePool" => return attribute(maker, "kernel_shape").is_some_and(|a| a.ints.len() == 2),
            "Relu" | "Clip" | "Sigmoid" | "LeakyRelu" | "HardSwish" | "BatchNormalization" | "Concat" | "Pad" => {}
            "Add" | "Mul" if maker.input.iter().all(|i| weight(graph, i).is_none()) => {}
            _ => return false,
        }
        let Some(input) = maker.input.first() else { return false };
        tensor = input;
    }
    false
}

/// Zeros around an image become the padding of the convolution that alone reads them; of a max-pool, where nothing is below zero.
pub(super) fn fold_pads(graph: &mut GraphProto) {
    let readers = readers(graph);
    let mut stands_for: HashMap<String, String> = HashMap::new();
    for index in 0..graph.node.len() {
        let pad = &graph.node[index];
        let Some(reader) = pad.output.first().and_then(|output| {
            let only = readers.get(output) == Some(&1);
            graph.node.iter().position(|n| n.input.first() == Some(output)).filter(|_| only)
        }) else {
            continue;
        };
        let Some([top, left, bottom, right]) = zeros_around(graph, pad) else { continue };
        let input = pad.input[0].clone();
        let node = &graph.node[reader];
        let fits = match node.op_type.as_str() {
            "Conv" => product(graph, node).is_some_and(|p| p.rank == 4),
            "MaxPool" => is_never_negative(graph, &input) && windows_touch(node, [top, left, bottom, right]),
            _ => false,
        };
        let automatic = attribute(node, "auto_pad").is_some_and(|a| !matches!(a.s.as_slice(), b"NOTSET" | b"VALID"));
        if !fits || automatic || !is_standard(node) {
            continue;
        }
        let old = attribute(node, "pads").map_or(vec![0; 4], |a| a.ints.clone());
        let pads = [top, left, bottom, right].iter().zip(&old).map(|(a, b)| a + b).collect();
        let output = graph.node[index].output[0].clone();
        let node = &mut graph.node[reader];
        node.attribute.retain(|a| a.name != "pads" && a.name != "auto_pad");
        node.attribute.push(integer_list("pads", pads));
        node.input[0].clone_from(&input);
        stands_for.insert(output, input);
    }
    graph.node.retain(|n| n.op_type != "Pad" || !n.output.first().is_some_and(|o| stands_for.contains_key(o)));
}

/// Rows above and below, columns left and right, of a Pad that adds nothing but these, and zeros.
fn zeros_around(graph: &GraphProto, pad: &NodeProto) -> Option<[i64; 4]> {
    let constant_mode = attribute(pad, "mode").is_none_or(|a| a.s == b"constant");
    if pad.op_type != "Pad" || !is_standard(pad) || !constant_mode || float_or(pad, "value", 0.0) != 0.0 {
        return None;
    }
    let given = |index: usize| pad.input.get(index).filter(|i| !i.is_empty());
    if let Some(value) = given(2) {
        constant(graph, value)?.iter().all(|v| *v == 0.0).then_some(())?;
    }
    let list = |name: &String| integers(&graph.initializer[weight(graph, name)?]);
    let pads = match given(1) {
        Some(name) => list(name)?,
        None => attribute(pad, "pads")?.ints.clone(),
    };
    let axes = match given(3) {
        Some(name) => list(name)?.into_iter().map(|a| if a < 0 { a + 4 } else { a }).collect(),
        None => vec![0, 1, 2, 3],
    };
    if pads.len() != 2 * axes.len() || pads.iter().any(|p| !(0..=64).contains(p)) {
        return None;
    }
    let mut sides = [[0; 2]; 4];
    for (place, axis) in axes.iter().enumerate() {
        *sides.get_mut(usize::try_from(*axis).ok()?)? = [pads[place], pads[place + axes.len()]];
    }
    let [batch, channels, [top, bottom], [left, right]] = sides;
    (batch == [0; 2] && channels == [0; 2]).then_some([top, left, bottom, right])
}

/// Made by a Relu or a Clip from 0 up, or a pool of such.
fn is_never_negative(graph: &GraphProto, tensor: &str) -> bool {
    let Some(maker) = graph.node.iter().find(|n| n.output.first().is_some_and(|o| o == tensor)) else { return false };
    match maker.op_type.as_str() {
        "Relu" | "Sigmoid" => true,
        "Clip" => match maker.input.get(1).filter(|i| !i.is_empty()) {
            Some(least) => constant(graph, least).is_some_and(|v| v.iter().all(|v| *v >= 0.0)),
            None => attribute(maker, "min").is_some_and(|a| a.f >= 0.0),
        },
        _ => false,
    }
}

/// Every window of a max-pool has a pixel of the image: then a border of zeros and one of nothing are the same.
fn windows_touch(pool: &NodeProto, pads: [i64; 4]) -> bool {
    let Some(kernel) = attribute(pool, "kernel_shape").map(|a| &a.ints).filter(|k| k.len() == 2) else { return false };
    let old = attribute(pool, "pads").map_or(vec![0; 4], |a| a.ints.clone());
    let plain = integer_or(pool, "ceil_mode", 0) == 0 && pool.output.len() == 1;
    let undilated = attribute(pool, "dilations").is_none_or(|a| a.ints.iter().all(|d| *d == 1));
    old.len() == 4 && plain && undilated && (0..4).all(|side| pads[side] + old[side] < kernel[side % 2])
}
