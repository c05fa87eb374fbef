//! [`Dense`]: a fully connected layer at the memory's speed.
//!
//! One inference uses each weight once, so the weights stream past the CPU: packed in the order in which they are read, one stream a
//! block of outputs, prefetched far ahead; the input (25 kB for VGG16) stays in L1. Blocks are the tasks.

use super::{
    Kernel, KernelError, Pool, Requantize, Scratch,
    conv::{check_length, check_requantize},
    direct::Element,
    generic,
    packed::{Packed, Packer, Part, Parts},
    requantize::{Epilogue, Sums, Target},
    scratch::{LINE, Shared},
};
use serde::{Deserialize, Serialize};

/// The inner loop of a dense layer.
///
/// # Safety
/// The driver gives memory by this contract, and an implementation must stay inside of it:
/// - `block` reads `groups * GROUP` elements of `input` (aligned to 64 bytes), `groups * CHANNELS * GROUP` weights (aligned to 64 bytes, as
///   `[group][CHANNELS][GROUP]`), prefetches anything, and writes `CHANNELS` sums to `acc` (aligned to 64 bytes), modulo 2^32;
/// - `requantize` writes as [`requantize::pixels`](super::requantize::pixels) with `N = CHANNELS` and one pixel does.
///
/// Both are called only on a CPU that has the kernel's features.
pub(crate) unsafe trait Stream: Send + Sync + 'static {
    /// What an input is.
    type Activation: Element;
    /// As [`Dense::algorithm`] shows it.
    const NAME: &'static str;
    /// Outputs of a block.
    const CHANNELS: usize;
    /// Inputs that one instruction multiplies and sums for each output.
    const GROUP: usize;

    /// Multiplies.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn block(input: *const Self::Activation, weights: *const i8, groups: usize, acc: *mut i32);

    /// Requantises a block.
    ///
    /// # Safety
    /// As [`requantize::pixels`](super::requantize::pixels).
    unsafe fn requantize(epilogue: &Epilogue, first: usize, sums: Sums, target: Target);
}

/// A checked layer, borrowed while it is packed.
pub(crate) struct DenseLayer<'a> {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// `[out][in]`
    pub(crate) weights: &'a [i8],
    pub(crate) bias: &'a [i32],
    pub(crate) input_zero_point: u8,
    pub(crate) requantize: &'a Requantize,
}

impl DenseLayer<'_> {
    /// By output, what to add to `Σ weight * (code - bias of the activation's type)`: the bias less the zero point's share. All modulo 2^32.
    pub(crate) fn offsets(&self, activation_bias: i32) -> Vec<i32> {
        let zero = i32::from(self.input_zero_point) - activation_bias;
        let offset = |(row, &bias): (&[i8], &i32)| {
            let sum = row.iter().fold(0i32, |sum, &w| sum.wrapping_add(i32::from(w)));
            bias.wrapping_sub(sum.wrapping_mul(zero))
        };
        self.weights.chunks_exact(self.inputs).zip(self.bias).map(offset).collect()
    }
}

pub(crate) trait DenseAlgorithm: Send + Sync {
    fn name(&self) -> &'static str;
    fn run(&self, pool: &Pool, input: &[u8], output: &mut [u8], scratch: &mut Scratch);
}

/// A dense layer, ready to run: `output[c] = requantize(bias[c] + Σ weight[c][i] * (input[i] - input_zero_point))`.
pub struct Dense {
    recipe: DenseRecipe,
    parts: Parts,
    algorithm: Box<dyn DenseAlgorithm>,
}

/// A [`Dense`] without its parts: with them, it is made again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DenseRecipe {
    kernel: Kernel,
    inputs: usize,
    outputs: usize,
    input_zero_point: u8,
    requantize: Requantize,
    decisions: Vec<bool>,
}

impl Dense {
    /// Checks and packs. `weights` are `[out][in]`, `bias` and the multipliers one an output.
    ///
    /// # Errors
    /// The kernel is not available, a length does not follow from the sizes, or a value makes no sense.
    pub fn new(
        kernel: Kernel,
        inputs: usize,
        outputs: usize,
        weights: &[i8],
        bias: &[i32],
        input_zero_point: u8,
        requantize: Requantize,
    ) -> Result<Self, KernelError> {
        let recipe = DenseRecipe { kernel, inputs, outputs, input_zero_point, requantize, decisions: Vec::new() };
        check_length("weights", recipe.check()?, weights.len())?;
        check_length("bias", outputs, bias.len())?;
        Self::pack(recipe, weights, bias, Packer::new())
    }

    /// The layer that [`Dense::recipe`] and [`Dense::parts`] were taken from.
    ///
    /// # Errors
    /// As [`Dense::new`], and when the parts are not this layer's.
    pub fn restore(recipe: DenseRecipe, arrays: Vec<Part>) -> Result<Self, KernelError> {
        recipe.check()?;
        let parts = Parts { arrays, decisions: recipe.decisions.clone() };
        Self::pack(recipe, &[], &[], Packer::with(parts))
    }

    fn pack(mut recipe: DenseRecipe, weights: &[i8], bias: &[i32], mut packer: Packer) -> Result<Self, KernelError> {
        let DenseRecipe { kernel, inputs, outputs, input_zero_point, ref requantize, .. } = recipe;
        let layer = DenseLayer { inputs, outputs, weights, bias, input_zero_point, requantize };
        let algorithm = fast(kernel, &layer, &mut packer);
        let algorithm = algorithm.unwrap_or_else(|| Box::new(Plain::new(&layer, &mut packer)));
        let parts = packer.finish()?;
        recipe.decisions.clone_from(&parts.decisions);
        Ok(Self { recipe, parts, algorithm })
    }

    /// What the layer is, apart from its packed weights.
    pub fn recipe(&self) -> &DenseRecipe {
        &self.recipe
    }

    /// The packed weights, in an order of the kernel's own.
    pub fn parts(&self) -> &[Part] {
        &self.parts.arrays
    }

    /// Values read.
    pub fn inputs(&self) -> usize {
        self.recipe.inputs
    }

    /// Values written.
    pub fn outputs(&self) -> usize {
        self.recipe.outputs
    }

    /// Instruction set and method.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// Multiplications.
    pub fn macs(&self) -> u64 {
        (self.inputs() * self.outputs()) as u64
    }

    /// Computes `outputs` codes from `inputs` codes. Allocates nothing, once `scratch` has seen the model's largest layer.
    ///
    /// # Panics
    /// When a length is wrong.
    pub fn run(&self, pool: &Pool, input: &[u8], output: &mut [u8], scratch: &mut Scratch) {
        assert_eq!(input.len(), self.inputs(), "the dense layer's input");
        assert_eq!(output.len(), self.outputs(), "the dense layer's output");
        self.algorithm.run(pool, input, output, scratch);
    }
}

impl std::fmt::Debug for Dense {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let DenseRecipe { inputs, outputs, .. } = self.recipe;
        write!(f, "Dense({inputs} -> {outputs}, {})", self.algorithm())
    }
}

impl DenseRecipe {
    /// The number of weights, when everything makes sense.
    fn check(&self) -> Result<usize, KernelError> {
        self.kernel.check()?;
        if self.inputs == 0 || self.outputs == 0 {
            return Err(KernelError::Spec("a dense layer needs at least one input and one output"));
        }
        check_requantize(self.outputs, &self.requantize)?;
        let count = self.inputs.checked_mul(self.outputs);
        count.ok_or(KernelError::Spec("its weights are more than a machine can address"))
    }
}

fn fast(kernel: Kernel, layer: &DenseLayer, packer: &mut Packer) -> Option<Box<dyn DenseAlgorithm>> {
    #[cfg(target_arch = "aarch64")]
    return super::aarch64::dense(kernel, layer, packer);
    #[cfg(target_arch = "x86_64")]
    return super::x86_64::dense(kernel, layer, packer);
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    return None;
}

/// A dense layer packed for a [`Stream`].
pub(crate) struct Streamed<S: Stream> {
    inputs: usize,
    outputs: usize,
    /// `[block][group][CHANNELS][GROUP]`
    weights: Packed<i8>,
    epilogue: Epilogue,
    _stream: std::marker::PhantomData<S>,
}

impl<S: Stream> Streamed<S> {
    pub(crate) fn new(layer: &DenseLayer, packer: &mut Packer) -> Self {
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let block = inputs.div_ceil(S::GROUP) * S::CHANNELS * S::GROUP;
        let weights = packer.array(outputs.div_ceil(S::CHANNELS) * block, |to| {
            let rows = layer.weights.chunks(inputs * S::CHANNELS);
            for (rows, block) in rows.zip(to.chunks_exact_mut(block)) {
                Self::pack_block(rows, inputs, block);
            }
        });
        let offsets = || layer.offsets(S::Activation::BIAS);
        let epilogue = Epilogue::new(packer, layer.requantize, offsets, 1, S::CHANNELS);
        Self { inputs, outputs, weights, epilogue, _stream: std::marker::PhantomData }
    }

    fn pack_block(rows: &[i8], inputs: usize, block: &mut [i8]) {
        /// Groups of one row that are copied before the next row's: a cache line or so.
        const STEP: usize = 32;
        let groups = inputs.div_ceil(S::GROUP);
        for first in (0..groups).step_by(STEP) {
            for (c, row) in rows.chunks_exact(inputs).enumerate() {
                let from = row[first * S::GROUP..].chunks(S::GROUP).take(STEP);
                let to = block[first * S::CHANNELS * S::GROUP..].chunks_exact_mut(S::CHANNELS * S::GROUP);
                for (from, to) in from.zip(to) {
                    let to = &mut to[c * S::GROUP..][..S::GROUP];
                    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
                }
            }
        }
    }
}

impl<S: Stream> DenseAlgorithm for Streamed<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn run(&self, pool: &Pool, input: &[u8], output: &mut [u8], scratch: &mut Scratch) {
        let groups = self.inputs.div_ceil(S::GROUP);
        let acc_bytes = S::CHANNELS * size_of::<i32>();
        let areas = scratch.areas(groups * S::GROUP * size_of::<S::Activation>(), pool.threads(), acc_bytes + LINE);
        let elements = areas.shared().cast::<S::Activation>();
        // SAFETY: `shared` was asked for with this length; any bytes are a valid element; no task runs yet.
        let copy = unsafe { std::slice::from_raw_parts_mut(elements, groups * S::GROUP) };
        copy[..self.inputs].iter_mut().zip(input).for_each(|(to, &code)| *to = S::Activation::from_code(code));
        // Their weights are zero; the values only need to be the same each time.
        copy[self.inputs..].fill(S::Activation::from_code(0));
        let elements = Shared(elements);
        let output = Shared(output.as_mut_ptr());
        pool.run(self.outputs.div_ceil(S::CHANNELS), |block, worker| {
            let first = block * S::CHANNELS;
            // SAFETY: the block is a packed one, its outputs are this task's, and the worker's area holds its sums.
            unsafe {
                let acc = areas.of(worker).cast::<i32>();
                let weights = self.weights.as_ptr().add(block * groups * S::CHANNELS * S::GROUP);
                S::block(elements.get(), weights, groups, acc);
                let output = output.get().add(first);
                let channels = S::CHANNELS.min(self.outputs - first);
                let sums = Sums { first: acc, across: 0, rows: 1, columns: 1 };
                S::requantize(&self.epilogue, first, sums, Target { output, stride: 0, row: 0, channels });
            }
        });
    }
}

/// `generic` on all threads.
struct Plain {
    weights: Packed<i8>,
    bias: Packed<i32>,
    input_zero_point: u8,
    requantize: Requantize,
}

impl Plain {
    fn new(layer: &DenseLayer, packer: &mut Packer) -> Self {
        Self {
            weights: packer.array(layer.inputs * layer.outputs, |to| to.copy_from_slice(layer.weights)),
            bias: packer.array(layer.outputs, |to| to.copy_from_slice(layer.bias)),
            input_zero_point: layer.input_zero_point,
            requantize: layer.requantize.clone(),
        }
    }
}

impl DenseAlgorithm for Plain {
    fn name(&self) -> &'static str {
        "generic"
    }

    fn run(&self, pool: &Pool, input: &[u8], output: &mut [u8], _: &mut Scratch) {
        let to = Shared(output.as_mut_ptr());
        pool.run(output.len(), |c, _| {
            let code = generic::dense(&self.weights, &self.bias, &self.requantize, self.input_zero_point, input, c);
            // SAFETY: `c` is below the output's length, and this task's alone.
            unsafe { to.get().add(c).write(code) };
        });
    }
}
