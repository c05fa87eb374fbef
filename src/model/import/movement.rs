//! Operations that only move elements give the same on codes as on floats, so they move codes: their DequantizeLinear comes after them, and
//! where a QuantizeLinear with the same numbers follows it, both fall away.

use std::collections::HashMap;

use tract_onnx::pb::NodeProto;

use super::graph::{Graph, Quantised, dequantize, grid_of};

/// Whether a node gives the elements of its first input in another order or shape, or some of them. Codes are monotonic, so the largest
/// code is the code of the largest.
pub(super) fn moves_only(node: &NodeProto) -> bool {
    const MOVES: [&str; 9] =
        ["MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Dropout"];
    node.output.len() == 1 && MOVES.contains(&node.op_type.as_str())
}

pub(super) fn rewrite(graph: &mut Graph) {
    let mut alias: HashMap<String, String> = HashMap::new();
    let mut floats: HashMap<String, Quantised> = HashMap::new();
    for mut node in std::mem::take(&mut graph.nodes) {
        for input in &mut node.input {
            if let Some(other) = alias.get(input) {
                input.clone_from(other);
            }
        }
        if node.op_type == "DequantizeLinear"
            && graph.constant(&node.input[0]).is_none()
            && let Some(grid) = grid_of(&node).filter(|g| graph.uniform_grid(g).is_some())
        {
            floats.insert(node.output[0].clone(), Quantised { codes: node.input[0].clone(), grid });
        } else if node.op_type == "QuantizeLinear"
            && let Some(source) = floats.get(&node.input[0])
            && !graph.is_fixed(&node.output[0])
            && grid_of(&node).is_some_and(|grid| graph.same_grid(&grid, &source.grid))
        {
            alias.insert(node.output[0].clone(), source.codes.clone());
            continue;
        } else if let Some(sources) = moved(graph, &node, &floats) {
            let output = node.output[0].clone();
            let codes = graph.fresh(&format!("{output}.codes"));
            let grid = sources[0].grid.clone();
            for (input, source) in node.input.iter_mut().zip(&sources) {
                input.clone_from(&source.codes);
            }
            node.output[0].clone_from(&codes);
            let after = dequantize(&format!("{}.dequantize", node.name), &codes, &grid, &output);
            graph.nodes.extend([node, after]);
            floats.insert(output, Quantised { codes, grid });
            continue;
        }
        graph.nodes.push(node);
    }
}

/// The codes that a node could move instead of floats.
fn moved(graph: &Graph, node: &NodeProto, floats: &HashMap<String, Quantised>) -> Option<Vec<Quantised>> {
    let sources: Vec<Quantised> = match node.op_type.as_str() {
        "Concat" => node.input.iter().map(|i| floats.get(i).cloned()).collect::<Option<_>>()?,
        _ if moves_only(node) => vec![floats.get(&node.input[0])?.clone()],
        _ => return None,
    };
    let first = &sources.first()?.grid;
    sources.iter().all(|s| graph.same_grid(&s.grid, first)).then_some(sources)
}
