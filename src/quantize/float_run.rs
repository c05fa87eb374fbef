//! The float network on tract, watched at chosen tensors while photos pass through it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::plan::eval;

use super::float_conv::FloatConv;
use super::onnx::dims;
use super::roles::Shapes;
use crate::capture::decode;
use crate::config::plan::{Fit, Orientation};
use crate::model::{Layout, Manifest, folding};
use crate::preprocess::{InputSpec, InputTensor, Preprocessor, TensorFormat};

/// A node that hands its input on. While the plan runs, [`FloatNetwork::run`] looks at what passes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Watchpoint {
    tensor: usize,
}

impl Op for Watchpoint {
    fn name(&self) -> StaticName {
        "SpotterWatchpoint".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Watchpoint {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(inputs)
    }
}

impl TypedOp for Watchpoint {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].datum_type.fact(inputs[0].shape.clone())))
    }

    as_op!();
}

/// A type-checked float network whose tensors are still known by their ONNX names.
pub(super) struct Typed {
    model: TypedModel,
    tensors: Vec<String>,
    pub(super) shapes: Shapes,
    /// Matrices and filters by name; tract's own copies, so that the message's can go.
    pub(super) weights: HashMap<String, Arc<Tensor>>,
}

/// A layer of the float graph, as the quantised graph will have it.
pub(super) struct FloatLayer {
    /// What it reads.
    pub(super) input: String,
    /// What it makes by itself.
    pub(super) makes: String,
    /// What is made behind its activation.
    pub(super) output: String,
    /// What the activation lets through.
    pub(super) limits: (f32, f32),
    /// For a fully connected layer: its weights and its bias.
    pub(super) dense: Option<(Dense, Vec<f32>)>,
}

/// The weights of a fully connected layer.
pub(super) enum Dense {
    /// `[outputs][inputs]`
    Rows(Arc<Tensor>),
    /// `[inputs][outputs]`
    Columns(Arc<Tensor>),
}

impl Typed {
    /// For one picture of the given shape.
    pub(super) fn new(proto: &ModelProto, folder: Option<&str>, shape: [usize; 4]) -> TractResult<Typed> {
        let parsed = tract_onnx::onnx().parse(proto, folder)?;
        let graph = proto.graph.as_ref().context("no graph")?;
        let output = graph.output.first().context("no output")?.name.clone();
        let names =
            graph.node.iter().flat_map(|n| n.output.iter().cloned()).chain(graph.input.iter().map(|i| i.name.clone()));
        let mut tensors: Vec<String> = vec![output];
        let mut seen: HashSet<String> = tensors.iter().cloned().collect();
        let matrices = graph.initializer.iter().filter(|i| dims(i).len() > 1).map(|i| i.name.clone());
        tensors
            .extend(names.chain(matrices).filter(|n| parsed.outlets_by_name.contains_key(n) && seen.insert(n.clone())));
        let mut model = parsed.model.with_input_fact(0, f32::fact(shape).into())?;
        let outlets: Vec<OutletId> = tensors.iter().filter_map(|t| parsed.outlets_by_name.get(t)).copied().collect();
        ensure!(outlets.len() == tensors.len(), "the output is made by no node");
        model.select_output_outlets(&outlets)?;
        folding::check(&mut model, proto.encoded_len() as u64)?;
        let mut model = model.into_typed()?;
        // a bias is a constant behind a cast until then
        model.prop_consts()?;
        let (mut shapes, mut weights) = (Shapes::new(), HashMap::new());
        for (tensor, outlet) in tensors.iter().zip(&model.outputs) {
            let fact = model.outlet_fact(*outlet)?;
            if let Some(shape) = fact.shape.as_concrete() {
                shapes.insert(tensor.clone(), shape.to_vec());
            }
            if let Some(constant) = &fact.konst {
                weights.insert(tensor.clone(), Arc::clone(constant));
            }
        }
        Ok(Typed { model, tensors, shapes, weights })
    }

    /// Puts our layers in the place of tract's and a watchpoint behind each of `watched`; makes the network ready to run.
    pub(super) fn watch(self, watched: &[String], layers: Vec<FloatLayer>) -> TractResult<FloatNetwork> {
        let Typed { mut model, tensors, shapes, .. } = self;
        let mut places: HashMap<String, OutletId> = tensors.into_iter().zip(model.outputs.iter().copied()).collect();
        let output = model.outputs[0];
        model.select_output_outlets(&[output])?;
        for layer in layers {
            let place = |name: &String| places.get(name).copied();
            let (Some(input), Some(made), Some(old)) = (place(&layer.input), place(&layer.makes), place(&layer.output))
            else {
                continue;
            };
            let ours = match layer.dense {
                Some((weights, bias)) => FloatConv::dense(weights, bias, layer.limits),
                None => FloatConv::of(&model, made.node, layer.limits),
            };
            let theirs = &model.outlet_fact(old)?.shape;
            let Some(ours) = ours.filter(|ours| theirs.as_concrete() == Some(ours.output())) else { continue };
            let new = model.wire_node(format!("{}.ours", layer.output), ours, &[input])?[0];
            redirect(&mut model, old, new)?;
            places.insert(layer.output, new);
        }
        for (tensor, name) in watched.iter().enumerate() {
            let outlet = *places.get(name).with_context(|| format!("no tensor `{name}`"))?;
            let readers = model.outlet_successors(outlet).to_vec();
            let watch = model.wire_node(format!("{name}.watch"), Watchpoint { tensor }, &[outlet])?[0];
            readers.into_iter().try_for_each(|reader| model.add_edge(watch, reader))?;
            model.outputs.iter_mut().filter(|o| **o == outlet).for_each(|o| *o = watch);
        }
        model.compact()?;
        let channels = watched.iter().map(|w| shapes.get(w).and_then(|s| s.get(1)).copied().unwrap_or(1)).collect();
        let plan = TypedSimplePlan::new(model.into_optimized()?)?;
        let (light, spares) = (lighter_from(&plan), Spares::of(&plan));
        Ok(FloatNetwork { plan, channels, light, heavy: Mutex::new(()), spares })
    }
}

/// The node behind which no tensor is larger than a quarter of the largest; `None` where the tensors are small beside the weights,
/// or are large to the end.
fn lighter_from(plan: &TypedSimplePlan) -> Option<usize> {
    let size = |fact: &TypedFact| fact.shape.as_concrete().map_or(0, |s| s.iter().product::<usize>());
    let outputs = |id: usize| plan.model().nodes()[id].outputs.iter().map(|o| size(&o.fact));
    let constants = plan.model().nodes().iter().flat_map(|n| &n.outputs).filter_map(|o| o.fact.konst.as_ref());
    let ours = plan.model().nodes().iter().filter_map(|n| n.op_as::<FloatConv>()).map(FloatConv::weights);
    let weights: usize = constants.map(|k| k.len()).sum::<usize>() + ours.sum::<usize>();
    let order = plan.order_without_consts();
    let largest = order.iter().flat_map(|id| outputs(*id)).max().unwrap_or(0);
    // a layer's input and output, of another thread
    if 8 * largest < weights {
        return None;
    }
    let last = order.iter().rposition(|id| outputs(*id).any(|size| size > largest / 4))?;
    // its reader is done with it
    order.get(last + 2).copied()
}

/// Everybody who read `old` reads `new`.
fn redirect(model: &mut TypedModel, old: OutletId, new: OutletId) -> TractResult<()> {
    model.outlet_successors(old).to_vec().into_iter().try_for_each(|reader| model.add_edge(new, reader))?;
    model.outputs.iter_mut().filter(|o| **o == old).for_each(|o| *o = new);
    Ok(())
}

/// Ready to run; shared by all threads.
pub(super) struct FloatNetwork {
    plan: Arc<TypedSimplePlan>,
    /// Of each watched tensor.
    pub(super) channels: Vec<usize>,
    /// Until this node, a photo's tensors are large, and one photo at a time is there.
    light: Option<usize>,
    heavy: Mutex<()>,
    spares: Spares,
}

/// Tensors that have been read, for the next layer of the same shape: what is new comes from the system page by page, at a fault each.
struct Spares {
    /// What the layers make, without the large ones, which come on large pages.
    shapes: HashSet<Vec<usize>>,
    tensors: Mutex<Vec<Tensor>>,
}

impl Spares {
    /// Elements of a tensor that is kept.
    const LARGEST: usize = 1 << 20;
    /// Elements of all that are kept.
    const ALL: usize = 1 << 20;

    fn of(plan: &TypedSimplePlan) -> Spares {
        let made = plan.model().nodes().iter().filter_map(|n| Some(n.op_as::<FloatConv>()?.output().to_vec()));
        let shapes = made.filter(|s| s.iter().product::<usize>() <= Spares::LARGEST).collect();
        Spares { shapes, tensors: Mutex::new(Vec::new()) }
    }

    fn tensors(&self) -> MutexGuard<'_, Vec<Tensor>> {
        self.tensors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tensor of this shape; what is in it does not matter.
    fn take(&self, shape: &[usize]) -> TractResult<Tensor> {
        let mut tensors = self.tensors();
        let found = tensors.iter().position(|t| t.shape() == shape).map(|at| tensors.swap_remove(at));
        drop(tensors);
        found.map_or_else(|| crate::memory::zeros(shape), Ok)
    }

    /// Takes what nobody else holds.
    fn give(&self, values: TVec<TValue>) {
        for value in values {
            let Ok(tensor) = Arc::try_unwrap(value.into_arc_tensor()) else { continue };
            let mut tensors = self.tensors();
            let all = tensors.iter().map(Tensor::len).sum::<usize>() + tensor.len();
            let wanted = tensor.datum_type() == f32::datum_type() && self.shapes.contains(tensor.shape());
            if wanted && all <= Spares::ALL {
                tensors.push(tensor);
            }
        }
    }
}

impl FloatNetwork {
    /// A state of one thread.
    pub(super) fn state(&self) -> TractResult<TypedSimpleState> {
        self.plan.spawn()
    }

    /// Runs one picture; `look` sees each watched tensor once, in the order in which they are made.
    pub(super) fn run(
        &self,
        state: &mut TypedSimpleState,
        input: Tensor,
        look: &mut dyn FnMut(usize, &[f32]) -> TractResult<()>,
    ) -> TractResult<Vec<f32>> {
        let lock = || self.heavy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut alone = self.light.is_some().then(lock);
        let results =
            state.run_plan_with_eval(tvec!(input.into_tvalue()), |context, state, node, inputs| -> TractResult<_> {
                if self.light == Some(node.id) {
                    alone = None;
                }
                if let Some(watch) = node.op_as::<Watchpoint>() {
                    look(watch.tensor, inputs[0].try_as_plain_ram()?.as_slice::<f32>()?)?;
                    return Ok(inputs);
                }
                if let Some(layer) = node.op_as::<FloatConv>() {
                    let made = layer.make(&inputs, self.spares.take(layer.output())?)?;
                    self.spares.give(inputs);
                    return Ok(made);
                }
                // a pooling reads a layer's tensor as the last one; other operators may make theirs in its place
                let read = if node.op.name().contains("Pool") { inputs.clone() } else { TVec::new() };
                let made = eval(context, state, node, inputs)?;
                self.spares.give(read);
                Ok(made)
            })?;
        let scores = results[0].cast_to::<f32>()?;
        Ok(scores.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
    }
}

/// From a photo's file to the float network's input, as the manifest says.
#[derive(Clone)]
pub(super) struct Photos {
    preprocessor: Preprocessor,
    layout: Layout,
    size: [usize; 2],
}

impl Photos {
    pub(super) fn new(manifest: &Manifest, layout: Layout) -> Photos {
        let input = InputSpec {
            height: manifest.height,
            width: manifest.width,
            format: TensorFormat::F32Nchw,
            preprocess: manifest.preprocess.clone(),
        };
        let preprocessor = Preprocessor::new(&input, Fit::Crop, Orientation::default());
        Photos { preprocessor, layout, size: [manifest.height, manifest.width] }
    }

    /// # Errors
    /// The photo cannot be read; the message names it.
    pub(super) fn tensor(&mut self, photo: &Path) -> Result<Tensor, String> {
        let rgb = decode::decode_file(photo).map_err(|e| e.to_string())?;
        let mut input = InputTensor::F32(Vec::new());
        self.preprocessor.fill(&rgb, None, &mut input).map_err(|e| format!("{}: {e}", photo.display()))?;
        let InputTensor::F32(values) = input else { return Err("the preprocessor made no floats".into()) };
        let ([height, width], pixels) = (self.size, self.size[0] * self.size[1]);
        let tensor = match self.layout {
            Layout::Nchw => Tensor::from_shape(&[1, 3, height, width], &values),
            Layout::Nhwc => {
                let values: Vec<f32> = (0..3 * pixels).map(|i| values[i % 3 * pixels + i / 3]).collect();
                Tensor::from_shape(&[1, height, width, 3], &values)
            }
        };
        tensor.map_err(|e| e.to_string())
    }
}

/// Hands the photos out to `threads` threads, each with a worker of its own; collects the workers. `done` is called on this
/// thread for each photo.
///
/// # Errors
/// The first error of any; the others stop then.
pub(super) fn share<W: Send>(
    photos: &[PathBuf],
    threads: usize,
    worker: impl Fn() -> Result<W, String> + Sync,
    work: impl Fn(&mut W, &Path) -> Result<(), String> + Sync,
    done: &mut dyn FnMut(),
) -> Result<Vec<W>, String> {
    let next = AtomicUsize::new(0);
    let (tell, hear) = mpsc::channel();
    let one = |tell: mpsc::Sender<()>| {
        let mut own = worker()?;
        while let Some(photo) = photos.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(&mut own, photo) {
                next.store(photos.len(), Ordering::Relaxed);
                return Err(error);
            }
            // nobody hears it only when this function is over
            let _ = tell.send(());
        }
        Ok(own)
    };
    let one = &one;
    std::thread::scope(|scope| {
        let begin = |_| {
            let tell = tell.clone();
            scope.spawn(move || one(tell))
        };
        let threads: Vec<_> = (0..threads.clamp(1, photos.len().max(1))).map(begin).collect();
        drop(tell);
        hear.iter().for_each(|()| done());
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a worker died".into()))).collect()
    })
}
