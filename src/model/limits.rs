//! What a file of a stranger's making may ask for: nodes, depth, sizes. Checked on the message, before tract sees it and
//! allocates what it says.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::load::MAX_TENSOR_BYTES;

/// The largest published networks for pictures have two or three thousand nodes, and tract's analysis of a chain takes time with
/// the square of its length.
const MAX_NODES: usize = 5_000;
/// Graphs within graphs (the branches of an If). The message's parser itself ends at a hundred messages within one another.
const MAX_DEPTH: usize = 8;
/// Elements of a tensor that a node makes out of a shape.
const MAX_ELEMENTS: i128 = (MAX_TENSOR_BYTES / 4) as i128;

/// Checks a graph and the graphs within it.
///
/// # Errors
/// What the graph asks for, in words that follow "it is not readable:".
pub(super) fn check(graph: &GraphProto) -> Result<(), String> {
    let mut nodes = 0;
    check_graph(graph, 0, &mut nodes)
}

fn check_graph(graph: &GraphProto, depth: usize, nodes: &mut usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("its graphs lie more than {MAX_DEPTH} deep in one another"));
    }
    *nodes += graph.node.len();
    if *nodes > MAX_NODES {
        return Err(format!("its graph has {nodes} nodes or more, above the limit of {MAX_NODES}"));
    }
    if !graph.sparse_initializer.is_empty() {
        return Err("it has sparse weights, which are not supported; export it with dense ones".into());
    }
    let attributes = || graph.node.iter().flat_map(|n| &n.attribute);
    let constants = attributes().flat_map(|a| a.t.iter().chain(&a.tensors));
    for tensor in graph.initializer.iter().chain(constants) {
        check_size(tensor).map_err(|problem| format!("the tensor `{}` {problem}", tensor.name))?;
    }
    check_weights(graph)?;
    let known = integers_by_name(graph);
    for node in &graph.node {
        let elements = elements_made(node, &known).unwrap_or(0);
        if !(0..=MAX_ELEMENTS).contains(&elements) {
            return Err(format!("the node `{}` ({}) makes a tensor that is too large", node.name, node.op_type));
        }
    }
    let mut within = attributes().flat_map(|a| a.g.iter().chain(&a.graphs));
    within.try_for_each(|graph| check_graph(graph, depth + 1, nodes))
}

/// Weights whose declared shape and stored bytes differ would be allocated before anybody noticed.
fn check_size(tensor: &TensorProto) -> Result<(), String> {
    let elements = tensor
        .dims
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))
        .filter(|&elements| elements <= MAX_TENSOR_BYTES)
        .ok_or_else(|| format!("has an impossible shape {:?}", tensor.dims))?;
    if tensor.data_location == Some(DataLocation::External as i32) {
        return Err(
            "lies in another file, whose name the model would choose: save the model with its weights in one file"
                .into(),
        );
    }
    if tensor.raw_data.is_empty() {
        let stored =
            [tensor.float_data.len(), tensor.int32_data.len(), tensor.int64_data.len(), tensor.double_data.len()];
        let typed = stored.into_iter().max().unwrap_or(0).max(tensor.uint64_data.len()).max(tensor.string_data.len());
        return if typed == elements {
            Ok(())
        } else {
            Err(format!("has the shape {:?} but {typed} values", tensor.dims))
        };
    }
    let size = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Uint8 | DataType::Int8 | DataType::Bool) => 1,
        Ok(DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16) => 2,
        Ok(DataType::Float | DataType::Int32 | DataType::Uint32) => 4,
        Ok(DataType::Double | DataType::Int64 | DataType::Uint64) => 8,
        // tract says what it does not know
        _ => return Ok(()),
    };
    if elements * size != tensor.raw_data.len() {
        return Err(format!("has the shape {:?} but {} bytes", tensor.dims, tensor.raw_data.len()));
    }
    Ok(())
}

/// A weight that is not finite makes every score NaN, which is above no threshold: nothing would ever fire, and nothing would say why.
fn check_weights(graph: &GraphProto) -> Result<(), String> {
    let products = graph.node.iter().filter(|n| matches!(n.op_type.as_str(), "Conv" | "Gemm" | "MatMul"));
    let read: HashSet<&str> = products.flat_map(|n| &n.input).map(String::as_str).collect();
    let odd = |tensor: &&TensorProto| {
        let raw = || tensor.raw_data.as_chunks().0.iter().all(|b| f32::from_le_bytes(*b).is_finite());
        tensor.data_type == DataType::Float as i32 && !(tensor.float_data.iter().all(|v| v.is_finite()) && raw())
    };
    match graph.initializer.iter().filter(|i| read.contains(i.name.as_str())).find(odd) {
        Some(tensor) => {
            Err(format!("the weights `{}` hold values that are not finite numbers: make them anew", tensor.name))
        }
        None => Ok(()),
    }
}

/// The numbers of small constants, rounded to integers.
fn integers_by_name(graph: &GraphProto) -> HashMap<&str, Vec<i128>> {
    let weights = graph.initializer.iter().map(|i| (i.name.as_str(), i));
    let constants = graph.node.iter().filter(|n| n.op_type == "Constant");
    let constants =
        constants.filter_map(|n| Some((n.output.first()?.as_str(), n.attribute.iter().find_map(|a| a.t.as_ref())?)));
    weights.chain(constants).filter_map(|(name, tensor)| Some((name, integers(tensor)?))).collect()
}

fn integers(tensor: &TensorProto) -> Option<Vec<i128>> {
    /// A shape has a few axes.
    const MANY: usize = 8 * 16;
    let raw = &tensor.raw_data;
    if raw.len() > MANY || tensor.float_data.len().max(tensor.int64_data.len()) > MANY {
        return None;
    }
    Some(match DataType::try_from(tensor.data_type).ok()? {
        DataType::Int64 if raw.is_empty() => tensor.int64_data.iter().map(|v| i128::from(*v)).collect(),
        DataType::Int64 => raw.as_chunks().0.iter().map(|b| i128::from(i64::from_le_bytes(*b))).collect(),
        DataType::Float if raw.is_empty() => tensor.float_data.iter().map(|v| *v as i128).collect(),
        DataType::Float => raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b) as i128).collect(),
        _ => return None,
    })
}

/// How many elements a node makes that takes a shape as its input; `None` where the shape is no constant.
fn elements_made(node: &NodeProto, known: &HashMap<&str, Vec<i128>>) -> Option<i128> {
    let input = |index: usize| node.input.get(index).and_then(|name| known.get(name.as_str()));
    let product = |shape: &Vec<i128>| shape.iter().try_fold(1i128, |p, d| p.checked_mul(*d)).unwrap_or(i128::MAX);
    match node.op_type.as_str() {
        "ConstantOfShape" => input(0).map(product),
        "Expand" | "Tile" => input(1).map(product),
        "Range" => {
            let [start, limit, step] = [input(0)?, input(1)?, input(2)?].map(|v| v.first().copied().unwrap_or(0));
            Some((limit.saturating_sub(start) / if step == 0 { 1 } else { step }).max(0))
        }
        _ => None,
    }
}
