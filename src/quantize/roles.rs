//! Which nodes of the float graph work on codes, which stay float, and why.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::onnx::{attribute, dims, float_or, floats, integer_or, integers, is_standard};

/// What a node becomes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Role {
    /// A convolution or fully connected layer on codes.
    Product(Product),
    /// Part of the product before it: an activation, an added bias.
    Folded,
    /// Moves values without changing them: works on codes where its input is codes.
    Carry,
    /// A Relu or Clip that is quantised at once: the codes' range does its work.
    Clamp((f32, f32)),
    /// Stays float.
    Float,
}

/// A quantised layer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Product {
    /// The tensor that it reads.
    pub(super) input: String,
    /// The tensor that it makes, behind the activation.
    pub(super) output: String,
    /// The weights' tensor.
    pub(super) weights: String,
    /// The bias's tensor.
    pub(super) bias: Option<String>,
    /// Output channels.
    pub(super) outputs: usize,
    pub(super) kind: ProductKind,
    /// What a folded activation leaves through.
    pub(super) limits: (f32, f32),
}

/// How the weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProductKind {
    /// `[outputs][inputs / groups][height][width]`
    Convolution,
    /// `[outputs][inputs]`
    Rows,
    /// `[inputs][outputs]`
    Columns,
}

/// A node that stays float.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Why.
    pub why: &'static str,
}

/// What the user wants float.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    pub(super) keep_float: HashSet<String>,
    pub(super) quantize_output: bool,
}

/// The roles of all nodes, in the graph's order.
pub(super) struct Roles {
    pub(super) roles: Vec<Role>,
    pub(super) kept: Vec<Kept>,
    /// Tensors whose codes somebody wants and that no product makes.
    pub(super) quantized: HashSet<String>,
}

/// The layer that makes the scores.
const SCORES: &str = "it makes the scores: in 8 bits two classes would often tie";
const BY_NATURE: &str = "a float operation between codes";

const NO_LIMITS: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

/// Whether a node averages each channel of an image.
pub(super) fn is_average<T: Borrow<TensorProto>>(node: &NodeProto, weights: &HashMap<&str, T>) -> bool {
    if !is_standard(node) {
        return false;
    }
    let axes = || match node.input.get(1) {
        Some(input) => integers(weights.get(input.as_str())?.borrow()),
        None => Some(attribute(node, "axes")?.ints.clone()),
    };
    match node.op_type.as_str() {
        "GlobalAveragePool" => true,
        "ReduceMean" => axes().is_some_and(|a| matches!(a.as_slice(), [2, 3] | [3, 2] | [-1, -2] | [-2, -1])),
        _ => false,
    }
}

/// Shapes by tensor, as far as they are known.
pub(super) type Shapes = HashMap<String, Vec<usize>>;

struct View<'a> {
    graph: &'a GraphProto,
    shapes: &'a Shapes,
    opset: i64,
    weights: HashMap<&'a str, &'a TensorProto>,
    readers: HashMap<&'a str, Vec<usize>>,
    makers: HashMap<&'a str, usize>,
    outputs: HashSet<&'a str>,
}

/// Decides on every node.
pub(super) fn assign(graph: &GraphProto, shapes: &Shapes, opset: i64, wishes: &Wishes) -> Roles {
    let view = View::new(graph, shapes, opset);
    let mut roles = vec![Role::Float; graph.node.len()];
    let mut kept = Vec::new();
    for (index, node) in graph.node.iter().enumerate() {
        if roles[index] != Role::Float {
            continue;
        }
        let judged = if wishes.keep_float.contains(&node.name) { Err("as asked for") } else { view.judge(node) };
        match judged {
            Ok(Role::Product(_)) if !wishes.quantize_output && view.makes_scores(&node.output[0]) => {
                kept.push(Kept { node: node.name.clone(), op: node.op_type.clone(), why: SCORES });
            }
            Ok(Role::Product(mut product)) => {
                if let Some(add) = view.added_bias(node, &product) {
                    (product.bias, product.output) = (Some(add.1), graph.node[add.0].output[0].clone());
                    roles[add.0] = Role::Folded;
                }
                if let Some((activation, limits)) = view.activation(&product.output, wishes) {
                    (product.limits, product.output) = (limits, graph.node[activation].output[0].clone());
                    roles[activation] = Role::Folded;
                }
                roles[index] = Role::Product(product);
            }
            Ok(role) => roles[index] = role,
            Err(why) => kept.push(Kept { node: node.name.clone(), op: node.op_type.clone(), why }),
        }
    }
    let quantized = view.quantized(&roles);
    for (index, node) in graph.node.iter().enumerate() {
        let clamp = view.limits(node).filter(|_| roles[index] == Role::Float && quantized.contains(&node.output[0]));
        if let (Some(limits), false) = (clamp, wishes.keep_float.contains(&node.name)) {
            roles[index] = Role::Clamp(limits);
            kept.retain(|k| k.node != node.name);
        }
    }
    Roles { roles, kept, quantized }
}

impl<'a> View<'a> {
    fn new(graph: &'a GraphProto, shapes: &'a Shapes, opset: i64) -> Self {
        let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, node) in graph.node.iter().enumerate() {
            for input in &node.input {
                readers.entry(input).or_default().push(index);
            }
        }
        let made = |(index, node): (usize, &'a NodeProto)| node.output.iter().map(move |o| (o.as_str(), index));
        View {
            graph,
            shapes,
            opset,
            weights: graph.initializer.iter().map(|i| (i.name.as_str(), i)).collect(),
            readers,
            makers: graph.node.iter().enumerate().flat_map(made).collect(),
            outputs: graph.output.iter().map(|o| o.name.as_str()).collect(),
        }
    }

    fn judge(&self, node: &NodeProto) -> Result<Role, &'static str> {
        if !is_standard(node) {
            return Err("an operator outside of the standard");
        }
        match node.op_type.as_str() {
            "Conv" => self.convolution(node).map(Role::Product),
            "Gemm" | "MatMul" => self.fully_connected(node).map(Role::Product),
            "MaxPool" if self.opset < 12 => Err("max-pools of codes exist from operator set 12 on"),
            "MaxPool" if node.output.len() > 1 => Err("max-pools with indices stay float"),
            "MaxPool" | "Flatten" | "Transpose" => Ok(Role::Carry),
            "Reshape" | "Squeeze" | "Unsqueeze" if node.input[1..].iter().all(|i| self.is_weight(i)) => Ok(Role::Carry),
            _ => Err(BY_NATURE),
        }
    }

    fn is_weight(&self, name: &str) -> bool {
        self.weights.contains_key(name)
    }

    fn convolution(&self, node: &NodeProto) -> Result<Product, &'static str> {
        let weights = node.input.get(1).and_then(|w| self.weights.get(w.as_str()));
        let weights = weights.ok_or("its weights are computed by other nodes")?;
        let shape = dims(weights);
        if shape.len() != 4 {
            return Err("only convolutions over height and width are quantised");
        }
        self.product(node, weights, shape[0], ProductKind::Convolution)
    }

    fn fully_connected(&self, node: &NodeProto) -> Result<Product, &'static str> {
        let weights = node.input.get(1).and_then(|w| self.weights.get(w.as_str()));
        let weights = weights.ok_or("it multiplies two computed tensors")?;
        let (gemm, shape) = (node.op_type == "Gemm", dims(weights));
        let plain = ["alpha", "beta"].iter().all(|name| float_or(node, name, 1.0) == 1.0);
        if gemm && (!plain || integer_or(node, "transA", 0) != 0) {
            return Err("only a plain row times a matrix is quantised");
        }
        let by_rows = gemm && integer_or(node, "transB", 0) != 0;
        let (&[first, second], Some(input)) = (shape.as_slice(), self.shapes.get(&node.input[0])) else {
            return Err("its matrix or its input has an unknown shape");
        };
        let (outputs, inputs) = if by_rows { (first, second) } else { (second, first) };
        if *input != [1, inputs] {
            return Err("only one row times a constant matrix is quantised");
        }
        self.product(node, weights, outputs, if by_rows { ProductKind::Rows } else { ProductKind::Columns })
    }

    fn product(
        &self,
        node: &NodeProto,
        weights: &TensorProto,
        outputs: usize,
        kind: ProductKind,
    ) -> Result<Product, &'static str> {
        let bias = node.input.get(2).filter(|b| !b.is_empty());
        if bias.is_some_and(|b| !self.is_bias(b, outputs)) {
            return Err("its bias is computed, or is not one number an output");
        }
        if weights.data_type != tract_onnx::pb::tensor_proto::DataType::Float as i32 || outputs == 0 {
            return Err("its weights are no 32-bit floats");
        }
        Ok(Product {
            input: node.input[0].clone(),
            output: node.output[0].clone(),
            weights: weights.name.clone(),
            bias: bias.cloned(),
            outputs,
            kind,
            limits: NO_LIMITS,
        })
    }

    fn is_bias(&self, name: &str, outputs: usize) -> bool {
        self.weights.get(name).and_then(|t| floats(t)).is_some_and(|b| b.len() == outputs)
    }

    /// The only reader of a tensor that is not the model's output.
    fn only_reader(&self, tensor: &str) -> Option<usize> {
        match self.readers.get(tensor).map(Vec::as_slice) {
            Some(&[reader]) if !self.outputs.contains(tensor) => Some(reader),
            _ => None,
        }
    }

    /// The Add of a constant behind a matrix product without a bias of its own.
    fn added_bias(&self, node: &NodeProto, product: &Product) -> Option<(usize, String)> {
        if product.bias.is_some() || product.kind != ProductKind::Columns || node.op_type != "MatMul" {
            return None;
        }
        let reader = self.only_reader(&product.output)?;
        let add = &self.graph.node[reader];
        let bias = add.input.iter().find(|i| **i != product.output)?;
        (add.op_type == "Add" && is_standard(add) && self.is_bias(bias, product.outputs))
            .then(|| (reader, bias.clone()))
    }

    /// The Relu or Clip that alone reads a product.
    fn activation(&self, tensor: &str, wishes: &Wishes) -> Option<(usize, (f32, f32))> {
        let reader = self.only_reader(tensor)?;
        let node = &self.graph.node[reader];
        let limits = self.limits(node).filter(|_| !wishes.keep_float.contains(&node.name))?;
        (node.input[0] == tensor).then_some((reader, limits))
    }

    /// What Relu and Clip let through, where that holds 0.
    fn limits(&self, node: &NodeProto) -> Option<(f32, f32)> {
        if !is_standard(node) {
            return None;
        }
        match node.op_type.as_str() {
            "Relu" => Some((0.0, f32::INFINITY)),
            "Clip" => {
                let end =
                    |index: usize, name: &str, otherwise: f32| match node.input.get(index).filter(|i| !i.is_empty()) {
                        Some(input) => floats(self.weights.get(input.as_str())?)?.first().copied(),
                        None => Some(attribute(node, name).map_or(otherwise, |a| a.f)),
                    };
                let limits = (end(1, "min", NO_LIMITS.0)?, end(2, "max", NO_LIMITS.1)?);
                (limits.0 <= 0.0 && limits.1 > 0.0).then_some(limits)
            }
            _ => None,
        }
    }

    /// Whether a tensor is the model's output, or becomes it without being mixed.
    fn makes_scores(&self, tensor: &str) -> bool {
        if self.outputs.contains(tensor) {
            return true;
        }
        let Some(reader) = self.only_reader(tensor) else { return false };
        let node = &self.graph.node[reader];
        let harmless = match node.op_type.as_str() {
            "Softmax" | "LogSoftmax" | "Sigmoid" | "Flatten" | "Reshape" | "Squeeze" | "Identity" => true,
            "Add" => node.input.iter().any(|i| self.is_weight(i)),
            _ => false,
        };
        harmless && self.makes_scores(&node.output[0])
    }

    /// Where the codes that a product reads come from, through everything that carries them.
    fn source<'t>(&'t self, roles: &[Role], tensor: &'t str) -> &'t str {
        match self.makers.get(tensor) {
            Some(&maker) if roles[maker] == Role::Carry => self.source(roles, &self.graph.node[maker].input[0]),
            _ => tensor,
        }
    }

    fn quantized(&self, roles: &[Role]) -> HashSet<String> {
        let products = || roles.iter().filter_map(|r| if let Role::Product(p) = r { Some(p) } else { None });
        let made: HashSet<&str> = products().map(|p| p.output.as_str()).collect();
        // an average of codes runs on our kernels, one of floats does not; and it averages the rounding away
        let averaged = self.graph.node.iter().filter(|n| is_average(n, &self.weights));
        let averaged = averaged.map(|n| n.input[0].as_str()).filter(|t| self.makers.contains_key(t));
        let read = products().map(|p| p.input.as_str()).chain(averaged).map(|t| self.source(roles, t));
        read.filter(|t| !made.contains(t)).map(str::to_owned).collect()
    }
}
