//! ONNX messages: reading weights and attributes, making nodes and tensors.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

/// The floats of a tensor, however they are stored; `None` for other element types.
pub(crate) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type != DataType::Float as i32 {
        return None;
    }
    if tensor.raw_data.is_empty() {
        return Some(tensor.float_data.clone());
    }
    Some(tensor.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// Puts other floats into a tensor.
pub(crate) fn set_floats(tensor: &mut TensorProto, values: &[f32]) {
    tensor.float_data = Vec::new();
    tensor.raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
}

/// The 64-bit integers of a small tensor (axes, a shape).
pub(crate) fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    if tensor.data_type != DataType::Int64 as i32 {
        return None;
    }
    if tensor.raw_data.is_empty() {
        return Some(tensor.int64_data.clone());
    }
    Some(tensor.raw_data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
}

/// The elements of a tensor of 8-bit or 32-bit integers, however they are stored; `None` for other element types.
pub(crate) fn codes(tensor: &TensorProto) -> Option<Vec<i32>> {
    let raw = &tensor.raw_data;
    Some(match DataType::try_from(tensor.data_type).ok()? {
        DataType::Uint8 | DataType::Int8 | DataType::Int32 if raw.is_empty() => tensor.int32_data.clone(),
        DataType::Uint8 => raw.iter().map(|b| i32::from(*b)).collect(),
        DataType::Int8 => raw.iter().map(|b| i32::from(*b as i8)).collect(),
        DataType::Int32 => raw.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect(),
        _ => return None,
    })
}

/// The axes of a tensor.
pub(crate) fn dims(tensor: &TensorProto) -> Vec<usize> {
    tensor.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect()
}

/// A tensor of raw bytes.
pub(crate) fn tensor(name: impl Into<String>, data_type: DataType, dims: &[usize], raw_data: Vec<u8>) -> TensorProto {
    let dims = dims.iter().map(|d| *d as i64).collect();
    TensorProto { name: name.into(), data_type: data_type as i32, dims, raw_data, ..TensorProto::default() }
}

/// A tensor of floats.
pub(crate) fn float_tensor(name: impl Into<String>, dims: &[usize], values: &[f32]) -> TensorProto {
    tensor(name, DataType::Float, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// A node with one output.
pub(crate) fn node(op: &str, name: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: name.into(),
        input: inputs.iter().map(|i| (*i).into()).collect(),
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    }
}

/// An integer attribute.
pub(crate) fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: AttributeType::Int as i32, ..AttributeProto::default() }
}

/// An attribute of integers.
pub(crate) fn integer_list(name: &str, ints: Vec<i64>) -> AttributeProto {
    AttributeProto { name: name.into(), ints, r#type: AttributeType::Ints as i32, ..AttributeProto::default() }
}

pub(crate) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

/// An integer attribute or its default.
pub(crate) fn integer_or(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |a| a.i)
}

/// A float attribute or its default.
pub(crate) fn float_or(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).map_or(default, |a| a.f)
}

/// Whether a node is of ONNX's own operator set.
pub(crate) fn is_standard(node: &NodeProto) -> bool {
    node.domain.is_empty() || node.domain == "ai.onnx"
}
