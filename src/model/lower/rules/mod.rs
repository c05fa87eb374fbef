//! Which nodes of a typed graph become which layers. A rule looks at one node, the last of its pattern.
//!
//! | file | what |
//! |---|---|
//! | `products` | convolutions and fully connected layers, on codes and on floats |
//! | `matrix` | the weights of fully connected layers |
//! | `codes` | between codes and floats; functions of one code |
//! | `pools` | pools, and tensors side by side |
//! | `pairs` | sums and products of two tensors |

mod codes;
mod matrix;
mod pairs;
mod pools;
mod products;

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::graph::{Graph, height_width_channels};
use crate::kernels::{Combine, ConvSpec, Requantize};
use crate::model::program::Affine;
pub(super) use matrix::{Matrix, Weights};

/// A pattern of nodes that our kernels compute.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The graph's node, for people.
    pub(super) name: String,
    /// What it computes.
    pub(super) layer: Layer,
    /// What it reads; constants are in the layer.
    pub(super) inputs: Vec<OutletId>,
    /// What it makes.
    pub(super) output: OutletId,
    /// Further nodes of the pattern, whose results nobody else reads.
    pub(super) covers: Vec<usize>,
}

/// What an entry computes. Zero points are those of `u8` codes.
#[derive(Clone, Debug)]
pub(super) enum Layer {
    Conv(Box<ConvLayer>),
    Dense(Box<DenseLayer>),
    MaxPool(Window),
    AveragePool {
        window: Window,
        /// Positions outside of the image count as zeros.
        count_padding: bool,
        affine: Affine,
    },
    Quantize {
        reciprocal: f32,
        zero_point: u8,
        /// The smallest and the largest code written.
        bounds: [u8; 2],
    },
    Dequantize(Affine),
    Average(Affine),
    /// Two float tensors, or one and constants, one a channel.
    Pair {
        op: Combine,
        constants: Option<Box<[f32]>>,
    },
    /// Codes side by side, each by its table.
    Concat(Vec<Option<Box<[u8; 256]>>>),
    Linear {
        weights: Box<[f32]>,
        bias: Box<[f32]>,
    },
    Lookup(Box<[u8; 256]>),
    /// The same elements in the same order under another shape.
    View,
}

impl Layer {
    /// The smallest and the largest code that it writes, where that can be changed.
    pub(super) fn bounds(&mut self) -> Option<[&mut u8; 2]> {
        match self {
            Layer::Conv(layer) => Some([&mut layer.requantize.min, &mut layer.requantize.max]),
            Layer::Dense(layer) => Some([&mut layer.requantize.min, &mut layer.requantize.max]),
            Layer::Quantize { bounds: [low, high], .. } => Some([low, high]),
            _ => None,
        }
    }
}

/// The window of a pool; padding at top, left, bottom, right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) padding: [usize; 4],
}

/// An 8-bit convolution.
#[derive(Clone, Debug)]
pub(super) struct ConvLayer {
    pub(super) spec: ConvSpec,
    /// `[out][in / groups][kernel height][kernel width]`, less the zero point.
    pub(super) weights: Arc<[i16]>,
    pub(super) bias: Vec<i32>,
    pub(super) requantize: Requantize,
    /// The scale of the input: QuantizeLinear's own, of which tract keeps the reciprocal only.
    pub(super) input_scale: f32,
}

/// An 8-bit fully connected layer.
#[derive(Clone, Debug)]
pub(super) struct DenseLayer {
    pub(super) weights: Matrix,
    pub(super) bias: Vec<i32>,
    pub(super) input_zero_point: u8,
    pub(super) requantize: Requantize,
}

/// What a rule says.
pub(super) enum Verdict {
    /// Ours.
    Ours(Entry),
    /// A quantised node that we should know but do not.
    Refused(&'static str),
    /// Not our business.
    Foreign,
}

/// A rule's inner result: `None` is not our business.
type Judged = Option<Result<Entry, &'static str>>;

/// Asks every rule about a node.
pub(super) fn judge(graph: Graph, node: &TypedNode) -> Verdict {
    let rules: [fn(Graph, &TypedNode) -> Judged; 11] = [
        products::conv,
        products::dense,
        pools::max_pool,
        pools::concat,
        codes::quantize,
        codes::dequantize,
        pools::average,
        pools::average_pool,
        products::linear,
        pairs::pair,
        view,
    ];
    match rules.iter().find_map(|rule| rule(graph, node)) {
        Some(Ok(entry)) => Verdict::Ours(entry),
        Some(Err(why)) => Verdict::Refused(why),
        None => Verdict::Foreign,
    }
}

fn entry(node: &TypedNode, layer: Layer, inputs: &[OutletId], covers: Vec<usize>) -> Entry {
    Entry { name: node.name.clone(), layer, inputs: inputs.into(), output: node.id.into(), covers }
}

/// What is added to an `i8` code to make it a `u8` code.
fn shift(datum_type: DatumType) -> Option<i32> {
    match datum_type {
        DatumType::U8 => Some(0),
        DatumType::I8 => Some(128),
        _ => None,
    }
}

fn zero_point(value: i32, datum_type: DatumType) -> Option<u8> {
    u8::try_from(value + shift(datum_type)?).ok()
}

fn is_codes(datum_type: DatumType) -> bool {
    shift(datum_type).is_some()
}

/// A change of axes after which our layout is still the same.
fn view(graph: Graph, node: &TypedNode) -> Judged {
    if !keeps_order(graph, node) {
        return None;
    }
    let (datum_type, from) = graph.tensor(node.inputs[0])?;
    let (_, to) = graph.tensor(node.id.into())?;
    let same = height_width_channels(&from) == height_width_channels(&to);
    (same && (datum_type == DatumType::F32 || is_codes(datum_type)))
        .then(|| Ok(entry(node, Layer::View, &node.inputs, vec![])))
}

/// A change of axes that leaves the elements in order (in tract's layout).
fn keeps_order(graph: Graph, node: &TypedNode) -> bool {
    match node.op_as::<AxisOp>() {
        Some(AxisOp::Move(from, to)) => from == to,
        Some(_) => graph.tensor(node.inputs[0]).is_some() && graph.tensor(node.id.into()).is_some(),
        None => false,
    }
}
