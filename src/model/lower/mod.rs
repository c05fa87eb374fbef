//! From tract's typed graph to our programs.
//!
//! 1. `rules` recognises patterns of nodes that our kernels compute: each becomes an `Entry`.
//! 2. Entries that feed one another without a foreign node between them form a *run*. A node's level is the number of times that
//!    the way from the model's input enters a run; entries of one level form one run, so the graph of runs and foreign nodes has no cycle.
//! 3. `build` turns each run into one [`Program`] with one arena, and the program takes the place of its nodes in tract's graph.
//!    Runs without a convolution or an 8-bit dense layer stay with tract: changing the layout back and forth costs more than they gain.
//!
//! All decisions are pure functions of the graph; a node that is not recognised stays where it is and runs on tract's own op.

mod build;
mod graph;
mod rules;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::source::TypedSource;

use super::program::{Affine, Program, Run};
use crate::kernels::{Choice, Kernel, Pool};
use build::Built;
use graph::Graph;
use rules::{Entry, Layer, Verdict, Window};

/// How to lower.
pub(super) struct Options {
    /// Which kernels.
    pub(super) kernel: Kernel,
    /// By which methods they convolve.
    pub(super) choice: Choice,
    /// Their threads.
    pub(super) pool: Arc<Pool>,
    /// Whether 2x2 max-pools go into the convolution before them. Off, every convolution's own output can be seen.
    pub(super) fuse_pools: bool,
}

/// A node that stays on tract's op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The graph's node.
    pub name: String,
    /// tract's name of the operation.
    pub op: String,
    /// Why, for a quantised node that is normally lowered.
    pub why: Option<&'static str>,
}

/// What the lowering made.
#[derive(Default)]
pub(super) struct Lowered {
    /// The programs, in order.
    pub(super) programs: Vec<Arc<Program>>,
    /// The image's codes, when the graph's input goes straight into a program as `u8` NHWC.
    pub(super) image: Option<Image>,
    /// What stays on tract's ops.
    pub(super) foreign: Vec<Foreign>,
}

/// How preprocessing writes the first layer's input.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Image {
    /// The model's first QuantizeLinear.
    pub(super) affine: Affine,
    /// Stored channels: 3, or 4 with the fourth at the zero point.
    pub(super) channels: usize,
}

/// Replaces what can be replaced in `model`.
pub(super) fn lower(model: &mut TypedModel, options: &Options) -> TractResult<Lowered> {
    model.prop_consts()?;
    model.compact()?;
    let mut recognised = recognise(model, options)?;
    // building shows what the kernels refuse; without those the runs are cut anew
    let (runs, built) = loop {
        let runs = split(model, &mut recognised)?;
        match runs.iter().map(|run| build::build(Graph { model }, run, options)).collect::<Result<Vec<Built>, _>>() {
            Ok(built) => break (runs, built),
            Err(refused) => recognised.refuse(refused.node, refused.why),
        }
    };
    let foreign = foreign(model, &recognised);
    let mut lowered = Lowered { foreign, ..Lowered::default() };
    let mut moved: HashMap<OutletId, OutletId> = HashMap::new();
    for (run, built) in runs.iter().zip(built) {
        replace(model, run, built, &mut moved, &mut lowered)?;
    }
    model.compact()?;
    Ok(lowered)
}

/// Entries by the node that makes their output.
#[derive(Default)]
struct Recognised {
    entries: BTreeMap<usize, Entry>,
    refused: BTreeMap<usize, &'static str>,
}

impl Recognised {
    fn refuse(&mut self, node: usize, why: &'static str) {
        self.entries.remove(&node);
        self.refused.insert(node, why);
    }

    fn covered(&self) -> BTreeSet<usize> {
        self.entries.values().flat_map(|e| e.covers.iter().copied()).collect()
    }
}

fn recognise(model: &TypedModel, options: &Options) -> TractResult<Recognised> {
    let graph = Graph { model };
    let mut recognised = Recognised::default();
    for id in model.eval_order()? {
        match rules::judge(graph, graph.node(id)) {
            Verdict::Ours(entry) => {
                for covered in &entry.covers {
                    recognised.entries.remove(covered);
                }
                recognised.entries.insert(id, entry);
            }
            Verdict::Refused(why) => {
                recognised.refused.insert(id, why);
            }
            Verdict::Foreign => {}
        }
    }
    fuse_bounds(graph, &mut recognised.entries);
    if options.fuse_pools {
        fuse_pools(graph, &mut recognised.entries);
    }
    Ok(recognised)
}

/// A Relu or Clip on codes, which is a table, goes into the layer whose only reader it is; one that changes nothing becomes a view.
fn fuse_bounds(graph: Graph, entries: &mut BTreeMap<usize, Entry>) {
    let tables: Vec<usize> = entries.values().filter(|e| bounds(e).is_some()).map(|e| e.output.node).collect();
    for table in tables {
        let Some([low, high]) = bounds(&entries[&table]) else { continue };
        let input = entries[&table].inputs[0];
        let same_type = graph.tensor(input).map(|t| t.0) == graph.tensor(table.into()).map(|t| t.0);
        if [low, high] == [0, 255] && same_type {
            entries.entry(table).and_modify(|e| e.layer = Layer::View);
            continue;
        }
        let maker = entries.get_mut(&input.node).and_then(|e| e.layer.bounds());
        let Some([least, most]) = maker.filter(|_| graph.users(input) == 1) else { continue };
        (*least, *most) = ((*least).clamp(low, high), (*most).clamp(low, high));
        let (Some(mut maker), Some(table)) = (entries.remove(&input.node), entries.remove(&table)) else { continue };
        maker.covers.push(input.node);
        maker.covers.extend(table.covers);
        maker.output = table.output;
        entries.insert(maker.output.node, maker);
    }
}

/// The bounds of a table that only clamps.
fn bounds(entry: &Entry) -> Option<[u8; 2]> {
    let Layer::Lookup(table) = &entry.layer else { return None };
    let (low, high) = (table[0], table[255]);
    let clamps = low <= high && (0..=255u8).all(|code| table[usize::from(code)] == code.clamp(low, high));
    clamps.then_some([low, high])
}

/// A 2x2 max-pool of stride 2 goes into the convolution whose only reader it is.
fn fuse_pools(graph: Graph, entries: &mut BTreeMap<usize, Entry>) {
    let pools: Vec<usize> = entries.values().filter(|e| is_small_pool(e)).map(|e| e.output.node).collect();
    for pool in pools {
        let input = entries[&pool].inputs[0];
        if graph.users(input) != 1 || !matches!(entries.get(&input.node), Some(Entry { layer: Layer::Conv(_), .. })) {
            continue;
        }
        let (Some(mut conv), Some(pool)) = (entries.remove(&input.node), entries.remove(&pool)) else { continue };
        conv.covers.push(conv.output.node);
        conv.output = pool.output;
        if let Layer::Conv(layer) = &mut conv.layer {
            layer.spec.pool = true;
        }
        entries.insert(conv.output.node, conv);
    }
}

fn is_small_pool(entry: &Entry) -> bool {
    matches!(entry.layer, Layer::MaxPool(Window { kernel: [2, 2], stride: [2, 2], padding: [0, 0, 0, 0] }))
}

/// The entries of each run, in the order of evaluation. Entries of runs that are not worth it are forgotten.
fn split(model: &TypedModel, recognised: &mut Recognised) -> TractResult<Vec<Vec<Entry>>> {
    loop {
        let mut runs = runs(model, recognised)?;
        let worth = |run: &Vec<Entry>| run.iter().any(|e| matches!(e.layer, Layer::Conv(_) | Layer::Dense(_)));
        let idle: Vec<usize> = runs.iter().filter(|r| !worth(r)).flatten().map(|e| e.output.node).collect();
        if idle.is_empty() {
            runs.retain(|r| !r.is_empty());
            return Ok(runs);
        }
        for node in idle {
            recognised.entries.remove(&node);
        }
    }
}

fn runs(model: &TypedModel, recognised: &Recognised) -> TractResult<Vec<Vec<Entry>>> {
    let covered = recognised.covered();
    // (level, whether it is ours)
    let mut levels: HashMap<usize, (usize, bool)> = HashMap::new();
    let mut runs: BTreeMap<usize, Vec<Entry>> = BTreeMap::new();
    for id in model.eval_order()?.into_iter().filter(|id| !covered.contains(id)) {
        let Some(entry) = recognised.entries.get(&id) else {
            let inputs = model.nodes()[id].inputs.iter();
            let level = inputs.filter_map(|i| levels.get(&i.node)).map(|(level, _)| *level).max().unwrap_or(0);
            levels.insert(id, (level, false));
            continue;
        };
        let entering = |input: &OutletId| match levels.get(&input.node) {
            Some((level, true)) => *level,
            Some((level, false)) => level + 1,
            None => 1,
        };
        let level = entry.inputs.iter().map(entering).max().unwrap_or(1);
        levels.insert(id, (level, true));
        runs.entry(level).or_default().push(entry.clone());
    }
    Ok(runs.into_values().collect())
}

/// What computes and stays with tract.
fn foreign(model: &TypedModel, recognised: &Recognised) -> Vec<Foreign> {
    let covered = recognised.covered();
    let stays = |node: &&TypedNode| {
        let ours = covered.contains(&node.id) || recognised.entries.contains_key(&node.id);
        let idle =
            node.op_is::<Const>() || node.op_is::<TypedSource>() || node.op_is::<AxisOp>() || node.op_is::<Cast>();
        let constant = node.outputs.iter().all(|o| o.fact.konst.is_some());
        !ours && !idle && !constant
    };
    let about = |node: &TypedNode| Foreign {
        name: node.name.clone(),
        op: node.op.name().into_owned(),
        why: recognised.refused.get(&node.id).copied(),
    };
    model.nodes().iter().filter(stays).map(about).collect()
}

/// Puts a program in the place of its nodes.
fn replace(
    model: &mut TypedModel,
    run: &[Entry],
    built: Built,
    moved: &mut HashMap<OutletId, OutletId>,
    lowered: &mut Lowered,
) -> TractResult<()> {
    let program = Arc::new(built.program);
    let facts: TVec<TypedFact> = built
        .outputs
        .iter()
        .map(|o| model.outlet_fact(*o).map(|f| f.datum_type.fact(f.shape.clone())))
        .collect::<TractResult<_>>()?;
    let op = Run { program: Arc::clone(&program), facts };
    let name = format!("{} … {}", run.first().map_or("", |e| &e.name), run.last().map_or("", |e| &e.name));
    let mut inputs: Vec<OutletId> = built.inputs.iter().map(|i| *moved.get(i).unwrap_or(i)).collect();
    if let Some(image) = built.image {
        inputs[0] = image_source(model, image, inputs[0])?;
        lowered.image = Some(image);
    }
    let results = model.wire_node(name, op, &inputs)?;
    for (old, new) in built.outputs.iter().zip(results) {
        redirect(model, *old, new)?;
        moved.insert(*old, new);
    }
    lowered.programs.push(program);
    Ok(())
}

/// Everybody who read `old` reads `new`.
fn redirect(model: &mut TypedModel, old: OutletId, new: OutletId) -> TractResult<()> {
    for reader in model.outlet_successors(old).to_vec() {
        model.add_edge(new, reader)?;
    }
    for output in model.outputs.iter_mut().filter(|o| **o == old) {
        *output = new;
    }
    Ok(())
}

/// A new input of the model: the picture as `u8` NHWC codes.
fn image_source(model: &mut TypedModel, image: Image, old: OutletId) -> TractResult<OutletId> {
    let shape = model.outlet_fact(old)?.shape.as_concrete().context("an input of unknown shape")?.to_vec();
    let name = model.nodes()[old.node].name.clone();
    model.rename_node(old.node, &format!("{name}.float"))?;
    let source = model.add_source(name, u8::fact([1, shape[2], shape[3], image.channels]))?;
    // `add_source` appends itself to the inputs; it replaces the old one
    model.set_input_outlets(&[source])?;
    Ok(source)
}
