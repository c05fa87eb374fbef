//! What exporters write in many ways: constants as nodes, zero points left out, float weights that the graph itself quantises, the same
//! QuantizeLinear once for each reader.

use std::collections::HashMap;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{NodeProto, TensorProto};

use super::graph::{Graph, Grid, grid_of};
use super::movement::moves_only;
use crate::onnx::{codes, dims, floats, integer_or};

pub(super) fn rewrite(graph: &mut Graph) {
    // another name of a tensor
    let mut alias: HashMap<String, String> = HashMap::new();
    // the element type of codes
    let mut types: HashMap<String, i32> = HashMap::new();
    // QuantizeLinear by what it reads
    let mut made: HashMap<(String, Grid), String> = HashMap::new();
    for mut node in std::mem::take(&mut graph.nodes) {
        for input in &mut node.input {
            if let Some(other) = alias.get(input) {
                input.clone_from(other);
            }
        }
        let Some(output) = node.output.first().cloned() else { continue };
        let free = node.output.len() == 1 && !graph.is_fixed(&output);
        if free && let Some(tensor) = constant(&node) {
            graph.set_constant(TensorProto { name: output, ..tensor.clone() });
            continue;
        }
        if free && node.op_type == "Identity" && graph.constant(&node.input[0]).is_some() {
            alias.insert(output, node.input[0].clone());
            continue;
        }
        name_zero_point(graph, &mut node, &types);
        if node.op_type == "QuantizeLinear"
            && free
            && let Some(grid) = grid_of(&node)
        {
            if let Some(tensor) = quantised(graph, &node, &grid) {
                graph.set_constant(TensorProto { name: output, ..tensor });
                continue;
            }
            let key = (node.input[0].clone(), canonical_grid(graph, &made, &node.input[0], grid));
            if let Some(first) = made.get(&key) {
                alias.insert(output, first.clone());
                continue;
            }
            made.insert(key, output.clone());
        }
        if let Some(data_type) = codes_type(graph, &node, &types) {
            types.insert(output, data_type);
        }
        graph.nodes.push(node);
    }
}

/// The value of a Constant node.
fn constant(node: &NodeProto) -> Option<&TensorProto> {
    let [attribute] = node.attribute.as_slice() else { return None };
    if node.op_type == "Constant" && attribute.name == "value" { attribute.t.as_ref() } else { None }
}

/// The grid under which `input` is quantised already, when it says the same.
fn canonical_grid(graph: &Graph, made: &HashMap<(String, Grid), String>, input: &str, grid: Grid) -> Grid {
    let same = |(name, other): &&(String, Grid)| name == input && graph.same_grid(other, &grid);
    made.keys().find(same).map(|(_, other)| other.clone()).unwrap_or(grid)
}

/// A QuantizeLinear or DequantizeLinear without a zero point has it at 0: says so.
fn name_zero_point(graph: &mut Graph, node: &mut NodeProto, types: &HashMap<String, i32>) {
    let quantizes = match node.op_type.as_str() {
        "QuantizeLinear" => true,
        "DequantizeLinear" => false,
        _ => return,
    };
    if node.input.len() < 2 || node.input.get(2).is_some_and(|z| !z.is_empty()) {
        return;
    }
    let unsigned = DataType::Uint8 as i32;
    let data_type = match quantizes {
        true => {
            Some(integer_or(node, "output_dtype", 0)).filter(|t| *t != 0).map_or(Some(unsigned), |t| t.try_into().ok())
        }
        false => graph.constant(&node.input[0]).map(|t| t.data_type).or_else(|| types.get(&node.input[0]).copied()),
    };
    let (Some(data_type), Some(scale)) =
        (data_type.and_then(|t| DataType::try_from(t).ok()), graph.constant(&node.input[1]))
    else {
        return;
    };
    let bytes = match data_type {
        DataType::Uint8 | DataType::Int8 => 1,
        DataType::Int32 => 4,
        _ => return,
    };
    let shape = dims(scale);
    let count: usize = shape.iter().product();
    let zero = graph.add(&format!("{}.zero_point", node.output[0]), data_type, &shape, vec![0; bytes * count]);
    node.input.truncate(2);
    node.input.push(zero);
}

/// The element type of what a node makes, when that is codes.
fn codes_type(graph: &Graph, node: &NodeProto, types: &HashMap<String, i32>) -> Option<i32> {
    let zero = |index: usize| node.input.get(index).and_then(|name| graph.constant(name)).map(|t| t.data_type);
    match node.op_type.as_str() {
        "QuantizeLinear" => zero(2),
        "QLinearConv" | "QLinearMatMul" => zero(7),
        _ if moves_only(node) => types.get(node.input.first()?).copied(),
        _ => None,
    }
}

/// The codes of a constant.
fn quantised(graph: &Graph, node: &NodeProto, grid: &Grid) -> Option<TensorProto> {
    let tensor = graph.constant(&node.input[0])?;
    let (values, shape) = (floats(tensor)?, dims(tensor));
    let (scales, zeros) = (floats(graph.constant(&grid.scale)?)?, codes(graph.constant(&grid.zero)?)?);
    let data_type = DataType::try_from(graph.constant(&grid.zero)?.data_type).ok()?;
    let [low, high] = match data_type {
        DataType::Uint8 => [0.0, 255.0],
        DataType::Int8 => [-128.0, 127.0],
        _ => return None,
    };
    let axis = integer_or(node, "axis", 1);
    let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
    // elements from one channel to the next
    let (channels, inner) = match scales.len() {
        1 => (1, values.len().max(1)),
        n => {
            let axis = usize::try_from(axis).ok().filter(|a| shape.get(*a) == Some(&n))?;
            (n, shape[axis + 1..].iter().product::<usize>().max(1))
        }
    };
    if zeros.len() != channels {
        return None;
    }
    let code = |(index, value): (usize, &f32)| {
        let channel = index / inner % channels;
        let code = (value / scales[channel]).round_ties_even() + zeros[channel] as f32;
        // the bytes of a u8 and of an i8
        code.clamp(low, high) as i16 as u8
    };
    let raw_data = values.iter().enumerate().map(code).collect();
    Some(TensorProto { data_type: data_type as i32, dims: tensor.dims.clone(), raw_data, ..TensorProto::default() })
}
