//! Changes between the layouts of TensorFlow and ONNX, as its converters leave them: moved together until they cancel, and taken into
//! the weights of the fully connected layer behind them.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto};

use super::onnx::{attribute, dims, floats, integer_or, integers, is_standard, set_floats};
use super::simplify::readers;

/// Rewrites until nothing changes.
pub(super) fn settle(graph: &mut GraphProto) {
    // each step takes one transposition away or moves one on; a graph has fewer of them than nodes
    for _ in 0..graph.node.len().min(1000) {
        if !(cancel(graph) || move_on(graph)) {
            break;
        }
    }
    flatten_as_it_lies(graph);
}

fn permutation(node: &NodeProto) -> Option<&[i64]> {
    let is_transpose = node.op_type == "Transpose" && is_standard(node);
    attribute(node, "perm").filter(|_| is_transpose).map(|a| a.ints.as_slice())
}

fn maker(graph: &GraphProto, tensor: &str) -> Option<usize> {
    graph.node.iter().position(|n| n.output.first().is_some_and(|o| o == tensor))
}

fn replace_reads(graph: &mut GraphProto, from: &str, to: &str) {
    for input in graph.node.iter_mut().flat_map(|n| &mut n.input).filter(|i| *i == from) {
        to.clone_into(input);
    }
}

/// Two transpositions in a row that undo one another. Whether it changed anything.
fn cancel(graph: &mut GraphProto) -> bool {
    for second in 0..graph.node.len() {
        let Some(outer) = permutation(&graph.node[second]) else { continue };
        let Some(first) = maker(graph, &graph.node[second].input[0]) else { continue };
        let Some(inner) = permutation(&graph.node[first]) else { continue };
        let place = |axis: &i64| usize::try_from(*axis).ok().and_then(|axis| inner.get(axis));
        let undone = outer.iter().enumerate().all(|(axis, from)| place(from) == Some(&(axis as i64)));
        let output = graph.node[second].output[0].clone();
        if outer.len() != inner.len() || !undone || graph.output.iter().any(|o| o.name == output) {
            continue;
        }
        let input = graph.node[first].input[0].clone();
        replace_reads(graph, &output, &input);
        graph.node.remove(second);
        drop_unread(graph, first - usize::from(first > second));
        return true;
    }
    false
}

fn drop_unread(graph: &mut GraphProto, index: usize) {
    let output = graph.node[index].output[0].clone();
    if !readers(graph).contains_key(&output) {
        graph.node.remove(index);
    }
}

/// A transposition before an operation that treats all elements alike goes behind it, where that brings it to another one. Whether it
/// changed anything.
fn move_on(graph: &mut GraphProto) -> bool {
    let readers = readers(graph);
    for index in 0..graph.node.len() {
        let node = &graph.node[index];
        let alike = match node.op_type.as_str() {
            "Relu" | "Clip" | "Sigmoid" | "LeakyRelu" | "Elu" | "HardSwish" | "HardSigmoid" | "Tanh" => 1,
            "Add" | "Mul" => 2,
            _ => continue,
        };
        let inputs: Option<Vec<usize>> = node.input.iter().take(alike).map(|input| maker(graph, input)).collect();
        let Some(inputs) = inputs.filter(|i| i.len() == alike && is_standard(node)) else { continue };
        let permutations: Vec<_> = inputs.iter().map(|i| permutation(&graph.node[*i])).collect();
        let Some(common) = permutations[0].filter(|_| permutations.iter().all(|p| *p == permutations[0])) else {
            continue;
        };
        let output = node.output[0].clone();
        let goes_on = graph
            .node
            .iter()
            .filter(|n| n.input.contains(&output))
            .all(|n| permutation(n).is_some() || matches!(n.op_type.as_str(), "Relu" | "Clip" | "Add" | "Mul"));
        if !goes_on || !readers.contains_key(&output) || graph.output.iter().any(|o| o.name == output) {
            continue;
        }
        let mut behind = graph.node[inputs[0]].clone();
        debug_assert_eq!(permutation(&behind), Some(common));
        let before = format!("{output}.before_transpose");
        for (place, input) in inputs.iter().enumerate() {
            let source = graph.node[*input].input[0].clone();
            graph.node[index].input[place] = source;
        }
        graph.node[index].output[0].clone_from(&before);
        (behind.input[0], behind.output[0]) = (before, output);
        graph.node.insert(index + 1, behind);
        let mut gone = inputs;
        gone.sort_unstable();
        gone.dedup();
        // they lie before `index`: the graph is in the order of its evaluation
        gone.into_iter().rev().filter(|i| *i < index).for_each(|i| drop_unread(graph, i));
        return true;
    }
    false
}

/// Channels last, then flattened, then a matrix: the matrix's rows are put in the order of channels first, and the transposition goes.
fn flatten_as_it_lies(graph: &mut GraphProto) {
    for index in 0..graph.node.len() {
        if take_into_matrix(graph, index).is_some() {
            graph.node[index].op_type = "Identity".into();
            graph.node[index].attribute.clear();
        }
    }
}

fn take_into_matrix(graph: &mut GraphProto, index: usize) -> Option<()> {
    let readers = readers(graph);
    let to_last = &graph.node[index];
    if permutation(to_last)? != [0, 2, 3, 1] {
        return None;
    }
    let only_reader = |tensor: &String| {
        let at = graph.node.iter().position(|n| n.input.first() == Some(tensor))?;
        (readers.get(tensor) == Some(&1)).then_some(at)
    };
    let flatten = only_reader(&to_last.output[0])?;
    let flattens = match graph.node[flatten].op_type.as_str() {
        "Flatten" => integer_or(&graph.node[flatten], "axis", 1) == 1,
        "Reshape" => {
            let shape = graph.initializer.iter().find(|i| Some(&i.name) == graph.node[flatten].input.get(1))?;
            integers(shape)?.len() == 2
        }
        _ => false,
    };
    let product = only_reader(&graph.node[flatten].output[0]).filter(|_| flattens)?;
    let by_rows = match graph.node[product].op_type.as_str() {
        "MatMul" => false,
        "Gemm" => integer_or(&graph.node[product], "transB", 0) != 0,
        _ => return None,
    };
    let name = graph.node[product].input.get(1).filter(|w| readers.get(*w) == Some(&1))?;
    let at = graph.initializer.iter().position(|i| i.name == *name)?;
    let &[first, second] = dims(&graph.initializer[at]).as_slice() else { return None };
    let (inputs, outputs) = if by_rows { (second, first) } else { (first, second) };
    let channels = channels(graph, &to_last.input[0])?;
    let pixels = inputs.checked_div(channels).filter(|pixels| *pixels > 0 && pixels * channels == inputs)?;
    if graph.initializer[at].data_type != DataType::Float as i32 {
        return None;
    }
    let matrix = &mut graph.initializer[at];
    if matrix.raw_data.is_empty() {
        let values = floats(matrix)?;
        set_floats(matrix, &values);
    }
    // as bytes: VGG's matrix has 411 MB, and is there twice meanwhile
    let old = std::mem::take(&mut matrix.raw_data);
    let (lines, width) = if by_rows { (outputs, 4) } else { (1, 4 * outputs) };
    let mut new = Vec::with_capacity(old.len());
    for line in 0..lines {
        for input in 0..inputs {
            let from = input % pixels * channels + input / pixels;
            new.extend_from_slice(&old[(line * inputs + from) * width..][..width]);
        }
    }
    matrix.raw_data = new;
    Some(())
}

/// How many an image has, by the convolution that made it.
fn channels(graph: &GraphProto, tensor: &str) -> Option<usize> {
    let mut at = maker(graph, tensor)?;
    for _ in 0..graph.node.len() {
        let node = &graph.node[at];
        match node.op_type.as_str() {
            "Conv" => {
                let weights = graph.initializer.iter().find(|i| Some(&i.name) == node.input.get(1))?;
                return dims(weights).first().copied();
            }
            "Relu" | "Clip" | "MaxPool" | "AveragePool" | "BatchNormalization" | "Add" | "Mul" | "Pad" | "Identity" => {
                at = maker(graph, node.input.first()?)?;
            }
            _ => return None,
        }
    }
    None
}
