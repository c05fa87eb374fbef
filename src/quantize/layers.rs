//! The layers that become codes: their float weights, and which tensors they read and make.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tract_onnx::pb::{GraphProto, TensorProto};
use tract_onnx::prelude::Tensor;

use super::emit::Quantized;
use super::float_run::{Dense, FloatLayer};
use super::onnx::floats;
use super::roles::{Product, ProductKind, Role, Roles, Shapes};
use super::weights;

/// The float weights, as tract holds them, and all shapes.
pub(super) struct Weights {
    pub(super) tensors: HashMap<String, Arc<Tensor>>,
    pub(super) shapes: Shapes,
}

impl Weights {
    pub(super) fn quantize(&self, graph: &GraphProto, product: &Product, error: bool) -> Option<Quantized> {
        let tensor = self.tensors.get(&product.weights)?;
        let (values, dims) = (tensor.try_as_plain_ram().ok()?.as_slice::<f32>().ok()?, tensor.shape().to_vec());
        let window = match product.kind {
            ProductKind::Convolution => dims[2] * dims[3],
            _ => flattened_from(graph, product, &self.shapes).map_or(1, |(_, pixels)| pixels),
        };
        let weights = match product.kind {
            ProductKind::Columns => weights::quantize_columns(values, product.outputs, window, error),
            _ => weights::quantize(values, product.outputs, window, error),
        };
        Some(Quantized { product: product.clone(), weights, dims, bias: self.bias(graph, product)? })
    }

    fn bias(&self, graph: &GraphProto, product: &Product) -> Option<Vec<f32>> {
        match &product.bias {
            Some(name) => floats(graph.initializer.iter().find(|i| i.name == *name)?),
            None => Some(vec![0.0; product.outputs]),
        }
    }
}

/// The quantised layers, by node.
pub(super) fn products(roles: &Roles) -> impl Iterator<Item = (usize, &Product)> {
    roles.roles.iter().enumerate().filter_map(|(index, role)| match role {
        Role::Product(product) => Some((index, product)),
        _ => None,
    })
}

/// The image that a fully connected layer's input was flattened from, and its pixels.
fn flattened_from(graph: &GraphProto, product: &Product, shapes: &Shapes) -> Option<(String, usize)> {
    let maker = graph.node.iter().find(|n| n.output.first() == Some(&product.input))?;
    let flattens = product.kind != ProductKind::Convolution && matches!(maker.op_type.as_str(), "Flatten" | "Reshape");
    match shapes.get(maker.input.first()?).map(Vec::as_slice) {
        Some(&[1, _, height, width]) if flattens => Some((maker.input[0].clone(), height * width)),
        _ => None,
    }
}

/// The tensor whose channels' means a corrected bias takes.
pub(super) fn mean_of(graph: &GraphProto, product: &Product, shapes: &Shapes) -> String {
    flattened_from(graph, product, shapes).map_or(product.input.clone(), |(image, _)| image)
}

/// The tensors whose distribution is needed, without repetition.
pub(super) fn watched(graph: &GraphProto, roles: &Roles, shapes: &Shapes, means: bool) -> Vec<String> {
    let mut watched: Vec<String> = roles.quantized.iter().cloned().collect();
    watched.extend(products(roles).map(|(_, p)| p.output.clone()));
    if means {
        watched.extend(products(roles).map(|(_, p)| mean_of(graph, p, shapes)));
    }
    watched.sort();
    watched.dedup();
    watched
}

/// The layers with their activations, as they are calibrated.
pub(super) fn float_layers(graph: &GraphProto, roles: &Roles, weights: &Weights) -> Vec<FloatLayer> {
    let layer = |(index, product): (usize, &Product)| {
        let matrix = || weights.tensors.get(&product.weights).cloned();
        let dense = match product.kind {
            ProductKind::Convolution => None,
            ProductKind::Rows => Some((Dense::Rows(matrix()?), weights.bias(graph, product)?)),
            ProductKind::Columns => Some((Dense::Columns(matrix()?), weights.bias(graph, product)?)),
        };
        Some(FloatLayer {
            input: product.input.clone(),
            makes: graph.node[index].output[0].clone(),
            output: product.output.clone(),
            limits: product.limits,
            dense,
        })
    };
    products(roles).filter_map(layer).collect()
}

/// Frees the float weights that only quantised layers read: what stays float is written again.
pub(super) fn release_weights(graph: &mut GraphProto, weights: &Weights, roles: &Roles) {
    let quantized: HashSet<&str> = products(roles).map(|(_, p)| p.weights.as_str()).collect();
    let float = graph.node.iter().zip(&roles.roles).filter(|(_, role)| !matches!(role, Role::Product(_)));
    let needed: HashSet<&String> = float.flat_map(|(node, _)| &node.input).collect();
    let spare = |i: &&mut TensorProto| {
        quantized.contains(i.name.as_str()) && !needed.contains(&i.name) && weights.tensors.contains_key(&i.name)
    };
    for tensor in graph.initializer.iter_mut().filter(spare) {
        (tensor.raw_data, tensor.float_data) = (Vec::new(), Vec::new());
    }
}

/// Watched tensor and node of each layer, in order.
pub(super) fn layer_names(
    graph: &GraphProto,
    products: &[(usize, Quantized)],
    watched: &[String],
) -> Vec<(usize, String)> {
    let name = |(index, quantized): &(usize, Quantized)| {
        let tensor = watched.iter().position(|w| *w == quantized.product.output)?;
        Some((tensor, graph.node[*index].name.clone()))
    };
    products.iter().filter_map(name).collect()
}
