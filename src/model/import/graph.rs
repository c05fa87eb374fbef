//! A graph while it is rewritten: its nodes in order, its constants by name.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use crate::model::trunk::read_by;
use crate::onnx::{codes, floats, node, tensor};

/// Scale and zero point of codes: the names of two constants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Grid {
    pub(super) scale: String,
    pub(super) zero: String,
}

/// What a [`Grid`] says: scales, zero points, and the element type of the codes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GridValues {
    pub(super) scales: Vec<f32>,
    pub(super) zeros: Vec<i32>,
    pub(super) data_type: i32,
}

/// Codes behind a DequantizeLinear.
#[derive(Clone, Debug)]
pub(super) struct Quantised {
    pub(super) codes: String,
    pub(super) grid: Grid,
}

/// The graph.
pub(super) struct Graph {
    pub(super) nodes: Vec<NodeProto>,
    constants: HashMap<String, TensorProto>,
    /// Tensors that keep their names and their makers: outputs, and what graphs within nodes read.
    fixed: HashSet<String>,
    /// All names of tensors.
    names: HashSet<String>,
}

impl Graph {
    /// Takes the nodes and constants out of `proto`.
    pub(super) fn take(proto: &mut GraphProto) -> Graph {
        let nodes = std::mem::take(&mut proto.node);
        let constants: HashMap<String, TensorProto> =
            std::mem::take(&mut proto.initializer).into_iter().map(|t| (t.name.clone(), t)).collect();
        // in old files the constants are inputs too
        proto.input.retain(|i| !constants.contains_key(&i.name));
        let mut fixed: HashSet<String> = proto.output.iter().map(|o| o.name.clone()).collect();
        for outer in nodes.iter().filter(|n| n.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty())) {
            let mut reads = Vec::new();
            read_by(outer, 0, &mut reads);
            fixed.extend(reads);
        }
        let mut names: HashSet<String> = nodes.iter().flat_map(|n| n.output.iter().chain(&n.input)).cloned().collect();
        names.extend(constants.keys().cloned().chain(fixed.iter().cloned()));
        Graph { nodes, constants, fixed, names }
    }

    /// Puts nodes and constants back.
    pub(super) fn put_back(self, proto: &mut GraphProto) {
        let mut constants: Vec<TensorProto> = self.constants.into_values().collect();
        constants.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        proto.node = self.nodes;
        proto.initializer = constants;
    }

    pub(super) fn constant(&self, name: &str) -> Option<&TensorProto> {
        self.constants.get(name)
    }

    /// Makes `tensor` a constant under its own name.
    pub(super) fn set_constant(&mut self, tensor: TensorProto) {
        self.constants.insert(tensor.name.clone(), tensor);
    }

    pub(super) fn take_constant(&mut self, name: &str) -> Option<TensorProto> {
        self.constants.remove(name)
    }

    pub(super) fn is_fixed(&self, name: &str) -> bool {
        self.fixed.contains(name)
    }

    /// A name like `hint` that no tensor has yet.
    pub(super) fn fresh(&mut self, hint: &str) -> String {
        let mut name = hint.to_owned();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            name = format!("{hint}.{count}");
        }
        name
    }

    /// Adds a constant under a name like `hint`; returns the name.
    pub(super) fn add(&mut self, hint: &str, data_type: DataType, dims: &[usize], bytes: Vec<u8>) -> String {
        let name = self.fresh(hint);
        self.set_constant(tensor(name.clone(), data_type, dims, bytes));
        name
    }

    /// The node that makes each tensor.
    pub(super) fn makers(nodes: &[NodeProto]) -> HashMap<String, usize> {
        nodes.iter().enumerate().flat_map(|(i, n)| n.output.iter().map(move |o| (o.clone(), i))).collect()
    }

    /// How many nodes read each tensor.
    pub(super) fn readers(nodes: &[NodeProto]) -> HashMap<String, usize> {
        let mut readers = HashMap::new();
        for name in nodes.iter().flat_map(|n| &n.input).filter(|name| !name.is_empty()) {
            *readers.entry(name.clone()).or_default() += 1;
        }
        readers
    }

    /// The numbers of a grid, when they are constants.
    pub(super) fn grid_values(&self, grid: &Grid) -> Option<GridValues> {
        let (scale, zero) = (self.constant(&grid.scale)?, self.constant(&grid.zero)?);
        Some(GridValues { scales: floats(scale)?, zeros: codes(zero)?, data_type: zero.data_type })
    }

    /// The numbers of a grid that is one for the whole tensor.
    pub(super) fn uniform_grid(&self, grid: &Grid) -> Option<GridValues> {
        self.grid_values(grid).filter(|v| v.scales.len() == 1 && v.zeros.len() == 1)
    }

    /// Whether two grids are one for the whole tensor and say the same.
    pub(super) fn same_grid(&self, a: &Grid, b: &Grid) -> bool {
        self.uniform_grid(a).is_some_and(|values| self.uniform_grid(b) == Some(values))
    }

    /// Removes nodes and constants that nothing reads.
    pub(super) fn drop_unread(&mut self) {
        let mut read: HashSet<String> = self.fixed.clone();
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.output.iter().any(|o| read.contains(o)) {
                read.extend(node.input.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self.constants.retain(|name, _| read.contains(name));
    }
}

/// The scale and zero point that a QuantizeLinear or DequantizeLinear names.
pub(super) fn grid_of(node: &NodeProto) -> Option<Grid> {
    let [_, scale, zero] = node.input.as_slice() else { return None };
    (!zero.is_empty()).then(|| Grid { scale: scale.clone(), zero: zero.clone() })
}

pub(super) fn quantize(name: &str, input: &str, grid: &Grid, output: &str) -> NodeProto {
    node("QuantizeLinear", name, &[input, &grid.scale, &grid.zero], output, vec![])
}

pub(super) fn dequantize(name: &str, input: &str, grid: &Grid, output: &str) -> NodeProto {
    node("DequantizeLinear", name, &[input, &grid.scale, &grid.zero], output, vec![])
}
