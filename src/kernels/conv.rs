//! [`Conv`]: a convolution with its weights packed for one kernel.

use super::{
    ConvSpec, Kernel, KernelError, Kind, Method, Pool, Requantize, Scratch, Strategy, generic,
    packed::{Packed, Packer, Part, Parts},
    scratch::Shared,
};
use serde::{Deserialize, Serialize};

/// A checked layer, borrowed while an algorithm packs it.
pub(crate) struct Layer<'a> {
    pub(crate) spec: &'a ConvSpec,
    /// `[out][kernel height][kernel width][in / groups]`
    pub(crate) weights: &'a [i8],
    /// The last axis of the weights has two for each one, which add up to it. Only for depthwise layers.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "its kernels are told of copies instead"))]
    pub(crate) pairs: bool,
    pub(crate) bias: &'a [i32],
    pub(crate) requantize: &'a Requantize,
}

impl Layer<'_> {
    /// The weights of one output channel.
    pub(crate) fn channel(&self, c: usize) -> &[i8] {
        let each = self.weights.len() / self.spec.out_channels;
        &self.weights[c * each..][..each]
    }

    /// By channel, what to add to `Σ weight * (code - bias of the activation's type)`: the bias less the zero point's share. All modulo 2^32.
    pub(crate) fn offsets(&self, activation_bias: i32) -> Vec<i32> {
        let zero = i32::from(self.spec.input_zero_point) - activation_bias;
        let offset = |(c, &bias): (usize, &i32)| {
            let sum = self.channel(c).iter().fold(0i32, |sum, &w| sum.wrapping_add(i32::from(w)));
            bias.wrapping_sub(sum.wrapping_mul(zero))
        };
        self.bias.iter().enumerate().map(offset).collect()
    }
}

/// One way to run a layer. Input and output have the lengths that the shapes ask for; the output has at least one pixel.
pub(crate) trait Algorithm: Send + Sync {
    fn name(&self) -> &'static str;
    fn run(&self, pool: &Pool, input: &[u8], shape: [usize; 2], output: &mut [u8], scratch: &mut Scratch);
}

/// A convolution, ready to run: checked, and its weights packed in the order in which its kernel reads them.
pub struct Conv {
    recipe: ConvRecipe,
    parts: Parts,
    algorithm: Box<dyn Algorithm>,
}

/// A [`Conv`] without its parts: with them, it is made again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConvRecipe {
    kernel: Kernel,
    strategy: Strategy,
    spec: ConvSpec,
    pairs: bool,
    requantize: Requantize,
    decisions: Vec<bool>,
}

impl Conv {
    /// Checks and packs. `weights` are `[out][kernel height][kernel width][in / groups]`, `bias` and the multipliers one an output channel.
    ///
    /// # Errors
    /// The kernel is not available, a length does not follow from `spec`, or a value makes no sense.
    pub fn new(
        kernel: Kernel,
        spec: ConvSpec,
        weights: &[i8],
        bias: &[i32],
        requantize: Requantize,
    ) -> Result<Self, KernelError> {
        Self::with_strategy(kernel, Strategy::Auto, spec, weights, bias, requantize)
    }

    /// [`Conv::new`] with the algorithm's kind forced, for measurements and tests.
    ///
    /// # Errors
    /// As [`Conv::new`].
    pub fn with_strategy(
        kernel: Kernel,
        strategy: Strategy,
        spec: ConvSpec,
        weights: &[i8],
        bias: &[i32],
        requantize: Requantize,
    ) -> Result<Self, KernelError> {
        Self::checked(
            ConvRecipe { kernel, strategy, spec, pairs: false, requantize, decisions: Vec::new() },
            weights,
            bias,
        )
    }

    /// A depthwise convolution whose weights have 9 bits: two values in place of each one, side by side, that add up to it.
    ///
    /// # Errors
    /// As [`Conv::new`], and when the layer is not depthwise or the kernel does not [take it](Conv::takes_pairs).
    pub fn of_pairs(
        kernel: Kernel,
        spec: ConvSpec,
        weights: &[i8],
        bias: &[i32],
        requantize: Requantize,
    ) -> Result<Self, KernelError> {
        let strategy = Strategy::Auto;
        Self::checked(
            ConvRecipe { kernel, strategy, spec, pairs: true, requantize, decisions: Vec::new() },
            weights,
            bias,
        )
    }

    /// Whether [`Conv::of_pairs`] serves a layer: the kernel multiplies depthwise layers in 16 bits, and one input makes one output.
    pub fn takes_pairs(kernel: Kernel, spec: &ConvSpec) -> bool {
        let depthwise = spec.groups > 1 && [spec.in_channels, spec.out_channels] == [spec.groups; 2] && !spec.pool;
        depthwise && matches!(kernel, Kernel::Avx2 | Kernel::Vnni)
    }

    fn checked(recipe: ConvRecipe, weights: &[i8], bias: &[i32]) -> Result<Self, KernelError> {
        check_length("weights", recipe.check()?, weights.len())?;
        check_length("bias", recipe.spec.out_channels, bias.len())?;
        Self::pack(recipe, weights, bias, Packer::new())
    }

    /// The layer that [`Conv::recipe`] and [`Conv::parts`] were taken from.
    ///
    /// # Errors
    /// As [`Conv::new`], and when the parts are not this layer's.
    pub fn restore(recipe: ConvRecipe, arrays: Vec<Part>) -> Result<Self, KernelError> {
        recipe.check()?;
        let parts = Parts { arrays, decisions: recipe.decisions.clone() };
        Self::pack(recipe, &[], &[], Packer::with(parts))
    }

    fn pack(mut recipe: ConvRecipe, weights: &[i8], bias: &[i32], mut packer: Packer) -> Result<Self, KernelError> {
        let ConvRecipe { spec, pairs, requantize, .. } = &recipe;
        let layer = Layer { spec, weights, pairs: *pairs, bias, requantize };
        let algorithm = fast(recipe.kernel, recipe.strategy, &layer, &mut packer);
        let algorithm = algorithm.unwrap_or_else(|| Box::new(Generic::new(&layer, &mut packer)));
        let parts = packer.finish()?;
        recipe.decisions.clone_from(&parts.decisions);
        Ok(Self { recipe, parts, algorithm })
    }

    /// What the layer is, apart from its packed weights.
    pub fn recipe(&self) -> &ConvRecipe {
        &self.recipe
    }

    /// The packed weights, in an order of the kernel's own.
    pub fn parts(&self) -> &[Part] {
        &self.parts.arrays
    }

    /// What it computes.
    pub fn spec(&self) -> &ConvSpec {
        &self.recipe.spec
    }

    /// Height and width of the output, after the fused pool if any, for an input of height and width `shape`; `None` where nothing would be left.
    pub fn output_shape(&self, shape: [usize; 2]) -> Option<[usize; 2]> {
        output_shape(self.spec(), shape)
    }

    /// Instruction set and method, such as `direct-vnni`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// Multiplications that the definition asks for at this input shape (an algorithm may need fewer).
    pub fn macs(&self, shape: [usize; 2]) -> u64 {
        let spec = self.spec();
        let [height, width] = convolved_shape(spec, shape).unwrap_or_default();
        let each = spec.kernel[0] * spec.kernel[1] * (spec.in_channels / spec.groups);
        (height * width * spec.out_channels * each) as u64
    }

    /// Convolves `input` (NHWC codes, `shape` pixels of `in_channels`) into `output` (NHWC, [`Conv::output_shape`] pixels of `out_channels`).
    ///
    /// Allocates nothing, once `scratch` has seen the model's largest layer.
    ///
    /// # Panics
    /// When the length of `input` or `output` does not follow from `shape`, or `shape` leaves no output.
    pub fn run(&self, pool: &Pool, input: &[u8], shape: [usize; 2], output: &mut [u8], scratch: &mut Scratch) {
        let out = self.output_shape(shape).expect("a convolution needs an input that its kernel fits into");
        assert_eq!(input.len(), shape[0] * shape[1] * self.spec().in_channels, "the convolution's input");
        assert_eq!(output.len(), out[0] * out[1] * self.spec().out_channels, "the convolution's output");
        self.algorithm.run(pool, input, shape, output, scratch);
    }
}

impl std::fmt::Debug for Conv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conv").field("spec", self.spec()).field("algorithm", &self.algorithm()).finish()
    }
}

impl ConvRecipe {
    /// The number of weights, when everything makes sense.
    fn check(&self) -> Result<usize, KernelError> {
        self.kernel.check()?;
        let spec = &self.spec;
        check_spec(spec)?;
        check_requantize(spec.out_channels, &self.requantize)?;
        if self.pairs && !Conv::takes_pairs(self.kernel, spec) {
            return Err(KernelError::Spec("pairs of weights are for depthwise layers, and not on this kernel"));
        }
        let [kernel_height, kernel_width] = spec.kernel;
        [kernel_height, kernel_width, spec.in_channels / spec.groups, if self.pairs { 2 } else { 1 }]
            .into_iter()
            .try_fold(spec.out_channels, usize::checked_mul)
            .ok_or(KernelError::Spec("its weights are more than a machine can address"))
    }
}

fn fast(kernel: Kernel, strategy: Strategy, layer: &Layer, packer: &mut Packer) -> Option<Box<dyn Algorithm>> {
    let method = Method::of(kernel, strategy, Kind::of(layer.spec));
    #[cfg(target_arch = "aarch64")]
    return super::aarch64::conv(kernel, method, layer, packer);
    #[cfg(target_arch = "x86_64")]
    return super::x86_64::conv(kernel, method, layer, packer);
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    return None;
}

/// Height and width before the fused pool.
pub(crate) fn convolved_shape(spec: &ConvSpec, shape: [usize; 2]) -> Option<[usize; 2]> {
    let side = |d: usize| {
        let window = (spec.kernel[d] - 1) * spec.dilation[d] + 1;
        let room = (shape[d] + spec.padding[d] + spec.padding[d + 2]).checked_sub(window)?;
        (shape[d] > 0).then_some(room / spec.stride[d] + 1)
    };
    Some([side(0)?, side(1)?])
}

fn output_shape(spec: &ConvSpec, shape: [usize; 2]) -> Option<[usize; 2]> {
    let divisor = if spec.pool { 2 } else { 1 };
    let out = convolved_shape(spec, shape)?.map(|side| side / divisor);
    (out[0] > 0 && out[1] > 0).then_some(out)
}

fn check_spec(spec: &ConvSpec) -> Result<(), KernelError> {
    let positive = [spec.in_channels, spec.out_channels, spec.groups].into_iter();
    if positive.chain(spec.kernel).chain(spec.stride).chain(spec.dilation).any(|v| v == 0) {
        return Err(KernelError::Spec("channels, groups, kernel, stride and dilation must be at least 1"));
    }
    if ![spec.in_channels, spec.out_channels].iter().all(|c| c.is_multiple_of(spec.groups)) {
        return Err(KernelError::Spec("the channels must be a multiple of the groups"));
    }
    // Far above any network, and far below where the arithmetic on shapes could overflow.
    let sizes = spec.kernel.into_iter().chain(spec.stride).chain(spec.dilation).chain(spec.padding);
    if sizes.chain([spec.in_channels, spec.out_channels]).any(|v| v > 1 << 20) {
        return Err(KernelError::Spec("a size above 2^20"));
    }
    Ok(())
}

pub(crate) fn check_length(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found { Ok(()) } else { Err(KernelError::Length { what, expected, found }) }
}

pub(crate) fn check_requantize(outputs: usize, requantize: &Requantize) -> Result<(), KernelError> {
    check_length("the multiplier", outputs, requantize.multiplier.len())?;
    if !requantize.multiplier.iter().all(|m| m.is_finite() && *m > 0.0) {
        return Err(KernelError::Requantize("every multiplier must be positive and finite"));
    }
    if requantize.min > requantize.max {
        return Err(KernelError::Requantize("the smallest code is above the largest"));
    }
    Ok(())
}

/// `generic` on all threads, a row a task.
struct Generic {
    spec: ConvSpec,
    weights: Packed<i8>,
    bias: Packed<i32>,
    requantize: Requantize,
}

impl Generic {
    fn new(layer: &Layer, packer: &mut Packer) -> Self {
        let spec = layer.spec;
        let count = spec.out_channels * spec.kernel[0] * spec.kernel[1] * (spec.in_channels / spec.groups);
        Self {
            spec: spec.clone(),
            weights: packer.array(count, |to| to.copy_from_slice(layer.weights)),
            bias: packer.array(spec.out_channels, |to| to.copy_from_slice(layer.bias)),
            requantize: layer.requantize.clone(),
        }
    }
}

impl Algorithm for Generic {
    fn name(&self) -> &'static str {
        "generic"
    }

    fn run(&self, pool: &Pool, input: &[u8], shape: [usize; 2], output: &mut [u8], _: &mut Scratch) {
        let Some([rows, _]) = output_shape(&self.spec, shape) else { return };
        let each = output.len() / rows;
        let output = Shared(output.as_mut_ptr());
        pool.run(rows, |row, _| {
            // SAFETY: the output is `rows * each` bytes long, and each row is one task's alone.
            let output = unsafe { std::slice::from_raw_parts_mut(output.get().add(row * each), each) };
            let rows = row..row + 1;
            generic::convolve_rows(&self.spec, &self.weights, &self.bias, &self.requantize, input, shape, rows, output);
        });
    }
}
