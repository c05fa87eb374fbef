//! A model cut at its feature tensor: what a head is taught on.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use sha2::{Digest, Sha256};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

use super::error::ModelError;
use super::load;
use super::manifest::{Manifest, OutputKind};

/// A graph that ends at its features.
#[derive(Debug)]
pub struct Trunk {
    /// The graph: its only output is the feature tensor.
    pub graph: ModelProto,
    /// The feature tensor's name.
    pub features: String,
    /// Of the whole model's file, in hexadecimal.
    pub sha256: String,
    /// The whole model's manifest.
    pub manifest: Manifest,
}

impl Trunk {
    /// Reads the model at `path` and cuts it at the tensor that its manifest names (`[output] features`), or at its output where
    /// that is features.
    ///
    /// # Errors
    /// The files cannot be read, or no feature tensor is named, or the graph does not make it.
    pub fn read(path: &Path) -> Result<Trunk, ModelError> {
        let manifest = load::manifest(path)?;
        let bytes = load::read(path)?;
        load::check_digest(path, &bytes, &manifest)?;
        let sha256 = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        let mut graph = load::parse(path, bytes)?;
        let features = cut_at_features(path, &mut graph, &manifest)?;
        Ok(Trunk { graph, features, sha256, manifest })
    }
}

/// Cuts the graph at the manifest's feature tensor; returns its name.
pub(super) fn cut_at_features(path: &Path, proto: &mut ModelProto, manifest: &Manifest) -> Result<String, ModelError> {
    let fail = |detail| ModelError::Graph { path: path.into(), doing: "cutting it at its features", detail };
    let graph = proto.graph.as_mut().ok_or_else(|| fail("it holds no graph".into()))?;
    let name = match (&manifest.output.features, manifest.output.kind) {
        (Some(name), _) => name.clone(),
        (None, OutputKind::Features) => graph.output[0].name.clone(),
        (None, _) => {
            let hint = last_product(graph).map(|n| format!(" (the last layer reads `{n}`)")).unwrap_or_default();
            let manifest = manifest.path.display();
            return Err(fail(format!(
                "{manifest} names no feature tensor: add features = \"TENSOR\" under [output]{hint}"
            )));
        }
    };
    cut(graph, &name).map_err(fail)?;
    Ok(name)
}

/// What the last fully connected layer or convolution reads.
fn last_product(graph: &GraphProto) -> Option<&str> {
    let product =
        |n: &&NodeProto| matches!(n.op_type.as_str(), "Gemm" | "MatMul" | "QLinearConv" | "QLinearMatMul" | "Conv");
    graph.node.iter().rev().find(product).and_then(|n| n.input.first()).map(String::as_str)
}

/// Makes `tensor` the only output; drops nodes and weights that it does not need.
pub(super) fn cut(graph: &mut GraphProto, tensor: &str) -> Result<(), String> {
    let makers: HashMap<&str, usize> =
        graph.node.iter().enumerate().flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i))).collect();
    if !makers.contains_key(tensor) {
        return Err(format!("no node makes the tensor `{tensor}`; correct [output] features in its manifest"));
    }
    let (mut needed, mut keep) = (HashSet::from([tensor.to_owned()]), vec![false; graph.node.len()]);
    let mut open = vec![tensor.to_owned()];
    while let Some(name) = open.pop() {
        let Some(&maker) = makers.get(name.as_str()) else { continue };
        if std::mem::replace(&mut keep[maker], true) {
            continue;
        }
        let mut reads = Vec::new();
        read_by(&graph.node[maker], 0, &mut reads);
        open.extend(reads.into_iter().filter(|name| needed.insert(name.clone())));
    }
    let mut keep = keep.into_iter();
    graph.node.retain(|_| keep.next().unwrap_or(false));
    graph.initializer.retain(|i| needed.contains(&i.name));
    let weights: HashSet<&str> = graph.initializer.iter().map(|i| i.name.as_str()).collect();
    let first = graph.input.iter().position(|i| !weights.contains(i.name.as_str()));
    let mut index = 0;
    graph.input.retain(|i| {
        index += 1;
        Some(index - 1) == first || needed.contains(&i.name)
    });
    graph.value_info.clear();
    graph.quantization_annotation.clear();
    graph.output = vec![ValueInfoProto { name: tensor.into(), ..ValueInfoProto::default() }];
    Ok(())
}

/// The tensors that a node reads, those of its inner graphs included.
pub(super) fn read_by(node: &NodeProto, depth: usize, reads: &mut Vec<String>) {
    reads.extend(node.input.iter().filter(|name| !name.is_empty()).cloned());
    // deeper than any exporter nests
    if depth < 8 {
        let inner = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)).flat_map(|g| &g.node);
        inner.for_each(|node| read_by(node, depth + 1, reads));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, reads: &[&str]) -> NodeProto {
        NodeProto {
            input: reads.iter().map(|r| (*r).into()).collect(),
            output: vec![name.into()],
            ..NodeProto::default()
        }
    }

    #[test]
    fn what_the_features_do_not_need_is_dropped() {
        let weight = |name: &str| tract_onnx::pb::TensorProto { name: name.into(), ..Default::default() };
        let mut graph = GraphProto {
            node: vec![node("a", &["image", "w"]), node("b", &["a"]), node("c", &["b", "head"])],
            initializer: vec![weight("w"), weight("head")],
            input: vec![ValueInfoProto { name: "image".into(), ..ValueInfoProto::default() }],
            ..GraphProto::default()
        };
        assert!(cut(&mut graph.clone(), "nothing").unwrap_err().contains("`nothing`"));
        assert_eq!(last_product(&graph), None);
        cut(&mut graph, "b").unwrap();
        assert_eq!((graph.node.len(), graph.initializer.len(), graph.input.len()), (2, 1, 1));
        assert_eq!(graph.output[0].name, "b");
    }
}
