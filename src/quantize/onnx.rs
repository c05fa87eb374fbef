//! ONNX messages: reading weights and attributes, making nodes and tensors.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

/// The floats of a tensor, however they are stored; `None` for other element types.
pub(super) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type != DataType::Float as i32 {
        return None;
    }
    if tensor.raw_data.is_empty() {
        return Some(tensor.float_data.clone());
    }
    Some(tensor.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// Puts other floats into a tensor.
pub(super) fn set_floats(tensor: &mut TensorProto, values: &[f32]) {
    tensor.float_data = Vec::new();
    tensor.raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
}

/// The 64-bit integers of a small tensor (axes, a shape).
pub(super) fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    if tensor.data_type != DataType::Int64 as i32 {
        return None;
    }
    if tensor.raw_data.is_empty() {
        return Some(tensor.int64_data.clone());
    }
    Some(tensor.raw_data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
}

/// The axes of a tensor.
pub(super) fn dims(tensor: &TensorProto) -> Vec<usize> {
    tensor.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect()
}

/// A tensor of raw bytes.
pub(super) fn tensor(name: impl Into<String>, data_type: DataType, dims: &[usize], raw_data: Vec<u8>) -> TensorProto {
    let dims = dims.iter().map(|d| *d as i64).collect();
    TensorProto { name: name.into(), data_type: data_type as i32, dims, raw_data, ..TensorProto::default() }
}

/// A tensor of floats.
pub(super) fn float_tensor(name: impl Into<String>, dims: &[usize], values: &[f32]) -> TensorProto {
    tensor(name, DataType::Float, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// A node with one output.
pub(super) fn node(op: &str, name: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
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
pub(super) fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: AttributeType::Int as i32, ..AttributeProto::default() }
}

/// An attribute of integers.
pub(super) fn integer_list(name: &str, ints: Vec<i64>) -> AttributeProto {
    AttributeProto { name: name.into(), ints, r#type: AttributeType::Ints as i32, ..AttributeProto::default() }
}

pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

/// An integer attribute or its default.
pub(super) fn integer_or(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |a| a.i)
}

/// A float attribute or its default.
pub(super) fn float_or(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).map_or(default, |a| a.f)
}

/// Whether a node is of ONNX's own operator set.
pub(super) fn is_standard(node: &NodeProto) -> bool {
    node.domain.is_empty() || node.domain == "ai.onnx"
}
